//! Memory that is given out until all of it is taken back at once.
#![allow(unsafe_code)]

use core::alloc::Layout;
use core::cell::{Cell, UnsafeCell};
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use critical_section::Mutex;

/// `SIZE` bytes that are given out one piece after the other, and come back all together.
///
/// A piece costs what it has and the gap before it, an allocation some ten instructions in a critical section, so that interrupts may
/// allocate, too. Values that are placed in it are never dropped.
///
/// ```
/// use mielin_rt::MemoryPool;
///
/// let mut pool = MemoryPool::<64>::new();
/// let first = pool.place([1_u32; 4]).unwrap();
/// first[0] = 7;
/// assert!(pool.place([0_u8; 64]).is_err());
/// // What was given out is not used any more, as the compiler sees.
/// pool.reset();
/// assert!(pool.place([0_u8; 64]).is_ok());
/// ```
pub struct MemoryPool<const SIZE: usize> {
    /// How many bytes from the beginning are given out, with their gaps.
    taken: Mutex<Cell<usize>>,
    bytes: UnsafeCell<[MaybeUninit<u8>; SIZE]>,
}

// SAFETY: bytes are only reached through the pieces that are given out, which never overlap: `taken` grows in a critical section, and
// shrinks only where nobody has a piece (`reset` has the pool to itself).
unsafe impl<const SIZE: usize> Sync for MemoryPool<SIZE> {}

/// There is no room for what was asked for; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// Bytes that were asked for, without the gap before them.
    pub asked: usize,
    /// Bytes that are left, and may be too few or not aligned as was asked.
    pub left: usize,
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, left } = self;
        write!(f, "no room for {asked} bytes in the {left} that are left")
    }
}

impl core::error::Error for Exhausted {}

impl<const SIZE: usize> MemoryPool<SIZE> {
    /// All of it free.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            taken: Mutex::new(Cell::new(0)),
            bytes: UnsafeCell::new([MaybeUninit::uninit(); SIZE]),
        }
    }

    /// Puts a value into it. It is never dropped.
    ///
    /// # Errors
    /// [`Exhausted`], and the value is gone with it.
    #[expect(
        clippy::mut_from_ref,
        reason = "each call gives another piece of the pool"
    )]
    pub fn place<T>(&self, value: T) -> Result<&mut T, Exhausted> {
        let place = self.allocate(Layout::new::<T>())?.cast::<T>();
        // SAFETY: `allocate` gave room for a `T` that nobody else has, for as long as the pool is borrowed; it is initialised here.
        unsafe {
            place.write(value);
            Ok(&mut *place.as_ptr())
        }
    }

    /// `len` times the same value.
    ///
    /// # Errors
    /// [`Exhausted`].
    #[expect(
        clippy::mut_from_ref,
        reason = "each call gives another piece of the pool"
    )]
    pub fn slice<T: Copy>(&self, len: usize, value: T) -> Result<&mut [T], Exhausted> {
        let too_many = Exhausted {
            asked: usize::MAX,
            left: self.left(),
        };
        let layout = Layout::array::<T>(len).map_err(|_| too_many)?;
        let first = self.allocate(layout)?.cast::<T>();
        for index in 0..len {
            // SAFETY: the layout has room for `len` of them, so this is within it.
            unsafe { first.add(index).write(value) };
        }
        // SAFETY: `len` values have just been written to memory that nobody else has for as long as the pool is borrowed.
        Ok(unsafe { core::slice::from_raw_parts_mut(first.as_ptr(), len) })
    }

    /// Memory of this size and alignment, not initialised, that nobody else has until [`MemoryPool::reset`] or the end of the pool.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub fn allocate(&self, layout: Layout) -> Result<NonNull<u8>, Exhausted> {
        let begin = self.bytes.get().cast::<u8>();
        critical_section::with(|section| {
            let taken = self.taken.borrow(section);
            let exhausted = Exhausted {
                asked: layout.size(),
                left: SIZE - taken.get(),
            };
            // The address is aligned, not the offset: the pool itself may be anywhere.
            let free = begin.addr().wrapping_add(taken.get());
            let gap = free.wrapping_neg() & (layout.align() - 1);
            let offset = taken.get().checked_add(gap).ok_or(exhausted)?;
            let end = offset.checked_add(layout.size()).ok_or(exhausted)?;
            if end > SIZE {
                return Err(exhausted);
            }
            taken.set(end);
            // SAFETY: `offset` is at most `end`, which is within the array.
            let piece = unsafe { begin.add(offset) };
            NonNull::new(piece).ok_or(exhausted)
        })
    }

    /// Takes everything back. That nobody uses it any more is what `&mut` says.
    pub fn reset(&mut self) {
        critical_section::with(|section| self.taken.borrow(section).set(0));
    }

    /// Bytes that are given out, with the gaps before them.
    #[must_use]
    pub fn taken(&self) -> usize {
        critical_section::with(|section| self.taken.borrow(section).get())
    }

    /// Bytes that are not given out.
    #[must_use]
    pub fn left(&self) -> usize {
        SIZE - self.taken()
    }
}

