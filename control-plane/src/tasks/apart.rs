//! Work that all others wait for.

use tokio::runtime::Handle;

/// Does work on a thread of its own. As a task each of its steps would stand in line behind those of thousands of others in
/// a process that is busy, and whoever waits for it with them.
pub(crate) fn apart(work: impl Future<Output = ()> + Send + 'static) {
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || runtime.block_on(work));
}
