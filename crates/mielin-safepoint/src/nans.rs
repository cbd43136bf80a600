//! Makes the NaNs that a module computes canonical, where it could tell them apart.
//!
//! Sign and payload of a NaN that an instruction computes are the machine's choice (WebAssembly Core Specification 2.0,
//! section 4.3.3, "NaN propagation"), and x86-64 and Arm choose differently. Cranelift can replace each such NaN at once
//! (`cranelift_nan_canonicalization`), which takes a comparison and a choice after each instruction: products of
//! matrices then reach a fifth of the native speed (docs/TENSOR.md). But arithmetic, comparisons and conversions do the same with any NaN. So a result is
//! left as it is while nothing else looks at it, and made canonical where it is stored, passed on, returned, reinterpreted
//! as an integer, or put where other values come together. What a program can see is the same bits that it
//! would see if each result were made canonical. What it has loaded keeps its bits.
//!
//! Where that is, [`flow`] finds out. What was restored from a frame was canonical when it was written there, and may
//! take its place among values that may be any NaN.

mod flow;

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use wasm_encoder::{CodeSection, Encode, Ieee32, Ieee64, InstructionSink, Module, RawSection};
use wasmparser::{
    CompositeInnerType, ExternalKind, FuncType, FunctionBody, KnownCustom, Parser, Payload,
    SubType, TypeRef, ValType,
};

use crate::rewrite::{CODE_BYTES_MAX, LOCALS_MAX};
use crate::{FunctionName, InstrumentError, abi};
use flow::Lanes;

/// Steps that may go into following the locals of all functions together.
const STEPS_MAX: u64 = 1 << 25;

/// The module with canonical NaNs: itself, if it computes none that it could look at. For engines that do not make them
/// canonical themselves. The module may be rewritten by [`instrument`](crate::instrument), or not: of one that says it is, what
/// comes out of the memory of its frames is believed to have been canonical when it was written there. Deterministic.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let wasm = wat::parse_str(
///     "(module (memory 1) (func (param f32) (f32.store (i32.const 0) (f32.sqrt (local.get 0)))))",
/// )?;
/// assert_ne!(mielin_safepoint::canonical_nans(&wasm)?, wasm);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`InstrumentError::Invalid`] for some modules that are not valid (others become modules that are not), and for branches and blocks that neither
/// [`instrument`](crate::instrument) nor the engines here accept. [`InstrumentError::TooLarge`] if a function with all that is put into it has more locals or more bytes
/// than engines accept.
pub fn canonical_nans(wasm: &[u8]) -> Result<Cow<'_, [u8]>, InstrumentError> {
    let signatures = Signatures::of(wasm)?;
    let mut bodies = BTreeMap::new();
    let mut index = signatures.imported;
    let mut steps = STEPS_MAX;
    for payload in Parser::new(0).parse_all(wasm) {
        if let Payload::CodeSectionEntry(body) = payload? {
            if let Some(written) = Written::of(&signatures, index, &body, &mut steps)? {
                bodies.insert(index, written);
            }
            index = index.saturating_add(1);
        }
    }
    if bodies.is_empty() {
        return Ok(Cow::Borrowed(wasm));
    }
    Ok(Cow::Owned(assemble(wasm, &signatures, &bodies)?))
}

/// What a function has to know of its module.
#[derive(Default)]
struct Signatures {
    types: Vec<SubType>,
    /// The type of each function.
    functions: Vec<u32>,
    imported: u32,
    /// From this one on functions are the rewriter's own, if the module says that it was rewritten. Values that they give come out of frames.
    added: Option<u32>,
}

