//! Arguments of `mielin mesh`, and those that every command which runs a node shares.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand, ValueEnum};
use mielin_mesh::{BootstrapNode, LineSource};
use mielin_mesh_core::NodeRole;
use mielin_wasm::EngineKind;

use super::OutputArgs;
use crate::duration::parse_lifetime;

#[derive(Subcommand)]
pub(crate) enum MeshCommand {
    /// Found a mesh and run its first node in the foreground
    ///
    /// The mesh gets a root of its own. The command prints a token with which one other node can
    /// join; `mielin mesh token` makes more. In a data directory that founded a mesh already, the
    /// same node starts again. It stops cleanly on SIGTERM or Ctrl-C.
    Start(StartArgs),
    /// Join a mesh and run the node in the foreground
    ///
    /// With a token it joins at once. Without one it shows its id and waits until somebody runs
    /// `mielin mesh approve` on the node that founded the mesh. A data directory that belongs to
    /// the mesh already just starts. It stops cleanly on SIGTERM or Ctrl-C.
    Join(JoinArgs),
    /// Show this node and the members of its mesh
    ///
    /// A member is `alive`; `suspect` when it did not answer; `dead` when it stayed silent; `stopped`
    /// when its daemon was stopped and is expected back; `left` after `mesh leave`; or `revoked` when it was
    /// shut out.
    #[command(after_help = "\
Examples:
  mielin mesh status
  mielin --data-dir /tmp/edge mesh status -o json")]
    Status(OutputArgs),
    /// List the other members of the mesh, and how they are connected with this node
    ///
    /// PATH is `direct`, or `via` the relay through which a member's packets come, or `-` while there
    /// is no connection. VERSION is that of a connected member's program; what it serves is in the JSON
    /// output, and so are the relays of a member that cannot be dialled.
    #[command(after_help = "\
Examples:
  mielin mesh peers
  mielin mesh peers -o json")]
    Peers(OutputArgs),
    /// Print a token with which one node may join, or several
    ///
    /// Only the node that founded the mesh has tokens to give.
    Token(TokenArgs),
    /// Admit a node that asked to join without a token; without NODE, list those that wait
    ///
    /// Only the node that founded the mesh can. Compare the id with the one that the node shows.
    Approve(ApproveArgs),
    /// Shut a node out of the mesh for good; without NODE, list those that are
    ///
    /// Every member closes its connections with the node at once, or as soon as it hears of it, and
    /// neither lets it in nor believes what it said about agents. Nothing takes this back: the machine
    /// can join again only with a new identity, from another data directory. Only the node that founded
    /// the mesh can revoke.
    Revoke(RevokeArgs),
    /// Admit microcontrollers that hold on to this node, and see them
    #[command(subcommand)]
    Leaf(LeafCommand),
    /// Measure the way to a member
    ///
    /// Sends requests, one after the other, over the connection that the nodes use, and prints how
    /// long the answers took. The first may have to make the connection.
    Ping(PingArgs),
    /// Show the way that is taken to a member
    ///
    /// `direct` with the member's address; `via` a relay, for a member that cannot be dialled; or the
    /// members that hand messages on, where no connection can be made. Times are those of a request
    /// and its answer. The way is searched for as for a message: when there is no connection yet,
    /// that can take some seconds.
    Route(RouteArgs),
    /// Ask the mesh where an agent is
    ///
    /// Looks in the table that the nodes keep together: each agent's node signs where it is, and
    /// the three nodes nearest to the agent's id, and to its name, keep that. Shows what was found
    /// and how.
    Lookup(LookupArgs),
    /// Print what this node measures, in the text format of Prometheus
    ///
    /// Members by state and their changes, connections, bytes, lost packets and round trip times,
    /// searches. `GET /v1/mesh/metrics` on the daemon's socket gives the same.
    #[command(after_help = "\
Examples:
  mielin mesh metrics
  mielin mesh metrics | grep rtt
  curl --unix-socket /tmp/edge/control.sock http://localhost/v1/mesh/metrics")]
    Metrics(OutputArgs),
    /// Leave the mesh and stop the daemon
    ///
    /// The other members show this node as `left`, and its name is free for another. The command
    /// returns when the daemon has ended.
    #[command(after_help = "\
The identity stays in the data directory: `mielin daemon` comes back with it. Agents that live on
this node stop and are kept there too; move them first if they should go on.

Examples:
  mielin mesh leave")]
    Leave(OutputArgs),
}

