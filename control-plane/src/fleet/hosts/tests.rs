use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};
use titan_api::{
    Name,
    hosts::{Facts, HostSpec},
    labels::Labels,
    selectors::{Operator, Requirement, Selector},
};
use uuid::Uuid;

use super::{HostNumber, Hosts, Loader};
use crate::{
    fleet::matchers::{Matcher, lookup},
    render::Expression,
};

/// Returns any selector over few keys and values, facts and expressions included.
pub(in crate::fleet) fn selector() -> impl Strategy<Value = Selector> {
    let key = prop::sample::select(vec!["a", "b", "c", "fact/a", "fact/n", "none"]).prop_map(str::to_owned);
    let value = prop::sample::select(vec!["x", "y", "z", "5", "true", "", "never"]).prop_map(str::to_owned);
    let operator = prop::sample::select(vec![Operator::In, Operator::NotIn, Operator::Exists, Operator::DoesNotExist]);
    let requirement = (key.clone(), operator, prop::collection::vec(value.clone(), 0..3))
        .prop_map(|(key, operator, values)| Requirement { key, operator, values });
    let expression = prop::sample::select(vec![
        None,
        None,
        None,
        Some("facts.n > 3"),
        Some("labels.a == 'x' or facts.a is defined"),
        Some("name == 'h3' or labels.b == 'y'"),
        Some("'c' in labels"),
        Some("facts.n == 5 and facts | length > 1"),
        Some("facts.a is string"),
    ]);
    (
        prop::collection::btree_map(key, value, 0..2),
        prop::collection::vec(requirement, 0..3),
        expression.prop_map(|text| text.map(str::to_owned)),
    )
        .prop_map(|(match_labels, match_expressions, expression)| Selector {
            match_labels,
            match_expressions,
            expression,
        })
}

/// A host as people and its agent say it is.
#[derive(Debug, Clone, PartialEq)]
struct Said {
    name: Name,
    labels: Labels,
    spec: HostSpec,
    facts: Facts,
}

#[derive(Debug, Clone)]
enum Change {
    Put(u8, Labels, HostSpec),
    Facts(u8, Facts),
    Remove(u8),
}

fn labels() -> impl Strategy<Value = Labels> {
    prop::collection::btree_map("[abc]", prop::sample::select(vec!["x", "y", "z", "5", ""]), 0..4).prop_map(|map| {
        let map: BTreeMap<_, _> = map.into_iter().map(|(key, value)| (key, value.to_owned())).collect();
        Labels::try_from(map).expect("labels")
    })
}

fn facts() -> impl Strategy<Value = Facts> {
    let value = prop::sample::select(vec![json!("x"), json!("5"), json!(5), json!(5.5), json!(true), json!("true")]);
    prop::collection::btree_map("[an]", value, 0..3)
}

fn change() -> impl Strategy<Value = Change> {
    let spec = (any::<bool>(), prop::sample::select(vec![vec!["*"], vec!["w"], vec!["w", "v"], vec![]])).prop_map(
        |(cordoned, workspaces)| HostSpec {
            cordoned,
            workspaces: workspaces.into_iter().map(str::to_owned).collect(),
            ..HostSpec::default()
        },
    );
    prop_oneof![
        4 => (0_u8..12, labels(), spec).prop_map(|(host, labels, spec)| Change::Put(host, labels, spec)),
        3 => (0_u8..12, facts()).prop_map(|(host, facts)| Change::Facts(host, facts)),
        1 => (0_u8..12).prop_map(Change::Remove),
    ]
}

fn uid(host: u8) -> Uuid {
    Uuid::from_u128(host.into())
}

fn name(host: u8) -> Name {
    Name::new(format!("h{host}")).expect("name")
}

