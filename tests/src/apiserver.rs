//! A double of a Kubernetes API server, on loopback and in this process.
//!
//! It really keeps objects: discovery, server-side apply with managed fields and conflicts, resource versions, watches, dry
//! runs, preconditions, foreground deletion with owners, namespaces that take their contents along, definitions that take a
//! moment to be established. A small controller makes deployments ready, or their pods fail if the image's tag is `broken`.
//! Faults can be asked for: errors, pauses, a proxy's page, connections that break off, silence.

#[path = "apiserver/asks.rs"]
mod asks;
#[path = "apiserver/calls.rs"]
mod calls;
#[path = "apiserver/controllers.rs"]
mod controllers;
#[path = "apiserver/kinds.rs"]
pub mod kinds;
#[path = "apiserver/ownership.rs"]
pub mod ownership;
#[path = "apiserver/state.rs"]
mod state;
#[path = "apiserver/streams.rs"]
mod streams;

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    extract::State as Shared,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use asks::{Answer, Ask};
pub use state::Logged;
use state::State;
use streams::{Broken, Lines};

/// The token that the double takes.
pub const TOKEN: &str = "double-token";

/// What goes wrong with a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is answered with a status of the server's own.
    Status(u16),
    /// The server has too much to do, for so many seconds.
    Busy(u64),
    /// It takes this long.
    Slow(Duration),
    /// The connection breaks off within the answer.
    Broken,
    /// A proxy answers.
    Page,
    /// Nobody answers, ever.
    Silent,
}

/// The server; gone with this value.
#[derive(Debug)]
pub struct ApiServer {
    url: String,
    inner: Arc<Inner>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    faults: Mutex<Vec<(Fault, u32)>>,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the fault of the next call, if there is to be one. Calls before it are counted down.
    fn fault(&self) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let (fault, left) = faults.first_mut()?;
        let fault = fault.clone();
        *left = left.saturating_sub(1);
        if *left == 0 {
            faults.remove(0);
        }
        Some(fault)
    }
}

impl ApiServer {
    /// Starts a server on a free port of loopback.
    ///
    /// # Panics
    ///
    /// If it cannot listen there.
    #[must_use]
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let inner = Arc::new(Inner::default());
        let (stop, stopped) = oneshot::channel();
        let served = Arc::clone(&inner);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                listener.set_nonblocking(true).expect("non-blocking");
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                let app = axum::Router::new().fallback(answer).with_state(served);
                tokio::select! {
                    _ = axum::serve(listener, app) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { url, inner, stop: Some(stop), thread: Some(thread) }
    }

    /// Returns the address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Writes a kubeconfig with which the server is reached.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    pub fn write_kubeconfig(&self, path: &Path) {
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "double",
            "contexts": [{"name": "double", "context": {"cluster": "double", "user": "double"}}],
            "clusters": [{"name": "double", "cluster": {"server": self.url}}],
            "users": [{"name": "double", "user": {"token": TOKEN}}],
        });
        std::fs::write(path, text.to_string()).expect("a kubeconfig");
    }

    /// Returns an object, if it is there.
    #[must_use]
    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.inner.state().get(plural, namespace, name)
    }

    /// Makes or replaces an object as another manager does: `change` gets it as it is, or `Null`.
    ///
    /// # Panics
    ///
    /// If the kind is not served.
    pub fn edit(&self, plural: &str, namespace: &str, name: &str, manager: &str, change: impl FnOnce(&mut Value)) {
        self.inner.state().edit(plural, namespace, name, manager, change);
    }

    /// Removes an object as somebody does who need not ask.
    pub fn delete(&self, plural: &str, namespace: &str, name: &str) {
        self.inner.state().delete_now(plural, namespace, name);
    }

    /// The next `times` calls go wrong, apart from watches.
    pub fn fail(&self, fault: Fault, times: u32) {
        self.inner.faults.lock().unwrap_or_else(PoisonError::into_inner).push((fault, times));
    }

    /// All goes well again.
    pub fn mend(&self) {
        self.inner.faults.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.inner.state().silent_after = None;
    }

    /// After so many further calls nobody answers any more, as if the caller died at the one after.
    pub fn silence_after(&self, calls: usize) {
        let mut state = self.inner.state();
        state.silent_after = Some(state.calls + calls);
    }

    /// Refuses these verbs on these objects: `("delete", "services")`.
    pub fn forbid(&self, verb: &'static str, plural: &'static str) {
        self.inner.state().forbidden.push((verb, plural));
    }

    /// Allows everything again.
    pub fn allow_all(&self) {
        self.inner.state().forbidden.clear();
    }

    /// Whether deployments are made ready, or stay as they are.
    pub fn control(&self, is: bool) {
        self.inner.state().uncontrolled = !is;
    }

    /// Forgets what happened until now: watches that go on from before are told so.
    pub fn compact(&self) {
        self.inner.state().compact();
    }

    /// Ends all watches.
    pub fn break_watches(&self) {
        self.inner.state().break_watches();
    }

    /// Returns how many watches there are.
    #[must_use]
    pub fn watches(&self) -> usize {
        self.inner.state().watches()
    }

    /// Returns the calls since the last time, without watches.
    pub fn calls(&self) -> Vec<Logged> {
        std::mem::take(&mut self.inner.state().log)
    }

    /// Returns everything that is there but `Pod`s, each as `plural namespace/name`.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.inner.state().names()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

async fn answer(
    Shared(inner): Shared<Arc<Inner>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let ask = match Ask::new(&method, &uri, &headers, &body) {
        Ok(ask) => ask,
        Err(answer) => return plain(answer),
    };
    if headers.get("authorization").and_then(|value| value.to_str().ok()) != Some(&format!("Bearer {TOKEN}")) {
        return plain(Answer::failure(401, "Unauthorized", "Unauthorized", &[]));
    }
    if ask.watch {
        return match inner.state().watch(&ask) {
            Ok((first, news)) => Response::new(Body::new(Lines::new(first, news))),
            Err(answer) => plain(answer),
        };
    }
    let silent = {
        let mut state = inner.state();
        state.calls += 1;
        state.silent_after.is_some_and(|after| state.calls > after)
    };
    let fault = if silent { Some(Fault::Silent) } else { inner.fault() };
    match fault {
        None => {}
        Some(Fault::Status(status)) => {
            return plain(Answer::failure(status, "InternalError", "an error on the server", &[]));
        }
        Some(Fault::Busy(seconds)) => {
            let answer = Answer::failure(429, "TooManyRequests", "too many requests", &[]);
            let mut response = plain(answer);
            response.headers_mut().insert("retry-after", seconds.into());
            return response;
        }
        Some(Fault::Slow(pause)) => tokio::time::sleep(pause).await,
        Some(Fault::Broken) => return Response::new(Body::new(Broken)),
        Some(Fault::Page) => {
            return (StatusCode::OK, [("content-type", "text/html")], "<html>please log in</html>").into_response();
        }
        Some(Fault::Silent) => std::future::pending().await,
    }
    let answer = inner.state().answer(&ask, Instant::now());
    plain(answer)
}

fn plain(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match answer.value {
        Value::String(text) => (status, text).into_response(),
        value => (status, [("content-type", "application/json")], value.to_string()).into_response(),
    }
}
