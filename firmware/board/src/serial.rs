//! The serial line.

use core::cell::{Cell, RefCell};
use core::fmt;

use critical_section::Mutex;
use mielin_hal::Console;
use mielin_rt::Queue;

use crate::{SIGNALS, devices, signals};

/// The UART, which its interrupt has to reach.
static UART: Mutex<RefCell<Option<devices::Uart>>> = Mutex::new(RefCell::new(None));

/// What has come, for as long as nobody has taken it.
static RECEIVED: Queue<u8, RECEIVED_MAX> = Queue::new();
const RECEIVED_MAX: usize = 1024;

/// There was no room for what came, so that the interrupt is off: otherwise it would come for ever.
static PAUSED: Mutex<Cell<bool>> = Mutex::new(Cell::new(false));

/// The next byte that has come on the serial line. What comes while [`RECEIVED_MAX`] bytes wait stays in the UART, which loses all but the
/// last, or, under QEMU, has its sender wait.
#[must_use]
pub fn received() -> Option<u8> {
    let byte = RECEIVED.pop();
    if byte.is_none() && critical_section::with(|section| PAUSED.borrow(section).replace(false)) {
        resume();
        return RECEIVED.pop();
    }
    byte
}

/// The serial line: writes wait for room in the UART, what comes is [`received`].
#[derive(Debug)]
pub struct Serial(());

impl Serial {
    pub(crate) fn open() -> Self {
        critical_section::with(|section| {
            let mut uart = devices::uart();
            uart.interrupt_when_readable(true);
            UART.borrow_ref_mut(section).replace(uart);
        });
        Self(())
    }

    /// Writes bytes as they are. Interrupts come between them.
    pub fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            critical_section::with(|section| {
                if let Some(uart) = UART.borrow_ref_mut(section).as_mut() {
                    uart.write_byte(*byte);
                }
            });
        }
    }
}

/// A line of text ends as terminals want it.
impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for line in text.split_inclusive('\n') {
            match line.strip_suffix('\n') {
                Some(line) => {
                    self.write(line.as_bytes());
                    self.write(b"\r\n");
                }
                None => self.write(line.as_bytes()),
            }
        }
        Ok(())
    }
}

/// The interrupt: takes what has come.
pub(crate) fn receive() {
    critical_section::with(|section| {
        if let Some(uart) = UART.borrow_ref_mut(section).as_mut() {
            let paused = !take(uart);
            if paused {
                uart.interrupt_when_readable(false);
            }
            PAUSED.borrow(section).set(paused);
        }
    });
    SIGNALS.raise(signals::SERIAL);
}

/// Goes on after there was no room.
fn resume() {
    critical_section::with(|section| {
        if let Some(uart) = UART.borrow_ref_mut(section).as_mut() {
            uart.interrupt_when_readable(true);
        }
    });
    // What came meanwhile is no interrupt any more.
    receive();
}

/// Takes bytes out of the UART; false if there was no room for all that may be there.
fn take(uart: &mut devices::Uart) -> bool {
    while RECEIVED.len() < RECEIVED_MAX {
        let Some(byte) = uart.read_byte() else {
            return true;
        };
        // There was room, and interrupts are masked.
        let _ = RECEIVED.push(byte);
    }
    false
}
