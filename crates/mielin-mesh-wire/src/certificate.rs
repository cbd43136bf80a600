//! Certificates of a mesh: the self-signed root, and what it issues.
//!
//! A node's certificate carries DNS names, because those are what WebPKI
//! verifies:
//!
//! | name | meaning |
//! |---|---|
//! | `<52 base32 characters>.node.mielin` | the `NodeId`; 64 hex digits would exceed a DNS label |
//! | `member.mielin` | any member, for dialling an address whose node is unknown |
//! | `edge.role.mielin`, `relay…`, `core…` | the role that was granted |
//! | `issuer.mielin` | the node that holds the root key |

use std::fmt;
use std::ops::Range;
use std::time::{Duration, SystemTime};

use mielin_mesh_core::{NodeId, NodeRole};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SerialNumber,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use time::OffsetDateTime;
use x509_parser::oid_registry::OID_SIG_ED25519;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::identity::{IdentityError, NodeKey};

/// The name in every member's certificate.
pub(crate) const MEMBER_NAME: &str = "member.mielin";
/// The name in the certificate of the node that holds the root key.
pub(crate) const ISSUER_NAME: &str = "issuer.mielin";
pub(crate) const ROLE_SUFFIX: &str = ".role.mielin";

/// Validity of a node certificate.
pub(crate) const NODE_VALIDITY: Duration = Duration::from_secs(90 * 24 * 3600);
/// A certificate with less left than this is renewed.
pub const RENEW_BELOW: Duration = Duration::from_secs(30 * 24 * 3600);
const ROOT_VALIDITY: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// Certificates are dated back, so that a joiner whose clock is behind the
/// issuer's accepts them at once.
const BACKDATE: Duration = Duration::from_secs(3600);
/// No certificate or request of ours is near this size.
pub(crate) const DER_BYTES_MAX: usize = 4096;

/// Names a mesh: BLAKE3 of its root certificate.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MeshId(pub [u8; 32]);

impl fmt::Display for MeshId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for MeshId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeshId({self})")
    }
}

/// What is wrong with a certificate or a certificate request.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It is not DER of the right kind, or its signature is wrong.
    #[error("malformed certificate or request: {0}")]
    Malformed(String),
    /// It is larger than any of ours.
    #[error("a certificate of {len} bytes is above the limit of {DER_BYTES_MAX}")]
    TooLarge {
        /// Its length.
        len: usize,
    },
    /// The key is not Ed25519.
    #[error("the certificate's key is not Ed25519")]
    KeyType,
    /// It names another node than its key makes.
    #[error("the certificate names another node than its key makes ({actual})")]
    IdMismatch {
        /// The id that follows from the key.
        actual: NodeId,
    },
    /// It carries no role, or more than one.
    #[error("the certificate does not carry exactly one role")]
    Role,
    /// The root key could not be made.
    #[error(transparent)]
    Key(IdentityError),
    /// The system gave no random numbers.
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
    /// rcgen could not write it.
    #[error("cannot issue a certificate: {0}")]
    Issue(#[from] rcgen::Error),
    /// rustls does not take it as a trust anchor.
    #[error("not usable as a mesh root: {0}")]
    Anchor(rustls::Error),
}

/// The trust anchor of one mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootCertificate {
    der: CertificateDer<'static>,
    key: [u8; 32],
}

impl RootCertificate {
    /// Checks that the bytes are a CA certificate that rustls accepts.
    ///
    /// # Errors
    /// [`CertificateError`]; the bytes are the peer's or the file's fault.
    pub fn from_der(der: Vec<u8>) -> Result<Self, CertificateError> {
        let parsed = parse(&der)?;
        if !parsed.is_ca() {
            return Err(CertificateError::Malformed("not a CA certificate".into()));
        }
        let key = ed25519_key(&parsed).ok_or(CertificateError::KeyType)?;
        let der = der.into();
        let root = RootCertificate { der, key };
        root.anchors()?;
        Ok(root)
    }

    /// The DER encoding.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The public key, with which it signs.
    #[must_use]
    pub fn ed25519_key(&self) -> [u8; 32] {
        self.key
    }

    /// The mesh that this root makes; also its fingerprint for people.
    #[must_use]
    pub fn mesh_id(&self) -> MeshId {
        MeshId(*blake3::hash(&self.der).as_bytes())
    }

    pub(crate) fn anchors(&self) -> Result<RootCertStore, CertificateError> {
        let mut store = RootCertStore::empty();
        store
            .add(self.der.clone())
            .map_err(CertificateError::Anchor)?;
        Ok(store)
    }
}

