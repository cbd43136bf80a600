//! The agent's memory: which pages must be sent, and sending them.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use mielin_mesh_core::migration::{PageBatch, SourceInput, page_indices, page_runs};
use mielin_mesh_core::{AgentId, MigrationFrame};
use mielin_safepoint::PAGE_SIZE;
use mielin_wasm::{DirtyTracker, Fingerprint, Instance, PageKey, PageSet, TrackError};

use super::super::frames::{self, Header};
use super::super::packing::PAGES_MAX;
use super::Source;
use crate::cell::HeldLive;
use crate::error::CellsError;

/// Pages in one frame.
pub(super) const BATCH: usize = PAGES_MAX;

/// What the target has in which page, as far as pages were sent while the agent ran: it may write a page without
/// changing it.
pub(super) struct SentPages {
    key: PageKey,
    /// `None` of a page that is zero there.
    known: Vec<Option<Fingerprint>>,
    /// Written pages that the target had already.
    spared: u64,
}

/// What to do about a page.
#[derive(Clone, Copy)]
enum Look {
    /// The target has it.
    Same,
    /// It is zero, and something else there.
    Zero,
    /// It is to be sent.
    Other(Fingerprint),
}

/// Pages on their way into a frame. Its room is used again.
#[derive(Default)]
pub(super) struct Batch {
    /// The tail of the frame in the making: pages that were read, and behind them room.
    bytes: Vec<u8>,
    kept: Vec<u32>,
    zeros: Vec<u32>,
}

/// What becomes of a page of a batch.
pub(super) enum Fate {
    Kept,
    Zero,
    Dropped,
}

impl Batch {
    /// Takes the pages up that `read` reads, as far as `decide` wants them. At most [`BATCH`] pages.
    pub(super) fn fill<E>(
        &mut self,
        indices: &[u32],
        read: impl FnOnce(&mut [[u8; PAGE_SIZE]]) -> Result<(), E>,
        mut decide: impl FnMut(u32, &[u8; PAGE_SIZE]) -> Fate,
    ) -> Result<(), E> {
        let room = indices.len() * PageBatch::BYTES_PER_PAGE;
        if self.bytes.len() < room {
            self.bytes.resize(room, 0);
        }
        self.kept.clear();
        self.zeros.clear();
        let (pages, _) = self.bytes.as_chunks_mut::<PAGE_SIZE>();
        read(&mut pages[..indices.len()])?;
        for (at, index) in indices.iter().enumerate() {
            match decide(*index, &pages[at]) {
                Fate::Kept => {
                    if self.kept.len() < at {
                        pages[self.kept.len()] = pages[at];
                    }
                    self.kept.push(*index);
                }
                Fate::Zero => self.zeros.push(*index),
                Fate::Dropped => {}
            }
        }
        page_indices(&self.kept, &mut self.bytes);
        Ok(())
    }

    /// The tail of a frame, and the number of its pages; none if there are no pages.
    pub(super) fn pages(&self) -> Option<(u32, &[u8])> {
        let count = u32::try_from(self.kept.len())
            .ok()
            .filter(|count| *count > 0)?;
        Some((
            count,
            &self.bytes[..self.kept.len() * PageBatch::BYTES_PER_PAGE],
        ))
    }

    /// The tail of a frame that names the pages which are zero, and the number of its runs; none if there are none.
    pub(super) fn zeros(&self) -> Option<(u32, Bytes)> {
        let mut tail = Vec::new();
        let count = page_runs(self.zeros.iter().copied(), &mut tail);
        (count > 0).then(|| (count, tail.into()))
    }
}

impl SentPages {
    pub(super) fn new() -> Result<SentPages, CellsError> {
        Ok(SentPages {
            key: PageKey::random()?,
            known: Vec::new(),
            spared: 0,
        })
    }

    pub(super) fn spared(&self) -> u64 {
        self.spared
    }

    /// Whether the target has something else than zeros in a page.
    fn has(&self, index: u32) -> bool {
        matches!(self.known.get(index as usize), Some(Some(_)))
    }

    fn is_same(&self, index: u32, page: &[u8; PAGE_SIZE]) -> bool {
        match self.known.get(index as usize) {
            Some(Some(known)) => self.key.fingerprint(page) == *known,
            _ => is_zero(page),
        }
    }

    pub(super) fn seed(&self) -> [u8; 32] {
        self.key.seed()
    }

