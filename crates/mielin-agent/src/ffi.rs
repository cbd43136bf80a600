//! The calls into the node, and the start of programs without a standard library: the only module
//! of this crate with `unsafe`.
//!
//! Each function gives slices where the import takes a pointer and a length, so
//! that no caller can pass a pair that does not belong together. Each returns an
//! error number, 0 for none; where there is no node, [`NOT_AN_AGENT`].

/// Length of what `receive` writes beside the payload.
pub(crate) const HEADER_BYTES: usize = 40;

/// Length of what `sense` writes.
pub(crate) const READING_BYTES: usize = 24;

/// No number of WASI preview 1, which has 16 bits.
pub(crate) const NOT_AN_AGENT: u32 = u32::MAX;

#[cfg(target_arch = "wasm32")]
mod node {
    use super::{HEADER_BYTES, READING_BYTES};

    /// The import module of docs/AGENT_ABI.md.
    mod import {
        use crate::tensor::Description;

        #[link(wasm_import_module = "mielin")]
        unsafe extern "C" {
            pub(super) safe fn abi_version() -> u32;
            pub(super) fn self_id(out: *mut u8) -> u32;
            pub(super) fn send(to: *const u8, payload: *const u8, len: u32, out: *mut u64) -> u32;
            pub(super) fn receive(
                buffer: *mut u8,
                capacity: u32,
                timeout_ns: u64,
                out: *mut u8,
            ) -> u32;
            pub(super) fn reply(to: *const u8, sequence: u64, payload: *const u8, len: u32) -> u32;
            pub(super) fn log(level: u32, text: *const u8, len: u32) -> u32;
            pub(super) fn capabilities(buffer: *mut u8, capacity: u32, out: *mut u32) -> u32;
            pub(super) fn sense(sensor: u32, after: u64, timeout_ns: u64, out: *mut u8) -> u32;
            pub(super) safe fn actuate(actuator: u32, value: i64) -> u32;
            pub(super) fn discard(longer_than: u32, out: *mut u8) -> u32;
            pub(super) fn tensor_matmul(
                a: *const Description,
                b: *const Description,
                c: *const Description,
                bias: *const Description,
                function: u32,
                accumulate: u32,
            ) -> u32;
            pub(super) fn tensor_matmul_i8(
                a: *const Description,
                b: *const Description,
                c: *const Description,
            ) -> u32;
            pub(super) fn tensor_map(
                function: u32,
                from: *const Description,
                to: *const Description,
            ) -> u32;
            pub(super) fn tensor_zip(
                operation: u32,
                a: *const Description,
                b: *const Description,
                to: *const Description,
            ) -> u32;
            pub(super) fn tensor_reduce(
                reduction: u32,
                from: *const Description,
                to: *const Description,
            ) -> u32;
            pub(super) fn tensor_softmax(x: *const Description) -> u32;
            pub(super) fn tensor_norm(
                x: *const Description,
                gain: *const Description,
                offset: *const Description,
                epsilon: u32,
            ) -> u32;
            pub(super) fn tensor_attention(
                queries: *const Description,
                keys: *const Description,
                values: *const Description,
                to: *const Description,
                scale: u32,
                past: i32,
            ) -> u32;
            pub(super) fn tensor_embedding(
                table: *const Description,
                numbers: *const Description,
                to: *const Description,
            ) -> u32;
        }

        /// What a buffer is to `fd_write`.
        #[repr(C)]
        pub(super) struct Vector {
            pub(super) bytes: *const u8,
            pub(super) len: u32,
        }

        #[link(wasm_import_module = "wasi_snapshot_preview1")]
        unsafe extern "C" {
            pub(super) fn fd_write(
                fd: u32,
                vectors: *const Vector,
                count: u32,
                written: *mut u32,
            ) -> u32;
        }
    }

    /// Lengths in a 32-bit memory fit; the type cannot say so.
    fn len(slice: &[u8]) -> u32 {
        slice.len() as u32
    }

