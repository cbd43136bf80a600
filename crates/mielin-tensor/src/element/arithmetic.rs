//! Arithmetic of single elements.

use half::{bf16, f16};

use crate::reduce;

/// What the crate computes with an element. Nobody else can name it, so nobody else can make an element.
pub trait Arithmetic: Sized {
    /// The digits after the first that every number of this type keeps; 0 for integers.
    const DECIMALS: u32;
    const ZERO: Self;
    const ONE: Self;

    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;

    /// Whether it takes the place of `other` as the greatest one so far: if it is greater, or the first NaN.
    fn exceeds(self, other: Self) -> bool;
    /// Whether it takes the place of `other` as the least one so far: if it is less, or the first NaN.
    fn undercuts(self, other: Self) -> bool;

    /// Exact.
    fn to_f64(self) -> f64;
    /// The nearest one, of two the even one; integers are cut off at the point and saturate, and NaN becomes 0.
    fn from_f64(value: f64) -> Self;

    /// The sum of some elements as `f64`, in their order, or for integers with 32 bits that wrap around.
    fn sum(elements: impl Iterator<Item = Self>) -> f64;

    /// The same of elements that lie one after the other, in any order.
    fn sum_of(elements: &[Self]) -> f64
    where
        Self: Copy,
    {
        Self::sum(elements.iter().copied())
    }

    /// Where the first of the greatest elements is, or the first NaN.
    fn place_of_max(elements: &[Self]) -> Option<usize>
    where
        Self: Copy,
    {
        let mut greatest: Option<(usize, Self)> = None;
        for (index, element) in elements.iter().enumerate() {
            if greatest.is_none_or(|(_, greatest)| element.exceeds(greatest)) {
                greatest = Some((index, *element));
            }
        }
        greatest.map(|(index, _)| index)
    }
}

impl Arithmetic for f32 {
    const DECIMALS: u32 = f32::DIGITS;
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;

    fn add(self, other: Self) -> Self {
        self + other
    }

    fn sub(self, other: Self) -> Self {
        self - other
    }

    fn mul(self, other: Self) -> Self {
        self * other
    }

    fn div(self, other: Self) -> Self {
        self / other
    }

    fn exceeds(self, other: Self) -> bool {
        self > other || (self.is_nan() && !other.is_nan())
    }

    fn undercuts(self, other: Self) -> bool {
        self < other || (self.is_nan() && !other.is_nan())
    }

    fn to_f64(self) -> f64 {
        f64::from(self)
    }

    fn from_f64(value: f64) -> Self {
        value as f32
    }

    fn sum(elements: impl Iterator<Item = Self>) -> f64 {
        elements.fold(0.0, |sum, element| sum + f64::from(element))
    }

    fn sum_of(elements: &[Self]) -> f64 {
        reduce::sum_in_double(elements)
    }

    fn place_of_max(elements: &[Self]) -> Option<usize> {
        reduce::argmax(elements)
    }
}

/// By way of `f32`, whose precision is more than twice that of these types and two bits: so each operation is as if it had been
/// rounded once (Figueroa, *When is double rounding innocuous?*, SIGNUM Newsletter 30, 1995).
macro_rules! short_float {
    ($float:ty, $decimals:expr) => {
        impl Arithmetic for $float {
            const DECIMALS: u32 = $decimals;
            const ZERO: Self = Self::ZERO;
            const ONE: Self = Self::ONE;

            fn add(self, other: Self) -> Self {
                Self::from_f32(self.to_f32() + other.to_f32())
            }

            fn sub(self, other: Self) -> Self {
                Self::from_f32(self.to_f32() - other.to_f32())
            }

            fn mul(self, other: Self) -> Self {
                Self::from_f32(self.to_f32() * other.to_f32())
            }

            fn div(self, other: Self) -> Self {
                Self::from_f32(self.to_f32() / other.to_f32())
            }

            fn exceeds(self, other: Self) -> bool {
                self.to_f32().exceeds(other.to_f32())
            }

            fn undercuts(self, other: Self) -> bool {
                self.to_f32().undercuts(other.to_f32())
            }

            fn to_f64(self) -> f64 {
                f64::from(self.to_f32())
            }

            fn from_f64(value: f64) -> Self {
                Self::from_f32(to_odd(value))
            }

            fn sum(elements: impl Iterator<Item = Self>) -> f64 {
                elements.fold(0.0, |sum, element| sum + element.to_f64())
            }
        }
    };
}

short_float!(f16, f16::DIGITS);
short_float!(bf16, bf16::DIGITS);

