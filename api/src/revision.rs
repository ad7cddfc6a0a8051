//! The fleet's clock.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A strictly increasing timestamp in microseconds since the epoch, one per committed change (law 1).
///
/// On the wire it is RFC 3339 with six digits, as in `2026-11-20T15:04:05.123457Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
pub struct Revision(i64);

/// Why a text is not a [`Revision`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an RFC 3339 time such as 2026-11-20T15:04:05.123457Z")]
pub struct RevisionError(String);

/// The largest revision: 9999-12-30T22:00:00.999999Z, the end of what RFC 3339 can write.
const MAX_MICROS: i64 = 253_402_207_200_999_999;

impl Revision {
    /// Before every change.
    pub const ZERO: Self = Self(0);

    /// Returns the revision at `micros` microseconds since the epoch, kept within 1970 and 9999.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        if micros < 0 {
            Self(0)
        } else if micros > MAX_MICROS {
            Self(MAX_MICROS)
        } else {
            Self(micros)
        }
    }

    /// Returns the microseconds since the epoch.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Returns the revision one microsecond later: the cursor that continues after this revision.
    #[must_use]
    pub const fn next(self) -> Self {
        Self::from_micros(self.0 + 1)
    }
}

/// Where the digits of a revision's text are, the other characters, and how many digits each number has.
const SHAPE: &[u8; TEXT] = b"0000-00-00T00:00:00.000000Z";
/// Bytes of a revision's text.
const TEXT: usize = 27;

impl Revision {
    /// Returns the text as it stands on the wire, without a detour over a calendar library: every poll writes one.
    #[must_use]
    pub fn text(self) -> [u8; TEXT] {
        let (seconds, micros) = (self.0 / 1_000_000, self.0 % 1_000_000);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = date(days);
        let mut text = *SHAPE;
        let numbers = [
            (0, 4, year),
            (5, 2, month),
            (8, 2, day),
            (11, 2, second / 3600),
            (14, 2, second / 60 % 60),
            (17, 2, second % 60),
        ];
        for (at, digits, number) in numbers.into_iter().chain([(20, 6, micros)]) {
            let mut rest = number;
            for digit in text[at..at + digits].iter_mut().rev() {
                // Below ten.
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        text
    }

    /// Reads the text that [`Self::text`] writes; `None` for any other, which may still be a time.
    #[must_use]
    pub fn from_text(text: &[u8]) -> Option<Self> {
        let text: &[u8; TEXT] = text.try_into().ok()?;
        let fits = text
            .iter()
            .zip(SHAPE)
            .all(|(byte, shape)| if *shape == b'0' { byte.is_ascii_digit() } else { byte == shape });
        if !fits {
            return None;
        }
        let number = |at: usize, digits: usize| {
            text[at..at + digits].iter().fold(0, |number: i64, digit| number * 10 + i64::from(digit - b'0'))
        };
        let (year, month, day) = (number(0, 4), number(5, 2), number(8, 2));
        let (hour, minute, second) = (number(11, 2), number(14, 2), number(17, 2));
        if year < 1970 || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let days = days(year, month, day);
        // A day that the month does not have comes back as another one.
        if !(1..=12).contains(&month) || date(days) != (year, month, day) {
            return None;
        }
        let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
        Some(Self(seconds * 1_000_000 + number(20, 6))).filter(|revision| revision.0 <= MAX_MICROS)
    }
}

/// Returns year, month and day of a day since the epoch, none before it. The year begins in March, so that its leap day
/// is its last.
const fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (next, in_year) = if month < 10 { (0, month + 3) } else { (1, month - 9) };
    (era * 400 + year + next, in_year, day - (153 * month + 2) / 5 + 1)
}

/// Returns the day since the epoch of a year, month and day.
const fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

impl FromStr for Revision {
    type Err = RevisionError;

    fn from_str(text: &str) -> Result<Self, RevisionError> {
        if let Some(revision) = Self::from_text(text.as_bytes()) {
            return Ok(revision);
        }
        let time: Timestamp = text.parse().map_err(|_| RevisionError(text.to_owned()))?;
        // Part of a microsecond counts as none: "at or after" must not skip a revision.
        Ok(Self::from_micros(time.as_nanosecond().div_euclid(1000).try_into().unwrap_or(MAX_MICROS)))
    }
}

impl TryFrom<String> for Revision {
    type Error = RevisionError;

    fn try_from(text: String) -> Result<Self, RevisionError> {
        text.parse()
    }
}

impl From<Revision> for String {
    fn from(revision: Revision) -> Self {
        revision.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_and_back_is_the_same(micros in 0..=MAX_MICROS) {
            let revision = Revision::from_micros(micros);
            prop_assert_eq!(revision.to_string().parse::<Revision>(), Ok(revision));
            prop_assert_eq!(Revision::from_text(revision.to_string().as_bytes()), Some(revision));
        }

        #[test]
        fn text_is_that_of_the_calendar(micros in 0..=MAX_MICROS) {
            let time = Timestamp::from_microsecond(micros).expect("in range");
            prop_assert_eq!(Revision::from_micros(micros).to_string(), format!("{time:.6}"));
        }

        #[test]
        fn what_is_read_quickly_is_a_time_of_the_calendar(
            text in "(1970|1999|2000|2024|9999|[0-9]{4})-[0-9]{2}-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9].[0-9]{6}Z"
        ) {
            if let Some(revision) = Revision::from_text(text.as_bytes()) {
                let time: Timestamp = text.parse().expect("a time");
                prop_assert_eq!(time.as_microsecond(), revision.micros());
            }
        }
    }

    #[test]
    fn any_offset_and_precision_is_read() {
        let at = |text: &str| text.parse::<Revision>().map(Revision::micros);
        assert_eq!(at("1970-01-01T00:00:01Z"), Ok(1_000_000));
        assert_eq!(at("1970-01-01T01:00:01.0000019+01:00"), Ok(1_000_001));
        assert_eq!(at("1960-01-01T00:00:00Z"), Ok(0));
        assert!(at("yesterday").is_err());
    }

    #[test]
    fn six_digits_are_always_written() {
        assert_eq!(Revision::from_micros(1_500_000).to_string(), "1970-01-01T00:00:01.500000Z");
    }
}
