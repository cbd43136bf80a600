//! Makes a command of a module of a test script: its `_start` calls the export that a global names.
//!
//! Arguments are read from globals and results are written to globals, all of which the host can
//! see, so that one rewritten module serves any number of invocations.

use std::collections::BTreeMap;

use wasm_encoder::{
    Encode, GlobalType, ImportSection, InstructionSink, MemoryType, Module, RawSection, TableType,
    ValType,
};
use wasmparser::{ExternalKind, FuncType, Operator, Parser, Payload, TypeRef};

/// The global that says which export is called.
pub(crate) const NEXT: &str = "spec:next";
/// Calls the start function.
pub(crate) const START: i32 = 0;

/// What a script can ask of a module.
pub(crate) struct Site {
    pub(crate) number: i32,
    pub(crate) params: Vec<ValType>,
    pub(crate) results: Vec<ValType>,
}

/// A module with a driver.
pub(crate) struct Driven {
    pub(crate) wasm: Vec<u8>,
    pub(crate) sites: BTreeMap<String, Site>,
    /// What imported functions give.
    pub(crate) answers: BTreeMap<String, i32>,
}

/// Name of the global for an argument or a result.
pub(crate) fn slot(kind: &str, position: usize, ty: ValType) -> String {
    format!("spec:{kind}:{position}:{}", letter(ty))
}

fn letter(ty: ValType) -> &'static str {
    match ty {
        ValType::I64 => "i64",
        ValType::F32 => "f32",
        ValType::F64 => "f64",
        ValType::V128 => "v128",
        // Of a reference it is seen whether it is null.
        _ => "i32",
    }
}

fn number_type(ty: ValType) -> ValType {
    match ty {
        ValType::Ref(_) => ValType::I32,
        number => number,
    }
}

/// `None` for types beyond those of WebAssembly 2.0.
fn encode(ty: wasmparser::ValType) -> Option<ValType> {
    Some(match ty {
        wasmparser::ValType::I32 => ValType::I32,
        wasmparser::ValType::I64 => ValType::I64,
        wasmparser::ValType::F32 => ValType::F32,
        wasmparser::ValType::F64 => ValType::F64,
        wasmparser::ValType::V128 => ValType::V128,
        wasmparser::ValType::Ref(wasmparser::RefType::FUNCREF) => ValType::FUNCREF,
        wasmparser::ValType::Ref(wasmparser::RefType::EXTERNREF) => ValType::EXTERNREF,
        wasmparser::ValType::Ref(_) => return None,
    })
}

/// A section that is a list, with entries added before and after its own.
#[derive(Default)]
struct List {
    before: Vec<u8>,
    own: Vec<u8>,
    after: Vec<u8>,
    count: u32,
}

impl List {
    fn set(&mut self, raw: &[u8]) {
        let mut reader = wasmparser::BinaryReader::new(raw, 0);
        self.count += reader.read_var_u32().unwrap();
        let own = reader.read_bytes(reader.bytes_remaining()).unwrap();
        self.own = own.to_vec();
    }

    fn add_first(&mut self, entry: impl Encode) {
        entry.encode(&mut self.before);
        self.count += 1;
    }

    fn add(&mut self, entry: impl FnOnce(&mut Vec<u8>)) {
        entry(&mut self.after);
        self.count += 1;
    }

    fn write(&self, module: &mut Module, id: u8) {
        let mut data = Vec::new();
        self.count.encode(&mut data);
        data.extend_from_slice(&self.before);
        data.extend_from_slice(&self.own);
        data.extend_from_slice(&self.after);
        if self.count > 0 {
            module.section(&RawSection { id, data: &data });
        }
    }
}

#[derive(Default)]
struct Parts<'a> {
    types: List,
    functions: List,
    tables: List,
    memories: List,
    globals: List,
    code: List,
    imports: ImportSection,
    function_types: Vec<Option<FuncType>>,
    signatures: Vec<u32>,
    global_types: Vec<wasmparser::ValType>,
    type_count: u32,
    exports: Vec<wasmparser::Export<'a>>,
    start: Option<u32>,
    tail: Vec<(u8, &'a [u8])>,
    slots: BTreeMap<String, u32>,
    constants: Constants,
    answers: BTreeMap<String, i32>,
}

