mod attacks;
mod backoff;
mod circuits;
mod classes;
mod copy;
mod frames;
mod hello;
mod paths;
mod pool;

use bytes::Bytes;
use mielin_mesh_core::NodeRole;
use mielin_mesh_core::limits::PAYLOAD_BYTES_MAX;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use std::future::poll_fn;
use std::io;
use std::net::TcpListener as StdTcpListener;

use super::transport::client_config;
use super::*;
use crate::certificate::{
    RootCertificate, VerifiedRequest, issue_for_names, make_request, make_root,
};
use crate::credentials::create_mesh;
use crate::identity::NodeKey;
use crate::joining::{JoinError, JoinRequest, join};
use crate::stream::{FrameLimit, StreamError};
use crate::tls::ALPN_MESH;
use crate::token::JoinToken;

const DEADLINE: Duration = Duration::from_secs(30);
const LIVENESS: Liveness = Liveness {
    idle: Duration::from_secs(20),
    keep_alive: Duration::from_secs(2),
    unused: Duration::from_secs(300),
};
const PROTOCOL: u16 = 100;
/// Of a class of which this side does not bound the streams, as a hostile one would not.
const UNBOUNDED: u16 = 50;

type Events = mpsc::Receiver<WireEvent>;

/// A mesh whose root the test holds, so that it can issue anything.
struct Mesh {
    root: RootCertificate,
    root_key: NodeKey,
    /// Supplies what a forged credential does not replace.
    template: NodeCredentials,
    _dir: TempDir,
}

impl Mesh {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let template = create_mesh(dir.path(), "template", NodeRole::Edge).unwrap();
        let (root_key, root) = make_root().unwrap();
        Mesh {
            root,
            root_key,
            template,
            _dir: dir,
        }
    }

    fn certificate(&self, key: &NodeKey) -> Vec<u8> {
        let request = VerifiedRequest::check(&make_request(key).unwrap()).unwrap();
        request
            .issue(&self.root, self.root_key.pair(), NodeRole::Edge, false)
            .unwrap()
    }

    fn member(&self) -> NodeCredentials {
        let key = NodeKey::generate().unwrap();
        let certificate = self.certificate(&key);
        self.credentials(key, &certificate)
    }

    /// Key and certificate as given, and the root of this mesh.
    fn credentials(&self, key: NodeKey, certificate: &[u8]) -> NodeCredentials {
        self.template
            .clone()
            .forged(key, self.root.clone(), certificate)
    }

    async fn endpoint(&self) -> (Endpoint, Events, NodeId) {
        self.endpoint_at("127.0.0.1:0").await
    }

    async fn endpoint_at(&self, bound: &str) -> (Endpoint, Events, NodeId) {
        let credentials = self.member();
        let id = credentials.id();
        let bound = bound.parse().unwrap();
        let bound = Endpoint::bind(bound, &credentials, LIVENESS, Features::all()).await;
        let (endpoint, events) = bound.unwrap();
        (endpoint, events, id)
    }
}

async fn bind(credentials: &NodeCredentials) -> (Endpoint, Events) {
    bind_serving(credentials, Features::all()).await
}

async fn bind_serving(credentials: &NodeCredentials, features: Features) -> (Endpoint, Events) {
    let any = "127.0.0.1:0".parse().unwrap();
    let bound = Endpoint::bind(any, credentials, LIVENESS, features).await;
    bound.unwrap()
}

async fn bind_living(credentials: &NodeCredentials, liveness: Liveness) -> (Endpoint, Events) {
    let any = "127.0.0.1:0".parse().unwrap();
    let bound = Endpoint::bind(any, credentials, liveness, Features::all()).await;
    bound.unwrap()
}

async fn next(events: &mut Events) -> WireEvent {
    timeout(DEADLINE, events.recv())
        .await
        .expect("an event in time")
        .unwrap()
}

/// The connection with a peer that has dialled, which hears of it a little earlier.
async fn connected(endpoint: &Endpoint, node: &NodeId) -> Peer {
    let wait = async {
        loop {
            match endpoint.peer(node) {
                Some(peer) => return peer,
                None => tokio::task::yield_now().await,
            }
        }
    };
    timeout(DEADLINE, wait).await.expect("a connection")
}

async fn next_stream(events: &mut Events) -> Incoming {
    loop {
        if let WireEvent::Stream(incoming) = next(events).await {
            return *incoming;
        }
    }
}

