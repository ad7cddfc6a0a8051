//! Every route on one page.

use std::sync::Arc;

use axum::{
    Router,
    response::IntoResponse,
    routing::{MethodRouter, delete, get, patch, post, put},
};
use titan_api::{
    Document, Kind,
    changes::{ApplyAnswer, ApplyRequest, Change, ChangePage},
    drift::{AdoptAnswer, AdoptRequest, HostDrift},
    enrolment::{EnrolAnswer, EnrolRequest, EnrolmentToken, EnrolmentTokenRequest, NewToken, Token, TokenRequest},
    hosts::BulkCreate,
    pipelines::{PipelineAnswer, PipelineEvent, PipelineLog},
    plans::Plan,
    poll::{Bundle, PollAnswer},
    readiness::Readiness,
    reports::{PruneAnswer, PruneRequest, Report},
    status::{DeploymentStatus, Why},
    tasks::Task,
    values::MergedValues,
    workplans::{
        EventView, NewPlan, NodeView, PlanStatus, SignalAnswer, SignalRequest, WriteNodes, WrittenNodes,
        attempts::{ClaimAnswer, ClaimRequest, Completion, Heartbeat, HeartbeatAnswer, ResultsRequest},
    },
};

use crate::{
    routes::{
        apply, changes, deployments,
        docs::{self, Operation, Shape},
        documents, drift, enrolment, health, hosts, pipelines, plans, polls, reports,
        respond::{layered, no_method, no_route},
        tasks, tokens, workplans,
    },
    state::AppState,
};

/// Routes with their description: what is served and what is described cannot differ.
#[derive(Default)]
struct Routes {
    router: Router<AppState>,
    /// Routes without the layers of all the others.
    hot: Router<AppState>,
    operations: Vec<Operation>,
}

impl Routes {
    fn on(mut self, operation: Operation, handler: MethodRouter<AppState>) -> Self {
        self.router = self.router.route(operation.path, handler);
        self.operations.push(operation);
        self
    }

    /// Adds a route that does by itself what the layers do for the others.
    fn hot(mut self, operation: Operation, handler: MethodRouter<AppState>) -> Self {
        self.hot = self.hot.route(operation.path, handler.fallback(no_method));
        self.operations.push(operation);
        self
    }
}

/// Returns an operation without query, body and answer.
const fn op(method: &'static str, path: &'static str, summary: &'static str) -> Operation {
    Operation { method, path, summary, open: false, query: &[], body: None, answer: None }
}

const LIST_QUERY: &[&str] = &["labelSelector", "limit", "continue", "at"];

