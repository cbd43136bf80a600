//! A line on the board's UART.

use core::time::Duration;

use board::Serial;
use mielin_leaf::Line;
use mielin_mesh_core::Instant;
use mielin_mesh_core::leaf::FRAME_BYTES_MAX;

const NS: u64 = 1_000_000_000;
const HZ: u64 = board::CLOCK_HZ as u64;

/// The time at so many ticks of the processor's clock, in nanoseconds since the start.
#[must_use]
pub fn ns(ticks: u64) -> u64 {
    (ticks / HZ).saturating_mul(NS) + ticks % HZ * NS / HZ
}

/// The time at so many ticks of the processor's clock.
#[must_use]
pub fn instant(ticks: u64) -> Instant {
    Instant::from_start(Duration::from_nanos(ns(ticks)))
}

/// The first tick at which a time has come.
#[must_use]
pub fn ticks(at: Instant) -> u64 {
    let at = at.since_start();
    let part = (u64::from(at.subsec_nanos()) * HZ).div_ceil(NS);
    at.as_secs().saturating_mul(HZ).saturating_add(part)
}

/// A line and the UART under it.
#[derive(Debug)]
pub struct Port {
    serial: Serial,
    /// The line.
    pub line: Line,
}

impl Port {
    /// A line on this UART.
    #[must_use]
    pub fn new(serial: Serial, line: Line) -> Self {
        Self { serial, line }
    }

    /// Takes in what has come.
    pub fn receive(&mut self, now: Instant) {
        while let Some(byte) = board::received() {
            self.line.receive(now, byte);
        }
    }

    /// Sends what there is to send; returns when all is in the UART.
    pub fn send(&mut self, now: Instant) {
        let mut frame = [0; FRAME_BYTES_MAX];
        while let Some(frame) = self.line.poll_frame(now, &mut frame) {
            self.serial.write(frame);
        }
    }
}
