//! HTTP/2: many hosts on one connection, as behind a gateway. Polls are picked out in front of the router.
//!
//! A connection is one task. Polls that wait are a list in it; whatever else is asked has a task of its own until it is
//! answered, of what hosts ask so many at a time.

mod alive;
mod line;
mod routed;
mod turns;
mod waiting;

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use h2::{
    RecvStream,
    server::{Builder, Connection, SendResponse},
};
use http::{HeaderMap, HeaderValue, Method, Request, header};
use titan_api::{Code, Problem};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::{HEAD, SILENCE, Service, stream::Stream};
use crate::{
    access,
    fleet::view::Slot,
    load,
    metrics::connections::{Level, Transport},
    routes::{
        polls::{self, Ask, Told, ask, catch_up::covered},
        respond::{Answer, REQUEST_ID, by_chance, finished},
    },
    state::AppState,
};
use alive::Alive;
use line::{Line, Seat};
use turns::{Turn, Turns};
use waiting::{Back, Outcome, Waiting};

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
/// Bytes of headers that are remembered for a client, so that it can name them. Each of them would keep the 4 KiB into which
/// it was once decoded, and most of what a gateway sends is different for each host.
const REMEMBERED: u32 = 0;
/// Requests that are taken in before the first of them is answered: their answers travel together.
const TOGETHER: usize = 32;

/// Serves a connection until its end.
pub(super) async fn serve(stream: Stream, service: &Service) {
    let _open = service.metrics.open(Transport::Http2);
    // It needs more than the connection does later on.
    let Some(mut gateway) = Box::pin(begun(stream, service)).await else { return };
    let mut drained = pin!(service.drain.cancelled());
    let ended = poll_fn(|context| {
        if !gateway.ending && drained.as_mut().poll(context).is_ready() {
            gateway.end();
        }
        gateway.poll(context)
    });
    if let Err(error) = ended.await {
        broke(&error);
    }
}

/// Greets a client.
async fn begun(stream: Stream, service: &Service) -> Option<Box<Gateway<'_>>> {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buffer_size(HELD_BACK)
        .max_header_list_size(HEADERS)
        .header_table_size(REMEMBERED);
    let (turns, turn) = Turns::of(stream);
    let begun = tokio::select! {
        begun = timeout(HEAD, builder.handshake(turns)) => begun,
        () = service.drain.cancelled() => return None,
    };
    match begun {
        Ok(Ok(connection)) => Some(Box::new(Gateway::of(connection, turn, service))),
        Ok(Err(error)) => {
            broke(&error);
            None
        }
        Err(_) => {
            service.metrics.timed_out.inc();
            None
        }
    }
}

fn broke(error: &h2::Error) {
    tracing::debug!(error = error as &dyn std::error::Error, "a connection broke");
}

/// A connection on which many ask.
struct Gateway<'c> {
    connection: Connection<Turns<Stream>, Bytes>,
    turn: Turn,
    service: &'c Service,
    waiting: Waiting,
    /// What hosts asked that takes more than a look.
    line: Line,
    /// Requests of others.
    under_way: Level,
    alive: Option<Alive>,
    /// Whether there was a request since somebody looked.
    used: bool,
    /// When somebody looks next.
    look: Instant,
    /// Whether no more is asked.
    ending: bool,
    /// One for all times.
    timer: Pin<Box<Sleep>>,
}

impl<'c> Gateway<'c> {
    fn of(mut connection: Connection<Turns<Stream>, Bytes>, turn: Turn, service: &'c Service) -> Self {
        let look = Instant::now() + SILENCE;
        Self {
            alive: connection.ping_pong().map(Alive::of),
            connection,
            turn,
            service,
            waiting: Waiting::new(),
            line: Line::default(),
            under_way: Level::default(),
            used: true,
            look,
            ending: false,
            timer: Box::pin(sleep_until(look)),
        }
    }

    /// Tells the client to ask elsewhere.
    fn end(&mut self) {
        self.ending = true;
        self.connection.graceful_shutdown();
    }

