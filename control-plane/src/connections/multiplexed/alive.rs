//! Whether a client that says nothing is still there.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use h2::{Ping, PingPong};
use tokio::time::Instant;

/// How often a client is asked whether it is there, and how long it may take to say anything: one that is told much has all
/// of it to read before it comes to the question.
const ALIVE: Duration = Duration::from_secs(45);
const ANSWERED: Duration = Duration::from_secs(60);

/// Asks a client every so often whether it is there.
pub(super) struct Alive {
    pings: PingPong,
    /// Whether it was asked and has not said so.
    asked: bool,
    /// When it is asked next, or has to have said so.
    next: Instant,
}

impl Alive {
    pub(super) fn of(pings: PingPong) -> Self {
        Self { pings, asked: false, next: Instant::now() + ALIVE }
    }

    /// Returns when something is to be done next.
    pub(super) const fn next(&self) -> Instant {
        self.next
    }

    /// Asks when it is time to; `false` if the client said nothing at all in time. `heard` tells whether it said anything
    /// since that was asked last: the answer of a client that is told much comes after all that it has yet to read.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, heard: impl Fn() -> bool) -> bool {
        if self.asked
            && let Poll::Ready(said) = self.pings.poll_pong(context)
        {
            if said.is_err() {
                // The connection ends by itself.
                return true;
            }
            (self.asked, self.next) = (false, Instant::now() + ALIVE);
        }
        if self.next > Instant::now() {
            return true;
        }
        if self.asked {
            self.next = Instant::now() + ANSWERED;
            return heard();
        }
        heard();
        if self.pings.send_ping(Ping::opaque()).is_ok() {
            (self.asked, self.next) = (true, Instant::now() + ANSWERED);
            // Who waits for the answer is woken by it.
            let _not_yet = self.pings.poll_pong(context);
        } else {
            self.next = Instant::now() + ALIVE;
        }
        true
    }
}
