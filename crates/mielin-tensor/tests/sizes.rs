//! Sizes and strides that no memory has: a row can be the same element again and again, so that a matrix may be of any size.

use mielin_tensor::{
    BlockError, BlockFormat, BlockWeights, MatMut, MatRef, QuantiseError, Quantised, RotaryError,
    RotaryTable, Tensor, matmul, matmul_i8, quantise_q4, quantise_q8,
};

const MANY: usize = usize::MAX / 8;

fn again<T>(element: &[T], shape: [usize; 2]) -> MatRef<'_, T> {
    MatRef::new(element, shape, [0, 0]).expect("one element is enough")
}

#[test]
fn what_no_memory_holds_is_refused() {
    for shape in [[MANY, 1], [MANY, 0], [1, usize::MAX], [MANY, MANY]] {
        let error = Quantised::of(again(&[1.0], shape)).unwrap_err();
        assert_eq!(error, QuantiseError::Memory { shape });
    }
    for quantise in [quantise_q8, quantise_q4] {
        let error = quantise(again(&[1.0], [MANY / 8, 32])).unwrap_err();
        assert!(matches!(error, BlockError::TooLarge { width: 32, .. }));
    }
    for (positions, width) in [(MANY, 2), (2, usize::MAX - 1), (MANY, MANY - 1)] {
        let error = RotaryTable::new(positions, width, 10_000.0).unwrap_err();
        assert_eq!(error, RotaryError::Memory { positions, width });
    }
    assert!(Tensor::<f32>::try_zeros(&[MANY, 2]).is_err());
}

#[test]
#[should_panic(expected = "there is memory")]
fn zeros_that_no_memory_holds_are_a_panic_and_no_abort() {
    drop(Tensor::zeros(&[MANY]));
}

/// There is nothing to do for them, however many rows they have.
#[test]
fn rows_without_elements_take_no_time() {
    let mut nothing = [0; 0];
    let mut c = MatMut::new(&mut nothing, [usize::MAX, 0], 0).unwrap();
    let b = MatRef::new(&[], [1, 0], [0, 1]).unwrap();
    matmul_i8(again(&[1], [usize::MAX, 1]), b, &mut c).unwrap();
    let weights = BlockWeights::new(BlockFormat::Q8, &[], usize::MAX, 0).unwrap();
    let mut nothing = [0.0; 0];
    let mut to = MatMut::new(&mut nothing, [usize::MAX, 0], 0).unwrap();
    weights.dequantise(&mut to).unwrap();
    assert_eq!(RotaryTable::new(usize::MAX, 0, 1.0).unwrap().positions(), 0);
}

/// From a single row nothing is as far as its stride says.
#[test]
fn a_stride_that_leads_nowhere() {
    let (a, b) = ([1.0_f32, 2.0], [3.0; 48]);
    let a = MatRef::new(&a, [2, 1], [1, 1]).unwrap();
    let b = MatRef::new(&b, [1, 48], [usize::MAX, 1]).unwrap();
    let mut product = [0.0; 96];
    let mut c = MatMut::new(&mut product, [2, 48], 48).unwrap();
    matmul(a, b, &mut c).unwrap();
    assert_eq!((product[0], product[95]), (3.0, 6.0));
}
