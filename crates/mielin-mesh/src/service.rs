//! The running service.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use mielin_mesh_core::delivery::{DeliveryReply, Envelope};
use mielin_mesh_core::kademlia::Key;
use mielin_mesh_core::limits::PAYLOAD_BYTES_MAX;
use mielin_mesh_core::registry::{Prefix, RegistryError};
use mielin_mesh_core::revocation::Reason;
use mielin_mesh_core::routing::Hop;
use mielin_mesh_core::{
    AgentId, AgentRegistry, Departure, Identity, Instant, Location, LocationRecord, Member,
    MemberState, Membership, Name, NodeId, Preset, Revocation, SignedRevocation, codec,
};
use mielin_mesh_wire::{
    Authority, CredentialsError, Endpoint, Features, FrameLimit, Liveness, MeshId, MeshStream,
    NodeCredentials, Peer, StreamError, WireError, stored_revoked_names,
};
use tokio::runtime::Handle;
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::certificates::{self, CertManager};
use crate::config::MeshConfig;
use crate::copied::{Copied, RunningCopy};
use crate::courier::{Couriers, Parcel, hand_over};
use crate::directory::{self, MeshAgents};
use crate::discovery;
use crate::error::MeshError;
use crate::event::{Absence, LocalNode, MeshEvent};
use crate::features::{self, PeerProgram};
use crate::leaves::{LeafConfig, LeafError, LeafNews, Leaves};
use crate::messages::{self, Lane, Lanes, MESSAGES, Mailboxes, Resting};
use crate::metrics::{self, Counts};
use crate::reach::{self, Path, Reach, Reachability, Route};
use crate::relay::Relaying;
use crate::revoking;
use crate::room::Rooms;
use crate::routed::{self, Routing};
use crate::serving::{Refusal, RequestHandler, Response, Served, StreamHandler, request_handler};
use crate::state::{Cores, Shared};
use crate::table::{self, AgentLookup, Table};
use crate::upkeep;
use crate::{address, arrivals};

/// Requests that are answered with what they carry.
pub(crate) const PING: u16 = 6;
const PING_CONTENT: Bytes = Bytes::from_static(b"mielin?!");

/// Events that a subscriber may be behind.
const EVENTS_KEPT: usize = 1024;
/// Protocols below this number are the mesh's own.
const FIRST_PROTOCOL: u16 = 100;
/// How long a node that goes tries to say so.
const FAREWELL_LIMIT: Duration = Duration::from_secs(1);
/// Largest response header: a refusal with its message.
const RESPONSE_HEADER_BYTES: u16 = 16 * 1024;

/// One node's place in the mesh; clones share it.
///
/// The service runs until [`depart`](Self::depart) or
/// [`shutdown`](Self::shutdown); dropping the last clone does not end it.
#[derive(Clone)]
pub struct MeshService {
    pub(crate) shared: Arc<Shared>,
}

impl MeshService {
    /// Hosts leaves from now on, and serves those that were admitted earlier. What happens to them comes out of the receiver.
    ///
    /// # Errors
    /// [`LeafError`]; nothing is open then.
    pub async fn host_leaves(
        &self,
        config: LeafConfig,
    ) -> Result<(Leaves, mpsc::Receiver<LeafNews>), LeafError> {
        let directory = self.shared.credentials.lock().await.directory().clone();
        Leaves::start(config, self.shared.mesh, directory).await
    }

