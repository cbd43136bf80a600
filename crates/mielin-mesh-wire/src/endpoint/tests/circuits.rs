//! Connections through a relay that only joins streams.

use std::net::UdpSocket;

use tokio::io::copy;
use tokio::task::JoinHandle;

use super::*;

/// The protocol of the streams that the relays of these tests join.
const JOINED: u16 = 7;

/// Hands over the streams that arrive, and answers those of [`PROTOCOL`].
fn serve(mut events: Events) -> mpsc::Receiver<MeshStream> {
    let (joined, arriving) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            let WireEvent::Stream(incoming) = event else {
                continue;
            };
            let Incoming { mut stream, .. } = *incoming;
            if stream.protocol() == JOINED {
                joined.send(stream).await.unwrap();
                continue;
            }
            tokio::spawn(async move {
                while let Ok(Some(frame)) = stream.recv_frame(FrameLimit::default()).await {
                    stream.send_frame_bytes(&[], frame.payload).await.unwrap();
                }
            });
        }
    });
    arriving
}

/// Has a relay join a stream of `a` with one of `b`; ends when the task is aborted.
async fn join_streams(
    (a, a_id): (&Endpoint, NodeId),
    relay: &Endpoint,
    (b, b_id): (&Endpoint, NodeId),
    at_relay: &mut mpsc::Receiver<MeshStream>,
    at_b: &mut mpsc::Receiver<MeshStream>,
) -> JoinHandle<()> {
    let relay_id = relay.shared.local;
    let from_a = a.peer(&relay_id).unwrap().open(JOINED).await.unwrap();
    let arrived = at_relay.recv().await.unwrap();
    let to_b = connected(relay, &b_id).await.open(JOINED).await.unwrap();
    let at_b = at_b.recv().await.unwrap();
    let joining = tokio::spawn(async move {
        let ((mut a_send, mut a_recv), (mut b_send, mut b_recv)) = (arrived.split(), to_b.split());
        let _ = tokio::join!(
            copy(&mut a_recv, &mut b_send),
            copy(&mut b_recv, &mut a_send)
        );
    });
    let circuits = [
        a.circuits().attach(b_id, relay_id, true, from_a),
        b.circuits().attach(a_id, relay_id, false, at_b),
    ];
    for circuit in circuits {
        tokio::spawn(circuit.unwrap());
    }
    joining
}

