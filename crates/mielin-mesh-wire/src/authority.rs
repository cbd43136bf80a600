//! The holder of the mesh root: the one node that admits others.

mod issued;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use mielin_mesh_core::revocation::Reason;
use mielin_mesh_core::{Name, NodeId, NodeRole, Revocation, SignedRevocation};
use tokio::sync::oneshot;

use crate::certificate::{CertificateError, MeshId, RootCertificate, VerifiedRequest};
use crate::directory::{DataDirectory, DirectoryError};
use crate::identity::{IdentityError, NodeKey};
use crate::revoked::Revoked;
use crate::token::{JoinToken, TokenError, secret_hash};
pub(crate) use issued::{Issued, decode_tokens, encode_tokens};
pub use issued::{TOKEN_LIFETIME_MAX, TOKEN_USES_MAX};

pub(crate) const ROOT_KEY_FILE: &str = "authority/root.key";
const TOKENS_FILE: &str = "authority/tokens";
/// Unexpired tokens that may exist at once.
const TOKENS_MAX: usize = 1024;
/// An expired token is remembered this long, so that its user is told
/// `Expired` and not `Unknown`.
const EXPIRED_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Joiners waiting for approval, altogether and from one address.
const PENDING_MAX: usize = 64;
const PENDING_PER_ADDRESS_MAX: usize = 8;

/// Issues certificates, tokens and approvals; clones share it.
#[derive(Clone)]
pub struct Authority {
    shared: Arc<Shared>,
}

struct Shared {
    directory: DataDirectory,
    root: RootCertificate,
    root_key: NodeKey,
    revoked: Revoked,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tokens: BTreeMap<[u8; 32], Issued>,
    pending: BTreeMap<NodeId, Waiting>,
    /// Names of this node, of those admitted since it started, and of the
    /// members that it was told of.
    names: BTreeMap<NodeId, Name>,
    /// Tells two requests of one node apart.
    serial: u64,
}

impl State {
    /// Whether another node than this one bears the name.
    fn is_taken(&self, name: &Name, node: &NodeId) -> bool {
        let mut others = self.names.iter().filter(|(other, _)| *other != node);
        others.any(|(_, taken)| taken == name)
    }
}

struct Waiting {
    info: PendingJoin,
    serial: u64,
    decision: oneshot::Sender<Decision>,
}

/// What became of a request for approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Approved,
    Rejected,
}

/// A node that asked to join without a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingJoin {
    /// The id it proved; compare it with what the joiner shows.
    pub node: NodeId,
    /// The name it gave itself.
    pub name: Name,
    /// The role it asked for and will get.
    pub role: NodeRole,
    /// Where it asked from.
    pub address: SocketAddr,
    /// When it asked.
    pub since: SystemTime,
}

/// Why the authority did not do what its user asked. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The node was shut out.
    #[error("node {0} was revoked")]
    Revoked(NodeId),
    /// Nobody with this id is waiting.
    #[error("node {0} is not waiting for approval")]
    NotPending(NodeId),
    /// Another node was admitted under this name meanwhile.
    #[error("another node of the mesh is called {0}")]
    NameTaken(Name),
    /// Too many unexpired tokens exist.
    #[error("{TOKENS_MAX} unexpired tokens exist already; wait until some have expired")]
    TooManyTokens,
    /// A token is for no nodes, or for too many.
    #[error("a token is good for 1 to {TOKEN_USES_MAX} nodes, not {0}")]
    Uses(u16),
    /// A token would be good for no time, or for too long.
    #[error("a token is good for more than nothing and at most {} days, not for {} s", TOKEN_LIFETIME_MAX.as_secs() / (24 * 60 * 60), .0.as_secs())]
    Lifetime(Duration),
    /// The stored tokens are damaged.
    #[error("{TOKENS_FILE} in the data directory is damaged")]
    TokensDamaged,
    /// The system gave no random numbers.
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
    /// The root key is missing or damaged.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A certificate could not be issued.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The data directory failed.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

