//! What is done every so often. A task takes no input when woken: it reads the present state, acts, and says when to look
//! again; a signal only wakes it sooner.

pub mod absences;
pub(crate) mod apart;
pub mod follow;
pub mod heartbeats;
mod leads;
pub mod listen;
pub mod planner;
pub mod reports;
pub mod sweep;
pub mod work;
pub mod workplans;
