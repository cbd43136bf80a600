//! Encoding and decoding: the only functions of the project that run OxiCode.
//!
//! OxiCode decodes hostile bytes safely only under rules that its types do not enforce, so they are kept
//! here, in one place:
//!
//! - **Always a limit.** Without one, nine bytes make a map ask for hundreds of gigabytes. The limit counts
//!   what decoding would *occupy* (a vector of `n` elements claims `n * size_of::<T>()` before it is
//!   allocated), so it bounds memory, not only input.
//! - **Every byte is consumed.** Trailing bytes are an error; a header followed by raw bytes is decoded with
//!   [`decode_prefix`], which says where the raw bytes begin.
//! - **No maps and no zero-sized elements** in wire types: elements of no size cost a claim of nothing, and
//!   a vector of them spins for as many turns as the peer wishes.
//! - **Payload bytes do not pass through here.** They follow the header and are neither copied nor counted.

use alloc::vec::Vec;

use oxicode::enc::{EncoderImpl, VecWriter};
use oxicode::{Decode, Encode, config};
use thiserror::Error;

use crate::limits::CODEC_BYTES_MAX;

/// Room for a header of the project, so that its buffer does not grow while it is written.
const USUAL_BYTES: usize = 96;

/// Bytes that are not what they should be. The peer (or the file) is at fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CodecError {
    /// The value would occupy more than the limit.
    #[error("the value occupies more than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The bytes end in the middle of the value.
    #[error("the bytes end in the middle of the value")]
    Truncated,
    /// Bytes follow the value.
    #[error("{count} bytes follow the value")]
    Trailing {
        /// How many.
        count: usize,
    },
    /// The bytes are no value of the type: an unknown variant, bad UTF-8, a value out of range.
    #[error("the bytes are not a value of the expected type")]
    Malformed,
}

/// The bytes of a value.
///
/// # Panics
///
/// If the value's own `Encode` fails, which none of the project's types can.
#[must_use]
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    let writer = VecWriter::with_capacity(USUAL_BYTES);
    let mut encoder = EncoderImpl::new(writer, config::standard());
    let encoded = value.encode(&mut encoder);
    encoded.expect("encoding into memory fails only if a type's Encode does");
    encoder.into_writer().into_vec()
}

/// The value in `bytes`, which must be nothing else, within [`CODEC_BYTES_MAX`].
///
/// # Errors
///
/// [`CodecError`] for anything that [`encode`] does not produce.
pub fn decode<T: Decode>(bytes: &[u8]) -> Result<T, CodecError> {
    decode_limited::<T, CODEC_BYTES_MAX>(bytes)
}

/// The value in `bytes`, which must be nothing else, occupying at most `LIMIT` bytes.
///
/// # Errors
///
/// [`CodecError`] for anything that [`encode`] does not produce.
pub fn decode_limited<T: Decode, const LIMIT: usize>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, rest) = decode_prefix_limited::<T, LIMIT>(bytes)?;
    match rest.len() {
        0 => Ok(value),
        count => Err(CodecError::Trailing { count }),
    }
}

/// The value that `bytes` begin with, within [`CODEC_BYTES_MAX`], and the raw bytes behind it.
///
/// # Errors
///
/// [`CodecError`] if the bytes do not begin with such a value.
pub fn decode_prefix<T: Decode>(bytes: &[u8]) -> Result<(T, &[u8]), CodecError> {
    decode_prefix_limited::<T, CODEC_BYTES_MAX>(bytes)
}

pub(crate) fn decode_prefix_limited<T: Decode, const LIMIT: usize>(
    bytes: &[u8],
) -> Result<(T, &[u8]), CodecError> {
    // The limit is a const parameter because OxiCode's configuration is a type.
    let config = oxicode::config::standard().with_limit::<LIMIT>();
    let (value, used) =
        oxicode::decode_from_slice_with_config(bytes, config).map_err(|e| match e {
            oxicode::Error::UnexpectedEnd { .. } => CodecError::Truncated,
            oxicode::Error::LimitExceeded { .. } => CodecError::TooLarge { limit: LIMIT },
            _ => CodecError::Malformed,
        })?;
    let rest = bytes.get(used..).ok_or(CodecError::Malformed)?;
    Ok((value, rest))
}

#[cfg(test)]
mod tests;
