//! Trust: whom the system trusts, and whose certificate is good when nobody knows what time it is.
//!
//! Who that is is read when the first server shows a certificate: a host whose control plane is reached over plain HTTP may
//! have no certificates of authorities at all. An agent forgets them again after each handshake with its control plane: it
//! keeps the connection, and resumes it with a ticket, while the certificates of all authorities are a part of its memory
//! that counts.
//!
//! A host without a battery starts in 1970, and by that date no certificate is valid yet; a host that can only reach its
//! control plane would never reach it, and never be told the time. But some time has surely passed: the newest answer that
//! the host took came later than 1970, and so did this program. So a certificate is refused if it was out of date by then,
//! and if the clock says less than that, one that begins later is taken.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use rustls_platform_verifier::Verifier;

use crate::Revision;

/// 2026-11-21, in seconds since 1970: this program is not older than it is.
const WRITTEN: u64 = 1_795_219_200;
/// How far the clock may be behind what has surely passed and still count as set, in seconds: a day.
const BEHIND: u64 = 24 * 60 * 60;
/// How many certificates of a chain may begin later than the clock says.
const CHAIN: usize = 8;
/// Sessions that are remembered to be resumed: a client speaks with one server, or with a few under one name.
const SESSIONS: usize = 8;

/// Takes the certificates that the system takes. A system without certificates of authorities is an error of each handshake,
/// and of nothing before.
#[derive(Debug)]
pub struct SystemTrust {
    provider: Arc<CryptoProvider>,
    /// Who is trusted, once that was read; absent if it is read for each handshake.
    kept: Option<OnceLock<Verifier>>,
    /// What has surely passed, in seconds since 1970.
    passed: u64,
}

impl Default for SystemTrust {
    /// Returns one that believes the clock, and remembers whom it trusts.
    fn default() -> Self {
        Self { provider: Arc::new(ring::default_provider()), kept: Some(OnceLock::new()), passed: 0 }
    }
}

impl SystemTrust {
    /// Returns one for a host, whose clock may not be set, and who meets one server; `newest` is the newest time that it was
    /// told by somebody whom it trusted.
    #[must_use]
    pub fn on_a_host(newest: Option<Revision>) -> Self {
        let told = newest.map_or(0, |newest| newest.micros().unsigned_abs() / 1_000_000);
        Self { kept: None, passed: told.max(WRITTEN), ..Self::default() }
    }

    /// What cannot be read now may be there at the next handshake.
    fn read(&self) -> Result<Verifier, Error> {
        Verifier::new(self.provider.clone()).map_err(|error| {
            let mend = "install the package ca-certificates, or name a file of certificates in SSL_CERT_FILE";
            Error::General(format!("whom this system trusts is not known ({error}): {mend}"))
        })
    }
}

impl ServerCertVerifier for SystemTrust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let read;
        let verifier = match self.kept.as_ref().map(|kept| (kept, kept.get())) {
            Some((_, Some(verifier))) => verifier,
            Some((kept, None)) => {
                let read = self.read()?;
                kept.get_or_init(|| read)
            }
            None => {
                read = self.read()?;
                &read
            }
        };
        in_time(now.as_secs(), self.passed, |time| {
            let time = UnixTime::since_unix_epoch(Duration::from_secs(time));
            verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, time)
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Verifies a chain as of a time at which it could be good, given what the clock says and what has surely passed.
fn in_time<T>(now: u64, passed: u64, verify: impl Fn(u64) -> Result<T, Error>) -> Result<T, Error> {
    let mut time = now.max(passed);
    if now.saturating_add(BEHIND) >= passed {
        return verify(time);
    }
    for _ in 0..CHAIN {
        match verify(time) {
            Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
                time = time.max(not_before.as_secs());
            }
            verified => return verified,
        }
    }
    verify(time)
}

/// Returns the TLS of a client of HTTP/1.1 that takes the certificates that `trust` takes.
///
/// # Errors
///
/// If the cryptography at hand has no TLS 1.2 and 1.3.
pub fn tls(trust: SystemTrust) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(trust.provider.clone());
    let builder = builder.with_safe_default_protocol_versions()?;
    let mut config = builder.dangerous().with_custom_certificate_verifier(Arc::new(trust)).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a chain is taken that is good from `from` to `until` and one of whose certificates begins at `also`.
    fn good(now: u64, from: u64, also: u64, until: u64) -> bool {
        let verify = |now: u64| {
            let early = |begin: u64| CertificateError::NotValidYetContext {
                time: UnixTime::since_unix_epoch(Duration::from_secs(now)),
                not_before: UnixTime::since_unix_epoch(Duration::from_secs(begin)),
            };
            match now {
                now if now < from => Err(early(from).into()),
                now if now < also => Err(early(also).into()),
                now if now > until => Err(CertificateError::Expired.into()),
                _ => Ok(()),
            }
        };
        in_time(now, 1_000_000, verify).is_ok()
    }

    #[test]
    fn what_has_passed_is_the_newest_that_was_told_and_not_less_than_the_age_of_this_program() {
        assert_eq!(SystemTrust::default().passed, 0);
        assert_eq!(SystemTrust::on_a_host(None).passed, WRITTEN);
        assert_eq!(SystemTrust::on_a_host(Some(Revision::ZERO)).passed, WRITTEN);
        let told = Revision::from_micros(2_000_000_000_500_000);
        assert_eq!(SystemTrust::on_a_host(Some(told)).passed, 2_000_000_000);
    }

    #[test]
    fn a_clock_that_is_set_is_believed() {
        assert!(good(2_000_000, 1_500_000, 0, 2_500_000));
        assert!(!good(2_000_000, 2_000_001, 0, 2_500_000), "not valid yet");
        assert!(!good(2_000_000, 0, 2_000_001, 2_500_000), "one of its issuers is not valid yet");
        assert!(!good(2_000_000, 0, 0, 1_999_999), "expired");
        assert!(good(990_000, 0, 0, 1_000_000) && !good(990_000, 0, 0, 999_999), "a little behind");
        assert!(!good(990_000, 1_000_001, 0, 2_000_000));
    }

    #[test]
    fn a_clock_that_is_not_set_keeps_nobody_out_who_may_be_good_by_now() {
        assert!(good(10, 500_000, 0, 1_500_000), "good since long");
        assert!(good(10, 1_200_000, 1_300_000, 1_500_000), "begins later than what has surely passed");
        assert!(!good(10, 0, 0, 999_999), "has surely expired");
        assert!(!good(10, 0, 1_600_000, 1_500_000), "was never good as a whole");
    }
}
