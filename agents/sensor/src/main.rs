//! Sample agent for the smallest nodes: reads sensor 0 without end and keeps figures of it, sets
//! actuator 0 to 1 when their mean rises beyond 30,000 and to 0 when it falls below 28,000 (30 and 28 °C, of a
//! thermometer that counts in thousandths), says how things stand after every 16th reading, and
//! answers each message with its figures. A reading that a move had lost or doubled would show
//! in them.
//!
//! It needs `sensor:0` and `actuator:0`. It has no standard library and no heap, so that it fits where there are
//! a few tens of KiB for everything.
#![cfg_attr(target_arch = "wasm32", no_std, no_main)]

mod figures;
mod line;

use core::time::Duration;

use figures::{Figures, Switch};
use line::Line;
use mielin_agent::{Error, Kind};

const SENSOR: u8 = 0;
const ACTUATOR: u8 = 0;
/// Readings from one line to the next.
const LINE_EVERY: u64 = 16;
/// How long it waits where it has no sensor, before it looks whether it has been moved to one.
const ASTRAY: Duration = Duration::from_secs(1);
/// A longer message is not looked at.
const MESSAGE_BYTES: usize = 256;
const TOO_LONG: &[u8] = b"a message has at most 256 bytes";

mielin_agent::entry!(run);

/// Goes on until something fails; then the error is the exit code's only word.
fn run() -> i32 {
    let mut figures = Figures::default();
    loop {
        if live(&mut figures).is_err() {
            return 1;
        }
    }
}

/// One reading, and what follows from it. The parts are functions of their own: in a single one the figures would be in
/// locals, each of which a rewritten program saves and restores around every call.
fn live(figures: &mut Figures) -> Result<(), Error> {
    match mielin_agent::sense(SENSOR, figures.last, None) {
        Ok(Some(reading)) => {
            figures.take(reading.number, reading.value);
            set(figures)?;
            if figures.count.is_multiple_of(LINE_EVERY) {
                print(figures)?;
            }
            answer(figures, Duration::ZERO)
        }
        Ok(None) => Ok(()),
        // Its answers are as good as where it came from.
        Err(Error::Absent) => answer(figures, ASTRAY),
        Err(error) => Err(error),
    }
}

/// Has the actuator do what the mean says. What cannot be done now is tried at the next reading.
#[inline(never)]
fn set(figures: &mut Figures) -> Result<(), Error> {
    let Some(switch) = figures.wanted() else {
        return Ok(());
    };
    match mielin_agent::actuate(ACTUATOR, i64::from(switch == Switch::On)) {
        Ok(()) => figures.switch = switch,
        Err(Error::Absent | Error::Refused | Error::Unreachable) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

#[inline(never)]
fn print(figures: &Figures) -> Result<(), Error> {
    let mut line = Line::default();
    line.text("reading ").number(figures.last.cast_signed());
    line.text(": mean ").number(figures.mean());
    line.text(", lost ").number(figures.lost.cast_signed());
    line.text(", doubled ")
        .number(figures.doubled.cast_signed());
    mielin_agent::print(line.text("\n").bytes())
}

/// Answers the oldest message, if one comes in time.
#[inline(never)]
fn answer(figures: &Figures, timeout: Duration) -> Result<(), Error> {
    let mut payload = [0; MESSAGE_BYTES];
    let figures = figures.bytes();
    let (received, answer) = match mielin_agent::receive_into(&mut payload, timeout.into()) {
        Ok(received) => (received, &figures[..]),
        Err(Error::TooLarge) => (mielin_agent::discard(MESSAGE_BYTES)?, TOO_LONG),
        Err(error) => return Err(error),
    };
    let Some(received) = received else {
        return Ok(());
    };
    if received.kind() != Kind::Message {
        return Ok(());
    }
    match received.reply(answer) {
        // A sender that is gone by now is no reason to stop.
        Err(Error::Unknown) => Ok(()),
        other => other,
    }
}
