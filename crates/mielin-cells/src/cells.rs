//! [`Cells`]: the operations on agents, wherever in the mesh they are.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mielin_mesh::{LeafNews, Leaves, MeshService};
use mielin_mesh_core::registry::Prefix;
use mielin_mesh_core::{AgentId, AgentState, MemberState, NodeId};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::cell::Cell;
use crate::checkpoint::{self, Naming};
use crate::cloning;
use crate::config::CellsConfig;
use crate::error::CellsError;
use crate::finding::{found, heard_of};
use crate::hibernation;
use crate::lodging::{
    self, FRESH, LeafDirectory, LeafReport, LeafStanding, NOT_NOW, PAUSED, leaves_of_mesh,
};
use crate::moving;
use crate::node::{Node, Place};
use crate::operations::{self, Absent};
use crate::report::{
    AgentDirectory, AgentEnd, AgentReport, AgentSummary, HostLine, LogChunk, LogKind, MoveOptions,
    MoveProgress, MoveReport, SpawnRequest,
};
use crate::wire::{self, Answer, Call, Operation};

/// How long an operation looks for an agent that no node seems to have, while it moves or its record is being published.
const FIND_TIMEOUT: Duration = Duration::from_secs(5);
/// The agents of this node, and the way to the agents of all others. Cheap to clone.
///
/// Every operation works on whichever node the agent is: its node is asked, and asked again where the agent went.
#[derive(Clone)]
pub struct Cells {
    pub(crate) node: Arc<Node>,
}

impl Cells {
    /// Starts the worker threads, serves the protocols of agents and restores the agents of earlier runs, ended ones too.
    ///
    /// # Errors
    /// The engine does not work on this machine, threads cannot be started, or the data directory is unusable.
    pub async fn start(config: CellsConfig, mesh: MeshService) -> Result<Cells, CellsError> {
        Ok(Cells {
            node: Node::start(config, mesh).await?,
        })
    }

    /// The mesh below.
    #[must_use]
    pub fn mesh(&self) -> &MeshService {
        &self.node.mesh
    }

    /// Hosts the leaves of `MeshService::host_leaves` from now on: microcontrollers that hold on to this node, on which its agents
    /// can be, too.
    ///
    /// # Errors
    /// Leaves are hosted already.
    pub async fn host_leaves(
        &self,
        leaves: Leaves,
        news: mpsc::Receiver<LeafNews>,
    ) -> Result<(), CellsError> {
        lodging::host(&self.node, leaves, news).await
    }

    /// The agents of this node that are on leaves, also while it hosts none.
    #[must_use]
    pub fn agents_on_leaves(&self) -> Vec<AgentId> {
        self.node.lodgings.agents()
    }

    /// The leaves' admissions and links, if this node hosts leaves.
    #[must_use]
    pub fn leaf_links(&self) -> Option<Leaves> {
        self.node.lodgings.links().cloned()
    }

    /// The leaves of this node, by number.
    #[must_use]
    pub fn leaves(&self) -> Vec<LeafReport> {
        self.node.lodgings.reports()
    }

    /// The leaves of all members, this node among them. What others say of theirs may be a second old.
    pub async fn mesh_leaves(&self) -> LeafDirectory {
        leaves_of_mesh(&self.node, FRESH).await
    }

    /// Finds a leaf of whichever member by its name, or a unique prefix of its id.
    ///
    /// # Errors
    /// None fits, or several do.
    pub async fn resolve_leaf(&self, query: &str) -> Result<NodeId, CellsError> {
        let leaves = leaves_of_mesh(&self.node, Duration::ZERO).await.leaves;
        let named = leaves.iter().filter(|one| one.name == *query);
        let prefixed = leaves.iter().filter(|one| is_id_prefix(query, &one.leaf));
        let mut fitting: Vec<NodeId> = named.map(|one| one.leaf).collect();
        if fitting.is_empty() {
            fitting = prefixed.map(|one| one.leaf).collect();
        }
        match fitting[..] {
            [] => Err(CellsError::NodeNotFound(query.to_owned())),
            [leaf] => Ok(leaf),
            _ => Err(CellsError::NodeAmbiguous {
                query: query.to_owned(),
                count: fitting.len(),
            }),
        }
    }

    /// Starts an agent on this node.
    ///
    /// # Errors
    /// The module, the name or the input is refused, or the node is full. Nothing is left behind then.
    pub async fn spawn(&self, request: SpawnRequest) -> Result<AgentId, CellsError> {
        crate::spawn::spawn(&self.node, request).await
    }

