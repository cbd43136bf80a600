//! What an agent was granted.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

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
    /// Readings of every sensor.
    Sensor,
    /// Readings of this sensor.
    OneSensor(u8),
    /// Setting every actuator.
    Actuator,
    /// Setting this actuator.
    OneActuator(u8),
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
            "sensor" => Self::Sensor,
            "actuator" => Self::Actuator,
            _ => {
                let one = match text.split_once(':') {
                    Some(("message", which)) => which.parse().ok().map(Self::MessageTo),
                    Some(("sensor", which)) => which.parse().ok().map(Self::OneSensor),
                    Some(("actuator", which)) => which.parse().ok().map(Self::OneActuator),
                    _ => None,
                };
                one.unwrap_or_else(|| Self::Other(text.to_owned()))
            }
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
    use alloc::format;

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
        assert_eq!(Capability::read("sensor"), Capability::Sensor);
        assert_eq!(Capability::read("sensor:7"), Capability::OneSensor(7));
        assert_eq!(Capability::read("actuator"), Capability::Actuator);
        assert_eq!(
            Capability::read("actuator:255"),
            Capability::OneActuator(255)
        );
        assert_eq!(
            Capability::read("actuator:256"),
            Capability::Other("actuator:256".into())
        );
        assert_eq!(
            Capability::read("teleport"),
            Capability::Other("teleport".into())
        );
    }
}
