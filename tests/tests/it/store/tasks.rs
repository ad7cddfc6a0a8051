//! Tasks: taken by one at a time, tried again, parts of others.

use serde_json::{Value, json};
use titan_api::tasks::{ENROL, ENROL_ALL, REMOVE, Task, TaskFilter, TaskState};
use titan_control_plane::store::{Ended, Store, StoreError};
use uuid::Uuid;

use super::{at, name, read, stores, write};

fn task(kind: &str, subject: &str, created: i64) -> Task {
    Task::new(Uuid::now_v7(), kind, subject.to_owned(), json!({ "about": subject }), at(created))
}

fn due(subject: &str, when: i64) -> Task {
    Task { due_at: Some(at(when)), ..task(REMOVE, subject, 1) }
}

async fn add(store: &Store, tasks: &[&Task]) {
    let mut tx = write(store).await;
    for task in tasks {
        tx.add_task(task).await.expect("add");
    }
    tx.commit().await.expect("commit");
}

async fn found(store: &Store, id: Uuid) -> Task {
    read(store).await.task(id).await.expect("read").expect("there")
}

/// S1-15, S1-16: whoever was too slow is replaced, and what it writes afterwards is refused.
#[tokio::test]
async fn a_task_is_held_by_one_at_a_time_and_writes_of_the_one_before_are_refused() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let task = due("Host a", 10);
        add(&store, &[&task, &self::task(ENROL, "Host b", 1)]).await;
        let mut tx = write(&store).await;
        assert_eq!(tx.next_task_due().await.expect("due"), Some(at(10)), "{engine}");
        assert_eq!(tx.take_task("one", at(9), at(40)).await.expect("take"), None, "{engine}: it is not due");
        let first = tx.take_task("one", at(10), at(40)).await.expect("take").expect("it is due");
        assert_eq!(tx.take_task("two", at(39), at(70)).await.expect("take"), None, "{engine}: it is held");
        let running = Task {
            state: TaskState::Running,
            attempts: 1,
            holder: Some("one".to_owned()),
            due_at: Some(at(40)),
            updated_at: at(10),
            ..task.clone()
        };
        assert_eq!(first.task, running, "{engine}");
        tx.keep_task(&first, at(50)).await.expect("it is heard of");
        assert_eq!(tx.take_task("two", at(49), at(70)).await.expect("take"), None, "{engine}: it was heard of");
        let second = tx.take_task("two", at(50), at(80)).await.expect("take").expect("nobody heard of the first");
        assert_eq!((second.task.attempts, second.token), (2, first.token + 1), "{engine}");
        let done = Ended::Completed(json!({ "gone": true }));
        for refused in [tx.end_task(&first, &done, at(51)).await, tx.keep_task(&first, at(99)).await] {
            assert!(matches!(refused, Err(StoreError::Fenced("task"))), "{engine}: {refused:?}");
        }
        tx.end_task(&second, &done, at(60)).await.expect("done");
        let again = tx.end_task(&second, &Ended::Failed("late".to_owned()), at(61)).await;
        assert!(matches!(again, Err(StoreError::Fenced("task"))), "{engine}: what has ended stays as it is");
        assert_eq!(tx.next_task_due().await.expect("due"), None, "{engine}");
        tx.commit().await.expect("commit");
        let ended = found(&store, task.id).await;
        assert_eq!(
            (ended.state, ended.result, ended.holder),
            (TaskState::Completed, Some(json!({"gone": true})), None)
        );
    }
}

#[tokio::test]
async fn what_fails_is_counted_and_tried_again_and_what_waits_is_not_counted() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let task = due("Host a", 10);
        add(&store, &[&task]).await;
        let mut tx = write(&store).await;
        let held = tx.take_task("one", at(10), at(40)).await.expect("take").expect("due");
        tx.end_task(&held, &Ended::Waits(at(20), json!({ "left": 3 })), at(11)).await.expect("given back");
        let waits = tx.task(task.id).await.expect("read").expect("there");
        assert_eq!((waits.state, waits.attempts, waits.due_at), (TaskState::Pending, 0, Some(at(20))), "{engine}");
        let held = tx.take_task("one", at(20), at(40)).await.expect("take").expect("due");
        tx.end_task(&held, &Ended::Again(at(30), "no\0network".to_owned()), at(21)).await.expect("given back");
        let again = tx.task(task.id).await.expect("read").expect("there");
        assert_eq!((again.state, again.attempts, again.due_at), (TaskState::Pending, 1, Some(at(30))), "{engine}");
        assert_eq!(again.error.as_deref(), Some("no\u{fffd}network"), "{engine}");
        assert_eq!(again.result, Some(json!({ "left": 3 })), "{engine}: what was known is kept");
        let held = tx.take_task("one", at(30), at(40)).await.expect("take").expect("due");
        tx.end_task(&held, &Ended::Failed("x".repeat(9999)), at(31)).await.expect("given back");
        let failed = tx.task(task.id).await.expect("read").expect("there");
        assert_eq!((failed.state, failed.attempts, failed.due_at), (TaskState::Failed, 2, None), "{engine}");
        assert_eq!(failed.error.map(|error| error.len()), Some(titan_api::limits::SIGNAL_TEXT_BYTES), "{engine}");
    }
}

