//! What `CPUID` says to a kernel.

use super::{Cpuid, LEAF_EXTENDED, LEAF_FEATURES, leaf};

/// What an x86-64 processor has for a kernel. What programs may use of it stands in
/// [`HardwareCapabilities`](crate::HardwareCapabilities).
///
/// Having is not using: most of it is off until a bit of CR4, EFER or IA32_APIC_BASE switches it on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Supervisor {
    /// SMEP: the kernel never executes programs' pages.
    pub smep: bool,
    /// SMAP: it touches them between STAC and CLAC only.
    pub smap: bool,
    /// UMIP: programs cannot read where the kernel's tables are.
    pub umip: bool,
    /// Pages that are not executable.
    pub no_execute: bool,
    /// Pages of 1 GiB.
    pub huge_pages: bool,
    /// Pages that stay translated from one address space to the next.
    pub global_pages: bool,
    /// IA32_PAT.
    pub page_attributes: bool,
    /// PCID: translations are of a numbered address space.
    pub pcid: bool,
    /// INVPCID: makes those of any number invalid.
    pub invpcid: bool,
    /// Programs and kernel read and write FS and GS by instructions.
    pub fsgsbase: bool,
    /// SYSCALL and SYSRET.
    pub syscall: bool,
    /// RDTSCP and IA32_TSC_AUX.
    pub rdtscp: bool,
    /// x2APIC: the local APIC's registers are MSRs.
    pub x2apic: bool,
    /// The local APIC's timer takes a time of the time-stamp counter.
    pub tsc_deadline: bool,
    /// The time-stamp counter has one rate, in all states of power.
    pub invariant_tsc: bool,
    /// XSAVE and XRSTOR, and what can be saved by them.
    pub xsave: Option<Xsave>,
    /// Bits of a physical address.
    pub physical_bits: u8,
    /// Bits of a virtual address.
    pub virtual_bits: u8,
}

/// How registers of vectors can be saved (volume 1, chapter 13).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Xsave {
    /// The states that may be switched on in XCR0.
    pub states: u64,
    /// XSAVEOPT: leaves out what has not changed since it was restored.
    pub optimised: bool,
    /// XSAVEC: leaves no room for what is not saved.
    pub compacted: bool,
    /// XSAVES and XRSTORS: states of the kernel, too.
    pub supervisor: bool,
}

impl Supervisor {
    /// Asks a processor.
    #[must_use]
    pub fn of(processor: &impl Cpuid) -> Self {
        let one = leaf(processor, 1, 0);
        let seven = leaf(processor, LEAF_FEATURES, 0);
        let extended = leaf(processor, LEAF_EXTENDED + 1, 0);
        let power = leaf(processor, LEAF_EXTENDED + 7, 0);
        let sizes = leaf(processor, LEAF_EXTENDED + 8, 0).eax;
        let has = |word: u32, bit: u32| word >> bit & 1 != 0;
        Self {
            smep: has(seven.ebx, 7),
            smap: has(seven.ebx, 20),
            umip: has(seven.ecx, 2),
            no_execute: has(extended.edx, 20),
            huge_pages: has(extended.edx, 26),
            global_pages: has(one.edx, 13),
            page_attributes: has(one.edx, 16),
            pcid: has(one.ecx, 17),
            invpcid: has(seven.ebx, 10),
            fsgsbase: has(seven.ebx, 0),
            syscall: has(extended.edx, 11),
            rdtscp: has(extended.edx, 27),
            x2apic: has(one.ecx, 21),
            tsc_deadline: has(one.ecx, 24),
            invariant_tsc: has(power.edx, 8),
            xsave: has(one.ecx, 26).then(|| Xsave::of(processor)),
            // Without the leaf: volume 3A, "Enumeration of Paging Features by CPUID".
            physical_bits: if sizes == 0 { 36 } else { sizes as u8 },
            virtual_bits: if sizes == 0 { 48 } else { (sizes >> 8) as u8 },
        }
    }

    /// Asks the processor that this runs on, which any program may.
    #[cfg(target_arch = "x86_64")]
    #[must_use]
    pub fn detect() -> Self {
        Self::of(&crate::ask::Processor)
    }
}

const LEAF_STATES: u32 = 0xd;
/// What is always there: the legacy region and the header (volume 1, 13.4).
const HEADER_END: u32 = 576;

impl Xsave {
    fn of(processor: &impl Cpuid) -> Self {
        let states = leaf(processor, LEAF_STATES, 0);
        let kinds = leaf(processor, LEAF_STATES, 1).eax;
        Self {
            states: u64::from(states.edx) << 32 | u64::from(states.eax),
            optimised: kinds & 1 != 0,
            compacted: kinds >> 1 & 1 != 0,
            supervisor: kinds >> 3 & 1 != 0,
        }
    }

