//! Replaces relaxed vector instructions, whose results a machine may choose among, by others that choose.
//!
//! The choice is one that the specification allows (its scripts of the proposal accept it): where there are a strict and
//! a faster meaning, the strict one; products are rounded before they are added; bits select lanes one by one; a dot
//! product takes both sides as signed, and saturates. So a program computes the same on every machine and engine, and no
//! engine needs the proposal.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use wasm_encoder::{CodeSection, Encode, Instruction, Module, RawSection, ValType};
use wasmparser::{FunctionBody, Operator, Parser, Payload, TypeRef};

use super::program::proposal;
use super::sink::LOCALS_MAX;
use crate::{Feature, InstrumentError};

/// Vectors that a replacement puts aside, in locals that a function gets for it.
const LOCALS: u32 = 3;

/// The module without relaxed instructions: itself, if it has none.
///
/// A module that is not valid comes back as it is, or as one that is not valid either: each replacement takes and gives
/// the types of the instruction in whose place it stands.
pub(super) fn pin(wasm: &[u8]) -> Result<Cow<'_, [u8]>, InstrumentError> {
    match module_is_relaxed(wasm) {
        Ok(true) => Ok(Cow::Owned(pinned(wasm)?)),
        // What cannot be read is told by the validator.
        Ok(false) | Err(_) => Ok(Cow::Borrowed(wasm)),
    }
}

