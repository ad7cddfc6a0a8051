//! Pushing: over a path, HTTP and ssh, with somebody else being faster.

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use git2::{Repository, RepositoryInitOptions};

use crate::{
    git::{paths, somebody_commits},
    host::Host,
    plane::{self, Plane},
    run::wait_for,
};

/// Whether there is a `git` to be the other side; a local run does without, the shared build does not.
fn has_git() -> bool {
    let found = Command::new("git").arg("--version").output().is_ok_and(|output| output.status.success());
    assert!(found || std::env::var("CI").as_deref() != Ok("true"), "git is needed");
    if !found {
        println!("skipped: there is no git here to be the other side");
    }
    found
}

fn bare(host: &Host) -> (PathBuf, Repository) {
    let path = host.path().join("srv/fleet.git");
    let options = || {
        let mut options = RepositoryInitOptions::new();
        options.bare(true).mkpath(true).initial_head("main");
        options
    };
    let repo = Repository::init_opts(&path, &options()).unwrap();
    repo.config().unwrap().set_bool("http.receivepack", true).unwrap();
    (path, repo)
}

/// Applies, has somebody else commit in between, and applies again: everything is there, in a line.
fn work_together(plane: &Plane, host: &Host, remote: &Repository, env: &[(&str, &str)]) {
    let settle = || {
        let ended = host.agent(&["once"], env);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(plane.reported("one")["push"], "pushed", "{ended:?}");
    };
    somebody_commits(remote, "main", "README");
    plane.deploy("one", &[("a", "1")]);
    settle();
    assert_eq!(paths(remote, "main"), ["README", "hosts/tim-pi/default/one/a"]);
    somebody_commits(remote, "main", "hosts/other/default/one/a");
    plane.deploy("one", &[("a", "2"), ("b", "2")]);
    plane.deploy("two", &[("a", &"large ".repeat(300_000))]);
    settle();
    let wanted = ["README", "hosts/other/default/one/a"];
    let ours = ["hosts/tim-pi/default/one/a", "hosts/tim-pi/default/one/b", "hosts/tim-pi/default/two/a"];
    assert_eq!(paths(remote, "main"), [&wanted[..], &ours[..]].concat());
    let mut walk = remote.revwalk().unwrap();
    walk.push_ref("refs/heads/main").unwrap();
    let commits: Vec<_> = walk.map(|id| remote.find_commit(id.unwrap()).unwrap()).collect();
    assert_eq!(commits.len(), 5);
    assert!(commits.iter().all(|commit| commit.parent_count() <= 1), "in a line");
    for name in ["one", "two"] {
        let reported = plane.reported(name)["commit"].as_str().unwrap().to_owned();
        assert!(commits.iter().any(|commit| commit.id().to_string() == reported), "{name}: {reported}");
    }
    let local = Repository::open(host.state().join("git")).unwrap();
    assert_eq!(local.refname_to_id("refs/heads/main").unwrap(), remote.refname_to_id("refs/heads/main").unwrap());
    // Nothing new: the remote is not even asked, so it may be gone.
    let polls = plane.table().polls.len();
    settle();
    assert_eq!(plane.table().polls.len(), polls + 1);
}

#[test]
fn commits_are_pushed_to_a_path_after_others() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    let (path, remote) = bare(&host);
    host.configure(&format!("git: {{ remote: {}, path: hosts/tim-pi }}", path.display()));
    work_together(&plane, &host, &remote, &[]);
}

#[test]
fn a_wiped_repository_finds_back_to_its_remote() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    let (path, remote) = bare(&host);
    host.configure(&format!("git: {{ remote: {}, path: hosts/tim-pi, branch: fleet }}", path.display()));
    plane.deploy("one", &[("a", "1")]);
    host.settle();
    assert_eq!(paths(&remote, "fleet"), ["hosts/tim-pi/default/one/a"], "the branch is made if it is missing");
    fs::remove_dir_all(host.state().join("git")).unwrap();
    plane.deploy("one", &[("a", "2")]);
    host.settle();
    let tip = remote.find_reference("refs/heads/fleet").unwrap().peel_to_commit().unwrap();
    assert_eq!(tip.parent_count(), 1);
    assert_eq!(plane.reported("one")["commit"], tip.id().to_string());
}

#[test]
fn many_hosts_push_to_one_branch_at_the_same_time() {
    let plane = Plane::start();
    plane.deploy("one", &[("a", "1")]);
    let first = Host::new(&plane);
    let (path, remote) = bare(&first);
    let hosts: Vec<_> = (0..4)
        .map(|n| {
            let config = format!("git: {{ remote: {}, path: hosts/h{n}, attempts: 20 }}", path.display());
            Host::with(&plane, &config)
        })
        .collect();
    std::thread::scope(|scope| {
        for host in &hosts {
            scope.spawn(|| host.settle());
        }
    });
    let wanted: Vec<_> = (0..4).map(|n| format!("hosts/h{n}/default/one/a")).collect();
    assert_eq!(paths(&remote, "main"), wanted);
}

#[test]
fn a_remote_that_is_gone_fails_no_apply_and_is_tried_again() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    host.configure(&format!("git: {{ remote: {}/srv/fleet.git }}", host.path().display()));
    plane.deploy("one", &[("a", "1")]);
    host.settle();
    let report = plane.reported("one");
    assert_eq!(report["phase"], "healthy");
    assert!(report["push"].as_str().unwrap().contains("cannot be used"), "{report}");
    let (_, remote) = bare(&host);
    host.settle();
    assert_eq!(plane.reported("one")["push"], "pushed");
    assert_eq!(paths(&remote, "main"), ["default/one/a"]);
}

