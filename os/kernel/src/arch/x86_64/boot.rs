//! From the loader to the first thread.

use core::arch::global_asm;

use mielin_hal::drivers::{IoApic, LocalApic, Pit, Registers};
use mielin_hal::paging::{Access, Caching, PageTables, TABLE_BYTES};
use mielin_hal::x86::Supervisor;
use mielin_kernel::Given;

use super::cpu::{self, *};
use super::entry::{self, CORE};
use super::interrupts::{FIRST_VECTOR, TIMER_VECTOR};
use super::machine::{Controllers, FIRST_MAP_END, Start};
use super::{CPU, IDENTIFIER, Identifiers, Mmu, PHYSICAL_MAP, descriptors, ports};
use crate::image::Image;
use crate::memory;
use crate::regions::Regions;
use crate::start::{Found, start};
use crate::tables::{Map, Table};

/// ELF's number for x86-64.
const ARCHITECTURE: u16 = 62;
/// How far above where it is in memory the kernel's image lies.
const OFFSET: u64 = 0xffff_ffff_8000_0000;

/// What of the space above memory is not for programs: a write there is an interrupt of any vector (SDM, volume 3A, "Message
/// Signalled Interrupts"), and the local APIC itself is within.
const INTERRUPT_MESSAGES: (u64, u64) = (0xfee0_0000, 0xfef0_0000);
const APIC_BYTES: u64 = 0x1000;

/// IA32_APIC_BASE: its registers are not in memory; it is on; where they are.
const APIC_EXTENDED: u64 = 1 << 10;
const APIC_ON: u64 = 1 << 11;
const APIC_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// EFER: SYSCALL, and pages that are not executable.
const EFER_SCE: u64 = 1 << 0;
const EFER_NXE: u64 = 1 << 11;

const PIC_MASKS: [u16; 2] = [0x21, 0xa1];
const COUNTERS: u16 = 0x40;
const COUNTERS_PORTS: u16 = 4;
const COUNTER_GATE: u16 = 0x61;

// QEMU and other loaders come here by the protocol of Xen's PVH guests, in 32-bit mode without paging, with the address of the
// start information in ebx. The first map has the first four gigabytes where they are, at the place of all
// memory, and, two of them, where the kernel was linked to; in pages of 2 MiB that may be written and executed, until `begin`
// makes the real one.
global_asm!(
    r#"
    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 8, 18
    .asciz "Xen"
    .quad _start - {offset}

    .section .bss.first_tables, "aw", @nobits
    .balign 4096
first_root:
    .skip 0x1000
first_low:
    .skip 0x1000
first_high:
    .skip 0x1000
first_pages:
    .skip 0x4000

    .section .text.entry, "ax"
    .globl _start
    .code32
_start:
    cli
    cld
    mov esi, ebx
    mov edi, offset __bss_begin - {offset}
    mov ecx, offset __bss_end - {offset}
    sub ecx, edi
    shr ecx, 2
    xor eax, eax
    rep stosd
    mov esp, offset __stack_top - {offset}

    mov edi, offset first_root - {offset}
    mov eax, offset first_low - {offset} + 3
    mov [edi], eax
    mov [edi + 256*8], eax
    mov eax, offset first_high - {offset} + 3
    mov [edi + 511*8], eax
    mov edi, offset first_low - {offset}
    mov eax, offset first_pages - {offset} + 3
    mov ecx, 4
2:  mov [edi], eax
    add eax, 0x1000
    add edi, 8
    dec ecx
    jnz 2b
    mov edi, offset first_high - {offset}
    mov eax, offset first_pages - {offset} + 3
    mov [edi + 510*8], eax
    add eax, 0x1000
    mov [edi + 511*8], eax
    mov edi, offset first_pages - {offset}
    mov eax, 0x83
    mov ecx, 2048
3:  mov [edi], eax
    add eax, 0x200000
    add edi, 8
    dec ecx
    jnz 3b

    mov eax, offset first_root - {offset}
    mov cr3, eax
    mov eax, cr4
    or eax, 0x20
    mov cr4, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, cr0
    or eax, 0x80010000
    mov cr0, eax
    lgdt [first_segments_pointer - {offset}]
    push 8
    mov eax, offset long_mode - {offset}
    push eax
    retf

    .code64
long_mode:
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov ss, eax
    movabs rax, offset high
    jmp rax
high:
    lea rsp, [rip + __stack_top]
    mov edi, esi
    call {begin}

    .section .rodata.first_segments, "a"
    .balign 8
first_segments:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
first_segments_pointer:
    .word 23
    .quad first_segments - {offset}
"#,
    offset = const OFFSET,
    begin = sym begin,
);

