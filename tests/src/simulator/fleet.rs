//! A fleet: agents that poll when they are due.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use titan_api::Revision;
use tokio::{sync::Notify, task::AbortHandle};

use crate::{
    dice::Dice,
    simulator::{
        credentials::Credentials,
        fold::Desired,
        hands::Hands,
        script::Script,
        tally::Tally,
        transports::{Place, Transport},
        wheel::Wheel,
    },
};

/// How often to look whether something has come to its end.
const LOOK: Duration = Duration::from_millis(2);

/// One agent.
#[derive(Clone, Default)]
pub(super) struct Agent {
    pub(super) desired: Desired,
    /// Reports sent.
    pub(super) reported: u32,
    /// Failures in a row.
    pub(super) failures: u8,
    /// Whether the next poll asks for everything.
    pub(super) ask_full: bool,
    /// Whether it is to report another phase of one of its deployments.
    pub(super) phase: bool,
}

/// A fleet of simulated agents.
pub struct Fleet {
    /// What happened.
    pub tally: Arc<Tally>,
    pub(super) place: Place,
    pub(super) script: Script,
    pub(super) credentials: Credentials,
    pub(super) transport: Transport,
    pub(super) wheel: Wheel,
    /// Cuts off the polls that are being held.
    pub(super) cut: Notify,
    /// Reports are numbered from here, so that those of a later run are newer.
    pub(super) reports_from: u64,
    agents: Vec<Mutex<Agent>>,
    stopped: AtomicBool,
    parking: AtomicBool,
    parked: Mutex<Vec<u32>>,
    hands: Hands,
    thrown: AtomicU64,
    ticker: Mutex<Option<AbortHandle>>,
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet").field("agents", &self.agents.len()).finish_non_exhaustive()
    }
}

impl Fleet {
    /// Returns a fleet of hosts 0 to `agents` that has not begun to poll.
    pub fn new(place: &Place, script: Script, credentials: Credentials, agents: usize) -> anyhow::Result<Arc<Self>> {
        script.check()?;
        let tally = Arc::new(Tally::default());
        let transport = Transport::new(place, &script, agents, &tally)?;
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Ok(Arc::new(Self {
            tally,
            place: place.clone(),
            script,
            credentials,
            transport,
            wheel: Wheel::default(),
            cut: Notify::new(),
            reports_from: u64::try_from(since.as_millis()).unwrap_or_default(),
            agents: (0..agents).map(|_| Mutex::default()).collect(),
            stopped: AtomicBool::new(false),
            parking: AtomicBool::new(false),
            parked: Mutex::default(),
            hands: Hands::default(),
            thrown: AtomicU64::new(0),
            ticker: Mutex::default(),
        }))
    }

    /// Returns how many agents there are.
    #[must_use]
    pub fn agents(&self) -> usize {
        self.agents.len()
    }

    /// Looks at an agent.
    pub(super) fn with<T>(&self, agent: u32, look: impl FnOnce(&mut Agent) -> T) -> T {
        look(&mut self.agents[agent as usize].lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns how many bytes the agents take at rest, places in the wheel included, transport and allocator not.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let heap: usize =
            (0..self.agents.len()).map(|agent| self.with(agent as u32, |agent| agent.desired.heap_bytes())).sum();
        heap + self.agents.len() * (size_of::<Mutex<Agent>>() + 8)
    }

    /// Returns a number from 0 to 1.
    pub(super) fn chance(&self) -> f64 {
        const SIDES: u64 = 1 << 53;
        Dice::new(self.thrown.fetch_add(1, Ordering::Relaxed)).roll(SIDES) as f64 / SIDES as f64
    }

    /// Whether the agent is one of those that read slowly.
    pub(super) fn is_slow(&self, agent: u32) -> bool {
        self.script.slow > 0.0 && (Dice::new(u64::from(agent)).roll(1 << 20) as f64) < self.script.slow * 1_048_576.0
    }

    /// Lets the agents begin to poll, spread over `ramp`.
    pub fn start(self: &Arc<Self>, ramp: Duration) {
        for agent in 0..self.agents.len() {
            self.wheel.add(agent as u32, ramp.mul_f64(self.chance()));
        }
        self.go_on();
    }

    /// Lets agents poll that are due, after a [`Fleet::stop`].
    pub fn go_on(self: &Arc<Self>) {
        self.stopped.store(false, Ordering::SeqCst);
        let fleet = Arc::clone(self);
        let ticker = tokio::spawn(async move {
            let mut interval = tokio::time::interval(Wheel::STEP);
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                let due_at = interval.tick().await;
                fleet.tally.late.add(due_at.elapsed());
                for agent in fleet.wheel.due() {
                    fleet.send(agent);
                }
            }
        });
        let old = self.ticker.lock().unwrap_or_else(PoisonError::into_inner).replace(ticker.abort_handle());
        if let Some(old) = old {
            old.abort();
        }
    }

