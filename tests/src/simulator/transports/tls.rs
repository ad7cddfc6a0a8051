//! TLS of the agents: one configuration for all, and one store of tickets.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;
use rustls::{
    ClientConfig, NamedGroup, RootCertStore,
    client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue},
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio_rustls::TlsConnector;

/// Tickets kept at most; with more, the oldest go.
const TICKETS: usize = 32_768;

/// Makes the connector of agents that trust the certificates in `trusted` and speak `protocol`.
pub fn connector(trusted: &Path, protocol: &[u8], resumption: bool) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(trusted);
    for certificate in certificates.with_context(|| format!("{} cannot be read", trusted.display()))? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption =
        if resumption { Resumption::store(Arc::new(Tickets::default())) } else { Resumption::disabled() };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Tickets that the server gave to any agent. They are not bound to a host, and each is used once: what an agent takes was
/// perhaps another's, which is the same work for the server and no memory for each agent.
#[derive(Debug, Default)]
struct Tickets(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    tickets: std::collections::VecDeque<Tls13ClientSessionValue>,
    sessions: HashMap<ServerName<'static>, Tls12ClientSessionValue>,
    group: Option<NamedGroup>,
}

impl Tickets {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _server: ServerName<'static>, group: NamedGroup) {
        self.kept().group = Some(group);
    }

    fn kx_hint(&self, _server: &ServerName<'_>) -> Option<NamedGroup> {
        self.kept().group
    }

    fn set_tls12_session(&self, server: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.kept().sessions.insert(server, value);
    }

    fn tls12_session(&self, server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.kept().sessions.get(server).cloned()
    }

    fn remove_tls12_session(&self, server: &ServerName<'static>) {
        self.kept().sessions.remove(server);
    }

    fn insert_tls13_ticket(&self, _server: ServerName<'static>, value: Tls13ClientSessionValue) {
        let mut kept = self.kept();
        if kept.tickets.len() >= TICKETS {
            kept.tickets.pop_front();
        }
        kept.tickets.push_back(value);
    }

    fn take_tls13_ticket(&self, _server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.kept().tickets.pop_back()
    }
}