async fn echo(peer: &Peer, bytes: &Bytes) {
    let mut stream = peer.open(PROTOCOL).await.unwrap();
    stream.send_frame_bytes(&[], bytes.clone()).await.unwrap();
    let frame = stream.recv_frame(FrameLimit::default()).await;
    assert_eq!(frame.unwrap().unwrap().payload, *bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_goes_over_a_relay_and_outlives_it_and_gives_way_to_a_direct_one() {
    a_connection_goes_over_a_relay("127.0.0.1:0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_goes_for_sockets_of_ipv6() {
    a_connection_goes_over_a_relay("[::1]:0").await;
}

/// All of them are bound to this.
async fn a_connection_goes_over_a_relay(bound: &str) {
    let mesh = Mesh::new();
    let (a, a_events, a_id) = mesh.endpoint_at(bound).await;
    let (b, b_events, b_id) = mesh.endpoint_at(bound).await;
    serve(a_events);
    let mut at_b = serve(b_events);
    let mut joined = Vec::new();
    let mut relays = Vec::new();
    for _ in 0..2 {
        let (relay, events, relay_id) = mesh.endpoint_at(bound).await;
        let mut at_relay = serve(events);
        a.connect(&relay_id, relay.local_address()).await.unwrap();
        b.connect(&relay_id, relay.local_address()).await.unwrap();
        let ends = ((&a, a_id), (&b, b_id));
        joined.push(join_streams(ends.0, &relay, ends.1, &mut at_relay, &mut at_b).await);
        relays.push((relay, relay_id));
    }

    let peer = timeout(DEADLINE, a.connect_over_circuit(&b_id))
        .await
        .unwrap()
        .unwrap();
    assert!(peer.is_relayed());
    assert_eq!(peer.node(), b_id);
    let large = Bytes::from(vec![7; 3 << 20]);
    timeout(DEADLINE, echo(&peer, &large)).await.unwrap();
    let traffic = a.circuits().traffic();
    assert_eq!(traffic.circuits, 2);
    assert!(traffic.bytes_sent > 3 << 20 && traffic.bytes_received > 3 << 20);

    // The newest circuit is in use; its relay goes, and the connection goes on over the other.
    assert_eq!(a.circuits().relay_of(&b_id), Some(relays[1].1));
    relays[1].0.close().await;
    joined[1].abort();
    timeout(DEADLINE, echo(&peer, &large)).await.unwrap();
    assert_eq!(a.circuits().relay_of(&b_id), Some(relays[0].1));
    assert!(peer.is_live() && peer.is_relayed());

    let direct = a.connect_directly(&b_id, b.local_address()).await.unwrap();
    assert!(!direct.is_relayed());
    assert!(!a.peer(&b_id).unwrap().is_relayed(), "it is preferred");
    assert!(peer.is_live(), "what is said on it comes to its end");
    timeout(DEADLINE, echo(&direct, &large)).await.unwrap();
}

#[tokio::test]
async fn there_is_no_way_over_circuits_that_do_not_stand() {
    let mesh = Mesh::new();
    let (a, _events, _) = mesh.endpoint().await;
    let absent = NodeId([9; 32]);
    let outcome = a.connect_over_circuit(&absent).await;
    assert!(matches!(outcome, Err(WireError::NoCircuit { node }) if node == absent));
}

/// A relay that joins a stream with that of another node than it says.
#[tokio::test]
async fn a_relay_cannot_pass_off_another_node() {
    let mesh = Mesh::new();
    let (a, a_events, _) = mesh.endpoint().await;
    let (b, b_events, b_id) = mesh.endpoint().await;
    let (relay, relay_events, relay_id) = mesh.endpoint().await;
    serve(a_events);
    let (mut at_b, mut at_relay) = (serve(b_events), serve(relay_events));
    a.connect(&relay_id, relay.local_address()).await.unwrap();
    b.connect(&relay_id, relay.local_address()).await.unwrap();
    let wanted = NodeId([9; 32]);
    let from_a = a.peer(&relay_id).unwrap().open(JOINED).await.unwrap();
    let (mut a_send, mut a_recv) = at_relay.recv().await.unwrap().split();
    let to_b = connected(&relay, &b_id).await.open(JOINED).await.unwrap();
    let (mut b_send, mut b_recv) = to_b.split();
    tokio::spawn(async move { copy(&mut a_recv, &mut b_send).await });
    tokio::spawn(async move { copy(&mut b_recv, &mut a_send).await });
    let circuit = a.circuits().attach(wanted, relay_id, true, from_a);
    tokio::spawn(circuit.unwrap());
    let at_b = at_b.recv().await.unwrap();
    let circuit = b.circuits().attach(NodeId([8; 32]), relay_id, false, at_b);
    tokio::spawn(circuit.unwrap());
    let outcome = timeout(DEADLINE, a.connect_over_circuit(&wanted)).await;
    assert!(outcome.unwrap().is_err());
    assert!(a.peer(&wanted).is_none() && a.peer(&b_id).is_none());
}

#[tokio::test]
async fn a_dial_back_reaches_an_endpoint_and_nothing_else() {
    let mesh = Mesh::new();
    let (a, _events, _) = mesh.endpoint().await;
    assert!(crate::answers_unasked(a.local_address()).await.unwrap());
    // A socket that takes packets and answers none, as behind a firewall.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    assert!(!crate::answers_unasked(address).await.unwrap());
}

#[tokio::test]
async fn who_claims_a_virtual_address_on_the_network_is_not_heard() {
    use quinn::udp::{RecvMeta, Transmit};
    use quinn::{AsyncUdpSocket, UdpPoller};

    /// A socket on which a packet lies that claims to come from a virtual address.
    #[derive(Debug)]
    struct Spoofed(SocketAddr);

    impl AsyncUdpSocket for Spoofed {
        fn create_io_poller(self: Arc<Self>) -> std::pin::Pin<Box<dyn UdpPoller>> {
            unreachable!("nothing is sent")
        }
        fn try_send(&self, _: &Transmit<'_>) -> io::Result<()> {
            unreachable!("nothing is sent")
        }
        fn poll_recv(
            &self,
            _: &mut std::task::Context<'_>,
            _: &mut [io::IoSliceMut<'_>],
            meta: &mut [RecvMeta],
        ) -> std::task::Poll<io::Result<usize>> {
            (meta[0].addr, meta[0].len, meta[0].stride) = (self.0, 8, 8);
            std::task::Poll::Ready(Ok(1))
        }
        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(self.0)
        }
    }

    for (claimed, heard) in [("247.109.101.3:7", 0), ("127.0.0.1:7", 8)] {
        let real = Arc::new(Spoofed(claimed.parse().unwrap()));
        let socket = CircuitSocket::new(real, Circuits::default());
        let mut buffer = [0; 16];
        let mut meta = [RecvMeta::default()];
        let mut buffers = [io::IoSliceMut::new(&mut buffer)];
        let taken = std::future::poll_fn(|cx| socket.poll_recv(cx, &mut buffers, &mut meta)).await;
        assert_eq!(taken.unwrap(), 1);
        assert_eq!(meta[0].len, heard, "{claimed}");
    }
}
