//! The target's end of a move: prepares, writes, starts.

mod ending;
mod following;
mod inbound;
mod welcome;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mielin_mesh::{FrameLimit, MeshStream, RecvHalf};
use mielin_mesh_core::codec;
use mielin_mesh_core::limits::PAGE_BYTES;
use mielin_mesh_core::migration::{
    Offer, PageBatch, Query, QueryReply, TargetAction, TargetInput, read_page_runs,
};
use mielin_mesh_core::{AgentId, Epoch, MigrationFrame, MigrationPhase, MigrationReceiver, NodeId};
use mielin_safepoint::{Execution, HostSection, ModuleHash, SnapshotLimits};
use mielin_wasm::{Address, HostState, Instance, PageKey, Prepared};
use tokio::sync::mpsc;

use self::following::Following;
pub(crate) use self::inbound::Inbound;
use self::inbound::InboundEntry;
use self::welcome::{admit, fits, sections_fit};
use super::frames::{self, FrameError, Header, Installed, Offered, Outgoing};
use super::packing;
use crate::cell::{Cell, Claim, Identity, Parts, Program};
use crate::checkpoint::check_input;
use crate::config::{MoveSide, ProbeAnswer};
use crate::error::CellsError;
use crate::lock::lock;
use crate::logs::Logs;
use crate::node::Node;
use crate::post::Post;
use crate::report::LogKind;
use crate::spawn::host_calls;
use crate::tally::Tally;
use crate::wire;

/// How long a source may take to begin.
const FIRST_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves one stream of protocol 200: a move, or the question what became of one.
pub(crate) async fn serve(node: Arc<Node>, from: NodeId, stream: MeshStream) {
    let (mut send, mut recv) = stream.split();
    match tokio::time::timeout(FIRST_TIMEOUT, frames::receive(&mut recv)).await {
        Ok(Ok(Some((Header::Query(query), _)))) => {
            let reply = answer(&node, query);
            if send.send_frame(&codec::encode(&reply), &[]).await.is_ok() && send.finish().is_ok() {
                let _ = tokio::time::timeout(FIRST_TIMEOUT, send.delivered()).await;
            }
        }
        Ok(Ok(Some(first))) => {
            Target::new(node, from, Outgoing::new(send))
                .drive(first, recv)
                .await
        }
        Ok(Ok(None) | Err(_)) | Err(_) => {
            tracing::debug!(node = %from, "a stream of moves brought nothing")
        }
    }
}

/// Serves one stream of protocol 300: the way on which the target of a move asks for pages.
pub(crate) async fn serve_pages(node: Arc<Node>, from: NodeId, mut stream: MeshStream) {
    let first = stream.recv_frame(FrameLimit::payload(0));
    let Ok(Ok(Some(frame))) = tokio::time::timeout(FIRST_TIMEOUT, first).await else {
        return;
    };
    let Ok(Header::Follow(agent)) = codec::decode(&frame.header) else {
        return;
    };
    let inbound = lock(&node.inbound).get(&AgentId(agent)).cloned();
    if let Some(inbound) = inbound.filter(|inbound| inbound.from == from) {
        // A second one is not wanted.
        let _ = inbound.follow.try_send(stream);
    }
}

/// What a source in doubt is told. A move that is still under way here learns that it was given up, or believed.
fn answer(node: &Arc<Node>, query: Query) -> QueryReply {
    let reply = lock(&node.arrivals).answer(query);
    if matches!(reply, QueryReply::NotHere { .. }) && lock(&node.unsettled).remove(&query.agent) {
        // It was here before this node was killed, and nobody has seen what it did: its source goes on with it.
        if let Ok(cell) = node.here(&query.agent) {
            node.drop_resident(&cell);
            cell.logs.discard();
        }
    }
    if let Some(inbound) = lock(&node.inbound).get(&query.agent) {
        inbound.queried.notify_one();
    }
    reply
}

struct Target {
    node: Arc<Node>,
    from: NodeId,
    receiver: MigrationReceiver,
    phase: MigrationPhase,
    outgoing: Option<Outgoing>,
    guest: Option<Guest>,
    /// The tail of the frame that is being acted on.
    tail: Bytes,
    /// When the frozen state arrived.
    state_at: Option<Instant>,
    /// The inbound entry, taken back when the move is over.
    inbound: Option<InboundEntry>,
    /// Pages that are still to come.
    following: Option<Following>,
    /// Keeps others away from an agent that runs and is not yet this node's.
    claim: Option<Claim>,
}

