//! The source's end of a move: does what the coordinator decides.

mod doubt;
mod ending;
mod files;
mod pages;
mod serving;
pub(crate) mod settled;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mielin_mesh::{Features, MeshError, MeshEvent, RecvHalf};
use mielin_mesh_core::limits::PRE_COPY_DOWNTIME_BUDGET;
use mielin_mesh_core::migration::{Move, SourceAction, SourceInput};
use mielin_mesh_core::{
    AgentId, AgentState, Epoch, MemberState, MigrationCoordinator, MigrationFrame, MigrationPhase,
    MigrationStrategy, NodeId, codec,
};
use mielin_safepoint::PAGE_SIZE;
use mielin_wasm::{BlockStream, DirtyTracker, HostState, Instance, PageSet};
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};

pub(in crate::moving) use self::doubt::ask;
use self::pages::SentPages;
use self::serving::Serving;
use super::frames::{self, Header, Identified, Installed, Offered, Outgoing};
use super::packing::Packer;
use crate::cell::restraint::Restrained;
use crate::cell::{Cell, Claim, HeldLive};
use crate::config::{MoveSide, ProbeAnswer};
use crate::error::CellsError;
use crate::hibernation;
use crate::ledger::Departure;
use crate::lock::lock;
use crate::lodging;
use crate::modules;
use crate::node::Node;
use crate::report::{LogKind, MoveOptions, MoveProgress, MoveReport, PhaseTime};
use crate::tally::Tally;
use crate::wire;

/// Bytes of log in one frame.
const LOG_BATCH: usize = 256 * 1024;
/// The largest memory that is searched for non-zero pages before the strategy is chosen, while the agent stands still:
/// well under a millisecond. A larger one counts as full.
const SCAN_BYTES_MAX: u64 = 4 << 20;
/// How long the target may take to say what became of an agent.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long whoever asked for a move waits for the outcome of one that is in doubt.
const DOUBT_PATIENCE: Duration = Duration::from_secs(10);

/// Moves an agent of this node to another one.
///
/// The move itself is a task of its own, because an agent in doubt must be looked after however long that takes.
pub(crate) async fn move_agent(
    node: Arc<Node>,
    cell: Arc<Cell>,
    target: NodeId,
    options: MoveOptions,
    progress: Option<mpsc::UnboundedSender<MoveProgress>>,
) -> Result<MoveReport, CellsError> {
    let agent = cell.id();
    let came = match lodging::move_leafward(&node, &cell, target).await? {
        lodging::Way::Over(moved) => return Ok(moved),
        lodging::Way::FromHere(came) => came,
    };
    if target == node.id() {
        return Err(CellsError::SameNode {
            agent,
            node: target,
        });
    }
    if node.is_closing() {
        return Err(CellsError::ShuttingDown);
    }
    if !node.mesh.migrates() {
        return Err(CellsError::MigrationOff(node.id()));
    }
    let members = node.mesh.members();
    if !members.iter().any(|member| member.identity.id == target) {
        return Err(CellsError::NodeNotFound(target.to_string()));
    }
    if let Some(absence) = node.mesh.absence(&target) {
        return Err(CellsError::Gone(absence));
    }
    hibernation::wake(&node, &cell).await?;
    settled::until_settled(&node, &cell).await?;
    let claim = cell.claim("it is moving to another node")?;
    let (done, outcome) = oneshot::channel();
    let (doubt, mut doubtful) = watch::channel(false);
    tokio::spawn(async move {
        let result = match Source::prepare(node, claim, target, options, progress, doubt).await {
            Ok(source) => source.drive().await,
            Err(error) => Err(error),
        };
        // Whoever asked may have gone; the move stands all the same.
        let _ = done.send(result);
    });
    let lost_patience = async {
        if doubtful.wait_for(|doubtful| *doubtful).await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(DOUBT_PATIENCE).await;
    };
    let moved = tokio::select! {
        result = outcome => result.map_err(|_| CellsError::Internal("the move was abandoned".to_owned()))?,
        () = lost_patience => Err(CellsError::InDoubt { agent, node: target }),
    };
    Ok(MoveReport::after(came, moved?))
}

