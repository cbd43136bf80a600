//! A PC, QEMU's `q35`: the 16550 of COM1, the local APIC with its timer, the I/O APIC that ACPI's tables name, the 8254, and
//! `isa-debug-exit` at port 0xf4.
//!
//! QEMU starts the program by the protocol of Xen's PVH guests (`xen/include/public/arch-x86/hvm/start_info.h`), in
//! 32-bit mode without paging. The ports are those of every PC; the APIC is where it is after a reset (Intel SDM,
//! volume 3A, "Relocating the Local APIC Registers").

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::fmt::Write;
use core::time::Duration;

use mielin_hal::acpi::{Acpi, Madt};
use mielin_hal::drivers::{DebugExit, IoApic, Kernel, LocalApic, Ns16550, Pit, Ports, Registers};
use mielin_hal::paging::{FourLevel, PageTables};
use mielin_hal::x86::Supervisor;
use mielin_hal::{
    Console, HardwareCapabilities, InterruptController, Outcome, Shutdown, Text, Timer,
};

use crate::checks;
use crate::handed::Handed;
use crate::translation::{Room, Tables};

const COM1: u16 = 0x3f8;
const COM1_PORTS: u16 = 8;
const EXIT: u16 = 0xf4;
const COUNTERS: u16 = 0x40;
const COUNTERS_PORTS: u16 = 4;
const COUNTER_GATE: u16 = 0x61;
const LOCAL_APIC: usize = 0xfee0_0000;
const LOCAL_APIC_BYTES: usize = 0x1000;
const IO_APIC_BYTES: usize = 0x20;
/// COM1's on the ISA bus.
const COM1_LINE: u8 = 4;
/// Below are the machine's RAM and ROM only, and that is mapped.
const MEMORY_END: u64 = 0x4000_0000;
/// The gigabyte with both APICs.
const DEVICES: u64 = 0xc000_0000;

const TIMER_VECTOR: u8 = 0xe0;
/// Of line 0 of the I/O APIC.
const LINES_VECTOR: u8 = 0x40;
const SPURIOUS_VECTOR: u8 = 0xff;
/// As many lines as the handler serves.
const LINES: usize = 24;
/// Vectors below are exceptions.
const EXCEPTIONS: usize = 32;

// The first four gigabytes are mapped as they are, by pages of two megabytes, and the two old interrupt controllers are
// masked. Then the states that XSAVE knows are switched on, as many as the processor has (Intel SDM, volume 1, 13.3).
// The program itself uses none of them: it is built without.
global_asm!(
    r#"
    .section .note.pvh, "a", @note
    .long 4, 8, 18
    .asciz "Xen"
    .quad _start

    .section .text.entry, "ax"
    .globl _start
    .code32
_start:
    cli
    mov al, 0xff
    out 0x21, al
    out 0xa1, al
    mov esp, offset __stack_top
    mov edi, offset __page_tables
    lea eax, [edi + 0x1003]
    mov [edi], eax
    lea eax, [edi + 0x2003]
    lea edx, [edi + 0x1000]
    mov ecx, 4
2:  mov [edx], eax
    add eax, 0x1000
    add edx, 8
    dec ecx
    jnz 2b
    lea edx, [edi + 0x2000]
    mov eax, 0x83
    mov ecx, 2048
3:  mov [edx], eax
    add eax, 0x200000
    add edx, 8
    dec ecx
    jnz 3b
    mov cr3, edi
    mov eax, cr4
    or eax, 0x620
    mov cr4, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, cr0
    and eax, 0xfffffffb
    or eax, 0x80000002
    mov cr0, eax
    lgdt [gdt_pointer]
    push 8
    mov eax, offset long_mode
    push eax
    retf

    .code64
long_mode:
    mov eax, 16
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov rsp, offset __stack_top
    mov eax, 1
    cpuid
    bt ecx, 26
    jnc 4f
    mov rax, cr4
    or eax, 0x40000
    mov cr4, rax
    mov eax, 0xd
    xor ecx, ecx
    cpuid
    xor ecx, ecx
    xsetbv
4:  call start
5:  hlt
    jmp 5b

interrupt_entry:
    cld
    push rax
    push rcx
    push rdx
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    call interrupt
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rax
spurious_entry:
    iretq

exception_entry:
    cld
    mov rdi, [rsp]
    mov rsi, [rsp + 8]
    and rsp, -16
    call exception

    .section .rodata.gdt, "a"
    .balign 8
gdt:
    .quad 0
    .quad 0x00af9a000000ffff
    .quad 0x00cf92000000ffff
gdt_pointer:
    .word 23
    .quad gdt
"#
);

