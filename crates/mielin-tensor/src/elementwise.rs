//! Each element by itself, or with the one at its place in another slice.

use core::fmt;

use crate::backend::Backend;
use crate::elementary;
use crate::simd::{self, Kernel, Simd};

/// A slice has another length than it should have. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LengthError {
    /// Which slice.
    pub what: &'static str,
    /// How many elements it should have.
    pub expected: usize,
    /// How many it has.
    pub given: usize,
}

impl fmt::Display for LengthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} has {} elements instead of {}",
            self.what, self.given, self.expected
        )
    }
}

impl core::error::Error for LengthError {}

/// # Errors
/// The slice has another length.
pub(crate) fn expect_length(
    what: &'static str,
    given: usize,
    expected: usize,
) -> Result<(), LengthError> {
    match given == expected {
        true => Ok(()),
        false => Err(LengthError {
            what,
            expected,
            given,
        }),
    }
}

/// A function of each element.
///
/// The errors are bounds over all floats and backends, in units in the last place (ulp) of the exact result; `tests/accuracy.rs`
/// measures them. What is not a number stays so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unary {
    /// eˣ, within 1.1 ulp.
    Exp,
    /// The hyperbolic tangent, within 2 ulp.
    Tanh,
    /// The logistic function, 1 / (1 + e⁻ˣ), within 3 ulp.
    Sigmoid,
    /// x · sigmoid(x), also called swish, within 4 ulp.
    Silu,
    /// x · Φ(x), where Φ is the normal distribution (Hendrycks and Gimpel, *Gaussian Error Linear Units*, arXiv:1606.08415),
    /// within 8 ulp.
    Gelu,
    /// The same paper's approximation by a hyperbolic tangent, which some models were trained with, within 320 ulp of its formula: for
    /// negative x the exponent's rounding shows in the result.
    GeluTanh,
    /// The larger one of x and 0; exact.
    Relu,
}

impl Unary {
    /// All of them.
    pub const ALL: [Unary; 7] = [
        Self::Exp,
        Self::Tanh,
        Self::Sigmoid,
        Self::Silu,
        Self::Gelu,
        Self::GeluTanh,
        Self::Relu,
    ];

    /// `to[i] = f(from[i])`.
    ///
    /// # Errors
    /// The slices have different lengths.
    pub fn apply(self, from: &[f32], to: &mut [f32]) -> Result<(), LengthError> {
        expect_length("the result", to.len(), from.len())?;
        self.apply_by(Backend::active(), Some(from), to);
        Ok(())
    }

    /// `elements[i] = f(elements[i])`.
    pub fn apply_in_place(self, elements: &mut [f32]) {
        self.apply_by(Backend::active(), None, elements);
    }

    #[inline(always)]
    pub(crate) fn of<S: Simd>(self, simd: S, x: S::Floats) -> S::Floats {
        match self {
            Self::Exp => elementary::exp(simd, x),
            Self::Tanh => elementary::tanh(simd, x),
            Self::Sigmoid => elementary::sigmoid(simd, x),
            Self::Silu => elementary::silu(simd, x),
            Self::Gelu => elementary::gelu(simd, x),
            Self::GeluTanh => elementary::gelu_tanh(simd, x),
            Self::Relu => elementary::relu(simd, x),
        }
    }

    pub(crate) fn apply_by(self, backend: Backend, from: Option<&[f32]>, to: &mut [f32]) {
        match self {
            Self::Exp => map(backend, Exp, from, to),
            Self::Tanh => map(backend, Tanh, from, to),
            Self::Sigmoid => map(backend, Sigmoid, from, to),
            Self::Silu => map(backend, Silu, from, to),
            Self::Gelu => map(backend, Gelu, from, to),
            Self::GeluTanh => map(backend, GeluTanh, from, to),
            Self::Relu => map(backend, Relu, from, to),
        }
    }
}

/// An operation on two elements at the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Binary {
    /// `a + b`.
    Add,
    /// `a - b`.
    Sub,
    /// `a · b`.
    Mul,
    /// `a / b`.
    Div,
    /// The larger one; not a number if one is not.
    Max,
    /// The smaller one; not a number if one is not.
    Min,
}

impl Binary {
    /// All of them.
    pub const ALL: [Binary; 6] = [
        Self::Add,
        Self::Sub,
        Self::Mul,
        Self::Div,
        Self::Max,
        Self::Min,
    ];

    /// `to[i] = f(a[i], b[i])`.
    ///
    /// # Errors
    /// The slices have different lengths.
    pub fn apply(self, a: &[f32], b: &[f32], to: &mut [f32]) -> Result<(), LengthError> {
        expect_length("the second operand", b.len(), a.len())?;
        expect_length("the result", to.len(), a.len())?;
        self.apply_by(Backend::active(), Some(a), b, to);
        Ok(())
    }

