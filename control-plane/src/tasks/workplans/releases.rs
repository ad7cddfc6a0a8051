//! Releases: how the control plane hands one out, stage by stage, and takes it back.
//!
//! An attempt of a stage looks at its hosts, opens the gate as far as it may, and ends as they come to their end. Nothing of
//! it is kept but the gate: one that was cut off begins anew and finds how far the gate is open.

mod retries;
mod returns;
mod watches;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};
use titan_api::{
    selectors::Selector,
    strategies::{
        ReleaseStage, ReleaseStep,
        releases::{Counts, Preflight},
    },
    windows::{self, Windows},
    workplans::{PlanState, attempts},
};
use uuid::Uuid;

use self::watches::{Look, Watch};
use super::{End, executors::Job};
use crate::{
    fleet::{
        absences::Absences,
        bookings::is_booked,
        causes::Affected,
        matchers::Matcher,
        model::Deployment,
        rollouts::{Doors, Frozen, Gate, Opening, Progress, Rules, Verdict, members, outcomes, preflight, ranked},
        workplans::Plan,
    },
    planning::{self, Planning},
    state::AppState,
    store::{Release, StoreError, Tx},
    tasks::follow,
    workplans,
};

/// How long hosts are not looked at again though more is heard of them, at least.
const REST: Duration = Duration::from_millis(20);
/// What is added to it for so many hosts is a millisecond.
const MANY: u64 = 10_000;
/// How long nothing is heard before they are looked at all the same.
const LOOK: Duration = Duration::from_millis(500);
/// How often people are told how far it is.
const TOLD: Duration = Duration::from_secs(1);
/// What people are told of one attempt, at most.
const LINES: usize = 20;
/// How long whatever failed for reasons of our own is left alone.
const AGAIN: Duration = Duration::from_secs(1);

/// Why an attempt did not come to its end.
#[derive(Debug)]
enum Halt {
    /// The database failed, or nothing can be rendered.
    Again(String),
    /// It is not to go on.
    Over(&'static str, String),
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        Self::Again(error.to_string())
    }
}

/// How a step came to its end.
struct Ended {
    verdict: Verdict,
    line: String,
    /// How its hosts stand, if it is about hosts.
    counts: Option<Counts>,
}

/// Does a step of a rollout.
pub(super) async fn run(job: Job, step: &ReleaseStep) -> End {
    let ended = match step {
        ReleaseStep::Preflight(preflight) => look_ahead(&job, preflight).await,
        ReleaseStep::Stage(stage) => hand_out(&job, stage).await,
        ReleaseStep::Back(back) => returns::take_back(&job, back).await,
    };
    match ended {
        Ok(Ended { verdict, line, counts }) => {
            let mut details = Map::new();
            if matches!(verdict, Verdict::NoOp(_)) {
                details.insert("noOp".to_owned(), json!(true));
            }
            if let Some(counts) = counts {
                details.insert("counts".to_owned(), json!(counts));
            }
            let verdict = match verdict {
                Verdict::Passed | Verdict::NoOp(_) => attempts::Verdict::Passed,
                Verdict::Failed(_) => attempts::Verdict::Failed,
            };
            End::known(verdict, Some(line), (!details.is_empty()).then_some(Value::Object(details)))
        }
        // Made again after a moment, and not counted: nothing is known of the release by that.
        Err(Halt::Again(why)) => {
            tokio::time::sleep(AGAIN).await;
            End::broken("interrupted", why)
        }
        Err(Halt::Over(code, message)) => End::broken(code, message),
    }
}

impl Job {
    /// Returns the plan as it stands and its gate, if the attempt is still to go on.
    async fn standing(&self) -> Result<(Plan, Gate), Halt> {
        let mut tx = self.state.store.read().await?;
        let row = tx.plan(self.row.plan.id).await?;
        let gate = tx.gate_of_plan(self.row.plan.id).await?;
        match (row, gate) {
            (Some(row), Some(gate)) if !row.plan.state.is_final() => Ok((row.plan, gate)),
            _ => Err(Halt::Over("superseded", "another release takes its place".to_owned())),
        }
    }

