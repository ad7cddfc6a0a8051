//! Law 7 by chance: an agent is killed at any instant while bundles change, drift, fail and go. `TITAN_KILLS` says how often,
//! `TITAN_SEED` repeats a history as far as the machine's timing lets it.

mod services;

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use serde_json::json;
use titan_agent::ledger::Ledger;
use titan_api::Digest;
use titan_tests::{
    agents::AgentNode,
    dice::Dice,
    manifests::{deployment, host, target, template, workload},
    nodes::Running,
    worlds::{World, until},
};

use self::services::Service;
use crate::outages::join;

/// How often the agent is killed unless told.
const KILLS: u64 = 100;
/// The most that a replay of the journal may take, the start of a debug build included, in the middle of all.
const REPLAY: Duration = Duration::from_secs(1);
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the owner of the host put there: nobody touches it, though one of them is where a bundle wants to be, and one among
/// files of a deployment.
const FOREIGN: [&str; 4] = ["etc/wanted", "etc/other", "default/a/mine", "default/b/sub/mine"];

/// A control plane, the host's agent, and what is known of both.
struct Scene {
    world: World,
    agent: AgentNode,
    services: Vec<Service>,
    log: std::path::PathBuf,
    dice: Dice,
    seed: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_killed_at_any_instant_is_on_the_old_or_the_new_bundle_and_forgets_nothing() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let kills = number("TITAN_KILLS").unwrap_or(KILLS);
    let seed = number("TITAN_SEED").unwrap_or_else(|| std::process::id().into());
    let mut scene = Scene::new(seed).await;
    let mut running = scene.agent.run().expect("running");
    let mut replays = Vec::new();
    for kill in 0..kills {
        let when = format!("seed {seed}, kill {kill}");
        scene.stir(&when).await;
        scene.choose_an_instant();
        assert!(running.is_running(), "{when}: it ended by itself: {:?}", running.wait(Duration::ZERO));
        running.kill().expect("killed");
        scene.check_instant(&when);
        let journal = scene.journal();
        let begun = Instant::now();
        running = scene.agent.run().expect("running");
        if journal.is_some() {
            while scene.journal() == journal {
                assert!(begun.elapsed() < PATIENCE, "{when}: the switch is brought neither forward nor back");
                std::thread::sleep(Duration::from_millis(1));
            }
            replays.push(begun.elapsed());
        }
        scene.check_at_rest(&mut running, &when);
    }
    scene.come_to_an_end(&mut running).await;
    replays.sort();
    assert!(kills < KILLS || !replays.is_empty(), "no kill met a switch");
    if let Some(longest) = replays.last() {
        let middle = replays[replays.len() / 2];
        eprintln!("{kills} kills, {} in a switch; replayed within {middle:?}, at most {longest:?}", replays.len());
        assert!(middle < REPLAY, "{replays:?}");
    }
}