    pub(crate) fn abi_version() -> u32 {
        import::abi_version()
    }

    pub(crate) fn self_id(out: &mut [u8; 16]) -> u32 {
        // SAFETY: the node writes 16 bytes at `out` (AGENT_ABI, self_id), which has them.
        unsafe { import::self_id(out.as_mut_ptr()) }
    }

    pub(crate) fn send(to: &[u8; 16], payload: &[u8], sequence: &mut u64) -> u32 {
        // SAFETY: the node reads 16 bytes at `to` and `len` bytes at `payload`, and
        // writes 8 at `out` (AGENT_ABI, send); the references and the slice have them.
        unsafe { import::send(to.as_ptr(), payload.as_ptr(), len(payload), sequence) }
    }

    pub(crate) fn receive(
        buffer: &mut [u8],
        timeout_ns: u64,
        header: &mut [u8; HEADER_BYTES],
    ) -> u32 {
        let capacity = len(buffer);
        // SAFETY: the node writes at most `capacity` bytes at `buffer` and 40 at
        // `out` (AGENT_ABI, receive); the slice and the array have them.
        unsafe {
            import::receive(
                buffer.as_mut_ptr(),
                capacity,
                timeout_ns,
                header.as_mut_ptr(),
            )
        }
    }

    pub(crate) fn discard(longer_than: usize, header: &mut [u8; HEADER_BYTES]) -> u32 {
        let longer_than = u32::try_from(longer_than).unwrap_or(u32::MAX);
        // SAFETY: the node writes 40 bytes at `out` (AGENT_ABI, discard), which the array has.
        unsafe { import::discard(longer_than, header.as_mut_ptr()) }
    }

    pub(crate) fn reply(to: &[u8; 16], sequence: u64, payload: &[u8]) -> u32 {
        // SAFETY: the node reads 16 bytes at `to` and `len` bytes at `payload`
        // (AGENT_ABI, reply); the reference and the slice have them.
        unsafe { import::reply(to.as_ptr(), sequence, payload.as_ptr(), len(payload)) }
    }

    pub(crate) fn log(level: u32, text: &[u8]) -> u32 {
        // SAFETY: the node reads `len` bytes at `text` (AGENT_ABI, log); the slice has them.
        unsafe { import::log(level, text.as_ptr(), len(text)) }
    }

    pub(crate) fn capabilities(buffer: &mut [u8], needed: &mut u32) -> u32 {
        let capacity = len(buffer);
        // SAFETY: the node writes at most `capacity` bytes at `buffer` and 4 at `out`
        // (AGENT_ABI, capabilities); the slice and the reference have them.
        unsafe { import::capabilities(buffer.as_mut_ptr(), capacity, needed) }
    }

    pub(crate) fn sense(
        sensor: u8,
        after: u64,
        timeout_ns: u64,
        reading: &mut [u8; READING_BYTES],
    ) -> u32 {
        // SAFETY: the node writes 24 bytes at `out` (AGENT_ABI, sense), which the array has.
        unsafe { import::sense(u32::from(sensor), after, timeout_ns, reading.as_mut_ptr()) }
    }

    pub(crate) fn actuate(actuator: u8, value: i64) -> u32 {
        import::actuate(u32::from(actuator), value)
    }

    pub(crate) fn print(bytes: &[u8], written: &mut u32) -> u32 {
        let vector = import::Vector {
            bytes: bytes.as_ptr(),
            len: len(bytes),
        };
        // SAFETY: the node reads the vector and the bytes that it names, and writes 4 at `written`
        // (WASI preview 1, fd_write); all three are borrowed for that long.
        unsafe { import::fd_write(1, &vector, 1, written) }
    }

