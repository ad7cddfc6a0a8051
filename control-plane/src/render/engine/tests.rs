use proptest::prelude::*;
use serde_json::{Value, json};
use titan_api::{
    Problem,
    poll::Bundle,
    templates::{TemplateFile, TemplateSpec},
};

use super::Engine;
use crate::render::{
    Template,
    failure::Failure,
    outcome_key,
    patch::{self, Kept},
    template::compile,
};

fn spec(files: &[(&str, &str)]) -> TemplateSpec {
    let file = |text: &str| TemplateFile::of(text.as_bytes().to_vec(), false);
    TemplateSpec { files: files.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect() }
}

/// Renders as the renderer and a worker do together.
fn rendered(spec: &TemplateSpec, context: &Value) -> Result<Bundle, Problem> {
    let template = Template::parse(spec)?;
    let failed = |failure: Failure| failure.render_failed(context);
    let engine = compile(spec).map_err(|failures| failures[0].bad_template())?;
    let mut sent = Vec::new();
    patch::write(template.reads(), context, &mut sent).expect("context");
    let mut kept = Kept::default();
    kept.update(&sent).expect("update");
    bundle(&engine, &kept.value()).map_err(failed)
}

fn bundle(engine: &Engine, context: &minijinja::Value) -> Result<Bundle, Failure> {
    let mut bytes = Vec::new();
    engine.render(context, &mut bytes)?;
    let bundle: Bundle = serde_json::from_slice(&bytes).expect("bundle");
    // The digest is over these bytes: they are always the same for the same bundle.
    assert_eq!(bytes, serde_json::to_vec(&bundle).expect("json"));
    assert!(bundle.files.is_sorted_by_key(|file| (&file.path, file.rooted)));
    Ok(bundle)
}

fn one(source: &str, context: &Value) -> Result<String, String> {
    let bundle = rendered(&spec(&[("a.conf.j2", source)]), context).map_err(|problem| problem.detail)?;
    Ok(bundle.files[0].content.clone().expect("text"))
}

fn bad(files: &[(&str, &str)]) -> String {
    Template::parse(&spec(files)).expect_err("bad template").detail
}

fn context() -> Value {
    json!({
        "host": {"name": "tim-pi", "labels": {"zone": "eu"}, "facts": {"arch": "arm64"}},
        "workspace": {"name": "default", "config": {}},
        "values": {"port": 8080, "host": "::1", "env": {"A": "no", "B": "x y", "C": [1, true, null]}, "text": "a\nb\n", "it": "it's"},
    })
}

