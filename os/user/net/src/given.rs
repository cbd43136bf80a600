//! The capabilities for the card that the server has been given, and how they are used.
#![allow(unsafe_code)]

use mielin_user::net::card::{Kind, PAGES_MAX};
use mielin_user::net::{argument, slot};
use mielin_user::objects::{Frame, Interrupt, Notification};
use mielin_user::{Cap, Error, Rights, Startup, Supplies};

use crate::device::Card;
use crate::memory;
use crate::transport::{self, Place};

/// The badge by which the card's interrupt is told from clients, which have smaller ones.
pub(crate) const INTERRUPTS: u64 = 1 << 63;
const PAGE_BYTES: u64 = 4096;

/// Maps what the server has been given of the card, and begins to use it. Not inlined, as what else is done once, so that it takes no stack
/// afterwards.
#[inline(never)]
pub(crate) fn open_card(
    startup: Startup,
    supplies: &mut Supplies,
) -> Result<Option<&'static mut Card>, Error> {
    let kind = Kind::from_number(startup.argument(argument::KIND));
    let registers = startup.argument(argument::REGISTERS);
    let bytes = startup.argument(argument::REGISTERS_BYTES);
    let skipped = registers % PAGE_BYTES;
    let pages = skipped.saturating_add(bytes).div_ceil(PAGE_BYTES);
    if kind.is_none() || pages > PAGES_MAX as u64 {
        return Ok(None);
    }
    let rights = Rights::READ.or(Rights::WRITE);
    let space = supplies.space();
    let shared = Frame(Cap(slot::SHARED));
    let shared_at = supplies.addresses(memory::SHARED_BYTES);
    supplies.map(shared, space, shared_at, rights)?;
    let physical = shared.address()?;
    let registers_at = supplies.addresses(pages * PAGE_BYTES);
    for page in 0..pages {
        let frame = Frame(Cap(slot::REGISTERS + page));
        let at = registers_at + page * PAGE_BYTES;
        supplies.map(frame, space, at, rights)?;
    }
    let base = registers_at + skipped;
    let place = Place {
        kind,
        #[cfg(not(target_arch = "x86_64"))]
        at: base,
        #[cfg(not(target_arch = "x86_64"))]
        bytes,
        #[cfg(target_arch = "x86_64")]
        function: startup.argument(argument::FUNCTION),
    };
    // SAFETY: both are mapped just now, as whoever started the program says that they are: a frame of 2 MiB that is this program's and the
    // card's, and the card's registers.
    let transport = unsafe {
        memory::share(shared_at, physical);
        memory::map_registers(base, registers, bytes);
        transport::open(&place)
    };
    Ok(transport.and_then(Card::begin))
}

/// Has the card's interrupts come as messages to this thread, if there is a line.
pub(crate) fn begin_interrupts(
    startup: Startup,
    supplies: &mut Supplies,
) -> Result<Option<Interrupt>, Error> {
    let notification = supplies.notification()?;
    let raises = Notification(supplies.mint(notification.0, Rights::WRITE, INTERRUPTS)?);
    let interrupt = Interrupt(Cap(slot::INTERRUPT));
    match interrupt.bind(Some(raises)) {
        Ok(()) => {}
        Err(Error::NoCapability) => return Ok(None),
        Err(error) => return Err(error),
    }
    startup.thread().bind(Some(notification))?;
    Ok(Some(interrupt))
}
