//! The runtime and the leaf link, without an engine for agents: a member of a mesh that says back whatever it is told.
//!
//! It is what `cargo xtask firmware size` measures as the share of the link, and the smallest firmware that speaks it. Its console is the board's second UART.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::fmt::Write;

use board::{Console, Watchdog, signals};
use cortex_m_rt::entry;
use mielin_driver::{Port, Start, instant, ticks};
use mielin_leaf::LineEvent;
use mielin_rt::{EmbeddedRuntime, Firmware, Next, Timers, Wake, WakeSources, Watch};

/// How long it may be silent before it is reset, and how often it says that it is not.
const WATCHDOG_MS: u32 = 5_000;
const SIGN_MS: u32 = 2_000;

/// The parts of which the watchdog wants a sign of life.
const LOOP: u32 = 0;
const LINE: u32 = 1;

#[entry]
fn main() -> ! {
    let mut start = Start::begin("link");
    let line = start.line();
    let period = start.board.machine.ticks_of_ms(SIGN_MS);
    let mut timers = Timers::new();
    let set = timers.every(period, period, Due::Sign);
    debug_assert!(set.is_some(), "there is room for one");
    let mut echo = Echo {
        port: Port::new(start.board.serial, line),
        echo: None,
        console: start.console,
        timers,
        watchdog: board::start_watchdog(WATCHDOG_MS),
        watch: Watch::new(2),
    };
    let mut runtime = EmbeddedRuntime::new(start.board.machine, &board::SIGNALS);
    loop {
        runtime.run(&mut echo);
    }
}

/// What is waited for.
#[derive(Clone, Copy, Debug)]
enum Due {
    Sign,
}

/// Says back what it is told.
struct Echo {
    port: Port,
    /// What has found no room.
    echo: Option<Vec<u8>>,
    console: Console,
    timers: Timers<Due, 1>,
    watchdog: Option<Watchdog>,
    watch: Watch,
}

impl Firmware for Echo {
    fn step(&mut self, wake: Wake) -> Next {
        let now = instant(wake.now);
        if wake.signals & signals::SERIAL != 0 {
            self.port.receive(now);
        }
        self.port.line.handle_time(now, true);
        self.watch.alive(LINE);
        while let Some(event) = self.port.line.poll_event() {
            self.say(&event);
        }
        // The host sends no more than what is taken: what finds no room keeps it back.
        while let Some(message) = self.echo.take().or_else(|| self.port.line.take()) {
            if self.port.line.send(now, &message).is_err() {
                self.echo = Some(message);
                break;
            }
        }
        self.port.send(now);
        if let Some(Due::Sign) = self.timers.poll(wake.now) {
            self.watch.alive(LOOP);
            if let Some(watchdog) = &mut self.watchdog {
                self.watch.feed(|| board::feed(watchdog));
            }
        }
        let next = [
            self.timers.next_at(),
            self.port.line.next_at(true).map(ticks),
        ];
        Next::Rest {
            until: next.into_iter().flatten().min(),
            needs: WakeSources::SERIAL,
        }
    }
}

impl Echo {
    fn say(&mut self, event: &LineEvent) {
        let console = &mut self.console;
        let _ = match event {
            LineEvent::Connected => writeln!(console, "link: connected"),
            LineEvent::Restarted { .. } => writeln!(console, "link: the host has started anew"),
            LineEvent::Unanswered => writeln!(console, "link: nobody answers"),
            LineEvent::Refused(refusal) => writeln!(console, "link: refused: {refusal}"),
            LineEvent::Writable => Ok(()),
        };
    }
}
