//! Answers as text.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Poll, ready},
    time::Duration,
};

use axum::{body::Body, response::Response};
use http::{StatusCode, header};
use jiff::{Timestamp, fmt::rfc2822::DateTimePrinter};
use tokio::{
    io::{AsyncWrite as _, AsyncWriteExt as _},
    time::timeout,
};

use super::Agent;
use crate::routes::polls::Unchanged;

/// Bytes of the longest answer to an unchanged poll: with the longest id, and all headers.
const LONGEST: usize = 280;
/// Bytes of an answer's body, at most: several times a bundle or what travels inside a poll's answer.
const BODY: usize = 64 * 1024 * 1024;
/// How long an answer with a body may take to be read.
const READ: Duration = Duration::from_secs(60);

/// A short text that is put together on the stack.
struct Text {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Text {
    /// Returns the answer to an unchanged poll. Its status needs no phrase, and it has no date: see
    /// `docs/decisions/0014-narrow-http.md`.
    fn unchanged(unchanged: Unchanged, id: Option<&str>, last: bool) -> Self {
        let mut text = Self { bytes: [0; LONGEST], length: 0 };
        text.add(b"HTTP/1.1 204 \r\ntitan-cursor: ");
        text.add(&unchanged.cursor.text());
        if let Some(seconds) = unchanged.poll_after {
            text.add(b"\r\ntitan-poll-after: ");
            text.number(seconds);
        }
        if let Some(id) = id {
            text.add(b"\r\nx-request-id: ");
            text.add(id.as_bytes());
        }
        if last {
            text.add(b"\r\nconnection: close");
        }
        text.add(b"\r\n\r\n");
        text
    }

    /// Adds bytes. They fit: the longest of all parts are counted.
    fn add(&mut self, part: &[u8]) {
        let end = self.length + part.len();
        if let Some(place) = self.bytes.get_mut(self.length..end) {
            place.copy_from_slice(part);
            self.length = end;
        }
    }

    fn number(&mut self, number: u32) {
        let mut digits = [0; 10];
        let mut at = digits.len();
        let mut rest = number;
        loop {
            at -= 1;
            // Below ten.
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.add(&digits[at..]);
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Agent<'_> {
    /// Answers an unchanged poll.
    pub(super) async fn reply(&mut self, unchanged: Unchanged, id: Option<&str>, last: bool) -> io::Result<()> {
        // What the system did not take at the first try; mostly it takes all.
        let mut rest: Option<Vec<u8>> = None;
        poll_fn(|context| {
            loop {
                let mut stream = Pin::new(&mut *self.stream);
                match &mut rest {
                    None => {
                        let text = Text::unchanged(unchanged, id, last);
                        let step = stream.as_mut().poll_write(context, text.as_bytes());
                        let written = match &step {
                            Poll::Ready(Ok(written)) => *written,
                            _ => 0,
                        };
                        rest = Some(text.as_bytes()[written..].to_vec());
                        ready!(step)?;
                    }
                    Some(rest) if rest.is_empty() => return stream.poll_flush(context),
                    Some(rest) => {
                        let written = ready!(stream.poll_write(context, rest))?;
                        if written == 0 {
                            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                        }
                        rest.drain(..written);
                    }
                }
            }
        })
        .await
    }

    /// Writes any answer.
    pub(super) async fn respond(&mut self, response: Response, last: bool) -> io::Result<()> {
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(Body::new(body), BODY).await.map_err(io::Error::other)?;
        let mut text = Vec::with_capacity(512 + body.len().min(16 * 1024));
        text.extend_from_slice(b"HTTP/1.1 ");
        text.extend_from_slice(parts.status.as_str().as_bytes());
        text.push(b' ');
        text.extend_from_slice(parts.status.canonical_reason().unwrap_or_default().as_bytes());
        for (name, value) in &parts.headers {
            // These are told below.
            if name != header::CONTENT_LENGTH && name != header::TRANSFER_ENCODING && name != header::CONNECTION {
                add(&mut text, name.as_str(), value.as_bytes());
            }
        }
        let mut date = String::new();
        if DateTimePrinter::new().print_timestamp_rfc9110(&Timestamp::now(), &mut date).is_ok() {
            add(&mut text, "date", date.as_bytes());
        }
        if parts.status != StatusCode::NO_CONTENT && parts.status != StatusCode::NOT_MODIFIED {
            add(&mut text, "content-length", body.len().to_string().as_bytes());
        }
        if last {
            add(&mut text, "connection", b"close");
        }
        text.extend_from_slice(b"\r\n\r\n");
        let write = async {
            if body.len() <= 16 * 1024 {
                // In one packet, if it can be.
                text.extend_from_slice(&body);
                self.stream.write_all(&text).await?;
            } else {
                self.stream.write_all(&text).await?;
                self.stream.write_all(&body).await?;
            }
            self.stream.flush().await
        };
        match timeout(READ, write).await {
            Ok(written) => written,
            Err(_) => {
                self.service.metrics.timed_out.inc();
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }
}

fn add(text: &mut Vec<u8>, name: &str, value: &[u8]) {
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(name.as_bytes());
    text.extend_from_slice(b": ");
    text.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use titan_api::Revision;

    use super::*;

    #[test]
    fn longest_answer_fits_and_the_usual_one_is_short() {
        let cursor = Revision::from_micros(i64::MAX);
        let id = "i".repeat(128);
        let text = Text::unchanged(Unchanged { cursor, poll_after: Some(u32::MAX) }, Some(&id), true);
        let text = String::from_utf8(text.as_bytes().to_vec()).expect("text");
        let expected = format!(
            "HTTP/1.1 204 \r\ntitan-cursor: {cursor}\r\ntitan-poll-after: 4294967295\r\nx-request-id: {id}\r\n\
             connection: close\r\n\r\n"
        );
        assert_eq!(text, expected);
        let usual = Text::unchanged(Unchanged { cursor, poll_after: None }, None, false);
        assert_eq!(usual.as_bytes().len(), 60);
    }
}
