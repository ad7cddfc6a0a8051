use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;
use titan_api::{
    Name,
    shares::Share,
    spans::Span,
    strategies::{OfflineAction, releases::Back},
};
use uuid::Uuid;

use super::{
    standing::{Class, class},
    *,
};

mod fleets;

const SECOND: i64 = 1_000_000;

fn rules() -> Rules {
    let offline = titan_api::strategies::Offline::default();
    let back = Back { progress_deadline: Span(Duration::from_mins(10)), offline };
    Rules::back(&Name::new("early").expect("name"), &back)
}

fn frozen(count: u64) -> Frozen {
    let member = |n: u64| Ranked { rank: 10 * (n + 1), host: host(n) };
    Frozen { members: (0..count).map(member).collect(), reach: None }
}

const fn host(n: u64) -> Uuid {
    Uuid::from_u128(n as u128)
}

fn says(said: Said) -> Standing {
    Standing { said, unseen_since: None }
}

fn healthy(since: i64) -> Standing {
    says(Said::Healthy { since })
}

fn silent(since: i64) -> Standing {
    Standing { said: Said::OnItsWay, unseen_since: Some(since) }
}

fn open_to(advance: &Advance) -> Option<u64> {
    advance.opening.as_ref().and_then(|opening| opening.up_to)
}

/// A look with the doors open.
fn look(stage: &mut Progress, now: i64) -> Advance {
    stage.advance(now, Doors::Open)
}

/// S4-20: a stage has no more hosts at it at once than its `maxUnavailable`.
#[test]
fn hosts_follow_as_others_are_proven() {
    let rules = Rules { max_unavailable: Share::Count(2), min_ready: 5 * SECOND, ..rules() };
    let mut stage = Progress::new(rules, frozen(4), None, 0);
    assert_eq!(open_to(&look(&mut stage, 0)), Some(20));
    stage.tell(host(0), healthy(SECOND), SECOND);
    let advance = look(&mut stage, SECOND);
    assert_eq!((open_to(&advance), advance.due), (Some(20), Some(6 * SECOND)), "healthy is not yet proven");
    assert_eq!((advance.counts.settling, advance.counts.moving), (1, 1));
    // A second report does not begin anew.
    stage.tell(host(0), healthy(4 * SECOND), 4 * SECOND);
    assert_eq!(open_to(&look(&mut stage, 6 * SECOND)), Some(30));
    for n in 1..4 {
        stage.tell(host(n), healthy(7 * SECOND), 7 * SECOND);
    }
    assert_eq!(look(&mut stage, 12 * SECOND - 1).verdict, None);
    let advance = look(&mut stage, 12 * SECOND);
    assert_eq!((advance.opening.map(|opening| opening.up_to), advance.verdict), (Some(None), Some(Verdict::Passed)));
}

/// As when the plan was paused before it could be written: nobody counts for what he was not given.
#[test]
fn what_could_not_be_opened_is_closed_again() {
    let mut stage = Progress::new(Rules { max_unavailable: Share::Count(2), ..rules() }, frozen(4), None, 0);
    assert_eq!(open_to(&look(&mut stage, 0)), Some(20));
    assert_eq!(stage.given_after(0).collect::<Vec<_>>(), [host(0), host(1)]);
    stage.close_after(0);
    let advance = stage.advance(SECOND, Doors::Closed { until: None });
    assert_eq!((advance.opening, advance.counts.opened, advance.counts.moving), (None, 0, 0));
    stage.tell(host(0), healthy(SECOND), SECOND);
    assert_eq!(open_to(&look(&mut stage, SECOND)), Some(30), "proven ones take from nothing");
    stage.close_after(2);
    assert_eq!((stage.given(), open_to(&look(&mut stage, SECOND))), (2, Some(30)));
}

