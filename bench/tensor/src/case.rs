//! One thing to be computed, and those who compute it.

use std::cell::Cell;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

/// The name under which mielin-tensor is one of the contenders.
pub(crate) const OURS: &str = "ours";

/// What one call has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Load {
    /// Floating-point operations; a multiplication and an addition are two.
    pub(crate) operations: f64,
    /// Whether these are fused multiply-adds in registers, for which the machine has a limit of its own.
    pub(crate) is_fused: bool,
    /// Bytes that must come from memory, because they are in no cache.
    pub(crate) read_bytes: f64,
    /// Bytes that must go there.
    pub(crate) written_bytes: f64,
}

/// A kernel at a shape: the inputs are in the closures of the contenders, the output is handed to them.
pub(crate) struct Case {
    pub(crate) kernel: &'static str,
    pub(crate) shape: String,
    pub(crate) load: Load,
    /// How far an element may be from ours, relative to it if that is above 1.
    pub(crate) tolerance: f32,
    pub(crate) output: Output,
    /// What is in the output before, if it is changed in place.
    before: Option<Vec<f32>>,
    /// Ours is the first.
    pub(crate) contenders: Vec<Contender>,
}

/// What is computed: one of them has no elements.
pub(crate) struct Output {
    floats: Vec<f32>,
    integers: Vec<i32>,
}

impl Output {
    fn elements(&self) -> Vec<f64> {
        let floats = self.floats.iter().map(|it| f64::from(*it));
        let integers = self.integers.iter().map(|it| f64::from(*it));
        floats.chain(integers).collect()
    }
}

/// Computes a case into floats.
type Floats = Box<dyn FnMut(&mut [f32])>;
/// Computes a case into integers.
type Integers = Box<dyn FnMut(&mut [i32])>;

enum Run {
    Floats(Floats),
    Integers(Integers),
}

/// Somebody who computes a case.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    run: Run,
}

impl Contender {
    pub(crate) fn run(&mut self, output: &mut Output) {
        match &mut self.run {
            Run::Floats(run) => run(&mut output.floats),
            Run::Integers(run) => run(&mut output.integers),
        }
    }
}

impl Case {
    fn empty(kernel: &'static str, shape: String, floats: Vec<f32>, integers: Vec<i32>) -> Case {
        Case {
            kernel,
            shape,
            load: Load::default(),
            tolerance: 0.0,
            output: Output { floats, integers },
            before: None,
            contenders: Vec::new(),
        }
    }

    /// A case that nobody but us computes yet.
    pub(crate) fn new(
        kernel: &'static str,
        shape: String,
        output_len: usize,
        ours: impl FnMut(&mut [f32]) + 'static,
    ) -> Case {
        let case = Case::empty(kernel, shape, vec![0.0; output_len], Vec::new());
        case.with(OURS, ours)
    }

    /// A case whose output is integers.
    pub(crate) fn of_integers(
        kernel: &'static str,
        shape: String,
        output_len: usize,
        ours: impl FnMut(&mut [i32]) + 'static,
    ) -> Case {
        let case = Case::empty(kernel, shape, Vec::new(), vec![0; output_len]);
        case.with_integers(OURS, ours)
    }

    /// A case whose output is changed in place.
    pub(crate) fn in_place(
        kernel: &'static str,
        shape: String,
        before: Vec<f32>,
        ours: impl FnMut(&mut [f32]) + 'static,
    ) -> Case {
        let mut case = Case::empty(kernel, shape, before.clone(), Vec::new());
        case.before = Some(before);
        case.with(OURS, ours)
    }

    /// One more contender.
    pub(crate) fn with(
        mut self,
        name: &'static str,
        run: impl FnMut(&mut [f32]) + 'static,
    ) -> Case {
        let run = Run::Floats(Box::new(run));
        self.contenders.push(Contender { name, run });
        self
    }

    /// The same where the output is integers.
    pub(crate) fn with_integers(
        mut self,
        name: &'static str,
        run: impl FnMut(&mut [i32]) + 'static,
    ) -> Case {
        let run = Run::Integers(Box::new(run));
        self.contenders.push(Contender { name, run });
        self
    }

    /// Puts into the output what has to be there before; otherwise what is no result.
    pub(crate) fn begin(&mut self) {
        match &self.before {
            Some(before) => self.output.floats.copy_from_slice(before),
            None => self.output.floats.fill(f32::NAN),
        }
        self.output.integers.fill(i32::MIN);
    }

