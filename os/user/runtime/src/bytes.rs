//! Bytes in messages: how many there are is the message's first word, and they begin behind the words that travel in registers.

use mielin_kernel::abi::{MESSAGE_WORDS_MAX, REGISTER_WORDS};

use crate::boot::Buffer;
use crate::objects::Message;
use crate::system_call::Received;

/// Bytes that a message can carry.
pub const BYTES_MAX: usize = (MESSAGE_WORDS_MAX - REGISTER_WORDS) * 8;

impl Buffer {
    /// A message with bytes: those that fit. Its other words in registers are `words`.
    #[must_use]
    pub fn message(self, label: u64, words: [u64; 3], bytes: &[u8]) -> Message {
        let bytes = &bytes[..bytes.len().min(BYTES_MAX)];
        for (index, chunk) in (REGISTER_WORDS..).zip(bytes.chunks(8)) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.set_word(index, u64::from_le_bytes(word));
        }
        let [a, b, c] = words;
        Message::new(label, [bytes.len() as u64, a, b, c])
            .long(REGISTER_WORDS + bytes.len().div_ceil(8))
    }

    /// The bytes of a message that has come. Whoever sent it may claim more than there are: then there are fewer.
    pub fn bytes<'a>(self, received: &Received, into: &'a mut [u8; BYTES_MAX]) -> &'a [u8] {
        let words = received.info.words().saturating_sub(REGISTER_WORDS);
        let len = usize::try_from(received.words[0]).unwrap_or(usize::MAX);
        let len = len.min(words * 8).min(BYTES_MAX);
        for (index, chunk) in (REGISTER_WORDS..).zip(into[..len].chunks_mut(8)) {
            let word = self.word(index).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        &into[..len]
    }
}
