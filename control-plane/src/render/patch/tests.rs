use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::render::lexer;

fn reads(source: &str) -> Reads {
    Reads::of(&lexer::code(source).expect("code"))
}

/// Returns what a worker holds, as JSON.
fn held(kept: &Kept) -> String {
    serde_json::to_string(&kept.value()).expect("json")
}

fn read(reads: &Reads, context: &Value) -> String {
    serde_json::to_string(&reads.of_context(context)).expect("json")
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop::sample::select(vec![
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(0.0),
        json!(-0.0),
        json!(1.5e300),
        json!(""),
        json!("a text that is longer than what fits in place: \u{1F980}"),
        json!([]),
        json!({}),
    ]);
    leaf.prop_recursive(4, 24, 4, |inner| {
        let key = prop::sample::select(vec!["values", "host", "labels", "a", "b"]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #[test]
    fn a_patched_context_is_what_is_read_of_the_newest(
        contexts in prop::collection::vec(any_value(), 1..6),
        source in prop::sample::select(vec![
            "{{ values }}{{ host.labels.a }}", "{{ values.a.b }}{{ host }}{{ a }}", "{{ values.a }}{{ values.b.a }}", "x",
        ]),
    ) {
        let reads = reads(source);
        let mut kept = Kept::default();
        let mut before: Option<&Value> = None;
        for context in &contexts {
            let mut bytes = Vec::new();
            match before {
                Some(before) => write_patch(&reads, before, context, &mut bytes).expect("patch"),
                None => write(&reads, context, &mut bytes).expect("context"),
            }
            kept.update(&bytes).expect("update");
            prop_assert_eq!(held(&kept), read(&reads, context));
            before = Some(context);
        }
    }

    #[test]
    fn no_bytes_make_a_worker_panic_or_take_memory(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _either = Kept::default().update(&bytes);
        let mut kept = Kept::default();
        let mut whole = Vec::new();
        write(&reads("{{ a }}"), &json!({"a": {"b": [1], "c": 2}}), &mut whole).expect("context");
        kept.update(&whole).expect("update");
        let _either = kept.update(&[&[PATCH, 1, 0, 0, 0, 0, 0, 0, 0], bytes.as_slice()].concat());
    }
}

#[test]
fn a_patch_holds_only_what_differs() {
    let reads = reads("{{ host.name }}{{ values }}");
    let context = |name: &str, serial: u32| json!({"host": {"name": name, "labels": {"a": name}}, "values": {"serial": serial, "large": "x".repeat(1000)}});
    let mut bytes = Vec::new();
    write_patch(&reads, &context("a", 1), &context("b", 2), &mut bytes).expect("patch");
    assert!(bytes.len() < 60, "{} bytes", bytes.len());
    bytes.clear();
    write_patch(&reads, &context("a", 1), &context("a", 1), &mut bytes).expect("patch");
    assert_eq!(bytes, [PATCH, 0, 0, 0, 0]);
}

#[test]
fn what_is_too_deep_is_an_error_on_both_sides() {
    let nested = |depth: usize| (0..depth).fold(json!(1), |inner, _| json!({ "a": inner }));
    let reads = reads("{{ a }}");
    let mut bytes = Vec::new();
    assert_eq!(write(&reads, &nested(DEPTH), &mut bytes), Ok(()));
    Kept::default().update(&bytes).expect("update");
    assert_eq!(write(&reads, &nested(DEPTH + 2), &mut bytes), Err(PatchError::Depth));
    let lists = [LIST, 1, 0, 0, 0].repeat(100_000);
    assert!(Kept::default().update(&lists).is_err());
    let patches = [PATCH, 1, 0, 0, 0, 0, 0, 0, 0].repeat(100_000);
    assert!(Kept::default().update(&patches).is_err());
}
