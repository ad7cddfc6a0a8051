//! Pipelines: what they report of a workload before it is deployed, commits of its source and builds of them.
//!
//! It is observed state: it moves no host. What a release runs is found among it by version, commit or artifact.

use serde::{Deserialize, Serialize};

use crate::{Name, Revision, limits, problems::Fault};

/// The body of `POST .../deployments/{d}/events` and `POST .../workloads/{w}/events`: one thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum PipelineEvent {
    /// A commit of the source was seen.
    Source(SourceReport),
    /// A build began or ended.
    Build(BuildReport),
}

/// A commit of a workload's source. Reported again it is brought up to date, and keeps the time when it was first seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SourceReport {
    /// The commit: 7 to 64 hexadecimal digits in lower case, best all of them.
    pub commit: String,
    /// The branch or tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// What the commit says; its first line is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Where people look at it: http or https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// A build of a workload. What was said of it before and is not said again stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BuildReport {
    /// The pipeline's own name of the build; a build that is made again has another one.
    pub id: String,
    /// The commit that is built: 7 to 64 hexadecimal digits in lower case.
    pub commit: String,
    /// How far it is.
    pub state: BuildState,
    /// The version that it makes, as it will stand in the workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What it made, with its digest: `ghcr.io/acme/web@sha256:...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<String>,
    /// What people should know of it, such as why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Where people look at it: http or https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// How far a build is; the last three are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum BuildState {
    /// It began.
    Running,
    /// It made what it was to make.
    Succeeded,
    /// It did not.
    Failed,
    /// It was stopped.
    Cancelled,
}

impl BuildState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// Returns the state as it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing follows.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Running)
    }
}

/// The answer to a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PipelineAnswer {
    /// The workload that it is about.
    pub workload: Name,
    /// Whether it said anything new; the same report may come as often as it likes.
    pub recorded: bool,
}

/// A commit as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Source {
    /// What was said of it.
    #[serde(flatten)]
    pub report: SourceReport,
    /// Who said it.
    pub actor: String,
    /// When it was first seen, by the control plane's clock.
    pub seen_at: Revision,
}

/// A build as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Build {
    /// What was said of it, taken together.
    #[serde(flatten)]
    pub report: BuildReport,
    /// Who said it last.
    pub actor: String,
    /// When it was first heard of, by the control plane's clock.
    pub began_at: Revision,
    /// When it was heard that it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Revision>,
}

/// The answer to `GET .../workloads/{w}/events`: what is kept, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PipelineLog {
    /// Commits.
    pub sources: Vec<Source>,
    /// Builds.
    pub builds: Vec<Build>,
}

impl PipelineEvent {
    /// Returns what is wrong with it.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Faults(Vec::new());
        match self {
            Self::Source(source) => {
                faults.commit("/source/commit", &source.commit);
                faults.text("/source/branch", source.branch.as_deref());
                faults.text("/source/message", source.message.as_deref());
                faults.text("/source/author", source.author.as_deref());
                faults.url("/source/url", source.url.as_deref());
            }
            Self::Build(build) => {
                let plain = build.id.bytes().all(|byte| byte.is_ascii_graphic());
                if build.id.is_empty() || build.id.len() > limits::BUILD_ID_BYTES || !plain {
                    let detail = format!("it is 1 to {} visible ASCII characters", limits::BUILD_ID_BYTES);
                    faults.0.push(Fault::new("/build/id", detail));
                }
                faults.commit("/build/commit", &build.commit);
                faults.text("/build/version", build.version.as_deref());
                faults.text("/build/artifact", build.artifact.as_deref());
                faults.text("/build/message", build.message.as_deref());
                faults.url("/build/url", build.url.as_deref());
            }
        }
        faults.0
    }
}

struct Faults(Vec<Fault>);

impl Faults {
    fn commit(&mut self, pointer: &str, commit: &str) {
        let hex = commit.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !(7..=64).contains(&commit.len()) || !hex {
            self.0.push(Fault::new(pointer, "a commit is 7 to 64 hexadecimal digits in lower case"));
        }
    }

    fn text(&mut self, pointer: &str, text: Option<&str>) {
        let most = limits::PIPELINE_TEXT_BYTES;
        match text.map(str::len) {
            Some(0) => self.0.push(Fault::new(pointer, "it is empty; leave it out")),
            Some(bytes) if bytes > most => {
                self.0.push(Fault::new(pointer, format!("{bytes} bytes, the limit is {most}")));
            }
            _ => {}
        }
    }

    fn url(&mut self, pointer: &str, url: Option<&str>) {
        self.text(pointer, url);
        let plain = |url: &str| url.bytes().all(|byte| byte.is_ascii_graphic());
        if let Some(url) = url.filter(|url| !url.is_empty())
            && !((url.starts_with("https://") || url.starts_with("http://")) && plain(url))
        {
            self.0.push(Fault::new(pointer, "it begins with https:// or http:// and has no spaces"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pointers(value: Value) -> Vec<String> {
        let event: PipelineEvent = serde_json::from_value(value).expect("an event");
        event.faults().into_iter().map(|fault| fault.pointer).collect()
    }

    #[test]
    fn the_least_that_can_be_said_is_taken() {
        assert_eq!(pointers(json!({"source": {"commit": "0123abc"}})), [""; 0]);
        let build = json!({"build": {"id": "42", "commit": "0".repeat(64), "state": "running"}});
        assert_eq!(pointers(build), [""; 0]);
    }

    #[test]
    fn each_fault_says_where_it_is() {
        let long = "x".repeat(limits::PIPELINE_TEXT_BYTES + 1);
        for commit in ["", "0123ab", "0123ABC", "HEAD~123", &"0".repeat(65)] {
            assert_eq!(pointers(json!({"source": {"commit": commit}})), ["/source/commit"], "{commit}");
        }
        for field in ["branch", "message", "author"] {
            for text in ["", long.as_str()] {
                let source = json!({"source": {"commit": "0123abc", field: text}});
                assert_eq!(pointers(source), [format!("/source/{field}")]);
            }
        }
        for url in ["ftp://x", "javascript:alert(1)", "https://a b"] {
            assert_eq!(pointers(json!({"source": {"commit": "0123abc", "url": url}})), ["/source/url"]);
        }
        for id in ["", "a b", "é", &"x".repeat(limits::BUILD_ID_BYTES + 1)] {
            let build = json!({"build": {"id": id, "commit": "0123abc", "state": "failed"}});
            assert_eq!(pointers(build), ["/build/id"], "{id}");
        }
        for field in ["version", "artifact", "message"] {
            let build = json!({"build": {"id": "1", "commit": "0123abc", "state": "failed", field: long}});
            assert_eq!(pointers(build), [format!("/build/{field}")]);
        }
    }

    #[test]
    fn what_nobody_knows_is_refused() {
        for value in [
            json!({"deploy": {}}),
            json!({"source": {"commit": "0123abc", "sha": "x"}}),
            json!({"build": {"id": "1", "commit": "0123abc", "state": "green"}}),
        ] {
            assert!(serde_json::from_value::<PipelineEvent>(value.clone()).is_err(), "{value}");
        }
    }
}
