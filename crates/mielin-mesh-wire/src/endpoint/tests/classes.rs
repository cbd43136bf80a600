//! What takes long does not keep the rest from passing.

use super::*;
use crate::peer::MESSAGE_STREAMS_MAX;

const BULK: u16 = 200;
const CONTROL: u16 = 6;

/// Bulk streams whose far ends are not read, each with more to send than its window holds.
async fn stuck(peer: &Peer, events: &mut Events, count: usize) -> Vec<Incoming> {
    let mut unread = Vec::new();
    for _ in 0..count {
        let mut stream = peer.open(BULK).await.unwrap();
        tokio::spawn(async move {
            let payload = Bytes::from(vec![7; PAYLOAD_BYTES_MAX]);
            while stream.send_frame_bytes(&[], payload.clone()).await.is_ok() {}
        });
        unread.push(next_stream(events).await);
    }
    unread
}

pub(super) async fn echo_one(incoming: Incoming) {
    let mut stream = incoming.stream;
    let asked = stream
        .recv_frame(FrameLimit::default())
        .await
        .unwrap()
        .unwrap();
    stream.send_frame_bytes(&[], asked.payload).await.unwrap();
    stream.finish().unwrap();
    let (mut send, _recv) = stream.split();
    let _ = send.delivered().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_reads_no_bulk_still_gets_control_and_a_fourth_waits() {
    let mesh = Mesh::new();
    let (home, mut events, home_id) = mesh.endpoint().await;
    let (away, _away_events, _) = mesh.endpoint().await;
    let peer = away.connect(&home_id, home.local_address()).await.unwrap();
    assert!(matches!(next(&mut events).await, WireEvent::Connected(_)));
    let mut unread = stuck(&peer, &mut events, 3).await;
    let fourth = {
        let peer = peer.clone();
        tokio::spawn(async move { peer.open(BULK).await })
    };
    // More than the streams of control could send if bulk had taken the connection's window.
    for _ in 0..64 {
        let mut stream = peer.open(CONTROL).await.unwrap();
        let asked = Bytes::from(vec![9; 64 * 1024]);
        stream.send_frame_bytes(&[], asked.clone()).await.unwrap();
        stream.finish().unwrap();
        tokio::spawn(echo_one(next_stream(&mut events).await));
        let answer = timeout(DEADLINE, stream.recv_frame(FrameLimit::default())).await;
        assert_eq!(answer.unwrap().unwrap().unwrap().payload, asked);
    }
    assert!(!fourth.is_finished(), "three send already");
    // One that is given up makes room.
    unread.pop().unwrap().stream.abandon();
    let opened = timeout(DEADLINE, fourth).await.unwrap().unwrap();
    assert!(opened.is_ok(), "{opened:?}");
    let control = away.traffic_of(TrafficClass::Control);
    assert!(control.bytes_sent >= 64 * 64 * 1024 && control.bytes_received >= 64 * 64 * 1024);
    assert!(away.traffic_of(TrafficClass::Bulk).bytes_sent >= 3 * 16 * 1024 * 1024);
    assert_eq!(
        away.traffic_of(TrafficClass::Messages),
        ClassTraffic::default()
    );
}

#[tokio::test]
async fn messages_that_wait_at_a_peer_leave_places_for_control() {
    let mesh = Mesh::new();
    let (home, mut events, home_id) = mesh.endpoint().await;
    let (away, _away_events, _) = mesh.endpoint().await;
    let peer = away.connect(&home_id, home.local_address()).await.unwrap();
    let mut waiting = Vec::new();
    for _ in 0..MESSAGE_STREAMS_MAX {
        let stream = peer.open(PROTOCOL).await.unwrap();
        waiting.push((stream, next_stream(&mut events).await));
    }
    let one_more = {
        let peer = peer.clone();
        tokio::spawn(async move { peer.open(PROTOCOL).await })
    };
    let mut control = timeout(DEADLINE, peer.open(CONTROL))
        .await
        .unwrap()
        .unwrap();
    control.send_frame(b"?", b"").await.unwrap();
    control.finish().unwrap();
    let arrived = next_stream(&mut events).await;
    assert_eq!(arrived.stream.protocol(), CONTROL);
    assert!(!one_more.is_finished());
    waiting.pop();
    let opened = timeout(DEADLINE, one_more).await.unwrap().unwrap();
    assert!(opened.is_ok(), "{opened:?}");
}
