//! Attempts: what workers take, say and end over the API.

use std::time::Duration;

use axum::{Json as JsonBody, extract::State};
use titan_api::{
    Code, Name, Problem, limits,
    problems::Fault,
    spans::Span,
    workplans::{
        Executor,
        attempts::{
            ClaimAnswer, ClaimRequest, Claimed, Completion, Heartbeat, HeartbeatAnswer, ResultRequest, ResultsRequest,
            Verdict,
        },
    },
};
use uuid::Uuid;

use crate::{
    fleet::workplans::{Finished, Input, flow::is_reserved},
    routes::{
        extract::{Admin, Json, Large, Names},
        respond::Answer,
    },
    state::AppState,
    store::Queued,
    tasks::workplans::OWN,
    workplans,
};

/// Queues that one worker takes from.
const QUEUES: usize = 32;
/// Attempts that are looked at before another look at the database.
const LOOK: usize = 8;

/// Returns the faults of who says to have an attempt.
fn uid_fault(uid: &str) -> Option<Fault> {
    let ours = uid.starts_with(OWN) || uid == crate::fleet::workplans::flow::ITSELF;
    let wrong = uid.is_empty() || uid.len() > 128 || !uid.bytes().all(|byte| byte.is_ascii_graphic()) || ours;
    wrong
        .then(|| Fault::new("/processUid", "it is 1 to 128 printable characters without blanks, unique to the process"))
}

fn size_fault(pointer: &str, size: usize) -> Option<Fault> {
    let most = limits::RESULT_BYTES;
    (size > most).then(|| Fault::new(pointer, format!("{size} bytes, the limit is {most}")))
}

fn refuse(faults: Vec<Fault>) -> Result<(), Problem> {
    if faults.is_empty() { Ok(()) } else { Err(Problem::new(Code::Invalid, "the body is not valid").with(faults)) }
}

fn result_faults(results: &[ResultRequest]) -> Vec<Fault> {
    let mut faults: Vec<_> = results
        .iter()
        .enumerate()
        .flat_map(|(index, result)| {
            let failure = result.failure_message.as_ref().map_or(0, String::len);
            size_fault(&format!("/results/{index}/data"), result.data.to_string().len() + failure)
        })
        .collect();
    if results.len() > limits::ANSWERS {
        faults.push(Fault::new("/results", format!("{} results, the limit is {}", results.len(), limits::ANSWERS)));
    }
    faults
}

/// `POST /v1/attempts:claim`: the longest-waiting attempt of these queues, won once.
pub async fn claim(
    State(state): State<AppState>,
    admin: Admin,
    Json(request): Json<ClaimRequest>,
) -> Answer<JsonBody<ClaimAnswer>> {
    let mut faults: Vec<_> = uid_fault(&request.process_uid).into_iter().collect();
    if !(1..=QUEUES).contains(&request.queues.len()) {
        faults.push(Fault::new("/queues", format!("{} queues; name 1 to {QUEUES}", request.queues.len())));
    }
    refuse(faults)?;
    let queues: Vec<&str> = request.queues.iter().map(Name::as_str).collect();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(request.wait.min(limits::WAIT_SECONDS));
    let mut commits = state.commits();
    let actor = admin.0.actor();
    loop {
        commits.mark_unchanged();
        // Whoever did not hear that it won asks again and is told.
        let mut offered = state.store.read().await?.running_attempts(&request.process_uid).await?;
        offered.extend(state.store.read().await?.queued_attempts(&queues, LOOK).await?);
        let mut lost = false;
        for Queued { plan, node, number } in offered {
            let input = Input::Claim { node: node.clone(), number, uid: request.process_uid.clone() };
            match workplans::once(&state, plan, &input, &actor).await {
                Ok(_) => {
                    if let Some(attempt) = claimed(&state, plan, &node, number, &queues).await? {
                        return Ok(JsonBody(ClaimAnswer { attempt: Some(attempt) }));
                    }
                }
                Err(problem) if problem.status < 500 => lost = true,
                Err(problem) => return Err(problem.into()),
            }
        }
        if tokio::time::Instant::now() >= deadline || state.shutdown.is_cancelled() {
            return Ok(JsonBody(ClaimAnswer { attempt: None }));
        }
        if !lost {
            super::changed(&state, &mut commits, deadline).await;
        }
    }
}

