//! This node's part in the life of agents: who lives here, who left, and who must be told.

mod healing;
mod news;
mod table;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use mielin_mesh::{Lane, MeshAgents, MeshError, MeshService, stream_handler};
use mielin_mesh_core::delivery::{DeliveryReply, Envelope};
use mielin_mesh_core::migration::Arrivals;
use mielin_mesh_core::registry::{Prefix, RegistryError};
use mielin_mesh_core::{AgentId, Epoch, Instant, Location, LocationRecord, Name, NodeId};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};

use crate::cell::Cell;
use crate::client::Client;
use crate::config::CellsConfig;
use crate::courier;
use crate::error::CellsError;
use crate::hearsay::Hearsay;
use crate::ledger::Ledger;
use crate::lock::lock;
use crate::lodging::{self, Lodgings};
use crate::logs::{Home, now_ms};
use crate::modules::Modules;
use crate::moving::Inbound;
use crate::operations::{self, Absent};
use crate::post::Post;
use crate::report::{AgentDirectory, AgentSummary};
use crate::scheduler::Scheduler;
use crate::{moving, persist, wire};
use table::{Resident, Table};

/// How long agents may take to come to a safepoint when the node stops.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// How long a spawn waits to hear whether its name is taken.
const NAME_LIMIT: Duration = Duration::from_secs(3);
/// How long a change between running and waiting may go unannounced; it happens at every message.
const ANNOUNCE_PAUSE: Duration = Duration::from_millis(200);
/// Agents that left, and hearsay, are remembered up to this number each.
pub(crate) const REMEMBERED_MAX: usize = 4096;

/// Everything this node knows about agents.
pub(crate) struct Node {
    pub(crate) config: CellsConfig,
    pub(crate) mesh: MeshService,
    pub(crate) scheduler: Scheduler,
    pub(crate) modules: Modules,
    pub(crate) client: Client,
    pub(crate) lodgings: Lodgings,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) arrivals: Mutex<Arrivals>,
    /// Agents that were here when the node was killed, and whose sources may not have let go of them, as far as is known.
    pub(crate) unsettled: Mutex<HashSet<AgentId>>,
    /// Agents that a former life of this node may have handed over, until their targets have said whether it has.
    pub(crate) departed: Mutex<HashSet<AgentId>>,
    /// Moves that are in doubt, to be told that their target has not got the agent.
    pub(crate) doubts: Mutex<HashMap<AgentId, Arc<Notify>>>,
    /// Agents that are on their way here.
    pub(crate) inbound: Mutex<HashMap<AgentId, Arc<Inbound>>>,
    pub(crate) changes: mpsc::UnboundedSender<AgentId>,
    /// Counts the ends of moves, which messages wait for.
    moves: watch::Sender<u64>,
    pub(crate) hearsay: Hearsay,
    table: Mutex<Table>,
    directories: Option<Arc<Path>>,
    /// The posts for which a courier works, by the agent.
    couriers: Mutex<HashMap<AgentId, Arc<Post>>>,
    pub(crate) runtime: Handle,
    started: std::time::Instant,
    /// The same in milliseconds since the Unix epoch: records of this run outnumber those of earlier ones.
    started_ms: u64,
    closing: watch::Sender<bool>,
    /// A probe has killed this node.
    dead: AtomicBool,
    /// There were more agents than can be announced, which was said.
    is_crowded: AtomicBool,
}

/// Where an agent is as far as this node knows.
pub(crate) enum Place {
    Here(Arc<Cell>),
    There(NodeId, Epoch),
    Unknown,
}

/// How to reach an agent's mailbox.
pub(crate) enum Route {
    Local,
    Remote(NodeId),
    None,
}

impl Node {
    pub(crate) async fn start(
        config: CellsConfig,
        mesh: MeshService,
    ) -> Result<Arc<Node>, CellsError> {
        let ledger = Ledger::open(config.data_dir.as_deref())?;
        Node::start_with(config, mesh, ledger).await
    }

