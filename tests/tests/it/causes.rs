//! Law 4: every cause moves the feed of exactly the hosts that it concerns.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use titan_api::{
    Code, Kind,
    client::{Polled, WriteOptions},
    poll::RemovalReason,
};
use titan_tests::{
    manifests::{self, deployment, target, template, within, workload},
    worlds::{PolledHost, World, until},
};

/// Hosts `a1` and `a2` in zone a, `b1` in zone b, `c1` in zone c. Deployment `web` is on zone a, `tool` on zone c.
struct Fleet {
    world: World,
    hosts: BTreeMap<String, PolledHost>,
}

const WEB: &str = "port={{ values.port }} version={{ workload.version }}\n";

/// Returns the template of `web` with this text.
fn web_template(text: &str) -> Value {
    template("web", &[("app.conf.j2", text), ("template.yaml", "values: { port: 80 }\n")])
}

impl Fleet {
    async fn start() -> Self {
        let world = World::start(crate::NODE).await.expect("a control plane");
        let documents = [
            web_template(WEB),
            template("tool", &[("tool.conf", "as it is\n")]),
            workload("web", "1"),
            workload("tool", "1"),
            target("zone-a", "zone=a"),
            target("zone-c", "zone=c"),
            deployment("web", "web", "web", "zone-a", &json!({})),
            deployment("tool", "tool", "tool", "zone-c", &json!({})),
        ];
        world.apply(documents).await.expect("the fleet is written");
        let mut fleet = Self { world, hosts: BTreeMap::new() };
        for (name, zone) in [("a1", "a"), ("a2", "a"), ("b1", "b"), ("c1", "c")] {
            fleet.join(name, &format!("name={name},zone={zone}")).await;
        }
        fleet.expect(&["a1 default/web", "a2 default/web", "c1 default/tool"], &[]).await;
        fleet
    }

    async fn join(&mut self, name: &str, labels: &str) {
        let host = self.world.host(name, labels).await.expect("a host");
        self.hosts.insert(name.to_owned(), host);
    }

    async fn apply(&self, documents: impl IntoIterator<Item = Value>) {
        self.world.apply(documents).await.expect("written");
    }

    async fn patch(&self, kind: Kind, name: &str, patch: Value) {
        let options = WriteOptions::default();
        self.world.admin.patch(kind, Some("default"), name, &patch, &options).await.expect("patched");
    }

    fn file(&self, host: &str, title: &str, path: &str) -> &str {
        &self.hosts[host].held[title].files[path]
    }

    /// Lets every host poll and asserts that exactly these moved and exactly these were told to go, each as
    /// `<host> <workspace>/<name>`, and that what each host folded is what a full answer holds.
    async fn expect(&mut self, moved: &[&str], removed: &[(&str, RemovalReason)]) {
        let clock = self.world.settled().await.expect("decided");
        let (mut found_moved, mut found_removed) = (Vec::new(), Vec::new());
        for (name, host) in &mut self.hosts {
            let before = host.held.clone();
            let news = host.catch_up(clock).await.expect("polled");
            for (title, held) in &host.held {
                if before.get(title).is_none_or(|before| before.revision != held.revision) {
                    found_moved.push(format!("{name} {title}"));
                }
            }
            for (title, tombstone) in &news.removed {
                found_removed.push((format!("{name} {title}"), tombstone.reason));
                assert!(before.contains_key(title), "{name} is told to remove {title}, which it never had");
            }
            let Polled::Changed(full) = host.client.poll(name, None, None, 0).await.expect("polled") else {
                panic!("a poll without a cursor is answered in full");
            };
            assert!(full.full && full.digest == host.have(), "{name} folded to something else than the full answer");
        }
        let removed: Vec<_> = removed.iter().map(|(title, reason)| ((*title).to_owned(), *reason)).collect();
        assert_eq!((found_moved, found_removed), (moved.iter().map(|text| (*text).to_owned()).collect(), removed));
    }
}

