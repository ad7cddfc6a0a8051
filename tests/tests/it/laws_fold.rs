//! Law 3: whatever happens, a host that keeps polling ends with exactly its assignments. And law 4: every cause moves the
//! feed.
//!
//! Histories are made at random: writes of every sort, polls at any time, lost answers, agents that restart or come back
//! from the past, a control plane that restarts. The agents fold with the agent's own code. In the end each agent holds
//! what a full answer says, and deciding everything from scratch finds nothing that the planner missed.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};
use titan_agent::desired::Desired;
use titan_api::{Revision, poll::PollAnswer};
use titan_tests::{
    databases::{self, Database},
    fleets::{Fleet, document},
};

/// Histories on SQLite, over all threads.
const HISTORIES: u32 = 10_000;
/// Histories on PostgreSQL.
const HISTORIES_POSTGRES: u32 = 300;
const HOSTS: usize = 3;

/// What can happen. Numbers pick a host, a deployment or a content.
#[derive(Debug, Clone)]
enum Step {
    Template(u8),
    OwnTemplate(Option<u8>),
    Workload(u8),
    Workspace(u8),
    Target(u8),
    Deployment(u8, DeploymentEdit),
    DeleteDeployment(u8),
    Host(u8, HostEdit),
    DeleteHost(u8, bool),
    Facts(u8, u8),
    Plan,
    Follow,
    Poll { host: u8, lost: bool, have: bool },
    Acknowledge(u8),
    RestartAgent(u8),
    RememberAgent(u8),
    AgentFromThePast(u8),
    RestartPlane,
    ClockBack,
    Chunks(u8),
    Cadence(u8),
}

#[derive(Debug, Clone)]
enum DeploymentEdit {
    Values(u8),
    Override(u8),
    Replicas(u8),
    Requests(u8),
    Tolerates(bool),
    Spread(Option<bool>),
    OnRemove(bool),
    Again,
}

#[derive(Debug, Clone)]
enum HostEdit {
    Zone(u8),
    Values(u8),
    Access(bool),
    Cordon(bool),
    /// How many cores it has, or however many.
    Capacity(Option<u8>),
    /// Whether it drives off whoever does not tolerate it, or only takes nothing new.
    Taint(Option<bool>),
    /// A file as a person left it, of a deployment that there may be, with a path that the template may have; or none.
    Files(Option<(u8, u8, bool)>),
}

fn step() -> impl Strategy<Value = Step> {
    let small = 0..3_u8;
    let edit = prop_oneof![
        (0..3_u8).prop_map(DeploymentEdit::Values),
        (0..3_u8).prop_map(DeploymentEdit::Override),
        (0..4_u8).prop_map(DeploymentEdit::Replicas),
        (0..4_u8).prop_map(DeploymentEdit::Requests),
        any::<bool>().prop_map(DeploymentEdit::Tolerates),
        prop::option::of(any::<bool>()).prop_map(DeploymentEdit::Spread),
        any::<bool>().prop_map(DeploymentEdit::OnRemove),
        Just(DeploymentEdit::Again),
    ];
    let host_edit = prop_oneof![
        3 => (0..3_u8).prop_map(HostEdit::Zone),
        1 => (0..3_u8).prop_map(HostEdit::Values),
        1 => any::<bool>().prop_map(HostEdit::Access),
        1 => any::<bool>().prop_map(HostEdit::Cordon),
        2 => prop::option::of(0..4_u8).prop_map(HostEdit::Capacity),
        1 => prop::option::of(any::<bool>()).prop_map(HostEdit::Taint),
        1 => prop::option::of((0..3_u8, 0..2_u8, prop::bool::weighted(0.9))).prop_map(HostEdit::Files),
    ];
    prop_oneof![
        2 => small.clone().prop_map(Step::Template),
        1 => prop::option::of(small.clone()).prop_map(Step::OwnTemplate),
        1 => small.clone().prop_map(Step::Workload),
        1 => small.clone().prop_map(Step::Workspace),
        2 => (0..4_u8).prop_map(Step::Target),
        4 => (0..2_u8, edit).prop_map(|(deployment, edit)| Step::Deployment(deployment, edit)),
        2 => (0..2_u8).prop_map(Step::DeleteDeployment),
        4 => (small.clone(), host_edit).prop_map(|(host, edit)| Step::Host(host, edit)),
        1 => (small.clone(), any::<bool>()).prop_map(|(host, force)| Step::DeleteHost(host, force)),
        1 => (small.clone(), small.clone()).prop_map(|(host, arch)| Step::Facts(host, arch)),
        5 => Just(Step::Plan),
        3 => Just(Step::Follow),
        8 => (small.clone(), any::<bool>(), any::<bool>()).prop_map(|(host, lost, have)| Step::Poll { host, lost, have }),
        3 => small.clone().prop_map(Step::Acknowledge),
        1 => small.clone().prop_map(Step::RestartAgent),
        1 => small.clone().prop_map(Step::RememberAgent),
        1 => small.prop_map(Step::AgentFromThePast),
        1 => Just(Step::RestartPlane),
        1 => Just(Step::ClockBack),
        2 => (1..4_u8).prop_map(Step::Chunks),
        1 => (1..30_u8).prop_map(Step::Cadence),
    ]
}

