//! The archive in the kernel's file. Its first program is the first thread's.

/// Bytes that begin a page, and end one.
#[repr(C, align(4096))]
struct Pages<T: ?Sized>(T);

const LEN: usize = include_bytes!(env!("MIELIN_ARCHIVE")).len();

/// In a section of its own, so that nothing of the kernel lies in its pages.
#[unsafe(link_section = ".archive")]
static ARCHIVE: Pages<[u8; LEN]> = Pages(*include_bytes!(env!("MIELIN_ARCHIVE")));

/// The archive; it begins a page, and what is behind it in its last page is zero.
pub(crate) fn bytes() -> &'static [u8] {
    &ARCHIVE.0
}