const WORD: &[u8] = &[0x41, 0, 0x0b];

/// Functions that give a constant, by the names of their module and export.
pub(crate) type Constants = BTreeMap<(String, String), i32>;

/// The exported functions that only give a constant.
pub(crate) fn constants(wasm: &[u8]) -> Option<BTreeMap<String, i32>> {
    let (mut imported, mut values, mut exports) = (0, Vec::new(), Vec::new());
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.ok()? {
            Payload::ImportSection(section) => {
                let imports = section.into_imports();
                let function =
                    |import: &wasmparser::Import<'_>| matches!(import.ty, TypeRef::Func(_));
                imported = imports.flatten().filter(function).count();
            }
            Payload::ExportSection(section) => exports.extend(section.into_iter().flatten()),
            Payload::CodeSectionEntry(body) => {
                let mut operators = body.get_operators_reader().ok()?.into_iter();
                values.push(
                    match (operators.next(), operators.next(), operators.next()) {
                        (Some(Ok(Operator::I32Const { value })), Some(Ok(Operator::End)), None) => {
                            Some(value)
                        }
                        _ => None,
                    },
                );
            }
            _ => {}
        }
    }
    let constant = |export: wasmparser::Export<'_>| {
        let position = (export.index as usize).checked_sub(imported)?;
        let value = (*values.get(position)?)?;
        (export.kind == ExternalKind::Func).then(|| (export.name.to_string(), value))
    };
    Some(exports.into_iter().filter_map(constant).collect())
}

/// Adds the driver. `None` if the module needs what other modules of its script provide, but for
/// such constants.
pub(crate) fn drive(wasm: &[u8], constants: &Constants) -> Option<Driven> {
    let mut parts = Parts {
        constants: constants.clone(),
        ..Parts::default()
    };
    for payload in Parser::new(0).parse_all(wasm) {
        parts.read(wasm, payload.ok()?)?;
    }
    Some(parts.finish())
}

