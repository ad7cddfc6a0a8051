//! Events: every transition of a plan. Applied in their order to nothing they give the plan as it is.

use serde::{Deserialize, Serialize};

use super::{
    AttemptState, Condition, NodeSpec, NodeState, Outcome, PlanState, Signal, WorkPlanSpec, attempts::Verdict,
};
use crate::{Name, Revision, spans::Span, values::Values};

/// One event of a plan, as it is kept and read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventView {
    /// Counts the events of the plan, from 1, without a hole.
    pub number: i64,
    /// When it happened.
    pub at: Revision,
    /// Who made it happen; `system` if nobody did.
    pub actor: String,
    /// What happened.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub event: Event,
}

/// What happened to a plan. Times in it are of the plan's own clock, in microseconds, which stands still while it is
/// paused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "type")]
pub enum Event {
    /// The plan was made.
    Made {
        /// What was declared, without its nodes.
        spec: Box<WorkPlanSpec>,
        /// Whose it is.
        author: String,
        /// When.
        at: i64,
    },
    /// What was declared of the plan itself changed before it was started.
    Declared {
        /// What is declared now, without its nodes.
        spec: Box<WorkPlanSpec>,
    },
    /// A node was written.
    Written {
        /// The node.
        node: Name,
        /// What it says.
        spec: Box<NodeSpec>,
    },
    /// A node that a plan had before it was started was taken out again.
    Removed {
        /// The node.
        node: Name,
    },
    /// The plan went on to another state.
    Plan {
        /// Which.
        state: PlanState,
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// When, by the clock that never stands still.
        wall: i64,
        /// What it ends as, if it is being stopped and that is not `aborted`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ending: Option<PlanState>,
    },
    /// A person told the plan something.
    Signalled {
        /// What.
        signal: Signal,
        /// Under which request id.
        request_id: String,
        /// About which node.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<Name>,
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Values or the deadline changed.
    Updated {
        /// The values now.
        values: Values,
        /// The deadline now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<Span>,
    },
    /// A node went on to another state.
    Node {
        /// The node.
        node: Name,
        /// The state.
        state: NodeState,
        /// What came of it, if it is final.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        outcome: Option<Outcome>,
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// When.
        at: i64,
    },
    /// Something that a node waited for came about, or never will.
    Edge {
        /// The node that waits.
        node: Name,
        /// Whom for.
        target: Name,
        /// What for.
        #[serde(with = "condition")]
        condition: Condition,
        /// In which of its groups, counted through.
        group: u32,
        /// Whether it came about.
        met: bool,
    },
    /// A stage that answers a check, or is a child of this node, came to its end or was added.
    Counted {
        /// The node that counts.
        node: Name,
        /// What it counts.
        what: Counted,
        /// One more, or one less.
        by: i32,
        /// Whether the one that ended failed.
        #[serde(default)]
        failed: bool,
    },
    /// An attempt was made or went on.
    Attempt {
        /// The node.
        node: Name,
        /// The number of the attempt.
        number: u32,
        /// Its state.
        state: AttemptState,
        /// When.
        at: i64,
        /// When it may begin, if it is pending.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        due: Option<i64>,
        /// Who took it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        process_uid: Option<String>,
        /// What came of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        verdict: Option<Verdict>,
        /// Why the job was not done.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
        /// What to tell people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// What came of it, for programs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        details: Option<serde_json::Value>,
        /// Whether it counts among the attempts of the policy.
        #[serde(default)]
        counts: bool,
    },
    /// The worker of an attempt was told to stop.
    Cancelling {
        /// The node.
        node: Name,
        /// When.
        at: i64,
    },
    /// A check was answered.
    Result {
        /// The check.
        node: Name,
        /// Which attempt gave it, or who.
        owner: String,
        /// Why the answer is no.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure_message: Option<String>,
        /// What was found.
        #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
        data: serde_json::Value,
        /// Whether it was answered when nothing could change any more.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        late: bool,
    },
    /// The present attempt of a stage answered checks.
    Answered {
        /// The stage.
        node: Name,
        /// The checks.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        checks: Vec<Name>,
    },
    /// A person approved a gate.
    Approved {
        /// The gate.
        node: Name,
        /// Who.
        by: String,
    },
    /// A node waits for a person, or no longer does.
    Held {
        /// The node.
        node: Name,
        /// Whether it does.
        held: bool,
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// A plan was made for a stage.
    Child {
        /// The stage.
        node: Name,
        /// The plan.
        plan: uuid::Uuid,
    },
}

mod condition {
    //! [`Condition`] with the one that people do not write.

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Condition;

    pub(super) fn serialize<S: Serializer>(condition: &Condition, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(condition.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Condition, D::Error> {
        let text = String::deserialize(deserializer)?;
        Condition::from_word(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is not a condition")))
    }
}

/// What a node counts of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Counted {
    /// Stages that put a check together.
    Planners,
    /// Stages that answer a check.
    Answerers,
    /// Children of a stage.
    Children,
}

impl Event {
    /// Returns the node that it is about; `None` if it is about the plan.
    #[must_use]
    pub const fn node(&self) -> Option<&Name> {
        match self {
            Self::Made { .. } | Self::Declared { .. } | Self::Plan { .. } | Self::Updated { .. } => None,
            Self::Signalled { node, .. } => node.as_ref(),
            Self::Written { node, .. }
            | Self::Removed { node }
            | Self::Node { node, .. }
            | Self::Edge { node, .. }
            | Self::Counted { node, .. }
            | Self::Attempt { node, .. }
            | Self::Cancelling { node, .. }
            | Self::Result { node, .. }
            | Self::Answered { node, .. }
            | Self::Approved { node, .. }
            | Self::Held { node, .. }
            | Self::Child { node, .. } => Some(node),
        }
    }

    /// Returns what happened in a few words, for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let because = |message: &Option<String>| message.as_ref().map_or_else(String::new, |text| format!(": {text}"));
        match self {
            Self::Made { author, .. } => format!("made by {author}"),
            Self::Declared { .. } => "declared anew".to_owned(),
            Self::Written { spec, .. } => format!("written as a {}", spec.kind),
            Self::Removed { .. } => "taken out".to_owned(),
            Self::Plan { state, reason, .. } => format!("{state}{}", because(reason)),
            Self::Signalled { signal, reason, .. } => format!("told to {signal}{}", because(reason)),
            Self::Updated { .. } => "values or deadline changed".to_owned(),
            Self::Node { state, outcome, message, .. } => match outcome {
                Some(outcome) => format!("{state}, {outcome}{}", because(message)),
                None => format!("{state}{}", because(message)),
            },
            Self::Edge { target, condition, met: true, .. } => format!("{target} is {}", condition.as_str()),
            Self::Edge { target, condition, .. } => format!("{target} will never be {}", condition.as_str()),
            Self::Counted { what, by, .. } => format!("{by:+} {what:?}").to_lowercase(),
            Self::Attempt { number, state, code, message, .. } => {
                let code = code.as_ref().map_or_else(String::new, |code| format!(" ({code})"));
                format!("attempt {number} {state}{code}{}", because(message))
            }
            Self::Cancelling { .. } => "its worker is told to stop".to_owned(),
            Self::Result { owner, failure_message, late, .. } => {
                let late = if *late { ", too late" } else { "" };
                let verdict = if failure_message.is_some() { "no" } else { "yes" };
                format!("answered {verdict} by {owner}{late}{}", because(failure_message))
            }
            Self::Answered { .. } => "answered".to_owned(),
            Self::Approved { by, .. } => format!("approved by {by}"),
            Self::Held { held: true, message, .. } => format!("waits for a person{}", because(message)),
            Self::Held { .. } => "goes on".to_owned(),
            Self::Child { plan, .. } => format!("runs plan {plan}"),
        }
    }
}
