//! What is parsed bit by bit is what `serde_json` makes of it as a whole.

use std::{fs, io::Write as _};

use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;
use titan_api::limits::BUNDLE_FILES;

use super::*;

struct Cache {
    bundles: Bundles,
    _dir: TempDir,
}

impl Cache {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("dir");
        Self { bundles: Bundles::open(&StateDir::new(dir.path())).expect("open"), _dir: dir }
    }

    /// Puts bytes into the cache and gets what they are.
    fn read(&self, bytes: &[u8]) -> Result<Bundle, String> {
        let digest = Digest::of(bytes);
        self.bundles.put(&digest, bytes).expect("put");
        match self.bundles.get(&digest) {
            Ok(bundle) => Ok(bundle.expect("it is there")),
            Err(BundleError::Unreadable { message, .. }) => Err(message),
            Err(error) => panic!("{error}"),
        }
    }
}

fn compare(cache: &Cache, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let wanted: Result<poll::Bundle, String> = serde_json::from_slice(bytes).map_err(|error| error.to_string());
    let wanted: Result<Bundle, String> = wanted.and_then(TryInto::try_into);
    match (cache.read(bytes), wanted) {
        (Ok(found), Ok(wanted)) => {
            assert_eq!(found.files.len(), wanted.files.len(), "{text}");
            let beside = |bundle: &Bundle| format!("{:?}", Bundle { files: Vec::new(), ..bundle.clone() });
            assert_eq!(beside(&found), beside(&wanted), "{text}");
            for (found, wanted) in found.files.iter().zip(&wanted.files) {
                let facts = |file: &BundleFile| {
                    let BundleFile { path, rooted, mode, owner, group, sha256, size, content: _ } = file;
                    format!("{path:?} {rooted} {mode:?} {owner:?} {group:?} {sha256} {size}")
                };
                assert_eq!(facts(found), facts(wanted), "{text}");
                assert_eq!(found.content(1 << 20).expect("read"), wanted.content(1 << 20).expect("read"), "{text}");
            }
        }
        (Err(_), Err(_)) => {}
        (found, wanted) => panic!("{text}: {:?} and {:?}", found.map(drop), wanted.map(drop)),
    }
}

#[test]
fn only_bytes_that_fit_their_digest_go_in_and_come_out() {
    let cache = Cache::new();
    let bundles = &cache.bundles;
    let bytes = br#"{"applier":"files","files":[]}"#;
    let digest = Digest::of(bytes);
    assert!(matches!(bundles.put(&digest, b"{}"), Err(BundleError::Mismatch { .. })));
    assert!(!bundles.holds(&digest));
    bundles.put(&digest, bytes).expect("put");
    assert_eq!(bundles.get(&digest).expect("get").expect("there").files.len(), 0);
    for rot in [&b"rot"[..], b"", br#"{"applier":"files","files":[{}]}"#] {
        fs::write(bundles.file(&digest), rot).expect("rot");
        assert!(bundles.get(&digest).expect("get").is_none(), "rotten");
        assert!(!bundles.holds(&digest), "thrown away");
        bundles.put(&digest, bytes).expect("put again");
    }
    bundles.keep(&BTreeSet::new()).expect("keep");
    assert!(!bundles.holds(&digest));
}

#[test]
fn what_is_on_its_way_stays_until_the_agent_starts_again() {
    let cache = Cache::new();
    let digest = Digest::of(b"x");
    let names = || fs::read_dir(&cache.bundles.0).expect("list").count();
    let mut incoming = cache.bundles.begin(&digest).expect("begin");
    incoming.write(b"x").expect("write");
    cache.bundles.keep(&BTreeSet::new()).expect("keep");
    assert_eq!(names(), 1);
    drop(incoming);
    assert_eq!(names(), 0, "given up");
    let mut incoming = cache.bundles.begin(&digest).expect("begin");
    incoming.write(b"y").expect("write");
    assert!(matches!(incoming.keep(), Err(BundleError::Mismatch { .. })));
    assert_eq!(names(), 0, "other bytes");
    fs::write(cache.bundles.0.join(format!("{digest}.new")), "half").expect("cut short");
    Bundles::open(&StateDir::new(cache.bundles.0.parent().expect("state"))).expect("open");
    assert_eq!(names(), 0, "cut short");
}

