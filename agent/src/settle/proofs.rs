//! The proof of health: trials after a switch, and the watch over what was found healthy.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use titan_api::{Digest, Revision, health::Health, templates::Applier};
use tokio::runtime::Handle;
use uuid::Uuid;

use super::{Worker, chain, now};
use crate::{
    apply::{Condition, Observation, Target},
    background::{Background, Stands},
    bundles::Bundle,
    claims::{Claim, Claims},
    clocks::BootClock,
    config::appliers::HookKind,
    disk::DiskError,
    faults::fault,
    ledger::LedgerEntry,
    probes::{self, Callers, ProbeGround},
    trials::{Trial, TrialMark, Verdict, Vigil},
    wake::Wake,
};

/// Bundles of one deployment that are remembered as bad.
const BAD: usize = 8;

/// When to look again at what could not be looked at.
const AGAIN: Duration = Duration::from_secs(1);

/// A probe that was asked: of which deployment, which bundle, which of its probes.
type Asked = (Uuid, Digest, usize);

/// What is known of every deployment's health, beside what the ledger says.
#[derive(Debug)]
pub(super) struct Proofs {
    clock: BootClock,
    callers: Callers,
    asked: Background<Asked, Result<(), String>>,
    watches: BTreeMap<Uuid, Watch>,
    /// Bundles of which there is nothing to see.
    plain: BTreeSet<Digest>,
    heard: Option<u64>,
    /// Why what is beside files could not be brought in line with them.
    pub(super) hindered: BTreeMap<Uuid, String>,
    /// Why the last pass could not write down what it found, which was said.
    unwritten: Option<String>,
}

/// The watch over one deployment.
struct Watch {
    bundle: Arc<Bundle>,
    digest: Digest,
    stage: Stage,
    /// When to look again; absent: when something stirs.
    next: Option<Instant>,
    /// What it waits for, or why it is degraded.
    says: Option<String>,
}

#[derive(Debug)]
enum Stage {
    Trial(Trial),
    Vigil(Vigil),
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("digest", &self.digest).field("stage", &self.stage).finish_non_exhaustive()
    }
}

impl Proofs {
    pub(super) fn new(io: &Handle, wake: &Wake, newest: Option<Revision>) -> Self {
        Self {
            clock: BootClock::new(),
            callers: Callers::new(newest),
            asked: Background::new(io.clone(), wake.clone()),
            watches: BTreeMap::new(),
            plain: BTreeSet::new(),
            heard: None,
            hindered: BTreeMap::new(),
            unwritten: None,
        }
    }

    /// Returns the host's boot.
    pub(super) fn boot(&self) -> Arc<str> {
        self.clock.now().boot
    }

    /// Notes that the control plane has answered.
    pub(super) fn heard(&mut self) {
        self.heard = Some(self.clock.now().millis);
    }

    /// Returns when deployments are to be looked at again.
    pub(super) fn next(&self) -> impl Iterator<Item = Instant> {
        self.watches.values().filter_map(|watch| watch.next)
    }

    /// Forgets what bundles are known that `keep` does not want.
    pub(super) fn keep(&mut self, keep: &BTreeSet<Digest>) {
        self.plain.retain(|digest| keep.contains(digest));
    }

    pub(super) fn forget(&mut self, id: Uuid) {
        self.watches.remove(&id);
        self.asked.retain(|(other, ..)| *other != id);
    }
}

impl Worker {
    /// Returns the trial that a bundle has to stand, if there is anything that it has to prove. One that is `returned` to
    /// has proved itself before; its hook is what brings it to life again.
    pub(super) fn trial_of(&self, bundle: &Bundle, claims: &Claims, returned: bool) -> Option<TrialMark> {
        let health = &bundle.health;
        let hook = bundle.hooks.post_apply.is_some();
        let more = !claims.is_empty() || !health.probes.is_empty() || health.min_ready_seconds > 0;
        let begin = || Trial::begin(health, hook, &self.proofs.clock.now()).mark().clone();
        (hook || (more && !returned)).then(|| TrialMark { returned, ..begin() })
    }

    /// Whether what is in place is proven, and no worse since.
    pub(super) fn is_healthy(&self, id: Uuid) -> bool {
        let proven = |entry: &LedgerEntry| entry.trial.is_none() && entry.healthy_since.is_some();
        self.ledger.entries.get(&id).is_some_and(proven) && self.degraded(id).is_none()
    }

