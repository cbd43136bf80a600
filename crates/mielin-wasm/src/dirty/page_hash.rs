//! Dirty pages by comparing hashes: works everywhere, on parked programs.

use alloc::vec;
use alloc::vec::Vec;

use mielin_safepoint::PAGE_SIZE;

use super::fingerprint::PageKey;
use super::{DirtyTracker, TrackError};
use crate::{EngineError, Instance, Platform};

/// A 64-bit hash of every page under a random key, so that not even a program that wants to can
/// write a page unseen: a change goes unnoticed with a probability of about 2⁻⁶⁴.
pub(super) struct PageHashes {
    key: PageKey,
    hashes: Vec<u64>,
    zero: u64,
}

impl PageHashes {
    /// Every page counts as zero before the first harvest.
    pub(super) fn new(memory_bytes: u64, platform: &dyn Platform) -> Result<Self, EngineError> {
        let key = PageKey::of(platform)?;
        let zero = key.hash(&[0; PAGE_SIZE]);
        let pages = usize::try_from(memory_bytes).unwrap_or(0) / PAGE_SIZE;
        Ok(Self {
            key,
            hashes: vec![zero; pages],
            zero,
        })
    }
}

impl DirtyTracker for PageHashes {
    fn backend(&self) -> &'static str {
        "page-hash"
    }

    fn concurrent(&self) -> bool {
        false
    }

    fn harvest(&mut self, parked: Option<&dyn Instance>) -> Result<Vec<u32>, TrackError> {
        let (pages, _) = parked
            .ok_or(TrackError::NeedsParked)?
            .memory()
            .as_chunks::<PAGE_SIZE>();
        self.hashes
            .resize(pages.len().max(self.hashes.len()), self.zero);
        let mut written = Vec::new();
        for (index, (page, known)) in (0..).zip(pages.iter().zip(&mut self.hashes)) {
            let hash = self.key.hash(page);
            if hash != *known {
                *known = hash;
                written.push(index);
            }
        }
        Ok(written)
    }

    fn read(
        &self,
        index: u32,
        parked: Option<&dyn Instance>,
        out: &mut [u8; PAGE_SIZE],
    ) -> Result<(), TrackError> {
        parked.ok_or(TrackError::NeedsParked)?.read_page(index, out);
        Ok(())
    }
}
