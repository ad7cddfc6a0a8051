//! A day at the terminal: what an operator types beyond the founding lines.

use serde_json::{Value, json};
use titan_tests::{
    agents::AgentNode,
    operators::Operator,
    worlds::{World, until},
};

const FLEET: &str = "\
apiVersion: titan/v1
kind: Host
metadata: { name: pi, labels: { zone: a } }
---
apiVersion: titan/v1
kind: Template
metadata: { name: web }
spec: { directory: ./web }
---
apiVersion: titan/v1
kind: Workload
metadata: { name: web }
spec: { version: 1.0.0, values: { port: 80 } }
---
apiVersion: titan/v1
kind: Target
metadata: { name: zone-a }
spec: { matchLabels: { zone: a } }
---
apiVersion: titan/v1
kind: Deployment
metadata: { name: web }
spec: { workload: web, template: web, target: zone-a }
";

async fn fleet() -> (World, Operator) {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let person = Operator::new(crate::NODE).expect("a directory");
    person.login(&world.plane.server, &world.plane.token).expect("logged in");
    person.write("fleet/fleet.yaml", FLEET).expect("a file");
    person.write("fleet/web/app.conf.j2", "port={{ values.port }}\n").expect("a file");
    person.titan("titan apply -f fleet").expect("applied");
    (world, person)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plan_and_diff_end_with_6_if_something_differs_and_write_nothing() {
    let (world, person) = fleet().await;
    let clock = world.settled().await.expect("decided");
    for line in ["titan diff -f fleet", "titan plan -f fleet --exit-code"] {
        assert_eq!(person.run(line).expect("run").status.code(), Some(0), "{line}: nothing differs");
    }
    person.write("fleet/web/app.conf.j2", "port={{ values.port }}\nlog=quiet\n").expect("a file");
    for line in ["titan diff -f fleet", "titan plan -f fleet --exit-code"] {
        let output = person.run(line).expect("run");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(6), "{line}: {said}");
        let added = |line: &str| line.trim_start().starts_with('+') && line.ends_with("log=quiet");
        assert!(said.lines().any(added), "{line}: {said}");
    }
    assert_eq!(person.run("titan plan -f fleet").expect("run").status.code(), Some(0), "only on demand");
    person.titan("titan apply -f fleet --dry-run").expect("checked");
    assert_eq!(world.clock().await.expect("clock"), clock);
    // What would fail is told before it is written.
    person.write("fleet/web/app.conf.j2", "port={{ values.prot }}\n").expect("a file");
    let said = person.titan("titan plan -f fleet").expect("a plan");
    assert!(said.contains("app.conf.j2") && said.contains("prot") && said.contains("pi"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_output_format_is_what_its_name_says() {
    let (_world, person) = fleet().await;
    let table = person.titan("titan get hosts").expect("a table");
    assert!(table.contains("NAME") && table.contains("pi") && !table.contains('\u{1b}'), "{table}");
    let wide = person.titan("titan get hosts -o wide").expect("a table");
    assert!(wide.lines().next().map(str::len) > table.lines().next().map(str::len), "{wide}");
    assert_eq!(person.titan("titan get hosts -o name").expect("names").trim(), "host/pi");
    let json: Value = serde_json::from_str(&person.titan("titan get host pi -o json").expect("JSON")).expect("JSON");
    assert_eq!(json["metadata"]["labels"], json!({"zone": "a"}));
    let yaml = person.titan("titan get workload web -o yaml").expect("YAML");
    // What was shown can be written again as it is, and changes nothing.
    person.write("again.yaml", &yaml).expect("a file");
    let again = person.titan("titan apply -f again.yaml").expect("applied");
    assert!(again.contains("unchanged"), "{again}");
    let selected = person.titan("titan get hosts -l zone=b -o name").expect("names");
    assert!(!selected.contains("pi"), "{selected}");
}

/// S3-38: the history of edits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn change_is_waited_for_explained_and_found_in_the_history() {
    let (world, person) = fleet().await;
    let agent = AgentNode::new(crate::NODE).expect("an agent");
    agent.join(&person.titan("titan host join-command pi").expect("a line")).expect("enrolled");
    let mut running = agent.run().expect("running");
    person.titan("titan status deployment web --wait --timeout 60s").expect("it becomes healthy");
    person.write("fleet/web/app.conf.j2", "changed port={{ values.port }}\n").expect("a file");
    person.titan("titan apply -f fleet --wait --timeout 60s --reason quieter").expect("it becomes healthy");
    assert_eq!(agent.files().expect("files")["default/web/app.conf"], "changed port=80\n");
    let history = person.titan("titan history template web").expect("a history");
    assert!(history.contains("quieter"), "{history}");
    let values = person.titan("titan values web --host pi").expect("values");
    assert!(values.contains("port") && values.contains("workload"), "{values}");
    let why = person.titan("titan why pi web").expect("why");
    assert!(why.contains("zone=a"), "{why}");
    person.titan("titan delete deployment web").expect("deleted");
    until("the file to be gone", async || Ok(agent.files()?.is_empty().then_some(()))).await.expect("removed");
    until("the deployment to be gone", async || {
        let (exit, _) = person.json("titan status deployment web")?;
        Ok((exit == 3).then_some(()))
    })
    .await
    .expect("gone");
    let last = agent.commits().expect("commits").first().map(|(_, message)| message.clone()).unwrap_or_default();
    assert!(last.contains("removed"), "{last}");
    assert!(running.is_running());
    running.kill().expect("ended");
    drop(world);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_made_at_the_terminal_works_until_it_is_ended() {
    let (world, person) = fleet().await;
    let (exit, made) = person.json("titan token create pipeline").expect("made");
    assert_eq!(exit, 0, "{made}");
    let token = made["token"].as_str().expect("a token").to_owned();
    let other = Operator::new(crate::NODE).expect("a directory");
    other.login(&world.plane.server, &token).expect("logged in");
    other.titan("titan get hosts").expect("it works");
    let listed = person.titan("titan token list").expect("listed");
    assert!(listed.contains("pipeline") && !listed.contains(&token), "{listed}");
    let id = made["record"]["id"].as_str().expect("an id");
    person.titan(&format!("titan token delete {id}")).expect("ended");
    assert_eq!(other.run("titan get hosts").expect("run").status.code(), Some(4));
    let wrong = Operator::new(crate::NODE).expect("a directory");
    assert!(wrong.login(&world.plane.server, "titan_admin_wrong").is_err(), "a login is tried before it is kept");
    assert_eq!(wrong.run("titan get hosts").expect("run").status.code(), Some(2), "nothing was kept");
}
