//! Bundles larger than the memory that the agent may use.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use git2::{Repository, RepositoryInitOptions};
use serde_json::json;
use titan_api::Digest;

use crate::{
    host::{Ended, Host},
    plane::{Misbehaviour, Plane},
};

const LIMIT: u64 = 32 << 20;
const BUNDLE: usize = 64 << 20;

/// A group of processes that together may use [`LIMIT`] bytes, what the system keeps of files for them included.
struct Fence(PathBuf);

impl Fence {
    /// Makes one, if this machine can; one that runs everything must be able to.
    fn new(name: &str) -> Option<Self> {
        let made = Self::make(name);
        if let Err(why) = &made {
            let needed = std::env::var("CI").as_deref() == Ok("true") && rustix::process::geteuid().is_root();
            assert!(!needed, "memory cannot be limited here: {why}");
            println!("skipped: memory cannot be limited here: {why}");
        }
        made.ok()
    }

    fn make(name: &str) -> std::io::Result<Self> {
        let name = format!("titan-test-{}-{name}", std::process::id());
        let (old, new) = (Path::new("/sys/fs/cgroup/memory"), Path::new("/sys/fs/cgroup"));
        let (path, limits) = if old.join("memory.limit_in_bytes").exists() {
            (old.join(name), ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"])
        } else {
            (new.join(name), ["memory.max", "memory.swap.max"])
        };
        fs::create_dir(&path)?;
        let fence = Self(path);
        fs::write(fence.0.join(limits[0]), LIMIT.to_string())?;
        // Where there is no swap there is nothing to forbid.
        let _no_swap = fs::write(
            fence.0.join(limits[1]),
            if limits[1].ends_with("max") { "0".to_owned() } else { LIMIT.to_string() },
        );
        let mut hungry =
            fence.run(Command::new("sh").args(["-c", "head -c 67108864 /dev/zero | tail -c 67108864 | wc -c"]));
        let counted = String::from_utf8_lossy(&hungry.output()?.stdout).trim().to_owned();
        if counted == "67108864" {
            return Err(std::io::Error::other("the limit does not hold"));
        }
        Ok(fence)
    }

    /// Returns what runs `command` inside.
    fn run(&self, command: &Command) -> Command {
        let mut inside = Command::new("sh");
        inside.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(self.0.join("cgroup.procs"));
        inside.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => drop(inside.env(key, value)),
                None => drop(inside.env_remove(key)),
            }
        }
        inside
    }

    fn once(&self, host: &Host) -> Ended {
        Ended::of(self.run(&host.command(&["once"], &[])).output().unwrap())
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        let _gone = fs::remove_dir(&self.0);
    }
}

/// Bytes that do not compress.
fn noise(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state ^ (state >> 29)).to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len() / 3 * 4 + 4);
    for chunk in bytes.chunks(3) {
        let mut three = [0; 3];
        three[..chunk.len()].copy_from_slice(chunk);
        let number = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for digit in 0..4 {
            let value = (number >> (18 - 6 * digit)) & 63;
            text.push(if digit <= chunk.len() { char::from(DIGITS[value as usize]) } else { '=' });
        }
    }
    text
}

