use titan_api::{Name, Revision, poll, templates::FileMode};

use titan_api::Digest;

use super::*;

fn target() -> Target {
    Target {
        id: uuid::Uuid::from_u128(1),
        workspace: Name::new("default").expect("name"),
        name: Name::new("web").expect("name"),
        release: "web#1".into(),
        revision: Revision::ZERO,
        digest: Digest::of(b""),
        depends_on: vec![],
    }
}

fn bundle(files: &[(&str, &str)]) -> Bundle {
    let file = |(path, content): &(&str, &str)| poll::BundleFile {
        path: (*path).to_owned(),
        rooted: path.starts_with("etc/"),
        mode: FileMode::PLAIN,
        owner: None,
        group: None,
        content: Some((*content).to_owned()),
        content_base64: None,
    };
    poll::Bundle { files: files.iter().map(file).collect(), ..poll::Bundle::default() }.try_into().expect("bundle")
}

fn read(files: &[(&str, &str)]) -> Result<Units, ApplyError> {
    Units::read(&target(), &bundle(files))
}

const RUNS: &str = "[Service]\nExecStart=/bin/x\n";

/// Returns the units whose digest differs.
fn changed(before: &[(&str, &str)], after: &[(&str, &str)]) -> Vec<String> {
    let (before, after) = (read(before).expect("before").claims, read(after).expect("after").claims);
    after
        .iter()
        .filter(|(claim, digest)| before.get(*claim) != Some(*digest))
        .map(|(claim, _)| claim.to_string())
        .collect()
}

#[test]
fn units_are_at_the_top_and_drop_ins_beside_them() {
    let units = read(&[
        ("app.service", "[Service]\nExecStart=/x\n[Install]\nWantedBy=multi-user.target\nAlias=web.service\n"),
        ("app.service.d/10-a.conf", "[Service]\nNice=1\n"),
        ("ssh.service.d/20-b.conf", "[Service]\nNice=1\n[X-Titan]\nOnChange=reload\n"),
        ("conf/other.service", "no unit"),
        ("readme", ""),
    ])
    .expect("units");
    let links: Vec<_> = units.links.iter().map(|(claim, file)| format!("{claim} {file}")).collect();
    assert_eq!(
        links,
        [
            "alias:web.service app.service",
            "dropin:app.service.d/10-a.conf app.service.d/10-a.conf",
            "dropin:ssh.service.d/20-b.conf ssh.service.d/20-b.conf",
            "enabled:multi-user.target.wants/app.service app.service",
            "unit:app.service app.service",
        ]
    );
    assert_eq!(units.claims.keys().map(ToString::to_string).collect::<Vec<_>>().len(), 5);
    assert_eq!(units.others["ssh.service"], OnChange::Reload);
}

#[test]
fn what_others_start_is_not_started_by_itself() {
    let units = read(&[
        ("job.service", "[Unit]\nOnFailure=cry.service\n[Service]\nType=oneshot\nExecStart=/x\n"),
        ("job.timer", "[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target\n"),
        ("cry.service", RUNS),
        ("web.socket", "[Socket]\nListenStream=80\nService=httpd.service\n"),
        ("httpd.service", RUNS),
        ("both.path", "[Path]\nPathExists=/x\n"),
        ("both.service", "[Service]\nExecStart=/x\n[Install]\nWantedBy=multi-user.target\n"),
        ("off.service", "[Service]\nExecStart=/x\n[X-Titan]\nStart=no\n"),
        ("on.service", RUNS),
        ("a.slice", "[Slice]\nCPUWeight=1\n"),
    ])
    .expect("units");
    let start = |name: &str| units.own[name].start;
    for (name, expected) in [
        ("job.service", Start::ByOthers { restart: false }),
        ("cry.service", Start::ByOthers { restart: false }),
        ("httpd.service", Start::ByOthers { restart: true }),
        ("off.service", Start::ByOthers { restart: true }),
        ("a.slice", Start::ByOthers { restart: false }),
        ("job.timer", Start::Now),
        ("web.socket", Start::Now),
        ("both.service", Start::Now),
        ("on.service", Start::Now),
    ] {
        assert_eq!(start(name), expected, "{name}");
    }
    assert!(units.own["job.service"].ends && !units.own["on.service"].ends);
    assert_eq!(units.own["web.socket"].activates, ["httpd.service"]);
}