/// That a host was healthy once is no success if it does not stay so.
#[test]
fn a_later_mismatch_takes_the_proof_back() {
    let mut stage = Progress::new(Rules { min_ready: SECOND, ..rules() }, frozen(2), None, 0);
    look(&mut stage, 0);
    stage.tell(host(0), healthy(0), 0);
    assert_eq!(look(&mut stage, SECOND).counts.proven, 1);
    stage.tell(host(0), says(Said::OnItsWay), 2 * SECOND);
    stage.tell(host(1), healthy(2 * SECOND), 2 * SECOND);
    let advance = look(&mut stage, 5 * SECOND);
    assert_eq!((advance.counts.proven, advance.verdict), (1, None));
    stage.tell(host(0), healthy(6 * SECOND), 6 * SECOND);
    assert_eq!(look(&mut stage, 6 * SECOND).verdict, None, "it counts from when it was healthy again");
    assert_eq!(look(&mut stage, 7 * SECOND).verdict, Some(Verdict::Passed));
    stage.tell(host(1), says(Said::RolledBack), 8 * SECOND);
    assert!(matches!(look(&mut stage, 8 * SECOND).verdict, Some(Verdict::Failed(_))));
}

#[test]
fn failures_are_told_before_successes_and_with_their_numbers() {
    let rules = Rules { max_failures: Share::Percent(2), ..rules() };
    let mut stage = Progress::new(rules, frozen(100), None, 0);
    look(&mut stage, 0);
    for (n, said) in [(0, Said::Failed), (1, Said::Degraded)] {
        stage.tell(host(n), says(said), 1);
        assert_eq!(look(&mut stage, 1).verdict, None);
    }
    for n in 3..100 {
        stage.tell(host(n), healthy(2), 2);
    }
    stage.tell(host(2), says(Said::RolledBack), 2);
    let advance = look(&mut stage, 2);
    assert_eq!(advance.verdict, Some(Verdict::Failed("3 of 100 hosts failed, and 2% may".to_owned())));
    assert_eq!(stage.failed().collect::<Vec<_>>(), [host(0), host(1), host(2)]);
    // One of them recovers: that is within the limit, and all others are proven.
    stage.tell(host(1), healthy(3), 3);
    assert_eq!(look(&mut stage, 3).verdict, Some(Verdict::Passed));
}

#[test]
fn a_host_that_cannot_have_it_fails_before_it_is_open_and_takes_no_room() {
    let tolerant = Rules { max_unavailable: Share::Count(1), max_failures: Share::Count(1), ..rules() };
    let mut stage = Progress::new(tolerant, frozen(3), None, 0);
    stage.tell(host(0), says(Said::Unrenderable), 0);
    assert_eq!(open_to(&look(&mut stage, 0)), Some(20), "the second one follows at once");
    stage.tell(host(2), says(Said::Unrenderable), 1);
    let advance = look(&mut stage, 1);
    assert_eq!(
        (open_to(&advance), advance.verdict),
        (Some(20), Some(Verdict::Failed("2 of 3 hosts failed, and 1 may".into())))
    );
}

#[test]
fn silent_hosts_are_left_out_after_a_while_and_catch_up_later() {
    let mut stage = Progress::new(Rules { max_unavailable: Share::Count(1), ..rules() }, frozen(2), None, 0);
    stage.tell(host(0), silent(-SECOND), 0);
    let advance = look(&mut stage, 0);
    assert_eq!((open_to(&advance), advance.due, advance.counts.offline), (Some(10), Some(599 * SECOND), 1));
    let advance = look(&mut stage, 599 * SECOND);
    assert_eq!((open_to(&advance), advance.counts.excluded), (Some(20), 1));
    stage.tell(host(1), healthy(600 * SECOND), 600 * SECOND);
    let advance = look(&mut stage, 600 * SECOND);
    assert_eq!(advance.verdict, Some(Verdict::Passed));
    assert_eq!(line(&stage, &advance), "stage early: 1 of 2 hosts healthy, 1 offline and left out; passed");
    // One that returns while the stage lasts counts again.
    stage.tell(host(0), says(Said::OnItsWay), 601 * SECOND);
    assert_eq!(look(&mut stage, 601 * SECOND).verdict, None);
}

