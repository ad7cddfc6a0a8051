# `just` alone lists these. Nothing here is needed to build or test: `cargo run --release -- demo` and `cargo test` are enough.

[private]
default:
    @just --list

# What the shared build runs: format, lints, every test; several minutes
check:
    .ci/run

# Every test, several minutes; a part of them by name: `just test poll`
test *filter:
    cargo test {{filter}}

# Formats all code
fmt:
    cargo fmt --all

# Lints alone, quicker than `check`
lint:
    cargo clippy --workspace --all-targets -- -D warnings

# The whole system in one process, on a free port: `just demo --once`
demo *args:
    cargo run --release -- demo {{args}}

# The benchmarks of docs/performance.md, all of them or some: `just bench polls renders`, `just bench --json`
bench *args: edge
    TITAN_AGENT_BINARY={{justfile_directory()}}/target/edge/titan-agent cargo bench -p titan-tests --bench measures -- {{args}}

# The simulated fleet (docs/simulator.md): `just sim quick`, `just sim measure storm --hosts 5000`
sim *args:
    cargo run --release -p titan-tests --bin fleet-sim -- {{args}}

# The agent for small devices
edge:
    cargo build -p titan-agent --profile edge

# The API documentation of every crate; a broken link is an error
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Licences, advisories, sources and unused dependencies (needs cargo-deny and cargo-machete)
deny:
    cargo deny check
    cargo machete
