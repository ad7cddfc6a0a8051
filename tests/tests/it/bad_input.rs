//! Bad input, through the API and the command line: a problem with code and pointer, an exit code, and nothing written.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use titan_api::{
    Revision,
    changes::ApplyRequest,
    limits,
    plans::{Plan, PlanEffect},
    status::HostState,
};
use titan_tests::{
    manifests::{deployment, document, host, target, template, workload},
    operators::Operator,
    worlds::World,
};

/// What a render may take at most.
const RENDER_TIME: Duration = Duration::from_secs(1);
const RENDER_KILOBYTES: u64 = 256 * 1024;

async fn world() -> (World, Operator) {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let person = Operator::new(crate::NODE).expect("a directory");
    person.login(&world.plane.server, &world.plane.token).expect("logged in");
    world.settled().await.expect("decided");
    (world, person)
}

/// Everything by which one could tell that something was written.
async fn written(world: &World) -> (std::collections::BTreeMap<String, i64>, Revision) {
    (world.rows().await.expect("rows"), world.clock().await.expect("clock"))
}

fn files(files: &Value) -> Value {
    document("Template", None, "bad", &json!({ "files": files }))
}

/// S1-8, S1-13, S2-38, S3-22, S4-32.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn document_that_is_not_valid_is_refused_with_its_pointer_and_nothing_is_written() {
    let (world, person) = world().await;
    let before = written(&world).await;
    let large = "x".repeat(10 * 1024 * 1024);
    let many: Value = (0..=limits::TEMPLATE_FILES).map(|n| (format!("f{n}"), json!({"content": ""}))).collect();
    for (what, bad, code, pointer) in [
        ("unknown key", document("Host", None, "a", &json!({"kidn": "device"})), "invalid_document", "/spec/kidn"),
        (
            "wrong type",
            deployment("a", "w", "t", "x", &json!({"replicas": "many"})),
            "invalid_document",
            "/spec/replicas",
        ),
        (
            "negative count",
            deployment("a", "w", "t", "x", &json!({"replicas": -1})),
            "invalid_document",
            "/spec/replicas",
        ),
        ("bad label", titan_tests::manifests::labelled(host("a", ""), "a b=c"), "invalid_document", "/metadata/labels"),
        ("bad name", host("../x", ""), "invalid_document", "/metadata/name"),
        ("missing field", document("Deployment", None, "a", &json!({"workload": "w"})), "invalid_document", "/spec"),
        (
            "other version",
            json!({"apiVersion": "titan/v9", "kind": "Host", "metadata": {"name": "a"}}),
            "invalid_document",
            "/apiVersion",
        ),
        ("path that leaves", files(&json!({"../x": {"content": ""}})), "invalid_document", "/spec/files/..~1x"),
        (
            "absolute path",
            files(&json!({"/etc/passwd": {"content": ""}})),
            "invalid_document",
            "/spec/files/~1etc~1passwd",
        ),
        ("neither content", files(&json!({"a": {}})), "invalid_document", "/spec/files/a"),
        ("10 MB template", files(&json!({"a": {"content": large}})), "invalid_document", "/spec/files"),
        ("many files", files(&many), "invalid_document", "/spec/files"),
        ("no files", files(&json!({})), "invalid_document", "/spec/files"),
        ("broken syntax", template("bad", &[("a.j2", "ok\n{% if %}\n")]), "bad_template", "/spec/files/a.j2"),
        (
            "broken manifest",
            template("bad", &[("a", ""), ("template.yaml", "vlaues: {}\n")]),
            "bad_template",
            "/spec/files/template.yaml",
        ),
        ("target without a rule", document("Target", None, "a", &json!({})), "invalid_document", "/spec"),
        (
            "broken expression",
            document("Target", None, "a", &json!({"expression": "labels.("})),
            "invalid_document",
            "/spec/expression",
        ),
    ] {
        let refused = world.raw_apply(&[host("good", ""), bad.clone()]).await.expect("answered");
        assert_eq!((refused.status.as_u16(), refused.code()), (422, code), "{what}: {}", &refused.text);
        let wanted = format!("/resources/1{pointer}");
        assert!(refused.pointers().iter().any(|found| found.starts_with(&wanted)), "{what}: {}", &refused.text);
        assert!(refused.body["requestId"].is_string() && refused.body["detail"].is_string(), "{what}");

        person.write("bad.yaml", &bad.to_string()).expect("a file");
        let output = person.run("titan apply -f bad.yaml -o json").expect("run");
        let said = String::from_utf8_lossy(&output.stderr);
        let exit = output.status.code();
        assert!(matches!(exit, Some(2 | 4)), "{what}: {exit:?} {said}");
        let problem: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{what}: {error}: {said}"));
        if exit == Some(4) {
            assert_eq!(problem["code"], code, "{what}: {said}");
            assert!(problem["errors"][0]["pointer"].is_string(), "{what}: {said}");
        }
        assert!(!problem["detail"].as_str().unwrap_or_default().is_empty(), "{what}: {said}");
    }
    assert_eq!(written(&world).await, before);
}

