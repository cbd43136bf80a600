//! QEMU's `virt` machine: the PL011, a GIC of either version, the generic timer, PSCI.
//!
//! Addresses of the console and of RAM are QEMU's (`docs/system/arm/virt.rst`, `hw/arm/virt.c`), because a panic wants
//! them before anything else works; the rest stands in the device tree, which QEMU puts at the beginning of RAM for a
//! program that is no Linux.

use core::arch::{asm, global_asm};
use core::fmt::Write;
use core::time::Duration;

use mielin_hal::aarch64::Supervisor;
use mielin_hal::drivers::{Conduit, GenericTimer, GicV2, GicV3, Kernel, Pl011, Psci, Registers};
use mielin_hal::paging::{PageTables, Stage1};
use mielin_hal::{
    Console, DeviceTree, HardwareCapabilities, InterruptController, Node, Outcome, Shutdown, Text,
    Timer,
};

use crate::checks;
use crate::handed::Handed;
use crate::translation::{Room, Tables};

const UART: usize = 0x0900_0000;
const UART_BYTES: usize = 0x1000;
const RAM: usize = 0x4000_0000;

/// The first cell of an interrupt in the device tree, and what is added to the second (`arm,gic.yaml` of Linux).
const SHARED: (u32, u32) = (0, 32);
const PRIVATE: (u32, u32) = (1, 16);
/// The virtual timer is the third of the timer's interrupts (`arm,arch_timer.yaml`).
const VIRTUAL_TIMER: usize = 2;

