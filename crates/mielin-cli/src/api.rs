//! The control API: what travels between commands and the daemon.
//!
//! The daemon speaks HTTP/1.1 on the Unix socket `control.sock` in its data directory, which only
//! its user can open. Bodies are JSON unless said otherwise. `AGENT` and `NODE` are ids, unique
//! prefixes of ids, or names, percent-encoded where they stand in a path.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /v1/node` | | [`NodeInfo`] |
//! | `POST /v1/node/stop` | | `{}`; the daemon then stops cleanly |
//! | `GET /v1/mesh` | | [`MeshStatus`] |
//! | `POST /v1/mesh/tokens` | [`TokenRequest`] | [`TokenIssued`] |
//! | `GET /v1/mesh/pending` | | [`PendingNodes`] |
//! | `POST /v1/mesh/approvals` | [`Approval`] | [`Approved`] |
//! | `GET /v1/mesh/revocations` | | [`Revocations`] |
//! | `POST /v1/mesh/revocations` | [`Revoke`] | [`Revoked`] |
//! | `GET /v1/mesh/metrics` | | what the node measures, in the text format of Prometheus |
//! | `POST /v1/mesh/ping` | [`Ping`] | [`Pong`] |
//! | `POST /v1/mesh/route` | [`Ping`] | [`Route`] |
//! | `POST /v1/mesh/lookup` | [`Lookup`] | [`LookedUp`] |
//! | `POST /v1/mesh/leave` | | `{}`; the daemon leaves the mesh and stops |
//! | `GET /v1/agents` | | [`AgentList`] |
//! | `POST /v1/agents` | [`Spawn`] | [`Spawned`] |
//! | `GET /v1/usage` | | [`UsageList`] |
//! | `GET /v1/agents/AGENT` | | [`AgentDetails`] |
//! | `POST /v1/agents/AGENT/pause`, `/resume`, `/hibernate`, `/terminate`, `/recover`, `/remove` | | [`Spawned`] |
//! | `POST /v1/agents/AGENT/checkpoint` | | the checkpoint, as `application/octet-stream` |
//! | `POST /v1/agents/AGENT/clone` | [`Duplicate`] | [`Spawned`]: the new agent |
//! | `POST /v1/checkpoints?name=NAME` | a checkpoint, as it is | [`Spawned`]; the name may be left out |
//! | `POST /v1/agents/AGENT/messages` | [`Message`] | [`Delivered`] |
//! | `POST /v1/agents/AGENT/migrate` | [`Migrate`] | lines of [`MoveLine`], the last one `done` or `error` |
//! | `GET /v1/agents/AGENT/wait` | | [`Ended`], when the agent has ended |
//! | `GET /v1/agents/AGENT/logs?stream=stdout&offset=0&follow=false` | | the bytes, as `application/octet-stream`; with `follow=true` until the agent has ended |
//!
//! A failure is answered with a status of 400 (usage), 409 (refused), 404 (not found), 504
//! (unreachable) or 500 (internal) and the body `{"error":{"code","message","hint"}}`. A log
//! that fails in its middle breaks the connection off.

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// Room for the largest checkpoint: memory and `/data` of 512 MiB each, a module, input and a stack.
pub(crate) const CHECKPOINT_BYTES_MAX: usize = 1280 << 20;

/// The node that the daemon runs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NodeInfo {
    pub(crate) node: String,
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) address: String,
    pub(crate) version: String,
    pub(crate) engine: String,
    pub(crate) pid: u32,
    pub(crate) uptime_s: u64,
    pub(crate) data_dir: String,
    /// Fingerprint of the mesh's root, for the users of joiners to compare.
    pub(crate) mesh: String,
    /// Whether this node holds the mesh's root: it issues tokens and approves joiners.
    pub(crate) root: bool,
    /// When the node's certificate ends, in seconds since 1970.
    #[serde(default)]
    pub(crate) certificate_expires_s: u64,
    /// The parts that are switched off: `mdns`, `gossip`, `registry`, `migration`.
    #[serde(default)]
    pub(crate) off: Vec<String>,
    #[serde(default)]
    pub(crate) limits: NodeLimits,
    #[serde(flatten)]
    pub(crate) trouble: Trouble,
}

