//! The routes of the control API; [`crate::api`] documents them.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use mielin_cells::{
    AgentDirectory, Budget, Cells, CellsError, LogKind, MoveOptions, MoveProgress, MoveReport,
    SpawnRequest,
};
use mielin_mesh::{Departure, MeshService, Path as MeshPath};
use mielin_mesh_core::{AgentId, MigrationStrategy, NodeId};
use mielin_wasm::{Address, Capability, Grants, Target};
use tokio::sync::mpsc;

use super::NodeState;
use super::admission;
use super::answer::{Input, OTHER_VERSION};
use super::body::{Writer, streamed};
use super::copies;
use super::leaves;
use super::reach::{self, node_name};
use super::spelling::{agent_state, member_state, role_name, strategy, strategy_name};
use super::usage;
use crate::api;
use crate::failure::Failure;

/// Room for the largest module and the largest input in base 64.
const BODY_BYTES_MAX: usize = 256 << 20;

pub(super) type Answer<T> = Result<Json<T>, Failure>;

pub(super) fn router(state: NodeState) -> Router {
    Router::new()
        .route("/v1/node", get(node))
        .route("/v1/node/stop", post(stop))
        .route("/v1/mesh", get(mesh))
        .route("/v1/mesh/tokens", post(admission::issue_token))
        .route("/v1/mesh/pending", get(admission::pending))
        .route("/v1/mesh/approvals", post(admission::approve))
        .route(
            "/v1/mesh/revocations",
            get(admission::revocations).post(admission::revoke),
        )
        .route("/v1/leaves", get(leaves::list).post(leaves::add))
        .route("/v1/leaves/{leaf}/remove", post(leaves::remove))
        .route("/v1/mesh/metrics", get(reach::metrics))
        .route("/v1/mesh/ping", post(reach::ping))
        .route("/v1/mesh/route", post(reach::route))
        .route("/v1/mesh/lookup", post(reach::look_up))
        .route("/v1/mesh/leave", post(leave))
        .route("/v1/agents", get(list_agents).post(spawn))
        .route("/v1/usage", get(usage::usage))
        .route("/v1/agents/{agent}", get(inspect))
        .route("/v1/agents/{agent}/pause", post(pause))
        .route("/v1/agents/{agent}/resume", post(resume))
        .route("/v1/agents/{agent}/hibernate", post(hibernate))
        .route("/v1/agents/{agent}/terminate", post(terminate))
        .route("/v1/agents/{agent}/recover", post(recover))
        .route("/v1/agents/{agent}/remove", post(remove))
        .route("/v1/agents/{agent}/checkpoint", post(copies::checkpoint))
        .route("/v1/agents/{agent}/clone", post(copies::duplicate))
        .route(
            "/v1/checkpoints",
            post(copies::restore).layer(DefaultBodyLimit::max(api::CHECKPOINT_BYTES_MAX)),
        )
        .route("/v1/agents/{agent}/messages", post(send))
        .route("/v1/agents/{agent}/migrate", post(migrate))
        .route("/v1/agents/{agent}/wait", get(wait))
        .route("/v1/agents/{agent}/logs", get(logs))
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_route)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(state)
}

async fn no_such_route() -> Failure {
    Failure::not_found("the daemon has no such route").hint(OTHER_VERSION)
}

async fn node(State(state): State<NodeState>) -> Json<api::NodeInfo> {
    let mesh = state.mesh();
    let local = mesh.local();
    Json(api::NodeInfo {
        node: local.id.to_string(),
        name: local.name.clone(),
        role: role_name(local.role).to_owned(),
        address: mesh.address().to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        engine: state.engine.clone(),
        pid: std::process::id(),
        uptime_s: state.started.elapsed().as_secs(),
        data_dir: state.data_dir.display().to_string(),
        mesh: state.mesh_id.clone(),
        root: mesh.authority().is_some(),
        certificate_expires_s: since_epoch(mesh.certificates().expires().await),
        off: state.off.clone(),
        limits: state.limits,
        trouble: trouble(mesh),
    })
}

