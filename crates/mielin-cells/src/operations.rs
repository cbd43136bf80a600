//! Protocol 101: what other nodes ask this one to do with its agents.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mielin_mesh::{FrameLimit, MeshStream, RecvHalf, SendHalf, StreamError};
use mielin_mesh_core::{AgentId, AgentState, Epoch, NodeId};
use tokio::sync::mpsc;

use crate::cell::Cell;
use crate::checkpoint;
use crate::cloning;
use crate::error::CellsError;
use crate::hibernation;
use crate::lock::lock;
use crate::lodging;
use crate::moving;
use crate::node::Node;
use crate::report::{
    AgentEnd, AgentReport, LogChunk, LogKind, MoveOptions, MoveProgress, MoveReport,
};
use crate::stored::copy_bytes_max;
use crate::wire::{
    self, Answer, Call, Failure, HEADER_MAX, Inspected, LOG_CHUNK_MAX, Moved, Operation,
};

/// The longest time a reader of logs is kept waiting in one call.
const LOG_WAIT_MAX: Duration = Duration::from_secs(60);

/// How long a caller may take to say what it wants.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an agent that was told to stop or to end may take to, before it counts as one that runs or lives.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// An agent that is not here.
#[derive(Debug)]
pub(crate) enum Absent {
    /// It went to this node.
    Elsewhere(NodeId, Epoch),
    /// It was never here, or too long ago.
    Unknown,
}

/// Serves one stream: a call, its steps, its answer.
pub(crate) async fn serve(node: Arc<Node>, _from: NodeId, stream: MeshStream) {
    let (mut send, mut recv) = stream.split();
    let first = tokio::time::timeout(CALL_TIMEOUT, recv.recv_frame(FrameLimit::payload(0))).await;
    let Ok(Ok(Some(frame))) = first else { return };
    let answered = match Call::decode(&frame.header) {
        Ok(Call {
            operation: Operation::Restore { len, name },
            ..
        }) => {
            let made = cloning::take_in(&node, len, name, &mut send, &mut recv).await;
            (made_answer(made), Bytes::new())
        }
        Ok(call) => {
            let gone = caller_gone(recv);
            tokio::select! {
                answered = answer(&node, call, &mut send) => answered,
                () = gone => return,
            }
        }
        Err(error) => (Answer::Failed(Failure::new(&error)), Bytes::new()),
    };
    let (answer, payload) = answered;
    if matches!(answer, Answer::Copied) {
        send.yield_to_others();
    }
    // A caller that left before the answer does not want it.
    if send_in_pieces(&mut send, &answer, payload).await.is_ok() && send.finish().is_ok() {
        let _ = tokio::time::timeout(CALL_TIMEOUT, send.delivered()).await;
    }
}

/// Sends an answer whose payload may be of any length.
async fn send_in_pieces(
    send: &mut SendHalf,
    answer: &Answer,
    mut payload: Bytes,
) -> Result<(), StreamError> {
    let piece = Answer::Piece.encode();
    while payload.len() > LOG_CHUNK_MAX {
        let part = payload.split_to(LOG_CHUNK_MAX);
        send.send_frame_bytes(&piece, part).await?;
    }
    send.send_frame_bytes(&answer.encode(), payload).await
}

/// Ends when the caller has left: it keeps its direction of the stream open for as long as it listens.
async fn caller_gone(mut recv: RecvHalf) {
    let _ = recv.recv_frame(FrameLimit::payload(0)).await;
}

