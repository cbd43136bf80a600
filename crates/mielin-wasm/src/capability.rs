//! What a program may do beyond computing, granted piece by piece and denied by default.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::Address;

/// One thing that a program may be allowed to do.
///
/// Writing to its own stdout, stderr and log, receiving messages and replying to them needs none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Capability {
    /// `clock`: reading clocks, and sleeping on them.
    Clock,
    /// `random`: random bytes from the node.
    Random,
    /// `message` or `message:ADDRESS`: sending messages of its own accord.
    Message(Target),
}

/// To whom a program may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// Every agent.
    Any,
    /// This agent.
    One(Address),
}

/// A text that names no capability.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no capability is called {text:?}; there are clock, random, message and message:ADDRESS (32 hexadecimal digits)"
)]
pub struct CapabilityError {
    /// The text that was refused.
    pub text: String,
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clock => f.write_str("clock"),
            Self::Random => f.write_str("random"),
            Self::Message(Target::Any) => f.write_str("message"),
            Self::Message(Target::One(address)) => write!(f, "message:{address}"),
        }
    }
}

impl FromStr for Capability {
    type Err = CapabilityError;

    fn from_str(text: &str) -> Result<Self, CapabilityError> {
        let refused = || CapabilityError {
            text: text.chars().take(64).collect(),
        };
        match text {
            "clock" => Ok(Self::Clock),
            "random" => Ok(Self::Random),
            "message" => Ok(Self::Message(Target::Any)),
            _ => {
                let address = text.strip_prefix("message:").ok_or_else(refused)?;
                let address = address.parse().map_err(|_| refused())?;
                Ok(Self::Message(Target::One(address)))
            }
        }
    }
}

/// The set of capabilities that a program holds. Empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    held: BTreeSet<Capability>,
}

impl Grants {
    /// Grants nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds a capability; true if it was not held before.
    pub fn grant(&mut self, capability: Capability) -> bool {
        self.held.insert(capability)
    }

    /// Takes a capability away; true if it was held. `message` and `message:ADDRESS` are separate
    /// entries: revoking one leaves the other.
    pub fn revoke(&mut self, capability: &Capability) -> bool {
        self.held.remove(capability)
    }

    /// Whether the wanted capability is covered by one that is held.
    pub fn allows(&self, wanted: &Capability) -> bool {
        self.held.contains(wanted)
            || matches!(wanted, Capability::Message(Target::One(_)))
                && self.held.contains(&Capability::Message(Target::Any))
    }

    /// The capabilities held, in a stable order.
    pub fn iter(&self) -> impl Iterator<Item = &Capability> {
        self.held.iter()
    }

    /// How many capabilities are held.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether nothing is granted.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

impl FromIterator<Capability> for Grants {
    fn from_iter<I: IntoIterator<Item = Capability>>(capabilities: I) -> Self {
        Self {
            held: capabilities.into_iter().collect(),
        }
    }
}

/// The capabilities separated by commas, or `none`.
impl fmt::Display for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.held.is_empty() {
            return f.write_str("none");
        }
        for (index, capability) in self.held.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(f, "{separator}{capability}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn text_forms_round_trip() {
        let one = format!("message:{}", Address([0xa5; 16]));
        for text in ["clock", "random", "message", one.as_str()] {
            assert_eq!(text.parse::<Capability>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "Clock",
            "message:",
            "message:12",
            "message:zz",
            "messages",
            "clock ",
        ] {
            assert!(text.parse::<Capability>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn sending_to_one_is_covered_by_sending_to_any_but_not_the_reverse() {
        let to = |byte| Capability::Message(Target::One(Address([byte; 16])));
        let any = Grants::from_iter([Capability::Message(Target::Any)]);
        assert!(any.allows(&to(1)));
        let one = Grants::from_iter([to(1)]);
        assert!(one.allows(&to(1)));
        assert!(!one.allows(&to(2)));
        assert!(!one.allows(&Capability::Message(Target::Any)));
        assert!(!one.allows(&Capability::Clock));
        assert!(!Grants::none().allows(&Capability::Random));
    }
}
