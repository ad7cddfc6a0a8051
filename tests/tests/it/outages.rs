//! Law 5: whatever the control plane, or whatever stands in its place, answers: nothing is removed because it was missing.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use serde_json::{Value, json};
use titan_api::Kind;
use titan_tests::{
    agents::AgentNode,
    manifests::{deployment, host, target, template, workload},
    operators::Operator,
    planes::Plane,
    worlds::{World, until},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};

/// Something that answers every request alike and is no control plane.
pub(crate) struct Impostor(JoinHandle<()>);

impl Impostor {
    /// Starts to answer at `address` with `head`, the status line and headers without length, and `body`.
    pub(crate) async fn start(address: SocketAddr, head: &str, body: Vec<u8>, length: usize) -> Self {
        // The control plane that was here before may still be closing its connections.
        let listener = until("the port", async || Ok(TcpListener::bind(address).await.ok())).await.expect("the port");
        let head = format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n").into_bytes();
        let body = Arc::new(body);
        Self(tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (head, body) = (head.clone(), body.clone());
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    let mut part = [0; 4096];
                    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                        match stream.read(&mut part).await {
                            Ok(read @ 1..) => request.extend_from_slice(&part[..read]),
                            _ => return,
                        }
                    }
                    // Whoever hangs up in the middle has seen enough.
                    let _hung_up = stream.write_all(&head).await;
                    let _hung_up = stream.write_all(&body).await;
                    let _hung_up = stream.shutdown().await;
                });
            }
        }))
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What must stay as it is: files and commits.
pub(crate) type Kept = (BTreeMap<String, String>, Vec<(String, String)>);

pub(crate) fn kept(agent: &AgentNode) -> Kept {
    (agent.files().expect("files"), agent.commits().expect("commits"))
}

pub(crate) fn address(server: &str) -> SocketAddr {
    server.trim_start_matches("http://").parse().expect("an address")
}

/// Returns a world whose host `pi` has an agent with `web` applied.
pub(crate) async fn applied() -> (World, AgentNode, Kept) {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let documents = [
        host("pi", ""),
        template("web", &[("app.conf.j2", "version={{ workload.version }}\n")]),
        workload("web", "1"),
        target("all", ""),
        deployment("web", "web", "web", "all", &json!({})),
    ];
    world.apply(documents).await.expect("written");
    world.settled().await.expect("decided");
    let agent = AgentNode::new(crate::NODE).expect("an agent");
    join(&world.plane, &agent);
    agent.settle().expect("applied");
    let kept = kept(&agent);
    assert_eq!(kept.0.get("default/web/app.conf").map(String::as_str), Some("version=1\n"), "{kept:?}");
    assert_eq!(kept.1.len(), 1);
    (world, agent, kept)
}

pub(crate) fn join(plane: &Plane, agent: &AgentNode) {
    let person = Operator::new(crate::NODE).expect("a directory");
    person.login(&plane.server, &plane.token).expect("logged in");
    agent.join(&person.titan("titan host join-command pi").expect("a line")).expect("enrolled");
}

