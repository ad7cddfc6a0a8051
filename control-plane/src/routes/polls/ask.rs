//! What a host asks, read from the bytes of its request without allocating.

use serde::Deserialize;
use titan_api::{Revision, SetDigestStart, limits};

/// What a host asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ask {
    /// Where it goes on; without it, it is told everything.
    pub since: Option<Revision>,
    /// How the digest of the set begins that it holds.
    pub have: Option<SetDigestStart>,
    /// How many seconds the poll may be held, at most [`limits::WAIT_SECONDS`].
    pub wait: u8,
    /// Whether it takes gzip.
    pub gzip: bool,
}

/// The same as parameters of the query, read strictly and with errors that name the place.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PollParams {
    since: Option<Revision>,
    have: Option<SetDigestStart>,
    wait: Option<u64>,
}

impl PollParams {
    /// Returns what is asked.
    #[must_use]
    pub(crate) fn ask(&self, gzip: bool) -> Ask {
        Ask { since: self.since, have: self.have, wait: held(self.wait.unwrap_or(0)), gzip }
    }
}

fn held(wait: u64) -> u8 {
    u8::try_from(wait.min(limits::WAIT_SECONDS)).unwrap_or(u8::MAX)
}

impl Ask {
    /// Reads a query as an agent writes it. `None` for any other, which [`PollParams`] may still read.
    #[must_use]
    pub fn read(query: &[u8]) -> Option<Self> {
        let mut ask = Self::default();
        let mut wait = None;
        if query.is_empty() {
            return Some(ask);
        }
        for pair in query.split(|byte| *byte == b'&') {
            if let Some(since) = pair.strip_prefix(b"since=") {
                once(&mut ask.since, Revision::from_text(since)?)?;
            } else if let Some(have) = pair.strip_prefix(b"have=") {
                once(&mut ask.have, std::str::from_utf8(have).ok()?.parse().ok()?)?;
            } else {
                once(&mut wait, seconds(pair.strip_prefix(b"wait=")?)?)?;
            }
        }
        ask.wait = held(wait.unwrap_or(0));
        Some(ask)
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

fn seconds(text: &[u8]) -> Option<u64> {
    let digits = (1..=9).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    digits.then(|| text.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// Returns the host of a poll's path.
#[must_use]
pub(crate) fn host(path: &str) -> Option<&str> {
    let name = path.strip_prefix("/v1/hosts/")?.strip_suffix("/changes")?;
    is_plain(name).then_some(name)
}

/// Whether a part of a path is as it would be written in it, and no longer than a name.
#[must_use]
pub(crate) fn is_plain(part: &str) -> bool {
    (1..=limits::NAME_BYTES).contains(&part.len())
        && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// Whether a list of encodings takes gzip.
#[must_use]
pub(crate) fn takes_gzip(accepted: &[u8]) -> bool {
    accepted.split(|byte| *byte == b',').any(|entry| {
        let mut parts = entry.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(b"gzip"));
        // Weighted with zero, in any spelling of it, it is refused.
        let refused = |weight: &[u8]| {
            let value = weight.strip_prefix(b"q=").or_else(|| weight.strip_prefix(b"Q="));
            value.is_some_and(|value| value.iter().all(|byte| matches!(byte, b'0' | b'.')))
        };
        named && !parts.any(refused)
    })
}

#[cfg(test)]
mod tests {
    use axum::extract::Query;
    use proptest::prelude::*;

    use super::*;

    fn strictly(query: &str) -> Option<Ask> {
        let uri = format!("/?{query}").parse().ok()?;
        Query::<PollParams>::try_from_uri(&uri).ok().map(|Query(params)| params.ask(false))
    }

    #[test]
    fn what_an_agent_writes_is_read() {
        let query = "since=2026-11-20T15:04:05.123457Z&have=0123456789abcdef0123456789abcdef&wait=30";
        let ask = Ask::read(query.as_bytes()).expect("read");
        assert_eq!(Some(ask), strictly(query));
        assert_eq!((ask.wait, ask.since.is_some(), ask.have.is_some()), (30, true, true));
        assert_eq!(Ask::read(b""), Some(Ask::default()));
        assert_eq!(Ask::read(b"wait=100000").map(|ask| ask.wait), Some(60));
    }

    #[test]
    fn the_unusual_is_left_to_the_strict_way() {
        let unusual = [
            "wait=",
            "wait=-1",
            "wait=1&wait=1",
            "since=2026-11-20",
            "since=2026-11-20T15%3A04%3A05Z",
            "have=1",
            "x=1",
            "&",
        ];
        for query in unusual {
            assert_eq!(Ask::read(query.as_bytes()), None, "{query}");
        }
    }

    #[test]
    fn hosts_are_found_in_paths_of_polls_alone() {
        assert_eq!(host("/v1/hosts/tim-pi/changes"), Some("tim-pi"));
        for path in ["/v1/hosts//changes", "/v1/hosts/a/b/changes", "/v1/hosts/%61/changes", "/v1/hosts/a/report", "/"]
        {
            assert_eq!(host(path), None, "{path}");
        }
    }

    #[test]
    fn gzip_is_taken_if_it_is_named_and_not_refused() {
        for accepted in ["gzip", "zstd, gzip", "br;q=1.0, GZIP;q=0.5"] {
            assert!(takes_gzip(accepted.as_bytes()), "{accepted}");
        }
        for refused in ["", "identity", "*", "gzip;q=0", "gzip; q=0.000", "gzipped"] {
            assert!(!takes_gzip(refused.as_bytes()), "{refused}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_quickly_is_read_the_same_strictly(
            query in "((since|have|wait|x)=(2026-1[0-9]-[0-3][0-9]T15:04:05.123457Z|[0-9a-f]{32}|[0-9]{0,10}|[ -~]{0,9})&?){0,4}"
        ) {
            if let Some(ask) = Ask::read(query.as_bytes()) {
                prop_assert_eq!(Some(ask), strictly(&query));
            }
        }
    }
}
