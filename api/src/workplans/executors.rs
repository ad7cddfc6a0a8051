//! Executors: who does what a node says.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{WorkPlanSpec, policies::PER_ATTEMPT};
use crate::{Name, limits, problems::Fault, spans::Span, strategies::ReleaseStep, values::Values};

/// What a node does, or how a check is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Executor {
    /// Passes after a while.
    Wait(Wait),
    /// Passes when people say so.
    Approval(Approval),
    /// Passes when a deployment is healthy on its hosts.
    Health(HealthGate),
    /// Passes when a measurement holds.
    Metric(Metric),
    /// Makes a request.
    Http(HttpCall),
    /// Is done by a worker that takes it over the API.
    External(External),
    /// Is a plan of its own.
    #[cfg_attr(feature = "openapi", schema(no_recursion))]
    Plan(Box<WorkPlanSpec>),
    /// Hands a release to hosts. Made by the control plane alone, for a deployment's strategy.
    Release(ReleaseStep),
}

/// Passes after a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Wait {
    /// How long.
    #[serde(rename = "for")]
    pub span: Span,
}

/// Passes when enough people approve, fails when one rejects or nobody did in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Approval {
    /// Who may: `admin`, the one role of people and pipelines.
    pub role: String,
    /// How many different people. Nobody approves a plan that is his own.
    pub minimum: u32,
    /// How long the gate stands open; past it, it is rejected.
    pub deadline: Span,
}

impl Default for Approval {
    fn default() -> Self {
        Self { role: "admin".to_owned(), minimum: 1, deadline: Span(Duration::from_hours(24)) }
    }
}

/// Passes when a deployment is healthy on its hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HealthGate {
    /// The deployment, of the plan's workspace.
    pub deployment: Name,
    /// How many percent of its hosts, those that are offline left out.
    #[serde(default = "all")]
    pub percent: u32,
    /// How many hosts at least.
    #[serde(default)]
    pub hosts: u32,
    /// How long it may take.
    #[serde(default = "ten_minutes")]
    pub deadline: Span,
}

const fn all() -> u32 {
    100
}

const fn ten_minutes() -> Span {
    Span(Duration::from_mins(10))
}

/// Asks Prometheus until it is known how the answer comes out. What is too many failures fails it first, then enough
/// successes in a row pass it; when all was measured it passed, unless too much of it was inconclusive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Metric {
    /// The address of the Prometheus, without `/api/v1/query`.
    pub server: String,
    /// The instant query, PromQL.
    pub query: String,
    /// Holds if a measurement is good: an expression over `result`, the first value as a number, and `results`, all.
    pub success: String,
    /// Holds if a measurement is bad; absent: whenever it is not good. One that is neither is inconclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// How long before the first measurement.
    #[serde(default = "nothing")]
    pub initial_delay: Span,
    /// How long between two measurements.
    #[serde(default = "half_a_minute")]
    pub interval: Span,
    /// How many measurements.
    #[serde(default = "once")]
    pub count: u32,
    /// How many may be bad.
    #[serde(default)]
    pub failure_limit: u32,
    /// How many may be neither good nor bad.
    #[serde(default)]
    pub inconclusive_limit: u32,
    /// How many may go wrong one after the other: that it could not be measured is not that it is bad.
    #[serde(default = "four")]
    pub consecutive_error_limit: u32,
    /// After how many good ones in a row it passed already; 0: never before all were made.
    #[serde(default)]
    pub consecutive_success_limit: u32,
    /// Measures and tells, and passes whatever comes out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

const fn nothing() -> Span {
    Span(Duration::ZERO)
}

const fn half_a_minute() -> Span {
    Span(Duration::from_secs(30))
}

const fn once() -> u32 {
    1
}

const fn four() -> u32 {
    4
}

/// Makes a request; passes if the answer is as expected. Texts may hold `{{ values.x }}` and other expressions. The header
/// `Idempotency-Key: <plan>/<node>` is the same for all attempts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HttpCall {
    /// The method.
    #[serde(default = "get")]
    pub method: String,
    /// The URL, `http` or `https`. Redirects are not followed.
    pub url: String,
    /// Headers beside the ones of every request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The body; what is not a text is sent as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// The statuses that are good; absent: 200 to 299. Any below 500 but 408 and 429 that is not good is an answer, and
    /// the answer is no; the rest is tried again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expect: Vec<u16>,
    /// Has to hold as well: an expression over `status` and `body`, the answer as JSON or text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
}

fn get() -> String {
    "GET".to_owned()
}

/// Is done by a worker that takes it from a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct External {
    /// The queue.
    pub queue: Name,
    /// What the worker is told.
    #[serde(default, skip_serializing_if = "Values::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub input: Values,
}