/// Returns what a worker is told of an attempt that it has, if it came from one of these queues.
async fn claimed(
    state: &AppState,
    plan: Uuid,
    node: &Name,
    number: u32,
    queues: &[&str],
) -> Result<Option<Claimed>, Problem> {
    let mut tx = state.store.read().await?;
    let (Some(row), Some(found)) = (tx.plan(plan).await?, tx.plan_nodes(plan, std::slice::from_ref(node)).await?.pop())
    else {
        return Ok(None);
    };
    let Some(Executor::External(external)) = &found.spec.run else { return Ok(None) };
    if !queues.contains(&external.queue.as_str()) {
        return Ok(None);
    }
    let limit = found.spec.run.as_ref().map_or(Duration::ZERO, |run| run.limit(found.spec.timeouts.per_attempt));
    Ok(Some(Claimed {
        plan,
        plan_name: row.name,
        node: node.clone(),
        number,
        queue: external.queue.clone(),
        input: external.input.clone(),
        values: row.plan.head.values,
        idempotency_key: format!("{plan}/{node}"),
        heartbeat: found.spec.timeouts.heartbeat,
        per_attempt: Span(limit),
    }))
}

/// `POST /v1/workplans/{id}/nodes/{node}/attempts/{number}/heartbeat`.
pub async fn heartbeat(
    State(state): State<AppState>,
    admin: Admin,
    Names((id, node, number)): Names<(Uuid, Name, u32)>,
    Json(beat): Json<Heartbeat>,
) -> Answer<JsonBody<HeartbeatAnswer>> {
    let size = beat.progress.as_ref().map_or(0, |progress| progress.to_string().len());
    refuse(size_fault("/progress", size).into_iter().collect())?;
    let actor = admin.0.actor();
    let mut tx = state.store.write("workplan").await?;
    let context = workplans::Context { actor: &actor, wall: state.clock.now() };
    let input = Input::Beat { node: node.clone(), number, uid: beat.process_uid };
    workplans::step(&mut tx, id, vec![input], context).await.map_err(Problem::from)?;
    if let Some(progress) = &beat.progress {
        tx.add_progress(id, (&node, number), progress, limits::PROGRESS).await?;
    }
    let found = tx.plan_nodes(id, std::slice::from_ref(&node)).await?.pop();
    tx.commit().await?;
    let cancel = found.and_then(|node| node.attempt).is_some_and(|attempt| attempt.cancelling.is_some());
    Ok(JsonBody(HeartbeatAnswer { cancel }))
}

/// `POST /v1/workplans/{id}/nodes/{node}/attempts/{number}/complete`.
pub async fn complete(
    State(state): State<AppState>,
    admin: Admin,
    Names((id, node, number)): Names<(Uuid, Name, u32)>,
    Large(completion): Large<Completion>,
) -> Answer<()> {
    let Completion { process_uid: uid, verdict, code, message, details, results } = completion;
    let mut faults = result_faults(&results);
    faults.extend(size_fault("/details", details.as_ref().map_or(0, |details| details.to_string().len())));
    faults.extend(size_fault("/message", message.as_ref().map_or(0, String::len)));
    if verdict.is_some() && code.is_some() {
        faults.push(Fault::new("/code", "a job that was done has a verdict, one that was not has a code; not both"));
    }
    let word = |code: &String| (1..=64).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_graphic());
    if code.as_ref().is_some_and(|code| !word(code)) {
        faults.push(Fault::new("/code", "a code is a word of up to 64 letters"));
    }
    if let Some(code) = code.as_ref().filter(|code| is_reserved(code)) {
        faults.push(Fault::new("/code", format!("{code:?} is a word that plans use themselves; take another one")));
    }
    refuse(faults)?;
    let end = match code {
        Some(code) => Err(code),
        None => Ok(verdict.unwrap_or(Verdict::Passed)),
    };
    let finished = Finished { node, number, uid, end, message, details, results };
    workplans::once(&state, id, &Input::Finish(Box::new(finished)), &admin.0.actor()).await?;
    Ok(())
}

/// `POST /v1/workplans/{id}/nodes/{node}/attempts/{number}/results`: answers of a stage while it is at it.
pub async fn results(
    State(state): State<AppState>,
    admin: Admin,
    Names((id, node, number)): Names<(Uuid, Name, u32)>,
    Large(request): Large<ResultsRequest>,
) -> Answer<()> {
    refuse(result_faults(&request.results))?;
    let input = Input::Answer { node, number, uid: request.process_uid, results: request.results };
    let stepped = workplans::once(&state, id, &input, &admin.0.actor()).await?;
    if stepped.late {
        // It is in the history, and changes nothing.
        return Err(Problem::new(Code::ImmutableNode, "a check is final already: the result came too late").into());
    }
    Ok(())
}
