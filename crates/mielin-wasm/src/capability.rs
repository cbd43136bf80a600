//! What a program may do beyond computing, granted piece by piece and denied by default.

use alloc::collections::BTreeSet;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use crate::Address;
use crate::limits::{DATA_BYTES, DATA_BYTES_MAX};

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
    /// `data` or `data:SIZE`: a file system of its own, `/data`, that holds so many bytes.
    Data(DataBytes),
    /// `tensor`: the node's kernels for matrices.
    Tensor,
    /// `sensor` or `sensor:N`: readings of the devices' sensors.
    Sensor(Port),
    /// `actuator` or `actuator:N`: setting the devices' actuators.
    Actuator(Port),
}

/// The size of a program's `/data`. As text a number of bytes, or of `KiB`, `MiB` or `GiB`; at most
/// 512 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataBytes(u64);

impl DataBytes {
    /// So many bytes; none if that is too much.
    pub fn new(bytes: u64) -> Option<Self> {
        (bytes <= DATA_BYTES_MAX).then_some(Self(bytes))
    }

    /// The number of bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl Default for DataBytes {
    /// 64 MiB, which `data` without a size means.
    fn default() -> Self {
        Self(DATA_BYTES)
    }
}

const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];

impl fmt::Display for DataBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, shift): &&(&str, u32)| self.0 != 0 && self.0.trailing_zeros() >= *shift;
        match UNITS.iter().find(whole) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for DataBytes {
    type Err = CapabilityError;

    fn from_str(text: &str) -> Result<Self, CapabilityError> {
        let unit = |(unit, shift): &(&str, u32)| Some((text.strip_suffix(unit)?, *shift));
        let (number, shift) = UNITS.iter().find_map(unit).unwrap_or((text, 0));
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        let number = number.parse::<u64>().ok().filter(|_| digits);
        number
            .and_then(|number| number.checked_mul(1 << shift))
            .and_then(Self::new)
            .ok_or_else(|| CapabilityError::of(text))
    }
}

/// To whom a program may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// Every agent.
    Any,
    /// This agent.
    One(Address),
}

/// Which of the devices' sensors, or actuators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// All of them.
    Any,
    /// The one with this number.
    One(u8),
}

impl Port {
    /// A number in decimal digits, in the one way in which it is written.
    fn one(text: &str) -> Option<Self> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let shortest = text == "0" || !text.starts_with('0');
        let number = text.parse().ok().filter(|_| digits && shortest);
        number.map(Self::One)
    }
}

/// Nothing, or a colon and the number.
impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::One(number) => write!(f, ":{number}"),
        }
    }
}

/// A text that names no capability.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no capability is called {text:?}; there are clock, random, message, message:ADDRESS (32 hexadecimal digits), data, data:SIZE (such as 16MiB, at most 512MiB), tensor, sensor, sensor:N, actuator and actuator:N (N from 0 to 255)"
)]
pub struct CapabilityError {
    /// The text that was refused.
    pub text: String,
}

impl CapabilityError {
    fn of(text: &str) -> Self {
        Self {
            text: text.chars().take(64).collect(),
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clock => f.write_str("clock"),
            Self::Random => f.write_str("random"),
            Self::Message(Target::Any) => f.write_str("message"),
            Self::Message(Target::One(address)) => write!(f, "message:{address}"),
            Self::Data(bytes) => write!(f, "data:{bytes}"),
            Self::Tensor => f.write_str("tensor"),
            Self::Sensor(port) => write!(f, "sensor{port}"),
            Self::Actuator(port) => write!(f, "actuator{port}"),
        }
    }
}

impl FromStr for Capability {
    type Err = CapabilityError;

