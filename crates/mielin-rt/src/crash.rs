//! What went wrong before a reset.

use core::fmt::{self, Write};
use core::panic::PanicInfo;

/// The longest text of a report, which is cut off there.
const TEXT_MAX: usize = 120;

/// Why a firmware ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashCause {
    /// Its code panicked.
    Panic,
    /// The processor refused an instruction or an access.
    Fault,
    /// Something did not give a sign of life.
    Watchdog,
}

/// What the processor held when it faulted.
///
/// Sources: Armv7-M Architecture Reference Manual, B1.5.6 (the frame on the stack) and B3.2.15 to B3.2.18 (the fault status registers,
/// which Armv6-M does not have: zero).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// The instruction.
    pub pc: u32,
    /// Where its function returns to.
    pub lr: u32,
    /// The stack, after the processor has pushed the frame.
    pub sp: u32,
    /// Program status.
    pub xpsr: u32,
    /// What was refused: CFSR.
    pub cfsr: u32,
    /// Why that became a hard fault: HFSR.
    pub hfsr: u32,
    /// The address that was refused, if CFSR says that it is valid: BFAR, or MMFAR.
    pub address: u32,
}

/// What is said of a crash: fits [`CrashReport::BYTES`] bytes, in [`Kept`](crate::Kept) memory or on a wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrashReport {
    /// Why.
    pub cause: CrashCause,
    /// What the processor held; zero where it was asked for nothing.
    pub registers: Registers,
    text: heapless::String<TEXT_MAX>,
}

impl CrashReport {
    /// The bytes that a report has at most.
    pub const BYTES: usize = 1 + REGISTERS * 4 + TEXT_MAX;

    /// Of a panic: its place and message.
    #[must_use]
    pub fn of_panic(info: &PanicInfo<'_>) -> Self {
        let text = match info.location() {
            Some(place) => said(format_args!(
                "{}:{}: {}",
                place.file(),
                place.line(),
                info.message()
            )),
            None => said(format_args!("{}", info.message())),
        };
        Self {
            cause: CrashCause::Panic,
            registers: Registers::default(),
            text,
        }
    }

    /// Of a panic of which nothing is known but where its calls would have returned to, the last first, as the stack has it. A firmware that looks at no panic's message
    /// and place has none of what makes messages, which in one with an engine for agents is more than a quarter of its flash.
    #[must_use]
    pub fn of_returns(returns: impl IntoIterator<Item = u32>) -> Self {
        let mut text = heapless::String::new();
        for address in returns {
            // What has no room is left out, whole.
            let one = said(format_args!("{address:#010x} "));
            let _ = text.push_str(&one);
        }
        Self {
            cause: CrashCause::Panic,
            registers: Registers::default(),
            text,
        }
    }

    /// Of a fault.
    #[must_use]
    pub fn of_fault(registers: Registers) -> Self {
        Self {
            cause: CrashCause::Fault,
            registers,
            text: heapless::String::new(),
        }
    }

    /// Of a part that gave no sign of life.
    #[must_use]
    pub fn of_watchdog(part: fmt::Arguments<'_>) -> Self {
        Self {
            cause: CrashCause::Watchdog,
            registers: Registers::default(),
            text: said(part),
        }
    }

    /// Its bytes; the result is their number.
    #[must_use]
    pub fn encode(&self, bytes: &mut [u8; Self::BYTES]) -> usize {
        bytes[0] = match self.cause {
            CrashCause::Panic => 1,
            CrashCause::Fault => 2,
            CrashCause::Watchdog => 3,
        };
        let (registers, text) = bytes[1..].split_at_mut(REGISTERS * 4);
        let words = self.registers.words();
        for (place, word) in registers.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        text[..self.text.len()].copy_from_slice(self.text.as_bytes());
        1 + REGISTERS * 4 + self.text.len()
    }

