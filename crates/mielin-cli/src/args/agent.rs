//! Arguments of `mielin agent`.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand, ValueEnum};

use super::OutputArgs;
use crate::duration::{parse_duration, parse_milliseconds};

#[derive(Subcommand)]
pub(crate) enum AgentCommand {
    /// List the agents of the whole mesh
    #[command(after_help = "\
Examples:
  mielin agent list
  mielin agent list -o json")]
    List(OutputArgs),
    /// Watch what the agents of the whole mesh use up
    ///
    /// Each second: the share of one processor that each had since the last, and since it was spawned its time on a
    /// processor, messages in and out, bytes of its log and calls of its node; its memory, and its budgets with how much
    /// of each is used up. Ctrl-C ends it. Where the output is no terminal, one table follows another.
    Top(TopArgs),
    /// Start a WebAssembly program as an agent on this node
    ///
    /// Any WASI preview-1 command will do. It may do nothing but compute, answer messages and write
    /// to its own logs unless it is allowed to: `clock`, `random`, `message` (send to anybody),
    /// `message:AGENT` (send to that one), `data` or `data:SIZE` (keep files in a directory `/data` of
    /// its own, which goes with it; 64MiB unless a size is given, at most 512MiB), `tensor` (the node's
    /// kernels for matrices), `sensor` and `actuator`, or `sensor:N` and `actuator:N` for a single one
    /// (what devices measure, and what they do). What it writes to standard output and standard error is kept; see `mielin agent logs`.
    ///
    /// What it may use up is bounded by budgets, wherever it goes: `cpu=10s`, `messages=1000`, `log=1MiB`,
    /// `host-calls=5M` for its whole life, after which it is ended with exit code 152; and as speeds `cpu=20%` of one
    /// processor, `messages=100/s`, `log=64KiB/s`, `host-calls=10k/s` (or `/m`, `/h`), at which it is held back.
    /// Beyond `memory=64MiB` its memory does not grow.
    Spawn(SpawnArgs),
    /// Show everything that is known about an agent
    #[command(after_help = "\
Examples:
  mielin agent inspect counter
  mielin agent inspect 8c1f -o json")]
    Inspect(AgentArgs),
    /// Print what an agent wrote, byte for byte
    ///
    /// `-o json` changes only how errors are printed.
    Logs(LogsArgs),
    /// Send a message to an agent
    Send(SendArgs),
    /// Stop an agent at its next safepoint until it is resumed
    #[command(after_help = "\
Examples:
  mielin agent pause counter")]
    Pause(AgentArgs),
    /// Let a paused or hibernated agent go on
    #[command(after_help = "\
Examples:
  mielin agent resume counter")]
    Resume(AgentArgs),
    /// Put an agent on its node's disk until something is asked of it
    ///
    /// Its memory is freed. It wakes by itself when a message comes for it and at the end of the wait that it is in, and
    /// when it is resumed, paused, moved, checkpointed or cloned. While it sleeps it also outlives a crash of its node.
    #[command(after_help = "\
Examples:
  mielin agent hibernate counter
  mielin agent send counter hello --wait     wakes it")]
    Hibernate(AgentArgs),
    /// Move an agent to another node while it runs
    Migrate(MigrateArgs),
    /// Write an agent to a file, and let it go on
    ///
    /// The file has all that the agent is: memory, stack, files, module, grants, limits and counters; not its log, and
    /// no messages. Only you can read it. The agent stands still while its memory is copied. A file of this name is
    /// replaced when the new one is whole.
    Checkpoint(CheckpointArgs),
    /// Make a new agent of a checkpoint, on this node
    ///
    /// It goes on where the checkpoint was taken, with an address and an id of its own and without messages: those are
    /// the original's, which may be alive. It may do what the original might do, so know where a file comes from, as
    /// you would of what you `--allow`; `mielin agent inspect` shows it.
    ///
    /// A file of a bare node says of an agent that was started there only what it may do: it gets this node's limits, no
    /// budget, and a name.
    Restore(RestoreArgs),
    /// Make a new agent that is a copy of one, on this or another node
    ///
    /// As `checkpoint` and `restore` would, without a file: the agent stands still while its memory is copied, and both
    /// go on from there. Messages on their way, and the log, stay the original's.
    Clone(CloneArgs),
    /// End an agent
    #[command(after_help = "\
Examples:
  mielin agent terminate counter")]
    Terminate(AgentArgs),
    /// Let an agent go on that is frozen in doubt
    ///
    /// An agent is in doubt when it was handed over to another node and that node does not answer: it may run there.
    /// It waits, and goes on or is given up by itself when the other node answers, so bring that one back if you can.
    /// Only if it never will, because the machine or its disk is gone, let the agent go on where it is frozen:
    /// if the other node does run it, two copies run until they hear of each other.
    #[command(after_help = "\
Examples:
  mielin agent inspect counter
  mielin agent recover counter")]
    Recover(AgentArgs),
    /// Forget an ended agent and delete its logs
    ///
    /// A node keeps its ended agents, with their logs and exit codes, also when it is started
    /// again; when there are too many the oldest are removed by themselves.
    #[command(after_help = "\
Examples:
  mielin agent remove digest")]
    Remove(AgentArgs),
    /// Wait until an agent has ended, wherever it moves, and print its exit code
    ///
    /// What is printed is the program's own exit code, 134 after a trap, 137 after `agent
    /// terminate` or 152 when it had used up its budget. The command itself exits with 0 when it has learned that code, whatever it is.
    #[command(after_help = "\
Examples:
  mielin agent wait digest
  mielin agent wait digest -o json
  test \"$(mielin agent wait digest)\" = 0 && mielin agent logs digest")]
    Wait(AgentArgs),
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  mielin agent top
  mielin agent top --once --sort memory
  mielin agent top -o json | jq -c '.agents[] | [.name, .cpu_percent]'")]
