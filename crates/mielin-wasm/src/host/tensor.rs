//! The tensor functions of the import module `mielin`: kernels of `mielin-tensor`, in place on a program's memory.
//!
//! All of them work on matrices that the program describes by [`Matrix`]. A call is done some rows at a time; when the program is
//! to stop, between them, it is suspended with the number of rows that are done, and goes on after those.

use alloc::vec::Vec;
use core::ops::Range;

use bytemuck::Pod;
use mielin_tensor::{
    Alone, Attention, Backend, Binary, Fused, Mask, MatMut, MatRef, Unary, argmax, attention,
    embedding, layer_norm, matmul_i8, matmul_with, max, mean, rms_norm, softmax, sum,
};

use super::Call;
use super::errno::Errno;
use crate::Capability;
use crate::state::Pending;

/// Layout of a matrix in a program's memory: six numbers of 32 bits.
const MATRIX_BYTES: u32 = 24;
/// Products of two elements that are computed at a time, some tens of milliseconds at most: a program that is to stop waits for them.
/// With fewer the right factor of a large product would be brought into order more often.
fn products_at_a_time() -> usize {
    match Backend::active() {
        Backend::Avx512 | Backend::Avx2 => 1 << 30,
        Backend::Neon | Backend::Sse41 => 1 << 28,
        _ => 1 << 26,
    }
}

/// Elements that are worked on at a time otherwise.
const ELEMENTS: usize = 1 << 20;
/// Where as many queries are worked on at a time, their number is a multiple of it.
const QUERIES: usize = 64;

/// The type of elements, by its number.
trait Element: Pod {
    const NUMBER: u32;
}

impl Element for f32 {
    const NUMBER: u32 = 0;
}
impl Element for i8 {
    const NUMBER: u32 = 1;
}
impl Element for i32 {
    const NUMBER: u32 = 2;
}

/// A matrix that a program describes; what it says was found to be inside of its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Matrix {
    /// Its bytes in the memory, from the first element to the last one.
    bytes: Range<usize>,
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl Matrix {
    /// Reads and checks the description at `pointer`.
    fn read<T: Element>(call: &Call<'_>, pointer: u32) -> Result<Matrix, Errno> {
        let words = call.memory.array::<{ MATRIX_BYTES as usize }>(pointer)?;
        let word = |index: usize| {
            let bytes = [0, 1, 2, 3].map(|byte| words[4 * index + byte]);
            u32::from_le_bytes(bytes)
        };
        let [at, number, rows, columns, row_stride, column_stride] = [0, 1, 2, 3, 4, 5].map(word);
        let size = size_of::<T>() as u64;
        if number != T::NUMBER || u64::from(at) % size != 0 {
            return Err(Errno::Inval);
        }
        let memory = call.memory.len() as u64;
        let [rows, columns] = [rows, columns].map(u64::from);
        // Elements may be there again and again: what is computed is bounded by the memory all the same.
        if rows.max(columns).max(rows * columns) > memory / size {
            return Err(Errno::Msgsize);
        }
        let last = |count: u64, stride: u32| count.saturating_sub(1) * u64::from(stride);
        let elements = match rows * columns {
            0 => 0,
            // Each is less than 2⁶².
            _ => last(rows, row_stride) + last(columns, column_stride) + 1,
        };
        let start = u64::from(at);
        let end = start + elements * size;
        if end > memory {
            return Err(Errno::Fault);
        }
        Ok(Matrix {
            bytes: start as usize..end as usize,
            rows: rows as usize,
            columns: columns as usize,
            row_stride: row_stride as usize,
            column_stride: column_stride as usize,
        })
    }

    /// One whose rows are contiguous, and do not overlap if it is to be written.
    fn read_rows<T: Element>(
        call: &Call<'_>,
        pointer: u32,
        written: bool,
    ) -> Result<Matrix, Errno> {
        let matrix = Self::read::<T>(call, pointer)?;
        let contiguous = matrix.column_stride == 1 || matrix.columns <= 1;
        let overlaps = written && matrix.rows > 1 && matrix.row_stride < matrix.columns;
        match contiguous && !overlaps {
            true => Ok(matrix),
            false => Err(Errno::Inval),
        }
    }

    fn shape(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    fn strides(&self) -> [usize; 2] {
        [self.row_stride, self.column_stride]
    }

    fn of<'a, T: Element>(&self, elements: &'a [T]) -> Result<MatRef<'a, T>, Errno> {
        MatRef::new(elements, self.shape(), self.strides()).map_err(|_| Errno::Inval)
    }

    /// Where a row begins and ends, in elements.
    fn row(&self, row: usize) -> Range<usize> {
        self.span(&(row..row + 1))
    }

    /// Where the first of some rows begins and the last one ends, in elements.
    fn span(&self, rows: &Range<usize>) -> Range<usize> {
        match self.columns {
            // Rows without elements may begin behind the last one.
            0 => 0..0,
            columns => rows.start * self.row_stride..(rows.end - 1) * self.row_stride + columns,
        }
    }
}

