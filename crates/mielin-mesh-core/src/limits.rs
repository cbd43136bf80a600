//! The constants of the protocols, each with where it comes from.
//!
//! "Design" marks the constants that the system's design fixes; the others were chosen here, with the reason
//! beside them.

use core::time::Duration;

/// The largest payload of one message. Design: 16 MiB of payload, headers not counted.
pub const PAYLOAD_BYTES_MAX: usize = 16 << 20;

/// The largest value that goes through [`crate::codec`] unless the caller names another limit. Everything
/// larger in this project is raw bytes behind a header.
pub const CODEC_BYTES_MAX: usize = 1 << 20;

/// The longest name of a node or an agent. It bounds what a membership datagram must carry.
pub const NAME_BYTES_MAX: usize = 64;

/// The largest membership datagram. QUIC guarantees paths of 1,200 bytes (RFC 9000, section 14); what is
/// left for a DATAGRAM frame's payload is at least 1,150 with quinn's header and tag sizes.
pub const MEMBERSHIP_DATAGRAM_BYTES_MAX: usize = 1_100;

/// Datagrams with which a member answers a digest that differs from its own; about ten members are in one, so a
/// newcomer learns of a thousand in some seven periods.
pub const MEMBERSHIP_SYNC_DATAGRAMS_MAX: usize = 16;
/// Pings that a member sends, evenly spread, in the time that it waits for an answer before it asks others to try. They
/// go on after that until the probe's time is over, so there are nine at most. The pauses of 0.8 s (WAN) and 0.1 s
/// (LAN) are longer than the way there and back, so without loss there is one.
pub const MEMBERSHIP_PINGS_BEFORE_HELP: u32 = 3;
/// WAN: a vanished member is a suspect after at most this long, if whoever probes it does well: with n points of bad
/// health a node waits n + 1 times as long. Design: 15 s.
pub const WAN_SUSPECT_AFTER: Duration = Duration::from_secs(15);
/// WAN: a vanished member is dead after at most this long, likewise: from two points on its suspects have n times as
/// long to refute. Design: 30 s.
pub const WAN_DEAD_AFTER: Duration = Duration::from_secs(30);
/// LAN: how often a member probes another. Design asks for "seconds".
pub const LAN_PROBE_PERIOD: Duration = Duration::from_secs(1);
/// LAN: how long a suspect has to refute, if the node that suspects it does well. Three probe periods, so that a loaded machine survives it.
pub const LAN_SUSPECT_TO_DEAD: Duration = Duration::from_secs(3);
/// How long a dead member is remembered (and announced to, so that a healed partition heals).
pub const DEAD_FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// Members that a node knows, the dead included: several times a group's size. About 2 MB with the longest names.
pub const MEMBERS_MAX: usize = 4_096;
/// By how much members may raise the generation of another in a probe period: four years, so that a restart after so
/// long is news that travels. A liar needs a hundred million periods to use up all generations.
pub const GENERATION_STEP: u64 = 1 << 37;
/// Steps by which a node passes at once a generation that others say it has, so that it overtakes whoever raises it.
pub const GENERATION_STEPS_OWN: u64 = 16;
/// The highest generation in which members tell of a node that was not heard of: the milliseconds until 2109. A node in
/// a higher one has to speak for itself.
pub const GENERATION_UNHEARD_MAX: u64 = 1 << 42;

/// How long a location record lives without being published again. Design: 10 min.
pub const REGISTRY_TTL: Duration = Duration::from_secs(600);
/// How often a holder publishes its records again: three chances within a life.
pub const REGISTRY_REFRESH: Duration = Duration::from_secs(200);
/// Records one node may have in the registry.
pub const REGISTRY_RECORDS_PER_NODE_MAX: usize = 8_192;
/// Records that a node remembers, found ones included: 16 MB with the longest names.
pub const REGISTRY_RECORDS_MAX: usize = 65_536;
/// Records in one answer of a member that is asked for all it knows: about 340 KB with the longest names and a
/// signature under each.
pub const REGISTRY_PAGE_MAX: usize = 1_024;

