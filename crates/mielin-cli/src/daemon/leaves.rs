//! The microcontrollers that hold on to this node.

use axum::Json;
use axum::extract::{Path, State};
use mielin_cells::{LeafDirectory, LeafReport, LeafStanding, LeafSummary};
use mielin_mesh::{LeafEntry, LeafError, LeafPresence, LeafWay, Leaves, WayEnd};
use mielin_mesh_core::{AgentId, Name, NodeId};

use super::NodeState;
use super::answer::Input;
use super::routes::Answer;
use crate::api;
use crate::failure::Failure;

const NO_LEAVES: &str = "a node of role relay or core does that is started with --leaf-serial LINE or --leaf-udp ADDR, such as `mielin daemon --leaf-udp 0.0.0.0:9100`; `mielin mesh peers` shows the leaves of all";

pub(super) async fn list(State(state): State<NodeState>) -> Answer<api::LeafList> {
    let leaves = hosted(&state)?;
    Ok(Json(api::LeafList {
        leaves: state.cells.leaves().into_iter().map(line).collect(),
        ways: leaves.ways().into_iter().map(way).collect(),
    }))
}

pub(super) async fn add(
    State(state): State<NodeState>,
    Input(new): Input<api::NewLeaf>,
) -> Answer<api::LeafAdmitted> {
    let leaves = hosted(&state)?;
    let name = Name::new(new.name).map_err(|error| {
        Failure::usage(error.to_string()).hint("choose a name as nodes have them")
    })?;
    let members = state.mesh().members();
    if members.iter().any(|member| member.identity.name == name) {
        return Err(
            Failure::refused(format!("a member of the mesh is called {name} already"))
                .hint("choose another name"),
        );
    }
    let admitted = name.clone();
    let admission = blocking(move || leaves.admit(admitted)).await?;
    Ok(Json(api::LeafAdmitted {
        number: admission.number.0,
        name: name.to_string(),
        admission: admission.to_string(),
    }))
}

pub(super) async fn remove(
    State(state): State<NodeState>,
    Path(leaf): Path<String>,
    Input(request): Input<api::RemoveLeaf>,
) -> Answer<api::LeafLine> {
    let leaves = hosted(&state)?;
    let entry = leaves.find(&leaf)?;
    let reports = state.cells.leaves().into_iter();
    let report = reports
        .into_iter()
        .find(|report| report.entry.number == entry.number);
    let report = report.ok_or_else(|| Failure::from(LeafError::Unknown(leaf)))?;
    if !request.force && !report.agents.is_empty() {
        let agents: Vec<_> = report.agents.iter().map(AgentId::short).collect();
        return Err(Failure::refused(format!(
            "agents are on the leaf {}: {}",
            entry.name,
            agents.join(", ")
        ))
        .hint(
            "bring them here with `mielin agent migrate AGENT NODE`, or lose them with --force",
        ));
    }
    blocking(move || leaves.dismiss(&entry.number.to_string())).await?;
    Ok(Json(line(report)))
}

/// The leaves of all members as they are among these, each behind its host, and the members that did not name theirs.
pub(super) async fn as_members(
    state: &NodeState,
    named: impl Fn(&NodeId) -> api::NodeName,
) -> (Vec<api::MemberLine>, Vec<api::NodeName>) {
    let LeafDirectory { leaves, silent } = state.cells.mesh_leaves().await;
    let line = |leaf: LeafSummary| {
        let relay = named(&leaf.host);
        let is_there = leaf.standing != LeafStanding::Gone;
        api::MemberLine {
            node: leaf.leaf.to_string(),
            name: leaf.name.to_string(),
            role: "leaf".to_owned(),
            state: standing(leaf.standing).to_owned(),
            address: None,
            path: is_there.then(|| api::PathLine::Relayed {
                relay: Some(relay.clone()),
            }),
            version: None,
            features: Vec::new(),
            relays: vec![relay],
        }
    };
    let lines = leaves.into_iter().map(line).collect();
    (lines, silent.iter().map(named).collect())
}

const fn standing(standing: LeafStanding) -> &'static str {
    match standing {
        LeafStanding::Connected => "connected",
        LeafStanding::Asleep => "asleep",
        LeafStanding::Gone => "gone",
    }
}

fn hosted(state: &NodeState) -> Result<Leaves, Failure> {
    state
        .cells
        .leaf_links()
        .ok_or_else(|| Failure::refused("this node hosts no leaves").hint(NO_LEAVES))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LeafError> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| Failure::internal(error.to_string()))??)
}

const fn presence(entry: &LeafEntry) -> &'static str {
    match entry.state {
        LeafPresence::Awaited => "awaited",
        LeafPresence::Connected => standing(LeafStanding::Connected),
        LeafPresence::Asleep(_) => standing(LeafStanding::Asleep),
        LeafPresence::Gone => standing(LeafStanding::Gone),
    }
}

fn line(report: LeafReport) -> api::LeafLine {
    let LeafReport {
        entry,
        profile,
        agents,
        handovers,
    } = report;
    let status = profile.as_ref().map(|profile| profile.status);
    api::LeafLine {
        number: entry.number.0,
        name: entry.name.to_string(),
        node: entry.node.map(|node| node.to_string()),
        state: presence(&entry).to_owned(),
        ready: status.map(|status| status.ready),
        room_bytes: status.map(|status| status.room_bytes),
        battery_percent: status.and_then(|status| status.battery.percent),
        charging: status.map(|status| status.battery.charging),
        sensors: profile.as_ref().map(|profile| profile.sensors),
        actuators: profile.as_ref().map(|profile| profile.actuators),
        agents: agents.iter().map(ToString::to_string).collect(),
        handovers: handovers
            .iter()
            .map(|one| api::HandoverLine {
                agent: one.agent.to_string(),
                direction: if one.to_leaf { "to-leaf" } else { "from-leaf" }.to_owned(),
                bytes: one.bytes,
                us: u64::try_from(one.took.as_micros()).unwrap_or(u64::MAX),
            })
            .collect(),
    }
}

fn way(way: LeafWay) -> api::WayLine {
    api::WayLine {
        kind: match way.end {
            WayEnd::Udp(_) => "udp",
            WayEnd::Line(_) => "line",
        }
        .to_owned(),
        way: way.end.to_string(),
        closed: way.closed,
        packets: way.packets,
        dropped: way.dropped,
        last_dropped: way.last_dropped.map(|error| error.to_string()),
    }
}

impl From<LeafError> for Failure {
    fn from(error: LeafError) -> Failure {
        match &error {
            LeafError::Unknown(_) => {
                Failure::not_found(error.to_string()).hint("`mielin mesh leaf list` shows them")
            }
            LeafError::NameTaken(_) => {
                Failure::refused(error.to_string()).hint("choose another name, or remove that leaf")
            }
            LeafError::NoRoom(_) => Failure::refused(error.to_string())
                .hint("remove leaves that are gone with `mielin mesh leaf remove`"),
            LeafError::Bind { address, source } => {
                Failure::io(format!("cannot listen for leaves on {address}"), source)
                    .hint("give another address with --leaf-udp")
            }
            LeafError::Damaged { .. } => Failure::refused(error.to_string())
                .hint("bring the file back from a backup, or remove it and admit all leaves anew"),
            _ => Failure::internal(error.to_string()),
        }
    }
}
