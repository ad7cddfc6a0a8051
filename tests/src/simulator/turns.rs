//! One turn of one agent: poll, fold, report; and when the next one is.

use std::time::{Duration, Instant};

use titan_api::reports::{DeploymentReport, Phase, Report};
use uuid::Uuid;

use crate::simulator::{
    answers::{self, Answer},
    credentials,
    fleet::Fleet,
    fold::{Folded, State},
    pace,
    wire::{Ask, Fault, Told},
};

/// How much longer than it may be held an answer may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often an agent is to ask if nobody says.
const USUAL: Duration = Duration::from_secs(5);

/// What a poll came to.
enum Polled {
    Unchanged(Duration),
    Changed(Duration, Vec<DeploymentReport>),
    /// At once again.
    Again,
    Trouble(Option<Duration>),
    /// The connection was cut off on purpose.
    Cut,
}

impl Fleet {
    /// Takes an agent's turn. Returns after how long the next one is, and whether this one brought a change.
    pub(super) async fn turn(&self, number: u32) -> (Duration, bool) {
        if let Some(left) = self.script.absence().left(number, self.tally.elapsed()) {
            self.transport.close(number);
            self.tally.away.one();
            // They do not all come back in the same instant.
            return (left + self.script.absence().period.mul_f64(0.1 * self.chance()), false);
        }
        let begun = Instant::now();
        let wait = if self.with(number, |agent| agent.ask_full) { 0 } else { self.script.wait };
        let polled = self.poll(number, wait).await;
        let (after, said, changed) = match polled {
            Polled::Unchanged(after) => (Ok(after), self.left_to_say(number), false),
            Polled::Changed(after, done) => (Ok(after), done, true),
            Polled::Again | Polled::Cut => return (Duration::ZERO, false),
            Polled::Trouble(asked) => (Err(asked), Vec::new(), false),
        };
        let after = match after {
            Ok(after) if !said.is_empty() => Box::pin(self.report(number, said)).await.map(|()| after),
            after => after,
        };
        let chance = self.chance();
        let pause = match after {
            Ok(after) => {
                self.with(number, |agent| agent.failures = 0);
                let cadence = self.script.cadence().unwrap_or(after);
                pace::after_success(cadence, begun.elapsed(), wait > 0, changed, chance)
            }
            Err(asked) => {
                let failures = self.with(number, |agent| {
                    agent.failures = agent.failures.saturating_add(1);
                    agent.failures
                });
                let longest = Duration::from_secs_f64(self.script.longest_backoff);
                pace::after_failure(failures, longest, asked, chance)
            }
        };
        (pause, changed)
    }

    /// Sends a request and waits for its answer, unless held polls are cut off meanwhile (`None`).
    pub(super) async fn exchange(&self, number: u32, ask: &Ask, held: bool) -> Option<Result<Told, Fault>> {
        if held || self.script.storm_every > 0.0 {
            return Box::pin(self.held(number, ask)).await;
        }
        Some(self.answered(number, ask).await)
    }

    async fn held(&self, number: u32, ask: &Ask) -> Option<Result<Told, Fault>> {
        let cut = self.cut.notified();
        if self.is_stopped() {
            return None;
        }
        let told = tokio::select! {
            biased;
            () = cut => return None,
            told = self.answered(number, ask) => told,
        };
        // Whoever is cut off takes others on the same connection along.
        if told.is_err() && self.is_stopped() { None } else { Some(told) }
    }

    async fn answered(&self, number: u32, ask: &Ask) -> Result<Told, Fault> {
        let limit = PATIENCE + Duration::from_secs(self.script.wait);
        let slow = self.is_slow(number);
        let told = tokio::time::timeout(limit, self.transport.exchange(number, ask, slow)).await;
        if slow && matches!(told, Ok(Ok(_))) {
            self.tally.slow.one();
        }
        told.unwrap_or(Err(Fault::Timeout))
    }

