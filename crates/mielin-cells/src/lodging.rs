//! Agents on leaves: microcontrollers that hold on to this node, which is their host.
//!
//! An agent that is on a leaf stays one of this node: here are its name, its mailbox and outbox, and its log; on the leaf
//! is its program. To the rest of this crate it is an agent that is asleep on the disk and that nobody can wake. Its
//! [`Stay`](stay::Stay) keeps on the disk what must not be forgotten, so that a node that is killed finds its agents on
//! leaves again: who may run the agent, and all of its post. A message to it is acknowledged when it is stored, one of it is
//! answered when it is.
//!
//! Who owns an agent is decided by `mielin_mesh_core::handover`, which this module drives: one task for each leaf handles
//! its messages one after the other, and writes down what is to be written down before the next. `going` are the moves, `directory` are
//! the leaves of other members.

mod devices;
mod directory;
mod going;
mod stay;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mielin_mesh::{LeafEntry, LeafNews, LeafNewsKind, LeafPresence, Leaves};
use mielin_mesh_core::handover::{
    Guest, HostEnd, HostEndEvent, MessageError, PostResult, Profile, Reason,
};
use mielin_mesh_core::leaf::LeafNumber;
use mielin_mesh_core::{AgentId, Epoch, NodeId, delivery};
use mielin_wasm::{Level, LogStream, Services};
use tokio::sync::{Notify, mpsc};

use crate::cell::Cell;
use crate::cells::is_id_prefix;
use crate::error::CellsError;
use crate::lock::lock;
use crate::node::Node;
use crate::spawn::host_calls;
use crate::stored::{StayHold, Stored};
use crate::tally::Tally;

use devices::Devices;
pub(crate) use directory::{FRESH, handler as leaves_handler, leaves_of_mesh};
pub use directory::{LeafDirectory, LeafStanding, LeafSummary};
pub(crate) use going::{NOT_NOW, PAUSED, Way, come_home, move_leafward};
use stay::Stay;

/// How long a record that the disk refuses waits before it is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Hand-overs that are remembered of each leaf, for whoever asks how long they take.
const HANDOVERS_KEPT: usize = 64;

/// A leaf of this node, with what it has said of itself.
#[derive(Clone, Debug)]
pub struct LeafReport {
    /// Its admission, and whether it is there.
    pub entry: LeafEntry,
    /// What it said last, if it has said anything since this node started.
    pub profile: Option<Profile>,
    /// The agents that are on it, or on their way there or back.
    pub agents: Vec<AgentId>,
    /// The newest hand-overs since this node started, the last one last.
    pub handovers: Vec<Handover>,
}

/// An agent that was handed over between a leaf and its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handover {
    /// The agent.
    pub agent: AgentId,
    /// Whether it went to the leaf, and not the other way.
    pub to_leaf: bool,
    /// The length of its checkpoint.
    pub bytes: u64,
    /// How long it stood still. To the leaf: from the moment that it was stopped until the leaf had it whole and was
    /// told to run it. From the leaf, which freezes it a moment before: from its first byte here until it was runnable.
    pub took: Duration,
}

/// The leaves of a node, and its agents that are on them.
#[derive(Default)]
pub(crate) struct Lodgings {
    links: OnceLock<Leaves>,
    ends: Mutex<BTreeMap<LeafNumber, End>>,
    stays: Mutex<HashMap<AgentId, Arc<Stay>>>,
    /// What other members said of their leaves, and when. Who asks keeps it locked, so that others wait for the same answers.
    said: tokio::sync::Mutex<Option<(Instant, LeafDirectory)>>,
}

/// This node's end of one leaf.
struct End {
    core: HostEnd,
    profile: Option<Profile>,
    devices: Devices,
    /// The agent that is coming in, and since when.
    coming: Option<(AgentId, Instant)>,
    handovers: VecDeque<Handover>,
    /// A message for which the link had no room.
    unsent: Option<Vec<u8>>,
    /// Wakes the leaf's task.
    stirred: Arc<Notify>,
    /// Held by the one agent that is on its way there: the line carries one after the other, and the others run meanwhile.
    going: Arc<tokio::sync::Mutex<()>>,
}

impl End {
    fn hear(&mut self, message: &[u8]) -> Result<(), MessageError> {
        self.core.handle_message(message)?;
        if let Some(agent) = self.core.coming()
            && self.coming.is_none_or(|(known, _)| known != agent)
        {
            self.coming = Some((agent, Instant::now()));
        }
        Ok(())
    }

