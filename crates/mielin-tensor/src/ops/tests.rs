use super::*;
use alloc::vec;
use alloc::vec::Vec;

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