    /// `a[i] = f(a[i], b[i])`.
    ///
    /// # Errors
    /// The slices have different lengths.
    pub fn apply_in_place(self, a: &mut [f32], b: &[f32]) -> Result<(), LengthError> {
        expect_length("the second operand", b.len(), a.len())?;
        self.apply_by(Backend::active(), None, b, a);
        Ok(())
    }

    pub(crate) fn apply_by(self, backend: Backend, a: Option<&[f32]>, b: &[f32], to: &mut [f32]) {
        match self {
            Self::Add => zip(backend, Add, a, b, to),
            Self::Sub => zip(backend, Sub, a, b, to),
            Self::Mul => zip(backend, Mul, a, b, to),
            Self::Div => zip(backend, Div, a, b, to),
            Self::Max => zip(backend, Max, a, b, to),
            Self::Min => zip(backend, Min, a, b, to),
        }
    }
}

/// `elements[i] *= factor`.
pub fn scale(factor: f32, elements: &mut [f32]) {
    map(Backend::active(), Times(factor), None, elements);
}

/// `y[i] += factor · x[i]`; Vectors with fused multiply-add round once.
///
/// # Errors
/// The slices have different lengths.
pub fn axpy(factor: f32, x: &[f32], y: &mut [f32]) -> Result<(), LengthError> {
    expect_length("y", y.len(), x.len())?;
    zip(Backend::active(), AddTimes(factor), None, x, y);
    Ok(())
}

/// A function of vectors.
pub(crate) trait Function: Copy {
    fn of<S: Simd>(self, simd: S, x: S::Floats) -> S::Floats;
}

/// A function of two vectors.
trait Pairing: Copy {
    fn of<S: Simd>(self, simd: S, a: S::Floats, b: S::Floats) -> S::Floats;
}

macro_rules! functions {
    ($($name:ident = $function:path;)*) => {$(
        #[derive(Clone, Copy)]
        pub(crate) struct $name;

        impl Function for $name {
            #[inline(always)]
            fn of<S: Simd>(self, simd: S, x: S::Floats) -> S::Floats {
                $function(simd, x)
            }
        }
    )*};
}

functions! {
    Exp = elementary::exp;
    Tanh = elementary::tanh;
    Sigmoid = elementary::sigmoid;
    Silu = elementary::silu;
    Gelu = elementary::gelu;
    GeluTanh = elementary::gelu_tanh;
    Relu = elementary::relu;
}

#[derive(Clone, Copy)]
struct Times(f32);

impl Function for Times {
    #[inline(always)]
    fn of<S: Simd>(self, simd: S, x: S::Floats) -> S::Floats {
        simd.mul(x, simd.splat(self.0))
    }
}

macro_rules! pairings {
    ($($name:ident = $method:ident;)*) => {$(
        #[derive(Clone, Copy)]
        struct $name;

        impl Pairing for $name {
            #[inline(always)]
            fn of<S: Simd>(self, simd: S, a: S::Floats, b: S::Floats) -> S::Floats {
                simd.$method(a, b)
            }
        }
    )*};
}

pairings! {
    Add = add;
    Sub = sub;
    Mul = mul;
    Div = div;
}

#[derive(Clone, Copy)]
struct Max;

impl Pairing for Max {
    #[inline(always)]
    fn of<S: Simd>(self, simd: S, a: S::Floats, b: S::Floats) -> S::Floats {
        or_nan(simd, a, simd.max(a, b))
    }
}

#[derive(Clone, Copy)]
struct Min;

impl Pairing for Min {
    #[inline(always)]
    fn of<S: Simd>(self, simd: S, a: S::Floats, b: S::Floats) -> S::Floats {
        or_nan(simd, a, simd.min(a, b))
    }
}

/// `result`, which is not a number if the second operand is not, unless `a` is not.
#[inline(always)]
pub(crate) fn or_nan<S: Simd>(simd: S, a: S::Floats, result: S::Floats) -> S::Floats {
    simd.select(simd.is_nan(a), a, result)
}

#[derive(Clone, Copy)]
struct AddTimes(f32);

impl Pairing for AddTimes {
    #[inline(always)]
    fn of<S: Simd>(self, simd: S, y: S::Floats, x: S::Floats) -> S::Floats {
        simd.mul_add(x, simd.splat(self.0), y)
    }
}

/// Applies a function to `from`, or to what is in `to`.
fn map(backend: Backend, function: impl Function, from: Option<&[f32]>, to: &mut [f32]) {
    simd::run(backend, Map { function, from, to });
}

/// Applies a function to `a`, or to what is in `to`, and `b`.
fn zip(backend: Backend, pairing: impl Pairing, a: Option<&[f32]>, b: &[f32], to: &mut [f32]) {
    let to_len = to.len();
    let b = &b[..to_len];
    simd::run(backend, Zip { pairing, a, b, to });
}

