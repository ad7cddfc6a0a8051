//! Gates: how far a release is open is one row per deployment, and what was taken back is written down.

use std::collections::BTreeMap;

use serde_json::json;
use titan_api::{Digest, selectors::Selector};
use titan_control_plane::{
    fleet::rollouts::{Gate, Opening},
    store::{Release, Store},
    workplans::{Context, declare},
};
use uuid::Uuid;

use super::{at, name, read, stores, write};

fn gate(deployment: Uuid, to: i64, from: Option<i64>) -> Gate {
    Gate::closed(deployment, Uuid::now_v7(), to, from)
}

fn opening(stage: &str, up_to: Option<u64>) -> Opening {
    let zone = Selector::labels(BTreeMap::from([("zone".to_owned(), "north".to_owned())]));
    Opening { stage: name(stage), selector: Some(zone), up_to, reach: None }
}

async fn put(store: &Store, gate: &Gate, revision: i64) {
    let mut tx = write(store).await;
    tx.put_gate(gate, at(revision)).await.expect("put");
    tx.commit().await.expect("commit");
}

/// Section 8: what is read after a restart is what was written, ranks of 64 bits among it.
#[tokio::test]
async fn gates_are_read_back_as_they_were_written() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let mut first = gate(Uuid::now_v7(), 2, None);
        put(&store, &first, 10).await;
        first.open(&opening("canary", Some(u64::MAX)));
        first.open(&opening("rest", None));
        put(&store, &first, 20).await;
        let second = Gate { taken_back: vec![5, 6], ..gate(Uuid::now_v7(), 8, Some(4)) };
        put(&store, &second, 30).await;
        store.close().await;

        let store = Store::open(&database.url).await.expect("open again");
        let mut tx = read(&store).await;
        for gate in [&first, &second] {
            assert_eq!(tx.gate(gate.deployment).await.expect("read").as_ref(), Some(gate), "{engine}");
            assert_eq!(tx.gate_of_plan(gate.plan).await.expect("read").as_ref(), Some(gate), "{engine}");
        }
        assert_eq!(tx.gate_moved(first.plan).await.expect("read"), Some(at(20)), "{engine}");
        assert_eq!(tx.gate_moved(Uuid::now_v7()).await.expect("read"), None, "{engine}");
        let all = [(first.clone(), at(20)), (second.clone(), at(30))];
        assert_eq!(tx.gates_after(at(0)).await.expect("read"), all, "{engine}: in the order in which they moved");
        assert_eq!(tx.gates_after(at(20)).await.expect("read"), all[1..], "{engine}");
        drop(tx);

        // The next release of the deployment takes the place of the one before.
        let next = gate(second.deployment, 9, Some(7));
        put(&store, &next, 40).await;
        let mut tx = read(&store).await;
        assert_eq!(
            tx.gate_of_plan(second.plan).await.expect("read"),
            None,
            "{engine}: its plan opens nothing any more"
        );
        assert_eq!(tx.gates_after(at(20)).await.expect("read"), [(next, at(40))], "{engine}");
    }
}

#[tokio::test]
async fn a_gate_that_was_not_committed_is_not_there() {
    for (database, store) in stores().await {
        let gate = gate(Uuid::now_v7(), 2, Some(1));
        let mut tx = write(&store).await;
        tx.put_gate(&gate, at(10)).await.expect("put");
        tx.veto(gate.deployment, &Digest::of(b"x"), 2, ("bad", "token:ann"), at(10)).await.expect("veto");
        drop(tx);
        let mut tx = read(&store).await;
        assert_eq!(tx.gate(gate.deployment).await.expect("read"), None, "{}", database.engine);
        assert_eq!(tx.veto_of(gate.deployment, &Digest::of(b"x")).await.expect("read"), None, "{}", database.engine);
    }
}