/// S2-38.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn template_directory_with_a_symlink_or_too_much_in_it_is_refused() {
    let (world, person) = world().await;
    let before = written(&world).await;
    person.write("outside/secret", "secret\n").expect("a file");
    person.write("linked/plain", "plain\n").expect("a file");
    std::os::unix::fs::symlink("../outside/secret", person.directory().join("linked/secret")).expect("a link");
    person.write("folder/plain", "plain\n").expect("a file");
    std::os::unix::fs::symlink("../outside", person.directory().join("folder/inner")).expect("a link");
    person.write("large/file", &"x".repeat(10 * 1024 * 1024)).expect("a file");
    std::fs::create_dir(person.directory().join("empty")).expect("a directory");
    for (directory, part) in [("linked", "secret"), ("folder", "inner"), ("large", ""), ("empty", ""), ("missing", "")]
    {
        let (exit, problem) = person.json(&format!("titan create template bad -f ./{directory}")).expect("run");
        assert_eq!(exit, 2, "{directory}: {problem}");
        assert!(problem.to_string().contains(part), "{directory}: {problem}");
    }
    assert_eq!(written(&world).await, before);
}

/// S2-37, S2-41.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_that_make_no_sense_end_with_the_documented_exit_code() {
    let (world, person) = world().await;
    person.titan("titan create host taken").expect("made");
    let before = written(&world).await;
    for (line, exit) in [
        ("titan create host", 2),
        ("titan create host ../x", 2),
        ("titan create host a --labels a", 2),
        ("titan create host a --labels =b", 2),
        ("titan create nothing a", 2),
        ("titan get nothings", 2),
        ("titan apply -f missing.yaml", 2),
        ("titan get host missing", 3),
        ("titan status deployment missing", 3),
        ("titan host join-command missing", 3),
        ("titan create host taken", 4),
        ("titan create deployment a --workload none --template none --target none", 4),
        ("titan create workload a --repo https://a.example --workspace missing", 4),
        ("titan get hosts --token titan_admin_wrong", 4),
        ("titan get hosts --server http://127.0.0.1:1", 2),
        ("titan get hosts --server http://127.0.0.1:1 --token unknown", 5),
    ] {
        let output = person.run(line).expect("run");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(exit), "{line}: {said}");
        assert!(said.contains("error"), "{line}: {said}");
    }
    assert_eq!(written(&world).await, before);
}

/// S1-17.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicate_among_a_hundred_documents_refuses_all_of_them() {
    let (world, person) = world().await;
    let before = written(&world).await;
    let mut hosts: Vec<_> = (0..100).map(|index| host(&format!("h{index}"), "")).collect();
    hosts[99] = host("h13", "");
    let refused = world.raw_apply(&hosts).await.expect("answered");
    assert_eq!((refused.status.as_u16(), refused.pointers()), (422, vec!["/resources/99/metadata/name"]));
    let file: Vec<_> = hosts.iter().map(ToString::to_string).collect();
    person.write("hosts.yaml", &file.join("\n---\n")).expect("a file");
    let (exit, problem) = person.json("titan apply -f hosts.yaml").expect("run");
    assert!(matches!(exit, 2 | 4) && problem.to_string().contains("h13"), "{exit}: {problem}");
    assert_eq!(written(&world).await, before);
}