/// S2-10, S2-15, S2-28.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edited_template_moves_the_hosts_that_render_it_and_nobody_else() {
    let mut fleet = Fleet::start().await;
    fleet.apply([web_template("edited port={{ values.port }}\n")]).await;
    fleet.expect(&["a1 default/web", "a2 default/web"], &[]).await;
    assert_eq!(fleet.file("a1", "default/web", "app.conf"), "edited port=80\n");
    // The source differs, the rendering does not: nobody moves.
    fleet.apply([web_template("edited{# a remark #} port={{ values.port }}\n")]).await;
    fleet.expect(&[], &[]).await;
    fleet.apply([web_template("edited{# a remark #} port={{ values.port }}\n")]).await;
    fleet.expect(&[], &[]).await;
}

/// S2-11.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bumped_workload_version_moves_the_hosts_that_read_it() {
    let mut fleet = Fleet::start().await;
    fleet.apply([workload("web", "2")]).await;
    fleet.expect(&["a1 default/web", "a2 default/web"], &[]).await;
    assert_eq!(fleet.file("a2", "default/web", "app.conf"), "port=80 version=2\n");
    // The template of `tool` reads nothing of its workload.
    fleet.apply([workload("tool", "2")]).await;
    fleet.expect(&[], &[]).await;
}

/// S2-12.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_values_move_the_hosts_of_the_deployment() {
    let mut fleet = Fleet::start().await;
    fleet.patch(Kind::Deployment, "web", json!({"spec": {"values": {"port": 81}}})).await;
    fleet.expect(&["a1 default/web", "a2 default/web"], &[]).await;
    assert_eq!(fleet.file("a1", "default/web", "app.conf"), "port=81 version=1\n");
    // A value that nothing reads moves nobody.
    fleet.patch(Kind::Deployment, "web", json!({"spec": {"values": {"unread": 1}}})).await;
    fleet.expect(&[], &[]).await;
    // The workload's layer is weaker than the deployment's.
    fleet.patch(Kind::Workload, "web", json!({"spec": {"values": {"port": 7}}})).await;
    fleet.expect(&[], &[]).await;
    fleet.patch(Kind::Deployment, "web", json!({"spec": {"values": {"port": null}}})).await;
    fleet.expect(&["a1 default/web", "a2 default/web"], &[]).await;
    assert_eq!(fleet.file("a1", "default/web", "app.conf"), "port=7 version=1\n");
}

/// S2-4, S2-12.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn added_override_moves_the_hosts_that_it_matches() {
    let mut fleet = Fleet::start().await;
    let overrides = json!([{"match": {"matchLabels": {"name": "a2"}}, "values": {"port": 8080}}]);
    fleet.patch(Kind::Deployment, "web", json!({"spec": {"overrides": overrides}})).await;
    fleet.expect(&["a2 default/web"], &[]).await;
    assert_eq!(fleet.file("a2", "default/web", "app.conf"), "port=8080 version=1\n");
    fleet.patch(Kind::Deployment, "web", json!({"spec": {"overrides": []}})).await;
    fleet.expect(&["a2 default/web"], &[]).await;
}

/// S2-14, S2-27.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edited_target_removes_three_adds_two_and_leaves_five_alone() {
    let mut fleet = Fleet::start().await;
    for index in 0..10 {
        fleet.join(&format!("t{index}"), &format!("name=t{index},zone=t")).await;
    }
    let among = |range: std::ops::Range<u32>| {
        let names: Vec<_> = range.map(|index| format!("t{index}")).collect();
        let rule = json!({"matchExpressions": [{"key": "name", "operator": "In", "values": names}]});
        manifests::document("Target", None, "some", &rule)
    };
    fleet.apply([among(0..8), deployment("many", "tool", "tool", "some", &json!({}))]).await;
    let first: Vec<_> = (0..8).map(|index| format!("t{index} default/many")).collect();
    fleet.expect(&first.iter().map(String::as_str).collect::<Vec<_>>(), &[]).await;
    fleet.apply([among(3..10)]).await;
    let gone = RemovalReason::Unmatched;
    fleet
        .expect(
            &["t8 default/many", "t9 default/many"],
            &[("t0 default/many", gone), ("t1 default/many", gone), ("t2 default/many", gone)],
        )
        .await;
}

