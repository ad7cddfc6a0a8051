//! The poll and the report, as section 5 of the protocol has them.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use titan_api::{
    Code, Digest, Kind, Revision,
    client::{Polled, WriteOptions},
    limits,
    poll::{PollAnswer, RemovalReason},
    reports::{DeploymentReport, Phase, Report},
};
use titan_tests::{
    manifests::{deployment, target, template, workload},
    worlds::{PATIENCE, PolledHost, World, until},
};

/// Returns a world in which host `pi` has been told of `web`.
async fn told() -> (World, PolledHost) {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let documents = [
        template("web", &[("a.j2", "version={{ workload.version }}\n")]),
        workload("web", "1"),
        target("all", ""),
        deployment("web", "web", "web", "all", &json!({})),
    ];
    world.apply(documents).await.expect("written");
    let mut pi = world.host("pi", "").await.expect("a host");
    let clock = world.settled().await.expect("decided");
    let news = pi.catch_up(clock).await.expect("polled");
    assert!(news.full && news.moved.contains("default/web"), "{news:?}");
    (world, pi)
}

async fn bump(world: &World, version: &str) -> Revision {
    world.apply([workload("web", version)]).await.expect("written");
    world.settled().await.expect("decided")
}

/// S2-9, S2-19.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cursor_goes_on_without_a_gap_and_without_a_repeat() {
    let (world, mut pi) = told().await;
    assert!(pi.poll(0).await.expect("polled").is_none(), "nothing new, nothing told");
    let clock = bump(&world, "2").await;
    let news = pi.catch_up(clock).await.expect("polled");
    assert!(!news.full && news.moved.len() == 1, "{news:?}");
    assert!(pi.poll(0).await.expect("polled").is_none());
    // A change that does not concern the host still moves its cursor on.
    let before = pi.cursor;
    let clock = {
        world.apply([workload("other", "1")]).await.expect("written");
        world.settled().await.expect("decided")
    };
    let news = pi.catch_up(clock).await.expect("polled");
    assert!(news.moved.is_empty() && pi.cursor > before);
}

/// `since` means at or after, as the founding document has it: S2-10, S2-13.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn since_is_any_time_and_includes_what_moved_at_it() {
    let (world, mut pi) = told().await;
    let clock = bump(&world, "2").await;
    pi.catch_up(clock).await.expect("polled");
    let revision = pi.held["default/web"].revision;
    let count = async |since: Revision| match pi.client.poll("pi", Some(since), None, 0).await.expect("polled") {
        Polled::Changed(answer) => answer.deployments.len(),
        Polled::Unchanged { .. } => 0,
    };
    assert_eq!(count(revision).await, 1, "at");
    assert_eq!(count(revision.next()).await, 0, "after");
    assert_eq!(count(Revision::from_micros(1)).await, 1, "long ago");
    let path = "/v1/hosts/pi/changes?since=2020-01-01T12:00:00%2B02:00";
    let answer = world.call(Method::GET, path, Some(&pi.credential), &[], "").await.expect("answered");
    assert_eq!(answer.status, 200, "any offset is read: {}", answer.text);
    for query in ["since=yesterday", "have=xyz", "wait=-1", "unknown=1"] {
        let path = format!("/v1/hosts/pi/changes?{query}");
        let answer = world.call(Method::GET, &path, Some(&pi.credential), &[], "").await.expect("answered");
        assert_eq!((answer.status.as_u16(), answer.code()), (400, "bad_parameter"), "{query}");
    }
    let ahead = pi.client.poll("pi", Some("2999-01-01T00:00:00Z".parse().expect("a time")), None, 0).await;
    assert_eq!(ahead.expect_err("ahead of every clock").code(), Some(Code::CursorAhead));
}

