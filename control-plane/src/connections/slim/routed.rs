//! Requests for the router: bundles and reports.

use std::{future::poll_fn, io, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use tokio::time::timeout;
use tower::Service as _;

use super::{Agent, head::Routed};

/// How long a body may take to arrive.
const ARRIVE: Duration = Duration::from_secs(30);
/// Headers of a request, as in the head that was taken.
const HEADERS: usize = 32;

impl Agent<'_> {
    /// Has a request answered by the router. Returns whether the connection goes on.
    pub(super) async fn routed(&mut self, routed: Routed) -> bool {
        if !matches!(timeout(ARRIVE, self.arrived(routed.length + routed.body)).await, Ok(Ok(()))) {
            return false;
        }
        let Some(request) = request(&self.ahead, routed) else { return false };
        self.used(routed.length + routed.body);
        let response = match self.service.router.clone().call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        self.respond(response, routed.last).await.is_ok() && !routed.last
    }

    /// Reads until there are `length` bytes.
    async fn arrived(&mut self, length: usize) -> io::Result<()> {
        while self.ahead.len() < length {
            let read = poll_fn(|context| {
                self.poll_read(context, |ahead, bytes| {
                    ahead.extend_from_slice(bytes);
                    bytes.len()
                })
            });
            if read.await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}

/// Returns a request whose head was read before. It is the same head, so that it can be read again.
fn request(bytes: &[u8], routed: Routed) -> Option<Request<Body>> {
    let (head, rest) = bytes.split_at_checked(routed.length)?;
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    parsed.parse(head).ok()?;
    let mut request = Request::new(Body::from(Bytes::copy_from_slice(rest.get(..routed.body)?)));
    *request.method_mut() = Method::from_bytes(parsed.method?.as_bytes()).ok()?;
    *request.uri_mut() = parsed.path?.parse::<Uri>().ok()?;
    for header in parsed.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
        request.headers_mut().append(name, HeaderValue::from_bytes(header.value).ok()?);
    }
    Some(request)
}
