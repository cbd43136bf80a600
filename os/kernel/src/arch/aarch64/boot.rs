//! From the first instruction to the first thread.

use core::arch::global_asm;
use core::sync::atomic::Ordering;

use mielin_hal::aarch64::Supervisor;
use mielin_hal::drivers::{GicV2, GicV3};
use mielin_hal::paging::{Access, Caching, PageTables};
use mielin_hal::{DeviceTree, Node};
use mielin_kernel::{Given, Region, SPACES_MAX};

use super::{
    ASK_FIRMWARE, CPU, Gic, Mmu, NO_PROGRAM, PHYSICAL_MAP, SHARED_FIRST, TIMER_LINE, cpu, entry,
};
use crate::image::Image;
use crate::memory;
use crate::regions::Regions;
use crate::start::{Found, start};
use crate::tables::{Map, Table};

/// ELF's number for 64-bit Arm.
const ARCHITECTURE: u16 = 183;
/// How far above where it is in memory the kernel's image lies.
const OFFSET: u64 = 0xffff_ffff_0000_0000;
const GIB: u64 = 1 << 30;
/// What of physical memory the kernel sees.
const PHYSICAL_END: u64 = 512 * GIB;
/// QEMU's `virt`: devices are below.
const MEMORY_BEGIN: u64 = GIB;
/// The first cell of a private interrupt in the device tree, and what is added to the second (`arm,gic.yaml` of Linux).
const PRIVATE: (u32, u32) = (1, 16);
/// The virtual timer is the third of the timer's interrupts (`arm,arch_timer.yaml`).
const VIRTUAL_TIMER: usize = 2;

/// SCTLR_EL1: the bits that were 1 before they meant something, but for SPAN.
const CONTROL: u64 = 0x3050_0800;
/// PSTATE.PAN stays as it is when a program enters the kernel. 1 on processors without it.
const KEEP_PAN: u64 = 1 << 23;
/// The MMU, with caches.
const TRANSLATION: u64 = 1 | 1 << 2 | 1 << 12;
/// What may be written is not executed.
const WRITE_XOR_EXECUTE: u64 = 1 << 19;
/// Stack pointers are multiples of 16, in EL1 and in EL0.
const STACK_ALIGNMENT: u64 = 1 << 3 | 1 << 4;
/// Programs of 32 bits, which there are none, could not use ITD and SETEND.
const NO_OLD_INSTRUCTIONS: u64 = 1 << 7 | 1 << 8;
const FIRST_CONTROL: u64 = CONTROL | KEEP_PAN | TRANSLATION;

pub(super) static ROOT: Table = Table::empty();
static SPARE: [Table; 16] = [const { Table::empty() }; 16];
/// The table of no program.
static EMPTY: Table = Table::empty();

// SAFETY: there is one processor, and the kernel is not interrupted.
unsafe impl Sync for Table {}

// The emulator comes here without translation, in EL1 or, on a machine with virtualization, in EL2, from which it goes down to EL1, with
// timers and the interface of interrupts open to it, and without traps. The first map, which is in the image, has the first
// GiB, devices, and the second, memory, where they are and in the map of all memory, and the second also where the kernel was
// linked to. They may be written and executed, until `begin` makes the real one.
global_asm!(
    r#"
    .section .data.first, "aw"
    .balign 4096
first_root:
    .quad first_gibs - {offset} + 3
    .space 510*8
    .quad first_image - {offset} + 3
first_gibs:
    .quad 0x0060000000000705
    .quad 0x0040000040000701
    .space 510*8
first_image:
    .space 509*8
    .quad 0x0040000040000701
    .space 2*8

    .section .text, "ax"
    .globl _start
_start:
    msr daifset, #0xf
    mrs x0, CurrentEL
    cmp x0, #8
    b.ne 1f
    ldr x0, ={control}
    msr sctlr_el1, x0
    mov x0, #(1 << 31)
    msr hcr_el2, x0
    mov x0, #3
    msr cnthctl_el2, x0
    msr cntvoff_el2, xzr
    mrs x0, midr_el1
    msr vpidr_el2, x0
    mrs x0, mpidr_el1
    msr vmpidr_el2, x0
    mrs x0, id_aa64pfr0_el1
    ubfx x0, x0, #24, #4
    cbz x0, 0f
    mrs x0, s3_4_c12_c9_5
    orr x0, x0, #0xf
    msr s3_4_c12_c9_5, x0
    isb
0:  mov x0, #0x33ff
    msr cptr_el2, x0
    msr hstr_el2, xzr
    mov x0, #0x3c5
    msr spsr_el2, x0
    adr x0, 1f
    msr elr_el2, x0
    eret
1:  msr spsel, #1
    ldr x0, ={attributes}
    msr mair_el1, x0
    ldr x0, ={translation}
    msr tcr_el1, x0
    adrp x0, first_root
    msr ttbr0_el1, x0
    msr ttbr1_el1, x0
    isb
    tlbi vmalle1
    dsb nsh
    ldr x0, ={first_control}
    msr sctlr_el1, x0
    isb
    ldr x0, =2f
    br x0
2:  ldr x0, =vectors
    msr vbar_el1, x0
    ldr x0, =__stack_top
    mov sp, x0
    ldr x0, =__bss_begin
    ldr x1, =__bss_end
3:  cmp x0, x1
    b.hs 4f
    stp xzr, xzr, [x0], #16
    b 3b
4:  mov x29, xzr
    mov x30, xzr
    b {begin}

    // x0: TTBR1, x1: TTBR0, x2: TCR, x3: SCTLR. While tables of the upper half are exchanged, this runs in the lower half.
exchange_map:
    ldr x4, ={offset}
    adr x5, 1f
    sub x5, x5, x4
    br x5
1:  msr ttbr1_el1, x0
    msr tcr_el1, x2
    isb
    tlbi vmalle1
    dsb nsh
    isb
    adr x5, 2f
    add x5, x5, x4
    br x5
2:  msr ttbr0_el1, x1
    msr sctlr_el1, x3
    isb
    tlbi vmalle1
    dsb nsh
    isb
    ret
    .pool
"#,
    offset = const OFFSET,
    control = const CONTROL | KEEP_PAN,
    first_control = const FIRST_CONTROL,
    attributes = const Mmu::MAIR,
    translation = const Mmu::TCR,
    begin = sym begin,
);

