//! Who may do what: nothing without a credential, a host for itself alone, a join token once.

use reqwest::Method;
use serde_json::{Value, json};
use titan_api::{
    Code, Kind, Name,
    client::{Client, WriteOptions},
    enrolment::{EnrolRequest, EnrolmentTokenRequest, TokenRequest},
    hosts::Facts,
};
use titan_tests::{
    databases,
    manifests::host,
    planes::Plane,
    worlds::{World, until},
};
use uuid::Uuid;

/// What answers without a credential.
const OPEN: [(&str, &str); 3] = [("get", "/healthz"), ("get", "/readyz"), ("post", "/v1/enrol")];
/// What a host may do, for itself.
const FOR_HOSTS: [&str; 3] =
    ["/v1/hosts/{name}/changes", "/v1/hosts/{name}/bundles/{digest}", "/v1/hosts/{name}/report"];

/// Returns every operation of the API as (method, path).
async fn operations(world: &World) -> Vec<(String, String)> {
    let described = world.call(Method::GET, "/openapi.json", None, &[], "").await.expect("answered");
    assert_eq!(described.status, 200);
    let paths = described.body["paths"].as_object().expect("paths").clone();
    let methods = |(path, item): (String, Value)| {
        let item = item.as_object().expect("methods").clone();
        item.into_iter().map(move |(method, _)| (method, path.clone()))
    };
    paths.into_iter().flat_map(methods).collect()
}

/// Returns a path with something in place of its parameters.
fn filled(path: &str) -> String {
    let id = Uuid::nil().to_string();
    [("{name}", "pi"), ("{workspace}", "default"), ("{deployment}", "prod"), ("{id}", &id), ("{digest}", "ab")]
        .into_iter()
        .fold(path.to_owned(), |path, (parameter, value)| path.replace(parameter, value))
}

fn method(text: &str) -> Method {
    text.to_uppercase().parse().expect("a method")
}

/// S3-36, S4-15.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_but_health_docs_and_enrolment_answers_without_a_credential() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let operations = operations(&world).await;
    assert!(operations.len() > 60, "{}", operations.len());
    for (verb, path) in &operations {
        let open = OPEN.contains(&(verb.as_str(), path.as_str()));
        for token in [None, Some("titan_admin_guessed"), Some("")] {
            let answer = world.call(method(verb), &filled(path), token, &[], "{}").await.expect("answered");
            if open {
                assert_ne!(answer.code(), "unauthorized", "{verb} {path}");
            } else {
                assert_eq!((answer.status.as_u16(), answer.code()), (401, "unauthorized"), "{verb} {path}");
                assert_eq!(answer.header("www-authenticate"), "Bearer");
            }
        }
    }
    for path in ["/", "/healthz", "/readyz", "/openapi.json", "/docs"] {
        let answer = world.call(Method::GET, path, None, &[], "").await.expect("answered");
        assert_eq!(answer.status, 200, "{path}");
    }
}

/// The credential of a host is good for its own poll, bundles and reports; nothing of it opens anything else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_may_only_poll_and_report_for_itself() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let pi = world.host("pi", "").await.expect("a host");
    let other = world.host("other", "").await.expect("a host");
    for (verb, path) in operations(&world).await {
        if OPEN.contains(&(verb.as_str(), path.as_str())) {
            continue;
        }
        let url = filled(&path);
        let body = if path.ends_with("/report") { r#"{"seq":1}"# } else { "{}" };
        let answer = world.call(method(&verb), &url, Some(&other.credential), &[], body).await.expect("answered");
        assert_eq!((answer.status.as_u16(), answer.code()), (403, "forbidden"), "{verb} {path} by another host");
        let answer = world.call(method(&verb), &url, Some(&pi.credential), &[], body).await.expect("answered");
        let its_own = FOR_HOSTS.contains(&path.as_str());
        assert_eq!(answer.code() == "forbidden", !its_own, "{verb} {path} by the host: {}", answer.text);
    }
    let admin = world.admin_call(Method::GET, "/v1/hosts/pi/changes", "").await.expect("answered");
    assert_eq!(admin.code(), "forbidden", "a person does not poll for a host");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn join_token_works_once_and_its_attempt_may_be_repeated() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    world.apply([host("pi", ""), host("other", "")]).await.expect("written");
    let name: Name = "pi".parse().expect("a name");
    let request = EnrolmentTokenRequest { host: name.clone(), ttl_seconds: Some(60) };
    let token = world.admin.enrolment_token(&request).await.expect("a token").token;
    let anybody = Client::new(&world.plane.server, None).expect("a client");
    let enrol = async |host: &str, token: &str, attempt: Uuid| {
        let host = host.parse().expect("a name");
        anybody.enrol(&EnrolRequest { host, token: token.to_owned(), attempt, facts: Facts::new() }).await
    };
    let attempt = Uuid::now_v7();
    assert_eq!(enrol("other", &token, attempt).await.expect_err("another host").code(), Some(Code::Unauthorized));
    assert_eq!(enrol("pi", "titan_join_guess", attempt).await.expect_err("a guess").code(), Some(Code::Unauthorized));
    let first = enrol("pi", &token, attempt).await.expect("enrolled");
    let second = enrol("pi", &token, attempt).await.expect("the answer may have been lost");
    assert_eq!(first.host_id, second.host_id);
    let used_up = enrol("pi", &token, Uuid::now_v7()).await;
    assert_eq!(used_up.expect_err("used up").code(), Some(Code::Unauthorized));
    let poll = async |credential: &str| {
        let client = Client::new(&world.plane.server, Some(credential.to_owned())).expect("a client");
        client.poll("pi", None, None, 0).await
    };
    assert!(poll(&second.credential).await.is_ok());
    assert_eq!(poll(&first.credential).await.expect_err("replaced").code(), Some(Code::Unauthorized));
    // A join token opens nothing else, and a host's credential is no join token.
    assert_eq!(poll(&token).await.expect_err("a join token").code(), Some(Code::Unauthorized));
    let wrong = enrol("pi", &second.credential, Uuid::now_v7()).await;
    assert_eq!(wrong.expect_err("no join token").code(), Some(Code::Unauthorized));
    let missing = EnrolmentTokenRequest { host: "nobody".parse().expect("a name"), ttl_seconds: None };
    assert_eq!(world.admin.enrolment_token(&missing).await.expect_err("no host").code(), Some(Code::NotFound));
    for ttl_seconds in [0, u32::MAX] {
        let request = EnrolmentTokenRequest { host: name.clone(), ttl_seconds: Some(ttl_seconds) };
        assert_eq!(world.admin.enrolment_token(&request).await.expect_err("refused").code(), Some(Code::Invalid));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_host_and_ended_token_are_out_at_once() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let mut pi = world.host("pi", "").await.expect("a host");
    assert!(pi.poll(0).await.is_ok());
    world.admin.delete(Kind::Host, None, "pi", true, &WriteOptions::default()).await.expect("deleted");
    let refused = pi.client.poll("pi", None, None, 0).await.expect_err("gone");
    assert_eq!(refused.code(), Some(Code::Unauthorized));
    let request = TokenRequest { name: "pipeline".parse().expect("a name"), ttl_seconds: None };
    let made = world.admin.create_token(&request).await.expect("a token");
    let pipeline = Client::new(&world.plane.server, Some(made.token)).expect("a client");
    assert_eq!(pipeline.tokens().await.expect("listed").items.len(), 2);
    world.admin.delete_token(made.record.id).await.expect("ended");
    assert_eq!(pipeline.tokens().await.expect_err("ended").code(), Some(Code::Unauthorized));
    let last = world.admin.tokens().await.expect("listed").items[0].id;
    assert_eq!(world.admin.delete_token(last).await.expect_err("the last").code(), Some(Code::InUse));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_of_tokens_are_nowhere_in_the_database() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let pi = world.host("pi", "").await.expect("a host");
    let file = world.database.url.trim_start_matches("sqlite://").to_owned();
    let mut bytes = std::fs::read(&file).expect("the database");
    bytes.extend(std::fs::read(format!("{file}-wal")).unwrap_or_default());
    for secret in [&world.plane.token, &pi.credential] {
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "a secret is stored as it is");
    }
    let listed = world.admin_call(Method::GET, "/v1/tokens", "").await.expect("answered");
    assert!(!listed.text.contains("titan_admin_"), "{}", listed.text);
    assert_eq!(json!(listed.status.as_u16()), json!(200));
}

