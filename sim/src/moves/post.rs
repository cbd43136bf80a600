//! The way of messages between agents, while both ends move.

use std::time::Duration;

use bytes::Bytes;
use mielin_mesh_core::delivery::{Acceptance, Advice, DeliveryReply, Envelope};
use mielin_mesh_core::{AgentId, Epoch, Instant};

use super::Sabotage;
use super::agent::content;
use super::node::{Node, Resident, Standing, Task};
use super::wire::{Datagram, Event};

/// An exchange that is not answered by then is over.
const EXCHANGE: Duration = Duration::from_secs(5);
/// Payloads up to here are posted; all are.
const POST_MAX: usize = 1_024;

/// Messages that wait for an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exchange {
    from: AgentId,
    /// Another copy's outbox knows nothing of it.
    copy: u64,
    to: AgentId,
}

impl Resident {
    /// Whether messages of it go out and others come in.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.standing, Standing::Kept | Standing::Provisional)
            && !self.frozen
            && !self.withheld
    }
}

impl Node {
    /// Has an agent send a message; false if it cannot.
    pub(super) fn say(&mut self, now: Instant, from: AgentId, to: AgentId, content: u64) -> bool {
        let Some(it) = self.residents.get_mut(&from) else {
            return false;
        };
        // What it does while it is still to be settled counts, too.
        let runs = matches!(it.standing, Standing::Kept | Standing::Provisional) && !it.frozen;
        let said = runs && it.agent.say(to, content).is_some();
        self.post_all(now);
        said
    }

    /// Where an agent is as far as is known here.
    fn place(&self, agent: &AgentId) -> Option<(usize, Epoch)> {
        if let Some(it) = self.residents.get(agent)
            && it.standing != Standing::Provisional
        {
            return Some((self.number, it.agent.epoch));
        }
        let record = self.registry.locate(agent);
        let record = record.map(|it| (self.index(&it.record.node), it.record.epoch));
        let left = self.left.get(agent).copied();
        let hint = self.hints.get(agent).copied();
        let known = [record, left, hint].into_iter().flatten();
        let elsewhere = known.filter(|(node, _)| *node != self.number);
        elsewhere.max_by_key(|(_, epoch)| *epoch)
    }

    /// Sends what may be sent of all agents here.
    pub(super) fn post_all(&mut self, now: Instant) {
        let ready = |it: &mut Resident| {
            let is_idle = !it.is_open() || it.agent.outbox.is_empty();
            if is_idle {
                Vec::new()
            } else {
                it.agent.outbox.ready(now)
            }
        };
        let ready: Vec<(AgentId, Vec<AgentId>)> = self
            .residents
            .iter_mut()
            .map(|(agent, it)| (*agent, ready(it)))
            .filter(|(_, ready)| !ready.is_empty())
            .collect();
        for (from, destinations) in ready {
            for to in destinations {
                self.post(now, from, to);
            }
        }
        self.turn_round(now);
    }

    fn post(&mut self, now: Instant, from: AgentId, to: AgentId) {
        let place = self.place(&to);
        let Some(it) = self.residents.get_mut(&from) else {
            return;
        };
        let Some((node, _)) = place else {
            it.agent.outbox.undeliverable(now, &to);
            return self.seek(now, to);
        };
        let copy = it.copy;
        let mut posted = Vec::new();
        while let Some(envelope) = it.agent.outbox.poll_post(now, &to, POST_MAX) {
            posted.push(envelope);
        }
        let exchanged = if posted.is_empty() {
            it.agent.outbox.begin_exchange(now, &to)
        } else {
            None
        };
        for envelope in posted.iter().chain(exchanged.iter().flatten()) {
            self.report(Event::Sent {
                agent: from,
                to,
                sequence: envelope.sequence,
                content: content(envelope),
            });
        }
        for envelope in posted {
            self.send(node, &Datagram::Post(envelope.encode()));
        }
        if let Some(envelopes) = exchanged {
            let number = self.token();
            let envelopes = envelopes.iter().map(Envelope::encode).collect();
            self.exchanges.insert(number, Exchange { from, copy, to });
            self.send(
                node,
                &Datagram::Exchange {
                    number,
                    destination: to,
                    envelopes,
                },
            );
            self.later(now, EXCHANGE, Task::Unanswered(number));
        }
    }

    pub(super) fn posted(&mut self, now: Instant, from: usize, envelope: Vec<u8>) {
        let envelope = Bytes::from(envelope);
        let Ok(it) = Envelope::decode(&envelope) else {
            return;
        };
        let reply = match self.deliver(now, it.destination, vec![envelope.to_vec()]) {
            DeliveryReply::Busy | DeliveryReply::Unknown => None,
            reply => Some(reply),
        };
        let (source, destination) = (it.source, it.destination);
        self.send(
            from,
            &Datagram::Answer {
                source,
                destination,
                reply,
            },
        );
    }

