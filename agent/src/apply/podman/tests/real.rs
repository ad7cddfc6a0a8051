//! Against a real podman, through the trait alone.

mod names;

use super::*;

/// A deployment on its way from one bundle to the next.
struct Case {
    target: Target,
    bundle: Bundle,
    home: PathBuf,
    before: Claims,
    after: Claims,
}

impl Case {
    fn new(bench: &Bench, applier: &Podman, yaml: &str) -> Self {
        let target = target("one", yaml);
        let bundle = bundle(&[("pods.yaml", yaml)]);
        let after = applier.plan(&target, &bundle).expect("plan");
        Self { target, bundle, home: bench.home(), before: Claims::new(), after }
    }

    /// The same deployment with another bundle.
    fn next(&self, applier: &Podman, yaml: &str) -> Self {
        let (target, bundle) = (target("one", yaml), bundle(&[("pods.yaml", yaml)]));
        let after = applier.plan(&target, &bundle).expect("plan");
        Self { target, bundle, home: self.home.clone(), before: self.after.clone(), after }
    }

    fn work(&self) -> Work<'_> {
        let Self { target, bundle, home, before, after } = self;
        Work { target, home, bundle: Some(bundle), before, after }
    }

    fn prepare(&self, applier: &mut Podman) -> Result<(), ApplyError> {
        until("prepared", || match applier.prepare(&self.work()) {
            Ok(Readiness::Ready) => Some(Ok(())),
            Ok(Readiness::Underway(_)) => None,
            Err(error) => Some(Err(error)),
        })
    }

    fn apply(&self, applier: &mut Podman) {
        self.prepare(applier).expect("prepare");
        applier.apply(&self.work()).expect("apply");
    }

    fn observe(&self, applier: &mut Podman) -> Vec<Observation> {
        let settled = Work { before: &self.after, ..self.work() };
        applier.observe(&settled).expect("observe")
    }

    fn well(&self, applier: &mut Podman) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let seen = self.observe(applier);
            if seen.iter().all(|seen| seen.condition == Condition::Well) {
                return;
            }
            assert!(!seen.iter().any(|seen| matches!(seen.condition, Condition::Failed(_))), "{seen:#?}");
            assert!(Instant::now() < deadline, "not well after a minute: {seen:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn drifted(&self, applier: &mut Podman) -> Drifted {
        until("drift", || {
            let seen = self.observe(applier).into_iter().filter_map(|seen| seen.drift);
            let drift: Drifted = seen.map(|drift| (drift.what, drift.how)).collect();
            (!drift.is_empty()).then_some(drift)
        })
    }

    /// Puts right what `drift` names.
    fn enforce(&self, applier: &mut Podman, drift: &Drifted) {
        let mut before = self.after.clone();
        before.retain(|claim, _| !drift.contains_key(&claim.to_string()));
        applier.apply(&Work { before: &before, ..self.work() }).expect("apply");
        self.well(applier);
    }

    fn remove(&self, applier: &mut Podman) {
        let none = Claims::new();
        let work = Work { bundle: None, before: &self.after, after: &none, ..self.work() };
        until("removed", || match applier.remove(&work).expect("remove") {
            Readiness::Ready => Some(()),
            Readiness::Underway(_) => None,
        });
    }
}

type Drifted = BTreeMap<String, String>;

#[test]
fn pods_are_made_and_only_the_changed_one_is_made_anew() {
    let Some(bench) = Bench::new() else { return };
    let mut applier = bench.open();
    let case = Case::new(&bench, &applier, &(pod("a", IMAGE, "sleep 600") + &pod("b", IMAGE, "sleep 600")));
    case.apply(&mut applier);
    case.well(&mut applier);
    let (a, b) = (bench.id("a"), bench.id("b"));
    // Ten times the same is nothing.
    for _ in 0..10 {
        case.apply(&mut applier);
        case.well(&mut applier);
    }
    assert_eq!((bench.id("a"), bench.id("b")), (a.clone(), b.clone()));
    let next = case.next(&applier, &(pod("a", IMAGE, "sleep 600") + &pod("b", IMAGE, "sleep 601")));
    next.apply(&mut applier);
    next.well(&mut applier);
    assert_eq!(bench.id("a"), a, "it did not change");
    assert_ne!(bench.id("b"), b, "it did");
    // One goes, another comes.
    let last = next.next(&applier, &(pod("b", IMAGE, "sleep 601") + &pod("c", IMAGE, "sleep 600")));
    last.apply(&mut applier);
    last.well(&mut applier);
    assert!(!bench.exists("pod", "a") && bench.exists("pod", "c"));
    last.remove(&mut applier);
    assert!(!bench.exists("pod", "b") && !bench.exists("pod", "c"));
    last.remove(&mut applier);
}

