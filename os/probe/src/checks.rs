//! What is printed and tried on every board.

use core::fmt::Write;
use core::time::Duration;

#[cfg(not(any(cortex_m, board = "x86_64_q35")))]
use mielin_hal::DeviceTree;
use mielin_hal::{Console, HardwareCapabilities, Text, Timer, Topology};

/// How often the clock is read in a row.
const READINGS: u32 = 10_000;
/// Long enough that whoever watches the console can tell a clock of the wrong rate; several times, because a watch may be
/// late, too.
const WATCHED: Duration = Duration::from_millis(150);
const WATCHED_TIMES: u32 = 4;
/// An alarm that is set and taken back in the course of a wait must not lose time.
const WATCHED_PARTS: u64 = 3;
const FAR: Duration = Duration::from_secs(3600);
/// How often each interrupt is taken: a second one comes only if the first was completed.
pub(crate) const TIMES: u32 = 2;
/// The byte that is to come in.
const WANTED: u8 = b'm';

/// Prints what the processor says of itself.
pub(crate) fn print_machine(console: &mut impl Console, machine: &HardwareCapabilities) {
    let mut out = Text(console);
    say(write!(
        out,
        "architecture: {}\nfeatures:",
        machine.architecture()
    ));
    for feature in machine.features() {
        say(write!(out, " {feature}"));
    }
    say(match machine.vector_bits() {
        Some(bits) => write!(out, "\nvector bits: {bits}\n"),
        None => write!(out, "\nvector bits: none\n"),
    });
    let topology = Topology::detect();
    if let Some(model) = topology.model {
        say(writeln!(out, "model: {model}"));
    }
    for cache in topology.caches.iter() {
        let (level, kind, size) = (cache.level, cache.kind, cache.size_bytes);
        say(writeln!(out, "cache: level {level}, {kind}, {size} bytes"));
    }
}

/// The kernels of `mielin-tensor` give the bits here that they give elsewhere.
#[cfg(kernels)]
pub(crate) fn kernels_compute(console: &mut impl Console) {
    let backend = mielin_tensor::Backend::active();
    let found = crate::kernels::digest();
    let expected = crate::kernels::SCALAR;
    assert!(
        found == expected,
        "the kernels ({backend}) give {found:#018x}"
    );
    say(writeln!(Text(console), "kernels: {backend}"));
}

/// Prints what firmware says of the machine.
#[cfg(not(any(cortex_m, board = "x86_64_q35")))]
pub(crate) fn print_device_tree(console: &mut impl Console, tree: DeviceTree<'_>) {
    let mut out = Text(console);
    let compatible = tree.root().text("compatible").unwrap_or("nothing");
    say(writeln!(out, "board: {compatible}"));
    say(writeln!(out, "processors: {}", tree.processors().count()));
    for (address, len) in tree.memory() {
        say(writeln!(out, "memory: {len:#x} bytes at {address:#x}"));
    }
}

/// The clock does not go back, and counts at about the rate that it says: the lines around the wait are for a watch.
pub(crate) fn clock_counts(console: &mut impl Console, timer: &mut impl Timer) {
    let mut last = timer.now();
    for _ in 0..READINGS {
        let now = timer.now();
        assert!(now >= last, "the clock went from {last} back to {now}");
        last = now;
    }
    say(writeln!(
        Text(console),
        "timer: {} Hz",
        timer.frequency_hz()
    ));
    for _ in 0..WATCHED_TIMES {
        say(writeln!(Text(console), "wait: begins"));
        let (begin, ticks) = (timer.now(), timer.ticks(WATCHED));
        for part in 1..=WATCHED_PARTS {
            while timer.now() < begin + ticks * part / WATCHED_PARTS {
                core::hint::spin_loop();
            }
            // Interrupts are masked.
            timer.set_alarm(begin + timer.ticks(FAR));
            timer.clear_alarm();
        }
        say(writeln!(Text(console), "wait: ends"));
    }
}

/// An alarm came when it should: not before its time, and the clock went on.
pub(crate) fn alarm_came(console: &mut impl Console, timer: &impl Timer, due: u64, came: u64) {
    assert!(came >= due, "the alarm of {due} came at {came}");
    let late = timer.duration(came - due);
    say(writeln!(Text(console), "alarm: came"));
    say(writeln!(Text(console), "alarm was late: {late:?}"));
}

/// Asks for a byte and waits for it.
pub(crate) fn console_reads(console: &mut impl Console) {
    // What noise has come before.
    while console.read_byte().is_some() {}
    say(writeln!(
        Text(console),
        "console: send {}",
        char::from(WANTED)
    ));
    let byte = loop {
        if let Some(byte) = console.read_byte() {
            break byte;
        }
        core::hint::spin_loop();
    };
    assert!(byte == WANTED, "the byte {byte:#x} came in");
    say(writeln!(
        Text(console),
        "console: read {}",
        char::from(byte)
    ));
}

fn say(written: core::fmt::Result) {
    written.expect("a console takes everything");
}
