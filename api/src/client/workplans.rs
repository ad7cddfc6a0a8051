//! Plans: how far they are, what happened in them, telling them something, and doing their work.

use std::time::Duration;

use reqwest::{Method, header};
use uuid::Uuid;

use super::{Client, Result};
use crate::{
    Name,
    pages::Page,
    workplans::{
        EventView, NewPlan, NodeKind, NodeState, NodeView, PlanStatus, SignalAnswer, SignalRequest, WriteNodes,
        WrittenNodes,
        attempts::{ClaimAnswer, ClaimRequest, Completion, Heartbeat, HeartbeatAnswer, ResultsRequest},
    },
};

impl Client {
    /// Returns the newest plans, of a workspace or all, up to `limit`.
    pub async fn plans(&self, workspace: Option<&str>, limit: usize) -> Result<Page<PlanStatus>> {
        let mut query = vec![("limit", limit.to_string())];
        query.extend(workspace.map(|workspace| ("workspace", workspace.to_owned())));
        self.json(self.with_query(Method::GET, "/v1/workplans", &query)).await
    }

    /// Makes a plan.
    pub async fn create_plan(&self, plan: &NewPlan) -> Result<PlanStatus> {
        self.post_json("/v1/workplans", plan).await
    }

    /// Returns how far a plan is, waiting up to `wait` seconds for its end.
    pub async fn plan_status(&self, id: Uuid, wait: u64) -> Result<PlanStatus> {
        let request = self.request(Method::GET, &format!("/v1/workplans/{id}?wait={wait}"));
        self.json(request.timeout(Duration::from_secs(wait + 30))).await
    }

    /// Returns every node of a plan, of a kind and in a state if these are given.
    pub async fn plan_nodes(
        &self,
        id: Uuid,
        kind: Option<NodeKind>,
        state: Option<NodeState>,
    ) -> Result<Vec<NodeView>> {
        let (mut all, mut next) = (Vec::new(), None);
        loop {
            let mut query: Vec<(&str, String)> = vec![("limit", crate::limits::PAGE.to_string())];
            query.extend(kind.map(|kind| ("kind", kind.to_string())));
            query.extend(state.map(|state| ("state", state.to_string())));
            query.extend(next.map(|next| ("continue", next)));
            let page: Page<NodeView> =
                self.json(self.with_query(Method::GET, &format!("/v1/workplans/{id}/nodes"), &query)).await?;
            all.extend(page.items);
            next = page.next;
            if next.is_none() {
                return Ok(all);
            }
        }
    }

    /// Returns a node with its attempts and results.
    pub async fn plan_node(&self, id: Uuid, node: &Name) -> Result<NodeView> {
        self.get_json(&format!("/v1/workplans/{id}/nodes/{node}")).await
    }

    /// Writes nodes, all or none; if `version` is given, only if the plan still is at it.
    pub async fn write_nodes(&self, id: Uuid, nodes: &WriteNodes, version: Option<i64>) -> Result<WrittenNodes> {
        let mut request = self.request(Method::POST, &format!("/v1/workplans/{id}/nodes")).json(nodes);
        if let Some(version) = version {
            request = request.header(header::IF_MATCH, format!("\"{version}\""));
        }
        self.json(request).await
    }

    /// Returns what happened in a plan after the event of this number, waiting up to `wait` seconds for something.
    pub async fn plan_events(&self, id: Uuid, since: i64, wait: u64) -> Result<Page<EventView>> {
        let query = [("since", since.to_string()), ("wait", wait.to_string())];
        let request = self.with_query(Method::GET, &format!("/v1/workplans/{id}/events"), &query);
        self.json(request.timeout(Duration::from_secs(wait + 30))).await
    }

    /// Tells a plan something.
    pub async fn signal(&self, id: Uuid, signal: &SignalRequest) -> Result<SignalAnswer> {
        self.post_json(&format!("/v1/workplans/{id}/signals"), signal).await
    }

    /// Takes an attempt, waiting for one as long as the request says.
    pub async fn claim(&self, claim: &ClaimRequest) -> Result<ClaimAnswer> {
        let request = self.request(Method::POST, "/v1/attempts:claim").json(claim);
        self.json(request.timeout(Duration::from_secs(claim.wait + 30))).await
    }

    /// Says that an attempt is still being done.
    pub async fn heartbeat(&self, at: (Uuid, &Name, u32), beat: &Heartbeat) -> Result<HeartbeatAnswer> {
        self.post_json(&attempt_path(at, "heartbeat"), beat).await
    }

    /// Ends an attempt.
    pub async fn complete(&self, at: (Uuid, &Name, u32), completion: &Completion) -> Result<()> {
        self.send(self.request(Method::POST, &attempt_path(at, "complete")).json(completion)).await.map(drop)
    }

    /// Answers checks while an attempt is being done.
    pub async fn results(&self, at: (Uuid, &Name, u32), results: &ResultsRequest) -> Result<()> {
        self.send(self.request(Method::POST, &attempt_path(at, "results")).json(results)).await.map(drop)
    }
}

fn attempt_path((plan, node, number): (Uuid, &Name, u32), action: &str) -> String {
    format!("/v1/workplans/{plan}/nodes/{node}/attempts/{number}/{action}")
}