/// S2-24: an answer that got lost is simply given again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answer_is_given_again() {
    let (world, mut pi) = told().await;
    let cursor = pi.cursor;
    let clock = bump(&world, "2").await;
    until("the change to arrive", async || {
        let lost = pi.client.poll("pi", cursor, Some(pi.have()), 0).await?;
        Ok(matches!(lost, Polled::Changed(_)).then_some(()))
    })
    .await
    .expect("told, and lost");
    let news = pi.catch_up(clock).await.expect("polled");
    assert!(news.moved.contains("default/web") && pi.held["default/web"].files["a"] == "version=2\n");
}

/// S2-23: the cursor is for speed, the digest is the truth.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_with_another_set_than_it_should_have_is_told_everything() {
    let (_world, mut pi) = told().await;
    let whole = pi.held.clone();
    pi.held.clear();
    let news = pi.poll(0).await.expect("polled").expect("told");
    assert!(news.full && pi.held == whole, "{news:?}");
}

/// S4-19: a held poll is answered as soon as the host's set moves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_poll_is_answered_when_something_moves_and_only_then() {
    let (world, mut pi) = told().await;
    let begun = Instant::now();
    assert!(pi.poll(1).await.expect("polled").is_none());
    assert!(begun.elapsed() >= Duration::from_secs(1), "it was not held");
    let waiting = tokio::spawn(async move { pi.poll(60).await.map(|news| (news, pi)) });
    until("the poll to be held", async || {
        let counters = world.admin_call(Method::GET, "/metrics", "").await?.text;
        Ok(counters.contains("titan_polls_waiting 1").then_some(()))
    })
    .await
    .expect("held");
    // Something that does not concern the host does not wake it for good.
    bump(&world, "1").await;
    assert!(!waiting.is_finished());
    bump(&world, "2").await;
    let answered = tokio::time::timeout(PATIENCE, waiting).await.expect("in time").expect("joined");
    let (news, pi) = answered.expect("polled");
    assert!(news.is_some_and(|news| news.moved.contains("default/web")));
    assert_eq!(pi.held["default/web"].files["a"], "version=2\n");
}

/// S3-31: a control plane that ends lets held polls finish.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_poll_is_finished_when_the_control_plane_ends() {
    let (world, mut pi) = told().await;
    let cursor = pi.cursor;
    let waiting = tokio::spawn(async move { pi.poll(60).await.map(|news| (news, pi.cursor)) });
    until("the poll to be held", async || {
        let counters = world.admin_call(Method::GET, "/metrics", "").await?.text;
        Ok(counters.contains("titan_polls_waiting 1").then_some(()))
    })
    .await
    .expect("held");
    world.plane.stop().await.expect("stopped");
    let answered = tokio::time::timeout(PATIENCE, waiting).await.expect("in time").expect("joined");
    let (news, after) = answered.expect("a whole answer, not a broken connection");
    assert!(news.is_none() && after >= cursor);
}

/// A host that was off for 400 days while its ten deployments were deleted removes all ten at its first poll.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_that_was_off_for_long_is_told_of_every_removal() {
    let (world, mut pi) = told().await;
    let names: Vec<_> = (0..10).map(|index| format!("d{index}")).collect();
    world.apply(names.iter().map(|name| deployment(name, "web", "web", "all", &json!({})))).await.expect("written");
    let clock = world.settled().await.expect("decided");
    pi.catch_up(clock).await.expect("polled");
    assert_eq!(pi.held.len(), 11);
    for name in &names {
        let options = WriteOptions::default();
        world.admin.delete(Kind::Deployment, Some("default"), name, false, &options).await.expect("deleted");
    }
    let clock = world.settled().await.expect("decided");
    // Its cursor is from long ago.
    pi.cursor = Some("2025-01-01T00:00:00Z".parse().expect("a time"));
    let news = pi.catch_up(clock).await.expect("polled");
    assert_eq!(news.removed.len(), 10);
    assert!(news.removed.values().all(|gone| gone.reason == RemovalReason::DeploymentDeleted));
    assert_eq!(pi.held.keys().collect::<Vec<_>>(), ["default/web"]);
    pi.report(&news).await.expect("reported");
    let gone = until("the deployments to be gone", async || {
        let left = world.admin.list_all(Kind::Deployment, None, None).await?;
        let found = world.admin.deployment_status("default", "d9").await;
        Ok((left.len() == 1 && found.is_err()).then_some(()))
    });
    gone.await.expect("gone");
}