/// Some rows in pieces that lie without a gap in each of the matrices: all of them, or row by row.
fn pieces<const N: usize>(
    matrices: [&Matrix; N],
    rows: Range<usize>,
) -> impl Iterator<Item = Range<usize>> {
    let without_gaps = |matrix: &&Matrix| matrix.row_stride == matrix.columns;
    let count = match matrices.iter().all(without_gaps) {
        true => rows.len().max(1),
        false => 1,
    };
    let end = rows.end;
    rows.step_by(count)
        .map(move |row| row..end.min(row + count))
}

/// Elements of a matrix to be written, and of others that do not overlap it.
fn split<'a, T: Element, const N: usize>(
    call: &'a mut Call<'_>,
    to: &Matrix,
    from: [&Range<usize>; N],
) -> Result<(&'a mut [T], [&'a [u8]; N]), Errno> {
    let (head, rest) = call.memory.all_mut().split_at_mut(to.bytes.start);
    let (middle, tail) = rest.split_at_mut(to.bytes.len());
    let mut others: [&[u8]; N] = [&[]; N];
    for (other, range) in others.iter_mut().zip(from) {
        *other = if range.is_empty() {
            &[]
        } else if range.end <= to.bytes.start {
            &head[range.clone()]
        } else if range.start >= to.bytes.end {
            &tail[range.start - to.bytes.end..range.end - to.bytes.end]
        } else {
            return Err(Errno::Inval);
        };
    }
    Ok((elements_mut(middle)?, others))
}

/// Bytes as elements. Pointers of the program are aligned, and so is the memory of every engine.
fn elements<T: Element>(bytes: &[u8]) -> Result<&[T], Errno> {
    match bytes {
        // Which may be anywhere.
        [] => Ok(&[]),
        bytes => bytemuck::try_cast_slice(bytes).map_err(|_| Errno::Io),
    }
}

fn elements_mut<T: Element>(bytes: &mut [u8]) -> Result<&mut [T], Errno> {
    match bytes {
        [] => Ok(&mut []),
        bytes => bytemuck::try_cast_slice_mut(bytes).map_err(|_| Errno::Io),
    }
}

/// Does some rows at a time, those after the ones that were done before the program was suspended.
fn by_rows(
    call: &mut Call<'_>,
    rows: usize,
    at_a_time: usize,
    mut work: impl FnMut(&mut Call<'_>, Range<usize>) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let done = match call.state.pending.take() {
        Some(Pending::Tensor { rows }) => usize::try_from(rows).unwrap_or(usize::MAX),
        _ => 0,
    };
    let mut row = done;
    while row < rows {
        let end = rows.min(row.saturating_add(at_a_time.max(1)));
        work(call, row..end)?;
        row = end;
        if row < rows && call.is_interrupted() {
            call.yield_with(Pending::Tensor { rows: row as u64 });
            return Ok(());
        }
    }
    Ok(())
}

/// How many rows of so many elements are worked on at a time.
fn rows_at_a_time(columns: usize) -> usize {
    ELEMENTS / columns.max(1)
}

/// A function by its number; 0 is none.
fn function(number: u32) -> Result<Option<Unary>, Errno> {
    match number {
        0 => Ok(None),
        1 => Ok(Some(Unary::Exp)),
        2 => Ok(Some(Unary::Tanh)),
        3 => Ok(Some(Unary::Sigmoid)),
        4 => Ok(Some(Unary::Silu)),
        5 => Ok(Some(Unary::Gelu)),
        6 => Ok(Some(Unary::GeluTanh)),
        7 => Ok(Some(Unary::Relu)),
        _ => Err(Errno::Inval),
    }
}