pub(crate) struct TopArgs {
    /// Print it once, with the shares of one second
    #[arg(long)]
    pub(crate) once: bool,
    /// What comes first
    #[arg(long, default_value = "cpu", value_name = "BY")]
    pub(crate) sort: SortChoice,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// What a table of agents is ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SortChoice {
    /// The share of a processor since the last time
    Cpu,
    /// The time on a processor
    Time,
    /// Bytes of memory
    Memory,
    /// Messages in and out
    Messages,
    /// Bytes of log
    Log,
    /// Calls of the node
    HostCalls,
    /// Its name
    Name,
    /// Its state
    State,
    /// The node's name
    Node,
}

#[derive(Args)]
pub(crate) struct AgentArgs {
    /// Id, unique prefix or name of the agent
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) agent: String,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  mielin agent spawn agents/prebuilt/hello.wasm
  mielin agent spawn digest.wasm --stdin README.md -- 1000000
  mielin agent spawn prog.wasm --name prog --allow clock --allow random
  mielin agent spawn agents/prebuilt/notebook.wasm --allow data:16MiB
  mielin agent spawn guest.wasm --budget cpu=20%,cpu=1h,memory=64MiB --budget messages=100/s")]
pub(crate) struct SpawnArgs {
    /// The WebAssembly module
    pub(crate) file: PathBuf,
    /// The agent's name: at most 63 of A-Z, a-z, 0-9, `-`, `_` and `.`, first a letter or digit
    /// [default: the file's name and hex digits]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// A file for the agent's standard input; `-` for this command's own
    #[arg(long, value_name = "FILE")]
    pub(crate) stdin: Option<PathBuf>,
    /// A capability to grant: clock, random, message, message:AGENT, data, data:SIZE, tensor, sensor,
    /// sensor:N, actuator or actuator:N; may be repeated
    #[arg(long, value_name = "CAP")]
    pub(crate) allow: Vec<String>,
    /// What it may use up, and how fast: cpu, messages, log, host-calls and memory, each as an amount or as an amount
    /// in a time; several with commas, or repeated
    #[arg(long, value_name = "WHAT=AMOUNT")]
    pub(crate) budget: Vec<String>,
    /// An environment variable; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_variable)]
    pub(crate) env: Vec<(String, String)>,
    /// Arguments of the program
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) args: Vec<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  mielin agent logs digest
  mielin agent logs -f --stderr digest")]
