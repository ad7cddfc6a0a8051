//! A connection on which a test says what it likes, byte by byte.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use rustls::pki_types::{CertificateDer, ServerName};
use titan_tests::worlds::PATIENCE;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// What bytes travel on.
pub(super) trait Carrier: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Carrier for T {}

/// A connection.
pub(super) struct Wire {
    carrier: Box<dyn Carrier>,
    ahead: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Told {
    /// Returns a header's text, empty if it is missing.
    pub(super) fn header(&self, name: &str) -> &str {
        let found = self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value)
        });
        found.unwrap_or_default().trim()
    }
}

impl Wire {
    /// Connects in clear.
    pub(super) async fn open(address: &str) -> anyhow::Result<Self> {
        Ok(Self::over(TcpStream::connect(address).await?))
    }

    /// Speaks on something that is connected.
    pub(super) fn over(carrier: impl Carrier + 'static) -> Self {
        Self { carrier: Box::new(carrier), ahead: Vec::new() }
    }

    /// Sends bytes.
    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> anyhow::Result<()> {
        self.carrier.write_all(bytes.as_ref()).await?;
        Ok(self.carrier.flush().await?)
    }

    /// Says that nothing more is sent.
    pub(super) async fn end(&mut self) -> anyhow::Result<()> {
        Ok(self.carrier.shutdown().await?)
    }

    /// Reads one answer.
    pub(super) async fn answer(&mut self) -> anyhow::Result<Told> {
        let end = loop {
            if let Some(end) = self.ahead.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            self.more().await?;
        };
        let head = String::from_utf8(self.ahead.drain(..end).collect())?;
        let status = head.split(' ').nth(1).context("a status")?.parse()?;
        let mut told = Told { status, head, body: Vec::new() };
        if let Ok(length) = told.header("content-length").parse() {
            while self.ahead.len() < length {
                self.more().await?;
            }
            told.body = self.ahead.drain(..length).collect();
        }
        Ok(told)
    }

    async fn more(&mut self) -> anyhow::Result<()> {
        let read = timeout(PATIENCE, self.carrier.read_buf(&mut self.ahead)).await.context("an answer in time")?;
        if read? == 0 {
            bail!("the connection ended after {:?}", String::from_utf8_lossy(&self.ahead));
        }
        Ok(())
    }

    /// Whether nothing comes for a while.
    pub(super) async fn is_silent(&mut self, span: Duration) -> bool {
        timeout(span, self.carrier.read_buf(&mut self.ahead)).await.is_err()
    }

    /// Reads what is left until the end, which has to come.
    pub(super) async fn rest(mut self) -> anyhow::Result<String> {
        let read = timeout(PATIENCE, self.carrier.read_to_end(&mut self.ahead)).await.context("the end")?;
        // An end is an end, orderly or not.
        let _cut_off = read;
        Ok(String::from_utf8_lossy(&self.ahead).into_owned())
    }
}

/// Returns how a client that trusts `certificate` speaks TLS.
pub(super) fn trusting(
    certificate: &CertificateDer<'static>,
    spoken: &[&str],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).expect("a certificate");
    let mut config = rustls::ClientConfig::builder_with_protocol_versions(versions)
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = spoken.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

/// Connects over TLS.
pub(super) async fn secured(address: &str, connector: &TlsConnector) -> anyhow::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost")?;
    Ok(connector.connect(name, TcpStream::connect(address).await?).await?)
}
