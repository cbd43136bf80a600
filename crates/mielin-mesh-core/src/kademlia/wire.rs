//! What the nodes of the table say to each other.

use alloc::vec::Vec;
use core::net::SocketAddr;

use oxicode::de::Decoder;
use oxicode::enc::Encoder;
use oxicode::{Decode, Encode};

use super::Key;
use crate::NodeId;
use crate::limits::{KADEMLIA_ADDRESSES_MAX, KADEMLIA_K, KADEMLIA_RECORDS_PER_KEY};
use crate::membership::WireAddress;

/// A node and where it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// The node.
    pub id: NodeId,
    /// Its addresses, best first; at most 4. They are what somebody said: only a connection proves who is
    /// there.
    pub addresses: Vec<SocketAddr>,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) enum Message<R> {
    Request {
        rpc: u64,
        /// Who asks, when it wants to be in tables: a node that cannot be dialled does not.
        sender: Option<Contact>,
        body: Request<R>,
    },
    Response {
        rpc: u64,
        body: Response<R>,
    },
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) enum Request<R> {
    Ping,
    /// The k known nodes nearest to the target.
    FindNode(Key),
    /// The records under the key, and the k known nodes nearest to it.
    FindValue(Key),
    Store(Key, Kept<R>),
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) enum Response<R> {
    Pong,
    Found {
        records: Vec<Kept<R>>,
        nodes: Vec<Contact>,
    },
    Stored,
    /// A newer record of that agent is kept here.
    Superseded(Kept<R>),
    Refused(StoreRefusal),
}

/// A record and how long it may live on.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct Kept<R> {
    pub(super) record: R,
    /// Seconds. Who repairs a copy passes on what is left, so that a repair does not prolong a life.
    pub(super) ttl_s: u32,
}

/// Why a node does not keep a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum StoreRefusal {
    /// Its signature is wrong, or it does not belong under that key.
    NotGenuine,
    /// The node knows k nodes that are nearer to the key.
    TooFar,
    /// The node has no room.
    Full,
}

impl Contact {
    fn is_sound(&self) -> bool {
        (1..=KADEMLIA_ADDRESSES_MAX).contains(&self.addresses.len())
    }
}

impl Encode for Contact {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), oxicode::Error> {
        self.id.encode(encoder)?;
        let addresses = self.addresses.iter().copied().map(WireAddress::from);
        addresses.collect::<Vec<_>>().encode(encoder)
    }
}

impl Decode for Contact {
    fn decode<D: Decoder<Context = ()>>(decoder: &mut D) -> Result<Self, oxicode::Error> {
        let id = Decode::decode(decoder)?;
        let addresses: Vec<WireAddress> = Decode::decode(decoder)?;
        let addresses = addresses.into_iter().map(SocketAddr::from).collect();
        Ok(Contact { id, addresses })
    }
}

impl<R> Message<R> {
    /// Whether the counts are within what a node of ours says.
    pub(super) fn is_sound(&self) -> bool {
        match self {
            Message::Request { sender, .. } => sender.as_ref().is_none_or(Contact::is_sound),
            Message::Response {
                body: Response::Found { records, nodes },
                ..
            } => {
                records.len() <= KADEMLIA_RECORDS_PER_KEY
                    && nodes.len() <= KADEMLIA_K
                    && nodes.iter().all(Contact::is_sound)
            }
            Message::Response { .. } => true,
        }
    }
}
