//! The runtime alone: a firmware that sleeps, says each second how it is, and lets the watchdog restart it when it is not well.
//!
//! It is also what `cargo xtask firmware size` measures as the runtime's share of flash and RAM.

#![no_std]
#![no_main]

use core::fmt::Write;

use board::{Board, Serial, Watchdog, signals};
use cortex_m_rt::entry;
use mielin_rt::{EmbeddedRuntime, Firmware, Next, Timers, Usage, Wake, WakeSources, Watch};

/// How long it may be silent before it is reset.
const WATCHDOG_MS: u32 = 5_000;

#[entry]
fn main() -> ! {
    let crash = board::last_crash();
    let Ok(mut board) = Board::take() else {
        unreachable!("it is taken once");
    };
    let _ = writeln!(board.serial, "runtime: on {}", board::NAME);
    if let Some(crash) = crash {
        let _ = writeln!(board.serial, "runtime: before the reset: {crash}");
    }
    let second = board.machine.ticks_of_ms(1000);
    let mut timers = Timers::new();
    let set = timers.every(second, second, Due::Report);
    debug_assert!(set.is_some(), "there is room for one");
    let mut pulse = Pulse {
        serial: board.serial,
        timers,
        watchdog: board::start_watchdog(WATCHDOG_MS),
        watch: Watch::new(1),
        seconds: 0,
    };
    let mut runtime = EmbeddedRuntime::new(board.machine, &board::SIGNALS);
    loop {
        runtime.run(&mut pulse);
        pulse.report(runtime.usage());
    }
}

/// What is waited for.
#[derive(Clone, Copy, Debug)]
enum Due {
    Report,
}

/// Says each second how it is.
struct Pulse {
    serial: Serial,
    timers: Timers<Due, 2>,
    watchdog: Option<Watchdog>,
    watch: Watch,
    seconds: u32,
}

impl Firmware for Pulse {
    fn step(&mut self, wake: Wake) -> Next {
        if wake.signals & signals::SERIAL != 0 {
            while board::received().is_some() {}
        }
        if let Some(Due::Report) = self.timers.poll(wake.now) {
            self.watch.alive(0);
            if let Some(watchdog) = &mut self.watchdog {
                self.watch.feed(|| board::feed(watchdog));
            }
            return Next::Stop;
        }
        Next::Rest {
            until: self.timers.next_at(),
            needs: WakeSources::SERIAL,
        }
    }
}

impl Pulse {
    fn report(&mut self, usage: Usage) {
        self.seconds += 1;
        let (seconds, asleep, stack) =
            (self.seconds, usage.asleep_permille(), board::stack_bytes());
        let _ = writeln!(
            self.serial,
            "runtime: {seconds} s, {asleep} permille asleep, {stack} bytes of stack used"
        );
    }
}
