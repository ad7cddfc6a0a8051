//! WorkPlans: what follows from what happens to a plan, decided by plain functions.
//!
//! A step works on a small part of a plan: the plan's own row and the nodes that it touches. What it has not got it asks
//! for ([`Need`]), is given, and goes on where it was; so a plan of ten thousand nodes costs a step no more than one of
//! ten. All that a step does are [events](titan_api::workplans::Event), and events alone change a state
//! ([`plan`]). Read [`working`] first, then [`inputs`], [`signals`] and [`flow`].

mod attempts;
pub mod failures;
pub mod flow;
pub mod graph;
pub mod inputs;
pub mod measurements;
mod nodes;
pub mod plan;
pub mod signals;
mod steps;
pub mod tally;
#[cfg(test)]
mod tests;
pub mod turns;
pub mod working;
mod writes;

pub use attempts::Attempt;
pub use inputs::{Finished, Input};
pub use nodes::Node;
pub use plan::Plan;
pub use signals::Told;
pub use steps::{Listing, Need, Order, Step, Stop};
pub use tally::Link;
pub use working::Working;
pub use writes::AGAIN;
