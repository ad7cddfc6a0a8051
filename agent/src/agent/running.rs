//! The agent that stays: it asks, works and reports, each when it is time, and none waits for another.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use titan_api::{Code, client::ClientError, templates::Applier};
use tokio_util::sync::CancellationToken;

use super::{
    Agent, AgentError,
    errands::{Back, Errands},
    polling::PollFault,
};
use crate::{
    facts, pace,
    settle::{Scope, chain},
};

/// The shortest and the longest pause before files are looked at again after others stirred near them, and nothing of ours
/// was changed by that: programs write beside their configuration all the time.
const QUIET: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// When what is done next.
struct Rhythm {
    /// When to poll.
    poll: Instant,
    /// Failures in a row.
    failures: u32,
    /// When a report that failed may be tried again.
    report: Instant,
    /// When everything was checked and reported last.
    beat: Option<Instant>,
    /// Whether the poll under way is one of everything.
    whole: bool,
    /// When the poll under way began, and whether it may be held.
    asked: (Instant, bool),
    /// Not before this are stirred files looked at, and the pause after that.
    quiet: (Instant, Duration),
    stirred: BTreeSet<Applier>,
}

impl Rhythm {
    const fn begin(now: Instant) -> Self {
        Self {
            poll: now,
            failures: 0,
            report: now,
            beat: None,
            whole: false,
            asked: (now, false),
            quiet: (now, QUIET.0),
            stirred: BTreeSet::new(),
        }
    }
}

