//! Calls to the server: bounded in time and size, and with an answer that says what to do.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use reqwest::{Certificate, Identity, Method, Response, StatusCode, header};
use serde_json::Value;

use super::{
    access::{Access, Token},
    objects::{items, number, text},
};
use crate::{config::Secret, settle::chain};

/// The largest answer that is read, in bytes. Objects have at most some 3 MB.
pub(crate) const BODY_BYTES: usize = 8 * 1024 * 1024;
/// How long one call may take.
const CALL: Duration = Duration::from_secs(5);
/// How often a call is tried that may come again.
const ATTEMPTS: u32 = 5;
/// The longest pause that a server may ask for.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// How long a token from a file is used before it is read again.
const TOKEN_AGE: Duration = Duration::from_secs(60);

/// How a body is applied on the server: its own words for a server-side apply, of JSON or YAML.
pub(crate) const APPLY: &str = "application/apply-patch+yaml";
/// The media type of a patch that says what is to be otherwise.
pub(crate) const MERGE: &str = "application/merge-patch+json";
const JSON: &str = "application/json";

/// A connection to one cluster.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    server: String,
    token: Token,
    last: Mutex<Option<(Option<Secret>, Instant)>>,
    /// Before when the server does not want to be asked.
    closed: Mutex<Option<Instant>>,
}

/// Why a call did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// No answer, or not all of it.
    #[error("the API server at {server} cannot be reached: {message}")]
    Unreachable {
        /// The server's address.
        server: String,
        /// What the network said.
        message: String,
    },
    /// The credentials cannot be read.
    #[error("the credentials cannot be read: {0}")]
    Credentials(String),
    /// Something answered that is no API server, such as a proxy.
    #[error("{server} answered {status} with {what}: that is not an API server")]
    Strange {
        /// The server's address.
        server: String,
        /// The HTTP status.
        status: u16,
        /// What came instead.
        what: String,
    },
    /// The server wants to be left alone for a while.
    #[error("the API server asks to wait for {0} s")]
    Busy(u64),
    /// The server refused.
    #[error("{}", .0.message)]
    Refused(Refused),
}

/// What the server said when it refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The reason in one word.
    pub(crate) reason: String,
    /// What it said.
    pub(crate) message: String,
    /// The fields it spoke of, each with the reason and with what it said.
    pub(crate) causes: Vec<(String, String, String)>,
}

impl CallError {
    /// Whether there is no such object.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Refused(refused) if refused.status == 404)
    }

    /// Whether the server said no, other than for a while.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused(refused) => Some(refused.status),
            _ => None,
        }
    }

    /// Whether the same call may succeed a little later.
    fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Busy(_) => true,
            Self::Strange { status, .. } => matches!(status, 429 | 500..),
            Self::Refused(refused) => matches!(refused.status, 429 | 500..),
            Self::Credentials(_) => false,
        }
    }
}

impl Client {
    /// Returns a client for what `access` says.
    pub(crate) fn new(access: Access) -> Result<Self, String> {
        let _already_set = rustls::crypto::ring::default_provider().install_default();
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("titan-agent/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CALL)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if let Some(pem) = &access.authorities {
            let authorities = Certificate::from_pem_bundle(pem).map_err(|error| chain(&error))?;
            if authorities.is_empty() {
                return Err("certificate-authority: it holds no certificate".to_owned());
            }
            http = http.tls_certs_only(authorities);
        }
        if let Some(pem) = &access.identity {
            let identity = Identity::from_pem(pem.reveal().as_bytes());
            http = http.identity(identity.map_err(|error| format!("client-certificate: {}", chain(&error)))?);
        }
        let http = http.build().map_err(|error| chain(&error))?;
        let Access { server, token, .. } = access;
        Ok(Self { http, server, token, last: Mutex::default(), closed: Mutex::default() })
    }

