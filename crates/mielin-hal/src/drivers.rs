//! Drivers for what a kernel needs first: consoles, timers, interrupt controllers, and the end.
//!
//! | device | driver | trait |
//! |---|---|---|
//! | 16550 UART, in memory or at I/O ports | [`Ns16550`] | [`Console`](crate::Console) |
//! | Arm PrimeCell UART | [`Pl011`] | [`Console`](crate::Console) |
//! | Arm CMSDK UART, nRF51 UART | [`CmsdkUart`], [`NrfUart`] | [`Console`](crate::Console) |
//! | RISC-V platform-level interrupt controller | [`Plic`] | [`InterruptController`](crate::InterruptController) |
//! | Arm's generic interrupt controller, version 2 | [`GicV2`] | [`InterruptController`](crate::InterruptController) |
//! | I/O APIC of PCs | [`IoApic`], beside a `LocalApic` | |
//! | CMSDK timer, nRF51 timer | [`CmsdkTimer`], [`NrfTimer`] | [`SleepClock`](crate::SleepClock) |
//! | CMSDK watchdog | [`CmsdkWatchdog`] | |
//! | QEMU's and SiFive's test finisher | [`SifiveTest`] | [`Shutdown`](crate::Shutdown) |
//!
//! These work through [`Registers`] on every architecture. What needs instructions of one architecture is there on its
//! bare targets (`target_os = "none"`), and wants a [`Kernel`], the promise that the program may execute them:
//!
//! | architecture | timer | interrupts | the end |
//! |---|---|---|---|
//! | 64-bit Arm, EL1 | `GenericTimer` | `GicV3` | `Psci`, `Semihosting` |
//! | x86-64, ring 0 | `LocalApic`, measured by `Pit` | `LocalApic` | `DebugExit` |
//! | RISC-V, supervisor mode | `SupervisorTimer` | | `Sbi` |
//! | Cortex-M | `SysTick` | `Nvic` | `Semihosting` |
//!
//! Three functions take it on trust that addresses and privileges are what the caller says: [`Registers::new`],
//! [`Kernel::assume`] and, on x86-64, `Ports::new`. The drivers themselves are safe code. Each was run under QEMU (`cargo xtask probe`).

mod cmsdk_timer;
mod cmsdk_uart;
mod cmsdk_watchdog;
mod gic_v2;
#[cfg(any(
    cortex_m,
    all(
        target_os = "none",
        any(
            target_arch = "aarch64",
            target_arch = "riscv64",
            target_arch = "x86_64"
        )
    )
))]
mod instructions;
mod io_apic;
mod kernel;
mod nrf_timer;
mod nrf_uart;
mod ns16550;
mod pl011;
mod plic;
mod registers;
mod sifive_test;

#[cfg(all(target_os = "none", target_arch = "x86_64"))]
mod debug_exit;
#[cfg(all(target_os = "none", target_arch = "aarch64"))]
mod generic_timer;
#[cfg(all(target_os = "none", target_arch = "aarch64"))]
mod gic_v3;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
mod local_apic;
#[cfg(cortex_m)]
mod nvic;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
mod pit;
#[cfg(all(target_os = "none", target_arch = "aarch64"))]
mod psci;
#[cfg(all(target_os = "none", target_arch = "riscv64"))]
mod sbi;
#[cfg(any(cortex_m, all(target_os = "none", target_arch = "aarch64")))]
mod semihosting;
#[cfg(all(target_os = "none", target_arch = "riscv64"))]
mod supervisor_timer;
#[cfg(cortex_m)]
mod systick;

pub use cmsdk_timer::CmsdkTimer;
pub use cmsdk_uart::CmsdkUart;
pub use cmsdk_watchdog::CmsdkWatchdog;
pub use gic_v2::GicV2;
pub use io_apic::IoApic;
pub use kernel::Kernel;
pub use nrf_timer::NrfTimer;
pub use nrf_uart::NrfUart;
pub use ns16550::{ByteRegisters, Ns16550};
pub use pl011::Pl011;
pub use plic::Plic;
pub use registers::Registers;
pub use sifive_test::SifiveTest;

#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub use debug_exit::DebugExit;
#[cfg(all(target_os = "none", target_arch = "aarch64"))]
pub use generic_timer::GenericTimer;
#[cfg(all(target_os = "none", target_arch = "aarch64"))]
pub use gic_v3::GicV3;
#[cfg(all(target_os = "none", target_arch = "aarch64"))]
pub use instructions::Conduit;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub use instructions::Ports;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub use local_apic::LocalApic;
#[cfg(cortex_m)]
pub use nvic::Nvic;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub use pit::Pit;
#[cfg(all(target_os = "none", target_arch = "aarch64"))]
pub use psci::Psci;
#[cfg(all(target_os = "none", target_arch = "riscv64"))]
pub use sbi::Sbi;
#[cfg(any(cortex_m, all(target_os = "none", target_arch = "aarch64")))]
pub use semihosting::Semihosting;
#[cfg(all(target_os = "none", target_arch = "riscv64"))]
pub use supervisor_timer::{Alarm, SupervisorTimer};
#[cfg(cortex_m)]
pub use systick::SysTick;

#[cfg(test)]
mod tests;
