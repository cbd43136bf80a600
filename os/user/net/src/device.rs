//! The network card: packets in and out, for `smoltcp`.
//!
//! Each of the card's two queues has [`BUFFERS`] buffers of shared memory. What comes is copied out, so that its buffer goes back
//! to the card at once.
#![allow(unsafe_code)]

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use virtio_drivers::device::net::VirtIONetRaw;

use crate::memory::{self, Memory, QUEUES_BYTES};
use crate::once::Once;
use crate::transport::Plain;

/// Buffers of each queue.
const BUFFERS: usize = 16;
/// Bytes of each.
const BUFFER_BYTES: u64 = 2048;
/// The longest packet: an Ethernet frame with its header.
const PACKET_BYTES: usize = 1514;

/// What a buffer is for.
#[derive(Clone, Copy)]
enum Direction {
    In,
    Out,
}

/// A card that works.
pub(crate) struct Card {
    driver: Driver,
    /// The packet that came last.
    packet: [u8; PACKET_BYTES],
}

static CARD: Once<Option<Card>> = Once::new(None);

struct Driver {
    raw: VirtIONetRaw<Memory, Plain, BUFFERS>,
    /// For each number by which the driver names a packet that is under way: its buffer.
    coming: [u8; BUFFERS],
    /// The same, and how many bytes of the buffer the card was told of.
    going: [(u8, u16); BUFFERS],
    /// A bit for each buffer that could take a packet to be sent.
    free: u16,
}

/// # Safety
/// The card has not the buffer, and the slice ends before it gets it.
unsafe fn buffer<'a>(direction: Direction, index: u8) -> &'a mut [u8] {
    let number = match direction {
        Direction::In => usize::from(index),
        Direction::Out => BUFFERS + usize::from(index),
    };
    let bytes = memory::shared(QUEUES_BYTES + number as u64 * BUFFER_BYTES, BUFFER_BYTES);
    // SAFETY: it is mapped, initialised, and each buffer is a stretch of its own that the caller alone uses.
    unsafe { &mut *bytes.as_ptr() }
}

impl Card {
    /// Resets the card and begins to use it. `None` if it does not work as the standard says.
    ///
    /// # Panics
    /// If there is one already.
    #[inline(never)]
    pub(crate) fn begin(transport: Plain) -> Option<&'static mut Self> {
        let mut driver = Driver {
            raw: VirtIONetRaw::new(transport).ok()?,
            coming: [0; BUFFERS],
            going: [(0, 0); BUFFERS],
            free: u16::MAX,
        };
        for index in 0..BUFFERS as u8 {
            driver.begin_receive(index)?;
        }
        Some(CARD.take().insert(Self {
            driver,
            packet: [0; PACKET_BYTES],
        }))
    }

    /// Its address.
    pub(crate) fn address(&self) -> [u8; 6] {
        self.driver.raw.mac_address()
    }

    /// Whether it takes another packet to be sent.
    pub(crate) fn has_room(&self) -> bool {
        self.driver.free != 0
    }

    /// It does not interrupt any more for what has happened. What happens from then on makes it interrupt again.
    pub(crate) fn acknowledge(&mut self) {
        self.driver.raw.ack_interrupt();
    }
}

impl Driver {
    fn begin_receive(&mut self, index: u8) -> Option<()> {
        // SAFETY: the card does not have this buffer yet, or has given it back; nothing of it is used until the card gives it back.
        let token = unsafe { self.raw.receive_begin(buffer(Direction::In, index)) };
        *self.coming.get_mut(usize::from(token.ok()?))? = index;
        Some(())
    }

    /// Copies a packet that has come, if one has, and says how long it is.
    fn receive(&mut self, packet: &mut [u8; PACKET_BYTES]) -> Option<usize> {
        loop {
            let token = self.raw.poll_receive()?;
            let index = *self.coming.get(usize::from(token))?;
            // SAFETY: it is the buffer that was given under this number.
            let bytes = unsafe { buffer(Direction::In, index) };
            // SAFETY: likewise.
            let got = unsafe { self.raw.receive_complete(token, bytes) };
            let got = got.ok().and_then(|(header, len)| {
                let from = bytes.get(header..header.checked_add(len)?)?;
                packet.get_mut(..len)?.copy_from_slice(from);
                Some(len)
            });
            self.begin_receive(index)?;
            // What is too long is none.
            if got.is_some() {
                return got;
            }
        }
    }

    /// Takes back the buffers of packets that were sent.
    fn reclaim(&mut self) {
        while let Some(token) = self.raw.poll_transmit() {
            let Some((index, len)) = self.going.get(usize::from(token)).copied() else {
                return;
            };
            // SAFETY: it is the buffer, and so much of it, that was given under this number.
            let done = unsafe {
                let bytes = buffer(Direction::Out, index);
                self.raw
                    .transmit_complete(token, &bytes[..usize::from(len)])
            };
            if done.is_err() {
                return;
            }
            self.free |= 1 << index;
        }
    }

    fn transmit<R>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let index = self.free.trailing_zeros() as u8;
        assert!(self.free != 0, "a buffer was free when the token was made");
        // SAFETY: the buffer is free.
        let bytes = unsafe { buffer(Direction::Out, index) };
        let header = self.raw.fill_buffer_header(bytes).expect("a header fits");
        // No packet is longer than `capabilities` says.
        let result = fill(&mut bytes[header..header + len]);
        let len = header + len;
        // SAFETY: nobody uses the buffer until `reclaim` has found that the card has given it back.
        let token = unsafe { self.raw.transmit_begin(&bytes[..len]) };
        let going = token
            .ok()
            .and_then(|token| self.going.get_mut(usize::from(token)));
        // Otherwise the card did not take it, and it is lost, as packets may be.
        if let Some(going) = going {
            *going = (index, len as u16);
            self.free &= !(1 << index);
        }
        result
    }
}

/// A packet that has come.
pub(crate) struct Packet<'a>(&'a [u8]);

impl RxToken for Packet<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, look: F) -> R {
        look(self.0)
    }
}

/// Room for a packet to be sent.
pub(crate) struct Room<'a>(&'a mut Driver);

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        self.0.transmit(len, fill)
    }
}

impl Device for Card {
    type RxToken<'a> = Packet<'a>;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Packet<'_>, Room<'_>)> {
        self.driver.reclaim();
        // What comes can need an answer.
        if self.driver.free == 0 {
            return None;
        }
        let len = self.driver.receive(&mut self.packet)?;
        Some((Packet(&self.packet[..len]), Room(&mut self.driver)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        self.driver.reclaim();
        (self.driver.free != 0).then_some(Room(&mut self.driver))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = PACKET_BYTES;
        capabilities.max_burst_size = Some(BUFFERS);
        capabilities
    }
}
