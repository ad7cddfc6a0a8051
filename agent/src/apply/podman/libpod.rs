//! Podman's own REST API, over its Unix socket.

use std::{path::Path, time::Duration};

use reqwest::{Client, Method, StatusCode};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::runtime::Handle;

use crate::settle::chain;

/// The version of the API that is asked for: podman 4 and everything after it has it.
const BASE: &str = "http://podman/v4.0.0/libpod";
/// How long a question may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes.
const ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// A connection to one podman.
#[derive(Debug, Clone)]
pub(crate) struct Libpod {
    http: Client,
    io: Handle,
    socket: String,
}

/// Why podman did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LibpodError {
    /// There is no answer.
    #[error("podman cannot be reached on {socket}: {message}")]
    Unreachable {
        /// The socket.
        socket: String,
        /// What went wrong.
        message: String,
    },
    /// There is no such thing.
    #[error("{0}")]
    Missing(String),
    /// It is used, or there already.
    #[error("{0}")]
    Conflict(String),
    /// Anything else that podman said.
    #[error("{0}")]
    Said(String),
}

#[derive(Deserialize)]
struct Problem {
    message: String,
}

/// A question.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    method: Method,
    path: &'a str,
    query: Vec<(&'a str, String)>,
    body: Option<(&'static str, String)>,
    patience: Duration,
}

impl<'a> Ask<'a> {
    pub(crate) const fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, query: Vec::new(), body: None, patience: PATIENCE }
    }

    pub(crate) const fn post(path: &'a str) -> Self {
        Self { method: Method::POST, path, query: Vec::new(), body: None, patience: PATIENCE }
    }

    pub(crate) const fn delete(path: &'a str) -> Self {
        Self { method: Method::DELETE, path, query: Vec::new(), body: None, patience: PATIENCE }
    }

    pub(crate) fn with(mut self, key: &'a str, value: impl Into<String>) -> Self {
        self.query.push((key, value.into()));
        self
    }

    pub(crate) fn body(mut self, kind: &'static str, body: String) -> Self {
        self.body = Some((kind, body));
        self
    }

    /// Waits that long for all of the answer.
    pub(crate) const fn within(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

impl Libpod {
    /// Returns a connection, which is made when the first question is asked.
    pub(crate) fn new(socket: &Path, io: Handle) -> Result<Self, LibpodError> {
        let name = socket.display().to_string();
        let _already_set = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder()
            .unix_socket(socket)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            // Nothing here speaks TLS: the store of certificates is not read.
            .tls_certs_only([])
            // A service that is started by its socket ends when nobody is connected: nothing is kept open for later.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| LibpodError::Unreachable { socket: name.clone(), message: chain(&error) })?;
        Ok(Self { http, io, socket: name })
    }

    fn lost(&self, error: &reqwest::Error) -> LibpodError {
        let message = if error.is_timeout() { "it does not answer".to_owned() } else { chain(error) };
        LibpodError::Unreachable { socket: self.socket.clone(), message }
    }

    /// Sends a question, and returns the answer once it begins.
    async fn send(&self, ask: Ask<'_>, patience: Option<Duration>) -> Result<reqwest::Response, LibpodError> {
        let mut url = format!("{BASE}{}", ask.path);
        for (i, (key, value)) in ask.query.iter().enumerate() {
            url.push(if i == 0 { '?' } else { '&' });
            url.push_str(key);
            url.push('=');
            url.push_str(&encode(value));
        }
        let mut request = self.http.request(ask.method, url);
        if let Some(patience) = patience {
            request = request.timeout(patience);
        }
        if let Some((kind, body)) = ask.body {
            request = request.header("content-type", kind).body(body);
        }
        let response = request.send().await.map_err(|error| self.lost(&error))?;
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        let body = self.body(response).await?;
        let message = serde_json::from_slice(&body).map_or_else(
            |_| format!("{status}: {}", String::from_utf8_lossy(&body[..body.len().min(512)])),
            |problem: Problem| problem.message,
        );
        Err(match status {
            StatusCode::NOT_FOUND => LibpodError::Missing(message),
            StatusCode::CONFLICT => LibpodError::Conflict(message),
            _ => LibpodError::Said(message),
        })
    }

    async fn body(&self, mut response: reqwest::Response) -> Result<Vec<u8>, LibpodError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.lost(&error))? {
            if body.len() + chunk.len() > ANSWER_BYTES {
                return Err(LibpodError::Said(format!("podman's answer is longer than {ANSWER_BYTES} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// Returns the answer's bytes.
    pub(crate) async fn ask(&self, ask: Ask<'_>) -> Result<Vec<u8>, LibpodError> {
        let patience = ask.patience;
        let response = self.send(ask, Some(patience)).await?;
        self.body(response).await
    }

    /// Returns what the answer says.
    pub(crate) async fn read<T: DeserializeOwned>(&self, ask: Ask<'_>) -> Result<T, LibpodError> {
        let path = ask.path.to_owned();
        let body = self.ask(ask).await?;
        // An empty list is `null` in some versions.
        serde_json::from_slice(if body.is_empty() { b"null" } else { &body })
            .map_err(|error| LibpodError::Said(format!("podman's answer to {path} cannot be read: {error}")))
    }

    /// Returns what the answer says, from a thread that may wait.
    pub(crate) fn read_now<T: DeserializeOwned>(&self, ask: Ask<'_>) -> Result<T, LibpodError> {
        self.io.block_on(self.read(ask))
    }

    /// Returns an answer that goes on, line by line. The pause between two lines may be as long as it likes unless told.
    pub(crate) async fn lines(&self, ask: Ask<'_>, silence: Option<Duration>) -> Result<Lines, LibpodError> {
        let response = self.send(ask, None).await?;
        Ok(Lines { response, rest: Vec::new(), silence, socket: self.socket.clone() })
    }
}

/// The lines of an answer that goes on.
#[derive(Debug)]
pub(crate) struct Lines {
    response: reqwest::Response,
    rest: Vec<u8>,
    silence: Option<Duration>,
    socket: String,
}

impl Lines {
    /// The longest line, in bytes.
    const LINE_BYTES: usize = 256 * 1024;

    /// Returns the next line, or `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, LibpodError> {
        let lost = |message: String| LibpodError::Unreachable { socket: self.socket.clone(), message };
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line = self.rest.drain(..=end).collect();
                return Ok(Some(line));
            }
            if self.rest.len() > Self::LINE_BYTES {
                return Err(LibpodError::Said("podman sent a line without end".to_owned()));
            }
            let chunk = match self.silence {
                Some(silence) => tokio::time::timeout(silence, self.response.chunk()).await,
                None => Ok(self.response.chunk().await),
            };
            let chunk = chunk.map_err(|_| lost(format!("silent for {} s", self.silence.unwrap_or_default().as_secs())));
            match chunk?.map_err(|error| lost(chain(&error)))? {
                Some(chunk) => self.rest.extend_from_slice(&chunk),
                None if self.rest.is_empty() => return Ok(None),
                None => return Ok(Some(std::mem::take(&mut self.rest))),
            }
        }
    }
}

/// Returns a text as it may stand in an address.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_encoded_for_addresses() {
        assert_eq!(encode("quay.io/x@sha256:ab"), "quay.io%2Fx%40sha256%3Aab");
        assert_eq!(encode("a b&c=d"), "a%20b%26c%3Dd");
    }
}