    /// Whether the plan still waits for this attempt.
    async fn lives(&self, tx: &mut Tx) -> Result<bool, Halt> {
        let node = tx.plan_nodes(self.row.plan.id, std::slice::from_ref(&self.node.name)).await?.pop();
        Ok(node.and_then(|node| node.live().map(|attempt| attempt.number)) == Some(self.number))
    }

    /// Writes how far the gate is open, and with `veto` that this release is not handed out again by itself. Nothing is
    /// written if the plan went on without this attempt, or was paused.
    async fn open(&self, change: impl Fn(&mut Gate) -> bool, veto: Option<&Release>) -> Result<bool, Halt> {
        let mut tx = self.state.store.write("gate").await?;
        let now = self.state.clock.now();
        let revision = tx.tick(now).await?;
        let row = tx.plan_for_step(self.row.plan.id).await?.filter(|row| row.plan.goes_on());
        let gate = tx.gate_of_plan(self.row.plan.id).await?;
        let lives = self.lives(&mut tx).await?;
        let (Some(row), Some(mut gate)) = (row, gate.filter(|_| lives)) else { return Ok(false) };
        let changed = change(&mut gate);
        if changed {
            tx.put_gate(&gate, revision).await?;
        }
        match veto {
            Some(release) => workplans::veto(&mut tx, &row, release, now).await?,
            None if !changed => return Ok(true),
            None => {}
        }
        tx.notify().await?;
        tx.commit().await?;
        self.state.committed();
        Ok(true)
    }

    /// Waits until it is decided for every host what the gate means for it.
    async fn decided(&self) -> Result<(), Halt> {
        let mut commits = self.state.commits();
        loop {
            commits.mark_unchanged();
            let mut tx = self.state.store.read().await?;
            let moved = tx.gate_moved(self.row.plan.id).await?;
            let decided = tx.bookmark("gates").await?;
            drop(tx);
            match moved {
                Some(moved) if moved > decided => {}
                Some(_) => break,
                None => return Err(Halt::Over("superseded", "another release takes its place".to_owned())),
            }
            let _hint = tokio::time::timeout(LOOK, commits.changed()).await;
        }
        // Whatever was decided is in the view.
        Ok(follow::pass(&self.state).await?)
    }

    fn deployment(&self, gate: &Gate) -> Result<Arc<Deployment>, Halt> {
        let gone = || Halt::Over("superseded", "the deployment is not there any more".to_owned());
        self.state.model().deployment(gate.deployment).cloned().ok_or_else(gone)
    }

    async fn tell(&self, line: &str, counts: &Counts) -> Result<(), Halt> {
        let mut tx = self.state.store.write("progress").await?;
        if !self.lives(&mut tx).await? {
            return Ok(());
        }
        let said: Value = json!({ "message": line, "counts": counts });
        tx.add_progress(self.row.plan.id, (&self.node.name, self.number), &said, LINES).await?;
        Ok(tx.commit().await?)
    }
}

