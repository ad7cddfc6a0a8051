//! The part of a plan that a step works on.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use titan_api::{
    Name, Problem,
    workplans::{Condition, Event, NodeSpec, NodeState, Outcome, PlanState},
};

use super::{
    inputs::Input,
    nodes::Node,
    plan::Plan,
    steps::{Listing, Need, Order, Step, Stop},
    tally::{self, Link},
    turns::Turn,
};

/// What is still to be done in a step.
#[derive(Debug, Clone)]
pub(super) enum Todo {
    Input(Box<Input>),
    Resolve(Link, bool),
    Begin(Name),
    End(Name, Outcome, Option<String>),
    Check(Name),
    Children(Name),
    Votes(Name),
    Stop { state: PlanState, reason: Option<String>, ending: Option<PlanState> },
    Resume(Option<String>),
    Undo,
    LeaveOut,
}

/// The part of a plan that a step works on.
#[derive(Debug)]
pub struct Working {
    /// The plan.
    pub plan: Plan,
    pub(super) nodes: HashMap<Name, Option<Node>>,
    pub(super) specs: BTreeMap<Name, NodeSpec>,
    pub(super) links: HashMap<Name, Vec<Link>>,
    pub(super) listed: HashMap<Listing, Vec<Name>>,
    pub(super) whole: bool,
    pub(super) todo: VecDeque<Todo>,
    pub(super) events: Vec<Event>,
    turns: Vec<Turn>,
    pub(super) orders: Vec<Order>,
    pub(super) late: bool,
    pub(super) wall: i64,
    dice: u64,
    touched: BTreeSet<Name>,
    removed: BTreeSet<Name>,
    written: BTreeMap<Name, NodeSpec>,
    shifted: bool,
}

impl Working {
    /// Returns a part of a plan with no nodes yet, at a time of the wall clock in microseconds; `dice` is what chance is
    /// made of.
    #[must_use]
    pub fn new(plan: Plan, wall: i64, dice: u64) -> Self {
        Self {
            plan,
            nodes: HashMap::new(),
            specs: BTreeMap::new(),
            links: HashMap::new(),
            listed: HashMap::new(),
            whole: false,
            todo: VecDeque::new(),
            events: Vec::new(),
            turns: Vec::new(),
            orders: Vec::new(),
            late: false,
            wall,
            dice,
            touched: BTreeSet::new(),
            removed: BTreeSet::new(),
            written: BTreeMap::new(),
            shifted: false,
        }
    }

    /// Returns a plan of which nothing is missing: one that was just made, or that is made again from its events.
    #[must_use]
    pub fn whole(plan: Plan, wall: i64, dice: u64) -> Self {
        Self { whole: true, ..Self::new(plan, wall, dice) }
    }

    /// Begins another step on what is there, at another time.
    pub fn again(&mut self, wall: i64, dice: u64) {
        (self.wall, self.dice, self.late, self.shifted) = (wall, dice, false, false);
        self.todo.clear();
        self.listed.clear();
    }

    /// Gives nodes that were asked for; those that are not among them do not exist.
    pub fn give_nodes(&mut self, asked: &[Name], found: Vec<Node>) {
        for name in asked {
            self.nodes.entry(name.clone()).or_insert(None);
        }
        for node in found {
            self.nodes.insert(node.name.clone(), Some(node));
        }
    }

    /// Gives who waits for a node.
    pub fn give_links(&mut self, target: Name, links: Vec<Link>) {
        self.links.insert(target, links);
    }

    /// Gives the nodes of a sort. What the step knows better already stays.
    pub fn give_listed(&mut self, listing: Listing, found: Vec<Node>) {
        let names = found.iter().map(|node| node.name.clone()).collect();
        for node in found {
            self.nodes.entry(node.name.clone()).or_insert(Some(node));
        }
        self.listed.insert(listing, names);
    }

    /// Gives everything: nodes with what they say in full, edges included.
    pub fn give_whole(&mut self, found: Vec<(Node, NodeSpec)>) {
        self.links.clear();
        for (node, spec) in found {
            for link in tally::links(&node.name, &spec) {
                self.links.entry(link.target.clone()).or_default().push(link);
            }
            self.specs.insert(node.name.clone(), spec);
            self.nodes.entry(node.name.clone()).or_insert(Some(node));
        }
        self.whole = true;
    }

    /// Puts something that happens on the list.
    pub fn submit(&mut self, input: Input) {
        self.todo.push_back(Todo::Input(Box::new(input)));
    }

    /// Does what is to be done. Stopped for something missing, it goes on from there once that is given.
    pub fn advance(&mut self) -> Result<(), Stop> {
        loop {
            while let Some(todo) = self.todo.pop_front() {
                if let Err(stop) = self.perform(&todo) {
                    self.todo.push_front(todo);
                    return Err(stop);
                }
            }
            self.settle()?;
            if self.todo.is_empty() {
                return Ok(());
            }
        }
    }

    /// Takes out what the step did. What is left can do another one.
    #[must_use]
    pub fn finish(&mut self) -> Step {
        let touched = std::mem::take(&mut self.touched);
        let nodes = touched.iter().filter_map(|name| self.nodes.get(name)?.clone()).collect();
        Step {
            plan: self.plan.clone(),
            events: std::mem::take(&mut self.events),
            turns: std::mem::take(&mut self.turns),
            nodes,
            removed: std::mem::take(&mut self.removed).into_iter().collect(),
            written: std::mem::take(&mut self.written),
            orders: std::mem::take(&mut self.orders),
            shifted: std::mem::take(&mut self.shifted),
            late: std::mem::take(&mut self.late),
        }
    }

