//! Cards on PCI: section 4.1 of the Virtio standard.
//!
//! Configuration is reached by two I/O ports ("configuration mechanism 1" of the PCI Local Bus Specification, 3.2.2.3.2). Only the first bus is looked at.

use mielin_kernel::abi::{Error, Rights};

use super::{Card, Kind, PAGE_BYTES, PAGES_MAX};
use crate::boot::Information;
use crate::objects::Ports;
use crate::supplies::Supplies;

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
const ENABLED: u32 = 1 << 31;

const VENDOR: u32 = 0x1af4;
/// A network card, and one that older drivers know, too.
const NETWORKS: [u32; 2] = [0x1041, 0x1000];

const COMMAND: u8 = 0x04;
const COMMAND_MEMORY: u32 = 1 << 1;
const COMMAND_MASTER: u32 = 1 << 2;
const COMMAND_SILENT: u32 = 1 << 10;
const HAS_CAPABILITIES: u32 = 1 << 20;
const HEADER: u8 = 0x0c;
const HAS_FUNCTIONS: u32 = 1 << 23;
const FIRST_BASE: u8 = 0x10;
const BASES: u8 = 6;
const CAPABILITIES: u8 = 0x34;
const INTERRUPT: u8 = 0x3c;
const VENDOR_SPECIFIC: u32 = 9;
/// A function's configuration has no room for more capabilities.
const CAPABILITIES_MAX: usize = 48;

/// Lines of PCI on QEMU's `q35`: the function's pins go to the last four of eight lines that begin here, in turn (`ich9_cc_init`
/// of QEMU). Devices from this number on are the chip set's own, and have other lines.
const LINES_FIRST: u32 = 16 + 4;
const CHIP_SET_FIRST: u32 = 25;

/// A function's configuration.
#[derive(Clone, Copy)]
struct Function {
    ports: Ports,
    device: u32,
    function: u32,
}

impl Function {
    /// Where it is, in an address.
    fn place(self) -> u32 {
        self.device << 11 | self.function << 8
    }

    fn read(self, offset: u8) -> Result<u32, Error> {
        let address = ENABLED | self.place() | u32::from(offset & 0xfc);
        self.ports.write(ADDRESS, 4, address)?;
        self.ports.read(DATA, 4)
    }

    /// Has it answer to its addresses, reach memory, and interrupt.
    fn switch_on(self) -> Result<(), Error> {
        let command = self.read(COMMAND)? | COMMAND_MEMORY | COMMAND_MASTER;
        // The status beside it is not written: ones there would clear it.
        self.ports
            .write(DATA, 2, command & !COMMAND_SILENT & 0xffff)
    }

    fn is_network(self) -> Result<bool, Error> {
        let id = self.read(0)?;
        Ok(id & 0xffff == VENDOR && NETWORKS.contains(&(id >> 16)))
    }

    /// The base address and the length of what the structures use that a driver needs: common, notifications, interrupt status and the
    /// card's own. `None` if they are not all in one stretch of memory below 4 GiB.
    fn registers(self) -> Result<Option<(u64, u64)>, Error> {
        if self.read(COMMAND)? & HAS_CAPABILITIES == 0 {
            return Ok(None);
        }
        let mut next = self.read(CAPABILITIES)? as u8 & 0xfc;
        let (mut base, mut end, mut seen) = (None, 0, [false; 4]);
        for _ in 0..CAPABILITIES_MAX {
            if next == 0 {
                break;
            }
            let head = self.read(next)?;
            let kind = (head >> 24) as usize;
            let first = kind.checked_sub(1).and_then(|kind| seen.get_mut(kind));
            if head & 0xff == VENDOR_SPECIFIC
                && let Some(seen @ false) = first
            {
                *seen = true;
                let bar = self.read(next.wrapping_add(4))? as u8;
                if *base.get_or_insert(bar) != bar {
                    return Ok(None);
                }
                let offset = u64::from(self.read(next.wrapping_add(8))?);
                end = end.max(offset + u64::from(self.read(next.wrapping_add(12))?));
            }
            next = (head >> 8) as u8 & 0xfc;
        }
        let Some(bar) = base.filter(|bar| *bar < BASES && seen == [true; 4]) else {
            return Ok(None);
        };
        let low = self.read(FIRST_BASE + 4 * bar)?;
        let (is_io, is_long) = (low & 1 != 0, low >> 1 & 3 == 2);
        let high = match is_long && bar + 1 < BASES {
            true => self.read(FIRST_BASE + 4 * (bar + 1))?,
            false => 0,
        };
        let address = u64::from(low & !0xf);
        let fits = !is_io && high == 0 && address != 0 && address % PAGE_BYTES == 0;
        Ok(fits.then_some((address, end)))
    }

    fn line(self) -> Result<Option<u32>, Error> {
        let pin = self.read(INTERRUPT)? >> 8 & 0xff;
        let has = (1..=4).contains(&pin) && self.device < CHIP_SET_FIRST;
        Ok(has.then(|| LINES_FIRST + (self.device + pin - 1) % 4))
    }
}

impl Card {
    /// Takes the pages of its registers.
    fn take_pages(
        &mut self,
        supplies: &mut Supplies,
        information: Information,
    ) -> Result<(), Error> {
        let first = self.registers / PAGE_BYTES * PAGE_BYTES;
        let end = self.registers.saturating_add(self.registers_bytes);
        let mut at = first;
        for page in &mut self.pages {
            if at < end {
                *page = Some(supplies.device_page(information, at)?);
                at += PAGE_BYTES;
            }
        }
        if at < end {
            return Err(Error::InvalidArgument);
        }
        Ok(())
    }
}

pub(super) fn find(
    supplies: &mut Supplies,
    information: Information,
) -> Result<Option<Card>, Error> {
    let ports = information.ports();
    for device in 0..32 {
        let of = |function| Function {
            ports,
            device,
            function,
        };
        if of(0).read(0)? & 0xffff == 0xffff {
            continue;
        }
        let functions = match of(0).read(HEADER)? & HAS_FUNCTIONS {
            0 => 1,
            _ => 8,
        };
        for function in (0..functions).map(of) {
            if !function.is_network()? {
                continue;
            }
            let Some((registers, registers_bytes)) = function.registers()? else {
                continue;
            };
            if registers_bytes.div_ceil(PAGE_BYTES) > PAGES_MAX as u64 {
                continue;
            }
            let allowed = u64::from(ADDRESS) << 16 | u64::from(DATA + 3);
            let mut card = Card {
                kind: Kind::Pci,
                registers,
                registers_bytes,
                function: function.place().into(),
                line: function.line()?,
                pages: [None; PAGES_MAX],
                ports: Some(Ports(supplies.mint(ports.0, Rights::ALL, allowed)?)),
            };
            card.take_pages(supplies, information)?;
            function.switch_on()?;
            return Ok(Some(card));
        }
    }
    Ok(None)
}
