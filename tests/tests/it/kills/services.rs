//! Deployments whose every file says of which release it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::Path,
};

use serde_json::{Value, json};
use titan_api::{Kind, client::WriteOptions};
use titan_tests::{
    dice::Dice,
    manifests::{deployment, template},
    worlds::World,
};

/// What somebody writes over a file.
const DRIFT: &str = "drift\n";
/// Lines of the large file.
const LINES: usize = 4000;

/// One deployment, and what it was declared to be so far.
pub(super) struct Service {
    pub(super) name: &'static str,
    /// The number that is declared; absent if the deployment is.
    pub(super) declared: Option<u64>,
    /// Whether somebody had a hand in its files since they were seen whole.
    pub(super) drifted: bool,
    log: String,
    newest: u64,
    /// Numbers that can never be in place.
    refused: BTreeSet<u64>,
}

impl Service {
    pub(super) fn new(name: &'static str, log: &Path) -> Self {
        let log = log.display().to_string();
        Self { name, declared: None, drifted: false, log, newest: 0, refused: BTreeSet::new() }
    }

    /// Returns the template: some files of its own, one of which has another name in each release, and one elsewhere.
    pub(super) fn template(&self) -> Value {
        let (name, log) = (self.name, &self.log);
        let manifest = format!(
            "files: {{ conf-{name}: {{ destination: etc }} }}
health:
  interval: 100ms
  timeout: 1s
  failureThreshold: 2
  deadline: '{{{{ values.deadline }}}}'
  probes: [{{ file: {{ path: '{{{{ values.proof }}}}' }} }}]
hooks:
  preApply: {{ command: [/bin/sh, -c, '{{{{ values.check }}}}'] }}
  postApply: {{ command: [/bin/sh, -c, 'echo after {name} >>{log}'] }}
  onRemove: {{ command: [/bin/sh, -c, 'echo farewell {name} >>{log}'] }}
"
        );
        let line = format!("{name} {{{{ values.number }}}}\n");
        let large = format!("{{% for _ in range({LINES}) %}}{line}{{% endfor %}}");
        let conf = format!("conf-{name}.j2");
        let files = [
            ("template.yaml", manifest.as_str()),
            ("number.j2", &line),
            ("sub/large.j2", &large),
            ("only-{{ values.number }}.j2", &line),
            (conf.as_str(), &line),
        ];
        template(&format!("t-{name}"), &files)
    }

    /// Returns what the files of a release say.
    pub(super) fn line(&self, number: u64) -> String {
        format!("{} {number}\n", self.name)
    }

    fn own(&self, number: u64) -> BTreeMap<String, String> {
        let (line, name) = (self.line(number), self.name);
        let file = |path: &str, text: String| (format!("default/{name}/{path}"), text);
        [file("number", line.clone()), file("sub/large", line.repeat(LINES)), file(&format!("only-{number}"), line)]
            .into()
    }

    fn elsewhere(&self) -> String {
        format!("etc/conf-{}", self.name)
    }

    /// Declares the next release: one that is `good`, one that proves bad, or one that its own hook refuses.
    pub(super) async fn release(&mut self, world: &World, kind: &str) -> anyhow::Result<()> {
        self.newest += 1;
        // What is good has time to prove it, however busy the machine is.
        let (proof, deadline) = if kind == "unproven" { ("missing", "1s") } else { ("number", "5m") };
        let check =
            format!("echo before {} >>{}; {}", self.name, self.log, if kind == "refused" { "false" } else { ":" });
        let values =
            json!({ "values": { "number": self.newest, "proof": proof, "deadline": deadline, "check": check } });
        world.apply([deployment(self.name, "w", &format!("t-{}", self.name), "all", &values)]).await?;
        self.declared = Some(self.newest);
        if kind == "refused" {
            self.refused.insert(self.newest);
        }
        Ok(())
    }

