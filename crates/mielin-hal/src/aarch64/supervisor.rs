//! What the identification registers say to a kernel.

/// What a 64-bit Arm processor has for a kernel in EL1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Supervisor {
    /// PAN: the kernel touches programs' pages only while PSTATE.PAN is clear.
    pub pan: bool,
    /// UAO: loads and stores as programs make them (LDTR, STTR) can be made ordinary ones.
    pub uao: bool,
    /// Bits of the numbers of address spaces: 8 or 16.
    pub space_bits: u8,
    /// Bits of a physical address.
    pub physical_bits: u8,
    /// Tables can have a granule of 4 KiB.
    pub granule_4k: bool,
    /// The GIC has system registers (version 3 and later), if EL2 and EL3 let EL1 use them.
    pub gic_registers: bool,
    /// WFI and WFE with an end (FEAT_WFxT).
    pub timed_waits: bool,
    /// What is speculated past a barrier can be kept from being seen (FEAT_SB).
    pub speculation_barrier: bool,
    /// The branch predictor of one program does not learn from another (FEAT_CSV2).
    pub predictor_isolated: bool,
    /// Speculation takes nothing from memory that may not be read (FEAT_CSV3), so that the kernel's tables may stay in place
    /// while programs run.
    pub meltdown_safe: bool,
    /// ID_AA64MMFR0_EL1, for [`Stage1::tcr`](crate::paging::Stage1::tcr).
    pub mmfr0: u64,
}

/// The registers that [`Supervisor::of`] reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SupervisorRegisters {
    /// ID_AA64PFR0_EL1.
    pub pfr0: u64,
    /// ID_AA64ISAR1_EL1.
    pub isar1: u64,
    /// ID_AA64ISAR2_EL1, 0 on processors that are older than it.
    pub isar2: u64,
    /// ID_AA64MMFR0_EL1.
    pub mmfr0: u64,
    /// ID_AA64MMFR1_EL1.
    pub mmfr1: u64,
    /// ID_AA64MMFR2_EL1.
    pub mmfr2: u64,
}

impl Supervisor {
    /// What these registers say (Arm ARM, D19.2).
    #[must_use]
    pub const fn of(id: &SupervisorRegisters) -> Self {
        const fn field(register: u64, low: u32) -> u64 {
            register >> low & 0xf
        }
        Self {
            pan: field(id.mmfr1, 20) >= 1,
            uao: field(id.mmfr2, 4) >= 1,
            space_bits: crate::paging::Stage1::space_bits(id.mmfr0),
            physical_bits: match field(id.mmfr0, 0) {
                0 => 32,
                1 => 36,
                2 => 40,
                3 => 42,
                4 => 44,
                5 => 48,
                6 => 52,
                _ => 56,
            },
            // A signed field.
            granule_4k: field(id.mmfr0, 28) < 8,
            gic_registers: field(id.pfr0, 24) >= 1,
            timed_waits: field(id.isar2, 0) >= 2,
            speculation_barrier: field(id.isar1, 36) >= 1,
            predictor_isolated: field(id.pfr0, 56) >= 1,
            meltdown_safe: field(id.pfr0, 60) >= 1,
            mmfr0: id.mmfr0,
        }
    }

    /// Asks the processor that this kernel runs on.
    #[cfg(all(target_arch = "aarch64", not(feature = "std"), feature = "privileged"))]
    #[must_use]
    pub fn detect() -> Self {
        Self::of(&crate::ask::supervisor_registers())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_processors_have() {
        // By their manuals: Cortex-A57 r1p2 with the GIC's interface, Neoverse N1 r4p0.
        let a57 = SupervisorRegisters {
            pfr0: 0x0100_2222,
            mmfr0: 0x1124,
            ..SupervisorRegisters::default()
        };
        let expected = Supervisor {
            space_bits: 16,
            physical_bits: 44,
            granule_4k: true,
            gic_registers: true,
            mmfr0: 0x1124,
            ..Supervisor::default()
        };
        assert_eq!(Supervisor::of(&a57), expected);
        let n1 = SupervisorRegisters {
            pfr0: 0x1100_0000_1111_1112,
            isar1: 0x0010_0001,
            isar2: 0,
            mmfr0: 0x0010_1125,
            mmfr1: 0x1021_2122,
            mmfr2: 0x1011,
        };
        let expected = Supervisor {
            pan: true,
            uao: true,
            space_bits: 16,
            physical_bits: 48,
            granule_4k: true,
            gic_registers: true,
            predictor_isolated: true,
            meltdown_safe: true,
            mmfr0: 0x0010_1125,
            ..Supervisor::default()
        };
        assert_eq!(Supervisor::of(&n1), expected);
        // All that is to come.
        let all = SupervisorRegisters {
            isar1: 1 << 36,
            isar2: 2,
            mmfr0: 0xf000_0006,
            ..SupervisorRegisters::default()
        };
        let found = Supervisor::of(&all);
        assert!(found.speculation_barrier && found.timed_waits && !found.granule_4k);
        assert_eq!((found.physical_bits, found.space_bits), (52, 8));
    }
}
