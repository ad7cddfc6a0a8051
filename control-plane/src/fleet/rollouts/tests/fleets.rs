//! Whole rollouts by chance: a plan with its gate, hosts that come, go, fail and fall silent, people who pause and decide,
//! and a control plane that is killed.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};
use titan_api::{
    Name,
    selectors::Selector,
    strategies::{OnFailure, ReleaseStage, ReleaseStep, Strategy as Rollout},
    workplans::{AttemptState, Event, Executor, NodeState, Outcome, PlanState, Signal, SignalRequest, attempts},
};
use uuid::Uuid;

use super::{super::*, SECOND};
use crate::fleet::workplans::{Finished, Input, Node, Plan, Stop, Told, Working};

const DEPLOYMENT: Uuid = Uuid::from_u128(9);
/// The release that all hosts have, and the one that is handed out.
const OLD: i64 = 1;
const NEW: i64 = 2;

#[derive(Debug, Clone, Copy)]
struct Host {
    has: i64,
    /// Whether it cannot have the new release.
    bad: bool,
    said: Said,
    /// Since when it is not there, by the plan's clock.
    silent: Option<i64>,
}

/// A step of the release on its way. All of it is lost with the process.
struct Running {
    node: Name,
    number: u32,
    stage: Option<ReleaseStage>,
    progress: Progress,
    members: Vec<Ranked>,
}

struct Fleet {
    working: Working,
    log: Vec<Event>,
    wall: i64,
    dice: u64,
    gate: Gate,
    hosts: BTreeMap<Uuid, Host>,
    running: Option<Running>,
    on_failure: OnFailure,
}

/// Hosts are in the zone that their number leaves when it is divided by three.
fn in_zone(selector: &Selector, host: Uuid) -> bool {
    selector.rules_match(|key| (key == "zone").then(|| (host.as_u128() % 3).to_string().into()))
}

impl Fleet {
    fn new(strategy: &Rollout, hosts: BTreeMap<Uuid, Host>) -> Self {
        let spec = compile(Some(strategy), hosts.len() as u64, |_| Vec::new());
        let id = Uuid::from_u128(7);
        let mut fleet = Self {
            working: Working::whole(Plan::new(id), 0, 0),
            log: Vec::new(),
            wall: 1_000 * SECOND,
            dice: 3,
            gate: Gate::closed(DEPLOYMENT, id, NEW, Some(OLD)),
            hosts,
            running: None,
            on_failure: strategy.on_failure,
        };
        assert!(fleet.put(Input::Make { spec: Box::new(spec), author: "token:ann".to_owned() }));
        assert!(fleet.put(Input::Start));
        fleet
    }

    /// Something happens to the plan; says whether it was taken.
    fn put(&mut self, input: Input) -> bool {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.working.again(self.wall, self.dice);
        self.working.submit(input);
        match self.working.advance() {
            Ok(()) => {
                self.log.extend(self.working.finish().events);
                true
            }
            Err(Stop::Refused(_)) => {
                let _what_was_begun = self.working.finish();
                self.working = self.replayed();
                false
            }
            Err(Stop::Missing(need)) => panic!("nothing is missing, yet {need:?}"),
        }
    }

    fn replayed(&self) -> Working {
        let mut working = Working::whole(Plan::new(self.gate.plan), 0, 0);
        self.log.iter().for_each(|event| working.apply(event));
        working
    }

    fn tell(&mut self, signal: Signal, node: Option<&Name>) -> bool {
        let generation = node.and_then(|node| self.working.seen(node)).map(|node| node.generation);
        let request = SignalRequest {
            node: node.cloned(),
            generation,
            reason: Some("because".to_owned()),
            ..SignalRequest::new(signal, format!("r{}", self.log.len()))
        };
        self.put(Input::Told(Told { request, actor: "token:bob".to_owned() }))
    }

    fn clock(&self) -> i64 {
        self.working.plan.clock(self.wall)
    }

    fn nodes(&self) -> Vec<Node> {
        self.working.all().into_values().cloned().collect()
    }

    fn finish(&mut self, node: &Name, number: u32, verdict: attempts::Verdict) -> bool {
        let (uid, end) = ("titan/x".to_owned(), Ok(verdict));
        let (node, message, details, results) = (node.clone(), None, None, Vec::new());
        self.put(Input::Finish(Box::new(Finished { node, number, uid, end, message, details, results })))
    }

