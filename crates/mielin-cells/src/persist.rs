//! Agents outlive their node's process: written to the data directory at shutdown, restored at the next start.
//!
//! A living agent's directory then holds, beside its logs, `snapshot`: all of it, as [`Stored`] writes it. The file is
//! deleted once the agent runs again, because going back to it later would repeat what it did since. Of an agent that
//! ended, or was lost because the node was killed, the [record](crate::record) and the logs are there.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mielin_mesh_core::{AgentId, Epoch, NodeId};
use mielin_wasm::{Address, HostState};
use tokio::task::{JoinError, JoinSet};

use crate::cell::{Cell, Parts, Program, Sleeper};
use crate::error::CellsError;
use crate::hibernation;
use crate::ledger::{Departure, Entry};
use crate::lock::lock;
use crate::logs::{Home, Logs};
use crate::moving::{self, doubtful};
use crate::node::Node;
use crate::post::Post;
use crate::private;
use crate::record::{Record, RecordError, Remains, unfinished, write};
use crate::spawn::host_calls;
use crate::stored::{self, CheckpointError, Own, Stored};
use crate::tally::Tally;

pub(crate) const SNAPSHOT: &str = "snapshot";
/// Why an agent ended of which neither a snapshot nor an end was found.
const LOST: &str = "lost: its node stopped without storing it";

/// How long the moves that hold agents may take to end when the node stops.
const HOLD_LIMIT: Duration = Duration::from_secs(5);

/// Agents that are written at once: most of the time goes into waiting for the disk.
const STORED_AT_ONCE: usize = 16;

/// Writes every living agent, however long that takes: what is not written is lost. The scheduler has stopped, so all
/// of them are at rest but those that a move holds, whose end is waited for. Gives those that are lost.
pub(crate) async fn store(node: &Arc<Node>) -> Vec<AgentId> {
    let mut lost = Vec::new();
    let mut living: Vec<Arc<Cell>> = node
        .living()
        .into_iter()
        .filter(|cell| cell.lives() && !cell.is_provisional())
        .collect();
    if living.is_empty() || node.directories().is_none() {
        return lost;
    }
    // Moves have until then to end.
    living.sort_by_key(|cell| cell.is_claimed());
    tracing::info!(count = living.len(), "storing the agents of this node");
    let deadline = tokio::time::Instant::now() + HOLD_LIMIT;
    let mut storing = JoinSet::new();
    for cell in living {
        if storing.len() == STORED_AT_ONCE {
            lost.extend(storing.join_next().await.and_then(lost_by));
        }
        if let Some(directory) = node.directory(&cell.id()) {
            storing.spawn(store_awake(cell, directory, deadline));
        }
    }
    while let Some(stored) = storing.join_next().await {
        lost.extend(lost_by(stored));
    }
    lost
}

/// The agent that is lost, if one is.
fn lost_by(stored: Result<Option<AgentId>, JoinError>) -> Option<AgentId> {
    match stored {
        Ok(lost) => lost,
        Err(error) => {
            tracing::error!(%error, "an agent could not be stored and is lost with this process");
            None
        }
    }
}

/// Writes an agent unless it is on the disk; gives it if it is lost.
async fn store_awake(
    cell: Arc<Cell>,
    directory: PathBuf,
    deadline: tokio::time::Instant,
) -> Option<AgentId> {
    let agent = cell.id();
    // Nobody wakes it any more: the node is closing.
    let still = cell.waking.lock().await;
    if cell.is_asleep() {
        return None;
    }
    drop(still);
    match store_one(&cell, directory, deadline).await {
        // Its move came to an end meanwhile, or it did.
        Err(_) if !cell.lives() => None,
        Err(error) => {
            tracing::error!(%agent, %error, "an agent could not be stored and is lost with this process");
            Some(agent)
        }
        Ok(()) => None,
    }
}