#[test]
fn what_is_not_ours_is_refused_and_left_alone() {
    let Some(bench) = Bench::new() else { return };
    bench.service.run(&["pod", "create", "--name", "a", "--network", "host"]).expect("a person's pod");
    bench.service.run(&["volume", "create", "data"]).expect("a person's volume");
    let (id, mut applier) = (bench.id("a"), bench.open());
    let volume = "---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: { name: data }\n";
    for yaml in [pod("a", IMAGE, "sleep 600"), pod("z", IMAGE, "sleep 600") + volume] {
        let case = Case::new(&bench, &applier, &yaml);
        let error = case.prepare(&mut applier).expect_err("foreign");
        assert!(matches!(&error, ApplyError::Foreign(_)), "{error}");
        // Somebody may be faster than the look before.
        applier.apply(&case.work()).expect("apply");
        until("told", || {
            let seen = case.observe(&mut applier);
            seen.iter()
                .any(|seen| matches!(&seen.condition, Condition::Failed(why) if why.contains("was not made")))
                .then_some(())
        });
        case.remove(&mut applier);
    }
    assert_eq!(bench.id("a"), id);
    assert!(bench.exists("volume", "data"));
    // The owner may allow it.
    let mut adopting = bench.open_with(&Allowed { adopt: true, ..bench.allowed() });
    let case = Case::new(&bench, &adopting, &pod("a", IMAGE, "sleep 600"));
    case.apply(&mut adopting);
    case.well(&mut adopting);
    assert_ne!(bench.id("a"), id);
}

#[test]
fn what_another_deployment_left_is_taken_over_if_it_was_left_to_this_one_or_may_be_adopted() {
    let Some(bench) = Bench::new() else { return };
    let mut applier = bench.open();
    let volume = "---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: { name: data }\n";
    let yaml = pod("a", IMAGE, "sleep 600") + volume;
    let giver = Case::new(&bench, &applier, &yaml);
    giver.apply(&mut applier);
    giver.well(&mut applier);
    let of = |applier: &Podman, name: &str, id: u128| {
        let mut case = Case::new(&bench, applier, &yaml);
        case.target = Target { id: Uuid::from_u128(id), ..target(name, &yaml) };
        case.after = applier.plan(&case.target, &case.bundle).expect("plan");
        case
    };
    // Left to it, as the ledger says.
    let heir = Case { before: giver.after.clone(), ..of(&applier, "heir", 8) };
    let id = bench.id("a");
    heir.apply(&mut applier);
    heir.well(&mut applier);
    let inherited = bench.id("a");
    assert_ne!(inherited, id, "it has the marks of its heir");
    // The giver has nothing of it any more.
    giver.remove(&mut applier);
    assert!(bench.id("a") == inherited && bench.exists("volume", "data"));
    // Left to nobody.
    let stranger = of(&applier, "stranger", 9);
    stranger.apply(&mut applier);
    until("told", || {
        let seen = stranger.observe(&mut applier);
        let told =
            |seen: &Observation| matches!(&seen.condition, Condition::Failed(why) if why.contains("was not made"));
        seen.iter().any(told).then_some(())
    });
    assert_eq!(bench.id("a"), inherited);
    let mut adopting = bench.open_with(&Allowed { adopt: true, ..bench.allowed() });
    stranger.apply(&mut adopting);
    stranger.well(&mut adopting);
    assert_ne!(bench.id("a"), inherited);
}