#[tokio::test]
async fn members_connect_once_and_know_each_other() {
    let mesh = Mesh::new();
    let (a, mut a_events, a_id) = mesh.endpoint().await;
    let (b, mut b_events, b_id) = mesh.endpoint().await;

    let dialled = (0..8).map(|_| {
        let (a, address) = (a.clone(), b.local_address());
        tokio::spawn(async move { a.connect(&b_id, address).await.unwrap() })
    });
    let mut connections = Vec::new();
    for task in dialled.collect::<Vec<_>>() {
        connections.push(task.await.unwrap().connection().stable_id());
    }
    connections.dedup();
    assert_eq!(connections.len(), 1, "one connection serves them all");

    assert!(matches!(next(&mut a_events).await, WireEvent::Connected(p) if p.node() == b_id));
    assert!(matches!(next(&mut b_events).await, WireEvent::Connected(p) if p.node() == a_id));
    // The other side uses the same connection and dials nothing.
    let nowhere = "127.0.0.1:9".parse().unwrap();
    b.connect(&a_id, nowhere).await.unwrap();

    a.peer(&b_id)
        .unwrap()
        .send_datagram(Bytes::from_static(b"hello"))
        .unwrap();
    let datagram = next(&mut b_events).await;
    assert!(
        matches!(datagram, WireEvent::Datagram { from, bytes } if from == a_id && bytes == "hello")
    );

    a.close().await;
    let lost = next(&mut b_events).await;
    assert!(
        matches!(lost, WireEvent::Lost { node, .. } if node == a_id),
        "{lost:?}"
    );
    assert!(b.peer(&a_id).is_none());
}

#[tokio::test]
async fn a_stranger_is_refused_in_both_directions() {
    let (ours, theirs) = (Mesh::new(), Mesh::new());
    let (home, mut events, home_id) = ours.endpoint().await;

    // We dial them: their certificate does not lead to our root.
    let (abroad, _abroad_events, abroad_id) = theirs.endpoint().await;
    let refused = home.connect(&abroad_id, abroad.local_address()).await;
    assert!(
        matches!(refused, Err(WireError::OtherMesh { .. })),
        "{refused:?}"
    );

    // They dial us, and would take our certificate, but show their own.
    let key = NodeKey::generate().unwrap();
    let certificate = theirs.certificate(&key);
    let intruder = ours.credentials(key, &certificate);
    let (intruder, _intruder_events) = bind(&intruder).await;
    let refused = intruder.connect(&home_id, home.local_address()).await;
    assert!(
        matches!(refused, Err(WireError::OtherMesh { .. })),
        "{refused:?}"
    );

    // Without any certificate they get no further than the join exchange.
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_protocol_versions(&[&rustls::version::TLS13])
    .unwrap()
    .with_root_certificates(ours.root.anchors().unwrap())
    .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_MESH.to_vec()];
    let config = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    let client = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connection = client
        .connect_with(
            quinn::ClientConfig::new(Arc::new(config)),
            home.local_address(),
            MEMBER_NAME,
        )
        .unwrap()
        .await
        .unwrap();
    let closed = timeout(DEADLINE, connection.closed()).await.unwrap();
    assert!(
        matches!(&closed, ConnectionError::ApplicationClosed(c) if c.error_code == CLOSE_NOT_A_MEMBER),
        "{closed}"
    );
    assert!(events.try_recv().is_err(), "nobody was let in");
}

#[tokio::test]
async fn a_certificate_whose_name_does_not_follow_from_its_key_is_refused() {
    let mesh = Mesh::new();
    let (home, mut events, _) = mesh.endpoint().await;
    let victim = NodeKey::generate().unwrap();
    let key = NodeKey::generate().unwrap();
    let names = vec![
        victim.id().server_name(),
        MEMBER_NAME.into(),
        "edge.role.mielin".into(),
    ];
    let certificate = issue_for_names(names, key.pair(), &mesh.root, mesh.root_key.pair()).unwrap();
    let (liar, mut liar_events) = bind(&mesh.credentials(key, &certificate)).await;

    // WebPKI is content with the name and the chain; the key gives it away.
    let refused = home.connect(&victim.id(), liar.local_address()).await;
    assert!(
        matches!(refused, Err(WireError::NotAMember { .. })),
        "{refused:?}"
    );
    // By address: the liar still believes in the connection that home refused.
    let refused = liar.connect_any(home.local_address()).await;
    assert!(
        matches!(&refused, Err(WireError::Unreachable { source: ConnectionError::ApplicationClosed(c), .. })
            if c.error_code == CLOSE_NOT_A_MEMBER),
        "{refused:?}"
    );
    assert!(events.try_recv().is_err());
    // The liar itself believed for a moment that it had been dialled; it lost
    // the connection again.
    while let Ok(Some(event)) = timeout(DEADLINE, liar_events.recv()).await {
        if matches!(event, WireEvent::Lost { .. }) {
            break;
        }
    }
}

