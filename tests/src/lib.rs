//! What the system tests and benchmarks stand on: throwaway databases, control planes in process, real processes.

pub mod agents;
pub mod apiserver;
pub mod clocks;
pub mod crowds;
pub mod databases;
pub mod dice;
pub mod disks;
pub mod fleets;
pub mod manifests;
pub mod measures;
pub mod nodes;
pub mod nspawn;
pub mod operators;
pub mod oracles;
pub mod planes;
pub mod podman;
pub mod postgres;
pub mod processes;
pub mod prometheus;
pub mod records;
pub mod relays;
pub mod simulator;
pub mod worlds;
