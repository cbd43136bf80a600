//! Directories of `/data` that are open.

use alloc::vec::Vec;

use super::super::Call;
use super::super::errno::Errno;
use super::descriptor::{DIRECTORY, REGULAR_FILE, check, files, open};
use crate::filesystem::Ino;
use crate::state::{Object, rights};

/// Where a program finds its files. A C library asks for the names of 3, 4, … until `EBADF`.
const NAME: &[u8] = b"/data";

/// The kind of what was opened beforehand: a directory, the only one that there is.
const PREOPEN_DIRECTORY: u32 = 0;

/// Bytes of a `dirent` before its name.
const ENTRY_BYTES: usize = 24;

/// The directory behind a descriptor with this right.
pub(super) fn directory(call: &Call<'_>, fd: u32, right: u64) -> Result<Ino, Errno> {
    let descriptor = open(call, fd)?;
    match descriptor.what {
        Object::Directory { ino, .. } => check(&descriptor, right).map(|()| ino),
        Object::Stream(_) | Object::File { .. } => Err(Errno::Notdir),
    }
}

fn preopened(call: &Call<'_>, fd: u32) -> Result<(), Errno> {
    match open(call, fd)?.what {
        Object::Directory {
            preopened: true, ..
        } => Ok(()),
        _ => Err(Errno::Badf),
    }
}

pub(crate) fn fd_prestat_get(call: &mut Call<'_>, fd: u32, out: u32) -> Result<(), Errno> {
    preopened(call, fd)?;
    let numbers = [PREOPEN_DIRECTORY, NAME.len() as u32];
    let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    call.memory.put(out, &bytes)
}

pub(crate) fn fd_prestat_dir_name(
    call: &mut Call<'_>,
    fd: u32,
    path: u32,
    len: u32,
) -> Result<(), Errno> {
    preopened(call, fd)?;
    if (len as usize) < NAME.len() {
        return Err(Errno::Nametoolong);
    }
    call.memory.bytes(path, len)?;
    call.memory.put(path, NAME)
}

/// Fills the buffer with entries, the last one cut off if it does not fit, which tells the program to
/// ask again.
pub(crate) fn fd_readdir(
    call: &mut Call<'_>,
    fd: u32,
    buffer: u32,
    len: u32,
    cookie: u64,
    out: u32,
) -> Result<(), Errno> {
    let ino = directory(call, fd, rights::FD_READDIR)?;
    call.memory.bytes(out, 4)?;
    let Call { memory, state, .. } = call;
    let files = files(&mut state.data)?;
    let place = memory.bytes_mut(buffer, len)?;
    let mut used = 0;
    for entry in files.list(ino, cookie)? {
        let mut head = [0; ENTRY_BYTES];
        head[0..8].copy_from_slice(&entry.number.to_le_bytes());
        head[8..16].copy_from_slice(&entry.ino.0.to_le_bytes());
        head[16..20].copy_from_slice(&(entry.name.len() as u32).to_le_bytes());
        head[20] = if entry.is_directory {
            DIRECTORY
        } else {
            REGULAR_FILE
        };
        for bytes in [&head[..], entry.name.as_bytes()] {
            let taken = bytes.len().min(place.len() - used);
            place[used..used + taken].copy_from_slice(&bytes[..taken]);
            used += taken;
        }
        if used == place.len() {
            break;
        }
    }
    memory.put_u32(out, used as u32)
}