fn apply(hosts: &mut Hosts, said: &mut BTreeMap<Uuid, Said>, change: Change) {
    match change {
        Change::Put(host, labels, spec) => {
            hosts.put(uid(host), &name(host), &labels, spec.clone());
            let facts = said.get(&uid(host)).map(|said| said.facts.clone()).unwrap_or_default();
            said.insert(uid(host), Said { name: name(host), labels, spec, facts });
        }
        Change::Facts(host, facts) => {
            hosts.set_facts(uid(host), &facts);
            if let Some(said) = said.get_mut(&uid(host)) {
                said.facts = facts;
            }
        }
        Change::Remove(host) => {
            hosts.remove(uid(host));
            said.remove(&uid(host));
        }
    }
}

/// Returns what the table says of every host.
fn all(hosts: &Hosts) -> BTreeMap<Uuid, Said> {
    let said = hosts.iter().map(|host| {
        let said =
            Said { name: host.to_name(), labels: host.to_labels(), spec: host.spec().clone(), facts: host.to_facts() };
        (host.uid(), said)
    });
    said.collect()
}

fn uids(hosts: &Hosts, numbers: &roaring::RoaringBitmap) -> BTreeSet<Uuid> {
    hosts.among(numbers).map(|host| host.uid()).collect()
}

/// Looks at each host by itself.
fn scan(said: &BTreeMap<Uuid, Said>, selector: &Selector) -> BTreeSet<Uuid> {
    let expression = selector.expression.as_ref().map(|text| Expression::parse(text).expect("expression"));
    let matches = |said: &Said| {
        let holds = |expression: &Expression| expression.evaluate(&said.name, &said.labels, &said.facts);
        selector.rules_match(|key| lookup(&said.labels, &said.facts, key)) && expression.as_ref().is_none_or(holds)
    };
    said.iter().filter(|(_, said)| matches(said)).map(|(uid, _)| *uid).collect()
}

fn check(hosts: &Hosts, said: &BTreeMap<Uuid, Said>, selectors: &[Selector]) -> Result<(), TestCaseError> {
    prop_assert_eq!(&all(hosts), said);
    prop_assert_eq!(hosts.len(), said.len());
    for (uid, said) in said {
        prop_assert_eq!(hosts.number(*uid), hosts.number_named(&said.name));
        prop_assert_eq!(hosts.number(*uid).and_then(|number| hosts.uid(number)), Some(*uid));
    }
    for workspace in ["w", "v", "u"] {
        let admitting = said.iter().filter(|(_, said)| said.spec.admits(workspace)).map(|(uid, _)| *uid).collect();
        prop_assert_eq!(uids(hosts, &hosts.admitting(workspace)), admitting);
    }
    let cordoned = said.iter().filter(|(_, said)| said.spec.cordoned).map(|(uid, _)| *uid).collect();
    prop_assert_eq!(uids(hosts, hosts.cordoned()), cordoned);
    for selector in selectors {
        let matcher = Matcher::new(selector.clone()).expect("selector");
        let found = hosts.matching(&matcher);
        prop_assert_eq!(uids(hosts, &found), scan(said, selector), "{:?}", selector);
        prop_assert_eq!(found.len(), scan(said, selector).len() as u64);
        // Every second number, and one that is nobody's.
        let some = (0..=hosts.all().max().unwrap_or(0) + 2).step_by(2).collect();
        prop_assert_eq!(hosts.matching_of(&matcher, &some), &found & &some, "{:?}", selector);
        for host in hosts.iter() {
            prop_assert_eq!(matcher.matches(host), found.contains(host.number().0), "{:?}", selector);
        }
    }
    // Pairs, keys and specs are those in use.
    let labels = said.values().flat_map(|said| said.labels.iter().map(|(key, value)| (key.to_owned(), json!(value))));
    let facts =
        said.values().flat_map(|said| said.facts.iter().map(|(name, value)| (format!("fact/{name}"), value.clone())));
    let pairs: BTreeSet<_> = labels.chain(facts).map(|(key, value)| (key, value.to_string())).collect();
    let keys: BTreeSet<_> = pairs.iter().map(|(key, _)| key).collect();
    prop_assert_eq!(hosts.pairs.pairs.values().count(), pairs.len());
    prop_assert_eq!(hosts.pairs.keys.values().count(), keys.len());
    let specs: BTreeSet<_> = said.values().map(|said| serde_json::to_string(&said.spec).expect("json")).collect();
    prop_assert_eq!(hosts.specs.entries.values().count(), specs.len());
    Ok(())
}

