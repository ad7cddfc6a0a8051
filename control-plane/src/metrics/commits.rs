//! What is counted of transactions, and of what they made true once they are committed.

use std::time::{Duration, Instant};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

type Histograms<S> = Family<S, Histogram, fn() -> Histogram>;

/// What a store counts. A clone counts in the same place.
#[derive(Debug, Clone)]
pub(crate) struct CommitMetrics {
    transactions: Histograms<Transaction>,
    attempts: Family<Ended, Counter>,
    attempt_seconds: Histograms<Done>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Transaction {
    kind: &'static str,
    purpose: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    executor: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Done {
    executor: &'static str,
}

impl Default for CommitMetrics {
    fn default() -> Self {
        Self {
            transactions: Family::new_with_constructor(|| {
                Histogram::new([0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0])
            }),
            attempts: Family::default(),
            attempt_seconds: Family::new_with_constructor(|| {
                Histogram::new([0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 86_400.0])
            }),
        }
    }
}

impl CommitMetrics {
    /// Begins to measure a transaction.
    pub(crate) fn begin(&self, writes: bool, purpose: &'static str) -> Watch {
        let of = Transaction { kind: if writes { "write" } else { "read" }, purpose };
        Watch { metrics: self.clone(), of, begun: Instant::now() }
    }

    /// Counts an attempt that ended, and for how long it ran if it had begun.
    pub(crate) fn ended(&self, executor: &'static str, outcome: &'static str, ran: Option<Duration>) {
        self.attempts.get_or_create(&Ended { executor, outcome }).inc();
        if let Some(ran) = ran {
            self.attempt_seconds.get_or_create(&Done { executor }).observe(ran.as_secs_f64());
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let (help, seconds) = ("How long transactions took, from their first statement on", Unit::Seconds);
        registry.register_with_unit("transaction", help, seconds.clone(), self.transactions.clone());
        registry.register("attempts", "Attempts of plans that ended", self.attempts.clone());
        let help = "How long attempts of plans ran, by the plan's clock";
        registry.register_with_unit("attempt", help, seconds, self.attempt_seconds.clone());
    }
}

/// Measures a transaction until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    metrics: CommitMetrics,
    of: Transaction,
    begun: Instant,
}

impl Watch {
    /// Returns where it counts.
    pub(crate) const fn metrics(&self) -> &CommitMetrics {
        &self.metrics
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.metrics.transactions.get_or_create(&self.of).observe(self.begun.elapsed().as_secs_f64());
    }
}
