//! The leaf link: how a microcontroller is a node of the mesh, by a host that speaks QUIC for it.
//!
//! The microcontroller is the [`Leaf`], the node of role Relay to which it holds on is the [`LeafHost`]. Between them
//! are packets of at most [`PACKET_BYTES_MAX`] bytes, as datagrams of UDP or as COBS frames ([`frame`],
//! [`FrameDecoder`]) on a serial line, which may be lost, damaged, doubled, reordered, overheard and forged. On top of
//! that stands a pair of streams of messages, each at most [`MESSAGE_BYTES_MAX`] bytes, exactly once and in order.
//! docs/LEAF.md has the protocol for people who write another implementation.
//!
//! | layer | module |
//! |---|---|
//! | messages: acknowledgement, retransmission, flow control | `stream`, `timing` |
//! | segments sealed under a counter, each taken in once | `connection`, `replay` |
//! | handshakes: Noise IKpsk2 by `snow`, and who is admitted | `noise`, `key`, `admission` |
//! | the forms of packets, and frames on a line | `packet`, `framing` |
//!
//! - **The streams outlive connections.** A handshake makes new keys, and the streams go on where they were as long as
//!   both ends remember: each end has an incarnation, random at its start, and the handshake compares them. If one
//!   end has started anew both streams begin again, and the other end is told, with what was not acknowledged.
//! - **A connection becomes current at the host when its leaf has used it.** A recorded handshake can be sent again by
//!   anybody; until the first packet under its keys comes, the connection before it goes on.
//! - **A leaf sleeps** as long as it likes and goes on in the same connection with its next packet. Its host holds back
//!   all that is for it.
//! - **Words that prove nothing end nothing.** Whoever overhears a leaf and knows its host's public key can refuse it,
//!   and whoever overhears it can say that its connection is not known; a leaf reports the first and waits for a minute, and
//!   makes a new handshake upon the second, now and then. No message and no connection is given up because of them.
//!
//! What is not here: sockets, serial ports, clocks, the meaning of messages, and where admissions and keys are kept.
//!
//! # Driving
//!
//! After each call that takes `now`, and after `send` and `take`, ask `poll_transmit` and `poll_event` until they
//! return `None`, then wait for a packet or for `poll_timeout`, and call `handle_timeout`.
//!
//! ```
//! use mielin_mesh_core::Instant;
//! use mielin_mesh_core::leaf::{Leaf, LeafHost, LeafNumber, PACKET_BYTES_MAX, SecretKey};
//!
//! let now = Instant::START;
//! let mut host = LeafHost::new(SecretKey::from_bytes([1; 32]), [2; 32], [3; 32]);
//! let number = LeafNumber(1);
//! let admission = host.admit(number, [4; 32], None).unwrap();
//! let mut leaf = Leaf::new(SecretKey::from_bytes([5; 32]), admission, [6; 32]);
//! leaf.send(b"21.5 degrees").unwrap();
//!
//! // A line that loses nothing, for as long as one of them speaks.
//! let mut buffer = [0; PACKET_BYTES_MAX];
//! leaf.handle_timeout(now);
//! loop {
//!     if let Some(packet) = leaf.poll_transmit(now, &mut buffer) {
//!         host.handle_packet(now, "line", packet).unwrap();
//!     } else if let Some((_, packet)) = host.poll_transmit(now, &mut buffer) {
//!         leaf.handle_packet(now, packet).unwrap();
//!     } else {
//!         break;
//!     }
//! }
//! assert_eq!(host.take(number).as_deref(), Some(&b"21.5 degrees"[..]));
//! ```

mod admission;
mod connection;
mod device;
mod framing;
mod host;
mod key;
mod noise;
mod packet;
mod replay;
mod stream;
mod timing;

use thiserror::Error;

pub use admission::{Admission, AdmissionError, LeafNumber};
pub use device::{Leaf, LeafEvent};
pub use framing::{FRAME_BYTES_MAX, FrameDecoder, frame};
pub use host::{HostEvent, HostEventKind, LeafHost, LeafState};
pub use key::{PublicKey, SecretKey};

