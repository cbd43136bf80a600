//! What one handshake has made: keys, counters, and which packets have been here.

use super::noise::{Keys, TAG_BYTES};
use super::packet::{SEALED_HEADER_BYTES, SEGMENT_BYTES_MAX, Segment, sealed_header};
use super::replay::ReplayWindow;
use super::{PACKET_BYTES_MAX, PacketError};

/// A connection between a leaf and its host, seen from one end.
pub(super) struct Connection {
    keys: Keys,
    /// How the peer names it in packets to us.
    pub(super) ours: u32,
    /// How we name it in packets to the peer.
    pub(super) theirs: u32,
    next_counter: u32,
    replay: ReplayWindow,
}

/// What was in a packet.
pub(super) struct Opened<'b> {
    pub(super) segment: Segment<'b>,
    /// Whether no later packet of this connection has come before: only then does it say how things stand.
    pub(super) newest: bool,
}

impl Connection {
    pub(super) fn new(keys: Keys, ours: u32, theirs: u32) -> Connection {
        Connection {
            keys,
            ours,
            theirs,
            next_counter: 0,
            replay: ReplayWindow::default(),
        }
    }

    /// Packets that were sealed.
    pub(super) const fn sent(&self) -> u32 {
        self.next_counter
    }

    /// Writes the segment as a packet; `None` when the counter is at its end, and the connection can send no more.
    pub(super) fn seal<'b>(
        &mut self,
        segment: &Segment<'_>,
        packet: &'b mut [u8; PACKET_BYTES_MAX],
    ) -> Option<&'b [u8]> {
        let counter = self.next_counter;
        self.next_counter = counter.checked_add(1)?;
        let mut plain = [0; SEGMENT_BYTES_MAX];
        let len = segment.write(&mut plain);
        packet[..SEALED_HEADER_BYTES].copy_from_slice(&sealed_header(self.theirs, counter));
        let sealed = &mut packet[SEALED_HEADER_BYTES..][..len + TAG_BYTES];
        let sealed = self.keys.seal(counter, &plain[..len], sealed);
        Some(&packet[..SEALED_HEADER_BYTES + sealed])
    }

    /// Opens what the peer has sealed, once for each counter.
    pub(super) fn open<'b>(
        &mut self,
        counter: u32,
        sealed: &[u8],
        plain: &'b mut [u8; SEGMENT_BYTES_MAX],
    ) -> Result<Opened<'b>, PacketError> {
        // The last number is never a counter, so that one more than a counter is a number.
        if counter == u32::MAX {
            return Err(PacketError::Malformed);
        }
        if !self.replay.is_fresh(counter) {
            return Err(PacketError::Repeated);
        }
        let opened = self.keys.open(counter, sealed, plain);
        let len = opened.map_err(|_| PacketError::NotGenuine)?;
        let newest = self.replay.note(counter);
        let segment = Segment::parse(&plain[..len]).ok_or(PacketError::Malformed)?;
        Ok(Opened { segment, newest })
    }
}
