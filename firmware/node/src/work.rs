//! One step of the loop.

use alloc::vec::Vec;
use core::fmt::Write;

use board::{Console, SleepClock, Watchdog};
use mielin_driver::{Port, free_bytes, instant, ns, ticks};
use mielin_leaf::{BATTERY_PERIOD, LineEvent, Node, Report};
use mielin_mesh_core::Instant;
use mielin_rt::cortex_m::CortexM;
use mielin_rt::{Firmware, Next, Timers, Usage, Wake, WakeSources, Watch, cortex_m};

use crate::platform::PLATFORM;
use crate::slices;

/// How long it may be silent before it is reset, and how often it says that it is not.
const WATCHDOG_MS: u32 = 5_000;
const SIGN_MS: u32 = 1_000;
/// After so many looks at the battery it says how it is.
const LOOKS: u32 = 40;

/// The parts of which the watchdog wants a sign of life. An agent is none: one that computes without end is stopped after each turn, and is alive.
const LINE: u32 = 0;
const NODE: u32 = 1;
const BATTERY: u32 = 2;

/// What is waited for.
#[derive(Clone, Copy, Debug)]
enum Due {
    Sign,
    Battery,
}

/// All that the firmware does.
pub(crate) struct Work {
    node: Node,
    port: Port,
    console: Console,
    /// A message for which the line had no room.
    waiting: Option<Vec<u8>>,
    timers: Timers<Due, 2>,
    watchdog: Option<Watchdog>,
    watch: Watch,
    usage: Usage,
    line_bytes: u64,
    looks: u32,
}

impl Work {
    pub(crate) fn new(
        node: Node,
        port: Port,
        console: Console,
        machine: &CortexM<SleepClock>,
    ) -> Self {
        let mut timers = Timers::new();
        let battery_ms = u32::try_from(BATTERY_PERIOD.as_millis()).unwrap_or(u32::MAX);
        for (ms, due) in [(SIGN_MS, Due::Sign), (battery_ms, Due::Battery)] {
            let period = machine.ticks_of_ms(ms);
            let set = timers.every(cortex_m::now() + period, period, due);
            debug_assert!(set.is_some(), "there is room for both");
        }
        Self {
            node,
            port,
            console,
            waiting: None,
            timers,
            watchdog: board::start_watchdog(WATCHDOG_MS),
            watch: Watch::new(3),
            usage: Usage::default(),
            line_bytes: 0,
            looks: 0,
        }
    }

    /// Takes from the battery what was spent until here.
    pub(crate) fn account(&mut self, usage: Usage) {
        let ms = |ticks: u64| ns(ticks) / 1_000_000;
        let asleep = |usage: Usage| ms(usage.sleep_ticks) + ms(usage.deep_sleep_ticks);
        let awake_ms = ms(usage.run_ticks).saturating_sub(ms(self.usage.run_ticks));
        let asleep_ms = asleep(usage).saturating_sub(asleep(self.usage));
        let bytes = self.port.line.bytes();
        let now = instant(cortex_m::now());
        let line_bytes = bytes - self.line_bytes;
        self.node
            .handle_battery(now, awake_ms, asleep_ms, line_bytes);
        (self.usage, self.line_bytes) = (usage, bytes);
        self.watch.alive(BATTERY);
        self.looks += 1;
        if self.looks.is_multiple_of(LOOKS) {
            let (asleep, stack) = (usage.asleep_permille(), board::stack_bytes());
            let (free, dropped) = (free_bytes(), self.port.line.dropped());
            let _ = writeln!(
                self.console,
                "node: {asleep} permille asleep, {stack} bytes of stack used, {free} of memory free, {dropped} packets dropped"
            );
        }
    }

    /// What has happened on the line, and what the host says.
    fn hear(&mut self) {
        while let Some(event) = self.port.line.poll_event() {
            let console = &mut self.console;
            let _ = match event {
                LineEvent::Connected => writeln!(console, "node: connected"),
                LineEvent::Restarted { .. } => {
                    self.waiting = None;
                    self.node.restarted();
                    writeln!(console, "node: the streams begin anew")
                }
                LineEvent::Unanswered => writeln!(console, "node: nobody answers"),
                LineEvent::Refused(refusal) => writeln!(console, "node: refused: {refusal}"),
                LineEvent::Writable => Ok(()),
            };
        }
        while let Some(message) = self.port.line.take() {
            let begun = cortex_m::now();
            if !self.node.handle_message(&message) {
                let _ = writeln!(self.console, "node: the host says something unknown");
            }
            self.show(begun);
        }
    }

    /// What the node says, as far as the line has room.
    fn say(&mut self, now: Instant) {
        while let Some(message) = self.waiting.take().or_else(|| self.node.poll_message()) {
            if self.port.line.send(now, &message).is_err() {
                self.waiting = Some(message);
                return;
            }
        }
    }

    /// Shows what has happened; of what takes long, how long it took.
    fn show(&mut self, begun: u64) {
        let us = ns(cortex_m::now().saturating_sub(begun)) / 1000;
        while let Some(report) = self.node.poll_report() {
            let console = &mut self.console;
            let _ = match report {
                Report::Welcomed { real_ns } => {
                    PLATFORM.set_time(real_ns);
                    writeln!(console, "node: {report}")
                }
                Report::Arrived { .. } | Report::Offered { .. } => {
                    writeln!(console, "node: {report}, made in {us} us")
                }
                _ => writeln!(console, "node: {report}"),
            };
        }
    }
}

impl Firmware for Work {
    fn step(&mut self, wake: Wake) -> Next {
        let now = instant(wake.now);
        self.port.receive(now);
        let quiet = self.node.is_quiet();
        self.port.line.handle_time(now, quiet);
        self.watch.alive(LINE);
        self.hear();
        let begun = cortex_m::now();
        self.node.handle_time(now);
        self.show(begun);
        self.watch.alive(NODE);
        self.say(now);
        self.port.send(now);
        match self.timers.poll(wake.now) {
            Some(Due::Battery) => return Next::Stop,
            Some(Due::Sign) => {
                if let Some(watchdog) = &mut self.watchdog {
                    self.watch.feed(|| board::feed(watchdog));
                }
            }
            None => {}
        }
        let begun = cortex_m::now();
        let ran = self.node.turn(slices::arm);
        slices::disarm();
        if ran {
            self.show(begun);
            return Next::Again;
        }
        let next = [
            self.timers.next_at(),
            self.port.line.next_at(quiet).map(ticks),
            self.node.next_at(now).map(ticks),
        ];
        Next::Rest {
            until: next.into_iter().flatten().min(),
            needs: WakeSources::SERIAL,
        }
    }
}
