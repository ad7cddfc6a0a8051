//! Files that are there.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Component, Path},
    time::{Duration, SystemTime},
};

use rustix::fs::OFlags;
use titan_api::health::FileProbe;

use super::{SEARCHED, holds};

pub(super) async fn ask(probe: &FileProbe, home: &Path) -> Result<(), String> {
    let (probe, home) = (probe.clone(), home.to_owned());
    // A file may lie on a disk or network that hangs; the thread is the agent's second one, and ends when it is idle.
    let looked = tokio::task::spawn_blocking(move || look(&probe, &home, SystemTime::now())).await;
    looked.unwrap_or_else(|_| Err("it could not be looked at".to_owned()))
}

fn look(probe: &FileProbe, home: &Path, now: SystemTime) -> Result<(), String> {
    let asked = Path::new(&probe.path);
    if probe.path.is_empty() || asked.components().any(|part| part == Component::ParentDir) {
        let path = &probe.path;
        return Err(format!("{path:?} is neither an absolute path nor one below the deployment's directory"));
    }
    let path = home.join(asked);
    let shown = path.display();
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => format!("{shown} is not there"),
        _ => format!("{shown} cannot be looked at: {error}"),
    };
    let found = fs::metadata(&path).map_err(failed)?;
    if let Some(limit) = probe.max_age {
        // Where the clock is behind the file's time, as it is at boot without a battery, the file's age is unknown; it
        // counts as new, rather than everything being rolled back because of a clock.
        let age = found.modified().ok().and_then(|time| now.duration_since(time).ok()).unwrap_or_default();
        if age > limit.0 {
            let age = Duration::from_secs(age.as_secs());
            return Err(format!("{shown} was changed {age:?} ago, at most {limit} are allowed"));
        }
    }
    let Some(text) = &probe.contains else { return Ok(()) };
    // Where a link leads is what counts.
    let real = fs::canonicalize(&path).map_err(failed)?;
    let own = fs::canonicalize(home).is_ok_and(|home| real.starts_with(home));
    if !own && !everybody_reads(&real).map_err(failed)? {
        return Err(format!("{shown} is not searched: not everybody on this host may read it"));
    }
    let mut bytes = Vec::new();
    // A pipe without a writer would hold whoever opens it.
    let file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(&real);
    let file = file.map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(format!("{shown} is not a file whose content could be searched"));
    }
    file.take(SEARCHED as u64).read_to_end(&mut bytes).map_err(failed)?;
    if holds(&bytes, text) {
        return Ok(());
    }
    Err(format!("the first {} bytes of {shown} do not hold {text:?}", bytes.len()))
}

/// Whether everybody on this host may read a file, whose path has no links.
fn everybody_reads(path: &Path) -> io::Result<bool> {
    let allows = |path: &Path, bit: u32| Ok::<_, io::Error>(fs::metadata(path)?.permissions().mode() & bit != 0);
    let mut open = allows(path, 0o004)?;
    for dir in path.ancestors().skip(1) {
        open = open && allows(dir, 0o001)?;
    }
    Ok(open)
}

#[cfg(test)]
mod tests {
    use titan_api::spans::Span;

    use super::*;

    fn probe(path: &str, contains: Option<&str>, max_age: Option<u64>) -> FileProbe {
        FileProbe {
            path: path.to_owned(),
            contains: contains.map(str::to_owned),
            max_age: max_age.map(|seconds| Span(Duration::from_secs(seconds))),
        }
    }

    #[test]
    fn a_file_is_there_young_enough_and_holds_a_text() {
        let dir = tempfile::tempdir().expect("dir");
        let ask = |probe: FileProbe, now| look(&probe, dir.path(), now);
        let now = SystemTime::now();
        let message = ask(probe("ready", None, None), now).expect_err("missing");
        assert_eq!(message, format!("{}/ready is not there", dir.path().display()));
        fs::write(dir.path().join("ready"), "state: up\n").expect("write");
        assert_eq!(ask(probe("ready", Some("up"), Some(30)), now), Ok(()));
        assert_eq!(ask(probe(".", None, None), now), Ok(()), "a directory is there too");
        let message = ask(probe("ready", Some("down"), None), now).expect_err("text");
        assert!(
            message.starts_with("the first 10 bytes of ") && message.ends_with("do not hold \"down\""),
            "{message}"
        );
        let later = now + Duration::from_mins(2);
        let message = ask(probe("ready", None, Some(30)), later).expect_err("old");
        assert!(message.contains("ago, at most 30s are allowed"), "{message}");
        assert_eq!(ask(probe("ready", None, Some(30)), SystemTime::UNIX_EPOCH), Ok(()), "a clock that is not set");
        assert!(ask(probe("../x", None, None), now).is_err() && ask(probe("", None, None), now).is_err());
        fs::write(dir.path().join("large"), format!("{}end", "x".repeat(SEARCHED))).expect("write");
        assert!(ask(probe("large", Some("end"), None), now).is_err(), "beyond what is searched");
        assert!(ask(probe("/dev/null", Some("x"), None), now).expect_err("device").contains("not a file"));
    }

    #[test]
    fn what_not_everybody_may_read_is_not_searched_outside_of_the_deployment() {
        let (home, dir) = (tempfile::tempdir().expect("home"), tempfile::tempdir().expect("dir"));
        let file = dir.path().join("shadow");
        fs::write(&file, "root:hash").expect("write");
        let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
        let ask = || look(&probe(file.to_str().expect("path"), Some("hash"), None), home.path(), SystemTime::now());
        open(dir.path(), 0o755);
        open(&file, 0o640);
        assert!(ask().expect_err("closed").contains("not everybody"));
        assert!(look(&probe(file.to_str().expect("path"), None, None), home.path(), SystemTime::now()).is_ok());
        open(&file, 0o644);
        assert_eq!(ask(), Ok(()));
        open(dir.path(), 0o700);
        assert!(ask().expect_err("closed above").contains("not everybody"));
        fs::write(home.path().join("own"), "hash").expect("write");
        open(&home.path().join("own"), 0o600);
        assert_eq!(look(&probe("own", Some("hash"), None), home.path(), SystemTime::now()), Ok(()), "its own");
        let link = home.path().join("link");
        std::os::unix::fs::symlink(&file, &link).expect("link");
        assert!(
            look(&probe("link", Some("hash"), None), home.path(), SystemTime::now()).is_err(),
            "a link to another's"
        );
    }
}
