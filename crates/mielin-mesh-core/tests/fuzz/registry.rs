//! Pages of agents and queries for them: a peer speaks for the agents that it holds, and for no others.
#![allow(clippy::unwrap_used)]

use core::time::Duration;

use mielin_fuzz::{Seed, Steps, Target};
use mielin_mesh_core::limits::{CODEC_BYTES_MAX, REGISTRY_RECORDS_PER_NODE_MAX};
use mielin_mesh_core::registry::{AgentListing, AgentPage, AgentQuery, Prefix, Verify};
use mielin_mesh_core::{
    AgentId, AgentRegistry, AgentState, Epoch, Identity, Instant, LocationRecord, Member,
    MemberState, Name, NodeId, NodeRole, RegistryEvent,
};

pub(crate) const TARGET: Target = Target {
    name: "registry",
    mutations: 6_000,
    // What the codec's limit lets a length claim.
    fixed_bytes: CODEC_BYTES_MAX + (64 << 10),
    bytes_per_byte: 256,
    run,
    seeds,
};

/// No signature is right here: what a peer says of others is never believed.
#[derive(PartialEq)]
enum Nobody {}

impl Verify for Nobody {
    fn verify(_: &[u8; 32], _: &[u8], _: &[u8; 64]) -> bool {
        false
    }
}

type Page = AgentPage<Nobody>;

const LOCAL: NodeId = NodeId([0; 32]);
/// The agent that this node holds all the time, in this epoch.
const OWN: AgentId = AgentId([7; 16]);
const EPOCH: Epoch = Epoch(5);

/// An answer of the node whose number stands in the upper four bits of the step's.
const PAGE: u8 = 0;
/// Time passes: as many tens of seconds as there are bytes.
const TIME: u8 = 1;
/// A member appears, in the generation that is the number of bytes.
const APPEARS: u8 = 2;
/// A member dies.
const DIES: u8 = 3;
/// A query of a node.
const QUERY: u8 = 4;

const STEPS_MAX: usize = 64;

fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

fn record(agent: u8, holder: u8, epoch: u64) -> LocationRecord {
    LocationRecord {
        agent: AgentId([agent; 16]),
        name: Name::new("agent").unwrap(),
        module: [2; 32],
        owner: node(holder),
        node: node(holder),
        epoch: Epoch(epoch),
        revision: 1,
        started_ms: 2,
        state: AgentState::Running,
    }
}

fn member(number: u8, generation: u64, state: MemberState) -> Member {
    Member {
        identity: Identity {
            id: node(number),
            name: Name::new("member").unwrap(),
            role: NodeRole::Edge,
            address: ([127, 0, 0, 1], 9000).into(),
            generation,
            departed: None,
            revision: 0,
            relays: Vec::new(),
        },
        state,
        since: Instant::START,
    }
}

fn run(input: &[u8]) -> bool {
    let mut registry = AgentRegistry::new(LOCAL);
    let (mut now, mut understood, mut held) = (Instant::START, false, true);
    registry
        .announce(now, record(OWN.0[0], 0, EPOCH.0))
        .unwrap();
    for (kind, bytes) in Steps::new(input).take(STEPS_MAX) {
        // The node itself is no peer.
        let from = (kind >> 4).max(1);
        match kind & 15 {
            PAGE => {
                if let Ok(page) = Page::decode(&AgentQuery::default(), bytes) {
                    understood = true;
                    take(&mut registry, now, from, page);
                }
            }
            QUERY => {
                if let Ok(query) = AgentQuery::decode(bytes) {
                    understood = true;
                    let page: Page = registry.page(&query, [].into_iter());
                    Page::decode(&query, &page.encode()).unwrap();
                }
            }
            TIME => {
                now = now + Duration::from_secs(10) * bytes.len() as u32;
                registry.handle_timeout(now);
            }
            APPEARS => {
                let appeared = member(from, bytes.len() as u64, MemberState::Alive);
                registry.member_changed(&appeared);
            }
            DIES => registry.member_changed(&member(from, 0, MemberState::Dead)),
            _ => {}
        }
        while let Some(event) = registry.poll_event() {
            if let RegistryEvent::Fenced { agent, ours, by } = event {
                assert_eq!((agent, ours), (OWN, EPOCH));
                assert!(by.epoch > EPOCH && by.node != LOCAL);
                held = false;
            }
        }
        holds(&registry, held);
    }
    understood
}

/// What a peer says is listed, and found.
fn take(registry: &mut AgentRegistry, now: Instant, from: u8, page: Page) {
    let mut listing = AgentListing::default();
    listing.add(node(from), page);
    for location in listing.finish(registry, &Prefix::default()) {
        let record = location.record;
        assert!(record.state != AgentState::Removed);
        let known = registry.locate(&record.agent).map(|l| l.record.node);
        assert!(record.node == node(from) || known == Some(record.node));
        registry.learn(now, record);
    }
}

fn holds(registry: &AgentRegistry, held: bool) {
    let mut here = 0;
    for location in registry.iter() {
        let agent = &location.record.agent;
        assert_eq!(registry.locate(agent), Some(location));
        if location.record.node == LOCAL {
            assert_eq!(*agent, OWN, "nobody gives this node agents");
            here += 1;
        }
    }
    assert_eq!(here == 1, held, "its own agent stays until it is fenced");
    assert!(registry.iter().count() <= 16 * REGISTRY_RECORDS_PER_NODE_MAX);
}

/// What a peer answers that holds these agents.
fn said_by(number: u8, records: Vec<LocationRecord>) -> Vec<u8> {
    let mut peer = AgentRegistry::new(node(number));
    for record in records {
        peer.announce(Instant::START, record).unwrap();
    }
    let page: Page = peer.page(&AgentQuery::default(), [].into_iter());
    page.encode()
}

fn seeds() -> Vec<Seed> {
    let peer = |number: u8, kind: u8| number << 4 | kind;
    let two = said_by(1, vec![record(1, 1, 1), record(2, 1, u64::MAX)]);
    let fences = said_by(2, vec![record(OWN.0[0], 2, EPOCH.0 + 1)]);
    let stale = said_by(2, vec![record(OWN.0[0], 2, EPOCH.0)]);
    let query = AgentQuery {
        prefix: Prefix::new("07").unwrap(),
        after: Some(AgentId([1; 16])),
    };
    let query = query.encode();
    let mut steps = vec![(peer(1, APPEARS), &[0][..]), (peer(1, PAGE), &two)];
    let page = Steps::write(&steps);
    steps.extend([
        (peer(1, APPEARS), &[0, 0][..]),
        (TIME, &[0; 30][..]),
        (peer(1, DIES), &[]),
        (TIME, &[0; 61][..]),
    ]);
    let whole_life = Steps::write(&steps);
    let moves_on = [
        (peer(1, PAGE), two.as_slice()),
        (peer(2, PAGE), stale.as_slice()),
        (peer(2, PAGE), fences.as_slice()),
        (TIME, &[0; 61][..]),
    ];
    vec![
        Seed::good("page", page),
        Seed::good("renewed-dead-and-expired", whole_life),
        Seed::good("fenced", Steps::write(&moves_on)),
        Seed::good("query", Steps::write(&[(peer(3, QUERY), &query)])),
        Seed::bad(
            "claims-2-to-the-62-records",
            Steps::write(&[(peer(1, PAGE), &[253, 0, 0, 0, 0, 0, 0, 0, 64])]),
        ),
    ]
}
