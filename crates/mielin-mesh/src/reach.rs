//! The ways to other nodes: direct ones first, and through relays where there is none.
//!
//! A node that its peers cannot dial back registers with relays and says so in its membership. Whoever wants to
//! reach it dials its address and, a little later, asks its relays. A connection through a relay is used until a
//! direct one stands; both ends go on trying.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use mielin_mesh_core::limits::{RELAYS_MAX, RELAYS_WANTED};
use mielin_mesh_core::reach::{
    CircuitAnswer, CircuitRequest, DialBack, DirectRetry, RelayCandidate, choose_relays,
    is_dialable, is_relay,
};
use mielin_mesh_core::routing::Hop;
use mielin_mesh_core::{MemberState, NodeId};
use mielin_mesh_wire::{MeshStream, Peer, WireError};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::config::Dialling;
use crate::error::MeshError;
use crate::features;
use crate::relay::{ANSWER_LIMIT, CIRCUIT, HEADER_LIMIT, ask};
use crate::state::Shared;

/// A direct way is tried alone for so long when the node says that it cannot be dialled, and when it does not.
const HEAD_START_UNDIALABLE: Duration = Duration::from_millis(250);
const HEAD_START: Duration = Duration::from_secs(2);
/// All ways together.
const REACH_LIMIT: Duration = Duration::from_secs(12);
/// Nodes that are remembered as unreached.
const UNREACHED_MAX: usize = 1024;
/// Between two looks at the connections that go through relays.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// Peers that are asked to dial back.
const DIAL_BACK_PEERS: usize = 3;
/// Between two rounds of dial-backs: while nothing is known, when the node cannot be dialled, and when it can.
const ASK_PERIOD_UNKNOWN: Duration = Duration::from_secs(2);
const ASK_PERIOD_UNDIALABLE: Duration = Duration::from_secs(60);
const ASK_PERIOD_DIALABLE: Duration = Duration::from_secs(300);
/// Before another relay is asked, when one has refused or gone.
const REGISTER_PAUSE: Duration = Duration::from_secs(1);

/// How a connected node is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Its packets come straight from it.
    Direct {
        /// From there.
        address: SocketAddr,
        /// The smoothed round trip time.
        rtt: Duration,
    },
    /// Its packets come through a relay, which cannot read them.
    Relayed {
        /// The relay; `None` in the moment in which one replaces another.
        relay: Option<NodeId>,
        /// The smoothed round trip time.
        rtt: Duration,
    },
}

/// The way to a node that was taken just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Over a connection of its own.
    Direct {
        /// Where its packets come from.
        address: SocketAddr,
        /// The time of a request and its answer.
        rtt: Duration,
    },
    /// Over a connection through a relay.
    Relayed {
        /// The relay; `None` in the moment in which one replaces another.
        relay: Option<NodeId>,
        /// The time of a request and its answer.
        rtt: Duration,
    },
    /// Handed on by members; there is no connection.
    Routed {
        /// The nodes on the way, the last one the node itself, each with the time as the one before measured it.
        hops: Vec<Hop>,
    },
}

/// Whether others can dial a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reachability {
    /// `None` as long as no peer could say.
    pub dialable: Option<bool>,
    /// The relays with which the node is registered.
    pub relays: Vec<NodeId>,
}

/// What a node knows about the ways to it and to others.
#[derive(Default)]
pub(crate) struct Reach {
    turns: Mutex<HashMap<NodeId, Weak<tokio::sync::Mutex<()>>>>,
    own: Mutex<Reachability>,
    /// Nodes to which the last search has found no way.
    unreached: Mutex<HashSet<NodeId>>,
    /// Whether the node can be dialled, a registration has ended, or a circuit has.
    changed: Notify,
    circuit_ended: Notify,
}

impl Reach {
    pub(crate) fn own(&self) -> Reachability {
        self.lock_own().clone()
    }

    fn lock_own(&self) -> MutexGuard<'_, Reachability> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the last search for a way to a node has found none.
    pub(crate) fn is_unreached(&self, node: &NodeId) -> bool {
        self.lock_unreached().contains(node)
    }

    fn lock_unreached(&self) -> MutexGuard<'_, HashSet<NodeId>> {
        let unreached = &self.unreached;
        unreached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets one task at a time look for ways to a node; the others find its connection.
    fn turn(&self, node: &NodeId) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(node).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        turns.insert(*node, Arc::downgrade(&turn));
        turn
    }
}

/// Whether the last search for a way to a node has found none, and no connection has come up since.
pub(crate) fn is_unreached(shared: &Shared, node: &NodeId) -> bool {
    shared.endpoint.peer(node).is_none() && shared.reach.is_unreached(node)
}

