//! The view is the database: whatever happened, what is in memory is what a new view built from the rows would be.

use std::collections::BTreeMap;

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use titan_api::{Revision, SetDigest};
use titan_control_plane::{
    fleet::view::{Everything, FleetView},
    store::{Assignment, Descriptions},
};
use titan_tests::{
    databases,
    dice::Dice,
    fleets::{Fleet, document},
};
use uuid::Uuid;

/// The last two never get an agent.
const HOSTS: u64 = 7;
const AGENTS: u64 = 5;
const DEPLOYMENTS: u64 = 4;
const STEPS: usize = 240;

/// What a view says of each host that has anything.
type Said = BTreeMap<Uuid, (Vec<Assignment>, SetDigest)>;

fn said(view: &FleetView) -> Said {
    let sets = view.sets().into_iter();
    let said = sets.map(|(host, set)| {
        let mut assignments: Vec<_> = set.entries().iter().map(|entry| entry.assignment(host)).collect();
        assignments.sort_by_key(|assignment| assignment.deployment);
        (host, (assignments, set.digest()))
    });
    said.filter(|(_, (assignments, _))| !assignments.is_empty()).collect()
}

/// Returns what a new view built from the rows says.
async fn rebuilt(fleet: &Fleet) -> (Said, Revision) {
    let mut tx = fleet.state.store.read().await.expect("begin");
    let clock = tx.clock().await.expect("clock");
    let view = FleetView::default();
    let mut all = Everything::default();
    tx.assignments_after(&mut Descriptions::default(), Revision::ZERO, |assignment| all.take(assignment))
        .await
        .expect("assignments");
    view.load(&all, clock);
    (said(&view), clock)
}

fn host(number: u64, dice: &mut Dice) -> Value {
    let mut host = document("Host", None, &format!("h{number}"), &json!({ "cordoned": dice.roll(8) == 0 }));
    host["metadata"]["labels"] = json!({ "zone": format!("z{}", dice.roll(3)) });
    host
}

fn deployment(number: u64, dice: &mut Dice) -> Value {
    let mut spec = json!({ "workload": "w", "template": "t", "target": format!("t{}", dice.roll(2)),
        "values": { "port": dice.roll(3) } });
    if dice.roll(3) == 0 {
        spec["replicas"] = json!(dice.roll(3));
    }
    document("Deployment", None, &format!("d{number}"), &spec)
}

fn target(number: u64, dice: &mut Dice) -> Value {
    let zones = [format!("z{}", dice.roll(3)), format!("z{}", dice.roll(3))];
    let spec = json!({ "matchExpressions": [{ "key": "zone", "operator": "In", "values": zones }] });
    document("Target", None, &format!("t{number}"), &spec)
}

/// A fleet with its hosts' credentials and report counters.
struct Hosts {
    fleet: Fleet,
    credentials: BTreeMap<String, (String, u64)>,
}

impl Hosts {
    async fn enrol(&mut self, number: u64, dice: &mut Dice) {
        let name = format!("h{number}");
        self.fleet.apply(&[host(number, dice)]).await.expect("apply");
        let credential = self.fleet.enrol(&name).await.expect("enrol");
        self.credentials.insert(name, (credential, 0));
    }

    /// Lets a host confirm every tombstone that a full answer names.
    async fn acknowledge(&mut self, number: u64) {
        let name = format!("h{number}");
        let Some((credential, seq)) = self.credentials.get_mut(&name) else { return };
        let path = format!("/v1/hosts/{name}/changes");
        let answered = self.fleet.send(Method::GET, &path, credential, &Value::Null).await.expect("poll");
        if answered.status != StatusCode::OK {
            return;
        }
        let answer: Value = serde_json::from_slice(&answered.body).expect("JSON");
        let confirmed =
            answer["tombstones"].as_array().expect("tombstones").iter().map(
                |tombstone| json!({ "id": tombstone["id"], "revision": tombstone["revision"], "phase": "removed" }),
            );
        *seq += 1;
        let report = json!({ "seq": *seq, "deployments": confirmed.collect::<Vec<_>>() });
        let path = format!("/v1/hosts/{name}/report");
        let answered = self.fleet.send(Method::POST, &path, credential, &report).await.expect("report");
        assert_eq!(answered.status, StatusCode::NO_CONTENT, "{}", String::from_utf8_lossy(&answered.body));
    }

