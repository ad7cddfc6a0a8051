//! The verdict: does what each agent holds equal its full answer?

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;

use crate::simulator::{
    answers::Answer,
    credentials,
    fleet::Fleet,
    fold::{Envelope, Folded},
    script::{Carrier, Script},
    transports::Transport,
    wire::Ask,
};

/// Agents that are checked at a time.
const AT_ONCE: usize = 256;
/// Connections that they share over HTTP/2: what is asked together travels together.
const CONNECTIONS: usize = 16;
/// How often an agent is asked that gets no answer, with pauses between: the control plane may be overloaded or restarting.
const ATTEMPTS: u32 = 20;
/// With so many differences nobody is compared any more: the control plane may be gone.
const ENOUGH: u64 = 1000;

/// What a fleet came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// How many agents were compared.
    pub agents: usize,
    /// How many differences there were, those met on the way included.
    pub differences: u64,
    /// The first of them.
    pub first: Vec<String>,
}

impl Verdict {
    /// Whether every agent holds what its full answer says, and held what each answer said.
    #[must_use]
    pub const fn is_equal(&self) -> bool {
        self.differences == 0
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_equal() {
            return f.write_str("equal");
        }
        write!(f, "{} differences: {}", self.differences, self.first.join("; "))
    }
}

impl Fleet {
    /// Compares every agent with its full answer. The fleet is stopped, and nothing changes meanwhile.
    pub async fn verdict(self: &Arc<Self>) -> Verdict {
        let transport = match self.comparing() {
            Ok(transport) => Arc::new(transport),
            Err(error) => {
                let first = vec![format!("nobody could be compared: {error:#}")];
                return Verdict { agents: 0, differences: 1, first };
            }
        };
        let next = Arc::new(AtomicUsize::new(0));
        let mut running = JoinSet::new();
        for _ in 0..AT_ONCE.min(self.agents()) {
            let (fleet, next, transport) = (Arc::clone(self), Arc::clone(&next), Arc::clone(&transport));
            running.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= fleet.agents() || fleet.tally.differences().0 >= ENOUGH {
                        return;
                    }
                    if let Err(why) = fleet.check(&transport, number as u32).await {
                        fleet.tally.difference(format!("{}: {why}", credentials::name(number)));
                    }
                }
            });
        }
        while let Some(ended) = running.join_next().await {
            if let Err(error) = ended {
                self.tally.difference(format!("a comparison ended: {error}"));
            }
        }
        let (differences, first) = self.tally.differences();
        let agents = next.load(Ordering::Relaxed).min(self.agents());
        Verdict { agents, differences, first }
    }

    /// Returns what carries the comparison: what carried the polls, unless that is a new connection for each.
    fn comparing(&self) -> anyhow::Result<Transport> {
        let carrier = if self.script.carrier == Carrier::Once { Carrier::Mux } else { self.script.carrier };
        let connections = self.script.connections.min(CONNECTIONS);
        let script = Script { carrier, connections, ..self.script.clone() };
        Transport::new(&self.place, &script, self.agents(), &Arc::default())
    }

    /// Lets an agent catch up by one ordinary poll, then asks for everything and compares.
    async fn check(&self, transport: &Transport, number: u32) -> Result<(), String> {
        let since = self.with(number, |agent| {
            agent.desired.cursor().filter(|_| !agent.ask_full).map(|cursor| (cursor, agent.desired.digest()))
        });
        if let Some(newest) = self.asked(transport, number, since).await? {
            let folded = self.with(number, |agent| agent.desired.fold(&newest));
            if folded != Folded::Matches {
                let held = self.with(number, |agent| agent.desired.digest());
                return Err(format!(
                    "its set has the digest {held}, its last answer says {} ({folded:?})",
                    newest.digest
                ));
            }
        }
        let full = self.asked(transport, number, None).await?.ok_or("there is no full answer")?;
        if !full.full {
            return Err("it asked for everything, and the answer says that it is not full".to_owned());
        }
        self.with(number, |agent| agent.desired.difference(&full)).map_or(Ok(()), Err)
    }

    /// Asks until there is an answer; `None` if nothing changed.
    async fn asked(
        &self,
        transport: &Transport,
        number: u32,
        since: Option<(titan_api::Revision, titan_api::SetDigest)>,
    ) -> Result<Option<Envelope>, String> {
        let mut why = String::new();
        for attempt in 0..ATTEMPTS {
            let ask = Ask::poll(number, self.credentials.host(number as usize), since, 0, self.script.gzip);
            let mut asked = None;
            match transport.exchange(number, &ask, false).await {
                Ok(told) => match told.status {
                    200 => {
                        let answer =
                            Answer::read(&told.body).map_err(|error| format!("its answer does not fit: {error}"))?;
                        return Ok(Some(answer.envelope()));
                    }
                    204 if since.is_some() => return Ok(None),
                    429 | 503 => (asked, why) = (told.retry_after, format!("status {}", told.status)),
                    status => return Err(format!("status {status} {}", super::turns::code(&told.body))),
                },
                Err(fault) => why = fault.to_string(),
            }
            let pause =
                Duration::from_millis(50).saturating_mul(2_u32.saturating_pow(attempt)).min(Duration::from_secs(2));
            tokio::time::sleep(asked.unwrap_or(pause).min(Duration::from_secs(10))).await;
        }
        Err(format!("no answer: {why}"))
    }
}
