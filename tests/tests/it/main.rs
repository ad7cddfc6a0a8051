//! The whole system on one machine.

mod access;
mod api_decisions;
mod api_documents;
mod api_feed;
mod api_writes;
mod bad_input;
mod causes;
mod demo;
mod examples;
mod founding_lines;
mod laws_fold;
mod outages;
mod smoke;

/// This crate's binary: every Titan program, with fault points.
const NODE: &str = env!("CARGO_BIN_EXE_titan-node");
