//! References as numbers.
//!
//! In a rewritten module a reference is an `i32`: 0 is null, and the functions that a reference can
//! name are counted from 1. So a snapshot can hold it wherever it is: in a local, on the stack, in a
//! global. An `externref` is always null, because nobody gives a program another one: imports with
//! references in their types are refused.
//!
//! The tables of a module that never looks into them (that of a C or Rust program, which only calls
//! through its table) stay as they are. In all others each table becomes an array of numbers in a
//! memory of its own, which only the functions of [`table_code`](super::table_code) touch, and a call
//! through it looks up the number and calls through a table that never changes. The arrays are
//! part of what [`abi::ENTRY`](crate::abi::ENTRY) writes behind the frames.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use wasmparser::{ElementItems, ElementKind, FuncType, Operator, ValType};

use super::graph::canonical_types;
use super::program::Program;
use super::sink::Sink;
use crate::InstrumentError;

/// Most elements that a table which became an array may have; `table.grow` beyond it fails.
pub(super) const ELEMENTS_MAX: u32 = 1 << 18;
/// Most tables that may become arrays, each of which takes a memory.
pub(crate) const TABLES_MAX: usize = 16;
/// Most pages of such a memory.
pub(crate) const ARRAY_PAGES_MAX: u64 = ELEMENTS_MAX as u64 * ELEMENT_BYTES / PAGE_BYTES;
/// Bytes of an element.
pub(super) const ELEMENT_BYTES: u64 = 4;
const PAGE_BYTES: u64 = 65536;
/// The first memory after the program's and the frames.
const FIRST_MEMORY: u32 = 2;

/// A function that stands for an instruction on a table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Helper {
    /// The number of an element, or one that cannot be called.
    Index(u32),
    Get(u32),
    Set(u32),
    Grow(u32),
    Fill(u32),
    /// Destination, source.
    Copy(u32, u32),
    /// Table, segment.
    Init(u32, u32),
}

/// A table as an array of numbers.
pub(super) struct Array {
    pub(super) memory: u32,
    /// The global that holds the number of elements.
    pub(super) size: u32,
    pub(super) initial: u32,
    pub(super) maximum: u32,
}

impl Array {
    pub(super) fn pages(&self) -> u64 {
        (u64::from(self.maximum) * ELEMENT_BYTES).div_ceil(PAGE_BYTES)
    }
}

/// An element segment as data.
pub(super) struct Segment {
    pub(super) numbers: Vec<u32>,
    /// Index of the data segment.
    pub(super) data: u32,
    /// Table and first element; none for a passive segment.
    pub(super) place: Option<(u32, u32)>,
    /// Into the table. Where it does not, instantiation traps.
    pub(super) fits: bool,
}

