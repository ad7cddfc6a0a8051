//! Commands that bundles bring with them: hooks and `exec` probes. None runs unless the host's owner allows it.
//!
//! A command is a program and its arguments, without a shell; in the deployment's own directory, with an environment that
//! holds nothing of the agent's, without input, as a group of processes of its own that never outlives it.

mod running;
mod tail;

use std::{
    fmt,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use titan_api::{
    health::{ExecProbe, Health, Probe},
    hooks::{Hook, Hooks},
    limits,
};

use crate::{
    apply::{ApplyError, Target},
    config::appliers::{Exec, HookKind, allows},
};

/// How long a hook may take unless it says.
const HOOK_TIMEOUT: Duration = Duration::from_mins(1);
/// Where programs that a command runs by name are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command that may be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    program: PathBuf,
    arguments: Vec<String>,
    home: PathBuf,
    environment: Vec<(&'static str, String)>,
    timeout: Duration,
}

/// How a command went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    /// How it ended.
    pub(crate) how: How,
    /// The last that it wrote, to standard output or error, at most [`limits::MESSAGE_BYTES`].
    pub(crate) output: String,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum How {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Signal(i32),
    /// It took longer than this and was ended.
    TimedOut(Duration),
    /// It could not be run; why.
    NotRun(String),
}

impl Ended {
    /// Returns why it did not succeed, with the last that it wrote, or `None` if it did.
    pub(crate) fn failure(&self) -> Option<String> {
        let how = match &self.how {
            How::Exited(0) => return None,
            how => how,
        };
        let output = self.output.trim_end();
        Some(if output.is_empty() { how.to_string() } else { format!("{how}:\n{output}") })
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "it ended with {code}"),
            Self::Signal(signal) => write!(f, "it was ended by signal {signal}"),
            Self::TimedOut(timeout) => write!(f, "it took longer than {timeout:?} and was ended"),
            Self::NotRun(why) => f.write_str(why),
        }
    }
}

impl Order {
    /// Returns the command of a hook, if the owner allows it.
    pub(crate) fn hook(
        target: &Target,
        home: &Path,
        kind: HookKind,
        hook: &Hook,
        allowed: Option<&Exec>,
    ) -> Result<Self, ApplyError> {
        let what = format!("the hook {}", kind.as_str());
        if allowed.is_some_and(|exec| !exec.hooks.contains(&kind)) {
            return Err(ApplyError::Beyond { what, key: "appliers.exec.hooks" });
        }
        let timeout = hook.timeout.map_or(HOOK_TIMEOUT, |span| span.0);
        Self::new(target, home, &what, kind.as_str(), &hook.command, timeout, allowed)
    }

    /// Returns the command of a probe, if the owner allows it.
    pub(crate) fn probe(
        target: &Target,
        home: &Path,
        probe: &ExecProbe,
        timeout: Duration,
        allowed: Option<&Exec>,
    ) -> Result<Self, ApplyError> {
        let what = "an exec probe";
        if allowed.is_some_and(|exec| !exec.probes) {
            return Err(ApplyError::Beyond { what: what.to_owned(), key: "appliers.exec.probes" });
        }
        Self::new(target, home, what, "probe", &probe.command, timeout, allowed)
    }

    /// Returns a program of the host's own, which the owner configured, in `directory`. One without a path is looked for
    /// where programs are.
    pub(crate) fn tool(program: &str, arguments: Vec<String>, directory: &Path, timeout: Duration) -> Self {
        let found = || PATH.split(':').map(|folder| Path::new(folder).join(program)).find(|path| path.is_file());
        let plain = !program.contains('/');
        let program = plain.then(found).flatten().unwrap_or_else(|| PathBuf::from(program));
        let environment = vec![
            ("PATH", PATH.to_owned()),
            ("HOME", std::env::home_dir().unwrap_or_else(|| "/".into()).display().to_string()),
            ("LANG", "C.UTF-8".to_owned()),
        ];
        Self { program, arguments, home: directory.to_owned(), environment, timeout }
    }

