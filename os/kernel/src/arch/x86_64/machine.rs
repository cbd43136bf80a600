//! What firmware and loader say of the machine: where memory is (the start information of PVH), and where the interrupt controllers are
//! (ACPI). Read while the first map is used, and checked before anything is believed.
//!
//! Source: `xen/include/public/arch-x86/hvm/start_info.h`, version 1.

use mielin_hal::acpi::{Acpi, IoApicAt, Override};
use mielin_hal::{Polarity, Trigger};

use super::interrupts::CONTROLLERS_MAX;
use crate::memory;
use crate::regions::Regions;

/// The first map has so much of physical memory.
pub(super) const FIRST_MAP_END: u64 = 4 << 30;
/// What of it can hold objects of the kernel.
const PHYSICAL_END: u64 = mielin_kernel::OBJECTS_END;
/// Below, firmware and the first PCs have left too much.
const MEMORY_BEGIN: u64 = 1 << 20;

const MAGIC: u32 = 0x336e_c578;
/// The start information of version 1.
const START_BYTES: u64 = 56;
const ENTRY_BYTES: u64 = 24;
const ENTRIES_MAX: u64 = 128;
/// Kinds of stretches: memory, ACPI's tables, and what firmware keeps while the machine sleeps, to which tables lead.
const MEMORY: u32 = 1;
const TABLES: u32 = 3;
const STORAGE: u32 = 4;
/// The ISA bus has 16 lines.
const OVERRIDES_MAX: usize = 16;
/// ACPI's root pointer.
const ROOT_POINTER_BYTES: u64 = 36;
/// Where the root pointer is if nobody says it.
const BIOS: (u64, u64) = (0xe_0000, 0x10_0000);

/// A stretch of the memory map.
#[derive(Clone, Copy)]
struct Stretch {
    begin: u64,
    end: u64,
    kind: u32,
}

/// The start information.
#[derive(Clone, Copy)]
pub(super) struct Start {
    address: u64,
    entries_at: u64,
    entries: u64,
    root_pointer: u64,
}

/// Bytes of memory below the end of the first map. `None` if not all of them are.
fn bytes(at: u64, len: usize) -> Option<&'static [u8]> {
    let end = at.checked_add(len as u64)?;
    if end > FIRST_MAP_END {
        return None;
    }
    // SAFETY: the first map has these addresses at this place, and nobody writes there while `Start` is used.
    Some(unsafe { core::slice::from_raw_parts(memory::pointer::<u8>(at), len) })
}

fn word32(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    word.map_or(0, u32::from_le_bytes)
}

fn word64(bytes: &[u8], at: usize) -> u64 {
    u64::from(word32(bytes, at + 4)) << 32 | u64::from(word32(bytes, at))
}

impl Start {
    /// The start information at this address.
    ///
    /// # Panics
    /// If it is none, or tells of no memory.
    pub(super) fn at(address: u64) -> Self {
        let start = bytes(address, START_BYTES as usize).unwrap_or(&[]);
        assert!(
            word32(start, 0) == MAGIC,
            "the loader has passed no PVH start information at {address:#x}"
        );
        let version = word32(start, 4);
        assert!(
            version >= 1,
            "the PVH start information has version {version}, which has no map of memory"
        );
        let this = Self {
            address,
            root_pointer: word64(start, 32),
            entries_at: word64(start, 40),
            entries: word32(start, 48).into(),
        };
        let (at, entries) = (this.entries_at, this.entries);
        let is_there =
            entries <= ENTRIES_MAX && bytes(at, (entries * ENTRY_BYTES) as usize).is_some();
        assert!(
            is_there && entries != 0,
            "the PVH start information has a map of {entries} stretches of memory at {at:#x}: that cannot be"
        );
        this
    }

    fn stretches(self) -> impl Iterator<Item = Stretch> {
        let map = bytes(self.entries_at, (self.entries * ENTRY_BYTES) as usize).unwrap_or(&[]);
        map.chunks_exact(ENTRY_BYTES as usize).map(|entry| {
            let begin = word64(entry, 0);
            Stretch {
                begin,
                end: begin.saturating_add(word64(entry, 8)),
                kind: word32(entry, 16),
            }
        })
    }

