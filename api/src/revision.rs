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

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In range by construction.
        let time = Timestamp::from_microsecond(self.0).unwrap_or(Timestamp::UNIX_EPOCH);
        write!(f, "{time:.6}")
    }
}

impl FromStr for Revision {
    type Err = RevisionError;

    fn from_str(text: &str) -> Result<Self, RevisionError> {
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
