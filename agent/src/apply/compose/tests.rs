//! Refusals without an engine, and the rest with podman-compose against a real podman.

use std::time::Instant;

use super::*;
use crate::apply::podman::tests::{
    Bench, bundle,
    service::{self, IMAGE},
    target, until,
};

fn read(files: &[(&str, &str)], allowed: &Allowed) -> Result<Project, ApplyError> {
    Project::read(&bundle(files), allowed)
}

fn service(keys: &str) -> String {
    format!("services:\n  web:\n    image: quay.io/team/app:1\n    {keys}\nvolumes: {{ data: {{}} }}\n")
}

#[test]
fn whatever_goes_beyond_what_the_owner_allows_is_refused_with_the_key_that_would_allow_it() {
    let registries = vec!["quay.io/team".to_owned()];
    let allowed = Allowed { registries, mounts: vec!["/srv".into()], ..Allowed::default() };
    for (yaml, key) in [
        (service("privileged: true"), "privileged"),
        (service("network_mode: host"), "privileged"),
        (service("network_mode: container:other"), "privileged"),
        (service("pid: host"), "privileged"),
        (service("ipc: host"), "privileged"),
        (service("userns_mode: host"), "privileged"),
        (service("devices: [/dev/sda]"), "privileged"),
        (service("cap_add: [SYS_ADMIN]"), "privileged"),
        (service("security_opt: [seccomp=unconfined]"), "privileged"),
        (service("logging: { driver: k8s-file, options: { path: /etc/cron.d/x } }"), "privileged"),
        (service("deploy: { resources: { reservations: { devices: [{ capabilities: [gpu] }] } } }"), "privileged"),
        (service("volumes: [/etc:/etc]"), "mounts"),
        (service("volumes: [../two:/x]"), "mounts"),
        (service("volumes: [{ type: bind, source: /var/run/docker.sock, target: /s }]"), "mounts"),
        (service("volumes: [{ type: bind, source: /srv/x, target: /s, bind: { propagation: shared } }]"), "privileged"),
        (service("") + "secrets: { s: { file: /etc/shadow } }", "mounts"),
        (service("").replace("data: {}", "data: { driver_opts: { device: /etc, o: bind } }"), "privileged"),
        (service("") + "networks: { n: { driver: host } }", "privileged"),
        (service("").replace("quay.io/team", "quay.io/others"), "registries"),
    ] {
        let error = read(&[("compose.yaml", &yaml)], &allowed).expect_err(&yaml);
        let wanted = format!("appliers.compose.{key}");
        assert!(matches!(&error, ApplyError::Beyond { key, .. } if *key == wanted), "{yaml}: {error}");
    }
    for yaml in [
        service("volumes: [./conf:/conf:ro, data:/data, /srv/x:/x, /anonymous]"),
        service("privileged: false"),
        service("network_mode: none"),
        service("command: [echo, '$$5']"),
    ] {
        read(&[("compose.yaml", &yaml)], &allowed).unwrap_or_else(|error| panic!("{yaml}: {error}"));
    }
}

#[test]
fn what_is_not_understood_is_refused_with_its_place() {
    let allowed = Allowed { privileged: true, ..Allowed::default() };
    for (yaml, sign) in [
        (service("build: ."), "services.web.build"),
        (service("extends: { file: other.yaml, service: x }"), "services.web.extends"),
        ("include: [other.yaml]\n".to_owned() + &service(""), "include"),
        (service("container_name: sshd"), "container_name"),
        (service("surprise: 1"), "services.web.surprise"),
        (service("environment: { A: '${SECRET}' }"), "variable"),
        (service("volumes: ['$HOME:/x']"), "variable"),
        (service("env_file: /etc/environment"), "not in the bundle"),
        (service("environment: [PATH]"), "key=value"),
        (service("volumes: [others:/x]"), "not among"),
        (service("volumes: [~/x:/x]"), "home directory"),
        (service("volumes: ['a:b:c:d']"), "source:target"),
        (service("volumes: [./x:/x:shared]"), "long form"),
        (service("labels: { titan.deployment: x }"), "titan.deployment"),
        (service("") + "volumes: 1\n", "compose.yaml"),
        (service("").replace("data: {}", "data: { external: true }"), "volumes.data.external"),
        (service("").replace("image: quay.io/team/app:1", "command: x"), "no image"),
        ("services: {}".to_owned(), "at least one"),
        ("- x".to_owned(), "not a mapping"),
        ("a: [".to_owned(), "compose.yaml"),
    ] {
        let error = read(&[("compose.yaml", &yaml)], &allowed).expect_err(sign).to_string();
        assert!(error.contains(sign), "{yaml}: {error}");
    }
    assert!(read(&[("pod.yaml", "")], &allowed).expect_err("none").to_string().contains("compose.yaml"));
    let two = [("compose.yaml", "services: {}"), ("docker-compose.yml", "services: {}")];
    assert!(read(&two, &allowed).expect_err("two").to_string().contains("second file"));
}

