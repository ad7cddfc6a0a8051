//! What was observed of hosts and deployments, and the tasks.

use serde_json::json;
use titan_api::{
    Digest, Kind, Revision,
    drift::Drift,
    reports::{DeploymentReport, Orphan, Phase},
    tasks::{Task, TaskFilter, TaskState},
};
use titan_control_plane::store::{Assignment, Counted, ObservedDeployment, ObservedHost};
use uuid::Uuid;

use super::{assignment, at, name, read, stored, stores, write};

fn observed(uid: Uuid) -> ObservedHost {
    ObservedHost {
        uid,
        enrolled_at: Some(at(5)),
        last_seen: Some(at(50)),
        facts: [("arch".to_owned(), json!("arm64")), ("cores".to_owned(), json!(4))].into(),
        orphans: vec![Orphan { id: Uuid::now_v7(), name: name("old"), workspace: name("iot"), revision: at(3) }],
        report_seq: 7,
        acked_cursor: Some(at(49)),
    }
}

fn report(of: &Assignment, phase: Phase) -> ObservedDeployment {
    let report = DeploymentReport {
        id: of.id(),
        release: "prod#3".to_owned(),
        revision: at(30),
        digest: Some(Digest::of(b"bundle")),
        phase,
        message: "line one\nline \"two\" \u{fc}".to_owned(),
        healthy_since: Some(at(31)),
        commit: Some("abc".to_owned()),
        push: None,
        drift: vec![
            Drift {
                what: "iot/web/a \u{0}\"b\"".to_owned(),
                how: "content".to_owned(),
                diff: "-a\n+\u{fc}\\u0000\n".to_owned(),
                found: Some("\u{fc}\n".to_owned()),
                repaired: true,
            },
            Drift {
                what: "unit:a.service".to_owned(),
                how: "stopped".to_owned(),
                diff: String::new(),
                found: None,
                repaired: false,
            },
        ],
    };
    ObservedDeployment { host: of.host, deployment: of.deployment, report, reported_at: at(40) }
}

#[tokio::test]
async fn observed_hosts_are_read_back_as_they_were_put() {
    for (database, store) in stores().await {
        let host = observed(Uuid::now_v7());
        let bare = ObservedHost { uid: Uuid::now_v7(), ..ObservedHost::default() };
        let mut tx = write(&store).await;
        tx.put_observed_host(&ObservedHost { uid: host.uid, ..ObservedHost::default() }).await.expect("put");
        tx.put_observed_host(&host).await.expect("put again");
        tx.put_observed_host(&bare).await.expect("put");
        tx.commit().await.expect("commit");
        let mut tx = read(&store).await;
        assert_eq!(tx.observed_host(host.uid).await.expect("read"), Some(host), "{}", database.engine);
        assert_eq!(tx.observed_host(bare.uid).await.expect("read"), Some(bare), "{}", database.engine);
        assert_eq!(tx.observed_host(Uuid::now_v7()).await.expect("read"), None, "{}", database.engine);
        assert_eq!(tx.observed_hosts().await.expect("read").len(), 2, "{}", database.engine);
    }
}

#[tokio::test]
async fn last_seen_only_moves_forward_and_makes_no_host() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let (host, fresh) = (observed(Uuid::now_v7()), ObservedHost { uid: Uuid::now_v7(), ..ObservedHost::default() });
        let mut tx = write(&store).await;
        tx.put_observed_host(&host).await.expect("put");
        tx.put_observed_host(&fresh).await.expect("put");
        tx.set_last_seen(&[(host.uid, at(40)), (fresh.uid, at(1)), (Uuid::now_v7(), at(60))]).await.expect("set");
        let seen = async |tx: &mut titan_control_plane::store::Tx, uid| {
            tx.observed_host(uid).await.expect("read").and_then(|host| host.last_seen)
        };
        assert_eq!(seen(&mut tx, host.uid).await, Some(at(50)), "{engine}");
        assert_eq!(seen(&mut tx, fresh.uid).await, Some(at(1)), "{engine}");
        tx.set_last_seen(&[(host.uid, at(60))]).await.expect("set");
        assert_eq!(seen(&mut tx, host.uid).await, Some(at(60)), "{engine}");
        let asked = [host.uid, fresh.uid, Uuid::now_v7()];
        let all = [(host.uid, at(60)), (fresh.uid, at(1))].into();
        assert_eq!(tx.seen_of(&asked).await.expect("read"), all, "{engine}");
        let mut each = std::collections::HashMap::new();
        tx.each_seen(|host, at| each.extend([(host, at)])).await.expect("read");
        assert_eq!(each, all, "{engine}");
        assert_eq!(tx.observed_hosts().await.expect("read").len(), 2, "{engine}");
    }
}

