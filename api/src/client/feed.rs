//! The change feed, and tasks.

use std::time::Duration;

use reqwest::Method;
use uuid::Uuid;

use super::{Client, Result};
use crate::{Revision, changes::ChangePage, pages::Page, tasks::Task};

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

    /// Returns the newest tasks.
    pub async fn tasks(&self) -> Result<Page<Task>> {
        self.get_json("/v1/tasks").await
    }
}