unsafe extern "C" {
    fn exchange_map(kernel: u64, program: u64, translation: u64, control: u64);
}

extern "C" fn begin() -> ! {
    let image = Image::here();
    let (kernel_begin, kernel_end) = (image.begin - OFFSET, image.end - OFFSET);
    let bytes = firmware_bytes(kernel_begin);
    let Ok(tree) = DeviceTree::new(bytes) else {
        panic!("the device tree at {MEMORY_BEGIN:#x} is none");
    };
    let tree_end = MEMORY_BEGIN + bytes.len() as u64;
    let mut free = Regions::none();
    free.add_memory(tree, PHYSICAL_END);
    // What is before is devices', whatever the tree says.
    free.remove(0, MEMORY_BEGIN);
    let memory = free.as_slice();
    assert!(
        memory
            .iter()
            .any(|part| part.begin <= MEMORY_BEGIN && kernel_end <= part.end),
        "by the device tree there is no memory from {MEMORY_BEGIN:#x} to {kernel_end:#x}, where the kernel lies"
    );
    make_map(memory, &image);
    cpu::begin();
    let method = tree.find("/psci").and_then(|node| node.text("method"));
    ASK_FIRMWARE.store(method == Some("smc"), Ordering::Relaxed);

    let hz = cpu::counter_frequency();
    assert!(hz != 0, "firmware has not said how fast the clock is");
    free.remove(MEMORY_BEGIN, tree_end);
    free.remove(kernel_begin, kernel_end);
    free.remove_reserved(tree);
    free.add(0x1000, MEMORY_BEGIN, true);
    interrupts(tree, &mut free);

    let archive = crate::archive::bytes();
    start(Found {
        free,
        archive_at: archive.as_ptr().addr() as u64 - OFFSET,
        firmware: Some(Given {
            physical: MEMORY_BEGIN,
            bytes: bytes.len() as u64,
        }),
        ticks_per_second: hz,
        kernel_bytes: kernel_end - kernel_begin,
        architecture: ARCHITECTURE,
    });
    entry::leave()
}