    // SAFETY (for all tensor functions): a description is made of a slice that is borrowed for reading, or for writing where the
    // node writes (AGENT_ABI, tensor functions), and has all of the elements that it speaks of.
    #[allow(
        clippy::undocumented_unsafe_blocks,
        reason = "one reason holds for all of them, and stands above"
    )]
    mod tensor {
        use super::import;
        use crate::tensor::Description;

        pub(crate) fn tensor_matmul(
            [a, b, c]: [&Description; 3],
            bias: Option<&Description>,
            function: u32,
            accumulate: u32,
        ) -> u32 {
            let bias = bias.map_or(core::ptr::null(), core::ptr::from_ref);
            unsafe { import::tensor_matmul(a, b, c, bias, function, accumulate) }
        }

        pub(crate) fn tensor_matmul_i8([a, b, c]: [&Description; 3]) -> u32 {
            unsafe { import::tensor_matmul_i8(a, b, c) }
        }

        pub(crate) fn tensor_map(function: u32, from: &Description, to: &Description) -> u32 {
            unsafe { import::tensor_map(function, from, to) }
        }

        pub(crate) fn tensor_zip(operation: u32, [a, b, to]: [&Description; 3]) -> u32 {
            unsafe { import::tensor_zip(operation, a, b, to) }
        }

        pub(crate) fn tensor_reduce(reduction: u32, from: &Description, to: &Description) -> u32 {
            unsafe { import::tensor_reduce(reduction, from, to) }
        }

        pub(crate) fn tensor_softmax(x: &Description) -> u32 {
            unsafe { import::tensor_softmax(x) }
        }

        pub(crate) fn tensor_norm(
            x: &Description,
            gain: &Description,
            offset: Option<&Description>,
            epsilon: f32,
        ) -> u32 {
            let offset = offset.map_or(core::ptr::null(), core::ptr::from_ref);
            unsafe { import::tensor_norm(x, gain, offset, epsilon.to_bits()) }
        }

        pub(crate) fn tensor_attention(
            [queries, keys, values, to]: [&Description; 4],
            scale: f32,
            past: i32,
        ) -> u32 {
            unsafe { import::tensor_attention(queries, keys, values, to, scale.to_bits(), past) }
        }

        pub(crate) fn tensor_embedding([table, numbers, to]: [&Description; 3]) -> u32 {
            unsafe { import::tensor_embedding(table, numbers, to) }
        }
    }
    pub(crate) use tensor::*;
}

/// The same functions where there is no node to call.
#[cfg(not(target_arch = "wasm32"))]
mod node {
    use super::{HEADER_BYTES, NOT_AN_AGENT, READING_BYTES};
    use crate::tensor::Description;

    pub(crate) fn abi_version() -> u32 {
        NOT_AN_AGENT
    }

    pub(crate) fn self_id(_out: &mut [u8; 16]) -> u32 {
        NOT_AN_AGENT
    }

    pub(crate) fn send(_to: &[u8; 16], _payload: &[u8], _sequence: &mut u64) -> u32 {
        NOT_AN_AGENT
    }

    pub(crate) fn receive(
        _buffer: &mut [u8],
        _timeout_ns: u64,
        _header: &mut [u8; HEADER_BYTES],
    ) -> u32 {
        NOT_AN_AGENT
    }

    pub(crate) fn discard(_longer_than: usize, _header: &mut [u8; HEADER_BYTES]) -> u32 {
        NOT_AN_AGENT
    }

    pub(crate) fn reply(_to: &[u8; 16], _sequence: u64, _payload: &[u8]) -> u32 {
        NOT_AN_AGENT
    }

    pub(crate) fn log(_level: u32, _text: &[u8]) -> u32 {
        NOT_AN_AGENT
    }

    pub(crate) fn capabilities(_buffer: &mut [u8], _needed: &mut u32) -> u32 {
        NOT_AN_AGENT
    }

    pub(crate) fn sense(
        _sensor: u8,
        _after: u64,
        _timeout_ns: u64,
        _reading: &mut [u8; READING_BYTES],
    ) -> u32 {
        NOT_AN_AGENT
    }

    pub(crate) fn actuate(_actuator: u8, _value: i64) -> u32 {
        NOT_AN_AGENT
    }