impl Signatures {
    fn of(wasm: &[u8]) -> Result<Signatures, InstrumentError> {
        let mut signatures = Signatures::default();
        let (mut entry, mut is_rewritten) = (None, false);
        for payload in Parser::new(0).parse_all(wasm) {
            match payload? {
                Payload::TypeSection(section) => {
                    for group in section {
                        signatures.types.extend(group?.into_types());
                    }
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        if let TypeRef::Func(ty) = import?.ty {
                            signatures.functions.push(ty);
                        }
                    }
                    signatures.imported = signatures.functions.len() as u32;
                }
                Payload::FunctionSection(section) => {
                    for ty in section {
                        signatures.functions.push(ty?);
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export?;
                        if export.name == abi::ENTRY && export.kind == ExternalKind::Func {
                            entry = Some(export.index);
                        }
                    }
                }
                Payload::CustomSection(section) => is_rewritten |= section.name() == abi::SECTION,
                _ => {}
            }
        }
        signatures.added = entry
            .filter(|_| is_rewritten)
            .and_then(|entry| entry.checked_add(1));
        Ok(signatures)
    }

    /// The type of a function, if there is such a function, and its type is that of functions.
    fn function(&self, index: u32) -> Option<&FuncType> {
        let ty = *self.functions.get(index as usize)?;
        match &self.types.get(ty as usize)?.composite_type.inner {
            CompositeInnerType::Func(ty) => Some(ty),
            _ => None,
        }
    }
}

/// A function's new body.
struct Written {
    bytes: Vec<u8>,
    /// Where bytes were put in, as offsets in the old body, and by how many what follows has moved. That may be backwards: the number of locals may have been
    /// written in more bytes than it takes.
    moved: Vec<(usize, isize)>,
}

impl Written {
    /// `None` if the function may stay as it is.
    fn of(
        signatures: &Signatures,
        index: u32,
        body: &FunctionBody<'_>,
        steps: &mut u64,
    ) -> Result<Option<Written>, InstrumentError> {
        let unknown = || InstrumentError::Invalid {
            message: "a function has no type".into(),
            offset: body.range().start,
        };
        let ty = signatures.function(index).ok_or_else(unknown)?;
        let params = ty.params().iter().map(|ty| (1, *ty));
        let mut locals: Vec<(u32, ValType)> = params.collect();
        let mut count = locals.len() as u32;
        let mut reader = body.get_locals_reader()?;
        let (groups, begin) = (reader.get_count(), reader.original_position());
        for _ in 0..groups {
            let (more, ty) = reader.read()?;
            count = count.saturating_add(more);
            locals.push((more, ty));
        }
        if count > LOCALS_MAX {
            return Err(too_large(index, "locals", LOCALS_MAX.into()));
        }
        let end = reader.original_position();
        let open = flow::analyse(signatures, index, body, &locals, steps)?;
        if open.is_empty() {
            return Ok(None);
        }
        let start = body.range().start;
        let raw = |from: usize, to: usize| &body.as_bytes()[from - start..to - start];
        // A local for each kind of value that is made canonical.
        let mut scratch: Vec<ValType> = open.values().map(|lanes| lanes.value_type()).collect();
        scratch.sort_unstable_by_key(|ty| encoded(*ty));
        scratch.dedup();
        if count + scratch.len() as u32 > LOCALS_MAX {
            return Err(too_large(index, "locals", LOCALS_MAX.into()));
        }
        let mut bytes = Vec::with_capacity(body.as_bytes().len() + 32 * open.len());
        (groups + scratch.len() as u32).encode(&mut bytes);
        bytes.extend_from_slice(raw(begin, end));
        for ty in &scratch {
            1u32.encode(&mut bytes);
            bytes.push(encoded(*ty));
        }
        let local = |lanes: Lanes| {
            let at = scratch.iter().position(|ty| *ty == lanes.value_type());
            count + at.unwrap_or_default() as u32
        };
        let mut copied = end;
        let by = |new: usize, old: usize| new.cast_signed() - old.cast_signed();
        let mut moved = alloc::vec![(end - start, by(bytes.len(), end - start))];
        for (&at, &lanes) in &open {
            bytes.extend_from_slice(raw(copied, at));
            copied = at;
            make_canonical(&mut InstructionSink::new(&mut bytes), lanes, local(lanes));
            moved.push((at - start, by(bytes.len(), at - start)));
        }
        bytes.extend_from_slice(raw(copied, body.range().end));
        if bytes.len() > CODE_BYTES_MAX {
            return Err(too_large(index, "bytes", CODE_BYTES_MAX as u64));
        }
        Ok(Some(Written { bytes, moved }))
    }

