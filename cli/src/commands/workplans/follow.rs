//! Following a plan: what is known of it, brought up to date again and again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::Value;
use titan_api::{
    Name, Revision,
    client::{Client, ClientError},
    status::HostState,
    strategies::releases::Counts,
    workplans::{AttemptState, Event, EventView, Executor, NodeState, NodeView, PlanState, PlanStatus},
};
use uuid::Uuid;

use super::shown::matters;

/// How many of the last events are kept to be shown.
const EVENTS: usize = 50;
/// Hosts that failed are asked for by name in deployments of up to so many hosts.
const ASKED_HOSTS: u64 = 1000;
/// Up to so many plans inside of a plan are shown with their nodes.
const CHILDREN: usize = 8;

/// A plan that is followed.
#[derive(Debug)]
pub(crate) struct Follow {
    client: Client,
    id: Uuid,
    /// The workspace and name of the deployment that it is the rollout of, if it is one.
    pub(crate) deployment: Option<(Name, Name)>,
    /// How far it is.
    pub(crate) status: PlanStatus,
    /// Its nodes by name, each with its last attempt.
    pub(crate) nodes: BTreeMap<Name, NodeView>,
    /// The nodes of the plans that its nodes run.
    pub(crate) children: BTreeMap<Name, BTreeMap<Name, NodeView>>,
    /// The last events that people care for, oldest first.
    pub(crate) events: VecDeque<EventView>,
    /// Who approved what is not decided yet.
    pub(crate) approvals: BTreeMap<Name, BTreeSet<String>>,
    /// When nodes began, and when they ended.
    pub(crate) times: BTreeMap<Name, (Revision, Option<Revision>)>,
    /// The state that it went to last, and when.
    pub(crate) stated: Option<(PlanState, Revision)>,
    /// What hosts said on which it failed.
    pub(crate) faults: BTreeMap<Name, String>,
    /// What happened and was not returned yet: the look before may have been cut off.
    news: Vec<EventView>,
    since: i64,
    seen: Option<i64>,
    failed: u64,
}

impl Follow {
    /// Begins to follow a plan.
    pub(crate) async fn begin(
        client: &Client,
        id: Uuid,
        deployment: Option<(Name, Name)>,
    ) -> Result<Self, ClientError> {
        Ok(Self::of(client, client.plan_status(id, 0).await?, deployment))
    }

    /// Returns a plan of which nothing but its status is known.
    pub(super) fn of(client: &Client, status: PlanStatus, deployment: Option<(Name, Name)>) -> Self {
        Self {
            client: client.clone(),
            id: status.id,
            deployment,
            status,
            nodes: BTreeMap::new(),
            children: BTreeMap::new(),
            events: VecDeque::new(),
            approvals: BTreeMap::new(),
            times: BTreeMap::new(),
            stated: None,
            faults: BTreeMap::new(),
            news: Vec::new(),
            since: 0,
            seen: None,
            failed: 0,
        }
    }

    /// Returns a plan as its status tells it, with who approved what of it is not decided yet, and with those steps of a
    /// rollout that had nothing to do.
    pub(super) async fn glance(
        client: &Client,
        status: PlanStatus,
        deployment: Option<(Name, Name)>,
    ) -> Result<Self, ClientError> {
        let mut plan = Self::of(client, status, deployment);
        plan.nodes = plan.status.current.iter().map(|node| (node.name.clone(), node.clone())).collect();
        // A rollout is called after its release.
        if plan.status.name.contains('#') {
            let ended = client.plan_nodes(plan.id, None, Some(NodeState::Final)).await?;
            plan.nodes.extend(ended.into_iter().filter(NodeView::is_no_op).map(|node| (node.name.clone(), node)));
        }
        // Of a gate that one may open, nobody has approved it as long as it waits.
        let several =
            |node: &NodeView| matches!(&node.spec.run, Some(Executor::Approval(approval)) if approval.minimum > 1);
        if plan.nodes.values().any(|node| node.state == NodeState::Waiting && several(node)) {
            plan.hear(0).await?;
        }
        Ok(plan)
    }

    /// Looks at the plan once something happened in it, after `wait` seconds at most, and returns what happened.
    pub(crate) async fn look(&mut self, wait: u64) -> Result<Vec<EventView>, ClientError> {
        self.hear(wait).await?;
        self.status = self.client.plan_status(self.id, 0).await?;
        if self.seen == Some(self.status.version) && self.nodes.len() >= self.status.current.len() {
            // What workers say meanwhile is no step of the plan.
            for node in &self.status.current {
                self.nodes.insert(node.name.clone(), node.clone());
            }
        } else {
            let nodes = self.client.plan_nodes(self.id, None, None).await?;
            self.nodes = nodes.into_iter().map(|node| (node.name.clone(), node)).collect();
            self.seen = Some(self.status.version);
        }
        self.look_inside().await?;
        self.ask_hosts().await?;
        Ok(std::mem::take(&mut self.news))
    }

    /// Reads what happened since it was read last, once there is something, after `wait` seconds at most.
    async fn hear(&mut self, mut wait: u64) -> Result<(), ClientError> {
        loop {
            let page = self.client.plan_events(self.id, self.since, wait).await?;
            wait = 0;
            self.since = page.items.last().map_or(self.since, |event| event.number);
            page.items.iter().for_each(|event| self.take(event));
            self.news.extend(page.items);
            if page.next.is_none() {
                return Ok(());
            }
        }
    }

