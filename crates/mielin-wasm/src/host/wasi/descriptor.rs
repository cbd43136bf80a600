//! Descriptors and their state.

use super::super::Call;
use super::super::errno::Errno;
use crate::state::Descriptor;

const CHARACTER_DEVICE: u8 = 2;
/// `fdflags` that a stream can have: append and non-blocking. The others are about files on disk.
const SETTABLE_FLAGS: u32 = 1 | 4;

/// The descriptor with this number.
pub(super) fn open(call: &Call<'_>, fd: u32) -> Result<Descriptor, Errno> {
    let slot = call.state.descriptors.get(fd as usize).ok_or(Errno::Badf)?;
    slot.ok_or(Errno::Badf)
}

fn open_mut<'a>(call: &'a mut Call<'_>, fd: u32) -> Result<&'a mut Descriptor, Errno> {
    let slot = call
        .state
        .descriptors
        .get_mut(fd as usize)
        .ok_or(Errno::Badf)?;
    slot.as_mut().ok_or(Errno::Badf)
}

pub(crate) fn fd_close(call: &mut Call<'_>, fd: u32) -> Result<(), Errno> {
    open(call, fd)?;
    call.state.descriptors[fd as usize] = None;
    Ok(())
}

pub(crate) fn fd_renumber(call: &mut Call<'_>, from: u32, to: u32) -> Result<(), Errno> {
    let descriptor = open(call, from)?;
    open(call, to)?;
    call.state.descriptors[from as usize] = None;
    call.state.descriptors[to as usize] = Some(descriptor);
    Ok(())
}

pub(crate) fn fd_fdstat_get(call: &mut Call<'_>, fd: u32, out: u32) -> Result<(), Errno> {
    let descriptor = open(call, fd)?;
    let mut stat = [0; 24];
    stat[0] = CHARACTER_DEVICE;
    stat[2..4].copy_from_slice(&descriptor.flags.to_le_bytes());
    stat[8..16].copy_from_slice(&descriptor.rights.to_le_bytes());
    call.memory.put(out, &stat)
}

pub(crate) fn fd_fdstat_set_flags(call: &mut Call<'_>, fd: u32, flags: u32) -> Result<(), Errno> {
    let descriptor = open_mut(call, fd)?;
    if flags & !SETTABLE_FLAGS != 0 {
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
    if base & !descriptor.rights != 0 || inheriting != 0 {
        return Err(Errno::Notcapable);
    }
    descriptor.rights = base;
    Ok(())
}

pub(crate) fn fd_filestat_get(call: &mut Call<'_>, fd: u32, out: u32) -> Result<(), Errno> {
    open(call, fd)?;
    let mut stat = [0; 64];
    stat[8] = fd as u8;
    stat[16] = CHARACTER_DEVICE;
    stat[24] = 1;
    call.memory.put(out, &stat)
}

/// What was written is in the log already.
pub(crate) fn fd_sync(call: &mut Call<'_>, fd: u32) -> Result<(), Errno> {
    open(call, fd).map(drop)
}
