//! Every example converges, and every ready-made template renders with nothing but its defaults.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use titan_api::{Kind, client::Client};
use titan_tests::{
    agents::AgentNode,
    operators::Operator,
    worlds::{World, until},
};
use tokio::task::JoinHandle;

/// Up to so many hosts get a real agent each; the hosts of larger fleets speak its protocol without one.
const AGENTS: usize = 5;

fn folders(name: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    let entries = std::fs::read_dir(folder).expect("a directory");
    let fleet = |path: &PathBuf| path.is_dir() && !path.join("plan.yaml").exists();
    let mut folders: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).filter(fleet).collect();
    folders.sort();
    folders
}

/// Waits until every deployment is healthy on all its hosts, and returns on how many in all.
async fn converged(admin: &Client) -> usize {
    let deployments = admin.list_all(Kind::Deployment, None, None).await.expect("listed");
    assert!(!deployments.is_empty());
    let mut hosts = 0;
    for deployment in deployments {
        let metadata = deployment.metadata;
        let workspace = metadata.workspace.expect("a workspace");
        let status = until("the deployment to converge", async || {
            let status = admin.deployment_status(&workspace, &metadata.name).await?;
            Ok(status.converged().then_some(status))
        })
        .await;
        let status = status.unwrap_or_else(|error| panic!("{}: {error:#}", metadata.name));
        assert!(status.counts.desired > 0, "{} is on no host", metadata.name);
        hosts += status.counts.desired;
    }
    hosts
}

/// Hosts that take what they are told, each as soon as its stage is open to it.
struct Crowd {
    /// How many files they were told of.
    files: Arc<AtomicUsize>,
    polls: Vec<JoinHandle<()>>,
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.polls.iter().for_each(JoinHandle::abort);
    }
}

impl Crowd {
    async fn join(world: &World, names: &[String]) -> Self {
        let files = Arc::new(AtomicUsize::new(0));
        let mut polls = Vec::new();
        for name in names {
            let mut host = world.enrol(name).await.expect("enrolled");
            let files = Arc::clone(&files);
            polls.push(tokio::spawn(async move {
                loop {
                    let Some(news) = host.poll(20).await.expect("polled") else { continue };
                    let told = news.moved.iter().filter_map(|title| host.held.get(title));
                    files.fetch_add(told.map(|held| held.files.len()).sum(), Ordering::Relaxed);
                    host.report(&news).await.expect("reported");
                }
            }));
        }
        Self { files, polls }
    }
}

async fn example_converges(folder: &Path) {
    let title = folder.display();
    let world = World::start(crate::NODE).await.expect("a control plane");
    let person = Operator::new(crate::NODE).expect("a directory");
    person.login(&world.plane.server, &world.plane.token).expect("logged in");
    let said = person.titan(&format!("titan apply -f {title}")).expect("applied");
    assert!(said.contains("created"), "{said}");
    let again = person.titan(&format!("titan apply -f {title}")).expect("applied");
    assert!(again.contains("unchanged") && !again.contains("created"), "{again}");
    let hosts = world.admin.list_all(Kind::Host, None, None).await.expect("listed");
    let names: Vec<_> = hosts.iter().map(|host| host.metadata.name.to_string()).collect();
    let mut applied = 0;
    if names.len() <= AGENTS {
        for name in &names {
            let agent = AgentNode::new(crate::NODE).expect("an agent");
            agent.join(&person.titan(&format!("titan host join-command {name}")).expect("a line")).expect("enrolled");
            world.settled().await.expect("decided");
            // What the facts of an enrolment decide may come a moment later.
            until("the agent to be told", async || {
                agent.settle()?;
                Ok((!agent.commits()?.is_empty()).then_some(()))
            })
            .await
            .unwrap_or_else(|error| panic!("{title}: {name}: {error:#}"));
            applied += agent.files().expect("files").len();
        }
    }
    let crowd = if names.len() > AGENTS { Some(Crowd::join(&world, &names).await) } else { None };
    assert!(converged(&world.admin).await >= names.len(), "{title}: every host has something");
    applied += crowd.map_or(0, |crowd| crowd.files.load(Ordering::Relaxed));
    assert!(applied >= names.len(), "{title}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_converges() {
    let folders = folders("examples");
    assert!(folders.len() >= 4, "{folders:?}");
    for folder in folders.iter().filter(|folder| !folder.ends_with("validator-fleet")) {
        example_converges(folder).await;
    }
}

/// S1-20.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn validator_fleet_of_a_hundred_hosts_converges() {
    let folders = folders("examples");
    let fleet = folders.iter().find(|folder| folder.ends_with("validator-fleet")).expect("the example");
    example_converges(fleet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_template_renders_with_its_defaults() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let person = Operator::new(crate::NODE).expect("a directory");
    person.login(&world.plane.server, &world.plane.token).expect("logged in");
    person.titan("titan create target all --labels name=pi").expect("made");
    let repository = "https://git.example/app";
    person.titan(&format!("titan create workload app --repo {repository} --version 1.0.0")).expect("made");
    let folders = folders("templates");
    assert!(folders.len() >= 3, "{folders:?}");
    let mut names = Vec::new();
    for folder in &folders {
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        person.titan(&format!("titan create template {name} -f {}", folder.display())).expect("made");
        let line = format!("titan create deployment {name} --workload app --template {name} --target all");
        person.titan(&line).expect("made");
        names.push(name);
    }
    let mut host = world.host("pi", "name=pi").await.expect("a host");
    let clock = world.settled().await.expect("decided");
    host.catch_up(clock).await.expect("polled");
    for name in names {
        let status = world.admin.deployment_status("default", &name).await.expect("a status");
        let problem = status.hosts.first().and_then(|host| host.problem.clone());
        assert!(problem.is_none() && status.problems.is_empty(), "{name}: {problem:?}");
        assert!(host.held.contains_key(&format!("default/{name}")), "{name} is not on the host");
    }
}
