//! The agent as a process that stays, as a library, and its other subcommands.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use titan_agent::{Agent, Settings};

use crate::{
    host::{Host, map},
    plane::{Misbehaviour, Plane},
};

pub(crate) fn wait_for(what: &str, done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(20), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_running_agent_follows_changes_survives_trouble_and_stops_when_told() {
    let plane = Plane::start();
    let host = Host::with(&plane, "polling: { maxBackoff: 100ms }");
    plane.deploy("one", &[("a", "1")]);
    let mut child = host.command(&["run"], &[]).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the first apply", || plane.reported("one")["phase"] == "healthy");
    assert_eq!(host.once().code, Some(4), "a second agent is refused");
    assert!(host.agent(&["status"], &[]).out.contains("running  yes"));
    assert_eq!(host.agent(&["prune", "--all"], &[]).code, Some(4));
    plane.misbehave(Some(Misbehaviour::Whole("500 X", "text/html", b"<html>".to_vec())));
    let polls = plane.table().polls.len();
    wait_for("more polls", || plane.table().polls.len() > polls + 3);
    assert_eq!(host.files_of("one"), map(&[("a", "1")]));
    plane.misbehave(None);
    plane.deploy("one", &[("a", "2")]);
    wait_for("the second apply", || host.files_of("one") == map(&[("a", "2")]));
    plane.delete("one");
    wait_for("the removal", || plane.reported("one")["phase"] == "removed");
    assert!(host.files().is_empty());
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_beat_says_that_nothing_changed_and_everything_where_that_is_not_believed() {
    let plane = Plane::start();
    let host = Host::with(&plane, "polling: { maxBackoff: 100ms, beat: 200ms }");
    plane.table().disbelieved = 1;
    plane.deploy("one", &[("a", "1")]);
    let mut child = host.command(&["run"], &[]).stderr(Stdio::null()).spawn().unwrap();
    wait_for("a beat that is not believed", || plane.table().refused_reports == 1);
    let before = plane.table().reports.len();
    wait_for("beats that are", || plane.table().reports.len() > before + 4);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let reports = plane.table().reports.clone();
    let whole = |report: &serde_json::Value| {
        report["facts"].is_object() && report["orphans"].is_array() && report["deployments"][0]["phase"] == "healthy"
    };
    // The one that was refused is missing.
    let number = |report: &serde_json::Value| report["seq"].as_u64();
    let after = reports.windows(2).position(|pair| number(&pair[1]) > number(&pair[0]).map(|number| number + 1));
    let after = after.expect("a report after the refusal") + 1;
    assert!(whole(&reports[after]), "everything at once after the refusal: {reports:?}");
    for beat in &reports[after + 1..] {
        assert_eq!(beat["unchanged"], true, "{beat}");
        assert!(beat["usage"]["memoryBytes"].is_u64(), "{beat}");
        assert!(beat.get("facts").is_none() && beat.get("deployments").is_none(), "{beat}");
    }
}

#[test]
fn a_host_on_which_nothing_can_be_changed_says_so_once_and_rests_until_it_is_mended() {
    let plane = Plane::start();
    let host = Host::with(&plane, "polling: { wait: 1s }");
    let probed = |number: &str| {
        plane.deploy_with("one", &[("a", number)], |row| {
            let health =
                r#""health":{"interval":"50ms","initialDelay":"0ms","probes":[{"file":{"path":"a"}}]},"files""#;
            row.bundle = row.bundle.take().map(|text| text.replacen("\"files\":", &format!("{health}:"), 1));
        });
    };
    probed("1");
    let log = std::fs::File::create(host.path().join("log")).unwrap();
    let mut child = host.command(&["run"], &[]).stderr(log).spawn().unwrap();
    wait_for("the first apply", || plane.reported("one")["phase"] == "healthy");
    let journal = host.state().join("journal.json");
    std::fs::write(&journal, "{").unwrap();
    let told = || {
        let log = std::fs::read_to_string(host.path().join("log")).unwrap();
        log.matches("WARN nothing is changed on this host").count()
    };
    wait_for("word of it", || told() > 0);
    let reads = || {
        let io = std::fs::read_to_string(format!("/proc/{}/io", child.id())).unwrap();
        io.lines().find_map(|line| line.strip_prefix("syscr: ")?.parse::<u64>().ok()).unwrap()
    };
    let before = reads();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(told(), 1);
    assert!(reads() - before < 200, "{} reads in two seconds", reads() - before);
    std::fs::remove_file(&journal).unwrap();
    probed("2");
    wait_for("the second apply", || host.files_of("one") == map(&[("a", "2")]));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_pause_that_was_asked_for_is_kept() {
    let plane = Plane::start();
    let host = Host::with(&plane, "polling: { maxBackoff: 10ms }");
    let problem = serde_json::to_vec(&titan_api::Problem::new(titan_api::Code::Overloaded, "busy")).unwrap();
    let media = "application/problem+json\r\nretry-after: 3600";
    plane.misbehave(Some(Misbehaviour::Whole("429 X", media, problem)));
    let mut child = host.command(&["run"], &[]).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the first poll", || plane.table().polls.len() == 1);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(plane.table().polls.len(), 1);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn agents_can_run_in_threads_of_one_process() {
    let plane = Plane::start();
    plane.deploy("one", &[("a", "1")]);
    let hosts: Vec<_> = (0..3).map(|_| Host::new(&plane)).collect();
    std::thread::scope(|scope| {
        for host in &hosts {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let mut agent = Agent::open(Settings::new(host.state()), runtime.handle()).unwrap();
                let summary = runtime.block_on(agent.once()).unwrap();
                assert!(summary.is_settled());
                assert_eq!(summary.commits().count(), 1);
                let shutdown = tokio_util::sync::CancellationToken::new();
                let stop = shutdown.clone();
                let after = async move {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    stop.cancel();
                };
                runtime.block_on(async { tokio::join!(agent.run(shutdown), after) });
            });
        }
    });
    for host in &hosts {
        assert_eq!(host.files_of("one"), map(&[("a", "1")]));
    }
}

#[test]
fn enrolling_again_with_the_same_token_is_the_same_attempt() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    assert_eq!(plane.table().enrolments.len(), 1);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(host.state().join("credential")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let args = ["enrol", "--server", &plane.url, "--host", "other", "--token", "x"];
    plane.deploy("one", &[("a", "1")]);
    host.settle();
    let ended = host.agent(&args, &[]);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.err.contains("belongs to host tim-pi"), "{ended:?}");
    let gone = ["enrol", "--server", "http://127.0.0.1:1", "--host", "tim-pi", "--token", "x"];
    assert_eq!(host.agent(&gone, &[]).code, Some(5));
    let attempt = || std::fs::read_to_string(host.state().join("enrolment.json")).unwrap();
    let first = attempt();
    assert_eq!(host.agent(&gone, &[]).code, Some(5));
    assert_eq!(attempt(), first);
    assert!(!first.contains("\"x\""), "the token is not written down");
}

