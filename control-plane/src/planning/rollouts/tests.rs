use serde_json::{Value, json};
use titan_api::Document;

use super::*;
use crate::fleet::rollouts::{Opening, rank};

const DEPLOYMENT: Uuid = Uuid::from_u128(1 << 64);

fn document(kind: Kind, uid: Uuid, name: &str, spec: &Value) -> Document {
    let mut document = json!({"apiVersion": "titan/v1", "kind": kind, "spec": spec,
        "metadata": {"name": name, "uid": uid}});
    if kind.in_workspace() {
        document["metadata"]["workspace"] = json!("default");
    }
    serde_json::from_value(document).expect("document")
}

fn fleet(hosts: u128) -> Model {
    let mut model = Model::default();
    let target = document(Kind::Target, Uuid::from_u128(2 << 64), "all", &json!({"expression": "true"}));
    model.put(&target).expect("target");
    for number in 0..hosts {
        let host = document(Kind::Host, Uuid::from_u128(number), &format!("h{number}"), &json!({}));
        model.put(&host).expect("host");
    }
    let spec = json!({"workload": "w", "target": "all"});
    model.put(&document(Kind::Deployment, DEPLOYMENT, "d", &spec)).expect("deployment");
    model
}

fn opened(up_to: Option<u64>) -> Gate {
    let mut gate = Gate::closed(DEPLOYMENT, Uuid::nil(), 2, Some(1));
    let stage = Name::new("all").expect("name");
    gate.open(&Opening { stage, selector: None, up_to, reach: None });
    gate
}

/// What is decided anew when a gate opens further is what it lets through now and did not before.
#[test]
fn gates_that_open_further_concern_those_alone_whom_they_let() {
    let model = fleet(100);
    let mut ranks: Vec<u64> = (0..100).map(|number| rank(DEPLOYMENT, Uuid::from_u128(number))).collect();
    ranks.sort_unstable();
    let mut standing = Standing::default();
    let mut moved = |gate: Gate| match standing.put_gate(gate, &model) {
        Moved::Some(hosts) => {
            let ranks = model.hosts().among(&hosts).map(|host| rank(DEPLOYMENT, host.uid()));
            Some(ranks.collect::<BTreeSet<_>>())
        }
        Moved::Nobody => Some(BTreeSet::new()),
        Moved::All => None,
    };
    assert_eq!(moved(Gate::closed(DEPLOYMENT, Uuid::nil(), 2, Some(1))), None, "nobody knows what was before");
    assert_eq!(moved(opened(Some(ranks[9]))), Some(ranks[..10].iter().copied().collect()));
    assert_eq!(moved(opened(Some(ranks[11]))), Some(ranks[10..12].iter().copied().collect()));
    assert_eq!(moved(opened(Some(ranks[11]))), Some(BTreeSet::new()));
    assert_eq!(moved(opened(None)), Some(ranks[12..].iter().copied().collect()));
    let settled = Gate { from: Some(2), openings: Vec::new(), ..opened(None) };
    assert_eq!(moved(settled.clone()), Some(BTreeSet::new()), "they have it");
    // Another release begins: whoever has none of its openings goes back to what was before, or stays.
    let next = Gate { to: 3, from: Some(2), openings: Vec::new(), ..settled };
    assert_eq!(moved(next.clone()).map(|all| all.len()), Some(100));
    let back = Gate { from: None, ..next };
    assert_eq!(moved(back).map(|all| all.len()), Some(100), "there is nothing to return to");
}