/// Makes the map that stays.
fn make_map(memory: &[Region], image: &Image) {
    let mut map = Map::new(&ROOT, &SPARE, OFFSET);
    image.map(&mut map, OFFSET);
    let mut show = |begin: u64, end: u64, caching| {
        if begin < end {
            let bytes = end - begin;
            map.add(
                PHYSICAL_MAP + begin,
                begin,
                bytes,
                Access::ReadWrite,
                caching,
            );
        }
    };
    show(0, MEMORY_BEGIN, Caching::Device);
    // All of memory, less the kernel's code and constants.
    for part in memory {
        show(
            part.begin,
            part.end.min(image.text - OFFSET),
            Caching::WriteBack,
        );
        show(
            part.begin.max(image.data - OFFSET),
            part.end,
            Caching::WriteBack,
        );
    }

    let processor = Supervisor::detect();
    let bits = processor.space_bits;
    assert!(
        1_usize << bits >= SPACES_MAX,
        "the processor tells only {bits} bits of address spaces apart"
    );
    let translation = Mmu::tcr(processor.mmfr0);
    let translation = translation.expect("the processor works with tables of 4 KiB already");
    let physical = |table: &'static Table| (&raw const *table).addr() as u64 - OFFSET;
    let nobody = Mmu::root(physical(&EMPTY), 0);
    NO_PROGRAM.store(nobody, Ordering::Relaxed);
    let control = CONTROL | TRANSLATION | WRITE_XOR_EXECUTE | STACK_ALIGNMENT | NO_OLD_INSTRUCTIONS;
    let control = match processor.pan {
        true => control,
        false => control | KEEP_PAN,
    };
    cpu::order_writes();
    // SAFETY: the tables have the kernel where it is in the first map, and all else that it uses: its stack, devices, memory. Code and
    // constants are not written any more.
    unsafe { exchange_map(Mmu::root(physical(&ROOT), 0), nobody, translation, control) }
    if processor.pan {
        cpu::deny_programs_memory();
    }
}

/// The bytes of the device tree, which the emulator puts at the beginning of memory: its second word is their number.
fn firmware_bytes(kernel_begin: u64) -> &'static [u8] {
    let first = memory::pointer::<[u32; 2]>(MEMORY_BEGIN);
    // SAFETY: the address is in the map of all memory, and nothing but the emulator has written there.
    let [magic, len] = unsafe { first.read() }.map(u32::from_be);
    assert!(
        magic == 0xd00d_feed,
        "there is no device tree at {MEMORY_BEGIN:#x}, where memory begins: the machine is not started as by QEMU's -kernel"
    );
    assert!(
        u64::from(len) <= kernel_begin - MEMORY_BEGIN,
        "a device tree of {len} bytes is none"
    );
    // SAFETY: as above; nothing writes there, since it is taken out of what programs get.
    unsafe { core::slice::from_raw_parts(memory::pointer::<u8>(MEMORY_BEGIN), len as usize) }
}

/// Takes the interrupt controller, and its registers from what programs get. Lets the timer's line come.
fn interrupts(tree: DeviceTree<'_>, free: &mut Regions) {
    let root = tree.root();
    let Some((node, version)) = root
        .children()
        .find_map(|node| Some((node, version(node)?)))
    else {
        panic!("the device tree has no interrupt controller of version 2 or 3");
    };
    free.remove_registers(node, root);
    // Its parts: what sends and translates messages of devices.
    node.children()
        .for_each(|part| free.remove_registers(part, node));
    let mut regions = node.regions(&root);
    let (Some(first), Some(second)) = (regions.next(), regions.next()) else {
        panic!("the interrupt controller has too few registers");
    };
    let registers = |(begin, len): (u64, u64)| {
        assert!(
            begin.saturating_add(len) <= MEMORY_BEGIN,
            "registers of the interrupt controller are at {begin:#x}, behind those of all devices"
        );
        super::registers(begin, len as usize)
    };
    let (first, second) = (registers(first), registers(second));
    let gic = match version {
        Version::Two => Some(Gic::V2(GicV2::new(first, second))),
        Version::Three => GicV3::new(super::privilege(), first, second).map(Gic::V3),
    };
    let Some(mut gic) = gic else {
        panic!("the interrupt controller does not know this processor");
    };
    let Some(line) = timer_line(tree) else {
        panic!("the device tree does not say which line is the virtual timer's");
    };
    TIMER_LINE.store(line, Ordering::Relaxed);
    gic.controller().enable(line);
    CPU.gic.set(Some(gic));
}

#[derive(Clone, Copy)]
enum Version {
    Two,
    Three,
}

/// The version of the interrupt controller, if it is one.
fn version(node: Node<'_>) -> Option<Version> {
    node.texts("compatible").find_map(|name| match name {
        "arm,cortex-a15-gic" | "arm,gic-400" => Some(Version::Two),
        "arm,gic-v3" => Some(Version::Three),
        _ => None,
    })
}

/// The line of the virtual timer.
fn timer_line(tree: DeviceTree<'_>) -> Option<u32> {
    let interrupts = tree.find("/timer")?.property("interrupts")?;
    let cell = |index: usize| {
        let bytes = interrupts.get(4 * index..)?.first_chunk::<4>()?;
        Some(u32::from_be_bytes(*bytes))
    };
    let (kind, number) = (cell(3 * VIRTUAL_TIMER)?, cell(3 * VIRTUAL_TIMER + 1)?);
    let line = number.checked_add(PRIVATE.1)?;
    (kind == PRIVATE.0 && line < SHARED_FIRST).then_some(line)
}
