//! What attackers try who are no members, or were.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::UdpSocket;

use super::classes::echo_one;
use super::transport::CONNECTION_WINDOW;
use mielin_mesh_core::revocation::Reason;
use mielin_mesh_core::{Revocation, SignedRevocation};

use super::*;
use crate::certificate::issue_for;

/// An endpoint whose certificate ended a minute ago.
async fn expired(mesh: &Mesh) -> (Endpoint, Events, NodeId) {
    let key = NodeKey::generate().unwrap();
    let names = vec![
        key.id().server_name(),
        MEMBER_NAME.into(),
        "edge.role.mielin".into(),
    ];
    let now = time::OffsetDateTime::now_utc();
    let validity = now - Duration::from_secs(3_600)..now - Duration::from_secs(60);
    let root_key = mesh.root_key.pair();
    let certificate = issue_for(validity, names, key.pair(), &mesh.root, root_key).unwrap();
    let id = key.id();
    let (endpoint, events) = bind(&mesh.credentials(key, &certificate)).await;
    (endpoint, events, id)
}

#[tokio::test]
async fn an_expired_certificate_opens_no_door_on_either_side() {
    let mesh = Mesh::new();
    let (home, mut events, home_id) = mesh.endpoint().await;
    let (late, mut late_events, late_id) = expired(&mesh).await;
    let says_expired = |outcome: &Result<Peer, WireError>| {
        let told = outcome.as_ref().map(|_| ()).map_err(ToString::to_string);
        told.is_err_and(|told| told.contains("expired"))
    };
    let dialled = home.connect(&late_id, late.local_address()).await;
    assert!(says_expired(&dialled), "{dialled:?}");
    let dials = late.connect(&home_id, home.local_address()).await;
    assert!(dials.is_err(), "{dials:?}");
    assert!(events.try_recv().is_err() && late_events.try_recv().is_err());
}

/// Hands packets on between a dialler and `server`, and changes a bit in every third that the dialler sends and in
/// every fourth that it gets. Ends with the test's runtime.
async fn meddler(server: SocketAddr) -> SocketAddr {
    let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let back = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = front.local_addr().unwrap();
    back.connect(server).await.unwrap();
    tokio::spawn(async move {
        let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
        let (mut dialler, mut count) = (None, [0_usize; 2]);
        loop {
            tokio::select! {
                Ok((len, from)) = front.recv_from(&mut up) => {
                    dialler = Some(from);
                    count[0] += 1;
                    if count[0].is_multiple_of(3) {
                        up[len / 2] ^= 1;
                    }
                    let _ = back.send(&up[..len]).await;
                }
                Ok(len) = back.recv(&mut down) => {
                    count[1] += 1;
                    if count[1].is_multiple_of(4) {
                        down[len / 2] ^= 1;
                    }
                    if let Some(dialler) = dialler {
                        let _ = front.send_to(&down[..len], dialler).await;
                    }
                }
            }
        }
    });
    address
}

#[tokio::test]
async fn who_changes_packets_on_their_way_changes_nothing_that_is_read() {
    let mesh = Mesh::new();
    let (home, mut events, home_id) = mesh.endpoint().await;
    let (away, _away_events, _) = mesh.endpoint().await;
    let way = meddler(home.local_address()).await;
    let peer = away.connect(&home_id, way).await.unwrap();
    let sent: Vec<u8> = (0..200_000_u32).map(|byte| byte as u8).collect();
    let mut stream = peer.open(PROTOCOL).await.unwrap();
    stream.send_frame(b"header", &sent).await.unwrap();
    stream.finish().unwrap();
    let mut arrived = next_stream(&mut events).await.stream;
    let limit = FrameLimit {
        header_bytes: 64,
        payload_bytes: PAYLOAD_BYTES_MAX,
    };
    let frame = timeout(DEADLINE, arrived.recv_frame(limit)).await.unwrap();
    let frame = frame.unwrap().unwrap();
    assert_eq!(
        (&frame.header[..], &frame.payload[..]),
        (&b"header"[..], &sent[..])
    );
}

