use super::*;

#[test]
fn crumbs_are_joined_and_large_pieces_are_kept() {
    let mut pieces = Pieces::default();
    let packet = Bytes::from(vec![3; 64 * 1024]);
    for _ in 0..2 {
        for at in 0..10_000 {
            pieces.push(packet.slice(at..=at));
        }
        pieces.push(packet.clone());
    }
    assert_eq!(pieces.remaining(), 2 * (10_000 + packet.len()));
    let own = 10_000_usize.div_ceil(PIECE_MIN);
    assert!(
        pieces.pieces.len() <= 2 * (own + 1),
        "{}",
        pieces.pieces.len()
    );
    let kept = |piece: &&Bytes| piece.as_ptr() == packet.as_ptr();
    assert_eq!(pieces.pieces.iter().filter(kept).count(), 2);
}