/// Why a joiner is not admitted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdmissionError {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("the token grants the role {granted:?}, not {requested:?}")]
    Role {
        granted: NodeRole,
        requested: NodeRole,
    },
    #[error("another node of the mesh is called {0}")]
    NameTaken(Name),
    #[error("node {0} was revoked")]
    Revoked(NodeId),
    #[error("too many nodes are waiting for approval")]
    Busy,
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

impl Authority {
    /// Issues a token for one node.
    ///
    /// # Errors
    /// [`AuthorityError`]; no token then exists.
    pub fn issue_token(
        &self,
        role: Option<NodeRole>,
        lifetime: Duration,
    ) -> Result<JoinToken, AuthorityError> {
        self.issue_counted_token(role, lifetime, 1)
    }

    /// Issues a token for so many nodes, at most [`TOKEN_USES_MAX`], and for so long, at most [`TOKEN_LIFETIME_MAX`].
    ///
    /// # Errors
    /// [`AuthorityError`]; no token then exists.
    pub fn issue_counted_token(
        &self,
        role: Option<NodeRole>,
        lifetime: Duration,
        uses: u16,
    ) -> Result<JoinToken, AuthorityError> {
        if uses == 0 || uses > TOKEN_USES_MAX {
            return Err(AuthorityError::Uses(uses));
        }
        if lifetime.is_zero() || lifetime > TOKEN_LIFETIME_MAX {
            return Err(AuthorityError::Lifetime(lifetime));
        }
        let now = SystemTime::now();
        let expires = now
            .checked_add(lifetime)
            .ok_or(AuthorityError::Lifetime(lifetime))?;
        let token = JoinToken::generate(self.shared.root.clone(), role, expires)
            .map_err(AuthorityError::Random)?;
        let mut state = self.state();
        let mut tokens = state.tokens.clone();
        tokens.retain(|_, issued| {
            issued
                .expires
                .checked_add(EXPIRED_KEPT)
                .is_none_or(|forget| forget > now)
        });
        if tokens
            .values()
            .filter(|issued| issued.expires > now)
            .count()
            >= TOKENS_MAX
        {
            return Err(AuthorityError::TooManyTokens);
        }
        tokens.insert(
            secret_hash(&token.secret),
            Issued {
                expires,
                role,
                uses,
                used_by: BTreeSet::new(),
            },
        );
        self.store_tokens(&tokens)?;
        state.tokens = tokens;
        Ok(token)
    }

    /// The nodes that wait for approval, ordered by id.
    #[must_use]
    pub fn pending(&self) -> Vec<PendingJoin> {
        self.state()
            .pending
            .values()
            .map(|waiting| waiting.info.clone())
            .collect()
    }

    /// Admits a waiting node with the role and the name that it asked for.
    ///
    /// # Errors
    /// [`AuthorityError::NotPending`] and [`AuthorityError::NameTaken`]; the
    /// node waits on after the latter.
    pub fn approve(&self, node: &NodeId) -> Result<(), AuthorityError> {
        {
            let mut state = self.state();
            let waiting = state.pending.get(node);
            let name = waiting.map(|waiting| waiting.info.name.clone());
            let name = name.ok_or(AuthorityError::NotPending(*node))?;
            if state.is_taken(&name, node) {
                return Err(AuthorityError::NameTaken(name));
            }
            state.names.insert(*node, name);
        }
        self.decide(node, Decision::Approved)
    }

    /// Notes which name a node of the mesh bears: no other is admitted with it.
    pub fn note_name(&self, node: NodeId, name: Name) {
        self.state().names.insert(node, name);
    }

    /// Gives the name of a node free that is no member any more.
    pub fn forget_name(&self, node: &NodeId) {
        self.state().names.remove(node);
    }

    /// Turns a waiting node away; it may ask again.
    ///
    /// # Errors
    /// [`AuthorityError::NotPending`].
    pub fn reject(&self, node: &NodeId) -> Result<(), AuthorityError> {
        self.decide(node, Decision::Rejected)
    }