    fn new(
        target: &Target,
        home: &Path,
        what: &str,
        hook: &str,
        command: &[String],
        timeout: Duration,
        allowed: Option<&Exec>,
    ) -> Result<Self, ApplyError> {
        let Some(allowed) = allowed else {
            return Err(ApplyError::Beyond { what: what.to_owned(), key: "appliers.exec" });
        };
        let malformed = |message: String| ApplyError::Malformed { path: format!("the command of {what}"), message };
        let Some((program, arguments)) = command.split_first() else {
            return Err(malformed("it has no program".to_owned()));
        };
        if command.len() > limits::COMMAND_WORDS {
            let (count, limit) = (command.len(), limits::COMMAND_WORDS);
            return Err(malformed(format!("it has {count} words, at most {limit} are allowed")));
        }
        let asked = Path::new(program);
        let plain = asked.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if program.is_empty() || !plain {
            return Err(malformed(format!(
                "{program:?} is neither an absolute path nor one below the deployment's directory; '..' is not allowed"
            )));
        }
        // An absolute path replaces the directory, a relative one goes below it.
        let path = home.join(asked);
        if !path.starts_with(home) && !allows(&allowed.commands, program) {
            return Err(ApplyError::Beyond {
                what: format!("the program {program} of {what}"),
                key: "appliers.exec.commands",
            });
        }
        let environment = vec![
            ("PATH", PATH.to_owned()),
            ("HOME", std::env::home_dir().unwrap_or_else(|| "/".into()).display().to_string()),
            ("LANG", "C.UTF-8".to_owned()),
            ("TITAN_WORKSPACE", target.workspace.to_string()),
            ("TITAN_DEPLOYMENT", target.name.to_string()),
            ("TITAN_RELEASE", target.release.clone()),
            ("TITAN_DIGEST", target.digest.to_string()),
            ("TITAN_HOOK", hook.to_owned()),
        ];
        Ok(Self { program: path, arguments: arguments.to_vec(), home: home.to_owned(), environment, timeout })
    }

    /// Returns a command of the agent's own, which no bundle has a say in.
    pub(crate) const fn of_the_agent(
        program: PathBuf,
        arguments: Vec<String>,
        home: PathBuf,
        environment: Vec<(&'static str, String)>,
        timeout: Duration,
    ) -> Self {
        Self { program, arguments, home, environment, timeout }
    }

    /// Runs the command to its end, which comes at most its timeout, and some seconds for it to go, from now. If this is
    /// dropped before, the command is ended all the same.
    ///
    /// Needs a runtime with IO and time. Where the deployment has no directory yet, it is run in `/`.
    pub(crate) async fn run(self) -> Ended {
        running::run(self, &mut |_| {}).await
    }

    /// The same, with `hear` getting what it writes, piece by piece, as it comes.
    pub(crate) async fn follow(self, hear: &mut (dyn FnMut(&[u8]) + Send)) -> Ended {
        running::run(self, hear).await
    }
}

/// Checks that the owner allows all commands that a bundle may run: its hooks and its `exec` probes.
pub(crate) fn check(
    target: &Target,
    home: &Path,
    hooks: &Hooks,
    health: &Health,
    allowed: Option<&Exec>,
) -> Result<(), ApplyError> {
    let kinds = [
        (HookKind::PreApply, &hooks.pre_apply),
        (HookKind::PostApply, &hooks.post_apply),
        (HookKind::OnRemove, &hooks.on_remove),
    ];
    for (kind, hook) in kinds {
        if let Some(hook) = hook {
            Order::hook(target, home, kind, hook, allowed)?;
        }
    }
    health.probes.iter().try_for_each(|probe| match probe {
        Probe::Exec(probe) => Order::probe(target, home, probe, health.timeout.0, allowed).map(drop),
        _ => Ok(()),
    })
}

#[cfg(test)]
mod tests;
