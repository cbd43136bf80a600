//! Rows of a table by their numbers.

use core::fmt;

use crate::matrix::{MatMut, MatRef};

/// A lookup that did not happen. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LookupError {
    /// The table has no such row.
    NoSuchRow {
        /// Which number it is of those that were asked for.
        at: usize,
        /// The row.
        row: u32,
        /// Rows of the table.
        rows: usize,
    },
    /// What is found has another shape than there is room for.
    Shape {
        /// Rows that are asked for, and their width.
        found: [usize; 2],
        /// Rows and columns that there is room for.
        room: [usize; 2],
    },
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchRow { at, row, rows } => write!(
                f,
                "number {at} asks for row {row} of a table of {rows} rows"
            ),
            Self::Shape { found, room } => write!(
                f,
                "{} rows of {} elements have no room in a matrix of {} × {}",
                found[0], found[1], room[0], room[1]
            ),
        }
    }
}

impl core::error::Error for LookupError {}

/// Row `i` of `to` becomes row `numbers[i]` of `table`, of shape `[rows, width]`; `to` is `[numbers, width]`.
///
/// # Errors
/// See [`LookupError`].
pub fn embedding<T: Copy>(
    table: MatRef<'_, T>,
    numbers: &[u32],
    to: &mut MatMut<'_, T>,
) -> Result<(), LookupError> {
    let [rows, width] = table.shape();
    if to.shape() != [numbers.len(), width] {
        return Err(LookupError::Shape {
            found: [numbers.len(), width],
            room: to.shape(),
        });
    }
    let outside = |row: &u32| usize::try_from(*row).map_or(true, |row| row >= rows);
    if let Some(at) = numbers.iter().position(outside) {
        return Err(LookupError::NoSuchRow {
            at,
            row: numbers[at],
            rows,
        });
    }
    if width == 0 {
        return Ok(());
    }
    let [row_stride, column_stride] = table.strides();
    for (at, row) in numbers.iter().enumerate() {
        let from = *row as usize * row_stride;
        let range = to.row(at);
        let to = &mut to.elements_mut()[range];
        if column_stride == 1 {
            to.copy_from_slice(&table.elements()[from..from + width]);
        } else {
            for (column, to) in to.iter_mut().enumerate() {
                *to = table.elements()[from + column * column_stride];
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use alloc::string::ToString;

    use super::*;

    #[test]
    fn rows_by_their_numbers() {
        let table = [1, 2, 3, 4, 5, 6];
        let mut out = [0; 7];
        let plain = MatRef::row_major(&table, 3, 2).unwrap();
        let mut to = MatMut::new(&mut out, [3, 2], 2).unwrap();
        embedding(plain, &[2, 0, 2], &mut to).unwrap();
        assert_eq!(out, [5, 6, 1, 2, 5, 6, 0]);
        let transposed = MatRef::row_major(&table, 2, 3).unwrap().transposed();
        let mut to = MatMut::row_major(&mut out, 2, 2).unwrap();
        embedding(transposed, &[1, 2], &mut to).unwrap();
        assert_eq!(out[..4], [2, 5, 3, 6]);
        let mut to = MatMut::row_major(&mut out, 2, 2).unwrap();
        let error = embedding(plain, &[0, 3], &mut to).unwrap_err();
        assert_eq!(
            error.to_string(),
            "number 1 asks for row 3 of a table of 3 rows"
        );
        embedding(plain, &[0, u32::MAX], &mut to).unwrap_err();
        let error = embedding(plain, &[0], &mut to).unwrap_err();
        assert!(matches!(error, LookupError::Shape { .. }), "{error}");
        let empty = MatRef::<i32>::new(&[], [3, 0], [2, 1]).unwrap();
        let mut to = MatMut::<i32>::new(&mut [], [2, 0], 2).unwrap();
        embedding(empty, &[0, 2], &mut to).unwrap();
        embedding(plain, &[], &mut MatMut::row_major(&mut [], 0, 2).unwrap()).unwrap();
    }
}
