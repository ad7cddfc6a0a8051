use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use titan_api::{Document, Kind};
use uuid::Uuid;

use super::*;
use crate::fleet::{holders::Holders, model::Model};

/// A fleet with who has what, in which deployments are placed one after the other.
#[derive(Debug, Default)]
struct World {
    model: Model,
    holders: Holders,
    bookings: Bookings,
    absences: Absences,
}

fn uid(kind: Kind, number: u8) -> Uuid {
    Uuid::from_u128((kind as u128) << 64 | u128::from(number))
}

fn document(kind: Kind, number: u8, labels: &Value, spec: &Value) -> Document {
    let mut document = json!({"apiVersion": "titan/v1", "kind": kind, "spec": spec,
        "metadata": {"name": format!("n{number}"), "uid": uid(kind, number), "labels": labels}});
    if kind.in_workspace() {
        document["metadata"]["workspace"] = json!("w");
    }
    serde_json::from_value(document).expect("document")
}

impl World {
    fn new() -> Self {
        let mut world = Self::default();
        let all = json!({"expression": "true"});
        world.model.put(&document(Kind::Target, 0, &json!({}), &all)).expect("target");
        world
    }

    fn host(&mut self, number: u8, zone: &str, spec: &Value) {
        self.model.put(&document(Kind::Host, number, &json!({ "zone": zone }), spec)).expect("host");
    }

    fn deployment(&mut self, number: u8, mut spec: Value) {
        (spec["workload"], spec["target"]) = (json!("w"), json!("n0"));
        self.model.put(&document(Kind::Deployment, number, &json!({}), &spec)).expect("deployment");
        self.bookings = Bookings::of(&self.model, &self.holders, &BTreeSet::new());
    }

    fn footing(&self) -> Footing<'_> {
        Footing { model: &self.model, bookings: &self.bookings, absences: &self.absences }
    }

    fn get(&self, number: u8) -> &Deployment {
        self.model.deployment(uid(Kind::Deployment, number)).expect("deployment")
    }

    /// Decides where a deployment is, takes it in and returns the numbers of its hosts; whether anything moved.
    fn place(&mut self, number: u8) -> (Vec<u8>, bool) {
        let deployment = uid(Kind::Deployment, number);
        let held = self.holders.of(deployment);
        let present = place_set(self.footing(), self.get(number), &held).expect("there is a target");
        for host in held.clone() | &present {
            self.holders.set(deployment, crate::fleet::hosts::HostNumber(host), present.contains(host));
        }
        self.bookings = Bookings::of(&self.model, &self.holders, &BTreeSet::new());
        let hosts = self.model.hosts().among(&present).map(|host| host.uid().as_u128() as u8).collect();
        (hosts, held != present)
    }

    fn problem(&self, number: u8) -> Option<String> {
        let held = self.holders.of(uid(Kind::Deployment, number));
        shortfalls::problem(self.footing(), self.get(number), &held).map(|problem| problem.detail)
    }

    /// Whether on every host all that is there has room.
    fn nobody_is_overcommitted(&self) -> bool {
        self.model.hosts().iter().all(|host| {
            ["cpu", "gpu"].iter().all(|resource| {
                let on = self
                    .model
                    .deployments()
                    .filter(|deployment| self.holders.of(deployment.uid).contains(host.number().0));
                let taken: u64 = on.filter_map(|deployment| deployment.spec.requests.get(resource)).sum();
                host.capacity(resource).is_none_or(|capacity| taken <= capacity)
            })
        })
    }
}

#[test]
fn a_replica_goes_where_there_is_room_and_what_is_taken_is_taken() {
    let mut world = World::new();
    world.host(1, "a", &json!({"capacity": {"memory": "1Gi"}}));
    world.host(2, "a", &json!({"capacity": {"memory": "4Gi"}}));
    for number in [1, 2, 3] {
        world.deployment(number, json!({"replicas": 1, "requests": {"memory": "2Gi"}}));
    }
    assert_eq!([world.place(1).0, world.place(2).0, world.place(3).0], [vec![2], vec![2], vec![]]);
    assert_eq!(world.problem(1), None);
    let problem = world.problem(3).expect("it does not fit");
    assert_eq!(problem, "0 of 1 replicas have a place; 2 hosts: not enough memory (needs 2Gi, 1Gi left)");
    world.host(3, "a", &json!({}));
    assert_eq!(world.place(3).0, [3], "of memory that nobody counted there is enough");
    assert_eq!(world.problem(3), None);
}