    /// Does all that can be done; is over when the connection is.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        loop {
            let mut asked = Vec::new();
            while asked.len() < TOGETHER
                && let Poll::Ready(next) = self.connection.poll_accept(context)
            {
                match next {
                    Some(Ok(request)) => asked.push(request),
                    Some(Err(error)) => return Poll::Ready(Err(error)),
                    None => return Poll::Ready(Ok(())),
                }
            }
            let mut progress = self.turn.next() || !asked.is_empty();
            for (request, respond) in asked {
                self.take(request, respond);
            }
            for (back, outcome) in self.waiting.over(&self.service.state, context) {
                progress = true;
                self.tell(back, outcome);
            }
            self.line.go_on(context);
            // What is to be written is written by the connection.
            if progress {
                continue;
            }
            if !self.in_time(context) {
                self.service.metrics.timed_out.inc();
                return Poll::Ready(Ok(()));
            }
            let next = self.next();
            if self.timer.deadline() != next {
                self.timer.as_mut().reset(next);
            }
            if self.timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Returns when something is to be done at the latest.
    fn next(&self) -> Instant {
        let times = [self.alive.as_ref().map(Alive::next), self.waiting.earliest()];
        times.into_iter().flatten().fold(self.look, Instant::min)
    }

    /// Looks whether the client is there, and whether it has said nothing for a while; `false` if it is gone.
    fn in_time(&mut self, context: &mut Context<'_>) -> bool {
        if let Some(alive) = &mut self.alive
            && !alive.poll(context, || self.turn.heard())
        {
            return false;
        }
        if self.look <= Instant::now() {
            self.look += SILENCE;
            let idle = self.waiting.is_empty() && self.line.is_empty() && self.under_way.get() == 0;
            if !std::mem::take(&mut self.used) && idle && !self.ending {
                self.end();
            }
        }
        true
    }

    /// Takes in a request.
    fn take(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        self.used = true;
        let state = &self.service.state;
        let Some(poll) = Usual::of(&request) else {
            let router = self.service.router.clone();
            if routed::is_for_a_bundle(&request) {
                self.line.begin(&self.service.metrics, respond, move |respond, seat| {
                    tokio::spawn(routed::routed(router, request, respond, Some(seat)));
                });
            } else {
                let under_way = self.under_way.hold();
                tokio::spawn(async move {
                    let _under_way = under_way;
                    routed::routed(router, request, respond, None).await;
                });
            }
            return;
        };
        let ask = poll.ask;
        let known = polls::recognised(state, poll.host, poll.secret).ok_or_else(|| poll.shown());
        let id = request.headers().get(REQUEST_ID).cloned().map(Box::new);
        // The request with its headers is gone before the wait begins.
        drop(request);
        let back = Back { respond, id };
        let slot = match known {
            Ok(slot) => slot,
            Err((host, secret)) => {
                if let Some(seconds) = self.crowd() {
                    return self.put_off(back, seconds);
                }
                let state = state.clone();
                self.answer(back, move |seat| async move {
                    let slot = Box::pin(polls::identified(&state, &host, &secret)).await;
                    polled(&state, slot, &ask, seat).await
                });
                return;
            }
        };
        if let Some(unchanged) = polls::at_once(state, &slot, &ask) {
            reply(back, unchanged);
        } else if ask.wait > 0 && ask.since.is_none_or(|since| covered(state, since)) {
            if let Some((back, outcome)) = self.waiting.hold(state, slot, ask, back) {
                match self.crowd() {
                    Some(seconds) => self.put_off(back, seconds),
                    None => self.tell(back, outcome),
                }
            }
        } else if let Some(seconds) = self.crowd() {
            self.put_off(back, seconds);
        } else {
            let state = state.clone();
            self.answer(back, move |seat| async move { polled(&state, Ok(slot), &ask, seat).await });
        }
    }

    /// Returns for how many seconds a host that asks now is put off, if it is.
    fn crowd(&self) -> Option<u32> {
        let waiting = if self.line.waits() { self.service.metrics.in_line.get() } else { 0 };
        line::crowd(waiting, || load::poll_after(&self.service.state, false))
    }

