use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

use super::*;
use crate::view_mut::TensorViewMut;

/// Every index of a shape, in row-major order.
fn indices(shape: &[usize]) -> Vec<Vec<usize>> {
    shape.iter().fold(vec![Vec::new()], |indices, length| {
        let longer = |index: Vec<usize>| {
            (0..*length).map(move |last| index.iter().copied().chain([last]).collect())
        };
        indices.into_iter().flat_map(longer).collect()
    })
}

/// What a view should be: its elements one by one, found by translating each index into one of the view before.
#[derive(Clone, Debug)]
struct Model {
    shape: Vec<usize>,
    elements: Vec<i32>,
}

impl Model {
    fn counting(shape: &[usize]) -> Self {
        let count = shape.iter().product::<usize>() as i32;
        Self {
            shape: shape.to_vec(),
            elements: (0..count).collect(),
        }
    }

    fn at(&self, index: &[usize]) -> i32 {
        let all = indices(&self.shape);
        let place = all.iter().position(|it| it == index).expect("it is inside");
        self.elements[place]
    }

    fn translated(&self, shape: Vec<usize>, old: impl Fn(&[usize]) -> Vec<usize>) -> Self {
        let elements = indices(&shape).into_iter().map(|new| self.at(&old(&new)));
        let elements = elements.collect();
        Self { shape, elements }
    }

    /// `None` if the step must be refused.
    fn changed(&self, step: &Step) -> Option<Self> {
        let rank = self.shape.len();
        match *step {
            Step::Permute(ref axes) => {
                let mut sorted = axes.clone();
                sorted.sort_unstable();
                let is_permutation = sorted.into_iter().eq(0..rank);
                is_permutation.then(|| {
                    let shape = axes.iter().map(|axis| self.shape[*axis]).collect();
                    self.translated(shape, |new| {
                        let mut old = vec![0; rank];
                        for (axis, index) in axes.iter().zip(new) {
                            old[*axis] = *index;
                        }
                        old
                    })
                })
            }
            Step::Transpose if rank < 2 => None,
            Step::Transpose => {
                let mut axes: Vec<usize> = (0..rank).collect();
                axes.swap(rank - 1, rank - 2);
                self.changed(&Step::Permute(axes))
            }
            Step::Slice(axis, start, end) => {
                let length = *self.shape.get(axis)?;
                (start <= end && end <= length).then(|| {
                    let mut shape = self.shape.clone();
                    shape[axis] = end - start;
                    self.translated(shape, |new| {
                        let mut old = new.to_vec();
                        old[axis] += start;
                        old
                    })
                })
            }
            Step::Index(axis, index) => {
                let length = *self.shape.get(axis)?;
                (index < length).then(|| {
                    let mut shape = self.shape.clone();
                    shape.remove(axis);
                    self.translated(shape, |new| {
                        let mut old = new.to_vec();
                        old.insert(axis, index);
                        old
                    })
                })
            }
            Step::Flip(axis) => {
                let length = *self.shape.get(axis)?;
                Some(self.translated(self.shape.clone(), |new| {
                    let mut old = new.to_vec();
                    old[axis] = length - 1 - old[axis];
                    old
                }))
            }
            Step::Broadcast(ref shape) => {
                let added = shape.len().checked_sub(rank)?;
                let mut pairs = self.shape.iter().zip(&shape[added..]);
                let fits = pairs.all(|(old, new)| old == new || *old == 1);
                fits.then(|| {
                    self.translated(shape.clone(), |new| {
                        let pairs = new[added..].iter().zip(&self.shape);
                        pairs
                            .map(|(index, old)| if *old == 1 { 0 } else { *index })
                            .collect()
                    })
                })
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Permute(Vec<usize>),
    Transpose,
    Slice(usize, usize, usize),
    Index(usize, usize),
    Flip(usize),
    Broadcast(Vec<usize>),
}

fn view_changed<'a>(
    view: TensorView<'a, i32>,
    step: &Step,
) -> Result<TensorView<'a, i32>, ShapeError> {
    match *step {
        Step::Permute(ref axes) => view.permute(axes),
        Step::Transpose => view.transpose(),
        Step::Slice(axis, start, end) => view.slice(axis, start..end),
        Step::Index(axis, index) => view.index(axis, index),
        Step::Flip(axis) => view.flip(axis),
        Step::Broadcast(ref shape) => view.broadcast_to(shape),
    }
}

fn view_mut_changed<'a>(
    view: TensorViewMut<'a, i32>,
    step: &Step,
) -> Result<TensorViewMut<'a, i32>, ShapeError> {
    match *step {
        Step::Permute(ref axes) => view.permute(axes),
        Step::Transpose => view.transpose(),
        Step::Slice(axis, start, end) => view.slice(axis, start..end),
        Step::Index(axis, index) => view.index(axis, index),
        Step::Flip(axis) => view.flip(axis),
        Step::Broadcast(_) => unreachable!("what is written is not repeated"),
    }
}

