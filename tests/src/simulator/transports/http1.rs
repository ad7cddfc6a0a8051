//! HTTP/1.1 of an agent: one request, one answer, nothing kept in between.

use std::{io, time::Duration};

use super::socket::Socket;
use crate::simulator::wire::{Ask, Fault, MOST, Told};

/// The longest head of an answer.
const HEAD: usize = 16 * 1024;
/// A slow agent reads so many bytes at a time, and pauses after each.
const BITE: usize = 512;
const PAUSE: Duration = Duration::from_millis(100);

/// Returns the bytes of a request.
pub(super) fn request(ask: &Ask, host: &str) -> Vec<u8> {
    let method = if ask.body.is_some() { "POST" } else { "GET" };
    let mut bytes = Vec::with_capacity(384 + ask.body.as_ref().map_or(0, Vec::len));
    for part in [method, " ", &ask.path, " HTTP/1.1\r\nhost: ", host, "\r\nauthorization: Bearer ", &ask.token, "\r\n"]
    {
        bytes.extend_from_slice(part.as_bytes());
    }
    if ask.gzip {
        bytes.extend_from_slice(b"accept-encoding: gzip\r\n");
    }
    if let Some(body) = &ask.body {
        let head = format!("content-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(body);
    } else {
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// How long the body of an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Known(usize),
    Chunked,
}

/// The head of an answer: what it says, how long the body is, where it begins, whether the connection stays.
struct Head {
    told: Told,
    length: Length,
    end: usize,
    keep: bool,
}

/// Reads an answer, and whether the connection can be used again. [`Fault::Closed`] with
/// [`io::ErrorKind::ConnectionAborted`] means that not a byte of it came.
pub(super) async fn answer(socket: &mut Socket, slow: bool) -> Result<(Told, bool), Fault> {
    let closed = |error: io::Error| Fault::Closed(error.kind());
    let untouched = |_| Fault::Closed(io::ErrorKind::ConnectionAborted);
    socket.readable().await.map_err(untouched)?;
    let mut buffer = Vec::new();
    let head = loop {
        let read = socket.read(&mut buffer, if slow { BITE } else { 1024 }).await;
        match read {
            Ok(1..) => {}
            _ if buffer.is_empty() => return Err(Fault::Closed(io::ErrorKind::ConnectionAborted)),
            Ok(_) => return Err(Fault::Closed(io::ErrorKind::UnexpectedEof)),
            Err(error) => return Err(closed(error)),
        }
        if let Some(head) = parse(&buffer)? {
            break head;
        }
        if buffer.len() > HEAD {
            return Err(Fault::Malformed("a head without end"));
        }
    };
    let Head { mut told, length, end, keep } = head;
    buffer.drain(..end);
    loop {
        let done = match length {
            Length::Known(length) if buffer.len() >= length => {
                buffer.truncate(length);
                Some(std::mem::take(&mut buffer))
            }
            Length::Known(_) => None,
            Length::Chunked => unchunked(&buffer)?,
        };
        if let Some(body) = done {
            told.body = body;
            return Ok((told, keep));
        }
        if buffer.len() > MOST {
            return Err(Fault::Malformed("a body without end"));
        }
        if slow {
            tokio::time::sleep(PAUSE).await;
        }
        if socket.read(&mut buffer, if slow { BITE } else { 64 * 1024 }).await.map_err(closed)? == 0 {
            return Err(Fault::Closed(io::ErrorKind::UnexpectedEof));
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Option<Head>, Fault> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let end = match response.parse(bytes) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Fault::Malformed("a head that is not HTTP")),
    };
    let status = response.code.unwrap_or_default();
    let mut told = Told { status, ..Told::default() };
    let mut length = Length::Known(0);
    let mut keep = response.version == Some(1);
    for header in response.headers.iter() {
        let text = std::str::from_utf8(header.value).unwrap_or_default();
        if header.name.eq_ignore_ascii_case("content-length") {
            let known = text.parse().map_err(|_| Fault::Malformed("a length that is no number"))?;
            length = Length::Known(known);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") && text.eq_ignore_ascii_case("chunked") {
            length = Length::Chunked;
        } else if header.name.eq_ignore_ascii_case("connection") {
            keep = keep && !text.eq_ignore_ascii_case("close");
        } else {
            told.header(header.name, header.value);
        }
    }
    if status == 204 || status == 304 {
        length = Length::Known(0);
    }
    Ok(Some(Head { told, length, end, keep }))
}

/// Returns the body out of its chunks, once all of them are there.
fn unchunked(mut bytes: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    let mut body = Vec::new();
    loop {
        let (start, size) = match httparse::parse_chunk_size(bytes) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Fault::Malformed("a chunk without size")),
        };
        let size = usize::try_from(size).ok().filter(|size| *size <= MOST);
        let size = size.ok_or(Fault::Malformed("a chunk too large"))?;
        let Some(chunk) = bytes.get(start..start + size) else { return Ok(None) };
        if bytes.len() < start + size + 2 {
            return Ok(None);
        }
        if size == 0 {
            return Ok(Some(body));
        }
        body.extend_from_slice(chunk);
        bytes = &bytes[start + size + 2..];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn heads_of_answers_are_read() {
        let text =
            b"HTTP/1.1 204 No Content\r\ntitan-cursor: 2026-11-20T15:04:05.123457Z\r\ntitan-poll-after: 5\r\n\r\n";
        let head = parse(text).expect("HTTP").expect("complete");
        assert_eq!(
            (head.told.status, head.told.poll_after, head.length, head.keep),
            (204, Some(5), Length::Known(0), true)
        );
        assert!(head.told.cursor.is_some());
        assert!(parse(b"HTTP/1.1 200 OK\r\n").expect("HTTP").is_none());
        assert!(parse(b"<html>").is_err());
        let head = parse(b"HTTP/1.1 503 X\r\nconnection: close\r\nretry-after: 2\r\ncontent-length: 7\r\n\r\n");
        let head = head.expect("HTTP").expect("complete");
        assert_eq!(
            (head.keep, head.length, head.told.retry_after),
            (false, Length::Known(7), Some(Duration::from_secs(2)))
        );
    }

    #[test]
    fn chunks_are_put_together() {
        assert_eq!(unchunked(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), Ok(Some(b"abcde".to_vec())));
        assert_eq!(unchunked(b"3\r\nabc\r\n2\r\nd"), Ok(None));
        assert!(unchunked(b"zz\r\n").is_err());
    }

    proptest! {
        #[test]
        fn nothing_that_a_server_sends_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _any = parse(&bytes);
            let _any = unchunked(&bytes);
        }
    }
}
