//! A program for benchmarks: it computes what it is told to, by the kernels of its node or by the same ones compiled into it.
//!
//! Each message is an [`Order`](case::Order). One of no calls is answered with the digest of what came out, eight bytes in
//! little-endian order; an empty message is the end.

mod case;

use std::error::Error;

use mielin_agent::tensor::{self, Function, Fused, Matrix, MatrixMut, Operation};

use crate::case::{Case, Kernels, Order, Own};

/// The kernels of the node.
struct Node;

/// Why no call of those can fail.
const GRANTED: &str = "the node granted its kernels, and the shapes fit together";

impl Kernels for Node {
    fn matmul(
        &mut self,
        [rows, columns, depth]: [usize; 3],
        [a, b]: [&[f32]; 2],
        product: &mut [f32],
    ) {
        let (a, b) = (Matrix::new(a, rows, depth), Matrix::new(b, depth, columns));
        let mut c = MatrixMut::new(product, rows, columns);
        tensor::matmul(a, b, Fused::default(), &mut c).expect(GRANTED);
    }

    fn softmax(&mut self, [rows, columns]: [usize; 2], elements: &mut [f32]) {
        tensor::softmax(&mut MatrixMut::new(elements, rows, columns)).expect(GRANTED);
    }

    fn tanh(&mut self, [rows, columns]: [usize; 2], elements: &mut [f32]) {
        let mut elements = MatrixMut::new(elements, rows, columns);
        tensor::map(Function::Tanh, &mut elements).expect(GRANTED);
    }

    fn add(&mut self, [rows, columns]: [usize; 2], elements: &mut [f32], others: &[f32]) {
        let mut elements = MatrixMut::new(elements, rows, columns);
        let others = Matrix::new(others, rows, columns);
        tensor::zip(Operation::Add, &mut elements, others).expect(GRANTED);
    }
}

/// Does what an order says and gives the digest, if it asks for it. Operands that it does not ask to be new are those of the order before.
fn obey(order: Order, case: &mut Option<Case>) -> Option<u64> {
    let operands = match case {
        Some(operands) if order.calls > 0 => operands,
        _ => case.insert(Case::new(order.kernel, order.shape)),
    };
    for _ in 0..order.calls.max(1) {
        match order.by_node {
            true => operands.run(&mut Node),
            false => operands.run(&mut Own),
        }
    }
    (order.calls == 0).then(|| operands.digest())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut case = None;
    loop {
        let Some(message) = mielin_agent::receive(None)? else {
            continue;
        };
        if message.payload().is_empty() {
            return Ok(());
        }
        let order: Order = std::str::from_utf8(message.payload())?.parse()?;
        if let Some(digest) = obey(order, &mut case) {
            message.reply(&digest.to_le_bytes())?;
        }
    }
}
