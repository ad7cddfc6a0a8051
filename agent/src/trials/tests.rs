use proptest::prelude::*;
use titan_api::{
    health::{Probe, TcpProbe},
    limits,
    spans::Span,
};

use super::{vigil::Standing, *};
use crate::claims::Claim;

fn health(probes: usize) -> Health {
    let probe = Probe::Tcp(TcpProbe { address: "localhost:1".to_owned() });
    Health {
        initial_delay: Span(Duration::from_secs(2)),
        min_ready_seconds: 5,
        deadline: Span(Duration::from_mins(1)),
        probes: vec![probe; probes],
        ..Health::default()
    }
}

fn moment(boot: &str, millis: u64) -> Moment {
    Moment { boot: boot.into(), millis }
}

fn seen(condition: Condition) -> Vec<Observation> {
    vec![Observation { claim: Claim::new("unit", "app.service"), condition, drift: None }]
}

fn waits(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Wait { .. })
}

#[test]
fn healthy_is_what_holds_for_min_ready_seconds_without_a_break() {
    let mut trial = Trial::begin(&health(1), false, &moment("a", 100_000));
    assert_eq!(trial.due(101_999), [0_usize; 0], "the first delay");
    assert_eq!(trial.due(102_000), [0]);
    assert_eq!(trial.due(110_000), [0_usize; 0], "one at a time");
    assert!(waits(&trial.look(110_000, &seen(Condition::Well))));
    trial.answered(0, 110_000, Ok(()));
    assert!(waits(&trial.look(110_000, &seen(Condition::Well))));
    assert!(waits(&trial.look(114_999, &seen(Condition::Well))));
    assert!(waits(&trial.look(115_000, &seen(Condition::Ill("flaps".to_owned())))), "a break");
    assert!(waits(&trial.look(115_100, &seen(Condition::Well))));
    assert!(waits(&trial.look(120_099, &seen(Condition::Well))));
    assert_eq!(trial.due(120_000), [0], "after the interval");
    trial.answered(0, 120_050, Err("refused".to_owned()));
    assert_eq!(trial.due(130_050), [0]);
    trial.answered(0, 130_060, Ok(()));
    assert!(waits(&trial.look(130_100, &seen(Condition::Well))), "a probe that failed in between is a break too");
    assert_eq!(trial.look(135_100, &seen(Condition::Well)), Verdict::Healthy);
}

#[test]
fn nothing_to_ask_and_nothing_to_wait_for_is_healthy_at_once() {
    let mut trial = Trial::begin(&Health::default(), false, &moment("a", 0));
    assert_eq!(trial.look(0, &[]), Verdict::Healthy);
}

#[test]
fn past_the_deadline_the_reason_says_what_was_not_well() {
    let mut trial = Trial::begin(&health(2), false, &moment("a", 0));
    trial.due(2000);
    trial.answered(0, 2000, Err("connection refused".to_owned()));
    assert!(waits(&trial.look(59_999, &seen(Condition::Ill("exited with 3:\nno config".to_owned())))));
    let verdict = trial.look(60_000, &seen(Condition::Ill("exited with 3:\nno config".to_owned())));
    let expected = "not healthy within 60s\nunit:app.service: exited with 3:\nno config\n\
        tcp localhost:1: connection refused\ntcp localhost:1: it has not answered yet";
    assert_eq!(verdict, Verdict::Expired(expected.to_owned()));
    let mut trial = Trial::begin(&health(0), false, &moment("a", 0));
    assert!(waits(&trial.look(58_000, &[])));
    let Verdict::Expired(why) = trial.look(60_000, &[]) else { panic!("it ends") };
    assert_eq!(why, "not healthy within 60s: it was well for 2 s of the 5 s that minReadySeconds asks for");
}

#[test]
fn what_will_not_become_well_ends_the_trial_before_its_deadline() {
    let failed = || seen(Condition::Failed("exited with 1".to_owned()));
    let mut trial = Trial::begin(&health(0), false, &moment("a", 0));
    assert!(waits(&trial.look(0, &failed())));
    assert!(waits(&trial.look(10, &failed())) && waits(&trial.look(20, &failed())), "woken thrice at once is one look");
    assert!(waits(&trial.look(1000, &failed())));
    assert!(waits(&trial.look(1500, &seen(Condition::Starting(String::new())))), "in a row");
    assert!(waits(&trial.look(2000, &failed())) && waits(&trial.look(3000, &failed())));
    let verdict = trial.look(4000, &failed());
    assert_eq!(verdict, Verdict::Failed("it failed\nunit:app.service: exited with 1".to_owned()));
}

