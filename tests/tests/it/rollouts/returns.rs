//! The way back, and what is left of a rollout whose deployment is gone.

use serde_json::json;
use titan_api::{
    Document, Kind, Name,
    client::WriteOptions,
    reports::Phase,
    workplans::{PlanState, Signal, SignalRequest},
};
use titan_control_plane::{
    clock::Clock,
    fleet::rollouts::rank,
    serve,
    state::AppState,
    store::{ObservedDeployment, Store},
    tasks::planner::Planner,
    workplans,
    writing::{self, Author, Intent},
};
use titan_tests::{
    databases::{self, Database},
    planes,
    worlds::{World, until},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Hosts, TITLE, documents, plan, stages};

/// The way back is about those that had the release: one that was not well before, and never had it, says nothing of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_the_release_never_reached_does_not_spoil_the_way_back() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let mut hosts = Vec::new();
    for number in 0..3 {
        let name = format!("h{number}");
        let host = world.host(&name, "").await.expect("a host");
        let document = world.admin.get(Kind::Host, None, &name, None).await.expect("a document");
        hosts.push((document.metadata.uid.expect("an id"), host));
    }
    let strategy = stages(&json!({ "name": "all", "hosts": "100%" }));
    let free = json!({ "stages": [{ "name": "all", "hosts": "100%" }] });
    world.apply(documents("one", &free)).await.expect("written");
    until("all are well", async || {
        for (_, host) in &mut hosts {
            if let Some(news) = host.poll(0).await? {
                host.report(&news).await?;
            }
        }
        let plans = world.admin.plans(Some("default"), 10).await?.items;
        Ok(plans.iter().any(|plan| plan.state == PlanState::Succeeded).then_some(()))
    })
    .await
    .expect("the first release");
    let web = world.admin.get(Kind::Deployment, Some("default"), "web", None).await.expect("a document");
    let deployment = web.metadata.uid.expect("an id");
    hosts.sort_by_key(|(uid, _)| rank(deployment, *uid));
    let (canary, rest) = hosts.split_first_mut().expect("three hosts");
    rest[0].1.report_drift(TITLE, Phase::Degraded, Vec::new()).await.expect("reported");

    world.apply(documents("bad", &strategy)).await.expect("written");
    let canary = &mut canary.1;
    for (release, phase) in [("web#2", Phase::Failed), ("web#1", Phase::Healthy)] {
        until(release, async || {
            canary.poll(0).await?;
            Ok(canary.held.get(TITLE).is_some_and(|held| held.release == release).then_some(()))
        })
        .await
        .expect("given");
        canary.report_drift(TITLE, phase, Vec::new()).await.expect("reported");
    }
    let ended = plan(&world, "web#2", |plan| plan.state.is_final()).await;
    assert_eq!(ended.state, PlanState::RolledBack, "{ended:#?}");
}

/// A deployment that is deleted takes its rollout with it, and what was known of how far it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_rollout_is_left_once_its_deployment_is_gone() {
    for database in databases::each() {
        let world = World::over(database, crate::NODE).await.expect("a control plane");
        let engine = world.database.engine;
        let hosts = Hosts::start(&world, 2).await;
        let gated = json!({ "stages": [
            { "name": "one", "hosts": 1, "checks": [{ "approval": {} }] },
            { "name": "all", "hosts": "100%" },
        ] });
        let free = json!({ "stages": [{ "name": "all", "hosts": "100%" }] });
        world.apply(documents("one", &free)).await.expect("written");
        plan(&world, "web#1", |plan| plan.state == PlanState::Succeeded).await;
        world.apply(documents("bad", &free)).await.expect("written");
        plan(&world, "web#2", |plan| plan.state == PlanState::RolledBack).await;
        world.apply(documents("two", &gated)).await.expect("written");
        plan(&world, "web#3", |plan| plan.current.iter().any(|node| &*node.name == "one-check-1")).await;
        for table in ["gates", "vetoes"] {
            let sql = format!("SELECT CAST(COUNT(*) AS TEXT) FROM {table}");
            assert_eq!(world.database.texts(&sql).await.expect("rows"), ["1"], "{engine}: {table}");
        }
        let options = WriteOptions::default();
        world.admin.delete(Kind::Deployment, Some("default"), "web", false, &options).await.expect("deleted");
        // In the same transaction.
        let ended = plan(&world, "web#3", |_| true).await;
        assert!(ended.state == PlanState::Aborting || ended.state.is_final(), "{engine}: {ended:#?}");
        let ended = plan(&world, "web#3", |plan| plan.state.is_final()).await;
        assert_eq!(ended.state, PlanState::Aborted, "{engine}");
        assert_eq!(ended.reason.as_deref(), Some("the deployment was deleted"), "{engine}");
        until("nothing is left", async || {
            let left = "SELECT deployment_uid FROM gates UNION ALL SELECT deployment_uid FROM vetoes";
            let left = world.database.texts(left).await?;
            Ok((left.is_empty() && hosts.count().is_empty()).then_some(()))
        })
        .await
        .unwrap_or_else(|error| panic!("{engine}: {error}"));
    }
}

/// A control plane that does only what it is told to: nobody hands anything out.
struct Still {
    state: AppState,
    planner: Planner,
}

impl Still {
    async fn over(database: &Database) -> Self {
        let config = planes::config(&database.url, crate::NODE.into());
        let renderer = serve::renderer(&config).expect("a renderer");
        let (state, planner) =
            serve::open(config, renderer, Clock::system(), CancellationToken::new()).await.expect("open");
        Self { state, planner }
    }

