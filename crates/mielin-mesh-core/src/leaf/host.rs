//! The host's end of the links of all its leaves.

mod bucket;
mod hosted;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use super::connection::Connection;
use super::noise::{Entropy, Responder};
use super::packet::{
    Answer, Hello, Mac, Packet, SEGMENT_BYTES_MAX, Unreadable, write_answer, write_refused,
    write_unknown,
};
use super::{
    Admission, LeafNumber, LinkError, PACKET_BYTES_MAX, PacketError, PublicKey, REASON_KEY,
    REASON_MESH, REASON_NOT_ADMITTED, REASON_VERSION, SecretKey,
};
use crate::limits::{LEAF_REPLIES_MAX, LEAF_UNCONFIRMED_FOR, LEAVES_MAX};
use crate::{Instant, NodeId};
use bucket::Bucket;
use hosted::{Hosted, Pending};

pub use hosted::LeafState;

/// The ends of the links to all leaves of one host.
///
/// `A` says where a leaf is: a socket address, a serial port. It is only given back: packets for a leaf go to where its
/// newest genuine packet came from, so a leaf may change its address at any time.
///
/// A handshake is computed in [`LeafHost::handle_packet`], six multiplications on a curve, for those alone who know the
/// host's key, and no more of them in a second than [`crate::limits::LEAF_HANDSHAKES_PER_SECOND`].
pub struct LeafHost<A> {
    key: SecretKey,
    mesh: [u8; 32],
    entropy: Entropy,
    leaves: BTreeMap<LeafNumber, Hosted<A>>,
    /// Which leaf means the host by which index, in packets of the current and of the unconfirmed connection.
    pub(super) indices: BTreeMap<u32, LeafNumber>,
    handshakes: Bucket,
    /// Answers, refusals and words of unknown connections.
    pub(super) replies: VecDeque<(A, Vec<u8>)>,
    /// Leaves that may have something to send.
    ready: BTreeSet<LeafNumber>,
    events: VecDeque<HostEvent>,
}

/// What happened to a leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEvent {
    /// The number of its admission.
    pub leaf: LeafNumber,
    /// Which node it is.
    pub node: NodeId,
    /// What happened.
    pub kind: HostEventKind,
}

/// The kinds of [`HostEvent`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostEventKind {
    /// The leaf has proved that it is there and holds its admission; again, after each handshake.
    Connected {
        /// Its key. From the first time on the admission is for this key alone; give it to [`LeafHost::admit`] when the
        /// host starts again.
        key: PublicKey,
    },
    /// The leaf has started anew, and the streams begin again.
    Restarted {
        /// What the leaf had not acknowledged, in order. Some of the first may have arrived all the same.
        unacknowledged: Vec<Vec<u8>>,
    },
    /// There is a message to take where there was none.
    Readable,
    /// There is room for messages after one was refused.
    Writable,
    /// The leaf sleeps. All that is for it waits.
    Asleep {
        /// When it wakes at the latest, as it says.
        until: Instant,
    },
    /// The leaf was asleep or gone and has spoken.
    Awake,
    /// The leaf has been silent for too long. All that is for it waits until it speaks.
    Gone,
}

impl<A: Copy + Eq> LeafHost<A> {
    /// A host that has this key and serves this mesh. `entropy` must be 32 bytes that nobody can guess, others at each
    /// start: all keys of its connections come from them.
    #[must_use]
    pub fn new(key: SecretKey, mesh: [u8; 32], entropy: [u8; 32]) -> LeafHost<A> {
        LeafHost {
            key,
            mesh,
            entropy: Entropy::new(entropy),
            leaves: BTreeMap::new(),
            indices: BTreeMap::new(),
            handshakes: Bucket::new(),
            replies: VecDeque::new(),
            ready: BTreeSet::new(),
            events: VecDeque::new(),
        }
    }

    /// The host's public key.
    #[must_use]
    pub const fn key(&self) -> PublicKey {
        self.key.public()
    }

    /// Admits a leaf that has this secret, and only the one with this key if one is given; what the leaf has to know.
    ///
    /// # Errors
    ///
    /// [`LinkError::NoRoom`]: there are [`LEAVES_MAX`] leaves, or one of this number.
    pub fn admit(
        &mut self,
        number: LeafNumber,
        secret: [u8; 32],
        key: Option<PublicKey>,
    ) -> Result<Admission, LinkError> {
        if self.leaves.len() >= LEAVES_MAX || self.leaves.contains_key(&number) {
            return Err(LinkError::NoRoom);
        }
        let admission = Admission {
            number,
            mesh: self.mesh,
            host: self.key.public(),
            secret,
        };
        // Zero says that none is known.
        let incarnation = self.entropy.draw_u64().max(1);
        let hosted = Hosted::new(admission.clone(), key, incarnation);
        self.leaves.insert(number, hosted);
        Ok(admission)
    }

