//! The functions that stand for instructions on tables which became arrays of numbers, and what
//! [`abi::ENTRY`](crate::abi::ENTRY) does with the arrays.

use wasm_encoder::{BlockType, MemArg};

use super::function::BlockTypes;
use super::references::{Array, Arrays, Helper};
use super::sink::{FRAMES_MEMORY, Sink, Ty, Written};
use crate::abi;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// A number that no function has, so that a call of it traps as a call beyond the table does.
const NOWHERE: i32 = -1;

/// Writes helpers.
pub(super) struct Writer<'a> {
    arrays: &'a Arrays,
    /// Globals that remember dropped data segments.
    drops: &'a BTreeMap<u32, u32>,
    out: Sink,
}

/// Type and code of each helper, in their order.
pub(super) fn helpers(
    arrays: &Arrays,
    drops: &BTreeMap<u32, u32>,
    types: &mut BlockTypes,
) -> Vec<(u32, Written)> {
    let write = |helper: &Helper| {
        let (params, results): (usize, usize) = match helper {
            Helper::Index(_) | Helper::Get(_) => (1, 1),
            Helper::Set(_) => (2, 0),
            Helper::Grow(_) => (2, 1),
            Helper::Fill(_) | Helper::Copy(..) | Helper::Init(..) => (3, 0),
        };
        let ty = types.function(&[Ty::I32; 3][..params], &[Ty::I32; 1][..results]);
        let out = Sink::default();
        let mut writer = Writer { arrays, drops, out };
        writer.helper(*helper);
        writer.out.op().end();
        let mut bytes = alloc::vec![0];
        bytes.extend_from_slice(&writer.out.code);
        let hints = Vec::new();
        (ty, Written { bytes, hints })
    };
    arrays.helpers.iter().map(write).collect()
}