fn module_is_relaxed(wasm: &[u8]) -> wasmparser::Result<bool> {
    for payload in Parser::new(0).parse_all(wasm) {
        if let Payload::CodeSectionEntry(body) = payload?
            && body_is_relaxed(&body)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_relaxed(operator: &Operator<'_>) -> bool {
    proposal(operator) == "relaxed_simd"
}

fn body_is_relaxed(body: &FunctionBody<'_>) -> wasmparser::Result<bool> {
    let mut operators = body.get_operators_reader()?;
    while !operators.eof() {
        if is_relaxed(&operators.read()?) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn pinned(wasm: &[u8]) -> Result<Vec<u8>, InstrumentError> {
    let mut module = Module::new();
    let mut parameters = Vec::new();
    let mut types = Vec::new();
    let mut imported = 0;
    let mut code = CodeSection::new();
    let mut left = 0;
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload?;
        match &payload {
            Payload::TypeSection(section) => {
                for ty in section.clone().into_iter_err_on_gc_types() {
                    parameters.push(ty?.params().len() as u32);
                }
            }
            Payload::ImportSection(section) => {
                let imports = section.clone().into_imports();
                let functions = imports.filter(
                    |import| matches!(import, Ok(import) if matches!(import.ty, TypeRef::Func(_))),
                );
                imported = functions.count();
            }
            Payload::FunctionSection(section) => {
                types = section.clone().into_iter().collect::<Result<_, _>>()?;
            }
            Payload::CodeSectionStart { count, .. } => left = *count,
            Payload::CodeSectionEntry(body) => {
                let defined = code.len() as usize;
                let ty = types
                    .get(defined)
                    .and_then(|&ty: &u32| parameters.get(ty as usize));
                let index = imported + defined;
                code.raw(&pinned_body(body, ty.copied().unwrap_or(0), index as u32)?);
                left -= 1;
            }
            _ => {}
        }
        if matches!(payload, Payload::CodeSectionEntry(_)) {
            if left == 0 {
                module.section(&code);
            }
        } else if let Some((id, range)) = payload.as_section()
            && !matches!(payload, Payload::CodeSectionStart { .. })
            && !is_about_code(&payload)
        {
            let data = &wasm[range];
            module.section(&RawSection { id, data });
        }
    }
    Ok(module.finish())
}

/// Sections that name places in the code, which move. They are advice, and may be left out.
fn is_about_code(payload: &Payload<'_>) -> bool {
    matches!(payload, Payload::CustomSection(section) if section.name().starts_with("metadata.code."))
}

fn pinned_body(
    body: &FunctionBody<'_>,
    parameters: u32,
    function: u32,
) -> Result<Vec<u8>, InstrumentError> {
    if !body_is_relaxed(body)? {
        return Ok(body.as_bytes().to_vec());
    }
    let mut bytes = Vec::new();
    let mut locals = body.get_locals_reader()?;
    let mut first = parameters;
    let groups = locals.get_count();
    let begin = locals.original_position();
    for _ in 0..groups {
        let (count, _) = locals.read()?;
        first = first.saturating_add(count);
    }
    if first > LOCALS_MAX - LOCALS {
        return Err(InstrumentError::TooLarge {
            function: Some(crate::FunctionName {
                index: function,
                name: None,
            }),
            what: "locals",
            limit: LOCALS_MAX.into(),
        });
    }
    let start = body.range().start;
    let raw = |from: usize, to: usize| &body.as_bytes()[from - start..to - start];
    (groups + 1).encode(&mut bytes);
    bytes.extend_from_slice(raw(begin, locals.original_position()));
    LOCALS.encode(&mut bytes);
    ValType::V128.encode(&mut bytes);
    let mut operators = body.get_operators_reader()?;
    while !operators.eof() {
        let at = operators.original_position();
        let operator = operators.read()?;
        if is_relaxed(&operator) {
            for instruction in replacement(&operator, first)? {
                instruction.encode(&mut bytes);
            }
        } else {
            bytes.extend_from_slice(raw(at, operators.original_position()));
        }
    }
    Ok(bytes)
}

/// What stands in the place of a relaxed instruction. Vectors are put aside from local `first` on.
fn replacement(
    operator: &Operator<'_>,
    first: u32,
) -> Result<Vec<Instruction<'static>>, InstrumentError> {
    use Instruction::*;

    let (x, y, z) = (first, first + 1, first + 2);
    // Both operands are signed bytes; sums of two products, which may not fit, saturate.
    let dot = [
        LocalSet(y),
        LocalSet(x),
        LocalGet(x),
        LocalGet(y),
        I16x8ExtMulLowI8x16S,
        I32x4ExtAddPairwiseI16x8S,
        LocalGet(x),
        LocalGet(y),
        I16x8ExtMulHighI8x16S,
        I32x4ExtAddPairwiseI16x8S,
        I16x8NarrowI32x4S,
    ];
    Ok(match operator {
        Operator::I8x16RelaxedSwizzle => [I8x16Swizzle].into(),
        Operator::I32x4RelaxedTruncF32x4S => [I32x4TruncSatF32x4S].into(),
        Operator::I32x4RelaxedTruncF32x4U => [I32x4TruncSatF32x4U].into(),
        Operator::I32x4RelaxedTruncF64x2SZero => [I32x4TruncSatF64x2SZero].into(),
        Operator::I32x4RelaxedTruncF64x2UZero => [I32x4TruncSatF64x2UZero].into(),
        Operator::F32x4RelaxedMadd => [LocalSet(z), F32x4Mul, LocalGet(z), F32x4Add].into(),
        Operator::F32x4RelaxedNmadd => {
            [LocalSet(z), F32x4Mul, F32x4Neg, LocalGet(z), F32x4Add].into()
        }
        Operator::F64x2RelaxedMadd => [LocalSet(z), F64x2Mul, LocalGet(z), F64x2Add].into(),
        Operator::F64x2RelaxedNmadd => {
            [LocalSet(z), F64x2Mul, F64x2Neg, LocalGet(z), F64x2Add].into()
        }
        Operator::I8x16RelaxedLaneselect
        | Operator::I16x8RelaxedLaneselect
        | Operator::I32x4RelaxedLaneselect
        | Operator::I64x2RelaxedLaneselect => [V128Bitselect].into(),
        Operator::F32x4RelaxedMin => [F32x4Min].into(),
        Operator::F32x4RelaxedMax => [F32x4Max].into(),
        Operator::F64x2RelaxedMin => [F64x2Min].into(),
        Operator::F64x2RelaxedMax => [F64x2Max].into(),
        Operator::I16x8RelaxedQ15mulrS => [I16x8Q15MulrSatS].into(),
        Operator::I16x8RelaxedDotI8x16I7x16S => dot.into(),
        Operator::I32x4RelaxedDotI8x16I7x16AddS => {
            let mut instructions = Vec::from([LocalSet(z)]);
            instructions.extend(dot);
            instructions.extend([I32x4ExtAddPairwiseI16x8S, LocalGet(z), I32x4Add]);
            instructions
        }
        // One that was added to the proposal since.
        other => {
            return Err(InstrumentError::Unsupported {
                function: None,
                feature: Feature::Proposal(proposal(other)),
            });
        }
    })
}
