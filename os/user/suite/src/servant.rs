//! A server that does what its clients ask of it, for the tests of messages.

use mielin_user::abi::{BUFFER_CAPABILITIES, MESSAGE_WORDS_MAX, REGISTER_WORDS};
use mielin_user::boot::Buffer;
use mielin_user::objects::{Endpoint, Message, Node, Notification, Reply};
use mielin_user::system_call::Received;
use mielin_user::{Cap, Error};

use crate::room::rest;

/// What a servant has in its slots.
pub(crate) const ENDPOINT: u64 = 1;
pub(crate) const REPLY: u64 = 2;
pub(crate) const NODE: u64 = 3;
/// The next servant of a chain, or anything to give away.
pub(crate) const OTHER: u64 = 4;
/// Where capabilities go that come.
pub(crate) const COMING: u64 = 8;

/// Answers with the sum of two words, the badge, the length and the number of capabilities.
pub(crate) const ADD: u64 = 1;
/// Answers with all words of the message, turned around bit by bit.
pub(crate) const INVERT: u64 = 2;
/// Signals by the capability that came, and answers with the error, if there is one, and the number that came.
pub(crate) const SIGNAL: u64 = 3;
/// Answers with a capability.
pub(crate) const GIVE: u64 = 4;
/// Calls the next servant with the same words, adds one to each word of its answer, and answers with that.
pub(crate) const PASS_ON: u64 = 5;
/// Dies before it answers.
pub(crate) const DIE: u64 = 6;
/// Deletes its reply object before it answers.
pub(crate) const FORGET: u64 = 7;
/// Works for so many ticks, and answers.
pub(crate) const WORK: u64 = 8;
/// Answers by itself, and receives then.
pub(crate) const TWO_STEPS: u64 = 9;

/// The entry of a servant's thread.
pub(crate) extern "C" fn serve(_: u64, buffer_at: u64) -> ! {
    let pointer = core::ptr::with_exposed_provenance_mut(buffer_at as usize);
    #[allow(unsafe_code)]
    // SAFETY: whoever made this thread mapped its buffer there.
    let buffer = unsafe { Buffer::at(pointer) };
    let servant = Servant {
        buffer,
        endpoint: Endpoint(Cap(ENDPOINT)),
        reply: Reply(Cap(REPLY)),
        node: Node(Cap(NODE)),
    };
    buffer.receive_capabilities(servant.node, COMING);
    let mut got = servant.endpoint.receive(Some(servant.reply));
    loop {
        let Ok(received) = got else { rest() };
        let two_steps = received.info.label() == TWO_STEPS;
        let answer = servant.answer(&received);
        got = match two_steps {
            true => servant
                .reply
                .send(&answer)
                .and_then(|()| servant.endpoint.receive(Some(servant.reply))),
            false => servant.endpoint.reply_receive(servant.reply, &answer),
        };
    }
}

struct Servant {
    buffer: Buffer,
    endpoint: Endpoint,
    reply: Reply,
    node: Node,
}

impl Servant {
    fn answer(&self, received: &Received) -> Message {
        let words = received.words;
        let len = received.info.words();
        match received.info.label() {
            ADD | TWO_STEPS => {
                let sum = words[0].wrapping_add(words[1]);
                let capabilities = received.info.capabilities() as u64;
                Message::new(0, [sum, received.badge, len as u64, capabilities])
            }
            INVERT => {
                for index in REGISTER_WORDS..len.min(MESSAGE_WORDS_MAX) {
                    self.buffer.set_word(index, !self.buffer.word(index));
                }
                Message::new(INVERT, words.map(|word| !word)).long(len)
            }
            SIGNAL => {
                let result = Notification(Cap(COMING)).signal();
                let number = result.err().map_or(0, |error| error as u64);
                for slot in COMING..COMING + 3 {
                    // Nothing is there where nothing came.
                    let _ = self.node.delete(slot);
                }
                Message::new(0, [number, received.info.capabilities() as u64])
            }
            GIVE => {
                self.buffer.set_word(BUFFER_CAPABILITIES, OTHER);
                Message::new(0, []).with_capabilities(1)
            }
            PASS_ON => {
                let next = Endpoint(Cap(OTHER));
                let label = if words[3] > 0 { PASS_ON } else { ADD };
                let depth = words[3].saturating_sub(1);
                let asked = Message::new(label, [words[0], words[1], words[2], depth]);
                match next.call(&asked) {
                    Ok(answer) => Message::new(0, answer.words.map(|word| word.wrapping_add(1))),
                    Err(error) => Message::new(0, [error as u64, u64::MAX]),
                }
            }
            DIE => rest(),
            FORGET => {
                // The call that waits for the answer gets to know.
                let _ = self.node.delete(REPLY);
                rest()
            }
            WORK => {
                let until = mielin_user::system_call::now() + words[0];
                while mielin_user::system_call::now() < until {}
                Message::new(0, [])
            }
            _ => Message::new(0, [Error::InvalidArgument as u64]),
        }
    }
}
