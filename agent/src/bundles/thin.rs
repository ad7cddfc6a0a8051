//! A bundle's JSON without what its files hold, so that it can be parsed though it is larger than the memory.
//!
//! In the place of each file's content stands the number that it is kept under in a list: where it begins, how long it is
//! when decoded, and its digest. All else passes as it is, to whom it concerns: this knows where in the document it is and
//! leaves it to the parser to say what is not JSON. Objects that name things of which there may be many are counted on the
//! way, so that what is made of them stays small too.

use std::io::{self, BufRead, Read};

use base64::{engine::general_purpose::STANDARD, read::DecoderReader};
use sha2::{Digest as _, Sha256};
use titan_api::{Digest, limits::BUNDLE_FILES};

use super::text::Text;

/// Bytes that a bundle may have beside its files.
pub(super) const OUTSIDE: usize = 1024 * 1024;
/// Bytes that a bundle's files may have beside their contents.
pub(super) const INSIDE: usize = 4 * 1024 * 1024;
/// Objects and lists inside each other.
const DEPTH: usize = 127;
/// Bytes of a key that matters, every letter of it escaped.
const KEY: usize = 128;

/// Where a file's content is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// The first byte behind the quote.
    pub(super) offset: u64,
    /// Whether it is in base64.
    pub(super) base64: bool,
    /// SHA-256 of what it stands for.
    pub(super) sha256: Digest,
    /// Bytes of what it stands for.
    pub(super) size: u64,
}

/// A source that knows how far it has been read, and the digest up to there.
#[derive(Debug)]
pub(super) struct Counted<S> {
    source: S,
    at: u64,
    hash: Sha256,
}

impl<S: BufRead> Counted<S> {
    pub(super) fn new(source: S) -> Self {
        Self { source, at: 0, hash: Sha256::new() }
    }

    /// Reads what is left and returns the digest of everything.
    pub(super) fn digest(mut self) -> io::Result<Digest> {
        loop {
            match self.fill_buf()?.len() {
                0 => break,
                count => self.consume(count),
            }
        }
        Digest::from_bytes(&self.hash.finalize()).ok_or_else(|| io::Error::other("a digest has 32 bytes"))
    }
}

impl<S: BufRead> Read for Counted<S> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(out)?;
        self.consume(count);
        Ok(count)
    }
}

impl<S: BufRead> BufRead for Counted<S> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.source.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        if let Ok(buffer) = self.source.fill_buf() {
            self.hash.update(&buffer[..count]);
        }
        self.at += count as u64;
        self.source.consume(count);
    }
}

/// A key that matters where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Key {
    Files,
    Content {
        base64: bool,
    },
    #[default]
    Other,
}

/// What a byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    Structure,
    Key { escaped: bool },
    Value { escaped: bool },
}

/// The thin form of a bundle's JSON.
#[derive(Debug)]
pub(super) struct Thin<S> {
    source: S,
    /// Where the contents are, by number.
    pub(super) places: Vec<Place>,
    /// What is open: whether it is an object.
    open: Vec<bool>,
    /// Whether the next text is a key.
    key_next: bool,
    within: Within,
    /// The key that is being read, with its escapes.
    raw_key: Vec<u8>,
    /// The last key of the outermost object, and of the file.
    outer: Key,
    inner: Key,
    files: usize,
    outside: usize,
    inside: usize,
    /// What stands for a content and is still to be given out, the last byte first.
    waiting: Vec<u8>,
}

impl<'a, S: BufRead> Thin<&'a mut Counted<S>> {
    pub(super) fn new(source: &'a mut Counted<S>) -> Self {
        Self {
            source,
            places: Vec::new(),
            open: Vec::new(),
            key_next: false,
            within: Within::Structure,
            raw_key: Vec::new(),
            outer: Key::Other,
            inner: Key::Other,
            files: 0,
            outside: 0,
            inside: 0,
            waiting: Vec::new(),
        }
    }

    /// Whether what is next is in the list of files.
    fn in_files(&self) -> bool {
        self.outer == Key::Files && matches!(self.open[..], [true, false, ..])
    }

    /// Takes note of a byte. Returns whether a content begins behind it, and of which kind.
    fn take(&mut self, byte: u8) -> io::Result<Option<bool>> {
        match self.within {
            Within::Structure => return self.structure(byte),
            Within::Key { escaped } | Within::Value { escaped } => {
                let (escaped, ended) = (!escaped && byte == b'\\', !escaped && byte == b'"');
                self.within = match self.within {
                    _ if ended => Within::Structure,
                    Within::Key { .. } => Within::Key { escaped },
                    _ => Within::Value { escaped },
                };
                if !self.raw_key.is_empty() {
                    if self.raw_key.len() < KEY {
                        self.raw_key.push(byte);
                    }
                    if ended {
                        self.keyed();
                    }
                }
            }
        }
        Ok(None)
    }

