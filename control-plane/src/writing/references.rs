//! References between documents: what is named has to be there, and what something lives by cannot be deleted.

use titan_api::{Code, Kind, Name, Problem, Spec, workspaces};

use super::{Place, Writer};
use crate::store::Stored;

impl Writer<'_> {
    /// Refuses a document that names something that is not there.
    pub(super) async fn check_references(&mut self, stored: &Stored) -> Result<(), Problem> {
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
        for (index, name) in spec.depends_on.iter().map(|dependency| &dependency.name).enumerate() {
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
    pub(super) async fn check_unused(&mut self, place: &Place) -> Result<(), Problem> {
        let users = match place.kind {
            Kind::Host | Kind::WorkPlan => Vec::new(),
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
        let depends = |stored: &Stored| match &stored.spec {
            Spec::Deployment(spec) => spec.depends_on.iter().any(|dependency| dependency.name == place.name),
            _ => false,
        };
        let dependants = all.into_iter().filter(depends);
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