#[test]
fn a_bundle_that_is_open_can_be_read_though_the_cache_lost_it_and_rot_is_noticed() {
    let cache = Cache::new();
    let bytes = json!({"applier": "files", "files": [{"path": "a", "mode": "0644", "content": "inside"}]}).to_string();
    let bundle = cache.read(bytes.as_bytes()).expect("a bundle");
    let digest = Digest::of(bytes.as_bytes());
    cache.bundles.keep(&BTreeSet::new()).expect("keep");
    assert_eq!(bundle.files[0].text(6).expect("read"), "inside");
    assert!(matches!(bundle.files[0].text(5), Err(BundleError::Large { size: 6, limit: 5, .. })));
    let bundle = cache.read(bytes.as_bytes()).expect("a bundle");
    let mut file = fs::OpenOptions::new().write(true).open(cache.bundles.file(&digest)).expect("open");
    file.write_all(bytes.replace("inside", "INSIDE").as_bytes()).expect("rot");
    assert!(bundle.files[0].content(6).is_err());
}

#[test]
fn malformed_bundles_are_refused_with_what_is_wrong() {
    let cache = Cache::new();
    let file = |rest: &str| format!(r#"{{"applier":"files","files":[{{"path":"a","mode":"0644"{rest}}}]}}"#);
    for (bundle, sign) in [
        (String::new(), "EOF"),
        ("null".into(), "invalid type"),
        ("[]".into(), "not an object"),
        (r#"["files",{},{},"enforce",[]]"#.into(), "not an object"),
        (r#"{"applier":"files"}"#.into(), "missing field `files`"),
        (r#"{"files":[]}"#.into(), "missing field `applier`"),
        (r#"{"applier":"files","files":{}}"#.into(), "invalid type: map"),
        (r#"{"applier":"files","files":[["a",false,"0644"]]}"#.into(), "file 1 is not an object"),
        (r#"{"applier":"files","files":["a"]}"#.into(), "invalid type"),
        (r#"{"applier":"files","files":[],"files":[]}"#.into(), "duplicate field `files`"),
        (r#"{"applier":"no such","files":[]}"#.into(), "unknown variant"),
        (r#"{"applier":"files","files":[]} x"#.into(), "trailing characters"),
        (r#"{"applier":"files","files":[]"#.into(), "EOF"),
        (file(""), "\"a\" has no content"),
        (file(r#","content":"a","content":"b""#), "duplicate field `content`"),
        (file(r#","content":"a","c\u006fntent":"b""#), "duplicate field `content`"),
        (file(r#","content":"a","contentBase64":"YQ==""#), "both"),
        (file(r#","content":5"#), "invalid type"),
        (file(r#","content":["a"]"#), "invalid type"),
        (file(r#","content" "a""#), "expected `:`"),
        (file(r#","content":"a"#), "file 1: it does not end"),
        (file(r#","content":"\q""#), "file 1: it holds an escape that JSON does not know"),
        (file(r#","content":"\ud800""#), "surrogate"),
        (file(",\"content\":\"a\nb\""), "control character"),
        (file(r#","contentBase64":"*""#), "file 1"),
        (file(r#","contentBase64":"YQ""#), "file 1"),
        (file(r#","contentBase64":"YQ==YQ==""#), "file 1"),
        (file(r#","contentBase64":"YR==""#), "file 1"),
        (file(r#","contentBase64":"YQ=\n=""#), "file 1"),
        (file(&format!(r#","x":{}"#, "[".repeat(200))), "nested"),
        ("{\"a\":".repeat(1_000_000), "nested"),
        (format!(r#"{{"x":"{}"}}"#, "x".repeat(thin::OUTSIDE)), "beside its files"),
        (file(&format!(r#","x":"{}""#, "x".repeat(thin::INSIDE))), "beside the contents of its files"),
        (format!(r#"{{"applier":"files","files":[{}"#, "{},".repeat(BUNDLE_FILES + 1)), "missing field"),
        (
            format!(
                r#"{{"applier":"files","files":[{}"#,
                r#"{"path":"a","mode":"0644","content":""},"#.repeat(BUNDLE_FILES + 1)
            ),
            "more than 4096 files",
        ),
    ] {
        let message = cache.read(bundle.as_bytes()).expect_err(sign);
        assert!(message.contains(sign), "{}: {message}", bundle.chars().take(200).collect::<String>());
    }
    assert!(
        cache
            .read(b"{\"applier\":\"files\",\"files\":[{\"path\":\"a\",\"mode\":\"0644\",\"content\":\"\xff\"}]}")
            .is_err()
    );
}

#[test]
fn a_million_tiny_files_are_refused_and_as_many_as_there_may_be_are_not() {
    let cache = Cache::new();
    let bundle = |count: usize| {
        let file = |n: usize| format!(r#"{{"path":"{n}","mode":"0644","content":""}}"#);
        let files: Vec<_> = (0..count).map(file).collect();
        format!(r#"{{"applier":"files","files":[{}]}}"#, files.join(","))
    };
    assert_eq!(cache.read(bundle(BUNDLE_FILES).as_bytes()).expect("a bundle").files.len(), BUNDLE_FILES);
    assert!(cache.read(bundle(1_000_000).as_bytes()).expect_err("too many").contains("more than 4096 files"));
}

#[test]
fn what_looks_like_a_file_elsewhere_is_left_alone() {
    let cache = Cache::new();
    for bundle in [
        r#"{"x":{"files":[{"content":"no"}]},"applier":"files","files":[{"path":"content","mode":"0644","content":"x","y":{"content":"z"}}]}"#,
        r#"{"x":[{"content":"no"}],"applier":"files","files":[{"content":"x","path":"\"content\":\"","mode":"0644"}],"content":"0"}"#,
        r#"{"fil\u0065s":[{"path":"a","mode":"0644","content\u0042ase64":"eA=\u003d"}],"applier":"files"}"#,
        r#"{"applier":"files","files":[{"path":"a","mode":"0644","content":null,"contentBase64":"eA=="}]}"#,
        "\u{feff}{}",
        " {\"applier\" : \"files\" ,\n \"files\" : [ { \"mode\":\"0644\",\"path\" : \"a\" , \"content\" : \"x\" } ] }\n",
    ] {
        compare(&cache, bundle.as_bytes());
    }
}

fn files() -> impl Strategy<Value = serde_json::Value> {
    let content = prop_oneof![
        "(\\PC|[\\x00-\\x20\"\\\\/]|[äß€𝄞]){0,60}".prop_map(|text| json!({ "content": text })),
        prop::collection::vec(any::<u8>(), 0..60).prop_map(|bytes| {
            use base64::{Engine as _, engine::general_purpose::STANDARD};
            json!({ "contentBase64": STANDARD.encode(bytes) })
        }),
        "[A-Za-z0-9+/=]{0,12}".prop_map(|text| json!({ "contentBase64": text })),
        Just(json!({})),
        Just(json!({ "content": null })),
    ];
    let beside = prop::option::of("[a-z]{0,4}");
    ("\\PC{0,20}", any::<bool>(), content, beside.clone(), beside).prop_map(|(path, rooted, content, owner, group)| {
        let mut file = json!({"path": path, "mode": "0644", "rooted": rooted, "owner": owner, "group": group});
        if let (Some(file), Some(content)) = (file.as_object_mut(), content.as_object()) {
            file.extend(content.clone());
        }
        file
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_bundle_is_what_serde_makes_of_it(files in prop::collection::vec(files(), 0..5), pretty in any::<bool>()) {
        let bundle = json!({"applier": "files", "files": files, "unknown": [{"content": "x"}, 1.5e3, true]});
        let text = if pretty { serde_json::to_string_pretty(&bundle) } else { serde_json::to_string(&bundle) };
        compare(&Cache::new(), text.expect("JSON").as_bytes());
    }

    #[test]
    fn a_damaged_bundle_is_what_serde_makes_of_it(
        files in prop::collection::vec(files(), 0..3),
        at in any::<prop::sample::Index>(),
        byte in prop::sample::select(&b"\"\\{}[],:0a \xff\n"[..]),
        how in 0..3_u8,
    ) {
        let mut text = json!({"applier": "files", "files": files}).to_string().into_bytes();
        let at = at.index(text.len());
        match how {
            0 => text[at] = byte,
            1 => text.insert(at, byte),
            _ => drop(text.remove(at)),
        }
        compare(&Cache::new(), &text);
    }
}
