//! Steps: what one asks for, why it stops, and what comes of it.

use std::collections::BTreeMap;

use titan_api::{
    Name, Problem,
    workplans::{Event, NodeSpec, WorkPlanSpec},
};
use uuid::Uuid;

use super::{nodes::Node, plan::Plan, turns::Turn};

/// What a step has not got yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// These nodes.
    Nodes(Vec<Name>),
    /// Who waits for this node: its edges.
    Dependants(Name),
    /// All nodes of a sort.
    Listed(Listing),
    /// Every node, every edge, and what each node says in full.
    Whole,
}

/// A sort of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Listing {
    /// Those that are not final.
    Open,
    /// Those that are planned and wait for nothing any more.
    Ready,
}

/// Why a step stopped.
#[derive(Debug)]
pub enum Stop {
    /// It needs more; given that, it goes on.
    Missing(Need),
    /// It is not to be: nothing is written.
    Refused(Box<Problem>),
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Refused(Box::new(problem))
    }
}

/// What is to be done with other plans, in the same transaction.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// A plan is to be made for an attempt.
    Child {
        /// Its id.
        id: Uuid,
        /// The stage.
        node: Name,
        /// The attempt.
        number: u32,
        /// The plan.
        spec: Box<WorkPlanSpec>,
    },
    /// A plan that was made for an attempt is to be stopped.
    StopChild(Uuid),
}

/// What came of a step.
#[derive(Debug)]
pub struct Step {
    /// The plan after it.
    pub plan: Plan,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// The attempts that went on, in order.
    pub turns: Vec<Turn>,
    /// The nodes that changed; those of `removed` are gone.
    pub nodes: Vec<Node>,
    /// Nodes that were taken out.
    pub removed: Vec<Name>,
    /// Nodes that were written: what they say, and their edges.
    pub written: BTreeMap<Name, NodeSpec>,
    /// What is to be done with other plans.
    pub orders: Vec<Order>,
    /// Whether the clock of the plan began or ceased to stand still.
    pub shifted: bool,
    /// Whether an answer came too late; it is in the events alone.
    pub late: bool,
}
