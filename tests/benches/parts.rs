//! The parts that polls and edits are made of, each by itself: nanoseconds of one call, where `measures` and `fleet-sim`
//! take whole requests. `cargo bench -p titan-tests --bench parts`.

use std::{collections::BTreeMap, hint::black_box, sync::Arc};

use divan::{Bencher, counter::ItemsCount};
use titan_api::{
    Digest, Name, Revision, SetDigest, deployments::OnRemove, hosts::HostSpec, labels::Labels, selectors::Selector,
};
use titan_control_plane::{
    fleet::{hosts::Hosts, matchers::Matcher, view::FleetView},
    store::{Assignment, Description},
};
use titan_tests::simulator::fold::{Desired, Envelope};
use uuid::Uuid;

/// Hosts in the view and in the model.
const HOSTS: u32 = 100_000;
/// Assignments of each.
const ASSIGNMENTS: u32 = 5;
/// The revision under which everything is there.
const THEN: i64 = 1_800_000_000_000_000;

fn main() {
    divan::main();
}

fn uid(host: u32) -> Uuid {
    Uuid::from_u128(u128::from(host) << 64 | 0x7a)
}

fn name(host: u32) -> Name {
    Name::new(format!("host-{host:07}")).expect("a name")
}

fn description(number: u32) -> Arc<Description> {
    Arc::new(Description {
        deployment: Uuid::from_u128(u128::from(number)),
        workspace: Name::new("default").expect("a name"),
        name: Name::new(format!("service-{number}")).expect("a name"),
        release: format!("service-{number}#1"),
        depends_on: Vec::new(),
        on_remove: OnRemove::Delete,
        reason: None,
    })
}

fn assignment(told: &Arc<Description>, host: u32, revision: Revision) -> Assignment {
    let bundle = Some(Digest::of(format!("{} of {revision}", told.name).as_bytes()));
    Assignment { deployment: told.deployment, host: uid(host), description: Arc::clone(told), revision, bundle }
}

/// A view in which every host has shown its credential and has everything.
fn view() -> FleetView {
    let view = FleetView::default();
    let revision = Revision::from_micros(THEN);
    let all = (0..ASSIGNMENTS).map(description).collect::<Vec<_>>();
    let moved = all.iter().flat_map(|told| (0..HOSTS).map(move |host| assignment(told, host, revision))).collect();
    view.advance(moved, revision);
    for host in 0..HOSTS {
        view.name(&view.slot(uid(host)), &name(host));
    }
    view
}

/// Hosts in ten regions and a thousand racks.
fn hosts() -> Hosts {
    let mut hosts = Hosts::default();
    for host in 0..HOSTS {
        let labels = [("region", format!("region-{}", host % 10)), ("rack", format!("rack-{:04}", host % 1000))];
        let labels: BTreeMap<_, _> = labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        hosts.put(uid(host), &name(host), &Labels::try_from(labels).expect("labels"), HostSpec::default());
    }
    hosts
}

/// What an unchanged poll looks up: a host by the name in its path, with what it has.
#[divan::bench]
fn host_by_name(bencher: Bencher) {
    let view = view();
    let mut turn = 0_u32;
    bencher
        .counter(ItemsCount::new(1_u32))
        .with_inputs(|| {
            // Far apart, as polls come.
            turn = turn.wrapping_add(61_803);
            name(turn % HOSTS)
        })
        .bench_local_values(|name| view.named(black_box(&name)).map(|slot| slot.set().digest()));
}

/// What an unchanged poll leaves behind.
#[divan::bench]
fn host_is_seen(bencher: Bencher) {
    let view = view();
    let slot = view.slot(uid(1));
    let mut now = THEN;
    bencher.bench_local(|| {
        now += 1;
        view.see(black_box(&slot), Revision::from_micros(now));
    });
}

/// The feed, read into the view: moved assignments of one deployment.
#[divan::bench(args = [10, 1000])]
fn assignments_into_the_view(bencher: Bencher, count: u32) {
    let (view, told) = (view(), description(0));
    let mut now = THEN;
    bencher
        .counter(ItemsCount::new(count))
        .with_inputs(|| {
            now += 1;
            let revision = Revision::from_micros(now);
            ((0..count).map(|host| assignment(&told, host * 97 % HOSTS, revision)).collect::<Vec<_>>(), revision)
        })
        .bench_local_values(|(moved, revision)| view.advance(moved, revision));
}

/// Whom a selector matches, of all hosts: a rack, a region, a region without its racks.
#[divan::bench(args = ["rack=rack-0007", "region=region-3", "region=region-3,rack"])]
fn hosts_that_match(bencher: Bencher, told: &str) {
    let hosts = hosts();
    let mut selector = Selector::default();
    for rule in told.split(',') {
        match rule.split_once('=') {
            Some((key, value)) => {
                selector.match_labels.insert(key.to_owned(), value.to_owned());
            }
            None => selector.match_expressions.push(
                serde_json::from_value(serde_json::json!({
                    "key": rule, "operator": "NotIn", "values": ["rack-0003", "rack-0013"],
                }))
                .expect("a rule"),
            ),
        }
    }
    let matcher = Matcher::new(selector).expect("a selector");
    bencher.bench(|| hosts.matching(black_box(&matcher)).len());
}

/// The digest of a host's set, worked out anew, and moved on by one assignment.
#[divan::bench(args = [1, 5, 100])]
fn digest_of_a_set(bencher: Bencher, count: u32) {
    let set: Vec<_> = (0..count).map(|number| (uid(number), Revision::from_micros(THEN))).collect();
    bencher.counter(ItemsCount::new(count)).bench(|| SetDigest::of(black_box(&set).iter().copied()));
}

/// What an agent does with an answer that moves one of its assignments.
#[divan::bench]
fn answer_that_is_folded(bencher: Bencher) {
    let set: Vec<_> = (0..ASSIGNMENTS).map(|number| (uid(number), Revision::from_micros(THEN))).collect();
    let full = Envelope {
        cursor: Revision::from_micros(THEN + 1),
        full: true,
        digest: SetDigest::of(set.iter().copied()),
        present: set.clone(),
        absent: Vec::new(),
    };
    let mut desired = Desired::default();
    desired.fold(&full);
    let (id, before) = set[0];
    let after = Revision::from_micros(THEN + 2);
    let news = Envelope {
        cursor: after.next(),
        full: false,
        digest: full.digest.without(id, before).with(id, after),
        present: vec![(id, after)],
        absent: Vec::new(),
    };
    bencher.with_inputs(|| desired.clone()).bench_values(|mut desired| desired.fold(black_box(&news)));
}
