//! A few results of `mielin-tensor`, as one number: by the scalar backend they have the same bits on every machine.

use mielin_tensor::{
    Fused, MatMut, MatRef, Unary, layer_norm, matmul, matmul_i8, matmul_with, softmax, sum,
};

/// What the scalar backend gives.
pub(crate) const SCALAR: u64 = 0xc544_d3ef_946a_9e6b;

const ROWS: usize = 13;
const DEPTH: usize = 21;
const COLUMNS: usize = 18;

/// FNV-1a over the bits of what a few kernels make of a few numbers.
pub(crate) fn digest() -> u64 {
    let (a, b) = (
        numbers::<{ ROWS * DEPTH }>(1),
        numbers::<{ DEPTH * COLUMNS }>(2),
    );
    let bias = numbers::<COLUMNS>(3);
    let mut out = [0.0; ROWS * COLUMNS];
    let left = MatRef::row_major(&a, ROWS, DEPTH).expect("it has the elements");
    let right = MatRef::row_major(&b, DEPTH, COLUMNS).expect("it has the elements");
    let mut c = MatMut::row_major(&mut out, ROWS, COLUMNS).expect("it has the elements");
    matmul(left, right, &mut c).expect("they fit together");
    let fused = Fused {
        accumulate: true,
        bias: Some(&bias),
        function: Some(Unary::Gelu),
    };
    matmul_with(&mielin_tensor::Alone, left, right, fused, &mut c).expect("they fit together");
    let mut hash = Hash(0xcbf2_9ce4_8422_2325);
    hash.add(&out);
    for function in Unary::ALL {
        let mut some = a;
        function.apply_in_place(&mut some);
        hash.add(&some);
    }
    layer_norm(&mut out, &bias, &bias, 1e-5).expect("they fit together");
    hash.add(&out);
    softmax(&mut out, COLUMNS).expect("they fit together");
    hash.add(&out);
    hash.add(&[sum(&out)]);

    let bytes = a.map(|x| (x * 127.0) as i8);
    let left = MatRef::row_major(&bytes, ROWS, DEPTH).expect("it has the elements");
    let mut out = [0; ROWS * ROWS];
    let mut c = MatMut::row_major(&mut out, ROWS, ROWS).expect("it has the elements");
    matmul_i8(left, left.transposed(), &mut c).expect("they fit together");
    out.iter().for_each(|sum| hash.word(sum.cast_unsigned()));
    hash.0
}

/// Numbers between -1 and 1 that look random.
fn numbers<const N: usize>(mut seed: u32) -> [f32; N] {
    core::array::from_fn(|_| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as f32 / (1 << 23) as f32 - 1.0
    })
}

struct Hash(u64);

impl Hash {
    fn word(&mut self, word: u32) {
        for byte in word.to_le_bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn add(&mut self, floats: &[f32]) {
        floats.iter().for_each(|float| self.word(float.to_bits()));
    }
}