/// Sends without end, and counts what the transport has taken.
async fn pour(incoming: Incoming, taken: Arc<AtomicU64>) {
    let mut stream = incoming.stream;
    let chunk = vec![7; 64 * 1024];
    while let Ok(()) = stream.write_all(&chunk).await {
        taken.fetch_add(chunk.len() as u64, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_opens_streams_and_never_reads_holds_bounded_memory_and_nobody_else_up() {
    /// What the greedy one has stored, and what this side keeps until it is acknowledged: a window each.
    const WINDOWS: u64 = 2 * CONNECTION_WINDOW as u64;
    let mesh = Mesh::new();
    let (home, mut events, home_id) = mesh.endpoint().await;
    let (greedy, _greedy_events, greedy_id) = mesh.endpoint().await;
    let (other, _other_events, _) = mesh.endpoint().await;
    let address = home.local_address();
    let open = greedy.connect(&home_id, address).await.unwrap();
    let mut unread = Vec::new();
    for _ in 0..STREAMS_PER_PEER {
        unread.push(open.open(UNBOUNDED).await.unwrap());
    }
    let taken = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&taken);
    let serving = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            match event {
                WireEvent::Stream(incoming) if incoming.stream.peer() == greedy_id => {
                    tokio::spawn(pour(*incoming, Arc::clone(&counted)));
                }
                WireEvent::Stream(incoming) => {
                    tokio::spawn(echo_one(*incoming));
                }
                _ => {}
            }
        }
    });
    let peer = other.connect(&home_id, address).await.unwrap();
    // All along: while the windows fill, and when they are full.
    let mut asked = 0;
    let full = u64::from(CONNECTION_WINDOW);
    while asked < 200 || taken.load(Ordering::Relaxed) < full / 2 {
        let mut stream = peer.open(PROTOCOL).await.unwrap();
        let question = Bytes::from(vec![9; 100_000]);
        let asking = async {
            stream.send_frame_bytes(&[], question.clone()).await?;
            stream.finish()?;
            stream.recv_frame(FrameLimit::default()).await
        };
        let answer = timeout(DEADLINE, asking).await.expect("others are served");
        assert_eq!(answer.unwrap().unwrap().payload, question);
        asked += 1;
        let taken = taken.load(Ordering::Relaxed);
        let chunks = STREAMS_PER_PEER as u64 * 64 * 1024;
        assert!(taken <= WINDOWS + chunks, "{taken} bytes were taken");
    }
    serving.abort();
}

/// The first packet of a connection that nobody goes on with.
async fn first_packet(client: &quinn::Endpoint, config: quinn::ClientConfig) -> Vec<u8> {
    // A socket of its own: nothing of another attempt arrives there.
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let connecting = client.connect_with(config, address, MEMBER_NAME).unwrap();
    let mut packet = vec![0; 2048];
    let received = timeout(DEADLINE, silent.recv_from(&mut packet)).await;
    packet.truncate(received.unwrap().unwrap().0);
    drop(connecting);
    packet
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_handshakes_does_not_keep_members_out() {
    let mesh = Mesh::new();
    let (home, mut events, home_id) = mesh.endpoint().await;
    let flood = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut answer = vec![0; 2048];
    let config = client_config(&mesh.member(), LIVENESS).unwrap();
    let client = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    for _ in 0..400 {
        let packet = first_packet(&client, config.clone()).await;
        flood.send_to(&packet, home.local_address()).await.unwrap();
        // An answer says that the packet was taken in and not dropped by the system.
        let (len, _) = timeout(DEADLINE, flood.recv_from(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert!(len > 0);
    }
    let (member, _member_events, _) = mesh.endpoint().await;
    let peer = member
        .connect(&home_id, home.local_address())
        .await
        .unwrap();
    assert!(matches!(next(&mut events).await, WireEvent::Connected(_)));
    assert_eq!(peer.node(), home_id);
}

fn revocation(mesh: &Mesh, node: NodeId) -> SignedRevocation {
    let revocation = Revocation {
        node,
        revoked_ms: 1,
        reason: Reason::new(&"r".repeat(256)).unwrap(),
    };
    SignedRevocation::sign(revocation, |message| mesh.root_key.sign(message)).unwrap()
}

#[tokio::test]
async fn a_revoked_node_is_shown_why_it_is_refused_and_dials_nobody_once_it_believes_it() {
    let mesh = Mesh::new();
    let (member, mut of_member, member_id) = mesh.endpoint().await;
    let (thief, mut of_thief, thief_id) = mesh.endpoint().await;
    let at = member.local_address();
    thief.connect(&member_id, at).await.unwrap();
    assert!(matches!(next(&mut of_thief).await, WireEvent::Connected(_)));
    assert!(matches!(
        next(&mut of_member).await,
        WireEvent::Connected(_)
    ));
    let signed = revocation(&mesh, thief_id);
    member.revoke(&signed);
    let WireEvent::Lost { reason, .. } = next(&mut of_thief).await else {
        panic!("the connection stands");
    };
    assert_eq!(revocation_said(&reason).as_deref(), Some(&signed));

    // What a peer shows may be made up, so it only pauses.
    let refused = thief.connect(&member_id, at).await;
    let here = matches!(refused, Err(WireError::RevokedHere { .. }));
    assert!(here, "{refused:?}");
    let WireEvent::SaidRevoked(shown) = next(&mut of_thief).await else {
        panic!("it was not shown");
    };
    assert_eq!(*shown, signed);
    let again = thief.connect(&member_id, at).await;
    assert!(matches!(again, Err(WireError::Pausing { .. })), "{again:?}");

    thief.revoke(&signed);
    for dialled in [
        thief
            .connect(&member_id, "127.0.0.1:1".parse().unwrap())
            .await,
        thief.connect_any(at).await,
    ] {
        assert!(matches!(dialled, Err(WireError::ShutOut)), "{dialled:?}");
    }
}