    /// Opens the endpoint and contacts the known members in the background.
    ///
    /// # Errors
    /// [`MeshError::Wire`] when the address cannot be bound, and errors of the
    /// data directory; nothing is running then.
    pub async fn start(
        config: MeshConfig,
        credentials: NodeCredentials,
    ) -> Result<Self, MeshError> {
        let remembered = upkeep::remembered(&credentials)?;
        if let Some(authority) = credentials.authority() {
            let name = Name::new(credentials.name()).map_err(CredentialsError::from)?;
            authority.note_name(credentials.id(), name);
        }
        let (liveness, features) = (liveness(&config), features::served(&config));
        let bound = Endpoint::bind(config.bind_address, &credentials, liveness, features);
        let (endpoint, arriving) = bound.await?;
        let mut known = discovery::first_addresses(&config).await;
        known.extend(remembered.iter().map(|(_, address)| *address));
        let address = config
            .advertise_address
            .unwrap_or_else(|| address::advertised(endpoint.local_address(), &known));
        let local = LocalNode {
            id: credentials.id(),
            name: credentials.name().to_owned(),
            role: credentials.role(),
            address,
        };
        let cores = match cores(&config, &credentials, &local) {
            Ok(cores) => cores,
            Err(error) => {
                endpoint.close().await;
                return Err(error);
            }
        };
        let routing = Routing::new(local.id, credentials.signer());
        let shared = Arc::new(Shared {
            local,
            mesh: credentials.mesh_id(),
            endpoint,
            authority: credentials.authority().cloned(),
            credentials: tokio::sync::Mutex::new(credentials),
            served: RwLock::new(HashMap::new()),
            events: broadcast::Sender::new(EVENTS_KEPT),
            couriers: Couriers::default(),
            reach: Reach::default(),
            copied: Copied::default(),
            relaying: Relaying::default(),
            routing,
            rooms: Rooms::default(),
            mailboxes: RwLock::default(),
            resting: Resting::default(),
            lanes: Lanes::default(),
            changed: Notify::new(),
            issuer_connected: Notify::new(),
            certificate_ends_s: AtomicU64::default(),
            closing: watch::Sender::new(false),
            runtime: Handle::current(),
            started: std::time::Instant::now(),
            local_discovery: tokio::sync::Mutex::default(),
            cores: Mutex::new(cores),
            config,
        });
        let own = |signed: &&SignedRevocation| signed.revocation().node == shared.local.id;
        if let Some(own) = shared.cores().revocations.iter().find(own) {
            revoking::log_own(own.revocation());
        }
        shared.spawn(arrivals::take(Arc::clone(&shared), arriving));
        shared.spawn(upkeep::clock(Arc::clone(&shared)));
        shared.spawn(upkeep::save(Arc::clone(&shared)));
        shared.spawn(certificates::keep_certificate(Arc::clone(&shared)));
        shared.spawn(messages::rest_no_longer(Arc::clone(&shared)));
        shared.spawn(address::follow(Arc::clone(&shared)));
        shared.spawn(reach::seek_direct(Arc::clone(&shared)));
        shared.spawn(reach::learn_dialable(Arc::clone(&shared)));
        shared.spawn(reach::keep_registered(Arc::clone(&shared)));
        if shared.config.enable_registry {
            shared.spawn(table::keep_in(Arc::clone(&shared)));
        }
        if shared.config.enable_gossip {
            shared.spawn(discovery::search(Arc::clone(&shared), remembered));
        }
        if shared.finds_locally() {
            // Not ended with the others: it says goodbye.
            let local = tokio::spawn(discovery::local::run(Arc::clone(&shared)));
            *shared.local_discovery.lock().await = Some(local);
        }
        Ok(MeshService { shared })
    }

    /// Shuts a node out of the mesh, for good: every member closes its connections with it, lets it in no more, and
    /// forgets what it said about agents. Says whether that is new. The members that are there hear of it at once,
    /// others when they connect.
    ///
    /// # Errors
    /// [`MeshError::NotIssuer`] on every node but the holder of the mesh root, [`MeshError::IsLocal`],
    /// [`MeshError::Revocation`] when too many are revoked, and errors of the data directory.
    pub async fn revoke(&self, node: &NodeId, reason: Reason) -> Result<bool, MeshError> {
        revoking::revoke(&self.shared, node, reason).await
    }

    /// The nodes that are shut out, by id.
    #[must_use]
    pub fn revocations(&self) -> Vec<Revocation> {
        let cores = self.shared.cores();
        let revocations = cores.revocations.iter();
        revocations.map(|one| one.revocation().clone()).collect()
    }

    /// Another process that runs as this node, with a copy of its data directory.
    #[must_use]
    pub fn copy(&self) -> Option<RunningCopy> {
        self.shared.copied.current()
    }

