//! Counters for `/metrics`, in the OpenMetrics text format.

pub(crate) mod commits;
pub(crate) mod connections;
pub(crate) mod reads;

use std::sync::{Arc, atomic::AtomicU64};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use connections::{ConnectionMetrics, Level};

use crate::{render::Renderer, store::Store};

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests by status class, polls aside.
    pub requests: Family<Answered, Counter>,
    /// How long requests took, polls aside.
    pub request_seconds: Histogram,
    /// Polls by what was answered.
    pub polls: PollCounters,
    /// Polls that are being held.
    pub waiting: Level,
    /// Connections, and answers that wait.
    pub connections: Arc<ConnectionMetrics>,
    /// Reports taken in that said something new.
    pub reports: Counter,
    /// Reports that said again what was said before.
    pub reports_again: Counter,
    /// Reports in one transaction.
    pub report_batch: Histogram,
    /// Credentials that one statement looked up.
    pub credential_batch: Histogram,
    /// Reports that wait to be written.
    pub reports_waiting: Gauge,
    /// By how much hosts come less often, because of the load.
    pub load_factor: Gauge<f64, AtomicU64>,
    /// How late the runtime is, in seconds.
    pub lag_seconds: Gauge<f64, AtomicU64>,
    /// Assignments that moved.
    pub moved: Counter,
    /// The revision up to which the view is complete, in microseconds.
    pub view_revision: Gauge,
    /// Hosts in the view.
    pub view_hosts: Gauge,
    /// Bytes of the view, counted.
    pub view_bytes: Gauge,
    /// The revision up to which everything is decided, in microseconds.
    pub planned_revision: Gauge,
    /// Whether this replica leads.
    pub leader: Gauge,
    /// How long the oldest change has waited to be decided, in seconds.
    pub planner_behind: Gauge<f64, AtomicU64>,
    /// How long what is due has waited among the tasks, in seconds.
    pub tasks_queue_age: Gauge<f64, AtomicU64>,
    /// How long what is due has waited in plans, in seconds.
    pub workplans_queue_age: Gauge<f64, AtomicU64>,
}

/// The label of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Answered {
    /// `2xx`, `4xx` or `5xx`.
    pub class: Class,
}

/// A class of statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Class {
    Success,
    ClientError,
    ServerError,
}

/// Counters of polls, found once: a poll is too cheap to look its counter up by label.
#[derive(Debug)]
pub struct PollCounters {
    unchanged: Counter,
    delta: Counter,
    full: Counter,
}

impl PollCounters {
    fn of(family: &Family<Polled, Counter>) -> Self {
        let counter = |answer| family.get_or_create_owned(&Polled { answer });
        Self { unchanged: counter(PollKind::Unchanged), delta: counter(PollKind::Delta), full: counter(PollKind::Full) }
    }

    /// Returns how many polls were answered.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.unchanged.get() + self.delta.get() + self.full.get()
    }

    /// Counts a poll.
    pub fn count(&self, answer: PollKind) {
        match answer {
            PollKind::Unchanged => &self.unchanged,
            PollKind::Delta => &self.delta,
            PollKind::Full => &self.full,
        }
        .inc();
    }
}

/// The label of a poll.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Polled {
    answer: PollKind,
}

/// What a poll was answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum PollKind {
    Unchanged,
    Delta,
    Full,
}

impl Default for Metrics {
    fn default() -> Self {
        let buckets = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
        let polls = Family::default();
        let mut metrics = Self {
            registry: Registry::with_prefix("titan"),
            requests: Family::default(),
            request_seconds: Histogram::new(buckets),
            polls: PollCounters::of(&polls),
            waiting: Level::default(),
            connections: Arc::default(),
            reports: Counter::<u64, AtomicU64>::default(),
            reports_again: Counter::<u64, AtomicU64>::default(),
            report_batch: Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0]),
            credential_batch: Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0]),
            reports_waiting: Gauge::default(),
            load_factor: Gauge::default(),
            lag_seconds: Gauge::default(),
            moved: Counter::<u64, AtomicU64>::default(),
            view_revision: Gauge::default(),
            view_hosts: Gauge::default(),
            view_bytes: Gauge::default(),
            planned_revision: Gauge::default(),
            leader: Gauge::default(),
            planner_behind: Gauge::default(),
            tasks_queue_age: Gauge::default(),
            workplans_queue_age: Gauge::default(),
        };
        let r = &mut metrics.registry;
        r.register("requests", "Requests answered, polls aside", metrics.requests.clone());
        r.register_with_unit("request", "How long requests took", Unit::Seconds, metrics.request_seconds.clone());
        r.register("polls", "Polls answered", polls);
        r.register("polls_waiting", "Polls that are being held", metrics.waiting.gauge());
        r.register("reports", "Reports taken in that said something new", metrics.reports.clone());
        r.register("reports_again", "Reports that said again what was said before", metrics.reports_again.clone());
        r.register("report_batch", "Reports in one transaction", metrics.report_batch.clone());
        let batch = metrics.credential_batch.clone();
        r.register("credential_batch", "Credentials that one statement looked up", batch);
        r.register("reports_waiting", "Reports that wait to be written", metrics.reports_waiting.clone());
        r.register("load_factor", "By how much hosts come less often", metrics.load_factor.clone());
        r.register_with_unit("lag", "How late the runtime is", Unit::Seconds, metrics.lag_seconds.clone());
        r.register("assignments_moved", "Assignments that moved", metrics.moved.clone());
        r.register("view_hosts", "Hosts in the view", metrics.view_hosts.clone());
        r.register("view_bytes", "Bytes of the view, counted", metrics.view_bytes.clone());
        r.register("view_revision_us", "The revision up to which the view is complete", metrics.view_revision.clone());
        r.register("planned_revision_us", "The revision up to which all is decided", metrics.planned_revision.clone());
        r.register("leader", "Whether this replica leads", metrics.leader.clone());
        let seconds = [
            ("planner_behind", "How long the oldest change has waited to be decided", &metrics.planner_behind),
            ("tasks_queue_age", "How long the oldest task that is due has waited", &metrics.tasks_queue_age),
            ("workplans_queue_age", "How long what is due in plans has waited", &metrics.workplans_queue_age),
        ];
        for (name, help, gauge) in seconds {
            r.register_with_unit(name, help, Unit::Seconds, gauge.clone());
        }
        metrics.connections.register(r);
        metrics
    }
}

impl Metrics {
    /// Returns counters among which are those of a store and of a renderer.
    #[must_use]
    pub(crate) fn of(store: &Store, renderer: &Renderer) -> Self {
        let mut metrics = Self::default();
        metrics.registry.register(
            "renderings",
            "Renderings that workers did, one for all that are alike",
            renderer.done(),
        );
        store.metrics().register(&mut metrics.registry);
        store.reads().register(&mut metrics.registry);
        metrics
    }

    /// Returns everything as text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _infallible = encode(&mut text, &self.registry);
        text
    }
}
