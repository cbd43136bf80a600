//! Descriptors and their state, whatever they stand for.

use super::super::Call;
use super::super::errno::Errno;
use crate::filesystem::{FileSystem, FsError, Stat};
use crate::state::{Descriptor, Object};
use crate::{Capability, DataBytes};

const CHARACTER_DEVICE: u8 = 2;
pub(super) const DIRECTORY: u8 = 3;
pub(super) const REGULAR_FILE: u8 = 4;
/// `fdflags` that a stream can have: append and non-blocking.
const STREAM_FLAGS: u32 = 1 | 4;
/// Those of a file, which can be told to be synchronous too; in memory that changes nothing.
pub(super) const FILE_FLAGS: u32 = STREAM_FLAGS | 2 | 8 | 16;

/// The number of the device that `/data` is on.
const DATA_DEVICE: u64 = 1;

/// The descriptor with this number. One of `/data` is good only while that is granted.
pub(super) fn open(call: &Call<'_>, fd: u32) -> Result<Descriptor, Errno> {
    let slot = call.state.descriptors.get(fd as usize).ok_or(Errno::Badf)?;
    let descriptor = slot.ok_or(Errno::Badf)?;
    if descriptor.what.ino().is_some() && call.state.grants.data_bytes().is_none() {
        let wanted = Capability::Data(DataBytes::default());
        call.services.denied(&wanted, "a call on /data");
        return Err(Errno::Notcapable);
    }
    Ok(descriptor)
}

pub(super) fn open_mut<'a>(call: &'a mut Call<'_>, fd: u32) -> Result<&'a mut Descriptor, Errno> {
    open(call, fd)?;
    let slot = call.state.descriptors.get_mut(fd as usize);
    slot.and_then(Option::as_mut).ok_or(Errno::Badf)
}

/// Refuses the call unless the descriptor has the right.
pub(super) fn check(descriptor: &Descriptor, right: u64) -> Result<(), Errno> {
    if descriptor.rights & right == right {
        Ok(())
    } else {
        Err(Errno::Notcapable)
    }
}

/// The files behind descriptors of `/data`.
pub(super) fn files(data: &mut Option<FileSystem>) -> Result<&mut FileSystem, Errno> {
    data.as_mut().ok_or(Errno::Notcapable)
}

/// What time a change of a file is given: none where the program may not know the time.
pub(super) fn stamp(call: &Call<'_>) -> u64 {
    if call.state.grants.allows(&Capability::Clock) {
        call.state.platform.realtime_ns()
    } else {
        0
    }
}

pub(crate) fn fd_close(call: &mut Call<'_>, fd: u32) -> Result<(), Errno> {
    call.state.close(fd as usize).ok_or(Errno::Badf)?;
    Ok(())
}

pub(crate) fn fd_renumber(call: &mut Call<'_>, from: u32, to: u32) -> Result<(), Errno> {
    open(call, from)?;
    open(call, to)?;
    call.state.renumber(from as usize, to as usize);
    Ok(())
}

pub(crate) fn fd_fdstat_get(call: &mut Call<'_>, fd: u32, out: u32) -> Result<(), Errno> {
    let descriptor = open(call, fd)?;
    let mut stat = [0; 24];
    stat[0] = match descriptor.what {
        Object::Stream(_) => CHARACTER_DEVICE,
        Object::File { .. } => REGULAR_FILE,
        Object::Directory { .. } => DIRECTORY,
    };
    stat[2..4].copy_from_slice(&descriptor.flags.to_le_bytes());
    stat[8..16].copy_from_slice(&descriptor.rights.to_le_bytes());
    stat[16..24].copy_from_slice(&descriptor.inheriting.to_le_bytes());
    call.memory.put(out, &stat)
}

pub(crate) fn fd_fdstat_set_flags(call: &mut Call<'_>, fd: u32, flags: u32) -> Result<(), Errno> {
    let descriptor = open_mut(call, fd)?;
    let settable = match descriptor.what {
        Object::Stream(_) => STREAM_FLAGS,
        Object::File { .. } | Object::Directory { .. } => FILE_FLAGS,
    };
    if flags & !settable != 0 {
        return Err(Errno::Inval);
    }
    descriptor.flags = flags as u16;
    Ok(())
}

pub(crate) fn fd_fdstat_set_rights(
    call: &mut Call<'_>,
    fd: u32,
    base: u64,
    inheriting: u64,
) -> Result<(), Errno> {
    let descriptor = open_mut(call, fd)?;
    if base & !descriptor.rights != 0 || inheriting & !descriptor.inheriting != 0 {
        return Err(Errno::Notcapable);
    }
    descriptor.rights = base;
    descriptor.inheriting = inheriting;
    Ok(())
}

pub(crate) fn fd_filestat_get(call: &mut Call<'_>, fd: u32, out: u32) -> Result<(), Errno> {
    let descriptor = open(call, fd)?;
    match descriptor.what.ino() {
        Some(ino) => {
            let stat = files(&mut call.state.data)?.stat(ino)?;
            put_stat(call, out, &stat)
        }
        None => {
            let mut stat = [0; 64];
            stat[8] = fd as u8;
            stat[16] = CHARACTER_DEVICE;
            stat[24] = 1;
            call.memory.put(out, &stat)
        }
    }
}

/// Writes a `filestat`.
pub(super) fn put_stat(call: &mut Call<'_>, out: u32, stat: &Stat) -> Result<(), Errno> {
    let mut bytes = [0; 64];
    let kind = if stat.is_directory {
        DIRECTORY
    } else {
        REGULAR_FILE
    };
    let numbers = [
        (0, DATA_DEVICE),
        (8, stat.ino.0),
        (16, kind.into()),
        (24, stat.names.into()),
        (32, stat.len),
        (40, stat.times.accessed),
        (48, stat.times.modified),
        (56, stat.times.changed),
    ];
    for (at, number) in numbers {
        bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    call.memory.put(out, &bytes)
}

/// What was written is in the log, or in the file, already.
pub(crate) fn fd_sync(call: &mut Call<'_>, fd: u32) -> Result<(), Errno> {
    open(call, fd).map(drop)
}

impl From<FsError> for Errno {
    fn from(error: FsError) -> Self {
        match error {
            FsError::NotFound => Self::Noent,
            FsError::Exists => Self::Exist,
            FsError::NotDirectory => Self::Notdir,
            FsError::IsDirectory => Self::Isdir,
            FsError::NotEmpty => Self::Notempty,
            FsError::NoSpace => Self::Nospc,
            FsError::TooLarge => Self::Fbig,
            FsError::TooManyNames => Self::Mlink,
            FsError::NameTooLong => Self::Nametoolong,
            FsError::NotUtf8 => Self::Ilseq,
            FsError::Outside => Self::Notcapable,
            FsError::Invalid => Self::Inval,
            FsError::NotPermitted => Self::Perm,
        }
    }
}