/// How much a node takes on.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct NodeLimits {
    /// Agents that may live there at once.
    pub(crate) agents_max: usize,
    /// Agents that stay ready to run while they do not.
    pub(crate) live_instances_max: usize,
}

/// What is wrong with the node itself, where something is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Trouble {
    /// Another process runs as this node, with a copy of its data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) copy: Option<RunningCopy>,
    /// The mesh has shut the node out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) revoked: Option<OwnRevocation>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OwnRevocation {
    /// Milliseconds since 1970 by the clock of the node that holds the root.
    pub(crate) revoked_ms: u64,
    pub(crate) reason: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RunningCopy {
    /// Where it listens, as far as is known.
    pub(crate) address: String,
    /// Whether it has proved to hold the node's key. Else members say so, and nobody was found.
    pub(crate) proved: bool,
    /// Whether this process keeps out of the mesh until that one is gone.
    pub(crate) gives_way: bool,
}

/// This node and the members of its mesh, itself included.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MeshStatus {
    pub(crate) node: String,
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) members: Vec<MemberLine>,
    /// Members that did not say which leaves they host.
    #[serde(default)]
    pub(crate) silent: Vec<NodeName>,
    #[serde(flatten)]
    pub(crate) trouble: Trouble,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MemberLine {
    pub(crate) node: String,
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) state: String,
    /// `None` of a leaf.
    pub(crate) address: Option<String>,
    /// How it is connected with this node; `None` when it is not.
    pub(crate) path: Option<PathLine>,
    /// The version of its program; `None` when it is not connected with this node.
    pub(crate) version: Option<String>,
    /// What both it and this node serve; nothing when it is not connected.
    pub(crate) features: Vec<String>,
    /// The relays through which it is reached; none when it can be dialled.
    pub(crate) relays: Vec<NodeName>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub(crate) enum PathLine {
    Direct,
    /// The relay is missing in the moment in which one replaces another.
    Relayed {
        relay: Option<NodeName>,
    },
}

/// A microcontroller that holds on to this node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LeafLine {
    pub(crate) number: u32,
    pub(crate) name: String,
    /// `None` until it has been there.
    pub(crate) node: Option<String>,
    /// `awaited`, `connected`, `asleep` or `gone`.
    pub(crate) state: String,
    /// Whether it takes agents, as it said last; `None` when it has said nothing since this node started.
    pub(crate) ready: Option<bool>,
    /// The largest agent that it takes, in bytes.
    pub(crate) room_bytes: Option<u32>,
    pub(crate) battery_percent: Option<u8>,
    pub(crate) charging: Option<bool>,
    pub(crate) sensors: Option<u8>,
    pub(crate) actuators: Option<u8>,
    /// Agents that are on it.
    pub(crate) agents: Vec<String>,
    /// The newest hand-overs since this node started.
    pub(crate) handovers: Vec<HandoverLine>,
}

/// An agent that was handed over between a leaf and this node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct HandoverLine {
    pub(crate) agent: String,
    /// `to-leaf` or `from-leaf`.
    pub(crate) direction: String,
    /// The length of its checkpoint.
    pub(crate) bytes: u64,
    /// How long it stood still, in microseconds.
    pub(crate) us: u64,
}

/// `GET /v1/leaves`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LeafList {
    pub(crate) leaves: Vec<LeafLine>,
    pub(crate) ways: Vec<WayLine>,
}

