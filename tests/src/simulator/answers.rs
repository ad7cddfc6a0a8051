//! Answers as they come off the wire: the envelope is read, bundles are left where they are.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use titan_api::{
    Digest, Revision, SetDigest,
    reports::{DeploymentReport, Phase},
};
use uuid::Uuid;

use crate::simulator::fold::Envelope;

/// An answer of status 200, borrowed from its bytes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer<'a> {
    cursor: Revision,
    full: bool,
    digest: SetDigest,
    #[serde(borrow)]
    deployments: Vec<Entry<'a>>,
    tombstones: Vec<Mark>,
    /// When to ask again.
    pub poll_after_seconds: u32,
}

#[derive(Debug, Deserialize)]
struct Entry<'a> {
    id: Uuid,
    #[serde(borrow)]
    release: Cow<'a, str>,
    revision: Revision,
    digest: Digest,
    #[serde(borrow, default)]
    bundle: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
struct Mark {
    id: Uuid,
    revision: Revision,
}

impl<'a> Answer<'a> {
    /// Reads an answer.
    pub fn read(body: &'a [u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(body)
    }

    /// Returns what is folded.
    #[must_use]
    pub fn envelope(&self) -> Envelope {
        Envelope {
            cursor: self.cursor,
            full: self.full,
            digest: self.digest,
            present: self.deployments.iter().map(|entry| (entry.id, entry.revision)).collect(),
            absent: self.tombstones.iter().map(|mark| (mark.id, mark.revision)).collect(),
        }
    }

    /// Checks the bundles that travelled inside. Returns how many there were and the digests of those to be fetched.
    ///
    /// # Errors
    ///
    /// If the bytes of a bundle do not have its digest.
    pub fn verify(&self) -> Result<(usize, Vec<Digest>), String> {
        let (mut verified, mut missing) = (0, Vec::new());
        for entry in &self.deployments {
            match entry.bundle {
                Some(bundle) if Digest::of(bundle.get().as_bytes()) == entry.digest => verified += 1,
                Some(_) => return Err(format!("the bundle of {} does not have the digest {}", entry.id, entry.digest)),
                None => missing.push(entry.digest),
            }
        }
        Ok((verified, missing))
    }

    /// Returns what a host says after it has done all of this.
    #[must_use]
    pub fn done(&self) -> Vec<DeploymentReport> {
        let healthy = self.deployments.iter().map(|entry| DeploymentReport {
            release: entry.release.clone().into_owned(),
            digest: Some(entry.digest),
            healthy_since: Some(self.cursor),
            ..report(entry.id, entry.revision, Phase::Healthy)
        });
        healthy.chain(self.tombstones.iter().map(|mark| report(mark.id, mark.revision, Phase::Removed))).collect()
    }
}

/// Returns what a host says of one deployment, and no more than it must.
#[must_use]
pub fn report(id: Uuid, revision: Revision, phase: Phase) -> DeploymentReport {
    DeploymentReport {
        id,
        release: String::new(),
        revision,
        digest: None,
        phase,
        message: String::new(),
        healthy_since: None,
        commit: None,
        push: None,
        drift: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bundles_are_verified_byte_for_byte() {
        let bundle = r#"{"applier":"files","files":[]}"#;
        let answer = |digest: Digest| {
            let text = json!({
                "cursor": "2026-11-20T15:04:05.000001Z", "full": false, "digest": SetDigest::default(),
                "deployments": [{ "id": Uuid::nil(), "name": "a", "workspace": "default", "release": "a#1",
                    "revision": "2026-11-20T15:04:05.000000Z", "digest": digest, "bundle": "@" }],
                "tombstones": [], "pollAfterSeconds": 5,
            });
            text.to_string().replace("\"@\"", bundle)
        };
        let right = answer(Digest::of(bundle.as_bytes()));
        let read = Answer::read(right.as_bytes()).expect("an answer");
        assert_eq!(read.verify(), Ok((1, vec![])));
        assert_eq!(read.done()[0].release, "a#1");
        let wrong = answer(Digest::of(b"other"));
        assert!(Answer::read(wrong.as_bytes()).expect("an answer").verify().is_err());
        assert!(Answer::read(b"<html>").is_err());
    }
}
