//! An agent as bytes: what a node keeps of one that does not run, and what a checkpoint is.
//!
//! It is a [`Checkpoint`], a snapshot with the program's plain module, to which this crate adds what the node knows about the
//! agent and, where the bytes are the agent itself and not a copy of it, the rewritten module, its outbox and its
//! mailbox. A copy may come from anybody, so its module is rewritten again; what the node has kept itself need not be,
//! so that agents outlive a change of the rewriter. A copy of an agent that was started on a bare node has nothing of this
//! crate's: nobody there knows it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use mielin_mesh_core::codec::{self, CodecError};
use mielin_mesh_core::{AgentId, Epoch};
use mielin_safepoint::{ModuleHash, Resumable, Snapshot, SnapshotError, SnapshotLimits};
use mielin_wasm::{
    Checkpoint, CheckpointFormError, DATA_BYTES_MAX, EngineError, Grants, Instance, Limits,
    MODULE_BYTES_MAX, Prepared,
};
use oxicode::{Decode, Encode};
use thiserror::Error;

use crate::cell::{Cell, Device, Held, Identity};
use crate::error::CellsError;
use crate::modules;
use crate::moving::Identified;
use crate::node::Node;
use crate::report::HostLine;
use crate::tally::Tallied;
use crate::wire;

// All have the version of the checkpoint, and names with its prefix.
const ABOUT: &str = "cells:about";
const REWRITTEN: &str = "cells:rewritten";
const OUTBOX: &str = "cells:outbox";
const INBOX: &str = "cells:inbox";
const STAY: &str = "cells:stay";
const DEVICE: &str = "cells:device";

/// Host state without files, module and messages: the input, and what is said of files.
const HOST_BYTES_MAX: u64 = 128 << 20;
/// Mailbox and outbox.
const POST_BYTES_MAX: u64 = 512 << 20;
/// Memory of a program, as far as addresses of 32 bits reach.
const MEMORY_BYTES_MAX: u64 = 1 << 32;
/// Beside memory and host state: the stack, globals, and the names of all parts.
const REST_BYTES_MAX: u64 = 8 << 20;

/// Bytes that are no agent which could be made from them. Whoever made them is at fault.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// It cannot be read to its end, or never comes to one: a pipe, a device or a directory.
    #[error("it is not a regular file")]
    NotAFile,
    /// No agent is as large.
    #[error("it is {len} bytes, and no agent has more than {max}")]
    TooLarge {
        /// Its length.
        len: u64,
        /// The limit.
        max: u64,
    },
    /// Something else altogether.
    #[error("this is not a checkpoint")]
    NotACheckpoint,
    /// Cut off, damaged, too large, or of another version.
    #[error("{0}")]
    Snapshot(SnapshotError),
    /// A part is not there, or is there twice.
    #[error("it has not exactly one section {0}")]
    Section(&'static str),
    /// A part of another version.
    #[error("its section {section} has version {found}; this node reads version {expected}")]
    Version {
        /// The part.
        section: &'static str,
        /// What the bytes say.
        found: u16,
        /// What this node reads.
        expected: u16,
    },
    /// A part that cannot be read.
    #[error("its section {section} is malformed: {reason}")]
    Malformed {
        /// The part.
        section: &'static str,
        /// Why.
        reason: CodecError,
    },
    /// Its mailbox or outbox cannot be read.
    #[error("its messages are malformed: {0}")]
    Messages(CodecError),
    /// What it says has been gone on from: to go back to it would repeat that.
    #[error("the agent has run since it was stored")]
    Stale,
    /// Something that this version does not know.
    #[error("it has a section that this node does not know")]
    Unknown,
    /// The module is another one than that of the snapshot.
    #[error("it is of module {named}, but the module in it is {found}")]
    OtherModule {
        /// What the snapshot says.
        named: ModuleHash,
        /// The hash of the bytes.
        found: ModuleHash,
    },
    /// What the agent is called there is no name.
    #[error("the agent in it is called {0:?}, which is not a name")]
    Name(String),
    /// What the program holds differs from what the node knows about it.
    #[error("the grants of its program are not those of the agent")]
    Grants,
    /// A copy without messages where an agent is expected, or the other way round.
    #[error("it is not an agent of this node but a copy of one")]
    Copy,
    /// It does not fit its own module, or this node's limits.
    #[error("it does not fit: {0}")]
    Unfit(EngineError),
}

