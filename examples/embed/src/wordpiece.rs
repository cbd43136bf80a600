//! Texts as numbers of word pieces (Wu et al., *Google's Neural Machine Translation System*, arXiv:1609.08144, section 4.1): of a
//! word the longest beginning that the vocabulary has, then the longest one of the rest, and so on.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::characters::{is_punctuation, normalised};

/// A longer word is unknown as a whole.
const WORD_CHARACTERS_MAX: usize = 100;
/// With what a piece begins that continues a word.
const CONTINUES: &str = "##";
/// As many as the library `sentence-transformers` gives to all-MiniLM-L6-v2.
const TOKENS_MAX: usize = 256;
/// The two that stand around a text.
const AROUND: usize = 2;

/// A vocabulary, and how texts are looked up in it.
///
/// Beside the library `tokenizers` there are two differences. `[SEP]` and the like are looked up as any other text, so that nobody can
/// write one. And what a character is says Unicode 18; the library has an earlier version, so those that were added since may differ.
#[derive(Clone, Debug)]
pub struct WordPiece {
    /// Pieces with which words begin.
    first: BTreeMap<String, u32>,
    /// Those that continue them, without `##`.
    following: BTreeMap<String, u32>,
    /// Bytes of the longest piece.
    piece_max: usize,
    tokens_max: usize,
    unknown: u32,
    start: u32,
    end: u32,
}

/// The file is no vocabulary.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VocabularyError {
    /// It is not text.
    #[error("vocab.txt is not UTF-8: {0}")]
    Utf8(core::str::Utf8Error),
    /// It lacks a token that every text needs.
    #[error("vocab.txt has no line {0}")]
    Missing(&'static str),
    /// Its lines cannot be numbered.
    #[error("vocab.txt has more lines than can be numbered")]
    Long,
}

impl WordPiece {
    /// Takes the lines of `vocab.txt`: each is a piece, whose number is that of the line, from 0.
    ///
    /// # Errors
    /// See [`VocabularyError`].
    pub fn from_vocabulary(file: &[u8]) -> Result<WordPiece, VocabularyError> {
        let text = str::from_utf8(file).map_err(VocabularyError::Utf8)?;
        let (mut first, mut following) = (BTreeMap::new(), BTreeMap::new());
        let mut piece_max = 0;
        for (number, piece) in text.lines().enumerate() {
            let number = u32::try_from(number).map_err(|_| VocabularyError::Long)?;
            piece_max = piece_max.max(piece.len());
            match piece.strip_prefix(CONTINUES) {
                Some(rest) if !rest.is_empty() => following.insert(rest.into(), number),
                _ => first.insert(String::from(piece), number),
            };
        }
        let special = |piece| {
            let number = first.get(piece).copied();
            number.ok_or(VocabularyError::Missing(piece))
        };
        Ok(WordPiece {
            unknown: special("[UNK]")?,
            start: special("[CLS]")?,
            end: special("[SEP]")?,
            first,
            following,
            piece_max,
            tokens_max: TOKENS_MAX,
        })
    }

    /// The same with another limit on the tokens of a text, with the two that stand around it; 256 otherwise.
    #[must_use]
    pub fn with_tokens_max(self, tokens_max: usize) -> WordPiece {
        WordPiece {
            tokens_max: tokens_max.max(AROUND),
            ..self
        }
    }

    /// The tokens of a text: one that starts it, its pieces, and one that ends it. What is beyond the limit is left out.
    #[must_use]
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut tokens = Vec::from([self.start]);
        let mut word = Word::default();
        for character in normalised(text) {
            let is_alone = is_punctuation(character);
            if is_alone || character.is_whitespace() {
                self.end_word(&mut word, &mut tokens);
            }
            if !character.is_whitespace() {
                word.push(character);
            }
            if is_alone {
                self.end_word(&mut word, &mut tokens);
            }
            if tokens.len() >= self.tokens_max {
                break;
            }
        }
        self.end_word(&mut word, &mut tokens);
        tokens.truncate(self.tokens_max - 1);
        tokens.push(self.end);
        tokens
    }

    /// Adds the pieces of a word, and empties it. One that has no pieces is unknown as a whole.
    fn end_word(&self, word: &mut Word, tokens: &mut Vec<u32>) {
        let before = tokens.len();
        let mut rest = match word.characters {
            ..=WORD_CHARACTERS_MAX => word.letters.as_str(),
            _ => {
                tokens.push(self.unknown);
                ""
            }
        };
        let mut pieces = &self.first;
        while !rest.is_empty() {
            let Some((number, len)) = longest(pieces, self.piece_max, rest) else {
                tokens.truncate(before);
                tokens.push(self.unknown);
                break;
            };
            tokens.push(number);
            rest = &rest[len..];
            pieces = &self.following;
        }
        word.letters.clear();
        word.characters = 0;
    }
}

/// The longest piece with which a word begins, and its length in bytes.
fn longest(pieces: &BTreeMap<String, u32>, max: usize, word: &str) -> Option<(u32, usize)> {
    let mut end = word.floor_char_boundary(max);
    while end > 0 {
        if let Some(number) = pieces.get(&word[..end]) {
            return Some((*number, end));
        }
        end = word.floor_char_boundary(end - 1);
    }
    None
}

/// A word that is being read.
#[derive(Default)]
struct Word {
    /// Those beyond the limit are only counted.
    letters: String,
    characters: usize,
}

impl Word {
    fn push(&mut self, character: char) {
        if self.characters < WORD_CHARACTERS_MAX {
            self.letters.push(character);
        }
        self.characters += 1;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use alloc::string::ToString;

    use super::*;

    const LINES: &str =
        "[PAD]\n[UNK]\n[CLS]\n[SEP]\nun\n##aff\n##able\nable\n##a\n.\n[\n]\nsep\n##\na\n";

    fn check(text: &str, expected: &[u32]) {
        let pieces = WordPiece::from_vocabulary(LINES.as_bytes()).unwrap();
        assert_eq!(pieces.encode(text), expected, "{text:?}");
    }

    #[test]
    fn the_longest_piece_comes_first() {
        check("", &[2, 3]);
        check(" Unaffable\tun.able ", &[2, 4, 5, 6, 4, 9, 7, 3]);
        check("unab able", &[2, 1, 7, 3]);
        check("[SEP]", &[2, 10, 12, 11, 3]);
        check("##", &[2, 1, 1, 3]);
        let (long, longer) = ("a".repeat(100), "a".repeat(101));
        check(&long, &[&[2, 14][..], &[8; 99], &[3]].concat());
        check(&longer, &[2, 1, 3]);
        check(&"a ".repeat(300), &[&[2][..], &[14; 254], &[3]].concat());
    }

    #[test]
    fn a_text_is_cut() {
        let pieces = WordPiece::from_vocabulary(LINES.as_bytes()).unwrap();
        let cut = |max| pieces.clone().with_tokens_max(max).encode("unaffable a");
        assert_eq!(cut(0), [2, 3]);
        assert_eq!(cut(4), [2, 4, 5, 3]);
        assert_eq!(cut(7), [2, 4, 5, 6, 14, 3]);
    }

    #[test]
    fn what_is_no_vocabulary_is_refused() {
        let error = |file: &[u8]| WordPiece::from_vocabulary(file).unwrap_err().to_string();
        assert_eq!(error(b"[UNK]\n[CLS]\n"), "vocab.txt has no line [SEP]");
        assert!(error(b"[UNK]\n\xFF").contains("not UTF-8"));
        assert!(error(b"").contains("[UNK]"));
    }
}