/// Nodes in a bucket, and in an answer. Kademlia's k; design: 20.
pub const KADEMLIA_K: usize = 20;
/// Disjoint paths of a search, each with one request in flight: together the α = 3 of the design.
pub const KADEMLIA_PATHS: u8 = 3;
/// Nodes that keep a record. Design: 3.
pub const KADEMLIA_REPLICAS: usize = 3;
/// Nodes that wait for a place in a full bucket.
pub const KADEMLIA_REPLACEMENTS: usize = 20;
/// Unanswered requests in a row after which a node is forgotten though nobody wants its place. The paper has 5.
pub const KADEMLIA_FAILURES_MAX: u8 = 5;
/// How long a request waits for its answer before it is repeated, and then given up. A connection may have to
/// be made first.
pub const KADEMLIA_RPC_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a request is sent at most.
pub const KADEMLIA_RPC_ATTEMPTS: u8 = 2;
/// A request without an answer for so long does not keep its search from asking the next node: several round
/// trips of a long path.
pub const KADEMLIA_SLOW_AFTER: Duration = Duration::from_millis(500);
/// A bucket in which nothing was looked for is looked through this often. The paper: one hour.
pub const KADEMLIA_REFRESH: Duration = Duration::from_secs(3_600);
/// A node that was silent for this long is asked whether it lives; one for each bucket at a time.
pub const KADEMLIA_SILENT_AFTER: Duration = Duration::from_secs(60);
/// Addresses of a node in a table.
pub const KADEMLIA_ADDRESSES_MAX: usize = 4;
/// Nodes that one search remembers: several answers for each path.
pub const KADEMLIA_CANDIDATES_MAX: usize = 256;
/// Nodes that one search asks, so that liars cannot keep it going.
pub const KADEMLIA_QUERIES_MAX: usize = 128;
/// Searches of one node at a time; more are refused.
pub const KADEMLIA_LOOKUPS_MAX: usize = 256;
/// Members that a node which knows nobody asks for the way in at once: one may be lost or gone, and membership may tell
/// of thousands before the first has answered.
pub const KADEMLIA_JOINS_MAX: usize = 3;
/// Searches at a time that a node makes to publish its own records.
pub const KADEMLIA_PUBLISHING_MAX: usize = 16;
/// Records that a node keeps for others: the share of one node when a thousand nodes have 8,192 agents each,
/// under two keys and at three places.
pub const KADEMLIA_RECORDS_MAX: usize = 65_536;
/// Records that a node keeps for one publisher: all that it may have, each under two keys.
pub const KADEMLIA_RECORDS_PER_PUBLISHER: usize = 2 * REGISTRY_RECORDS_PER_NODE_MAX;
/// Records under one key: so many agents of one name can be found by it.
pub const KADEMLIA_RECORDS_PER_KEY: usize = 16;

/// Messages that one agent may have unacknowledged towards all destinations.
pub const OUTBOX_COUNT_MAX: usize = 1_024;
/// Payload bytes that one agent may have unacknowledged: two of the largest messages.
pub const OUTBOX_BYTES_MAX: usize = 2 * PAYLOAD_BYTES_MAX;
/// Messages in flight towards one destination (the N of go-back-N).
pub const DELIVERY_WINDOW_COUNT: usize = 32;
/// Payload bytes in flight towards one destination; one message of any size may always fly.
pub const DELIVERY_WINDOW_BYTES: usize = 4 << 20;
/// How long the first transmission waits for its acknowledgement; doubled up to the maximum.
pub const DELIVERY_RETRY_MIN: Duration = Duration::from_millis(250);
/// The longest wait between two transmissions of the same message.
pub const DELIVERY_RETRY_MAX: Duration = Duration::from_secs(5);
/// Messages that may wait in one agent's mailbox.
pub const INBOX_COUNT_MAX: usize = 4_096;
/// Payload bytes that may wait in one agent's mailbox: two of the largest messages.
pub const INBOX_BYTES_MAX: usize = 2 * PAYLOAD_BYTES_MAX;
/// Different senders that one agent remembers.
pub const INBOX_SENDERS_MAX: usize = 262_144;

