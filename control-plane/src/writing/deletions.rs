//! Deleting documents. Deployments and hosts wait until every host has confirmed that it removed what is to go.

use serde_json::json;
use titan_api::{
    Code, Document, Kind, Problem,
    changes::Operation,
    tasks::{ENROL, REMOVE, Task, TaskState},
};
use uuid::Uuid;

use super::{Place, Writer};
use crate::store::{Stored, TokenKind};

impl Writer<'_> {
    /// Deletes a document; `force`: a host without waiting for its agent, also one that was deleted before and waits for it.
    pub(super) async fn delete(
        &mut self,
        place: &Place,
        current: Option<Stored>,
        force: bool,
    ) -> Result<Document, Problem> {
        match current {
            Some(current) => self.delete_live(place, current, force).await,
            None => self.let_go(place, force).await,
        }
    }

    async fn delete_live(&mut self, place: &Place, current: Stored, force: bool) -> Result<Document, Problem> {
        self.check_unused(place).await?;
        let before = current.document();
        self.record(Operation::Delete, Some(&before), None).await?;
        let uid = current.uid;
        match place.kind {
            Kind::Deployment | Kind::Host => {
                let generation = current.generation;
                self.tx.put_document(&Stored { deleted: Some(self.revision), ..current }).await?;
                self.tasks.push(self.removal(place, uid, generation));
                if let Some(gate) = self.tx.gate(uid).await? {
                    self.halt(gate.plan, "the deployment was deleted").await?;
                }
                if place.kind == Kind::Host {
                    let subject = format!("Host {}", place.name);
                    let result = json!({ "reason": "the host was deleted" });
                    self.tx.end_tasks(ENROL, &subject, TaskState::Cancelled, &result, self.revision).await?;
                    self.tx.remove_host_tokens(uid, Some(TokenKind::Join)).await?;
                    // Where no agent ever came there is nothing to remove.
                    if force || self.tx.observed_host(uid).await?.is_none_or(|host| host.enrolled_at.is_none()) {
                        self.purge_host(uid).await?;
                    }
                }
            }
            Kind::WorkPlan => {
                // What happened in it stays; what goes on has to be stopped first.
                if let Some(row) = self.tx.plan(uid).await?.filter(|row| !row.plan.state.is_final()) {
                    if row.plan.state != titan_api::workplans::PlanState::Planning {
                        return Err(Problem::new(Code::InUse, format!("{place} is {}", row.plan.state))
                            .hint(format!("stop it first: titan workplan abort {} --reason ...", place.name)));
                    }
                    self.halt(uid, "its document was deleted").await?;
                }
                self.tx.purge_document(uid).await?;
            }
            kind => {
                if kind == Kind::Workload {
                    self.tx.purge_pipeline_log(uid).await?;
                }
                self.tx.purge_document(uid).await?;
            }
        }
        Ok(before)
    }

    /// Lets go of a host that was deleted before and whose agent has not confirmed everything, if that is wanted. Its deletion
    /// is in the history; who did not wait any longer is in the task.
    async fn let_go(&mut self, place: &Place, force: bool) -> Result<Document, Problem> {
        let missing = || Problem::not_found(place.kind, &place.name);
        if place.kind != Kind::Host {
            return Err(missing());
        }
        let leaving = self.tx.deleted_document(place.kind, place.workspace(), &place.name).await?;
        let leaving = leaving.ok_or_else(missing)?;
        if !force {
            return Err(missing().hint(format!(
                "it was deleted and waits for its agent; if there is none any more: titan delete host {} --force",
                place.name
            )));
        }
        self.purge_host(leaving.uid).await?;
        let mut task = self.removal(place, leaving.uid, leaving.generation);
        task.payload["forced"] = json!({ "by": self.author.actor, "reason": self.author.reason });
        let gone = json!({ "gone": true });
        self.tx.end_tasks(REMOVE, &task.subject, TaskState::Completed, &gone, self.revision).await?;
        self.tasks.push(task);
        Ok(leaving.document())
    }

    /// Removes a host with everything that is known of it.
    async fn purge_host(&mut self, uid: Uuid) -> Result<(), Problem> {
        self.tx.purge_assignments_of_host(uid).await?;
        self.tx.remove_host_tokens(uid, None).await?;
        self.tx.purge_observed_host(uid).await?;
        self.tx.purge_render_problems(uid).await?;
        Ok(self.tx.purge_document(uid).await?)
    }

    /// Returns the task that ends once what was deleted is gone everywhere.
    fn removal(&self, place: &Place, uid: Uuid, generation: i64) -> Task {
        let subject = match &place.workspace {
            Some(workspace) => format!("{} {workspace}/{}", place.kind, place.name),
            None => format!("{} {}", place.kind, place.name),
        };
        let payload = json!({ "kind": place.kind, "name": place.name, "uid": uid, "generation": generation });
        let task = Task::new(Uuid::now_v7(), REMOVE, subject, payload, self.revision);
        Task { workspace: place.workspace.clone(), due_at: Some(self.revision), ..task }
    }
}