/// S2-14, S2-32.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relabelled_host_loses_what_no_longer_matches_and_gets_what_does() {
    let mut fleet = Fleet::start().await;
    fleet.patch(Kind::Host, "a1", json!({"metadata": {"labels": {"zone": "c"}}})).await;
    fleet.expect(&["a1 default/tool"], &[("a1 default/web", RemovalReason::Unmatched)]).await;
    // It is handed the release that the others have.
    assert_eq!(fleet.hosts["a1"].held["default/tool"].release, fleet.hosts["c1"].held["default/tool"].release);
    // A label that neither a target nor a template reads.
    fleet.patch(Kind::Host, "a2", json!({"metadata": {"labels": {"colour": "red"}}})).await;
    fleet.expect(&[], &[]).await;
    // A label that a template reads.
    fleet.apply([web_template("{{ host.labels.colour | default('none') }}\n")]).await;
    fleet.expect(&["a2 default/web"], &[]).await;
    fleet.patch(Kind::Host, "a2", json!({"metadata": {"labels": {"colour": "blue"}}})).await;
    fleet.expect(&["a2 default/web"], &[]).await;
    assert_eq!(fleet.file("a2", "default/web", "app.conf"), "blue\n");
}

/// S2-32.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_host_is_matched_at_once() {
    let mut fleet = Fleet::start().await;
    fleet.join("a3", "zone=a").await;
    fleet.expect(&["a3 default/web"], &[]).await;
    assert_eq!(fleet.hosts["a3"].held["default/web"].release, fleet.hosts["a1"].held["default/web"].release);
}

/// S2-13, S2-31.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_deployment_leaves_tombstones_until_its_hosts_have_confirmed() {
    let mut fleet = Fleet::start().await;
    let admin = fleet.world.admin.clone();
    let options = WriteOptions::default();
    admin.delete(Kind::Deployment, Some("default"), "web", false, &options).await.expect("deleted");
    fleet
        .expect(
            &[],
            &[
                ("a1 default/web", RemovalReason::DeploymentDeleted),
                ("a2 default/web", RemovalReason::DeploymentDeleted),
            ],
        )
        .await;
    let status = admin.deployment_status("default", "web").await.expect("still there while hosts remove it");
    assert_eq!(status.counts.removing, 2);
    for name in ["a1", "a2"] {
        let host = fleet.hosts.get_mut(name).expect("host");
        // The tombstone is in every full answer until it is acknowledged.
        host.cursor = None;
        let news = host.poll(0).await.expect("polled").expect("told");
        assert!(news.full && news.removed.contains_key("default/web"), "{news:?}");
        host.report(&news).await.expect("reported");
        host.cursor = None;
        let news = host.poll(0).await.expect("polled").expect("told");
        assert!(news.removed.is_empty(), "{news:?}");
    }
    let gone = until("the deployment to be gone", async || {
        let found = admin.deployment_status("default", "web").await;
        Ok(found.is_err_and(|error| error.code() == Some(Code::NotFound)).then_some(()))
    });
    gone.await.expect("gone");
}

/// S2-14.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn withdrawn_workspace_access_takes_the_workspaces_deployments_away() {
    let mut fleet = Fleet::start().await;
    fleet.apply([manifests::workspace("iot")]).await;
    let iot = [
        within("iot", target("zone-a", "zone=a")),
        within("iot", workload("tool", "1")),
        within("iot", deployment("extra", "tool", "tool", "zone-a", &json!({}))),
    ];
    fleet.apply(iot).await;
    fleet.expect(&["a1 iot/extra", "a2 iot/extra"], &[]).await;
    fleet.patch(Kind::Host, "a1", json!({"spec": {"workspaces": ["default"]}})).await;
    fleet.expect(&[], &[("a1 iot/extra", RemovalReason::AccessWithdrawn)]).await;
    fleet.patch(Kind::Host, "a1", json!({"spec": {"workspaces": ["default", "iot"]}})).await;
    fleet.expect(&["a1 iot/extra"], &[]).await;
}