    fn note(&mut self, handover: Handover) {
        if self.handovers.len() == HANDOVERS_KEPT {
            self.handovers.pop_front();
        }
        self.handovers.push_back(handover);
    }
}

/// Hosts these leaves from now on.
pub(crate) async fn host(
    node: &Arc<Node>,
    leaves: Leaves,
    news: mpsc::Receiver<LeafNews>,
) -> Result<(), CellsError> {
    let admitted: Vec<LeafNumber> = leaves.list().iter().map(|leaf| leaf.number).collect();
    let lodgings = &node.lodgings;
    if lodgings.links.set(leaves).is_err() {
        return Err(CellsError::Internal(
            "this node hosts leaves already".to_owned(),
        ));
    }
    // The node may have been killed between the end of an admission and that of its agents.
    let stays: Vec<_> = lock(&lodgings.stays).values().cloned().collect();
    for stay in stays {
        if !admitted.contains(&stay.number()) {
            lodgings.dismissed(node, stay.number()).await;
        }
    }
    tokio::spawn(follow(Arc::downgrade(node), news));
    Ok(())
}

/// Hears what happens to leaves, for as long as there is the node.
async fn follow(node: Weak<Node>, mut news: mpsc::Receiver<LeafNews>) {
    while let Some(news) = news.recv().await {
        let Some(node) = node.upgrade().filter(|node| !node.is_closing()) else {
            return;
        };
        match news.kind {
            LeafNewsKind::Dismissed => node.lodgings.dismissed(&node, news.leaf).await,
            _ => node.lodgings.stir(&node, news.leaf, news.node),
        }
    }
}

/// Handles the messages of one leaf, and sends what is for it.
async fn serve(node: Weak<Node>, leaf: LeafNumber, id: NodeId, stirred: Arc<Notify>) {
    loop {
        stirred.notified().await;
        let Some(node) = node.upgrade().filter(|node| !node.is_closing()) else {
            return;
        };
        let lodgings = &node.lodgings;
        let Some(links) = lodgings.links.get() else {
            return;
        };
        while let Some(message) = links.take(leaf) {
            let handled = lodgings.with(leaf, |end| end.hear(&message));
            match handled {
                None => return,
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    tracing::debug!(leaf = %id.short(), %error, "a message of a leaf was dropped");
                }
            }
            lodgings.settle(&node, leaf, id).await;
            lodgings.transmit(leaf);
        }
        // What operations have caused.
        lodgings.settle(&node, leaf, id).await;
        lodgings.transmit(leaf);
        lodgings.unblock(leaf);
    }
}

impl Lodgings {
    /// The links of the leaves, if this node hosts any.
    pub(crate) fn links(&self) -> Option<&Leaves> {
        self.links.get()
    }

    /// The leaves of this node.
    pub(crate) fn reports(&self) -> Vec<LeafReport> {
        let Some(links) = self.links.get() else {
            return Vec::new();
        };
        let entries = links.list().into_iter();
        let reports = entries.map(|entry| {
            let said = self.with(entry.number, |end| {
                let handovers = end.handovers.iter().copied().collect();
                (end.profile.clone(), handovers)
            });
            let (profile, handovers) = said.unwrap_or_default();
            let stays = lock(&self.stays);
            let there = stays
                .values()
                .filter(|stay| Some(stay.leaf()) == entry.node);
            let mut agents: Vec<AgentId> = there.map(|stay| stay.agent()).collect();
            agents.sort_unstable();
            LeafReport {
                profile,
                agents,
                handovers,
                entry,
            }
        });
        reports.collect()
    }

    /// The leaf of this name, or whose id alone begins so.
    pub(crate) fn find(&self, query: &str) -> Result<NodeId, CellsError> {
        let entries = self.links.get().map(Leaves::list).unwrap_or_default();
        if let Some(entry) = entries.iter().find(|entry| entry.name == *query) {
            let name = || CellsError::LeafAwaited(entry.name.to_string());
            return entry.node.ok_or_else(name);
        }
        let nodes = entries.iter().filter_map(|entry| entry.node);
        let fits = |node: &NodeId| is_id_prefix(query, node);
        match nodes.filter(fits).collect::<Vec<_>>()[..] {
            [] => Err(CellsError::NodeNotFound(query.to_owned())),
            [leaf] => Ok(leaf),
            ref several => Err(CellsError::NodeAmbiguous {
                query: query.to_owned(),
                count: several.len(),
            }),
        }
    }

