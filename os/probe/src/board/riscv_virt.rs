//! QEMU's `virt` machine with OpenSBI: the 16550, the PLIC, the timer of a supervisor, the test finisher.
//!
//! Addresses of the console and the finisher are QEMU's (`docs/system/riscv/virt.rst`, `hw/riscv/virt.c`), because a
//! panic wants them before anything else works; the rest stands in the device tree.

use core::arch::{asm, global_asm};
use core::fmt::Write;
use core::time::Duration;

use mielin_hal::drivers::{
    Alarm, Kernel, Ns16550, Plic, Registers, Sbi, SifiveTest, SupervisorTimer,
};
use mielin_hal::paging::{PageTables, Sv39, Sv48};
use mielin_hal::{
    CpuFeature, DeviceTree, HardwareCapabilities, InterruptController, Node, Outcome, Shutdown,
    Text, Timer,
};

use crate::checks;
use crate::handed::Handed;
use crate::translation::{Room, Tables};

const UART: usize = 0x1000_0000;
const UART_BYTES: usize = 0x100;
const FINISHER: usize = 0x10_0000;
const FINISHER_BYTES: usize = 0x1000;

/// `scause` of the two interrupts (privileged architecture, "Supervisor Cause Register").
const SUPERVISOR_TIMER: usize = 1 << 63 | 5;
const SUPERVISOR_EXTERNAL: usize = 1 << 63 | 9;

// Firmware comes here with the number of the processor in a0 and the device tree in a1 (`docs/firmware/fw.md` of
// OpenSBI). Handlers keep integer registers only: none of what they call uses others.
global_asm!(
    r#"
    .section .text.entry, "ax"
    .globl _start
_start:
    .option push
    .option norelax
    la gp, __global_pointer$
    .option pop
    la sp, __stack_top
    la t0, __bss_begin
    la t1, __bss_end
1:  bgeu t0, t1, 2f
    sd zero, 0(t0)
    addi t0, t0, 8
    j 1b
2:  la t0, trap_entry
    csrw stvec, t0
    csrw sie, zero
    li t0, 0x6600
    csrs sstatus, t0
    call start
1:  wfi
    j 1b

    .balign 4
trap_entry:
    addi sp, sp, -128
    sd ra, 0(sp)
    sd t0, 8(sp)
    sd t1, 16(sp)
    sd t2, 24(sp)
    sd t3, 32(sp)
    sd t4, 40(sp)
    sd t5, 48(sp)
    sd t6, 56(sp)
    sd a0, 64(sp)
    sd a1, 72(sp)
    sd a2, 80(sp)
    sd a3, 88(sp)
    sd a4, 96(sp)
    sd a5, 104(sp)
    sd a6, 112(sp)
    sd a7, 120(sp)
    csrr a0, scause
    csrr a1, sepc
    call trap
    ld ra, 0(sp)
    ld t0, 8(sp)
    ld t1, 16(sp)
    ld t2, 24(sp)
    ld t3, 32(sp)
    ld t4, 40(sp)
    ld t5, 48(sp)
    ld t6, 56(sp)
    ld a0, 64(sp)
    ld a1, 72(sp)
    ld a2, 80(sp)
    ld a3, 88(sp)
    ld a4, 96(sp)
    ld a5, 104(sp)
    ld a6, 112(sp)
    ld a7, 120(sp)
    addi sp, sp, 128
    sret
"#
);

fn kernel() -> Kernel {
    // SAFETY: OpenSBI starts this program in supervisor mode, and there is no other.
    unsafe { Kernel::assume() }
}

/// The console, taken anew.
pub(crate) fn console() -> Ns16550<Registers> {
    // SAFETY: the machine has a 16550 there, in memory that is not translated. When a panic takes it a second time, the
    // first driver is never used again.
    Ns16550::new(unsafe { Registers::new(UART, UART_BYTES) })
}

