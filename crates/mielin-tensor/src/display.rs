//! How NumPy prints arrays (`numpy/_core/arrayprint.py` of NumPy 2.4, with its defaults).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use crate::element::Element;
use crate::view::TensorView;

/// An array with more elements is cut down.
const THRESHOLD: usize = 1_000;
/// Indices at each end of an axis that is cut down.
const EDGE: usize = 3;
const LINE_WIDTH: usize = 75;
/// Digits after the point.
const PRECISION: usize = 8;

/// Writes an array in brackets.
pub(crate) fn write_elements<T: Element>(
    f: &mut fmt::Formatter<'_>,
    view: TensorView<'_, T>,
) -> fmt::Result {
    if view.is_empty() {
        return f.write_str("[]");
    }
    if let (0, Some(scalar)) = (view.rank(), view.get(&[])) {
        return f.write_str(&scalar_text(scalar));
    }
    let is_cut = view.len() > THRESHOLD;
    let mut elements = Vec::new();
    collect_shown(view, is_cut, &mut elements);
    let page = Page {
        columns: Columns::of(&elements),
        is_cut,
    };
    page.write(f, view, 1)
}

/// The indices of an axis that are shown, and `None` for those left out between them.
fn shown(length: usize, is_cut: bool) -> impl Iterator<Item = Option<usize>> {
    let leaves_out = is_cut && length > 2 * EDGE;
    let first = if leaves_out { EDGE } else { length };
    let last = if leaves_out { length - EDGE } else { length };
    let gap = leaves_out.then_some(None);
    (0..first)
        .map(Some)
        .chain(gap)
        .chain((last..length).map(Some))
}

/// The part of an array with this index in its first axis.
fn part<T: Element>(view: TensorView<'_, T>, index: usize) -> TensorView<'_, T> {
    view.index(0, index).expect("the index is inside")
}

fn collect_shown<T: Element>(view: TensorView<'_, T>, is_cut: bool, elements: &mut Vec<T>) {
    if view.rank() == 0 {
        elements.extend(view);
        return;
    }
    for index in shown(view.shape()[0], is_cut).flatten() {
        collect_shown(part(view, index), is_cut, elements);
    }
}

/// How a whole array is written.
struct Page {
    columns: Columns,
    is_cut: bool,
}

impl Page {
    /// Writes an array of at least one axis whose lines after the first begin with `indent` spaces.
    fn write<T: Element>(
        &self,
        f: &mut fmt::Formatter<'_>,
        view: TensorView<'_, T>,
        indent: usize,
    ) -> fmt::Result {
        f.write_char('[')?;
        if view.rank() == 1 {
            self.write_row(f, view, indent)?;
        } else {
            for (at, index) in shown(view.shape()[0], self.is_cut).enumerate() {
                if at > 0 {
                    let newlines = view.rank() - 1;
                    write!(f, "{:\n<newlines$}{:indent$}", "", "")?;
                }
                match index {
                    Some(index) => self.write(f, part(view, index), indent + 1)?,
                    None => f.write_str("...")?,
                }
            }
        }
        f.write_char(']')
    }

    fn write_row<T: Element>(
        &self,
        f: &mut fmt::Formatter<'_>,
        row: TensorView<'_, T>,
        indent: usize,
    ) -> fmt::Result {
        // Each pair of brackets around this one takes a column, as does the one at the end.
        let width = LINE_WIDTH - (indent - 1) - 1;
        let mut line = String::new();
        let mut words = shown(row.shape()[0], self.is_cut).peekable();
        while let Some(index) = words.next() {
            let word = match index {
                Some(index) => self.columns.text(row.get(&[index]).expect("it is inside")),
                None => String::from("..."),
            };
            if !line.is_empty() && indent + line.len() + word.len() > width {
                write!(f, "{}\n{:indent$}", line.trim_end_matches(' '), "")?;
                line.clear();
            }
            line += &word;
            if words.peek().is_some() {
                line.push(' ');
            }
        }
        f.write_str(&line)
    }
}

/// What makes the points of all numbers stand below each other.
enum Columns {
    /// Integers: the width of the longest.
    Integer(usize),
    /// Characters before and after the point.
    Positional { before: usize, after: usize },
    /// Characters before the point, digits after it, and digits of the exponent.
    Scientific {
        before: usize,
        after: usize,
        exponent: usize,
    },
}

impl Columns {
    fn of<T: Element>(elements: &[T]) -> Self {
        if T::DECIMALS == 0 {
            let widths = elements
                .iter()
                .map(|element| format!("{}", element.to_f64()).len());
            return Self::Integer(widths.max().unwrap_or(0));
        }
        let finite = || elements.iter().filter(|it| it.to_f64().is_finite());
        let columns = if needs_exponents(finite().copied()) {
            let (mut before, mut after, mut exponent) = (0, 0, 2);
            for element in finite() {
                let (digits, power) = scientific(*element);
                let (whole, fraction) = split(&digits);
                before = before.max(whole.len());
                after = after.max(fraction.len());
                exponent = exponent.max(format!("{}", power.abs()).len());
            }
            Self::Scientific {
                before,
                after,
                exponent,
            }
        } else {
            let (mut before, mut after) = (0, 0);
            for element in finite() {
                let digits = positional(*element);
                let (whole, fraction) = split(&digits);
                before = before.max(whole.len());
                after = after.max(fraction.len());
            }
            Self::Positional { before, after }
        };
        let infinite = elements
            .iter()
            .map(|it| it.to_f64())
            .filter(|it| !it.is_finite());
        let widths = infinite.map(|it| if it == f64::NEG_INFINITY { 4 } else { 3 });
        columns.widened(widths.max().unwrap_or(0))
    }

    /// With room for words of that length.
    fn widened(mut self, width: usize) -> Self {
        let own = self.width();
        if let Self::Positional { before, .. } | Self::Scientific { before, .. } = &mut self {
            *before += width.saturating_sub(own);
        }
        self
    }

    fn width(&self) -> usize {
        match self {
            Self::Integer(width) => *width,
            Self::Positional { before, after } => before + 1 + after,
            Self::Scientific {
                before,
                after,
                exponent,
            } => before + 1 + after + 2 + exponent,
        }
    }

    fn text<T: Element>(&self, element: T) -> String {
        let value = element.to_f64();
        if !value.is_finite() {
            let width = self.width();
            return format!("{:>width$}", infinite(value));
        }
        match *self {
            Self::Integer(width) => format!("{value:>width$}"),
            Self::Positional { before, after } => {
                let digits = positional(element);
                let (whole, fraction) = split(&digits);
                format!("{whole:>before$}.{fraction:<after$}")
            }
            Self::Scientific {
                before,
                after,
                exponent,
            } => {
                // To as many digits as the number with the most of them needs.
                let (digits, power) = parsed(&format!("{value:.after$e}"));
                let (whole, fraction) = split(&digits);
                let (sign, power) = signed(power);
                format!("{whole:>before$}.{fraction}e{sign}{power:0>exponent$}")
            }
        }
    }
}

/// Whether some number is too large or too small, or they are too far apart, for a point alone.
fn needs_exponents<T: Element>(finite: impl Iterator<Item = T>) -> bool {
    let sizes = finite.map(|it| T::from_f64(it.to_f64().abs()));
    let mut sizes = sizes.filter(|it| *it != T::ZERO);
    let Some(first) = sizes.next() else {
        return false;
    };
    let (least, greatest) = sizes.fold((first, first), |(least, greatest), size| {
        let least = if size.undercuts(least) { size } else { least };
        let greatest = if size.exceeds(greatest) {
            size
        } else {
            greatest
        };
        (least, greatest)
    });
    greatest.to_f64() >= too_large::<T>()
        || least.undercuts(T::from_f64(1e-4))
        || greatest.div(least).exceeds(T::from_f64(1e3))
}

/// From where on not every digit before the point is known.
fn too_large<T: Element>() -> f64 {
    (0..T::DECIMALS).fold(1.0, |power, _| power * 10.0)
}

/// Before and after the point.
fn split(digits: &str) -> (&str, &str) {
    digits.split_once('.').unwrap_or((digits, ""))
}

fn infinite(value: f64) -> &'static str {
    match value {
        f64::INFINITY => "inf",
        f64::NEG_INFINITY => "-inf",
        _ => "nan",
    }
}

