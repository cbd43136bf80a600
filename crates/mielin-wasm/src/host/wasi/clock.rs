//! Clocks: the node's real time and the program's own monotonic time.

use super::super::Call;
use super::super::errno::Errno;
use crate::Capability;

pub(super) const REALTIME: u32 = 0;
pub(super) const MONOTONIC: u32 = 1;
const PROCESS_CPUTIME: u32 = 2;
const THREAD_CPUTIME: u32 = 3;

/// Both clocks count nanoseconds; what the machine's own clock resolves is finer than a host call.
const RESOLUTION_NS: u64 = 1;

pub(crate) fn clock_res_get(call: &mut Call<'_>, id: u32, out: u32) -> Result<(), Errno> {
    call.require(Capability::Clock, "clock_res_get")?;
    known(id)?;
    call.memory.put_u64(out, RESOLUTION_NS)
}

pub(crate) fn clock_time_get(
    call: &mut Call<'_>,
    id: u32,
    _precision: u64,
    out: u32,
) -> Result<(), Errno> {
    call.require(Capability::Clock, "clock_time_get")?;
    known(id)?;
    let now = if id == REALTIME {
        call.state.platform.realtime_ns()
    } else {
        call.state.now_ns()
    };
    call.memory.put_u64(out, now)
}

/// CPU time does not continue across a move, so those two clocks are not there.
pub(super) fn known(id: u32) -> Result<(), Errno> {
    match id {
        REALTIME | MONOTONIC => Ok(()),
        PROCESS_CPUTIME | THREAD_CPUTIME => Err(Errno::Notsup),
        _ => Err(Errno::Inval),
    }
}
