//! Times as people say them: `3m` ago, `24h` from now.

use std::time::Duration;

use titan_api::Revision;

/// Returns the current time by this machine's clock.
pub(crate) fn now() -> Revision {
    Revision::from_micros(jiff::Timestamp::now().as_microsecond())
}

/// Returns how long before `now` the time `then` is, in its largest unit, with a second one where it matters. A clock
/// behind the server's shows `0s`.
pub(crate) fn age(then: Revision, now: Revision) -> String {
    // What never happened has no age: a host whose release cannot be rendered has no assignment yet.
    if then == Revision::ZERO {
        return "-".to_owned();
    }
    let seconds = u64::try_from(now.micros().saturating_sub(then.micros())).unwrap_or_default() / 1_000_000;
    let (length, rest) = units(seconds);
    if seconds < 600 { format!("{length}{rest}") } else { length }
}

/// Returns a length of time as people say it, in its largest unit and the next one: `24h30m`.
pub(crate) fn length(time: Duration) -> String {
    if time.subsec_nanos() > 0 && time.as_secs() < 10 {
        return format!("{}ms", time.as_millis());
    }
    let (length, rest) = units(time.as_secs());
    format!("{length}{rest}")
}

/// Returns so many seconds in the largest unit of which they are several, and what is left in the next one, if anything.
fn units(seconds: u64) -> (String, String) {
    let (unit, size, next, part) = match seconds {
        ..120 => return (format!("{seconds}s"), String::new()),
        120..10_800 => ("m", 60, "s", 1),
        10_800..172_800 => ("h", 3600, "m", 60),
        172_800..63_072_000 => ("d", 86_400, "h", 3600),
        _ => ("y", 31_536_000, "d", 86_400),
    };
    let left = seconds % size / part;
    (format!("{}{unit}", seconds / size), if left > 0 { format!("{left}{next}") } else { String::new() })
}

/// Returns the age of an optional time, or `-`.
pub(crate) fn maybe_age(then: Option<Revision>, now: Revision) -> String {
    then.map_or_else(|| "-".to_owned(), |then| age(then, now))
}

/// Why a text is not a length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a length of time: write a number and a unit, such as 30s, 5m, 24h or 7d")]
pub(crate) struct DurationError(String);

/// Returns the length of time that `text` names: `90s`, `5m`, `24h`, `7d`, or several in a row as in `1h30m`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let bad = || DurationError(text.to_owned());
    let mut rest = text.trim();
    let mut total: u64 = 0;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|end| *end > 0).ok_or_else(bad)?;
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |end| digits + end);
        let unit = match &rest[digits..unit_end] {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return Err(bad()),
        };
        total = number.checked_mul(unit).and_then(|seconds| total.checked_add(seconds)).ok_or_else(bad)?;
        rest = &rest[unit_end..];
    }
    Ok(Duration::from_secs(total))
}

/// Why a text is not a moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a time such as 2026-11-20T15:04:05Z nor a length of time before now such as 10m")]
pub(crate) struct MomentError(String);

/// Returns the moment that `text` names: an RFC 3339 time, or a length of time before `now`.
pub(crate) fn parse_moment(text: &str, now: Revision) -> Result<Revision, MomentError> {
    if let Ok(revision) = text.parse() {
        return Ok(revision);
    }
    let before = parse_duration(text).map_err(|_| MomentError(text.to_owned()))?;
    let micros = i64::try_from(before.as_micros()).unwrap_or(i64::MAX);
    Ok(Revision::from_micros(now.micros().saturating_sub(micros)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        let now = Revision::from_micros(10_000_000_000_000_000);
        let ago = |seconds: i64| age(Revision::from_micros(now.micros() - seconds * 1_000_000), now);
        for (seconds, text) in [
            (-5, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (185, "3m5s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (172_800, "2d"),
            (86_400 * 400, "400d"),
            (86_400 * 800, "2y"),
        ] {
            assert_eq!(ago(seconds), text, "{seconds}");
        }
        assert_eq!(maybe_age(None, now), "-");
        assert_eq!(age(Revision::ZERO, now), "-");
    }

    #[test]
    fn lengths_are_said_in_two_units_at_most() {
        for (seconds, text) in [
            (0, "0s"),
            (90, "90s"),
            (150, "2m30s"),
            (5400, "90m"),
            (86_400, "24h"),
            (1470 * 60, "24h30m"),
            (48 * 3600, "2d"),
            (100 * 3600 + 1, "4d4h"),
            (86_400 * 730, "2y"),
        ] {
            assert_eq!(length(Duration::from_secs(seconds)), text, "{seconds}");
        }
        assert_eq!(length(Duration::from_millis(1500)), "1500ms");
    }

    #[test]
    fn lengths_of_time_need_a_unit() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(604_800)));
        for bad in ["", "5", "m", "5 m", "-5m", "5x", "99999999999999999999d", "18446744073709551615d", "5m3", "ü"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn moments_are_times_or_lengths_before_now() {
        let now = Revision::from_micros(3_600_000_000);
        assert_eq!(parse_moment("10m", now).map(Revision::micros), Ok(3_000_000_000));
        assert_eq!(parse_moment("1970-01-01T00:00:01Z", now).map(Revision::micros), Ok(1_000_000));
        assert_eq!(parse_moment("9h", now), Ok(Revision::ZERO));
        assert!(parse_moment("yesterday", now).is_err());
    }
}
