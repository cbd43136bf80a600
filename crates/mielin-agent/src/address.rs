//! The name by which agents know each other.

use core::fmt;
use core::str::FromStr;

/// An agent's address: 16 opaque bytes, written as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentAddress(pub [u8; 16]);

/// A text that is not 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressError;

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an agent's address is 32 hexadecimal digits")
    }
}

impl core::error::Error for AddressError {}

impl fmt::Display for AgentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for AgentAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let nibble = |digit: u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            b'A'..=b'F' => Ok(digit - b'A' + 10),
            _ => Err(AddressError),
        };
        let digits: &[u8; 32] = text.as_bytes().try_into().map_err(|_| AddressError)?;
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::{AddressError, AgentAddress};

    #[test]
    fn text_and_back() {
        let text = "00ff102030405060708090a0b0c0d0e0";
        let address: AgentAddress = text.parse().unwrap();
        assert_eq!(address.0[..3], [0x00, 0xff, 0x10]);
        assert_eq!(address.to_string(), text);
        assert_eq!(text.to_uppercase().parse(), Ok(address));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "00",
            "g0ff102030405060708090a0b0c0d0e0",
            "00ff102030405060708090a0b0c0d0e0f",
        ] {
            assert_eq!(text.parse::<AgentAddress>(), Err(AddressError), "{text:?}");
        }
    }
}
