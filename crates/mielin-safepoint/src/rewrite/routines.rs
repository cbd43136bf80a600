//! Functions that write and read frames.
//!
//! Where a function can be stopped it hands what lives there to one of these as arguments, and when it is resumed it
//! gets it back as results. They are shared by all frames of the same types, so that a suspension point costs two bytes
//! for each value and direction instead of nine. Small functions with loops that have no calls do without: there the
//! calls, though hardly ever made, cost moves in the loop (docs/ARCHITECTURE.md has figures).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use wasm_encoder::{BlockType, MemArg};

use super::function::BlockTypes;
use super::sink::{FRAMES_MEMORY, Sink, Ty, Written, word};
use crate::abi;

/// Most values that one of these functions takes or gives; a larger frame needs several, which more frames share. With
/// 128 here, samples in Rust are up to 6 % of the plain module larger; with 8, QuickJS is.
pub(super) const VALUES_MAX: usize = 12;

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
    /// Where the values are in the frame, and their types.
    fn places(&self) -> impl Iterator<Item = (u64, Ty)> {
        let place = |offset: &mut u64, ty: &Ty| {
            *offset += ty.size();
            Some((*offset - ty.size(), *ty))
        };
        self.values.iter().scan(self.skipped, place)
    }

    pub(super) fn size(&self) -> u64 {
        let values: u64 = self.values.iter().map(|ty| ty.size()).sum();
        let identity = if self.identity { 4 } else { 0 };
        (self.skipped + values + identity + 4).next_multiple_of(8)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Routine {
    /// Writes some of a frame's values.
    Part(Shape),
    /// Writes zeros in their place.
    Zero(Shape),
    /// Writes values, the identity and the number of the point, and moves the stack pointer.
    Write(Shape),
    /// Writes the number of the point to the end of a frame of so many bytes, and moves the stack pointer.
    Finish,
    /// Begins an unwind.
    Unwind,
    /// Removes the uppermost frame, which has so many bytes, and gives its address. Its bytes stay until the next one is
    /// written. Ends as much of the rewind as the number in it says.
    Remove,
    /// The same for a frame of this shape; gives values of it.
    Pop(Shape),
    /// Gives values of the frame that was removed last.
    Read(Shape),
    /// Notes the number of the point of the uppermost frame, and gives it.
    Point,
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
        match routine {
            Routine::Write(_) => _ = self.index(Routine::Finish),
            Routine::Pop(_) => _ = self.index(Routine::Remove),
            _ => {}
        }
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
        let called = |routine| self.index.get(&routine).copied().unwrap_or_default();
        let (finish, remove) = (called(Routine::Finish), called(Routine::Remove));
        let write = |routine: &Routine| {
            let callee = match routine {
                Routine::Write(_) => finish,
                _ => remove,
            };
            let (ty, locals, out) = code(routine, mode, callee, types);
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

/// Type, number of locals beside the parameters, and code. `callee` is the routine that it calls, if it does.
fn code(routine: &Routine, mode: u32, callee: u32, types: &mut BlockTypes) -> (u32, u8, Sink) {
    let mut out = Sink::default();
    let (params, results, locals) = match routine {
        Routine::Part(shape) => {
            let base = shape.values.len() as u32;
            write_values(&mut out, shape, 0.., base);
            (shape.values.clone(), Vec::new(), 1)
        }
        Routine::Zero(shape) => {
            out.load_word(abi::STACK_POINTER_ADDRESS);
            out.op().local_set(0);
            for (at, ty) in shape.places() {
                out.op().local_get(0);
                out.zero(ty);
                write_value(&mut out, ty, at);
            }
            (Vec::new(), Vec::new(), 1)
        }
        Routine::Write(shape) => {
            let mut params = shape.values.clone();
            params.extend_from_slice(&[Ty::I32; 2][usize::from(!shape.identity)..]);
            let first = shape.values.len() as u32;
            let (identity, base) = (first, params.len() as u32);
            write_values(&mut out, shape, 0.., base);
            if shape.identity {
                out.op().local_get(base).local_get(identity);
                out.op().i32_store(at(shape.size() - 8));
            }
            let size = shape.size() as i32;
            out.op().local_get(base - 1).i32_const(size).call(callee);
            (params, Vec::new(), 1)
        }
        Routine::Finish => {
            finish_frame(&mut out);
            (alloc::vec![Ty::I32; 2], Vec::new(), 0)
        }
        Routine::Unwind => {
            out.set_state(abi::UNWINDING, mode);
            (Vec::new(), Vec::new(), 0)
        }
        Routine::Remove => {
            remove_frame(&mut out, mode);
            (alloc::vec![Ty::I32], alloc::vec![Ty::I32], 1)
        }
        Routine::Pop(shape) => {
            out.op().i32_const(shape.size() as i32).call(callee);
            out.op().local_set(0);
            read_values(&mut out, shape);
            (Vec::new(), shape.values.clone(), 1)
        }
        Routine::Read(shape) => {
            out.load_word(abi::STACK_POINTER_ADDRESS);
            out.op().local_set(0);
            read_values(&mut out, shape);
            (Vec::new(), shape.values.clone(), 1)
        }
        Routine::Point => {
            note_point(&mut out);
            out.load_word(abi::POINT_ADDRESS);
            (Vec::new(), alloc::vec![Ty::I32], 1)
        }
    };
    out.op().end();
    (types.function(&params, &results), locals, out)
}

pub(super) fn at(offset: u64) -> MemArg {
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
    for (local, (offset, ty)) in locals.zip(shape.places()) {
        out.op().local_get(base).local_get(local);
        write_value(out, ty, offset);
    }
}

/// The address is on the stack, and the value.
fn write_value(out: &mut Sink, ty: Ty, offset: u64) {
    let mut op = out.op();
    match ty {
        Ty::I32 => op.i32_store(at(offset)),
        Ty::I64 => op.i64_store(at(offset)),
        Ty::F32 => op.f32_store(at(offset)),
        Ty::F64 => op.f64_store(at(offset)),
        Ty::V128 => op.v128_store(at(offset)),
    };
}

/// Local 0 is the number of the point, see [`Plan::number`](super::plan::Plan::number), local 1 the frame's size.
fn finish_frame(out: &mut Sink) {
    out.op().i32_const(0);
    out.load_word(abi::STACK_POINTER_ADDRESS);
    out.op().local_get(1).i32_add().local_tee(1);
    out.store_word(abi::STACK_POINTER_ADDRESS);
    out.op().local_get(1).i32_const(4).i32_sub();
    out.op().local_get(0).i32_store(word(0));
}

fn read_values(out: &mut Sink, shape: &Shape) {
    for (offset, ty) in shape.places() {
        out.op().local_get(0);
        read_value(out, ty, offset);
    }
}

/// Removes the uppermost frame. Its size is in local 0, and then its number; local 1 becomes its address, which is pushed.
fn remove_frame(out: &mut Sink, mode: u32) {
    out.op().i32_const(0);
    out.load_word(abi::STACK_POINTER_ADDRESS);
    out.op().local_get(0).i32_sub().local_tee(1);
    out.store_word(abi::STACK_POINTER_ADDRESS);
    out.op().local_get(1).local_get(0).i32_add();
    out.op().i32_const(4).i32_sub().i32_load(word(0));
    out.op().local_tee(0).i32_const(0).i32_lt_s();
    out.op().if_(BlockType::Empty);
    out.finish_mode(mode);
    out.op().local_get(0).i32_const(1).i32_and().i32_eqz();
    out.op().if_(BlockType::Empty);
    out.finish_flag();
    out.op().end().end().local_get(1);
}

/// Notes the number of the point of the uppermost frame, for the dispatches. Uses local 0.
fn note_point(out: &mut Sink) {
    out.op().i32_const(0);
    out.load_word(abi::STACK_POINTER_ADDRESS);
    out.op().i32_const(4).i32_sub().i32_load(word(0));
    out.op().local_tee(0).i32_const(0).i32_lt_s();
    out.op().if_(BlockType::Result(Ty::I32.encode()));
    out.op().local_get(0).i32_const(-1).i32_xor();
    out.op().i32_const(1).i32_shr_u();
    out.op().else_().local_get(0).end();
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
