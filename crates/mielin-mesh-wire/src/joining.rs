//! Joining a mesh, as the joiner does it.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mielin_mesh_core::{Name, NodeId, NodeRole};
use tokio::time::timeout;

use crate::certificate::{
    CertificateError, ISSUER_NAME, MEMBER_NAME, MeshId, NodeCertificate, RootCertificate,
    make_request,
};
use crate::credentials::{
    CredentialsError, NodeCredentials, load_credentials, load_or_make_key, refuse_member,
    store_membership,
};
use crate::directory::{DataDirectory, DirectoryError};
use crate::endpoint::{CONNECT_LIMIT, Liveness, close_reason_is_other_mesh, peer_certificate};
use crate::exchange::{
    self, APPROVAL_LIMIT, CLOSE_DONE, ExchangeError, FromJoiner, FromMember, IssuerPlace,
    JoinRefusal, STEP_LIMIT,
};
use crate::introduction::{self, IntroductionError};
use crate::peers::remember_peers;
use crate::stream::MeshStream;
use crate::tls::{self, TlsError};
use crate::token::{JoinToken, TokenError};

/// A joiner waiting for its approval keeps its connection alive like this.
const LIVENESS: Liveness = Liveness {
    idle: Duration::from_secs(30),
    keep_alive: Duration::from_secs(5),
    unused: Duration::from_secs(300),
};

/// What a joiner can tell its user while it joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinProgress {
    /// Without a token: the mesh has shown its root, which is trusted from now
    /// on. The user should compare `mesh` with what a member's user sees.
    Introduced {
        /// Fingerprint of the root.
        mesh: MeshId,
        /// This node's id, which the approving user should compare.
        node: NodeId,
    },
    /// The member that was dialled does not hold the root and named the one
    /// that does.
    Redirected {
        /// Where the issuer is.
        issuer: SocketAddr,
    },
    /// Somebody has to approve this node at the issuer.
    WaitingForApproval {
        /// This node's id.
        node: NodeId,
        /// How long it will wait.
        limit: Duration,
    },
    /// The certificate has arrived.
    Admitted {
        /// This node's id.
        node: NodeId,
        /// The role that was granted.
        role: NodeRole,
    },
}

impl fmt::Display for JoinProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinProgress::Introduced { mesh, node } => write!(
                f,
                "the mesh calls itself {mesh}; compare this with `mielin mesh status` on a member. \
                 This node is {node}"
            ),
            JoinProgress::Redirected { issuer } => {
                write!(f, "asking {issuer}, which admits the nodes of this mesh")
            }
            JoinProgress::WaitingForApproval { node, limit } => write!(
                f,
                "waiting up to {} minutes for `mielin mesh approve {}` on the node that admits",
                limit.as_secs() / 60,
                node.short()
            ),
            JoinProgress::Admitted { node, role } => {
                write!(f, "admitted as {} with the role {role}", node.short())
            }
        }
    }
}

