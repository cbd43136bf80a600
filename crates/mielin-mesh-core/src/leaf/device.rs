//! The leaf's end of its link.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use super::connection::Connection;
use super::noise::{Entropy, Initiator, MAC_BYTES};
use super::packet::{
    Answer, Body, HELLO_BYTES, Hello, Packet, SEGMENT_BYTES_MAX, Segment, Unreadable, write_hello,
};
use super::stream::Stream;
use super::{Admission, LinkError, PACKET_BYTES_MAX, PacketError, Refusal, SecretKey};
use crate::Instant;
use crate::limits::{
    LEAF_DOZE_ATTEMPTS, LEAF_HELLO_RETRY_MAX, LEAF_HELLO_RETRY_MIN, LEAF_HELLOS_UNANSWERED,
    LEAF_KEEPALIVE, LEAF_QUEUE_MAX, LEAF_REFUSED_RETRY, LEAF_REKEY_AFTER, LEAF_REKEY_PACKETS,
    LEAF_RETRY_INITIAL, LEAF_SILENT_AFTER, LEAF_UNKNOWN_EVERY,
};

/// The end of a link that is on the microcontroller. It says hello when it is first asked, and never gives up.
///
/// Handshakes are computed in [`Leaf::handle_timeout`] (four multiplications on the curve) and
/// [`Leaf::handle_packet`] (two, for a genuine answer only); everything else is fast.
pub struct Leaf {
    key: SecretKey,
    admission: Admission,
    entropy: Entropy,
    incarnation: u64,
    /// The host's incarnation, to which the streams belong; zero before the first answer.
    host: u64,
    /// Handshakes begun since the start.
    handshakes: u32,
    handshake: Option<Box<Handshake>>,
    current: Option<Current>,
    stream: Stream,
    doze: Doze,
    /// Before this nobody is believed who says that the connection is not known.
    believe_at: Instant,
    events: VecDeque<LeafEvent>,
}

/// What happened to a [`Leaf`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeafEvent {
    /// The host has answered a handshake, the first or a later one.
    Connected,
    /// The host remembers nothing of the streams, and they begin again.
    Restarted {
        /// What the host had not acknowledged, in order. Some of the first may have arrived all the same.
        unacknowledged: Vec<Vec<u8>>,
    },
    /// Nobody has answered several hellos in a row. The line is dead, or whoever is there has another key than the
    /// admission says: a host does not answer those who do not know its key. The leaf goes on trying.
    Unanswered,
    /// The host refuses. The leaf tries again, a minute later.
    Refused(Refusal),
    /// There is room for messages after one was refused.
    Writable,
    /// The leaf may sleep now.
    MaySleep {
        /// The host has said that it knows. Otherwise it goes on sending for a while, and then takes the leaf for gone.
        known: bool,
    },
}

/// A handshake of which the answer has not come.
struct Handshake {
    initiator: Initiator,
    hello: [u8; HELLO_BYTES],
    mac: [u8; MAC_BYTES],
    /// How the host is to name the connection.
    ours: u32,
    /// When the hello goes out (again).
    at: Instant,
    /// How long after that it goes out once more.
    wait: Duration,
    /// Times that it went out without an answer.
    sent: u32,
    /// The last one was refused.
    refused: bool,
}

/// The connection in use.
struct Current {
    connection: Connection,
    /// When something must be heard or said again.
    keepalive: Instant,
    /// Since when an answer is awaited.
    waiting_since: Option<Instant>,
    /// No answer has come for long, or somebody says that none will: nothing is sent until one comes.
    silent: bool,
    /// When another key is wanted; sleep does not count.
    rekey: Instant,
}

/// Whether the leaf sleeps.
#[derive(Clone, Copy, Debug)]
enum Doze {
    Awake,
    /// The host is told.
    Telling {
        milliseconds: u32,
        attempts: u8,
        at: Instant,
    },
    Asleep {
        since: Instant,
    },
}

impl Leaf {
    /// A leaf that has this key and admission. `entropy` must be 32 bytes that nobody can guess, others at each start:
    /// all keys of its connections come from them.
    #[must_use]
    pub fn new(key: SecretKey, admission: Admission, entropy: [u8; 32]) -> Leaf {
        let mut entropy = Entropy::new(entropy);
        Leaf {
            key,
            admission,
            incarnation: entropy.draw_u64(),
            entropy,
            host: 0,
            handshakes: 0,
            handshake: None,
            current: None,
            stream: Stream::new(LEAF_QUEUE_MAX),
            doze: Doze::Awake,
            believe_at: Instant::START,
            events: VecDeque::new(),
        }
    }

