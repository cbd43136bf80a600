//! Makes a command of a random module.

use wasm_encoder::{
    CodeSection, ConstExpr, ExportKind, ExportSection, FunctionSection, GlobalSection, GlobalType,
    ImportSection, InstructionSink, MemorySection, MemoryType, Module, RawSection, RefType,
    TableSection, TableType, TypeSection, ValType,
};
use wasmparser::{FuncType, Parser, Payload, TypeRef};

fn encode(ty: wasmparser::ValType) -> Option<ValType> {
    Some(match ty {
        wasmparser::ValType::I32 => ValType::I32,
        wasmparser::ValType::I64 => ValType::I64,
        wasmparser::ValType::F32 => ValType::F32,
        wasmparser::ValType::F64 => ValType::F64,
        wasmparser::ValType::V128 => ValType::V128,
        wasmparser::ValType::Ref(ty) => ValType::Ref(reference(ty)?),
    })
}

fn reference(ty: wasmparser::RefType) -> Option<RefType> {
    Some(match ty {
        wasmparser::RefType::FUNCREF => RefType::FUNCREF,
        wasmparser::RefType::EXTERNREF => RefType::EXTERNREF,
        _ => return None,
    })
}

fn constant(ty: ValType) -> ConstExpr {
    match ty {
        ValType::I32 => ConstExpr::i32_const(3),
        ValType::I64 => ConstExpr::i64_const(-5),
        ValType::F32 => ConstExpr::f32_const(1.5.into()),
        ValType::F64 => ConstExpr::f64_const((-2.5).into()),
        ValType::V128 => ConstExpr::v128_const(77),
        ValType::Ref(ty) => ConstExpr::ref_null(ty.heap_type),
    }
}

#[derive(Default)]
struct Sections {
    types: Vec<FuncType>,
    imports: ImportSection,
    function_types: Vec<u32>,
    imported_functions: usize,
    functions: FunctionSection,
    tables: TableSection,
    memories: MemorySection,
    globals: GlobalSection,
    global_count: u32,
    exported_globals: Vec<u32>,
    code: CodeSection,
}

/// Exports memory and globals, defines what was imported and is no function, and adds a `_start`
/// that calls every function. `None` for modules with things that are no concern here.
pub(crate) fn from_module(wasm: &[u8]) -> Option<Vec<u8>> {
    let mut parts = Sections::default();
    let mut tail: Vec<(u8, std::ops::Range<usize>)> = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.ok()?;
        match &payload {
            Payload::StartSection { .. }
            | Payload::ElementSection(_)
            | Payload::DataCountSection { .. }
            | Payload::DataSection(_) => {
                tail.push(payload.as_section()?);
            }
            _ => {}
        }
        parts.read(wasm, payload)?;
    }
    parts.finish(wasm, &tail)
}

impl Sections {
    fn global(&mut self, ty: wasmparser::GlobalType, init: &ConstExpr) -> Option<()> {
        let ty = GlobalType {
            val_type: encode(ty.content_type)?,
            mutable: ty.mutable,
            shared: false,
        };
        self.globals.global(ty, init);
        // A reference is a number in the rewritten module, so that it cannot be compared.
        if !matches!(ty.val_type, ValType::Ref(_)) {
            self.exported_globals.push(self.global_count);
        }
        self.global_count += 1;
        Some(())
    }

    fn table(&mut self, ty: wasmparser::TableType) -> Option<()> {
        self.tables.table(TableType {
            element_type: reference(ty.element_type)?,
            table64: false,
            minimum: ty.initial,
            maximum: ty.maximum,
            shared: false,
        });
        Some(())
    }

