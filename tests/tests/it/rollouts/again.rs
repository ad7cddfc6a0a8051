//! What people do once a rollout is over: no word begins it again, and what refuses it says what does.

use serde_json::json;
use titan_api::workplans::PlanState;
use titan_tests::{operators::Operator, worlds::World};

use super::{Hosts, documents, plan};

const FEW: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_that_is_over_says_how_its_release_goes_out_again() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let hosts = Hosts::start(&world, FEW).await;
    let person = Operator::new(crate::NODE).expect("a directory");
    person.login(&world.plane.server, &world.plane.token).expect("logged in");
    let refused = |line: &str| {
        let output = person.run(line).expect("run");
        let told = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
        (output.status.code(), told)
    };
    let all = json!({ "stages": [{ "name": "all", "hosts": "100%" }] });
    world.apply(documents("one", &all)).await.expect("written");
    plan(&world, "web#1", |plan| plan.state == PlanState::Succeeded).await;
    let (code, told) = refused("titan rollout retry web");
    assert_eq!(code, Some(4), "{told}");
    assert!(told.contains("the rollout of web is over, web#1 succeeded"), "{told}");
    assert!(told.contains("hint: apply what hosts are to have instead"), "{told}");
    let (code, told) = refused("titan rollout rollback web --reason no");
    assert_eq!(code, Some(4), "{told}");
    assert!(told.contains("hint: apply the version before: it is handed out as another release"), "{told}");

    world.apply(documents("bad", &all)).await.expect("written");
    plan(&world, "web#2", |plan| plan.state == PlanState::RolledBack).await;
    let (code, told) = refused("titan rollout retry web --reason mended");
    assert_eq!(code, Some(4), "{told}");
    assert!(told.contains("web#2 taken back"), "{told}");
    let way = "to hand web#2 out again, apply another version, such as the one before, and then this one: if it was taken \
               back, it then waits for titan rollout retry web --reason '...'";
    assert!(told.contains(way), "{told}");
    let (code, told) = refused("titan rollout resume web");
    assert!(code == Some(4) && told.contains("hint: apply what hosts are to have instead"), "{code:?} {told}");

    // The same once more is no other release, whatever its strategy.
    let otherwise = json!({ "stages": [{ "name": "others", "hosts": "100%" }] });
    world.apply(documents("bad", &otherwise)).await.expect("written");
    world.settled().await.expect("decided");
    let plans = world.admin.plans(Some("default"), 100).await.expect("plans").items;
    assert!(plans.iter().all(|plan| plan.name != "web#3"), "{plans:?}");

    // What was told works.
    world.apply(documents("one", &all)).await.expect("written");
    plan(&world, "web#3", |plan| plan.state == PlanState::Succeeded).await;
    world.apply(documents("bad", &all)).await.expect("written");
    plan(&world, "web#4", |plan| plan.state == PlanState::Planning).await;
    hosts.seen.lock().expect("seen").mended = true;
    person.titan("titan rollout retry web --reason mended").expect("begun");
    plan(&world, "web#4", |plan| plan.state == PlanState::Succeeded).await;
    assert_eq!(hosts.count(), [("bad".to_owned(), FEW)].into());

    // What was stopped was not taken back.
    world.apply(documents("slow", &all)).await.expect("written");
    plan(&world, "web#5", |plan| plan.state == PlanState::Running).await;
    person.titan("titan rollout abort web --reason enough").expect("told");
    plan(&world, "web#5", |plan| plan.state == PlanState::Aborted).await;
    world.apply(documents("one", &all)).await.expect("written");
    plan(&world, "web#6", |plan| plan.state == PlanState::Succeeded).await;
    world.apply(documents("slow", &all)).await.expect("written");
    plan(&world, "web#7", |plan| plan.state == PlanState::Running).await;
}
