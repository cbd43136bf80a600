//! The word-frequency table.

use std::collections::BTreeMap;

/// How often each word occurs. A word is a run of ASCII letters and digits,
/// compared without regard to case; every other byte separates words.
pub struct WordTable {
    counts: BTreeMap<String, u64>,
}

impl WordTable {
    /// Counts the words of a text, which need not be UTF-8.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        let mut counts = BTreeMap::new();
        for word in text.split(|byte| !byte.is_ascii_alphanumeric()) {
            if !word.is_empty() {
                let word = word
                    .iter()
                    .map(|byte| char::from(byte.to_ascii_lowercase()))
                    .collect();
                *counts.entry(word).or_insert(0) += 1;
            }
        }
        Self { counts }
    }

    /// Number of words, repetitions counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Number of different words.
    #[must_use]
    pub fn distinct(&self) -> usize {
        self.counts.len()
    }

    /// The `limit` most frequent words, most frequent first, equals in
    /// alphabetical order.
    #[must_use]
    pub fn top(&self, limit: usize) -> Vec<(&str, u64)> {
        let mut rows: Vec<_> = self
            .counts
            .iter()
            .map(|(word, count)| (word.as_str(), *count))
            .collect();
        // The sort is stable and the map is in alphabetical order already.
        rows.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        rows.truncate(limit);
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::WordTable;

    #[test]
    fn counts_and_order() {
        let table = WordTable::of(b"b a, B! c\xffa 42 (a)");
        assert_eq!(table.total(), 7);
        assert_eq!(table.distinct(), 4);
        assert_eq!(table.top(3), [("a", 3), ("b", 2), ("42", 1)]);
    }

    #[test]
    fn empty_text() {
        let table = WordTable::of(b" ,;\n");
        assert_eq!(
            (table.total(), table.distinct(), table.top(5).len()),
            (0, 0, 0)
        );
    }
}