    /// The same with this ledger.
    pub(crate) async fn start_with(
        config: CellsConfig,
        mesh: MeshService,
        ledger: Ledger,
    ) -> Result<Arc<Node>, CellsError> {
        mielin_wasm::engine(config.engine)?;
        let scheduler = Scheduler::start(
            config.workers,
            config.slice,
            mielin_wasm::THREAD_STACK_BYTES,
            config.live_instances_max,
        )
        .map_err(CellsError::io("starting worker threads"))?;
        let modules =
            Modules::open(&config).map_err(CellsError::io("opening the cache of native code"))?;
        let data_dir = config.data_dir.as_ref();
        let directories = data_dir.map(|directory| directory.join("agents").into());
        let (changes, changed) = mpsc::unbounded_channel();
        let node = Arc::new(Node {
            client: Client::new(&mesh.local().id),
            lodgings: Lodgings::default(),
            config,
            scheduler,
            modules,
            ledger: Arc::new(ledger),
            unsettled: Mutex::default(),
            departed: Mutex::default(),
            doubts: Mutex::default(),
            arrivals: Mutex::default(),
            inbound: Mutex::default(),
            changes,
            moves: watch::Sender::new(0),
            hearsay: Hearsay::default(),
            table: Mutex::default(),
            directories,
            couriers: Mutex::default(),
            runtime: Handle::current(),
            started: std::time::Instant::now(),
            started_ms: now_ms(),
            closing: watch::Sender::new(false),
            dead: AtomicBool::new(false),
            is_crowded: AtomicBool::new(false),
            mesh,
        });
        tokio::spawn(news::announce_changes(Arc::downgrade(&node), changed));
        tokio::spawn(news::follow_mesh(
            Arc::downgrade(&node),
            node.mesh.subscribe(),
            node.closing.subscribe(),
        ));
        tokio::spawn(healing::write_again(&node.ledger, node.closing.subscribe()));
        node.client.post.lives_on(&node);
        persist::restore(&node).await?;
        node.serve();
        Ok(node)
    }

    /// Takes messages in and offers protocols 101 and 200. The mesh keeps no strong reference, so that a node can end.
    fn serve(self: &Arc<Self>) {
        let weak = Arc::downgrade(self);
        let with = move |protocol: u16| {
            let weak = Weak::clone(&weak);
            stream_handler(move |from, stream| {
                let node = weak.upgrade().filter(|node| node.serves());
                async move {
                    let Some(node) = node else { return };
                    let served = async {
                        match protocol {
                            wire::OPERATIONS => {
                                operations::serve(Arc::clone(&node), from, stream).await
                            }
                            wire::PAGES => {
                                moving::serve_pages(Arc::clone(&node), from, stream).await
                            }
                            _ => moving::serve(Arc::clone(&node), from, stream).await,
                        }
                    };
                    tokio::select! {
                        () = served => {}
                        () = node.closing() => {}
                    }
                }
            })
        };
        for protocol in [wire::OPERATIONS, wire::MOVES, wire::PAGES] {
            self.mesh.serve_streams(protocol, with(protocol));
        }
        let leaves = lodging::leaves_handler(Arc::downgrade(self));
        self.mesh.serve(wire::LEAVES, leaves);
        let entrance = courier::Entrance(Arc::downgrade(self));
        self.mesh.serve_messages(Arc::new(entrance));
    }

    pub(crate) fn id(&self) -> NodeId {
        self.mesh.local().id
    }

    /// The time as the protocol cores count it.
    pub(crate) fn now(&self) -> Instant {
        Instant::from_start(self.started.elapsed())
    }

