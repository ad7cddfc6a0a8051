//! Answers that get lost, and answers that are none.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use titan_api::Kind;
use titan_tests::{
    manifests::workload,
    relays::{Relay, Weather},
    worlds::until,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};

use super::{Scene, versioned, versions};
use crate::outages::kept;

/// The next poll brings the same revision, which is applied once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn response_lost_after_server_marked_it_delivered() {
    let scene = Scene::new([versions()].into_iter().chain(versioned("web", "1"))).await;
    let relay = Relay::start(scene.world.plane.address()).await.expect("a relay");
    scene.configure(&relay.server, "");
    scene.agent.settle().expect("applied");
    scene.apply([workload("web", "2")]).await;
    relay.set(Weather::Lossy);
    for _ in 0..3 {
        let output = scene.agent.once().expect("run");
        assert!(!output.status.success(), "{output:?}");
        assert_eq!(scene.file("default/web/version").as_deref(), Some("1\n"));
    }
    assert!(relay.lost() >= 3, "the control plane has answered");
    relay.set(Weather::Fair);
    scene.agent.settle().expect("applied");
    assert_eq!(scene.file("default/web/version").as_deref(), Some("2\n"));
    let commits = scene.agent.commits().expect("commits").len();
    scene.agent.settle().expect("settled");
    assert_eq!((commits, scene.agent.commits().expect("commits").len()), (2, 2), "once");
}

/// When a poll came, by the number of the answer that it got.
type Times = Arc<Mutex<Vec<(usize, Instant)>>>;

/// Answers polls with one text after the other, over and over.
async fn troublemaker(answers: Vec<String>) -> (String, Times, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let server = format!("http://{}", listener.local_addr().expect("an address"));
    let times = Times::default();
    let noted = times.clone();
    let task = tokio::spawn(async move {
        let mut next = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let read = stream.read(&mut request).await.unwrap_or(0);
            if String::from_utf8_lossy(&request[..read]).contains("/changes") {
                noted.lock().unwrap_or_else(PoisonError::into_inner).push((next, Instant::now()));
                let _gone = stream.write_all(answers[next].as_bytes()).await;
                next = (next + 1) % answers.len();
            }
        }
    });
    (server, times, task)
}

/// Nothing changes on the host; it asks again after pauses that differ, and not before it was told to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_answers_500_403_and_a_proxys_html_page_for_an_hour() {
    let scene = Scene::new([versions()].into_iter().chain(versioned("web", "1"))).await;
    scene.agent.settle().expect("applied");
    let answer = |status: &str, media: &str, more: &str, body: &str| {
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: {media}\r\n{more}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
    };
    let problem = |status: u16, code: &str| {
        format!(r#"{{"type":"urn:titan:problem:{code}","title":"x","status":{status},"detail":"x","code":"{code}"}}"#)
    };
    let media = "application/problem+json";
    let busy = answer("503 Unavailable", media, "retry-after: 1\r\n", &problem(503, "unavailable"));
    let answers = vec![
        answer("500 Oops", media, "", &problem(500, "internal")),
        answer("403 Forbidden", media, "", &problem(403, "forbidden")),
        answer("200 OK", "text/html", "", "<html>Please log in to the network</html>"),
        busy,
    ];
    let (server, times, task) = troublemaker(answers).await;
    scene.configure(&server, "");
    let state = || -> BTreeMap<String, Vec<u8>> {
        let read = |name: &str| (name.to_owned(), fs::read(scene.agent.state().join(name)).unwrap_or_default());
        ["ledger.json", "desired.json", "identity.json", "credential"].map(read).into()
    };
    let before = (kept(&scene.agent), state());
    let mut running = scene.agent.run().expect("running");
    // At the usual pauses these many attempts take more than an hour.
    let times = until("the attempts", async || {
        let times = times.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok((times.len() > 24).then_some(times))
    });
    let times = times.await.expect("it goes on asking");
    assert!(running.is_running() && (kept(&scene.agent), state()) == before);
    let (mut asked, mut chosen) = (Vec::new(), Vec::new());
    for pair in times.windows(2) {
        let pause = pair[1].1 - pair[0].1;
        if pair[0].0 == 3 { &mut asked } else { &mut chosen }.push(pause);
    }
    assert!(asked.iter().all(|pause| *pause >= Duration::from_secs(1)), "it was told to wait: {asked:?}");
    let (least, most) = (chosen.iter().min().expect("some"), chosen.iter().max().expect("some"));
    assert!(*most - *least > Duration::from_millis(30), "in lockstep: {chosen:?}");
    drop(running);
    task.abort();
    scene.configure(&scene.world.plane.server, "");
    scene.apply([workload("web", "2")]).await;
    scene.agent.settle().expect("applied");
    assert_eq!(scene.file("default/web/version").as_deref(), Some("2\n"));
}

