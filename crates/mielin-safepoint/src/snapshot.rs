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
    /// A stopped program with all of its memory, without state of the host.
    pub fn of(module: ModuleHash, memory: &[u8], execution: Execution) -> Snapshot {
        let page = |(index, bytes): (u32, &[u8; PAGE_SIZE])| {
            let is_kept = bytes.iter().any(|byte| *byte != 0);
            is_kept.then(|| Page {
                index,
                bytes: Box::new(*bytes),
            })
        };
        let (pages, _) = memory.as_chunks();
        Snapshot {
            module,
            memory_bytes: memory.len() as u64,
            pages: (0..).zip(pages).filter_map(page).collect(),
            globals: execution.globals,
            frames: execution.frames,
            host: Vec::new(),
        }
    }

    /// Makes an instance's memory what it was: the pages, and zeros elsewhere.
    ///
    /// # Errors
    /// [`SnapshotError::Malformed`] if the memory has not the size of the program's, and nothing is written.
    pub fn write_memory(&self, memory: &mut [u8]) -> Result<(), SnapshotError> {
        if memory.len() as u64 != self.memory_bytes {
            return Err(SnapshotError::Malformed("the memory has another size"));
        }
        let (chunks, _) = memory.as_chunks_mut::<PAGE_SIZE>();
        chunks.as_flattened_mut().fill(0);
        for page in &self.pages {
            let chunk = chunks.get_mut(page.index as usize);
            *chunk.ok_or(SnapshotError::Malformed("a page lies outside the memory"))? = *page.bytes;
        }
        Ok(())
    }

    /// The bytes of this snapshot. Pages that are all zeros are left out. The fields must keep
    /// their documented form (ascending pages inside the memory), or decoding will refuse.
    pub fn encode(&self) -> Vec<u8> {
        let is_kept = |page: &&Page| page.bytes.iter().any(|byte| *byte != 0);
        let count = self.pages.iter().filter(is_kept).count();
        let mut out = Vec::with_capacity(count * (PAGE_SIZE + 4) + self.frames.len() + 256);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&0u16.to_le_bytes());
        out.extend_from_slice(&self.module.0);
        out.extend_from_slice(&self.memory_bytes.to_le_bytes());
        put_len(&mut out, count);
        for page in self.pages.iter().filter(is_kept) {
            out.extend_from_slice(&page.index.to_le_bytes());
            out.extend_from_slice(&page.bytes[..]);
        }
        encode_execution(&self.globals, &self.frames, &mut out);
        out.extend_from_slice(&(self.host.len() as u16).to_le_bytes());
        for section in &self.host {
            out.extend_from_slice(&(section.name.len() as u16).to_le_bytes());
            out.extend_from_slice(section.name.as_bytes());
            out.extend_from_slice(&section.version.to_le_bytes());
            put_len(&mut out, section.bytes.len());
            out.extend_from_slice(&section.bytes);
        }
        let hash = blake3::hash(&out);
        out.extend_from_slice(hash.as_bytes());
        out
    }

    /// Reads a snapshot. Nothing is allocated by a length that is merely claimed.
    ///
    /// # Errors
    /// Bytes that [`encode`](Self::encode) cannot have made, or that exceed the limits.
    pub fn decode(bytes: &[u8], limits: &SnapshotLimits) -> Result<Snapshot, SnapshotError> {
        if !bytes.starts_with(MAGIC) {
            return Err(SnapshotError::NotASnapshot);
        }
        let mut reader = Reader(&bytes[MAGIC.len()..]);
        let found = reader.u16()?;
        if found != VERSION {
            return Err(SnapshotError::Version {
                found,
                expected: VERSION,
            });
        }
        let end = bytes
            .len()
            .checked_sub(HASH_LEN)
            .ok_or(SnapshotError::Truncated)?;
        let (content, hash) = bytes.split_at(end);
        if blake3::hash(content).as_bytes() != hash {
            let body = &bytes[MAGIC.len() + 4..];
            return Err(match Reader(body).skip_whole() {
                Err(SnapshotError::Truncated) => SnapshotError::Truncated,
                _ => SnapshotError::Hash,
            });
        }
        let start = MAGIC.len() + 2;
        let mut reader = Reader(content.get(start..).ok_or(SnapshotError::Truncated)?);
        if reader.u16()? != 0 {
            return Err(SnapshotError::Malformed("a reserved field is not zero"));
        }
        let module = ModuleHash(reader.array()?);
        let memory_bytes = u64::from_le_bytes(reader.array()?);
        check("bytes of memory", memory_bytes, limits.memory_bytes)?;
        if memory_bytes % 65536 != 0 {
            return Err(SnapshotError::Malformed(
                "the memory is not a whole number of 64 KiB pages",
            ));
        }
        let pages = reader.pages(memory_bytes / PAGE_SIZE as u64)?;
        let Execution { globals, frames } = reader.execution(limits)?;
        let host = reader.host(limits)?;
        reader.finish()?;
        Ok(Snapshot {
            module,
            memory_bytes,
            pages,
            globals,
            frames,
            host,
        })
    }
}

impl Execution {
    /// The bytes of globals and frames, as they also stand inside a snapshot; without a hash.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        encode_execution(&self.globals, &self.frames, &mut out);
        out
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// Other bytes, or more than the limits allow.
    pub fn decode(bytes: &[u8], limits: &SnapshotLimits) -> Result<Execution, SnapshotError> {
        let mut reader = Reader(bytes);
        let execution = reader.execution(limits)?;
        reader.finish()?;
        Ok(execution)
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&(len as u32).to_le_bytes());
}

