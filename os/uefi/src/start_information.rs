//! What the kernel is told of the machine: the start information of PVH, with a map of memory made of UEFI's.
//!
//! Source: `xen/include/public/arch-x86/hvm/start_info.h`, version 1; UEFI Specification 2.10, 7.2 (memory allocation services:
//! what memory of each type is after `ExitBootServices`).

use uefi::mem::memory_map::{MemoryAttribute, MemoryDescriptor, MemoryType};

/// Start information and map are one page.
pub const PAGE_BYTES: usize = 4096;

const MAGIC: u32 = 0x336e_c578;
const VERSION: u32 = 1;
const ROOT_POINTER: usize = 32;
const MAP: usize = 40;
const MAP_LEN: usize = 48;
/// Where the map is in the page: behind the start information.
const FIRST: usize = 64;
const ENTRY_BYTES: usize = 24;
/// So many stretches the kernel reads.
const ENTRIES_MAX: usize = 128;
const FRAME_BYTES: u64 = 4096;

/// What a stretch of addresses is, by the numbers of E820.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum StretchKind {
    /// Memory that nobody uses.
    Memory = 1,
    /// Firmware's, a device's, or what the kernel was loaded into.
    Reserved = 2,
    /// ACPI's tables.
    Tables = 3,
    /// What firmware keeps while the machine sleeps.
    Storage = 4,
    /// Memory in which errors were found.
    Unusable = 5,
}

impl StretchKind {
    /// What UEFI's memory is when boot services have ended. What was loaded (`LOADER_DATA`) is the kernel and what it is told;
    /// the loader's code is not needed any more when the kernel looks for memory.
    fn of(descriptor: &MemoryDescriptor) -> Self {
        let attributes = descriptor.att;
        // Memory that cannot be cached, and such as is meant for one purpose, is left to who knows it.
        let is_ordinary = attributes.contains(MemoryAttribute::WRITE_BACK)
            && !attributes.contains(MemoryAttribute::SPECIAL_PURPOSE);
        match descriptor.ty {
            MemoryType::CONVENTIONAL
            | MemoryType::LOADER_CODE
            | MemoryType::BOOT_SERVICES_CODE
            | MemoryType::BOOT_SERVICES_DATA
                if is_ordinary =>
            {
                Self::Memory
            }
            MemoryType::ACPI_RECLAIM => Self::Tables,
            MemoryType::ACPI_NON_VOLATILE => Self::Storage,
            MemoryType::UNUSABLE => Self::Unusable,
            _ => Self::Reserved,
        }
    }
}

/// A stretch of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Its first address.
    pub begin: u64,
    /// The address behind it.
    pub end: u64,
    /// What it is.
    pub kind: StretchKind,
}

/// The stretches that UEFI's descriptors, in the order of their addresses, come to: neighbours of one kind are one.
pub fn stretches<'a>(
    descriptors: impl Iterator<Item = &'a MemoryDescriptor>,
) -> impl Iterator<Item = Stretch> {
    let mut descriptors = descriptors
        .filter(|descriptor| descriptor.page_count != 0)
        .map(|descriptor| {
            let bytes = descriptor.page_count.saturating_mul(FRAME_BYTES);
            Stretch {
                begin: descriptor.phys_start,
                end: descriptor.phys_start.saturating_add(bytes),
                kind: StretchKind::of(descriptor),
            }
        });
    let mut next = descriptors.next();
    core::iter::from_fn(move || {
        let mut stretch = next?;
        loop {
            next = descriptors.next();
            match next {
                Some(other) if other.begin == stretch.end && other.kind == stretch.kind => {
                    stretch.end = other.end;
                }
                _ => return Some(stretch),
            }
        }
    })
}

/// Writes the start information into its page, which is at address `at`. Stretches for which there is no room, the last ones,
/// are left out: the kernel does not use what it is not told of.
pub fn write(
    page: &mut [u8; PAGE_BYTES],
    at: u64,
    root_pointer: u64,
    stretches: impl Iterator<Item = Stretch>,
) {
    page.fill(0);
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    let mut count: u32 = 0;
    for (stretch, place) in stretches
        .take(ENTRIES_MAX)
        .zip((FIRST..).step_by(ENTRY_BYTES))
    {
        put(place, &stretch.begin.to_le_bytes());
        put(place + 8, &(stretch.end - stretch.begin).to_le_bytes());
        put(place + 16, &(stretch.kind as u32).to_le_bytes());
        count += 1;
    }
    put(0, &MAGIC.to_le_bytes());
    put(4, &VERSION.to_le_bytes());
    put(ROOT_POINTER, &root_pointer.to_le_bytes());
    put(MAP, &(at + FIRST as u64).to_le_bytes());
    put(MAP_LEN, &count.to_le_bytes());
}

const _: () = assert!(FIRST + ENTRIES_MAX * ENTRY_BYTES <= PAGE_BYTES);

#[cfg(test)]
mod tests;
