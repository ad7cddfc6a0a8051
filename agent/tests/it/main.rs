//! The agent against a double of the control plane: real processes, real files, real repositories.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

mod answers;
mod crash;
mod files;
mod full_disk;
mod git;
mod host;
mod memory;
mod owner;
mod packaging;
mod plane;
mod readers;
mod remotes;
mod run;
mod trials;