#[tokio::test]
async fn a_whole_fleet_is_told_when_it_was_seen() {
    for (database, store) in stores().await {
        let (seen, unseen) = (5000, 100);
        let hosts: Vec<_> = (0..seen + unseen).map(|number| stored(Kind::Host, "", &format!("h{number}"), 1)).collect();
        let mut tx = write(&store).await;
        for host in &hosts {
            tx.put_document(host).await.expect("put");
        }
        let observed = |(number, host): (usize, &titan_control_plane::store::Stored)| {
            let last_seen = (number < seen).then(|| at(number as i64 + 1));
            ObservedHost { uid: host.uid, last_seen, ..ObservedHost::default() }
        };
        let all: Vec<_> = hosts.iter().enumerate().map(observed).collect();
        tx.put_observed_hosts(&all).await.expect("put");
        let mut told = std::collections::BTreeMap::new();
        tx.each_seen(|host, at| assert_eq!(told.insert(host, at), None)).await.expect("read");
        let wanted = all.iter().filter_map(|host| Some((host.uid, host.last_seen?))).collect();
        assert_eq!(told, wanted, "{}", database.engine);
    }
}

#[tokio::test]
async fn many_hosts_are_put_at_once_and_none_that_is_gone() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let hosts: Vec<_> = (0..300).map(|number| stored(Kind::Host, "", &format!("h{number}"), 1)).collect();
        let mut tx = write(&store).await;
        for host in &hosts {
            tx.put_document(host).await.expect("put");
        }
        let mut wanted: Vec<_> = hosts.iter().map(|host| observed(host.uid)).collect();
        wanted[0] = ObservedHost {
            uid: hosts[0].uid,
            facts: [("odd".to_owned(), json!("\u{0}\"\\u0000 \u{fc}")), ("half".to_owned(), json!(0.5))].into(),
            ..ObservedHost::default()
        };
        let gone = observed(Uuid::now_v7());
        let all: Vec<_> = wanted.iter().chain([&gone]).cloned().collect();
        tx.put_observed_hosts(&all).await.expect("put");
        wanted[1].report_seq = i64::MAX;
        tx.put_observed_hosts(&wanted[1..2]).await.expect("put again");
        tx.commit().await.expect("commit");
        let uids: Vec<_> = all.iter().map(|host| host.uid).collect();
        let mut tx = write(&store).await;
        let mut found: Vec<_> = tx.lock_observed_hosts(&uids).await.expect("read");
        let place = |uid: Uuid| uids.iter().position(|other| *other == uid);
        found.sort_by_key(|(uid, _)| place(*uid));
        let found: Vec<_> = found.into_iter().map(|(_, host)| host.expect("readable")).collect();
        assert_eq!(found, wanted, "{engine}");
    }
}

/// One host's fault is nobody else's.
#[tokio::test]
async fn host_that_cannot_be_read_is_an_error_of_its_own() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let (good, bad) = (observed(Uuid::now_v7()), observed(Uuid::now_v7()));
        let mut tx = write(&store).await;
        tx.put_observed_host(&good).await.expect("put");
        tx.put_observed_host(&bad).await.expect("put");
        tx.commit().await.expect("commit");
        let tamper = format!("UPDATE host_status SET facts = '[' WHERE host_uid = '{}'", bad.uid);
        database.execute(&tamper).await.expect("tamper");
        let mut tx = write(&store).await;
        for (uid, found) in tx.lock_observed_hosts(&[good.uid, bad.uid]).await.expect("read") {
            assert_eq!(found.is_ok(), uid == good.uid, "{engine}");
        }
    }
}

