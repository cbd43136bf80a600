//! What programs of x86-64 can write into each other's registers, and what the kernel makes of it.
#![allow(unsafe_code)]

use core::arch::asm;

use mielin_kernel::registers;
use mielin_user::abi::FAULT_LABEL;
use mielin_user::objects::{Endpoint, Message, give_way};
use mielin_user::{Cap, FaultKind, ThreadSlot};

use crate::Test;
use crate::processor::store;
use crate::room::{BELOW, Failure, Outcome, Place, Room, Worker, ensure, same};

pub(crate) const TESTS: &[Test] = &[
    ("pc::program_counters_that_cannot_be", program_counters),
    ("pc::flags_of_the_kernel", flags),
    ("pc::single_steps", single_steps),
    ("pc::segments_of_each_thread", segments),
    ("pc::segments_that_cannot_be", segments_that_cannot_be),
    ("pc::new_threads_have_new_floats", new_floats),
    ("pc::tables_of_firmware", tables_of_firmware),
];

const FLAGS: usize = 17;
const FS: usize = 18;
const GS: usize = 19;
/// Where those go on who cannot go on where they are told: no page is ever there.
const NOWHERE: u64 = (1 << 47) - 1;

/// Tells what it has read, again and again.
macro_rules! teller {
    ($name:ident, $read:expr) => {
        extern "C" fn $name(_: u64, _: u64) -> ! {
            loop {
                let words: [u64; 3] = $read;
                let _ = Endpoint(Cap(1)).send(&Message::new(1, words));
            }
        }
    };
}

teller!(tell_flags, {
    let flags: u64;
    // SAFETY: only the flags are read.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags) };
    [flags, 0, 0]
});

teller!(tell_segments, {
    give_way();
    let (fs, gs): (u64, u64);
    // SAFETY: what the test has put there, or nothing: then the thread faults.
    unsafe { asm!("mov {}, fs:[0]", "mov {}, gs:[0]", out(reg) fs, out(reg) gs, options(nostack)) };
    [fs, gs, 0]
});

teller!(tell_floats, {
    let (mut control, mut status, mut all) = (0_u16, [0_u32; 2], [0_u64; 12]);
    let out = all.as_mut_ptr();
    // SAFETY: the memory is the function's; the registers are not the compiler's. All of them are changed behind that.
    unsafe {
        asm!(
            "fnstcw word ptr [{control}]",
            "stmxcsr dword ptr [{status}]",
            "movups [{out}], xmm0", "movups [{out} + 16], xmm1", "movups [{out} + 32], xmm7",
            "movups [{out} + 48], xmm8", "movups [{out} + 64], xmm14", "movups [{out} + 80], xmm15",
            "pcmpeqd xmm0, xmm0", "movaps xmm1, xmm0", "movaps xmm7, xmm0",
            "movaps xmm8, xmm0", "movaps xmm14, xmm0", "movaps xmm15, xmm0",
            "mov dword ptr [{status} + 4], 0x9fc0",
            "ldmxcsr dword ptr [{status} + 4]",
            "fldz",
            out = in(reg) out,
            control = in(reg) &raw mut control,
            status = in(reg) status.as_mut_ptr(),
            options(nostack),
        );
    }
    let any = all.iter().fold(0, |any, word| any | word);
    [control.into(), status[0].into(), any]
});

/// A thread that tells, and whoever hears it, and of its faults.
struct Told {
    worker: Worker,
    endpoint: Endpoint,
}

impl Told {
    fn new(room: &mut Room, entry: mielin_user::threads::Entry) -> Result<Self, Failure> {
        let endpoint = room.endpoint()?;
        let worker = room.worker(Place::Here, entry, 0, BELOW, &[endpoint.0])?;
        room.watch(worker.thread, ThreadSlot::FaultEndpoint, endpoint, 1)?;
        Ok(Self { worker, endpoint })
    }

    fn set(&self, register: usize, value: u64) -> Result<(), Failure> {
        Ok(self.worker.thread.write_register(register, value)?)
    }

    /// What it tells: the words, or those of its fault.
    fn next(&self, room: &Room) -> Result<Result<[u64; 4], [u64; 4]>, Failure> {
        let got = self.endpoint.receive_until(None, room.soon(1000))?;
        Ok(match got.info.label() {
            FAULT_LABEL => Err(got.words),
            _ => Ok(got.words),
        })
    }
}

/// Each is given to a thread that has never run, and to one in a system call.
fn program_counters(room: &mut Room) -> Outcome {
    for at in [1 << 47, NOWHERE, 0xffff_8000_0000_0000, 1 << 63, u64::MAX] {
        for waits in [false, true] {
            let told = Told::new(room, tell_flags)?;
            if waits {
                told.worker.start()?;
                room.settle()?;
                told.set(registers::PROGRAM_COUNTER, at)?;
                same!(told.next(room)?.is_ok(), true);
            } else {
                told.set(registers::PROGRAM_COUNTER, at)?;
                told.worker.start()?;
            }
            let fault = told.next(room)?;
            let nowhere = [FaultKind::Page as u64, at, NOWHERE, 2];
            let Err([kind, _, address, access]) = fault else {
                return Err(Failure::new(format_args!("{at:#x}: {fault:?}")));
            };
            same!([kind, at, address, access], nowhere, "{at:#x}, {waits}");
        }
    }
    Ok(())
}