/// S2-14.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_fact_moves_the_host_whose_rendering_or_match_reads_it() {
    let mut fleet = Fleet::start().await;
    let arch = json!({"matchExpressions": [{"key": "fact/arch", "operator": "In", "values": ["arm"]}]});
    fleet
        .apply([
            template("arch", &[("arch.j2", "{{ host.facts.arch }}\n")]),
            manifests::document("Target", None, "arm", &arch),
            deployment("arch", "tool", "arch", "zone-a", &json!({})),
            deployment("arm-only", "tool", "tool", "arm", &json!({})),
        ])
        .await;
    // Without the fact it cannot be rendered: nobody has it yet.
    fleet.expect(&[], &[]).await;
    let facts = |arch: &str| [("arch".to_owned(), json!(arch)), ("kernel".to_owned(), json!("6.1"))].into();
    let told = async |fleet: &mut Fleet, title: &str, content: &str| {
        let host = fleet.hosts.get_mut("a1").expect("host");
        let moved = until("the fact to arrive", async || {
            host.poll(1).await?;
            Ok(host.held.get(title).is_some_and(|held| held.files["arch"] == content).then_some(()))
        });
        moved.await.expect("moved");
    };
    fleet.hosts.get_mut("a1").expect("host").report_facts(facts("x86")).await.expect("reported");
    told(&mut fleet, "default/arch", "x86\n").await;
    assert!(!fleet.hosts["a1"].held.contains_key("default/arm-only"));
    fleet.expect(&[], &[]).await;
    fleet.hosts.get_mut("a1").expect("host").report_facts(facts("arm")).await.expect("reported");
    told(&mut fleet, "default/arch", "arm\n").await;
    fleet.world.settled().await.expect("decided");
    let host = fleet.hosts.get_mut("a1").expect("host");
    host.poll(0).await.expect("polled");
    assert!(host.held.contains_key("default/arm-only"), "{:?}", host.held.keys());
    fleet.expect(&[], &[]).await;
}

/// S2-4.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_host_values_move_that_host_alone() {
    let mut fleet = Fleet::start().await;
    fleet.patch(Kind::Host, "a1", json!({"spec": {"values": {"port": 9}}})).await;
    fleet.expect(&["a1 default/web"], &[]).await;
    assert_eq!(fleet.file("a1", "default/web", "app.conf"), "port=9 version=1\n");
    fleet.patch(Kind::Host, "c1", json!({"spec": {"values": {"port": 9}}})).await;
    fleet.expect(&[], &[]).await;
}

/// A file as a person left it is that host's, and the deployment's, alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adopted_file_moves_its_deployment_on_its_host_alone() {
    let mut fleet = Fleet::start().await;
    fleet.apply([deployment("extra", "tool", "tool", "zone-a", &json!({}))]).await;
    fleet.expect(&["a1 default/extra", "a2 default/extra"], &[]).await;
    let files = |of: &str, path: &str, content: &str| json!({"spec": {"files": {of: {path: {"content": content}}}}});
    fleet.patch(Kind::Host, "a1", files("default/web", "app.conf", "port=4711\n")).await;
    fleet.expect(&["a1 default/web"], &[]).await;
    assert_eq!(fleet.file("a1", "default/web", "app.conf"), "port=4711\n");
    assert_eq!(fleet.file("a2", "default/web", "app.conf"), "port=80 version=1\n");
    let release = fleet.hosts["a1"].held["default/web"].release.clone();
    assert_eq!(release, fleet.hosts["a2"].held["default/web"].release, "it is the same release");
    // The template's new text does not reach the file that was left: the bundle stays the same.
    fleet.apply([web_template("edited {{ values.port }}\n")]).await;
    fleet.expect(&["a2 default/web"], &[]).await;
    assert_eq!(fleet.file("a1", "default/web", "app.conf"), "port=4711\n");
    // Of a deployment that this host does not have.
    fleet.patch(Kind::Host, "a1", files("default/tool", "tool.conf", "x\n")).await;
    fleet.expect(&[], &[]).await;
    // A file that the template does not have: the host keeps what it has, and its status says why.
    fleet.patch(Kind::Host, "a1", files("default/web", "old.conf", "x\n")).await;
    fleet.expect(&[], &[]).await;
    let status = fleet.world.admin.deployment_status("default", "web").await.expect("status");
    let problem = status.hosts[0].problem.as_ref().expect("a problem");
    assert!(status.hosts[1].problem.is_none() && problem.detail.contains("\"old.conf\""), "{problem:?}");
    fleet.patch(Kind::Host, "a1", json!({"spec": {"files": null}})).await;
    fleet.expect(&["a1 default/web"], &[]).await;
    assert_eq!(fleet.hosts["a1"].held["default/web"].digest, fleet.hosts["a2"].held["default/web"].digest);
}

