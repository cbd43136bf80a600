//! The command line's own mailbox: how people talk to agents.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use mielin_mesh_core::delivery::{DeliveryReply, Envelope, MessageKind, OutboxError};
use mielin_mesh_core::limits::PAYLOAD_BYTES_MAX;
use mielin_mesh_core::{AgentId, NodeId};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::error::CellsError;
use crate::finding::found;
use crate::lock::lock;
use crate::node::{Node, Place};
use crate::post::Post;

/// How long a message may be on its way to a mailbox before its sender is told that it is not there.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of a client's id that name its node; the others differ for each start of the node, because sequence
/// numbers begin anew with it.
const NODE_PART: usize = 10;

/// An address that replies can be sent to, although no agent stands behind it.
pub(crate) struct Client {
    id: AgentId,
    pub(crate) post: Arc<Post>,
    replies: Mutex<HashMap<(AgentId, u64), oneshot::Sender<Bytes>>>,
    received: AtomicU64,
}

impl Client {
    pub(crate) fn new(node: &NodeId) -> Client {
        let mut id = AgentId::new();
        id.0[..NODE_PART].copy_from_slice(&node_part(node));
        Client {
            id,
            post: Arc::new(Post::with_fates(id)),
            replies: Mutex::default(),
            received: AtomicU64::new(0),
        }
    }

    pub(crate) fn id(&self) -> AgentId {
        self.id
    }

    /// Whether this is the id of a client of that node.
    pub(crate) fn is_of(agent: &AgentId, node: &NodeId) -> bool {
        agent.0[..NODE_PART] == node_part(node)
    }

    pub(crate) async fn send(
        &self,
        node: &Node,
        agent: AgentId,
        payload: Bytes,
    ) -> Result<u64, CellsError> {
        let deadline = Instant::now() + SEND_TIMEOUT;
        let sequence = self.push(node, agent, payload, None, deadline).await?;
        tokio::select! {
            biased;
            delivered = self.delivered(agent, sequence, deadline, SEND_TIMEOUT) => delivered.map(|()| sequence),
            gone = node.out_of_reach(&agent) => Err(on_its_way(agent, gone)),
        }
    }

