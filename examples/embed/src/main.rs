//! `embed`: vectors of sentences on the command line.
//!
//! ```text
//! cargo run --release -p embed -- --model DIR --similarity "A cat sleeps." "A kitten naps." "Taxes rise."
//! ```
#![allow(clippy::print_stderr, reason = "a program speaks to its terminal")]

use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use embed::{Config, Encoder, Model, Precision, Safetensors, WordPiece};
use serde::Serialize;

/// Sentences that a thread gets at a time. With one thread each is answered before the next one is read.
const SENTENCES: usize = 32;

/// Vectors of sentences, by the transformer all-MiniLM-L6-v2 or another one of its form.
#[derive(Parser)]
#[command(name = "embed", version, after_help = EXAMPLES)]
struct Arguments {
    /// Folder with config.json, vocab.txt and model.safetensors, or another file of weights beside the two
    #[arg(long, value_name = "DIR", env = "EMBED_MODEL")]
    model: PathBuf,
    /// Sentences; without any, each line of standard input is one
    #[arg(value_name = "SENTENCE")]
    sentences: Vec<String>,
    /// Hold the weights of products as bytes: a quarter of their memory, and vectors that differ a little
    #[arg(long)]
    int8: bool,
    /// Print how similar each sentence is to each other one, from -1 to 1, instead of vectors
    #[arg(long)]
    similarity: bool,
    /// Threads, each of which takes sentences of its own
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Word pieces of a sentence; what is beyond is left out
    #[arg(long, value_name = "N", default_value = "256")]
    tokens_max: NonZeroUsize,
    /// How results are printed
    #[arg(
        short = 'o',
        long = "output",
        value_name = "FORMAT",
        default_value = "text"
    )]
    format: Format,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask minilm                                  fetch all-MiniLM-L6-v2 and print its folder
  embed --model DIR \"A cat sleeps.\"                   384 numbers
  embed --model DIR --similarity \"A cat.\" \"A kitten.\" a table
  embed --model DIR -o json --threads 8 < lines.txt   a JSON object for each line
  embed --model DIR --int8 \"A cat sleeps.\"            with weights of bytes";

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    /// The numbers of a vector in a line
    Text,
    /// An object in a line: text, tokens, seconds, vector
    Json,
}

/// A sentence and what became of it.
#[derive(Serialize)]
struct Embedded {
    text: String,
    tokens: usize,
    /// From the text to the vector.
    seconds: f64,
    vector: Vec<f32>,
}

#[derive(Serialize)]
struct Similarity {
    sentences: Vec<String>,
    similarity: Vec<Vec<f32>>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

fn run(arguments: Arguments) -> Result<()> {
    let stdin = io::stdin();
    if arguments.sentences.is_empty() && stdin.is_terminal() {
        bail!("no sentences: name some as arguments, or give one per line on standard input");
    }
    let precision = match arguments.int8 {
        true => Precision::Bytes,
        false => Precision::Float,
    };
    let (pieces, model) = load(&arguments.model, precision)?;
    let tokens_max = arguments
        .tokens_max
        .get()
        .min(model.config().max_position_embeddings);
    let pieces = pieces.with_tokens_max(tokens_max);
    let mut workers = Workers::new(&pieces, &model, usize::from(arguments.threads));
    let mut out = io::stdout().lock();
    let mut kept = Vec::new();
    let mut take = |embedded: Embedded| -> Result<()> {
        match arguments.similarity {
            true => kept.push(embedded),
            false => print(arguments.format, &embedded, &mut out)?,
        }
        Ok(())
    };
    if arguments.sentences.is_empty() {
        let lines = stdin.lock().lines();
        let lines = lines.map(|line| line.context("cannot read standard input"));
        workers.embed_all(lines, &mut take)?;
    } else {
        workers.embed_all(arguments.sentences.into_iter().map(Ok), &mut take)?;
    }
    if arguments.similarity {
        print_similarity(arguments.format, kept, &mut out)?;
    }
    Ok(())
}

/// Reads a model from the folder, or the file of weights, that somebody named.
fn load(named: &Path, precision: Precision) -> Result<(WordPiece, Model)> {
    let (folder, weights) = match named.is_file() {
        true => (named.parent().unwrap_or(Path::new("")), named.to_owned()),
        false => (named, named.join("model.safetensors")),
    };
    let read = |path: &Path| {
        fs::read(path).with_context(|| {
            format!(
                "cannot read {}; --model names a folder with config.json, vocab.txt and model.safetensors: \
                 `cargo xtask minilm` fetches one and prints its path",
                path.display()
            )
        })
    };
    let cannot_use = |path: &Path| {
        format!(
            "cannot use {}; `cargo xtask minilm` fetches a model that can be used",
            path.display()
        )
    };
    let of_model = || cannot_use(folder);
    let config = read(&folder.join("config.json"))?;
    let config = Config::from_json(&config).with_context(of_model)?;
    let pieces = read(&folder.join("vocab.txt"))?;
    let pieces = WordPiece::from_vocabulary(&pieces).with_context(of_model)?;
    let bytes = read(&weights)?;
    let in_weights = || cannot_use(&weights);
    let tensors = Safetensors::parse(&bytes).with_context(in_weights)?;
    let model = Model::load(config, &tensors, precision).with_context(in_weights)?;
    Ok((pieces, model))
}

/// An encoder for each thread.
struct Workers<'a> {
    pieces: &'a WordPiece,
    encoders: Vec<Encoder<'a>>,
}

