//! Databases that are not the one that the agents know.

use std::path::{Path, PathBuf};

use serde_json::json;
use titan_api::{Revision, changes::Operation};
use titan_tests::{
    databases::Database,
    manifests::{deployment, host, workload},
    operators::Operator,
    planes::Plane,
    worlds::World,
};

use crate::outages::{applied, kept, phases, refused};

/// The agents keep everything, and say why nothing is new.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn start_the_server_with_an_empty_db_by_mistake() {
    let (world, agent, before) = applied().await;
    world.plane.stop().await.expect("stopped");
    // Somebody starts the control plane over a new database by mistake: it knows neither host nor credential.
    let empty = World::start(crate::NODE).await.expect("a control plane");
    agent.point_at(&empty.plane.server).expect("configured");
    refused(&agent, "empty database", &before);
    // They bring the host in again: what it has is an orphan, and stays.
    empty.apply([host("pi", "")]).await.expect("written");
    empty.settled().await.expect("decided");
    let person = Operator::new(crate::NODE).expect("a directory");
    person.login(&empty.plane.server, &empty.plane.token).expect("logged in");
    agent.join(&person.titan("titan host join-command pi").expect("a line")).expect("enrolled");
    let output = agent.once().expect("run");
    assert!(String::from_utf8_lossy(&output.stdout).contains("orphan"), "{output:?}");
    assert_eq!(kept(&agent), before);
    assert_eq!(phases(&agent.status().expect("status"))["web"], "orphan");
    let shown = person.titan("titan status host pi").expect("shown");
    assert!(shown.contains("web") && shown.contains("ORPHAN"), "{shown}");
    let pruned = person.titan("titan host prune pi").expect("pruned");
    assert!(pruned.contains("web"), "{pruned}");
    agent.settle().expect("settled");
    assert!(agent.files().expect("files").is_empty());
    let reported = person.titan("titan status host pi").expect("shown");
    assert!(!reported.contains("web"), "{reported}");
}

/// Returns the files of a SQLite database, each with its name.
fn database_files(database: &Database) -> Vec<PathBuf> {
    let file = database.url.trim_start_matches("sqlite://");
    ["", "-wal", "-shm"].iter().map(|end| Path::new(&format!("{file}{end}")).to_owned()).collect()
}

/// S4-42: creates and updates apply; what the lost timeline added is held and listed, and nothing stops.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restore_an_older_db_with_hosts_online() {
    let (world, agent, _) = applied().await;
    let World { plane, database, .. } = world;
    let token = plane.token.clone();
    plane.stop().await.expect("stopped");
    let backup: Vec<_> = database_files(&database).into_iter().map(|file| (std::fs::read(&file).ok(), file)).collect();

    let plane = Plane::start(&database, crate::NODE, &token).await.expect("started");
    agent.point_at(&plane.server).expect("configured");
    let world = World { admin: plane.client(), plane, database };
    let later = [workload("web", "2"), deployment("extra", "web", "web", "all", &json!({}))];
    world.apply(later).await.expect("written");
    world.settled().await.expect("decided");
    agent.settle().expect("applied");
    let (files, _) = kept(&agent);
    assert_eq!(
        (files["default/web/app.conf"].as_str(), files["default/extra/app.conf"].as_str()),
        ("version=2\n", "version=2\n")
    );
    let cursor: Revision =
        agent.status().expect("status")["cursor"].as_str().expect("a cursor").parse().expect("a time");

    let World { plane, database, .. } = world;
    plane.stop().await.expect("stopped");
    for (content, file) in &backup {
        match content {
            Some(content) => std::fs::write(file, content).expect("restored"),
            None => {
                let _not_there = std::fs::remove_file(file);
            }
        }
    }
    let plane = Plane::start(&database, crate::NODE, &token).await.expect("started");
    agent.point_at(&plane.server).expect("configured");
    let world = World { admin: plane.client(), plane, database };
    let output = agent.once().expect("run");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("orphan") && said.contains("extra"), "{output:?}");
    // What is declared is back at what the backup says; what the lost timeline added goes on running.
    let (files, _) = kept(&agent);
    assert_eq!(
        (files["default/web/app.conf"].as_str(), files["default/extra/app.conf"].as_str()),
        ("version=1\n", "version=2\n")
    );
    let now: Revision = agent.status().expect("status")["cursor"].as_str().expect("a cursor").parse().expect("a time");
    assert!(now > cursor, "{now} is not past {cursor}");
    let page = world.admin.changes(Some(Revision::ZERO), 0).await.expect("changes");
    let moved =
        page.items.iter().find(|change| change.operation == Operation::ClockMoved).expect("the history says so");
    assert!(moved.revision >= cursor, "{moved:?}");

    // The next change arrives as ever.
    world.apply([workload("web", "3")]).await.expect("written");
    world.settled().await.expect("decided");
    agent.settle().expect("applied");
    assert_eq!(agent.files().expect("files")["default/web/app.conf"], "version=3\n");

    let person = Operator::new(crate::NODE).expect("a directory");
    person.login(&world.plane.server, &world.plane.token).expect("logged in");
    let shown = person.titan("titan status host pi").expect("shown");
    assert!(shown.contains("extra"), "{shown}");
    person.titan("titan host prune pi").expect("pruned");
    agent.settle().expect("settled");
    let files = agent.files().expect("files");
    assert_eq!(files.keys().collect::<Vec<_>>(), ["default/web/app.conf"], "only what was pruned is gone");
}
