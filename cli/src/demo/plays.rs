//! Plays: plans that are followed as a live picture, and what has to have come of them in the end.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use titan_api::{
    Name,
    client::Client,
    enrolment::TokenRequest,
    workplans::{NodeView, Signal, SignalRequest},
};
use uuid::Uuid;

use super::{DemoError, fleet::Fleet};
use crate::{
    commands::workplans::{
        follow::Follow,
        picture::{picture, waits_for},
        watch::Lines,
    },
    errors::CliError,
    output::{Output, Tone, ages, canvas::Canvas, lines::Line},
};

/// How often a plan is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long anything in a play may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How long people have to see that something waits for a person, with `--once` and without.
const SEEN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(2));

/// A play on its way.
pub(super) struct Play<'a> {
    pub(super) output: Output,
    pub(super) client: &'a Client,
    pub(super) fleet: &'a mut Fleet,
    pub(super) directory: &'a Path,
    once: bool,
    found: Vec<(bool, String)>,
    shown: Shown,
}

/// The picture that is shown, until something else is said.
struct Shown {
    canvas: Canvas,
    lines: Lines,
    beside: Vec<String>,
}

impl Shown {
    fn nothing(output: Output) -> Self {
        Self { canvas: Canvas::new(output), lines: Lines::default(), beside: Vec::new() }
    }
}

impl<'a> Play<'a> {
    /// Returns a play of which nothing was shown yet.
    pub(super) fn new(
        (output, once): (Output, bool),
        client: &'a Client,
        fleet: &'a mut Fleet,
        directory: &'a Path,
    ) -> Self {
        Self { output, client, fleet, directory, once, found: Vec::new(), shown: Shown::nothing(output) }
    }

    /// Says what comes next, and what a person would type for it.
    pub(super) fn act(&mut self, title: &str, command: &str) -> Result<(), CliError> {
        // What is said once about a plan is not said again because of a new picture.
        self.shown.canvas = Canvas::new(self.output);
        self.output.line(&format!("\n{}", Tone::Strong.paint(title)))?;
        Ok(self.output.line(&Tone::Faint.paint(command))?)
    }

    /// Shows a plan until `until` holds of it. `beside` returns what is shown below it, and is asked at every look.
    pub(super) async fn follow(
        &mut self,
        plan: &mut Follow,
        beside: &mut dyn FnMut() -> Result<Vec<Line>, CliError>,
        until: impl Fn(&Follow) -> bool,
    ) -> Result<(), CliError> {
        let begin = Instant::now();
        loop {
            let news = plan.look(0).await?;
            let beside = beside()?;
            if self.output.repaints() {
                let (columns, rows) = Canvas::size();
                let mut picture = picture(plan, ages::now(), (columns, rows.saturating_sub(beside.len() + 1)));
                picture.push(Line::new());
                picture.extend(beside);
                self.shown.canvas.paint(&picture)?;
            } else {
                self.shown.lines.news(self.output, plan, &news)?;
                let beside: Vec<String> = beside.iter().map(|line| line.render(false)).collect();
                for line in beside.iter().filter(|line| !self.shown.beside.contains(*line)) {
                    self.output.line(line)?;
                }
                self.shown.beside = beside;
            }
            if until(plan) {
                return Ok(());
            }
            self.fleet.check()?;
            if begin.elapsed() > LIMIT || plan.is_over() {
                let state = plan.status.reason.clone().unwrap_or_else(|| "no reason given".to_owned());
                let state = format!("{} is {}: {state}", plan.status.name, plan.status.state);
                let log = self.fleet.log().display().to_string();
                return Err(DemoError::Stuck { state, log }.into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Lets people see for a while how a plan waits for them.
    pub(super) async fn pause(
        &mut self,
        plan: &mut Follow,
        beside: &mut dyn FnMut() -> Result<Vec<Line>, CliError>,
    ) -> Result<(), CliError> {
        let until = Instant::now() + if self.once { SEEN.0 } else { SEEN.1 };
        self.follow(plan, beside, |_| Instant::now() >= until).await
    }

    /// Returns a connection as somebody else, who may approve what the demo itself began.
    pub(super) async fn somebody(&self, name: &str) -> Result<Client, CliError> {
        let request = TokenRequest { name: Name::new(name)?, ttl_seconds: None };
        let token = self.client.create_token(&request).await?.token;
        Ok(Client::new(self.client.server(), Some(token))?)
    }

    /// Keeps what was expected and whether it came about.
    pub(super) fn expect(&mut self, holds: bool, what: impl Into<String>) {
        self.found.push((holds, what.into()));
    }

    /// Says what came about, and fails if something that was expected did not.
    pub(super) fn end(self) -> Result<(), CliError> {
        self.output.line(&format!("\n{}", Tone::Strong.paint("what happened")))?;
        for (holds, what) in &self.found {
            let mark = if *holds { Tone::Good.paint("✓") } else { Tone::Bad.paint("✗") };
            self.output.line(&format!("  {mark} {what}"))?;
        }
        let wrong: Vec<String> = self.found.into_iter().filter(|(holds, _)| !holds).map(|(_, what)| what).collect();
        if wrong.is_empty() {
            Ok(self.output.line(&format!("\n{}", Tone::Good.paint("everything came out as it was to")))?)
        } else {
            Err(DemoError::Unexpected(wrong.join("; ")).into())
        }
    }
}

/// Returns the gate that waits for a person, if one does.
pub(super) fn gate(plan: &Follow) -> Option<&NodeView> {
    plan.nodes.values().find(|node| waits_for(plan, node, None).is_some())
}

/// Returns a signal with a reason.
pub(super) fn because(signal: Signal, reason: &str) -> SignalRequest {
    let id = Uuid::now_v7().to_string();
    SignalRequest { reason: Some(reason.to_owned()), ..SignalRequest::new(signal, id) }
}

/// Approves the gate of a plan that waits for a person.
pub(super) async fn approve(who: &Client, plan: &Follow, reason: &str) -> Result<(), CliError> {
    let Some(gate) = gate(plan) else { return Ok(()) };
    let (node, generation) = (Some(gate.name.clone()), Some(gate.generation));
    let request = SignalRequest { node, generation, ..because(Signal::Approve, reason) };
    who.signal(plan.status.id, &request).await?;
    Ok(())
}
