//! Processes that believe another time, by Debian's `faketime`. Their monotonic clock is the true one.

use std::{path::PathBuf, process::Command};

/// Makes a command believe the time `when`, as in `+400d` or `@1970-01-01 00:00:10`. Without faketime it says so and returns
/// `false`.
///
/// # Panics
///
/// If `CI` is set and faketime is not installed.
#[expect(clippy::print_stderr, reason = "whoever runs the tests is to know what they did not show")]
pub fn believe(command: &mut Command, when: &str) -> bool {
    let Some(library) = library() else {
        assert!(std::env::var_os("CI").is_none(), "install faketime");
        eprintln!("skipped: install faketime, so that a process can believe another time");
        return false;
    };
    command.env("LD_PRELOAD", library).env("FAKETIME", when).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    true
}

fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|library| library.exists())
}
