//! Cases that at least one of the field's systems fails, each a test with the case's name, with real processes; rollouts
//! with many agents in one.

mod absences;
mod answers;
mod backups;
mod changes;
mod crowds;
mod databases;
mod power;
mod rollouts;

use serde_json::{Value, json};
use titan_tests::{
    agents::AgentNode,
    manifests::{deployment, host, target, template, workload},
    worlds::World,
};

use crate::outages::join;

/// A control plane with a host `pi`, whose agent has joined and applied nothing yet.
struct Scene {
    world: World,
    agent: AgentNode,
}

impl Scene {
    async fn new(documents: impl IntoIterator<Item = Value>) -> Self {
        let agent = AgentNode::new(crate::NODE).expect("an agent");
        Self::with(agent, documents).await
    }

    async fn with(agent: AgentNode, documents: impl IntoIterator<Item = Value>) -> Self {
        let world = World::start(crate::NODE).await.expect("a control plane");
        let scene = Self { world, agent };
        scene.apply([host("pi", ""), target("all", "")].into_iter().chain(documents)).await;
        join(&scene.world.plane, &scene.agent);
        scene
    }

    /// Writes documents and waits until they are decided.
    async fn apply(&self, documents: impl IntoIterator<Item = Value>) {
        self.world.apply(documents).await.expect("written");
        self.world.settled().await.expect("decided");
    }

    /// Lets the agent do what `appliers` says beside files, and asks the control plane at `server`.
    fn configure(&self, server: &str, appliers: &str) {
        let polling = "polling: { wait: 2s, maxBackoff: 200ms }";
        self.agent.configure_with(server, appliers, polling).expect("configured");
    }

    /// Returns the content of a file below the agent's root.
    fn file(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.agent.root().join(path)).ok()
    }

    /// Returns the phase and the message that the control plane knows of a deployment on the host.
    async fn told(&self, name: &str) -> Option<(String, String)> {
        let status = self.world.admin.deployment_status("default", name).await.ok()?;
        let host = status.hosts.into_iter().find(|host| host.host.as_str() == "pi")?;
        Some((host.phase?.as_str().to_owned(), host.message))
    }
}

/// Returns a workload with the deployment of the same name, whose one file says its version.
fn versioned(name: &str, version: &str) -> [Value; 2] {
    [workload(name, version), deployment(name, name, "versioned", "all", &json!({}))]
}

/// Returns the template of [`versioned`].
fn versions() -> Value {
    template("versioned", &[("version.j2", "{{ workload.version }}\n"), ("name.j2", "{{ deployment.name }}\n")])
}