unsafe extern "C" {
    static __stack_top: u8;
}

extern "C" fn begin(start_at: u64) -> ! {
    let exceptions = entry::exception_entries as *const () as usize as u64;
    let interrupts = entry::interrupt_entries as *const () as usize as u64;
    // SAFETY: this is the beginning; stack and entries are the kernel's.
    unsafe {
        descriptors::install(
            (&raw const __stack_top).addr() as u64,
            exceptions,
            interrupts,
        )
    };
    for mask in PIC_MASKS {
        cpu::port(mask, 1, Some(0xff));
    }
    let processor = Supervisor::detect();
    check(&processor);

    let found = Start::at(start_at);
    let controllers = Controllers::find(found);
    let local = local_apic_address();
    let memory = found.memory();
    let devices = controllers.io_apics().map(|apic| u64::from(apic.address));
    for device in devices.chain([local]) {
        check_device(&memory, device);
    }
    let image = Image::here();
    let (image_begin, image_end) = (image.begin - OFFSET, image.end - OFFSET);
    let mut free = found.memory();
    give_devices(&mut free, &memory, &controllers, found);
    free.remove(image_begin, image_end);
    found.keep(&mut free);

    let count = tables_needed(&memory, &image, &processor);
    let spare = take_tables(&mut free, count);
    let devices = controllers.io_apics().map(|apic| u64::from(apic.address));
    make_map(memory, &image, &processor, spare, devices.chain([local]));
    prepare(&processor);
    let ticks_per_second = begin_interrupts(&processor, &controllers, local);

    let archive = crate::archive::bytes();
    let (root_begin, root_end) = found.root_pointer_pages();
    start(Found {
        free,
        archive_at: archive.as_ptr().addr() as u64 - OFFSET,
        firmware: Some(Given {
            physical: root_begin,
            bytes: root_end - root_begin,
        }),
        ticks_per_second,
        kernel_bytes: image_end - image_begin + count as u64 * TABLE_BYTES,
        architecture: ARCHITECTURE,
    });
    entry::leave()
}

/// What every processor for x86-64 of the last fifteen years has.
fn check(processor: &Supervisor) {
    let needed = [
        (processor.no_execute, "pages that are not executable (NX)"),
        (processor.syscall, "SYSCALL"),
        (processor.global_pages, "global pages (PGE)"),
        (processor.page_attributes, "page attributes (PAT)"),
    ];
    for (has, what) in needed {
        assert!(has, "the processor has no {what}");
    }
}

fn local_apic_address() -> u64 {
    // SAFETY: every x86-64 processor has the register.
    let base = unsafe { cpu::read_msr(IA32_APIC_BASE) };
    assert!(
        base & APIC_EXTENDED == 0,
        "firmware has switched the local APIC to x2APIC, which is not supported"
    );
    // SAFETY: the register was read; the APIC is where it was, and on.
    unsafe { cpu::write_msr(IA32_APIC_BASE, base | APIC_ON) };
    base & APIC_ADDRESS
}

/// # Panics
/// If the registers of a device would be in memory, or cannot be mapped.
fn check_device(memory: &Regions, at: u64) {
    let is_memory = |begin: u64| {
        let overlaps = |region: &mielin_kernel::Region| {
            begin < region.end && region.begin < begin + APIC_BYTES
        };
        memory.as_slice().iter().any(overlaps)
    };
    let is_device = at.is_multiple_of(16) && (0x10_0000..FIRST_MAP_END).contains(&at);
    assert!(
        is_device && !is_memory(page(at)),
        "no interrupt controller can be at {at:#x}"
    );
}

fn page(at: u64) -> u64 {
    at / TABLE_BYTES * TABLE_BYTES
}

