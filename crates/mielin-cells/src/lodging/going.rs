//! Moves to a leaf and back.

use std::sync::Arc;
use std::time::Instant;

use mielin_mesh::LeafPresence;
use mielin_mesh_core::handover::{HandoverError, Reason};
use mielin_mesh_core::leaf::LeafNumber;
use mielin_mesh_core::{Epoch, NodeId};

use super::stay::{Phase, Stay};
use super::{Handover, Lodgings, why_not};
use crate::cell::{Cell, Device, Held};
use crate::checkpoint::hold;
use crate::error::CellsError;
use crate::hibernation;
use crate::logs::now_ms;
use crate::moving::until_settled;
use crate::node::Node;
use crate::persist::remove_stored;
use crate::report::MoveReport;
use crate::stored::{Sleep, Stored};
use crate::tally::Tally;

/// Why a leaf that is there takes nothing.
pub(crate) const NOT_NOW: &str = "it takes no agents now; its battery may be low";

/// Why a paused agent does not go to a leaf.
pub(crate) const PAUSED: &str = "it is paused, which a leaf knows nothing of; resume it";

/// Why a leaf takes nothing that has as many agents as it may, or no memory.
const NO_ROOM: &str = "it has no room for another agent";

/// An agent that was put to sleep for its way, and what the leaf is given.
struct Packed {
    stay: Arc<Stay>,
    bytes: Vec<u8>,
    pages: u64,
}

/// What is left of a move when leaves have nothing to do with it any more.
pub(crate) enum Way {
    /// Nothing.
    Over(MoveReport),
    /// From here to another node; before that it came from a leaf.
    FromHere(Option<MoveReport>),
}

/// Does what leaves have to do with a move: an agent that is on one comes back first, and one that is to go to one goes.
pub(crate) async fn move_leafward(
    node: &Arc<Node>,
    cell: &Arc<Cell>,
    target: NodeId,
) -> Result<Way, CellsError> {
    let (agent, began) = (cell.id(), Instant::now());
    let from = cell.leaf();
    if from == Some(target) {
        return Err(CellsError::SameNode {
            agent,
            node: target,
        });
    }
    let came = come_home(node, cell).await?;
    let came = from.map(|leaf| {
        let total = began.elapsed();
        // Of one that had come before this node was started again nobody knows when.
        let handover = came.unwrap_or(Handover {
            agent,
            to_leaf: false,
            bytes: 0,
            took: total,
        });
        MoveReport::of_handover((leaf, node.id()), handover, Vec::new(), total)
    });
    if node.lodgings.is_leaf(&target) {
        let gone = go(Arc::clone(node), Arc::clone(cell), target).await?;
        return Ok(Way::Over(MoveReport::after(came, gone)));
    }
    Ok(match came {
        Some(came) if target == node.id() => Way::Over(came),
        came => Way::FromHere(came),
    })
}

/// Moves an agent of this node to a leaf. It comes to its end also if whoever asked goes away.
async fn go(node: Arc<Node>, cell: Arc<Cell>, leaf: NodeId) -> Result<MoveReport, CellsError> {
    let going = tokio::spawn(async move { go_on(&node, &cell, leaf).await });
    going
        .await
        .map_err(|error| CellsError::Internal(error.to_string()))?
}

