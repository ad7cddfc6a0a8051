//! Titan's control plane: stores what is declared, decides which host runs what, renders it, and answers polls.
//!
//! [`serve`] runs it on a listener. A request goes from [`routes`] to [`writing`], which commits documents and history;
//! the planner in [`tasks`] decides with [`fleet`] through [`planning`]; polls are answered from the view in memory.
//! SQL is in [`store`] alone, templates in [`render`]. Read [`routes::router`] first.

mod access;
pub mod answers;
pub mod bundles;
pub mod clock;
pub mod command;
pub mod config;
mod connections;
mod fault;
pub mod fleet;
pub mod load;
mod loads;
mod metrics;
mod patches;
pub mod planning;
mod problem;
pub mod render;
pub mod routes;
pub mod serve;
pub mod state;
pub mod store;
pub mod tasks;
pub mod workplans;
pub mod writing;

pub use config::Config;
pub use serve::serve;
