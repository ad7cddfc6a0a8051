//! A new connection for each request: connect, ask, close.

use tokio::sync::Semaphore;

use super::{Dialer, http1};
use crate::simulator::wire::{Ask, Fault, Told};

/// Connections open at a time: a process may open some 20 000 files.
const OPEN: usize = 15_000;

/// A new connection for each request.
#[derive(Debug)]
pub struct Once {
    dialer: Dialer,
    open: Semaphore,
}

impl Once {
    pub(super) fn new(dialer: Dialer) -> Self {
        Self { dialer, open: Semaphore::new(OPEN) }
    }

    pub(super) async fn exchange(&self, ask: &Ask, slow: bool) -> Result<Told, Fault> {
        // It is never closed.
        let _open = self.open.acquire().await;
        let mut socket = self.dialer.dial().await?;
        let closed = |error: std::io::Error| Fault::Closed(error.kind());
        socket.send(&http1::request(ask, &self.dialer.host)).await.map_err(closed)?;
        let (told, _) = http1::answer(&mut socket, slow).await?;
        socket.close().await;
        Ok(told)
    }
}
