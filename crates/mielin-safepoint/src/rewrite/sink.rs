//! The code of one function while it is written: open blocks, added locals, frames.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use wasm_encoder::{BlockType, Encode, InstructionSink, MemArg};
use wasmparser::ValType;

use super::routines::{Shape, VALUES_MAX};
use crate::abi;

/// Index of the frames memory: the program has exactly one of its own.
pub(crate) const FRAMES_MEMORY: u32 = 1;
/// Largest code of a function that engines accept (the limit of the JavaScript interface).
pub(crate) const CODE_BYTES_MAX: usize = 7_654_321;
/// Most locals of a function that engines accept.
pub(crate) const LOCALS_MAX: u32 = 50_000;

/// A value's type as far as the rewriter tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ty {
    I32,
    I64,
    F32,
    F64,
    V128,
}

impl Ty {
    /// References are numbers, see [`super::references`].
    pub(super) fn of(ty: ValType) -> Ty {
        match ty {
            ValType::I32 => Ty::I32,
            ValType::I64 => Ty::I64,
            ValType::F32 => Ty::F32,
            ValType::F64 => Ty::F64,
            ValType::V128 => Ty::V128,
            ValType::Ref(_) => Ty::I32,
        }
    }

    pub(super) fn encode(self) -> wasm_encoder::ValType {
        match self {
            Ty::I32 => wasm_encoder::ValType::I32,
            Ty::I64 => wasm_encoder::ValType::I64,
            Ty::F32 => wasm_encoder::ValType::F32,
            Ty::F64 => wasm_encoder::ValType::F64,
            Ty::V128 => wasm_encoder::ValType::V128,
        }
    }

    pub(super) fn size(self) -> u64 {
        match self {
            Ty::I32 | Ty::F32 => 4,
            Ty::I64 | Ty::F64 => 8,
            Ty::V128 => 16,
        }
    }
}

/// Locals of a function, with the ones that the rewriter adds.
pub(super) struct Locals {
    original: Vec<Ty>,
    declared: u32,
    groups: Vec<(u32, wasm_encoder::ValType)>,
    added: Vec<Ty>,
    shadows: BTreeMap<(usize, Ty), u32>,
    zeros: BTreeMap<Ty, u32>,
}

impl Locals {
    /// `params` and the groups of the declared locals.
    pub(super) fn new(params: impl Iterator<Item = Ty>, groups: &[(u32, Ty)]) -> Locals {
        let mut original: Vec<Ty> = params.collect();
        for (count, ty) in groups {
            original.extend(core::iter::repeat_n(*ty, *count as usize));
        }
        Locals {
            declared: original.len() as u32,
            original,
            groups: groups
                .iter()
                .map(|(count, ty)| (*count, ty.encode()))
                .collect(),
            added: Vec::new(),
            shadows: BTreeMap::new(),
            zeros: BTreeMap::new(),
        }
    }

    /// Number of the function's own parameters and locals.
    pub(super) fn originals(&self) -> usize {
        self.original.len()
    }

    /// Type of one of the function's own locals.
    pub(super) fn original(&self, local: u32) -> Ty {
        self.original[local as usize]
    }

    /// A new local.
    pub(super) fn add(&mut self, ty: Ty) -> u32 {
        self.added.push(ty);
        self.declared + self.added.len() as u32 - 1
    }

    /// The local in which the operand at this height of the stack is kept.
    pub(super) fn shadow(&mut self, height: usize, ty: Ty) -> u32 {
        if let Some(&local) = self.shadows.get(&(height, ty)) {
            return local;
        }
        let local = self.add(ty);
        self.shadows.insert((height, ty), local);
        local
    }

    /// A local that is always zero.
    pub(super) fn zero(&mut self, ty: Ty) -> u32 {
        if let Some(&local) = self.zeros.get(&ty) {
            return local;
        }
        let local = self.add(ty);
        self.zeros.insert(ty, local);
        local
    }

    /// Number of all of them.
    pub(super) fn count(&self) -> u32 {
        self.declared + self.added.len() as u32
    }

    fn encode(&self, sink: &mut Vec<u8>) {
        let mut groups = self.groups.clone();
        for ty in &self.added {
            match groups.last_mut() {
                Some((count, last)) if *last == ty.encode() => *count += 1,
                _ => groups.push((1, ty.encode())),
            }
        }
        groups.len().encode(sink);
        for (count, ty) in groups {
            count.encode(sink);
            ty.encode(sink);
        }
    }
}

/// A value that a suspension point keeps.
#[derive(Clone, Copy)]
pub(super) struct Value {
    pub(super) local: u32,
    pub(super) ty: Ty,
    /// Index of the body whose dispatch reads it back.
    pub(super) body: usize,
}

