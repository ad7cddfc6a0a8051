//! Crowds: many real agents in this process, each with directories of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;
use titan_agent::{Agent, Settings, config::Secret};
use titan_api::{
    Name,
    client::{Client, WriteOptions},
    enrolment::EnrolmentTokenRequest,
    hosts::BulkCreate,
};
use tokio::{runtime::Runtime, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::manifests;

/// Threads that agents share, and how many of them may be applying something at a time.
const THREADS: usize = 2;
const APPLYING: usize = 8;
/// The longest pause of an agent that cannot reach its control plane.
const BACKOFF: Duration = Duration::from_millis(500);
/// How often it is looked what the hosts have.
const LOOK: Duration = Duration::from_millis(20);

/// Agents of many hosts.
#[derive(Debug)]
pub struct Crowd {
    /// Where agents ask; an agent that is started later asks there.
    pub server: String,
    folder: TempDir,
    runtime: Option<Runtime>,
    running: BTreeMap<String, (CancellationToken, JoinHandle<()>)>,
}

impl Crowd {
    /// Declares the hosts `<prefix>00`, `<prefix>01` and so on, `count` of them, enrols them at `server` and starts their
    /// agents.
    pub async fn join(admin: &Client, server: &str, prefix: &str, count: usize) -> anyhow::Result<Self> {
        let names: Vec<_> = (0..count).map(|number| format!("{prefix}{number:02}")).collect();
        let hosts = names.iter().map(|name| manifests::host(name, "")).collect();
        admin.bulk_create(&BulkCreate { hosts, reason: None }, &WriteOptions::default()).await?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(APPLYING)
            .thread_name("agents")
            .enable_all()
            .build()?;
        let shared = Path::new("/dev/shm");
        let parent = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
        let folder = TempDir::with_prefix_in("titan-crowd-", parent)?;
        let mut crowd = Self { server: server.to_owned(), folder, runtime: Some(runtime), running: BTreeMap::new() };
        for name in names {
            std::fs::create_dir(crowd.folder(&name))?;
            let host: Name = name.parse()?;
            let request = EnrolmentTokenRequest { host: host.clone(), ttl_seconds: None };
            let token = Secret::new(admin.enrolment_token(&request).await?.token);
            titan_agent::enrol(&crowd.settings(&name), server, &host, &token).await?;
            crowd.start(&name)?;
        }
        Ok(crowd)
    }

    /// Returns the directory of a host, in which its agent has `state` and `root`.
    #[must_use]
    pub fn folder(&self, host: &str) -> PathBuf {
        self.folder.path().join(host)
    }

    /// Returns the directory in which hosts have theirs.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    fn settings(&self, host: &str) -> Settings {
        let own = self.folder(host);
        let mut settings = Settings::new(own.join("state"));
        settings.server = Some(self.server.clone());
        settings.git = None;
        settings.polling.max_backoff = BACKOFF;
        if let Some(files) = &mut settings.files {
            files.root = own.join("root");
        }
        settings
    }

    /// Starts the agent of a host that has enrolled.
    pub fn start(&mut self, host: &str) -> anyhow::Result<()> {
        let runtime = self.runtime.as_ref().context("the crowd is there")?;
        let settings = self.settings(host);
        let mut agent = Agent::open(settings, runtime.handle()).with_context(|| format!("the agent of {host}"))?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = runtime.spawn(async move { agent.run(stopped).await });
        self.running.insert(host.to_owned(), (stop, task));
        Ok(())
    }

    /// Ends the agent of a host in good order.
    pub async fn stop(&mut self, host: &str) -> anyhow::Result<()> {
        let (stop, task) = self.running.remove(host).with_context(|| format!("{host} has no agent"))?;
        stop.cancel();
        Ok(task.await?)
    }

    /// Ends all agents in good order.
    pub async fn leave(mut self) -> anyhow::Result<()> {
        self.running.values().for_each(|(stop, _)| stop.cancel());
        for (_, task) in std::mem::take(&mut self.running).into_values() {
            task.await?;
        }
        Ok(())
    }

    /// Returns the hosts whose agents run.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.running.keys().map(String::as_str)
    }

    /// Returns the first line of a file of each host that has it, the path being below the root, and when it was made.
    pub fn lines(&self, path: &str) -> anyhow::Result<BTreeMap<String, (String, SystemTime)>> {
        let mut lines = BTreeMap::new();
        for entry in std::fs::read_dir(self.folder.path())? {
            let entry = entry?;
            let found = line(&entry.path().join("root").join(path));
            lines.extend(found.map(|found| (entry.file_name().to_string_lossy().into_owned(), found)));
        }
        Ok(lines)
    }

    /// Returns how many hosts have which first line of a file.
    pub fn count(&self, path: &str) -> anyhow::Result<BTreeMap<String, usize>> {
        let mut counts = BTreeMap::new();
        for (line, _) in self.lines(path)?.into_values() {
            *counts.entry(line).or_default() += 1;
        }
        Ok(counts)
    }

    /// Starts to watch a file of every host.
    #[must_use]
    pub fn witness(&self, path: &str) -> Witness {
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let noted = Arc::clone(&seen);
        let files: Vec<_> =
            self.hosts().map(|host| (host.to_owned(), self.folder(host).join("root").join(path))).collect();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        // A thread of its own: it is to see what happens while everything else is busy.
        let thread = std::thread::spawn(move || {
            while !stopped.is_cancelled() {
                for (host, file) in &files {
                    if let Some((line, at)) = line(file) {
                        let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
                        if !noted.contains(&(at, host.clone(), line.clone())) {
                            noted.insert((at, host.clone(), line));
                        }
                    }
                }
                std::thread::sleep(LOOK);
            }
        });
        Witness { seen, stop, thread: Some(thread) }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.running.values().for_each(|(stop, _)| stop.cancel());
        if let Some(runtime) = self.runtime.take() {
            // A runtime cannot be waited for inside another one.
            runtime.shutdown_background();
        }
    }
}

