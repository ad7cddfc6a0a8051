use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use titan_api::{Digest, Name, Revision, spans::Span};
use uuid::Uuid;

use super::*;

fn target() -> Target {
    let name = |text: &str| Name::new(text).expect("name");
    Target {
        id: Uuid::from_u128(1),
        workspace: name("shop"),
        name: name("web"),
        release: "web#7".to_owned(),
        revision: Revision::ZERO,
        digest: Digest::of(b"x"),
        depends_on: vec![],
    }
}

fn hook(command: &[&str], timeout: Duration) -> Hook {
    Hook { command: command.iter().map(|word| (*word).to_owned()).collect(), timeout: Some(Span(timeout)) }
}

const MINUTE: Duration = Duration::from_mins(1);

fn shell(home: &Path, script: &str, timeout: Duration) -> Order {
    let hook = hook(&["/bin/sh", "-c", script], timeout);
    Order::hook(&target(), home, HookKind::PostApply, &hook, Some(&Exec::default())).expect("allowed")
}

fn alive(pid: &str) -> bool {
    Path::new("/proc").join(pid.trim()).exists()
}

/// Waits until a process is gone for good, so that not even its number is left.
async fn gone(pid: &str) {
    let begun = Instant::now();
    while alive(pid) {
        assert!(begun.elapsed() < MINUTE, "{pid} is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until a command has written a line to a file.
async fn line(file: &Path) -> String {
    loop {
        match fs::read_to_string(file) {
            Ok(text) if text.ends_with('\n') => return text,
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

#[tokio::test]
async fn commands_run_in_their_home_with_nothing_of_the_agents_environment() {
    let dir = tempfile::tempdir().expect("dir");
    let ended = shell(dir.path(), "pwd; env | cut -d= -f1 | sort | tr '\\n' ' '; cat; exit 3", MINUTE).run().await;
    assert_eq!(ended.how, How::Exited(3));
    let home = dir.path().display();
    let names = "HOME LANG PATH PWD TITAN_DEPLOYMENT TITAN_DIGEST TITAN_HOOK TITAN_RELEASE TITAN_WORKSPACE ";
    assert_eq!(ended.output, format!("{home}\n{names}"));
    assert_eq!(ended.failure().expect("failed"), format!("it ended with 3:\n{home}\n{}", names.trim_end()));
    let ended = shell(dir.path(), "echo $TITAN_WORKSPACE/$TITAN_DEPLOYMENT $TITAN_RELEASE $TITAN_HOOK", MINUTE);
    assert_eq!(ended.run().await.output, "shop/web web#7 postApply\n");
    let nowhere = shell(&dir.path().join("not/yet"), "pwd", MINUTE).run().await;
    assert_eq!((nowhere.how, nowhere.output.as_str()), (How::Exited(0), "/\n"));
}

#[tokio::test]
async fn output_and_errors_come_in_order_and_only_the_last_of_them() {
    let dir = tempfile::tempdir().expect("dir");
    let ended = shell(dir.path(), "echo one; echo two >&2; echo three", MINUTE).run().await;
    assert_eq!(ended.output, "one\ntwo\nthree\n");
    assert_eq!(ended.failure(), None);
    let ended = shell(dir.path(), "head -c 3000000 /dev/zero | tr '\\0' x; echo end", MINUTE).run().await;
    assert!(ended.output.ends_with("xend\n") && ended.output.starts_with("...x"));
    assert!(ended.output.len() <= limits::MESSAGE_BYTES);
}

#[tokio::test]
async fn whatever_takes_too_long_is_ended_with_all_that_it_started() {
    let dir = tempfile::tempdir().expect("dir");
    let pids = dir.path().join("pids");
    let script = "sleep 1000 & echo $$ $! >pids; echo waiting; wait";
    let begun = Instant::now();
    let ended = shell(dir.path(), script, Duration::from_millis(300)).run().await;
    assert_eq!(ended.how, How::TimedOut(Duration::from_millis(300)));
    assert_eq!(ended.failure().expect("failed"), "it took longer than 300ms and was ended:\nwaiting");
    assert!(begun.elapsed() < Duration::from_secs(5), "a command that listens goes at once");
    for pid in line(&pids).await.split_whitespace() {
        gone(pid).await;
    }
}

#[tokio::test]
async fn whatever_does_not_listen_is_killed() {
    let dir = tempfile::tempdir().expect("dir");
    let begun = Instant::now();
    let script = "trap '' TERM; echo $$ >pid; while :; do echo on; sleep 0.05; done";
    let ended = shell(dir.path(), script, Duration::from_millis(200)).run().await;
    assert!(matches!(ended.how, How::TimedOut(_)) && ended.output.starts_with("on\n"), "{ended:?}");
    assert!(begun.elapsed() >= Duration::from_secs(5), "it has its time to end");
    gone(&line(&dir.path().join("pid")).await).await;
}

#[tokio::test]
async fn what_a_command_leaves_behind_is_ended_and_not_waited_for() {
    let dir = tempfile::tempdir().expect("dir");
    let begun = Instant::now();
    let ended = shell(dir.path(), "sleep 1000 & echo $! >pid; echo done", MINUTE).run().await;
    assert_eq!((ended.how, ended.output.as_str()), (How::Exited(0), "done\n"));
    gone(&line(&dir.path().join("pid")).await).await;
    // Whoever leaves the group is his own, even if he holds the output.
    let ended = shell(dir.path(), "setsid sleep 1000 & echo $! >other; echo done", MINUTE).run().await;
    assert_eq!((ended.how, ended.output.as_str()), (How::Exited(0), "done\n"));
    assert!(begun.elapsed() < MINUTE);
    let other = line(&dir.path().join("other")).await;
    let pid = other.trim().parse().ok().and_then(rustix::process::Pid::from_raw).expect("pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
}

#[tokio::test]
async fn a_command_that_nobody_wants_any_more_is_ended() {
    let dir = tempfile::tempdir().expect("dir");
    let order = shell(dir.path(), "sleep 1000 & echo $$ $! >pids; wait", MINUTE);
    let task = tokio::spawn(order.run());
    let pids = line(&dir.path().join("pids")).await;
    task.abort();
    for pid in pids.split_whitespace() {
        gone(pid).await;
    }
}

#[test]
fn a_command_does_not_outlive_the_agent() {
    let dir = tempfile::tempdir().expect("dir");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let order = shell(dir.path(), "trap '' TERM; echo $$ >pid; sleep 1000", MINUTE);
    let pid = runtime.block_on(async {
        drop(tokio::spawn(order.run()));
        line(&dir.path().join("pid")).await
    });
    drop(runtime);
    assert!(!alive(&pid));
}

#[tokio::test]
async fn nothing_is_left_open_after_a_hundred_commands() {
    let dir = tempfile::tempdir().expect("dir");
    let ours = || fs::read_dir("/proc/self/fd").expect("fds").filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    for _ in 0..100 {
        assert_eq!(shell(dir.path(), "echo x", MINUTE).run().await.output, "x\n");
    }
    // Other tests of this process run commands too, so this is about many more than those.
    let left = ours().filter(|link| link.to_string_lossy().contains("pidfd")).count();
    assert!(left < 50, "{left} handles of processes are open");
}

#[tokio::test]
async fn own_files_run_and_what_cannot_be_run_says_why() {
    let dir = tempfile::tempdir().expect("dir");
    let put = |name: &str, text: &str, mode: u32| {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode");
    };
    put("ok", "#!/bin/sh\necho \"$1\"\n", 0o755);
    put("plain", "#!/bin/sh\n", 0o644);
    put("strange", "#!/no/such/shell\n", 0o755);
    let none = Exec { commands: vec![], ..Exec::default() };
    let order = |word: &str| {
        let hook = hook(&[word, "$(id)"], MINUTE);
        Order::hook(&target(), dir.path(), HookKind::PreApply, &hook, Some(&none)).expect("own files always may")
    };
    assert_eq!(order("ok").run().await.output, "$(id)\n", "no shell");
    assert_eq!(order(&dir.path().join("ok").display().to_string()).run().await.output, "$(id)\n");
    for (name, hint) in [("plain", "mode \"0755\""), ("strange", "interpreter"), ("missing", "from the switch on")] {
        let why = order(name).run().await.failure().expect("failed");
        assert!(why.contains(name) && why.contains("cannot be run") && why.contains(hint), "{why}");
    }
}

#[test]
fn only_what_the_owner_allows_is_run() {
    let home = Path::new("/srv/titan/shop/web");
    let some = Exec { hooks: vec![HookKind::PostApply], probes: false, commands: vec!["/usr/bin/*".to_owned()] };
    let ask = |kind, words: &[&str], allowed: Option<&Exec>| {
        Order::hook(&target(), home, kind, &hook(words, MINUTE), allowed).map_err(|error| error.to_string())
    };
    let refused = |kind, words: &[&str], allowed: Option<&Exec>| ask(kind, words, allowed).expect_err("refused");
    assert!(ask(HookKind::PostApply, &["/usr/bin/true"], Some(&some)).is_ok());
    assert!(ask(HookKind::PostApply, &["bin/x"], Some(&some)).is_ok());
    assert_eq!(
        refused(HookKind::PostApply, &["/usr/bin/true"], None),
        "the hook postApply is not allowed on this host; appliers.exec in agent.yaml says what is"
    );
    assert!(refused(HookKind::PreApply, &["/usr/bin/true"], Some(&some)).contains("appliers.exec.hooks"));
    let message = refused(HookKind::PostApply, &["/bin/sh"], Some(&some));
    assert!(message.contains("/bin/sh") && message.contains("appliers.exec.commands"), "{message}");
    for bad in ["", "../x", "a/../../x", "/usr/bin/../../bin/sh", "./x"] {
        let message = refused(HookKind::PostApply, &[bad], Some(&some));
        assert!(message.contains("neither an absolute path"), "{bad}: {message}");
    }
    assert!(refused(HookKind::PostApply, &[], Some(&some)).contains("no program"));
    let many = ["bin/x"; limits::COMMAND_WORDS + 1];
    assert!(refused(HookKind::PostApply, &many, Some(&some)).contains("65 words"));
    assert!(ask(HookKind::PostApply, &many[1..], Some(&some)).is_ok());
}

#[test]
fn all_commands_of_a_bundle_are_checked_at_once() {
    let home = Path::new("/h");
    let probe = Probe::Exec(ExecProbe { command: vec!["ok".to_owned()] });
    let health = Health { probes: vec![probe], ..Health::default() };
    let ask = |hooks: &Hooks, health: &Health, allowed: Option<&Exec>| check(&target(), home, hooks, health, allowed);
    let silent = Exec { probes: false, ..Exec::default() };
    assert!(ask(&Hooks::default(), &health, Some(&Exec::default())).is_ok());
    let message = ask(&Hooks::default(), &health, Some(&silent)).expect_err("probe").to_string();
    assert!(message.contains("appliers.exec.probes"), "{message}");
    let hooks = Hooks { on_remove: Some(hook(&["/bin/true"], MINUTE)), ..Hooks::default() };
    assert!(ask(&hooks, &Health::default(), None).is_err());
    assert!(ask(&Hooks::default(), &Health::default(), None).is_ok(), "nothing is asked for");
}