proptest! {
    #[test]
    fn the_index_finds_what_a_scan_finds_and_clones_stay_as_they_were(
        changes in prop::collection::vec(change(), 0..60),
        selectors in prop::collection::vec(selector(), 1..8),
        pause in 0_usize..60,
    ) {
        let (mut hosts, mut said) = (Hosts::default(), BTreeMap::new());
        let mut before = None;
        for (at, change) in changes.into_iter().enumerate() {
            if at == pause {
                before = Some((hosts.clone(), said.clone()));
            }
            apply(&mut hosts, &mut said, change);
        }
        check(&hosts, &said, &selectors)?;
        if let Some((hosts, said)) = before {
            check(&hosts, &said, &selectors)?;
        }
        for host in 0..12 {
            hosts.remove(uid(host));
        }
        check(&hosts, &BTreeMap::new(), &selectors)?;
    }

    #[test]
    fn hosts_that_are_loaded_are_those_that_are_put(
        changes in prop::collection::vec(change(), 0..40),
        selectors in prop::collection::vec(selector(), 1..4),
    ) {
        let (mut hosts, mut said) = (Hosts::default(), BTreeMap::new());
        changes.into_iter().for_each(|change| apply(&mut hosts, &mut said, change));
        let mut loader = Loader::new(said.len());
        for (uid, said) in &said {
            let text = |value: Value| value.to_string();
            let (labels, facts) = (text(json!(said.labels)), text(json!(said.facts)));
            loader.add(*uid, &said.name, &labels, &text(json!(said.spec)), &facts).expect("a host");
        }
        check(&loader.finish(), &said, &selectors)?;
    }
}

