#![allow(unsafe_code)]

extern crate std;
use std::vec;
use std::vec::Vec;

use super::*;
use crate::{Console, InterruptController, Outcome, Polarity, Shutdown, Trigger};

/// Memory in the place of a device: it keeps what is written, and says what was put there.
struct Device {
    words: Vec<u32>,
}

impl Device {
    fn new(bytes: usize) -> Self {
        Self {
            words: vec![0; bytes / 4],
        }
    }

    fn registers(&mut self) -> Registers {
        let base = self.words.as_mut_ptr().expose_provenance();
        // SAFETY: the words are aligned, and live and stay where they are for as long as the tests use the value; they
        // are looked at between its uses only, and memory changes no other memory.
        unsafe { Registers::new(base, self.words.len() * 4) }
    }

    fn word(&self, offset: usize) -> u32 {
        // SAFETY: an element of the vector, borrowed here. Volatile, because the driver has written it by its address.
        unsafe { core::ptr::read_volatile(&raw const self.words[offset / 4]) }
    }

    fn set(&mut self, offset: usize, word: u32) {
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(&raw mut self.words[offset / 4], word) }
    }
}

#[test]
fn registers_end_where_they_end() {
    let mut device = Device::new(16);
    let mut registers = device.registers();
    registers.write32(12, 0x0102_0304);
    registers.write8(0, 7);
    assert_eq!((registers.read32(12), registers.read8(0)), (0x0102_0304, 7));
    for offset in [13, 14, 16, usize::MAX - 1, usize::MAX] {
        let panics = std::panic::catch_unwind(|| registers.read32(offset));
        assert!(panics.is_err(), "{offset}");
    }
    assert!(std::panic::catch_unwind(|| registers.read8(16)).is_err());
}

#[test]
fn plic_lines_have_their_bits() {
    let mut device = Device::new(0x20_3000);
    device.set(0x20_1000, 7);
    // Line 4 of context 1 is somebody else's.
    device.set(0x2080, 1 << 4);
    let mut plic = Plic::new(device.registers(), 1, 53);
    assert_eq!(device.word(0x20_1000), 0, "the threshold of context 1");
    plic.enable(10);
    plic.enable(40);
    assert_eq!(device.word(0x2080), 1 << 4 | 1 << 10);
    assert_eq!(device.word(0x2084), 1 << 8);
    assert_eq!((device.word(4 * 10), device.word(4 * 40)), (1, 1));
    plic.disable(10);
    assert_eq!(device.word(0x2080), 1 << 4);
    // There is no line 0, and none above the last.
    for line in [0, 54, 4096, u32::MAX] {
        plic.enable(line);
    }
    assert_eq!((device.word(0), device.word(4 * 54)), (0, 0));
    assert_eq!(device.word(0x2080), 1 << 4);
    assert_eq!(plic.claim(), None);
    device.set(0x20_1004, 10);
    assert_eq!(plic.claim(), Some(10));
    plic.complete(40);
    assert_eq!(device.word(0x20_1004), 40);
}

#[test]
fn gic_lines_have_their_bits_and_bytes() {
    let mut distributor = Device::new(0x1000);
    let mut interface = Device::new(0x1000);
    // 96 lines; this is processor 1 of several.
    distributor.set(0x004, 0b10);
    distributor.set(0x800, 0x0202_0202);
    let mut gic = GicV2::new(distributor.registers(), interface.registers());
    assert_eq!((distributor.word(0), interface.word(0)), (1, 1));
    assert_eq!(interface.word(4), 0xff);
    gic.enable(27);
    assert_eq!(distributor.word(0x100), 1 << 27);
    assert_eq!(distributor.word(0x400 + 24), 0x80 << 24);
    assert_eq!(
        distributor.word(0x800 + 24),
        0,
        "private lines have no target"
    );
    gic.enable(33);
    assert_eq!(distributor.word(0x104), 1 << 1);
    assert_eq!(distributor.word(0x800 + 32), 0x02 << 8);
    gic.disable(33);
    assert_eq!(distributor.word(0x184), 1 << 1);
    // What other processors send is no line, and there are 96.
    for line in [0, 15, 96, 1020, u32::MAX] {
        gic.enable(line);
    }
    assert_eq!(
        (distributor.word(0x100), distributor.word(0x10c)),
        (1 << 27, 0)
    );
    interface.set(0xc, 27);
    assert_eq!(gic.claim(), Some(27));
    gic.complete(27);
    assert_eq!(interface.word(0x10), 27);
    interface.set(0xc, 1023);
    assert_eq!(gic.claim(), None);
}

