//! Files of `/data` that are open.

use super::super::Call;
use super::super::errno::Errno;
use super::descriptor::{check, files, open, open_mut, stamp};
use super::stream::buffers;
use crate::filesystem::Ino;
use crate::state::{FDFLAGS_APPEND, Object, rights};

const WHENCE_SET: u32 = 0;
const WHENCE_CURRENT: u32 = 1;
const WHENCE_END: u32 = 2;

/// The kinds of advice that there are.
const ADVICE_MAX: u32 = 5;

/// The file behind a descriptor with this right; `stream` is the error that a stream gives.
fn file(call: &Call<'_>, fd: u32, right: u64, stream: Errno) -> Result<Ino, Errno> {
    let descriptor = open(call, fd)?;
    match descriptor.what {
        Object::Stream(_) => Err(stream),
        Object::Directory { .. } => Err(Errno::Isdir),
        Object::File { ino, .. } => check(&descriptor, right).map(|()| ino),
    }
}

/// The next place that a file is read or written at.
fn position(call: &Call<'_>, fd: u32) -> Result<u64, Errno> {
    match open(call, fd)?.what {
        Object::File { position, .. } => Ok(position),
        _ => Err(Errno::Badf),
    }
}

fn set_position(call: &mut Call<'_>, fd: u32, to: u64) -> Result<(), Errno> {
    if let Object::File { position, .. } = &mut open_mut(call, fd)?.what {
        *position = to;
    }
    Ok(())
}

/// `fd_read` on a file.
pub(super) fn read_on(
    call: &mut Call<'_>,
    fd: u32,
    vectors: u32,
    count: u32,
    out: u32,
) -> Result<(), Errno> {
    let ino = file(call, fd, rights::FD_READ, Errno::Badf)?;
    let from = position(call, fd)?;
    let read = read_at(call, ino, from, vectors, count, out)?;
    set_position(call, fd, from + u64::from(read))
}

pub(crate) fn fd_pread(
    call: &mut Call<'_>,
    fd: u32,
    vectors: u32,
    count: u32,
    offset: u64,
    out: u32,
) -> Result<(), Errno> {
    let ino = file(call, fd, rights::FD_READ | rights::FD_SEEK, Errno::Spipe)?;
    let offset = place(offset)?;
    read_at(call, ino, offset, vectors, count, out).map(drop)
}

fn read_at(
    call: &mut Call<'_>,
    ino: Ino,
    offset: u64,
    vectors: u32,
    count: u32,
    out: u32,
) -> Result<u32, Errno> {
    let buffers = buffers(call, vectors, count)?;
    call.memory.bytes(out, 4)?;
    let Call { memory, state, .. } = call;
    let files = files(&mut state.data)?;
    let mut done = 0;
    for (pointer, len) in buffers {
        let bytes = memory.bytes_mut(pointer, len)?;
        let read = files.read(ino, offset.saturating_add(done), bytes)?;
        done += read as u64;
        if read < bytes.len() {
            break;
        }
    }
    let done = u32::try_from(done).map_err(|_| Errno::Overflow)?;
    memory.put_u32(out, done)?;
    Ok(done)
}

/// `fd_write` on a file.
pub(super) fn write_on(
    call: &mut Call<'_>,
    fd: u32,
    vectors: u32,
    count: u32,
    out: u32,
) -> Result<(), Errno> {
    let ino = file(call, fd, rights::FD_WRITE, Errno::Badf)?;
    let from = if open(call, fd)?.flags & FDFLAGS_APPEND != 0 {
        files(&mut call.state.data)?.stat(ino)?.len
    } else {
        position(call, fd)?
    };
    let written = write_at(call, ino, from, vectors, count, out)?;
    set_position(call, fd, from + u64::from(written))
}

pub(crate) fn fd_pwrite(
    call: &mut Call<'_>,
    fd: u32,
    vectors: u32,
    count: u32,
    offset: u64,
    out: u32,
) -> Result<(), Errno> {
    let ino = file(call, fd, rights::FD_WRITE | rights::FD_SEEK, Errno::Spipe)?;
    let offset = place(offset)?;
    write_at(call, ino, offset, vectors, count, out).map(drop)
}

