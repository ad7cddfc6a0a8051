//! Shares: so many of a number, or a part of it in percent.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// So many of them, written `3`, or a part of them, written `"10%"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Share {
    /// So many.
    Count(u32),
    /// So many of a hundred, up to 100.
    Percent(u32),
}

/// Why a text is not a [`Share`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// It is neither a number nor a percentage.
    #[error("{0:?} is neither a number such as 5 nor a part such as 10%")]
    Malformed(String),
    /// It is more than all.
    #[error("{0}% is more than all of them: write 0% to 100%")]
    TooMuch(u32),
}

impl Share {
    /// All of them.
    pub const ALL: Self = Self::Percent(100);
    /// None of them.
    pub const NONE: Self = Self::Count(0);

    /// Whether it is nothing of any number.
    #[must_use]
    pub const fn is_none(self) -> bool {
        matches!(self, Self::Count(0) | Self::Percent(0))
    }

    /// Returns how many of `total` have to be in so that it is at least this share: rounded up, at least one of any.
    #[must_use]
    pub fn at_least(self, total: u64) -> u64 {
        let number = match self {
            Self::Count(count) => u64::from(count),
            // By 128 bits: a hundred times a count need not fit into 64.
            Self::Percent(percent) => part((u128::from(total) * u128::from(percent)).div_ceil(100)),
        };
        number.max(1).min(total)
    }

    /// Returns how many of `total` may be in so that it is no more than this share: rounded down, but one of any, since
    /// nothing would ever move otherwise.
    #[must_use]
    pub fn at_most(self, total: u64) -> u64 {
        let number = match self {
            Self::Count(count) => u64::from(count),
            Self::Percent(percent) => part(u128::from(total) * u128::from(percent) / 100),
        };
        number.max(1).min(total)
    }

    /// Whether `found` of `total` are more than this share. Nothing is rounded: 2 of 100 are not more than 2%, 2 of 99 are.
    #[must_use]
    pub fn is_exceeded(self, found: u64, total: u64) -> bool {
        match self {
            Self::Count(count) => found > u64::from(count),
            Self::Percent(percent) => u128::from(found) * 100 > u128::from(total) * u128::from(percent),
        }
    }
}

fn part(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, ShareError> {
        let malformed = || ShareError::Malformed(text.to_owned());
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|_| plain).ok_or_else(malformed)
        };
        match text.strip_suffix('%') {
            None => number(text).map(Self::Count),
            Some(digits) => match number(digits)? {
                percent @ 0..=100 => Ok(Self::Percent(percent)),
                percent => Err(ShareError::TooMuch(percent)),
            },
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_u32(*count),
            Self::Percent(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

struct Visitor;

impl de::Visitor<'_> for Visitor {
    type Value = Share;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number such as 5 or a part such as \"10%\"")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Share, E> {
        let most = u32::MAX;
        u32::try_from(number).map(Share::Count).map_err(|_| E::custom(format!("{number} is too many, at most {most}")))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Share, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shares_are_numbers_or_percentages() {
        for (value, share) in [
            (json!(0), Share::Count(0)),
            (json!(7), Share::Count(7)),
            (json!("0%"), Share::Percent(0)),
            (json!("100%"), Share::ALL),
        ] {
            assert_eq!(serde_json::from_value::<Share>(value.clone()).expect("share"), share);
            assert_eq!(serde_json::to_value(share).expect("value"), value);
        }
        assert_eq!(serde_json::from_value::<Share>(json!("7")).expect("share"), Share::Count(7));
        for (bad, hint) in [
            (json!("101%"), "101% is more than all of them: write 0% to 100%"),
            (json!("4294967296%"), "neither a number"),
            (json!("%"), "neither a number"),
            (json!("+5%"), "neither a number"),
            (json!("5 %"), "neither a number"),
            (json!(-1), "expected a number such as 5"),
            (json!(1.5), "expected a number such as 5"),
            (json!(4_294_967_296_u64), "too many"),
            (json!(null), "expected a number such as 5"),
        ] {
            let error = serde_json::from_value::<Share>(bad.clone()).expect_err("bad").to_string();
            assert!(error.contains(hint), "{bad}: {error}");
        }
    }

    #[test]
    fn what_has_to_be_in_is_rounded_up_and_what_may_be_out_down() {
        let percent = Share::Percent;
        for (share, total, least, most) in [
            (percent(10), 100, 10, 10),
            (percent(10), 101, 11, 10),
            (percent(10), 5, 1, 1),
            (percent(0), 5, 1, 1),
            (percent(100), 5, 5, 5),
            (percent(50), 3, 2, 1),
            (percent(50), 0, 0, 0),
            (Share::Count(2), 5, 2, 2),
            (Share::Count(9), 5, 5, 5),
            (Share::Count(0), 5, 1, 1),
            (percent(99), u64::MAX, 18_262_276_632_972_456_099, 18_262_276_632_972_456_098),
        ] {
            assert_eq!((share.at_least(total), share.at_most(total)), (least, most), "{share} of {total}");
        }
    }

    #[test]
    fn limits_are_not_rounded() {
        assert!(!Share::Percent(2).is_exceeded(2, 100) && Share::Percent(2).is_exceeded(2, 99));
        assert!(!Share::Count(2).is_exceeded(2, 2) && Share::Count(2).is_exceeded(3, 1000));
        assert!(!Share::NONE.is_exceeded(0, 0) && Share::Percent(0).is_exceeded(1, 1_000_000));
        assert!(!Share::ALL.is_exceeded(5, 5) && !Share::ALL.is_exceeded(0, 0));
        assert!(!Share::ALL.is_exceeded(u64::MAX, u64::MAX));
    }
}
