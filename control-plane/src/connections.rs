//! Connections: taking them in, what is spoken on them, and their end.
//!
//! An agent sends three sorts of requests, and nearly always the same one. A narrow server of our own takes those over
//! HTTP/1.1; whatever else comes is handed, with the bytes that were read, to the general server for the rest of the
//! connection. Over HTTP/2 polls are picked out in front of the router. Everything that a peer can hold has a bound.

mod general;
mod limits;
mod multiplexed;
pub(crate) mod places;
mod slim;
mod stream;
pub(crate) mod tls;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::Router;
use rustls::{HandshakeKind, ServerConfig};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::connections::{ConnectionMetrics, Handshake, Transport},
    state::AppState,
};
use stream::Stream;

/// Handshakes at a time; a storm of hosts that come back waits in line.
const HANDSHAKES: usize = 512;
/// How long a handshake may take once it has its turn.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a peer may take to send the head of its request.
const HEAD: Duration = Duration::from_secs(10);
/// How long a connection may be silent between requests, at least; at most twice that. Longer than clients keep one.
const SILENCE: Duration = Duration::from_secs(100);
/// Connections that the system keeps until they are accepted, if it may be so many: in a storm those over it are lost at
/// first, and come again a second later.
const QUEUE: u32 = 4096;
/// How long to wait before accepting goes on after the system refused.
const REFUSED: Duration = Duration::from_millis(100);
/// How long the end of a connection may take to be told.
const FAREWELL: Duration = Duration::from_secs(1);

/// What all connections share.
#[derive(Debug)]
struct Service {
    state: AppState,
    router: Router,
    tls: Option<Arc<ServerConfig>>,
    handshakes: Semaphore,
    metrics: Arc<ConnectionMetrics>,
    /// Asked for with each wake-up of a connection, so that it must cost nothing.
    draining: AtomicBool,
    /// Wakes the connections when draining begins.
    drain: CancellationToken,
}

/// Listens on an address.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // One that was closed a moment ago is no hindrance.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(QUEUE)
}

/// Serves connections of `listener` until `shutdown`; then the requests under way get `grace` to finish.
pub(crate) async fn serve(
    listener: TcpListener,
    state: AppState,
    router: Router,
    tls: Option<Arc<ServerConfig>>,
    grace: Duration,
) {
    let limit = state.config.connections.unwrap_or_else(limits::connections);
    let shutdown = state.shutdown.clone();
    let metrics = Arc::clone(&state.metrics.connections);
    let service = Arc::new(Service {
        state,
        router,
        tls,
        handshakes: Semaphore::new(HANDSHAKES),
        metrics,
        draining: AtomicBool::new(false),
        drain: CancellationToken::new(),
    });
    let places = Arc::new(Semaphore::new(limit));
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(_) = open.join_next() => {}
            accepted = accept(&listener, &places) => {
                if let Some((socket, place)) = accepted {
                    open.spawn(connection(Arc::clone(&service), socket, place));
                }
            }
        }
    }
    // Whoever connects now is refused by the system and tries again where somebody answers.
    drop(listener);
    service.draining.store(true, Ordering::SeqCst);
    service.drain.cancel();
    if timeout(grace, async { while open.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!(grace_seconds = grace.as_secs(), "some requests did not finish in time");
    }
    open.shutdown().await;
}

/// Takes in a connection once there is a place for it: over the limit new ones wait in the system's queue.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((socket, _)) => Some((socket, place)),
        Err(error) => {
            let peer = matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset);
            if !peer {
                tracing::warn!(error = &error as &dyn std::error::Error, "a connection cannot be accepted");
                tokio::time::sleep(REFUSED).await;
            }
            None
        }
    }
}

/// Serves a connection until its end.
async fn connection(service: Arc<Service>, socket: TcpStream, _place: OwnedSemaphorePermit) {
    // Answers are small and somebody waits for each: they are not held back to be sent with the next.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let (mut stream, multiplexed) = match &service.tls {
        None => (Stream::clear(socket, Arc::clone(&service.metrics)), false),
        Some(tls) => match Box::pin(shaken(&service, tls, socket)).await {
            Some(shaken) => shaken,
            None => return,
        },
    };
    if multiplexed {
        return Box::pin(multiplexed::serve(stream, &service)).await;
    }
    let open = service.metrics.open(Transport::Agent);
    let Some(ahead) = slim::serve(&mut stream, &service).await else {
        let _gone_already = timeout(FAREWELL, stream.shutdown()).await;
        return;
    };
    drop(open);
    if ahead.starts_with(multiplexed::PREFACE) {
        Box::pin(multiplexed::serve(stream.rewound(ahead), &service)).await;
    } else {
        Box::pin(general::serve(stream.rewound(ahead), &service)).await;
    }
}

/// Shakes hands; returns the connection and whether HTTP/2 was agreed on.
async fn shaken(service: &Service, tls: &Arc<ServerConfig>, socket: TcpStream) -> Option<(Stream, bool)> {
    // Whoever says nothing waits outside of the line.
    let spoke = timeout(HANDSHAKE, socket.readable()).await;
    let outcome = match spoke {
        Ok(Ok(())) => {
            let _turn = service.handshakes.acquire().await.ok()?;
            let accept = TlsAcceptor::from(Arc::clone(tls)).accept_with(socket, tls::bound);
            timeout(HANDSHAKE, accept).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    match outcome {
        Ok(stream) => {
            let (_, session) = stream.get_ref();
            let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
            service.metrics.shaken(if resumed { Handshake::Resumed } else { Handshake::Full });
            let multiplexed = session.alpn_protocol() == Some(b"h2");
            Some((Stream::tls(stream, Arc::clone(&service.metrics)), multiplexed))
        }
        Err(error) => {
            service.metrics.shaken(Handshake::Failed);
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
    }
}