    /// The agents that are on leaves.
    pub(crate) fn agents(&self) -> Vec<AgentId> {
        lock(&self.stays).keys().copied().collect()
    }

    /// The leaf that is this node.
    fn entry(&self, leaf: &NodeId) -> Option<LeafEntry> {
        let entries = self.links.get()?.list();
        entries.into_iter().find(|entry| entry.node == Some(*leaf))
    }

    /// Whether this node is one of the leaves.
    pub(crate) fn is_leaf(&self, node: &NodeId) -> bool {
        self.entry(node).is_some()
    }

    /// Takes up an agent again that was on a leaf when this node ended. It has been made and is asleep.
    pub(crate) fn restore(&self, node: &Arc<Node>, cell: &Arc<Cell>, stored: Stored) {
        let Some(directory) = node.directory(&cell.id()) else {
            return;
        };
        if let Some(stay) = Stay::restored(cell, directory, stored) {
            self.begin(node, stay);
        }
    }

    /// Keeps a stay, and whatever has to be written of it written.
    fn begin(&self, node: &Arc<Node>, stay: Stay) -> Arc<Stay> {
        let stay = Arc::new(stay);
        lock(&self.stays).insert(stay.agent(), Arc::clone(&stay));
        stay.cell().lodge(Some(stay.leaf()));
        tokio::spawn(keep_stored(Arc::downgrade(node), Arc::clone(&stay)));
        stay
    }

    /// Takes back what [`Lodgings::begin`] did.
    fn forget(&self, stay: &Arc<Stay>) {
        lock(&self.stays).remove(&stay.agent());
        stay.is_refused(None);
        stay.cell().lodge(None);
    }

    /// Mail for which the leaf's end had no room may have some now.
    fn unblock(&self, leaf: LeafNumber) {
        let stays = lock(&self.stays);
        for stay in stays.values().filter(|stay| stay.number() == leaf) {
            stay.unblock();
        }
    }

    /// The last time that an agent came back from this leaf.
    fn last_return(&self, leaf: LeafNumber, agent: AgentId) -> Option<Handover> {
        let found = self.with(leaf, |end| {
            let mut newest = end.handovers.iter().rev();
            newest
                .find(|one| one.agent == agent && !one.to_leaf)
                .copied()
        });
        found.flatten()
    }

    fn stay(&self, agent: &AgentId) -> Option<Arc<Stay>> {
        lock(&self.stays).get(agent).cloned()
    }

    /// A message for an agent on a leaf has come in.
    pub(crate) fn mail_came(&self, agent: &AgentId) {
        if let Some(stay) = self.stay(agent) {
            stay.stir();
        }
    }

    /// Does something with a leaf's end, if there is one.
    fn with<R>(&self, leaf: LeafNumber, action: impl FnOnce(&mut End) -> R) -> Option<R> {
        lock(&self.ends).get_mut(&leaf).map(action)
    }

    /// The leaf is admitted no more: the agents that it has are gone with it, and those that it was offered stay.
    async fn dismissed(&self, node: &Arc<Node>, leaf: LeafNumber) {
        lock(&self.ends).remove(&leaf);
        let stays: Vec<_> = lock(&self.stays).values().cloned().collect();
        for stay in stays.iter().filter(|stay| stay.number() == leaf) {
            if stay.is_given() {
                self.kept(node, stay.agent(), None).await;
            } else {
                self.lost(stay.agent(), stay.leaf());
            }
        }
    }

    /// Has the leaf's task look at everything; makes its end if this is the first that is heard of it.
    fn stir(&self, node: &Arc<Node>, leaf: LeafNumber, id: NodeId) {
        let mut ends = lock(&self.ends);
        let end = ends.entry(leaf).or_insert_with(|| {
            let mut core = HostEnd::new();
            let stays = lock(&self.stays);
            for stay in stays.values().filter(|stay| stay.leaf() == id) {
                // A second agent of one id there cannot be.
                let _ = stay.restore_into(&mut core);
            }
            drop(stays);
            let stirred = Arc::new(Notify::new());
            tokio::spawn(serve(Arc::downgrade(node), leaf, id, Arc::clone(&stirred)));
            End {
                core,
                profile: None,
                devices: Devices::default(),
                coming: None,
                handovers: VecDeque::new(),
                unsent: None,
                stirred,
                going: Arc::default(),
            }
        });
        end.stirred.notify_one();
    }

