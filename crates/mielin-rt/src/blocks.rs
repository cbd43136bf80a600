//! Memory in blocks of one size, each of which comes back by itself.
#![allow(unsafe_code)]

use core::cell::{Cell, UnsafeCell};
use core::fmt;
use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use critical_section::Mutex;

/// `COUNT` blocks of `SIZE` bytes, at most 32, aligned for every type up to 8 bytes.
///
/// Taking and giving back a block is some ten instructions in a critical section, whatever has been done before, and there are no gaps: this is for what
/// comes and goes in an interrupt's time, packets above all. A block is zero when it is given out.
///
/// ```
/// use mielin_rt::BlockPool;
///
/// static PACKETS: BlockPool<64, 2> = BlockPool::new();
/// let mut first = PACKETS.take().unwrap();
/// first[0] = 1;
/// let second = PACKETS.take().unwrap();
/// assert!(PACKETS.take().is_none());
/// drop(first);
/// assert_eq!(PACKETS.take().unwrap()[0], 0);
/// # drop(second);
/// ```
pub struct BlockPool<const SIZE: usize, const COUNT: usize> {
    /// A bit for each block that is given out.
    taken: Mutex<Cell<u32>>,
    blocks: UnsafeCell<[Bytes<SIZE>; COUNT]>,
}

/// The bytes of a block, which begins where every type up to 8 bytes may.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Bytes<const SIZE: usize>([MaybeUninit<u8>; SIZE]);

// SAFETY: a block is only reached by whoever has been given it, which is one at a time: a bit of `taken` is set and cleared in critical
// sections, and is set for as long as the block is given out.
unsafe impl<const SIZE: usize, const COUNT: usize> Sync for BlockPool<SIZE, COUNT> {}

/// What was given back is no block that was given out; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreeError {
    /// The address is not within the pool.
    Foreign,
    /// The address is within the pool, but no block begins there.
    NotABlock,
    /// The block is free: it has been given back before.
    AlreadyFree,
}

impl fmt::Display for FreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Foreign => "the memory is not the pool's",
            Self::NotABlock => "no block begins there",
            Self::AlreadyFree => "the block has been given back before",
        })
    }
}

impl core::error::Error for FreeError {}

impl<const SIZE: usize, const COUNT: usize> BlockPool<SIZE, COUNT> {
    /// A bit for each block.
    const ALL: u32 = {
        assert!(COUNT <= 32, "there is one bit for each block");
        ((1_u64 << COUNT) - 1) as u32
    };
    /// From one block to the next.
    const STRIDE: usize = size_of::<Bytes<SIZE>>();

    /// All blocks free.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            taken: Mutex::new(Cell::new(0)),
            blocks: UnsafeCell::new([Bytes([MaybeUninit::uninit(); SIZE]); COUNT]),
        }
    }

    /// A block that comes back when it is dropped; `None` when all are given out.
    #[must_use]
    pub fn take(&self) -> Option<Block<'_, SIZE, COUNT>> {
        let bytes = self.allocate()?;
        Some(Block { pool: self, bytes })
    }

    /// A block for somebody who keeps its address only, as a DMA controller does, and gives it back by [`BlockPool::free`]; `None` when
    /// all are given out. Its bytes are zero.
    #[must_use]
    pub fn allocate(&self) -> Option<NonNull<u8>> {
        let index = critical_section::with(|section| {
            let taken = self.taken.borrow(section);
            let free = !taken.get() & Self::ALL;
            let lowest = free & free.wrapping_neg();
            taken.set(taken.get() | lowest);
            (lowest != 0).then(|| lowest.trailing_zeros() as usize)
        })?;
        let block = NonNull::new(self.blocks.get().cast::<Bytes<SIZE>>())?;
        // SAFETY: `index` is below `COUNT`, as `ALL` has no other bits; and since this bit was clear, the block is nobody else's.
        unsafe {
            let block = block.add(index).cast::<u8>();
            block.write_bytes(0, SIZE);
            Some(block)
        }
    }

    /// Takes back what [`BlockPool::allocate`] gave.
    ///
    /// # Errors
    /// [`FreeError`] for anything else, a block that is free already among it.
    ///
    /// # Safety
    /// Nobody uses the block through its address any more, and it is not one that a [`Block`] owns.
    pub unsafe fn free(&self, block: NonNull<u8>) -> Result<(), FreeError> {
        let begin = self.blocks.get().addr();
        let offset = block.addr().get().wrapping_sub(begin);
        if offset >= Self::STRIDE * COUNT {
            return Err(FreeError::Foreign);
        }
        if !offset.is_multiple_of(Self::STRIDE) {
            return Err(FreeError::NotABlock);
        }
        let bit = 1 << (offset / Self::STRIDE);
        critical_section::with(|section| {
            let taken = self.taken.borrow(section);
            if taken.get() & bit == 0 {
                return Err(FreeError::AlreadyFree);
            }
            taken.set(taken.get() & !bit);
            Ok(())
        })
    }

    /// How many blocks are free.
    #[must_use]
    pub fn left(&self) -> usize {
        let taken = critical_section::with(|section| self.taken.borrow(section).get());
        COUNT - taken.count_ones() as usize
    }
}