unsafe extern "C" {
    fn interrupt_entry();
    fn exception_entry();
    fn spurious_entry();
}

fn kernel() -> Kernel {
    // SAFETY: the machine starts in ring 0, the program never leaves it, and there is no other.
    unsafe { Kernel::assume() }
}

/// The console, taken anew.
pub(crate) fn console() -> Ns16550<Ports> {
    // SAFETY: COM1's ports on every PC. When a panic takes them a second time, the first driver is never used again.
    Ns16550::new(unsafe { Ports::new(kernel(), COM1, COM1_PORTS) })
}

/// Ends the emulator, with the outcome as its exit status.
pub(crate) fn end(outcome: Outcome) -> ! {
    // SAFETY: the device is at the port that xtask tells QEMU.
    DebugExit::new(unsafe { Ports::new(kernel(), EXIT, 1) }).shut_down(outcome);
    loop {
        kernel().rest();
    }
}

/// The interrupt descriptor table.
struct Gates(UnsafeCell<[u128; 256]>);

// SAFETY: it is written once, before interrupts come, and then only the processor reads it.
unsafe impl Sync for Gates {}

static GATES: Gates = Gates(UnsafeCell::new([0; 256]));

/// A gate to an entry in 64-bit code, with interrupts masked behind it (Intel SDM, volume 3A, "64-Bit Mode IDT").
fn gate(entry: unsafe extern "C" fn()) -> u128 {
    let address = entry as usize as u128;
    let low = address & 0xffff | 8 << 16 | 0x8e00 << 32 | (address >> 16 & 0xffff) << 48;
    low | (address >> 32) << 64
}

/// Where the table is, as LIDT wants it.
#[repr(C, packed)]
struct TablePointer {
    limit: u16,
    base: u64,
}

fn install_gates() {
    let mut gates = [0; 256];
    gates[..EXCEPTIONS].fill(gate(exception_entry));
    gates[usize::from(LINES_VECTOR)..][..LINES].fill(gate(interrupt_entry));
    gates[usize::from(TIMER_VECTOR)] = gate(interrupt_entry);
    gates[usize::from(SPURIOUS_VECTOR)] = gate(spurious_entry);
    let pointer = TablePointer {
        limit: (size_of_val(&gates) - 1) as u16,
        base: GATES.0.get() as u64,
    };
    // SAFETY: called once, before the processor uses the table, which lives as long as the program; its gates lead to
    // entries that keep every register.
    unsafe {
        GATES.0.get().write(gates);
        asm!("lidt [{}]", in(reg) &raw const pointer, options(nostack, preserves_flags));
    }
}

/// What the handler works with.
struct Desk {
    apic: LocalApic,
    lines: IoApic,
    console: Ns16550<Ports>,
    due: u64,
    alarm_came_at: Option<u64>,
    line_served: Option<u32>,
}

static DESK: Handed<Desk> = Handed::nothing();

#[unsafe(no_mangle)]
extern "C" fn exception(first: u64, second: u64) -> ! {
    panic!("an exception; its frame begins with {first:#x}, {second:#x}");
}