impl Writer<'_> {
    fn helper(&mut self, helper: Helper) {
        match helper {
            Helper::Index(table) => self.index(table, false),
            Helper::Get(table) => self.index(table, true),
            Helper::Set(table) => self.set(table),
            Helper::Grow(table) => self.grow(table),
            Helper::Fill(table) => self.fill(table),
            Helper::Copy(to, from) => self.copy(to, from),
            Helper::Init(table, element) => self.init(table, element),
        }
    }

    fn array(&self, table: u32) -> &Array {
        &self.arrays.arrays[table as usize]
    }

    fn element(&self, table: u32) -> MemArg {
        MemArg {
            offset: 0,
            align: 2,
            memory_index: self.array(table).memory,
        }
    }

    /// As an access beyond the end of a table does.
    fn trap(&mut self) {
        let functions = self.arrays.functions;
        self.out.op().i32_const(NOWHERE).table_get(functions);
        self.out.op().drop().unreachable();
    }

    fn address(&mut self, local: u32) {
        self.out.op().local_get(local).i32_const(2).i32_shl();
    }

    fn index(&mut self, table: u32, traps: bool) {
        let (size, at) = (self.array(table).size, self.element(table));
        self.out.op().local_get(0).global_get(size).i32_lt_u();
        self.out.op().if_(BlockType::Result(Ty::I32.encode()));
        self.address(0);
        self.out.op().i32_load(at).else_();
        if traps {
            self.trap();
        } else {
            self.out.op().i32_const(NOWHERE);
        }
        self.out.op().end();
    }

    fn set(&mut self, table: u32) {
        let (size, at) = (self.array(table).size, self.element(table));
        self.out.op().local_get(0).global_get(size).i32_ge_u();
        self.out.op().if_(BlockType::Empty);
        self.trap();
        self.out.op().end();
        self.address(0);
        self.out.op().local_get(1).i32_store(at);
    }

    /// The new elements are written, so that nothing depends on what the array held there.
    fn grow(&mut self, table: u32) {
        let (size, maximum) = (self.array(table).size, self.array(table).maximum);
        let fill = self.arrays.helper(Helper::Fill(table));
        let mut op = self.out.op();
        op.local_get(1)
            .i32_const(maximum as i32)
            .global_get(size)
            .i32_sub();
        op.i32_gt_u().if_(BlockType::Empty);
        op.i32_const(-1).return_().end();
        op.global_get(size);
        op.global_get(size).local_get(0).local_get(1);
        op.global_get(size)
            .local_get(1)
            .i32_add()
            .global_set(size)
            .call(fill);
    }

    fn fill(&mut self, table: u32) {
        let (size, at) = (self.array(table).size, self.element(table));
        self.check(0, 2, |out| {
            out.op().global_get(size);
        });
        self.out
            .op()
            .block(BlockType::Empty)
            .loop_(BlockType::Empty);
        self.out.op().local_get(2).i32_eqz().br_if(1);
        self.address(0);
        self.out.op().local_get(1).i32_store(at);
        for (local, step) in [(0, 1), (2, -1)] {
            let mut op = self.out.op();
            op.local_get(local)
                .i32_const(step)
                .i32_add()
                .local_set(local);
        }
        self.out.op().br(0).end().end();
    }

    fn copy(&mut self, to: u32, from: u32) {
        for (table, local) in [(to, 0), (from, 1)] {
            let size = self.array(table).size;
            self.check(local, 2, |out| {
                out.op().global_get(size);
            });
        }
        let (to, from) = (self.array(to).memory, self.array(from).memory);
        (0..3).for_each(|local| self.address(local));
        self.out.op().memory_copy(to, from);
    }

    fn init(&mut self, table: u32, element: u32) {
        let (size, memory) = (self.array(table).size, self.array(table).memory);
        let arrays = self.arrays;
        let segment = arrays.passive(element);
        let dropped = segment.and_then(|segment| self.drops.get(&segment.data));
        self.check(1, 2, |out| {
            let len = segment.map_or(0, |segment| segment.numbers.len());
            match dropped {
                Some(&dropped) => {
                    let mut op = out.op();
                    op.i32_const(0).i32_const(len as i32);
                    op.global_get(dropped).select()
                }
                None => out.op().i32_const(len as i32),
            };
        });
        self.check(0, 2, |out| {
            out.op().global_get(size);
        });
        if let Some(segment) = segment {
            (0..3).for_each(|local| self.address(local));
            self.out.op().memory_init(memory, segment.data);
        }
    }

    /// Traps if so many elements from there are more than there are.
    fn check(&mut self, from: u32, count: u32, end: impl FnOnce(&mut Sink)) {
        let mut op = self.out.op();
        op.local_get(from).i64_extend_i32_u();
        op.local_get(count).i64_extend_i32_u().i64_add();
        end(&mut self.out);
        let mut op = self.out.op();
        op.i64_extend_i32_u().i64_gt_u().if_(BlockType::Empty);
        self.trap();
        self.out.op().end();
    }
}

/// Writes the arrays behind the frames. Traps, as writing a frame does, if they do not fit.
pub(super) fn save(arrays: &Arrays, out: &mut Sink) {
    for array in &arrays.arrays {
        out.load_word(abi::STACK_POINTER_ADDRESS);
        out.op().i32_const(0);
        bytes(array, out);
        out.op().memory_copy(FRAMES_MEMORY, array.memory);
        out.op().i32_const(0);
        out.load_word(abi::STACK_POINTER_ADDRESS);
        whole_bytes(array, out);
        out.op().i32_add();
        out.store_word(abi::STACK_POINTER_ADDRESS);
    }
}

/// Reads what [`save`] wrote.
pub(super) fn restore(arrays: &Arrays, out: &mut Sink) {
    for array in arrays.arrays.iter().rev() {
        out.op().i32_const(0);
        out.load_word(abi::STACK_POINTER_ADDRESS);
        whole_bytes(array, out);
        out.op().i32_sub();
        out.store_word(abi::STACK_POINTER_ADDRESS);
        out.op().i32_const(0);
        out.load_word(abi::STACK_POINTER_ADDRESS);
        bytes(array, out);
        out.op().memory_copy(array.memory, FRAMES_MEMORY);
    }
}

fn bytes(array: &Array, out: &mut Sink) {
    out.op().global_get(array.size).i32_const(2).i32_shl();
}

/// Frames are multiples of eight bytes.
fn whole_bytes(array: &Array, out: &mut Sink) {
    bytes(array, out);
    out.op().i32_const(7).i32_add().i32_const(-8).i32_and();
}