    /// This node.
    #[must_use]
    pub fn local(&self) -> &LocalNode {
        &self.shared.local
    }

    /// The address that members dial now. It is another one than at the start when this node is bound to an
    /// unspecified address and the address of its host has changed.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.shared.address()
    }

    /// Names the mesh; also the fingerprint that a joiner without a token is
    /// shown and should compare.
    #[must_use]
    pub fn mesh_id(&self) -> MeshId {
        self.shared.mesh
    }

    /// The power to admit nodes: issues tokens, approves joiners. `None` on
    /// every node but the holder of the mesh root.
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        self.shared.authority.as_ref()
    }

    /// The member that holds the mesh root, once it was met.
    #[must_use]
    pub fn issuer(&self) -> Option<NodeId> {
        self.shared.cores().issuer
    }

    /// A node that nothing can be asked of, because it was shut out, or membership says that it is
    /// dead, has stopped or has left; `None` for active and unknown nodes.
    #[must_use]
    pub fn absence(&self, node: &NodeId) -> Option<Absence> {
        let now = self.shared.now();
        let cores = self.shared.cores();
        let member = cores.membership.member(node);
        if cores.revocations.contains(node) {
            let mut all = cores.revocations.iter().map(SignedRevocation::revocation);
            let revocation = all.find(|one| one.node == *node)?;
            let at = SystemTime::UNIX_EPOCH + Duration::from_millis(revocation.revoked_ms);
            return Some(Absence {
                node: *node,
                name: cores.revoked_names.get(node).cloned(),
                state: MemberState::Left,
                revoked: true,
                since: at.elapsed().unwrap_or_default(),
            });
        }
        let member = member.filter(|member| !member.state.is_active())?;
        Some(Absence {
            node: *node,
            name: Some(member.identity.name),
            state: member.state,
            revoked: false,
            since: now.since(member.since),
        })
    }

    /// What a node that is shut out was called, if this node has known it.
    #[must_use]
    pub fn revoked_name(&self, node: &NodeId) -> Option<Name> {
        self.shared.cores().revoked_names.get(node).cloned()
    }

    /// How a node is reached now; `None` when it is not connected.
    #[must_use]
    pub fn path(&self, node: &NodeId) -> Option<Path> {
        let peer = self.shared.endpoint.peer(node)?;
        Some(reach::path(&self.shared, &peer))
    }

    /// The program of a connected node.
    #[must_use]
    pub fn program(&self, node: &NodeId) -> Option<PeerProgram> {
        let peer = self.shared.endpoint.peer(node)?;
        Some(PeerProgram {
            version: peer.version().to_owned(),
            features: peer.features(),
        })
    }

    /// What both a node and this one serve, connecting first where needed.
    ///
    /// # Errors
    /// As [`open_stream`](Self::open_stream).
    pub async fn features(&self, node: &NodeId) -> Result<Features, MeshError> {
        may_be_wanted(&self.shared, node)?;
        let peer = reach::reach(&self.shared, node, None).await?;
        Ok(peer.features())
    }

    /// Whether others can dial this node, and the relays through which they reach it otherwise.
    #[must_use]
    pub fn reachability(&self) -> Reachability {
        self.shared.reach.own()
    }

    /// Whether members on the same link find this node by multicast DNS.
    #[must_use]
    pub fn finds_locally(&self) -> bool {
        self.shared.finds_locally()
    }

    /// Whether agents may move to this node and away from it.
    #[must_use]
    pub fn migrates(&self) -> bool {
        self.shared.config.enable_migration
    }

    /// Every known node including this one, ordered by id.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        self.shared.cores().membership.members()
    }

    /// Events from now on. A subscriber that falls behind by more than 1,024
    /// events is told so and should look at [`members`](Self::members) and
    /// [`agents`](Self::agents) again.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<MeshEvent> {
        self.shared.events.subscribe()
    }

    /// Publishes an agent that this node holds: the three nodes nearest to its id, and to its name, keep the record,
    /// and are brought it again until it is withdrawn or superseded.
    ///
    /// # Errors
    /// [`RegistryError`] when this node may not announce it; nothing changed.
    pub fn announce(&self, record: LocationRecord) -> Result<(), RegistryError> {
        self.shared
            .with_cores(|cores, now| cores.registry.announce(now, record))
    }

    /// Tells the members that an agent of this node is no more: none lists it
    /// any longer.
    pub fn withdraw(&self, agent: &AgentId) {
        self.shared
            .with_cores(|cores, now| cores.registry.withdraw(now, agent));
    }

    /// Completes when the nodes that should keep the record of an agent of this node have said that they do, so that
    /// every member finds it. Whoever calls should wait for a bounded time: they may be silent.
    pub async fn published(&self, agent: &AgentId) {
        if self.shared.config.enable_registry {
            table::published(&self.shared, agent).await;
        }
    }

    /// An agent that this node has held is at another node now, which announces it. Until that is done this node is
    /// still found, and should know where the agent went.
    pub fn release(&self, agent: &AgentId) {
        self.shared
            .with_cores(|cores, _| cores.registry.release(agent));
    }

    /// The newest location of an agent that this node holds or has found, without asking anybody. It may be out of
    /// date: whoever is there in vain should [`look_up`](Self::look_up).
    #[must_use]
    pub fn locate(&self, agent: &AgentId) -> Option<Location> {
        self.shared.cores().registry.locate(agent).cloned()
    }

    /// Asks every active member for the agents that it holds, and keeps the records of: all, or those whose ids begin
    /// with `prefix`. The cost grows with the number of members; to find one agent, look it up.
    ///
    /// # Errors
    /// [`MeshError::RegistryOff`]. Members that do not answer within 3 s, and those whose registry is off, are named
    /// in the result.
    pub async fn agents(&self, prefix: Prefix) -> Result<MeshAgents, MeshError> {
        directory::agents(&self.shared, prefix).await
    }

    /// Asks the table where an agent is: the three nodes nearest to its id keep the record that its holder has
    /// signed. [`locate`](Self::locate) knows it afterwards.
    ///
    /// # Errors
    /// [`MeshError::RegistryOff`], [`MeshError::Busy`] and
    /// [`MeshError::ShutDown`]. That nobody knows the agent is no error.
    pub async fn look_up(&self, agent: &AgentId) -> Result<AgentLookup, MeshError> {
        table::look_up(&self.shared, Key::of_agent(agent)).await
    }

    /// Asks the table for the agents of a name; at most 16 are kept.
    ///
    /// # Errors
    /// As [`look_up`](Self::look_up).
    pub async fn look_up_name(&self, name: &Name) -> Result<AgentLookup, MeshError> {
        table::look_up(&self.shared, Key::of_name(name)).await
    }

    /// Measures the time of a request of 8 bytes and its answer, on the
    /// connection that stands, or on a new one whose making counts too. A node
    /// that could not be reached a moment ago is tried at once.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn ping(&self, node: &NodeId, limit: Duration) -> Result<Duration, MeshError> {
        self.shared.endpoint.hurry(node);
        let start = std::time::Instant::now();
        self.request(node, PING, PING_CONTENT, limit).await?;
        Ok(start.elapsed())
    }

    /// What this node measures: members, connections, bytes, round trip times,
    /// searches. In the text format of Prometheus.
    #[must_use]
    pub fn metrics(&self) -> String {
        metrics::text(&self.shared)
    }

    /// Takes in messages of agents on other nodes from now on.
    pub fn serve_messages(&self, mailboxes: Arc<dyn Mailboxes>) {
        let handed_on = messages::handed_on_handler(Arc::clone(&mailboxes));
        self.shared.routing.serve(MESSAGES, handed_on);
        let served = self.shared.mailboxes.write();
        *served.unwrap_or_else(PoisonError::into_inner) = Some(mailboxes);
    }

    /// The lane to a node, on which small messages are posted; none while there is none, and then one is opened if the
    /// node is connected and serves lanes.
    #[must_use]
    pub fn lane(&self, node: &NodeId) -> Option<Lane> {
        messages::lane(&self.shared, node)
    }

    /// Brings messages of one agent to another at `node`, in ascending order, and gives what its mailbox said; by way
    /// of the members where no connection can be made. It takes as long as a slow link needs for so many bytes.
    ///
    /// # Errors
    /// See [`MeshError`]. Some or all of them may have been taken in all the same.
    pub async fn deliver(
        &self,
        node: &NodeId,
        envelopes: &[Envelope],
    ) -> Result<DeliveryReply, MeshError> {
        messages::deliver(&self.shared, node, envelopes).await
    }

    /// Answers requests of `protocol` from now on.
    ///
    /// # Panics
    /// When `protocol` is below 100: those are the mesh's own.
    pub fn serve(&self, protocol: u16, handler: Arc<dyn RequestHandler>) {
        self.insert(protocol, Served::Requests(handler));
    }

    /// Takes over streams of `protocol` from now on.
    ///
    /// # Panics
    /// When `protocol` is below 100: those are the mesh's own.
    pub fn serve_streams(&self, protocol: u16, handler: Arc<dyn StreamHandler>) {
        self.insert(protocol, Served::Streams(handler));
    }

    /// Sends a request and waits for its answer. Dropping the future tells the
    /// peer that the answer is no longer wanted.
    ///
    /// # Errors
    /// See [`MeshError`]; the request is not repeated.
    pub async fn request(
        &self,
        node: &NodeId,
        protocol: u16,
        request: Bytes,
        limit: Duration,
    ) -> Result<Bytes, MeshError> {
        self::request(&self.shared, node, protocol, request, limit).await
    }

    /// Sends the same request to these nodes, many at a time, and gives their answers in the order in which they came.
    pub async fn request_each(
        &self,
        nodes: Vec<NodeId>,
        protocol: u16,
        request: Bytes,
        limit: Duration,
    ) -> Vec<(NodeId, Result<Bytes, MeshError>)> {
        let ask = |node| {
            let (shared, request) = (Arc::clone(&self.shared), request.clone());
            async move { self::request(&shared, &node, protocol, request, limit).await }
        };
        directory::ask_each(nodes, ask).await
    }

    /// Answers routed requests of `protocol` from now on. They are proved to come from their source, but may be
    /// repeated by those who carried them after this node has restarted.
    ///
    /// # Panics
    /// When `protocol` is below 100: those are the mesh's own.
    pub fn serve_routed(&self, protocol: u16, handler: Arc<dyn RequestHandler>) {
        assert!(
            protocol >= FIRST_PROTOCOL,
            "protocol {protocol} belongs to the mesh itself"
        );
        self.shared.routing.serve(protocol, handler);
    }

    /// Sends a request by way of other members, for a node to which no connection can be made, and waits for its
    /// answer of at most [`ROUTED_ANSWER_BYTES_MAX`](crate::ROUTED_ANSWER_BYTES_MAX). Those who carry it can read
    /// it. The answer comes with the way that it took.
    ///
    /// # Errors
    /// [`MeshError::NotRouted`], [`MeshError::Oversized`] and [`MeshError::MalformedResponse`].
    pub async fn request_routed(
        &self,
        node: &NodeId,
        protocol: u16,
        request: Bytes,
        limit: Duration,
    ) -> Result<(Bytes, Vec<Hop>), MeshError> {
        routed::request(&self.shared, node, protocol, request, limit).await
    }

    /// Whether the last search for a way to a node has found none, and no connection has come up since. Searches are
    /// made again and again as long as membership holds the node for active.
    #[must_use]
    pub fn is_unreached(&self, node: &NodeId) -> bool {
        reach::is_unreached(&self.shared, node)
    }

    /// The way to a node that is taken now: over a connection, which is made where there is none, or else by way of
    /// the members.
    ///
    /// # Errors
    /// Those of the last way that was tried: [`MeshError::NotRouted`].
    pub async fn route(&self, node: &NodeId, limit: Duration) -> Result<Route, MeshError> {
        match self.ping(node, limit).await {
            Ok(rtt) => match self.path(node) {
                Some(Path::Direct { address, .. }) => return Ok(Route::Direct { address, rtt }),
                Some(Path::Relayed { relay, .. }) => return Ok(Route::Relayed { relay, rtt }),
                // It was there a moment ago.
                None => {}
            },
            Err(
                error @ (MeshError::UnknownNode(_) | MeshError::IsLocal(_) | MeshError::ShutDown),
            ) => {
                return Err(error);
            }
            Err(error) => tracing::debug!(?node, %error, "no connection; asking the members"),
        }
        let (_, hops) = self.request_routed(node, PING, PING_CONTENT, limit).await?;
        Ok(Route::Routed { hops })
    }

    /// Opens a stream, connecting first where needed (at most 10 s).
    ///
    /// # Errors
    /// See [`MeshError`]. A peer that does not serve the protocol shows only
    /// when the stream is used, and so does one that has closed a connection
    /// which nobody used in this moment ([`StreamError::was_unheard`]).
    pub async fn open_stream(&self, node: &NodeId, protocol: u16) -> Result<MeshStream, MeshError> {
        open_stream(&self.shared, node, protocol).await
    }

    /// This node's certificate: its end, and its renewal.
    #[must_use]
    pub fn certificates(&self) -> CertManager {
        CertManager::new(Arc::clone(&self.shared))
    }

    /// Tells the members, for at most a second, that this node stops or leaves,
    /// then shuts down. Its credentials stay in the data directory: it may come
    /// back either way.
    pub async fn depart(&self, departure: Departure) {
        if !self.shared.is_closing() && self.shared.config.enable_gossip {
            say_farewell(&self.shared, departure).await;
        }
        self.shutdown().await;
    }

    /// Closes connections and stops every task, within a few seconds, and says
    /// nothing to anybody, like a node that is cut off: the members will suspect
    /// it and then take it for dead.
    pub async fn shutdown(&self) {
        if self.shared.closing.send_replace(true) {
            return;
        }
        upkeep::save_members_now(&self.shared).await;
        if let Err(error) = revoking::save_now(&self.shared).await {
            tracing::warn!(%error, "cannot store the revocations");
        }
        if let Some(local) = self.shared.local_discovery.lock().await.take() {
            let _ = local.await;
        }
        self.shared.endpoint.close().await;
    }

    fn insert(&self, protocol: u16, served: Served) {
        assert!(
            protocol >= FIRST_PROTOCOL,
            "protocol {protocol} belongs to the mesh itself"
        );
        let mut table = self
            .shared
            .served
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        table.insert(protocol, served);
    }
}