#[unsafe(no_mangle)]
extern "C" fn interrupt() {
    // SAFETY: this is the handler.
    let known = unsafe {
        DESK.with(|desk| {
            let vector = desk.apic.in_service();
            if let Some(line) = vector.and_then(|vector| desk.lines.line(vector)) {
                desk.line_served = Some(line);
                // The UART asks for nothing more.
                desk.console.interrupt_when_writable(false);
                desk.apic.complete(line);
            } else if let Some(line) = desk.apic.claim() {
                let now = desk.apic.now();
                // Alarms are counted by another clock than this one.
                if now >= desk.due {
                    desk.alarm_came_at = Some(now);
                    desk.apic.clear_alarm();
                } else {
                    desk.apic.set_alarm(desk.due);
                }
                desk.apic.complete(line);
            }
        })
    };
    assert!(known.is_some(), "an interrupt came unasked");
}

#[unsafe(no_mangle)]
extern "C" fn start() -> ! {
    install_gates();
    let mut console = console();
    checks::print_machine(&mut console, &HardwareCapabilities::detect());
    let supervisor = Supervisor::detect();
    print_supervisor(&mut console, &supervisor);
    translate(&supervisor);
    let _ = writeln!(Text(&mut console), "paging: four levels");
    let acpi = Acpi::search(physical).expect("firmware's root pointer");
    let madt = acpi.madt().expect("firmware's table of controllers");
    let _ = writeln!(
        Text(&mut console),
        "processors: {}, local APIC at {:#x}",
        madt.processors()
            .filter(|processor| processor.enabled)
            .count(),
        madt.local_apic()
    );
    // SAFETY: these are the ports of the 8254 and of the gate of its third counter on every PC.
    let mut pit = unsafe {
        Pit::new(
            Ports::new(kernel(), COUNTERS, COUNTERS_PORTS),
            Ports::new(kernel(), COUNTER_GATE, 1),
        )
    };
    // SAFETY: the APIC is there after a reset, and neither the firmware nor this program has moved it.
    let registers = unsafe { Registers::new(LOCAL_APIC, LOCAL_APIC_BYTES) };
    let mut apic = LocalApic::new(kernel(), registers, TIMER_VECTOR, &mut pit);
    checks::clock_counts(&mut console, &mut apic);
    apic.enable(LocalApic::TIMER);
    let (lines, line) = io_apic(&madt, apic.id());
    let mut desk = Desk {
        apic,
        lines,
        console,
        due: 0,
        alarm_came_at: None,
        line_served: None,
    };
    for _ in 0..checks::TIMES {
        desk.due = desk.apic.now() + desk.apic.ticks(Duration::from_millis(20));
        desk.apic.set_alarm(desk.due);
        desk.alarm_came_at = None;
        desk = hand_over_until(desk, |desk| desk.alarm_came_at.is_some());
        let came = desk.alarm_came_at.expect("it was awaited");
        checks::alarm_came(&mut desk.console, &desk.apic, desk.due, came);
    }
    desk.apic.disable(LocalApic::TIMER);
    let _ = writeln!(Text(&mut desk.console), "interrupt: timer by local APIC");
    for _ in 0..checks::TIMES {
        desk = interrupt_by_uart(desk, line);
    }
    checks::console_reads(&mut desk.console);
    let _ = writeln!(Text(&mut desk.console), "probe: passed");
    end(Outcome::Success)
}

/// Goes on under the program's own tables.
fn translate(has: &Supervisor) {
    static ROOM: Room = Room::new();

    assert!(has.no_execute && has.page_attributes && has.global_pages);
    // SAFETY: called once.
    let tables = unsafe { Tables::new(&ROOM) };
    let level = if has.huge_pages { 2 } else { 1 };
    let root = FourLevel::root(tables.fill::<FourLevel>(DEVICES, level), 0);
    let attributes = FourLevel::PAT;
    // SAFETY: the processor has what is switched on here: EFER.NXE, IA32_PAT, CR0.WP and CR4.PGE. All that the program uses
    // is mapped where it was, code to be executed and the rest to be written.
    unsafe {
        asm!(
            "mov ecx, 0xc0000080",
            "rdmsr",
            "or eax, 0x800",
            "wrmsr",
            "mov ecx, 0x277",
            "mov eax, {low:e}",
            "mov edx, {high:e}",
            "wrmsr",
            "mov cr3, {root}",
            "mov rax, cr0",
            "or rax, 0x10000",
            "mov cr0, rax",
            "mov rax, cr4",
            "or rax, 0x80",
            "mov cr4, rax",
            low = in(reg) attributes as u32,
            high = in(reg) (attributes >> 32) as u32,
            root = in(reg) root,
            out("rax") _,
            out("rcx") _,
            out("rdx") _,
            options(nostack)
        );
    }
}