#[test]
fn what_people_do_to_pods_is_seen_and_put_right() {
    let Some(bench) = Bench::new() else { return };
    let mut applier = bench.open();
    let case = Case::new(&bench, &applier, &(pod("a", IMAGE, "sleep 600") + &pod("b", IMAGE, "sleep 600")));
    case.apply(&mut applier);
    case.well(&mut applier);
    let b = bench.id("b");
    applier.watch();
    until("watching", || bench.wake.take().contains(&Kind::Podman).then_some(()));
    type Deed<'a> = (&'a [&'a [&'a str]], &'a str);
    let deeds: [Deed<'_>; 5] = [
        (&[&["stop", "-t", "0", "a-main"]], "stopped"),
        (&[&["pause", "a-main"]], "paused"),
        (&[&["rm", "-f", "-t", "0", "a-main"]], "missing containers"),
        (&[&["pod", "rm", "-f", "-t", "0", "a"]], "missing"),
        (&[&["pod", "rm", "-f", "-t", "0", "a"], &["pod", "create", "--name", "a", "--network", "host"]], "replaced"),
    ];
    for (commands, how) in deeds {
        bench.wake.take();
        for command in commands {
            bench.service.run(command).expect("a person's command");
        }
        until("woken", || bench.wake.take().contains(&Kind::Podman).then_some(()));
        let drift = case.drifted(&mut applier);
        assert_eq!(drift, BTreeMap::from([("pod:a".to_owned(), how.to_owned())]));
        case.enforce(&mut applier, &drift);
    }
    assert_eq!(bench.id("b"), b, "nobody touched it");
    case.remove(&mut applier);
}

#[test]
fn a_pod_that_does_not_work_is_told_with_its_last_words() {
    let Some(bench) = Bench::new() else { return };
    let mut applier = bench.open();
    let bad = |yaml: &str, applier: &mut Podman, sign: &str| {
        let case = Case::new(&bench, applier, yaml);
        case.apply(applier);
        let deadline = Instant::now() + Duration::from_mins(3);
        let said = loop {
            let seen = case.observe(applier);
            let why = seen.iter().find_map(|seen| match &seen.condition {
                Condition::Ill(why) | Condition::Failed(why) if why.contains(sign) => Some(why.clone()),
                _ => None,
            });
            if let Some(why) = why {
                break why;
            }
            assert!(Instant::now() < deadline, "not told of {sign} after three minutes, but {seen:?}");
            std::thread::sleep(Duration::from_millis(50));
        };
        case.remove(applier);
        said
    };
    let said = bad(&pod("crash", IMAGE, "echo my last words; exit 3"), &mut applier, "my last words");
    assert!(said.contains("crash-main"), "{said}");
    let never = pod("never", IMAGE, "echo it went wrong; exit 4").replace("  hostN", "  restartPolicy: Never\n  hostN");
    let said = bad(&never, &mut applier, "it went wrong");
    assert!(said.contains("ended with 4"), "{said}");
    bad(&pod("nope", IMAGE, "x").replace("/bin/sh", "/bin/nope"), &mut applier, "/bin/nope");
    let probe =
        "    livenessProbe: { exec: { command: [/bin/test, -e, /ok] }, periodSeconds: 1, failureThreshold: 1 }\n";
    let ill = pod("ill", IMAGE, "echo not well; trap exit TERM; sleep 600 & wait") + probe;
    bad(&ill, &mut applier, "health");
    let well = pod("well", IMAGE, "touch /ok; sleep 600") + probe;
    let case = Case::new(&bench, &applier, &well);
    case.apply(&mut applier);
    case.well(&mut applier);
    // One that has done its work is well.
    let once = pod("once", IMAGE, "exit 0").replace("  hostN", "  restartPolicy: OnFailure\n  hostN");
    let case = Case::new(&bench, &applier, &once);
    case.apply(&mut applier);
    case.well(&mut applier);
}

