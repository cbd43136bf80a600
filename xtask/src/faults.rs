//! `cargo xtask faults`: kills and cuts off nodes while agents move, and counts what becomes of them.
//!
//! The program is the example `faults` of `mielin-cells`, which says what it does and what it prints. It is built in
//! the dev profile, like the tests: what it finds does not depend on speed.

use anyhow::Result;
use clap::Args;

use crate::command;
use crate::workspace::Workspace;

/// The runs of a test run: few, but the same ones each time.
const SAMPLE: [&str; 4] = ["--runs", "10", "--seed", "7"];

/// What `faults` is told.
#[derive(Args)]
pub(crate) struct Options {
    /// `--runs N` (24), `--seed S` (1), `-o json`; the whole matrix has 200 runs
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Runs what the options say.
///
/// # Errors
/// The build failed, or some run ended as none may.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    with(workspace, options.arguments.iter().map(String::as_str))
}

/// Runs a part of the matrix.
///
/// # Errors
/// As for [`run`].
pub(crate) fn sample(workspace: &Workspace) -> Result<()> {
    with(workspace, SAMPLE)
}

fn with<'a>(workspace: &Workspace, arguments: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--quiet", "--locked", "--workspace"]);
    command::run(cargo.args(["--example", "faults"]))?;
    let program = workspace.target().join("debug/examples/faults");
    command::run(std::process::Command::new(program).args(arguments))
}