    async fn poll(&self, number: u32, wait: u64) -> Polled {
        let token = self.credentials.host(number as usize);
        let have = self.with(number, |agent| {
            agent.desired.cursor().filter(|_| !agent.ask_full).map(|cursor| (cursor, agent.desired.digest()))
        });
        let ask = Ask::poll(number, token, have, wait, self.script.gzip);
        self.tally.arrival();
        let begun = Instant::now();
        let told = match self.exchange(number, &ask, wait > 0).await {
            None => return Polled::Cut,
            Some(Ok(told)) => told,
            Some(Err(fault)) => {
                self.tally.fault(fault.to_string());
                return Polled::Trouble(None);
            }
        };
        if wait == 0 {
            self.tally.answered.add(begun.elapsed());
        }
        match told.status {
            200 => self.take(number, &told).await,
            204 => {
                let Some(cursor) = told.cursor else {
                    self.tally.fault("204 without a cursor".into());
                    return Polled::Trouble(None);
                };
                if !self.with(number, |agent| agent.desired.advance(cursor)) {
                    self.tally.fault("answer older than an accepted one".into());
                    return Polled::Trouble(None);
                }
                self.tally.unchanged.one();
                Polled::Unchanged(told.poll_after.map_or(USUAL, |after| Duration::from_secs(after.into())))
            }
            429 | 503 => {
                self.tally.put_off.one();
                Polled::Trouble(told.retry_after)
            }
            status => {
                let code = code(&told.body);
                if code == "cursor_ahead" {
                    self.with(number, |agent| agent.desired.forget_cursor());
                }
                self.tally.fault(format!("status {status} {code}"));
                Polled::Trouble(told.retry_after)
            }
        }
    }

    /// Takes in an answer with a change.
    async fn take(&self, number: u32, told: &Told) -> Polled {
        let answer = match Answer::read(&told.body) {
            Ok(answer) => answer,
            Err(error) => {
                self.tally.fault(format!("answer that does not fit: {error}"));
                return Polled::Trouble(None);
            }
        };
        let envelope = answer.envelope();
        self.tally.changed();
        if envelope.full {
            self.tally.fulls.one()
        } else {
            self.tally.deltas.one()
        }
        if self.script.lost > 0.0 && self.chance() < self.script.lost {
            self.tally.lost.one();
            return Polled::Again;
        }
        if self.script.verify > 0.0 && self.chance() < self.script.verify {
            Box::pin(self.verify(number, &answer)).await;
        }
        let folded = self.with(number, |agent| {
            let folded = agent.desired.fold(&envelope);
            agent.ask_full = folded == Folded::Differs && !agent.ask_full;
            folded
        });
        match folded {
            Folded::Refused => {
                self.tally.fault("answer older than an accepted one".into());
                return Polled::Trouble(None);
            }
            Folded::Differs => {
                self.tally.mismatches.one();
                let held = self.with(number, |agent| agent.desired.digest());
                let name = credentials::name(number as usize);
                let (digest, cursor) = (envelope.digest, envelope.cursor);
                self.tally.difference(format!(
                    "{name}: after the answer of {cursor} its set has the digest {held}, the answer says {digest}"
                ));
                return if self.with(number, |agent| agent.ask_full) { Polled::Again } else { Polled::Trouble(None) };
            }
            Folded::Matches => {}
        }
        let mut done = answer.done();
        if !self.script.reports {
            done.retain(|report| report.phase == Phase::Removed);
        }
        Polled::Changed(Duration::from_secs(answer.poll_after_seconds.into()), done)
    }

    /// Checks the bundles of an answer, and those that it only names.
    async fn verify(&self, number: u32, answer: &Answer<'_>) {
        let name = credentials::name(number as usize);
        match answer.verify() {
            Err(why) => self.tally.difference(format!("{name}: {why}")),
            Ok((verified, missing)) => {
                self.tally.verified.add(verified as u64);
                for digest in missing {
                    let ask = Ask::bundle(number, self.credentials.host(number as usize), &digest);
                    match self.exchange(number, &ask, false).await {
                        Some(Ok(told)) if told.status == 200 && titan_api::Digest::of(&told.body) == digest => {
                            self.tally.verified.one();
                        }
                        // It may have been replaced meanwhile.
                        Some(Ok(told)) if told.status == 404 => {}
                        Some(Ok(told)) => self.tally.fault(format!("bundle: status {}", told.status)),
                        Some(Err(fault)) => self.tally.fault(format!("bundle: {fault}")),
                        None => {}
                    }
                }
            }
        }
    }