async fn go_on(node: &Arc<Node>, cell: &Arc<Cell>, leaf: NodeId) -> Result<MoveReport, CellsError> {
    let agent = cell.id();
    let lodgings = &node.lodgings;
    let (number, _) = ready(lodgings, leaf)?;
    let turn = lodgings.with(number, |end| Arc::clone(&end.going));
    let turn = turn.ok_or_else(|| silent(leaf))?;
    let _turn = turn.lock().await;
    // It may have become another while others went.
    let (_, room_bytes) = ready(lodgings, leaf)?;
    hibernation::wake(node, cell).await?;
    until_settled(node, cell).await?;
    if cell.is_paused() {
        return Err(CellsError::Busy {
            agent,
            doing: PAUSED.to_owned(),
        });
    }
    let claim = cell.claim("it is moving to a leaf")?;
    let began = Instant::now();
    let held = hold(cell).await?;
    let stopped = Instant::now();
    let packing = {
        let (node, cell) = (Arc::clone(node), Arc::clone(cell));
        tokio::task::spawn_blocking(move || pack(&node, &cell, held, (leaf, number), room_bytes))
    };
    let packed = packing
        .await
        .map_err(|error| CellsError::Internal(error.to_string()))?;
    drop(claim);
    let Packed { stay, bytes, pages } = packed?;
    lodgings.forget_reader(&agent);
    let sent = bytes.len() as u64;
    let epoch = stay.epoch();
    let mut phase = stay.watch();
    let offered = lodgings.with(number, |end| {
        let offered = end.core.offer(agent, epoch, bytes);
        end.stirred.notify_one();
        offered
    });
    let refused = |why: String| CellsError::NotTaken { agent, leaf, why };
    let phase = match offered {
        Some(Ok(())) => {
            let settled = phase.wait_for(|phase| *phase != Phase::Going);
            let settled = tokio::time::timeout(node.config.move_timeout, settled).await;
            match settled.map(|phase| phase.map(|phase| *phase)) {
                Ok(Ok(phase)) => phase,
                Ok(Err(_)) => Phase::Lost,
                Err(_) => give_up(node, &stay, number).await,
            }
        }
        Some(Err(error)) => {
            lodgings.kept(node, agent, None).await;
            return Err(refused(error.to_string()));
        }
        None => {
            lodgings.kept(node, agent, None).await;
            return Err(refused("it is admitted no more".to_owned()));
        }
    };
    match phase {
        Phase::There => {}
        Phase::Refused(reason) => return Err(refused(words(reason))),
        Phase::Lost => return Err(refused("it has started anew and lost it".to_owned())),
        // It has been there, and come back.
        Phase::Going | Phase::Home => {}
    }
    let handover = Handover {
        agent,
        to_leaf: true,
        bytes: sent,
        took: stopped.elapsed(),
    };
    lodgings.with(number, |end| end.note(handover));
    Tally::add(&cell.tally.moves, 1);
    let ways = (node.id(), leaf);
    let total = began.elapsed();
    Ok(MoveReport::of_handover(ways, handover, vec![pages], total))
}

/// The number of a leaf that takes agents, and the largest.
fn ready(lodgings: &Lodgings, leaf: NodeId) -> Result<(LeafNumber, u64), CellsError> {
    let entry = lodgings.entry(&leaf);
    let entry = entry.ok_or_else(|| CellsError::NodeNotFound(leaf.to_string()))?;
    let status = lodgings
        .with(entry.number, |end| {
            let profile = end.profile.as_ref();
            profile.map(|profile| profile.status)
        })
        .flatten();
    let is_there = matches!(
        entry.state,
        LeafPresence::Connected | LeafPresence::Asleep(_)
    );
    match status {
        Some(status) if is_there && status.ready => Ok((entry.number, status.room_bytes.into())),
        Some(_) if is_there => Err(CellsError::LeafNotReady { leaf, why: NOT_NOW }),
        _ => Err(CellsError::LeafNotReady {
            leaf,
            why: why_not(entry.state),
        }),
    }
}

/// Puts an agent to sleep for its way to a leaf: from here on the disk says where it goes.
fn pack(
    node: &Arc<Node>,
    cell: &Arc<Cell>,
    held: Held,
    leaf: (NodeId, LeafNumber),
    room_bytes: u64,
) -> Result<Packed, CellsError> {
    let directory = node.directory(&cell.id()).ok_or(CellsError::NoDisk)?;
    cell.post.freeze();
    let epoch: Epoch = cell.epoch().next();
    let made = Stored::whole(cell, &held).and_then(|stored| {
        let sleep = Sleep {
            since_ms: now_ms(),
            left_ms: Some(0),
        };
        let stored = stored.asleep(sleep);
        let bytes = stored.for_leaf()?;
        if bytes.len() as u64 > room_bytes {
            return Err(CellsError::NotTaken {
                agent: cell.id(),
                leaf: leaf.0,
                why: match room_bytes {
                    0 => NO_ROOM.to_owned(),
                    _ => format!(
                        "it has room for {room_bytes} bytes, and the agent has {}",
                        bytes.len()
                    ),
                },
            });
        }
        let pages = stored.snapshot.pages.len() as u64;
        let stay = Stay::new(cell, leaf, directory.clone(), stored, epoch);
        stay.store_now()?;
        Ok((stay, bytes, pages))
    });
    let (stay, bytes, pages) = match made {
        Ok(made) => made,
        Err(error) => {
            remove_stored(cell.id(), &directory);
            cell.post.thaw(cell.epoch());
            drop(held);
            return Err(error);
        }
    };
    cell.raise_epoch(epoch);
    let stay = node.lodgings.begin(node, stay);
    if !cell.fall_asleep(held) {
        // The node stops, and stores it as it does all others.
        node.lodgings.forget(&stay);
        return Err(CellsError::ShuttingDown);
    }
    Ok(Packed { stay, bytes, pages })
}

