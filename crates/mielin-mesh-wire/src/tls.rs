//! TLS 1.3 configurations. Verification is rustls's own, on both sides, with
//! the mesh root as the only trust anchor.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CipherSuite, ClientConfig, ServerConfig};

use crate::certificate::{CertificateError, RootCertificate};
use crate::credentials::NodeCredentials;

/// Between members; both sides show certificates.
pub(crate) const ALPN_MESH: &[u8] = b"mielin/1";
/// From a joiner to a member; offers the join exchange and nothing else.
pub(crate) const ALPN_JOIN: &[u8] = b"mielin-join/1";

/// Why a TLS configuration could not be made. The credentials are at fault.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The root is no trust anchor.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// rustls refused the key, certificate or chain.
    #[error("TLS refused the credentials: {0}")]
    Rustls(#[from] rustls::Error),
    /// The client verifier could not be built from the root.
    #[error("TLS refused the mesh root: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// The cipher suite that QUIC starts with is missing.
    #[error("TLS lacks the cipher suite of QUIC's first packets: {0}")]
    Suite(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
}

impl TlsError {
    /// From when on the certificate is valid, if it is refused because that is still to come.
    pub(crate) fn valid_from(&self) -> Option<SystemTime> {
        match self {
            Self::Rustls(rustls::Error::InvalidCertificate(
                rustls::CertificateError::NotValidYetContext { not_before, .. },
            )) => Some(SystemTime::UNIX_EPOCH + Duration::from_secs(not_before.as_secs())),
            _ => None,
        }
    }
}

/// For listening. Clients may come without a certificate, because joiners have
/// none; what they may then do is decided after the handshake by ALPN.
pub(crate) fn server(
    credentials: &NodeCredentials,
) -> Result<quinn::crypto::rustls::QuicServerConfig, TlsError> {
    let roots = Arc::new(credentials.root().anchors()?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain(credentials), credentials.key().private_key())?;
    config.alpn_protocols = vec![ALPN_MESH.to_vec(), ALPN_JOIN.to_vec()];
    // A resumed session would outlive the certificate it began with.
    config.send_tls13_tickets = 0;
    Ok(config.try_into()?)
}

/// For dialling as a member.
pub(crate) fn member_client(
    credentials: &NodeCredentials,
) -> Result<quinn::crypto::rustls::QuicClientConfig, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(credentials.root().anchors()?)
        .with_client_auth_cert(chain(credentials), credentials.key().private_key())?;
    config.alpn_protocols = vec![ALPN_MESH.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config.try_into()?)
}

/// For dialling as a joiner, who has nothing to show.
pub(crate) fn join_client(
    root: &RootCertificate,
) -> Result<quinn::crypto::rustls::QuicClientConfig, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(root.anchors()?)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_JOIN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config.try_into()?)
}

/// Checks that the root has issued a certificate, outside of a handshake.
pub(crate) fn verify_chain(root: &RootCertificate, certificate: &[u8]) -> Result<(), TlsError> {
    let der = CertificateDer::from(certificate);
    let algorithms = provider().signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(
        &ParsedCertificate::try_from(&der)?,
        &root.anchors()?,
        &[],
        UnixTime::now(),
        algorithms,
    )?;
    Ok(())
}

fn chain(credentials: &NodeCredentials) -> Vec<CertificateDer<'static>> {
    vec![CertificateDer::from(credentials.certificate().to_vec())]
}

/// ring, with AES-128-GCM before AES-256-GCM: RFC 9001 has it for QUIC's first packets
/// anyway, and it takes less time for each byte. Both sides list it first, so it is
/// what members speak.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}
