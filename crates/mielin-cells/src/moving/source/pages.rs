//! The agent's memory: which pages must be sent, and sending them.

use mielin_mesh_core::MigrationFrame;
use mielin_mesh_core::migration::{SourceInput, page_record};
use mielin_safepoint::PAGE_SIZE;
use mielin_wasm::Instance;

use super::super::frames::Header;
use super::Source;
use crate::error::CellsError;

/// Pages in one frame.
pub(super) const BATCH: usize = 64;

impl Source {
    /// Finds the pages that must be sent.
    pub(super) async fn harvest(&mut self) -> Result<(), CellsError> {
        let track = |error: mielin_wasm::TrackError| CellsError::Internal(error.to_string());
        if self.tracker.is_none() && self.held.is_none() {
            let mut held = self.cell().clone().hold().await?;
            let tracker = held.instance_mut().track()?;
            self.tracker_name = tracker.backend();
            self.tracker = Some(tracker);
        }
        let pages = match (&mut self.tracker, &self.held) {
            (Some(tracker), Some(held)) => tracker.harvest(Some(held.instance())).map_err(track)?,
            // What nobody tracked goes now, or follows: then even looking at all of it would take too long.
            (None, Some(held)) if self.follow.is_some() => held.instance().touched_pages(),
            (None, Some(held)) => used(held.instance()),
            (Some(tracker), None) if tracker.concurrent() => {
                tracker.harvest(None).map_err(track)?
            }
            (_, None) => return self.harvest_parked().await,
        };
        self.dirty.extend(pages);
        Ok(())
    }

    /// Harvests and copies while the agent stands still for a moment.
    async fn harvest_parked(&mut self) -> Result<(), CellsError> {
        let held = self.cell().clone().hold().await?;
        let Some(tracker) = &mut self.tracker else {
            return Ok(());
        };
        let pages = tracker
            .harvest(Some(held.instance()))
            .map_err(|error| CellsError::Internal(error.to_string()))?;
        for index in pages {
            let mut page = Box::new([0; PAGE_SIZE]);
            held.instance().read_page(index, &mut page);
            self.copies.insert(index, page);
            self.dirty.insert(index);
        }
        Ok(())
    }

    pub(super) async fn send_pages(&mut self) -> Result<SourceInput, SourceInput> {
        let indices: Vec<u32> = std::mem::take(&mut self.dirty).into_iter().collect();
        let (mut pages, mut bytes) = (0, 0);
        let mut buffer = Vec::new();
        for batch in indices.chunks(BATCH) {
            buffer.clear();
            self.read(batch, &mut buffer)
                .map_err(|error| SourceInput::Failed(error.to_string()))?;
            let mut tail = Vec::with_capacity(batch.len() * (PAGE_SIZE + 4));
            let mut count = 0;
            for (index, page) in batch.iter().zip(buffer.as_chunks::<PAGE_SIZE>().0) {
                if is_zero(page) && !self.sent.contains(index) {
                    continue;
                }
                self.sent.insert(*index);
                page_record(*index, page, &mut tail);
                count += 1;
            }
            if count == 0 {
                continue;
            }
            self.digest.update(&tail);
            pages += u64::from(count);
            bytes += tail.len() as u64;
            self.send(Header::Core(MigrationFrame::Pages { count }), tail.into())
                .await?;
        }
        self.copies.clear();
        Ok(SourceInput::PagesSent { pages, bytes })
    }

    /// Appends the pages' bytes as they are now.
    fn read(&self, indices: &[u32], out: &mut Vec<u8>) -> Result<(), CellsError> {
        let mut page = [0; PAGE_SIZE];
        match (&self.held, &self.tracker) {
            (Some(held), _) => {
                for index in indices {
                    held.instance().read_page(*index, &mut page);
                    out.extend_from_slice(&page);
                }
                Ok(())
            }
            (None, Some(tracker)) if tracker.concurrent() => tracker
                .read_many(indices, None, out)
                .map_err(|error| CellsError::Internal(error.to_string())),
            (None, _) => {
                for index in indices {
                    let copy = self
                        .copies
                        .get(index)
                        .ok_or_else(|| CellsError::Internal("a page was not copied".to_owned()))?;
                    out.extend_from_slice(&copy[..]);
                }
                Ok(())
            }
        }
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
