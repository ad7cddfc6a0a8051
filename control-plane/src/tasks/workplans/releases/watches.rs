//! Watching: what the hosts of a stage say. All of them are looked at when it begins; then what is new, whoever was given the
//! release, and everybody in turn, for those of which nothing is heard.

mod strides;
mod written;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use titan_api::{Revision, reports::Phase};
use uuid::Uuid;

use self::{strides::Stride, written::Written};
use super::{Halt, LOOK};
use crate::{
    fleet::{
        rollouts::{Progress, Said, Seat, Standing},
        view::Entry,
        workplans::Plan,
    },
    routes::hosts,
    state::AppState,
    store::ObservedDeployment,
    tasks::{follow, reports::listeners::Listener},
};

/// In what time everybody has his turn; in more the more hosts there are.
const ROUND: Duration = Duration::from_secs(2);
/// So many hosts are asked for at once whether they are still the deployment's.
const PART: usize = 4096;
/// So many characters of what a host says are told.
const BLAME: usize = 200;
/// Reports that another replica wrote mostly come no later than this after the time that they say.
const LATE: Duration = Duration::from_secs(5);
/// After so long all that other replicas wrote is read again, for what came later still.
const AGAIN: Duration = Duration::from_mins(3);

/// What hosts of a stage say.
pub(super) struct Watch {
    deployment: Uuid,
    /// What is said to this process.
    listener: Listener,
    written: Written,
    /// Hosts that cannot have what they are to have.
    refused: BTreeSet<Uuid>,
    /// Up to when reports were read, and when that was.
    read: (Revision, Instant),
    /// When each place's report came that was told to the stage last.
    taken: Vec<Revision>,
    /// When all reports were read last, whether the last look did so, and whether the next one is to.
    whole: Instant,
    sure: bool,
    again: bool,
    /// Whether a host was passed over that was to be given the release.
    strayed: bool,
    /// Whose turn it is next, by place, and since when.
    turn: (usize, Instant),
}

/// What is looked at beside what is new.
pub(super) enum Look {
    /// All hosts.
    Whole,
    /// Hosts that were given the release since the last time.
    Given(Vec<Uuid>),
}

/// What a host is judged by.
struct Ground<'a> {
    state: &'a AppState,
    plan: &'a Plan,
    clock: i64,
    /// Who was not heard of since then is not there.
    silence: Revision,
}

impl Watch {
    pub(super) async fn begin(state: &AppState, deployment: Uuid, progress: &Progress) -> Result<Self, Halt> {
        let listener = state.reports.listeners.listen(deployment);
        let written = Written::begin(state, progress).await?;
        let (now, refused) = (Instant::now(), BTreeSet::new());
        Ok(Self {
            deployment,
            listener,
            written,
            refused,
            read: (Revision::ZERO, now),
            taken: vec![Revision::ZERO; progress.size()],
            whole: now,
            sure: false,
            again: false,
            strayed: false,
            turn: (0, now),
        })
    }

    /// Whether somebody was passed over since the last time that was to be given the release.
    pub(super) const fn strayed(&mut self) -> bool {
        std::mem::replace(&mut self.strayed, false)
    }

    /// Whether there may be reports that were not read though all of them could be: the next look reads them.
    pub(super) fn looks_again(&mut self, state: &AppState) -> bool {
        self.again = state.store.postgres().is_some() && !self.sure;
        self.again
    }