/// A host's agent, as far as folding goes.
#[derive(Debug, Default)]
struct Agent {
    credential: String,
    desired: Desired,
    remembered: Desired,
    reports: u64,
}

/// Everything that a history changes.
struct World {
    fleet: Option<Fleet>,
    agents: Vec<Agent>,
    deployments: [Value; 2],
    hosts: Vec<Value>,
    /// By how much hosts are to come less often.
    factor: u8,
}

fn host_name(host: u8) -> String {
    format!("h{host}")
}

fn template(content: u8) -> Value {
    // One file reads much of the context, so that every cause shows.
    let text = format!(
        "{content} {{{{ values.port }}}} {{{{ host.name }}}} {{{{ host.facts.arch | default('?') }}}} \
         {{{{ workload.version }}}} {{{{ workspace.config.motd | default('') }}}}\n"
    );
    json!({ "files": { "app.conf.j2": { "content": text } } })
}

fn deployment(number: usize) -> Value {
    let spec = json!({ "workload": "w", "template": "t", "target": "some", "values": { "port": number } });
    document("Deployment", Some("iot"), &format!("d{number}"), &spec)
}

fn host(number: u8) -> Value {
    let mut host = document("Host", None, &host_name(number), &json!({}));
    host["metadata"]["labels"] = json!({ "zone": "z0" });
    host
}

fn target(kind: u8) -> Value {
    let spec = match kind {
        0 => json!({ "matchLabels": { "zone": "z0" } }),
        1 => json!({ "matchExpressions": [{ "key": "zone", "operator": "In", "values": ["z1", "z2"] }] }),
        2 => json!({ "matchExpressions": [{ "key": "fact/arch", "operator": "In", "values": ["arch1"] }] }),
        _ => json!({ "expression": "true" }),
    };
    document("Target", Some("iot"), "some", &spec)
}

impl World {
    async fn open(database: &Database) -> anyhow::Result<Self> {
        let fleet = Fleet::open(&database.url, crate::NODE).await?;
        let deployments = [Value::Null, Value::Null];
        let mut world = Self { fleet: Some(fleet), agents: Vec::new(), deployments, hosts: Vec::new(), factor: 1 };
        world.agents.resize_with(HOSTS, Agent::default);
        Ok(world)
    }

    fn fleet(&mut self) -> &mut Fleet {
        self.fleet.as_mut().expect("between restarts")
    }

