//! Calls with paths, each of which begins at a directory that is open.

use super::super::Call;
use super::super::errno::Errno;
use super::descriptor::{FILE_FLAGS, files, open, put_stat, stamp};
use super::directory::directory;
use super::file::times;
use crate::filesystem::{FileSystem, Ino, Opening, Path};
use crate::state::{Descriptor, Object, rights};

const CREATE: u32 = 1;
const DIRECTORY: u32 = 2;
const EXCLUSIVE: u32 = 4;
const TRUNCATE: u32 = 8;

/// Where a path begins, and the path as the program has it in its memory.
#[derive(Clone, Copy)]
struct Given {
    start: Ino,
    pointer: u32,
    len: u32,
}

/// A path that begins at a descriptor with this right.
fn given(call: &Call<'_>, fd: u32, right: u64, pointer: u32, len: u32) -> Result<Given, Errno> {
    let start = directory(call, fd, right)?;
    call.memory.bytes(pointer, len)?;
    Ok(Given {
        start,
        pointer,
        len,
    })
}

/// Does something with the file system and a path.
fn with<T>(
    call: &mut Call<'_>,
    at: Given,
    act: impl FnOnce(&mut FileSystem, Ino, Path<'_>) -> Result<T, Errno>,
) -> Result<T, Errno> {
    let Call { memory, state, .. } = call;
    let path = Path::new(memory.bytes(at.pointer, at.len)?)?;
    act(files(&mut state.data)?, at.start, path)
}

/// The same with two paths.
fn with_two(
    call: &mut Call<'_>,
    from: Given,
    to: Given,
    act: impl FnOnce(&mut FileSystem, (Ino, Path<'_>), (Ino, Path<'_>)) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let Call { memory, state, .. } = call;
    let first = Path::new(memory.bytes(from.pointer, from.len)?)?;
    let second = Path::new(memory.bytes(to.pointer, to.len)?)?;
    let (first, second) = ((from.start, first), (to.start, second));
    act(files(&mut state.data)?, first, second)
}

/// The arguments of `path_open` behind the path.
#[derive(Clone, Copy)]
pub(crate) struct Flags {
    pub(crate) open: u32,
    pub(crate) base: u64,
    pub(crate) inheriting: u64,
    pub(crate) descriptor: u32,
}

/// Rights that are asked for and that the directory cannot pass on, or that make no sense for what is
/// opened, are left out: C libraries ask for all that could be meant.
pub(crate) fn path_open(
    call: &mut Call<'_>,
    fd: u32,
    path: u32,
    len: u32,
    flags: Flags,
    out: u32,
) -> Result<(), Errno> {
    let parent = open(call, fd)?;
    let at = given(call, fd, needed(flags.open), path, len)?;
    call.memory.bytes(out, 4)?;
    let how = opening(flags)?;
    if !call.state.has_free_descriptor() {
        return Err(Errno::Mfile);
    }
    let now = stamp(call);
    let what = with(call, at, |files, start, path| {
        let ino = files.open(start, path, how, now)?;
        Ok(if files.stat(ino)?.is_directory {
            Object::Directory {
                ino,
                preopened: false,
            }
        } else {
            Object::File { ino, position: 0 }
        })
    })?;
    let descriptor = Descriptor {
        what,
        flags: flags.descriptor as u16,
        rights: flags.base & parent.inheriting & what.rights(),
        inheriting: flags.inheriting & parent.inheriting & what.inheriting(),
    };
    let number = call.state.enter(descriptor).ok_or(Errno::Mfile)?;
    call.memory.put_u32(out, number)
}

/// The rights that a directory needs for a file to be opened there.
fn needed(flags: u32) -> u64 {
    let mut right = rights::PATH_OPEN;
    if flags & CREATE != 0 {
        right |= rights::PATH_CREATE_FILE;
    }
    if flags & TRUNCATE != 0 {
        right |= rights::PATH_FILESTAT_SET_SIZE;
    }
    right
}

fn opening(flags: Flags) -> Result<Opening, Errno> {
    let has = |flag| flags.open & flag != 0;
    let known = CREATE | DIRECTORY | EXCLUSIVE | TRUNCATE;
    let contradicts = has(CREATE) && has(DIRECTORY);
    if flags.open & !known != 0 || flags.descriptor & !FILE_FLAGS != 0 || contradicts {
        return Err(Errno::Inval);
    }
    Ok(Opening {
        create: has(CREATE),
        exclusive: has(EXCLUSIVE),
        truncate: has(TRUNCATE),
        directory: has(DIRECTORY),
        write: flags.base & rights::FD_WRITE != 0 && !has(DIRECTORY),
    })
}

pub(crate) fn path_create_directory(
    call: &mut Call<'_>,
    fd: u32,
    path: u32,
    len: u32,
) -> Result<(), Errno> {
    let at = given(call, fd, rights::PATH_CREATE_DIRECTORY, path, len)?;
    let now = stamp(call);
    with(call, at, |files, start, path| {
        Ok(files.make_directory(start, path, now)?)
    })
}

pub(crate) fn path_remove_directory(
    call: &mut Call<'_>,
    fd: u32,
    path: u32,
    len: u32,
) -> Result<(), Errno> {
    let at = given(call, fd, rights::PATH_REMOVE_DIRECTORY, path, len)?;
    let now = stamp(call);
    with(call, at, |files, start, path| {
        Ok(files.remove_directory(start, path, now)?)
    })
}

pub(crate) fn path_unlink_file(
    call: &mut Call<'_>,
    fd: u32,
    path: u32,
    len: u32,
) -> Result<(), Errno> {
    let at = given(call, fd, rights::PATH_UNLINK_FILE, path, len)?;
    let now = stamp(call);
    with(call, at, |files, start, path| {
        Ok(files.remove_file(start, path, now)?)
    })
}

pub(crate) fn path_filestat_get(
    call: &mut Call<'_>,
    fd: u32,
    path: u32,
    len: u32,
    out: u32,
) -> Result<(), Errno> {
    let at = given(call, fd, rights::PATH_FILESTAT_GET, path, len)?;
    let stat = with(call, at, |files, start, path| {
        Ok(files.stat_at(start, path)?)
    })?;
    put_stat(call, out, &stat)
}

/// The arguments of `path_filestat_set_times` behind the path.
#[derive(Clone, Copy)]
pub(crate) struct SetTimes {
    pub(crate) accessed: u64,
    pub(crate) modified: u64,
    pub(crate) flags: u32,
}

pub(crate) fn path_filestat_set_times(
    call: &mut Call<'_>,
    fd: u32,
    path: u32,
    len: u32,
    set: SetTimes,
) -> Result<(), Errno> {
    let at = given(call, fd, rights::PATH_FILESTAT_SET_TIMES, path, len)?;
    let (accessed, modified) = times(call, set.accessed, set.modified, set.flags)?;
    let now = stamp(call);
    with(call, at, |files, start, path| {
        let ino = files.find(start, path)?;
        Ok(files.set_times(ino, accessed, modified, now)?)
    })
}

/// Where two paths are in the program's memory.
#[derive(Clone, Copy)]
pub(crate) struct Two {
    pub(crate) from: (u32, u32, u32),
    pub(crate) to: (u32, u32, u32),
}

pub(crate) fn path_rename(call: &mut Call<'_>, two: Two) -> Result<(), Errno> {
    let ((fd, path, len), (to, to_path, to_len)) = (two.from, two.to);
    let from = given(call, fd, rights::PATH_RENAME_SOURCE, path, len)?;
    let to = given(call, to, rights::PATH_RENAME_TARGET, to_path, to_len)?;
    let now = stamp(call);
    with_two(call, from, to, |files, from, to| {
        Ok(files.rename(from, to, now)?)
    })
}

pub(crate) fn path_link(call: &mut Call<'_>, two: Two) -> Result<(), Errno> {
    let ((fd, path, len), (to, to_path, to_len)) = (two.from, two.to);
    let from = given(call, fd, rights::PATH_LINK_SOURCE, path, len)?;
    let to = given(call, to, rights::PATH_LINK_TARGET, to_path, to_len)?;
    let now = stamp(call);
    with_two(call, from, to, |files, from, to| {
        Ok(files.link(from, to, now)?)
    })
}

/// There are no symbolic links.
pub(crate) fn path_symlink(
    call: &mut Call<'_>,
    target: (u32, u32),
    fd: u32,
    path: u32,
    len: u32,
) -> Result<(), Errno> {
    given(call, fd, rights::PATH_SYMLINK, path, len)?;
    call.memory.bytes(target.0, target.1)?;
    Err(Errno::Notsup)
}

/// What is there is no symbolic link.
pub(crate) fn path_readlink(
    call: &mut Call<'_>,
    fd: u32,
    path: u32,
    len: u32,
) -> Result<(), Errno> {
    let at = given(call, fd, rights::PATH_READLINK, path, len)?;
    with(call, at, |files, start, path| {
        Ok(files.stat_at(start, path)?)
    })?;
    Err(Errno::Inval)
}
