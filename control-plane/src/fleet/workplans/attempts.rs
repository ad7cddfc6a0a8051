//! Attempts: how far one is, who takes it, says that it lives, and how it ended.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use titan_api::{
    Code, Name, Problem,
    workplans::{
        AttemptState, Event, NodeState, PlanState,
        attempts::{ResultRequest, Verdict},
        nodes::Goal,
    },
};

use super::{
    flow::ITSELF,
    inputs::{Finished, wrong_state},
    nodes::Node,
    steps::Stop,
    working::Working,
};

/// An attempt of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Counts the attempts of the node, from 1.
    pub number: u32,
    /// How far it is.
    pub state: AttemptState,
    /// Since when, by the plan's clock.
    pub at: i64,
    /// When it may begin, if it is pending.
    pub due: i64,
    /// Who took it.
    pub uid: Option<String>,
    /// When its worker was told to stop.
    pub cancelling: Option<i64>,
    /// When its worker last said that it is at it. No event tells: it is no transition.
    pub beat: i64,
    /// Whether a result was given with it.
    pub answered: bool,
    /// The checks that it answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given: Vec<Name>,
}

impl Attempt {
    /// Whether it is on its way.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        !self.state.is_final()
    }

    /// Whether it answered a check. One that began before it was kept which ones answered all of them.
    #[must_use]
    pub fn gave(&self, check: &Name) -> bool {
        self.answered && (self.given.is_empty() || self.given.contains(check))
    }
}

impl Working {
    /// Checks that an attempt is on its way and this process has it.
    pub(super) fn held_by(&self, node: &Name, number: u32, uid: &str) -> Result<(), Stop> {
        let found = self.needed(node)?;
        let attempt = found.attempt.as_ref().filter(|attempt| attempt.number == number);
        let Some(attempt) = attempt else {
            return Err(Problem::not_found("attempt", format!("{number} of node {node}, or a later one began")).into());
        };
        match (&attempt.state, &attempt.uid) {
            (AttemptState::Running, Some(held)) if held == uid => Ok(()),
            (AttemptState::Running, _) => Err(taken(node, number)),
            (state, _) => {
                let detail = format!("attempt {number} of node {node} is {state}");
                Err(Problem::new(Code::InvalidTransition, detail).into())
            }
        }
    }

    pub(super) fn claim(&mut self, node: &Name, number: u32, uid: &str) -> Result<(), Stop> {
        let found = self.needed(node)?;
        match found.attempt.as_ref().filter(|attempt| attempt.number == number) {
            Some(attempt) if attempt.state == AttemptState::Running && attempt.uid.as_deref() == Some(uid) => Ok(()),
            Some(attempt) if attempt.state == AttemptState::Scheduled && self.plan.goes_on() => {
                self.attempted(node, number, AttemptState::Running, |event| {
                    if let Event::Attempt { process_uid, .. } = event {
                        *process_uid = Some(uid.to_owned());
                    }
                });
                Ok(())
            }
            Some(attempt) if attempt.state == AttemptState::Scheduled => {
                Err(wrong_state(self.plan.state, "begin anything"))
            }
            _ => Err(taken(node, number)),
        }
    }

    pub(super) fn beat(&mut self, node: &Name, number: u32, uid: &str) -> Result<(), Stop> {
        self.held_by(node, number, uid)?;
        let now = self.now();
        if let Some(attempt) = self.node_mut(node).and_then(|node| node.attempt.as_mut()) {
            attempt.beat = now;
        }
        Ok(())
    }

