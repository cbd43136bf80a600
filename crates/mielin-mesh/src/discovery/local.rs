//! Members on the same link, found without knowing an address: multicast DNS
//! (RFC 6762) and DNS-based service discovery (RFC 6763). `link` speaks it on
//! the links of the machine, `loopback` among the nodes of one machine that are
//! bound to loopback addresses.
//!
//! A node says under [`SERVICE`] where it listens, of which mesh and which node
//! it is. What is heard is a hint that anybody can send: a bounded number of
//! places is remembered, and who is there proves itself as everywhere.

mod link;
mod loopback;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mielin_mesh_core::NodeId;
use mielin_mesh_wire::MeshId;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use self::link::LocalDiscovery;
use self::loopback::Loopback;
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

/// What a node says of itself.
struct Service {
    bound: SocketAddr,
    /// The beginning of the mesh's id.
    mesh: String,
    node: String,
}

impl Service {
    fn new(bound: SocketAddr, mesh: MeshId, node: NodeId) -> Service {
        let mesh = mesh.to_string()[..MESH_DIGITS].to_owned();
        let node = node.to_string();
        Service { bound, mesh, node }
    }

    /// The name of this instance of the service.
    fn name(&self) -> &str {
        &self.node[..32]
    }
}

/// What is said about a node, by anybody.
#[derive(Debug)]
enum Heard {
    Here {
        fullname: String,
        mesh: String,
        node: String,
        addresses: Vec<SocketAddr>,
    },
    Gone {
        fullname: String,
    },
}

/// Takes part until the service ends.
pub(crate) async fn run(shared: Arc<Shared>) {
    let bound = shared.endpoint.local_address();
    let service = Service::new(bound, shared.mesh, shared.local.id);
    let outcome = if bound.ip().is_loopback() {
        on_loopback(&shared, &service).await
    } else {
        on_links(&shared, &service).await
    };
    if let Err(error) = outcome {
        tracing::warn!(error, "nodes on the same link are not found by themselves");
    }
}

async fn on_loopback(shared: &Arc<Shared>, service: &Service) -> Result<(), String> {
    let loopback = Loopback::start(service).map_err(|error| error.to_string())?;
    let (tell, told) = mpsc::channel(EVENTS_MAX);
    let mut closing = shared.closing.subscribe();
    tokio::select! {
        () = loopback.run(tell) => {}
        () = search(shared, told) => {}
        _ = closing.wait_for(|closing| *closing) => {}
    }
    loopback.close().await;
    Ok(())
}

async fn on_links(shared: &Arc<Shared>, service: &Service) -> Result<(), String> {
    let (local, events) = LocalDiscovery::start(service).map_err(|error| error.to_string())?;
    let (tell, told) = mpsc::channel(EVENTS_MAX);
    // Ends when the daemon does.
    std::thread::spawn(move || link::listen(&events, &tell));
    let mut closing = shared.closing.subscribe();
    tokio::select! {
        () = search(shared, told) => {}
        _ = closing.wait_for(|closing| *closing) => {}
    }
    let _ = tokio::task::spawn_blocking(move || local.close()).await;
    Ok(())
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

async fn search(shared: &Arc<Shared>, mut told: mpsc::Receiver<Heard>) {
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
        // The pauses between attempts are made here.
        shared.endpoint.hurry(node);
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

    fn hear(&mut self, now: Instant, heard: Heard) {
        match heard {
            Heard::Here {
                fullname,
                mesh,
                node,
                addresses,
            } if mesh == self.mesh => {
                if let Ok(node) = node.parse() {
                    self.add(now, node, fullname, addresses);
                }
            }
            Heard::Here { .. } => {}
            Heard::Gone { fullname } => {
                self.known.retain(|_, place| place.fullname != fullname);
            }
        }
    }

    fn add(&mut self, now: Instant, node: NodeId, fullname: String, addresses: Vec<SocketAddr>) {
        self.known.retain(|_, place| place.heard + CACHE > now);
        let full = self.known.len() >= PLACES_MAX && !self.known.contains_key(&node);
        if node == self.local || full || addresses.is_empty() {
            return;
        }
        let place = self.known.entry(node).or_insert(Place {
            addresses: Vec::new(),
            fullname,
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

    fn said(mesh: &str, node: &str, ips: &[&str]) -> Heard {
        let address = |ip: &&str| SocketAddr::new(ip.parse().unwrap(), 9000);
        Heard::Here {
            fullname: "name".to_owned(),
            mesh: mesh.to_owned(),
            node: node.to_owned(),
            addresses: ips.iter().map(address).collect(),
        }
    }

    fn ours() -> String {
        OURS.to_string()[..MESH_DIGITS].to_owned()
    }

    #[test]
    fn only_nodes_of_this_mesh_with_an_address_are_remembered() {
        let (mut places, now) = (Places::new(OURS, id(0)), Instant::now());
        let node = id(1).to_string();
        for (mesh, node, ips) in [
            ("0".repeat(MESH_DIGITS), node.clone(), &["10.0.0.1"][..]),
            (String::new(), node.clone(), &["10.0.0.1"]),
            (ours(), "no node".to_owned(), &["10.0.0.1"]),
            (ours(), id(0).to_string(), &["10.0.0.1"]),
            (ours(), node.clone(), &[]),
        ] {
            places.hear(now, said(&mesh, &node, ips));
            assert!(places.known.is_empty(), "{mesh} {node} {ips:?}");
        }
        places.hear(now, said(&ours(), &node, &["10.0.0.1", "fd00::1"]));
        let (found, addresses) = places.take_due(now).unwrap();
        let expected: [SocketAddr; 2] =
            ["10.0.0.1:9000", "[fd00::1]:9000"].map(|a| a.parse().unwrap());
        assert_eq!((found, &addresses[..]), (id(1), &expected[..]));
    }

    #[test]
    fn a_place_is_tried_ever_less_often_and_believed_for_five_minutes() {
        let (mut places, start) = (Places::new(OURS, id(0)), Instant::now());
        let node = id(1).to_string();
        places.hear(start, said(&ours(), &node, &["10.0.0.1"]));
        let (mut now, mut tried) = (start, Vec::new());
        while let Some(next) = places.next() {
            now = now.max(next);
            if places.take_due(now).is_some() {
                tried.push((now - start).as_secs());
            }
        }
        assert_eq!(tried, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);
        // Another address is another hope.
        places.hear(now, said(&ours(), &node, &["10.0.0.1"]));
        assert!(places.take_due(now).is_some() && places.take_due(now).is_none());
        places.hear(now, said(&ours(), &node, &["10.0.0.2"]));
        assert!(places.take_due(now).is_some());
    }

    #[test]
    fn a_flood_is_bounded_and_a_farewell_heard() {
        let (mut places, now) = (Places::new(OURS, id(0)), Instant::now());
        for number in 1..1_000 {
            let heard = said(&ours(), &id(number).to_string(), &["10.0.0.1"]);
            places.hear(now, heard);
        }
        assert_eq!(places.known.len(), PLACES_MAX);
        let fullname = "name".to_owned();
        places.hear(now, Heard::Gone { fullname });
        assert!(places.known.is_empty());
    }
}
