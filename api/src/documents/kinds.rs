//! Kinds: what sorts of documents there are, and where each is asked for.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What kind of thing a document declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Kind {
    /// A scope of work.
    Workspace,
    /// Something that accepts workloads.
    Host,
    /// A directory of files to render.
    Template,
    /// A unit to deploy.
    Workload,
    /// Rules that match hosts.
    Target,
    /// A workload on hosts.
    Deployment,
    /// A graph of stages and checks.
    WorkPlan,
}

impl Kind {
    /// Every kind, in the order in which they are written: what is referred to comes first.
    pub const ALL: [Self; 7] =
        [Self::Workspace, Self::Host, Self::Template, Self::Workload, Self::Target, Self::Deployment, Self::WorkPlan];

    /// Returns the kind as it stands in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Workspace => "Workspace",
            Self::Host => "Host",
            Self::Template => "Template",
            Self::Workload => "Workload",
            Self::Target => "Target",
            Self::Deployment => "Deployment",
            Self::WorkPlan => "WorkPlan",
        }
    }

    /// Returns the kind's part of a URL.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Workspace => "workspaces",
            Self::Host => "hosts",
            Self::Template => "templates",
            Self::Workload => "workloads",
            Self::Target => "targets",
            Self::Deployment => "deployments",
            Self::WorkPlan => "workplans",
        }
    }

    /// Whether documents of the kind live in a workspace.
    #[must_use]
    pub const fn in_workspace(self) -> bool {
        !matches!(self, Self::Workspace | Self::Host)
    }

    /// Returns the URL path of all documents of the kind, or of `name`.
    #[must_use]
    pub fn path(self, workspace: Option<&str>, name: Option<&str>) -> String {
        let plural = self.plural();
        let mut path = match workspace {
            // The plans themselves are at `/v1/workplans`; these are their documents.
            None if self == Self::WorkPlan => format!("/v1/workspaces/-/{plural}"),
            Some(workspace) if self.in_workspace() => {
                format!("/v1/workspaces/{workspace}/{plural}")
            }
            _ => format!("/v1/{plural}"),
        };
        if let Some(name) = name {
            path.push('/');
            path.push_str(name);
        }
        path
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a text is not a [`Kind`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a kind; kinds are workspace, host, template, workload, target, deployment and workplan")]
pub struct KindError(String);

impl FromStr for Kind {
    type Err = KindError;

    /// Reads `Host`, `host` or `hosts`.
    fn from_str(text: &str) -> Result<Self, KindError> {
        let lower = text.to_lowercase();
        Self::ALL
            .into_iter()
            .find(|kind| kind.plural() == lower || kind.as_str().to_lowercase() == lower)
            .ok_or_else(|| KindError(text.to_owned()))
    }
}
