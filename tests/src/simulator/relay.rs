//! A relay between a client and a server that keeps every byte it passes on.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinHandle,
};

/// The most that is kept in one direction; what is over is passed on and forgotten.
const KEPT: usize = 1 << 20;

type Tape = Arc<Mutex<Vec<u8>>>;

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    /// `127.0.0.1:PORT`.
    pub address: String,
    up: Tape,
    down: Tape,
    task: JoinHandle<()>,
}

impl Relay {
    /// Starts a relay to `server`.
    pub async fn start(server: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (up, down) = (Tape::default(), Tape::default());
        let tapes = (Arc::clone(&up), Arc::clone(&down));
        let server = server.to_owned();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                let _best_effort = (client.set_nodelay(true), server.set_nodelay(true));
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                tokio::spawn(pass(from_client, to_server, Arc::clone(&tapes.0)));
                tokio::spawn(pass(from_server, to_client, Arc::clone(&tapes.1)));
            }
        });
        Ok(Self { address, up, down, task })
    }

    /// Returns what went up and what came down since the last call.
    pub fn take(&self) -> (Vec<u8>, Vec<u8>) {
        let take = |tape: &Tape| std::mem::take(&mut *tape.lock().unwrap_or_else(PoisonError::into_inner));
        (take(&self.up), take(&self.down))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, tape: Tape) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        {
            // Kept before it is passed on: whoever has the answer finds it on the tape.
            let mut tape = tape.lock().unwrap_or_else(PoisonError::into_inner);
            if tape.len() + length <= KEPT {
                tape.extend_from_slice(&buffer[..length]);
            }
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
    let _gone_already = to.shutdown().await;
}
