//! The rewriter: parse, find out what can suspend, write every function again, assemble.

mod assemble;
mod culprit;
mod function;
mod graph;
mod liveness;
mod pinned;
mod plan;
mod program;
mod references;
mod routines;
mod sink;
mod table_code;
mod tail;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;
use core::cell::Cell;

use wasmparser::{BinaryReader, FuncToValidate, FunctionBody};

use self::assemble::{Code, Layout};
use self::function::{BlockTypes, Context};
use self::graph::{CallGraph, Suspension};
use self::program::{Body, Outline, Program, Sites};
pub(crate) use self::references::{ARRAY_PAGES_MAX, TABLES_MAX};
use self::routines::Routines;
use self::sink::Written;
pub(crate) use self::sink::{CODE_BYTES_MAX, FRAMES_MEMORY, LOCALS_MAX};
use self::tail::TailCalls;
use crate::{InstrumentError, Resumable};

/// Makes a module resumable. Deterministic: the same input gives the same bytes everywhere.
///
/// The program must be a command: a core module that exports a function `_start`. What it may
/// not use is listed in [`Feature`](crate::Feature).
///
/// # Errors
/// Every [`InstrumentError`] but [`InstrumentError::NotRewritten`] and
/// [`InstrumentError::Version`].
pub fn instrument(wasm: &[u8]) -> Result<Resumable, InstrumentError> {
    rewrite(wasm, WORK_MAX)
}

fn rewrite(wasm: &[u8], work_max: u64) -> Result<Resumable, InstrumentError> {
    let original = wasm;
    let wasm = &*pinned::pin(wasm)?;
    let parsed = Program::parse(wasm);
    let mut program = parsed.map_err(|error| culprit::name(wasm, error))?;
    let outlines = program.outlines()?;
    let layout = Layout::of(&program, &outlines)?;
    let suspension = suspension(&program, &outlines, &layout);
    let tails = TailCalls::of(&program, &outlines, &layout, &suspension);
    let mut types = BlockTypes::new(program.types.len() as u32);
    let mut routines = Routines::new(layout.first_resuming() + tails.len());
    let context = Context {
        program: &program,
        suspension: &suspension,
        wrappers: &layout.wrappers,
        mode: layout.mode,
        drops: &layout.drops,
        references: &layout.references,
        tails: &tails,
        work: Cell::new(0),
        work_max,
    };
    let copies = layout.wrappers.is_empty()
        && layout.drops.is_empty()
        && !program.uses.any
        && layout.references.arrays.is_none();
    let mut code = Code::default();
    let mut total = 0;
    for (body, outline) in program.bodies.iter().zip(&outlines) {
        let index = body.validation.index;
        let untouched = copies && !outline.selects;
        let written = if untouched && !suspension.may_suspend[index as usize] {
            Written {
                bytes: body.code.as_bytes().to_vec(),
                hints: Vec::new(),
            }
        } else {
            function::rewrite(&context, &mut types, &mut routines, body)?
        };
        total += written.bytes.len();
        if total > MODULE_BYTES_MAX {
            let limit = MODULE_BYTES_MAX as u64;
            return Err(InstrumentError::TooLarge {
                function: None,
                what: "bytes",
                limit,
            });
        }
        code.push(index, &written);
    }
    let mut calls: Vec<(u32, u32, Vec<u32>)> = layout
        .wrappers
        .iter()
        .map(|(&import, &wrapper)| (wrapper, program.type_index(import), alloc::vec![import]))
        .collect();
    let main_calls = program.start.into_iter().chain([program.entry]).collect();
    calls.push((layout.main, program.type_index(program.entry), main_calls));
    for (index, ty, calls) in calls {
        let params = program.types[ty as usize].params().len() as u32;
        let bytes = function::calling_body(params, &calls);
        let first = &program.bodies[0].validation;
        let validation = FuncToValidate {
            resources: first.resources.clone(),
            index,
            ty,
            features: first.features,
        };
        let body = Body {
            validation,
            code: FunctionBody::new(BinaryReader::new(&bytes, 0)),
        };
        code.push(
            index,
            &function::rewrite(&context, &mut types, &mut routines, &body)?,
        );
    }
    code.push(layout.run, &assemble::run_function(&layout));
    let arrays = layout.references.arrays.iter();
    let helpers = arrays.flat_map(|arrays| table_code::helpers(arrays, &layout.drops, &mut types));
    let helpers: Vec<_> = helpers.collect();
    let resuming = tails.resuming(&program, &layout, &mut types);
    let routines = routines.write(layout.mode, &mut types);
    let added = helpers.iter().chain(&resuming).chain(&routines);
    for (index, added) in (layout.run + 1..).zip(added) {
        code.add(index, added);
    }
    let bytes = assemble::module(&program, &layout, &tails, &types.added, &code)?;
    let resumable = Resumable::from_rewritten(bytes).map_err(|error| match error {
        InstrumentError::Invalid { message, offset } => {
            InstrumentError::Internal(format!("{message} (at offset {offset:#x})"))
        }
        other => InstrumentError::Internal(format!("{other}")),
    })?;
    Ok(resumable.with_original(original))
}

