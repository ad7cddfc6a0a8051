//! What the command line prints, and nowhere else.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is where the agent speaks to people")]

use std::error::Error;

use crate::{
    doctor::{Finding, Verdict},
    settle::{Action, Done, chain},
    status::Status,
    summary::OnceSummary,
};

/// Prints what one round did, a line for each deployment.
pub(crate) fn once(summary: &OnceSummary) {
    for done in &summary.done {
        println!("{}", line(done));
    }
    for (id, title) in &summary.orphans {
        println!("orphan     {title}  {id}  (kept; remove it with titan-agent prune {id})");
    }
    if summary.done.is_empty() && summary.orphans.is_empty() {
        println!("nothing is declared for this host");
    }
    if let Some(why) = &summary.refused {
        eprintln!("error: nothing new was accepted: {why}");
    }
    if let Some(fault) = &summary.fault {
        error(fault);
        eprintln!("hint: what was declared before stays in place; the agent tries again at the next poll");
    }
    if let Some(error) = &summary.unreported {
        eprintln!("warning: the report did not get through and is sent again: {}", chain(error));
    }
}

fn line(done: &Done) -> String {
    let Done { title, release, message, action, .. } = done;
    let mut text = format!("{:<10} {title}", action.as_str());
    if !release.is_empty() {
        text.push_str(&format!("  {release}"));
    }
    if let Some(commit) = &done.commit {
        text.push_str(&format!("  commit {commit}"));
    }
    if !message.is_empty() {
        text.push_str(&format!("  {message}"));
    }
    if *action == Action::Failed {
        text.push_str("  (what was there before still is)");
    }
    text
}

/// Prints the status for people.
pub(crate) fn status(status: &Status) {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    println!("host     {}", or_none(status.host.as_ref().map(ToString::to_string)));
    println!("server   {}", or_none(status.server.clone()));
    println!("running  {}", if status.running { "yes" } else { "no" });
    println!("cursor   {}", or_none(status.cursor.map(|cursor| cursor.to_string())));
    let since = or_none(status.since.map(|since| since.to_string()));
    match &status.trouble {
        Some(trouble) => println!("contact  in trouble since {since}: {trouble}"),
        None if status.since.is_none() => println!("contact  none yet"),
        None => println!("contact  well since {since}"),
    }
    if status.unsent > 0 {
        println!("unsent   {} reports", status.unsent);
    }
    for entry in &status.deployments {
        let title = format!("{}/{}", entry.workspace, entry.name);
        let commit = entry.commit.as_deref().map_or_else(|| "-".to_owned(), |commit| commit.chars().take(12).collect());
        let digest = entry.digest.as_deref().unwrap_or("-");
        let message = if entry.message.is_empty() { String::new() } else { format!("  {}", entry.message) };
        println!(
            "{:<10} {title}  {}  digest {digest}  commit {commit}  {} files{message}",
            entry.phase, entry.release, entry.files
        );
    }
}

/// Prints a value as JSON.
pub(crate) fn json(value: &impl serde::Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => println!("{text}"),
        Err(error) => eprintln!("error: the result cannot be written as JSON: {error}"),
    }
}

/// Prints what the doctor found.
pub(crate) fn findings(findings: &[Finding]) {
    for finding in findings {
        let word = match finding.verdict {
            Verdict::Good => "ok",
            Verdict::Note => "note",
            Verdict::Bad => "BAD",
        };
        println!("{word:<5} {:<12} {}", finding.what, finding.text);
        if let Some(hint) = &finding.hint {
            println!("      {:<12} hint: {hint}", "");
        }
    }
}

/// Prints a line.
pub(crate) fn say(text: &str) {
    println!("{text}");
}

/// Prints an error with all its causes.
pub(crate) fn error(error: &dyn Error) {
    eprintln!("error: {}", chain(error));
}

/// Prints a hint.
pub(crate) fn hint(text: &str) {
    eprintln!("hint: {text}");
}
