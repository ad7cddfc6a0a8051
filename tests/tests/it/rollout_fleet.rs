//! A fleet of a hundred real agents: a release reaches it stage by stage, stops itself, is taken back, and goes on after the
//! control plane was killed. What is claimed of hosts is what is found on them.

mod failures;
mod restarts;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
    sync::Mutex,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use titan_api::{
    changes::ApplyRequest,
    client::{Client, WriteOptions},
    enrolment::TokenRequest,
    status::HostDeployment,
    workplans::{NodeView, PlanStatus, Signal, SignalRequest},
};
use titan_tests::{
    crowds::Crowd,
    manifests::{deployment, target, template, workload},
    nodes::PlaneNode,
};

/// Hosts with an agent.
const HOSTS: usize = 100;
/// How long one step of a rollout may take on a machine that does something else as well.
const PATIENCE: Duration = Duration::from_secs(120);
/// The file that says which release a host has, below its root.
pub(crate) const VERSION: &str = "default/web/version";

/// A control plane as a process of its own, two people, and the agents.
struct Fleet {
    folder: TempDir,
    port: u16,
    node: PlaneNode,
    admin: Client,
    /// Who opens gates: not who changes what is handed out.
    reviewer: Client,
    crowd: Crowd,
}

impl Fleet {
    /// Starts all of it with the first release on every host, `one`.
    async fn start() -> Self {
        let folder = TempDir::with_prefix("titan-fleet-").expect("a folder");
        let port = titan_tests::postgres::free_port().expect("a port");
        let (node, admin) = control_plane(folder.path(), port, |_| {}).await;
        let token = TokenRequest { name: "reviewer".parse().expect("a name"), ttl_seconds: None };
        let token = admin.create_token(&token).await.expect("a token").token;
        let reviewer = Client::new(&node.server, Some(token)).expect("a client");
        let crowd = Crowd::join(&admin, &node.server, "h", HOSTS).await.expect("agents");
        let fleet = Self { folder, port, node, admin, reviewer, crowd };
        for host in fleet.hosts() {
            fleet.fit(&host, "one two three");
        }
        let files = [("template.yaml", HEALTH), ("version.j2", "{{ workload.version }}\n{{ host.name }}\n")];
        fleet.write(vec![template("t", &files), target("all", "")]).await;
        fleet.apply("one", &Value::Null).await;
        fleet.plan("web#1", |plan| plan.state.is_final()).await;
        fleet.has(&[("one", HOSTS)]).await;
        fleet
    }

    fn hosts(&self) -> BTreeSet<String> {
        self.crowd.hosts().map(str::to_owned).collect()
    }

    /// Says which releases can run on a host.
    fn fit(&self, host: &str, versions: &str) {
        fs::write(self.crowd.folder(host).join("fit"), versions).expect("written");
    }

    async fn write(&self, resources: Vec<Value>) {
        let request = ApplyRequest { resources, ..ApplyRequest::default() };
        self.admin.apply(&request, &WriteOptions::default()).await.expect("written");
    }

    /// Declares a version as whoever works from Git does: the same documents again, changed or not; waits until it is
    /// decided.
    async fn apply(&self, version: &str, strategy: &Value) {
        let mut more = json!({ "values": { "folder": self.crowd.path() } });
        if !strategy.is_null() {
            more["strategy"] = strategy.clone();
        }
        self.write(vec![workload("w", version), deployment("web", "w", "t", "all", &more)]).await;
        self.admin.plan(&ApplyRequest::default()).await.expect("decided");
    }

    /// Waits until the rollout of a release is as it is to be.
    async fn plan(&self, release: &str, when: impl Fn(&PlanStatus) -> bool) -> PlanStatus {
        plan(&self.admin, release, when).await
    }

    /// Waits until so many hosts have these versions in place, and no others.
    async fn has(&self, counts: &[(&str, usize)]) {
        let wanted: BTreeMap<String, usize> = counts.iter().map(|(line, count)| ((*line).to_owned(), *count)).collect();
        let last = Mutex::new(BTreeMap::new());
        wait_for(
            async || {
                *last.lock().expect("last") = self.crowd.count(VERSION).expect("files");
                *last.lock().expect("last") == wanted
            },
            || format!("{wanted:?} is not {:?}", last.lock().expect("last")),
        )
        .await;
    }

    /// Returns the hosts that have a version in place.
    fn with(&self, version: &str) -> BTreeSet<String> {
        let lines = self.crowd.lines(VERSION).expect("files");
        lines.into_iter().filter(|(_, (line, _))| line == version).map(|(host, _)| host).collect()
    }