#[test]
fn of_what_has_to_be_named_there_is_only_what_is_named() {
    let mut world = World::new();
    world.host(1, "a", &json!({}));
    world.host(2, "a", &json!({"capacity": {"gpu": 1}}));
    world.deployment(1, json!({"replicas": 2, "requests": {"gpu": 1}}));
    assert_eq!(world.place(1).0, [2]);
    assert!(world.problem(1).expect("one is missing").contains("1 host: not enough gpu (needs 1, 0 left)"));
}

#[test]
fn facts_count_where_nothing_is_declared() {
    let mut world = World::new();
    world.host(1, "a", &json!({}));
    let facts = json!({"cpus": 2, "memoryBytes": 1_u64 << 30});
    world.model.set_facts(uid(Kind::Host, 1), &serde_json::from_value(facts).expect("facts"));
    world.deployment(1, json!({"requests": {"cpu": 2, "memory": "1Gi"}}));
    world.deployment(2, json!({"requests": {"cpu": "1m"}}));
    assert_eq!((world.place(1).0, world.place(2).0), (vec![1], vec![]));
    assert!(world.problem(2).expect("full").starts_with("it is not on every host that its target matches: 1 host"));
    world.host(1, "a", &json!({"capacity": {"cpu": 3}}));
    assert_eq!(world.place(2).0, [1]);
}

#[test]
fn whoever_was_made_first_stays_when_there_is_too_little() {
    let mut world = World::new();
    world.host(1, "a", &json!({"capacity": {"cpu": 4}}));
    for number in [1, 2, 3] {
        world.deployment(number, json!({"replicas": 1, "requests": {"cpu": 1}}));
        assert_eq!(world.place(number).0, [1]);
    }
    // The second grows: it is the one that has to go, for the third has room without it.
    world.deployment(2, json!({"replicas": 1, "requests": {"cpu": 4}}));
    assert_eq!((world.place(3), world.place(1)), ((vec![1], false), (vec![1], false)));
    assert_eq!(world.place(2).0, [] as [u8; 0]);
    // The host shrinks.
    world.host(1, "a", &json!({"capacity": {"cpu": 1}}));
    assert_eq!((world.place(3).0, world.place(1).0), (vec![], vec![1]));
}

#[test]
fn taints_keep_away_and_drive_off_whoever_does_not_tolerate_them() {
    let taint = |effect: &str| json!({"taints": [{"key": "gpu", "effect": effect}]});
    let mut world = World::new();
    world.host(1, "a", &json!({}));
    world.deployment(1, json!({}));
    world.deployment(2, json!({"replicas": 1}));
    world.deployment(3, json!({"tolerations": [{"key": "gpu"}]}));
    for number in [1, 2, 3] {
        world.place(number);
    }
    world.host(1, "a", &taint("NoSchedule"));
    assert_eq!(
        [world.place(1), world.place(2), world.place(3)],
        [(vec![1], false), (vec![1], false), (vec![1], false)]
    );
    world.host(1, "a", &taint("NoExecute"));
    assert_eq!([world.place(1).0, world.place(2).0, world.place(3).0], [vec![], vec![], vec![1]]);
    world.host(1, "a", &taint("NoSchedule"));
    assert_eq!([world.place(1).0.len(), world.place(2).0.len()], [0, 0], "nothing new comes");
    assert!(world.problem(2).expect("tainted").contains("1 host: taint gpu:NoSchedule"));
    assert_eq!(world.problem(1), None, "without replicas it goes to what takes it");
}

