//! Writing: from what a request declares to the clock, the documents, the history and the tasks, in one transaction.

mod deletions;
mod patches;
pub(crate) mod plans;
mod references;
mod strategies;

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};
use titan_api::{
    Code, Digest, Document, Kind, Name, Problem, Revision, Spec,
    changes::{Action, ApplyAnswer, ApplyResult, Operation},
    documents::Declared,
    problems::Fault,
    tasks::{ENROL, ENROL_ALL, Task},
    workplans::WorkPlanSpec,
};
use uuid::Uuid;

use crate::{
    fleet::matchers::Matcher,
    render,
    state::AppState,
    store::{Stored, Tx, Written},
};

/// Who writes, why, and under which conditions.
#[derive(Debug, Clone)]
pub struct Author {
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: Option<String>,
    /// In which request.
    pub request_id: String,
    /// Only if the document still is at this revision.
    pub if_match: Option<Revision>,
    /// Makes the write happen once: the key, and the digest of the request.
    pub once: Option<(String, Digest)>,
}

/// What is to be done with one document.
#[derive(Debug, Clone)]
pub enum Intent {
    /// It is to be as declared, whether it is there or not.
    Put(Box<Declared>),
    /// It is to be made.
    Create(Box<Declared>),
    /// It is to be changed by a merge patch.
    Patch(Place, Value),
    /// It is to be deleted; `force`: a host at once, without waiting for its agent.
    Delete(Place, bool),
}

/// Where a document is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The kind.
    pub kind: Kind,
    /// The workspace, for kinds that live in one.
    pub workspace: Option<Name>,
    /// The name.
    pub name: Name,
}

impl Place {
    fn of(declared: &Declared) -> Self {
        let metadata = &declared.metadata;
        Self { kind: declared.kind, workspace: metadata.workspace.clone(), name: metadata.name.clone() }
    }