#[tokio::test]
async fn a_member_that_plays_the_issuer_sees_no_secret() {
    let mesh = Mesh::new();
    // The forged credentials keep the authority over the template's mesh, so
    // this member claims to hold the root, but its certificate does not say so.
    let (liar, _events, _) = mesh.endpoint().await;
    let expires = std::time::SystemTime::now() + DEADLINE;
    let token = JoinToken::generate(mesh.root.clone(), None, expires).unwrap();
    let request = JoinRequest {
        address: liar.local_address(),
        token: Some(token),
        name: "joiner".into(),
        role: NodeRole::Edge,
    };
    let dir = tempfile::tempdir().unwrap();
    let refused = timeout(DEADLINE, join(dir.path(), request, |_| {}))
        .await
        .unwrap();
    assert!(
        matches!(&refused, Err(JoinError::Peer { reason, .. }) if reason.contains("without the certificate")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn another_node_at_an_address_is_not_taken_for_the_one_that_was_wanted() {
    let mesh = Mesh::new();
    let (a, _a_events, a_id) = mesh.endpoint().await;
    let (b, _b_events, _) = mesh.endpoint().await;
    let absent = NodeKey::generate().unwrap().id();
    // WebPKI refuses the name; there is no second opinion to ask for.
    let refused = a.connect(&absent, b.local_address()).await;
    assert!(
        matches!(refused, Err(WireError::Unreachable { .. })),
        "{refused:?}"
    );
    let itself = a.connect_any(a.local_address()).await;
    assert!(
        matches!(itself, Err(WireError::Itself { .. })),
        "{itself:?}"
    );
    let itself = a.connect(&a_id, a.local_address()).await;
    assert!(
        matches!(itself, Err(WireError::Itself { .. })),
        "{itself:?}"
    );
}

#[tokio::test]
async fn frames_and_64_mib_arrive_whole() {
    const TOTAL: usize = 64 << 20;
    let mesh = Mesh::new();
    let (a, _a_events, _) = mesh.endpoint().await;
    let (b, mut b_events, b_id) = mesh.endpoint().await;
    let peer = a.connect(&b_id, b.local_address()).await.unwrap();
    let payload: Bytes = (0..PAYLOAD_BYTES_MAX)
        .map(|i| (i * 31 % 251) as u8)
        .collect::<Vec<_>>()
        .into();

    let sent = payload.clone();
    let sender = tokio::spawn(async move {
        let mut stream = peer.open(PROTOCOL).await.unwrap();
        stream.send_frame(b"first", &[]).await.unwrap();
        stream.send_frame_bytes(b"", sent.clone()).await.unwrap();
        let too_much = stream
            .send_frame_bytes(b"", vec![0; PAYLOAD_BYTES_MAX + 1].into())
            .await;
        assert!(matches!(too_much, Err(StreamError::Oversized { .. })));
        for _ in 0..TOTAL / PAYLOAD_BYTES_MAX {
            stream.write_all(&sent).await.unwrap();
        }
        stream.finish().unwrap();
        let (mut send, mut recv) = stream.split();
        send.delivered().await.unwrap();
        recv.recv_frame(FrameLimit::default())
            .await
            .unwrap()
            .unwrap()
    });

    let mut stream = next_stream(&mut b_events).await.stream;
    assert_eq!(stream.protocol(), PROTOCOL);
    let first = stream
        .recv_frame(FrameLimit::default())
        .await
        .unwrap()
        .unwrap();
    assert_eq!((&first.header[..], first.payload.len()), (&b"first"[..], 0));
    let second = stream
        .recv_frame(FrameLimit::default())
        .await
        .unwrap()
        .unwrap();
    assert!(second.payload == payload);
    let mut total = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let len = stream.read(&mut buffer).await.unwrap();
        if len == 0 {
            break;
        }
        let at = total % PAYLOAD_BYTES_MAX;
        let same = len.min(PAYLOAD_BYTES_MAX - at);
        assert!(buffer[..same] == payload[at..at + same]);
        assert!(buffer[same..len] == payload[..len - same]);
        total += len;
    }
    assert_eq!(total, TOTAL);
    stream.send_frame(b"thanks", &[]).await.unwrap();
    let thanks = timeout(DEADLINE, sender).await.unwrap().unwrap();
    assert_eq!(&thanks.header[..], b"thanks");
}

#[tokio::test]
async fn frames_that_are_fed_arrive_in_order_and_none_is_forgotten() {
    let mesh = Mesh::new();
    let (home, mut events, home_id) = mesh.endpoint().await;
    let (away, _away_events, _) = mesh.endpoint().await;
    let peer = away.connect(&home_id, home.local_address()).await.unwrap();
    let mut stream = peer.open(PROTOCOL).await.unwrap();
    let sizes = [0, 1, 1024, 16 * 1024, 16 * 1024 + 1, 200_000, 3];
    let payload = |index: usize| Bytes::from(vec![index as u8; sizes[index % sizes.len()]]);
    for index in 0..200 {
        let header = [index as u8];
        stream
            .feed_frame_bytes(&header, payload(index))
            .await
            .unwrap();
    }
    assert!(matches!(stream.finish(), Err(StreamError::Unflushed)));
    let raw = stream.write_all(b"out of turn").await;
    assert!(raw.is_err(), "bytes would overtake frames");
    stream.flush_frames().await.unwrap();
    stream.finish().unwrap();
    let mut arrived = next_stream(&mut events).await.stream;
    for index in 0..200 {
        let frame = arrived
            .recv_frame(FrameLimit::default())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (frame.header[0], frame.payload),
            (index as u8, payload(index))
        );
    }
    assert!(
        arrived
            .recv_frame(FrameLimit::default())
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn oversized_and_cut_off_frames_end_one_stream_only() {
    let mesh = Mesh::new();
    let (a, _a_events, _) = mesh.endpoint().await;
    let (b, mut b_events, b_id) = mesh.endpoint().await;
    let peer = a.connect(&b_id, b.local_address()).await.unwrap();
    let limit = FrameLimit {
        header_bytes: 8,
        payload_bytes: 1000,
    };

    // Claims of great length with nothing behind them.
    let claims: [[u8; 6]; 3] = [
        [0, 0, 0xff, 0xff, 0xff, 0xff],
        [0, 0, 0, 0, 0x03, 0xe9],
        [0xff, 0xff, 0, 0, 0, 0],
    ];
    for claim in claims {
        let mut stream = peer.open(PROTOCOL).await.unwrap();
        stream.write_all(&claim).await.unwrap();
        let mut seen = next_stream(&mut b_events).await.stream;
        let refused = timeout(DEADLINE, seen.recv_frame(limit)).await.unwrap();
        assert!(
            matches!(refused, Err(StreamError::Oversized { .. })),
            "{refused:?}"
        );
        let (mut send, _recv) = stream.split();
        let told = timeout(DEADLINE, send.delivered()).await.unwrap();
        assert!(
            matches!(told, Err(StreamError::RefusedAsOversized)),
            "{told:?}"
        );
    }
    // Frames that end too early.
    for cut in [
        &[0, 0, 0][..],
        &[0, 3, 0, 0, 0, 0, 1],
        &[0, 0, 0, 0, 0, 9, 1, 2],
    ] {
        let mut stream = peer.open(PROTOCOL).await.unwrap();
        stream.write_all(cut).await.unwrap();
        stream.finish().unwrap();
        let mut seen = next_stream(&mut b_events).await.stream;
        let cut_off = timeout(DEADLINE, seen.recv_frame(limit)).await.unwrap();
        assert!(
            matches!(cut_off, Err(StreamError::Truncated)),
            "{cut_off:?}"
        );
    }
    // A protocol that nobody serves.
    let mut stream = peer.open(999).await.unwrap();
    next_stream(&mut b_events).await.stream.refuse_protocol();
    let told = timeout(DEADLINE, stream.recv_frame(limit)).await.unwrap();
    assert!(
        matches!(
            told,
            Err(StreamError::UnknownProtocol { protocol: 999, .. })
        ),
        "{told:?}"
    );
    // A writer that vanishes without a last word.
    let mut stream = peer.open(PROTOCOL).await.unwrap();
    stream.send_frame(b"all", b"of it?").await.unwrap();
    let mut seen = next_stream(&mut b_events).await.stream;
    seen.recv_frame(limit).await.unwrap().unwrap();
    drop(stream);
    let told = timeout(DEADLINE, seen.recv_frame(limit)).await.unwrap();
    assert!(
        matches!(told, Err(StreamError::Abandoned { .. })),
        "{told:?}"
    );
    // The connection has survived all of it.
    let mut stream = peer.open(PROTOCOL).await.unwrap();
    stream.send_frame(b"ok", b"still here").await.unwrap();
    let mut seen = next_stream(&mut b_events).await.stream;
    assert_eq!(
        &seen.recv_frame(limit).await.unwrap().unwrap().payload[..],
        b"still here"
    );
}

#[tokio::test]
async fn a_peer_holds_a_bounded_number_of_places() {
    let mesh = Mesh::new();
    let (a, _a_events, _) = mesh.endpoint().await;
    let (b, mut b_events, b_id) = mesh.endpoint().await;
    let peer = a.connect(&b_id, b.local_address()).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..STREAMS_PER_PEER {
        let stream = peer.open(UNBOUNDED).await.unwrap();
        held.push((stream, next_stream(&mut b_events).await));
    }
    // Giving streams up does not free their places: the work may go on.
    // (Many, because QUIC hands out new stream credit in batches.)
    let mut places: Vec<_> = held
        .drain(..STREAMS_PER_PEER / 2)
        .map(|(_ours, Incoming { place, .. })| place)
        .collect();
    let one_more = timeout(DEADLINE, peer.open(UNBOUNDED)).await.unwrap();
    let _one_more = one_more.unwrap();
    // A datagram sent after it arrives; the stream has to wait.
    peer.send_datagram(Bytes::from_static(b"after")).unwrap();
    assert!(matches!(
        next(&mut b_events).await,
        WireEvent::Datagram { .. }
    ));
    assert!(b_events.try_recv().is_err());
    places.pop();
    next_stream(&mut b_events).await;
}

#[tokio::test]
async fn whoever_is_silent_is_said_to_be_so_for_as_long_as_was_waited() {
    let mesh = Mesh::new();
    let impatient = Liveness {
        idle: Duration::from_millis(500),
        keep_alive: Duration::from_millis(200),
        ..LIVENESS
    };
    let (endpoint, _events) = bind_living(&mesh.member(), impatient).await;
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let dialled = endpoint.connect_any(silent.local_addr().unwrap()).await;
    match dialled {
        Err(WireError::Timeout { limit, .. }) => assert!(limit < CONNECT_LIMIT, "{limit:?}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let mesh = Mesh::new();
    let credentials = mesh.member();
    let (first, _events) = bind(&credentials).await;
    let taken = first.local_address();
    let bind_again = async |address| {
        let bound = Endpoint::bind(address, &credentials, LIVENESS, Features::NONE).await;
        bound.map(|_| ())
    };
    for _ in 0..2 {
        match bind_again(taken).await {
            Err(WireError::AddressInUse { address }) => assert_eq!(address, taken),
            other => panic!("{other:?}"),
        }
    }
    // Also when only the TCP port is taken, by whoever.
    let tcp = StdTcpListener::bind("127.0.0.1:0").unwrap();
    let taken = tcp.local_addr().unwrap();
    let refused = bind_again(taken).await;
    assert!(
        matches!(refused, Err(WireError::AddressInUse { .. })),
        "{refused:?}"
    );
    // A closed endpoint gives its port back.
    let taken = first.local_address();
    first.close().await;
    drop(first);
    let again = async {
        // The sockets are closed when the last of their tasks has noticed.
        while bind_again(taken).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, again)
        .await
        .expect("the port is free again");
}

/// A piece holds the packet that it came in, which may be a thousand times as long.
#[tokio::test]
async fn a_frame_that_comes_byte_by_byte_does_not_hold_all_its_packets() {
    let mesh = Mesh::new();
    let (a, _a_events, _) = mesh.endpoint().await;
    let (b, mut b_events, b_id) = mesh.endpoint().await;
    let peer = a.connect(&b_id, b.local_address()).await.unwrap();
    let (mut send, _) = peer.open(PROTOCOL).await.unwrap().split();
    let incoming = next_stream(&mut b_events).await;
    let (_back, mut recv) = incoming.stream.split();
    let frame = [&[0, 3, 0, 0, 0, 250][..], b"abc", &[7; 250]].concat();
    let (mut held_max, mut found) = (0, None);
    for byte in frame {
        assert_eq!(found, None);
        send.write_all(&[byte]).await.unwrap();
        let more = timeout(DEADLINE, poll_fn(|cx| recv.poll_more(cx))).await;
        assert!(more.unwrap().unwrap());
        held_max = held_max.max(recv.pieces());
        found = recv.frame_at_hand(FrameLimit::default()).unwrap();
    }
    assert!(held_max < 50, "{held_max} pieces");
    let found = found.unwrap();
    assert_eq!(&found.header[..], b"abc");
    assert_eq!(found.payload, [7; 250][..]);
}
