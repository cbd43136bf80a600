//! The timer of the first PCs, by whose known rate others are measured.
//!
//! Source: Intel 8254 Programmable Interval Timer data sheet (order number 231164), "Mode 0"; the gate and output of its
//! third counter are bits of port 0x61 (Intel ICH9 data sheet, 13.7.1 "NMI_SC").

use super::instructions::Ports;

/// Ticks of the counter in a second.
pub(super) const FREQUENCY_HZ: u64 = 1_193_182;

/// From port 0x40 on.
const COUNTER_2: u16 = 2;
const MODE: u16 = 3;
/// Counter 2, both bytes, mode 0: the output rises when the count has ended.
const COUNTER_2_ONCE: u8 = 0b1011_0000;
/// Port 0x61.
const GATE: u8 = 1 << 0;
const SPEAKER: u8 = 1 << 1;
const OUTPUT: u8 = 1 << 5;

/// Counter 2 of an 8254.
#[derive(Debug)]
pub struct Pit {
    counters: Ports,
    gate: Ports,
}

impl Pit {
    /// `counters` are the four ports from 0x40 on, `gate` is port 0x61.
    #[must_use]
    pub const fn new(counters: Ports, gate: Ports) -> Self {
        Self { counters, gate }
    }

    /// Waits for so many ticks of 1,193,182 in a second, or a little longer.
    pub fn wait(&mut self, ticks: u16) {
        let others = self.gate.read8(0) & !(GATE | SPEAKER);
        self.gate.write8(0, others);
        self.counters.write8(MODE, COUNTER_2_ONCE);
        let [low, high] = ticks.to_le_bytes();
        self.counters.write8(COUNTER_2, low);
        self.counters.write8(COUNTER_2, high);
        self.gate.write8(0, others | GATE);
        while self.gate.read8(0) & OUTPUT == 0 {
            core::hint::spin_loop();
        }
        self.gate.write8(0, others);
    }
}
