//! The typed HTTP client, for agents, command line and tests.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    Code, Digest, Document, Kind, Problem, Revision, SetDigest,
    changes::{ApplyAnswer, ApplyRequest, Change, ChangePage},
    enrolment::{EnrolAnswer, EnrolRequest, EnrolmentToken, EnrolmentTokenRequest, NewToken, Token, TokenRequest},
    hosts::BulkCreate,
    limits,
    pages::Page,
    plans::Plan,
    poll::{CURSOR_HEADER, POLL_AFTER_HEADER, PollAnswer},
    problems,
    reports::{PruneAnswer, PruneRequest, Report},
    status::{DeploymentStatus, Why},
    tasks::Task,
    values::MergedValues,
};

/// The largest answer that is read into memory.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// A connection to one control plane, with one credential.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    server: String,
    token: Option<String>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server's address is malformed.
    #[error("{0:?} is not a server's address such as http://127.0.0.1:7420")]
    Address(String),
    /// The HTTP client cannot be set up.
    #[error("the HTTP client cannot be set up")]
    Setup(#[source] reqwest::Error),
    /// No answer, or not all of it.
    #[error("{server} cannot be reached")]
    Unreachable {
        /// The server's address.
        server: String,
        /// What the network said.
        #[source]
        source: reqwest::Error,
    },
    /// The control plane refused.
    #[error("{}", .problem.detail)]
    Refused {
        /// The problem as it was told.
        problem: Box<Problem>,
        /// After how long to try again, if told.
        retry_after: Option<Duration>,
    },
    /// Something answered that is not a control plane, such as a proxy.
    #[error("{server} answered {status} with {what}: that is not a Titan control plane")]
    NotTitan {
        /// The server's address.
        server: String,
        /// The HTTP status.
        status: u16,
        /// What came instead.
        what: String,
        /// After how long to try again, if told.
        retry_after: Option<Duration>,
    },
}

impl ClientError {
    /// Returns the problem's code if the control plane refused.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { problem, .. } => Some(problem.code),
            _ => None,
        }
    }

    /// Returns after how long to try again, if told.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } | Self::NotTitan { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// The result of a call.
pub type Result<T> = std::result::Result<T, ClientError>;

/// What a poll brought.
#[derive(Debug, Clone)]
pub enum Polled {
    /// Nothing changed; ask from `cursor` next.
    Unchanged {
        /// Ask from here next.
        cursor: Revision,
        /// When to ask again.
        poll_after_seconds: u32,
    },
    /// Something changed, or the answer is full.
    Changed(Box<PollAnswer>),
}

/// How a document is written.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// Only if the document still is at this revision.
    pub if_match: Option<Revision>,
    /// Makes the write happen once, however often it is sent.
    pub idempotency_key: Option<String>,
    /// Why, for the history.
    pub reason: Option<String>,
}

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Only documents with these labels: `key=value,key!=value,key`.
    pub selector: Option<String>,
    /// How many rows at most.
    pub limit: Option<usize>,
    /// Where the page before ended.
    pub next: Option<String>,
    /// As it was at this revision.
    pub at: Option<Revision>,
}

