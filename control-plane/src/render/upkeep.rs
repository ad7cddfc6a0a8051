//! Upkeep: what a manifest says of health, hooks and drift, any text of which may hold expressions.
//!
//! Without expressions it is read once, when the template is written. With them it is checked then as far as can be told:
//! each text with code is taken to be something that fits. On each host the texts are rendered, and what comes out is read
//! as strictly.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use titan_api::{
    drift::DriftPolicy,
    health::Health,
    hooks::Hooks,
    parse,
    problems::Fault,
    templates::{MANIFEST, TemplateManifest},
};

use super::{
    engine::{self, Source},
    failure::Failure,
    manifest,
};

/// What the environment calls a text of the manifest, before its pointer. No file has a path with an empty part.
const NAME: &str = "template.yaml/";

/// What a bundle says beside its files.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upkeep {
    /// What has to hold for it to be healthy.
    pub health: Health,
    /// Commands around what the applier does.
    pub hooks: Hooks,
    /// What is done about drift.
    pub drift: DriftPolicy,
}

/// What a manifest says of upkeep, ready to be worked out for a host.
#[derive(Debug, Clone)]
pub struct Declared {
    tree: Value,
    /// Pointers to the texts that hold code.
    codes: Vec<String>,
    /// The manifest, to find lines in.
    text: String,
}

impl Declared {
    /// Returns what `manifest`, whose text is `text`, says of upkeep, or what is wrong with it.
    pub fn new(manifest: &TemplateManifest, text: &str) -> Result<Self, Failure> {
        let parts = [("health", &manifest.health), ("hooks", &manifest.hooks), ("drift", &manifest.drift)];
        let parts = parts.into_iter().filter_map(|(key, part)| Some((key.to_owned(), part.clone()?)));
        let tree = Value::Object(parts.collect::<Map<_, _>>());
        let mut codes = Vec::new();
        collect(&tree, "", &mut codes);
        let declared = Self { tree, codes, text: text.to_owned() };
        let mut tree = declared.tree.clone();
        for pointer in &declared.codes {
            put(&mut tree, pointer, stand_in(pointer));
        }
        declared.read(tree)?;
        Ok(declared)
    }

    /// Returns the texts that hold code as sources, or what is wrong with them.
    pub fn sources(&self) -> Result<Vec<Source>, Vec<Failure>> {
        let (mut sources, mut failures) = (Vec::new(), Vec::new());
        for pointer in &self.codes {
            let text = self.tree.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            match engine::code(text) {
                Ok(code) => {
                    let (name, text) = (format!("{NAME}{pointer}"), text.to_owned());
                    sources.push(Source { file: MANIFEST.to_owned(), name, text, code });
                }
                Err(error) => failures.push(self.at(pointer, &error.message)),
            }
        }
        if failures.is_empty() { Ok(sources) } else { Err(failures) }
    }

    /// Returns the upkeep of every host, if none of its texts holds code.
    pub fn fixed(&self) -> Result<Option<Upkeep>, Failure> {
        if self.codes.is_empty() { self.read(self.tree.clone()).map(Some) } else { Ok(None) }
    }

    /// Returns the upkeep of one host; `render` renders a text by what the environment calls it.
    pub fn on_host(&self, mut render: impl FnMut(&str) -> Result<String, Failure>) -> Result<Upkeep, Failure> {
        let mut tree = self.tree.clone();
        let mut left_out = BTreeSet::new();
        for pointer in &self.codes {
            let text = render(&format!("{NAME}{pointer}")).map_err(|failure| self.placed(failure))?;
            if let Some(index) = probe_about(pointer).filter(|_| text.trim().is_empty()) {
                left_out.insert(index);
                put(&mut tree, pointer, stand_in(pointer));
                continue;
            }
            let number = is_number(pointer).then(|| text.trim().parse::<u32>().ok()).flatten();
            put(&mut tree, pointer, number.map_or(Value::String(text), Value::from));
        }
        let mut upkeep = self.read(tree)?;
        // Last, so that what is wrong with another probe is told by its own number.
        let mut index = 0;
        upkeep.health.probes.retain(|_| {
            index += 1;
            !left_out.contains(&(index - 1))
        });
        Ok(upkeep)
    }

