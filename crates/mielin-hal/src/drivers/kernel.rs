//! The promise that this program is the one that may do everything.
#![allow(unsafe_code)]

/// Proof that this program runs in a privileged mode, as the kernel of its machine: ring 0 of x86-64, EL1 of 64-bit Arm,
/// supervisor mode of RISC-V under SBI firmware, privileged code of Cortex-M.
#[derive(Clone, Copy, Debug)]
pub struct Kernel(());

impl Kernel {
    /// Takes it that this program is the kernel.
    ///
    /// # Safety
    /// The program runs in the mode that [`Kernel`] names, wherever and for as long as the value is used, and there is
    /// no operating system that owns the processor's timer and interrupts.
    #[must_use]
    pub const unsafe fn assume() -> Self {
        Self(())
    }
}

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
impl Kernel {
    /// With interrupts masked: rests until one is pending, lets it come, and masks them again. One that becomes pending
    /// after a check and before the rest ends the rest, so that nothing is slept through. May also return earlier.
    pub fn rest(self) {
        super::instructions::rest(self);
    }
}