    /// Large memories cost time and show nothing.
    fn memory(&mut self, ty: wasmparser::MemoryType) -> Option<()> {
        let maximum = Some(ty.maximum?.min(20));
        let minimum = (ty.initial <= 20).then_some(ty.initial)?;
        self.memories.memory(MemoryType {
            minimum,
            maximum,
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
        Some(())
    }

    fn read(&mut self, wasm: &[u8], payload: Payload<'_>) -> Option<()> {
        match payload {
            Payload::TypeSection(section) => {
                for ty in section.into_iter_err_on_gc_types() {
                    self.types.push(ty.ok()?);
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.ok()?;
                    match import.ty {
                        TypeRef::Func(ty) => {
                            let ty_of = wasm_encoder::EntityType::Function(ty);
                            let name = format!("import {}", self.imported_functions);
                            self.imports.import("env", &name, ty_of);
                            self.function_types.push(ty);
                            self.imported_functions += 1;
                        }
                        TypeRef::Global(ty) => {
                            self.global(ty, &constant(encode(ty.content_type)?))?
                        }
                        TypeRef::Table(ty) => self.table(ty)?,
                        TypeRef::Memory(ty) => self.memory(ty)?,
                        _ => return None,
                    }
                }
            }
            Payload::FunctionSection(section) => {
                for ty in section {
                    let ty = ty.ok()?;
                    self.functions.function(ty);
                    self.function_types.push(ty);
                }
            }
            Payload::TableSection(section) => {
                for table in section {
                    self.table(table.ok()?.ty)?;
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    self.memory(memory.ok()?)?;
                }
            }
            Payload::GlobalSection(section) => {
                for global in section {
                    let global = global.ok()?;
                    let mut raw = global.init_expr.get_binary_reader();
                    let length = raw.bytes_remaining();
                    let raw = raw.read_bytes(length - 1).ok()?;
                    self.global(global.ty, &ConstExpr::raw(raw.iter().copied()))?;
                }
            }
            Payload::CodeSectionEntry(body) => {
                self.code.raw(&wasm[body.range()]);
            }
            _ => {}
        }
        Some(())
    }

    fn finish(mut self, wasm: &[u8], tail: &[(u8, std::ops::Range<usize>)]) -> Option<Vec<u8>> {
        let mut types = TypeSection::new();
        for ty in &self.types {
            let list = |types: &[wasmparser::ValType]| -> Option<Vec<ValType>> {
                types.iter().map(|ty| encode(*ty)).collect()
            };
            types.ty().function(list(ty.params())?, list(ty.results())?);
        }
        types.ty().function([], []);
        self.functions.function(self.types.len() as u32);
        let mut body = vec![0];
        let mut start = InstructionSink::new(&mut body);
        for (index, ty) in self
            .function_types
            .iter()
            .enumerate()
            .skip(self.imported_functions)
        {
            let ty = &self.types[*ty as usize];
            for param in ty.params() {
                match encode(*param)? {
                    ValType::I32 => start.i32_const(index as i32),
                    ValType::I64 => start.i64_const(-7),
                    ValType::F32 => start.f32_const(0.5.into()),
                    ValType::F64 => start.f64_const(1e100.into()),
                    ValType::V128 => start.v128_const(1 << 70),
                    ValType::Ref(ty) => start.ref_null(ty.heap_type),
                };
            }
            start.call(index as u32);
            for _ in ty.results() {
                start.drop();
            }
        }
        start.end();
        self.code.raw(&body);
        let mut exports = ExportSection::new();
        exports.export("_start", ExportKind::Func, self.function_types.len() as u32);
        if !self.memories.is_empty() {
            exports.export("memory", ExportKind::Memory, 0);
        }
        for global in self.exported_globals {
            exports.export(&format!("global {global}"), ExportKind::Global, global);
        }
        let mut module = Module::new();
        module
            .section(&types)
            .section(&self.imports)
            .section(&self.functions);
        module
            .section(&self.tables)
            .section(&self.memories)
            .section(&self.globals);
        module.section(&exports);
        let raw = |module: &mut Module, wanted: &[u8]| {
            for (id, range) in tail.iter().filter(|(id, _)| wanted.contains(id)) {
                module.section(&RawSection {
                    id: *id,
                    data: &wasm[range.clone()],
                });
            }
        };
        // Start, elements and data count stand before the code, data after it.
        raw(&mut module, &[8, 9, 12]);
        module.section(&self.code);
        raw(&mut module, &[11]);
        Some(module.finish())
    }
}
