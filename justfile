# `just` alone lists these. Nothing here is needed to build or test: `cargo run --release -- demo` and `cargo test` are enough.

[private]
default:
    @just --list

# What the shared build runs: format, lints, every test, coverage; several minutes
check:
    .ci/run

# The Kubernetes applier against a real API server, built from Debian's source; some nine minutes of CPU the first time
check-kubernetes:
    .ci/kubernetes

# Every test, several minutes; a part of them by name: `just test poll`
test *filter:
    cargo test {{filter}}

# How many lines the unit tests run, per crate, with floors; `just coverage fleet/view.rs` lists what they do not
coverage *files:
    .ci/coverage {{files}}

# Formats all code
fmt:
    cargo fmt --all

# Lints alone, quicker than `check`
lint:
    cargo clippy --workspace --all-targets -- -D warnings

# The whole system in one process, on a free port: `just demo --once`
demo *args:
    cargo run --release -- demo {{args}}

# All measures of docs/performance.md, written there and to docs/performance/ beside the run before; about two hours, two cores to itself
bench: edge (cross "x86-64")
    mkdir -p target/bench
    rm -f target/bench/million.db*
    TITAN_AGENT_BINARY={{justfile_directory()}}/target/edge/titan-agent:{{justfile_directory()}}/target/cross/titan-agent-x86-64 cargo bench -p titan-tests --bench measures -- --json > target/bench/measures.jsonl
    cargo bench -p titan-tests --bench parts
    cargo run --release -p titan-tests --bin fleet-sim -- measure fanout waiting-own waiting-mux change-latency rollout storm day --json > target/bench/fleet.jsonl
    cargo run --release -p titan-tests --bin fleet-sim -- measure unchanged start target-edit all-full sustained-mux sustained-tls --database target/bench/million.db --hosts 1000000 --json > target/bench/million.jsonl
    cargo run --release -p titan-tests --bin fleet-sim -- record target/bench/measures.jsonl target/bench/fleet.jsonl target/bench/million.jsonl

# Some of the small benchmarks: `just measure polls renders`, `just measure --json`
measure *args: edge (cross "x86-64")
    TITAN_AGENT_BINARY={{justfile_directory()}}/target/edge/titan-agent:{{justfile_directory()}}/target/cross/titan-agent-x86-64 cargo bench -p titan-tests --bench measures -- {{args}}

# The simulated fleet (docs/simulator.md): `just sim quick`, `just sim measure storm --hosts 5000`
sim *args:
    cargo run --release -p titan-tests --bin fleet-sim -- {{args}}

# The agent for small devices
edge:
    cargo build -p titan-agent --profile edge

# The agent for small devices, static, as target/cross/titan-agent-*: `just cross arm64 armhf armel x86-64`, or all without a name
cross *architectures:
    agent/packaging/cross {{architectures}}

# The API documentation of every crate; a broken link is an error
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Licences, advisories, sources and unused dependencies (needs cargo-deny and cargo-machete)
deny:
    cargo deny check
    cargo machete