/// Ends the machine by the finisher, which tells QEMU the outcome; by the firmware if that fails.
pub(crate) fn end(outcome: Outcome) -> ! {
    // SAFETY: the machine has the finisher there.
    SifiveTest::new(unsafe { Registers::new(FINISHER, FINISHER_BYTES) }).shut_down(outcome);
    halt()
}

fn halt() -> ! {
    loop {
        kernel().rest();
    }
}

/// What the handler works with.
struct Desk {
    timer: SupervisorTimer,
    plic: Plic,
    console: Ns16550<Registers>,
    alarm_came_at: Option<u64>,
    line_served: Option<u32>,
}

static DESK: Handed<Desk> = Handed::nothing();

#[unsafe(no_mangle)]
extern "C" fn trap(cause: usize, at: usize) {
    // SAFETY: this is the handler.
    let known = unsafe {
        DESK.with(|desk| match cause {
            SUPERVISOR_TIMER => {
                desk.alarm_came_at = Some(desk.timer.now());
                desk.timer.clear_alarm();
            }
            SUPERVISOR_EXTERNAL => {
                if let Some(line) = desk.plic.claim() {
                    desk.console.interrupt_when_writable(false);
                    desk.plic.complete(line);
                    desk.line_served = Some(line);
                }
            }
            _ => panic!("trap {cause:#x} at {at:#x}"),
        })
    };
    assert!(known.is_some(), "trap {cause:#x} at {at:#x}");
}

#[unsafe(no_mangle)]
extern "C" fn start(processor: usize, tree: *const u8) -> ! {
    let mut console = console();
    // SAFETY: firmware passes the address of a device tree, whose second word is its length, and leaves both alone.
    let tree = unsafe {
        let len = u32::from_be(tree.cast::<u32>().add(1).read());
        core::slice::from_raw_parts(tree, len as usize)
    };
    let tree = DeviceTree::new(tree).expect("firmware's device tree");
    let isa = tree.processors().next().and_then(Node::isa);
    let isa = isa.expect("the processor's ISA");
    let machine = HardwareCapabilities::of_this_processor(&isa);
    checks::print_machine(&mut console, &machine);
    checks::kernels_compute(&mut console);
    checks::print_device_tree(&mut console, tree);
    let assumed = HardwareCapabilities::detect().feature_set();
    let more = assumed.without(machine.feature_set());
    assert!(more.is_empty(), "the compiler assumed {more:?}");

    static SV39: Room = Room::new();
    static SV48: Room = Room::new();
    // SAFETY: once for each of the rooms.
    let known = unsafe {
        [
            ("Sv39", translate::<Sv39>(&SV39)),
            ("Sv48", translate::<Sv48>(&SV48)),
        ]
    };
    for (name, _) in known.into_iter().filter(|(_, is_known)| *is_known) {
        let _ = writeln!(Text(&mut console), "paging: {name}");
    }

    let hz = tree
        .find("/cpus")
        .and_then(|cpus| cpus.number("timebase-frequency"));
    let hz = hz.expect("the rate of the clock").into();
    let mut timer = SupervisorTimer::new(kernel(), hz, Alarm::Firmware);
    checks::clock_counts(&mut console, &mut timer);
    let mut desk = Desk {
        timer,
        plic: plic(tree, processor),
        console,
        alarm_came_at: None,
        line_served: None,
    };
    desk = ring(desk, "firmware");
    if machine.has(CpuFeature::Sstc) {
        desk.timer = SupervisorTimer::new(kernel(), hz, Alarm::Processor);
        desk = ring(desk, "processor");
    }
    for _ in 0..checks::TIMES {
        desk = interrupt_by_uart(desk, tree);
    }
    checks::console_reads(&mut desk.console);
    let _ = writeln!(Text(&mut desk.console), "probe: passed");
    if is_ended_by_firmware(tree) {
        Sbi::new(kernel()).shut_down(Outcome::Success);
        panic!("the firmware did not end the machine");
    }
    end(Outcome::Success)
}

