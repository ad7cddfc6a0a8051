//! Lengths of time with their unit, as in `"30s"`.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::problems::Fault;

/// A length of time with its unit, as in `"30s"`; units are `ms`, `s`, `m` and `h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^[0-9]+(ms|s|m|h)$"))]
pub struct Span(pub Duration);

impl Span {
    /// Returns a fault at `pointer` if the span is not between the two.
    pub(crate) fn fault(self, pointer: impl Into<String>, least: Duration, most: Duration) -> Option<Fault> {
        let detail = || format!("{self} is not between {} and {}", Self(least), Self(most));
        (self.0 < least || self.0 > most).then(|| Fault::new(pointer, detail()))
    }
}

/// Why a text is not a [`Span`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a length of time such as \"30s\"; units are ms, s, m and h")]
pub struct SpanError(String);

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let bad = || SpanError(text.to_owned());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| bad())?;
        let millis = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(bad()),
        };
        number.checked_mul(millis).map(|millis| Self(Duration::from_millis(millis))).ok_or_else(bad)
    }
}

impl TryFrom<String> for Span {
    type Error = SpanError;

    fn try_from(text: String) -> Result<Self, SpanError> {
        text.parse()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        for (unit, length) in [("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
            if millis >= length && millis.is_multiple_of(length) {
                return write!(f, "{}{unit}", millis / length);
            }
        }
        write!(f, "{millis}ms")
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_need_a_unit() {
        assert_eq!("30s".parse::<Span>().map(|span| span.0), Ok(Duration::from_secs(30)));
        assert_eq!("2h".parse::<Span>().map(|span| span.0), Ok(Duration::from_secs(7200)));
        for bad in ["30", "s", "", "-1s", "1d", "99999999999999999h", "1 s"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }

    #[test]
    fn spans_are_written_in_the_largest_unit_that_fits() {
        for text in ["1h", "90m", "61s", "1500ms", "0ms"] {
            assert_eq!(text.parse::<Span>().expect(text).to_string(), text);
        }
    }
}