    /// Sends all that the link has room for.
    fn transmit(&self, leaf: LeafNumber) {
        let Some(links) = self.links.get() else {
            return;
        };
        self.with(leaf, |end| {
            loop {
                let next = end.unsent.take();
                let Some(message) = next.or_else(|| end.core.poll_message(real_ns())) else {
                    return;
                };
                if links.send(leaf, &message).is_err() {
                    // The link says when there is room.
                    end.unsent = Some(message);
                    return;
                }
            }
        });
    }

    /// Does what the core asks for, in order.
    async fn settle(&self, node: &Arc<Node>, leaf: LeafNumber, id: NodeId) {
        while let Some(event) = self.with(leaf, |end| end.core.poll_event()).flatten() {
            match event {
                HostEndEvent::Hello {
                    boot,
                    profile,
                    guests,
                } => {
                    tracing::info!(leaf = %id.short(), name = %profile.name, agents = guests.len(), "a leaf is here");
                    self.with(leaf, |end| {
                        end.profile = Some(profile);
                        end.devices.greet(boot, &mut end.core);
                    });
                    for guest in guests {
                        self.greet(guest);
                    }
                    let reads =
                        |cell: &Arc<Cell>| cell.device().is_some_and(|device| device.leaf == id);
                    let readers = node.living().into_iter().filter(reads);
                    readers.for_each(|cell| cell.device_spoke());
                    going::send_back(node, leaf, id);
                }
                HostEndEvent::Status(status) => {
                    self.with(leaf, |end| {
                        if let Some(profile) = &mut end.profile {
                            profile.status = status;
                        }
                    });
                    if status.ready {
                        going::send_back(node, leaf, id);
                    }
                }
                HostEndEvent::Held { agent, epoch } => {
                    self.held(node, leaf, agent, epoch).await;
                }
                HostEndEvent::Refused { agent, reason, .. } => {
                    self.kept(node, agent, Some(reason)).await;
                }
                HostEndEvent::Arrived {
                    agent,
                    epoch,
                    bytes,
                    taken,
                    ..
                } => self.arrived(node, leaf, agent, epoch, bytes, taken).await,
                HostEndEvent::Released { agent, .. } => self.released(node, leaf, agent).await,
                HostEndEvent::Cancelled { agent, stay, .. } => {
                    self.comes_not(leaf);
                    self.stays_away(agent, stay, None).await;
                }
                HostEndEvent::Found {
                    agent,
                    epoch,
                    taken,
                    ..
                } => match self.stay(&agent) {
                    Some(stay) => {
                        self.stays_away(agent, epoch, Some(taken)).await;
                        let known = self.with(leaf, |end| stay.restore_into(&mut end.core));
                        if let Some(Err(error)) = known {
                            tracing::warn!(%agent, %error, "an agent on a leaf cannot be taken up again");
                        }
                    }
                    None => {
                        tracing::warn!(leaf = %id.short(), %agent, "a leaf has an agent of which nothing is known here; it is left alone");
                    }
                },
                HostEndEvent::Lost { agent, .. } => self.lost(agent, id),
                HostEndEvent::Want { agent, next, .. } => {
                    if let Some(stay) = self.stay(&agent) {
                        stay.want(next);
                    }
                }
                HostEndEvent::Post {
                    agent,
                    number,
                    to,
                    kind,
                    payload,
                    ..
                } => self.post(leaf, agent, number, to, kind, &payload),
                HostEndEvent::Log {
                    agent,
                    stream,
                    bytes,
                    ..
                } => write_log(node, agent, stream, &bytes),
                HostEndEvent::Reading { sensor, reading } => {
                    let readers = self.with(leaf, |end| end.devices.read(sensor, reading));
                    wake(node, readers.into_iter().flatten());
                }
                HostEndEvent::Actuated { number, result } => {
                    let agent = self.with(leaf, |end| end.devices.answered(number, result));
                    wake(node, agent.flatten());
                }
            }
        }
    }

    /// The leaf has said what an agent has taken that is there.
    fn greet(&self, guest: Guest) {
        if let Some(stay) = self.stay(&guest.agent) {
            stay.has_taken(guest.stay, guest.taken);
        }
    }

