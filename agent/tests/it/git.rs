//! The Git sink in the local repository.

use git2::{Repository, RepositoryInitOptions};

use crate::{
    host::{Host, map},
    plane::{Plane, id_of},
    run::wait_for,
};

/// The paths in the newest commit of a branch.
pub(crate) fn paths(repo: &Repository, branch: &str) -> Vec<String> {
    let tree = repo.find_reference(&format!("refs/heads/{branch}")).unwrap().peel_to_tree().unwrap();
    let mut paths = Vec::new();
    tree.walk(git2::TreeWalkMode::PreOrder, |dir, entry| {
        if entry.kind() == Some(git2::ObjectType::Blob) {
            paths.push(format!("{dir}{}", entry.name().unwrap()));
        }
        git2::TreeWalkResult::Ok
    })
    .unwrap();
    paths
}

/// Commits one file on top of a branch, as somebody else.
pub(crate) fn somebody_commits(repo: &Repository, branch: &str, path: &str) {
    let name = format!("refs/heads/{branch}");
    let parent = repo.find_reference(&name).ok().map(|tip| tip.peel_to_commit().unwrap());
    let base = parent.as_ref().map(|parent| parent.tree().unwrap());
    let empty = repo.find_tree(repo.treebuilder(None).unwrap().write().unwrap()).unwrap();
    let mut update = git2::build::TreeUpdateBuilder::new();
    update.upsert(path, repo.blob(b"somebody else's").unwrap(), git2::FileMode::Blob);
    let tree = update.create_updated(repo, base.as_ref().unwrap_or(&empty)).unwrap();
    let who = git2::Signature::now("somebody", "somebody@example").unwrap();
    let parents: Vec<_> = parent.iter().collect();
    repo.commit(Some(&name), &who, &who, path, &repo.find_tree(tree).unwrap(), &parents).unwrap();
}

#[test]
fn what_was_applied_is_committed_with_trailers_and_nothing_else_is() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    plane.deploy("one", &[("a", "1"), ("bin/run*", "x"), ("@etc/one", "1")]);
    host.settle();
    let repo = Repository::open(host.state().join("git")).unwrap();
    assert!(repo.is_bare());
    let tip = || repo.find_reference("refs/heads/main").unwrap().peel_to_commit().unwrap();
    assert_eq!(repo.head().unwrap().name().unwrap(), "refs/heads/main");
    let first = tip();
    let entry = host.ledger().entries[&id_of("one")].clone();
    let message = format!(
        "default/one one#1\n\nDeployment: default/one\nRelease: one#1\nRevision: {}\nDigest: {}\n",
        entry.revision, entry.digest
    );
    assert_eq!(first.message().unwrap(), message);
    assert_eq!(plane.reported("one")["commit"], first.id().to_string());
    assert_eq!(paths(&repo, "main"), ["default/one/_rooted/etc/one", "default/one/a", "default/one/bin/run"]);
    let run = first.tree().unwrap().get_path("default/one/bin/run".as_ref()).unwrap();
    assert_eq!(run.filemode(), 0o100_755);
    for _ in 0..2 {
        host.settle();
    }
    assert_eq!(tip().id(), first.id(), "nothing changed, nothing is committed");
    somebody_commits(&repo, "main", "default/one/README");
    plane.deploy("one", &[("a", "2")]);
    plane.deploy("two", &[("a", "2")]);
    host.settle();
    assert_eq!(paths(&repo, "main"), ["default/one/README", "default/one/a", "default/two/a"]);
    plane.delete("one");
    let out = host.settle();
    assert_eq!(paths(&repo, "main"), ["default/one/README", "default/two/a"]);
    assert!(tip().message().unwrap().starts_with("default/one removed\n\nDeployment: default/one\n"));
    assert!(out.contains(&format!("removed    default/one  commit {}", tip().id())), "{out}");
    assert_eq!(plane.reported("one")["commit"], tip().id().to_string());
}

#[test]
fn git_itself_has_nothing_to_say_about_the_repository() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    plane.deploy("one", &[("a", "1")]);
    host.settle();
    let config = std::fs::read_to_string(host.state().join("git/config")).unwrap().to_lowercase();
    assert!(!config.contains("fsyncobjectfiles"), "{config}");
    // And yet everything in it is synced by us.
    let repo = Repository::open(host.state().join("git")).unwrap();
    repo.config().unwrap().add_file(&host.state().join("git.config"), git2::ConfigLevel::App, true).unwrap();
    assert!(repo.config().unwrap().get_bool("core.fsyncobjectfiles").unwrap());
}

#[test]
fn a_work_tree_that_has_the_branch_checked_out_stays_sane() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    let work = host.path().join("work");
    let repo = Repository::init_opts(&work, RepositoryInitOptions::new().initial_head("main")).unwrap();
    host.configure(&format!("git: {{ repository: {}, path: hosts/tim-pi }}", work.display()));
    plane.deploy("one", &[("a", "1")]);
    host.settle();
    plane.deploy("one", &[("a", "2"), ("b", "2")]);
    host.settle();
    assert_eq!(std::fs::read_to_string(work.join("hosts/tim-pi/default/one/a")).unwrap(), "2");
    assert!(repo.statuses(None).unwrap().is_empty(), "clean");
}

