//! What a program was started with, how it ends, and random bytes.

use alloc::vec::Vec;

use super::super::errno::Errno;
use super::super::{Call, Exit};
use crate::Capability;

/// `random_get` fills at most this much in one call, because it cannot be stopped half-way.
const RANDOM_BYTES_MAX: u32 = 16 << 20;

pub(crate) fn args_sizes_get(call: &mut Call<'_>, count: u32, size: u32) -> Result<(), Errno> {
    let sizes = sizes(&call.state.args)?;
    put_sizes(call, sizes, count, size)
}

pub(crate) fn args_get(call: &mut Call<'_>, pointers: u32, buffer: u32) -> Result<(), Errno> {
    let Call { memory, state, .. } = call;
    put_strings(&state.args, pointers, buffer, |at, bytes| {
        memory.put(at, bytes)
    })
}

pub(crate) fn environ_sizes_get(call: &mut Call<'_>, count: u32, size: u32) -> Result<(), Errno> {
    let sizes = sizes(&call.state.env)?;
    put_sizes(call, sizes, count, size)
}

pub(crate) fn environ_get(call: &mut Call<'_>, pointers: u32, buffer: u32) -> Result<(), Errno> {
    let Call { memory, state, .. } = call;
    put_strings(&state.env, pointers, buffer, |at, bytes| {
        memory.put(at, bytes)
    })
}

fn sizes(strings: &[Vec<u8>]) -> Result<(u32, u32), Errno> {
    let bytes = strings.iter().map(|text| text.len() + 1).sum::<usize>();
    let narrow = |number: usize| u32::try_from(number).map_err(|_| Errno::Overflow);
    Ok((narrow(strings.len())?, narrow(bytes)?))
}

fn put_sizes(call: &mut Call<'_>, sizes: (u32, u32), count: u32, size: u32) -> Result<(), Errno> {
    call.memory.put_u32(count, sizes.0)?;
    call.memory.put_u32(size, sizes.1)
}

/// Writes the strings, each with a zero byte behind it, and an array of pointers to them.
fn put_strings(
    strings: &[Vec<u8>],
    pointers: u32,
    buffer: u32,
    mut put: impl FnMut(u32, &[u8]) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let (mut pointer, mut at) = (pointers, buffer);
    let step = |from: u32, by: usize| {
        u32::try_from(by)
            .ok()
            .and_then(|by| from.checked_add(by))
            .ok_or(Errno::Fault)
    };
    for text in strings {
        put(pointer, &at.to_le_bytes())?;
        put(at, text)?;
        at = step(at, text.len())?;
        put(at, &[0])?;
        at = step(at, 1)?;
        pointer = step(pointer, 4)?;
    }
    Ok(())
}

pub(crate) fn random_get(call: &mut Call<'_>, buffer: u32, len: u32) -> Result<(), Errno> {
    call.require(Capability::Random, "random_get")?;
    if len > RANDOM_BYTES_MAX {
        return Err(Errno::Inval);
    }
    let out = call.memory.bytes_mut(buffer, len)?;
    call.state.platform.fill_random(out).map_err(|_| Errno::Io)
}

/// Succeeds without giving the slice up: the node's scheduler decides when a program has had its
/// share.
pub(crate) fn sched_yield(_call: &mut Call<'_>) -> Result<(), Errno> {
    Ok(())
}

pub(crate) fn proc_exit(_call: &mut Call<'_>, code: u32) -> Exit {
    Exit::Process(code.cast_signed())
}

pub(crate) fn proc_raise(_call: &mut Call<'_>, _signal: u32) -> Result<(), Errno> {
    Err(Errno::Nosys)
}
