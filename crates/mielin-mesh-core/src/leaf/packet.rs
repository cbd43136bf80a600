//! The forms of the packets. docs/LEAF.md says the same for people who write another implementation.
//!
//! Numbers are little-endian. The first byte has the version in its high half and the kind in its low half.
//!
//! ```text
//! hello    | 11 | sender u32                    | first message of the handshake, 120 | mac 8 |   133
//! answer   | 12 | receiver u32  | sender u32    | second message, 57                  | mac 8 |    74
//! refused  | 13 | receiver u32  | reason u8     | mac 8 |                                        14
//! sealed   | 14 | receiver u32  | counter u32   | a sealed segment, 19 to 503         |          28 to 512
//! unknown  | 15 | receiver u32  | counter u32   |                                                9
//! ```
//!
//! The mac of a hello is made with the host's public key, that of an answer with the leaf's. Hellos of every version
//! begin with head and sender and end in such a mac, and refusals have the same form in every version: their mac is made
//! with the host's public key, over what precedes it and the mac of the hello, so that neither a damaged hello nor a damaged
//! refusal is believed.

use super::noise::{self, MAC_BYTES, TAG_BYTES};
use super::{PACKET_BYTES_MAX, PublicKey};

/// The version that is spoken here.
pub(super) const VERSION: u8 = 1;

const HELLO: u8 = 1;
const ANSWER: u8 = 2;
const REFUSED: u8 = 3;
const SEALED: u8 = 4;
const UNKNOWN: u8 = 5;

/// Bytes of a hello.
pub(super) const HELLO_BYTES: usize = 5 + HELLO_NOISE_BYTES + MAC_BYTES;
const HELLO_NOISE_BYTES: usize = noise::FIRST_BYTES + Hello::BYTES;
/// Bytes of an answer.
pub(super) const ANSWER_BYTES: usize = 9 + ANSWER_NOISE_BYTES + MAC_BYTES;
const ANSWER_NOISE_BYTES: usize = noise::SECOND_BYTES + Answer::BYTES;
/// Bytes of a refusal, in every version.
pub(super) const REFUSED_BYTES: usize = 5 + MAC_BYTES + 1;
/// Bytes of the word that a connection is unknown.
pub(super) const UNKNOWN_BYTES: usize = 9;
/// Bytes before what is sealed.
pub(super) const SEALED_HEADER_BYTES: usize = 9;
/// The longest segment.
pub(super) const SEGMENT_BYTES_MAX: usize = PACKET_BYTES_MAX - SEALED_HEADER_BYTES - TAG_BYTES;

/// A packet as it came; nothing is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packet<'p> {
    Hello {
        sender: u32,
        noise: &'p [u8; HELLO_NOISE_BYTES],
        mac: Mac<'p>,
    },
    Answer {
        receiver: u32,
        sender: u32,
        noise: &'p [u8; ANSWER_NOISE_BYTES],
        mac: Mac<'p>,
    },
    Refused {
        /// The version of whoever refuses.
        version: u8,
        receiver: u32,
        reason: u8,
        mac: Mac<'p>,
    },
    Sealed {
        receiver: u32,
        counter: u32,
        sealed: &'p [u8],
    },
    Unknown {
        receiver: u32,
        counter: u32,
    },
}

/// The keyed hash at the end of a packet, and what it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mac<'p> {
    of: &'p [u8],
    pub(super) bytes: [u8; MAC_BYTES],
}

