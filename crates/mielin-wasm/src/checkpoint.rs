//! A stopped program with the module that it goes on in, as bytes: what nodes of all kinds write and read.
//!
//! It is a [`Snapshot`] with more host sections: the plain module, and what keepers of agents note about one. A node that
//! does not know what those say keeps them, and hands them on with the agent.

use alloc::borrow::ToOwned;
use alloc::vec::Vec;

use mielin_safepoint::{HostSection, Snapshot, SnapshotError, SnapshotLimits};

/// A stopped program, its module, and what others have noted about it.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use mielin_safepoint::{SnapshotLimits, instrument};
/// # use std::sync::Arc;
/// use mielin_wasm::*;
/// # struct Bare;
/// # impl Services for Bare {
/// #     fn write_log(&self, _: LogStream, _: &[u8]) -> Result<usize, LogError> { Err(LogError::Full) }
/// #     fn log(&self, _: Level, _: &str) {}
/// #     fn send(&self, _: Address, _: MessageKind, _: &[u8]) -> Result<u64, SendError> { Err(SendError::Unknown) }
/// #     fn receive(&self, _: usize) -> Receive { Receive::Empty }
/// #     fn denied(&self, _: &Capability, _: &'static str) {}
/// # }
/// # let plain = wat::parse_str(r#"(module (memory (export "memory") 1) (func (export "_start") (loop $a (br $a))))"#)?;
/// # let make = |module: &mielin_safepoint::Resumable| engine(EngineKind::Wasmi)?
/// #     .prepare(module, None)?
/// #     .instantiate(HostState::new(Address::default()), Arc::new(Bare), &Limits::default());
/// # let mut agent = make(&instrument(&plain)?)?;
/// # agent.stop_handle().request();
/// # assert_eq!(agent.run(), Outcome::Stopped);
/// let checkpoint = Checkpoint {
///     snapshot: agent.snapshot(),
///     module: plain,
///     others: Vec::new(),
/// };
/// let bytes = checkpoint.encode();
///
/// // Elsewhere: only what one's own rewriter has made is known to come to safepoints.
/// let checkpoint = Checkpoint::decode(&bytes, &SnapshotLimits::default())?;
/// let module = instrument(&checkpoint.module)?;
/// assert_eq!(module.hash(), checkpoint.snapshot.module, "or it is refused");
/// make(&module)?.load(&checkpoint.snapshot)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The program. Its host sections are those of its [`HostState`](crate::HostState).
    pub snapshot: Snapshot,
    /// The plain module, which becomes that of the snapshot when it is rewritten.
    pub module: Vec<u8>,
    /// Sections of keepers of agents but for the module. Their names begin with [`PREFIX`](Checkpoint::PREFIX).
    pub others: Vec<HostSection>,
}

/// Why bytes are no checkpoint. Whoever made them is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointFormError {
    /// They are no snapshot, or larger than the limits.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A section is not there, or is there twice.
    #[error("it has not exactly one section {0}")]
    Section(&'static str),
    /// A section of another version.
    #[error("its section {section} has version {found}; this node reads version {expected}")]
    Version {
        /// The section.
        section: &'static str,
        /// What the bytes say.
        found: u16,
        /// What this node reads.
        expected: u16,
    },
}

impl Checkpoint {
    /// The section of the module.
    pub const MODULE: &str = "cells:module";
    /// How names of sections begin that are not the program's, the module's included.
    pub const PREFIX: &str = "cells:";
    /// The version of all of them.
    pub const VERSION: u16 = 4;

    /// The bytes of this checkpoint.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let mut snapshot = self.snapshot;
        snapshot.host.extend(self.others);
        snapshot.host.push(section(Checkpoint::MODULE, self.module));
        snapshot.encode()
    }

    /// Reads a checkpoint; nothing is allocated by a length that is merely claimed. Whether the module is one, is that of the
    /// snapshot and may be as long is not looked at: `host_bytes` of the limits is for module, files, input and what others have
    /// noted, together.
    ///
    /// # Errors
    /// It is damaged, exceeds the limits, or has not one module in the form of this version.
    pub fn decode(
        bytes: &[u8],
        limits: &SnapshotLimits,
    ) -> Result<Checkpoint, CheckpointFormError> {
        let mut snapshot = Snapshot::decode(bytes, limits)?;
        let (others, host) = core::mem::take(&mut snapshot.host)
            .into_iter()
            .partition(|section| section.name.starts_with(Checkpoint::PREFIX));
        snapshot.host = host;
        let mut checkpoint = Checkpoint {
            snapshot,
            module: Vec::new(),
            others,
        };
        let module = checkpoint.take(Checkpoint::MODULE)?;
        checkpoint.module = module.ok_or(CheckpointFormError::Section(Checkpoint::MODULE))?;
        Ok(checkpoint)
    }

    /// Takes one of the others' sections out, if it is there.
    ///
    /// # Errors
    /// It is there twice, or of another version.
    pub fn take(&mut self, name: &'static str) -> Result<Option<Vec<u8>>, CheckpointFormError> {
        let mut named = self.others.extract_if(.., |section| section.name == name);
        let (first, second) = (named.next(), named.next());
        drop(named);
        let section = match (first, second) {
            (None, _) => return Ok(None),
            (Some(section), None) => section,
            (Some(_), Some(_)) => return Err(CheckpointFormError::Section(name)),
        };
        if section.version != Checkpoint::VERSION {
            return Err(CheckpointFormError::Version {
                section: name,
                found: section.version,
                expected: Checkpoint::VERSION,
            });
        }
        Ok(Some(section.bytes))
    }

    /// Adds one of the others' sections.
    pub fn put(&mut self, name: &'static str, bytes: Vec<u8>) {
        self.others.push(section(name, bytes));
    }
}

fn section(name: &str, bytes: Vec<u8>) -> HostSection {
    HostSection {
        name: name.to_owned(),
        version: Checkpoint::VERSION,
        bytes,
    }
}