impl<'a> Workers<'a> {
    fn new(pieces: &'a WordPiece, model: &'a Model, threads: usize) -> Workers<'a> {
        Workers {
            pieces,
            encoders: vec![Encoder::new(model); threads],
        }
    }

    /// Embeds sentences in their order.
    fn embed_all(
        &mut self,
        mut sentences: impl Iterator<Item = Result<String>>,
        take: &mut impl FnMut(Embedded) -> Result<()>,
    ) -> Result<()> {
        let batch_len = match self.encoders.len() {
            1 => 1,
            threads => threads * SENTENCES,
        };
        loop {
            let batch = sentences.by_ref().take(batch_len);
            let batch = batch.collect::<Result<Vec<String>>>()?;
            if batch.is_empty() {
                return Ok(());
            }
            for embedded in self.embed_batch(batch)? {
                take(embedded)?;
            }
        }
    }

    fn embed_batch(&mut self, batch: Vec<String>) -> Result<Vec<Embedded>> {
        let pieces = self.pieces;
        if let [encoder] = &mut self.encoders[..] {
            return embed_some(pieces, encoder, batch);
        }
        let share = batch.len().div_ceil(self.encoders.len());
        let mut batch = batch.into_iter();
        thread::scope(|scope| {
            let mut running = Vec::new();
            for encoder in &mut self.encoders {
                let share: Vec<String> = batch.by_ref().take(share).collect();
                if share.is_empty() {
                    break;
                }
                running.push(scope.spawn(move || embed_some(pieces, encoder, share)));
            }
            let mut all = Vec::new();
            for thread in running {
                let done = thread.join();
                all.extend(done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            Ok(all)
        })
    }
}

fn embed_some(
    pieces: &WordPiece,
    encoder: &mut Encoder<'_>,
    sentences: Vec<String>,
) -> Result<Vec<Embedded>> {
    let embed = |text: String| {
        let start = Instant::now();
        let tokens = pieces.encode(&text);
        let vector = encoder.embed(&tokens);
        let seconds = start.elapsed().as_secs_f64();
        let vector = vector.with_context(|| format!("no vector of {text:?}"))?;
        Ok(Embedded {
            tokens: tokens.len(),
            seconds,
            vector: vector.to_vec(),
            text,
        })
    };
    sentences.into_iter().map(embed).collect()
}

fn print(format: Format, embedded: &Embedded, out: &mut impl Write) -> Result<()> {
    match format {
        Format::Text => {
            let numbers: Vec<String> = embedded.vector.iter().map(f32::to_string).collect();
            writeln!(out, "{}", numbers.join(" "))?;
        }
        Format::Json => writeln!(out, "{}", serde_json::to_string(embedded)?)?,
    }
    // Whoever gives a line at a time waits for the answer.
    Ok(out.flush()?)
}

fn print_similarity(format: Format, kept: Vec<Embedded>, out: &mut impl Write) -> Result<()> {
    if kept.len() < 2 {
        bail!("--similarity compares two sentences or more; name another one");
    }
    let row = |one: &Embedded| {
        let product = |other: &Embedded| mielin_tensor::dot(&one.vector, &other.vector);
        let row = kept.iter().map(product).collect::<Result<Vec<f32>, _>>();
        row.expect("vectors of one model have one length")
    };
    let similarity: Vec<Vec<f32>> = kept.iter().map(row).collect();
    if format == Format::Json {
        let sentences = kept.into_iter().map(|one| one.text).collect();
        let table = Similarity {
            sentences,
            similarity,
        };
        writeln!(out, "{}", serde_json::to_string(&table)?)?;
        return Ok(());
    }
    let numbers: Vec<String> = (1..=kept.len())
        .map(|number| format!("{number:>7}"))
        .collect();
    writeln!(out, "   {}", numbers.concat())?;
    for (number, (one, row)) in kept.iter().zip(similarity).enumerate() {
        let row: Vec<String> = row.iter().map(|value| format!("{value:>7.3}")).collect();
        writeln!(out, "{:>3}{}  {}", number + 1, row.concat(), one.text)?;
    }
    Ok(())
}
