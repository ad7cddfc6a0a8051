//! Heads of requests: which of them the narrow server takes.
//!
//! It takes exactly what an agent sends. Whatever has two meanings, or a meaning that it does not know, goes to the
//! general server: nothing that decides where a request ends is ever guessed at here.

use std::mem::MaybeUninit;

use titan_api::Digest;

use crate::{
    access,
    routes::polls::{
        Ask,
        ask::{self, is_plain},
    },
};

/// Bytes of a head, at most.
pub(super) const HEAD: usize = 16 * 1024;
/// Headers of a request, at most.
const HEADERS: usize = 32;
/// Bytes of a body that is taken here; a larger one is for the general server, which does not hold it whole.
pub(super) const BODY: usize = 64 * 1024;
/// Characters of an id that a caller brings.
const ID: usize = 128;

/// What the bytes read so far begin with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head<'b> {
    /// Not a whole head yet.
    Partial,
    /// A poll.
    Poll(Poll<'b>),
    /// Another request of an agent, for the router.
    Routed(Routed),
    /// Something for the general server.
    Other,
}

/// A poll.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Poll<'b> {
    /// Bytes of the head.
    pub(super) length: usize,
    /// Whether the connection ends after the answer.
    pub(super) last: bool,
    /// The host's name.
    pub(super) host: &'b str,
    /// What it shows.
    pub(super) secret: &'b [u8],
    /// What it asks.
    pub(super) ask: Ask,
    /// The request's id, if it brings one.
    pub(super) id: Option<&'b str>,
}

/// A request for the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Routed {
    /// Bytes of the head.
    pub(super) length: usize,
    /// Bytes of the body.
    pub(super) body: usize,
    /// Whether the connection ends after the answer.
    pub(super) last: bool,
}

/// Reads a head.
pub(super) fn read(bytes: &[u8]) -> Head<'_> {
    let mut headers = [MaybeUninit::uninit(); HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(httparse::Status::Complete(length)) if length <= HEAD => length,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD => return Head::Partial,
        Ok(_) | Err(_) => return Head::Other,
    };
    taken(&request, &bytes[..length]).unwrap_or(Head::Other)
}

/// What the headers say that matters here.
#[derive(Default)]
struct Said<'b> {
    hosts: u8,
    secret: Option<&'b [u8]>,
    body: Option<usize>,
    id: Option<&'b str>,
    gzip: bool,
    last: bool,
}

fn taken<'b>(request: &httparse::Request<'_, 'b>, head: &'b [u8]) -> Option<Head<'b>> {
    let (method, path) = (request.method?, request.path?);
    if request.version != Some(1) || !ends_lines_as_usual(head) {
        return None;
    }
    let said = Said::of(request.headers)?;
    let (length, last) = (head.len(), said.last);
    if said.hosts != 1 {
        return None;
    }
    if method == "GET" && said.body.is_none() {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        if let Some(host) = ask::host(path) {
            let ask = Ask { gzip: said.gzip, ..Ask::read(query.as_bytes())? };
            return Some(Head::Poll(Poll { length, last, host, secret: said.secret?, ask, id: said.id }));
        }
        return (query.is_empty() && is_bundle(path)).then_some(Head::Routed(Routed { length, body: 0, last }));
    }
    let body = said.body.filter(|body| method == "POST" && *body <= BODY && is_report(path))?;
    Some(Head::Routed(Routed { length, body, last }))
}

impl<'b> Said<'b> {
    /// Reads the headers; `None` if one of them is for the general server.
    fn of(headers: &[httparse::Header<'b>]) -> Option<Self> {
        let mut said = Self::default();
        for header in headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            // By length first: most headers are none of these.
            match header.name.len() {
                4 if is("host") => said.hosts = said.hosts.saturating_add(1),
                13 if is("authorization") => once(&mut said.secret, access::bearer(header.value)?)?,
                14 if is("content-length") => once(&mut said.body, number(header.value)?)?,
                15 if is("accept-encoding") => said.gzip |= ask::takes_gzip(header.value),
                12 if is("x-request-id") => once(&mut said.id, id(header.value)?)?,
                10 if is("connection") => {
                    let (close, keep) = (is_word(header.value, "close"), is_word(header.value, "keep-alive"));
                    said.last |= close;
                    (close || keep).then_some(())?;
                }
                2 if is("te") => return None,
                6 if is("expect") => return None,
                7 if is("upgrade") || is("trailer") => return None,
                14 if is("http2-settings") => return None,
                16 if is("proxy-connection") => return None,
                17 if is("transfer-encoding") => return None,
                _ => {}
            }
        }
        Some(said)
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

fn is_word(value: &[u8], word: &str) -> bool {
    value.eq_ignore_ascii_case(word.as_bytes())
}

/// Reads a length: digits and nothing else.
fn number(value: &[u8]) -> Option<usize> {
    let digits = (1..=9).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    digits.then(|| value.iter().fold(0, |number, digit| number * 10 + usize::from(digit - b'0')))
}

/// Reads an id that is echoed.
fn id(value: &[u8]) -> Option<&str> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
    let fits = (1..=ID).contains(&value.len()) && value.iter().all(plain);
    std::str::from_utf8(value).ok().filter(|_| fits)
}

/// Whether every line ends with both CR and LF: a lone LF ends a line for some readers and not for others.
fn ends_lines_as_usual(head: &[u8]) -> bool {
    let ends = head.iter().filter(|byte| **byte == b'\n').count();
    let pairs = head.iter().zip(head.get(1..).unwrap_or_default());
    ends == pairs.filter(|(first, second)| **first == b'\r' && **second == b'\n').count()
}

fn is_report(path: &str) -> bool {
    path.strip_prefix("/v1/hosts/").and_then(|rest| rest.strip_suffix("/report")).is_some_and(is_plain)
}

fn is_bundle(path: &str) -> bool {
    let parts = path.strip_prefix("/v1/hosts/").and_then(|rest| rest.split_once("/bundles/"));
    parts.is_some_and(|(host, digest)| is_plain(host) && digest.parse::<Digest>().is_ok())
}

#[cfg(test)]
mod tests;
