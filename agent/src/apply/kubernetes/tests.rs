//! The applier against a double of a server that really keeps objects, fields and their managers.

#[path = "../../../../tests/src/apiserver.rs"]
#[expect(dead_code, unreachable_pub, reason = "the system tests use the rest of it")]
mod apiserver;
mod bench;
mod drift;
mod faults;
mod life;
mod packaging;
mod plans;
mod real;
