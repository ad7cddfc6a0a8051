//! What an agent sends and what it is told, whatever carries it.

use std::time::Duration;

use titan_api::{Revision, SetDigest};

use crate::simulator::credentials;

/// A request.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Path and query.
    pub path: String,
    /// The host's credential.
    pub token: String,
    /// The body of a POST, JSON; without one it is a GET.
    pub body: Option<Vec<u8>>,
    /// Whether the answer may be compressed.
    pub gzip: bool,
}

impl Ask {
    /// Returns the request of a poll.
    #[must_use]
    pub fn poll(agent: u32, token: String, since: Option<(Revision, SetDigest)>, wait: u64, gzip: bool) -> Self {
        use std::fmt::Write as _;
        let mut path = format!("/v1/hosts/{}/changes", credentials::name(agent as usize));
        if let Some((since, have)) = since {
            // Writing to a string cannot fail.
            let _infallible = write!(path, "?since={since}&have={have}");
        }
        if wait > 0 {
            let mark = if since.is_some() { '&' } else { '?' };
            let _infallible = write!(path, "{mark}wait={wait}");
        }
        Self { path, token, body: None, gzip }
    }

    /// Returns the request of a report.
    #[must_use]
    pub fn report(agent: u32, token: String, body: Vec<u8>) -> Self {
        let path = format!("/v1/hosts/{}/report", credentials::name(agent as usize));
        Self { path, token, body: Some(body), gzip: false }
    }

    /// Returns the request for a bundle.
    #[must_use]
    pub fn bundle(agent: u32, token: String, digest: &titan_api::Digest) -> Self {
        let path = format!("/v1/hosts/{}/bundles/{digest}", credentials::name(agent as usize));
        Self { path, token, body: None, gzip: false }
    }
}

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// The status.
    pub status: u16,
    /// The header `titan-cursor`.
    pub cursor: Option<Revision>,
    /// The header `titan-poll-after`, in seconds.
    pub poll_after: Option<u32>,
    /// The header `retry-after`.
    pub retry_after: Option<Duration>,
    /// Whether the body is compressed.
    pub gzip: bool,
    /// The body.
    pub body: Vec<u8>,
}

impl Told {
    /// Takes in a header; others than those of the protocol are passed over.
    pub fn header(&mut self, name: &str, value: &[u8]) {
        let Ok(value) = std::str::from_utf8(value) else { return };
        if name.eq_ignore_ascii_case(titan_api::poll::CURSOR_HEADER) {
            self.cursor = value.parse().ok();
        } else if name.eq_ignore_ascii_case(titan_api::poll::POLL_AFTER_HEADER) {
            self.poll_after = value.parse().ok();
        } else if name.eq_ignore_ascii_case("retry-after") {
            self.retry_after = value.parse().ok().map(Duration::from_secs);
        } else if name.eq_ignore_ascii_case("content-encoding") {
            self.gzip = value.eq_ignore_ascii_case("gzip");
        }
    }

    /// Undoes the compression of the body.
    pub fn unpack(&mut self) -> Result<(), Fault> {
        if self.gzip {
            let mut body = Vec::new();
            let decoder = flate2::read::GzDecoder::new(self.body.as_slice());
            std::io::Read::read_to_end(&mut std::io::Read::take(decoder, MOST as u64), &mut body)
                .map_err(|_| Fault::Malformed("a body that is not gzip"))?;
            (self.body, self.gzip) = (body, false);
        }
        Ok(())
    }
}

/// The largest answer that is read into memory.
pub const MOST: usize = 64 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The server cannot be reached.
    #[error("connect: {0}")]
    Connect(std::io::ErrorKind),
    /// The TLS handshake failed.
    #[error("handshake: {0}")]
    Handshake(std::io::ErrorKind),
    /// The connection ended before the answer did.
    #[error("closed: {0}")]
    Closed(std::io::ErrorKind),
    /// HTTP/2 ended the stream or the connection.
    #[error("http2: {0}")]
    Http2(String),
    /// What came is not HTTP, or too large.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// No answer in time.
    #[error("timeout")]
    Timeout,
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn requests_say_what_a_host_holds() {
        let have = Some((Revision::from_micros(1), SetDigest::default()));
        let ask = Ask::poll(0, "t".into(), have, 30, false);
        let digest = "0".repeat(32);
        let expected = format!("/v1/hosts/sim-0000001/changes?since=1970-01-01T00:00:00.000001Z&have={digest}&wait=30");
        assert_eq!(ask.path, expected);
        assert_eq!(Ask::poll(0, "t".into(), None, 0, false).path, "/v1/hosts/sim-0000001/changes");
    }

    #[test]
    fn compressed_bodies_are_unpacked_and_others_refused() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(b"abc").expect("written");
        let mut told = Told { body: encoder.finish().expect("packed"), ..Told::default() };
        told.header("Content-Encoding", b"gzip");
        told.header("Retry-After", b"7");
        told.unpack().expect("gzip");
        assert_eq!((told.body.as_slice(), told.retry_after), (&b"abc"[..], Some(Duration::from_secs(7))));
        let mut told = Told { body: b"abc".to_vec(), gzip: true, ..Told::default() };
        assert!(told.unpack().is_err());
    }
}
