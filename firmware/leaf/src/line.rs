//! The link to the mesh on a serial line.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use mielin_mesh_core::Instant;
use mielin_mesh_core::leaf::{
    FRAME_BYTES_MAX, FrameDecoder, Leaf, LeafEvent, LinkError, PACKET_BYTES_MAX, Refusal, frame,
};

/// When nothing has been said for so long, and nobody needs the line, the leaf goes to sleep.
pub const QUIET_BEFORE_DOZE: Duration = Duration::from_secs(2);
/// After so long it is awake again, and its host has its say.
pub const DOZE_MAX: Duration = Duration::from_secs(8);

/// The leaf's end of a link, with the line under it.
///
/// After each call ask [`Line::poll_frame`] and [`Line::poll_event`] until nothing comes. While the host takes the leaf for asleep, all that the leaf sends and
/// all that it asks for wakes it.
#[derive(Debug)]
pub struct Line {
    link: LinkEnd,
    decoder: FrameDecoder,
    doze: Doze,
    /// When something was last said, by either end.
    spoke_at: Instant,
    events: VecDeque<LineEvent>,
    dropped: u32,
    bytes: u64,
}

/// What happens on a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineEvent {
    /// The host has answered a handshake.
    Connected,
    /// The host remembers nothing, or this is the first time: both streams begin anew.
    Restarted {
        /// What the host had not acknowledged.
        unacknowledged: Vec<Vec<u8>>,
    },
    /// Nobody answers. The line goes on trying.
    Unanswered,
    /// The host refuses. The line tries again a minute later.
    Refused(Refusal),
    /// There is room for messages again.
    Writable,
}

/// Whether the host takes the leaf for asleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doze {
    Awake,
    /// It is told that, and until when.
    Telling(Instant),
    /// Until then.
    Asleep(Instant),
}

/// [`Leaf`] has no `Debug`: it has keys.
struct LinkEnd(Leaf);

impl core::fmt::Debug for LinkEnd {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Leaf")
    }
}

impl Line {
    /// A line on which nothing was said.
    #[must_use]
    pub fn new(leaf: Leaf) -> Self {
        Self {
            link: LinkEnd(leaf),
            decoder: FrameDecoder::new(),
            doze: Doze::Awake,
            spoke_at: Instant::START,
            events: VecDeque::new(),
            dropped: 0,
            bytes: 0,
        }
    }

    /// A byte has come.
    pub fn receive(&mut self, now: Instant, byte: u8) {
        self.bytes += 1;
        let Some(packet) = self.decoder.push(byte) else {
            return;
        };
        match self.link.0.handle_packet(now, packet) {
            Ok(()) => self.spoke_at = now,
            Err(_) => self.dropped = self.dropped.saturating_add(1),
        }
        self.note_events();
    }

    /// Does what time demands. `quiet` says that nobody needs the line, so that the leaf may sleep.
    pub fn handle_time(&mut self, now: Instant, quiet: bool) {
        match self.doze {
            Doze::Awake if quiet && self.may_doze(now) => self.begin_doze(now),
            Doze::Telling(until) | Doze::Asleep(until) if !quiet || until <= now => self.wake(now),
            _ => {}
        }
        self.link.0.handle_timeout(now);
        self.note_events();
    }

    fn may_doze(&self, now: Instant) -> bool {
        now.since(self.spoke_at) >= QUIET_BEFORE_DOZE && self.link.0.unacknowledged() == 0
    }

    fn begin_doze(&mut self, now: Instant) {
        // Without a connection there is nobody to tell, and nothing is due but a hello.
        if self.link.0.doze(now, DOZE_MAX).is_ok() {
            self.doze = Doze::Telling(now + DOZE_MAX);
        }
    }

    fn wake(&mut self, now: Instant) {
        if self.doze != Doze::Awake {
            self.doze = Doze::Awake;
            self.spoke_at = now;
            self.link.0.wake(now);
        }
    }

    fn note_events(&mut self) {
        while let Some(event) = self.link.0.poll_event() {
            let event = match event {
                LeafEvent::Connected => LineEvent::Connected,
                LeafEvent::Restarted { unacknowledged } => LineEvent::Restarted { unacknowledged },
                LeafEvent::Unanswered => LineEvent::Unanswered,
                LeafEvent::Refused(refusal) => LineEvent::Refused(refusal),
                LeafEvent::Writable => LineEvent::Writable,
                LeafEvent::MaySleep { .. } => {
                    if let Doze::Telling(until) = self.doze {
                        self.doze = Doze::Asleep(until);
                    }
                    continue;
                }
            };
            self.events.push_back(event);
        }
    }

    /// What goes out now. Ask until nothing comes.
    pub fn poll_frame<'l>(
        &mut self,
        now: Instant,
        line: &'l mut [u8; FRAME_BYTES_MAX],
    ) -> Option<&'l [u8]> {
        let mut buffer = [0; PACKET_BYTES_MAX];
        let packet = self.link.0.poll_transmit(now, &mut buffer)?;
        let frame = frame(packet, line);
        self.bytes += frame.len() as u64;
        self.note_events();
        Some(frame)
    }

    /// What has happened. Ask until nothing comes.
    pub fn poll_event(&mut self) -> Option<LineEvent> {
        self.events.pop_front()
    }

    /// Takes a message for the host, and wakes the leaf.
    ///
    /// # Errors
    /// As for [`Leaf::send`].
    pub fn send(&mut self, now: Instant, message: &[u8]) -> Result<(), LinkError> {
        self.wake(now);
        self.spoke_at = now;
        self.link.0.send(message)
    }

    /// The next message of the host.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        self.link.0.take()
    }

    /// Whether there is a connection, and nothing speaks against it.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.link.0.is_connected()
    }

    /// Whether the host takes the leaf for asleep.
    #[must_use]
    pub fn is_asleep(&self) -> bool {
        matches!(self.doze, Doze::Asleep(_))
    }

    /// When to call [`Line::handle_time`], if the leaf may sleep then or not.
    #[must_use]
    pub fn next_at(&self, quiet: bool) -> Option<Instant> {
        let doze = match self.doze {
            Doze::Awake if quiet && self.link.0.unacknowledged() == 0 && self.is_connected() => {
                Some(self.spoke_at + QUIET_BEFORE_DOZE)
            }
            Doze::Awake => None,
            Doze::Telling(until) | Doze::Asleep(until) => Some(until),
        };
        [doze, self.link.0.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Frames and packets that were dropped, since they were no ones.
    #[must_use]
    pub fn dropped(&self) -> u32 {
        self.dropped.saturating_add(self.decoder.damaged())
    }

    /// Bytes that went over the line, either way.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests;
