//! Power cuts of the control plane: at every statement of a write it is all or nothing, and what was answered with a 2xx
//! is there (laws 1, 2 and 10).

mod planner;
mod reports;
mod rollouts;
mod shutdown;
mod workplans;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use titan_api::{
    Kind, Revision,
    changes::{Action, ApplyRequest, Change, Operation},
    client::{Client, WriteOptions},
    tasks::{ENROL, TaskFilter},
};
use titan_tests::{fleets::document, nodes::PlaneNode};
use tokio::task::JoinSet;

use crate::store_replicas::{apply, deployment, enrolled};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Power cuts at a time.
const AT_A_TIME: usize = 4;

/// A control plane's folder, with two hosts that enrolled.
pub(crate) struct Site {
    folder: TempDir,
    /// The admin token.
    token: String,
    /// The credentials of `h1` and `h2`.
    hosts: [String; 2],
}

impl Site {
    /// Makes a site on a real disk and ends its control plane in good order.
    async fn new(resources: Vec<Value>) -> Self {
        let folder = TempDir::with_prefix("titan-crash-").expect("a folder");
        let mut node = start(folder.path(), None);
        assert!(node.ready().await.expect("ready"));
        let token = std::fs::read_to_string(folder.path().join("token")).expect("a token").trim().to_owned();
        let admin = Client::new(&node.server, Some(token.clone())).expect("client");
        let hosts = [enrolled(&admin, "h1").await, enrolled(&admin, "h2").await];
        if !resources.is_empty() {
            apply(&admin, resources).await;
        }
        settled(&node.server).await;
        node.process.terminate().expect("terminate");
        assert!(node.process.wait(PATIENCE).expect("ended").success());
        Self { folder, token, hosts }
    }

    /// Returns a copy of the site as it lies on the disk.
    fn copy(&self) -> Self {
        let folder = TempDir::with_prefix("titan-crash-").expect("a folder");
        for entry in std::fs::read_dir(self.folder.path()).expect("a folder") {
            let entry = entry.expect("an entry");
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("copy");
        }
        Self { folder, token: self.token.clone(), hosts: self.hosts.clone() }
    }

    fn start(&self, fault: Option<&str>) -> PlaneNode {
        start(self.folder.path(), fault)
    }

    /// Starts a control plane that ends by itself at no point, and waits until it is ready.
    async fn restart(&self) -> PlaneNode {
        let mut node = self.start(None);
        assert!(node.ready().await.expect("ready"), "it does not start again");
        node
    }

    fn admin(&self, node: &PlaneNode) -> Client {
        Client::new(&node.server, Some(self.token.clone())).expect("client")
    }

    /// Returns a client with the credential of `h1` or `h2`.
    fn host(&self, node: &PlaneNode, number: usize) -> Client {
        Client::new(&node.server, Some(self.hosts[number - 1].clone())).expect("client")
    }

    /// Returns the rows of a query with one column of text, as they lie on the disk.
    async fn texts(&self, sql: &'static str) -> Vec<String> {
        use sqlx::Connection as _;
        let mut connection = sqlx::SqliteConnection::connect(&url(self.folder.path())).await.expect("connect");
        let texts = sqlx::query_scalar(sql).fetch_all(&mut connection).await.expect("rows");
        connection.close().await.expect("close");
        texts
    }
}

fn url(folder: &Path) -> String {
    let file: PathBuf = folder.join("titan.db");
    format!("sqlite://{}", file.display())
}

fn start(folder: &Path, fault: Option<&str>) -> PlaneNode {
    PlaneNode::start(crate::NODE, folder, &url(folder), fault).expect("start")
}

/// Whether the process ends by itself: the network may say so first.
fn ended(node: &mut PlaneNode) -> bool {
    node.process.wait(Duration::from_secs(10)).is_ok()
}