impl<const SIZE: usize> Default for MemoryPool<SIZE> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const SIZE: usize> fmt::Debug for MemoryPool<SIZE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryPool")
            .field("size", &SIZE)
            .field("taken", &self.taken())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    static SHARED: MemoryPool<1024> = MemoryPool::new();

    #[test]
    fn one_that_is_static_serves_threads() {
        std::thread::scope(|scope| {
            for number in 0..8_u8 {
                scope.spawn(move || {
                    let mine = SHARED.slice(100, number).expect("8 × 100 bytes fit");
                    for byte in mine.iter_mut() {
                        *byte += 1;
                    }
                    assert!(mine.iter().all(|byte| *byte == number + 1));
                });
            }
        });
        assert_eq!(SHARED.left(), 224);
        assert_eq!(
            SHARED.slice(225, 0_u8),
            Err(Exhausted {
                asked: 225,
                left: 224
            })
        );
    }

    #[test]
    fn what_has_no_size_and_what_has_too_much() {
        let pool = MemoryPool::<0>::new();
        assert!(pool.place(()).is_ok());
        assert!(pool.slice(0, 0_u8).is_ok());
        assert!(pool.place(1_u8).is_err());
        assert_eq!(
            pool.slice(usize::MAX, 0_u64),
            Err(Exhausted {
                asked: usize::MAX,
                left: 0
            })
        );
    }

    proptest! {
        #[test]
        fn pieces_are_aligned_and_apart(sizes in prop::collection::vec((0_usize..40, 0_u32..6), 1..40)) {
            let mut pool = MemoryPool::<400>::new();
            for _ in 0..2 {
                let mut pieces: Vec<(usize, usize)> = Vec::new();
                for (size, align) in &sizes {
                    let layout = Layout::from_size_align(*size, 1 << align).expect("a power of two");
                    let left = pool.left();
                    match pool.allocate(layout) {
                        Ok(piece) => {
                            let at = piece.as_ptr().addr();
                            prop_assert_eq!(at % layout.align(), 0);
                            for (begin, len) in &pieces {
                                prop_assert!(at >= begin + len || at + size <= *begin);
                            }
                            let begin = pool.bytes.get().addr();
                            prop_assert!(at >= begin && at + size <= begin + 400);
                            pieces.push((at, *size));
                        }
                        Err(error) => {
                            prop_assert_eq!(error, Exhausted { asked: *size, left });
                            // A gap alone can be the reason, and is smaller than the alignment.
                            prop_assert!(size + layout.align() > left);
                        }
                    }
                }
                pool.reset();
                prop_assert_eq!(pool.left(), 400);
            }
        }
    }
}
