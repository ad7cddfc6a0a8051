//! What comes out is what serde writes, whatever is told and however it is put together.

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    process::{Command, Stdio},
};

use flate2::read::GzDecoder;
use proptest::prelude::*;
use serde_json::value::RawValue;
use tempfile::TempDir;
use titan_api::{
    Digest, Name,
    deployments::{Dependency, OnRemove},
    limits::{INLINE_BUNDLE_BYTES, INLINE_TOTAL_BYTES},
    poll::{DesiredDeployment, PollAnswer, RemovalReason, Tombstone},
};

use super::*;
use crate::store::{Assignment, Description};

const HOST: Uuid = Uuid::from_u128(0x1234_5678_9abc_def0);

/// A control plane's part that answers are made of, and the bundles that it has.
struct World {
    answers: Answers,
    cache: BundleCache,
    store: Store,
    bundles: HashMap<Digest, Bytes>,
    _folder: TempDir,
}

impl World {
    async fn new() -> Self {
        let folder = TempDir::new().expect("a directory");
        let url = format!("sqlite://{}", folder.path().join("answers.db").display());
        let store = Store::open(&url).await.expect("a database");
        let (answers, cache) = (Answers::default(), BundleCache::default());
        Self { answers, cache, store, bundles: HashMap::new(), _folder: folder }
    }

    /// Has a bundle in memory.
    fn put(&mut self, body: &str) -> Digest {
        let (digest, body) = (Digest::of(body.as_bytes()), Bytes::from(body.to_owned()));
        self.cache.put(digest, body.clone());
        self.bundles.insert(digest, body);
        digest
    }

    /// Returns the plain answer, once it has been compared with serde and with the compressed one.
    async fn told(&self, entries: &[Entry], full: bool, poll_after_seconds: u32) -> (Vec<u8>, Body) {
        let (cursor, digest) =
            (Revision::from_micros(1_800_000_000_123_456), SetDigest::default().with(HOST, Revision::ZERO));
        let told = Told { host: HOST, cursor, full, digest, entries, poll_after_seconds };
        let body = async |gzip| self.answers.body(&self.cache, &self.store, &told, gzip).await.expect("an answer");
        let plain = body(false).await;
        assert!(!plain.gzip);
        assert_eq!(text(&plain.bytes), text(&self.serialised(&told)));
        let member = body(true).await;
        if member.gzip {
            assert_eq!(text(&unpacked(&member.bytes)), text(&plain.bytes));
            assert!(plain.bytes.len() >= 512, "{} bytes", plain.bytes.len());
        } else {
            assert_eq!(member, plain);
        }
        (plain.bytes.into(), member)
    }

