//! Four boards with a Cortex-M, of which QEMU has models: SysTick and the NVIC are the processor's, consoles differ.
//!
//! Addresses and clock rates: the nRF51822's product specification; the LM3S6965's data sheet (QEMU divides 200 MHz
//! by 16, where a board has an oscillator of about 12 MHz); Arm's application notes AN386 (25 MHz) and AN505 (20 MHz).

use core::arch::global_asm;
use core::fmt::Write;
use core::time::Duration;

use mielin_hal::drivers::{Kernel, Nvic, Registers, Semihosting, SysTick};
use mielin_hal::{HardwareCapabilities, InterruptController, Outcome, Shutdown, Text, Timer};

use crate::checks;
use crate::handed::Handed;

/// An external interrupt that all four processors have, whose device is not used here.
const LINE: u32 = 7;
/// Exception numbers (Armv7-M ARM, B1.5.2).
const SYSTICK: u32 = 15;

#[cfg(board = "microbit")]
mod devices {
    //! nRF51822.
    pub(super) type Uart = mielin_hal::drivers::NrfUart;
    pub(super) const CLOCK_HZ: u64 = 16_000_000;
    pub(super) const UART: usize = 0x4000_2000;

    pub(super) fn uart(registers: super::Registers) -> Uart {
        Uart::new(registers)
    }
}

#[cfg(board = "lm3s6965evb")]
mod devices {
    //! LM3S6965.
    pub(super) type Uart = mielin_hal::drivers::Pl011;
    pub(super) const CLOCK_HZ: u64 = 12_500_000;
    pub(super) const UART: usize = 0x4000_c000;

    /// RCC, and its value after a reset (data sheet, "System Control"). QEMU's clock runs only from the first write on.
    const RUN_MODE_CLOCK: usize = 0x400f_e060;
    const RUN_MODE_CLOCK_RESET: u32 = 0x078e_3ad1;

    pub(super) fn uart(registers: super::Registers) -> Uart {
        // SAFETY: the register of this board's system control that chooses the clock, of which only it is used.
        let mut clock = unsafe { super::Registers::new(RUN_MODE_CLOCK, 4) };
        clock.write32(0, RUN_MODE_CLOCK_RESET);
        Uart::new(registers)
    }
}

#[cfg(any(board = "mps2_an386", board = "mps2_an505"))]
mod devices {
    //! Arm's MPS2 images.
    pub(super) type Uart = mielin_hal::drivers::CmsdkUart;
    #[cfg(board = "mps2_an386")]
    pub(super) const CLOCK_HZ: u64 = 25_000_000;
    #[cfg(board = "mps2_an386")]
    pub(super) const UART: usize = 0x4000_4000;
    #[cfg(board = "mps2_an505")]
    pub(super) const CLOCK_HZ: u64 = 20_000_000;
    /// Its secure alias.
    #[cfg(board = "mps2_an505")]
    pub(super) const UART: usize = 0x5020_0000;

    pub(super) fn uart(registers: super::Registers) -> Uart {
        // 115,200 bits in a second.
        Uart::new(registers, (CLOCK_HZ / 115_200) as u32)
    }
}

// The processor loads the stack pointer and the address of `reset`. A floating-point unit is switched on before the
// first compiled function, which may use it (Armv7-M ARM, B3.2.20).
global_asm!(
    r#"
    .section .vectors, "a"
    .word __stack_top
    .word reset
    .rept 13
    .word exception
    .endr
    .word systick
    .rept 32
    .word external
    .endr

    .section .text.reset, "ax"
    .thumb
    .syntax unified
    .globl reset
    .type reset, %function
    .thumb_func
reset:
    ldr r0, =0xe000ed88
    ldr r1, =0x00f00000
    str r1, [r0]
    dsb
    isb
    ldr r0, =__data_load
    ldr r1, =__data_begin
    ldr r2, =__data_end
1:  cmp r1, r2
    bhs 2f
    ldr r3, [r0]
    str r3, [r1]
    adds r0, #4
    adds r1, #4
    b 1b
2:  ldr r1, =__bss_begin
    ldr r2, =__bss_end
    movs r3, #0
1:  cmp r1, r2
    bhs 2f
    str r3, [r1]
    adds r1, #4
    b 1b
2:  cpsid i
    bl start
1:  b 1b
    .pool
"#
);