#[test]
fn hosts_that_cannot_be_read_leave_nothing_behind() {
    let mut loader = Loader::new(0);
    loader.add(uid(1), "a", r#"{"zone":"x"}"#, "{}", "").expect("a host");
    let many: BTreeMap<_, _> = (0..65).map(|number| (format!("k{number}"), "v")).collect();
    for (host, name, labels, spec, facts, said) in [
        (1, "b", "{}", "{}", "", "there are two hosts of the id"),
        (2, "B", "{}", "{}", "", "its name cannot be read"),
        (2, "b", r#"{"z":"y","a b":"c"}"#, "{}", "", "its labels cannot be read"),
        (2, "b", r#"{"fact/os":"c"}"#, "{}", "", "its labels cannot be read"),
        (2, "b", r#"{"z":1}"#, "{}", "", "its labels cannot be read"),
        (2, "b", &json!(many).to_string(), "{}", "", "its labels cannot be read"),
        (2, "b", "{}", "{}", r#"{"z":"y"} x"#, "its facts cannot be read"),
        (2, "b", r#"{"z":"y"}"#, "{", r#"{"z":5}"#, "its spec cannot be read"),
        (2, "b", r#"{"z":"y"}"#, r#"{"workspaces":["A"]}"#, "", "its spec is not valid: /spec/workspaces/0"),
    ] {
        let error = loader.add(uid(host), name, labels, spec, facts).expect_err("it cannot be read");
        assert!(error.to_string().starts_with(said), "{error}");
    }
    loader.add(uid(3), "c", r#"{"z":"y"}"#, "{}", r#"{"z":5}"#).expect("a host");
    let hosts = loader.finish();
    assert_eq!((hosts.len(), hosts.pairs.pairs.values().count(), hosts.pairs.keys.values().count()), (2, 3, 3));
    let host = hosts.number_named("c").and_then(|number| hosts.host(number)).expect("a host");
    assert_eq!((host.lookup("z").as_deref(), host.lookup("fact/z").as_deref()), (Some("y"), Some("5")));
}

#[test]
fn of_two_values_of_one_key_the_later_stands() {
    let mut loader = Loader::new(0);
    loader.add(uid(1), "a", r#"{"z":"x","b":"y","z":"w"}"#, "{}", r#"{"b":1,"a":2,"b":1.5}"#).expect("a host");
    let hosts = loader.finish();
    let host = hosts.host(HostNumber(0)).expect("a host");
    assert_eq!(host.labels().collect::<Vec<_>>(), [("b", "y"), ("z", "w")]);
    assert_eq!(json!(host.to_facts()), json!({"a": 2, "b": 1.5}));
    assert_eq!(hosts.pairs.pairs.values().count(), 4);
}

#[test]
fn a_name_belongs_to_the_host_that_took_it_last() {
    let mut hosts = Hosts::default();
    let put = |hosts: &mut Hosts, host: u8, name: &str| {
        hosts.put(uid(host), &Name::new(name).expect("name"), &Labels::default(), HostSpec::default())
    };
    put(&mut hosts, 1, "a");
    let second = put(&mut hosts, 2, "a");
    assert_eq!(hosts.number_named("a"), Some(second));
    hosts.remove(uid(1));
    assert_eq!(hosts.number_named("a"), Some(second));
    put(&mut hosts, 2, "b");
    assert_eq!((hosts.number_named("a"), hosts.number_named("b")), (None, Some(second)));
    assert_eq!(put(&mut hosts, 3, "c"), HostNumber(0));
}

/// Returns a fleet of `count` hosts with four labels that many share, a serial number, and facts.
fn fleet(count: u32, facts: bool) -> Hosts {
    let mut loader = Loader::new(count as usize);
    for host in 0..count {
        let labels = format!(
            r#"{{"env":"prod","rack":"r{}","serial":"sn-{host:012}","tier":"t{}","zone":"eu-{}"}}"#,
            host / 40,
            host % 3,
            host % 20
        );
        let facts = match facts {
            true => format!(
                r#"{{"agentVersion":"1.{}","arch":"arm64","kernel":"6.1.{}","memoryBytes":{},"os":"linux"}}"#,
                host % 4,
                host % 30,
                4_000_000_000_u64 + u64::from(host % 500)
            ),
            false => String::new(),
        };
        let spec = r#"{"kind":"device","workspaces":["*"]}"#;
        loader.add(Uuid::from_u128(host.into()), &format!("host-{host:07}"), &labels, spec, &facts).expect("a host");
    }
    loader.finish()
}

#[test]
fn a_host_with_a_serial_number_takes_300_bytes_at_most() {
    let hosts = fleet(100_000, false);
    let each = hosts.heap_bytes() / 100_000;
    assert!((100..=300).contains(&each), "{each} bytes a host");
}

#[test]
fn a_fleet_that_is_gone_gives_its_memory_back() {
    let mut hosts = fleet(20_000, true);
    let full = hosts.heap_bytes();
    let serial = |hosts: &Hosts| hosts.pairs.pairs.values().count();
    let pairs = serial(&hosts);
    for host in 0..20_000 {
        hosts.remove(Uuid::from_u128(host));
    }
    assert_eq!(serial(&hosts), 0);
    assert!(hosts.heap_bytes() < full / 2, "{} of {full} bytes", hosts.heap_bytes());
    for host in 0..20_000_u32 {
        let labels = Labels::parse_list(&format!("serial=s{host}")).expect("labels");
        let name = Name::new(format!("n{host}")).expect("name");
        hosts.put(Uuid::from_u128(host.into()), &name, &labels, HostSpec::default());
    }
    assert_eq!((serial(&hosts), hosts.end), (20_000, 20_000));
    assert!(serial(&hosts) < pairs);
}
