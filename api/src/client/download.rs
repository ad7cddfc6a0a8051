//! A body on its way, to be taken bit by bit: whoever reads it decides where it goes, and none of it is kept here.

use std::time::{Duration, Instant};

use reqwest::{Response, StatusCode};

use super::{ClientError, Result, not_titan};

/// How long a body may take in any case.
pub(super) const GRACE: Duration = Duration::from_mins(1);
/// Bytes for each of which a second more is allowed: whoever sends more slowly than that is not waited for.
const BYTES_PER_SECOND: u64 = 4096;

/// Returns that only `bytes` came within `allowed`.
pub(super) fn slow(server: &str, bytes: u64, allowed: Duration) -> ClientError {
    ClientError::Slow { server: server.to_owned(), bytes, seconds: allowed.as_secs() }
}

/// A body that is being received.
#[derive(Debug)]
pub struct Download {
    server: String,
    status: StatusCode,
    body: Response,
    began: Instant,
    taken: u64,
    limit: u64,
}

impl Download {
    /// Returns the body of `response`, of which at most `limit` bytes are taken.
    pub(super) fn new(server: &str, response: Response, limit: u64) -> Self {
        let (status, server) = (response.status(), server.to_owned());
        Self { server, status, body: response, began: Instant::now(), taken: 0, limit }
    }

    /// Returns the next bytes, or `None` at the end.
    ///
    /// # Errors
    ///
    /// The connection is lost, the body is longer than it may be, or it comes more slowly than 4 KiB a second, the first
    /// minute aside.
    pub async fn chunk(&mut self) -> Result<Option<impl AsRef<[u8]> + Send + 'static>> {
        let allowed = GRACE + Duration::from_secs(self.taken / BYTES_PER_SECOND);
        let left = allowed.saturating_sub(self.began.elapsed());
        let Ok(chunk) = tokio::time::timeout(left, self.body.chunk()).await else {
            return Err(slow(&self.server, self.taken, allowed));
        };
        let chunk = chunk.map_err(|source| ClientError::Unreachable { server: self.server.clone(), source })?;
        self.taken += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        if self.taken > self.limit {
            let what = format!("more than {} bytes", self.limit);
            return Err(not_titan(&self.server, self.status, &what, None));
        }
        Ok(chunk)
    }

    /// Returns all that is left, in memory: for whoever knows that it is little.
    ///
    /// # Errors
    ///
    /// As for [`Download::chunk`].
    pub async fn bytes(mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            bytes.extend_from_slice(chunk.as_ref());
        }
        Ok(bytes)
    }
}
