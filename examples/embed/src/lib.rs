//! Sentences as vectors: the transformer all-MiniLM-L6-v2, and others of its form, on the kernels of `mielin-tensor`.
//!
//! A text goes through [`WordPiece`] and becomes numbers of word pieces; an [`Encoder`] brings those through the layers of a
//! [`Model`] and gives a vector of length 1. Texts of similar meaning have vectors whose products are near 1.
//!
//! The library takes bytes and gives vectors: it knows no file, no thread and no clock, so that it runs where an agent does. The
//! program around it reads files and shares sentences out among threads.
//!
//! ```no_run
//! use embed::{Config, Encoder, Model, Precision, Safetensors, WordPiece};
//!
//! let read = |name: &str| std::fs::read(format!("minilm/{name}"));
//! let pieces = WordPiece::from_vocabulary(&read("vocab.txt")?)?;
//! let config = Config::from_json(&read("config.json")?)?;
//! let weights = read("model.safetensors")?;
//! let model = Model::load(config, &Safetensors::parse(&weights)?, Precision::Float)?;
//! let vector = Encoder::new(&model).embed(&pieces.encode("A cat sleeps."))?.to_vec();
//! assert_eq!(vector.len(), 384);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![no_std]

extern crate alloc;

mod characters;
mod config;
mod encoder;
mod kernels;
mod linear;
mod model;
mod safetensors;
mod wordpiece;

pub use config::{Config, ConfigError};
pub use encoder::{EmbedError, Encoder};
pub use kernels::{Kernels, Own};
pub use model::{LoadError, Model, Precision};
pub use safetensors::{Safetensors, SafetensorsError};
pub use wordpiece::{VocabularyError, WordPiece};
