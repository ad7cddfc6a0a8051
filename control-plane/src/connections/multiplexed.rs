//! HTTP/2: many hosts on one connection, as behind a gateway. Polls are picked out in front of the router.

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderValue, Method, Request, header};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http2,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tower::Service as _;

use super::{SILENCE, Service, stream::Stream};
use crate::{
    access,
    fleet::view::Slot,
    metrics::connections::{Held, Level, Transport},
    routes::{
        polls::{self, Ask, Told, ask},
        respond::{REQUEST_ID, finished},
    },
    state::AppState,
};

/// With what a client begins HTTP/2.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Requests at a time on one connection.
const STREAMS: u32 = 256;
/// Bytes that a client may send ahead, on one stream and on all.
const STREAM_WINDOW: u32 = 64 * 1024;
const WINDOW: u32 = 1024 * 1024;
/// Bytes that are held back for a stream whose client does not read.
const HELD_BACK: usize = 64 * 1024;
/// Bytes of all headers of a request.
const HEADERS: u32 = 16 * 1024;
/// How often a silent client is asked whether it is there, and how long it may take to say so.
const ALIVE: Duration = Duration::from_secs(45);
const ANSWERED: Duration = Duration::from_secs(20);

/// Serves a connection until its end.
pub(super) async fn serve(stream: Stream, service: &Service) {
    let _open = service.metrics.open(Transport::Http2);
    let front = Front(Arc::new(Shared {
        state: service.state.clone(),
        router: service.router.clone(),
        under_way: Level::default(),
        used: AtomicBool::new(false),
    }));
    let shared = Arc::clone(&front.0);
    let mut server = http2::Builder::new(TokioExecutor::new());
    server
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(HELD_BACK)
        .max_header_list_size(HEADERS)
        .keep_alive_interval(ALIVE)
        .keep_alive_timeout(ANSWERED);
    let mut served = pin!(server.serve_connection(TokioIo::new(stream), front));
    let mut ending = false;
    let ended = loop {
        tokio::select! {
            ended = served.as_mut() => break ended,
            () = service.drain.cancelled(), if !ending => ending = true,
            () = silent(&shared), if !ending => ending = true,
        }
        served.as_mut().graceful_shutdown();
    };
    if let Err(error) = ended {
        tracing::debug!(error = &error as &dyn std::error::Error, "a connection broke");
    }
}

/// Ends when nothing was asked for a while.
async fn silent(shared: &Shared) {
    loop {
        tokio::time::sleep(SILENCE).await;
        if !shared.used.swap(false, Ordering::Relaxed) && shared.under_way.get() == 0 {
            return;
        }
    }
}

/// What is asked of on one connection.
#[derive(Debug, Clone)]
struct Front(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: AppState,
    router: axum::Router,
    /// Requests that are not answered.
    under_way: Level,
    /// Whether there was one since somebody looked.
    used: AtomicBool,
}

/// An answer on its way. It is boxed at its own size: a held poll is what there are many of, and it is small.
type Answering = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

impl hyper::service::Service<Request<Incoming>> for Front {
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        let shared = &self.0;
        shared.used.store(true, Ordering::Relaxed);
        let under_way = shared.under_way.hold();
        let Some((slot, ask)) = recognised(&shared.state, &request) else {
            let mut router = shared.router.clone();
            return Box::pin(async move {
                let _under_way = under_way;
                router.call(request).await
            });
        };
        let id = request.headers().get(REQUEST_ID).cloned().map(Box::new);
        if let Some(unchanged) = polls::at_once(&shared.state, &slot, &ask) {
            let mut response = Told::Unchanged(unchanged).into_response();
            if let Some(id) = id {
                response = answered(Ok(response), Some(id));
            }
            return Box::pin(std::future::ready(Ok(response)));
        }
        // The request with its headers is gone before the wait begins.
        drop(request);
        Box::pin(held(Arc::clone(shared), slot, ask, id, under_way))
    }
}

/// Returns whose poll a request is and what it asks, if it is one of the usual sort.
fn recognised(state: &AppState, request: &Request<Incoming>) -> Option<(Arc<Slot>, Ask)> {
    if *request.method() != Method::GET || !request.body().is_end_stream() {
        return None;
    }
    let headers = request.headers();
    let host = ask::host(request.uri().path())?;
    let ask = Ask::read(request.uri().query().unwrap_or_default().as_bytes())?;
    let secret = access::bearer(headers.get(header::AUTHORIZATION)?.as_bytes())?;
    let slot = polls::recognised(state, host, secret)?;
    let mut accepted = headers.get_all(header::ACCEPT_ENCODING).into_iter();
    Some((slot, Ask { gzip: accepted.any(|value| ask::takes_gzip(value.as_bytes())), ..ask }))
}

/// Holds a poll.
#[expect(clippy::manual_async_fn, reason = "an async function would keep what it is given twice")]
fn held(
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    ask: Ask,
    id: Option<Box<HeaderValue>>,
    under_way: Held,
) -> impl Future<Output = Result<Response, Infallible>> + Send {
    async move {
        let _under_way = under_way;
        let told = polls::told(&shared.state, &slot, &ask).await;
        Ok(answered(told.map(Told::into_response), id))
    }
}

/// Gives an answer the id of its request where it takes one.
fn answered(answer: crate::routes::respond::Answer<Response>, id: Option<Box<HeaderValue>>) -> Response {
    let mut headers = HeaderMap::new();
    if let Some(id) = id {
        headers.insert(REQUEST_ID, *id);
    }
    finished(&headers, Ok(answer)).map(Body::new)
}