/// A way on which leaves reach the node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WayLine {
    /// `udp` or `line`.
    pub(crate) kind: String,
    /// The address that listens, or the line.
    pub(crate) way: String,
    /// Why it is closed at the moment.
    pub(crate) closed: Option<String>,
    /// The packets that were accepted, also hellos of somebody with another secret.
    pub(crate) packets: u64,
    /// What came and was none of an admitted leaf, and why the last one was not.
    pub(crate) dropped: u64,
    pub(crate) last_dropped: Option<String>,
}

/// `POST /v1/leaves`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NewLeaf {
    pub(crate) name: String,
}

/// Whether a leaf is removed with its agents.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RemoveLeaf {
    pub(crate) force: bool,
}

/// What a leaf has to be given.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LeafAdmitted {
    pub(crate) number: u32,
    pub(crate) name: String,
    pub(crate) admission: String,
}

/// The way to a node that was taken just now; times in microseconds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Route {
    pub(crate) node: String,
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) way: Way,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub(crate) enum Way {
    Direct {
        address: String,
        rtt_us: u64,
    },
    Relayed {
        relay: Option<NodeName>,
        rtt_us: u64,
    },
    /// Members hand messages on; the last hop is the node itself.
    Routed {
        hops: Vec<HopLine>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HopLine {
    #[serde(flatten)]
    pub(crate) node: NodeName,
    /// From the node before, to the end of the way and back.
    pub(crate) rtt_us: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TokenRequest {
    /// `edge`, `relay` or `core`; without it the joiner chooses.
    pub(crate) role: Option<String>,
    pub(crate) ttl_s: u64,
    /// Nodes that it admits, 1 to 100; without it 1.
    #[serde(default = "one")]
    pub(crate) uses: u16,
}

fn one() -> u16 {
    1
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TokenIssued {
    pub(crate) token: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PendingNodes {
    pub(crate) pending: Vec<PendingLine>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PendingLine {
    pub(crate) node: String,
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) address: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Approval {
    pub(crate) node: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Approved {
    pub(crate) node: String,
    pub(crate) name: String,
}

/// A node to shut out of the mesh.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Revoke {
    pub(crate) node: String,
    /// One line for people, possibly empty.
    pub(crate) reason: String,
}

/// A node was shut out.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Revoked {
    #[serde(flatten)]
    pub(crate) node: NodeName,
    /// Whether it was not before.
    pub(crate) new: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Revocations {
    pub(crate) revoked: Vec<RevokedNode>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RevokedNode {
    #[serde(flatten)]
    pub(crate) node: NodeName,
    /// Milliseconds since 1970 by the clock of the node that holds the root.
    pub(crate) revoked_ms: u64,
    pub(crate) reason: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ping {
    pub(crate) node: String,
}

/// A node has answered.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Pong {
    pub(crate) node: String,
    pub(crate) name: String,
    /// Where its packets come from; `None` when they come through a relay.
    pub(crate) address: Option<String>,
    /// The relay; also `None` in the moment in which one replaces another.
    pub(crate) relay: Option<NodeName>,
    pub(crate) rtt_us: u64,
}

/// An agent to look for in the table: its whole id, or its name.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Lookup {
    pub(crate) agent: String,
}

/// What the table says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LookedUp {
    pub(crate) agents: Vec<FoundAgent>,
    /// The nodes nearest to the key that answered, nearest first.
    pub(crate) closest: Vec<NodeName>,
    pub(crate) hops: u32,
    /// Nodes that were asked.
    pub(crate) queries: usize,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FoundAgent {
    pub(crate) agent: String,
    pub(crate) name: String,
    pub(crate) state: String,
    /// The node that holds it.
    pub(crate) at: NodeName,
    pub(crate) epoch: u64,
}

/// A node, with its name where that is known.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NodeName {
    pub(crate) node: String,
    pub(crate) name: Option<String>,
}

/// Nothing more to say.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Done {}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AgentList {
    pub(crate) agents: Vec<AgentLine>,
    /// Members that did not answer: their agents may be missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) silent: Vec<String>,
    /// Members whose agents are not listed, because the registry is off there or here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) unlisted: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AgentLine {
    pub(crate) agent: String,
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) node: String,
}

/// An agent to start. `module` and `stdin` are in base 64.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Spawn {
    #[serde(with = "base64")]
    pub(crate) module: Vec<u8>,
    pub(crate) name: Option<String>,
    /// What a generated name begins with.
    pub(crate) hint: Option<String>,
    #[serde(default)]
    pub(crate) args: Vec<String>,
    #[serde(default)]
    pub(crate) env: Vec<(String, String)>,
    #[serde(default, with = "base64")]
    pub(crate) stdin: Vec<u8>,
    /// `clock`, `random`, `message` or `message:AGENT`.
    #[serde(default)]
    pub(crate) allow: Vec<String>,
    /// What it may use up, and how fast: `cpu=10s,messages=100/s`. Empty bounds nothing.
    #[serde(default)]
    pub(crate) budget: String,
}

/// The agent that was started or acted on.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Spawned {
    pub(crate) agent: String,
}

/// What an agent that is made of a checkpoint is called; without a name as the checkpoint says, if it does.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct NewName {
    pub(crate) name: Option<String>,
}