    /// The mesh whose root this is.
    #[must_use]
    pub fn mesh_id(&self) -> MeshId {
        self.shared.root.mesh_id()
    }

    /// Issues a new certificate to a member that proved its id and keeps its
    /// role.
    ///
    /// # Errors
    /// The request is wrong or names another node.
    pub fn renew(
        &self,
        member: &NodeId,
        role: NodeRole,
        request: &[u8],
    ) -> Result<Vec<u8>, AuthorityError> {
        let request = VerifiedRequest::check(request)?;
        if request.id != *member {
            return Err(CertificateError::IdMismatch { actual: request.id }.into());
        }
        if self.shared.revoked.contains(member) {
            return Err(AuthorityError::Revoked(*member));
        }
        Ok(self.issue(&request, role, false)?)
    }

    /// Says with the root's signature that a node is shut out, from now on and
    /// for good. This alone changes nothing: the members have to be told.
    ///
    /// # Errors
    /// [`AuthorityError::Identity`] when the signature code fails.
    pub fn sign_revocation(
        &self,
        node: NodeId,
        reason: Reason,
    ) -> Result<SignedRevocation, AuthorityError> {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let revocation = Revocation {
            node,
            revoked_ms: since_1970.map_or(0, |since| since.as_millis() as u64),
            reason,
        };
        let signed =
            SignedRevocation::sign(revocation, |message| self.shared.root_key.sign(message))?;
        Ok(signed)
    }

    /// Takes possession of a new root.
    pub(crate) fn create(
        directory: DataDirectory,
        root_key: NodeKey,
        root: RootCertificate,
    ) -> Result<Self, AuthorityError> {
        root_key.store(&directory, ROOT_KEY_FILE)?;
        let (tokens, revoked) = (BTreeMap::new(), Revoked::default());
        Ok(Authority::new(directory, root, root_key, tokens, revoked))
    }

    /// `None` when this node does not hold the root key.
    pub(crate) fn load(
        directory: &DataDirectory,
        root: &RootCertificate,
        revoked: &Revoked,
    ) -> Result<Option<Self>, AuthorityError> {
        let Some(root_key) = NodeKey::load(directory, ROOT_KEY_FILE)? else {
            return Ok(None);
        };
        let stored = directory.read(TOKENS_FILE)?.unwrap_or_default();
        let tokens = decode_tokens(&stored).ok_or(AuthorityError::TokensDamaged)?;
        Ok(Some(Authority::new(
            directory.clone(),
            root.clone(),
            root_key,
            tokens,
            revoked.clone(),
        )))
    }

    /// Uses a token and issues the certificate. The use is durable before the
    /// certificate exists, so that a crash can cost a use but never admit one
    /// node too many. A node that used a token may repeat its request
    /// until the token expires, because the answer may have been lost.
    pub(crate) fn admit_by_token(
        &self,
        request: &VerifiedRequest,
        name: &Name,
        secret: &[u8; 32],
        requested: Option<NodeRole>,
    ) -> Result<Vec<u8>, AdmissionError> {
        self.refuse_revoked(&request.id)?;
        let role = {
            let mut state = self.state();
            // Looked up by hash: how long that takes says something about
            // hashes, from which nobody gets nearer to a secret. The hashes are
            // compared in constant time all the same.
            let hash = blake3::Hash::from_bytes(secret_hash(secret));
            let mut found = None;
            for (known, issued) in &state.tokens {
                if blake3::Hash::from_bytes(*known) == hash {
                    found = Some(issued.clone());
                }
            }
            let mut issued = found.ok_or(TokenError::Unknown)?;
            if !issued.has_place_for(&request.id) {
                return Err(TokenError::Used.into());
            }
            if issued.expires <= SystemTime::now() {
                return Err(TokenError::Expired.into());
            }
            let role = match (issued.role, requested) {
                (Some(granted), Some(requested)) if granted != requested => {
                    return Err(AdmissionError::Role { granted, requested });
                }
                (Some(granted), _) => granted,
                (None, requested) => requested.unwrap_or(NodeRole::Edge),
            };
            if state.is_taken(name, &request.id) {
                return Err(AdmissionError::NameTaken(name.clone()));
            }
            issued.used_by.insert(request.id);
            let mut tokens = state.tokens.clone();
            tokens.insert(*hash.as_bytes(), issued);
            self.store_tokens(&tokens)?;
            state.tokens = tokens;
            state.names.insert(request.id, name.clone());
            role
        };
        Ok(self.issue(request, role, false)?)
    }

