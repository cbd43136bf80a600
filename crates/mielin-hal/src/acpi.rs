//! ACPI's static tables: where a PC's interrupt controllers are, and which processors there are.
//!
//! Source: Advanced Configuration and Power Interface Specification 6.5, 5.2.5 (RSDP), 5.2.6 to 5.2.8 (headers, RSDT,
//! XSDT), 5.2.12 (MADT). Tables come from outside, so everything in them is checked before it is used: nothing in here
//! panics or allocates, whatever the bytes are, and no more of them are read than [`TABLE_BYTES_MAX`] for a table.
//! AML, the language of the other tables, is not read.
//!
//! ```
//! use mielin_hal::acpi::Acpi;
//!
//! # fn of(memory: &[u8]) -> Option<()> {
//! // However a kernel reaches physical memory.
//! let physical = |address: u64, len: usize| {
//!     let begin = usize::try_from(address).ok()?;
//!     memory.get(begin..begin.checked_add(len)?)
//! };
//! let madt = Acpi::search(physical).ok()?.madt().ok()?;
//! // The timer of the first PCs, wherever this board has it.
//! let timer = madt.isa_line(0);
//! let controller = madt.io_apics().find(|controller| controller.first_line <= timer.line)?;
//! # Some(())
//! # }
//! ```

mod madt;

use core::fmt;

pub use madt::{IoApicAt, Line, Madt, Override, Processor};

/// The longest table that is read.
pub const TABLE_BYTES_MAX: usize = 1 << 20;

/// 5.2.5.1: where firmware of PCs puts the root pointer, at a multiple of 16.
const BIOS: u64 = 0xe_0000;
const BIOS_BYTES: usize = 0x2_0000;
/// Where the segment of the extended BIOS data area stands, in the first kilobyte of which the root pointer may be, too.
const EXTENDED_AREA_SEGMENT: u64 = 0x40e;
const EXTENDED_AREA_BYTES: usize = 1024;
const ROOT_ALIGNMENT: usize = 16;

const ROOT_SIGNATURE: &[u8; 8] = b"RSD PTR ";
/// The part of the root pointer that is as old as ACPI 1.0.
const ROOT_BYTES_1: usize = 20;
/// And with what came after.
const ROOT_BYTES_2: usize = 36;

/// What is before everything else in a table.
const HEADER_BYTES: usize = 36;

/// What is wrong with a machine's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AcpiError {
    /// Nowhere is a root pointer.
    NoRoot,
    /// There is no table with this signature.
    NoTable([u8; 4]),
    /// The tables lead to bytes that cannot be read.
    Unreadable {
        /// Where they begin.
        address: u64,
        /// How many they are.
        len: usize,
    },
    /// The bytes at this address do not add up to zero.
    Checksum(u64),
    /// The table at this address is not what led to it says, or shorter than it must be, or too long.
    Malformed(u64),
}

impl fmt::Display for AcpiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoot => f.write_str("firmware has left no ACPI tables"),
            Self::NoTable(signature) => {
                write!(f, "there is no ACPI table {}", signature.escape_ascii())
            }
            Self::Unreadable { address, len } => {
                write!(
                    f,
                    "{len} bytes of ACPI tables at {address:#x} cannot be read"
                )
            }
            Self::Checksum(address) => {
                write!(f, "the ACPI table at {address:#x} has a wrong checksum")
            }
            Self::Malformed(address) => write!(f, "the ACPI table at {address:#x} is damaged"),
        }
    }
}

impl core::error::Error for AcpiError {}

/// The tables of a machine, read by `F`: a function that gives `len` bytes of physical memory from an address on, or `None` if they
/// are not all there to be read.
#[derive(Clone, Copy, Debug)]
pub struct Acpi<F> {
    read: F,
    root: Root,
}

/// The table of tables.
#[derive(Clone, Copy, Debug)]
struct Root {
    address: u64,
    signature: [u8; 4],
    /// Bytes of an address in it.
    entry_bytes: usize,
}

impl<'m, F: Fn(u64, usize) -> Option<&'m [u8]>> Acpi<F> {
    /// Looks for the root pointer where firmware of PCs leaves it (5.2.5.1). Of several, the first that is whole counts.
    ///
    /// # Errors
    /// [`AcpiError::NoRoot`].
    pub fn search(read: F) -> Result<Self, AcpiError> {
        let segment = read(EXTENDED_AREA_SEGMENT, 2).and_then(|bytes| number(bytes, 0, 2));
        let extended = segment.map(|segment| (segment << 4, EXTENDED_AREA_BYTES));
        let areas = extended.into_iter().chain([(BIOS, BIOS_BYTES)]);
        let root = areas
            .flat_map(|(begin, len)| {
                (0..len)
                    .step_by(ROOT_ALIGNMENT)
                    .map(move |at| begin + at as u64)
            })
            .filter(|address| read(*address, 8).is_some_and(|bytes| bytes == ROOT_SIGNATURE))
            .find_map(|address| Root::read(&read, address).ok());
        let root = root.ok_or(AcpiError::NoRoot)?;
        Ok(Self { read, root })
    }