    /// The leaf has the whole agent: from the moment that this is on the disk it may be the leaf's.
    async fn held(&self, node: &Arc<Node>, leaf: LeafNumber, agent: AgentId, epoch: Epoch) {
        let Some(stay) = self.stay(&agent) else {
            return;
        };
        debug_assert_eq!(stay.epoch(), epoch);
        stay.hold(StayHold::Away);
        let stored = stay.store().await;
        if let Err(error) = stored {
            tracing::error!(%agent, %error, "that an agent goes to a leaf could not be written down; it stays");
            stay.hold(StayHold::Giving);
            let cancelled = self.with(leaf, |end| end.core.cancel(agent));
            if let Some(Ok(())) = cancelled {
                self.kept(node, agent, None).await;
            }
            return;
        }
        match self.with(leaf, |end| end.core.let_go(agent)) {
            Some(Ok(())) => stay.is_there(),
            // The leaf has started anew, and is offered the agent again; or the move was given up.
            Some(Err(_)) | None => {
                stay.hold(StayHold::Giving);
                if let Err(error) = stay.store().await {
                    tracing::error!(%agent, %error, "that an agent does not go to a leaf could not be written down");
                }
            }
        }
    }

    /// The agent stays here: it was not taken, or the move was given up.
    async fn kept(&self, node: &Arc<Node>, agent: AgentId, reason: Option<Reason>) {
        let Some(stay) = lock(&self.stays).remove(&agent) else {
            return;
        };
        self.end_stay(node, &stay).await;
        stay.is_refused(reason);
    }

    /// An agent has come back whole. It is the leaf's until that has let go.
    async fn arrived(
        &self,
        node: &Arc<Node>,
        leaf: LeafNumber,
        agent: AgentId,
        epoch: Epoch,
        bytes: Vec<u8>,
        taken: u64,
    ) {
        let taken_in = match self.stay(&agent) {
            None => Err(Reason::Conflict),
            Some(stay) => match stay.take_in(node, bytes).await {
                Err(error) => {
                    tracing::warn!(%agent, %error, "an agent that came from a leaf cannot go on here");
                    Err(Reason::Unsuitable)
                }
                Ok(()) => {
                    stay.has_taken(stay.epoch(), taken);
                    stay.hold(StayHold::Taken { epoch: epoch.0 });
                    stay.store().await.map_err(|error| {
                        tracing::error!(%agent, %error, "an agent that came from a leaf could not be stored");
                        Reason::Damaged
                    })
                }
            },
        };
        let answered = self.with(leaf, |end| match taken_in {
            Ok(()) => end.core.have(agent),
            Err(reason) => end.core.refuse(agent, reason),
        });
        if let Some(Err(error)) = answered {
            tracing::debug!(%agent, %error, "the leaf has changed its mind");
        }
        if taken_in.is_err() {
            self.comes_not(leaf);
            if let Some(stay) = self.stay(&agent) {
                stay.hold(StayHold::Away);
            }
        }
    }

    /// Whatever was coming in from a leaf stays there.
    fn comes_not(&self, leaf: LeafNumber) {
        self.with(leaf, |end| end.coming = None);
    }

    /// The leaf has let go: the agent goes on here.
    async fn released(&self, node: &Arc<Node>, leaf: LeafNumber, agent: AgentId) {
        let Some(stay) = lock(&self.stays).remove(&agent) else {
            return;
        };
        going::came_back(&stay);
        Tally::add(&stay.cell().tally.moves, 1);
        self.end_stay(node, &stay).await;
        self.with(leaf, |end| {
            let coming = end.coming.take_if(|(coming, _)| *coming == agent);
            if let Some((_, since)) = coming {
                end.note(Handover {
                    agent,
                    to_leaf: false,
                    bytes: stay.came_bytes(),
                    took: since.elapsed(),
                });
            }
        });
        stay.is_home();
    }

    /// It is the leaf's, in this stay.
    async fn stays_away(&self, agent: AgentId, epoch: Epoch, taken: Option<u64>) {
        let Some(stay) = self.stay(&agent) else {
            return;
        };
        stay.is_away_in(epoch);
        if let Some(taken) = taken {
            stay.has_taken(epoch, taken);
        }
        if let Err(error) = stay.store().await {
            tracing::error!(%agent, %error, "that an agent stays on a leaf could not be written down");
        }
        stay.is_there();
    }

    /// The leaf has started anew without the agent, or is a leaf of this node no more.
    fn lost(&self, agent: AgentId, leaf: NodeId) {
        let Some(stay) = lock(&self.stays).remove(&agent) else {
            return;
        };
        tracing::warn!(%agent, leaf = %leaf.short(), "an agent is lost with the leaf that it was on");
        stay.is_lost();
        let cell = Arc::clone(stay.cell());
        // Its end is written to the disk, which blocks.
        tokio::task::spawn_blocking(move || cell.lose_on_leaf(leaf));
    }

