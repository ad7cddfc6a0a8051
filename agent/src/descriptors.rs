//! Descriptors of the kernel that become readable when something has happened.

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Returns `fd` as something that can be waited for on the agent's thread. Needs a runtime with IO.
#[expect(
    deprecated,
    reason = "the new way is unsafe for the sake of types that give their descriptor away; this one cannot"
)]
pub(crate) fn awaitable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}
