//! A connection, in clear text or encrypted, that holds no buffer while nothing comes.

use std::io;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

/// A connection.
#[derive(Debug)]
pub(super) enum Socket {
    /// In clear text.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    /// Sends all of `bytes`.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    /// Waits until something has come; only then is memory taken for it.
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.readable().await,
            Self::Tls(stream) => stream.get_ref().0.readable().await,
        }
    }

    /// Reads at most `most` bytes to the end of `buffer`; returns how many.
    pub(super) async fn read(&mut self, buffer: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        buffer.reserve(most.min(16 * 1024));
        let most = most as u64;
        match self {
            Self::Plain(stream) => stream.take(most).read_buf(buffer).await,
            Self::Tls(stream) => stream.take(most).read_buf(buffer).await,
        }
    }

    /// Says good-bye, where the protocol has a word for it.
    pub(super) async fn close(mut self) {
        if let Self::Tls(stream) = &mut self {
            let _gone_already = stream.shutdown().await;
        }
    }
}
