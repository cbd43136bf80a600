//! Sample agent: reads its standard input, hashes it, feeds the hash through a
//! chain of SHA-256 that takes seconds, and counts the words meanwhile.
//!
//! Arguments: `digest [ROUNDS]`. The result goes to standard output and is a
//! function of the input and of ROUNDS alone, so that a run that moved between
//! machines can be compared with one that stayed. Progress goes to standard
//! error. It needs no capability: no clock, no random numbers (which is why the
//! table is a `BTreeMap`: a `HashMap` would ask for a random seed).

mod sha256;
mod words;

use std::io::{self, Read, Write};
use std::process::ExitCode;

use sha256::{Digest, hex, sha256};
use words::WordTable;

/// Rounds of the chain when no argument says otherwise: some seconds under wasmtime.
const DEFAULT_ROUNDS: u64 = 10_000_000;
/// Number of progress lines that a chain writes, whatever its length.
const PROGRESS_LINES: u64 = 20;
/// Rows of the word table that are printed.
const TOP_WORDS: usize = 20;

fn main() -> ExitCode {
    let rounds = match rounds_from_arguments() {
        Ok(rounds) => rounds,
        Err(argument) => {
            eprintln!(
                "digest: `{argument}` is not a number of rounds\nusage: digest [ROUNDS] < INPUT"
            );
            return ExitCode::from(2);
        }
    };
    match run(rounds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("digest: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The first argument as a number, or the argument that is none.
fn rounds_from_arguments() -> Result<u64, String> {
    match std::env::args().nth(1) {
        None => Ok(DEFAULT_ROUNDS),
        Some(argument) => argument.parse().map_err(|_| argument),
    }
}

fn run(rounds: u64) -> io::Result<()> {
    let mut input = Vec::new();
    io::stdin().read_to_end(&mut input)?;
    eprintln!("digest: read {} bytes", input.len());

    let table = WordTable::of(&input);
    let first = sha256(&input);
    let last = chain(first, rounds);

    let mut out = io::stdout().lock();
    writeln!(out, "bytes    {}", input.len())?;
    writeln!(out, "sha256   {}", hex(&first))?;
    writeln!(out, "rounds   {rounds}")?;
    writeln!(out, "chain    {}", hex(&last))?;
    writeln!(out, "words    {}", table.total())?;
    writeln!(out, "distinct {}", table.distinct())?;
    for (word, count) in table.top(TOP_WORDS) {
        writeln!(out, "{count:>8} {word}")?;
    }
    out.flush()
}

/// Applies SHA-256 to its own result `rounds` times.
fn chain(first: Digest, rounds: u64) -> Digest {
    let step = rounds.div_ceil(PROGRESS_LINES).max(1);
    let mut digest = first;
    for round in 1..=rounds {
        digest = sha256(&digest);
        if round % step == 0 || round == rounds {
            eprintln!("digest: round {round} of {rounds}");
        }
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::{chain, hex, sha256};

    #[test]
    fn chain_is_repeated_hashing() {
        let first = sha256(b"abc");
        assert_eq!(chain(first, 0), first);
        assert_eq!(chain(first, 3), sha256(&sha256(&sha256(&first))));
        assert_eq!(
            hex(&chain(first, 1)),
            "4f8b42c22dd3729b519ba6f68d2da7cc5b2d606d05daed5ad5128cc03e6c6358"
        );
    }
}
