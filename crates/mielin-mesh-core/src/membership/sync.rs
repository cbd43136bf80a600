//! Anti-entropy: what gossip has missed is found by comparing digests.
//!
//! SWIM spreads news for a while and then falls silent, so a member that was unlucky, or was away, never
//! hears it. Once in a probe period a member therefore shows one other, chosen at random, a digest of whom it
//! takes to be there: 64 hashes, each over the members whose id falls into that bucket. The other answers
//! with what it knows of the buckets that differ, and with its own digest, which is answered likewise but not
//! with another digest. So two members agree after three steps, an agreement costs a digest however many
//! members there are, and a difference costs the buckets that it is in.
//!
//! Only those who are there count: the dead are forgotten at different times. News of a death travels all
//! the same, in the bucket where somebody still takes the dead for alive; but of an unknown dead member nobody
//! learns this way, or the dead would never be forgotten.

use alloc::vec::Vec;

use oxicode::{Decode, Encode};

use super::{Identity, WireMember};
use crate::NodeId;
use crate::codec;
use crate::limits::{MEMBERSHIP_DATAGRAM_BYTES_MAX, MEMBERSHIP_SYNC_DATAGRAMS_MAX};

const BUCKETS: usize = 64;
const HASH_BYTES: usize = 4;

/// What one member tells another about all.
#[derive(Encode, Decode)]
pub(super) struct Digest {
    pub(super) source: NodeId,
    /// Whether this answers a digest, and wants none in return.
    pub(super) answer: bool,
    /// Chosen anew each time, so that two different groups with the same hashes differ the next time.
    salt: u64,
    hashes: [u8; BUCKETS * HASH_BYTES],
}

/// What a member knows of some others; those follow, one after the other, to the end of the datagram.
#[derive(Encode, Decode)]
pub(super) struct EntriesHeader {
    pub(super) source: NodeId,
}

/// Less than [`BUCKETS`].
pub(super) fn bucket_of(id: &NodeId) -> usize {
    usize::from(id.0[0]) % BUCKETS
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA
/// 2014). It need not withstand an attacker: a peer can lie about members anyway.
const fn mixed(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn hash(member: &foca::Member<Identity>, salt: u64) -> u32 {
    let identity = member.id();
    // An id is a hash, so eight bytes of it stand for all.
    let id = identity.id.0.last_chunk().copied().map(u64::from_le_bytes);
    let hash = mixed(salt ^ id.unwrap_or(0));
    let hash = mixed(hash ^ identity.generation);
    let hash = mixed(hash ^ u64::from(identity.revision));
    (mixed(hash ^ u64::from(member.incarnation())) >> 32) as u32
}

/// The members that two both hear of from third parties: all but these two.
fn third_parties<'a>(
    members: impl Iterator<Item = &'a foca::Member<Identity>>,
    pair: [NodeId; 2],
) -> impl Iterator<Item = &'a foca::Member<Identity>> {
    members.filter(move |member| !pair.contains(&member.id().id))
}

impl Digest {
    /// A digest of whom `source` takes to be there, for `to`.
    pub(super) fn new<'a>(
        source: NodeId,
        to: NodeId,
        answer: bool,
        salt: u64,
        members: impl Iterator<Item = &'a foca::Member<Identity>>,
    ) -> Digest {
        let mut sums = [0_u32; BUCKETS];
        for member in third_parties(members, [source, to]) {
            if member.state() != foca::State::Down {
                sums[bucket_of(&member.id().id)] ^= hash(member, salt);
            }
        }
        let mut hashes = [0; BUCKETS * HASH_BYTES];
        for (bytes, sum) in hashes.chunks_exact_mut(HASH_BYTES).zip(sums) {
            bytes.copy_from_slice(&sum.to_le_bytes());
        }
        Digest {
            source,
            answer,
            salt,
            hashes,
        }
    }

    /// The same members hashed with the same salt, as `local` sees them.
    pub(super) fn counterpart<'a>(
        &self,
        local: NodeId,
        members: impl Iterator<Item = &'a foca::Member<Identity>>,
    ) -> Digest {
        Digest::new(local, self.source, true, self.salt, members)
    }

    /// Whether two digests with one salt differ in the bucket of this node.
    fn differs(&self, other: &Digest, id: &NodeId) -> bool {
        let at = bucket_of(id) * HASH_BYTES;
        self.hashes[at..at + HASH_BYTES] != other.hashes[at..at + HASH_BYTES]
    }

    /// Whether two digests with one salt are of the same members.
    pub(super) fn agrees(&self, other: &Digest) -> bool {
        self.hashes == other.hashes
    }
}

/// What `local` knows of the buckets in which it and its peer differ, as the bodies of at most
/// [`MEMBERSHIP_SYNC_DATAGRAMS_MAX`] datagrams. When that is not enough, the rest differs again the next time.
pub(super) fn entries<'a>(
    local: &Digest,
    theirs: &Digest,
    kind: u8,
    members: impl Iterator<Item = &'a foca::Member<Identity>>,
) -> Vec<Vec<u8>> {
    let header = |source| {
        let mut bytes = alloc::vec![kind];
        bytes.extend(codec::encode(&EntriesHeader { source }));
        bytes
    };
    let mut datagrams: Vec<Vec<u8>> = Vec::new();
    for member in third_parties(members, [local.source, theirs.source]) {
        if !local.differs(theirs, &member.id().id) {
            continue;
        }
        let bytes = codec::encode(&WireMember::from(member));
        let fits = |d: &Vec<u8>| d.len() + bytes.len() <= MEMBERSHIP_DATAGRAM_BYTES_MAX;
        if !datagrams.last().is_some_and(fits) {
            if datagrams.len() == MEMBERSHIP_SYNC_DATAGRAMS_MAX {
                break;
            }
            datagrams.push(header(local.source));
        }
        if let Some(datagram) = datagrams.last_mut() {
            datagram.extend(bytes);
        }
    }
    datagrams
}
