//! The fleet simulator: up to a million agents in one process that speak the real protocol over real sockets.
//!
//! An agent in memory is its cursor, its digest and the ids and revisions of what it holds; it folds answers as
//! `titan-agent` does and checks the digest of each. [`fleet`] lets agents poll when they are due, over one of the
//! [`transports`]; a [`script`] says how; [`runs`] plays one and ends in a verdict: every agent holds what its full answer
//! says, or which one does not. [`measured`] has the figures of `docs/performance.md` that need a fleet.

pub mod answers;
pub mod bare;
pub mod checks;
pub mod churn;
pub mod command;
pub mod credentials;
pub mod documents;
pub mod fleet;
pub mod fold;
mod hands;
pub mod histogram;
pub mod load;
pub mod measured;
pub mod pace;
pub mod progress;
pub mod quick;
pub mod relay;
pub mod runs;
pub mod script;
pub mod seed;
pub mod servers;
pub mod stage;
pub mod tally;
pub mod transports;
pub mod turns;
pub mod wheel;
pub mod wire;
