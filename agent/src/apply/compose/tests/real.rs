//! With podman-compose against a real podman.

use std::time::Instant;

use super::*;
use crate::apply::podman::tests::{
    Bench,
    service::{self, IMAGE},
    until,
};

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