/// A move that has not reached its hand-over by then is rolled back. Design: 30 s.
pub const MIGRATION_TIMEOUT: Duration = Duration::from_secs(30);
/// Below this much non-zero memory plain stop-copy has the shorter downtime. Measured: about 1 MiB.
pub const STOP_COPY_BELOW_BYTES: u64 = 1 << 20;
/// Pre-copy stops when this few pages are dirty.
pub const PRE_COPY_PAGES_SMALL: u64 = 64;
/// Pre-copy stops when the dirty pages would go over the wire within this time.
pub const PRE_COPY_DOWNTIME_BUDGET: Duration = Duration::from_millis(5);
/// Pre-copy stops when more than this share of the pages that a round sent are dirty again after it. So all rounds
/// together send at most four times the memory, in at most 27 rounds for 512 MiB, and a set that stays as it is costs
/// one round for nothing; where the agent is restrained first, three rounds and three times the memory more. (Xen bounds the rounds by 29 and the pages by three times the memory, NSDI'05.)
pub const PRE_COPY_SHRINK_PERCENT: u128 = 75;
/// Shares of an agent's time, in percent, that are taken from it step by step when the rounds of pre-copy gain nothing and
/// nothing may follow. (QEMU's auto-converge begins with 20 and goes by tens to 99.) What writes ten times as fast as the
/// link takes it stops at the last; more would be a freeze by another name. Each step can cost one round for nothing.
pub const RESTRAINT_PERCENT: [u8; 3] = [50, 75, 90];
/// A chunk of pages is compressed if that and sending the rest takes at most this share of the time that sending it as it
/// is would take: less is eaten by the target, which has to undo it, and by the errors of the estimate.
pub const PACKING_WORTH_PERCENT: u32 = 75;
/// Chunks after which compressing is tried although it seemed hopeless. A trial of four pages takes some 30 µs.
pub const PACKING_TRIAL_EVERY: u32 = 64;
/// The least time over which a link's speed is measured; the first measurement takes no longer, because all that is sent
/// before it goes as it is.
pub const LINK_WINDOW_MIN: Duration = Duration::from_millis(2);
/// What must have left in the time of a measurement, or the measurement goes on: several of what a congestion window
/// holds at the beginning.
pub const LINK_WINDOW_BYTES: u64 = 128 << 10;
/// When a measurement ends although little has left: less than a tenth of a second of a slow link, or a round trip of a long one.
pub const LINK_WINDOW_MAX: Duration = Duration::from_millis(100);
/// How often a source in doubt asks the target what became of the agent.
pub const QUERY_PERIOD: Duration = Duration::from_secs(1);

/// Bytes of a memory page on the wire; the same as `mielin-safepoint`'s.
pub const PAGE_BYTES: usize = 4_096;
/// Different destinations that one agent may write to in its life; each costs a counter that travels.
pub const OUTBOX_DESTINATIONS_MAX: usize = 262_144;
/// What the counters and headers of a mailbox may occupy when they are decoded: room for the maximum of both.
pub const MAILBOX_HEADERS_BYTES_MAX: usize = 16 << 20;
/// How long a source waits after its `Go` for the target's `Running` before it is in doubt and asks on another
/// connection. Starting is a matter of microseconds.
pub const RESUME_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a target whose agent runs waits for the next page that is to follow, before it gives its copy up and the
/// agent goes on at the source; and how long the source serves it after the last page that it had not sent before. The
/// agent may be standing still for all of this time.
pub const FOLLOW_TIMEOUT: Duration = Duration::from_secs(10);
/// The slowest link, in bytes in a second, on which pages may follow a running agent: 1 Mbit/s. Pages take no longer than
/// that altogether, and [`FOLLOW_TIMEOUT`], or a target that fetches one now and then could keep the source's agent
/// frozen for days. 64 MiB may take 9 minutes.
pub const FOLLOW_BYTES_PER_SECOND_MIN: u64 = 125_000;
/// Agents whose arrival a target remembers for sources in doubt.
pub const ARRIVALS_MAX: usize = 16_384;
/// How long a target that runs the agent waits to hear that the source has let go, before it lets the agent's
/// messages out all the same. Several times [`QUERY_PERIOD`]: a source in doubt that can reach it has asked by
/// then.
pub const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);
/// Ended agents that a node keeps, with their logs, for whoever asks later; the one that ended first goes first.
/// At twice 64 MiB of logs for each that is 64 GiB at the very worst, where kilobytes are usual, and their records
/// and those of the living stay below [`REGISTRY_RECORDS_PER_NODE_MAX`].
pub const ENDED_AGENTS_MAX: usize = 512;