    fn refuse_revoked(&self, node: &NodeId) -> Result<(), AdmissionError> {
        if self.shared.revoked.contains(node) {
            return Err(AdmissionError::Revoked(*node));
        }
        Ok(())
    }

    /// Puts a joiner on the list. Dropping the ticket takes it off.
    pub(crate) fn ask(&self, info: PendingJoin) -> Result<Asked, AdmissionError> {
        self.refuse_revoked(&info.node)?;
        let (decision, outcome) = oneshot::channel();
        let mut state = self.state();
        let node = info.node;
        if state.is_taken(&info.name, &node) {
            return Err(AdmissionError::NameTaken(info.name));
        }
        if !state.pending.contains_key(&node) {
            let host: IpAddr = info.address.ip();
            let same = state
                .pending
                .values()
                .filter(|w| w.info.address.ip() == host)
                .count();
            if state.pending.len() >= PENDING_MAX || same >= PENDING_PER_ADDRESS_MAX {
                return Err(AdmissionError::Busy);
            }
        }
        state.serial += 1;
        let serial = state.serial;
        state.pending.insert(
            node,
            Waiting {
                info,
                serial,
                decision,
            },
        );
        Ok((
            Ticket {
                authority: self.clone(),
                node,
                serial,
            },
            outcome,
        ))
    }

    pub(crate) fn issue(
        &self,
        request: &VerifiedRequest,
        role: NodeRole,
        holds_root: bool,
    ) -> Result<Vec<u8>, CertificateError> {
        request.issue(
            &self.shared.root,
            self.shared.root_key.pair(),
            role,
            holds_root,
        )
    }

    fn new(
        directory: DataDirectory,
        root: RootCertificate,
        root_key: NodeKey,
        tokens: BTreeMap<[u8; 32], Issued>,
        revoked: Revoked,
    ) -> Self {
        let state = Mutex::new(State {
            tokens,
            ..State::default()
        });
        Authority {
            shared: Arc::new(Shared {
                directory,
                root,
                root_key,
                revoked,
                state,
            }),
        }
    }

    fn decide(&self, node: &NodeId, decision: Decision) -> Result<(), AuthorityError> {
        let waiting = self.state().pending.remove(node);
        let waiting = waiting.ok_or(AuthorityError::NotPending(*node))?;
        waiting
            .decision
            .send(decision)
            .map_err(|_| AuthorityError::NotPending(*node))
    }

    fn store_tokens(&self, tokens: &BTreeMap<[u8; 32], Issued>) -> Result<(), DirectoryError> {
        self.shared
            .directory
            .write(TOKENS_FILE, &encode_tokens(tokens))
    }

    /// Every change of the state is complete before its lock is released, so a
    /// panic elsewhere leaves nothing half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("mesh", &self.mesh_id())
            .finish_non_exhaustive()
    }
}

/// A place among those who wait, and what becomes of the request.
pub(crate) type Asked = (Ticket, oneshot::Receiver<Decision>);

/// A place on the list of pending joiners.
pub(crate) struct Ticket {
    authority: Authority,
    node: NodeId,
    serial: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.authority.state();
        if state
            .pending
            .get(&self.node)
            .is_some_and(|w| w.serial == self.serial)
        {
            state.pending.remove(&self.node);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