impl Executor {
    /// Returns what it is called in documents.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Wait(_) => "wait",
            Self::Approval(_) => "approval",
            Self::Health(_) => "health",
            Self::Metric(_) => "metric",
            Self::Http(_) => "http",
            Self::External(_) => "external",
            Self::Plan(_) => "plan",
            Self::Release(_) => "release",
        }
    }

    /// Whether nobody has to do anything for it: time, people or a plan of its own bring its end.
    #[must_use]
    pub const fn runs_by_itself(&self) -> bool {
        matches!(self, Self::Wait(_) | Self::Approval(_) | Self::Plan(_))
    }

    /// Returns how long one attempt may take, given what the node says.
    #[must_use]
    pub fn limit(&self, per_attempt: Option<Span>) -> Duration {
        if let Some(span) = per_attempt {
            return span.0;
        }
        match self {
            Self::Wait(wait) => wait.span.0,
            Self::Approval(approval) => approval.deadline.0,
            // It says itself that its time is over, and a moment later than that nobody believes it any more.
            Self::Health(health) => health.deadline.0.saturating_add(Duration::from_secs(5)),
            Self::Metric(metric) => {
                let all = metric.interval.0.saturating_mul(metric.count);
                PER_ATTEMPT.max(metric.initial_delay.0.saturating_add(all).saturating_add(Duration::from_mins(1)))
            }
            Self::Plan(plan) => plan.deadline.map_or(limits::PLAN_SPAN_MOST, |span| span.0),
            Self::Http(_) | Self::External(_) | Self::Release(_) => PER_ATTEMPT,
        }
    }

    /// Returns what is wrong with the executor, at `pointer`. `depth`: how many plans this one is inside of.
    #[must_use]
    pub(crate) fn faults(&self, pointer: &str, depth: usize) -> Vec<Fault> {
        let mut faults = Vec::new();
        let at = |key: &str| format!("{pointer}/{}/{key}", self.name());
        let text = |key: &str, text: &str| {
            let most = limits::EXECUTOR_TEXT_BYTES;
            let detail = format!("{} bytes, the limit is {most}", text.len());
            (text.len() > most).then(|| Fault::new(at(key), detail))
        };
        let span = |key: &str, span: Span| span.fault(at(key), Duration::ZERO, limits::PLAN_SPAN_MOST);
        let url = |key: &str, url: &str| {
            let fits = url.starts_with("http://") || url.starts_with("https://");
            (!fits).then(|| Fault::new(at(key), format!("{url:?} does not begin with http:// or https://")))
        };
        let number = |key: &str, number: u32, least: u32, most: u32| {
            let detail = format!("{number} is not between {least} and {most}");
            (!(least..=most).contains(&number)).then(|| Fault::new(at(key), detail))
        };
        match self {
            Self::Wait(wait) => faults.extend(span("for", wait.span)),
            Self::Approval(approval) => {
                if approval.role != "admin" {
                    let detail = format!("there is no role {:?}, the one role is \"admin\"", approval.role);
                    faults.push(Fault::new(at("role"), detail));
                }
                faults.extend(number("minimum", approval.minimum, 1, limits::APPROVALS));
                faults.extend(span("deadline", approval.deadline));
            }
            Self::Health(health) => {
                faults.extend(number("percent", health.percent, 0, 100));
                faults.extend(span("deadline", health.deadline));
            }
            Self::Metric(metric) => {
                faults.extend(url("server", &metric.server));
                for (key, value) in [("server", &metric.server), ("query", &metric.query), ("success", &metric.success)]
                {
                    faults.extend(text(key, value));
                }
                faults.extend(metric.failure.as_ref().and_then(|failure| text("failure", failure)));
                faults.extend(span("initialDelay", metric.initial_delay));
                faults.extend(metric.interval.fault(at("interval"), limits::SPAN_LEAST, limits::PLAN_SPAN_MOST));
                faults.extend(number("count", metric.count, 1, limits::MEASUREMENTS));
            }
            Self::Http(call) => {
                if !call.url.starts_with("{{") {
                    faults.extend(url("url", &call.url));
                }
                faults.extend(text("url", &call.url));
                let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
                if !known.contains(&call.method.as_str()) {
                    let detail = format!("{:?} is none of {}", call.method, known.join(", "));
                    faults.push(Fault::new(at("method"), detail));
                }
                if call.headers.len() > limits::EXECUTOR_HEADERS {
                    let detail = format!("{} headers, the limit is {}", call.headers.len(), limits::EXECUTOR_HEADERS);
                    faults.push(Fault::new(at("headers"), detail));
                }
                for (header, value) in &call.headers {
                    let word = !header.is_empty()
                        && header.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
                    if !word {
                        faults.push(Fault::new(at("headers"), format!("{header:?} is not the name of a header")));
                    }
                    faults.extend(text("headers", value));
                }
                faults.extend(call.body.as_ref().and_then(|body| text("body", &body.to_string())));
                faults.extend(call.condition.as_ref().and_then(|condition| text("condition", condition)));
                if let Some(status) = call.expect.iter().find(|status| !(100..=599).contains(*status)) {
                    faults.push(Fault::new(at("expect"), format!("{status} is not a status of HTTP")));
                }
            }
            Self::External(external) => {
                faults.extend(text("input", &serde_json::to_string(&external.input).unwrap_or_default()));
            }
            Self::Plan(plan) => {
                let here = format!("{pointer}/plan");
                if depth >= limits::PLAN_DEPTH {
                    let detail = format!("more than {} plans inside each other", limits::PLAN_DEPTH);
                    faults.push(Fault::new(here, detail));
                } else {
                    if !plan.start {
                        faults.push(Fault::new(at("start"), "a plan inside another one is started by it"));
                    }
                    faults.extend(plan.faults_inside(&here, depth + 1));
                }
            }
            Self::Release(_) => {
                let detail =
                    "a release is handed out by the plan of a deployment's strategy, not by one that people write";
                faults.push(Fault::new(format!("{pointer}/release"), detail));
            }
        }
        faults
    }
}
