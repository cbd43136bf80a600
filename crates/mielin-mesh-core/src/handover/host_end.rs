//! The host's end of one leaf: who owns which agent, and what is said about it.

mod hearing;
mod reconciliation;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use super::HandoverError;
use super::leaf_end::{check_checkpoint, check_size};
use super::message::{
    Guest, HostMessage, Letter, MAIL_PAYLOAD_BYTES_MAX, Offer, PostResult, Profile, Reading,
    Reason, Status, Transfer,
};
use super::transfer::{Incoming, Package};
use crate::delivery::MessageKind;
use crate::limits::{
    HANDOVER_ACTUATIONS_MAX, HANDOVER_OFFERS_MAX, HANDOVER_QUEUE_MAX, PAYLOAD_BYTES_MAX,
};
use crate::{AgentId, Epoch};

/// The end at the host, for one leaf. It knows the agents that are at the leaf or on their way there or back.
#[derive(Debug, Default)]
pub struct HostEnd {
    greeting: Greeting,
    agents: BTreeMap<AgentId, Known>,
    incoming: Option<Incoming>,
    queue: VecDeque<Vec<u8>>,
    /// What is wanted of sensors, and was not said.
    senses: BTreeMap<u8, u64>,
    /// Commands that are not answered.
    commands: VecDeque<u32>,
    commands_given: u32,
    events: VecDeque<HostEndEvent>,
}

/// What a host must not forget of an agent and a leaf. An agent that is here and has nothing to do with the leaf has
/// no role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is here, frozen, and offered to the leaf: with its checkpoint. To be written down before [`HostEnd::offer`].
    Giving(Vec<u8>),
    /// It is at the leaf. To be written down before [`HostEnd::let_go`].
    Away,
    /// It is here, stored, and the leaf may not have let go. To be written down before [`HostEnd::have`]. It takes the
    /// place of [`Role::Away`].
    Taken,
}