/// Looks at the hosts until the stage ends, and opens the gate for it if it `opens` one. `stage`: what is declared of it, if
/// anything is.
async fn watch_over(
    job: &Job,
    mut progress: Progress,
    mut watch: Watch,
    (stage, opens): (Option<&ReleaseStage>, bool),
) -> Result<Ended, Halt> {
    let windows = stage.map(|stage| &stage.windows).filter(|windows| !windows.is_empty());
    let windows = windows.map(|windows| Windows::parse(windows)).transpose();
    let windows = windows.map_err(|(_, why)| Halt::Over("invalid", why))?;
    let (mut commits, mut reports) = (job.state.commits(), job.state.reported.subscribe());
    let (mut look, mut opened, mut given) = (Look::Whole, None, progress.given());
    let mut told: (Option<String>, Instant) = (None, Instant::now());
    loop {
        commits.mark_unchanged();
        reports.mark_unchanged();
        let (plan, gate) = job.standing().await?;
        watch.look(&job.state, &mut progress, &plan, std::mem::replace(&mut look, Look::Given(Vec::new()))).await?;
        if watch.strayed()
            && let Some(stage) = stage
            && has_others(job, stage, &progress).await?
        {
            return Err(Halt::Again(
                "replicas went elsewhere: the stage is looked at with the hosts that have them".to_owned(),
            ));
        }
        let (wall, paused) = (job.state.clock.now(), plan.state == PlanState::Paused);
        let now = plan.clock(wall.micros());
        let doors = match windows.as_ref().map(|windows| windows.opening(wall, None)) {
            _ if paused => Doors::Closed { until: None },
            Some(windows::Opening::Closed { next, .. }) => {
                Doors::Closed { until: next.map(|next| plan.clock(next.micros())) }
            }
            Some(windows::Opening::Open) | None => Doors::Open,
        };
        let advance = progress.advance(now, doors);
        let line = outcomes::line(progress.rules(), &advance, now);
        if opens && advance.opening != opened {
            if let Some(opening) = &advance.opening
                && !job.open(|gate| gate.open(opening), None).await?
            {
                // The plan was paused meanwhile, or went on without this.
                progress.close_after(given);
                let _hint = tokio::time::timeout(LOOK, commits.changed()).await;
                tokio::time::sleep(REST).await;
                continue;
            }
            opened.clone_from(&advance.opening);
            job.decided().await?;
            // What they said until now was about the release before.
            look = Look::Given(progress.given_after(given).collect());
            given = progress.given();
        }
        if matches!(advance.verdict, Some(Verdict::Failed(_))) && watch.looks_again(&job.state) {
            continue;
        }
        if let Some(verdict) = advance.verdict {
            let line = match &verdict {
                Verdict::Failed(_) => line + &watches::blame(&job.state, gate.deployment, &progress).await?,
                Verdict::Passed | Verdict::NoOp(_) => line,
            };
            return Ok(Ended { verdict, line, counts: Some(advance.counts) });
        }
        if told.0.as_ref() != Some(&line) && (told.0.is_none() || told.1.elapsed() >= TOLD) {
            job.tell(&line, &advance.counts).await?;
            told = (Some(line), Instant::now());
        }
        if matches!(&look, Look::Given(hosts) if !hosts.is_empty()) {
            continue;
        }
        tokio::time::sleep(REST + Duration::from_millis(progress.size() as u64 / MANY)).await;
        let due = advance.due.map(|due| Duration::from_micros(due.saturating_sub(now).max(0).unsigned_abs()));
        let wait = due.unwrap_or(LOOK).clamp(Duration::from_millis(1), LOOK);
        tokio::select! {
            _ = commits.changed() => {}
            _ = reports.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Does work over all hosts beside the tasks that polls and plans share.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Halt> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Halt::Again(error.to_string()))
}

/// Returns the hosts that are to have a deployment.
async fn present(state: &AppState, deployment: &Arc<Deployment>) -> Result<Vec<Uuid>, Halt> {
    let problems = match is_booked(deployment) {
        true => state.store.read().await?.pairs_with_render_problem().await?,
        false => BTreeSet::new(),
    };
    let (state, deployment) = (state.clone(), Arc::clone(deployment));
    apart(move || members((&state.model(), &state.view), &deployment, &problems, &state.absences.load())).await
}

/// Returns the hosts of a stage as they are now.
async fn freeze(job: &Job, stage: &ReleaseStage, deployment: &Arc<Deployment>, gate: &Gate) -> Result<Frozen, Halt> {
    let hosts = present(&job.state, deployment).await?;
    let (model, uid, stage, gate) = (job.state.model(), deployment.uid, stage.clone(), gate.clone());
    apart(move || {
        let selectors = gate.openings.iter().filter_map(|opening| opening.selector.as_ref()).chain(&stage.selector);
        let matching =
            |selector: &Selector| Matcher::new(selector.clone()).map(|matcher| model.hosts().matching(&matcher));
        let matched: Vec<_> = selectors.map(|selector| (selector, matching(selector).unwrap_or_default())).collect();
        let matches = |selector: &Selector, host: Uuid| {
            let set = matched.iter().find(|(known, _)| *known == selector).map(|(_, set)| set);
            set.zip(model.hosts().number(host)).is_some_and(|(set, number)| set.contains(number.0))
        };
        Frozen::of(&stage, &gate, &ranked(uid, hosts), matches)
    })
    .await
}

/// Whether a stage is about other hosts by now than when it began, since replicas are on others.
async fn has_others(job: &Job, stage: &ReleaseStage, progress: &Progress) -> Result<bool, Halt> {
    let (_, gate) = job.standing().await?;
    let deployment = job.deployment(&gate)?;
    if deployment.spec.replicas.is_none() {
        return Ok(false);
    }
    let frozen = freeze(job, stage, &deployment, &gate).await?;
    Ok(frozen.members.iter().any(|member| progress.place(member.host).is_none()))
}

async fn hand_out(job: &Job, stage: &ReleaseStage) -> Result<Ended, Halt> {
    job.decided().await?;
    let (plan, gate) = job.standing().await?;
    let deployment = job.deployment(&gate)?;
    let frozen = freeze(job, stage, &deployment, &gate).await?;
    if job.node.generation > 1 {
        retries::declare_anew(job, &deployment, &gate, &frozen).await?;
    }
    let all = Opening { stage: stage.stage.clone(), selector: None, up_to: None, reach: None };
    let opening = if gate.is_settled() { Some(all) } else { gate.opening(&stage.stage).cloned() };
    let (rules, now) = (Rules::from(stage), plan.clock(job.state.clock.now().micros()));
    let progress = apart(move || Progress::new(rules, frozen, opening.as_ref(), now)).await?;
    let watch = Watch::begin(&job.state, deployment.uid, &progress).await?;
    watch_over(job, progress, watch, (Some(stage), !gate.is_settled())).await
}

/// Renders the release for every host that is to have it, before any has it.
async fn look_ahead(job: &Job, preflight: &Preflight) -> Result<Ended, Halt> {
    job.decided().await?;
    let (_, gate) = job.standing().await?;
    let deployment = job.deployment(&gate)?;
    let state = &job.state;
    let model = state.model();
    let mut standing = planning::Standing::of(&state.view, &model, &state.store).await?;
    standing.absences = Absences::clone(&state.absences.load());
    standing.barriers.clear();
    let hosts = present(state, &deployment).await?.len() as u64;
    let mut planning = Planning {
        model: &model,
        view: &state.view,
        standing: &mut standing,
        store: &state.store,
        renderer: &state.renderer,
    };
    let affected = Affected { deployments: BTreeSet::from([deployment.uid]), ..Affected::default() };
    // An error is not about the release: that it cannot be rendered for a host is part of the answer.
    let planned = planning.preview(&affected).await.map_err(|problem| Halt::Again(problem.to_string()))?;
    let of = planned.problems.iter().filter(|(of, ..)| *of == deployment.uid);
    let refused: Vec<_> = of.filter_map(|(_, host, problem)| Some((host, problem.as_ref()?))).collect();
    let hosts = hosts.max(refused.len() as u64);
    let verdict = preflight::verdict(preflight, hosts, refused.len() as u64);
    let mut line = match &verdict {
        Verdict::Passed => {
            format!("the release can be rendered for {} of {hosts} hosts", hosts.saturating_sub(refused.len() as u64))
        }
        Verdict::NoOp(why) => format!("nothing to do, {why}"),
        Verdict::Failed(why) => why.clone(),
    };
    if let Some((host, problem)) = refused.first() {
        let name = model.host(**host).map(|host| host.name().to_owned()).unwrap_or_default();
        line.push_str(&format!("; {name}: {}", problem.detail));
    }
    Ok(Ended { verdict, line, counts: None })
}
