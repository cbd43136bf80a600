//! Puts the rewritten module together.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use wasm_encoder::{
    BranchHint, BranchHints, CodeSection, ConstExpr, CustomSection, DataCountSection, DataSection,
    ElementSection, Elements, EntityType, ExportKind, ExportSection, FunctionSection,
    GlobalSection, GlobalType, ImportSection, MemorySection, MemoryType, Module, NameMap,
    NameSection, TableSection, TableType, TypeSection,
};
use wasmparser::{ElementItems, ElementKind, ExternalKind, Operator};

use super::program::{Program, encode_type};
use super::sink::{FRAMES_MEMORY, Sink, Ty, Written};
use crate::{InstrumentError, abi};

/// Indices of what the rewriter adds.
pub(super) struct Layout {
    /// For each import that a table, a reference or an export needs: the function in its place.
    pub(super) wrappers: BTreeMap<u32, u32>,
    /// The function that calls the start function and `_start`.
    pub(super) main: u32,
    /// The function that is exported as [`abi::ENTRY`].
    pub(super) run: u32,
    /// The global [`abi::MODE`].
    pub(super) mode: u32,
    /// For each passive data segment that the code drops: the global that remembers it.
    pub(super) drops: BTreeMap<u32, u32>,
    run_type: u32,
}

impl Layout {
    pub(super) fn of(program: &Program<'_>) -> Layout {
        let mut next = (program.imports.len() + program.functions.len()) as u32;
        let mut number = || {
            next += 1;
            next - 1
        };
        let mut wrappers = BTreeMap::new();
        let exported = program
            .exports
            .iter()
            .filter(|export| export.kind == ExternalKind::Func)
            .map(|export| export.index);
        for function in program.address_taken.iter().copied().chain(exported) {
            if program.defined(function).is_none() {
                wrappers.entry(function).or_insert_with(&mut number);
            }
        }
        let (main, run) = (number(), number());
        let mode = program.globals.len() as u32;
        let drops = program
            .dropped_segments
            .iter()
            .filter(|segment| program.data[**segment as usize].passive)
            .zip(mode + 1..)
            .map(|(segment, global)| (*segment, global))
            .collect();
        let run_type = program.type_index(program.entry);
        Layout {
            wrappers,
            main,
            run,
            mode,
            drops,
            run_type,
        }
    }

    fn function(&self, index: u32) -> u32 {
        self.wrappers.get(&index).copied().unwrap_or(index)
    }
}

/// The code section while it grows.
#[derive(Default)]
pub(super) struct Code {
    section: CodeSection,
    hints: BranchHints,
    any_hints: bool,
}

impl Code {
    /// Adds the next function.
    pub(super) fn push(&mut self, index: u32, written: &Written) {
        self.section.raw(&written.bytes);
        if !written.hints.is_empty() {
            self.any_hints = true;
            let hints = written.hints.iter();
            self.hints.function_hints(
                index,
                hints.map(|&(offset, likely)| BranchHint {
                    branch_func_offset: offset,
                    branch_hint_value: u32::from(likely),
                }),
            );
        }
    }
}

/// [`abi::ENTRY`]: drops again what had been dropped, starts a program that has no frames, and
/// calls the function that everything runs in.
pub(super) fn run_function(layout: &Layout) -> Written {
    let mut out = Sink::default();
    out.op().global_get(layout.mode);
    out.unlikely_if();
    for (&segment, &global) in &layout.drops {
        out.op()
            .global_get(global)
            .if_(wasm_encoder::BlockType::Empty)
            .data_drop(segment)
            .end();
    }
    out.load_word(abi::STACK_POINTER_ADDRESS);
    out.op()
        .i32_const(abi::FRAMES_BASE as i32)
        .i32_eq()
        .if_(wasm_encoder::BlockType::Empty);
    out.finish_mode(layout.mode);
    out.finish_flag();
    out.op().end();
    out.end();
    out.op().call(layout.main).end();
    let mut bytes = alloc::vec![0];
    let hints = out
        .hints
        .iter()
        .map(|(offset, likely)| (*offset as u32 + 1, *likely))
        .collect();
    bytes.extend_from_slice(&out.code);
    Written { bytes, hints }
}

