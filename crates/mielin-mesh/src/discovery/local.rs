//! Members on the same link, found without knowing an address: multicast DNS
//! (RFC 6762) and DNS-based service discovery (RFC 6763). `link` speaks it on
//! the links of the machine, `loopback` among the nodes of one machine that are
//! bound to loopback addresses.
//!
//! A node says under [`SERVICE`] where it listens, of which mesh and which node
//! it is. What is heard is a hint that anybody can send: a bounded number of
//! places is remembered, no place keeps another waiting for long, and who is
//! there proves itself as everywhere.

mod link;
mod loopback;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mielin_mesh_core::NodeId;
use mielin_mesh_wire::{MeshId, WireError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

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
/// Places that are contacted at a time, and how long an address may take: it is on the link.
const CONTACTS_MAX: usize = 8;
const ADDRESS_LIMIT: Duration = Duration::from_secs(2);
/// Between the end of an attempt to reach a place and the next one.
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
    /// Attempts since somebody answered there.
    failed: u32,
    contacted: bool,
}

/// What came of an attempt to reach a node.
struct Contact {
    node: NodeId,
    addresses: Vec<SocketAddr>,
    reached: bool,
    errors: Vec<(SocketAddr, WireError)>,
}

async fn search(shared: &Arc<Shared>, mut told: mpsc::Receiver<Heard>) {
    let mut places = Places::new(shared.mesh, shared.local.id);
    let mut complaints = Complaints::default();
    let mut contacts = JoinSet::new();
    loop {
        let next = places.next().filter(|_| contacts.len() < CONTACTS_MAX);
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
            Some(ended) = contacts.join_next() => {
                if let Ok(contact) = ended {
                    let contact: Contact = contact;
                    places.end(Instant::now(), &contact);
                    for (address, error) in contact.errors {
                        complaints.hear(address.to_string(), &error);
                    }
                }
            }
            () = due => {
                if let Some((node, addresses)) = places.take_due(Instant::now()) {
                    contacts.spawn(contact(Arc::clone(shared), node, addresses));
                }
            }
        }
    }
}

async fn contact(shared: Arc<Shared>, node: NodeId, addresses: Vec<SocketAddr>) -> Contact {
    let mut errors = Vec::new();
    let reached = reach(&shared, &node, &addresses, &mut errors).await;
    Contact {
        node,
        addresses,
        reached,
        errors,
    }
}

/// Whether the node is known already, or answered.
async fn reach(
    shared: &Arc<Shared>,
    node: &NodeId,
    addresses: &[SocketAddr],
    errors: &mut Vec<(SocketAddr, WireError)>,
) -> bool {
    let known = shared.cores().membership.member(node);
    if known.is_some_and(|member| member.state.is_active()) {
        return true;
    }
    if shared.endpoint.is_revoked(node) {
        return false;
    }
    for &address in addresses {
        // The pauses between attempts are made here.
        shared.endpoint.hurry(node);
        let connecting = shared.endpoint.connect(node, address);
        let limit = ADDRESS_LIMIT;
        let outcome = timeout(limit, connecting).await;
        let outcome = outcome.unwrap_or(Err(WireError::Timeout { address, limit }));
        match announce(shared, address, outcome).await {
            Ok(()) => return true,
            Err(error) => errors.push((address, error)),
        }
    }
    false
}

/// The places that were heard of.
struct Places {
    mesh: String,
    local: NodeId,
    known: BTreeMap<NodeId, Place>,
    /// Whether the place that failed least is next, or the one that waits longest.
    hopeful: bool,
}