#[derive(Args)]
#[command(after_help = "\
A new node listens on 0.0.0.0:9000 with the preset lan and the engine wasmtime. One that ran before
keeps what it had, unless others are given.

Examples:
  mielin mesh start --bind 0.0.0.0:9000
  mielin --data-dir /tmp/core mesh start --bind 127.0.0.1:0 --name core --role core --preset lan
  mielin mesh start --role relay --leaf-serial /dev/ttyACM0 --leaf-udp 0.0.0.0:9100")]
pub(crate) struct StartArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// The node's name, which no other in the mesh has [default: the host's name and hex digits]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// What the node is for [default: core]; relay and core join members that cannot dial each other
    #[arg(long)]
    pub(crate) role: Option<RoleChoice>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args)]
#[command(after_help = "\
A new node listens on 0.0.0.0:9000, or on another port if that is taken, with the preset lan and the
engine wasmtime. One that ran before keeps what it had, unless others are given.

Examples:
  mielin mesh join 192.168.1.100:9000 --token T
  mielin mesh join 192.168.1.100:9000
  mielin --data-dir /tmp/edge mesh join 127.0.0.1:9000 --token T --bind 127.0.0.1:0 --name edge")]
pub(crate) struct JoinArgs {
    /// Address of a member, as HOST:PORT; HOST may be a name
    #[arg(value_name = "ADDR")]
    pub(crate) address: String,
    /// The token that `mesh start` or `mesh token` printed
    #[arg(long, env = "MIELIN_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// The node's name, which no other in the mesh has [default: the host's name and hex digits]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// What the node is for [default: what the token says, else edge]; relay and core join members
    /// that cannot dial each other
    #[arg(long)]
    pub(crate) role: Option<RoleChoice>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// How a node runs, whichever command starts it.
#[derive(Args, Clone, Debug)]
pub(crate) struct NodeArgs {
    /// Address and port to listen on, for UDP and TCP; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) bind: Option<SocketAddr>,
    /// A member to contact first, as HOST:PORT; may be given several times, and
    /// replaces those of the last run
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) bootstrap: Vec<BootstrapNode>,
    /// How soon a silent member is suspected
    #[arg(long)]
    pub(crate) preset: Option<PresetChoice>,
    /// Whether others can dial this node [default: auto]
    #[arg(long)]
    pub(crate) dialable: Option<DialableChoice>,
    /// The WebAssembly engine: wasmtime or wasmi
    #[arg(long, value_name = "ENGINE", value_parser = parse_engine)]
    pub(crate) engine: Option<EngineKind>,
    #[command(flatten)]
    pub(crate) bounds: Bounds,
    #[command(flatten)]
    pub(crate) leaves: LeafArgs,
    #[command(flatten)]
    pub(crate) switches: Switches,
    /// Stop when standard input ends, so that the node does not outlive its parent
    #[arg(long, hide = true)]
    pub(crate) stop_on_stdin_end: bool,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  mielin mesh token
  mielin mesh token --role relay --ttl 10m -o json
  mielin mesh token --uses 20 --ttl 1d")]
pub(crate) struct TokenArgs {
    /// What the joining node will be for [default: what it asks for]
    #[arg(long)]
    pub(crate) role: Option<RoleChoice>,
    /// How long the token is good for: a number with s, m, h or d, at most 30d
    #[arg(long, default_value = "1h", value_parser = parse_lifetime)]
    pub(crate) ttl: Duration,
    /// How many nodes may join with it
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) uses: u16,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  mielin mesh approve
  mielin mesh approve 3f2a91")]
pub(crate) struct ApproveArgs {
    /// Id, unique prefix or name of the node that waits
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) node: Option<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args)]
#[command(after_help = "\
Agents that the node held are lost to the mesh; start them anew elsewhere.

Examples:
  mielin mesh revoke edge --reason 'the laptop was stolen'
  mielin mesh revoke
  mielin mesh revoke -o json")]
