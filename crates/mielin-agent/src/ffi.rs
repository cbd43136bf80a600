//! The calls into the node: the only module of this crate with `unsafe`.
//!
//! Each function gives slices where the import takes a pointer and a length, so
//! that no caller can pass a pair that does not belong together. Each returns an
//! error number, 0 for none; where there is no node, [`NOT_AN_AGENT`].

/// Length of what `receive` writes beside the payload.
pub(crate) const HEADER_BYTES: usize = 40;

/// No number of WASI preview 1, which has 16 bits.
pub(crate) const NOT_AN_AGENT: u32 = u32::MAX;

#[cfg(target_arch = "wasm32")]
mod node {
    use super::HEADER_BYTES;

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
            let bias = bias.map_or(std::ptr::null(), std::ptr::from_ref);
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
            let offset = offset.map_or(std::ptr::null(), std::ptr::from_ref);
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
    use super::{HEADER_BYTES, NOT_AN_AGENT};
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

    pub(crate) fn reply(_to: &[u8; 16], _sequence: u64, _payload: &[u8]) -> u32 {
        NOT_AN_AGENT
    }

    pub(crate) fn log(_level: u32, _text: &[u8]) -> u32 {
        NOT_AN_AGENT
    }

    pub(crate) fn capabilities(_buffer: &mut [u8], _needed: &mut u32) -> u32 {
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