/// Where a copy of an agent is to live, and what it is called; without a node on this one.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Duplicate {
    #[serde(default)]
    pub(crate) node: Option<String>,
    #[serde(default)]
    pub(crate) name: Option<String>,
}

/// Everything that its node tells about an agent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AgentDetails {
    pub(crate) agent: String,
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) node: String,
    pub(crate) node_name: String,
    pub(crate) epoch: u64,
    pub(crate) module: String,
    pub(crate) engine: String,
    pub(crate) grants: String,
    pub(crate) started_ms: u64,
    pub(crate) stdout_bytes: u64,
    pub(crate) stderr_bytes: u64,
    /// Where each of both is cut off.
    pub(crate) log_bytes_max: u64,
    pub(crate) mailbox_count: u64,
    /// The node that may have it, and for whose answer this frozen copy waits.
    #[serde(default)]
    pub(crate) waits_for: Option<String>,
    pub(crate) turns: u64,
    pub(crate) busy_us: u64,
    #[serde(flatten)]
    pub(crate) usage: Usage,
    pub(crate) denied: u64,
    pub(crate) moves: u64,
    /// The newest lines that nodes wrote about the agent, denials among them.
    pub(crate) host_log: Vec<HostLogLine>,
}

/// What an agent has used up since it was spawned, and of what.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// It was faster than its budget allows, and is held back for a while.
    pub(crate) throttled: bool,
    pub(crate) cpu_us: u64,
    pub(crate) memory_bytes: u64,
    /// What its memory may become.
    pub(crate) memory_bytes_max: u64,
    pub(crate) messages_received: u64,
    pub(crate) messages_sent: u64,
    pub(crate) log_bytes: u64,
    pub(crate) host_calls: u64,
    pub(crate) budgets: Vec<BudgetLine>,
}

/// A part of an agent's budget.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BudgetLine {
    /// As it was chosen: `cpu=10s`, or `messages=100/s`.
    pub(crate) budget: String,
    /// How much of it is used up, in nanoseconds, bytes or a number. A speed is not used up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) used: Option<u64>,
    /// How much it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max: Option<u64>,
}

