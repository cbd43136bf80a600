//! What a member of a mesh holds: key, certificate, root, and for one node the
//! root's key.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use mielin_mesh_core::{Name, NameError, NodeId, NodeRole};
use time::OffsetDateTime;

use crate::authority::{Authority, AuthorityError};
use crate::certificate::{
    CertificateError, MeshId, NodeCertificate, RENEW_BELOW, RootCertificate, VerifiedRequest,
    make_request, make_root,
};
use crate::directory::{DataDirectory, DirectoryError};
use crate::identity::{IdentityError, NodeKey};
use crate::revoked::{Revoked, stored_revocations};
use crate::signature::Signer;
use crate::tls::{self, TlsError};

const KEY_FILE: &str = "identity/node.key";
const CERTIFICATE_FILE: &str = "identity/node.crt";
const ROOT_FILE: &str = "identity/root.crt";
const NAME_FILE: &str = "identity/name";

/// Everything that lets a node act as a member; clones share the key.
#[derive(Clone, Debug)]
pub struct NodeCredentials {
    directory: DataDirectory,
    key: Arc<NodeKey>,
    root: RootCertificate,
    certificate: Arc<[u8]>,
    checked: NodeCertificate,
    name: Name,
    authority: Option<Authority>,
    revoked: Revoked,
}

/// Why credentials could not be made or loaded. Files that existed before are
/// unchanged.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The directory belongs to a member already.
    #[error(
        "this data directory already belongs to node {node} of mesh {mesh}; use another --data-dir"
    )]
    Exists {
        /// The member.
        node: NodeId,
        /// Its mesh.
        mesh: MeshId,
    },
    /// The node cannot be called that.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The certificate is past its end; the node has to join again.
    #[error("the certificate of node {node} has expired; join the mesh again")]
    Expired {
        /// Whose certificate.
        node: NodeId,
    },
    /// The certificate is valid only later, by this machine's clock.
    #[error(
        "the certificate of node {node} is valid from {} on, and this machine's clock says that it is {}",
        said(.from), said(&SystemTime::now())
    )]
    NotYet {
        /// Whose certificate.
        node: NodeId,
        /// When it begins.
        from: SystemTime,
    },
    /// A file is missing beside its siblings.
    #[error("{file} is missing in the data directory")]
    Missing {
        /// Its name.
        file: &'static str,
    },
    /// The stored name is none.
    #[error("the file {} has no name of a node in it: {reason}", file.display())]
    StoredName {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: NameError,
    },
    /// The stored certificate does not fit the stored key or root.
    #[error("the stored certificate does not belong to the stored key or root")]
    Mismatch,
    /// A certificate is wrong.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The key is damaged.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The root's holder state is damaged.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The data directory failed.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

/// Makes a new mesh with this node as its first member and root holder.
///
/// # Errors
/// [`CredentialsError::Exists`] when the directory belongs to a member.
pub fn create_mesh(
    path: &Path,
    name: &str,
    role: NodeRole,
) -> Result<NodeCredentials, CredentialsError> {
    let name = Name::new(name)?;
    let directory = DataDirectory::open(path)?;
    refuse_member(&directory)?;
    let key = load_or_make_key(&directory)?;
    let (root_key, root) = make_root()?;
    let authority = Authority::create(directory.clone(), root_key, root.clone())?;
    let request = VerifiedRequest::check(&make_request(&key)?)?;
    let certificate = authority.issue(&request, role, true)?;
    store_membership(&directory, &root, &certificate, &name)?;
    load_credentials(path)?.ok_or(CredentialsError::Missing {
        file: CERTIFICATE_FILE,
    })
}