    fn structure(&mut self, byte: u8) -> io::Result<Option<bool>> {
        match byte {
            b'"' if self.key_next => {
                self.key_next = false;
                self.within = Within::Key { escaped: false };
                self.raw_key = vec![byte];
            }
            b'"' => {
                if let (Key::Content { base64 }, 3, true) = (self.inner, self.open.len(), self.in_files()) {
                    return Ok(Some(base64));
                }
                self.within = Within::Value { escaped: false };
            }
            b'{' | b'[' => {
                let object = byte == b'{';
                if !object && self.open.is_empty() {
                    return Err(invalid("it is not an object".to_owned()));
                }
                if self.open.len() == 2 && self.in_files() {
                    self.files += 1;
                    if !object {
                        return Err(invalid(format!("file {} is not an object", self.files)));
                    }
                    if self.files > BUNDLE_FILES {
                        return Err(invalid(format!("it has more than {BUNDLE_FILES} files")));
                    }
                    self.inner = Key::Other;
                }
                if self.open.len() == DEPTH {
                    return Err(invalid(format!("it is nested more than {DEPTH} deep")));
                }
                self.open.push(object);
                self.key_next = object;
            }
            b'}' | b']' => {
                self.open.pop();
                self.key_next = false;
            }
            b',' => self.key_next = self.open.last() == Some(&true),
            _ => {}
        }
        Ok(None)
    }

    /// Takes note of a key that has come to its end.
    fn keyed(&mut self) {
        // A longer one does not end in a quote, and is not JSON.
        let key: Option<String> = serde_json::from_slice(&std::mem::take(&mut self.raw_key)).ok();
        match (self.open.len(), key.as_deref()) {
            (1, Some("files")) => self.outer = Key::Files,
            (1, _) => self.outer = Key::Other,
            (3, Some("content")) => self.inner = Key::Content { base64: false },
            (3, Some("contentBase64")) => self.inner = Key::Content { base64: true },
            (3, _) => self.inner = Key::Other,
            _ => {}
        }
    }

    /// Takes note of a content, from behind its first quote to its last one.
    fn content(&mut self, base64: bool) -> io::Result<()> {
        let offset = self.source.at;
        let mut text = Text::new(&mut *self.source);
        let sum = if base64 { sum(&mut DecoderReader::new(&mut text, &STANDARD)) } else { sum(&mut text) };
        let (sha256, size) = sum.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                invalid(format!("the content of file {}: {error}", self.files))
            }
            _ => error,
        })?;
        self.waiting = format!("\"{}\"", self.places.len()).into_bytes();
        self.waiting.reverse();
        self.places.push(Place { offset, base64, sha256, size });
        Ok(())
    }

    fn count(&mut self) -> io::Result<()> {
        let (bytes, most, what) = if self.in_files() {
            (&mut self.inside, INSIDE, "beside the contents of its files")
        } else {
            (&mut self.outside, OUTSIDE, "beside its files")
        };
        *bytes += 1;
        if *bytes > most { Err(invalid(format!("it has more than {} MiB {what}", most >> 20))) } else { Ok(()) }
    }
}

impl<S: BufRead> Read for Thin<&mut Counted<S>> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut count = 0;
        while count < out.len() {
            if let Some(byte) = self.waiting.pop() {
                out[count] = byte;
                count += 1;
                continue;
            }
            let Some(byte) = self.source.fill_buf()?.first().copied() else { break };
            self.count()?;
            let content = self.take(byte)?;
            self.source.consume(1);
            match content {
                Some(base64) => self.content(base64)?,
                None => {
                    out[count] = byte;
                    count += 1;
                }
            }
        }
        Ok(count)
    }
}

/// Returns the digest and the length of what is left to read.
fn sum(from: &mut impl Read) -> io::Result<(Digest, u64)> {
    let (mut hash, mut size, mut chunk) = (Sha256::new(), 0, [0; 8192]);
    loop {
        match from.read(&mut chunk)? {
            0 => break,
            count => {
                hash.update(&chunk[..count]);
                size += count as u64;
            }
        }
    }
    let digest = Digest::from_bytes(&hash.finalize()).ok_or_else(|| io::Error::other("a digest has 32 bytes"))?;
    Ok((digest, size))
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}
