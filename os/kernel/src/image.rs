//! The kernel's own image: where its parts are, as the linker says.

use mielin_hal::paging::{Access, Caching, TABLE_BYTES};

use crate::tables::Map;

unsafe extern "C" {
    static __kernel_begin: u8;
    static __text_begin: u8;
    static __text_end: u8;
    static __data_begin: u8;
    static __guard: u8;
    static __kernel_end: u8;
}

/// Where the parts of the image are, as it was linked. Each begins where another ends, but for a page before the stack.
pub(crate) struct Image {
    /// All of it.
    pub(crate) begin: u64,
    /// Code, and behind it constants.
    pub(crate) text: u64,
    text_end: u64,
    /// What is written, and behind it, from a page on that is not there, the stack.
    pub(crate) data: u64,
    guard: u64,
    /// The end of the stack, and of all.
    pub(crate) end: u64,
}

impl Image {
    pub(crate) fn here() -> Self {
        let address = |symbol: *const u8| symbol.addr() as u64;
        Self {
            begin: address(&raw const __kernel_begin),
            text: address(&raw const __text_begin),
            text_end: address(&raw const __text_end),
            data: address(&raw const __data_begin),
            guard: address(&raw const __guard),
            end: address(&raw const __kernel_end),
        }
    }

    /// Maps it: code is executable only, constants are for reading, and all else is for writing. It was linked to lie `offset` above
    /// where it is in memory.
    pub(crate) fn map(&self, map: &mut Map<'_>, offset: u64) {
        let parts = [
            (self.text, self.text_end, Access::ReadExecute),
            (self.text_end, self.data, Access::Read),
            (self.data, self.guard, Access::ReadWrite),
            (self.guard + TABLE_BYTES, self.end, Access::ReadWrite),
        ];
        for (begin, end, access) in parts {
            map.add(
                begin,
                begin - offset,
                end - begin,
                access,
                Caching::WriteBack,
            );
        }
    }
}
