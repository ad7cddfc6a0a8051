//! The typed HTTP client, for agents, command line and tests.

mod access;
mod deployments;
mod documents;
mod download;
mod feed;
mod hosts;
mod trust;
mod workplans;

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};

use crate::{Code, Problem, Revision, limits, poll::PollAnswer, problems};

pub use download::Download;
pub use trust::{SystemTrust, tls};

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
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
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
    /// An answer that comes too slowly to be waited for.
    #[error("{server} sent {bytes} bytes in {seconds} s: that is not waited for")]
    Slow {
        /// The server's address.
        server: String,
        /// How many bytes came.
        bytes: u64,
        /// In how many seconds.
        seconds: u64,
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
        /// When to ask again; 0 for at once.
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
    /// Returns a client of the control plane at `server` that shows `token`, and trusts whom the system trusts.
    pub fn new(server: &str, token: Option<String>) -> Result<Self> {
        Self::trusting(server, token, SystemTrust::default())
    }

    /// Returns a client like [`Client::new`] that takes the certificates that `trust` takes.
    pub fn trusting(server: &str, token: Option<String>, trust: SystemTrust) -> Result<Self> {
        // A second provider in the process would panic at the first handshake; whoever comes first wins.
        let _already_set = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .redirect(reqwest::redirect::Policy::none())
            .tls_backend_preconfigured(tls(trust).map_err(ClientError::Tls)?)
            .build()
            .map_err(ClientError::Setup)?;
        Self::over(http, server, token)
    }

    /// Returns a client like [`Client::new`] that goes over `http`, which decides what is trusted.
    pub fn over(http: reqwest::Client, server: &str, token: Option<String>) -> Result<Self> {
        let address = || ClientError::Address(server.to_owned());
        let url = reqwest::Url::parse(server).map_err(|_| address())?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !url.username().is_empty() {
            return Err(address());
        }
        Ok(Self { http, server: server.trim_end_matches('/').to_owned(), token })
    }

    /// Returns the server's address.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.plain(method, path).header(header::USER_AGENT, concat!("titan/", env!("CARGO_PKG_VERSION")))
    }

    /// Returns a request that does not say who made the client: a poll is sent too often for that.
    fn plain(&self, method: Method, path: &str) -> RequestBuilder {
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
        not_titan(&self.server, status, media_type, retry_after)
    }

    /// Reads a body of at most `limit` bytes into memory.
    async fn bytes(&self, response: Response, limit: usize) -> Result<Vec<u8>> {
        Download::new(&self.server, response, limit as u64).bytes().await
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

    fn with_query(&self, method: Method, path: &str, query: &[(&str, String)]) -> RequestBuilder {
        self.request(method, &path_with(path, query))
    }
}

fn not_titan(server: &str, status: StatusCode, media_type: &str, retry_after: Option<Duration>) -> ClientError {
    let what = if media_type.is_empty() { "no media type".to_owned() } else { media_type.to_owned() };
    ClientError::NotTitan { server: server.to_owned(), status: status.as_u16(), what, retry_after }
}

/// Returns a path with a query.
fn path_with(path: &str, query: &[(&str, String)]) -> String {
    let mut path = path.to_owned();
    for (index, (key, value)) in query.iter().enumerate() {
        path.push(if index == 0 { '?' } else { '&' });
        path.push_str(key);
        path.push('=');
        path.push_str(&encode(value));
    }
    path
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
