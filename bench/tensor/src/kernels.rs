//! The table of what is measured. A further kernel is a module with its cases, and a line in [`all`].

mod blocks;
mod matmul;
mod rows;
mod vectors;

use std::num::NonZeroUsize;

use crate::case::Case;
use crate::rivals::Libraries;

/// What cases are made of.
pub(crate) struct Bench {
    pub(crate) libraries: Libraries,
    pub(crate) threads: NonZeroUsize,
    /// Bytes that no cache holds.
    pub(crate) beyond_caches: u64,
}

/// A case that has not been made: its inputs can be large.
pub(crate) struct Plan {
    pub(crate) kernel: &'static str,
    pub(crate) operations: f64,
    /// Whether it is measured with all threads, too, if nobody says how many.
    pub(crate) is_for_threads: bool,
    pub(crate) make: Box<dyn Fn(&Bench) -> Case>,
}

impl Plan {
    /// What is measured on one thread, if nobody says otherwise.
    fn new(kernel: &'static str, operations: f64, make: impl Fn(&Bench) -> Case + 'static) -> Plan {
        Plan {
            kernel,
            operations,
            is_for_threads: false,
            make: Box::new(make),
        }
    }
}

/// All kernels at all shapes.
pub(crate) fn all() -> Vec<Plan> {
    let mut plans = matmul::plans();
    plans.extend(blocks::plans());
    plans.extend(vectors::plans());
    plans.extend(rows::plans());
    plans
}
