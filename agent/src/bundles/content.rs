//! What a bundle's file holds: read from the cached bundle when it is wanted, bit by bit.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    os::unix::fs::FileExt as _,
    sync::Arc,
};

use base64::{engine::general_purpose::STANDARD, read::DecoderReader};
use sha2::{Digest as _, Sha256};
use titan_api::Digest;

use super::{text::Text, thin::Place};

/// Bytes that are read from the disk at a time.
const CHUNK: usize = 16 * 1024;

/// Where a content comes from.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// From a bundle in the cache, open: it can be read even when the cache does not hold it any more.
    Kept(Arc<File>, Place),
    /// From a test.
    #[cfg(test)]
    Here(Arc<[u8]>),
}

impl Content {
    /// Returns what brings the content. It fails at the end if that was not what was there before.
    pub(super) fn reader(&self) -> Box<dyn Read + '_> {
        match self {
            Self::Kept(kept, place) => {
                let text = Text::new(BufReader::with_capacity(CHUNK, Cursor { file: kept, at: place.offset }));
                let (wanted, hash) = (place.sha256, Sha256::new());
                if place.base64 {
                    Box::new(Checked { from: DecoderReader::new(text, &STANDARD), wanted, hash })
                } else {
                    Box::new(Checked { from: text, wanted, hash })
                }
            }
            #[cfg(test)]
            Self::Here(bytes) => Box::new(&**bytes),
        }
    }
}

/// A place in a file that others read as well.
struct Cursor<'a> {
    file: &'a File,
    at: u64,
}

impl Read for Cursor<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(out, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// What fails at its end unless it was what is wanted.
struct Checked<R> {
    from: R,
    wanted: Digest,
    hash: Sha256,
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(out)?;
        self.hash.update(&out[..count]);
        if count == 0 && !out.is_empty() && Digest::from_bytes(&self.hash.clone().finalize()) != Some(self.wanted) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the cached bundle is not what it was a moment ago",
            ));
        }
        Ok(count)
    }
}
