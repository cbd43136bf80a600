//! A decoder's promises, and running them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime};

use crate::Seed;
use crate::allocation::peak_of;
use crate::corpus;
use crate::mutation::{Chance, mutate};

/// How long `replay` goes on with mutations, in seconds. `cargo xtask fuzz` sets it.
const SECONDS: &str = "MIELIN_FUZZ_SECONDS";
/// If set, `replay` writes the target's seeds into its corpus first.
const SEEDS: &str = "MIELIN_FUZZ_SEEDS";

/// A function over hostile bytes, and what every run of it is held to.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of its folder under `fuzz/corpus`, of its test and of its libFuzzer program.
    pub name: &'static str,
    /// How many mutations an ordinary test run tries.
    pub mutations: u32,
    /// What a run may hold at once whatever the input, in bytes: what a decoder's limit lets a
    /// length claim, and what the target itself needs.
    pub fixed_bytes: usize,
    /// What it may hold on top of that for each byte of input.
    pub bytes_per_byte: usize,
    /// Decodes, and panics if a promise is broken. Gives whether the input was accepted.
    pub run: fn(&[u8]) -> bool,
    /// Inputs made by the encoders, to be written into the corpus when a format changes.
    pub seeds: fn() -> Vec<Seed>,
}

impl Target {
    /// Runs the target once; gives whether the input was accepted.
    ///
    /// # Panics
    /// If a promise is broken, or more memory was held than the bound says.
    pub fn check(&self, input: &[u8]) -> bool {
        let mut accepted = false;
        let held = peak_of(|| accepted = (self.run)(input));
        let bound = self.fixed_bytes + self.bytes_per_byte * input.len();
        assert!(
            held <= bound,
            "{} bytes of input made {} hold {held} bytes, more than {bound}",
            input.len(),
            self.name,
        );
        accepted
    }

    /// Runs the target over its corpus and over mutations of it, the same ones every time; with
    /// `MIELIN_FUZZ_SECONDS` in the environment over others, for so long.
    ///
    /// # Panics
    /// If a promise is broken; the input is kept in `fuzz/artifacts` and the message names the file.
    /// If a file named `ok-…` is refused or one named `bad-…` is accepted: the corpus is stale.
    pub fn replay(&self) {
        if std::env::var_os(SEEDS).is_some() {
            corpus::write(self.name, &(self.seeds)());
        }
        let corpus = corpus::read(self.name);
        assert!(!corpus.is_empty(), "the corpus of {} is empty", self.name);
        self.attempt(&[], "nothing");
        for seed in &corpus {
            let accepted = self.attempt(&seed.bytes, &seed.name);
            assert!(
                seed.is_good().is_none_or(|good| good == accepted),
                "{}: {} was {}; if the format has changed, `cargo xtask fuzz {0} --seeds`",
                self.name,
                seed.name,
                if accepted { "accepted" } else { "refused" },
            );
        }
        let duration: Option<Duration> = std::env::var(SECONDS)
            .ok()
            .and_then(|seconds| seconds.parse().ok())
            .map(Duration::from_secs);
        let end = duration.map(|duration| Instant::now() + duration);
        let mut chance = Chance::new(if duration.is_some() { clock() } else { 1 });
        let mut done = 0;
        while end.map_or(done < self.mutations, |end| Instant::now() < end) {
            let seed = &corpus[chance.below(corpus.len())];
            let other = &corpus[chance.below(corpus.len())];
            let bytes = mutate(&mut chance, &seed.bytes, &other.bytes);
            self.attempt(&bytes, &seed.name);
            done += 1;
        }
    }

    fn attempt(&self, bytes: &[u8], from: &str) -> bool {
        catch_unwind(AssertUnwindSafe(|| self.check(bytes))).unwrap_or_else(|_| {
            let path = corpus::keep(self.name, bytes);
            panic!(
                "{} broke a promise on an input made of {from}, kept as {}",
                self.name,
                path.display()
            )
        })
    }
}

/// A seed that differs from run to run; the inputs that matter are kept themselves.
fn clock() -> u64 {
    SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(1, |since| since.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDED: Target = Target {
        name: "bounded",
        mutations: 0,
        fixed_bytes: 100,
        bytes_per_byte: 2,
        run: |bytes| {
            // Believes the length that its input claims.
            let claimed = bytes.first().map_or(0, |first| usize::from(*first) * 100);
            Vec::<u8>::with_capacity(claimed).is_empty()
        },
        seeds: Vec::new,
    };

    #[test]
    fn memory_is_bounded_by_the_input() {
        assert!(BOUNDED.check(&[1]));
        let broken = catch_unwind(|| BOUNDED.check(&[2]));
        assert!(broken.is_err());
        assert!(BOUNDED.check(&[[2].as_slice(), &[0; 60]].concat()));
    }
}
