//! Requests for the router, and answers with a body.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{Router, body::Body, response::Response};
use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use jiff::{Timestamp, fmt::rfc2822::DateTimePrinter};
use tokio::time::{Instant, timeout};
use tower::Service as _;

use super::line::Seat;

/// What speaks of the connection, and has no place where there are many requests on one.
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
];

/// How long an answer keeps its seat while its reader has no room for more of it, all in all.
const STALLED: Duration = Duration::from_secs(5);

/// Whether a host asks for a bundle.
pub(super) fn is_for_a_bundle<B>(request: &Request<B>) -> bool {
    let of_host = request.uri().path().strip_prefix("/v1/hosts/").and_then(|rest| rest.split_once('/'));
    *request.method() == Method::GET && of_host.is_some_and(|(_, what)| what.starts_with("bundles/"))
}

/// Has the router answer a request.
pub(super) async fn routed(
    mut router: Router,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    seat: Option<Seat>,
) {
    let head = *request.method() == Method::HEAD;
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let request = request.map(|stream| Body::new(Arriving { stream, length, data: true }));
    let mut answered = pin!(router.call(request));
    let answered = poll_fn(|context| {
        if respond.poll_reset(context).is_ready() {
            return Poll::Ready(None);
        }
        answered.as_mut().poll(context).map(Some)
    });
    if let Some(Ok(response)) = answered.await {
        send(response, respond, head, seat).await;
    }
}

/// The body of a request, on its way.
#[derive(Debug)]
struct Arriving {
    stream: RecvStream,
    /// Bytes that are still to come, if that was said.
    length: Option<u64>,
    /// Whether data may come; then trailers do.
    data: bool,
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if self.data {
            if let Some(data) = ready!(self.stream.poll_data(context)) {
                let data = match data {
                    Ok(data) => data,
                    // Nobody wants the rest of it, and nothing is wrong with what came.
                    Err(error) if error.reason() == Some(Reason::NO_ERROR) => return Poll::Ready(None),
                    Err(error) => return Poll::Ready(Some(Err(error))),
                };
                // Handlers bound what they take; so much more may be sent.
                let released = self.stream.flow_control().release_capacity(data.len());
                self.length = self.length.map(|length| length.saturating_sub(data.len() as u64));
                return Poll::Ready(Some(released.map(|()| Frame::data(data))));
            }
            self.data = false;
        }
        // Nobody looks at trailers.
        Poll::Ready(ready!(self.stream.poll_trailers(context)).err().map(Err))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() {
            return SizeHint::with_exact(0);
        }
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Sends an answer; `head` says that nobody wants its body. Its seat goes with the last of its bytes.
pub(super) async fn send(response: Response, mut respond: SendResponse<Bytes>, head: bool, seat: Option<Seat>) {
    let (mut parts, body) = response.into_parts();
    let exact = body.size_hint().exact();
    prepare(&mut parts.headers, exact.filter(|length| *length > 0 || !(head || is_empty(parts.status))));
    let ended = head || body.is_end_stream();
    let Ok(mut stream) = respond.send_response(http::Response::from_parts(parts, ()), ended) else { return };
    if !ended && let Err(reason) = pour(body, &mut stream, seat).await {
        stream.send_reset(reason);
    }
}

fn is_empty(status: http::StatusCode) -> bool {
    status == http::StatusCode::NO_CONTENT || status == http::StatusCode::NOT_MODIFIED || status.is_informational()
}

/// Puts in order what the headers of an answer say of the connection, of the time and of the length.
fn prepare(headers: &mut HeaderMap, length: Option<u64>) {
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    if !headers.contains_key(header::DATE) {
        let mut date = String::new();
        if DateTimePrinter::new().print_timestamp_rfc9110(&Timestamp::now(), &mut date).is_ok()
            && let Ok(date) = HeaderValue::try_from(date)
        {
            headers.insert(header::DATE, date);
        }
    }
    if let Some(length) = length {
        headers.entry(header::CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
}

/// Sends a body as fast as its reader takes it.
async fn pour(mut body: Body, stream: &mut SendStream<Bytes>, mut seat: Option<Seat>) -> Result<(), Reason> {
    let mut patience = STALLED;
    loop {
        let mut next = pin!(body.frame());
        let frame = poll_fn(|context| {
            // Whoever gave up waits for nothing.
            if let Poll::Ready(reason) = stream.poll_reset(context) {
                return Poll::Ready(Err(reason.unwrap_or(Reason::CANCEL)));
            }
            next.as_mut().poll(context).map(Ok)
        });
        match frame.await? {
            None => return end(stream, &mut seat),
            Some(Err(_)) => return Err(Reason::INTERNAL_ERROR),
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                let last = body.is_end_stream();
                piecewise(data, last, stream, &mut seat, &mut patience).await?;
                if last {
                    return Ok(());
                }
            }
        }
    }
}

/// Sends bytes in pieces that fit into what the reader has room for.
async fn piecewise(
    mut data: Bytes,
    last: bool,
    stream: &mut SendStream<Bytes>,
    seat: &mut Option<Seat>,
    patience: &mut Duration,
) -> Result<(), Reason> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        if stream.capacity() == 0 {
            let begun = Instant::now();
            let mut more = pin!(more(stream));
            match timeout(*patience, more.as_mut()).await {
                Ok(more) => {
                    more?;
                    *patience = patience.saturating_sub(begun.elapsed());
                }
                // Whoever does not read keeps nobody else from being answered.
                Err(_) => {
                    *seat = None;
                    more.await?;
                }
            }
        }
        let mut piece = data.split_to(stream.capacity().min(data.len()));
        let ended = last && data.is_empty();
        if ended && let Some(seat) = seat.take() {
            piece = seat.on(piece);
        }
        stream.send_data(piece, ended).map_err(|_| Reason::CANCEL)?;
        if ended {
            return Ok(());
        }
    }
    if last { end(stream, seat) } else { Ok(()) }
}

/// Ends a body. Its seat goes with it, behind all that is still to be taken.
fn end(stream: &mut SendStream<Bytes>, seat: &mut Option<Seat>) -> Result<(), Reason> {
    let nothing = seat.take().map_or_else(Bytes::new, |seat| seat.on(Bytes::new()));
    stream.send_data(nothing, true).map_err(|_| Reason::CANCEL)
}

/// Waits until the reader has room.
async fn more(stream: &mut SendStream<Bytes>) -> Result<(), Reason> {
    while stream.capacity() == 0 {
        let more = poll_fn(|context| {
            if let Poll::Ready(reason) = stream.poll_reset(context) {
                return Poll::Ready(Err(reason.unwrap_or(Reason::CANCEL)));
            }
            stream.poll_capacity(context).map(Ok)
        });
        match more.await? {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Err(Reason::CANCEL),
        }
    }
    Ok(())
}
