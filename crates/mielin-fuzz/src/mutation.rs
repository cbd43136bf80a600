//! Changes to valid inputs, of the kinds that break decoders.

/// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// No input grows beyond this.
const LEN_MAX: usize = 256 * 1024;

/// Numbers at which lengths, counts and sequence numbers go wrong.
const EXTREMES: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x0100_0000_0000_0000,
    u64::MAX >> 1,
    u64::MAX,
];

/// One to four changes to `bytes`; `other` is another input of the same corpus.
pub(crate) fn mutate(chance: &mut Chance, bytes: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=chance.below(4) {
        change(chance, &mut bytes, other);
    }
    bytes.truncate(LEN_MAX);
    bytes
}

fn change(chance: &mut Chance, bytes: &mut Vec<u8>, other: &[u8]) {
    if bytes.is_empty() {
        bytes.extend_from_slice(&chance.next().to_le_bytes());
        return;
    }
    let at = place(chance, bytes.len());
    match chance.below(8) {
        0 => bytes[at] ^= 1 << chance.below(8),
        1 => bytes[at] = chance.next() as u8,
        2 => bytes.truncate(at),
        3 | 4 => {
            let number = extreme(chance);
            let end = bytes.len().min(at + number.len());
            let kept = end - at;
            bytes[at..end].copy_from_slice(&number[..kept]);
        }
        5 => {
            let number = extreme(chance);
            bytes.splice(at..at, number);
        }
        6 => {
            let end = at + 1 + chance.below((bytes.len() - at).min(64));
            if chance.below(2) == 0 {
                bytes.drain(at..end);
            } else {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
        }
        _ if !other.is_empty() => {
            let from = chance.below(other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        _ => {}
    }
}

/// A position: half of the time near the front, where headers are.
fn place(chance: &mut Chance, len: usize) -> usize {
    let bound = if chance.below(2) == 0 {
        len.min(64)
    } else {
        len
    };
    chance.below(bound)
}

/// An extreme number in one of the forms in which formats write numbers: little or big endian in one
/// to eight bytes, or as OxiCode's marker and number.
fn extreme(chance: &mut Chance) -> Vec<u8> {
    let number = EXTREMES[chance.below(EXTREMES.len())];
    let width = 1 << chance.below(4);
    let (little, big) = (number.to_le_bytes(), number.to_be_bytes());
    match (chance.below(3), width) {
        (0, _) => big[8 - width..].to_vec(),
        (1, 2 | 4 | 8) => {
            let marker = match width {
                2 => 251,
                4 => 252,
                _ => 253,
            };
            [&[marker], &little[..width]].concat()
        }
        _ => little[..width].to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_mutations_and_each_kind_occurs() {
        let run = |seed| {
            let mut chance = Chance::new(seed);
            let mutated: Vec<Vec<u8>> = (0..1_000)
                .map(|_| mutate(&mut chance, b"a valid input", b"another one"))
                .collect();
            mutated
        };
        assert_eq!(run(1), run(1));
        let mutated = run(2);
        assert!(mutated.iter().any(Vec::is_empty), "cut to nothing");
        assert!(mutated.iter().any(|bytes| bytes.len() > 20), "grown");
        assert!(
            mutated.iter().any(|bytes| bytes.ends_with(b"one")),
            "spliced"
        );
        let claims = |bytes: &Vec<u8>| bytes.windows(8).any(|window| window == [0xff; 8]);
        assert!(mutated.iter().any(claims), "an extreme length");
    }
}
