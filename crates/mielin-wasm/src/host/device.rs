//! The functions of the module `mielin` that reach the sensors and actuators of devices.

use super::Call;
use super::errno::Errno;
use super::patience::Patience;
use crate::services::{Actuated, Sensed};
use crate::state::Pending;
use crate::{Capability, Port, Wait};

/// Layout of what [`sense`] writes: number, time, value.
const READING_BYTES: u32 = 24;

/// The device's answer is all that ends the wait, unless there is a time.
fn answer(deadline_ns: Option<u64>) -> Wait {
    Wait {
        deadline_ns,
        message: false,
        reading: true,
    }
}

pub(crate) fn sense(
    call: &mut Call<'_>,
    sensor: u32,
    after: u64,
    timeout_ns: u64,
    out: u32,
) -> Result<(), Errno> {
    let begun = match call.state.pending.take() {
        Some(Pending::Sense { deadline_ns }) => Some(deadline_ns),
        _ => None,
    };
    let patience = Patience::of(call, timeout_ns, begun);
    call.memory.bytes(out, READING_BYTES)?;
    let sensor = granted(call, Capability::Sensor, sensor, "mielin.sense")?;
    match call.services.sense(sensor, after) {
        Sensed::Reading(reading) if reading.number > after => {
            let mut bytes = [0; READING_BYTES as usize];
            bytes[0..8].copy_from_slice(&reading.number.to_le_bytes());
            bytes[8..16].copy_from_slice(&reading.time_ns.to_le_bytes());
            bytes[16..24].copy_from_slice(&reading.value.to_le_bytes());
            call.memory.put(out, &bytes)
        }
        // A service that gives what the program is done with breaks its contract.
        Sensed::Reading(_) => Err(Errno::Io),
        Sensed::Absent => Err(Errno::Nodev),
        Sensed::NotYet => {
            let deadline_ns = patience.left()?;
            call.block(Pending::Sense { deadline_ns }, answer(deadline_ns))
        }
    }
}

pub(crate) fn actuate(call: &mut Call<'_>, actuator: u32, value: u64) -> Result<(), Errno> {
    call.state.pending = None;
    let actuator = granted(call, Capability::Actuator, actuator, "mielin.actuate")?;
    match call.services.actuate(actuator, value.cast_signed()) {
        Actuated::Done => Ok(()),
        Actuated::NotYet => call.block(Pending::Actuate, answer(None)),
        Actuated::Absent => Err(Errno::Nodev),
        Actuated::Refused => Err(Errno::Inval),
        Actuated::Unreachable => Err(Errno::Hostunreach),
    }
}

/// The number of a sensor or an actuator that the program may use. One beyond 255 is nowhere, which is told only to those who
/// may use all there are.
fn granted(
    call: &Call<'_>,
    capability: fn(Port) -> Capability,
    number: u32,
    name: &'static str,
) -> Result<u8, Errno> {
    let number = u8::try_from(number);
    call.require(capability(number.map_or(Port::Any, Port::One)), name)?;
    number.map_err(|_| Errno::Nodev)
}
