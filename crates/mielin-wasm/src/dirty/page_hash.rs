//! Dirty pages by comparing hashes: works everywhere, on parked programs.

use mielin_safepoint::PAGE_SIZE;

use super::{DirtyTracker, TrackError};
use crate::{EngineError, Instance};

const WORDS: usize = PAGE_SIZE / 8;
const LANES: usize = 4;

/// A 64-bit hash of every page under a random key, so that not even a program that wants to can
/// write a page unseen: a change goes unnoticed with a probability of about 2⁻⁶⁴.
pub(super) struct PageHashes {
    key: Key,
    hashes: Vec<u64>,
    zero: u64,
}

struct Key {
    words: [u64; WORDS],
}

impl PageHashes {
    /// Every page counts as zero before the first harvest.
    pub(super) fn new(memory_bytes: u64) -> Result<Self, EngineError> {
        let mut bytes = [0; PAGE_SIZE];
        getrandom::fill(&mut bytes).map_err(EngineError::Entropy)?;
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        let key = Key { words };
        let zero = key.hash(&[0; PAGE_SIZE]);
        let pages = usize::try_from(memory_bytes).unwrap_or(0) / PAGE_SIZE;
        Ok(Self {
            key,
            hashes: vec![zero; pages],
            zero,
        })
    }
}

impl Key {
    /// Sum over pairs of words of the folded 128-bit product (a₀ + k₀)(a₁ + k₁): the pairwise
    /// multiply-and-add hash NH of UMAC (RFC 4418, section 5.2), in 64-bit words.
    fn hash(&self, page: &[u8; PAGE_SIZE]) -> u64 {
        let (words, _) = page.as_chunks::<8>();
        let (words, _) = words.as_chunks::<{ 2 * LANES }>();
        let (keys, _) = self.words.as_chunks::<{ 2 * LANES }>();
        let mut lanes = [0u128; LANES];
        for (words, key) in words.iter().zip(keys) {
            for (lane, sum) in lanes.iter_mut().enumerate() {
                let word = |at: usize| {
                    let at = 2 * lane + at;
                    u128::from(u64::from_le_bytes(words[at]).wrapping_add(key[at]))
                };
                *sum = sum.wrapping_add(word(0).wrapping_mul(word(1)));
            }
        }
        let sum = lanes
            .iter()
            .fold(0u128, |sum, lane| sum.wrapping_add(*lane));
        (sum as u64) ^ (sum >> 64) as u64
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