/// The living agents of the mesh and what they use up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct UsageList {
    pub(crate) agents: Vec<UsageLine>,
    /// Members that did not answer, for all agents or some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) silent: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct UsageLine {
    pub(crate) agent: String,
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) node: NodeName,
    /// Nothing where its node does not answer.
    #[serde(flatten)]
    pub(crate) usage: Option<Usage>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HostLogLine {
    pub(crate) time_ms: u64,
    pub(crate) level: String,
    pub(crate) text: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Message {
    #[serde(with = "base64")]
    pub(crate) payload: Vec<u8>,
    /// Wait so long for the agent's reply; without it only until the message is in the mailbox.
    pub(crate) wait_ms: Option<u64>,
}

/// A message that arrived, with its number, or the reply to it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Delivered {
    Sequence(u64),
    #[serde(with = "base64")]
    Reply(Vec<u8>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Migrate {
    pub(crate) node: String,
    /// `auto`, `stop-copy`, `pre-copy`, `post-copy` or `hybrid`.
    pub(crate) strategy: String,
    /// How long the agent should stand still at most.
    #[serde(default)]
    pub(crate) downtime_ms: Option<u64>,
}

/// One line of the answer to a migration.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MoveLine {
    /// A phase begins.
    Progress(MoveStep),
    /// The agent has moved.
    Done(Box<Moved>),
    /// It has not.
    Error(Failure),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MoveStep {
    pub(crate) phase: String,
    pub(crate) bytes: u64,
    pub(crate) elapsed_us: u64,
}

/// A completed move, which is what `agent migrate -o json` prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Moved {
    pub(crate) agent: String,
    pub(crate) from: String,
    pub(crate) to: String,
    /// What was done.
    pub(crate) strategy: String,
    /// What was asked for, if that was anything else: the target does not let memory follow, or none was left to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) asked: Option<String>,
    pub(crate) downtime_us: u64,
    pub(crate) total_us: u64,
    pub(crate) bytes: u64,
    pub(crate) rounds: u32,
    /// 4 KiB pages sent in each round, the last one while the agent was frozen.
    pub(crate) pages: Vec<u64>,
    pub(crate) phases: Vec<PhaseLine>,
    /// How written pages were found, or `none`.
    pub(crate) tracker: String,
    /// From the last frozen byte until the agent could run, measured by the target.
    pub(crate) target_resume_us: u64,
    /// Pages that followed while it ran at the target, and those of them that it had to wait for.
    #[serde(default)]
    pub(crate) followed: u64,
    #[serde(default)]
    pub(crate) faults: u64,
    /// Pages that were written with what the target had already, and not sent again.
    #[serde(default)]
    pub(crate) unchanged: u64,
    /// The largest share of its time that was taken from the agent so that it did not outrun the rounds.
    #[serde(default)]
    pub(crate) throttled_percent: u8,
    /// Bytes of pages before and after compression, where there was any.
    #[serde(default)]
    pub(crate) page_bytes: u64,
    #[serde(default)]
    pub(crate) page_bytes_sent: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PhaseLine {
    pub(crate) phase: String,
    pub(crate) us: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) exit_code: i32,
    /// Why the agent did not end by itself.
    pub(crate) failure: Option<String>,
}

/// Which log, and from where.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LogQuery {
    #[serde(default)]
    pub(crate) stream: LogStream,
    #[serde(default)]
    pub(crate) offset: u64,
    #[serde(default)]
    pub(crate) follow: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogStream {
    #[default]
    Stdout,
    Stderr,
}

/// Writes a text so that it can stand as one segment of a path.
pub(crate) fn path_segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                segment.push(byte.into())
            }
            _ => segment.push_str(&format!("%{byte:02X}")),
        }
    }
    // A segment of dots alone would be taken for a folder.
    if segment.chars().all(|c| c == '.') {
        segment.replace('.', "%2E")
    } else {
        segment
    }
}

mod base64 {
    //! Bytes as text in base 64, with padding (RFC 4648, section 4).

    use data_encoding::BASE64;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64
            .decode(text.as_bytes())
            .map_err(|error| de::Error::custom(format!("not base 64: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_segments_hold_anything() {
        assert_eq!(path_segment("counter-1.b_c"), "counter-1.b_c");
        assert_eq!(path_segment("a/b ?ö"), "a%2Fb%20%3F%C3%B6");
        assert_eq!(path_segment(".."), "%2E%2E");
    }
}