/// Goes on under the program's own tables, if the processor knows their format. All devices are in the first gigabyte.
///
/// # Safety
/// Called once for a room.
unsafe fn translate<T: PageTables>(room: &'static Room) -> bool {
    // SAFETY: by the caller.
    let tables = unsafe { Tables::new(room) };
    let root = T::root(tables.fill::<T>(0, 2), 1);
    let found: u64;
    // SAFETY: all that the program uses is mapped where it is, code to be executed and the rest to be written. A format that
    // is not known leaves the register as it was.
    unsafe {
        asm!(
            "sfence.vma",
            "csrw satp, {root}",
            "sfence.vma",
            "csrr {found}, satp",
            root = in(reg) root,
            found = out(reg) found,
            options(nostack, preserves_flags)
        );
    }
    found == root
}

/// Whether QEMU was told so (`-append end=sbi`).
fn is_ended_by_firmware(tree: DeviceTree<'_>) -> bool {
    let arguments = tree.find("/chosen").and_then(|node| node.text("bootargs"));
    arguments == Some("end=sbi")
}

/// One alarm, as an interrupt.
fn ring(mut desk: Desk, by: &str) -> Desk {
    let _ = writeln!(Text(&mut desk.console), "alarm by: {by}");
    let due = desk.timer.now() + desk.timer.ticks(Duration::from_millis(20));
    desk.timer.set_alarm(due);
    desk.alarm_came_at = None;
    let mut desk = hand_over_until(desk, |desk| desk.alarm_came_at.is_some());
    let came = desk.alarm_came_at.expect("it was awaited");
    checks::alarm_came(&mut desk.console, &desk.timer, due, came);
    desk
}

/// One interrupt of the UART through the PLIC: the transmitter is empty, and says so when it is asked to.
fn interrupt_by_uart(mut desk: Desk, tree: DeviceTree<'_>) -> Desk {
    let uart = compatible(tree, "ns16550a");
    let line = uart.number("interrupts").expect("the line of the UART");
    desk.plic.enable(line);
    kernel().accept_external_interrupts(true);
    desk.console.interrupt_when_writable(true);
    desk.line_served = None;
    let mut desk = hand_over_until(desk, |desk| desk.line_served.is_some());
    kernel().accept_external_interrupts(false);
    desk.plic.disable(line);
    assert!(
        desk.line_served == Some(line),
        "line {:?} came",
        desk.line_served
    );
    let _ = writeln!(Text(&mut desk.console), "interrupt: line {line} by PLIC");
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

/// The PLIC, as this processor sees it in supervisor mode.
fn plic(tree: DeviceTree<'_>, processor: usize) -> Plic {
    let soc = tree.find("/soc").expect("/soc");
    let node = compatible(tree, "riscv,plic0");
    let (base, len) = node.regions(&soc).next().expect("registers of the PLIC");
    let owner = tree.processors().find(|node| {
        node.number("reg")
            .is_some_and(|reg| reg as usize == processor)
    });
    let owner = owner.and_then(|node| node.children().next());
    let phandle = owner.and_then(|node| node.number("phandle"));
    let phandle = phandle
        .expect("the processor's own controller")
        .to_be_bytes();
    // Pairs of the processor and the number of its interrupt there.
    let contexts = node.property("interrupts-extended").expect("contexts");
    let external = (SUPERVISOR_EXTERNAL as u32).to_be_bytes();
    let context = contexts
        .chunks_exact(8)
        .position(|pair| pair[..4] == phandle && pair[4..] == external)
        .expect("the context of this processor");
    let sources = node.number("riscv,ndev").expect("the number of sources");
    // SAFETY: the device tree says that the PLIC is there, and this is called once.
    let registers = unsafe { Registers::new(base as usize, len as usize) };
    Plic::new(registers, context, sources)
}

fn compatible<'a>(tree: DeviceTree<'a>, with: &str) -> Node<'a> {
    let soc = tree.find("/soc").expect("/soc");
    let found = soc
        .children()
        .find(|node| node.texts("compatible").any(|text| text == with));
    found.expect("a device of QEMU's machine")
}