    pub(crate) fn print(_bytes: &[u8], _written: &mut u32) -> u32 {
        NOT_AN_AGENT
    }

    pub(crate) fn tensor_matmul(
        _matrices: [&Description; 3],
        _bias: Option<&Description>,
        _function: u32,
        _accumulate: u32,
    ) -> u32 {
        NOT_AN_AGENT
    }

    pub(crate) fn tensor_matmul_i8(_matrices: [&Description; 3]) -> u32 {
        NOT_AN_AGENT
    }

    pub(crate) fn tensor_map(_function: u32, _from: &Description, _to: &Description) -> u32 {
        NOT_AN_AGENT
    }

    pub(crate) fn tensor_zip(_operation: u32, _matrices: [&Description; 3]) -> u32 {
        NOT_AN_AGENT
    }

    pub(crate) fn tensor_reduce(_reduction: u32, _from: &Description, _to: &Description) -> u32 {
        NOT_AN_AGENT
    }

    pub(crate) fn tensor_softmax(_x: &Description) -> u32 {
        NOT_AN_AGENT
    }

    pub(crate) fn tensor_norm(
        _x: &Description,
        _gain: &Description,
        _offset: Option<&Description>,
        _epsilon: f32,
    ) -> u32 {
        NOT_AN_AGENT
    }

    pub(crate) fn tensor_attention(_matrices: [&Description; 4], _scale: f32, _past: i32) -> u32 {
        NOT_AN_AGENT
    }

    pub(crate) fn tensor_embedding(_matrices: [&Description; 3]) -> u32 {
        NOT_AN_AGENT
    }
}

pub(crate) use node::*;

/// What the macro [`entry`](crate::entry) is made of.
#[cfg(target_arch = "wasm32")]
mod bare {
    use core::alloc::{GlobalAlloc, Layout};

    /// No memory but what the program begins with: whoever asks for some gets none.
    #[doc(hidden)]
    pub struct NoHeap;

    // SAFETY: a null pointer says that there is no memory, and nothing is ever given back.
    unsafe impl GlobalAlloc for NoHeap {
        unsafe fn alloc(&self, _: Layout) -> *mut u8 {
            core::ptr::null_mut()
        }

        unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
    }

    // What the target's start file calls when the program has ended.
    #[cfg(target_os = "wasi")]
    #[link(name = "c")]
    unsafe extern "C" {}
}

#[cfg(target_arch = "wasm32")]
pub use bare::NoHeap;

/// The start of a program without a standard library, in which this function takes the place of
/// `main`. Its result is the exit code.
///
/// ```no_run
/// #![cfg_attr(target_arch = "wasm32", no_std, no_main)]
///
/// fn run() -> i32 {
///     match mielin_agent::print(b"Hello\n") {
///         Ok(()) => 0,
///         Err(_) => 1,
///     }
/// }
///
/// mielin_agent::entry!(run);
/// ```
///
/// Such a program has no heap: [`receive`](crate::receive) and
/// [`capabilities`](crate::capabilities), which take memory, end it. Panics end it without a word.
/// Both keep it small: a few hundred bytes, and one page of memory if the linker is told to leave it
/// a small stack (`-zstack-size=`, as `agents/sensor/build.rs` does). Built for anything but
/// WebAssembly it is an ordinary program, so that its tests run on the host.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            #[global_allocator]
            static HEAP: $crate::NoHeap = $crate::NoHeap;

            #[panic_handler]
            fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
                core::arch::wasm32::unreachable()
            }

            // SAFETY: the name is that which the target's start file calls, once, with this type, and a
            // program without a C library's `main` has no other function of it.
            #[unsafe(no_mangle)]
            extern "C" fn __main_void() -> i32 {
                $main()
            }
        };

        #[cfg(not(target_arch = "wasm32"))]
        fn main() -> std::process::ExitCode {
            match $main() {
                0 => std::process::ExitCode::SUCCESS,
                _ => std::process::ExitCode::FAILURE,
            }
        }
    };
}