async fn answer(node: &Arc<Node>, call: Call, send: &mut SendHalf) -> (Answer, Bytes) {
    let agent = AgentId(call.agent);
    let cell = match node.here(&agent) {
        Ok(cell) => cell,
        Err(absent) => return (absent.into_answer(), Bytes::new()),
    };
    let answer = match call.operation {
        Operation::Inspect => Ok(Answer::Inspected(Inspected::new(&inspect(node, &cell)))),
        Operation::Pause => pause(node, &cell).await.map(|()| Answer::Done),
        Operation::Resume => resume(node, &cell).await.map(|()| Answer::Done),
        Operation::Hibernate => hibernation::hibernate(node, &cell)
            .await
            .map(|()| Answer::Done),
        Operation::Terminate => fetch_and_terminate(node, &cell)
            .await
            .map(|()| Answer::Done),
        Operation::Recover => recover(node, &cell).await.map(|()| Answer::Done),
        Operation::Remove => match remove(node, &cell).await {
            Ok(Ok(())) => Ok(Answer::Done),
            Ok(Err(absent)) => Ok(absent.into_answer()),
            Err(error) => Err(error),
        },
        Operation::Checkpoint => match checkpoint::take(node, &cell).await {
            Ok(copy) => return (Answer::Copied, copy),
            Err(error) => Err(error),
        },
        Operation::Clone { node: target, name } => {
            let made = cloning::clone_to(node, &cell, NodeId(target), name).await;
            Ok(made_answer(made))
        }
        // It has a stream of its own kind.
        Operation::Restore { .. } => Err(wire::malformed("a call")),
        Operation::HostLog => Ok(Answer::host_log(&cell.logs.lines())),
        Operation::Wait => match wait(node, &cell).await {
            Ok(end) => Ok(Answer::ended(&end)),
            Err(absent) => Ok(absent.into_answer()),
        },
        Operation::ReadLog {
            stderr,
            offset,
            wait_ms,
        } => {
            let wait = Duration::from_millis(wait_ms).min(LOG_WAIT_MAX);
            match read_log(node, &cell, wire::log_kind(stderr), offset, wait).await {
                Ok(Ok(chunk)) => {
                    return (
                        Answer::Log {
                            offset: chunk.offset,
                            end: chunk.end,
                        },
                        chunk.bytes,
                    );
                }
                Ok(Err(absent)) => Ok(absent.into_answer()),
                Err(error) => Err(error),
            }
        }
        Operation::Migrate {
            node: target,
            strategy,
            downtime_ms,
        } => match strategy.map(wire::strategy_from_number).transpose() {
            Ok(strategy) => {
                let downtime = downtime_ms.map(Duration::from_millis);
                let options = MoveOptions { strategy, downtime };
                let moved = migrate(node, &cell, NodeId(target), options, send).await;
                moved.map(|report| Answer::Moved(Moved::new(&report)))
            }
            Err(error) => Err(error),
        },
    };
    (
        answer.unwrap_or_else(|error| Answer::Failed(Failure::new(&error))),
        Bytes::new(),
    )
}

fn made_answer(made: Result<AgentId, CellsError>) -> Answer {
    match made {
        Ok(agent) => Answer::Made(agent.0),
        Err(error) => Answer::Failed(Failure::new(&error)),
    }
}

async fn migrate(
    node: &Arc<Node>,
    cell: &Arc<Cell>,
    target: NodeId,
    options: MoveOptions,
    send: &mut SendHalf,
) -> Result<MoveReport, CellsError> {
    let (steps, mut progress) = mpsc::unbounded_channel::<MoveProgress>();
    // The move is a task of its own: a caller that goes away does not break it.
    let mut moving = tokio::spawn(moving::move_agent(
        Arc::clone(node),
        Arc::clone(cell),
        target,
        options,
        Some(steps),
    ));
    // A move in doubt goes on after its caller has been told, and has steps for as long as that lasts.
    let moved = loop {
        tokio::select! {
            moved = &mut moving => break moved,
            Some(step) = progress.recv() => tell_step(step, send).await,
        }
    };
    while let Ok(step) = progress.try_recv() {
        tell_step(step, send).await;
    }
    moved.map_err(|error| CellsError::Internal(error.to_string()))?
}

/// Nobody may be listening any more.
async fn tell_step(step: MoveProgress, send: &mut SendHalf) {
    let _ = send.send_frame(&Answer::step(step).encode(), &[]).await;
}

/// What this node knows about one of its agents.
pub(crate) fn inspect(node: &Node, cell: &Cell) -> AgentReport {
    // First, so that the counters have what it is held back for.
    let throttled = cell.is_throttled();
    AgentReport {
        agent: cell.id(),
        name: cell.identity.name.clone(),
        state: cell.state(),
        node: cell.leaf().unwrap_or_else(|| node.id()),
        epoch: cell.epoch(),
        module: cell.module,
        engine: cell.engine,
        grants: cell.identity.grants.clone(),
        started_ms: cell.identity.started_ms,
        memory_bytes: cell.memory_bytes(),
        memory_bytes_max: cell.identity.limits.memory_bytes,
        stdout_bytes: cell.logs.stdout.len(),
        stderr_bytes: cell.logs.stderr.len(),
        log_bytes_max: cell.identity.limits.log_bytes,
        mailbox_count: cell.post.mailbox_count() as u64,
        waits_for: cell.waits_for(),
        counters: cell.tally.tallied().counters(),
        budget: cell.identity.budget.clone(),
        throttled,
    }
}

