//! Pushing commits beside everything else: a remote that hangs holds up nothing but itself.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::Agent;
use crate::{git::Sink, settle::chain, wake::Wake};

/// A push that takes longer than this is reported as one that hangs.
const HANGS: Duration = Duration::from_mins(2);

/// A push that is under way, in a thread of its own that ends with the process.
#[derive(Debug)]
pub(super) struct Pushing {
    began: Instant,
    told: bool,
    result: oneshot::Receiver<Result<BTreeMap<String, String>, String>>,
}

impl Pushing {
    fn begin(sink: Sink, wake: Wake) -> Self {
        let (sender, result) = oneshot::channel();
        let push = move || {
            drop(sender.send(sink.sync().map_err(|error| chain(&error))));
            wake.ended();
        };
        if let Err(error) = std::thread::Builder::new().name("push".to_owned()).spawn(push) {
            // What was to send the result is gone, which counts as a failure.
            tracing::warn!("no thread for the push can be had: {error}");
        }
        Self { began: Instant::now(), told: false, result }
    }
}

impl Agent {
    /// Begins to push what is committed, if there is anything and no push is under way, and waits for the end for
    /// `patience` at most. With `at_once`, though the last push failed a moment ago. Returns whether there is something
    /// new to report, of this push or of the one before.
    pub(super) async fn push(&mut self, at_once: bool, patience: Duration) -> bool {
        let mut patience = patience;
        if self.pushing.is_some() {
            // It was waited for when it began.
            patience = Duration::ZERO;
        } else if let Some(sink) = self.with_worker(|worker| worker.push_due(at_once)).await {
            self.pushing = Some(Pushing::begin(sink, self.wake.clone()));
        }
        let Some(pushing) = &mut self.pushing else { return false };
        let result = match tokio::time::timeout(patience, &mut pushing.result).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err("the push was cut short".to_owned()),
            Err(_) if pushing.told || pushing.began.elapsed() < HANGS => return false,
            Err(_) => {
                pushing.told = true;
                let message = format!("the remote has kept a push waiting for {} s", pushing.began.elapsed().as_secs());
                return self.with_worker(|worker| worker.push_hangs(message)).await;
            }
        };
        self.pushing = None;
        self.with_worker(|worker| worker.pushed(result)).await
    }
}