#[test]
fn templates_run_as_their_instances() {
    let units = read(&[
        ("w@.service", "[Service]\nExecStart=/x %i\n[Install]\nWantedBy=multi-user.target\n[X-Titan]\nInstances=a b\n"),
        ("w@a.service.d/x.conf", "[Service]\nNice=1\n"),
    ])
    .expect("units");
    assert_eq!(units.own.keys().collect::<Vec<_>>(), ["w@.service", "w@a.service", "w@b.service"]);
    assert_eq!(units.observed().into_iter().collect::<Vec<_>>(), ["w@a.service", "w@b.service"]);
    let enabled = Claim::new(ENABLED, "multi-user.target.wants/w@b.service");
    assert_eq!(units.links[&enabled], "w@.service");
    assert!(units.others.is_empty());
    let text = |instances: &str| format!("{RUNS}[X-Titan]\nInstances={instances}\n");
    assert!(read(&[("w@.service", &text("a/b"))]).is_err());
    let many: Vec<_> = (0..=INSTANCES).map(|n| n.to_string()).collect();
    assert!(read(&[("w@.service", &text(&many[1..].join(" ")))]).is_ok());
    assert!(read(&[("w@.service", &text(&many.join(" ")))]).is_err());
}

#[test]
fn only_units_that_are_made_from_what_changed_change() {
    let a = "[Service]\nExecStart=/srv/default/web/bin/a -c /srv/default/web/a.conf\n";
    let b = "[Service]\nExecStart=/bin/b\nEnvironmentFile=/etc/b/env\n";
    let base = [
        ("a.service", a),
        ("b.service", b),
        ("t.timer", "[Timer]\nUnit=b.service\nOnCalendar=daily\n"),
        ("b.service.d/x.conf", "[Service]\nNice=1\n"),
        ("a.conf", "1"),
        ("bin/a", "1"),
        ("etc/b/env", "1"),
        ("notes", "1"),
    ];
    let with =
        |path: &str, text: &'static str| base.map(|(name, old)| if name == path { (name, text) } else { (name, old) });
    assert!(changed(&base, &base).is_empty());
    assert_eq!(changed(&base, &with("a.conf", "2")), ["unit:a.service"]);
    assert_eq!(changed(&base, &with("bin/a", "2")), ["unit:a.service"]);
    assert_eq!(changed(&base, &with("etc/b/env", "2")), ["unit:b.service"]);
    assert_eq!(changed(&base, &with("notes", "2")), ["unit:a.service", "unit:b.service"]);
    let drop_in = with("b.service.d/x.conf", "[Service]\nNice=2\n");
    assert_eq!(changed(&base, &drop_in), ["dropin:b.service.d/x.conf", "unit:b.service"]);
    let timer = with("t.timer", "[Timer]\nUnit=b.service\nOnCalendar=weekly\n");
    assert_eq!(changed(&base, &timer), ["unit:t.timer"]);
}

#[test]
fn what_the_owner_does_not_allow_is_beyond() {
    let allowed = Settings { units: vec!["app*".into()], ..Settings::default() };
    let check = |files: &[(&str, &str)]| read(files).and_then(|units| units.check(&allowed));
    let install = |text: &str| format!("{RUNS}[Install]\n{text}\n");
    check(&[("app.service", &install("WantedBy=multi-user.target"))]).expect("a target may want it");
    check(&[("app.service", RUNS), ("app-b.timer.d/x.conf", "")]).expect("drop-in");
    for (path, text, sign) in [
        ("sshd.service", RUNS.to_owned(), "the unit sshd.service"),
        ("ssh.service.d/x.conf", String::new(), "the unit ssh.service"),
        ("app.service", install("Alias=sshd.service"), "the alias sshd.service"),
        ("app.service", install("WantedBy=sshd.service"), "that sshd.service wants app.service"),
        ("app.service", install("RequiredBy=multi-user.target"), "that multi-user.target requires app.service"),
    ] {
        let message = check(&[(path, &text)]).expect_err(sign).to_string();
        assert!(message.contains(sign) && message.contains("appliers.systemd.units"), "{message}");
    }
}

#[test]
fn bundles_that_cannot_be_units_say_why() {
    let large = format!("{RUNS}# {}", "x".repeat(UNIT_BYTES));
    for (path, text, sign) in [
        ("readme", "", "has no unit"),
        ("a.service", "[Service]\nnonsense\n", "line 2"),
        ("a.service", "[Install]\nWantedBy=../x\n", "no name of a unit"),
        ("a.service", "[Install]\nWantedBy=%h.target\n", "%i"),
        ("a.service", "[Install]\nAlias=b.timer\n", "another type"),
        ("a.service", "[Install]\nAlso=b.timer\n", "not in the bundle"),
        ("a.service", "[X-Titan]\nStart=perhaps\n", "neither yes nor no"),
        ("a.service", "[X-Titan]\nOnChange=x\n", "restart, reload or nothing"),
        ("a.service", &large, "bytes"),
    ] {
        let message = read(&[(path, text)]).expect_err(sign).to_string();
        assert!(message.contains(sign), "{message}");
    }
}