/// Answers pings.
pub(crate) fn ping_handler() -> Arc<dyn RequestHandler> {
    request_handler(|_, content: Bytes| async move { Ok(content) })
}

/// See [`MeshService::request`].
pub(crate) async fn request(
    shared: &Arc<Shared>,
    node: &NodeId,
    protocol: u16,
    request: Bytes,
    limit: Duration,
) -> Result<Bytes, MeshError> {
    if request.len() > PAYLOAD_BYTES_MAX {
        return Err(MeshError::Oversized {
            len: request.len(),
            limit: PAYLOAD_BYTES_MAX,
        });
    }
    let exchange = async {
        match exchange(shared, node, protocol, request.clone()).await {
            // It crossed the end of a connection that nobody had used.
            Err(MeshError::Stream(error)) if error.was_unheard() => {
                exchange(shared, node, protocol, request).await
            }
            outcome => outcome,
        }
    };
    timeout(limit, exchange)
        .await
        .map_err(|_| MeshError::Timeout { node: *node, limit })?
}

/// One attempt at a request.
async fn exchange(
    shared: &Arc<Shared>,
    node: &NodeId,
    protocol: u16,
    request: Bytes,
) -> Result<Bytes, MeshError> {
    let mut stream = open_stream(shared, node, protocol).await?;
    stream.send_frame_bytes(&[], request).await?;
    stream.finish()?;
    let limit = FrameLimit {
        header_bytes: RESPONSE_HEADER_BYTES,
        payload_bytes: PAYLOAD_BYTES_MAX,
    };
    let frame = stream
        .recv_frame(limit)
        .await?
        .ok_or(MeshError::MalformedResponse(*node))?;
    match codec::decode::<Response>(&frame.header) {
        Ok(Response::Done) => Ok(frame.payload),
        Ok(Response::Refused { code, message }) => Err(MeshError::Refused {
            node: *node,
            refusal: Refusal { code, message },
        }),
        Err(_) => Err(MeshError::MalformedResponse(*node)),
    }
}

