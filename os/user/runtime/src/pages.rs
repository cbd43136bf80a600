//! Memory that comes when it is touched, by the page server.
//!
//! A thread whose fault endpoint is the page server's, with the badge of a client, gets a page wherever it touches the client's region, for as long as the
//! client's memory lasts. Whatever else it does wrong stops it, and the server's owner is told.
//!
//! Calls have one of these labels, and a client's badge as the first word; answers the label 0 if it was done.

use crate::Error;
use crate::boot::Buffer;
use crate::objects::{Endpoint, Message, Node, Notification};
use crate::system_call::Received;

/// Names the notification that is raised when a client stops. With that as a capability.
pub const OWN: u64 = 1;
/// Looks after a client. Words: badge, where the region begins, its bytes. With the client's node as a capability.
pub const WATCH: u64 = 2;
/// Forgets a client, whose threads are no more. Words: badge.
pub const FORGET: u64 = 3;
/// What has become of a client. Words: badge. The answer: 0, its pages, and if it stopped, why: see [`Stop`].
pub const STATE: u64 = 4;

/// The badge of who may do this; faults of clients come with smaller ones, from 1 on.
pub const OWNER: u64 = 1 << 32;
/// The most clients.
pub const CLIENTS_MAX: u64 = 32;
/// Slots of a client's node, as a power of two: its pages and tables go there.
pub const NODE_BITS: u8 = 13;
/// In a client's node: the memory for pages and tables,
pub const NODE_MEMORY: u64 = 1;
/// and its address space.
pub const NODE_SPACE: u64 = 2;

/// Why a client has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// What it has done: a number of [`FaultKind`](mielin_kernel::abi::FaultKind), or [`NO_MEMORY`].
    pub kind: u64,
    /// Where it was.
    pub counter: u64,
    /// What it touched.
    pub address: u64,
}

/// Its memory was used up.
pub const NO_MEMORY: u64 = 100;

/// The page server, for a thread with this buffer.
#[derive(Clone, Copy, Debug)]
pub struct Pages {
    /// Its endpoint.
    pub endpoint: Endpoint,
    /// The thread's buffer.
    pub buffer: Buffer,
}

impl Pages {
    fn call(self, message: &Message) -> Result<Received, Error> {
        let received = self.endpoint.call(message)?;
        match received.info.label() {
            0 => Ok(received),
            _ => Err(Error::InvalidArgument),
        }
    }

    /// Has a notification raised when a client stops.
    ///
    /// # Errors
    /// What the kernel says; [`Error::InvalidArgument`] if the server refuses.
    pub fn own(self, notification: Notification) -> Result<(), Error> {
        self.buffer.send_capability(0, notification.0);
        let message = Message::new(OWN, [0]).with_capabilities(1);
        self.call(&message).map(|_| ())
    }

    /// Has it look after a client: memory of `node` for a region of the address space in `node`.
    ///
    /// # Errors
    /// As for [`Pages::own`].
    pub fn watch(self, badge: u64, node: Node, begin: u64, bytes: u64) -> Result<(), Error> {
        self.buffer.send_capability(0, node.0);
        let message = Message::new(WATCH, [badge, begin, bytes]).with_capabilities(1);
        self.call(&message).map(|_| ())
    }

    /// Has it forget a client.
    ///
    /// # Errors
    /// As for [`Pages::own`].
    pub fn forget(self, badge: u64) -> Result<(), Error> {
        self.call(&Message::new(FORGET, [badge])).map(|_| ())
    }

    /// How many pages a client has, and why it stopped, if it did.
    ///
    /// # Errors
    /// As for [`Pages::own`].
    pub fn state(self, badge: u64) -> Result<(u64, Option<Stop>), Error> {
        let received = self.call(&Message::new(STATE, [badge]))?;
        let [pages, kind, counter, address] = received.words;
        let stop = (kind != 0).then_some(Stop {
            kind,
            counter,
            address,
        });
        Ok((pages, stop))
    }
}
