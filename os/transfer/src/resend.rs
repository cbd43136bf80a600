//! What was sent last, and when it is sent again.

use alloc::vec::Vec;
use core::net::SocketAddr;

/// A datagram to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Whom to.
    pub to: SocketAddr,
    /// Its content.
    pub bytes: &'a [u8],
}

/// The last packet of one side of a transfer, which is sent again until there is an answer.
#[derive(Debug)]
pub(crate) struct Resend {
    pub(crate) packet: Vec<u8>,
    pub(crate) timeout_ms: u64,
    tries: u8,
    left: u8,
    due_ms: u64,
}

/// Nobody has answered, however often it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Silence;

impl Resend {
    /// Nothing to send; each packet will be sent at most so many times.
    pub(crate) fn new(tries: u8, timeout_ms: u64) -> Resend {
        Resend {
            packet: Vec::new(),
            timeout_ms,
            tries,
            left: 0,
            due_ms: u64::MAX,
        }
    }

    /// The packet is a new one, which is sent now.
    pub(crate) fn begin(&mut self, now_ms: u64) {
        self.left = self.tries;
        self.go(now_ms);
    }

    fn go(&mut self, now_ms: u64) {
        self.left = self.left.saturating_sub(1);
        self.due_ms = now_ms.saturating_add(self.timeout_ms);
    }

    pub(crate) fn due_ms(&self) -> u64 {
        self.due_ms
    }

    /// The packet waits for no answer, and is kept for so many times its timeout to answer what comes again.
    pub(crate) fn rest(&mut self, now_ms: u64, timeouts: u64) {
        self.left = 0;
        self.due_ms = now_ms.saturating_add(self.timeout_ms.saturating_mul(timeouts));
    }

    /// The time has run out: the packet is sent once more.
    pub(crate) fn again(&mut self, now_ms: u64) -> Result<(), Silence> {
        if self.left == 0 {
            return Err(Silence);
        }
        self.go(now_ms);
        Ok(())
    }
}
