//! Joining a mesh, as the joiner does it.

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
use crate::endpoint::{CONNECT_LIMIT, Liveness, close_reason_is_other_mesh};
use crate::exchange::{
    self, APPROVAL_LIMIT, CLOSE_DONE, ExchangeError, FromJoiner, FromMember, IssuerPlace,
    JoinRefusal, STEP_LIMIT,
};
use crate::introduction::{self, IntroductionError};
use crate::stream::MeshStream;
use crate::tls::{self, TlsError};
use crate::token::{JoinToken, TokenError};

/// A joiner waiting for its approval keeps its connection alive like this.
const LIVENESS: Liveness = Liveness {
    idle: Duration::from_secs(30),
    keep_alive: Duration::from_secs(5),
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
    #[error("{address} did not answer within {limit:?}; is the address right and UDP allowed?")]
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

/// Joins the mesh of the node at `address` and stores the credentials under
/// `path`.
///
/// With a token it joins at once. Without one it learns the root from
/// `address`, trusting it on first use, and waits until somebody approves.
/// `role` is what the node wants to be; `None` takes what the token grants, or
/// Edge.
///
/// # Errors
/// [`JoinError`]; joining can be tried again.
pub async fn join(
    address: SocketAddr,
    token: Option<&JoinToken>,
    path: &Path,
    name: &str,
    role: Option<NodeRole>,
    progress: impl Fn(JoinProgress) + Send + Sync,
) -> Result<NodeCredentials, JoinError> {
    let name = Name::new(name).map_err(CredentialsError::from)?;
    let directory = DataDirectory::open(path)?;
    refuse_member(&directory)?;
    let key = load_or_make_key(&directory)?;
    let root = match token {
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
        role,
        secret: token.map(|token| token.secret),
    };
    let joiner = Joiner::new(&root, key.id(), address)?;
    let certificate = joiner.obtain(address, &ask, &progress).await;
    joiner.endpoint.close(CLOSE_DONE, b"done");
    // Lets the last acknowledgement leave; how long that takes is not of interest.
    let _ = timeout(Duration::from_millis(500), joiner.endpoint.wait_idle()).await;
    let certificate = certificate?;

    let checked = NodeCertificate::check(&certificate)?;
    if checked.id != key.id() {
        return Err(CertificateError::IdMismatch { actual: checked.id }.into());
    }
    tls::verify_chain(&root, &certificate)?;
    store_membership(&directory, &root, &certificate, &name)?;
    progress(JoinProgress::Admitted {
        node: checked.id,
        role: checked.role,
    });
    let credentials = load_credentials(path)?;
    Ok(credentials.expect("the certificate was stored a moment ago"))
}

struct Joiner {
    endpoint: quinn::Endpoint,
    config: quinn::ClientConfig,
    mesh: MeshId,
    node: NodeId,
}

impl Joiner {
    fn new(root: &RootCertificate, node: NodeId, address: SocketAddr) -> Result<Self, JoinError> {
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
        })
    }

    /// Asks the member at `address`, and the issuer it names, if it is not the
    /// issuer itself.
    async fn obtain(
        &self,
        address: SocketAddr,
        ask: &FromJoiner,
        progress: &(impl Fn(JoinProgress) + Sync),
    ) -> Result<Vec<u8>, JoinError> {
        let (connection, mut stream, issuer) = self.greet(address, MEMBER_NAME).await?;
        match issuer {
            IssuerPlace::Here => {
                let certificate = presented_certificate(&connection);
                if !certificate.is_some_and(|certificate| certificate.issuer) {
                    let reason = "it claims to hold the root without the certificate for it";
                    return Err(JoinError::Peer {
                        address,
                        reason: reason.into(),
                    });
                }
                self.ask(address, &mut stream, ask, progress).await
            }
            IssuerPlace::At { address: at } => {
                connection.close(CLOSE_DONE, b"done");
                let issuer: SocketAddr = at
                    .parse()
                    .map_err(|_| JoinError::IssuerUnknown { address })?;
                progress(JoinProgress::Redirected { issuer });
                // WebPKI itself verifies here that the peer is the issuer.
                let (_connection, mut stream, place) = self.greet(issuer, ISSUER_NAME).await?;
                if place != IssuerPlace::Here {
                    return Err(JoinError::IssuerUnknown { address: issuer });
                }
                self.ask(issuer, &mut stream, ask, progress).await
            }
            IssuerPlace::Unknown => Err(JoinError::IssuerUnknown { address }),
        }
    }

    async fn greet(
        &self,
        address: SocketAddr,
        server: &str,
    ) -> Result<(quinn::Connection, MeshStream, IssuerPlace), JoinError> {
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
        match answer {
            FromMember::Welcome { issuer } => Ok((connection, stream, issuer)),
            FromMember::Refused(refusal) => Err(self.refused(address, refusal)),
            _ => Err(exchange_error(address, ExchangeError::Unexpected)),
        }
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

/// What the member at the other end of a handshake has shown.
fn presented_certificate(connection: &quinn::Connection) -> Option<NodeCertificate> {
    let presented = crate::endpoint::peer_certificate(connection)?;
    NodeCertificate::check(&presented).ok()
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
