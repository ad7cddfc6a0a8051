//! URLs that answer.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use reqwest::{Client, Url, redirect::Policy};
use titan_api::{
    Revision,
    client::{SystemTrust, tls},
    health::HttpProbe,
};

use super::{SEARCHED, holds};
use crate::settle::chain;

/// Who asks URLs: made when the first is to be asked. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Callers {
    made: Arc<Made>,
    newest: Option<Revision>,
}

#[derive(Debug, Default)]
struct Made {
    /// Trusts whom the system trusts.
    strict: OnceLock<Client>,
    /// Trusts anybody: for this host itself, whose certificate bears the name by which others know it.
    local: OnceLock<Client>,
}

impl Callers {
    /// `newest`: the newest time that the host was told by its control plane.
    pub(crate) fn new(newest: Option<Revision>) -> Self {
        Self { made: Arc::default(), newest }
    }

    /// Returns whom the system trusts. A probe comes every few seconds and resumes its session with a ticket: between
    /// handshakes nobody needs the certificates of all authorities.
    fn trust(&self) -> SystemTrust {
        SystemTrust::on_a_host(self.newest)
    }

    fn for_host(&self, url: &Url) -> Result<&Client, String> {
        let local = is_local(url);
        let place = if local { &self.made.local } else { &self.made.strict };
        if let Some(client) = place.get() {
            return Ok(client);
        }
        let _already_set = rustls::crypto::ring::default_provider().install_default();
        let mut client = Client::builder()
            .user_agent(concat!("titan-agent/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            // What is asked is whether a new connection is answered, by the host itself and not by a proxy.
            .pool_max_idle_per_host(0)
            .pool_idle_timeout(Duration::ZERO)
            .no_proxy();
        client = if local {
            client.tls_danger_accept_invalid_certs(true)
        } else {
            client.tls_backend_preconfigured(tls(self.trust()).map_err(|error| chain(&error))?)
        };
        let client = client.build().map_err(|error| chain(&error))?;
        Ok(place.get_or_init(|| client))
    }
}

/// Whether the URL speaks of this host itself, by its own address or name.
fn is_local(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    address.map_or_else(|| host == "localhost", |address| address.is_loopback())
}

pub(super) async fn ask(probe: &HttpProbe, callers: &Callers) -> Result<(), String> {
    let url = Url::parse(&probe.url).map_err(|error| format!("{:?} is not a URL: {error}", probe.url))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("{} is neither http:// nor https://", probe.url));
    }
    let mut answer = callers.for_host(&url)?.get(url).send().await.map_err(|error| chain(&error.without_url()))?;
    let status = answer.status().as_u16();
    match probe.status {
        Some(expected) if status != expected => return Err(format!("status {status}, expected {expected}")),
        None if !(200..400).contains(&status) => return Err(format!("status {status}")),
        _ => {}
    }
    let Some(text) = &probe.contains else { return Ok(()) };
    let mut body = Vec::new();
    while body.len() < SEARCHED {
        match answer.chunk().await.map_err(|error| chain(&error.without_url()))? {
            Some(chunk) => body.extend_from_slice(&chunk[..chunk.len().min(SEARCHED - body.len())]),
            None => break,
        }
    }
    if holds(&body, text) {
        return Ok(());
    }
    Err(format!("status {status}, but the first {} bytes of the body do not hold {text:?}", body.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_of_authorities_are_read_for_a_handshake_and_a_clock_in_1970_is_not_believed() {
        let newest = Revision::from_micros(1_900_000_000_000_000);
        let trust = format!("{:?}", Callers::new(Some(newest)).trust());
        assert!(trust.contains("kept: None") && trust.contains("passed: 1900000000"), "{trust}");
        let trust = format!("{:?}", Callers::new(None).trust());
        assert!(!trust.contains("passed: 0"), "{trust}");
    }

    #[test]
    fn only_the_host_itself_needs_no_certificate_that_is_trusted() {
        let local = |text: &str| is_local(&Url::parse(text).expect("url"));
        for yes in ["https://localhost:8443/x", "https://127.0.0.1", "https://127.3.2.1/", "https://[::1]:1/"] {
            assert!(local(yes), "{yes}");
        }
        for no in ["https://localhost.example", "https://10.0.0.1", "https://127.0.0.1.example", "https://[::2]/"] {
            assert!(!local(no), "{no}");
        }
    }
}
