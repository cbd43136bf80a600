//! What a host does with the memory [`abi::FRAMES`], for those who have its bytes as a slice.

use alloc::vec::Vec;

use crate::{SnapshotError, abi};

/// The memory [`abi::FRAMES`] of an instance that is not running, or is in a host call.
///
/// Whoever sets the flag here sets the global [`abi::MODE`] too, as each function says.
pub struct Frames<'m>(&'m mut [u8]);

impl<'m> Frames<'m> {
    /// Takes the bytes of the memory.
    ///
    /// # Errors
    /// [`SnapshotError::Malformed`] if they are not [`abi::FRAMES_PAGES`] pages.
    pub fn new(memory: &'m mut [u8]) -> Result<Frames<'m>, SnapshotError> {
        if memory.len() as u64 != abi::FRAMES_PAGES * 65536 {
            return Err(SnapshotError::Malformed(
                "the frames memory has another size",
            ));
        }
        Ok(Frames(memory))
    }

    /// Has the program stop at the next safepoint that it comes to, or at once if it has not begun. In a host
    /// call, or while nothing runs; [`abi::MODE`] stays as it is.
    pub fn request_stop(&mut self) {
        if self.word(abi::FLAG_ADDRESS) == abi::RUNNING {
            self.set_word(abi::FLAG_ADDRESS, abi::STOP_REQUESTED);
        } else if self.word(abi::FLAG_ADDRESS) == abi::REWINDING {
            self.set_word(abi::NEXT_FLAG_ADDRESS, abi::STOP_REQUESTED);
        }
    }

    /// The frames of a program that has unwound, which stay there. Then the host sets [`abi::MODE`] to
    /// [`abi::RUNNING`].
    ///
    /// # Errors
    /// [`SnapshotError::Malformed`] if no rewritten module can have left it so.
    pub fn unwound(&mut self) -> Result<Vec<u8>, SnapshotError> {
        let malformed = SnapshotError::Malformed("the stack pointer lies outside the frames");
        let top = usize::try_from(self.word(abi::STACK_POINTER_ADDRESS));
        let top = top.map_err(|_| malformed.clone())?;
        let frames = self
            .0
            .get(abi::FRAMES_BASE as usize..top)
            .ok_or(malformed)?
            .to_vec();
        self.set_word(abi::FLAG_ADDRESS, abi::RUNNING);
        Ok(frames)
    }

    /// Puts frames in place, so that the program goes on when it is called. Then the host sets [`abi::MODE`] to
    /// [`abi::REWINDING`].
    ///
    /// # Errors
    /// [`SnapshotError::Limit`] if they are more than there is room for.
    pub fn rewind(&mut self, frames: &[u8]) -> Result<(), SnapshotError> {
        let room = &mut self.0[abi::FRAMES_BASE as usize..];
        let (found, limit) = (frames.len() as u64, room.len() as u64);
        let place = room.get_mut(..frames.len()).ok_or(SnapshotError::Limit {
            what: "bytes of frames",
            found,
            limit,
        })?;
        place.copy_from_slice(frames);
        let top = abi::FRAMES_BASE as i32 + frames.len() as i32;
        self.set_word(abi::STACK_POINTER_ADDRESS, top);
        self.set_word(abi::NEXT_FLAG_ADDRESS, abi::RUNNING);
        self.set_word(abi::FLAG_ADDRESS, abi::REWINDING);
        Ok(())
    }

    fn word(&self, address: u32) -> i32 {
        let at = address as usize;
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[at..at + 4]);
        i32::from_le_bytes(bytes)
    }

    fn set_word(&mut self, address: u32, value: i32) {
        let at = address as usize;
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    fn memory() -> Vec<u8> {
        vec![0; (abi::FRAMES_PAGES * 65536) as usize]
    }

    #[test]
    fn frames_that_are_put_in_place_are_those_that_are_read() {
        let mut memory = memory();
        let room = memory.len() - abi::FRAMES_BASE as usize;
        for len in [0, 8, room] {
            let saved = vec![7; len];
            let mut frames = Frames::new(&mut memory).expect("the right size");
            assert_eq!(frames.rewind(&saved), Ok(()));
            assert_eq!(frames.word(abi::FLAG_ADDRESS), abi::REWINDING);
            frames.request_stop();
            assert_eq!(frames.word(abi::NEXT_FLAG_ADDRESS), abi::STOP_REQUESTED);
            assert_eq!(frames.unwound(), Ok(saved));
            assert_eq!(frames.word(abi::FLAG_ADDRESS), abi::RUNNING);
            frames.request_stop();
            assert_eq!(frames.word(abi::FLAG_ADDRESS), abi::STOP_REQUESTED);
        }
        let mut frames = Frames::new(&mut memory).expect("the right size");
        let too_many = vec![0; room + 8];
        assert!(matches!(
            frames.rewind(&too_many),
            Err(SnapshotError::Limit { .. })
        ));
    }

    #[test]
    fn what_no_module_leaves_is_refused() {
        let mut memory = memory();
        for top in [
            i32::MIN,
            -1,
            0,
            abi::FRAMES_BASE as i32 - 1,
            memory.len() as i32 + 1,
            i32::MAX,
        ] {
            let mut frames = Frames::new(&mut memory).expect("the right size");
            frames.set_word(abi::STACK_POINTER_ADDRESS, top);
            assert!(
                matches!(frames.unwound(), Err(SnapshotError::Malformed(_))),
                "{top}"
            );
        }
        assert!(Frames::new(&mut memory[1..]).is_err());
    }
}