#[test]
fn volumes_follow_the_bundle_and_data_outlives_its_deployment() {
    let Some(bench) = Bench::new() else { return };
    let mut applier = bench.open();
    let yaml = |greeting: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: conf }}\ndata: {{ greeting: {greeting}, {greeting}: x }}\n\
             ---\napiVersion: v1\nkind: Secret\nmetadata: {{ name: key }}\nstringData: {{ word: hush }}\n\
             ---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{ name: data }}\n\
             ---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{ name: cache, annotations: {{ titan/on-remove: delete }} }}\n\
             {}    env: [{{ name: WORD, valueFrom: {{ secretKeyRef: {{ name: key, key: word }} }} }}]\n    \
             volumeMounts: [{{ name: c, mountPath: /c }}, {{ name: d, mountPath: /d }}, {{ name: own, mountPath: /own }}]\n  \
             volumes:\n  - {{ name: c, configMap: {{ name: conf }} }}\n  \
             - {{ name: d, persistentVolumeClaim: {{ claimName: data }} }}\n  \
             - {{ name: own, hostPath: {{ path: ./ }} }}\n",
            pod("a", IMAGE, "sleep 600")
        )
    };
    let case = Case::new(&bench, &applier, &yaml("hello"));
    std::fs::write(case.home.join("mine"), "from home").expect("file");
    case.apply(&mut applier);
    case.well(&mut applier);
    let run = |command: &[&str]| bench.service.run(&[&["exec", "a-main"], command].concat()).expect("exec");
    assert_eq!(run(&["cat", "/c/greeting", "/own/mine"]), "hellofrom home");
    assert_eq!(run(&["sh", "-c", "echo $WORD; echo kept > /d/file"]), "hush");
    let next = case.next(&applier, &yaml("ahoy"));
    next.apply(&mut applier);
    next.well(&mut applier);
    assert_eq!(run(&["cat", "/c/greeting", "/d/file"]), "ahoykept");
    assert!(bench.service.run(&["exec", "a-main", "cat", "/c/hello"]).is_err(), "a key that is gone");
    next.remove(&mut applier);
    assert!(!bench.exists("volume", "conf") && !bench.exists("volume", "cache") && bench.exists("volume", "data"));
    // Made again under another assignment, it has its data again.
    let mut again = Case::new(&bench, &applier, &yaml("hello"));
    again.target.id = Uuid::from_u128(8);
    again.apply(&mut applier);
    again.well(&mut applier);
    assert_eq!(run(&["cat", "/d/file"]), "kept");
}

#[test]
fn what_was_cut_off_is_begun_again() {
    let Some(bench) = Bench::new() else { return };
    let mut applier = bench.open();
    let old = Case::new(&bench, &applier, &pod("a", IMAGE, "sleep 600"));
    old.apply(&mut applier);
    // It is gone before anything came of it.
    drop(applier);
    let mut applier = bench.open();
    old.well(&mut applier);
    let id = bench.id("a");
    let new = old.next(&applier, &pod("a", IMAGE, "sleep 601"));
    new.apply(&mut applier);
    drop(applier);
    let mut applier = bench.open();
    new.well(&mut applier);
    assert_ne!(bench.id("a"), id);
    // The bad one is still being made when the old one is wanted back.
    let bad = new.next(&applier, &pod("a", IMAGE, "exit 1"));
    bad.apply(&mut applier);
    let mut back = Case::new(&bench, &applier, &pod("a", IMAGE, "sleep 601"));
    back.before = bad.after;
    back.apply(&mut applier);
    back.well(&mut applier);
    let command = bench.service.run(&["inspect", "-f", "{{.Config.Entrypoint}} {{.Args}}", "a-main"]).expect("inspect");
    assert!(command.contains("sleep 601"), "{command}");
}

