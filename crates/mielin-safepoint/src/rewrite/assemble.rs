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

use super::program::{Outline, Program, encode_type};
use super::references::{Free, References, Segment};
use super::sink::{FRAMES_MEMORY, Sink, Ty, Written};
use super::table_code;
use super::tail::TailCalls;
use crate::{InstrumentError, abi};

/// The most types, functions, globals or exports that engines accept in a module: the limits of the JavaScript
/// embedding, which wasmparser enforces.
const DEFINITIONS_MAX: u32 = 1_000_000;
/// The same for segments of either kind.
const SEGMENTS_MAX: u32 = 100_000;

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
    pub(super) references: References,
    run_type: u32,
    own_tables: u32,
}

impl Layout {
    pub(super) fn of(
        program: &Program<'_>,
        outlines: &[Outline],
    ) -> Result<Layout, InstrumentError> {
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
        let tail_called = outlines.iter().flat_map(|outline| &outline.tail_calls);
        let taken = program.address_taken.iter().chain(tail_called).copied();
        for function in taken.chain(exported) {
            if program.defined(function).is_none() {
                wrappers.entry(function).or_insert_with(&mut number);
            }
        }
        let (main, run) = (number(), number());
        let mode = program.globals.len() as u32;
        let free = Free {
            global: mode + 1,
            function: run + 1,
            table: 0,
            data: program.data.len() as u32 + 1,
        };
        let references = References::of(program, free)?;
        let arrays = references.arrays.as_ref();
        let data = program.dropped_segments.iter().copied();
        let data = data.filter(|segment| program.data[*segment as usize].passive);
        let elements = arrays.into_iter().flat_map(|arrays| {
            let dropped = program.uses.dropped.iter();
            dropped.filter_map(|element| Some(arrays.passive(*element)?.data))
        });
        let first_drop = mode + 1 + arrays.map_or(0, |arrays| arrays.arrays.len()) as u32;
        let drops = data.chain(elements).zip(first_drop..).collect();
        Ok(Layout {
            wrappers,
            main,
            run,
            mode,
            drops,
            references,
            run_type: program.type_index(program.entry),
            own_tables: program.tables.len() as u32,
        })
    }

    /// What is called in the place of a function.
    pub(super) fn function(&self, index: u32) -> u32 {
        self.wrappers.get(&index).copied().unwrap_or(index)
    }

    /// Type index of a function of the program or of one that stands for an import.
    pub(super) fn type_index(&self, program: &Program<'_>, function: u32) -> u32 {
        let is_wrapper = |entry: &(&u32, &u32)| *entry.1 == function;
        let import = self.wrappers.iter().find(is_wrapper);
        program.type_index(import.map_or(function, |(import, _)| *import))
    }

    /// The first function that neither the program nor its references need.
    pub(super) fn first_resuming(&self) -> u32 {
        let arrays = self.references.arrays.as_ref();
        self.run + 1 + arrays.map_or(0, |arrays| arrays.helpers.len() as u32)
    }

    /// The first table that neither the program nor the calls through numbers need.
    pub(super) fn next_table(&self) -> u32 {
        let arrays = self.references.arrays.as_ref();
        arrays.map_or(self.own_tables, |arrays| {
            arrays.function_tables().count() as u32
        })
    }
}

/// The code section while it grows.
#[derive(Default)]
pub(super) struct Code {
    section: CodeSection,
    hints: BranchHints,
    any_hints: bool,
    /// Functions after [`Layout::run`]: their types.
    added: Vec<u32>,
}

