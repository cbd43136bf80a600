//! The leaves of the whole mesh: members that may host some are asked for theirs.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mielin_mesh::{LeafPresence, MeshError, RequestHandler, request_handler};
use mielin_mesh_core::limits::{HANDOVER_AGENTS_MAX, LEAVES_MAX};
use mielin_mesh_core::{AgentId, Name, NodeId, NodeRole, codec};
use oxicode::{Decode, Encode};

use super::LeafReport;
use crate::node::Node;
use crate::wire::LEAVES;

/// How long one member may take.
const LIMIT: Duration = Duration::from_secs(2);
/// How long what members said is good enough to be looked at.
pub(crate) const FRESH: Duration = Duration::from_secs(1);
/// Agents that a host names of one leaf: those on it, and those on their way.
const AGENTS_MAX: usize = 4 * HANDOVER_AGENTS_MAX;

/// A leaf, as its host tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafSummary {
    /// The leaf.
    pub leaf: NodeId,
    /// How it is called at its host.
    pub name: Name,
    /// The member that hosts it.
    pub host: NodeId,
    /// Whether it is there.
    pub standing: LeafStanding,
    /// Whether it takes agents, as far as its host knows.
    pub is_ready: bool,
    /// The agents that are on it, or on their way there or back.
    pub agents: Vec<AgentId>,
}

/// Whether a leaf is there that has been once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum LeafStanding {
    /// It speaks.
    Connected,
    /// It sleeps.
    Asleep,
    /// It has been silent for too long.
    Gone,
}

/// The leaves of the mesh, as far as their hosts answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeafDirectory {
    /// Each leaf once, ordered by id.
    pub leaves: Vec<LeafSummary>,
    /// Members that may host leaves and did not answer.
    pub silent: Vec<NodeId>,
}

impl LeafDirectory {
    /// The leaf of this id.
    pub(crate) fn get(&self, leaf: &NodeId) -> Option<&LeafSummary> {
        self.leaves.iter().find(|one| one.leaf == *leaf)
    }

    /// The leaf on which an agent is that this host has.
    pub(crate) fn leaf_with(&self, host: &NodeId, agent: &AgentId) -> Option<NodeId> {
        let fits = |one: &&LeafSummary| one.host == *host && one.agents.contains(agent);
        Some(self.leaves.iter().find(fits)?.leaf)
    }
}

/// A leaf as it crosses the wire.
#[derive(Debug, PartialEq, Encode, Decode)]
struct Line {
    leaf: NodeId,
    name: Name,
    standing: LeafStanding,
    is_ready: bool,
    agents: Vec<AgentId>,
}

fn encode(leaves: &[LeafSummary]) -> Bytes {
    let lines = leaves.iter().take(LEAVES_MAX).map(|one| Line {
        leaf: one.leaf,
        name: one.name.clone(),
        standing: one.standing,
        is_ready: one.is_ready,
        agents: one.agents.iter().copied().take(AGENTS_MAX).collect(),
    });
    codec::encode(&lines.collect::<Vec<_>>()).into()
}

/// What a host has answered; `None` if that is no list of leaves.
fn decode(host: NodeId, bytes: &[u8]) -> Option<Vec<LeafSummary>> {
    let lines: Vec<Line> = codec::decode(bytes).ok()?;
    let fits = |line: &Line| line.agents.len() <= AGENTS_MAX && line.leaf != host;
    if lines.len() > LEAVES_MAX || !lines.iter().all(fits) {
        return None;
    }
    let summary = |line: Line| LeafSummary {
        leaf: line.leaf,
        name: line.name,
        host,
        standing: line.standing,
        is_ready: line.is_ready,
        agents: line.agents,
    };
    Some(lines.into_iter().map(summary).collect())
}

/// The leaves of this node that have been there once.
fn own(node: &Node) -> Vec<LeafSummary> {
    let summary = |report: LeafReport| {
        let LeafReport {
            entry,
            profile,
            agents,
            ..
        } = report;
        let standing = match entry.state {
            LeafPresence::Awaited => return None,
            LeafPresence::Connected => LeafStanding::Connected,
            LeafPresence::Asleep(_) => LeafStanding::Asleep,
            LeafPresence::Gone => LeafStanding::Gone,
        };
        Some(LeafSummary {
            leaf: entry.node?,
            name: entry.name,
            host: node.id(),
            standing,
            is_ready: profile.is_some_and(|profile| profile.status.ready),
            agents,
        })
    };
    let reports = node.lodgings.reports().into_iter();
    reports.filter_map(summary).collect()
}

/// Answers members that ask for the leaves of this node.
pub(crate) fn handler(node: Weak<Node>) -> Arc<dyn RequestHandler> {
    request_handler(move |_, _| {
        let node = node.upgrade().filter(|node| !node.is_closing());
        let leaves = node.map_or_else(Vec::new, |node| own(&node));
        async move { Ok(encode(&leaves)) }
    })
}

/// All leaves, with what members said at most `age` ago.
pub(crate) async fn leaves_of_mesh(node: &Node, age: Duration) -> LeafDirectory {
    let mut said = node.lodgings.said.lock().await;
    let known = said.take().filter(|(at, _)| at.elapsed() <= age);
    let (at, others) = match known {
        Some(known) => known,
        None => {
            let others = ask(node).await;
            (Instant::now(), others)
        }
    };
    let mut directory = others.clone();
    *said = Some((at, others));
    drop(said);
    // A leaf that went from one host to another is where it is now; of one that is here nobody else knows better.
    directory.leaves.extend(own(node));
    let is_elsewhere = |one: &LeafSummary| one.host != node.id();
    directory
        .leaves
        .sort_by_key(|one| (one.leaf, one.standing, is_elsewhere(one)));
    directory.leaves.dedup_by_key(|one| one.leaf);
    directory
}

async fn ask(node: &Node) -> LeafDirectory {
    let members = node.mesh.members();
    let hosts = members.iter().filter(|member| {
        member.state.is_active()
            && member.identity.role != NodeRole::Edge
            && member.identity.id != node.id()
    });
    let hosts: Vec<NodeId> = hosts.map(|member| member.identity.id).collect();
    let asked = node.mesh.request_each(hosts, LEAVES, Bytes::new(), LIMIT);
    let mut directory = LeafDirectory::default();
    for (host, answer) in asked.await {
        let leaves = match answer {
            Ok(bytes) => decode(host, &bytes).ok_or(MeshError::MalformedResponse(host)),
            Err(MeshError::Refused { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        match leaves {
            // Nobody is a leaf who is a member.
            Ok(leaves) => directory.leaves.extend(leaves.into_iter().filter(|leaf| {
                let id = leaf.leaf;
                members.iter().all(|member| member.identity.id != id)
            })),
            Err(error) => {
                tracing::debug!(host = %host.short(), %error, "a member does not say which leaves it has");
                directory.silent.push(host);
            }
        }
    }
    directory.silent.sort_unstable();
    directory
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
