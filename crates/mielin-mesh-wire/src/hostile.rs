//! Decoders that only this crate can reach, over the corpora of `fuzz/corpus` and mutations of them.
//! What others can reach is in `tests/fuzz`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use mielin_fuzz::{Seed, Target};
use mielin_mesh_core::limits::CODEC_BYTES_MAX;
use mielin_mesh_core::{Name, NodeId, NodeRole, codec};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::authority::{Issued, decode_tokens, encode_tokens};
use crate::certificate::{NodeCertificate, VerifiedRequest, make_request};
use crate::circuit::{MalformedPacket, PACKET_BYTES_MAX, split};
use crate::credentials::create_mesh;
use crate::dial_back::is_answer;
use crate::endpoint::{Endpoint, Features, Hello, Instance, Liveness};
use crate::exchange::{FromJoiner, FromMember, IssuerPlace, JoinRefusal};
use crate::identity::NodeKey;
use crate::joining::{JoinRequest, join};
use crate::peer::{Peer, WireEvent};
use crate::peers;
use crate::revoked;
use crate::stream::{Frame, FrameLimit, StreamError};

/// Certificates of nodes and requests for them.
const CERTIFICATE: Target = Target {
    name: "certificate",
    mutations: 5_000,
    fixed_bytes: 64 << 10,
    bytes_per_byte: 64,
    run: |der| {
        let certificate = NodeCertificate::check(der);
        let request = VerifiedRequest::check(der);
        assert!(certificate.is_err() || request.is_err(), "it is one thing");
        certificate.is_ok() || request.is_ok()
    },
    seeds: || {
        let dir = tempfile::tempdir().unwrap();
        let member = create_mesh(dir.path(), "first", NodeRole::Core).unwrap();
        let request = make_request(&NodeKey::generate().unwrap()).unwrap();
        let forged = {
            let mut request = request.clone();
            *request.last_mut().unwrap() ^= 1;
            request
        };
        vec![
            Seed::good("of-an-issuer", member.certificate()),
            Seed::good("request", request),
            Seed::bad("request-with-a-wrong-signature", forged),
            Seed::bad("root", member.root().der()),
        ]
    },
};

/// Packets on a circuit, as a relay or the node behind it may send them; and answers to a dial-back.
const CIRCUIT: Target = Target {
    name: "circuit",
    mutations: 20_000,
    fixed_bytes: 16 << 10,
    bytes_per_byte: 8,
    run: |bytes| {
        is_answer(bytes, &[1; 8], &[2; 8]);
        let whole = packets(bytes, bytes.len().max(1));
        // However the bytes arrive, the packets are the same.
        assert_eq!(whole, packets(bytes, 1));
        assert_eq!(whole, packets(bytes, 700));
        whole.is_ok_and(|packets| !packets.is_empty())
    },
    seeds: || {
        let two = [&[0, 3][..], b"abc", &[0, 1], b"d"].concat();
        let longest = [&[0x05, 0xc0][..], &[7; PACKET_BYTES_MAX]].concat();
        vec![
            Seed::good("two-packets", two.clone()),
            Seed::good("longest", longest.clone()),
            Seed::good("second-cut-off", &two[..6]),
            Seed::bad("cut-off", &longest[..100]),
            Seed::bad("too-long", [&[0x05, 0xc1][..], &[7; 1473]].concat()),
            Seed::bad("empty", [0, 0, 0, 1, 7]),
        ]
    },
};

/// The packets in bytes that arrive in pieces of this length.
fn packets(bytes: &[u8], piece: usize) -> Result<Vec<Bytes>, MalformedPacket> {
    let (mut buffer, mut packets) = (BytesMut::new(), Vec::new());
    for piece in bytes.chunks(piece) {
        buffer.extend_from_slice(piece);
        while let Some(packet) = split(&mut buffer)? {
            assert!((1..=PACKET_BYTES_MAX).contains(&packet.len()));
            packets.push(packet);
        }
        assert!(
            buffer.len() <= PACKET_BYTES_MAX + 2,
            "more is kept than is needed"
        );
    }
    Ok(packets)
}

