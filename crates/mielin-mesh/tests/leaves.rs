//! A node that hosts leaves, over UDP, a Unix socket and a terminal, all of this machine.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use mielin_mesh::{
    LeafConfig, LeafError, LeafNews, LeafNewsKind, LeafPresence, LeafWay, Leaves, LineSource,
    MeshConfig, MeshService, WayEnd, create_mesh, load_credentials,
};
use mielin_mesh_core::leaf::{
    Admission, FRAME_BYTES_MAX, FrameDecoder, Leaf, LeafEvent, LeafNumber, PACKET_BYTES_MAX,
    PacketError, SecretKey, frame,
};
use mielin_mesh_core::{Instant, Name, NodeRole};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UdpSocket, UnixListener};
use tokio::sync::mpsc;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(60);

struct Host {
    mesh: MeshService,
    leaves: Leaves,
    news: mpsc::Receiver<LeafNews>,
}

impl Host {
    async fn start(directory: &Path, config: LeafConfig) -> Host {
        let credentials = match load_credentials(directory).unwrap() {
            Some(credentials) => credentials,
            None => create_mesh(directory, "relay", NodeRole::Relay).unwrap(),
        };
        let mut mesh = MeshConfig::new("127.0.0.1:0".parse().unwrap());
        mesh.enable_mdns = false;
        let mesh = MeshService::start(mesh, credentials).await.unwrap();
        let (leaves, news) = mesh.host_leaves(config).await.unwrap();
        Host { mesh, leaves, news }
    }

    async fn hear(&mut self, kind: LeafNewsKind) -> LeafNews {
        let heard = async {
            loop {
                let news = self.news.recv().await.unwrap();
                if news.kind == kind {
                    return news;
                }
            }
        };
        timeout(DEADLINE, heard).await.unwrap()
    }

    /// How the only way to it does.
    fn way(&self) -> LeafWay {
        let mut ways = self.leaves.ways();
        assert_eq!(ways.len(), 1);
        ways.remove(0)
    }

    fn udp(&self) -> SocketAddr {
        match self.way().end {
            WayEnd::Udp(address) => address,
            WayEnd::Line(line) => panic!("{line} is a line"),
        }
    }

    async fn stop(self) {
        self.leaves.close();
        self.mesh.shutdown().await;
    }
}

fn udp() -> LeafConfig {
    LeafConfig {
        udp: Some("127.0.0.1:0".parse().unwrap()),
        lines: Vec::new(),
    }
}

fn leaf(admission: &Admission, key: u8) -> Leaf {
    let mut entropy = [0; 32];
    getrandom::fill(&mut entropy).unwrap();
    Leaf::new(SecretKey::from_bytes([key; 32]), admission.clone(), entropy)
}

/// Drives a leaf over datagrams until `done`.
async fn over_udp(leaf: &mut Leaf, host: SocketAddr, mut done: impl FnMut(&mut Leaf) -> bool) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (started, mut buffer) = (std::time::Instant::now(), [0; PACKET_BYTES_MAX]);
    let drive = async {
        loop {
            let now = Instant::from_start(started.elapsed());
            leaf.handle_timeout(now);
            while let Some(packet) = leaf.poll_transmit(now, &mut buffer) {
                socket.send_to(packet, host).await.unwrap();
            }
            if done(leaf) {
                return;
            }
            let mut datagram = [0; PACKET_BYTES_MAX];
            let received = timeout(Duration::from_millis(20), socket.recv(&mut datagram)).await;
            if let Ok(Ok(len)) = received {
                let _ =
                    leaf.handle_packet(Instant::from_start(started.elapsed()), &datagram[..len]);
            }
        }
    };
    timeout(DEADLINE, drive).await.unwrap();
}

/// The same over a line.
async fn over_line(
    leaf: &mut Leaf,
    mut read: impl AsyncRead + Unpin,
    mut write: impl AsyncWrite + Unpin,
    mut done: impl FnMut(&mut Leaf) -> bool,
) {
    let (started, mut buffer) = (std::time::Instant::now(), [0; PACKET_BYTES_MAX]);
    let (mut line, mut decoder) = ([0; FRAME_BYTES_MAX], FrameDecoder::new());
    let drive = async {
        loop {
            let now = Instant::from_start(started.elapsed());
            leaf.handle_timeout(now);
            while let Some(packet) = leaf.poll_transmit(now, &mut buffer) {
                write.write_all(frame(packet, &mut line)).await.unwrap();
            }
            if done(leaf) {
                return;
            }
            let mut bytes = [0; 256];
            let received = timeout(Duration::from_millis(20), read.read(&mut bytes)).await;
            let Ok(received) = received else { continue };
            let mut rest = &bytes[..received.unwrap()];
            while let Some(packet) = decoder.next_packet(&mut rest) {
                let _ = leaf.handle_packet(Instant::from_start(started.elapsed()), packet);
            }
        }
    };
    timeout(DEADLINE, drive).await.unwrap();
}