/// What health, hooks and drift read is a part of the outcome like what files read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_value_that_health_reads_moves_the_hosts_of_the_deployment() {
    let mut fleet = Fleet::start().await;
    let manifest = "values: {deadline: 2m, ready: 5}\nhealth:\n  deadline: '{{ values.deadline }}'\n  \
                    minReadySeconds: '{{ values.ready }}'\n";
    fleet.apply([template("web", &[("app.conf", "x\n"), ("template.yaml", manifest)])]).await;
    fleet.expect(&["a1 default/web", "a2 default/web"], &[]).await;
    fleet.patch(Kind::Deployment, "web", json!({"spec": {"values": {"deadline": "3m"}}})).await;
    fleet.expect(&["a1 default/web", "a2 default/web"], &[]).await;
    fleet.patch(Kind::Host, "a2", json!({"spec": {"values": {"ready": 6}}})).await;
    fleet.expect(&["a2 default/web"], &[]).await;
    // One host whose value does not fit keeps what it has (law 8).
    fleet.patch(Kind::Host, "a2", json!({"spec": {"values": {"ready": "soon"}}})).await;
    fleet.expect(&[], &[]).await;
    let status = fleet.world.admin.deployment_status("default", "web").await.expect("status");
    let problem = status.hosts[1].problem.as_ref().expect("a problem");
    assert!(problem.detail.contains("/health/minReadySeconds") && problem.detail.contains("template.yaml line 4"));
}

/// S2-6, S2-14.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cordoned_host_hands_its_replica_to_another() {
    let mut fleet = Fleet::start().await;
    fleet.apply([deployment("single", "tool", "tool", "zone-a", &json!({"replicas": 1}))]).await;
    let clock = fleet.world.settled().await.expect("decided");
    let mut holders = Vec::new();
    for (name, host) in &mut fleet.hosts {
        host.catch_up(clock).await.expect("polled");
        if host.held.contains_key("default/single") {
            holders.push(name.clone());
        }
    }
    let [holder] = holders.as_slice() else { panic!("one host has it, not {holders:?}") };
    let other = if holder == "a1" { "a2" } else { "a1" };
    // A new host takes nothing from who has it.
    fleet.join("a3", "zone=a").await;
    fleet.expect(&["a3 default/web"], &[]).await;
    fleet.patch(Kind::Host, "a3", json!({"spec": {"cordoned": true}})).await;
    fleet.expect(&[], &[]).await;
    // `web` has no replicas: a cordoned host keeps it.
    fleet.patch(Kind::Host, holder, json!({"spec": {"cordoned": true}})).await;
    let moved = format!("{other} default/single");
    let removed = format!("{holder} default/single");
    fleet.expect(&[&moved], &[(&removed, RemovalReason::ReplicaMoved)]).await;
    // Back in service it does not take it back.
    fleet.patch(Kind::Host, holder, json!({"spec": {"cordoned": false}})).await;
    fleet.expect(&[], &[]).await;
}