    /// The agents of this node, ordered by name.
    #[must_use]
    pub fn residents(&self) -> Vec<AgentSummary> {
        self.node.residents()
    }

    /// Every agent of the mesh, ordered by name. All members are asked; those that do not answer are named.
    ///
    /// # Errors
    /// The node is shutting down.
    pub async fn agents(&self) -> Result<AgentDirectory, CellsError> {
        let (directory, leaves) = tokio::join!(
            self.node.agents(Prefix::default()),
            leaves_of_mesh(&self.node, FRESH)
        );
        let mut directory = directory?;
        // The mesh knows the host; the host, on which of its leaves the agent is.
        for agent in &mut directory.agents {
            if let Some(leaf) = leaves.leaf_with(&agent.node, &agent.agent) {
                agent.node = leaf;
            }
        }
        Ok(directory)
    }

    /// Finds an agent by id, name or unique prefix of its id. A name goes before a prefix, and means the living agent
    /// that has it, else the one that was spawned last. Only what the mesh does not find by a name or a whole id
    /// makes this node ask every member.
    ///
    /// # Errors
    /// None fits, or several do.
    pub async fn resolve(&self, query: &str) -> Result<AgentId, CellsError> {
        if let Ok(agent) = query.parse::<AgentId>()
            && !matches!(self.node.sought(&agent).await, Place::Unknown)
        {
            return Ok(agent);
        }
        let mut named = self.node.named(query).await?;
        let mut prefixed = Vec::new();
        if named.is_empty() {
            let prefix = Prefix::new(query).ok().filter(|_| is_prefix(query));
            if prefix.is_some() {
                prefixed = self.node.agents(prefix.unwrap_or_default()).await?.agents;
            } else {
                named = self.agents().await?.agents;
                named.retain(|agent| agent.name == query);
            }
        }
        // An ended agent gives its name free.
        let living = named.iter().filter(|agent| !agent.state.is_final());
        let living: Vec<&AgentSummary> = living.collect();
        let fitting = match (living.len(), named.len()) {
            (0, 0) => prefixed.iter().collect(),
            (0, _) => named
                .iter()
                .max_by_key(|agent| (agent.started_ms, agent.agent))
                .into_iter()
                .collect(),
            (_, _) => living,
        };
        match fitting[..] {
            [] => Err(CellsError::AgentNotFound(query.to_owned())),
            [agent] => Ok(agent.agent),
            _ => Err(CellsError::AgentAmbiguous {
                query: query.to_owned(),
                count: fitting.len(),
            }),
        }
    }

    /// Finds a node by id, name or unique prefix of its id. A name goes before a prefix, a node that may come back
    /// before one that is dead or has left.
    ///
    /// # Errors
    /// None fits, or several do.
    pub fn resolve_node(&self, query: &str) -> Result<NodeId, CellsError> {
        let members = self.node.mesh.members();
        let mut fitting: Vec<_> = members
            .iter()
            .filter(|member| member.identity.name.as_str() == query)
            .collect();
        if fitting.is_empty() {
            fitting = members
                .iter()
                .filter(|member| is_id_prefix(query, &member.identity.id))
                .collect();
        }
        if fitting.len() > 1 {
            fitting.retain(|member| !matches!(member.state, MemberState::Dead | MemberState::Left));
        }
        match fitting[..] {
            [] => match self.node.lodgings.find(query) {
                Err(CellsError::NodeNotFound(_)) => self.resolve_revoked(query),
                found => found,
            },
            [member] => Ok(member.identity.id),
            _ => Err(CellsError::NodeAmbiguous {
                query: query.to_owned(),
                count: fitting.len(),
            }),
        }
    }

    /// The node of this id, prefix or name among those that are shut out, of which membership knows nothing any more.
    fn resolve_revoked(&self, query: &str) -> Result<NodeId, CellsError> {
        let mesh = &self.node.mesh;
        let fits = |node: &NodeId| {
            let name = mesh.revoked_name(node);
            name.is_some_and(|name| name.as_str() == query) || is_id_prefix(query, node)
        };
        let nodes = mesh.revocations().into_iter().map(|one| one.node);
        let fitting: Vec<NodeId> = nodes.filter(fits).collect();
        match fitting[..] {
            [] => Err(CellsError::NodeNotFound(query.to_owned())),
            [node] => Ok(node),
            _ => Err(CellsError::NodeAmbiguous {
                query: query.to_owned(),
                count: fitting.len(),
            }),
        }
    }

