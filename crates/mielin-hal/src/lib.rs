//! Which machine is this: the architecture and the processor features that numeric kernels and
//! engines choose their code by.
//!
//! This floor holds no allocation, no threads and no I/O. How many cores and how much memory the
//! operating system grants is a question for the hosted node (`mielin node info`), not for this crate.
//!
//! [`detect_architecture`] names the architecture; [`HardwareCapabilities`] adds the features that
//! really work here.
//!
//! ```
//! use mielin_hal::{CpuFeature, HardwareCapabilities, detect_architecture};
//!
//! let machine = HardwareCapabilities::detect();
//! assert_eq!(machine.architecture(), detect_architecture());
//! if machine.has(CpuFeature::Avx2) {
//!     // A kernel written for AVX2 may run.
//! }
//! ```

#![cfg_attr(not(feature = "std"), no_std)]

mod architecture;
mod capabilities;

pub use architecture::{Architecture, detect_architecture};
pub use capabilities::{CpuFeature, HardwareCapabilities};
