//! What is kept of the readings.

/// The mean above which the actuator is switched on.
const HIGH: i64 = 30_000;
/// The mean below which it is switched off.
const LOW: i64 = 28_000;
/// The mean moves by one part in so many of the difference to each reading.
const WEIGHT: i64 = 16;
/// The fraction of the mean has so many bits.
const FRACTION_BITS: u32 = 8;
/// The largest value that counts for the mean, either way: more would not fit beside a fraction.
const VALUE_MAX: i64 = 1 << 48;

/// FNV-1a (draft-eastlake-fnv, 64 bits).
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// Whether the actuator is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Switch {
    Off,
    On,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Figures {
    /// The number of the last reading.
    pub(crate) last: u64,
    pub(crate) count: u64,
    /// Numbers that were left out.
    pub(crate) lost: u64,
    /// Readings whose number was there before.
    pub(crate) doubled: u64,
    pub(crate) switch: Switch,
    sum: i64,
    minimum: i64,
    maximum: i64,
    /// Exponential, with a fraction.
    mean: i64,
    /// Of all numbers and values, in order.
    digest: u64,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            last: 0,
            count: 0,
            lost: 0,
            doubled: 0,
            switch: Switch::Off,
            sum: 0,
            minimum: i64::MAX,
            maximum: i64::MIN,
            mean: 0,
            digest: FNV_BASIS,
        }
    }
}

impl Figures {
    /// Counts a reading.
    #[inline(never)]
    pub(crate) fn take(&mut self, number: u64, value: i64) {
        if number <= self.last {
            self.doubled += 1;
        } else {
            self.lost += number - self.last - 1;
            self.last = number;
        }
        self.sum = self.sum.wrapping_add(value);
        self.minimum = self.minimum.min(value);
        self.maximum = self.maximum.max(value);
        let scaled = value.clamp(-VALUE_MAX, VALUE_MAX) << FRACTION_BITS;
        self.mean = match self.count {
            0 => scaled,
            _ => self.mean + (scaled - self.mean) / WEIGHT,
        };
        self.count += 1;
        for byte in number.to_le_bytes().into_iter().chain(value.to_le_bytes()) {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        }
    }

    /// The mean without its fraction.
    pub(crate) fn mean(&self) -> i64 {
        self.mean >> FRACTION_BITS
    }

    /// How the actuator is to be set, if it is to be set otherwise than it is. Between the two thresholds it stays.
    pub(crate) fn wanted(&self) -> Option<Switch> {
        let switch = match self.mean() {
            mean if mean > HIGH => Switch::On,
            mean if mean < LOW => Switch::Off,
            _ => return None,
        };
        (switch != self.switch).then_some(switch)
    }

    /// Last number, count, lost, doubled, sum, minimum, maximum and digest, 8 bytes each, little-endian.
    pub(crate) fn bytes(&self) -> [u8; 64] {
        let numbers = [
            self.last,
            self.count,
            self.lost,
            self.doubled,
            self.sum.cast_unsigned(),
            self.minimum.cast_unsigned(),
            self.maximum.cast_unsigned(),
            self.digest,
        ];
        let mut bytes = [0; 64];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::{Figures, Switch};

    fn taken(readings: &[(u64, i64)]) -> Figures {
        let mut figures = Figures::default();
        for (number, value) in readings {
            figures.take(*number, *value);
        }
        figures
    }

    #[test]
    fn what_is_left_out_or_comes_twice_is_counted() {
        let figures = taken(&[(1, 5), (2, -3), (5, 9), (5, 9), (4, 1), (6, 0)]);
        assert_eq!((figures.last, figures.count), (6, 6));
        assert_eq!((figures.lost, figures.doubled), (2, 2));
        assert_eq!((figures.sum, figures.minimum, figures.maximum), (21, -3, 9));
    }

    #[test]
    fn the_digest_tells_order_numbers_and_values_apart() {
        let all = [
            taken(&[(1, 5), (2, 6)]),
            taken(&[(1, 6), (2, 5)]),
            taken(&[(1, 5), (3, 6)]),
            taken(&[(1, 5), (2, 6), (2, 6)]),
            taken(&[(1, 5)]),
        ];
        for (index, one) in all.iter().enumerate() {
            for other in &all[..index] {
                assert_ne!(one.digest, other.digest);
            }
        }
        // FNV-1a of sixteen zero bytes.
        let zeros = (0..16).fold(super::FNV_BASIS, |digest, _| {
            digest.wrapping_mul(super::FNV_PRIME)
        });
        assert_eq!(taken(&[(0, 0)]).digest, zeros);
    }

    #[test]
    fn the_switch_has_hysteresis() {
        let mut figures = Figures::default();
        let mut settles = |value: i64| {
            for _ in 0..500 {
                figures.take(figures.last + 1, value);
                if let Some(switch) = figures.wanted() {
                    figures.switch = switch;
                }
            }
            figures.switch
        };
        assert_eq!(settles(29_000), Switch::Off);
        assert_eq!(settles(30_100), Switch::On);
        assert_eq!(settles(29_000), Switch::On);
        assert_eq!(settles(27_900), Switch::Off);
        assert_eq!(settles(29_000), Switch::Off);
    }

    #[test]
    fn no_value_is_too_large() {
        let figures = taken(&[(1, i64::MIN), (2, i64::MAX), (u64::MAX, i64::MAX)]);
        assert_eq!((figures.minimum, figures.maximum), (i64::MIN, i64::MAX));
        assert_eq!(figures.lost, u64::MAX - 3);
        assert!(figures.mean() < 0);
    }
}