    fn send(self: &Arc<Self>, agent: u32) {
        self.tally.under_way.fetch_add(1, Ordering::Relaxed);
        if !self.hands.give(agent) {
            tokio::spawn(Arc::clone(self).turns(agent));
        }
    }

    /// Takes an agent's turn, and those of others for as long as there are any.
    async fn turns(self: Arc<Self>, mut agent: u32) {
        let mut fleet = self;
        loop {
            let (pause, changed) = fleet.turn(agent).await;
            if changed && fleet.parking.load(Ordering::SeqCst) {
                fleet.parked.lock().unwrap_or_else(PoisonError::into_inner).push(agent);
            } else {
                fleet.wheel.add(agent, pause);
            }
            let next = fleet.hands.rest();
            fleet.tally.under_way.fetch_sub(1, Ordering::SeqCst);
            let Some(next) = next else { return };
            // Whoever waits keeps no fleet alive.
            let waits = Arc::downgrade(&fleet);
            drop(fleet);
            let Ok(given) = next.await else { return };
            let Some(there) = waits.upgrade() else { return };
            (fleet, agent) = (there, given);
        }
    }

    /// Lets no agent poll any more, cuts off held polls, waits until nothing is under way, and closes all connections.
    pub async fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        if let Some(ticker) = self.ticker.lock().unwrap_or_else(PoisonError::into_inner).take() {
            ticker.abort();
        }
        while self.tally.under_way.load(Ordering::SeqCst) > 0 {
            self.cut.notify_waiters();
            tokio::time::sleep(LOOK).await;
        }
        self.transport.drop_all().await;
    }

    /// Whether the fleet was stopped.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Drops every connection and lets all agents that are there reconnect at once.
    pub async fn storm(self: &Arc<Self>) {
        let resting = self.wheel.drain();
        self.cut.notify_waiters();
        self.transport.drop_all().await;
        for agent in resting {
            self.send(agent);
        }
    }

    /// Keeps agents that were told of a change from polling on, until [`Fleet::unpark`].
    pub fn park(&self) {
        self.parking.store(true, Ordering::SeqCst);
    }

    /// Lets parked agents poll again, spread over `ramp`.
    pub fn unpark(&self, ramp: Duration) {
        self.parking.store(false, Ordering::SeqCst);
        for agent in std::mem::take(&mut *self.parked.lock().unwrap_or_else(PoisonError::into_inner)) {
            self.wheel.add(agent, ramp.mul_f64(self.chance()));
        }
    }

    /// Lets the agents have cursors of the last `span`, which a database that was restored from a backup never gave.
    pub fn restored(&self, span: Duration) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        for agent in 0..self.agents.len() {
            let then = now.saturating_sub(span.mul_f64(self.chance()));
            let cursor = Revision::from_micros(i64::try_from(then.as_micros()).unwrap_or(i64::MAX));
            self.with(agent as u32, |agent| agent.desired.advance(cursor));
        }
    }

    /// Waits until `done`; fails with `what` after `patience`.
    pub async fn until(&self, what: &str, patience: Duration, done: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        let begun = std::time::Instant::now();
        while !done(self) {
            anyhow::ensure!(
                begun.elapsed() < patience,
                "waited {patience:?} for {what}; errors: {:?}",
                self.tally.faults()
            );
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}
