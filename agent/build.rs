//! How the agent for small devices is linked: profile `edge` leaves out what only unwinding and tracing of stacks need.
//!
//! In that profile a panic aborts and symbols are stripped, so that tables of the stack's frames (an eighth of the program)
//! would serve nobody; where a panic was is still told. Relocations, one for each pointer in the program's constants,
//! are written in their packed form.

use std::{env, path::Path};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=edge.ld");
    let told = |key: &str| env::var(key).unwrap_or_default();
    let edge = told("OPT_LEVEL") == "z" && Path::new(&told("OUT_DIR")).iter().any(|part| part == "edge");
    // What other architectures' linkers make of it has not been tried.
    let known = told("CARGO_CFG_TARGET_ARCH") == "x86_64" && told("CARGO_CFG_TARGET_ENV") == "gnu";
    if edge && known {
        let script = Path::new(&told("CARGO_MANIFEST_DIR")).join("edge.ld");
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", script.display());
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