/// Tables as arrays.
pub(super) struct Arrays {
    pub(super) arrays: Vec<Array>,
    /// By element segment; those that are dropped from the start are absent.
    pub(super) segments: BTreeMap<u32, Segment>,
    /// In the order of their indices, which begin at `first_helper`.
    pub(super) helpers: Vec<Helper>,
    first_helper: u32,
    /// The functions by their numbers; where two types of functions differ only in what was a
    /// reference, such a table for each of them. By the first index of an equal type.
    pub(super) functions: u32,
    by_type: BTreeMap<usize, u32>,
    canonical: Vec<usize>,
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct References {
    numbers: BTreeMap<u32, u32>,
    pub(super) arrays: Option<Arrays>,
}

/// What code does with references, collected from all functions.
#[derive(Default)]
pub(super) struct Uses {
    /// Something in the code must be written anew.
    pub(super) any: bool,
    pub(super) helpers: BTreeSet<Helper>,
    /// An instruction looks at a table or changes it.
    tables: bool,
    pub(super) dropped: BTreeSet<u32>,
}

impl Uses {
    pub(super) fn operator(&mut self, operator: &Operator<'_>) {
        let helper = match *operator {
            Operator::RefNull { .. }
            | Operator::RefIsNull
            | Operator::RefFunc { .. }
            | Operator::TypedSelect { .. } => {
                self.any = true;
                return;
            }
            Operator::CallIndirect { table_index, .. }
            | Operator::ReturnCallIndirect { table_index, .. } => {
                self.helpers.insert(Helper::Index(table_index));
                return;
            }
            Operator::TableSize { .. } => None,
            Operator::ElemDrop { elem_index } => {
                self.dropped.insert(elem_index);
                None
            }
            Operator::TableGet { table } => Some(Helper::Get(table)),
            Operator::TableSet { table } => Some(Helper::Set(table)),
            Operator::TableFill { table } => Some(Helper::Fill(table)),
            Operator::TableGrow { table } => {
                self.helpers.insert(Helper::Fill(table));
                Some(Helper::Grow(table))
            }
            Operator::TableCopy {
                dst_table,
                src_table,
            } => Some(Helper::Copy(dst_table, src_table)),
            Operator::TableInit { elem_index, table } => Some(Helper::Init(table, elem_index)),
            _ => return,
        };
        self.helpers.extend(helper);
        self.any = true;
        self.tables = true;
    }
}

/// A function type with numbers in the place of references.
fn lowered(ty: &FuncType) -> Vec<Option<ValType>> {
    let lower = |ty: &ValType| {
        Some(match ty {
            ValType::Ref(_) => ValType::I32,
            number => *number,
        })
    };
    let params = ty.params().iter().map(lower);
    params
        .chain([None])
        .chain(ty.results().iter().map(lower))
        .collect()
}

/// The types, by their first indices, that differ from another one only in what was a reference.
fn ambiguous(types: &[FuncType], canonical: &[usize]) -> Vec<usize> {
    let mut classes: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (index, ty) in types.iter().enumerate() {
        if canonical[index] == index {
            classes.entry(lowered(ty)).or_default().push(index);
        }
    }
    let several = classes.into_values().filter(|class| class.len() > 1);
    let mut several: Vec<usize> = several.flatten().collect();
    several.sort_unstable();
    several
}

/// First indices of what the rewriter may add.
pub(super) struct Free {
    pub(super) global: u32,
    pub(super) function: u32,
    pub(super) table: u32,
    pub(super) data: u32,
}

impl References {
    pub(super) fn of(program: &Program<'_>, free: Free) -> Result<References, InstrumentError> {
        let taken = program.address_taken.iter().copied();
        let mut references = References {
            numbers: taken.zip(1..).collect(),
            arrays: None,
        };
        let canonical = canonical_types(&program.types);
        let ambiguous = ambiguous(&program.types, &canonical);
        if program.uses.tables || program.has_externals() || !ambiguous.is_empty() {
            references.arrays = Some(Arrays {
                arrays: arrays(program, free.global)?,
                segments: references.segments(program, free.data)?,
                helpers: program.uses.helpers.iter().copied().collect(),
                first_helper: free.function,
                functions: free.table,
                by_type: ambiguous.into_iter().zip(free.table + 1..).collect(),
                canonical,
            });
        }
        Ok(references)
    }

    /// The number of a function to which there are references; 0 for others.
    pub(super) fn number(&self, function: u32) -> u32 {
        self.numbers.get(&function).copied().unwrap_or(0)
    }

    /// The value of a constant expression that gives a reference.
    pub(super) fn constant(
        &self,
        expression: &wasmparser::ConstExpr<'_>,
    ) -> Result<u32, InstrumentError> {
        Ok(match expression.get_operators_reader().read()? {
            Operator::RefFunc { function_index } => self.number(function_index),
            _ => 0,
        })
    }

    fn segments(
        &self,
        program: &Program<'_>,
        first: u32,
    ) -> Result<BTreeMap<u32, Segment>, InstrumentError> {
        let mut segments = BTreeMap::new();
        for (element, index) in program.elements.iter().zip(0..) {
            let numbers: Vec<u32> = match &element.items {
                ElementItems::Functions(functions) => {
                    let functions = functions.clone().into_iter();
                    let numbers = functions.map(|function| Ok(self.number(function?)));
                    numbers.collect::<Result<_, InstrumentError>>()?
                }
                ElementItems::Expressions(_, expressions) => {
                    let expressions = expressions.clone().into_iter();
                    let numbers = expressions.map(|expression| self.constant(&expression?));
                    numbers.collect::<Result<_, InstrumentError>>()?
                }
            };
            let place = match &element.kind {
                ElementKind::Passive => None,
                ElementKind::Declared => continue,
                ElementKind::Active {
                    table_index,
                    offset_expr,
                } => Some((table_index.unwrap_or(0), offset(offset_expr)?)),
            };
            let fits = |(table, at): (u32, u32)| {
                let end = u64::from(at) + numbers.len() as u64;
                end <= program.tables[table as usize].initial
            };
            let data = first + segments.len() as u32;
            let segment = Segment {
                fits: place.is_none_or(fits),
                numbers,
                data,
                place,
            };
            segments.insert(index, segment);
        }
        Ok(segments)
    }