pub(crate) fn matmul(
    call: &mut Call<'_>,
    [a, b, c]: [u32; 3],
    bias: u32,
    number: u32,
    accumulate: u32,
) -> Result<(), Errno> {
    call.require(Capability::Tensor, "mielin.tensor_matmul")?;
    let function = function(number)?;
    let accumulate = match accumulate {
        0 => false,
        1 => true,
        _ => return Err(Errno::Inval),
    };
    let (a, b) = (Matrix::read::<f32>(call, a)?, Matrix::read::<f32>(call, b)?);
    let c = Matrix::read_rows::<f32>(call, c, true)?;
    expect_product(&a, &b, &c)?;
    let bias = match bias {
        0 => None,
        bias => {
            let bias = Matrix::read_rows::<f32>(call, bias, false)?;
            (bias.shape() == [1, c.columns])
                .then_some(Some(bias))
                .ok_or(Errno::Inval)?
        }
    };
    let bias_bytes = bias.map_or(0..0, |bias| bias.bytes);
    let has_bias = !bias_bytes.is_empty();
    let at_a_time = products_at_a_time() / (a.columns * c.columns).max(1);
    by_rows(call, c.rows, at_a_time, |call, rows| {
        let (to, [left, right, bias]) =
            split::<f32, 3>(call, &c, [&a.bytes, &b.bytes, &bias_bytes])?;
        let fused = Fused {
            accumulate,
            bias: has_bias.then_some(elements(bias)?),
            function,
        };
        let left = a
            .of(elements(left)?)?
            .rows(rows.clone())
            .ok_or(Errno::Inval)?;
        let right = b.of(elements(right)?)?;
        let mut to = rows_mut(to, &c, rows)?;
        matmul_with(&Alone, left, right, fused, &mut to).map_err(|_| Errno::Inval)
    })
}

pub(crate) fn matmul_bytes(call: &mut Call<'_>, [a, b, c]: [u32; 3]) -> Result<(), Errno> {
    call.require(Capability::Tensor, "mielin.tensor_matmul_i8")?;
    let (a, b) = (Matrix::read::<i8>(call, a)?, Matrix::read::<i8>(call, b)?);
    let c = Matrix::read_rows::<i32>(call, c, true)?;
    expect_product(&a, &b, &c)?;
    let at_a_time = products_at_a_time() / (a.columns * c.columns).max(1);
    by_rows(call, c.rows, at_a_time, |call, rows| {
        let (to, [left, right]) = split::<i32, 2>(call, &c, [&a.bytes, &b.bytes])?;
        let left = a
            .of(elements(left)?)?
            .rows(rows.clone())
            .ok_or(Errno::Inval)?;
        let right = b.of(elements(right)?)?;
        matmul_i8(left, right, &mut rows_mut(to, &c, rows)?).map_err(|_| Errno::Inval)
    })
}

fn expect_product(a: &Matrix, b: &Matrix, c: &Matrix) -> Result<(), Errno> {
    match a.columns == b.rows && c.shape() == [a.rows, b.columns] {
        true => Ok(()),
        false => Err(Errno::Inval),
    }
}

/// Some rows of a matrix that has these elements.
fn rows_mut<'a, T: Element>(
    elements: &'a mut [T],
    matrix: &Matrix,
    rows: Range<usize>,
) -> Result<MatMut<'a, T>, Errno> {
    let from = elements.get_mut(rows.start * matrix.row_stride..);
    let shape = [rows.len(), matrix.columns];
    MatMut::new(from.unwrap_or_default(), shape, matrix.row_stride).map_err(|_| Errno::Inval)
}

pub(crate) fn map(call: &mut Call<'_>, number: u32, from: u32, to: u32) -> Result<(), Errno> {
    call.require(Capability::Tensor, "mielin.tensor_map")?;
    let function = function(number)?.ok_or(Errno::Inval)?;
    let from = Matrix::read_rows::<f32>(call, from, false)?;
    let to = Matrix::read_rows::<f32>(call, to, true)?;
    if from.shape() != to.shape() {
        return Err(Errno::Inval);
    }
    by_rows(call, to.rows, rows_at_a_time(to.columns), |call, rows| {
        if from == to {
            let elements = elements_mut::<f32>(&mut call.memory.all_mut()[to.bytes.clone()])?;
            for rows in pieces([&to], rows) {
                function.apply_in_place(&mut elements[to.span(&rows)]);
            }
            return Ok(());
        }
        let (out, [input]) = split::<f32, 1>(call, &to, [&from.bytes])?;
        let input = elements::<f32>(input)?;
        for rows in pieces([&from, &to], rows) {
            let applied = function.apply(&input[from.span(&rows)], &mut out[to.span(&rows)]);
            applied.map_err(|_| Errno::Inval)?;
        }
        Ok(())
    })
}