/// S4-12: what was taken back is known by what it is made of, for its deployment alone.
#[tokio::test]
async fn vetoes_are_about_what_a_release_is_made_of() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let (deployment, other) = (Uuid::now_v7(), Uuid::now_v7());
        let (bad, good) = (Digest::of(b"bad"), Digest::of(b"good"));
        let mut tx = write(&store).await;
        tx.veto(deployment, &bad, 2, ("first", "token:ann"), at(10)).await.expect("veto");
        // The same came back as another release and was taken back again.
        tx.veto(deployment, &bad, 5, ("second", "token:bob"), at(20)).await.expect("veto");
        tx.commit().await.expect("commit");
        let mut tx = read(&store).await;
        assert_eq!(
            tx.veto_of(deployment, &bad).await.expect("read").map(|veto| veto.reason).as_deref(),
            Some("second"),
            "{engine}"
        );
        assert_eq!(tx.veto_of(deployment, &good).await.expect("read"), None, "{engine}");
        assert_eq!(tx.veto_of(other, &bad).await.expect("read"), None, "{engine}");
        drop(tx);
        let kept = "SELECT number || ' ' || reason || ' ' || actor || ' ' || vetoed_at FROM vetoes";
        assert_eq!(database.texts(kept).await.expect("rows"), ["5 second token:bob 20"], "{engine}");
        let mut tx = write(&store).await;
        tx.lift_veto(other, &bad).await.expect("lifted");
        assert!(tx.veto_of(deployment, &bad).await.expect("read").is_some(), "{engine}");
        tx.lift_veto(deployment, &bad).await.expect("lifted");
        assert_eq!(tx.veto_of(deployment, &bad).await.expect("read"), None, "{engine}");
        tx.commit().await.expect("commit");
    }
}

/// What hosts return to from a release that everybody had at once: the newest before it that was not taken back.
#[tokio::test]
async fn the_release_to_return_to_is_not_one_that_was_taken_back() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let deployment = Uuid::now_v7();
        let mut tx = write(&store).await;
        for number in 1..=4 {
            let (inputs, revision) = (format!("{number}"), at(number));
            let inputs_digest = Digest::of(inputs.as_bytes());
            let release = Release { id: Uuid::now_v7(), deployment, number, revision, inputs_digest, inputs };
            tx.add_release(&release).await.expect("a release");
        }
        tx.veto(deployment, &Digest::of(b"3"), 3, ("bad", "token:ann"), at(10)).await.expect("veto");
        tx.commit().await.expect("commit");
        let mut tx = read(&store).await;
        for (number, before) in [(4, Some(2)), (3, Some(2)), (2, Some(1)), (1, None)] {
            assert_eq!(tx.release_before(deployment, number).await.expect("read"), before, "{engine}: {number}");
        }
        assert_eq!(tx.release_before(Uuid::now_v7(), 9).await.expect("read"), None, "{engine}");
        for (after, number, found) in
            [(None, 4, vec![3]), (Some(2), 9, vec![3]), (Some(3), 9, vec![]), (None, 3, vec![])]
        {
            assert_eq!(tx.taken_back(deployment, after, number).await.expect("read"), found, "{engine}: {number}");
        }
    }
}

/// A plan that succeeded settles its gate, whoever had the last word and whoever was killed after it.
#[tokio::test]
async fn gates_of_plans_that_succeeded_are_to_be_settled() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let context = Context { actor: "token:ann", wall: at(1) };
        let mut plans = Vec::new();
        for (spec, from) in [
            (json!({"nodes": {"a": {}}}), Some(1)),
            (json!({"nodes": {"a": {}}}), None),
            // Nothing is left to do for one that is settled, nor for one that goes on.
            (json!({"nodes": {"a": {}}}), Some(2)),
            (json!({"nodes": {"a": {"run": {"external": {"queue": "q"}}}}}), Some(1)),
        ] {
            let gate = gate(Uuid::now_v7(), 2, from);
            let mut tx = write(&store).await;
            tx.put_gate(&gate, at(5)).await.expect("put");
            let spec = serde_json::from_value(spec).expect("a spec");
            let who = (gate.plan, &name("default"), &name("p"));
            declare(&mut tx, who, &spec, Default::default(), context).await.expect("made");
            tx.commit().await.expect("commit");
            plans.push(gate);
        }
        let mut open = read(&store).await.plans_to_settle().await.expect("read");
        open.sort();
        let mut wanted: Vec<_> = plans[..2].iter().map(|gate| gate.plan).collect();
        wanted.sort();
        assert_eq!(open, wanted, "{engine}");
        for gate in &plans[..2] {
            put(&store, &Gate { from: Some(gate.to), ..gate.clone() }, 9).await;
        }
        assert_eq!(read(&store).await.plans_to_settle().await.expect("read"), Vec::<Uuid>::new(), "{engine}");
    }
}