/// What a suspension point keeps, in the order of the frame.
#[derive(Clone, Default)]
pub(super) struct Kept {
    pub(super) values: Vec<Value>,
    /// Of the function, if its frames need one: see [`super::tail`].
    pub(super) identity: Option<u32>,
}

impl Kept {
    /// The frame in the parts in which it is written.
    pub(super) fn shapes(&self) -> Vec<(Shape, &[Value])> {
        let mut parts: Vec<&[Value]> = self.values.chunks(VALUES_MAX).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        let last = parts.len() - 1;
        let mut skipped = 0;
        let shape = |(number, values): (usize, &'_ [Value])| {
            let shape = Shape {
                skipped,
                values: values.iter().map(|value| value.ty).collect(),
                identity: number == last && self.identity.is_some(),
            };
            skipped += values.iter().map(|value| value.ty.size()).sum::<u64>();
            shape
        };
        let shapes: Vec<Shape> = parts.iter().copied().enumerate().map(shape).collect();
        shapes.into_iter().zip(parts).collect()
    }

    /// Whether the dispatch of a body reads anything back.
    pub(super) fn concerns(&self, body: usize) -> bool {
        self.values.iter().any(|value| value.body == body)
    }
}

/// A piece of a function's code, with the depth of its open blocks.
#[derive(Default)]
pub(super) struct Sink {
    pub(super) code: Vec<u8>,
    /// Offsets of branches, and whether their condition is likely.
    pub(super) hints: Vec<(usize, bool)>,
    /// Number of open blocks. The function itself is the label at position 0.
    pub(super) depth: u32,
}

