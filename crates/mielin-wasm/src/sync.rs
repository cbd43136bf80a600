//! What threads share: locks and values that are made once, by the standard library or, where there is none, by `spin`.

#[cfg(not(feature = "std"))]
mod bare;
#[cfg(feature = "std")]
mod hosted;

#[cfg(not(feature = "std"))]
pub(crate) use bare::{Lock, Once, yield_now};
#[cfg(feature = "std")]
pub(crate) use hosted::{Lock, Once, yield_now};
