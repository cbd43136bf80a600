//! Functions of rows of elements, by the primitives of oneDNN 2. Version 3 makes them by other functions.

#![allow(unsafe_code, reason = "calls functions of a library of C")]

use std::ffi::{c_int, c_uint, c_void};
use std::ptr::{null, null_mut};

use libloading::Library;

/// What is computed of a matrix of rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Operation {
    /// A function of each element, by its number in `dnnl_alg_kind_t`.
    Eltwise(c_int),
    /// The sum or the product of two matrices, likewise.
    Binary(c_int),
    Softmax,
    /// With this epsilon, and a gain and an offset for each column.
    LayerNorm(f32),
}

pub(crate) const RELU: Operation = Operation::Eltwise(0x1f);
pub(crate) const TANH: Operation = Operation::Eltwise(0x2f);
pub(crate) const GELU: Operation = Operation::Eltwise(0x30);
pub(crate) const EXP: Operation = Operation::Eltwise(0xbf);
pub(crate) const GELU_TANH: Operation = Operation::Eltwise(0xcf);
pub(crate) const SILU: Operation = Operation::Eltwise(0xdf);
pub(crate) const ADD: Operation = Operation::Binary(0x1fff0);
pub(crate) const MUL: Operation = Operation::Binary(0x1fff1);

const FORWARD_INFERENCE: c_int = 96;
const ACCURATE: c_int = 0x30000;
const USE_SCALE_AND_SHIFT: c_uint = 0x18;
const F32: c_int = 3;
/// Rows one after the other, by the number of dimensions.
const TAGS: [c_int; 3] = [0, 2, 3];
const CPU: c_int = 1;
const IN_ORDER: c_uint = 1;
const ARG_SRC: c_int = 1;
const ARG_SRC_1: c_int = 2;
const ARG_DST: c_int = 17;
const ARG_SCALE: c_int = 51;
const ARG_SHIFT: c_int = 52;

/// Room for a description. The library's largest that is made here has under 4 KiB.
#[repr(C, align(16))]
struct Description([u8; 16_384]);

impl Description {
    fn empty() -> Box<Description> {
        Box::new(Description([0; 16_384]))
    }
}

/// An object of the library. What is made stays until the process ends.
type Object = *mut c_void;

#[repr(C)]
#[derive(Clone, Copy)]
struct Argument {
    number: c_int,
    memory: Object,
}

type Memory = *const Description;
type Describe = *mut Description;

/// The functions, and what all primitives share.
pub(super) struct Primitives {
    memory_desc: unsafe extern "C" fn(Describe, c_int, *const i64, c_int, c_int) -> c_int,
    eltwise: unsafe extern "C" fn(Describe, c_int, c_int, Memory, f32, f32) -> c_int,
    binary: unsafe extern "C" fn(Describe, c_int, Memory, Memory, Memory) -> c_int,
    softmax: unsafe extern "C" fn(Describe, c_int, c_int, Memory, Memory, c_int) -> c_int,
    layer_norm: unsafe extern "C" fn(Describe, c_int, Memory, Memory, f32, c_uint) -> c_int,
    primitive_desc: unsafe extern "C" fn(
        *mut Object,
        *const Description,
        *const c_void,
        Object,
        *const c_void,
    ) -> c_int,
    primitive: unsafe extern "C" fn(*mut Object, Object) -> c_int,
    memory: unsafe extern "C" fn(*mut Object, Memory, Object, *mut c_void) -> c_int,
    set_handle: unsafe extern "C" fn(Object, *mut c_void) -> c_int,
    execute: unsafe extern "C" fn(Object, Object, c_int, *const Argument) -> c_int,
    wait: unsafe extern "C" fn(Object) -> c_int,
    engine: Object,
    stream: Object,
}

/// An operation on matrices of one shape.
pub(crate) struct Primitive<'a> {
    functions: &'a Primitives,
    shape: [usize; 2],
    primitive: Object,
    /// The first source, the operands beside it, and the result.
    arguments: Vec<Argument>,
    /// Elements of each operand beside the first source.
    operands: Vec<usize>,
}

impl Primitives {
    /// `None` if it is not version 2.
    pub(super) fn of(library: &Library) -> Option<Primitives> {
        // SAFETY: the types are those of dnnl.h of version 2.6, and version 3 has none of the functions for descriptions
        // of operations. The functions are kept beside the library.
        let mut functions = unsafe {
            Primitives {
                memory_desc: *library.get(b"dnnl_memory_desc_init_by_tag\0").ok()?,
                eltwise: *library.get(b"dnnl_eltwise_forward_desc_init\0").ok()?,
                binary: *library.get(b"dnnl_binary_desc_init\0").ok()?,
                softmax: *library.get(b"dnnl_softmax_v2_forward_desc_init\0").ok()?,
                layer_norm: *library
                    .get(b"dnnl_layer_normalization_forward_desc_init\0")
                    .ok()?,
                primitive_desc: *library.get(b"dnnl_primitive_desc_create\0").ok()?,
                primitive: *library.get(b"dnnl_primitive_create\0").ok()?,
                memory: *library.get(b"dnnl_memory_create\0").ok()?,
                set_handle: *library.get(b"dnnl_memory_set_data_handle\0").ok()?,
                execute: *library.get(b"dnnl_primitive_execute\0").ok()?,
                wait: *library.get(b"dnnl_stream_wait\0").ok()?,
                engine: null_mut(),
                stream: null_mut(),
            }
        };
        type EngineCreate = unsafe extern "C" fn(*mut Object, c_int, usize) -> c_int;
        type StreamCreate = unsafe extern "C" fn(*mut Object, Object, c_uint) -> c_int;
        // SAFETY: as above; each writes the object to the pointer, and says whether it did.
        let is_made = unsafe {
            let engine = library.get::<EngineCreate>(b"dnnl_engine_create\0").ok()?;
            let stream = library.get::<StreamCreate>(b"dnnl_stream_create\0").ok()?;
            engine(&raw mut functions.engine, CPU, 0) == 0
                && stream(&raw mut functions.stream, functions.engine, IN_ORDER) == 0
        };
        is_made.then_some(functions)
    }

