//! Finding the network card, for the first thread, which has all devices: a network device of the Virtio standard (1.x),
//! by memory (`virtio,mmio` of the device tree) or on the first bus of PCI.

#[cfg(not(target_arch = "x86_64"))]
mod memory;
#[cfg(target_arch = "x86_64")]
mod pci;

use mielin_kernel::abi::{Error, ObjectKind};

use super::{argument, slot};
use crate::boot::Information;
use crate::objects::{Cap, Frame, Ports};
use crate::supplies::Supplies;

/// Pages of registers that a card can have.
pub const PAGES_MAX: usize = 8;

/// How it is reached: the value of [`argument::KIND`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its registers are in memory.
    Memory = 1,
    /// It is on PCI.
    Pci = 2,
}

impl Kind {
    /// The one with this number.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        [Self::Memory, Self::Pci]
            .into_iter()
            .find(|kind| *kind as u64 == number)
    }
}

/// A network card that was found.
#[derive(Clone, Copy, Debug)]
pub struct Card {
    kind: Kind,
    /// The physical address of its registers.
    registers: u64,
    registers_bytes: u64,
    function: u64,
    /// Its interrupt line, if it is known.
    pub line: Option<u32>,
    pages: [Option<Frame>; PAGES_MAX],
    ports: Option<Ports>,
}

impl Card {
    /// The card's part of the server's arguments; those behind it say what address this machine has.
    #[must_use]
    pub fn arguments(&self) -> [u64; argument::ADDRESS] {
        let mut all = [0; argument::ADDRESS];
        all[argument::KIND] = self.kind as u64;
        all[argument::REGISTERS] = self.registers;
        all[argument::REGISTERS_BYTES] = self.registers_bytes;
        all[argument::FUNCTION] = self.function;
        all
    }

    /// The capabilities that the server is given copies of, with the slots where it looks for them. Beside them it needs
    /// [`slot::SHARED`] and [`slot::INTERRUPT`]: the line, which cannot be copied, is claimed for the server's own node.
    pub fn capabilities(&self) -> impl Iterator<Item = (u64, Cap)> {
        let pages = self.pages.into_iter().flatten();
        let pages = (slot::REGISTERS..).zip(pages.map(|Frame(cap)| cap));
        let ports = self.ports.map(|Ports(cap)| (slot::PORTS, cap));
        pages.chain(ports)
    }
}

/// The frame that the server shares with the card: [`slot::SHARED`].
///
/// # Errors
/// What the kernel says.
pub fn shared_memory(supplies: &mut Supplies) -> Result<Frame, Error> {
    supplies.object(ObjectKind::Frame, 21).map(Frame)
}

const PAGE_BYTES: u64 = 4096;

/// Finds the first network card, and takes its registers. `None` if there is none.
///
/// # Errors
/// What the kernel says.
#[cfg(not(target_arch = "x86_64"))]
pub fn find(supplies: &mut Supplies, information: Information) -> Result<Option<Card>, Error> {
    memory::find(supplies, information)
}

/// Finds the first network card, and takes its registers. `None` if there is none.
///
/// # Errors
/// What the kernel says.
#[cfg(target_arch = "x86_64")]
pub fn find(supplies: &mut Supplies, information: Information) -> Result<Option<Card>, Error> {
    pci::find(supplies, information)
}
