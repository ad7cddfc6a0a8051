//! The whole system on one machine.

mod access;
mod api_decisions;
mod api_documents;
mod api_feed;
mod api_polls;
mod api_writes;
mod bad_input;
mod bad_plans;
mod causes;
mod commands;
mod compose;
mod connections;
mod crashes;
mod demo;
mod dependencies;
mod drift;
mod emulated;
mod examples;
mod field_cases;
mod founding_lines;
mod kills;
mod kubernetes;
mod laws_fold;
mod laws_store;
mod laws_store_view;
mod layers;
mod outages;
mod pipelines;
mod placements;
mod plan_examples;
mod podman;
mod quadlets;
mod reports;
mod rollout_fleet;
mod rollouts;
mod settings;
mod simulator;
mod smoke;
mod store;
mod store_replicas;
mod systemd;
mod tasks;
mod watches;
mod workplans;

/// This crate's binary: every Titan program, with fault points.
const NODE: &str = env!("CARGO_BIN_EXE_titan-node");