pub(crate) fn zip(call: &mut Call<'_>, operation: u32, [a, b, to]: [u32; 3]) -> Result<(), Errno> {
    call.require(Capability::Tensor, "mielin.tensor_zip")?;
    let operation = match operation {
        0 => Binary::Add,
        1 => Binary::Sub,
        2 => Binary::Mul,
        3 => Binary::Div,
        4 => Binary::Max,
        5 => Binary::Min,
        _ => return Err(Errno::Inval),
    };
    let a = Matrix::read_rows::<f32>(call, a, false)?;
    let b = Matrix::read_rows::<f32>(call, b, false)?;
    let to = Matrix::read_rows::<f32>(call, to, true)?;
    if a.shape() != to.shape() || b.shape() != to.shape() {
        return Err(Errno::Inval);
    }
    by_rows(call, to.rows, rows_at_a_time(to.columns), |call, rows| {
        if a == to {
            let (out, [right]) = split::<f32, 1>(call, &to, [&b.bytes])?;
            let right = elements::<f32>(right)?;
            for rows in pieces([&to, &b], rows) {
                let right = &right[b.span(&rows)];
                let applied = operation.apply_in_place(&mut out[to.span(&rows)], right);
                applied.map_err(|_| Errno::Inval)?;
            }
            return Ok(());
        }
        let (out, [left, right]) = split::<f32, 2>(call, &to, [&a.bytes, &b.bytes])?;
        let (left, right) = (elements::<f32>(left)?, elements::<f32>(right)?);
        for rows in pieces([&a, &b, &to], rows) {
            let (left, right) = (&left[a.span(&rows)], &right[b.span(&rows)]);
            let applied = operation.apply(left, right, &mut out[to.span(&rows)]);
            applied.map_err(|_| Errno::Inval)?;
        }
        Ok(())
    })
}

/// What a row is reduced to.
type Reduction = fn(&[f32]) -> Option<f32>;
/// By their numbers.
const REDUCTIONS: [Reduction; 3] = [|row| Some(sum(row)), mean, max];
/// Gives indices.
const ARGMAX: u32 = 3;

pub(crate) fn reduce(call: &mut Call<'_>, number: u32, from: u32, to: u32) -> Result<(), Errno> {
    call.require(Capability::Tensor, "mielin.tensor_reduce")?;
    let from = Matrix::read_rows::<f32>(call, from, false)?;
    let reduction = REDUCTIONS.get(number as usize);
    let to = match (reduction, number) {
        (Some(_), _) => Matrix::read_rows::<f32>(call, to, true)?,
        (None, ARGMAX) => Matrix::read_rows::<i32>(call, to, true)?,
        _ => return Err(Errno::Inval),
    };
    if to.shape() != [from.rows, 1] || (from.columns == 0 && number != 0) {
        return Err(Errno::Inval);
    }
    by_rows(call, to.rows, rows_at_a_time(from.columns), |call, rows| {
        if let Some(reduction) = reduction {
            let (out, [input]) = split::<f32, 1>(call, &to, [&from.bytes])?;
            let input = elements::<f32>(input)?;
            for row in rows {
                out[to.row(row).start] = reduction(&input[from.row(row)]).ok_or(Errno::Inval)?;
            }
        } else {
            let (out, [input]) = split::<i32, 1>(call, &to, [&from.bytes])?;
            let input = elements::<f32>(input)?;
            for row in rows {
                let found = argmax(&input[from.row(row)]).ok_or(Errno::Inval)?;
                out[to.row(row).start] = found as i32;
            }
        }
        Ok(())
    })
}

pub(crate) fn softmax_rows(call: &mut Call<'_>, x: u32) -> Result<(), Errno> {
    call.require(Capability::Tensor, "mielin.tensor_softmax")?;
    let x = Matrix::read_rows::<f32>(call, x, true)?;
    by_rows(call, x.rows, rows_at_a_time(x.columns), |call, rows| {
        let elements = elements_mut::<f32>(&mut call.memory.all_mut()[x.bytes.clone()])?;
        for rows in pieces([&x], rows) {
            softmax(&mut elements[x.span(&rows)], x.columns).map_err(|_| Errno::Inval)?;
        }
        Ok(())
    })
}

