//! The `mielin` command: it runs nodes, and it is the client that controls them.
//!
//! A node is one process ([`daemon`]): the mesh below, the agents above, and a control socket in
//! the node's data directory ([`home`], [`control`]). Every other command is a [`client`] of that
//! socket and speaks the HTTP/JSON [`api`], which is the only way in. No protocol of the mesh is
//! decided here.

mod api;
mod args;
mod client;
mod commands;
mod control;
mod daemon;
mod demo;
mod duration;
mod failure;
mod home;
mod input;
mod machine;
mod out_file;
mod output;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use clap_complete::Shell;
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use args::{Command, CommandLine, Format, NodeCommand, WasmCommand};
use failure::Failure;
use output::Output;

/// What is logged when `RUST_LOG` says nothing.
const LOG_FILTER: &str = "warn,mielin=info";

fn main() -> ExitCode {
    let command_line = match CommandLine::try_parse() {
        Ok(command_line) => command_line,
        Err(error) => return report_usage(&error),
    };
    let output = Output::new(command_line.format());
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG_FILTER));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        // Where standard error is closed or its disk is full, a failed line would else be reported there, which panics
        // in whatever was about to log.
        .log_internal_errors(false)
        .init();
    let done = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::internal(format!("cannot start the runtime: {error}")))
        .and_then(|runtime| {
            let done = runtime.block_on(run(command_line, output));
            // A task that still reads standard input must not hold up the end.
            runtime.shutdown_background();
            done
        });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.class.exit_code())
        }
    }
}

async fn run(command_line: CommandLine, output: Output) -> Result<(), Failure> {
    let data_dir = || home::data_dir(command_line.data_dir.as_deref());
    match command_line.command {
        Command::Mesh(command) => commands::mesh::run(&data_dir()?, command, output).await,
        Command::Daemon(arguments) => commands::mesh::daemon(&data_dir()?, arguments, output).await,
        Command::Agent(command) => commands::agent::run(&data_dir()?, command, output).await,
        Command::Node(NodeCommand::Info(_)) => commands::node::info(&data_dir()?, output).await,
        Command::Wasm(WasmCommand::Instrument(arguments)) => {
            commands::wasm::instrument(&arguments, output)
        }
        Command::Demo(arguments) => demo::run(&arguments, output).await,
        Command::Completions(arguments) => completions(arguments.shell, output),
    }
}

/// What `completions -o json` prints.
#[derive(Serialize)]
struct Completions {
    script: String,
}

fn completions(shell: Shell, output: Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "mielin", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    output.result(&Completions { script }, |completions| {
        completions.script.clone()
    })
}

/// Prints what clap has to say: help and version as they are, errors in the format asked for.
fn report_usage(error: &clap::Error) -> ExitCode {
    if !asks_for_json() || !error.use_stderr() {
        // Without a reader there is nobody to report to.
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
    }
    let text = error.render().to_string();
    let message = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "a command is missing".to_owned(),
        // What is missing or possible stands in the lines up to the first empty one.
        _ => text
            .trim_start_matches("error: ")
            .lines()
            .map(str::trim)
            .take_while(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join(" "),
    };
    let hint = format!("`{} --help` shows what there is", command_meant());
    let failure = Failure::usage(message).hint(hint);
    Output::new(Format::Json).failure(&failure);
    ExitCode::from(failure.class.exit_code())
}

/// The command that was meant, such as `mielin agent spawn`, as far as its words are commands.
fn command_meant() -> String {
    let mut command = &CommandLine::command();
    let mut path = command.get_name().to_owned();
    for word in std::env::args().skip(1) {
        if let Some(next) = command.find_subcommand(&word) {
            path = format!("{path} {}", next.get_name());
            command = next;
        }
    }
    path
}

/// Whether the command line, which could not be parsed, asks for JSON.
fn asks_for_json() -> bool {
    let arguments: Vec<_> = std::env::args_os()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let joined = arguments
        .iter()
        .any(|argument| matches!(argument.as_str(), "-ojson" | "-o=json" | "--output=json"));
    let apart = arguments
        .windows(2)
        .any(|pair| matches!(pair[0].as_str(), "-o" | "--output") && pair[1] == "json");
    joined || apart
}
