//! A connection's bytes, in clear or over TLS, with bytes that were read ahead put back in front, and with an end for
//! peers that do not read what they asked for.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};
use tokio_rustls::server::TlsStream;

use crate::metrics::connections::ConnectionMetrics;

/// How long a peer may leave what was sent to it unread, without reading any of it.
pub(super) const UNREAD: Duration = Duration::from_secs(30);

/// A connection's bytes.
#[derive(Debug)]
pub(super) struct Stream {
    inner: Inner,
    /// Read ahead.
    ahead: Bytes,
    /// Runs while the peer does not read.
    unread: Option<Pin<Box<Sleep>>>,
    patience: Duration,
    metrics: Arc<ConnectionMetrics>,
}

#[derive(Debug)]
enum Inner {
    Clear(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub(super) fn clear(stream: TcpStream, metrics: Arc<ConnectionMetrics>) -> Self {
        Self { inner: Inner::Clear(stream), ahead: Bytes::new(), unread: None, patience: UNREAD, metrics }
    }

    pub(super) fn tls(stream: TlsStream<TcpStream>, metrics: Arc<ConnectionMetrics>) -> Self {
        Self { inner: Inner::Tls(Box::new(stream)), ahead: Bytes::new(), unread: None, patience: UNREAD, metrics }
    }

    /// Puts bytes that were read ahead back in front.
    pub(super) fn rewound(self, ahead: Vec<u8>) -> Self {
        Self { ahead: ahead.into(), ..self }
    }

    /// Ends the connection if the peer has read nothing for too long.
    fn progress<T>(&mut self, context: &mut Context<'_>, step: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if step.is_ready() {
            self.unread = None;
            return step;
        }
        let patience = self.patience;
        let sleep = self.unread.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(sleep.as_mut().poll(context));
        self.metrics.timed_out.inc();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read its answer")))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let length = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead[..length]);
            self.ahead.advance(length);
            if self.ahead.is_empty() {
                // Its memory goes with it.
                self.ahead = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        match &mut self.inner {
            Inner::Clear(stream) => Pin::new(stream).poll_read(context, buffer),
            Inner::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let step = match &mut self.inner {
            Inner::Clear(stream) => Pin::new(stream).poll_write(context, bytes),
            Inner::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        };
        self.progress(context, step)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let step = match &mut self.inner {
            Inner::Clear(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
            Inner::Tls(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
        };
        self.progress(context, step)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let step = match &mut self.inner {
            // Nothing is held back.
            Inner::Clear(_) => return Poll::Ready(Ok(())),
            Inner::Tls(stream) => Pin::new(stream).poll_flush(context),
        };
        self.progress(context, step)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let step = match &mut self.inner {
            Inner::Clear(stream) => Pin::new(stream).poll_shutdown(context),
            Inner::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        };
        self.progress(context, step)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    async fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let peer = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connected");
        let (socket, _) = listener.accept().await.expect("accepted");
        (Stream::clear(socket, Arc::default()), peer)
    }

    #[tokio::test]
    async fn peer_that_does_not_read_is_given_up() {
        let (mut stream, mut peer) = pair().await;
        stream.patience = Duration::from_millis(100);
        let much = vec![0; 1 << 20];
        let error = loop {
            if let Err(error) = stream.write_all(&much).await {
                break error;
            }
        };
        assert_eq!((error.kind(), stream.metrics.timed_out.get()), (io::ErrorKind::TimedOut, 1));
        drop(stream);
        peer.read_to_end(&mut Vec::new()).await.expect("what was sent");
    }

    #[tokio::test]
    async fn bytes_that_were_read_ahead_come_first() {
        let (stream, mut peer) = pair().await;
        peer.write_all(b"behind").await.expect("sent");
        peer.shutdown().await.expect("ended");
        let mut text = String::new();
        stream.rewound(b"before, ".to_vec()).read_to_string(&mut text).await.expect("read");
        assert_eq!(text, "before, behind");
    }
}
