use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};
use titan_api::{
    Document, Kind, Name, Revision,
    changes::{Change, Operation},
    poll::RemovalReason,
    selectors::Selector,
};
use uuid::Uuid;

use super::Model;
use crate::fleet::{
    absences::Absences,
    bookings::Bookings,
    causes,
    holders::Holders,
    hosts::tests::selector,
    placements::{Footing, Placement, place_all, place_one},
};

fn name(text: impl AsRef<str>) -> Name {
    Name::new(text).expect("name")
}

fn uid(kind: Kind, number: u8) -> Uuid {
    Uuid::from_u128((kind as u128) << 64 | u128::from(number))
}

fn document(kind: Kind, workspace: u8, number: u8, labels: &Value, spec: &Value) -> Document {
    let workspace = if kind.in_workspace() { json!(["default", "w"][usize::from(workspace % 2)]) } else { Value::Null };
    // Of one kind, a name belongs to one document in each workspace.
    let uid = uid(kind, if kind.in_workspace() { number } else { number + 100 });
    let name = if kind.in_workspace() { format!("n{}", number / 2) } else { format!("n{number}") };
    let mut document = json!({"apiVersion": "titan/v1", "kind": kind, "spec": spec,
        "metadata": {"name": name, "uid": uid, "labels": labels}});
    if !workspace.is_null() {
        document["metadata"]["workspace"] = workspace;
    }
    serde_json::from_value(document).expect("document")
}

#[derive(Debug, Clone)]
struct Written {
    live: bool,
    document: Document,
}

fn written() -> impl Strategy<Value = Written> {
    let named = || (0_u8..3).prop_map(|number| format!("n{number}"));
    let template = || prop::option::of(named());
    let labels = prop::collection::btree_map("[abc]", "[xyz5]", 0..3);
    let taints = prop::collection::vec((prop::sample::select(vec!["a", "b"]), any::<bool>()), 0..3);
    let capacity = prop::option::of((0_u32..4, prop::option::of(0_u32..3)));
    let host =
        (0_u8..8, labels, prop::bool::weighted(0.2), prop::sample::select(vec!["*", "w", "default"]), taints, capacity)
            .prop_map(|(number, labels, cordoned, workspace, taints, capacity)| {
                let taint =
                    |(key, stays)| json!({"key": key, "effect": if stays { "NoSchedule" } else { "NoExecute" }});
                let taints: Vec<_> = taints.into_iter().map(taint).collect();
                let mut spec = json!({"cordoned": cordoned, "workspaces": [workspace], "taints": taints});
                if let Some((cpu, gpu)) = capacity {
                    spec["capacity"] = gpu.map_or_else(|| json!({"cpu": cpu}), |gpu| json!({"cpu": cpu, "gpu": gpu}));
                }
                document(Kind::Host, 0, number, &json!(labels), &spec)
            });
    let target = (0_u8..6, selector()).prop_map(|(number, mut selector)| {
        for requirement in &mut selector.match_expressions {
            use titan_api::selectors::Operator;
            match requirement.operator {
                Operator::In | Operator::NotIn => requirement.values.push("x".to_owned()),
                Operator::Exists | Operator::DoesNotExist => requirement.values.clear(),
            }
        }
        // A target of its own needs a rule.
        if selector.is_empty() {
            selector = Selector::labels([("a".to_owned(), "x".to_owned())].into());
        }
        document(Kind::Target, number, number, &json!({}), &json!(selector))
    });
    let workload = (0_u8..6, template()).prop_map(|(number, template)| {
        let mut spec = json!({"repository": "r", "version": "1"});
        if let Some(template) = template {
            spec["template"] = json!(template);
        }
        document(Kind::Workload, number, number, &json!({}), &spec)
    });
    let asks = (prop::option::of(0_u32..3), any::<bool>(), any::<bool>());
    let deployment = (0_u8..6, named(), named(), template(), prop::option::of(0_u32..4), asks).prop_map(
        |(number, workload, target, template, replicas, (cpu, gpu, tolerates))| {
            let mut spec = json!({"workload": workload, "target": target});
            if let Some(template) = template {
                spec["template"] = json!(template);
            }
            if let Some(replicas) = replicas {
                spec["replicas"] = json!(replicas);
            }
            spec["requests"] = match (cpu, gpu) {
                (Some(cpu), true) => json!({"cpu": cpu, "gpu": 1}),
                (Some(cpu), false) => json!({"cpu": cpu}),
                (None, _) => json!({}),
            };
            spec["tolerations"] = if tolerates { json!([{"key": "a"}]) } else { json!([]) };
            document(Kind::Deployment, number, number, &json!({}), &spec)
        },
    );
    let any = prop_oneof![4 => host, 2 => target, 2 => workload, 4 => deployment];
    (prop::bool::weighted(0.8), any).prop_map(|(live, document)| Written { live, document })
}

