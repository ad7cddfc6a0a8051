//! Assignments, what they refer to, and what is cleared away.

use std::collections::{BTreeMap, HashSet};

use titan_api::{Code, Digest, Kind, Problem};
use titan_control_plane::store::{Assignment, Release, Store, Tx};
use uuid::Uuid;

use super::{assignment, at, moved_after, put, read, removal, stored, stores, tombstone, until_somebody_waits, write};

#[tokio::test]
async fn assignments_are_read_back_as_they_were_put_and_move_under_one_id() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let (deployment, host) = (Uuid::now_v7(), Uuid::now_v7());
        let first = assignment(deployment, host, 10);
        let elsewhere = assignment(deployment, Uuid::now_v7(), 20);
        let other = assignment(Uuid::now_v7(), host, 15);
        let mut tx = write(&store).await;
        put(&mut tx, [&first, &elsewhere, &other]).await;
        assert_eq!(tx.assignment(deployment, host).await.expect("read"), Some(first.clone()), "{engine}");
        let gone = tombstone(&first, 30);
        put(&mut tx, [&gone]).await;
        assert_eq!(tx.assignment(deployment, host).await.expect("read"), Some(gone.clone()), "{engine}");
        assert_eq!(gone.id(), first.id(), "{engine}");
        assert_eq!(tx.newest_move().await.expect("read"), at(30), "{engine}");
        tx.commit().await.expect("commit");
        let mut tx = read(&store).await;
        let mut all = moved_after(&mut tx, 0).await.expect("read");
        all.sort_by_key(|assignment| assignment.revision);
        assert_eq!(all, [other.clone(), elsewhere.clone(), gone.clone()], "{engine}");
        assert_eq!(moved_after(&mut tx, 15).await.expect("read"), [elsewhere.clone(), gone.clone()], "{engine}");
        assert_eq!(moved_after(&mut tx, 30).await.expect("read"), [], "{engine}");
        let sorted = |mut found: Vec<Assignment>| {
            found.sort_by_key(|assignment| assignment.revision);
            found
        };
        let of_host = sorted(tx.assignments_of_host(host).await.expect("read"));
        assert_eq!(of_host, [other, gone.clone()], "{engine}");
        let of_deployment = sorted(tx.assignments_of_deployment(deployment).await.expect("read"));
        assert_eq!(of_deployment, [elsewhere, gone], "{engine}");
    }
}

/// More than are read at a time, of several deployments, told in several ways, at several times.
#[tokio::test]
async fn a_fleets_worth_is_read_back_whole_and_in_part() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let deployments: Vec<_> = (0..3).map(|_| Uuid::now_v7()).collect();
        let hosts: Vec<_> = (0..5000).map(|_| Uuid::new_v4()).collect();
        let mut all = Vec::new();
        for (of, deployment) in deployments.iter().enumerate() {
            for (number, host) in hosts.iter().enumerate() {
                let row = assignment(*deployment, *host, (number % 7 + of) as i64 + 1);
                all.push(match number % 3 {
                    0 => tombstone(&row, row.revision.micros()),
                    _ => Assignment { bundle: Some(Digest::of(host.as_bytes())), ..row },
                });
            }
        }
        let mut tx = write(&store).await;
        put(&mut tx, &all).await;
        let by_key = |rows: Vec<Assignment>| -> BTreeMap<_, _> {
            rows.into_iter().map(|row| ((row.deployment, row.host), row)).collect()
        };
        for seen in [0, 3, 8, 9] {
            let wanted: Vec<_> = all.iter().filter(|row| row.revision > at(seen)).cloned().collect();
            let read = moved_after(&mut tx, seen).await.expect("read");
            assert_eq!(read.len(), wanted.len(), "{engine}, after {seen}");
            assert!(by_key(read) == by_key(wanted), "{engine}, after {seen}");
        }
    }
}

