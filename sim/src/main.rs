//! Runs the simulations from the command line and prints what came out as JSON.
#![allow(clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use mielin_mesh_core::{MigrationStrategy, Preset};
use mielin_sim::curves::{self, Curves, Row, Sweep};
use mielin_sim::world::Severed;
use mielin_sim::{lookup, membership, moves};
use serde::Serialize;

/// The mesh's protocol cores on a virtual clock; the same seed gives the same output.
#[derive(Parser)]
#[command(name = "mielin-sim")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// How fast a death and a join are known to all, false deaths, and traffic.
    Membership(MembershipArguments),
    /// Success and hops of searches in the table.
    Lookup(LookupArguments),
    /// Whether agents that move again and again stay one each, while nodes crash and links are cut.
    #[command(after_help = MOVES_EXAMPLES)]
    Moves(MovesArguments),
    /// Membership over sizes of the group and loss, and searches over sizes of the table and churn, written as CSV and
    /// as plots in SVG.
    Curves(CurvesArguments),
}

const MOVES_EXAMPLES: &str = "\
Each move is made by the core of `mielin agent migrate` itself. The exit code is 1 if a promise of docs/MIGRATION.md is
broken; the seed and the last events of the agent are then shown.

Examples:
  mielin-sim moves
  mielin-sim moves --moves 20000 --seed 7 -o json
  mielin-sim moves --seeds 50 --moves 500
  mielin-sim moves --strategy post-copy --faults 25 --loss 5
  mielin-sim moves --faults 0 --loss 0";

/// The form of what is printed.
#[derive(Clone, Copy, ValueEnum)]
enum Form {
    /// One line for each figure.
    Text,
    /// One JSON object.
    Json,
}

#[derive(Args)]
struct MembershipArguments {
    /// Nodes in the group.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(3..=10_000))]
    nodes: u32,
    /// Datagrams lost, in percent.
    #[arg(long, default_value_t = 0.0, value_parser = below_hundred)]
    loss: f64,
    /// Datagrams that arrive twice, in percent.
    #[arg(long, default_value_t = 1.0, value_parser = percent)]
    duplicate: f64,
    /// Quiet hours of virtual time.
    #[arg(long, default_value_t = 1.0, value_parser = hours)]
    hours: f64,
    /// The preset: lan or wan.
    #[arg(long, default_value_t = Preset::Wan)]
    preset: Preset,
    /// The most that a clock gains or loses, in millionths.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(..=100_000))]
    drift_ppm: u32,
    /// Nodes that get to everything late.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=10_000))]
    slow: u32,
    /// How late, in milliseconds.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(..=600_000))]
    slow_ms: u64,
    /// Links, each in one direction, that carry nothing in the quiet hours.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    cuts: u32,
    /// Nodes that crash in each of the hours while as many others join, in percent.
    #[arg(long, default_value_t = 0.0, value_parser = percent)]
    churn: f64,
    /// Seconds in the middle of the hours for which a third of the group is cut off from the rest.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=86_400))]
    partition: u64,
    /// Which ways that cut severs.
    #[arg(long, value_enum, default_value_t, requires = "partition")]
    partition_cuts: Severed,
    /// The one source of chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,
}

#[derive(Args)]
struct LookupArguments {
    /// Nodes in the table.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    nodes: u32,
    /// Nodes replaced by others within one life of a record, in percent.
    #[arg(long, default_value_t = 0.0, value_parser = below_hundred)]
    churn: f64,
    /// Messages lost, in percent.
    #[arg(long, default_value_t = 0.0, value_parser = below_hundred)]
    loss: f64,
    /// Messages that arrive twice, in percent.
    #[arg(long, default_value_t = 0.0, value_parser = percent)]
    duplicate: f64,
    /// Nodes that get to everything late.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=100_000))]
    slow: u32,
    /// How late, in milliseconds.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(..=600_000))]
    slow_ms: u64,
    /// Seconds in the middle of the searches, which take ten minutes, for which a third of the nodes is cut off from the
    /// rest.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=PARTITION_S_MAX))]
    partition: u64,
    /// Which ways that cut severs.
    #[arg(long, value_enum, default_value_t, requires = "partition")]
    partition_cuts: Severed,
    /// Searches.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    lookups: u32,
    /// The one source of chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,
}

