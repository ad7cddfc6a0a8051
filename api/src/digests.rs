//! Digests: of one bundle's bytes, and of a host's complete set of assignments.

use std::{fmt, io, num::NonZeroU8, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::Revision;

/// SHA-256 of some bytes, written as 64 hexadecimal digits. A bundle's digest is over its exact bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^[0-9a-f]{64}$"))]
pub struct Digest([u8; 32]);

/// Digest of the set of present assignments of a host (section 5 of the protocol), as 32 hexadecimal digits.
///
/// The sum modulo 2^128 of the first 16 bytes, big-endian, of SHA-256(`<assignment id> <revision>`): it does not
/// depend on order and is brought up to date in constant time as assignments come and go.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^[0-9a-f]{32}$"))]
pub struct SetDigest(u128);

/// Bytes of an assignment's id as text.
const ID_TEXT: usize = uuid::fmt::Hyphenated::LENGTH;
/// Bytes of a revision as text.
const REVISION_TEXT: usize = 27;

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a digest of {1} hexadecimal digits")]
pub struct DigestError(String, usize);

impl Digest {
    /// Returns the digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Returns the digest of all that is left to read of `from`, which is not kept.
    ///
    /// # Errors
    ///
    /// `from` cannot be read.
    pub fn read(from: &mut impl io::Read) -> io::Result<Self> {
        let (mut hash, mut chunk) = (Sha256::new(), [0; 8192]);
        loop {
            match from.read(&mut chunk) {
                Ok(0) => return Ok(Self(hash.finalize().into())),
                Ok(count) => hash.update(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the digest whose 32 bytes these are, or `None` if there are not 32.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Returns the 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the 64 digits.
    #[must_use]
    pub fn text(&self) -> [u8; 64] {
        digits(&self.0)
    }

    /// Returns the first 12 digits, enough for a person.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl SetDigest {
    /// Returns the 32 digits.
    #[must_use]
    pub fn text(self) -> [u8; 32] {
        digits(&self.0.to_be_bytes())
    }

    /// Returns the digest with one present assignment more.
    #[must_use]
    pub fn with(self, assignment: Uuid, revision: Revision) -> Self {
        Self(self.0.wrapping_add(element(assignment, revision)))
    }

    /// Returns the digest with one present assignment less.
    #[must_use]
    pub fn without(self, assignment: Uuid, revision: Revision) -> Self {
        Self(self.0.wrapping_sub(element(assignment, revision)))
    }

    /// Returns the digest of a whole set.
    pub fn of(assignments: impl IntoIterator<Item = (Uuid, Revision)>) -> Self {
        assignments.into_iter().fold(Self::default(), |digest, (id, revision)| digest.with(id, revision))
    }
}

/// The beginning of a [`SetDigest`], as a poll names the set that a host holds: 8 to 32 of its digits, of which the first 16
/// count. A poll is sent too often for all of them, and a set that differs begins alike in 8 digits once in 2^32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SetDigestStart {
    start: u64,
    digits: NonZeroU8,
}

impl SetDigestStart {
    /// Digits that are counted at most.
    const MOST: u8 = 16;

    /// Returns the first 8 digits, as an agent sends them.
    #[must_use]
    pub fn text(digest: SetDigest) -> String {
        digest.to_string()[..8].to_owned()
    }

    /// Whether `digest` begins like this.
    #[must_use]
    pub fn fits(self, digest: SetDigest) -> bool {
        let start = (digest.0 >> 64) as u64;
        start >> (4 * (Self::MOST - self.digits.get())) == self.start
    }
}

impl FromStr for SetDigestStart {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let hexadecimal = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let read = || {
            let counted = text.get(..text.len().min(Self::MOST.into()))?;
            let digits = NonZeroU8::new(u8::try_from(counted.len()).ok()?)?;
            Some(Self { start: u64::from_str_radix(counted, 16).ok()?, digits })
        };
        let read = if hexadecimal && (8..=32).contains(&text.len()) { read() } else { None };
        read.ok_or_else(|| DigestError(text.to_owned(), 32))
    }
}

impl TryFrom<String> for SetDigestStart {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

fn element(assignment: Uuid, revision: Revision) -> u128 {
    // Written in place: a control plane that starts does this for every assignment.
    let mut text = [b' '; ID_TEXT + 1 + REVISION_TEXT];
    assignment.hyphenated().encode_lower(&mut text[..ID_TEXT]);
    text[ID_TEXT + 1..].copy_from_slice(&revision.text());
    let hash = Sha256::digest(text);
    hash.first_chunk().copied().map_or(0, u128::from_be_bytes)
}

/// Returns bytes as hexadecimal digits; `N` is twice their number.
fn digits<const N: usize>(bytes: &[u8]) -> [u8; N] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'0'; N];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

macro_rules! hex_text {
    ($type:ty, $digits:literal, $read:expr) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(std::str::from_utf8(&self.text()).unwrap_or_default())
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $type {
            type Err = DigestError;

            fn from_str(text: &str) -> Result<Self, DigestError> {
                let hexadecimal = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
                let read: fn(&str) -> Option<$type> = $read;
                if text.len() == $digits && hexadecimal { read(text) } else { None }
                    .ok_or_else(|| DigestError(text.to_owned(), $digits))
            }
        }

        impl TryFrom<String> for $type {
            type Error = DigestError;

            fn try_from(text: String) -> Result<Self, DigestError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(digest: $type) -> Self {
                digest.to_string()
            }
        }
    };
}

hex_text!(Digest, 64, |text| {
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(0..32) {
        *byte = u8::from_str_radix(&text[pair * 2..pair * 2 + 2], 16).ok()?;
    }
    Some(Digest(bytes))
});
hex_text!(SetDigest, 32, |text| { u128::from_str_radix(text, 16).ok().map(SetDigest) });

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn digest_of_known_bytes() {
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(b"abc").to_string(), text);
        assert_eq!(text.parse(), Ok(Digest::of(b"abc")));
        assert_eq!(Digest::read(&mut &b"abc"[..]).expect("read"), Digest::of(b"abc"));
        assert!("BA".parse::<Digest>().is_err());
        assert!("é".repeat(32).parse::<Digest>().is_err());
    }

    #[test]
    fn set_digest_is_a_fixed_wire_format() {
        let id = Uuid::from_u128(7);
        let digest = SetDigest::default().with(id, Revision::from_micros(1_000_000));
        let hash = Digest::of(b"00000000-0000-0000-0000-000000000007 1970-01-01T00:00:01.000000Z");
        assert_eq!(digest.to_string(), hash.to_string()[..32]);
    }

    proptest! {
        #[test]
        fn the_beginning_of_a_set_digest_fits_it_and_none_that_begins_otherwise(of in any::<u128>(), other in any::<u128>(), digits in 8_usize..=32) {
            let (digest, other) = (SetDigest(of), SetDigest(other));
            let start: SetDigestStart = digest.to_string()[..digits].parse().expect("a beginning");
            prop_assert!(start.fits(digest));
            let counted = digits.min(16);
            prop_assert_eq!(start.fits(other), digest.to_string()[..counted] == other.to_string()[..counted]);
            prop_assert!(digest.to_string()[..7].parse::<SetDigestStart>().is_err());
            let sent: SetDigestStart = SetDigestStart::text(digest).parse().expect("as an agent sends it");
            let last = SetDigest(of ^ (1 << 96));
            prop_assert!(sent.fits(digest) && !sent.fits(last), "each of its digits counts");
        }

        #[test]
        fn set_digest_ignores_order_and_undoes(mut set in prop::collection::vec((any::<u128>(), 0..i64::MAX / 2), 0..20)) {
            let of = |set: &[(u128, i64)]| {
                SetDigest::of(set.iter().map(|(id, at)| (Uuid::from_u128(*id), Revision::from_micros(*at))))
            };
            let forward = of(&set);
            set.reverse();
            prop_assert_eq!(forward, of(&set));
            let emptied = set.iter().fold(forward, |digest, (id, at)| {
                digest.without(Uuid::from_u128(*id), Revision::from_micros(*at))
            });
            prop_assert_eq!(emptied, SetDigest::default());
            prop_assert_eq!(forward.to_string().parse(), Ok(forward));
        }
    }
}
