//! The way of a text through the layers of a model.

use alloc::vec;
use alloc::vec::Vec;

use mielin_tensor::{Attention, Binary, LookupError, Mask, MatMut, MatRef, dot, scale};

use crate::kernels::{Kernels, Own};
use crate::linear::Then;
use crate::model::{Layer, Model, Norm};

/// A vector that is shorter keeps its length, as in PyTorch's `normalize`.
const LENGTH_MIN: f32 = 1e-12;

/// Computes vectors by a model, one text after the other, in memory that it keeps.
#[derive(Clone, Debug)]
pub struct Encoder<'a, K = Own> {
    model: &'a Model,
    kernels: K,
    /// `[tokens, hidden]`: what the layers read and change.
    states: Vec<f32>,
    /// `[tokens, 3 · hidden]`: queries, keys and values.
    projected: Vec<f32>,
    /// `[tokens, hidden]`.
    attended: Vec<f32>,
    /// `[tokens, intermediate]`.
    wide: Vec<f32>,
    /// `[hidden]`.
    vector: Vec<f32>,
}

/// A text has no vector. The next one is not affected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// There are none, or more than the model has positions.
    #[error("{given} tokens; the model takes from 1 to {max}")]
    Tokens {
        /// How many there are.
        given: usize,
        /// How many there may be.
        max: usize,
    },
    /// The vocabulary is not that of the model.
    #[error("the vocabulary is of another model: {0}")]
    Vocabulary(LookupError),
    /// The weights are not those of a model that was trained: they lead to infinite numbers, or to some that are none.
    #[error("the weights lead to numbers that are not finite")]
    NotFinite,
}

impl<'a> Encoder<'a> {
    /// Memory is taken with the first text, and with each longer one.
    #[must_use]
    pub fn new(model: &'a Model) -> Encoder<'a> {
        Encoder::with_kernels(model, Own)
    }
}

impl<'a, K: Kernels> Encoder<'a, K> {
    /// The same by other kernels.
    #[must_use]
    pub fn with_kernels(model: &'a Model, kernels: K) -> Encoder<'a, K> {
        Encoder {
            model,
            kernels,
            states: Vec::new(),
            projected: Vec::new(),
            attended: Vec::new(),
            wide: Vec::new(),
            vector: vec![0.0; model.config.hidden_size],
        }
    }

    /// The vector of a text, of length 1: the mean of what the last layer makes of its tokens.
    ///
    /// # Errors
    /// See [`EmbedError`].
    pub fn embed(&mut self, tokens: &[u32]) -> Result<&[f32], EmbedError> {
        let config = &self.model.config;
        let (hidden, max) = (config.hidden_size, config.max_position_embeddings);
        if tokens.is_empty() || tokens.len() > max {
            let given = tokens.len();
            return Err(EmbedError::Tokens { given, max });
        }
        self.states.resize(tokens.len() * hidden, 0.0);
        self.projected.resize(tokens.len() * 3 * hidden, 0.0);
        self.attended.resize(tokens.len() * hidden, 0.0);
        let wide = tokens.len() * config.intermediate_size;
        self.wide.resize(wide, 0.0);
        self.look_up(tokens)?;
        for layer in &self.model.layers {
            self.pass(layer);
        }
        self.mean()
    }

    fn look_up(&mut self, tokens: &[u32]) -> Result<(), EmbedError> {
        let Model { config, .. } = self.model;
        let hidden = config.hidden_size;
        let pieces = MatRef::row_major(&self.model.pieces, config.vocab_size, hidden);
        let states = MatMut::row_major(&mut self.states, tokens.len(), hidden);
        let (Ok(pieces), Ok(mut states)) = (pieces, states) else {
            unreachable!("the table has its shape, and there is room for the tokens")
        };
        let found = self.kernels.look_up(pieces, tokens, &mut states);
        found.map_err(EmbedError::Vocabulary)?;
        let positions = &self.model.positions[..self.states.len()];
        let added = Binary::Add.apply_in_place(&mut self.states, positions);
        added.expect("as many positions were taken");
        self.normalise(&self.model.norm);
        Ok(())
    }

    fn pass(&mut self, layer: &Layer) {
        let kernels = &self.kernels;
        let projected = &mut self.projected;
        layer
            .projection
            .apply(kernels, &self.states, Then::Store, projected);
        self.attend();
        let (kernels, states) = (&self.kernels, &mut self.states);
        layer
            .attended
            .apply(kernels, &self.attended, Then::Add, states);
        self.normalise(&layer.attended_norm);
        let (kernels, wide) = (&self.kernels, &mut self.wide);
        layer
            .widening
            .apply(kernels, &self.states, Then::StoreGelu, wide);
        let states = &mut self.states;
        layer
            .narrowing
            .apply(kernels, &self.wide, Then::Add, states);
        self.normalise(&layer.norm);
    }

    /// Each head reads its columns of the queries, the keys and the values where they are.
    fn attend(&mut self) {
        let hidden = self.model.config.hidden_size;
        let width = hidden / self.model.config.num_attention_heads;
        let rows = self.states.len() / hidden;
        for column in (0..hidden).step_by(width) {
            let part = |first: usize| {
                let from = &self.projected[first + column..];
                let part = MatRef::new(from, [rows, width], [3 * hidden, 1]);
                part.expect("the columns are those of a head")
            };
            let factors = Attention {
                queries: part(0),
                keys: part(hidden),
                values: part(2 * hidden),
                scale: 1.0 / libm::sqrtf(width as f32),
                mask: Mask::None,
            };
            let to = &mut self.attended[column..];
            let to = MatMut::new(to, [rows, width], hidden);
            let mut to = to.expect("the columns are those of a head");
            self.kernels.attend(factors, &mut to);
        }
    }

    fn normalise(&mut self, norm: &Norm) {
        let epsilon = self.model.config.layer_norm_eps;
        self.kernels
            .layer_norm(&mut self.states, &norm.gain, &norm.offset, epsilon);
    }

    fn mean(&mut self) -> Result<&[f32], EmbedError> {
        self.vector.fill(0.0);
        for state in self.states.chunks_exact(self.vector.len()) {
            let added = Binary::Add.apply_in_place(&mut self.vector, state);
            added.expect("both have the elements of a token");
        }
        // The length of the sum is brought to 1, so that of the mean need not be known.
        let square = dot(&self.vector, &self.vector).expect("it is as long as itself");
        if !square.is_finite() {
            return Err(EmbedError::NotFinite);
        }
        scale(1.0 / libm::sqrtf(square).max(LENGTH_MIN), &mut self.vector);
        Ok(&self.vector)
    }
}
