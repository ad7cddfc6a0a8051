//! Git over HTTP(S), on the HTTP client that the agent has anyway. Packs stream in both directions.

use std::{
    fs::File,
    io::{self, Read},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use reqwest::{Certificate, Client, RequestBuilder, Response, header};
use titan_api::{
    Revision,
    client::{SystemTrust, tls},
};
use tokio::runtime::Runtime;

use super::{
    remote::RemoteError,
    wire::{self, Carrier, Request, Service, WireError},
};
use crate::config::{Credentials, GitSettings};

/// How much of a file is sent at a time.
const CHUNK: usize = 64 * 1024;

/// The carrier.
#[derive(Debug)]
pub(crate) struct Http {
    runtime: Runtime,
    client: Client,
    url: String,
    credentials: Option<Credentials>,
}

impl Http {
    /// Returns a carrier to the repository at `url`; `newest` is the newest time that the host was told by its control plane.
    pub(crate) fn new(url: &str, settings: &GitSettings, newest: Option<Revision>) -> Result<Self, RemoteError> {
        let setup = |error: &dyn std::error::Error| RemoteError::Setup(crate::settle::chain(error));
        let _already_set = rustls::crypto::ring::default_provider().install_default();
        let mut client = Client::builder()
            .user_agent(concat!("git/2.0 (titan-agent/", env!("CARGO_PKG_VERSION"), ")"))
            .connect_timeout(settings.timeout.min(Duration::from_secs(10)))
            .read_timeout(settings.timeout)
            .redirect(reqwest::redirect::Policy::none());
        if let Some(path) = &settings.ca_file {
            let pem =
                std::fs::read(path).map_err(|error| RemoteError::Setup(format!("{}: {error}", path.display())))?;
            let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| setup(&error))?;
            client = client.tls_certs_merge(certificates);
        } else {
            let tls = tls(SystemTrust::on_a_host(newest)).map_err(|error| setup(&error))?;
            client = client.tls_backend_preconfigured(tls);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self {
            runtime: runtime.map_err(|error| setup(&error))?,
            client: client.build().map_err(|error| setup(&error))?,
            url: url.to_owned(),
            credentials: settings.credentials.clone(),
        })
    }

    fn send(&self, request: RequestBuilder, expected: &str) -> Result<Response, WireError> {
        let request = match &self.credentials {
            Some(Credentials { username, password }) => request.basic_auth(username, Some(password.reveal())),
            None => request,
        };
        // Sent from inside: its timers belong to this runtime, whatever thread this is.
        let response = self.runtime.block_on(async { request.send().await }).map_err(other)?;
        let status = response.status();
        if !status.is_success() {
            return Err(WireError::Said(match status.as_u16() {
                401 if self.credentials.is_none() => {
                    "401: it wants a user and password; set git.credentials".to_owned()
                }
                401 | 403 => format!("{status}: the credentials are not accepted"),
                404 => "404: there is no such repository, or the credentials do not show it".to_owned(),
                300..=399 => {
                    let to = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("?");
                    format!("{status}: it has moved to {to}; set git.remote to that")
                }
                _ => status.to_string(),
            }));
        }
        let media = response.headers().get(header::CONTENT_TYPE).and_then(|media| media.to_str().ok());
        let media = media.unwrap_or("no media type");
        if media != expected {
            return Err(WireError::Protocol(format!("it answers with {media}")));
        }
        Ok(response)
    }
}

fn other(error: reqwest::Error) -> WireError {
    WireError::Io(io::Error::other(error))
}

impl Carrier for Http {
    fn open(&mut self, service: Service) -> Result<Box<dyn Read + '_>, WireError> {
        let name = service.name();
        let request = self.client.get(format!("{}/info/refs?service={name}", self.url));
        let response = self.send(request, &format!("application/x-{name}-advertisement"))?;
        let mut body = Body { runtime: &self.runtime, response, rest: Bytes::new() };
        // `# service=...` and the end of that section.
        let first = wire::read_packet(&mut body)?;
        if !first.is_some_and(|line| line.starts_with(b"# service=")) || wire::read_packet(&mut body)?.is_some() {
            return Err(WireError::Protocol("it does not begin with the service".to_owned()));
        }
        Ok(Box::new(body))
    }

    fn exchange(&mut self, service: Service, request: Request) -> Result<Box<dyn Read + '_>, WireError> {
        let name = service.name();
        let post = self
            .client
            .post(format!("{}/{name}", self.url))
            .header(header::CONTENT_TYPE, format!("application/x-{name}-request"))
            .header(header::ACCEPT, format!("application/x-{name}-result"));
        let post = post.body(match request.pack {
            None => reqwest::Body::from(request.head),
            Some((file, length)) => {
                let left = request.head.len() as u64 + length;
                reqwest::Body::wrap(Upload { head: Some(request.head.into()), file, left })
            }
        });
        let response = self.send(post, &format!("application/x-{name}-result"))?;
        Ok(Box::new(Body { runtime: &self.runtime, response, rest: Bytes::new() }))
    }

    fn close(&mut self) -> Result<(), WireError> {
        Ok(())
    }
}

/// The body of an answer, read as it comes.
struct Body<'a> {
    runtime: &'a Runtime,
    response: Response,
    rest: Bytes,
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.runtime.block_on(self.response.chunk()).map_err(io::Error::other)? {
                Some(chunk) => self.rest = chunk,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.rest.len());
        buffer[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}

/// The body of a request: some lines, then a file, with a length that is known, since not every server takes a body
/// without one.
struct Upload {
    head: Option<Bytes>,
    file: File,
    left: u64,
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let bytes = match self.head.take() {
            Some(head) => head,
            None => {
                // A file does not keep one waiting for long, and nothing else runs on this runtime.
                let mut chunk = vec![0; CHUNK];
                match self.file.read(&mut chunk) {
                    Ok(0) => return Poll::Ready(None),
                    Ok(count) => {
                        chunk.truncate(count);
                        chunk.into()
                    }
                    Err(error) => return Poll::Ready(Some(Err(error))),
                }
            }
        };
        self.left = self.left.saturating_sub(bytes.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