/// Returns the largest resident set of the render workers of this process so far, in kilobytes.
fn workers_kilobytes() -> u64 {
    let own = std::process::id().to_string();
    let most = |entry: std::fs::DirEntry| {
        // A child that is not yet another program still counts this one's memory as its own.
        let line = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
        if !line.contains("render-worker") {
            return None;
        }
        let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if field("PPid:")? != own {
            return None;
        }
        field("VmHWM:")?.trim_end_matches(" kB").parse().ok()
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(most).max().unwrap_or_default()
}

/// Plans a deployment of a template of this text.
async fn plan_of(world: &World, text: &str) -> titan_api::client::Result<Plan> {
    let resources = vec![
        template("bomb", &[("a.j2", text), ("template.yaml", "values: { x: x }\n")]),
        deployment("bomb", "w", "bomb", "all", &json!({})),
    ];
    world.admin.plan(&ApplyRequest { resources, ..ApplyRequest::default() }).await
}

/// Plans a deployment of a template of this text, sees to it that it fails, and returns how long that took.
async fn planned_bomb(world: &World, what: &str, text: &str) -> Duration {
    let begun = Instant::now();
    let planned = plan_of(world, text).await;
    let taken = begun.elapsed();
    match planned {
        // Stopped while it was rendered: this host fails.
        Ok(plan) => {
            let [group] = plan.groups.as_slice() else { panic!("{what}: {plan:?}") };
            assert_eq!((group.effect, group.count), (PlanEffect::Fail, 1), "{what}: {group:?}");
            // A worker that was ended for its memory cannot say any more at which line.
            assert!(group.detail.contains("a.j2") || group.detail.contains("stopped"), "{what}: {}", group.detail);
        }
        // Refused as it was read.
        Err(error) => assert!(error.code().is_some_and(|code| code.status() == 422), "{what}: {error:?}"),
    }
    taken
}

/// Templates that would go on for ever or take all memory: refused at once, or stopped while they render.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_loops_and_memory_bombs_are_stopped_in_a_second_and_256_megabytes() {
    let (world, _) = world().await;
    world.apply([host("pi", ""), workload("w", "1"), target("all", "")]).await.expect("written");
    world.settled().await.expect("decided");
    let before = written(&world).await;
    let doubled = format!(
        "{{% set ns = namespace(s='xxxxxxxx') %}}{}{{{{ ns.s|length }}}}",
        "{% set ns.s = ns.s ~ ns.s %}".repeat(40)
    );
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let sampler = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let mut most = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                most = most.max(workers_kilobytes());
                std::thread::sleep(Duration::from_millis(3));
            }
            most
        }
    });
    for (what, text) in [
        ("doubled", doubled.as_str()),
        (
            "doubled in a loop",
            "{% set ns = namespace(s='x') %}{% for i in range(64) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        ),
        ("format", "{{ '%0999999999d'|format(1) }}"),
        ("repeated list", "{{ (['x'] * 100000000)|join }}"),
        ("repeated variable", "{{ ([values.x] * 100000000)|join }}"),
        ("repeated text", "{{ values.x * 1000000000 }}"),
        (
            "endless",
            "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}",
        ),
        ("recursive", "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}"),
        (
            "long output",
            "{% for a in range(9999) %}{% for b in range(9999) %}xxxxxxxxxxxxxxxxxxxxxxxx{% endfor %}{% endfor %}",
        ),
    ] {
        // The cores are shared with every other test; how much they slow things down, a harmless plan tells.
        let mut late = Vec::new();
        for _ in 0..3 {
            let begun = Instant::now();
            plan_of(&world, "{{ values.x }}").await.expect("a plan");
            let allowed = RENDER_TIME * 2 + begun.elapsed() * 20;
            let taken = planned_bomb(&world, what, text).await;
            if taken <= allowed {
                late.clear();
                break;
            }
            late.push((taken, allowed));
        }
        assert!(late.is_empty(), "{what} took longer than it may: {late:?}");
        let alive = world.admin.plan(&ApplyRequest::default()).await;
        assert!(alive.is_ok(), "{what}: {alive:?}");
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let most = sampler.join().expect("sampled");
    assert!(most > 0 && most < RENDER_KILOBYTES, "{most} kB");
    assert_eq!(written(&world).await, before);
}

/// Law 8.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_that_cannot_be_rendered_keeps_its_last_release_and_the_others_go_on() {
    let (world, person) = world().await;
    let mut hosts = Vec::new();
    for (name, arch) in [("armed", Some("arm")), ("bare", None), ("other", Some("x86"))] {
        let mut host = world.host(name, "").await.expect("a host");
        let arch = arch.map(|arch| ("arch".to_owned(), json!(arch)));
        host.report_facts(arch.into_iter().collect()).await.expect("reported");
        hosts.push(host);
    }
    let documents = [
        template("t", &[("a.j2", "first\n")]),
        workload("w", "1"),
        target("all", ""),
        deployment("d", "w", "t", "all", &json!({})),
    ];
    world.apply(documents).await.expect("written");
    let clock = world.settled().await.expect("decided");
    for host in &mut hosts {
        host.catch_up(clock).await.expect("polled");
        assert_eq!(host.held["default/d"].files["a"], "first\n");
    }
    world.apply([template("t", &[("a.j2", "second\n{{ host.facts.arch }}\n")])]).await.expect("written");
    let clock = world.settled().await.expect("decided");
    for host in &mut hosts {
        host.catch_up(clock).await.expect("polled");
    }
    let now: Vec<_> = hosts.iter().map(|host| host.held["default/d"].files["a"].as_str()).collect();
    assert_eq!(now, ["second\narm\n", "first\n", "second\nx86\n"]);
    let status = world.admin.deployment_status("default", "d").await.expect("a status");
    let failed: Vec<_> = status.hosts.iter().filter(|host| host.state == HostState::Failed).collect();
    let [bare] = failed.as_slice() else { panic!("one host fails, not {failed:?}") };
    assert_eq!(&*bare.host, "bare");
    let problem = bare.problem.clone().expect("a problem");
    let told = serde_json::to_string(&problem).expect("json");
    assert!(told.contains("a.j2") && told.contains("arch") && told.contains('2'), "file, line and name: {told}");
    let shown = person.titan("titan status deployment d").expect("shown");
    assert!(shown.contains("bare") && shown.contains("failed"), "{shown}");
    // Another template with an undefined value: nobody moves, everybody says why.
    world
        .apply([template("t", &[("a.j2", "third\n\n{{ values.prot }}\n"), ("template.yaml", "values: { port: 1 }\n")])])
        .await
        .expect("written");
    let clock = world.settled().await.expect("decided");
    for host in &mut hosts {
        let news = host.catch_up(clock).await.expect("polled");
        assert!(news.moved.is_empty() && news.removed.is_empty(), "{news:?}");
    }
    let status = world.admin.deployment_status("default", "d").await.expect("a status");
    assert_eq!(status.counts.failed, 3, "{status:?}");
    let told = serde_json::to_string(&status.hosts[0].problem).expect("json");
    assert!(told.contains("prot") && told.contains("port"), "the missing name and the near one: {told}");
    // Mended, all of them go on.
    world.apply([template("t", &[("a.j2", "fourth\n")])]).await.expect("written");
    let clock = world.settled().await.expect("decided");
    for host in &mut hosts {
        host.catch_up(clock).await.expect("polled");
        assert_eq!(host.held["default/d"].files["a"], "fourth\n", "{}", host.name);
    }
    assert_eq!(world.admin.deployment_status("default", "d").await.expect("a status").counts.failed, 0);
}

