//! What a host makes of its leaf's messages.

use alloc::vec::Vec;

use super::{Arriving, Come, Greeting, HostEnd, HostEndEvent, Known, Place};
use crate::handover::MessageError;
use crate::handover::message::{
    Hello, HostMessage, LeafMessage, Offer, PostResult, Reason, Transfer,
};
use crate::handover::transfer::{Incoming, Progressed};
use crate::limits::{HANDOVER_CHECKPOINT_BYTES_MAX, HANDOVER_QUEUE_MAX, HANDOVER_RESERVE_BYTES};
use crate::{AgentId, Epoch};

impl HostEnd {
    /// Takes in a message of the leaf.
    ///
    /// # Errors
    ///
    /// The message was dropped.
    pub fn handle_message(&mut self, message: &[u8]) -> Result<(), MessageError> {
        let (message, tail) = LeafMessage::decode(message)?;
        if let LeafMessage::Hello(hello) = message {
            return self.handle_hello(hello);
        }
        // What comes before belongs to streams that have ended.
        if !self.is_greeted() {
            return Ok(());
        }
        // Each message causes one at most.
        if self.queue.len() >= HANDOVER_QUEUE_MAX {
            return Err(MessageError::Full);
        }
        match message {
            LeafMessage::Hello(_) => {}
            LeafMessage::Status(status) => self.events.push_back(HostEndEvent::Status(status)),
            LeafMessage::Want { agent, epoch, next } => {
                self.present(agent, epoch)?.wanted = Some(next);
                self.events
                    .push_back(HostEndEvent::Want { agent, epoch, next });
            }
            LeafMessage::Post {
                agent,
                epoch,
                number,
                again,
                to,
                kind,
            } => {
                if self.takes_post(agent, epoch, number, again)? {
                    self.events.push_back(HostEndEvent::Post {
                        agent,
                        epoch,
                        number,
                        to,
                        kind,
                        payload: tail.to_vec(),
                    });
                }
            }
            LeafMessage::Log {
                agent,
                epoch,
                stream,
            } => {
                let known = self.agents.get(&agent);
                if known.is_none_or(|known| known.stay != epoch) {
                    return Err(MessageError::Unexpected);
                }
                self.events.push_back(HostEndEvent::Log {
                    agent,
                    epoch,
                    stream,
                    bytes: tail.to_vec(),
                });
            }
            LeafMessage::Reading { sensor, reading } => self
                .events
                .push_back(HostEndEvent::Reading { sensor, reading }),
            LeafMessage::Actuated { number, result } => {
                let mut commands = self.commands.iter();
                // Of one from before a restart it was said that nobody knows.
                if let Some(index) = commands.position(|command| *command == number) {
                    self.commands.remove(index);
                    self.events.push_back(HostEndEvent::Actuated {
                        number,
                        result: Some(result),
                    });
                }
            }
            LeafMessage::Transfer(transfer) => return self.handle_transfer(transfer, tail),
        }
        Ok(())
    }

    fn handle_hello(&mut self, hello: Hello) -> Result<(), MessageError> {
        let mut agents: Vec<_> = hello.guests.iter().map(|guest| guest.agent).collect();
        agents.sort_unstable();
        agents.dedup();
        if agents.len() != hello.guests.len() {
            return Err(MessageError::Unexpected);
        }
        self.restarted();
        self.greeting = Greeting::Due { nonce: hello.nonce };
        self.events.push_back(HostEndEvent::Hello {
            boot: hello.boot,
            profile: hello.profile,
            guests: hello.guests.clone(),
        });
        self.reconcile(&hello.guests);
        Ok(())
    }

    /// Whether a post is to be performed. Otherwise it is answered here, or will be.
    fn takes_post(
        &mut self,
        agent: AgentId,
        epoch: Epoch,
        number: u64,
        again: bool,
    ) -> Result<bool, MessageError> {
        let posts = &mut self.present(agent, epoch)?.posts;
        if posts.performed == Some(number) {
            return Ok(false);
        }
        let result = match posts.answered {
            Some((answered, result)) if answered == number => result,
            _ if posts.performed.is_some() || posts.fresh.is_some_and(|fresh| fresh != number) => {
                return Err(MessageError::Unexpected);
            }
            // Whoever has seen all before knows that this one is new.
            _ if again
                && posts.fresh.is_none()
                && posts.unperformed_from.is_none_or(|from| number < from) =>
            {
                PostResult::InDoubt
            }
            _ => {
                posts.fresh = number.checked_add(1);
                posts.performed = Some(number);
                return Ok(true);
            }
        };
        posts.fresh = number.checked_add(1);
        posts.answered = Some((number, result));
        self.say(&HostMessage::Posted {
            agent,
            epoch,
            number,
            result,
        });
        Ok(false)
    }

