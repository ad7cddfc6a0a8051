//! The server fails, lies, is slow or gone, and the agent dies at any call.

use std::time::{Duration, Instant};

use super::{
    apiserver::Fault,
    bench::{Bench, bundle, web},
};
use crate::apply::{Condition, kubernetes::client};

#[test]
fn errors_that_pass_are_waited_out() {
    for fault in
        [Fault::Status(500), Fault::Busy(1), Fault::Slow(Duration::from_millis(300)), Fault::Broken, Fault::Status(503)]
    {
        let mut bench = Bench::new();
        let all = bundle(&[("a.yaml", &web("x:1"))]);
        bench.server.fail(fault.clone(), 2);
        bench.prepare(&all).unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        bench.server.fail(fault.clone(), 2);
        bench.apply(&all).unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        bench.wait_well(&all);
    }
}

#[test]
fn a_server_that_asks_to_wait_is_left_alone_for_that_long() {
    let mut bench = Bench::new();
    let all = bundle(&[("a.yaml", &web("x:1"))]);
    bench.settle(&all);
    bench.restart();
    bench.server.fail(Fault::Busy(2), 1);
    let begin = Instant::now();
    let mut said = String::new();
    while let Err(error) = bench.observe(&all) {
        said = error.to_string();
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(begin.elapsed() >= Duration::from_secs(2), "{said}");
    assert!(said.is_empty() || said.contains("asks to wait"), "{said}");
}

#[test]
fn a_page_of_a_proxy_changes_nothing_and_is_named() {
    let mut bench = Bench::new();
    let all = bundle(&[("a.yaml", &web("x:1"))]);
    bench.settle(&all);
    bench.restart();
    let before = bench.server.names();
    bench.server.fail(Fault::Page, 1000);
    for error in [
        bench.observe(&all).map(drop).expect_err("page").to_string(),
        bench.remove(Some(&all)).expect_err("page").to_string(),
    ] {
        assert!(error.contains("that is not an API server"), "{error}");
    }
    bench.server.mend();
    assert_eq!(bench.server.names(), before, "what is there stays there");
}

#[test]
fn a_server_that_is_gone_is_named_and_everything_is_kept() {
    let mut bench = Bench::new();
    let all = bundle(&[("a.yaml", &web("x:1"))]);
    bench.settle(&all);
    bench.restart();
    bench.server.fail(Fault::Silent, 1000);
    let begin = Instant::now();
    let message = bench.observe(&all).expect_err("gone").to_string();
    assert!(begin.elapsed() < Duration::from_secs(12), "{:?}", begin.elapsed());
    assert!(message.contains("cannot be reached") || message.contains("takes too long"), "{message}");
    bench.server.mend();
    bench.wait_well(&all);
}

#[test]
fn answers_are_bounded() {
    let mut bench = Bench::new();
    let all = bundle(&[("a.yaml", &web("x:1"))]);
    bench.settle(&all);
    bench.restart();
    bench.server.edit("configmaps", "shop", "web", "x", |map| map["large"] = "x".repeat(client::BODY_BYTES).into());
    let message = bench.observe(&all).expect_err("large").to_string();
    assert!(message.contains("more than 8388608 bytes"), "{message}");
}

#[test]
fn what_cannot_be_removed_holds_up_nothing_else_and_is_told_of() {
    let mut bench = Bench::new();
    let old = "---\napiVersion: v1\nkind: Service\nmetadata: {name: old, namespace: shop}\n";
    bench.settle(&bundle(&[("a.yaml", &web("x:1")), ("b.yaml", old)]));
    bench.server.forbid("delete", "services");
    let next = bundle(&[("a.yaml", &web("x:2"))]);
    let seen = bench.settle(&next);
    let told = seen.iter().find_map(|seen| seen.drift.as_ref()).expect("told");
    assert_eq!(told.what, "object:/Service/shop/old");
    assert!(told.how.contains("not removed") && told.how.contains("the agent's role"), "{}", told.how);
    bench.server.allow_all();
    let until = Instant::now() + Duration::from_secs(20);
    while bench.server.get("services", "shop", "old").is_some() {
        bench.observe(&next).expect("observe");
        assert!(Instant::now() < until, "it is tried again");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn what_is_forbidden_says_so_before_the_switch() {
    let mut bench = Bench::new();
    bench.server.forbid("patch", "deployments");
    bench.server.edit("namespaces", "", "shop", "kubectl", |_| {});
    let parts = web("x:1").split_once("---\n").expect("parts").1.to_owned();
    let message = bench.prepare(&bundle(&[("a.yaml", &parts)])).expect_err("forbidden").to_string();
    assert!(message.contains("Deployment shop/web") && message.contains("the agent's role"), "{message}");
}

/// The agent dies after each number of calls, is started anew and does the same again: in the end all is as it should be,
/// and at no time is there anything that the ledger does not own.
#[test]
fn a_cut_at_any_call_is_mended_by_doing_the_same_again() {
    let old = "---\napiVersion: v1\nkind: Service\nmetadata: {name: old, namespace: shop}\n";
    let (first, next) = (bundle(&[("a.yaml", &web("x:1")), ("b.yaml", old)]), bundle(&[("a.yaml", &web("x:2"))]));
    let mut calls = 0;
    loop {
        let mut bench = Bench::new();
        bench.settle(&first);
        bench.server.calls();
        let (before, after) = (bench.owned.clone(), bench.plan(&next));
        bench.owned = after.clone();
        bench.server.silence_after(calls);
        let _cut = bench.apply_from(&next, &before, &after);
        let used = bench.server.calls().len();
        bench.restart();
        bench.server.mend();
        // Every other time the worker thinks that it was done, since the call had returned.
        if calls % 2 == 0 {
            bench.apply_from(&next, &before, &after).expect("again");
        }
        bench.wait_well(&next);
        let until = Instant::now() + Duration::from_secs(20);
        while bench.server.get("services", "shop", "old").is_some() {
            bench.observe(&next).expect("observe");
            assert!(Instant::now() < until, "after {calls} calls");
            std::thread::sleep(Duration::from_millis(20));
        }
        bench.restart();
        bench.server.silence_after(calls);
        let _cut = bench.remove_once();
        bench.restart();
        bench.server.mend();
        bench.remove(None).expect("remove");
        let left = bench.server.names();
        assert_eq!(left.len(), 2, "after {calls} calls: {left:?}");
        calls += 1;
        if used < calls && calls > 12 {
            break;
        }
        assert!(calls < 60);
    }
}

#[test]
fn a_bad_change_that_cannot_be_sent_says_so_while_it_is_tried_again() {
    let mut bench = Bench::new();
    let (first, next) = (bundle(&[("a.yaml", &web("x:1"))]), bundle(&[("a.yaml", &web("x:2"))]));
    bench.settle(&first);
    bench.server.fail(Fault::Status(500), 1000);
    // It goes on in the background, so the call itself need not fail.
    let _late = bench.apply(&next);
    std::thread::sleep(Duration::from_millis(50));
    bench.server.mend();
    let seen = bench.wait(&next, |seen| seen.iter().all(|seen| seen.condition == Condition::Well) && seen.len() == 4);
    assert_eq!(seen.len(), 4);
}