/// What members tell each other first.
const HELLO: Target = Target {
    name: "hello",
    mutations: 20_000,
    fixed_bytes: 4096,
    bytes_per_byte: 8,
    run: |bytes| {
        let hello = Hello::decode(bytes);
        if let Ok(hello) = &hello {
            let again = hello.encode();
            assert!(bytes.starts_with(&again), "what is known comes first");
            assert_eq!(Hello::decode(&again).as_ref(), Ok(hello));
            assert!(hello.program.as_str().bytes().all(|b| b.is_ascii_graphic()));
        }
        hello.is_ok()
    },
    seeds: || {
        let hello = Hello::new(Features::all(), Instance([7; 8])).encode();
        let newer = [&hello[..], b"what is not known yet"].concat();
        let mut invisible = hello.clone();
        *invisible.last_mut().unwrap() = 0x1b;
        vec![
            Seed::bad("cut-off", &hello[..hello.len() - 1]),
            Seed::bad("too-long", [7; Hello::BYTES_MAX + 1]),
            Seed::bad("invisible-version", invisible),
            Seed::good("newer", newer),
            Seed::good("hello", hello),
        ]
    },
};

/// What joiners and members say: before either has proved anything.
const JOIN_MESSAGES: Target = Target {
    name: "join_messages",
    mutations: 20_000,
    fixed_bytes: CODEC_BYTES_MAX + (64 << 10),
    bytes_per_byte: 64,
    run: |bytes| {
        let (joiner, member) = (
            codec::decode::<FromJoiner>(bytes),
            codec::decode::<FromMember>(bytes),
        );
        if let Ok(FromJoiner::Ask { request, .. }) = &joiner {
            let _ = VerifiedRequest::check(request);
        }
        if let Ok(FromMember::Granted { certificate }) = &member {
            let _ = NodeCertificate::check(certificate);
        }
        comes_back(&joiner, bytes);
        comes_back(&member, bytes);
        joiner.is_ok() || member.is_ok()
    },
    seeds: || {
        let ask = FromJoiner::Ask {
            request: make_request(&NodeKey::generate().unwrap()).unwrap(),
            name: Name::new("joiner").unwrap(),
            role: Some(NodeRole::Edge),
            secret: Some([7; 32]),
        };
        let at = IssuerPlace::At {
            address: "[::1]:9000".into(),
        };
        let refused = JoinRefusal::Role {
            granted: NodeRole::Edge,
            requested: NodeRole::Core,
        };
        let hello = codec::encode(&FromJoiner::Hello { mesh: [1; 32] });
        vec![
            Seed::bad("hello-cut-off", &hello[..20]),
            Seed::good("hello", hello),
            Seed::good("ask", codec::encode(&ask)),
            Seed::good(
                "welcome",
                codec::encode(&FromMember::Welcome { issuer: at }),
            ),
            Seed::good("refused", codec::encode(&FromMember::Refused(refused))),
            Seed::bad(
                "claims-a-request-of-2-to-the-62",
                [1, 253, 0, 0, 0, 0, 0, 0, 0, 64],
            ),
        ]
    },
};

fn comes_back<T: oxicode::Encode + oxicode::Decode>(
    decoded: &Result<T, codec::CodecError>,
    bytes: &[u8],
) {
    let Ok(value) = decoded else { return };
    let again = codec::encode(value);
    assert!(again.len() <= bytes.len());
    let same = codec::decode::<T>(&again).map(|value| codec::encode(&value));
    assert_eq!(same, Ok(again));
}

