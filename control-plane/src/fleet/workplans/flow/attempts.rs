//! Attempts: how one is made, offered and ended, and what follows for its node.

use titan_api::{
    Digest, Name,
    workplans::{AttemptState, Event, Executor, Outcome, attempts::Verdict},
};
use uuid::Uuid;

use crate::fleet::workplans::{
    nodes::{Node, outcome},
    plan::micros,
    steps::Order,
    working::{Todo, Working},
};

/// Who takes the attempts that come to their end by themselves.
pub const ITSELF: &str = "control-plane";
/// The code of an attempt that was cut off: it is made again, and does not count.
pub const INTERRUPTED: &str = "interrupted";
/// Codes after which no other attempt is made.
const CONCLUDED: [&str; 3] = ["scheduleToStart", "noExecutor", "totalTimeout"];

/// Whether a code means something to plans themselves, so that no worker may end an attempt with it.
#[must_use]
pub fn is_reserved(code: &str) -> bool {
    code == INTERRUPTED || CONCLUDED.contains(&code)
}

impl Working {
    /// Makes a new attempt that may begin at `due`.
    pub(in crate::fleet::workplans) fn attempt(&mut self, name: &Name, due: i64) {
        let number = self.node(name).and_then(|node| node.attempt.as_ref()).map_or(1, |attempt| attempt.number + 1);
        self.attempted(name, number, AttemptState::Pending, |event| {
            if let Event::Attempt { due: at, .. } = event {
                *at = Some(due);
            }
        });
        if due <= self.now() && self.plan.goes_on() {
            self.schedule(name);
        }
    }

    /// Offers a pending attempt to whoever does it, which may be time itself.
    pub(in crate::fleet::workplans) fn schedule(&mut self, name: &Name) {
        let Some(node) = self.node(name) else { return };
        let (Some(number), run) = (node.attempt.as_ref().map(|attempt| attempt.number), node.spec.run.clone()) else {
            return;
        };
        self.attempted(name, number, AttemptState::Scheduled, |_| {});
        let Some(run) = run.filter(Executor::runs_by_itself) else { return };
        self.attempted(name, number, AttemptState::Running, |event| {
            if let Event::Attempt { process_uid, .. } = event {
                *process_uid = Some(ITSELF.to_owned());
            }
        });
        match run {
            Executor::Plan(spec) => {
                let id = child_id(self.plan.id, name, number);
                self.emit(Event::Child { node: name.clone(), plan: id });
                self.orders.push(Order::Child { id, node: name.clone(), number, spec });
            }
            Executor::Approval(_) => self.todo.push_back(Todo::Votes(name.clone())),
            _ => {}
        }
    }

    /// Takes an attempt to another state.
    pub(in crate::fleet::workplans) fn attempted(
        &mut self,
        name: &Name,
        number: u32,
        state: AttemptState,
        with: impl FnOnce(&mut Event),
    ) {
        let mut event = Event::Attempt {
            node: name.clone(),
            number,
            state,
            at: self.now(),
            due: None,
            process_uid: None,
            verdict: None,
            code: None,
            message: None,
            details: None,
            counts: false,
        };
        with(&mut event);
        self.emit(event);
    }

    /// Ends an attempt without the job being done; nothing follows from that by itself.
    pub(in crate::fleet::workplans) fn break_off(&mut self, name: &Name, why: &str, text: Option<String>, count: bool) {
        self.break_off_with(name, why, (text, None), count);
    }

    /// The same, with what there is to tell programs.
    pub(in crate::fleet::workplans) fn break_off_with(
        &mut self,
        name: &Name,
        why: &str,
        (text, told): (Option<String>, Option<serde_json::Value>),
        count: bool,
    ) {
        let Some(number) = self.node(name).and_then(Node::live).map(|attempt| attempt.number) else { return };
        let child = self.node(name).and_then(|node| node.child);
        self.attempted(name, number, AttemptState::Incomplete, |event| {
            if let Event::Attempt { code, message, details, counts, .. } = event {
                (*code, *message, *details, *counts) = (Some(why.to_owned()), text, told, count);
            }
        });
        self.orders.extend(child.map(Order::StopChild));
    }

    /// The attempt of a node did the job.
    pub(in crate::fleet::workplans) fn judged(&mut self, name: &Name, verdict: Verdict, message: Option<String>) {
        match outcome(verdict) {
            Some(Outcome::Failed) if self.node(name).is_some_and(Node::holds) => {
                self.hold(name, message.as_deref().unwrap_or("it failed"));
            }
            Some(outcome) => self.done(name, outcome == Outcome::Passed, message),
            None => self.hold(name, message.as_deref().unwrap_or("it cannot be told")),
        }
    }

    /// The attempt of a node came to nothing: it is made again, or that was it.
    pub(in crate::fleet::workplans) fn failed(&mut self, name: &Name, code: &str, message: &str) {
        let Some(node) = self.node(name) else { return };
        if self.plan.stops() && !node.spec.compensation {
            let message = Some(format!("stopped: {message}"));
            self.todo.push_back(Todo::End(name.clone(), Outcome::Cancelled, message));
            return;
        }
        let retry = &node.spec.retry;
        let uncounted = code == INTERRUPTED;
        let last = node.attempt.as_ref().map_or(1, |attempt| attempt.number);
        let wait = if uncounted { 0 } else { micros(retry.wait(node.tries.max(1), self.dice(name, last))) };
        let due = self.now().saturating_add(wait);
        let fits = node.total().is_none_or(|total| due.saturating_add(node.limit()) <= total);
        let concluded = if !retry.allows(code) || CONCLUDED.contains(&code) {
            "it is not to be tried again"
        } else if !uncounted && retry.attempts != 0 && node.tries >= retry.attempts {
            "no attempts are left"
        } else if !fits {
            "another attempt would not fit into its time"
        } else {
            self.attempt(name, due);
            return;
        };
        let message = format!("{message} ({concluded})");
        if node.holds() {
            self.hold(name, &message);
        } else {
            self.done(name, false, Some(message));
        }
    }

    /// Ends an attempt that did the job, and says what follows.
    pub(in crate::fleet::workplans) fn complete(
        &mut self,
        name: &Name,
        number: u32,
        found: Verdict,
        text: Option<String>,
        data: Option<serde_json::Value>,
    ) {
        let said = text.clone();
        self.attempted(name, number, AttemptState::Complete, |event| {
            if let Event::Attempt { verdict, message, details, .. } = event {
                (*verdict, *message, *details) = (Some(found), said, data);
            }
        });
        if self.plan.stops() && self.node(name).is_some_and(|node| !node.spec.compensation) {
            self.todo.push_back(Todo::End(name.clone(), Outcome::Cancelled, text));
        } else {
            self.judged(name, found, text);
        }
    }
}

/// Returns the id of the plan that is made for an attempt: the same however often it is made.
#[must_use]
pub fn child_id(plan: Uuid, node: &Name, number: u32) -> Uuid {
    let digest = Digest::of(format!("{plan}/{node}/{number}").as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_bytes()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}