fn change(written: &Written) -> Change {
    let metadata = &written.document.metadata;
    Change {
        revision: Revision::ZERO,
        ordinal: 0,
        operation: if written.live { Operation::Update } else { Operation::Delete },
        kind: written.document.kind,
        workspace: metadata.workspace.clone(),
        name: metadata.name.clone(),
        uid: metadata.uid.expect("uid"),
        before: None,
        after: written.live.then(|| written.document.clone()),
        actor: String::new(),
        reason: None,
        request_id: String::new(),
    }
}

/// Looks at every deployment.
fn scanned(model: &Model, change: &Change) -> BTreeSet<Uuid> {
    let own = |workspace: &Name| change.workspace.as_ref() == Some(workspace);
    let of = |is: &dyn Fn(&super::Deployment) -> bool| {
        model.deployments().filter(|deployment| is(deployment)).map(|deployment| deployment.uid).collect()
    };
    match change.kind {
        Kind::WorkPlan => BTreeSet::new(),
        Kind::Deployment => [change.uid].into(),
        Kind::Target => of(&|deployment| own(&deployment.workspace) && deployment.spec.target == change.name),
        Kind::Workload => of(&|deployment| own(&deployment.workspace) && deployment.spec.workload == change.name),
        Kind::Template => of(&|deployment| {
            model.template_name(deployment) == Some(&change.name)
                && (own(&deployment.workspace) || change.workspace.as_deref() == Some("default"))
        }),
        Kind::Workspace => of(&|deployment| deployment.workspace == change.name),
        Kind::Host => BTreeSet::new(),
    }
}