pub(crate) fn phases(status: &Value) -> BTreeMap<String, String> {
    let lines = status["deployments"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    lines.map(|line| (text(&line["name"]), text(&line["phase"]))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_that_is_not_the_control_planes_own_changes_anything_on_the_host() {
    let (world, agent, before) = applied().await;
    let World { plane, database, .. } = world;
    let (address, token) = (address(&plane.server), plane.token.clone());
    plane.stop().await.expect("stopped");
    let problem = |status: u16, code: &str| {
        let body = json!({"type": format!("urn:titan:problem:{code}"), "title": code, "status": status,
            "detail": "made up", "code": code});
        body.to_string()
    };
    let (json_type, problem_type) = ("content-type: application/json", "content-type: application/problem+json");
    let html = "<html><body>Please log in to the network</body></html>".to_owned();
    let truncated = r#"{"cursor":"2999-01-01T00:00:00.000000Z","full":true,"digest":"00000000000000"#.to_owned();
    for (what, head, body) in [
        ("401", format!("401 Unauthorized\r\n{problem_type}"), problem(401, "unauthorized")),
        ("403", format!("403 Forbidden\r\n{problem_type}"), problem(403, "forbidden")),
        ("404", format!("404 Not Found\r\n{problem_type}"), problem(404, "not_found")),
        ("404 of another server", "404 Not Found\r\ncontent-type: text/html".to_owned(), html.clone()),
        ("500", format!("500 Internal Server Error\r\n{problem_type}"), problem(500, "internal")),
        ("502", "502 Bad Gateway".to_owned(), String::new()),
        ("503", format!("503 Service Unavailable\r\n{problem_type}\r\nretry-after: 1"), problem(503, "unavailable")),
        ("redirect", "302 Found\r\nlocation: http://127.0.0.1:1/".to_owned(), String::new()),
        ("HTML page", "200 OK\r\ncontent-type: text/html".to_owned(), html.clone()),
        ("HTML that says it is JSON", format!("200 OK\r\n{json_type}"), html),
        ("empty body", format!("200 OK\r\n{json_type}"), String::new()),
        ("other JSON", format!("200 OK\r\n{json_type}"), "{}".to_owned()),
        ("null", format!("200 OK\r\n{json_type}"), "null".to_owned()),
        ("204 without a cursor", "204 No Content".to_owned(), String::new()),
        ("truncated JSON", format!("200 OK\r\n{json_type}"), truncated),
    ] {
        let length = body.len();
        let impostor = Impostor::start(address, &head, body.into_bytes(), length).await;
        refused(&agent, what, &before);
        drop(impostor);
    }
    // The connection breaks before the body is there.
    let broken = Impostor::start(address, &format!("200 OK\r\n{json_type}"), b"{\"cursor\":".to_vec(), 5000).await;
    refused(&agent, "broken off", &before);
    drop(broken);
    let endless = vec![b' '; 100 * 1024 * 1024];
    let large = Impostor::start(address, &format!("200 OK\r\n{json_type}"), endless, 100 * 1024 * 1024).await;
    refused(&agent, "100 MB", &before);
    drop(large);
    refused(&agent, "nobody there", &before);

    // The control plane comes back: everything is as it was, and the trouble is over.
    let plane = Plane::start(&database, crate::NODE, &token).await.expect("started again");
    agent.point_at(&plane.server).expect("configured");
    agent.settle().expect("settled");
    assert_eq!(kept(&agent), before);
    assert_eq!(agent.status().expect("status")["trouble"], Value::Null);
    plane.stop().await.expect("stopped");
}

/// Runs a round that gets no good answer.
pub(crate) fn refused(agent: &AgentNode, what: &str, before: &Kept) {
    let output = agent.once().expect("run");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{what}: {said}");
    assert!(said.contains("error"), "{what}: {said}");
    assert_eq!(&kept(agent), before, "{what}");
    let status = agent.status().expect("status");
    assert!(status["trouble"].as_str().is_some_and(|trouble| !trouble.is_empty()), "{what}: {status}");
    assert_eq!(phases(&status)["web"], "healthy", "{what}: {status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_agent_outlives_an_outage_and_says_why_nothing_is_new() {
    let (world, agent, before) = applied().await;
    let address = address(&world.plane.server);
    let mut running = agent.run().expect("running");
    until("the agent to poll", async || {
        let host = world.admin.get(Kind::Host, None, "pi", None).await?;
        let held = world.admin_call(reqwest::Method::GET, "/metrics", "").await?.text;
        Ok((host.status.is_some_and(|status| status["online"] == true) && held.contains("titan_polls_waiting 1"))
            .then_some(()))
    })
    .await
    .expect("polling");
    world.plane.stop().await.expect("stopped");
    let head = "500 Internal Server Error\r\ncontent-type: text/plain";
    let impostor = Impostor::start(address, head, b"oops".to_vec(), 4).await;
    let trouble = until("the agent to notice", async || {
        let trouble = agent.status()?["trouble"].as_str().map(str::to_owned);
        Ok(trouble.filter(|trouble| trouble.contains("500")))
    });
    trouble.await.expect("it says why");
    assert!(running.is_running() && kept(&agent) == before);
    drop(impostor);
}