impl<'a> Parts<'a> {
    fn read(&mut self, wasm: &'a [u8], payload: Payload<'a>) -> Option<()> {
        let raw = payload.as_section().map(|(id, range)| (id, &wasm[range]));
        match payload {
            Payload::TypeSection(section) => {
                self.types.set(raw?.1);
                for group in section {
                    for ty in group.ok()?.into_types() {
                        self.function_types.push(match ty.composite_type.inner {
                            wasmparser::CompositeInnerType::Func(ty) => Some(ty),
                            _ => None,
                        });
                    }
                }
                self.type_count = self.function_types.len() as u32;
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    self.import(&import.ok()?)?;
                }
            }
            Payload::FunctionSection(section) => {
                self.functions.set(raw?.1);
                for ty in section {
                    self.signatures.push(ty.ok()?);
                }
            }
            Payload::TableSection(_) => self.tables.set(raw?.1),
            Payload::MemorySection(_) => self.memories.set(raw?.1),
            Payload::GlobalSection(section) => {
                self.globals.set(raw?.1);
                for global in section {
                    self.global_types.push(global.ok()?.ty.content_type);
                }
            }
            Payload::ExportSection(section) => {
                self.exports = section.into_iter().collect::<Result<_, _>>().ok()?;
            }
            Payload::StartSection { func, .. } => self.start = Some(func),
            Payload::CodeSectionStart { range, .. } => self.code.set(&wasm[range]),
            Payload::CodeSectionEntry(_) | Payload::CustomSection(_) => {}
            // Tags, elements, data and their count.
            _ => self.tail.extend(raw),
        }
        Some(())
    }

    /// What the module `spectest` of the specification's own interpreter has becomes the program's
    /// own, except for functions.
    fn import(&mut self, import: &wasmparser::Import<'_>) -> Option<()> {
        if import.module != "spectest" {
            let TypeRef::Func(ty) = import.ty else {
                return None;
            };
            let key = (import.module.to_string(), import.name.to_string());
            let value = *self.constants.get(&key)?;
            self.answers.insert(key.1, value);
            let entity = wasm_encoder::EntityType::Function(ty);
            self.imports.import(import.module, import.name, entity);
            self.signatures.push(ty);
            return Some(());
        }
        match import.ty {
            TypeRef::Func(ty) => {
                let entity = wasm_encoder::EntityType::Function(ty);
                self.imports.import("spectest", import.name, entity);
                self.signatures.push(ty);
            }
            TypeRef::Table(ty) if !ty.table64 => self.tables.add_first(TableType {
                element_type: wasm_encoder::RefType::FUNCREF,
                table64: false,
                minimum: 10,
                maximum: Some(20),
                shared: false,
            }),
            TypeRef::Memory(ty) if !ty.shared && !ty.memory64 => {
                self.memories.add_first(MemoryType {
                    minimum: 1,
                    maximum: Some(2),
                    memory64: false,
                    shared: false,
                    page_size_log2: None,
                })
            }
            TypeRef::Global(ty) => {
                let mut entry = Vec::new();
                GlobalType {
                    val_type: encode(ty.content_type)?,
                    mutable: false,
                    shared: false,
                }
                .encode(&mut entry);
                let mut value = InstructionSink::new(&mut entry);
                match ty.content_type {
                    wasmparser::ValType::I32 => value.i32_const(666),
                    wasmparser::ValType::I64 => value.i64_const(666),
                    wasmparser::ValType::F32 => value.f32_const(666.6.into()),
                    wasmparser::ValType::F64 => value.f64_const(666.6.into()),
                    _ => return None,
                };
                value.end();
                self.globals.before.extend_from_slice(&entry);
                self.globals.count += 1;
                self.global_types.push(ty.content_type);
            }
            _ => return None,
        }
        Some(())
    }

    fn slot(&mut self, kind: &str, position: usize, ty: ValType) -> u32 {
        let next = self.global_types.len() as u32 + 1 + self.slots.len() as u32;
        let name = slot(kind, position, ty);
        if let Some(&index) = self.slots.get(&name) {
            return index;
        }
        self.slots.insert(name, next);
        let val_type = number_type(ty);
        self.globals.add(|out| {
            GlobalType {
                val_type,
                mutable: true,
                shared: false,
            }
            .encode(out);
            let mut sink = InstructionSink::new(out);
            match val_type {
                ValType::I64 => sink.i64_const(0),
                ValType::F32 => sink.f32_const(0.0.into()),
                ValType::F64 => sink.f64_const(0.0.into()),
                ValType::V128 => sink.v128_const(0),
                _ => sink.i32_const(0),
            };
            sink.end();
        });
        next
    }

    fn signature(&self, function: u32) -> Option<(Vec<ValType>, Vec<ValType>)> {
        let ty = *self.signatures.get(function as usize)?;
        let ty = self.function_types.get(ty as usize)?.as_ref()?;
        let list = |types: &[wasmparser::ValType]| -> Option<Vec<ValType>> {
            types.iter().map(|ty| encode(*ty)).collect()
        };
        Some((list(ty.params())?, list(ty.results())?))
    }

    /// The code that calls an export or reads it.
    fn site(&mut self, kind: ExternalKind, index: u32) -> Option<(Vec<u8>, Site)> {
        let mut code = Vec::new();
        let (params, results) = match kind {
            ExternalKind::Func => self.signature(index)?,
            ExternalKind::Global => {
                let ty = *self.global_types.get(index as usize)?;
                (Vec::new(), vec![encode(ty)?])
            }
            _ => return None,
        };
        for (position, &ty) in params.iter().enumerate() {
            let slot = self.slot("argument", position, ty);
            let mut sink = InstructionSink::new(&mut code);
            match ty {
                ValType::Ref(ty) => sink.ref_null(ty.heap_type),
                _ => sink.global_get(slot),
            };
        }
        let mut sink = InstructionSink::new(&mut code);
        match kind {
            ExternalKind::Func => sink.call(index),
            _ => sink.global_get(index),
        };
        for (position, &ty) in results.iter().enumerate().rev() {
            let slot = self.slot("result", position, ty);
            let mut sink = InstructionSink::new(&mut code);
            if matches!(ty, ValType::Ref(_)) {
                sink.ref_is_null();
            }
            sink.global_set(slot);
        }
        let number = 0;
        let site = Site {
            number,
            params,
            results,
        };
        Some((code, site))
    }

    fn finish(mut self) -> Driven {
        let next = self.global_types.len() as u32;
        self.globals.add(|out| out.extend_from_slice(&[0x7f, 1]));
        self.globals.after.extend_from_slice(WORD);
        let mut sites = BTreeMap::new();
        let mut codes = vec![Vec::new()];
        if let Some(start) = self.start {
            InstructionSink::new(&mut codes[0]).call(start);
        }
        for export in std::mem::take(&mut self.exports) {
            if let Some((code, site)) = self.site(export.kind, export.index) {
                let number = codes.len() as i32;
                sites.insert(export.name.to_string(), Site { number, ..site });
                codes.push(code);
            }
            self.exports.push(export);
        }
        let ty = self.type_count;
        self.types.add(|out| out.extend_from_slice(&[0x60, 0, 0]));
        self.functions.add(|out| ty.encode(out));
        let body = driver(next, &codes);
        self.code.add(|out| body.as_slice().encode(out));
        let wasm = self.assemble(next);
        let answers = self.answers;
        Driven {
            wasm,
            sites,
            answers,
        }
    }

    fn assemble(&self, next: u32) -> Vec<u8> {
        let mut exports = wasm_encoder::ExportSection::new();
        for export in &self.exports {
            let kind = match export.kind {
                ExternalKind::Table => wasm_encoder::ExportKind::Table,
                ExternalKind::Memory => wasm_encoder::ExportKind::Memory,
                ExternalKind::Global => wasm_encoder::ExportKind::Global,
                ExternalKind::Tag => wasm_encoder::ExportKind::Tag,
                _ => wasm_encoder::ExportKind::Func,
            };
            exports.export(&format!("own:{}", export.name), kind, export.index);
        }
        let start = self.signatures.len() as u32;
        exports.export("_start", wasm_encoder::ExportKind::Func, start);
        exports.export(NEXT, wasm_encoder::ExportKind::Global, next);
        for (name, &index) in &self.slots {
            exports.export(name, wasm_encoder::ExportKind::Global, index);
        }
        let mut module = Module::new();
        self.types.write(&mut module, 1);
        if !self.imports.is_empty() {
            module.section(&self.imports);
        }
        let tail = |module: &mut Module, ids: &[u8]| {
            for (id, data) in self.tail.iter().filter(|(id, _)| ids.contains(id)) {
                module.section(&RawSection { id: *id, data });
            }
        };
        self.functions.write(&mut module, 3);
        self.tables.write(&mut module, 4);
        self.memories.write(&mut module, 5);
        tail(&mut module, &[13]);
        self.globals.write(&mut module, 6);
        module.section(&exports);
        tail(&mut module, &[9, 12]);
        self.code.write(&mut module, 10);
        tail(&mut module, &[11]);
        module.finish()
    }
}

/// A function that runs one of these pieces of code.
fn driver(next: u32, codes: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![0];
    let mut sink = InstructionSink::new(&mut body);
    for _ in codes {
        sink.block(wasm_encoder::BlockType::Empty);
    }
    sink.block(wasm_encoder::BlockType::Empty);
    let count = codes.len() as u32;
    sink.global_get(next).br_table(0..count, count).end();
    for code in codes {
        body.extend_from_slice(code);
        let mut sink = InstructionSink::new(&mut body);
        sink.return_().end();
    }
    InstructionSink::new(&mut body).end();
    body
}