/// Word operations that the analysis of all functions may cost, which is some seconds. One function may cost a
/// sixteenth of that.
const WORK_MAX: u64 = 1 << 33;
/// Most code that a rewritten module may have.
const MODULE_BYTES_MAX: usize = 1 << 28;

/// A call that the rewriter adds.
const ONE_CALL: Sites = Sites {
    count: 1,
    in_loops: false,
};

fn suspension(program: &Program<'_>, outlines: &[Outline], layout: &Layout) -> Suspension {
    let mut graph = CallGraph::new(layout.run as usize, graph::canonical_types(&program.types));
    for import in 0..program.imports.len() as u32 {
        graph.suspends(import);
    }
    for (body, outline) in program.bodies.iter().zip(outlines) {
        let index = body.validation.index;
        for (&callee, &sites) in &outline.calls {
            graph.call(index, callee, sites);
            if outline.tail_calls.contains(&callee) {
                graph.call(index, layout.function(callee), sites);
            }
        }
        for (&ty, &sites) in &outline.indirect {
            graph.call_indirect(index, ty, sites);
        }
        if outline.has_loop {
            graph.suspends(index);
        }
    }
    for (&import, &wrapper) in &layout.wrappers {
        graph.call(wrapper, import, ONE_CALL);
    }
    for &function in &program.address_taken {
        let target = layout.wrappers.get(&function).copied().unwrap_or(function);
        graph.address_taken(target, program.type_index(function));
    }
    for callee in program.start.into_iter().chain([program.entry]) {
        graph.call(layout.main, callee, ONE_CALL);
    }
    graph.suspends(layout.main);
    let mut suspension = graph.solve(layout.main);
    // A program can be stopped before its first instruction.
    suspension.polls_at_entry[layout.main as usize] = true;
    suspension
}

/// Names that the rewriter gives to its own functions.
fn added_names(program: &Program<'_>, layout: &Layout) -> BTreeMap<u32, alloc::string::String> {
    let mut names = BTreeMap::new();
    for (&import, &wrapper) in &layout.wrappers {
        let (module, name, _) = program.imports[import as usize];
        names.insert(wrapper, format!("mielin:import:{module}:{name}"));
    }
    names.insert(layout.main, "mielin:main".into());
    names.insert(layout.run, crate::abi::ENTRY.into());
    names
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_work_on_all_functions_is_bounded() {
        let locals = " i32".repeat(640);
        let table = "0 ".repeat(1_000);
        let function = format!("(func (local{locals}) (loop (br_table {table} (i32.const 0))))");
        let module = format!(
            r#"(module {} (func (export "_start")))"#,
            function.repeat(10)
        );
        let module = wat::parse_str(module).unwrap();
        // 1,000 targets, 10 words, in at least one pass over each function.
        let error = rewrite(&module, 60_000).unwrap_err();
        assert!(
            matches!(&error, InstrumentError::TooLarge { function: Some(function), what: "steps of analysis", .. }
                if (1..9).contains(&function.index)),
            "{error}"
        );
        rewrite(&module, 1_000_000).unwrap();
    }
}