    /// Returns the answer as serde writes it.
    fn serialised(&self, told: &Told<'_>) -> Vec<u8> {
        let (mut deployments, mut tombstones, mut inline) = (Vec::new(), Vec::new(), 0);
        for entry in told.entries {
            let Description { name, workspace, release, depends_on, on_remove, reason, .. } = &*entry.description;
            let (id, revision, name, workspace) =
                (entry.id(told.host), entry.revision, name.clone(), workspace.clone());
            let Some(digest) = entry.bundle() else {
                let reason = reason.unwrap_or(RemovalReason::Unmatched);
                let (deleted_at, on_remove) = (revision, *on_remove);
                tombstones.push(Tombstone { id, name, workspace, revision, deleted_at, reason, on_remove });
                continue;
            };
            let body = self.bundles.get(&digest).filter(|body| body.len() <= INLINE_BUNDLE_BYTES);
            let body = body.filter(|body| inline + body.len() <= INLINE_TOTAL_BYTES);
            inline += body.map_or(0, Bytes::len);
            deployments.push(DesiredDeployment {
                id,
                name,
                workspace,
                release: release.clone(),
                revision,
                digest,
                depends_on: depends_on.clone(),
                on_remove: *on_remove,
                bundle: body.map(|body| serde_json::from_slice::<Box<RawValue>>(body).expect("JSON")),
            });
        }
        let Told { cursor, full, digest, poll_after_seconds, .. } = *told;
        let answer = PollAnswer { cursor, full, digest, deployments, tombstones, poll_after_seconds };
        serde_json::to_vec(&answer).expect("it can be written")
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

/// Returns what is in a member with nothing after it.
fn unpacked(member: &[u8]) -> Vec<u8> {
    let mut reader = GzDecoder::new(member);
    let mut plain = Vec::new();
    reader.read_to_end(&mut plain).expect("a member with the right checksum and length");
    assert!(reader.into_inner().is_empty());
    plain
}

fn description(name: &str) -> Description {
    Description {
        deployment: Uuid::from_u128(7),
        workspace: Name::new("default").expect("a name"),
        name: Name::new(name).expect("a name"),
        release: format!("{name}#1"),
        depends_on: Vec::new(),
        on_remove: OnRemove::Delete,
        reason: None,
    }
}

fn entry(description: Description, micros: i64, bundle: Option<Digest>) -> Entry {
    let (deployment, revision) = (description.deployment, Revision::from_micros(micros));
    Entry::from(Assignment { deployment, host: HOST, description: Arc::new(description), revision, bundle })
}

/// A bundle of one file that compresses well.
fn lines(count: usize) -> String {
    let content: String = (0..count).map(|line| format!("setting-{line} = {}\\n", line * 7919 % 1000)).collect();
    format!(r#"{{"applier":"files","files":[{{"path":"settings.conf","mode":"0644","content":"{content}"}}]}}"#)
}

/// A bundle of `bytes` bytes that compresses as badly as text can.
fn noise(bytes: usize) -> String {
    let mut state = 1_u64;
    let random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"[(state >> 58) as usize])
    };
    format!("\"{}\"", std::iter::repeat_with(random).take(bytes - 2).collect::<String>())
}

fn descriptions() -> impl Strategy<Value = Description> {
    let name = || "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?".prop_map(|text| Name::new(text).expect("a name"));
    let reasons = [
        RemovalReason::DeploymentDeleted,
        RemovalReason::HostDeleted,
        RemovalReason::Unmatched,
        RemovalReason::AccessWithdrawn,
        RemovalReason::ReplicaMoved,
        RemovalReason::Pruned,
    ];
    (
        any::<u128>(),
        name(),
        name(),
        any::<String>(),
        prop::collection::vec(name().prop_map(Dependency::from), 0..3),
        prop::sample::select(vec![OnRemove::Delete, OnRemove::Orphan]),
        prop::option::of(prop::sample::select(reasons.to_vec())),
    )
        .prop_map(|(deployment, workspace, name, release, depends_on, on_remove, reason)| Description {
            deployment: Uuid::from_u128(deployment),
            workspace,
            name,
            release,
            depends_on,
            on_remove,
            reason,
        })
}

/// A bundle's text and whether the store has it; no text for a tombstone.
fn bundles() -> impl Strategy<Value = Option<(String, bool)>> {
    let json = |text: String| serde_json::to_string(&text).expect("a text");
    let text = prop_oneof![
        4 => any::<String>().prop_map(json),
        4 => "\\PC{0,2000}".prop_map(json),
        2 => (1..4000_usize).prop_map(lines),
        1 => (3..70_000_usize).prop_map(noise),
        1 => any::<String>().prop_map(move |text| format!(" \n{} \t", json(text))),
        1 => (INLINE_BUNDLE_BYTES - 1..=INLINE_BUNDLE_BYTES + 1).prop_map(noise),
    ];
    prop::option::weighted(0.8, (text, prop::bool::weighted(0.9)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn answer_is_what_serde_writes_and_unpacks_to_the_same(
        told in prop::collection::vec((descriptions(), 0..i64::MAX / 1000, bundles()), 0..6),
        full: bool,
        poll_after in any::<u32>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut world = World::new().await;
            let entries: Vec<_> = told
                .into_iter()
                .map(|(description, micros, bundle)| {
                    let bundle = bundle.map(|(text, there)| match there {
                        true => world.put(&text),
                        false => Digest::of(text.as_bytes()),
                    });
                    entry(description, micros, bundle)
                })
                .collect();
            world.told(&entries, full, poll_after).await;
            // From what was kept by now.
            world.told(&entries, !full, poll_after / 10).await;
        });
    }
}

#[tokio::test]
async fn answer_of_one_small_bundle_is_compressed_well_and_its_room_is_exact() {
    let mut world = World::new().await;
    let digest = world.put(&lines(200));
    let (plain, member) = world.told(&[entry(description("web"), 5, Some(digest))], false, 1).await;
    assert!(member.gzip && member.bytes.len() < plain.len() / 2, "{} of {}", member.bytes.len(), plain.len());
    let entries = [entry(description("web"), 5, Some(digest)), entry(description("gone"), 6, None)];
    let mut parts = vec![Part::new(&entries[0], HOST), Part::new(&entries[1], HOST)];
    let cursor = Revision::ZERO;
    let told = Told {
        host: HOST,
        cursor,
        full: true,
        digest: SetDigest::default(),
        entries: &entries,
        poll_after_seconds: 30,
    };
    for packed in [false, true] {
        let got = world.answers.0.get(&world.cache, &world.store, &entries[0].description, digest, packed).await;
        (parts[0].fragment, parts[0].inline) = (Some(got.expect("a fragment")), true);
        let mut size = gzip::Size::default();
        texts::write(&mut size, &told, &parts);
        let mut member = gzip::Member::with_capacity(size.member());
        texts::write(&mut member, &told, &parts);
        assert_eq!(member.finish().len(), size.member());
        if !packed {
            let mut plain = Vec::new();
            texts::write(&mut plain, &told, &parts);
            assert_eq!(plain.len(), size.plain());
        }
    }
}

#[tokio::test]
async fn small_answer_and_one_without_bundles_stay_plain() {
    let mut world = World::new().await;
    let small = world.put("{}");
    let (plain, member) = world.told(&[entry(description("web"), 5, Some(small))], false, 1).await;
    assert!(!member.gzip && plain.len() < 512);
    let tombstones: Vec<_> = (0..1000).map(|number| entry(description("web"), number, None)).collect();
    assert!(!world.told(&tombstones, false, 1).await.1.gzip);
}

#[tokio::test]
async fn text_of_more_than_one_block_is_stored_in_several() {
    let mut world = World::new().await;
    let digest = world.put(&lines(100));
    for tombstones in [1000, 314 * 4] {
        let mut entries: Vec<_> = (0..tombstones).map(|number| entry(description("web"), number, None)).collect();
        entries.push(entry(description("web"), 5, Some(digest)));
        let (plain, member) = world.told(&entries, false, 1).await;
        assert!(member.gzip && plain.len() > 2 * 0xffff);
    }
}

#[tokio::test]
async fn bundles_over_the_limits_are_told_by_digest_alone() {
    let mut world = World::new().await;
    let inside = |plain: &[u8]| text(plain).matches(r#","bundle":"#).count();
    for (bytes, travels) in [(INLINE_BUNDLE_BYTES, 1), (INLINE_BUNDLE_BYTES + 1, 0)] {
        let digest = world.put(&noise(bytes));
        let (plain, _) = world.told(&[entry(description("web"), 5, Some(digest))], false, 1).await;
        assert_eq!(inside(&plain), travels);
    }
    let (large, small) = (world.put(&noise(INLINE_BUNDLE_BYTES)), world.put(&lines(10)));
    let mut entries: Vec<_> = (0..70).map(|number| entry(description("web"), number, Some(large))).collect();
    let (plain, _) = world.told(&entries, true, 1).await;
    assert_eq!(inside(&plain), INLINE_TOTAL_BYTES / INLINE_BUNDLE_BYTES);
    assert!(plain.len() < INLINE_TOTAL_BYTES + entries.len() * 400, "{}", plain.len());
    entries.insert(30, entry(description("small"), 5, Some(small)));
    let (plain, _) = world.told(&entries, true, 1).await;
    assert_eq!(inside(&plain), INLINE_TOTAL_BYTES / INLINE_BUNDLE_BYTES, "one large one less");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn herd_reads_and_compresses_a_bundle_once_and_a_later_host_not_at_all() {
    let world = Arc::new(World::new().await);
    let body = lines(500);
    let digest = Digest::of(body.as_bytes());
    let mut tx = world.store.write("test").await.expect("a transaction");
    tx.put_bundle(&digest, body.as_bytes(), Revision::ZERO).await.expect("written");
    tx.commit().await.expect("committed");
    let entries = Arc::new([entry(description("web"), 5, Some(digest))]);
    let ask = async |world: Arc<World>, entries: Arc<[Entry; 1]>, host: u128| {
        let (cursor, digest) = (Revision::ZERO, SetDigest::default());
        let host = Uuid::from_u128(host);
        let told = Told { host, cursor, full: false, digest, entries: &*entries, poll_after_seconds: 1 };
        world.answers.body(&world.cache, &world.store, &told, true).await.expect("an answer")
    };
    let herd: Vec<_> = (0..500).map(|host| tokio::spawn(ask(Arc::clone(&world), Arc::clone(&entries), host))).collect();
    for one in herd {
        assert!(one.await.expect("it ends").gzip);
    }
    assert_eq!(world.answers.made(), 1);
    // Now the store could not answer any more.
    world.store.clone().close().await;
    assert!(ask(Arc::clone(&world), entries, 500).await.gzip);
    assert_eq!(world.answers.made(), 1);
}

#[tokio::test]
async fn bundle_that_is_not_json_is_a_problem_and_is_not_kept() {
    let mut world = World::new().await;
    let digest = world.put("{\"applier\":");
    let entries = [entry(description("web"), 5, Some(digest))];
    let (cursor, set) = (Revision::ZERO, SetDigest::default());
    let told = Told { host: HOST, cursor, full: false, digest: set, entries: &entries, poll_after_seconds: 1 };
    for gzip in [true, false] {
        let answer = world.answers.body(&world.cache, &world.store, &told, gzip).await;
        assert_eq!(answer.expect_err("not JSON").code, titan_api::Code::Internal);
    }
    assert_eq!(world.answers.made(), 0);
}

/// zlib itself reads it, not only the library that it was made with.
#[tokio::test]
async fn zlib_reads_the_member() {
    let mut world = World::new().await;
    let digests = [world.put(&lines(500)), world.put(&noise(3000)), world.put(&lines(30))];
    let told = digests.map(|digest| entry(description("web"), 5, Some(digest)));
    let (plain, member) = world.told(&told, false, 1).await;
    assert!(member.gzip);
    let script = "import sys, zlib; d = zlib.decompressobj(31); \
         sys.stdout.buffer.write(d.decompress(sys.stdin.buffer.read()) + d.flush()); assert d.eof and not d.unused_data";
    let python = Command::new("python3").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut python) = python else { return };
    python.stdin.take().expect("its input").write_all(&member.bytes).expect("written");
    let output = python.wait_with_output().expect("it ends");
    assert!(output.status.success());
    assert_eq!(text(&output.stdout), text(&plain));
}