impl<'p> Mac<'p> {
    fn split(packet: &'p [u8]) -> Option<Mac<'p>> {
        let (of, bytes) = packet.split_last_chunk()?;
        Some(Mac { of, bytes: *bytes })
    }

    /// Whether the packet is for the holder of this key, and came as it was sent.
    pub(super) fn is_for(&self, receiver: &PublicKey) -> bool {
        self.is(noise::mac(receiver, self.of))
    }

    /// Whether this is under a refusal that somebody has made who knows this host and has seen this hello.
    pub(super) fn is_refusal_by(&self, host: &PublicKey, hello_mac: &[u8; MAC_BYTES]) -> bool {
        self.of
            .try_into()
            .is_ok_and(|of| self.is(refusal_mac(of, host, hello_mac)))
    }

    /// Looks at all of it, so that the time says nothing about where the first difference is.
    fn is(&self, expected: [u8; MAC_BYTES]) -> bool {
        let pairs = expected.iter().zip(&self.bytes);
        pairs.fold(0, |different, (a, b)| different | (a ^ b)) == 0
    }
}

/// Bytes that are no packet of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable<'p> {
    /// A hello of another version, from this sender and with this mac: all that every version has.
    OtherHello { sender: u32, mac: Mac<'p> },
    /// Another packet of another version.
    OtherVersion,
    /// Not one that this version has.
    Malformed,
}

impl<'p> Packet<'p> {
    pub(super) fn parse(packet: &'p [u8]) -> Result<Packet<'p>, Unreadable<'p>> {
        let (&head, rest) = packet.split_first().ok_or(Unreadable::Malformed)?;
        let (version, kind) = (head >> 4, head & 0xf);
        if version != VERSION && kind != REFUSED {
            let hello = (kind == HELLO).then(|| other_hello(packet, rest)).flatten();
            return Err(hello.unwrap_or(Unreadable::OtherVersion));
        }
        let parsed = match kind {
            HELLO => Packet::hello(packet, rest),
            ANSWER => Packet::answer(packet, rest),
            REFUSED => Packet::refused(version, packet, rest),
            SEALED => Packet::sealed(rest),
            UNKNOWN => Packet::unknown(rest),
            _ => None,
        };
        parsed.ok_or(Unreadable::Malformed)
    }

    fn hello(packet: &'p [u8], rest: &'p [u8]) -> Option<Packet<'p>> {
        let (sender, rest) = split_u32(rest)?;
        let (noise, rest) = rest.split_first_chunk()?;
        (rest.len() == MAC_BYTES).then_some(())?;
        let mac = Mac::split(packet)?;
        Some(Packet::Hello { sender, noise, mac })
    }

