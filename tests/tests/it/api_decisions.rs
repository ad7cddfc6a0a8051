//! What is asked of the fleet before and after a change: plan, why, values, status.

use serde_json::{Value, json};
use titan_api::{
    Code, Kind,
    changes::{Action, ApplyRequest},
    client::WriteOptions,
    plans::{Plan, PlanEffect},
    status::HostState,
};
use titan_tests::{
    manifests::{deployment, host, labelled, target, template, workload},
    worlds::{PolledHost, World},
};

async fn plan(world: &World, resources: Vec<Value>) -> Plan {
    world.admin.plan(&ApplyRequest { resources, ..ApplyRequest::default() }).await.expect("a plan")
}

/// Returns four hosts: two alike, one of another architecture, one that reported no facts; all have `d`.
async fn fleet() -> (World, Vec<PolledHost>) {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let mut hosts = Vec::new();
    for (name, arch) in [("a1", Some("arm")), ("a2", Some("arm")), ("b1", Some("x86")), ("c1", None)] {
        let mut host = world.host(name, &format!("name={name}")).await.expect("a host");
        let facts = arch.map(|arch| ("arch".to_owned(), json!(arch)));
        host.report_facts(facts.into_iter().collect()).await.expect("reported");
        hosts.push(host);
    }
    let documents = [
        template("t", &[("a.j2", "port={{ values.port }}\n"), ("template.yaml", "values: { port: 80 }\n")]),
        workload("w", "1"),
        target("all", ""),
        deployment("d", "w", "t", "all", &json!({})),
    ];
    world.apply(documents).await.expect("written");
    let clock = world.settled().await.expect("decided");
    for host in &mut hosts {
        host.catch_up(clock).await.expect("polled");
    }
    (world, hosts)
}