/// Prints what the processor has for a kernel.
fn print_supervisor(console: &mut impl Console, has: &Supervisor) {
    let mut out = Text(console);
    let _ = write!(out, "supervisor:");
    for (there, name) in [
        (has.smep, "smep"),
        (has.smap, "smap"),
        (has.umip, "umip"),
        (has.no_execute, "nx"),
        (has.huge_pages, "pdpe1gb"),
        (has.pcid, "pcid"),
        (has.invpcid, "invpcid"),
        (has.fsgsbase, "fsgsbase"),
        (has.x2apic, "x2apic"),
        (has.tsc_deadline, "tsc-deadline"),
        (has.xsave.is_some(), "xsave"),
    ] {
        if there {
            let _ = write!(out, " {name}");
        }
    }
    let _ = writeln!(out);
    if let Some(xsave) = has.xsave {
        let bytes = xsave.bytes_here(xsave.states);
        let _ = writeln!(out, "saved: states {:#x}, {bytes} bytes", xsave.states);
    }
}

/// Physical memory that firmware has left its tables in.
fn physical(address: u64, len: usize) -> Option<&'static [u8]> {
    unsafe extern "C" {
        static __stack_top: u8;
    }
    let end = address
        .checked_add(len as u64)
        .filter(|end| *end <= MEMORY_END)?;
    // The program, with all that it changes, begins at 1 MiB and ends with its stack.
    let program = 0x10_0000..(&raw const __stack_top) as u64;
    if address == 0 || address < program.end && end > program.start {
        return None;
    }
    // SAFETY: the first gigabyte is mapped as it is; no device is there whose registers would change by being read, and
    // where there is nothing, it reads as ones. Nobody writes there: the program is elsewhere, as was just seen, and
    // firmware does not run any more.
    Some(unsafe { core::slice::from_raw_parts(address as *const u8, len) })
}

/// The controller that has COM1's line, which is configured, and the number of that line there.
fn io_apic(madt: &Madt<'_>, destination: u8) -> (IoApic, u32) {
    let wanted = madt.isa_line(COM1_LINE);
    let before = |line: u32| line <= wanted.line;
    let found = madt
        .io_apics()
        .filter(|found| before(found.first_line))
        .max_by_key(|found| found.first_line);
    let found = found.expect("a controller for COM1");
    // SAFETY: the table says that the controller is there, and this is called once.
    let registers = unsafe { Registers::new(found.address as usize, IO_APIC_BYTES) };
    let mut lines = IoApic::new(registers, LINES_VECTOR, destination);
    assert!(lines.lines() as usize <= LINES, "{} lines", lines.lines());
    let line = wanted.line - found.first_line;
    lines.configure(line, wanted.trigger, wanted.polarity);
    (lines, line)
}

/// One interrupt of the UART through the I/O APIC: the transmitter is empty, and says so when it is asked to.
fn interrupt_by_uart(mut desk: Desk, line: u32) -> Desk {
    desk.lines.enable(line);
    desk.console.interrupt_when_writable(true);
    desk.line_served = None;
    let mut desk = hand_over_until(desk, |desk| desk.line_served.is_some());
    desk.lines.disable(line);
    assert!(
        desk.line_served == Some(line),
        "line {:?} came",
        desk.line_served
    );
    let _ = writeln!(
        Text(&mut desk.console),
        "interrupt: line {line} by I/O APIC"
    );
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