/// Returns the first line of a file and when the file was made. One that is exchanged meanwhile is read anew next time.
fn line(file: &Path) -> Option<(String, SystemTime)> {
    let at = std::fs::metadata(file).ok()?.modified().ok()?;
    let text = std::fs::read_to_string(file).ok()?;
    (std::fs::metadata(file).ok()?.modified().ok()? == at)
        .then(|| (text.lines().next().unwrap_or_default().to_owned(), at))
}

/// What hosts had in a file, in the order of time.
#[derive(Debug)]
pub struct Witness {
    seen: Arc<Mutex<BTreeSet<(SystemTime, String, String)>>>,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Witness {
    /// Returns when which hosts came to have `line`.
    #[must_use]
    pub fn times(&self, line: &str) -> Vec<(SystemTime, String)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|(_, _, found)| found == line).map(|(at, host, _)| (*at, host.clone())).collect()
    }

    /// Returns the hosts that ever had `line`.
    #[must_use]
    pub fn ever(&self, line: &str) -> BTreeSet<String> {
        self.times(line).into_iter().map(|(_, host)| host).collect()
    }

    /// Returns how many of `hosts` came to have `line` within one `span` of time, at most.
    #[must_use]
    pub fn most_within(&self, line: &str, span: Duration, hosts: impl Fn(&str) -> bool) -> usize {
        let times: Vec<_> = self.times(line).into_iter().filter(|(_, host)| hosts(host)).map(|(at, _)| at).collect();
        let within = |(index, first): (usize, &SystemTime)| {
            times[index..].iter().take_while(|at| at.duration_since(*first).is_ok_and(|since| since < span)).count()
        };
        times.iter().enumerate().map(within).max().unwrap_or_default()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// Fails unless a file of every host of a crowd says one thing.
pub fn all_have(crowd: &Crowd, path: &str, line: &str) -> anyhow::Result<()> {
    let counts = crowd.count(path)?;
    ensure!(counts.len() == 1 && counts.contains_key(line), "not all have {line}: {counts:?}");
    Ok(())
}
