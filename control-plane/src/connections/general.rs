//! HTTP/1.1 in any form: people, pipelines, browsers, and agents with a large report.
//!
//! A request whose body has chunks is the last one of its connection. A proxy in front may have seen its end elsewhere,
//! and what comes behind it must not be taken for a request of somebody else.

use std::{convert::Infallible, pin::pin, time::Duration};

use http::{HeaderValue, Request, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tower::Service as _;

use super::{Service, stream::Stream};
use crate::metrics::connections::Transport;

/// How long a connection may take for the head of its next request, silence before it included.
const HEAD: Duration = Duration::from_secs(60);
/// Bytes that are read ahead of a handler, and of a head, at most.
const BUFFER: usize = 64 * 1024;

/// Serves a connection until its end.
pub(super) async fn serve(stream: Stream, service: &Service) {
    let _open = service.metrics.open(Transport::Http1);
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(BUFFER);
    let router = service.router.clone();
    let answer = service_fn(move |request: Request<Incoming>| {
        let last = request.headers().contains_key(header::TRANSFER_ENCODING);
        let answered = router.clone().call(request);
        async move {
            let mut response = answered.await?;
            if last {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut served = pin!(server.serve_connection(TokioIo::new(stream), answer));
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = service.drain.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        if error.is_timeout() {
            service.metrics.timed_out.inc();
        }
        tracing::debug!(error = &error as &dyn std::error::Error, "a connection broke");
    }
}
