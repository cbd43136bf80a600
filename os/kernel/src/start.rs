//! How the first thread comes to run, when the port has found out what there is.

use mielin_kernel::archive::Archive;
use mielin_kernel::{Boot, Given, Kernel, LINES_MAX, Machine, Region, Slot};

use crate::archive;
use crate::port::{self, Port};
use crate::regions::Regions;

/// What a port has found out.
pub(crate) struct Found {
    /// Memory and devices that nobody uses.
    pub(crate) free: Regions,
    /// Where the archive is in physical memory.
    pub(crate) archive_at: u64,
    /// What firmware says of the machine.
    pub(crate) firmware: Option<Given>,
    /// Of the clock.
    pub(crate) ticks_per_second: u64,
    /// What the kernel itself uses, from the beginning of its image to its end.
    pub(crate) kernel_bytes: u64,
    /// ELF's number of the architecture.
    pub(crate) architecture: u16,
}

/// What of the largest free stretch is for the first thread's objects: more than any first program has.
const POOL_BYTES: u64 = 64 << 20;

/// Makes the kernel and its first thread.
///
/// # Panics
/// If there is too little memory, or the archive has no program for this machine: nothing can run then.
pub(crate) fn start(mut found: Found) -> &'static Kernel<Port> {
    let Some(largest) = found.free.take_largest() else {
        panic!("there is no free memory");
    };
    // The slots of interrupt lines come first.
    let lines_bytes = u64::from(LINES_MAX) * size_of::<Slot>() as u64;
    let lines = mielin_kernel::Ref::<Slot>::at(largest.begin);
    let lines = lines.expect("free memory is not at address zero, and low");
    for line in 0..LINES_MAX {
        if let Some(slot) = mielin_kernel::Ref::at(largest.begin + u64::from(line) * 32) {
            Port.place::<Slot>(slot);
        }
    }
    let begin = largest.begin + lines_bytes;
    let split = largest.end.min(begin + POOL_BYTES);
    found.free.add(split, largest.end, false);
    // SAFETY: a port calls this function once.
    let kernel = unsafe { port::begin(Kernel::new(Port, lines)) };
    let bytes = archive::bytes();
    let archive = Archive::new(bytes).expect("the archive was made by the build");
    let (name, executable) = archive.files().next().expect("the archive has a program");
    let boot = Boot {
        pool: Region {
            begin,
            end: split,
            device: false,
        },
        regions: found.free.as_slice(),
        executable,
        archive: Given {
            physical: found.archive_at,
            bytes: bytes.len() as u64,
        },
        firmware: found.firmware,
        ticks_per_second: found.ticks_per_second,
        kernel_bytes: found.kernel_bytes + lines_bytes,
        architecture: found.architecture,
    };
    if let Err(error) = boot.start(kernel) {
        panic!("{name}, the first program, does not start: {error:?}");
    }
    kernel
}
