//! Members on the same link, found without knowing an address: multicast DNS
//! (RFC 6762) and DNS-based service discovery (RFC 6763), by the crate `mdns-sd`.
//!
//! A node says under [`SERVICE`] where it listens, of which mesh and which node
//! it is. What is heard is a hint that anybody can send: a bounded number of
//! places is remembered, and who is there proves itself as everywhere.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use mdns_sd::{
    IfKind, Receiver, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo,
};
use mielin_mesh_core::NodeId;
use mielin_mesh_wire::MeshId;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::{Complaints, announce};
use crate::state::Shared;

const SERVICE: &str = "_mielin._udp.local.";
/// Keys of the TXT record, and how much of the mesh's id is told.
const MESH: &str = "mesh";
const NODE: &str = "node";
const MESH_DIGITS: usize = 32;

/// How long what was heard is believed.
const CACHE: Duration = Duration::from_secs(300);
/// Nodes that are remembered, and addresses of each.
const PLACES_MAX: usize = 256;
const ADDRESSES_MAX: usize = 4;
/// Events that wait; more are dropped.
const EVENTS_MAX: usize = 64;
/// Between two attempts to reach a place.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How long a node that stops waits until its farewell was sent.
const FAREWELL: Duration = Duration::from_secs(1);

/// This node's part in the discovery of its links. Its sockets and its thread
/// end with [`LocalDiscovery::close`].
pub(crate) struct LocalDiscovery {
    daemon: ServiceDaemon,
    fullname: String,
}

impl LocalDiscovery {
    /// Says where this node is on the links that `bind` is on, and listens there.
    fn start(
        bind: SocketAddr,
        mesh: MeshId,
        node: NodeId,
    ) -> Result<(LocalDiscovery, Receiver<ServiceEvent>), mdns_sd::Error> {
        let daemon = ServiceDaemon::new()?;
        // The selection is made before anything is sent.
        daemon.disable_interface(IfKind::LoopbackV4)?;
        daemon.disable_interface(IfKind::LoopbackV6)?;
        if !bind.ip().is_unspecified() {
            daemon.disable_interface(IfKind::All)?;
            daemon.enable_interface(IfKind::Addr(bind.ip()))?;
        } else if bind.is_ipv4() {
            daemon.disable_interface(IfKind::IPv6)?;
        }
        let (mesh, node) = (mesh.to_string(), node.to_string());
        let name = &node[..32];
        let txt = [(MESH, &mesh[..MESH_DIGITS]), (NODE, node.as_str())];
        let host = format!("{name}.mielin.local.");
        let port = bind.port();
        let service = if bind.ip().is_unspecified() {
            ServiceInfo::new(SERVICE, name, &host, "", port, &txt[..])?.enable_addr_auto()
        } else {
            ServiceInfo::new(SERVICE, name, &host, bind.ip(), port, &txt[..])?
        };
        let fullname = service.get_fullname().to_owned();
        daemon.register(service)?;
        let events = daemon.browse(SERVICE)?;
        Ok((LocalDiscovery { daemon, fullname }, events))
    }

    /// Says that the node goes, and ends. Blocks for at most a second.
    fn close(self) {
        let farewell = self.daemon.unregister(&self.fullname);
        if let Ok(sent) = farewell {
            let _ = sent.recv_timeout(FAREWELL);
        }
        let _ = self.daemon.shutdown();
    }
}

/// Takes part until the service ends.
pub(crate) async fn run(shared: Arc<Shared>) {
    let bound = shared.endpoint.local_address();
    let mesh = shared.mesh;
    let (local, events) = match LocalDiscovery::start(bound, mesh, shared.local.id) {
        Ok(started) => started,
        Err(error) => {
            return tracing::warn!(%error, "nodes on the same link are not found by themselves");
        }
    };
    let (tell, told) = mpsc::channel(EVENTS_MAX);
    // Ends when the daemon does.
    std::thread::spawn(move || {
        while let Ok(event) = events.recv() {
            if tell.try_send(event).is_err() && tell.is_closed() {
                return;
            }
        }
    });
    let mut closing = shared.closing.subscribe();
    tokio::select! {
        () = search(&shared, told) => {}
        _ = closing.wait_for(|closing| *closing) => {}
    }
    let _ = tokio::task::spawn_blocking(move || local.close()).await;
}