#[test]
fn the_sink_can_be_turned_off_and_its_failure_fails_no_apply() {
    let plane = Plane::start();
    let host = Host::with(&plane, "git: { enabled: false }");
    plane.deploy("one", &[("a", "1")]);
    host.settle();
    assert!(!host.state().join("git").exists());
    std::fs::write(host.path().join("file"), "in the way").unwrap();
    host.configure(&format!("git: {{ repository: {}/file/git }}", host.path().display()));
    plane.deploy("one", &[("a", "2")]);
    host.settle();
    let report = plane.reported("one");
    assert_eq!(report["phase"], "healthy");
    assert!(report["push"].as_str().unwrap().starts_with("not committed: "), "{report}");
    host.configure("");
    host.settle();
    assert!(plane.reported("one")["commit"].is_string(), "made up for");
}

/// As an agent leaves it that is killed while it moves the branch.
#[test]
fn a_branch_that_a_killed_agent_left_locked_is_moved_on_by_the_next() {
    let plane = Plane::start();
    let host = Host::with(&plane, "polling: { wait: 60s }");
    plane.deploy("one", &[("a", "1")]);
    host.settle();
    plane.deploy("one", &[("a", "2")]);
    std::fs::File::create(host.state().join("git/refs/heads/main.lock")).unwrap();
    let mut child = host.command(&["run"], &[]).stderr(std::process::Stdio::null()).spawn().unwrap();
    wait_for("what is in the way to be told", || {
        plane.reported("one")["push"].as_str().is_some_and(|push| push.contains("main.lock"))
    });
    assert_eq!(plane.reported("one")["phase"], "healthy");
    wait_for("the commit", || plane.reported("one")["push"].is_null() && !plane.reported("one")["commit"].is_null());
    let repo = Repository::open(host.state().join("git")).unwrap();
    let tree = repo.find_reference("refs/heads/main").unwrap().peel_to_tree().unwrap();
    let blob = tree.get_path("default/one/a".as_ref()).unwrap().to_object(&repo).unwrap().peel_to_blob().unwrap();
    assert_eq!(blob.content(), b"2");
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_repository_that_fills_the_state_directory_lets_go_of_its_oldest_commits() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    host.configure("limits: { stateBytes: 3145728 }\n");
    plane.deploy("one", &[("a", "1")]);
    host.settle();
    let path = host.state().join("git");
    let commits = || {
        let repo = Repository::open(&path).unwrap();
        let mut walk = repo.revwalk().unwrap();
        walk.push_head().unwrap();
        walk.map(|id| repo.find_commit(id.unwrap()).unwrap().id()).collect::<Vec<_>>()
    };
    // Some years of what cannot be compressed, 6 KiB each.
    let repo = Repository::open(&path).unwrap();
    for number in 0..230_u32 {
        let parent = repo.head().unwrap().peel_to_commit().unwrap();
        let noise: Vec<u8> = (0..192_u32)
            .flat_map(|block| *titan_api::Digest::of(&[number, block].map(u32::to_le_bytes).concat()).as_bytes())
            .collect();
        let mut update = git2::build::TreeUpdateBuilder::new();
        update.upsert("noise", repo.blob(&noise).unwrap(), git2::FileMode::Blob);
        let tree = update.create_updated(&repo, &parent.tree().unwrap()).unwrap();
        let who = git2::Signature::now("titan-agent", "titan@example").unwrap();
        repo.commit(Some("HEAD"), &who, &who, "some years", &repo.find_tree(tree).unwrap(), &[&parent]).unwrap();
    }
    let (before, first) = (commits(), *commits().last().unwrap());
    plane.deploy_with("one", &[("a", "2")], |row| row.inline = false);
    let ended = host.once();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(host.files_of("one"), map(&[("a", "2")]));
    let after = commits();
    assert_eq!((before.len(), after.len()), (231, 116), "{ended:?}");
    assert!(before.starts_with(&after[1..]), "the newest are as they were");
    let repo = Repository::open(&path).unwrap();
    assert!(repo.find_commit(first).is_err());
    assert_eq!(paths(&repo, "main"), ["default/one/a", "noise"]);
    assert_eq!(plane.reported("one")["commit"], after[0].to_string());
    // Where history is not what fills it, none is let go, and the reason is told.
    std::fs::write(host.state().join("theirs"), vec![0; 6 << 20]).unwrap();
    plane.deploy_with("one", &[("a", "3")], |row| row.inline = false);
    let ended = host.once();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let message = plane.reported("one")["message"].as_str().unwrap().to_owned();
    assert!(message.contains("limits.stateBytes"), "{message}");
    assert_eq!(commits(), after);
    std::fs::remove_file(host.state().join("theirs")).unwrap();

    // A remote that comes later has to have all that a commit is made from: it begins with what is there now.
    let remote = host.path().join("remote.git");
    let theirs = Repository::init_bare(&remote).unwrap();
    host.configure(&format!("git: {{ remote: {} }}\n", remote.display()));
    host.settle();
    plane.deploy("one", &[("a", "4")]);
    host.settle();
    let checked = std::process::Command::new("git").arg("-C").arg(&remote).args(["fsck", "--full"]).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    assert_eq!(paths(&theirs, "main"), ["default/one/a", "noise"]);
    assert_eq!(theirs.find_reference("refs/heads/main").unwrap().target(), commits().first().copied());
    let ours = commits();
    assert!(ours.len() <= 3 && plane.reported("one")["commit"] == ours[0].to_string(), "{ours:?}");
}