/// The longest packet.
pub const PACKET_BYTES_MAX: usize = crate::limits::LEAF_PACKET_BYTES_MAX;

/// The longest message: what fits into one packet.
pub const MESSAGE_BYTES_MAX: usize =
    packet::SEGMENT_BYTES_MAX - packet::Segment::MESSAGE_HEADER_BYTES;

/// What a packet adds to a message: header, tag, and the segment's header. A serial line adds two to five bytes more.
pub const MESSAGE_OVERHEAD_BYTES: usize = PACKET_BYTES_MAX - MESSAGE_BYTES_MAX;

/// A message that was not taken, or a call that the link's state does not allow. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LinkError {
    /// As many messages as there may be are not acknowledged yet. Try again after the event that says that there is room.
    #[error("{count} messages wait to be acknowledged already")]
    Full {
        /// How many.
        count: usize,
    },
    /// The message does not fit into a packet. The caller is at fault.
    #[error("a message of {size} bytes is larger than the {max} bytes that a packet carries")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The largest.
        max: usize,
    },
    /// There is no connection.
    #[error("there is no connection")]
    NotConnected,
    /// The host has no admission of that number, or for another key.
    #[error("no such leaf is admitted")]
    NotAdmitted,
    /// The host has as many leaves as it may have, or has this one already.
    #[error("no more leaves, or no second leaf of this number, can be admitted")]
    NoRoom,
}

/// A packet that was dropped. Nothing has changed. A driver counts these; they are no reason to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PacketError {
    /// It is no packet of the protocol.
    #[error("the bytes are no packet of a leaf link")]
    Malformed,
    /// It is of another version of the protocol.
    #[error("the packet is of another version of the protocol")]
    OtherVersion,
    /// It was sealed by somebody else or damaged on its way, or it is for somebody else.
    #[error("the packet is not genuine")]
    NotGenuine,
    /// It was here before, or is so old that it may have been.
    #[error("the packet was here before")]
    Repeated,
    /// It belongs to a connection or a handshake that is not known (any more).
    #[error("the packet belongs to no connection")]
    Unknown,
    /// The host was asked for too many handshakes at once, or by a leaf that is not admitted.
    #[error("the handshake is refused")]
    Refused,
}

/// Why a host refuses a leaf. Whoever has overheard the leaf and knows the host's public key can say so too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The host speaks another version of the protocol.
    #[error("the host speaks version {version} of the protocol")]
    OtherVersion {
        /// Which.
        version: u8,
    },
    /// The host does not serve the mesh of the admission.
    #[error("the host belongs to another mesh")]
    OtherMesh,
    /// The host has no admission of this number (any more).
    #[error("the host does not know the admission")]
    NotAdmitted,
    /// The admission was used first by a leaf with another key.
    #[error("the admission belongs to another leaf")]
    OtherKey,
    /// The host's secret for this admission is not the leaf's. The leaf found that out itself.
    #[error("the host has another secret for the admission")]
    OtherSecret,
    /// For a reason that this version does not know.
    #[error("the host refuses for reason {reason}")]
    Other {
        /// Its number.
        reason: u8,
    },
}

const REASON_VERSION: u8 = 1;
const REASON_MESH: u8 = 2;
const REASON_NOT_ADMITTED: u8 = 3;
const REASON_KEY: u8 = 4;

impl Refusal {
    /// What a refusal with this number means, from a host of this version.
    const fn of_reason(reason: u8, version: u8) -> Refusal {
        match reason {
            REASON_VERSION => Refusal::OtherVersion { version },
            REASON_MESH => Refusal::OtherMesh,
            REASON_NOT_ADMITTED => Refusal::NotAdmitted,
            REASON_KEY => Refusal::OtherKey,
            reason => Refusal::Other { reason },
        }
    }
}

#[cfg(test)]
mod tests;
