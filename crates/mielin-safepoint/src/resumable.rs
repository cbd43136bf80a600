//! A rewritten module and what a host must know about it.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::InstrumentError;

/// BLAKE3 of a rewritten module: the name of a program. Displayed in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleHash(pub [u8; 32]);

impl ModuleHash {
    /// The hash of these bytes.
    pub fn of(bytes: &[u8]) -> ModuleHash {
        ModuleHash(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for ModuleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ModuleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModuleHash({self})")
    }
}

/// Type of a value that a snapshot can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ValueType {
    I32,
    I64,
    F32,
    F64,
    V128,
}

/// The program's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryInfo {
    /// Name under which the memory is exported: [`abi::MEMORY`](crate::abi::MEMORY) or
    /// [`abi::HIDDEN_MEMORY`](crate::abi::HIDDEN_MEMORY).
    pub export: String,
    /// Initial size in pages of 64 KiB; 0 also for a program without memory.
    pub minimum_pages: u64,
    /// Largest size in pages of 64 KiB that the program allows itself.
    pub maximum_pages: Option<u64>,
}

/// A mutable global, part of every snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobalInfo {
    /// Name under which it is exported.
    pub export: String,
    /// Its type.
    pub value_type: ValueType,
}

/// What a host must know about a rewritten module. Read from the module itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The program's memory.
    pub memory: MemoryInfo,
    /// The mutable globals, in the order of a snapshot's globals.
    pub globals: Vec<GlobalInfo>,
    /// Imported functions: module and name, in the order of the module's imports.
    pub imports: Vec<(String, String)>,
}

/// A module that can be stopped and resumed, with its [`Manifest`].
#[derive(Clone, Debug)]
pub struct Resumable {
    bytes: Vec<u8>,
    hash: ModuleHash,
    manifest: Manifest,
}

impl Resumable {
    /// The rewritten module.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// BLAKE3 of [`bytes`](Self::bytes).
    pub fn hash(&self) -> ModuleHash {
        self.hash
    }

    /// What a host must know.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Accepts a rewritten module that came from elsewhere: validates it and checks that it has
    /// the exports of [`abi`](crate::abi).
    ///
    /// That the code really polls is not checked. Who must not trust the sender takes the
    /// plain module and calls [`instrument`](crate::instrument), which gives the same bytes.
    ///
    /// # Errors
    /// [`InstrumentError::Invalid`], [`InstrumentError::NotRewritten`],
    /// [`InstrumentError::Version`].
    pub fn from_rewritten(bytes: Vec<u8>) -> Result<Resumable, InstrumentError> {
        let manifest = todo!();
        Ok(Resumable { hash: ModuleHash::of(&bytes), bytes, manifest })
    }
}
