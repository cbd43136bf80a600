//! Pings that are not answered are repeated.
//!
//! SWIM asks once, and then others to try. Where one datagram in ten is lost, that suspects a living member in one probe
//! of 130; each suspicion and its refutation are told to everybody, so in a large group news of this kind fill
//! every datagram, and what everybody sends grows with the group. So a node sends its ping again and again until the
//! answer comes or the time of the probe is over, and needs only one of nine pairs of ping and answer: where one
//! datagram in ten is lost, they all fail once in three million probes.
//!
//! The pause is a third of the time that foca waits for a direct answer, which is longer than any way and back that
//! the preset is meant for: not more than one datagram in a round trip is what RFC 8085 (section 3.1.3) allows who
//! sends little. Without loss nothing is repeated but pings to the dead. The pause grows with the patience of a node
//! that does badly (module `health`), so its probes have no more pings, and an answer to any of them is an answer in
//! time: what counts as a failed probe stays as it was.
//!
//! A repeated ping carries no news; foca counts how often it tells them. The requests for help are not repeated, as the
//! ping goes on beside them.

use core::time::Duration;

use foca::ProbeNumber;

use super::Transmit;
use crate::limits::MEMBERSHIP_PINGS_BEFORE_HELP;
use crate::{Instant, NodeId};

/// The ping of the current probe, while it is unanswered.
#[derive(Debug)]
pub(super) struct Ping {
    number: ProbeNumber,
    again: Transmit,
    at: Instant,
    pause: Duration,
}

impl Ping {
    /// A ping that was just sent; `again` is what to repeat, and `patience` the time until others are asked for help.
    pub(super) fn sent(
        now: Instant,
        number: ProbeNumber,
        again: Transmit,
        patience: Duration,
    ) -> Ping {
        let pause = patience / MEMBERSHIP_PINGS_BEFORE_HELP;
        Ping {
            number,
            again,
            at: now + pause,
            pause,
        }
    }

    /// Whether an acknowledgement from this node is the answer. foca, too, takes one from the target alone.
    pub(super) fn is_answered_by(&self, from: &NodeId, number: ProbeNumber) -> bool {
        self.again.to == *from && self.number == number
    }

    /// When it is to be repeated.
    pub(super) const fn at(&self) -> Instant {
        self.at
    }

    /// The repetition that is due, if one is.
    pub(super) fn repeat(&mut self, now: Instant) -> Option<Transmit> {
        if self.at > now {
            return None;
        }
        self.at = now + self.pause;
        Some(self.again.clone())
    }
}
