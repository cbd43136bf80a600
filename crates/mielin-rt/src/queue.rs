//! What interrupts and the loop share.

use core::cell::{Cell, RefCell};
use core::fmt;

use critical_section::Mutex;
use heapless::Deque;

/// At most `CAPACITY` values, first in, first out, from and to everywhere: interrupts put bytes in, the loop takes them out, or the other way round.
///
/// Each operation is some instructions in a critical section. What finds it full is given back, and counted, because an interrupt can
/// only drop it.
///
/// ```
/// use mielin_rt::Queue;
///
/// static RECEIVED: Queue<u8, 2> = Queue::new();
/// assert_eq!(RECEIVED.push(b'a'), Ok(()));
/// assert_eq!(RECEIVED.push(b'b'), Ok(()));
/// assert_eq!(RECEIVED.push(b'c'), Err(b'c'));
/// assert_eq!((RECEIVED.pop(), RECEIVED.refused()), (Some(b'a'), 1));
/// ```
pub struct Queue<T, const CAPACITY: usize> {
    values: Mutex<RefCell<Deque<T, CAPACITY>>>,
    refused: Mutex<Cell<u32>>,
}

impl<T, const CAPACITY: usize> Queue<T, CAPACITY> {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            values: Mutex::new(RefCell::new(Deque::new())),
            refused: Mutex::new(Cell::new(0)),
        }
    }

    /// Puts a value behind the others.
    ///
    /// # Errors
    /// The value, when there is no room for it.
    pub fn push(&self, value: T) -> Result<(), T> {
        critical_section::with(|section| {
            let pushed = self.values.borrow_ref_mut(section).push_back(value);
            if pushed.is_err() {
                let refused = self.refused.borrow(section);
                refused.set(refused.get().saturating_add(1));
            }
            pushed
        })
    }

    /// Takes the oldest value out.
    #[must_use]
    pub fn pop(&self) -> Option<T> {
        critical_section::with(|section| self.values.borrow_ref_mut(section).pop_front())
    }

    /// How many values wait.
    #[must_use]
    pub fn len(&self) -> usize {
        critical_section::with(|section| self.values.borrow_ref(section).len())
    }

    /// Whether no value waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many values have found it full, up to 2³² − 1.
    #[must_use]
    pub fn refused(&self) -> u32 {
        critical_section::with(|section| self.refused.borrow(section).get())
    }
}

impl<T, const CAPACITY: usize> Default for Queue<T, CAPACITY> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, const CAPACITY: usize> fmt::Debug for Queue<T, CAPACITY> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("len", &self.len())
            .field("refused", &self.refused())
            .finish()
    }
}

/// What has happened, as bits whose meaning is the firmware's: interrupts raise them, the loop takes all at once.
#[derive(Debug)]
pub struct Signals(Mutex<Cell<u32>>);

impl Signals {
    /// None raised.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(Cell::new(0)))
    }

    /// Raises these bits. What has been raised and not taken stays so.
    pub fn raise(&self, bits: u32) {
        critical_section::with(|section| {
            let raised = self.0.borrow(section);
            raised.set(raised.get() | bits);
        });
    }

    /// All that have been raised, which lowers them.
    #[must_use]
    pub fn take(&self) -> u32 {
        critical_section::with(|section| self.0.borrow(section).take())
    }

    /// Whether something is raised.
    #[must_use]
    pub fn any(&self) -> bool {
        critical_section::with(|section| self.0.borrow(section).get() != 0)
    }
}

impl Default for Signals {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn as_a_deque_with_a_bound(steps in prop::collection::vec(any::<Option<u16>>(), 0..100)) {
            let queue = Queue::<u16, 7>::new();
            let (mut model, mut refused) = (VecDeque::new(), 0);
            for step in steps {
                match step {
                    Some(value) if model.len() == 7 => {
                        prop_assert_eq!(queue.push(value), Err(value));
                        refused += 1;
                    }
                    Some(value) => {
                        prop_assert_eq!(queue.push(value), Ok(()));
                        model.push_back(value);
                    }
                    None => prop_assert_eq!(queue.pop(), model.pop_front()),
                }
                prop_assert_eq!((queue.len(), queue.is_empty()), (model.len(), model.is_empty()));
            }
            prop_assert_eq!(queue.refused(), refused);
        }
    }

    #[test]
    fn nothing_is_lost_or_doubled_between_threads() {
        static QUEUE: Queue<u32, 8> = Queue::new();
        const EACH: u32 = 2_000;
        let taken = std::thread::scope(|scope| {
            for writer in 0..2 {
                scope.spawn(move || {
                    for number in 0..EACH {
                        while QUEUE.push(writer * EACH + number).is_err() {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            let mut taken = Vec::new();
            while taken.len() < 2 * EACH as usize {
                match QUEUE.pop() {
                    Some(value) => taken.push(value),
                    None => std::thread::yield_now(),
                }
            }
            taken
        });
        for writer in 0..2 {
            let from = taken.iter().filter(|value| **value / EACH == writer);
            assert!(from.copied().eq(writer * EACH..(writer + 1) * EACH));
        }
    }

    #[test]
    fn signals_are_taken_once() {
        let signals = Signals::new();
        assert!(!signals.any());
        signals.raise(0b01);
        signals.raise(0b11);
        assert!(signals.any());
        assert_eq!((signals.take(), signals.take()), (0b11, 0));
    }
}