    /// With the root pointer at this address, as UEFI and some loaders say it.
    ///
    /// # Errors
    /// [`AcpiError`] says what is wrong with it.
    pub fn at(address: u64, read: F) -> Result<Self, AcpiError> {
        let root = Root::read(&read, address)?;
        Ok(Self { read, root })
    }

    /// The table with this signature, header and all, or the first of several. It is as long as it says and its checksum is
    /// right.
    ///
    /// # Errors
    /// [`AcpiError`]. Other tables that are damaged are passed over.
    pub fn table(&self, signature: [u8; 4]) -> Result<Table<'m>, AcpiError> {
        let root = Table::read(&self.read, self.root.address, self.root.signature)?;
        root.body()
            .chunks_exact(self.root.entry_bytes)
            .filter_map(|entry| number(entry, 0, entry.len()))
            .find(|address| {
                (self.read)(*address, 4).is_some_and(|bytes| bytes == signature.as_slice())
            })
            .ok_or(AcpiError::NoTable(signature))
            .and_then(|address| Table::read(&self.read, address, signature))
    }

    /// The interrupt controllers and processors.
    ///
    /// # Errors
    /// [`AcpiError`]: among others, a machine may have no such table.
    pub fn madt(&self) -> Result<Madt<'m>, AcpiError> {
        Madt::new(self.table(Madt::SIGNATURE)?)
    }
}

impl Root {
    fn read<'m>(
        read: &impl Fn(u64, usize) -> Option<&'m [u8]>,
        address: u64,
    ) -> Result<Self, AcpiError> {
        let get = |len| read_at(read, address, len);
        let malformed = AcpiError::Malformed(address);
        let old = get(ROOT_BYTES_1)?;
        if old.get(..8) != Some(ROOT_SIGNATURE) {
            return Err(malformed);
        }
        check_sum(old, address)?;
        let field = |bytes, at, len| number(bytes, at, len).ok_or(malformed);
        // 0 is ACPI 1.0.
        if field(old, 15, 1)? >= 2 {
            let len = field(get(ROOT_BYTES_2)?, 20, 4)? as usize;
            if !(ROOT_BYTES_2..=TABLE_BYTES_MAX).contains(&len) {
                return Err(malformed);
            }
            let whole = get(len)?;
            check_sum(whole, address)?;
            let address = field(whole, 24, 8)?;
            if address != 0 {
                return Ok(Self {
                    address,
                    signature: *b"XSDT",
                    entry_bytes: 8,
                });
            }
        }
        Ok(Self {
            address: field(old, 16, 4)?,
            signature: *b"RSDT",
            entry_bytes: 4,
        })
    }
}

/// A table that is whole.
#[derive(Clone, Copy, Debug)]
pub struct Table<'m> {
    address: u64,
    bytes: &'m [u8],
}

impl<'m> Table<'m> {
    fn read(
        read: &impl Fn(u64, usize) -> Option<&'m [u8]>,
        address: u64,
        signature: [u8; 4],
    ) -> Result<Self, AcpiError> {
        let malformed = AcpiError::Malformed(address);
        let header = read_at(read, address, HEADER_BYTES)?;
        if header.get(..4) != Some(&signature) {
            return Err(malformed);
        }
        let len = number(header, 4, 4).ok_or(malformed)? as usize;
        if !(HEADER_BYTES..=TABLE_BYTES_MAX).contains(&len) {
            return Err(malformed);
        }
        let bytes = read_at(read, address, len)?;
        check_sum(bytes, address)?;
        Ok(Self { address, bytes })
    }

    /// Where it is.
    #[must_use]
    pub const fn address(&self) -> u64 {
        self.address
    }

    /// All of it.
    #[must_use]
    pub const fn bytes(&self) -> &'m [u8] {
        self.bytes
    }

    /// What follows the header.
    #[must_use]
    pub fn body(&self) -> &'m [u8] {
        self.bytes.get(HEADER_BYTES..).unwrap_or(&[])
    }
}

/// So many bytes, and no others.
fn read_at<'m>(
    read: &impl Fn(u64, usize) -> Option<&'m [u8]>,
    address: u64,
    len: usize,
) -> Result<&'m [u8], AcpiError> {
    read(address, len)
        .filter(|bytes| bytes.len() == len)
        .ok_or(AcpiError::Unreadable { address, len })
}

fn check_sum(bytes: &[u8], address: u64) -> Result<(), AcpiError> {
    match bytes
        .iter()
        .fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
    {
        0 => Ok(()),
        _ => Err(AcpiError::Checksum(address)),
    }
}

/// The number of `len` bytes at some place, the lowest first.
fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(len)?)?;
    let number = |number, byte: &u8| number << 8 | u64::from(*byte);
    Some(bytes.iter().rev().fold(0, number))
}

#[cfg(test)]
mod tests;