    /// The memory that there is, each page of it once, without what the map says is something else, too.
    pub(super) fn memory(self) -> Regions {
        let mut memory = Regions::none();
        for stretch in self.stretches().filter(|stretch| stretch.kind == MEMORY) {
            let begin = stretch.begin.max(MEMORY_BEGIN);
            let end = stretch.end.min(PHYSICAL_END);
            if begin < end {
                memory.remove(begin, end);
                memory.add(begin, end, false);
            }
        }
        for stretch in self.stretches().filter(|stretch| stretch.kind != MEMORY) {
            memory.remove(stretch.begin, stretch.end.min(u64::MAX - 4096));
        }
        memory
    }

    /// Adds what of ACPI is between memory and memory, where UEFI has it, for programs to read.
    pub(super) fn add_tables(self, regions: &mut Regions, end: u64) {
        let is_table = |stretch: &Stretch| matches!(stretch.kind, TABLES | STORAGE);
        for stretch in self.stretches().filter(is_table) {
            let (begin, end) = (stretch.begin.max(MEMORY_BEGIN), stretch.end.min(end));
            if begin < end {
                regions.remove(begin, end);
                regions.add(begin, end, true);
            }
        }
    }

    /// What is in use still: this information, its map, and ACPI's root pointer.
    pub(super) fn keep(self, free: &mut Regions) {
        free.remove(self.address, self.address + START_BYTES);
        let map_bytes = self.entries * ENTRY_BYTES;
        free.remove(self.entries_at, self.entries_at + map_bytes);
        let (begin, end) = self.root_pointer_pages();
        free.remove(begin, end);
    }

    /// Where the first thread finds ACPI's root pointer.
    pub(super) fn root_pointer_pages(self) -> (u64, u64) {
        match self.root_pointer {
            0 => BIOS,
            at => (
                at / 4096 * 4096,
                (at + ROOT_POINTER_BYTES).next_multiple_of(4096),
            ),
        }
    }

    /// Bytes that firmware may have meant: in the first megabyte, or in a stretch of the map.
    fn firmware(self, at: u64, len: usize) -> Option<&'static [u8]> {
        let end = at.checked_add(len as u64)?;
        let is_within = |stretch: Stretch| stretch.begin <= at && end <= stretch.end;
        let is_meant = end <= MEMORY_BEGIN || self.stretches().any(is_within);
        bytes(at, len).filter(|_| is_meant)
    }
}

/// The interrupt controllers.
pub(super) struct Controllers {
    io_apics: [Option<IoApicAt>; CONTROLLERS_MAX],
    overrides: [Option<Override>; OVERRIDES_MAX],
}

impl Controllers {
    /// Reads the tables.
    ///
    /// # Panics
    /// If there are none, or they are damaged.
    pub(super) fn find(start: Start) -> Self {
        let read = move |at, len| start.firmware(at, len);
        let acpi = match start.root_pointer {
            0 => Acpi::search(read),
            at => Acpi::at(at, read),
        };
        let madt = match acpi.and_then(|acpi| acpi.madt()) {
            Ok(madt) => madt,
            Err(error) => panic!("{error}"),
        };
        let mut this = Self {
            io_apics: [None; CONTROLLERS_MAX],
            overrides: [None; OVERRIDES_MAX],
        };
        for (place, found) in this.io_apics.iter_mut().zip(madt.io_apics()) {
            *place = Some(found);
        }
        for (place, found) in this.overrides.iter_mut().zip(madt.overrides()) {
            *place = Some(found);
        }
        this
    }

    pub(super) fn io_apics(&self) -> impl Iterator<Item = &IoApicAt> {
        self.io_apics.iter().flatten()
    }

    /// How a line interrupts: as the tables say, else as those of ISA (the first 16) or PCI do.
    pub(super) fn form(&self, line: u32) -> (Trigger, Polarity) {
        let mut overrides = self.overrides.iter().flatten();
        let other = overrides.find(|other| other.line.line == line);
        match (other, line) {
            (Some(other), _) => (other.line.trigger, other.line.polarity),
            (None, 0..16) => (Trigger::Edge, Polarity::High),
            (None, _) => (Trigger::Level, Polarity::Low),
        }
    }
}