    /// Takes in an event, and remembers it as something that the step did.
    pub(super) fn emit(&mut self, event: Event) {
        let before = event.node().and_then(|name| self.node(name));
        self.turns.extend(Turn::of(&event, before));
        self.apply(&event);
        if let Some(name) = event.node() {
            self.touched.insert(name.clone());
        }
        match &event {
            Event::Written { node, spec } => {
                self.written.insert(node.clone(), NodeSpec::clone(spec));
                self.removed.remove(node);
            }
            Event::Removed { node } => {
                self.removed.insert(node.clone());
                self.written.remove(node);
            }
            Event::Plan { .. } => self.shifted = true,
            _ => {}
        }
        self.events.push(event);
    }

    /// Takes in an event: the one way in which anything changes, whether it happens or is read back.
    pub fn apply(&mut self, event: &Event) {
        let before = event.node().and_then(|name| self.nodes.get(name)).and_then(Option::as_ref);
        self.plan.apply(event, before);
        match event {
            Event::Written { node, spec } => {
                let slot = self.nodes.entry(node.clone()).or_insert(None);
                match slot {
                    Some(known) => known.apply(event),
                    None => *slot = Some(Node::new(node, spec)),
                }
                self.unlink(node);
                for link in tally::links(node, spec) {
                    if self.whole || self.links.contains_key(&link.target) {
                        self.links.entry(link.target.clone()).or_default().push(link);
                    }
                }
                self.specs.insert(node.clone(), NodeSpec::clone(spec));
            }
            Event::Removed { node } => {
                self.nodes.insert(node.clone(), None);
                self.specs.remove(node);
                self.unlink(node);
            }
            _ => {
                if let Some(Some(node)) = event.node().and_then(|name| self.nodes.get_mut(name)) {
                    node.apply(event);
                }
            }
        }
    }

    fn unlink(&mut self, source: &Name) {
        if self.specs.contains_key(source) {
            self.links.values_mut().for_each(|links| links.retain(|link| link.source != *source));
        }
    }

    /// Returns every node, by name.
    #[must_use]
    pub fn all(&self) -> BTreeMap<&Name, &Node> {
        self.nodes.iter().filter_map(|(name, node)| Some((name, node.as_ref()?))).collect()
    }

    /// Returns a node that was asked for before; `None` if there is none.
    pub(super) fn node(&self, name: &Name) -> Option<&Node> {
        self.nodes.get(name)?.as_ref()
    }

    pub(super) fn node_mut(&mut self, name: &Name) -> Option<&mut Node> {
        self.touched.insert(name.clone());
        self.nodes.get_mut(name)?.as_mut()
    }

    /// Asks for nodes.
    pub(super) fn need<'a>(&self, names: impl IntoIterator<Item = &'a Name>) -> Result<(), Stop> {
        if self.whole {
            return Ok(());
        }
        let missing: BTreeSet<_> = names.into_iter().filter(|name| !self.nodes.contains_key(*name)).collect();
        match missing.is_empty() {
            true => Ok(()),
            false => Err(Stop::Missing(Need::Nodes(missing.into_iter().cloned().collect()))),
        }
    }

    /// Asks for a node that has to be there.
    pub(super) fn needed(&self, name: &Name) -> Result<&Node, Stop> {
        self.need([name])?;
        self.node(name).ok_or_else(|| Problem::not_found("node", name).into())
    }

    /// Asks who waits for a node.
    pub(super) fn need_links(&self, target: &Name) -> Result<(), Stop> {
        if self.whole || self.links.contains_key(target) {
            return Ok(());
        }
        Err(Stop::Missing(Need::Dependants(target.clone())))
    }

    /// Asks for all nodes of a sort, and returns those that are of it now.
    pub(super) fn listed(&self, listing: Listing) -> Result<Vec<Name>, Stop> {
        let of = |node: &Node| match listing {
            Listing::Open => !node.is_final(),
            Listing::Ready => node.state == NodeState::Planned && node.is_ready(),
        };
        if !self.whole && !self.listed.contains_key(&listing) {
            return Err(Stop::Missing(Need::Listed(listing)));
        }
        let names: BTreeSet<_> =
            self.nodes.values().flatten().filter(|node| of(node)).map(|node| node.name.clone()).collect();
        Ok(names.into_iter().collect())
    }

    /// Asks for everything.
    pub(super) fn need_whole(&self) -> Result<(), Stop> {
        if self.whole { Ok(()) } else { Err(Stop::Missing(Need::Whole)) }
    }

    /// Returns the time of the plan's clock.
    pub(super) fn now(&self) -> i64 {
        self.plan.clock(self.wall)
    }

    /// Returns a number by chance, the same for the same step, node and attempt.
    pub(super) fn dice(&self, node: &Name, number: u32) -> u64 {
        let mut mixed = self.dice ^ u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for byte in node.bytes() {
            mixed = (mixed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        mixed ^= mixed >> 29;
        mixed = mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 32)
    }

    /// Returns who waits for a node, of those edges that its end decides.
    pub(super) fn waiting(&self, target: &Name, begun: bool) -> Vec<Link> {
        let links = self.links.get(target).map(Vec::as_slice).unwrap_or_default();
        links.iter().filter(|link| (link.condition == Condition::Begun) == begun).cloned().collect()
    }

    /// Returns whether the nodes that are there are exactly the same as in `other`, times of heartbeats aside.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        let quiet = |working: &Self| -> BTreeMap<Name, Node> {
            let each = working.nodes.iter().filter_map(|(name, node)| Some((name.clone(), node.clone()?)));
            each.map(|(name, mut node)| {
                if let Some(attempt) = &mut node.attempt {
                    attempt.beat = 0;
                }
                (name, node)
            })
            .collect()
        };
        self.plan == other.plan && quiet(self) == quiet(other)
    }
}
