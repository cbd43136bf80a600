//! Names of agents: what is allowed, and names for agents that were given none.

use crate::error::CellsError;

const NAME_LEN_MAX: usize = 63;
/// The longest hint kept in a generated name, so that the suffix always fits.
const HINT_LEN_MAX: usize = 48;

/// Checks a name that a user chose.
///
/// A name that looks like a whole agent id is refused, because ids and names share one command-line argument.
pub(crate) fn check(name: &str) -> Result<(), CellsError> {
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let looks_like_id = name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit());
    if name.is_empty()
        || name.len() > NAME_LEN_MAX
        || !begins_well
        || looks_like_id
        || !name.chars().all(allowed)
    {
        return Err(CellsError::BadName(
            name.chars().take(NAME_LEN_MAX + 1).collect(),
        ));
    }
    Ok(())
}

/// Names like `digest-3f2a`, each of which is tried when the one before it is taken. The last one is not.
pub(crate) fn candidates(hint: Option<&str>, seed: &[u8; 16]) -> impl Iterator<Item = String> {
    let stem = stem(hint.unwrap_or("agent"));
    let hex: String = seed.iter().map(|b| format!("{b:02x}")).collect();
    // With the last digits cut off the name can never be taken for an id, whatever the hint.
    let longest = (hex.len() - 1).min(NAME_LEN_MAX - 1 - stem.len());
    (4..=longest).map(move |length| format!("{stem}-{}", &hex[..length]))
}

fn stem(hint: &str) -> String {
    let lower = hint.to_ascii_lowercase();
    let stem: String = lower
        .chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(HINT_LEN_MAX)
        .collect();
    let stem = stem.trim_end_matches(['-', '.', '_']);
    if stem.is_empty() {
        "agent".to_owned()
    } else {
        stem.to_owned()
    }
}

fn allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn chosen_names() {
        for good in [
            "a",
            "digest",
            "digest-2",
            "9lives",
            "Prog1",
            "a.b_c-d",
            &"x".repeat(63),
        ] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a b",
            "ä",
            &"x".repeat(64),
            &"0".repeat(32),
            &"ab".repeat(16),
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn generated_names_are_valid() {
        let seed = [0x3f, 0x2a, 0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let names: Vec<String> = candidates(Some("digest"), &seed).collect();
        assert_eq!(names[..2], ["digest-3f2a", "digest-3f2a9"]);
        for hint in [
            None,
            Some(""),
            Some("---"),
            Some("My Prog (1)"),
            Some(&*"z".repeat(200)),
            Some("日本"),
        ] {
            let names: Vec<String> = candidates(hint, &seed).collect();
            assert!(names.len() > 8, "{names:?}");
            names.iter().for_each(|name| check(name).unwrap());
        }
    }
}
