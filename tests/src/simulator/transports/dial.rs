//! Making connections.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustls::{HandshakeKind, pki_types::ServerName};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use super::{Place, socket::Socket, tls};
use crate::simulator::{tally::Tally, wire::Fault};

/// How long a connection may take to be made.
const PATIENCE: Duration = Duration::from_secs(30);
/// Addresses of the loopback that connections come from in turn: one alone has 28 000 ports, and each is taken for a minute
/// after its connection was closed.
const SOURCES: u32 = 250;

/// Makes connections to the control plane.
pub struct Dialer {
    address: SocketAddr,
    /// What stands in the header `host`.
    pub(super) host: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    pub(super) tally: Arc<Tally>,
    next: AtomicU32,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Dialer {
    /// Makes a dialer that offers `protocol`.
    pub(super) fn new(place: &Place, protocol: &[u8], resumption: bool, tally: Arc<Tally>) -> anyhow::Result<Self> {
        let found: Vec<_> = std::net::ToSocketAddrs::to_socket_addrs(&place.address)
            .with_context(|| format!("{} is no address", place.address))?
            .collect();
        let address = found.iter().find(|address| address.is_ipv4()).or(found.first());
        let address = *address.with_context(|| format!("{} has no address", place.address))?;
        let tls = match &place.trusted {
            Some(trusted) => {
                let name = place.address.rsplit_once(':').map_or(place.address.as_str(), |(host, _)| host).to_owned();
                Some((tls::connector(trusted, protocol, resumption)?, ServerName::try_from(name)?))
            }
            None => None,
        };
        Ok(Self { address, host: place.address.clone(), tls, tally, next: AtomicU32::new(0) })
    }

    /// Returns the scheme of its URLs.
    pub(super) const fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Connects.
    pub(super) async fn dial(&self) -> Result<Socket, Fault> {
        let begun = Instant::now();
        let dialled = tokio::time::timeout(PATIENCE, self.open()).await.map_err(|_| Fault::Timeout)??;
        self.tally.connects.one();
        self.tally.connecting.add(begun.elapsed());
        Ok(dialled)
    }

    async fn open(&self) -> Result<Socket, Fault> {
        let failed = |error: std::io::Error| Fault::Connect(error.kind());
        let stream = self.stream().await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let Some((connector, name)) = &self.tls else { return Ok(Socket::Plain(stream)) };
        let stream = connector.connect(name.clone(), stream).await.map_err(|error| Fault::Handshake(error.kind()))?;
        let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        let (full, again) = &self.tally.handshakes;
        if resumed {
            again.one()
        } else {
            full.one()
        }
        Ok(Socket::Tls(Box::new(stream)))
    }

    async fn stream(&self) -> std::io::Result<TcpStream> {
        if self.address.ip() != IpAddr::V4(Ipv4Addr::LOCALHOST) {
            return TcpStream::connect(self.address).await;
        }
        let socket = TcpSocket::new_v4()?;
        let source = self.next.fetch_add(1, Ordering::Relaxed) % SOURCES;
        let last = u8::try_from(source + 1).unwrap_or(1);
        socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 1, last), 0)))?;
        socket.connect(self.address).await
    }
}