// Started at EL2, it goes down to EL1, with timers and the interface of interrupts open to it. Then floating point,
// scalable vectors and matrices are switched on, with vectors as long as the processor can (DDI 0487, CPACR_EL1, ZCR_EL1
// by its encoding). The program itself uses none of them: it is built without.
global_asm!(
    r#"
    .section .text.entry, "ax"
    .globl _start
_start:
    mrs x0, CurrentEL
    cmp x0, #8
    b.ne 1f
    mov x0, #(1 << 31)
    msr hcr_el2, x0
    mov x0, #3
    msr cnthctl_el2, x0
    msr cntvoff_el2, xzr
    mrs x0, id_aa64pfr0_el1
    ubfx x0, x0, #24, #4
    cbz x0, 3f
    mrs x0, s3_4_c12_c9_5
    orr x0, x0, #0xf
    msr s3_4_c12_c9_5, x0
    isb
3:  mov x0, #0x22ff
    msr cptr_el2, x0
    isb
    mrs x0, id_aa64pfr0_el1
    ubfx x0, x0, #32, #4
    cbz x0, 3f
    mov x0, #0xf
    msr s3_4_c1_c2_0, x0
3:  mov x0, #0x3c5
    msr spsr_el2, x0
    adr x0, 1f
    msr elr_el2, x0
    eret
1:  ldr x0, =__stack_top
    mov sp, x0
    ldr x0, =__bss_begin
    ldr x1, =__bss_end
2:  cmp x0, x1
    b.hs 3f
    str xzr, [x0], #8
    b 2b
3:  ldr x0, =vectors
    msr vbar_el1, x0
    mov x0, #0x3330000
    msr cpacr_el1, x0
    isb
    mrs x0, id_aa64pfr0_el1
    ubfx x0, x0, #32, #4
    cbz x0, 4f
    mov x0, #0xf
    msr s3_0_c1_c2_0, x0
    isb
4:  bl start
1:  wfi
    b 1b
    .pool

    .balign 0x800
vectors:
    .rept 4
    b exception_entry
    .balign 0x80
    .endr
    // From this level, with its own stack pointer: synchronous, IRQ, FIQ, SError.
    b exception_entry
    .balign 0x80
    b interrupt_entry
    .balign 0x80
    .rept 10
    b exception_entry
    .balign 0x80
    .endr

exception_entry:
    mrs x0, esr_el1
    mrs x1, elr_el1
    bl exception
    b .

interrupt_entry:
    sub sp, sp, #176
    stp x0, x1, [sp, #0]
    stp x2, x3, [sp, #16]
    stp x4, x5, [sp, #32]
    stp x6, x7, [sp, #48]
    stp x8, x9, [sp, #64]
    stp x10, x11, [sp, #80]
    stp x12, x13, [sp, #96]
    stp x14, x15, [sp, #112]
    stp x16, x17, [sp, #128]
    stp x18, x29, [sp, #144]
    str x30, [sp, #160]
    bl interrupt
    ldp x0, x1, [sp, #0]
    ldp x2, x3, [sp, #16]
    ldp x4, x5, [sp, #32]
    ldp x6, x7, [sp, #48]
    ldp x8, x9, [sp, #64]
    ldp x10, x11, [sp, #80]
    ldp x12, x13, [sp, #96]
    ldp x14, x15, [sp, #112]
    ldp x16, x17, [sp, #128]
    ldp x18, x29, [sp, #144]
    ldr x30, [sp, #160]
    add sp, sp, #176
    eret
"#
);

fn kernel() -> Kernel {
    // SAFETY: the program goes to EL1 before its first function, and there is no other.
    unsafe { Kernel::assume() }
}

/// The console, taken anew.
pub(crate) fn console() -> Pl011 {
    // SAFETY: the machine has a PL011 there, in memory that is not translated. When a panic takes it a second time, the
    // first driver is never used again.
    Pl011::new(unsafe { Registers::new(UART, UART_BYTES) })
}

/// Ends the machine. PSCI has no word for the outcome: the last line that was printed tells it.
pub(crate) fn end(outcome: Outcome) -> ! {
    let conduit = tree().map_or(Conduit::Hvc, conduit);
    Psci::new(kernel(), conduit).shut_down(outcome);
    loop {
        kernel().rest();
    }
}

/// Who answers to PSCI: a hypervisor, which QEMU plays, or firmware, which it plays if there is an EL2.
fn conduit(tree: DeviceTree<'_>) -> Conduit {
    let method = tree.find("/psci").and_then(|node| node.text("method"));
    match method {
        Some("smc") => Conduit::Smc,
        _ => Conduit::Hvc,
    }
}

fn tree() -> Option<DeviceTree<'static>> {
    let begin = core::ptr::with_exposed_provenance::<u32>(RAM);
    // SAFETY: RAM begins there and nobody writes to it before the program's own addresses. A tree's second word is its
    // length, which is not believed beyond what lies before the program.
    let bytes = unsafe {
        let len = u32::from_be(begin.add(1).read()) as usize;
        core::slice::from_raw_parts(begin.cast::<u8>(), len.min(0x20_0000))
    };
    DeviceTree::new(bytes).ok()
}

/// What the handler works with.
struct Desk {
    timer: GenericTimer,
    gic: Gic,
    console: Pl011,
    timer_line: u32,
    alarm_came_at: Option<u64>,
    /// The line of the console, and a byte that came by it.
    read: Option<(u32, u8)>,
}

/// Either version.
enum Gic {
    V2(GicV2),
    V3(GicV3),
}

impl Gic {
    fn controller(&mut self) -> &mut dyn InterruptController {
        match self {
            Self::V2(gic) => gic,
            Self::V3(gic) => gic,
        }
    }
}

static DESK: Handed<Desk> = Handed::nothing();

#[unsafe(no_mangle)]
extern "C" fn exception(syndrome: u64, at: u64) {
    panic!("exception {syndrome:#x} at {at:#x}");
}

#[unsafe(no_mangle)]
extern "C" fn interrupt() {
    // SAFETY: this is the handler.
    let known = unsafe {
        DESK.with(|desk| {
            let Some(line) = desk.gic.controller().claim() else {
                return;
            };
            if line == desk.timer_line {
                desk.alarm_came_at = Some(desk.timer.now());
                desk.timer.clear_alarm();
            } else {
                desk.read = desk.console.read_byte().map(|byte| (line, byte));
                desk.console.interrupt_when_readable(false);
            }
            desk.gic.controller().complete(line);
        })
    };
    assert!(known.is_some(), "an interrupt came unasked");
}

/// Goes on under the program's own tables, with all devices in the gigabyte before RAM.
fn translate(has: &Supervisor) {
    static ROOM: Room = Room::new();

    // SAFETY: called once.
    let tables = unsafe { Tables::new(&ROOM) };
    let root = Stage1::root(tables.fill::<Stage1>(RAM as u64 - (1 << 30), 2), 1);
    let control = Stage1::tcr(has.mmfr0).expect("a granule of 4 KiB");
    // SAFETY: all that the program uses is mapped where it is, code to be executed and the rest to be written. QEMU has no
    // caches, so that nothing old is in them when SCTLR_EL1.M, C and I switch all of that on.
    unsafe {
        asm!(
            "msr mair_el1, {attributes}",
            "msr tcr_el1, {control}",
            "msr ttbr0_el1, {root}",
            "dsb sy",
            "tlbi vmalle1",
            "dsb sy",
            "isb",
            "mrs {scratch}, sctlr_el1",
            "orr {scratch}, {scratch}, #0x1000",
            "orr {scratch}, {scratch}, #0x4",
            "orr {scratch}, {scratch}, #0x1",
            "msr sctlr_el1, {scratch}",
            "isb",
            attributes = in(reg) Stage1::MAIR,
            control = in(reg) control,
            root = in(reg) root,
            scratch = out(reg) _,
            options(nostack, preserves_flags)
        );
    }
}

/// Prints what the processor has for a kernel.
fn print_supervisor(console: &mut impl Console, has: &Supervisor) {
    let mut out = Text(console);
    let (space, physical) = (has.space_bits, has.physical_bits);
    let _ = write!(
        out,
        "supervisor: spaces of {space} bits, addresses of {physical} bits"
    );
    for (there, name) in [
        (has.gic_registers, "GIC registers"),
        (has.pan, "PAN"),
        (has.uao, "UAO"),
        (has.meltdown_safe, "CSV3"),
    ] {
        if there {
            let _ = write!(out, ", {name}");
        }
    }
    let _ = writeln!(out);
}

#[unsafe(no_mangle)]
extern "C" fn start() -> ! {
    let mut console = console();
    checks::print_machine(&mut console, &HardwareCapabilities::detect());
    let supervisor = Supervisor::detect();
    print_supervisor(&mut console, &supervisor);
    translate(&supervisor);
    let _ = writeln!(Text(&mut console), "paging: stage 1");
    let tree = tree().expect("QEMU's device tree");
    checks::print_device_tree(&mut console, tree);
    let mut timer = GenericTimer::new(kernel()).expect("QEMU writes the rate down");
    checks::clock_counts(&mut console, &mut timer);
    let mut gic = gic(tree);
    let (name, timer_line) = (name(&gic), line_of(tree, "/timer", VIRTUAL_TIMER));
    gic.controller().enable(timer_line);
    let mut desk = Desk {
        timer,
        gic,
        console,
        timer_line,
        alarm_came_at: None,
        read: None,
    };
    for _ in 0..checks::TIMES {
        let due = desk.timer.now() + desk.timer.ticks(Duration::from_millis(20));
        desk.timer.set_alarm(due);
        desk.alarm_came_at = None;
        desk = hand_over_until(desk, |desk| desk.alarm_came_at.is_some());
        let came = desk.alarm_came_at.expect("it was awaited");
        checks::alarm_came(&mut desk.console, &desk.timer, due, came);
    }
    desk.gic.controller().disable(timer_line);
    let _ = writeln!(
        Text(&mut desk.console),
        "interrupt: line {timer_line} by {name}"
    );
    checks::console_reads(&mut desk.console);
    desk = read_by_interrupt(desk, tree, name);
    let _ = writeln!(Text(&mut desk.console), "probe: passed");
    end(Outcome::Success)
}

/// A second byte, whose coming is an interrupt.
fn read_by_interrupt(mut desk: Desk, tree: DeviceTree<'_>, name: &str) -> Desk {
    let line = line_of(tree, "/pl011", 0);
    desk.gic.controller().enable(line);
    desk.console.interrupt_when_readable(true);
    let _ = writeln!(Text(&mut desk.console), "console: send m");
    let mut desk = hand_over_until(desk, |desk| desk.read.is_some());
    desk.gic.controller().disable(line);
    assert!(desk.read == Some((line, b'm')), "{:?} came", desk.read);
    let _ = writeln!(Text(&mut desk.console), "interrupt: line {line} by {name}");
    desk
}

/// Lets the handler have the desk until something has happened.
fn hand_over_until(desk: Desk, done: impl Fn(&Desk) -> bool) -> Desk {
    // SAFETY: interrupts are masked here, and whenever `rest` returns.
    unsafe {
        DESK.replace(Some(desk));
        while DESK.with(|desk| done(desk)) == Some(false) {
            kernel().rest();
        }
        DESK.replace(None).expect("it was handed over")
    }
}

fn name(gic: &Gic) -> &'static str {
    match gic {
        Gic::V2(_) => "GICv2",
        Gic::V3(_) => "GICv3",
    }
}

/// The interrupt controller that the device tree describes.
fn gic(tree: DeviceTree<'_>) -> Gic {
    let root = tree.root();
    let node = tree.find("/intc").expect("the interrupt controller");
    let mut regions = node.regions(&root).map(|(base, len)| {
        // SAFETY: the device tree says that these are registers of the controller, and this is called once.
        unsafe { Registers::new(base as usize, len as usize) }
    });
    let mut region = || regions.next().expect("two regions of registers");
    let (first, second) = (region(), region());
    let is = |node: Node<'_>, what: &str| node.texts("compatible").any(|text| text == what);
    if is(node, "arm,gic-v3") {
        let gic = GicV3::new(kernel(), first, second);
        Gic::V3(gic.expect("the redistributor of this processor"))
    } else {
        Gic::V2(GicV2::new(first, second))
    }
}

/// The line of a device's interrupt.
fn line_of(tree: DeviceTree<'_>, path: &str, index: usize) -> u32 {
    let node = tree.find(path).expect("a device of QEMU's machine");
    let interrupts = node.property("interrupts").expect("its interrupts");
    let cell = |at: usize| {
        let bytes = interrupts[4 * at..][..4].try_into().expect("four bytes");
        u32::from_be_bytes(bytes)
    };
    let (kind, number) = (cell(3 * index), cell(3 * index + 1));
    [SHARED, PRIVATE]
        .into_iter()
        .find_map(|(known, first)| (known == kind).then_some(first + number))
        .expect("shared or private")
}