struct Map<'a, F> {
    function: F,
    from: Option<&'a [f32]>,
    to: &'a mut [f32],
}

impl<F: Function> Kernel for Map<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let function = self.function;
        match self.from {
            Some(from) => {
                let out = Out::new(simd, self.to);
                let (first, from) = from.split_at(out.first.len());
                let (from, rest) = from.split_at(out.whole.len());
                simd.store_some(out.first, function.of(simd, simd.load_some(first, 0.0)));
                for (to, from) in out
                    .whole
                    .chunks_exact_mut(S::LANES)
                    .zip(from.chunks_exact(S::LANES))
                {
                    let floats = function.of(simd, simd.load(from));
                    match out.is_long {
                        true => simd.store_past_caches(to, floats),
                        false => simd.store(to, floats),
                    }
                }
                simd.store_some(out.rest, function.of(simd, simd.load_some(rest, 0.0)));
                out.end(simd);
            }
            None => {
                let (to, rest) = whole::<S>(self.to);
                for to in to.chunks_exact_mut(S::LANES) {
                    simd.store(to, function.of(simd, simd.load(to)));
                }
                simd.store_some(rest, function.of(simd, simd.load_some(rest, 0.0)));
            }
        }
    }
}

struct Zip<'a, P> {
    pairing: P,
    a: Option<&'a [f32]>,
    b: &'a [f32],
    to: &'a mut [f32],
}

impl<P: Pairing> Kernel for Zip<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let pairing = self.pairing;
        match self.a {
            Some(a) => {
                let out = Out::new(simd, self.to);
                let (first, whole) = (out.first.len(), out.whole.len());
                let ((a_first, a), (b_first, b)) = (a.split_at(first), self.b.split_at(first));
                let ((a, a_rest), (b, b_rest)) = (a.split_at(whole), b.split_at(whole));
                let pair = |a, b| pairing.of(simd, simd.load_some(a, 0.0), simd.load_some(b, 0.0));
                simd.store_some(out.first, pair(a_first, b_first));
                for ((to, b), a) in out
                    .whole
                    .chunks_exact_mut(S::LANES)
                    .zip(b.chunks_exact(S::LANES))
                    .zip(a.chunks_exact(S::LANES))
                {
                    let floats = pairing.of(simd, simd.load(a), simd.load(b));
                    match out.is_long {
                        true => simd.store_past_caches(to, floats),
                        false => simd.store(to, floats),
                    }
                }
                simd.store_some(out.rest, pair(a_rest, b_rest));
                out.end(simd);
            }
            None => {
                let (to, to_rest) = whole::<S>(self.to);
                let (b, b_rest) = self.b.split_at(to.len());
                for (to, b) in to.chunks_exact_mut(S::LANES).zip(b.chunks_exact(S::LANES)) {
                    simd.store(to, pairing.of(simd, simd.load(to), simd.load(b)));
                }
                let (a, b) = (simd.load_some(to_rest, 0.0), simd.load_some(b_rest, 0.0));
                simd.store_some(to_rest, pairing.of(simd, a, b));
            }
        }
    }
}

/// A result of more elements drives out of the caches what it was made of, and mostly itself, before it is complete.
const LONG: usize = 4 << 20;

/// A result that is written beside its operands. A long one is written without reading its lines first and without driving
/// others out of the caches, which takes whole lines.
struct Out<'a> {
    is_long: bool,
    /// Those before the first line, if it is long.
    first: &'a mut [f32],
    whole: &'a mut [f32],
    /// Less than a vector.
    rest: &'a mut [f32],
}

impl<'a> Out<'a> {
    #[inline(always)]
    fn new<S: Simd>(_: S, elements: &'a mut [f32]) -> Out<'a> {
        let is_long = elements.len() > LONG;
        let first = match is_long {
            true => elements.as_ptr().align_offset(size_of::<f32>() * S::LANES),
            false => 0,
        };
        // A slice of floats can be aligned within a vector.
        let (first, elements) = elements.split_at_mut(first.min(S::LANES - 1));
        let (whole, rest) = whole::<S>(elements);
        Out {
            is_long,
            first,
            whole,
            rest,
        }
    }

    /// What is written past the caches is seen by other processors in order with what comes after.
    #[inline(always)]
    fn end<S: Simd>(self, simd: S) {
        if self.is_long {
            simd.fence();
        }
    }
}

/// As many elements as whole vectors have, and the others.
#[inline(always)]
pub(crate) fn whole<S: Simd>(elements: &mut [f32]) -> (&mut [f32], &mut [f32]) {
    let len = elements.len() / S::LANES * S::LANES;
    elements.split_at_mut(len)
}

#[cfg(test)]
mod tests;