/// What is told alike goes in one statement, and each row keeps what is its own.
#[tokio::test]
async fn many_are_put_at_once_each_with_its_own_bundle() {
    for (database, store) in stores().await {
        let deployments = [Uuid::now_v7(), Uuid::now_v7()];
        let mut many = Vec::new();
        for number in 0..500_u32 {
            let deployment = deployments[number as usize % 2];
            let row = assignment(deployment, Uuid::now_v7(), 7);
            many.push(match number % 5 {
                0 => tombstone(&row, 7),
                _ => Assignment { bundle: Some(Digest::of(&number.to_be_bytes())), ..row },
            });
        }
        let mut tx = write(&store).await;
        put(&mut tx, &many).await;
        // Once more, now that they are there.
        put(&mut tx, &many).await;
        let mut found = moved_after(&mut tx, 0).await.expect("read");
        let order = |assignment: &Assignment| (assignment.deployment, assignment.host);
        found.sort_by_key(order);
        many.sort_by_key(order);
        assert_eq!(found, many, "{}", database.engine);
        let tombstones: HashSet<_> = many.iter().filter(|row| !row.present()).map(order).collect();
        let hosts: Vec<_> = many.iter().map(|row| row.host).collect();
        assert_eq!(tx.tombstones_of(&hosts).await.expect("read"), tombstones, "{}", database.engine);
    }
}

#[tokio::test]
async fn renderings_are_remembered_until_their_bundle_is_gone() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let digest = |number: u32| Digest::of(&number.to_be_bytes());
        let kept: BTreeMap<_, _> = (0..300).map(|number| (digest(number), digest(1_000 + number / 100))).collect();
        let mut tx = write(&store).await;
        for bundle in [1_000, 1_001, 1_002] {
            tx.put_bundle(&digest(bundle), b"body", at(10)).await.expect("put");
        }
        tx.put_renderings(&kept).await.expect("put");
        tx.put_renderings(&kept).await.expect("put again");
        let asked: Vec<_> = (0..400).map(digest).collect();
        let known = tx.renderings(&asked).await.expect("read");
        assert_eq!(known.into_iter().collect::<BTreeMap<_, _>>(), kept, "{engine}");
        let again = [1_000, 1_002, 1_003].map(digest);
        assert_eq!(tx.touch_bundles(&again, at(90)).await.expect("touch"), 2, "{engine}: one is not there");
        assert_eq!(swept(&mut tx).await, 1, "{engine}: the one that was not touched");
        assert_eq!(tx.renderings(&asked).await.expect("read").len(), 200, "{engine}");
    }
}

#[tokio::test]
async fn descriptions_stay_while_young_or_referred_to() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let first = assignment(Uuid::now_v7(), Uuid::now_v7(), 10);
        let mut tx = write(&store).await;
        put(&mut tx, [&first]).await;
        put(&mut tx, [&tombstone(&first, 20)]).await;
        assert!(tx.unused(at(1)).await.expect("unused").descriptions.is_empty(), "{engine}: both are young");
        let unused = tx.unused(at(2)).await.expect("unused").descriptions;
        assert_eq!(unused, [first.description.id()], "{engine}: what it was told before");
        tx.remove_descriptions(&unused, at(1)).await.expect("remove");
        assert_eq!(tx.unused(at(2)).await.expect("unused").descriptions, unused, "{engine}: it was young again");
        tx.remove_descriptions(&unused, at(2)).await.expect("remove");
        assert!(tx.unused(at(2)).await.expect("unused").descriptions.is_empty(), "{engine}");
        assert_eq!(tx.assignment(first.deployment, first.host).await.expect("read"), Some(tombstone(&first, 20)));
    }
}

/// A late acknowledgement never removes what came after it.
#[tokio::test]
async fn tombstone_is_purged_only_by_its_host_while_absent_and_not_newer() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let host = Uuid::now_v7();
        let present = assignment(Uuid::now_v7(), host, 10);
        let gone = tombstone(&present, 20);
        let back = Assignment { revision: at(30), ..present.clone() };
        let mut tx = write(&store).await;
        for (state, by, confirmed, purged) in [
            (&present, host, 10, false),
            (&present, host, 1_000, false),
            (&gone, host, 19, false),
            (&gone, Uuid::now_v7(), 20, false),
            (&back, host, 20, false),
            (&gone, host, 20, true),
        ] {
            put(&mut tx, [state]).await;
            let said = removal(&present, by, confirmed);
            // Beside others that are about nothing.
            let others = [removal(&assignment(Uuid::now_v7(), host, 1), host, 1_000), said];
            let outcome = tx.confirm_removals(&others).await.expect("confirm");
            assert_eq!(
                outcome == [said],
                purged,
                "{engine}: {} at {}, confirmed {confirmed}",
                state.present(),
                state.revision
            );
            let left = tx.assignment(present.deployment, host).await.expect("read");
            assert_eq!(left.as_ref(), (!purged).then_some(state), "{engine}");
        }
    }
}

