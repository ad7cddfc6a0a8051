//! The routes that documents of every kind have.

use axum::routing::{delete, get, patch, post, put};
use titan_api::{
    Document, Kind,
    changes::{ApplyAnswer, Change},
};

use super::operations::{Routes, answer, both, op, query};
use crate::routes::{docs::Shape, documents};

/// What a list may be asked for.
pub(super) const LIST_QUERY: &[&str] = &["labelSelector", "limit", "continue", "at"];

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

pub(super) fn routes(mut routes: Routes) -> Routes {
    let document = Shape::of::<Document>;
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
                both(op("patch", one, "Changes parts of a document (RFC 7396)"), document(), document()),
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
