//! What the host's owner lets the control plane touch: the part `appliers` of `agent.yaml`.
//!
//! An applier that is not named is not allowed. Everything beyond what is said here is refused and reported, whatever the
//! control plane says.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use titan_api::patterns::matches;

use super::Switch;

/// What may be applied.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Appliers {
    /// Files: what every other applier needs as well, since their bundles are files too.
    pub files: Option<Files>,
    /// Units of systemd.
    pub systemd: Option<Systemd>,
    /// Pods of podman.
    pub podman: Option<Podman>,
    /// Projects of Compose.
    pub compose: Option<Compose>,
    /// Objects of a Kubernetes cluster.
    pub kubernetes: Option<Kubernetes>,
    /// Commands that bundles bring with them.
    pub exec: Option<Exec>,
}

/// Files.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Files {
    /// The directory that all files are below.
    pub root: Option<PathBuf>,
    /// Directories below the root in which files may have a `destination`; absent: all of it.
    pub paths: Option<Vec<String>>,
    /// Whether files that the agent does not own are overwritten.
    pub overwrite: bool,
    /// How a new set of files takes the place of the old one.
    pub switch: Switch,
}

/// Units of systemd.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Systemd {
    /// Names of the units that may be made or changed, `*` for any part; a drop-in counts as its unit.
    pub units: Vec<String>,
    /// The directory that links to units are put into.
    pub directory: PathBuf,
    /// The bus on which systemd is; absent: the system's.
    pub bus: Option<String>,
    /// Whether a unit that is there already and nobody owns is taken over.
    pub adopt: bool,
}

impl Default for Systemd {
    fn default() -> Self {
        Self { units: vec!["*".to_owned()], directory: "/etc/systemd/system".into(), bus: None, adopt: false }
    }
}

/// Pods of podman from `kube` YAML, and units from quadlets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Podman {
    /// The socket of podman's service.
    pub socket: PathBuf,
    /// Names of the pods, containers, volumes and networks that may be made, `*` for any part; of a quadlet its file's as
    /// well, without the ending.
    pub names: Vec<String>,
    /// The directory that quadlets are written to.
    pub quadlets: PathBuf,
    /// The bus on which systemd is; absent: the system's.
    pub bus: Option<String>,
    /// Where images may come from: `registry` or `registry/path`, `*` for any part.
    pub registries: Vec<String>,
    /// Directories of the host that may be mounted; a deployment's own always may.
    pub mounts: Vec<PathBuf>,
    /// Whether containers may be privileged, or share namespaces or devices of the host, and quadlets say what else systemd
    /// is to run.
    pub privileged: bool,
    /// Whether a pod, container or quadlet that is there already and nobody owns is taken over.
    pub adopt: bool,
}

impl Default for Podman {
    fn default() -> Self {
        Self {
            socket: "/run/podman/podman.sock".into(),
            names: vec!["*".to_owned()],
            quadlets: "/etc/containers/systemd".into(),
            bus: None,
            registries: vec!["*".to_owned()],
            mounts: Vec::new(),
            privileged: false,
            adopt: false,
        }
    }
}

/// Projects of Compose.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Compose {
    /// The program and the arguments that come before those of Compose itself.
    pub command: Vec<String>,
    /// Names of the projects that may be made, `*` for any part.
    pub projects: Vec<String>,
    /// Where images may come from: `registry` or `registry/path`, `*` for any part.
    pub registries: Vec<String>,
    /// Directories of the host that may be mounted; a deployment's own always may.
    pub mounts: Vec<PathBuf>,
    /// Whether containers may be privileged, or share namespaces or devices of the host.
    pub privileged: bool,
    /// Whether the engine's events are followed, which keeps a program of the engine's running; without, containers are
    /// looked at with every beat.
    pub events: bool,
}

impl Default for Compose {
    fn default() -> Self {
        let any = || vec!["*".to_owned()];
        Self {
            command: vec!["podman-compose".to_owned()],
            projects: any(),
            registries: any(),
            mounts: Vec::new(),
            privileged: false,
            events: true,
        }
    }
}

/// Objects of a Kubernetes cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Kubernetes {
    /// How the cluster is reached; absent: as a pod of it.
    pub kubeconfig: Option<PathBuf>,
    /// Namespaces in which objects may be made, `*` for any part.
    pub namespaces: Vec<String>,
    /// Whether objects that are in no namespace may be made: namespaces themselves, cluster roles, definitions.
    pub cluster_scoped: bool,
    /// Kinds that may be made, as `apps/Deployment` or `Service`, `*` for any part.
    pub kinds: Vec<String>,
    /// Whether fields that another manager set are taken over.
    pub force: bool,
    /// Whether an object that is there already and nobody owns is taken over.
    pub adopt: bool,
}

impl Default for Kubernetes {
    fn default() -> Self {
        let any = || vec!["*".to_owned()];
        Self { kubeconfig: None, namespaces: any(), cluster_scoped: false, kinds: any(), force: false, adopt: false }
    }
}

/// Commands that bundles bring with them. None runs unless it is allowed here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Exec {
    /// Which hooks may run.
    pub hooks: Vec<HookKind>,
    /// Whether `exec` probes may run.
    pub probes: bool,
    /// Programs that may be run, absolute, `*` for any part; a deployment's own files always may.
    pub commands: Vec<String>,
}

impl Default for Exec {
    fn default() -> Self {
        Self {
            hooks: vec![HookKind::PreApply, HookKind::PostApply, HookKind::OnRemove],
            probes: true,
            commands: vec!["*".to_owned()],
        }
    }
}

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HookKind {
    /// Before the switch.
    PreApply,
    /// After the switch.
    PostApply,
    /// Before a removal.
    OnRemove,
}

impl HookKind {
    /// Returns the hook as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PreApply => "preApply",
            Self::PostApply => "postApply",
            Self::OnRemove => "onRemove",
        }
    }
}

/// Whether `name` is one that any of `patterns` means, in which `*` is any text.
#[must_use]
pub fn allows(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, name))
}

/// Whether the path `inner` is one of `roots` or below one. Paths with `..` never are.
#[must_use]
pub fn within(roots: &[PathBuf], inner: &Path) -> bool {
    let plain = inner.components().all(|part| !matches!(part, std::path::Component::ParentDir));
    plain && roots.iter().any(|root| inner.starts_with(root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_allowed_if_any_pattern_means_it() {
        let patterns = ["app-*.service".to_owned(), "web".to_owned()];
        assert!(allows(&patterns, "app-web.service") && allows(&patterns, "web"));
        assert!(!allows(&patterns, "sshd.service") && !allows(&[], "x"));
    }

    #[test]
    fn paths_that_climb_are_within_nothing() {
        let roots = ["/srv".into()];
        assert!(within(&roots, Path::new("/srv/x")) && within(&roots, Path::new("/srv")));
        assert!(!within(&roots, Path::new("/srv/../etc")) && !within(&roots, Path::new("/srvx")));
    }
}