fn line(stage: &Progress, advance: &Advance) -> String {
    outcomes::line(stage.rules(), advance, 0)
}

#[test]
fn silence_counts_as_the_strategy_says() {
    for (offline, expected) in [
        (OfflineAction::Wait, None),
        (OfflineAction::Exclude, Some(Verdict::NoOp("all 1 hosts are offline".to_owned()))),
        (OfflineAction::Fail, Some(Verdict::Failed("1 of 1 hosts failed, and 0 may".to_owned()))),
    ] {
        let mut stage = Progress::new(Rules { offline, ..rules() }, frozen(1), None, 0);
        look(&mut stage, 0);
        stage.tell(host(0), silent(SECOND), 2 * SECOND);
        assert_eq!(look(&mut stage, 600 * SECOND).verdict, None, "the deadline does not judge who is not there");
        assert_eq!(look(&mut stage, 601 * SECOND).verdict, expected, "{offline:?}");
        assert_eq!(look(&mut stage, 9000 * SECOND).due, None);
    }
}

#[test]
fn a_host_that_said_it_failed_does_not_become_an_offline_one() {
    let mut stage = Progress::new(rules(), frozen(2), None, 0);
    look(&mut stage, 0);
    stage.tell(host(0), Standing { said: Said::Failed, unseen_since: Some(0) }, 1);
    assert!(matches!(look(&mut stage, 9000 * SECOND).verdict, Some(Verdict::Failed(_))));
    // Nor is one that was proven before it fell silent; one that fell silent before is not proven by time alone.
    let mut stage = Progress::new(Rules { min_ready: 9 * SECOND, ..rules() }, frozen(2), None, 0);
    look(&mut stage, 0);
    stage.tell(host(0), Standing { unseen_since: Some(9 * SECOND), ..healthy(0) }, 10 * SECOND);
    stage.tell(host(1), Standing { unseen_since: Some(8 * SECOND), ..healthy(0) }, 10 * SECOND);
    let counts = look(&mut stage, 10 * SECOND).counts;
    assert_eq!((counts.proven, counts.offline), (1, 1));
}

#[test]
fn the_deadline_counts_from_the_last_progress() {
    let rules = Rules { max_unavailable: Share::Count(1), min_ready: SECOND, ..rules() };
    let mut stage = Progress::new(rules, frozen(3), None, 0);
    assert_eq!(look(&mut stage, 0).due, Some(601 * SECOND));
    stage.tell(host(0), healthy(599 * SECOND), 599 * SECOND);
    assert_eq!(open_to(&look(&mut stage, 600 * SECOND)), Some(20));
    // Healthy and not again and again is no progress.
    for n in 0..100 {
        stage.tell(host(1), healthy((602 + 5 * n) * SECOND), (602 + 5 * n) * SECOND);
        stage.tell(host(1), says(Said::OnItsWay), (602 + 5 * n) * SECOND + 1);
    }
    assert_eq!(look(&mut stage, 1200 * SECOND).due, Some(1201 * SECOND));
    let advance = look(&mut stage, 1201 * SECOND);
    let why = "no progress in 601s: 1 of 3 hosts are healthy, 2 have it, 0 failed, 0 are offline";
    assert_eq!((advance.verdict, advance.due), (Some(Verdict::Failed(why.to_owned())), None));
}

#[test]
fn hosts_that_failed_and_keep_the_others_out_end_the_stage() {
    let rules = Rules { max_unavailable: Share::Count(1), max_failures: Share::ALL, ..rules() };
    let mut stage = Progress::new(rules, frozen(3), None, 0);
    look(&mut stage, 0);
    stage.tell(host(0), says(Said::Failed), 1);
    let advance = look(&mut stage, 1);
    assert_eq!((advance.verdict, advance.due), (None, Some(600 * SECOND)));
    let why = "no progress in 10m: 1 hosts that have it are not healthy and 1 may be, so that 2 others cannot have it";
    assert_eq!(look(&mut stage, 600 * SECOND).verdict, Some(Verdict::Failed(why.to_owned())));
}