/// The files of issued tokens, of remembered peers and of revocations.
const NODE_FILES: Target = Target {
    name: "node_files",
    mutations: 20_000,
    // What the codec's limit lets a length claim.
    fixed_bytes: CODEC_BYTES_MAX + 4096,
    bytes_per_byte: 64,
    run: |bytes| {
        let peers = peers::parse(bytes);
        let lines: String = peers
            .iter()
            .map(|(node, address)| format!("{node} {address}\n"))
            .collect();
        assert_eq!(peers::parse(lines.as_bytes()), peers);
        let tokens = decode_tokens(bytes);
        if let Some(tokens) = &tokens {
            assert_eq!(decode_tokens(&encode_tokens(tokens)).as_ref(), Some(tokens));
        }
        // Nearly everything can be read as one; whether the root has signed it is looked at next.
        let revocations = revoked::parse(bytes);
        let again: Vec<u8> = revocations.iter().flat_map(codec::encode).collect();
        assert_eq!(revoked::parse(&again), revocations);
        let names = revoked::parse_names(bytes);
        assert_eq!(
            revoked::parse_names(revoked::write_names(&names).as_bytes()),
            names
        );
        tokens.is_some() || !peers.is_empty()
    },
    seeds: || {
        let issued = |expires: u64, role, used_by: &[u8]| Issued {
            expires: SystemTime::UNIX_EPOCH + Duration::from_secs(expires),
            role,
            uses: 3,
            used_by: used_by.iter().map(|node| NodeId([*node; 32])).collect(),
        };
        let tokens = BTreeMap::from([
            ([1; 32], issued(1, None, &[])),
            ([2; 32], issued(1 << 62, Some(NodeRole::Core), &[3, 4])),
        ]);
        let mut damaged = encode_tokens(&tokens);
        // More have used it than may.
        damaged[44] = 4;
        let peers = format!(
            "{} 127.0.0.1:9000\n{} [::1%3]:1\n",
            NodeId([1; 32]),
            NodeId([2; 32])
        );
        vec![
            Seed::good("tokens", encode_tokens(&tokens)),
            Seed::good("no-tokens", []),
            Seed::good("peers", peers),
            Seed::bad("token-used-too-often", damaged),
        ]
    },
};

