//! A rewritten module and what a host must know about it.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use wasmparser::{
    Encoding, ExternalKind, FuncType, GlobalType, MemoryType, Parser, Payload, TypeRef, ValType,
    ValidPayload, Validator, WasmFeatures,
};

use crate::rewrite::{ARRAY_PAGES_MAX, TABLES_MAX};
use crate::{InstrumentError, abi};

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
    original: Option<Arc<[u8]>>,
    hash: ModuleHash,
    manifest: Manifest,
    frames_pages: u64,
    /// Where the bytes say how many pages the frames memory has, at least and at most.
    frames_at: usize,
}

impl Resumable {
    /// The rewritten module.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The module that it was made of, if that is known. Who does not trust whoever gives it takes this and calls
    /// [`instrument`](crate::instrument), which makes the same bytes of it.
    pub fn original(&self) -> Option<&[u8]> {
        self.original.as_deref()
    }

    /// Notes what it was made of. Whether that is so is not checked.
    #[must_use]
    pub fn with_original(mut self, original: &[u8]) -> Resumable {
        self.original = Some(original.into());
        self
    }

    /// BLAKE3 of the module as it was rewritten: of [`bytes`](Self::bytes), unless its frames memory was made smaller.
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
        validate(&bytes)?;
        Resumable::unvalidated(bytes)
    }

    /// The same for bytes that are not validated here, but by the engine that compiles them: a second validator
    /// is more than a small node has room for. The exports are checked.
    ///
    /// # Errors
    /// As for [`from_rewritten`](Self::from_rewritten), where these see that the bytes are not a module.
    pub fn unvalidated(bytes: Vec<u8>) -> Result<Resumable, InstrumentError> {
        let (manifest, frames_at) = read_manifest(&bytes)?;
        Ok(Resumable {
            hash: ModuleHash::of(&bytes),
            bytes,
            original: None,
            manifest,
            frames_pages: abi::FRAMES_PAGES,
            frames_at,
        })
    }

    /// Gives it a smaller memory for frames, for a node that has little: of so many pages of 64 KiB, at least one. A program whose frames
    /// do not fit traps while it unwinds, earlier than it would elsewhere. The module keeps its [`hash`](Self::hash): it is
    /// the same program.
    ///
    /// # Panics
    /// If there are more than [`abi::FRAMES_PAGES`].
    #[must_use]
    pub fn with_frames_pages(mut self, pages: u64) -> Resumable {
        assert!(
            pages <= abi::FRAMES_PAGES,
            "a frames memory has at most {} pages",
            abi::FRAMES_PAGES
        );
        let pages = pages.max(1);
        // Minimum and maximum: numbers below 128, and so bytes (WebAssembly, "Values", LEB128).
        self.bytes[self.frames_at..self.frames_at + 2].fill(pages as u8);
        self.frames_pages = pages;
        self
    }

    /// How many pages its memory for frames has.
    pub fn frames_pages(&self) -> u64 {
        self.frames_pages
    }
}

/// Proposals that a rewritten module may use.
fn features() -> WasmFeatures {
    WasmFeatures::MUTABLE_GLOBAL
        | WasmFeatures::SATURATING_FLOAT_TO_INT
        | WasmFeatures::SIGN_EXTENSION
        | WasmFeatures::REFERENCE_TYPES
        | WasmFeatures::MULTI_VALUE
        | WasmFeatures::BULK_MEMORY
        | WasmFeatures::SIMD
        | WasmFeatures::TAIL_CALL
        | WasmFeatures::FLOATS
        | WasmFeatures::MULTI_MEMORY
        | WasmFeatures::EXTENDED_CONST
        | WasmFeatures::GC_TYPES
}

#[derive(Default)]
struct Parts {
    memories: Vec<MemoryType>,
    /// Where each begins.
    memories_at: Vec<usize>,
    globals: Vec<GlobalType>,
    imports: Vec<(String, String)>,
    types: Vec<FuncType>,
    functions: Vec<u32>,
    exports: BTreeMap<String, (ExternalKind, u32)>,
    version: Option<u32>,
}

fn validate(bytes: &[u8]) -> Result<(), InstrumentError> {
    let mut validator = Validator::new_with_features(features());
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload?;
        refuse_component(&payload)?;
        check_claim(&payload)?;
        if let ValidPayload::Func(function, body) = validator.payload(&payload)? {
            function
                .into_validator(Default::default())
                .validate(&body)?;
        }
    }
    Ok(())
}

