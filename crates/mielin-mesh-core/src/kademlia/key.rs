//! Where things lie in the table: keys and the XOR metric.

use core::fmt;

use data_encoding::HEXLOWER;
use oxicode::{Decode, Encode};

use crate::{AgentId, Name, NodeId};

/// A point of the 256-bit key space. A node's point is its id, which is a hash of its public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Key(pub [u8; 32]);

impl Key {
    /// Where the location of an agent is kept.
    #[must_use]
    pub fn of_agent(agent: &AgentId) -> Key {
        Key(blake3::derive_key("mielin 2026 key of an agent", &agent.0))
    }

    /// Where the locations of the agents of this name are kept.
    #[must_use]
    pub fn of_name(name: &Name) -> Key {
        Key(blake3::derive_key(
            "mielin 2026 key of a name",
            name.as_str().as_bytes(),
        ))
    }

    /// How far apart two points are.
    #[must_use]
    pub fn distance(&self, other: &Key) -> Distance {
        let mut bytes = self.0;
        for (byte, other) in bytes.iter_mut().zip(other.0) {
            *byte ^= other;
        }
        Distance(bytes)
    }

    /// A point whose distance from this one has its highest bit at `bucket`; `random` gives the bits below.
    pub(super) fn in_bucket(&self, bucket: u8, random: [u8; 32]) -> Key {
        let byte = 31 - usize::from(bucket / 8);
        let bit = 1_u8 << (bucket % 8);
        let mut key = random;
        key[..byte].copy_from_slice(&self.0[..byte]);
        let kept = !(bit | (bit - 1));
        key[byte] = (self.0[byte] & kept) | (!self.0[byte] & bit) | (random[byte] & (bit - 1));
        Key(key)
    }
}

impl From<NodeId> for Key {
    fn from(node: NodeId) -> Key {
        Key(node.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", HEXLOWER.encode(&self.0[..4]))
    }
}

/// The XOR of two points as a big-endian number (Maymounkov and Mazières, section 2.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Distance([u8; 32]);

impl Distance {
    /// The position of its highest bit, 0 to 255; `None` for the distance of a point from itself.
    ///
    /// Points of one bucket are those with the same position.
    #[must_use]
    pub fn bucket(&self) -> Option<u8> {
        let index = self.0.iter().position(|byte| *byte != 0)?;
        let below = (31 - index) * 8;
        Some((below as u32 + self.0[index].ilog2()) as u8)
    }
}

impl fmt::Debug for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bucket() {
            Some(bucket) => write!(f, "Distance(2^{bucket})"),
            None => f.write_str("Distance(0)"),
        }
    }
}
