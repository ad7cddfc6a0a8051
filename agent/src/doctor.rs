//! `titan-agent doctor`: what could be wrong, looked at one by one.

use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use titan_api::{
    Revision,
    client::{Client, SystemTrust},
};

use crate::{
    apply::root::Root,
    config::Settings,
    git::Sink,
    identity::Identity,
    ledger::Ledger,
    settle::{chain, now},
    state::{StateDir, StateError},
};

/// One thing that was looked at.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) what: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) text: String,
    pub(crate) hint: Option<String>,
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Good,
    Note,
    Bad,
}

fn finding(what: &'static str, verdict: Verdict, text: impl Into<String>) -> Finding {
    Finding { what, verdict, text: text.into(), hint: None }
}

impl Finding {
    fn hint(mut self, hint: &str) -> Self {
        self.hint = Some(hint.to_owned());
        self
    }
}

/// Looks at everything and changes nothing.
pub(crate) async fn examine(settings: &Settings) -> Vec<Finding> {
    let state = StateDir::new(&settings.state_dir);
    let mut found = vec![state_dir(&state)];
    found.push(match Ledger::read(&state) {
        Ok(ledger) => finding("ledger", Verdict::Good, format!("{} deployments", ledger.entries.len())),
        Err(error) => finding("ledger", Verdict::Bad, chain(&error)),
    });
    found.push(
        match settings.files.as_ref().map(|files| (files, files.root.exists().then(|| Root::open(&files.root)))) {
            None => finding("files", Verdict::Note, "the applier is not allowed by agent.yaml"),
            Some((files, None)) => {
                finding("files", Verdict::Good, format!("{} will be made when it is needed", files.root.display()))
            }
            Some((files, Some(Ok(_)))) => finding("files", Verdict::Good, format!("{}", files.root.display())),
            Some((_, Some(Err(error)))) => finding("files", Verdict::Bad, chain(&error)),
        },
    );
    found.push(match &settings.git {
        None => finding("git", Verdict::Note, "off"),
        Some(git) => match Sink::new(git, state.path(), None).examine() {
            Ok(text) => finding("git", Verdict::Good, text),
            Err(error) => finding("git", Verdict::Bad, chain(&error)),
        },
    });
    found.extend(control_plane(settings, &state).await);
    found
}

fn state_dir(state: &StateDir) -> Finding {
    let path = state.path();
    match std::fs::metadata(path) {
        Err(error) => finding("state", Verdict::Bad, format!("{}: {error}", path.display()))
            .hint("enrol this host: titan host join-command HOST prints the line"),
        Ok(meta) if meta.permissions().mode() & 0o077 != 0 => {
            let text =
                format!("{} is open to others (mode {:04o})", path.display(), meta.permissions().mode() & 0o7777);
            finding("state", Verdict::Bad, text).hint("chmod 0700 the directory: it holds the host's credential")
        }
        Ok(_) => match state.lock() {
            Ok(_) => finding("state", Verdict::Good, format!("{}, no agent running", path.display())),
            Err(StateError::InUse(_)) => {
                finding("state", Verdict::Good, format!("{}, an agent is running", path.display()))
            }
            Err(error) => finding("state", Verdict::Bad, chain(&error)),
        },
    }
}

async fn control_plane(settings: &Settings, state: &StateDir) -> Vec<Finding> {
    let what = "server";
    let identity = match (Identity::read(state), Identity::credential(state)) {
        (Ok(Some(identity)), Ok(Some(credential))) => (identity, credential),
        (Err(error), _) | (_, Err(error)) => return vec![finding("identity", Verdict::Bad, chain(&error))],
        _ => {
            let bad = finding("identity", Verdict::Bad, "this host has not enrolled");
            return vec![bad.hint("titan host join-command HOST prints the line that enrols it")];
        }
    };
    let (identity, credential) = identity;
    let server = settings.server.as_deref().unwrap_or(&identity.server);
    let mut found = vec![finding("identity", Verdict::Good, format!("host {}", identity.host))];
    let secret = Some(credential.reveal().to_owned());
    let client = match Client::trusting(server, secret, SystemTrust::on_a_host(None)) {
        Ok(client) => client,
        Err(error) => {
            found.push(finding(what, Verdict::Bad, chain(&error)));
            return found;
        }
    };
    let before = now();
    match client.poll(&identity.host, None, None, 0).await {
        Ok(polled) => {
            found.push(finding(what, Verdict::Good, format!("{server} answers and knows this host")));
            let cursor = match polled {
                titan_api::client::Polled::Unchanged { cursor, .. } => cursor,
                titan_api::client::Polled::Changed(answer) => answer.cursor,
            };
            found.push(clock(before, cursor));
        }
        Err(error) => {
            let bad = finding(what, Verdict::Bad, chain(&error));
            found.push(match error.code() {
                Some(titan_api::Code::Unauthorized | titan_api::Code::Forbidden) => {
                    bad.hint("the credential is not accepted any more; enrol again with a new token")
                }
                _ => bad.hint("what was declared before stays in place meanwhile"),
            });
        }
    }
    found
}

/// The fleet's clock is never ahead of a right wall clock by much; the host's own clock decides nothing.
fn clock(host: Revision, fleet: Revision) -> Finding {
    let ahead = Duration::from_micros(fleet.micros().saturating_sub(host.micros()).try_into().unwrap_or(0));
    if ahead > Duration::from_mins(5) {
        let text = format!("this host's clock is at least {} s behind the fleet's", ahead.as_secs());
        return finding("clock", Verdict::Note, text).hint("nothing depends on it but TLS certificates and log times");
    }
    finding("clock", Verdict::Good, "not behind the fleet's")
}