impl<const SIZE: usize, const COUNT: usize> Default for BlockPool<SIZE, COUNT> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const SIZE: usize, const COUNT: usize> fmt::Debug for BlockPool<SIZE, COUNT> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockPool")
            .field("size", &SIZE)
            .field("count", &COUNT)
            .field("left", &self.left())
            .finish()
    }
}

/// A block of a [`BlockPool`], which gets it back when this is dropped.
pub struct Block<'pool, const SIZE: usize, const COUNT: usize> {
    pool: &'pool BlockPool<SIZE, COUNT>,
    bytes: NonNull<u8>,
}

// SAFETY: a block belongs to its owner alone, and the pool may be used from everywhere.
unsafe impl<const SIZE: usize, const COUNT: usize> Send for Block<'_, SIZE, COUNT> {}

impl<const SIZE: usize, const COUNT: usize> Deref for Block<'_, SIZE, COUNT> {
    type Target = [u8; SIZE];

    fn deref(&self) -> &[u8; SIZE] {
        // SAFETY: these `SIZE` bytes were initialised when the block was given out, and are this value's until it is dropped.
        unsafe { self.bytes.cast().as_ref() }
    }
}

impl<const SIZE: usize, const COUNT: usize> DerefMut for Block<'_, SIZE, COUNT> {
    fn deref_mut(&mut self) -> &mut [u8; SIZE] {
        // SAFETY: as in `deref`, and this value is borrowed for as long.
        unsafe { self.bytes.cast().as_mut() }
    }
}

impl<const SIZE: usize, const COUNT: usize> Drop for Block<'_, SIZE, COUNT> {
    fn drop(&mut self) {
        // SAFETY: this value is gone, and nobody else has the address: the value does not tell it but by borrowing.
        let freed = unsafe { self.pool.free(self.bytes) };
        debug_assert_eq!(freed, Ok(()), "a block is its owner's");
    }
}

impl<const SIZE: usize, const COUNT: usize> fmt::Debug for Block<'_, SIZE, COUNT> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block").field("size", &SIZE).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn free<const SIZE: usize, const COUNT: usize>(
        pool: &BlockPool<SIZE, COUNT>,
        block: NonNull<u8>,
    ) -> Result<(), FreeError> {
        // SAFETY: the tests use blocks' addresses only to give them back.
        unsafe { pool.free(block) }
    }

    #[test]
    fn what_is_no_block_is_refused() {
        let pool = BlockPool::<12, 3>::new();
        let other = BlockPool::<12, 3>::new();
        let block = pool.allocate().expect("there are three");
        let inside = NonNull::new(block.as_ptr().wrapping_add(12)).expect("not null");
        assert_eq!(free(&pool, inside), Err(FreeError::NotABlock));
        assert_eq!(free(&other, block), Err(FreeError::Foreign));
        assert_eq!(free(&pool, block), Ok(()));
        assert_eq!(free(&pool, block), Err(FreeError::AlreadyFree));
        let never = NonNull::new(block.as_ptr().wrapping_add(16)).expect("not null");
        assert_eq!(free(&pool, never), Err(FreeError::AlreadyFree));
        let behind = NonNull::new(block.as_ptr().wrapping_add(48)).expect("not null");
        assert_eq!(free(&pool, behind), Err(FreeError::Foreign));
        assert_eq!(pool.left(), 3);
    }

    #[test]
    fn the_largest_number_of_blocks() {
        let pool = BlockPool::<1, 32>::new();
        let all: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!((all.len(), pool.left()), (32, 0));
        drop(all);
        assert_eq!(pool.left(), 32);
    }

    #[test]
    fn blocks_cross_threads() {
        static POOL: BlockPool<32, 4> = BlockPool::new();
        std::thread::scope(|scope| {
            for number in 1..=8_u8 {
                scope.spawn(move || {
                    for _ in 0..1_000 {
                        let Some(mut block) = POOL.take() else {
                            std::thread::yield_now();
                            continue;
                        };
                        assert_eq!(*block, [0; 32]);
                        block.fill(number);
                        assert_eq!(*block, [number; 32]);
                    }
                });
            }
        });
        assert_eq!(POOL.left(), 4);
    }

    proptest! {
        /// Against a list of what is given out.
        #[test]
        fn blocks_are_apart_and_come_back(steps in prop::collection::vec(any::<(bool, u8)>(), 0..200)) {
            let pool = BlockPool::<20, 5>::new();
            let mut held: Vec<(Block<'_, 20, 5>, u8)> = Vec::new();
            for (take, value) in steps {
                if take {
                    match pool.take() {
                        Some(mut block) => {
                            prop_assert!(held.len() < 5);
                            prop_assert_eq!(block.as_ptr().addr() % 8, 0);
                            prop_assert_eq!(*block, [0; 20]);
                            block.fill(value);
                            held.push((block, value));
                        }
                        None => prop_assert_eq!(held.len(), 5),
                    }
                } else if !held.is_empty() {
                    held.swap_remove(usize::from(value) % held.len());
                }
                for (block, value) in &held {
                    prop_assert_eq!(**block, [*value; 20]);
                }
                prop_assert_eq!(pool.left(), 5 - held.len());
            }
        }
    }
}
