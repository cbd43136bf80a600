//! Stored agents, as files for other machines. What comes is stored, and runs only when a person says so.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use mielin_user::agents::{STORED_BYTES_MAX, files};
use mielin_user::bytes::BYTES_MAX;
use mielin_user::objects::Message;
use mielin_user::say;
use mielin_user::system_call::Received;

use crate::agency::{Agency, Agent, Image, State};
use crate::manifest::Manifest;

/// Agents that are coming at the same time.
const ARRIVALS_MAX: usize = 4;

/// By so many bytes room for an agent grows whose length was not announced.
const STEP_BYTES: usize = 64 << 10;

/// An agent that is coming.
pub(crate) struct Arrival {
    number: u64,
    name: String,
    bytes: Vec<u8>,
}

impl Arrival {
    /// Bytes that it occupies.
    pub(crate) fn held(&self) -> usize {
        self.bytes.capacity()
    }
}

impl Agency {
    /// Does what the carrier asks for.
    pub(crate) fn carry(&mut self, received: &Received) -> Option<Message> {
        let mut space = [0; BYTES_MAX];
        let bytes = self.startup.buffer().bytes(received, &mut space);
        let number = received.words[1];
        let name = || core::str::from_utf8(bytes).map_err(|_| "the name is not text".to_owned());
        let done = match received.info.label() {
            files::OPEN => name().and_then(|name| self.stored(name).map(|all| all.len() as u64)),
            files::READ => {
                let piece = name().and_then(|name| self.stored(name));
                match piece {
                    Ok(all) => {
                        let at = usize::try_from(number).unwrap_or(usize::MAX);
                        let piece = &all[at.min(all.len())..];
                        return Some(self.startup.buffer().message(0, [0; 3], piece));
                    }
                    Err(why) => Err(why),
                }
            }
            files::CREATE => name().and_then(|name| self.create(name, number)),
            files::APPEND => self.append(number, bytes).map(|()| 0),
            files::COMMIT => self.commit(number).map(|()| 0),
            files::ABORT => {
                let all = number == files::ALL;
                self.arrivals
                    .retain(|arrival| !all && arrival.number != number);
                Ok(0)
            }
            _ => Err("unknown".to_owned()),
        };
        let buffer = self.startup.buffer();
        Some(match done {
            Ok(number) => buffer.message(0, [number, 0, 0], &[]),
            Err(why) => buffer.message(1, [0; 3], why.as_bytes()),
        })
    }

    fn stored(&self, name: &str) -> Result<&[u8], String> {
        let agent = self.agents.iter().find(|agent| agent.name == name);
        let agent = agent.ok_or_else(|| format!("there is no agent {name:?}"))?;
        match agent.state {
            State::Stored => Ok(agent.image.bytes()),
            State::Runs(_) | State::Freezes(..) => Err("it runs; freeze it first".to_owned()),
            State::Ended(_) => Err("it has ended".to_owned()),
        }
    }

    fn create(&mut self, name: &str, announced: u64) -> Result<u64, String> {
        self.check_name(name)?;
        if self.arrivals.len() >= ARRIVALS_MAX || !self.has_place_for_arrival() {
            return Err("too many agents are here, or coming; stop some".to_owned());
        }
        let mut bytes = Vec::new();
        self.reserve(&mut bytes, usize::try_from(announced).unwrap_or(usize::MAX))?;
        self.last_arrival += 1;
        self.arrivals.push(Arrival {
            number: self.last_arrival,
            name: name.to_string(),
            bytes,
        });
        Ok(self.last_arrival)
    }

    /// Makes room for so many more bytes, and not for more.
    fn reserve(&self, bytes: &mut Vec<u8>, more: usize) -> Result<(), String> {
        let missing = more.saturating_sub(bytes.capacity() - bytes.len());
        if bytes.len().saturating_add(more) > STORED_BYTES_MAX {
            return Err(format!(
                "an agent has at most {STORED_BYTES_MAX} bytes here"
            ));
        }
        // Those that are here already are not an arrival's while they grow.
        let held = bytes.capacity().saturating_add(missing);
        let room = self.has_room(held) && bytes.try_reserve_exact(more).is_ok();
        room.then_some(())
            .ok_or_else(|| "there is no memory for it; stop other agents".to_owned())
    }

    fn append(&mut self, number: u64, bytes: &[u8]) -> Result<(), String> {
        let mut arrivals = self.arrivals.iter_mut();
        let arrival = arrivals.find(|arrival| arrival.number == number);
        let arrival = arrival.ok_or("nothing is coming")?;
        let mut all = core::mem::take(&mut arrival.bytes);
        // Of a length that nobody has announced, the room grows in steps.
        let more = match bytes.len() <= all.capacity() - all.len() {
            true => bytes.len(),
            false => STEP_BYTES.min(STORED_BYTES_MAX.saturating_sub(all.len())),
        };
        let room = self.reserve(&mut all, more.max(bytes.len()));
        if room.is_ok() {
            all.extend_from_slice(bytes);
        }
        let mut arrivals = self.arrivals.iter_mut();
        if let Some(arrival) = arrivals.find(|arrival| arrival.number == number) {
            arrival.bytes = all;
        }
        room
    }

    fn commit(&mut self, number: u64) -> Result<(), String> {
        let index = self.arrivals.iter().position(|one| one.number == number);
        let arrival = self.arrivals.remove(index.ok_or("nothing is coming")?);
        let name = self.take_name(&arrival.name)?;
        let image = Image::Stored(arrival.bytes);
        say!(
            "{name}: came, {} bytes; `resume {name}` has it go on",
            image.bytes().len()
        );
        let address = self.new_address();
        // It may do nothing but what a person allows when it goes on.
        let agent = Agent::new(name, address, Manifest::default(), image, &[]);
        self.agents.push(agent);
        Ok(())
    }
}