    /// Returns a failure with its place in the manifest, if it is about one of its texts.
    #[must_use]
    pub fn placed(&self, failure: Failure) -> Failure {
        match failure.file.strip_prefix(NAME) {
            Some(pointer) => Failure { missing: failure.missing.clone(), ..self.at(pointer, &failure.message) },
            None => failure,
        }
    }

    fn at(&self, pointer: &str, detail: &str) -> Failure {
        manifest::at(&self.text, pointer, detail)
    }

    fn read(&self, tree: Value) -> Result<Upkeep, Failure> {
        let fault = |fault: &Fault| self.at(&fault.pointer, &fault.detail);
        let upkeep: Upkeep = parse::from_value(tree).map_err(|found| fault(&found))?;
        let faults = upkeep.health.faults("/health").into_iter().chain(upkeep.hooks.faults("/hooks"));
        faults.take(1).map(|found| Err(fault(&found))).next().unwrap_or(Ok(upkeep))
    }
}

fn collect(value: &Value, pointer: &str, codes: &mut Vec<String>) {
    match value {
        Value::String(text) if engine::has_code(text) => codes.push(pointer.to_owned()),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| collect(item, &format!("{pointer}/{index}"), codes));
        }
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| collect(value, &format!("{pointer}/{}", parse::escape(key)), codes));
        }
        _ => {}
    }
}

fn put(tree: &mut Value, pointer: &str, value: Value) {
    if let Some(place) = tree.pointer_mut(pointer) {
        *place = value;
    }
}

fn key(pointer: &str) -> &str {
    pointer.rsplit('/').next().unwrap_or_default()
}

/// Returns the number of the probe of which `pointer` says what it asks: without that it is left out.
fn probe_about(pointer: &str) -> Option<usize> {
    let (index, rest) = pointer.strip_prefix("/health/probes/")?.split_once('/')?;
    matches!(rest, "http/url" | "tcp/address" | "file/path").then(|| index.parse().ok()).flatten()
}

fn is_number(pointer: &str) -> bool {
    matches!(key(pointer), "failureThreshold" | "minReadySeconds" | "status")
}