    /// Whether what is in place is not proven yet.
    pub(super) fn is_on_trial(&self, id: Uuid) -> bool {
        self.ledger.entries.get(&id).is_some_and(|entry| entry.trial.is_some())
    }

    /// Returns why a deployment that was healthy is not any more.
    pub(super) fn degraded(&self, id: Uuid) -> Option<String> {
        let entry = self.ledger.entries.get(&id)?;
        // Until it is looked at again, what is known may be of the bundle that was there before.
        let watch = self.proofs.watches.get(&id).filter(|watch| watch.digest == entry.digest)?;
        watch.says.clone().filter(|_| matches!(watch.stage, Stage::Vigil(_)))
    }

    /// Returns what the proof of a deployment's health waits for.
    pub(super) fn awaits(&self, id: Uuid) -> String {
        let says = self.proofs.watches.get(&id).and_then(|watch| watch.says.clone());
        says.unwrap_or_else(|| "it is in place and has yet to prove that it works".to_owned())
    }

    /// Looks at everything that has something to prove, or to keep. Returns whether something proved bad that can go back.
    pub(super) fn watch_over(&mut self, stirred: &dyn Fn(Applier) -> bool) -> bool {
        let (mut bad, mut unwritten) = (false, None);
        let entries = &self.ledger.entries;
        self.proofs.watches.retain(|id, watch| entries.get(id).is_some_and(|entry| entry.digest == watch.digest));
        self.proofs.hindered.retain(|id, _| entries.contains_key(id));
        let watches = &self.proofs.watches;
        self.proofs.asked.retain(|(id, digest, _)| watches.get(id).is_some_and(|watch| watch.digest == *digest));
        for id in self.ledger.entries.keys().copied().collect::<Vec<_>>() {
            let Some(mut watch) = self.proofs.watches.remove(&id).or_else(|| self.begin_watch(id)) else { continue };
            let finished = self.ledger.entries.get(&id).is_some_and(|entry| entry.unfinished.is_none());
            let answered = self.take_answers(id, &mut watch);
            let due = watch.next.is_some_and(|next| next <= Instant::now());
            let look = answered || due || stirred(watch.bundle.applier) || matches!(watch.stage, Stage::Trial(_));
            if look {
                // Should it not be possible to say when.
                watch.next = Some(Instant::now() + AGAIN);
                match self.look_at(id, &mut watch, finished) {
                    Ok(proved_bad) => bad |= proved_bad,
                    // It is found out again.
                    Err(error) => {
                        let why = chain(&error);
                        if self.proofs.unwritten.as_ref() != Some(&why) {
                            tracing::warn!("what was proved cannot be written down: {why}");
                        }
                        unwritten = Some(why);
                    }
                }
            }
            if self.ledger.entries.get(&id).is_some_and(|entry| entry.digest == watch.digest) {
                self.proofs.watches.insert(id, watch);
            }
        }
        self.proofs.unwritten = unwritten;
        bad
    }

    /// Begins, or goes on with, the watch over a deployment of which there is something to see.
    fn begin_watch(&mut self, id: Uuid) -> Option<Watch> {
        let entry = self.ledger.entries.get(&id)?;
        if entry.trial.is_none() && self.proofs.plain.contains(&entry.digest) {
            return None;
        }
        let bundle = match self.bundles.get(&entry.digest) {
            Ok(bundle) => bundle?,
            Err(error) => {
                tracing::warn!("{} cannot be watched: {}", entry.title(), chain(&error));
                return None;
            }
        };
        if entry.trial.is_none() && entry.claims.is_empty() && bundle.health.probes.is_empty() {
            self.proofs.plain.insert(entry.digest);
            return None;
        }
        let now = self.proofs.clock.now();
        let stage = match &entry.trial {
            Some(mark) => {
                let hook = bundle.hooks.post_apply.is_some();
                // Of what was returned to only the hook is waited for.
                let health = if mark.returned { Health::default() } else { bundle.health.clone() };
                Stage::Trial(Trial::resume(&health, hook, mark.clone(), &now))
            }
            None => Stage::Vigil(Vigil::resume(&bundle.health, entry.bad.get(&entry.digest).cloned(), now.millis)),
        };
        let (digest, next) = (entry.digest, Some(Instant::now()));
        Some(Watch { bundle: Arc::new(bundle), digest, stage, next, says: None })
    }