fn refuse_component(payload: &Payload<'_>) -> Result<(), InstrumentError> {
    match payload {
        Payload::Version {
            encoding: Encoding::Component,
            ..
        } => Err(InstrumentError::Component),
        _ => Ok(()),
    }
}

/// The manifest of bytes that may not be valid, and where they say how large the frames memory is.
fn read_manifest(bytes: &[u8]) -> Result<(Manifest, usize), InstrumentError> {
    let mut parts = Parts::default();
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload?;
        refuse_component(&payload)?;
        check_claim(&payload)?;
        parts.read(payload)?;
    }
    let frames_at = parts.frames_at(bytes);
    let manifest = parts.manifest()?;
    let frames_at = frames_at.ok_or(InstrumentError::NotRewritten(
        "its frames memory has the wrong size",
    ))?;
    Ok((manifest, frames_at))
}

/// Refuses a section that claims more entries than it has bytes. The validator reserves memory for as
/// many as are claimed, which can be a million of each kind.
pub(crate) fn check_claim(payload: &Payload<'_>) -> Result<(), InstrumentError> {
    let (count, range) = match payload {
        Payload::TypeSection(section) => (section.count(), section.range()),
        Payload::ImportSection(section) => (section.count(), section.range()),
        Payload::FunctionSection(section) => (section.count(), section.range()),
        Payload::TagSection(section) => (section.count(), section.range()),
        Payload::GlobalSection(section) => (section.count(), section.range()),
        Payload::ExportSection(section) => (section.count(), section.range()),
        Payload::ElementSection(section) => (section.count(), section.range()),
        // At most a hundred, or not reserved for.
        _ => return Ok(()),
    };
    if count as usize > range.len() {
        return Err(InstrumentError::Invalid {
            message: String::from("a section claims more entries than it has bytes"),
            offset: range.start,
        });
    }
    Ok(())
}