    /// What the agent's node says about it.
    ///
    /// # Errors
    /// The agent is unknown or its node does not answer.
    pub async fn inspect(&self, agent: AgentId) -> Result<AgentReport, CellsError> {
        let node = &self.node;
        let here = |cell: Arc<Cell>| async move { Ok(Ok(operations::inspect(node, &cell))) };
        self.perform(
            agent,
            Operation::Inspect,
            None,
            here,
            |answer, _, _| match answer {
                Answer::Inspected(inspected) => inspected.into_report(agent).map(Some),
                _ => Ok(None),
            },
        )
        .await
    }

    /// Stops the agent at its next safepoint until it is resumed.
    ///
    /// # Errors
    /// The agent is unknown, unreachable, moving or has ended.
    pub async fn pause(&self, agent: AgentId) -> Result<(), CellsError> {
        let node = &self.node;
        let here = |cell: Arc<Cell>| async move { operations::pause(node, &cell).await.map(Ok) };
        self.perform(agent, Operation::Pause, None, here, done)
            .await
    }

    /// Puts the agent on its node's disk and frees its memory. It wakes when a message comes for it, when it is paused,
    /// resumed, moved or copied, and at the end of the wait that it is in. It survives a crash of its node.
    ///
    /// # Errors
    /// The agent is unknown or unreachable, has ended, is busy or comes to no safepoint; or its node has no directory,
    /// or cannot write there.
    pub async fn hibernate(&self, agent: AgentId) -> Result<(), CellsError> {
        let node = &self.node;
        let here =
            |cell: Arc<Cell>| async move { hibernation::hibernate(node, &cell).await.map(Ok) };
        self.perform(agent, Operation::Hibernate, None, here, done)
            .await
    }

    /// Lets a paused agent go on, or one that is hibernated.
    ///
    /// # Errors
    /// The agent is unknown, unreachable, moving or has ended.
    pub async fn resume(&self, agent: AgentId) -> Result<(), CellsError> {
        let node = &self.node;
        let here = |cell: Arc<Cell>| async move { operations::resume(node, &cell).await.map(Ok) };
        self.perform(agent, Operation::Resume, None, here, done)
            .await
    }

    /// Ends the agent at its next safepoint with exit code 137.
    ///
    /// # Errors
    /// The agent is unknown, unreachable, moving or has ended.
    pub async fn terminate(&self, agent: AgentId) -> Result<(), CellsError> {
        let node = &self.node;
        let here = |cell: Arc<Cell>| async move {
            operations::fetch_and_terminate(node, &cell).await.map(Ok)
        };
        self.perform(agent, Operation::Terminate, None, here, done)
            .await
    }

    /// Lets an agent go on that is frozen because the node to which it was handed over does not answer. Whoever says so
    /// knows that the other node does not run it and never will: its disk is gone, say. Otherwise two copies run.
    ///
    /// # Errors
    /// The agent is unknown or unreachable, or not in doubt.
    pub async fn recover(&self, agent: AgentId) -> Result<(), CellsError> {
        let node = &self.node;
        let here = |cell: Arc<Cell>| async move { operations::recover(node, &cell).await.map(Ok) };
        self.perform(agent, Operation::Recover, None, here, done)
            .await
    }

    /// Forgets an ended agent: its logs, its exit code, and every file of it.
    ///
    /// # Errors
    /// The agent is unknown or unreachable, it lives, or its files could not be deleted.
    pub async fn remove(&self, agent: AgentId) -> Result<(), CellsError> {
        let node = &self.node;
        let here = |cell: Arc<Cell>| async move { operations::remove(node, &cell).await };
        self.perform(agent, Operation::Remove, None, here, done)
            .await
    }

    /// Waits until the agent has ended, through all its moves.
    ///
    /// # Errors
    /// The agent is unknown, or its node does not answer any more.
    pub async fn wait(&self, agent: AgentId) -> Result<AgentEnd, CellsError> {
        let node = &self.node;
        let here = |cell: Arc<Cell>| async move { Ok(operations::wait(node, &cell).await) };
        self.perform(
            agent,
            Operation::Wait,
            None,
            here,
            |answer, _, _| match answer {
                Answer::Ended { exit_code, failure } => Ok(Some(AgentEnd { exit_code, failure })),
                _ => Ok(None),
            },
        )
        .await
    }