/// Without an offset it is the norm by the root mean square.
pub(crate) fn norm(
    call: &mut Call<'_>,
    x: u32,
    gain: u32,
    offset: u32,
    epsilon: u32,
) -> Result<(), Errno> {
    call.require(Capability::Tensor, "mielin.tensor_norm")?;
    let epsilon = f32::from_bits(epsilon);
    let x = Matrix::read_rows::<f32>(call, x, true)?;
    let gain = Matrix::read_rows::<f32>(call, gain, false)?;
    let offset = match offset {
        0 => None,
        offset => Some(Matrix::read_rows::<f32>(call, offset, false)?),
    };
    let fits = |vector: &Matrix| vector.shape() == [1, x.columns];
    if !fits(&gain) || !offset.as_ref().is_none_or(fits) {
        return Err(Errno::Inval);
    }
    let offset_bytes = offset.as_ref().map_or(0..0, |offset| offset.bytes.clone());
    by_rows(call, x.rows, rows_at_a_time(x.columns), |call, rows| {
        let (out, [gain, shift]) = split::<f32, 2>(call, &x, [&gain.bytes, &offset_bytes])?;
        let (gain, shift) = (elements::<f32>(gain)?, elements::<f32>(shift)?);
        for rows in pieces([&x], rows) {
            let rows = &mut out[x.span(&rows)];
            let done = match offset {
                Some(_) => layer_norm(rows, gain, shift, epsilon),
                None => rms_norm(rows, gain, epsilon),
            };
            done.map_err(|_| Errno::Inval)?;
        }
        Ok(())
    })
}

/// `options` are the scale, and how many keys a query sees besides its own and those of earlier ones, or -1 for all.
pub(crate) fn attend(
    call: &mut Call<'_>,
    [queries, keys, values, to]: [u32; 4],
    scale: u32,
    past: u32,
) -> Result<(), Errno> {
    call.require(Capability::Tensor, "mielin.tensor_attention")?;
    let q = Matrix::read::<f32>(call, queries)?;
    let k = Matrix::read::<f32>(call, keys)?;
    let v = Matrix::read::<f32>(call, values)?;
    let to = Matrix::read_rows::<f32>(call, to, true)?;
    let fits = k.shape() == [v.rows, q.columns] && to.shape() == [q.rows, v.columns];
    if !fits {
        return Err(Errno::Inval);
    }
    let per_query = (k.rows * (k.columns + v.columns)).max(1);
    let at_a_time = match products_at_a_time() / per_query {
        few @ ..QUERIES => few,
        many => many / QUERIES * QUERIES,
    };
    by_rows(call, to.rows, at_a_time, |call, rows| {
        let (out, [left, keys, values]) =
            split::<f32, 3>(call, &to, [&q.bytes, &k.bytes, &v.bytes])?;
        let mask = match past.cast_signed() {
            past @ 0.. => Mask::Causal {
                past: past as usize + rows.start,
            },
            _ => Mask::None,
        };
        let factors = Attention {
            queries: q
                .of(elements(left)?)?
                .rows(rows.clone())
                .ok_or(Errno::Inval)?,
            keys: k.of(elements(keys)?)?,
            values: v.of(elements(values)?)?,
            scale: f32::from_bits(scale),
            mask,
        };
        attention(&Alone, factors, &mut rows_mut(out, &to, rows)?).map_err(|_| Errno::Inval)
    })
}

/// Rows of a table by their numbers, which are a matrix of one row.
pub(crate) fn look_up(call: &mut Call<'_>, table: u32, numbers: u32, to: u32) -> Result<(), Errno> {
    call.require(Capability::Tensor, "mielin.tensor_embedding")?;
    let table = Matrix::read::<f32>(call, table)?;
    let numbers = Matrix::read_rows::<i32>(call, numbers, false)?;
    let to = Matrix::read_rows::<f32>(call, to, true)?;
    if numbers.rows != 1 || to.shape() != [numbers.columns, table.columns] {
        return Err(Errno::Inval);
    }
    // Before the first row is written.
    let asked: &[i32] = elements(&call.memory.all_mut()[numbers.bytes.clone()])?;
    let is_there = |number: &i32| (number.cast_unsigned() as usize) < table.rows;
    if !asked.iter().all(is_there) {
        return Err(Errno::Inval);
    }
    by_rows(call, to.rows, rows_at_a_time(to.columns), |call, rows| {
        let (out, [from, asked]) = split::<f32, 2>(call, &to, [&table.bytes, &numbers.bytes])?;
        let asked: Vec<u32> = elements::<i32>(asked)?[rows.clone()]
            .iter()
            .map(|number| number.cast_unsigned())
            .collect();
        let table = table.of(elements(from)?)?;
        embedding(table, &asked, &mut rows_mut(out, &to, rows)?).map_err(|_| Errno::Inval)
    })
}