pub(crate) struct RevokeArgs {
    /// Id, unique prefix or name of the node; a whole id for one that nobody remembers
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) node: Option<String>,
    /// Why, for those who read the list: one line of at most 256 bytes
    #[arg(long, default_value = "", hide_default_value = true, requires = "node")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  mielin mesh ping edge
  mielin mesh ping 3f2a91 --count 20 -o json")]
pub(crate) struct PingArgs {
    /// Id, unique prefix or name of the node
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) node: String,
    /// How many requests to send
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) count: u32,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  mielin mesh route edge
  mielin mesh route 3f2a91 -o json")]
pub(crate) struct RouteArgs {
    /// Id, unique prefix or name of the node
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) node: String,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  mielin mesh lookup counter
  mielin mesh lookup 00112233445566778899aabbccddeeff -o json")]
pub(crate) struct LookupArgs {
    /// Whole id or name of the agent
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) agent: String,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Leaves are microcontrollers: too small for the mesh's own protocols, they hold on to one relay, over a serial
/// line or UDP, which speaks for them.
#[derive(Subcommand)]
pub(crate) enum LeafCommand {
    /// Admit one leaf; prints what it has to be given
    ///
    /// What a leaf has to be given stands in its provisioning page, which `--page` makes: 1,024 bytes for the end of the board's code memory.
    /// Without it the admission alone is printed. Whoever has that can be the leaf until the leaf has used it; from then on it is
    /// good for the leaf's key alone. The page has the key, too: whoever reads it is the leaf.
    Add(LeafAddArgs),
    /// List the leaves of this node
    ///
    /// A leaf is `awaited` until it has been there once, then `connected`, `asleep` or `gone`.
    #[command(after_help = "\
Examples:
  mielin mesh leaf list
  mielin mesh leaf list -o json")]
    List(OutputArgs),
    /// Take the admission of a leaf back
    ///
    /// Agents that are on it are lost to the mesh: move them here first, or say `--force`.
    Remove(LeafRemoveArgs),
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  mielin mesh leaf add greenhouse --page greenhouse.page
  mielin mesh leaf add greenhouse -o json")]
pub(crate) struct LeafAddArgs {
    /// What the leaf is called here
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) name: String,
    /// Make a provisioning page with a key and a seed for this leaf, and write it there
    #[arg(long, value_name = "FILE")]
    pub(crate) page: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  mielin mesh leaf remove greenhouse")]
pub(crate) struct LeafRemoveArgs {
    /// Name, number or id of the leaf
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) leaf: String,
    /// Lose the agents that are on it
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Where microcontrollers reach the node. What was given last is remembered.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Leaves")]
pub(crate) struct LeafArgs {
    /// A serial line with a leaf: a device, such as /dev/ttyACM0 or /dev/ttyUSB0@9600, or unix:PATH, a socket
    /// on which an emulator listens; may be given several times
    ///
    /// The speed is 115200 unless one is given. A line that is not there is tried until it is. The node must be a
    /// relay or core.
    #[arg(long, value_name = "LINE")]
    pub(crate) leaf_serial: Vec<LineSource>,
    /// Address and port on which datagrams of leaves are taken in
    #[arg(long, value_name = "ADDR")]
    pub(crate) leaf_udp: Option<SocketAddr>,
    /// Host no leaves any more
    #[arg(long, conflicts_with_all = ["leaf_serial", "leaf_udp"])]
    pub(crate) no_leaves: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleChoice {
    /// A machine that comes and goes
    Edge,
    /// A machine that others can dial: joins members that cannot dial each other
    Relay,
    /// A machine that stays
    Core,
}

impl From<RoleChoice> for NodeRole {
    fn from(choice: RoleChoice) -> NodeRole {
        match choice {
            RoleChoice::Edge => NodeRole::Edge,
            RoleChoice::Relay => NodeRole::Relay,
            RoleChoice::Core => NodeRole::Core,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PresetChoice {
    /// Suspect after 2 s, dead after 5 s: machines that see each other well
    Lan,
    /// Suspect after 15 s, dead after 30 s
    Wan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DialableChoice {
    /// Members try it; a node that they cannot dial is reached through relays
    Auto,
    /// They cannot: the node is reached through relays from the start
    No,
}

/// How much the node takes on. What was given last is remembered.
#[derive(
    Args, Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize,
)]
#[command(next_help_heading = "Limits")]
#[serde(default)]
pub(crate) struct Bounds {
    /// How many agents may live here at once, those that arrive included, 1 to 131072 [default: 131072]
    ///
    /// An agent that waits takes some kilobytes of memory, besides what it has touched itself.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=131_072), allow_negative_numbers = true)]
    pub(crate) agents_max: Option<u32>,
    /// How many agents that do not run stay ready to, 0 to 16000 [default: 256]
    ///
    /// The others are made ready again when they go on, which takes some hundred microseconds. One that stays ready
    /// takes some 30 KiB, and four mappings of memory, of which Linux allows a process 65530.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=16_000), allow_negative_numbers = true)]
    pub(crate) live_instances_max: Option<u32>,
}

impl Bounds {
    /// These, and where none was given those of the last run.
    pub(crate) fn or(self, last: Bounds) -> Bounds {
        Bounds {
            agents_max: self.agents_max.or(last.agents_max),
            live_instances_max: self.live_instances_max.or(last.live_instances_max),
        }
    }
}

/// Parts of a node that can be off. What was given last is remembered.
#[derive(
    Args, Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize,
)]
#[command(next_help_heading = "Switching parts off")]
#[serde(default)]
pub(crate) struct Switches {
    /// Find members on the same link, and be found, by multicast DNS [default: on]
    ///
    /// A node bound to a loopback address does so among those of this machine.
    #[arg(long, value_name = "SWITCH", value_parser = parse_switch)]
    pub(crate) mdns: Option<bool>,
    /// Take part in membership [default: on]; without it the node knows nobody
    #[arg(long, value_name = "SWITCH", value_parser = parse_switch)]
    pub(crate) gossip: Option<bool>,
    /// Say and learn where agents are [default: on]
    #[arg(long, value_name = "SWITCH", value_parser = parse_switch)]
    pub(crate) registry: Option<bool>,
    /// Let agents move here and away [default: on]
    #[arg(long, value_name = "SWITCH", value_parser = parse_switch)]
    pub(crate) migration: Option<bool>,
}

impl Switches {
    /// The names of the parts that are off.
    pub(crate) fn off(self) -> Vec<String> {
        let parts = [
            ("mdns", self.mdns),
            ("gossip", self.gossip),
            ("registry", self.registry),
            ("migration", self.migration),
        ];
        let off = parts.into_iter().filter(|(_, on)| *on == Some(false));
        off.map(|(name, _)| name.to_owned()).collect()
    }