/// Loads the credentials of a member, `None` when the directory has none (a
/// directory that does not exist is created empty). The holder of the root
/// renews its own certificate here when its end is near.
///
/// # Errors
/// [`CredentialsError`] when files are damaged, do not fit, or have expired.
pub fn load_credentials(path: &Path) -> Result<Option<NodeCredentials>, CredentialsError> {
    let directory = DataDirectory::open(path)?;
    let Some(certificate) = directory.read(CERTIFICATE_FILE)? else {
        return Ok(None);
    };
    let key =
        NodeKey::load(&directory, KEY_FILE)?.ok_or(CredentialsError::Missing { file: KEY_FILE })?;
    let root = directory
        .read(ROOT_FILE)?
        .ok_or(CredentialsError::Missing { file: ROOT_FILE })?;
    let root = RootCertificate::from_der(root)?;
    let name = directory
        .read(NAME_FILE)?
        .ok_or(CredentialsError::Missing { file: NAME_FILE })?;
    // An editor that repairs it ends the line.
    let name = Name::new(String::from_utf8_lossy(&name).trim_end()).map_err(|reason| {
        let file = directory.path().join(NAME_FILE);
        CredentialsError::StoredName { file, reason }
    })?;
    let stored = stored_revocations(&directory, &root)?;
    let revoked: Revoked = stored.into_iter().collect();
    let authority = Authority::load(&directory, &root, &revoked)?;
    let checked = NodeCertificate::check(&certificate)?;
    if checked.id != key.id() {
        return Err(CredentialsError::Mismatch);
    }
    let mut credentials = NodeCredentials {
        directory,
        key: Arc::new(key),
        root,
        certificate: certificate.into(),
        checked,
        name,
        authority,
        revoked,
    };
    let mut chain = tls::verify_chain(&credentials.root, &credentials.certificate);
    let is_early =
        |chain: &Result<(), TlsError>| chain.as_ref().err().and_then(TlsError::valid_from);
    // A clock that was wrong once must not keep the holder of the root from its mesh.
    if credentials.renewal_due() || is_early(&chain).is_some() {
        credentials.renew_own()?;
        chain = tls::verify_chain(&credentials.root, &credentials.certificate);
    }
    if credentials.checked.expires <= SystemTime::now() {
        return Err(CredentialsError::Expired {
            node: credentials.id(),
        });
    }
    match (is_early(&chain), chain) {
        (Some(from), _) => Err(CredentialsError::NotYet {
            node: credentials.id(),
            from,
        }),
        (None, Err(_)) => Err(CredentialsError::Mismatch),
        (None, Ok(())) => Ok(Some(credentials)),
    }
}

/// A time in UTC, to the minute.
fn said(time: &SystemTime) -> String {
    let time = OffsetDateTime::from(*time);
    let (hour, minute) = (time.hour(), time.minute());
    format!("{} {hour:02}:{minute:02} UTC", time.date())
}

