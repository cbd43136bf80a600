//! Inputs of targets that are state machines: what happens, one thing after the other.

/// Something that happens: a number that the target gives a meaning, and bytes.
pub type Step<'a> = (u8, &'a [u8]);

/// The steps in an input: each a number, a length (u16, little endian) and so many bytes. One that
/// is cut off is the last, with what there is.
#[derive(Clone, Debug)]
pub struct Steps<'a> {
    rest: &'a [u8],
}

impl<'a> Steps<'a> {
    /// The steps in these bytes.
    #[must_use]
    pub fn new(input: &'a [u8]) -> Steps<'a> {
        Steps { rest: input }
    }

    /// The bytes of these steps.
    ///
    /// # Panics
    /// If one has more than 65,535 bytes.
    #[must_use]
    pub fn write(steps: &[Step<'_>]) -> Vec<u8> {
        let mut input = Vec::new();
        for (kind, bytes) in steps {
            let len = u16::try_from(bytes.len()).expect("a step's bytes fit its length");
            input.push(*kind);
            input.extend_from_slice(&len.to_le_bytes());
            input.extend_from_slice(bytes);
        }
        input
    }
}

impl<'a> Iterator for Steps<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        let (&[kind, low, high], rest) = self.rest.split_first_chunk::<3>()?;
        let len = usize::from(u16::from_le_bytes([low, high]));
        let (bytes, rest) = rest.split_at(len.min(rest.len()));
        self.rest = rest;
        Some((kind, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_come_back_and_a_cut_one_is_the_last() {
        let steps: [Step<'_>; 2] = [(1, b"one"), (2, b"")];
        let mut input = Steps::write(&steps);
        assert_eq!(Steps::new(&input).collect::<Vec<_>>(), steps);
        input.extend_from_slice(&[3, 200, 0, 7]);
        assert_eq!(Steps::new(&input).last(), Some((3, &[7][..])));
    }
}
