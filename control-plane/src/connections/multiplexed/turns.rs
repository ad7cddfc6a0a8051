//! A connection that is read a little at a time.
//!
//! Whatever is read is taken apart before anybody looks at it, and the place for that is never given back: requests that
//! come together are taken in a few at a time, so that it stays small. Whoever answers them says when there may be more.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of a turn.
const TURN: usize = 512;

/// A connection that is read a little at a time.
#[derive(Debug)]
pub(super) struct Turns<S> {
    inner: S,
    turn: Turn,
}

/// How far a connection was read, for whoever answers.
#[derive(Debug, Clone, Default)]
pub(super) struct Turn(Arc<Read>);

#[derive(Debug, Default)]
struct Read {
    /// Whether a turn is over. Then nothing more is read, and nobody is woken to.
    over: AtomicBool,
    /// Whether anything came since somebody asked.
    heard: AtomicBool,
}

impl Turn {
    /// Begins the next turn; returns whether one was over.
    pub(super) fn next(&self) -> bool {
        self.0.over.swap(false, Ordering::Relaxed)
    }

    /// Whether the client sent anything since this was asked last.
    pub(super) fn heard(&self) -> bool {
        self.0.heard.swap(false, Ordering::Relaxed)
    }
}

impl<S> Turns<S> {
    pub(super) fn of(inner: S) -> (Self, Turn) {
        let turn = Turn::default();
        (Self { inner, turn: turn.clone() }, turn)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Turns<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.turn.0.over.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let mut bytes = [MaybeUninit::uninit(); TURN];
        let length = TURN.min(buffer.remaining());
        let mut read = ReadBuf::uninit(&mut bytes[..length]);
        ready!(Pin::new(&mut self.inner).poll_read(context, &mut read))?;
        buffer.put_slice(read.filled());
        let came = read.filled().len();
        self.turn.0.over.store(came == TURN, Ordering::Relaxed);
        if came > 0 {
            self.turn.0.heard.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Turns<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn much_is_read_in_turns_and_all_of_it() {
        let much: Vec<u8> = (0..2 * TURN + 5).map(|n| (n % 251) as u8).collect();
        let (mut turns, turn) = Turns::of(&much[..]);
        let mut context = Context::from_waker(Waker::noop());
        let mut bytes = vec![0; 4 * TURN];
        let mut buffer = ReadBuf::new(&mut bytes);
        for read in [TURN, 2 * TURN] {
            assert!(Pin::new(&mut turns).poll_read(&mut context, &mut buffer).is_ready());
            assert!(Pin::new(&mut turns).poll_read(&mut context, &mut buffer).is_pending(), "the turn is over");
            assert_eq!(buffer.filled().len(), read);
            assert!(turn.next());
        }
        assert!(Pin::new(&mut turns).poll_read(&mut context, &mut buffer).is_ready());
        assert_eq!(buffer.filled(), much);
        assert!(!turn.next(), "there was no more");
        assert!(turn.heard());
        assert!(Pin::new(&mut turns).poll_read(&mut context, &mut buffer).is_ready());
        assert!(!turn.heard(), "the end is nothing that was said");
    }
}
