#![allow(clippy::unwrap_used)]

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::{AgentState, LocationRecord, MigrationFrame};

/// One of everything that wire types are made of.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
struct Sample {
    number: u64,
    text: String,
    list: Vec<(u32, [u8; 16])>,
    choice: Option<AgentState>,
    wide: Vec<[u8; 64]>,
}

fn sample() -> Sample {
    Sample {
        number: 1 << 40,
        text: "text".into(),
        list: vec![(1, [1; 16]), (2, [2; 16])],
        choice: Some(AgentState::Ended { exit_code: 7 }),
        wide: vec![[3; 64]; 3],
    }
}

#[test]
fn everything_is_consumed_or_refused() {
    let mut bytes = encode(&sample());
    assert_eq!(decode(&bytes), Ok(sample()));
    for len in 0..bytes.len() {
        assert!(decode::<Sample>(&bytes[..len]).is_err(), "cut at {len}");
    }
    bytes.extend_from_slice(b"raw");
    assert_eq!(
        decode::<Sample>(&bytes),
        Err(CodecError::Trailing { count: 3 })
    );
    assert_eq!(decode_prefix::<Sample>(&bytes), Ok((sample(), &b"raw"[..])));
}

#[test]
fn a_claimed_length_is_not_believed() {
    // A length of 2^60, in each of the places that take one.
    let claim = [&[253][..], &(1_u64 << 60).to_le_bytes()].concat();
    assert_eq!(
        decode::<u64>(&claim),
        Ok(1 << 60),
        "this is how a length is written"
    );
    assert!(decode::<Vec<u8>>(&claim).is_err());
    assert!(decode::<String>(&claim).is_err());
    assert!(decode::<Vec<[u8; 64]>>(&claim).is_err());
    assert!(decode::<Vec<LocationRecord>>(&claim).is_err());
}

#[test]
fn the_limit_counts_what_decoding_would_occupy() {
    let large = vec![[1_u8; 64]; 100];
    let bytes = encode(&large);
    assert_eq!(decode_limited::<Vec<[u8; 64]>, 8_000>(&bytes), Ok(large));
    let refused = decode_limited::<Vec<[u8; 64]>, 6_000>(&bytes);
    assert_eq!(refused, Err(CodecError::TooLarge { limit: 6_000 }));
    // Raw bytes behind a value are not counted.
    let mut framed = encode(&7_u8);
    framed.resize(CODEC_BYTES_MAX * 2, 0);
    let (value, rest) = decode_prefix::<u8>(&framed).unwrap();
    assert_eq!((value, rest.len()), (7, CODEC_BYTES_MAX * 2 - 1));
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(value) = decode::<Sample>(&bytes) {
            prop_assert_eq!(decode(&encode(&value)), Ok(value));
        }
        let _ = decode::<LocationRecord>(&bytes);
        let _ = decode::<MigrationFrame>(&bytes);
    }

    #[test]
    fn a_flipped_bit_is_survived(at in 0_usize..400, bit in 0_u8..8) {
        let mut bytes = encode(&sample());
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(value) = decode::<Sample>(&bytes) {
            prop_assert_eq!(decode(&encode(&value)), Ok(value));
        }
    }
}