    /// Deletes the deployment, if it is declared.
    pub(super) async fn remove(&mut self, world: &World) -> anyhow::Result<()> {
        if self.declared.take().is_some() {
            let options = WriteOptions::default();
            world.admin.delete(Kind::Deployment, Some("default"), self.name, false, &options).await?;
        }
        Ok(())
    }

    /// Writes over a file that is there, or removes it.
    pub(super) fn drift(&mut self, root: &Path, dice: &mut Dice) -> anyhow::Result<()> {
        let number = dice.roll(self.newest + 1);
        let own = [format!("default/{}/only-{number}", self.name), format!("default/{}/number", self.name)];
        let path = root.join([&own[0], &own[1], &self.elsewhere()][dice.pick(3)]);
        self.drifted = true;
        if dice.roll(2) == 0 {
            if let Ok(mut file) = fs::OpenOptions::new().write(true).truncate(true).open(path) {
                file.write_all(DRIFT.as_bytes())?;
            }
        } else {
            let _not_there = fs::remove_file(path);
        }
        Ok(())
    }

    fn numbers(&self) -> impl Iterator<Item = u64> {
        (1..=self.newest).filter(|number| !self.refused.contains(number))
    }

    /// Fails unless the deployment's own directory holds all files of one release and no other, or none. `going`: where files
    /// of the owner are among them, the files of a removal go one by one.
    pub(super) fn check_own(&self, files: &BTreeMap<String, String>, going: bool, when: &str) {
        let home = format!("default/{}/", self.name);
        let mine = |path: &str| path.ends_with("/mine");
        let found: BTreeMap<_, _> = files.iter().filter(|(path, _)| path.starts_with(&home) && !mine(path)).collect();
        let shared = files.keys().any(|path| path.starts_with(&home) && mine(path));
        let whole = |number: u64| {
            let own = self.own(number);
            let same = |(path, text): (&&String, &&String)| {
                own.get(*path).is_some_and(|wanted| wanted == *text || (self.drifted && *text == DRIFT))
            };
            found.iter().all(same) && (found.len() == own.len() || self.drifted || (going && shared))
        };
        let brief = || found.iter().map(|(path, text)| (path, text.lines().next())).collect::<Vec<_>>();
        assert!(found.is_empty() || self.numbers().any(whole), "{when}: a mixture: {:?}", brief());
    }

    /// Fails unless all files of one release are owned and no other, or none.
    pub(super) fn check_owned(&self, owned: &[&str], when: &str) {
        let elsewhere = self.elsewhere();
        let owned: BTreeSet<_> = owned.iter().copied().collect();
        let whole = |number: u64| {
            let own = self.own(number);
            let own: BTreeSet<_> = own.keys().map(String::as_str).chain([elsewhere.as_str()]).collect();
            own == owned
        };
        assert!(owned.is_empty() || self.numbers().any(whole), "{when}: a mixture is owned: {owned:?}");
    }

    /// Fails unless every file is of the same release, and notes that nobody's hand is seen any more. No switch is under way.
    pub(super) fn see(&mut self, files: &BTreeMap<String, String>) {
        self.check_own(files, false, "at rest");
        let whole = |number: u64| self.is(number, files);
        let empty = !files.contains_key(&self.elsewhere()) && self.own(0).keys().all(|path| !files.contains_key(path));
        let in_order = empty || self.numbers().any(whole);
        assert!(in_order || self.drifted, "{}: what is elsewhere is of another release", self.name);
        self.drifted &= !in_order;
    }

    fn is(&self, number: u64, files: &BTreeMap<String, String>) -> bool {
        let line = self.line(number);
        let own = self.own(number);
        own.iter().all(|(path, text)| files.get(path) == Some(text)) && files.get(&self.elsewhere()) == Some(&line)
    }

    /// Whether what is declared is in place.
    pub(super) fn is_as_declared(&self, files: &BTreeMap<String, String>) -> bool {
        match self.declared {
            Some(number) => self.is(number, files),
            None => {
                !files.contains_key(&self.elsewhere()) && !files.contains_key(&format!("default/{}/number", self.name))
            }
        }
    }
}
