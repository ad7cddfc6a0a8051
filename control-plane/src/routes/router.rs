//! Every route on one page, but for those of [plans](workplans) and those that all [documents] have.

mod documents;
mod operations;
mod workplans;

use std::sync::Arc;

use axum::{
    Router,
    response::IntoResponse,
    routing::{delete, get, post},
};
use titan_api::{
    changes::{ApplyAnswer, ApplyRequest, ChangePage},
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
    workplans::PlanStatus,
};

use self::operations::{Routes, answer, body, both, op, open, query};
use crate::{
    routes::{
        apply, changes, deployments,
        docs::{self, Shape},
        drift, enrolment, health, hosts, pipelines, plans, polls, reports,
        respond::{layered, no_route},
        tasks, tokens, web,
    },
    state::AppState,
};

fn routes() -> Routes {
    let routes = Routes::default()
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
                query(
                    op(
                        "get",
                        "/v1/workspaces/{workspace}/deployments/{name}/rollout",
                        "How far a deployment's newest release is handed out, or the one of a number",
                    ),
                    &["release"],
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
    documents::routes(workplans::routes(routes))
}

/// Returns the whole service.
pub fn router(state: AppState) -> Router {
    let Routes { router, hot, operations } = routes();
    let description = Arc::new(docs::openapi(&operations).to_string());
    let operations = Arc::new(operations);
    let json = [(axum::http::header::CONTENT_TYPE, "application/json")];
    let page = web::Page::new();
    let router = router
        .route("/", get(move || std::future::ready(page.clone())))
        .route("/openapi.json", get(move || std::future::ready((json, description.to_string()).into_response())))
        .route("/docs", get(move || std::future::ready(docs::page(&operations))))
        .fallback(no_route);
    layered(router, &state).merge(hot).with_state(state)
}