    fn workspace(&self) -> &str {
        self.workspace.as_deref().unwrap_or_default()
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.workspace {
            Some(workspace) => write!(f, "{} {workspace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// What a write did, and the documents after it.
#[derive(Debug)]
pub struct Outcome {
    /// What was done.
    pub answer: ApplyAnswer,
    /// The documents after it, in the request's order; a deleted one as it was.
    pub documents: Vec<Document>,
}

/// Checks what can be known of a document without the store: templates, schemas and expressions.
pub fn check(declared: &Declared) -> Result<(), Problem> {
    let describe =
        |fault: Fault| Problem::new(Code::Invalid, format!("{} is not valid", Place::of(declared))).with([fault]);
    match &declared.spec {
        Spec::Template(spec) => render::Template::parse(spec).map(drop),
        Spec::Target(spec) => Matcher::new(spec.clone()).map(drop).map_err(|fault| describe(fault.under("/spec"))),
        Spec::Deployment(spec) => {
            for (index, entry) in spec.overrides.iter().enumerate() {
                Matcher::new(entry.selector.clone())
                    .map_err(|fault| describe(fault.under(&format!("/spec/overrides/{index}/match"))))?;
            }
            spec.strategy.as_ref().map_or(Ok(()), |strategy| strategies::check(strategy, "/spec/strategy"))
        }
        Spec::WorkPlan(spec) => plans::check(spec, "/spec"),
        Spec::Workspace(_) | Spec::Host(_) | Spec::Workload(_) => Ok(()),
    }
}

/// Does everything that is intended, or nothing. `prefix` stands before the pointers of the intent at fault, with its
/// index in place of `{}`; `enrol`: a task waits for each host that is made.
pub async fn write(
    state: &AppState,
    author: &Author,
    intents: Vec<Intent>,
    prefix: &str,
    dry_run: bool,
) -> Result<Outcome, Problem> {
    let mut tx = state.store.write("request").await?;
    // The clock first: whoever holds it is alone, so the same key cannot be used twice at once.
    let revision = tx.tick(state.clock.now()).await?;
    if let Some((key, request)) = &author.once
        && let Some((first, answer)) = tx.keyed_answer(&author.actor, key).await?
    {
        return replayed(key, request, &first, &answer);
    }
    let mut writer = Writer { tx, author, revision, ordinal: 0, tasks: Vec::new(), declared_before: HashMap::new() };
    let mut order: Vec<usize> = (0..intents.len()).collect();
    order.sort_by_key(|index| rank(&intents[*index]));
    let mut done: Vec<Option<(ApplyResult, Document)>> = vec![None; intents.len()];
    let mut places = HashSet::new();
    let mut written = Vec::new();
    for index in order {
        let under = |problem: Problem| problem.under(&prefix.replace("{}", &index.to_string()));
        let place = match &intents[index] {
            Intent::Put(declared) | Intent::Create(declared) => Place::of(declared),
            Intent::Patch(place, _) | Intent::Delete(place, _) => place.clone(),
        };
        if !places.insert(place.clone()) {
            let problem = Problem::new(Code::Invalid, format!("{place} is in the request twice"));
            return Err(under(problem.at("/metadata/name", "named twice in one request")));
        }
        let (action, document, stored) = writer.one(&place, &intents[index]).await.map_err(under)?;
        let result = ApplyResult { kind: place.kind, workspace: place.workspace.clone(), name: place.name, action };
        if let Some(stored) = stored.filter(|_| action != Action::Unchanged) {
            written.push((index, stored));
        }
        done[index] = Some((result, document));
    }
    for (index, stored) in &written {
        let under = |problem: Problem| problem.under(&prefix.replace("{}", &index.to_string()));
        writer.check_references(stored).await.map_err(under)?;
        writer.make_plan(stored, state.clock.now()).await.map_err(under)?;
    }
    let (results, documents): (Vec<_>, Vec<_>) = done.into_iter().flatten().unzip();
    let changed = results.iter().any(|result| result.action != Action::Unchanged);
    let kept = changed && !dry_run;
    if intents.iter().all(|intent| matches!(intent, Intent::Create(_))) {
        writer.gather(&author.request_id);
    }
    let tasks = writer.tasks.iter().map(|task| task.id).collect();
    let answer = ApplyAnswer { revision: kept.then_some(revision), results, tasks };
    if kept {
        let Writer { mut tx, tasks, .. } = writer;
        for task in &tasks {
            tx.add_task(task).await?;
        }
        if let Some((key, request)) = &author.once {
            let text = json!({ "answer": answer, "documents": documents }).to_string();
            tx.keep_answer(&author.actor, key, request, &text, state.clock.now()).await?;
        }
        tx.notify().await?;
        tx.commit().await?;
        state.committed();
    }
    Ok(Outcome { answer, documents })
}

/// Returns what was answered when the key was used first.
fn replayed(key: &str, request: &Digest, first: &Digest, answer: &str) -> Result<Outcome, Problem> {
    #[derive(serde::Deserialize)]
    struct Kept {
        answer: ApplyAnswer,
        documents: Vec<Document>,
    }
    if request != first {
        return Err(Problem::new(Code::KeyReused, format!("the idempotency key {key:?} was used for another request")));
    }
    let kept: Kept = serde_json::from_str(answer)
        .map_err(|error| Problem::new(Code::Internal, format!("a kept answer cannot be read: {error}")))?;
    Ok(Outcome { answer: kept.answer, documents: kept.documents })
}

/// What is referred to is written before what refers to it.
fn rank(intent: &Intent) -> usize {
    let kind = match intent {
        Intent::Put(declared) | Intent::Create(declared) => declared.kind,
        Intent::Patch(place, _) | Intent::Delete(place, _) => place.kind,
    };
    Kind::ALL.iter().position(|known| *known == kind).unwrap_or_default()
}

struct Writer<'a> {
    tx: Tx,
    author: &'a Author,
    revision: Revision,
    ordinal: usize,
    tasks: Vec<Task>,
    /// What documents of plans declared before.
    declared_before: HashMap<Uuid, WorkPlanSpec>,
}

impl Writer<'_> {
    async fn one(&mut self, place: &Place, intent: &Intent) -> Result<(Action, Document, Option<Stored>), Problem> {
        let current = self.tx.document(place.kind, place.workspace(), &place.name).await?;
        if let Some(wanted) = self.author.if_match
            && current.as_ref().map(|current| current.revision) != Some(wanted)
        {
            let found =
                current.map_or_else(|| "it is gone".to_owned(), |current| format!("it is at {}", current.revision));
            return Err(Problem::new(Code::Stale, format!("{place} is not at {wanted} any more: {found}"))
                .hint("read it again and repeat the change"));
        }
        match intent {
            Intent::Create(_) if current.is_some() => {
                Err(Problem::new(Code::AlreadyExists, format!("{place} exists already"))
                    .at("/metadata/name", "this name is taken")
                    .hint("use 'titan apply' to change it"))
            }
            Intent::Create(declared) | Intent::Put(declared) => self.put(place, current, declared).await,
            Intent::Patch(_, patch) => {
                let current = current.ok_or_else(|| Problem::not_found(place.kind, &place.name))?;
                let declared = patches::patched(place, &current, patch)?;
                self.put(place, Some(current), &declared).await
            }
            Intent::Delete(_, force) => {
                let document = self.delete(place, current, *force).await?;
                Ok((Action::Deleted, document, None))
            }
        }
    }

    async fn put(
        &mut self,
        place: &Place,
        current: Option<Stored>,
        declared: &Declared,
    ) -> Result<(Action, Document, Option<Stored>), Problem> {
        if let Some(current) = &current
            && current.says(declared)
        {
            return Ok((Action::Unchanged, current.document(), None));
        }
        let stored = Stored {
            uid: current.as_ref().map_or_else(Uuid::now_v7, |current| current.uid),
            kind: place.kind,
            workspace: place.workspace.clone(),
            name: place.name.clone(),
            generation: current.as_ref().map_or(1, |current| current.generation + 1),
            revision: self.revision,
            created: current.as_ref().map_or(self.revision, |current| current.created),
            deleted: None,
            labels: declared.metadata.labels.clone(),
            annotations: declared.metadata.annotations.clone(),
            spec: declared.spec.clone(),
        };
        if let Some(Stored { uid, spec: Spec::WorkPlan(spec), .. }) = &current {
            self.declared_before.insert(*uid, WorkPlanSpec::clone(spec));
        }
        let before = current.map(|current| current.document());
        let after = stored.document();
        let (operation, action) = match before {
            Some(_) => (Operation::Update, Action::Updated),
            None => (Operation::Create, Action::Created),
        };
        self.tx.put_document(&stored).await?;
        self.record(operation, before.as_ref(), Some(&after)).await?;
        if place.kind == Kind::Host && action == Action::Created {
            self.tasks.push(self.enrolment(&stored));
        }
        Ok((action, after, Some(stored)))
    }

    /// Gives hosts that are made at once a task that theirs are parts of: how far all of them are is one question then.
    fn gather(&mut self, request: &str) {
        let count = self.tasks.iter().filter(|task| task.kind == ENROL).count();
        if count < 2 {
            return;
        }
        let payload = json!({ "hosts": count, "request": request });
        let parent = Task::new(Uuid::now_v7(), ENROL_ALL, format!("{count} hosts"), payload, self.revision);
        for task in self.tasks.iter_mut().filter(|task| task.kind == ENROL) {
            task.parent = Some(parent.id);
        }
        self.tasks.insert(0, parent);
    }

    /// Returns the task that waits for the agent of a host that was just made.
    fn enrolment(&self, host: &Stored) -> Task {
        let payload = json!({ "host": host.name, "uid": host.uid, "generation": host.generation });
        Task::new(Uuid::now_v7(), ENROL, format!("Host {}", host.name), payload, self.revision)
    }

    async fn record(
        &mut self,
        operation: Operation,
        before: Option<&Document>,
        after: Option<&Document>,
    ) -> Result<(), Problem> {
        let Some(document) = after.or(before) else { return Ok(()) };
        let written = Written {
            operation,
            before,
            after,
            actor: &self.author.actor,
            reason: self.author.reason.as_deref(),
            request_id: &self.author.request_id,
        };
        self.tx.add_change(self.revision, self.ordinal, document, &written).await?;
        self.ordinal += 1;
        Ok(())
    }
}