/// About half of them fit a view of three axes.
fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just((0..3).collect::<Vec<usize>>())
            .prop_shuffle()
            .prop_map(Step::Permute),
        prop::collection::vec(0..4_usize, 0..4).prop_map(Step::Permute),
        Just(Step::Transpose),
        (0..4_usize, 0..3_usize, 0..5_usize)
            .prop_map(|(axis, start, end)| Step::Slice(axis, start, end)),
        (0..4_usize, 0..4_usize).prop_map(|(axis, index)| Step::Index(axis, index)),
        (0..4_usize).prop_map(Step::Flip),
        prop::collection::vec(0..4_usize, 0..5).prop_map(Step::Broadcast),
    ]
}

fn shape() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        4 => prop::collection::vec(1..4_usize, 2..5),
        1 => prop::collection::vec(0..4_usize, 0..4),
    ]
}

fn check(view: TensorView<'_, i32>, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(view.shape(), &model.shape[..]);
    prop_assert_eq!(view.len(), model.elements.len());
    prop_assert_eq!(view.iter().len(), model.elements.len());
    prop_assert!(view.iter().eq(model.elements.iter().copied()));
    let got = indices(&model.shape)
        .into_iter()
        .map(|index| view.get(&index));
    prop_assert!(got.eq(model.elements.iter().copied().map(Some)));
    prop_assert_eq!(
        view.get(&model.shape),
        if model.shape.is_empty() {
            view.get(&[])
        } else {
            None
        }
    );
    let is_in_one_piece = model.elements.windows(2).all(|pair| pair[1] == pair[0] + 1);
    prop_assert_eq!(view.is_contiguous(), is_in_one_piece);
    prop_assert_eq!(
        view.as_slice(),
        is_in_one_piece.then_some(&model.elements[..])
    );
    let copy = view.to_tensor().expect("there is memory");
    prop_assert_eq!(copy.as_slice(), &model.elements[..]);
    prop_assert!(copy.view() == view);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn steps_lead_to_the_elements_of_the_model(
        shape in shape(),
        steps in prop::collection::vec(step(), 0..6),
    ) {
        let mut model = Model::counting(&shape);
        let base = model.elements.clone();
        let mut view = TensorView::row_major(&base, &shape).expect("as many");
        check(view, &model)?;
        for step in &steps {
            let changed = view_changed(view, step).ok();
            let expected = model.changed(step);
            prop_assert_eq!(changed.is_some(), expected.is_some(), "{:?}", step);
            (view, model) = changed.zip(expected).unwrap_or((view, model));
            check(view, &model)?;
        }
    }

    #[test]
    fn writing_reaches_each_element_of_the_model_once(
        shape in shape(),
        steps in prop::collection::vec(step(), 0..6),
    ) {
        let mut model = Model::counting(&shape);
        let mut base = model.elements.clone();
        let mut view = TensorViewMut::row_major(&mut base, &shape).expect("as many");
        for step in steps.iter().filter(|it| !matches!(it, Step::Broadcast(_))) {
            if let Some(changed) = model.changed(step) {
                model = changed;
                view = view_mut_changed(view, step).expect("the model allows it");
            }
        }
        check(view.view(), &model)?;
        view.update(|element| element + 1_000);
        for index in indices(&model.shape) {
            *view.get_mut(&index).expect("inside") += 1_000;
        }
        let mut expected = Model::counting(&shape).elements;
        for place in &model.elements {
            expected[*place as usize] += 2_000;
        }
        prop_assert_eq!(base, expected);
    }

    /// The layouts that are taken are those all of whose elements are in the slice.
    #[test]
    fn strides_stay_in_the_slice(
        axes in prop::collection::vec((0..4_usize, -4..5_isize), 0..4),
        offset in 0..12_usize,
        given in 0..24_usize,
    ) {
        let (shape, strides): (Vec<_>, Vec<_>) = axes.into_iter().unzip();
        let mut base: Vec<i32> = (0..given as i32).collect();
        let places: Vec<isize> = indices(&shape)
            .iter()
            .map(|index| {
                let steps = index.iter().zip(&strides).map(|(i, stride)| *i as isize * stride);
                offset as isize + steps.sum::<isize>()
            })
            .collect();
        let is_inside = places.iter().all(|place| (0..given as isize).contains(place));
        let view = TensorView::new(&base, &shape, &strides, offset);
        prop_assert_eq!(view.is_ok(), is_inside, "{:?}", view);
        if let Ok(view) = view {
            prop_assert!(view.iter().eq(places.iter().map(|place| *place as i32)));
        }
        if TensorViewMut::new(&mut base, &shape, &strides, offset).is_ok() {
            let mut places = places;
            places.sort_unstable();
            prop_assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", places);
        }
    }

    #[test]
    fn a_reshaped_view_has_the_same_elements(
        shape in shape(),
        steps in prop::collection::vec(step(), 0..4),
        to in shape(),
        at in 0..4_usize,
    ) {
        let tensor = Model::counting(&shape);
        let mut view = TensorView::row_major(&tensor.elements, &shape).expect("as many");
        for step in &steps {
            view = view_changed(view, step).unwrap_or(view);
        }
        // One length is chosen so that it may be as many.
        let mut to = to;
        let others = to.iter().product::<usize>().max(1);
        to.insert(at.min(to.len()), view.len() / others);
        let copied = view.to_tensor().expect("there is memory").reshape(&to);
        match (view.reshape(&to), copied) {
            (Ok(reshaped), Ok(copied)) => prop_assert!(reshaped == copied.view()),
            (Err(ShapeError::NeedsCopy { .. }), Ok(_)) => prop_assert!(!view.is_contiguous()),
            (reshaped, copied) => prop_assert_eq!(reshaped.err(), copied.err()),
        }
    }
}