/// S1-18: how far all of them are is one question.
#[tokio::test]
async fn a_task_ends_with_the_last_of_its_parts() {
    for (database, store) in stores().await {
        let engine = database.engine;
        for (ends, expected) in [
            (["completed", "completed"], TaskState::Completed),
            (["completed", "cancelled"], TaskState::Completed),
            (["cancelled", "cancelled"], TaskState::Cancelled),
            (["failed", "completed"], TaskState::Failed),
        ] {
            let whole = task(ENROL_ALL, "2 hosts", 1);
            let part = |subject: &str| Task { parent: Some(whole.id), ..task(ENROL, subject, 1) };
            add(&store, &[&whole, &part("Host a"), &part("Host b")]).await;
            for (index, end) in ends.into_iter().enumerate() {
                let before = found(&store, whole.id).await;
                let pending = u64::try_from(2 - index).expect("a number");
                assert_eq!(before.children.get("pending"), Some(&pending), "{engine} {before:?}");
                assert_eq!(before.state, [TaskState::Pending, TaskState::Running][index], "{engine}");
                let state: TaskState = serde_json::from_value(json!(end)).expect("a state");
                let mut tx = write(&store).await;
                let subject = ["Host a", "Host b"][index];
                tx.end_tasks(ENROL, subject, state, &Value::Null, at(2)).await.expect("end");
                tx.commit().await.expect("commit");
            }
            let after = found(&store, whole.id).await;
            assert_eq!((after.state, after.children.values().sum::<u64>()), (expected, 2), "{engine} {ends:?}");
        }
    }
}

#[tokio::test]
async fn tasks_are_listed_by_what_they_are_and_page_by_page() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let parent = Uuid::now_v7();
        let mut all = vec![
            task(ENROL, "Host a", 1),
            Task { parent: Some(parent), ..task(ENROL, "Host b", 2) },
            Task { workspace: Some(name("iot")), ..task(REMOVE, "Deployment iot/web", 2) },
            Task { state: TaskState::Failed, ..task(REMOVE, "Host a", 3) },
        ];
        add(&store, &all.iter().collect::<Vec<_>>()).await;
        all.sort_by_key(|task| std::cmp::Reverse((task.created_at, task.id)));
        let mut tx = read(&store).await;
        let mut listed = Vec::new();
        loop {
            let before = listed.last().map(|last: &Task| (last.created_at, last.id));
            let page = tx.tasks(&TaskFilter::default(), before, 1).await.expect("read");
            if page.is_empty() {
                break;
            }
            listed.extend(page);
        }
        assert_eq!(listed, all, "{engine}");
        let mut count = async |filter: TaskFilter| tx.tasks(&filter, None, 10).await.expect("read").len();
        let any = TaskFilter::default;
        assert_eq!(count(TaskFilter { state: Some(TaskState::Failed), ..any() }).await, 1, "{engine}");
        assert_eq!(count(TaskFilter { kind: Some(REMOVE.to_owned()), ..any() }).await, 2, "{engine}");
        assert_eq!(count(TaskFilter { workspace: Some(name("iot")), ..any() }).await, 1, "{engine}");
        assert_eq!(count(TaskFilter { parent: Some(parent), ..any() }).await, 1, "{engine}");
        let about = TaskFilter { subject: Some("Host a".to_owned()), ..any() };
        assert_eq!(count(about.clone()).await, 2, "{engine}");
        assert_eq!(count(TaskFilter { kind: Some(ENROL.to_owned()), ..about }).await, 1, "{engine}");
        assert_eq!(count(TaskFilter { subject: Some("\0".to_owned()), ..any() }).await, 0, "{engine}");
    }
}

#[tokio::test]
async fn tasks_that_ended_long_ago_are_forgotten_and_others_never() {
    for (database, store) in stores().await {
        let old = Task { state: TaskState::Completed, ..task(ENROL, "Host a", 1) };
        let newer = Task { state: TaskState::Completed, ..task(ENROL, "Host b", 5) };
        let open = task(ENROL, "Host c", 1);
        add(&store, &[&old, &newer, &open]).await;
        let mut tx = write(&store).await;
        assert_eq!(tx.forget_tasks(at(5), 10).await.expect("forget"), 1, "{}", database.engine);
        assert_eq!(tx.task(old.id).await.expect("read"), None, "{}", database.engine);
        assert_eq!(tx.tasks(&TaskFilter::default(), None, 10).await.expect("read").len(), 2, "{}", database.engine);
    }
}