/// A large bundle travels by its digest, to whom it is assigned and nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bundle_is_fetched_by_digest_by_its_own_host_alone() {
    let (world, mut pi) = told().await;
    let large = "0123456789abcdef".repeat(limits::INLINE_BUNDLE_BYTES / 8);
    world.apply([template("web", &[("large", &large)])]).await.expect("written");
    let clock = world.settled().await.expect("decided");
    let cursor = pi.cursor;
    pi.catch_up(clock).await.expect("polled");
    assert_eq!(pi.held["default/web"].files["large"], large);
    let Polled::Changed(answer) = pi.client.poll("pi", cursor, None, 0).await.expect("polled") else {
        panic!("it moved")
    };
    assert!(answer.deployments[0].bundle.is_none(), "it does not travel inside");
    let only_pi = json!({"spec": {"matchLabels": {"only": "pi"}, "expression": null}});
    let patch = json!({"metadata": {"labels": {"only": "pi"}}});
    world.admin.patch(Kind::Host, None, "pi", &patch, &WriteOptions::default()).await.expect("patched");
    world.admin.patch(Kind::Target, Some("default"), "all", &only_pi, &WriteOptions::default()).await.expect("patched");
    let other = world.host("other", "").await.expect("a host");
    world.settled().await.expect("decided");
    let digest = pi.held["default/web"].digest;
    assert!(pi.client.bundle("pi", &digest).await.is_ok());
    assert_eq!(other.client.bundle("other", &digest).await.expect_err("not its own").code(), Some(Code::NotFound));
    for rubbish in ["abc", "..%2f..", &"0".repeat(64)] {
        let path = format!("/v1/hosts/pi/bundles/{rubbish}");
        let answer = world.call(Method::GET, &path, Some(&pi.credential), &[], "").await.expect("answered");
        assert_eq!(answer.code(), "not_found", "{rubbish}");
    }
    // Whoever takes compressed answers gets them.
    for encoding in ["gzip", "zstd"] {
        let path = format!("/v1/hosts/pi/bundles/{digest}");
        let headers = [("accept-encoding", encoding)];
        let answer = world.call(Method::GET, &path, Some(&pi.credential), &headers, "").await.expect("answered");
        assert_eq!(answer.header("content-encoding"), encoding);
        assert!(answer.text.len() < large.len() / 10);
    }
}

/// A poll speaks gzip to whoever takes it, and plain JSON to everyone else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answer_is_the_same_compressed_and_plain() {
    let (world, mut pi) = told().await;
    let text = "setting = {{ workload.version }} \"\u{fc}\u{1f980}\"\n".repeat(100);
    world.apply([template("web", &[("a.j2", &text)])]).await.expect("written");
    let clock = world.settled().await.expect("decided");
    let path = format!("/v1/hosts/pi/changes?since={}", pi.cursor.expect("a cursor"));
    pi.catch_up(clock).await.expect("polled by a client that takes gzip");
    assert!(pi.held["default/web"].files["a"].ends_with("\"\u{fc}\u{1f980}\"\n"));
    let ask = async |accepted| {
        let headers = [("accept-encoding", accepted)];
        world.call(Method::GET, &path, Some(&pi.credential), &headers, "").await.expect("answered")
    };
    for accepted in ["zstd", "gzip;q=0"] {
        let plain = ask(accepted).await;
        assert!(plain.headers.get("content-encoding").is_none(), "{accepted}");
        assert_eq!(plain.body["deployments"][0]["bundle"]["files"][0]["path"], "a");
    }
    let member = ask("zstd, gzip").await;
    assert_eq!(member.header("content-encoding"), "gzip");
    assert_eq!((member.header("content-type"), member.header("vary")), ("application/json", "accept-encoding"));
    let http = reqwest::Client::builder().gzip(true).build().expect("a client");
    let request = http.get(format!("{}{path}", world.plane.server)).bearer_auth(&pi.credential);
    let answer: PollAnswer = request.send().await.expect("answered").json().await.expect("unpacked");
    let bundle = answer.deployments[0].bundle.as_ref().expect("it travels inside");
    assert_eq!(Digest::of(bundle.get().as_bytes()), answer.deployments[0].digest);
}

