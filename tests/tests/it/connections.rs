//! Connections: what is spoken on them, who is let in, and how they end.

mod crowded;
mod wire;

use std::{sync::Arc, time::Duration};

use rustls::HandshakeKind;
use titan_api::limits;
use titan_control_plane::config::TlsConfig;
use titan_tests::{
    planes::Plane,
    worlds::{PATIENCE, PolledHost, World, until},
};
use tokio::net::TcpStream;
use wire::{Wire, secured, trusting};

/// How long nothing must come where nothing is to come.
const SILENCE: Duration = Duration::from_millis(300);

/// Returns a world with a host that was told everything.
async fn world() -> (World, PolledHost) {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let mut pi = world.host("pi", "").await.expect("a host");
    let clock = world.settled().await.expect("decided");
    pi.catch_up(clock).await.expect("polled");
    (world, pi)
}

/// Returns a poll that goes on from where the host is.
fn poll(pi: &PolledHost, wait: u64, headers: &str) -> String {
    let (since, credential) = (pi.cursor.expect("a cursor"), &pi.credential);
    format!(
        "GET /v1/hosts/pi/changes?since={since}&wait={wait} HTTP/1.1\r\nhost: titan\r\n\
         authorization: Bearer {credential}\r\n{headers}\r\n"
    )
}

/// Returns a report that says nothing, of exactly `length` bytes, with headers besides its length.
fn report(pi: &PolledHost, seq: u64, length: usize, headers: &str) -> String {
    let body = format!("{{\"seq\":{seq}}}");
    let spaces = " ".repeat(length - body.len());
    format!(
        "POST /v1/hosts/pi/report HTTP/1.1\r\nhost: titan\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\n{headers}content-length: {length}\r\n\r\n{body}{spaces}",
        pi.credential
    )
}

async fn metric(world: &World, name: &str) -> anyhow::Result<f64> {
    let request = reqwest::Client::new().get(format!("{}/metrics", world.plane.server)).bearer_auth(&world.plane.token);
    let text = request.send().await?.text().await?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.map_or(Ok(0.0), str::parse)?)
}

async fn waiting(world: &World, count: f64) {
    let held =
        until("polls to be held", async || Ok((metric(world, "titan_polls_waiting").await? == count).then_some(())));
    held.await.expect("held");
}

/// Requests that come together are answered one after the other, whichever server takes them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_come_together_are_answered_in_order() {
    let (world, pi) = world().await;
    let mut wire = Wire::open(world.plane.address()).await.expect("connected");
    let id = |number: u32| format!("x-request-id: n-{number}\r\n");
    let mut text = String::new();
    text += &poll(&pi, 0, &id(1));
    text += &poll(&pi, 1, &id(2));
    text += &report(&pi, 1, 20, &id(3));
    text += &poll(&pi, 0, &id(4));
    // From here on it is the general server's.
    text += &format!("GET /healthz HTTP/1.1\r\nhost: titan\r\n{}\r\n", id(5));
    text += &poll(&pi, 0, &id(6));
    text += &report(&pi, 2, 20, &id(7));
    text += &poll(&pi, 0, &format!("{}connection: close\r\n", id(8)));
    text += &poll(&pi, 0, &id(9));
    wire.send(&text).await.expect("sent");
    for (number, status) in [(1, 204), (2, 204), (3, 204), (4, 204), (5, 200), (6, 204), (7, 204), (8, 204)] {
        let told = wire.answer().await.expect("answered");
        assert_eq!((told.status, told.header("x-request-id")), (status, format!("n-{number}").as_str()), "{told:?}");
        let polled = matches!(number, 1 | 2 | 4 | 6 | 8);
        assert_eq!(!told.header("titan-cursor").is_empty(), polled, "{told:?}");
    }
    assert_eq!(wire.rest().await.expect("ended"), "", "what comes behind the last request is not answered");
}

