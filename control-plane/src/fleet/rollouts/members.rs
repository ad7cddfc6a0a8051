//! Members: the hosts that are to have a deployment, found as the planner finds them.

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::fleet::{
    absences::Absences,
    bookings::{Bookings, is_booked},
    holders::Holders,
    model::{Deployment, Model},
    placements::{self, Footing},
    view::FleetView,
};

/// Returns the hosts that are to have a deployment: those that have it and keep it, though they take nothing new, among them,
/// those without room for it not. `problems`: pairs of host and deployment that cannot be rendered; for a deployment that is
/// booked nowhere they do not matter.
///
/// Replicas that are placed and not given yet are the planner's to know; what is found here is where they go if nobody else
/// is placed meanwhile.
#[must_use]
pub fn members(
    (model, view): (&Model, &FleetView),
    deployment: &Deployment,
    problems: &BTreeSet<(Uuid, Uuid)>,
    absences: &Absences,
) -> Vec<Uuid> {
    let mut asked = placements::conceivable(model, deployment);
    let booked = is_booked(deployment);
    if !booked {
        // Of all others it does not matter what they have.
        asked -= placements::possible(model, deployment);
    }
    let holders = Holders::of_hosts(view, model.hosts(), &asked);
    let bookings = if booked { Bookings::of(model, &holders, problems) } else { Bookings::default() };
    let footing = Footing { model, bookings: &bookings, absences };
    let placed = placements::place_set(footing, deployment, &holders.of(deployment.uid)).unwrap_or_default();
    model.hosts().among(&placed).map(|host| host.uid()).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};
    use titan_api::{Digest, Document, Kind, Revision};

    use super::*;
    use crate::{
        fleet::{
            moves,
            rollouts::{Gate, barriers, barriers::Barrier},
        },
        store::{Assignment, Release},
    };

    pub(crate) const DEPLOYMENT: Uuid = Uuid::from_u128(1 << 64);

    fn document(kind: Kind, uid: Uuid, name: &str, spec: &Value) -> Document {
        let mut document = json!({"apiVersion": "titan/v1", "kind": kind, "spec": spec,
            "metadata": {"name": name, "uid": uid}});
        if kind.in_workspace() {
            document["metadata"]["workspace"] = json!("default");
        }
        serde_json::from_value(document).expect("document")
    }

    /// A fleet of these hosts, of which the `holding` have the deployment.
    pub(crate) fn fleet(hosts: &[Value], more: &Value, holding: &[u128]) -> (Model, FleetView) {
        let (mut model, view) = (Model::default(), FleetView::default());
        let target = document(Kind::Target, Uuid::from_u128(2 << 64), "all", &json!({"expression": "true"}));
        model.put(&target).expect("target");
        for (number, spec) in hosts.iter().enumerate() {
            let host = document(Kind::Host, Uuid::from_u128(number as u128), &format!("h{number}"), spec);
            model.put(&host).expect("host");
        }
        let mut spec = json!({"workload": "w", "target": "all"});
        for (key, value) in more.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        model.put(&document(Kind::Deployment, DEPLOYMENT, "d", &spec)).expect("deployment");
        let held = holding.iter().map(|host| assignment(&model, *host, 1));
        view.advance(held.collect(), Revision::from_micros(5));
        (model, view)
    }

    fn assignment(model: &Model, host: u128, number: i64) -> Assignment {
        let release = Release {
            id: Uuid::nil(),
            deployment: DEPLOYMENT,
            number,
            revision: Revision::ZERO,
            inputs_digest: Digest::of(b""),
            inputs: String::new(),
        };
        let deployment = model.deployment(DEPLOYMENT).expect("deployment");
        Assignment {
            deployment: DEPLOYMENT,
            host: Uuid::from_u128(host),
            description: Arc::new(moves::description(deployment, &release)),
            revision: Revision::from_micros(5),
            bundle: Some(Digest::of(b"bundle")),
        }
    }

    fn found((model, view): &(Model, FleetView)) -> Vec<u128> {
        let deployment = model.deployment(DEPLOYMENT).expect("deployment");
        let mut found = members((model, view), deployment, &BTreeSet::new(), &Absences::default());
        found.sort_unstable();
        found.into_iter().map(|host| host.as_u128()).collect()
    }

    #[test]
    fn hosts_that_take_nothing_new_are_members_if_they_have_it() {
        let taint = |effect: &str| json!({"taints": [{"key": "k", "effect": effect}]});
        let cordoned = json!({"cordoned": true});
        let hosts =
            [json!({}), cordoned.clone(), cordoned, taint("NoSchedule"), taint("NoSchedule"), taint("NoExecute")];
        for more in [json!({}), json!({"requests": {"memory": "1Gi"}})] {
            assert_eq!(found(&fleet(&hosts, &more, &[1, 3, 5])), [0, 1, 3], "{more}");
            assert_eq!(found(&fleet(&hosts, &more, &[])), [0], "{more}");
        }
    }

    #[test]
    fn hosts_without_room_are_no_members() {
        let hosts = [json!({}), json!({"capacity": {"memory": "1Gi"}}), json!({"capacity": {"memory": "4Gi"}})];
        let more = json!({"requests": {"memory": "2Gi"}});
        assert_eq!(found(&fleet(&hosts, &more, &[])), [0, 2]);
        assert_eq!(found(&fleet(&hosts, &more, &[1])), [0, 2], "it has it, and gives it up");
    }

    #[test]
    fn replicas_are_on_the_chosen_hosts_whether_they_have_them_yet_or_not() {
        let hosts = [json!({}), json!({}), json!({}), json!({"cordoned": true})];
        let more = json!({"replicas": 2});
        assert_eq!(found(&fleet(&hosts, &more, &[])).len(), 2, "the first release is about somebody");
        for held in [[0, 1], [0, 2], [1, 2]] {
            assert_eq!(found(&fleet(&hosts, &more, &held)), held);
        }
        let moved = found(&fleet(&hosts, &more, &[1, 3]));
        assert!(moved.contains(&1) && moved.len() == 2 && !moved.contains(&3), "{moved:?}");
    }

    /// 9 takes the place of 8, which was taking the place of 7.
    #[test]
    fn nobody_keeps_a_release_that_was_taken_back() {
        let (model, _) = fleet(&[json!({})], &json!({}), &[]);
        let host = model.host(Uuid::nil()).expect("host");
        let has = |number| crate::fleet::view::Entry::from(assignment(&model, 0, number));
        let gate = |taken_back| Gate { taken_back, ..Gate::closed(DEPLOYMENT, Uuid::nil(), 9, Some(7)) };
        let on_its_way = Barrier::new(gate(Vec::new())).expect("barrier");
        assert_eq!([7, 8].map(|number| on_its_way.release(host, Some(&has(number)))), [Some(7), Some(8)]);
        let taken_back = Barrier::new(gate(vec![8])).expect("barrier");
        assert_eq!([7, 8].map(|number| taken_back.release(host, Some(&has(number)))), [Some(7), Some(7)]);
        let first = Barrier::new(Gate { from: None, ..gate(vec![8]) }).expect("barrier");
        assert_eq!(first.release(host, Some(&has(8))), None, "there is none before it");
    }

    #[test]
    fn the_way_back_is_about_those_that_had_the_release() {
        let (model, _) = fleet(&[json!({})], &json!({}), &[]);
        let entry = |number, revision, present: bool| {
            let mut assignment = assignment(&model, 0, number);
            assignment.revision = Revision::from_micros(revision);
            assignment.bundle = assignment.bundle.filter(|_| present);
            crate::fleet::view::Entry::from(assignment)
        };
        let had = |entry| barriers::had(&entry, 8, Revision::from_micros(100));
        assert!(had(entry(7, 101, true)), "it was sent back");
        assert!(had(entry(8, 90, true)), "it cannot be sent back");
        assert!(!had(entry(7, 90, true)), "it never had it");
        assert!(!had(entry(7, 101, false)) && !had(entry(8, 90, false)), "it has none any more");
    }
}