impl Scene {
    async fn new(seed: u64) -> Self {
        let agent = AgentNode::allowing(crate::NODE, "exec: { commands: [/bin/sh] }").expect("an agent");
        let log = agent.state().with_file_name("log");
        let world = World::start(crate::NODE).await.expect("a control plane");
        let services: Vec<_> = ["a", "b", "c", "d"].map(|name| Service::new(name, &log)).into();
        for path in FOREIGN {
            let path = agent.root().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, "the owner's\n").expect("written");
        }
        let rules = "files: { wanted: { destination: etc } }\n";
        let documents = [
            host("pi", ""),
            target("all", ""),
            workload("w", "1"),
            template("clash", &[("template.yaml", rules), ("wanted", "a deployment's\n"), ("plain", "x\n")]),
            deployment("clash", "w", "clash", "all", &json!({})),
        ];
        let templates = services.iter().map(Service::template);
        world.apply(documents.into_iter().chain(templates)).await.expect("written");
        join(&world.plane, &agent);
        Self { world, agent, services, log, dice: Dice::new(seed), seed }
    }

    /// Has one or two things happen: a release that is good, one that is bad, a removal, somebody's hand in the files.
    async fn stir(&mut self, when: &str) {
        for _ in 0..=self.dice.roll(2) {
            let index = self.dice.pick(self.services.len());
            let service = &mut self.services[index];
            match self.dice.roll(10) {
                0..5 => service.release(&self.world, "good").await,
                5 => service.release(&self.world, "unproven").await,
                6 => service.release(&self.world, "refused").await,
                7 => service.remove(&self.world).await,
                _ => service.drift(&self.agent.root(), &mut self.dice),
            }
            .unwrap_or_else(|error| panic!("{when}: {error:#}"));
        }
    }

    /// Waits for a moment of no particular kind, or for one in which a switch is under way.
    fn choose_an_instant(&mut self) {
        let most = [5, 60, 400, 1500][self.dice.pick(4)];
        if self.dice.roll(2) == 0 {
            let begun = Instant::now();
            while self.journal().is_none() && begun.elapsed() < Duration::from_millis(700) {
                std::thread::yield_now();
            }
            std::thread::sleep(Duration::from_micros(self.dice.roll(20_000)));
        } else {
            std::thread::sleep(Duration::from_micros(self.dice.roll(most * 1000)));
        }
    }

    fn journal(&self) -> Option<Vec<u8>> {
        fs::read(self.agent.state().join("journal.json")).ok()
    }

    /// Returns all files below the root but what is staged.
    fn files(&self) -> BTreeMap<String, String> {
        let mut files = self.agent.files().expect("files");
        files.retain(|path, _| !path.split('/').any(|part| part == ".titan"));
        files
    }

    /// Fails unless the directory of each deployment holds all of one bundle, or nothing.
    fn check_instant(&self, when: &str) {
        let files = self.files();
        for service in &self.services {
            service.check_own(&files, true, when);
        }
    }

    /// Stops the agent once no switch is under way, and fails unless all is in order. The agent goes on then.
    fn check_at_rest(&mut self, running: &mut Running, when: &str) {
        let begun = Instant::now();
        let journal = loop {
            assert!(running.is_running(), "{when}: it ended by itself: {:?}", running.wait(Duration::ZERO));
            running.pause().expect("paused");
            halted(running);
            let journal = self.journal();
            if journal.is_none() {
                break journal;
            }
            assert!(begun.elapsed() < PATIENCE, "{when}: a switch does not end");
            running.resume().expect("resumed");
            std::thread::sleep(Duration::from_millis(2));
        };
        assert!(journal.is_none(), "{when}");
        let mut files = self.files();
        for path in FOREIGN {
            assert_eq!(files.remove(path).as_deref(), Some("the owner's\n"), "{when}: {path} is the owner's");
        }
        let ledger = fs::read(self.agent.state().join("ledger.json")).unwrap_or_else(|_| b"{}".to_vec());
        let ledger: Ledger = serde_json::from_slice(&ledger).unwrap_or_else(|error| panic!("{when}: {error}"));
        assert!(!self.agent.state().join("stuck").exists(), "{when}: a switch is put aside");
        for entry in ledger.entries.values() {
            let drifted = self.services.iter().any(|service| service.drifted && service.name == entry.name.as_str());
            for (path, owned) in &entry.files {
                let found = files.remove(path);
                let same = found.as_ref().is_some_and(|text| Digest::of(text.as_bytes()) == owned.sha256);
                assert!(same || drifted, "{when}: {path} of {} is not as the ledger says: {found:?}", entry.name);
            }
        }
        assert!(files.is_empty(), "{when}: nobody owns {:?}", files.keys());
        for service in &mut self.services {
            let owned = ledger.entries.values().filter(|entry| entry.name.as_str() == service.name);
            let owned: Vec<_> = owned.flat_map(|entry| entry.files.keys().map(String::as_str)).collect();
            service.check_owned(&owned, when);
        }
        let files = self.files();
        self.services.iter_mut().for_each(|service| service.see(&files));
        running.resume().expect("resumed");
    }

    /// Declares what is good and removes one: all of it comes about, whatever was before.
    async fn come_to_an_end(&mut self, running: &mut Running) {
        let when = format!("seed {}, in the end", self.seed);
        for service in &mut self.services[..3] {
            service.release(&self.world, "good").await.expect("declared");
        }
        let gone = self.services.last_mut().expect("a service");
        gone.release(&self.world, "good").await.expect("declared");
        let name = gone.name;
        // Running agents see what is in place; this one begins anew, as after any restart.
        running.kill().expect("killed");
        *running = self.agent.run().expect("running");
        for turn in 0..2 {
            let begun = Instant::now();
            loop {
                self.check_at_rest(running, &when);
                let files = self.files();
                if self.services.iter().all(|service| service.is_as_declared(&files)) {
                    break;
                }
                let said = || (self.agent.status(), files.keys().cloned().collect::<Vec<_>>());
                assert!(begun.elapsed() < PATIENCE, "{when}, {turn}: {:?}", said());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            if turn == 0 {
                let farewells = self.farewells(name);
                let gone = self.services.last_mut().expect("a service");
                gone.remove(&self.world).await.expect("removed");
                until("the farewell", async || Ok((self.farewells(name) > farewells).then_some(())))
                    .await
                    .unwrap_or_else(|error| panic!("{when}: {error}"));
            }
        }
        for service in &self.services[..3] {
            let what = format!("default/{}/number", service.name);
            until(&format!("the commit of {what}"), async || {
                let committed = self.agent.committed(&what).unwrap_or_default();
                Ok((committed == service.declared.map(|number| service.line(number))).then_some(()))
            })
            .await
            .unwrap_or_else(|error| {
                panic!("{when}: {error}: {:?} {:?}", self.agent.committed(&what), self.agent.status())
            });
        }
        until("reports", async || {
            for service in &self.services[..3] {
                if !self.world.admin.deployment_status("default", service.name).await?.converged() {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
        .await
        .unwrap_or_else(|error| panic!("{when}: {error}"));
    }

    /// Returns how often the hook `onRemove` of a deployment has run.
    fn farewells(&self, name: &str) -> usize {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().filter(|line| *line == format!("farewell {name}")).count()
    }
}

/// Waits until a process that was asked to stand still does.
fn halted(running: &Running) {
    let stat = format!("/proc/{}/stat", running.id());
    let still = || {
        let stat = fs::read_to_string(&stat).unwrap_or_default();
        stat.rsplit(") ").next().is_none_or(|rest| rest.starts_with(['T', 'Z']))
    };
    while !still() {
        std::thread::yield_now();
    }
}
