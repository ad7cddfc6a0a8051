//! Every limit of the protocol, with its number. Each is tested where it is enforced.

use std::time::Duration;

/// Documents in one `POST /v1/apply` or `POST /v1/plan`.
pub const APPLY_DOCUMENTS: usize = 1000;
/// Hosts in one `POST /v1/hosts:bulkCreate`.
pub const BULK_HOSTS: usize = 1000;
/// Bytes of a request body that carries documents.
pub const DOCUMENT_BODY_BYTES: usize = 32 * 1024 * 1024;
/// Bytes of any other request body.
pub const SMALL_BODY_BYTES: usize = 1024 * 1024;
/// Bytes of one template, all files together, after base64 is undone.
pub const TEMPLATE_BYTES: usize = 1024 * 1024;
/// Files of one template.
pub const TEMPLATE_FILES: usize = 512;
/// Bytes of a path in a template or bundle.
pub const PATH_BYTES: usize = 255;
/// Bytes of a name (a DNS label).
pub const NAME_BYTES: usize = 63;
/// Labels or annotations of one document.
pub const LABELS: usize = 64;
/// Bytes of one annotation.
pub const ANNOTATION_BYTES: usize = 4096;
/// Bytes of a document's values, as JSON.
pub const VALUES_BYTES: usize = 256 * 1024;
/// Maps and lists inside each other in values.
pub const VALUES_DEPTH: usize = 32;
/// Bytes of a report.
pub const REPORT_BODY_BYTES: usize = 16 * 1024 * 1024;
/// Entries of one deployment's `overrides`.
pub const OVERRIDES: usize = 256;
/// Bytes of a selector's `expression`.
pub const EXPRESSION_BYTES: usize = 1024;
/// Entries of a selector's `matchExpressions`, and values of one of them.
pub const SELECTOR_TERMS: usize = 256;
/// Facts a host may report.
pub const FACTS: usize = 64;
/// Bytes of one fact's value.
pub const FACT_BYTES: usize = 256;
/// Things that have drifted in one deployment's report; more are counted in the last one.
pub const DRIFTS: usize = 32;
/// Bytes of one thing's difference in a report, and of what was found in its place.
pub const DRIFT_BYTES: usize = 64 * 1024;
/// Bytes of the name of one thing that has drifted, and of how.
pub const DRIFT_NAME_BYTES: usize = 1024;
/// Probes of one bundle.
pub const PROBES: usize = 32;
/// Words of a command in a hook or probe.
pub const COMMAND_WORDS: usize = 64;
/// Bytes of one text of a probe or hook: a URL, a word of a command, what an answer has to hold.
pub const PROBE_TEXT_BYTES: usize = 4096;
/// The shortest interval and timeout of a probe or hook.
pub const SPAN_LEAST: Duration = Duration::from_millis(100);
/// The longest span of a probe or hook.
pub const SPAN_MOST: Duration = Duration::from_hours(24);
/// Failures in a row that a `failureThreshold` may ask for.
pub const FAILURES: u32 = 1000;
/// Files of one host that are as a person left them, of all its deployments.
pub const HOST_FILES: usize = 64;
/// Bytes of all files of one host that are as a person left them.
pub const HOST_FILES_BYTES: usize = 1024 * 1024;
/// Resources that a host or a deployment may name.
pub const RESOURCES: usize = 16;
/// The largest amount of a resource, in thousandths of a core, bytes or pieces.
pub const RESOURCE_MOST: u64 = 1 << 50;
/// Taints of one host, and tolerations of one deployment.
pub const TAINTS: usize = 32;
/// The largest `maxSkew` of a deployment's `spread`.
pub const SKEW_MOST: u32 = 1_000_000;
/// The shortest `failoverAfter`, `0s` aside: less would move replicas off hosts that poll as they are told.
pub const FAILOVER_LEAST: Duration = Duration::from_secs(30);
/// The longest `failoverAfter`.
pub const FAILOVER_MOST: Duration = Duration::from_hours(720);
/// The `failoverAfter` of a deployment that names none.
pub const FAILOVER_DEFAULT: Duration = Duration::from_mins(5);
/// Bytes of a report's message for one deployment; longer ones are cut by the agent.
pub const MESSAGE_BYTES: usize = 16 * 1024;
/// A bundle up to this many bytes travels in the poll's answer; a larger one is fetched by digest.
pub const INLINE_BUNDLE_BYTES: usize = 64 * 1024;
/// Bytes of bundles that travel in one answer; the ones after that are fetched by digest.
pub const INLINE_TOTAL_BYTES: usize = 1024 * 1024;
/// Bytes of a poll's answer that an agent takes: bundles, and a line for each of some 20 000 deployments.
pub const POLL_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of one bundle: what a release may render to on one host.
pub const BUNDLE_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of a bundle that an agent fetches. They go to its disk, never as a whole into its memory.
pub const FETCHED_BUNDLE_BYTES: u64 = 256 * 1024 * 1024;
/// Files of a bundle that an agent takes.
pub const BUNDLE_FILES: usize = 4096;
/// Seconds a poll, a task or the change feed may be held.
pub const WAIT_SECONDS: u64 = 60;
/// Rows of one page of a list.
pub const PAGE: usize = 500;
/// Nodes of one plan.
pub const PLAN_NODES: usize = 20_000;
/// Nodes in one write to a plan.
pub const WRITTEN_NODES: usize = 5000;
/// Plans inside each other.
pub const PLAN_DEPTH: usize = 4;
/// Groups inside each other.
pub const GROUP_DEPTH: usize = 8;
/// Edges and groups of one group.
pub const GROUP_MEMBERS: usize = 10_000;
/// Checks that one stage answers.
pub const ANSWERS: usize = 64;
/// Attempts that a policy may ask for.
pub const ATTEMPTS: u32 = 1000;
/// Codes of failures that are not tried again, of one policy.
pub const NON_RETRYABLE: usize = 64;
/// The longest span of a plan: a year.
pub const PLAN_SPAN_MOST: Duration = Duration::from_hours(24 * 366);
/// Bytes of a text of an executor: a URL, a header, a condition, a query, a body.
pub const EXECUTOR_TEXT_BYTES: usize = 16 * 1024;
/// Headers of a request of an executor.
pub const EXECUTOR_HEADERS: usize = 32;
/// Bytes of an answer that an executor reads.
pub const EXECUTOR_ANSWER_BYTES: usize = 256 * 1024;
/// Bytes of the data of a result, a progress message or a failure, as JSON.
pub const RESULT_BYTES: usize = 64 * 1024;
/// Bytes of a reason, a code or another short text of a signal or an attempt.
pub const SIGNAL_TEXT_BYTES: usize = 1024;
/// Progress messages that are kept of one attempt.
pub const PROGRESS: usize = 100;
/// Measurements that one check may ask for.
pub const MEASUREMENTS: u32 = 10_000;
/// Approvals that one gate may ask for.
pub const APPROVALS: u32 = 16;
/// Windows of a host, or of a rollout or one of its stages.
pub const WINDOWS: usize = 64;
/// Stages of one strategy.
pub const STRATEGY_STAGES: usize = 32;
/// Bytes of the name of a stage, so that the names of its checks fit.
pub const STAGE_NAME_BYTES: usize = 40;
/// Checks of one stage of a strategy.
pub const STAGE_CHECKS: usize = 16;
/// Values of a label that get a stage of their own; the hosts of all others share the last one.
pub const STAGE_VALUES: usize = 200;
/// The longest `minReadySeconds`: a week.
pub const MIN_READY_SECONDS: u32 = 7 * 24 * 3600;
/// Commits, and builds, that are kept of one workload: the newest, and those that its version names.
pub const PIPELINE_KEPT: usize = 200;
/// Bytes of one text of a commit or a build.
pub const PIPELINE_TEXT_BYTES: usize = 1024;
/// Bytes of the name that a pipeline gives a build.
pub const BUILD_ID_BYTES: usize = 128;