    /// Everything that is due, taken and looked at. `answers`: what comes of the next questions.
    fn act(&mut self, answers: u8) {
        for node in self.nodes() {
            if node.timer().is_some_and(|at| at <= self.clock()) && self.working.plan.paused_at.is_none() {
                assert!(self.put(Input::Due(Some(node.name))), "time passes");
            }
        }
        for node in self.nodes() {
            let Some(number) = node.live().filter(|live| live.state == AttemptState::Scheduled).map(|live| live.number)
            else {
                continue;
            };
            let claim = Input::Claim { node: node.name.clone(), number, uid: "titan/x".to_owned() };
            let answer = if answers.is_multiple_of(7) { attempts::Verdict::Failed } else { attempts::Verdict::Passed };
            match node.spec.run.as_ref() {
                Some(Executor::Release(step)) if self.put(claim.clone()) => match step {
                    ReleaseStep::Preflight(_) => drop(self.finish(&node.name, number, answer)),
                    ReleaseStep::Stage(stage) => self.begin(&node.name, number, stage),
                    ReleaseStep::Back(back) => {
                        self.gate.close();
                        self.assign();
                        let members = ranked(DEPLOYMENT, self.hosts.keys().copied());
                        let all = Opening { stage: node.name.clone(), selector: None, up_to: None, reach: None };
                        let frozen = Frozen { members: members.clone(), reach: None };
                        let progress = Progress::new(Rules::back(&node.name, back), frozen, Some(&all), self.clock());
                        self.running = Some(Running { node: node.name, number, stage: None, progress, members });
                    }
                },
                Some(Executor::Http(_)) if self.put(claim) => drop(self.finish(&node.name, number, answer)),
                _ => {}
            }
        }
        self.look();
    }

    fn begin(&mut self, name: &Name, number: u32, stage: &ReleaseStage) {
        let order = ranked(DEPLOYMENT, self.hosts.keys().copied());
        let frozen = Frozen::of(stage, &self.gate, &order, in_zone);
        let members = frozen.members.clone();
        let opening = self.gate.opening(&stage.stage);
        let progress = Progress::new(Rules::from(stage), frozen, opening, self.clock());
        let stage = Some(stage.clone());
        self.running = Some(Running { node: name.clone(), number, stage, progress, members });
    }

    /// Whoever is at a step looks at its hosts, and does what follows.
    fn look(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        let lives = self.working.seen(&running.node).and_then(Node::live);
        let lives = lives.is_some_and(|live| live.number == running.number && live.state == AttemptState::Running);
        if !lives || self.working.plan.state.is_final() {
            return;
        }
        let (now, paused) = (self.clock(), self.working.plan.state == PlanState::Paused);
        for member in &running.members {
            match self.hosts.get(&member.host) {
                None => running.progress.remove(member.host, now),
                Some(host) => {
                    let open = running.progress.seat_of(member.host).is_some_and(|seat| seat.given);
                    let said = if open { host.said } else { Said::OnItsWay };
                    running.progress.tell(member.host, Standing { said, unseen_since: host.silent }, now);
                }
            }
        }
        let before = running.stage.as_ref().map_or(0, |stage| self.out(stage, &running.members));
        let doors = if paused { Doors::Closed { until: None } } else { Doors::Open };
        let advance = running.progress.advance(now, doors);
        if let (Some(stage), Some(opening)) = (&running.stage, &advance.opening)
            && self.working.plan.goes_on()
            && self.gate.open(opening)
        {
            self.check_opening(stage, &running.members, before);
            self.assign();
        }
        match advance.verdict {
            Some(Verdict::Failed(_)) => {
                self.finish(&running.node, running.number, attempts::Verdict::Failed);
            }
            Some(_) => {
                self.finish(&running.node, running.number, attempts::Verdict::Passed);
            }
            None => self.running = Some(running),
        }
    }

