//! HTTP/2 over a few connections, as a gateway in front of the control plane makes them.

use std::time::Duration;

use bytes::Bytes;
use h2::{
    RecvStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use http::{HeaderValue, Request, Response, header};
use tokio::{
    sync::Mutex,
    task::{self, AbortHandle},
};

use super::{Dialer, socket::Socket};
use crate::simulator::wire::{Ask, Fault, MOST, Told};

/// What a stream may send before it is read, and a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// A slow agent takes so long over each piece.
const PAUSE: Duration = Duration::from_millis(200);

/// HTTP/2 over a few connections.
#[derive(Debug)]
pub struct Mux {
    dialer: Dialer,
    links: Vec<Mutex<Option<Link>>>,
}

#[derive(Debug)]
struct Link {
    sender: SendRequest<Bytes>,
    driver: AbortHandle,
}

impl Mux {
    pub(super) fn new(dialer: Dialer, connections: usize) -> Self {
        Self { dialer, links: (0..connections.max(1)).map(|_| Mutex::new(None)).collect() }
    }

    pub(super) async fn exchange(&self, agent: u32, ask: &Ask, slow: bool) -> Result<Told, Fault> {
        let begun = match self.begin(agent, ask).await {
            // The connection was on its way out and did not take the request: that is no answer yet.
            Err(Fault::Http2(_)) => Box::pin(self.begin(agent, ask)).await,
            begun => begun,
        };
        answer(begun?, slow).await
    }

    /// Sends a request over the agent's connection, making it if there is none.
    async fn begin(&self, agent: u32, ask: &Ask) -> Result<ResponseFuture, Fault> {
        let (sender, driver) = self.link(agent).await?;
        // One that has no room for another request is waited for.
        let begun = match sender.ready().await {
            Ok(sender) => self.send(sender, ask),
            Err(error) => Err(failed(error)),
        };
        if matches!(begun, Err(Fault::Http2(_))) {
            // Nothing new can begin on it; what is under way on it ends by itself.
            self.place(agent).lock().await.take_if(|link| link.driver.id() == driver);
        }
        begun
    }

    fn place(&self, agent: u32) -> &Mutex<Option<Link>> {
        &self.links[agent as usize % self.links.len()]
    }

    /// Returns the agent's connection, and its number.
    async fn link(&self, agent: u32) -> Result<(SendRequest<Bytes>, task::Id), Fault> {
        let mut link = self.place(agent).lock().await;
        if let Some(link) = link.as_ref().filter(|link| !link.driver.is_finished()) {
            return Ok((link.sender.clone(), link.driver.id()));
        }
        let opened = Box::pin(self.open()).await?;
        let both = (opened.sender.clone(), opened.driver.id());
        *link = Some(opened);
        Ok(both)
    }

    fn send(&self, mut sender: SendRequest<Bytes>, ask: &Ask) -> Result<ResponseFuture, Fault> {
        let method = if ask.body.is_some() { "POST" } else { "GET" };
        let uri = format!("{}://{}{}", self.dialer.scheme(), self.dialer.host, ask.path);
        let mut request = Request::builder().method(method).uri(uri);
        let mut token = HeaderValue::try_from(format!("Bearer {}", ask.token))
            .map_err(|_| Fault::Malformed("a credential that is no header"))?;
        // Every host's is another one: in the table of known headers it would only push others out.
        token.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, token);
        if ask.gzip {
            request = request.header(header::ACCEPT_ENCODING, "gzip");
        }
        if ask.body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(()).map_err(|_| Fault::Malformed("a request that is none"))?;
        let (response, mut stream) = sender.send_request(request, ask.body.is_none()).map_err(failed)?;
        if let Some(body) = &ask.body {
            stream.send_data(Bytes::from(body.clone()), true).map_err(failed)?;
        }
        Ok(response)
    }

    async fn open(&self) -> Result<Link, Fault> {
        let mut builder = Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_reset_streams(1024)
            .enable_push(false);
        let (sender, driver) = match self.dialer.dial().await? {
            Socket::Plain(stream) => {
                let (sender, connection) = builder.handshake(stream).await.map_err(failed)?;
                (sender, tokio::spawn(async move { drop(connection.await) }).abort_handle())
            }
            Socket::Tls(stream) => {
                let (sender, connection) = builder.handshake(*stream).await.map_err(failed)?;
                (sender, tokio::spawn(async move { drop(connection.await) }).abort_handle())
            }
        };
        Ok(Link { sender, driver })
    }

    pub(super) async fn drop_all(&self) {
        for link in &self.links {
            if let Some(link) = link.lock().await.take() {
                link.driver.abort();
            }
        }
    }
}

async fn answer(response: ResponseFuture, slow: bool) -> Result<Told, Fault> {
    let (mut told, mut stream) = headed(response.await.map_err(failed)?);
    while let Some(piece) = stream.data().await {
        let piece = piece.map_err(failed)?;
        told.body.extend_from_slice(&piece);
        if told.body.len() > MOST {
            return Err(Fault::Malformed("a body without end"));
        }
        if slow {
            tokio::time::sleep(PAUSE).await;
        }
        stream.flow_control().release_capacity(piece.len()).map_err(failed)?;
    }
    Ok(told)
}

/// Returns what the headers of an answer say, and its body.
fn headed(response: Response<RecvStream>) -> (Told, RecvStream) {
    let (head, stream) = response.into_parts();
    let mut told = Told { status: head.status.as_u16(), ..Told::default() };
    for (name, value) in &head.headers {
        told.header(name.as_str(), value.as_bytes());
    }
    (told, stream)
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err passes it")]
fn failed(error: h2::Error) -> Fault {
    match error.get_io() {
        Some(error) => Fault::Closed(error.kind()),
        None => Fault::Http2(error.to_string()),
    }
}
