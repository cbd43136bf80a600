//! What a member says of itself, and its form on the wire.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use oxicode::de::Decoder;
use oxicode::enc::Encoder;
use oxicode::{Decode, Encode};

use super::hearsay::GENERATION_MAX;
use crate::limits::RELAYS_MAX;
use crate::{Instant, MemberState, Name, NodeId, NodeRole};

/// How a node said goodbye.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Departure {
    /// It stops and will be back.
    Stopped,
    /// It leaves for good.
    Left,
}

impl From<Departure> for MemberState {
    fn from(departure: Departure) -> MemberState {
        match departure {
            Departure::Stopped => MemberState::Stopped,
            Departure::Left => MemberState::Left,
        }
    }
}

/// A node as the group knows it. One node has one identity at a time: the one with the highest generation
/// and, of these, the highest revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The node.
    pub id: NodeId,
    /// What people call it.
    pub name: Name,
    /// What it is for.
    pub role: NodeRole,
    /// Where it listens.
    pub address: SocketAddr,
    /// Rises with every start of the node (use the milliseconds since 1970) and whenever the node comes back
    /// from the dead, so that news about an earlier life cannot bury this one.
    pub generation: u64,
    /// Whether and how the node said goodbye. A local identity starts with `None`.
    pub departed: Option<Departure>,
    /// Rises when the node says something new of itself within one life.
    pub revision: u32,
    /// The relays through which the node is reached, at most [`RELAYS_MAX`], best first. Empty when others can dial
    /// its address.
    pub relays: Vec<NodeId>,
}

/// A member and what is believed about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who it is.
    pub identity: Identity,
    /// What is believed about it.
    pub state: MemberState,
    /// When this node came to believe it.
    pub since: Instant,
}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Identity> {
        let generation = self.generation.checked_add(1)?;
        if generation > GENERATION_MAX {
            return None;
        }
        Some(Identity {
            generation,
            departed: None,
            ..self.clone()
        })
    }

    fn addr(&self) -> NodeId {
        self.id
    }

    /// The higher generation wins. The rest only makes the order total, so that two views of one
    /// generation (which a correct node never has) cannot both win.
    fn win_addr_conflict(&self, adversary: &Identity) -> bool {
        let order = |identity: &Identity| {
            let Identity {
                name,
                role,
                address,
                generation,
                departed,
                revision,
                relays,
                ..
            } = identity;
            (
                *generation,
                *departed,
                *revision,
                *address,
                *role,
                String::from(name.clone()),
                relays.clone(),
            )
        };
        order(self) > order(adversary)
    }
}

/// A socket address, all of it: an identity must be equal to itself after the journey.
#[derive(Encode, Decode)]
pub(crate) enum WireAddress {
    V4 {
        ip: [u8; 4],
        port: u16,
    },
    V6 {
        ip: [u8; 16],
        port: u16,
        flow: u32,
        scope: u32,
    },
}

impl From<SocketAddr> for WireAddress {
    fn from(address: SocketAddr) -> WireAddress {
        match address {
            SocketAddr::V4(v4) => WireAddress::V4 {
                ip: v4.ip().octets(),
                port: v4.port(),
            },
            SocketAddr::V6(v6) => WireAddress::V6 {
                ip: v6.ip().octets(),
                port: v6.port(),
                flow: v6.flowinfo(),
                scope: v6.scope_id(),
            },
        }
    }
}

impl From<WireAddress> for SocketAddr {
    fn from(address: WireAddress) -> SocketAddr {
        match address {
            WireAddress::V4 { ip, port } => {
                SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::from(ip), port))
            }
            WireAddress::V6 {
                ip,
                port,
                flow,
                scope,
            } => SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(ip), port, flow, scope)),
        }
    }
}

impl Encode for Identity {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), oxicode::Error> {
        let Identity {
            id,
            name,
            role,
            address,
            generation,
            departed,
            revision,
            relays,
        } = self;
        id.encode(encoder)?;
        name.encode(encoder)?;
        role.encode(encoder)?;
        WireAddress::from(*address).encode(encoder)?;
        generation.encode(encoder)?;
        departed.encode(encoder)?;
        revision.encode(encoder)?;
        relays.encode(encoder)
    }
}

impl Decode for Identity {
    fn decode<D: Decoder<Context = ()>>(decoder: &mut D) -> Result<Self, oxicode::Error> {
        let identity = Identity {
            id: Decode::decode(decoder)?,
            name: Decode::decode(decoder)?,
            role: Decode::decode(decoder)?,
            address: <WireAddress as Decode>::decode(decoder)?.into(),
            generation: Decode::decode(decoder)?,
            departed: Decode::decode(decoder)?,
            revision: Decode::decode(decoder)?,
            relays: Decode::decode(decoder)?,
        };
        if identity.relays.len() > RELAYS_MAX {
            return Err(oxicode::Error::Custom {
                message: "too many relays",
            });
        }
        Ok(identity)
    }
}
