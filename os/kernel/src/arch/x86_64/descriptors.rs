//! Segments, the task state with the stacks, and the gates of exceptions and interrupts.
//!
//! Source: Intel SDM, volume 3A, "Protected-Mode Memory Management", "Task Management" and "Interrupt and Exception Handling", each for
//! 64-bit mode.

use core::arch::asm;
use core::cell::UnsafeCell;

use super::interrupts::FIRST_VECTOR;

/// What SYSCALL loads, and the gates.
pub(super) const KERNEL_CODE: u16 = 0x08;
/// SYSRET takes the two descriptors behind this one: data, and code.
pub(super) const BEFORE_PROGRAM: u16 = 0x10;
pub(super) const PROGRAM_DATA: u16 = 0x18 | 3;
pub(super) const PROGRAM_CODE: u16 = 0x20 | 3;
const TASK: u16 = 0x28;

/// Vectors that come on stacks of their own, whatever the stack pointer is: those that nothing holds back, and those for
/// which the stack itself can be the reason.
const OWN_STACKS: [u8; 4] = [1, 2, 8, 18];
/// The entry keeps little there.
const OWN_STACK_BYTES: usize = 512;

/// Entries lie so many bytes apart.
const EXCEPTION_ENTRY_BYTES: u64 = 16;
const INTERRUPT_ENTRY_BYTES: u64 = 8;

#[repr(C, align(16))]
struct Stacks([[u8; OWN_STACK_BYTES]; OWN_STACKS.len()]);

/// The task-state segment. Its fields of 64 bits begin at 4.
#[repr(C, align(16))]
struct Task {
    words: [u32; 26],
}

struct Tables {
    segments: [u64; 7],
    task: Task,
    gates: [u128; 256],
    stacks: Stacks,
}

struct Place(UnsafeCell<Tables>);

// SAFETY: it is written once, by `install`, and then only the processor uses it.
unsafe impl Sync for Place {}

static TABLES: Place = Place(UnsafeCell::new(Tables {
    segments: [
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00cf_f300_0000_ffff,
        0x00af_fb00_0000_ffff,
        0,
        0,
    ],
    task: Task { words: [0; 26] },
    gates: [0; 256],
    stacks: Stacks([[0; OWN_STACK_BYTES]; OWN_STACKS.len()]),
}));

/// Where a table is, as LGDT and LIDT want it.
#[repr(C, packed)]
struct TablePointer {
    limit: u16,
    base: u64,
}

/// The one vector that programs may have come by an instruction: INT3's.
const BREAKPOINT: u64 = 3;

/// A gate to kernel code, with interrupts off behind it, on one of the task's stacks (0: on that of the task). Programs go through
/// it by INT only if it is `open`.
const fn gate(entry: u64, stack: u8, open: bool) -> u128 {
    let entry = entry as u128;
    let kind = if open { 0xee00 } else { 0x8e00 };
    let low = entry & 0xffff | (KERNEL_CODE as u128) << 16 | (stack as u128) << 32;
    let low = low | kind << 32 | (entry >> 16 & 0xffff) << 48;
    low | (entry >> 32) << 64
}

/// Has the processor use them: `stack_top` when a program is left, and the entries of all exceptions and of all interrupts.
///
/// # Safety
/// Called once. The entries are there, and the stack is the kernel's.
pub(super) unsafe fn install(stack_top: u64, exceptions: u64, interrupts: u64) {
    let tables = TABLES.0.get();
    // SAFETY: by the caller's promise nobody else has a reference.
    let tables = unsafe { &mut *tables };
    let mut set = |at: usize, value: u64| {
        tables.task.words[at] = value as u32;
        tables.task.words[at + 1] = (value >> 32) as u32;
    };
    set(1, stack_top);
    for (index, stack) in tables.stacks.0.iter().enumerate() {
        set(9 + 2 * index, stack.as_ptr_range().end.addr() as u64);
    }
    // No bitmap of ports: it would begin behind the segment's end.
    let task_bytes = size_of::<Task>() as u64;
    tables.task.words[25] = (task_bytes as u32) << 16;
    let task = (&raw const tables.task).addr() as u64;
    tables.segments[5] =
        task_bytes - 1 | (task & 0xff_ffff) << 16 | 0x89 << 40 | (task >> 24 & 0xff) << 56;
    tables.segments[6] = task >> 32;
    let first = u64::from(FIRST_VECTOR);
    for (vector, place) in (0..).zip(&mut tables.gates) {
        let mut own = OWN_STACKS.iter();
        let own = own.position(|own| u64::from(*own) == vector);
        let stack = own.map_or(0, |index| index as u8 + 1);
        let entry = match vector.checked_sub(first) {
            None => exceptions + vector * EXCEPTION_ENTRY_BYTES,
            Some(interrupt) => interrupts + interrupt * INTERRUPT_ENTRY_BYTES,
        };
        *place = gate(entry, stack, vector == BREAKPOINT);
    }
    let segments = TablePointer {
        limit: (size_of_val(&tables.segments) - 1) as u16,
        base: (&raw const tables.segments).addr() as u64,
    };
    let gates = TablePointer {
        limit: (size_of_val(&tables.gates) - 1) as u16,
        base: (&raw const tables.gates).addr() as u64,
    };
    // SAFETY: the tables live as long as the kernel. Code and data are in the first two descriptors, as in the table
    // before, whose copies the segment registers keep.
    unsafe {
        asm!(
            "lgdt [{segments}]",
            "lidt [{gates}]",
            "ltr {task:x}",
            segments = in(reg) &raw const segments,
            gates = in(reg) &raw const gates,
            task = in(reg) TASK,
            options(nostack, preserves_flags),
        );
    }
}
