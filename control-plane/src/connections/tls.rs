//! TLS: the server's certificate, read anew when its files change, and tickets with which a host that comes back skips
//! the costly half of the handshake. The tickets' key is in no connection and changes by itself.

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::{
    CipherSuite, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_util::sync::CancellationToken;

use crate::config::{ConfigError, TlsConfig};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(10);
/// What is spoken over TLS, by preference.
const SPOKEN: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// What a connection holds back at most of what is to be sent.
const HELD_BACK: usize = 64 * 1024;

/// The certificate and key as they were read last.
#[derive(Debug)]
pub(crate) struct Certificate {
    config: TlsConfig,
    current: ArcSwap<CertifiedKey>,
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl Certificate {
    /// Reads the files; an error names the key of the configuration and the file.
    pub(crate) fn read(config: &TlsConfig) -> Result<Self, ConfigError> {
        Ok(Self { config: config.clone(), current: ArcSwap::new(Arc::new(certified(config)?)) })
    }

    /// Returns how TLS is spoken with this certificate.
    pub(crate) fn server(self: &Arc<Self>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut server = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(rustls::ALL_VERSIONS)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        // Agents prefer what their library happens to name first.
        server.ignore_client_order = true;
        server.alpn_protocols = SPOKEN.map(<[u8]>::to_vec).into();
        server.ticketer = ring::Ticketer::new()?;
        // What the tickets hold is not held here.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        // One connection at a time comes back.
        server.send_tls13_tickets = 1;
        Ok(Arc::new(server))
    }

    /// Reads the files anew whenever they change, until shutdown. What cannot be read leaves the one before.
    pub(crate) async fn follow(self: Arc<Self>, shutdown: CancellationToken) {
        let mut known = self.stamps();
        while tokio::time::timeout(LOOK, shutdown.cancelled()).await.is_err() {
            let stamps = self.stamps();
            if stamps != known {
                self.reload();
                known = stamps;
            }
        }
    }

    /// Reads the files anew.
    fn reload(&self) {
        match certified(&self.config) {
            Ok(certified) => {
                self.current.store(Arc::new(certified));
                tracing::info!(certificate = %self.config.certificate.display(), "the certificate was read anew");
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "the certificate cannot be read anew; the one before is used");
            }
        }
    }

    fn stamps(&self) -> [Option<(SystemTime, u64, u64)>; 2] {
        [&self.config.certificate, &self.config.key].map(|path| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.modified().ok()?, found.len(), found.ino()))
        })
    }
}

/// Returns what encrypts, the suite first that resumes a session with SHA-256, for which more machines have instructions than
/// for SHA-384: a resumed handshake is little more than that and the exchange of keys.
fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

/// Reads certificate and key, and checks that they belong together.
fn certified(config: &TlsConfig) -> Result<CertifiedKey, ConfigError> {
    let fault = |key, path: &Path, detail: String| ConfigError::File { key, path: path.to_owned(), detail };
    let unreadable =
        |key, path: &PathBuf, error: io::Error| ConfigError::Unread { key, path: path.clone(), source: error };
    let (certificate, key) = (&config.certificate, &config.key);
    let file = File::open(certificate).map_err(|error| unreadable("tls.certificate", certificate, error))?;
    let chain: Vec<_> = CertificateDer::pem_reader_iter(file)
        .collect::<Result<_, _>>()
        .map_err(|error| fault("tls.certificate", certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(fault("tls.certificate", certificate, "there is no certificate in it".to_owned()));
    }
    let file = File::open(key).map_err(|error| unreadable("tls.key", key, error))?;
    if file.metadata().is_ok_and(|found| found.mode() & 0o077 != 0) {
        tracing::warn!(path = %key.display(), "others than its owner can read {}: chmod 600", key.display());
    }
    let secret = PrivateKeyDer::from_pem_reader(file).map_err(|error| fault("tls.key", key, error.to_string()))?;
    CertifiedKey::from_der(chain, secret, &ring::default_provider())
        .map_err(|error| fault("tls.key", key, error.to_string()))
}

/// Bounds what a new connection holds.
pub(super) fn bound(connection: &mut rustls::ServerConnection) {
    connection.set_buffer_limit(Some(HELD_BACK));
}