#[test]
fn a_remote_that_hangs_holds_up_neither_polls_nor_reports() {
    let plane = Plane::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/fleet.git", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = asked.clone();
    // It takes every connection and never says a word.
    std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| kept.lock().unwrap().push(stream)));
    let host = Host::with(&plane, &format!("git: {{ remote: '{url}' }}"));
    plane.deploy("one", &[("a", "0")]);
    let mut child = host.command(&["run"], &[]).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the push", || !asked.lock().unwrap().is_empty());
    let began = Instant::now();
    for n in 1..=3 {
        plane.deploy("one", &[("a", &n.to_string())]);
        let release = format!("one#{}", n + 1);
        let told =
            || plane.reported("one")["release"] == release.as_str() && plane.reported("one")["phase"] == "healthy";
        wait_for("the report", told);
    }
    assert!(began.elapsed() < Duration::from_secs(30), "less than the remote may be silent for");
    assert_eq!(asked.lock().unwrap().len(), 1, "one push at a time");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let told = Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(told.elapsed() < Duration::from_secs(10), "nor does it hold up the end");
}

#[test]
fn commits_are_pushed_over_http_after_others() {
    if !has_git() {
        return;
    }
    let plane = Plane::start();
    let host = Host::new(&plane);
    let (path, remote) = bare(&host);
    let url = git_over_http(path.parent().unwrap());
    let config = |password: &str| {
        format!(
            "git: {{ remote: '{url}/fleet.git', path: hosts/tim-pi, credentials: {{ username: u, password: {password} }} }}"
        )
    };
    host.configure(&config("wrong"));
    plane.deploy("one", &[("a", "0")]);
    host.settle();
    let report = plane.reported("one");
    assert!(report["push"].as_str().unwrap().contains("401"), "{report}");
    assert!(!report.to_string().contains("wrong"), "{report}");
    // Started over, so that the story is the same as elsewhere.
    plane.table().rows.clear();
    let host = Host::with(&plane, &config("p"));
    work_together(&plane, &host, &remote, &[]);
    refuse(&path);
    plane.deploy("one", &[("a", "3")]);
    host.settle();
    let push = plane.reported("one")["push"].as_str().unwrap().to_owned();
    assert!(push.contains("pre-receive hook declined") && push.contains("not on Fridays"), "{push}");
}

#[test]
fn commits_are_pushed_over_ssh_after_others() {
    if !has_git() {
        return;
    }
    let plane = Plane::start();
    let host = Host::new(&plane);
    let (path, remote) = bare(&host);
    let bin = host.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let log = host.path().join("ssh.log");
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> '{}'\nfor last; do :; done\n[ -e '{}/down' ] && {{ echo 'port 22: no route' >&2; exit 255; }}\nexec sh -c \"$last\"\n",
        log.display(),
        bin.display()
    );
    fs::write(bin.join("ssh"), script).unwrap();
    fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    host.configure(&format!(
        "git: {{ remote: 'ssh://git@forge:2222{}', path: hosts/tim-pi, ssh: {{ keyFile: /k, knownHostsFile: /h }} }}",
        path.display()
    ));
    let env_path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let env = [("PATH", env_path.as_str())];
    work_together(&plane, &host, &remote, &env);
    let first = fs::read_to_string(&log).unwrap().lines().next().unwrap().to_owned();
    assert!(
        first.contains("BatchMode=yes") && first.contains("-i /k -p 2222 -- git@forge git-upload-pack '/"),
        "{first}"
    );
    refuse(&path);
    plane.deploy("one", &[("a", "3")]);
    host.agent(&["once"], &env);
    let push = plane.reported("one")["push"].as_str().unwrap().to_owned();
    assert!(push.contains("pre-receive hook declined"), "{push}");
    fs::write(bin.join("down"), "").unwrap();
    host.agent(&["once"], &env);
    let report = plane.reported("one");
    assert!(report["push"].as_str().unwrap().contains("no route"), "{report}");
    assert_eq!(report["phase"], "healthy");
}

/// Has the repository's hook decline every push from now on.
fn refuse(path: &Path) {
    let hook = path.join("hooks/pre-receive");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, "#!/bin/sh\necho not on Fridays >&2\nexit 1\n").unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Serves the repositories below `top` by `git http-backend`, to user `u` with password `p`. Returns the address.
fn git_over_http(top: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let top = top.to_owned();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let Some((line, head, body)) = plane::read_request(&mut stream) else { continue };
            if !head.contains("Basic dTpw") && !head.contains("basic dTpw") {
                plane::send(&mut stream, "401 Unauthorized", "text/plain", b"who are you?");
                continue;
            }
            let mut parts = line.split(' ');
            let (method, target) = (parts.next().unwrap(), parts.next().unwrap());
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let media = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
            let mut child = Command::new("git")
                .arg("http-backend")
                .env("GIT_PROJECT_ROOT", &top)
                .env("GIT_HTTP_EXPORT_ALL", "1")
                .env("REMOTE_USER", "u")
                .env("REQUEST_METHOD", method)
                .env("PATH_INFO", path)
                .env("QUERY_STRING", query)
                .env("CONTENT_TYPE", media)
                .env("CONTENT_LENGTH", body.len().to_string())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut input = child.stdin.take().unwrap();
            let writer = std::thread::spawn(move || input.write_all(&body));
            let output = child.wait_with_output().unwrap().stdout;
            let _written = writer.join();
            let end = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
            let fields = String::from_utf8_lossy(&output[..end]).into_owned();
            let field = |name: &str| fields.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
            let status = field("Status: ").unwrap_or_else(|| "200 OK".to_owned());
            plane::send(&mut stream, &status, &field("Content-Type: ").unwrap_or_default(), &output[end + 4..]);
        }
    });
    url
}
