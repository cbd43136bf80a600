//! The protocol cores of a node, and how what they say is carried out.
//!
//! Every call into a core happens under one short lock and ends with
//! [`Shared::settle`], which hands transmissions to the couriers and events to
//! the subscribers, in the order in which the cores made them.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use mielin_mesh_core::membership::Transmit;
use mielin_mesh_core::{
    AgentRegistry, Departure, Instant, Member, MemberState, Membership, MembershipEvent, Name,
    NodeId, RegistryEvent, Revocations,
};
use mielin_mesh_wire::{Authority, Ed25519, Endpoint, MeshId, NodeCredentials};
use tokio::runtime::Handle;
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinHandle;

use crate::config::MeshConfig;
use crate::copied::{self, Copied};
use crate::courier::{Couriers, Parcel};
use crate::event::{LocalNode, MeshEvent};
use crate::messages::{Lanes, Mailboxes, Resting};
use crate::metrics::Counts;
use crate::reach::Reach;
use crate::relay::Relaying;
use crate::room::Rooms;
use crate::routed::Routing;
use crate::serving::Served;
use crate::table::Table;

/// Everything that the tasks of one service share.
pub(crate) struct Shared {
    pub(crate) config: MeshConfig,
    pub(crate) local: LocalNode,
    pub(crate) mesh: MeshId,
    pub(crate) endpoint: Endpoint,
    pub(crate) authority: Option<Authority>,
    pub(crate) credentials: tokio::sync::Mutex<NodeCredentials>,
    pub(crate) served: RwLock<HashMap<u16, Served>>,
    pub(crate) events: broadcast::Sender<MeshEvent>,
    pub(crate) couriers: Couriers,
    pub(crate) reach: Reach,
    pub(crate) copied: Copied,
    pub(crate) relaying: Relaying,
    pub(crate) routing: Routing,
    pub(crate) rooms: Rooms,
    /// Who takes messages of agents in.
    pub(crate) mailboxes: RwLock<Option<Arc<dyn Mailboxes>>>,
    pub(crate) resting: Resting,
    pub(crate) lanes: Lanes,
    /// Wakes the clock task, because a deadline may have changed.
    pub(crate) changed: Notify,
    /// The holder of the mesh root has connected.
    pub(crate) issuer_connected: Notify,
    /// When the certificate in use ends, in seconds since the Unix epoch.
    pub(crate) certificate_ends_s: AtomicU64,
    pub(crate) closing: watch::Sender<bool>,
    pub(crate) runtime: Handle,
    pub(crate) started: std::time::Instant,
    /// Ends after the service has begun to close.
    pub(crate) local_discovery: tokio::sync::Mutex<Option<JoinHandle<()>>>,
    pub(crate) cores: Mutex<Cores>,
}

/// The cores and what belongs to them.
pub(crate) struct Cores {
    pub(crate) membership: Membership,
    pub(crate) registry: AgentRegistry,
    pub(crate) table: Table,
    pub(crate) revocations: Revocations<Ed25519>,
    /// What those who are shut out were called, as far as this node has known.
    pub(crate) revoked_names: BTreeMap<NodeId, Name>,
    pub(crate) counts: Counts,
    /// The member that holds the mesh root, as its certificate says.
    pub(crate) issuer: Option<NodeId>,
    /// The set of members or an address has changed since it was last stored.
    pub(crate) unsaved: bool,
    /// Nodes were shut out since the revocations were last stored.
    pub(crate) revocations_unsaved: bool,
}

impl Shared {
    /// Runs `action` on the cores and carries out what they then want.
    pub(crate) fn with_cores<R>(
        self: &Arc<Self>,
        action: impl FnOnce(&mut Cores, Instant) -> R,
    ) -> R {
        let mut cores = self.cores();
        let result = action(&mut cores, self.now());
        self.settle(&mut cores);
        drop(cores);
        self.changed.notify_one();
        result
    }

    /// Looks at the cores.
    ///
    /// A panic inside a core poisons nothing for good: the cores are no worse
    /// than after a lost message, and a node that still answers is better than
    /// one that does not.
    pub(crate) fn cores(&self) -> MutexGuard<'_, Cores> {
        self.cores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time as the cores count it.
    pub(crate) fn now(&self) -> Instant {
        Instant::from_start(self.started.elapsed())
    }

    /// Where this node listens, as the members are told.
    pub(crate) fn address(&self) -> SocketAddr {
        self.cores().membership.local().address
    }

    /// Where a member listens, as far as is known.
    pub(crate) fn address_of(&self, node: &NodeId) -> Option<SocketAddr> {
        self.cores()
            .membership
            .member(node)
            .map(|member| member.identity.address)
    }

    /// Who serves a protocol.
    pub(crate) fn served(&self, protocol: u16) -> Option<Served> {
        let table = self.served.read().unwrap_or_else(PoisonError::into_inner);
        table.get(&protocol).cloned()
    }

