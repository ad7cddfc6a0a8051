//! The engine's events: whatever happens to containers of ours wakes the agent.
//!
//! They come from the engine's own program, which runs for as long as the agent does. An owner who has not the memory for
//! it sets `appliers.compose.events` to false: then containers are looked at with every beat and no sooner.

use std::{collections::BTreeMap, time::Duration};

use titan_api::templates::Applier as Kind;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use super::engine::Engine;
use crate::{apply::podman::events::matters, wake::Wake};

/// The shortest and the longest pause before the program is started. An agent that runs once is gone before the first.
const PAUSES: (Duration, Duration) = (Duration::from_secs(3), Duration::from_mins(10));
/// A program that ran for this long ran well.
const WELL: Duration = Duration::from_secs(30);
/// Between two times that the agent is woken: a container that is restarted again and again does not keep it busy.
const REST: Duration = Duration::from_secs(1);
/// Bytes of an event; a longer one is passed over.
const LINE: usize = 64 * 1024;

/// Wakes the agent for as long as it is polled.
pub(super) async fn watch(engine: Engine, wake: Wake) {
    let news = Notify::new();
    let tell = async {
        loop {
            news.notified().await;
            wake.stirred(Kind::Compose);
            sleep(REST).await;
        }
    };
    let follow = async {
        let (mut pause, mut healths) = (PAUSES.0, BTreeMap::new());
        loop {
            sleep(pause).await;
            let (began, mut lines) = (Instant::now(), Lines::default());
            let mut hear = |bytes: &[u8]| {
                lines.push(bytes, |line| {
                    if matters(line, &mut healths) {
                        news.notify_one();
                    }
                });
            };
            let ended = engine.events(&mut hear).await;
            if began.elapsed() < WELL {
                tracing::debug!("the engine's events cannot be followed: {}", ended.failure().unwrap_or_default());
                pause = (pause * 2).min(PAUSES.1);
            } else {
                // What happens until it runs again is seen now, or told by it.
                pause = PAUSES.0;
                news.notify_one();
            }
        }
    };
    tokio::select! {
        () = tell => {}
        () = follow => {}
    }
}

/// Bytes that come in pieces, as lines.
#[derive(Debug, Default)]
struct Lines {
    begun: Vec<u8>,
    too_long: bool,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&[u8])) {
        let mut parts = bytes.split(|byte| *byte == b'\n');
        let last = parts.next_back().unwrap_or_default();
        for part in parts {
            self.add(part);
            if !self.too_long {
                line(&self.begun);
            }
            (self.begun, self.too_long) = (Vec::new(), false);
        }
        self.add(last);
    }

    fn add(&mut self, part: &[u8]) {
        self.too_long |= self.begun.len() + part.len() > LINE;
        if self.too_long {
            self.begun = Vec::new();
        } else {
            self.begun.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_and_those_that_are_too_long_passed_over() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        let long = vec![b'x'; LINE / 2 + 1];
        for piece in [&b"a"[..], b"b\nc\n\nd", &long, &long, b"e\nf", b"g\n", b"h"] {
            lines.push(piece, |line| seen.push(String::from_utf8_lossy(line).into_owned()));
        }
        assert_eq!(seen, ["ab", "c", "", "fg"]);
    }
}