/// Why a node did not join. Its data directory holds at most its key, so that
/// it can try again under the same id.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The token was not accepted.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The introduction failed, nobody may be listening.
    #[error(transparent)]
    Introduction(#[from] IntroductionError),
    /// No connection.
    #[error("cannot reach {address}: {source}")]
    Unreachable {
        /// Who was dialled.
        address: SocketAddr,
        /// What the transport said.
        source: quinn::ConnectionError,
    },
    /// No connection or no answer in time.
    #[error("{address} did not answer within {limit:?}")]
    Timeout {
        /// Who was dialled.
        address: SocketAddr,
        /// How long was waited.
        limit: Duration,
    },
    /// The address cannot be dialled at all.
    #[error("cannot dial {address}: {source}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: quinn::ConnectError,
    },
    /// The member does not hold the root and does not know who does.
    #[error(
        "{address} cannot admit nodes and does not know who can; join at the node that started the mesh"
    )]
    IssuerUnknown {
        /// Who was asked.
        address: SocketAddr,
    },
    /// The token is for another role.
    #[error("the token grants the role {granted}, not {requested}")]
    Role {
        /// What it grants.
        granted: NodeRole,
        /// What was asked for.
        requested: NodeRole,
    },
    /// Another member bears the name.
    #[error("another node of the mesh is called {name}")]
    NameTaken {
        /// The name that was asked for.
        name: Name,
    },
    /// The mesh has shut this node out.
    #[error(
        "node {node} was revoked in this mesh and cannot join it again; use another --data-dir, which makes a new identity"
    )]
    Revoked {
        /// This node.
        node: NodeId,
    },
    /// Too many wrong tokens came from this host.
    #[error("too many wrong tokens came from this host; try again in {} s", retry_after.as_secs())]
    TooManyAttempts {
        /// After what time the next attempt may succeed.
        retry_after: Duration,
    },
    /// Too many nodes are joining.
    #[error("too many nodes are joining at once; try again later")]
    Busy,
    /// The request was turned down.
    #[error("the request to join was rejected")]
    Rejected,
    /// Nobody approved.
    #[error("nobody approved this node within {limit:?}; run `mielin mesh approve {node}` at the issuer and join again", node = node.short())]
    NotApproved {
        /// This node.
        node: NodeId,
        /// How long was waited.
        limit: Duration,
    },
    /// The issuer failed or spoke nonsense.
    #[error("the member at {address} failed: {reason}")]
    Peer {
        /// Which member.
        address: SocketAddr,
        /// What was wrong.
        reason: String,
    },
    /// No socket.
    #[error("cannot open a socket: {0}")]
    Socket(io::Error),
    /// The issued certificate is wrong.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// TLS did not take the root.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The data directory belongs to a member, or is damaged.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The data directory failed.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

/// What a joiner wants.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// A member, best the one that started the mesh.
    pub address: SocketAddr,
    /// With a token the node joins at once; without one it trusts the root on
    /// first use and waits until somebody approves.
    pub token: Option<JoinToken>,
    /// What people shall call the node.
    pub name: String,
    /// What it wants to be; a token may be for one role only.
    pub role: NodeRole,
}

/// Joins a mesh and stores the credentials in the data directory at `path`.
///
/// # Errors
/// [`JoinError`]; joining can be tried again.
pub async fn join(
    path: &Path,
    request: JoinRequest,
    progress: impl Fn(JoinProgress) + Send + Sync,
) -> Result<NodeCredentials, JoinError> {
    let JoinRequest {
        address,
        token,
        name,
        role,
    } = request;
    let name = Name::new(name).map_err(CredentialsError::from)?;
    let directory = DataDirectory::open(path)?;
    refuse_member(&directory)?;
    let key = load_or_make_key(&directory)?;
    let root = match &token {
        Some(token) => token.root.clone(),
        None => {
            let root = introduction::ask(address, CONNECT_LIMIT).await?;
            progress(JoinProgress::Introduced {
                mesh: root.mesh_id(),
                node: key.id(),
            });
            root
        }
    };
    let ask = FromJoiner::Ask {
        request: make_request(&key)?,
        name: name.clone(),
        role: Some(role),
        secret: token.map(|token| token.secret),
    };
    let joiner = Joiner::new(&root, key.id(), name.clone(), address)?;
    let admitted = joiner.obtain(address, &ask, &progress).await;
    joiner.endpoint.close(CLOSE_DONE, b"done");
    // Lets the last acknowledgement leave; how long that takes is not of interest.
    let _ = timeout(Duration::from_millis(500), joiner.endpoint.wait_idle()).await;
    let (certificate, known) = admitted?;

    let checked = NodeCertificate::check(&certificate)?;
    if checked.id != key.id() {
        return Err(CertificateError::IdMismatch { actual: checked.id }.into());
    }
    tls::verify_chain(&root, &certificate)?;
    remember_peers(&directory, &known)?;
    store_membership(&directory, &root, &certificate, &name)?;
    progress(JoinProgress::Admitted {
        node: checked.id,
        role: checked.role,
    });
    let credentials = load_credentials(path)?;
    Ok(credentials.expect("the certificate was stored a moment ago"))
}

