//! Clones: copies of agents that go straight to the nodes of the new agents.
//!
//! To another node that is a stream of protocol 101: a call with the length of the copy, that node's word that it wants
//! it, the copy, and the new agent's id.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use mielin_mesh::{FrameLimit, RecvHalf, SendHalf, StreamError};
use mielin_mesh_core::{AgentId, NodeId};

use crate::cell::Cell;
use crate::checkpoint::{Naming, restore, take};
use crate::error::CellsError;
use crate::node::Node;
use crate::spawn::check_name;
use crate::stored::copy_bytes_max;
use crate::wire::{self, Answer, Call, HEADER_MAX, LOG_CHUNK_MAX, Operation};

/// How long the other end may be silent while a copy crosses.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// Copies an agent of this node and makes the copy an agent of another one, or of this one.
pub(crate) async fn clone_to(
    node: &Arc<Node>,
    cell: &Arc<Cell>,
    target: NodeId,
    name: Option<String>,
) -> Result<AgentId, CellsError> {
    if target != node.id() {
        let members = node.mesh.members();
        if !members.iter().any(|member| member.identity.id == target) {
            return Err(CellsError::NodeNotFound(target.to_string()));
        }
        if let Some(absence) = node.mesh.absence(&target) {
            return Err(CellsError::Gone(absence));
        }
    }
    if let Some(name) = &name {
        // Before the agent stands still for nothing.
        check_name(node, name).await?;
    }
    let copy = take(node, cell).await?;
    if target == node.id() {
        let naming = name.map_or(Naming::Like, Naming::Chosen);
        return restore(node, copy, naming).await;
    }
    let sent = send_copy(node, cell.id(), target, copy, name).await;
    sent.map_err(|failure| match failure {
        Sending::Refused(error) => error,
        Sending::Broken(reason) => CellsError::Unreachable {
            node: target,
            reason,
        },
    })
}

/// Why a copy has not become an agent elsewhere.
enum Sending {
    Refused(CellsError),
    Broken(String),
}

impl From<StreamError> for Sending {
    fn from(error: StreamError) -> Sending {
        Sending::Broken(error.to_string())
    }
}

async fn send_copy(
    node: &Arc<Node>,
    original: AgentId,
    target: NodeId,
    mut copy: Bytes,
    name: Option<String>,
) -> Result<AgentId, Sending> {
    let opened = node.mesh.open_stream(&target, wire::OPERATIONS).await;
    let stream = opened.map_err(|error| Sending::Broken(error.to_string()))?;
    let (mut send, mut recv) = stream.split();
    let call = Call {
        agent: original.0,
        operation: Operation::Restore {
            len: copy.len() as u64,
            name,
        },
    };
    let other = || Sending::Refused(wire::malformed("an answer to another question"));
    send.send_frame(&call.encode(), &[]).await?;
    if !matches!(heard(&mut recv, original).await?, Answer::Done) {
        return Err(other());
    }
    send.yield_to_others();
    while !copy.is_empty() {
        let piece = copy.split_to(copy.len().min(LOG_CHUNK_MAX));
        send.send_frame_bytes(&[], piece).await?;
    }
    match heard(&mut recv, original).await? {
        Answer::Made(agent) => Ok(AgentId(agent)),
        _ => Err(other()),
    }
}

async fn heard(recv: &mut RecvHalf, original: AgentId) -> Result<Answer, Sending> {
    let limit = FrameLimit {
        header_bytes: HEADER_MAX as u16,
        payload_bytes: 0,
    };
    let frame = recv.recv_frame(limit).await?;
    let frame = frame.ok_or_else(|| Sending::Broken("it gave no answer".to_owned()))?;
    match Answer::decode(&frame.header).map_err(Sending::Refused)? {
        Answer::Failed(failure) => Err(Sending::Refused(failure.into_error(original))),
        answer => Ok(answer),
    }
}

/// Takes a copy in that another node sends, and makes it an agent of this one.
pub(crate) async fn take_in(
    node: &Arc<Node>,
    len: u64,
    name: Option<String>,
    send: &mut SendHalf,
    recv: &mut RecvHalf,
) -> Result<AgentId, CellsError> {
    if !node.mesh.migrates() {
        return Err(CellsError::MigrationOff(node.id()));
    }
    node.has_room()?;
    let max = copy_bytes_max(&node.config.limits);
    if len > max {
        let what = "the copy of the agent".to_owned();
        return Err(CellsError::TooLarge { what, len, max });
    }
    if let Some(name) = &name {
        check_name(node, name).await?;
    }
    let broken = |error: StreamError| CellsError::Internal(error.to_string());
    let wanted = send.send_frame(&Answer::Done.encode(), &[]).await;
    wanted.map_err(broken)?;
    // It grows with what arrives.
    let mut copy = BytesMut::new();
    while (copy.len() as u64) < len {
        let left = usize::try_from(len - copy.len() as u64).unwrap_or(usize::MAX);
        let limit = FrameLimit {
            header_bytes: 0,
            payload_bytes: LOG_CHUNK_MAX.min(left),
        };
        let piece = async {
            match recv.recv_head(limit).await.map_err(broken)? {
                Some(head) if head.payload_len > 0 => recv.recv_pieces(&head).await.map_err(broken),
                Some(_) | None => Err(wire::malformed("a copy")),
            }
        };
        let piece = tokio::time::timeout(SILENCE_LIMIT, piece).await;
        copy.put(piece.map_err(|_| wire::malformed("a copy"))??);
    }
    let naming = name.map_or(Naming::Like, Naming::Chosen);
    restore(node, copy.freeze(), naming).await
}
