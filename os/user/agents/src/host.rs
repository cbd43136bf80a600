//! What agents' programs ask. Whatever they say, they reach only their own agent, and messages.

use alloc::vec::Vec;

use mielin_user::agents::{Ending, Part, Right, STORED_BYTES_MAX, host};
use mielin_user::bytes::BYTES_MAX;
use mielin_user::objects::Message;
use mielin_user::say;
use mielin_user::system_call::Received;

use crate::agency::{Agency, Agent, Freezing, Mail, PERSON, Printable, State};

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
        if !matches!(received.info.label(), host::FETCH | host::END) {
            agent.begin();
        }
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
            (host::DISCARD, Right::Calls) => Some(self.discard(index, a)),
            (host::STORE, Right::Calls) => match self.store(index, a, b, bytes) {
                true => Some(Message::new(0, [])),
                false => refused,
            },
            (host::END, Right::Calls) => {
                let ending = Ending::of_number(a);
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
        self.taken(index, &mail, &mail.payload)
    }

    fn discard(&mut self, index: usize, longer_than: u64) -> Message {
        let mail = &mut self.agents[index].mail;
        let Some(mail) = mail.pop_front_if(|mail| mail.payload.len() as u64 > longer_than) else {
            return Message::new(host::EMPTY, []);
        };
        let len = mail.payload.len() as u64;
        self.taken(index, &mail, &len.to_le_bytes())
    }

    /// Gives an agent a message, with this in the place of its payload.
    fn taken(&mut self, index: usize, mail: &Mail, payload: &[u8]) -> Message {
        self.agents[index].may_answer(mail.from, mail.sequence);
        let mut bytes = Vec::from(mail.from);
        bytes.extend_from_slice(payload);
        let answers = [u64::from(mail.answers.is_some()), mail.answers.unwrap_or(0)];
        let words = [answers[0], answers[1], mail.sequence];
        self.startup.buffer().message(0, words, &bytes)
    }

    fn send(&mut self, index: usize, right: Right, answers: Option<u64>, bytes: &[u8]) -> Message {
        let unknown = Message::new(host::UNKNOWN, []);
        let Some((to, payload)) = bytes.split_first_chunk::<16>() else {
            return unknown;
        };
        let agent = &mut self.agents[index];
        let from = agent.address;
        // An answer needs no right, but a message that it answers, once.
        let answered = answers.map(|number| {
            let mut unanswered = agent.unanswered.iter();
            unanswered.position(|one| *one == (*to, number))
        });
        let allowed = match answered {
            Some(place) => place.is_some(),
            None => right == Right::Sends && agent.manifest.may_send_to(to),
        };
        if !allowed {
            return unknown;
        }
        let sequence = match *to == PERSON {
            true => {
                say!("{} answers: {}", agent.name, Printable(payload));
                1
            }
            false => {
                let lives = |agent: &Agent| !matches!(agent.state, State::Ended(_));
                let mut agents = self.agents.iter();
                let receiver = agents.position(|agent| agent.address == *to && lives(agent));
                let Some(receiver) = receiver else {
                    return unknown;
                };
                match self.post(receiver, from, answers, payload) {
                    Some(sequence) => sequence,
                    // It tries again, and may answer then.
                    None => return Message::new(host::FULL, []),
                }
            }
        };
        if let Some(place) = answered.flatten() {
            self.agents[index].unanswered.remove(place);
        }
        Message::new(0, [0, sequence])
    }

    /// A piece of an agent that was told to freeze: pieces come in order. If it is refused, the agent runs on.
    fn store(&mut self, index: usize, offset: u64, all: u64, bytes: &[u8]) -> bool {
        let taken = self.try_store(index, offset, all, bytes).is_some();
        let agent = &mut self.agents[index];
        if let (false, State::Freezes(place, _)) = (taken, &agent.state) {
            agent.state = State::Runs(*place);
        }
        taken
    }

    fn try_store(&mut self, index: usize, offset: u64, all: u64, bytes: &[u8]) -> Option<()> {
        let all = usize::try_from(all)
            .ok()
            .filter(|all| *all <= STORED_BYTES_MAX)?;
        if offset == 0 {
            let agent = &mut self.agents[index];
            let State::Freezes(_, freezing) = &mut agent.state else {
                return None;
            };
            *freezing = Freezing::default();
            if !self.has_room(all) {
                return None;
            }
        }
        let State::Freezes(_, freezing) = &mut self.agents[index].state else {
            return None;
        };
        if offset == 0 {
            freezing.bytes.try_reserve_exact(all).ok()?;
            freezing.all = all;
        }
        let len = freezing.bytes.len();
        if freezing.all != all || len as u64 != offset || bytes.len() > all - len {
            return None;
        }
        freezing.bytes.extend_from_slice(bytes);
        Some(())
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