    /// These, and where nothing was given the last ones.
    pub(crate) fn or(self, last: Switches) -> Switches {
        Switches {
            mdns: self.mdns.or(last.mdns),
            gossip: self.gossip.or(last.gossip),
            registry: self.registry.or(last.registry),
            migration: self.migration.or(last.migration),
        }
    }
}

fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("use on or off".to_owned()),
    }
}

impl MeshCommand {
    pub(super) fn output(&self) -> OutputArgs {
        match self {
            MeshCommand::Start(arguments) => arguments.output,
            MeshCommand::Join(arguments) => arguments.output,
            MeshCommand::Token(arguments) => arguments.output,
            MeshCommand::Approve(arguments) => arguments.output,
            MeshCommand::Revoke(arguments) => arguments.output,
            MeshCommand::Ping(arguments) => arguments.output,
            MeshCommand::Route(arguments) => arguments.output,
            MeshCommand::Lookup(arguments) => arguments.output,
            MeshCommand::Leaf(LeafCommand::Add(arguments)) => arguments.output,
            MeshCommand::Leaf(LeafCommand::Remove(arguments)) => arguments.output,
            MeshCommand::Leaf(LeafCommand::List(output)) => *output,
            MeshCommand::Status(output)
            | MeshCommand::Peers(output)
            | MeshCommand::Metrics(output)
            | MeshCommand::Leave(output) => *output,
        }
    }
}

fn parse_engine(text: &str) -> Result<EngineKind, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not an engine; use wasmtime or wasmi"))
}
