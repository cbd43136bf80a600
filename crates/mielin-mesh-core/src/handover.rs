//! Agents over the leaf link: how an agent comes to a microcontroller, lives there, and leaves it again, running.
//!
//! This stands upon [`leaf`](crate::leaf), which carries messages of at most [`MESSAGE_BYTES_MAX`] bytes each way, exactly
//! once and in order, until one end has started anew. The [`LeafEnd`] is on the microcontroller, the [`HostEnd`] at its
//! host, one for each leaf. docs/LEAF.md has the protocol for people who write another implementation.
//!
//! | part | module |
//! |---|---|
//! | the forms of messages | `message` |
//! | a checkpoint in pieces, one at a time each way | `transfer` |
//! | the leaf's end | `leaf_end` |
//! | the host's end, and what it concludes from a hello | `host_end`, `host_end::reconciliation` |
//!
//! - **One owner, always.** Whoever gives an agent owns it, frozen, until it has let go, and lets go only of what the
//!   other end has said to have whole. The taker runs it only when it is told that the giver has let go.
//! - **The leaf forgets all, the host nothing that matters.** A leaf has no memory that outlives its start. What the
//!   host must remember is one role for each agent ([`Role`]), written down by its driver at the points that the
//!   events name.
//! - **A hello settles what was open.** After each start of the streams the leaf lists its agents, and the host concludes
//!   for each who owns it. Nothing of the streams before counts.
//! - **Mail is asked for, posts are answered.** The numbers of both begin at 0 in each stay of an agent at the leaf, and each
//!   is taken once. A post of which nobody can know whether it was performed is not performed again.
//!
//! What is not here: the link, time, agents (a checkpoint is bytes), mailboxes, files.
//!
//! # Driving
//!
//! Both ends, in this order, whenever something has happened:
//!
//! 1. Ask the link for its events. At `Restarted` call `restarted`. Give nothing again that the link has given back.
//! 2. Give each message that the link has to `handle_message`, and after each ask `poll_event` until nothing comes. What an
//!    event says is to be written down is written down before the next message is handled.
//! 3. While the link has room, ask `poll_message`, and send what comes.
//!
//! ```
//! use mielin_mesh_core::handover::{
//!     HostEnd, HostEndEvent, LeafEnd, LeafEndEvent, Profile, Status,
//! };
//! use mielin_mesh_core::{AgentId, Epoch, Name};
//!
//! let status = Status { ready: true, room_bytes: 70_000, ..Status::default() };
//! let profile = Profile { name: Name::new("shed").unwrap(), sensors: 1, actuators: 0, status };
//! let (mut leaf, mut host) = (LeafEnd::new(7, profile).unwrap(), HostEnd::new());
//! let (agent, epoch) = (AgentId([1; 16]), Epoch(3));
//! host.offer(agent, epoch, vec![5; 1000]).unwrap();
//! let mut runs = false;
//! loop {
//!     if let Some(message) = leaf.poll_message() {
//!         host.handle_message(&message).unwrap();
//!     } else if let Some(message) = host.poll_message(0) {
//!         leaf.handle_message(&message).unwrap();
//!     } else {
//!         break;
//!     }
//!     while let Some(event) = leaf.poll_event() {
//!         match event {
//!             // Here an agent is made of the checkpoint, which does not run so far.
//!             LeafEndEvent::Arrived { agent, .. } => leaf.accept(agent).unwrap(),
//!             LeafEndEvent::Run { .. } => runs = true,
//!             _ => {}
//!         }
//!     }
//!     while let Some(event) = host.poll_event() {
//!         // Here it is written down that the agent is away.
//!         if let HostEndEvent::Held { agent, .. } = event {
//!             host.let_go(agent).unwrap();
//!         }
//!     }
//! }
//! assert!(runs);
//! ```

mod host_end;
mod leaf_end;
mod message;
mod transfer;

use thiserror::Error;

use crate::codec::CodecError;
use crate::leaf::MESSAGE_BYTES_MAX;

pub use host_end::{HostEnd, HostEndEvent, Role};
pub use leaf_end::{LeafEnd, LeafEndEvent};
pub use message::{
    Battery, Guest, Hello, HostMessage, LOG_BYTES_MAX, LeafMessage, Letter, MAIL_PAYLOAD_BYTES_MAX,
    Offer, POST_PAYLOAD_BYTES_MAX, Phase, PostResult, Profile, Reading, Reason, Status, Transfer,
    VERSION,
};

/// A call that the state does not allow. The caller is at fault; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HandoverError {
    /// The agent is not where the call supposes it, or not in that state (any more).
    #[error("the agent is in no state for this")]
    State,
    /// A number or an epoch that does not follow the last one.
    #[error("the number does not follow the last one")]
    Number,
    /// A post of the agent is not answered: it must wait until it is.
    #[error("a post of the agent is not answered")]
    Unanswered,
    /// The leaf does not want this mail, or this reading (any more).
    #[error("nobody has asked for this")]
    NotWanted,
    /// As much waits as may. Try again when messages have gone out.
    #[error("as much waits to be sent as may")]
    Full,
    /// It does not fit a message, or a checkpoint is empty or too large.
    #[error("{size} bytes are none, or more than {max}")]
    Size {
        /// Its size.
        size: usize,
        /// The largest.
        max: usize,
    },
}

/// A message that was dropped. The other end is at fault; nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MessageError {
    /// The bytes are no message from the other end.
    #[error("the bytes are no message of this version: {0}")]
    Malformed(#[from] CodecError),
    /// A hello of another version.
    #[error("the leaf speaks version {version}")]
    OtherVersion {
        /// Which.
        version: u8,
    },
    /// What has happened so far does not allow it.
    #[error("the message does not follow what was said before")]
    Unexpected,
    /// It causes more to be said than may wait.
    #[error("as much waits to be sent as may")]
    Full,
}

#[cfg(test)]
mod tests;
