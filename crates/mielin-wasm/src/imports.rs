//! Checks a module before an engine sees it: every import must be provided, with the right type, and
//! the memories of a rewritten module must be plain ones. (How many it may have beside the program's
//! and the frames, and how large, was checked when it became a [`Resumable`].)

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use mielin_safepoint::{Resumable, abi};
use wasmparser::{
    CompositeInnerType, ExternalKind, FuncType, MemoryType, Parser, Payload, TypeRef, ValType,
};

use crate::EngineError;
use crate::host::table::{HOST_FUNCTIONS, HostFunction, Number};
use crate::limits::MODULE_BYTES_MAX;

/// The most tables; compilers make one.
const TABLES_MAX: u32 = 16;

/// Refuses a rewritten module that cannot be linked, naming the import or the reason.
pub(crate) fn check(module: &Resumable) -> Result<(), EngineError> {
    Seen::of(module.bytes())?.check_memories(module.frames_pages())
}

/// The same for a plain module, whose memories are its own affair.
pub(crate) fn check_plain(wasm: &[u8]) -> Result<(), EngineError> {
    Seen::of(wasm).map(drop)
}

pub(crate) fn unreadable(error: wasmparser::Error) -> EngineError {
    EngineError::Shape {
        reason: error.to_string(),
    }
}

#[derive(Default)]
struct Seen {
    /// By type index; none for types that are not functions.
    types: Vec<Option<FuncType>>,
    memories: Vec<MemoryType>,
    frames: Option<u32>,
}

impl Seen {
    fn of(wasm: &[u8]) -> Result<Self, EngineError> {
        let (limit, found) = (MODULE_BYTES_MAX as u64, wasm.len() as u64);
        if found > limit {
            return Err(EngineError::OverLimit {
                what: "the module",
                limit,
                found,
            });
        }
        let mut seen = Self::default();
        for payload in Parser::new(0).parse_all(wasm) {
            seen.note(payload.map_err(unreadable)?)?;
        }
        Ok(seen)
    }

    fn note(&mut self, payload: Payload<'_>) -> Result<(), EngineError> {
        match payload {
            Payload::TypeSection(section) => {
                for group in section {
                    for ty in group.map_err(unreadable)?.into_types() {
                        self.types.push(match ty.composite_type.inner {
                            CompositeInnerType::Func(ty) => Some(ty),
                            _ => None,
                        });
                    }
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.map_err(unreadable)?;
                    let TypeRef::Func(index) = import.ty else {
                        return Err(unknown(import.module, import.name));
                    };
                    let ty = self.types.get(index as usize).and_then(Option::as_ref);
                    let ty = ty.ok_or_else(|| shape("an import of a type that is not there"))?;
                    check_import(import.module, import.name, ty)?;
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    self.memories.push(memory.map_err(unreadable)?);
                }
            }
            Payload::TableSection(section) if section.count() > TABLES_MAX => {
                return Err(shape("it has too many tables"));
            }
            // It would run before the host functions have the memory and before anything can stop
            // it; the rewriter makes the entry call it.
            Payload::StartSection { .. } => return Err(shape("it has a start function")),
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.map_err(unreadable)?;
                    if export.name == abi::FRAMES && export.kind == ExternalKind::Memory {
                        self.frames = Some(export.index);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn check_memories(&self, frames_pages: u64) -> Result<(), EngineError> {
        let frames = self
            .frames
            .and_then(|index| self.memories.get(index as usize));
        let frames = frames.ok_or_else(|| shape("it exports no frames memory"))?;
        let fixed = Some(frames_pages) == frames.maximum && frames_pages == frames.initial;
        if !fixed {
            return Err(shape("its frames memory is not of the fixed size"));
        }
        let plain = |memory: &MemoryType| {
            !memory.memory64 && !memory.shared && memory.page_size_log2.is_none()
        };
        if self.memories.iter().all(plain) {
            Ok(())
        } else {
            Err(shape("a memory is shared, 64-bit or of another page size"))
        }
    }
}

fn shape(reason: &str) -> EngineError {
    EngineError::Shape {
        reason: reason.into(),
    }
}

fn unknown(module: &str, name: &str) -> EngineError {
    EngineError::UnknownImport {
        module: module.into(),
        name: name.into(),
    }
}

fn check_import(module: &str, name: &str, found: &FuncType) -> Result<(), EngineError> {
    let provided = HOST_FUNCTIONS
        .iter()
        .find(|function| function.module == module && function.name == name)
        .ok_or_else(|| unknown(module, name))?;
    if same(provided.parameters, found.params()) && same(provided.results, found.results()) {
        return Ok(());
    }
    Err(EngineError::ImportType {
        module: module.into(),
        name: name.into(),
        expected: provided.signature(),
        found: signature(found.params(), found.results()),
    })
}

fn same(provided: &[Number], found: &[ValType]) -> bool {
    provided
        .iter()
        .copied()
        .map(Number::value_type)
        .eq(found.iter().copied())
}

impl Number {
    fn value_type(self) -> ValType {
        match self {
            Self::I32 => ValType::I32,
            Self::I64 => ValType::I64,
        }
    }
}

impl HostFunction {
    fn signature(&self) -> String {
        let types = |numbers: &[Number]| -> Vec<ValType> {
            numbers.iter().copied().map(Number::value_type).collect()
        };
        signature(&types(self.parameters), &types(self.results))
    }
}

fn signature(parameters: &[ValType], results: &[ValType]) -> String {
    let list = |types: &[ValType]| {
        types
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    format!("({}) -> ({})", list(parameters), list(results))
}