    /// Writes down that the agent is here, and lets it go on.
    async fn end_stay(&self, node: &Arc<Node>, stay: &Arc<Stay>) {
        let agent = stay.agent();
        while let Err(error) = stay.store_at_home().await {
            tracing::error!(%agent, %error, "that an agent has come back could not be written down; it is tried again");
            tokio::time::sleep(AGAIN).await;
            if node.is_closing() {
                return;
            }
        }
        stay.cell().lodge(None);
        node.move_ended();
        let (node, cell) = (Arc::clone(node), Arc::clone(stay.cell()));
        if let Err(error) = crate::hibernation::wake(&node, &cell).await {
            tracing::warn!(%agent, %error, "an agent that has come back from a leaf could not be woken");
        }
    }

    /// Sends a message of an agent. It is answered when it is on the disk, and refused at once.
    fn post(
        &self,
        leaf: LeafNumber,
        agent: AgentId,
        number: u64,
        to: AgentId,
        kind: delivery::MessageKind,
        payload: &[u8],
    ) {
        let stay = self.stay(&agent);
        let posted = match &stay {
            Some(stay) => stay.post(number, to, kind, payload),
            None => Some(PostResult::Closed),
        };
        if let Some(refused) = posted {
            let epoch = stay.map_or(Epoch(0), |stay| stay.epoch());
            self.with(leaf, |end| end.core.posted(agent, epoch, number, refused));
        }
    }

    /// Everything of agents on leaves that is not on the disk, before the node ends.
    pub(crate) async fn close(&self) {
        if let Some(links) = self.links.get() {
            links.close();
        }
        let stays: Vec<_> = lock(&self.stays).values().cloned().collect();
        for stay in stays {
            if stay.cell().post.is_unstored()
                && let Err(error) = stay.store().await
            {
                tracing::error!(agent = %stay.agent(), %error, "messages of an agent on a leaf could not be stored");
            }
        }
    }
}

/// Writes what changes of a stay, and then says it to those who wait for that.
async fn keep_stored(node: Weak<Node>, stay: Arc<Stay>) {
    let mut stays = stay.watch();
    loop {
        tokio::select! {
            () = stay.stirred() => {}
            over = stays.wait_for(|phase| phase.is_over()) => {
                let _ = over;
                return;
            }
        }
        let Some(node) = node.upgrade().filter(|node| !node.is_closing()) else {
            return;
        };
        if stay.cell().post.is_unstored() {
            if let Err(error) = stay.store().await {
                tracing::error!(agent = %stay.agent(), %error, "messages of an agent on a leaf could not be stored; it is tried again");
                tokio::time::sleep(AGAIN).await;
                stay.stir();
                continue;
            }
            // Senders that were told to come again do so now.
            node.move_ended();
        }
        let leaf = stay.number();
        node.lodgings.with(leaf, |end| {
            stay.say_stored(&mut end.core);
            end.stirred.notify_one();
        });
    }
}

/// Lets agents look again whose device has said something.
fn wake(node: &Arc<Node>, agents: impl IntoIterator<Item = AgentId>) {
    for agent in agents {
        if let Ok(cell) = node.here(&agent) {
            cell.device_spoke();
        }
    }
}

/// What an agent has written on a leaf.
fn write_log(node: &Arc<Node>, agent: AgentId, stream: u8, bytes: &[u8]) {
    let Ok(cell) = node.here(&agent) else {
        return;
    };
    let services = host_calls(&cell.identity, &cell.logs, &cell.post, &cell.tally);
    let written = match stream {
        0 => services.write_log(LogStream::Stdout, bytes),
        1 => services.write_log(LogStream::Stderr, bytes),
        level => {
            let level = match level {
                2 => Level::Error,
                3 => Level::Warn,
                4 => Level::Info,
                5 => Level::Debug,
                _ => Level::Trace,
            };
            services.log(level, &String::from_utf8_lossy(bytes));
            return;
        }
    };
    if written.is_err() {
        // The agent on the leaf believes that it is written.
        tracing::debug!(%agent, "the log of an agent on a leaf is full");
    }
}

fn real_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

/// How a leaf that takes no agents is, in words.
fn why_not(presence: LeafPresence) -> &'static str {
    match presence {
        LeafPresence::Awaited => "it has never been here",
        LeafPresence::Gone => "it does not answer",
        LeafPresence::Asleep(_) => "it sleeps",
        LeafPresence::Connected => "it has not said what it is yet",
    }
}