fn kernel() -> Kernel {
    // SAFETY: the processor starts in privileged Thread mode, and this program never leaves it.
    unsafe { Kernel::assume() }
}

/// The console, taken anew.
pub(crate) fn console() -> devices::Uart {
    // SAFETY: the board has this UART there, and at least 4 KiB for its registers. When a panic takes it a second time,
    // the first driver is never used again.
    devices::uart(unsafe { Registers::new(devices::UART, 0x1000) })
}

/// Ends the emulator, with the outcome as its exit status.
pub(crate) fn end(outcome: Outcome) -> ! {
    Semihosting::new(kernel()).shut_down(outcome);
    loop {
        kernel().rest();
    }
}

/// What the handlers work with.
struct Desk {
    timer: SysTick,
    nvic: Nvic,
    due: u64,
    alarm_came_at: Option<u64>,
    line_served: Option<u32>,
}

static DESK: Handed<Desk> = Handed::nothing();

#[unsafe(no_mangle)]
extern "C" fn systick() {
    // SAFETY: this is a handler, and both have the same priority: neither interrupts the other.
    let known = unsafe {
        DESK.with(|desk| {
            let now = desk.timer.now();
            // The counter may be too short for the whole wait.
            if now >= desk.due {
                desk.alarm_came_at = Some(now);
                desk.timer.clear_alarm();
            } else {
                desk.timer.set_alarm(desk.due);
            }
        })
    };
    assert!(known.is_some(), "exception {SYSTICK} came unasked");
}

#[unsafe(no_mangle)]
extern "C" fn external() {
    // SAFETY: as for `systick`.
    let known = unsafe {
        DESK.with(|desk| {
            if let Some(line) = desk.nvic.claim() {
                desk.line_served = Some(line);
                desk.nvic.complete(line);
            }
        })
    };
    assert!(known.is_some(), "an interrupt came unasked");
}

#[unsafe(no_mangle)]
extern "C" fn exception() {
    panic!("the processor met an exception");
}

#[unsafe(no_mangle)]
extern "C" fn start() -> ! {
    let mut console = console();
    checks::print_machine(&mut console, &HardwareCapabilities::detect());
    #[cfg(kernels)]
    checks::kernels_compute(&mut console);
    let mut timer = SysTick::new(kernel(), devices::CLOCK_HZ);
    checks::clock_counts(&mut console, &mut timer);

    let mut desk = Desk {
        timer,
        nvic: Nvic::new(kernel()),
        due: 0,
        alarm_came_at: None,
        line_served: None,
    };
    for _ in 0..checks::TIMES {
        desk.due = desk.timer.now() + desk.timer.ticks(Duration::from_millis(20));
        desk.timer.set_alarm(desk.due);
        desk.alarm_came_at = None;
        desk = hand_over_until(desk, |desk| desk.alarm_came_at.is_some());
        let came = desk.alarm_came_at.expect("it was awaited");
        checks::alarm_came(&mut console, &desk.timer, desk.due, came);
    }

    // What is not enabled stays pending.
    desk.nvic.pend(LINE);
    desk.nvic.enable(LINE);
    desk = hand_over_until(desk, |desk| desk.line_served.is_some());
    desk.nvic.disable(LINE);
    assert!(
        desk.line_served == Some(LINE),
        "line {:?} came",
        desk.line_served
    );
    let _ = writeln!(Text(&mut console), "interrupt: line {LINE} by NVIC");
    checks::console_reads(&mut console);
    let _ = writeln!(Text(&mut console), "probe: passed");
    end(Outcome::Success)
}

/// Lets the handlers have the desk until something has happened.
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