/// Lets an agent in doubt go on here, because its user knows that the other node has not got it.
pub(crate) async fn recover(node: &Arc<Node>, cell: &Arc<Cell>) -> Result<(), CellsError> {
    let agent = cell.id();
    let doubt = lock(&node.doubts).get(&agent).cloned();
    let (Some(doubt), Some(target)) = (doubt, cell.waits_for()) else {
        return Err(CellsError::NotInDoubt(agent));
    };
    let mut standing = cell.watch();
    doubt.notify_one();
    let settled = standing.wait_for(|standing| standing.state != AgentState::InDoubt);
    match tokio::time::timeout(CALL_TIMEOUT, settled).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(CellsError::InDoubt {
            agent,
            node: target,
        }),
    }
}

/// Stops the agent; one that is hibernated is woken, because a paused one is in memory.
pub(crate) async fn pause(node: &Arc<Node>, cell: &Arc<Cell>) -> Result<(), CellsError> {
    hibernation::wake(node, cell).await?;
    cell.pause()?;
    until_off_processor(
        cell,
        END_TIMEOUT,
        "it is paused when it comes to a safepoint",
    )
    .await
}

/// Waits for an agent that was told to stop. A program comes to a safepoint within microseconds, or is in a long stretch of
/// code without one, or in a long call of its node.
async fn until_off_processor(
    cell: &Arc<Cell>,
    limit: Duration,
    otherwise: &str,
) -> Result<(), CellsError> {
    let mut standing = cell.watch();
    let standing = standing.wait_for(|standing| standing.state != AgentState::Running);
    match tokio::time::timeout(limit, standing).await {
        Ok(_) => Ok(()),
        Err(_) => Err(CellsError::Busy {
            agent: cell.id(),
            doing: otherwise.to_owned(),
        }),
    }
}

/// Lets the agent go on.
pub(crate) async fn resume(node: &Arc<Node>, cell: &Arc<Cell>) -> Result<(), CellsError> {
    hibernation::wake(node, cell).await?;
    cell.unpause()
}

/// Ends the agent. One that is on a leaf comes back for that.
pub(crate) async fn fetch_and_terminate(
    node: &Arc<Node>,
    cell: &Arc<Cell>,
) -> Result<(), CellsError> {
    lodging::come_home(node, cell).await?;
    terminate(cell).await
}

/// Ends an agent whose program is here.
pub(crate) async fn terminate(cell: &Arc<Cell>) -> Result<(), CellsError> {
    let killed = Arc::clone(cell);
    // The end of an agent that rests is written to the disk before this is over.
    tokio::task::spawn_blocking(move || killed.kill())
        .await
        .map_err(|error| CellsError::Internal(error.to_string()))??;
    until_off_processor(cell, END_TIMEOUT, "it ends when it comes to a safepoint").await
}

/// Forgets an ended agent and deletes its files. One that was told to end is waited for.
pub(crate) async fn remove(
    node: &Node,
    cell: &Arc<Cell>,
) -> Result<Result<(), Absent>, CellsError> {
    if cell.is_killed()
        && let Ok(Err(absent)) = tokio::time::timeout(END_TIMEOUT, wait(node, cell)).await
    {
        return Ok(Err(absent));
    }
    if cell.end().is_none() {
        return Err(CellsError::Alive(cell.id()));
    }
    let logs = Arc::clone(&cell.logs);
    tokio::task::spawn_blocking(move || logs.delete())
        .await
        .map_err(|error| CellsError::Internal(error.to_string()))??;
    node.forget(cell);
    Ok(Ok(()))
}

/// Waits until the agent has ended here, or has gone.
pub(crate) async fn wait(node: &Node, cell: &Arc<Cell>) -> Result<AgentEnd, Absent> {
    let mut standing = cell.watch();
    loop {
        if let Some(end) = cell.end() {
            return Ok(end.clone());
        }
        if standing.borrow_and_update().gone {
            return Err(node.absent(&cell.id()));
        }
        if standing.changed().await.is_err() {
            return Err(node.absent(&cell.id()));
        }
    }
}

