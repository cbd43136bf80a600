//! What agents' programs ask. Whatever they say, they reach only their own agent, and messages.

use core::mem;

use alloc::vec::Vec;

use mielin_user::agents::{Ending, Part, Right, STORED_BYTES_MAX, host};
use mielin_user::bytes::BYTES_MAX;
use mielin_user::objects::Message;
use mielin_user::say;
use mielin_user::system_call::Received;

use crate::agency::{Agency, Agent, PERSON, Printable, State};

const REFUSED: u64 = 1;

impl Agency {
    /// Serves the program of an agent; there is no answer for one that has ended.
    pub(crate) fn serve(
        &mut self,
        number: u64,
        right: Right,
        received: &Received,
    ) -> Option<Message> {
        let refused = Some(Message::new(REFUSED, []));
        let Some(index) = self.running(number) else {
            return refused;
        };
        let mut space = [0; BYTES_MAX];
        let bytes = self.startup.buffer().bytes(received, &mut space);
        let [_, a, b, _] = received.words;
        let agent = &mut self.agents[index];
        match (received.info.label(), right) {
            (host::SEND, right) => Some(self.send(index, right, (a != 0).then_some(b), bytes)),
            (host::FETCH, Right::Calls) => Some(self.fetch(index, a, b)),
            (host::WRITE, Right::Calls) => {
                agent.write(usize::from(a != 1), bytes);
                Some(Message::new(0, []))
            }
            (host::LOG, Right::Calls) => {
                say!("{} {}: {}", agent.name, level(a), Printable(bytes));
                Some(Message::new(0, []))
            }
            (host::TAKE, Right::Calls) => Some(self.take(index, a)),
            (host::STORE, Right::Calls) => match agent.store(a, b, bytes) {
                true => Some(Message::new(0, [])),
                false => refused,
            },
            (host::END, Right::Calls) => {
                let ending = match a {
                    0 => Ending::Exited,
                    1 => Ending::Trapped,
                    3 => Ending::Frozen,
                    _ => Ending::Refused,
                };
                let why = alloc::format!("{}", Printable(bytes));
                self.ended(index, ending, b as i64, &why);
                None
            }
            _ => refused,
        }
    }

    fn fetch(&self, index: usize, part: u64, offset: u64) -> Message {
        let agent = &self.agents[index];
        let all = match part {
            part if part == Part::Specification as u64 => agent.specification.as_bytes(),
            part if part == Part::Image as u64 => agent.image.bytes(),
            part if part == Part::Input as u64 => agent.input,
            _ => &[],
        };
        let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(all.len());
        let piece = &all[offset..];
        self.startup
            .buffer()
            .message(0, [all.len() as u64, 0, 0], piece)
    }

    fn take(&mut self, index: usize, len_max: u64) -> Message {
        let agent = &mut self.agents[index];
        let Some(first) = agent.mail.front() else {
            return Message::new(host::EMPTY, []);
        };
        let len = first.payload.len() as u64;
        if len > len_max {
            return Message::new(host::LONG, [0, len]);
        }
        let Some(mail) = agent.mail.pop_front() else {
            return Message::new(host::EMPTY, []);
        };
        let mut bytes = Vec::from(mail.from);
        bytes.extend_from_slice(&mail.payload);
        let answers = [u64::from(mail.answers.is_some()), mail.answers.unwrap_or(0)];
        let words = [answers[0], answers[1], mail.sequence];
        self.startup.buffer().message(0, words, &bytes)
    }

    fn send(&mut self, index: usize, right: Right, answers: Option<u64>, bytes: &[u8]) -> Message {
        let unknown = Message::new(host::UNKNOWN, []);
        let Some((to, payload)) = bytes.split_first_chunk::<16>() else {
            return unknown;
        };
        let from = self.agents[index].address;
        // An answer needs no right, but goes only to somebody who has sent something.
        let has_heard = self.agents[index].heard.get(to);
        let is_answer = answers.is_some_and(|number| has_heard.is_some_and(|last| number <= *last));
        if right != Right::Sends && !is_answer {
            return unknown;
        }
        if *to == PERSON {
            say!(
                "{} answers: {}",
                self.agents[index].name,
                Printable(payload)
            );
            return Message::new(0, [0, 1]);
        }
        let receiver = self.agents.iter().position(|agent| agent.address == *to);
        match receiver {
            Some(receiver) => match self.post(receiver, from, answers, payload) {
                Some(sequence) => Message::new(0, [0, sequence]),
                None => Message::new(host::FULL, []),
            },
            None => unknown,
        }
    }
}

impl Agent {
    /// A piece of the frozen agent: pieces come in order.
    fn store(&mut self, offset: u64, all: u64, bytes: &[u8]) -> bool {
        let place = match self.state {
            State::Runs(place) | State::Freezes(place, _) => place,
            State::Stored | State::Ended(_) => return false,
        };
        if all > STORED_BYTES_MAX as u64 {
            return false;
        }
        let mut stored = match mem::replace(&mut self.state, State::Runs(place)) {
            State::Freezes(_, stored) if offset != 0 => stored,
            _ => Vec::new(),
        };
        let fits = stored.len() as u64 == offset && offset + bytes.len() as u64 <= all;
        if fits && (offset != 0 || stored.try_reserve_exact(all as usize).is_ok()) {
            stored.extend_from_slice(bytes);
            self.state = State::Freezes(place, stored);
            return true;
        }
        false
    }
}

fn level(number: u64) -> &'static str {
    match number {
        0 => "error",
        1 => "warning",
        2 => "info",
        3 => "debug",
        _ => "trace",
    }
}
