//! Counters of lists and histories, by which server they were read from.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// What is counted of lists and histories.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReadMetrics {
    reads: Family<Read, Counter>,
    fallbacks: Family<FellBack, Counter>,
}

/// Which server was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Server {
    /// The database that is written to.
    Primary,
    /// Its hot standby.
    Standby,
}

/// Why the standby was not read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Fallback {
    /// It has not caught up with what this process knows of.
    Behind,
    /// It does not answer, or did not a moment ago.
    Unreachable,
    /// It is no standby of this database.
    Foreign,
    /// It ended the read, as it does when what it replays stands against it.
    Ended,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Read {
    server: Server,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FellBack {
    reason: Fallback,
}

impl ReadMetrics {
    /// Counts a read.
    pub(crate) fn read(&self, server: Server) {
        self.reads.get_or_create(&Read { server }).inc();
    }

    /// Counts a read that the standby was not used for.
    pub(crate) fn fell_back(&self, reason: Fallback) {
        self.fallbacks.get_or_create(&FellBack { reason }).inc();
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("list_reads", "Lists and histories read, by server", self.reads.clone());
        registry.register("standby_fallbacks", "Lists and histories not read from the standby", self.fallbacks.clone());
    }
}