    /// Bytes that XSAVE and XSAVEOPT write with these states switched on in XCR0. Each state has its place, whatever the
    /// others are. The area begins at a multiple of 64.
    #[must_use]
    pub fn bytes(&self, processor: &impl Cpuid, xcr0: u64) -> u32 {
        (2..63)
            .filter(|state| xcr0 & self.states & 1 << state != 0)
            .map(|state| leaf(processor, LEAF_STATES, state))
            .map(|place| place.ebx.saturating_add(place.eax))
            .fold(HEADER_END, u32::max)
    }

    /// The same on the processor that this runs on.
    #[cfg(target_arch = "x86_64")]
    #[must_use]
    pub fn bytes_here(&self, xcr0: u64) -> u32 {
        self.bytes(&crate::ask::Processor, xcr0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Registers;
    use super::*;

    /// Leaves of a Skylake, as far as they are looked at here; the others are what no processor says.
    struct Skylake;

    impl Cpuid for Skylake {
        fn cpuid(&self, leaf: u32, subleaf: u32) -> Registers {
            let (eax, ebx, ecx, edx) = match (leaf, subleaf) {
                (0, _) => (0x16, 0x756e_6547, 0x6c65_746e, 0x4965_6e69),
                (1, _) => (0x506e3, 0x10_0800, 0x7ffa_fbbf, 0xbfeb_fbff),
                (7, 0) => (0, 0x029c_6fbf, 0, 0),
                (0xd, 0) => (0x1f, 0x440, 0x440, 0),
                (0xd, 1) => (0xf, 0x440, 0x100, 0),
                (0xd, 2) => (0x100, 0x240, 0, 0),
                (0xd, 3) => (0x40, 0x3c0, 0, 0),
                (0xd, 4) => (0x40, 0x400, 0, 0),
                (0x8000_0000, _) => (0x8000_0008, 0, 0, 0),
                (0x8000_0001, _) => (0, 0, 0x121, 0x2c10_0800),
                (0x8000_0007, _) => (0, 0, 0, 0x100),
                (0x8000_0008, _) => (0x3027, 0, 0, 0),
                _ => panic!("leaf {leaf:#x}, {subleaf} is of no use"),
            };
            Registers { eax, ebx, ecx, edx }
        }

        fn xcr0(&self) -> u64 {
            0b111
        }
    }

    #[test]
    fn what_a_skylake_has() {
        let xsave = Xsave {
            states: 0x1f,
            optimised: true,
            compacted: true,
            supervisor: true,
        };
        let expected = Supervisor {
            smep: true,
            smap: true,
            umip: false,
            no_execute: true,
            huge_pages: true,
            global_pages: true,
            page_attributes: true,
            pcid: true,
            invpcid: true,
            fsgsbase: true,
            syscall: true,
            rdtscp: true,
            x2apic: true,
            tsc_deadline: true,
            invariant_tsc: true,
            xsave: Some(xsave),
            physical_bits: 39,
            virtual_bits: 48,
        };
        assert_eq!(Supervisor::of(&Skylake), expected);
        assert_eq!(xsave.bytes(&Skylake, 0b11), 576);
        assert_eq!(xsave.bytes(&Skylake, 0b111), 576 + 256);
        assert_eq!(xsave.bytes(&Skylake, 0b1_1011), 0x440);
        // States that it has not got take no room.
        assert_eq!(xsave.bytes(&Skylake, 0xe7), 576 + 256);
    }

    #[test]
    fn leaves_that_are_not_there_say_nothing() {
        struct Old;
        impl Cpuid for Old {
            fn cpuid(&self, leaf: u32, _: u32) -> Registers {
                match leaf {
                    0 | LEAF_EXTENDED => Registers::default(),
                    // As Intel's do: the data of another leaf.
                    _ => Registers {
                        eax: u32::MAX,
                        ebx: u32::MAX,
                        ecx: u32::MAX,
                        edx: u32::MAX,
                    },
                }
            }
            fn xcr0(&self) -> u64 {
                0
            }
        }
        let expected = Supervisor {
            physical_bits: 36,
            virtual_bits: 48,
            ..Supervisor::default()
        };
        assert_eq!(Supervisor::of(&Old), expected);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn this_processor() {
        let here = Supervisor::detect();
        // Every program for x86-64 relies on it.
        assert!(here.syscall && here.no_execute && here.page_attributes && here.global_pages);
        assert!((36..=52).contains(&here.physical_bits));
        assert!(here.virtual_bits == 48 || here.virtual_bits == 57);
        if let Some(xsave) = here.xsave {
            // What it would need for what is on, by its own word.
            let xcr0 = crate::ask::Processor.xcr0();
            assert_eq!(xcr0 & !xsave.states, 0);
            let enabled = crate::ask::Processor.cpuid(LEAF_STATES, 0).ebx;
            assert_eq!(xsave.bytes_here(xcr0), enabled);
        }
    }
}
