use serde_json::json;

use super::*;
use crate::fleet::rollouts::{
    Opening,
    members::tests::{DEPLOYMENT, fleet},
    rank,
};

fn opened(up_to: Option<u64>) -> Gate {
    let mut gate = Gate::closed(DEPLOYMENT, Uuid::nil(), 2, Some(1));
    let stage = Name::new("all").expect("name");
    gate.open(&Opening { stage, selector: None, up_to, reach: None });
    gate
}

/// What is decided anew when a gate opens further is what it lets through now and did not before.
#[test]
fn gates_that_open_further_concern_those_alone_whom_they_let() {
    let hosts = vec![json!({}); 100];
    let (model, _) = fleet(&hosts, &json!({}), &[]);
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