#[test]
fn replicas_are_spread_by_a_label_and_then_by_what_is_taken() {
    let mut world = World::new();
    for number in 1..=6 {
        world.host(number, if number <= 4 { "a" } else { "b" }, &json!({"capacity": {"cpu": 8}}));
    }
    world.deployment(1, json!({"replicas": 4, "spread": {"label": "zone"}}));
    let placed = world.place(1).0;
    assert_eq!(placed.iter().filter(|host| **host > 4).count(), 2, "{placed:?}");
    world.deployment(1, json!({"replicas": 6, "spread": {"label": "zone", "maxSkew": 1}}));
    assert_eq!(world.place(1).0.len(), 5, "three in a, two in b, and no third there");
    assert!(world.problem(1).expect("skewed").contains("1 host: too many replicas with the same zone already"));
    world.deployment(1, json!({"replicas": 2, "spread": {"label": "zone"}}));
    let fewer = world.place(1).0;
    assert_eq!(fewer.iter().filter(|host| **host > 4).count(), 1, "those that stay are apart: {fewer:?}");
    // Whoever asks for something goes where the least is taken.
    world.deployment(2, json!({"requests": {"cpu": 2}, "replicas": 5}));
    let second = world.place(2).0;
    world.deployment(3, json!({"requests": {"cpu": 2}, "replicas": 1}));
    let third = world.place(3).0;
    assert!(third.iter().all(|host| !second.contains(host)), "{second:?} {third:?}");
}

#[test]
fn a_replica_leaves_a_host_that_is_missed_if_there_is_another_place() {
    let mut world = World::new();
    world.host(1, "a", &json!({}));
    world.deployment(1, json!({"replicas": 1, "failoverAfter": "60s"}));
    world.deployment(2, json!({"replicas": 1, "failoverAfter": "0s"}));
    assert_eq!([world.place(1).0, world.place(2).0], [vec![1], vec![1]]);
    let miss =
        |world: &mut World, host: u8, seconds| world.absences.set(uid(Kind::Host, host), Duration::from_secs(seconds));
    miss(&mut world, 1, 60);
    assert_eq!(world.place(1), (vec![1], false), "there is no other");
    world.host(2, "a", &json!({}));
    miss(&mut world, 2, 61);
    assert_eq!(world.place(1), (vec![1], false), "the other is missed too");
    miss(&mut world, 2, 59);
    assert_eq!([world.place(1).0, world.place(2).0], [vec![2], vec![1]], "never is never");
    miss(&mut world, 1, 0);
    assert_eq!(world.place(1), (vec![2], false), "it does not go back");
}