#[test]
fn probes_wait_for_the_hook_and_a_hook_that_fails_ends_the_trial() {
    let mut trial = Trial::begin(&health(1), true, &moment("a", 0));
    assert_eq!(trial.due(50_000), [0_usize; 0]);
    let Verdict::Expired(why) = trial.clone().look(60_000, &[]) else { panic!("it counts") };
    assert!(why.contains("postApply: it has not ended yet"), "{why}");
    let mut failed = trial.clone();
    failed.hook_ended(10_000, Err("it ended with 2:\nno database".to_owned()));
    let expected = "the hook postApply failed\npostApply: it ended with 2:\nno database";
    assert_eq!(failed.look(10_000, &[]), Verdict::Failed(expected.to_owned()));
    trial.hook_ended(10_000, Ok(()));
    assert_eq!((trial.due(11_999), trial.due(12_000)), (vec![], vec![0]));
}

#[test]
fn a_restart_of_the_agent_neither_prolongs_nor_ends_a_trial() {
    let mark = Trial::begin(&health(0), false, &moment("a", 1000)).mark().clone();
    let text = serde_json::to_string(&mark).expect("text");
    assert_eq!(text, r#"{"boot":"a","began":1000,"boots":1}"#);
    let mut trial = Trial::resume(&health(0), false, mark.clone(), &moment("a", 59_000));
    assert_eq!(*trial.mark(), mark, "nothing new to write down");
    assert!(waits(&trial.look(59_000, &[])));
    assert!(matches!(trial.look(61_000, &[]), Verdict::Expired(_)), "the time before counts");
}

#[test]
fn a_host_that_restarts_again_and_again_goes_back() {
    let mut mark = Trial::begin(&health(0), false, &moment("a", 50_000)).mark().clone();
    for (boot, boots) in [("b", 2), ("c", 3)] {
        let mut trial = Trial::resume(&health(0), false, mark, &moment(boot, 7000));
        assert!(waits(&trial.look(66_999, &seen(Condition::Starting(String::new())))), "the deadline begins anew");
        mark = trial.mark().clone();
        assert_eq!((&*mark.boot, mark.began, mark.boots), (boot, 7000, boots));
    }
    let mut trial = Trial::resume(&health(0), false, mark, &moment("d", 7000));
    let verdict = trial.look(7000, &seen(Condition::Starting("slow".to_owned())));
    let Verdict::Expired(why) = verdict else { panic!("{verdict:?}") };
    assert!(why.starts_with("not healthy before the host restarted for the 3. time"), "{why}");
}

#[test]
fn a_vigil_counts_failures_in_a_row() {
    let mut trial = Trial::begin(&health(1), false, &moment("a", 0));
    trial.due(2000);
    trial.answered(0, 2000, Ok(()));
    let mut vigil = trial.into_vigil();
    let standing = vigil.look(7000, &[]);
    assert_eq!(standing, Standing { degraded: None, next: Some(Duration::from_secs(5)) });
    for (now, result) in [(12_000, false), (22_000, false), (32_000, true), (42_000, false), (52_000, false)] {
        assert_eq!(vigil.due(now), [0]);
        vigil.answered(0, now, if result { Ok(()) } else { Err(format!("no answer at {now}")) });
        assert_eq!(vigil.look(now, &[]).degraded, None, "{now}");
    }
    vigil.answered(0, 62_000, Err("no answer".to_owned()));
    let standing = vigil.look(62_000, &[]);
    let why = "not healthy any more\ntcp localhost:1: no answer".to_owned();
    assert_eq!(standing, Standing { degraded: Some(why.clone()), next: Some(Duration::from_secs(10)) });
    vigil.answered(0, 72_000, Err("another answer".to_owned()));
    assert_eq!(vigil.look(72_000, &[]).degraded, Some(why.clone()), "the same is not told anew");
    vigil.answered(0, 82_000, Ok(()));
    let standing = vigil.look(82_000, &[]);
    assert_eq!(standing, Standing { degraded: Some(why), next: Some(Duration::from_secs(5)) });
    assert_eq!(vigil.look(87_000, &[]).degraded, None);
}

#[test]
fn a_vigil_with_nothing_to_ask_sleeps_until_something_stirs() {
    let mut vigil = Vigil::resume(&health(0), None, 0);
    assert_eq!(vigil.look(0, &seen(Condition::Well)), Standing { degraded: None, next: None });
    let ill = || seen(Condition::Ill("exited".to_owned()));
    let standing = vigil.look(1000, &ill());
    assert_eq!(standing, Standing { degraded: None, next: Some(Duration::from_secs(1)) });
    vigil.look(2000, &ill());
    assert!(vigil.look(3000, &ill()).degraded.is_some());
    let starting = seen(Condition::Starting("again".to_owned()));
    let mut vigil = Vigil::resume(&health(0), None, 0);
    assert_eq!(vigil.look(0, &starting).degraded, None);
    assert_eq!(vigil.look(59_999, &starting).degraded, None);
    assert!(vigil.look(60_000, &starting).degraded.is_some(), "starting for ever is not well");
    let mut vigil = Vigil::resume(&health(1), Some("as before".to_owned()), 0);
    assert_eq!(vigil.look(0, &[]).degraded, Some("as before".to_owned()), "until it is proven otherwise");
}

#[test]
fn what_stays_ill_is_looked_at_less_and_less_until_something_else_is() {
    let mut vigil = Vigil::resume(&health(0), None, 0);
    let ill = |name: &str| {
        let condition = Condition::Ill("exited".to_owned());
        vec![Observation { claim: Claim::new("unit", name), condition, drift: None }]
    };
    let (mut now, mut pauses) = (0, Vec::new());
    for _ in 0..11 {
        let next = vigil.look(now, &ill("a")).next.expect("it is looked at again").as_millis();
        // What an event has looked at in between changes nothing.
        let next = u64::try_from(next).expect("short");
        let again = vigil.look(now + next / 2, &ill("a")).next.map(|again| again.as_millis());
        assert_eq!(again, Some(u128::from(next - next / 2)), "{now}");
        pauses.push(next / 1000);
        now += next;
    }
    assert_eq!(pauses, [1, 1, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(vigil.look(now, &ill("b")).next, Some(Duration::from_secs(1)), "another one is ill");
    assert_eq!(
        vigil.look(now + 1000, &seen(Condition::Well)).next,
        Some(Duration::from_secs(5)),
        "until it is trusted"
    );
    assert_eq!(vigil.look(now + 6000, &seen(Condition::Well)), Standing { degraded: None, next: None });
    assert_eq!(vigil.look(now + 7000, &ill("b")).next, Some(Duration::from_secs(1)));
}

/// One thing that happens during a trial.
#[derive(Debug, Clone)]
enum Event {
    Pass(u64),
    Answer(usize, bool),
    Hook(bool),
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0_u64..4000).prop_map(Event::Pass),
        6 => (0_usize..2, prop::bool::weighted(0.8)).prop_map(|(probe, ok)| Event::Answer(probe, ok)),
        1 => prop::bool::weighted(0.9).prop_map(Event::Hook),
        1 => Just(Event::Restart),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        6 => Just(Condition::Well),
        1 => Just(Condition::Starting("s".repeat(30_000))),
        1 => Just(Condition::Ill("i".to_owned())),
        1 => Just(Condition::Failed("f".to_owned())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn trials_end_by_their_deadline_and_are_healthy_only_after_an_unbroken_time(
        events in prop::collection::vec((event(), condition()), 1..120),
        hook in any::<bool>(),
    ) {
        let health = health(2);
        let mut now = 5_000_000;
        let mut trial = Trial::begin(&health, hook, &moment("a", now));
        let mut passed = !hook;
        // The last instant at which anything was known not to be well.
        let mut broken = now;
        let mut answers = [false; 2];
        for (event, condition) in events {
            match event {
                Event::Pass(by) => now += by,
                Event::Answer(probe, ok) => {
                    answers[probe] = ok;
                    trial.answered(probe, now, if ok { Ok(()) } else { Err("no".to_owned()) });
                    if !ok {
                        broken = now;
                    }
                }
                Event::Hook(ok) if !passed => {
                    passed = ok;
                    trial.hook_ended(now, if ok { Ok(()) } else { Err("no".to_owned()) });
                }
                Event::Hook(_) => {}
                Event::Restart => {
                    trial = Trial::resume(&health, !passed, trial.mark().clone(), &moment("a", now));
                    answers = [false; 2];
                }
            }
            if condition != Condition::Well || !passed || answers.contains(&false) {
                broken = now;
            }
            let verdict = trial.look(now, &seen(condition));
            match verdict {
                Verdict::Wait { next } => {
                    prop_assert!(now < 5_060_000, "it goes on after its deadline");
                    prop_assert!(next >= Duration::from_millis(50) && next <= Duration::from_secs(1));
                    continue;
                }
                Verdict::Healthy => prop_assert!(now - broken >= 5000, "healthy too early"),
                Verdict::Expired(why) => prop_assert!(now >= 5_060_000 && why.len() <= limits::MESSAGE_BYTES),
                Verdict::Failed(why) => prop_assert!(why.len() <= limits::MESSAGE_BYTES),
            }
            return Ok(());
        }
    }
}