/// The agent as far as it has arrived.
struct Guest {
    offer: Offer,
    identity: Identity,
    logs: Arc<Logs>,
    post: Arc<Post>,
    prepared: Option<Arc<dyn Prepared>>,
    instance: Option<Box<dyn Instance>>,
    tally: Arc<Tally>,
    sections: Vec<HostSection>,
    /// Contents of files: those that went ahead, and behind them those that replace some.
    files: Vec<u8>,
    page_key: PageKey,
    digest: blake3::Hasher,
    /// Pages that were sent and are not known to have become zero since.
    written: u64,
    paused: bool,
    started: bool,
}

impl Drop for Guest {
    fn drop(&mut self) {
        if !self.started {
            self.logs.discard();
        }
    }
}

/// Whether to go on after an event.
enum Next {
    On,
    /// The probe wants the stream broken.
    Broken,
    /// The probe wants this end dead.
    Killed,
}

impl Target {
    fn new(node: Arc<Node>, from: NodeId, outgoing: Outgoing) -> Target {
        Target {
            receiver: MigrationReceiver::new(node.now()),
            phase: MigrationPhase::Planning,
            node,
            from,
            outgoing: Some(outgoing),
            guest: None,
            tail: Bytes::new(),
            state_at: None,
            inbound: None,
            following: None,
            claim: None,
        }
    }

    async fn drive(mut self, first: (Header, Bytes), recv: RecvHalf) {
        let mut frames = read(recv);
        let mut event = Some(Ok(Some(first)));
        loop {
            match event.take() {
                Some(arrived) => self.arrived(arrived),
                None => self.receiver.handle_timeout(self.node.now()),
            }
            while let Some(action) = self.receiver.poll_action() {
                match self.note_phase() {
                    Next::On => {}
                    Next::Broken => frames.close(),
                    Next::Killed => return,
                }
                if let Some(input) = self.act(action).await {
                    self.handle(input);
                }
            }
            match self.note_phase() {
                Next::On => {}
                Next::Broken => frames.close(),
                Next::Killed => return,
            }
            if self.phase.is_final() {
                break;
            }
            event = self.next_event(&mut frames).await;
        }
        self.inbound = None;
        if let Some(outgoing) = self.outgoing.take() {
            outgoing.finish().await;
        }
    }