    pub(crate) async fn request(
        &self,
        node: &Node,
        agent: AgentId,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, CellsError> {
        let deadline = Instant::now() + timeout;
        let (sender, receiver) = oneshot::channel();
        let sequence = self
            .push(node, agent, payload, Some(sender), deadline)
            .await?;
        let _forget = Forget {
            client: self,
            key: (agent, sequence),
        };
        let undelivered = async {
            match self.delivered(agent, sequence, deadline, timeout).await {
                Ok(()) => std::future::pending().await,
                Err(error) => error,
            }
        };
        tokio::select! {
            biased;
            reply = receiver => reply.map_err(|_| CellsError::ShuttingDown),
            error = undelivered => Err(error),
            gone = node.out_of_reach(&agent) => Err(on_its_way(agent, gone)),
            () = tokio::time::sleep_until(deadline) => Err(timed_out(agent, timeout)),
        }
    }

    /// Sends, unless the agent's node is gone: whoever is told that it is may send again without sending twice.
    async fn push(
        &self,
        node: &Node,
        agent: AgentId,
        payload: Bytes,
        reply: Option<oneshot::Sender<Bytes>>,
        deadline: Instant,
    ) -> Result<u64, CellsError> {
        tokio::select! {
            biased;
            gone = node.out_of_reach(&agent) => Err(gone),
            // It has sent nothing as long as it waits.
            pushed = self.push_in_reach(node, agent, payload, reply, deadline) => pushed,
        }
    }

    async fn push_in_reach(
        &self,
        node: &Node,
        agent: AgentId,
        payload: Bytes,
        mut reply: Option<oneshot::Sender<Bytes>>,
        deadline: Instant,
    ) -> Result<u64, CellsError> {
        let found = tokio::time::timeout_at(deadline, found(node, &agent)).await;
        if matches!(found, Err(_) | Ok(Place::Unknown)) {
            return Err(CellsError::AgentNotFound(agent.to_string()));
        }
        if node
            .mesh
            .locate(&agent)
            .is_some_and(|location| location.record.state.is_final())
        {
            return Err(CellsError::Ended(agent));
        }
        if let Some(absence) = node.absence_at(&agent).await {
            return Err(CellsError::Gone(absence));
        }
        let mut answers = self.post.watch();
        loop {
            answers.borrow_and_update();
            match self.try_push(agent, &payload, &mut reply) {
                Ok(sequence) => return Ok(sequence),
                Err(OutboxError::TooLarge { len }) => {
                    let (len, max) = (len as u64, PAYLOAD_BYTES_MAX as u64);
                    return Err(CellsError::TooLarge {
                        what: "the message".to_owned(),
                        len,
                        max,
                    });
                }
                Err(OutboxError::Full) => {
                    let heard = tokio::time::timeout_at(deadline, answers.changed()).await;
                    if !matches!(heard, Ok(Ok(()))) {
                        return Err(CellsError::MailboxFull(agent));
                    }
                }
            }
        }
    }

    /// Sends, and notes under the same lock who waits for the reply, so that no reply comes too early.
    fn try_push(
        &self,
        agent: AgentId,
        payload: &Bytes,
        reply: &mut Option<oneshot::Sender<Bytes>>,
    ) -> Result<u64, OutboxError> {
        let mut replies = lock(&self.replies);
        let kind = if reply.is_some() {
            MessageKind::Request
        } else {
            MessageKind::Send
        };
        let sequence = self.post.push(agent, kind, payload.clone())?;
        if let Some(reply) = reply.take() {
            replies.insert((agent, sequence), reply);
        }
        Ok(sequence)
    }

    /// Waits until the message is in the agent's mailbox, until the deadline that ends a wait of `limit`.
    async fn delivered(
        &self,
        agent: AgentId,
        sequence: u64,
        deadline: Instant,
        limit: Duration,
    ) -> Result<(), CellsError> {
        let mut answers = self.post.watch();
        loop {
            answers.borrow_and_update();
            let fate = self.post.fate(&agent);
            if fate.through >= sequence {
                return Ok(());
            }
            if fate.ended {
                return Err(CellsError::Ended(agent));
            }
            let heard = tokio::time::timeout_at(deadline, answers.changed()).await;
            if !matches!(heard, Ok(Ok(()))) {
                return Err(if fate.full {
                    CellsError::MailboxFull(agent)
                } else {
                    timed_out(agent, limit)
                });
            }
        }
    }

    /// Takes messages that arrived for this address.
    pub(crate) fn deliver(&self, envelopes: Vec<Envelope>) -> DeliveryReply {
        let reply = self.post.accept(envelopes, &self.received);
        self.sort();
        reply
    }

    /// Hands replies to those who wait for them; nobody waits for anything else.
    fn sort(&self) {
        let mut replies = lock(&self.replies);
        while let Some(envelope) = self.post.take() {
            if let MessageKind::Reply { to_sequence } = envelope.kind
                && let Some(waiting) = replies.remove(&(envelope.source, to_sequence))
            {
                // Whoever asked may have given up.
                let _ = waiting.send(envelope.payload);
            }
        }
    }
}

struct Forget<'a> {
    client: &'a Client,
    key: (AgentId, u64),
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(&self.client.replies).remove(&self.key);
    }
}

fn node_part(node: &NodeId) -> [u8; NODE_PART] {
    let mut part = [0; NODE_PART];
    blake3::Hasher::new_derive_key("mielin 2026 client id")
        .update(&node.0)
        .finalize_xof()
        .fill(&mut part);
    part
}

/// What [`Node::out_of_reach`] means once a message has been sent.
fn on_its_way(agent: AgentId, gone: CellsError) -> CellsError {
    match gone {
        CellsError::Gone(absence) => CellsError::OnItsWay { agent, absence },
        other => other,
    }
}

fn timed_out(agent: AgentId, after: Duration) -> CellsError {
    CellsError::TimedOut {
        agent,
        after_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
    }
}
