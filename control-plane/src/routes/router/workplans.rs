//! The routes of plans and of attempts at their nodes.

use axum::routing::{get, post};
use titan_api::{
    Document,
    workplans::{
        EventView, NewPlan, NodeView, PlanStatus, SignalAnswer, SignalRequest, WriteNodes, WrittenNodes,
        attempts::{ClaimAnswer, ClaimRequest, Completion, Heartbeat, HeartbeatAnswer, ResultsRequest},
    },
};

use super::{
    documents::LIST_QUERY,
    operations::{Routes, answer, body, both, op, query},
};
use crate::routes::{docs::Shape, workplans};

pub(super) fn routes(routes: Routes) -> Routes {
    routes
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
        )
}
