//! Signals: what people tell a plan. Each is a validated update, taken once.

use serde::{Deserialize, Serialize};

use super::states::words;
use crate::{Name, Revision, limits, problems::Fault, spans::Span, values::Values};

words! {
    /// What a plan is told.
    Signal {
        /// Begin.
        Start = "start",
        /// Begin nothing new and stop the clocks.
        Pause = "pause",
        /// Go on.
        Resume = "resume",
        /// The gate may open.
        Approve = "approve",
        /// The gate stays closed.
        Reject = "reject",
        /// Go on as if the node had passed.
        Skip = "skip",
        /// Try the node again, now.
        Retry = "retry",
        /// Change values or the deadline.
        Update = "update",
        /// Stop.
        Abort = "abort",
        /// Stop and undo.
        Rollback = "rollback",
    }
}

impl Signal {
    /// Whether it is about one node.
    #[must_use]
    pub const fn is_about_a_node(self) -> bool {
        matches!(self, Self::Approve | Self::Reject | Self::Skip | Self::Retry)
    }

    /// Whether it needs a reason.
    #[must_use]
    pub const fn needs_a_reason(self) -> bool {
        matches!(self, Self::Reject | Self::Skip | Self::Abort | Self::Rollback)
    }
}

/// The body of `POST /v1/workplans/{id}/signals`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SignalRequest {
    /// What it is told.
    pub signal: Signal,
    /// Makes the signal be taken once, however often it is sent.
    pub request_id: String,
    /// Why; needed for reject, skip, abort and rollback, and to start the release that was taken back before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The node, for signals about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Name>,
    /// The node's generation as the person saw it; needed for approve and reject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// What changes of the plan's values, as a merge patch, for update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub values: Option<Values>,
    /// The new deadline, from the start of the plan, for update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,
}

impl SignalRequest {
    /// Returns a signal without anything beside it.
    #[must_use]
    pub fn new(signal: Signal, request_id: impl Into<String>) -> Self {
        let request_id = request_id.into();
        Self { signal, request_id, reason: None, node: None, generation: None, values: None, deadline: None }
    }

    /// Returns what is wrong with the signal, whatever the plan.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let most = limits::SIGNAL_TEXT_BYTES;
        if !(1..=128).contains(&self.request_id.len()) || self.request_id.contains(char::is_control) {
            faults.push(Fault::new(
                "/requestId",
                "it is 1 to 128 bytes without control characters, made up by the caller",
            ));
        }
        let reason = self.reason.as_deref().unwrap_or_default();
        if reason.len() > most {
            faults.push(Fault::new("/reason", format!("{} bytes, the limit is {most}", reason.len())));
        }
        if self.signal.needs_a_reason() && reason.trim().is_empty() {
            faults.push(Fault::new("/reason", format!("{} takes a reason", self.signal)));
        }
        if self.signal.is_about_a_node() && self.node.is_none() {
            faults.push(Fault::new("/node", format!("{} names a node", self.signal)));
        } else if !self.signal.is_about_a_node() && self.node.is_some() {
            faults.push(Fault::new("/node", format!("{} is about the whole plan", self.signal)));
        }
        if matches!(self.signal, Signal::Approve | Signal::Reject) && self.generation.is_none() {
            let detail = format!("{} names the node's generation as it was seen", self.signal);
            faults.push(Fault::new("/generation", detail));
        }
        let update = self.signal == Signal::Update;
        if update && self.values.is_none() && self.deadline.is_none() {
            faults.push(Fault::new("/values", "update changes values, the deadline, or both"));
        } else if !update && (self.values.is_some() || self.deadline.is_some()) {
            faults.push(Fault::new("/values", format!("{} changes neither values nor the deadline", self.signal)));
        }
        if let Some(deadline) = self.deadline {
            faults.extend(deadline.fault("/deadline", limits::SPAN_LEAST, limits::PLAN_SPAN_MOST));
        }
        faults
    }
}

/// The answer: the signal was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SignalAnswer {
    /// The signal.
    pub signal: Signal,
    /// When it was taken.
    pub accepted_at: Revision,
    /// The plan's version after it.
    pub version: i64,
    /// Whether it was taken before, under the same request id.
    pub repeated: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(request: &SignalRequest) -> Vec<String> {
        request.faults().into_iter().map(|fault| fault.pointer).collect()
    }

    /// S4-12: what stops a plan says why.
    #[test]
    fn signals_bring_what_they_need() {
        let node = Name::new("gate").expect("name");
        for signal in Signal::ALL {
            let request = SignalRequest::new(signal, "r");
            let mut expected: Vec<&str> = Vec::new();
            expected.extend(signal.needs_a_reason().then_some("/reason"));
            expected.extend(signal.is_about_a_node().then_some("/node"));
            expected.extend(matches!(signal, Signal::Approve | Signal::Reject).then_some("/generation"));
            expected.extend((signal == Signal::Update).then_some("/values"));
            assert_eq!(pointers(&request), expected, "{signal}");
        }
        let about_all = SignalRequest { node: Some(node), ..SignalRequest::new(Signal::Pause, "r") };
        assert_eq!(pointers(&about_all), ["/node"]);
        assert_eq!(pointers(&SignalRequest::new(Signal::Pause, "")), ["/requestId"]);
        assert_eq!(pointers(&SignalRequest::new(Signal::Pause, "x".repeat(129))), ["/requestId"]);
        assert_eq!(pointers(&SignalRequest::new(Signal::Pause, "x\0")), ["/requestId"]);
        let long = SignalRequest { reason: Some("x".repeat(1025)), ..SignalRequest::new(Signal::Pause, "r") };
        assert_eq!(pointers(&long), ["/reason"]);
    }
}