    /// How many hosts of a stage have the release and are not proven, by what is true of them.
    fn out(&self, stage: &ReleaseStage, members: &[Ranked]) -> u64 {
        let Some(opening) = self.gate.opening(&stage.stage) else { return 0 };
        let now = self.clock();
        let out = |member: &&Ranked| {
            let Some(host) = self.hosts.get(&member.host) else { return false };
            if opening.up_to.is_some_and(|up_to| member.rank > up_to) {
                return false;
            }
            let ready = i64::from(stage.min_ready_seconds) * SECOND;
            let proven = match host.said {
                Said::Healthy { since } => now >= since + ready && host.silent.is_none_or(|at| at >= since + ready),
                _ => false,
            };
            let failed = matches!(host.said, Said::Degraded | Said::Failed | Said::RolledBack);
            let rules = Rules::from(stage);
            let excludes = rules.offline == titan_api::strategies::OfflineAction::Exclude;
            let left_out = excludes && !failed && host.silent.is_some_and(|at| now >= at + rules.offline_after);
            !proven && !left_out
        };
        members.iter().filter(out).count() as u64
    }

    /// What holds whenever a stage opens its gate further.
    fn check_opening(&self, stage: &ReleaseStage, members: &[Ranked], before: u64) {
        let node = self.working.seen(&stage.stage).expect("the stage");
        assert_eq!(node.state, NodeState::Attempting, "{} is not its turn", stage.stage);
        let after = &self.working.plan;
        assert_eq!(after.state, PlanState::Running);
        let present = members.iter().filter(|member| self.hosts.contains_key(&member.host)).count() as u64;
        let (out, most) = (self.out(stage, members), stage.max_unavailable.at_most(present));
        assert!(out <= most.max(before), "{}: {out} are out, {most} may, {before} were", stage.stage);
        // Whatever was opened before was over by then.
        for opening in self.gate.openings.iter().filter(|opening| opening.stage != stage.stage) {
            let earlier = self.working.seen(&opening.stage).expect("a stage");
            assert!(earlier.is_final(), "{} is not over", opening.stage);
            let good = [Some(Outcome::Passed), Some(Outcome::Overridden)].contains(&earlier.outcome);
            assert!(good || self.on_failure == OnFailure::Continue, "{} has {:?}", opening.stage, earlier.outcome);
        }
        for check in self.nodes().iter().filter(|node| node.name.contains("-check-") && node.is_final()) {
            let good = [Some(Outcome::Passed), Some(Outcome::Overridden)].contains(&check.outcome);
            assert!(good, "{} is {:?}, and {} opens", check.name, check.outcome, stage.stage);
        }
    }

    /// The planner: each host has what the gate lets it have. Nobody has the new release otherwise.
    fn assign(&mut self) {
        let began: BTreeSet<Name> =
            self.nodes().into_iter().filter(|node| node.generation > 0).map(|node| node.name).collect();
        assert!(self.gate.openings.iter().all(|opening| began.contains(&opening.stage)));
        let undoes = self.working.plan.stops();
        for (uid, host) in &mut self.hosts {
            let rank = rank(DEPLOYMENT, *uid);
            let has = self.gate.release(rank, |selector| in_zone(selector, *uid)).expect("one of the two");
            assert!(has >= host.has || undoes, "{uid} is sent back while the rollout goes on");
            if has != host.has {
                (host.has, host.said) = (has, Said::OnItsWay);
            }
        }
    }

    /// A host that is there says how it is.
    fn report(&mut self, uid: Uuid, how: u8) {
        let now = self.clock();
        let Some(host) = self.hosts.get_mut(&uid).filter(|host| host.silent.is_none()) else { return };
        let bad = [Said::Failed, Said::Degraded, Said::RolledBack][usize::from(how) % 3];
        host.said = match host.said {
            _ if host.bad && host.has == NEW => bad,
            Said::Healthy { since } => Said::Healthy { since },
            _ => Said::Healthy { since: now },
        };
    }

    /// The control plane is killed: what is written is left.
    fn kill(&mut self) {
        self.running = None;
        let replayed = self.replayed();
        assert!(replayed.same(&self.working), "the history gives another plan");
        self.working = replayed;
        for node in self.nodes() {
            let lost = node.live().filter(|live| live.state == AttemptState::Running).map(|live| live.number);
            let ours = matches!(node.spec.run, Some(Executor::Release(_) | Executor::Http(_)));
            if let Some(number) = lost.filter(|_| ours) {
                assert!(self.put(Input::Interrupted { node: node.name, number }));
            }
        }
    }