fn since_epoch(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

async fn stop(State(state): State<NodeState>) -> Json<api::Done> {
    state.request_stop(Departure::Stopped);
    Json(api::Done {})
}

async fn leave(State(state): State<NodeState>) -> Json<api::Done> {
    state.request_stop(Departure::Left);
    Json(api::Done {})
}

async fn mesh(State(state): State<NodeState>) -> Json<api::MeshStatus> {
    let mesh = state.mesh();
    let local = mesh.local();
    let members = mesh.members();
    let named = |node: &NodeId| node_name(&members, node);
    let revoked: BTreeSet<NodeId> = mesh.revocations().iter().map(|one| one.node).collect();
    let version = |node: &NodeId| mesh.program(node).map(|program| program.version);
    let features = |node: &NodeId| {
        let program = mesh.program(node).into_iter();
        let names = program.flat_map(|program| program.features.names());
        names.map(str::to_owned).collect()
    };
    let members = members.iter().map(|member| api::MemberLine {
        version: version(&member.identity.id),
        features: features(&member.identity.id),
        path: mesh.path(&member.identity.id).map(|path| match path {
            MeshPath::Direct { .. } => api::PathLine::Direct,
            MeshPath::Relayed { relay, .. } => api::PathLine::Relayed {
                relay: relay.as_ref().map(named),
            },
        }),
        relays: member.identity.relays.iter().map(named).collect(),
        node: member.identity.id.to_string(),
        name: member.identity.name.to_string(),
        role: role_name(member.identity.role).to_owned(),
        state: match revoked.contains(&member.identity.id) {
            true => "revoked".to_owned(),
            false => member_state(member.state),
        },
        address: Some(member.identity.address.to_string()),
    });
    let (leaves, silent) = leaves::as_members(&state, named).await;
    Json(api::MeshStatus {
        node: local.id.to_string(),
        name: local.name.clone(),
        role: role_name(local.role).to_owned(),
        members: members.chain(leaves).collect(),
        silent,
        trouble: trouble(mesh),
    })
}

/// What is wrong with this node itself.
fn trouble(mesh: &MeshService) -> api::Trouble {
    api::Trouble {
        copy: mesh.copy().map(|copy| api::RunningCopy {
            address: copy.address.to_string(),
            proved: copy.proved,
            gives_way: copy.gives_way,
        }),
        revoked: mesh
            .revocations()
            .into_iter()
            .find(|one| one.node == mesh.local().id)
            .map(|own| api::OwnRevocation {
                revoked_ms: own.revoked_ms,
                reason: own.reason.as_str().to_owned(),
            }),
    }
}

async fn list_agents(State(state): State<NodeState>) -> Answer<api::AgentList> {
    let AgentDirectory {
        agents,
        silent,
        unlisted,
    } = state.cells.agents().await?;
    let ids = |nodes: Vec<NodeId>| nodes.iter().map(ToString::to_string).collect();
    let agents = agents.into_iter().map(|agent| api::AgentLine {
        agent: agent.agent.to_string(),
        name: agent.name,
        state: if agent.reachable || agent.state.is_final() {
            agent_state(&agent.state)
        } else {
            "unreachable".to_owned()
        },
        node: agent.node.to_string(),
    });
    Ok(Json(api::AgentList {
        agents: agents.collect(),
        silent: ids(silent),
        unlisted: ids(unlisted),
    }))
}

async fn spawn(
    State(state): State<NodeState>,
    Input(spawn): Input<api::Spawn>,
) -> Answer<api::Spawned> {
    let grants = grants(&state, &spawn.allow).await?;
    let budget = spawn.budget.parse::<Budget>()?;
    let request = SpawnRequest {
        name: spawn.name,
        hint: spawn.hint,
        args: spawn.args,
        env: spawn.env,
        stdin: spawn.stdin.into(),
        grants,
        budget,
        ..SpawnRequest::new(spawn.module)
    };
    acted(state.cells.spawn(request).await?)
}

/// Reads capabilities; where they name an agent it may be a name or a prefix.
async fn grants(state: &NodeState, allow: &[String]) -> Result<Grants, Failure> {
    let mut grants = Grants::none();
    for text in allow {
        let capability = match text.strip_prefix("message:") {
            Some(agent) => Capability::Message(Target::One(Address(state.agent(agent).await?.0))),
            None => text.parse::<Capability>().map_err(|_| {
                Failure::usage(format!("`{text}` is not a capability")).hint(
                    "there are clock, random, message, message:AGENT, tensor, data, data:SIZE (such \
                     as 16MiB, at most 512MiB), sensor, sensor:N, actuator and actuator:N (N from 0 \
                     to 255)",
                )
            })?,
        };
        grants.grant(capability);
    }
    Ok(grants)
}

async fn inspect(
    State(state): State<NodeState>,
    Path(agent): Path<String>,
) -> Answer<api::AgentDetails> {
    let agent = state.agent(&agent).await?;
    let report = state.cells.inspect(agent).await?;
    let host_log = state
        .cells
        .host_log(agent)
        .await?
        .into_iter()
        .map(|line| api::HostLogLine {
            time_ms: line.time_ms,
            level: line.level,
            text: line.text,
        });
    let used = usage::used(&report);
    let members = state.mesh().members();
    let mut node_name = node_name(&members, &report.node).name;
    if node_name.is_none() {
        let leaves = state.cells.mesh_leaves().await.leaves;
        let leaf = leaves.into_iter().find(|leaf| leaf.leaf == report.node);
        node_name = leaf.map(|leaf| leaf.name.to_string());
    }
    Ok(Json(api::AgentDetails {
        agent: report.agent.to_string(),
        name: report.name,
        state: agent_state(&report.state),
        node: report.node.to_string(),
        node_name: node_name.unwrap_or_default(),
        epoch: report.epoch.0,
        module: report.module.to_string(),
        engine: report.engine.to_string(),
        grants: report.grants.to_string(),
        started_ms: report.started_ms,
        stdout_bytes: report.stdout_bytes,
        stderr_bytes: report.stderr_bytes,
        log_bytes_max: report.log_bytes_max,
        mailbox_count: report.mailbox_count,
        waits_for: report.waits_for.map(|node| node.to_string()),
        turns: report.counters.turns,
        busy_us: report.counters.busy_us,
        usage: used,
        denied: report.counters.denied,
        moves: report.counters.moves,
        host_log: host_log.collect(),
    }))
}

async fn pause(state: State<NodeState>, agent: Path<String>) -> Answer<api::Spawned> {
    order(state, agent, async |cells, agent| cells.pause(agent).await).await
}

async fn resume(state: State<NodeState>, agent: Path<String>) -> Answer<api::Spawned> {
    order(state, agent, async |cells, agent| cells.resume(agent).await).await
}

async fn hibernate(state: State<NodeState>, agent: Path<String>) -> Answer<api::Spawned> {
    order(state, agent, async |cells, agent| {
        cells.hibernate(agent).await
    })
    .await
}

async fn terminate(state: State<NodeState>, agent: Path<String>) -> Answer<api::Spawned> {
    order(state, agent, async |cells, agent| {
        cells.terminate(agent).await
    })
    .await
}

async fn recover(state: State<NodeState>, agent: Path<String>) -> Answer<api::Spawned> {
    order(state, agent, async |cells, agent| {
        cells.recover(agent).await
    })
    .await
}

async fn remove(state: State<NodeState>, agent: Path<String>) -> Answer<api::Spawned> {
    order(state, agent, async |cells, agent| cells.remove(agent).await).await
}

/// Does something with an agent that has no other answer than that it was done.
async fn order(
    State(state): State<NodeState>,
    Path(agent): Path<String>,
    act: impl AsyncFnOnce(&Cells, AgentId) -> Result<(), CellsError>,
) -> Answer<api::Spawned> {
    let agent = state.agent(&agent).await?;
    act(&state.cells, agent).await?;
    acted(agent)
}

fn acted(agent: AgentId) -> Answer<api::Spawned> {
    Ok(Json(api::Spawned {
        agent: agent.to_string(),
    }))
}

async fn send(
    State(state): State<NodeState>,
    Path(agent): Path<String>,
    Input(message): Input<api::Message>,
) -> Answer<api::Delivered> {
    let agent = state.agent(&agent).await?;
    let payload = message.payload.into();
    let delivered = match message.wait_ms {
        None => {
            let sent = state.cells.send(agent, payload).await;
            api::Delivered::Sequence(sent.map_err(not_delivered)?)
        }
        Some(wait_ms) => {
            let reply = state
                .cells
                .request(agent, payload, Duration::from_millis(wait_ms))
                .await
                .map_err(not_delivered)?;
            api::Delivered::Reply(reply.to_vec())
        }
    };
    Ok(Json(delivered))
}

/// Where an agent's node is gone, whoever sent a message must know whether to send it again.
fn not_delivered(error: CellsError) -> Failure {
    let what = match &error {
        CellsError::Gone(_) => "the message was not sent",
        CellsError::OnItsWay { absence, .. } if !absence.revoked => {
            "the message was sent before that, and arrives if the node comes back with the agent while this one runs"
        }
        _ => return error.into(),
    };
    let failure = Failure::from(error);
    let hint = format!("{what}: {}", failure.hint);
    failure.hint(hint)
}

async fn wait(State(state): State<NodeState>, Path(agent): Path<String>) -> Answer<api::Ended> {
    let agent = state.agent(&agent).await?;
    let end = tokio::select! {
        end = state.cells.wait(agent) => end?,
        () = state.closing() => return Err(stopping()),
    };
    Ok(Json(api::Ended {
        exit_code: end.exit_code,
        failure: end.failure,
    }))
}

fn stopping() -> Failure {
    Failure::unreachable("the daemon is stopping")
        .hint("ask another node, or start this one again with `mielin daemon`")
}

async fn migrate(
    State(state): State<NodeState>,
    Path(agent): Path<String>,
    Input(request): Input<api::Migrate>,
) -> Result<Response, Failure> {
    let agent = state.agent(&agent).await?;
    let node = state.node(&request.node).await?;
    let options = MoveOptions {
        strategy: strategy(&request.strategy)?,
        downtime: request.downtime_ms.map(Duration::from_millis),
    };
    let (writer, body) = streamed();
    let (progress, steps) = mpsc::unbounded_channel();
    // The move goes on if the client goes away.
    tokio::spawn(async move {
        let asked = options.strategy;
        let moving = state.cells.migrate(agent, node, options, Some(progress));
        let line = match with_progress(moving, steps, &writer).await {
            Ok(report) => api::MoveLine::Done(Box::new(moved_line(report, asked))),
            Err(error) => api::MoveLine::Error(error.into()),
        };
        let _ = writer.write_line(&line).await;
    });
    Ok(stream_answer("application/x-ndjson", body))
}

/// Waits for what is said of a move, and tells each step until then. A move in doubt goes on after its caller has been
/// told, and has steps for as long as that lasts.
async fn with_progress<T>(
    moving: impl Future<Output = T>,
    mut steps: mpsc::UnboundedReceiver<MoveProgress>,
    writer: &Writer,
) -> T {
    tokio::pin!(moving);
    let moved = loop {
        tokio::select! {
            moved = &mut moving => break moved,
            Some(step) = steps.recv() => tell_step(step, writer).await,
        }
    };
    while let Ok(step) = steps.try_recv() {
        tell_step(step, writer).await;
    }
    moved
}

/// Nobody may be listening any more.
async fn tell_step(step: MoveProgress, writer: &Writer) {
    let step = api::MoveStep {
        phase: step.phase,
        bytes: step.bytes,
        elapsed_us: step.elapsed_us,
    };
    let _ = writer.write_line(&api::MoveLine::Progress(step)).await;
}

fn moved_line(report: MoveReport, asked: Option<MigrationStrategy>) -> api::Moved {
    let phases = report.phases.into_iter().map(|time| api::PhaseLine {
        phase: time.phase,
        us: time.us,
    });
    api::Moved {
        agent: report.agent.to_string(),
        from: report.from.to_string(),
        to: report.to.to_string(),
        strategy: strategy_name(report.strategy),
        asked: asked
            .filter(|asked| *asked != report.strategy)
            .map(strategy_name),
        downtime_us: report.downtime_us,
        total_us: report.total_us,
        bytes: report.bytes,
        rounds: report.rounds,
        pages: report.pages,
        phases: phases.collect(),
        tracker: report.tracker,
        target_resume_us: report.target_resume_us,
        followed: report.followed,
        faults: report.faults,
        unchanged: report.unchanged,
        throttled_percent: report.throttled_percent,
        page_bytes: report.page_bytes,
        page_bytes_sent: report.page_bytes_sent,
    }
}

async fn logs(
    State(state): State<NodeState>,
    Path(agent): Path<String>,
    query: Result<Query<api::LogQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(query) =
        query.map_err(|rejection| Failure::usage(rejection.body_text()).hint(OTHER_VERSION))?;
    let agent = state.agent(&agent).await?;
    let kind = match query.stream {
        api::LogStream::Stdout => LogKind::Stdout,
        api::LogStream::Stderr => LogKind::Stderr,
    };
    let mut reader = state.cells.logs(agent, kind, query.offset, query.follow);
    // The first piece is awaited here, so that a failure at once has a status of its own.
    let mut piece = tokio::select! {
        piece = reader.next() => piece?,
        () = state.closing() => return Err(stopping()),
    };
    let (writer, body) = streamed();
    tokio::spawn(async move {
        while let Some(bytes) = piece {
            if writer.write(bytes).await.is_err() {
                return;
            }
            let next = tokio::select! {
                next = reader.next() => next.map_err(Failure::from),
                () = state.closing() => Err(stopping()),
                () = writer.gone() => return,
            };
            piece = match next {
                Ok(piece) => piece,
                Err(failure) => return writer.fail(failure).await,
            };
        }
    });
    Ok(stream_answer("application/octet-stream", body))
}

pub(super) fn stream_answer(content_type: &'static str, body: Body) -> Response {
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}