    /// The next frame; `None` when the receiver's time is up or it was asked about.
    async fn next_event(&mut self, frames: &mut mpsc::Receiver<Arrived>) -> Option<Arrived> {
        let due = self
            .receiver
            .poll_timeout()
            .map(|at| at.since(self.node.now()));
        let timer = async {
            match due {
                Some(due) => tokio::time::sleep(due).await,
                None => std::future::pending().await,
            }
        };
        let queried = async {
            match &self.inbound {
                Some(entry) => entry.inbound.queried.notified().await,
                None => std::future::pending().await,
            }
        };
        let following = async {
            match &mut self.following {
                Some(following) => following.news().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            news = following => {
                self.handle(news);
                None
            }
            arrived = frames.recv() => Some(arrived.unwrap_or(Ok(None))),
            () = queried => {
                self.handle(TargetInput::Queried);
                None
            }
            () = timer => None,
        }
    }

    fn handle(&mut self, input: TargetInput) {
        self.receiver
            .handle(self.node.now(), input, &mut lock(&self.node.arrivals));
    }

    fn arrived(&mut self, arrived: Arrived) {
        let input = match arrived {
            Ok(Some((Header::Core(frame), tail))) => {
                if matches!(frame, MigrationFrame::State { .. }) {
                    self.state_at = Some(Instant::now());
                }
                self.tail = tail;
                Some(TargetInput::Frame(frame))
            }
            Ok(Some((Header::Log { stderr, offset }, tail))) => {
                self.log(stderr, offset, &tail).err()
            }
            Ok(Some((Header::Section { name, version }, tail))) => {
                self.section(name, version, &tail).err()
            }
            Ok(Some((Header::Files { offset }, tail))) => self.files(offset, &tail).err(),
            Ok(Some((
                Header::More
                | Header::Query(_)
                | Header::Follow(_)
                | Header::Wanted
                | Header::Packed { .. },
                _,
            ))) => Some(TargetInput::Failed("a frame out of place".to_owned())),
            Ok(None) => {
                self.outgoing = None;
                Some(TargetInput::ConnectionLost)
            }
            Err(error) => {
                tracing::debug!(%error, node = %self.from, "the stream of a move broke");
                self.outgoing = None;
                Some(TargetInput::ConnectionLost)
            }
        };
        if let Some(input) = input {
            self.handle(input);
        }
    }

    fn log(&mut self, stderr: bool, offset: u64, bytes: &[u8]) -> Result<(), TargetInput> {
        let failed = |text: &str| TargetInput::Failed(text.to_owned());
        let guest = self
            .guest
            .as_ref()
            .ok_or_else(|| failed("a log before the offer"))?;
        let log = guest.logs.log(wire::log_kind(stderr));
        if log.len() != offset {
            return Err(failed("a log out of order"));
        }
        let max = guest.identity.limits.log_bytes;
        fits("the agent's log", offset + bytes.len() as u64, max)
            .map_err(|error| failed(&error.to_string()))?;
        match log.append(bytes, max) {
            Ok(taken) if taken == bytes.len() => Ok(()),
            _ => Err(failed("the log could not be written")),
        }
    }

    fn section(&mut self, name: String, version: u16, bytes: &[u8]) -> Result<(), TargetInput> {
        let failed = |text: &str| TargetInput::Failed(text.to_owned());
        let guest = self
            .guest
            .as_mut()
            .ok_or_else(|| failed("a section before the offer"))?;
        let held: usize = guest
            .sections
            .iter()
            .map(|section| section.bytes.len())
            .sum();
        sections_fit(held + bytes.len(), &guest.identity.limits)
            .map_err(|error| failed(&error.to_string()))?;
        if !HostState::is_fixed(&name) {
            return Err(failed("a section that is not wanted"));
        }
        guest.sections.push(HostSection {
            name,
            version,
            bytes: bytes.to_vec(),
        });
        Ok(())
    }

    fn files(&mut self, offset: u64, bytes: &[u8]) -> Result<(), TargetInput> {
        let failed = |text: &str| TargetInput::Failed(text.to_owned());
        let guest = self
            .guest
            .as_mut()
            .ok_or_else(|| failed("files before the offer"))?;
        // All of them ahead, and all of them again if everything was written meanwhile.
        let most = guest.identity.grants.data_bytes().unwrap_or(0) * 2;
        let held = guest.files.len() as u64;
        if offset != held || held + bytes.len() as u64 > most {
            return Err(failed("files that are not wanted"));
        }
        guest.digest.update(bytes);
        guest.files.extend_from_slice(bytes);
        Ok(())
    }

    async fn act(&mut self, action: TargetAction) -> Option<TargetInput> {
        let failed = |error: CellsError| Some(TargetInput::Failed(error.to_string()));
        match action {
            TargetAction::Send(frame) => {
                let secured = matches!(frame, MigrationFrame::Secured { .. });
                let tail = match (&frame, self.state_at) {
                    (MigrationFrame::Running { .. }, Some(at)) => {
                        let us = u64::try_from(at.elapsed().as_micros()).unwrap_or(u64::MAX);
                        Bytes::copy_from_slice(&us.to_le_bytes())
                    }
                    _ => Bytes::new(),
                };
                let sent = match &mut self.outgoing {
                    Some(outgoing) => outgoing.core(frame, tail).await.is_ok(),
                    None => false,
                };
                if secured {
                    self.reveal();
                }
                (!sent).then_some(TargetInput::ConnectionLost)
            }
            TargetAction::Decide(offer) => Some(match self.decide(offer).await {
                Ok((need_module, post_copy)) => TargetInput::Accepted {
                    need_module,
                    post_copy,
                },
                Err(error) => TargetInput::Refused(error.to_string()),
            }),
            TargetAction::Prepare => match self.prepare().await {
                Ok(()) => Some(TargetInput::Prepared),
                Err(error) => failed(error),
            },
            TargetAction::WritePages { count } => match &mut self.following {
                Some(following) => following.place(count, &std::mem::take(&mut self.tail)),
                None => match self.write_pages(count) {
                    Ok(()) => Some(TargetInput::PagesWritten),
                    Err(error) => failed(error),
                },
            },
            TargetAction::WriteZeros { count } => match &mut self.following {
                Some(following) => following.place_zeros(count, &std::mem::take(&mut self.tail)),
                None => match self.write_zeros(count) {
                    Ok(()) => Some(TargetInput::PagesWritten),
                    Err(error) => failed(error),
                },
            },
            TargetAction::NoteAbsent { count } => match self.note_absent(count).await {
                Ok(()) => Some(TargetInput::AbsentNoted),
                Err(error) => failed(error),
            },
            TargetAction::Install { epoch } => match self.install(epoch) {
                Ok(()) => Some(TargetInput::Installed),
                Err(error) => failed(error),
            },
            TargetAction::Start { epoch } => {
                if let Err(error) = self.start(epoch) {
                    // It cannot be refused any more; this is a fault of this node's own.
                    tracing::error!(%error, "an agent that arrived could not be started");
                }
                Some(TargetInput::Started)
            }
            TargetAction::Secure { .. } => Some(match self.secure().await {
                Ok(()) => TargetInput::Secured,
                Err(error) => TargetInput::Failed(error.to_string()),
            }),
            TargetAction::Undo(reason) => {
                tracing::warn!(%reason, node = %self.from, "an agent that ran here before all of it had come is given back");
                self.undo().await;
                Some(TargetInput::Undone)
            }
            TargetAction::Confirm { released } => {
                self.confirm(released).await;
                None
            }
            TargetAction::Discard(reason) => {
                tracing::info!(%reason, node = %self.from, "an agent is not coming after all");
                self.guest = None;
                None
            }
        }
    }

    /// Decides whether the agent is welcome; gives whether its module must be sent, and whether memory may follow.
    async fn decide(&mut self, offer: Offer) -> Result<(bool, bool), CellsError> {
        if !self.node.mesh.migrates() {
            return Err(CellsError::MigrationOff(self.node.id()));
        }
        let node = Arc::clone(&self.node);
        if node.is_closing() {
            return Err(CellsError::ShuttingDown);
        }
        node.has_room()?;
        let offered: Offered =
            codec::decode(&self.tail).map_err(|_| wire::malformed("an offer"))?;
        let identity = admit(&offer, offered.identified, &node.config.limits)?;
        if let Ok(cell) = node.here(&offer.agent)
            && (cell.lives() || cell.epoch() > offer.epoch)
        {
            return Err(CellsError::Busy {
                agent: offer.agent,
                doing: "it is on this node already".to_owned(),
            });
        }
        self.inbound = Some(InboundEntry::new(&node, offer.agent, self.from).await?);
        let logs = Arc::new(
            Logs::anew(node.home(&offer.agent))
                .map_err(CellsError::io("emptying the agent's logs"))?,
        );
        let prepared = node
            .modules
            .known(ModuleHash(offer.module), node.config.engine);
        let need_module = prepared.is_none();
        let post = Arc::new(Post::new(
            offer.agent,
            offer.epoch,
            identity.limits.message_bytes,
        ));
        post.withhold();
        let tally = Arc::new(Tally::new(&identity.budget));
        self.guest = Some(Guest {
            post,
            offer,
            identity,
            logs,
            prepared,
            instance: None,
            tally,
            sections: Vec::new(),
            files: Vec::new(),
            page_key: PageKey::from_seed(&offered.page_key),
            digest: blake3::Hasher::new(),
            written: 0,
            paused: false,
            started: false,
        });
        Ok((need_module, self.node.lets_follow()))
    }

    fn guest(&mut self) -> Result<&mut Guest, CellsError> {
        self.guest
            .as_mut()
            .ok_or_else(|| CellsError::Internal("no agent was offered".to_owned()))
    }

    /// Compiles and instantiates, on a thread for blocking work.
    async fn prepare(&mut self) -> Result<(), CellsError> {
        let (node, module) = (Arc::clone(&self.node), std::mem::take(&mut self.tail));
        let guest = self.guest()?;
        let (hash, memory_bytes) = (ModuleHash(guest.offer.module), guest.offer.memory_bytes);
        let module_bytes = guest.offer.module_bytes;
        let (known, limits, address) = (
            guest.prepared.clone(),
            guest.identity.limits.clone(),
            Address(guest.identity.id.0),
        );
        let services = host_calls(&guest.identity, &guest.logs, &guest.post, &guest.tally);
        let making = tokio::task::spawn_blocking(move || {
            let prepared = match known {
                Some(prepared) => prepared,
                None => {
                    fits("the module", module.len() as u64, module_bytes)?;
                    node.modules
                        .make_again(hash, &module, node.config.engine, &limits)?
                }
            };
            // The host state arrives with the frozen state.
            let mut instance = prepared.instantiate(HostState::new(address), services, &limits)?;
            // Zero pages are not sent, and the module's data is not what the agent has made of it.
            instance.clear();
            instance.grow(memory_bytes)?;
            Ok::<_, CellsError>((prepared, instance))
        });
        let (prepared, instance) = making
            .await
            .map_err(|error| CellsError::Internal(error.to_string()))??;
        let guest = self.guest()?;
        guest.prepared = Some(prepared);
        guest.instance = Some(instance);
        Ok(())
    }

    fn write_pages(&mut self, count: u32) -> Result<(), CellsError> {
        let tail = std::mem::take(&mut self.tail);
        let guest = self.guest()?;
        let batch = PageBatch::new(count, &tail).map_err(|_| wire::malformed("pages"))?;
        for (index, page) in batch.iter() {
            frames::digest_page(&mut guest.digest, index, &guest.page_key.fingerprint(page));
        }
        let instance = guest.instance.as_mut().ok_or_else(unprepared)?;
        for (first, pages) in batch.runs() {
            let end = (u64::from(first) + pages.len() as u64) * PAGE_BYTES as u64;
            if end > instance.memory_bytes() {
                // The agent's memory has grown since the offer.
                let max = guest.identity.limits.memory_bytes;
                fits("the agent's memory", end, max)?;
                instance.grow(end)?;
            }
            instance.write_pages(first, pages)?;
        }
        guest.written += u64::from(count);
        Ok(())
    }

    /// Makes pages zero that were sent when they were not.
    fn write_zeros(&mut self, count: u32) -> Result<(), CellsError> {
        let tail = std::mem::take(&mut self.tail);
        let guest = self.guest()?;
        guest.digest.update(&tail);
        let runs = read_page_runs(count, &tail).map_err(|_| wire::malformed("runs of pages"))?;
        let pages: u64 = runs.iter().map(|(_, len)| u64::from(*len)).sum();
        let instance = guest.instance.as_mut().ok_or_else(unprepared)?;
        let end = runs.last().map_or(0, |(first, len)| first + len);
        // Each must have been sent before, so few bytes cannot make much work.
        guest.written = guest
            .written
            .checked_sub(pages)
            .filter(|_| u64::from(end) * PAGE_BYTES as u64 <= instance.memory_bytes())
            .ok_or_else(|| wire::malformed("zero pages"))?;
        for index in runs.iter().flat_map(|(first, len)| *first..first + len) {
            instance.write_page(index, &[0; PAGE_BYTES])?;
        }
        Ok(())
    }

    /// Arranges that the agent waits where it touches one of the pages in the frame's tail.
    async fn note_absent(&mut self, count: u32) -> Result<(), CellsError> {
        let tail = std::mem::take(&mut self.tail);
        let runs = read_page_runs(count, &tail).map_err(|_| wire::malformed("runs of pages"))?;
        let entry = self.inbound.as_mut().ok_or_else(unprepared)?;
        let stream = tokio::time::timeout(FIRST_TIMEOUT, entry.follow.recv()).await;
        let stream = stream.ok().flatten().ok_or_else(|| {
            CellsError::Internal("there is no stream on which to ask for pages".to_owned())
        })?;
        let guest = self.guest()?;
        let instance = guest.instance.as_mut().ok_or_else(unprepared)?;
        let end = runs.last().map_or(0, |(first, len)| first + len);
        let bytes = u64::from(end) * PAGE_BYTES as u64;
        let max = guest.identity.limits.memory_bytes;
        fits("the agent's memory", bytes, max)?;
        instance.grow(bytes)?;
        let absent = instance.let_follow(&runs)?;
        self.following = Some(Following::new(absent, end, stream)?);
        Ok(())
    }

    fn install(&mut self, epoch: Epoch) -> Result<(), CellsError> {
        let tail = std::mem::take(&mut self.tail);
        let guest = self.guest()?;
        let state = Installed::decode(&tail, guest.digest.clone())?;
        let max = guest.identity.limits.memory_bytes;
        fits("the agent's memory", state.memory_bytes, max)?;
        let logs = [LogKind::Stdout, LogKind::Stderr].map(|kind| guest.logs.log(kind).len());
        if logs != state.logs {
            return Err(CellsError::Internal(
                "a part of the logs is missing".to_owned(),
            ));
        }
        let follows = self.following.is_some();
        let guest = self.guest()?;
        let instance = guest.instance.as_mut().ok_or_else(unprepared)?;
        let mut sections = guest.sections.clone();
        sections.extend(state.sections.iter().cloned());
        if guest.identity.grants.data_bytes().is_some() {
            sections.push(HostState::blocks_section(std::mem::take(&mut guest.files)));
        }
        if follows {
            // Touching what is absent would wait for it.
            instance.grow(state.memory_bytes)?;
        }
        load(instance.as_mut(), &state, &sections)?;
        check_input(instance.host(), &guest.identity.limits)?;
        guest
            .post
            .load(epoch, &state.outbox, &state.inbox)
            .map_err(|_| wire::malformed("a mailbox"))?;
        guest.logs.adopt_lines(state.lines);
        guest.paused = state.paused;
        guest.tally.adopt(&state.tallied);
        Ok(())
    }

    fn start(&mut self, epoch: Epoch) -> Result<(), CellsError> {
        let node = Arc::clone(&self.node);
        let guest = self.guest()?;
        let (Some(prepared), Some(instance)) = (guest.prepared.take(), guest.instance.take())
        else {
            return Err(unprepared());
        };
        Tally::add(&guest.tally.moves, 1);
        let parts = Parts {
            identity: guest.identity.clone(),
            epoch,
            engine: node.config.engine,
            prepared,
            logs: Arc::clone(&guest.logs),
            post: Arc::clone(&guest.post),
            tally: Arc::clone(&guest.tally),
            program: Program::Live(instance),
            paused: guest.paused,
            settled: false,
        };
        guest.started = true;
        let cell = Cell::new(parts, node.scheduler.clone(), node.changes.clone());
        let claim = cell.claim("it is still on its way to this node");
        node.adopt(&cell, false)?;
        cell.start();
        self.claim = claim.ok();
        Ok(())
    }

    fn note_phase(&mut self) -> Next {
        if *self.receiver.phase() == self.phase {
            return Next::On;
        }
        self.phase = self.receiver.phase().clone();
        let (Some(probe), Some(guest)) = (&self.node.config.probe, &self.guest) else {
            return Next::On;
        };
        match (probe.0)(MoveSide::Target, &guest.identity.id, &self.phase) {
            ProbeAnswer::Continue => Next::On,
            ProbeAnswer::Drop => {
                self.outgoing = None;
                Next::Broken
            }
            ProbeAnswer::Kill => {
                self.node.play_dead();
                Next::Killed
            }
        }
    }
}

/// Puts a travelled state into an instance whose memory is there.
pub(crate) fn load(
    instance: &mut dyn Instance,
    state: &Installed,
    sections: &[HostSection],
) -> Result<(), CellsError> {
    instance.grow(state.memory_bytes)?;
    if instance.memory_bytes() != state.memory_bytes {
        return Err(CellsError::Internal(
            "the memory has another size than at the source".to_owned(),
        ));
    }
    let execution = Execution::decode(&state.execution, &SnapshotLimits::default())
        .map_err(|_| wire::malformed("a stack"))?;
    instance.restore(&execution)?;
    *instance.host_mut() =
        HostState::from_sections(sections).map_err(mielin_wasm::EngineError::from)?;
    Ok(())
}

fn unprepared() -> CellsError {
    CellsError::Internal("the agent was not prepared".to_owned())
}

type Arrived = Result<Option<(Header, Bytes)>, FrameError>;

/// Reads frames, and unpacks those that are packed, on a task of its own, because reading one is not cancel safe. Few are
/// read ahead: the transport's flow control then slows the source down.
fn read(mut recv: RecvHalf) -> mpsc::Receiver<Arrived> {
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        loop {
            let arrived = match frames::receive(&mut recv).await {
                Ok(Some((Header::Packed { count }, tail))) => packing::unpack(count, &tail)
                    .map(|tail| Some((Header::Core(MigrationFrame::Pages { count }), tail))),
                arrived => arrived,
            };
            let last = !matches!(arrived, Ok(Some(_)));
            if sender.send(arrived).await.is_err() || last {
                return;
            }
        }
    });
    receiver
}