impl Code {
    /// Adds a function after [`Layout::run`].
    pub(super) fn add(&mut self, index: u32, (ty, written): &(u32, Written)) {
        self.added.push(*ty);
        self.push(index, written);
    }

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

/// [`abi::ENTRY`]: drops again what had been dropped, reads the arrays, starts a program that has
/// no frames, calls the function that everything runs in, and writes the arrays if that was stopped.
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
    if let Some(arrays) = &layout.references.arrays {
        out.op().else_();
        table_code::restore(arrays, &mut out);
    }
    out.op().end();
    out.end();
    out.op().call(layout.main);
    if let Some(arrays) = &layout.references.arrays {
        out.op().global_get(layout.mode);
        out.unlikely_if();
        table_code::save(arrays, &mut out);
        out.end();
    }
    out.op().end();
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
    tails: &TailCalls,
    types: &[(Vec<Ty>, Vec<Ty>)],
    code: &Code,
) -> Result<Vec<u8>, InstrumentError> {
    let types = type_section(program, types);
    let mut imports = ImportSection::new();
    for &(from, name, ty) in &program.imports {
        imports.import(from, name, EntityType::Function(ty));
    }
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
    for &ty in &code.added {
        functions.function(ty);
    }
    let globals = global_section(program, layout)?;
    let exports = export_section(program, layout);
    let elements = element_section(program, layout, tails)?;
    let segments = layout.references.arrays.iter();
    let segments: Vec<&Segment> = segments
        .flat_map(|arrays| arrays.segments.values())
        .collect();
    let data_count = (program.data.len() + 1 + segments.len()) as u32;
    check_count("types", types.len(), DEFINITIONS_MAX)?;
    check_count(
        "functions",
        imports.len() + functions.len(),
        DEFINITIONS_MAX,
    )?;
    check_count("globals", globals.len(), DEFINITIONS_MAX)?;
    check_count("exports", exports.len(), DEFINITIONS_MAX)?;
    check_count("element segments", elements.len(), SEGMENTS_MAX)?;
    check_count("data segments", data_count, SEGMENTS_MAX)?;
    let mut module = Module::new();
    let version = abi::VERSION.to_le_bytes();
    module.section(&CustomSection {
        name: abi::SECTION.into(),
        data: version.as_slice().into(),
    });
    module
        .section(&types)
        .section(&imports)
        .section(&functions)
        .section(&table_section(program, layout, tails))
        .section(&memory_section(program, layout))
        .section(&globals)
        .section(&exports)
        .section(&elements)
        .section(&DataCountSection { count: data_count });
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
    for segment in segments {
        number_data(layout, segment, &mut data);
    }
    module.section(&data);
    module.section(&name_section(program, layout));
    Ok(module.finish())
}

fn check_count(what: &'static str, count: u32, limit: u32) -> Result<(), InstrumentError> {
    if count <= limit {
        return Ok(());
    }
    Err(InstrumentError::TooLarge {
        function: None,
        what,
        limit: limit.into(),
    })
}

/// The numbers of an element segment.
fn number_data(layout: &Layout, segment: &Segment, data: &mut DataSection) {
    let numbers = segment.numbers.iter();
    let bytes: Vec<u8> = numbers.flat_map(|number| number.to_le_bytes()).collect();
    match (segment.place, &layout.references.arrays) {
        (Some((table, at)), Some(arrays)) => {
            // No memory has room there.
            let beyond = u32::MAX;
            let address = if segment.fits { at * 4 } else { beyond };
            let address = ConstExpr::i32_const(address as i32);
            data.active(arrays.arrays[table as usize].memory, &address, bytes);
        }
        _ => {
            data.passive(bytes);
        }
    }
}

fn table_section(program: &Program<'_>, layout: &Layout, tails: &TailCalls) -> TableSection {
    let mut tables = TableSection::new();
    let own = match layout.references.arrays {
        Some(_) => &[],
        None => program.tables.as_slice(),
    };
    for table in own {
        tables.table(TableType {
            element_type: wasm_encoder::RefType::FUNCREF,
            table64: false,
            minimum: table.initial,
            maximum: table.maximum,
            shared: false,
        });
    }
    let mut functions = |count: u64| {
        tables.table(TableType {
            element_type: wasm_encoder::RefType::FUNCREF,
            table64: false,
            minimum: count,
            maximum: Some(count),
            shared: false,
        });
    };
    if let Some(arrays) = &layout.references.arrays {
        let count = program.address_taken.len() as u64 + 1;
        arrays.function_tables().for_each(|_| functions(count));
    }
    if tails.len() > 0 {
        functions(tails.len().into());
    }
    tables
}