    fn answer(packet: &'p [u8], rest: &'p [u8]) -> Option<Packet<'p>> {
        let (receiver, rest) = split_u32(rest)?;
        let (sender, rest) = split_u32(rest)?;
        let (noise, rest) = rest.split_first_chunk()?;
        (rest.len() == MAC_BYTES).then_some(())?;
        let mac = Mac::split(packet)?;
        Some(Packet::Answer {
            receiver,
            sender,
            noise,
            mac,
        })
    }

    fn refused(version: u8, packet: &'p [u8], rest: &'p [u8]) -> Option<Packet<'p>> {
        let (receiver, rest) = split_u32(rest)?;
        let (&reason, rest) = rest.split_first()?;
        (rest.len() == MAC_BYTES).then_some(())?;
        let mac = Mac::split(packet)?;
        Some(Packet::Refused {
            version,
            receiver,
            reason,
            mac,
        })
    }

    fn sealed(rest: &'p [u8]) -> Option<Packet<'p>> {
        let (receiver, rest) = split_u32(rest)?;
        let (counter, sealed) = split_u32(rest)?;
        let segment = sealed.len().checked_sub(TAG_BYTES)?;
        (Segment::HEADER_BYTES..=SEGMENT_BYTES_MAX)
            .contains(&segment)
            .then_some(Packet::Sealed {
                receiver,
                counter,
                sealed,
            })
    }

    fn unknown(rest: &'p [u8]) -> Option<Packet<'p>> {
        let (receiver, rest) = split_u32(rest)?;
        let (counter, rest) = split_u32(rest)?;
        rest.is_empty()
            .then_some(Packet::Unknown { receiver, counter })
    }
}

fn other_hello<'p>(packet: &'p [u8], rest: &'p [u8]) -> Option<Unreadable<'p>> {
    let (sender, rest) = split_u32(rest)?;
    (rest.len() >= MAC_BYTES).then_some(())?;
    let mac = Mac::split(packet)?;
    Some(Unreadable::OtherHello { sender, mac })
}

const fn head(kind: u8) -> u8 {
    VERSION << 4 | kind
}

/// Writes a hello around the first message of a handshake, which `noise` writes to where it belongs.
pub(super) fn write_hello<T>(
    sender: u32,
    host: &PublicKey,
    noise: impl FnOnce(&mut [u8]) -> T,
) -> ([u8; HELLO_BYTES], T) {
    let mut packet = [0; HELLO_BYTES];
    packet[0] = head(HELLO);
    packet[1..5].copy_from_slice(&sender.to_le_bytes());
    let made = noise(&mut packet[5..][..HELLO_NOISE_BYTES]);
    finish_with_mac(&mut packet, host);
    (packet, made)
}

/// Writes an answer around the second message of a handshake, which `noise` writes to where it belongs.
pub(super) fn write_answer<T>(
    receiver: u32,
    sender: u32,
    leaf: &PublicKey,
    noise: impl FnOnce(&mut [u8]) -> T,
) -> ([u8; ANSWER_BYTES], T) {
    let mut packet = [0; ANSWER_BYTES];
    packet[..9].copy_from_slice(&header(ANSWER, receiver, sender));
    let made = noise(&mut packet[9..][..ANSWER_NOISE_BYTES]);
    finish_with_mac(&mut packet, leaf);
    (packet, made)
}

fn finish_with_mac(packet: &mut [u8], receiver: &PublicKey) {
    let (of, place) = packet.split_at_mut(packet.len() - MAC_BYTES);
    place.copy_from_slice(&noise::mac(receiver, of));
}

/// Writes a refusal of the hello with this sender and mac.
pub(super) fn write_refused(
    receiver: u32,
    hello_mac: &[u8; MAC_BYTES],
    reason: u8,
    host: &PublicKey,
) -> [u8; REFUSED_BYTES] {
    let mut packet = [0; REFUSED_BYTES];
    packet[0] = head(REFUSED);
    packet[1..5].copy_from_slice(&receiver.to_le_bytes());
    packet[5] = reason;
    let mac = refusal_mac(part(&packet, 0), host, hello_mac);
    packet[REFUSED_BYTES - MAC_BYTES..].copy_from_slice(&mac);
    packet
}

fn refusal_mac(
    of: [u8; REFUSED_BYTES - MAC_BYTES],
    host: &PublicKey,
    hello_mac: &[u8; MAC_BYTES],
) -> [u8; MAC_BYTES] {
    let mut both = [0; REFUSED_BYTES];
    both[..of.len()].copy_from_slice(&of);
    both[of.len()..].copy_from_slice(hello_mac);
    noise::mac(host, &both)
}

/// Writes the word that nobody here is this receiver.
pub(super) fn write_unknown(receiver: u32, counter: u32) -> [u8; UNKNOWN_BYTES] {
    header(UNKNOWN, receiver, counter)
}

/// The header of a sealed packet.
pub(super) fn sealed_header(receiver: u32, counter: u32) -> [u8; SEALED_HEADER_BYTES] {
    header(SEALED, receiver, counter)
}

fn header(kind: u8, receiver: u32, second: u32) -> [u8; 9] {
    let [a, b, c, d] = receiver.to_le_bytes();
    let [e, f, g, h] = second.to_le_bytes();
    [head(kind), a, b, c, d, e, f, g, h]
}

/// What a leaf says in its hello, encrypted for the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    /// The number of its admission.
    pub(super) number: u32,
    /// Which of the leaf's handshakes this is, since it started.
    pub(super) handshake: u32,
    /// The leaf's incarnation: random at each start.
    pub(super) incarnation: u64,
    /// The incarnation of the host to which the leaf's streams belong; zero if there is none.
    pub(super) known: u64,
}

impl Hello {
    pub(super) const BYTES: usize = 24;

    pub(super) fn encode(&self) -> [u8; Hello::BYTES] {
        let mut bytes = [0; Hello::BYTES];
        bytes[..4].copy_from_slice(&self.number.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.handshake.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.incarnation.to_le_bytes());
        bytes[16..].copy_from_slice(&self.known.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; Hello::BYTES]) -> Hello {
        Hello {
            number: u32::from_le_bytes(part(bytes, 0)),
            handshake: u32::from_le_bytes(part(bytes, 4)),
            incarnation: u64::from_le_bytes(part(bytes, 8)),
            known: u64::from_le_bytes(part(bytes, 16)),
        }
    }
}

