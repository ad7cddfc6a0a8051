//! The programs behind Compose: Compose itself, and the engine whose containers it makes. Both are run as they are, with
//! arguments and without a shell.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use titan_api::Digest;
use uuid::Uuid;

use crate::commands::{Ended, Order};

/// How long the engine may take to tell something.
const LOOK: Duration = Duration::from_secs(5);
/// How long the program that tells of events runs before it is started anew.
const FOLLOW: Duration = Duration::from_hours(24);
/// What a line of ours begins with, among whatever else is printed.
const SIGN: &str = "titan|";
const FORMAT: &str = "titan|{{.ID}}|{{.Names}}|{{.Status}}|{{.Labels}}";

/// How to run Compose and its engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Engine {
    /// Compose: program and first arguments.
    compose: Vec<String>,
    /// The engine: program and first arguments.
    engine: Vec<String>,
    /// Whether Compose has to be told to make containers anew: podman's does not see every change.
    pub(super) forced: bool,
}

/// A container of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) name: String,
    /// For people, such as `Up 2 minutes (healthy)` or `Exited (1) 3 seconds ago`.
    pub(super) status: String,
    labels: String,
}

impl Engine {
    /// Returns how to run what the owner configured: the engine is `docker` where that is what Compose is of, and else
    /// `podman`, behind the same words.
    pub(super) fn of(command: &[String]) -> Option<Self> {
        let base = |word: &String| Path::new(word).file_name().map(|name| name.to_string_lossy().into_owned());
        let programs = ["podman-compose", "docker-compose", "podman", "docker"];
        let at = command.iter().position(|word| base(word).is_some_and(|name| programs.contains(&name.as_str())));
        let at = at.unwrap_or(0);
        let program = base(command.get(at)?)?;
        let engine = match program.as_str() {
            // Its own options come before the word `compose`.
            "podman" | "docker" => command.iter().take_while(|word| *word != "compose").cloned().collect(),
            name => {
                let name = if name.contains("docker") { "docker" } else { "podman" };
                command[..at].iter().cloned().chain([name.to_owned()]).collect()
            }
        };
        Some(Self { compose: command.to_vec(), engine, forced: !program.contains("docker") })
    }

    /// Runs Compose for a project, and returns what it printed: some versions go on after an error, and end with 0.
    pub(super) async fn compose(
        &self,
        file: &Path,
        project: &str,
        arguments: &[&str],
        timeout: Duration,
    ) -> Result<String, String> {
        let file_text = file.to_string_lossy();
        let words = ["-f", &file_text, "-p", project];
        let words = self.compose.iter().map(String::as_str).chain(words).chain(arguments.iter().copied());
        let ended = run(words, file.parent().unwrap_or(Path::new("/")), timeout).await;
        ended.failure().map_or(Ok(ended.output), Err)
    }

    async fn engine(&self, arguments: &[&str], timeout: Duration) -> Result<String, String> {
        let words = self.engine.iter().map(String::as_str).chain(arguments.iter().copied());
        let ended = run(words, Path::new("/"), timeout).await;
        match ended.failure() {
            None => Ok(ended.output),
            Some(failure) => Err(failure),
        }
    }

    /// Returns the containers of a project.
    pub(super) async fn containers(&self, project: &str) -> Result<Vec<Container>, String> {
        let filter = format!("label=com.docker.compose.project={project}");
        let out = self.engine(&["ps", "-a", "--no-trunc", "--filter", &filter, "--format", FORMAT], LOOK).await?;
        Ok(out.lines().filter_map(Container::read).collect())
    }

    /// Runs the program that tells of containers, from now on; `hear` gets what it writes.
    pub(super) async fn events(&self, hear: &mut (dyn FnMut(&[u8]) + Send)) -> Ended {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().to_string();
        let arguments = ["events", "--since", &now, "--filter", "type=container", "--format", "{{json .}}"];
        let words = self.engine.iter().map(String::as_str).chain(arguments);
        order(words, Path::new("/"), FOLLOW).follow(hear).await
    }

    /// Whether an image is there.
    pub(super) async fn has(&self, image: &str) -> bool {
        let out = self.engine(&["image", "inspect", "--format", "titan|{{.Id}}", image], LOOK).await;
        out.is_ok_and(|out| out.lines().any(|line| line.starts_with(SIGN)))
    }

    /// Pulls an image.
    pub(super) async fn pull(&self, image: &str, timeout: Duration) -> Result<(), String> {
        self.engine(&["pull", "-q", image], timeout).await.map(drop)
    }

    /// Returns the last that a container wrote.
    pub(super) async fn said(&self, container: &Container) -> String {
        self.engine(&["logs", "--tail", "100", &container.id], LOOK).await.unwrap_or_default()
    }

