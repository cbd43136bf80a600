//! The bytes of a file: blocks, of which those that were never written are not there.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use super::BLOCK;
use crate::sync::Once;

pub(super) type Block = [u8; BLOCK];

/// All blocks that were taken and not written are this one.
fn zero() -> Arc<Block> {
    static ZERO: Once<Arc<Block>> = Once::new();
    Arc::clone(ZERO.get_or_init(|| Arc::new([0; BLOCK])))
}

/// Bytes behind the end are zeros in every block, and no block stands behind it.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    len: u64,
    blocks: BTreeMap<u64, Arc<Block>>,
}

/// Which block a place is in, and where in it.
fn split(offset: u64) -> (u64, usize) {
    (offset / BLOCK as u64, (offset % BLOCK as u64) as usize)
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// How many blocks it takes.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks.len() as u64
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Arc<Block>)> {
        self.blocks.iter().map(|(index, block)| (*index, block))
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> usize {
        let left = self.len.saturating_sub(offset);
        let len = usize::try_from(left).map_or(out.len(), |left| left.min(out.len()));
        let mut done = 0;
        while done < len {
            let (index, from) = split(offset + done as u64);
            let part = (BLOCK - from).min(len - done);
            let place = &mut out[done..done + part];
            match self.blocks.get(&index) {
                Some(block) => place.copy_from_slice(&block[from..from + part]),
                None => place.fill(0),
            }
            done += part;
        }
        len
    }

    /// Writes until `room` new blocks are used up. `offset + bytes.len()` must not overflow.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8], mut room: u64) -> usize {
        let mut done = 0;
        while done < bytes.len() {
            let (index, from) = split(offset + done as u64);
            let part = (BLOCK - from).min(bytes.len() - done);
            if !self.blocks.contains_key(&index) {
                if room == 0 {
                    break;
                }
                room -= 1;
            }
            let block = self
                .blocks
                .entry(index)
                .or_insert_with(|| Arc::new([0; BLOCK]));
            Arc::make_mut(block)[from..from + part].copy_from_slice(&bytes[done..done + part]);
            done += part;
        }
        if done > 0 {
            self.len = self.len.max(offset + done as u64);
        }
        done
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let (last, kept) = split(len);
            let _cut = self.blocks.split_off(&len.div_ceil(BLOCK as u64));
            if let Some(block) = self.blocks.get_mut(&last)
                && block[kept..].iter().any(|byte| *byte != 0)
            {
                Arc::make_mut(block)[kept..].fill(0);
            }
        }
        self.len = len;
    }

    /// Takes the blocks that are missing between the places `from` and `end`, of which the first is
    /// the smaller one; false, and nothing is done, if those are more than `room`.
    pub(super) fn allocate(&mut self, from: u64, end: u64, room: u64) -> bool {
        let (first, behind) = (from / BLOCK as u64, end.div_ceil(BLOCK as u64));
        let present = self.blocks.range(first..behind).count() as u64;
        if behind - first - present > room {
            return false;
        }
        for index in first..behind {
            self.blocks.entry(index).or_insert_with(zero);
        }
        self.len = self.len.max(end);
        true
    }

    /// A file of this length whose blocks follow.
    pub(super) fn of_len(len: u64) -> Self {
        Self {
            len,
            blocks: BTreeMap::new(),
        }
    }

    /// Puts the next block of a file that is read from a snapshot; false if it cannot stand there.
    pub(super) fn push(&mut self, index: u64, bytes: &[u8]) -> bool {
        let start = index.checked_mul(BLOCK as u64);
        let Some(left) = start.and_then(|start| self.len.checked_sub(start)) else {
            return false;
        };
        let after = self.blocks.last_key_value();
        let fits = bytes.len() <= BLOCK && bytes.len() as u64 <= left && left > 0;
        if !fits || after.is_some_and(|(last, _)| *last >= index) {
            return false;
        }
        let block = if bytes.is_empty() {
            zero()
        } else {
            let mut block = [0; BLOCK];
            block[..bytes.len()].copy_from_slice(bytes);
            Arc::new(block)
        };
        self.blocks.insert(index, block);
        true
    }
}

/// A block without the zeros at its end.
pub(super) fn trimmed(block: &Block) -> &[u8] {
    let end = block.iter().rposition(|byte| *byte != 0);
    &block[..end.map_or(0, |last| last + 1)]
}