/// Whether a connection with a node may be made at all.
fn may_be_wanted(shared: &Shared, node: &NodeId) -> Result<(), MeshError> {
    if shared.is_closing() {
        return Err(MeshError::ShutDown);
    }
    if *node == shared.local.id {
        return Err(MeshError::IsLocal(*node));
    }
    if shared.endpoint.is_revoked(&shared.local.id) {
        return Err(WireError::ShutOut.into());
    }
    Ok(())
}

async fn open_stream(
    shared: &Arc<Shared>,
    node: &NodeId,
    protocol: u16,
) -> Result<MeshStream, MeshError> {
    let (_, stream) = open_on(shared, node, protocol).await?;
    Ok(stream)
}

/// A new stream to a node, and the connection that it is on.
pub(crate) async fn open_on(
    shared: &Arc<Shared>,
    node: &NodeId,
    protocol: u16,
) -> Result<(Peer, MeshStream), MeshError> {
    may_be_wanted(shared, node)?;
    if let Some(peer) = shared.endpoint.peer(node) {
        match peer.open(protocol).await {
            // It broke in this moment; a new one may stand.
            Err(StreamError::ConnectionLost(_)) => {}
            opened => return Ok((peer, opened?)),
        }
    }
    let peer = reach::reach(shared, node, None).await?;
    let stream = peer.open(protocol).await?;
    Ok((peer, stream))
}