impl From<CheckpointFormError> for CheckpointError {
    fn from(error: CheckpointFormError) -> CheckpointError {
        match error {
            CheckpointFormError::Section(name) => CheckpointError::Section(name),
            CheckpointFormError::Version {
                section,
                found,
                expected,
            } => CheckpointError::Version {
                section,
                found,
                expected,
            },
            CheckpointFormError::Snapshot(SnapshotError::NotASnapshot) => {
                CheckpointError::NotACheckpoint
            }
            CheckpointFormError::Snapshot(error) => CheckpointError::Snapshot(error),
        }
    }
}

/// What the node knows about an agent.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct About {
    identified: Identified,
    epoch: u64,
    paused: bool,
    tallied: Tallied,
    lines: Vec<wire::Line>,
    sleep: Option<Sleep>,
}

/// An agent is hibernated.
#[derive(Clone, Copy, Debug, PartialEq, Encode, Decode)]
pub(crate) struct Sleep {
    /// Milliseconds since the Unix epoch.
    pub(crate) since_ms: u64,
    /// How long it was then until the end of its wait, if that has one.
    pub(crate) left_ms: Option<u64>,
}

/// An agent is on a leaf, or on its way: of what is stored here only the messages are of now.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct StayRecord {
    /// The leaf.
    pub(crate) leaf: [u8; 32],
    /// The number of its admission.
    pub(crate) number: u32,
    /// The epoch of its stay.
    pub(crate) epoch: u64,
    pub(crate) hold: StayHold,
    /// Messages that it has taken on the leaf.
    pub(crate) taken: u64,
    /// Messages of it that were taken here, and the number of the last among those to its destination.
    pub(crate) posted: u64,
    pub(crate) sequence: u64,
}

/// Who may run an agent that is on a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum StayHold {
    /// This node: the leaf is offered the agent.
    Giving,
    /// The leaf.
    Away,
    /// The leaf, until it is known to have let go: all of the agent is here.
    Taken {
        /// The epoch that it is to have here. If the leaf keeps it after all its stay goes on.
        epoch: u64,
    },
}

/// What an agent has that a copy of it has not.
#[derive(Clone)]
pub(crate) struct Own {
    rewritten: Bytes,
    pub(crate) outbox: Bytes,
    pub(crate) inbox: Bytes,
}

/// An agent, taken apart.
#[derive(Clone)]
pub(crate) struct Stored {
    /// `None` in a copy of an agent that no node of a mesh has had.
    about: Option<About>,
    module: Bytes,
    /// The program; its host sections are those of the engines' side alone.
    pub(crate) snapshot: Snapshot,
    /// `None` in a copy: messages are the original's.
    pub(crate) own: Option<Own>,
    /// Of one that is on a leaf.
    pub(crate) stay: Option<StayRecord>,
    /// The leaf that it was on last.
    pub(crate) device: Option<Device>,
}

impl Stored {
    /// A copy of an agent that stands still; its messages and its log stay with it.
    pub(crate) fn copy_of(cell: &Cell, held: &Held) -> Result<Stored, CellsError> {
        Ok(Stored {
            about: Some(About::of(cell, Vec::new())),
            module: modules::plain(held.module())?,
            snapshot: held.snapshot(),
            own: None,
            stay: None,
            device: None,
        })
    }

    /// All of an agent that stands still but the bytes of its log.
    pub(crate) fn whole(cell: &Cell, held: &Held) -> Result<Stored, CellsError> {
        let (outbox, inbox) = cell.post.encode();
        let own = Own {
            rewritten: Bytes::copy_from_slice(held.module().bytes()),
            outbox: outbox.into(),
            inbox: inbox.into(),
        };
        let lines = cell.logs.lines();
        Ok(Stored {
            about: Some(About::of(cell, lines.iter().map(wire::Line::new).collect())),
            own: Some(own),
            device: cell.device(),
            ..Stored::copy_of(cell, held)?
        })
    }

    /// The same of one that is to wake up by itself only at the end of its wait.
    #[must_use]
    pub(crate) fn asleep(mut self, sleep: Sleep) -> Stored {
        if let Some(about) = &mut self.about {
            about.sleep = Some(sleep);
        }
        self
    }

    /// The same with these messages.
    #[must_use]
    pub(crate) fn with_post(mut self, outbox: Vec<u8>, inbox: Vec<u8>) -> Stored {
        if let Some(own) = &mut self.own {
            own.outbox = outbox.into();
            own.inbox = inbox.into();
        }
        self
    }

