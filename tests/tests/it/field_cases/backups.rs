//! Backups as the manual has them: the very commands, with people and hosts going on.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;
use titan_api::{
    Code, Kind,
    changes::{ApplyRequest, Operation},
    client::{Client, WriteOptions},
};
use titan_tests::{
    databases::{self, Database},
    manifests::{deployment, target, template, workload},
    planes::Plane,
    worlds::{PolledHost, World, until},
};
use tokio_util::sync::CancellationToken;

/// Returns the commands of the manual that make a backup and bring it back, of SQLite or of PostgreSQL.
fn runbook(sqlite: bool) -> (String, String) {
    let manual = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operating.md");
    let manual = std::fs::read_to_string(manual).expect("the manual");
    let (_, chapter) = manual.split_once("\n## Backups").expect("a chapter");
    let chapter = chapter.split_once("\n## ").map_or(chapter, |(chapter, _)| chapter);
    let mut blocks = vec![String::new()];
    for line in chapter.lines() {
        match (line.strip_prefix("    "), blocks.last_mut()) {
            (Some(command), Some(block)) => *block += &format!("{command}\n"),
            (None, Some(block)) if !block.is_empty() => blocks.push(String::new()),
            _ => {}
        }
    }
    blocks.retain(|block| !block.is_empty());
    let blocks: [String; 4] = blocks.try_into().expect("a backup and a restore of each");
    let [backup, restore, dump, undump] = blocks;
    if sqlite { (backup, restore) } else { (dump, undump) }
}

/// Whether what the manual calls is on this machine; that it is not is told.
#[expect(clippy::print_stderr, reason = "whoever runs the tests is to know what they did not show")]
fn is_here(program: &str) -> bool {
    let here = Path::new("/usr/bin").join(program).exists();
    if !here {
        assert!(!std::env::var("CI").is_ok_and(|value| value == "true"), "{program} is needed here");
        eprintln!("left out: backups with {program}");
    }
    here
}

/// Runs commands as a person would where the database is.
async fn run(commands: &str, database: &Database, folder: &Path) {
    let mut shell = Command::new("sh");
    shell.args(["-ec", commands]).current_dir(folder).env("TITAN_DATABASE_URL", &database.url);
    let done = tokio::task::spawn_blocking(move || shell.output()).await.expect("joined").expect("a shell");
    assert!(done.status.success(), "{commands}: {}", String::from_utf8_lossy(&done.stderr));
}

fn version(host: &PolledHost) -> &str {
    host.held["default/web"].files["version"].trim()
}

/// S4-42: a backup that is made while everything goes on, and brought back, is a whole state of then. What came later is
/// gone; the clock goes past all that hosts have seen, and they are told everything anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backups_of_the_manual_bring_a_control_plane_back() {
    for database in databases::each() {
        let (engine, sqlite) = (database.engine, database.is_sqlite());
        if !is_here(if sqlite { "sqlite3" } else { "pg_dump" }) {
            continue;
        }
        let (back_up, bring_back) = runbook(sqlite);
        let elsewhere = tempfile::tempdir().expect("a folder");
        let file = PathBuf::from(database.url.trim_start_matches("sqlite://"));
        let folder = if sqlite { file.parent().expect("a folder") } else { elsewhere.path() };
        let world = World::over(database, crate::NODE).await.expect("a control plane");
        let files = [("version.j2", "{{ workload.version }}\n")];
        let web = deployment("web", "w", "t", "all", &json!({}));
        world.apply([template("t", &files), workload("w", "1"), target("all", ""), web]).await.expect("written");
        let mut pi = world.host("pi", "").await.expect("a host");
        let news = pi.catch_up(world.settled().await.expect("decided")).await.expect("polled");
        pi.report(&news).await.expect("reported");
        // Somebody writes all the time.
        let enough = CancellationToken::new();
        let writer = tokio::spawn({
            let (client, enough) = (world.admin.clone(), enough.clone());
            async move {
                let mut written = 0;
                while !enough.is_cancelled() {
                    written += 1;
                    let request =
                        ApplyRequest { resources: vec![workload("busy", &written.to_string())], ..Default::default() };
                    client.apply(&request, &WriteOptions::default()).await.expect("written");
                }
                written
            }
        });
        let begun = until("the first write", async || {
            Ok(world.admin.get(Kind::Workload, Some("default"), "busy", None).await.ok())
        });
        begun.await.expect("it writes");
        run(&back_up, &world.database, folder).await;
        enough.cancel();
        let written: u64 = writer.await.expect("joined");

        world.apply([workload("w", "2"), workload("later", "1")]).await.expect("written");
        pi.catch_up(world.settled().await.expect("decided")).await.expect("polled");
        assert_eq!(version(&pi), "2", "{engine}");
        let seen = pi.cursor.expect("a cursor");
        let World { plane, database, .. } = world;
        let token = plane.token.clone();
        plane.stop().await.expect("stopped");
        run(&bring_back, &database, folder).await;
        let plane = Plane::start(&database, crate::NODE, &token).await.expect("it serves what was brought back");
        let world = World { admin: plane.client(), plane, database };

        let spec = async |name: &str| {
            Ok::<_, titan_api::client::ClientError>(
                world.admin.get(Kind::Workload, Some("default"), name, None).await?.spec,
            )
        };
        assert_eq!(spec("w").await.expect("the workload")["version"], "1", "{engine}");
        let busy = spec("busy").await.expect("what was written meanwhile");
        let busy: u64 = busy["version"].as_str().expect("a version").parse().expect("a number");
        assert!((1..=written).contains(&busy), "{engine}: {busy} of {written}");
        assert_eq!(spec("later").await.expect_err("it came later").code(), Some(Code::NotFound), "{engine}");

        // The host is ahead of this database: its credential is known, and it is told everything.
        pi.client = Client::new(&world.plane.server, Some(pi.credential.clone())).expect("a client");
        let told = until("a full answer", async || Ok(pi.poll(0).await.ok().flatten())).await.expect("told");
        assert!(told.full && pi.cursor > Some(seen), "{engine}: {told:?}");
        assert_eq!(version(&pi), "1", "{engine}");
        let mut changes = Vec::new();
        let mut since = Some(titan_api::Revision::ZERO);
        while let Some(from) = since {
            let page = world.admin.changes(Some(from), 0).await.expect("changes");
            since = (!page.items.is_empty()).then_some(page.cursor);
            changes.extend(page.items);
        }
        let moved: Vec<_> = changes.iter().filter(|change| change.operation == Operation::ClockMoved).collect();
        assert!(moved.len() == 1 && moved[0].revision >= seen, "{engine}: {moved:?}");
        world.apply([workload("w", "3")]).await.expect("written");
        pi.catch_up(world.settled().await.expect("decided")).await.expect("polled");
        assert_eq!(version(&pi), "3", "{engine}: and all goes on");
    }
}