    /// The nodes that are not final, for messages.
    fn open(&self) -> Vec<(Name, NodeState, Option<u32>)> {
        let open = self.nodes().into_iter().filter(|node| !node.is_final());
        open.map(|node| (node.name.clone(), node.state, node.live().map(|live| live.number))).collect()
    }

    /// Everybody says what there is to say and decides what is to be decided: it has to come to its end.
    fn run_out(&mut self) {
        for round in 0..3_000 {
            if self.working.plan.state.is_final() {
                return;
            }
            let before = self.log.len();
            let hosts: Vec<_> = self.hosts.keys().copied().collect();
            hosts.into_iter().for_each(|uid| self.report(uid, 0));
            for node in self.nodes() {
                let gate = matches!(node.spec.run, Some(Executor::Approval(_)));
                let asked = node.live().is_some_and(|live| live.state == AttemptState::Running);
                if node.held {
                    assert!(self.tell(Signal::Skip, Some(&node.name)));
                } else if gate && asked {
                    assert!(self.tell(Signal::Approve, Some(&node.name)));
                }
            }
            if self.working.plan.state == PlanState::Paused {
                self.tell(Signal::Resume, None);
            }
            self.act(1);
            if self.log.len() > before {
                continue;
            }
            // Nothing happens by itself any more: time passes until it does.
            let due = self.running.as_mut().and_then(|running| {
                let now = self.working.plan.clock(self.wall);
                running.progress.advance(now, Doors::Open).due
            });
            let timers = self.nodes().into_iter().filter_map(|node| node.timer());
            let Some(next) = timers.chain(due).min() else {
                panic!("round {round}: {:?} waits for nothing: {:?}", self.working.plan.state, self.open())
            };
            self.wall = self.wall.max(next + self.working.plan.frozen) + 1;
        }
        panic!("it never ends: {:?} {:?}", self.working.plan.state, self.open());
    }

    /// What holds once it is over.
    fn check_end(&mut self) {
        assert!(self.replayed().same(&self.working));
        assert!(self.nodes().iter().all(|node| node.is_final() && node.live().is_none()), "{:?}", self.nodes());
        match self.working.plan.state {
            PlanState::Succeeded => {
                self.gate.from = Some(self.gate.to);
                self.gate.openings.clear();
                self.assign();
                assert!(self.hosts.values().all(|host| host.has == NEW), "somebody was left behind");
            }
            PlanState::RolledBack => assert!(self.hosts.values().all(|host| host.has == OLD), "somebody kept it"),
            PlanState::Failed | PlanState::Aborted => {}
            state => panic!("{state}"),
        }
    }
}

#[derive(Debug, Clone)]
enum Happens {
    Report(u8, u8),
    Silence(u8),
    Return(u8),
    Spoil(u8),
    Mend(u8),
    Join(u8),
    Leave(u8),
    Pass(i64),
    Tell(u8),
    Kill,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        20 => (any::<u8>(), any::<u8>()).prop_map(|(host, how)| Happens::Report(host, how)),
        2 => any::<u8>().prop_map(Happens::Silence),
        2 => any::<u8>().prop_map(Happens::Return),
        1 => any::<u8>().prop_map(Happens::Spoil),
        1 => any::<u8>().prop_map(Happens::Mend),
        2 => any::<u8>().prop_map(Happens::Join),
        1 => any::<u8>().prop_map(Happens::Leave),
        8 => (0..9_i64).prop_map(Happens::Pass),
        3 => any::<u8>().prop_map(Happens::Tell),
        2 => Just(Happens::Kill),
    ]
}

fn share() -> impl Strategy<Value = Value> {
    prop_oneof![(1..8_u32).prop_map(|count| json!(count)), (1..=100_u32).prop_map(|part| json!(format!("{part}%")))]
}

fn stage(number: usize) -> impl Strategy<Value = Value> {
    let check = prop_oneof![
        3 => Just(json!([])),
        1 => Just(json!([{ "approval": {} }])),
        1 => Just(json!([{ "http": { "url": "http://x" } }, { "approval": {} }])),
    ];
    (share(), share(), 0..4_u32, prop::option::weighted(0.3, 0..3_u32), check).prop_map(
        move |(hosts, out, ready, zone, checks)| {
            let mut stage = json!({
                "name": format!("s{number}"), "hosts": hosts, "maxUnavailable": out, "minReadySeconds": ready, "checks": checks,
            });
            if let Some(zone) = zone {
                stage["match"] = json!({ "matchLabels": { "zone": zone.to_string() } });
            }
            stage
        },
    )
}