/// How a connection goes.
pub(crate) fn path(shared: &Shared, peer: &Peer) -> Path {
    let rtt = peer.rtt();
    if peer.is_relayed() {
        let relay = shared.endpoint.circuits().relay_of(&peer.node());
        Path::Relayed { relay, rtt }
    } else {
        let address = peer.remote_address();
        Path::Direct { address, rtt }
    }
}

/// A connection with a node, on whichever way there is. `address` is where it listens, for a node that is no member
/// yet.
pub(crate) async fn reach(
    shared: &Arc<Shared>,
    node: &NodeId,
    address: Option<SocketAddr>,
) -> Result<Peer, MeshError> {
    if let Some(peer) = shared.endpoint.peer(node) {
        return Ok(peer);
    }
    let member = shared.cores().membership.member(node);
    let identity = member.map(|member| member.identity);
    let address = identity
        .as_ref()
        .map(|identity| identity.address)
        .or(address);
    let address = address.ok_or(MeshError::UnknownNode(*node))?;
    let advertised = identity.map_or_else(Vec::new, |identity| identity.relays);
    let turn = shared.reach.turn(node);
    let limit = REACH_LIMIT;
    let search = async {
        let _turn = turn.lock().await;
        let search = Search { shared, node };
        let peer = race(shared, node, address, advertised).await?;
        // Found: what the end of the search notes is undone.
        drop(search);
        shared.reach.lock_unreached().remove(node);
        Ok(peer)
    };
    timeout(limit, search)
        .await
        .map_err(|_| MeshError::Wire(WireError::Timeout { address, limit }))?
}

/// A search for a way. It has found none when it ends, also when whoever wanted it waits no longer.
struct Search<'a> {
    shared: &'a Shared,
    node: &'a NodeId,
}

impl Drop for Search<'_> {
    fn drop(&mut self) {
        let mut unreached = self.shared.reach.lock_unreached();
        if unreached.len() >= UNREACHED_MAX {
            // They are noted again when they are searched for.
            unreached.clear();
        }
        unreached.insert(*self.node);
    }
}

/// Tries the direct way and, a little later or when that has failed, the relays.
async fn race(
    shared: &Arc<Shared>,
    node: &NodeId,
    address: SocketAddr,
    advertised: Vec<NodeId>,
) -> Result<Peer, MeshError> {
    let head_start = if advertised.is_empty() {
        HEAD_START
    } else {
        HEAD_START_UNDIALABLE
    };
    let no_direct_way = Notify::new();
    let direct = shared.endpoint.connect(node, address);
    let relayed = async {
        // Whichever comes first.
        let _ = timeout(head_start, no_direct_way.notified()).await;
        through_relays(shared, node, &advertised).await
    };
    tokio::pin!(direct, relayed);
    let (mut failure, mut asked) = (None, None);
    loop {
        tokio::select! {
            outcome = &mut direct, if failure.is_none() => match outcome {
                Ok(peer) => return Ok(peer),
                Err(error) => {
                    no_direct_way.notify_one();
                    failure = Some(error);
                }
            },
            outcome = &mut relayed, if asked.is_none() => match outcome {
                Ok(peer) => return Ok(peer),
                Err(relays) => asked = Some(relays),
            },
        }
        match (failure.take(), asked) {
            (Some(direct), Some(0)) => return Err(direct.into()),
            (Some(direct), Some(relays)) => {
                return Err(MeshError::NoPath {
                    node: *node,
                    direct: Box::new(direct),
                    relays,
                });
            }
            (still, _) => failure = still,
        }
    }
}

/// A connection over a circuit; else how many relays were asked in vain.
async fn through_relays(
    shared: &Arc<Shared>,
    node: &NodeId,
    advertised: &[NodeId],
) -> Result<Peer, usize> {
    let relays = relays_for(shared, node, advertised);
    let count = relays.len();
    for relay in relays {
        match open_circuit(shared, node, &relay).await {
            Ok(()) => match shared.endpoint.connect_over_circuit(node).await {
                Ok(peer) => return Ok(peer),
                Err(error) => {
                    tracing::debug!(?node, ?relay, %error, "no connection over a circuit")
                }
            },
            Err(error) => tracing::debug!(?node, ?relay, %error, "no circuit"),
        }
    }
    Err(count)
}

/// The relays to ask for a node: those that it advertises, then those with which this node has a connection.
fn relays_for(shared: &Shared, node: &NodeId, advertised: &[NodeId]) -> Vec<NodeId> {
    let connected = shared.endpoint.peers().into_iter();
    let connected = connected
        .filter(|peer| !peer.is_relayed() && is_relay(peer.role()))
        .filter(|peer| features::serves(peer, CIRCUIT))
        .map(|peer| peer.node());
    let mut seen = HashSet::from([*node, shared.local.id]);
    let all = advertised.iter().copied().chain(connected);
    all.filter(|relay| seen.insert(*relay))
        .take(RELAYS_MAX)
        .collect()
}