/// Frames on a stream: two endpoints on loopback, and a plain reading of the same bytes beside them.
const FRAMES: Target = Target {
    name: "frames",
    mutations: 300,
    // Buffers of the transport.
    fixed_bytes: 4 << 20,
    bytes_per_byte: 64,
    run: |bytes| {
        let Some((&[header, payload], raw)) = bytes.split_first_chunk::<2>() else {
            return false;
        };
        let limit = FrameLimit {
            header_bytes: header.into(),
            payload_bytes: usize::from(payload) * 16,
        };
        let (frames, end) = PAIR
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .carry(raw, limit);
        assert_eq!((frames, end), read_plainly(raw, limit));
        end == End::Whole
    },
    seeds: || {
        let frame = |header: &[u8], payload: &[u8]| {
            let lengths = [
                &(header.len() as u16).to_be_bytes()[..],
                &(payload.len() as u32).to_be_bytes(),
            ];
            [&lengths.concat(), header, payload].concat()
        };
        let two = [frame(b"header", &[1; 100]), frame(b"", b"")].concat();
        let limits: &[u8] = &[10, 10];
        let of = |raw: &[u8]| [limits, raw].concat();
        vec![
            Seed::good("two-frames", of(&two)),
            Seed::good("nothing", limits),
            Seed::bad("cut-off", of(&two[..50])),
            Seed::bad("long-header", of(&frame(&[0; 11], b""))),
            Seed::bad("claims-4-gib", of(&[0, 0, 0xff, 0xff, 0xff, 0xff, 1])),
        ]
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    Truncated,
    Oversized,
}

fn read_plainly(mut raw: &[u8], limit: FrameLimit) -> (Vec<Frame>, End) {
    let mut frames = Vec::new();
    loop {
        if raw.is_empty() {
            return (frames, End::Whole);
        }
        let Some((&[h0, h1, p0, p1, p2, p3], rest)) = raw.split_first_chunk::<6>() else {
            return (frames, End::Truncated);
        };
        let header = usize::from(u16::from_be_bytes([h0, h1]));
        let payload = u32::from_be_bytes([p0, p1, p2, p3]) as usize;
        if header > limit.header_bytes.into() || payload > limit.payload_bytes {
            return (frames, End::Oversized);
        }
        let Some((content, rest)) = rest.split_at_checked(header + payload) else {
            return (frames, End::Truncated);
        };
        frames.push(Frame {
            header: Bytes::copy_from_slice(&content[..header]),
            payload: Bytes::copy_from_slice(&content[header..]),
        });
        raw = rest;
    }
}

static PAIR: LazyLock<Mutex<Pair>> = LazyLock::new(|| Mutex::new(Pair::new()));

/// Two members of a mesh that are connected.
struct Pair {
    runtime: Runtime,
    peer: Peer,
    arriving: mpsc::Receiver<WireEvent>,
    _kept: (Endpoint, Endpoint, mpsc::Receiver<WireEvent>, [TempDir; 2]),
}

impl Pair {
    fn new() -> Pair {
        const LIVENESS: Liveness = Liveness {
            idle: Duration::from_secs(600),
            keep_alive: Duration::from_secs(60),
            unused: Duration::from_secs(300),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (peer, arriving, kept) = runtime.block_on(async {
            let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
            let bind = async |credentials, liveness| {
                let any = "127.0.0.1:0".parse().unwrap();
                let bound = Endpoint::bind(any, credentials, liveness, Features::NONE).await;
                bound.unwrap()
            };
            let first = create_mesh(dirs[0].path(), "first", NodeRole::Core).unwrap();
            let hour = Duration::from_secs(3600);
            let token = first.authority().unwrap().issue_token(None, hour).unwrap();
            let (here, events) = bind(&first, LIVENESS).await;
            let request = JoinRequest {
                address: here.local_address(),
                token: Some(token),
                name: "second".into(),
                role: NodeRole::Edge,
            };
            let second = join(dirs[1].path(), request, |_| {}).await.unwrap();
            let (there, arriving) = bind(&second, LIVENESS).await;
            let peer = here.connect(&second.id(), there.local_address()).await;
            (peer.unwrap(), arriving, (here, there, events, dirs))
        });
        Pair {
            runtime,
            peer,
            arriving,
            _kept: kept,
        }
    }

    /// Writes the bytes into a stream and reads frames at its other end.
    fn carry(&mut self, raw: &[u8], limit: FrameLimit) -> (Vec<Frame>, End) {
        let (peer, arriving) = (&self.peer, &mut self.arriving);
        self.runtime.block_on(async {
            let mut stream = peer.open(100).await.unwrap();
            let writing = async {
                // The reader may have had enough of it.
                let _ = stream.write_all(raw).await;
                let _ = stream.finish();
            };
            let reading = async {
                let mut seen = loop {
                    if let Some(WireEvent::Stream(incoming)) = arriving.recv().await {
                        break incoming;
                    }
                };
                let mut frames = Vec::new();
                let end = loop {
                    match seen.stream.recv_frame(limit).await {
                        Ok(Some(frame)) => frames.push(frame),
                        Ok(None) => break End::Whole,
                        Err(StreamError::Truncated) => break End::Truncated,
                        Err(StreamError::Oversized { .. }) => break End::Oversized,
                        Err(other) => panic!("{other}"),
                    }
                };
                (frames, end)
            };
            tokio::join!(writing, reading).1
        })
    }
}

#[test]
fn certificate() {
    CERTIFICATE.replay();
}

#[test]
fn circuit() {
    CIRCUIT.replay();
}

#[test]
fn frames() {
    // Founding a mesh and joining it is no part of what is measured.
    LazyLock::force(&PAIR);
    FRAMES.replay();
}

#[test]
fn hello() {
    HELLO.replay();
}

#[test]
fn join_messages() {
    JOIN_MESSAGES.replay();
}

#[test]
fn node_files() {
    NODE_FILES.replay();
}
