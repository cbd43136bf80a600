//! Random bytes where the machine has none.

use core::fmt;

use blake2::{Blake2s256, Digest};

/// What the first key is made for.
const PURPOSE: &[u8] = b"mielin leaf entropy 1";

/// Random bytes of a seed that nobody knows and a count of starts: BLAKE2s (RFC 7693) of a key and a word, where another word gives the next key with each
/// draw, so that what was drawn cannot be found out from what is kept.
///
/// ```
/// use mielin_leaf::Entropy;
///
/// let (mut first, mut second) = (Entropy::new(&[7; 32], 1), Entropy::new(&[7; 32], 2));
/// assert_ne!(first.draw(), second.draw());
/// ```
pub struct Entropy {
    key: [u8; 32],
}

impl Entropy {
    /// The bytes of the start with this number. The same seed and number give the same bytes.
    #[must_use]
    pub fn new(seed: &[u8; 32], start: u64) -> Self {
        let hasher = Blake2s256::new().chain_update(seed).chain_update(PURPOSE);
        Self {
            key: hasher.chain_update(start.to_le_bytes()).finalize().into(),
        }
    }

    /// Fills `out`.
    pub fn fill(&mut self, out: &mut [u8]) {
        for piece in out.chunks_mut(32) {
            piece.copy_from_slice(&self.draw()[..piece.len()]);
        }
    }

    /// 32 bytes.
    pub fn draw(&mut self) -> [u8; 32] {
        let of = |word: &[u8]| Blake2s256::new().chain_update(self.key).chain_update(word);
        let (drawn, next) = (of(b"draw"), of(b"next"));
        self.key = next.finalize().into();
        drawn.finalize().into()
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entropy").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_draws_of_no_two_starts_are_the_same() {
        let mut seen = BTreeSet::new();
        for seed in 0..3 {
            for start in 0..20 {
                let mut entropy = Entropy::new(&[seed; 32], start);
                for _ in 0..20 {
                    assert!(seen.insert(entropy.draw()));
                }
            }
        }
        let mut long = [0; 100];
        Entropy::new(&[0; 32], 0).fill(&mut long);
        assert!(seen.contains(&long[..32]), "the same start, the same bytes");
        assert_ne!(long[..32], long[32..64]);
    }
}
