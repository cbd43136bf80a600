//! The device by which a program ends an emulated PC: QEMU's `isa-debug-exit`.
//!
//! Source: `hw/misc/debugexit.c` of QEMU: a value written becomes the exit status, doubled and one more.

use super::instructions::Ports;
use crate::shutdown::{Outcome, Shutdown};

/// QEMU ends with 33, which it never does for another reason.
const SUCCESS: u8 = 16;
/// With 3.
const FAILURE: u8 = 1;

/// `isa-debug-exit`.
#[derive(Debug)]
pub struct DebugExit {
    ports: Ports,
}

impl DebugExit {
    /// The device at the port that QEMU was told (`iobase`).
    #[must_use]
    pub const fn new(ports: Ports) -> Self {
        Self { ports }
    }
}

impl Shutdown for DebugExit {
    fn shut_down(&mut self, outcome: Outcome) {
        let value = match outcome {
            Outcome::Success => SUCCESS,
            Outcome::Failure => FAILURE,
        };
        self.ports.write8(0, value);
    }
}