#[test]
fn closed_windows_open_nobody_and_stop_the_deadline() {
    let mut stage = Progress::new(Rules { max_unavailable: Share::Count(1), ..rules() }, frozen(2), None, 0);
    let closed = Doors::Closed { until: Some(9000 * SECOND) };
    let advance = stage.advance(0, closed);
    assert_eq!((advance.opening, advance.due), (None, Some(9000 * SECOND)));
    assert_eq!(stage.advance(8999 * SECOND, closed).verdict, None);
    assert_eq!(open_to(&look(&mut stage, 9000 * SECOND)), Some(10));
    stage.tell(host(0), healthy(9001 * SECOND), 9001 * SECOND);
    let advance = stage.advance(9001 * SECOND, Doors::Closed { until: None });
    assert_eq!((open_to(&advance), advance.verdict, advance.due), (Some(10), None, None));
    assert_eq!(stage.advance(20_000 * SECOND, Doors::Closed { until: None }).verdict, None);
    assert_eq!(look(&mut stage, 20_000 * SECOND).due, Some(20_600 * SECOND), "it begins when the window opens");
}

#[test]
fn a_stage_without_anything_to_do_ends_at_once() {
    let closed = Doors::Closed { until: None };
    let mut stage = Progress::new(rules(), frozen(0), None, 0);
    assert_eq!(stage.advance(0, closed).verdict, Some(Verdict::NoOp("no host is left for it".to_owned())));
    let mut stage = Progress::new(rules(), frozen(2), None, 0);
    (0..2).for_each(|n| stage.tell(host(n), healthy(-1), 0));
    let advance = stage.advance(0, closed);
    assert_eq!(advance.verdict, Some(Verdict::NoOp("all 2 hosts had it before".to_owned())));
    assert_eq!(advance.opening.map(|opening| opening.up_to), Some(None));
    let mut stage = Progress::new(rules(), frozen(2), None, 0);
    look(&mut stage, 0);
    (0..2).for_each(|n| stage.remove(host(n), 1));
    assert!(matches!(look(&mut stage, 1).verdict, Some(Verdict::NoOp(_))), "all of them are gone");
}

#[test]
fn deleted_hosts_are_out_of_all_numbers_for_good() {
    let mut stage = Progress::new(Rules { max_failures: Share::Percent(50), ..rules() }, frozen(4), None, 0);
    look(&mut stage, 0);
    stage.tell(host(0), says(Said::Failed), 1);
    stage.remove(host(3), 1);
    stage.tell(host(3), says(Said::Failed), 2);
    stage.remove(Uuid::from_u128(77), 2);
    stage.tell(Uuid::from_u128(77), says(Said::Failed), 2);
    let counts = look(&mut stage, 2).counts;
    assert_eq!((counts.members, counts.opened, counts.failed), (3, 3, 1));
    stage.remove(host(2), 3);
    assert_eq!(look(&mut stage, 3).verdict, None, "one of two");
    stage.remove(host(1), 3);
    assert!(matches!(look(&mut stage, 3).verdict, Some(Verdict::Failed(_))), "one of one");
}

#[test]
fn a_stage_that_is_taken_up_again_goes_on_where_it_was() {
    let rules = Rules { max_unavailable: Share::Count(1), ..rules() };
    let opening = Opening { stage: rules.stage.clone(), selector: None, up_to: Some(20), reach: None };
    let mut stage = Progress::new(rules, frozen(3), Some(&opening), 5000 * SECOND);
    for n in 0..2 {
        stage.tell(host(n), healthy(SECOND), 5000 * SECOND);
    }
    let advance = look(&mut stage, 5000 * SECOND);
    assert_eq!((open_to(&advance), advance.verdict, advance.due), (Some(30), None, Some(5600 * SECOND)));
}