proptest! {
    #[test]
    fn what_is_found_by_name_and_by_set_is_what_a_scan_finds(
        history in prop::collection::vec(written(), 1..60),
        held in prop::collection::btree_set(0_u8..10, 0..6),
    ) {
        let mut model = Model::default();
        let held: BTreeSet<_> = held.into_iter().map(|number| uid(Kind::Host, number + 100)).collect();
        for written in &history {
            model.follow(&change(written)).expect("followed");
        }
        let mut asked: Vec<_> = history.iter().map(change).collect();
        for workspace in ["default", "w"] {
            let template = document(Kind::Template, 0, 2, &json!({}), &json!({}));
            let mut template = change(&Written { live: true, document: template });
            template.workspace = Some(name(workspace));
            let space = Change { kind: Kind::Workspace, workspace: None, name: name(workspace), ..template.clone() };
            asked.extend([template, space]);
        }
        for change in &asked {
            let affected = causes::affected([change], &model);
            let found = if change.kind == Kind::Target { affected.targets } else { affected.deployments };
            prop_assert_eq!(found, scanned(&model, change), "{:?}", change.kind);
        }
        // Those that are held are booked, and so is much beside them.
        let mut holders = Holders::default();
        for deployment in model.deployments() {
            for host in held.iter().filter_map(|host| model.hosts().number(*host)) {
                holders.set(deployment.uid, host, true);
            }
        }
        let bookings = Bookings::of(&model, &holders, &BTreeSet::new());
        let footing = Footing { model: &model, bookings: &bookings, absences: &Absences::default() };
        for host in model.hosts().iter() {
            let candidates: BTreeSet<_> =
                model.candidates(host.uid()).into_iter().map(|deployment| deployment.uid).collect();
            for deployment in model.deployments() {
                let placed = place_one(footing, deployment, host.uid(), false);
                let absent = matches!(placed, Placement::Absent(_));
                prop_assert!(absent || candidates.contains(&deployment.uid), "{:?}", deployment);
            }
        }
        for deployment in model.deployments() {
            let placements = place_all(footing, deployment, &held);
            prop_assert!(held.iter().all(|host| placements.contains_key(host)));
            let mut present = 0;
            let uids: BTreeSet<_> = model.hosts().iter().map(|host| host.uid()).chain(held.iter().copied()).collect();
            let mut possible = 0;
            for host in uids {
                let alone = place_one(footing, deployment, host, held.contains(&host));
                let placed = placements.get(&host);
                possible += u32::from(alone == Placement::Present);
                present += u32::from(placed == Some(&Placement::Present));
                match (&alone, placed) {
                    // It is one of several, and others were picked.
                    (Placement::Present, None | Some(Placement::Absent(RemovalReason::ReplicaMoved)))
                        if deployment.spec.replicas.is_some() => {}
                    (Placement::Absent(_) | Placement::Undecided(_), None) => prop_assert!(!held.contains(&host)),
                    (alone, placed) => prop_assert_eq!(Some(alone), placed),
                }
            }
            prop_assert_eq!(present, deployment.spec.replicas.unwrap_or(u32::MAX).min(possible));
        }
    }
}

/// Returns a model of `count` hosts, each of one of a thousand zones, and of a deployment for each zone.
fn zones(count: u32) -> Model {
    let mut model = Model::default();
    let put = |model: &mut Model, kind: &str, number: u32, labels: Value, spec: Value| {
        let mut document = json!({"apiVersion": "titan/v1", "kind": kind, "spec": spec, "metadata": {
            "name": format!("n{number}"), "labels": labels, "uid": Uuid::from_u128(u128::from(number))}});
        if kind != "Host" {
            document["metadata"]["workspace"] = json!("w");
        }
        model.put(&serde_json::from_value(document).expect("document")).expect("put");
    };
    for number in 0..1000 {
        let rules = json!({"matchLabels": {"env": "prod", "zone": format!("z{number}")}});
        put(&mut model, "Target", number, json!({}), rules);
        let spec = json!({"workload": "n", "target": format!("n{number}")});
        put(&mut model, "Deployment", number, json!({}), spec);
    }
    for number in 0..count {
        let labels = json!({"env": "prod", "zone": format!("z{}", number % 1000)});
        put(&mut model, "Host", number, labels, json!({}));
    }
    model
}

#[test]
fn a_host_of_a_large_fleet_has_few_candidates() {
    let model = zones(2000);
    for host in model.hosts().iter() {
        assert!(model.candidates(host.uid()).len() <= 2, "{}", model.candidates(host.uid()).len());
    }
}

#[test]
fn a_clone_stays_as_it_was() {
    let mut model = zones(1500);
    let before = model.clone();
    for host in 0..1500 {
        model.remove(Kind::Host, None, &name(format!("n{host}")), Uuid::from_u128(host));
    }
    model.remove(Kind::Target, Some(&name("w")), &name("n1"), Uuid::from_u128(1));
    assert_eq!((model.hosts().len(), before.hosts().len()), (0, 1500));
    let deployment = before.deployment(Uuid::from_u128(1)).expect("a deployment");
    let footing = Footing { model: &before, bookings: &Bookings::default(), absences: &Absences::default() };
    assert_eq!(place_all(footing, deployment, &BTreeSet::new()).len(), 2);
    assert!(model.target(deployment).is_none() && before.target(deployment).is_some());
}
