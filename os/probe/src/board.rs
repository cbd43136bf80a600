//! The machine that this firmware was built for: where its devices are, and how it starts.

#[cfg(board = "aarch64_virt")]
mod aarch64_virt;
#[cfg(cortex_m)]
mod cortex_m;
#[cfg(board = "riscv_virt")]
mod riscv_virt;
#[cfg(board = "x86_64_q35")]
mod x86_64_q35;

#[cfg(board = "aarch64_virt")]
pub(crate) use aarch64_virt::{console, end};
#[cfg(cortex_m)]
pub(crate) use cortex_m::{console, end};
#[cfg(board = "riscv_virt")]
pub(crate) use riscv_virt::{console, end};
#[cfg(board = "x86_64_q35")]
pub(crate) use x86_64_q35::{console, end};
