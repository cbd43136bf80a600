//! Products with weights in blocks of 32, of 8 and of 4 bits, which nobody else here has in this format. The time of a few rows
//! is that of reading the weights.

use std::rc::Rc;

use mielin_tensor::{
    Alone, BlockFormat, BlockWeights, Fused, MatMut, MatRef, Parallel, Rayon, matmul_blocks,
    quantise_q4, quantise_q8,
};

use super::{Bench, Plan};
use crate::case::{Case, Copies, Load, numbers};

/// Of the weights.
const ROWS: usize = 4_096;
const WIDTH: usize = 4_096;
/// What is said where it cannot fail.
const FITS: &str = "it has the elements of its shape, which are small";

pub(super) fn plans() -> Vec<Plan> {
    let mut plans = Vec::new();
    for rows in [1, 8] {
        for (name, format) in [
            ("matmul q8", BlockFormat::Q8),
            ("matmul q4", BlockFormat::Q4),
        ] {
            plans.push(Plan::new(name, operations(rows), move |bench| {
                product(bench, name, format, rows)
            }));
        }
    }
    plans
}

fn operations(rows: usize) -> f64 {
    2.0 * (rows * ROWS * WIDTH) as f64
}

fn product(bench: &Bench, name: &'static str, format: BlockFormat, rows: usize) -> Case {
    let weights = numbers(ROWS * WIDTH);
    let weights = MatRef::row_major(&weights, ROWS, WIDTH).expect(FITS);
    let bytes = match format {
        BlockFormat::Q8 => quantise_q8(weights),
        BlockFormat::Q4 => quantise_q4(weights),
    };
    let bytes = Copies::of(bytes.expect(FITS), bench.beyond_caches);
    let read_bytes = bytes.next().len() as f64;
    let x = Rc::new(numbers(rows * WIDTH));
    let is_alone = bench.threads.get() == 1;
    let ours = move |out: &mut [f32]| {
        let parallel: &dyn Parallel = if is_alone { &Alone } else { &Rayon };
        let x = MatRef::row_major(&x, rows, WIDTH).expect(FITS);
        let weights = BlockWeights::new(format, bytes.next(), ROWS, WIDTH).expect(FITS);
        let mut out = MatMut::row_major(out, rows, ROWS).expect(FITS);
        matmul_blocks(parallel, x, weights, Fused::default(), &mut out).expect(FITS);
    };
    let mut case = Case::new(name, format!("{rows}x{ROWS}x{WIDTH}"), rows * ROWS, ours);
    case.load = Load {
        operations: operations(rows),
        is_fused: true,
        read_bytes,
        written_bytes: 0.0,
    };
    case
}
