//! A program's module, validated and taken apart, with everything refused that cannot be resumed.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use wasmparser::{
    BlockType, ConstExpr, DataKind, Element, ElementItems, ElementKind, Export, ExternalKind,
    FuncToValidate, FuncType, FunctionBody, GlobalType, Imports, KnownCustom, MemoryType, Name,
    Operator, Parser, Payload, RefType, TableInit, TableType, TypeRef, ValType, ValidPayload,
    Validator, ValidatorResources, WasmFeatures,
};

use super::function::is_comparison;
use super::references::Uses;
use crate::resumable::check_claim;
use crate::{Feature, FunctionName, InstrumentError, abi};

/// A defined function.
pub(super) struct Body<'a> {
    pub(super) validation: FuncToValidate<ValidatorResources>,
    pub(super) code: FunctionBody<'a>,
}

/// A data segment as it stands in the module.
pub(super) struct DataSegment<'a> {
    pub(super) raw: &'a [u8],
    pub(super) passive: bool,
}

/// The parts of a module.
#[derive(Default)]
pub(super) struct Program<'a> {
    pub(super) types: Vec<FuncType>,
    /// Module, name and type of the imported functions.
    pub(super) imports: Vec<(&'a str, &'a str, u32)>,
    /// Types of the defined functions.
    pub(super) functions: Vec<u32>,
    pub(super) tables: Vec<TableType>,
    pub(super) memory: Option<MemoryType>,
    pub(super) globals: Vec<(GlobalType, ConstExpr<'a>)>,
    pub(super) exports: Vec<Export<'a>>,
    pub(super) start: Option<u32>,
    pub(super) elements: Vec<Element<'a>>,
    pub(super) data_count: bool,
    pub(super) data: Vec<DataSegment<'a>>,
    pub(super) bodies: Vec<Body<'a>>,
    pub(super) module_name: Option<&'a str>,
    pub(super) function_names: BTreeMap<u32, &'a str>,
    /// The defined function that is exported as `_start`.
    pub(super) entry: u32,
    /// Functions that a table or a reference can hold.
    pub(super) address_taken: BTreeSet<u32>,
    /// Passive segments that the code drops.
    pub(super) dropped_segments: BTreeSet<u32>,
    pub(super) uses: Uses,
}

/// What the call graph needs to know of a defined function.
#[derive(Default)]
pub(super) struct Outline {
    /// Functions that it calls.
    pub(super) calls: BTreeMap<u32, Sites>,
    /// Type indices of the indirect calls.
    pub(super) indirect: BTreeMap<u32, Sites>,
    /// Those of the functions and of the types that it calls as its last act, in its own place.
    pub(super) tail_calls: BTreeSet<u32>,
    pub(super) tail_indirect: BTreeSet<u32>,
    pub(super) has_loop: bool,
    /// Has a `select` right after a comparison.
    pub(super) selects: bool,
}

/// The calls of one function, or through one type, in a function.
#[derive(Clone, Copy)]
pub(super) struct Sites {
    pub(super) count: u32,
    /// None is outside of a loop.
    pub(super) in_loops: bool,
}

impl Sites {
    fn note(sites: &mut BTreeMap<u32, Sites>, called: u32, in_loop: bool) {
        let none = Sites {
            count: 0,
            in_loops: true,
        };
        let sites = sites.entry(called).or_insert(none);
        sites.count += 1;
        sites.in_loops &= in_loop;
    }
}

