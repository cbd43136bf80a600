//! An agent that is at the leaf.

use alloc::vec::Vec;

use crate::delivery::MessageKind;
use crate::handover::message::{Guest, LeafMessage, Phase};
use crate::handover::transfer::Package;
use crate::handover::{HandoverError, LeafEndEvent};
use crate::{AgentId, Epoch};

/// An agent that is here.
#[derive(Debug)]
pub(super) struct Resident {
    pub(super) agent: AgentId,
    pub(super) stay: Epoch,
    /// The highest epoch in which it was here or offered.
    pub(super) last: Epoch,
    pub(super) being: Being,
    /// Mail below this was taken.
    pub(super) taken: u64,
    pub(super) wanted: Wanted,
    /// Posts below this were answered.
    pub(super) posted: u64,
    pub(super) post: Option<Post>,
}

#[derive(Debug)]
pub(super) enum Being {
    /// Here whole; the driver has to say whether it will do.
    Arrived,
    /// Accepted; the host owns it.
    Held,
    Running,
    /// Frozen and offered.
    Leaving(Package),
}

/// Whether mail is wanted, of the number `taken`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    No,
    /// The host has to be told.
    Due,
    /// The host knows.
    Said,
    /// It is here, and the agent may have taken it or not.
    Delivered,
}

/// A post that is not answered.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) to: AgentId,
    pub(super) kind: MessageKind,
    pub(super) payload: Vec<u8>,
    pub(super) due: bool,
    pub(super) again: bool,
}

impl Resident {
    pub(super) const fn arrived(agent: AgentId, stay: Epoch) -> Resident {
        Resident {
            agent,
            stay,
            last: stay,
            being: Being::Arrived,
            taken: 0,
            wanted: Wanted::No,
            posted: 0,
            post: None,
        }
    }

    pub(super) const fn cancelled(&self) -> LeafEndEvent {
        LeafEndEvent::Cancelled {
            agent: self.agent,
            epoch: self.stay,
        }
    }

    pub(super) const fn package(&self) -> Option<&Package> {
        match &self.being {
            Being::Leaving(package) => Some(package),
            Being::Arrived | Being::Held | Being::Running => None,
        }
    }

    pub(super) fn as_guest(&self) -> Option<Guest> {
        let phase = match self.being {
            Being::Arrived => return None,
            Being::Held => Phase::Held,
            Being::Running => Phase::Running,
            Being::Leaving(_) => Phase::Leaving { offered: self.last },
        };
        Some(Guest {
            agent: self.agent,
            stay: self.stay,
            taken: self.taken,
            posted: self.posted,
            phase,
        })
    }

    /// It was to leave, and runs on.
    pub(super) fn stays(&mut self) {
        self.being = Being::Running;
        // What came while it was frozen was not taken in.
        self.want_again();
    }

    pub(super) fn want_again(&mut self) {
        if self.wanted == Wanted::Said {
            self.wanted = Wanted::Due;
        }
    }

    /// What the agent has to say.
    pub(super) fn say(&mut self) -> Option<Vec<u8>> {
        if !matches!(self.being, Being::Running) {
            return None;
        }
        let (agent, epoch) = (self.agent, self.stay);
        if let Some(post) = self.post.as_mut().filter(|post| post.due) {
            post.due = false;
            let message = LeafMessage::Post {
                agent,
                epoch,
                number: self.posted,
                again: post.again,
                to: post.to,
                kind: post.kind,
            };
            return Some(message.encode(&post.payload));
        }
        if self.wanted == Wanted::Due {
            self.wanted = Wanted::Said;
            let next = self.taken;
            return Some(LeafMessage::Want { agent, epoch, next }.encode(&[]));
        }
        None
    }
}

pub(super) fn running(
    residents: &mut [Resident],
    agent: AgentId,
) -> Result<&mut Resident, HandoverError> {
    in_being(residents, agent, |being| matches!(being, Being::Running))
}

pub(super) fn arrived(
    residents: &mut [Resident],
    agent: AgentId,
) -> Result<&mut Resident, HandoverError> {
    in_being(residents, agent, |being| matches!(being, Being::Arrived))
}

fn in_being(
    residents: &mut [Resident],
    agent: AgentId,
    is: impl Fn(&Being) -> bool,
) -> Result<&mut Resident, HandoverError> {
    let mut residents = residents.iter_mut();
    residents
        .find(|resident| resident.agent == agent && is(&resident.being))
        .ok_or(HandoverError::State)
}

pub(super) fn leaving(
    residents: &mut [Resident],
    agent: AgentId,
    epoch: Epoch,
) -> Option<&mut Resident> {
    let resident = in_being(residents, agent, |being| matches!(being, Being::Leaving(_)));
    resident.ok().filter(|resident| resident.last == epoch)
}
