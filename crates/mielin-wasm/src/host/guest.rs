//! A program's memory, reached only by checked pointers.

use mielin_safepoint::PAGE_SIZE;

use super::errno::Errno;

/// The memory during a host call. Pointers and lengths come from the program and are merely claimed
/// until [`bytes`](Self::bytes) has found them inside. What is found is also there: pages that follow
/// a running program are waited for, so that the kernel can be given the bytes.
pub(crate) struct Guest<'a> {
    memory: &'a mut [u8],
}

impl<'a> Guest<'a> {
    pub(super) fn new(memory: &'a mut [u8]) -> Self {
        Self { memory }
    }

    fn range(pointer: u32, len: u32) -> core::ops::Range<usize> {
        let start = pointer as usize;
        start..start.saturating_add(len as usize)
    }

    #[cfg_attr(
        not(feature = "tensor"),
        expect(dead_code, reason = "for calls that take long")
    )]
    pub(super) fn len(&self) -> usize {
        self.memory.len()
    }

    /// All of it, for functions that find out themselves what is inside. The kernel is not given any of it.
    #[cfg_attr(
        not(feature = "tensor"),
        expect(dead_code, reason = "for calls that take long")
    )]
    pub(super) fn all_mut(&mut self) -> &mut [u8] {
        self.memory
    }

    pub(super) fn bytes(&self, pointer: u32, len: u32) -> Result<&[u8], Errno> {
        let bytes = self.memory.get(Self::range(pointer, len));
        bytes.inspect(|bytes| touch(bytes)).ok_or(Errno::Fault)
    }

    pub(super) fn bytes_mut(&mut self, pointer: u32, len: u32) -> Result<&mut [u8], Errno> {
        let bytes = self.memory.get_mut(Self::range(pointer, len));
        bytes.inspect(|bytes| touch(bytes)).ok_or(Errno::Fault)
    }

    pub(super) fn array<const N: usize>(&self, pointer: u32) -> Result<[u8; N], Errno> {
        let bytes = self.bytes(pointer, N as u32)?;
        Ok(bytes
            .try_into()
            .expect("the slice has the length asked for"))
    }

    pub(super) fn put(&mut self, pointer: u32, bytes: &[u8]) -> Result<(), Errno> {
        let len = u32::try_from(bytes.len()).map_err(|_| Errno::Overflow)?;
        self.bytes_mut(pointer, len)?.copy_from_slice(bytes);
        Ok(())
    }

    pub(super) fn put_u32(&mut self, pointer: u32, value: u32) -> Result<(), Errno> {
        self.put(pointer, &value.to_le_bytes())
    }

    pub(super) fn put_u64(&mut self, pointer: u32, value: u64) -> Result<(), Errno> {
        self.put(pointer, &value.to_le_bytes())
    }
}

/// Looks at every page once.
fn touch(bytes: &[u8]) {
    for page in bytes.chunks(PAGE_SIZE) {
        core::hint::black_box((page[0], page[page.len() - 1]));
    }
}
