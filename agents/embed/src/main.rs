//! An agent that makes vectors of sentences by the model of `examples/embed`. What takes long is computed by the kernels of the node
//! that it is on (capability `tensor`), on the agent's memory: so it goes on after a move, by those of another machine.
//!
//! It is told what to do by messages whose first line is a word:
//! - `config.json`, `vocab.txt`, `model.safetensors`: a file of the model follows, or the next part of it.
//! - `text`: a sentence follows. The answer is its vector, floats of 32 bits in little-endian order.

mod node;

use std::collections::BTreeMap;
use std::error::Error;

use embed::{Config, Encoder, Model, Precision, Safetensors, WordPiece};
use mielin_agent::Message;

use crate::node::Node;

/// The files that have come so far.
type Files = BTreeMap<String, Vec<u8>>;

fn main() -> Result<(), Box<dyn Error>> {
    let kernels = Node::new()?;
    let mut files = Files::new();
    let first = loop {
        let message = next()?;
        let (word, rest) = parts(&message)?;
        if word == "text" {
            break message;
        }
        files.entry(word.to_owned()).or_default().extend(rest);
    };
    let (pieces, model) = load(&files)?;
    drop(files);
    let mut encoder = Encoder::with_kernels(&model, kernels);
    let mut message = first;
    loop {
        let (_, text) = parts(&message)?;
        let tokens = pieces.encode(&String::from_utf8_lossy(text));
        let vector = encoder.embed(&tokens)?;
        let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
        message.reply(&bytes)?;
        message = next()?;
    }
}

fn next() -> Result<Message, mielin_agent::Error> {
    loop {
        if let Some(message) = mielin_agent::receive(None)? {
            return Ok(message);
        }
    }
}

/// The first line, and what follows.
fn parts(message: &Message) -> Result<(&str, &[u8]), Box<dyn Error>> {
    let payload = message.payload();
    let end = payload.iter().position(|byte| *byte == b'\n');
    let end = end.ok_or("a message without a first line")?;
    Ok((std::str::from_utf8(&payload[..end])?, &payload[end + 1..]))
}

fn load(files: &Files) -> Result<(WordPiece, Model), Box<dyn Error>> {
    let file = |name: &str| files.get(name).ok_or(format!("{name} has not come"));
    let pieces = WordPiece::from_vocabulary(file("vocab.txt")?)?;
    let config = Config::from_json(file("config.json")?)?;
    let weights = Safetensors::parse(file("model.safetensors")?)?;
    let model = Model::load(config, &weights, Precision::Float)?;
    Ok((pieces, model))
}
