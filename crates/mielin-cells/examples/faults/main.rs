//! What becomes of an agent when something breaks while it moves?
//!
//! Nodes that are processes of their own hand an agent over while numbered messages go to it; in each run one of them
//! is killed (`kill -9`) or cut off, or the stream of the move breaks, at a boundary of phases or at a random moment.
//! Then everything that was killed is started again, and there must be exactly one living copy, which has heard every
//! message once and in order, has computed what an undisturbed one computes, and has left nothing where it is not.
//!
//! The same seed gives the same plans. An agent that was killed with the only node that had all of it counts as
//! `died_with_holder`; of every other one that is gone it is said that it was `lost`.

mod plan;
mod process;
#[path = "../../tests/cells/programs.rs"]
#[allow(dead_code, unreachable_pub, clippy::unwrap_used)]
mod programs;
mod run;

use std::io::Write;

use clap::{Parser, ValueEnum};
use mielin_mesh::MeshConfig;

use self::run::{Outcome, Stage};

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A node that is found by nothing but what it is told.
pub(crate) fn listening() -> Result<MeshConfig, Failure> {
    let mut config = MeshConfig::new("127.0.0.1:0".parse()?);
    config.enable_mdns = false;
    Ok(config)
}

/// Kills and cuts off nodes while agents move, and counts what becomes of the agents.
#[derive(Parser)]
struct Options {
    /// How often; 200 are the whole matrix
    #[arg(long, value_name = "N", default_value_t = 24)]
    runs: usize,
    /// Decides the order, and the moments that no phase says
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// For people or for machines
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Text,
    Json,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments
        .first()
        .is_some_and(|first| first == process::NODE)
    {
        return process::be(&arguments[1..]).await;
    }
    let options = Options::parse();
    let json = options.output == Output::Json;
    let plans = plan::plans(options.runs, options.seed);
    let mut stage = Stage::set().await?;
    let mut total = Outcome::default();
    for (index, plan) in plans.iter().enumerate() {
        let (outcome, story) = stage.run(index, plan).await;
        if !json || outcome.is_bad() {
            writeln!(std::io::stderr(), "{:>4}: {plan:?}: {story}", index + 1)?;
        }
        total.add(&outcome);
    }
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", total.json())?;
    } else {
        writeln!(out, "{}", total.text())?;
    }
    drop(out);
    stage.close().await;
    match total.is_bad() {
        true => Err("some run ended as none may".into()),
        false => Ok(()),
    }
}
