//! Writing: from what a request declares to the clock, the documents, the history and the tasks, in one transaction.

use std::collections::HashSet;

use serde_json::{Value, json};
use titan_api::{
    Code, Digest, Document, Kind, Name, Problem, Revision, Spec,
    changes::{Action, ApplyAnswer, ApplyResult, Operation},
    documents::Declared,
    problems::Fault,
    tasks::{Task, TaskState},
    workspaces,
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
            Ok(())
        }
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
    let mut writer = Writer { tx, author, revision, ordinal: 0, tasks: Vec::new() };
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
    }
    let (results, documents): (Vec<_>, Vec<_>) = done.into_iter().flatten().unzip();
    let changed = results.iter().any(|result| result.action != Action::Unchanged);
    let kept = changed && !dry_run;
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
                let declared = patched(place, &current, patch)?;
                self.put(place, Some(current), &declared).await
            }
            Intent::Delete(_, force) => {
                let current = current.ok_or_else(|| Problem::not_found(place.kind, &place.name))?;
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

    /// Returns the task that waits for the agent of a host that was just made.
    fn enrolment(&self, host: &Stored) -> Task {
        Task {
            id: Uuid::now_v7(),
            kind: "enrol".to_owned(),
            state: TaskState::Pending,
            subject: format!("Host {}", host.name),
            payload: json!({ "host": host.name, "uid": host.uid, "generation": host.generation }),
            result: None,
            created_at: self.revision,
            updated_at: self.revision,
        }
    }

    async fn delete(&mut self, place: &Place, current: Stored, force: bool) -> Result<Document, Problem> {
        self.check_unused(place).await?;
        let before = current.document();
        self.record(Operation::Delete, Some(&before), None).await?;
        let uid = current.uid;
        match place.kind {
            // They wait until every host has confirmed the removal.
            Kind::Deployment | Kind::Host => {
                self.tx.put_document(&Stored { deleted: Some(self.revision), ..current }).await?;
                if place.kind == Kind::Host {
                    let subject = format!("Host {}", place.name);
                    let result = json!({ "reason": "the host was deleted" });
                    self.tx.end_tasks("enrol", &subject, TaskState::Cancelled, &result, self.revision).await?;
                    self.tx.remove_host_tokens(uid, Some(crate::store::TokenKind::Join)).await?;
                    if force || self.tx.observed_host(uid).await?.is_none_or(|host| host.enrolled_at.is_none()) {
                        self.tx.purge_assignments_of_host(uid).await?;
                        self.tx.remove_host_tokens(uid, None).await?;
                        self.tx.purge_observed_host(uid).await?;
                        self.tx.purge_render_problems(uid).await?;
                        self.tx.purge_document(uid).await?;
                    }
                }
            }
            _ => self.tx.purge_document(uid).await?,
        }
        Ok(before)
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

    /// Refuses a document that names something that is not there.
    async fn check_references(&mut self, stored: &Stored) -> Result<(), Problem> {
        if let Some(workspace) = &stored.workspace
            && self.tx.document(Kind::Workspace, "", workspace).await?.is_none()
        {
            return Err(missing("/metadata/workspace", format!("there is no workspace {workspace}"))
                .hint(format!("make it: titan create workspace {workspace}")));
        }
        match &stored.spec {
            Spec::Deployment(_) => self.check_deployment(stored, "").await,
            Spec::Workload(_) => {
                // Its default template may be what its deployments live by.
                let workspace = stored.workspace.clone();
                for deployment in
                    self.tx.documents_of(Kind::Deployment, workspace.as_deref().unwrap_or_default()).await?
                {
                    if matches!(&deployment.spec, Spec::Deployment(spec) if spec.workload == stored.name) {
                        let by = format!("deployment {}: ", deployment.name);
                        self.check_deployment(&deployment, &by).await?;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn check_deployment(&mut self, stored: &Stored, by: &str) -> Result<(), Problem> {
        let Spec::Deployment(spec) = &stored.spec else { return Ok(()) };
        let workspace = stored.workspace.as_deref().unwrap_or_default();
        let Some(workload) = self.tx.document(Kind::Workload, workspace, &spec.workload).await? else {
            return Err(missing(
                "/spec/workload",
                format!("{by}there is no workload {} in {workspace}", spec.workload),
            ));
        };
        let default = match &workload.spec {
            Spec::Workload(workload) => workload.template.clone(),
            _ => None,
        };
        let Some(template) = spec.template.clone().or(default) else {
            let detail = format!("{by}neither the deployment nor workload {} names a template", spec.workload);
            return Err(missing("/spec/template", detail));
        };
        if !self.template_exists(workspace, &template).await? {
            let or_default =
                if workspace == workspaces::DEFAULT { String::new() } else { format!(" or {}", workspaces::DEFAULT) };
            let detail = format!("{by}there is no template {template} in {workspace}{or_default}");
            return Err(missing("/spec/template", detail));
        }
        if self.tx.document(Kind::Target, workspace, &spec.target).await?.is_none() {
            return Err(missing("/spec/target", format!("{by}there is no target {} in {workspace}", spec.target)));
        }
        for (index, name) in spec.depends_on.iter().enumerate() {
            let pointer = format!("/spec/dependsOn/{index}");
            if *name == stored.name {
                return Err(missing(&pointer, "a deployment cannot depend on itself".to_owned()));
            }
            if self.tx.document(Kind::Deployment, workspace, name).await?.is_none() {
                return Err(missing(&pointer, format!("{by}there is no deployment {name} in {workspace}")));
            }
        }
        Ok(())
    }

    async fn template_exists(&mut self, workspace: &str, name: &str) -> Result<bool, Problem> {
        Ok(self.tx.document(Kind::Template, workspace, name).await?.is_some()
            || self.tx.document(Kind::Template, workspaces::DEFAULT, name).await?.is_some())
    }

    /// Refuses to delete what something else lives by: nothing is removed from a host because it was missing.
    async fn check_unused(&mut self, place: &Place) -> Result<(), Problem> {
        let users = match place.kind {
            Kind::Host => Vec::new(),
            Kind::Deployment => self.dependants(place).await?,
            Kind::Workspace => self.contents(&place.name).await?,
            Kind::Workload | Kind::Target | Kind::Template => self.users(place).await?,
        };
        if place.kind == Kind::Workspace && place.name == *workspaces::DEFAULT {
            return Err(Problem::new(Code::InUse, "the workspace default always exists"));
        }
        match users.as_slice() {
            [] => Ok(()),
            users => {
                let named: Vec<_> = users.iter().take(5).map(ToString::to_string).collect();
                let more = if users.len() > 5 { format!(" and {} more", users.len() - 5) } else { String::new() };
                Err(Problem::new(Code::InUse, format!("{place} is used by {}{more}", named.join(", ")))
                    .hint("delete or change those first"))
            }
        }
    }

    async fn contents(&mut self, workspace: &Name) -> Result<Vec<Place>, Problem> {
        let mut contents = Vec::new();
        for kind in Kind::ALL.into_iter().filter(|kind| kind.in_workspace()) {
            contents.extend(self.tx.documents_of(kind, workspace).await?.into_iter().map(|stored| Place {
                kind,
                workspace: stored.workspace,
                name: stored.name,
            }));
        }
        Ok(contents)
    }

    /// Returns the deployments that name the one at `place` in their `dependsOn`.
    async fn dependants(&mut self, place: &Place) -> Result<Vec<Place>, Problem> {
        let all = self.tx.documents_of(Kind::Deployment, place.workspace()).await?;
        let dependants = all
            .into_iter()
            .filter(|stored| matches!(&stored.spec, Spec::Deployment(spec) if spec.depends_on.contains(&place.name)));
        let place = |stored: Stored| Place { kind: Kind::Deployment, workspace: stored.workspace, name: stored.name };
        Ok(dependants.map(place).collect())
    }

    /// Returns the deployments that could not be resolved without the document at `place`.
    async fn users(&mut self, place: &Place) -> Result<Vec<Place>, Problem> {
        let everywhere = place.kind == Kind::Template && place.workspace() == workspaces::DEFAULT;
        let scope = if everywhere { "" } else { place.workspace() };
        let mut users = Vec::new();
        for deployment in self.tx.documents_of(Kind::Deployment, scope).await? {
            let Spec::Deployment(spec) = &deployment.spec else { continue };
            let workspace = deployment.workspace.clone().unwrap_or_else(|| place.name.clone());
            let uses = match place.kind {
                Kind::Workload => spec.workload == place.name,
                Kind::Target => spec.target == place.name,
                _ => {
                    let default = match self.tx.document(Kind::Workload, &workspace, &spec.workload).await? {
                        Some(Stored { spec: Spec::Workload(workload), .. }) => workload.template,
                        _ => None,
                    };
                    let named = spec.template.clone().or(default).is_some_and(|name| name == place.name);
                    // One of the name elsewhere stands in: in the deployment's own workspace, or in `default`.
                    let other = if everywhere { workspace.as_str() } else { workspaces::DEFAULT };
                    let stands_in = other != place.workspace()
                        && self.tx.document(Kind::Template, other, &place.name).await?.is_some();
                    named && !stands_in
                }
            };
            if uses {
                users.push(Place { kind: Kind::Deployment, workspace: deployment.workspace, name: deployment.name });
            }
        }
        Ok(users)
    }
}

fn missing(pointer: &str, detail: String) -> Problem {
    Problem::new(Code::MissingReference, detail.clone()).at(pointer, detail)
}

/// Returns a document after a merge patch (RFC 7386) of its metadata and spec.
fn patched(place: &Place, current: &Stored, patch: &Value) -> Result<Declared, Problem> {
    let mut value = serde_json::to_value(current.document())
        .map_err(|error| Problem::new(Code::Internal, format!("{place} cannot be written as JSON: {error}")))?;
    if !patch.is_object() {
        return Err(Problem::new(Code::Invalid, "a merge patch is a JSON object").at("", "not an object"));
    }
    merge_patch(&mut value, patch);
    let declared = Declared::parse(value, place.workspace.as_ref())?;
    if Place::of(&declared) != *place {
        return Err(Problem::new(Code::Invalid, "a patch cannot change kind, workspace or name")
            .at("/metadata/name", format!("this is {place}")));
    }
    check(&declared)?;
    Ok(declared)
}

fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    if let Value::Object(target) = target {
        for (key, value) in patch {
            if value.is_null() {
                target.remove(key);
            } else {
                merge_patch(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_patch_does_as_rfc_7386_shows() {
        // The cases of the RFC's appendix.
        for (target, patch, result) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ] {
            let mut merged = target.clone();
            merge_patch(&mut merged, &patch);
            assert_eq!(merged, result, "{target} + {patch}");
        }
    }
}