#[derive(Args)]
struct CurvesArguments {
    /// Nodes in the groups.
    #[arg(long, value_delimiter = ',', default_value = "10,100,1000",
        value_parser = clap::value_parser!(u32).range(3..=10_000))]
    nodes: Vec<u32>,
    /// Nodes in the tables.
    #[arg(long, value_delimiter = ',', default_value = "10,100,1000,10000",
        value_parser = clap::value_parser!(u32).range(3..=10_000))]
    table_nodes: Vec<u32>,
    /// Datagrams of membership lost, in percent.
    #[arg(long, value_delimiter = ',', default_value = "0,10,20,30", value_parser = below_hundred)]
    loss: Vec<f64>,
    /// Quiet hours of virtual time in each run of membership. With less a large group still tells how it formed.
    #[arg(long, default_value_t = 0.5, value_parser = hours)]
    hours: f64,
    /// Nodes of the table replaced by others within one life of a record, in percent.
    #[arg(long, value_delimiter = ',', default_value = "0,10,20", value_parser = below_hundred)]
    churn: Vec<f64>,
    /// Searches of each run.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    lookups: u32,
    /// The one source of chance of each run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to write `membership.csv` and `lookup.csv`, and a plot for each of their columns; made if it is not there.
    #[arg(long)]
    directory: PathBuf,
}

#[derive(Args)]
struct MovesArguments {
    /// Nodes.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(3..=200))]
    nodes: u32,
    /// Agents that live at one time; for one that died another is spawned.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=2_000))]
    agents: u32,
    /// Moves.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    moves: u64,
    /// What all moves are made by: stop-copy, pre-copy, post-copy or hybrid. Without it each of them, and the choice of
    /// the core, by turns.
    #[arg(long)]
    strategy: Option<MigrationStrategy>,
    /// Phases of moves into which something breaks in, in percent.
    #[arg(long, default_value_t = 8.0, value_parser = percent)]
    faults: f64,
    /// Datagrams lost, in percent.
    #[arg(long, default_value_t = 1.0, value_parser = below_hundred)]
    loss: f64,
    /// Datagrams that arrive twice, in percent.
    #[arg(long, default_value_t = 1.0, value_parser = percent)]
    duplicate: f64,
    /// The longest that a datagram is on its way, in milliseconds.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=2_000))]
    latency_ms: u64,
    /// Megabytes that a link takes in a second.
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    bandwidth_mb: u64,
    /// The one source of chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs, with this seed and those that follow it; the figures are their sums.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seeds: u64,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,
}

/// The shortest quiet time, 36 s. In none at all nothing is sent, and to print that as 0 bytes a second would say that
/// it was measured.
const HOURS_MIN: f64 = 0.01;
/// The longest.
const HOURS_MAX: f64 = 1_000.0;
/// The longest cut through a table: a minute of searches is left before it, and one after it.
const PARTITION_S_MAX: u64 = 480;

/// A share that may be all.
fn percent(text: &str) -> Result<f64, String> {
    let fits = |percent: &f64| (0.0..=100.0).contains(percent);
    number(text, fits).ok_or_else(|| "write a number from 0 to 100".to_owned())
}

/// A share that leaves something.
fn below_hundred(text: &str) -> Result<f64, String> {
    let fits = |percent: &f64| (0.0..100.0).contains(percent);
    number(text, fits).ok_or_else(|| "write a number from 0 to below 100".to_owned())
}

fn hours(text: &str) -> Result<f64, String> {
    let fits = |hours: &f64| (HOURS_MIN..=HOURS_MAX).contains(hours);
    number(text, fits).ok_or_else(|| {
        format!("write a number from {HOURS_MIN} to {HOURS_MAX}; 0.1 is six minutes")
    })
}

