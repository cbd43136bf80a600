//! Every type that crosses the wire by itself: what is decoded is equal to itself after another
//! journey, and not longer.
#![allow(clippy::unwrap_used)]

use core::fmt::Debug;
use core::net::SocketAddr;

use bytes::Bytes;
use mielin_fuzz::{Seed, Target};
use mielin_mesh_core::delivery::{DeliveryReply, Envelope, MessageKind};
use mielin_mesh_core::limits::CODEC_BYTES_MAX;
use mielin_mesh_core::migration::{Query, QueryReply, RollbackReason};
use mielin_mesh_core::reach::{CircuitAnswer, CircuitRefusal, CircuitRequest};
use mielin_mesh_core::{
    AgentId, AgentState, Departure, Epoch, Identity, LocationRecord, MigrationFrame, Name, NodeId,
    NodeRole, codec,
};
use oxicode::{Decode, Encode};

pub(crate) const TARGET: Target = Target {
    name: "wire_types",
    mutations: 40_000,
    // What the codec's limit lets a length claim, before the bytes turn out not to be there.
    fixed_bytes: CODEC_BYTES_MAX + 4096,
    bytes_per_byte: 16,
    run,
    seeds,
};

/// The first byte says as what the others are decoded.
const RECORD: u8 = 0;
const FRAME: u8 = 1;
const IDENTITY: u8 = 2;
const ENVELOPE: u8 = 3;
const REPLY: u8 = 4;
const QUERY: u8 = 5;
const ANSWER: u8 = 6;
const STATE: u8 = 7;
const CIRCUIT: u8 = 8;
const CIRCUIT_ANSWER: u8 = 9;

fn run(bytes: &[u8]) -> bool {
    let Some((kind, bytes)) = bytes.split_first() else {
        return false;
    };
    match *kind {
        RECORD => comes_back::<LocationRecord>(bytes),
        FRAME => {
            if let Ok((frame, tail)) = MigrationFrame::decode(bytes) {
                let again = [frame.encode(), tail.to_vec()].concat();
                assert_eq!(MigrationFrame::decode(&again), Ok((frame, tail)));
            }
            comes_back::<MigrationFrame>(bytes)
        }
        IDENTITY => comes_back::<Identity>(bytes),
        ENVELOPE => {
            let decoded = Envelope::decode(&Bytes::copy_from_slice(bytes));
            if let Ok(envelope) = &decoded {
                let again = Bytes::from(envelope.encode());
                assert_eq!(Envelope::decode(&again).as_ref(), Ok(envelope));
            }
            decoded.is_ok()
        }
        REPLY => comes_back::<DeliveryReply>(bytes),
        QUERY => comes_back::<Query>(bytes),
        ANSWER => comes_back::<QueryReply>(bytes),
        STATE => comes_back::<AgentState>(bytes),
        CIRCUIT => comes_back::<CircuitRequest>(bytes),
        CIRCUIT_ANSWER => comes_back::<CircuitAnswer>(bytes),
        _ => false,
    }
}

fn comes_back<T: Encode + Decode + PartialEq + Debug>(bytes: &[u8]) -> bool {
    let Ok(value) = codec::decode::<T>(bytes) else {
        return false;
    };
    let again = codec::encode(&value);
    assert!(again.len() <= bytes.len(), "{value:?}");
    assert_eq!(codec::decode::<T>(&again), Ok(value));
    true
}

fn seeds() -> Vec<Seed> {
    let (agent, node, epoch) = (AgentId([1; 16]), NodeId([2; 32]), Epoch(300));
    let name = Name::new("näme").unwrap();
    let of = |kind: u8, bytes: Vec<u8>| [vec![kind], bytes].concat();
    let record = LocationRecord {
        agent,
        name: name.clone(),
        module: [3; 32],
        owner: node,
        node,
        epoch,
        revision: 70_000,
        started_ms: 1 << 40,
        state: AgentState::Ended { exit_code: -1 },
    };
    let identity = Identity {
        id: node,
        name,
        role: NodeRole::Relay,
        address: "[fe80::1]:9000".parse().unwrap(),
        generation: u64::MAX,
        departed: Some(Departure::Left),
        revision: 2,
        relays: vec![NodeId([9; 32])],
    };
    let envelope = Envelope {
        source: agent,
        source_epoch: epoch,
        destination: AgentId([4; 16]),
        sequence: 5,
        kind: MessageKind::Reply { to_sequence: 6 },
        payload: Bytes::from_static(b"payload"),
    };
    let abort = MigrationFrame::Abort {
        reason: RollbackReason::TargetFailed("why".into()),
    };
    let connect = CircuitRequest::Connect { destination: node };
    let claimed: SocketAddr = "10.0.0.1:9000".parse().unwrap();
    let dial_back = CircuitRequest::DialBack(claimed.into());
    let full = CircuitAnswer::Refused(CircuitRefusal::Full);
    let mut claims = codec::encode(&record);
    // The name's length stands behind the agent's id.
    claims.splice(16..17, [253, 0, 0, 0, 0, 0, 0, 0, 16]);
    vec![
        Seed::good("record", of(RECORD, codec::encode(&record))),
        Seed::good("frame-abort", of(FRAME, abort.encode())),
        Seed::good("identity-v6", of(IDENTITY, codec::encode(&identity))),
        Seed::good("envelope", of(ENVELOPE, envelope.encode())),
        Seed::good(
            "reply-moved",
            of(REPLY, codec::encode(&DeliveryReply::Moved { node, epoch })),
        ),
        Seed::good("query", of(QUERY, codec::encode(&Query { agent, epoch }))),
        Seed::good(
            "answer",
            of(ANSWER, codec::encode(&QueryReply::NotHere { last: epoch })),
        ),
        Seed::good("circuit", of(CIRCUIT, codec::encode(&connect))),
        Seed::good("dial-back", of(CIRCUIT, codec::encode(&dial_back))),
        Seed::good("circuit-refused", of(CIRCUIT_ANSWER, codec::encode(&full))),
        Seed::good("state", of(STATE, codec::encode(&AgentState::Running))),
        Seed::bad("record-with-a-name-of-2-to-the-60", of(RECORD, claims)),
    ]
}
