//! The form of membership messages on the wire: `foca`'s headers and members through the project's codec.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU16, Ordering};

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Incarnation, Member, Message, ProbeNumber, State};
use oxicode::{Decode, Encode};
use thiserror::Error;

use super::touched::Touched;
use crate::Identity;
use crate::codec::{self, CodecError};

/// Mirrors [`foca::Header`], which cannot derive the codec's traits.
#[derive(Encode, Decode)]
pub(super) struct WireHeader {
    pub(super) source: Identity,
    source_incarnation: Incarnation,
    pub(super) destination: Identity,
    message: WireMessage,
}

impl WireHeader {
    /// The number of the probe whose ping this is.
    pub(super) const fn ping(&self) -> Option<ProbeNumber> {
        match self.message {
            WireMessage::Ping(number) => Some(number),
            _ => None,
        }
    }

    /// The number of the probe that this answers by the target's own word.
    pub(super) const fn ack(&self) -> Option<ProbeNumber> {
        match self.message {
            WireMessage::Ack(number) => Some(number),
            _ => None,
        }
    }

    /// Whether this tells the destination that its life has ended.
    pub(super) const fn turns_undead(&self) -> bool {
        matches!(self.message, WireMessage::TurnUndead)
    }

    /// Whether a number of members may follow, and these.
    pub(super) const fn has_news(&self) -> bool {
        !matches!(self.message, WireMessage::Broadcast)
    }
}

/// Mirrors [`foca::Message`].
#[derive(Encode, Decode)]
enum WireMessage {
    Ping(ProbeNumber),
    Ack(ProbeNumber),
    PingReq {
        target: Identity,
        probe_number: ProbeNumber,
    },
    IndirectPing {
        origin: Identity,
        probe_number: ProbeNumber,
    },
    IndirectAck {
        target: Identity,
        probe_number: ProbeNumber,
    },
    ForwardedAck {
        origin: Identity,
        probe_number: ProbeNumber,
    },
    Announce,
    Feed,
    Gossip,
    Broadcast,
    TurnUndead,
}

/// Mirrors [`foca::Member`].
#[derive(Encode, Decode)]
pub(super) struct WireMember {
    identity: Identity,
    incarnation: Incarnation,
    state: WireState,
}

#[derive(Encode, Decode)]
enum WireState {
    Alive,
    Suspect,
    Down,
}

#[derive(Debug, Error)]
pub(super) enum WireError {
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("no room left in the datagram")]
    NoRoom,
}

/// foca writes each member down that has changed, to spread it, and its own incarnation in front of whatever it sends;
/// the codec notes both.
pub(super) struct OxiCodec {
    touched: Arc<Touched>,
    incarnation: Arc<AtomicU16>,
}

impl OxiCodec {
    pub(super) const fn new(touched: Arc<Touched>, incarnation: Arc<AtomicU16>) -> OxiCodec {
        OxiCodec {
            touched,
            incarnation,
        }
    }
}

impl From<&Member<Identity>> for WireMember {
    fn from(member: &Member<Identity>) -> WireMember {
        WireMember {
            identity: member.id().clone(),
            incarnation: member.incarnation(),
            state: match member.state() {
                State::Alive => WireState::Alive,
                State::Suspect => WireState::Suspect,
                State::Down => WireState::Down,
            },
        }
    }
}

impl From<WireMember> for Member<Identity> {
    fn from(member: WireMember) -> Member<Identity> {
        let state = match member.state {
            WireState::Alive => State::Alive,
            WireState::Suspect => State::Suspect,
            WireState::Down => State::Down,
        };
        Member::new(member.identity, member.incarnation, state)
    }
}

fn put<T: Encode>(value: &T, mut buffer: impl BufMut) -> Result<(), WireError> {
    let bytes = codec::encode(value);
    if buffer.remaining_mut() < bytes.len() {
        // foca asks to leave the buffer untouched: it then sends what fits.
        return Err(WireError::NoRoom);
    }
    buffer.put_slice(&bytes);
    Ok(())
}

fn take<T: Decode>(mut buffer: impl Buf) -> Result<T, WireError> {
    // foca guarantees that its buffers are contiguous.
    let available = buffer.chunk();
    let (value, rest) = codec::decode_prefix::<T>(available)?;
    let used = available.len() - rest.len();
    buffer.advance(used);
    Ok(value)
}

impl Codec<Identity> for OxiCodec {
    type Error = WireError;

    fn encode_header(
        &mut self,
        header: &Header<Identity>,
        buffer: impl BufMut,
    ) -> Result<(), WireError> {
        self.incarnation
            .store(header.src_incarnation, Ordering::Relaxed);
        let message = match header.message.clone() {
            Message::Ping(number) => WireMessage::Ping(number),
            Message::Ack(number) => WireMessage::Ack(number),
            Message::PingReq {
                target,
                probe_number,
            } => WireMessage::PingReq {
                target,
                probe_number,
            },
            Message::IndirectPing {
                origin,
                probe_number,
            } => WireMessage::IndirectPing {
                origin,
                probe_number,
            },
            Message::IndirectAck {
                target,
                probe_number,
            } => WireMessage::IndirectAck {
                target,
                probe_number,
            },
            Message::ForwardedAck {
                origin,
                probe_number,
            } => WireMessage::ForwardedAck {
                origin,
                probe_number,
            },
            Message::Announce => WireMessage::Announce,
            Message::Feed => WireMessage::Feed,
            Message::Gossip => WireMessage::Gossip,
            Message::Broadcast => WireMessage::Broadcast,
            Message::TurnUndead => WireMessage::TurnUndead,
        };
        let header = WireHeader {
            source: header.src.clone(),
            source_incarnation: header.src_incarnation,
            destination: header.dst.clone(),
            message,
        };
        put(&header, buffer)
    }

    fn decode_header(&mut self, buffer: impl Buf) -> Result<Header<Identity>, WireError> {
        let header: WireHeader = take(buffer)?;
        let message = match header.message {
            WireMessage::Ping(number) => Message::Ping(number),
            WireMessage::Ack(number) => Message::Ack(number),
            WireMessage::PingReq {
                target,
                probe_number,
            } => Message::PingReq {
                target,
                probe_number,
            },
            WireMessage::IndirectPing {
                origin,
                probe_number,
            } => Message::IndirectPing {
                origin,
                probe_number,
            },
            WireMessage::IndirectAck {
                target,
                probe_number,
            } => Message::IndirectAck {
                target,
                probe_number,
            },
            WireMessage::ForwardedAck {
                origin,
                probe_number,
            } => Message::ForwardedAck {
                origin,
                probe_number,
            },
            WireMessage::Announce => Message::Announce,
            WireMessage::Feed => Message::Feed,
            WireMessage::Gossip => Message::Gossip,
            WireMessage::Broadcast => Message::Broadcast,
            WireMessage::TurnUndead => Message::TurnUndead,
        };
        Ok(Header {
            src: header.source,
            src_incarnation: header.source_incarnation,
            dst: header.destination,
            message,
        })
    }

    fn encode_member(
        &mut self,
        member: &Member<Identity>,
        buffer: impl BufMut,
    ) -> Result<(), WireError> {
        self.touched.add(&member.id().id);
        put(&WireMember::from(member), buffer)
    }

    fn decode_member(&mut self, buffer: impl Buf) -> Result<Member<Identity>, WireError> {
        take::<WireMember>(buffer).map(Member::from)
    }
}
