//! What arrays are made of.

pub(crate) mod arithmetic;

use core::fmt;

use half::{bf16, f16};

use arithmetic::Arithmetic;

/// A type of which there are arrays: `f32`, [`f16`](crate::f16), [`bf16`](crate::bf16), `i8` and `i32`.
///
/// Floats of 16 bits are converted to `f32`, computed with, and rounded once. Integers wrap around, as NumPy's do.
pub trait Element: Copy + PartialEq + fmt::Debug + Send + Sync + 'static + Arithmetic {
    /// Which one it is.
    const TYPE: ElementType;

    /// What the sum of many is: the type itself, but `i32` for `i8`.
    type Sum: Element;

    /// What the mean of many is: the type itself, but `f32` for integers.
    type Mean: Element;
}

/// Which [`Element`] an array is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ElementType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16: 11 bits of precision, up to 65504.
    F16,
    /// The upper half of an `F32`: 8 bits of precision.
    Bf16,
    /// From -128 to 127.
    I8,
    /// From -2³¹ to 2³¹ - 1.
    I32,
}

impl ElementType {
    /// Bytes of an element.
    #[must_use]
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::I8 => 1,
            Self::F16 | Self::Bf16 => 2,
            Self::F32 | Self::I32 => 4,
        }
    }

    /// As Rust names the type.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::I8 => "i8",
            Self::I32 => "i32",
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Element for f32 {
    const TYPE: ElementType = ElementType::F32;
    type Sum = f32;
    type Mean = f32;
}

impl Element for f16 {
    const TYPE: ElementType = ElementType::F16;
    type Sum = f16;
    type Mean = f16;
}

impl Element for bf16 {
    const TYPE: ElementType = ElementType::Bf16;
    type Sum = bf16;
    type Mean = bf16;
}

impl Element for i8 {
    const TYPE: ElementType = ElementType::I8;
    type Sum = i32;
    type Mean = f32;
}

impl Element for i32 {
    const TYPE: ElementType = ElementType::I32;
    type Sum = i32;
    type Mean = f32;
}

/// An element as another type, by way of `f64`, in which each of them is exact: see [`Tensor::to`](crate::Tensor::to).
pub(crate) fn convert<T: Element, U: Element>(element: T) -> U {
    U::from_f64(element.to_f64())
}