/// Reports: only news counts, and observed state never moves the fleet's clock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_report_changes_nothing_and_no_report_moves_the_clock() {
    let (world, mut pi) = told().await;
    let clock = world.clock().await.expect("clock");
    let held = pi.held["default/web"].clone();
    let said = |seq: u64, phase: Phase, message: &str| Report {
        seq,
        deployments: vec![DeploymentReport {
            id: held.id,
            release: held.release.clone(),
            revision: held.revision,
            digest: Some(held.digest),
            phase,
            message: message.to_owned(),
            healthy_since: None,
            commit: None,
            push: None,
            drift: Vec::new(),
        }],
        ..Report::default()
    };
    let host = async || {
        let status = world.admin.deployment_status("default", "web").await.expect("a status");
        status.hosts.into_iter().next().expect("a host")
    };
    pi.client.report("pi", &said(7, Phase::Failed, "disk full")).await.expect("reported");
    assert_eq!((host().await.phase, host().await.message.as_str()), (Some(Phase::Failed), "disk full"));
    // Sent before, arrived after.
    let late = pi.client.report("pi", &said(6, Phase::Healthy, "")).await;
    assert_eq!(late.expect_err("late").code(), Some(Code::Stale));
    assert_eq!(host().await.phase, Some(Phase::Failed));
    pi.client.report("pi", &said(7, Phase::Failed, "disk full")).await.expect("the answer may have been lost");
    pi.client.report("pi", &said(8, Phase::Degraded, &"ä".repeat(limits::MESSAGE_BYTES))).await.expect("reported");
    assert!(host().await.message.len() <= limits::MESSAGE_BYTES);
    pi.client.report("pi", &said(9, Phase::Healthy, "")).await.expect("reported");
    assert_eq!(host().await.phase, Some(Phase::Healthy));
    assert_eq!(world.clock().await.expect("clock"), clock);
    for (body, pointer) in [
        (json!({"seq": "one"}), "/seq"),
        (json!({"seq": 10, "unknown": 1}), "/unknown"),
        (json!({"seq": 10, "facts": {"a b": 1}}), "/facts/a b"),
        (json!({"seq": 10, "facts": {"a": []}}), "/facts/a"),
        (json!({"seq": 10, "deployments": [{"id": "x"}]}), "/deployments/0/id"),
    ] {
        let path = "/v1/hosts/pi/report";
        let answer =
            world.call(Method::POST, path, Some(&pi.credential), &[], body.to_string()).await.expect("answered");
        assert_eq!((answer.status.as_u16(), answer.pointers()), (422, vec![pointer]), "{}", answer.text);
    }
    let large = json!({"seq": 10, "orphans": [], "facts": {"a": "x".repeat(limits::REPORT_BODY_BYTES)}}).to_string();
    let answer =
        world.call(Method::POST, "/v1/hosts/pi/report", Some(&pi.credential), &[], large).await.expect("answered");
    assert_eq!((answer.status.as_u16(), answer.code()), (413, "too_large"));
    // A tombstone can be confirmed at its own revision only, and what is present cannot be confirmed away.
    pi.client.report("pi", &said(11, Phase::Removed, "")).await.expect("reported");
    pi.cursor = None;
    let news = pi.poll(0).await.expect("polled").expect("told");
    assert!(news.moved.contains("default/web"));
}
