//! What the drivers do by instructions of one architecture.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(cortex_m)]
mod cortex_m;
#[cfg(target_arch = "riscv64")]
mod riscv;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
pub use self::aarch64::Conduit;
#[cfg(target_arch = "aarch64")]
pub(in crate::drivers) use self::aarch64::*;
#[cfg(cortex_m)]
pub(in crate::drivers) use self::cortex_m::*;
#[cfg(target_arch = "riscv64")]
pub(in crate::drivers) use self::riscv::*;
#[cfg(target_arch = "x86_64")]
pub use self::x86::Ports;
#[cfg(target_arch = "x86_64")]
pub(in crate::drivers) use self::x86::*;