    /// Puts messages into the mailbox of an agent, if it is here.
    pub(super) fn deliver(
        &mut self,
        now: Instant,
        to: AgentId,
        envelopes: Vec<Vec<u8>>,
    ) -> DeliveryReply {
        let number = self.number;
        let is_coming = self.inbound.values().any(|it| it.agent() == Some(to));
        let leaky = self.common.sabotage == Some(Sabotage::TakesMessagesTooSoon);
        let elsewhere = self.place(&to).filter(|(node, _)| *node != number);
        match self.residents.get_mut(&to) {
            Some(it) if it.standing != Standing::Provisional || leaky => match it.standing {
                Standing::Ended => DeliveryReply::Ended,
                Standing::Missing
                    if self.common.sabotage == Some(Sabotage::TakesTheMissingForEnded) =>
                {
                    DeliveryReply::Ended
                }
                Standing::Missing => DeliveryReply::Busy,
                _ if it.frozen || (it.withheld && !leaky) => DeliveryReply::Busy,
                _ => self.take(now, to, envelopes),
            },
            _ => match elsewhere {
                Some((node, epoch)) => DeliveryReply::Moved {
                    node: self.common.ids[node],
                    epoch,
                },
                None if is_coming => DeliveryReply::Busy,
                None => DeliveryReply::Unknown,
            },
        }
    }

    fn take(&mut self, now: Instant, to: AgentId, envelopes: Vec<Vec<u8>>) -> DeliveryReply {
        let mut best = DeliveryReply::Busy;
        for envelope in envelopes {
            let Ok(envelope) = Envelope::decode(&Bytes::from(envelope)) else {
                continue;
            };
            let Some(it) = self.residents.get_mut(&to) else {
                break;
            };
            let (from, sequence, content) =
                (envelope.source, envelope.sequence, content(&envelope));
            let acceptance = it.agent.inbox.accept(envelope);
            if matches!(acceptance, Acceptance::New { .. }) {
                self.report(Event::Took {
                    agent: to,
                    from,
                    sequence,
                    content,
                });
            }
            let reply = acceptance.reply();
            let stop = !matches!(reply, DeliveryReply::Acknowledged { .. });
            if !(stop && matches!(best, DeliveryReply::Acknowledged { .. })) {
                best = reply;
            }
            if stop {
                break;
            }
        }
        let after = self.takes(100, 20_000);
        self.later(now, after, Task::Turn(to));
        best
    }

    /// The agent deals with what is in its mailbox.
    pub(super) fn turn(&mut self, _: Instant, agent: AgentId) {
        let mut heard = Vec::new();
        if let Some(it) = self.residents.get_mut(&agent)
            && matches!(it.standing, Standing::Kept | Standing::Provisional)
            && !it.frozen
        {
            while let Some(message) = it.agent.hear() {
                heard.push(message);
            }
        }
        for message in heard {
            self.report(Event::Heard {
                agent,
                from: message.from,
                sequence: message.sequence,
                is_next: message.is_next,
            });
        }
    }

    /// Heeds where an agent is said to be, and looks for it where that is not known.
    fn heed(&mut self, now: Instant, to: AgentId, reply: Option<DeliveryReply>) {
        match reply {
            Some(DeliveryReply::Moved { node, epoch }) => {
                let node = self.index(&node);
                let known = self.hints.get(&to).map(|(_, epoch)| *epoch);
                if known.is_none_or(|known| known < epoch) {
                    self.hints.insert(to, (node, epoch));
                }
                self.seek(now, to);
            }
            Some(DeliveryReply::Acknowledged { .. } | DeliveryReply::Gap { .. }) => {}
            _ => self.seek(now, to),
        }
    }

    pub(super) fn replied(
        &mut self,
        now: Instant,
        from: usize,
        source: AgentId,
        destination: AgentId,
        reply: Option<DeliveryReply>,
    ) {
        // What a node says of an agent that has left it is no news.
        let is_there = self
            .place(&destination)
            .is_some_and(|(node, _)| node == from);
        self.heed(now, destination, reply);
        match reply.filter(|_| is_there) {
            Some(reply) => self.land(now, source, destination, reply),
            None => {
                if let Some(it) = self.residents.get_mut(&source) {
                    it.agent.outbox.unheard(&destination);
                }
            }
        }
    }

    fn land(&mut self, now: Instant, source: AgentId, to: AgentId, reply: DeliveryReply) {
        let Some(it) = self.residents.get_mut(&source) else {
            return;
        };
        if let Advice::Dropped { count } = it.agent.outbox.handle_reply(now, &to, reply)
            && count > 0
        {
            self.report(Event::Dropped { agent: source, to });
        }
    }

    pub(super) fn exchanged(&mut self, now: Instant, number: u64, reply: DeliveryReply) {
        let Some(Exchange { from, copy, to }) = self.exchanges.remove(&number) else {
            return;
        };
        self.heed(now, to, Some(reply));
        self.land(now, from, to, reply);
        if let Some(it) = self.residents.get_mut(&from)
            && it.copy == copy
        {
            it.agent.outbox.end_exchange(&to);
        }
    }

    pub(super) fn unanswered(&mut self, now: Instant, number: u64) {
        let Some(Exchange { from, copy, to }) = self.exchanges.remove(&number) else {
            return;
        };
        self.seek(now, to);
        if let Some(it) = self.residents.get_mut(&from)
            && it.copy == copy
        {
            it.agent.outbox.undeliverable(now, &to);
            it.agent.outbox.end_exchange(&to);
        }
    }
}
