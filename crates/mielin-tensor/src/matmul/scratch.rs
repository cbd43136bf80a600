//! Memory for packed operands.

#[cfg(feature = "std")]
use alloc::vec::Vec;

/// As long as a cache line, and aligned like one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u32; 16]);

/// Floats, or integers of 32 bits.
pub(crate) trait Word: Copy {}

impl Word for f32 {}
impl Word for i32 {}

/// Gives room for so many elements, aligned to 64 bytes, with anything in them. `work` does not ask for more.
pub(crate) fn with<T: Word, R>(elements: usize, work: impl FnOnce(&mut [T]) -> R) -> R {
    let lines = elements.div_ceil(16);
    #[cfg(feature = "std")]
    {
        std::thread_local! {
            static KEPT: core::cell::RefCell<Vec<Line>> = const { core::cell::RefCell::new(Vec::new()) };
        }
        KEPT.with_borrow_mut(|kept| {
            if kept.len() < lines {
                kept.resize(lines, Line([0; 16]));
            }
            work(&mut as_elements(kept)[..elements])
        })
    }
    #[cfg(not(feature = "std"))]
    {
        let mut lines = alloc::vec![Line([0; 16]); lines];
        work(&mut as_elements(&mut lines)[..elements])
    }
}

fn as_elements<T: Word>(lines: &mut [Line]) -> &mut [T] {
    const { assert!(size_of::<T>() == 4 && align_of::<T>() <= 64) };
    // SAFETY: a line is 16 words and nothing else, so that many lines are 16 times as many of a type that is a word, of which
    // all bits mean something.
    unsafe { core::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * 16) }
}
