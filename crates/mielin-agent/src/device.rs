//! Sensors and actuators of devices.

use core::time::Duration;

use crate::Error;
use crate::error::{ERRNO_AGAIN, ERRNO_HOSTUNREACH, ERRNO_INVAL, ERRNO_TIMEDOUT};
use crate::ffi::{self, READING_BYTES};
use crate::message::{number, timeout_ns};

/// What a sensor measured once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Its number among the readings of this sensor, from 1. A gap says that the
    /// device had no room for more.
    pub number: u64,
    /// When it was taken, on the clock of the device: real time in ns since 1970
    /// where the device knows it, else the time since the device was started.
    pub time_ns: u64,
    /// How much, in the sensor's own unit.
    pub value: i64,
}

pub(crate) fn sense(
    sensor: u8,
    after: u64,
    timeout: Option<Duration>,
) -> Result<Option<Reading>, Error> {
    let mut bytes = [0; READING_BYTES];
    match ffi::sense(sensor, after, timeout_ns(timeout), &mut bytes) {
        ERRNO_AGAIN | ERRNO_TIMEDOUT => Ok(None),
        errno => Error::check(errno).map(|()| Some(read(&bytes))),
    }
}

pub(crate) fn actuate(actuator: u8, value: i64) -> Result<(), Error> {
    match ffi::actuate(actuator, value) {
        ERRNO_INVAL => Err(Error::Refused),
        ERRNO_HOSTUNREACH => Err(Error::Unreachable),
        errno => Error::check(errno),
    }
}

fn read(bytes: &[u8; READING_BYTES]) -> Reading {
    Reading {
        number: number(&bytes[..8]),
        time_ns: number(&bytes[8..16]),
        value: number(&bytes[16..]).cast_signed(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Reading, read};

    #[test]
    fn fields_of_a_reading() {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&(1_u64 << 33).to_le_bytes());
        bytes[8..16].copy_from_slice(&5_u64.to_le_bytes());
        bytes[16..].copy_from_slice(&(-40_i64).to_le_bytes());
        let expected = Reading {
            number: 1 << 33,
            time_ns: 5,
            value: -40,
        };
        assert_eq!(read(&bytes), expected);
    }
}