#[test]
fn hosts_of_one_rank_are_opened_together_or_not_at_all() {
    let mut twins = frozen(3);
    twins.members[2].rank = twins.members[1].rank;
    let mut stage = Progress::new(Rules { max_unavailable: Share::Count(2), ..rules() }, twins, None, 0);
    assert_eq!(open_to(&look(&mut stage, 0)), Some(10));
    stage.tell(host(0), healthy(1), 1);
    let advance = look(&mut stage, 1);
    assert_eq!((open_to(&advance), advance.counts.opened), (Some(20), 3));
}

#[derive(Debug, Clone)]
enum Happens {
    Tell(u64, Said, Option<i64>),
    Remove(u64),
    Pass(i64),
    Doors(Doors),
    TakeUp,
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![
        3 => Just(Said::OnItsWay),
        6 => Just(Said::Healthy { since: 0 }),
        1 => Just(Said::Degraded),
        1 => Just(Said::Failed),
        1 => Just(Said::RolledBack),
        1 => Just(Said::Unrenderable),
    ]
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        12 => (0..45_u64, said(), prop::option::weighted(0.2, 0..50_i64)).prop_map(|(n, said, unseen)| Happens::Tell(n, said, unseen)),
        1 => (0..45_u64).prop_map(Happens::Remove),
        6 => (0..30_i64).prop_map(Happens::Pass),
        1 => prop::option::of(1..90_i64).prop_map(|until| Happens::Doors(Doors::Closed { until })),
        2 => Just(Happens::Doors(Doors::Open)),
        1 => Just(Happens::TakeUp),
    ]
}

fn share() -> impl Strategy<Value = Share> {
    prop_oneof![(0..8_u32).prop_map(Share::Count), (0..=100_u32).prop_map(Share::Percent)]
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let offline = prop_oneof![Just(OfflineAction::Wait), Just(OfflineAction::Exclude), Just(OfflineAction::Fail)];
    (share(), share(), 0..20_i64, 1..60_i64, 0..40_i64, offline).prop_map(
        |(max_unavailable, max_failures, ready, deadline, after, offline)| Rules {
            max_unavailable,
            max_failures,
            min_ready: ready * SECOND,
            progress_deadline: deadline * SECOND,
            offline_after: after * SECOND,
            offline,
            ..rules()
        },
    )
}

/// What is known of the hosts, kept the slow way.
struct Naive {
    rules: Rules,
    hosts: Vec<(Ranked, Standing, bool)>,
    up_to: Option<u64>,
}

impl Naive {
    fn open(&self, ranked: Ranked) -> bool {
        self.up_to.is_some_and(|up_to| ranked.rank <= up_to)
    }

    fn classes(&self, now: i64) -> Vec<(bool, Class)> {
        let of = |(ranked, standing, gone): &(Ranked, Standing, bool)| {
            let class = if *gone { Class::Gone } else { class(*standing, &self.rules, now).0 };
            (self.open(*ranked), class)
        };
        self.hosts.iter().map(of).collect()
    }

    fn counts(&self, now: i64) -> Counts {
        let classes = self.classes(now);
        let count = |wanted: &dyn Fn(bool, Class) -> bool| {
            classes.iter().filter(|(open, class)| *class != Class::Gone && wanted(*open, *class)).count() as u64
        };
        Counts {
            members: count(&|_, _| true),
            opened: count(&|open, _| open),
            proven: count(&|_, class| class == Class::Proven),
            settling: count(&|open, class| open && class == Class::Settling),
            moving: count(&|open, class| open && class == Class::Moving),
            failed: count(&|_, class| class.failed()),
            offline: count(&|_, class| matches!(class, Class::Silent | Class::Excluded)),
            excluded: count(&|_, class| class == Class::Excluded),
        }
    }