fn flags(room: &mut Room) -> Outcome {
    const STEP: u64 = 1 << 8;
    const ALWAYS: u64 = 1 << 1 | 1 << 9;
    const KERNELS: u64 = 0b111 << 12 | 1 << 17 | 0b11 << 19;
    for value in [u64::MAX & !STEP, 0, 0x3000, 0x4000, 1 << 18, 1 << 17] {
        for waits in [false, true] {
            let told = Told::new(room, tell_flags)?;
            if !waits {
                told.set(FLAGS, value)?;
            }
            told.worker.start()?;
            if waits {
                room.settle()?;
                told.set(FLAGS, value)?;
                same!(told.next(room)?.is_ok(), true);
            }
            let Ok([flags, ..]) = told.next(room)? else {
                return Err(Failure::new(format_args!("{value:#x}: a fault")));
            };
            same!(flags & (ALWAYS | KERNELS), ALWAYS, "{value:#x}, {waits}");
        }
    }
    Ok(())
}

fn single_steps(room: &mut Room) -> Outcome {
    let told = Told::new(room, tell_flags)?;
    told.set(FLAGS, 1 << 8)?;
    told.worker.start()?;
    let fault = told.next(room)?;
    ensure!(
        matches!(fault, Err([kind, ..]) if kind == FaultKind::Breakpoint as u64),
        "{fault:?}"
    );
    Ok(())
}

fn segments(room: &mut Room) -> Outcome {
    let (_, at) = room.page()?;
    for word in 0..4 {
        store(at + 8 * word, 100 + word);
    }
    let threads = [
        Told::new(room, tell_segments)?,
        Told::new(room, tell_segments)?,
    ];
    for (told, base) in threads.iter().zip([at, at + 16]) {
        told.set(FS, base)?;
        told.set(GS, base + 8)?;
        told.worker.start()?;
    }
    for _ in 0..10 {
        for (told, word) in threads.iter().zip([100, 102]) {
            same!(
                told.next(room)?.map(|words| [words[0], words[1]]),
                Ok([word, word + 1])
            );
        }
    }
    // Another base, while it waits.
    room.settle()?;
    threads[0].set(FS, at + 24)?;
    same!(threads[0].next(room)?.map(|words| words[0]), Ok(100));
    same!(threads[0].next(room)?.map(|words| words[0]), Ok(103));
    Ok(())
}

fn segments_that_cannot_be(room: &mut Room) -> Outcome {
    for base in [1 << 47, 1 << 63, u64::MAX >> 1] {
        for register in [FS, GS] {
            let (_, at) = room.page()?;
            let told = Told::new(room, tell_segments)?;
            told.set(FS, at)?;
            told.set(GS, at)?;
            told.set(register, base)?;
            told.worker.start()?;
            let fault = told.next(room)?;
            // A processor refuses the base, and it is 0; QEMU takes it, and refuses each use.
            let refused = match fault {
                Err([kind, _, 0, 0]) => kind == FaultKind::Page as u64,
                Err([kind, ..]) => kind == FaultKind::Instruction as u64,
                Ok(_) => false,
            };
            ensure!(refused, "{base:#x}: {fault:?}");
        }
    }
    Ok(())
}

fn new_floats(room: &mut Room) -> Outcome {
    let control = room.information.scheduling();
    let fresh = Ok([0x37f, 0x1f80, 0, 0]);
    let first = Told::new(room, tell_floats)?;
    first.worker.thread.set_priority(BELOW, control, true)?;
    first.worker.start()?;
    same!(first.next(room)?, fresh);
    let changed = first.next(room)?;
    same!(changed, Ok([0x37f, 0x9fc0, u64::MAX, 0]));
    // Nothing of it is there for another one, nor lost to the first.
    let second = Told::new(room, tell_floats)?;
    second.worker.thread.set_priority(BELOW, control, true)?;
    second.worker.start()?;
    same!(second.next(room)?, fresh);
    same!(first.next(room)?, changed);
    same!(second.next(room)?, changed);
    // Who does not use them any more cannot reach them.
    room.settle()?;
    first.worker.thread.set_priority(BELOW, control, false)?;
    same!(first.next(room)?, changed);
    let fault = first.next(room)?;
    ensure!(
        matches!(fault, Err([kind, ..]) if kind == FaultKind::Instruction as u64),
        "{fault:?}"
    );
    Ok(())
}

/// What firmware says leads to ACPI's tables, which whoever has that can map.
fn tables_of_firmware(room: &mut Room) -> Outcome {
    let firmware = room.information.firmware();
    let mut roots = firmware.windows(36).step_by(4);
    let Some(root) = roots.find(|bytes| bytes.starts_with(b"RSD PTR ")) else {
        return Err(Failure::new(format_args!("no root pointer")));
    };
    let long = |at: usize| {
        (at..at + 8)
            .rev()
            .fold(0, |all, at| all << 8 | u64::from(root[at]))
    };
    // Since ACPI 2.0 there is a table of 64-bit addresses.
    let tables = if root[15] >= 2 {
        long(24)
    } else {
        long(16) & 0xffff_ffff
    };
    let mut devices = room.information.untypeds().filter(|untyped| untyped.device);
    let has_them = |base: u64, bits: u8| (base..base + (1 << bits)).contains(&tables);
    ensure!(
        devices.any(|untyped| has_them(untyped.base, untyped.bits)),
        "nobody has {tables:#x}"
    );
    Ok(())
}