    /// Reads.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, CallError> {
        self.call(Method::GET, path, None).await
    }

    /// Makes a call. If the server has asked to be left alone, it is not made.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Value, CallError> {
        let mut response = self.send(method, path, body, CALL).await?;
        let status = response.status();
        let bytes = self.body(&mut response, BODY_BYTES).await?;
        serde_json::from_slice(&bytes).map_err(|_| self.strange(status, "what is not JSON"))
    }

    /// Makes a call that may come twice, and again a little later if the server cannot answer now.
    pub(crate) async fn insist(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Value, CallError> {
        let mut pause = Duration::from_millis(200);
        for _ in 1..ATTEMPTS {
            match self.call(method.clone(), path, body).await {
                Err(error) if error.may_pass() => {
                    tokio::time::sleep(self.closed_for().unwrap_or(pause)).await;
                    pause = pause.saturating_mul(2);
                }
                answer => return answer,
            }
        }
        self.call(method, path, body).await
    }

    /// Deletes.
    pub(crate) async fn delete(&self, path: &str, options: &Value) -> Result<Value, CallError> {
        self.insist(Method::DELETE, path, Some((JSON, options))).await
    }

    /// Reads text, at most `limit` bytes of it.
    pub(crate) async fn text(&self, path: &str, limit: usize) -> Result<String, CallError> {
        let mut response = self.send(Method::GET, path, None, CALL).await?;
        let bytes = self.body(&mut response, limit).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Opens an answer that goes on for at most `length`.
    pub(crate) async fn stream(&self, path: &str, length: Duration) -> Result<Response, CallError> {
        self.send(Method::GET, path, None, length).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
        length: Duration,
    ) -> Result<Response, CallError> {
        if let Some(left) = self.closed_for() {
            return Err(CallError::Busy(left.as_secs() + 1));
        }
        let mut request = self.http.request(method, format!("{}{path}", self.server)).timeout(length);
        if let Some(token) = self.bearer()? {
            request = request.bearer_auth(token.reveal());
        }
        request = request.header(header::ACCEPT, "application/json, */*;q=0.1");
        if let Some((media, value)) = body {
            request = request.header(header::CONTENT_TYPE, media).body(value.to_string());
        }
        let mut response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if status == StatusCode::UNAUTHORIZED {
            // It may have been replaced since it was read.
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        self.close(&response);
        let media = response.headers().get(header::CONTENT_TYPE).and_then(|media| media.to_str().ok());
        let media = media.unwrap_or("no media type").chars().take(80).collect::<String>();
        let bytes = self.body(&mut response, BODY_BYTES).await?;
        match serde_json::from_slice::<Value>(&bytes) {
            Ok(said) if text(&said, &["kind"]) == "Status" => Err(CallError::Refused(refused(status, &said))),
            _ => Err(self.strange(status, &media)),
        }
    }

    /// Reads a body of at most `limit` bytes.
    async fn body(&self, response: &mut Response, limit: usize) -> Result<Vec<u8>, CallError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            if body.len() + chunk.len() > limit {
                return Err(self.strange(response.status(), &format!("more than {limit} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn bearer(&self) -> Result<Option<Secret>, CallError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((token, read)) = &*last
            && read.elapsed() < TOKEN_AGE
        {
            return Ok(token.clone());
        }
        let token = self.token.read().map_err(CallError::Credentials)?;
        *last = Some((token.clone(), Instant::now()));
        Ok(token)
    }

    /// Notes for how long a server that has too much to do wants to be left alone.
    fn close(&self, response: &Response) {
        if !matches!(response.status().as_u16(), 429 | 503) {
            return;
        }
        let after = response.headers().get(header::RETRY_AFTER).and_then(|after| after.to_str().ok());
        if let Some(seconds) = after.and_then(|after| after.parse().ok()) {
            let pause = Duration::from_secs(seconds).min(LONGEST_PAUSE);
            *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + pause);
        }
    }

    /// Returns for how long the server wants to be left alone yet.
    fn closed_for(&self) -> Option<Duration> {
        let closed = *self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        closed.and_then(|until| until.checked_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    fn unreachable(&self, error: &reqwest::Error) -> CallError {
        // Without the address: it is named anyway, and the path says nothing to people.
        let mut source: &dyn std::error::Error = error;
        while let Some(inner) = source.source() {
            source = inner;
        }
        let message = if error.is_timeout() { "no answer in time".to_owned() } else { source.to_string() };
        CallError::Unreachable { server: self.server.clone(), message }
    }

    fn strange(&self, status: StatusCode, what: &str) -> CallError {
        CallError::Strange { server: self.server.clone(), status: status.as_u16(), what: what.to_owned() }
    }
}

fn refused(status: StatusCode, said: &Value) -> Refused {
    let short = |text: &str| text.chars().take(2000).collect::<String>();
    let cause = |cause: &Value| {
        let of = |key| short(text(cause, &[key]));
        (of("field"), of("reason"), of("message"))
    };
    let code = number(said, &["code"]).and_then(|code| u16::try_from(code).ok());
    Refused {
        status: code.unwrap_or(status.as_u16()),
        reason: text(said, &["reason"]).to_owned(),
        message: match text(said, &["message"]) {
            "" => status.to_string(),
            message => short(message),
        },
        causes: items(said, &["details", "causes"]).iter().take(100).map(cause).collect(),
    }
}

/// Returns `text` percent-encoded for a part of a path or query.
pub(crate) fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}
