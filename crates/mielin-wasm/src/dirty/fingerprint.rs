//! Keyed hashes of pages, to know a page again without keeping it.

use alloc::boxed::Box;

use mielin_safepoint::PAGE_SIZE;

use crate::{EngineError, Platform};

const WORDS: usize = PAGE_SIZE / 8;
/// Words by which the second key is shifted against the first: one pair.
const SHIFT: usize = 2;
const LANES: usize = 4;

/// A key under which pages are hashed. Whoever writes the pages must not see it, nor any hash.
///
/// The hash is NH, the pairwise multiply-and-add hash of UMAC (RFC 4418, section 5.2), in 64-bit words: the sum of
/// (a₀ + k₀)(a₁ + k₁) over pairs of words, modulo 2¹²⁸. Two different pages have the same sum under at most one key in
/// 2⁶⁴, whatever the pages are: that is a theorem about all pages, and no assumption. (Of keys that are random; these
/// are what BLAKE3 makes of 32 random bytes, where UMAC takes a block cipher.)
pub struct PageKey {
    seed: [u8; 32],
    words: Box<[u64; WORDS + SHIFT]>,
}

/// What a page is known by: two NH sums, under the key and under the key shifted by a pair of words (the Toeplitz
/// construction of UMAC). Two different pages have the same fingerprint under at most one key in 2¹²⁸.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u128; 2]);

impl Fingerprint {
    /// Both sums, little-endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        let (halves, _) = bytes.as_chunks_mut::<16>();
        for (half, sum) in halves.iter_mut().zip(self.0) {
            *half = sum.to_le_bytes();
        }
        bytes
    }
}

impl PageKey {
    /// A random key, from the operating system.
    ///
    /// # Errors
    /// The system has no random numbers.
    #[cfg(feature = "std")]
    pub fn random() -> Result<PageKey, EngineError> {
        Self::of(&crate::Hosted)
    }

    /// A random key from a platform.
    ///
    /// # Errors
    /// It has no random bytes.
    pub fn of(platform: &dyn Platform) -> Result<PageKey, EngineError> {
        let mut seed = [0; 32];
        platform.fill_random(&mut seed)?;
        Ok(PageKey::from_seed(&seed))
    }

    /// The key that follows from a seed, for two who are to have the same one: the output of BLAKE3, keyed with the
    /// seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> PageKey {
        let mut bytes = [0; 8 * (WORDS + SHIFT)];
        let mut output = blake3::Hasher::new_keyed(seed).finalize_xof();
        output.fill(&mut bytes);
        let mut words = Box::new([0; WORDS + SHIFT]);
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        PageKey { seed: *seed, words }
    }

    /// What [`from_seed`](Self::from_seed) makes this key of.
    #[must_use]
    pub fn seed(&self) -> [u8; 32] {
        self.seed
    }

    /// What `page` is known by.
    #[must_use]
    pub fn fingerprint(&self, page: &[u8; PAGE_SIZE]) -> Fingerprint {
        Fingerprint([self.sum(0, page), self.sum(SHIFT, page)])
    }

    /// The first sum, folded to 64 bits.
    pub(super) fn hash(&self, page: &[u8; PAGE_SIZE]) -> u64 {
        let sum = self.sum(0, page);
        (sum as u64) ^ (sum >> 64) as u64
    }

    fn sum(&self, shift: usize, page: &[u8; PAGE_SIZE]) -> u128 {
        let (words, _) = page.as_chunks::<8>();
        let (words, _) = words.as_chunks::<{ 2 * LANES }>();
        let (keys, _) = self.words[shift..shift + WORDS].as_chunks::<{ 2 * LANES }>();
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
        lanes
            .iter()
            .fold(0u128, |sum, lane| sum.wrapping_add(*lane))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The formula, word by word.
    fn plain(key: &[u64], page: &[u8; PAGE_SIZE]) -> u128 {
        let word = |at: usize| {
            let bytes = page[8 * at..8 * at + 8].try_into().unwrap();
            u128::from(u64::from_le_bytes(bytes).wrapping_add(key[at]))
        };
        (0..WORDS / 2).fold(0u128, |sum, pair| {
            sum.wrapping_add(word(2 * pair).wrapping_mul(word(2 * pair + 1)))
        })
    }

    #[test]
    fn both_sums_are_those_of_the_formula_and_every_byte_counts() {
        let key = PageKey::random().unwrap();
        let mut page = [0; PAGE_SIZE];
        getrandom::fill(&mut page).unwrap();
        let known = key.fingerprint(&page);
        let expected = [plain(&key.words[..], &page), plain(&key.words[2..], &page)];
        assert_eq!(known, Fingerprint(expected));
        for index in 0..PAGE_SIZE {
            page[index] ^= 1 << (index % 8);
            let [first, second] = key.fingerprint(&page).0;
            assert!(first != known.0[0] && second != known.0[1], "byte {index}");
            page[index] ^= 1 << (index % 8);
        }
        assert_eq!(key.fingerprint(&page), known);
        // Words in another order are another page.
        page.rotate_left(16);
        assert_ne!(key.fingerprint(&page), known);
        assert_ne!(
            PageKey::random().unwrap().fingerprint(&page),
            key.fingerprint(&page)
        );
    }
}