fn echoed(leaf: &mut Leaf) -> bool {
    leaf.take().is_some_and(|message| message == b"pong")
}

/// Waits for "ping" of a leaf, and answers.
async fn answer(host: &mut Host) -> LeafNews {
    let news = host.hear(LeafNewsKind::Readable).await;
    assert_eq!(host.leaves.take(news.leaf).unwrap(), b"ping");
    host.leaves.send(news.leaf, b"pong").unwrap();
    news
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_over_udp_keeps_its_place_when_its_host_starts_again() {
    let directory = TempDir::new().unwrap();
    let mut host = Host::start(directory.path(), udp()).await;
    let name = Name::new("meter").unwrap();
    let admission = host.leaves.admit(name.clone()).unwrap();
    assert!(matches!(
        host.leaves.admit(name.clone()),
        Err(LeafError::NameTaken(_))
    ));
    assert_eq!(host.leaves.list()[0].state, LeafPresence::Awaited);
    let address = host.udp();

    let mut one = leaf(&admission, 1);
    one.send(b"ping").unwrap();
    let talking = over_udp(&mut one, address, echoed);
    let (_, news) = tokio::join!(talking, answer(&mut host));
    let entry = host.leaves.find("meter").unwrap();
    assert_eq!(entry.state, LeafPresence::Connected);
    assert_eq!(entry.node, Some(news.node));
    host.stop().await;

    // The admission is the first leaf's, also after a start; that one goes on by a new handshake.
    let mut host = Host::start(directory.path(), udp()).await;
    let address = host.udp();
    let mut thief = leaf(&admission, 2);
    over_udp(&mut thief, address, |thief| {
        let mut events = std::iter::from_fn(|| thief.poll_event());
        events.any(|event| matches!(event, LeafEvent::Refused(_)))
    })
    .await;
    let way = host.way();
    assert!(way.dropped >= 1, "{way:?}");
    assert_eq!(way.last_dropped, Some(PacketError::Refused));
    let mut again = leaf(&admission, 1);
    again.send(b"ping").unwrap();
    let talking = over_udp(&mut again, address, echoed);
    tokio::join!(talking, answer(&mut host));

    host.leaves.dismiss("meter").unwrap();
    assert_eq!(host.hear(LeafNewsKind::Dismissed).await.node, news.node);
    assert!(host.leaves.list().is_empty());
    assert!(matches!(
        host.leaves.find("meter"),
        Err(LeafError::Unknown(_))
    ));
    let other = host.leaves.admit(name).unwrap();
    assert_ne!(other.number, admission.number);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_is_opened_again_and_forgives_garbage() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("line");
    let config = LeafConfig {
        udp: None,
        lines: vec![format!("unix:{}", path.display()).parse().unwrap()],
    };
    // Nobody listens yet.
    let mut host = Host::start(&directory.path().join("node"), config).await;
    let admission = host.leaves.admit(Name::new("meter").unwrap()).unwrap();
    assert!(host.way().closed.is_some());
    let listener = UnixListener::bind(&path).unwrap();
    let mut one = leaf(&admission, 1);
    for round in 0..2 {
        let (stream, _) = timeout(DEADLINE, listener.accept()).await.unwrap().unwrap();
        let (read, mut write) = stream.into_split();
        write.write_all(&[0x55, 0, 0, 1, 2, 3, 0xff]).await.unwrap();
        one.send(b"ping").unwrap();
        let talking = over_line(&mut one, read, write, echoed);
        let answering = async {
            let news = host.hear(LeafNewsKind::Readable).await;
            // The leaf waits for its answer, with the line open.
            let way = host.way();
            assert_eq!(host.leaves.take(news.leaf).unwrap(), b"ping");
            host.leaves.send(news.leaf, b"pong").unwrap();
            (news, way)
        };
        let (_, (news, way)) = tokio::join!(talking, answering);
        assert_eq!(news.leaf, LeafNumber(1), "round {round}");
        assert_eq!(way.closed, None);
        assert_eq!(way.dropped, 2 * (round + 1), "{way:?}");
        assert!(way.packets > round, "{way:?}");
        assert_eq!(way.last_dropped, Some(PacketError::Malformed));
        // Dropping the stream cuts the line.
    }
    host.stop().await;
}

#[test]
fn lines_are_written_as_people_write_them() {
    for text in ["/dev/ttyACM0", "/dev/ttyUSB1@9600", "unix:/tmp/line"] {
        assert_eq!(text.parse::<LineSource>().unwrap().to_string(), text);
    }
    for text in ["", "unix:", "@9600", "/dev/ttyS0@fast", "/dev/ttyS0@0"] {
        assert!(text.parse::<LineSource>().is_err(), "{text:?} was accepted");
    }
}
