//! The start of an image.
#![allow(unsafe_code)]

use core::fmt::Write;

use board::{Board, Console, SleepClock};
use mielin_leaf::{Entropy, Line};
use mielin_mesh_core::leaf::Leaf;
use mielin_page::{Page, PageError};
use mielin_rt::cortex_m::CortexM;
use mielin_rt::{CrashReport, EmbeddedRuntime, Firmware, Kept, Next, Wake, WakeSources};

/// How often the board was started since its memory has had power.
#[unsafe(link_section = ".uninit.starts")]
static STARTS: Kept<8> = Kept::new();

/// A board that has begun, and what it is.
#[derive(Debug)]
pub struct Start {
    /// The board, without what is beside it here.
    pub board: Board,
    /// What people read.
    pub console: Console,
    /// Who it is.
    pub page: Page,
    /// Random bytes, others at each start with the same page, for as long as the memory has power.
    pub entropy: Entropy,
    /// Which start this is, from 1.
    pub number: u64,
    /// What ended the firmware before the last reset.
    pub crash: Option<CrashReport>,
}

impl Start {
    /// Begins: takes the board, opens the console and says on it which image this is, makes the heap, and reads the page. Without a page that is one there is
    /// nothing that a node could do: it says so and sleeps until a reset.
    #[must_use]
    pub fn begin(image: &str) -> Self {
        heap_begin();
        let crash = board::last_crash();
        let (Ok(board), Some(mut console)) = (Board::take(), board::open_console()) else {
            unreachable!("they are taken once");
        };
        let number = count();
        let _ = writeln!(console, "{image}: on {}, start {number}", board::NAME);
        if let Some(crash) = &crash {
            let _ = writeln!(console, "{image}: before the reset: {crash}");
        }
        let page = match Page::decode(board::page()) {
            Ok(page) => page,
            Err(error) => no_page(board, console, image, error),
        };
        let entropy = Entropy::new(page.seed(), number);
        Self {
            board,
            console,
            page,
            entropy,
            number,
            crash,
        }
    }

    /// The line to the host that the page names.
    #[must_use]
    pub fn line(&mut self) -> Line {
        let leaf = Leaf::new(
            self.page.key().clone(),
            self.page.admission().clone(),
            self.entropy.draw(),
        );
        Line::new(leaf)
    }
}

fn heap_begin() {
    crate::heap::begin();
}

/// Counts this start.
fn count() -> u64 {
    let mut bytes = [0; 8];
    let before = STARTS
        .take(&mut bytes)
        .and_then(|kept| kept.try_into().ok());
    let number = before.map_or(0, u64::from_le_bytes).wrapping_add(1);
    STARTS.keep(&number.to_le_bytes());
    number
}

fn no_page(board: Board, mut console: Console, image: &str, error: PageError) -> ! {
    let _ = writeln!(
        console,
        "{image}: the page that says who this is cannot be used: {error}; asleep until a reset"
    );
    halt(board.machine)
}

/// Sleeps until a reset.
pub fn halt(machine: CortexM<SleepClock>) -> ! {
    struct Halted;
    impl Firmware for Halted {
        fn step(&mut self, _: Wake) -> Next {
            while board::received().is_some() {}
            Next::Rest {
                until: None,
                needs: WakeSources::NONE,
            }
        }
    }
    let mut runtime = EmbeddedRuntime::new(machine, &board::SIGNALS);
    loop {
        runtime.run(&mut Halted);
    }
}