    /// Stops and removes containers, without Compose.
    pub(super) async fn remove(&self, containers: &[Container], timeout: Duration) -> Result<(), String> {
        let ids: Vec<&str> = containers.iter().map(|container| container.id.as_str()).collect();
        if ids.is_empty() {
            return Ok(());
        }
        self.engine(&[&["stop"], ids.as_slice()].concat(), timeout).await?;
        self.engine(&[&["rm"], ids.as_slice()].concat(), timeout).await.map(drop)
    }
}

async fn run<'a>(words: impl Iterator<Item = &'a str>, directory: &Path, timeout: Duration) -> Ended {
    order(words, directory, timeout).run().await
}

fn order<'a>(mut words: impl Iterator<Item = &'a str>, directory: &Path, timeout: Duration) -> Order {
    // An engine has a program, see [`Engine::of`].
    let program = words.next().unwrap_or_default();
    Order::tool(program, words.map(str::to_owned).collect(), directory, timeout)
}

impl Container {
    fn read(line: &str) -> Option<Self> {
        let mut parts = line.strip_prefix(SIGN)?.splitn(4, '|').map(str::to_owned);
        let mut next = || parts.next();
        Some(Self { id: next()?, name: next()?, status: next()?, labels: next()? })
    }

    /// Returns a label's value. Engines print all of them in a row, as `a=b,c=d` or `map[a:b c:d]`.
    fn label(&self, key: &str) -> Option<&str> {
        let is_edge = |before: Option<char>| before.is_none_or(|c| matches!(c, ',' | ' ' | '['));
        let (start, _) = self.labels.match_indices(key).find(|(at, _)| {
            let follows = self.labels[at + key.len()..].starts_with(['=', ':']);
            follows && is_edge(self.labels[..*at].chars().next_back())
        })?;
        let value = &self.labels[start + key.len() + 1..];
        Some(&value[..value.find([',', ' ', ']']).unwrap_or(value.len())])
    }

    /// Returns its service.
    pub(super) fn service(&self) -> Option<&str> {
        self.label("com.docker.compose.service")
    }

    /// Whether it is this deployment's, under this assignment or under another of the same name.
    pub(super) fn is_of(&self, id: Uuid, home: &str) -> bool {
        self.label(super::DEPLOYMENT).is_some_and(|label| label == id.to_string())
            || self.label(super::HOME).is_some_and(|label| label == home)
    }

    /// Whether it was made from what has this digest.
    pub(super) fn fits(&self, digest: &Digest) -> bool {
        self.label(super::DIGEST).is_some_and(|label| label == super::short(digest))
    }

    /// Returns `running`, `paused`, `exited` or another word: the engines have different ones for the same, but what they
    /// tell people is alike.
    pub(super) fn state(&self) -> &str {
        match self.status.split(' ').next().unwrap_or_default() {
            _ if self.status.to_ascii_lowercase().contains("paused") => "paused",
            "Up" => "running",
            "Exited" => "exited",
            other => other,
        }
    }

    /// Returns the code with which it ended, if it did.
    pub(super) fn code(&self) -> Option<i32> {
        let (_, rest) = self.status.split_once("Exited (")?;
        rest.split_once(')')?.0.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn the_engine_follows_from_the_command() {
        for (command, engine) in [
            ("podman-compose", "podman"),
            ("/usr/bin/podman-compose", "podman"),
            ("docker-compose", "docker"),
            ("docker compose", "docker"),
            ("docker --host unix:///x compose --ansi never", "docker --host unix:///x"),
            ("env CONTAINER_HOST=unix:///x podman-compose", "env CONTAINER_HOST=unix:///x podman"),
        ] {
            assert_eq!(Engine::of(&words(command)).expect(command).engine, words(engine), "{command}");
        }
        assert_eq!(Engine::of(&[]), None);
    }

    #[test]
    fn containers_are_read_as_either_engine_prints_them() {
        for labels in [
            "map[com.docker.compose.project:p com.docker.compose.service:web titan.home:default/one]",
            "com.docker.compose.project=p,com.docker.compose.service=web,titan.home=default/one",
        ] {
            let line = format!("titan|abc|p_web_1|Exited (3) 2 seconds ago|{labels}");
            let container = Container::read(&line).expect("container");
            assert_eq!((container.service(), container.state(), container.code()), (Some("web"), "exited", Some(3)));
            assert!(container.is_of(Uuid::nil(), "default/one") && !container.is_of(Uuid::nil(), "default/two"));
        }
        let state =
            |status: &str| Container::read(&format!("titan|a|b|{status}|")).expect("container").state().to_owned();
        let states =
            ["Up 2 minutes", "Up 2 minutes ago (healthy)", "Up 2 minutes (Paused)", "Paused", "Created"].map(state);
        assert_eq!(states, ["running", "running", "paused", "paused", "Created"]);
        assert_eq!(Container::read("podman version 4"), None);
    }
}