    /// What [`CrashReport::encode`] wrote; `None` for anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (cause, rest) = bytes.split_first()?;
        let cause = match cause {
            1 => CrashCause::Panic,
            2 => CrashCause::Fault,
            3 => CrashCause::Watchdog,
            _ => return None,
        };
        let (registers, text) = rest.split_at_checked(REGISTERS * 4)?;
        let mut words = [0; REGISTERS];
        for (word, place) in words.iter_mut().zip(registers.chunks_exact(4)) {
            *word = u32::from_le_bytes(place.try_into().ok()?);
        }
        let text = core::str::from_utf8(text).ok()?;
        Some(Self {
            cause,
            registers: Registers::of_words(words),
            text: heapless::String::try_from(text).ok()?,
        })
    }
}

const REGISTERS: usize = 7;

impl Registers {
    fn words(&self) -> [u32; REGISTERS] {
        let Self {
            pc,
            lr,
            sp,
            xpsr,
            cfsr,
            hfsr,
            address,
        } = *self;
        [pc, lr, sp, xpsr, cfsr, hfsr, address]
    }

    fn of_words([pc, lr, sp, xpsr, cfsr, hfsr, address]: [u32; REGISTERS]) -> Self {
        Self {
            pc,
            lr,
            sp,
            xpsr,
            cfsr,
            hfsr,
            address,
        }
    }
}

impl fmt::Display for CrashReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            CrashCause::Panic => write!(f, "panic at {}", self.text),
            CrashCause::Watchdog => write!(f, "the watchdog: {}", self.text),
            CrashCause::Fault => {
                let [pc, lr, sp, xpsr, cfsr, hfsr, address] = self.registers.words();
                write!(
                    f,
                    "fault at pc {pc:#010x} lr {lr:#010x} sp {sp:#010x} xpsr {xpsr:#010x} \
                     cfsr {cfsr:#010x} hfsr {hfsr:#010x} address {address:#010x}"
                )
            }
        }
    }
}

/// A text, as much of it as there is room for.
fn said(text: fmt::Arguments<'_>) -> heapless::String<TEXT_MAX> {
    /// Takes what fits, whole characters only, and never fails.
    struct Cut(heapless::String<TEXT_MAX>);

    impl Write for Cut {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for character in text.chars() {
                if self.0.push(character).is_err() {
                    return Err(fmt::Error);
                }
            }
            Ok(())
        }
    }

    let mut cut = Cut(heapless::String::new());
    // An error is the end of the room.
    let _ = cut.write_fmt(text);
    cut.0
}

#[cfg(test)]
mod tests {
    use std::format;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_names_place_and_state() {
        let fault = CrashReport::of_fault(Registers {
            pc: 0x0800_1234,
            cfsr: 0x8200,
            ..Registers::default()
        });
        let text = format!("{fault}");
        assert!(
            text.contains("pc 0x08001234") && text.contains("cfsr 0x00008200"),
            "{text}"
        );
        let silent = CrashReport::of_watchdog(format_args!("the {} was silent", "link"));
        assert_eq!(format!("{silent}"), "the watchdog: the link was silent");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let report = CrashReport::of_watchdog(format_args!("{}", "ä".repeat(100)));
        let mut bytes = [0; CrashReport::BYTES];
        let len = report.encode(&mut bytes);
        assert_eq!(CrashReport::decode(&bytes[..len]), Some(report.clone()));
        assert_eq!(report.text.chars().count(), TEXT_MAX / 2);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(words: [u32; REGISTERS], text in ".{0,40}") {
            let report = CrashReport {
                cause: CrashCause::Panic,
                registers: Registers::of_words(words),
                text: said(format_args!("{text}")),
            };
            let mut bytes = [0; CrashReport::BYTES];
            let len = report.encode(&mut bytes);
            prop_assert_eq!(CrashReport::decode(&bytes[..len]), Some(report));
        }

        #[test]
        fn any_bytes_are_a_report_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(report) = CrashReport::decode(&bytes) {
                let mut again = [0; CrashReport::BYTES];
                let len = report.encode(&mut again);
                prop_assert_eq!(&again[..len], &bytes[..]);
            }
        }
    }
}