/// Has a relay join a stream with one to a node, and takes it into use.
async fn open_circuit(
    shared: &Arc<Shared>,
    node: &NodeId,
    relay: &NodeId,
) -> Result<(), MeshError> {
    let open = async {
        let mut stream = open_stream(shared, relay).await?;
        let request = CircuitRequest::Connect { destination: *node };
        match ask(&mut stream, request).await? {
            Some(CircuitAnswer::Done) => Ok(stream),
            Some(CircuitAnswer::Refused(refusal)) => Err(MeshError::NoCircuit {
                relay: *relay,
                refusal,
            }),
            _ => Err(MeshError::MalformedResponse(*relay)),
        }
    };
    let limit = 2 * ANSWER_LIMIT;
    let stream = timeout(limit, open)
        .await
        .map_err(|_| MeshError::Timeout {
            node: *relay,
            limit,
        })??;
    let circuits = shared.endpoint.circuits();
    match circuits.attach(*node, *relay, true, stream) {
        Ok(circuit) => {
            let ended = Arc::clone(shared);
            shared.spawn(async move {
                circuit.await;
                ended.reach.circuit_ended.notify_one();
            });
        }
        // There is one already.
        Err(error) => tracing::debug!(?node, ?relay, %error, "a circuit was not used"),
    }
    Ok(())
}

/// A stream to a relay, over a connection of this node's own.
async fn open_stream(shared: &Arc<Shared>, relay: &NodeId) -> Result<MeshStream, MeshError> {
    let address = shared
        .address_of(relay)
        .ok_or(MeshError::UnknownNode(*relay))?;
    let peer = shared.endpoint.connect_directly(relay, address).await?;
    Ok(features::open(&peer, CIRCUIT).await?)
}

/// Looks after the connections that go through relays: replaces circuits that have ended, and tries direct ways.
pub(crate) async fn seek_direct(shared: Arc<Shared>) {
    let mut retries: HashMap<NodeId, DirectRetry> = HashMap::new();
    let mut look = interval(LOOK_PERIOD);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = shared.reach.circuit_ended.notified() => {}
        }
        let relayed = shared.endpoint.peers().into_iter();
        let relayed: Vec<NodeId> = relayed
            .filter(Peer::is_relayed)
            .map(|peer| peer.node())
            .collect();
        retries.retain(|node, _| relayed.contains(node));
        let now = shared.now();
        for node in relayed {
            if shared.endpoint.circuits().relay_of(&node).is_none() {
                shared.spawn(replace_circuit(Arc::clone(&shared), node));
            }
            let retry = retries.entry(node).or_insert(DirectRetry::new(now));
            if retry.take_turn(now)
                && let Some(address) = shared.address_of(&node)
            {
                shared.spawn(try_directly(Arc::clone(&shared), node, address));
            }
        }
    }
}

async fn try_directly(shared: Arc<Shared>, node: NodeId, address: SocketAddr) {
    // The retries have pauses of their own.
    shared.endpoint.hurry(&node);
    match shared.endpoint.connect_directly(&node, address).await {
        Ok(_) => {
            tracing::info!(node = %node.short(), %address, "reached directly now, without a relay")
        }
        Err(error) => tracing::debug!(?node, %error, "still reached through a relay"),
    }
}

/// Opens a circuit for a connection that has lost its own.
async fn replace_circuit(shared: Arc<Shared>, node: NodeId) {
    let turn = shared.reach.turn(&node);
    let Ok(_turn) = turn.try_lock() else {
        return;
    };
    let member = shared.cores().membership.member(&node);
    let advertised = member.map_or_else(Vec::new, |member| member.identity.relays);
    for relay in relays_for(&shared, &node, &advertised) {
        if shared.endpoint.circuits().relay_of(&node).is_some() {
            return;
        }
        if let Err(error) = open_circuit(&shared, &node, &relay).await {
            tracing::debug!(?node, ?relay, %error, "a circuit was not replaced");
        }
    }
}

/// Finds out, again and again, whether this node can be dialled.
pub(crate) async fn learn_dialable(shared: Arc<Shared>) {
    if shared.config.dialling == Dialling::Impossible {
        conclude(&shared, false);
        return;
    }
    loop {
        let found = ask_to_dial_back(&shared).await;
        let dialable = is_dialable(&found);
        if let Some(dialable) = dialable {
            conclude(&shared, dialable);
        }
        sleep(match dialable {
            None => ASK_PERIOD_UNKNOWN,
            Some(false) => ASK_PERIOD_UNDIALABLE,
            Some(true) => ASK_PERIOD_DIALABLE,
        })
        .await;
    }
}