    /// Brings everything to where each history begins, whatever the one before left behind.
    async fn begin(&mut self) -> anyhow::Result<()> {
        self.deployments = [deployment(0), deployment(1)];
        self.hosts = (0..HOSTS as u8).map(host).collect();
        let own = self.fleet().admin(Method::DELETE, "/v1/workspaces/iot/templates/t", &Value::Null).await;
        drop(own);
        let mut documents = vec![
            document("Workspace", None, "iot", &json!({})),
            document("Template", None, "t", &template(0)),
            document("Workload", Some("iot"), "w", &json!({ "version": "v0" })),
            target(0),
        ];
        documents.extend(self.deployments.iter().chain(&self.hosts).cloned());
        self.fleet().apply(&documents).await?;
        for number in 0..HOSTS as u8 {
            let agent = Agent {
                credential: self.agents[usize::from(number)].credential.clone(),
                reports: self.agents[usize::from(number)].reports,
                ..Agent::default()
            };
            self.agents[usize::from(number)] = agent;
            if self.agents[usize::from(number)].credential.is_empty() {
                self.enrol(number).await?;
            }
        }
        Ok(())
    }

    async fn enrol(&mut self, number: u8) -> anyhow::Result<()> {
        let credential = self.fleet().enrol(&host_name(number)).await?;
        self.agents[usize::from(number)] = Agent { credential, ..Agent::default() };
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> anyhow::Result<()> {
        match step {
            Step::Template(content) => {
                self.fleet().apply(&[document("Template", None, "t", &template(*content))]).await?;
            }
            Step::OwnTemplate(Some(content)) => {
                let own = document("Template", Some("iot"), "t", &template(content + 10));
                self.fleet().apply(&[own]).await?;
            }
            Step::OwnTemplate(None) => {
                // There may be none.
                drop(self.fleet().admin(Method::DELETE, "/v1/workspaces/iot/templates/t", &Value::Null).await);
            }
            Step::Workload(version) => {
                let spec = json!({ "version": format!("v{version}") });
                self.fleet().apply(&[document("Workload", Some("iot"), "w", &spec)]).await?;
            }
            Step::Workspace(motd) => {
                let spec = json!({ "config": { "motd": format!("m{motd}") } });
                self.fleet().apply(&[document("Workspace", None, "iot", &spec)]).await?;
            }
            Step::Target(kind) => {
                self.fleet().apply(&[target(*kind)]).await?;
            }
            Step::Deployment(number, edit) => {
                let document = &mut self.deployments[usize::from(*number)];
                let spec = &mut document["spec"];
                match edit {
                    DeploymentEdit::Values(port) => spec["values"]["port"] = json!(port + 100),
                    DeploymentEdit::Override(zone) => {
                        let entry = json!({ "match": { "matchLabels": { "zone": format!("z{zone}") } }, "values": { "port": 7 } });
                        spec["overrides"] = json!([entry]);
                    }
                    DeploymentEdit::Replicas(0) => {
                        let spec = spec.as_object_mut().expect("object");
                        spec.retain(|field, _| field != "replicas" && field != "spread");
                    }
                    DeploymentEdit::Replicas(replicas) => spec["replicas"] = json!(replicas - 1),
                    DeploymentEdit::Requests(cores) => spec["requests"] = json!({ "cpu": cores }),
                    DeploymentEdit::Tolerates(taint) => {
                        spec["tolerations"] = if *taint { json!([{ "key": "kept" }]) } else { json!([]) }
                    }
                    DeploymentEdit::Spread(skew) => {
                        spec["spread"] = match skew {
                            Some(true) => json!({ "label": "zone", "maxSkew": 1 }),
                            Some(false) => json!({ "label": "zone" }),
                            None => Value::Null,
                        };
                        // Only replicas can be spread.
                        if skew.is_some() && spec["replicas"].is_null() {
                            spec["replicas"] = json!(2);
                        }
                    }
                    DeploymentEdit::OnRemove(orphan) => {
                        spec["onRemove"] = json!(if *orphan { "orphan" } else { "delete" })
                    }
                    DeploymentEdit::Again => {}
                }
                let document = document.clone();
                self.fleet().apply(&[document]).await?;
            }
            Step::DeleteDeployment(number) => {
                let path = format!("/v1/workspaces/iot/deployments/d{number}");
                // It may be gone already.
                drop(self.fleet().admin(Method::DELETE, &path, &Value::Null).await);
                self.deployments[usize::from(*number)] = deployment(usize::from(*number));
            }
            Step::Host(number, edit) => {
                let document = &mut self.hosts[usize::from(*number)];
                match edit {
                    HostEdit::Zone(zone) => document["metadata"]["labels"]["zone"] = json!(format!("z{zone}")),
                    HostEdit::Values(port) => document["spec"]["values"] = json!({ "port": port + 50 }),
                    HostEdit::Access(open) => {
                        document["spec"]["workspaces"] = json!([if *open { "*" } else { "default" }])
                    }
                    HostEdit::Cordon(cordoned) => document["spec"]["cordoned"] = json!(cordoned),
                    HostEdit::Capacity(cores) => {
                        document["spec"]["capacity"] = cores.map_or_else(|| json!({}), |cores| json!({ "cpu": cores }));
                    }
                    HostEdit::Taint(drives) => {
                        let taint = |drives| json!([{ "key": "kept", "effect": if drives { "NoExecute" } else { "NoSchedule" } }]);
                        document["spec"]["taints"] = drives.map_or_else(|| json!([]), taint);
                    }
                    HostEdit::Files(Some((deployment, content, known))) => {
                        let path = if *known { "app.conf" } else { "gone.conf" };
                        let files = json!({ path: { "content": format!("left {content}\n") } });
                        document["spec"]["files"] = json!({ format!("iot/d{deployment}"): files });
                    }
                    HostEdit::Files(None) => document["spec"]["files"] = json!({}),
                }
                let document = document.clone();
                self.fleet().apply(&[document]).await?;
            }
            Step::DeleteHost(number, force) => {
                let path = format!("/v1/hosts/{}?force={force}", host_name(*number));
                self.fleet().admin(Method::DELETE, &path, &Value::Null).await?;
                self.hosts[usize::from(*number)] = host(*number);
                self.fleet().apply(&[host(*number)]).await?;
                // The machine is set up anew.
                self.enrol(*number).await?;
            }
            Step::Facts(number, arch) => {
                let agent = &mut self.agents[usize::from(*number)];
                agent.reports += 1;
                let body = json!({ "seq": agent.reports, "facts": { "arch": format!("arch{arch}") } });
                self.report(*number, &body).await?;
            }
            Step::Plan => {
                self.fleet().plan().await?;
            }
            Step::Follow => self.fleet().follow().await?,
            Step::Poll { host, lost, have } => self.poll(*host, *lost, *have).await?,
            Step::Acknowledge(host) => self.acknowledge(*host).await?,
            Step::RestartAgent(host) => {
                let agent = &mut self.agents[usize::from(*host)];
                agent.desired = serde_json::from_str(&serde_json::to_string(&agent.desired)?)?;
            }
            Step::RememberAgent(host) => {
                let agent = &mut self.agents[usize::from(*host)];
                agent.remembered = agent.desired.clone();
            }
            Step::AgentFromThePast(host) => {
                let agent = &mut self.agents[usize::from(*host)];
                agent.desired = agent.remembered.clone();
            }
            Step::RestartPlane => {
                let fleet = self.fleet.take().expect("between restarts").restart().await?;
                (self.fleet, self.factor) = (Some(fleet), 1);
            }
            Step::ClockBack => self.fleet().shift_clock(-5_000_000),
            Step::Chunks(pairs) => self.fleet().plan_in_chunks_of(usize::from(*pairs)),
            Step::Cadence(factor) => {
                self.factor = (*factor).min(16);
                self.fleet().state.load.set_factor(f64::from(*factor));
            }
        }
        Ok(())
    }

    async fn ask(
        &mut self,
        host: u8,
        since: Option<Revision>,
        have: Option<String>,
    ) -> anyhow::Result<(StatusCode, Vec<u8>, Option<Revision>)> {
        let mut path = format!("/v1/hosts/{}/changes?", host_name(host));
        if let Some(since) = since {
            path.push_str(&format!("since={since}&"));
        }
        if let Some(have) = have {
            path.push_str(&format!("have={have}"));
        }
        let credential = self.agents[usize::from(host)].credential.clone();
        let answered = self.fleet().send(Method::GET, &path, &credential, &Value::Null).await?;
        let cursor = answered.headers.get(titan_api::poll::CURSOR_HEADER);
        let cursor = cursor.map(|value| value.to_str().unwrap_or_default().parse()).transpose()?;
        if ![StatusCode::OK, StatusCode::NO_CONTENT].contains(&answered.status) {
            return Ok((answered.status, answered.body, cursor));
        }
        // Whatever is told, the cadence is that of the load.
        let told = answered.headers.get(titan_api::poll::POLL_AFTER_HEADER);
        let told = match told {
            Some(told) => told.to_str().unwrap_or_default().parse()?,
            None => serde_json::from_slice::<PollAnswer>(&answered.body)?.poll_after_seconds,
        };
        let cadence = self.fleet().state.config.poll_after_seconds * u32::from(self.factor);
        anyhow::ensure!(told == cadence, "it is to come again after {told} s and not {cadence}");
        Ok((answered.status, answered.body, cursor))
    }

    /// One poll as the agent does it; a lost answer never reaches the fold.
    async fn poll(&mut self, host: u8, lost: bool, have: bool) -> anyhow::Result<()> {
        let desired = &self.agents[usize::from(host)].desired;
        let (since, have) = (desired.cursor, have.then(|| desired.digest().to_string()));
        let (status, body, cursor) = self.ask(host, since, have).await?;
        if lost {
            return Ok(());
        }
        let desired = &mut self.agents[usize::from(host)].desired;
        match status {
            StatusCode::NO_CONTENT => desired.advance(cursor.expect("a 204 has a cursor"))?,
            StatusCode::OK => {
                let answer: PollAnswer = serde_json::from_slice(&body)?;
                for deployment in &answer.deployments {
                    let bundle = deployment.bundle.as_ref().expect("small bundles travel inside");
                    anyhow::ensure!(
                        titan_tests::fleets::bundle_digest(bundle) == deployment.digest,
                        "a bundle is not its digest"
                    );
                }
                let folded = desired.fold(&answer);
                anyhow::ensure!(folded.refused.is_none(), "refused: {folded:?}");
                // The cursor is for speed, the digest is the truth.
                if !folded.digest_matches {
                    let (status, body, _) = self.ask(host, None, None).await?;
                    anyhow::ensure!(status == StatusCode::OK, "a full answer was refused: {status}");
                    let answer: PollAnswer = serde_json::from_slice(&body)?;
                    let folded = self.agents[usize::from(host)].desired.fold(&answer);
                    anyhow::ensure!(
                        answer.full && folded.digest_matches,
                        "a full answer does not fit its digest: {folded:?}"
                    );
                }
            }
            other => anyhow::bail!("a poll was answered {other}: {}", String::from_utf8_lossy(&body)),
        }
        Ok(())
    }

    /// Reports every removal as done.
    async fn acknowledge(&mut self, host: u8) -> anyhow::Result<()> {
        let agent = &mut self.agents[usize::from(host)];
        let removals = std::mem::take(&mut agent.desired.removals);
        agent.reports += 1;
        let removed: Vec<_> = removals
            .values()
            .map(|tombstone| json!({ "id": tombstone.id, "revision": tombstone.revision, "phase": "removed" }))
            .collect();
        let body = json!({ "seq": agent.reports, "deployments": removed });
        self.report(host, &body).await
    }

    async fn report(&mut self, host: u8, body: &Value) -> anyhow::Result<()> {
        let credential = self.agents[usize::from(host)].credential.clone();
        let path = format!("/v1/hosts/{}/report", host_name(host));
        let answered = self.fleet().send(Method::POST, &path, &credential, body).await?;
        anyhow::ensure!(answered.status == StatusCode::NO_CONTENT, "a report was answered {}", answered.status);
        Ok(())
    }

    /// Lets everything come to rest and checks the laws.
    async fn end(&mut self) -> anyhow::Result<()> {
        self.fleet().settle().await?;
        let undecided = self.fleet().undecided().await?;
        anyhow::ensure!(undecided.is_empty(), "law 4: the planner missed a cause: {undecided:#?}");
        let crowded = self.fleet().overcommitted("cpu");
        anyhow::ensure!(crowded.is_empty(), "S5-16: these hosts are to run more than they have room for: {crowded:?}");
        anyhow::ensure!(self.fleet().view_is_rebuilt().await?, "the view is not what the rows say");
        for host in 0..HOSTS as u8 {
            // As an agent does: with its digest, and acknowledging what it removed.
            self.poll(host, false, true).await?;
            let (status, body, _) = self.ask(host, None, None).await?;
            anyhow::ensure!(status == StatusCode::OK, "a full answer was refused: {status}");
            let full: PollAnswer = serde_json::from_slice(&body)?;
            let desired = &self.agents[usize::from(host)].desired;
            let folded: Vec<_> =
                desired.entries.iter().filter(|(_, e)| !e.orphan).map(|(id, e)| (*id, e.revision, e.digest)).collect();
            let mut whole: Vec<_> = full.deployments.iter().map(|d| (d.id, d.revision, d.digest)).collect();
            whole.sort();
            anyhow::ensure!(folded == whole, "law 3: host {host} folded {folded:?}, the full answer is {whole:?}");
            anyhow::ensure!(desired.digest() == full.digest, "law 3: the digests differ");
            self.acknowledge(host).await?;
        }
        Ok(())
    }
}

/// Runs histories on one database until one fails, which is then made as short as it can be.
fn histories(database: impl Fn() -> Database, count: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let open = || {
        let database = database();
        let world = runtime.block_on(World::open(&database)).expect("open");
        (database, world)
    };
    let world = std::cell::RefCell::new(open());
    let config = ProptestConfig {
        cases: count,
        max_shrink_iters: 200,
        max_shrink_time: 60_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let outcome = TestRunner::new(config).run(&prop::collection::vec(step(), 4..16), |steps| {
        let mut opened = world.borrow_mut();
        let world = &mut opened.1;
        let run = async {
            world.begin().await?;
            for step in &steps {
                world.step(step).await.map_err(|error| error.context(format!("{step:?}")))?;
            }
            world.end().await
        };
        let run = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), run).await });
        let failure = match run {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "stuck".to_owned(),
        };
        // What went wrong would go wrong again in every shorter history on the same rows.
        *opened = open();
        Err(TestCaseError::fail(failure))
    });
    if let Err(failure) = outcome {
        panic!("{}: {failure}", world.borrow().0.engine);
    }
}

