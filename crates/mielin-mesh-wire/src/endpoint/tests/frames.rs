//! Frames of every size, as one buffer and in pieces.

use bytes::Buf;

use super::*;
use crate::FrameHead;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads_of_every_size_arrive_whole_and_in_pieces() {
    const LENS: [usize; 8] = [
        0,
        1,
        1023,
        16 * 1024,
        64 * 1024,
        64 * 1024 + 1,
        3 << 20,
        PAYLOAD_BYTES_MAX,
    ];
    let payload = |len: usize| -> Bytes { (0..len).map(|i| (i % 251) as u8).collect() };
    let mesh = Mesh::new();
    let (home, mut events, home_id) = mesh.endpoint().await;
    let (away, _away_events, _) = mesh.endpoint().await;
    let peer = away.connect(&home_id, home.local_address()).await.unwrap();
    assert!(matches!(next(&mut events).await, WireEvent::Connected(_)));
    let mut stream = peer.open(PROTOCOL).await.unwrap();
    tokio::spawn(async move {
        for len in LENS {
            for _ in 0..2 {
                stream.send_frame_bytes(b"h", payload(len)).await.unwrap();
            }
        }
        // The last frame breaks off.
        stream.send_frame_bytes(&[0; 4], payload(9)).await.unwrap();
        stream.finish().unwrap();
        let (mut send, _recv) = stream.split();
        let _ = send.delivered().await;
    });
    let mut arrived = next_stream(&mut events).await.stream;
    for len in LENS {
        let head = arrived.recv_head(FrameLimit::default()).await.unwrap();
        let whole = arrived.recv_payload(&head.unwrap()).await.unwrap();
        assert!(whole == payload(len), "{len} bytes");
        let head = arrived.recv_head(FrameLimit::default()).await.unwrap();
        let mut pieces = arrived.recv_pieces(&head.unwrap()).await.unwrap();
        assert_eq!(pieces.remaining(), len);
        assert!(pieces.copy_to_bytes(len) == whole, "{len} bytes in pieces");
        assert!(!pieces.has_remaining());
    }
    let head = arrived.recv_head(FrameLimit::default()).await.unwrap();
    let longer = FrameHead {
        payload_len: 10,
        ..head.unwrap()
    };
    let broken = arrived.recv_pieces(&longer).await;
    assert!(matches!(broken, Err(StreamError::Truncated)), "{broken:?}");
}