/// Memory has one register in the window: the last that was written.
#[test]
fn io_apic_lines_have_their_vectors() {
    let mut device = Device::new(0x20);
    // Version 0x20, and 24 lines.
    device.set(0x10, 0x0017_0020);
    let mut apic = IoApic::new(device.registers(), 0x30, 3);
    assert_eq!(apic.lines(), 24);
    // The last line goes to local APIC 3.
    assert_eq!((device.word(0), device.word(0x10)), (0x10 + 47, 3 << 24));
    assert_eq!((apic.vector(0), apic.vector(23)), (Some(0x30), Some(0x47)));
    assert_eq!((apic.vector(24), apic.vector(u32::MAX)), (None, None));
    assert_eq!((apic.line(0x2f), apic.line(0x30)), (None, Some(0)));
    assert_eq!((apic.line(0x47), apic.line(0x48)), (Some(23), None));
    // What is written into the lower register: mask 16, trigger 15, polarity 13, vector.
    let redirection = io_apic::redirection;
    assert_eq!(redirection(0x34, Trigger::Edge, Polarity::High), 0x1_0034);
    assert_eq!(redirection(0x34, Trigger::Edge, Polarity::Low), 0x1_2034);
    assert_eq!(redirection(0x34, Trigger::Level, Polarity::High), 0x1_8034);
    assert_eq!(redirection(0x34, Trigger::Level, Polarity::Low), 0x1_a034);
    device.set(0x10, 0x1_a034);
    apic.enable(4);
    assert_eq!((device.word(0), device.word(0x10)), (0x18, 0xa034));
    apic.disable(4);
    assert_eq!((device.word(0), device.word(0x10)), (0x18, 0x1_a034));
    for line in [24, 255, 0x8000_0000, u32::MAX] {
        apic.enable(line);
        apic.configure(line, Trigger::Level, Polarity::Low);
    }
    assert_eq!((device.word(0), device.word(0x10)), (0x18, 0x1_a034));
    apic.configure(23, Trigger::Level, Polarity::Low);
    assert_eq!((device.word(0), device.word(0x10)), (0x10 + 47, 3 << 24));
}

#[test]
fn io_apic_lines_without_a_vector_are_not_used() {
    let mut device = Device::new(0x20);
    device.set(0x10, 0x00ff_0020);
    assert_eq!(IoApic::new(device.registers(), 0, 0).lines(), 223);
    device.set(0x10, 0x0017_0020);
    let apic = IoApic::new(device.registers(), 0xfe, 0);
    assert_eq!((apic.lines(), apic.vector(0)), (1, Some(0xfe)));
    device.set(0x10, 0x0017_0020);
    let apic = IoApic::new(device.registers(), 0xff, 0);
    assert_eq!((apic.lines(), apic.vector(0)), (0, None));
}

#[test]
fn a_16550_is_asked_before_a_byte_is_taken() {
    let mut device = Device::new(8);
    // The transmitter is empty, nothing has come.
    device.set(4, 0x20 << 8);
    let mut uart = Ns16550::new(device.registers());
    assert_eq!(device.word(0), 0b111 << 16, "FIFOs on, interrupts off");
    assert_eq!(uart.read_byte(), None);
    uart.write_byte(b'm');
    assert_eq!(device.word(0) & 0xff, u32::from(b'm'));
    device.set(4, 0x21 << 8);
    assert_eq!(uart.read_byte(), Some(b'm'));
    uart.interrupt_when_writable(true);
    assert_eq!(device.word(0) >> 8 & 0xff, 0b10);
    assert_eq!(device.word(4) & 0xff, 0b1000);
}

#[test]
fn the_finisher_is_told_the_outcome() {
    let mut device = Device::new(4);
    SifiveTest::new(device.registers()).shut_down(Outcome::Success);
    assert_eq!(device.word(0), 0x5555);
    SifiveTest::new(device.registers()).shut_down(Outcome::Failure);
    assert_eq!(device.word(0), 0x1_3333);
}