#[test]
fn compose_is_given_nothing_to_look_up() {
    let yaml = service("volumes: [./conf:/conf:ro, data:/data]\n    env_file: app.env\n    environment: { B: own }");
    let files = [("compose.yaml", yaml.as_str()), ("app.env", "# first\nA=$5\nB=file\n"), ("conf/x", "1")];
    let project = read(&files, &Allowed::default()).expect("project");
    let text = project.document(Path::new("/home/of"), |_| vec![("titan.home".to_owned(), "default/one".to_owned())]);
    let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let web = &document["services"]["web"];
    assert_eq!(web["volumes"][0]["source"], "/home/of/conf");
    assert_eq!(web["environment"], serde_json::json!({ "A": "$$5", "B": "own" }));
    assert_eq!(web["labels"]["titan.home"], "default/one");
    assert_eq!(web["pull_policy"], "never");
    // A service changes with the files that it mounts, and with no others.
    let digest = |files: &[(&str, &str)]| read(files, &Allowed::default()).expect("project").services["web"].digest;
    let changed = |path: &str, content: &'static str| {
        let mut files = files;
        files.iter_mut().filter(|file| file.0 == path).for_each(|file| file.1 = content);
        digest(&files)
            != digest(&[("compose.yaml", yaml.as_str()), ("app.env", "# first\nA=$5\nB=file\n"), ("conf/x", "1")])
    };
    assert!(changed("conf/x", "2") && changed("app.env", "A=6\n") && !changed("app.env", "A=$5\n#\nB=file"));
}

#[test]
fn projects_are_named_after_their_deployment_if_the_owner_allows_it() {
    let Some(bench) = Bench::alone() else { return };
    let one = target("one", "");
    let files = bundle(&[("compose.yaml", &service(""))]);
    let allowed = Allowed { projects: vec!["other-*".to_owned()], ..Allowed::default() };
    let error = Compose::open(&allowed, &bench.ground()).expect("open").plan(&one, &files).expect_err("beyond");
    assert!(
        error.to_string().contains("default-one") && error.to_string().contains("appliers.compose.projects"),
        "{error}"
    );
    let claims = Compose::open(&Allowed::default(), &bench.ground()).expect("open").plan(&one, &files).expect("plan");
    assert!(claims.keys().map(ToString::to_string).eq(["project:default-one"]));
    let allowed = Allowed { command: vec![], ..Allowed::default() };
    assert!(
        Compose::open(&allowed, &bench.ground()).expect_err("none").to_string().contains("appliers.compose.command")
    );
}

/// What podman-compose is run with here.
fn allowed(service: &service::Podman) -> Allowed {
    let (key, value) = service.environment();
    let command = vec!["/usr/bin/env".to_owned(), format!("{key}={value}"), "podman-compose".to_owned()];
    Allowed { command, privileged: true, ..Allowed::default() }
}

struct Case {
    target: Target,
    bundle: Bundle,
    home: PathBuf,
    before: Claims,
    after: Claims,
}

impl Case {
    fn new(bench: &Bench, compose: &Compose, before: Claims, yaml: &str) -> Self {
        let (target, bundle) = (target("one", yaml), bundle(&[("compose.yaml", yaml)]));
        let after = compose.plan(&target, &bundle).expect("plan");
        Self { target, bundle, home: bench.home(), before, after }
    }

