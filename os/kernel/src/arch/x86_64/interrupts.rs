//! Interrupt lines: the I/O APICs, which send, and the local APIC, which takes. A line's number is that of the whole machine ("global
//! system interrupt"), and its vector is so many behind [`FIRST_VECTOR`].

use core::cell::{Cell, RefCell};

use mielin_hal::drivers::{IoApic, LocalApic};
use mielin_hal::{InterruptController, Polarity, Timer, Trigger};

/// Vectors below are exceptions.
pub(super) const FIRST_VECTOR: u8 = 0x20;
pub(super) const TIMER_VECTOR: u8 = 0xf0;
/// Interrupts that went away before they were served.
pub(super) const SPURIOUS_VECTOR: u8 = 0xff;
/// Lines from here on have no vector.
const LINES: u32 = TIMER_VECTOR as u32 - FIRST_VECTOR as u32;
/// PCs have one, servers a few.
pub(super) const CONTROLLERS_MAX: usize = 8;

/// A bit for each line.
struct Bits([Cell<u64>; LINES.div_ceil(64) as usize]);

impl Bits {
    const fn none() -> Self {
        Self([const { Cell::new(0) }; LINES.div_ceil(64) as usize])
    }

    fn has(&self, line: u32) -> bool {
        let word = self.0.get(line as usize / 64);
        word.is_some_and(|word| word.get() >> (line % 64) & 1 != 0)
    }

    fn set(&self, line: u32, on: bool) {
        if let Some(word) = self.0.get(line as usize / 64) {
            let others = word.get() & !(1 << (line % 64));
            word.set(others | u64::from(on) << (line % 64));
        }
    }
}

/// The controllers of this machine.
pub(super) struct Interrupts {
    local: RefCell<Option<LocalApic>>,
    /// With the number of the first line of each.
    controllers: RefCell<[Option<(u32, IoApic)>; CONTROLLERS_MAX]>,
    /// Lines that interrupt as long as they are active.
    levels: Bits,
    /// Lines that somebody wants to come.
    wanted: Bits,
    /// Lines that came as an edge when nobody wanted them to. They come when somebody does.
    missed: Bits,
}

impl Interrupts {
    pub(super) const fn new() -> Self {
        Self {
            local: RefCell::new(None),
            controllers: RefCell::new([const { None }; CONTROLLERS_MAX]),
            levels: Bits::none(),
            wanted: Bits::none(),
            missed: Bits::none(),
        }
    }

    /// Takes the local APIC.
    pub(super) fn take_local(&self, mut local: LocalApic) {
        local.enable(LocalApic::TIMER);
        self.local.replace(Some(local));
    }

    /// Takes an I/O APIC, of whose lines `form` says how they interrupt. All are masked.
    pub(super) fn take(
        &self,
        mut controller: IoApic,
        first_line: u32,
        form: impl Fn(u32) -> (Trigger, Polarity),
    ) {
        for index in 0..controller.lines() {
            let line = first_line + index;
            let (trigger, polarity) = form(line);
            controller.configure(index, trigger, polarity);
            self.levels.set(line, trigger == Trigger::Level);
        }
        let mut controllers = self.controllers.borrow_mut();
        if let Some(place) = controllers.iter_mut().find(|place| place.is_none()) {
            *place = Some((first_line, controller));
        }
    }

    fn with_local<R>(&self, work: impl FnOnce(&mut LocalApic) -> R) -> Option<R> {
        self.local.borrow_mut().as_mut().map(work)
    }

    /// Whether there is such a line.
    pub(super) fn has(&self, line: u32) -> bool {
        line < LINES
            && self
                .controllers
                .borrow()
                .iter()
                .flatten()
                .any(|(first, controller)| {
                    line.checked_sub(*first)
                        .is_some_and(|index| index < controller.lines())
                })
    }

    fn set_masked(&self, line: u32, masked: bool) {
        let mut controllers = self.controllers.borrow_mut();
        for (first, controller) in controllers.iter_mut().flatten() {
            let Some(index) = line.checked_sub(*first) else {
                continue;
            };
            match masked {
                true => controller.disable(index),
                false => controller.enable(index),
            }
        }
    }

    /// Lets a line come, or not.
    ///
    /// A controller that is told to mask a line forgets an edge that comes meanwhile, so that those stay on: what comes is remembered.
    pub(super) fn enable(&self, line: u32, on: bool) {
        if !self.has(line) {
            return;
        }
        self.wanted.set(line, on);
        if on {
            self.set_masked(line, false);
            if self.missed.has(line) {
                self.missed.set(line, false);
                let vector = FIRST_VECTOR + line as u8;
                self.with_local(|local| local.send_to_itself(vector));
            }
        } else if self.levels.has(line) {
            self.set_masked(line, true);
        }
    }

    /// The line of a vector that has come, if it is to be served now.
    pub(super) fn line(&self, vector: u8) -> Option<u32> {
        let line = u32::from(vector.checked_sub(FIRST_VECTOR)?);
        if self.wanted.has(line) {
            return Some(line);
        }
        // Once is enough: more edges say nothing more.
        self.missed.set(line, !self.levels.has(line));
        self.set_masked(line, true);
        None
    }

    /// What came was served. For levels this comes after the line is masked, or it would come again at once.
    pub(super) fn complete(&self) {
        self.with_local(|local| local.complete(LocalApic::TIMER));
    }

    pub(super) fn has_request(&self) -> bool {
        self.with_local(|local| local.has_request())
            .unwrap_or(false)
    }

    pub(super) fn set_alarm(&self, at: u64) {
        self.with_local(|local| local.set_alarm(at));
    }
}
