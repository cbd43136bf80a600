use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use half::bf16;

use super::*;
use crate::element::ElementType;

fn counting(shape: &[usize]) -> Tensor {
    let count = shape.iter().product::<usize>();
    let elements = (0..count).map(|i| (i * 7 % 11) as f32 - 4.0).collect();
    Tensor::from_vec(elements, shape).expect("fits")
}

#[test]
fn elementwise() {
    let a = Tensor::from_vec(vec![1., 2., 3.], &[3]).expect("fits");
    let b = Tensor::from_vec(vec![10., 20., 30.], &[3]).expect("fits");
    assert_eq!(a.add(&b).expect("same shape").as_slice(), [11., 22., 33.]);
    assert_eq!(a.mul(&b).expect("same shape").as_slice(), [10., 40., 90.]);
    assert_eq!(a.scale(2.0).as_slice(), [2., 4., 6.]);
}

#[test]
fn equal_size_is_not_equal_shape() {
    let (a, b) = (Tensor::ones(&[2, 3]), Tensor::ones(&[3, 2]));
    let error = a.add(&b).expect_err("shapes differ");
    assert_eq!(
        error,
        ShapeError::Mismatch {
            left: vec![2, 3],
            right: vec![3, 2]
        }
    );
}

/// Against the definition, with `get`, over odd and empty shapes.
#[test]
fn matmul_matches_its_definition() {
    for (m, k, n) in [
        (1, 1, 1),
        (2, 3, 4),
        (5, 7, 3),
        (1, 9, 2),
        (0, 3, 2),
        (2, 0, 3),
        (2, 3, 0),
    ] {
        let (a, b) = (counting(&[m, k]), counting(&[k, n]));
        let product = a.matmul(&b).expect("fits");
        assert_eq!(product.shape(), [m, n]);
        let expected: Vec<f32> = (0..m * n)
            .map(|at| {
                let (i, j) = (at / n, at % n);
                (0..k)
                    .map(|p| a.get(&[i, p]).expect("inside") * b.get(&[p, j]).expect("inside"))
                    .sum()
            })
            .collect();
        assert_eq!(product.as_slice(), expected, "{m} {k} {n}");
    }
}

#[test]
fn matmul_refuses_what_does_not_fit() {
    for (a, b) in [
        (&[2, 3][..], &[2, 3][..]),
        (&[3], &[3, 1]),
        (&[2, 2, 2], &[3, 2]),
        (&[2, 2, 2], &[3, 2, 2]),
    ] {
        assert!(
            Tensor::ones(a).matmul(&Tensor::ones(b)).is_err(),
            "{a:?} {b:?}"
        );
    }
}

#[test]
fn a_zero_does_not_hide_nan() {
    let a = Tensor::zeros(&[1, 1]);
    let b = Tensor::from_vec(vec![f32::NAN], &[1, 1]).expect("fits");
    assert!(a.matmul(&b).expect("fits").as_slice()[0].is_nan());
}

#[test]
fn sum_keeps_small_terms() {
    let mut elements = vec![1.0; 1000];
    elements[0] = 16_777_216.0;
    // In f32 each single 1 added to 2²⁴ would vanish.
    assert_eq!(
        Tensor::from_vec(elements, &[10, 100]).expect("fits").sum(),
        16_778_215.0
    );
    assert_eq!(Tensor::zeros(&[0]).sum(), 0.0);
}

#[test]
fn views_are_multiplied_where_they_are() {
    let a = counting(&[4, 3, 2]);
    let b = counting(&[5, 3]);
    let backwards = a.view().permute(&[2, 0, 1]).and_then(|a| a.flip(2));
    let (a, b) = (
        backwards.expect("three axes"),
        b.view().transpose().expect("two axes"),
    );
    let product = a.matmul(&b).expect("it fits");
    let copies = (a.to_tensor(), b.to_tensor());
    let copied = copies.0.and_then(|a| a.matmul(&copies.1?));
    assert_eq!(product.shape(), [2, 4, 5]);
    assert_eq!(Ok(&product), copied.as_ref());
    let sums = (0..3).map(|p| a.get(&[1, 2, p]).expect("inside") * b.get(&[p, 4]).expect("inside"));
    assert_eq!(product.get(&[1, 2, 4]), Some(sums.sum()));
}

/// Rows of every kind, long enough to be looked at, against the elements one by one.
#[test]
fn long_rows_are_added_element_by_element() {
    let square = counting(&[20, 20]);
    let (row, column, one) = (counting(&[20]), counting(&[20, 1]), counting(&[1]));
    let square = square.view();
    let turned = square.transpose().expect("two axes");
    let backwards = square.flip(1).expect("two axes");
    let column = column.view();
    for a in [square, turned, backwards, column, row.view(), one.view()] {
        for b in [square, turned, backwards, column, row.view(), one.view()] {
            let difference = a.sub(&b).expect("they fit");
            let shape = difference.shape();
            let repeated = [a, b].map(|it| it.broadcast_to(shape).expect("it fits"));
            let pairs = repeated[0].iter().zip(repeated[1]);
            assert!(difference.view().iter().eq(pairs.map(|(a, b)| a - b)));
        }
    }
}

