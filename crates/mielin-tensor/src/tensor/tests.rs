use super::*;
use alloc::vec;

#[test]
fn index_is_row_major() {
    let mut tensor = Tensor::from_vec(vec![0., 1., 2., 3., 4., 5.], &[2, 3]).expect("fits");
    assert_eq!(tensor.get(&[0, 2]), Some(2.0));
    assert_eq!(tensor.get(&[1, 0]), Some(3.0));
    *tensor.get_mut(&[1, 2]).expect("inside") = 9.0;
    assert_eq!(tensor.as_slice(), [0., 1., 2., 3., 4., 9.]);
}

#[test]
fn an_index_outside_is_none() {
    let tensor = Tensor::zeros(&[2, 3]);
    for index in [
        &[2, 0][..],
        &[0, 3],
        &[0],
        &[0, 0, 0],
        &[],
        &[usize::MAX, usize::MAX],
    ] {
        assert_eq!(tensor.get(index), None, "{index:?}");
    }
}

#[test]
fn scalars_and_empty_tensors() {
    assert_eq!(Tensor::ones(&[]).get(&[]), Some(1.0));
    let empty = Tensor::zeros(&[3, 0]);
    assert!(empty.is_empty());
    assert_eq!(empty.get(&[0, 0]), None);
}

#[test]
fn a_shape_must_fit_its_elements() {
    let error = Tensor::from_vec(vec![1.0; 5], &[2, 3]).expect_err("5 is not 6");
    assert_eq!(
        error,
        ShapeError::ElementCount {
            shape: vec![2, 3],
            given: 5
        }
    );
    // The product wraps to 0 if it is not checked.
    assert!(Tensor::<f32>::from_vec(vec![], &[1 << 32, 1 << 32]).is_err());
}
