//! The Multiple APIC Description Table (ACPI 6.5, 5.2.12).

use super::{AcpiError, HEADER_BYTES, Table, number};
use crate::interrupts::{Polarity, Trigger};

/// Behind the header: the local APIC's address and flags.
const FIELDS_BYTES: usize = 8;
/// PCAT_COMPAT: there are two 8259s, to be masked.
const OLD_CONTROLLERS: u64 = 1;

/// Kinds of entries.
const LOCAL_APIC: u8 = 0;
const IO_APIC: u8 = 1;
const OVERRIDE: u8 = 2;
const LOCAL_APIC_ADDRESS: u8 = 5;
const LOCAL_X2APIC: u8 = 9;

/// The least that entries of a kind have.
const fn bytes_min(kind: u8) -> usize {
    match kind {
        LOCAL_APIC => 8,
        IO_APIC | LOCAL_APIC_ADDRESS => 12,
        OVERRIDE => 10,
        LOCAL_X2APIC => 16,
        _ => 2,
    }
}

/// Lines of the ISA bus.
const ISA_LINES: u8 = 16;

/// A processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    /// The id of its local APIC.
    pub apic_id: u32,
    /// Whether it is there and may be started. Others may be put in later, or never.
    pub enabled: bool,
}

/// An I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApicAt {
    /// The id that firmware gave it.
    pub id: u8,
    /// Where its registers are, in physical memory.
    pub address: u32,
    /// The number that its line 0 has among those of the whole machine.
    pub first_line: u32,
}

/// A line of the whole machine ("global system interrupt").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number.
    pub line: u32,
    /// How it interrupts.
    pub trigger: Trigger,
    /// At which level.
    pub polarity: Polarity,
}

/// A line of the ISA bus that is not where its number says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    /// Its number on the bus.
    pub isa: u8,
    /// What it is.
    pub line: Line,
}

/// The interrupt controllers and processors of a PC.
#[derive(Clone, Copy, Debug)]
pub struct Madt<'m> {
    local_apic: u64,
    has_old_controllers: bool,
    entries: &'m [u8],
}

impl<'m> Madt<'m> {
    /// Its signature.
    pub const SIGNATURE: [u8; 4] = *b"APIC";

    /// Checks that the table is made of whole entries.
    ///
    /// # Errors
    /// [`AcpiError::Malformed`].
    pub fn new(table: Table<'m>) -> Result<Self, AcpiError> {
        let malformed = AcpiError::Malformed(table.address());
        let is_madt = table.bytes().get(..4) == Some(&Self::SIGNATURE);
        let field = |at| {
            number(table.bytes(), at, 4)
                .filter(|_| is_madt)
                .ok_or(malformed)
        };
        let mut madt = Self {
            local_apic: field(HEADER_BYTES)?,
            has_old_controllers: field(HEADER_BYTES + 4)? & OLD_CONTROLLERS != 0,
            entries: table.body().get(FIELDS_BYTES..).ok_or(malformed)?,
        };
        let whole = madt.entries().map(|(_, entry)| entry.len()).sum::<usize>();
        let is_long_enough = |(kind, entry): (u8, &[u8])| entry.len() >= bytes_min(kind);
        if whole != madt.entries.len() || !madt.entries().all(is_long_enough) {
            return Err(malformed);
        }
        let longer = madt.of_kind(LOCAL_APIC_ADDRESS).next();
        if let Some(address) = longer.and_then(|entry| number(entry, 4, 8)) {
            madt.local_apic = address;
        }
        Ok(madt)
    }

    /// Where every processor finds the registers of its own local APIC, in physical memory.
    #[must_use]
    pub const fn local_apic(&self) -> u64 {
        self.local_apic
    }

    /// Whether there are the two 8259s of the first PCs, too, which have to be masked.
    #[must_use]
    pub const fn has_old_controllers(&self) -> bool {
        self.has_old_controllers
    }

    /// The processors.
    pub fn processors(&self) -> impl Iterator<Item = Processor> + use<'m> {
        self.entries().filter_map(|(kind, entry)| {
            let (id, flags) = match kind {
                LOCAL_APIC => (number(entry, 3, 1)?, number(entry, 4, 4)?),
                LOCAL_X2APIC => (number(entry, 4, 4)?, number(entry, 8, 4)?),
                _ => return None,
            };
            Some(Processor {
                apic_id: id as u32,
                enabled: flags & 1 != 0,
            })
        })
    }

    /// The I/O APICs.
    pub fn io_apics(&self) -> impl Iterator<Item = IoApicAt> + use<'m> {
        self.of_kind(IO_APIC).filter_map(|entry| {
            Some(IoApicAt {
                id: number(entry, 2, 1)? as u8,
                address: number(entry, 4, 4)? as u32,
                first_line: number(entry, 8, 4)? as u32,
            })
        })
    }

    /// The lines of the ISA bus that are elsewhere, or otherwise, than usual. Those that say what cannot be are left out: other
    /// buses, and reserved kinds of signals.
    pub fn overrides(&self) -> impl Iterator<Item = Override> + use<'m> {
        self.of_kind(OVERRIDE).filter_map(|entry| {
            let isa = number(entry, 3, 1)? as u8;
            let flags = number(entry, 8, 2)?;
            let is_isa = number(entry, 2, 1)? == 0 && isa < ISA_LINES;
            let line = Line {
                line: number(entry, 4, 4)? as u32,
                // 0 is as the bus has it: edges to high.
                polarity: match flags & 0b11 {
                    0 | 1 => Polarity::High,
                    3 => Polarity::Low,
                    _ => return None,
                },
                trigger: match flags >> 2 & 0b11 {
                    0 | 1 => Trigger::Edge,
                    3 => Trigger::Level,
                    _ => return None,
                },
            };
            is_isa.then_some(Override { isa, line })
        })
    }

    /// Where a line of the ISA bus (0 is the timer, 4 the first serial port) has come to.
    #[must_use]
    pub fn isa_line(&self, isa: u8) -> Line {
        self.overrides()
            .find(|other| other.isa == isa)
            .map_or(Line::of_isa(isa), |other| other.line)
    }

    fn of_kind(&self, wanted: u8) -> impl Iterator<Item = &'m [u8]> + use<'m> {
        self.entries()
            .filter_map(move |(kind, entry)| (kind == wanted).then_some(entry))
    }

    /// Kind and bytes of each entry, up to the first that is not whole.
    fn entries(&self) -> impl Iterator<Item = (u8, &'m [u8])> + use<'m> {
        let mut rest = self.entries;
        core::iter::from_fn(move || {
            let (kind, len) = (*rest.first()?, *rest.get(1)?);
            // An entry of no length would be there for ever.
            let len = Some(usize::from(len)).filter(|len| *len >= 2)?;
            let (entry, behind) = rest.split_at_checked(len)?;
            rest = behind;
            Some((kind, entry))
        })
    }
}

impl Line {
    /// A line of the ISA bus where nothing is said about it.
    const fn of_isa(isa: u8) -> Self {
        Self {
            line: isa as u32,
            trigger: Trigger::Edge,
            polarity: Polarity::High,
        }
    }
}
