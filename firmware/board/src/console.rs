//! The second UART, for what people read while the first one is a link.

use core::cell::Cell;
use core::fmt;

use critical_section::Mutex;
use mielin_hal::{Console as _, Text};

use crate::devices;

static OPEN: Mutex<Cell<bool>> = Mutex::new(Cell::new(false));

/// The console: writes wait for room in the UART, and nothing is read.
#[derive(Debug)]
pub struct Console(devices::Uart);

/// Takes the second UART, to which from now on crashes are reported, too. `None` the second time.
#[must_use]
pub fn open_console() -> Option<Console> {
    let was_open = critical_section::with(|section| OPEN.borrow(section).replace(true));
    (!was_open).then(|| Console(devices::console()))
}

pub(crate) fn is_open() -> bool {
    critical_section::with(|section| OPEN.borrow(section).get())
}

impl Console {
    /// Writes bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0.write_byte(*byte));
    }
}

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        Text(&mut self.0).write_str(text)
    }
}