fn routes() -> Routes {
    let body = |operation: Operation, body: Shape| Operation { body: Some(body), ..operation };
    let answer = |operation: Operation, answer: Shape| Operation { answer: Some(answer), ..operation };
    let both = |operation: Operation, body: Shape, answer: Shape| Operation {
        body: Some(body),
        answer: Some(answer),
        ..operation
    };
    let query = |operation: Operation, query: &'static [&'static str]| Operation { query, ..operation };
    let open = |operation: Operation| Operation { open: true, ..operation };
    let document = Shape::of::<Document>;

    let mut routes = Routes::default()
        .on(open(op("get", "/healthz", "Whether the process answers")), get(health::alive))
        .on(
            open(answer(op("get", "/readyz", "Whether each component is ready"), Shape::of::<Readiness>())),
            get(health::ready),
        )
        .on(op("get", "/metrics", "Counters, in OpenMetrics text"), get(health::metrics))
        .on(
            both(
                op("post", "/v1/apply", "Writes documents, all or none"),
                Shape::of::<ApplyRequest>(),
                Shape::of::<ApplyAnswer>(),
            ),
            post(apply::apply),
        )
        .on(
            both(
                op("post", "/v1/plan", "Tells which hosts would change"),
                Shape::of::<ApplyRequest>(),
                Shape::of::<Plan>(),
            ),
            post(plans::plan),
        )
        .on(
            query(
                answer(op("get", "/v1/changes", "The change feed; as events by Accept"), Shape::of::<ChangePage>()),
                &["since", "wait", "kind", "workspace"],
            ),
            get(changes::changes),
        )
        .on(
            query(
                answer(op("get", "/v1/tasks", "Tasks, the newest first"), Shape::page_of::<Task>()),
                &["state", "kind", "workspace", "parent", "subject", "limit", "continue"],
            ),
            get(tasks::list),
        )
        .on(
            query(answer(op("get", "/v1/tasks/{id}", "A task; waits for its end"), Shape::of::<Task>()), &["wait"]),
            get(tasks::get),
        )
        .on(answer(op("get", "/v1/tokens", "Tokens, without secrets"), Shape::page_of::<Token>()), get(tokens::list))
        .on(
            both(op("post", "/v1/tokens", "Makes a token"), Shape::of::<TokenRequest>(), Shape::of::<NewToken>()),
            post(tokens::create),
        )
        .on(op("delete", "/v1/tokens/{id}", "Ends a token"), delete(tokens::delete))
        .on(
            both(
                op("post", "/v1/enrolment-tokens", "Makes a one-time token for a host"),
                Shape::of::<EnrolmentTokenRequest>(),
                Shape::of::<EnrolmentToken>(),
            ),
            post(enrolment::create_token),
        )
        .on(
            open(both(
                op("post", "/v1/enrol", "Trades a one-time token for a host's credential"),
                Shape::of::<EnrolRequest>(),
                Shape::of::<EnrolAnswer>(),
            )),
            post(enrolment::enrol),
        )
        .on(
            both(
                op("post", "/v1/hosts:bulkCreate", "Makes hosts with a task for each, all or none"),
                Shape::of::<BulkCreate>(),
                Shape::of::<ApplyAnswer>(),
            ),
            post(hosts::bulk_create),
        )
        .hot(
            query(
                answer(op("get", "/v1/hosts/{name}/changes", "The poll"), Shape::of::<PollAnswer>()),
                &["since", "have", "wait"],
            ),
            get(polls::poll_route),
        )
        .on(
            answer(
                op("get", "/v1/hosts/{name}/bundles/{digest}", "A bundle assigned to the host"),
                Shape::of::<Bundle>(),
            ),
            get(polls::bundle),
        )
        .on(
            body(op("post", "/v1/hosts/{name}/report", "What an agent observed"), Shape::of::<Report>()),
            post(reports::report),
        )
        .on(
            both(
                op("post", "/v1/hosts/{name}/prune", "Tells a host to remove orphans"),
                Shape::of::<PruneRequest>(),
                Shape::of::<PruneAnswer>(),
            ),
            post(hosts::prune),
        )
        .on(
            answer(op("get", "/v1/hosts/{name}/drift", "What is not as it was applied"), Shape::of::<HostDrift>()),
            get(drift::drift),
        )
        .on(
            both(
                op("post", "/v1/hosts/{name}/drift:adopt", "Makes what was found on the host the declared state there"),
                Shape::of::<AdoptRequest>(),
                Shape::of::<AdoptAnswer>(),
            ),
            post(drift::adopt),
        )
        .on(
            both(
                op("post", "/v1/hosts/{name}/drift:unadopt", "Returns files of the host to what the template says"),
                Shape::of::<AdoptRequest>(),
                Shape::of::<AdoptAnswer>(),
            ),
            post(drift::unadopt),
        )
        .on(
            answer(
                op("get", "/v1/hosts/{name}/why/{workspace}/{deployment}", "Why a host has a deployment, or not"),
                Shape::of::<Why>(),
            ),
            get(deployments::why),
        )
        .on(
            answer(
                op("get", "/v1/workspaces/{workspace}/deployments/{name}/status", "How far a deployment is"),
                Shape::of::<DeploymentStatus>(),
            ),
            get(deployments::status),
        )
        .on(
            answer(
                op(
                    "get",
                    "/v1/workspaces/{workspace}/deployments/{name}/rollout",
                    "How far a deployment's newest release is handed out",
                ),
                Shape::of::<PlanStatus>(),
            ),
            get(deployments::rollout),
        )
        .on(
            both(
                op(
                    "post",
                    "/v1/workspaces/{workspace}/deployments/{name}/events",
                    "What a pipeline reports of its workload: a commit, a build",
                ),
                Shape::of::<PipelineEvent>(),
                Shape::of::<PipelineAnswer>(),
            ),
            post(pipelines::of_deployment),
        )
        .on(
            both(
                op("post", "/v1/workspaces/{workspace}/workloads/{name}/events", "What a pipeline reports"),
                Shape::of::<PipelineEvent>(),
                Shape::of::<PipelineAnswer>(),
            ),
            post(pipelines::of_workload),
        )
        .on(
            answer(
                op("get", "/v1/workspaces/{workspace}/workloads/{name}/events", "Commits and builds, newest first"),
                Shape::of::<PipelineLog>(),
            ),
            get(pipelines::log),
        )
        .on(
            query(
                answer(
                    op(
                        "get",
                        "/v1/workspaces/{workspace}/deployments/{name}/values",
                        "Merged values on a host, by layer",
                    ),
                    Shape::of::<MergedValues>(),
                ),
                &["host"],
            ),
            get(deployments::values),
        );
    routes = routes
        .on(
            query(
                answer(op("get", "/v1/workplans", "Plans, the newest first"), Shape::page_of::<PlanStatus>()),
                &["workspace", "limit", "continue"],
            ),
            get(workplans::list),
        )
        .on(
            both(op("post", "/v1/workplans", "Makes a plan"), Shape::of::<NewPlan>(), Shape::of::<PlanStatus>()),
            post(workplans::create),
        )
        .on(
            query(
                answer(
                    op("get", "/v1/workplans/{id}", "How far a plan is; waits for its end"),
                    Shape::of::<PlanStatus>(),
                ),
                &["wait"],
            ),
            get(workplans::get),
        )
        .on(
            query(
                answer(op("get", "/v1/workplans/{id}/nodes", "A plan's nodes"), Shape::page_of::<NodeView>()),
                &["kind", "state", "limit", "continue"],
            ),
            get(workplans::nodes),
        )
        .on(
            both(
                op("post", "/v1/workplans/{id}/nodes", "Writes nodes, all or none"),
                Shape::of::<WriteNodes>(),
                Shape::of::<WrittenNodes>(),
            ),
            post(workplans::write_nodes),
        )
        .on(
            answer(
                op("get", "/v1/workplans/{id}/nodes/{node}", "A node with its attempts and results"),
                Shape::of::<NodeView>(),
            ),
            get(workplans::node),
        )
        .on(
            query(
                answer(
                    op(
                        "get",
                        "/v1/workplans/{id}/events",
                        "What happened in a plan; waits for more; as events by Accept",
                    ),
                    Shape::page_of::<EventView>(),
                ),
                &["since", "wait"],
            ),
            get(workplans::events::events),
        )
        .on(
            both(
                op("post", "/v1/workplans/{id}/signals", "Tells a plan something, once"),
                Shape::of::<SignalRequest>(),
                Shape::of::<SignalAnswer>(),
            ),
            post(workplans::signal),
        )
        .on(
            both(
                op("post", "/v1/attempts:claim", "Takes an attempt from a queue; waits for one"),
                Shape::of::<ClaimRequest>(),
                Shape::of::<ClaimAnswer>(),
            ),
            post(workplans::attempts::claim),
        )
        .on(
            both(
                op(
                    "post",
                    "/v1/workplans/{id}/nodes/{node}/attempts/{number}/heartbeat",
                    "Says that an attempt is still being done",
                ),
                Shape::of::<Heartbeat>(),
                Shape::of::<HeartbeatAnswer>(),
            ),
            post(workplans::attempts::heartbeat),
        )
        .on(
            body(
                op("post", "/v1/workplans/{id}/nodes/{node}/attempts/{number}/complete", "Ends an attempt"),
                Shape::of::<Completion>(),
            ),
            post(workplans::attempts::complete),
        )
        .on(
            body(
                op("post", "/v1/workplans/{id}/nodes/{node}/attempts/{number}/results", "Answers checks"),
                Shape::of::<ResultsRequest>(),
            ),
            post(workplans::attempts::results),
        )
        .on(
            query(
                answer(
                    op("get", "/v1/workspaces/-/workplans", "Lists documents of every workspace"),
                    Shape::page_of::<Document>(),
                ),
                LIST_QUERY,
            ),
            get(workplans::documents),
        );
    for (list, one, history) in DOCUMENT_PATHS {
        routes = routes
            .on(
                query(answer(op("get", list, "Lists documents"), Shape::page_of::<Document>()), LIST_QUERY),
                get(documents::lists::list_route),
            )
            .on(both(op("post", list, "Makes a document"), document(), document()), post(documents::create_route))
            .on(query(answer(op("get", one, "Reads a document"), document()), &["at"]), get(documents::get_route))
            .on(both(op("put", one, "Puts a document as it stands"), document(), document()), put(documents::put_route))
            .on(
                both(op("patch", one, "Changes parts of a document (RFC 7386)"), document(), document()),
                patch(documents::patch_route),
            )
            .on(
                query(answer(op("delete", one, "Deletes a document"), Shape::of::<ApplyAnswer>()), &["force"]),
                delete(documents::delete_route),
            )
            .on(
                query(
                    answer(op("get", history, "A document's changes, newest first"), Shape::page_of::<Change>()),
                    &["limit", "continue"],
                ),
                get(documents::history_route),
            );
    }
    for (path, _) in EVERYWHERE {
        let operation = op("get", path, "Lists documents of every workspace");
        routes = routes
            .on(query(answer(operation, Shape::page_of::<Document>()), LIST_QUERY), get(documents::lists::list_route));
    }
    routes
}