    /// Takes in what was said since the last time, and tells it to the stage.
    pub(super) async fn look(
        &mut self,
        state: &AppState,
        progress: &mut Progress,
        plan: &Plan,
        look: Look,
    ) -> Result<(), Halt> {
        let clock = plan.clock(state.clock.now().micros());
        // First, so that what is read below is at least as new.
        let mut reports = self.listener.take();
        let refused = state.store.read().await?.hosts_with_render_problem(self.deployment).await?;
        let mut anew: BTreeSet<Uuid> = self.refused.symmetric_difference(&refused).copied().collect();
        self.refused = refused;
        let ground = Ground { state, plan, clock, silence: hosts::online_since(state) };
        let Look::Given(given) = look else {
            let mut stride = Stride::over(&state.crowds, progress.size()).await;
            for first in (0..progress.size()).step_by(PART) {
                let seats: Vec<_> = progress.seats(first, PART).collect();
                self.leave(&ground, progress, &seats).await?;
                for seat in seats {
                    stride.pass().await;
                    self.judge(&ground, progress, seat, None, true);
                }
            }
            let mut newest = Revision::ZERO;
            let mut tx = state.store.read().await?;
            tx.each_report_of_deployment(self.deployment, |observed| {
                newest = newest.max(observed.reported_at);
                if let Some(seat) = progress.seat_of(observed.host) {
                    self.judge(&ground, progress, seat, Some(observed), true);
                }
            })
            .await?;
            self.read = (newest, Instant::now());
            (self.whole, self.sure) = (Instant::now(), true);
            return Ok(());
        };
        self.sure = false;
        anew.extend(given);
        let mut read = Vec::new();
        if !anew.is_empty() {
            let hosts: Vec<_> = anew.iter().copied().collect();
            read = state.store.read().await?.reports_of_deployment_on(self.deployment, &hosts).await?;
        }
        // What was said to other replicas is to be had from the database alone.
        let elsewhere = state.store.postgres().is_some();
        if elsewhere && (self.again || self.whole.elapsed() >= AGAIN) {
            let mut tx = state.store.read().await?;
            tx.each_report_of_deployment(self.deployment, |observed| {
                match reports.get(&observed.host) {
                    Some(heard) if heard.reported_at >= observed.reported_at => return,
                    _ => drop(reports.remove(&observed.host)),
                }
                if let Some(seat) = progress.seat_of(observed.host)
                    && !self.took(seat.place, observed)
                {
                    self.judge(&ground, progress, seat, Some(observed), true);
                }
            })
            .await?;
            (self.whole, self.sure, self.again) = (Instant::now(), true, false);
        } else if elsewhere && self.read.1.elapsed() >= LOOK {
            let late = i64::try_from(LATE.as_micros()).unwrap_or(i64::MAX);
            let since = Revision::from_micros(self.read.0.micros().saturating_sub(late).max(0));
            let said = state.store.read().await?.reports_of_deployment_since(self.deployment, since).await?;
            let newest = said.iter().map(|observed| observed.reported_at).fold(self.read.0, Revision::max);
            self.read = (newest, Instant::now());
            let took = |observed: &ObservedDeployment| {
                progress.place(observed.host).is_some_and(|place| self.took(place, observed))
            };
            read.extend(said.into_iter().filter(|observed| !took(observed)));
        }
        reports.extend(read.into_iter().map(|observed| (observed.host, observed)));
        let (first, count) = self.take_turn(progress.size());
        let turn: Vec<_> = progress.seats(first, count).collect();
        for part in turn.chunks(PART) {
            self.leave(&ground, progress, part).await?;
            tokio::task::yield_now().await;
        }
        self.written.refresh(state, progress, &turn).await?;
        // A turn is small, and whoever said something is not to wait for others.
        let mut stride = Stride::over(&state.crowds, 0).await;
        for seat in turn {
            stride.pass().await;
            self.judge(&ground, progress, seat, None, false);
        }
        anew.extend(reports.keys());
        for host in anew {
            stride.pass().await;
            if let Some(seat) = progress.seat_of(host) {
                self.judge(&ground, progress, seat, reports.get(&host), true);
            }
        }
        Ok(())
    }

    /// Tells the stage how a host stands, `anew` also what it says of the release.
    fn judge(
        &mut self,
        ground: &Ground<'_>,
        progress: &mut Progress,
        seat: Seat,
        observed: Option<&ObservedDeployment>,
        anew: bool,
    ) {
        let Ground { state, plan, clock, silence } = ground;
        let Seat { place, host, standing: before, given } = seat;
        let refused = || self.refused.contains(&host);
        let said = match (given, anew, observed) {
            // What it says is about the release before.
            (false, ..) => Said::OnItsWay,
            (true, false, _) => before.said,
            (true, true, None) => Said::of(None, None, refused(), *clock),
            (true, true, Some(observed)) => {
                let entry = state.view.find(host).and_then(|slot| slot.set().of_deployment(self.deployment).cloned());
                let assignment = entry.map(|entry| entry.assignment(host));
                // By the plan's clock, which stood still while it was paused.
                let at = plan.clock(observed.reported_at.micros()).min(*clock);
                Said::of(assignment.as_ref(), Some(observed), refused(), at)
            }
        };
        // What does not count yet may do so once more is known of the assignment.
        if let Some(observed) = observed.filter(|_| said != Said::OnItsWay)
            && let Some(taken) = self.taken.get_mut(place as usize)
        {
            *taken = observed.reported_at;
        }
        // One that nobody ever saw is not there since it was first looked for.
        let unseen_since = match (hosts::last_seen(state, host, self.written.at(place)), before.unseen_since) {
            (Some(seen), _) if seen >= *silence => None,
            (_, Some(since)) => Some(since),
            (Some(seen), None) => Some(plan.clock(seen.micros()).min(*clock)),
            (None, None) => Some(*clock),
        };
        let standing = Standing { said, unseen_since };
        if standing != before {
            progress.tell(host, standing, *clock);
        }
    }

