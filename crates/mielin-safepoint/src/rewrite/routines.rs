//! Functions that write and read frames.
//!
//! Where a function can be stopped it hands what lives there to one of these as arguments, and when it is resumed it
//! gets it back as results. They are shared by all frames of the same types, so that a suspension point costs two bytes
//! for each value and direction instead of nine. Small functions with loops do without: there the calls, though hardly
//! ever made, cost moves in the loop (docs/ARCHITECTURE.md has figures).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use wasm_encoder::MemArg;

use super::function::BlockTypes;
use super::sink::{FRAMES_MEMORY, Sink, Ty, Written, word};
use crate::abi;

/// Most values that one of these functions takes or gives; a larger frame needs several.
pub(super) const VALUES_MAX: usize = 128;

/// What a frame holds: values, the identity of the function if it has one, and the number of the point in its last four
/// bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    /// Bytes of the values before these.
    pub(super) skipped: u64,
    pub(super) values: Vec<Ty>,
    /// See [`super::tail`].
    pub(super) identity: bool,
}

impl Shape {
    fn size(&self) -> u64 {
        let values: u64 = self.values.iter().map(|ty| ty.size()).sum();
        let identity = if self.identity { 4 } else { 0 };
        (self.skipped + values + identity + 4).next_multiple_of(8)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Routine {
    /// Writes some of a frame's values.
    Part(Shape),
    /// Writes values, the identity and the number of the point, and moves the stack pointer.
    Write(Shape),
    /// The same, and begins an unwind.
    Stop(Shape),
    /// Removes the uppermost frame, of which bytes stay until the next one is written, and gives values of it.
    Pop(Shape),
    /// Gives values of the frame that was removed last.
    Read(Shape),
    /// Notes the number of the point of the uppermost frame, and gives it.
    Point,
    /// Ends a rewind, see [`Sink::finish_flag`].
    Go,
}

/// The functions that a module needs, in the order in which they were asked for.
pub(super) struct Routines {
    first: u32,
    index: BTreeMap<Routine, u32>,
    all: Vec<Routine>,
}

impl Routines {
    /// Functions that begin with this index.
    pub(super) fn new(first: u32) -> Routines {
        Routines {
            first,
            index: BTreeMap::new(),
            all: Vec::new(),
        }
    }

    /// The index of a function.
    pub(super) fn index(&mut self, routine: Routine) -> u32 {
        let next = self.first + self.all.len() as u32;
        if let Some(index) = self.index.get(&routine) {
            return *index;
        }
        self.all.push(routine.clone());
        self.index.insert(routine, next);
        next
    }

    /// Types and code of all of them.
    pub(super) fn write(self, mode: u32, types: &mut BlockTypes) -> Vec<(u32, Written)> {
        let write = |routine: &Routine| {
            let (ty, locals, out) = code(routine, mode, types);
            let mut bytes = Vec::new();
            if locals == 0 {
                bytes.push(0);
            } else {
                bytes.extend_from_slice(&[1, locals, 0x7f]);
            }
            bytes.extend_from_slice(&out.code);
            let hints = Vec::new();
            (ty, Written { bytes, hints })
        };
        self.all.iter().map(write).collect()
    }
}

/// Type, number of locals beside the parameters, and code.
fn code(routine: &Routine, mode: u32, types: &mut BlockTypes) -> (u32, u8, Sink) {
    let mut out = Sink::default();
    let (params, results, locals) = match routine {
        Routine::Part(shape) => {
            let base = shape.values.len() as u32;
            write_values(&mut out, shape, 0.., base);
            (shape.values.clone(), Vec::new(), 1)
        }
        Routine::Write(shape) | Routine::Stop(shape) => {
            let mut params = shape.values.clone();
            params.extend_from_slice(&[Ty::I32; 2][usize::from(!shape.identity)..]);
            let first = shape.values.len() as u32;
            let (identity, base) = (first, params.len() as u32);
            write_values(&mut out, shape, 0.., base);
            write_end(&mut out, shape, base, |out, number| {
                let local = match number {
                    Number::Identity => identity,
                    Number::Point => base - 1,
                };
                out.op().local_get(local);
            });
            if matches!(routine, Routine::Stop(_)) {
                out.set_state(abi::UNWINDING, mode);
            }
            (params, Vec::new(), 1)
        }
        Routine::Pop(shape) => {
            remove_frame(&mut out, shape);
            read_values(&mut out, shape);
            (Vec::new(), shape.values.clone(), 1)
        }
        Routine::Read(shape) => {
            read_values(&mut out, shape);
            (Vec::new(), shape.values.clone(), 1)
        }
        Routine::Point => {
            note_point(&mut out);
            out.load_word(abi::POINT_ADDRESS);
            (Vec::new(), alloc::vec![Ty::I32], 0)
        }
        Routine::Go => {
            out.finish_flag();
            (Vec::new(), Vec::new(), 0)
        }
    };
    out.op().end();
    (types.function(&params, &results), locals, out)
}

fn at(offset: u64) -> MemArg {
    MemArg {
        offset,
        align: 2,
        memory_index: FRAMES_MEMORY,
    }
}

/// Writes values from these locals. Leaves the start of the frame in the local `base`.
pub(super) fn write_values(
    out: &mut Sink,
    shape: &Shape,
    locals: impl Iterator<Item = u32>,
    base: u32,
) {
    out.load_word(abi::STACK_POINTER_ADDRESS);
    out.op().local_set(base);
    let mut offset = shape.skipped;
    for (local, ty) in locals.zip(&shape.values) {
        let mut op = out.op();
        op.local_get(base).local_get(local);
        match ty {
            Ty::I32 => op.i32_store(at(offset)),
            Ty::I64 => op.i64_store(at(offset)),
            Ty::F32 => op.f32_store(at(offset)),
            Ty::F64 => op.f64_store(at(offset)),
            Ty::V128 => op.v128_store(at(offset)),
        };
        offset += ty.size();
    }
}

/// What stands at the end of a frame.
pub(super) enum Number {
    Identity,
    Point,
}

/// Writes the rest of a frame and moves the stack pointer.
pub(super) fn write_end(
    out: &mut Sink,
    shape: &Shape,
    base: u32,
    push: impl Fn(&mut Sink, Number),
) {
    let size = shape.size();
    if shape.identity {
        out.op().local_get(base);
        push(out, Number::Identity);
        out.op().i32_store(at(size - 8));
    }
    out.op().local_get(base);
    push(out, Number::Point);
    let mut op = out.op();
    op.i32_store(at(size - 4));
    op.i32_const(0)
        .local_get(base)
        .i32_const(size as i32)
        .i32_add();
    out.store_word(abi::STACK_POINTER_ADDRESS);
}

fn read_values(out: &mut Sink, shape: &Shape) {
    out.load_word(abi::STACK_POINTER_ADDRESS);
    out.op().local_set(0);
    let mut offset = shape.skipped;
    for ty in &shape.values {
        out.op().local_get(0);
        read_value(out, *ty, offset);
        offset += ty.size();
    }
}

/// Removes the uppermost frame.
pub(super) fn remove_frame(out: &mut Sink, shape: &Shape) {
    out.op().i32_const(0);
    out.load_word(abi::STACK_POINTER_ADDRESS);
    out.op().i32_const(shape.size() as i32).i32_sub();
    out.store_word(abi::STACK_POINTER_ADDRESS);
}

/// Notes the number of the point of the uppermost frame, for the dispatches.
pub(super) fn note_point(out: &mut Sink) {
    out.op().i32_const(0);
    out.load_word(abi::STACK_POINTER_ADDRESS);
    out.op().i32_const(4).i32_sub().i32_load(word(0));
    out.store_word(abi::POINT_ADDRESS);
}

/// The address is on the stack.
pub(super) fn read_value(out: &mut Sink, ty: Ty, offset: u64) {
    let mut op = out.op();
    match ty {
        Ty::I32 => op.i32_load(at(offset)),
        Ty::I64 => op.i64_load(at(offset)),
        Ty::F32 => op.f32_load(at(offset)),
        Ty::F64 => op.f64_load(at(offset)),
        Ty::V128 => op.v128_load(at(offset)),
    };
}
