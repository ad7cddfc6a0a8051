//! What a worker says.

use std::io;

use bytes::{Buf as _, BytesMut};
use tokio::{io::AsyncReadExt as _, process::ChildStdout};

use crate::render::frames::{HEAD, Head};

/// Bytes that are read at once.
const READ: usize = 1 << 16;
/// Bytes of room that are kept for the next time.
const KEPT: usize = 1 << 20;

/// The frames of a worker.
#[derive(Debug)]
pub(super) struct Answers {
    output: ChildStdout,
    read: BytesMut,
}

impl Answers {
    pub(super) fn new(output: ChildStdout) -> Self {
        Self { output, read: BytesMut::new() }
    }

    /// Returns the head of the next frame if all of it has been read; its body is the first of [`Self::body`].
    pub(super) fn head(&self) -> io::Result<Option<Head>> {
        let Some(head) = self.read.first_chunk::<HEAD>() else { return Ok(None) };
        let head = Head::read(*head)?;
        Ok((self.read.len() >= HEAD + head.length).then_some(head))
    }

    /// Returns the body of the frame that `head` was returned for.
    pub(super) fn body(&self, head: Head) -> &[u8] {
        self.read.get(HEAD..HEAD + head.length).unwrap_or_default()
    }

    /// Forgets the frame that `head` was returned for.
    pub(super) fn advance(&mut self, head: Head) {
        self.read.advance((HEAD + head.length).min(self.read.len()));
        if self.read.is_empty() && self.read.capacity() > KEPT {
            self.read = BytesMut::new();
        }
    }

    /// Reads more of what the worker says; an error if there is no more. Nothing is lost if it is not waited for.
    pub(super) async fn more(&mut self) -> io::Result<()> {
        // A long frame is read into a place of its size.
        let whole = match self.read.first_chunk::<HEAD>() {
            Some(head) => HEAD + Head::read(*head)?.length,
            None => 0,
        };
        self.read.reserve(whole.saturating_sub(self.read.len()).max(READ));
        match self.output.read_buf(&mut self.read).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}