/// S2-10.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workspace_template_that_hides_the_default_one_moves_that_workspace_alone() {
    let mut fleet = Fleet::start().await;
    fleet
        .apply([
            manifests::workspace("iot"),
            within("iot", target("all", "")),
            within("iot", workload("web", "1")),
            within("iot", deployment("web", "web", "web", "all", &json!({}))),
        ])
        .await;
    fleet.expect(&["a1 iot/web", "a2 iot/web", "b1 iot/web", "c1 iot/web"], &[]).await;
    fleet.apply([within("iot", template("web", &[("app.conf", "our own\n")]))]).await;
    fleet.expect(&["a1 iot/web", "a2 iot/web", "b1 iot/web", "c1 iot/web"], &[]).await;
    assert_eq!(fleet.file("a1", "iot/web", "app.conf"), "our own\n");
    assert_eq!(fleet.file("a1", "default/web", "app.conf"), "port=80 version=1\n");
    // Hidden, the default one concerns them no more.
    fleet.apply([web_template("edited\n")]).await;
    fleet.expect(&["a1 default/web", "a2 default/web"], &[]).await;
    let options = WriteOptions::default();
    fleet.world.admin.delete(Kind::Template, Some("iot"), "web", false, &options).await.expect("deleted");
    fleet.expect(&["a1 iot/web", "a2 iot/web", "b1 iot/web", "c1 iot/web"], &[]).await;
    assert_eq!(fleet.file("a1", "iot/web", "app.conf"), "edited\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_workspace_config_moves_the_hosts_whose_rendering_reads_it() {
    let mut fleet = Fleet::start().await;
    let workspace = |broker: &str| {
        let spec = json!({"description": "all of it", "config": {"broker": broker}});
        manifests::document("Workspace", None, "default", &spec)
    };
    fleet.apply([workspace("one")]).await;
    fleet.expect(&[], &[]).await;
    fleet.apply([web_template("{{ workspace.config.broker }}\n")]).await;
    fleet.expect(&["a1 default/web", "a2 default/web"], &[]).await;
    fleet.apply([workspace("two")]).await;
    fleet.expect(&["a1 default/web", "a2 default/web"], &[]).await;
    assert_eq!(fleet.file("a1", "default/web", "app.conf"), "two\n");
}

/// Changing how a deployment is handled moves its hosts too, though its files stay the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_order_or_removal_rule_moves_the_hosts_with_the_same_bundle() {
    let mut fleet = Fleet::start().await;
    let digest = fleet.hosts["a1"].held["default/web"].digest;
    fleet.patch(Kind::Deployment, "web", json!({"spec": {"dependsOn": ["tool"]}})).await;
    fleet.expect(&["a1 default/web", "a2 default/web"], &[]).await;
    fleet.patch(Kind::Deployment, "web", json!({"spec": {"onRemove": "orphan"}})).await;
    fleet.expect(&["a1 default/web", "a2 default/web"], &[]).await;
    assert_eq!(fleet.hosts["a1"].held["default/web"].digest, digest);
    fleet.patch(Kind::Deployment, "web", json!({"spec": {"description": "a remark"}})).await;
    fleet.expect(&[], &[]).await;
}

/// S2-30.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_host_removes_what_it_has_and_is_gone_when_it_has_confirmed() {
    let mut fleet = Fleet::start().await;
    let admin = fleet.world.admin.clone();
    admin.delete(Kind::Host, None, "a1", false, &WriteOptions::default()).await.expect("deleted");
    fleet.expect(&[], &[("a1 default/web", RemovalReason::HostDeleted)]).await;
    let host = admin.get(Kind::Host, None, "a1", None).await.expect("still there");
    assert!(host.status.expect("status")["deletingSince"].is_string());
    let host = fleet.hosts.get_mut("a1").expect("host");
    host.cursor = None;
    let news = host.poll(0).await.expect("polled").expect("told");
    host.report(&news).await.expect("reported");
    let gone = until("the host to be gone", async || {
        let found = admin.get(Kind::Host, None, "a1", None).await;
        Ok(found.is_err_and(|error| error.code() == Some(Code::NotFound)).then_some(()))
    });
    gone.await.expect("gone");
    fleet.hosts.remove("a1");
    fleet.expect(&[], &[]).await;
}
