//! The shape of a model, as `config.json` states it.

use alloc::string::String;

use serde::Deserialize;

/// Larger than any number of a real model, and small enough that no product of two overflows.
const NUMBER_MAX: usize = 1 << 20;

/// What `config.json` says of a model. The names are those of the file.
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    /// Elements of the vector of a token.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads of attention, which share the elements out among each other.
    pub num_attention_heads: usize,
    /// Elements between the two products of a layer's second half.
    pub intermediate_size: usize,
    /// What is added to a variance.
    pub layer_norm_eps: f32,
    /// Word pieces.
    pub vocab_size: usize,
    /// Tokens of a text at most.
    pub max_position_embeddings: usize,
    /// Kinds of text, of which only the first is used here.
    pub type_vocab_size: usize,
    model_type: String,
    hidden_act: String,
    #[serde(default = "absolute")]
    position_embedding_type: String,
}

fn absolute() -> String {
    String::from("absolute")
}

/// The file does not describe a model that can be computed here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It is no JSON, or lacks a field.
    #[error("config.json: {0}")]
    Json(serde_json::Error),
    /// A number is 0 or beyond all reason.
    #[error("config.json: {field} is {given}; it must be from 1 to {NUMBER_MAX}")]
    Number {
        /// Its name.
        field: &'static str,
        /// What it is.
        given: usize,
    },
    /// The elements cannot be shared out evenly.
    #[error("config.json: {heads} heads cannot share {hidden} elements out evenly")]
    Heads {
        /// Heads.
        heads: usize,
        /// Elements.
        hidden: usize,
    },
    /// A variance needs an epsilon that is not negative.
    #[error("config.json: layer_norm_eps is {0}; it must not be negative")]
    Epsilon(f32),
    /// Something about it is computed in another way than here.
    #[error("config.json: {field} is {given:?}; only {supported:?} is supported")]
    Unsupported {
        /// What.
        field: &'static str,
        /// What it is.
        given: String,
        /// What it would have to be.
        supported: &'static str,
    },
}

impl Config {
    /// Reads and checks it.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn from_json(json: &[u8]) -> Result<Config, ConfigError> {
        let config: Config = serde_json::from_slice(json).map_err(ConfigError::Json)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let numbers = [
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ];
        for (field, given) in numbers {
            if given == 0 || given > NUMBER_MAX {
                return Err(ConfigError::Number { field, given });
            }
        }
        let (heads, hidden) = (self.num_attention_heads, self.hidden_size);
        if !hidden.is_multiple_of(heads) {
            return Err(ConfigError::Heads { heads, hidden });
        }
        if self.layer_norm_eps.is_nan() || self.layer_norm_eps < 0.0 {
            return Err(ConfigError::Epsilon(self.layer_norm_eps));
        }
        let words = [
            ("model_type", &self.model_type, "bert"),
            ("hidden_act", &self.hidden_act, "gelu"),
            (
                "position_embedding_type",
                &self.position_embedding_type,
                "absolute",
            ),
        ];
        for (field, given, supported) in words {
            if given != supported {
                return Err(ConfigError::Unsupported {
                    field,
                    given: given.clone(),
                    supported,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use alloc::string::ToString;

    use super::*;

    const GOOD: &str = r#"{"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
        "intermediate_size": 40, "layer_norm_eps": 1e-12, "vocab_size": 50, "max_position_embeddings": 16,
        "type_vocab_size": 2, "model_type": "bert", "hidden_act": "gelu", "use_cache": true}"#;

    fn check(from: &str, to: &str, expected: &str) {
        let error = Config::from_json(GOOD.replace(from, to).as_bytes()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn what_cannot_be_computed_is_refused() {
        Config::from_json(GOOD.as_bytes()).unwrap();
        check("\"hidden_size\": 24", "\"hidden_size\": 0", "from 1 to");
        check(
            "\"vocab_size\": 50",
            "\"vocab_size\": 99999999",
            "from 1 to",
        );
        check("_heads\": 3", "_heads\": 5", "5 heads cannot share 24");
        check("1e-12", "-1", "must not be negative");
        check("\"gelu\"", "\"relu\"", "only \"gelu\" is supported");
        check("\"bert\"", "\"llama\"", "only \"bert\" is supported");
        check("\"intermediate_size\": 40,", "", "missing field");
        check("{", "[[[[", "config.json");
    }
}