/// What happened at a [`HostEnd`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostEndEvent {
    /// The leaf has said hello, and says and hears something from here on. Give [`HostEnd::sense`] again what is
    /// wanted of its sensors. What became of agents follows.
    Hello {
        /// Which start of the leaf this is. With another the numbers of its readings begin anew.
        boot: u64,
        /// What it is.
        profile: Profile,
        /// Its agents.
        guests: Vec<Guest>,
    },
    /// How the leaf is now.
    Status(Status),
    /// The leaf offers an agent and it is here whole. Store it and write down [`Role::Taken`], then call
    /// [`HostEnd::have`]; or [`HostEnd::refuse`] if that is not possible.
    Arrived {
        /// The agent.
        agent: AgentId,
        /// The epoch that it is to have here.
        epoch: Epoch,
        /// The checkpoint.
        bytes: Vec<u8>,
        /// Mail below this number was taken in the stay that ends.
        taken: u64,
        /// Posts below this number were made in the stay that ends.
        posted: u64,
    },
    /// The leaf has let go of the agent that was taken: it is here. Write that down, then let it run.
    Released {
        /// The agent.
        agent: AgentId,
        /// Its epoch here.
        epoch: Epoch,
    },
    /// The leaf keeps the agent that had arrived: delete what is stored, and write down [`Role::Away`] again.
    Cancelled {
        /// The agent.
        agent: AgentId,
        /// The epoch in which it was offered.
        epoch: Epoch,
        /// That of its stay at the leaf, which goes on.
        stay: Epoch,
    },
    /// The leaf holds the agent that was offered. Write down [`Role::Away`], then call [`HostEnd::let_go`]; or
    /// [`HostEnd::cancel`].
    Held {
        /// The agent.
        agent: AgentId,
        /// The epoch in which it was offered.
        epoch: Epoch,
    },
    /// The leaf does not take the agent that was offered: it has no role any more and may run here.
    Refused {
        /// The agent.
        agent: AgentId,
        /// The epoch in which it was offered.
        epoch: Epoch,
        /// Why.
        reason: Reason,
    },
    /// The leaf has started anew and lost the agent that it owned. It has no role any more.
    Lost {
        /// The agent.
        agent: AgentId,
        /// Its stay there.
        epoch: Epoch,
    },
    /// The leaf says that it owns an agent otherwise than is written down here. It has no role any more, and what the
    /// leaf says of it is not believed. If it may be so, drop what there is of the agent, write down [`Role::Away`] in this epoch, and
    /// [`HostEnd::restore`] that.
    Found {
        /// The agent.
        agent: AgentId,
        /// Its stay there.
        epoch: Epoch,
        /// Mail below this number was taken.
        taken: u64,
        /// Posts below this number were answered.
        posted: u64,
    },
    /// The agent wants this mail: give it by [`HostEnd::mail`] as soon as there is one. All before is taken.
    Want {
        /// The agent.
        agent: AgentId,
        /// Its stay.
        epoch: Epoch,
        /// The number, from 0 on in each stay.
        next: u64,
    },
    /// The agent sends a message: do it, and say by [`HostEnd::posted`] what became of it.
    Post {
        /// The agent.
        agent: AgentId,
        /// Its stay.
        epoch: Epoch,
        /// Its number, from 0 on in each stay.
        number: u64,
        /// For whom.
        to: AgentId,
        /// What is expected.
        kind: MessageKind,
        /// The payload.
        payload: Vec<u8>,
    },
    /// What an agent wrote or logged at the leaf.
    Log {
        /// The agent.
        agent: AgentId,
        /// Its stay.
        epoch: Epoch,
        /// Where to.
        stream: u8,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A reading. After a hello those come again with which nobody has said to be done.
    Reading {
        /// Of which sensor.
        sensor: u8,
        /// The reading.
        reading: Reading,
    },
    /// What became of a command.
    Actuated {
        /// Its number.
        number: u32,
        /// Zero if it was done, otherwise what the device says; nothing if the link's streams have begun again in the meantime, and
        /// nobody knows.
        result: Option<u8>,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Greeting {
    /// The leaf has to say hello.
    #[default]
    Awaited,
    /// It did, and is to be answered.
    Due { nonce: u64 },
    /// It was answered.
    Said,
}

/// An agent that has to do with the leaf.
#[derive(Debug)]
struct Known {
    place: Place,
    /// The epoch of its stay at the leaf, as far as it has or had one.
    stay: Epoch,
    posts: Posts,
    /// The number of the mail that it wants.
    wanted: Option<u64>,
    come: Come,
}

#[derive(Debug)]
enum Place {
    /// Here, frozen, offered.
    Giving {
        epoch: Epoch,
        package: Package,
        held: bool,
    },
    /// At the leaf.
    Away { arriving: Option<Arriving> },
    /// Here, stored; the leaf may own it.
    Taken { epoch: Epoch },
}

/// An agent that is here whole and is being stored.
#[derive(Clone, Copy, Debug)]
struct Arriving {
    epoch: Epoch,
    /// The leaf has lost it, so it is here.
    released: bool,
}

/// The posts of a stay.
#[derive(Debug, Default)]
struct Posts {
    /// Which number nobody has seen, if that is known: not after a start of the host.
    fresh: Option<u64>,
    /// The one that is being performed.
    performed: Option<u64>,
    /// The last that was answered.
    answered: Option<(u64, PostResult)>,
    /// After a start of the host: none from this number on was performed, as is written down.
    unperformed_from: Option<u64>,
}

/// Whether the leaf is asked for an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Come {
    No,
    Due,
    Said,
}

impl Known {
    fn at(place: Place, stay: Epoch) -> Known {
        Known {
            place,
            stay,
            posts: Posts::default(),
            wanted: None,
            come: Come::No,
        }
    }

    const AWAY: Place = Place::Away { arriving: None };
}

impl HostEnd {
    /// An end for a leaf of which nothing is written down.
    #[must_use]
    pub fn new() -> HostEnd {
        HostEnd::default()
    }

    /// Says what is written down of an agent: at the host's start, before the first message, and after
    /// [`HostEndEvent::Found`], before the next.
    ///
    /// # Errors
    ///
    /// [`HandoverError::State`] if the agent has a role already; [`HandoverError::Size`].
    pub fn restore(
        &mut self,
        agent: AgentId,
        epoch: Epoch,
        role: Role,
    ) -> Result<(), HandoverError> {
        if self.agents.contains_key(&agent) {
            return Err(HandoverError::State);
        }
        let known = match role {
            Role::Giving(bytes) => {
                check_checkpoint(&bytes)?;
                Known::at(giving(epoch, bytes), epoch)
            }
            Role::Away => Known::at(Known::AWAY, epoch),
            // The leaf's hello says in which stay it is there.
            Role::Taken => Known::at(Place::Taken { epoch }, Epoch(0)),
        };
        self.agents.insert(agent, known);
        Ok(())
    }

    /// Says, after [`HostEnd::restore`] of an agent that is away, what is written down of its posts: that none from number `posted` on
    /// was performed in this stay, and what became of the one before. Others in between may have been refused, of which nothing
    /// needs to be written down. Without this a post that comes again is in doubt.
    ///
    /// # Errors
    ///
    /// [`HandoverError::State`] if the agent is not away.
    pub fn remember_posts(
        &mut self,
        agent: AgentId,
        posted: u64,
        last: Option<PostResult>,
    ) -> Result<(), HandoverError> {
        let known = self.agents.get_mut(&agent);
        let known = known.filter(|known| matches!(known.place, Place::Away { arriving: None }));
        let posts = &mut known.ok_or(HandoverError::State)?.posts;
        posts.unperformed_from = Some(posted);
        posts.answered = posted.checked_sub(1).zip(last);
        Ok(())
    }

    /// The link's streams have begun again: nothing counts until the leaf says hello.
    pub fn restarted(&mut self) {
        self.greeting = Greeting::Awaited;
        self.incoming = None;
        self.queue.clear();
        self.senses.clear();
        for command in self.commands.drain(..) {
            self.events.push_back(HostEndEvent::Actuated {
                number: command,
                result: None,
            });
        }
        for known in self.agents.values_mut() {
            known.wanted = None;
            if known.come == Come::Said {
                known.come = Come::Due;
            }
            if let Place::Giving { package, held, .. } = &mut known.place {
                package.start_over();
                *held = false;
            }
        }
    }

    /// Whether the leaf has said hello in these streams.
    #[must_use]
    pub fn is_greeted(&self) -> bool {
        self.greeting != Greeting::Awaited
    }

    /// The agent whose checkpoint is coming in from the leaf, piece by piece.
    #[must_use]
    pub fn coming(&self) -> Option<AgentId> {
        self.incoming.as_ref().map(|incoming| incoming.offer.agent)
    }

    /// Offers an agent, which must be frozen and written down as [`Role::Giving`], in an epoch above all that it ever had
    /// or was offered in. [`HostEndEvent::Held`] or [`HostEndEvent::Refused`] follows, however long the leaf is away.
    ///
    /// # Errors
    ///
    /// [`HandoverError::State`] if the agent has a role, [`HandoverError::Full`] if
    /// [`HANDOVER_OFFERS_MAX`] are offered, [`HandoverError::Size`]; `bytes` is dropped.
    pub fn offer(
        &mut self,
        agent: AgentId,
        epoch: Epoch,
        bytes: Vec<u8>,
    ) -> Result<(), HandoverError> {
        check_checkpoint(&bytes)?;
        if self.agents.contains_key(&agent) {
            return Err(HandoverError::State);
        }
        let offered = |known: &&Known| matches!(known.place, Place::Giving { .. });
        if self.agents.values().filter(offered).count() >= HANDOVER_OFFERS_MAX {
            return Err(HandoverError::Full);
        }
        let known = Known::at(giving(epoch, bytes), epoch);
        self.agents.insert(agent, known);
        Ok(())
    }

    /// Keeps an agent that was offered, also after [`HostEndEvent::Held`]: it has no role any more and may run here.
    ///
    /// # Errors
    ///
    /// [`HandoverError::State`]: it is not offered, or let go.
    pub fn cancel(&mut self, agent: AgentId) -> Result<(), HandoverError> {
        let Some(Place::Giving {
            epoch,
            package,
            held,
        }) = self.place(agent)
        else {
            return Err(HandoverError::State);
        };
        let (epoch, is_known) = (*epoch, *held || !package.is_unsaid());
        self.agents.remove(&agent);
        if is_known {
            self.say(&HostMessage::Transfer(Transfer::Cancel { agent, epoch }));
        }
        Ok(())
    }

    /// The leaf may run the agent that it holds, and it is written down that it is away.
    ///
    /// # Errors
    ///
    /// [`HandoverError::State`]: the leaf does not hold it (any more), and it is still to be given. Write
    /// down [`Role::Giving`] again.
    pub fn let_go(&mut self, agent: AgentId) -> Result<(), HandoverError> {
        let known = self.agents.get_mut(&agent).ok_or(HandoverError::State)?;
        let Place::Giving {
            epoch, held: true, ..
        } = known.place
        else {
            return Err(HandoverError::State);
        };
        *known = Known::at(Known::AWAY, epoch);
        known.posts.fresh = Some(0);
        self.say(&HostMessage::Transfer(Transfer::Run { agent, epoch }));
        Ok(())
    }

    /// The agent that has arrived is stored, and it is written down that it is taken.
    ///
    /// # Errors
    ///
    /// [`HandoverError::State`]: the leaf has kept it in the meantime, as an event says.
    pub fn have(&mut self, agent: AgentId) -> Result<(), HandoverError> {
        let (arriving, known) = self.arriving(agent)?;
        let epoch = arriving.epoch;
        if arriving.released {
            self.agents.remove(&agent);
            self.events
                .push_back(HostEndEvent::Released { agent, epoch });
        } else {
            known.place = Place::Taken { epoch };
            self.say(&HostMessage::Transfer(Transfer::Have { agent, epoch }));
        }
        Ok(())
    }

    /// The agent that has arrived is not taken, and stays at the leaf.
    ///
    /// # Errors
    ///
    /// [`HandoverError::State`]: the leaf has kept it in the meantime, as an event says.
    pub fn refuse(&mut self, agent: AgentId, reason: Reason) -> Result<(), HandoverError> {
        let (arriving, known) = self.arriving(agent)?;
        let (epoch, stay) = (arriving.epoch, known.stay);
        if arriving.released {
            self.agents.remove(&agent);
            let lost = HostEndEvent::Lost { agent, epoch: stay };
            self.events.push_back(lost);
        } else {
            known.place = Known::AWAY;
            self.say(&HostMessage::Transfer(Transfer::Refuse {
                agent,
                epoch,
                reason,
            }));
        }
        Ok(())
    }

    /// Asks the leaf for an agent that is there; again after each restart, until it is offered.
    ///
    /// # Errors
    ///
    /// [`HandoverError::State`]: it is not at the leaf, or coming.
    pub fn come(&mut self, agent: AgentId) -> Result<(), HandoverError> {
        let known = self.agents.get_mut(&agent).ok_or(HandoverError::State)?;
        if !matches!(known.place, Place::Away { arriving: None }) {
            return Err(HandoverError::State);
        }
        known.come = Come::Due;
        Ok(())
    }

    /// Gives an agent the mail that it has asked for. A payload above [`MAIL_PAYLOAD_BYTES_MAX`] does not travel; the
    /// agent learns its length.
    ///
    /// # Errors
    ///
    /// [`HandoverError::NotWanted`] if it wants another or none in these streams, or is in another stay;
    /// [`HandoverError::Size`] above [`PAYLOAD_BYTES_MAX`]; [`HandoverError::Full`].
    pub fn mail(
        &mut self,
        agent: AgentId,
        epoch: Epoch,
        number: u64,
        letter: Letter,
        payload: &[u8],
    ) -> Result<(), HandoverError> {
        check_size(payload.len(), PAYLOAD_BYTES_MAX)?;
        let known = self.agents.get_mut(&agent);
        let known = known
            .filter(|known| known.stay == epoch && known.wanted == Some(number))
            .ok_or(HandoverError::NotWanted)?;
        if self.queue.len() >= HANDOVER_QUEUE_MAX {
            return Err(HandoverError::Full);
        }
        known.wanted = None;
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let message = HostMessage::Mail {
            agent,
            epoch,
            number,
            letter,
            length,
        };
        let fits = payload.len() <= MAIL_PAYLOAD_BYTES_MAX;
        let tail = if fits { payload } else { &[] };
        self.queue.push_back(message.encode(tail));
        Ok(())
    }

    /// Says what became of a post.
    ///
    /// # Errors
    ///
    /// [`HandoverError::State`]: it is not (any more) one that is to be answered.
    pub fn posted(
        &mut self,
        agent: AgentId,
        epoch: Epoch,
        number: u64,
        result: PostResult,
    ) -> Result<(), HandoverError> {
        let known = self.agents.get_mut(&agent);
        let known = known
            .filter(|known| known.stay == epoch && known.posts.performed == Some(number))
            .ok_or(HandoverError::State)?;
        known.posts.performed = None;
        known.posts.answered = Some((number, result));
        self.say(&HostMessage::Posted {
            agent,
            epoch,
            number,
            result,
        });
        Ok(())
    }

    /// Wants the readings of a sensor above `after`, as they come, and is done with those up to it. Of those above the
    /// leaf sends [`HANDOVER_READINGS_AHEAD`](crate::limits::HANDOVER_READINGS_AHEAD) before it hears this again with a higher number,
    /// and each once in these streams. Does nothing before the leaf has said hello.
    pub fn sense(&mut self, sensor: u8, after: u64) {
        if self.is_greeted() {
            let wanted = self.senses.entry(sensor).or_default();
            *wanted = after.max(*wanted);
        }
    }

    /// Gives a command to an actuator; its number. [`HostEndEvent::Actuated`] follows.
    ///
    /// # Errors
    ///
    /// [`HandoverError::State`] if the leaf has not said hello, [`HandoverError::Full`] if
    /// [`HANDOVER_ACTUATIONS_MAX`] are not answered.
    pub fn actuate(&mut self, actuator: u8, value: i64) -> Result<u32, HandoverError> {
        if !self.is_greeted() {
            return Err(HandoverError::State);
        }
        if self.commands.len() >= HANDOVER_ACTUATIONS_MAX || self.queue.len() >= HANDOVER_QUEUE_MAX
        {
            return Err(HandoverError::Full);
        }
        let number = self.commands_given;
        self.commands_given = number.wrapping_add(1);
        self.commands.push_back(number);
        self.say(&HostMessage::Actuate {
            number,
            actuator,
            value,
        });
        Ok(number)
    }

    /// What happened. Ask until nothing comes.
    pub fn poll_event(&mut self) -> Option<HostEndEvent> {
        self.events.pop_front()
    }

    /// The next message for the link. What comes has to be sent: ask only when the link has room. `real_ns` is the time, in
    /// nanoseconds since 1970.
    pub fn poll_message(&mut self, real_ns: u64) -> Option<Vec<u8>> {
        match self.greeting {
            Greeting::Awaited => return None,
            Greeting::Due { nonce } => {
                self.greeting = Greeting::Said;
                return Some(HostMessage::Welcome { nonce, real_ns }.encode(&[]));
            }
            Greeting::Said => {}
        }
        if let Some(message) = self.queue.pop_front() {
            return Some(message);
        }
        if let Some((sensor, after)) = self.senses.pop_first() {
            return Some(HostMessage::Sense { sensor, after }.encode(&[]));
        }
        let come = |(_, known): &(&AgentId, &mut Known)| known.come == Come::Due;
        if let Some((&agent, known)) = self.agents.iter_mut().find(come) {
            known.come = Come::Said;
            let epoch = known.stay;
            return Some(HostMessage::Come { agent, epoch }.encode(&[]));
        }
        self.say_package()
    }

    fn say_package(&mut self) -> Option<Vec<u8>> {
        let packages = self.agents.iter_mut();
        let mut due = None;
        for (&agent, known) in packages {
            if let Place::Giving {
                epoch,
                package,
                held: false,
            } = &mut known.place
                && package.is_due()
                && (due.is_none() || package.is_going())
            {
                due = Some((agent, *epoch, package));
            }
        }
        let (agent, epoch, package) = due?;
        let offer = Offer {
            agent,
            epoch,
            bytes: package.len(),
            taken: 0,
            posted: 0,
        };
        let (transfer, piece) = package.next(offer)?;
        Some(HostMessage::Transfer(transfer).encode(piece))
    }

    fn place(&mut self, agent: AgentId) -> Option<&mut Place> {
        self.agents.get_mut(&agent).map(|known| &mut known.place)
    }

    fn arriving(&mut self, agent: AgentId) -> Result<(Arriving, &mut Known), HandoverError> {
        let known = self.agents.get_mut(&agent).ok_or(HandoverError::State)?;
        match known.place {
            Place::Away {
                arriving: Some(arriving),
            } => Ok((arriving, known)),
            _ => Err(HandoverError::State),
        }
    }

    /// What is not said because nobody listens, the next hello settles.
    fn say(&mut self, message: &HostMessage) {
        if self.is_greeted() {
            self.queue.push_back(message.encode(&[]));
        }
    }
}

fn giving(epoch: Epoch, bytes: Vec<u8>) -> Place {
    Place::Giving {
        epoch,
        package: Package::new(bytes),
        held: false,
    }
}
