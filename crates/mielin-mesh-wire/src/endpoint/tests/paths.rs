//! A connection outlives the path that it began on.

use super::*;

#[tokio::test]
async fn a_connection_goes_on_when_the_socket_of_one_end_is_replaced() {
    let mesh = Mesh::new();
    let (home, mut events, home_id) = mesh.endpoint().await;
    let (away, mut away_events, away_id) = mesh.endpoint().await;
    let there = away.connect(&home_id, home.local_address()).await.unwrap();
    let here = connected(&home, &away_id).await;
    let mut stream = there.open(PROTOCOL).await.unwrap();
    stream.send_frame(&[], b"before").await.unwrap();
    let mut arrived = next_stream(&mut events).await.stream;
    let frame = arrived.recv_frame(FrameLimit::default()).await.unwrap();
    assert_eq!(&frame.unwrap().payload[..], b"before");
    assert_eq!(here.remote_address(), away.local_address());

    let (udp, _tcp) = bind_sockets("127.0.0.1:0".parse().unwrap()).unwrap();
    let moved_to = udp.local_addr().unwrap();
    let real = Arc::new(Socket::new(udp).unwrap());
    let socket = CircuitSocket::new(real, away.circuits().clone());
    let quinn = &away.shared.quinn;
    quinn.rebind_abstract(Arc::new(socket)).unwrap();
    // The stream goes on in both directions, and so do datagrams and new streams.
    stream.send_frame(&[], b"after").await.unwrap();
    let frame = timeout(DEADLINE, arrived.recv_frame(FrameLimit::default()));
    let frame = frame.await.unwrap().unwrap();
    assert_eq!(&frame.unwrap().payload[..], b"after");
    arrived.send_frame(&[], b"answer").await.unwrap();
    let frame = timeout(DEADLINE, stream.recv_frame(FrameLimit::default()));
    let frame = frame.await.unwrap().unwrap();
    assert_eq!(&frame.unwrap().payload[..], b"answer");
    assert_eq!(here.remote_address(), moved_to);
    let back = here.open(PROTOCOL).await.unwrap();
    assert_eq!(back.peer(), away_id);
    loop {
        match next(&mut away_events).await {
            WireEvent::Stream(_) => break,
            event => assert!(matches!(event, WireEvent::Connected(_)), "{event:?}"),
        }
    }
    assert!(there.is_usable() && here.is_usable());
    assert_eq!(away.traffic().connections, 1);
    assert_eq!(home.traffic().connections, 1);
    assert!(events.try_recv().is_err(), "nothing was lost");
}
