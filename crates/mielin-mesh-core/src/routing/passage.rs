//! The ways that one node tries for one message.

use alloc::collections::VecDeque;

use super::{RouteRefusal, RoutedMessage};
use crate::{Instant, NodeId};

/// What to do with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a step is taken apart where it was made"
)]
pub enum Step {
    /// Hand it to this neighbour, wait for the answer at most as long as it still lives, and ask again if it was
    /// refused or nothing came.
    Send(NodeId, RoutedMessage),
    /// It goes no further.
    GiveUp {
        /// Who said so.
        by: NodeId,
        /// Why.
        refusal: RouteRefusal,
    },
}

/// A message at one node, until it is answered or given up. Ask [`next`](Passage::next), tell what was
/// [`refused`](Passage::refused), and ask again.
#[derive(Clone, Debug)]
pub struct Passage {
    local: NodeId,
    message: RoutedMessage,
    deadline: Instant,
    untried: VecDeque<NodeId>,
    last: Option<(NodeId, RouteRefusal)>,
}

impl Passage {
    pub(super) fn new(
        now: Instant,
        local: NodeId,
        message: RoutedMessage,
        untried: VecDeque<NodeId>,
    ) -> Passage {
        Passage {
            local,
            deadline: now + message.ttl(),
            message,
            untried,
            last: None,
        }
    }

    /// The next step.
    pub fn next(&mut self, now: Instant) -> Step {
        if let Some((by, refusal)) = self.last.filter(|(_, refusal)| !refusal.is_local()) {
            return Step::GiveUp { by, refusal };
        }
        let left = self.deadline.since(now);
        let Some(way) = self.untried.pop_front() else {
            // What a neighbour said is more telling than that there is none.
            let (by, refusal) = self.last.unwrap_or((self.local, RouteRefusal::NoWay));
            return Step::GiveUp { by, refusal };
        };
        let share = if self.untried.is_empty() {
            left
        } else {
            // A half would leave nothing after sixteen links.
            left - left / 8
        };
        let ttl_ms = u32::try_from(share.as_millis()).unwrap_or(u32::MAX);
        if ttl_ms == 0 {
            return Step::GiveUp {
                by: self.local,
                refusal: RouteRefusal::Expired,
            };
        }
        let message = RoutedMessage {
            ttl_ms,
            hops: self.message.hops + 1,
            ..self.message.clone()
        };
        Step::Send(way, message)
    }

    /// The neighbour of the last step refused, for a reason that `by` gave.
    pub fn refused(&mut self, by: NodeId, refusal: RouteRefusal) {
        self.last = Some((by, refusal));
    }

    /// The neighbour of the last step could not be reached or did not answer.
    pub fn unanswered(&mut self, neighbour: NodeId) {
        self.last = Some((neighbour, RouteRefusal::NoWay));
    }

    /// The message as it came.
    #[must_use]
    pub fn message(&self) -> &RoutedMessage {
        &self.message
    }
}
