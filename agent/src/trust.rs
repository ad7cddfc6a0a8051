//! Trust: whose certificate is good when nobody knows what time it is.
//!
//! A host without a battery starts in 1970, and by that date no certificate is valid yet; a host that can only reach its
//! control plane would never reach it, and never be told the time. But some time has surely passed: the newest answer that
//! the host took came later than 1970, and so did this program. So a certificate is refused if it was out of date by then,
//! and if the clock says less than that, one that begins later is taken.

use std::{sync::Arc, time::Duration};

use reqwest::redirect::Policy;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use titan_api::{
    Revision,
    client::{self, Client, ClientError, SystemTrust},
};

/// 2026-11-21, in seconds since 1970: this program is not older than it is.
const WRITTEN: u64 = 1_795_219_200;
/// How far the clock may be behind what has surely passed and still count as set, in seconds: a day.
const BEHIND: u64 = 24 * 60 * 60;
/// How many certificates of a chain may begin later than the clock says.
const CHAIN: usize = 8;

/// Verifies certificates of servers by what is known of the time.
#[derive(Debug)]
struct Timely<V> {
    inner: V,
    /// What has surely passed, in seconds since 1970.
    passed: u64,
}

/// Returns a client of the control plane at `server`, that trusts whom the system trusts. `newest` is the newest cursor that
/// was accepted.
pub(crate) fn client(server: &str, token: Option<String>, newest: Option<Revision>) -> Result<Client, ClientError> {
    // Another provider in the process would panic at the first handshake; whoever comes first wins.
    let _already_set = rustls::crypto::ring::default_provider().install_default();
    let told = newest.map_or(0, |newest| newest.micros().unsigned_abs() / 1_000_000);
    let verifier = Timely { inner: SystemTrust::default(), passed: told.max(WRITTEN) };
    let http = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(10))
        .redirect(Policy::none())
        .tls_backend_preconfigured(client::tls(Arc::new(verifier)).map_err(ClientError::Tls)?)
        .build()
        .map_err(ClientError::Setup)?;
    Client::over(http, server, token)
}

impl<V: ServerCertVerifier> ServerCertVerifier for Timely<V> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let at = |time: u64| {
            let time = UnixTime::since_unix_epoch(Duration::from_secs(time));
            self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, time)
        };
        let mut time = now.as_secs().max(self.passed);
        if now.as_secs().saturating_add(BEHIND) >= self.passed {
            return at(time);
        }
        for _ in 0..CHAIN {
            match at(time) {
                Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
                    time = time.max(not_before.as_secs());
                }
                verified => return verified,
            }
        }
        at(time)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finds a chain good from `from` to `until`, one of whose certificates begins at `also`.
    #[derive(Debug)]
    struct Chain {
        from: u64,
        also: u64,
        until: u64,
    }

    impl ServerCertVerifier for Chain {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            now: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            let early = |begin: u64| CertificateError::NotValidYetContext {
                time: now,
                not_before: UnixTime::since_unix_epoch(Duration::from_secs(begin)),
            };
            match now.as_secs() {
                now if now < self.from => Err(early(self.from).into()),
                now if now < self.also => Err(early(self.also).into()),
                now if now > self.until => Err(CertificateError::Expired.into()),
                _ => Ok(ServerCertVerified::assertion()),
            }
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            Vec::new()
        }
    }

    fn good(now: u64, from: u64, also: u64, until: u64) -> bool {
        let verifier = Timely { inner: Chain { from, also, until }, passed: 1_000_000 };
        let name = ServerName::try_from("localhost").expect("a name");
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        verifier.verify_server_cert(&CertificateDer::from(vec![]), &[], &name, &[], now).is_ok()
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