fn conclude(shared: &Shared, dialable: bool) {
    let before = shared.reach.lock_own().dialable.replace(dialable);
    if before == Some(dialable) {
        return;
    }
    let address = shared.address();
    if dialable {
        tracing::debug!(%address, "others can dial this node");
    } else {
        tracing::info!(%address, "others cannot dial this node; it registers with relays");
    }
    shared.reach.changed.notify_one();
}

async fn ask_to_dial_back(shared: &Arc<Shared>) -> Vec<DialBack> {
    let request = CircuitRequest::DialBack(shared.address().into());
    let mut asked = JoinSet::new();
    let peers = shared.endpoint.peers().into_iter();
    for peer in peers
        .filter(|peer| !peer.is_relayed() && features::serves(peer, CIRCUIT))
        .take(DIAL_BACK_PEERS)
    {
        asked.spawn(timeout(ANSWER_LIMIT, async move {
            let mut stream = peer.open(CIRCUIT).await.ok()?;
            match ask(&mut stream, request).await.ok()? {
                Some(CircuitAnswer::DialledBack(found)) => Some(found),
                _ => None,
            }
        }));
    }
    let answers = asked.join_all().await.into_iter();
    answers.filter_map(|answer| answer.ok().flatten()).collect()
}

/// Keeps registrations with relays for as long as this node cannot be dialled.
pub(crate) async fn keep_registered(shared: Arc<Shared>) {
    let mut registrations: JoinSet<NodeId> = JoinSet::new();
    // Refused lately, or gone; asked again when no other is left.
    let mut avoided: HashSet<NodeId> = HashSet::new();
    loop {
        if shared.reach.own().dialable == Some(false) {
            let held = shared.reach.own().relays;
            if held.len() < RELAYS_WANTED {
                register(&shared, &mut registrations, &mut avoided, &held).await;
            }
        } else {
            registrations.abort_all();
            while registrations.join_next().await.is_some() {}
            shared.reach.lock_own().relays.clear();
        }
        let relays = shared.reach.own().relays;
        let wanting = relays.len() < RELAYS_WANTED && shared.reach.own().dialable == Some(false);
        shared.with_cores(|cores, now| cores.membership.advertise_relays(now, relays));
        tokio::select! {
            () = shared.reach.changed.notified() => {}
            () = sleep(REGISTER_PAUSE), if wanting => {}
            Some(ended) = registrations.join_next(), if !registrations.is_empty() => {
                if let Ok(relay) = ended {
                    tracing::info!(relay = %relay.short(), "a registration with a relay has ended");
                    shared.reach.lock_own().relays.retain(|held| *held != relay);
                    avoided.insert(relay);
                }
            }
        }
    }
}

/// Registers with one more relay, if there is one.
async fn register(
    shared: &Arc<Shared>,
    registrations: &mut JoinSet<NodeId>,
    avoided: &mut HashSet<NodeId>,
    held: &[NodeId],
) {
    let peers = shared.endpoint.peers();
    let members = shared.cores().membership.members();
    let candidates = members
        .iter()
        .map(|member| (&member.identity, member.state))
        .filter(|(identity, state)| *state == MemberState::Alive && identity.relays.is_empty())
        .filter(|(identity, _)| !held.contains(&identity.id) && !avoided.contains(&identity.id))
        .filter(|(identity, _)| {
            let mut connected = peers.iter().filter(|peer| peer.node() == identity.id);
            connected.all(|peer| features::serves(peer, CIRCUIT))
        })
        .map(|(identity, _)| RelayCandidate {
            node: identity.id,
            role: identity.role,
            rtt: peers
                .iter()
                .find(|peer| peer.node() == identity.id)
                .map(Peer::rtt),
        });
    let Some(relay) = choose_relays(&shared.local.id, candidates, 1).pop() else {
        avoided.clear();
        return;
    };
    let registered = timeout(2 * ANSWER_LIMIT, async {
        let mut stream = open_stream(shared, &relay).await?;
        match ask(&mut stream, CircuitRequest::Register).await? {
            Some(CircuitAnswer::Done) => Ok(stream),
            Some(CircuitAnswer::Refused(refusal)) => Err(MeshError::NoCircuit { relay, refusal }),
            _ => Err(MeshError::MalformedResponse(relay)),
        }
    });
    match registered.await {
        Ok(Ok(mut stream)) => {
            tracing::info!(relay = %relay.short(), "registered with a relay");
            shared.reach.lock_own().relays.push(relay);
            registrations.spawn(async move {
                // The relay says nothing more: this ends when the stream does.
                let _ = stream.recv_frame(HEADER_LIMIT).await;
                relay
            });
        }
        Ok(Err(error)) => {
            tracing::debug!(?relay, %error, "not registered with a relay");
            avoided.insert(relay);
        }
        Err(_) => {
            avoided.insert(relay);
        }
    }
}