#[test]
fn wild_strides_are_refused() {
    let elements = [0; 6];
    for (shape, strides, offset) in [
        (&[2, 3][..], &[isize::MAX, 1][..], 0),
        (&[2, 3], &[isize::MIN, 1], 0),
        (&[3, 3], &[isize::MAX, isize::MAX], 5),
        (&[2, 3], &[-3, 1], 2),
        (&[2, 3], &[3, 1], usize::MAX),
        (&[2, 3], &[3], 0),
        (&[], &[], 6),
    ] {
        let view = TensorView::new(&elements, shape, strides, offset);
        let is_refused = matches!(view, Err(ShapeError::Strides { .. }));
        assert!(is_refused, "{shape:?} {strides:?} {offset}");
    }
    let backwards = TensorView::new(&elements, &[2, 3], &[-3, -1], 5);
    assert_eq!(backwards.expect("inside").len(), 6);
}

/// Where no element is, strides and offset may be anything: nothing must be computed with them that could overflow.
#[test]
fn wild_strides_without_effect_do_no_harm() {
    let elements = [7];
    for (shape, offset) in [
        (&[1, 1, 1][..], 0),
        (&[0, 5, 2], usize::MAX),
        (&[5, 2, 0], 9),
    ] {
        let strides = [isize::MIN, isize::MAX, isize::MIN];
        let view = TensorView::new(&elements, shape, &strides, offset).expect("it has no steps");
        for (axis, length) in shape.iter().copied().enumerate() {
            let flipped = view.flip(axis).expect("an axis");
            assert_eq!(flipped.len(), view.len());
            let end = view.slice(axis, length..length).expect("an empty range");
            assert_eq!((end.iter().count(), end.as_slice()), (0, Some(&[][..])));
            if length > 0 {
                let last = view.index(axis, length - 1).expect("an index");
                assert_eq!(last.iter().count(), view.len() / length);
            }
        }
        assert!(view.reshape(&[view.len()]).is_ok());
        assert_eq!(view.to_tensor().expect("there is memory").len(), view.len());
        let matrix = view.index(0, 0).and_then(|view| view.as_matrix());
        assert!(matrix.is_err());
    }
}

