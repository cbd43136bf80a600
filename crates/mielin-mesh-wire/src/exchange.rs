//! The join exchange, as a member serves it to a node without a certificate.
//!
//! One QUIC connection with the protocol `mielin-join/1`, one stream, OxiCode
//! messages in frame headers:
//!
//! ```text
//! joiner                                   member
//!   Hello { mesh }               ->
//!                                <-          Welcome { issuer }
//!   Ask { request, secret, … }   ->                         (only to the issuer)
//!                                <-          Waiting         (without a token)
//!                                <-          Granted { certificate } or Refused
//! ```
//!
//! The secret of a token goes to the issuer only: a member that does not hold
//! the root says where the issuer is, and the joiner goes there itself.

mod waiting;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use mielin_mesh_core::{Name, NodeId, NodeRole, codec};
use oxicode::{Decode, Encode};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::authority::{AdmissionError, Asked, Authority, Decision, PendingJoin};
use crate::buckets::Buckets;
use crate::certificate::{MeshId, VerifiedRequest};
use crate::class::ClassCounters;
use crate::stream::{FrameLimit, MeshStream, StreamError};
use crate::token::TokenError;
use waiting::WaitingRoom;

/// How long a joiner may wait for its approval.
pub(crate) const APPROVAL_LIMIT: Duration = Duration::from_secs(600);
/// How long each side waits for the other's next message.
pub(crate) const STEP_LIMIT: Duration = Duration::from_secs(10);
/// Joiners that are served at once.
const JOINERS_MAX: usize = 64;
/// Wrong tokens that a host may show, one after the other, and after what time
/// once more. A secret has 256 bits; this is for whoever floods.
const GUESSES_AT_ONCE: u32 = 10;
const GUESS_PERIOD: Duration = Duration::from_secs(10);
/// A message holds one certificate or request and little else.
const MESSAGE_LIMIT: FrameLimit = FrameLimit {
    header_bytes: 8192,
    payload_bytes: 0,
};
/// Stands for a peer that has no certificate.
const ANONYMOUS: NodeId = NodeId([0; 32]);
/// Everything was said.
pub(crate) const CLOSE_DONE: quinn::VarInt = quinn::VarInt::from_u32(0);
/// Too many joiners at once.
pub(crate) const CLOSE_BUSY: quinn::VarInt = quinn::VarInt::from_u32(16);

#[derive(Debug, Encode, Decode)]
pub(crate) enum FromJoiner {
    Hello {
        mesh: [u8; 32],
    },
    Ask {
        request: Vec<u8>,
        name: Name,
        role: Option<NodeRole>,
        secret: Option<[u8; 32]>,
    },
}

#[derive(Debug, Encode, Decode)]
pub(crate) enum FromMember {
    Welcome { issuer: IssuerPlace },
    Waiting,
    Granted { certificate: Vec<u8> },
    Refused(JoinRefusal),
}

/// Where the holder of the root is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum IssuerPlace {
    Here,
    At { address: String },
    Unknown,
}

/// Why the issuer said no, in the form that travels.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum JoinRefusal {
    Expired,
    Used,
    Unknown,
    WrongMesh,
    Malformed,
    Role {
        granted: NodeRole,
        requested: NodeRole,
    },
    Busy,
    Rejected,
    NotApproved,
    Internal,
    NameTaken,
    Revoked,
    TooManyAttempts {
        retry_after_s: u64,
    },
}

/// Why an exchange ended early; the other side is at fault.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("the connection was lost: {0}")]
    Connection(#[from] quinn::ConnectionError),
    #[error("no message within {STEP_LIMIT:?}")]
    Timeout,
    #[error("an unexpected message")]
    Unexpected,
}

/// Serves joiners on behalf of one member.
pub(crate) struct JoinDesk {
    mesh: MeshId,
    authority: Option<Authority>,
    issuer: Mutex<Option<SocketAddr>>,
    places: Arc<Semaphore>,
    waiting: WaitingRoom,
    /// Attempts with tokens that were none.
    failures: Mutex<Buckets>,
}

