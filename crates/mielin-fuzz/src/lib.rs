//! Runs decoders over hostile bytes: a committed corpus, and mutations of it.
//!
//! A [`Target`] is a function over bytes that panics when a promise is broken. It stands in the
//! tests of the crate whose decoder it is about, so that it reaches what is private there;
//! [`Target::replay`] is the body of an ordinary test, and `fuzz/fuzz_targets` gives the same
//! function to libFuzzer where the decoder is public. Besides what the target itself checks, every
//! run is held to a bound on the memory that it may hold at once, if the test program has
//! [`Counting`] as its allocator.
//!
//! ```no_run
//! use mielin_fuzz::{Counting, Seed, Target};
//!
//! #[global_allocator]
//! static ALLOCATOR: Counting = Counting;
//!
//! /// Text that is kept as it came.
//! const TEXT: Target = Target {
//!     name: "text",
//!     mutations: 1_000,
//!     fixed_bytes: 64,
//!     bytes_per_byte: 2,
//!     run: |bytes| match String::from_utf8(bytes.to_vec()) {
//!         Ok(text) => {
//!             assert_eq!(text.as_bytes(), bytes);
//!             true
//!         }
//!         Err(_) => false,
//!     },
//!     seeds: || vec![Seed::good("one-word", "word"), Seed::bad("not-utf-8", [0xff])],
//! };
//!
//! TEXT.replay();
//! ```
//!
//! What is deliberately not here: any decoder, and any dependency, so that every crate can use this
//! one in its tests.

mod allocation;
mod corpus;
mod mutation;
mod steps;
mod target;

pub use allocation::Counting;
pub use corpus::Seed;
pub use steps::{Step, Steps};
pub use target::Target;
