use super::*;
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use half::bf16;

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
    assert!(Tensor::<f32>::from_vec(vec![], &[1 << (usize::BITS / 2); 2]).is_err());
}

/// Types have to be named for other elements than `f32` only.
#[test]
fn zeros_are_f32_without_being_told() {
    let tensor = Tensor::zeros(&[2, 3]);
    assert_eq!(format!("{:?}", tensor.shape()), "[2, 3]");
    assert_eq!(format!("{tensor:?}"), "f32[2, 3] [[0. 0. 0.]\n [0. 0. 0.]]");
    assert_eq!(
        Tensor::from_vec(vec![1.0, 2.5], &[2])
            .expect("as many")
            .to_string(),
        "[1.  2.5]"
    );
}

#[test]
fn bf16_is_printed_with_the_digits_it_has() {
    let thirds = Tensor::filled(&[2], bf16::from_f32(1.0 / 3.0)).expect("there is memory");
    assert_eq!(thirds.to_string(), "[0.334 0.334]");
    let large = Tensor::filled(&[1], bf16::from_f32(1e30)).expect("there is memory");
    assert_eq!(large.to_string(), "[1.e+30]");
}

#[test]
fn conversion_rounds_or_saturates() {
    let tensor = Tensor::from_vec(vec![1e9, -1e9, 2.9, -2.9, f32::NAN, f32::INFINITY], &[2, 3]);
    let tensor = tensor.expect("as many");
    let integers = tensor.to::<i8>().expect("there is memory");
    assert_eq!(integers.shape(), [2, 3]);
    assert_eq!(integers.as_slice(), [127, -128, 2, -2, 0, 127]);
    // In the middle between two of bf16, but for a 1 that an f32 has not room for.
    let middle = Tensor::filled(&[], (1 << 30) + (1 << 22) + 1).expect("there is memory");
    let rounded = middle.to::<bf16>().and_then(|it| it.to::<i32>());
    assert_eq!(
        rounded.map(|it| it.into_vec()),
        Ok(vec![(1 << 30) + (1 << 23)])
    );
}

#[test]
fn a_tensor_is_written_through_a_view() {
    let mut tensor = Tensor::zeros(&[2, 3]);
    let row = Tensor::from_vec(vec![1.0, 2.0], &[2]).expect("as many");
    let mut columns = tensor.view_mut().transpose().expect("two axes");
    columns.assign(row.view()).expect("it is repeated");
    assert!(columns.assign(Tensor::zeros(&[3]).view()).is_err());
    assert_eq!(tensor.as_slice(), [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
    let reshaped = tensor
        .view_mut()
        .reshape(&[3, 2])
        .and_then(|it| it.slice(0, 2..3));
    reshaped
        .expect("in one piece")
        .as_mut_slice()
        .expect("in one piece")
        .fill(5.0);
    assert_eq!(tensor.as_slice(), [1.0, 1.0, 1.0, 2.0, 5.0, 5.0]);
    tensor.as_mut_slice()[0] = f32::NAN;
    assert_ne!(tensor, tensor.clone());
}