/// What a peer does with a connection.
#[derive(Debug, Clone, Copy)]
enum Peer {
    /// Speaks no TLS at all.
    Noise,
    /// Says that a record of 64 KiB comes, and sends less.
    Record,
    /// Shows bytes that are no certificate.
    BadCertificate,
    /// Shows a certificate that nobody trusts.
    Stranger,
    /// Is trusted, and speaks no HTTP.
    NoHttp,
    /// Is trusted, and says that a head comes without end.
    EndlessHead,
    /// Is trusted, and sends a chunk whose length is none.
    BadChunk,
    /// Is trusted, and sends 100 MB.
    Large,
}

const PEERS: [Peer; 8] = [
    Peer::Noise,
    Peer::Record,
    Peer::BadCertificate,
    Peer::Stranger,
    Peer::NoHttp,
    Peer::EndlessHead,
    Peer::BadChunk,
    Peer::Large,
];
/// How much the agent may have had resident, in KiB. An unoptimised build takes about half of it from the start.
const RESIDENT: u64 = 64 * 1024;

/// The agent says what is wrong with the connection, goes on, and has not let itself be filled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peer_sends_malformed_cert_frame_and_100_mb_body() {
    let scene = Scene::new([versions()].into_iter().chain(versioned("web", "1"))).await;
    scene.agent.settle().expect("applied");
    let before = kept(&scene.agent);
    let folder = tempfile::tempdir().expect("a folder");
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let strange = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    fs::write(folder.path().join("ca.pem"), own.cert.pem()).expect("written");
    let config = |certificate: CertificateDer<'static>, key: &rcgen::KeyPair| {
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = provider.key_provider.load_private_key(key).expect("a key");
        let shown = Arc::new(rustls::sign::CertifiedKey::new(vec![certificate], key));
        let builder = rustls::ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
        let config = builder.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(shown)));
        tokio_rustls::TlsAcceptor::from(Arc::new(config))
    };
    let trusted = config(own.cert.der().clone(), &own.signing_key);
    let stranger = config(strange.cert.der().clone(), &strange.signing_key);
    let bad = config(CertificateDer::from(vec![0x30, 0x82, 0xff, 0xff, 1, 2, 3]), &own.signing_key);

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let met: Arc<Mutex<Vec<usize>>> = Arc::new(Mutex::new(vec![0; PEERS.len()]));
    let counts = met.clone();
    let task = tokio::spawn(async move {
        for number in (0..PEERS.len()).cycle() {
            let Ok((stream, _)) = listener.accept().await else { return };
            match PEERS[number] {
                Peer::Noise => answer(stream, vec![0xa5; 100_000]).await,
                Peer::Record => answer(stream, vec![0x16, 3, 3, 0xff, 0xff, 2, 0, 0]).await,
                Peer::BadCertificate => drop(bad.accept(stream).await),
                Peer::Stranger => drop(stranger.accept(stream).await),
                peer => {
                    let Ok(stream) = trusted.accept(stream).await else { continue };
                    let json = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
                    answer(
                        stream,
                        match peer {
                            Peer::NoHttp => vec![b'\0'; 10_000],
                            Peer::EndlessHead => format!("{json}x: {}", "x".repeat(10 << 20)).into_bytes(),
                            Peer::BadChunk => format!("{json}transfer-encoding: chunked\r\n\r\nzz\r\n{{").into_bytes(),
                            _ => {
                                format!("{json}content-length: 104857600\r\n\r\n{}", " ".repeat(100 << 20)).into_bytes()
                            }
                        },
                    )
                    .await;
                }
            }
            counts.lock().unwrap_or_else(PoisonError::into_inner)[number] += 1;
        }
    });
    scene.configure(&format!("https://localhost:{port}"), "");
    let mut run = scene.agent.command(&["run"]);
    run.env("SSL_CERT_FILE", folder.path().join("ca.pem")).env_remove("SSL_CERT_DIR");
    let mut running = titan_tests::nodes::Running::start(&mut run).expect("running");
    until("every peer to be met twice", async || {
        assert!(running.is_running(), "it ended: {met:?}");
        Ok(met.lock().unwrap_or_else(PoisonError::into_inner).iter().all(|count| *count >= 2).then_some(()))
    })
    .await
    .expect("it goes on asking");
    let status = fs::read_to_string(format!("/proc/{}/status", running.id())).expect("read");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(peak < RESIDENT, "{peak} KiB were resident");
    assert!(scene.agent.status().expect("status")["trouble"].as_str().is_some_and(|trouble| !trouble.is_empty()));
    assert_eq!(kept(&scene.agent), before);
    drop(running);
    task.abort();
    scene.configure(&scene.world.plane.server, "");
    scene.agent.settle().expect("settled");
    let host = scene.world.admin.get(Kind::Host, None, "pi", None).await.expect("a host");
    assert!(host.status.is_some_and(|status| status["online"] == true));
}

/// Reads what is asked and sends `bytes`, as far as the other side takes them.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: Vec<u8>) {
    let _asked = stream.read(&mut [0; 4096]).await;
    let _gone = stream.write_all(&bytes).await;
    let _gone = stream.shutdown().await;
}
