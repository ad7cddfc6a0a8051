//! Which parts of a host a template can see.
//!
//! Two hosts that are the same in these parts have the same `host` in what a template is rendered from, so hosts can be put
//! into groups by [`HostReads::signature`] before the context of any of them is made. Values are a matter of their own:
//! where [`Reads::sees_values`] says so, what overrides and the host itself say of them counts as well.

use std::collections::BTreeSet;

use serde_json::Value;
use titan_api::{hosts::Facts, labels::Labels};

use super::Reads;

/// The parts of a host that are read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostReads {
    /// Whether its name is.
    pub name: bool,
    /// Which of its labels are.
    pub labels: KeysRead,
    /// Which of its facts are.
    pub facts: KeysRead,
    /// Whether the host is read as one, name, all labels and all facts included.
    pub everything: bool,
}

/// The entries of a map that are read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum KeysRead {
    /// None.
    #[default]
    None,
    /// These, also where they are missing.
    Some(BTreeSet<String>),
    /// All, which is also what a key that is worked out while rendering means.
    All,
}

impl Reads {
    /// Returns which parts of a host are read.
    #[must_use]
    pub fn host(&self) -> HostReads {
        let Some(host) = self.part("host") else { return HostReads::default() };
        // A part that hosts do not have today may be one tomorrow.
        let known = |name: &str| matches!(name, "name" | "labels" | "facts");
        if host.is_whole() || !host.names().all(known) {
            return HostReads { name: true, labels: KeysRead::All, facts: KeysRead::All, everything: true };
        }
        let keys = |name: &str| host.part(name).map_or(KeysRead::None, KeysRead::of);
        HostReads { name: host.part("name").is_some(), labels: keys("labels"), facts: keys("facts"), everything: false }
    }

    /// Whether any value is read.
    #[must_use]
    pub fn sees_values(&self) -> bool {
        self.part("values").is_some()
    }

    /// Whether the release is read, which makes each release another outcome.
    #[must_use]
    pub fn sees_release(&self) -> bool {
        self.part("release").is_some()
    }
}

impl KeysRead {
    fn of(reads: &Reads) -> Self {
        if reads.is_whole() { Self::All } else { Self::Some(reads.names().map(str::to_owned).collect()) }
    }
}

impl HostReads {
    /// Whether nothing of a host is read, so that all hosts with the same values share one outcome.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Adds to `out` what is read of one host: the same bytes for two hosts only if a template cannot tell them apart by
    /// their names, labels and facts.
    pub fn signature(&self, name: &str, labels: &Labels, facts: &Facts, out: &mut Vec<u8>) {
        if self.name {
            text(name, out);
        }
        match &self.labels {
            KeysRead::None => {}
            KeysRead::Some(keys) => keys.iter().for_each(|key| maybe(labels.get(key), text, out)),
            KeysRead::All => {
                labels.iter().for_each(|(key, value)| maybe(Some((key, value)), pair, out));
                maybe(None, pair, out);
            }
        }
        match &self.facts {
            KeysRead::None => {}
            KeysRead::Some(keys) => keys.iter().for_each(|key| maybe(facts.get(key), json, out)),
            KeysRead::All => {
                for (key, value) in facts {
                    maybe(Some(key.as_str()), text, out);
                    json(value, out);
                }
                maybe(None, text, out);
            }
        }
    }
}

/// Adds whether there is something, and what.
fn maybe<T>(value: Option<T>, write: impl Fn(T, &mut Vec<u8>), out: &mut Vec<u8>) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        write(value, out);
    }
}

fn text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn pair((key, value): (&str, &str), out: &mut Vec<u8>) {
    text(key, out);
    text(value, out);
}

fn json(value: &Value, out: &mut Vec<u8>) {
    text(&value.to_string(), out);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::render::lexer;

    fn reads(source: &str) -> Reads {
        Reads::of(&lexer::code(source).expect("code"))
    }

    fn some(keys: &[&str]) -> KeysRead {
        KeysRead::Some(keys.iter().map(|key| (*key).to_owned()).collect())
    }

    #[test]
    fn what_is_named_is_read_and_nothing_else() {
        let reads = reads("{{ host.labels.zone }}{{ host.labels['x/y'].z }}{{ host.facts.arch }}{{ values.a }}");
        let host = HostReads { name: false, labels: some(&["x/y", "zone"]), facts: some(&["arch"]), everything: false };
        assert_eq!(reads.host(), host);
        assert!(reads.sees_values() && !reads.sees_release() && !host.is_none());
        let reads = self::reads("{{ release.number }}{{ deployment.name }}");
        assert!(reads.host().is_none() && reads.sees_release() && !reads.sees_values());
    }

    #[test]
    fn what_is_worked_out_while_rendering_may_be_anything() {
        for source in ["{{ host }}", "{{ host[values.a] }}", "{% for x in [host] %}{% endfor %}", "{{ host.nmae }}"] {
            let host = reads(source).host();
            assert!(host.everything && host.name, "{source}");
            assert_eq!((host.labels, host.facts), (KeysRead::All, KeysRead::All), "{source}");
        }
        for source in ["{{ host.labels }}", "{{ host.labels[values.a] }}", "{{ host.labels.items() }}"] {
            let host = reads(source).host();
            assert_eq!((host.name, host.labels, host.facts), (false, KeysRead::All, KeysRead::None), "{source}");
        }
    }

    #[test]
    fn a_signature_tells_apart_what_a_projection_does() {
        let labels = ["", "a=b", "a=b,c=d", "c=d", "a=c"].map(|list| Labels::parse_list(list).expect("labels"));
        let facts = [json!({}), json!({"m": 1}), json!({"m": 1.0}), json!({"m": "1"}), json!({"n": 1})];
        let facts = facts.map(|facts| serde_json::from_value::<Facts>(facts).expect("facts"));
        let hosts: Vec<_> = ["a", "b"]
            .into_iter()
            .flat_map(|name| labels.iter().flat_map(move |labels| [(name, labels)]))
            .flat_map(|(name, labels)| facts.iter().map(move |facts| (name, labels, facts)))
            .collect();
        for source in [
            "x",
            "{{ host.name }}",
            "{{ host.labels.a }}{{ host.facts.m }}",
            "{{ host.labels }}{{ host.facts.m }}",
            "{{ host.facts }}{{ host.labels.c }}",
            "{{ host }}",
        ] {
            let reads = reads(source);
            let told: Vec<_> = hosts
                .iter()
                .map(|(name, labels, facts)| {
                    let context = json!({"host": {"name": name, "labels": labels, "facts": facts}});
                    let mut signature = Vec::new();
                    reads.host().signature(name, labels, facts, &mut signature);
                    (serde_json::to_string(&reads.of_context(&context)).expect("json"), signature)
                })
                .collect();
            for (first, a) in &told {
                for (second, b) in &told {
                    assert_eq!(first == second, a == b, "{source}: {first} {second}");
                }
            }
        }
    }
}
