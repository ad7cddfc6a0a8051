//! What the control plane does itself for a node: requests, measurements, looking after a deployment.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use serde_json::{Value, json};
use titan_api::{
    Kind, Name, Problem, limits,
    workplans::{
        Executor,
        attempts::Verdict,
        executors::{HealthGate, HttpCall, Metric},
    },
};
use tokio::sync::Semaphore;

use super::{End, releases};
use crate::{
    fleet::workplans::{
        Node,
        measurements::{Answer, Measured, Measurement},
    },
    routes::deployments,
    state::AppState,
    store::PlanRow,
    workplans::expressions,
    writing::Place,
};

/// How often a deployment is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How much longer than its plan allows a request may take.
const GRACE: Duration = Duration::from_secs(1);
/// How long a measurement may take.
const MEASURE: Duration = Duration::from_secs(10);

/// An attempt that was taken.
#[derive(Clone)]
pub struct Job {
    /// What everybody shares.
    pub state: AppState,
    /// The plan.
    pub row: PlanRow,
    /// The node.
    pub node: Node,
    /// The number of the attempt.
    pub number: u32,
    /// Whose turn it is to measure.
    pub measurements: Arc<Semaphore>,
}

/// Does what a node says, and says what came of it. How long it may take is the plan's to watch over.
pub async fn run(job: Job) -> End {
    match &job.node.spec.run {
        Some(Executor::Http(call)) => request(&job, call).await,
        Some(Executor::Metric(metric)) => measure(&job, metric).await,
        Some(Executor::Health(gate)) => look(&job, gate).await,
        Some(Executor::Release(step)) => releases::run(job.clone(), step).await,
        Some(other) => End::broken("noExecutor", format!("nobody here does {}", other.name())),
        None => End::known(Verdict::Passed, None, None),
    }
}

impl Job {
    /// Returns what the expressions of the node see.
    fn context(&self) -> Value {
        json!({
            "values": self.row.plan.head.values,
            "plan": { "id": self.row.plan.id, "name": self.row.name, "workspace": self.row.workspace },
            "node": self.node.name,
            "attempt": self.number,
        })
    }
}

/// Returns the client for requests to the outside, made once.
fn client() -> Result<&'static reqwest::Client, String> {
    static CLIENT: OnceLock<Result<reqwest::Client, String>> = OnceLock::new();
    let made = CLIENT.get_or_init(|| {
        // A second provider in the process would panic at the first handshake; whoever comes first wins.
        let _already_set = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("titan-control-plane/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| error.to_string())
    });
    made.as_ref().map_err(Clone::clone)
}

/// Returns an error with what caused it, in one line.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// Reads an answer of at most [`limits::EXECUTOR_ANSWER_BYTES`], as JSON if it is, else as text.
async fn answer(mut response: reqwest::Response) -> Result<Value, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| told(&error))? {
        if body.len() + chunk.len() > limits::EXECUTOR_ANSWER_BYTES {
            return Err(format!("the answer is larger than {} bytes", limits::EXECUTOR_ANSWER_BYTES));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(serde_json::from_slice(&body).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned())))
}

async fn request(job: &Job, call: &HttpCall) -> End {
    let built = build(job, call);
    let request = match built {
        Ok(request) => request,
        Err(error) => return End::broken("invalid", error),
    };
    // The plan counts its time, but not while it is paused; a request is not to last for as long as that.
    let limit = Duration::from_micros(job.node.limit().max(0).unsigned_abs()).saturating_add(GRACE);
    let response = match request.timeout(limit).send().await {
        Ok(response) => response,
        Err(error) if error.is_timeout() => return End::broken("timeout", told(&error)),
        Err(error) => return End::broken("unreachable", told(&error)),
    };
    let status = response.status().as_u16();
    let body = match answer(response).await {
        Ok(body) => body,
        Err(error) => return End::broken("unreadable", error),
    };
    let good = if call.expect.is_empty() { (200..300).contains(&status) } else { call.expect.contains(&status) };
    let details = json!({ "status": status, "body": short(&body) });
    if !good {
        let message = format!("{} {} answered {status}", call.method, call.url);
        // Whoever is overloaded, asleep or broken may answer another time; who says no has answered.
        return if status >= 500 || matches!(status, 408 | 429) {
            End { details: Some(details), ..End::broken("status", message) }
        } else {
            End::known(Verdict::Failed, Some(message), Some(details))
        };
    }
    let Some(condition) = &call.condition else { return End::known(Verdict::Passed, None, Some(details)) };
    let mut context = job.context();
    context["status"] = json!(status);
    context["body"] = body;
    match expressions::holds(condition, &context) {
        Ok(true) => End::known(Verdict::Passed, None, Some(details)),
        Ok(false) => End::known(Verdict::Failed, Some(format!("the answer does not meet: {condition}")), Some(details)),
        Err(error) => End::known(Verdict::Failed, Some(format!("{condition}: {error}")), Some(details)),
    }
}

/// Returns a body as it is kept: whole if it is small.
fn short(body: &Value) -> Value {
    let text = body.to_string();
    if text.len() <= limits::SIGNAL_TEXT_BYTES { body.clone() } else { Value::String(format!("{} bytes", text.len())) }
}