    pub(super) fn finished(&mut self, finished: &Finished) -> Result<(), Stop> {
        let Finished { node, number, uid, .. } = finished;
        let repeated = self.needed(node)?.attempt.as_ref().is_some_and(|attempt| {
            attempt.number == *number && attempt.state == AttemptState::Complete && attempt.uid.as_ref() == Some(uid)
        });
        if repeated && finished.end.is_ok() {
            return Ok(());
        }
        self.held_by(node, *number, uid)?;
        let answers = self.node(node).map(|node| node.spec.answers.clone()).unwrap_or_default();
        self.need(answers.iter().map(|answers| &answers.check))?;
        self.answers(node, *number, &finished.results)?;
        match &finished.end {
            Ok(verdict) => {
                let attempt = self.node(node).and_then(|node| node.attempt.as_ref());
                let silent = answers.iter().filter(|answers| {
                    answers.goal == Goal::Final && !attempt.is_some_and(|attempt| attempt.gave(&answers.check))
                });
                let failure = (*verdict != Verdict::Passed)
                    .then(|| finished.message.clone().unwrap_or_else(|| format!("{node} failed")));
                let implied: Vec<_> = silent
                    .map(|answers| ResultRequest {
                        check: answers.check.clone(),
                        data: Value::Null,
                        failure_message: failure.clone(),
                    })
                    .collect();
                self.answers(node, *number, &implied)?;
                self.complete(node, *number, *verdict, finished.message.clone(), finished.details.clone());
            }
            Err(code) => {
                let message = finished.message.clone().unwrap_or_else(|| code.clone());
                self.break_off_with(node, code, (Some(message.clone()), finished.details.clone()), true);
                self.failed(node, code, &message);
            }
        }
        Ok(())
    }

    /// Takes answers of an attempt. One that comes too late is written down and changes nothing.
    pub(super) fn answers(&mut self, node: &Name, number: u32, results: &[ResultRequest]) -> Result<(), Stop> {
        self.need(results.iter().map(|result| &result.check))?;
        let assigned = self.node(node).map(|node| node.spec.answers.clone()).unwrap_or_default();
        for result in results {
            let Some(check) = self.node(&result.check) else {
                return Err(Problem::not_found("node", &result.check).into());
            };
            if !assigned.iter().any(|answers| answers.check == result.check) {
                let detail = format!("{node} does not answer {}", result.check);
                return Err(Problem::new(Code::Invalid, detail.clone()).at("/results", detail).into());
            }
            if check.state == NodeState::Planning {
                let detail = format!("check {} is still being planned and takes no results", result.check);
                return Err(Problem::new(Code::InvalidTransition, detail).into());
            }
            let late = check.is_final();
            self.late |= late;
            self.emit(Event::Result {
                node: result.check.clone(),
                owner: format!("{node}/{number}"),
                failure_message: result.failure_message.clone(),
                data: result.data.clone(),
                late,
            });
        }
        if !results.is_empty() {
            let checks = results.iter().map(|result| result.check.clone()).collect();
            self.emit(Event::Answered { node: node.clone(), checks });
        }
        Ok(())
    }

    pub(super) fn lapse(&mut self, name: &Name, code: &str, message: &str, counts: bool) {
        self.break_off(name, code, Some(message.to_owned()), counts);
        self.failed(name, code, message);
    }

    pub(super) fn child(
        &mut self,
        node: &Name,
        number: u32,
        state: PlanState,
        reason: Option<&String>,
    ) -> Result<(), Stop> {
        self.need([node])?;
        let running = |attempt: &&Attempt| {
            attempt.number == number && attempt.state == AttemptState::Running && attempt.uid.as_deref() == Some(ITSELF)
        };
        if self.node(node).and_then(Node::live).filter(running).is_none() {
            return Ok(());
        }
        let (verdict, message) = match state {
            PlanState::Succeeded => (Verdict::Passed, None),
            state => {
                let because = reason.map_or_else(String::new, |reason| format!(": {reason}"));
                (Verdict::Failed, Some(format!("its plan is {state}{because}")))
            }
        };
        self.complete(node, number, verdict, message, None);
        Ok(())
    }
}

fn taken(node: &Name, number: u32) -> Stop {
    Problem::new(Code::AttemptTaken, format!("attempt {number} of node {node} is not free, or another process has it"))
        .into()
}