/// A member that has answered.
struct Greeting {
    connection: quinn::Connection,
    stream: MeshStream,
    member: NodeCertificate,
    issuer: IssuerPlace,
}

struct Joiner {
    endpoint: quinn::Endpoint,
    config: quinn::ClientConfig,
    mesh: MeshId,
    node: NodeId,
    name: Name,
}

impl Joiner {
    fn new(
        root: &RootCertificate,
        node: NodeId,
        name: Name,
        address: SocketAddr,
    ) -> Result<Self, JoinError> {
        let any = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let endpoint = quinn::Endpoint::client(any).map_err(JoinError::Socket)?;
        let mut config = quinn::ClientConfig::new(Arc::new(tls::join_client(root)?));
        config.transport_config(Arc::new(LIVENESS.transport()));
        Ok(Joiner {
            endpoint,
            config,
            mesh: root.mesh_id(),
            node,
            name,
        })
    }

    /// Asks the member at `address`, or the issuer that it names. Gives the
    /// certificate and the members that were met, to be remembered.
    async fn obtain(
        &self,
        address: SocketAddr,
        ask: &FromJoiner,
        progress: &(impl Fn(JoinProgress) + Sync),
    ) -> Result<(Vec<u8>, Vec<(NodeId, SocketAddr)>), JoinError> {
        let mut greeting = self.greet(address, MEMBER_NAME).await?;
        let mut known = vec![(greeting.member.id, address)];
        let mut issuer = address;
        if let IssuerPlace::At { address: at } = &greeting.issuer {
            greeting.connection.close(CLOSE_DONE, b"done");
            issuer = at
                .parse()
                .map_err(|_| JoinError::IssuerUnknown { address })?;
            progress(JoinProgress::Redirected { issuer });
            // WebPKI itself verifies here that the peer is the issuer.
            greeting = self.greet(issuer, ISSUER_NAME).await?;
            known.insert(0, (greeting.member.id, issuer));
        }
        if greeting.issuer != IssuerPlace::Here {
            return Err(JoinError::IssuerUnknown { address: issuer });
        }
        if !greeting.member.issuer {
            let reason = "it claims to hold the root without the certificate for it".into();
            return Err(JoinError::Peer {
                address: issuer,
                reason,
            });
        }
        let certificate = self
            .ask(issuer, &mut greeting.stream, ask, progress)
            .await?;
        Ok((certificate, known))
    }

    async fn greet(&self, address: SocketAddr, server: &str) -> Result<Greeting, JoinError> {
        let connecting = self
            .endpoint
            .connect_with(self.config.clone(), address, server)
            .map_err(|source| JoinError::Address { address, source })?;
        let connection = timeout(CONNECT_LIMIT, connecting)
            .await
            .map_err(|_| JoinError::Timeout {
                address,
                limit: CONNECT_LIMIT,
            })?
            .map_err(|source| connection_error(address, source))?;
        let conversation = async {
            let mut stream = exchange::open(&connection).await?;
            exchange::send_message(&mut stream, &FromJoiner::Hello { mesh: self.mesh.0 }).await?;
            let answer: FromMember = exchange::receive(&mut stream).await?;
            Ok((stream, answer))
        };
        let (stream, answer) = conversation
            .await
            .map_err(|error| exchange_error(address, error))?;
        let issuer = match answer {
            FromMember::Welcome { issuer } => issuer,
            FromMember::Refused(refusal) => return Err(self.refused(address, refusal)),
            _ => return Err(exchange_error(address, ExchangeError::Unexpected)),
        };
        let presented = peer_certificate(&connection).ok_or_else(|| JoinError::Peer {
            address,
            reason: "it has shown no certificate".into(),
        })?;
        let member = NodeCertificate::check(&presented)?;
        Ok(Greeting {
            connection,
            stream,
            member,
            issuer,
        })
    }