#[tokio::test]
async fn reports_are_counted_only_from_the_number_that_is_on_disk() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let (one, other) = (observed(Uuid::now_v7()), observed(Uuid::now_v7()));
        let mut tx = write(&store).await;
        tx.put_observed_host(&one).await.expect("put");
        tx.put_observed_host(&other).await.expect("put");
        let counted = |host, written, acked_cursor| Counted { host, written, seq: 20, acked_cursor };
        let others = [counted(one.uid, 7, None), counted(other.uid, 6, Some(at(90))), counted(Uuid::now_v7(), 7, None)];
        let refused = tx.set_counted(&others).await.expect("set");
        assert_eq!(refused, [other.uid, others[2].host], "{engine}: another number is on disk, and the last is gone");
        let found = tx.observed_host(one.uid).await.expect("read").expect("there");
        assert_eq!((found.report_seq, found.acked_cursor), (20, one.acked_cursor), "{engine}");
        assert_eq!(tx.observed_host(other.uid).await.expect("read"), Some(other), "{engine}");
        tx.set_counted(&[counted(one.uid, 20, Some(at(95)))]).await.expect("set");
        let found = tx.observed_host(one.uid).await.expect("read").expect("there");
        assert_eq!(found.acked_cursor, Some(at(95)), "{engine}");
    }
}

/// A fact that changes while the planner looks at the one before is looked at again.
#[tokio::test]
async fn host_stays_queued_if_its_facts_changed_again_since() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let (host, other) = (Uuid::now_v7(), Uuid::now_v7());
        let mut tx = write(&store).await;
        tx.queue_facts(host, at(10)).await.expect("queue");
        tx.queue_facts(other, at(10)).await.expect("queue");
        assert_eq!(tx.queued_facts(1).await.expect("queue").len(), 1, "{engine}");
        let mark = |queued: &[(Uuid, i64)]| queued.iter().find(|(uid, _)| *uid == host).map(|(_, mark)| *mark);
        let first = mark(&tx.queued_facts(10).await.expect("queue")).expect("queued");
        // In the same microsecond, and by a clock that went back.
        for again in [10, 3] {
            let before = mark(&tx.queued_facts(10).await.expect("queue")).expect("queued");
            tx.queue_facts(host, at(again)).await.expect("queue");
            let after = mark(&tx.queued_facts(10).await.expect("queue")).expect("queued");
            assert_ne!(before, after, "{engine}");
        }
        tx.unqueue_facts(&[(host, first)]).await.expect("unqueue");
        let newest = mark(&tx.queued_facts(10).await.expect("queue")).expect("still queued");
        tx.unqueue_facts(&[(host, newest)]).await.expect("unqueue");
        assert_eq!(tx.queued_facts(10).await.expect("queue"), [(other, 10)], "{engine}");
    }
}

#[tokio::test]
async fn newest_report_of_each_deployment_and_host_is_kept() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let (deployment, host) = (Uuid::now_v7(), Uuid::now_v7());
        let (mine, other) = (assignment(deployment, host, 1), assignment(Uuid::now_v7(), host, 1));
        let newest = report(&mine, Phase::RolledBack);
        let mut tx = write(&store).await;
        super::put(&mut tx, [&mine, &other]).await;
        let stranger = report(&assignment(deployment, Uuid::now_v7(), 1), Phase::Healthy);
        let first = [report(&mine, Phase::Healthy), report(&other, Phase::Healthy), stranger];
        tx.put_reports(&first).await.expect("put");
        tx.put_reports(std::slice::from_ref(&newest)).await.expect("put");
        let found = tx.reports_of_deployment(deployment).await.expect("read");
        let mut brief = newest.clone();
        brief.report.drift = brief.report.drift.iter().map(Drift::brief).collect();
        assert_eq!(found, [brief], "{engine}: without the differences");
        // The same one by one, and of some hosts alone.
        let mut each = Vec::new();
        tx.each_report_of_deployment(deployment, |observed| each.push(observed.clone())).await.expect("read");
        assert_eq!(each, found, "{engine}");
        let of = tx.reports_of_deployment_on(deployment, &[host, Uuid::now_v7()]).await.expect("read");
        assert_eq!(of, found, "{engine}");
        assert_eq!(tx.reports_of_deployment_on(deployment, &[Uuid::now_v7()]).await.expect("read"), [], "{engine}");
        let mut found = tx.drift_of_host(host).await.expect("read");
        found.sort_by_key(|observed| observed.deployment != deployment);
        assert_eq!(found, [newest.clone(), first[1].clone()], "{engine}");
        assert_eq!(tx.drifted_on_host(host).await.expect("read").len(), 2, "{engine}");
        // What was put right, or adopted, is not told again.
        let mut clean = first[1].clone();
        clean.report.drift.clear();
        tx.put_reports(&[clean]).await.expect("put");
        assert_eq!(tx.drift_of_host(host).await.expect("read"), [newest], "{engine}");
        super::put(&mut tx, [&super::tombstone(&mine, 50)]).await;
        tx.confirm_removals(&[super::removal(&mine, host, 50)]).await.expect("confirm");
        assert_eq!(tx.reports_of_deployment(deployment).await.expect("read"), [], "{engine}");
        assert_eq!(tx.reports_of_deployment(other.deployment).await.expect("read").len(), 1, "{engine}");
    }
}