    /// Asks a host to come again within so many seconds.
    fn put_off(&self, back: Back, seconds: u32) {
        self.service.metrics.refused.inc();
        let problem = Problem::new(Code::Overloaded, "too many hosts ask for more than can be told them at the moment")
            .hint("ask again after the time in Retry-After");
        let mut response = answered(Err(problem.into()), back.id);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(by_chance(seconds)));
        tokio::spawn(routed::send(response, back.respond, false, None));
    }

    /// Tells what became of a poll.
    fn tell(&mut self, back: Back, outcome: Outcome) {
        match outcome {
            Outcome::Unchanged(unchanged) => reply(back, unchanged),
            Outcome::Moved(moved, gzip) => {
                let state = self.service.state.clone();
                self.answer(back, move |seat| async move { (polls::changed(&state, *moved, gzip).await, Some(seat)) });
            }
        }
    }

    /// Answers when it is the poll's turn, in a task of its own, which ends when nobody waits for the answer any more.
    fn answer<T>(&mut self, back: Back, told: impl FnOnce(Seat) -> T + Send + 'static)
    where
        T: Future<Output = (Answer<Told>, Option<Seat>)> + Send + 'static,
    {
        let Back { respond, id } = back;
        self.line.begin(&self.service.metrics, respond, move |respond, seat| {
            tokio::spawn(answer(Back { respond, id }, told(seat)));
        });
    }
}

async fn answer(Back { mut respond, id }: Back, told: impl Future<Output = (Answer<Told>, Option<Seat>)>) {
    let mut told = pin!(told);
    let told = poll_fn(|context| {
        if respond.poll_reset(context).is_ready() {
            return Poll::Ready(None);
        }
        told.as_mut().poll(context).map(Some)
    });
    if let Some((told, seat)) = told.await {
        routed::send(answered(told.map(Told::into_response), id), respond, false, seat).await;
    }
}

/// Tells a host what it polled for. Whoever has but to wait for news keeps no seat.
async fn polled(
    state: &AppState,
    slot: Result<Arc<Slot>, Problem>,
    ask: &Ask,
    seat: Seat,
) -> (Answer<Told>, Option<Seat>) {
    let mut seat = Some(seat);
    let told = match slot {
        Ok(slot) => polls::told_in_time(state, &slot, ask, || seat = None).await,
        Err(problem) => Err(problem.into()),
    };
    (told, seat)
}

/// A poll of the usual sort.
struct Usual<'r> {
    host: &'r str,
    secret: &'r [u8],
    ask: Ask,
}

impl<'r> Usual<'r> {
    /// Reads a request; `None` for any other, which the router may still take.
    fn of(request: &'r Request<RecvStream>) -> Option<Self> {
        if *request.method() != Method::GET || !request.body().is_end_stream() {
            return None;
        }
        let headers = request.headers();
        let host = ask::host(request.uri().path())?;
        let ask = Ask::read(request.uri().query().unwrap_or_default().as_bytes())?;
        let secret = access::bearer(headers.get(header::AUTHORIZATION)?.as_bytes())?;
        let mut accepted = headers.get_all(header::ACCEPT_ENCODING).into_iter();
        let gzip = accepted.any(|value| ask::takes_gzip(value.as_bytes()));
        Some(Self { host, secret, ask: Ask { gzip, ..ask } })
    }

    /// Returns the name and the secret, to be looked up.
    fn shown(&self) -> (String, Vec<u8>) {
        (self.host.to_owned(), self.secret.to_vec())
    }
}

/// Answers that nothing moved.
fn reply(Back { mut respond, id }: Back, unchanged: polls::Unchanged) {
    let mut response = Told::Unchanged(unchanged).into_response();
    if id.is_some() {
        response = answered(Ok(response), id);
    }
    // Whoever is gone does not hear it.
    let _sent = respond.send_response(response.map(|_nothing| ()), true);
}

/// Gives an answer the id of its request where it takes one.
fn answered(answer: Answer<Response>, id: Option<Box<HeaderValue>>) -> Response {
    let mut headers = HeaderMap::new();
    if let Some(id) = id {
        headers.insert(REQUEST_ID, *id);
    }
    finished(&headers, Ok(answer))
}
