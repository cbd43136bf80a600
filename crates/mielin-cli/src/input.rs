//! Files and standard input, of which no more is read than is allowed.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::duration::format_bytes;
use crate::failure::Failure;

/// What an agent gets as standard input, in the words of [`read_file`].
pub(crate) const PROGRAM_INPUT: &str = "program's input";

/// Reads a file that is to be a `what`, which has at most `max` bytes.
pub(crate) fn read_file(path: &Path, what: &str, max: usize) -> Result<Vec<u8>, Failure> {
    File::open(path)
        .and_then(|file| read_at_most(file, max))
        .map_err(|error| Failure::input(path, &error))?
        .ok_or_else(|| too_large(&path.display().to_string(), what, max))
}

/// The same of standard input.
pub(crate) fn read_stdin(what: &str, max: usize) -> Result<Vec<u8>, Failure> {
    read_at_most(io::stdin().lock(), max)
        .map_err(|error| Failure::io("cannot read standard input", &error))?
        .ok_or_else(|| too_large("standard input", what, max))
}

/// `None` when there is more.
fn read_at_most(source: impl Read, max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    source.take(max as u64 + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= max).then_some(bytes))
}

fn too_large(source: &str, what: &str, max: usize) -> Failure {
    Failure::refused(format!(
        "{source} is too large: a {what} has at most {}",
        format_bytes(max as u64)
    ))
    .hint("make it smaller, or give it in parts as messages")
}
