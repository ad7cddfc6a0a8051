//! Room on hosts, as it is typed and shown.

use crate::scenes::Scene;

const ROOM: &str = "\
apiVersion: titan/v1
kind: Template
metadata: { name: web }
spec: { files: { web.conf: { content: x } } }
---
apiVersion: titan/v1
kind: Workload
metadata: { name: web }
spec: { version: 1.0.0, template: web }
---
apiVersion: titan/v1
kind: Target
metadata: { name: all }
spec: { expression: 'true' }
";

/// S5-16.
#[test]
fn what_does_not_fit_is_said_in_plans_and_statuses_and_hosts_are_drained_and_tainted() {
    let scene = Scene::logged_in();
    // Why is answered once everything is decided.
    let status = || {
        scene.line("titan why a web");
        scene.line("titan status deployment web")
    };
    scene.write("room.yaml", ROOM);
    scene.done(&["apply", "-f", "room.yaml"]);
    scene.line("titan create host a --capacity cpu=2,memory=4Gi --labels zone=x");
    scene.line("titan create host b --capacity cpu=1,memory=4Gi --labels zone=y --taint gpu:NoSchedule");
    let create =
        "titan create deployment web --workload web --target all --replicas 2 --spread zone --failover-after 2m";
    scene.line(&format!("{create} --requests cpu=1,memory=512Mi"));
    let said = status();
    assert!(said.contains("1 of 2 replicas have a place; 1 host: taint gpu:NoSchedule"), "{said}");
    let why = scene.line("titan why b web");
    assert!(why.contains("tolerates the taints") && why.contains("gpu:NoSchedule"), "{why}");
    scene.line("titan host taint b gpu:NoSchedule --remove");
    let said = status();
    assert!(!said.contains("problem") && said.contains("0 of 2 healthy"), "{said}");
    let shown = scene.line("titan get deployment web -o yaml");
    assert!(shown.contains("memory: 512Mi") && shown.contains("failoverAfter: 2m"), "{shown}");

    // What would not fit is told before it is written.
    let more = shown.replace("cpu: 1", "cpu: 1500m");
    scene.write("more.yaml", &more);
    let plan = scene.line("titan plan -f more.yaml");
    let unplaced = "default/web would not be placed everywhere: 1 of 2 replicas have a place; \
                    1 host: not enough cpu (needs 1500m, 1 left)";
    assert!(plan.contains(unplaced) && plan.contains("1 to remove"), "{plan}");

    // There is no other place: the replica leaves all the same, and says so.
    let drained = scene.line("titan host drain a");
    assert!(drained.contains("host/a cordoned: 1 of its replicas are leaving: default/web"), "{drained}");
    let said = status();
    assert!(said.contains("1 of 2 replicas have a place; 1 host: cordoned"), "{said}");
    let waited = scene.titan(&["host", "drain", "a", "--wait", "--timeout", "1s"]);
    assert_eq!(waited.code, 1, "{}", waited.out);
    assert!(waited.err.contains("default/web") && waited.err.contains("is it online?"), "{}", waited.err);
    scene.line("titan host uncordon a");
    let tainted = scene.line("titan host taint b repair:NoExecute dedicated=db:NoSchedule");
    assert!(tainted.contains("host/b has taints repair:NoExecute, dedicated=db:NoSchedule"), "{tainted}");
    let said = status();
    assert!(said.contains("1 of 2 replicas have a place; 1 host: taint repair:NoExecute"), "{said}");
    for bad in [
        "titan create host c --capacity cpu=much",
        "titan create host c --taint gpu",
        "titan create deployment c --workload web --target all --spread zone",
        "titan create deployment c --workload web --target all --replicas 1 --failover-after 5",
    ] {
        let words: Vec<_> = bad.split_whitespace().skip(1).collect();
        assert_eq!(scene.titan(&words).code, 2, "{bad}");
    }
}