macro_rules! integer {
    ($integer:ty) => {
        impl Arithmetic for $integer {
            const DECIMALS: u32 = 0;
            const ZERO: Self = 0;
            const ONE: Self = 1;

            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }

            fn sub(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }

            fn mul(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }

            fn div(self, other: Self) -> Self {
                if other == 0 {
                    return 0;
                }
                let rest = self.wrapping_rem(other);
                let is_cut_up = rest != 0 && (rest < 0) != (other < 0);
                self.wrapping_div(other) - Self::from(is_cut_up)
            }

            fn exceeds(self, other: Self) -> bool {
                self > other
            }

            fn undercuts(self, other: Self) -> bool {
                self < other
            }

            fn to_f64(self) -> f64 {
                f64::from(self)
            }

            fn from_f64(value: f64) -> Self {
                value as $integer
            }

            fn sum(elements: impl Iterator<Item = Self>) -> f64 {
                let sum = elements.fold(0_i32, |sum, element| sum.wrapping_add(i32::from(element)));
                f64::from(sum)
            }
        }
    };
}

integer!(i8);
integer!(i32);

/// The nearest `f32`, or if there is none that is equal, that one of the two around the value whose last bit is 1. To round this
/// again to a type with at least two bits less gives what rounding the value at once would have given, which to round to
/// the nearest twice does not.
fn to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    let is_exact = f64::from(nearest) == value;
    let bits = nearest.to_bits();
    if is_exact || !nearest.is_finite() || bits % 2 == 1 {
        return nearest;
    }
    if f64::from(nearest).abs() > value.abs() {
        f32::from_bits(bits - 1)
    } else {
        f32::from_bits(bits + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All finite ones, to search for the nearest.
    fn nearest(value: f64, of_bits: impl Fn(u16) -> f64) -> f64 {
        let all = (0..=u16::MAX).map(of_bits).filter(|it| it.is_finite());
        let distance = |it: &f64| (it - value).abs();
        all.min_by(|a, b| distance(a).total_cmp(&distance(b)))
            .expect("there are some")
    }

    #[test]
    fn a_value_is_rounded_once() {
        // Just above the middle between two neighbours: rounded to f32 first, it is the middle, and then the even one.
        let above = 1.0 + (0.5 + 1e-9) / 1024.0;
        assert_eq!(f16::from_f64(f64::from(above as f32)), f16::ONE);
        assert_eq!(
            <f16 as Arithmetic>::from_f64(above).to_f64(),
            1.0 + 1.0 / 1024.0
        );
        let integer = (1 << 30) + (1 << 22) + 1;
        let converted = <bf16 as Arithmetic>::from_f64(f64::from(integer));
        assert_eq!(converted.to_f64(), f64::from((1 << 30) + (1 << 23)));
    }

    #[test]
    fn what_is_no_number_or_too_large_stays_so() {
        for (value, as_f16) in [
            (f64::INFINITY, f16::INFINITY),
            (f64::NEG_INFINITY, f16::NEG_INFINITY),
            (1e300, f16::INFINITY),
            (65_519.999, f16::MAX),
            (65_520.0, f16::INFINITY),
            (-0.0, f16::NEG_ZERO),
            (1e-300, f16::ZERO),
        ] {
            let converted = <f16 as Arithmetic>::from_f64(value);
            assert_eq!(converted.to_bits(), as_f16.to_bits(), "{value}");
        }
        assert!(<bf16 as Arithmetic>::from_f64(f64::NAN).is_nan());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn the_nearest_is_found(value in -1e5..1e5_f64, scale in -8..0_i32) {
            let value = value * 10_f64.powi(scale);
            let short = <f16 as Arithmetic>::from_f64(value).to_f64();
            if short.is_finite() {
                let best = nearest(value, |bits| f16::from_bits(bits).to_f64());
                prop_assert_eq!((short - value).abs(), (best - value).abs());
            }
            let short = <bf16 as Arithmetic>::from_f64(value).to_f64();
            let best = nearest(value, |bits| bf16::from_bits(bits).to_f64());
            prop_assert_eq!((short - value).abs(), (best - value).abs());
        }

        #[test]
        fn integers_are_divided_downwards(a: i32, b: i32) {
            let exact = (f64::from(a) / f64::from(b)).floor();
            if b != 0 && (a, b) != (i32::MIN, -1) {
                prop_assert_eq!(f64::from(a.div(b)), exact);
            }
            prop_assert_eq!(a.div(0), 0);
        }
    }
}
