//! Rendering through real worker processes: limits, isolation, speed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use titan_api::{
    Code, Problem,
    digests::Digest,
    poll::Bundle,
    templates::{TemplateFile, TemplateSpec},
};
use titan_control_plane::render::{Job, RenderedBundle, Renderer, RendererConfig, Template, WorkerCommand};

fn config() -> RendererConfig {
    let program = env!("CARGO_BIN_EXE_titan-control-plane").into();
    RendererConfig { workers: 2, ..RendererConfig::new(WorkerCommand { program, args: vec!["render-worker".into()] }) }
}

fn template(source: &str) -> Arc<Template> {
    let file = TemplateFile::of(source.as_bytes().to_vec(), false);
    let spec = TemplateSpec { files: [("a.conf.j2".to_owned(), file)].into() };
    Arc::new(Template::parse(&spec).expect("template"))
}

fn job(template: &Arc<Template>, context: Value) -> Job {
    Job { template: Arc::clone(template), context: Arc::new(context), overlay: None }
}

fn text(result: &Result<RenderedBundle, Problem>) -> String {
    let rendered = result.as_ref().expect("rendered");
    assert_eq!(rendered.digest, Digest::of(&rendered.body));
    let bundle: Bundle = serde_json::from_slice(&rendered.body).expect("bundle");
    bundle.files[0].content.clone().expect("text")
}

/// Templates that take memory or time without measure, within their steps.
const BOMBS: [(&str, &str); 8] = [
    (
        "{% set ns = namespace(s='x') %}{% for i in range(40) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
        "rendering was stopped",
    ),
    ("{{ '%0999999999d' | format(1) }}", "unknown filter: filter format is unknown in a.conf.j2 line 1"),
    ("{% set n = 100000000 %}{{ (['x'] * n) | join }}", "rendering was stopped"),
    ("{% set n = 100000000 %}{{ (['x'] * n) | list | length }}", "rendering was stopped"),
    ("{% set x = 'x' %}{% set y = x * 100000000 %}{{ y ~ y }}", "rendering was stopped"),
    (
        "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = ns.l + ns.l %}{% endfor %}{{ ns.l | sum }}",
        "rendering was stopped",
    ),
    ("{{ 'a' | indent(10000000000) }}", "rendering was stopped"),
    (
        "{% set ns = namespace(l=[]) %}{% for i in range(90000) %}{% set ns.l = [ns.l] %}{% endfor %}x",
        "rendering was stopped",
    ),
];

#[tokio::test]
async fn bombs_are_stopped_within_a_second_and_a_quarter_gigabyte() {
    for (source, expected) in BOMBS {
        let renderer = Renderer::new(config());
        let template = template(source);
        let mut quickest = Duration::MAX;
        // Other tests run beside this one: the best of a few is what the limits allow.
        for _ in 0..5 {
            // A worker that is already there, as in a server that runs.
            let warm = renderer.render(vec![job(&self::template("x"), json!({}))]).await;
            assert_eq!(text(&warm[0]), "x", "before or after {source}");
            let started = Instant::now();
            let problem = renderer.render(vec![job(&template, json!({}))]).await.remove(0).expect_err(source);
            quickest = quickest.min(started.elapsed());
            assert!(problem.detail.starts_with(expected), "{source}: {problem:?}");
            assert_eq!(problem.code, Code::RenderFailed, "{source}");
            if quickest < Duration::from_secs(1) {
                break;
            }
        }
        assert!(quickest < Duration::from_secs(1), "{source}: {quickest:?}");
    }
}