/// How many tables the kernel's own map has at most.
fn tables_needed(memory: &Regions, image: &Image, processor: &Supervisor) -> usize {
    let tables_of =
        |begin: u64, end: u64, bits: u32| (((end - 1) >> bits) - (begin >> bits) + 1) as usize;
    let of_memory = |region: &mielin_kernel::Region| {
        // Of those with pages of 2 MiB, only the ends of a stretch need one where the middle has pages of 1 GiB.
        let middle = tables_of(region.begin, region.end, 30);
        let ends = if processor.huge_pages {
            middle.min(2)
        } else {
            middle
        };
        ends + 2
    };
    // The kernel's code and constants are a hole in their stretch.
    let holes = 4;
    let of_image = 2 + tables_of(image.begin, image.end, 21);
    let of_devices = 2 * (super::interrupts::CONTROLLERS_MAX + 1);
    let all: usize = memory.as_slice().iter().map(of_memory).sum();
    2 + all + holes + of_image + of_devices
}

/// Takes memory for tables, zeroed.
fn take_tables(free: &mut Regions, count: usize) -> &'static [Table] {
    let bytes = count as u64 * TABLE_BYTES;
    let regions = free.as_slice().iter().filter(|region| !region.device);
    let low = regions.filter(|region| region.begin + bytes <= region.end.min(FIRST_MAP_END));
    let Some(at) = low.map(|region| region.begin).min() else {
        panic!("there is no free memory for {count} tables");
    };
    free.remove(at, at + bytes);
    memory::clear(at, bytes);
    // SAFETY: the first map has this memory, which nobody else uses, and so will the map that is made of it.
    unsafe { core::slice::from_raw_parts(memory::pointer::<Table>(at), count) }
}

/// Makes the map that stays.
fn make_map(
    mut memory: Regions,
    image: &Image,
    processor: &Supervisor,
    tables: &'static [Table],
    devices: impl Iterator<Item = u64>,
) {
    // SAFETY: the processor has these bits, of which one says that another in tables means something, and another that SYSCALL does.
    unsafe {
        let efer = cpu::read_msr(IA32_EFER);
        cpu::write_msr(IA32_EFER, efer | EFER_NXE | EFER_SCE);
        cpu::write_msr(IA32_PAT, Mmu::PAT);
    }
    let (root, spare) = tables.split_first().expect("a map has a root");
    let mut map = Map::new(root, spare, PHYSICAL_MAP);
    if !processor.huge_pages {
        map.without_huge_pages();
    }
    image.map(&mut map, OFFSET);
    // All of memory, less the kernel's code and constants; and the interrupt controllers.
    memory.remove(image.text - OFFSET, image.data - OFFSET);
    for region in memory.as_slice() {
        let (to, bytes) = (PHYSICAL_MAP + region.begin, region.end - region.begin);
        map.add(
            to,
            region.begin,
            bytes,
            Access::ReadWrite,
            Caching::WriteBack,
        );
    }
    for device in devices {
        let at = page(device);
        map.add(
            PHYSICAL_MAP + at,
            at,
            TABLE_BYTES,
            Access::ReadWrite,
            Caching::Device,
        );
    }
    let root = (&raw const *root).addr() as u64 - PHYSICAL_MAP;
    CPU.kernel_root.set(Mmu::root(root, 0));
    cpu::set_cr3(CPU.kernel_root.get());
}