impl Sink {
    /// Appends instructions.
    pub(super) fn op(&mut self) -> InstructionSink<'_> {
        InstructionSink::new(&mut self.code)
    }

    /// Opens a block and gives the position of its label.
    pub(super) fn block(&mut self, ty: BlockType) -> u32 {
        self.op().block(ty);
        self.opened()
    }

    /// Takes note of a block that was opened by other means.
    pub(super) fn opened(&mut self) -> u32 {
        self.depth += 1;
        self.depth
    }

    /// Closes the innermost block.
    pub(super) fn end(&mut self) {
        self.op().end();
        self.depth -= 1;
    }

    /// The operand of a branch to the label at a position.
    pub(super) fn to(&self, position: u32) -> u32 {
        self.depth - position
    }

    /// Opens an `if` whose condition is hardly ever true.
    pub(super) fn unlikely_if(&mut self) -> u32 {
        self.hints.push((self.code.len(), false));
        self.op().if_(BlockType::Empty);
        self.opened()
    }

    /// Branches to a label if the condition is true, after which the code is hardly ever run.
    /// (Cranelift 0.135 forgets the hint of an `if` whose first branch returns.)
    pub(super) fn likely_branch(&mut self, position: u32) {
        self.hints.push((self.code.len(), true));
        let depth = self.to(position);
        self.op().br_if(depth);
    }

    /// Branches if the condition is true, which it hardly ever is; what is at the label is hardly ever run.
    pub(super) fn unlikely_branch(&mut self, depth: u32) {
        self.hints.push((self.code.len(), false));
        self.op().br_if(depth);
    }

    /// Leaves a piece of code that is hardly ever run, so that compilers see that what follows
    /// the label `next` is not either: that label is the target of an unlikely branch, too,
    /// which in truth is never reached because the stack pointer is not zero. It may be in a local.
    pub(super) fn leave_cold(&mut self, target: u32, next: u32, stack_pointer: Option<u32>) {
        let push = |out: &mut Sink| match stack_pointer {
            Some(local) => _ = out.op().local_get(local),
            None => out.load_word(abi::STACK_POINTER_ADDRESS),
        };
        push(self);
        self.likely_branch(target);
        push(self);
        let depth = self.to(next);
        self.unlikely_branch(depth);
        self.op().unreachable();
    }

    /// Pushes a control word.
    pub(super) fn load_word(&mut self, address: u32) {
        self.op().i32_const(0).i32_load(word(address));
    }

    /// Pops a control word; below it lies a zero.
    pub(super) fn store_word(&mut self, address: u32) {
        self.op().i32_store(word(address));
    }

    /// Pushes the identity in the uppermost frame.
    pub(super) fn load_identity(&mut self) {
        self.load_word(abi::STACK_POINTER_ADDRESS);
        self.op().i32_const(8).i32_sub().i32_load(word(0));
    }

    /// Sets the flag and the mode.
    pub(super) fn set_state(&mut self, state: i32, mode: u32) {
        self.op()
            .i32_const(0)
            .i32_const(state)
            .i32_store(word(abi::FLAG_ADDRESS));
        self.op().i32_const(state).global_set(mode);
    }

    /// Ends a rewind, first half: the mode. Done where a function is entered whose frame is the
    /// innermost one.
    ///
    /// Not in loops: a store to a global there makes Cranelift read the program's memory base
    /// again on every turn.
    pub(super) fn finish_mode(&mut self, mode: u32) {
        self.op().i32_const(abi::RUNNING).global_set(mode);
    }

    /// Ends a rewind, second half: the flag, at the very point where the program goes on.
    pub(super) fn finish_flag(&mut self) {
        self.op().i32_const(0);
        self.load_word(abi::NEXT_FLAG_ADDRESS);
        self.op().i32_store(word(abi::FLAG_ADDRESS));
    }

    /// Pops the values of a frame, and keeps those that are wanted.
    pub(super) fn take(&mut self, values: &[Value], is_wanted: impl Fn(&Value) -> bool) {
        let mut op = self.op();
        for value in values.iter().rev() {
            if is_wanted(value) {
                op.local_set(value.local);
            } else {
                op.drop();
            }
        }
    }

    /// Pushes a zero.
    pub(super) fn zero(&mut self, ty: Ty) {
        let mut op = self.op();
        match ty {
            Ty::I32 => op.i32_const(0),
            Ty::I64 => op.i64_const(0),
            Ty::F32 => op.f32_const(0.0.into()),
            Ty::F64 => op.f64_const(0.0.into()),
            Ty::V128 => op.v128_const(0),
        };
    }

    /// Pushes a value that nobody looks at. It comes from memory, because Cranelift would keep
    /// a constant in a register through all of the loop around this place.
    pub(super) fn any_value(&mut self, ty: Ty) {
        let at = word(abi::FLAG_ADDRESS);
        let mut op = self.op();
        match ty {
            Ty::I32 => op.i32_const(0).i32_load(at),
            Ty::I64 => op.i32_const(0).i64_load(at),
            Ty::F32 => op.i32_const(0).f32_load(at),
            Ty::F64 => op.i32_const(0).f64_load(at),
            Ty::V128 => op.i32_const(0).v128_load(at),
        };
    }

    /// Returns from an unwinding function. Nobody looks at the results: those of `values` that have the right types will
    /// do, and take less code.
    pub(super) fn return_any(&mut self, results: &[Ty], values: &[Value]) {
        for ty in results {
            match values.iter().find(|value| value.ty == *ty) {
                Some(value) => {
                    self.op().local_get(value.local);
                }
                None => self.any_value(*ty),
            }
        }
        self.op().return_();
    }

    /// This code with others inserted, each at an offset; the offsets ascend.
    pub(super) fn with(self, insertions: Vec<(usize, Sink)>) -> Sink {
        let mut whole = Sink {
            depth: self.depth,
            ..Sink::default()
        };
        let mut hints = self.hints.iter().peekable();
        let mut done = 0;
        for (at, inserted) in insertions
            .into_iter()
            .chain([(self.code.len(), Sink::default())])
        {
            let shift = whole.code.len() - done;
            while let Some((offset, likely)) = hints.next_if(|(offset, _)| *offset < at) {
                whole.hints.push((offset + shift, *likely));
            }
            whole.code.extend_from_slice(&self.code[done..at]);
            done = at;
            let start = whole.code.len();
            whole.hints.extend(
                inserted
                    .hints
                    .iter()
                    .map(|(offset, likely)| (start + offset, *likely)),
            );
            whole.code.extend_from_slice(&inserted.code);
        }
        whole
    }
}

/// A finished function body.
pub(super) struct Written {
    /// Locals and code, without the size.
    pub(super) bytes: Vec<u8>,
    /// Offsets in `bytes` of branches, and whether their condition is likely.
    pub(super) hints: Vec<(u32, bool)>,
}

/// Joins the locals and the pieces of a function.
pub(super) fn join(locals: &Locals, pieces: &[&Sink]) -> Written {
    let mut written = Written {
        bytes: Vec::new(),
        hints: Vec::new(),
    };
    locals.encode(&mut written.bytes);
    for piece in pieces {
        let start = written.bytes.len();
        for (offset, likely) in &piece.hints {
            written.hints.push(((start + offset) as u32, *likely));
        }
        written.bytes.extend_from_slice(&piece.code);
    }
    written
}

pub(super) fn word(address: u32) -> MemArg {
    MemArg {
        offset: u64::from(address),
        align: 2,
        memory_index: FRAMES_MEMORY,
    }
}
