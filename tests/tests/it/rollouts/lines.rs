//! Rollouts at the command line: every word that one can say to a release on its way.

use serde_json::json;
use titan_api::{Name, enrolment::TokenRequest, workplans::PlanState};
use titan_tests::{
    operators::Operator,
    worlds::{World, until},
};

use super::{Hosts, documents, plan};

const FEW: usize = 2;
const GATE: &str = "one-check-1";

/// S4-12, S4-13, S4-16, S4-23: status, watch, history, and all nine words, each with its reason; what is not allowed says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_word_to_a_rollout_works_at_the_command_line() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let hosts = Hosts::start(&world, FEW).await;
    let author = Operator::new(crate::NODE).expect("a directory");
    author.login(&world.plane.server, &world.plane.token).expect("logged in");
    let request = TokenRequest { name: Name::new("reviewer").expect("a name"), ttl_seconds: None };
    let token = world.admin.create_token(&request).await.expect("a token").token;
    let reviewer = Operator::new(crate::NODE).expect("a directory");
    reviewer.login(&world.plane.server, &token).expect("logged in");
    let titan = |line: &str| author.titan(line).expect("it works");
    let ends_with = |line: &str| author.run(line).expect("run").status.code();
    let state = || author.json("titan rollout status web").expect("a status").1["state"].clone();
    let have = async |version: &str| {
        until(version, async || Ok((hosts.count() == [(version.to_owned(), FEW)].into()).then_some(())))
            .await
            .unwrap_or_else(|error| panic!("{error}: {:?}", hosts.count()));
    };
    let free = json!({ "stages": [{ "name": "all", "hosts": "100%" }] });
    let gated = json!({ "stages": [
        { "name": "one", "hosts": 1, "checks": [{ "approval": {} }] },
        { "name": "all", "hosts": "100%" },
    ], "deadline": "200h" });
    let begin = async |version: &str, release: &str| {
        world.apply(documents(version, &gated)).await.expect("written");
        plan(&world, release, |plan| plan.current.iter().any(|node| &*node.name == GATE)).await
    };

    world.apply(documents("one", &free)).await.expect("written");
    plan(&world, "web#1", |_| true).await;
    assert_eq!(ends_with("titan rollout status web --wait"), Some(0));
    assert!(titan("titan rollout watch web").contains("all"));
    for word in ["approve", "retry"] {
        assert_eq!(ends_with(&format!("titan rollout {word} web")), Some(4), "nothing waits for a person");
    }

    let second = begin("two", "web#2").await;
    let waits = titan("titan rollout status web");
    let command = format!("titan rollout approve web {GATE}");
    assert!(waits.contains("waits for approval, 0 of 1") && waits.contains(&command), "{waits}");
    titan("titan rollout pause web --reason lunch");
    assert_eq!(state(), "paused");
    titan("titan rollout resume web --reason eaten");
    let before = second.deadline_at;
    titan("titan rollout update web --deadline 300h --reason holidays");
    let after = world.admin.plan_status(second.id, 0).await.expect("a status").deadline_at;
    assert!(after > before, "{after:?} {before:?}");
    let own = author.run("titan rollout approve web").expect("run");
    assert_eq!(own.status.code(), Some(4), "nobody approves his own");
    reviewer.titan("titan rollout approve web --reason looks-good").expect("approved");
    assert_eq!(ends_with("titan rollout status web --wait"), Some(0));
    have("two").await;
    let history = titan("titan rollout history web");
    for what in ["lunch", "eaten", "holidays", "looks-good", "token:admin", "token:reviewer"] {
        assert!(history.contains(what), "{what}: {history}");
    }

    begin("three", "web#3").await;
    reviewer.titan("titan rollout reject web --reason not-yet").expect("rejected");
    assert_eq!(ends_with("titan rollout status web --wait"), Some(1));
    assert_eq!(state(), "rolledBack");
    have("two").await;
    // Who said no, and why, wherever one looks.
    let why = format!("{GATE} was rejected by token:reviewer: not-yet");
    for line in ["rollout status", "rollout watch", "rollout history", "status deployment"] {
        let line = format!("titan {line} web");
        let told = author.run(&line).expect("run").stdout;
        let told = String::from_utf8_lossy(&told).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(told.contains(&why), "{line}: {told}");
    }

    // It went back, so it waits for a person who says why.
    world.apply(documents("four", &free)).await.expect("written");
    plan(&world, "web#4", |plan| plan.state == PlanState::Succeeded).await;
    world.apply(documents("three", &free)).await.expect("written");
    plan(&world, "web#5", |_| true).await;
    assert_eq!(state(), "planning");
    let refused = author.run("titan rollout retry web").expect("run");
    assert_eq!(refused.status.code(), Some(4));
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("was taken back before, as #3"), "{told}");
    assert!(told.contains("hint: titan rollout retry web --reason '...'"), "{told}");
    assert!(told.contains(&why), "{told}");
    titan("titan rollout retry web --reason it-was-the-network");
    assert_eq!(ends_with("titan rollout status web --wait"), Some(0));
    have("three").await;

    begin("five", "web#6").await;
    assert_eq!(ends_with("titan rollout skip web"), Some(2), "a gate is not skipped without a reason");
    titan("titan rollout skip web --reason asked-by-phone");
    assert_eq!(ends_with("titan rollout status web --wait"), Some(0));
    have("five").await;

    world
        .apply(documents(
            "slow-free",
            &json!({ "stages": [{ "name": "one", "hosts": 1 }, { "name": "all", "hosts": "100%" }] }),
        ))
        .await
        .expect("written");
    plan(&world, "web#7", |plan| plan.state == PlanState::Running).await;
    let refused = author.run("titan rollout update web --deadline 300h").expect("run");
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(4), "{told}");
    assert!(told.contains("hint: write `deadline: 300h` into spec.strategy of the deployment"), "{told}");

    for (number, word, ends, left) in [(8, "abort", "aborted", "slow-abort"), (9, "rollback", "rolledBack", "five")] {
        let (version, release) = (format!("slow-{word}"), format!("web#{number}"));
        world.apply(documents(&version, &free)).await.expect("written");
        plan(&world, &release, |plan| plan.state == PlanState::Running).await;
        have(&version).await;
        titan(&format!("titan rollout {word} web --reason enough"));
        assert_eq!(ends_with("titan rollout status web --wait"), Some(1));
        assert_eq!(state(), ends);
        have(left).await;
    }
}