    /// Tells the control plane what was done; on failure returns when it is to be asked again.
    async fn report(&self, number: u32, done: Vec<DeploymentReport>) -> Result<(), Option<Duration>> {
        let removed: Vec<Uuid> =
            done.iter().filter(|report| report.phase == Phase::Removed).map(|report| report.id).collect();
        let ask = self.said(number, done);
        let begun = Instant::now();
        match self.exchange(number, &ask, false).await {
            Some(Ok(told)) if told.status == 204 => {
                self.tally.reports.one();
                self.tally.reporting.add(begun.elapsed());
                self.with(number, |agent| agent.desired.removed(&removed));
                Ok(())
            }
            Some(Ok(told)) if matches!(told.status, 429 | 503) => {
                self.tally.put_off.one();
                Err(told.retry_after)
            }
            Some(Ok(told)) => {
                self.tally.fault(format!("report: status {} {}", told.status, code(&told.body)));
                Err(told.retry_after)
            }
            Some(Err(fault)) => {
                self.tally.fault(format!("report: {fault}"));
                Err(None)
            }
            None => Ok(()),
        }
    }

    /// Returns the report of what was done.
    fn said(&self, number: u32, done: Vec<DeploymentReport>) -> Ask {
        let (seq, acked_cursor) = self.with(number, |agent| {
            agent.reported += 1;
            (self.reports_from + u64::from(agent.reported), agent.desired.cursor())
        });
        let report = Report { seq, acked_cursor, deployments: done, ..Report::default() };
        let body = serde_json::to_vec(&report).unwrap_or_default();
        Ask::report(number, self.credentials.host(number as usize), body)
    }

    /// Returns what an agent still has to say though nothing changed: removals that nobody has taken note of, and another
    /// phase of one of its deployments if the script wants one.
    fn left_to_say(&self, number: u32) -> Vec<DeploymentReport> {
        self.with(number, |agent| {
            let turn = std::mem::take(&mut agent.phase);
            let mut wanted = turn;
            let said = agent.desired.entries().filter_map(|(id, revision, state)| match state {
                State::Removal => Some(answers::report(id, revision, Phase::Removed)),
                State::Present if std::mem::take(&mut wanted) => {
                    let phase = if agent.reported.is_multiple_of(2) { Phase::Degraded } else { Phase::Healthy };
                    Some(answers::report(id, revision, phase))
                }
                _ => None,
            });
            said.collect()
        })
    }

    /// Lets an agent say at its next turn that one of its deployments is in another phase now.
    pub(super) fn phase(&self, number: u32) {
        self.with(number, |agent| agent.phase = true);
    }
}

/// Returns the code of a problem.
pub(super) fn code(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Problem {
        code: String,
    }
    serde_json::from_slice::<Problem>(body).map_or_else(|_| "without a code".to_owned(), |problem| problem.code)
}

#[cfg(test)]
mod tests {
    use crate::simulator::{
        credentials::Credentials,
        fleet::Fleet,
        script::{Carrier, Script},
        transports::Place,
    };

    #[test]
    fn turn_is_small() {
        let place = Place { address: "127.0.0.1:1".into(), trusted: None };
        let script = Script { carrier: Carrier::Mux, ..Script::default() };
        let fleet = Fleet::new(&place, script, Credentials::new("s"), 1).expect("a fleet");
        // Half a million may be under way.
        assert!(size_of_val(&fleet.turn(0)) <= 850, "{} B", size_of_val(&fleet.turn(0)));
    }
}
