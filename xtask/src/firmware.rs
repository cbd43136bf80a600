//! `cargo xtask firmware`: builds the images for boards with a Cortex-M, runs them under QEMU, and says how large they are.
//!
//! - [`boards`]: the boards, and how an image is built for one and run on it.
//! - [`leaf`]: the other end of a board's line, and what is tried on that line.
//! - [`size`]: flash and RAM of the images.

mod boards;
mod leaf;
mod size;

use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::boards::Board;
use crate::command::display;
use crate::emulator::Running;
use crate::trials::Trial;
use crate::workspace::Workspace;

/// How long a board may run.
const PATIENCE: Duration = Duration::from_secs(120);

/// The line by which the suite asks for bytes, and the bytes.
const ASKS: &str = "suite: send mielin";
const ANSWER: &[u8] = b"mielin";

/// What `firmware` is told.
#[derive(clap::Subcommand)]
pub(crate) enum Task {
    /// Run the runtime's tests on a board; the exit status says whether all passed
    #[command(after_help = "\
Examples:
  cargo xtask firmware test --board mps2-an386")]
    Test(On),
    /// Say how much flash and RAM the images take
    #[command(after_help = "\
Examples:
  cargo xtask firmware size -o json")]
    Size(size::Options),
}

/// Which board.
#[derive(clap::Args)]
pub(crate) struct On {
    /// The board
    #[arg(long)]
    board: Board,
}

/// Does what was asked for.
///
/// # Errors
/// A compiler or QEMU is missing and cannot be installed here, something does not build, or not all tests passed.
pub(crate) fn run(workspace: &Workspace, task: &Task) -> Result<()> {
    match task {
        Task::Test(On { board }) => {
            test(*board, &boards::build(workspace, *board, "suite")?)?;
            if board.is_leaf() {
                leaf::Trial::build(workspace, *board)?.run()?;
            }
            Ok(())
        }
        Task::Size(options) => size::run(workspace, options),
    }
}

/// All boards, for `cargo xtask test`.
pub(crate) fn trials(workspace: &Workspace) -> impl Iterator<Item = Trial<'_>> {
    let on_boards = Board::ALL.into_iter().map(move |board| -> Trial<'_> {
        Box::new(move || {
            let image = boards::build(workspace, board, "suite")?;
            Ok(Box::new(move || test(board, &image)))
        })
    });
    let size: Trial<'_> = Box::new(move || {
        size::check(workspace)?;
        Ok(Box::new(|| Ok(())))
    });
    let leaves = Board::ALL.into_iter().filter(|board| board.is_leaf());
    let leaves = leaves.map(move |board| -> Trial<'_> {
        Box::new(move || {
            let trial = leaf::Trial::build(workspace, board)?;
            Ok(Box::new(move || trial.run()))
        })
    });
    on_boards.chain(leaves).chain([size])
}

/// Runs the suite on a board and shows what it prints.
fn test(board: Board, image: &Path) -> Result<()> {
    eprintln!("firmware: the suite on {}", board.name());
    let mut command = boards::command(board, image)?;
    command
        .args(["-serial", "stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let line = display(&command);
    let mut machine = Running::start(&mut command)?;
    let mut console = machine.0.stdin.take().context("its standard input")?;
    let lines = machine.lines()?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) => {
                println!("{line}");
                if line == ASKS {
                    console.write_all(ANSWER)?;
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => bail!("`{line}` did not end in {PATIENCE:?}"),
        }
    }
    let status = machine.0.wait()?;
    if !status.success() {
        bail!("{} has failed ({status}): `{line}`", board.name());
    }
    Ok(())
}