#[test]
fn what_is_no_token_is_sent_to_nobody() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    // Nothing listens there: whoever asked it would end with 5.
    for token in [" ", "a b", "a\u{1}b"] {
        let ended = host.agent(&["enrol", "--server", "http://127.0.0.1:1", "--host", "tim-pi", "--token", token], &[]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.err.contains("holds none"), "{ended:?}");
    }
}

#[test]
fn a_host_without_certificates_of_authorities_needs_none_for_plain_http() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    plane.deploy("one", &[("a", "1")]);
    let nowhere = host.path().join("nowhere").display().to_string();
    let none = [("SSL_CERT_FILE", nowhere.as_str()), ("SSL_CERT_DIR", nowhere.as_str())];
    let ended = host.agent(&["once"], &none);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(host.files_of("one"), map(&[("a", "1")]));
}

#[test]
fn exit_codes_say_whose_turn_it_is() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    assert_eq!(host.agent(&["once", "--nonsense"], &[]).code, Some(2));
    host.configure("server: http://127.0.0.1:1");
    assert_eq!(host.once().code, Some(5));
    host.configure("serverr: x");
    let ended = host.once();
    assert!(ended.code == Some(2) && ended.err.contains("agent.yaml") && ended.err.contains("serverr"), "{ended:?}");
    host.configure("");
    let ended = host.agent(&["doctor"], &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.out.contains("answers and knows this host"), "{ended:?}");
    std::fs::remove_file(host.state().join("identity.json")).unwrap();
    let ended = host.once();
    assert!(ended.code == Some(3) && ended.err.contains("join-command"), "{ended:?}");
    assert_eq!(host.agent(&["doctor"], &[]).code, Some(1));
    assert_eq!(host.agent(&["status"], &[]).code, Some(3));
}
