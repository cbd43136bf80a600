//! Little-endian fields in a byte string that may come from anybody.

use super::StateError;

#[derive(Default)]
pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn array(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
    }

    pub(super) fn len(&mut self, len: usize) {
        self.u32(u32::try_from(len).expect("host state is bounded far below 4 GiB"));
    }

    pub(super) fn text(&mut self, value: &[u8]) {
        self.len(value.len());
        self.array(value);
    }
}

/// Reads fields front to back; every length is checked against what is there before it is used.
pub(super) struct Reader<'a> {
    section: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(section: &'static str, bytes: &'a [u8]) -> Self {
        Self {
            section,
            rest: bytes,
        }
    }

    pub(super) fn malformed(&self, what: &'static str) -> StateError {
        StateError::Malformed {
            section: self.section,
            what,
        }
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], StateError> {
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(StateError::Truncated {
                section: self.section,
            })?;
        self.rest = rest;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let bytes = self.take(N)?;
        Ok(bytes
            .try_into()
            .expect("take gives exactly the length asked for"))
    }

    pub(super) fn u8(&mut self) -> Result<u8, StateError> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, StateError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, StateError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, StateError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn text(&mut self) -> Result<&'a [u8], StateError> {
        let len = self.u32()?;
        self.take(usize::try_from(len).unwrap_or(usize::MAX))
    }

    /// A list whose items take at least a byte each, so that its claimed length cannot make it
    /// longer than the section.
    pub(super) fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, StateError>,
    ) -> Result<Vec<T>, StateError> {
        let count = self.u32()?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    pub(super) fn end(&self) -> Result<(), StateError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.malformed("bytes after the end"))
        }
    }
}
