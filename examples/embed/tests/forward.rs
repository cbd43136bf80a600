//! A small model with random weights, beside a forward pass in 64-bit floats that follows the formulas word by word.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use embed::{Config, EmbedError, Encoder, LoadError, Model, Precision, Safetensors};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const HIDDEN: usize = 96;
const HEADS: usize = 3;
/// More than the terms that are added together, and no multiple of the columns of a block.
const WIDE: usize = 544;
const LAYERS: usize = 2;
const PIECES: usize = 50;
const POSITIONS: usize = 70;
const EPSILON: f64 = 1e-12;

const CONFIG: &str = r#"{"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3,
    "intermediate_size": 544, "layer_norm_eps": 1e-12, "vocab_size": 50, "max_position_embeddings": 70,
    "type_vocab_size": 2, "model_type": "bert", "hidden_act": "gelu"}"#;

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn tensors() -> Tensors {
    let mut random = StdRng::seed_from_u64(7);
    let mut tensors = Tensors::new();
    let mut add = |name: String, shape: &[usize], middle: f32, spread: f32| {
        let count = shape.iter().product();
        let element = |_| middle + random.random_range(-spread..spread);
        let elements = (0..count).map(element).collect();
        tensors.insert(name, (shape.to_vec(), elements));
    };
    for (name, rows) in [("word", PIECES), ("position", POSITIONS), ("token_type", 2)] {
        add(
            format!("embeddings.{name}_embeddings.weight"),
            &[rows, HIDDEN],
            0.0,
            1.0,
        );
    }
    let products = [
        ("attention.self.query", [HIDDEN, HIDDEN]),
        ("attention.self.key", [HIDDEN, HIDDEN]),
        ("attention.self.value", [HIDDEN, HIDDEN]),
        ("attention.output.dense", [HIDDEN, HIDDEN]),
        ("intermediate.dense", [WIDE, HIDDEN]),
        ("output.dense", [HIDDEN, WIDE]),
    ];
    let mut norms = vec![String::from("embeddings")];
    for layer in 0..LAYERS {
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        for (part, shape) in products {
            add(name(&format!("{part}.weight")), &shape, 0.0, 0.3);
            add(name(&format!("{part}.bias")), &shape[..1], 0.0, 0.3);
        }
        norms.extend([name("attention.output"), name("output")]);
    }
    for name in norms {
        add(format!("{name}.LayerNorm.weight"), &[HIDDEN], 1.0, 0.3);
        add(format!("{name}.LayerNorm.bias"), &[HIDDEN], 0.0, 0.3);
    }
    tensors
}

fn file(tensors: &Tensors) -> Vec<u8> {
    let (mut header, mut elements) = (serde_json::Map::new(), Vec::new());
    for (name, (shape, floats)) in tensors {
        let from = elements.len();
        elements.extend(floats.iter().flat_map(|float| float.to_le_bytes()));
        let offsets = [from, elements.len()];
        let entry = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": offsets});
        header.insert(name.clone(), entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], &header, &elements].concat()
}

fn load(tensors: &Tensors, precision: Precision) -> Result<Model, LoadError> {
    let config = Config::from_json(CONFIG.as_bytes()).unwrap();
    let file = file(tensors);
    Model::load(config, &Safetensors::parse(&file).unwrap(), precision)
}

/// The forward pass in 64-bit floats.
struct Naive<'a>(&'a Tensors);

type Rows = Vec<Vec<f64>>;