    /// Who takes messages of agents in.
    pub(crate) fn mailboxes(&self) -> Option<Arc<dyn Mailboxes>> {
        let mailboxes = self.mailboxes.read();
        mailboxes.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs a task that ends with the service at the latest.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut closing = self.closing.subscribe();
        self.runtime.spawn(async move {
            tokio::select! {
                () = task => {}
                _ = closing.wait_for(|closing| *closing) => {}
            }
        });
    }

    /// Whether members on the same link find this node by themselves.
    pub(crate) fn finds_locally(&self) -> bool {
        self.config.enable_mdns && self.config.enable_gossip
    }

    pub(crate) fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// What membership wants to be sent when the node goes, for a caller that
    /// makes sure it arrives.
    pub(crate) fn depart(self: &Arc<Self>, departure: Departure) -> Vec<Transmit> {
        let mut cores = self.cores();
        let now = self.now();
        cores.membership.depart(now, departure);
        let farewell = std::iter::from_fn(|| cores.membership.poll_transmit()).collect();
        self.settle(&mut cores);
        farewell
    }

    /// Follows who bears which name: a node that left gives its own free.
    fn note_name(&self, member: &Member) {
        let identity = &member.identity;
        if let Some(authority) = &self.authority {
            if member.state == MemberState::Left {
                authority.forget_name(&identity.id);
            } else {
                authority.note_name(identity.id, identity.name.clone());
            }
        }
        if identity.name == *self.local.name && member.state == MemberState::Alive {
            tracing::warn!(
                "the node {} bears the name {} too; start one of the two with another name",
                identity.id.short(),
                identity.name,
            );
        }
    }

    fn settle(self: &Arc<Self>, cores: &mut Cores) {
        let now = self.now();
        self.settle_revocations(cores, now);
        while let Some(event) = cores.membership.poll_event() {
            match event {
                MembershipEvent::MemberChanged(member) => {
                    let id = member.identity.id;
                    if !member.state.is_active() {
                        cores.revocations.member_left(&id);
                    } else if cores.revocations.contains(&id) {
                        // Somebody who has not heard of it yet told of this node.
                        self.note_revoked_name(cores, &id);
                        cores.membership.bury(now, &id);
                        continue;
                    } else {
                        cores.revocations.member_joined(now, id);
                    }
                    if self.config.enable_registry {
                        cores.registry.member_changed(&member);
                        cores.table.member_changed(now, &member);
                    }
                    if cores.issuer == Some(member.identity.id) {
                        self.endpoint.issuer_is_at(Some(member.identity.address));
                    }
                    if matches!(member.state, MemberState::Stopped | MemberState::Left) {
                        self.couriers.forget(&member.identity.id);
                    }
                    self.note_name(&member);
                    cores.unsaved = true;
                    *cores.counts.changes.entry(member.state).or_default() += 1;
                    let _ = self.events.send(MeshEvent::MemberChanged(member));
                }
                MembershipEvent::Rejoined { generation } => {
                    if self.copied.may_log_return() {
                        tracing::warn!(
                            generation,
                            "the members had given this node up; it is back"
                        );
                    }
                }
                MembershipEvent::OtherLife { address } => copied::other_life(self, address),
                MembershipEvent::Forgotten(node) => {
                    if let Some(authority) = &self.authority {
                        authority.forget_name(&node);
                    }
                }
            }
        }
        cores.table.settle(now, &mut cores.registry);
        while let Some(transmit) = cores.membership.poll_transmit() {
            let Transmit { to, address, bytes } = transmit;
            self.couriers
                .post(self, to, address, Parcel::Membership(bytes.into()));
        }
        while let Some(event) = cores.registry.poll_event() {
            if self.config.enable_registry {
                self.follow(cores, now, &event);
            }
            let _ = self.events.send(match event {
                RegistryEvent::LocationChanged(location) => MeshEvent::LocationChanged(location),
                RegistryEvent::LocationExpired(record) => MeshEvent::LocationExpired(record),
                RegistryEvent::Fenced { agent, ours, by } => MeshEvent::Fenced { agent, ours, by },
            });
        }
        while let Some(transmit) = cores.table.poll_transmit() {
            let told = transmit.to.addresses.first().copied();
            let known = cores.membership.member(&transmit.to.id);
            let Some(address) = told.or(known.map(|member| member.identity.address)) else {
                continue;
            };
            let parcel = Parcel::Table(transmit.bytes.into());
            self.couriers.post(self, transmit.to.id, address, parcel);
        }
    }

    /// Keeps in the table what this node says about its agents.
    fn follow(&self, cores: &mut Cores, now: Instant, event: &RegistryEvent) {
        match event {
            RegistryEvent::LocationChanged(location) if location.record.node == self.local.id => {
                cores.table.publish(now, &location.record);
            }
            RegistryEvent::LocationExpired(record) if record.node == self.local.id => {
                cores.table.withdraw(record);
            }
            RegistryEvent::Fenced { by, .. } => cores.table.withdraw(by),
            _ => {}
        }
    }
}
