//! Bodies of answers per second: put together from shared bytes, beside a copy of the same bytes and beside serialising,
//! or serialising and compressing, each by itself.

use std::{
    hint::black_box,
    io::{Read as _, Write as _},
    sync::Arc,
    time::Instant,
};

use anyhow::ensure;
use bytes::Bytes;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde_json::{json, value::RawValue};
use tempfile::TempDir;
use titan_api::{
    Digest, Name, Revision, SetDigest,
    deployments::OnRemove,
    poll::{DesiredDeployment, PollAnswer},
};
use titan_control_plane::{
    answers::{Answers, Told},
    bundles::BundleCache,
    fleet::view::Entry,
    store::{Assignment, Description, Store},
};
use titan_tests::measures::{Figure, Samples};
use uuid::Uuid;

use crate::options::Options;

/// Bytes of the bundle, about.
const BUNDLE: usize = 4096;
/// Answers of one round.
const ANSWERS: usize = 100_000;

/// One release that every host is told of.
struct Release {
    description: Arc<Description>,
    digest: Digest,
    bundle: Bytes,
    revision: Revision,
}

/// Bodies per second on one thread, plain and compressed.
pub(crate) async fn speed(options: &Options) -> anyhow::Result<Vec<Figure>> {
    let (count, rounds) = options.pick((ANSWERS, 7), (1000, 1));
    let folder = TempDir::with_prefix("titan-bench-bodies-")?;
    let store = Store::open(&format!("sqlite://{}", folder.path().join("bodies.db").display())).await?;
    let (answers, bundles, release) = (Answers::default(), BundleCache::default(), release()?);
    bundles.put(release.digest, release.bundle.clone());
    let mut figures = Vec::new();
    for gzip in [false, true] {
        let body = async |host| {
            let entries = [release.entry(host)];
            let body = answers.body(&bundles, &store, &release.told(host, &entries), gzip).await;
            body.map(|body| body.bytes).map_err(|problem| anyhow::anyhow!("{}", problem.detail))
        };
        let sample = body(0).await?;
        ensure!(unpacked(&sample, gzip)? == release.serialised(0, false)?, "the two sides have different answers");
        let [mut shared, mut copied, mut each]: [Samples; 3] = Default::default();
        for _ in 0..rounds {
            let begun = Instant::now();
            for host in 0..count {
                black_box(body(host).await?);
            }
            shared.push(per_second(count, begun));
            let begun = Instant::now();
            for _ in 0..count {
                black_box(Bytes::copy_from_slice(black_box(&sample)));
            }
            copied.push(per_second(count, begun));
            // Slow enough to be clear from fewer.
            let few = count.div_ceil(10);
            let begun = Instant::now();
            for host in 0..few {
                black_box(release.serialised(host, gzip)?);
            }
            each.push(per_second(few, begun));
        }
        let (name, alone) =
            if gzip { ("gzip", "serialised and compressed each time") } else { ("plain", "serialised each time") };
        let note = format!("{rounds} rounds of {count}, {} bytes, 1 thread", sample.len());
        let name = format!("assembled answers, {name}");
        figures.push(
            Figure::new(&name, shared.median(), "1/s").beside("copies of the same bytes", copied.median()).note(note),
        );
        figures.push(Figure::new(name, shared.median(), "1/s").beside(alone, each.median()));
    }
    Ok(figures)
}

fn per_second(count: usize, begun: Instant) -> f64 {
    count as f64 / begun.elapsed().as_secs_f64()
}

fn release() -> anyhow::Result<Release> {
    let settings = |number: usize| format!("setting-{number} = \"{}\"\n", number * 7919 % 10_007);
    let mut content = String::new();
    for number in 0.. {
        if content.len() >= BUNDLE {
            break;
        }
        content.push_str(&settings(number));
    }
    let bundle =
        json!({ "applier": "files", "files": [{ "path": "settings.conf", "mode": "0644", "content": content }] });
    let bundle = Bytes::from(serde_json::to_vec(&bundle)?);
    let description = Description {
        deployment: Uuid::from_u128(1),
        workspace: Name::new("default")?,
        name: Name::new("service")?,
        release: "service#7".to_owned(),
        depends_on: Vec::new(),
        on_remove: OnRemove::Delete,
        reason: None,
    };
    let revision = Revision::from_micros(1_800_000_000_123_456);
    Ok(Release { description: Arc::new(description), digest: Digest::of(&bundle), bundle, revision })
}

impl Release {
    fn entry(&self, host: usize) -> Entry {
        Entry::from(Assignment {
            deployment: self.description.deployment,
            host: Uuid::from_u128(host as u128),
            description: Arc::clone(&self.description),
            revision: self.revision,
            bundle: Some(self.digest),
        })
    }

    fn told<'a>(&self, host: usize, entries: &'a [Entry]) -> Told<'a> {
        Told {
            host: Uuid::from_u128(host as u128),
            cursor: self.revision.next(),
            full: false,
            digest: SetDigest::default(),
            entries,
            poll_after_seconds: 1,
        }
    }

    /// Returns the body made by itself: the bundle parsed, the answer serialised and, if `gzip`, compressed.
    fn serialised(&self, host: usize, gzip: bool) -> anyhow::Result<Vec<u8>> {
        let description = &self.description;
        let bundle: Box<RawValue> = serde_json::from_slice(&self.bundle)?;
        let deployment = DesiredDeployment {
            id: self.entry(host).id(Uuid::from_u128(host as u128)),
            name: description.name.clone(),
            workspace: description.workspace.clone(),
            release: description.release.clone(),
            revision: self.revision,
            digest: self.digest,
            depends_on: description.depends_on.clone(),
            on_remove: description.on_remove,
            bundle: Some(bundle),
        };
        let answer = PollAnswer {
            cursor: self.revision.next(),
            full: false,
            digest: SetDigest::default(),
            deployments: vec![deployment],
            tombstones: Vec::new(),
            poll_after_seconds: 1,
        };
        let plain = serde_json::to_vec(&answer)?;
        if !gzip {
            return Ok(plain);
        }
        let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len()), Compression::default());
        encoder.write_all(&plain)?;
        Ok(encoder.finish()?)
    }
}

fn unpacked(body: &[u8], gzip: bool) -> anyhow::Result<Vec<u8>> {
    let mut plain = Vec::new();
    if gzip {
        GzDecoder::new(body).read_to_end(&mut plain)?;
    } else {
        plain.extend_from_slice(body);
    }
    Ok(plain)
}
