//! What outlives a reset.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::fmt;
use core::mem::MaybeUninit;

/// Marks memory that has been written on purpose.
const MARK: u32 = u32::from_le_bytes(*b"kept");

/// At most `SIZE` bytes that are still there after a reset, if the memory had power all along.
///
/// It has to lie in memory that the program's start leaves alone, which with `cortex-m-rt` is the section `.uninit`:
///
/// ```
/// use mielin_rt::Kept;
///
/// #[cfg_attr(target_os = "none", unsafe(link_section = ".uninit.last_crash"))]
/// static LAST_CRASH: Kept<96> = Kept::new();
///
/// LAST_CRASH.keep(b"why");
/// let mut bytes = [0; 96];
/// assert_eq!(LAST_CRASH.take(&mut bytes), Some(&b"why"[..]));
/// assert_eq!(LAST_CRASH.take(&mut bytes), None);
/// ```
///
/// After power was off the memory holds anything; what [`Kept::keep`] has not written is told from that by a mark and a checksum (CRC-32).
pub struct Kept<const SIZE: usize>(UnsafeCell<MaybeUninit<Contents<SIZE>>>);

#[repr(C)]
struct Contents<const SIZE: usize> {
    mark: u32,
    len: u32,
    checksum: u32,
    bytes: [u8; SIZE],
}

// SAFETY: its memory is only used in critical sections.
unsafe impl<const SIZE: usize> Sync for Kept<SIZE> {}

impl<const SIZE: usize> Kept<SIZE> {
    /// Whatever was there before the program started.
    #[must_use]
    pub const fn new() -> Self {
        Self(UnsafeCell::new(MaybeUninit::zeroed()))
    }

    /// Keeps the first `SIZE` of these bytes, instead of what was kept before.
    pub fn keep(&self, bytes: &[u8]) {
        let len = bytes.len().min(SIZE);
        let mut contents = Contents {
            mark: MARK,
            len: len as u32,
            checksum: crc32(&bytes[..len]),
            bytes: [0; SIZE],
        };
        contents.bytes[..len].copy_from_slice(&bytes[..len]);
        self.write(contents);
    }

    /// Takes out what was kept, which is then kept no more.
    pub fn take<'bytes>(&self, bytes: &'bytes mut [u8; SIZE]) -> Option<&'bytes [u8]> {
        // SAFETY: it is a static's or a local's memory, which is readable, and was zeroed at least when the program was linked; volatile, because after a
        // reset it holds what no instruction of this run has written. Every bit pattern is a value of this type.
        let contents = critical_section::with(|_| unsafe {
            self.0.get().cast::<Contents<SIZE>>().read_volatile()
        });
        let len = contents.len as usize;
        let kept = contents
            .bytes
            .get(..len)
            .filter(|_| contents.mark == MARK)?;
        if crc32(kept) != contents.checksum {
            return None;
        }
        self.write(Contents {
            mark: 0,
            len: 0,
            checksum: 0,
            bytes: [0; SIZE],
        });
        *bytes = contents.bytes;
        Some(&bytes[..len])
    }

    fn write(&self, contents: Contents<SIZE>) {
        // SAFETY: the memory is this value's, and used in critical sections only. Volatile, because what reads it may come after a reset.
        critical_section::with(|_| unsafe {
            self.0
                .get()
                .cast::<Contents<SIZE>>()
                .write_volatile(contents);
        });
    }
}

impl<const SIZE: usize> Default for Kept<SIZE> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const SIZE: usize> fmt::Debug for Kept<SIZE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("size", &SIZE).finish()
    }
}

/// CRC-32 as in Ethernet (ITU-T V.42), bit by bit: a table would be larger than all it is used for.
fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = sum >> 1 ^ (sum & 1).wrapping_neg() & 0xedb8_8320;
        }
    }
    !sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_standard_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn what_was_never_kept_or_is_damaged_is_not_there() {
        let kept = Kept::<8>::new();
        let mut bytes = [0; 8];
        assert_eq!(kept.take(&mut bytes), None);
        kept.keep(b"");
        assert_eq!(kept.take(&mut bytes), Some(&b""[..]));
        for bit in 0..8 * (12 + 3) {
            kept.keep(b"why");
            // SAFETY: the memory is a local's, of which nobody else knows.
            unsafe {
                let byte = kept.0.get().cast::<u8>().add(bit / 8);
                byte.write(byte.read() ^ 1 << (bit % 8));
            }
            assert_eq!(kept.take(&mut bytes), None, "bit {bit}");
        }
        kept.keep(b"more than there is room for");
        assert_eq!(kept.take(&mut bytes), Some(&b"more tha"[..]));
    }
}
