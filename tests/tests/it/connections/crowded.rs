//! Connections on which much is asked at a time.

use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use serde_json::json;
use titan_tests::{
    manifests,
    planes::Plane,
    worlds::{PATIENCE, PolledHost, World, until},
};
use tokio::net::{TcpSocket, TcpStream};

use super::{metric, world};

/// Requests on one connection, nearly as many as it takes.
const ASKED: usize = 250;
/// Bytes of each bundle.
const LENGTH: usize = 60_000;
/// What is at work for one connection, and how many of its requests may wait.
const AT_WORK: usize = 32;
const WAIT: f64 = 256.0;

/// Connects with room for all answers, or for none, and asks for nothing yet.
async fn connect(address: &str, room: u32) -> (SendRequest<Bytes>, Connection<TcpStream, Bytes>) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 * 1024).expect("set");
    let socket = socket.connect(address.parse().expect("an address")).await.expect("connected");
    let mut builder = Builder::new();
    builder.initial_window_size(room).initial_connection_window_size(1 << 30).initial_max_send_streams(ASKED);
    builder.handshake(socket).await.expect("HTTP/2")
}

/// Sends a request of a host.
async fn ask(
    client: &mut SendRequest<Bytes>,
    host: &PolledHost,
    path: &str,
    body: Option<&'static str>,
) -> ResponseFuture {
    *client = client.clone().ready().await.expect("ready");
    let method = if body.is_some() { "POST" } else { "GET" };
    let uri = format!("http://titan/v1/hosts/{}/{path}", host.name);
    let request = http::Request::builder().method(method).uri(uri);
    let request = request.header("authorization", format!("Bearer {}", host.credential));
    let request = request.header("content-type", "application/json").body(()).expect("a request");
    let (answer, mut stream) = client.send_request(request, body.is_none()).expect("sent");
    if let Some(body) = body {
        stream.send_data(Bytes::from_static(body.as_bytes()), true).expect("sent");
    }
    answer
}

/// Gives the host something large. More than one, so that its answer is longer than what the system keeps for a connection.
async fn large(world: &World, bundles: usize) {
    let text: String = (0..LENGTH).map(|at| char::from(b'a' + (at % 23) as u8)).collect();
    let all =
        [manifests::workload("web", "1"), manifests::template("web", &[("a.j2", &text)]), manifests::target("all", "")];
    let names = (0..bundles).map(|number| format!("web-{number}"));
    let deployments = names.map(|name| manifests::deployment(&name, "web", "web", "all", &json!({})));
    world.apply(all.into_iter().chain(deployments)).await.expect("written");
    world.settled().await.expect("decided");
}

/// Reads an answer and returns the bytes of its body.
async fn read(answer: ResponseFuture) -> usize {
    let answer = tokio::time::timeout(PATIENCE, answer).await.expect("in time").expect("answered");
    assert_eq!(answer.status(), 200);
    let (mut stream, mut length) = (answer.into_body(), 0);
    while let Some(data) = stream.data().await {
        let data = data.expect("read");
        length += data.len();
        stream.flow_control().release_capacity(data.len()).expect("released");
    }
    length
}

/// Hosts that but wait keep nobody from being answered, though each one's credential was yet to be looked up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_nobody_knows_yet_may_all_wait_on_one_connection() {
    let (before, mut pi) = world().await;
    let token = before.plane.token.clone();
    let mut hosts = Vec::new();
    for number in 0..2 * AT_WORK {
        hosts.push(before.host(&format!("h{number}"), "").await.expect("a host"));
    }
    let clock = before.settled().await.expect("decided");
    pi.catch_up(clock).await.expect("polled");
    before.plane.stop().await.expect("stopped");
    let plane = Plane::start(&before.database, crate::NODE, &token).await.expect("a control plane");
    let (mut client, connection) = connect(plane.address(), 1 << 20).await;
    tokio::spawn(connection);
    let path = format!("changes?since={}&wait=60", pi.cursor.expect("a cursor"));
    let mut polls = Vec::new();
    for host in &hosts {
        polls.push(ask(&mut client, host, &path, None).await);
    }
    let held = until("all polls to be held", async || {
        let request = reqwest::Client::new().get(format!("{}/metrics", plane.server)).bearer_auth(&token);
        let text = request.send().await?.text().await?;
        Ok(text.contains(&format!("titan_polls_waiting {}\n", hosts.len())).then_some(()))
    });
    held.await.expect("held");
    plane.drain();
    for poll in polls {
        let told = tokio::time::timeout(PATIENCE, poll).await.expect("in time").expect("a whole answer");
        assert_eq!(told.status(), 204);
    }
    drop(client);
    plane.stop().await.expect("stopped");
}

/// A client that has much on its way and reads none of it has no more put together for it than the rest of its connection
/// takes; it is told everything as soon as it reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_asks_for_much_and_does_not_read_is_answered_as_it_reads() {
    for bundles in [1, 2] {
        let (world, pi) = world().await;
        large(&world, bundles).await;
        let (mut client, mut connection) = connect(world.plane.address(), 1 << 20).await;
        let mut answers = Vec::new();
        for _ in 0..ASKED {
            answers.push(ask(&mut client, &pi, "changes", None).await);
        }
        // What is asked is sent, and nothing is read.
        let _never = tokio::time::timeout(Duration::from_millis(1), &mut connection).await;
        let mut before = 0.0;
        until("the connection to take no more", async || {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let queued = metric(&world, "titan_answers_queued").await?;
            let still = queued > 0.0 && queued == before;
            before = queued;
            Ok(still.then_some(()))
        })
        .await
        .expect("answers wait");
        assert!(before <= (ASKED - AT_WORK) as f64, "{before}");

        let connection = tokio::spawn(connection);
        for answer in answers {
            assert!(read(answer).await > bundles * LENGTH);
        }
        // Whatever was held is free again.
        let mut reports = Vec::new();
        for _ in 0..ASKED {
            reports.push(ask(&mut client, &pi, "report", Some(r#"{"seq":1}"#)).await);
        }
        for report in reports {
            let report = tokio::time::timeout(PATIENCE, report).await.expect("in time").expect("answered");
            assert_eq!(report.status(), 204);
        }
        assert_eq!(metric(&world, "titan_answers_queued").await.expect("told"), 0.0);
        drop(client);
        let ended = tokio::time::timeout(PATIENCE, connection).await.expect("in time").expect("joined");
        ended.expect("ended in good order");
        world.plane.stop().await.expect("stopped");
    }
}

/// A client that gives up what it asked for, and asks anew, again and again, has no more waiting for it than others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_given_up_does_not_pile_up() {
    let (world, pi) = world().await;
    large(&world, 1).await;
    // Nothing can be told: whatever is at work stays so for some seconds.
    let (mut client, connection) = connect(world.plane.address(), 0).await;
    let connection = tokio::spawn(connection);
    let mut kept = Vec::new();
    for _ in 0..AT_WORK {
        kept.push(ask(&mut client, &pi, "changes", None).await);
    }
    for _ in 0..4 {
        for _ in 0..100 {
            // A few at a time, as a client that hopes for the best: not one that is shown the door for its resets.
            drop(ask(&mut client, &pi, "changes", None).await);
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(metric(&world, "titan_answers_queued").await.expect("told") <= WAIT);
    }
    assert!(!connection.is_finished(), "it is still there");
    drop((kept, client));
    connection.abort();
    world.plane.stop().await.expect("stopped");
}