/// The paths of documents: list, one, history.
const DOCUMENT_PATHS: [(&str, &str, &str); Kind::ALL.len()] = [
    ("/v1/workspaces", "/v1/workspaces/{name}", "/v1/workspaces/{name}/history"),
    ("/v1/hosts", "/v1/hosts/{name}", "/v1/hosts/{name}/history"),
    (
        "/v1/workspaces/{workspace}/templates",
        "/v1/workspaces/{workspace}/templates/{name}",
        "/v1/workspaces/{workspace}/templates/{name}/history",
    ),
    (
        "/v1/workspaces/{workspace}/workloads",
        "/v1/workspaces/{workspace}/workloads/{name}",
        "/v1/workspaces/{workspace}/workloads/{name}/history",
    ),
    (
        "/v1/workspaces/{workspace}/targets",
        "/v1/workspaces/{workspace}/targets/{name}",
        "/v1/workspaces/{workspace}/targets/{name}/history",
    ),
    (
        "/v1/workspaces/{workspace}/deployments",
        "/v1/workspaces/{workspace}/deployments/{name}",
        "/v1/workspaces/{workspace}/deployments/{name}/history",
    ),
    (
        "/v1/workspaces/{workspace}/workplans",
        "/v1/workspaces/{workspace}/workplans/{name}",
        "/v1/workspaces/{workspace}/workplans/{name}/history",
    ),
];

/// Lists over all workspaces.
const EVERYWHERE: [(&str, Kind); 4] = [
    ("/v1/templates", Kind::Template),
    ("/v1/workloads", Kind::Workload),
    ("/v1/targets", Kind::Target),
    ("/v1/deployments", Kind::Deployment),
];

/// Returns the whole service.
pub fn router(state: AppState) -> Router {
    let Routes { router, hot, operations } = routes();
    let description = Arc::new(docs::openapi(&operations).to_string());
    let operations = Arc::new(operations);
    let json = [(axum::http::header::CONTENT_TYPE, "application/json")];
    let router = router
        .route("/openapi.json", get(move || std::future::ready((json, description.to_string()).into_response())))
        .route("/docs", get(move || std::future::ready(docs::page(&operations))))
        .fallback(no_route);
    layered(router, &state).merge(hot).with_state(state)
}
