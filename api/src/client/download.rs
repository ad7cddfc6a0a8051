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

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
    };

    use super::*;
    use crate::client::Client;

    /// Returns a download from a server that says a head and then whatever `body` writes.
    async fn download(limit: u64, body: impl Fn(&mut dyn std::io::Write) -> bool + Send + 'static) -> Download {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let _request = stream.read(&mut [0; 4096]);
            let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n");
            while body(&mut stream) {}
        });
        let client = Client::new(&url, None).expect("a client");
        let response = client.send(client.request(reqwest::Method::GET, "/")).await.expect("a head");
        Download::new(client.server(), response, limit)
    }

    #[tokio::test]
    async fn body_longer_than_it_may_be_is_refused_in_the_middle() {
        let mut download = download(1 << 20, |to| to.write_all(&[b'x'; 4096]).is_ok()).await;
        let mut taken = 0;
        let error = loop {
            match download.chunk().await {
                Ok(chunk) => taken += chunk.expect("no end").as_ref().len(),
                Err(error) => break error,
            }
        };
        assert!(taken <= 1 << 20);
        assert!(error.to_string().contains("more than 1048576 bytes"), "{error}");
    }

    #[tokio::test]
    async fn body_that_comes_too_slowly_is_not_waited_for() {
        let trickle = |to: &mut dyn std::io::Write| {
            std::thread::sleep(Duration::from_millis(20));
            to.write_all(b"x").is_ok()
        };
        let mut download = download(1 << 20, trickle).await;
        // As if it had begun nearly a minute ago.
        download.began = download.began.checked_sub(GRACE - Duration::from_millis(300)).expect("a time");
        let error = download.bytes().await.expect_err("too slow");
        assert!(matches!(error, ClientError::Slow { bytes: 1..100, seconds: 60, .. }), "{error}");
    }

    #[tokio::test]
    async fn connection_that_ends_early_is_no_end_of_the_body() {
        let download = download(1 << 20, |to| to.write_all(b"half").is_err()).await;
        assert!(matches!(download.bytes().await, Err(ClientError::Unreachable { .. })));
    }
}