    fn handle_transfer(&mut self, transfer: Transfer, tail: &[u8]) -> Result<(), MessageError> {
        match transfer {
            Transfer::Offer(offer) => self.handle_offer(offer),
            Transfer::Chunk { offset } => self.handle_chunk(offset, tail),
            Transfer::Run { agent, epoch } => {
                match self.place(agent) {
                    Some(Place::Taken { epoch: taken }) if *taken == epoch => {}
                    _ => return Err(MessageError::Unexpected),
                }
                self.agents.remove(&agent);
                self.events
                    .push_back(HostEndEvent::Released { agent, epoch });
            }
            Transfer::Cancel { agent, epoch } => self.handle_cancel(agent, epoch),
            Transfer::Refuse {
                agent,
                epoch,
                reason,
            } => match self.place(agent) {
                Some(Place::Giving {
                    epoch: given, held, ..
                }) if *given == epoch && !*held => {
                    self.agents.remove(&agent);
                    self.events.push_back(HostEndEvent::Refused {
                        agent,
                        epoch,
                        reason,
                    });
                }
                // Of one that was cancelled in the meantime nothing is to be said.
                _ => {}
            },
            Transfer::Have { agent, epoch } => match self.place(agent) {
                Some(Place::Giving {
                    epoch: given,
                    package,
                    held,
                }) if *given == epoch => {
                    if !package.is_gone() || *held {
                        return Err(MessageError::Unexpected);
                    }
                    *held = true;
                    self.events.push_back(HostEndEvent::Held { agent, epoch });
                }
                _ => {}
            },
        }
        Ok(())
    }

    fn handle_offer(&mut self, offer: Offer) {
        // Whoever begins another has given up the one before.
        self.incoming = None;
        let Offer { agent, epoch, .. } = offer;
        let refused = match self.agents.get_mut(&agent) {
            None => Reason::Conflict,
            Some(known) => match known.place {
                // In these streams it was said that it is here.
                Place::Taken { epoch: taken } if taken == epoch => return,
                // It is being stored.
                Place::Away {
                    arriving: Some(arriving),
                } if arriving.epoch == epoch => return,
                Place::Away { arriving: None } if epoch > known.stay => {
                    known.come = Come::No;
                    known.wanted = None;
                    match begin(offer) {
                        Ok(incoming) => {
                            self.incoming = Some(incoming);
                            return;
                        }
                        Err(reason) => reason,
                    }
                }
                _ => Reason::Conflict,
            },
        };
        self.say(&HostMessage::Transfer(Transfer::Refuse {
            agent,
            epoch,
            reason: refused,
        }));
    }

    fn handle_chunk(&mut self, offset: u32, piece: &[u8]) {
        // What follows an offer that was refused.
        let Some(incoming) = &mut self.incoming else {
            return;
        };
        let Offer {
            agent,
            epoch,
            taken,
            posted,
            ..
        } = incoming.offer;
        match incoming.take(offset, piece) {
            Progressed::Incomplete => {}
            Progressed::Damaged => {
                self.incoming = None;
                let reason = Reason::Damaged;
                self.say(&HostMessage::Transfer(Transfer::Refuse {
                    agent,
                    epoch,
                    reason,
                }));
            }
            Progressed::Complete => {
                let incoming = self.incoming.take();
                let bytes = incoming.map(Incoming::into_bytes).unwrap_or_default();
                if let Some(Place::Away { arriving }) = self.place(agent) {
                    let released = false;
                    *arriving = Some(Arriving { epoch, released });
                    self.events.push_back(HostEndEvent::Arrived {
                        agent,
                        epoch,
                        bytes,
                        taken,
                        posted,
                    });
                }
            }
        }
    }

    fn handle_cancel(&mut self, agent: AgentId, epoch: Epoch) {
        let incoming = &mut self.incoming;
        incoming.take_if(|i| i.offer.agent == agent && i.offer.epoch <= epoch);
        let Some(known) = self.agents.get_mut(&agent) else {
            return;
        };
        let had = match &known.place {
            Place::Away {
                arriving: Some(arriving),
            } => arriving.epoch,
            Place::Taken { epoch } => *epoch,
            Place::Away { arriving: None } | Place::Giving { .. } => return,
        };
        if had <= epoch {
            known.place = Known::AWAY;
            self.events.push_back(HostEndEvent::Cancelled {
                agent,
                epoch: had,
                stay: known.stay,
            });
        }
    }

    /// The agent that is at the leaf in this stay, and not on its way from there.
    fn present(&mut self, agent: AgentId, stay: Epoch) -> Result<&mut Known, MessageError> {
        let known = self.agents.get_mut(&agent);
        known
            .filter(|known| matches!(known.place, Place::Away { arriving: None }))
            .filter(|known| known.stay == stay)
            .ok_or(MessageError::Unexpected)
    }
}

/// Begins to take what is offered, if it is small enough.
fn begin(offer: Offer) -> Result<Incoming, Reason> {
    const ROOM_BYTES: u32 = HANDOVER_CHECKPOINT_BYTES_MAX as u32;
    if offer.bytes == 0 {
        return Err(Reason::Damaged);
    }
    let room_bytes = ROOM_BYTES;
    if offer.bytes > ROOM_BYTES {
        return Err(Reason::NoRoom { room_bytes });
    }
    let reserve = HANDOVER_RESERVE_BYTES.min(offer.bytes as usize);
    Incoming::new(offer, reserve).ok_or(Reason::NoRoom { room_bytes: 0 })
}
