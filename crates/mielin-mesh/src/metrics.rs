//! What a node measures, in the text format of Prometheus (version 0.0.4).

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use mielin_mesh_core::{Member, MemberState};
use mielin_mesh_wire::TrafficClass;

use crate::state::{Cores, Shared};

/// Content type of [`MeshService::metrics`](crate::MeshService::metrics).
pub const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4";

const STATES: [MemberState; 5] = [
    MemberState::Alive,
    MemberState::Suspect,
    MemberState::Dead,
    MemberState::Stopped,
    MemberState::Left,
];

/// Counts since the node started.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// How often a member came into a state.
    pub(crate) changes: BTreeMap<MemberState, u64>,
    /// Searches in the table that found something.
    pub(crate) lookups_found: u64,
    /// Searches that found nothing.
    pub(crate) lookups_empty: u64,
    /// The requests of all searches.
    pub(crate) lookup_queries: u64,
}

/// Everything that is measured.
pub(crate) fn text(shared: &Shared) -> String {
    let mut page = Page::default();
    let traffic = shared.endpoint.traffic();
    let peers = shared.endpoint.peers();
    let cores = shared.cores();
    let members = cores.membership.members();

    membership(&cores, &members, &mut page);
    page.single(
        "mielin_certificate_expires_seconds",
        "gauge",
        "When the certificate ends, in seconds since the Unix epoch.",
        shared.certificate_ends_s.load(Ordering::Relaxed),
    );
    page.single(
        "mielin_table_nodes",
        "gauge",
        "Nodes in the table.",
        cores.table.contacts(),
    );
    page.single(
        "mielin_table_records",
        "gauge",
        "Location records kept for the mesh.",
        cores.table.records(),
    );
    let name = "mielin_lookups_total";
    page.family(name, "counter", "Searches in the table by outcome.");
    page.sample(name, &[("outcome", &"found")], cores.counts.lookups_found);
    page.sample(name, &[("outcome", &"empty")], cores.counts.lookups_empty);
    page.single(
        "mielin_lookup_queries_total",
        "counter",
        "Nodes that were asked in searches.",
        cores.counts.lookup_queries,
    );
    drop(cores);

    page.single(
        "mielin_connections",
        "gauge",
        "Members connected.",
        peers.len(),
    );
    page.single(
        "mielin_connections_total",
        "counter",
        "Connections to and from members since the start.",
        traffic.connections,
    );
    page.single(
        "mielin_connections_closed_idle_total",
        "counter",
        "Connections that this node or the peer has closed because nobody used them.",
        traffic.closed_idle,
    );
    let name = "mielin_bytes_total";
    page.family(
        name,
        "counter",
        "UDP payload bytes over connections with members.",
    );
    page.sample(name, &[("direction", &"sent")], traffic.bytes_sent);
    page.sample(name, &[("direction", &"received")], traffic.bytes_received);
    let name = "mielin_class_bytes_total";
    page.family(
        name,
        "counter",
        "Bytes of streams and datagrams with members by class.",
    );
    for class in TrafficClass::ALL {
        let traffic = shared.endpoint.traffic_of(class);
        for (direction, bytes) in [
            ("sent", traffic.bytes_sent),
            ("received", traffic.bytes_received),
        ] {
            let labels: [(&str, &dyn Display); 2] =
                [("class", &class.name()), ("direction", &direction)];
            page.sample(name, &labels, bytes);
        }
    }
    page.single(
        "mielin_packets_lost_total",
        "counter",
        "Packets that were taken for lost.",
        traffic.packets_lost,
    );
    circuits(shared, &mut page);
    routed(shared, &mut page);
    let name = "mielin_peer_rtt_seconds";
    page.family(
        name,
        "gauge",
        "Smoothed round trip time to connected members.",
    );
    for peer in peers {
        let node = peer.node();
        let known = |member: &&Member| member.identity.id == node;
        let called = members.iter().find(known).map(|m| m.identity.name.as_str());
        let labels: [(&str, &dyn Display); 2] = [("node", &node), ("name", &called.unwrap_or(""))];
        page.sample(name, &labels, peer.rtt().as_secs_f64());
    }
    page.0
}