/// More elements than there is memory for are an error where a tensor would be made of them.
#[test]
fn a_view_can_have_more_elements_than_memory() {
    let one = Tensor::ones(&[1]);
    let lengths = [1 << (usize::BITS / 2 - 2); 2];
    let huge = one
        .view()
        .broadcast_to(&lengths)
        .expect("it can be counted");
    let error = ShapeError::Memory {
        elements: 1 << (usize::BITS - 4),
        element_type: ElementType::F32,
    };
    assert_eq!(huge.to_tensor().err(), Some(error.clone()));
    assert_eq!(huge.add(&one).err(), Some(error.clone()));
    assert_eq!(Tensor::<f32>::try_zeros(&lengths).err(), Some(error));
    let products = huge.matmul(&huge.transpose().expect("two axes")).err();
    assert!(
        matches!(products, Some(ShapeError::Memory { .. })),
        "{products:?}"
    );
    let overflow = one.view().broadcast_to(&[1 << 30, 1 << 30, 1 << 30]).err();
    assert!(
        matches!(overflow, Some(ShapeError::Overflow { .. })),
        "{overflow:?}"
    );
    let text = "[[1. 1. 1. ... 1. 1. 1.]\n";
    assert!(huge.to_string().starts_with(text));
}

#[test]
fn an_axis_of_a_result_can_be_one_too_many() {
    let (a, b) = (Tensor::ones(&[1; 8]), Tensor::ones(&[1, 1]));
    assert_eq!(a.matmul(&b).map(|product| product.rank()), Ok(8));
    let axis = a.sum_along(8, Reduced::Kept).err();
    assert_eq!(axis, Some(ShapeError::Axis { axis: 8, rank: 8 }));
}

#[test]
fn short_floats_are_rounded_once() {
    let bf16s = |values: &[f32]| {
        let elements = values.iter().map(|it| bf16::from_f32(*it)).collect();
        Tensor::from_vec(elements, &[values.len()]).expect("as many")
    };
    // Between 256 and 512, these have every second integer.
    let (a, b) = (bf16s(&[256.0, 256.0, 256.0]), bf16s(&[1.0, 3.0, 5.0]));
    assert_eq!(a.add(&b), Ok(bf16s(&[256.0, 260.0, 260.0])));
    // One after the other, ones would never get beyond 256.
    let ones = Tensor::filled(&[300], bf16::ONE).expect("there is memory");
    assert_eq!(ones.sum(), bf16::from_f32(300.0));
    assert_eq!(ones.scale(bf16::from_f32(3.0)).mean(), bf16::from_f32(3.0));
}

#[test]
fn integers_wrap_and_are_divided_downwards() {
    let a = Tensor::from_vec(vec![127_i8, -128, -128, 7, -7, 7], &[6]).expect("as many");
    let b = Tensor::from_vec(vec![1_i8, 1, -1, 0, 2, -2], &[6]).expect("as many");
    let results = [a.add(&b), a.sub(&b), a.div(&b)].map(|it| it.expect("same shape").into_vec());
    assert_eq!(results[0], [-128, -127, 127, 7, -5, 5]);
    assert_eq!(results[1], [126, 127, -127, 7, -9, 9]);
    assert_eq!(results[2], [127, -128, -128, 0, -4, -4]);
    assert_eq!(Tensor::filled(&[2], i32::MAX).map(|it| it.sum()), Ok(-2));
    assert_eq!(
        Tensor::filled(&[300], 127_i8).map(|it| it.sum()),
        Ok(38_100)
    );
    assert_eq!(
        Tensor::filled(&[2], i32::MAX).map(|it| it.mean()),
        Ok(2_147_483_648.0)
    );
}

#[test]
fn of_equal_elements_the_first_is_taken() {
    let zeros = Tensor::from_vec(vec![-0.0, 0.0], &[2]).expect("as many");
    let flipped = zeros.view().flip(0).expect("an axis");
    let signs = |tensor: Tensor| {
        tensor
            .into_vec()
            .into_iter()
            .map(f32::is_sign_negative)
            .collect()
    };
    let signs: [Vec<bool>; 2] =
        [zeros.maximum(&flipped), zeros.minimum(&flipped)].map(|it| signs(it.expect("same shape")));
    assert_eq!(signs, [[true, false], [true, false]]);
    assert_eq!(zeros.argmax(), Some(0));
    let nans = Tensor::from_vec(vec![1.0, f32::NAN, f32::INFINITY, f32::NAN], &[4]);
    assert_eq!(nans.map(|it| it.argmax()), Ok(Some(1)));
    assert_eq!(Tensor::zeros(&[0]).argmax(), None);
    assert!(Tensor::zeros(&[0]).mean().is_nan());
}
