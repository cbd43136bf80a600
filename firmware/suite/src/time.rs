//! The clock.

use core::fmt::Write;

use board::Board;
use mielin_rt::{Machine, PowerMode, Timers};

use crate::Run;

pub(crate) fn tests(run: &mut Run<'_>) {
    run.test("the clock never goes back", |board| {
        let mut last = board.machine.now();
        for _ in 0..10_000 {
            let now = board.machine.now();
            assert!(now >= last, "{now} after {last}");
            last = now;
        }
    });
    run.test("a rest ends when it should", |board| {
        for ms in [1, 2, 5, 10, 50] {
            let until = board.machine.now() + board.machine.ticks_of_ms(ms);
            rest(board, PowerMode::Sleep, until);
        }
    });
    run.test("a rest can be longer than the counter", |board| {
        // SysTick has 24 bits: it comes four times meanwhile.
        let until = board.machine.now() + (4 << 24);
        rest(board, PowerMode::Sleep, until);
    });
    run.test("timers come in order, and keep their rhythm", |board| {
        let mut timers = Timers::<char, 3>::new();
        let begin = board.machine.now();
        let ms = board.machine.ticks_of_ms(1);
        timers
            .every(begin + 2 * ms, 2 * ms, 'p')
            .expect("there is room");
        timers.once(begin + 5 * ms, 'o').expect("there is room");
        let mut once = 0;
        while once == 0 || board.machine.now() < begin + 10 * ms {
            let next = timers.next_at().expect("one is always set");
            let now = rest(board, PowerMode::Sleep, next);
            while let Some(key) = timers.poll(now) {
                once += u32::from(key == 'o');
            }
        }
        assert_eq!(once, 1);
        let next = timers.next_at().expect("one is always set");
        assert_eq!((next - begin) % (2 * ms), 0);
    });
    clocks::tests(run);
}

/// Rests until a time, in whatever pieces; returns when that was. How late it is depends on the host of an emulator, and is not looked at.
pub(crate) fn rest(board: &mut Board, mode: PowerMode, until: u64) -> u64 {
    loop {
        let now = board.machine.now();
        if now >= until {
            return now;
        }
        critical_section::with(|_| board.machine.rest(mode, Some(until)));
    }
}

mod clocks {
    //! The clock beside another one of the board, which nothing stops.

    use mielin_hal::SleepClock;

    use super::*;

    pub(super) fn tests(run: &mut Run<'_>) {
        run.test("alarms do not make the clock lose time", |board| {
            let Some(mut witness) = board::witness() else {
                let _ = write!(board.serial, "(no second clock) ");
                return;
            };
            let ms = board.machine.ticks_of_ms(1);
            witness.begin(u32::MAX);
            let begin = board.machine.now();
            for _ in 0..1000 {
                let until = board.machine.now() + ms / 10;
                rest(board, PowerMode::Sleep, until);
            }
            // Two ticks for each.
            compare(
                board,
                &mut witness,
                begin,
                2 * 1000 * 1_000_000_000 / u64::from(board::CLOCK_HZ),
            );
        });
        run.test("deep sleep does not make the clock lose time", |board| {
            let (Some(mut witness), Some(_)) = (board::witness(), board::MODES.deep_sleep) else {
                let _ = write!(board.serial, "(no deep sleep, or no second clock) ");
                return;
            };
            witness.begin(u32::MAX);
            let begin = board.machine.now();
            for _ in 0..100 {
                let until = board.machine.now() + board.machine.ticks_of_ms(2);
                rest(board, PowerMode::DeepSleep, until);
            }
            // Each sleep may lose a tick of the clock that counts it, and the instructions by which one clock hands over to the other, twice.
            compare(
                board,
                &mut witness,
                begin,
                100 * (board::SLEEP_TICK_NS + 500),
            );
        });
    }

    /// Both clocks have seen the same time pass, but for so many nanoseconds.
    fn compare(board: &mut Board, witness: &mut impl SleepClock, begin: u64, apart_ns_max: u64) {
        let passed = board.machine.now() - begin;
        let seen = u64::from(witness.end());
        let ns = |ticks: u64, hz: u32| ticks * 1_000_000 / (u64::from(hz) / 1000);
        let (passed, seen) = (
            ns(passed, board.machine.clock_hz()),
            ns(seen, witness.frequency_hz()),
        );
        let apart = passed.abs_diff(seen);
        assert!(
            apart <= apart_ns_max,
            "{passed} ns by SysTick, {seen} ns by the other clock"
        );
        let _ = write!(board.serial, "({apart} ns in {seen}) ");
    }
}