fn type_section(program: &Program<'_>, added: &[(Vec<Ty>, Vec<Ty>)]) -> TypeSection {
    let mut types = TypeSection::new();
    for ty in &program.types {
        let encode = |types: &[wasmparser::ValType]| -> Vec<_> {
            types.iter().filter_map(|ty| encode_type(*ty)).collect()
        };
        types
            .ty()
            .function(encode(ty.params()), encode(ty.results()));
    }
    for (params, results) in added {
        let encode = |list: &[Ty]| list.iter().map(|ty| ty.encode()).collect::<Vec<_>>();
        types.ty().function(encode(params), encode(results));
    }
    types
}

fn memory_section(program: &Program<'_>, layout: &Layout) -> MemorySection {
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
    // Of a fixed size, so that no engine's bookkeeping of the program's memory meets them.
    for array in layout.references.arrays.iter().flat_map(|all| &all.arrays) {
        memories.memory(memory(array.pages(), Some(array.pages())));
    }
    memories
}

fn global_section(
    program: &Program<'_>,
    layout: &Layout,
) -> Result<GlobalSection, InstrumentError> {
    let mut globals = GlobalSection::new();
    for (ty, init) in &program.globals {
        let val_type = encode_type(ty.content_type).unwrap_or(wasm_encoder::ValType::I32);
        let value = if ty.content_type.is_reference_type() {
            ConstExpr::i32_const(layout.references.constant(init)? as i32)
        } else {
            constant(init, layout)?
        };
        let ty = GlobalType {
            val_type,
            mutable: ty.mutable,
            shared: false,
        };
        globals.global(ty, &value);
    }
    let word = GlobalType {
        val_type: wasm_encoder::ValType::I32,
        mutable: true,
        shared: false,
    };
    globals.global(word, &ConstExpr::i32_const(abi::RUNNING));
    for array in layout.references.arrays.iter().flat_map(|all| &all.arrays) {
        globals.global(word, &ConstExpr::i32_const(array.initial as i32));
    }
    for _ in &layout.drops {
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
            ExternalKind::Table if layout.references.arrays.is_some() => continue,
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
        .chain(
            layout
                .references
                .arrays
                .iter()
                .flat_map(|all| &all.arrays)
                .map(|array| array.size),
        )
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
    tails: &TailCalls,
) -> Result<ElementSection, InstrumentError> {
    let mut elements = ElementSection::new();
    if layout.references.arrays.is_none() {
        own_elements(program, layout, &mut elements)?;
    }
    function_elements(program, layout, tails, &mut elements);
    Ok(elements)
}

/// The program's own segments, which are all of functions.
fn own_elements(
    program: &Program<'_>,
    layout: &Layout,
    elements: &mut ElementSection,
) -> Result<(), InstrumentError> {
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
            ElementItems::Expressions(_, expressions) => {
                let mut list = Vec::new();
                for expression in expressions.clone() {
                    list.push(constant(&expression?, layout)?);
                }
                Elements::Expressions(wasm_encoder::RefType::FUNCREF, list.into())
            }
        };
        match &element.kind {
            ElementKind::Passive => elements.passive(items),
            ElementKind::Declared => elements.declared(items),
            ElementKind::Active {
                table_index,
                offset_expr,
            } => elements.active(*table_index, &constant(offset_expr, layout)?, items),
        };
    }
    Ok(())
}

/// The functions by their numbers, and those that resume frames.
fn function_elements(
    program: &Program<'_>,
    layout: &Layout,
    tails: &TailCalls,
    elements: &mut ElementSection,
) {
    if let Some(arrays) = &layout.references.arrays {
        for (table, wanted) in (arrays.functions..).zip(arrays.function_tables()) {
            let held = |&function: &u32| {
                let ty = program.type_index(function);
                if arrays.may_hold(wanted, &program.types, ty) {
                    layout.function(function)
                } else {
                    // Its type is none that a reference could be mistaken in.
                    layout.run
                }
            };
            let functions: Vec<u32> = program.address_taken.iter().map(held).collect();
            // Number 0 is null.
            let items = Elements::Functions(functions.into());
            elements.active(Some(table), &ConstExpr::i32_const(1), items);
        }
    }
    if tails.len() > 0 {
        let first = layout.first_resuming();
        let functions: Vec<u32> = (first..first + tails.len()).collect();
        let items = Elements::Functions(functions.into());
        elements.active(Some(tails.table), &ConstExpr::i32_const(0), items);
    }
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