#[tokio::test]
async fn host_that_is_gone_takes_all_that_was_observed_of_it_along() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let (host, stays) = (observed(Uuid::now_v7()), observed(Uuid::now_v7()));
        let deployment = Uuid::now_v7();
        let mut tx = write(&store).await;
        for host in [&host, &stays] {
            let assignment = assignment(deployment, host.uid, 1);
            super::put(&mut tx, [&assignment]).await;
            tx.put_observed_host(host).await.expect("put");
            tx.put_reports(&[report(&assignment, Phase::Healthy)]).await.expect("put");
            tx.queue_facts(host.uid, at(1)).await.expect("queue");
        }
        tx.purge_observed_host(host.uid).await.expect("purge");
        assert_eq!(tx.observed_hosts().await.expect("read"), std::slice::from_ref(&stays), "{engine}");
        assert_eq!(tx.queued_facts(10).await.expect("read"), [(stays.uid, 1)], "{engine}");
        let reports = tx.reports_of_deployment(deployment).await.expect("read");
        assert_eq!(reports.iter().map(|report| report.host).collect::<Vec<_>>(), [stays.uid], "{engine}");
    }
}

#[tokio::test]
async fn tasks_end_once_and_only_those_that_were_asked_for() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let task = |kind: &str, subject: &str, state, created: i64| {
            let payload = json!({ "host": subject });
            Task { state, ..Task::new(Uuid::now_v7(), kind, subject.to_owned(), payload, at(created)) }
        };
        let pending = task("enrol", "Host a", TaskState::Pending, 1);
        let running = task("enrol", "Host a", TaskState::Running, 2);
        let failed = task("enrol", "Host a", TaskState::Failed, 3);
        let other = task("enrol", "Host b", TaskState::Pending, 4);
        let another = task("backup", "Host a", TaskState::Pending, 5);
        let mut tx = write(&store).await;
        for task in [&pending, &running, &failed, &other, &another] {
            tx.add_task(task).await.expect("add");
        }
        assert_eq!(tx.task(pending.id).await.expect("read"), Some(pending.clone()), "{engine}");
        let result = json!({ "enrolledAt": 9 });
        tx.end_tasks("enrol", "Host a", TaskState::Completed, &result, at(10)).await.expect("end");
        tx.end_tasks("enrol", "Host a", TaskState::Cancelled, &json!({}), at(11)).await.expect("end again");
        for ended in [&pending, &running] {
            let expected =
                Task { state: TaskState::Completed, result: Some(result.clone()), updated_at: at(10), ..ended.clone() };
            assert_eq!(tx.task(ended.id).await.expect("read"), Some(expected), "{engine}");
        }
        for untouched in [&failed, &other, &another] {
            assert_eq!(tx.task(untouched.id).await.expect("read").as_ref(), Some(untouched), "{engine}");
        }
        let newest: Vec<_> =
            tx.tasks(&TaskFilter::default(), None, 2).await.expect("read").iter().map(|task| task.id).collect();
        assert_eq!(newest, [another.id, other.id], "{engine}");
        assert_eq!(tx.task(Uuid::now_v7()).await.expect("read"), None, "{engine}");
        assert_eq!(tx.bookmark("tasks").await.expect("read"), Revision::ZERO, "{engine}");
    }
}