    /// The same of one that is on a leaf, or is not any more.
    #[must_use]
    pub(crate) fn staying(mut self, stay: Option<StayRecord>) -> Stored {
        self.stay = stay;
        self
    }

    /// What a leaf is given: the program, with the module in the form in which it runs.
    pub(crate) fn for_leaf(&self) -> Result<Vec<u8>, CheckpointError> {
        let own = self.own.as_ref().ok_or(CheckpointError::Copy)?;
        let checkpoint = Checkpoint {
            snapshot: self.snapshot.clone(),
            module: own.rewritten.to_vec(),
            others: Vec::new(),
        };
        Ok(checkpoint.encode())
    }

    pub(crate) fn encode(self) -> Vec<u8> {
        let mut checkpoint = Checkpoint {
            snapshot: self.snapshot,
            module: self.module.into(),
            others: Vec::new(),
        };
        if let Some(about) = self.about {
            checkpoint.put(ABOUT, codec::encode(&about));
        }
        if let Some(own) = self.own {
            checkpoint.put(REWRITTEN, own.rewritten.into());
            checkpoint.put(OUTBOX, own.outbox.into());
            checkpoint.put(INBOX, own.inbox.into());
        }
        if let Some(stay) = self.stay {
            checkpoint.put(STAY, codec::encode(&stay));
        }
        if let Some(device) = self.device {
            checkpoint.put(DEVICE, codec::encode(&device));
        }
        checkpoint.encode()
    }

    /// Takes apart what this node has kept, unless it is a copy. The program may have as much memory as there can be: what it
    /// may have was decided when it was spawned.
    pub(crate) fn decode_kept(bytes: &[u8]) -> Result<Stored, CheckpointError> {
        let stored = Stored::decode(bytes, MEMORY_BYTES_MAX)?;
        match stored.own {
            Some(_) => Ok(stored),
            None => Err(CheckpointError::Copy),
        }
    }

    /// Takes bytes apart whose program may have so much memory.
    pub(crate) fn decode(bytes: &[u8], memory_bytes: u64) -> Result<Stored, CheckpointError> {
        let limits = SnapshotLimits {
            memory_bytes,
            host_bytes: host_bytes_max() + POST_BYTES_MAX,
            ..SnapshotLimits::default()
        };
        let mut checkpoint = Checkpoint::decode(bytes, &limits)?;
        let about = optional(&mut checkpoint, ABOUT)?;
        let rewritten = checkpoint.take(REWRITTEN)?;
        let own = match rewritten {
            // Only the node that has had the agent writes this, and it knows about it.
            Some(_) if about.is_none() => return Err(CheckpointError::Section(ABOUT)),
            Some(rewritten) => Some(Own {
                rewritten: rewritten.into(),
                outbox: required(&mut checkpoint, OUTBOX)?,
                inbox: required(&mut checkpoint, INBOX)?,
            }),
            None => None,
        };
        let stay = optional(&mut checkpoint, STAY)?;
        let device = optional(&mut checkpoint, DEVICE)?;
        if (stay.is_some() || device.is_some()) && own.is_none() {
            return Err(CheckpointError::Copy);
        }
        if !checkpoint.others.is_empty() {
            return Err(CheckpointError::Unknown);
        }
        Ok(Stored {
            about,
            module: checkpoint.module.into(),
            snapshot: checkpoint.snapshot,
            own,
            stay,
            device,
        })
    }

    /// What is known about the agent, if anything is.
    pub(crate) fn known(&self) -> Option<&About> {
        self.about.as_ref()
    }

    /// Who the agent is that this node has kept, under this id.
    pub(crate) fn about(&self) -> Result<&About, CheckpointError> {
        self.known().ok_or(CheckpointError::Section(ABOUT))
    }

    /// The module of a copy, whoever has made it, rewritten and compiled; blocks for as long as that takes.
    pub(crate) fn prepare(
        &self,
        node: &Node,
        limits: &Limits,
    ) -> Result<Arc<dyn Prepared>, CellsError> {
        let (hash, engine) = (self.snapshot.module, node.config.engine);
        node.modules.make_again(hash, &self.module, engine, limits)
    }

