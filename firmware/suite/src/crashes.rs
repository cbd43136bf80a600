//! A panic, a fault and a watchdog: each resets the board, and is reported after that.

use core::arch::asm;
use core::fmt::Write;

use mielin_hal::Outcome;
use mielin_rt::{CrashCause, CrashReport};

use crate::Run;

/// Goes on after a reset: looks at how the last stage has ended, and goes to the next.
pub(crate) fn stage(run: &mut Run<'_>, stage: u8, crash: Option<CrashReport>) {
    let expected = match stage {
        0 => None,
        1 => Some(CrashCause::Panic),
        2 => Some(CrashCause::Fault),
        3 => Some(CrashCause::Watchdog),
        _ => return failed(run, stage, crash),
    };
    if crash.as_ref().map(|crash| crash.cause) != expected {
        return failed(run, stage, crash);
    }
    if let Some(crash) = crash {
        let _ = writeln!(run.board.serial, "ok ({crash})");
    }
    match stage {
        0 => run.crash(1, "a panic is reported after the reset", |_| {
            panic!("on purpose")
        }),
        1 => run.crash(2, "a fault is reported after the reset", |_| {
            // SAFETY: an instruction that is undefined for good (Armv6-M and Armv7-M ARM, UDF): the processor faults.
            unsafe { asm!("udf #1") }
        }),
        2 => {
            let Some(_watchdog) = board::start_watchdog(50) else {
                let _ = writeln!(run.board.serial, "test a watchdog ... none here");
                return;
            };
            run.crash(3, "a watchdog that is not fed resets", |board| {
                let until =
                    board.machine.ticks_of_ms(500) + mielin_rt::Machine::now(&mut board.machine);
                crate::time::rest(board, mielin_rt::PowerMode::Sleep, until);
            })
        }
        _ => {}
    }
}

fn failed(run: &mut Run<'_>, stage: u8, crash: Option<CrashReport>) {
    let _ = writeln!(
        run.board.serial,
        "\nsuite: failed after stage {stage}: {crash:?}"
    );
    board::end(Outcome::Failure)
}
