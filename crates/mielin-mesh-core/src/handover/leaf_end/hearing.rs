//! What a leaf makes of its host's messages.

use alloc::collections::VecDeque;

use super::resident::{Being, Resident, Wanted, leaving, running};
use super::{Greeting, LeafEnd, LeafEndEvent, Sensor};
use crate::handover::MessageError;
use crate::handover::message::{HostMessage, Offer, Reason, Transfer};
use crate::handover::transfer::{Incoming, Progressed};
use crate::limits::{HANDOVER_AGENTS_MAX, HANDOVER_ANSWERS_MAX};
use crate::{AgentId, Epoch};

impl LeafEnd {
    /// Takes in a message of the host.
    ///
    /// # Errors
    ///
    /// The message was dropped.
    pub fn handle_message(&mut self, message: &[u8]) -> Result<(), MessageError> {
        let (message, tail) = HostMessage::decode(message)?;
        match (self.greeting, message) {
            (Greeting::Said { nonce: said }, HostMessage::Welcome { nonce, real_ns })
                if nonce == said =>
            {
                self.greeting = Greeting::Welcomed;
                self.events.push_back(LeafEndEvent::Welcomed { real_ns });
                Ok(())
            }
            (Greeting::Welcomed, message) => self.handle(message, tail),
            // It belongs to streams that have ended.
            (Greeting::Due | Greeting::Said { .. }, _) => Ok(()),
        }
    }

    fn handle(&mut self, message: HostMessage, tail: &[u8]) -> Result<(), MessageError> {
        match message {
            HostMessage::Welcome { .. } => return Err(MessageError::Unexpected),
            HostMessage::Come { agent, epoch } => {
                if running(&mut self.residents, agent).is_ok_and(|r| r.stay == epoch) {
                    self.events.push_back(LeafEndEvent::Come { agent });
                }
            }
            HostMessage::Mail {
                agent,
                epoch,
                number,
                letter,
                length,
            } => {
                // What comes to an agent that is frozen stays at the host: it is not among what was taken.
                if let Ok(resident) = running(&mut self.residents, agent)
                    && (resident.stay, resident.taken) == (epoch, number)
                    && matches!(resident.wanted, Wanted::Due | Wanted::Said)
                {
                    resident.wanted = Wanted::Delivered;
                    self.events.push_back(LeafEndEvent::Mail {
                        agent,
                        number,
                        letter,
                        length,
                        payload: tail.to_vec(),
                    });
                }
            }
            HostMessage::Posted {
                agent,
                epoch,
                number,
                result,
            } => {
                let mut residents = self.residents.iter_mut();
                let resident = residents
                    .find(|r| (r.agent, r.stay, r.posted) == (agent, epoch, number))
                    .ok_or(MessageError::Unexpected)?;
                resident
                    .post
                    .take_if(|post| !post.due)
                    .ok_or(MessageError::Unexpected)?;
                resident.posted += 1;
                self.events.push_back(LeafEndEvent::Posted {
                    agent,
                    number,
                    result,
                });
            }
            HostMessage::Sense { sensor, after } => self.handle_sense(sensor, after)?,
            HostMessage::Actuate {
                number,
                actuator,
                value,
            } => self.events.push_back(LeafEndEvent::Actuate {
                number,
                actuator,
                value,
            }),
            HostMessage::Transfer(transfer) => return self.handle_transfer(transfer, tail),
        }
        Ok(())
    }

    fn handle_sense(&mut self, sensor: u8, after: u64) -> Result<(), MessageError> {
        if sensor >= self.profile.sensors {
            return Err(MessageError::Unexpected);
        }
        let index = self.sensors.iter().position(|s| s.sensor == sensor);
        let index = index.unwrap_or_else(|| {
            self.sensors.push(Sensor {
                sensor,
                after,
                ahead: VecDeque::new(),
            });
            self.sensors.len() - 1
        });
        let known = &mut self.sensors[index];
        known.after = known.after.max(after);
        known.ahead.retain(|number| *number > after);
        let after = known.after;
        self.events.push_back(LeafEndEvent::Sense { sensor, after });
        Ok(())
    }