/// One thing that happens to a fleet of few hosts and deployments.
#[derive(Debug, Clone)]
enum Step {
    Host(u8, u8, Option<u32>, bool, bool),
    Deployment(u8, Option<u32>, u32, bool, Option<u32>),
    Missed(u8, bool),
    Gone(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let skew = prop::option::of(1_u32..3);
    prop_oneof![
        3 => (0_u8..8, 0_u8..3, prop::option::of(0_u32..6), prop::bool::weighted(0.2), prop::bool::weighted(0.2))
            .prop_map(|(host, zone, cpu, cordoned, tainted)| Step::Host(host, zone, cpu, cordoned, tainted)),
        4 => (0_u8..6, prop::option::weighted(0.8, 0_u32..6), 0_u32..4, any::<bool>(), skew)
            .prop_map(|(number, replicas, cpu, spread, skew)| Step::Deployment(number, replicas, cpu, spread, skew)),
        1 => (0_u8..8, any::<bool>()).prop_map(|(host, missed)| Step::Missed(host, missed)),
        1 => (0_u8..6).prop_map(Step::Gone),
    ]
}

fn take(world: &mut World, step: &Step) {
    match step {
        Step::Host(host, zone, cpu, cordoned, tainted) => {
            let capacity = cpu.map_or_else(|| json!({}), |cpu| json!({"cpu": cpu}));
            let taints = if *tainted { json!([{"key": "a", "effect": "NoExecute"}]) } else { json!([]) };
            world.host(
                *host,
                &format!("z{zone}"),
                &json!({"capacity": capacity, "cordoned": cordoned, "taints": taints}),
            );
        }
        Step::Deployment(number, replicas, cpu, spread, skew) => {
            let mut spec = json!({"requests": {"cpu": cpu}});
            if let Some(replicas) = replicas {
                spec["replicas"] = json!(replicas);
                if *spread {
                    spec["spread"] = json!({"label": "zone", "maxSkew": skew});
                }
            }
            world.deployment(*number, spec);
        }
        Step::Missed(host, missed) => {
            world.absences.set(uid(Kind::Host, *host), Duration::from_secs(if *missed { 1000 } else { 0 }));
        }
        Step::Gone(number) => {
            let deployment = uid(Kind::Deployment, *number);
            for host in world.holders.of(deployment) {
                world.holders.set(deployment, crate::fleet::hosts::HostNumber(host), false);
            }
            let workspace = titan_api::Name::new("w").expect("name");
            let name = titan_api::Name::new(format!("n{number}")).expect("name");
            world.model.remove(Kind::Deployment, Some(&workspace), &name, deployment);
            world.bookings = Bookings::of(&world.model, &world.holders, &BTreeSet::new());
        }
    }
}

proptest! {
    /// S5-16: in whatever order deployments are placed, no host is overcommitted, it comes to rest, and at rest the same
    /// question has the same answer.
    #[test]
    fn nothing_is_overcommitted_and_it_comes_to_rest(
        steps in prop::collection::vec(step(), 1..30),
        order in Just((0_u8..6).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let mut world = World::new();
        for step in &steps {
            take(&mut world, step);
            let live = |world: &World, number: &u8| world.model.deployment(uid(Kind::Deployment, *number)).is_some();
            let live: Vec<_> = order.iter().copied().filter(|number| live(&world, number)).collect();
            let mut rounds = 0;
            // Whoever has to leave goes first, as it may be any of them.
            while live.iter().map(|number| world.place(*number).1).fold(false, |any, moved| any | moved) {
                rounds += 1;
                prop_assert!(rounds < 20, "it does not come to rest");
            }
            prop_assert!(world.nobody_is_overcommitted());
            for number in live {
                let (deployment, held) = (world.get(number), world.holders.of(uid(Kind::Deployment, number)));
                let replicas = deployment.spec.replicas.map(u64::from);
                prop_assert!(replicas.is_none_or(|replicas| held.len() <= replicas));
                // Who has too few has a reason, and who has a reason has too few.
                if let Some(replicas) = replicas {
                    prop_assert_eq!(world.problem(number).is_some(), held.len() < replicas);
                }
                for host in world.model.hosts().iter() {
                    let is_held = held.contains(host.number().0);
                    let chosen = replicas.map(|_| &held);
                    let placed = place_chosen(world.footing(), deployment, chosen, host.uid(), is_held);
                    prop_assert_eq!(placed == Placement::Present, is_held);
                }
            }
        }
    }

    /// Nobody who could stay is moved, and without a history the choice depends on the set alone.
    #[test]
    fn whoever_has_it_keeps_it(
        possible in prop::collection::btree_set(0_u8..40, 0..40),
        gone in prop::collection::btree_set(0_u8..40, 0..10),
        come in prop::collection::btree_set(40_u8..60, 0..10),
        replicas in 0_u32..20,
    ) {
        let mut world = World::new();
        world.deployment(1, json!({ "replicas": replicas }));
        possible.iter().for_each(|host| world.host(*host, "a", &json!({})));
        let first: BTreeSet<_> = world.place(1).0.into_iter().collect();
        prop_assert_eq!(first.len(), (replicas as usize).min(possible.len()));
        let mut backwards = World::new();
        backwards.deployment(1, json!({ "replicas": replicas }));
        possible.iter().rev().for_each(|host| backwards.host(*host, "a", &json!({})));
        prop_assert_eq!(&first, &backwards.place(1).0.into_iter().collect());
        gone.iter().for_each(|host| world.host(*host, "a", &json!({"cordoned": true})));
        come.iter().for_each(|host| world.host(*host, "a", &json!({})));
        let second: BTreeSet<_> = world.place(1).0.into_iter().collect();
        prop_assert!(first.difference(&gone).all(|host| second.contains(host)));
        let possible: BTreeSet<_> = possible.difference(&gone).chain(&come).collect();
        prop_assert_eq!(second.len(), (replicas as usize).min(possible.len()));
    }
}