    /// Writes documents, and decides what follows.
    async fn apply(&mut self, documents: impl IntoIterator<Item = serde_json::Value>) -> Vec<Document> {
        let author = Author {
            actor: "token:ann".to_owned(),
            reason: None,
            request_id: Uuid::now_v7().to_string(),
            if_match: None,
            once: None,
        };
        let default = Name::new("default").expect("a name");
        let declared = |value| titan_api::documents::Declared::parse(value, Some(&default)).expect("a document");
        let intents = documents.into_iter().map(|value| Intent::Put(Box::new(declared(value)))).collect();
        let outcome = writing::write(&self.state, &author, intents, "", false).await.expect("written");
        self.decide().await;
        outcome.documents
    }

    async fn decide(&mut self) {
        while self.planner.pass().await.expect("decided") {}
        titan_control_plane::tasks::follow::pass(&self.state).await.expect("followed");
    }

    fn release(&self, deployment: Uuid, host: Uuid) -> Option<String> {
        let set = self.state.view.find(host)?.set();
        set.of_deployment(deployment).filter(|entry| entry.present()).map(|entry| entry.description.release.clone())
    }
}

/// A release that comes while the one before is taken back: nobody keeps that one, and it stays vetoed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_keeps_what_is_taken_back_though_another_release_comes_meanwhile() {
    let both = |everybody| databases::each().into_iter().map(move |database| (database, everybody));
    for (database, everybody) in [false, true].into_iter().flat_map(both) {
        let engine = database.engine;
        let mut still = Still::over(&database).await;
        let strategy = stages(&json!({ "name": "all", "hosts": "100%" }));
        let host = titan_tests::manifests::host("h0", "");
        let host = still.apply([host]).await[0].metadata.uid.expect("an id");
        let web = still.apply(documents("one", &strategy)).await.pop().expect("a deployment");
        let web = web.metadata.uid.expect("an id");

        // As if the first release were proven, and the second had reached everybody.
        let mut plans = Vec::new();
        for (number, version) in [(1, "one"), (2, "two")] {
            if number == 2 {
                still.apply(documents(version, &strategy)).await;
            }
            let mut tx = still.state.store.write("test").await.expect("begin");
            let revision = tx.tick(still.state.clock.now()).await.expect("ticked");
            let mut gate = tx.gate(web).await.expect("read").expect("a gate");
            assert_eq!(gate.to, number, "{engine}");
            plans.push(gate.plan);
            if number == 1 || everybody {
                gate.from = Some(gate.to);
            } else {
                gate.open_for_all(&Name::new("all").expect("a name"));
            }
            tx.put_gate(&gate, revision).await.expect("put");
            tx.commit().await.expect("commit");
            still.decide().await;
            assert_eq!(still.release(web, host), Some(format!("web#{number}")), "{engine}");
        }
        let back =
            SignalRequest { reason: Some("it is bad".to_owned()), ..SignalRequest::new(Signal::Rollback, "back") };
        workplans::tell(&still.state, plans[1], &back, ("token:bob", None)).await.expect("told");

        still.apply(documents("three", &strategy)).await;
        assert_eq!(still.release(web, host).as_deref(), Some("web#1"), "{engine} {everybody}");
        let mut tx = still.state.store.read().await.expect("begin");
        let gate = tx.gate(web).await.expect("read").expect("a gate");
        assert_eq!((gate.to, gate.from, gate.taken_back.as_slice()), (3, Some(1), &[2][..]), "{engine} {everybody}");
        let release = tx.release(web, 2).await.expect("read").expect("the release");
        let veto = tx.veto_of(web, &release.inputs_digest).await.expect("read");
        assert_eq!(veto.map(|veto| veto.number), Some(2), "{engine} {everybody}");
    }
}

/// What another replica heard and wrote late is found before a stage fails for want of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_that_another_replica_wrote_late_is_found() {
    let Some(database) = databases::postgres() else { return };
    let world = World::over(database, crate::NODE).await.expect("a control plane");
    let mut host = world.host("h0", "").await.expect("a host");
    let document = world.admin.get(Kind::Host, None, "h0", None).await.expect("a document");
    let uid = document.metadata.uid.expect("an id");
    let strategy = json!({ "stages": [{ "name": "all", "hosts": "100%" }], "progressDeadline": "3s" });
    for (release, version) in [("web#1", "one"), ("web#2", "two")] {
        world.apply(documents(version, &strategy)).await.expect("written");
        until(release, async || {
            host.poll(0).await?;
            Ok(host.held.get(TITLE).is_some_and(|held| held.release == release).then_some(()))
        })
        .await
        .expect("given");
        if release == "web#1" {
            host.report(&Default::default()).await.expect("reported");
            plan(&world, release, |plan| plan.state == PlanState::Succeeded).await;
            continue;
        }
        let web = world.admin.get(Kind::Deployment, Some("default"), "web", None).await.expect("a document");
        let store = Store::open(&world.database.url).await.expect("open");
        let mut tx = store.read().await.expect("begin");
        let deployment = web.metadata.uid.expect("an id");
        let mut said = tx.reports_of_deployment(deployment).await.expect("read").pop().expect("the first report");
        drop(tx);
        let held = &host.held[TITLE];
        (said.report.id, said.report.revision, said.report.digest) = (held.id, held.revision, Some(held.digest));
        said.report.release = release.to_owned();
        // Older than all that is looked for each time.
        let late = ObservedDeployment { reported_at: held_before(&said), host: uid, ..said };
        let mut tx = store.write("test").await.expect("begin");
        tx.put_reports(&[late]).await.expect("written");
        tx.commit().await.expect("commit");
        let ended = plan(&world, release, |plan| plan.state.is_final()).await;
        assert_eq!(ended.state, PlanState::Succeeded, "{ended:#?}");
    }
}

fn held_before(said: &ObservedDeployment) -> titan_api::Revision {
    titan_api::Revision::from_micros(said.reported_at.micros() - 60_000_000)
}
