//! The recorded series, and what an agent must say that has read it.

use anyhow::{Context, Result, ensure};

/// FNV-1a (draft-eastlake-fnv, 64 bits).
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// What the sensor measures, again and again.
pub(crate) struct Series(Vec<i64>);

/// What the agent says of itself: eight numbers, little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Figures {
    /// The number of the last reading that it had.
    pub(crate) last: u64,
    pub(crate) count: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    sum: i64,
    minimum: i64,
    maximum: i64,
    digest: u64,
}

impl Series {
    /// Reads a file of lines `number,value`, with comments and a title before them. The sensor measures thousandths.
    pub(crate) fn parse(text: &str) -> Result<Series> {
        let lines = text.lines().filter(|line| !line.starts_with('#')).skip(1);
        let values = (1..).zip(lines).map(|(expected, line)| {
            let (number, value) = line.split_once(',').context("a line without a comma")?;
            ensure!(
                number.parse() == Ok(expected),
                "line {line:?} is out of order"
            );
            thousandths(value).with_context(|| format!("the value in {line:?}"))
        });
        Ok(Series(values.collect::<Result<_>>()?))
    }

    /// What an agent says that has read all up to one, each once. They are numbered from 1, which is taken when an agent first asks.
    pub(crate) fn figures(&self, last: u64) -> Figures {
        let mut figures = Figures {
            last,
            count: 0,
            lost: 0,
            doubled: 0,
            sum: 0,
            minimum: i64::MAX,
            maximum: i64::MIN,
            digest: FNV_BASIS,
        };
        for number in 1..=last {
            let value = self.0[((number - 1) % self.0.len() as u64) as usize];
            figures.count += 1;
            figures.sum = figures.sum.wrapping_add(value);
            figures.minimum = figures.minimum.min(value);
            figures.maximum = figures.maximum.max(value);
            for byte in number.to_le_bytes().into_iter().chain(value.to_le_bytes()) {
                figures.digest = (figures.digest ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
            }
        }
        figures
    }
}

/// A decimal number with three places.
fn thousandths(text: &str) -> Option<i64> {
    let (whole, part) = text.split_once('.')?;
    let part: i64 = part.parse().ok().filter(|_| part.len() == 3)?;
    whole
        .parse::<u32>()
        .ok()
        .map(|whole| i64::from(whole) * 1000 + part)
}

impl Figures {
    /// Reads an answer of the agent.
    pub(crate) fn read(bytes: &[u8]) -> Result<Figures> {
        let (words, rest) = bytes.as_chunks::<8>();
        ensure!(
            words.len() == 8 && rest.is_empty(),
            "the agent answers with {} bytes",
            bytes.len()
        );
        let unsigned = |index: usize| u64::from_le_bytes(words[index]);
        let signed = |index: usize| i64::from_le_bytes(words[index]);
        let (last, count, lost, doubled) = (unsigned(0), unsigned(1), unsigned(2), unsigned(3));
        Ok(Figures {
            last,
            count,
            lost,
            doubled,
            sum: signed(4),
            minimum: signed(5),
            maximum: signed(6),
            digest: unsigned(7),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_that_is_carried_along_can_be_read() {
        let series = Series::parse(crate::READINGS).expect("it is well formed");
        assert_eq!(series.0.len(), 240);
        let whole = series.figures(240);
        assert_eq!((whole.count, whole.lost, whole.doubled), (240, 0, 0));
        assert_eq!(whole.sum, series.0.iter().sum::<i64>());
        // It begins again.
        assert_eq!(series.figures(241).sum, whole.sum + series.0[0]);
    }

    #[test]
    fn answers_of_another_length_are_none() {
        assert!(Figures::read(&[0; 63]).is_err());
        assert!(Figures::read(&[0; 72]).is_err());
        assert!(Figures::read(&[0; 64]).is_ok());
    }
}