    /// Takes a message for the host. It may be given before there is a connection, and while the leaf sleeps.
    ///
    /// # Errors
    ///
    /// [`LinkError::Full`] and [`LinkError::TooLarge`].
    pub fn send(&mut self, message: &[u8]) -> Result<(), LinkError> {
        self.stream.send(message)
    }

    /// The next message of the host. The host sends no more than a few that are not taken.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        self.stream.take()
    }

    /// Messages that the host has not acknowledged.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        self.stream.unacknowledged()
    }

    /// Whether there is a connection, and nothing speaks against it.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.current.as_ref().is_some_and(|current| !current.silent)
    }

    /// Tells the host that the leaf goes to sleep, for at most `duration` (and no more than 49 days). What is not
    /// acknowledged waits until it wakes.
    ///
    /// [`LeafEvent::MaySleep`] follows when the host knows, or has not answered three times. From then on nothing is sent
    /// and nothing is due until [`Leaf::wake`]; what comes in the meantime is taken in.
    ///
    /// # Errors
    ///
    /// [`LinkError::NotConnected`]: there is nobody to tell, and the leaf may sleep at once.
    pub fn doze(&mut self, now: Instant, duration: Duration) -> Result<(), LinkError> {
        if !self.is_connected() {
            return Err(LinkError::NotConnected);
        }
        if let Doze::Asleep { .. } = self.doze {
            self.wake(now);
        }
        self.doze = Doze::Telling {
            milliseconds: u32::try_from(duration.as_millis()).unwrap_or(u32::MAX),
            attempts: 0,
            at: now,
        };
        Ok(())
    }

    /// The leaf is awake again, or has decided not to sleep. The next packet tells the host.
    pub fn wake(&mut self, now: Instant) {
        let slept = match self.doze {
            Doze::Awake => return,
            Doze::Telling { .. } => Duration::ZERO,
            Doze::Asleep { since } => now.since(since),
        };
        self.doze = Doze::Awake;
        if let Some(current) = &mut self.current {
            current.rekey = current.rekey + slept;
            current.waiting_since = None;
            self.stream.reconnected();
            self.stream.ask();
        }
    }

    /// Takes in a packet of the line. Of who sends it from where nothing is asked.
    ///
    /// # Errors
    ///
    /// The packet was dropped.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8]) -> Result<(), PacketError> {
        let packet = Packet::parse(packet).map_err(|unreadable| match unreadable {
            Unreadable::Malformed => PacketError::Malformed,
            Unreadable::OtherHello { .. } | Unreadable::OtherVersion => PacketError::OtherVersion,
        })?;
        match packet {
            Packet::Sealed {
                receiver,
                counter,
                sealed,
            } => self.handle_sealed(now, receiver, counter, sealed),
            Packet::Answer {
                receiver,
                sender,
                noise,
                mac,
            } => {
                if !mac.is_for(&self.key.public()) {
                    return Err(PacketError::NotGenuine);
                }
                self.handle_answer(now, receiver, sender, noise)
            }
            Packet::Refused {
                version,
                receiver,
                reason,
                mac,
            } => {
                let handshake = self.handshake.as_mut();
                let handshake = handshake
                    .filter(|handshake| handshake.ours == receiver && !handshake.refused)
                    .ok_or(PacketError::Unknown)?;
                if !mac.is_refusal_by(&self.admission.host, &handshake.mac) {
                    return Err(PacketError::NotGenuine);
                }
                handshake.refuse(now);
                let refusal = Refusal::of_reason(reason, version);
                self.events.push_back(LeafEvent::Refused(refusal));
                Ok(())
            }
            Packet::Unknown { receiver, counter } => self.handle_unknown(now, receiver, counter),
            Packet::Hello { .. } => Err(PacketError::Unknown),
        }
    }

    /// What to send now, written to `buffer`. Ask until nothing comes.
    pub fn poll_transmit<'b>(
        &mut self,
        now: Instant,
        buffer: &'b mut [u8; PACKET_BYTES_MAX],
    ) -> Option<&'b [u8]> {
        if matches!(self.doze, Doze::Asleep { .. }) {
            return None;
        }
        if let Some(handshake) = &mut self.handshake
            && handshake.at <= now
        {
            if handshake.go_out(now) == LEAF_HELLOS_UNANSWERED {
                self.events.push_back(LeafEvent::Unanswered);
            }
            buffer[..HELLO_BYTES].copy_from_slice(&handshake.hello);
            return Some(&buffer[..HELLO_BYTES]);
        }
        let current = self.current.as_mut().filter(|current| !current.silent)?;
        let segment = match &mut self.doze {
            Doze::Telling {
                milliseconds,
                attempts,
                at,
            } => {
                if *at > now || *attempts == LEAF_DOZE_ATTEMPTS {
                    return None;
                }
                *attempts += 1;
                *at = now + LEAF_RETRY_INITIAL;
                Segment {
                    body: Body::Doze {
                        milliseconds: *milliseconds,
                    },
                    ..self.stream.standing()
                }
            }
            Doze::Awake | Doze::Asleep { .. } => self.stream.transmit(now)?,
        };
        let waits = segment.ask || matches!(segment.body, Body::Message { .. });
        let Some(packet) = current.connection.seal(&segment, buffer) else {
            self.current = None;
            return None;
        };
        current.keepalive = now + LEAF_KEEPALIVE;
        if waits {
            current.waiting_since.get_or_insert(now);
        }
        Some(packet)
    }

    /// What happened. Ask until nothing comes.
    pub fn poll_event(&mut self) -> Option<LeafEvent> {
        self.events.pop_front()
    }

    /// When to call [`Leaf::handle_timeout`]. Nothing, while the leaf sleeps.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.doze {
            Doze::Asleep { .. } => return None,
            Doze::Telling { at, .. } => return Some(at),
            Doze::Awake => {}
        }
        let handshake = self.handshake.as_ref().map(|handshake| handshake.at);
        let Some(current) = &self.current else {
            return Some(handshake.unwrap_or(Instant::START));
        };
        let traffic = match (current.silent, handshake) {
            (true, _) => None,
            (false, None) => [
                Some(current.keepalive),
                Some(current.rekey),
                current.waiting_since.map(|since| since + LEAF_SILENT_AFTER),
                self.stream.poll_timeout(),
            ]
            .into_iter()
            .flatten()
            .min(),
            (false, Some(_)) => [Some(current.keepalive), self.stream.poll_timeout()]
                .into_iter()
                .flatten()
                .min(),
        };
        [handshake, traffic].into_iter().flatten().min()
    }

    /// Does what time demands.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.doze {
            Doze::Asleep { .. } => return,
            Doze::Telling { attempts, at, .. } => {
                if at <= now && (attempts == LEAF_DOZE_ATTEMPTS || !self.is_connected()) {
                    self.fall_asleep(now, false);
                }
                return;
            }
            Doze::Awake => {}
        }
        let mut wanted = true;
        if let Some(current) = &mut self.current {
            if let Some(since) = current.waiting_since
                && since + LEAF_SILENT_AFTER <= now
            {
                current.silent = true;
            }
            if !current.silent {
                self.stream.handle_timeout(now);
                if current.keepalive <= now {
                    current.keepalive = now + LEAF_KEEPALIVE;
                    self.stream.ask();
                }
            }
            wanted = current.silent
                || current.rekey <= now
                || current.connection.sent() >= LEAF_REKEY_PACKETS;
        }
        if wanted && self.handshake.is_none() {
            self.begin_handshake(now);
        }
    }

    fn begin_handshake(&mut self, now: Instant) {
        self.handshakes = self.handshakes.wrapping_add(1);
        let hello = Hello {
            number: self.admission.number.0,
            handshake: self.handshakes,
            incarnation: self.incarnation,
            known: self.host,
        };
        let ours = self.entropy.draw_u32();
        let ephemeral = self.entropy.draw();
        let (hello, initiator) = write_hello(ours, &self.admission.host, |message| {
            Initiator::begin(
                &self.key,
                &self.admission,
                ephemeral,
                &hello.encode(),
                message,
            )
        });
        let mac = core::array::from_fn(|index| hello[HELLO_BYTES - MAC_BYTES + index]);
        self.handshake = Some(Box::new(Handshake {
            initiator,
            hello,
            mac,
            ours,
            at: now,
            wait: LEAF_HELLO_RETRY_MIN,
            sent: 0,
            refused: false,
        }));
    }

    fn handle_answer(
        &mut self,
        now: Instant,
        receiver: u32,
        sender: u32,
        noise: &[u8],
    ) -> Result<(), PacketError> {
        let handshake = self.handshake.as_mut();
        let handshake = handshake
            .filter(|handshake| handshake.ours == receiver)
            .ok_or(PacketError::Unknown)?;
        let mut answer = [0; Answer::BYTES];
        if handshake.initiator.read_second(noise, &mut answer).is_err() {
            // The hash under it shows that the host has read the hello, and it is as the host has written it.
            if !handshake.refused {
                handshake.refuse(now);
                let refusal = LeafEvent::Refused(Refusal::OtherSecret);
                self.events.push_back(refusal);
            }
            return Err(PacketError::NotGenuine);
        }
        let handshake = self.handshake.take().expect("it was there");
        let keys = handshake.initiator.finish();
        self.adopt(Answer::decode(&answer));
        self.stream.reconnected();
        self.stream.ask();
        self.current = Some(Current {
            connection: Connection::new(keys, receiver, sender),
            keepalive: now + LEAF_KEEPALIVE,
            waiting_since: None,
            silent: false,
            rekey: now + LEAF_REKEY_AFTER,
        });
        self.events.push_back(LeafEvent::Connected);
        Ok(())
    }

    /// Goes on with the streams, or begins them again.
    fn adopt(&mut self, answer: Answer) {
        let same_host = self.host == answer.incarnation;
        self.host = answer.incarnation;
        let goes_on = if same_host {
            // A host that has not heard of these streams has acknowledged nothing, and begins at the same place.
            answer.resumed || self.stream.is_untouched()
        } else {
            self.stream.is_unused()
        };
        if goes_on {
            return;
        }
        let unacknowledged = self.stream.give_back();
        self.stream.restart();
        self.events
            .push_back(LeafEvent::Restarted { unacknowledged });
    }

    fn handle_sealed(
        &mut self,
        now: Instant,
        receiver: u32,
        counter: u32,
        sealed: &[u8],
    ) -> Result<(), PacketError> {
        let current = self.current.as_mut();
        let current = current
            .filter(|current| current.connection.ours == receiver)
            .ok_or(PacketError::Unknown)?;
        let mut plain = [0; SEGMENT_BYTES_MAX];
        let opened = current.connection.open(counter, sealed, &mut plain)?;
        let progress = self.stream.handle(now, &opened.segment, opened.newest);
        current.silent = false;
        current.waiting_since = self.stream.is_waiting().then_some(now);
        if progress.writable {
            self.events.push_back(LeafEvent::Writable);
        }
        if opened.segment.asleep && matches!(self.doze, Doze::Telling { attempts: 1.., .. }) {
            self.fall_asleep(now, true);
        }
        Ok(())
    }

    fn handle_unknown(
        &mut self,
        now: Instant,
        receiver: u32,
        counter: u32,
    ) -> Result<(), PacketError> {
        let current = self.current.as_mut();
        let current = current
            .filter(|current| {
                current.connection.theirs == receiver && counter < current.connection.sent()
            })
            .ok_or(PacketError::Unknown)?;
        if now < self.believe_at {
            return Ok(());
        }
        if matches!(self.doze, Doze::Telling { .. }) {
            // When it wakes it hears the same again.
            self.fall_asleep(now, false);
            return Ok(());
        }
        self.believe_at = now + LEAF_UNKNOWN_EVERY;
        current.silent = true;
        if self.handshake.is_none() {
            self.begin_handshake(now);
        }
        Ok(())
    }

    fn fall_asleep(&mut self, now: Instant, known: bool) {
        self.doze = Doze::Asleep { since: now };
        self.events.push_back(LeafEvent::MaySleep { known });
    }
}

impl Handshake {
    /// Notes that the hello goes out; how often it has without an answer.
    fn go_out(&mut self, now: Instant) -> u32 {
        self.at = now + self.wait;
        self.wait = (2 * self.wait).min(LEAF_HELLO_RETRY_MAX);
        self.refused = false;
        self.sent = self.sent.saturating_add(1);
        self.sent
    }

    fn refuse(&mut self, now: Instant) {
        self.refused = true;
        self.at = now + LEAF_REFUSED_RETRY;
    }
}