    /// Takes an admission back. The connection ends at once, and the leaf is told when it speaks; what it had not
    /// acknowledged is given back.
    ///
    /// # Errors
    ///
    /// [`LinkError::NotAdmitted`].
    pub fn dismiss(&mut self, number: LeafNumber) -> Result<Vec<Vec<u8>>, LinkError> {
        let hosted = self.leaves.remove(&number);
        let mut hosted = hosted.ok_or(LinkError::NotAdmitted)?;
        self.indices.retain(|_, leaf| *leaf != number);
        self.ready.remove(&number);
        Ok(hosted.stream.give_back())
    }

    /// Takes a message for a leaf. It may be given before there is a connection, while the leaf sleeps, and while it is
    /// gone.
    ///
    /// # Errors
    ///
    /// [`LinkError::NotAdmitted`], [`LinkError::Full`] and [`LinkError::TooLarge`].
    pub fn send(&mut self, number: LeafNumber, message: &[u8]) -> Result<(), LinkError> {
        let hosted = self.leaves.get_mut(&number);
        hosted.ok_or(LinkError::NotAdmitted)?.stream.send(message)?;
        self.ready.insert(number);
        Ok(())
    }

    /// The next message of a leaf. It sends no more than a few that are not taken.
    pub fn take(&mut self, number: LeafNumber) -> Option<Vec<u8>> {
        let message = self.leaves.get_mut(&number)?.stream.take()?;
        self.ready.insert(number);
        Some(message)
    }

    /// How a leaf is; `None` if it is not admitted.
    #[must_use]
    pub fn state(&self, number: LeafNumber) -> Option<LeafState> {
        self.leaves.get(&number).map(|hosted| hosted.state)
    }

    /// Messages that a leaf has not acknowledged.
    #[must_use]
    pub fn unacknowledged(&self, number: LeafNumber) -> usize {
        let hosted = self.leaves.get(&number);
        hosted.map_or(0, |hosted| hosted.stream.unacknowledged())
    }