async fn store_one(
    cell: &Arc<Cell>,
    directory: PathBuf,
    deadline: tokio::time::Instant,
) -> Result<(), CellsError> {
    let held = tokio::time::timeout_at(deadline, cell.hold());
    let held = held.await.map_err(|_| CellsError::Busy {
        agent: cell.id(),
        doing: "it is on its way to another node, or cannot be stopped".to_owned(),
    })??;
    let cell = Arc::clone(cell);
    let writing = tokio::task::spawn_blocking(move || {
        let stored = Stored::whole(&cell, &held)?;
        // It is what makes the directory an agent.
        write(&directory.join(SNAPSHOT), &stored.encode())
            .map_err(CellsError::io("writing a snapshot"))
    });
    writing
        .await
        .map_err(|error| CellsError::Internal(error.to_string()))?
}

/// What an earlier run left of an agent.
enum Found {
    /// It was stored at a clean stop; the record of it, if there is one.
    Stored(Option<Record>),
    /// The same, but it may have been handed over before, to a node that had not said so.
    Doubtful(Record, Departure),
    /// It ended, or was lost when the node stopped without storing it.
    Ended(Record),
    /// The same, but its source may not have let go of it: nobody is told of it before that is known of the source.
    Unsettled(Record, Option<NodeId>),
    /// The same, but it may have gone on at another node, which is asked.
    Departed(Record, Departure),
}

/// Brings the agents of the last run back to life, and what is known of those that ended. What cannot be read stays on
/// the disk and is reported.
pub(crate) async fn restore(node: &Arc<Node>) -> Result<(), CellsError> {
    let Some(directory) = node.directories() else {
        return Ok(());
    };
    let scanning = {
        let (node, directory) = (Arc::clone(node), Arc::clone(directory));
        tokio::task::spawn_blocking(move || scan(&node, &directory))
    };
    let found = scanning
        .await
        .map_err(|error| CellsError::Internal(error.to_string()))??;
    for (agent, epoch) in node.ledger.debts()? {
        lock(&node.arrivals).secure(agent, epoch);
    }
    let (mut ended, mut orphaned) = (Vec::new(), Vec::new());
    for (home, found) in found {
        let agent = home.agent;
        let record = match found {
            Found::Ended(record) => record,
            Found::Unsettled(record, source) => {
                lock(&node.unsettled).insert(agent);
                orphaned.extend(source.map(|source| (agent, record.epoch(), source)));
                record
            }
            Found::Departed(record, departure) => {
                lock(&node.departed).insert(agent);
                tokio::spawn(moving::follow_up(Arc::downgrade(node), agent, departure));
                record
            }
            Found::Stored(_) | Found::Doubtful(..) => {
                let (record, departure) = match found {
                    Found::Doubtful(record, departure) => (Some(record), Some(departure)),
                    Found::Stored(record) => (record, None),
                    _ => (None, None),
                };
                let reached = record.as_ref().map_or(Epoch(0), Record::epoch);
                let Err(error) = revive(node, &home, reached, departure).await else {
                    continue;
                };
                let Some(mut record) = record else { continue };
                if let CellsError::Checkpoint(CheckpointError::Stale) = error {
                    remove_stored(agent, &home.directory());
                    lose(&home, &mut record, LOST.to_owned());
                } else {
                    tracing::error!(%agent, %error, directory = %home.directory().display(), "an agent of the last run could not be restored");
                    // Its files stay, and another start tries again.
                    record.lose(format!("it could not be restored: {error}"));
                }
                record
            }
        };
        // A source that has been in doubt since before the restart learns that it was here.
        if record.is_settled() {
            lock(&node.arrivals).secure(agent, record.epoch());
        }
        match record.into_remains() {
            Ok(remains) => ended.push((home, remains)),
            Err(error) => unreadable(agent, &error),
        }
    }
    ended.sort_by_key(|(_, remains)| (remains.ended_ms, remains.identity.id));
    for (home, remains) in ended {
        bury(node, home, remains).await;
    }
    for (agent, epoch, source) in orphaned {
        tokio::spawn(moving::ask_source(
            Arc::downgrade(node),
            agent,
            epoch,
            source,
        ));
    }
    Ok(())
}