fn write_at(
    call: &mut Call<'_>,
    ino: Ino,
    offset: u64,
    vectors: u32,
    count: u32,
    out: u32,
) -> Result<u32, Errno> {
    let buffers = buffers(call, vectors, count)?;
    call.memory.bytes(out, 4)?;
    let now = stamp(call);
    let Call { memory, state, .. } = call;
    let files = files(&mut state.data)?;
    let mut done = 0_u64;
    for (pointer, len) in buffers {
        let bytes = memory.bytes(pointer, len)?;
        match files.write(ino, offset.saturating_add(done), bytes, now) {
            Ok(written) => {
                done += written as u64;
                if written < bytes.len() {
                    break;
                }
            }
            Err(error) if done == 0 => return Err(error.into()),
            Err(_) => break,
        }
    }
    let done = u32::try_from(done).map_err(|_| Errno::Overflow)?;
    memory.put_u32(out, done)?;
    Ok(done)
}

/// An offset that a file can have.
fn place(offset: u64) -> Result<u64, Errno> {
    if offset > i64::MAX as u64 {
        return Err(Errno::Inval);
    }
    Ok(offset)
}

pub(crate) fn fd_seek(
    call: &mut Call<'_>,
    fd: u32,
    offset: u64,
    whence: u32,
    out: u32,
) -> Result<(), Errno> {
    let asks = offset == 0 && whence == WHENCE_CURRENT;
    let right = if asks {
        rights::FD_TELL
    } else {
        rights::FD_SEEK
    };
    let ino = file(call, fd, right, Errno::Spipe)?;
    call.memory.bytes(out, 8)?;
    let from = match whence {
        WHENCE_SET => 0,
        WHENCE_CURRENT => position(call, fd)?,
        WHENCE_END => files(&mut call.state.data)?.stat(ino)?.len,
        _ => return Err(Errno::Inval),
    };
    let to = from.checked_add_signed(offset.cast_signed());
    let to = place(to.ok_or(Errno::Inval)?)?;
    set_position(call, fd, to)?;
    call.memory.put_u64(out, to)
}

pub(crate) fn fd_tell(call: &mut Call<'_>, fd: u32, out: u32) -> Result<(), Errno> {
    file(call, fd, rights::FD_TELL, Errno::Spipe)?;
    let at = position(call, fd)?;
    call.memory.put_u64(out, at)
}

/// Advice is taken note of, and changes nothing.
pub(crate) fn fd_advise(call: &mut Call<'_>, fd: u32, advice: u32) -> Result<(), Errno> {
    file(call, fd, rights::FD_ADVISE, Errno::Spipe)?;
    if advice > ADVICE_MAX {
        return Err(Errno::Inval);
    }
    Ok(())
}

pub(crate) fn fd_allocate(
    call: &mut Call<'_>,
    fd: u32,
    offset: u64,
    len: u64,
) -> Result<(), Errno> {
    let ino = file(call, fd, rights::FD_ALLOCATE, Errno::Notsup)?;
    let now = stamp(call);
    files(&mut call.state.data)?.allocate(ino, offset, len, now)?;
    Ok(())
}

pub(crate) fn fd_filestat_set_size(call: &mut Call<'_>, fd: u32, size: u64) -> Result<(), Errno> {
    let ino = file(call, fd, rights::FD_FILESTAT_SET_SIZE, Errno::Inval)?;
    let now = stamp(call);
    files(&mut call.state.data)?.set_len(ino, size, now)?;
    Ok(())
}

/// On a directory too.
pub(crate) fn fd_filestat_set_times(
    call: &mut Call<'_>,
    fd: u32,
    accessed: u64,
    modified: u64,
    flags: u32,
) -> Result<(), Errno> {
    let descriptor = open(call, fd)?;
    let ino = descriptor.what.ino().ok_or(Errno::Notsup)?;
    check(&descriptor, rights::FD_FILESTAT_SET_TIMES)?;
    let (accessed, modified) = times(call, accessed, modified, flags)?;
    let now = stamp(call);
    files(&mut call.state.data)?.set_times(ino, accessed, modified, now)?;
    Ok(())
}

/// What `fstflags` say: to set each time to what is given, to now, or not at all.
pub(super) fn times(
    call: &Call<'_>,
    accessed: u64,
    modified: u64,
    flags: u32,
) -> Result<(Option<u64>, Option<u64>), Errno> {
    let one = |given: u64, flags: u32| match flags & 3 {
        0 => Ok(None),
        1 => Ok(Some(given)),
        2 => Ok(Some(stamp(call))),
        _ => Err(Errno::Inval),
    };
    if flags > 15 {
        return Err(Errno::Inval);
    }
    Ok((one(accessed, flags)?, one(modified, flags >> 2)?))
}