#[test]
fn every_filter_gives_what_it_says() {
    for (source, expected) in [
        ("{{ values.env | to_yaml }}", "A: \"no\"\nB: x y\nC:\n  - 1\n  - true\n  - null"),
        (
            "env:\n  {{ values.env | to_yaml | indent(2) }}\n",
            "env:\n  A: \"no\"\n  B: x y\n  C:\n    - 1\n    - true\n    - null\n",
        ),
        ("{{ values.text | to_yaml }}", "\"a\\nb\\n\""),
        ("{{ values.env | to_json }}", r#"{"A":"no","B":"x y","C":[1,true,null]}"#),
        ("{{ {'a': [1]} | to_json(indent=2) }}", "{\n  \"a\": [\n    1\n  ]\n}"),
        ("{{ {'a': 1} | to_json(1) }}", "{\n \"a\": 1\n}"),
        ("{{ '<&' | to_json }}{{ '<&' | tojson }}", "\"<&\"\"\\u003c\\u0026\""),
        ("{{ 'Hello' | b64encode }} {{ 7 | b64encode }}", "SGVsbG8= Nw=="),
        ("{{ 'abc' | sha256 }}", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ("{{ values.it | quote }} {{ '$(rm -rf /)' | quote }} {{ '' | quote }}", r#"'it'\''s' '$(rm -rf /)' ''"#),
        ("{{ 'a\nb\n\nc' | indent(2) }}|{{ 'a\nb' | indent(2, true) }}", "a\n  b\n\n  c|  a\n  b"),
        ("{{ values.port }} {{ true }} {{ none }} {{ 1.5 }} {{ [1, 'a'] }}", "8080 True None 1.5 [1, 'a']"),
        ("{{ 'a' | upper }}{{ 'B' | lower }}{{ 'ab' | title }}{{ 'ab' | capitalize }}", "AbAbAb"),
        ("{{ 'a-b' | replace('-', '_') }} {{ [3, 1] | sort | join(',') }} {{ 'a b' | split | length }}", "a_b 1,3 2"),
        ("{{ values.env | items | list | first | first }} {{ values.none | default('d') }}", "A d"),
        ("{{ [1, 2] | map('string') | join }} {{ [1, 2, 3] | select('odd') | list }}", "12 [1, 3]"),
        ("{{ [{'a': 1}] | map(attribute='a') | list }} {{ '3' | int + 1 }} {{ ' x ' | trim }}", "[1] 4 x"),
        ("{{ range(3) | list }} {{ dict(a=1).a }} {{ [1, 2] | batch(1) | list }}", "[0, 1, 2] 1 [[1], [2]]"),
        ("{% set n = namespace(i=0) %}{% for x in [1, 2] %}{% set n.i = n.i + x %}{% endfor %}{{ n.i }}", "3"),
        ("{{ '<b>' }} {{ '<b>' | e }}", "<b> &lt;b&gt;"),
        ("a\n\n", "a\n\n"),
        ("{% raw %}{{ a }}{% endraw %}{# gone #}", "{{ a }}"),
    ] {
        assert_eq!(one(source, &context()).as_deref(), Ok(expected), "{source}");
    }
}

#[test]
fn what_fails_names_file_line_and_near_misses() {
    for (source, expected) in [
        (
            "\n\n{{ values.prot }}",
            "values.prot is not defined in a.conf.j2 line 3; did you mean values.port? names there: env, host, it, port, text",
        ),
        (
            "{{ valeus.port }}",
            "valeus is not defined in a.conf.j2 line 1; did you mean values? names there: host, values, workspace",
        ),
        ("{{ host.facts.gpu.model }}", "host.facts.gpu is not defined in a.conf.j2 line 1; names there: arch"),
        (
            "{{ values.prot | to_yaml }}",
            "values.prot is not defined in a.conf.j2 line 1; did you mean values.port? names there: env, host, it, port, text",
        ),
        (
            "{{ values.prot | upper }}",
            "values.prot is not defined in a.conf.j2 line 1; did you mean values.port? names there: env, host, it, port, text",
        ),
        (
            "{% if values.prot %}{% endif %}",
            "values.prot is not defined in a.conf.j2 line 1; did you mean values.port? names there: env, host, it, port, text",
        ),
        (
            "{% for x in values.lst %}{% endfor %}",
            "values.lst is not defined in a.conf.j2 line 1; names there: env, host, it, port, text",
        ),
        ("{% for x in [{'a': 1}] %}{{ x.b }}{% endfor %}", "x.b is not defined in a.conf.j2 line 1"),
        (
            "{{ values.env | b64encode }}",
            "b64encode: map is not text; use to_json or to_yaml first in a.conf.j2 line 1",
        ),
        ("{{ 'a' | to_json(indent=17) }}", "to_json: indent is 17, the limit is 16 in a.conf.j2 line 1"),
        ("{{ '%5s' | format('a') }}", "unknown filter: filter format is unknown in a.conf.j2 line 1"),
        ("{{ debug() }}", "unknown function: debug is unknown in a.conf.j2 line 1"),
        ("{{ values.port() }}", "value of type number is not callable in a.conf.j2 line 1"),
        (
            "{{ values.env.A + 1 }}",
            "tried to use + operator on unsupported types string and number in a.conf.j2 line 1",
        ),
        ("{% include 'none' %}", "there is no such file to include in a.conf.j2 line 1"),
    ] {
        assert_eq!(one(source, &context()).expect_err(source), expected);
    }
}

#[test]
fn steps_depth_and_output_are_bounded() {
    for (source, expected) in [
        (
            "{% for a in range(1000) %}{% for b in range(1000) %}{{ a }}{% endfor %}{% endfor %}",
            "too many steps; is there a loop without an end? in a.conf.j2 line 1",
        ),
        ("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}\n{{ f(0) }}", "recursion limit exceeded in a.conf.j2 line 1"),
        ("{% include 'a.conf.j2' %}", "recursion limit exceeded in a.conf.j2 line 1"),
        (
            "{% for a in range(100) %}{{ 'x' * 4096 ~ values.port * 0 }}{% for b in range(30) %}{{ (values.host * 2000) }}{% endfor %}{% endfor %}",
            "more than 8 MiB of output in a.conf.j2",
        ),
        ("{{ range(100001) }}", "range has too many elements in a.conf.j2 line 1"),
    ] {
        assert_eq!(one(source, &context()).expect_err(source), expected);
    }
}

#[test]
fn templates_that_are_not_valid_are_refused_with_file_and_line() {
    for (files, expected) in [
        (&[("a.j2", "x\n{{ a")][..], "code is not closed in a.j2 line 2"),
        (&[("a.j2", "x\n{% if a %}")], "unexpected end of input, expected end of block in a.j2 line 2"),
        (&[("a.j2", "{{ a b }}")], "unexpected identifier, expected end of variable block in a.j2 line 1"),
        (&[("{{ a", "")], "code is not closed in the name of {{ a"),
        (
            &[("{{ a b }}.conf", "")],
            "unexpected identifier, expected end of variable block in the name of {{ a b }}.conf",
        ),
        (&[("a", ""), ("a.j2", "")], "a.j2 and a both come out as a in a.j2"),
        (
            &[("template.yaml", "x: 1"), ("a", "")],
            "/x: unknown key \"x\", known are description, applier, values, schema, health, hooks, drift, files in template.yaml line 1",
        ),
        (
            &[("template.yaml", "schema: {$ref: 'https://x'}"), ("a", "")],
            "/schema/$ref: $ref \"https://x\" leaves the document; only #/... is allowed in template.yaml line 1",
        ),
        (
            &[("template.yaml", "schema:\n  properties:\n    a: {type: objekt}"), ("a", "")],
            "/schema/properties/a/type: \"objekt\" is not valid under any of the schemas listed in the 'anyOf' keyword in template.yaml line 3",
        ),
        (&[("template.yaml", "")], "the template has no file to put on a host"),
        (&[("_only.j2", "")], "the template has no file to put on a host"),
        (
            &[("a.j2", "{{ 'x' * 100000000 }}")],
            "a constant text or list is repeated; up to 4096 bytes of one text are allowed in a.j2 line 1",
        ),
        (&[("../a", "")], "the path \"../a\" is refused: it has a part '.' or '..'"),
    ] {
        assert_eq!(bad(files), expected);
    }
    let problem = Template::parse(&spec(&[("a/b.j2", "{{"), ("c.j2", "{%")])).expect_err("both");
    let pointers: Vec<_> = problem.errors.iter().map(|fault| fault.pointer.as_str()).collect();
    assert_eq!((problem.code.as_str(), pointers), ("bad_template", vec!["/spec/files/a~1b.j2", "/spec/files/c.j2"]));
    let binary = TemplateSpec { files: [("a.j2".to_owned(), TemplateFile::of(vec![0xff], false))].into() };
    assert_eq!(
        Template::parse(&binary).expect_err("binary").detail,
        "a file that is rendered must be UTF-8 text in a.j2"
    );
}

#[test]
fn files_get_their_paths_modes_and_places() {
    let mut spec = spec(&[
        (
            "template.yaml",
            "files:\n  '*.env': {mode: '0600', owner: app, group: app}\n  bin/*: {destination: opt/app}\n",
        ),
        (
            "etc/{{ host.name }}.conf.j2",
            "{% import '_macros.j2' as m %}{% from '_macros.j2' import f %}{{ m.f(1) }}{{ f(values.port) }}\n",
        ),
        ("_macros.j2", "{% macro f(x) %}<{{ x }}>{% endmacro %}"),
        ("a.env", "{{ not rendered }}"),
        ("part.j2", "{% include '_shared/_head.j2' %}"),
        ("_shared/_head.j2", "zone {{ host.labels.zone }}"),
    ]);
    spec.files.insert("bin/run".into(), TemplateFile::of(vec![0xff, 0], true));
    let bundle = rendered(&spec, &context()).expect("bundle");
    assert_eq!(
        serde_json::to_value(&bundle).expect("json"),
        json!({"applier": "files", "files": [
            {"path": "a.env", "mode": "0600", "owner": "app", "group": "app", "content": "{{ not rendered }}"},
            {"path": "etc/tim-pi.conf", "mode": "0644", "content": "<1><8080>\n"},
            {"path": "opt/app/bin/run", "rooted": true, "mode": "0755", "contentBase64": "/wA="},
            {"path": "part", "mode": "0644", "content": "zone eu"},
        ]})
    );
    let template = Template::parse(&spec).expect("template");
    let paths = template.reads().paths();
    assert!(
        ["host.name", "host.labels.zone", "values.port"].iter().all(|path| paths.iter().any(|found| found == path))
    );
    assert!(!paths.iter().any(|path| path == "values" || path == "host"), "{paths:?}");
}

#[test]
fn rendered_names_are_checked() {
    let failure = |files: &[(&str, &str)], values: Value| {
        rendered(&spec(files), &json!({"values": values})).expect_err("failure").detail
    };
    assert_eq!(
        failure(&[("{{ values.a }}", "")], json!({"a": "../x"})),
        "it comes out as \"../x\", which is refused: it has a part '.' or '..' in the name of {{ values.a }}"
    );
    assert_eq!(
        failure(&[("{{ values.a }}", "")], json!({"a": "/etc/passwd"})),
        "it comes out as \"/etc/passwd\", which is refused: it is absolute; write it relative to the template's directory in the name of {{ values.a }}"
    );
    assert_eq!(
        failure(&[("{{ values.a }}", ""), ("{{ values.b }}", "")], json!({"a": "x", "b": "x"})),
        "{{ values.b }} and {{ values.a }} both come out as x in {{ values.b }}"
    );
    assert_eq!(
        failure(&[("{{ values.a }}", ""), ("x/y", "")], json!({"a": "x"})),
        "{{ values.a }} comes out as the file x, in which x/y would lie in x/y"
    );
    assert_eq!(
        failure(&[("{{ values.none }}", "")], json!({"a": 1})),
        "values.none is not defined in the name of {{ values.none }}; names there: a"
    );
}

#[test]
fn the_digest_is_of_the_contents() {
    let digest = |files: &[(&str, &str)]| Template::parse(&spec(files)).expect("template").digest();
    assert_eq!(digest(&[("a", "1"), ("b", "2")]), digest(&[("b", "2"), ("a", "1")]));
    assert_ne!(digest(&[("a", "1")]), digest(&[("a", "2")]));
    assert_ne!(digest(&[("a", "1")]), digest(&[("b", "1")]));
    assert_ne!(digest(&[("a", "12"), ("b", "")]), digest(&[("a", "1"), ("b", "2")]));
    let mut base64 = spec(&[("a", "1")]);
    base64
        .files
        .insert("a".into(), TemplateFile { content: None, content_base64: Some("MQ==".into()), executable: false });
    assert_eq!(Template::parse(&base64).expect("template").digest(), digest(&[("a", "1")]));
}

#[test]
fn a_schema_reads_all_values() {
    let template = Template::parse(&spec(&[("template.yaml", "schema: {type: object}"), ("a.j2", "{{ values.b }}")]));
    assert_eq!(template.expect("template").reads().paths(), ["values"]);
}

#[test]
fn hosts_that_differ_elsewhere_share_an_outcome() {
    let template =
        Template::parse(&spec(&[("a.j2", "{{ values.port }}{{ host.labels.zone | default('') }}")])).expect("template");
    let key = |name: &str, labels: Value, port: u16| {
        outcome_key(&template, &json!({"host": {"name": name, "labels": labels}, "values": {"port": port}}))
    };
    assert_eq!(key("a", json!({"zone": "x", "rack": 1}), 80), key("b", json!({"zone": "x"}), 80));
    assert_eq!(key("a", json!({}), 80), key("b", json!({"other": 1}), 80));
    assert_ne!(key("a", json!({"zone": "x"}), 80), key("a", json!({"zone": "y"}), 80));
    assert_ne!(key("a", json!({}), 80), key("a", json!({}), 81));
}

/// Pieces of templates that reach for the context in every way there is.
fn piece() -> impl Strategy<Value = String> {
    let path = prop::sample::select(vec![
        "values",
        "values.a",
        "values.b",
        "values.a.c",
        "host.name",
        "host.labels",
        "host.labels.z",
        "x",
        "loop",
    ]);
    let word = prop::sample::select(vec!["values", "host", "x", "a"]);
    (path.clone(), path, word, 0..24_u8).prop_map(|(p, q, w, kind)| match kind {
        0 => format!("{{{{ {p} | default('-') }}}}"),
        1 => format!("{{{{ {p} is defined }}}}"),
        2 => format!("{{% set {w} = {p} %}}{{{{ {q} | default('-') }}}}"),
        3 => format!("{{% with {w} = {p} %}}{{{{ {q} }}}}{{% endwith %}}{{{{ {w} | default('-') }}}}"),
        4 => format!("{{% for {w} in [{p}, 1] %}}{{{{ {q} }}}}{{% endfor %}}"),
        5 => format!("{{% filter replace('a', {p} | string) %}}a{{% endfilter %}}"),
        6 => format!("{{% macro m({w}) %}}{{{{ {p} }}}}{{% endmacro %}}{{{{ m({q}) }}}}"),
        7 => format!("{{% macro m({w}={p}) %}}{{{{ {q} }}}}{{% endmacro %}}{{{{ m() }}}}"),
        8 => "{% include '_part.j2' %}".to_owned(),
        9 => format!("{{% import '_part.j2' as {w} %}}{{{{ {p} | default('-') }}}}"),
        10 => format!("{{{{ values['a'] }}}}{{{{ {w}['labels'] }}}}"),
        11 => format!("{{{{ [{p}] | map('string') | join }}}}"),
        12 => format!("{{{{ values[{p}] | default('-') }}}}"),
        13 => format!("{{% set {w} %}}{{{{ {p} | default('-') }}}}{{% endset %}}{{{{ {q} | default('-') }}}}"),
        14 => format!("{{% if {p} %}}{{% set {w} = 1 %}}{{% endif %}}{{{{ {q} | default('-') }}}}"),
        15 => {
            format!("{{{{ self.b() }}}}{{% set {w} = 1 %}}{{% block b %}}{{{{ {p} | default('-') }}}}{{% endblock %}}")
        }
        16 => format!("{{% call m() %}}{{{{ {p} }}}}{{% endcall %}}"),
        17 => format!("{{{{ values.items() }}}}{{{{ {p} }}}}"),
        18 => format!("{{{{ dict({w}={p}) }}}}"),
        19 => format!("{{{{ {{'{w}': {p}}} }}}}"),
        20 => format!("{{{{ {p} if {q} is defined else '-' }}}}"),
        21 => format!("{{% autoescape {p} is defined %}}{{{{ {q} | default('-') }}}}{{% endautoescape %}}"),
        22 => format!(
            "{{% raw %}}{{{{ {p} }}}}{{% endraw %}}{{# {{{{ {q} }}}} #}}{{{{ {w} | attr('name') | default('-') }}}}"
        ),
        _ => format!("{{% for k, v in {p} | items %}}{{{{ k }}}}{{{{ {q} | default('-') }}}}{{% endfor %}}"),
    })
}

fn some_context() -> impl Strategy<Value = Value> {
    let leaf = prop::sample::select(vec![
        json!(1),
        json!("s"),
        json!(null),
        json!({"c": 1}),
        json!({"c": 2, "name": "n"}),
        json!([1]),
    ]);
    prop::collection::vec(prop::option::of(leaf), 7).prop_map(|mut leaves| {
        let mut next = || leaves.pop().flatten();
        let map = |entries: Vec<(&str, Option<Value>)>| {
            Value::Object(entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect())
        };
        let labels = map(vec![("z", next()), ("y", next())]);
        let host = map(vec![("name", next()), ("labels", Some(labels))]);
        let values = map(vec![("a", next()), ("b", next()), ("d", next())]);
        map(vec![("host", Some(host)), ("values", Some(values)), ("x", next())])
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn hidden_dependence_is_impossible(
        pieces in prop::collection::vec(piece(), 1..4),
        part in piece(),
        first in some_context(),
        second in some_context(),
    ) {
        let files = [("a.j2", pieces.concat()), ("_part.j2", part)];
        let spec = spec(&files.iter().map(|(path, text)| (*path, text.as_str())).collect::<Vec<_>>());
        let Ok(template) = Template::parse(&spec) else { return Ok(()) };
        let engine = compile(&spec).expect("parsed before");
        let whole = |context: &Value| bundle(&engine, &serde_json::from_value(context.clone()).expect("value")).ok();
        if outcome_key(&template, &first) == outcome_key(&template, &second) {
            prop_assert_eq!(whole(&first), whole(&second), "{:?}", &files);
        }
        // Cutting the context down changes nothing: what is left out was never looked at.
        prop_assert_eq!(rendered(&spec, &first).ok(), whole(&first), "{:?}", &files);
    }

    #[test]
    fn no_template_makes_parsing_panic(text in "[-{}%#a-z .|()\\[\\]'\"*0-9\n]{0,60}") {
        let _either = Template::parse(&spec(&[("a.j2", &text), ("{{ b }}", "")]));
    }
}

const PROBED: &str = "applier: files
values: {deadline: 2m}
health:
  deadline: '{{ values.deadline }}'
  minReadySeconds: '{{ values.ready | default(0) }}'
  probes:
    - http: {url: 'http://127.0.0.1:{{ values.port }}/'}
    - file:
        path: '{{ host.labels.zone }}/ready'
hooks:
  preApply: {command: [bin/check, '{{ values.text }}']}
drift: \"{{ values.drift | default('report') }}\"
";

#[test]
fn health_hooks_and_drift_are_rendered_for_each_host() {
    use titan_api::drift::DriftPolicy;

    let files = spec(&[("template.yaml", PROBED), ("a", "x")]);
    let mut context = context();
    context["values"]["deadline"] = json!("90s");
    let bundle = rendered(&files, &context).expect("bundle");
    let health = serde_json::to_value(&bundle.health).expect("json");
    assert_eq!(health["probes"][0]["http"]["url"], "http://127.0.0.1:8080/");
    assert_eq!(health["probes"][1]["file"]["path"], "eu/ready");
    assert_eq!((&health["deadline"], &health["minReadySeconds"]), (&json!("90s"), &json!(0)));
    assert_eq!(bundle.hooks.pre_apply.expect("hook").command, ["bin/check", "a\nb\n"]);
    assert_eq!(bundle.drift, DriftPolicy::Report);
    context["values"]["ready"] = json!(30);
    assert_eq!(rendered(&files, &context).expect("bundle").health.min_ready_seconds, 30);
    let template = Template::parse(&files).expect("template");
    let paths = template.reads().paths();
    assert!(["host.labels.zone", "values.port", "values.ready"].iter().all(|path| paths.contains(&(*path).to_owned())));
    let key = |context: &Value| outcome_key(&template, context);
    let mut other = context.clone();
    other["values"]["ready"] = json!(31);
    assert_ne!(key(&context), key(&other), "what health reads is part of the outcome");
}

#[test]
fn what_fails_in_a_manifest_names_its_line_and_pointer() {
    let failed = |changes: &[(&str, Value)]| {
        let mut context = context();
        context["values"]["deadline"] = json!("2m");
        changes.iter().for_each(|(key, value)| context["values"][*key] = value.clone());
        let problem = rendered(&spec(&[("template.yaml", PROBED), ("a", "x")]), &context).expect_err("problem");
        assert_eq!(
            (problem.code.as_str(), problem.errors[0].pointer.as_str()),
            ("render_failed", "/spec/files/template.yaml")
        );
        problem.detail
    };
    assert_eq!(
        failed(&[("deadline", json!("soon"))]),
        "/health/deadline: \"soon\" is not a length of time such as \"30s\"; units are ms, s, m and h in template.yaml line 4"
    );
    assert_eq!(
        failed(&[("port", json!("a b"))]),
        "/health/probes/0/http/url: \"http://127.0.0.1:a b/\" holds a space or a control character in template.yaml line 7"
    );
    assert_eq!(
        failed(&[("drift", json!("fix"))]),
        "/drift: unknown value \"fix\", known are enforce, report, once in template.yaml line 12"
    );
    assert!(
        failed(&[("text", json!("x".repeat(5000)))])
            .starts_with("/hooks/preApply/command/1: it comes out as more than 4096 bytes in")
    );
    let missing = rendered(
        &spec(&[("template.yaml", "drift: '{{ values.drfit }}'"), ("a", "x")]),
        &json!({"values": {"drift": "once"}}),
    );
    assert_eq!(
        missing.expect_err("missing").detail,
        "/drift: values.drfit is not defined in template.yaml line 1; did you mean values.drift? names there: drift"
    );
    let endless = "drift: '{% for a in range(1000) %}{% for b in range(1000) %}{% endfor %}{% endfor %}'";
    let endless = rendered(&spec(&[("template.yaml", endless), ("a", "x")]), &json!({})).expect_err("endless");
    assert_eq!(endless.detail, "/drift: too many steps; is there a loop without an end? in template.yaml line 1");
    assert_eq!(
        bad(&[("template.yaml", "health:\n  interval: '{{ a b }}'"), ("a", "x")]),
        "/health/interval: unexpected identifier, expected end of variable block in template.yaml line 2"
    );
    assert_eq!(
        bad(&[("template.yaml", "hooks:\n  preApply: {command: ['']}"), ("a", "x")]),
        "/hooks/preApply/command/0: the path \"\" is refused: it has an empty part in template.yaml line 2"
    );
}

#[test]
fn bundles_without_health_hooks_and_drift_keep_their_bytes() {
    let bytes = |manifest: &str| {
        let spec = spec(&[("template.yaml", manifest), ("a", "x")]);
        let mut out = Vec::new();
        compile(&spec).expect("engine").render(&minijinja::Value::UNDEFINED, &mut out).expect("bundle");
        String::from_utf8(out).expect("text")
    };
    let expected = r#"{"applier":"files","files":[{"path":"a","mode":"0644","content":"x"}]}"#;
    for manifest in ["", "applier: files", "health: {}\nhooks: {}\ndrift: enforce", "drift: '{{ \"enforce\" }}'"] {
        assert_eq!(bytes(manifest), expected, "{manifest}");
    }
    let with = r#"{"applier":"files","drift":"once","files":[{"path":"a","mode":"0644","content":"x"}]}"#;
    assert_eq!(bytes("drift: once"), with);
}

#[test]
fn bundle_that_its_applier_cannot_use_is_a_problem_of_the_hosts_it_is_for() {
    let files = [("template.yaml", "applier: kubernetes"), ("{{ values.name }}.yaml.j2", "kind: {{ values.kind }}\n")];
    let template = spec(&files);
    assert!(Template::parse(&template).is_ok());
    let problem = rendered(&template, &json!({"values": {"name": "a", "kind": "Pod"}})).expect_err("no name");
    assert_eq!(problem.detail, "the object has no apiVersion in {{ values.name }}.yaml.j2");
    let problem =
        rendered(&spec(&[("template.yaml", "applier: systemd"), ("a.j2", "x")]), &json!({})).expect_err("no unit");
    assert!(problem.detail.starts_with("the applier systemd needs a unit"), "{}", problem.detail);
}
