//! A connection that is read a little at a time.
//!
//! Whatever is read is taken apart before anybody looks at it, and the place for that is never given back: requests that
//! come together are taken in a few at a time, so that it stays small.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of a turn.
const TURN: usize = 512;

/// A connection that is read a little at a time.
#[derive(Debug)]
pub(super) struct Turns<S> {
    inner: S,
    /// Whether this turn is over.
    over: bool,
}

impl<S> Turns<S> {
    pub(super) const fn of(inner: S) -> Self {
        Self { inner, over: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Turns<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.over) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut bytes = [MaybeUninit::uninit(); TURN];
        let length = TURN.min(buffer.remaining());
        let mut read = ReadBuf::uninit(&mut bytes[..length]);
        ready!(Pin::new(&mut self.inner).poll_read(context, &mut read))?;
        buffer.put_slice(read.filled());
        self.over = read.filled().len() == TURN;
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
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Wake, Waker},
    };

    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn much_is_read_in_turns_and_all_of_it() {
        let much: Vec<u8> = (0..3 * TURN + 5).map(|n| (n % 251) as u8).collect();
        let mut turns = Turns::of(&much[..]);
        let mut read = Vec::new();
        turns.read_to_end(&mut read).await.expect("read");
        assert_eq!(read, much);
    }

    #[test]
    fn turn_that_is_over_comes_again() {
        let much = vec![7; 2 * TURN];
        let mut turns = Turns::of(&much[..]);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut bytes = [0; 4 * TURN];
        let mut lengths = Vec::new();
        for _ in 0..3 {
            let mut buffer = ReadBuf::new(&mut bytes);
            let step = Pin::new(&mut turns).poll_read(&mut Context::from_waker(&waker), &mut buffer);
            lengths.push((step.is_ready(), buffer.filled().len()));
        }
        assert_eq!(lengths, [(true, TURN), (false, 0), (true, TURN)]);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    }
}
