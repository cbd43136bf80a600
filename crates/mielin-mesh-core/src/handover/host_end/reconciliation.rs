//! What a host concludes from a hello: who owns each agent that it or the leaf knows.
//!
//! | written down here | the leaf lists | conclusion |
//! |---|---|---|
//! | giving `e` | held in `e` | the leaf holds it: [`HostEndEvent::Held`] |
//! | | held in another epoch | that is cancelled, and `e` offered from the beginning |
//! | | running or leaving | it was let go, and that was lost here: [`HostEndEvent::Found`] |
//! | | nothing | `e` is offered from the beginning |
//! | away in `e` | held in `e` | it does not know that it owns it: run |
//! | | running or leaving in `e` | so it is |
//! | | running or leaving in another epoch | [`HostEndEvent::Found`] |
//! | | held in another epoch, or nothing | [`HostEndEvent::Lost`] |
//! | taken in `e` | leaving in `e` | it waits: have |
//! | | running, or leaving in another epoch | it was cancelled: [`HostEndEvent::Cancelled`] |
//! | | held, or nothing | it has let go, or lost what is here: [`HostEndEvent::Released`] |
//! | nothing | held | cancel |
//! | | running or leaving | [`HostEndEvent::Found`] |
//!
//! An agent that has arrived and is not stored is as one that is taken, but that its [`HostEndEvent::Released`] waits until it
//! is stored.

use alloc::vec::Vec;

use super::{Arriving, HostEnd, HostEndEvent, Known, Place};
use crate::handover::message::{Guest, HostMessage, Phase, Transfer};
use crate::{AgentId, Epoch};

impl HostEnd {
    pub(super) fn reconcile(&mut self, guests: &[Guest]) {
        let unlisted = |agent: &AgentId| guests.iter().all(|guest| guest.agent != *agent);
        let missing: Vec<_> = self.agents.keys().copied().filter(unlisted).collect();
        for agent in missing {
            self.is_not_there(agent);
        }
        for guest in guests {
            match guest.phase {
                Phase::Held => self.is_held(guest.agent, guest.stay),
                Phase::Running => self.is_owned(guest, None),
                Phase::Leaving { offered } => self.is_owned(guest, Some(offered)),
            }
        }
    }

    /// The leaf holds this agent in this epoch and waits whether it may run it.
    fn is_held(&mut self, agent: AgentId, epoch: Epoch) {
        if let Some(known) = self.agents.get_mut(&agent) {
            match &mut known.place {
                Place::Giving {
                    epoch: given, held, ..
                } if *given == epoch => {
                    *held = true;
                    return self.events.push_back(HostEndEvent::Held { agent, epoch });
                }
                Place::Away { arriving: None } if known.stay == epoch => {
                    return self.say(&HostMessage::Transfer(Transfer::Run { agent, epoch }));
                }
                _ => {}
            }
        }
        self.say(&HostMessage::Transfer(Transfer::Cancel { agent, epoch }));
        self.is_not_there(agent);
    }

    /// The leaf owns this agent, and offers it in this epoch.
    fn is_owned(&mut self, guest: &Guest, offered: Option<Epoch>) {
        let Guest { agent, stay, .. } = *guest;
        let is_same = |epoch| offered == Some(epoch);
        let Some(known) = self.agents.get_mut(&agent) else {
            return self.is_found(guest);
        };
        match known.place {
            Place::Away { arriving: None } if known.stay == stay => {}
            Place::Giving { .. } | Place::Away { arriving: None } => self.is_found(guest),
            Place::Taken { epoch } if is_same(epoch) => {
                known.stay = stay;
                self.say(&HostMessage::Transfer(Transfer::Have { agent, epoch }));
            }
            Place::Away {
                arriving: Some(Arriving { epoch, .. }),
            } if is_same(epoch) => known.stay = stay,
            Place::Taken { epoch }
            | Place::Away {
                arriving: Some(Arriving { epoch, .. }),
            } => {
                known.place = Known::AWAY;
                if known.stay != stay {
                    *known = Known::at(Known::AWAY, stay);
                }
                self.events
                    .push_back(HostEndEvent::Cancelled { agent, epoch, stay });
            }
        }
    }

    fn is_found(&mut self, guest: &Guest) {
        self.agents.remove(&guest.agent);
        self.events.push_back(HostEndEvent::Found {
            agent: guest.agent,
            epoch: guest.stay,
            taken: guest.taken,
            posted: guest.posted,
        });
    }

    /// The leaf does not own this agent.
    fn is_not_there(&mut self, agent: AgentId) {
        let Some(known) = self.agents.get_mut(&agent) else {
            return;
        };
        let event = match &mut known.place {
            // It is offered from the beginning.
            Place::Giving { .. } => return,
            Place::Away {
                arriving: Some(arriving),
            } => {
                arriving.released = true;
                return;
            }
            Place::Away { arriving: None } => HostEndEvent::Lost {
                agent,
                epoch: known.stay,
            },
            Place::Taken { epoch } => HostEndEvent::Released {
                agent,
                epoch: *epoch,
            },
        };
        self.agents.remove(&agent);
        self.events.push_back(event);
    }
}