/// Where a node is said to be.
#[derive(Debug)]
struct Place {
    addresses: Vec<SocketAddr>,
    fullname: String,
    heard: Instant,
    next: Instant,
    pause: Duration,
}

async fn search(shared: &Arc<Shared>, mut told: mpsc::Receiver<ServiceEvent>) {
    let mut places = Places::new(shared.mesh, shared.local.id);
    let mut complaints = Complaints::default();
    loop {
        let next = places.next();
        let due = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = told.recv() => match event {
                Some(event) => places.hear(Instant::now(), event),
                None => return,
            },
            () = due => {
                if let Some((node, addresses)) = places.take_due(Instant::now()) {
                    contact(shared, &node, &addresses, &mut complaints).await;
                }
            }
        }
    }
}

async fn contact(
    shared: &Arc<Shared>,
    node: &NodeId,
    addresses: &[SocketAddr],
    complaints: &mut Complaints,
) {
    let known = shared.cores().membership.member(node);
    if known.is_some_and(|member| member.state.is_active()) || shared.endpoint.is_revoked(node) {
        return;
    }
    for address in addresses {
        let outcome = shared.endpoint.connect(node, *address).await;
        if announce(shared, *address, outcome, complaints).await {
            return;
        }
    }
}

/// The places that were heard of.
struct Places {
    mesh: String,
    local: NodeId,
    known: BTreeMap<NodeId, Place>,
}

impl Places {
    fn new(mesh: MeshId, local: NodeId) -> Places {
        Places {
            mesh: mesh.to_string()[..MESH_DIGITS].to_owned(),
            local,
            known: BTreeMap::new(),
        }
    }

    fn hear(&mut self, now: Instant, event: ServiceEvent) {
        match event {
            ServiceEvent::ServiceResolved(service) => self.add(now, &service),
            ServiceEvent::ServiceRemoved(_, fullname) => {
                self.known.retain(|_, place| place.fullname != fullname);
            }
            _ => {}
        }
    }

    fn add(&mut self, now: Instant, service: &ResolvedService) {
        let property = |key| service.txt_properties.get_property_val_str(key);
        if property(MESH) != Some(&self.mesh) || service.port == 0 {
            return;
        }
        let Some(node) = property(NODE).and_then(|node| node.parse::<NodeId>().ok()) else {
            return;
        };
        self.known.retain(|_, place| place.heard + CACHE > now);
        let full = self.known.len() >= PLACES_MAX && !self.known.contains_key(&node);
        let addresses = addresses(service);
        if node == self.local || full || addresses.is_empty() {
            return;
        }
        let place = self.known.entry(node).or_insert(Place {
            addresses: Vec::new(),
            fullname: service.fullname.clone(),
            heard: now,
            next: now,
            pause: PAUSE_MIN,
        });
        if place.addresses != addresses {
            (place.next, place.pause) = (now, PAUSE_MIN);
        }
        (place.addresses, place.heard) = (addresses, now);
    }

    /// When the next attempt is due.
    fn next(&self) -> Option<Instant> {
        self.known.values().map(|place| place.next).min()
    }

    /// The place that is due, if it is still believed.
    fn take_due(&mut self, now: Instant) -> Option<(NodeId, Vec<SocketAddr>)> {
        self.known.retain(|_, place| place.heard + CACHE > now);
        let due = self.known.iter_mut().find(|(_, place)| place.next <= now);
        let (node, place) = due?;
        place.next = now + place.pause;
        place.pause = (place.pause * 2).min(PAUSE_MAX);
        Some((*node, place.addresses.clone()))
    }
}