    fn handle_transfer(&mut self, transfer: Transfer, tail: &[u8]) -> Result<(), MessageError> {
        match transfer {
            Transfer::Offer(offer) => return self.handle_offer(offer),
            Transfer::Chunk { offset } => return self.handle_chunk(offset, tail),
            Transfer::Run { agent, epoch } => {
                let mut residents = self.residents.iter_mut();
                let resident = residents
                    .find(|r| r.agent == agent && r.stay == epoch)
                    .filter(|r| matches!(r.being, Being::Held))
                    .ok_or(MessageError::Unexpected)?;
                resident.being = Being::Running;
                self.events.push_back(LeafEndEvent::Run { agent, epoch });
            }
            Transfer::Cancel { agent, epoch } => {
                let (incoming, residents) = (&mut self.incoming, &mut self.residents);
                incoming.take_if(|i| i.offer.agent == agent && i.offer.epoch <= epoch);
                let index = residents.iter().position(|resident| {
                    resident.agent == agent
                        && resident.stay <= epoch
                        && matches!(resident.being, Being::Arrived | Being::Held)
                });
                if let Some(index) = index {
                    let resident = residents.remove(index);
                    self.events.push_back(resident.cancelled());
                }
            }
            Transfer::Refuse {
                agent,
                epoch,
                reason,
            } => {
                // Of one that was cancelled in the meantime nothing is to be said.
                if let Some(resident) = leaving(&mut self.residents, agent, epoch) {
                    resident.stays();
                    self.events.push_back(LeafEndEvent::Refused {
                        agent,
                        epoch,
                        reason,
                    });
                }
            }
            Transfer::Have { agent, epoch } => {
                if leaving(&mut self.residents, agent, epoch).is_some() {
                    self.answer(Transfer::Run { agent, epoch })?;
                    self.residents.retain(|resident| resident.agent != agent);
                    self.events
                        .push_back(LeafEndEvent::HandedOver { agent, epoch });
                }
            }
        }
        Ok(())
    }

    fn handle_offer(&mut self, offer: Offer) -> Result<(), MessageError> {
        // Whoever begins another has given up the one before.
        self.incoming = None;
        let Offer { agent, epoch, .. } = offer;
        let index = self.residents.iter().position(|r| r.agent == agent);
        if let Some(index) = index {
            let resident = &self.residents[index];
            match resident.being {
                Being::Held if epoch == resident.stay => {
                    return self.answer(Transfer::Have { agent, epoch });
                }
                // The driver will say.
                Being::Arrived if epoch == resident.stay => return Ok(()),
                Being::Held | Being::Arrived if epoch > resident.stay => {
                    let cancelled = resident.cancelled();
                    self.events.push_back(cancelled);
                    self.residents.remove(index);
                }
                _ => return self.answer_refusal(agent, epoch, Reason::Conflict),
            }
        }
        let status = &self.profile.status;
        let room_bytes = if self.residents.len() < HANDOVER_AGENTS_MAX {
            status.room_bytes
        } else {
            0
        };
        if !status.ready {
            self.answer_refusal(agent, epoch, Reason::NotReady)
        } else if offer.bytes == 0 {
            self.answer_refusal(agent, epoch, Reason::Damaged)
        } else if offer.bytes <= room_bytes
            && let Some(incoming) = Incoming::new(offer, offer.bytes as usize)
        {
            self.incoming = Some(incoming);
            Ok(())
        } else {
            self.answer_refusal(agent, epoch, Reason::NoRoom { room_bytes })
        }
    }

    fn handle_chunk(&mut self, offset: u32, piece: &[u8]) -> Result<(), MessageError> {
        // What follows an offer that was refused.
        let Some(incoming) = &mut self.incoming else {
            return Ok(());
        };
        let Offer { agent, epoch, .. } = incoming.offer;
        match incoming.take(offset, piece) {
            Progressed::Incomplete => Ok(()),
            Progressed::Damaged => {
                self.incoming = None;
                self.answer_refusal(agent, epoch, Reason::Damaged)
            }
            Progressed::Complete => {
                let incoming = self.incoming.take();
                let bytes = incoming.map(Incoming::into_bytes).unwrap_or_default();
                self.residents.push(Resident::arrived(agent, epoch));
                self.events.push_back(LeafEndEvent::Arrived {
                    agent,
                    epoch,
                    bytes,
                });
                Ok(())
            }
        }
    }

    fn answer_refusal(
        &mut self,
        agent: AgentId,
        epoch: Epoch,
        reason: Reason,
    ) -> Result<(), MessageError> {
        self.answer(Transfer::Refuse {
            agent,
            epoch,
            reason,
        })
    }

    fn answer(&mut self, answer: Transfer) -> Result<(), MessageError> {
        if self.answers.len() >= HANDOVER_ANSWERS_MAX {
            return Err(MessageError::Full);
        }
        self.answers.push_back(answer);
        Ok(())
    }
}
