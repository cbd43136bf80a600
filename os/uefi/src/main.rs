//! Starts the microkernel on a PC from UEFI: its file, which is part of this program, is put where it wants to be in memory, and is
//! entered as by the protocol of Xen's PVH guests, so that the kernel has one way to begin however it was loaded.
//!
//! - [`pages`]: memory of the firmware's.
//! - [`descent`]: from 64 bits with paging to 32 bits without.

#![no_std]
#![no_main]

mod descent;
mod pages;

use core::fmt;
use core::panic::PanicInfo;

use mielin_uefi::image::{Image, ImageError};
use mielin_uefi::start_information::{self, PAGE_BYTES, stretches};
use uefi::mem::memory_map::{MemoryMap, MemoryMapMut, MemoryType};
use uefi::runtime::ResetType;
use uefi::table::cfg::ConfigTableEntry;
use uefi::{Status, boot, entry, println, runtime, system};

use descent::Descent;
use pages::Pages;

/// The kernel's file.
static KERNEL: &[u8] = include_bytes!(env!(
    "MIELIN_KERNEL",
    "MIELIN_KERNEL is the path of the kernel's file (cargo xtask os)"
));

/// Why the kernel is not started. Firmware goes on then.
enum Failure {
    /// The file is none that can be.
    Image(ImageError),
    /// Where the kernel wants to be is something else.
    Taken {
        kernel: (u64, u64),
        by: (u64, u64),
        kind: MemoryType,
    },
    /// Where the kernel wants to be is not memory.
    NoMemoryAt(u64, Status),
    /// There is none for what the loader itself needs.
    NoMemory(Status),
    /// Firmware has no ACPI tables, without which the kernel finds no interrupt controllers.
    NoTables,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(error) => error.fmt(f),
            Self::Taken { kernel, by, kind } => write!(
                f,
                "the kernel has to be at {:#x} to {:#x}, where {:#x} to {:#x} is {kind:?} to firmware",
                kernel.0, kernel.1, by.0, by.1
            ),
            Self::NoMemoryAt(at, status) => {
                write!(
                    f,
                    "there is no memory at {at:#x} for all of the kernel: {status}"
                )
            }
            Self::NoMemory(status) => write!(f, "there is no free memory below 4 GiB: {status}"),
            Self::NoTables => f.write_str("firmware has no ACPI tables"),
        }
    }
}

#[entry]
fn main() -> Status {
    match Start::prepare() {
        Ok(start) => start.leave(),
        Err(failure) => {
            println!("MielinOS does not start: {failure}.");
            Status::LOAD_ERROR
        }
    }
}

/// All that the kernel needs, in memory.
struct Start {
    image: Image<'static>,
    /// What it was put into. Held, so that it stays.
    _kernel: Pages,
    information: Pages,
    root_pointer: u64,
    descent: Descent,
}

impl Start {
    fn prepare() -> Result<Self, Failure> {
        let image = Image::new(KERNEL).map_err(Failure::Image)?;
        let root_pointer = root_pointer().ok_or(Failure::NoTables)?;
        let no_memory = |error: uefi::Error| Failure::NoMemory(error.status());
        Ok(Self {
            image,
            _kernel: load(&image)?,
            information: Pages::below_4_gib(MemoryType::LOADER_DATA).map_err(no_memory)?,
            root_pointer,
            descent: Descent::new().map_err(no_memory)?,
        })
    }

    /// Leaves firmware for the kernel.
    fn leave(mut self) -> ! {
        println!(
            "MielinOS: the kernel is at {:#x}, {} KiB.",
            self.image.begin(),
            self.image.pages() * PAGE_BYTES / 1024
        );
        // SAFETY: nothing of firmware's is used from here on but its memory map, and the pages that were allocated, which stay.
        let mut map = unsafe { boot::exit_boot_services(None) };
        map.sort();
        let at = self.information.address();
        let page = self.information.first();
        start_information::write(page, at, self.root_pointer, stretches(map.entries()));
        // SAFETY: boot services have ended, the entry is one of code that was loaded, and the information is at this address.
        unsafe { self.descent.enter(self.image.entry(), at) }
    }
}

/// Puts the kernel where it wants to be.
fn load(image: &Image<'_>) -> Result<Pages, Failure> {
    let begin = image.begin();
    let end = begin + (image.pages() * PAGE_BYTES) as u64;
    let mut pages = Pages::at(begin, image.pages(), MemoryType::LOADER_DATA)
        .map_err(|error| in_the_way((begin, end), error.status()))?;
    image.write_into(pages.as_mut());
    Ok(pages)
}

/// What keeps the kernel from its place.
fn in_the_way(kernel: (u64, u64), status: Status) -> Failure {
    let Ok(map) = boot::memory_map(MemoryType::LOADER_DATA) else {
        return Failure::NoMemoryAt(kernel.0, status);
    };
    for descriptor in map.entries() {
        let begin = descriptor.phys_start;
        let by = (begin, begin + descriptor.page_count * PAGE_BYTES as u64);
        let kind = descriptor.ty;
        if kind != MemoryType::CONVENTIONAL && by.0 < kernel.1 && kernel.0 < by.1 {
            return Failure::Taken { kernel, by, kind };
        }
    }
    Failure::NoMemoryAt(kernel.0, status)
}

/// Where ACPI's root pointer is; the one of ACPI 1.0 only if there is no other.
fn root_pointer() -> Option<u64> {
    system::with_config_table(|tables| {
        let with = |guid| tables.iter().find(|table| table.guid == guid);
        let table =
            with(ConfigTableEntry::ACPI2_GUID).or_else(|| with(ConfigTableEntry::ACPI_GUID));
        table.map(|table| table.address.addr() as u64)
    })
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    println!("MielinOS does not start: {info}");
    runtime::reset(ResetType::SHUTDOWN, Status::ABORTED, None)
}