    /// Takes what probes have answered since the last time. Returns whether any has.
    fn take_answers(&mut self, id: Uuid, watch: &mut Watch) -> bool {
        let (mut any, now) = (false, self.proofs.clock.now().millis);
        for probe in 0..watch.bundle.health.probes.len() {
            let result = match self.proofs.asked.look(&(id, watch.digest, probe)) {
                Stands::Ended(result) => result,
                Stands::Lost => Err("it was cut short".to_owned()),
                Stands::Unknown | Stands::Running => continue,
            };
            any = true;
            match &mut watch.stage {
                Stage::Trial(trial) => trial.answered(probe, now, result),
                Stage::Vigil(vigil) => vigil.answered(probe, now, result),
            }
        }
        any
    }

    /// Looks at one deployment. Returns whether it proved bad and can go back.
    fn look_at(&mut self, id: Uuid, watch: &mut Watch, finished: bool) -> Result<bool, DiskError> {
        let Some(entry) = self.ledger.entries.get(&id) else { return Ok(false) };
        let (target, began) = (Target::in_place(id, entry), entry.trial.as_ref().map_or(0, |mark| mark.began));
        let returned = entry.trial.as_ref().is_some_and(|mark| mark.returned);
        let observed = if finished {
            self.seen(&target, &watch.bundle)
        } else {
            unfinished(&entry.claims, self.proofs.hindered.get(&id))
        };
        if finished {
            self.run_hook(&target, watch);
        }
        let now = self.proofs.clock.now();
        let due = match &mut watch.stage {
            Stage::Trial(trial) if finished => trial.due(now.millis),
            Stage::Vigil(vigil) if finished => vigil.due(now.millis),
            _ => Vec::new(),
        };
        self.ask(&target, watch, began, &due);
        let verdict = match &mut watch.stage {
            Stage::Trial(trial) => trial.look(now.millis, &observed),
            Stage::Vigil(vigil) => {
                let standing = vigil.look(now.millis, &observed);
                if let Some(why) = standing.degraded.as_ref().filter(|why| watch.says.as_ref() != Some(*why)) {
                    let title = target.home();
                    tracing::warn!(deployment.title = %title, "{title} is {why}");
                }
                let recovered = standing.degraded.is_none() && watch.says.is_some();
                watch.says = standing.degraded;
                watch.next = standing.next.map(|next| Instant::now() + next);
                if recovered {
                    // It took longer than it was given, and there was nothing to return to.
                    self.proves_good(id)?;
                }
                return Ok(false);
            }
        };
        match verdict {
            Verdict::Wait { next } => {
                watch.next = Some(Instant::now() + next);
                watch.says = waits_for(&observed);
                if let Stage::Trial(trial) = &watch.stage {
                    self.keep_mark(id, trial.mark().clone())?;
                }
                Ok(false)
            }
            Verdict::Healthy => {
                tracing::info!(deployment.title = %target.home(), "{} is healthy", target.home());
                self.proves_good(id)?;
                watch.says = None;
                if returned {
                    watch.stage = Stage::Vigil(Vigil::resume(&watch.bundle.health, None, now.millis));
                } else if let Stage::Trial(trial) = &watch.stage {
                    watch.stage = Stage::Vigil(trial.clone().into_vigil());
                }
                watch.next = (!watch.bundle.health.probes.is_empty()).then(Instant::now);
                Ok(false)
            }
            Verdict::Expired(why) | Verdict::Failed(why) => {
                tracing::warn!(deployment.title = %target.home(), "{} proved bad: {why}", target.home());
                watch.says = Some(why.clone());
                watch.stage = Stage::Vigil(Vigil::resume(&watch.bundle.health, Some(why.clone()), now.millis));
                watch.next = Some(Instant::now());
                if returned {
                    // There is no way further back, and it is not worse than it was when it proved good.
                    self.amend(id, |entry| entry.trial = None)?;
                    return Ok(false);
                }
                self.proves_bad(id, watch.digest, why)
            }
        }
    }