fn build(job: &Job, call: &HttpCall) -> Result<reqwest::RequestBuilder, String> {
    let context = job.context();
    let url = expressions::text(&call.url, &context)?;
    let method = call.method.parse::<reqwest::Method>().map_err(|error| error.to_string())?;
    let key = format!("{}/{}", job.row.plan.id, job.node.name);
    let mut request = client()?.request(method, url).header("idempotency-key", key);
    for (name, value) in &call.headers {
        request = request.header(name, expressions::text(value, &context)?);
    }
    match &call.body {
        Some(Value::String(text)) => request = request.body(expressions::text(text, &context)?),
        Some(body) => request = request.json(&expressions::value(body, &context)?),
        None => {}
    }
    Ok(request)
}

async fn measure(job: &Job, metric: &Metric) -> End {
    let mut measured = Measured::default();
    tokio::time::sleep(metric.initial_delay.0).await;
    let mut seen = Vec::new();
    loop {
        let turn = job.measurements.acquire().await;
        let one = tokio::time::timeout(MEASURE, measured_once(job, metric)).await;
        drop(turn);
        let one = one.unwrap_or_else(|_| Err(format!("no answer within {MEASURE:?}")));
        let (measurement, value) = match one {
            Ok((measurement, value)) => (measurement, value),
            Err(error) => (Measurement::Error, Value::String(error)),
        };
        if seen.len() < limits::PROGRESS {
            seen.push(value);
        }
        let details = || Some(json!({ "measurements": seen }));
        match measured.take(metric, measurement) {
            Answer::GoOn => tokio::time::sleep(metric.interval.0).await,
            Answer::Known(verdict, message) => return End::known(verdict, Some(message), details()),
            Answer::Unknown(message) => {
                let last = seen.last().and_then(Value::as_str).unwrap_or_default();
                return End { details: details(), ..End::broken("measurement", format!("{message}: {last}")) };
            }
        }
    }
}

async fn measured_once(job: &Job, metric: &Metric) -> Result<(Measurement, Value), String> {
    let context = job.context();
    let server = expressions::text(&metric.server, &context)?;
    let query = expressions::text(&metric.query, &context)?;
    let url = format!("{}/api/v1/query", server.trim_end_matches('/'));
    let body: String = format!("query={}", encoded(&query));
    let request = client()?.post(url).header("content-type", "application/x-www-form-urlencoded").body(body);
    let response = request.send().await.map_err(|error| told(&error))?;
    let status = response.status();
    let found = answer(response).await?;
    if !status.is_success() || found["status"] != "success" {
        let why = found["error"].as_str().unwrap_or_default();
        return Err(format!("Prometheus answered {}: {why}", status.as_u16()));
    }
    let results = values(&found["data"]);
    let mut context = context;
    context["results"] = json!(results);
    context["result"] = results.first().map_or(Value::Null, |value| json!(value));
    let value = json!(results);
    if results.is_empty() {
        return Ok((Measurement::Inconclusive, value));
    }
    let good = expressions::holds(&metric.success, &context)?;
    let bad = match &metric.failure {
        Some(failure) => expressions::holds(failure, &context)?,
        None => !good,
    };
    let measurement = match (bad, good) {
        (true, _) => Measurement::Bad,
        (false, true) => Measurement::Good,
        (false, false) => Measurement::Inconclusive,
    };
    Ok((measurement, value))
}

/// Returns the numbers of an instant query's answer: of a scalar, or of each series of a vector.
fn values(data: &Value) -> Vec<f64> {
    let number = |pair: &Value| pair.get(1)?.as_str()?.parse::<f64>().ok().filter(|number| number.is_finite());
    match data["resultType"].as_str() {
        Some("scalar") => number(&data["result"]).into_iter().collect(),
        _ => {
            let series = data["result"].as_array().map(Vec::as_slice).unwrap_or_default();
            series.iter().filter_map(|one| number(&one["value"])).collect()
        }
    }
}

fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

async fn look(job: &Job, gate: &HealthGate) -> End {
    let place =
        |name: &Name| Place { kind: Kind::Deployment, workspace: Some(job.row.workspace.clone()), name: name.clone() };
    let deadline = tokio::time::Instant::now() + gate.deadline.0;
    loop {
        let status = match deployments::read(&job.state, place(&gate.deployment)).await {
            Ok(status) => status,
            Err(Problem { code: titan_api::Code::NotFound, detail, .. }) => {
                return End::known(Verdict::Failed, Some(detail), None);
            }
            Err(problem) => return End::broken("unreadable", problem.detail),
        };
        let counts = &status.counts;
        let there = counts.desired.saturating_sub(counts.offline);
        let enough = counts.healthy * 100 >= there * gate.percent as usize && counts.healthy >= gate.hosts as usize;
        let decided = status.planned >= status.revision;
        let said = format!(
            "{} of {there} hosts are healthy, {} failed, {} offline",
            counts.healthy, counts.failed, counts.offline
        );
        if decided && enough {
            return End::known(Verdict::Passed, Some(said), None);
        }
        if tokio::time::Instant::now() >= deadline {
            return End::known(Verdict::Failed, Some(said), None);
        }
        let next = deadline.min(tokio::time::Instant::now() + LOOK);
        tokio::time::sleep_until(next).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_prometheus_are_numbers() {
        let vector =
            json!({"resultType": "vector", "result": [{"metric": {}, "value": [1, "0.5"]}, {"value": [1, "NaN"]}]});
        assert_eq!(values(&vector), [0.5]);
        assert_eq!(values(&json!({"resultType": "scalar", "result": [1, "2"]})), [2.0]);
        assert_eq!(values(&json!(null)), [0.0; 0]);
    }
}
