//! The weights of a model, in the order in which they are read.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use mielin_tensor::{Binary, BlockError};

use crate::config::Config;
use crate::linear::Linear;
use crate::safetensors::{Safetensors, SafetensorsError};

/// In what the weights of products are held. All else is in 32-bit floats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32-bit floats, as they are stored.
    #[default]
    Float,
    /// Signed bytes, with a scale for 32 of them: little more than a quarter of the memory. Widths must be multiples of 32.
    Bytes,
}

/// A model that was read.
#[derive(Clone, Debug)]
pub struct Model {
    pub(crate) config: Config,
    /// A row for each word piece.
    pub(crate) pieces: Vec<f32>,
    /// A row for each position, with what is added to every token of a text of the first kind.
    pub(crate) positions: Vec<f32>,
    pub(crate) norm: Norm,
    pub(crate) layers: Vec<Layer>,
}

#[derive(Clone, Debug)]
pub(crate) struct Norm {
    pub(crate) gain: Vec<f32>,
    pub(crate) offset: Vec<f32>,
}

#[derive(Clone, Debug)]
pub(crate) struct Layer {
    /// Queries, keys and values, next to each other.
    pub(crate) projection: Linear,
    /// Of what was attended to.
    pub(crate) attended: Linear,
    pub(crate) attended_norm: Norm,
    pub(crate) widening: Linear,
    pub(crate) narrowing: Linear,
    pub(crate) norm: Norm,
}

/// The weights are not those of the configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A tensor is missing or is not what it should be.
    #[error(transparent)]
    Tensor(#[from] SafetensorsError),
    /// No bytes can be made of these weights.
    #[error("weights of {name}: {error}")]
    Bytes {
        /// Which.
        name: String,
        /// Why, and in which row of them.
        error: BlockError,
    },
}

impl Model {
    /// Takes the tensors that the configuration needs, by the names that the library `transformers` gives to those of BERT.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(
        config: Config,
        tensors: &Safetensors<'_>,
        precision: Precision,
    ) -> Result<Model, LoadError> {
        let (hidden, kinds) = (config.hidden_size, config.type_vocab_size);
        let table = |name: &str, rows| {
            let name = format!("embeddings.{name}_embeddings.weight");
            tensors.floats(&name, &[rows, hidden])
        };
        let pieces = table("word", config.vocab_size)?;
        let mut positions = table("position", config.max_position_embeddings)?;
        let kind = &table("token_type", kinds)?[..hidden];
        for position in positions.chunks_exact_mut(hidden) {
            let added = Binary::Add.apply_in_place(position, kind);
            added.expect("both have the elements of a token");
        }
        let source = Source {
            tensors,
            config: &config,
            precision,
        };
        let layers = 0..config.num_hidden_layers;
        Ok(Model {
            norm: source.norm("embeddings")?,
            layers: layers.map(|n| source.layer(n)).collect::<Result<_, _>>()?,
            pieces,
            positions,
            config,
        })
    }

    /// What the model is like.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }
}

struct Source<'a> {
    tensors: &'a Safetensors<'a>,
    config: &'a Config,
    precision: Precision,
}

impl Source<'_> {
    fn layer(&self, number: usize) -> Result<Layer, LoadError> {
        let (hidden, wide) = (self.config.hidden_size, self.config.intermediate_size);
        let name = |part: &str| format!("encoder.layer.{number}.{part}");
        let projections =
            ["query", "key", "value"].map(|part| name(&format!("attention.self.{part}")));
        Ok(Layer {
            projection: self.linear(&projections, [hidden, hidden])?,
            attended: self.linear(&[name("attention.output.dense")], [hidden, hidden])?,
            attended_norm: self.norm(&name("attention.output"))?,
            widening: self.linear(&[name("intermediate.dense")], [hidden, wide])?,
            narrowing: self.linear(&[name("output.dense")], [wide, hidden])?,
            norm: self.norm(&name("output"))?,
        })
    }

    /// Products of the same input with all of these weights, of one shape.
    fn linear(&self, names: &[String], [input, output]: [usize; 2]) -> Result<Linear, LoadError> {
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        for name in names {
            let weight = self
                .tensors
                .floats(&format!("{name}.weight"), &[output, input])?;
            weights.extend(weight);
            biases.extend(self.tensors.floats(&format!("{name}.bias"), &[output])?);
        }
        match self.precision {
            Precision::Float => Ok(Linear::floats(&weights, biases, input)),
            Precision::Bytes => Linear::bytes(&weights, biases, input).map_err(|error| {
                let name = names.join(", ");
                LoadError::Bytes { name, error }
            }),
        }
    }

    fn norm(&self, name: &str) -> Result<Norm, SafetensorsError> {
        let hidden = [self.config.hidden_size];
        let gain = format!("{name}.LayerNorm.weight");
        let offset = format!("{name}.LayerNorm.bias");
        Ok(Norm {
            gain: self.tensors.floats(&gain, &hidden)?,
            offset: self.tensors.floats(&offset, &hidden)?,
        })
    }
}