    /// Where an instruction of the old body is.
    fn place(&self, old: u32) -> u32 {
        let before = self.moved.partition_point(|(at, _)| *at <= old as usize);
        let by = before
            .checked_sub(1)
            .and_then(|last| self.moved.get(last))
            .map_or(0, |(_, by)| *by);
        old.saturating_add_signed(by as i32)
    }
}

fn too_large(index: u32, what: &'static str, limit: u64) -> InstrumentError {
    InstrumentError::TooLarge {
        function: Some(FunctionName { index, name: None }),
        what,
        limit,
    }
}

fn encoded(ty: ValType) -> u8 {
    match ty {
        ValType::F32 => 0x7d,
        ValType::F64 => 0x7c,
        // No other value has NaNs.
        _ => 0x7b,
    }
}

/// Replaces the uppermost value, or lanes of it, by the canonical NaN if it is one. `local` is free.
fn make_canonical(out: &mut InstructionSink<'_>, lanes: Lanes, local: u32) {
    const NAN32: u32 = 0x7fc0_0000;
    const NAN64: u64 = 0x7ff8_0000_0000_0000;
    out.local_tee(local);
    match lanes {
        Lanes::F32 => out.f32_const(Ieee32::new(NAN32)),
        Lanes::F64 => out.f64_const(Ieee64::new(NAN64)),
        Lanes::F32x4 => out.v128_const(i128::from(NAN32) * 0x1_0000_0001_0000_0001_0000_0001),
        Lanes::F64x2 => out.v128_const(i128::from(NAN64) * 0x1_0000_0000_0000_0001),
    };
    out.local_get(local).local_get(local);
    match lanes {
        Lanes::F32 => out.f32_eq().select(),
        Lanes::F64 => out.f64_eq().select(),
        Lanes::F32x4 => out.f32x4_eq().v128_bitselect(),
        Lanes::F64x2 => out.f64x2_eq().v128_bitselect(),
    };
}

/// The module with these bodies in the places of its own.
fn assemble(
    wasm: &[u8],
    signatures: &Signatures,
    bodies: &BTreeMap<u32, Written>,
) -> Result<Vec<u8>, InstrumentError> {
    let mut module = Module::new();
    let mut code = CodeSection::new();
    let mut left = 0;
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload?;
        match &payload {
            Payload::CodeSectionStart { count, .. } => left = *count,
            Payload::CodeSectionEntry(body) => {
                let index = signatures.imported + code.len();
                match bodies.get(&index) {
                    Some(written) => code.raw(&written.bytes),
                    None => code.raw(body.as_bytes()),
                };
                left -= 1;
                if left == 0 {
                    module.section(&code);
                }
            }
            Payload::CustomSection(section) if section.name().starts_with("metadata.code.") => {
                // Other metadata of code name places in it that have moved, and these may be malformed: they are advice, and left out.
                if let KnownCustom::BranchHints(hints) = section.as_known()
                    && let Ok(moved) = moved_hints(hints, bodies)
                {
                    module.section(&moved);
                }
            }
            payload => {
                if let Some((id, range)) = payload.as_section() {
                    module.section(&RawSection {
                        id,
                        data: &wasm[range],
                    });
                }
            }
        }
    }
    Ok(module.finish())
}

fn moved_hints(
    hints: wasmparser::BranchHintSectionReader<'_>,
    bodies: &BTreeMap<u32, Written>,
) -> Result<wasm_encoder::BranchHints, wasmparser::BinaryReaderError> {
    let mut moved = wasm_encoder::BranchHints::new();
    for function in hints {
        let function = function?;
        let written = bodies.get(&function.func);
        let mut all = Vec::new();
        for hint in function.hints {
            let hint = hint?;
            let offset = hint.func_offset;
            all.push(wasm_encoder::BranchHint {
                branch_func_offset: written.map_or(offset, |written| written.place(offset)),
                branch_hint_value: u32::from(hint.taken),
            });
        }
        moved.function_hints(function.func, all);
    }
    Ok(moved)
}