    fn out(&self, now: i64) -> u64 {
        self.classes(now).iter().filter(|(open, class)| *open && class.out()).count() as u64
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever happens: the numbers are those of a recount; nobody is opened beyond what may be out, nor through closed
    /// doors; what is open stays open; a failure is told at the first look at which it is certain and never otherwise.
    #[test]
    fn whatever_happens_the_laws_of_stages_hold(
        rules in any_rules(),
        ranks in prop::collection::vec(0..60_u64, 0..40),
        reach in prop::option::of(60..70_u64),
        story in prop::collection::vec(happens(), 0..150),
    ) {
        let members: Vec<_> = ranks.iter().zip(0..).map(|(rank, n)| Ranked { rank: *rank, host: host(n) }).collect();
        let frozen = Frozen { members: members.clone(), reach };
        let mut naive = Naive {
            rules: rules.clone(),
            hosts: members.iter().map(|member| (*member, Standing::default(), false)).collect(),
            up_to: None,
        };
        let mut stage = Progress::new(rules.clone(), frozen.clone(), None, 0);
        let (mut now, mut doors) = (0, Doors::Open);
        for happens in story {
            match happens {
                Happens::Tell(n, said, unseen) => {
                    let unseen_since = unseen.map(|ago| now - ago * SECOND);
                    let said = if let Said::Healthy { .. } = said { Said::Healthy { since: now } } else { said };
                    let mut standing = Standing { said, unseen_since };
                    stage.tell(host(n), standing, now);
                    if let Some((_, known, _)) = naive.hosts.get_mut(n as usize) {
                        if let (Said::Healthy { since }, Said::Healthy { .. }) = (known.said, said) {
                            standing.said = Said::Healthy { since };
                        }
                        *known = standing;
                    }
                }
                Happens::Remove(n) => {
                    stage.remove(host(n), now);
                    if let Some((_, _, gone)) = naive.hosts.get_mut(n as usize) {
                        *gone = true;
                    }
                }
                Happens::Pass(seconds) => {
                    now += seconds * SECOND;
                    if matches!(doors, Doors::Closed { until: Some(until) } if until <= now) {
                        doors = Doors::Open;
                    }
                }
                Happens::Doors(to) => doors = match to {
                    Doors::Closed { until } => Doors::Closed { until: until.map(|ahead| now + ahead * SECOND) },
                    Doors::Open => Doors::Open,
                },
                // The control plane was killed: only the gate and what hosts say is left.
                Happens::TakeUp => {
                    let rules = rules.clone();
                    let opening =
                        naive.up_to.map(|up_to| Opening { stage: rules.stage.clone(), selector: None, up_to: Some(up_to), reach: None });
                    stage = Progress::new(rules, frozen.clone(), opening.as_ref(), now);
                    for (ranked, standing, gone) in &naive.hosts {
                        if *gone { stage.remove(ranked.host, now) } else { stage.tell(ranked.host, *standing, now) }
                    }
                }
            }
            let (before, up_to_before) = (naive.out(now), naive.up_to);
            let advance = stage.advance(now, doors);
            let ended = matches!(advance.verdict, Some(Verdict::Passed | Verdict::NoOp(_)));
            if !ended {
                naive.up_to = advance.opening.as_ref().map(|opening| opening.up_to.expect("a rank"));
            }
            prop_assert!(naive.up_to >= up_to_before, "what is open stays open");
            if naive.up_to > up_to_before {
                prop_assert_eq!(doors, Doors::Open);
                let most = rules.max_unavailable.at_most(naive.counts(now).members);
                prop_assert!(naive.out(now) <= most.max(before), "{} out, {} may", naive.out(now), most);
            }
            if !ended {
                prop_assert_eq!(advance.counts, naive.counts(now));
            }
            let counts = naive.counts(now);
            let failed = rules.max_failures.is_exceeded(counts.failed, counts.members - counts.excluded);
            match &advance.verdict {
                Some(Verdict::Failed(why)) => prop_assert!(failed || why.starts_with("no progress"), "{}", why),
                _ => prop_assert!(!failed),
            }
            if advance.verdict == Some(Verdict::Passed) {
                let pending = naive.classes(now).iter().any(|(_, class)| matches!(class, Class::Moving | Class::Settling | Class::Silent));
                prop_assert!(!pending && counts.proven + counts.failed > 0);
            }
            if ended {
                prop_assert_eq!(advance.opening.map(|opening| opening.up_to), Some(reach));
            } else if advance.verdict.is_none() {
                prop_assert!(advance.due.is_none_or(|due| due > now), "{:?} {}", advance.due, now);
            }
            if advance.verdict.is_some() {
                return Ok(());
            }
        }
        // Nobody says anything any more: it ends, or it waits for hosts that are offline or for a window.
        let mut looks = 0;
        loop {
            let advance = stage.advance(now, doors);
            if advance.verdict.is_some() {
                break;
            }
            let Some(due) = advance.due else {
                let counts = advance.counts;
                let waits = counts.offline > counts.excluded || (doors != Doors::Open && counts.opened < counts.members);
                prop_assert!(waits, "it waits for nothing: {:?}", counts);
                break;
            };
            prop_assert!(due > now);
            if matches!(doors, Doors::Closed { until: Some(until) } if until <= due) {
                doors = Doors::Open;
            }
            now = due;
            looks += 1;
            prop_assert!(looks < 500, "it never ends");
        }
    }

    /// Through a whole rollout with hosts that come and go nobody is open whose stage was not, and each is in one stage.
    #[test]
    fn nobody_is_open_whose_stage_was_not(
        counts in prop::collection::btree_set(1..30_u32, 0..4),
        hosts in prop::collection::vec(1..100_u128, 0..40),
        newcomers in prop::collection::vec(100..200_u128, 0..20),
    ) {
        let deployment = Uuid::from_u128(9);
        let hosts: BTreeSet<_> = hosts.into_iter().map(Uuid::from_u128).collect();
        let all: BTreeSet<_> = newcomers.into_iter().map(Uuid::from_u128).chain(hosts.iter().copied()).collect();
        let order = ranked(deployment, hosts.iter().copied());
        let mut gate = Gate::closed(deployment, Uuid::nil(), 2, Some(1));
        let shares = counts.into_iter().map(Share::Count).chain([Share::ALL]);
        let mut seen = BTreeSet::new();
        for (n, share) in shares.enumerate() {
            let spec = titan_api::strategies::ReleaseStage {
                stage: Name::new(format!("s{n}")).expect("name"), selector: None, hosts: share, min_ready_seconds: 0,
                max_unavailable: Share::ALL, max_failures: Share::NONE, progress_deadline: Span(Duration::from_secs(9)),
                offline: titan_api::strategies::Offline::default(), windows: Vec::new(),
            };
            let frozen = Frozen::of(&spec, &gate, &order, |_, _| true);
            for member in &frozen.members {
                prop_assert!(!gate.is_open(member.rank, |_| true) && seen.insert(member.host));
            }
            let mut stage = Progress::new(Rules::from(&spec), frozen.clone(), None, 0);
            for member in &frozen.members {
                stage.tell(member.host, healthy(0), 0);
            }
            let advance = look(&mut stage, 1);
            prop_assert!(matches!(advance.verdict, Some(Verdict::Passed | Verdict::NoOp(_))));
            gate.open(&advance.opening.expect("opening"));
            let open: BTreeSet<_> = order.iter().filter(|host| gate.is_open(host.rank, |_| true)).map(|host| host.host).collect();
            prop_assert_eq!(&open, &seen);
            prop_assert_eq!(open.len() as u64, share.at_least(order.len() as u64));
        }
        prop_assert!(all.iter().all(|host| gate.is_open(rank(deployment, *host), |_| true)), "at last everybody");
    }
}