/// What a host says in its answer, encrypted for the leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The host's incarnation for this leaf.
    pub(super) incarnation: u64,
    /// Whether the streams go on where they were.
    pub(super) resumed: bool,
}

impl Answer {
    pub(super) const BYTES: usize = 9;

    pub(super) fn encode(&self) -> [u8; Answer::BYTES] {
        let mut bytes = [0; Answer::BYTES];
        bytes[..8].copy_from_slice(&self.incarnation.to_le_bytes());
        bytes[8] = self.resumed.into();
        bytes
    }

    pub(super) fn decode(bytes: &[u8; Answer::BYTES]) -> Answer {
        Answer {
            incarnation: u64::from_le_bytes(part(bytes, 0)),
            resumed: bytes[8] == 1,
        }
    }
}

/// What is sealed in a packet.
///
/// ```text
/// | window 4 bits, asleep, ask, body 2 bits | acknowledged u16 | body |
/// body: 0 nothing | 1 message: number u16, bytes | 2 doze: milliseconds u32
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment<'p> {
    /// The number that the sender expects next, which acknowledges those before it: the low half.
    pub(super) acknowledged: u16,
    /// Messages that it takes from there on.
    pub(super) window: u8,
    /// Whether an answer is wanted at once.
    pub(super) ask: bool,
    /// The host believes the leaf to be asleep.
    pub(super) asleep: bool,
    pub(super) body: Body<'p>,
}

/// What a segment carries besides the acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body<'p> {
    Nothing,
    Message {
        /// The low half of the message's number.
        number: u16,
        message: &'p [u8],
    },
    /// The leaf goes to sleep, for at most so long.
    Doze {
        milliseconds: u32,
    },
}

const ASK: u8 = 1 << 2;
const ASLEEP: u8 = 1 << 3;
const WINDOW_SHIFT: u8 = 4;

impl<'p> Segment<'p> {
    /// Bytes of a segment with no body.
    pub(super) const HEADER_BYTES: usize = 3;
    /// Bytes before a message.
    pub(super) const MESSAGE_HEADER_BYTES: usize = Segment::HEADER_BYTES + 2;

    /// Writes it to the front of `to`; how long it is.
    pub(super) fn write(&self, to: &mut [u8; SEGMENT_BYTES_MAX]) -> usize {
        let kind = match self.body {
            Body::Nothing => 0,
            Body::Message { .. } => 1,
            Body::Doze { .. } => 2,
        };
        let flag = |on: bool, bit| if on { bit } else { 0 };
        to[0] =
            kind | flag(self.ask, ASK) | flag(self.asleep, ASLEEP) | self.window << WINDOW_SHIFT;
        to[1..3].copy_from_slice(&self.acknowledged.to_le_bytes());
        match self.body {
            Body::Nothing => Segment::HEADER_BYTES,
            Body::Message { number, message } => {
                let end = Segment::MESSAGE_HEADER_BYTES + message.len();
                to[3..5].copy_from_slice(&number.to_le_bytes());
                to[5..end].copy_from_slice(message);
                end
            }
            Body::Doze { milliseconds } => {
                to[3..7].copy_from_slice(&milliseconds.to_le_bytes());
                7
            }
        }
    }

    /// The segment in these bytes, which must be nothing else.
    pub(super) fn parse(bytes: &'p [u8]) -> Option<Segment<'p>> {
        let (&[flags, low, high], rest) = bytes.split_first_chunk()?;
        let body = match flags & 0b11 {
            0 if rest.is_empty() => Body::Nothing,
            1 => {
                let (number, message) = rest.split_first_chunk()?;
                let number = u16::from_le_bytes(*number);
                Body::Message { number, message }
            }
            2 => {
                let milliseconds = u32::from_le_bytes(rest.try_into().ok()?);
                Body::Doze { milliseconds }
            }
            _ => return None,
        };
        Some(Segment {
            acknowledged: u16::from_le_bytes([low, high]),
            window: flags >> WINDOW_SHIFT,
            ask: flags & ASK != 0,
            asleep: flags & ASLEEP != 0,
            body,
        })
    }
}

/// The `N` bytes at `at`, which must be there.
fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    core::array::from_fn(|index| bytes[at + index])
}

fn split_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*number), rest))
}