fn encode_execution(globals: &[GlobalValue], frames: &[u8], out: &mut Vec<u8>) {
    put_len(out, globals.len());
    for global in globals {
        out.push(global.value_type() as u8);
        match global {
            GlobalValue::I32(value) => out.extend_from_slice(&value.to_le_bytes()),
            GlobalValue::I64(value) => out.extend_from_slice(&value.to_le_bytes()),
            GlobalValue::F32(bits) => out.extend_from_slice(&bits.to_le_bytes()),
            GlobalValue::F64(bits) => out.extend_from_slice(&bits.to_le_bytes()),
            GlobalValue::V128(bits) => out.extend_from_slice(&bits.to_le_bytes()),
        }
    }
    put_len(out, frames.len());
    out.extend_from_slice(frames);
}

fn check(what: &'static str, found: u64, limit: u64) -> Result<(), SnapshotError> {
    if found > limit {
        Err(SnapshotError::Limit { what, found, limit })
    } else {
        Ok(())
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], SnapshotError> {
        let (taken, rest) = self
            .0
            .split_at_checked(len)
            .ok_or(SnapshotError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(SnapshotError::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u16(&mut self) -> Result<u16, SnapshotError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, SnapshotError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Goes over everything behind the version by the lengths that it claims, to tell bytes that are cut off from
    /// damaged ones.
    fn skip_whole(&mut self) -> Result<(), SnapshotError> {
        let malformed = SnapshotError::Malformed("a global has an unknown type");
        self.take(32 + 8)?;
        let pages = self.u32()? as usize;
        self.take(pages.saturating_mul(PAGE_SIZE + 4))?;
        for _ in 0..self.u32()? {
            let len = match self.array()? {
                [0 | 2] => 4,
                [1 | 3] => 8,
                [4] => 16,
                _ => return Err(malformed),
            };
            self.take(len)?;
        }
        let frames = self.u32()? as usize;
        self.take(frames)?;
        for _ in 0..self.u16()? {
            let name = usize::from(self.u16()?);
            self.take(name + 2)?;
            let len = self.u32()? as usize;
            self.take(len)?;
        }
        self.take(HASH_LEN)?;
        Ok(())
    }

    fn pages(&mut self, in_memory: u64) -> Result<Vec<Page>, SnapshotError> {
        let count = self.u32()? as usize;
        if count > self.0.len() / (PAGE_SIZE + 4) {
            return Err(SnapshotError::Truncated);
        }
        let mut pages: Vec<Page> = Vec::with_capacity(count);
        for _ in 0..count {
            let index = self.u32()?;
            if pages.last().is_some_and(|last| last.index >= index) {
                return Err(SnapshotError::Malformed("page indices do not ascend"));
            }
            if u64::from(index) >= in_memory {
                return Err(SnapshotError::Malformed("a page lies outside the memory"));
            }
            let bytes = self.take(PAGE_SIZE)?;
            if bytes.iter().all(|byte| *byte == 0) {
                return Err(SnapshotError::Malformed("a page of zeros is present"));
            }
            let mut page = Box::new([0; PAGE_SIZE]);
            page.copy_from_slice(bytes);
            pages.push(Page { index, bytes: page });
        }
        Ok(pages)
    }

    fn execution(&mut self, limits: &SnapshotLimits) -> Result<Execution, SnapshotError> {
        let count = self.u32()?;
        check("globals", count.into(), limits.globals.into())?;
        let mut globals = Vec::new();
        for _ in 0..count {
            globals.push(match self.array()? {
                [0] => GlobalValue::I32(i32::from_le_bytes(self.array()?)),
                [1] => GlobalValue::I64(i64::from_le_bytes(self.array()?)),
                [2] => GlobalValue::F32(self.u32()?),
                [3] => GlobalValue::F64(u64::from_le_bytes(self.array()?)),
                [4] => GlobalValue::V128(u128::from_le_bytes(self.array()?)),
                _ => return Err(SnapshotError::Malformed("a global has an unknown type")),
            });
        }
        let len = self.u32()?;
        check("bytes of frames", len.into(), limits.frames_bytes.into())?;
        let frames = self.take(len as usize)?.to_vec();
        if frames.len() % 8 != 0 {
            return Err(SnapshotError::Malformed("the frames are not whole"));
        }
        Ok(Execution { globals, frames })
    }

    fn host(&mut self, limits: &SnapshotLimits) -> Result<Vec<HostSection>, SnapshotError> {
        let count = self.u16()?;
        check("host sections", count.into(), limits.host_sections.into())?;
        let mut sections = Vec::new();
        let mut total = 0;
        for _ in 0..count {
            let len = self.u16()?;
            let name = core::str::from_utf8(self.take(len.into())?)
                .map_err(|_| SnapshotError::Malformed("a host section's name is not UTF-8"))?;
            let version = self.u16()?;
            let len = self.u32()?;
            total += u64::from(len);
            check("bytes of host state", total, limits.host_bytes)?;
            let bytes = self.take(len as usize)?.to_vec();
            sections.push(HostSection {
                name: String::from(name),
                version,
                bytes,
            });
        }
        Ok(sections)
    }

    fn finish(&self) -> Result<(), SnapshotError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(SnapshotError::Malformed("something follows the end"))
        }
    }
}
