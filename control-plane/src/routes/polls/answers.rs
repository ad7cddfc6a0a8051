//! Answers with something in them, put together from bytes that hosts share.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use titan_api::{
    Problem, Revision, SetDigest, limits,
    poll::{DesiredDeployment, PollAnswer, Tombstone},
};

use super::gzip::Gzip;
use crate::{
    bundles::Kept,
    connections::places::{Lent, Place},
    fleet::{
        polls::{self, Answer as News},
        view::HostSet,
    },
    load,
    metrics::PollKind,
    state::AppState,
    store::Assignment,
};

/// Bytes of bundles that travel inside one answer; what is over is fetched by digest.
const INLINE_TOTAL: usize = 4 * 1024 * 1024;
/// Smaller answers are not worth compressing.
const COMPRESSED: usize = 512;
/// An answer up to this many bytes fits into what the system keeps for a connection: it gives its place away before it
/// is read.
const BUFFERED: usize = 64 * 1024;

/// What a host that asked is told of its set.
#[derive(Debug)]
pub(super) struct Moved {
    digest: SetDigest,
    cursor: Revision,
    full: bool,
    told: Vec<Arc<Assignment>>,
}

impl Moved {
    /// Decides what to tell a host; `None` if nothing moved.
    pub(super) fn of(
        set: &HostSet,
        cursor: Revision,
        since: Option<Revision>,
        have: Option<SetDigest>,
    ) -> Option<Self> {
        let (told, full) = match polls::answer(set, since, have) {
            News::Unchanged => return None,
            News::Delta(moved) => (moved, false),
            News::Full(all) => (all, true),
        };
        Some(Self { digest: set.digest(), cursor, full, told })
    }
}

/// An answer with something in it.
#[derive(Debug)]
pub struct Changed {
    /// The body, a [`PollAnswer`] as JSON.
    pub body: Bytes,
    /// Whether it is compressed.
    pub gzip: bool,
    /// Its place among the answers that are given at a time, until it is dropped.
    pub place: Option<Place>,
}

impl Changed {
    /// Puts an answer together once there is a place for it.
    pub(super) async fn of(state: &AppState, moved: Moved, gzip: bool) -> Result<Self, Problem> {
        let place = state.places.take(&state.metrics.connections).await?;
        state.metrics.polls.count(if moved.full { PollKind::Full } else { PollKind::Delta });
        let (deployments, tombstones) = polls::split(&moved.told);
        let mut inline = 0;
        let mut bundles = Vec::with_capacity(deployments.len());
        for deployment in &deployments {
            let bundle = state.bundles.kept(&state.store, &deployment.digest).await?;
            if bundle.is_none() {
                // Only this deployment waits: the host asks for the bundle by itself and says that it is missing.
                tracing::error!(bundle.digest = %deployment.digest, deployment.name = %deployment.name, "a bundle is gone");
            }
            bundles.push(bundle.filter(|bundle| {
                let length = bundle.body().len();
                let fits = length <= limits::INLINE_BUNDLE_BYTES && inline + length <= INLINE_TOTAL;
                inline += if fits { length } else { 0 };
                fits
            }));
        }
        let rest = PollAnswer {
            cursor: moved.cursor,
            full: moved.full,
            digest: moved.digest,
            deployments: Vec::new(),
            tombstones,
            poll_after_seconds: load::poll_after(state, true),
        };
        let gzip = gzip && (inline > COMPRESSED || deployments.len() + rest.tombstones.len() > 1);
        let body = if gzip {
            let mut stream = Gzip::new();
            let mut text = Vec::with_capacity(1024);
            write(&rest, &deployments, &bundles, &mut text, |text, bundle| {
                stream.add(text);
                text.clear();
                stream.add_packed(bundle.body(), bundle.packed());
            })?;
            stream.add(&text);
            stream.end()
        } else {
            let mut text = Vec::with_capacity(inline + 512 * (deployments.len() + 1));
            write(&rest, &deployments, &bundles, &mut text, |text, bundle| text.extend_from_slice(bundle.body()))?;
            text
        };
        let place = (body.len() > BUFFERED).then_some(place);
        Ok(Self { body: body.into(), gzip, place })
    }
}

