//! What becomes of the characters of a text before its words are looked up, as BERT's own tokenizer has it (Devlin et al.,
//! *BERT*, arXiv:1810.04805; `BasicTokenizer` of its published code, for models that know no capitals).

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

/// Lower-case letters without accents, with spaces around Chinese characters and for all other white space. What is not
/// to be seen is left out.
pub(crate) fn normalised(text: &str) -> impl Iterator<Item = char> {
    text.chars()
        .filter(|character| !is_left_out(*character))
        .flat_map(|character| {
            let (around, character) = match character {
                _ if is_chinese(character) => (Some(' '), character),
                _ if character.is_whitespace() => (None, ' '),
                _ => (None, character),
            };
            [around, Some(character), around].into_iter().flatten()
        })
        .nfd()
        .filter(|character| character.general_category() != GeneralCategory::NonspacingMark)
        .flat_map(char::to_lowercase)
}

/// Whether a character is a word by itself.
pub(crate) fn is_punctuation(character: char) -> bool {
    // Among them are some that are symbols to Unicode.
    character.is_ascii_punctuation()
        || !character.is_ascii()
            && character.general_category_group() == GeneralCategoryGroup::Punctuation
}

fn is_left_out(character: char) -> bool {
    match character {
        '\t' | '\n' | '\r' => false,
        ' '..='~' => false,
        // What stands for bytes that are no text.
        '\u{FFFD}' => true,
        _ => matches!(
            character.general_category(),
            GeneralCategory::Control | GeneralCategory::Format | GeneralCategory::PrivateUse
        ),
    }
}

/// The blocks of ideographs, as the library `tokenizers` lists them: of the last but one it leaves out the first 256, which BERT's own code
/// has.
fn is_chinese(character: char) -> bool {
    matches!(
        character,
        '\u{3400}'..='\u{4DBF}'
            | '\u{4E00}'..='\u{9FFF}'
            | '\u{F900}'..='\u{FAFF}'
            | '\u{20000}'..='\u{2A6DF}'
            | '\u{2A700}'..='\u{2B73F}'
            | '\u{2B740}'..='\u{2B81F}'
            | '\u{2B920}'..='\u{2CEAF}'
            | '\u{2F800}'..='\u{2FA1F}'
    )
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::*;

    #[test]
    fn characters_are_brought_to_one_form() {
        let check = |text: &str, expected: &str| {
            assert_eq!(normalised(text).collect::<String>(), expected, "{text:?}");
        };
        check("Ünïcode\tÅ\u{301}", "unicode a");
        check("İSTANBUL ẞ ΑΣ", "istanbul ß ας".replace('ς', "σ").as_str());
        check("a\u{0}b\u{200B}c\u{FFFD}d\u{AD}e\u{E000}f", "abcdef");
        check("中a文", " 中 a 文 ");
        check("각", "\u{1100}\u{1161}\u{11A8}");
        check("x\u{85}y\u{2028}z\u{A0}.", "xy z .");
    }

    #[test]
    fn symbols_of_ascii_are_punctuation() {
        assert!("!$+<=>^`|~-_«»—。".chars().all(is_punctuation));
        assert!(!"a1 é€°²中".chars().any(is_punctuation));
    }
}