    async fn ask(
        &self,
        address: SocketAddr,
        stream: &mut MeshStream,
        ask: &FromJoiner,
        progress: &(impl Fn(JoinProgress) + Sync),
    ) -> Result<Vec<u8>, JoinError> {
        let failed = |error| exchange_error(address, error);
        exchange::send_message(stream, ask).await.map_err(failed)?;
        let mut answer: FromMember = exchange::receive(stream).await.map_err(failed)?;
        if matches!(answer, FromMember::Waiting) {
            let limit = APPROVAL_LIMIT;
            progress(JoinProgress::WaitingForApproval {
                node: self.node,
                limit,
            });
            // The issuer ends the wait; the margin is for its answer's way.
            let patience = limit + STEP_LIMIT;
            answer = timeout(patience, exchange::receive_unhurried(stream))
                .await
                .map_err(|_| JoinError::NotApproved {
                    node: self.node,
                    limit,
                })?
                .map_err(failed)?;
        }
        match answer {
            FromMember::Granted { certificate } => Ok(certificate),
            FromMember::Refused(refusal) => Err(self.refused(address, refusal)),
            _ => Err(failed(ExchangeError::Unexpected)),
        }
    }

    fn refused(&self, address: SocketAddr, refusal: JoinRefusal) -> JoinError {
        match refusal {
            JoinRefusal::Expired => TokenError::Expired.into(),
            JoinRefusal::Used => TokenError::Used.into(),
            JoinRefusal::Unknown => TokenError::Unknown.into(),
            JoinRefusal::WrongMesh => TokenError::WrongMesh.into(),
            JoinRefusal::Role { granted, requested } => JoinError::Role { granted, requested },
            JoinRefusal::NameTaken => JoinError::NameTaken {
                name: self.name.clone(),
            },
            JoinRefusal::Revoked => JoinError::Revoked { node: self.node },
            JoinRefusal::TooManyAttempts { retry_after_s } => JoinError::TooManyAttempts {
                // Whoever says a year says nonsense.
                retry_after: Duration::from_secs(retry_after_s.min(24 * 3600)),
            },
            JoinRefusal::Busy => JoinError::Busy,
            JoinRefusal::Rejected => JoinError::Rejected,
            JoinRefusal::NotApproved => JoinError::NotApproved {
                node: self.node,
                limit: APPROVAL_LIMIT,
            },
            JoinRefusal::Malformed => JoinError::Peer {
                address,
                reason: "it did not understand the request".into(),
            },
            JoinRefusal::Internal => JoinError::Peer {
                address,
                reason: "it could not issue a certificate".into(),
            },
        }
    }
}

fn connection_error(address: SocketAddr, source: quinn::ConnectionError) -> JoinError {
    if close_reason_is_other_mesh(&source) {
        return TokenError::WrongMesh.into();
    }
    match source {
        quinn::ConnectionError::ApplicationClosed(closed)
            if closed.error_code == exchange::CLOSE_BUSY =>
        {
            JoinError::Busy
        }
        quinn::ConnectionError::TimedOut => JoinError::Timeout {
            address,
            limit: CONNECT_LIMIT,
        },
        source => JoinError::Unreachable { address, source },
    }
}

fn exchange_error(address: SocketAddr, error: ExchangeError) -> JoinError {
    match error {
        ExchangeError::Connection(lost)
        | ExchangeError::Stream(crate::stream::StreamError::ConnectionLost(lost)) => {
            connection_error(address, lost)
        }
        ExchangeError::Timeout => JoinError::Timeout {
            address,
            limit: STEP_LIMIT,
        },
        other => JoinError::Peer {
            address,
            reason: other.to_string(),
        },
    }
}