impl Parts {
    fn read(&mut self, payload: Payload<'_>) -> Result<(), InstrumentError> {
        match payload {
            Payload::TypeSection(section) => {
                for ty in section.into_iter_err_on_gc_types() {
                    self.types.push(ty?);
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    let TypeRef::Func(ty) = import.ty else {
                        return Err(InstrumentError::NotRewritten(
                            "it imports more than functions",
                        ));
                    };
                    self.functions.push(ty);
                    self.imports
                        .push((import.module.into(), import.name.into()));
                }
            }
            Payload::FunctionSection(section) => {
                for ty in section {
                    self.functions.push(ty?);
                }
            }
            Payload::MemorySection(section) => {
                for memory in section.into_iter_with_offsets() {
                    let (at, memory) = memory?;
                    self.memories.push(memory);
                    self.memories_at.push(at);
                }
            }
            Payload::GlobalSection(section) => {
                for global in section {
                    self.globals.push(global?.ty);
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export?;
                    self.exports
                        .insert(export.name.into(), (export.kind, export.index));
                }
            }
            Payload::StartSection { .. } => {
                return Err(InstrumentError::NotRewritten("it has a start function"));
            }
            Payload::CustomSection(section) if section.name() == abi::SECTION => {
                let version = <[u8; 4]>::try_from(section.data())
                    .map_err(|_| InstrumentError::NotRewritten("its version is malformed"))?;
                if self.version.replace(u32::from_le_bytes(version)).is_some() {
                    return Err(InstrumentError::NotRewritten("it has two versions"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Where the bytes say how many pages the frames memory has at least, which is a byte, as at most is behind it.
    fn frames_at(&self, bytes: &[u8]) -> Option<usize> {
        let frames = self.export(abi::FRAMES, ExternalKind::Memory)?;
        // The first byte says that there is a largest size.
        let at = self.memories_at.get(frames as usize)? + 1;
        let pages = abi::FRAMES_PAGES as u8;
        (bytes.get(at..at + 2)? == [pages, pages]).then_some(at)
    }

    fn export(&self, name: &str, kind: ExternalKind) -> Option<u32> {
        self.exports
            .get(name)
            .filter(|export| export.0 == kind)
            .map(|export| export.1)
    }

    fn manifest(self) -> Result<Manifest, InstrumentError> {
        let not = InstrumentError::NotRewritten;
        let expected = abi::VERSION;
        match self.version {
            None => return Err(not("it has no section mielin.safepoint")),
            Some(found) if found != expected => {
                return Err(InstrumentError::Version { found, expected });
            }
            Some(_) => {}
        }
        let entry = self
            .export(abi::ENTRY, ExternalKind::Func)
            .ok_or(not("it exports no entry"))?;
        let ty = self.functions.get(entry as usize);
        let ty = ty.and_then(|ty| self.types.get(*ty as usize));
        let ty = ty.ok_or(not("its entry has no type"))?;
        if !ty.params().is_empty() || !ty.results().is_empty() {
            return Err(not("its entry has parameters or results"));
        }
        let frames = self
            .export(abi::FRAMES, ExternalKind::Memory)
            .ok_or(not("it has no frames"))?;
        let not_there = not("it exports a memory or a global that it has not");
        let frames_type = self
            .memories
            .get(frames as usize)
            .ok_or(not_there.clone())?;
        if frames_type.initial != abi::FRAMES_PAGES
            || frames_type.maximum != Some(abi::FRAMES_PAGES)
        {
            return Err(not("its frames memory has the wrong size"));
        }
        let mode = self
            .export(abi::MODE, ExternalKind::Global)
            .ok_or(not("it exports no mode"))?;
        let mode_type = self.globals.get(mode as usize).ok_or(not_there.clone())?;
        if mode_type.content_type != ValType::I32 || !mode_type.mutable {
            return Err(not("its mode is not a mutable i32"));
        }
        let (export, memory) = [abi::MEMORY, abi::HIDDEN_MEMORY]
            .into_iter()
            .find_map(|name| Some((name, self.export(name, ExternalKind::Memory)?)))
            .ok_or(not("it exports no memory"))?;
        self.check_memories(memory, frames)?;
        let memory = self.memories.get(memory as usize).ok_or(not_there)?;
        let memory = MemoryInfo {
            export: export.into(),
            minimum_pages: memory.initial,
            maximum_pages: memory.maximum,
        };
        let globals = self.globals(mode)?;
        Ok(Manifest {
            memory,
            globals,
            imports: self.imports,
        })
    }

    /// Beside the program's and the frames there may be memories for tables that change: of a small
    /// and fixed size, and out of reach.
    fn check_memories(&self, memory: u32, frames: u32) -> Result<(), InstrumentError> {
        let not = InstrumentError::NotRewritten;
        if (memory, frames) != (0, 1) || self.memories.len() > 2 + TABLES_MAX {
            return Err(not("it has other memories than its own and the frames"));
        }
        let exports = self.exports.values();
        let mut memories = exports.filter(|export| export.0 == ExternalKind::Memory);
        let fixed = |memory: &MemoryType| {
            memory.maximum == Some(memory.initial) && memory.initial <= ARRAY_PAGES_MAX
        };
        if memories.any(|export| export.1 > frames) || !self.memories.iter().skip(2).all(fixed) {
            return Err(not("its memory for a table is exported or can grow"));
        }
        Ok(())
    }

    /// Every mutable global but the mode must be exported, or a snapshot would miss it.
    fn globals(&self, mode: u32) -> Result<Vec<GlobalInfo>, InstrumentError> {
        let mut globals = Vec::new();
        for (index, ty) in self.globals.iter().enumerate() {
            if !ty.mutable || index == mode as usize {
                continue;
            }
            let export = format!("{}{index}", abi::GLOBAL_PREFIX);
            if self.export(&export, ExternalKind::Global) != Some(index as u32) {
                return Err(InstrumentError::NotRewritten(
                    "a mutable global is not exported",
                ));
            }
            let value_type = match ty.content_type {
                ValType::I32 => ValueType::I32,
                ValType::I64 => ValueType::I64,
                ValType::F32 => ValueType::F32,
                ValType::F64 => ValueType::F64,
                ValType::V128 => ValueType::V128,
                ValType::Ref(_) => {
                    return Err(InstrumentError::NotRewritten(
                        "a mutable global holds a reference",
                    ));
                }
            };
            globals.push(GlobalInfo { export, value_type });
        }
        Ok(globals)
    }
}