/// The whole module.
pub(super) fn module(
    program: &Program<'_>,
    layout: &Layout,
    block_types: &[Vec<Ty>],
    code: &Code,
) -> Result<Vec<u8>, InstrumentError> {
    let mut module = Module::new();
    let version = abi::VERSION.to_le_bytes();
    module.section(&CustomSection {
        name: abi::SECTION.into(),
        data: version.as_slice().into(),
    });
    module.section(&type_section(program, block_types));
    let mut imports = ImportSection::new();
    for &(from, name, ty) in &program.imports {
        imports.import(from, name, EntityType::Function(ty));
    }
    module.section(&imports);
    let mut functions = FunctionSection::new();
    program.functions.iter().for_each(|&ty| {
        functions.function(ty);
    });
    for &import in layout.wrappers.keys() {
        functions.function(program.type_index(import));
    }
    functions
        .function(layout.run_type)
        .function(layout.run_type);
    module.section(&functions);
    let mut tables = TableSection::new();
    for table in &program.tables {
        tables.table(TableType {
            element_type: reference(table.element_type),
            table64: false,
            minimum: table.initial,
            maximum: table.maximum,
            shared: false,
        });
    }
    module.section(&tables);
    module.section(&memory_section(program));
    module.section(&global_section(program, layout)?);
    module.section(&export_section(program, layout));
    module.section(&element_section(program, layout)?);
    module.section(&DataCountSection {
        count: program.data.len() as u32 + 1,
    });
    if code.any_hints {
        module.section(&code.hints);
    }
    module.section(&code.section);
    let mut data = DataSection::new();
    for segment in &program.data {
        data.raw(segment.raw);
    }
    let address = ConstExpr::i32_const(abi::STACK_POINTER_ADDRESS as i32);
    data.active(FRAMES_MEMORY, &address, abi::FRAMES_BASE.to_le_bytes());
    module.section(&data);
    module.section(&name_section(program, layout));
    Ok(module.finish())
}

fn type_section(program: &Program<'_>, block_types: &[Vec<Ty>]) -> TypeSection {
    let mut types = TypeSection::new();
    for ty in &program.types {
        let encode = |types: &[wasmparser::ValType]| -> Vec<_> {
            types.iter().filter_map(|ty| encode_type(*ty)).collect()
        };
        types
            .ty()
            .function(encode(ty.params()), encode(ty.results()));
    }
    for results in block_types {
        types
            .ty()
            .function([], results.iter().map(|ty| ty.encode()).collect::<Vec<_>>());
    }
    types
}

fn memory_section(program: &Program<'_>) -> MemorySection {
    let memory = |minimum, maximum| MemoryType {
        minimum,
        maximum,
        memory64: false,
        shared: false,
        page_size_log2: None,
    };
    let mut memories = MemorySection::new();
    memories.memory(match program.memory {
        Some(own) => memory(own.initial, own.maximum),
        None => memory(0, Some(0)),
    });
    memories.memory(memory(abi::FRAMES_PAGES, Some(abi::FRAMES_PAGES)));
    memories
}

fn global_section(
    program: &Program<'_>,
    layout: &Layout,
) -> Result<GlobalSection, InstrumentError> {
    let mut globals = GlobalSection::new();
    for (ty, init) in &program.globals {
        let val_type = encode_type(ty.content_type).unwrap_or(wasm_encoder::ValType::I32);
        let ty = GlobalType {
            val_type,
            mutable: ty.mutable,
            shared: false,
        };
        globals.global(ty, &constant(init, layout)?);
    }
    let word = GlobalType {
        val_type: wasm_encoder::ValType::I32,
        mutable: true,
        shared: false,
    };
    for _ in 0..=layout.drops.len() {
        globals.global(word, &ConstExpr::i32_const(0));
    }
    Ok(globals)
}

