//! A set of pages.

use alloc::vec::Vec;

/// Indices of pages, a bit for each: 32 KiB for 1 GiB of memory.
#[derive(Clone, Debug, Default)]
pub struct PageSet {
    words: Vec<u64>,
    len: u64,
}

impl PageSet {
    /// All pages below `end`.
    #[must_use]
    pub fn below(end: u32) -> PageSet {
        let mut set = PageSet::default();
        set.insert_run(0, end);
        set
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a page is one of them.
    #[must_use]
    pub fn contains(&self, index: u32) -> bool {
        let word = self.words.get(index as usize / 64);
        word.is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// Adds a page. Takes room for all below it, so whoever names it must be bounded.
    pub fn insert(&mut self, index: u32) {
        let at = index as usize / 64;
        if self.words.len() <= at {
            self.words.resize(at + 1, 0);
        }
        let bit = 1 << (index % 64);
        self.len += u64::from(self.words[at] & bit == 0);
        self.words[at] |= bit;
    }

    /// Adds the pages from `first` to below `end`, 64 at a time. Takes as much room as [`insert`](Self::insert).
    pub fn insert_run(&mut self, first: u32, end: u32) {
        if first >= end {
            return;
        }
        let (head, tail) = (first as usize / 64, (end - 1) as usize / 64);
        if self.words.len() <= tail {
            self.words.resize(tail + 1, 0);
        }
        for (at, word) in (head..).zip(&mut self.words[head..=tail]) {
            let from = if at == head { first % 64 } else { 0 };
            let to = if at == tail { (end - 1) % 64 } else { 63 };
            let added = u64::MAX << from & u64::MAX >> (63 - to);
            self.len += u64::from((added & !*word).count_ones());
            *word |= added;
        }
    }

    /// Takes a page out; whether it was there.
    pub fn remove(&mut self, index: u32) -> bool {
        let was = self.contains(index);
        if was {
            self.words[index as usize / 64] &= !(1 << (index % 64));
            self.len -= 1;
        }
        was
    }

    /// The pages from `first` on, ascending.
    pub fn from(&self, first: u32) -> impl Iterator<Item = u32> {
        let skipped = first as usize / 64;
        let words = self.words.iter().enumerate().skip(skipped);
        words.flat_map(move |(at, word)| {
            let below = if at == skipped { first % 64 } else { 0 };
            let mut word = word & (u64::MAX << below);
            core::iter::from_fn(move || {
                let bit = word.trailing_zeros();
                word &= word.wrapping_sub(1);
                (bit < 64).then(|| at as u32 * 64 + bit)
            })
        })
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.from(0)
    }
}

impl Extend<u32> for PageSet {
    fn extend<T: IntoIterator<Item = u32>>(&mut self, indices: T) {
        for index in indices {
            self.insert(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn it_holds_what_a_tree_holds() {
        let mut rng = StdRng::seed_from_u64(3);
        let (mut set, mut tree) = (PageSet::default(), BTreeSet::new());
        for _ in 0..3000 {
            let index = rng.random_range(0..300);
            if rng.random_range(0..20) == 0 {
                let end = index + rng.random_range(0..150);
                set.insert_run(index, end);
                tree.extend(index..end);
            } else if rng.random_range(0..3) > 0 {
                assert_eq!(set.remove(index), tree.remove(&index));
            } else {
                set.extend([index]);
                tree.insert(index);
            }
            assert_eq!(set.contains(index), tree.contains(&index));
            assert_eq!(set.len(), tree.len() as u64);
            assert_eq!(set.is_empty(), tree.is_empty());
            let first = rng.random_range(0..400);
            assert!(set.from(first).eq(tree.range(first..).copied()), "{first}");
        }
        assert!(set.iter().eq(tree));
        for end in [0, 1, 63, 64, 65, 200] {
            let set = PageSet::below(end);
            assert!(set.iter().eq(0..end), "{end}");
            assert_eq!(set.len(), u64::from(end));
        }
        assert!(!set.contains(u32::MAX));
        assert_eq!(set.from(u32::MAX).next(), None);
    }
}
