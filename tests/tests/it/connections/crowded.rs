//! Connections on which much is asked at a time.

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use serde_json::json;
use titan_tests::{
    manifests,
    planes::Plane,
    worlds::{PATIENCE, PolledHost, World, until},
};
use tokio::net::{TcpSocket, TcpStream};

use super::{metric, world};

/// Requests on one connection, as many as it takes.
const ASKED: usize = 250;
/// Bytes of each answer: together more than the system keeps for a connection in both directions.
const LENGTH: usize = 60_000;
/// What is at work for one connection.
const AT_WORK: f64 = 32.0;

/// Sends a request of the host.
async fn ask(
    client: &mut SendRequest<Bytes>,
    pi: &PolledHost,
    path: &str,
    body: Option<&'static str>,
) -> ResponseFuture {
    *client = client.clone().ready().await.expect("ready");
    let method = if body.is_some() { "POST" } else { "GET" };
    let request = http::Request::builder().method(method).uri(format!("http://titan/v1/hosts/pi/{path}"));
    let request = request.header("authorization", format!("Bearer {}", pi.credential));
    let request = request.header("content-type", "application/json").body(()).expect("a request");
    let (answer, mut stream) = client.send_request(request, body.is_none()).expect("sent");
    if let Some(body) = body {
        stream.send_data(Bytes::from_static(body.as_bytes()), true).expect("sent");
    }
    answer
}

/// Gives the host something large.
async fn large(world: &World) {
    let text: String = (0..LENGTH).map(|at| char::from(b'a' + (at % 23) as u8)).collect();
    let resources = [
        manifests::workload("web", "1"),
        manifests::template("web", &[("a.j2", &text)]),
        manifests::target("all", ""),
        manifests::deployment("web", "web", "web", "all", &json!({})),
    ];
    world.apply(resources).await.expect("written");
    world.settled().await.expect("decided");
}

/// Whoever only waits keeps nobody from being answered, though its credential was yet to be looked up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_nobody_knows_yet_may_all_wait_on_one_connection() {
    let (before, pi) = world().await;
    let token = before.plane.token.clone();
    before.plane.stop().await.expect("stopped");
    let plane = Plane::start(&before.database, crate::NODE, &token).await.expect("a control plane");
    let socket = TcpStream::connect(plane.address()).await.expect("connected");
    let (mut client, connection) = h2::client::handshake(socket).await.expect("HTTP/2");
    tokio::spawn(connection);
    let path = format!("changes?since={}&wait=60", pi.cursor.expect("a cursor"));
    let mut polls = Vec::new();
    for _ in 0..100 {
        polls.push(ask(&mut client, &pi, &path, None).await);
    }
    let held = until("all polls to be held", async || {
        let request = reqwest::Client::new().get(format!("{}/metrics", plane.server)).bearer_auth(&token);
        let text = request.send().await?.text().await?;
        Ok(text.contains("titan_polls_waiting 100\n").then_some(()))
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
    let (world, pi) = world().await;
    large(&world).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 * 1024).expect("set");
    let socket = socket.connect(world.plane.address().parse().expect("an address")).await.expect("connected");
    let mut builder = Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 30).initial_max_send_streams(ASKED);
    let (mut client, mut connection) = builder.handshake::<_, Bytes>(socket).await.expect("HTTP/2");
    let mut answers = Vec::new();
    for _ in 0..ASKED {
        answers.push(ask(&mut client, &pi, "changes", None).await);
    }
    // What is asked is sent, and nothing is read.
    let _never = tokio::time::timeout(std::time::Duration::from_millis(1), &mut connection).await;
    let mut before = 0.0;
    until("the connection to take no more", async || {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let queued = metric(&world, "titan_answers_queued").await?;
        let still = queued > 0.0 && queued == before;
        before = queued;
        Ok(still.then_some(()))
    })
    .await
    .expect("answers wait");
    assert!(before <= ASKED as f64 - AT_WORK, "{before}");

    let connection = tokio::spawn(connection);
    for answer in answers {
        let answer = tokio::time::timeout(PATIENCE, answer).await.expect("in time").expect("answered");
        assert_eq!(answer.status(), 200);
        let (mut stream, mut length) = (answer.into_body(), 0);
        while let Some(data) = stream.data().await {
            let data = data.expect("read");
            length += data.len();
            stream.flow_control().release_capacity(data.len()).expect("released");
        }
        assert!(length > LENGTH, "{length}");
    }
    // Whatever was held is free again: more reports than are at work at a time.
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
    tokio::time::timeout(PATIENCE, connection).await.expect("in time").expect("joined").expect("ended in good order");
    world.plane.stop().await.expect("stopped");
}
