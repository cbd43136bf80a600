//! Pages of devices, cut from the first thread's device memory.

use mielin_kernel::abi::{Error, ObjectKind};

use crate::boot::Information;
use crate::objects::{Frame, Untyped};
use crate::supplies::Supplies;

/// Halving a gigabyte until a page is left makes 19 parts; further pages nearby, a few more.
const PARTS_MAX: usize = 64;
const PAGE_BITS: u8 = mielin_kernel::abi::PAGE_BITS;

/// What became of device memory of which pages were taken: parts that do not overlap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceParts {
    parts: [Part; PARTS_MAX],
    len: usize,
}

/// An untyped.
#[derive(Clone, Copy, Debug)]
struct Part {
    untyped: Untyped,
    bits: u8,
    base: u64,
}

impl Part {
    fn has(&self, address: u64) -> bool {
        address >= self.base && (address - self.base) >> self.bits == 0
    }
}

impl DeviceParts {
    pub(crate) const NONE: Self = Self {
        parts: [Part {
            untyped: Untyped(crate::Cap(0)),
            bits: 0,
            base: 0,
        }; PARTS_MAX],
        len: 0,
    };

    fn add(&mut self, part: Part) -> Result<usize, Error> {
        let index = self.len;
        *self.parts.get_mut(index).ok_or(Error::NoMemory)? = part;
        self.len += 1;
        Ok(index)
    }
}

impl Supplies {
    /// The page of a device at a physical address, of the first thread's device memory. Frames are cut from the beginning of an
    /// untyped, so that this halves it until the page is one. When the frame is deleted, the page can be taken again.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if no device memory is there; [`Error::NoMemory`] if the page was taken already, or others of that memory by
    /// other supplies.
    pub fn device_page(&mut self, information: Information, address: u64) -> Result<Frame, Error> {
        let known = &self.devices.parts[..self.devices.len];
        let index = match known.iter().position(|part| part.has(address)) {
            Some(index) => index,
            None => {
                let mut all = information.untypeds().filter(|untyped| untyped.device);
                let part = all.find_map(|untyped| {
                    let part = Part {
                        untyped: untyped.untyped,
                        bits: untyped.bits,
                        base: untyped.base,
                    };
                    part.has(address).then_some(part)
                });
                self.devices.add(part.ok_or(Error::InvalidArgument)?)?
            }
        };
        while self.devices.parts[index].bits > PAGE_BITS {
            let Part {
                untyped,
                bits,
                base,
            } = self.devices.parts[index];
            let bits = bits - 1;
            let halves = self.slots(2)?;
            untyped.retype(ObjectKind::Untyped, bits, 2, self.node(), halves)?;
            let half = |number: u64| Part {
                untyped: Untyped(self.cap(halves + number)),
                bits,
                base: base + (number << bits),
            };
            let upper = u64::from(half(1).has(address));
            let (one, other) = (half(upper), half(1 - upper));
            self.devices.parts[index] = one;
            self.devices.add(other)?;
        }
        let slot = self.slot()?;
        let page = self.devices.parts[index].untyped;
        page.retype(ObjectKind::Frame, PAGE_BITS, 1, self.node(), slot)?;
        Ok(Frame(self.cap(slot)))
    }
}
