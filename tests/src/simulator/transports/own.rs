//! A kept connection for each agent.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use super::{Dialer, http1, socket::Socket};
use crate::simulator::wire::{Ask, Fault, Told};

/// A kept connection for each agent.
#[derive(Debug)]
pub struct Own {
    dialer: Dialer,
    slots: Vec<Mutex<Option<Socket>>>,
}

impl Own {
    pub(super) fn new(dialer: Dialer, agents: usize) -> Self {
        Self { dialer, slots: (0..agents).map(|_| Mutex::new(None)).collect() }
    }

    fn swap(&self, agent: u32, socket: Option<Socket>) -> Option<Socket> {
        let slot = self.slots.get(agent as usize)?;
        std::mem::replace(&mut *slot.lock().unwrap_or_else(PoisonError::into_inner), socket)
    }

    pub(super) async fn exchange(&self, agent: u32, ask: &Ask, slow: bool) -> Result<Told, Fault> {
        let request = http1::request(ask, &self.dialer.host);
        if let Some(socket) = self.swap(agent, None) {
            // It may have been closed while it was idle; what was not begun to be answered is sent again.
            match self.over(agent, socket, &request, slow).await {
                Err(Fault::Closed(io::ErrorKind::ConnectionAborted)) => {}
                ended => return ended,
            }
        }
        let socket = self.dialer.dial().await?;
        self.over(agent, socket, &request, slow).await
    }

    async fn over(&self, agent: u32, mut socket: Socket, request: &[u8], slow: bool) -> Result<Told, Fault> {
        let sent = socket.send(request).await;
        sent.map_err(|_| Fault::Closed(io::ErrorKind::ConnectionAborted))?;
        let (told, keep) = http1::answer(&mut socket, slow).await?;
        if keep {
            self.swap(agent, Some(socket));
        }
        Ok(told)
    }

    pub(super) fn close(&self, agent: u32) {
        self.swap(agent, None);
    }

    pub(super) fn drop_all(&self) {
        for slot in &self.slots {
            slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }
}
