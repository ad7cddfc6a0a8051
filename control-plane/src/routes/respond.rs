//! Answers: problems with their request id, and the layer around every route.

use std::time::Instant;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use titan_api::{Code, Problem, problems::MEDIA_TYPE};
use tower_http::{
    catch_panic::CatchPanicLayer,
    compression::{
        CompressionLayer,
        predicate::{NotForContentType, Predicate as _, SizeAbove},
    },
};
use tracing::Instrument as _;
use uuid::Uuid;

use crate::{
    metrics::{Answered, Class},
    state::AppState,
};

/// The header of a request's id; a caller may bring its own.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Smaller answers are not worth compressing.
pub const COMPRESSED: SizeAbove = SizeAbove::new(512);

/// A request's id.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// A problem on its way out. The layer writes its body, so that the request's id is in it.
#[derive(Debug, Clone)]
pub struct Failure(pub Box<Problem>);

/// What a handler returns.
pub type Answer<T> = Result<T, Failure>;

impl<E: Into<Problem>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(Box::new(error.into()))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Puts around routes what all of them share: a panic becomes a problem, what is large is compressed, and [`around`].
pub fn layered(router: Router<AppState>, state: &AppState) -> Router<AppState> {
    let compressed = COMPRESSED.and(NotForContentType::const_new("text/event-stream"));
    router
        .layer(CatchPanicLayer::custom(panicked))
        .layer(CompressionLayer::new().compress_when(compressed))
        .layer(middleware::from_fn_with_state(state.clone(), around))
}

