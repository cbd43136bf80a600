use std::future::poll_fn;
use std::time::Duration;

use tokio::time::timeout;

use super::*;

const LIMIT: Duration = Duration::from_secs(30);

fn pair() -> (Arc<Socket>, UdpSocket) {
    let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
    let (here, there) = (bind(), bind());
    there.connect(here.local_addr().unwrap()).unwrap();
    here.connect(there.local_addr().unwrap()).unwrap();
    (Arc::new(Socket::new(here).unwrap()), there)
}

/// The first bytes of the packets of one receive call.
async fn receive(socket: &Socket, places: usize) -> Vec<u8> {
    let mut bytes = vec![[0; 64]; places];
    let mut meta = vec![RecvMeta::default(); places];
    let mut buffers: Vec<_> = bytes.iter_mut().map(|b| IoSliceMut::new(b)).collect();
    let received = poll_fn(|cx| socket.poll_recv(cx, &mut buffers, &mut meta));
    let count = timeout(LIMIT, received).await.unwrap().unwrap();
    bytes[..count].iter().map(|bytes| bytes[0]).collect()
}

#[tokio::test]
async fn every_packet_of_every_burst_is_received() {
    for places in [1, 2, 3, BATCH_SIZE] {
        let (socket, there) = pair();
        for burst in [1, 1, 2, 3, 40, 2, 1, 5] {
            // Of several lengths, so that the system does not join them.
            for number in 0..burst {
                there.send(&vec![number; 1 + usize::from(number)]).unwrap();
            }
            let mut received = Vec::new();
            while received.len() < burst.into() {
                received.extend(receive(&socket, places).await);
            }
            assert_eq!(received, (0..burst).collect::<Vec<_>>());
        }
    }
}

#[tokio::test]
async fn a_socket_is_asked_no_more_after_a_short_batch() {
    let (socket, there) = pair();
    there.send(&[1]).unwrap();
    assert_eq!(receive(&socket, BATCH_SIZE).await, [1]);
    // It has arrived, and nothing has told the runtime of it yet.
    there.send(&[2]).unwrap();
    let (mut bytes, mut meta) = ([0; 64], [RecvMeta::default()]);
    let mut buffers = [IoSliceMut::new(&mut bytes)];
    let asked = poll_fn(|cx| Poll::Ready(socket.poll_recv(cx, &mut buffers, &mut meta)));
    assert!(asked.await.is_pending());
    assert_eq!(receive(&socket, BATCH_SIZE).await, [2]);
}

#[tokio::test]
async fn who_found_no_room_waits_until_there_is_some() {
    let (socket, there) = pair();
    let mut poller = Arc::clone(&socket).create_io_poller();
    let mut room = async || {
        let writable = poll_fn(|cx| poller.as_mut().poll_writable(cx));
        timeout(LIMIT, writable).await.unwrap().unwrap();
    };
    room().await;
    socket.full.store(true, Ordering::Relaxed);
    room().await;
    assert!(!socket.full.load(Ordering::Relaxed));

    let transmit = Transmit {
        destination: there.local_addr().unwrap(),
        ecn: None,
        contents: &[7],
        segment_size: None,
        src_ip: None,
    };
    socket.try_send(&transmit).unwrap();
    let mut bytes = [0; 8];
    assert_eq!(there.recv(&mut bytes).unwrap(), 1);
    assert_eq!(bytes[0], 7);
}

/// Counts what people would read in the log.
struct Loud(Arc<AtomicUsize>);

impl tracing::Subscriber for Loud {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// As where a firewall has it refused.
#[tokio::test]
async fn a_packet_that_the_system_refuses_is_lost_without_a_loud_word() {
    let socket = Socket::new(UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    let transmit = Transmit {
        // Not without being asked for, says the system.
        destination: "255.255.255.255:9".parse().unwrap(),
        ecn: None,
        contents: &[7],
        segment_size: None,
        src_ip: None,
    };
    assert!(
        socket
            .state
            .try_send(socket.udp.get_ref().into(), &transmit)
            .is_err()
    );
    let said = Arc::new(AtomicUsize::new(0));
    let sent = tracing::subscriber::with_default(Loud(Arc::clone(&said)), || {
        tracing::callsite::rebuild_interest_cache();
        socket.try_send(&transmit)
    });
    assert!(sent.is_ok());
    assert_eq!(said.load(Ordering::Relaxed), 0);
    assert!(!socket.full.load(Ordering::Relaxed), "it is not full");
}
