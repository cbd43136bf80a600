//! The serial line.

use core::cell::RefCell;
use core::fmt;

use critical_section::Mutex;
use mielin_hal::Console;

use crate::{RECEIVED, SIGNALS, devices, signals};

/// The UART, which its interrupt has to reach.
static UART: Mutex<RefCell<Option<devices::Uart>>> = Mutex::new(RefCell::new(None));

/// The serial line: writes wait for room in the UART, what comes is in [`RECEIVED`].
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
        let mut uart = UART.borrow_ref_mut(section);
        while let Some(byte) = uart.as_mut().and_then(Console::read_byte) {
            // What finds no room is counted there, and missed by whoever reads the line.
            let _ = RECEIVED.push(byte);
        }
    });
    SIGNALS.raise(signals::SERIAL);
}