/// Delivers the news of going over streams, which, unlike datagrams, say when
/// they have been taken in.
async fn say_farewell(shared: &Arc<Shared>, departure: Departure) {
    let mut farewells = JoinSet::new();
    for transmit in shared.depart(departure) {
        let shared = Arc::clone(shared);
        farewells.spawn(async move {
            let peer = reach::reach(&shared, &transmit.to, Some(transmit.address))
                .await
                .ok()?;
            hand_over(&peer, &Parcel::Membership(transmit.bytes.into()))
                .await
                .ok()
        });
    }
    let _ = timeout(FAREWELL_LIMIT, async {
        while farewells.join_next().await.is_some() {}
    })
    .await;
}

fn cores(
    config: &MeshConfig,
    credentials: &NodeCredentials,
    local: &LocalNode,
) -> Result<Cores, MeshError> {
    let since_1970 = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(|_| MeshError::System("a clock that shows a time after 1970"))?;
    let seed = getrandom::u64().map_err(|_| MeshError::System("random numbers"))?;
    let identity = Identity {
        id: local.id,
        name: Name::new(local.name.as_str()).map_err(CredentialsError::from)?,
        role: local.role,
        address: local.address,
        generation: since_1970.as_millis() as u64,
        departed: None,
        revision: 0,
        relays: Vec::new(),
    };
    let membership =
        Membership::new(identity, config.preset, seed).expect("the identity has not departed");
    let revocations = revoking::stored(credentials, seed)?;
    let mut registry = AgentRegistry::new(local.id);
    let mut table = Table::new(local, credentials.signer(), seed);
    for one in revocations.iter() {
        let node = &one.revocation().node;
        registry.shut_out(node);
        table.shut_out(Instant::START, node);
    }
    Ok(Cores {
        membership,
        registry,
        table,
        revocations,
        revoked_names: stored_revoked_names(credentials.directory())?,
        counts: Counts::default(),
        issuer: credentials.authority().map(|_| local.id),
        unsaved: false,
        revocations_unsaved: false,
    })
}

/// A connection should break about when membership suspects the node, and not
/// sooner than a busy machine may be silent.
fn liveness(config: &MeshConfig) -> Liveness {
    let (idle, keep_alive) = match config.preset {
        Preset::Lan => (4, 1),
        Preset::Wan => (20, 5),
    };
    Liveness {
        idle: Duration::from_secs(idle),
        keep_alive: Duration::from_secs(keep_alive),
        unused: config.unused_limit,
    }
}
