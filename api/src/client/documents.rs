//! Documents: reading and writing them.

use reqwest::{Method, header};
use serde_json::Value;

use super::{Client, ListOptions, Result, WriteOptions, written};
use crate::{
    Document, Kind, Revision,
    changes::{ApplyAnswer, ApplyRequest, Change},
    hosts::BulkCreate,
    limits,
    pages::Page,
    plans::Plan,
};

impl Client {
    /// Returns one page of documents. Without `workspace`, kinds that live in one are listed over all of them.
    pub async fn list(&self, kind: Kind, workspace: Option<&str>, options: &ListOptions) -> Result<Page<Document>> {
        let mut query = Vec::new();
        query.extend(options.selector.as_ref().map(|text| ("labelSelector", text.clone())));
        query.extend(options.limit.map(|limit| ("limit", limit.to_string())));
        query.extend(options.next.as_ref().map(|text| ("continue", text.clone())));
        query.extend(options.at.map(|at| ("at", at.to_string())));
        let path = kind.path(workspace, None);
        self.json(self.with_query(Method::GET, &path, &query)).await
    }

    /// Returns every document of a kind, page by page.
    pub async fn list_all(&self, kind: Kind, workspace: Option<&str>, selector: Option<&str>) -> Result<Vec<Document>> {
        let mut all = Vec::new();
        let mut options = ListOptions { selector: selector.map(str::to_owned), ..ListOptions::default() };
        loop {
            let page = self.list(kind, workspace, &options).await?;
            all.extend(page.items);
            options.next = page.next;
            if options.next.is_none() {
                return Ok(all);
            }
        }
    }

    /// Returns a document, as it is or as it was at a revision.
    pub async fn get(&self, kind: Kind, workspace: Option<&str>, name: &str, at: Option<Revision>) -> Result<Document> {
        let query: Vec<_> = at.map(|at| ("at", at.to_string())).into_iter().collect();
        self.json(self.with_query(Method::GET, &kind.path(workspace, Some(name)), &query)).await
    }

    /// Makes a document; refuses if there is one of the name.
    pub async fn create(&self, document: &Document, options: &WriteOptions) -> Result<Document> {
        let path = document.kind.path(document.metadata.workspace.as_deref(), None);
        self.json(written(self.request(Method::POST, &path), options).json(document)).await
    }

    /// Puts a document as it stands, making it if there is none.
    pub async fn put(&self, document: &Document, options: &WriteOptions) -> Result<Document> {
        let path = document.kind.path(document.metadata.workspace.as_deref(), Some(&document.metadata.name));
        self.json(written(self.request(Method::PUT, &path), options).json(document)).await
    }

    /// Changes parts of a document by a merge patch (RFC 7396).
    pub async fn patch(
        &self,
        kind: Kind,
        workspace: Option<&str>,
        name: &str,
        patch: &Value,
        options: &WriteOptions,
    ) -> Result<Document> {
        let request = self.request(Method::PATCH, &kind.path(workspace, Some(name)));
        let body = patch.to_string();
        let request = request.header(header::CONTENT_TYPE, "application/merge-patch+json").body(body);
        self.json(written(request, options)).await
    }

    /// Deletes a document. `force` removes a host at once, without waiting for its agent.
    pub async fn delete(
        &self,
        kind: Kind,
        workspace: Option<&str>,
        name: &str,
        force: bool,
        options: &WriteOptions,
    ) -> Result<ApplyAnswer> {
        let query: Vec<_> = force.then(|| ("force", "true".to_owned())).into_iter().collect();
        let request = self.with_query(Method::DELETE, &kind.path(workspace, Some(name)), &query);
        self.json(written(request, options)).await
    }

    /// Returns the newest changes of one document, newest first.
    pub async fn history(&self, kind: Kind, workspace: Option<&str>, name: &str) -> Result<Page<Change>> {
        self.history_page((kind, workspace, name), limits::PAGE, None).await
    }

    /// Returns up to `limit` changes of one document, newest first; `next` is the `continue` of the page before.
    pub async fn history_page(
        &self,
        (kind, workspace, name): (Kind, Option<&str>, &str),
        limit: usize,
        next: Option<&str>,
    ) -> Result<Page<Change>> {
        let mut query = vec![("limit", limit.to_string())];
        query.extend(next.map(|next| ("continue", next.to_owned())));
        let path = format!("{}/history", kind.path(workspace, Some(name)));
        self.json(self.with_query(Method::GET, &path, &query)).await
    }

    /// Writes documents, all or none.
    pub async fn apply(&self, request: &ApplyRequest, options: &WriteOptions) -> Result<ApplyAnswer> {
        self.json(written(self.request(Method::POST, "/v1/apply"), options).json(request)).await
    }

    /// Returns what an apply would do to which hosts.
    pub async fn plan(&self, request: &ApplyRequest) -> Result<Plan> {
        self.post_json("/v1/plan", request).await
    }

    /// Makes hosts and an enrolment task for each, all or none.
    pub async fn bulk_create(&self, request: &BulkCreate, options: &WriteOptions) -> Result<ApplyAnswer> {
        self.json(written(self.request(Method::POST, "/v1/hosts:bulkCreate"), options).json(request)).await
    }
}
