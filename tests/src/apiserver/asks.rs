//! Calls of the double and what it answers.

use std::collections::BTreeMap;

use axum::{
    body::Bytes,
    http::{HeaderMap, Method, Uri},
};
use serde_json::{Value, json};

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) status: u16,
    /// The body; a text is sent as it is.
    pub(super) value: Value,
}

impl Answer {
    pub(super) fn ok(value: Value) -> Self {
        Self { status: 200, value }
    }

    /// Returns a failure as the server puts it.
    pub(super) fn failure(status: u16, reason: &str, message: &str, causes: &[Value]) -> Self {
        let value = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
                           "reason": reason, "details": {"causes": causes}, "code": status});
        Self { status, value }
    }

    pub(super) fn missing(what: &str) -> Self {
        Self::failure(404, "NotFound", &format!("{what} not found"), &[])
    }
}

/// A call.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) path: Vec<String>,
    pub(super) full: String,
    query: BTreeMap<String, String>,
    pub(super) media: String,
    pub(super) body: Value,
    /// Whether it is a watch.
    pub(super) watch: bool,
}

impl Ask {
    /// Reads a call.
    pub(super) fn new(method: &Method, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> Result<Self, Answer> {
        let query: BTreeMap<String, String> = uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), decode(value)))
            .collect();
        let body = if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(body).map_err(|_| Answer::failure(400, "BadRequest", "the body is not JSON", &[]))?
        };
        let media = headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let watch = query.get("watch").is_some_and(|watch| watch == "true");
        let path = uri.path().split('/').filter(|part| !part.is_empty()).map(decode).collect();
        Ok(Self { method: method.clone(), path, full: uri.to_string(), query, media, body, watch })
    }

    pub(super) fn query(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = (*first == b'%').then(|| after.get(..2)).flatten().and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