/// Reads a log; waits for more when there is none at `offset` yet.
pub(crate) async fn read_log(
    node: &Node,
    cell: &Arc<Cell>,
    kind: LogKind,
    offset: u64,
    wait: Duration,
) -> Result<Result<LogChunk, Absent>, CellsError> {
    let log = cell.logs.log(kind);
    let (mut len, mut standing) = (log.watch(), cell.watch());
    let deadline = tokio::time::Instant::now() + wait;
    loop {
        let (ended, gone) = {
            let standing = standing.borrow_and_update();
            (standing.state.is_final(), standing.gone)
        };
        if gone {
            return Ok(Err(node.absent(&cell.id())));
        }
        let present = *len.borrow_and_update();
        if present > offset {
            let bytes = log
                .read(offset, LOG_CHUNK_MAX)
                .map_err(CellsError::io("reading a log"))?;
            let end = ended && offset + bytes.len() as u64 == present;
            return Ok(Ok(LogChunk { offset, bytes, end }));
        }
        let nothing = LogChunk {
            offset,
            bytes: Bytes::new(),
            end: ended,
        };
        if ended {
            return Ok(Ok(nothing));
        }
        tokio::select! {
            changed = len.changed() => if changed.is_err() { return Ok(Ok(nothing)) },
            changed = standing.changed() => if changed.is_err() { return Ok(Ok(nothing)) },
            () = tokio::time::sleep_until(deadline) => return Ok(Ok(nothing)),
        }
    }
}

impl Absent {
    fn into_answer(self) -> Answer {
        match self {
            Absent::Elsewhere(node, epoch) => Answer::Elsewhere {
                node: node.0,
                epoch: epoch.0,
            },
            Absent::Unknown => Answer::Unknown,
        }
    }
}

/// Asks `peer` to do something and waits for the last answer; steps go to `progress`. Of a payload no more is taken in
/// than a copy of an agent may have that this node could hold.
pub(crate) async fn ask(
    node: &Node,
    peer: &NodeId,
    call: &Call,
    progress: Option<&mpsc::UnboundedSender<MoveProgress>>,
) -> Result<(Answer, Bytes), CellsError> {
    let unreachable = |reason: String| CellsError::Unreachable {
        node: *peer,
        reason,
    };
    let mut stream = node
        .mesh
        .open_stream(peer, wire::OPERATIONS)
        .await
        .map_err(|error| unreachable(error.to_string()))?;
    stream
        .send_frame(&call.encode(), &[])
        .await
        .map_err(|error| unreachable(error.to_string()))?;
    let limit = FrameLimit {
        header_bytes: HEADER_MAX as u16,
        payload_bytes: LOG_CHUNK_MAX,
    };
    let mut pieces = BytesMut::new();
    loop {
        let frame = stream
            .recv_frame(limit)
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        let Some(frame) = frame else {
            return Err(unreachable("it gave no answer".to_owned()));
        };
        match Answer::decode(&frame.header)? {
            Answer::Piece => {
                let (len, max) = (
                    pieces.len() as u64 + frame.payload.len() as u64,
                    copy_bytes_max(&node.config.limits),
                );
                if len > max {
                    let what = "the copy of the agent".to_owned();
                    return Err(CellsError::TooLarge { what, len, max });
                }
                pieces.extend_from_slice(&frame.payload);
            }
            Answer::Step {
                phase,
                bytes,
                elapsed_us,
            } => {
                if let Some(progress) = progress {
                    // Nobody may be listening any more; the move goes on.
                    let _ = progress.send(MoveProgress {
                        phase,
                        bytes,
                        elapsed_us,
                    });
                }
            }
            answer if pieces.is_empty() => return Ok((answer, frame.payload)),
            answer => {
                pieces.extend_from_slice(&frame.payload);
                return Ok((answer, pieces.freeze()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::cell::tests::{agent_of, prepared, scheduler, until};

    #[tokio::test]
    async fn an_agent_that_comes_to_no_safepoint_is_not_said_to_stand() {
        let scheduler = scheduler(1);
        let spin = r#"(module (memory (export "memory") 1) (func (export "_start") (loop $again (br $again))))"#;
        let cell = agent_of(prepared(spin), &scheduler);
        until("it does not run", || {
            cell.watch().borrow().state == AgentState::Running
        });
        // Nobody has told it to stop.
        let error = until_off_processor(&cell, Duration::ZERO, "it runs on").await;
        let error = error.unwrap_err().to_string();
        assert!(
            error.ends_with("is busy: it runs on; try again when that is over"),
            "{error}"
        );
        cell.pause().unwrap();
        until_off_processor(&cell, Duration::from_secs(60), "")
            .await
            .unwrap();
        assert_eq!(cell.watch().borrow().state, AgentState::Paused);
        terminate(&cell).await.unwrap();
        assert!(cell.end().is_some());
        scheduler.close();
    }
}