/// A body that holds its place until it is sent.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) body: Option<Bytes>,
    pub(super) _place: Lent,
}

impl http_body::Body for Placed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.body.take().map(|body| Ok(http_body::Frame::data(body))))
    }

    fn is_end_stream(&self) -> bool {
        // Not before it was asked for its end: until then it is not sent.
        false
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.body.as_ref().map_or(0, Bytes::len) as u64)
    }
}

/// Writes an answer as JSON; `put` puts a bundle's bytes behind the text before it.
fn write(
    rest: &PollAnswer,
    deployments: &[DesiredDeployment],
    bundles: &[Option<Arc<Kept>>],
    text: &mut Vec<u8>,
    mut put: impl FnMut(&mut Vec<u8>, &Kept),
) -> Result<(), Problem> {
    text.extend_from_slice(b"{\"cursor\":\"");
    text.extend_from_slice(&rest.cursor.text());
    text.extend_from_slice(if rest.full { b"\",\"full\":true,\"digest\":" } else { b"\",\"full\":false,\"digest\":" });
    json(text, &rest.digest)?;
    text.extend_from_slice(b",\"deployments\":[");
    for (index, deployment) in deployments.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        json(text, deployment)?;
        if let Some(Some(bundle)) = bundles.get(index) {
            // In front of the end of the object.
            text.pop();
            text.extend_from_slice(b",\"bundle\":");
            put(text, bundle);
            text.push(b'}');
        }
    }
    text.extend_from_slice(b"],\"tombstones\":");
    json::<[Tombstone]>(text, &rest.tombstones)?;
    text.extend_from_slice(b",\"pollAfterSeconds\":");
    json(text, &rest.poll_after_seconds)?;
    text.push(b'}');
    Ok(())
}

fn json<T: serde::Serialize + ?Sized>(text: &mut Vec<u8>, value: &T) -> Result<(), Problem> {
    serde_json::to_writer(text, value)
        .map_err(|error| Problem::new(titan_api::Code::Internal, format!("an answer cannot be written: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;
    use titan_api::{Digest, deployments::OnRemove, poll::RemovalReason};
    use uuid::Uuid;

    use super::*;
    use crate::bundles::BundleCache;

    #[test]
    fn what_is_put_together_is_what_would_be_serialised() {
        let name = |text: &str| text.parse().expect("a name");
        let deployment = |number: u128| DesiredDeployment {
            id: Uuid::from_u128(number),
            name: name("web"),
            workspace: name("default"),
            release: format!("web#{number}"),
            revision: Revision::from_micros(5),
            digest: Digest::of(b"x"),
            depends_on: vec![name("db")],
            on_remove: OnRemove::default(),
            bundle: None,
        };
        let bundle = r#"{"applier":"files","files":[]}"#;
        let cache = BundleCache::default();
        cache.put(Digest::of(b"x"), bundle.into());
        for (full, count) in [(true, 0), (false, 1), (true, 3)] {
            let mut answer = PollAnswer {
                cursor: Revision::from_micros(1_700_000_000_000_000),
                full,
                digest: SetDigest::default(),
                deployments: (0..count).map(deployment).collect(),
                tombstones: vec![Tombstone {
                    id: Uuid::from_u128(9),
                    name: name("old"),
                    workspace: name("default"),
                    revision: Revision::from_micros(4),
                    deleted_at: Revision::from_micros(4),
                    reason: RemovalReason::Unmatched,
                    on_remove: OnRemove::default(),
                }],
                poll_after_seconds: 7,
            };
            let kept = cache.known(&Digest::of(b"x"));
            let bundles: Vec<_> = (0..count).map(|number| kept.clone().filter(|_| number != 1)).collect();
            let mut text = Vec::new();
            write(&answer, &answer.deployments, &bundles, &mut text, |text, kept| text.extend_from_slice(kept.body()))
                .expect("written");
            for (deployment, bundle_of) in answer.deployments.iter_mut().zip(&bundles) {
                deployment.bundle = bundle_of.as_ref().map(|_| RawValue::from_string(bundle.to_owned()).expect("json"));
            }
            assert_eq!(String::from_utf8(text).expect("text"), serde_json::to_string(&answer).expect("json"));
        }
    }
}