fn export_section(program: &Program<'_>, layout: &Layout) -> ExportSection {
    let mut exports = ExportSection::new();
    let mut memory_is_exported = false;
    for export in &program.exports {
        memory_is_exported |= export.name == abi::MEMORY;
        let (kind, index) = match export.kind {
            ExternalKind::Func | ExternalKind::FuncExact => {
                (ExportKind::Func, layout.function(export.index))
            }
            ExternalKind::Table => (ExportKind::Table, export.index),
            ExternalKind::Memory => (ExportKind::Memory, export.index),
            ExternalKind::Global => (ExportKind::Global, export.index),
            ExternalKind::Tag => (ExportKind::Tag, export.index),
        };
        exports.export(export.name, kind, index);
    }
    exports.export(abi::ENTRY, ExportKind::Func, layout.run);
    exports.export(abi::FRAMES, ExportKind::Memory, FRAMES_MEMORY);
    exports.export(abi::MODE, ExportKind::Global, layout.mode);
    if !memory_is_exported {
        exports.export(abi::HIDDEN_MEMORY, ExportKind::Memory, 0);
    }
    let mutable = program
        .globals
        .iter()
        .enumerate()
        .filter(|(_, (ty, _))| ty.mutable);
    let mutable = mutable
        .map(|(index, _)| index as u32)
        .chain(layout.drops.values().copied());
    for index in mutable {
        exports.export(
            &format!("{}{index}", abi::GLOBAL_PREFIX),
            ExportKind::Global,
            index,
        );
    }
    exports
}

fn element_section(
    program: &Program<'_>,
    layout: &Layout,
) -> Result<ElementSection, InstrumentError> {
    let mut elements = ElementSection::new();
    for element in &program.elements {
        let items = match &element.items {
            ElementItems::Functions(functions) => {
                let functions: Result<Vec<u32>, _> = functions
                    .clone()
                    .into_iter()
                    .map(|function| function.map(|function| layout.function(function)))
                    .collect();
                Elements::Functions(functions?.into())
            }
            ElementItems::Expressions(ty, expressions) => {
                let mut list = Vec::new();
                for expression in expressions.clone() {
                    list.push(constant(&expression?, layout)?);
                }
                Elements::Expressions(reference(*ty), list.into())
            }
        };
        match &element.kind {
            ElementKind::Passive => elements.passive(items),
            ElementKind::Declared => elements.declared(items),
            ElementKind::Active {
                table_index,
                offset_expr,
            } => {
                // The short form, without an index, holds only functions.
                let external = matches!(
                    items,
                    Elements::Expressions(wasm_encoder::RefType::EXTERNREF, _)
                );
                let table = if external {
                    Some(table_index.unwrap_or(0))
                } else {
                    *table_index
                };
                elements.active(table, &constant(offset_expr, layout)?, items)
            }
        };
    }
    Ok(elements)
}

/// A constant expression with imports replaced by their wrappers.
fn constant(
    expression: &wasmparser::ConstExpr<'_>,
    layout: &Layout,
) -> Result<ConstExpr, InstrumentError> {
    let mut reader = expression.get_operators_reader();
    if let Operator::RefFunc { function_index } = reader.read()? {
        return Ok(ConstExpr::ref_func(layout.function(function_index)));
    }
    let mut raw = expression.get_binary_reader();
    let length = raw.bytes_remaining();
    // The encoder writes the final `end` itself.
    let raw = raw.read_bytes(length.saturating_sub(1))?;
    Ok(ConstExpr::raw(raw.iter().copied()))
}

fn reference(ty: wasmparser::RefType) -> wasm_encoder::RefType {
    match ty {
        wasmparser::RefType::EXTERNREF => wasm_encoder::RefType::EXTERNREF,
        _ => wasm_encoder::RefType::FUNCREF,
    }
}

fn name_section(program: &Program<'_>, layout: &Layout) -> NameSection {
    let mut names = NameSection::new();
    if let Some(name) = program.module_name {
        names.module(name);
    }
    let mut functions = NameMap::new();
    let added = super::added_names(program, layout);
    let own_functions = (program.imports.len() + program.functions.len()) as u32;
    for (&index, name) in program.function_names.range(..own_functions) {
        functions.append(index, name);
    }
    for (index, name) in &added {
        functions.append(*index, name);
    }
    names.functions(&functions);
    names
}