/// Where it can be dialled, IPv4 first: an address of the link alone last.
fn addresses(service: &ResolvedService) -> Vec<SocketAddr> {
    let dialled = |ip: &ScopedIp| match ip {
        ScopedIp::V4(v4) => SocketAddr::new(IpAddr::V4(*v4.addr()), service.port),
        ScopedIp::V6(v6) => {
            let scope = match v6.addr().is_unicast_link_local() {
                true => v6.scope_id().index,
                false => 0,
            };
            SocketAddrV6::new(*v6.addr(), service.port, 0, scope).into()
        }
        _ => SocketAddr::new(ip.to_ip_addr(), service.port),
    };
    let usable = |address: &SocketAddr| {
        let ip = address.ip();
        !(ip.is_unspecified() || ip.is_multicast() || ip.is_loopback())
    };
    let mut addresses: Vec<SocketAddr> = service.addresses.iter().map(dialled).collect();
    addresses.retain(usable);
    addresses.sort_by_key(|address| match address {
        SocketAddr::V4(_) => (0, *address),
        SocketAddr::V6(v6) => (1 + u8::from(v6.ip().is_unicast_link_local()), *address),
    });
    addresses.truncate(ADDRESSES_MAX);
    addresses
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const OURS: MeshId = MeshId([7; 32]);

    fn id(number: u16) -> NodeId {
        let mut id = [1; 32];
        id[..2].copy_from_slice(&number.to_be_bytes());
        NodeId(id)
    }

    fn said(mesh: &str, node: &str, ips: &str, port: u16) -> ServiceEvent {
        let txt = [(MESH, mesh), (NODE, node)];
        let info = ServiceInfo::new(SERVICE, "name", "host.local.", ips, port, &txt[..]).unwrap();
        ServiceEvent::ServiceResolved(Box::new(info.as_resolved_service()))
    }

    fn ours() -> String {
        OURS.to_string()[..MESH_DIGITS].to_owned()
    }

    #[test]
    fn only_nodes_of_this_mesh_with_an_address_are_remembered() {
        let (mut places, now) = (Places::new(OURS, id(0)), Instant::now());
        let node = id(1).to_string();
        for (mesh, node, ips, port) in [
            ("0".repeat(MESH_DIGITS), node.clone(), "10.0.0.1", 9000),
            (String::new(), node.clone(), "10.0.0.1", 9000),
            (ours(), "no node".to_owned(), "10.0.0.1", 9000),
            (ours(), id(0).to_string(), "10.0.0.1", 9000),
            (ours(), node.clone(), "127.0.0.1", 9000),
            (ours(), node.clone(), "224.0.0.251", 9000),
            (ours(), node.clone(), "10.0.0.1", 0),
        ] {
            places.hear(now, said(&mesh, &node, ips, port));
            assert!(places.known.is_empty(), "{mesh} {node} {ips} {port}");
        }
        places.hear(now, said(&ours(), &node, "fd00::1,10.0.0.1", 9000));
        let (found, addresses) = places.take_due(now).unwrap();
        let expected: [SocketAddr; 2] =
            ["10.0.0.1:9000", "[fd00::1]:9000"].map(|a| a.parse().unwrap());
        assert_eq!((found, &addresses[..]), (id(1), &expected[..]));
    }

    #[test]
    fn a_place_is_tried_ever_less_often_and_believed_for_five_minutes() {
        let (mut places, start) = (Places::new(OURS, id(0)), Instant::now());
        let node = id(1).to_string();
        places.hear(start, said(&ours(), &node, "10.0.0.1", 9000));
        let (mut now, mut tried) = (start, Vec::new());
        while let Some(next) = places.next() {
            now = now.max(next);
            if places.take_due(now).is_some() {
                tried.push((now - start).as_secs());
            }
        }
        assert_eq!(tried, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);
        // Another address is another hope.
        places.hear(now, said(&ours(), &node, "10.0.0.1", 9000));
        assert!(places.take_due(now).is_some() && places.take_due(now).is_none());
        places.hear(now, said(&ours(), &node, "10.0.0.2", 9000));
        assert!(places.take_due(now).is_some());
    }

    #[test]
    fn a_flood_is_bounded_and_a_farewell_heard() {
        let (mut places, now) = (Places::new(OURS, id(0)), Instant::now());
        for number in 1..1_000 {
            let many = "10.0.0.1,10.0.0.2,10.0.0.3,10.0.0.4,10.0.0.5,10.0.0.6";
            places.hear(now, said(&ours(), &id(number).to_string(), many, 9000));
        }
        assert_eq!(places.known.len(), PLACES_MAX);
        let most = places.known.values().map(|place| place.addresses.len());
        assert_eq!(most.max(), Some(ADDRESSES_MAX));
        let fullname = format!("name.{SERVICE}");
        places.hear(now, ServiceEvent::ServiceRemoved(SERVICE.into(), fullname));
        assert!(places.known.is_empty());
    }
}