/// Sorts what is known of agents, and deletes what no agent can have any more.
fn scan(node: &Node, directory: &Path) -> Result<Vec<(Home, Found)>, CellsError> {
    let unusable = |error| CellsError::io(format!("reading {}", directory.display()))(error);
    private::create_folder(directory).map_err(unusable)?;
    let mut known: BTreeMap<AgentId, Entry> = node.ledger.entries()?.into_iter().collect();
    for entry in fs::read_dir(directory).map_err(unusable)? {
        let name = entry.map_err(unusable)?.file_name();
        if let Some(Ok(agent)) = name.to_str().map(str::parse::<AgentId>) {
            known.entry(agent).or_default();
        }
    }
    let mut found = Vec::new();
    for (agent, entry) in known {
        let Some(home) = node.home(&agent) else {
            continue;
        };
        let snapshot = home.directory().join(SNAPSHOT);
        // The node was killed while it wrote it.
        if fs::remove_file(unfinished(&snapshot)).is_ok() {
            tracing::info!(%agent, "a snapshot that was not finished is deleted");
        }
        let stored = snapshot.exists();
        let sorted = match entry.record {
            Some(Ok(record)) => {
                if record.has_end() {
                    remove_stored(agent, &home.directory());
                }
                Some(sort(&home, record, stored, entry.departure, entry.source))
            }
            None if stored => Some(Found::Stored(None)),
            None => {
                // The node was killed while the agent was on its way in or out; nothing ran here that is not elsewhere.
                tracing::info!(%agent, "files that belong to no agent are deleted");
                Logs::ended(home.clone()).discard();
                None
            }
            Some(Err(error)) => {
                unreadable(agent, &error);
                stored.then_some(Found::Stored(None))
            }
        };
        found.extend(sorted.map(|sorted| (home, sorted)));
    }
    Ok(found)
}

/// What became of an agent of which there is a record.
fn sort(
    home: &Home,
    mut record: Record,
    stored: bool,
    departure: Option<Departure>,
    source: Option<NodeId>,
) -> Found {
    let agent = home.agent;
    if stored && !record.has_end() {
        return match departure {
            Some(departure) => Found::Doubtful(record, departure),
            None => Found::Stored(Some(record)),
        };
    }
    if !record.has_end() {
        let why = match departure {
            Some(departure) => format!(
                "lost: its node stopped while it was on its way to {}, unless that one has it",
                departure.target()
            ),
            None => LOST.to_owned(),
        };
        // What may still turn out otherwise is found again as it was.
        if departure.is_none() && record.is_settled() {
            lose(home, &mut record, why);
        } else {
            tracing::warn!(%agent, "an agent was {why}");
            record.lose(why);
        }
    }
    match departure {
        _ if !record.is_settled() => Found::Unsettled(record, source),
        Some(departure) => Found::Departed(record, departure),
        None => Found::Ended(record),
    }
}

/// Writes down that an agent is no more.
fn lose(home: &Home, record: &mut Record, why: String) {
    let agent = home.agent;
    tracing::warn!(%agent, "an agent was {why}");
    record.lose(why);
    if let Err(error) = home.ledger.record_fact(agent, record) {
        tracing::warn!(%agent, %error, "that could not be written down yet");
    }
}

fn unreadable(agent: AgentId, error: &RecordError) {
    tracing::error!(%agent, %error, "an agent of an earlier run is left out");
}

/// Deletes the file of a stored agent that is no longer one: going back to it would repeat what it did since.
pub(crate) fn remove_stored(agent: AgentId, path: &Path) {
    match fs::remove_file(path.join(SNAPSHOT)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%agent, %error, "the file of a restored agent could not be deleted");
        }
        Ok(()) | Err(_) => {}
    }
}

/// Makes an agent of what is stored, if that is not older than the agent is known to be.
async fn revive(
    node: &Arc<Node>,
    home: &Home,
    reached: Epoch,
    departure: Option<Departure>,
) -> Result<(), CellsError> {
    let agent = home.agent;
    let reading = {
        let (node, home) = (Arc::clone(node), home.clone());
        tokio::task::spawn_blocking(move || restore_one(&node, &home, reached, departure))
    };
    let cell = reading
        .await
        .map_err(|error| CellsError::Internal(error.to_string()))??;
    // A source that has been in doubt since before the restart learns that it is here.
    lock(&node.arrivals).secure(agent, cell.epoch());
    node.adopt(&cell, false)?;
    if !cell.is_asleep() {
        remove_stored(agent, &home.directory());
    }
    cell.start();
    if let Some(departure) = departure {
        return doubtful::ask_on(node, &cell, departure);
    }
    fence(node, &agent).await;
    Ok(())
}