/// An unchanged poll takes at most 300 bytes up and down, as the agents' client sends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unchanged_poll_is_small_and_says_what_it_must() {
    let (world, pi) = world().await;
    let mut wire = Wire::open(world.plane.address()).await.expect("connected");
    wire.send(poll(&pi, 0, "")).await.expect("sent");
    let told = wire.answer().await.expect("answered");
    assert_eq!(
        (told.status, told.header("titan-poll-after")),
        (204, "1"),
        "who did not wait is told when to ask again"
    );
    wire.send(poll(&pi, 1, "")).await.expect("sent");
    let told = wire.answer().await.expect("answered");
    assert_eq!((told.status, told.header("titan-poll-after")), (204, ""), "who waited asks again at once");
    assert_eq!(told.head.len(), 60);
    // Of a host whose name has eleven letters, on a port of five digits; the digest and a wait of two digits come to it.
    let headers = format!("authorization: Bearer {}\r\naccept: \r\naccept-encoding: gzip\r\n", pi.credential);
    let line = "GET /v1/hosts/host-000001/changes?since=2026-11-20T15:04:05.123457Z&have=&wait=30 HTTP/1.1\r\n";
    let up = line.len() + 32 + "host: 127.0.0.1:43210\r\n".len() + headers.len() + 2;
    assert!(up + told.head.len() <= 300, "{up} up, {} down", told.head.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peer_that_only_listens_any_more_gets_its_answers() {
    let (world, pi) = world().await;
    let mut wire = Wire::open(world.plane.address()).await.expect("connected");
    wire.send(poll(&pi, 0, "").repeat(3)).await.expect("sent");
    wire.end().await.expect("ended");
    assert_eq!(wire.rest().await.expect("answered").matches("HTTP/1.1 204").count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_may_come_in_pieces_but_not_for_ever() {
    let (world, pi) = world().await;
    let mut slow = Wire::open(world.plane.address()).await.expect("connected");
    let mut silent = Wire::open(world.plane.address()).await.expect("connected");
    silent.send("GET /v1/hosts/pi/changes").await.expect("sent");
    for byte in poll(&pi, 0, "").as_bytes() {
        slow.send([*byte]).await.expect("sent");
    }
    assert_eq!(slow.answer().await.expect("answered").status, 204);
    assert_eq!(silent.rest().await.expect("ended"), "", "who does not end his request is not kept");
    assert!(metric(&world, "titan_connections_timed_out_total").await.expect("counted") >= 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_heads_are_refused_and_bodies_fit_up_to_their_limit() {
    let (world, pi) = world().await;
    let mut wire = Wire::open(world.plane.address()).await.expect("connected");
    // The last that the narrow server takes, the first that it does not, and the last that anybody takes.
    for (seq, length) in [(1, 64 * 1024), (2, 64 * 1024 + 1), (3, limits::REPORT_BODY_BYTES)] {
        wire.send(report(&pi, seq, length, "")).await.expect("sent");
        assert_eq!(wire.answer().await.expect("answered").status, 204, "{length}");
    }
    let mut wire = Wire::open(world.plane.address()).await.expect("connected");
    wire.send(report(&pi, 4, limits::REPORT_BODY_BYTES + 1, "")).await.expect("sent");
    assert_eq!(wire.answer().await.expect("answered").status, 413);
    let mut wire = Wire::open(world.plane.address()).await.expect("connected");
    // It may be refused before all of it is sent.
    let _sent_or_refused = wire.send(poll(&pi, 0, &format!("x: {}\r\n", "x".repeat(200_000)))).await;
    assert_eq!(wire.answer().await.expect("answered").status, 431);
    wire.rest().await.expect("ended");
}

/// What one reader takes for a body another may take for a request: nobody gets a second answer out of one request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_cannot_be_hidden_in_another() {
    let (world, pi) = world().await;
    let hidden = "GET /hidden HTTP/1.1\r\nhost: titan\r\n\r\n";
    let length = hidden.len();
    let begin = |line: &str| format!("{line} HTTP/1.1\r\nhost: titan\r\nauthorization: Bearer {}\r\n", pi.credential);
    let report = begin("POST /v1/hosts/pi/report");
    let poll = begin("GET /v1/hosts/pi/changes");
    for text in [
        format!("{report}content-length: 0\r\ncontent-length: {length}\r\n\r\n{hidden}"),
        format!("{report}content-length: {length}\r\ncontent-length: 0\r\n\r\n{hidden}"),
        format!("{report}content-length: 0, {length}\r\n\r\n{hidden}"),
        format!("{report}content-length: +0\r\n\r\n{hidden}"),
        format!("{report}content-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("{report}transfer-encoding: chunked\r\ncontent-length: {length}\r\n\r\n0\r\n\r\n{hidden}"),
        format!("{report}transfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("{report}transfer-encoding: xchunked\r\ncontent-length: 0\r\n\r\n{hidden}"),
        format!("{report}transfer-encoding : chunked\r\ncontent-length: 0\r\n\r\n{hidden}"),
        format!("{report}content-length: 0\r\n x: y\r\n\r\n{hidden}"),
        format!("{poll}content-length: {length}\r\n\r\n{hidden}"),
        format!("{poll}transfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
    ] {
        let mut wire = Wire::open(world.plane.address()).await.expect("connected");
        wire.send(&text).await.expect("sent");
        wire.end().await.expect("ended");
        let answers = wire.rest().await.expect("answered");
        // Whoever is refused while it still sends may be cut off before it has read the answer.
        assert!(answers.matches("HTTP/1.1 ").count() <= 1, "{text}\n{answers}");
        assert!(!answers.contains("/hidden"), "{text}\n{answers}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poll_of_a_peer_that_went_away_is_over() {
    let (world, pi) = world().await;
    let mut wires = Vec::new();
    for _ in 0..3 {
        let mut wire = Wire::open(world.plane.address()).await.expect("connected");
        wire.send(poll(&pi, 60, "")).await.expect("sent");
        wires.push(wire);
    }
    waiting(&world, 3.0).await;
    drop(wires);
    waiting(&world, 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credential_that_was_ended_is_refused_at_once_on_an_open_connection() {
    let (world, pi) = world().await;
    let mut wire = Wire::open(world.plane.address()).await.expect("connected");
    wire.send(poll(&pi, 0, "")).await.expect("sent");
    assert_eq!(wire.answer().await.expect("answered").status, 204);
    let again = world.enrol("pi").await.expect("enrolled anew");
    wire.send(poll(&pi, 0, "x-request-id: mine\r\n")).await.expect("sent");
    let told = wire.answer().await.expect("answered");
    assert_eq!((told.status, told.header("x-request-id"), told.header("www-authenticate")), (401, "mine", "Bearer"));
    let problem: titan_api::Problem = serde_json::from_slice(&told.body).expect("a problem");
    assert_eq!(problem.request_id.as_deref(), Some("mine"));
    let mut renewed = again;
    renewed.cursor = pi.cursor;
    wire.send(poll(&renewed, 0, "")).await.expect("sent");
    assert_eq!(wire.answer().await.expect("answered").status, 204, "the connection goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_over_the_limit_waits_for_a_place() {
    let (before, pi) = world().await;
    let token = before.plane.token.clone();
    before.plane.stop().await.expect("stopped");
    let limit = |config: &mut titan_control_plane::Config| config.connections = Some(3);
    let plane = Plane::start_with(&before.database, crate::NODE, &token, limit).await.expect("a control plane");
    let mut wires = Vec::new();
    for _ in 0..3 {
        let mut wire = Wire::open(plane.address()).await.expect("connected");
        wire.send(poll(&pi, 0, "")).await.expect("sent");
        assert_eq!(wire.answer().await.expect("answered").status, 204);
        wires.push(wire);
    }
    let mut over = Wire::open(plane.address()).await.expect("connected by the system");
    over.send(poll(&pi, 0, "")).await.expect("sent");
    assert!(over.is_silent(SILENCE).await, "there is no place");
    drop(wires.pop());
    assert_eq!(over.answer().await.expect("answered").status, 204);
    plane.stop().await.expect("stopped");
}

/// HTTP/2 in clear: polls, held ones too, beside any other request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_polls_share_one_connection_and_end_with_the_process() {
    let (world, pi) = world().await;
    let socket = TcpStream::connect(world.plane.address()).await.expect("connected");
    let (mut client, connection) = h2::client::handshake(socket).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let mut polls = Vec::new();
    for _ in 0..100 {
        polls.push(ask(&mut client, &pi, 60, None).await);
    }
    waiting(&world, 100.0).await;
    let now = ask(&mut client, &pi, 0, Some("mine")).await.await.expect("answered");
    assert_eq!(now.status(), 204);
    assert_eq!(now.headers()["x-request-id"], "mine");
    assert!(now.headers().contains_key("titan-cursor") && now.headers().contains_key("titan-poll-after"));
    let request = http::Request::get("http://titan/healthz").body(()).expect("a request");
    let (healthy, _) = client.send_request(request, true).expect("sent");
    assert_eq!(healthy.await.expect("answered").status(), 200);
    // One that is given up is over.
    drop(polls.pop());
    waiting(&world, 99.0).await;
    world.plane.drain();
    for poll in polls {
        let told = tokio::time::timeout(PATIENCE, poll).await.expect("in time").expect("a whole answer");
        assert_eq!(told.status(), 204);
    }
    drop(client);
    tokio::time::timeout(PATIENCE, connection).await.expect("in time").expect("joined").expect("ended in good order");
    world.plane.stop().await.expect("stopped");
}

/// HTTP/2: bodies of any size in both directions, at the pace of whoever reads them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_travel_over_http2_as_they_are_read() {
    let (world, pi) = world().await;
    let socket = TcpStream::connect(world.plane.address()).await.expect("connected");
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1000);
    let (mut client, connection) = builder.handshake::<_, bytes::Bytes>(socket).await.expect("HTTP/2");
    tokio::spawn(connection);
    let request = |method: &str, path: &str| {
        let request = http::Request::builder().method(method).uri(format!("http://titan{path}"));
        request.header("authorization", format!("Bearer {}", pi.credential))
    };
    // More than all windows together.
    let length = limits::REPORT_BODY_BYTES;
    let report = request("POST", "/v1/hosts/pi/report").header("content-type", "application/json");
    let (answer, mut stream) = client.send_request(report.body(()).expect("a request"), false).expect("sent");
    let mut body = format!("{{\"seq\":1}}{}", " ".repeat(length - 9));
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let room = std::future::poll_fn(|context| stream.poll_capacity(context)).await.expect("open").expect("room");
        let rest = body.split_off(room);
        stream.send_data(body.into(), rest.is_empty()).expect("sent");
        body = rest;
    }
    assert_eq!(answer.await.expect("answered").status(), 204);
    let whole = reqwest::get(format!("{}/openapi.json", world.plane.server)).await.expect("answered");
    let whole = whole.bytes().await.expect("read");
    for method in ["HEAD", "GET"] {
        let asked = request(method, "/openapi.json").body(()).expect("a request");
        let answer = client.send_request(asked, true).expect("sent").0.await.expect("answered");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-length"], whole.len().to_string().as_str());
        let mut read = Vec::new();
        let mut stream = answer.into_body();
        while let Some(data) = stream.data().await {
            let data = data.expect("read");
            stream.flow_control().release_capacity(data.len()).expect("released");
            read.extend_from_slice(&data);
        }
        assert_eq!(read, if method == "GET" { &whole[..] } else { &[] });
    }
    // A poll that is told something: everything, as it does not say from where it goes on.
    let asked = request("GET", "/v1/hosts/pi/changes?wait=60").body(()).expect("a request");
    let answer = client.send_request(asked, true).expect("sent").0.await.expect("answered");
    assert_eq!(
        (answer.status().as_u16(), answer.headers()["content-type"].as_bytes()),
        (200, &b"application/json"[..])
    );
}

/// Sends a poll over HTTP/2.
async fn ask(
    client: &mut h2::client::SendRequest<bytes::Bytes>,
    pi: &PolledHost,
    wait: u64,
    id: Option<&str>,
) -> h2::client::ResponseFuture {
    let since = pi.cursor.expect("a cursor");
    let mut request = http::Request::get(format!("http://titan/v1/hosts/pi/changes?since={since}&wait={wait}"))
        .header("authorization", format!("Bearer {}", pi.credential));
    if let Some(id) = id {
        request = request.header("x-request-id", id);
    }
    let ready = client.clone().ready().await.expect("ready");
    *client = ready;
    client.send_request(request.body(()).expect("a request"), true).expect("sent").0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_polls_are_answered_when_the_process_ends() {
    let (world, pi) = world().await;
    let mut idle = Wire::open(world.plane.address()).await.expect("connected");
    idle.send(poll(&pi, 0, "")).await.expect("sent");
    assert_eq!(idle.answer().await.expect("answered").status, 204);
    let mut held = Wire::open(world.plane.address()).await.expect("connected");
    held.send(poll(&pi, 60, "")).await.expect("sent");
    waiting(&world, 1.0).await;
    world.plane.drain();
    let told = held.answer().await.expect("answered");
    assert_eq!((told.status, told.header("titan-poll-after")), (204, "1"), "not at once: nobody is there yet");
    assert_eq!(told.header("connection"), "close");
    assert_eq!(held.rest().await.expect("ended"), "");
    assert_eq!(idle.rest().await.expect("ended"), "");
    let address = world.plane.address().to_owned();
    world.plane.stop().await.expect("stopped");
    assert!(TcpStream::connect(&address).await.is_err(), "nobody listens any more");
}

/// TLS: both protocols, both versions, and hosts that come back without a whole handshake.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_agrees_on_a_protocol_and_lets_hosts_resume() {
    let (before, pi) = world().await;
    let token = before.plane.token.clone();
    before.plane.stop().await.expect("stopped");
    let folder = tempfile::tempdir().expect("a directory");
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    std::fs::write(&certificate, pair.cert.pem()).expect("written");
    std::fs::write(&key, pair.signing_key.serialize_pem()).expect("written");
    let tls = |config: &mut titan_control_plane::Config| config.tls = Some(TlsConfig { certificate, key });
    let plane = Plane::start_with(&before.database, crate::NODE, &token, tls).await.expect("a control plane");
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let connector = trusting(pair.cert.der(), &["http/1.1"], &[version]);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
            let stream = secured(plane.address(), &connector).await.expect("TLS");
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind));
            let suite = stream.get_ref().1.negotiated_cipher_suite().map(|suite| suite.suite());
            let cheapest = suite == Some(rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
            assert_eq!(cheapest, version.version == rustls::ProtocolVersion::TLSv1_3, "{suite:?}");
            let mut wire = Wire::over(stream);
            wire.send(poll(&pi, 0, "").repeat(2)).await.expect("sent");
            for _ in 0..2 {
                assert_eq!(wire.answer().await.expect("answered").status, 204);
            }
            wire.send("GET /healthz HTTP/1.1\r\nhost: titan\r\n\r\n").await.expect("sent");
            assert_eq!(wire.answer().await.expect("answered").status, 200);
        }
    }
    let connector = trusting(pair.cert.der(), &["h2", "http/1.1"], rustls::ALL_VERSIONS);
    let stream = secured(plane.address(), &connector).await.expect("TLS");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    assert_eq!(ask(&mut client, &pi, 0, None).await.await.expect("answered").status(), 204);
    // Whoever does not speak TLS gets nothing out of it.
    let mut clear = Wire::open(plane.address()).await.expect("connected");
    clear.send(poll(&pi, 0, "")).await.expect("sent");
    assert!(!clear.rest().await.expect("ended").contains("HTTP"));
    let http = reqwest::Client::builder().danger_accept_invalid_certs(true).build().expect("a client");
    let request = http.get(format!("{}/metrics", plane.server)).bearer_auth(&plane.token);
    let text = request.send().await.expect("answered").text().await.expect("text");
    assert!(text.contains("titan_tls_handshakes_total{kind=\"Resumed\"} 4"), "{text}");
    drop(client);
    plane.stop().await.expect("stopped");
}

/// Many hosts that come at once, again and again, are all answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storm_of_connections_becomes_latency() {
    let (world, pi) = world().await;
    let address: Arc<str> = world.plane.address().into();
    let text: Arc<str> = poll(&pi, 0, "connection: close\r\n").into();
    let mut storm = tokio::task::JoinSet::new();
    for _ in 0..500 {
        let (address, text) = (Arc::clone(&address), Arc::clone(&text));
        storm.spawn(async move {
            for _ in 0..3 {
                let mut wire = Wire::open(&address).await?;
                wire.send(&*text).await?;
                anyhow::ensure!(wire.answer().await?.status == 204);
            }
            Ok(())
        });
    }
    while let Some(ended) = storm.join_next().await {
        ended.expect("joined").expect("answered");
    }
}