impl Client {
    /// Returns a client of the control plane at `server` that shows `token`.
    pub fn new(server: &str, token: Option<String>) -> Result<Self> {
        let address = || ClientError::Address(server.to_owned());
        let url = reqwest::Url::parse(server).map_err(|_| address())?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !url.username().is_empty() {
            return Err(address());
        }
        // A second provider in the process would panic at the first handshake; whoever comes first wins.
        let _already_set = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .user_agent(concat!("titan/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(ClientError::Setup)?;
        Ok(Self { http, server: server.trim_end_matches('/').to_owned(), token })
    }

    /// Returns the server's address.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.server)).timeout(Duration::from_secs(60));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let unreachable = |source| ClientError::Unreachable { server: self.server.clone(), source };
        let response = request.send().await.map_err(unreachable)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let retry_after = retry_after(&response);
        let media_type = media_type(&response);
        let body = self.bytes(response, limits::SMALL_BODY_BYTES).await?;
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) if media_type == problems::MEDIA_TYPE => {
                Err(ClientError::Refused { problem: Box::new(problem), retry_after })
            }
            _ => Err(self.not_titan(status, &media_type, retry_after)),
        }
    }

    fn not_titan(&self, status: StatusCode, media_type: &str, retry_after: Option<Duration>) -> ClientError {
        let what = if media_type.is_empty() { "no media type".to_owned() } else { media_type.to_owned() };
        ClientError::NotTitan { server: self.server.clone(), status: status.as_u16(), what, retry_after }
    }

    /// Reads a body of at most `limit` bytes.
    async fn bytes(&self, mut response: Response, limit: usize) -> Result<Vec<u8>> {
        let status = response.status();
        let mut body = Vec::new();
        loop {
            let chunk = response.chunk().await;
            match chunk.map_err(|source| ClientError::Unreachable { server: self.server.clone(), source })? {
                Some(chunk) if body.len() + chunk.len() > limit => {
                    let what = format!("more than {limit} bytes");
                    return Err(self.not_titan(status, &what, None));
                }
                Some(chunk) => body.extend_from_slice(&chunk),
                None => return Ok(body),
            }
        }
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let response = self.send(request).await?;
        let status = response.status();
        let media_type = media_type(&response);
        if media_type != "application/json" {
            return Err(self.not_titan(status, &media_type, None));
        }
        let body = self.bytes(response, ANSWER_BYTES).await?;
        serde_json::from_slice(&body)
            .map_err(|error| self.not_titan(status, &format!("JSON that does not fit ({error})"), None))
    }

    async fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.json(self.request(Method::GET, path)).await
    }

    async fn post_json<T: DeserializeOwned>(&self, path: &str, body: &(impl Serialize + Sync)) -> Result<T> {
        self.json(self.request(Method::POST, path).json(body)).await
    }

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

    /// Changes parts of a document by a merge patch (RFC 7386).
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

    /// Returns the changes of one document, newest first.
    pub async fn history(&self, kind: Kind, workspace: Option<&str>, name: &str) -> Result<Page<Change>> {
        self.get_json(&format!("{}/history", kind.path(workspace, Some(name)))).await
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

    /// Returns how far a deployment is.
    pub async fn deployment_status(&self, workspace: &str, name: &str) -> Result<DeploymentStatus> {
        self.get_json(&format!("{}/status", Kind::Deployment.path(Some(workspace), Some(name)))).await
    }

    /// Returns the merged values of a deployment on a host, with the layer each came from.
    pub async fn values(&self, workspace: &str, name: &str, host: &str) -> Result<MergedValues> {
        let path = format!("{}/values", Kind::Deployment.path(Some(workspace), Some(name)));
        self.json(self.with_query(Method::GET, &path, &[("host", host.to_owned())])).await
    }

    /// Returns why a host has a deployment, or has it not.
    pub async fn why(&self, host: &str, workspace: &str, deployment: &str) -> Result<Why> {
        self.get_json(&format!("/v1/hosts/{host}/why/{workspace}/{deployment}")).await
    }

    /// Makes a one-time token with which a host enrols.
    pub async fn enrolment_token(&self, request: &EnrolmentTokenRequest) -> Result<EnrolmentToken> {
        self.post_json("/v1/enrolment-tokens", request).await
    }

    /// Trades a one-time token for the host's own credential.
    pub async fn enrol(&self, request: &EnrolRequest) -> Result<EnrolAnswer> {
        self.post_json("/v1/enrol", request).await
    }

    /// Makes a token for a person or a pipeline.
    pub async fn create_token(&self, request: &TokenRequest) -> Result<NewToken> {
        self.post_json("/v1/tokens", request).await
    }

    /// Returns the tokens, without their secrets.
    pub async fn tokens(&self) -> Result<Page<Token>> {
        self.get_json("/v1/tokens").await
    }

    /// Ends a token.
    pub async fn delete_token(&self, id: Uuid) -> Result<()> {
        self.send(self.request(Method::DELETE, &format!("/v1/tokens/{id}"))).await.map(drop)
    }

    /// Tells a host to remove orphans.
    pub async fn prune(&self, host: &str, request: &PruneRequest) -> Result<PruneAnswer> {
        self.post_json(&format!("/v1/hosts/{host}/prune"), request).await
    }

    /// Asks what changed for `host` at or after `since`; `have` is the digest of the set that the host holds.
    pub async fn poll(
        &self,
        host: &str,
        since: Option<Revision>,
        have: Option<SetDigest>,
        wait: u64,
    ) -> Result<Polled> {
        let mut query = Vec::new();
        query.extend(since.map(|since| ("since", since.to_string())));
        query.extend(have.map(|have| ("have", have.to_string())));
        query.extend((wait > 0).then(|| ("wait", wait.to_string())));
        let request = self.with_query(Method::GET, &format!("/v1/hosts/{host}/changes"), &query);
        let request = request.timeout(Duration::from_secs(wait + 30));
        let response = self.send(request).await?;
        let status = response.status();
        if status == StatusCode::NO_CONTENT {
            let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
            let cursor = header(CURSOR_HEADER).and_then(|text| text.parse().ok());
            let poll_after = header(POLL_AFTER_HEADER).and_then(|text| text.parse().ok());
            return match (cursor, poll_after) {
                (Some(cursor), Some(poll_after_seconds)) => Ok(Polled::Unchanged { cursor, poll_after_seconds }),
                _ => Err(self.not_titan(status, "no cursor", None)),
            };
        }
        let media_type = media_type(&response);
        if media_type != "application/json" {
            return Err(self.not_titan(status, &media_type, None));
        }
        let body = self.bytes(response, ANSWER_BYTES).await?;
        serde_json::from_slice(&body)
            .map(|answer| Polled::Changed(Box::new(answer)))
            .map_err(|error| self.not_titan(status, &format!("JSON that does not fit ({error})"), None))
    }

    /// Returns the bytes of a bundle that is assigned to `host`. The caller checks the digest.
    pub async fn bundle(&self, host: &str, digest: &Digest) -> Result<Vec<u8>> {
        let response = self.send(self.request(Method::GET, &format!("/v1/hosts/{host}/bundles/{digest}"))).await?;
        self.bytes(response, limits::BUNDLE_BYTES).await
    }

    /// Tells what was observed on `host`.
    pub async fn report(&self, host: &str, report: &Report) -> Result<()> {
        let request = self.request(Method::POST, &format!("/v1/hosts/{host}/report")).json(report);
        let response = self.send(request).await?;
        if response.status() == StatusCode::NO_CONTENT {
            Ok(())
        } else {
            Err(self.not_titan(response.status(), &media_type(&response), None))
        }
    }

    fn with_query(&self, method: Method, path: &str, query: &[(&str, String)]) -> RequestBuilder {
        let mut path = path.to_owned();
        for (index, (key, value)) in query.iter().enumerate() {
            path.push(if index == 0 { '?' } else { '&' });
            path.push_str(key);
            path.push('=');
            path.push_str(&encode(value));
        }
        self.request(method, &path)
    }
}

/// Returns `text` percent-encoded for a query.
fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~:".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

fn written(mut request: RequestBuilder, options: &WriteOptions) -> RequestBuilder {
    if let Some(revision) = options.if_match {
        request = request.header(header::IF_MATCH, format!("\"{revision}\""));
    }
    if let Some(key) = &options.idempotency_key {
        request = request.header("idempotency-key", key);
    }
    if let Some(reason) = &options.reason {
        request = request.header("titan-reason", encode(reason));
    }
    request
}

fn media_type(response: &Response) -> String {
    let text = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_lowercase()
}

fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    text.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_without_scheme_or_with_credentials_are_refused() {
        for bad in ["", "localhost:7420", "ftp://host", "http://user:secret@host"] {
            assert!(Client::new(bad, None).is_err(), "{bad}");
        }
        assert!(Client::new("http://127.0.0.1:7420/", None).is_ok());
    }

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encode("a=b,c d+ü"), "a%3Db%2Cc%20d%2B%C3%BC");
    }
}
