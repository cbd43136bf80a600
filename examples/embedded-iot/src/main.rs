//! A sensor whose agent leaves it before its battery is empty, and comes back when it is charged again.
//!
//! A board with a Cortex-M4, which QEMU emulates, holds on to a relay over a serial line. An agent on it reads a sensor, which
//! repeats a recorded series (`readings.csv`). The battery is a model that drains as the board works: below 20 % the board
//! hands the agent over to the relay in the middle of its loop, where it goes on with the board's readings; when the
//! battery is charged the relay gives it back. At the end the agent is asked what it has read: a reading that a move
//! had lost or doubled would show.
//!
//! ```text
//! cargo run --release -p embedded-iot
//! cargo run --release -p embedded-iot -- -o json
//! ```
//!
//! - `relay`: the command `mielin`, as a user gives it
//! - `board`: the firmware and QEMU
//! - `series`: what the agent must have read

// An example may talk to its reader.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod board;
mod relay;
mod series;

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use serde::Serialize;

use board::Board;
use relay::{Handover, Relay};
use series::{Figures, Series};

/// What the sensor measures.
const READINGS: &str = include_str!("../readings.csv");

const LEAF: &str = "greenhouse";
const AGENT: &str = "thermometer";

/// How long the board may take to be there.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often everything is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A host remembers the last 64 hand-overs of a leaf, and the first is not counted as a move.
const MOVES_MAX: u64 = 63;

/// An agent on a microcontroller that leaves it before the battery is empty.
///
/// Builds the firmware and the relay, starts both, and follows the agent until it has read so many values and moved so
/// often. Fails if a reading is lost or doubled.
#[derive(Parser)]
#[command(after_help = "\
Examples:
  cargo run --release -p embedded-iot
  cargo run --release -p embedded-iot -- --readings 600 --moves 6
  cargo run --release -p embedded-iot -- -o json")]
struct Options {
    /// How many readings at least
    #[arg(long, default_value_t = 240)]
    readings: u64,
    /// How many moves at least, there and back
    #[arg(long, default_value_t = 2, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(..=MOVES_MAX))]
    moves: usize,
    /// How long all of it may take, in seconds
    #[arg(long, default_value_t = 600)]
    limit: u64,
    /// The command `mielin`, if it is not to be built
    #[arg(long, value_name = "PROGRAM")]
    relay: Option<PathBuf>,
    /// The board: mps2-an386 (Cortex-M4) or mps2-an505 (Cortex-M33)
    #[arg(long, default_value = "mps2-an386")]
    board: String,
    /// How to show the result
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Json,
}

/// What came of it.
#[derive(Serialize)]
struct Report {
    readings: u64,
    lost: u64,
    doubled: u64,
    moves: usize,
    /// The longest time that the agent stood still for a move, as the relay has seen it.
    freeze_resume_us: u64,
    handovers: Vec<Handover>,
    /// The share of its time that the board was asleep, in thousandths, as it says itself.
    asleep_permille: Option<u64>,
    /// Whether the agent has read what the series says, value for value.
    as_recorded: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let series = Series::parse(READINGS)?;
    let scratch = tempfile::tempdir()?;
    let line = scratch.path().join("line");
    let tell = Teller {
        silent: options.output == Form::Json,
    };

    tell.step("building the relay and the firmware");
    let program = options.relay.clone().map_or_else(relay::build, Ok)?;
    board::build(&options.board)?;

    tell.step("starting a relay, which waits for the board on a serial line");
    let relay = Relay::start(&program, scratch.path(), &line)?;
    let page = scratch.path().join("page");
    relay.admit(LEAF, &page)?;
    let mut board = Board::start(&options.board, &page, &line)?;
    relay.until_ready(LEAF, Instant::now() + PATIENCE)?;

    tell.step("starting the agent, and sending it to the board");
    relay.spawn(AGENT)?;
    relay
        .migrate(AGENT, LEAF)
        .with_context(|| format!("the board's console:\n{}", board.console()))?;

    let report = follow(&options, &relay, &mut board, &series, &tell)?;
    tell.end();
    match options.output {
        Form::Json => println!("{}", serde_json::to_string(&report)?),
        Form::Text => print!("{}", table(&report)),
    }
    ensure!(
        report.lost == 0 && report.doubled == 0,
        "{} readings are lost, {} doubled",
        report.lost,
        report.doubled
    );
    ensure!(
        report.as_recorded,
        "the agent has read something else than the sensor measured"
    );
    Ok(())
}

/// Shows how things stand until the agent has read and moved enough; then asks it.
fn follow(
    options: &Options,
    relay: &Relay,
    board: &mut Board,
    series: &Series,
    tell: &Teller,
) -> Result<Report> {
    let deadline = Instant::now() + Duration::from_secs(options.limit);
    loop {
        let leaf = relay.leaf(LEAF)?;
        let figures = Figures::read(&relay.ask(AGENT)?)?;
        let moves = leaf.handovers.len().saturating_sub(1);
        tell.now(&format!(
            "battery {:>3} %{}  agent on {}  {:>4} readings, {} lost, {} doubled  {moves} moves",
            leaf.battery_percent.unwrap_or(0),
            if leaf.charging {
                " charging"
            } else {
                "         "
            },
            if leaf.agents.is_empty() {
                "the relay"
            } else {
                "the board"
            },
            figures.count,
            figures.lost,
            figures.doubled,
        ));
        if figures.count >= options.readings && moves >= options.moves {
            let handovers = leaf.handovers;
            return Ok(Report {
                readings: figures.count,
                lost: figures.lost,
                doubled: figures.doubled,
                moves,
                // The first one brought it there.
                freeze_resume_us: handovers
                    .iter()
                    .skip(1)
                    .map(|one| one.us)
                    .max()
                    .unwrap_or(0),
                handovers,
                asleep_permille: board.asleep_permille(),
                as_recorded: figures == series.figures(figures.last),
            });
        }
        ensure!(
            Instant::now() < deadline,
            "after {} s the agent has read {} values and moved {moves} times",
            options.limit,
            figures.count
        );
        board.check().context("the board")?;
        std::thread::sleep(LOOK_EVERY);
    }
}

fn table(report: &Report) -> String {
    let mut text = String::from("\nMOVE           BYTES      STOOD STILL\n");
    for handover in &report.handovers {
        let way = match handover.direction.as_str() {
            "to-leaf" => "to the board",
            _ => "to the relay",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{way:<13} {:>6} {:>13.1} ms",
            handover.bytes,
            handover.us as f64 / 1000.0
        );
    }
    let asleep = report.asleep_permille.map_or_else(
        || "-".to_owned(),
        |permille| format!("{:.1} %", permille as f64 / 10.0),
    );
    let _ = writeln!(
        text,
        "\n{} readings, {} lost, {} doubled; the board was asleep for {asleep} of its time",
        report.readings, report.lost, report.doubled
    );
    text
}

/// Says what goes on, on standard error, so that standard output is the result alone.
struct Teller {
    silent: bool,
}

impl Teller {
    fn step(&self, text: &str) {
        if !self.silent {
            eprintln!("{text} ...");
        }
    }

    /// In the place of what was there, on a terminal.
    fn now(&self, text: &str) {
        if self.silent {
            return;
        }
        if std::io::stderr().is_terminal() {
            eprint!("\r{text}\x1b[K");
            // Whoever looks sees it a moment later.
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{text}");
        }
    }

    fn end(&self) {
        if !self.silent && std::io::stderr().is_terminal() {
            eprintln!();
        }
    }
}