/// What a node certificate of a mesh says, after its key was compared with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeCertificate {
    pub(crate) id: NodeId,
    pub(crate) role: NodeRole,
    pub(crate) issuer: bool,
    pub(crate) expires: SystemTime,
}

impl NodeCertificate {
    /// Reads a certificate whose chain was verified before, and checks that
    /// the id in its names is the hash of its key.
    pub(crate) fn check(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate = parse(der)?;
        let actual = NodeId::of_public_key(certificate.public_key().raw);
        let names = match certificate.subject_alternative_name() {
            Ok(Some(extension)) => &extension.value.general_names,
            _ => return Err(CertificateError::IdMismatch { actual }),
        };
        let (mut ids, mut role, mut issuer) = (0, None, false);
        for name in names {
            let GeneralName::DNSName(name) = name else {
                continue;
            };
            if let Some(role_name) = name.strip_suffix(ROLE_SUFFIX) {
                let parsed = role_name.parse().map_err(|_| CertificateError::Role)?;
                if role.replace(parsed).is_some() {
                    return Err(CertificateError::Role);
                }
            } else if name.ends_with(NodeId::SERVER_NAME_SUFFIX) {
                if *name != actual.server_name() {
                    return Err(CertificateError::IdMismatch { actual });
                }
                ids += 1;
            } else if *name == ISSUER_NAME {
                issuer = true;
            }
        }
        if ids != 1 {
            return Err(CertificateError::IdMismatch { actual });
        }
        let role = role.ok_or(CertificateError::Role)?;
        let seconds = certificate.validity().not_after.timestamp().max(0) as u64;
        let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        Ok(NodeCertificate {
            id: actual,
            role,
            issuer,
            expires,
        })
    }
}

/// A new root: key and self-signed certificate.
pub(crate) fn make_root() -> Result<(NodeKey, RootCertificate), CertificateError> {
    let key = NodeKey::generate().map_err(CertificateError::Key)?;
    let mut params = CertificateParams::default();
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - BACKDATE, now + ROOT_VALIDITY);
    // Each root has a name of its own, so that a certificate from another mesh
    // fails as "unknown issuer" and not as "bad signature".
    params.distinguished_name = subject(&format!("mielin mesh {}", key.id()));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(key.pair())?;
    let root = RootCertificate::from_der(certificate.der().to_vec())?;
    Ok((key, root))
}

/// A certificate request that proves possession of the node's key. It asks for
/// nothing: what the certificate says is the issuer's decision.
pub(crate) fn make_request(key: &NodeKey) -> Result<Vec<u8>, CertificateError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject("mielin node");
    Ok(params.serialize_request(key.pair())?.der().to_vec())
}

/// The public key of a request whose signature is right.
pub(crate) struct VerifiedRequest {
    request: CertificateSigningRequestParams,
    pub(crate) id: NodeId,
}

impl VerifiedRequest {
    pub(crate) fn check(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > DER_BYTES_MAX {
            return Err(CertificateError::TooLarge { len: der.len() });
        }
        let request =
            CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der))
                .map_err(|error| CertificateError::Malformed(error.to_string()))?;
        if request.public_key.algorithm() != &rcgen::PKCS_ED25519 {
            return Err(CertificateError::KeyType);
        }
        let id = NodeId::of_public_key(&request.public_key.subject_public_key_info());
        Ok(VerifiedRequest { request, id })
    }

    /// Signs a node certificate for the key of this request.
    pub(crate) fn issue(
        &self,
        root: &RootCertificate,
        root_key: &KeyPair,
        role: NodeRole,
        holds_root: bool,
    ) -> Result<Vec<u8>, CertificateError> {
        let mut names = vec![
            self.id.server_name(),
            MEMBER_NAME.to_owned(),
            format!("{role}{ROLE_SUFFIX}"),
        ];
        if holds_root {
            names.push(ISSUER_NAME.to_owned());
        }
        issue_for_names(names, &self.request.public_key, root, root_key)
    }
}

/// Signs a node certificate with exactly these names; separate so that tests
/// can make wrong ones.
pub(crate) fn issue_for_names(
    names: Vec<String>,
    key: &impl PublicKeyData,
    root: &RootCertificate,
    root_key: &KeyPair,
) -> Result<Vec<u8>, CertificateError> {
    let now = OffsetDateTime::now_utc();
    let validity = now - BACKDATE..now + NODE_VALIDITY;
    issue_for(validity, names, key, root, root_key)
}