    /// The operation on matrices of `rows` × `width` elements.
    ///
    /// # Panics
    /// If oneDNN refuses.
    pub(super) fn primitive(
        &self,
        operation: Operation,
        [rows, width]: [usize; 2],
    ) -> Primitive<'_> {
        let matrix = self.matrix(&[rows as i64, width as i64]);
        let columns = self.matrix(&[width as i64]);
        let mut description = Description::empty();
        let out: Describe = &mut *description;
        let data: Memory = &*matrix;
        // SAFETY: the descriptions of matrices were made; `out` has room for any description of an operation.
        let status = unsafe {
            match operation {
                Operation::Eltwise(kind) => {
                    // Alpha is what the argument of SiLU's logistic function is multiplied with, and relu's slope.
                    let alpha = if operation == SILU { 1.0 } else { 0.0 };
                    (self.eltwise)(out, FORWARD_INFERENCE, kind, data, alpha, 0.0)
                }
                Operation::Binary(kind) => (self.binary)(out, kind, data, data, data),
                Operation::Softmax => {
                    (self.softmax)(out, FORWARD_INFERENCE, ACCURATE, data, data, 1)
                }
                Operation::LayerNorm(epsilon) => {
                    let flags = USE_SCALE_AND_SHIFT;
                    (self.layer_norm)(out, FORWARD_INFERENCE, data, null(), epsilon, flags)
                }
            }
        };
        assert_eq!(status, 0, "oneDNN refuses to describe {operation:?}");
        let (mut made, mut primitive) = (null_mut(), null_mut());
        // SAFETY: the description was made, no attributes and no hint are given, and each function writes an object to the
        // pointer and says whether it did.
        let is_made = unsafe {
            (self.primitive_desc)(&raw mut made, out, null(), self.engine, null()) == 0
                && (self.primitive)(&raw mut primitive, made) == 0
        };
        assert!(is_made, "oneDNN refuses to make {operation:?}");
        let operands: &[(c_int, &Description, usize)] = match operation {
            Operation::Binary(_) => &[(ARG_SRC_1, &*matrix, rows * width)],
            Operation::LayerNorm(_) => {
                &[(ARG_SCALE, &*columns, width), (ARG_SHIFT, &*columns, width)]
            }
            _ => &[],
        };
        let first = [(ARG_SRC, &*matrix)];
        let last = [(ARG_DST, &*matrix)];
        let others = operands
            .iter()
            .map(|(number, matrix, _)| (*number, *matrix));
        let all = first.into_iter().chain(others).chain(last);
        Primitive {
            functions: self,
            shape: [rows, width],
            primitive,
            arguments: all
                .map(|(number, matrix)| self.argument(number, matrix))
                .collect(),
            operands: operands.iter().map(|(_, _, len)| *len).collect(),
        }
    }

    fn matrix(&self, lengths: &[i64]) -> Box<Description> {
        let mut description = Description::empty();
        let (count, tag) = (lengths.len() as c_int, TAGS[lengths.len()]);
        // SAFETY: it reads as many lengths, and writes a description, for which there is room.
        let status =
            unsafe { (self.memory_desc)(&mut *description, count, lengths.as_ptr(), F32, tag) };
        assert_eq!(status, 0, "oneDNN refuses the shape {lengths:?}");
        description
    }

    fn argument(&self, number: c_int, matrix: &Description) -> Argument {
        let mut memory = null_mut();
        // SAFETY: the description was made; a null handle is memory that has none yet.
        let status = unsafe { (self.memory)(&raw mut memory, matrix, self.engine, null_mut()) };
        assert_eq!(status, 0, "oneDNN refuses a memory");
        Argument { number, memory }
    }
}

impl Primitive<'_> {
    /// Computes `to` from `from`, or from what is in `to`, and the operands beside it.
    ///
    /// # Panics
    /// If a slice has another number of elements than the shape, or oneDNN fails.
    pub(crate) fn run(&self, from: Option<&[f32]>, operands: &[&[f32]], to: &mut [f32]) {
        let [rows, width] = self.shape;
        assert_eq!(to.len(), rows * width);
        assert!(from.is_none_or(|from| from.len() == to.len()));
        let lengths = operands.iter().map(|it| it.len());
        assert!(lengths.eq(self.operands.iter().copied()));
        let to: *mut f32 = to.as_mut_ptr();
        let from = from.map_or(to.cast_const(), <[f32]>::as_ptr);
        let operands = operands.iter().map(|it| it.as_ptr());
        let handles = [from].into_iter().chain(operands).chain([to.cast_const()]);
        let functions = self.functions;
        for (argument, handle) in self.arguments.iter().zip(handles) {
            // SAFETY: the memory was made; its handle is used in this call only.
            let status =
                unsafe { (functions.set_handle)(argument.memory, handle.cast_mut().cast()) };
            assert_eq!(status, 0, "oneDNN refuses a handle");
        }
        let count = self.arguments.len() as c_int;
        // SAFETY: each memory has the elements of its description, which were counted above; only the result is written, and
        // that is borrowed for it. The primitives allow the first source to be the result. The stream is waited for.
        let is_done = unsafe {
            let arguments = self.arguments.as_ptr();
            (functions.execute)(self.primitive, functions.stream, count, arguments) == 0
                && (functions.wait)(functions.stream) == 0
        };
        assert!(is_done, "oneDNN fails");
    }
}