#[test]
fn images_are_pulled_before_the_switch_and_go_when_nobody_wants_them() {
    let Some(bench) = Bench::new() else { return };
    let Some(registry) = bench.service.registry() else { return };
    let push = |version: &str| {
        let name = format!("{}/box:{version}", registry.address);
        bench.service.import(&name, version).expect("import");
        let file = bench.folder.path().join("digest");
        bench.service.run(&["push", "-q", "--digestfile", &file.to_string_lossy(), &name]).expect("push");
        let digest = std::fs::read_to_string(&file).expect("digest");
        bench.service.run(&["rmi", &name]).expect("rmi");
        (name, format!("{}/box@{digest}", registry.address))
    };
    let ((one, _), (_, two)) = (push("1"), push("2"));
    let mut applier = bench.open();
    let case = Case::new(&bench, &applier, &pod("a", &one, "sleep 600"));
    assert!(
        matches!(applier.prepare(&case.work()).expect("prepare"), Readiness::Underway(text) if text.contains(&one))
    );
    case.apply(&mut applier);
    case.well(&mut applier);
    let version = || bench.service.run(&["exec", "a-main", "cat", "/version"]).expect("exec");
    assert_eq!(version(), "1");
    let next = case.next(&applier, &pod("a", &two, "sleep 600"));
    next.apply(&mut applier);
    next.well(&mut applier);
    assert_eq!(version(), "2");
    // Pinned while the bundle before may come back, and then it needs no registry.
    applier.keep(&[case.target.digest, next.target.digest].into()).expect("keep");
    drop(registry);
    let mut back = Case::new(&bench, &applier, &pod("a", &one, "sleep 600"));
    back.before.clone_from(&next.after);
    back.apply(&mut applier);
    back.well(&mut applier);
    assert_eq!(version(), "1");
    let nowhere = format!("{}@sha256:{}", two.split_once('@').expect("digest").0, "0".repeat(64));
    let missing = case.next(&applier, &pod("a", &nowhere, "sleep 600"));
    let error = missing.prepare(&mut applier).expect_err("no registry").to_string();
    assert!(error.contains("000"), "{error}");
    assert_eq!(version(), "1", "nothing was touched");
    until("swept", || {
        applier.keep(&[back.target.digest].into()).expect("keep");
        bench.service.run(&["image", "exists", &two]).is_err().then_some(())
    });
    assert!(bench.exists("image", &one) && bench.exists("image", IMAGE));
    back.remove(&mut applier);
    until("swept", || {
        applier.keep(&BTreeSet::new()).expect("keep");
        bench.service.run(&["image", "exists", &one]).is_err().then_some(())
    });
    assert!(bench.exists("image", IMAGE), "a person's image");
}

#[test]
fn image_that_a_tag_does_not_mean_any_more_goes_with_the_last_bundle_that_had_it() {
    let Some(bench) = Bench::new() else { return };
    let Some(registry) = bench.service.registry() else { return };
    let name = format!("{}/moving:1", registry.address);
    let push = |version: &str| {
        bench.service.import(&name, version).expect("import");
        bench.service.run(&["push", "-q", &name]).expect("push");
        bench.service.run(&["rmi", &name]).expect("rmi");
    };
    let always =
        |command: &str| pod("a", &name, command).replace("    command:", "    imagePullPolicy: Always\n    command:");
    let mut applier = bench.open();
    push("1");
    let first = Case::new(&bench, &applier, &always("sleep 600"));
    first.apply(&mut applier);
    first.well(&mut applier);
    let old = bench.service.run(&["image", "inspect", "-f", "{{.Id}}", &name]).expect("an image");
    push("2");
    let second = first.next(&applier, &always("sleep 601"));
    second.apply(&mut applier);
    second.well(&mut applier);
    let new = bench.service.run(&["image", "inspect", "-f", "{{.Id}}", &name]).expect("an image");
    assert!(old != new && bench.exists("image", &old), "it is pinned");
    until("swept", || {
        applier.keep(&[second.target.digest].into()).expect("keep");
        bench.service.run(&["image", "exists", &old]).is_err().then_some(())
    });
    assert!(bench.exists("image", &new) && bench.exists("image", IMAGE));
    second.remove(&mut applier);
}

#[test]
fn a_host_that_cannot_have_quadlets_says_what_it_lacks() {
    let Some(bench) = Bench::new() else { return };
    let version = bench.service.run(&["version", "-f", "{{.Server.Version}}"]).expect("version");
    if !["4.0", "4.1", "4.2", "4.3"].iter().any(|old| version.starts_with(old)) {
        return;
    }
    let mut applier = bench.open();
    let files = [("web.container", "[Container]\nImage=localhost/titan/box:1\n")];
    let (target, bundle, home) = (target("one", ""), bundle(&files), bench.home());
    let (before, after) = (Claims::new(), applier.plan(&target, &bundle).expect("plan"));
    let work = Work { target: &target, home: &home, bundle: Some(&bundle), before: &before, after: &after };
    let error = applier.prepare(&work).expect_err("it is too old, or there is no systemd").to_string();
    let lacks = error.contains("does not run systemd") || error.contains("needs podman 4.4, and this is 4.");
    assert!(lacks && error.contains("describe pods as kube YAML"), "{error}");
}
