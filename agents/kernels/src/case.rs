//! What is computed, by whomever: a kernel at one shape, and its operands.
//!
//! The agent and the benchmark that measures it have this file in common: so both have the same numbers at the same places of a page.

use std::fmt;
use std::str::FromStr;

use mielin_tensor::{Binary, MatMut, MatRef, Unary, matmul, softmax};

/// Operands begin where a page does: elements of one.
const PAGE: usize = 4096 / size_of::<f32>();

/// A computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// The product of matrices.
    Matmul,
    /// Softmax of each row, in place.
    Softmax,
    /// The hyperbolic tangent of each element, in place.
    Tanh,
    /// The sum of two matrices, in place.
    Add,
}

impl Kernel {
    const ALL: [(Kernel, &str); 4] = [
        (Self::Matmul, "matmul"),
        (Self::Softmax, "softmax"),
        (Self::Tanh, "tanh"),
        (Self::Add, "add"),
    ];
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(kernel, _)| kernel == self);
        f.write_str(name.map_or("", |(_, name)| name))
    }
}

impl FromStr for Kernel {
    type Err = String;

    fn from_str(text: &str) -> Result<Kernel, String> {
        let kernel = Self::ALL.iter().find(|(_, name)| *name == text);
        kernel
            .map(|(kernel, _)| *kernel)
            .ok_or_else(|| format!("there is no kernel `{text}`"))
    }
}

/// Who computes.
pub(crate) trait Kernels {
    fn matmul(&mut self, shape: [usize; 3], factors: [&[f32]; 2], product: &mut [f32]);
    fn softmax(&mut self, shape: [usize; 2], elements: &mut [f32]);
    fn tanh(&mut self, shape: [usize; 2], elements: &mut [f32]);
    fn add(&mut self, shape: [usize; 2], elements: &mut [f32], others: &[f32]);
}

/// The kernels that this program was compiled with.
pub(crate) struct Own;

/// Why no call of those can fail.
const FITS: &str = "the shapes fit together";

impl Kernels for Own {
    fn matmul(
        &mut self,
        [rows, columns, depth]: [usize; 3],
        [a, b]: [&[f32]; 2],
        product: &mut [f32],
    ) {
        let a = MatRef::row_major(a, rows, depth).expect(FITS);
        let b = MatRef::row_major(b, depth, columns).expect(FITS);
        let mut c = MatMut::row_major(product, rows, columns).expect(FITS);
        matmul(a, b, &mut c).expect(FITS);
    }

    fn softmax(&mut self, [_, columns]: [usize; 2], elements: &mut [f32]) {
        softmax(elements, columns).expect(FITS);
    }

    fn tanh(&mut self, _: [usize; 2], elements: &mut [f32]) {
        Unary::Tanh.apply_in_place(elements);
    }

    fn add(&mut self, _: [usize; 2], elements: &mut [f32], others: &[f32]) {
        Binary::Add.apply_in_place(elements, others).expect(FITS);
    }
}

/// A kernel at one shape, with its operands one after the other.
pub(crate) struct Case {
    kernel: Kernel,
    /// Rows, columns and depth, which only a product has.
    shape: [usize; 3],
    memory: Vec<f32>,
    /// Where the operands begin.
    start: usize,
}

impl Case {
    /// With operands between -1 and 1 that look random.
    pub(crate) fn new(kernel: Kernel, shape: [usize; 3]) -> Case {
        let elements: usize = lengths(kernel, shape).iter().sum();
        let mut memory = vec![0.0; elements + PAGE];
        let start = memory.as_ptr().align_offset(PAGE * size_of::<f32>());
        let mut seed: u32 = 1;
        for element in &mut memory[start..start + elements] {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *element = (seed >> 8) as f32 / (1 << 23) as f32 - 1.0;
        }
        Case {
            kernel,
            shape,
            memory,
            start,
        }
    }

    /// Computes it once.
    pub(crate) fn run(&mut self, kernels: &mut impl Kernels) {
        let [first, second, third] = lengths(self.kernel, self.shape);
        let operands = &mut self.memory[self.start..];
        let (a, rest) = operands.split_at_mut(first);
        let (b, rest) = rest.split_at_mut(second);
        let [rows, columns, _] = self.shape;
        let shape = [rows, columns];
        match self.kernel {
            Kernel::Matmul => kernels.matmul(self.shape, [a, b], &mut rest[..third]),
            Kernel::Softmax => kernels.softmax(shape, a),
            Kernel::Tanh => kernels.tanh(shape, a),
            Kernel::Add => kernels.add(shape, a, b),
        }
    }

    /// FNV-1a over the bits of all operands and results.
    pub(crate) fn digest(&self) -> u64 {
        let elements: usize = lengths(self.kernel, self.shape).iter().sum();
        let all = &self.memory[self.start..self.start + elements];
        all.iter()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, element| {
                (hash ^ u64::from(element.to_bits())).wrapping_mul(0x0100_0000_01b3)
            })
    }
}

/// Elements of each operand.
fn lengths(kernel: Kernel, [rows, columns, depth]: [usize; 3]) -> [usize; 3] {
    match kernel {
        Kernel::Matmul => [rows * depth, depth * columns, rows * columns],
        Kernel::Softmax | Kernel::Tanh => [rows * columns, 0, 0],
        Kernel::Add => [rows * columns, rows * columns, 0],
    }
}

/// What the agent is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// Whether the node's kernels compute, or the agent's own.
    pub(crate) by_node: bool,
    pub(crate) kernel: Kernel,
    pub(crate) shape: [usize; 3],
    /// How often; 0 is once, on operands as they were in the beginning, with an answer: the digest.
    pub(crate) calls: u32,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = if self.by_node { "node" } else { "own" };
        let [rows, columns, depth] = self.shape;
        let (kernel, calls) = (self.kernel, self.calls);
        write!(f, "{who} {kernel} {rows} {columns} {depth} {calls}")
    }
}

impl FromStr for Order {
    type Err = String;

    fn from_str(text: &str) -> Result<Order, String> {
        let words: Vec<&str> = text.split(' ').collect();
        let &[who, kernel, rows, columns, depth, calls] = words.as_slice() else {
            return Err(format!("`{text}` is no order"));
        };
        let number = |text: &str| {
            text.parse::<u32>()
                .map_err(|error| format!("{text}: {error}"))
        };
        Ok(Order {
            by_node: who == "node",
            kernel: kernel.parse()?,
            shape: [
                number(rows)? as usize,
                number(columns)? as usize,
                number(depth)? as usize,
            ],
            calls: number(calls)?,
        })
    }
}