impl JoinDesk {
    pub(crate) fn new(mesh: MeshId, authority: Option<Authority>) -> Self {
        let places = Arc::new(Semaphore::new(JOINERS_MAX));
        JoinDesk {
            mesh,
            authority,
            issuer: Mutex::new(None),
            places,
            waiting: WaitingRoom::default(),
            failures: Mutex::new(Buckets::new(GUESSES_AT_ONCE, GUESS_PERIOD)),
        }
    }

    /// Remembers where joiners are to be sent.
    pub(crate) fn issuer_is_at(&self, address: Option<SocketAddr>) {
        *self.issuer.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    /// Serves one joiner; ends when it was answered, gave up or misbehaved.
    pub(crate) async fn serve(&self, connection: quinn::Connection) {
        let Ok(_place) = self.places.try_acquire() else {
            connection.close(CLOSE_BUSY, b"too many joiners");
            return;
        };
        let from = connection.remote_address();
        let outcome = tokio::select! {
            outcome = self.converse(&connection) => outcome,
            lost = connection.closed() => Err(lost.into()),
        };
        match outcome {
            Ok(()) => {
                // The joiner closes when it has read the last word.
                let _ = timeout(STEP_LIMIT, connection.closed()).await;
            }
            Err(error) => tracing::info!(%from, %error, "a joiner was not served"),
        }
        connection.close(CLOSE_DONE, b"done");
    }

    async fn converse(&self, connection: &quinn::Connection) -> Result<(), ExchangeError> {
        let (send, recv) = timeout(STEP_LIMIT, connection.accept_bi())
            .await
            .map_err(|_| ExchangeError::Timeout)??;
        let mut stream = MeshStream::new(ANONYMOUS, 0, send, recv, ClassCounters::default());
        let FromJoiner::Hello { mesh } = receive(&mut stream).await? else {
            return Err(ExchangeError::Unexpected);
        };
        if mesh != self.mesh.0 {
            return last_word(&mut stream, JoinRefusal::WrongMesh.into()).await;
        }
        let Some(authority) = &self.authority else {
            let issuer = self
                .issuer
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .map_or(IssuerPlace::Unknown, |address| IssuerPlace::At {
                    address: address.to_string(),
                });
            return last_word(&mut stream, FromMember::Welcome { issuer }).await;
        };
        send_message(
            &mut stream,
            &FromMember::Welcome {
                issuer: IssuerPlace::Here,
            },
        )
        .await?;
        let FromJoiner::Ask {
            request,
            name,
            role,
            secret,
        } = receive(&mut stream).await?
        else {
            return Err(ExchangeError::Unexpected);
        };
        let Ok(request) = VerifiedRequest::check(&request) else {
            return last_word(&mut stream, JoinRefusal::Malformed.into()).await;
        };
        let host = connection.remote_address().ip();
        let answer = match secret {
            Some(secret) => self.admit(authority, host, || {
                authority.admit_by_token(&request, &name, &secret, role)
            }),
            None => {
                let role = role.unwrap_or(NodeRole::Edge);
                let info = PendingJoin {
                    node: request.id,
                    name,
                    role,
                    address: connection.remote_address(),
                    since: SystemTime::now(),
                };
                let seat = self.waiting.enter(connection);
                let ticket = self.ticket(authority, info).await;
                let answer = await_approval(authority, &request, ticket, role, &mut stream).await?;
                drop(seat);
                answer
            }
        };
        last_word(&mut stream, answer).await
    }

    /// A place among those who wait for approval. When none is free, those are asked for a sign of life that wait.
    async fn ticket(
        &self,
        authority: &Authority,
        info: PendingJoin,
    ) -> Result<Asked, AdmissionError> {
        match authority.ask(info.clone()) {
            Err(AdmissionError::Busy) => {
                self.waiting.send_the_dead_away().await;
                authority.ask(info)
            }
            asked => asked,
        }
    }

    /// Admits by a token, unless the host has shown too many that were none.
    fn admit(
        &self,
        authority: &Authority,
        host: IpAddr,
        attempt: impl FnOnce() -> Result<Vec<u8>, AdmissionError>,
    ) -> FromMember {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let wait = failures.wait(now, host);
        if !wait.is_zero() {
            let retry_after_s = wait.as_secs().saturating_add(1);
            return JoinRefusal::TooManyAttempts { retry_after_s }.into();
        }
        let refused = match attempt() {
            Ok(certificate) => return FromMember::Granted { certificate },
            Err(refused) => refused,
        };
        if matches!(refused, AdmissionError::Token(_)) {
            failures.note(now, host);
            let mesh = authority.mesh_id();
            tracing::info!(%mesh, %host, %refused, "a joiner has shown a wrong token");
        }
        refusal(&refused).into()
    }
}

async fn await_approval(
    authority: &Authority,
    request: &VerifiedRequest,
    asked: Result<Asked, AdmissionError>,
    role: NodeRole,
    stream: &mut MeshStream,
) -> Result<FromMember, ExchangeError> {
    let (ticket, decision) = match asked {
        Ok(waiting) => waiting,
        Err(error) => return Ok(refusal(&error).into()),
    };
    send_message(stream, &FromMember::Waiting).await?;
    let decision = timeout(APPROVAL_LIMIT, decision).await;
    drop(ticket);
    Ok(match decision {
        Ok(Ok(Decision::Approved)) => match authority.issue(request, role, false) {
            Ok(certificate) => FromMember::Granted { certificate },
            Err(error) => {
                tracing::error!(%error, "cannot issue a certificate");
                JoinRefusal::Internal.into()
            }
        },
        Ok(Ok(Decision::Rejected)) => JoinRefusal::Rejected.into(),
        // A second request of the same node took this one's place.
        Ok(Err(_)) => JoinRefusal::Busy.into(),
        Err(_) => JoinRefusal::NotApproved.into(),
    })
}

impl From<JoinRefusal> for FromMember {
    fn from(refusal: JoinRefusal) -> Self {
        FromMember::Refused(refusal)
    }
}

fn refusal(error: &AdmissionError) -> JoinRefusal {
    match error {
        AdmissionError::Token(TokenError::Expired) => JoinRefusal::Expired,
        AdmissionError::Token(TokenError::Used) => JoinRefusal::Used,
        AdmissionError::Token(TokenError::Unknown) => JoinRefusal::Unknown,
        AdmissionError::Token(TokenError::WrongMesh) => JoinRefusal::WrongMesh,
        AdmissionError::Token(TokenError::Malformed) => JoinRefusal::Malformed,
        AdmissionError::Role { granted, requested } => JoinRefusal::Role {
            granted: *granted,
            requested: *requested,
        },
        AdmissionError::Busy => JoinRefusal::Busy,
        AdmissionError::NameTaken(_) => JoinRefusal::NameTaken,
        AdmissionError::Revoked(_) => JoinRefusal::Revoked,
        AdmissionError::Certificate(_) | AdmissionError::Directory(_) => {
            tracing::error!(%error, "cannot admit a joiner");
            JoinRefusal::Internal
        }
    }
}

pub(crate) async fn send_message<T: Encode>(
    stream: &mut MeshStream,
    message: &T,
) -> Result<(), ExchangeError> {
    Ok(stream.send_frame(&codec::encode(message), &[]).await?)
}

/// The next message, within [`STEP_LIMIT`].
pub(crate) async fn receive<T: Decode>(stream: &mut MeshStream) -> Result<T, ExchangeError> {
    timeout(STEP_LIMIT, receive_unhurried(stream))
        .await
        .map_err(|_| ExchangeError::Timeout)?
}

/// The next message, however long it takes.
pub(crate) async fn receive_unhurried<T: Decode>(
    stream: &mut MeshStream,
) -> Result<T, ExchangeError> {
    let frame = stream
        .recv_frame(MESSAGE_LIMIT)
        .await?
        .ok_or(ExchangeError::Unexpected)?;
    codec::decode(&frame.header).map_err(|_| ExchangeError::Unexpected)
}

/// The joiner's end of the stream.
pub(crate) async fn open(connection: &quinn::Connection) -> Result<MeshStream, ExchangeError> {
    let (send, recv) = connection.open_bi().await?;
    let counters = ClassCounters::default();
    Ok(MeshStream::new(ANONYMOUS, 0, send, recv, counters))
}

async fn last_word(stream: &mut MeshStream, message: FromMember) -> Result<(), ExchangeError> {
    send_message(stream, &message).await?;
    Ok(stream.finish()?)
}
