//! From firmware to the first thread.

use core::arch::global_asm;
use core::sync::atomic::Ordering;

use mielin_hal::drivers::Plic;
use mielin_hal::paging::{Access, Caching, PageTables};
use mielin_hal::{CpuFeature, DeviceTree, HardwareCapabilities, Node};
use mielin_kernel::{Given, SPACES_MAX};

use super::{CPU, KERNEL_SATP, Mmu, OWN_ALARM, PHYSICAL_MAP, cpu, entry};
use crate::image::Image;
use crate::memory;
use crate::regions::Regions;
use crate::start::{Found, start};
use crate::tables::{Map, Table};

/// ELF's number for RISC-V.
const ARCHITECTURE: u16 = 243;
/// How far above where it is in memory the kernel's image lies.
const OFFSET: u64 = 0xffff_ffff_0000_0000;
const GIB: u64 = 1 << 30;
/// What of physical memory the kernel sees.
const PHYSICAL_END: u64 = 64 * GIB;
/// QEMU's `virt`: devices are below.
const MEMORY_BEGIN: u64 = 0x8000_0000;
/// The platform's timer and software interrupts, which are firmware's.
const CLINT: (u64, u64) = (0x200_0000, 0x201_0000);
const PLIC_BYTES: u64 = 0x60_0000;

pub(super) static ROOT: Table = Table::empty();
static SPARE: [Table; 6] = [const { Table::empty() }; 6];

// SAFETY: there is one processor, and the kernel is not interrupted.
unsafe impl Sync for Table {}

// Firmware comes here with the number of the processor in a0 and the device tree in a1 (`docs/firmware/fw.md` of OpenSBI), without
// translation. The first map has the kernel where it is, where it was linked to, and all of memory; in pages of 1 GiB
// that may be written and executed, until `begin` makes the real one.
global_asm!(
    r#"
    .section .text.entry, "ax"
    .globl _start
_start:
    csrw sie, zero
    la sp, __stack_top
    la t0, __bss_begin
    la t1, __bss_end
1:  bgeu t0, t1, 2f
    sd zero, 0(t0)
    addi t0, t0, 8
    j 1b
2:  la t0, {root}
    li t1, 0x200000cf
    sd t1, 2*8(t0)
    li t2, 510*8
    add t2, t2, t0
    sd t1, 0(t2)
    li t2, 256*8
    add t2, t2, t0
    li t1, 0xcf
    li t3, 64
    li t4, 0x10000000
3:  sd t1, 0(t2)
    add t1, t1, t4
    addi t2, t2, 8
    addi t3, t3, -1
    bnez t3, 3b
    srli t0, t0, 12
    li t1, 8
    slli t1, t1, 60
    or t0, t0, t1
    sfence.vma
    csrw satp, t0
    sfence.vma
    li t0, {offset}
    la t1, 4f
    add t1, t1, t0
    add sp, sp, t0
    jr t1
4:  la t0, trap_entry
    csrw stvec, t0
    csrw sscratch, zero
    li t0, 0xc6722
    csrc sstatus, t0
    li t0, 2
    csrw scounteren, t0
    call {begin}
"#,
    root = sym FIRST_ROOT,
    begin = sym begin,
    offset = const OFFSET,
);

/// The root of the first map.
static FIRST_ROOT: Table = Table::empty();