/// Gives every request an id, counts it, and writes the body of problems. The poll has [`finished`] instead.
pub async fn around(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id = request_id(request.headers());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    request.extensions_mut().insert(RequestId(id.clone()));
    // Whatever is said on the way is said with the request's id, whatever the least level is.
    let span = tracing::error_span!("request", request.id = %id);
    let mut response = next.run(request).instrument(span).await;
    let status = response.status();
    if let Some(Failure(problem)) = response.extensions_mut().remove::<Failure>() {
        write_problem(&mut response, *problem, &id);
    } else if status == StatusCode::METHOD_NOT_ALLOWED {
        write_problem(
            &mut response,
            Problem::new(Code::MethodNotAllowed, format!("{path} has no method {method}")),
            &id,
        );
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let class = match status.as_u16() {
        ..400 => Class::Success,
        400..500 => Class::ClientError,
        _ => Class::ServerError,
    };
    state.metrics.requests.get_or_create(&Answered { class }).inc();
    state.metrics.request_seconds.observe(begun.elapsed().as_secs_f64());
    tracing::debug!(
        request.id = %id, %method, path, status = status.as_u16(), elapsed_ms = begun.elapsed().as_secs_f64() * 1000.0,
        "{method} {path} answered {status}"
    );
    response
}

/// Finishes the answer of a route that has no layers, because they would cost more than what it does: a panic becomes a
/// problem, a problem gets its body, and every answer an id but an empty one that nobody brought an id for.
pub fn finished(headers: &HeaderMap, answered: std::thread::Result<Answer<Response>>) -> Response {
    let mut response = match answered {
        Ok(Ok(response)) if response.status() == StatusCode::NO_CONTENT && !headers.contains_key(&REQUEST_ID) => {
            return response;
        }
        Ok(Ok(response)) => response,
        Ok(Err(failure)) => failure.into_response(),
        Err(panic) => panicked(panic),
    };
    let id = request_id(headers);
    if let Some(Failure(problem)) = response.extensions_mut().remove::<Failure>() {
        write_problem(&mut response, *problem, &id);
    }
    if let Ok(value) = HeaderValue::try_from(id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

fn request_id(headers: &HeaderMap) -> String {
    let brought = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let plain = |text: &&str| {
        (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
    };
    brought.filter(plain).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

fn write_problem(response: &mut Response, mut problem: Problem, id: &str) {
    if problem.status >= 500 {
        tracing::warn!(request.id = %id, code = %problem.code, detail = problem.detail, "a request was answered with a problem");
    }
    problem.request_id = Some(id.to_owned());
    let retry = match problem.code {
        Code::Overloaded => Some(by_chance(16)),
        Code::Unavailable => Some(by_chance(4)),
        _ => None,
    };
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    if let Some(seconds) = retry {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if problem.code == Code::Unauthorized {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    *response.body_mut() = Body::from(body);
}

/// Returns after how many seconds to try again: 1 to `most`, by chance, so that those who are turned away at the same
/// moment do not come back at the same moment.
pub(crate) fn by_chance(most: u32) -> u32 {
    let mut bytes = [0; 4];
    // Without chance all come back at once, which is better than never.
    let _by_chance = getrandom::fill(&mut bytes);
    1 + u32::from_ne_bytes(bytes) % most.max(1)
}

/// Answers a method that a path without layers does not have.
pub async fn no_method(request: Request) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    let problem = Problem::new(Code::MethodNotAllowed, format!("{path} has no method {method}"));
    std::future::ready(finished(request.headers(), Ok(Err(problem.into())))).await
}

/// Answers a path that is not there.
pub async fn no_route(request: Request) -> Failure {
    std::future::ready(()).await;
    Problem::new(Code::NotFound, format!("there is nothing at {}", request.uri().path()))
        .hint("/openapi.json lists every path")
        .into()
}

/// Answers a panic: the process lives on.
pub fn panicked(_panic: Box<dyn std::any::Any + Send + 'static>) -> Response {
    tracing::error!("a handler panicked");
    Failure::from(Problem::new(Code::Internal, "something went wrong inside; the log has it")).into_response()
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio_util::sync::CancellationToken;
    use tower::ServiceExt as _;

    use super::*;
    use crate::{
        Config,
        clock::Clock,
        render::{Renderer, RendererConfig, WorkerCommand},
        store::Store,
    };

    #[test]
    fn those_turned_away_at_once_come_back_one_after_the_other() {
        let times: std::collections::BTreeSet<_> = (0..1000).map(|_| by_chance(4)).collect();
        assert_eq!(times.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4]);
    }

    /// Returns the problem of an answer that is one of our own faults.
    async fn fault(answer: Response, id: &str) -> Problem {
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(answer.headers()[header::CONTENT_TYPE], MEDIA_TYPE);
        assert_eq!(answer.headers()[REQUEST_ID], id);
        let body = axum::body::to_bytes(answer.into_body(), 10_000).await.expect("a body");
        serde_json::from_slice(&body).expect("a problem")
    }

    /// S3-21, S3-31: a panic is a problem with the request's id that tells nothing of what is inside, and the next request
    /// is answered.
    #[tokio::test]
    async fn a_handler_that_panics_is_a_problem_and_the_process_lives_on() {
        async fn broken() -> StatusCode {
            panic!("the secret is 42")
        }
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}", folder.path().join("titan.db").display());
        let store = Store::open(&url).await.expect("a store");
        let worker = WorkerCommand { program: "nothing".into(), args: Vec::new() };
        let renderer = Renderer::new(RendererConfig::new(worker));
        let state = AppState::new(Config::default(), store, renderer, Clock::system(), CancellationToken::new());
        let routes = Router::new()
            .route("/broken", get(broken))
            .route("/fine", get(|| std::future::ready(StatusCode::NO_CONTENT)));
        let router = layered(routes, &state).with_state(state);
        let ask = |path: &str| {
            let request = Request::get(path).header(REQUEST_ID, "r-1").body(Body::empty()).expect("a request");
            router.clone().oneshot(request)
        };
        for _ in 0..2 {
            let problem = fault(ask("/broken").await.expect("answered"), "r-1").await;
            assert_eq!((problem.code, problem.request_id.as_deref()), (Code::Internal, Some("r-1")));
            assert!(!problem.detail.contains("42"), "{problem:?}");
            assert_eq!(ask("/fine").await.expect("answered").status(), StatusCode::NO_CONTENT);
        }
        // The same of a route without layers.
        let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_static("r-2"))]);
        let problem = fault(finished(&headers, Err(Box::new("the secret is 42"))), "r-2").await;
        assert_eq!(problem.request_id.as_deref(), Some("r-2"));
    }
}