#[tokio::test]
async fn host_that_is_gone_takes_its_assignments_along_and_no_others() {
    for (database, store) in stores().await {
        let (gone, stays) = (Uuid::now_v7(), Uuid::now_v7());
        let kept = assignment(Uuid::now_v7(), stays, 10);
        let mut tx = write(&store).await;
        put(&mut tx, [&assignment(kept.deployment, gone, 10), &kept]).await;
        tx.purge_assignments_of_host(gone).await.expect("purge");
        assert_eq!(moved_after(&mut tx, 0).await.expect("read"), [kept], "{}", database.engine);
    }
}

#[tokio::test]
async fn releases_are_numbered_once_each_and_the_newest_is_found() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let deployment = Uuid::now_v7();
        let release = |number| Release {
            id: Uuid::now_v7(),
            deployment,
            number,
            revision: at(number * 10),
            inputs_digest: Digest::of(&number.to_be_bytes()),
            inputs: format!("{{\"number\":{number}}}"),
        };
        let (first, ninth, tenth) = (release(1), release(9), release(10));
        let mut tx = write(&store).await;
        assert_eq!(tx.newest_release(deployment).await.expect("read"), None, "{engine}");
        for release in [&first, &tenth, &ninth] {
            tx.add_release(release).await.expect("add");
        }
        assert_eq!(tx.newest_release(deployment).await.expect("read"), Some(tenth), "{engine}");
        assert_eq!(tx.newest_release(Uuid::now_v7()).await.expect("read"), None, "{engine}");
        let other = Release { deployment: Uuid::now_v7(), id: Uuid::now_v7(), ..release(3) };
        tx.add_release(&other).await.expect("add");
        let asked = [deployment, Uuid::now_v7(), other.deployment];
        let mut found: Vec<_> = tx.newest_releases(&asked).await.expect("read");
        found.sort_by_key(|release| release.number);
        assert_eq!(found.iter().map(|release| release.number).collect::<Vec<_>>(), [3, 10], "{engine}");
        assert!(tx.add_release(&release(9)).await.is_err(), "{engine}: a number is given once");
    }
}

#[tokio::test]
async fn render_problems_come_are_replaced_and_go() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let (deployment, host, other) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
        let problem = |text: &str| Problem::new(Code::Invalid, text).at("/spec/values/port", "line 7");
        let mut tx = write(&store).await;
        let there = |host, text: &str| (deployment, host, Some(problem(text)));
        tx.set_render_problems(&[there(host, "first")], at(1)).await.expect("set");
        let twice = [there(host, "before"), there(other, "other"), there(host, "second")];
        tx.set_render_problems(&twice, at(2)).await.expect("set");
        let mut found = tx.render_problems(deployment).await.expect("read");
        found.sort_by_key(|found| found.host != host);
        assert_eq!(found.len(), 2, "{engine}");
        assert_eq!((found[0].host, &found[0].problem), (host, &problem("second")), "{engine}");
        tx.set_render_problems(&[(deployment, host, None)], at(3)).await.expect("set");
        assert_eq!(tx.render_problems(deployment).await.expect("read").len(), 1, "{engine}");
        tx.purge_render_problems(other).await.expect("purge");
        assert_eq!(tx.render_problems(deployment).await.expect("read"), [], "{engine}");
    }
}

#[tokio::test]
async fn bundles_are_kept_while_young_or_named_by_an_assignment() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let bodies = [&b"named"[..], b"old", b"young", b"again"];
        let digests = bodies.map(Digest::of);
        let mut tx = write(&store).await;
        for (digest, body) in digests.iter().zip(bodies) {
            tx.put_bundle(digest, body, at(if body == b"young" { 100 } else { 10 })).await.expect("put");
        }
        // Rendered again: young again.
        tx.put_bundle(&digests[3], bodies[3], at(100)).await.expect("put");
        let named = Assignment { bundle: Some(digests[0]), ..assignment(Uuid::now_v7(), Uuid::now_v7(), 1) };
        put(&mut tx, [&named]).await;
        assert_eq!(swept(&mut tx).await, 1, "{engine}");
        for (index, left) in [(0, true), (1, false), (2, true), (3, true)] {
            let body = tx.bundle(&digests[index]).await.expect("read");
            assert_eq!(body.as_deref(), left.then_some(bodies[index]), "{engine}");
        }
        put(&mut tx, [&tombstone(&named, 2)]).await;
        assert_eq!(swept(&mut tx).await, 1, "{engine}");
    }
}

