//! What an agent was granted.

use crate::error::ERRNO_MSGSIZE;
use crate::{AgentAddress, Error, ffi};

/// One thing that the agent may do beyond computing, logging, receiving and replying.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Capability {
    /// Reading clocks, and sleeping on them.
    Clock,
    /// Random bytes from the node.
    Random,
    /// Sending to every agent.
    Message,
    /// Sending to this agent.
    MessageTo(AgentAddress),
    /// The node's kernels for matrices.
    Tensor,
    /// One that this version of the crate does not know, as the node writes it.
    Other(String),
}

impl Capability {
    fn read(text: &str) -> Self {
        match text {
            "clock" => Self::Clock,
            "random" => Self::Random,
            "message" => Self::Message,
            "tensor" => Self::Tensor,
            _ => match text.strip_prefix("message:").map(str::parse) {
                Some(Ok(address)) => Self::MessageTo(address),
                _ => Self::Other(text.to_owned()),
            },
        }
    }
}

/// Asks with more room until the list fits.
pub(crate) fn granted() -> Result<Vec<Capability>, Error> {
    let mut buffer = vec![0; 256];
    loop {
        let mut needed = 0;
        match ffi::capabilities(&mut buffer, &mut needed) {
            ERRNO_MSGSIZE => buffer.resize(needed as usize, 0),
            errno => {
                Error::check(errno)?;
                buffer.truncate(needed as usize);
                let text = String::from_utf8_lossy(&buffer);
                return Ok(text.lines().map(Capability::read).collect());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Capability;

    #[test]
    fn known_and_unknown_lines() {
        assert_eq!(Capability::read("clock"), Capability::Clock);
        let address = "00ff102030405060708090a0b0c0d0e0";
        assert_eq!(
            Capability::read(&format!("message:{address}")),
            Capability::MessageTo(address.parse().unwrap())
        );
        assert_eq!(
            Capability::read("message:x"),
            Capability::Other("message:x".into())
        );
        assert_eq!(Capability::read("tensor"), Capability::Tensor);
        assert_eq!(
            Capability::read("teleport"),
            Capability::Other("teleport".into())
        );
    }
}