/// The same for another time.
pub(crate) fn issue_for(
    validity: Range<OffsetDateTime>,
    names: Vec<String>,
    key: &impl PublicKeyData,
    root: &RootCertificate,
    root_key: &KeyPair,
) -> Result<Vec<u8>, CertificateError> {
    let mut params = CertificateParams::new(names)?;
    (params.not_before, params.not_after) = (validity.start, validity.end);
    params.serial_number = Some(random_serial()?);
    params.distinguished_name = subject("mielin node");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    let issuer = Issuer::from_ca_cert_der(&root.der, root_key)?;
    Ok(params.signed_by(key, &issuer)?.der().to_vec())
}

fn ed25519_key(certificate: &X509Certificate<'_>) -> Option<[u8; 32]> {
    let key = certificate.public_key();
    let is_ed25519 = key.algorithm.algorithm == OID_SIG_ED25519;
    let bytes = is_ed25519.then(|| key.subject_public_key.data.as_ref())?;
    bytes.try_into().ok()
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    if der.len() > DER_BYTES_MAX {
        return Err(CertificateError::TooLarge { len: der.len() });
    }
    match X509Certificate::from_der(der) {
        Ok((&[], certificate)) => Ok(certificate),
        Ok(_) => Err(CertificateError::Malformed("trailing bytes".into())),
        Err(error) => Err(CertificateError::Malformed(error.to_string())),
    }
}

/// Without one rcgen would give all certificates of a key the same number, which
/// RFC 5280, section 4.1.2.2, forbids.
fn random_serial() -> Result<SerialNumber, CertificateError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(CertificateError::Random)?;
    // Positive, and not shorter for a zero at its beginning.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn subject(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn issue(names: &[String], key: &NodeKey) -> Vec<u8> {
        let (root_key, root) = make_root().unwrap();
        issue_for_names(names.to_vec(), key.pair(), &root, root_key.pair()).unwrap()
    }

    #[test]
    fn an_issued_certificate_says_what_was_granted() {
        let (root_key, root) = make_root().unwrap();
        let key = NodeKey::generate().unwrap();
        let request = VerifiedRequest::check(&make_request(&key).unwrap()).unwrap();
        assert_eq!(request.id, key.id());
        let der = request
            .issue(&root, root_key.pair(), NodeRole::Relay, true)
            .unwrap();
        let seen = NodeCertificate::check(&der).unwrap();
        assert_eq!(
            (seen.id, seen.role, seen.issuer),
            (key.id(), NodeRole::Relay, true)
        );
        let left = seen.expires.duration_since(SystemTime::now()).unwrap();
        assert!(left > Duration::from_secs(89 * 24 * 3600) && left <= NODE_VALIDITY);
        assert_eq!(
            RootCertificate::from_der(root.der().to_vec()).unwrap(),
            root
        );
        assert!(RootCertificate::from_der(der).is_err());
    }

    #[test]
    fn names_that_do_not_follow_from_the_key_are_refused() {
        let (key, other) = (NodeKey::generate().unwrap(), NodeKey::generate().unwrap());
        let role = "edge.role.mielin".to_owned();
        let own = key.id().server_name();
        let cases: [&[String]; 4] = [
            &[other.id().server_name(), role.clone()],
            &[own.clone(), other.id().server_name(), role.clone()],
            &[own.clone(), own.clone(), role.clone()],
            std::slice::from_ref(&role),
        ];
        for names in cases {
            let refused = NodeCertificate::check(&issue(names, &key));
            assert!(
                matches!(refused, Err(CertificateError::IdMismatch { .. })),
                "{names:?}"
            );
        }
        for names in [
            vec![own.clone()],
            vec![own, role, "core.role.mielin".to_owned()],
        ] {
            let refused = NodeCertificate::check(&issue(&names, &key));
            assert!(matches!(refused, Err(CertificateError::Role)), "{names:?}");
        }
    }

    #[test]
    fn damaged_requests_and_certificates_are_refused() {
        let key = NodeKey::generate().unwrap();
        let request = make_request(&key).unwrap();
        let certificate = issue(&[key.id().server_name(), "edge.role.mielin".into()], &key);
        for index in 0..request.len() {
            let mut damaged = request.clone();
            damaged[index] ^= 0x41;
            // Not every byte of the outer encoding matters, but none may make
            // the request prove another id.
            if let Ok(request) = VerifiedRequest::check(&damaged) {
                assert_eq!(request.id, key.id(), "byte {index}");
            }
            assert!(VerifiedRequest::check(&request[..index]).is_err());
        }
        for length in 0..certificate.len() {
            assert!(NodeCertificate::check(&certificate[..length]).is_err());
        }
        assert!(NodeCertificate::check(&[0x30; 5000]).is_err());
    }
}
