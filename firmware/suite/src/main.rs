//! What `mielin-rt` promises, tried on the boards themselves: `cargo xtask firmware test`.
//!
//! It runs in stages, between which it crashes on purpose, each time in another way, and finds out after the reset whether the crash was
//! reported as it was. Which stage is next is kept in memory that resets leave alone.

#![no_std]
#![no_main]

mod crashes;
mod memory;
mod power;
mod time;

use core::fmt::Write;

use board::Board;
use cortex_m_rt::entry;
use mielin_hal::Outcome;
use mielin_rt::Kept;

#[unsafe(link_section = ".uninit.stage")]
static STAGE: Kept<1> = Kept::new();

#[entry]
fn main() -> ! {
    let mut stage = [0];
    let stage = STAGE.take(&mut stage).map_or(0, |kept| kept[0]);
    let crash = board::last_crash();
    let mut board = Board::take().expect("it is taken once");
    let mut run = Run { board: &mut board };
    if stage == 0 && crash.is_none() {
        let _ = writeln!(run.board.serial, "suite: on {}", board::NAME);
        memory::tests(&mut run);
        time::tests(&mut run);
        power::tests(&mut run);
    }
    crashes::stage(&mut run, stage, crash);
    let _ = writeln!(run.board.serial, "suite: passed");
    board::end(Outcome::Success)
}

/// A run of the suite. A test that does not hold panics, which resets the board, whose next run ends with a failing status.
struct Run<'board> {
    board: &'board mut Board,
}

impl Run<'_> {
    /// Runs a test and says so.
    fn test(&mut self, name: &str, test: impl FnOnce(&mut Board)) {
        let _ = write!(self.board.serial, "test {name} ... ");
        test(self.board);
        let _ = writeln!(self.board.serial, "ok");
    }

    /// Resets on purpose, and goes on with this stage.
    fn crash(&mut self, stage: u8, name: &str, crash: impl FnOnce(&mut Board)) -> ! {
        STAGE.keep(&[stage]);
        let _ = write!(self.board.serial, "test {name} ... ");
        crash(self.board);
        // What should have crashed has not: no stage is kept, so that the reset which follows is a failure.
        STAGE.keep(&[u8::MAX]);
        panic!("{name} has not reset the board");
    }
}