    /// Serves nobody any more, and announces nothing.
    pub(crate) fn play_dead(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    fn plays_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    pub(crate) fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Whether it answers others.
    pub(crate) fn serves(&self) -> bool {
        !self.is_closing() && !self.plays_dead()
    }

    /// Completes when the node begins to close.
    pub(crate) async fn closing(&self) {
        let mut closing = self.closing.subscribe();
        // An error says that the node is gone.
        let _ = closing.wait_for(|closing| *closing).await;
    }

    /// Sees the end of every move.
    pub(crate) fn watch_moves(&self) -> watch::Receiver<u64> {
        self.moves.subscribe()
    }

    /// A mailbox that was closed for a hand-over is open again, or has gone.
    pub(crate) fn move_ended(&self) {
        self.moves.send_modify(|count| *count += 1);
    }

    /// Where the directories of all agents are.
    pub(crate) fn directories(&self) -> Option<&Arc<Path>> {
        self.directories.as_ref()
    }

    /// Where an agent's logs and snapshot are kept.
    pub(crate) fn directory(&self, agent: &AgentId) -> Option<PathBuf> {
        self.home(agent).map(|home| home.directory())
    }

    /// Where everything is kept that this node has of an agent.
    pub(crate) fn home(&self, agent: &AgentId) -> Option<Home> {
        Some(Home {
            agent: *agent,
            directories: Arc::clone(self.directories()?),
            ledger: Arc::clone(&self.ledger),
        })
    }

    /// Agents that live here.
    pub(crate) fn living(&self) -> Vec<Arc<Cell>> {
        let table = lock(&self.table);
        table.living().cloned().collect()
    }

    /// The agent, if it is or was last here.
    pub(crate) fn here(&self, agent: &AgentId) -> Result<Arc<Cell>, Absent> {
        match lock(&self.table).get(agent) {
            Some(Resident::Here(cell)) => Ok(Arc::clone(cell)),
            Some(Resident::Left(node, epoch)) => Err(Absent::Elsewhere(*node, *epoch)),
            None => Err(Absent::Unknown),
        }
    }

    /// What to say about an agent that was here a moment ago.
    pub(crate) fn absent(&self, agent: &AgentId) -> Absent {
        self.here(agent).err().unwrap_or(Absent::Unknown)
    }

    /// Where the agent is as far as this node knows, or is told by others that do not hold it.
    pub(crate) fn place(&self, agent: &AgentId) -> Place {
        let known = self.known_place(agent);
        match (&known, self.hearsay.hint(agent)) {
            (Place::Unknown, Some((node, epoch))) => Place::There(node, epoch),
            (Place::There(_, known), Some((node, epoch))) if epoch > *known => {
                Place::There(node, epoch)
            }
            _ => known,
        }
    }

    /// Where the agent is: here, or where the newer of tombstone and registry says.
    fn known_place(&self, agent: &AgentId) -> Place {
        let record = self
            .mesh
            .locate(agent)
            .map(|location| (location.record.node, location.record.epoch));
        let table = lock(&self.table);
        let tombstone = match table.get(agent) {
            Some(Resident::Here(cell)) if !cell.is_provisional() => {
                return Place::Here(Arc::clone(cell));
            }
            Some(Resident::Left(node, epoch)) => Some((*node, *epoch)),
            Some(Resident::Here(_)) | None => None,
        };
        let known = [record, tombstone];
        // A record that names this node is an old one: the agent is not here.
        let elsewhere = known
            .into_iter()
            .flatten()
            .filter(|(node, _)| *node != self.id());
        match elsewhere.max_by_key(|(_, epoch)| *epoch) {
            Some((node, epoch)) => Place::There(node, epoch),
            None => Place::Unknown,
        }
    }

    /// Where the agent is after the mesh was asked: for those who have found it nowhere, or not where it should be.
    pub(crate) async fn sought(&self, agent: &AgentId) -> Place {
        match self.look_up(agent).await {
            Ok(place) => place,
            Err(error) => {
                tracing::debug!(%agent, %error, "an agent could not be looked up");
                self.place(agent)
            }
        }
    }

    /// The same for whoever must know whether the mesh could be asked.
    pub(crate) async fn look_up(&self, agent: &AgentId) -> Result<Place, MeshError> {
        self.mesh.look_up(agent).await?;
        Ok(self.place(agent))
    }

    /// The way to the mailbox of an agent or of a node's command line.
    pub(crate) fn route(&self, to: &AgentId) -> Route {
        if *to == self.client.id() {
            return Route::Local;
        }
        match self.place(to) {
            Place::Here(_) => Route::Local,
            Place::There(node, _) => Route::Remote(node),
            Place::Unknown => match self.home_of_client(to) {
                Some(home) if home != self.id() => Route::Remote(home),
                _ => Route::None,
            },
        }
    }

    /// The lane to the node on which an agent is, if that is another one.
    pub(crate) fn lane_to(&self, to: &AgentId) -> Option<Lane> {
        match self.route(to) {
            Route::Remote(node) => self.mesh.lane(&node),
            Route::Local | Route::None => None,
        }
    }

    /// The post of an agent that is here, or of the command line.
    pub(crate) fn post_of(&self, agent: &AgentId) -> Option<Arc<Post>> {
        if *agent == self.client.id() {
            return Some(Arc::clone(&self.client.post));
        }
        let table = lock(&self.table);
        table.here(agent).map(|cell| Arc::clone(&cell.post))
    }

    /// The member whose command line has this address.
    fn home_of_client(&self, address: &AgentId) -> Option<NodeId> {
        let members = self.mesh.members().into_iter();
        let mut nodes = members.map(|member| member.identity.id);
        nodes.find(|node| Client::is_of(address, node))
    }

    /// Whether an address is that of the command line of a member, and not of `node`'s.
    pub(crate) fn is_client_of_another(&self, address: &AgentId, node: &NodeId) -> bool {
        self.home_of_client(address)
            .is_some_and(|home| home != *node)
    }

    /// Puts messages into a mailbox of this node.
    pub(crate) fn deliver(&self, to: AgentId, envelopes: Vec<Envelope>) -> DeliveryReply {
        if to == self.client.id() {
            return self.client.deliver(envelopes);
        }
        match self.known_place(&to) {
            // It is not known to have ended: a sender that was told so would drop what the agent still waits for.
            Place::Here(cell) if !cell.lives() && self.may_live_elsewhere(&to) => {
                DeliveryReply::Busy
            }
            Place::Here(cell) => {
                let reply = cell.post.accept(envelopes, &cell.tally.received);
                cell.message_arrived();
                reply
            }
            Place::There(node, epoch) => DeliveryReply::Moved { node, epoch },
            Place::Unknown if lock(&self.inbound).contains_key(&to) => DeliveryReply::Busy,
            Place::Unknown => DeliveryReply::Unknown,
        }
    }

    /// Whether an agent that went down with a former life of this node may go on, or have gone on, at another one.
    fn may_live_elsewhere(&self, agent: &AgentId) -> bool {
        lock(&self.unsettled).contains(agent) || lock(&self.departed).contains(agent)
    }

    /// Whether there is room for one more agent.
    pub(crate) fn has_room(&self) -> Result<(), CellsError> {
        let inbound = lock(&self.inbound).len();
        let free = self.config.agents_max.saturating_sub(inbound);
        if lock(&self.table).lives_at_least(free) {
            return Err(CellsError::Full {
                max: self.config.agents_max as u64,
            });
        }
        Ok(())
    }

    /// Makes an agent a resident and announces it; it does not run yet.
    ///
    /// With `unique_name` it is a new one, which has been written down, and another living agent of that name refuses
    /// it. An agent that arrives keeps its name.
    pub(crate) fn adopt(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        unique_name: bool,
    ) -> Result<(), CellsError> {
        {
            let mut table = lock(&self.table);
            let name = &cell.identity.name;
            if unique_name && table.named(name).any(|other| !other.state().is_final()) {
                return Err(CellsError::NameTaken(name.clone()));
            }
            if table.get(&cell.id()).is_some() {
                table.left.retain(|left| *left != cell.id());
                table.ended.retain(|ended| *ended != cell.id());
            }
            table.insert(cell.id(), Resident::Here(Arc::clone(cell)));
        }
        self.hearsay.give_up(&cell.id());
        if unique_name {
            self.announce(cell);
        } else {
            self.make_known(cell);
        }
        cell.post.lives_on(self);
        Ok(())
    }

    /// Replaces a resident by a tombstone: it lives on `node` now.
    pub(crate) fn entomb(&self, cell: &Cell, node: NodeId, epoch: Epoch) {
        self.mesh.release(&cell.id());
        lock(&self.unsettled).remove(&cell.id());
        lock(&self.departed).remove(&cell.id());
        let mut table = lock(&self.table);
        table.insert(cell.id(), Resident::Left(node, epoch));
        table.ended.retain(|ended| *ended != cell.id());
        table.left.push_back(cell.id());
        if table.left.len() > REMEMBERED_MAX
            && let Some(oldest) = table.left.pop_front()
            && matches!(table.get(&oldest), Some(Resident::Left(..)))
        {
            table.remove(&oldest);
        }
    }

    /// Whether a living agent of the mesh has this name, as far as this node can tell within [`NAME_LIMIT`].
    pub(crate) async fn is_taken(&self, name: &str) -> bool {
        let named = async {
            let named = self.named(name).await;
            named.unwrap_or_else(|_| self.residents_named(name))
        };
        let named = tokio::time::timeout(NAME_LIMIT, named).await;
        named
            .unwrap_or_else(|_| self.residents_named(name))
            .iter()
            .any(|agent| !agent.state.is_final())
    }

    /// The agents of this node, ordered by name.
    pub(crate) fn residents(&self) -> Vec<AgentSummary> {
        let table = lock(&self.table);
        let here = table.all().filter(|cell| !cell.is_provisional());
        in_order(here.map(|cell| self.summary(cell)))
    }

    /// Those that have this name.
    fn residents_named(&self, name: &str) -> Vec<AgentSummary> {
        let table = lock(&self.table);
        let here = table.named(name).filter(|cell| !cell.is_provisional());
        in_order(here.map(|cell| self.summary(cell)))
    }

    /// The agents that have this name: those of this node, and those that the mesh finds by it.
    pub(crate) async fn named(&self, name: &str) -> Result<Vec<AgentSummary>, CellsError> {
        let mut found = Vec::new();
        if let Ok(name) = Name::new(name) {
            found = match self.mesh.look_up_name(&name).await {
                Ok(lookup) => lookup.records,
                // Without the registry there are no agents but those that are here.
                Err(MeshError::RegistryOff) if self.is_here(&name) => Vec::new(),
                Err(error) => return Err(error.into()),
            };
        }
        let found = found.into_iter().map(|record| Location {
            reachable: self.mesh.absence(&record.node).is_none(),
            record,
        });
        let mut agents = self.with_residents(found, self.residents_named(name));
        agents.retain(|agent| agent.name == name);
        Ok(agents)
    }

    fn is_here(&self, name: &Name) -> bool {
        !self.residents_named(name.as_str()).is_empty()
    }

    /// Every agent of the mesh whose id begins so, as far as the members answer.
    pub(crate) async fn agents(&self, prefix: Prefix) -> Result<AgentDirectory, CellsError> {
        let MeshAgents {
            agents,
            silent,
            unlisted,
        } = match self.mesh.agents(prefix.clone()).await {
            Ok(found) => found,
            Err(MeshError::RegistryOff) => MeshAgents {
                unlisted: self.others(),
                ..MeshAgents::default()
            },
            Err(error) => return Err(error.into()),
        };
        let mut agents = self.with_residents(agents.into_iter(), self.residents());
        agents.retain(|agent| prefix.fits(&agent.agent));
        Ok(AgentDirectory {
            agents,
            silent,
            unlisted,
        })
    }

    /// The other members that are there.
    fn others(&self) -> Vec<NodeId> {
        let members = self.mesh.members().into_iter();
        let active = members.filter(|member| member.state.is_active());
        let ids = active.map(|member| member.identity.id);
        ids.filter(|id| *id != self.id()).collect()
    }

    /// What others say of agents, with what this node itself says of those that it holds.
    fn with_residents(
        &self,
        found: impl Iterator<Item = Location>,
        residents: Vec<AgentSummary>,
    ) -> Vec<AgentSummary> {
        let summary = |Location { record, reachable }: Location| AgentSummary {
            agent: record.agent,
            name: record.name.to_string(),
            state: record.state,
            node: record.node,
            epoch: record.epoch,
            started_ms: record.started_ms,
            reachable,
        };
        // A record that names this node is overwritten below, or of an agent that this node has forgotten.
        let elsewhere = found.filter(|location| location.record.node != self.id());
        let mut agents: HashMap<AgentId, AgentSummary> = elsewhere
            .map(|location| (location.record.agent, summary(location)))
            .collect();
        let here = residents.into_iter();
        agents.extend(here.map(|resident| (resident.agent, resident)));
        in_order(agents.into_values())
    }

    fn summary(&self, cell: &Cell) -> AgentSummary {
        AgentSummary {
            agent: cell.id(),
            name: cell.identity.name.clone(),
            state: cell.state(),
            node: cell.leaf().unwrap_or_else(|| self.id()),
            epoch: cell.epoch(),
            started_ms: cell.identity.started_ms,
            reachable: true,
        }
    }

    /// Whether the agent has just come, and its source must be the first to hear of that; or the node plays
    /// dead, and nobody hears of anything.
    fn is_secret(&self, agent: &AgentId) -> bool {
        if self.plays_dead() || lock(&self.unsettled).contains(agent) {
            return true;
        }
        let inbound = lock(&self.inbound).get(agent).cloned();
        inbound.is_some_and(|inbound| inbound.is_secret())
    }

    /// Tells the mesh, and a later run of this node, that the agent is here, unless that is still a secret.
    pub(crate) fn make_known(&self, cell: &Arc<Cell>) {
        if self.is_secret(&cell.id()) {
            return;
        }
        self.announce(cell);
        if cell.record_soon() {
            let ledger = Arc::clone(&self.ledger);
            self.runtime.spawn_blocking(move || ledger.flush());
        }
    }

    /// Tells the mesh where the agent is and what it does, unless that is still a secret.
    pub(crate) fn announce(&self, cell: &Cell) {
        if self.is_secret(&cell.id()) {
            return;
        }
        let Ok(name) = Name::new(cell.identity.name.clone()) else {
            return;
        };
        let announced = self.mesh.announce(LocationRecord {
            agent: cell.id(),
            name,
            module: cell.module.0,
            owner: cell.identity.owner,
            started_ms: cell.identity.started_ms,
            node: self.id(),
            epoch: cell.epoch(),
            revision: self.started_ms,
            state: cell.state(),
        });
        if let Err(RegistryError::TooMany) = announced
            && !self.is_crowded.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "this node has more agents than it can announce: other nodes do not find all of them"
            );
        }
        if let Err(error) = announced {
            tracing::debug!(agent = %cell.id(), %error, "an agent could not be announced");
        }
    }

    /// Keeps an ended agent for whoever asks later, and forgets the oldest ones if there are too many.
    pub(crate) fn keep_ended(&self, agent: AgentId) {
        let surplus: Vec<Arc<Cell>> = {
            let mut table = lock(&self.table);
            if table.here(&agent).is_none() || table.ended.contains(&agent) {
                return;
            }
            table.ended.push_back(agent);
            let count = table.ended.len().saturating_sub(self.config.ended_max);
            let oldest: Vec<AgentId> = table.ended.drain(..count).collect();
            let cells = oldest.iter().filter_map(|agent| table.here(agent));
            cells.cloned().collect()
        };
        for cell in surplus {
            tracing::info!(agent = %cell.id(), "an ended agent is removed, because newer ones are kept");
            cell.logs.discard();
            self.forget(&cell);
        }
    }

    /// Whether agents may run here while their memory is still coming.
    pub(crate) fn lets_follow(&self) -> bool {
        mielin_wasm::engine(self.config.engine).is_ok_and(|engine| engine.lets_follow())
    }

    /// Knows nothing of an agent any more that nobody was told of.
    pub(crate) fn drop_resident(&self, cell: &Arc<Cell>) {
        let mut table = lock(&self.table);
        table.ended.retain(|ended| *ended != cell.id());
        let present = table.here(&cell.id());
        if present.is_some_and(|here| Arc::ptr_eq(here, cell)) {
            table.remove(&cell.id());
        }
    }

    /// Knows nothing of an ended agent any more, nor does the mesh.
    pub(crate) fn forget(&self, cell: &Arc<Cell>) {
        let agent = cell.id();
        {
            let mut table = lock(&self.table);
            table.ended.retain(|ended| *ended != agent);
            let present = table.here(&agent);
            if !present.is_some_and(|here| Arc::ptr_eq(here, cell)) {
                return;
            }
            table.remove(&agent);
        }
        self.mesh.withdraw(&agent);
    }

    /// Sends for a courier.
    pub(crate) fn send_courier(self: &Arc<Self>, post: Arc<Post>) {
        lock(&self.couriers).insert(post.agent(), Arc::clone(&post));
        self.runtime.spawn(courier::run(Arc::clone(self), post));
    }

    /// See [`Post::dismiss_courier`].
    pub(crate) fn dismiss_courier(&self, post: &Arc<Post>, is_idle: bool) -> bool {
        let mut couriers = lock(&self.couriers);
        let dismissed = post.dismiss_courier(is_idle);
        let agent = post.agent();
        let known = couriers.get(&agent);
        if dismissed && known.is_some_and(|known| Arc::ptr_eq(known, post)) {
            couriers.remove(&agent);
        }
        dismissed
    }

    /// Tells the outboxes that have something for an agent that it lives on another node than before.
    fn relocated(&self, agent: &AgentId) {
        let posts: Vec<Arc<Post>> = lock(&self.couriers).values().cloned().collect();
        for post in posts {
            post.relocated(agent);
        }
    }

    /// An agent that seemed to be lost with an earlier run of this node had left it before.
    pub(crate) fn left_before(&self, agent: &AgentId, node: NodeId, epoch: Epoch) {
        let Ok(cell) = self.here(agent) else { return };
        if cell.end().is_some() {
            tracing::info!(%agent, %node, "an agent went on elsewhere; what ended here is removed");
            self.entomb(&cell, node, epoch);
            cell.logs.discard();
        }
    }

    /// Gives up an agent that another node holds with a higher epoch.
    pub(crate) async fn fence(self: &Arc<Self>, record: &LocationRecord) {
        let Ok(cell) = self.here(&record.agent) else {
            return;
        };
        if record.node == self.id() || record.epoch <= cell.epoch() {
            return;
        }
        self.left_before(&record.agent, record.node, record.epoch);
        if !cell.lives() {
            return;
        }
        // A move that is under way learns of the record by itself.
        let Ok(claim) = cell.claim("it lives on another node") else {
            return;
        };
        tracing::warn!(agent = %record.agent, node = %record.node, "an agent lives elsewhere with a higher epoch; it is given up here");
        let still = cell.waking.lock().await;
        if cell.is_asleep() {
            self.entomb(&cell, record.node, record.epoch);
            cell.post.close();
            cell.give_up_asleep();
            cell.logs.discard();
            return;
        }
        drop(still);
        if let Ok(held) = claim.cell().hold().await {
            self.entomb(&cell, record.node, record.epoch);
            cell.post.close();
            held.retire();
            cell.logs.discard();
        }
    }

    /// See [`Cells::shutdown`](crate::Cells::shutdown).
    pub(crate) async fn shutdown(self: &Arc<Self>) -> Vec<AgentId> {
        if self.closing.send_replace(true) {
            return Vec::new();
        }
        let scheduler = self.scheduler.clone();
        let closing = tokio::task::spawn_blocking(move || scheduler.close());
        if !matches!(tokio::time::timeout(CLOSE_LIMIT, closing).await, Ok(Ok(()))) {
            tracing::error!("an agent does not stop; its node goes on without it");
        }
        self.lodgings.close().await;
        let lost = persist::store(self).await;
        for cell in self.living() {
            cell.post.close();
        }
        self.client.post.close();
        self.ledger.close();
        lost
    }
}

fn in_order(agents: impl Iterator<Item = AgentSummary>) -> Vec<AgentSummary> {
    let mut agents: Vec<AgentSummary> = agents.collect();
    agents.sort_by(|a, b| (&a.name, a.agent).cmp(&(&b.name, b.agent)));
    agents
}
