//! Agents outlive their node's process: written to the data directory at shutdown, restored at the next start.
//!
//! An agent's directory then holds, beside its logs, `module.wasm` (rewritten) and `snapshot`, which is a
//! [`Snapshot`] with three more host sections: what the node knows about the agent, its outbox and its mailbox. Both
//! files are deleted once the agent runs again, because going back to them later would repeat what it did since.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use mielin_mesh_core::{AgentId, Epoch, codec};
use mielin_safepoint::{HostSection, ModuleHash, Snapshot, SnapshotLimits};
use mielin_wasm::{Address, HostState};
use oxicode::{Decode, Encode};

use crate::cell::{Cell, Parts, Tally};
use crate::error::CellsError;
use crate::logs::Logs;
use crate::moving::Identified;
use crate::node::Node;
use crate::post::Post;
use crate::spawn::host_calls;
use crate::wire;

const SNAPSHOT: &str = "snapshot";
const MODULE: &str = "module.wasm";
const ABOUT: &str = "cells:about";
const OUTBOX: &str = "cells:outbox";
const INBOX: &str = "cells:inbox";
/// Version of the three sections.
const VERSION: u16 = 1;

/// What the node knows about an agent.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
struct About {
    identified: Identified,
    epoch: u64,
    paused: bool,
    counters: [u64; 6],
    lines: Vec<wire::Line>,
}

/// Writes every living agent. The scheduler has stopped.
pub(crate) async fn store(node: &Arc<Node>) {
    for cell in node.living() {
        let Some(directory) = node.directory(&cell.id()) else {
            return;
        };
        let agent = cell.id();
        if let Err(error) = store_one(cell, directory).await {
            tracing::error!(%agent, %error, "an agent could not be stored and is lost with this process");
        }
    }
}

async fn store_one(cell: Arc<Cell>, directory: std::path::PathBuf) -> Result<(), CellsError> {
    let held = cell.hold().await?;
    let writing = tokio::task::spawn_blocking(move || {
        let mut snapshot = held.instance().snapshot();
        let (outbox, inbox) = cell.post.encode();
        let about = About {
            identified: Identified::new(&cell.identity),
            epoch: cell.epoch().0,
            paused: cell.is_paused(),
            counters: cell.tally.numbers(),
            lines: cell.logs.lines().iter().map(wire::Line::new).collect(),
        };
        for (name, bytes) in [
            (ABOUT, codec::encode(&about)),
            (OUTBOX, outbox),
            (INBOX, inbox),
        ] {
            snapshot.host.push(HostSection {
                name: name.to_owned(),
                version: VERSION,
                bytes,
            });
        }
        write(&directory.join(MODULE), cell.prepared.module().bytes())?;
        // Last, because it is what makes the directory an agent.
        write(&directory.join(SNAPSHOT), &snapshot.encode())
    });
    let written = writing
        .await
        .map_err(|error| CellsError::Internal(error.to_string()))?;
    written.map_err(CellsError::io("writing a snapshot"))
}

/// Writes a file so that it is either whole or not there.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)
}

/// Brings the agents of the last run back to life. One that cannot be read stays on the disk and is reported.
pub(crate) async fn restore(node: &Arc<Node>) {
    let Some(directory) = node
        .config
        .data_dir
        .as_ref()
        .map(|directory| directory.join("agents"))
    else {
        return;
    };
    let Ok(entries) = fs::read_dir(&directory) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let Some(Ok(agent)) = entry.file_name().to_str().map(str::parse::<AgentId>) else {
            continue;
        };
        if !path.join(SNAPSHOT).exists() {
            continue;
        }
        let reading = {
            let (node, path) = (Arc::clone(node), path.clone());
            tokio::task::spawn_blocking(move || restore_one(&node, agent, &path))
        };
        let restored = reading
            .await
            .map_err(|error| CellsError::Internal(error.to_string()));
        match restored.and_then(|restored| restored) {
            Ok(cell) => {
                if let Err(error) = node.adopt(&cell, false) {
                    tracing::error!(%agent, %error, "a restored agent could not be adopted");
                    continue;
                }
                for file in [SNAPSHOT, MODULE] {
                    if let Err(error) = fs::remove_file(path.join(file)) {
                        tracing::warn!(%agent, %error, "a file of a restored agent could not be deleted");
                    }
                }
                cell.start();
            }
            Err(error) => {
                tracing::error!(%agent, %error, "an agent of the last run could not be restored")
            }
        }
    }
}

fn restore_one(
    node: &Arc<Node>,
    agent: AgentId,
    directory: &Path,
) -> Result<Arc<Cell>, CellsError> {
    let read = |name: &str| {
        fs::read(directory.join(name))
            .map_err(CellsError::io(format!("reading {name} of an agent")))
    };
    let damaged =
        |reason: String| CellsError::Internal(format!("its snapshot cannot be used: {reason}"));
    let limits = SnapshotLimits {
        host_bytes: 512 << 20,
        ..SnapshotLimits::default()
    };
    let snapshot =
        Snapshot::decode(&read(SNAPSHOT)?, &limits).map_err(|error| damaged(error.to_string()))?;
    let section = |name: &str| {
        let found = snapshot
            .host
            .iter()
            .find(|section| section.name == name && section.version == VERSION);
        found
            .map(|section| Bytes::copy_from_slice(&section.bytes))
            .ok_or_else(|| damaged(format!("{name} is missing")))
    };
    let about: About =
        codec::decode(&section(ABOUT)?).map_err(|error| damaged(error.to_string()))?;
    let identity = about.identified.into_identity(agent)?;
    let engine = node.config.engine;
    let module = ModuleHash(snapshot.module.0);
    let prepared = match node.modules.known(module, engine) {
        Some(prepared) => prepared,
        None => node.modules.accept(module, read(MODULE)?, engine)?,
    };
    // Whoever saw the agent before sees a newer one now.
    let epoch = Epoch(about.epoch).next();
    let logs = Arc::new(Logs::open(directory).map_err(CellsError::io("opening an agent's logs"))?);
    logs.adopt_lines(
        about
            .lines
            .into_iter()
            .map(wire::Line::into_host_line)
            .collect(),
    );
    let post = Arc::new(Post::new(agent, epoch, identity.limits.message_bytes));
    post.load(epoch, &section(OUTBOX)?, &section(INBOX)?)
        .map_err(|error| damaged(error.to_string()))?;
    let tally = Arc::new(Tally::default());
    for (counter, number) in tally.all().into_iter().zip(about.counters) {
        Tally::add(counter, number);
    }
    let services = host_calls(&identity, &logs, &post, &tally);
    let mut instance =
        prepared.instantiate(HostState::new(Address(agent.0)), services, &identity.limits)?;
    instance.load(&snapshot)?;
    let parts = Parts {
        identity,
        epoch,
        engine,
        prepared,
        logs,
        post,
        tally,
        instance,
        paused: about.paused,
    };
    Ok(Cell::new(
        parts,
        node.scheduler.clone(),
        node.changes.clone(),
    ))
}