impl NodeCredentials {
    /// The node's id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.checked.id
    }

    /// The name its user gave it.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The role in its certificate.
    #[must_use]
    pub fn role(&self) -> NodeRole {
        self.checked.role
    }

    /// The mesh it belongs to.
    #[must_use]
    pub fn mesh_id(&self) -> MeshId {
        self.root.mesh_id()
    }

    /// When the certificate ends.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.checked.expires
    }

    /// Where the node keeps its data.
    #[must_use]
    pub fn directory(&self) -> &DataDirectory {
        &self.directory
    }

    /// Signs in the node's name.
    #[must_use]
    pub fn signer(&self) -> Signer {
        Signer(Arc::clone(&self.key))
    }

    /// The power to admit nodes, on the holder of the root only.
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// Gives the node another name, durably.
    ///
    /// # Errors
    /// [`CredentialsError::Name`], or the directory failed.
    pub fn rename(&mut self, name: &str) -> Result<(), CredentialsError> {
        let name = Name::new(name)?;
        self.directory.write(NAME_FILE, name.as_str().as_bytes())?;
        self.name = name;
        Ok(())
    }

    /// Whether less than 30 days of the certificate are left.
    #[must_use]
    pub fn renewal_due(&self) -> bool {
        self.checked.expires < SystemTime::now() + RENEW_BELOW
    }

    /// Renews the certificate of the root's holder, which issues it to itself;
    /// says whether this node is that one.
    ///
    /// # Errors
    /// The certificate could not be issued or stored; nothing has changed.
    pub fn renew_own(&mut self) -> Result<bool, CredentialsError> {
        let Some(authority) = self.authority.clone() else {
            return Ok(false);
        };
        let request = VerifiedRequest::check(&self.renewal_request()?)?;
        self.replace(authority.issue(&request, self.role(), true)?)?;
        Ok(true)
    }

    /// A request for the root's holder to issue the certificate anew.
    ///
    /// # Errors
    /// The request could not be signed.
    pub fn renewal_request(&self) -> Result<Vec<u8>, CredentialsError> {
        Ok(make_request(&self.key)?)
    }

    /// Takes over a renewed certificate, durably.
    ///
    /// # Errors
    /// It is not this node's, or not from this mesh; nothing has changed.
    pub fn replace(&mut self, certificate: Vec<u8>) -> Result<(), CredentialsError> {
        let checked = NodeCertificate::check(&certificate)?;
        if checked.id != self.id() || tls::verify_chain(&self.root, &certificate).is_err() {
            return Err(CredentialsError::Mismatch);
        }
        self.directory.write(CERTIFICATE_FILE, &certificate)?;
        self.certificate = certificate.into();
        self.checked = checked;
        Ok(())
    }

    /// The nodes that are shut out, as this node knows.
    #[must_use]
    pub fn revoked(&self) -> &Revoked {
        &self.revoked
    }

    /// The trust anchor of the mesh.
    #[must_use]
    pub fn root(&self) -> &RootCertificate {
        &self.root
    }

    pub(crate) fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    pub(crate) fn key(&self) -> &NodeKey {
        &self.key
    }
}

/// Credentials that no honest node has, for tests of those who meet them.
#[cfg(test)]
impl NodeCredentials {
    pub(crate) fn forged(
        mut self,
        key: NodeKey,
        root: RootCertificate,
        certificate: &[u8],
    ) -> Self {
        self.checked.id = key.id();
        self.key = Arc::new(key);
        self.root = root;
        self.certificate = certificate.into();
        self.revoked = Revoked::default();
        self
    }
}

/// A member's directory must not be taken over; one whose certificate has
/// expired may.
pub(crate) fn refuse_member(directory: &DataDirectory) -> Result<(), CredentialsError> {
    match load_credentials(directory.path()) {
        Ok(None) | Err(CredentialsError::Expired { .. }) => Ok(()),
        Ok(Some(member)) => Err(CredentialsError::Exists {
            node: member.id(),
            mesh: member.mesh_id(),
        }),
        Err(error) => Err(error),
    }
}

/// The node's key, made and stored when there is none: a joiner keeps its
/// identity from one attempt to the next.
pub(crate) fn load_or_make_key(directory: &DataDirectory) -> Result<NodeKey, CredentialsError> {
    if let Some(key) = NodeKey::load(directory, KEY_FILE)? {
        return Ok(key);
    }
    let key = NodeKey::generate()?;
    key.store(directory, KEY_FILE)?;
    Ok(key)
}

