//! HTTP/1.1 in any form: people, pipelines, browsers, and agents with a large report.

use std::{pin::pin, time::Duration};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};

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
    let router = TowerToHyperService::new(service.router.clone());
    let mut served = pin!(server.serve_connection(TokioIo::new(stream), router));
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