/// Takes an agent back that the leaf has not taken in time, unless it has.
async fn give_up(node: &Arc<Node>, stay: &Arc<Stay>, number: LeafNumber) -> Phase {
    let agent = stay.agent();
    let cancelled = node
        .lodgings
        .with(number, |end| end.core.cancel(agent))
        .unwrap_or(Ok(()));
    match cancelled {
        Ok(()) => {
            node.lodgings.kept(node, agent, None).await;
            Phase::Refused(None)
        }
        // It was let go in this moment.
        Err(_) => {
            let mut phase = stay.watch();
            let settled = phase.wait_for(|phase| *phase != Phase::Going).await;
            settled.map_or(Phase::Lost, |phase| *phase)
        }
    }
}

fn words(reason: Option<Reason>) -> String {
    match reason {
        Some(Reason::NoRoom { room_bytes: 0 }) => NO_ROOM.to_owned(),
        Some(Reason::NoRoom { room_bytes }) => format!("it has room for {room_bytes} bytes"),
        Some(Reason::NotReady) => "it takes no agents now".to_owned(),
        Some(Reason::Unsuitable) => {
            "it cannot run the agent, or its memory or module is too large there".to_owned()
        }
        Some(Reason::Damaged) => "the agent did not come there whole".to_owned(),
        Some(Reason::Conflict) => "it has that agent already".to_owned(),
        None => "it did not take the agent in time".to_owned(),
    }
}

/// Brings an agent back from the leaf that it is on, if it is on one. It goes on here when this returns; how it has come, if the leaf
/// had it.
pub(crate) async fn come_home(
    node: &Arc<Node>,
    cell: &Arc<Cell>,
) -> Result<Option<Handover>, CellsError> {
    let agent = cell.id();
    let Some(leaf) = cell.leaf() else {
        return Ok(None);
    };
    let stay = node.lodgings.stay(&agent);
    let stay = stay.ok_or(CellsError::OnLeaf { agent, leaf })?;
    if node.lodgings.links().is_none() {
        let why = "this node hosts no leaves since it was started";
        return Err(CellsError::LeafNotReady { leaf, why });
    }
    let mut phase = stay.watch();
    stay.is_asked_for();
    let asked = node.lodgings.with(stay.number(), |end| {
        let asked = end.core.come(agent);
        end.stirred.notify_one();
        asked
    });
    match asked {
        // It is on its way already, here or there.
        Some(Ok(()) | Err(HandoverError::State)) => {}
        Some(Err(_)) | None => return Err(silent(leaf)),
    }
    let home = phase.wait_for(Phase::is_over);
    let home = tokio::time::timeout(node.config.move_timeout, home).await;
    match home.map(|phase| phase.map(|phase| *phase)) {
        Ok(Ok(Phase::Lost)) => Err(CellsError::Ended(agent)),
        Ok(Ok(_)) => Ok(node.lodgings.last_return(stay.number(), agent)),
        Ok(Err(_)) | Err(_) => Err(silent(leaf)),
    }
}

fn silent(leaf: NodeId) -> CellsError {
    CellsError::LeafNotReady {
        leaf,
        why: "it does not answer; what was asked is done if it does before this node is stopped",
    }
}

/// Notes on which device the agent has been, whose sensors it still reads.
pub(super) fn came_back(stay: &Stay) {
    let device = Device {
        leaf: stay.leaf(),
        returns: !stay.was_asked_for(),
    };
    stay.cell().set_device(Some(device));
}

/// Sends the agents back that a leaf has handed over by itself, now that it takes agents again.
pub(super) fn send_back(node: &Arc<Node>, number: LeafNumber, leaf: NodeId) {
    let ready = node.lodgings.with(number, |end| {
        let profile = end.profile.as_ref();
        profile.is_some_and(|profile| profile.status.ready)
    });
    if ready != Some(true) {
        return;
    }
    let returns = |cell: &Arc<Cell>| {
        let device = cell.device();
        cell.leaf().is_none() && device.is_some_and(|device| device.returns && device.leaf == leaf)
    };
    for cell in node.living().into_iter().filter(returns) {
        let node = Arc::clone(node);
        tokio::spawn(async move {
            let agent = cell.id();
            if let Err(error) = go(node, cell, leaf).await {
                tracing::info!(%agent, %error, "an agent could not go back to its leaf; it is tried again when that says that it takes agents");
            }
        });
    }
}
