//! The messages of a move. Headers go through the codec; module, pages and state follow them raw.

use alloc::string::String;
use alloc::vec::Vec;

use oxicode::{Decode, Encode};

use crate::codec::CodecError;
use crate::limits::PAGE_BYTES;
use crate::migration::{MigrationStrategy, RollbackReason};
use crate::{AgentId, Epoch};

/// What the source offers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Offer {
    /// The agent.
    pub agent: AgentId,
    /// Its epoch at the source.
    pub epoch: Epoch,
    /// The hash of its module, as it was made resumable.
    pub module: [u8; 32],
    /// The length of the module that this was made of, which is what is sent.
    pub module_bytes: u64,
    /// The size of its linear memory.
    pub memory_bytes: u64,
    /// How its memory will come.
    pub strategy: MigrationStrategy,
}

/// A message of a move; what `tail` means is said at each.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum MigrationFrame {
    /// Source: take this agent? Tail: whatever else the target's node wants to know beforehand.
    Offer(Offer),
    /// Target: yes.
    Accept {
        /// Whether the module must be sent.
        need_module: bool,
        /// Whether memory may follow the running agent.
        post_copy: bool,
    },
    /// Target: no.
    Refuse {
        /// Why.
        reason: String,
    },
    /// Source: the module, from which the target makes the resumable one itself. Tail: its bytes.
    Module,
    /// Target: it is the one that was offered, compiled and instantiated.
    Prepared,
    /// Source: pages. Tail: a [`PageBatch`] of `count`.
    Pages {
        /// How many.
        count: u32,
    },
    /// Source: these pages are zero, which the target cannot know: they are to follow, or were sent when they were not.
    /// Tail: `count` runs of pages.
    Zeros {
        /// How many runs.
        count: u32,
    },
    /// Source: the round is over.
    RoundEnd {
        /// The round, counted from 1.
        round: u32,
        /// Pages in it.
        pages: u64,
    },
    /// Target: the round is in memory.
    RoundAck {
        /// The round.
        round: u32,
    },
    /// Source, the agent being frozen: these pages come when it runs. Tail: `count` runs of pages.
    Absent {
        /// How many runs.
        count: u32,
    },
    /// Source: everything else, the agent being frozen. Tail: execution and host state, outbox, inbox.
    State {
        /// The epoch that the target shall have.
        epoch: Epoch,
    },
    /// Target: I hold everything it needs to run alone, and would run it in this epoch.
    Ready {
        /// The epoch.
        epoch: Epoch,
    },
    /// Source: it is yours; I shall not run it unless I learn that you did not start it.
    Go {
        /// The epoch.
        epoch: Epoch,
    },
    /// Target: it runs.
    Running {
        /// The epoch.
        epoch: Epoch,
    },
    /// Target: it runs, I have all of it, and have written that down.
    Secured {
        /// The epoch.
        epoch: Epoch,
    },
    /// Source: I know that it runs there and have dropped my copy. Its messages may now go out.
    Released,
    /// Source, before `Go`: forget it.
    Abort {
        /// Why.
        reason: RollbackReason,
    },
    /// Target, before `Secured`: it cannot be done. The agent was not started, or does not run any more.
    Failed {
        /// Why.
        reason: String,
    },
}

impl MigrationFrame {
    /// The header's bytes; the tail follows them raw.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        crate::codec::encode(self)
    }

    /// A message and its tail.
    ///
    /// # Errors
    ///
    /// [`CodecError`] if the bytes do not begin with a message.
    pub fn decode(bytes: &[u8]) -> Result<(MigrationFrame, &[u8]), CodecError> {
        crate::codec::decode_prefix(bytes)
    }
}

/// The pages in the tail of [`MigrationFrame::Pages`]: their bytes, page after page, and behind all of them their
/// indices, little-endian. So neighbours in memory are neighbours in the tail, and are written in one piece.
#[derive(Clone, Copy, Debug)]
pub struct PageBatch<'a> {
    pages: &'a [[u8; PAGE_BYTES]],
    indices: &'a [[u8; 4]],
}

impl<'a> PageBatch<'a> {
    /// Bytes of a tail for each page.
    pub const BYTES_PER_PAGE: usize = PAGE_BYTES + 4;