    async fn step(&mut self, dice: &mut Dice) -> String {
        let number = dice.roll(HOSTS);
        match dice.roll(12) {
            0..=2 => {
                let made = deployment(dice.roll(DEPLOYMENTS), dice);
                self.fleet.apply(std::slice::from_ref(&made)).await.expect("apply");
                made.to_string()
            }
            3 | 4 => {
                let made = host(number, dice);
                let known = self.credentials.contains_key(&format!("h{number}"));
                if known || number >= AGENTS {
                    self.fleet.apply(&[made]).await.expect("apply");
                } else {
                    self.enrol(number, dice).await;
                }
                format!("host {number}, known: {known}")
            }
            5 => {
                let made = target(dice.roll(2), dice);
                self.fleet.apply(&[made]).await.expect("apply");
                "target".to_owned()
            }
            6 => {
                let path = format!("/v1/workspaces/default/deployments/d{}", dice.roll(DEPLOYMENTS));
                let gone = self.fleet.admin(Method::DELETE, &path, &Value::Null).await.is_ok();
                format!("delete {path}: {gone}")
            }
            7 => {
                let force = dice.roll(2) == 0;
                let path = format!("/v1/hosts/h{number}?force={force}");
                let gone = self.fleet.admin(Method::DELETE, &path, &Value::Null).await.is_ok();
                if gone && force {
                    self.credentials.remove(&format!("h{number}"));
                }
                format!("delete {path}: {gone}")
            }
            8 | 9 => {
                self.acknowledge(number).await;
                format!("host {number} acknowledges")
            }
            _ => {
                self.fleet.plan().await.expect("plan");
                "plan".to_owned()
            }
        }
    }
}

/// Section 3: the view can always be rebuilt from the database, and is the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn view_equals_one_built_from_the_rows_after_any_history() {
    for database in databases::each() {
        let engine = database.engine;
        let fleet = Fleet::open(&database.url, crate::NODE).await.expect("open");
        let mut hosts = Hosts { fleet, credentials: BTreeMap::new() };
        let mut dice = Dice::new(3);
        let files = json!({ "files": { "f.j2": { "content": "{{ values.port }} {{ host.name }}" } } });
        let mut begin = vec![document("Template", None, "t", &files), document("Workload", None, "w", &json!({}))];
        begin.extend((0..2).map(|number| target(number, &mut dice)));
        hosts.fleet.apply(&begin).await.expect("apply");
        for number in 0..AGENTS {
            hosts.enrol(number, &mut dice).await;
        }
        let (mut present, mut absent) = (0, 0);
        let mut history = Vec::new();
        for _ in 0..STEPS {
            history.push(hosts.step(&mut dice).await);
            hosts.fleet.follow().await.expect("follow");
            let (expected, clock) = rebuilt(&hosts.fleet).await;
            let view = &hosts.fleet.state.view;
            assert_eq!(said(view), expected, "{engine}: after {history:#?}");
            assert_eq!(view.revision(), clock, "{engine}");
            for (assignments, digest) in expected.values() {
                let standing = assignments.iter().filter(|assignment| assignment.present());
                let whole = SetDigest::of(standing.map(|assignment| (assignment.id(), assignment.revision)));
                assert_eq!(*digest, whole, "{engine}");
                present += assignments.iter().filter(|assignment| assignment.present()).count();
                absent += assignments.iter().filter(|assignment| !assignment.present()).count();
            }
        }
        assert!(present > 500 && absent > 100, "{engine}: {present} present, {absent} absent: too little happened");
    }
}

/// A tombstone that its host confirms while the view moves along for the same host stays gone.
#[test]
fn confirmed_tombstone_does_not_come_back_while_the_view_moves_along() {
    let host = Uuid::now_v7();
    let row = |deployment: Uuid, revision: i64, present: bool| {
        let row = crate::store::assignment(deployment, host, revision);
        if present { row } else { crate::store::tombstone(&row, revision) }
    };
    let busy = Uuid::now_v7();
    for round in 0..300 {
        let view = FleetView::default();
        let gone = row(Uuid::now_v7(), 10, false);
        view.advance(vec![gone.clone(), row(busy, 11, true)], Revision::from_micros(11));
        std::thread::scope(|threads| {
            threads.spawn(|| {
                for revision in 12..40 {
                    view.advance(vec![row(busy, revision, true)], Revision::from_micros(revision));
                }
            });
            threads.spawn(|| view.forget(host, gone.deployment, gone.revision));
        });
        let left: Vec<_> = view.slot(host).set().entries().iter().map(|entry| entry.id(host)).collect();
        assert_eq!(left, [crate::store::assignment(busy, host, 0).id()], "round {round}");
        assert!(view.leaving().is_empty(), "round {round}");
    }
}
