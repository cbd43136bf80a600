//! Rest.

use core::fmt::Write;

use mielin_rt::{EmbeddedRuntime, Firmware, Machine, Next, Wake, WakeSources};

use crate::Run;

pub(crate) fn tests(run: &mut Run<'_>) {
    run.test("the runtime sleeps, and is there for each beat", |board| {
        let ms = board.machine.ticks_of_ms(1);
        let mut beat = Beat {
            period: 10 * ms,
            due: board.machine.now() + 10 * ms,
            left: 100,
        };
        let mut runtime = EmbeddedRuntime::new(&mut board.machine, &board::SIGNALS);
        runtime.run(&mut beat);
        let usage = runtime.usage();
        let asleep = usage.asleep_permille();
        assert!(asleep > 900, "{asleep} permille asleep: {usage:?}");
        assert!(usage.rests > 0);
        let deep = board::MODES.deep_sleep.is_some();
        assert_eq!(usage.deep_sleep_ticks > 0, deep);
        let _ = write!(board.serial, "({asleep} permille asleep) ");
    });
    run.test("a byte on the line wakes the firmware", |board| {
        let _ = write!(board.serial, "\nsuite: send mielin\n");
        let mut reading = Reading {
            bytes: [0; 6],
            len: 0,
            steps: 0,
        };
        let mut runtime = EmbeddedRuntime::new(&mut board.machine, &board::SIGNALS);
        runtime.run(&mut reading);
        assert_eq!(&reading.bytes, b"mielin");
        // Whoever is not woken waits for ever, and whoever does not sleep is called more often than there are bytes.
        assert!(reading.steps <= 1 + 2 * 6, "{} steps", reading.steps);
    });
}

/// Something to do in every period.
struct Beat {
    period: u64,
    due: u64,
    left: u32,
}

impl Firmware for Beat {
    fn step(&mut self, wake: Wake) -> Next {
        if wake.now >= self.due {
            self.due += self.period;
            self.left -= 1;
        }
        if self.left == 0 {
            return Next::Stop;
        }
        Next::Rest {
            until: Some(self.due),
            needs: WakeSources::NONE,
        }
    }
}

/// Waits for a word on the line.
struct Reading {
    bytes: [u8; 6],
    len: usize,
    steps: u32,
}

impl Firmware for Reading {
    fn step(&mut self, _: Wake) -> Next {
        self.steps += 1;
        while let Some(byte) = board::received() {
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = byte;
            }
            self.len += 1;
        }
        if self.len >= self.bytes.len() {
            return Next::Stop;
        }
        Next::Rest {
            until: None,
            needs: WakeSources::SERIAL,
        }
    }
}