/// Writes what makes a directory a member's; the certificate comes last,
/// because its presence is what counts.
pub(crate) fn store_membership(
    directory: &DataDirectory,
    root: &RootCertificate,
    certificate: &[u8],
    name: &Name,
) -> Result<(), DirectoryError> {
    directory.write(ROOT_FILE, root.der())?;
    directory.write(NAME_FILE, name.as_str().as_bytes())?;
    directory.write(CERTIFICATE_FILE, certificate)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::authority::ROOT_KEY_FILE;
    use crate::certificate::{MEMBER_NAME, ROLE_SUFFIX, issue_for};

    #[test]
    fn a_new_mesh_is_found_again_and_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load_credentials(dir.path()).unwrap().is_none());
        let made = create_mesh(dir.path(), "first", NodeRole::Core).unwrap();
        let found = load_credentials(dir.path()).unwrap().unwrap();
        assert_eq!(
            (found.id(), found.name(), found.role()),
            (made.id(), "first", NodeRole::Core)
        );
        assert!(found.authority().is_some());
        let again = create_mesh(dir.path(), "second", NodeRole::Core);
        assert!(matches!(again, Err(CredentialsError::Exists { .. })));
    }

    /// As after a start with a clock that was far ahead.
    #[test]
    fn a_certificate_from_the_future_is_named_and_the_holder_of_the_root_renews_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let made = create_mesh(dir.path(), "first", NodeRole::Core).unwrap();
        let (root_key, root) = make_root().unwrap();
        let later =
            |days: u64| OffsetDateTime::now_utc() + Duration::from_secs(days * 24 * 60 * 60);
        let from_the_future = |root: &RootCertificate, root_key: &NodeKey, key: &NodeKey| {
            let names = vec![
                key.id().server_name(),
                MEMBER_NAME.to_owned(),
                format!("core{ROLE_SUFFIX}"),
            ];
            issue_for(
                later(70)..later(160),
                names,
                key.pair(),
                root,
                root_key.pair(),
            )
            .unwrap()
        };
        // A member can only be told.
        let member = tempfile::tempdir().unwrap();
        let directory = DataDirectory::open(member.path()).unwrap();
        let key = load_or_make_key(&directory).unwrap();
        let certificate = from_the_future(&root, &root_key, &key);
        let name = Name::new("second").unwrap();
        store_membership(&directory, &root, &certificate, &name).unwrap();
        let error = load_credentials(member.path()).unwrap_err();
        assert!(
            matches!(&error, CredentialsError::NotYet { from, .. } if *from > SystemTime::now()),
            "{error}"
        );
        assert!(error.to_string().contains("clock"), "{error}");

        let stored_key = NodeKey::load(made.directory(), ROOT_KEY_FILE)
            .unwrap()
            .unwrap();
        let certificate = from_the_future(made.root(), &stored_key, made.key());
        made.directory()
            .write(CERTIFICATE_FILE, &certificate)
            .unwrap();
        let found = load_credentials(dir.path()).unwrap().unwrap();
        assert_eq!(found.id(), made.id());
        assert_ne!(found.certificate(), certificate);
        assert!(!found.renewal_due());
    }

    #[test]
    fn damaged_credentials_are_named_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        create_mesh(dir.path(), "first", NodeRole::Core).unwrap();
        let other = tempfile::tempdir().unwrap();
        create_mesh(other.path(), "other", NodeRole::Core).unwrap();
        let file = |name: &str| dir.path().join(name);
        for name in [KEY_FILE, CERTIFICATE_FILE, ROOT_FILE] {
            let good = std::fs::read(file(name)).unwrap();
            std::fs::copy(other.path().join(name), file(name)).unwrap();
            let mismatch = load_credentials(dir.path());
            assert!(
                matches!(mismatch, Err(CredentialsError::Mismatch)),
                "{name}: {mismatch:?}"
            );
            std::fs::write(file(name), &good[..good.len() / 2]).unwrap();
            assert!(load_credentials(dir.path()).is_err());
            assert!(create_mesh(dir.path(), "x", NodeRole::Core).is_err());
            std::fs::write(file(name), &good).unwrap();
        }
        for broken in [&b""[..], b"two words", b"\x1b[31m"] {
            std::fs::write(file(NAME_FILE), broken).unwrap();
            let error = load_credentials(dir.path()).unwrap_err();
            assert!(
                matches!(&error, CredentialsError::StoredName { file: at, .. } if *at == file(NAME_FILE)),
                "{error}"
            );
        }
        std::fs::write(file(NAME_FILE), "repaired\n").unwrap();
        let repaired = load_credentials(dir.path()).unwrap().unwrap();
        assert_eq!(repaired.name(), "repaired");
    }
}