/// Waits until everything is planned and followed.
async fn settled(server: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ready: Value =
            reqwest::get(format!("{server}/readyz")).await.expect("an answer").json().await.expect("JSON");
        // The planner's own commit comes after what it has planned.
        let behind = ready["view"]["behindMicroseconds"] != json!(0);
        if !behind && ready["planner"]["revision"] == ready["view"]["revision"] {
            return;
        }
        assert!(Instant::now() < deadline, "{ready}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Cuts the power at `point` the first time, the second time and so on, until a run ends without; returns how many did not.
async fn each_time(point: &'static str, run: impl AsyncFn(String) -> bool + Clone + Send + Sync + 'static) -> usize {
    let mut cuts = 0;
    let mut next = 1;
    loop {
        let local = tokio::task::LocalSet::new();
        let outcomes = local
            .run_until(async {
                let mut runs = JoinSet::new();
                for number in next..next + AT_A_TIME {
                    let run = run.clone();
                    runs.spawn_local(async move { run(format!("{point}:{number}")).await });
                }
                runs.join_all().await
            })
            .await;
        let cut = outcomes.iter().filter(|cut| **cut).count();
        cuts += cut;
        if cut < AT_A_TIME {
            return cuts;
        }
        next += AT_A_TIME;
    }
}

/// Documents of every kind that matters here: some made, one changed, two with tasks.
fn resources() -> Vec<Value> {
    let mut resources = deployment("prod", 8080);
    resources.push(document("Host", None, "new-1", &json!({})));
    resources.push(document("Host", None, "new-2", &json!({})));
    resources.push(document("Workspace", None, "iot", &json!({ "owner": "ann" })));
    resources.push(document("Host", None, "h1", &json!({ "description": "changed" })));
    resources
}

/// One apply with a power cut; returns whether the power was cut.
async fn apply_and_cut(site: &Site, fault: &str) -> bool {
    let mut node = site.start(Some(fault));
    let mut answered = None;
    let mut cut = !node.ready().await.expect("ready");
    let request = ApplyRequest { resources: resources(), ..ApplyRequest::default() };
    let options = WriteOptions { idempotency_key: Some("once".to_owned()), ..WriteOptions::default() };
    if !cut {
        let sent = site.admin(&node).apply(&request, &options).await;
        cut = sent.is_err() && ended(&mut node);
        assert!(sent.is_ok() || cut, "{fault}: {sent:?}");
        answered = sent.ok();
        // S1-10: right after the 2xx.
        node.process.kill().expect("kill");
    }
    let node = site.restart().await;
    let admin = site.admin(&node);
    let kept = changes_since_start(&admin).await;
    if let Some(answer) = &answered {
        assert_eq!(kept.len(), resources().len(), "{fault}: answered with a 2xx and gone");
        assert!(kept.iter().all(|change| Some(change.revision) == answer.revision), "{fault}");
    }
    assert!(kept.is_empty() || kept.len() == resources().len(), "{fault}: part of it is there: {kept:?}");
    let wanted = if kept.is_empty() { 0 } else { 2 };
    assert_eq!(open_tasks(&admin).await, wanted, "{fault}: tasks are not what the documents are");
    consistent(&admin, fault).await;
    // The same request again happens once, whatever became of the first.
    let again = admin.apply(&request, &options).await.expect("apply again");
    if let Some(first) = kept.first() {
        assert_eq!(again.revision, Some(first.revision), "{fault}: done twice");
    }
    if let Some(answer) = answered {
        assert_eq!(again, answer, "{fault}: another answer");
    }
    assert!(again.results.iter().all(|result| result.action != Action::Unchanged), "{fault}: {again:?}");
    let kept = changes_since_start(&admin).await;
    assert_eq!(kept.len(), resources().len(), "{fault}");
    assert_eq!(open_tasks(&admin).await, 2, "{fault}");
    consistent(&admin, fault).await;
    cut
}

/// Returns the changes that the apply made.
async fn changes_since_start(admin: &Client) -> Vec<Change> {
    let page = admin.changes(Some(Revision::ZERO), 0).await.expect("changes");
    let names: Vec<_> = resources().iter().map(|document| document["metadata"]["name"].clone()).collect();
    let ours = |change: &Change| {
        names.contains(&json!(change.name)) && (*change.name != *"h1" || change.operation == Operation::Update)
    };
    page.items.into_iter().filter(ours).collect()
}

async fn open_tasks(admin: &Client) -> usize {
    let enrolments = TaskFilter { kind: Some(ENROL.to_owned()), ..TaskFilter::default() };
    let tasks = admin.tasks(&enrolments).await.expect("tasks").items;
    tasks.iter().filter(|task| !task.state.is_final()).count()
}

/// Sees to it that the documents are what the history says.
async fn consistent(admin: &Client, fault: &str) {
    for kind in Kind::ALL {
        for mut found in admin.list_all(kind, None, None).await.expect("list") {
            let metadata = &found.metadata;
            let history = admin.history(kind, metadata.workspace.as_deref(), &metadata.name).await.expect("history");
            found.status = None;
            let newest = history.items.first().and_then(|change| change.after.clone());
            assert_eq!(newest, Some(found), "{fault}: {kind} differs from its history");
        }
    }
}

/// S1-10, S1-14, law 2.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apply_is_all_or_nothing_wherever_the_power_is_cut() {
    let site = std::sync::Arc::new(Site::new(Vec::new()).await);
    let cuts = each_time("request", {
        let site = std::sync::Arc::clone(&site);
        async move |fault: String| apply_and_cut(&site.copy(), &fault).await
    })
    .await;
    // The clock, three statements for each document, its references, the tasks, the key, before and after the commit.
    assert!(cuts > 3 * resources().len() + 5, "only {cuts} power cuts");
}