impl Naive<'_> {
    fn tensor(&self, name: &str) -> Vec<f64> {
        self.0[name].1.iter().copied().map(f64::from).collect()
    }

    fn linear(&self, rows: &Rows, name: &str) -> Rows {
        let weights = self.tensor(&format!("{name}.weight"));
        let bias = self.tensor(&format!("{name}.bias"));
        let element = |row: &Vec<f64>, out: usize| {
            let weights = &weights[out * row.len()..];
            bias[out] + row.iter().zip(weights).map(|(x, w)| x * w).sum::<f64>()
        };
        let outputs = |row: &Vec<f64>| (0..bias.len()).map(|out| element(row, out)).collect();
        rows.iter().map(outputs).collect()
    }

    fn norm_of_sum(&self, a: &Rows, b: &Rows, name: &str) -> Rows {
        let gain = self.tensor(&format!("{name}.LayerNorm.weight"));
        let offset = self.tensor(&format!("{name}.LayerNorm.bias"));
        let norm = |(a, b): (&Vec<f64>, &Vec<f64>)| {
            let row: Vec<f64> = a.iter().zip(b).map(|(a, b)| a + b).collect();
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            let square = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
            let deviation = (square / row.len() as f64 + EPSILON).sqrt();
            let element = |i: usize| (row[i] - mean) / deviation * gain[i] + offset[i];
            (0..row.len()).map(element).collect()
        };
        a.iter().zip(b).map(norm).collect()
    }

    fn attention(&self, states: &Rows, name: &str) -> Rows {
        let [queries, keys, values] = ["query", "key", "value"]
            .map(|part| self.linear(states, &format!("{name}.attention.self.{part}")));
        let width = HIDDEN / HEADS;
        let attend = |query: &Vec<f64>, element: usize| {
            let head = element / width * width..element / width * width + width;
            let weight = |key: &Vec<f64>| {
                let product: f64 = head.clone().map(|i| query[i] * key[i]).sum();
                (product / (width as f64).sqrt()).exp()
            };
            let weights: Vec<f64> = keys.iter().map(weight).collect();
            let weighed = weights.iter().zip(&values).map(|(w, v)| w * v[element]);
            weighed.sum::<f64>() / weights.iter().sum::<f64>()
        };
        let row = |query| (0..HIDDEN).map(|element| attend(query, element)).collect();
        queries.iter().map(row).collect()
    }

    fn embed(&self, tokens: &[u32]) -> Vec<f64> {
        let words = self.tensor("embeddings.word_embeddings.weight");
        let positions = self.tensor("embeddings.position_embeddings.weight");
        let kinds = self.tensor("embeddings.token_type_embeddings.weight");
        let word = |token: &u32| words[*token as usize * HIDDEN..][..HIDDEN].to_vec();
        let place = |at: usize| {
            let elements = 0..HIDDEN;
            elements
                .map(|i| positions[at * HIDDEN + i] + kinds[i])
                .collect()
        };
        let words: Rows = tokens.iter().map(word).collect();
        let places: Rows = (0..tokens.len()).map(place).collect();
        let mut states = self.norm_of_sum(&words, &places, "embeddings");
        for layer in 0..LAYERS {
            let name = format!("encoder.layer.{layer}");
            let attended = self.attention(&states, &name);
            let attended = self.linear(&attended, &format!("{name}.attention.output.dense"));
            states = self.norm_of_sum(&states, &attended, &format!("{name}.attention.output"));
            let mut wide = self.linear(&states, &format!("{name}.intermediate.dense"));
            for x in wide.iter_mut().flatten() {
                *x *= 0.5 * (1.0 + libm::erf(*x / 2.0_f64.sqrt()));
            }
            let narrow = self.linear(&wide, &format!("{name}.output.dense"));
            states = self.norm_of_sum(&states, &narrow, &format!("{name}.output"));
        }
        let mean = |i: usize| states.iter().map(|row| row[i]).sum::<f64>() / tokens.len() as f64;
        let mean: Vec<f64> = (0..HIDDEN).map(mean).collect();
        let length = mean.iter().map(|x| x * x).sum::<f64>().sqrt();
        mean.into_iter().map(|x| x / length).collect()
    }
}

fn texts() -> Vec<Vec<u32>> {
    let mut random = StdRng::seed_from_u64(8);
    let mut text = |len: usize| {
        (0..len)
            .map(|_| random.random_range(0..PIECES as u32))
            .collect()
    };
    // Longer and shorter ones in turn: one must leave nothing to the next.
    [70, 1, 2, 33, 16, 17, 65, 3].map(&mut text).to_vec()
}

#[test]
fn vectors_are_those_of_the_formulas() {
    let tensors = tensors();
    let model = load(&tensors, Precision::Float).unwrap();
    let mut encoder = Encoder::new(&model);
    for tokens in texts() {
        let exact = Naive(&tensors).embed(&tokens);
        let found = encoder.embed(&tokens).unwrap();
        for (found, exact) in found.iter().zip(exact) {
            let error = (f64::from(*found) - exact).abs();
            assert!(error < 1e-5, "{} tokens: {error}", tokens.len());
        }
    }
}

#[test]
fn vectors_with_bytes_are_near_them() {
    let tensors = tensors();
    let model = load(&tensors, Precision::Bytes).unwrap();
    let mut encoder = Encoder::new(&model);
    for tokens in texts() {
        let exact = Naive(&tensors).embed(&tokens);
        let found = encoder.embed(&tokens).unwrap();
        let product = found.iter().zip(exact).map(|(a, b)| f64::from(*a) * b);
        let cosine: f64 = product.sum();
        assert!(cosine > 0.999, "{} tokens: {cosine}", tokens.len());
    }
}

#[test]
fn tokens_that_the_model_has_not_are_refused() {
    let model = load(&tensors(), Precision::Float).unwrap();
    let mut encoder = Encoder::new(&model);
    let max = POSITIONS;
    for given in [0, max + 1] {
        let error = encoder.embed(&vec![1; given]).unwrap_err();
        assert_eq!(error, EmbedError::Tokens { given, max });
    }
    let error = encoder.embed(&[1, PIECES as u32]).unwrap_err();
    assert!(matches!(error, EmbedError::Vocabulary(_)), "{error}");
    encoder.embed(&[1, 2]).unwrap();
}

#[test]
fn weights_that_are_not_the_configuration_s_are_refused() {
    let mut tensors = tensors();
    let weight = "encoder.layer.1.output.dense.weight";
    tensors.get_mut(weight).unwrap().1[WIDE * 3 + 5] = f32::INFINITY;
    let model = load(&tensors, Precision::Float).unwrap();
    let error = Encoder::new(&model).embed(&[1, 2]).unwrap_err();
    assert_eq!(error, EmbedError::NotFinite);
    let error = load(&tensors, Precision::Bytes).unwrap_err().to_string();
    let expected = "weights of encoder.layer.1.output.dense";
    assert!(error.starts_with(expected), "{error}");
    tensors.remove(weight);
    let error = load(&tensors, Precision::Float).unwrap_err().to_string();
    assert_eq!(error, format!("the weights have no tensor {weight}"));
}