    /// Has each compute the case once, and takes those out whose result is not ours. Says which and what.
    pub(crate) fn check(&mut self) -> Vec<Wrong> {
        let mut expected = Vec::new();
        let mut wrong = Vec::new();
        for index in 0..self.contenders.len() {
            self.begin();
            let contender = &mut self.contenders[index];
            contender.run(&mut self.output);
            let elements = self.output.elements();
            if contender.name == OURS {
                expected.clone_from(&elements);
            }
            let tolerance = f64::from(self.tolerance);
            let apart = |(ours, theirs): (&f64, &f64)| {
                // What is not a number is not within any tolerance.
                let within = (ours - theirs).abs() <= tolerance * ours.abs().max(1.0);
                !within
            };
            if let Some(element) = expected.iter().zip(&elements).position(apart) {
                wrong.push(Wrong {
                    kernel: self.kernel.to_owned(),
                    shape: self.shape.clone(),
                    contender: contender.name.to_owned(),
                    element,
                    // As a float, it may be what JSON has no number for.
                    result: elements[element].to_string(),
                    ours: expected[element].to_string(),
                });
            }
        }
        let is_wrong = |name: &str| wrong.iter().any(|it| it.contender == name);
        self.contenders.retain(|it| !is_wrong(it.name));
        wrong
    }
}

/// A result that is another one than ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Wrong {
    pub(crate) kernel: String,
    pub(crate) shape: String,
    pub(crate) contender: String,
    /// The first that differs.
    pub(crate) element: usize,
    pub(crate) result: String,
    pub(crate) ours: String,
}

/// Copies of an operand, which whoever comes next takes in turn: together they fit no cache, so that each call finds its
/// own in memory.
#[derive(Clone)]
pub(crate) struct Copies<T>(Rc<(Vec<Vec<T>>, Cell<usize>)>);

impl<T: Clone> Copies<T> {
    /// As many copies as exceed `bytes` together, or one if that is 0.
    pub(crate) fn of(original: Vec<T>, bytes: u64) -> Copies<T> {
        let own = size_of_val(&original[..]).max(1) as u64;
        let count = match bytes {
            0 => 1,
            bytes => (bytes / own + 1).max(2),
        };
        let more = (1..count).map(|_| original.clone()).collect::<Vec<_>>();
        let copies = [original].into_iter().chain(more).collect();
        Copies(Rc::new((copies, Cell::new(0))))
    }

    /// The next.
    pub(crate) fn next(&self) -> &[T] {
        let (copies, at) = &*self.0;
        let index = at.get();
        at.set((index + 1) % copies.len());
        &copies[index]
    }
}

/// Numbers between -0.5 and 0.5, always the same, and written, so that their pages are there.
pub(crate) fn numbers(count: usize) -> Vec<f32> {
    let mut state = 0x9e37_79b9_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count).map(next).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_result_and_a_missing_one_are_named_and_not_measured() {
        let mut case = Case::new("double", "3".into(), 3, |out| out.fill(2.0))
            .with("incomplete", |out| out[..2].fill(2.0))
            .with("other", |out| out.fill(2.5))
            .with("close", |out| out.fill(2.001));
        case.tolerance = 0.01;
        let wrong = case.check();
        let wrong: Vec<_> = wrong
            .iter()
            .map(|it| (it.contender.as_str(), it.element, it.result.as_str()))
            .collect();
        assert_eq!(wrong, [("incomplete", 2, "NaN"), ("other", 0, "2.5")]);
        let left: Vec<_> = case.contenders.iter().map(|it| it.name).collect();
        assert_eq!(left, [OURS, "close"]);
    }

    #[test]
    fn what_is_changed_in_place_begins_anew_for_each() {
        let double = |out: &mut [f32]| out[0] *= 2.0;
        let mut case = Case::in_place("double", "1".into(), vec![3.0], double);
        case = case.with("rival", double).with("other", |out| out[0] = 6.0);
        assert_eq!(case.check(), []);
    }

    #[test]
    fn copies_exceed_what_they_are_to_exceed() {
        assert_eq!(Copies::of(vec![0.0_f32; 256], 0).0.0.len(), 1);
        assert_eq!(Copies::of(vec![0.0_f32; 256], 10).0.0.len(), 2);
        let copies = Copies::of(vec![0.0_f32; 256], 4_096);
        assert_eq!(copies.0.0.len(), 5);
        let first = copies.next().as_ptr();
        let others = (0..4).filter(|_| copies.next().as_ptr() == first);
        assert_eq!(others.count(), 0);
        assert_eq!(copies.next().as_ptr(), first);
    }
}