/// Relays with which an undialable node is registered, and that it advertises: one may die and another be on its way
/// out. They cross the wire with every mention of the node, at 32 bytes each.
pub const RELAYS_MAX: usize = 3;
/// Relays with which a node tries to be registered: one for when the other dies.
pub const RELAYS_WANTED: usize = 2;
/// How soon a direct way is tried when a connection goes through a relay.
pub const DIRECT_RETRY_MIN: Duration = Duration::from_secs(1);
/// How often a direct way is tried in the long run.
pub const DIRECT_RETRY_MAX: Duration = Duration::from_secs(60);
/// How often a node has one peer dial it back at most.
pub const DIAL_BACK_PERIOD: Duration = Duration::from_secs(10);
/// Links that a routed message crosses at most. Design: 16.
pub const ROUTED_HOPS_MAX: u8 = 16;
/// The longest life of a routed message. Whoever sends one has given up by then.
pub const ROUTED_TTL_MAX: Duration = Duration::from_secs(30);
/// Neighbours that one node tries for one message, one after the other. A message is taken in once by each node, so
/// it crosses at most so many times as many links as there are nodes.
pub const ROUTED_WAYS_MAX: usize = 3;
/// How long a node remembers a message: twice its longest life, so that no honest copy outlives the memory.
pub const ROUTED_SEEN_FOR: Duration = Duration::from_secs(60);
/// Messages of one source that a node remembers; more within [`ROUTED_SEEN_FOR`] are refused.
pub const ROUTED_SEEN_PER_SOURCE: usize = 8_192;
/// Messages of all sources that a node remembers; more are refused.
pub const ROUTED_SEEN_MAX: usize = 65_536;
/// Sources whose newest number a node remembers, when their messages are forgotten: several times a group's size.
pub const ROUTED_SOURCES_MAX: usize = 4_096;

/// Nodes that a mesh can have revoked in its life.
pub const REVOCATIONS_MAX: usize = 4_096;
/// Longest reason for a revocation.
pub const REVOCATION_REASON_BYTES_MAX: usize = 256;
/// Largest message about revocations: the ids of all.
pub const REVOCATION_MESSAGE_BYTES_MAX: usize = 160 << 10;