    /// The module of an agent that this node has kept, compiled; blocks for as long as that takes.
    pub(crate) fn take_back(&self, node: &Node) -> Result<Arc<dyn Prepared>, CellsError> {
        let (named, engine) = (self.snapshot.module, node.config.engine);
        if let Some(prepared) = node.modules.known(named, engine) {
            return Ok(prepared);
        }
        let own = self.own.as_ref().ok_or(CheckpointError::Copy)?;
        let kept = Resumable::from_rewritten(own.rewritten.to_vec())?;
        let found = kept.hash();
        if named != found {
            return Err(CheckpointError::OtherModule { named, found }.into());
        }
        let kept = kept.with_original(&self.module);
        node.modules.take_back(kept, engine)
    }

    /// Puts the program into a fresh instance of its module. If it is known what the agent may do, the program holds the same.
    pub(crate) fn load(
        &self,
        instance: &mut dyn Instance,
        grants: Option<&Grants>,
    ) -> Result<(), CheckpointError> {
        instance
            .load(&self.snapshot)
            .map_err(CheckpointError::Unfit)?;
        if grants.is_some_and(|grants| instance.host().grants != *grants) {
            return Err(CheckpointError::Grants);
        }
        Ok(())
    }
}

impl About {
    fn of(cell: &Cell, lines: Vec<wire::Line>) -> About {
        About {
            identified: Identified::new(&cell.identity),
            epoch: cell.epoch().0,
            paused: cell.is_paused(),
            tallied: cell.tally.tallied(),
            lines,
            sleep: None,
        }
    }

    /// Who the agent is, under this id.
    pub(crate) fn identity(&self, id: AgentId) -> Result<Identity, CellsError> {
        let identity = self.identified.clone().into_identity(id);
        identity.map_err(|error| match error {
            CellsError::BadName(name) => CheckpointError::Name(name).into(),
            error => error,
        })
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }

    pub(crate) fn sleep(&self) -> Option<Sleep> {
        self.sleep
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    pub(crate) fn tallied(&self) -> Tallied {
        self.tallied
    }

    /// What nodes have written about it.
    pub(crate) fn lines(&self) -> Vec<HostLine> {
        let lines = self.lines.iter().cloned();
        lines.map(wire::Line::into_host_line).collect()
    }
}

/// Reads a file that a node keeps of an agent, unless it can be none: what is no file is not opened, and no more is read
/// than an agent can have.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, CellsError> {
    let cannot = |error| CellsError::io(format!("reading {}", path.display()))(error);
    // To open a pipe would wait for whoever writes to it.
    let is_file = fs::metadata(path).map_err(cannot)?.is_file();
    if !is_file {
        return Err(CheckpointError::NotAFile.into());
    }
    let file = File::open(path).map_err(cannot)?;
    let len = file.metadata().map_err(cannot)?.len();
    let max = bytes_max(MEMORY_BYTES_MAX) + POST_BYTES_MAX;
    if len > max {
        return Err(CheckpointError::TooLarge { len, max }.into());
    }
    let mut bytes = Vec::new();
    usize::try_from(len)
        .ok()
        .and_then(|len| bytes.try_reserve_exact(len).ok())
        .ok_or_else(|| cannot(io::ErrorKind::OutOfMemory.into()))?;
    file.take(len).read_to_end(&mut bytes).map_err(cannot)?;
    Ok(bytes)
}

/// The most bytes that a copy of an agent with so much memory can have.
pub(crate) fn copy_bytes_max(limits: &Limits) -> u64 {
    bytes_max(limits.memory_bytes)
}

fn bytes_max(memory_bytes: u64) -> u64 {
    // With each page of 4 KiB stands its number.
    let memory = memory_bytes + memory_bytes / 1024;
    memory + host_bytes_max() + REST_BYTES_MAX
}

fn host_bytes_max() -> u64 {
    HOST_BYTES_MAX + DATA_BYTES_MAX + 2 * MODULE_BYTES_MAX as u64
}

/// Takes the section of this name out and decodes it, if there is one.
fn optional<T: Decode>(
    checkpoint: &mut Checkpoint,
    name: &'static str,
) -> Result<Option<T>, CheckpointError> {
    let bytes = checkpoint.take(name)?;
    let decoded = bytes.map(|bytes| codec::decode(&bytes)).transpose();
    decoded.map_err(|reason| CheckpointError::Malformed {
        section: name,
        reason,
    })
}

/// Takes the one section of this name out.
fn required(checkpoint: &mut Checkpoint, name: &'static str) -> Result<Bytes, CheckpointError> {
    let bytes = checkpoint.take(name)?;
    bytes.map(Bytes::from).ok_or(CheckpointError::Section(name))
}

#[cfg(test)]
mod tests;