    fn from_str(text: &str) -> Result<Self, CapabilityError> {
        let refused = || CapabilityError::of(text);
        match text {
            "clock" => Ok(Self::Clock),
            "random" => Ok(Self::Random),
            "message" => Ok(Self::Message(Target::Any)),
            "data" => Ok(Self::Data(DataBytes::default())),
            "tensor" => Ok(Self::Tensor),
            "sensor" => Ok(Self::Sensor(Port::Any)),
            "actuator" => Ok(Self::Actuator(Port::Any)),
            _ => {
                let (kind, which) = text.split_once(':').ok_or_else(refused)?;
                let capability = match kind {
                    "data" => which.parse().ok().map(Self::Data),
                    "message" => which.parse().ok().map(Target::One).map(Self::Message),
                    "sensor" => Port::one(which).map(Self::Sensor),
                    "actuator" => Port::one(which).map(Self::Actuator),
                    _ => None,
                };
                capability.ok_or_else(refused)
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
    /// entries: revoking one leaves the other. So are those of all sensors or actuators and of one.
    pub fn revoke(&mut self, capability: &Capability) -> bool {
        self.held.remove(capability)
    }

    /// Whether the wanted capability is covered by one that is held.
    pub fn allows(&self, wanted: &Capability) -> bool {
        match wanted {
            Capability::Message(Target::One(_)) => {
                self.held.contains(wanted) || self.held.contains(&Capability::Message(Target::Any))
            }
            Capability::Sensor(Port::One(_)) => {
                self.held.contains(wanted) || self.held.contains(&Capability::Sensor(Port::Any))
            }
            Capability::Actuator(Port::One(_)) => {
                self.held.contains(wanted) || self.held.contains(&Capability::Actuator(Port::Any))
            }
            Capability::Data(wanted) => self.data_bytes().is_some_and(|held| held >= wanted.0),
            _ => self.held.contains(wanted),
        }
    }

    /// How much the program's `/data` may hold; none if it may have none. The largest of several
    /// sizes counts.
    pub fn data_bytes(&self) -> Option<u64> {
        let sizes = self.held.iter().filter_map(|capability| match capability {
            Capability::Data(bytes) => Some(bytes.0),
            _ => None,
        });
        sizes.max()
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
        let sizes = [
            "data:0",
            "data:4097",
            "data:3KiB",
            "data:64MiB",
            "data:512MiB",
        ];
        let texts = [
            "clock",
            "random",
            "message",
            one.as_str(),
            "tensor",
            "sensor",
            "sensor:0",
            "sensor:255",
            "actuator",
            "actuator:17",
        ];
        for text in texts.into_iter().chain(sizes) {
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
            "data:",
            "data: 1",
            "data:+1",
            "data:1MB",
            "data:MiB",
            "data:-1",
            "data:513MiB",
            "data:17179869185GiB",
            "data:536870913",
            "sensors",
            "sensor:",
            "sensor:256",
            "sensor:-1",
            "sensor:+1",
            "sensor:01",
            "sensor:1 ",
            "sensor:a",
            "sensor:1:2",
            "actuator:",
            "actuator:1000",
            "actuator:٣",
            "tensor:1",
            "clock:",
        ] {
            assert!(text.parse::<Capability>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn the_largest_data_counts_and_covers_smaller_ones() {
        let parse = |text: &str| text.parse::<Capability>().unwrap();
        assert_eq!(parse("data").to_string(), "data:64MiB");
        assert_eq!(parse("data:1024KiB"), parse("data:1048576"));
        assert_eq!(Grants::none().data_bytes(), None);
        let both = Grants::from_iter([parse("data:1MiB"), parse("data:5KiB")]);
        assert_eq!(both.data_bytes(), Some(1 << 20));
        assert!(both.allows(&parse("data:1048575")));
        assert!(!both.allows(&parse("data:1048577")));
    }

    #[test]
    fn one_sensor_or_actuator_is_covered_by_all_of_them_and_by_nothing_else() {
        let parse = |text: &str| text.parse::<Capability>().unwrap();
        let held = |texts: &[&str]| texts.iter().map(|text| parse(text)).collect::<Grants>();
        for [one, any, other, another] in [
            ["sensor:3", "sensor", "sensor:4", "actuator:3"],
            ["actuator:3", "actuator", "actuator:4", "sensor:3"],
        ] {
            assert!(held(&[any]).allows(&parse(one)));
            assert!(held(&[any]).allows(&parse(any)));
            let (one_held, wanted) = (held(&[one]), parse(one));
            assert!(one_held.allows(&wanted));
            for not in [any, other, another] {
                assert!(!one_held.allows(&parse(not)), "{one} covers {not}");
            }
            assert!(!held(&[another]).allows(&wanted));
            let mut both = held(&[any, one]);
            assert!(both.revoke(&parse(any)));
            assert!(both.allows(&wanted) && !both.allows(&parse(other)));
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