#[test]
fn what_is_written_must_not_overlap() {
    let mut elements = [0; 16];
    for (shape, strides) in [
        (&[2, 2][..], &[0, 1][..]),
        (&[2, 2], &[1, 1]),
        (&[2, 3], &[2, 1]),
        (&[2, 3], &[-2, 1]),
        // These interlock, which is not found out.
        (&[2, 3], &[3, 2]),
    ] {
        let view = TensorViewMut::new(&mut elements, shape, strides, 2);
        let is_refused = matches!(view, Err(ShapeError::Overlap { .. }));
        assert!(is_refused, "{strides:?}");
    }
    let columns = TensorViewMut::new(&mut elements, &[3, 4], &[1, 4], 0);
    columns.expect("each once").fill(1);
    assert_eq!(elements.iter().sum::<i32>(), 12);
}

#[test]
fn a_product_is_written_into_a_part() {
    let mut elements = [0.0; 12];
    let whole = TensorViewMut::row_major(&mut elements, &[3, 4]).expect("as many");
    let mut part = whole
        .slice(1, 1..3)
        .and_then(|part| part.slice(0, 1..3))
        .expect("inside");
    let factor = MatRef::row_major(&[1.0, 2.0, 3.0, 4.0], 2, 2).expect("as many");
    let mut product = part.as_matrix_mut().expect("its rows are contiguous");
    crate::matmul::matmul(factor, factor, &mut product).expect("they fit");
    assert_eq!(
        elements,
        [0., 0., 0., 0., 0., 7., 10., 0., 0., 15., 22., 0.]
    );
    let whole = TensorViewMut::row_major(&mut elements, &[3, 4]).expect("as many");
    let mut columns = whole.transpose().expect("two axes");
    assert!(matches!(
        columns.as_matrix_mut(),
        Err(ShapeError::Matrix { .. })
    ));
}

#[test]
fn a_view_is_a_matrix() {
    let elements: Vec<f32> = (0..24_u8).map(f32::from).collect();
    let view = TensorView::row_major(&elements, &[2, 3, 4]).expect("as many");
    let matrix = view
        .index(0, 1)
        .and_then(|part| part.transpose()?.as_matrix());
    let matrix = matrix.expect("two axes");
    assert_eq!((matrix.shape(), matrix.strides()), ([4, 3], [1, 4]));
    assert_eq!(matrix.elements()[0], 12.0);
    let flipped = view.index(0, 1).and_then(|part| part.flip(1));
    for view in [view, flipped.expect("an axis")] {
        assert!(matches!(view.as_matrix(), Err(ShapeError::Matrix { .. })));
    }
}