fn strategy() -> impl Strategy<Value = Rollout> {
    let stages = (0..4_usize).prop_flat_map(|count| (0..count).map(stage).collect::<Vec<_>>());
    let fails = prop_oneof![Just(json!(0)), share()];
    let offline = (0..20_u32, prop::sample::select(vec!["wait", "exclude", "fail"]));
    let on_failure = prop::sample::select(vec!["rollback", "pause", "continue"]);
    (stages, share(), fails, 5..40_u32, offline, on_failure).prop_map(
        |(mut stages, out, fails, deadline, (after, then), on_failure)| {
            stages.push(json!({ "name": "all", "hosts": "100%", "maxUnavailable": out }));
            serde_json::from_value(json!({
                "stages": stages, "maxFailures": fails, "progressDeadline": format!("{deadline}s"),
                "offline": { "after": format!("{after}s"), "do": then }, "onFailure": on_failure,
            }))
            .expect("a strategy")
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever the fleet, the strategy and what happens: never more newly out than may be, stages in their order, nobody
    /// has the release whose stage was not open, the history gives the plan, and every rollout ends.
    #[test]
    fn whatever_happens_the_laws_of_rollouts_hold(
        strategy in strategy(),
        fleet in prop::collection::btree_map(1..60_u128, prop::bool::weighted(0.1), 0..30),
        story in prop::collection::vec((happens(), any::<u8>()), 0..200),
    ) {
        let host = |bad| Host { has: OLD, bad, said: Said::Healthy { since: 0 }, silent: None };
        let hosts = fleet.into_iter().map(|(number, bad)| (Uuid::from_u128(number), host(bad))).collect();
        let mut fleet = Fleet::new(&strategy, hosts);
        for (happens, answers) in story {
            if fleet.working.plan.state.is_final() {
                break;
            }
            let hosts: Vec<_> = fleet.hosts.keys().copied().collect();
            let pick = |n: u8| hosts.get(usize::from(n) % hosts.len().max(1)).copied();
            let now = fleet.clock();
            match happens {
                Happens::Report(n, how) => pick(n).into_iter().for_each(|uid| fleet.report(uid, how)),
                Happens::Silence(n) => {
                    if let Some(host) = pick(n).and_then(|uid| fleet.hosts.get_mut(&uid)) {
                        host.silent.get_or_insert(now);
                    }
                }
                Happens::Return(n) => {
                    if let Some(host) = pick(n).and_then(|uid| fleet.hosts.get_mut(&uid)) {
                        host.silent = None;
                    }
                }
                Happens::Spoil(n) | Happens::Mend(n) => {
                    if let Some(host) = pick(n).and_then(|uid| fleet.hosts.get_mut(&uid)) {
                        host.bad = matches!(happens, Happens::Spoil(_));
                    }
                }
                Happens::Join(n) => {
                    let uid = Uuid::from_u128(100 + u128::from(n));
                    fleet.hosts.entry(uid).or_insert(Host { said: Said::OnItsWay, ..host(false) });
                    fleet.assign();
                }
                Happens::Leave(n) => {
                    if let Some(uid) = pick(n) {
                        fleet.hosts.remove(&uid);
                    }
                }
                Happens::Pass(seconds) => fleet.wall += seconds * SECOND,
                Happens::Tell(n) => {
                    let signals = [Signal::Pause, Signal::Resume, Signal::Approve, Signal::Reject, Signal::Skip,
                        Signal::Retry, Signal::Approve, Signal::Resume];
                    let signal = signals[usize::from(n) % signals.len()];
                    let nodes = fleet.nodes();
                    let asked = nodes.iter().find(|node| node.held || matches!(node.spec.run, Some(Executor::Approval(_))) && node.live().is_some());
                    let _taken_or_not = match (signal.is_about_a_node(), asked) {
                        (true, Some(node)) => fleet.tell(signal, Some(&node.name.clone())),
                        (true, None) => false,
                        (false, _) if n > 250 => fleet.tell(Signal::Rollback, None),
                        (false, _) => fleet.tell(signal, None),
                    };
                }
                Happens::Kill => fleet.kill(),
            }
            fleet.act(answers);
        }
        fleet.run_out();
        fleet.check_end();
    }
}
