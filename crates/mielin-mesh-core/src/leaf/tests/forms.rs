//! Frames on a line, and the forms of packets.

use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use crate::leaf::packet::{Answer, Body, Hello, Packet, SEGMENT_BYTES_MAX, Segment};
use crate::leaf::{
    FRAME_BYTES_MAX, FrameDecoder, MESSAGE_BYTES_MAX, MESSAGE_OVERHEAD_BYTES, PACKET_BYTES_MAX,
    frame,
};

/// Decodes what stands between two zeros as the paper has it, with all of it at hand.
fn decode(mut frame: &[u8]) -> Option<Vec<u8>> {
    let mut packet = Vec::new();
    while let Some((&code, rest)) = frame.split_first() {
        let run = usize::from(code) - 1;
        packet.extend_from_slice(rest.get(..run)?);
        frame = &rest[run..];
        if code < 255 && !frame.is_empty() {
            packet.push(0);
        }
    }
    Some(packet)
}

/// All packets on a line, by the naive decoder, and how many frames were none.
fn decode_line(line: &[u8]) -> (Vec<Vec<u8>>, u32) {
    let end = line.iter().rposition(|&byte| byte == 0).unwrap_or(0);
    let frames = line[..end]
        .split(|&byte| byte == 0)
        .filter(|frame| !frame.is_empty());
    let (mut packets, mut damaged) = (Vec::new(), 0);
    for frame in frames {
        match decode(frame).filter(|packet| packet.len() <= PACKET_BYTES_MAX) {
            Some(packet) => packets.push(packet),
            None => damaged += 1,
        }
    }
    (packets, damaged)
}

fn decode_in_pieces(line: &[u8], piece: usize) -> (Vec<Vec<u8>>, u32) {
    let (mut decoder, mut packets) = (FrameDecoder::new(), Vec::new());
    for mut piece in line.chunks(piece) {
        while let Some(packet) = decoder.next_packet(&mut piece) {
            packets.push(packet.to_vec());
        }
    }
    (packets, decoder.damaged())
}

/// Bytes with many zeros, many ones and long runs, of a packet's length.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![2 => Just(0_u8), 2 => Just(1), 2 => Just(255), 5 => any::<u8>()];
    let mixed = prop::collection::vec(byte, 1..=PACKET_BYTES_MAX);
    let run = (1..=PACKET_BYTES_MAX, 1..=255_u8).prop_map(|(len, byte)| vec![byte; len]);
    prop_oneof![mixed, run]
}

proptest! {
    #[test]
    fn packets_cross_a_line(packets in prop::collection::vec(packet(), 1..6), piece in 1_usize..700) {
        let mut line = Vec::new();
        for packet in &packets {
            let mut buffer = [7; FRAME_BYTES_MAX];
            let frame = frame(packet, &mut buffer);
            prop_assert!(frame[1..frame.len() - 1].iter().all(|&byte| byte != 0));
            prop_assert!(frame.len() <= packet.len() + 3 + packet.len() / 254);
            line.extend_from_slice(frame);
        }
        prop_assert_eq!(decode_in_pieces(&line, piece), (packets.clone(), 0));
        prop_assert_eq!(decode_line(&line), (packets, 0));
    }

    #[test]
    fn any_line_is_read_as_by_the_naive_decoder(
        mut line in prop::collection::vec(prop_oneof![1 => Just(0_u8), 1 => 1..6_u8, 1 => Just(255), 3 => any::<u8>()], 0..3000),
        piece in 1_usize..700,
    ) {
        line.push(0);
        prop_assert_eq!(decode_in_pieces(&line, piece), decode_line(&line));
    }

    #[test]
    fn segments_round_trip(
        acknowledged: u16, window in 0_u8..16, ask: bool, asleep: bool, number: u16, milliseconds: u32,
        message in prop::collection::vec(any::<u8>(), 0..=MESSAGE_BYTES_MAX), kind in 0..3,
    ) {
        let body = match kind {
            0 => Body::Nothing,
            1 => Body::Message { number, message: &message },
            _ => Body::Doze { milliseconds },
        };
        let segment = Segment { acknowledged, window, ask, asleep, body };
        let mut bytes = [0; SEGMENT_BYTES_MAX];
        let len = segment.write(&mut bytes);
        prop_assert_eq!(Segment::parse(&bytes[..len]), Some(segment));
    }

    #[test]
    fn what_handshakes_carry_round_trips(
        number: u32, handshake: u32, incarnation: u64, known: u64, resumed: bool,
    ) {
        let hello = Hello { number, handshake, incarnation, known };
        prop_assert_eq!(Hello::decode(&hello.encode()), hello);
        let answer = Answer { incarnation, resumed };
        prop_assert_eq!(Answer::decode(&answer.encode()), answer);
    }

    #[test]
    fn no_bytes_make_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), kind in 0x10_u8..0x18) {
        let mut bytes = bytes;
        let _ = Segment::parse(&bytes);
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        let _ = Packet::parse(&bytes);
    }
}

#[test]
fn a_decoder_finds_its_place_again() {
    let mut buffer = [0; FRAME_BYTES_MAX];
    let good = frame(b"good", &mut buffer).to_vec();
    let check = |noise: &[u8], damaged| {
        let line = [noise, &good].concat();
        assert_eq!(
            decode_in_pieces(&line, 5),
            (vec![b"good".to_vec()], damaged)
        );
    };
    check(&[], 0);
    check(&[0, 0, 0], 0);
    check(&[9, 1, 2], 1);
    check(&[255; 5000], 1);
    check(&good[..4], 1);
    // A frame as long as the longest packet allows, and one byte more.
    let longest = frame(&[1; PACKET_BYTES_MAX], &mut buffer).to_vec();
    assert_eq!(longest.len(), FRAME_BYTES_MAX);
    assert_eq!(decode_line(&longest), (vec![vec![1; PACKET_BYTES_MAX]], 0));
    let mut longer = longest.clone();
    longer.insert(FRAME_BYTES_MAX - 1, 1);
    assert_eq!(decode_in_pieces(&longer, 9), (vec![], 1));
}

#[test]
fn the_sizes_are_those_that_the_document_states() {
    use crate::leaf::packet::{ANSWER_BYTES, HELLO_BYTES, REFUSED_BYTES, UNKNOWN_BYTES};
    assert_eq!(
        (HELLO_BYTES, ANSWER_BYTES, REFUSED_BYTES, UNKNOWN_BYTES),
        (133, 74, 14, 9)
    );
    assert_eq!(
        (MESSAGE_OVERHEAD_BYTES, MESSAGE_BYTES_MAX, FRAME_BYTES_MAX),
        (30, 482, 517)
    );
}