    /// Looks at a page that is about to be sent, and remembers it.
    fn look(&mut self, index: u32, page: &[u8; PAGE_SIZE]) -> Look {
        let has = self.has(index);
        if is_zero(page) {
            if !has {
                return Look::Same;
            }
            self.known[index as usize] = None;
            return Look::Zero;
        }
        let now = self.key.fingerprint(page);
        let at = index as usize;
        if self.known.len() <= at {
            self.known.resize(at + 1, None);
        }
        if self.known[at] == Some(now) {
            self.spared += 1;
            return Look::Same;
        }
        self.known[at] = Some(now);
        Look::Other(now)
    }
}

impl Source {
    /// Finds the pages that must be sent.
    pub(super) async fn harvest(&mut self) -> Result<(), CellsError> {
        let agent = self.cell().id();
        let track = |error| untracked(agent, &error);
        if self.tracker.is_none() && self.held.is_none() {
            let mut held = self.cell().clone().hold_live().await?;
            let tracker = held.instance_mut().track()?;
            self.tracker_name = tracker.backend();
            self.tracker = Some(tracker);
        }
        let pages = match (&mut self.tracker, &self.held) {
            (Some(tracker), Some(held)) => tracker.harvest(Some(held.instance())).map_err(track)?,
            // What nobody tracked goes now, or follows: then even to ask which pages there are would take too long
            // while the agent stands still.
            (None, Some(held)) if self.follow.is_some() => {
                let end = held.instance().memory_bytes() / PAGE_SIZE as u64;
                self.dirty = PageSet::below(u32::try_from(end).unwrap_or(u32::MAX));
                self.is_untold = true;
                return Ok(());
            }
            (None, Some(held)) => used(held.instance()),
            (Some(tracker), None) if tracker.concurrent() => {
                let mut pages = tracker.harvest(None).map_err(track)?;
                self.drop_unchanged(&mut pages)?;
                pages
            }
            (_, None) => return self.harvest_parked().await,
        };
        self.dirty.extend(pages);
        Ok(())
    }

    /// Harvests and copies while the agent stands still for a moment.
    async fn harvest_parked(&mut self) -> Result<(), CellsError> {
        let held = self.cell().clone().hold_live().await?;
        let Some(tracker) = &mut self.tracker else {
            return Ok(());
        };
        let pages = tracker
            .harvest(Some(held.instance()))
            .map_err(|error| untracked(self.claim.cell().id(), &error))?;
        for index in pages {
            let mut page = Box::new([0; PAGE_SIZE]);
            held.instance().read_page(index, &mut page);
            self.copies.insert(index, page);
            self.dirty.insert(index);
        }
        Ok(())
    }

    pub(super) async fn send_pages(&mut self) -> Result<SourceInput, SourceInput> {
        let indices: Vec<u32> = std::mem::take(&mut self.dirty).iter().collect();
        let (mut pages, mut bytes) = (0, 0);
        let mut batch = Batch::default();
        for indices in indices.chunks(BATCH) {
            self.fill(&mut batch, indices)
                .map_err(|error| self.failed(&error))?;
            if let Some((count, tail)) = batch.pages() {
                pages += u64::from(count);
                let outgoing = self.outgoing.as_mut().ok_or(SourceInput::ConnectionLost)?;
                let sent = self.packer.send(outgoing, count, tail).await;
                bytes += sent.map_err(|_| SourceInput::ConnectionLost)?;
            }
            if let Some((count, tail)) = batch.zeros() {
                bytes += tail.len() as u64;
                self.digest.update(&tail);
                let frame = MigrationFrame::Zeros { count };
                self.send(Header::Core(frame), tail).await?;
            }
        }
        self.copies.clear();
        Ok(SourceInput::PagesSent { pages, bytes })
    }

    /// Takes up those pages that the target has not got as they are now.
    fn fill(&mut self, batch: &mut Batch, indices: &[u32]) -> Result<(), CellsError> {
        let reader = Reader {
            agent: self.cell().id(),
            held: self.held.as_ref(),
            tracker: self.tracker.as_deref(),
            copies: &self.copies,
        };
        let (sent, digest) = (&mut self.sent, &mut self.digest);
        batch.fill(
            indices,
            |pages| reader.read(indices, pages),
            |index, page| match sent.look(index, page) {
                Look::Same => Fate::Dropped,
                Look::Zero => Fate::Zero,
                Look::Other(fingerprint) => {
                    frames::digest_page(digest, index, &fingerprint);
                    Fate::Kept
                }
            },
        )
    }