    /// Writes an instruction on references. False for any other.
    pub(super) fn lower(&self, operator: &Operator<'_>, out: &mut Sink) -> bool {
        match *operator {
            Operator::RefNull { .. } => {
                out.op().i32_const(0);
            }
            Operator::RefIsNull => {
                out.op().i32_eqz();
            }
            Operator::RefFunc { function_index } => {
                out.op().i32_const(self.number(function_index) as i32);
            }
            Operator::TypedSelect {
                ty: ValType::Ref(_),
            } => {
                out.op().select();
            }
            _ => {
                let arrays = self.arrays.as_ref();
                return arrays.is_some_and(|arrays| arrays.lower(operator, out));
            }
        }
        true
    }
}

impl Arrays {
    /// Index of a function that stands for an instruction.
    pub(super) fn helper(&self, helper: Helper) -> u32 {
        let position = self.helpers.binary_search(&helper);
        self.first_helper + position.unwrap_or_else(|position| position) as u32
    }

    /// The data segment that a passive element segment became.
    pub(super) fn passive(&self, element: u32) -> Option<&Segment> {
        let segment = self.segments.get(&element)?;
        segment.place.is_none().then_some(segment)
    }

    /// The table through which functions of a type are called.
    pub(super) fn functions_of(&self, ty: u32) -> u32 {
        let by_type = self.by_type.get(&self.canonical[ty as usize]);
        by_type.copied().unwrap_or(self.functions)
    }

    /// The tables of [`functions_of`](Self::functions_of) in the order of their indices: the type
    /// that each is for, and none for the first.
    pub(super) fn function_tables(&self) -> impl Iterator<Item = Option<usize>> {
        let types = self.by_type.keys().copied().map(Some);
        core::iter::once(None).chain(types)
    }

    /// Whether a function may be in the table for a type. One that differs from it anyway may.
    pub(super) fn may_hold(&self, table: Option<usize>, types: &[FuncType], ty: u32) -> bool {
        let canonical = self.canonical[ty as usize];
        let same = |wanted: usize| lowered(&types[wanted]) == lowered(&types[canonical]);
        table.is_none_or(|wanted| wanted == canonical || !same(wanted))
    }

    fn lower(&self, operator: &Operator<'_>, out: &mut Sink) -> bool {
        let helper = match *operator {
            Operator::TableGet { table } => Helper::Get(table),
            Operator::TableSet { table } => Helper::Set(table),
            Operator::TableFill { table } => Helper::Fill(table),
            Operator::TableGrow { table } => Helper::Grow(table),
            Operator::TableCopy {
                dst_table,
                src_table,
            } => Helper::Copy(dst_table, src_table),
            Operator::TableInit { elem_index, table } => Helper::Init(table, elem_index),
            Operator::TableSize { table } => {
                out.op().global_get(self.arrays[table as usize].size);
                return true;
            }
            _ => return false,
        };
        out.op().call(self.helper(helper));
        true
    }
}

fn arrays(program: &Program<'_>, first_global: u32) -> Result<Vec<Array>, InstrumentError> {
    let too_large = |what, limit| InstrumentError::TooLarge {
        function: None,
        what,
        limit,
    };
    if program.tables.len() > TABLES_MAX {
        return Err(too_large("tables", TABLES_MAX as u64));
    }
    let array = |(table, index): (&wasmparser::TableType, u32)| {
        let limit = u64::from(ELEMENTS_MAX);
        if table.initial > limit {
            return Err(too_large("elements of a table", limit));
        }
        Ok(Array {
            memory: FIRST_MEMORY + index,
            size: first_global + index,
            initial: table.initial as u32,
            maximum: table.maximum.unwrap_or(limit).min(limit) as u32,
        })
    };
    program.tables.iter().zip(0..).map(array).collect()
}

/// The value of a constant expression for an offset: there are no imported globals.
fn offset(expression: &wasmparser::ConstExpr<'_>) -> Result<u32, InstrumentError> {
    let mut stack: Vec<i32> = Vec::new();
    for operator in expression.get_operators_reader() {
        let operator = operator?;
        if let Operator::I32Const { value } = operator {
            stack.push(value);
            continue;
        }
        let operate = match operator {
            Operator::I32Add => i32::wrapping_add,
            Operator::I32Sub => i32::wrapping_sub,
            Operator::I32Mul => i32::wrapping_mul,
            _ => continue,
        };
        if let (Some(right), Some(left)) = (stack.pop(), stack.pop()) {
            stack.push(operate(left, right));
        }
    }
    Ok(stack.pop().unwrap_or(0) as u32)
}