struct Source {
    node: Arc<Node>,
    /// Before the claim, which is what allows it.
    restrained: Option<Restrained>,
    claim: Claim,
    target: NodeId,
    coordinator: MigrationCoordinator,
    phase: MigrationPhase,
    progress: Option<mpsc::UnboundedSender<MoveProgress>>,
    doubt: watch::Sender<bool>,
    /// Somebody says that the target has not got the agent.
    forced: Arc<Notify>,
    began: Instant,
    /// `None` once the stream is broken.
    outgoing: Option<Outgoing>,
    /// `None` once everything that the target sent has been read.
    inputs: Option<mpsc::Receiver<Arrived>>,
    /// True when the stream has broken, to interrupt an action that waits for it.
    broken: watch::Receiver<bool>,
    events: broadcast::Receiver<MeshEvent>,
    strategy: Option<MigrationStrategy>,
    tracker: Option<Box<dyn DirtyTracker>>,
    tracker_name: &'static str,
    held: Option<HeldLive>,
    /// The stream on which the target asks for pages, until they are served.
    follow: Option<(Outgoing, RecvHalf)>,
    /// Has the agent and the stream while pages follow.
    serving: Option<Serving>,
    faults: u64,
    /// Pages found dirty and not sent yet.
    dirty: PageSet,
    /// They are all pages that there are: nobody has looked which of them are zero.
    is_untold: bool,
    /// So many of those that were to follow have never been touched.
    untouched: u64,
    /// Their bytes, where the tracker cannot read them while the agent runs.
    copies: BTreeMap<u32, Box<[u8; PAGE_SIZE]>>,
    /// What the target has.
    sent: SentPages,
    packer: Packer,
    digest: blake3::Hasher,
    /// Names of the host sections that the target has.
    ahead: Vec<String>,
    logs_sent: [u64; 2],
    files: BlockStream,
    files_sent: u64,
    /// The epoch that the target was given.
    handed: Epoch,
    target_resume_us: u64,
    /// Something was to be done with the agent, and it had come to its end.
    has_ended: bool,
}

/// What the target sent, or that nothing more will come.
enum Arrived {
    Frame(MigrationFrame, Bytes),
    Broken,
}