    fn work(&self) -> Work<'_> {
        let Self { target, bundle, home, before, after } = self;
        Work { target, home, bundle: Some(bundle), before, after }
    }

    fn prepare(&self, compose: &mut Compose) -> Result<(), ApplyError> {
        until("prepared", || match compose.prepare(&self.work()) {
            Ok(Readiness::Ready) => Some(Ok(())),
            Ok(Readiness::Underway(_)) => None,
            Err(error) => Some(Err(error)),
        })
    }

    fn observe(&self, compose: &mut Compose) -> Observation {
        let seen = compose.observe(&Work { before: &self.after, ..self.work() }).expect("observe");
        seen.into_iter().next().expect("one")
    }

    fn apply(&self, compose: &mut Compose) {
        self.prepare(compose).expect("prepare");
        compose.apply(&self.work()).expect("apply");
    }

    fn well(&self, compose: &mut Compose) {
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            match self.observe(compose).condition {
                Condition::Well => return,
                Condition::Failed(why) => panic!("{why}"),
                other => assert!(Instant::now() < deadline, "still {other:?} after a minute"),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn a_project_is_brought_up_changed_mended_and_taken_down() {
    let Some(bench) = Bench::alone() else { return };
    let began = Instant::now();
    let mut compose = Compose::open(&allowed(&bench.service), &bench.ground()).expect("open");
    let yaml = |script: &str| {
        format!(
            "services:\n  web:\n    image: {IMAGE}\n    restart: always\n    stop_grace_period: 1s\n    \
             command: [sh, -c, \"{script}\"]\n    volumes: [./conf:/conf, data:/data]\nvolumes: {{ data: {{}} }}\n"
        )
    };
    let case = Case::new(&bench, &compose, Claims::new(), &yaml("cat /conf/x > /data/x; sleep 600"));
    std::fs::create_dir_all(case.home.join("conf")).expect("dir");
    std::fs::write(case.home.join("conf/x"), "from home").expect("file");
    case.apply(&mut compose);
    case.well(&mut compose);
    let id = |bench: &Bench| {
        let filter = ["ps", "-q", "--no-trunc", "--filter", "label=titan.home=default/one"];
        bench.service.run(&filter).expect("ps")
    };
    let first = id(&bench);
    assert_eq!(bench.service.run(&["exec", &first, "cat", "/data/x"]).expect("exec"), "from home");
    // Stopped by a person.
    bench.service.run(&["stop", "-t", "0", &first]).expect("stop");
    let drift = until("drift", || case.observe(&mut compose).drift);
    assert_eq!((drift.what.as_str(), drift.how.as_str()), ("project:default-one", "stopped"));
    compose.apply(&Work { before: &Claims::new(), ..case.work() }).expect("apply");
    case.well(&mut compose);
    // Changed, and cut off before it is up.
    let next = Case::new(&bench, &compose, case.after.clone(), &yaml("sleep 601"));
    next.apply(&mut compose);
    drop(compose);
    let mut compose = Compose::open(&allowed(&bench.service), &bench.ground()).expect("open");
    next.well(&mut compose);
    assert_ne!(id(&bench), first);
    // One that does not work says so with its last words.
    let bad =
        Case::new(&bench, &compose, next.after.clone(), &yaml("echo my last words; exit 3").replace("always", "'no'"));
    bad.apply(&mut compose);
    let said = until("told", || match bad.observe(&mut compose).condition {
        Condition::Failed(why) => Some(why),
        _ => None,
    });
    assert!(said.contains("ended with 3") && said.contains("my last words"), "{said}");
    let back = Case::new(&bench, &compose, bad.after.clone(), &yaml("sleep 601"));
    back.apply(&mut compose);
    back.well(&mut compose);
    let none = Claims::new();
    let work = Work { bundle: None, before: &back.after, after: &none, ..back.work() };
    for _ in 0..2 {
        until("removed", || match compose.remove(&work).expect("remove") {
            Readiness::Ready => Some(()),
            Readiness::Underway(_) => None,
        });
    }
    assert_eq!(bench.service.run(&["ps", "-aq"]).expect("ps"), "");
    assert!(bench.exists("volume", "default-one_data"), "data stays");
    assert!(!bench.ground().state.file("compose/default-one").exists());
    assert!(began.elapsed() < Duration::from_mins(5));
}

#[test]
fn a_project_of_somebody_else_is_refused_and_left_alone() {
    let Some(bench) = Bench::alone() else { return };
    let label = "com.docker.compose.project=default-one";
    let theirs = bench
        .service
        .run(&["run", "-d", "--network", "host", "--label", label, IMAGE, "sleep", "600"])
        .expect("a person's container");
    let mut compose = Compose::open(&allowed(&bench.service), &bench.ground()).expect("open");
    let yaml = format!("services: {{ web: {{ image: {IMAGE} }} }}");
    let case = Case::new(&bench, &compose, Claims::new(), &yaml);
    let error = case.prepare(&mut compose).expect_err("foreign");
    assert!(matches!(error, ApplyError::Foreign(_)), "{error}");
    let error = compose.apply(&case.work()).expect_err("foreign");
    assert!(matches!(error, ApplyError::Foreign(_)), "{error}");
    let none = Claims::new();
    let work = Work { bundle: None, before: &case.after, after: &none, ..case.work() };
    until("removed", || (compose.remove(&work).expect("remove") == Readiness::Ready).then_some(()));
    assert_eq!(bench.service.run(&["ps", "-q", "--no-trunc"]).expect("ps"), theirs);
}

#[test]
fn what_happens_to_a_container_wakes_the_agent() {
    let Some(bench) = Bench::alone() else { return };
    let mut compose = Compose::open(&allowed(&bench.service), &bench.ground()).expect("open");
    compose.watch();
    let yaml = format!("services: {{ web: {{ image: {IMAGE}, stop_grace_period: 1s, command: [sleep, '600'] }} }}");
    let case = Case::new(&bench, &compose, Claims::new(), &yaml);
    case.apply(&mut compose);
    case.well(&mut compose);
    let stirred = || bench.ground().wake.take().contains(&titan_api::templates::Applier::Compose).then_some(());
    let act = |arguments: &[&str]| bench.service.run(arguments).expect("podman");
    let id = act(&["ps", "-q", "--filter", "label=titan.home=default/one"]);
    // From when its events are followed.
    until("the first wake", || {
        act(&["pause", &id]);
        act(&["unpause", &id]);
        stirred()
    });
    act(&["stop", "-t", "0", &id]);
    until("the wake", stirred);
    let drift = until("drift", || case.observe(&mut compose).drift);
    assert_eq!(drift.how, "stopped");
    let none = Claims::new();
    let work = Work { bundle: None, before: &case.after, after: &none, ..case.work() };
    until("removed", || (compose.remove(&work).expect("remove") == Readiness::Ready).then_some(()));
}