/// A fleet that comes back all at once, known to nobody yet, does not take a connection to the database each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_that_are_shown_at_once_are_looked_up_together() {
    const CALLERS: usize = 300;
    let world = World::start(crate::NODE).await.expect("a control plane");
    let mut known = world.host("pi", "").await.expect("a host");
    let (client, url) = (reqwest::Client::new(), format!("{}/v1/hosts/pi/changes", world.plane.server));
    let guess = |number| client.get(&url).bearer_auth(format!("titan_host_guess{number}")).send();
    let (answers, news) = tokio::join!(futures_util::future::join_all((0..CALLERS).map(guess)), known.poll(0));
    for answer in answers {
        assert_eq!(answer.expect("answered").status(), 401);
    }
    assert!(news.expect("polled").is_some(), "one that is right among them is found");
    let text = world.admin_call(Method::GET, "/metrics", "").await.expect("answered").text;
    let metric = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.expect("the metric").parse().expect("a number")
    };
    let (shown, statements) = (metric("titan_credential_batch_sum"), metric("titan_credential_batch_count"));
    assert!(shown > CALLERS as f64, "{shown}");
    assert!(statements < shown / 2.0, "{statements} statements for {shown}");
}

/// S3-22: whoever asks more often than he may is told so and when to come again; others and the polls of hosts go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_too_often_is_told_so_and_nobody_else_notices() {
    let database = databases::sqlite();
    let plane = Plane::start_with(&database, crate::NODE, "", |config| config.requests_per_second = 4).await;
    let plane = plane.expect("a control plane");
    let world = World { admin: plane.client(), plane, database };
    let mut pi = world.host("pi", "").await.expect("a host");
    let request = TokenRequest { name: Name::new("bob").expect("a name"), ttl_seconds: None };
    let bob = world.admin.create_token(&request).await.expect("a token").token;
    let ask =
        async |token: &str| world.call(Method::GET, "/v1/workspaces", Some(token), &[], "").await.expect("answered");
    // Twenty at once after a silence, and then one each quarter of a second.
    let mut refused = None;
    for _ in 0..200 {
        let answer = ask(&world.plane.token).await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    let refused = refused.expect("two hundred are too many");
    assert_eq!((refused.code(), refused.header("content-type")), ("overloaded", "application/problem+json"));
    let seconds: u32 = refused.header("retry-after").parse().expect("seconds");
    assert!((1..=16).contains(&seconds) && refused.body["hint"].is_string(), "{}", refused.text);
    assert_eq!(ask(&bob).await.status, 200, "somebody else");
    for _ in 0..100 {
        pi.poll(0).await.expect("polls are not counted");
    }
    // Who shows no credential that is known is told that, and takes nothing from anybody.
    for _ in 0..100 {
        assert_eq!(ask("titan_admin_guessed").await.status, 401);
    }
    let again = until("another turn", async || Ok((ask(&world.plane.token).await.status == 200).then_some(()))).await;
    again.expect("it is not for ever");
}