    /// Reads a log from `offset`; when nothing is there yet and the agent lives, waits up to `wait` for more.
    ///
    /// # Errors
    /// The agent is unknown, its node does not answer, or its log cannot be read.
    pub async fn read_log(
        &self,
        agent: AgentId,
        log: LogKind,
        offset: u64,
        wait: Duration,
    ) -> Result<LogChunk, CellsError> {
        let node = &self.node;
        let here = |cell: Arc<Cell>| async move {
            operations::read_log(node, &cell, log, offset, wait).await
        };
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let operation = Operation::ReadLog {
            stderr: log == LogKind::Stderr,
            offset,
            wait_ms,
        };
        self.perform(
            agent,
            operation,
            None,
            here,
            |answer, bytes, _| match answer {
                Answer::Log { offset, end } => Ok(Some(LogChunk { offset, bytes, end })),
                _ => Ok(None),
            },
        )
        .await
    }

    /// A reader over a log from `offset`: to its present end, or with `follow` until the agent has ended.
    #[must_use]
    pub fn logs(&self, agent: AgentId, log: LogKind, offset: u64, follow: bool) -> LogReader {
        LogReader {
            cells: self.clone(),
            agent,
            log,
            offset,
            follow,
            done: false,
        }
    }

    /// The newest lines that nodes wrote about the agent.
    ///
    /// # Errors
    /// The agent is unknown or its node does not answer.
    pub async fn host_log(&self, agent: AgentId) -> Result<Vec<HostLine>, CellsError> {
        let here = |cell: Arc<Cell>| async move { Ok(Ok(cell.logs.lines())) };
        self.perform(
            agent,
            Operation::HostLog,
            None,
            here,
            |answer, _, _| match answer {
                Answer::HostLog(lines) => Ok(Some(
                    lines.into_iter().map(wire::Line::into_host_line).collect(),
                )),
                _ => Ok(None),
            },
        )
        .await
    }

    /// Sends a message; returns when it is in the agent's mailbox, with its sequence number.
    ///
    /// # Errors
    /// The agent is unknown or has ended, the payload is over 16 MiB, or the agent could not be reached in time. With
    /// [`CellsError::Gone`] the message was not sent; with [`CellsError::OnItsWay`] and [`CellsError::TimedOut`] it was,
    /// and goes on being brought for as long as this node runs.
    pub async fn send(&self, agent: AgentId, payload: Bytes) -> Result<u64, CellsError> {
        self.node.client.send(&self.node, agent, payload).await
    }