/// S2-14, S2-19, S2-21, S2-24.
#[test]
fn folded_deltas_equal_the_full_answer_on_sqlite() {
    let threads: u32 = 2;
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| histories(databases::sqlite, HISTORIES / threads));
        }
    });
}

/// S2-14, S2-19, S2-21, S3-35.
#[test]
fn folded_deltas_equal_the_full_answer_on_postgres() {
    if databases::postgres().is_some() {
        histories(|| databases::postgres().expect("it was there before"), HISTORIES_POSTGRES);
    }
}

/// Laws 3 and 4: a replica that left a host before a crash arrives on another after it, wherever the crash was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_that_left_before_a_crash_arrives_after_it() {
    for passes in 0..8 {
        let database = databases::sqlite();
        let mut world = World::open(&database).await.expect("open");
        world.begin().await.expect("a fleet");
        let replicas = Step::Deployment(1, DeploymentEdit::Replicas(2));
        world.step(&replicas).await.expect("one replica");
        world.fleet().settle().await.expect("settled");
        let mut held = None;
        for host in 0..HOSTS as u8 {
            world.poll(host, false, true).await.expect("a poll");
            if world.agents[usize::from(host)].desired.entries.len() == 2 {
                held = Some(host);
            }
        }
        let host = held.expect("one host has the replica");
        for step in [Step::Chunks(1), Step::Host(host, HostEdit::Access(false))] {
            world.step(&step).await.expect("written");
        }
        for _ in 0..passes {
            world.step(&Step::Plan).await.expect("planned");
        }
        for step in [Step::Poll { host, lost: false, have: true }, Step::Acknowledge(host), Step::RestartPlane] {
            world.step(&step).await.expect("done");
        }
        world.end().await.unwrap_or_else(|error| panic!("after {passes} passes: {error:#}"));
    }
}
