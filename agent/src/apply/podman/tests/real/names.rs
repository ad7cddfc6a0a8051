//! Names that nothing has any more, or not yet, while ids and other names begin so.

use super::*;

/// The pod's name is how the id of a person's pod begins, for which podman takes it as long as no pod has that name.
#[test]
fn a_name_is_not_the_beginning_of_an_id() {
    let Some(bench) = Bench::new() else { return };
    let mut applier = bench.open();
    bench.service.run(&["pod", "create", "--name", "theirs", "--network", "host"]).expect("a person's pod");
    let theirs = bench.id("theirs");
    let name = &theirs[..4];
    let case = Case::new(&bench, &applier, &pod(name, IMAGE, "sleep 600"));
    case.apply(&mut applier);
    case.well(&mut applier);
    assert_ne!(bench.id(name), theirs);
    bench.service.run(&["pod", "rm", "-f", "-t", "0", name]).expect("a person removes it");
    let drift = case.drifted(&mut applier);
    assert_eq!(drift[&format!("pod:{name}")], "missing");
    case.enforce(&mut applier, &drift);
    case.remove(&mut applier);
    assert!(!bench.exists("pod", name));
    assert_eq!(bench.id("theirs"), theirs);
}

/// A person removed one volume of the deployment, and the name of another begins as its name does: that stays when the one
/// that is gone is to go.
#[test]
fn a_name_is_not_the_beginning_of_another() {
    let Some(bench) = Bench::new() else { return };
    let mut applier = bench.open();
    let volume = |name: &str| {
        format!(
            "---\napiVersion: v1\nkind: PersistentVolumeClaim\n\
             metadata: {{ name: {name}, annotations: {{ titan/on-remove: delete }} }}\n"
        )
    };
    let case = Case::new(&bench, &applier, &["data", "data-a"].map(volume).concat());
    case.apply(&mut applier);
    case.well(&mut applier);
    bench.service.run(&["volume", "rm", "data"]).expect("a person removes it");
    let next = case.next(&applier, &volume("data-a"));
    next.apply(&mut applier);
    next.well(&mut applier);
    assert!(bench.exists("volume", "data-a"));
    // Nor is it in the way of one that comes, though there are several.
    let last = next.next(&applier, &["data", "data-a", "data-b"].map(volume).concat());
    last.apply(&mut applier);
    last.well(&mut applier);
    bench.service.run(&["volume", "rm", "data"]).expect("a person removes it");
    let drift = last.drifted(&mut applier);
    last.enforce(&mut applier, &drift);
    assert!(["data", "data-a", "data-b"].iter().all(|name| bench.exists("volume", name)));
    last.remove(&mut applier);
    assert!(["data", "data-a", "data-b"].iter().all(|name| !bench.exists("volume", name)));
}
