//! Packets on a stream: each behind its length.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The largest packet that a circuit carries: what a QUIC endpoint says that it takes by default.
pub(crate) const PACKET_BYTES_MAX: usize = 1472;
const LENGTH_BYTES: usize = 2;

/// A length that no packet has. The peer is at fault; what follows cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MalformedPacket {
    pub(crate) len: usize,
}

/// Takes the first whole packet off the bytes that have arrived; `None` when more have to come.
pub(crate) fn split(buffer: &mut BytesMut) -> Result<Option<Bytes>, MalformedPacket> {
    let Some((length, rest)) = buffer.split_first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let len = usize::from(u16::from_be_bytes(*length));
    if len == 0 || len > PACKET_BYTES_MAX {
        return Err(MalformedPacket { len });
    }
    if rest.len() < len {
        return Ok(None);
    }
    buffer.advance(LENGTH_BYTES);
    Ok(Some(buffer.split_to(len).freeze()))
}

/// Adds a packet of at most [`PACKET_BYTES_MAX`] bytes.
pub(crate) fn join(chunk: &mut BytesMut, packet: &[u8]) {
    chunk.put_u16(packet.len() as u16);
    chunk.put_slice(packet);
}
