//! The simulated fleet: it ends equal after all that may happen to it, and finds out a control plane that says a false thing.

use std::{path::PathBuf, sync::Arc, time::Duration};

use rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer};
use titan_tests::simulator::{
    churn::Weights,
    credentials::Credentials,
    documents,
    fleet::Fleet,
    runs,
    script::{Carrier, Script},
    stage::{Options, Stage},
    transports::Place,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// Agents of a fleet.
const HOSTS: usize = 200;

/// Opens a stage with that many hosts.
pub(crate) async fn stage(hosts: usize) -> Stage {
    let options = Options {
        program: PathBuf::from(crate::NODE),
        database: None,
        hosts,
        assignments: 3,
        seed: "a test".into(),
        tls: false,
        patience: Duration::from_secs(60),
    };
    Stage::open(&options).await.expect("a stage")
}

/// Much happens in a short time.
fn script(carrier: Carrier) -> Script {
    Script {
        seconds: 6.0,
        carrier,
        connections: 4,
        cadence: Some(0.3),
        ramp: Some(0.2),
        longest_backoff: 1.0,
        lost: 0.1,
        slow: 0.05,
        offline: 0.1,
        offline_period: 0.7,
        restart_every: 2.5,
        storm_every: 1.7,
        reports: true,
        phases_per_second: 5.0,
        changes_per_second: 10.0,
        changes: Weights { everywhere: 1, ..Weights::default() },
        verify: 1.0,
        ..Script::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fleet_is_equal_after_changes_lost_answers_absences_storms_and_restarts() {
    let mut stage = stage(HOSTS).await;
    let credentials = stage.credentials.clone();
    for (carrier, wait, gzip) in [(Carrier::Mux, 2, false), (Carrier::Own, 0, true)] {
        let script = Script { wait, gzip, ..script(carrier) };
        let outcome = runs::play(&mut stage.server, script, &credentials, HOSTS).await.expect("played");
        let told = outcome.text();
        assert!(outcome.verdict.is_equal(), "{carrier:?}: {told}");
        let tally = &outcome.fleet.tally;
        assert!(outcome.restarts.len() >= 2 && outcome.storms.len() >= 2, "{carrier:?}: {told}");
        let happened = [&tally.deltas, &tally.lost, &tally.slow, &tally.away, &tally.reports, &tally.verified];
        let happened = happened.map(|count| count.get());
        assert!(happened.iter().all(|count| *count > 0), "{carrier:?}: {told}");
        assert_eq!(tally.mismatches.get(), 0, "{carrier:?}: {told}");
        // What a restart breaks off is all that goes wrong.
        let expected = ["connect", "closed", "http2", "change", "report: c", "report: h", "bundle: c", "bundle: h"];
        for kind in tally.faults().keys() {
            assert!(expected.iter().any(|begin| kind.starts_with(begin)), "{carrier:?}: {kind}: {told}");
        }
    }
    stage.server.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_that_connect_for_each_poll_are_equal_too() {
    let mut stage = stage(50).await;
    let credentials = stage.credentials.clone();
    let script = Script { seconds: 2.0, restart_every: 0.0, storm_every: 0.0, ..script(Carrier::Once) };
    let outcome = runs::play(&mut stage.server, script, &credentials, 50).await.expect("played");
    assert!(outcome.verdict.is_equal() && outcome.errors == 0, "{}", outcome.text());
    assert!(outcome.fleet.tally.connects.get() >= outcome.fleet.tally.polls(), "{}", outcome.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quick_says_to_programs_what_came_of_it() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fleet-sim"));
    command.args(["quick", "--hosts", "300", "-o", "json"]);
    let said = tokio::task::spawn_blocking(move || command.output()).await.expect("a thread").expect("it runs");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let told: serde_json::Value = serde_json::from_slice(&said.stdout).expect("json");
    for ratio in ["unchangedRatio", "cpuRatio", "bytesPerUnchangedPoll", "viewBytesPerHost", "fanoutRatio"] {
        assert!(told[ratio].as_f64().is_some_and(|ratio| ratio > 0.0), "{ratio}: {told}");
    }
    assert_eq!((told["hosts"].as_u64(), told["verdict"].as_str()), (Some(300), Some("equal")), "{told}");
    let progress = String::from_utf8_lossy(&said.stderr);
    assert!(progress.contains("unchanged polls measured") && progress.contains("fan-out measured"), "{progress}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_agents_than_connections_are_told_to_share_them() {
    let (place, script) = (Place { address: "127.0.0.1:9".to_owned(), trusted: None }, script(Carrier::Own));
    let error = Fleet::new(&place, script, Credentials::new("a test"), 1 << 30).expect_err("too many").to_string();
    assert!(error.contains("--carrier mux"), "{error}");
}

/// Stands before a control plane and changes one thing that it says to one host.
struct Liar(JoinHandle<()>);

impl Liar {
    async fn start(server: &str, host: &'static str, lie: fn(String) -> String) -> (Self, Place) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let server = server.replace("localhost", "127.0.0.1");
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.expect("the control plane");
                tokio::spawn(relay(client, server, host, lie));
            }
        });
        (Self(task), Place { address, trusted: None })
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Passes one request and its answer on; the connection ends with it.
async fn relay(mut client: TcpStream, mut server: TcpStream, host: &str, lie: fn(String) -> String) -> Option<()> {
    let mut part = vec![0; 64 * 1024];
    let read = client.read(&mut part).await.ok()?;
    let request =
        String::from_utf8_lossy(&part[..read]).replace("\r\nauthorization", "\r\nconnection: close\r\nauthorization");
    server.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await.ok()?;
    let answer = String::from_utf8(answer).ok()?;
    // The length stays the same: only digits are exchanged.
    let told = if request.contains(host) { lie(answer) } else { answer };
    client.write_all(told.as_bytes()).await.ok()
}

/// Says another digest of the set.
fn another_digest(answer: String) -> String {
    match answer.find(",\"digest\":\"").filter(|_| !answer.contains("\"full\":true")) {
        Some(at) => format!("{}{}{}", &answer[..at + 11], "0".repeat(32), &answer[at + 43..]),
        None => answer,
    }
}

/// Says in full answers that every assignment moved another time.
fn another_revision(answer: String) -> String {
    if answer.contains("\"full\":true") { answer.replace("\"revision\":\"20", "\"revision\":\"21") } else { answer }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn false_answer_is_told_with_the_agent_that_got_it() {
    const VICTIM: &str = "sim-0000007/changes";
    let stage = stage(20).await;
    let script = Script {
        carrier: Carrier::Own,
        cadence: Some(0.1),
        ramp: Some(0.0),
        longest_backoff: 0.2,
        verify: 0.0,
        ..Script::default()
    };
    for (edition, lie) in [(1, another_digest as fn(String) -> String), (2, another_revision)] {
        let (liar, place) = Liar::start(&stage.server.place.address, VICTIM, lie).await;
        let fleet = Fleet::new(&place, script.clone(), stage.credentials.clone(), 20).expect("a fleet");
        fleet.start(Duration::ZERO);
        told_in_full(&fleet).await;
        let request = titan_api::changes::ApplyRequest {
            resources: vec![documents::template("base-0", edition)],
            ..Default::default()
        };
        stage.server.admin.apply(&request, &Default::default()).await.expect("written");
        let moved = |fleet: &Fleet| fleet.tally.deltas.get() >= 19;
        fleet.until("every agent's change", Duration::from_secs(30), moved).await.expect("changes");
        fleet.stop().await;
        stage.server.settled(Duration::from_secs(30)).await.expect("settled");
        let verdict = fleet.verdict().await;
        assert!(!verdict.is_equal());
        assert!(verdict.first.iter().all(|told| told.starts_with("sim-0000007: ")), "{verdict}");
        assert!(verdict.to_string().contains("digest"), "{verdict}");
        drop(liar);
    }
}

/// Waits until every agent has had its first answer; the one that is lied to may have had several.
async fn told_in_full(fleet: &Arc<Fleet>) {
    let polled = |fleet: &Fleet| fleet.tally.fulls.get() >= 20;
    fleet.until("the first answers", Duration::from_secs(30), polled).await.expect("answers");
}

/// Takes TLS off before a control plane.
struct Terminator(JoinHandle<()>);

impl Terminator {
    async fn start(stage: &Stage) -> (Self, Place) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let trusted = stage.folder().join("trusted.pem");
        std::fs::write(&trusted, made.cert.pem()).expect("written");
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .expect("a key");
        config.ticketer = rustls::crypto::ring::Ticketer::new().expect("a ticketer");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let server = stage.server.place.address.replace("localhost", "127.0.0.1");
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (acceptor, server) = (acceptor.clone(), server.clone());
                tokio::spawn(async move {
                    let mut client = acceptor.accept(client).await.ok()?;
                    let mut server = TcpStream::connect(server).await.ok()?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await.ok()
                });
            }
        });
        (Self(task), Place { address: format!("localhost:{port}"), trusted: Some(trusted) })
    }
}

impl Drop for Terminator {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_speak_tls_and_resume_their_sessions() {
    let stage = stage(50).await;
    let (terminator, place) = Terminator::start(&stage).await;
    for (carrier, resumption) in
        [(Carrier::Once, true), (Carrier::Once, false), (Carrier::Own, true), (Carrier::Mux, true)]
    {
        let script = Script {
            carrier,
            resumption,
            connections: 2,
            cadence: Some(0.2),
            ramp: Some(0.3),
            tls: true,
            ..Script::default()
        };
        let fleet = Fleet::new(&place, script.clone(), stage.credentials.clone(), 50).expect("a fleet");
        fleet.start(script.ramp());
        let polled = |fleet: &Fleet| fleet.tally.polls() >= 200;
        fleet.until("polls", Duration::from_secs(30), polled).await.expect("polls");
        fleet.stop().await;
        let verdict = fleet.verdict().await;
        assert!(verdict.is_equal(), "{carrier:?}: {verdict}");
        assert_eq!(fleet.tally.errors(), 0, "{carrier:?}: {:?}", fleet.tally.faults());
        let (full, resumed) = (fleet.tally.handshakes.0.get(), fleet.tally.handshakes.1.get());
        match (carrier, resumption) {
            (Carrier::Once, true) => assert!(resumed > full, "{full} full, {resumed} resumed"),
            (Carrier::Once, false) => assert_eq!(resumed, 0),
            (Carrier::Own, _) => assert!(full + resumed <= 60, "{full} full, {resumed} resumed"),
            (Carrier::Mux, _) => assert_eq!(full + resumed, 2),
        }
    }
    drop(terminator);
}