extern "C" fn begin(processor: u64, tree_at: u64) -> ! {
    let image = Image::here();
    make_map(&image);
    let bytes = firmware_bytes(tree_at);
    let Ok(tree) = DeviceTree::new(bytes) else {
        panic!("firmware has passed no device tree at {tree_at:#x}");
    };
    let isa = tree.processors().next().and_then(Node::isa);
    let machine = isa.map(|isa| HardwareCapabilities::of_this_processor(&isa));
    let has = |feature| machine.as_ref().is_some_and(|machine| machine.has(feature));
    OWN_ALARM.store(has(CpuFeature::Sstc), Ordering::Relaxed);

    let hz = tree
        .find("/cpus")
        .and_then(|cpus| cpus.number("timebase-frequency"));
    let Some(hz) = hz.filter(|hz| *hz != 0) else {
        panic!("the device tree does not say how fast the clock is");
    };
    let tree_end = tree_at + bytes.len() as u64;
    let mut free = Regions::none();
    free.add_memory(tree, PHYSICAL_END);
    // What is before the kernel is firmware's.
    free.remove(MEMORY_BEGIN, image.end - OFFSET);
    free.remove(tree_at, tree_end);
    free.remove_reserved(tree);
    let plic = interrupts(tree, processor);
    free.add(0x1000, MEMORY_BEGIN, true);
    free.remove(CLINT.0, CLINT.1);
    free.remove(plic, plic + PLIC_BYTES);

    let archive = crate::archive::bytes();
    start(Found {
        free,
        archive_at: archive.as_ptr().addr() as u64 - OFFSET,
        firmware: Some(Given {
            physical: tree_at / 4096 * 4096,
            bytes: tree_end - tree_at / 4096 * 4096,
        }),
        ticks_per_second: hz.into(),
        kernel_bytes: image.end - image.begin,
        architecture: ARCHITECTURE,
    });
    entry::leave()
}

/// Makes the map that stays.
fn make_map(image: &Image) {
    let mut map = Map::new(&ROOT, &SPARE, OFFSET);
    image.map(&mut map, OFFSET);
    // All of memory, less the kernel's code and constants.
    let mut show = |begin: u64, end: u64| {
        let access = Access::ReadWrite;
        map.add(
            PHYSICAL_MAP + begin,
            begin,
            end - begin,
            access,
            Caching::WriteBack,
        );
    };
    show(0, image.text - OFFSET);
    show(image.data - OFFSET, PHYSICAL_END);
    let value = Mmu::root((&raw const ROOT).addr() as u64 - OFFSET, 0);
    KERNEL_SATP.store(value, Ordering::Relaxed);
    cpu::set_satp(value);
    cpu::flush_all();
    // Identifiers that the processor does not have read as zero.
    let all = Mmu::root((&raw const ROOT).addr() as u64 - OFFSET, u16::MAX);
    cpu::set_satp(all);
    let bits = (cpu::satp() >> 44 & 0xffff).count_ones();
    cpu::set_satp(value);
    cpu::flush_all();
    assert!(
        1 << bits >= SPACES_MAX,
        "the processor tells only {bits} bits of address spaces apart"
    );
}

/// The bytes of the device tree: its second word is their number.
fn firmware_bytes(at: u64) -> &'static [u8] {
    assert!(
        at.is_multiple_of(4) && at < PHYSICAL_END,
        "there is no device tree at {at:#x}"
    );
    // SAFETY: the address is in the map of all memory, and firmware leaves the tree alone.
    let len = u32::from_be(unsafe { memory::pointer::<u32>(at + 4).read() });
    assert!(len < 16 << 20, "a device tree of {len} bytes is none");
    // SAFETY: as above; nothing writes there, since it is taken out of what programs get.
    unsafe { core::slice::from_raw_parts(memory::pointer::<u8>(at), len as usize) }
}

/// Takes the interrupt controller. Gives its address.
fn interrupts(tree: DeviceTree<'_>, processor: u64) -> u64 {
    let soc = tree.find("/soc");
    let found = soc.as_ref().and_then(|soc| {
        let node = soc
            .children()
            .find(|node| node.texts("compatible").any(|name| name.contains("plic")))?;
        let (at, len) = node.regions(soc).next()?;
        Some((at, len, node.number("riscv,ndev")?))
    });
    let Some((at, len, sources)) = found else {
        panic!("the device tree has no PLIC");
    };
    // Two contexts for each processor: machine mode, and this one.
    let context = 2 * processor as usize + 1;
    let plic = Plic::new(super::registers(at, len as usize), context, sources);
    CPU.plic.set(Some(plic));
    at
}