impl Places {
    fn new(mesh: MeshId, local: NodeId) -> Places {
        Places {
            mesh: mesh.to_string()[..MESH_DIGITS].to_owned(),
            local,
            known: BTreeMap::new(),
            hopeful: true,
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
        if node == self.local || addresses.is_empty() {
            return;
        }
        let full = self.known.len() >= PLACES_MAX && !self.known.contains_key(&node);
        if full && !self.forget_one() {
            return;
        }
        let place = self.known.entry(node).or_insert(Place {
            addresses: Vec::new(),
            fullname,
            heard: now,
            next: now,
            pause: PAUSE_MIN,
            failed: 0,
            contacted: false,
        });
        if place.addresses != addresses {
            (place.next, place.pause) = (now, PAUSE_MIN);
        }
        (place.addresses, place.heard) = (addresses, now);
    }

    /// Makes room where attempts have failed, most often first.
    fn forget_one(&mut self) -> bool {
        let failed = self.known.iter().filter(|(_, place)| place.failed > 0);
        let most = failed.max_by_key(|(_, place)| place.failed);
        let Some((&node, _)) = most else {
            return false;
        };
        self.known.remove(&node).is_some()
    }

    /// When the next attempt is due.
    fn next(&self) -> Option<Instant> {
        let waiting = self.known.values().filter(|place| !place.contacted);
        waiting.map(|place| place.next).min()
    }

    /// A place that is due, if it is still believed. By turns the one that failed least and the one that waits longest:
    /// so neither many others nor ever new ones keep a place waiting.
    fn take_due(&mut self, now: Instant) -> Option<(NodeId, Vec<SocketAddr>)> {
        self.known.retain(|_, place| place.heard + CACHE > now);
        let hopeful = self.hopeful;
        let waiting = self.known.iter_mut();
        let waiting = waiting.filter(|(_, place)| !place.contacted && place.next <= now);
        let (node, place) = waiting.min_by_key(|(_, place)| match hopeful {
            true => (place.failed, place.next),
            false => (0, place.next),
        })?;
        place.contacted = true;
        self.hopeful = !hopeful;
        Some((*node, place.addresses.clone()))
    }

    /// Ends an attempt; the pause begins now.
    fn end(&mut self, now: Instant, contact: &Contact) {
        let Some(place) = self.known.get_mut(&contact.node) else {
            return;
        };
        place.contacted = false;
        place.failed = match contact.reached {
            true => 0,
            false => place.failed.saturating_add(1),
        };
        // Another address was heard meanwhile: that is due.
        if place.addresses == contact.addresses {
            place.next = now + place.pause;
            place.pause = (place.pause * 2).min(PAUSE_MAX);
        }
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

    fn here(node: u16, ip: &str) -> Heard {
        said(&ours(), &id(node).to_string(), &[ip])
    }

    /// An attempt at a place where nobody answers.
    fn silent((node, addresses): (NodeId, Vec<SocketAddr>)) -> Contact {
        Contact {
            node,
            addresses,
            reached: false,
            errors: Vec::new(),
        }
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
        places.hear(start, here(1, "10.0.0.1"));
        let (mut now, mut tried) = (start, Vec::new());
        while let Some(next) = places.next() {
            now = now.max(next);
            if let Some(taken) = places.take_due(now) {
                tried.push((now - start).as_secs());
                assert!(places.next().is_none() && places.take_due(now).is_none());
                now += Duration::from_secs(2);
                places.end(now, &silent(taken));
            }
        }
        // Two seconds each, and then the pause.
        assert_eq!(tried, [0, 3, 7, 13, 23, 41, 75, 137, 199, 261]);
        // Another address is another hope, also while the first is tried.
        places.hear(now, here(1, "10.0.0.1"));
        let taken = places.take_due(now).unwrap();
        places.hear(now, here(1, "10.0.0.2"));
        assert!(places.take_due(now).is_none());
        places.end(now, &silent(taken));
        let (_, addresses) = places.take_due(now).unwrap();
        assert_eq!(addresses, ["10.0.0.2:9000".parse().unwrap()]);
    }

    /// When each node is tried within the given seconds, by number: every attempt takes eight seconds and fails.
    fn attempts(fakes: u16, seconds: u64, mut tell: impl FnMut(u64) -> Vec<Heard>) -> Vec<u64> {
        let (mut places, start) = (Places::new(OURS, id(0)), Instant::now());
        let real = fakes + 1;
        for number in 1..=real {
            places.hear(start, here(number, "10.0.0.1"));
        }
        let (mut contacts, mut tried) = (Vec::new(), Vec::new());
        for second in 0..seconds {
            let now = start + Duration::from_secs(second);
            for heard in tell(second) {
                places.hear(now, heard);
            }
            contacts.retain(|(end, contact)| {
                let over = *end <= second;
                if over {
                    places.end(now, contact);
                }
                !over
            });
            while contacts.len() < CONTACTS_MAX {
                let Some(taken) = places.take_due(now) else {
                    break;
                };
                if taken.0 == id(real) {
                    tried.push(second);
                }
                contacts.push((second + 8, silent(taken)));
            }
        }
        tried
    }

    #[test]
    fn many_where_nobody_answers_do_not_keep_another_waiting() {
        // The ids of those are lower.
        for fakes in [6, 40, 200] {
            let tried = attempts(fakes, 290, |_| Vec::new());
            let round = u64::from(fakes).div_ceil(CONTACTS_MAX as u64) * 8;
            assert!(tried[0] <= round, "{fakes}: {tried:?}");
            let often = 290 / (round + 60);
            assert!(tried.len() as u64 >= often, "{fakes}: {tried:?}");
        }
    }

    #[test]
    fn ever_new_ones_leave_turns_to_those_that_failed() {
        let tried = attempts(6, 290, |second| {
            let fresh = (0..2).map(|n| 1_000 + 2 * second as u16 + n);
            fresh.map(|number| here(number, "10.0.0.9")).collect()
        });
        assert!(tried.len() > 2, "{tried:?}");
    }

    #[test]
    fn where_attempts_failed_most_gives_way_to_a_new_place() {
        let (mut places, now) = (Places::new(OURS, id(0)), Instant::now());
        let full = 1..=PLACES_MAX as u16;
        for number in full.clone() {
            places.hear(now, here(number, "10.0.0.1"));
        }
        let new = PLACES_MAX as u16 + 1;
        places.hear(now, here(new, "10.0.0.1"));
        assert!(!places.known.contains_key(&id(new)), "nobody has failed");
        let taken = places.take_due(now).unwrap();
        let failed = taken.0;
        places.end(now, &silent(taken));
        let taken = places.take_due(now).unwrap();
        let reached = Contact {
            reached: true,
            ..silent(taken)
        };
        places.end(now, &reached);
        places.hear(now, here(new, "10.0.0.1"));
        assert_eq!(places.known.len(), PLACES_MAX);
        let missing = full.filter(|number| !places.known.contains_key(&id(*number)));
        assert_eq!(missing.map(id).collect::<Vec<_>>(), [failed]);
        assert!(places.known.contains_key(&id(new)));
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