/// Switches on what protects the kernel and its programs from each other.
fn prepare(processor: &Supervisor) {
    let wanted = [
        (
            true,
            CR4_PAE | CR4_PGE | CR4_MCE | CR4_OSFXSR | CR4_OSXMMEXCPT,
        ),
        (processor.smep, CR4_SMEP),
        (processor.smap, CR4_SMAP),
        (processor.umip, CR4_UMIP),
        (processor.fsgsbase, CR4_FSGSBASE),
        (processor.pcid, CR4_PCIDE),
        (processor.xsave.is_some(), CR4_OSXSAVE),
    ];
    let cr4 = wanted
        .iter()
        .filter(|(has, _)| *has)
        .fold(0, |all, (_, bit)| all | bit);
    let call_entry = match processor.fsgsbase {
        true => entry::call_entry as *const (),
        false => entry::call_entry_without_bases as *const (),
    };
    let segments =
        u64::from(descriptors::BEFORE_PROGRAM) << 48 | u64::from(descriptors::KERNEL_CODE) << 32;
    // SAFETY: paging and protection stay on, CR3 has identifier 0, and the processor has what is switched on; SYSCALL leads to
    // an entry, with all that a program could have set of the flags cleared, and SYSENTER to none.
    unsafe {
        cpu::set_cr4(cr4);
        let others = cpu::cr0() & !(CR0_EM | CR0_TS);
        cpu::set_cr0(others | CR0_MP | CR0_NE | CR0_WP);
        cpu::write_msr(IA32_STAR, segments);
        cpu::write_msr(IA32_LSTAR, call_entry as usize as u64);
        cpu::write_msr(IA32_FMASK, entry::CLEARED_FLAGS.into());
        cpu::write_msr(IA32_SYSENTER_CS, 0);
    }
    CORE.has_bases.set(processor.fsgsbase.into());
    CPU.root_mask.set(if processor.pcid {
        u64::MAX
    } else {
        !IDENTIFIER
    });
    CPU.root_added.set(if processor.pcid {
        Mmu::KEEP_TRANSLATIONS
    } else {
        0
    });
    CPU.identifiers
        .set(match (processor.pcid, processor.invpcid) {
            (false, _) => Identifiers::None,
            (true, false) => Identifiers::Own,
            (true, true) => Identifiers::Any,
        });
    CPU.unit.begin(processor);
}

/// Takes the interrupt controllers, and measures the clock. Gives its ticks in a second.
fn begin_interrupts(processor: &Supervisor, controllers: &Controllers, local: u64) -> u64 {
    // SAFETY: these are the ports of the 8254 and of the gate of its third counter on every PC.
    let mut pit = unsafe { Pit::new(ports(COUNTERS, COUNTERS_PORTS), ports(COUNTER_GATE, 1)) };
    let mut apic = LocalApic::new(super::kernel(), registers(local), TIMER_VECTOR, &mut pit);
    if processor.tsc_deadline {
        apic.take_times();
    }
    let ticks_per_second = mielin_hal::Timer::frequency_hz(&apic);
    assert!(ticks_per_second != 0, "the clock stands still");
    let id = apic.id();
    CPU.interrupts.take_local(apic);
    for at in controllers.io_apics() {
        let first = u64::from(FIRST_VECTOR) + u64::from(at.first_line);
        let Some(first) = u8::try_from(first)
            .ok()
            .filter(|first| *first < TIMER_VECTOR)
        else {
            continue;
        };
        let apic = IoApic::new(registers(at.address.into()), first, id);
        let form = |line| controllers.form(line);
        CPU.interrupts.take(apic, at.first_line, form);
    }
    ticks_per_second
}

/// An interrupt controller's registers.
fn registers(at: u64) -> Registers {
    let bytes = (APIC_BYTES - at % APIC_BYTES) as usize;
    // SAFETY: firmware says, or the processor, that they are there; they are not memory, the map has their page, and each is
    // taken once.
    unsafe { Registers::new((PHYSICAL_MAP + at) as usize, bytes) }
}

/// What is between memory and 4 GiB is registers of devices, PCI's configuration among them, and what firmware keeps for itself
/// at the end of memory, such as ACPI's tables, which are given where they are within memory, too. What is above 4 GiB and no
/// memory is left out.
fn give_devices(free: &mut Regions, memory: &Regions, controllers: &Controllers, found: Start) {
    let low = memory
        .as_slice()
        .iter()
        .filter(|region| region.end <= FIRST_MAP_END);
    let begin = low.map(|region| region.end).max().unwrap_or(FIRST_MAP_END);
    free.add(begin, FIRST_MAP_END, true);
    found.add_tables(free, begin);
    free.remove(INTERRUPT_MESSAGES.0, INTERRUPT_MESSAGES.1);
    for apic in controllers.io_apics() {
        let at = u64::from(apic.address);
        free.remove(at, at + 1);
    }
}