/// The largest packet of a leaf link. What a microcontroller holds of them is a few, and no path breaks it up.
pub const LEAF_PACKET_BYTES_MAX: usize = 512;
/// Messages of a leaf link in flight each way, and messages that wait at the receiver: what 8 KiB of memory bear.
pub const LEAF_WINDOW: usize = 4;
/// Messages that a leaf keeps until they are acknowledged; more are refused.
pub const LEAF_QUEUE_MAX: usize = 4;
/// Messages that a host keeps for one leaf until they are acknowledged; more are refused.
pub const LEAF_HOST_QUEUE_MAX: usize = 32;
/// Leaves that one host admits.
pub const LEAVES_MAX: usize = 1_024;
/// How long the first transmission of a leaf link waits for its answer. RFC 6298, 2.1: 1 s.
pub const LEAF_RETRY_INITIAL: Duration = Duration::from_secs(1);
/// The shortest wait. RFC 6298 has 1 s for all of the Internet; here a packet takes 45 ms at 115,200 baud, and its
/// acknowledgement may wait for [`LEAF_ACK_DELAY`].
pub const LEAF_RETRY_MIN: Duration = Duration::from_millis(200);
/// The longest wait between two transmissions. (RFC 6298 allows a maximum of 60 s or more; whoever is silent for
/// that long has long been asked by a new handshake here.)
pub const LEAF_RETRY_MAX: Duration = Duration::from_secs(8);
/// How long a single message waits for a packet that takes its acknowledgement along. RFC 9293 allows 500 ms.
pub const LEAF_ACK_DELAY: Duration = Duration::from_millis(40);
/// How often a leaf that is awake says so: address translations of UDP live 30 s and more.
pub const LEAF_KEEPALIVE: Duration = Duration::from_secs(25);
/// A leaf that is awake and silent for so long is gone: three chances.
pub const LEAF_GONE_AFTER: Duration = Duration::from_secs(80);
/// A leaf that has had no answer for so long makes a new handshake.
pub const LEAF_SILENT_AFTER: Duration = Duration::from_secs(15);
/// How long a leaf waits for the answer to its first hello.
pub const LEAF_HELLO_RETRY_MIN: Duration = Duration::from_secs(1);
/// How often a leaf says hello in the long run.
pub const LEAF_HELLO_RETRY_MAX: Duration = Duration::from_secs(32);
/// Hellos after which a leaf reports that nobody answers.
pub const LEAF_HELLOS_UNANSWERED: u32 = 3;
/// How long a leaf that was refused waits before it tries again.
pub const LEAF_REFUSED_RETRY: Duration = Duration::from_secs(60);
/// How often a leaf believes somebody who says that its connection is not known.
pub const LEAF_UNKNOWN_EVERY: Duration = Duration::from_secs(5);
/// How long a leaf uses one key while it is awake. WireGuard has two minutes; six multiplications on a curve are a
/// second of a small processor's time.
pub const LEAF_REKEY_AFTER: Duration = Duration::from_secs(2 * 60 * 60);
/// Packets that a leaf sends under one key before it wants another. A counter has 32 bits.
pub const LEAF_REKEY_PACKETS: u32 = 1 << 30;
/// Times that a leaf says that it is going to sleep, before it does so unheard.
pub const LEAF_DOZE_ATTEMPTS: u8 = 3;
/// Handshakes that a host computes in a second, of strangers and friends together: some 0.3 ms of work each.
pub const LEAF_HANDSHAKES_PER_SECOND: u32 = 32;
/// Handshakes that a host computes at once after a pause.
pub const LEAF_HANDSHAKES_BURST: u32 = 64;
/// How long a host keeps the keys of a handshake that its leaf has not confirmed.
pub const LEAF_UNCONFIRMED_FOR: Duration = Duration::from_secs(90);
/// Answers to handshakes and to packets of nobody that a host holds until they are sent; more are dropped.
pub const LEAF_REPLIES_MAX: usize = 64;

/// Agents that one leaf has at a time. What a microcontroller with some hundred KiB of memory bears, and what a hello can
/// list.
pub const HANDOVER_AGENTS_MAX: usize = 4;
/// Longest name of a leaf, so that its hello fits one message with all that it lists.
pub const HANDOVER_NAME_BYTES_MAX: usize = 32;
/// The largest checkpoint that a host takes from a leaf, or offers to one: more than the leaves of today have memory.
pub const HANDOVER_CHECKPOINT_BYTES_MAX: usize = 1 << 20;
/// What a host reserves of a checkpoint when it is announced. The rest when it has come.
pub const HANDOVER_RESERVE_BYTES: usize = 16 << 10;
/// Agents that a host offers to one leaf at a time.
pub const HANDOVER_OFFERS_MAX: usize = HANDOVER_AGENTS_MAX;
/// Log lines, readings and answers of actuators that wait at a leaf to be sent; more are refused. A link has room for as
/// many.
pub const HANDOVER_REPORTS_MAX: usize = 4;
/// Readings of one sensor that a leaf sends before its host says that it is done with one: two seconds of a sensor
/// that is read eight times in a second, so that a line with a delay stays full, and nobody sends for long to whom
/// nobody listens.
pub const HANDOVER_READINGS_AHEAD: usize = 16;
/// Words of a hand-over that wait at a leaf to be sent. An honest host causes two for each agent.
pub const HANDOVER_ANSWERS_MAX: usize = 4 * HANDOVER_AGENTS_MAX;
/// Messages that wait at a host to be sent to one leaf. An honest leaf causes four for each agent, and its host
/// [`HANDOVER_ACTUATIONS_MAX`].
pub const HANDOVER_QUEUE_MAX: usize = 64;
/// Commands to actuators of one leaf that are not answered; more are refused.
pub const HANDOVER_ACTUATIONS_MAX: usize = 16;