/// Law 8: a bomb that was deployed fails where it is, and holds up nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployed_bomb_fails_its_own_hosts_and_holds_up_no_other_deployment() {
    let (world, person) = world().await;
    let mut pi = world.host("pi", "").await.expect("a host");
    let bomb = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}";
    world
        .apply([
            workload("w", "1"),
            target("all", ""),
            template("bomb", &[("a.j2", bomb)]),
            template("good", &[("a.j2", "{{ workload.version }}\n")]),
            deployment("bomb", "w", "bomb", "all", &json!({})),
            deployment("good", "w", "good", "all", &json!({})),
        ])
        .await
        .expect("written");
    for version in ["1", "2", "3"] {
        world.apply([workload("w", version)]).await.expect("written");
        let begun = Instant::now();
        let clock = world.settled().await.expect("decided");
        assert!(begun.elapsed() < RENDER_TIME * 10, "{:?}", begun.elapsed());
        pi.catch_up(clock).await.expect("polled");
        assert_eq!(pi.held.keys().collect::<Vec<_>>(), ["default/good"]);
        assert_eq!(pi.held["default/good"].files["a"], format!("{version}\n"));
    }
    let (exit, status) = person.json("titan status deployment bomb").expect("a status");
    assert_eq!((exit, status["counts"]["failed"].as_u64()), (0, Some(1)), "{status}");
    assert!(status["hosts"][0]["problem"]["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{status}");
    let lines = person.titan("titan why pi bomb").expect("why");
    assert!(lines.contains("cannot be rendered"), "{lines}");
}