/// The number, if it fits; what is no number fits nowhere.
fn number(text: &str, fits: impl Fn(&f64) -> bool) -> Option<f64> {
    text.parse().ok().filter(fits)
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Membership(arguments) => {
            let scenario = membership::Scenario {
                nodes: arguments.nodes as usize,
                loss_percent: arguments.loss,
                duplicate_percent: arguments.duplicate,
                hours: arguments.hours,
                preset: arguments.preset,
                drift_ppm: arguments.drift_ppm,
                slow_nodes: arguments.slow as usize,
                slow_by: Duration::from_millis(arguments.slow_ms),
                cuts: arguments.cuts as usize,
                churn_percent: arguments.churn,
                partition: Duration::from_secs(arguments.partition),
                partition_cuts: arguments.partition_cuts,
                seed: arguments.seed,
            };
            print(&membership::run(&scenario)?, arguments.output)
        }
        Command::Lookup(arguments) => {
            let scenario = lookup::Scenario {
                nodes: arguments.nodes as usize,
                churn_percent: arguments.churn,
                loss_percent: arguments.loss,
                duplicate_percent: arguments.duplicate,
                slow_nodes: arguments.slow as usize,
                slow_by: Duration::from_millis(arguments.slow_ms),
                partition: Duration::from_secs(arguments.partition),
                partition_cuts: arguments.partition_cuts,
                lookups: arguments.lookups as usize,
                seed: arguments.seed,
            };
            print(&lookup::run(&scenario)?, arguments.output)
        }
        Command::Moves(arguments) => move_agents(&arguments),
        Command::Curves(arguments) => draw(arguments),
    }
}

fn move_agents(arguments: &MovesArguments) -> Result<()> {
    let mut sum = moves::Outcome::default();
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.seeds) {
        let scenario = moves::Scenario {
            nodes: arguments.nodes as usize,
            agents: arguments.agents as usize,
            moves: arguments.moves,
            strategy: arguments.strategy,
            faults_percent: arguments.faults,
            loss_percent: arguments.loss,
            duplicate_percent: arguments.duplicate,
            latency_max: Duration::from_millis(arguments.latency_ms),
            bandwidth: arguments.bandwidth_mb * 1_000_000,
            sabotage: None,
            seed,
        };
        sum.add(moves::run(&scenario)?);
        if sum.violation.is_some() {
            break;
        }
    }
    match arguments.output {
        Form::Json => println!("{}", serde_json::to_string(&sum)?),
        Form::Text => print!("{sum}"),
    }
    match &sum.violation {
        Some(violation) => bail!("{violation}"),
        None => Ok(()),
    }
}

fn draw(arguments: CurvesArguments) -> Result<()> {
    let sweep = |nodes: &[u32], percents| {
        let mut nodes: Vec<usize> = nodes.iter().map(|n| *n as usize).collect();
        nodes.sort_unstable();
        Sweep {
            nodes,
            percents,
            seed: arguments.seed,
        }
    };
    let directory = &arguments.directory;
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let rows = sweep(&arguments.table_nodes, arguments.churn).lookup(arguments.lookups as usize)?;
    write_all(directory, &curves::LOOKUP, &rows)?;
    let rows = sweep(&arguments.nodes, arguments.loss).membership(arguments.hours)?;
    write_all(directory, &curves::MEMBERSHIP, &rows)
}

fn write_all<O>(directory: &Path, curves: &Curves<O>, rows: &[Row<O>]) -> Result<()> {
    let table = directory.join(curves.name).with_extension("csv");
    write(&table, &curves.csv(rows))?;
    for figure in curves.figures {
        let file = directory.join(figure.name).with_extension("svg");
        write(&file, &curves.svg(rows, figure))?;
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| file.display().to_string())
}

fn print(outcome: &impl Serialize, form: Form) -> Result<()> {
    match form {
        Form::Json => println!("{}", serde_json::to_string(outcome)?),
        Form::Text => {
            let figures = serde_json::to_value(outcome)?;
            for (name, value) in figures.as_object().into_iter().flatten() {
                println!("{name}: {value}");
            }
        }
    }
    Ok(())
}