impl Source {
    async fn prepare(
        node: Arc<Node>,
        claim: Claim,
        target: NodeId,
        options: MoveOptions,
        progress: Option<mpsc::UnboundedSender<MoveProgress>>,
        doubt: watch::Sender<bool>,
    ) -> Result<Source, CellsError> {
        let began = Instant::now();
        let cell = Arc::clone(claim.cell());
        let unreachable = |error: MeshError| CellsError::Unreachable {
            node: target,
            reason: error.to_string(),
        };
        let common = node.mesh.features(&target).await.map_err(unreachable)?;
        if !common.contains(Features::MIGRATION) {
            return Err(CellsError::MigrationOff(target));
        }
        cell.publish(AgentState::Moving);
        let events = node.mesh.subscribe();
        let stream = node.mesh.open_stream(&target, wire::MOVES).await;
        let stream = stream.map_err(unreachable)?;
        let (send, mut recv) = stream.split();
        let (sender, inputs) = mpsc::channel(16);
        let (break_off, broken) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok(Some((Header::Core(frame), tail))) = frames::receive(&mut recv).await {
                if sender.send(Arrived::Frame(frame, tail)).await.is_err() {
                    return;
                }
            }
            break_off.send_replace(true);
            // The driver may have ended, which is why the stream has.
            let _ = sender.send(Arrived::Broken).await;
        });
        let memory_bytes = cell.memory_bytes();
        let nonzero_bytes = if memory_bytes <= SCAN_BYTES_MAX {
            let held = cell.clone().hold_live().await?;
            pages::used(held.instance()).len() as u64 * PAGE_SIZE as u64
        } else {
            memory_bytes
        };
        let prepared = cell.prepared()?;
        let module = prepared.module();
        let plan = Move {
            agent: cell.id(),
            epoch: cell.epoch(),
            module: module.hash().0,
            module_bytes: modules::plain(module)?.len() as u64,
            memory_bytes,
            nonzero_bytes,
            strategy: options.strategy,
            downtime: options.downtime.unwrap_or(PRE_COPY_DOWNTIME_BUDGET),
            timeout: node.config.move_timeout,
        };
        let packer = Packer::new(node.config.packing);
        Ok(Source {
            coordinator: MigrationCoordinator::new(node.now(), plan),
            phase: MigrationPhase::Planning,
            node,
            restrained: None,
            claim,
            target,
            progress,
            doubt,
            forced: Arc::new(Notify::new()),
            began,
            outgoing: Some(Outgoing::new(send)),
            inputs: Some(inputs),
            broken,
            events,
            strategy: None,
            tracker: None,
            tracker_name: "none",
            held: None,
            follow: None,
            serving: None,
            faults: 0,
            dirty: PageSet::default(),
            is_untold: false,
            untouched: 0,
            copies: BTreeMap::new(),
            sent: SentPages::new()?,
            packer,
            digest: blake3::Hasher::new(),
            ahead: Vec::new(),
            logs_sent: [0; 2],
            files: BlockStream::default(),
            files_sent: 0,
            handed: Epoch(0),
            target_resume_us: 0,
            has_ended: false,
        })
    }

    fn cell(&self) -> &Arc<Cell> {
        self.claim.cell()
    }

    async fn drive(mut self) -> Result<MoveReport, CellsError> {
        self.enter(self.phase.clone());
        let node = Arc::clone(&self.node);
        loop {
            while let Some(action) = self.coordinator.poll_action() {
                self.note_phase();
                let input = self.act_unless_interrupted(action).await;
                let now = self.node.now();
                if let Some(input) = input.filter(|input| self.is_news(input)) {
                    self.coordinator.handle(now, input);
                }
                self.note_phase();
            }
            self.note_phase();
            if self.phase.is_final() {
                return self.report().await;
            }
            if self.phase == MigrationPhase::InDoubt && self.node.is_closing() {
                // It is stored as it is, and the next life of this node asks on.
                self.end_serving().await;
                return Err(CellsError::InDoubt {
                    agent: self.cell().id(),
                    node: self.target,
                });
            }
            let input = tokio::select! {
                input = self.next_input() => input,
                () = node.closing(), if self.phase == MigrationPhase::InDoubt => continue,
            };
            let now = self.node.now();
            match input {
                Some(input) => self.coordinator.handle(now, input),
                None => self.coordinator.handle_timeout(now),
            }
        }
    }

    /// Waits for whatever comes first; `None` is the coordinator's timer.
    async fn next_input(&mut self) -> Option<SourceInput> {
        let due = self
            .coordinator
            .poll_timeout()
            .map(|at| at.since(self.node.now()));
        let timer = async {
            match due {
                Some(due) => tokio::time::sleep(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(timer);
        let (agent, target, epoch) = (self.cell().id(), self.target, self.cell().epoch());
        let arrived = async {
            match &mut self.inputs {
                Some(inputs) => inputs.recv().await.unwrap_or(Arrived::Broken),
                None => std::future::pending().await,
            }
        };
        let served = async {
            match &mut self.serving {
                Some(serving) => serving.progress().await,
                None => std::future::pending().await,
            }
        };
        let arrived = tokio::select! {
            () = self.forced.notified() => return Some(SourceInput::Forced),
            arrived = arrived => arrived,
            served = served => return Some(self.note_served(served)),
            input = relevant(&mut self.events, agent, target, epoch) => return Some(input),
            () = &mut timer => return None,
        };
        Some(match arrived {
            Arrived::Frame(frame, tail) => {
                let noted = tokio::select! {
                    noted = self.note_frame(&frame, &tail) => noted,
                    () = &mut timer => {
                        // A frame may have been cut in the middle.
                        self.outgoing = None;
                        return None;
                    }
                };
                let failure = noted.err().filter(|input| self.is_news(input));
                failure.unwrap_or(SourceInput::Frame(frame))
            }
            Arrived::Broken => {
                self.outgoing = None;
                self.inputs = None;
                SourceInput::ConnectionLost
            }
        })
    }

    /// A target that says why it gives a move up, and reads no further, breaks what is being sent before its reason has
    /// been read. Until all of it has, that nothing can be sent is no news: the reader tells when there is no more.
    fn is_news(&self, input: &SourceInput) -> bool {
        !matches!(input, SourceInput::ConnectionLost) || self.inputs.is_none()
    }

    async fn note_frame(
        &mut self,
        frame: &MigrationFrame,
        tail: &Bytes,
    ) -> Result<(), SourceInput> {
        match frame {
            MigrationFrame::Accept { post_copy, .. } => {
                if *post_copy && self.strategy.is_some_and(MigrationStrategy::lets_follow) {
                    self.open_follow().await?;
                }
                self.send_ahead().await?;
            }
            // Before the hand-over, and while the agent still runs: after a crash this node must know whom to ask.
            MigrationFrame::Prepared => self.note_departure().await?,
            MigrationFrame::Running { .. } => {
                let us = tail
                    .first_chunk::<8>()
                    .map_or(0, |bytes| u64::from_le_bytes(*bytes));
                self.target_resume_us = us;
            }
            _ => {}
        }
        Ok(())
    }

    /// Carries an action out, unless the stream breaks or the time is up meanwhile.
    async fn act_unless_interrupted(&mut self, action: SourceAction) -> Option<SourceInput> {
        let must_end = matches!(
            action,
            SourceAction::Resume { .. }
                | SourceAction::Restrain { .. }
                | SourceAction::Release
                | SourceAction::Query(_)
        );
        if must_end {
            return self.act(action).await;
        }
        let due = self
            .coordinator
            .poll_timeout()
            .map(|at| at.since(self.node.now()));
        let timer = async {
            match due {
                Some(due) => tokio::time::sleep(due).await,
                None => std::future::pending().await,
            }
        };
        let mut broken = self.broken.clone();
        let breaking = async {
            if broken.wait_for(|broken| *broken).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        // The stream has gone but what arrived before it went is still to be read, so actions that need no stream go on.
        let needs_stream = !matches!(
            action,
            SourceAction::Freeze | SourceAction::Harvest | SourceAction::ServePages
        );
        let interrupted = tokio::select! {
            input = self.act(action) => return input,
            () = timer => SourceInput::Failed("the time is up".to_owned()),
            () = breaking, if needs_stream => SourceInput::ConnectionLost,
        };
        // A frame may have been cut in the middle.
        self.outgoing = None;
        let now = self.node.now();
        if self.coordinator.poll_timeout().is_some_and(|at| at <= now) {
            self.coordinator.handle_timeout(now);
        }
        Some(interrupted)
    }

    async fn act(&mut self, action: SourceAction) -> Option<SourceInput> {
        // Whatever comes after it ends it.
        self.end_serving().await;
        match action {
            SourceAction::Send(frame) => {
                let tail = match &frame {
                    MigrationFrame::Offer(offer) => {
                        self.strategy = Some(offer.strategy);
                        let offered = Offered {
                            identified: Identified::new(&self.cell().identity),
                            page_key: self.sent.seed(),
                        };
                        codec::encode(&offered).into()
                    }
                    _ => Bytes::new(),
                };
                self.send(Header::Core(frame), tail).await.err()
            }
            SourceAction::SendModule => {
                let prepared = self.cell().prepared();
                let module = match prepared.and_then(|prepared| modules::plain(prepared.module())) {
                    Ok(module) => module,
                    Err(error) => return Some(self.failed(&error)),
                };
                let bytes = module.len() as u64;
                let sent = self
                    .send(Header::Core(MigrationFrame::Module), module)
                    .await;
                Some(sent.err().unwrap_or(SourceInput::ModuleSent { bytes }))
            }
            SourceAction::Harvest => Some(match self.harvest().await {
                Ok(()) => SourceInput::Harvested {
                    pages: self.dirty.len(),
                },
                Err(error) => self.failed(&error),
            }),
            SourceAction::Restrain { percent } => {
                self.restrain(percent);
                None
            }
            SourceAction::SendPages => Some(self.send_pages().await.unwrap_or_else(|input| input)),
            SourceAction::Freeze => Some(match self.cell().clone().hold_live().await {
                Ok(held) => {
                    self.held = Some(held);
                    self.cell().post.freeze();
                    SourceInput::Frozen
                }
                Err(error) => self.failed(&error),
            }),
            SourceAction::SendAbsent => {
                Some(self.send_absent().await.unwrap_or_else(|input| input))
            }
            SourceAction::ServePages => {
                self.serve();
                None
            }
            SourceAction::SendState { epoch } => Some(match self.send_state(epoch).await {
                Ok(bytes) => SourceInput::StateSent { bytes },
                Err(input) => input,
            }),
            SourceAction::Query(query) => Some(tokio::select! {
                answer = doubt::query(Arc::clone(&self.node), self.target, query) => answer,
                () = self.node.closing() => SourceInput::QueryFailed,
            }),
            SourceAction::Resume { epoch } => {
                self.cell().raise_epoch(epoch);
                self.cell().post.thaw(self.cell().epoch());
                self.node.move_ended();
                self.tracker = None;
                self.held = None;
                None
            }
            SourceAction::Release => {
                self.release();
                None
            }
        }
    }

    fn restrain(&mut self, percent: u8) {
        match &self.restrained {
            _ if percent == 0 => self.restrained = None,
            Some(restrained) => restrained.by(percent),
            None => self.restrained = Some(self.cell().restrain(percent)),
        }
    }

    fn release(&mut self) {
        let cell = Arc::clone(self.cell());
        self.tracker = None;
        let (node, epoch) = match self.node.mesh.locate(&cell.id()) {
            // The agent was found to live elsewhere before it was handed over.
            Some(location) if self.handed <= cell.epoch() => {
                (location.record.node, location.record.epoch)
            }
            _ => (self.target, self.handed),
        };
        self.node.entomb(&cell, node, epoch);
        cell.post.close();
        if let Some(held) = self.held.take() {
            held.retire();
        }
        cell.logs.discard();
        self.node.move_ended();
    }

    async fn note_departure(&mut self) -> Result<(), SourceInput> {
        let departure = Departure::new(self.target, self.cell().epoch().next());
        let (ledger, agent) = (Arc::clone(&self.node.ledger), self.cell().id());
        let noting = tokio::task::spawn_blocking(move || ledger.depart(agent, &departure));
        let noted = noting
            .await
            .map_err(|error| SourceInput::Failed(error.to_string()))?;
        noted.map_err(|error| self.failed(&error))
    }

    /// The agent stays: nobody need be asked for it after a crash.
    fn note_stay(&self) {
        let (ledger, agent) = (Arc::clone(&self.node.ledger), self.cell().id());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = ledger.stay(agent) {
                tracing::warn!(%agent, %error, "it could not be written down that an agent stays");
            }
        });
    }

    async fn send(&mut self, header: Header, tail: Bytes) -> Result<(), SourceInput> {
        let Some(outgoing) = &mut self.outgoing else {
            return Err(SourceInput::ConnectionLost);
        };
        outgoing.send(&header, tail).await.map_err(|error| {
            tracing::debug!(%error, "the stream to the target broke");
            SourceInput::ConnectionLost
        })
    }

    /// Sends what is there already: arguments and standard input, which do not change, and most of files and logs.
    async fn send_ahead(&mut self) -> Result<(), SourceInput> {
        let held = self.cell().clone().hold_live().await;
        let held = held.map_err(|error| self.failed(&error))?;
        let host = held.instance().host();
        host.add_blocks(&mut self.files);
        let sections = host.to_sections_beside(&self.files);
        drop(held);
        for section in sections {
            if HostState::is_fixed(&section.name) {
                self.ahead.push(section.name.clone());
                let header = Header::Section {
                    name: section.name,
                    version: section.version,
                };
                self.send(header, section.bytes.into()).await?;
            }
        }
        self.send_files().await?;
        self.send_logs().await
    }

    /// Sends what was added to the logs since the last time.
    async fn send_logs(&mut self) -> Result<(), SourceInput> {
        for (index, kind) in [LogKind::Stdout, LogKind::Stderr].into_iter().enumerate() {
            loop {
                let offset = self.logs_sent[index];
                let bytes = self
                    .cell()
                    .logs
                    .log(kind)
                    .read(offset, LOG_BATCH)
                    .map_err(CellsError::io("reading a log"))
                    .map_err(|error| self.failed(&error))?;
                if bytes.is_empty() {
                    break;
                }
                self.logs_sent[index] += bytes.len() as u64;
                let header = Header::Log {
                    stderr: kind == LogKind::Stderr,
                    offset,
                };
                self.send(header, bytes).await?;
            }
        }
        Ok(())
    }

    async fn send_state(&mut self, epoch: Epoch) -> Result<u64, SourceInput> {
        self.send_logs().await?;
        let not_frozen = || SourceInput::Failed("the agent is not frozen".to_owned());
        let held = self.held.as_ref().ok_or_else(not_frozen)?;
        held.instance().host().add_blocks(&mut self.files);
        let of_files = self.send_files().await?;
        let held = self.held.as_ref().ok_or_else(not_frozen)?;
        let mut state = capture(self.cell(), held.instance(), &self.files);
        state
            .sections
            .retain(|section| !self.ahead.contains(&section.name));
        let tail = state.encode(self.digest.clone());
        let bytes = tail.len() as u64;
        self.handed = epoch;
        self.send(Header::Core(MigrationFrame::State { epoch }), tail)
            .await?;
        Ok(bytes + of_files)
    }

    /// Notices that the coordinator is in another phase than before.
    fn note_phase(&mut self) {
        if *self.coordinator.phase() != self.phase {
            self.phase = self.coordinator.phase().clone();
            self.enter(self.phase.clone());
        }
    }

    fn enter(&mut self, phase: MigrationPhase) {
        tracing::debug!(agent = %self.cell().id(), %phase, "a move");
        if phase == MigrationPhase::InDoubt {
            self.cell().doubt(Some(self.target));
            self.cell().publish(AgentState::InDoubt);
            lock(&self.node.doubts).insert(self.cell().id(), Arc::clone(&self.forced));
            self.doubt.send_replace(true);
        } else if phase.is_final() {
            self.cell().doubt(None);
            lock(&self.node.doubts).remove(&self.cell().id());
        }
        if let Some(progress) = &self.progress {
            let bytes = self.outgoing.as_ref().map_or(0, |outgoing| outgoing.bytes);
            // Nobody may be listening any more.
            let _ = progress.send(MoveProgress {
                phase: phase.to_string(),
                bytes,
                elapsed_us: micros(self.began.elapsed()),
            });
        }
        let Some(probe) = &self.node.config.probe else {
            return;
        };
        match (probe.0)(MoveSide::Source, &self.cell().id(), &phase) {
            ProbeAnswer::Continue => {}
            ProbeAnswer::Drop => self.outgoing = None,
            ProbeAnswer::Kill => {
                self.node.play_dead();
                self.outgoing = None;
            }
        }
    }

    async fn report(mut self) -> Result<MoveReport, CellsError> {
        let agent = self.cell().id();
        let metrics = self.coordinator.metrics(self.node.now());
        let phase = self.phase.clone();
        // Whatever the outcome, the agent is not held any longer.
        self.end_serving().await;
        self.tracker = None;
        self.held = None;
        if let Some(outgoing) = self.outgoing.take() {
            tokio::spawn(outgoing.finish());
        }
        if let MigrationPhase::RolledBack(reason) = phase {
            if self.comes_to_its_end().await {
                return Err(CellsError::Ended(agent));
            }
            self.cell().post.thaw(self.cell().epoch());
            self.note_stay();
            return Err(CellsError::RolledBack {
                node: self.target,
                reason,
            });
        }
        Tally::add(&self.cell().tally.moves, 1);
        let rounds = metrics.rounds.len();
        Ok(MoveReport {
            agent,
            from: self.node.id(),
            to: self.target,
            strategy: metrics.strategy,
            downtime_us: micros(metrics.downtime),
            total_us: micros(metrics.total),
            bytes: metrics.bytes,
            rounds: u32::try_from(rounds).unwrap_or(u32::MAX),
            pages: metrics.rounds.iter().map(|round| round.pages).collect(),
            phases: metrics
                .phases
                .iter()
                .map(|time| PhaseTime {
                    phase: time.phase.to_string(),
                    us: micros(time.duration),
                })
                .collect(),
            tracker: self.tracker_name.to_owned(),
            target_resume_us: self.target_resume_us,
            followed: metrics.followed.saturating_sub(self.untouched),
            faults: self.faults,
            unchanged: self.sent.spared(),
            throttled_percent: metrics.restrained_percent,
            page_bytes: self.packer.bytes.raw(),
            page_bytes_sent: self.packer.bytes.sent(),
        })
    }
}

/// Everything of a standing agent but its memory and the contents of its files, which are in the stream.
fn capture(cell: &Cell, instance: &dyn Instance, files: &BlockStream) -> Installed {
    let (outbox, inbox) = cell.post.encode();
    Installed {
        memory_bytes: instance.memory_bytes(),
        paused: cell.is_paused(),
        tallied: cell.tally.tallied(),
        lines: cell.logs.lines(),
        sections: instance.host().to_sections_beside(files),
        execution: instance.execution().encode().into(),
        outbox: outbox.into(),
        inbox: inbox.into(),
        logs: [cell.logs.stdout.len(), cell.logs.stderr.len()],
    }
}

/// The next event of the mesh that matters to a move.
async fn relevant(
    events: &mut broadcast::Receiver<MeshEvent>,
    agent: AgentId,
    target: NodeId,
    epoch: Epoch,
) -> SourceInput {
    loop {
        match events.recv().await {
            Ok(MeshEvent::MemberChanged(member)) if member.identity.id == target => {
                if matches!(member.state, MemberState::Dead | MemberState::Left) {
                    return SourceInput::TargetDead;
                }
            }
            Ok(MeshEvent::LocationChanged(location))
                if location.record.agent == agent && location.record.epoch > epoch =>
            {
                return SourceInput::Superseded {
                    epoch: location.record.epoch,
                };
            }
            Ok(MeshEvent::Fenced {
                agent: fenced, by, ..
            }) if fenced == agent => {
                return SourceInput::Superseded { epoch: by.epoch };
            }
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