#[tokio::test]
async fn many_bundles_are_kept_at_once_whatever_their_bytes() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let large = vec![0xff; 3 * 1024 * 1024];
        let bodies = [&b""[..], b"\0\xff'\"", &large, &large[1..], b"text"];
        let bundles = |bodies: &[&[u8]]| -> BTreeMap<_, _> {
            bodies.iter().map(|body| (Digest::of(body), bytes::Bytes::copy_from_slice(body))).collect()
        };
        let mut tx = write(&store).await;
        tx.put_bundles(&bundles(&bodies), at(10)).await.expect("put");
        tx.put_bundles(&bundles(&bodies[4..]), at(100)).await.expect("put again");
        for body in bodies {
            assert!(tx.bundle(&Digest::of(body)).await.expect("read").as_deref() == Some(body), "{engine}");
        }
        assert_eq!(swept(&mut tx).await, 4, "{engine}: the last one is young again");
    }
}

/// While a planner's transaction counts on an old bundle, sweeping waits for it and then leaves the bundle alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sweep_never_takes_a_bundle_that_an_assignment_is_about_to_name() {
    for (database, store) in stores().await {
        let digest = Digest::of(b"bundle");
        let mut tx = write(&store).await;
        tx.put_bundle(&digest, b"bundle", at(10)).await.expect("put");
        tx.commit().await.expect("commit");
        let mut planner = write(&store).await;
        planner.put_bundle(&digest, b"bundle", at(100)).await.expect("put");
        // A snapshot from before the planner's commit.
        let unused = read(&store).await.unused(at(50)).await.expect("unused").bundles;
        assert_eq!(unused.len(), 1, "{}", database.engine);
        let sweep = tokio::spawn(sweep(store.clone(), unused));
        until_somebody_waits(&database).await;
        let named = assignment(Uuid::now_v7(), Uuid::now_v7(), 1);
        put(&mut planner, [&named]).await;
        planner.commit().await.expect("commit");
        assert_eq!(sweep.await.expect("join"), 0, "{}", database.engine);
        assert!(read(&store).await.bundle(&digest).await.expect("read").is_some(), "{}", database.engine);
    }
}

/// Removes bundles that looked unused.
async fn sweep(store: Store, unused: Vec<Digest>) -> usize {
    let mut tx = write(&store).await;
    let swept = tx.remove_bundles(&unused, at(50)).await.expect("sweep");
    tx.commit().await.expect("commit");
    swept
}

/// Removes the bundles that nothing names and that are older than 50.
async fn swept(tx: &mut Tx) -> usize {
    let unused = tx.unused(at(50)).await.expect("unused");
    tx.remove_bundles(&unused.bundles, at(50)).await.expect("sweep")
}

#[tokio::test]
async fn everything_up_to_the_clock_is_planned_unless_a_change_waits() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let mut tx = write(&store).await;
        let first = tx.tick(at(1_000)).await.expect("tick");
        let document = stored(Kind::Host, "", "h", 1).document();
        let written = titan_control_plane::store::Written {
            operation: titan_api::changes::Operation::Create,
            before: None,
            after: Some(&document),
            actor: "",
            reason: None,
            request_id: "",
        };
        tx.add_change(first, 0, &document, &written).await.expect("add");
        let clock = tx.tick(at(2_000)).await.expect("tick");
        assert_eq!(tx.planned().await.expect("planned"), at(first.micros() - 1), "{engine}");
        tx.set_bookmark("other", clock).await.expect("bookmark");
        assert_eq!(tx.planned().await.expect("planned"), at(first.micros() - 1), "{engine}");
        tx.set_bookmark("planner", first).await.expect("bookmark");
        assert_eq!(tx.planned().await.expect("planned"), clock, "{engine}");
    }
}
