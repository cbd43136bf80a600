use super::*;

/// Puts numbered bytes in, in chunks of these lengths.
fn arrive(ahead: &mut Ahead, next: &mut u8, lens: &[usize]) {
    for lens in lens.chunks(CHUNKS_AT_ONCE) {
        for (place, len) in ahead.room().iter_mut().zip(lens) {
            assert!(place.is_empty(), "a place that is in use");
            *place = (0..*len)
                .map(|_| std::mem::replace(next, next.wrapping_add(1)))
                .collect();
        }
        ahead.fill(lens.len());
    }
}

#[test]
fn bytes_leave_in_the_order_in_which_they_arrived() {
    let (mut ahead, mut next, mut expected) = (Ahead::default(), 0, 0_u8);
    let mut check = |bytes: &[u8]| {
        for byte in bytes {
            assert_eq!(*byte, expected);
            expected = expected.wrapping_add(1);
        }
    };
    for round in 2..200 {
        let first = ahead.is_empty();
        arrive(&mut ahead, &mut next, &[round, 3, 1, 2 * round]);
        check(&ahead.piece(1).unwrap());
        assert!(!first || ahead.piece(round).is_none(), "in two pieces");
        check(&ahead.next_piece(round).unwrap_or_default());
        if round % 7 == 0 {
            arrive(&mut ahead, &mut next, &[1; 3 * CHUNKS_AT_ONCE]);
        }
        if round % 3 == 0 {
            let mut gathered = BytesMut::new();
            ahead.gather(&mut gathered, usize::MAX);
            assert!(ahead.is_empty());
            check(&gathered);
        } else {
            let mut gathered = BytesMut::new();
            ahead.gather(&mut gathered, 5);
            assert_eq!(gathered.len(), 5);
            check(&gathered);
        }
    }
    assert!(
        ahead.places.len() < 50 * CHUNKS_AT_ONCE,
        "places are used again"
    );
}
