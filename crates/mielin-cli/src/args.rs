//! The command line: what can be asked, with the help that `--help` prints.

mod agent;
mod mesh;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub(crate) use agent::{
    AgentCommand, CheckpointArgs, CloneArgs, LogsArgs, MigrateArgs, RestoreArgs, SendArgs,
    SortChoice, SpawnArgs, StrategyChoice, TopArgs,
};
#[cfg(test)]
pub(crate) use mesh::LeafArgs;
pub(crate) use mesh::{
    ApproveArgs, Bounds, DialableChoice, JoinArgs, LeafAddArgs, LeafCommand, LookupArgs,
    MeshCommand, NodeArgs, PingArgs, PresetChoice, RevokeArgs, RoleChoice, RouteArgs, StartArgs,
    Switches, TokenArgs,
};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  internal error: a fault of this program or its environment
  2  usage: the command line is wrong
  3  refused: understood and denied (a limit, a state, a token, a data directory in use)
  4  not found: no such agent, node or file
  5  unreachable: the daemon is not running, or a peer does not answer";

const EXAMPLES: &str = "\
Examples:
  mielin demo                                     watch two programs move between three nodes
  mielin mesh start --bind 0.0.0.0:9000           found a mesh; prints a token to join it
  mielin mesh join 192.168.1.100:9000 --token T   join it from another machine
  mielin agent spawn prog.wasm -- arg1 arg2       run any WASI preview-1 command as an agent
  mielin agent migrate prog laptop                move it while it runs";

/// Agents that move between machines while they run.
///
/// A node is a process that runs agents: `mielin mesh start` founds a mesh, `mielin mesh join`
/// joins one, and both then run the node in the foreground. Every other command talks to the node
/// whose data directory it is given. An agent is a WebAssembly program; it keeps its address, its
/// memory and its place in the middle of a loop when it moves.
#[derive(Parser)]
#[command(name = "mielin", version, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
#[command(propagate_version = true, arg_required_else_help = true)]
pub(crate) struct CommandLine {
    /// The node's data directory [default: $XDG_DATA_HOME/mielin or ~/.local/share/mielin]
    #[arg(
        long,
        global = true,
        env = "MIELIN_DATA_DIR",
        value_name = "DIR",
        hide_env_values = true
    )]
    pub(crate) data_dir: Option<PathBuf>,

    /// How to print the result [default: table]
    #[arg(
        id = "output_before",
        short = 'o',
        long = "output",
        value_name = "FORMAT"
    )]
    pub(crate) output: Option<Format>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Found, join and look at a mesh
    #[command(subcommand)]
    Mesh(MeshCommand),
    /// Run the node of an existing data directory in the foreground
    ///
    /// The directory is one that `mesh start` or `mesh join` made. The node keeps the address, the
    /// preset and the engine of its last run unless others are given, and finds the mesh again
    /// through the members it knew. It stops cleanly on SIGTERM or Ctrl-C.
    Daemon(DaemonArgs),
    /// Start, talk to, move and end agents
    ///
    /// AGENT and NODE are ids, unique prefixes of ids, or names. Every command works on an agent
    /// wherever in the mesh it is.
    #[command(subcommand)]
    Agent(AgentCommand),
    /// Look at the node and its machine
    #[command(subcommand)]
    Node(NodeCommand),
    /// Work on WebAssembly files
    #[command(subcommand)]
    Wasm(WasmCommand),
    /// Start three nodes and move running programs between them
    ///
    /// Starts an Edge, a Relay and a Core node as three processes on this machine, runs `digest`
    /// and `counter` on the Edge, moves both to the Relay and on to the Core while they work and
    /// are talked to, and checks every result.
    ///
    /// It exits with 0 only if the digest equals that of a run that never moved and every message
    /// was answered once and in order. Processes and directories are removed at the end, also on
    /// Ctrl-C.
    Demo(DemoArgs),
    /// Print the completion script of a shell
    Completions(CompletionsArgs),
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Table,
    /// One JSON object on standard output; errors as one JSON object on standard error
    Json,
}

/// `-o`, given after the command.
///
/// It is not one global argument because `wasm instrument` uses `-o` for its file.
#[derive(Args, Clone, Copy)]
pub(crate) struct OutputArgs {
    /// How to print the result [default: table]
    #[arg(short = 'o', long, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  mielin daemon
  mielin --data-dir /var/lib/mielin daemon --bind 0.0.0.0:9000")]
pub(crate) struct DaemonArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Subcommand)]
pub(crate) enum NodeCommand {
    /// Show this machine, and the node if its daemon runs
    #[command(after_help = "\
Examples:
  mielin node info
  mielin node info -o json")]
    Info(OutputArgs),
}

#[derive(Subcommand)]
pub(crate) enum WasmCommand {
    /// Rewrite a module so that it can be frozen and resumed; `agent spawn` does this by itself
    #[command(after_help = "\
`-o` names the file here; `mielin -o json wasm instrument …` prints JSON. With `-o -` what is printed otherwise goes to
standard error.

Examples:
  mielin wasm instrument prog.wasm -o prog.resumable.wasm
  mielin wasm instrument - -o - < prog.wasm > prog.resumable.wasm")]
    Instrument(InstrumentArgs),
}

#[derive(Args)]
pub(crate) struct InstrumentArgs {
    /// The module to read; `-` reads it from standard input
    pub(crate) input: PathBuf,
    /// The file to write; `-` writes to standard output
    #[arg(id = "out_file", short = 'o', long = "output", value_name = "OUT")]
    pub(crate) out_file: PathBuf,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  mielin demo
  mielin demo --input /usr/share/dict/words
  mielin demo -o json")]
pub(crate) struct DemoArgs {
    /// The file that `digest` reads
    #[arg(long, default_value = "README.md", value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// Rounds that `digest` computes, or more if it is done before it has moved twice [default: some
    /// seconds' worth]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rounds: Option<u64>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  mielin completions bash > ~/.local/share/bash-completion/completions/mielin
  mielin completions zsh > ~/.zfunc/_mielin
  mielin completions fish > ~/.config/fish/completions/mielin.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: Shell,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

impl CommandLine {
    /// The format asked for, wherever `-o` stood.
    pub(crate) fn format(&self) -> Format {
        let after = match &self.command {
            Command::Mesh(command) => command.output(),
            Command::Daemon(arguments) => arguments.output,
            Command::Agent(command) => command.output(),
            Command::Node(NodeCommand::Info(output)) => *output,
            Command::Demo(arguments) => arguments.output,
            Command::Completions(arguments) => arguments.output,
            Command::Wasm(_) => OutputArgs { output: None },
        };
        after.output.or(self.output).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn output_may_stand_before_and_after_the_command() {
        for (line, expected) in [
            (&["mielin", "mesh", "status"][..], Format::Table),
            (&["mielin", "-o", "json", "mesh", "status"], Format::Json),
            (&["mielin", "mesh", "status", "-o", "json"], Format::Json),
            (
                &["mielin", "-o", "json", "agent", "list", "--output=table"],
                Format::Table,
            ),
        ] {
            let parsed = CommandLine::try_parse_from(line).expect("parses");
            assert_eq!(parsed.format(), expected, "{line:?}");
        }
    }

    #[test]
    fn every_leaf_command_has_examples() {
        fn visit(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let mut children = command.get_subcommands().peekable();
            if children.peek().is_none() {
                let help = command
                    .get_after_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                assert!(
                    help.contains("Examples:\n  mielin "),
                    "{path} has no examples"
                );
            }
            children.for_each(|child| visit(child, &path));
        }
        visit(&CommandLine::command(), "");
    }
}