    /// Whether a report was told to the stage already.
    fn took(&self, place: u32, observed: &ObservedDeployment) -> bool {
        self.taken.get(place as usize) == Some(&observed.reported_at)
    }

    /// Tells the stage which of the members are no longer the deployment's, or were passed over though the gate is open for
    /// them: there was no room, or it was taken from them.
    async fn leave(&mut self, ground: &Ground<'_>, progress: &mut Progress, seats: &[Seat]) -> Result<(), Halt> {
        if seats.is_empty() {
            return Ok(());
        }
        let state = ground.state;
        let has = |host| {
            let slot = state.view.find(host);
            slot.is_some_and(|slot| slot.set().of_deployment(self.deployment).is_some_and(Entry::present))
        };
        let (mut gone, mut passed) = (Vec::new(), Vec::new());
        {
            let model = state.model();
            let numbers: Vec<_> = seats.iter().map(|seat| model.hosts().number(seat.host)).collect();
            let there = numbers.iter().flatten().map(|number| number.0).collect();
            let target = model.deployment(self.deployment).and_then(|deployment| model.target(deployment));
            let staying = target.map(|target| model.hosts().matching_of(target, &there)).unwrap_or_default();
            for (seat, number) in seats.iter().zip(numbers) {
                if number.is_none_or(|number| !staying.contains(number.0)) {
                    gone.push(seat.host);
                } else if seat.given && !self.refused.contains(&seat.host) && !has(seat.host) {
                    passed.push(seat.host);
                }
            }
        }
        if !passed.is_empty() {
            // One that it can be rendered for since may have it already.
            follow::pass(state).await?;
            passed.retain(|host| !has(*host));
        }
        self.strayed |= !passed.is_empty();
        gone.into_iter().chain(passed).for_each(|host| progress.remove(host, ground.clock));
        Ok(())
    }

    /// Returns the places whose turn it is, as the first and how many: in the time of a round it is everybody's once.
    fn take_turn(&mut self, all: usize) -> (usize, usize) {
        let (first, since) = self.turn;
        let round = ROUND.max(Duration::from_millis(all as u64 / 20));
        let part = since.elapsed().div_duration_f64(round);
        let count = ((part * all as f64) as usize).min(all - first);
        if count > 0 {
            self.turn = ((first + count) % all, Instant::now());
        }
        (first, count)
    }
}

/// Returns what the first of the hosts says that failed, for people; nothing if none did.
pub(super) async fn blame(state: &AppState, deployment: Uuid, progress: &Progress) -> Result<String, Halt> {
    let Some(host) = progress.failed().next() else { return Ok(String::new()) };
    let mut tx = state.store.read().await?;
    let problem = tx.render_problems(deployment).await?.into_iter().find(|found| found.host == host);
    let said = match problem {
        Some(found) => found.problem.detail,
        None => {
            let reports = tx.reports_of_deployment_on(deployment, &[host]).await?;
            let failed = |phase| matches!(phase, Phase::Failed | Phase::Degraded | Phase::RolledBack);
            // What one said before it fell silent was about something else.
            let report = reports.into_iter().map(|observed| observed.report).find(|report| failed(report.phase));
            report.map(|report| report.message).unwrap_or_default()
        }
    };
    let name = state.model().host(host).map(|host| host.name().to_owned()).unwrap_or_default();
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let said: String = said.chars().take(BLAME).collect();
    Ok(if said.is_empty() { format!("; {name} is one of them") } else { format!("; {name}: {said}") })
}