/// Makes an agent that is no more a resident again, for whoever asks how it ended.
async fn bury(node: &Arc<Node>, home: Home, remains: Remains) {
    let agent = remains.identity.id;
    let cell = Cell::ended(
        remains,
        Logs::ended(home),
        node.scheduler.clone(),
        node.changes.clone(),
    );
    if let Err(error) = node.adopt(&cell, false) {
        tracing::error!(%agent, %error, "an ended agent could not be adopted");
        return;
    }
    node.keep_ended(agent);
    fence(node, &agent).await;
}

/// Gives an agent up that is known to live elsewhere: the node may have been killed in the middle of a move. What is not
/// known yet, those who keep the newer record say when this node publishes its own.
async fn fence(node: &Arc<Node>, agent: &AgentId) {
    if let Some(location) = node.mesh.locate(agent) {
        node.fence(&location.record).await;
    }
}

/// One that may live elsewhere sleeps, whether or not it did when it was stored.
fn restore_one(
    node: &Arc<Node>,
    home: &Home,
    reached: Epoch,
    departure: Option<Departure>,
) -> Result<Arc<Cell>, CellsError> {
    let (agent, engine) = (home.agent, node.config.engine);
    let bytes = stored::read(&home.directory().join(SNAPSHOT))?;
    let stored = Stored::decode_kept(&bytes)?;
    let device = stored.device;
    let Some(Own { outbox, inbox, .. }) = &stored.own else {
        return Err(CheckpointError::Copy.into());
    };
    let about = stored.about()?;
    if about.epoch() < reached {
        return Err(CheckpointError::Stale.into());
    }
    let identity = about.identity(agent)?;
    // Whoever saw the agent before sees a newer one now, if it goes on.
    let sleep = match about.sleep() {
        Some(sleep) => Some(hibernation::since(sleep)),
        None => departure.map(|_| (Duration::ZERO, None)),
    };
    let epoch = match sleep {
        Some(_) => about.epoch(),
        None => about.epoch().next(),
    };
    let logs = Arc::new(Logs::open(home.clone()));
    logs.adopt_lines(about.lines());
    let post = Arc::new(Post::new(agent, epoch, identity.limits.message_bytes));
    post.load(epoch, outbox, inbox)
        .map_err(CheckpointError::Messages)?;
    let tally = Arc::new(Tally::resumed(&identity.budget, &about.tallied()));
    if let Some((slept, left)) = sleep {
        let sleeper = Sleeper {
            identity,
            epoch,
            engine,
            module: stored.snapshot.module,
            logs,
            post,
            tally,
            memory_bytes: stored.snapshot.memory_bytes,
            paused: about.is_paused(),
            slept,
            left,
        };
        let cell = Cell::asleep(sleeper, node.scheduler.clone(), node.changes.clone());
        cell.set_device(device);
        node.lodgings.restore(node, &cell, stored);
        if let Some(departure) = departure {
            cell.doubt(Some(departure.target()));
            cell.post.freeze();
        }
        return Ok(cell);
    }
    let prepared = stored.take_back(node)?;
    let services = host_calls(&identity, &logs, &post, &tally);
    let mut instance =
        prepared.instantiate(HostState::new(Address(agent.0)), services, &identity.limits)?;
    stored.load(instance.as_mut(), Some(&identity.grants))?;
    let parts = Parts {
        identity,
        epoch,
        engine,
        prepared,
        logs,
        post,
        tally,
        program: Program::Live(instance),
        paused: about.is_paused(),
        settled: true,
    };
    let cell = Cell::new(parts, node.scheduler.clone(), node.changes.clone());
    cell.set_device(device);
    Ok(cell)
}