impl<'a> Program<'a> {
    /// Parses and validates.
    pub(super) fn parse(wasm: &'a [u8]) -> Result<Program<'a>, InstrumentError> {
        let mut program = Program::default();
        let mut validator = Validator::new_with_features(WasmFeatures::all());
        for payload in Parser::new(0).parse_all(wasm) {
            let payload = payload?;
            if let Payload::Version {
                encoding: wasmparser::Encoding::Component,
                ..
            } = payload
            {
                return Err(InstrumentError::Component);
            }
            check_claim(&payload)?;
            if let ValidPayload::Func(validation, code) = validator.payload(&payload)? {
                program.bodies.push(Body { validation, code });
            }
            program.section(wasm, payload)?;
        }
        program.check_exports()?;
        Ok(program)
    }

    fn section(&mut self, wasm: &'a [u8], payload: Payload<'a>) -> Result<(), InstrumentError> {
        match payload {
            Payload::TypeSection(section) => {
                for group in section {
                    self.types(group?)?;
                }
            }
            Payload::ImportSection(section) => {
                for imports in section {
                    self.imports(imports?)?;
                }
            }
            Payload::FunctionSection(section) => {
                self.functions = section.into_iter().collect::<Result<_, _>>()?;
            }
            Payload::TableSection(section) => {
                for table in section {
                    let table = table?;
                    if table.ty.table64
                        || table.ty.shared
                        || !matches!(table.init, TableInit::RefNull)
                    {
                        return Err(unsupported(Feature::Type));
                    }
                    plain_reference(table.ty.element_type)
                        .ok_or_else(|| unsupported(Feature::Type))?;
                    self.tables.push(table.ty);
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    self.memory(memory?)?;
                }
            }
            Payload::GlobalSection(section) => {
                for global in section {
                    let global = global?;
                    self.global(global.ty, global.init_expr)?;
                }
            }
            Payload::ExportSection(section) => {
                self.exports = section.into_iter().collect::<Result<_, _>>()?;
            }
            Payload::StartSection { func, .. } => self.start = Some(func),
            Payload::ElementSection(section) => {
                for element in section {
                    self.element(element?)?;
                }
            }
            Payload::DataCountSection { .. } => self.data_count = true,
            Payload::DataSection(section) => {
                for data in section {
                    let data = data?;
                    if let DataKind::Active { offset_expr, .. } = &data.kind {
                        self.take_addresses(offset_expr)?;
                    }
                    let passive = matches!(data.kind, DataKind::Passive);
                    let raw = &wasm[data.range];
                    self.data.push(DataSegment { raw, passive });
                }
            }
            Payload::TagSection(_) => return Err(unsupported(Feature::Definition("exceptions"))),
            Payload::CustomSection(section) => {
                if section.name() == abi::SECTION {
                    return Err(InstrumentError::AlreadyRewritten);
                }
                if let KnownCustom::Name(names) = section.as_known() {
                    for name in names.into_iter().map_while(Result::ok) {
                        self.names(name);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn types(&mut self, group: wasmparser::RecGroup) -> Result<(), InstrumentError> {
        let explicit = group.is_explicit_rec_group();
        for ty in group.into_types() {
            let wasmparser::CompositeInnerType::Func(function) = &ty.composite_type.inner else {
                return Err(unsupported(Feature::Definition("gc")));
            };
            if explicit || ty.supertype_idx.is_some() || !ty.is_final || ty.composite_type.shared {
                return Err(unsupported(Feature::Definition("gc")));
            }
            if function
                .params()
                .iter()
                .chain(function.results())
                .any(|ty| encode_type(*ty).is_none())
            {
                return Err(unsupported(Feature::Type));
            }
            self.types.push(function.clone());
        }
        Ok(())
    }

    fn imports(&mut self, imports: Imports<'a>) -> Result<(), InstrumentError> {
        let Imports::Single(_, import) = imports else {
            return Err(unsupported(Feature::Definition("compact imports")));
        };
        let kind = match import.ty {
            TypeRef::Func(ty) => {
                let function = &self.types[ty as usize];
                let mut types = function.params().iter().chain(function.results());
                if !types.any(|ty| ty.is_reference_type()) {
                    self.imports.push((import.module, import.name, ty));
                    return Ok(());
                }
                "function of references"
            }
            TypeRef::Table(_) => "table",
            TypeRef::Memory(_) => "memory",
            TypeRef::Global(_) => "global",
            TypeRef::Tag(_) => "tag",
            TypeRef::FuncExact(_) => "exact function",
        };
        let (module, name) = (String::from(import.module), String::from(import.name));
        Err(unsupported(Feature::Import { kind, module, name }))
    }

    fn memory(&mut self, memory: MemoryType) -> Result<(), InstrumentError> {
        let kind = match memory {
            MemoryType { memory64: true, .. } => "64-bit",
            MemoryType { shared: true, .. } => "shared",
            MemoryType {
                page_size_log2: Some(_),
                ..
            } => "custom-page-size",
            _ if self.memory.is_some() => return Err(unsupported(Feature::SeveralMemories)),
            _ => {
                self.memory = Some(memory);
                return Ok(());
            }
        };
        Err(unsupported(Feature::MemoryKind(kind)))
    }

    fn global(&mut self, ty: GlobalType, init: ConstExpr<'a>) -> Result<(), InstrumentError> {
        if ty.shared || encode_type(ty.content_type).is_none() {
            return Err(unsupported(Feature::Type));
        }
        self.take_addresses(&init)?;
        self.globals.push((ty, init));
        Ok(())
    }

    fn element(&mut self, element: Element<'a>) -> Result<(), InstrumentError> {
        if let ElementKind::Active { offset_expr, .. } = &element.kind {
            self.take_addresses(offset_expr)?;
        }
        match &element.items {
            ElementItems::Functions(functions) => {
                for function in functions.clone() {
                    self.address_taken.insert(function?);
                }
            }
            ElementItems::Expressions(ty, expressions) => {
                plain_reference(*ty).ok_or_else(|| unsupported(Feature::Type))?;
                for expression in expressions.clone() {
                    self.take_addresses(&expression?)?;
                }
            }
        }
        self.elements.push(element);
        Ok(())
    }

    fn take_addresses(&mut self, expression: &ConstExpr<'a>) -> Result<(), InstrumentError> {
        for operator in expression.get_operators_reader() {
            let operator = operator?;
            if let Operator::RefFunc { function_index } = operator {
                self.address_taken.insert(function_index);
            } else if matches!(operator, Operator::GlobalGet { .. }) {
                // Of a global of its own: none is imported.
                return Err(unsupported(Feature::Proposal("gc")));
            } else if !allowed(&operator) {
                return Err(unsupported(Feature::Proposal(proposal(&operator))));
            }
        }
        Ok(())
    }

    fn names(&mut self, name: Name<'a>) {
        match name {
            Name::Module { name, .. } => self.module_name = Some(name),
            Name::Function(names) => {
                for naming in names.into_iter().map_while(Result::ok) {
                    self.function_names.insert(naming.index, naming.name);
                }
            }
            _ => {}
        }
    }

    /// Whether there are tables or segments of external references.
    pub(super) fn has_externals(&self) -> bool {
        let external = |element: &Element<'_>| {
            let ty = RefType::EXTERNREF;
            matches!(element.items, ElementItems::Expressions(items, _) if items == ty)
        };
        let mut tables = self.tables.iter();
        tables.any(|table| table.element_type == RefType::EXTERNREF)
            || self.elements.iter().any(external)
    }

    fn check_exports(&mut self) -> Result<(), InstrumentError> {
        let mut entry = None;
        for export in &self.exports {
            if export.name.starts_with(abi::RESERVED_PREFIX) {
                return Err(InstrumentError::ReservedExport(String::from(export.name)));
            }
            if export.name == abi::MEMORY && export.kind != ExternalKind::Memory {
                return Err(InstrumentError::ReservedExport(String::from(export.name)));
            }
            if export.name == "_start" && export.kind == ExternalKind::Func {
                entry = Some(export.index);
            }
        }
        let entry = entry.filter(|&index| self.defined(index).is_some());
        self.entry = entry.ok_or(InstrumentError::NoStart)?;
        let ty = self.function_type(self.entry);
        if !ty.params().is_empty() || !ty.results().is_empty() {
            return Err(InstrumentError::NoStart);
        }
        Ok(())
    }

    /// Validates the code of all functions and says whom they call.
    pub(super) fn outlines(&mut self) -> Result<Vec<Outline>, InstrumentError> {
        let bodies = core::mem::take(&mut self.bodies);
        let mut outlines = Vec::new();
        for body in &bodies {
            outlines.push(self.outline(body)?);
        }
        self.bodies = bodies;
        Ok(outlines)
    }

    fn outline(&mut self, body: &Body<'a>) -> Result<Outline, InstrumentError> {
        let mut outline = Outline::default();
        let mut validator = fresh(&body.validation).into_validator(Default::default());
        validator.read_locals(&mut body.code.get_binary_reader())?;
        let index = body.validation.index;
        for local in body.code.get_locals_reader()? {
            let (_, ty) = local?;
            if encode_type(ty).is_none() {
                return Err(self.unsupported_in(index, Feature::Type));
            }
            self.uses.any |= ty.is_reference_type();
        }
        let mut reader = body.code.get_operators_reader()?;
        let mut after_comparison = false;
        let (mut blocks, mut loops) = (Vec::new(), 0);
        while !reader.eof() {
            let (operator, offset) = reader.read_with_offset()?;
            let is_select = matches!(operator, Operator::Select | Operator::TypedSelect { .. });
            outline.selects |= after_comparison && is_select;
            after_comparison = is_comparison(&operator);
            if !allowed(&operator) {
                return Err(self.unsupported_in(index, Feature::Proposal(proposal(&operator))));
            }
            validator.op(offset, &operator)?;
            self.uses.operator(&operator);
            match operator {
                Operator::ReturnCall { function_index } => {
                    Sites::note(&mut outline.calls, function_index, loops > 0);
                    outline.tail_calls.insert(function_index);
                }
                Operator::ReturnCallIndirect { type_index, .. } => {
                    Sites::note(&mut outline.indirect, type_index, loops > 0);
                    outline.tail_indirect.insert(type_index);
                }
                Operator::Call { function_index } => {
                    Sites::note(&mut outline.calls, function_index, loops > 0);
                }
                Operator::CallIndirect { type_index, .. } => {
                    Sites::note(&mut outline.indirect, type_index, loops > 0);
                }
                Operator::Block { blockty } | Operator::If { blockty } => {
                    self.uses.any |= is_reference(blockty);
                    blocks.push(false);
                }
                Operator::Loop { blockty } => {
                    self.uses.any |= is_reference(blockty);
                    outline.has_loop = true;
                    loops += 1;
                    blocks.push(true);
                }
                Operator::End => loops -= usize::from(blocks.pop() == Some(true)),
                Operator::RefFunc { function_index } => {
                    self.address_taken.insert(function_index);
                }
                Operator::DataDrop { data_index } => {
                    self.dropped_segments.insert(data_index);
                }
                _ => {}
            }
        }
        reader.finish()?;
        Ok(outline)
    }

    /// An error about a function of the program.
    pub(super) fn unsupported_in(&self, function: u32, feature: Feature) -> InstrumentError {
        InstrumentError::Unsupported {
            function: Some(self.function_name(function)),
            feature,
        }
    }

    /// Index and name.
    pub(super) fn function_name(&self, index: u32) -> FunctionName {
        let name = self
            .function_names
            .get(&index)
            .map(|name| String::from(*name));
        FunctionName { index, name }
    }

    /// Position among the defined functions; `None` for an import.
    pub(super) fn defined(&self, function: u32) -> Option<usize> {
        (function as usize).checked_sub(self.imports.len())
    }

    /// Type index of a function of the program.
    pub(super) fn type_index(&self, function: u32) -> u32 {
        match self.defined(function) {
            Some(position) => self.functions[position],
            None => self.imports[function as usize].2,
        }
    }

    /// Type of a function of the program.
    pub(super) fn function_type(&self, function: u32) -> &FuncType {
        &self.types[self.type_index(function) as usize]
    }
}

/// A second handle for validating the same function.
pub(super) fn fresh(
    validation: &FuncToValidate<ValidatorResources>,
) -> FuncToValidate<ValidatorResources> {
    FuncToValidate {
        resources: validation.resources.clone(),
        index: validation.index,
        ty: validation.ty,
        features: validation.features,
    }
}

fn unsupported(feature: Feature) -> InstrumentError {
    InstrumentError::Unsupported {
        function: None,
        feature,
    }
}

/// `funcref` or `externref` for a reference type that is no more than that.
fn plain_reference(ty: RefType) -> Option<wasm_encoder::RefType> {
    match ty {
        RefType::FUNCREF => Some(wasm_encoder::RefType::FUNCREF),
        RefType::EXTERNREF => Some(wasm_encoder::RefType::EXTERNREF),
        _ => None,
    }
}

fn is_reference(ty: BlockType) -> bool {
    matches!(ty, BlockType::Type(ValType::Ref(_)))
}

/// The type that it becomes; `None` for types that are refused.
pub(super) fn encode_type(ty: ValType) -> Option<wasm_encoder::ValType> {
    Some(match ty {
        ValType::I32 => wasm_encoder::ValType::I32,
        ValType::I64 => wasm_encoder::ValType::I64,
        ValType::F32 => wasm_encoder::ValType::F32,
        ValType::F64 => wasm_encoder::ValType::F64,
        ValType::V128 => wasm_encoder::ValType::V128,
        ValType::Ref(ty) => {
            plain_reference(ty)?;
            wasm_encoder::ValType::I32
        }
    })
}

macro_rules! define_proposal {
    ($(@$proposal:ident $op:ident $({ $($arg:ident: $argty:ty),* })? => $visit:ident ($($ann:tt)*))*) => {
        /// The proposal that brought an instruction.
        pub(super) fn proposal(operator: &Operator<'_>) -> &'static str {
            match operator {
                $(Operator::$op { .. } => stringify!($proposal),)*
                _ => "unknown",
            }
        }
    };
}
wasmparser::for_each_operator!(define_proposal);

/// Whether a resumable program may have this instruction.
pub(super) fn allowed(operator: &Operator<'_>) -> bool {
    matches!(
        proposal(operator),
        "mvp"
            | "sign_extension"
            | "saturating_float_to_int"
            | "bulk_memory"
            | "reference_types"
            | "extended_const"
            | "simd"
            | "tail_call"
    )
}