    /// Takes in a packet that came from `from`.
    ///
    /// # Errors
    ///
    /// The packet was dropped. There may be a word for whoever sent it.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        from: A,
        packet: &[u8],
    ) -> Result<(), PacketError> {
        match Packet::parse(packet) {
            Ok(Packet::Sealed {
                receiver,
                counter,
                sealed,
            }) => self.handle_sealed(now, from, receiver, counter, sealed),
            Ok(Packet::Hello { sender, noise, mac }) => {
                self.handle_hello(now, from, sender, noise, mac)
            }
            Ok(Packet::Answer { .. } | Packet::Refused { .. } | Packet::Unknown { .. }) => {
                Err(PacketError::Unknown)
            }
            Err(Unreadable::OtherHello { sender, mac }) => {
                if !mac.is_for(&self.key.public()) {
                    return Err(PacketError::NotGenuine);
                }
                let _ = self.refuse(from, sender, &mac, REASON_VERSION);
                Err(PacketError::OtherVersion)
            }
            Err(Unreadable::OtherVersion) => Err(PacketError::OtherVersion),
            Err(Unreadable::Malformed) => Err(PacketError::Malformed),
        }
    }

    /// What to send now and where to, written to `buffer`. Ask until nothing comes.
    pub fn poll_transmit<'b>(
        &mut self,
        now: Instant,
        buffer: &'b mut [u8; PACKET_BYTES_MAX],
    ) -> Option<(A, &'b [u8])> {
        if let Some((to, packet)) = self.replies.pop_front() {
            let buffer = &mut buffer[..packet.len()];
            buffer.copy_from_slice(&packet);
            return Some((to, buffer));
        }
        while let Some(&number) = self.ready.first() {
            let hosted = self.leaves.get_mut(&number);
            let sent = hosted.and_then(|hosted| hosted.transmit(now, buffer));
            if let Some((to, len)) = sent {
                return Some((to, &buffer[..len]));
            }
            self.ready.remove(&number);
        }
        None
    }

    /// What happened. Ask until nothing comes.
    pub fn poll_event(&mut self) -> Option<HostEvent> {
        self.events.pop_front()
    }

    /// When to call [`LeafHost::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.leaves.values().filter_map(Hosted::poll_timeout).min()
    }

    /// Does what time demands.
    pub fn handle_timeout(&mut self, now: Instant) {
        for (&number, hosted) in &mut self.leaves {
            if hosted.poll_timeout().is_none_or(|due| due > now) {
                continue;
            }
            if let Some(forgotten) = hosted.forget_unconfirmed(now) {
                self.indices.remove(&forgotten);
            }
            if let Some(kind) = hosted.handle_timeout(now) {
                self.events.push_back(hosted.event(kind));
            }
            self.ready.insert(number);
        }
    }

    fn handle_hello(
        &mut self,
        now: Instant,
        from: A,
        sender: u32,
        noise: &[u8],
        mac: Mac<'_>,
    ) -> Result<(), PacketError> {
        if !mac.is_for(&self.key.public()) {
            return Err(PacketError::NotGenuine);
        }
        if self.repeat_answer(from, &mac) {
            return Ok(());
        }
        if !self.handshakes.take(now) {
            return Err(PacketError::Refused);
        }
        let mut hello = [0; Hello::BYTES];
        let ephemeral = self.entropy.draw();
        let read = Responder::read_first(&self.key, &self.mesh, ephemeral, noise, &mut hello);
        // Whoever made the hash knows the host's key, so what cannot be read was written for another mesh.
        let Ok(responder) = read else {
            return self.refuse(from, sender, &mac, REASON_MESH);
        };
        let (hello, key) = (Hello::decode(&hello), responder.leaf());
        let number = LeafNumber(hello.number);
        let Some(hosted) = self.leaves.get_mut(&number) else {
            return self.refuse(from, sender, &mac, REASON_NOT_ADMITTED);
        };
        if hosted.key.is_some_and(|admitted| admitted != key) {
            return self.refuse(from, sender, &mac, REASON_KEY);
        }
        if hosted.is_old(&hello) {
            return Err(PacketError::Repeated);
        }
        let ours = loop {
            let index = self.entropy.draw_u32();
            if !self.indices.contains_key(&index) {
                break index;
            }
        };
        let resumed = hosted.resumes(&hello);
        let answer = Answer {
            incarnation: hosted.incarnation,
            resumed,
        };
        let secret = &hosted.admission.secret;
        let (answer, keys) = write_answer(sender, ours, &key, |message| {
            responder.answer(secret, &answer.encode(), message)
        });
        let pending = Pending {
            connection: Connection::new(keys, ours, sender),
            key,
            hello,
            resumed,
            answer,
            hello_mac: mac.bytes,
            until: now + LEAF_UNCONFIRMED_FOR,
        };
        if let Some(replaced) = hosted.pending.replace(pending) {
            self.indices.remove(&replaced.connection.ours);
        }
        self.indices.insert(ours, number);
        self.reply(from, &answer);
        Ok(())
    }

    /// Answers a hello that was answered already, as a line makes two of one or a leaf did not hear the answer. Costs a
    /// look at the unconfirmed handshakes.
    fn repeat_answer(&mut self, from: A, mac: &Mac<'_>) -> bool {
        let mut pending = self
            .leaves
            .values()
            .filter_map(|leaf| leaf.pending.as_ref());
        let same = pending.find(|pending| pending.hello_mac == mac.bytes);
        let Some(answer) = same.map(|pending| pending.answer) else {
            return false;
        };
        self.reply(from, &answer);
        true
    }

    fn handle_sealed(
        &mut self,
        now: Instant,
        from: A,
        receiver: u32,
        counter: u32,
        sealed: &[u8],
    ) -> Result<(), PacketError> {
        let Some(&number) = self.indices.get(&receiver) else {
            self.reply(from, &write_unknown(receiver, counter));
            return Err(PacketError::Unknown);
        };
        let hosted = self.leaves.get_mut(&number);
        let hosted = hosted.expect("indices are those of leaves");
        let mut plain = [0; SEGMENT_BYTES_MAX];
        let opened = hosted.open(receiver, counter, sealed, &mut plain)?;
        if opened.confirms {
            let confirmed = hosted.confirm(now);
            if let Some(replaced) = confirmed.replaced {
                self.indices.remove(&replaced);
            }
            for kind in confirmed.events {
                self.events.push_back(hosted.event(kind));
            }
        }
        if opened.newest {
            hosted.address = Some(from);
        }
        for kind in hosted.handle(now, &opened) {
            self.events.push_back(hosted.event(kind));
        }
        self.ready.insert(number);
        Ok(())
    }

    fn refuse(
        &mut self,
        to: A,
        sender: u32,
        hello: &Mac<'_>,
        reason: u8,
    ) -> Result<(), PacketError> {
        let host = self.key.public();
        self.reply(to, &write_refused(sender, &hello.bytes, reason, &host));
        Err(PacketError::Refused)
    }

    fn reply(&mut self, to: A, packet: &[u8]) {
        if self.replies.len() < LEAF_REPLIES_MAX {
            self.replies.push_back((to, packet.to_vec()));
        }
    }
}
