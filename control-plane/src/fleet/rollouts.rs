//! Rollouts: how a release reaches the hosts of a deployment, decided by plain functions.
//!
//! A strategy becomes a plan ([`compile`]). Hosts stand in one order ([`ranks`]), and a [`gate`](gates) says how far along
//! it the release is open; nobody gets the release but through it. While a stage lasts, [`progress`] is told what hosts do
//! and says how far the gate may be opened, and how the stage ends. Time comes in as microseconds of the plan's own clock,
//! which stands still while the plan is paused.

pub mod barriers;
pub mod compile;
pub mod gates;
pub mod members;
pub mod outcomes;
pub mod preflight;
pub mod progress;
pub mod ranks;
pub mod rules;
pub mod stages;
pub mod standing;
#[cfg(test)]
mod tests;

pub use compile::compile;
pub use gates::{Gate, Opening};
pub use members::members;
pub use outcomes::Counts;
pub use progress::{Advance, Doors, Progress, Seat, Verdict};
pub use ranks::{Ranked, rank, ranked};
pub use rules::Rules;
pub use stages::Frozen;
pub use standing::{Said, Standing};