    /// Returns how everything beside files does; an applier that cannot tell is not well.
    fn seen(&mut self, target: &Target, bundle: &Bundle) -> Vec<Observation> {
        self.observe(target, bundle).unwrap_or_else(|error| {
            let claim = Claim::new("applier", bundle.applier.as_str());
            vec![Observation { claim, condition: Condition::Ill(chain(&error)), drift: None }]
        })
    }

    fn run_hook(&mut self, target: &Target, watch: &mut Watch) {
        let Stage::Trial(trial) = &mut watch.stage else { return };
        if watch.bundle.hooks.post_apply.is_none() {
            return;
        }
        let now = self.proofs.clock.now().millis;
        match self.hooked(HookKind::PostApply, target, &watch.bundle) {
            Ok(Some(_)) => {}
            Ok(None) => trial.hook_ended(now, Ok(())),
            Err(error) => trial.hook_ended(now, Err(chain(&error))),
        }
    }

    /// Asks probes, in the background.
    fn ask(&mut self, target: &Target, watch: &Watch, began: u64, due: &[usize]) {
        for index in due {
            let Some(probe) = watch.bundle.health.probes.get(*index).cloned() else { continue };
            let ground = ProbeGround {
                target: target.clone(),
                home: self.home(target),
                exec: self.exec.clone(),
                timeout: watch.bundle.health.timeout.0,
                polled: self.proofs.heard.is_some_and(|heard| heard >= began),
                callers: self.proofs.callers.clone(),
            };
            let key = (target.id, watch.digest, *index);
            self.proofs.asked.start(key, async move { probes::ask(&probe, &ground).await });
        }
    }

    fn keep_mark(&mut self, id: Uuid, mark: TrialMark) -> Result<(), DiskError> {
        self.amend(id, |entry| entry.trial = Some(mark))
    }

    fn proves_good(&mut self, id: Uuid) -> Result<(), DiskError> {
        let since = now();
        self.amend(id, |entry| {
            entry.trial = None;
            entry.healthy_since = Some(since);
            let digest = entry.digest;
            entry.bad.remove(&digest);
            entry.bad_at.remove(&digest);
        })?;
        fault!("proved-good");
        Ok(())
    }

    fn proves_bad(&mut self, id: Uuid, digest: Digest, why: String) -> Result<bool, DiskError> {
        self.amend(id, |entry| {
            entry.trial = None;
            while entry.bad.len() >= BAD {
                entry.bad.pop_first();
            }
            entry.bad.insert(digest, why);
            entry.bad_at.insert(digest, entry.revision);
            entry.bad_at.retain(|known, _| entry.bad.contains_key(known));
        })?;
        fault!("proved-bad");
        Ok(self.ledger.entries.get(&id).is_some_and(|entry| entry.previous.is_some()))
    }

    /// Changes one entry of the ledger, in memory and on disk.
    pub(super) fn amend(&mut self, id: Uuid, change: impl FnOnce(&mut LedgerEntry)) -> Result<(), DiskError> {
        let mut next = self.ledger.clone();
        next.entries.get_mut(&id).map(change);
        if next != self.ledger {
            next.write(&self.state)?;
            self.ledger = next;
        }
        Ok(())
    }
}

/// What is to be seen of claims whose applier has not finished with them; why it has not is told once.
fn unfinished(claims: &Claims, hindered: Option<&String>) -> Vec<Observation> {
    let mut why = hindered.map(|why| format!(": {why}"));
    let observed = claims.keys().map(|claim| {
        let says = format!("it has yet to be brought in line with its files{}", why.take().unwrap_or_default());
        Observation { claim: claim.clone(), condition: Condition::Starting(says), drift: None }
    });
    observed.collect()
}

/// Says what a trial waits for.
fn waits_for(observed: &[Observation]) -> Option<String> {
    let waits: Vec<_> = observed
        .iter()
        .filter_map(|seen| match &seen.condition {
            Condition::Well => None,
            Condition::Starting(why) | Condition::Ill(why) | Condition::Failed(why) => {
                Some(format!("{}: {}", seen.claim, why.lines().next().unwrap_or_default()))
            }
        })
        .collect();
    (!waits.is_empty()).then(|| format!("it has yet to prove that it works: {}", waits.join("; ")))
}