    /// Drops the pages that were written with what the target has already. What is written to one of them after it was
    /// read here is found by the next harvest.
    fn drop_unchanged(&mut self, pages: &mut Vec<u32>) -> Result<(), CellsError> {
        let known: Vec<u32> = pages
            .iter()
            .copied()
            .filter(|index| self.sent.has(*index))
            .collect();
        let reader = Reader {
            agent: self.cell().id(),
            held: None,
            tracker: self.tracker.as_deref(),
            copies: &self.copies,
        };
        let mut buffer = vec![[0; PAGE_SIZE]; known.len().min(BATCH)];
        let mut unchanged = HashSet::new();
        for batch in known.chunks(BATCH) {
            let buffer = &mut buffer[..batch.len()];
            reader.read(batch, buffer)?;
            for (index, page) in batch.iter().zip(buffer) {
                if self.sent.is_same(*index, page) {
                    unchanged.insert(*index);
                }
            }
        }
        self.sent.spared += unchanged.len() as u64;
        pages.retain(|index| !unchanged.contains(index));
        Ok(())
    }
}

/// Where the bytes of pages come from.
struct Reader<'a> {
    agent: AgentId,
    held: Option<&'a HeldLive>,
    tracker: Option<&'a dyn DirtyTracker>,
    copies: &'a BTreeMap<u32, Box<[u8; PAGE_SIZE]>>,
}

impl Reader<'_> {
    /// Copies pages as they are now.
    fn read(&self, indices: &[u32], pages: &mut [[u8; PAGE_SIZE]]) -> Result<(), CellsError> {
        match (self.held, self.tracker) {
            (Some(held), _) => {
                for (index, page) in indices.iter().zip(pages) {
                    held.instance().read_page(*index, page);
                }
                Ok(())
            }
            (None, Some(tracker)) if tracker.concurrent() => tracker
                .read_many(indices, None, pages)
                .map_err(|error| untracked(self.agent, &error)),
            (None, _) => {
                for (index, page) in indices.iter().zip(pages) {
                    let copy = self.copies.get(index);
                    let not_copied = || CellsError::Internal("a page was not copied".to_owned());
                    page.copy_from_slice(&copy.ok_or_else(not_copied)?[..]);
                }
                Ok(())
            }
        }
    }
}

/// An agent that moves keeps its instance until it ends.
fn untracked(agent: AgentId, error: &TrackError) -> CellsError {
    match error {
        TrackError::Gone => CellsError::Ended(agent),
        error => CellsError::Internal(error.to_string()),
    }
}

/// The pages of a standing agent that are not zero.
pub(crate) fn used(instance: &dyn Instance) -> Vec<u32> {
    let count = u32::try_from(instance.memory_bytes() / PAGE_SIZE as u64).unwrap_or(u32::MAX);
    let mut page = [0; PAGE_SIZE];
    let used = |index: &u32| {
        instance.read_page(*index, &mut page);
        !is_zero(&page)
    };
    (0..count).filter(used).collect()
}

pub(super) fn is_zero(page: &[u8; PAGE_SIZE]) -> bool {
    page.as_chunks::<16>()
        .0
        .iter()
        .all(|chunk| u128::from_ne_bytes(*chunk) == 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// An agent writes few different pages in any order; the target does what it is told, and must have what the
    /// source has after each round.
    #[test]
    fn the_target_has_every_page_and_none_twice() {
        let mut rng = StdRng::seed_from_u64(11);
        let mut sent = SentPages::new().unwrap();
        let (mut source, mut target) = (vec![[0; PAGE_SIZE]; 40], vec![[0; PAGE_SIZE]; 40]);
        let (mut same, mut zeros) = (0, 0);
        for round in 0..300 {
            for _ in 0..rng.random_range(0..30) {
                let index = rng.random_range(0..40);
                source[index] = [0; PAGE_SIZE];
                source[index][rng.random_range(0..2) * 4000] = rng.random_range(0..3);
                let page = source[index];
                assert_eq!(
                    sent.is_same(index as u32, &page),
                    target[index] == page,
                    "round {round}, page {index}"
                );
                match sent.look(index as u32, &page) {
                    Look::Same => same += u32::from(target[index] == page),
                    Look::Zero => {
                        assert_ne!(target[index], page, "it was zero already");
                        target[index] = [0; PAGE_SIZE];
                        zeros += 1;
                    }
                    Look::Other(_) => {
                        assert!(target[index] != page, "sent twice");
                        target[index] = page;
                    }
                }
                assert!(target[index] == page, "round {round}, page {index}");
            }
        }
        assert!(same > 100 && zeros > 100, "{same} and {zeros}");
        assert!(sent.spared() > 100);
    }
}
