//! Bytes in and out: of the standard streams here, of files in `file`.

use alloc::vec::Vec;

use super::super::Call;
use super::super::errno::Errno;
use super::descriptor::{check, open};
use super::file;
use crate::services::{LogError, LogStream};
use crate::state::{Object, Stream, rights};

/// The most vectors in one call, as `IOV_MAX` on Linux.
const VECTORS_MAX: u32 = 1024;

/// One call moves at most this much and reports how much it was, because it cannot be stopped
/// half-way.
const BYTES_MAX: u32 = 1 << 20;

pub(crate) fn fd_write(
    call: &mut Call<'_>,
    fd: u32,
    vectors: u32,
    count: u32,
    out: u32,
) -> Result<(), Errno> {
    let descriptor = open(call, fd)?;
    let stream = match descriptor.what {
        Object::File { .. } => return file::write_on(call, fd, vectors, count, out),
        Object::Directory { .. } => return Err(Errno::Isdir),
        Object::Stream(Stream::Stdin) => return Err(Errno::Badf),
        Object::Stream(Stream::Stdout) => LogStream::Stdout,
        Object::Stream(Stream::Stderr) => LogStream::Stderr,
    };
    check(&descriptor, rights::FD_WRITE)?;
    let buffers = buffers(call, vectors, count)?;
    call.memory.bytes(out, 4)?;
    let wanted = !buffers.is_empty();
    let mut written = 0;
    for (pointer, len) in buffers {
        let bytes = call.memory.bytes(pointer, len)?;
        let taken = match call.services.write_log(stream, bytes) {
            // What a service claims beyond what it was given is not believed.
            Ok(taken) => u32::try_from(taken).unwrap_or(len).min(len),
            Err(LogError::Full) => 0,
        };
        written += taken;
        if taken < len {
            break;
        }
    }
    if written == 0 && wanted {
        return Err(Errno::Nospc);
    }
    call.memory.put_u32(out, written)
}

pub(crate) fn fd_read(
    call: &mut Call<'_>,
    fd: u32,
    vectors: u32,
    count: u32,
    out: u32,
) -> Result<(), Errno> {
    let descriptor = open(call, fd)?;
    match descriptor.what {
        Object::File { .. } => return file::read_on(call, fd, vectors, count, out),
        Object::Directory { .. } => return Err(Errno::Isdir),
        Object::Stream(Stream::Stdin) => check(&descriptor, rights::FD_READ)?,
        Object::Stream(_) => return Err(Errno::Badf),
    }
    let buffers = buffers(call, vectors, count)?;
    call.memory.bytes(out, 4)?;
    let mut read = 0;
    let Call { memory, state, .. } = call;
    for (pointer, len) in buffers {
        let rest = state.stdin.get(state.stdin_position..).unwrap_or_default();
        let taken = u32::try_from(rest.len()).unwrap_or(len).min(len);
        memory.put(pointer, &rest[..taken as usize])?;
        state.stdin_position += taken as usize;
        read += taken;
    }
    memory.put_u32(out, read)
}

/// The vectors' buffers, all of them inside the memory, cut so that they hold at most
/// [`BYTES_MAX`], without empty ones.
pub(super) fn buffers(call: &Call<'_>, vectors: u32, count: u32) -> Result<Vec<(u32, u32)>, Errno> {
    if count > VECTORS_MAX {
        return Err(Errno::Inval);
    }
    let vectors = call.memory.bytes(vectors, count * 8)?;
    let mut left = BYTES_MAX;
    let mut buffers = Vec::new();
    for vector in vectors.chunks_exact(8) {
        let field = |at: usize| {
            u32::from_le_bytes([vector[at], vector[at + 1], vector[at + 2], vector[at + 3]])
        };
        let (pointer, len) = (field(0), field(4));
        call.memory.bytes(pointer, len)?;
        let taken = len.min(left);
        if taken > 0 {
            buffers.push((pointer, taken));
        }
        left -= taken;
    }
    Ok(buffers)
}
