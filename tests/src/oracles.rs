//! Servers that plans ask, and what they were asked.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{Router, http::HeaderMap, routing::any};
use tokio::task::JoinHandle;

/// A server that says yes to everything, and the idempotency keys under which it was asked.
#[derive(Debug)]
pub struct Oracle {
    /// Where it listens.
    pub url: String,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Oracle {
    /// Starts one that thinks for a while before it answers.
    pub async fn start(thinks: Duration) -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let remembers = Arc::clone(&asked);
        let answer = move |headers: HeaderMap| async move {
            let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or_default();
            remembers.lock().unwrap_or_else(PoisonError::into_inner).push(key.to_owned());
            tokio::time::sleep(thinks).await;
        };
        let router = Router::new().route("/", any(answer));
        let task = tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { url, asked, task })
    }

    /// Returns the keys under which it was asked, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        let asked: MutexGuard<'_, Vec<String>> = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        self.task.abort();
    }
}
