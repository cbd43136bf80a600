//! Cards whose registers are in memory: section 4.2 of the Virtio standard.
#![allow(unsafe_code)]

use mielin_hal::drivers::Registers;
use mielin_hal::{DeviceTree, Node};
use mielin_kernel::abi::{Error, Rights};

use super::{Card, Kind, PAGE_BYTES, PAGES_MAX};
use crate::boot::Information;
use crate::objects::Frame;
use crate::supplies::Supplies;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const DEVICE: usize = 8;
const NETWORK: u32 = 1;
/// What comes before the registers of one kind of device.
const COMMON_BYTES: u64 = 0x100;

/// In the device tree of 64-bit Arm an interrupt is three numbers: 0 for one that processors share, and its line less 32.
const SHARED_FIRST: u32 = 32;

pub(super) fn find(
    supplies: &mut Supplies,
    information: Information,
) -> Result<Option<Card>, Error> {
    let Ok(tree) = DeviceTree::new(information.firmware()) else {
        return Ok(None);
    };
    let buses = [Some(tree.root()), tree.find("/soc")];
    let mut window = Window {
        at: supplies.addresses(PAGE_BYTES),
        page: None,
    };
    for bus in buses.into_iter().flatten() {
        let nodes = bus.children();
        for node in nodes.filter(|node| node.texts("compatible").any(|it| it == "virtio,mmio")) {
            let Some((at, bytes)) = node.regions(&bus).next() else {
                continue;
            };
            if bytes < COMMON_BYTES || at % PAGE_BYTES + bytes > PAGE_BYTES {
                continue;
            }
            if let Some(frame) = window.take_if_network(supplies, information, at)? {
                return Ok(Some(Card::in_memory(frame, at, bytes, line(node))));
            }
        }
    }
    window.close(supplies)?;
    Ok(None)
}

/// The interrupt line of a device.
fn line(node: Node<'_>) -> Option<u32> {
    let cells = node.property("interrupts")?;
    let mut cells = cells
        .chunks_exact(4)
        .map(|cell| cell.iter().fold(0, |all, byte| all << 8 | u32::from(*byte)));
    match (cells.next()?, cells.next(), cells.next()) {
        (line, None, None) => Some(line),
        (0, Some(line), Some(_)) => line.checked_add(SHARED_FIRST),
        _ => None,
    }
}

/// Where pages of registers are looked at.
struct Window {
    at: u64,
    /// The page that is there, and its physical address.
    page: Option<(u64, Frame)>,
}

impl Window {
    /// The page of the registers at a physical address, if they are a network card's; nobody has mapped it then.
    fn take_if_network(
        &mut self,
        supplies: &mut Supplies,
        information: Information,
        at: u64,
    ) -> Result<Option<Frame>, Error> {
        let page = at / PAGE_BYTES * PAGE_BYTES;
        let frame = match self.page {
            Some((old, frame)) if old == page => frame,
            _ => {
                self.close(supplies)?;
                let frame = supplies.device_page(information, page)?;
                self.page = Some((page, frame));
                let rights = Rights::READ.or(Rights::WRITE);
                supplies.map(frame, supplies.space(), self.at, rights)?;
                frame
            }
        };
        let base = (self.at + at % PAGE_BYTES) as usize;
        // SAFETY: the page is mapped there, and it is as the device tree says; the value is used in this function only, for reading
        // what changes nothing.
        let registers = unsafe { Registers::new(base, COMMON_BYTES as usize) };
        if registers.read32(0) != MAGIC || registers.read32(DEVICE) != NETWORK {
            return Ok(None);
        }
        self.page = None;
        frame.unmap()?;
        Ok(Some(frame))
    }

    /// Gives back the page that is there.
    fn close(&mut self, supplies: &mut Supplies) -> Result<(), Error> {
        if let Some((_, frame)) = self.page.take() {
            supplies.node().delete(supplies.index(frame.0))?;
        }
        Ok(())
    }
}

impl Card {
    fn in_memory(frame: Frame, at: u64, bytes: u64, line: Option<u32>) -> Self {
        let mut pages = [None; PAGES_MAX];
        pages[0] = Some(frame);
        Self {
            kind: Kind::Memory,
            registers: at,
            registers_bytes: bytes,
            function: 0,
            line,
            pages,
            ports: None,
        }
    }
}