    /// Returns what the control plane knows of the deployment on each host.
    async fn told(&self) -> BTreeMap<String, HostDeployment> {
        let status = self.admin.deployment_status("default", "web").await.expect("status");
        status.hosts.into_iter().map(|host| (host.host.as_str().to_owned(), host)).collect()
    }

    /// Returns what came of each stage and check of a rollout, for whoever reads why a test failed.
    async fn story(&self, plan: &PlanStatus) -> String {
        let nodes = self.admin.plan_nodes(plan.id, None, None).await.expect("nodes");
        let line = |node: &NodeView| format!("{} {:?} {:?} {:?}", node.name, node.state, node.outcome, node.message);
        let lines: Vec<_> = nodes.iter().map(line).collect();
        format!("{} is {}: {}", plan.name, plan.state, lines.join("; "))
    }

    /// Opens the gate of a rollout.
    async fn approve(&self, plan: &PlanStatus, gate: &str) {
        let node = current(plan, gate).expect("the gate waits");
        let approve = SignalRequest {
            node: Some(node.name.clone()),
            generation: Some(node.generation),
            ..SignalRequest::new(Signal::Approve, format!("{gate} of {}", plan.name))
        };
        self.reviewer.signal(plan.id, &approve).await.expect("approved");
    }

    /// Tells a rollout something.
    async fn tell(&self, plan: &PlanStatus, signal: Signal) {
        let id = format!("{signal} {} at {}", plan.name, plan.version);
        let request = SignalRequest { reason: Some("we know better".to_owned()), ..SignalRequest::new(signal, id) };
        self.reviewer.signal(plan.id, &request).await.expect("told");
    }

    /// Kills the control plane as a power cut does and starts it again at the same address.
    async fn restart(&mut self, change: impl FnOnce(&mut Command)) {
        self.node.process.kill().expect("killed");
        (self.node, self.admin) = control_plane(self.folder.path(), self.port, change).await;
    }
}

/// Every release is proven by the host's own service: a file of its owner that says which versions it can run.
pub(crate) const HEALTH: &str = "health:
  interval: 1s
  timeout: 1s
  deadline: 3s
  probes: [{ file: { path: '{{ values.folder }}/{{ host.name }}/fit', contains: '{{ workload.version }}' } }]
";

/// A canary, a few behind a gate, and all others; more than 3 % failures take the release back.
fn gated() -> Value {
    json!({
        "stages": [
            { "name": "canary", "hosts": 1, "minReadySeconds": 1 },
            { "name": "early", "hosts": "10%", "minReadySeconds": 1, "maxUnavailable": 3, "checks": [{ "approval": {} }] },
            { "name": "rest", "hosts": "100%", "minReadySeconds": 1, "maxUnavailable": "30%" },
        ],
        "maxFailures": "3%",
        "progressDeadline": "1m",
    })
}

async fn control_plane(folder: &Path, port: u16, change: impl FnOnce(&mut Command)) -> (PlaneNode, Client) {
    let url = format!("sqlite://{}", folder.join("titan.db").display());
    let mut node = PlaneNode::start_at(crate::NODE, folder, &url, port, change).expect("started");
    assert!(node.ready().await.expect("ready"), "the control plane does not start");
    let token = fs::read_to_string(folder.join("token")).expect("a token").trim().to_owned();
    let admin = Client::new(&node.server, Some(token)).expect("a client");
    (node, admin)
}

/// Returns a node of a rollout that has begun and is not final.
pub(crate) fn current<'a>(plan: &'a PlanStatus, node: &str) -> Option<&'a NodeView> {
    plan.current.iter().find(|view| *view.name == *node)
}

/// Waits until the rollout of a release is as it is to be.
pub(crate) async fn plan(admin: &Client, release: &str, when: impl Fn(&PlanStatus) -> bool) -> PlanStatus {
    let last = Mutex::new(None);
    wait_for(
        async || {
            let plans = admin.plans(Some("default"), 100).await.expect("plans");
            let Some(found) = plans.items.into_iter().find(|plan| plan.name == release) else { return false };
            let found = admin.plan_status(found.id, 0).await.expect("a plan");
            let as_wanted = when(&found);
            *last.lock().expect("last") = Some(found);
            as_wanted
        },
        || format!("{release}: {:#?}", last.lock().expect("last")),
    )
    .await;
    last.into_inner().expect("last").expect("a plan")
}

/// Waits until something holds.
pub(crate) async fn wait_for(mut holds: impl AsyncFnMut() -> bool, otherwise: impl Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?}: {}", otherwise());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
