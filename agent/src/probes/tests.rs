use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
    time::Instant,
};

use titan_api::{
    Digest, Name, Revision,
    health::{ExecProbe, FileProbe, HttpProbe, TcpProbe},
};
use uuid::Uuid;

use super::*;

fn ground(timeout: Duration) -> ProbeGround {
    let name = |text: &str| Name::new(text).expect("name");
    let target = Target {
        id: Uuid::from_u128(1),
        workspace: name("shop"),
        name: name("web"),
        release: "web#7".to_owned(),
        revision: Revision::ZERO,
        digest: Digest::of(b"x"),
        depends_on: vec![],
    };
    let exec = Some(Exec::default());
    ProbeGround { target, home: "/".into(), exec, timeout, polled: false, callers: Callers::default() }
}

const LONG: Duration = Duration::from_secs(30);

/// Answers every connection with what `answer` writes; returns the address.
fn serve(answer: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("address").to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("stream");
            let mut request = [0; 1024];
            let _request = stream.read(&mut request);
            let _gone = answer(&mut stream);
        }
    });
    address
}

fn http(url: String, status: Option<u16>, contains: Option<&str>) -> Probe {
    Probe::Http(HttpProbe { url, status, contains: contains.map(str::to_owned) })
}

#[tokio::test]
async fn a_url_answers_with_its_status_and_text() {
    let ok = serve(|to| to.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nall well"));
    let (ok, ground) = (format!("http://{ok}/"), ground(LONG));
    assert_eq!(ask(&http(ok.clone(), None, None), &ground).await, Ok(()));
    assert_eq!(ask(&http(ok.clone(), Some(200), Some("well")), &ground).await, Ok(()));
    let why = ask(&http(ok.clone(), Some(204), None), &ground).await.expect_err("status");
    assert_eq!(why, "status 200, expected 204");
    let why = ask(&http(ok, None, Some("ill")), &ground).await.expect_err("text");
    assert_eq!(why, "status 200, but the first 8 bytes of the body do not hold \"ill\"");
    let moved = serve(|to| to.write_all(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\n\r\n"));
    assert_eq!(ask(&http(format!("http://{moved}/"), None, None), &ground).await, Ok(()), "it is not followed");
    let broken = serve(|to| to.write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"));
    assert_eq!(ask(&http(format!("http://{broken}/"), None, None), &ground).await, Err("status 503".to_owned()));
    for bad in ["no url", "ftp://localhost/", "http://", "/x"] {
        assert!(ask(&http(bad.to_owned(), None, None), &ground).await.is_err(), "{bad}");
    }
}

/// Answers every connection over TLS, with a certificate that nobody trusts; returns the port.
fn serve_strangely() -> u16 {
    let own = rcgen::generate_simple_self_signed(["titan.example".to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).expect("a key");
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_no_client_auth();
    let config = config.with_single_cert(vec![own.cert.der().clone()], key).expect("a certificate");
    let config = std::sync::Arc::new(config);
    let listener = TcpListener::bind("0.0.0.0:0").expect("listen");
    let port = listener.local_addr().expect("address").port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(config.clone()).expect("a connection");
            let mut stream = rustls::StreamOwned::new(connection, stream.expect("stream"));
            let _asked = stream.read(&mut [0; 1024]);
            let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
    });
    port
}

#[tokio::test]
async fn a_certificate_has_to_be_trusted_unless_it_is_the_hosts_own() {
    let (port, ground) = (serve_strangely(), ground(LONG));
    for host in ["localhost", "127.0.0.1", "127.1.2.3"] {
        let probe = http(format!("https://{host}:{port}/"), None, None);
        assert_eq!(ask(&probe, &ground).await, Ok(()), "{host}");
    }
    // The same server by an address that is not the host's own as far as anybody can tell.
    let why = ask(&http(format!("https://0.0.0.0:{port}/"), None, None), &ground).await.expect_err("a stranger");
    assert!(why.contains("certificate"), "{why}");
}

#[tokio::test]
async fn a_body_without_end_is_read_as_far_as_it_is_searched() {
    let endless = serve(|to| {
        to.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        loop {
            to.write_all(&[b'x'; 4096])?;
        }
    });
    let why = ask(&http(format!("http://{endless}/"), None, Some("end")), &ground(LONG)).await.expect_err("text");
    assert!(why.contains("the first 65536 bytes"), "{why}");
}

#[tokio::test]
async fn silence_is_an_answer_after_the_timeout() {
    let silent = serve(|to| to.read(&mut [0; 1]).map(drop));
    let begun = Instant::now();
    let why = ask(&http(format!("http://{silent}/"), None, None), &ground(Duration::from_millis(200))).await;
    assert_eq!(why, Err("no answer within 200ms".to_owned()));
    assert!(begun.elapsed() < LONG);
}

#[tokio::test]
async fn a_connection_can_be_made() {
    let address = serve(|_| Ok(()));
    let tcp = |address: String| Probe::Tcp(TcpProbe { address });
    assert_eq!(ask(&tcp(address), &ground(LONG)).await, Ok(()));
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("address");
    let why = ask(&tcp(closed.to_string()), &ground(LONG)).await.expect_err("refused");
    assert!(why.starts_with(&format!("{closed} does not accept: ")), "{why}");
    for bad in ["localhost", ":80", "localhost:http", "localhost:70000", ""] {
        let why = ask(&tcp(bad.to_owned()), &ground(LONG)).await.expect_err(bad);
        assert!(why.contains("is not host:port"), "{why}");
    }
}

#[tokio::test]
async fn a_command_ends_with_0_if_the_owner_allows_it() {
    let exec = |script: &str| {
        let command = ["/bin/sh", "-c", script].map(str::to_owned).into();
        Probe::Exec(ExecProbe { command })
    };
    let mut ground = ground(LONG);
    assert_eq!(ask(&exec("exit 0"), &ground).await, Ok(()));
    assert_eq!(ask(&exec("echo broken; exit 1"), &ground).await, Err("it ended with 1:\nbroken".to_owned()));
    ground.timeout = Duration::from_millis(200);
    let why = ask(&exec("echo half; exec sleep 100"), &ground).await.expect_err("late");
    assert_eq!(why, "it took longer than 200ms and was ended:\nhalf", "what it wrote is told");
    ground.exec = None;
    let why = ask(&exec("exit 0"), &ground).await.expect_err("not allowed");
    assert!(why.contains("appliers.exec"), "{why}");
}

#[tokio::test]
async fn the_control_plane_has_answered_since_the_switch() {
    let mut ground = ground(LONG);
    assert!(ask(&Probe::ControlPlane {}, &ground).await.expect_err("not yet").contains("since the switch"));
    ground.polled = true;
    assert_eq!(ask(&Probe::ControlPlane {}, &ground).await, Ok(()));
}

#[tokio::test]
async fn a_file_is_looked_at_off_the_agents_thread() {
    let file = FileProbe { path: "/proc/self/status".to_owned(), contains: Some("Name:".to_owned()), max_age: None };
    assert_eq!(ask(&Probe::File(file), &ground(LONG)).await, Ok(()));
}