impl Agent {
    /// Polls, settles and reports until `shutdown`. What is at hand then is finished.
    ///
    /// Nothing that the control plane, the network or a full disk does ends it: it says why and tries again. What is on
    /// disk is brought up before anybody is asked: a host that starts without a network runs what it ran.
    pub async fn run(&mut self, shutdown: CancellationToken) {
        tracing::info!(host.name = %self.host, server = self.client.server(), "host {} begins to poll", self.host);
        let mut rhythm = Rhythm::begin(Instant::now());
        let mut errands = Errands::default();
        self.work_and_tell(&Scope { all: true, ..Scope::default() }, &mut rhythm).await;
        while !shutdown.is_cancelled() {
            self.set_out(&mut errands, &mut rhythm).await;
            let now = Instant::now();
            let idle = self.with_worker(|worker| worker.idle_for()).await;
            let due = self.next_due(&rhythm, &errands, now);
            let pause = [idle, due].into_iter().flatten().min().unwrap_or(self.settings.polling.beat);
            let wake = self.wake.clone();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                back = errands.next() => self.take_back(back, &mut rhythm).await,
                () = wake.notified() => self.look_around(&mut rhythm).await,
                () = tokio::time::sleep(pause.max(Duration::from_millis(1))) => self.on_time(&mut rhythm, idle.is_some_and(|idle| idle <= pause)).await,
            }
        }
        tracing::info!(host.name = %self.host, "host {} stops polling; what runs on it goes on", self.host);
    }

    /// Sends off what is due to be sent.
    async fn set_out(&mut self, errands: &mut Errands, rhythm: &mut Rhythm) {
        let now = Instant::now();
        if errands.poll.is_none() && now >= rhythm.poll {
            rhythm.whole = rhythm.beat.is_none_or(|last| last.elapsed() >= self.settings.polling.beat);
            // Where everything is to be checked, the answer is wanted now. So it is after trouble: no report goes out until one
            // has come.
            let now_wanted = rhythm.whole || self.ask_full || rhythm.failures > 0;
            let held = if now_wanted { 0 } else { self.settings.polling.wait.as_secs() };
            rhythm.asked = (now, held > 0);
            errands.poll = Some(Box::pin(self.asking(held).await));
        }
        let reachable = rhythm.failures == 0 && rhythm.beat.is_some();
        // That nothing changed waits for the poll under way to come back, whose connection it takes: another handshake costs
        // more than both.
        let waits = errands.poll.is_some() && self.with_worker(|worker| worker.outbox.is_quiet(&self.facts)).await;
        if reachable && !waits && errands.report.is_none() && now >= rhythm.report {
            let due = self.due().await;
            errands.report = due.map(|report| Box::pin(self.reporting(report)) as _);
        }
        if reachable && errands.fetch.is_none() {
            let missing = self.with_worker(|worker| worker.missing_bundles()).await;
            if let Some(digest) = missing.into_iter().find(|digest| !self.unfetched.contains_key(digest)) {
                errands.fetch = Some(Box::pin(self.fetching(digest).await));
            }
        }
    }

    /// Returns how long it is until something is to be sent or checked.
    fn next_due(&self, rhythm: &Rhythm, errands: &Errands, now: Instant) -> Option<Duration> {
        let poll = errands.poll.is_none().then_some(rhythm.poll);
        let stirred = (!rhythm.stirred.is_empty()).then_some(rhythm.quiet.0);
        let report = (rhythm.report > now).then_some(rhythm.report);
        // A beat that is due is not slept through, not even by a poll that is held.
        let beat = rhythm.beat.map(|last| last + self.settings.polling.beat);
        let next = [poll, stirred, report, beat].into_iter().flatten().min()?;
        Some(next.saturating_duration_since(now))
    }

    /// Takes what came back from the control plane.
    async fn take_back(&mut self, back: Back, rhythm: &mut Rhythm) {
        match back {
            Back::Polled(polled) => {
                let pause = match self.polled(polled, rhythm).await {
                    Ok(pause) => pause,
                    Err(error) => self.in_trouble(chain(&error), None, rhythm).await,
                };
                rhythm.poll = Instant::now() + pause;
            }
            Back::Reported(report, result) => {
                rhythm.report = Instant::now();
                if let Some(error) = self.reported(&report, result).await {
                    let why = format!("the report did not get through and is sent again: {}", chain(&error));
                    let pause = self.in_trouble(why, error.retry_after(), rhythm).await;
                    rhythm.report += pause;
                }
                if self.with_worker(|worker| worker.has_untold()).await {
                    self.work_and_tell(&Scope::default(), rhythm).await;
                }
            }
            Back::Fetched(digest, result) => {
                if let Err(message) = result {
                    tracing::warn!("bundle {} cannot be had: {message}", digest.short());
                    self.unfetched.insert(digest, message);
                }
                self.work_and_tell(&Scope::default(), rhythm).await;
            }
        }
    }

    /// Takes an answer to a poll, and returns the pause before the next.
    async fn polled(
        &mut self,
        polled: Result<titan_api::client::Polled, ClientError>,
        rhythm: &mut Rhythm,
    ) -> Result<Duration, AgentError> {
        let asked = match self.accept(polled).await {
            Ok(asked) => asked,
            Err(PollFault::Client(error)) => {
                let again = error.code() == Some(Code::CursorAhead) && rhythm.failures == 0;
                let pause = self.in_trouble(chain(&error), error.retry_after(), rhythm).await;
                self.first_look(rhythm).await;
                return Ok(if again { Duration::ZERO } else { pause });
            }
            Err(PollFault::Refused(why)) => {
                let pause = self.in_trouble(why, None, rhythm).await;
                self.first_look(rhythm).await;
                return Ok(pause);
            }
        };
        rhythm.failures = 0;
        self.in_touch = true;
        self.unfetched.clear();
        let whole = rhythm.whole;
        if whole {
            self.facts = facts::gather();
        }
        if asked.changed || whole {
            let scope = Scope { all: whole && rhythm.beat.is_some(), ..Scope::default() };
            self.work(&scope).await?;
        }
        if whole {
            self.beat(rhythm).await;
        }
        if self.push(false, Duration::ZERO).await {
            rhythm.report = Instant::now();
        }
        let trouble = self.with_worker(|worker| worker.trouble()).await;
        self.tell(trouble).await;
        if self.ask_full && self.may_refetch() {
            return Ok(Duration::ZERO);
        }
        let (began, held) = rhythm.asked;
        Ok(pace::after_success(asked.poll_after, began.elapsed(), held, asked.changed, pace::chance()))
    }

    /// Counts the first attempt to reach the control plane as the first beat, whatever came of it.
    async fn first_look(&mut self, rhythm: &mut Rhythm) {
        if rhythm.beat.is_none() {
            self.beat(rhythm).await;
        }
    }

    /// Notes that everything was checked, which is reported.
    async fn beat(&self, rhythm: &mut Rhythm) {
        let now = Instant::now();
        rhythm.beat = Some(now);
        self.with_worker(|worker| worker.outbox.beat_due(now)).await;
    }

    /// Notes that the control plane cannot be reached, or not be understood, and returns the pause before the next attempt.
    async fn in_trouble(&mut self, why: String, asked: Option<Duration>, rhythm: &mut Rhythm) -> Duration {
        rhythm.failures = rhythm.failures.saturating_add(1);
        self.in_touch = false;
        tracing::warn!(failures = rhythm.failures, "this host goes on with what it has: {why}");
        self.tell(Some(why)).await;
        pace::after_failure(rhythm.failures, self.settings.polling.max_backoff, asked, pace::chance())
    }

    /// Does what somebody woke the agent for.
    async fn look_around(&mut self, rhythm: &mut Rhythm) {
        rhythm.stirred.extend(self.wake.take());
        if self.push(false, Duration::ZERO).await {
            rhythm.report = Instant::now();
        }
        let files = rhythm.stirred.contains(&Applier::Files) && Instant::now() < rhythm.quiet.0;
        let mut stirred = std::mem::take(&mut rhythm.stirred);
        if files {
            stirred.remove(&Applier::Files);
            rhythm.stirred.insert(Applier::Files);
        }
        self.work_and_tell(&Scope { stirred, ..Scope::default() }, rhythm).await;
    }

    /// Does what it is time for.
    async fn on_time(&mut self, rhythm: &mut Rhythm, work: bool) {
        let whole = rhythm.beat.is_some_and(|last| last.elapsed() >= self.settings.polling.beat);
        let stirred =
            if Instant::now() >= rhythm.quiet.0 { std::mem::take(&mut rhythm.stirred) } else { BTreeSet::new() };
        if whole {
            self.facts = facts::gather();
            self.beat(rhythm).await;
        }
        if whole || work || !stirred.is_empty() {
            self.work_and_tell(&Scope { all: whole, stirred, ..Scope::default() }, rhythm).await;
        }
    }

    /// Works, and says so if that is not possible.
    async fn work_and_tell(&mut self, scope: &Scope, rhythm: &mut Rhythm) {
        let looked_at_files = scope.stirred.contains(&Applier::Files);
        match self.work(scope).await {
            Ok(done) if looked_at_files => {
                let idle = done.iter().all(|done| done.action == crate::settle::Action::Unchanged);
                let pause = if idle { (rhythm.quiet.1 * 2).min(QUIET.1) } else { QUIET.0 };
                rhythm.quiet = (Instant::now() + pause, pause);
            }
            Ok(_) => {}
            Err(error) => {
                let why = chain(&error);
                tracing::warn!("this host cannot be brought to what is desired now: {why}");
                self.tell(Some(why)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
