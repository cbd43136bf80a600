//! A PC, QEMU's `q35`: the 16550 of COM1, the local APIC with its timer, the 8254, and `isa-debug-exit` at port 0xf4.
//!
//! QEMU starts the program by the protocol of Xen's PVH guests (`xen/include/public/arch-x86/hvm/start_info.h`), in
//! 32-bit mode without paging. The ports are those of every PC; the APIC is where it is after a reset (Intel SDM,
//! volume 3A, "Relocating the Local APIC Registers").

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::fmt::Write;
use core::time::Duration;

use mielin_hal::drivers::{DebugExit, Kernel, LocalApic, Ns16550, Pit, Ports, Registers};
use mielin_hal::{HardwareCapabilities, InterruptController, Outcome, Shutdown, Text, Timer};

use crate::checks;
use crate::handed::Handed;

const COM1: u16 = 0x3f8;
const COM1_PORTS: u16 = 8;
const EXIT: u16 = 0xf4;
const COUNTERS: u16 = 0x40;
const COUNTERS_PORTS: u16 = 4;
const COUNTER_GATE: u16 = 0x61;
const LOCAL_APIC: usize = 0xfee0_0000;
const LOCAL_APIC_BYTES: usize = 0x1000;

const TIMER_VECTOR: u8 = 0x40;
const SPURIOUS_VECTOR: u8 = 0xff;
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
    due: u64,
    alarm_came_at: Option<u64>,
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
            if let Some(line) = desk.apic.claim() {
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
    let mut desk = Desk {
        apic,
        due: 0,
        alarm_came_at: None,
    };
    for _ in 0..checks::TIMES {
        desk.due = desk.apic.now() + desk.apic.ticks(Duration::from_millis(20));
        desk.apic.set_alarm(desk.due);
        desk.alarm_came_at = None;
        desk = hand_over_until(desk, |desk| desk.alarm_came_at.is_some());
        let came = desk.alarm_came_at.expect("it was awaited");
        checks::alarm_came(&mut console, &desk.apic, desk.due, came);
    }
    desk.apic.disable(LocalApic::TIMER);
    let _ = writeln!(Text(&mut console), "interrupt: timer by local APIC");
    checks::console_reads(&mut console);
    let _ = writeln!(Text(&mut console), "probe: passed");
    end(Outcome::Success)
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