    /// Whether nothing follows, and everything was seen.
    pub(crate) fn is_over(&self) -> bool {
        self.status.state.is_final() && self.seen == Some(self.status.version)
    }

    fn take(&mut self, event: &EventView) {
        match &event.event {
            Event::Plan { state, .. } => self.stated = Some((*state, event.at)),
            Event::Node { node, state: NodeState::Attempting | NodeState::Waiting, .. } => {
                self.times.insert(node.clone(), (event.at, None));
            }
            Event::Node { node, state: NodeState::Final, .. } => {
                let times = self.times.entry(node.clone()).or_insert((event.at, None));
                times.1 = Some(event.at);
            }
            Event::Approved { node, by } => {
                self.approvals.entry(node.clone()).or_default().insert(by.clone());
            }
            // Whoever approved it before did not approve it now.
            Event::Attempt { node, state: AttemptState::Pending | AttemptState::Scheduled, .. } => {
                self.approvals.remove(node);
            }
            _ => {}
        }
        if matters(&event.event) {
            if self.events.len() == EVENTS {
                self.events.pop_front();
            }
            self.events.push_back(event.clone());
        }
    }

    /// Reads the nodes of plans inside of it that go on, or that ended since they were read last.
    async fn look_inside(&mut self) -> Result<(), ClientError> {
        let running = self.nodes.values().filter_map(|node| Some((node.name.clone(), node.child?)));
        for (name, child) in running.take(CHILDREN).collect::<Vec<_>>() {
            let known = self.children.get(&name);
            let over = known.is_some_and(|nodes| nodes.values().all(|node| node.state == NodeState::Final));
            if !over {
                let nodes = self.client.plan_nodes(child, None, None).await?;
                self.children.insert(name, nodes.into_iter().map(|node| (node.name.clone(), node)).collect());
            }
        }
        Ok(())
    }

    /// Asks what hosts say on which a release failed, when more of them did.
    async fn ask_hosts(&mut self) -> Result<(), ClientError> {
        let Some((workspace, deployment)) = &self.deployment else { return Ok(()) };
        let all = || self.nodes.values().filter_map(counts);
        let failed = all().map(|counts| counts.failed).sum();
        if failed <= self.failed || all().map(|counts| counts.members).sum::<u64>() > ASKED_HOSTS {
            return Ok(());
        }
        let hosts = self.client.deployment_status(workspace, deployment).await?.hosts;
        self.failed = failed;
        for host in hosts {
            let said = host.problem.as_ref().map_or(host.message.as_str(), |problem| problem.detail.as_str());
            if host.state == HostState::Failed && !said.is_empty() {
                self.faults.insert(host.host, said.to_owned());
            }
        }
        Ok(())
    }
}

/// Returns how the hosts of a stage stand, as far as it said so.
pub(crate) fn counts(node: &NodeView) -> Option<Counts> {
    let attempt = node.attempts.last()?;
    let said = attempt.details.iter().chain(attempt.progress.iter().rev());
    let mut counts = said.filter_map(|said: &Value| serde_json::from_value(said.get("counts")?.clone()).ok());
    counts.next()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Write as _},
        net::TcpListener,
        thread,
    };

    use serde_json::json;

    use super::*;

    fn status() -> Value {
        json!({ "id": Uuid::nil(), "name": "p", "workspace": "default", "state": "running", "version": 1,
            "author": "token:admin", "createdAt": Revision::from_micros(0), "counts": {} })
    }

    /// Answers one request after the other: with a document, or by hanging up.
    fn control_plane(answers: Vec<(&'static str, Option<Value>)>) -> String {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let server = format!("http://{}", listener.local_addr().expect("its address"));
        thread::spawn(move || {
            for (path, answer) in answers {
                let (mut stream, _) = listener.accept().expect("a request");
                let lines = BufReader::new(stream.try_clone().expect("a stream")).lines().map_while(Result::ok);
                let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                assert!(head.first().is_some_and(|line| line.contains(path)), "{path}: {head:?}");
                if let Some(body) = answer.map(|body| body.to_string()) {
                    let head =
                        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ";
                    write!(stream, "{head}{}\r\n\r\n{body}", body.len()).expect("answered");
                }
            }
        });
        server
    }

    #[tokio::test]
    async fn what_happened_is_told_though_the_look_was_cut_off() {
        let event = json!({ "number": 1, "at": Revision::from_micros(0), "actor": "token:bob",
            "event": { "type": "approved", "node": "gate", "by": "token:bob" } });
        let server = control_plane(vec![
            ("/events?since=0", Some(json!({ "items": [event] }))),
            ("?wait=0", None),
            ("/events?since=1", Some(json!({ "items": [] }))),
            ("?wait=0", Some(status())),
            ("/nodes", Some(json!({ "items": [] }))),
        ]);
        let client = Client::new(&server, None).expect("a client");
        let mut plan = Follow::of(&client, serde_json::from_value(status()).expect("a status"), None);
        assert!(matches!(plan.look(0).await, Err(ClientError::Unreachable { .. })));
        let news = plan.look(0).await.expect("it is back");
        assert_eq!(news.iter().map(|event| event.number).collect::<Vec<_>>(), [1]);
    }
}