fn signed(power: i32) -> (char, String) {
    let sign = if power < 0 { '-' } else { '+' };
    (sign, format!("{}", power.abs()))
}

/// The fewest digits by which a finite number is known from all others of its type.
fn positional<T: Element>(element: T) -> String {
    let digits = fewest(element, |value, decimals| format!("{value:.decimals$}"));
    match digits.contains('.') {
        true => String::from(digits.trim_end_matches('0')),
        false => digits,
    }
}

/// The same with one digit before the point, and the power of ten to multiply with.
fn scientific<T: Element>(element: T) -> (String, i32) {
    parsed(&fewest(element, |value, decimals| {
        format!("{value:.decimals$e}")
    }))
}

fn parsed(text: &str) -> (String, i32) {
    let (digits, power) = text.split_once('e').expect("it has an exponent");
    let power = power.parse().expect("the exponent is a number");
    (String::from(digits), power)
}

fn fewest<T: Element>(element: T, text: impl Fn(f64, usize) -> String) -> String {
    let value = element.to_f64();
    let is_enough = |text: &String| text.parse().is_ok_and(|read| T::from_f64(read) == element);
    let mut texts = (0..PRECISION).map(|decimals| text(value, decimals));
    texts
        .find(is_enough)
        .unwrap_or_else(|| text(value, PRECISION))
}

/// A number that stands alone.
fn scalar_text<T: Element>(scalar: T) -> String {
    let value = scalar.to_f64();
    if T::DECIMALS == 0 {
        return format!("{value}");
    }
    if !value.is_finite() {
        return String::from(infinite(value));
    }
    let (digits, power) = scientific(scalar);
    // Not as in arrays: there, the limit is rounded to the type.
    if value != 0.0 && !(1e-4..too_large::<T>()).contains(&value.abs()) {
        let (sign, power) = signed(power);
        return format!("{digits}e{sign}{power:0>2}");
    }
    let decimals = split(&digits).1.len() as i32 - power;
    let decimals = usize::try_from(decimals).unwrap_or(0).max(1);
    format!("{value:.decimals$}")
}