    /// Sends a message and waits for the agent's reply.
    ///
    /// # Errors
    /// As for [`Cells::send`], or no reply came in time; the message may have been received all the same.
    pub async fn request(
        &self,
        agent: AgentId,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, CellsError> {
        self.node
            .client
            .request(&self.node, agent, payload, timeout)
            .await
    }

    /// Moves an agent to `node` and reports each step to `progress`. The move goes on when the caller goes away.
    ///
    /// To a leaf of another member it goes by way of that member, where it stays if the leaf does not take it.
    ///
    /// # Errors
    /// The agent or node is unknown, the agent is there already, has ended or is busy, or the move was rolled back.
    pub async fn migrate(
        &self,
        agent: AgentId,
        node: NodeId,
        options: MoveOptions,
        progress: Option<mpsc::UnboundedSender<MoveProgress>>,
    ) -> Result<MoveReport, CellsError> {
        let members = self.node.mesh.members();
        let is_member = members.iter().any(|member| member.identity.id == node);
        let is_here = matches!(self.node.place(&agent), Place::Here(_));
        // Of a leaf of this node nobody else has to be asked.
        if is_member || is_here && self.node.lodgings.is_leaf(&node) {
            return self.migrate_once(agent, node, options, progress).await;
        }
        let leaves = leaves_of_mesh(&self.node, Duration::ZERO).await;
        let leaf = leaves.get(&node);
        let leaf = leaf.ok_or_else(|| CellsError::NodeNotFound(node.to_string()))?;
        let is_at_host = match found(&self.node, &agent).await {
            Place::Here(_) => leaf.host == self.node.id(),
            Place::There(holder, _) => leaf.host == holder,
            Place::Unknown => return Err(CellsError::AgentNotFound(agent.to_string())),
        };
        if is_at_host {
            return self.migrate_once(agent, node, options, progress).await;
        }
        if leaf.standing == LeafStanding::Gone || !leaf.is_ready {
            return Err(CellsError::LeafNotReady {
                leaf: node,
                why: match leaf.standing {
                    LeafStanding::Gone => "it is gone",
                    LeafStanding::Connected | LeafStanding::Asleep => NOT_NOW,
                },
            });
        }
        if self.inspect(agent).await?.state == AgentState::Paused {
            return Err(CellsError::Busy {
                agent,
                doing: PAUSED.to_owned(),
            });
        }
        let steps = progress.clone();
        let first = self.migrate_once(agent, leaf.host, options, steps).await?;
        let last = self.migrate_once(agent, node, options, progress).await;
        let last = last.map_err(|error| CellsError::AtHost {
            agent,
            host: leaf.host,
            error: Box::new(error),
        })?;
        Ok(first.and_then(last))
    }

    /// The same, to a member or to a leaf of the agent's own node.
    async fn migrate_once(
        &self,
        agent: AgentId,
        node: NodeId,
        options: MoveOptions,
        progress: Option<mpsc::UnboundedSender<MoveProgress>>,
    ) -> Result<MoveReport, CellsError> {
        let source = &self.node;
        let steps = progress.clone();
        let here = |cell: Arc<Cell>| {
            let moving = tokio::spawn(moving::move_agent(
                Arc::clone(source),
                cell,
                node,
                options,
                steps.clone(),
            ));
            async move {
                moving
                    .await
                    .map_err(|error| CellsError::Internal(error.to_string()))?
                    .map(Ok)
            }
        };
        let operation = Operation::Migrate {
            node: node.0,
            strategy: options.strategy.map(wire::strategy_number),
            downtime_ms: options
                .downtime
                .map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
        };
        self.perform(
            agent,
            operation,
            progress.as_ref(),
            here,
            |answer, _, _| match answer {
                Answer::Moved(moved) => moved.into_report(agent).map(Some),
                _ => Ok(None),
            },
        )
        .await
    }

    /// Copies an agent: all that it is but its messages and its log, as bytes that [`Cells::restore`] makes an agent of on
    /// any node. It stands still while its memory is copied, and then goes on.
    ///
    /// # Errors
    /// The agent is unknown or unreachable, has ended, is busy, or comes to no safepoint.
    pub async fn checkpoint(&self, agent: AgentId) -> Result<Bytes, CellsError> {
        let source = &self.node;
        let here = |cell: Arc<Cell>| async move { checkpoint::take(source, &cell).await.map(Ok) };
        self.perform(
            agent,
            Operation::Checkpoint,
            None,
            here,
            |answer, bytes, _| match answer {
                Answer::Copied => Ok(Some(bytes)),
                _ => Ok(None),
            },
        )
        .await
    }

    /// Makes a new agent of this node of a checkpoint, which goes on where that stood, and starts it. It is called as the
    /// original was unless `name` is given, has an id of its own, and no messages. Its grants are the checkpoint's: whoever
    /// may spawn here could grant them as well. Of each limit it has the smaller of the checkpoint's and this node's.
    ///
    /// A checkpoint that a bare node wrote of an agent that was started there does not say how the agent is called, and has no
    /// limits or budget: the agent gets a name, this node's limits and no budget. Its grants are those of the program in it.
    ///
    /// # Errors
    /// The checkpoint is damaged or does not fit, the name is taken, or the node is full. Nothing is left behind then.
    pub async fn restore(
        &self,
        checkpoint: Bytes,
        name: Option<String>,
    ) -> Result<AgentId, CellsError> {
        let naming = name.map_or(Naming::Kept, Naming::Chosen);
        checkpoint::restore(&self.node, checkpoint, naming).await
    }

    /// Makes a new agent on `node` that is a copy of one, as [`Cells::checkpoint`] and [`Cells::restore`] would, and goes
    /// on where that one stood still for a moment. Without `name` it gets one that begins as the original's.
    ///
    /// # Errors
    /// As for those two; or the node is unknown, does not answer, or has moves switched off.
    pub async fn duplicate(
        &self,
        agent: AgentId,
        node: NodeId,
        name: Option<String>,
    ) -> Result<AgentId, CellsError> {
        let source = &self.node;
        let chosen = &name;
        let here = |cell: Arc<Cell>| async move {
            cloning::clone_to(source, &cell, node, chosen.clone())
                .await
                .map(Ok)
        };
        let operation = Operation::Clone {
            node: node.0,
            name: name.clone(),
        };
        self.perform(agent, operation, None, here, |answer, _, _| match answer {
            Answer::Made(agent) => Ok(Some(AgentId(agent))),
            _ => Ok(None),
        })
        .await
    }

    /// Stops the agents, writes those that live to the data directory and ends the worker threads. Gives the agents
    /// that could not be written, such as one that a move held for more than 5 s; the log says why. They are lost
    /// unless the move still takes them along.
    pub async fn shutdown(&self) -> Vec<AgentId> {
        self.node.shutdown().await
    }

    /// Performs an operation where the agent is, following it while it moves.
    async fn perform<T, F>(
        &self,
        agent: AgentId,
        operation: Operation,
        progress: Option<&mpsc::UnboundedSender<MoveProgress>>,
        here: impl Fn(Arc<Cell>) -> F,
        read: impl Fn(Answer, Bytes, NodeId) -> Result<Option<T>, CellsError>,
    ) -> Result<T, CellsError>
    where
        F: Future<Output = Result<Result<T, Absent>, CellsError>>,
    {
        let call = Call {
            agent: agent.0,
            operation,
        };
        let mut events = self.node.mesh.subscribe();
        let mut deadline = Instant::now() + FIND_TIMEOUT;
        let mut followed = 0;
        loop {
            let error = match found(&self.node, &agent).await {
                Place::Here(cell) => match here(cell).await? {
                    Ok(done) => return Ok(done),
                    Err(_absent) => CellsError::AgentNotFound(agent.to_string()),
                },
                Place::There(peer, _) => {
                    let asked = tokio::select! {
                        biased;
                        gone = self.node.out_of_reach(&agent) => return Err(gone),
                        asked = operations::ask(&self.node, &peer, &call, progress) => asked,
                    };
                    match asked {
                        Ok((Answer::Failed(failure), _)) => return Err(failure.into_error(agent)),
                        Ok((Answer::Elsewhere { node, epoch }, _)) => {
                            if self.node.hear_of(agent, NodeId(node), epoch) {
                                // Each hop has a higher epoch; one that led nowhere is not waited for anew.
                                if epoch > followed {
                                    (followed, deadline) = (epoch, Instant::now() + FIND_TIMEOUT);
                                }
                                continue;
                            }
                            CellsError::AgentNotFound(agent.to_string())
                        }
                        Ok((Answer::Unknown, _)) => CellsError::AgentNotFound(agent.to_string()),
                        Ok((answer, bytes)) => match read(answer, bytes, peer)? {
                            Some(done) => return Ok(done),
                            None => return Err(wire::malformed("an answer to another question")),
                        },
                        Err(error) if call.operation.may_repeat() => error,
                        Err(error) => return Err(error),
                    }
                }
                Place::Unknown => return Err(CellsError::AgentNotFound(agent.to_string())),
            };
            if Instant::now() >= deadline {
                return Err(error);
            }
            self.node.hearsay.give_up(&agent);
            heard_of(&agent, &mut events).await;
            let _ = tokio::time::timeout_at(deadline, self.node.sought(&agent)).await;
        }
    }
}

/// Reads the answer to an operation that gives nothing back.
fn done(answer: Answer, _: Bytes, _: NodeId) -> Result<Option<()>, CellsError> {
    Ok(matches!(answer, Answer::Done).then_some(()))
}

/// Whether the text can be the beginning of an id; very short ones are too often names.
fn is_prefix(query: &str) -> bool {
    query.len() >= 4 && query.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether the id of a node begins so.
pub(crate) fn is_id_prefix(query: &str, node: &NodeId) -> bool {
    is_prefix(query) && node.to_string().starts_with(&query.to_lowercase())
}

/// Reads a log piece by piece; see [`Cells::logs`].
pub struct LogReader {
    cells: Cells,
    agent: AgentId,
    log: LogKind,
    offset: u64,
    follow: bool,
    done: bool,
}

/// How long one read of a followed log waits at the agent's node.
const FOLLOW_WAIT: Duration = Duration::from_secs(30);

impl LogReader {
    /// The next bytes, or `None` at the end.
    ///
    /// # Errors
    /// As for [`Cells::read_log`]. The reader may be asked again and goes on where it was.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CellsError> {
        let wait = if self.follow {
            FOLLOW_WAIT
        } else {
            Duration::ZERO
        };
        while !self.done {
            let chunk = self
                .cells
                .read_log(self.agent, self.log, self.offset, wait)
                .await?;
            self.offset += chunk.bytes.len() as u64;
            self.done = chunk.end || (chunk.bytes.is_empty() && !self.follow);
            if !chunk.bytes.is_empty() {
                return Ok(Some(chunk.bytes));
            }
        }
        Ok(None)
    }
}