/// Applies `large`, which holds these files, under the limit, puts right what drifts in it, and goes back to what was there
/// before.
fn apply_within(name: &str, large: &str, files: &[(String, Vec<u8>)]) {
    let Some(fence) = Fence::new(name) else { return };
    let plane = Plane::start();
    let host = Host::with(&plane, "");
    let remote = host.path().join("fleet.git");
    let mut options = RepositoryInitOptions::new();
    let remote = Repository::init_opts(&remote, options.bare(true).initial_head("main")).unwrap();
    host.configure(&format!("git: {{ remote: {} }}\n", remote.path().display()));
    let tip = || remote.find_reference("refs/heads/main").unwrap().peel_to_tree().unwrap();
    let settle = |what: &str| {
        let ended = fence.once(&host);
        assert_eq!(ended.code, Some(0), "{what}: {ended:?}");
        let report = plane.reported("big");
        assert_eq!((&report["phase"], &report["push"]), (&"healthy".into(), &"pushed".into()), "{what}: {report}");
    };
    let small = || {
        plane.deploy("big", &[("small", "before")]);
        settle("small");
        assert_eq!(host.files_of("big").into_iter().collect::<Vec<_>>(), [("small".into(), "before".into())]);
    };
    small();
    plane.deploy_with("big", &[], |row| (row.bundle, row.inline) = (Some(large.to_owned()), false));
    settle("large");
    assert_eq!(fs::read_dir(host.home("big")).unwrap().count(), files.len());
    for (path, content) in files {
        assert!(fs::read(host.home("big").join(path)).unwrap() == *content, "{path}");
    }
    let committed = tip().get_path("default/big".as_ref()).unwrap().to_object(&remote).unwrap().peel_to_tree().unwrap();
    assert_eq!(committed.len(), files.len());
    for (path, content) in files {
        let blob = committed.get_name(path).unwrap().to_object(&remote).unwrap().peel_to_blob().unwrap();
        if content.len() > 4 << 20 {
            let (digest, size) = (Digest::of(content), content.len());
            let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {size}\n");
            assert_eq!(String::from_utf8_lossy(blob.content()), pointer);
        } else {
            assert!(blob.content() == *content, "{path}");
        }
    }
    // A file that somebody changed is found and put back.
    fs::write(host.home("big").join(&files[0].0), "changed").unwrap();
    settle("drift");
    assert!(fs::read(host.home("big").join(&files[0].0)).unwrap() == files[0].1);
    small();
}

#[test]
fn one_file_twice_as_large_as_the_memory_is_applied_committed_and_rolled_back() {
    let content = noise(BUNDLE, 1);
    let file = json!({"path": "image", "mode": "0644", "contentBase64": base64(&content)});
    let large = json!({"applier": "files", "files": [file]}).to_string();
    apply_within("one", &large, &[("image".to_owned(), content)]);
}

#[test]
fn many_files_twice_as_large_as_the_memory_are_applied_committed_and_rolled_back() {
    const FILES: usize = 320;
    let size = BUNDLE / FILES;
    let mut files: Vec<_> = (0..FILES - 16)
        .map(|number| {
            let line = format!("setting {number} = \"ä\"\t\\\n");
            (format!("{number:04}"), line.repeat(size / line.len()).into_bytes())
        })
        .collect();
    // As large as a file can be that is committed as it is.
    files.push(("large".to_owned(), noise(4 << 20, 3)));
    files.extend((1..16).map(|number| (format!("noise{number}"), noise(size, number))));
    let json: Vec<_> = files
        .iter()
        .map(|(path, content)| match std::str::from_utf8(content) {
            Ok(text) => json!({"path": path, "mode": "0644", "content": text}),
            Err(_) => json!({"path": path, "mode": "0644", "contentBase64": base64(content)}),
        })
        .collect();
    apply_within("many", &json!({"applier": "files", "files": json}).to_string(), &files);
}

#[test]
fn answers_without_end_are_refused_in_bounded_memory() {
    let Some(fence) = Fence::new("endless") else { return };
    let plane = Plane::start();
    let host = Host::new(&plane);
    plane.deploy("one", &[("a", "1")]);
    host.settle();
    for what in [Misbehaviour::Endless(100 << 20), Misbehaviour::Whole("500 X", "text/plain", noise(100 << 20, 7))] {
        plane.misbehave(Some(what));
        let ended = fence.once(&host);
        assert_eq!(ended.code, Some(5), "{ended:?}");
        assert_eq!(host.files_of("one").len(), 1);
    }
    plane.misbehave(None);
    // A bundle of 300 MB where one of a few bytes was promised.
    plane.deploy_with("one", &[("a", "2")], |row| row.inline = false);
    plane.table().endless_bundles = Some(300 << 20);
    let ended = fence.once(&host);
    assert!(ended.out.contains("more than 268435456 bytes"), "{ended:?}");
    let left: Vec<_> =
        fs::read_dir(host.state().join("bundles")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left.len(), 1, "what came is gone: {left:?}");
    plane.table().endless_bundles = None;
    host.settle();
    assert_eq!(fs::read_to_string(host.home("one").join("a")).unwrap(), "2");
}
