//! The service that the agent is on a host with systemd: what `systemd-analyze` says of it.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

/// What `systemd-analyze security` may say at most, in tenths, without a drop-in and with each. `docs/agent.md` quotes it.
const EXPOSURE: [(Option<&str>, u32); 3] = [(None, 21), (Some("files-only"), 11), (Some("commands"), 96)];

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging")
}

/// Runs `systemd-analyze`, or says why it cannot; on the shared build's machine it has to be there.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn systemd_analyze(args: &[&str]) -> Option<Output> {
    match Command::new("systemd-analyze").args(args).env("SYSTEMD_COLORS", "0").output() {
        Ok(output) => Some(output),
        Err(error) if std::env::var("CI").is_ok_and(|value| value == "true") => {
            panic!("systemd-analyze is needed here: {error}")
        }
        Err(error) => {
            eprintln!("left out: what systemd-analyze says of the agent's service ({error})");
            None
        }
    }
}

/// A root with the service, a drop-in, what the service refers to, and something in the place of the agent.
fn installed(drop_in: Option<&str>) -> TempDir {
    let root = tempfile::tempdir().expect("a folder");
    let units = root.path().join("etc/systemd/system");
    let drop_ins = units.join("titan-agent.service.d");
    std::fs::create_dir_all(&drop_ins).expect("folders");
    let copy = |from: PathBuf, to: PathBuf| std::fs::copy(&from, to).expect("a copy");
    copy(packaging().join("titan-agent.service"), units.join("titan-agent.service"));
    if let Some(name) = drop_in {
        let file = format!("{name}.conf");
        copy(packaging().join("drop-ins").join(&file), drop_ins.join(&file));
    }
    for unit in ["sysinit", "basic", "shutdown", "network", "nss-lookup", "multi-user"] {
        std::fs::write(units.join(format!("{unit}.target")), "[Unit]\nDescription=stands in\n").expect("a target");
    }
    let binary = root.path().join("usr/local/bin/titan-agent");
    std::fs::create_dir_all(binary.parent().expect("a folder")).expect("folders");
    std::fs::write(&binary, "#!/bin/sh\n").expect("a file");
    std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).expect("its mode");
    root
}

#[test]
fn systemd_has_nothing_to_say_against_the_service_and_its_drop_ins() {
    for (drop_in, _) in EXPOSURE {
        let root = installed(drop_in);
        let root = format!("--root={}", root.path().display());
        let args = ["verify", &root, "--man=no", "--recursive-errors=no", "titan-agent.service"];
        let Some(output) = systemd_analyze(&args) else { return };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{drop_in:?}: {} {said}", output.status);
    }
}

#[test]
fn the_service_is_not_exposed_more_than_the_documentation_says() {
    let page = std::fs::read_to_string(packaging().join("../../docs/agent.md")).expect("the page");
    for (drop_in, most) in EXPOSURE {
        let root = installed(drop_in);
        let root = format!("--root={}", root.path().display());
        let args = ["security", "--offline=true", &root, "--no-pager", "titan-agent.service"];
        let Some(output) = systemd_analyze(&args) else { return };
        let said = String::from_utf8_lossy(&output.stdout);
        let level = said.lines().find_map(|line| line.split_once("Overall exposure level for titan-agent.service: "));
        let level = level.and_then(|(_, rest)| rest.split(' ').next()).unwrap_or_default();
        let tenths: u32 = level.replace('.', "").parse().unwrap_or_else(|_| panic!("{drop_in:?}: no level in {said}"));
        assert!(tenths <= most, "{drop_in:?}: {level}\n{said}");
        let name = drop_in.map_or("titan-agent.service".to_owned(), |name| format!("{name}.conf"));
        let quoted = format!("| `{name}` | {}.{} |", most / 10, most % 10);
        assert!(page.contains(&quoted), "docs/agent.md does not have {quoted}");
    }
}

#[test]
fn every_drop_in_is_looked_at() {
    let files = std::fs::read_dir(packaging().join("drop-ins")).expect("a folder");
    let names: Vec<_> = files.map(|file| file.expect("a file").file_name().into_string().expect("a name")).collect();
    assert_eq!(names.len(), EXPOSURE.iter().filter(|(name, _)| name.is_some()).count(), "{names:?}");
}