#[tokio::test]
async fn a_worker_never_takes_a_quarter_gigabyte() {
    let renderer = Renderer::new(RendererConfig { workers: 1, ..config() });
    let source =
        "{% set ns = namespace(l=[]) %}{% for i in range(90000) %}{% set ns.l = [ns.l, 'x' * 4000 ~ i] %}{% endfor %}x";
    let template = template(source);
    let jobs = (0..4).map(|_| job(&template, json!({}))).collect();
    let rendering = tokio::spawn(async move { renderer.render(jobs).await });
    let mut most = 0;
    while !rendering.is_finished() {
        most = most.max(children().into_iter().filter_map(resident).max().unwrap_or(0));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for result in rendering.await.expect("rendering") {
        assert!(result.expect_err("stopped").detail.starts_with("rendering was stopped"));
    }
    assert!(most > 0 && most < 256 << 20, "{} MiB", most >> 20);
}

/// Returns the processes that this one has started and that still run.
fn children() -> Vec<u32> {
    let own = std::process::id();
    let parent = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    let entries = std::fs::read_dir("/proc").expect("proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent(*pid) == Some(own)).collect()
}

/// Returns the most that a process has had resident, in bytes.
fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
}

#[tokio::test]
async fn one_failure_stays_one_failure() {
    let renderer = Renderer::new(config());
    let source = "{% if values.n == 50 %}{% set ns = namespace(s='x') %}{% for i in range(40) %}{% set ns.s = ns.s ~ ns.s %}\
        {% endfor %}{% elif values.n == 51 %}{{ values.none }}{% elif values.n == 52 %}{{ ([values.n] * 100000000) | join }}{% endif %}{{ values.n }}";
    let template = template(source);
    let jobs = (0..100).map(|n| job(&template, json!({"values": {"n": n}}))).collect();
    let results = renderer.render(jobs).await;
    for (n, result) in results.iter().enumerate() {
        match (n, result) {
            (50, Err(problem)) => assert!(problem.detail.starts_with("rendering was stopped"), "{problem}"),
            (51, Err(problem)) => {
                assert_eq!(problem.detail, "values.none is not defined in a.conf.j2 line 1; names there: n")
            }
            (52, Err(problem)) => assert!(problem.detail.starts_with("rendering was stopped"), "{problem}"),
            _ => assert_eq!(text(result), n.to_string()),
        }
    }
}

#[tokio::test]
async fn memory_is_bounded() {
    let renderer = Renderer::new(RendererConfig { render_timeout: Duration::from_secs(20), ..config() });
    let large = template("{% set n = 100000000 %}{% set x = 'x' %}{% set y = x * n %}{{ y ~ y }}");
    let problem = renderer.render(vec![job(&large, json!({}))]).await.remove(0).expect_err("large");
    assert_eq!(problem.detail, "rendering was stopped at more than 192 MiB of memory, in a.conf.j2");
    assert_eq!(problem.errors[0].pointer, "/spec/files/a.conf.j2");
}

#[tokio::test]
async fn time_is_bounded() {
    let renderer = Renderer::new(RendererConfig { render_timeout: Duration::from_millis(100), ..config() });
    let slow = template(
        "{% set n = 100000 %}{% for i in range(1000) %}{% if (range(n) | list | length) == 1 %}{% endif %}{% endfor %}",
    );
    let problem = renderer.render(vec![job(&slow, json!({}))]).await.remove(0).expect_err("slow");
    assert_eq!(problem.detail, "rendering was stopped after 100 ms, in a.conf.j2");
    assert_eq!(problem.errors[0].pointer, "/spec/files/a.conf.j2");
}

#[tokio::test]
async fn many_templates_share_the_workers() {
    let renderer = Renderer::new(config());
    let templates: Vec<_> = (0..30).map(|n| template(&format!("{n} {{{{ values.n }}}}"))).collect();
    let jobs = (0..300).map(|n| job(&templates[n * 7 % 30], json!({"values": {"n": n}}))).collect();
    for (n, result) in renderer.render(jobs).await.iter().enumerate() {
        assert_eq!(text(result), format!("{} {n}", n * 7 % 30));
    }
    assert!(renderer.render(Vec::new()).await.is_empty());
}

#[tokio::test]
async fn only_what_is_read_reaches_the_worker() {
    let renderer = Renderer::new(config());
    let template = template("{{ values.a is defined }} {{ values }}");
    assert_eq!(
        text(&renderer.render(vec![job(&template, json!({"values": {"a": 1, "b": 2}}))]).await[0]),
        "True {'a': 1, 'b': 2}"
    );
    let template = self::template("{{ values.a }}{{ values.b | default(host.name) }}");
    let context = json!({"values": {"a": 1}, "host": {"name": "h", "labels": {}}, "large": "x".repeat(70 << 20)});
    assert_eq!(text(&renderer.render(vec![job(&template, context)]).await[0]), "1h");
}

#[tokio::test]
async fn contexts_of_any_size_and_order_come_out_as_they_are() {
    let renderer = Renderer::new(config());
    let templates =
        ["{{ values | to_json }}", "{{ values.n }} {{ values.large | default('none') | length }}"].map(template);
    let values = |n: usize| match n % 7 {
        0 => json!({"n": n, "large": "x".repeat(n * 400)}),
        1 => json!({"n": n, "large": [n, {"a": n / 2}]}),
        2 => json!({"n": {"n": n}}),
        _ => json!({"n": n, "same": {"a": [1, 2, 3]}, "large": "x"}),
    };
    let jobs =
        (0..1000).map(|n| job(&templates[n / 3 % 2], json!({"values": values(n), "host": {"name": n}}))).collect();
    for (n, result) in renderer.render(jobs).await.iter().enumerate() {
        let values = values(n);
        if n / 3 % 2 == 0 {
            assert_eq!(serde_json::from_str::<Value>(&text(result)).expect("json"), values);
        } else {
            let length = values.get("large").map_or(4, |large| large.as_str().map_or(2, str::len));
            let n = if n % 7 == 2 { format!("{{'n': {n}}}") } else { n.to_string() };
            assert_eq!(text(result), format!("{n} {length}"));
        }
    }
}

#[tokio::test]
async fn a_context_that_is_too_deep_fails_alone() {
    let deep = (0..200).fold(json!(1), |inner, _| json!({ "a": inner }));
    let template = template("{{ values.a is defined }}");
    let jobs = [json!({"a": 1}), deep, json!({"b": 1})].map(|values| job(&template, json!({ "values": values })));
    let results = Renderer::new(config()).render(jobs.into()).await;
    assert_eq!((text(&results[0]), text(&results[2])), ("True".to_owned(), "False".to_owned()));
    let problem = results[1].as_ref().expect_err("deep");
    assert_eq!(problem.detail, "the context has more than 140 lists and maps inside each other");
    assert_eq!(problem.code, Code::RenderFailed);
}

#[tokio::test]
async fn every_host_that_hangs_is_found_among_many() {
    let renderer = Renderer::new(RendererConfig { render_timeout: Duration::from_millis(200), workers: 1, ..config() });
    let template = template(
        "{% if values.n % 100 == 60 %}{% set n = 100000 %}{% for i in range(1000) %}{% if (range(n) | list | length) == 1 %}\
        {% endif %}{% endfor %}{% endif %}{{ values.n }}",
    );
    let jobs = (0..200).map(|n| job(&template, json!({"values": {"n": n}}))).collect();
    for (n, result) in renderer.render(jobs).await.iter().enumerate() {
        match result {
            Err(problem) if n % 100 == 60 => {
                assert_eq!(problem.detail, "rendering was stopped after 200 ms, in a.conf.j2")
            }
            _ => assert_eq!(text(result), n.to_string()),
        }
    }
}

#[tokio::test]
async fn values_that_do_not_fit_are_not_rendered() {
    let manifest = "schema: {properties: {n: {type: integer}}, required: [n]}";
    let files = [("template.yaml", manifest), ("a.conf.j2", "{{ values.n }}")];
    let files = files.map(|(path, text)| (path.to_owned(), TemplateFile::of(text.as_bytes().to_vec(), false)));
    let template = Arc::new(Template::parse(&TemplateSpec { files: files.into() }).expect("template"));
    let jobs = [json!({"values": {"n": 1}}), json!({"values": {"n": "1"}}), json!({}), json!({"values": {"n": 2}})];
    let results = Renderer::new(config()).render(jobs.map(|context| job(&template, context)).into()).await;
    assert_eq!((text(&results[0]), text(&results[3])), ("1".to_owned(), "2".to_owned()));
    let pointers =
        [&results[1], &results[2]].map(|result| result.clone().expect_err("schema").errors[0].pointer.clone());
    assert_eq!(pointers, ["/values/n", "/values"]);
}

#[tokio::test]
async fn a_worker_that_cannot_be_started_is_an_internal_problem() {
    for program in ["/nonexistent/titan", "/bin/true", "/bin/cat"] {
        let worker = WorkerCommand { program: program.into(), args: Vec::new() };
        let start_timeout = Duration::from_millis(200);
        let renderer = Renderer::new(RendererConfig { start_timeout, ..RendererConfig::new(worker) });
        let results = renderer.render(vec![job(&template("x"), json!({})); 3]).await;
        assert_eq!(results.len(), 3);
        for result in results {
            let problem = result.expect_err(program);
            assert_eq!(problem.code, Code::Internal);
            assert!(problem.detail.starts_with("a render worker could not be started"), "{problem}");
        }
    }
}

#[tokio::test]
async fn an_abandoned_render_leaves_nothing_behind() {
    let renderer = Renderer::new(RendererConfig { workers: 1, ..config() });
    let slow = template(
        "{% set n = 100000 %}{% for i in range(1000) %}{% if (range(n) | list | length) == 1 %}{% endif %}{% endfor %}",
    );
    let abandoned =
        tokio::time::timeout(Duration::from_millis(100), renderer.render(vec![job(&slow, json!({}))])).await;
    assert!(abandoned.is_err());
    let next = renderer.render(vec![job(&template("x"), json!({}))]).await;
    assert_eq!(text(&next[0]), "x");
}

#[test]
fn a_worker_ends_with_its_input_and_on_nonsense() {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };
    let start = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_titan-control-plane"));
        command.arg("render-worker").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("worker")
    };
    let mut child = start();
    drop(child.stdin.take());
    assert!(child.wait().expect("status").success());
    for nonsense in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"T\0\xff\xff\xff\xff", b"T\0\x05\0\0\0abc", b"b\0\0\0\0\0"] {
        let mut child = start();
        child.stdin.take().expect("stdin").write_all(nonsense).expect("write");
        assert_eq!(child.wait().expect("status").code(), Some(1), "{nonsense:?}");
    }
}
