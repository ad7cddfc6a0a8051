//! Rollouts that outlive their control plane, on both engines: who is in a stage stays in it, and nobody else gets in.

use std::collections::BTreeSet;

use serde_json::json;
use titan_api::{Kind, client::Client, workplans::PlanState};
use titan_control_plane::fleet::rollouts::{Opening, rank};
use titan_tests::{
    databases,
    planes::Plane,
    worlds::{News, PolledHost, World, until},
};
use uuid::Uuid;

use super::{TITLE, documents, plan};

const FEW: usize = 6;

/// A host, its id, and what it was given and did not report yet.
struct Member {
    host: PolledHost,
    uid: Uuid,
    news: Option<News>,
    joined_late: bool,
}

async fn member(world: &World, name: &str, joined_late: bool) -> Member {
    let host = world.host(name, "").await.expect("a host");
    let document = world.admin.get(Kind::Host, None, name, None).await.expect("a document");
    Member { host, uid: document.metadata.uid.expect("an id"), news: None, joined_late }
}

fn has(member: &Member, release: &str) -> bool {
    member.host.held.get(TITLE).is_some_and(|held| held.release == release)
}

/// Everybody polls, and reports if they `speak`. Fails if somebody has the second release whom no opening lets, or if more
/// hosts than one are on their way to it.
async fn turn(world: &World, fleet: &mut [Member], speak: bool) -> anyhow::Result<()> {
    for member in fleet.iter_mut() {
        if let Some(news) = member.host.poll(0).await? {
            member.news = Some(news);
        }
    }
    // Read after the polls: a gate that goes on is only ever opened further.
    let document = world.admin.get(Kind::Deployment, Some("default"), "web", None).await?;
    let deployment = document.metadata.uid.expect("an id");
    let gate = "SELECT openings FROM gates WHERE to_number = 2 AND (from_number IS NULL OR from_number <> 2)";
    if let Some(openings) = world.database.texts(gate).await?.first() {
        let openings: Vec<Opening> = serde_json::from_str(openings)?;
        for member in fleet.iter().filter(|member| has(member, "web#2")) {
            let rank = rank(deployment, member.uid);
            let let_in = openings.iter().any(|opening| opening.lets(rank, |_| true));
            assert!(let_in, "{}: {} has it, and its stage is not open", world.database.engine, member.host.name);
        }
        let out = |member: &&Member| has(member, "web#2") && member.news.is_some() && !member.joined_late;
        let out = fleet.iter().filter(out).count();
        assert!(out <= 1, "{}: {out} are on their way", world.database.engine);
    }
    for member in fleet.iter_mut().filter(|_| speak) {
        if let Some(news) = &member.news {
            member.host.report(news).await?;
            member.news = None;
        }
    }
    Ok(())
}

async fn until_state(world: &World, fleet: &mut [Member], release: &str, state: PlanState) {
    until(release, async || {
        turn(world, fleet, true).await?;
        let plans = world.admin.plans(Some("default"), 10).await?.items;
        Ok(plans.into_iter().find(|plan| plan.name == release && plan.state == state).map(drop))
    })
    .await
    .unwrap_or_else(|error| panic!("{}: {error:#}", world.database.engine));
}

/// Section 8: no host gets a release its stage was not open for, and who was in a stage stays in it, whoever joins while the
/// control plane is away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_has_the_same_hosts_after_a_restart_and_lets_nobody_else_in() {
    for database in databases::each() {
        let mut world = World::over(database, crate::NODE).await.expect("a control plane");
        let mut fleet = Vec::new();
        for number in 0..FEW {
            fleet.push(member(&world, &format!("h{number}"), false).await);
        }
        let strategy = json!({ "stages": [
            { "name": "some", "hosts": 3, "maxUnavailable": 1 },
            { "name": "rest", "hosts": "100%", "maxUnavailable": 1 },
        ] });
        world.apply(documents("one", &strategy)).await.expect("written");
        until_state(&world, &mut fleet, "web#1", PlanState::Succeeded).await;
        world.apply(documents("two", &strategy)).await.expect("written");
        until("the first host of the stage", async || {
            turn(&world, &mut fleet, false).await?;
            Ok(fleet.iter().any(|member| has(member, "web#2")).then_some(()))
        })
        .await
        .expect("it begins");
        let first: BTreeSet<_> =
            fleet.iter().filter(|member| has(member, "web#2")).map(|member| member.host.name.clone()).collect();
        assert_eq!(first.len(), 1);

        let World { plane, database, .. } = world;
        let token = plane.token.clone();
        plane.stop().await.expect("stopped");
        let plane = Plane::start(&database, crate::NODE, &token).await.expect("started");
        world = World { admin: plane.client(), plane, database };
        for member in &mut fleet {
            let credential = Some(member.host.credential.clone());
            member.host.client = Client::new(&world.plane.server, credential).expect("a client");
        }
        for number in FEW..FEW + 4 {
            fleet.push(member(&world, &format!("h{number}"), true).await);
        }
        world.settled().await.expect("decided");
        for _ in 0..3 {
            turn(&world, &mut fleet, false).await.expect("polled");
        }
        let now = fleet.iter().filter(|member| has(member, "web#2") && !member.joined_late);
        let now: BTreeSet<_> = now.map(|member| member.host.name.clone()).collect();
        assert_eq!(now, first, "nobody follows before the first is proven");
        until_state(&world, &mut fleet, "web#2", PlanState::Succeeded).await;
        let done = plan(&world, "web#2", |_| true).await;
        assert_eq!(done.retries, 1, "the step that was cut off was made again: {done:?}");
        until("everybody has it", async || {
            turn(&world, &mut fleet, true).await?;
            Ok(fleet.iter().all(|member| has(member, "web#2")).then_some(()))
        })
        .await
        .expect("all of them");
    }
}