    /// The pages of a tail.
    ///
    /// # Errors
    ///
    /// If the tail does not have exactly `count` pages.
    pub fn new(count: u32, tail: &'a [u8]) -> Result<PageBatch<'a>, CodecError> {
        let expected = u64::from(count) * PageBatch::BYTES_PER_PAGE as u64;
        match (tail.len() as u64).cmp(&expected) {
            core::cmp::Ordering::Less => Err(CodecError::Truncated),
            core::cmp::Ordering::Equal => {
                let (pages, indices) = tail.split_at(count as usize * PAGE_BYTES);
                Ok(PageBatch {
                    pages: pages.as_chunks().0,
                    indices: indices.as_chunks().0,
                })
            }
            core::cmp::Ordering::Greater => Err(CodecError::Trailing {
                count: (tail.len() as u64 - expected) as usize,
            }),
        }
    }

    /// Each page with its index.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &'a [u8; PAGE_BYTES])> + use<'a> {
        let indices = self.indices.iter().map(|index| u32::from_le_bytes(*index));
        indices.zip(self.pages)
    }

    /// The same in runs of neighbours: the index of the first, and the pages.
    pub fn runs(&self) -> impl Iterator<Item = (u32, &'a [[u8; PAGE_BYTES]])> + use<'a> {
        let (mut pages, mut indices) = (self.pages, self.indices);
        core::iter::from_fn(move || {
            let first = u32::from_le_bytes(*indices.first()?);
            let follows = |(index, expected): &(&[u8; 4], u64)| {
                u64::from(u32::from_le_bytes(**index)) == *expected
            };
            let neighbours = indices.iter().zip(u64::from(first)..).take_while(follows);
            let (run, rest) = pages.split_at(neighbours.count());
            (pages, indices) = (rest, &indices[run.len()..]);
            Some((first, run))
        })
    }
}

/// Writes the indices of pages behind their bytes, which `tail` begins with; gives what is then the tail of
/// [`MigrationFrame::Pages`], or nothing if there is no room for them.
pub fn page_indices<'t>(indices: &[u32], tail: &'t mut [u8]) -> Option<&'t [u8]> {
    let tail = tail.get_mut(..indices.len() * PageBatch::BYTES_PER_PAGE)?;
    let (room, _) = tail[indices.len() * PAGE_BYTES..].as_chunks_mut();
    for (index, room) in indices.iter().zip(room) {
        *room = index.to_le_bytes();
    }
    Some(tail)
}

/// Appends runs of pages to the tail of [`MigrationFrame::Absent`] or [`MigrationFrame::Zeros`], each as its first index and its length,
/// little-endian; gives their number. The indices must ascend.
pub fn page_runs(indices: impl IntoIterator<Item = u32>, tail: &mut Vec<u8>) -> u32 {
    let mut count = 0;
    let mut push = |run: (u32, u32)| {
        tail.extend_from_slice(&run.0.to_le_bytes());
        tail.extend_from_slice(&run.1.to_le_bytes());
        count += 1;
    };
    let mut run: Option<(u32, u32)> = None;
    for index in indices {
        run = match run {
            Some((first, len)) if first + len == index => Some((first, len + 1)),
            earlier => {
                earlier.into_iter().for_each(&mut push);
                Some((index, 1))
            }
        };
    }
    run.into_iter().for_each(&mut push);
    count
}

/// The runs in the tail of [`MigrationFrame::Absent`] or [`MigrationFrame::Zeros`]: first index and length of each.
///
/// # Errors
///
/// If the tail does not have exactly `count` runs that ascend, do not touch and end before 2³² pages.
pub fn read_page_runs(count: u32, tail: &[u8]) -> Result<Vec<(u32, u32)>, CodecError> {
    let (words, rest) = tail.as_chunks::<4>();
    if !rest.is_empty() || words.len() as u64 != u64::from(count) * 2 {
        return Err(CodecError::Truncated);
    }
    let mut runs = Vec::with_capacity(words.len() / 2);
    let mut least = 0;
    for pair in words.as_chunks::<2>().0 {
        let [first, len] = pair.map(u32::from_le_bytes);
        let end = first.checked_add(len).ok_or(CodecError::Malformed)?;
        if len == 0 || first < least {
            return Err(CodecError::Malformed);
        }
        // The next one would otherwise belong to this run.
        least = end.saturating_add(1);
        runs.push((first, len));
    }
    Ok(runs)
}
