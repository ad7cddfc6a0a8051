//! Health: how a host tells whether what it applied works.
//!
//! After a switch a deployment is on trial. It is healthy once what the applier itself knows (a unit is active, a container
//! is healthy, an object is ready) and every probe have held for `minReadySeconds`. If that does not come about before the
//! `deadline`, the host returns to the bundle before. Later, `failureThreshold` failures in a row make it degraded.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::spans::Span;

/// What has to hold for a deployment to be healthy. In `template.yaml` every text may hold expressions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Health {
    /// How long after the switch the first probe comes.
    pub initial_delay: Span,
    /// How long after the end of a probe the next one comes.
    pub interval: Span,
    /// How long a probe may take.
    pub timeout: Span,
    /// After how many failures in a row what was healthy is degraded.
    pub failure_threshold: u32,
    /// For how many seconds everything has to hold without a break.
    pub min_ready_seconds: u32,
    /// How long after the switch it has to be healthy.
    pub deadline: Span,
    /// What is asked beside the applier's own knowledge.
    pub probes: Vec<Probe>,
}

/// One question that tells whether a deployment works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Probe {
    /// A URL answers.
    Http(HttpProbe),
    /// A connection can be made.
    Tcp(TcpProbe),
    /// A command ends with 0; the host's owner has to allow it.
    Exec(ExecProbe),
    /// A file is there.
    File(FileProbe),
    /// The control plane answered a poll since the switch: what a change of the network has to hold on to.
    ControlPlane {},
}

/// A URL answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HttpProbe {
    /// The URL, `http` or `https`. Redirects are not followed.
    pub url: String,
    /// The status that it has to have; absent: 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Text that the first 64 KiB of the body have to hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
}

/// A connection can be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TcpProbe {
    /// `host:port`.
    pub address: String,
}

/// A command ends with 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExecProbe {
    /// The program, an absolute path or one below the deployment's directory, and its arguments. No shell.
    pub command: Vec<String>,
}

/// A file is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileProbe {
    /// An absolute path, or one below the deployment's directory.
    pub path: String,
    /// Text that its first 64 KiB have to hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// How long ago it may have been changed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Span>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            initial_delay: Span(Duration::ZERO),
            interval: Span(Duration::from_secs(10)),
            timeout: Span(Duration::from_secs(5)),
            failure_threshold: 3,
            min_ready_seconds: 0,
            deadline: Span(Duration::from_mins(5)),
            probes: Vec::new(),
        }
    }
}

impl Health {
    /// Whether nothing was declared.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
