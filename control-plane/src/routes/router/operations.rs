//! Operations: how routes are put together with their description.

use axum::{Router, routing::MethodRouter};

use crate::{
    routes::{
        docs::{Operation, Shape},
        respond::no_method,
    },
    state::AppState,
};

/// Routes with their description: what is served and what is described cannot differ.
#[derive(Default)]
pub(super) struct Routes {
    pub(super) router: Router<AppState>,
    /// Routes without the layers of all the others.
    pub(super) hot: Router<AppState>,
    pub(super) operations: Vec<Operation>,
}

impl Routes {
    pub(super) fn on(mut self, operation: Operation, handler: MethodRouter<AppState>) -> Self {
        self.router = self.router.route(operation.path, handler);
        self.operations.push(operation);
        self
    }

    /// Adds a route that does by itself what the layers do for the others.
    pub(super) fn hot(mut self, operation: Operation, handler: MethodRouter<AppState>) -> Self {
        self.hot = self.hot.route(operation.path, handler.fallback(no_method));
        self.operations.push(operation);
        self
    }
}

/// Returns an operation without query, body and answer.
pub(super) const fn op(method: &'static str, path: &'static str, summary: &'static str) -> Operation {
    Operation { method, path, summary, open: false, query: &[], body: None, answer: None }
}

/// Returns it with a body.
pub(super) fn body(operation: Operation, body: Shape) -> Operation {
    Operation { body: Some(body), ..operation }
}

/// Returns it with an answer.
pub(super) fn answer(operation: Operation, answer: Shape) -> Operation {
    Operation { answer: Some(answer), ..operation }
}

/// Returns it with both.
pub(super) fn both(operation: Operation, body: Shape, answer: Shape) -> Operation {
    self::answer(self::body(operation, body), answer)
}

/// Returns it with a query.
pub(super) fn query(operation: Operation, query: &'static [&'static str]) -> Operation {
    Operation { query, ..operation }
}

/// Returns it as one that takes no credential.
pub(super) fn open(operation: Operation) -> Operation {
    Operation { open: true, ..operation }
}