pub(crate) struct LogsArgs {
    /// Id, unique prefix or name of the agent
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) agent: String,
    /// Go on printing until the agent has ended
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Print standard error instead of standard output
    #[arg(long)]
    pub(crate) stderr: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  mielin agent send counter hello
  mielin agent send counter hello --wait
  mielin agent send counter - --wait < message.bin")]
pub(crate) struct SendArgs {
    /// Id, unique prefix or name of the agent
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) agent: String,
    /// The message; `-` reads it from standard input
    pub(crate) message: String,
    /// Wait for the agent's reply and print it
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait: a number with s, m, h or d
    #[arg(long, default_value = "30s", value_parser = parse_duration, requires = "wait")]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  mielin agent migrate digest relay
  mielin agent migrate digest relay --downtime-ms 1
  mielin agent migrate digest 3f2a91 --strategy post-copy -o json")]
pub(crate) struct MigrateArgs {
    /// Id, unique prefix or name of the agent
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) agent: String,
    /// Id, unique prefix or name of the node it shall go to
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) node: String,
    /// How to copy its memory
    #[arg(long, default_value = "auto")]
    pub(crate) strategy: StrategyChoice,
    /// How long it should stand still at most, in milliseconds: what would take longer follows it, where the strategy
    /// allows that (a wish, not a promise)
    #[arg(long, value_name = "MS", default_value_t = 5, value_parser = parse_milliseconds, allow_negative_numbers = true)]
    pub(crate) downtime_ms: u64,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args)]
#[command(after_help = "\
`-o` names the file here; `mielin -o json agent checkpoint …` prints JSON. With `-o -` what is printed otherwise goes to
standard error.

Examples:
  mielin agent checkpoint counter -o counter.checkpoint
  mielin -o json agent checkpoint 8c1f --output counter.checkpoint")]
pub(crate) struct CheckpointArgs {
    /// Id, unique prefix or name of the agent
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) agent: String,
    /// The file to write; `-` writes to standard output
    #[arg(id = "out_file", short = 'o', long = "output", value_name = "FILE")]
    pub(crate) out_file: PathBuf,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  mielin agent restore counter.checkpoint
  mielin agent restore counter.checkpoint --name counter-2")]
pub(crate) struct RestoreArgs {
    /// A file that `mielin agent checkpoint` or a bare node wrote; `-` reads standard input
    pub(crate) file: PathBuf,
    /// The new agent's name; needed if another agent has that of the original [default: that of the original, or one that
    /// is made up where the file does not say it]
    #[arg(long)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  mielin agent clone counter
  mielin agent clone counter relay --name counter-2")]
pub(crate) struct CloneArgs {
    /// Id, unique prefix or name of the agent
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) agent: String,
    /// Id, unique prefix or name of the node for the copy [default: the one that this command talks to]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) node: Option<String>,
    /// The copy's name [default: the original's and hex digits]
    #[arg(long)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StrategyChoice {
    /// By the size of its memory, how fast it writes, and the link
    Auto,
    /// Freeze it, then copy everything
    StopCopy,
    /// Copy while it runs, freeze it for the rest
    PreCopy,
    /// Freeze it, go on there at once, and let its memory follow
    PostCopy,
    /// Copy once while it runs, and let the rest follow
    Hybrid,
}

impl AgentCommand {
    pub(super) fn output(&self) -> OutputArgs {
        match self {
            AgentCommand::List(output) => *output,
            AgentCommand::Top(arguments) => arguments.output,
            AgentCommand::Spawn(arguments) => arguments.output,
            AgentCommand::Logs(arguments) => arguments.output,
            AgentCommand::Send(arguments) => arguments.output,
            AgentCommand::Migrate(arguments) => arguments.output,
            AgentCommand::Restore(arguments) => arguments.output,
            AgentCommand::Clone(arguments) => arguments.output,
            AgentCommand::Checkpoint(_) => OutputArgs { output: None },
            AgentCommand::Inspect(arguments)
            | AgentCommand::Pause(arguments)
            | AgentCommand::Resume(arguments)
            | AgentCommand::Hibernate(arguments)
            | AgentCommand::Terminate(arguments)
            | AgentCommand::Recover(arguments)
            | AgentCommand::Remove(arguments)
            | AgentCommand::Wait(arguments) => arguments.output,
        }
    }
}

fn parse_variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}
