//! Answers to polls, put together from shared bytes: nothing is serialised twice, nothing is compressed twice.
//!
//! What hosts are told of a release is the same on all of them but for an id and a revision. It is made once, a
//! [fragment](fragments), and copied into each answer; for whoever takes gzip it is deflated once, and the answer is one
//! [member](gzip) of deflated fragments with each host's own text stored between them. What comes out is byte for byte
//! what [`PollAnswer`](titan_api::poll::PollAnswer) serialises to. This knows nothing of HTTP but [what a caller
//! takes](takes_gzip).

mod encodings;
mod fragments;
mod gzip;
#[cfg(test)]
mod tests;
mod texts;

use std::sync::Arc;

use bytes::Bytes;
use titan_api::{Problem, Revision, SetDigest, limits::INLINE_TOTAL_BYTES};
use uuid::{Uuid, fmt::Hyphenated};

use crate::{bundles::BundleCache, fleet::view::Entry, store::Store};
use fragments::{Fragment, Fragments};

pub use encodings::takes_gzip;

/// What one host is told.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// The host.
    pub host: Uuid,
    /// From where it asks next.
    pub cursor: Revision,
    /// Whether `entries` are all that it has.
    pub full: bool,
    /// Of its complete set at the cursor.
    pub digest: SetDigest,
    /// What moved.
    pub entries: &'a [Entry],
    /// When it asks again.
    pub poll_after_seconds: u32,
}

/// The body of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// The bytes.
    pub bytes: Bytes,
    /// Whether they are compressed; small answers and those that would not shrink never are.
    pub gzip: bool,
}

/// Puts answers together, and keeps what is the same in many of them. Bounded in bytes.
#[derive(Debug, Default)]
pub struct Answers(Fragments);

/// What is said of one entry.
struct Part<'a> {
    entry: &'a Entry,
    id: [u8; Hyphenated::LENGTH],
    revision: [u8; texts::REVISION],
    /// A tombstone has none.
    fragment: Option<Arc<Fragment>>,
    /// Whether the bundle travels inside.
    inline: bool,
}

impl Answers {
    /// Returns the body that tells a host this; compressed only if `gzip`.
    ///
    /// A bundle that is neither in memory nor in the store is left out and logged: the host asks for it by itself. Fails
    /// if the store does, or has something for a bundle that is not JSON.
    pub async fn body(
        &self,
        bundles: &BundleCache,
        store: &Store,
        told: &Told<'_>,
        gzip: bool,
    ) -> Result<Body, Problem> {
        let mut parts = Vec::with_capacity(told.entries.len());
        let mut inlined = 0;
        for entry in told.entries {
            let mut part = Part::new(entry, told.host);
            if let Some(digest) = entry.bundle() {
                let fragment = self.0.get(bundles, store, &entry.description, digest, gzip).await?;
                if let Some(bytes) = fragment.inline_bytes()
                    && inlined + bytes <= INLINE_TOTAL_BYTES
                {
                    inlined += bytes;
                    part.inline = true;
                }
                part.fragment = Some(fragment);
            }
            parts.push(part);
        }
        let mut size = gzip::Size::default();
        texts::write(&mut size, told, &parts);
        if size.has_packed() {
            let mut member = gzip::Member::with_capacity(size.member());
            texts::write(&mut member, told, &parts);
            return Ok(Body { bytes: member.finish().into(), gzip: true });
        }
        let mut plain = Vec::with_capacity(size.plain());
        texts::write(&mut plain, told, &parts);
        Ok(Body { bytes: plain.into(), gzip: false })
    }

    /// Returns how many fragments were made so far: one for each release and bundle as long as they are kept.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.0.made()
    }
}

impl<'a> Part<'a> {
    fn new(entry: &'a Entry, host: Uuid) -> Self {
        let mut id = [0; Hyphenated::LENGTH];
        entry.id(host).hyphenated().encode_lower(&mut id);
        Self { entry, id, revision: entry.revision.text(), fragment: None, inline: false }
    }
}