/// Who is there, and how this node does.
fn membership(cores: &Cores, members: &[Member], page: &mut Page) {
    page.members(members, cores);
    let name = "mielin_membership_changes_total";
    page.family(name, "counter", "How often members came into a state.");
    for state in STATES {
        let count = cores.counts.changes.get(&state).copied().unwrap_or(0);
        page.sample(name, &[("state", &state)], count);
    }
    page.single(
        "mielin_local_health",
        "gauge",
        "How badly this node does by its own probes: 0 is well, 8 is worst.",
        cores.membership.local_health(),
    );
    page.single(
        "mielin_strangers_refused_total",
        "counter",
        "Members passed over because this node knows as many as it may.",
        cores.membership.strangers_refused(),
    );
}

/// What went through relays, and what this node carried for others.
fn circuits(shared: &Shared, page: &mut Page) {
    let own = shared.endpoint.circuits().traffic();
    let relaying = &shared.relaying;
    let name = "mielin_circuits";
    page.family(name, "gauge", "Circuits that stand, by this node's part.");
    page.sample(name, &[("part", &"end")], own.circuits);
    page.sample(name, &[("part", &"relay")], relaying.circuits());
    let name = "mielin_circuit_bytes_total";
    page.family(
        name,
        "counter",
        "Bytes of packets over this node's circuits.",
    );
    page.sample(name, &[("direction", &"sent")], own.bytes_sent);
    page.sample(name, &[("direction", &"received")], own.bytes_received);
    page.single(
        "mielin_circuit_packets_dropped_total",
        "counter",
        "Packets for which a circuit had no room.",
        own.packets_dropped,
    );
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    page.single(
        "mielin_relayed_bytes_total",
        "counter",
        "Bytes carried for others as a relay.",
        count(&relaying.bytes),
    );
    page.single(
        "mielin_relay_registrations",
        "gauge",
        "Nodes registered with this relay.",
        relaying.registrations(),
    );
    let name = "mielin_relay_circuits_total";
    page.family(name, "counter", "Circuits asked of this relay, by outcome.");
    page.sample(name, &[("outcome", &"joined")], count(&relaying.joined));
    page.sample(name, &[("outcome", &"refused")], count(&relaying.refused));
}

/// Messages that members hand on.
fn routed(shared: &Shared, page: &mut Page) {
    let name = "mielin_routed_messages_total";
    let routing = &shared.routing;
    page.family(name, "counter", "Routed messages by what this node did.");
    for (part, counter) in [
        ("sent", &routing.sent),
        ("forwarded", &routing.forwarded),
        ("answered", &routing.delivered),
        ("refused", &routing.refused),
    ] {
        let count = counter.load(Ordering::Relaxed);
        page.sample(name, &[("part", &part)], count);
    }
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn members(&mut self, members: &[Member], cores: &Cores) {
        self.family(
            "mielin_members",
            "gauge",
            "Members by state, this node included.",
        );
        let is_revoked = |member: &&Member| cores.revocations.contains(&member.identity.id);
        let (revoked, others): (Vec<_>, Vec<_>) = members.iter().partition(is_revoked);
        for state in STATES {
            let count = others.iter().filter(|m| m.state == state).count();
            self.sample("mielin_members", &[("state", &state)], count);
        }
        self.sample("mielin_members", &[("state", &"revoked")], revoked.len());
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        self.0.push_str(name);
        for (index, (label, content)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let content = escaped(&content.to_string());
            let _ = write!(self.0, "{before}{label}=\"{content}\"");
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }
}

/// A label's content: names are chosen by their users, quotes included.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_cannot_break_out_of_their_quotes() {
        let mut page = Page::default();
        page.sample("m", &[("name", &"a\"} 9\nx\\")], 1);
        assert_eq!(page.0, "m{name=\"a\\\"} 9\\nx\\\\\"} 1\n");
    }
}
