//! Memory for packed operands.

#[cfg(feature = "std")]
use alloc::vec::Vec;

/// As long as a cache line, and aligned like one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Gives room for so many elements, aligned to 64 bytes, with anything in them.
pub(super) fn with<R>(elements: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    let lines = elements.div_ceil(16);
    #[cfg(feature = "std")]
    {
        std::thread_local! {
            static KEPT: core::cell::RefCell<Vec<Line>> = const { core::cell::RefCell::new(Vec::new()) };
        }
        KEPT.with_borrow_mut(|kept| {
            if kept.len() < lines {
                kept.resize(lines, Line([0.0; 16]));
            }
            work(&mut as_elements(kept)[..elements])
        })
    }
    #[cfg(not(feature = "std"))]
    {
        let mut lines = alloc::vec![Line([0.0; 16]); lines];
        work(&mut as_elements(&mut lines)[..elements])
    }
}

fn as_elements(lines: &mut [Line]) -> &mut [f32] {
    // SAFETY: a line is 16 floats and nothing else, so that many lines are 16 times as many floats.
    unsafe { core::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * 16) }
}