/// Returns something that a text with code may come out as: what fits most of what may stand beside it.
fn stand_in(pointer: &str) -> Value {
    match key(pointer) {
        "initialDelay" => "0s".into(),
        "interval" | "timeout" | "maxAge" => "1s".into(),
        "deadline" => "24h".into(),
        "minReadySeconds" => 0.into(),
        "failureThreshold" => 1.into(),
        "status" => 200.into(),
        "url" => "http://localhost/".into(),
        "address" => "localhost:1".into(),
        "drift" => "enforce".into(),
        _ => "x".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::manifest as manifests;

    fn declared(text: &str) -> Result<Declared, String> {
        let manifest = manifests::read(text).map_err(|failure| failure.to_string())?;
        Declared::new(&manifest, text).map_err(|failure| failure.to_string())
    }

    #[test]
    fn what_cannot_fit_is_refused_when_the_template_is_written() {
        for (text, expected) in [
            (
                "health:\n  intervall: 1s\n",
                "/health/intervall: unknown key \"intervall\", did you mean \"interval\"? known are initialDelay, interval, timeout, failureThreshold, minReadySeconds, deadline, probes in template.yaml line 2",
            ),
            (
                "health:\n  probes:\n    - tcp: {address: 'a:1'}\n    - http:\n        url: 'ftp://{a}'\n",
                "/health/probes/1/http/url: \"ftp://{a}\" is not a URL that begins with http:// or https:// in template.yaml line 5",
            ),
            (
                "health:\n  deadline: '{{ values.deadline }}'\n  interval: 1d\n",
                "/health/interval: \"1d\" is not a length of time such as \"30s\"; units are ms, s, m and h in template.yaml line 3",
            ),
            (
                "health:\n  probes:\n  - exec:\n      command: ['{{ values.a }}']\n      comand: []\n",
                "/health/probes/0/exec/comand: unknown key \"comand\", did you mean \"command\"? in template.yaml line 5",
            ),
            (
                "hooks:\n  preApply:\n    command: []\n",
                "/hooks/preApply/command: a command names a program in template.yaml line 3",
            ),
            ("drift: fix\n", "/drift: unknown value \"fix\", known are enforce, report, once in template.yaml line 1"),
            (
                "health:\n  minReadySeconds: 400\n",
                "/health/deadline: it can never be healthy by then: initialDelay and minReadySeconds take 400s in template.yaml line 1",
            ),
        ] {
            assert_eq!(declared(text).expect_err(text), expected);
        }
        let code = declared("health:\n  deadline: 2m\n  interval: '{{ a'\n").expect("declared");
        assert_eq!(
            code.sources().expect_err("code")[0].to_string(),
            "/health/interval: code is not closed in template.yaml line 3"
        );
    }

    #[test]
    fn numbers_and_all_else_may_come_out_of_expressions() {
        let text = "health:\n  minReadySeconds: '{{ a }}'\n  deadline: '{{ b }}'\n  probes:\n    - http: {url: 'http://{{ c }}/', status: '{{ d }}'}\n";
        let declared = declared(text).expect("declared");
        assert_eq!(declared.sources().expect("sources").len(), 4);
        let of = |texts: [&str; 4]| {
            let render = |name: &str| {
                let place = ["minReadySeconds", "deadline", "url", "status"].iter().position(|key| name.ends_with(key));
                Ok(texts[place.expect("place")].to_owned())
            };
            declared.on_host(render).map_err(|failure| failure.to_string())
        };
        let upkeep = of([" 7\n", "2m", "http://a:1/", "204"]).expect("upkeep");
        assert_eq!((upkeep.health.min_ready_seconds, upkeep.health.probes.len()), (7, 1));
        assert_eq!(
            of(["7.5", "2m", "http://a:1/", "204"]).expect_err("fraction"),
            "/health/minReadySeconds: invalid type: string \"7.5\", expected u32 in template.yaml line 2"
        );
        assert_eq!(
            of(["7", "7s", "http://a:1/", "204"]).expect_err("deadline"),
            "/health/deadline: it can never be healthy by then: initialDelay and minReadySeconds take 7s in template.yaml line 3"
        );
        assert!(of(["7", "2m", "http:///", "204"]).expect_err("url").starts_with("/health/probes/0/http/url: "));
    }

    #[test]
    fn probe_that_asks_nothing_on_a_host_is_left_out_there() {
        let text = "health:\n  probes:\n    - tcp: {address: '{{ a }}'}\n    - file: {path: b, contains: '{{ c }}'}\n    - http: {url: '{{ d }}'}\n";
        let declared = declared(text).expect("declared");
        let of = |texts: [&str; 3]| {
            let render = |name: &str| {
                let place = ["address", "contains", "url"].iter().position(|key| name.ends_with(key));
                Ok(texts[place.expect("place")].to_owned())
            };
            declared.on_host(render).map_err(|failure| failure.to_string())
        };
        let upkeep = of(["", "x", " \n"]).expect("upkeep");
        assert!(matches!(upkeep.health.probes.as_slice(), [titan_api::health::Probe::File(_)]));
        assert_eq!(of(["a:1", "x", "http://a"]).expect("upkeep").health.probes.len(), 3);
        assert!(of(["", "", "http://a"]).expect_err("contains").starts_with("/health/probes/1/file/contains: "));
        assert!(of(["", "x", "a"]).expect_err("url").starts_with("/health/probes/2/http/url: "));
    }

    #[test]
    fn nothing_declared_is_what_holds_unless_told() {
        for text in ["", "health: {}\nhooks: {}\ndrift: enforce\n", "health:\n  interval: 10s\nhooks:\n"] {
            let upkeep = declared(text).expect(text).fixed().expect("read").expect("fixed");
            assert_eq!(upkeep, Upkeep::default(), "{text}");
        }
    }
}
