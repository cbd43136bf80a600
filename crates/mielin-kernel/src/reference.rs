//! Where an object is.

use core::fmt;
use core::hash::{Hash, Hasher};
use core::marker::PhantomData;
use core::num::NonZeroU32;

/// Objects begin at multiples of so many bytes: a [`Ref`] counts in them.
pub const UNIT_BYTES: u64 = 16;

/// The first physical address behind the memory in which kernel objects can be: 64 GiB.
pub const OBJECTS_END: u64 = (u32::MAX as u64 + 1) * UNIT_BYTES;

/// The physical address of an object of type `T`.
///
/// It is a promise that the object is there: the core makes one only for memory that it has just made a `T`, and has none
/// left when the memory goes back to its untyped. The tests' memory checks each use.
pub struct Ref<T>(NonZeroU32, PhantomData<fn() -> T>);

impl<T> Ref<T> {
    /// The object at this physical address. `None` if none can be there.
    #[must_use]
    pub const fn at(address: u64) -> Option<Self> {
        if !address.is_multiple_of(UNIT_BYTES) || address >= OBJECTS_END {
            return None;
        }
        match NonZeroU32::new((address / UNIT_BYTES) as u32) {
            Some(units) => Some(Self(units, PhantomData)),
            None => None,
        }
    }

    /// Its physical address.
    #[must_use]
    #[inline(always)]
    pub const fn address(self) -> u64 {
        self.0.get() as u64 * UNIT_BYTES
    }

    /// Another object, so many units of [`UNIT_BYTES`] behind the beginning of this one.
    #[must_use]
    #[inline(always)]
    pub(crate) const fn offset<U>(self, units: i32) -> Ref<U> {
        // One look is enough, and this is everywhere: an object's parts are in the memory that it is in.
        match NonZeroU32::new(self.0.get().wrapping_add_signed(units)) {
            Some(at) => Ref(at, PhantomData),
            None => panic!("no object is at address zero"),
        }
    }

    /// Another object, so many units of [`UNIT_BYTES`] behind the beginning of this one.
    #[must_use]
    #[inline(always)]
    pub(crate) const fn after<U>(self, units: u32) -> Ref<U> {
        match self.0.checked_add(units) {
            Some(at) => Ref(at, PhantomData),
            None => panic!("an object of the kernel lies within its memory"),
        }
    }

    pub(crate) const fn units(self) -> NonZeroU32 {
        self.0
    }

    pub(crate) const fn from_units(units: NonZeroU32) -> Self {
        Self(units, PhantomData)
    }
}

impl<T> Clone for Ref<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Ref<T> {}

impl<T> PartialEq for Ref<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T> Eq for Ref<T> {}

impl<T> Hash for Ref<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<T> fmt::Debug for Ref<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.address())
    }
}
