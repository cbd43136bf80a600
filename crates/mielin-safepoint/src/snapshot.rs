//! The portable form of a stopped program.
//!
//! Layout, all integers little endian:
//!
//! ```text
//! "MIELSNAP"  version u16  reserved u16 (0)
//! module [32]
//! memory_bytes u64
//! page_count u32   then per page: index u32, bytes [4096]
//! execution        global_count u32, then per global: type u8, value; frames_len u32, frames
//! host_count u16   then per section: name_len u16, name, version u16, len u32, bytes
//! BLAKE3 [32] of everything before it
//! ```
//!
//! There is one encoding of a state: page indices ascend strictly, a page of zeros is absent,
//! and nothing follows the hash.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::{ModuleHash, ValueType};

/// Size of a snapshot's pages in bytes.
pub const PAGE_SIZE: usize = 4096;

const MAGIC: &[u8; 8] = b"MIELSNAP";
const VERSION: u16 = 1;
const HASH_LEN: usize = 32;

/// The value of a global. Floating-point values are their bits, so that NaNs survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum GlobalValue {
    I32(i32),
    I64(i64),
    F32(u32),
    F64(u64),
    V128(u128),
}

impl GlobalValue {
    /// The type of this value.
    pub fn value_type(&self) -> ValueType {
        match self {
            GlobalValue::I32(_) => ValueType::I32,
            GlobalValue::I64(_) => ValueType::I64,
            GlobalValue::F32(_) => ValueType::F32,
            GlobalValue::F64(_) => ValueType::F64,
            GlobalValue::V128(_) => ValueType::V128,
        }
    }
}

/// Where a program is and what it holds besides its memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Execution {
    /// The values of the manifest's globals, in its order.
    pub globals: Vec<GlobalValue>,
    /// The frame bytes from [`abi::FRAMES_BASE`](crate::abi::FRAMES_BASE) to the stack pointer;
    /// empty for a program that has not begun.
    pub frames: Vec<u8>,
}

/// A page of the program's memory that is not all zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Address divided by [`PAGE_SIZE`].
    pub index: u32,
    /// Its content.
    pub bytes: Box<[u8; PAGE_SIZE]>,
}

/// State that the host keeps for the program, opaque here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSection {
    /// What it is.
    pub name: String,
    /// Version of its format.
    pub version: u16,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// A stopped program, ready to go on under any engine on any machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The rewritten module.
    pub module: ModuleHash,
    /// Size of the program's memory in bytes.
    pub memory_bytes: u64,
    /// Its pages, indices strictly ascending; absent ones are zero.
    pub pages: Vec<Page>,
    /// The values of the manifest's globals.
    pub globals: Vec<GlobalValue>,
    /// See [`Execution::frames`].
    pub frames: Vec<u8>,
    /// State of the host.
    pub host: Vec<HostSection>,
}

/// How much a snapshot that is decoded may hold. Checked before anything is allocated.
#[derive(Clone, Debug)]
pub struct SnapshotLimits {
    /// Bytes of the program's memory.
    pub memory_bytes: u64,
    /// Globals.
    pub globals: u32,
    /// Bytes of frames.
    pub frames_bytes: u32,
    /// Host sections.
    pub host_sections: u16,
    /// Bytes of all host sections together.
    pub host_bytes: u64,
}

impl Default for SnapshotLimits {
    /// A 4 GiB memory, all frames that fit, 4,096 globals, 64 host sections of together 64 MiB.
    fn default() -> SnapshotLimits {
        SnapshotLimits {
            memory_bytes: 1 << 32,
            globals: 4096,
            frames_bytes: (crate::abi::FRAMES_PAGES * 65536) as u32 - crate::abi::FRAMES_BASE,
            host_sections: 64,
            host_bytes: 64 << 20,
        }
    }
}

/// Why bytes are not a snapshot. Whoever made them is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The bytes do not begin like a snapshot.
    #[error("not a snapshot")]
    NotASnapshot,
    /// A version that this code cannot read.
    #[error("snapshot of version {found}, this node reads version {expected}")]
    Version {
        /// What the bytes say.
        found: u16,
        /// What this code reads.
        expected: u16,
    },
    /// The bytes end too early.
    #[error("the snapshot is cut off")]
    Truncated,
    /// The hash at the end is not that of the content.
    #[error("the snapshot is damaged: its hash does not match")]
    Hash,
    /// Something exceeds the limits.
    #[error("the snapshot holds {found} {what}, at most {limit} are allowed")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much the bytes claim.
        found: u64,
        /// How much there may be.
        limit: u64,
    },
    /// The content contradicts itself or is not in its one canonical form.
    #[error("the snapshot is malformed: {0}")]
    Malformed(&'static str),
}

impl Snapshot {
    /// The bytes of this snapshot. Pages that are all zeros are left out. The fields must keep
    /// their documented form (ascending pages inside the memory), or decoding will refuse.
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// Bytes that [`encode`](Self::encode) cannot have made, or that exceed the limits.
    pub fn decode(bytes: &[u8], limits: &SnapshotLimits) -> Result<Snapshot, SnapshotError> {
        todo!("{} {:?}", bytes.len(), limits)
    }
}

impl Execution {
    /// The bytes of globals and frames, as they also stand inside a snapshot; without a hash.
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// Other bytes, or more than the limits allow.
    pub fn decode(bytes: &[u8], limits: &SnapshotLimits) -> Result<Execution, SnapshotError> {
        todo!("{} {:?}", bytes.len(), limits)
    }
}