/// What would happen is known before anything is written, and then happens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plan_groups_hosts_by_identical_difference_and_writes_nothing() {
    let (world, mut hosts) = fleet().await;
    let (rows, clock) = (world.rows().await.expect("rows"), world.clock().await.expect("clock"));
    let edited = template(
        "t",
        &[
            ("a.j2", "port={{ values.port }}\narch={{ host.facts.arch }}\n"),
            ("template.yaml", "values: { port: 80 }\n"),
        ],
    );
    let planned = plan(&world, vec![edited.clone()]).await;
    assert_eq!(planned.results[0].action, Action::Updated);
    let told: Vec<_> = planned.groups.iter().map(|group| (group.effect, group.count, group.detail.clone())).collect();
    let [both, other, failing] = planned.groups.as_slice() else { panic!("three groups, not {told:?}") };
    assert_eq!((both.effect, both.count), (PlanEffect::Change, 2), "{told:?}");
    assert_eq!(both.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a1", "a2"]);
    assert!(both.detail.contains("+arch=arm") && !both.detail.contains("-port"), "{}", both.detail);
    let (other, failing) = if other.effect == PlanEffect::Fail { (failing, other) } else { (other, failing) };
    assert_eq!((other.effect, other.count, &*other.hosts[0]), (PlanEffect::Change, 1, "b1"));
    assert_eq!((failing.effect, failing.count, &*failing.hosts[0]), (PlanEffect::Fail, 1, "c1"));
    assert!(failing.detail.contains("a.j2") && failing.detail.contains("arch"), "{}", failing.detail);
    assert_eq!((world.rows().await.expect("rows"), world.clock().await.expect("clock")), (rows, clock));

    world.apply([edited]).await.expect("written");
    let clock = world.settled().await.expect("decided");
    let mut moved = Vec::new();
    for host in &mut hosts {
        if !host.catch_up(clock).await.expect("polled").moved.is_empty() {
            moved.push(host.name.clone());
        }
    }
    assert_eq!(moved, ["a1", "a2", "b1"], "exactly those that were planned to change");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plan_tells_additions_removals_and_what_stays() {
    let (world, _) = fleet().await;
    // A remark in the source renders to the same.
    let same =
        template("t", &[("a.j2", "port={# why #}{{ values.port }}\n"), ("template.yaml", "values: { port: 80 }\n")]);
    let planned = plan(&world, vec![same]).await;
    assert!(planned.groups.is_empty() && planned.unchanged == 4, "{planned:?}");
    let planned = plan(&world, vec![target("all", "name=a1")]).await;
    let told: Vec<_> = planned.groups.iter().map(|group| (group.effect, group.count)).collect();
    assert_eq!(told, [(PlanEffect::Remove, 3)], "{planned:?}");
    let planned = plan(&world, vec![deployment("e", "w", "t", "all", &json!({})), host("new", "name=new")]).await;
    let added: usize =
        planned.groups.iter().filter(|group| group.effect == PlanEffect::Add).map(|group| group.count).sum();
    assert_eq!(added, 6, "`e` on five hosts and `d` on the new one: {planned:?}");
    let refused =
        ApplyRequest { resources: vec![deployment("e", "none", "t", "all", &json!({}))], ..ApplyRequest::default() };
    assert_eq!(world.admin.plan(&refused).await.expect_err("refused").code(), Some(Code::MissingReference));
    // Nothing of all that was kept.
    let refused = world.admin.get(Kind::Deployment, Some("default"), "e", None).await;
    assert_eq!(refused.expect_err("not written").code(), Some(Code::NotFound));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_names_the_rule_that_keeps_a_deployment_away() {
    let (world, _) = fleet().await;
    world.apply([target("one", "name=a1"), deployment("e", "w", "t", "one", &json!({}))]).await.expect("written");
    let held = world.admin.why("a1", "default", "e").await.expect("why");
    assert!(held.assigned && held.steps.iter().all(|step| step.holds), "{held:?}");
    assert!(held.assignment.is_some_and(|row| row.state == HostState::Progressing));
    let away = world.admin.why("a2", "default", "e").await.expect("why");
    assert!(!away.assigned && away.assignment.is_none(), "{away:?}");
    let step = away.steps.iter().find(|step| !step.holds).expect("a rule");
    assert!(step.rule.contains("name=a1") && step.found.contains("name=a2"), "{step:?}");
    assert!(away.summary.contains("does not"), "{}", away.summary);
    let private = json!({"spec": {"workspaces": ["other"]}});
    world.admin.patch(Kind::Host, None, "a1", &private, &WriteOptions::default()).await.expect("patched");
    let away = world.admin.why("a1", "default", "e").await.expect("why");
    assert!(!away.assigned && away.summary.contains("admits"), "{}", away.summary);
    for (host, deployment) in [("missing", "e"), ("a1", "missing"), ("..", "e")] {
        let found = world.admin.why(host, "default", deployment).await;
        assert_eq!(found.expect_err("not there").code(), Some(Code::NotFound), "{host} {deployment}");
    }
}

/// S2-4.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_say_which_layer_gave_each() {
    let (world, _) = fleet().await;
    let overrides = json!([
        {"match": {"matchLabels": {"name": "a2"}}, "values": {"d": "no"}},
        {"match": {"expression": "true"}, "values": {"d": "override", "e": "override"}},
    ]);
    let mut loads = workload("w", "1");
    loads["spec"]["values"] = json!({"b": "workload", "c": "workload", "nested": {"kept": 1, "hidden": 1}});
    let mut own = labelled(host("a1", ""), "name=a1");
    own["spec"]["values"] = json!({"e": "host"});
    let manifest = "values: { port: 80, a: template, b: template, c: template, d: template, e: template }\n";
    let values = json!({"c": "deployment", "d": "deployment", "nested": {"hidden": 2}});
    let documents = [
        template("t", &[("a.j2", "{{ values.port }}\n"), ("template.yaml", manifest)]),
        loads,
        own,
        deployment("d", "w", "t", "all", &json!({"values": values, "overrides": overrides})),
    ];
    world.apply(documents).await.expect("written");
    let merged = world.admin.values("default", "d", "a1").await.expect("values");
    for (pointer, value, layer) in [
        ("/a", json!("template"), "template"),
        ("/b", json!("workload"), "workload"),
        ("/c", json!("deployment"), "deployment"),
        ("/d", json!("override"), "override 2"),
        ("/e", json!("host"), "host"),
        ("/nested/kept", json!(1), "workload"),
        ("/nested/hidden", json!(2), "deployment"),
    ] {
        let origin = merged.origins.iter().find(|origin| origin.pointer == pointer);
        let origin = origin.unwrap_or_else(|| panic!("{pointer} in {merged:?}"));
        assert_eq!((&origin.value, origin.layer.as_str()), (&value, layer), "{origin:?}");
        assert_eq!(Value::Object(merged.values.clone()).pointer(pointer), Some(&value));
    }
    let hidden = merged.origins.iter().find(|origin| origin.pointer == "/e").expect("a value");
    assert_eq!(hidden.hides, ["override 2", "template"]);
    let missing = world.admin.values("default", "d", "missing").await;
    assert_eq!(missing.expect_err("no host").code(), Some(Code::NotFound));
}

/// S2-34, law 9: what a host is said to run is what it reported of this very release.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_counts_as_healthy_only_after_it_reported_this_release() {
    let (world, mut hosts) = fleet().await;
    let status = world.admin.deployment_status("default", "d").await.expect("a status");
    assert_eq!((status.counts.desired, status.counts.healthy, status.counts.progressing), (4, 0, 4), "{status:?}");
    for host in &mut hosts {
        host.report(&titan_tests::worlds::News::default()).await.expect("reported");
    }
    let status = world.admin.deployment_status("default", "d").await.expect("a status");
    assert!(status.converged() && status.counts.healthy == 4 && status.release.as_deref() == Some("d#1"), "{status:?}");
    let patch = json!({"spec": {"values": {"port": 81}}});
    world.admin.patch(Kind::Deployment, Some("default"), "d", &patch, &WriteOptions::default()).await.expect("patched");
    let clock = world.settled().await.expect("decided");
    let status = world.admin.deployment_status("default", "d").await.expect("a status");
    assert_eq!((status.counts.healthy, status.counts.progressing), (0, 4), "the old reports are of the old release");
    // A host that repeats what it said before proves nothing.
    hosts[0].report(&titan_tests::worlds::News::default()).await.expect("reported");
    let status = world.admin.deployment_status("default", "d").await.expect("a status");
    assert_eq!(status.counts.healthy, 0, "{status:?}");
    for host in &mut hosts {
        let news = host.catch_up(clock).await.expect("polled");
        host.report(&news).await.expect("reported");
    }
    let status = world.admin.deployment_status("default", "d").await.expect("a status");
    assert!(status.converged() && status.release.as_deref() == Some("d#2"), "{status:?}");
    assert!(status.hosts.iter().all(|host| host.digest == host.observed_digest), "{status:?}");
}
