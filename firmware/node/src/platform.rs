//! The clock and the random bytes of agents.

use core::cell::{Cell, RefCell};
use core::fmt;

use critical_section::Mutex;
use mielin_driver::ns;
use mielin_leaf::Entropy;
use mielin_rt::cortex_m;
use mielin_wasm::{NoRandomBytes, Platform};

/// The board, as agents see it.
pub(crate) static PLATFORM: Board = Board {
    entropy: Mutex::new(RefCell::new(None)),
    real_ns: Mutex::new(Cell::new(None)),
};

pub(crate) struct Board {
    entropy: Mutex<RefCell<Option<Entropy>>>,
    /// What time it was when the board started, once somebody has said so.
    real_ns: Mutex<Cell<Option<u64>>>,
}

impl Board {
    /// From here on there are random bytes.
    pub(crate) fn begin(&self, entropy: Entropy) {
        critical_section::with(|section| {
            self.entropy.borrow_ref_mut(section).replace(entropy);
        });
    }

    /// A number that nobody can foresee; zero before [`Board::begin`].
    pub(crate) fn number(&self) -> u64 {
        let mut bytes = [0; 8];
        let filled = self.fill_random(&mut bytes);
        filled.map_or(0, |()| u64::from_le_bytes(bytes))
    }

    /// It is so many nanoseconds after 1970. What was said before counts no more, but the time does not go back because of it by more than a line is slow.
    pub(crate) fn set_time(&self, real_ns: u64) {
        let at_start = real_ns.saturating_sub(self.monotonic_ns());
        critical_section::with(|section| self.real_ns.borrow(section).set(Some(at_start)));
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Board")
    }
}

impl Platform for Board {
    fn monotonic_ns(&self) -> u64 {
        ns(cortex_m::now())
    }

    fn realtime_ns(&self) -> u64 {
        let at_start = critical_section::with(|section| self.real_ns.borrow(section).get());
        at_start.map_or(0, |at_start| at_start.saturating_add(self.monotonic_ns()))
    }

    fn fill_random(&self, out: &mut [u8]) -> Result<(), NoRandomBytes> {
        critical_section::with(
            |section| match self.entropy.borrow_ref_mut(section).as_mut() {
                Some(entropy) => {
                    entropy.fill(out);
                    Ok(())
                }
                None => Err(NoRandomBytes {
                    reason: "the board has not begun".into(),
                }),
            },
        )
    }
}
