//! Counters of connections and of the answers that wait for a place.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// What is counted of connections.
#[derive(Debug, Default)]
pub struct ConnectionMetrics {
    open: Family<Spoken, Gauge>,
    handshakes: Family<Shaken, Counter>,
    /// Answers that wait for a place.
    pub queued: Level,
    /// Those of them that wait in the line of an HTTP/2 connection.
    pub in_line: Level,
    /// Answers that found no place in time.
    pub refused: Counter,
    /// Connections that were ended because their peer was too slow or silent.
    pub timed_out: Counter,
}

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Transport {
    /// HTTP/1.1 in the agents' narrow form.
    Agent,
    /// HTTP/1.1 in any form.
    Http1,
    /// HTTP/2.
    Http2,
}

/// How a TLS handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Handshake {
    /// With certificates.
    Full,
    /// With a ticket of an earlier one.
    Resumed,
    /// Not at all.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Spoken {
    transport: Transport,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Shaken {
    kind: Handshake,
}

/// A gauge that is raised by holding something.
#[derive(Debug, Clone, Default)]
pub struct Level(Gauge);

/// Something that is held; dropping it lowers the gauge.
#[derive(Debug)]
pub struct Held(Gauge);

impl Level {
    /// Raises the gauge for as long as the value lives.
    #[must_use]
    pub fn hold(&self) -> Held {
        self.0.inc();
        Held(self.0.clone())
    }

    pub(super) fn gauge(&self) -> Gauge {
        self.0.clone()
    }

    /// Returns how often it is held.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.get()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl ConnectionMetrics {
    /// Counts a connection as open for as long as the value lives.
    #[must_use]
    pub fn open(&self, transport: Transport) -> Held {
        Level(self.open.get_or_create_owned(&Spoken { transport })).hold()
    }

    /// Counts a handshake.
    pub fn shaken(&self, kind: Handshake) {
        self.handshakes.get_or_create(&Shaken { kind }).inc();
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let r = registry;
        r.register("connections_open", "Open connections by what is spoken on them", self.open.clone());
        r.register("tls_handshakes", "TLS handshakes by how they ended", self.handshakes.clone());
        r.register("answers_queued", "Answers that wait for a place", self.queued.0.clone());
        r.register("answers_refused", "Answers that found no place in time, or would not have", self.refused.clone());
        r.register("connections_timed_out", "Connections ended for slowness or silence", self.timed_out.clone());
    }
}
