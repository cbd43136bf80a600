//! How the card is reached, by architecture: in memory, or on PCI.
#![allow(unsafe_code)]

use mielin_user::net::card::Kind;
use virtio_drivers::PhysAddr;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use zerocopy::{FromBytes, Immutable, IntoBytes};

#[cfg(not(target_arch = "x86_64"))]
pub(crate) use memory::open;
#[cfg(target_arch = "x86_64")]
pub(crate) use pci::open;

/// What of a card's transport is needed to open it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) kind: Option<Kind>,
    /// Where its registers are mapped; on PCI they are found by [`Memory`](crate::memory::Memory).
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) at: u64,
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) bytes: u64,
    /// On PCI: its bus, device and function.
    #[cfg(target_arch = "x86_64")]
    pub(crate) function: u64,
}

#[cfg(not(target_arch = "x86_64"))]
mod memory {
    use core::ptr::NonNull;

    use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};

    use super::*;

    pub(super) type Inner = MmioTransport<'static>;

    /// Opens the card whose registers are mapped there.
    ///
    /// # Safety
    /// They are, as long as the program runs, and nobody else uses them.
    pub(crate) unsafe fn open(place: &Place) -> Option<Plain> {
        if place.kind != Some(Kind::Memory) {
            return None;
        }
        let header = core::ptr::with_exposed_provenance_mut::<VirtIOHeader>(place.at as usize);
        let header = NonNull::new(header)?;
        // SAFETY: by the caller's promise; the address is a multiple of 0x200, as the registers' physical one.
        let inner = unsafe { MmioTransport::new(header, place.bytes as usize) };
        inner.ok().map(Plain)
    }
}

#[cfg(target_arch = "x86_64")]
mod pci {
    use mielin_user::Cap;
    use mielin_user::net::slot;
    use mielin_user::objects::Ports;
    use virtio_drivers::transport::pci::PciTransport;
    use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction, PciRoot};

    use super::*;
    use crate::memory::Memory;

    pub(super) type Inner = PciTransport;

    const ADDRESS: u16 = 0xcf8;
    const DATA: u16 = 0xcfc;
    const ENABLED: u32 = 1 << 31;

    /// PCI's configuration, by its ports.
    struct Configuration(Ports);

    impl Configuration {
        fn select(&self, function: DeviceFunction, offset: u8) {
            let bus = u32::from(function.bus) << 16;
            let function = u32::from(function.device) << 11 | u32::from(function.function) << 8;
            let address = ENABLED | bus | function | u32::from(offset & 0xfc);
            // Without the ports, what is read says that there is no device.
            let _ = self.0.write(ADDRESS, 4, address);
        }
    }

    impl ConfigurationAccess for Configuration {
        fn read_word(&self, function: DeviceFunction, offset: u8) -> u32 {
            self.select(function, offset);
            self.0.read(DATA, 4).unwrap_or(u32::MAX)
        }

        fn write_word(&mut self, function: DeviceFunction, offset: u8, data: u32) {
            self.select(function, offset);
            // As in `select`.
            let _ = self.0.write(DATA, 4, data);
        }

        unsafe fn unsafe_clone(&self) -> Self {
            Self(self.0)
        }
    }

    /// Opens the card that was found on PCI.
    ///
    /// # Safety
    /// Its registers are mapped where [`Memory`] says, as long as the program runs, and nobody else uses them.
    pub(crate) unsafe fn open(place: &Place) -> Option<Plain> {
        if place.kind != Some(Kind::Pci) {
            return None;
        }
        let function = DeviceFunction {
            bus: (place.function >> 16) as u8,
            device: (place.function >> 11 & 31) as u8,
            function: (place.function >> 8 & 7) as u8,
        };
        let mut root = PciRoot::new(Configuration(Ports(Cap(slot::PORTS))));
        let inner = PciTransport::new::<Memory, _>(&mut root, function);
        inner.ok().map(Plain)
    }
}

#[cfg(not(target_arch = "x86_64"))]
use memory::Inner;
#[cfg(target_arch = "x86_64")]
use pci::Inner;

/// A transport that offers neither `RING_EVENT_IDX` nor `RING_INDIRECT_DESC`: version 0.13 of the driver compares the
/// indexes of the former without their wrap-around (`VirtQueue::should_notify`), and would stop to tell the card of
/// packets after 65,535 of them.
pub(crate) struct Plain(Inner);

const RING_INDIRECT_DESC: u64 = 1 << 28;
const RING_EVENT_IDX: u64 = 1 << 29;

impl Transport for Plain {
    fn read_device_features(&mut self) -> u64 {
        self.0.read_device_features() & !(RING_INDIRECT_DESC | RING_EVENT_IDX)
    }

    fn device_type(&self) -> DeviceType {
        self.0.device_type()
    }

    fn write_driver_features(&mut self, features: u64) {
        self.0.write_driver_features(features);
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.0.max_queue_size(queue)
    }

    fn notify(&mut self, queue: u16) {
        self.0.notify(queue);
    }

    fn get_status(&self) -> DeviceStatus {
        self.0.get_status()
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.0.set_status(status);
    }

    fn set_guest_page_size(&mut self, bytes: u32) {
        self.0.set_guest_page_size(bytes);
    }

    fn requires_legacy_layout(&self) -> bool {
        self.0.requires_legacy_layout()
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver: PhysAddr,
        device: PhysAddr,
    ) {
        self.0.queue_set(queue, size, descriptors, driver, device);
    }

    fn queue_unset(&mut self, queue: u16) {
        self.0.queue_unset(queue);
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.0.queue_used(queue)
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        self.0.ack_interrupt()
    }

    fn read_config_generation(&self) -> u32 {
        self.0.read_config_generation()
    }

    fn read_config_space<T: FromBytes + IntoBytes>(
        &self,
        offset: usize,
    ) -> virtio_drivers::Result<T> {
        self.0.read_config_space(offset)
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        offset: usize,
        value: T,
    ) -> virtio_drivers::Result<()> {
        self.0.write_config_space(offset, value)
    }
}
