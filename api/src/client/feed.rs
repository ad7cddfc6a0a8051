//! The change feed, and tasks.

use std::time::Duration;

use reqwest::Method;
use uuid::Uuid;

use super::{Client, Result};
use crate::{
    Revision,
    changes::ChangePage,
    pages::Page,
    tasks::{Task, TaskFilter},
};

impl Client {
    /// Returns what changed at or after `since`, waiting up to `wait` seconds for a first change.
    pub async fn changes(&self, since: Option<Revision>, wait: u64) -> Result<ChangePage> {
        let mut query = vec![("wait", wait.to_string())];
        query.extend(since.map(|since| ("since", since.to_string())));
        let request = self.with_query(Method::GET, "/v1/changes", &query);
        self.json(request.timeout(Duration::from_secs(wait + 30))).await
    }

    /// Returns a task, waiting up to `wait` seconds for it to end.
    pub async fn task(&self, id: Uuid, wait: u64) -> Result<Task> {
        let request = self.request(Method::GET, &format!("/v1/tasks/{id}?wait={wait}"));
        self.json(request.timeout(Duration::from_secs(wait + 30))).await
    }

    /// Returns a page of tasks, the newest first.
    pub async fn tasks(&self, filter: &TaskFilter) -> Result<Page<Task>> {
        let mut query = Vec::new();
        query.extend(filter.state.map(|state| ("state", state.as_str().to_owned())));
        query.extend(filter.kind.clone().map(|kind| ("kind", kind)));
        query.extend(filter.workspace.as_ref().map(|workspace| ("workspace", workspace.to_string())));
        query.extend(filter.parent.map(|parent| ("parent", parent.to_string())));
        query.extend(filter.subject.clone().map(|subject| ("subject", subject)));
        query.extend(filter.limit.map(|limit| ("limit", limit.to_string())));
        query.extend(filter.next.clone().map(|next| ("continue", next)));
        self.json(self.with_query(Method::GET, "/v1/tasks", &query)).await
    }
}
