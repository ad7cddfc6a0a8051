//! Trust: whom the system trusts, looked up when the first server shows a certificate.
//!
//! A host whose control plane is reached over plain HTTP may have no certificates of authorities at all, and one that has
//! them need not keep them in memory before it has met anybody.

use std::sync::{Arc, OnceLock};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use rustls_platform_verifier::Verifier;

/// Takes the certificates that the system takes. A system without certificates of authorities is an error of each handshake,
/// and of nothing before.
#[derive(Debug)]
pub struct SystemTrust {
    provider: Arc<CryptoProvider>,
    verifier: OnceLock<Verifier>,
}

impl Default for SystemTrust {
    fn default() -> Self {
        Self { provider: Arc::new(ring::default_provider()), verifier: OnceLock::new() }
    }
}

impl SystemTrust {
    /// What cannot be read now may be there at the next handshake.
    fn verifier(&self) -> Result<&Verifier, Error> {
        if let Some(verifier) = self.verifier.get() {
            return Ok(verifier);
        }
        let read = Verifier::new(self.provider.clone()).map_err(|error| {
            let mend = "install the package ca-certificates, or name a file of certificates in SSL_CERT_FILE";
            Error::General(format!("whom this system trusts is not known ({error}): {mend}"))
        })?;
        Ok(self.verifier.get_or_init(|| read))
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
        self.verifier()?.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
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

/// Returns the TLS of a client of HTTP/1.1 that takes the certificates that `verifier` takes.
///
/// # Errors
///
/// If the cryptography at hand has no TLS 1.2 and 1.3.
pub fn tls(verifier: Arc<dyn ServerCertVerifier>) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?;
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
