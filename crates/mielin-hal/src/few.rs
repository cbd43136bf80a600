//! Up to a fixed number of things, without allocation.

use core::fmt;

/// Up to `N` values in order. What does not fit any more is left out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Few<T, const N: usize> {
    values: [Option<T>; N],
}

impl<T: Copy, const N: usize> Few<T, N> {
    /// None yet.
    pub(crate) const EMPTY: Self = Self { values: [None; N] };

    /// Adds a value, if there is room.
    pub(crate) fn push(&mut self, value: T) {
        if let Some(free) = self.values.iter_mut().find(|place| place.is_none()) {
            *free = Some(value);
        }
    }

    /// The values.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.values.iter().flatten()
    }

    #[cfg(all(feature = "std", target_os = "linux"))]
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.values.iter_mut().flatten()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[cfg(all(feature = "std", any(test, target_os = "linux", target_os = "macos")))]
    pub(crate) fn sort_by_key<K: Ord>(&mut self, key: impl Fn(&T) -> K) {
        let len = self.len();
        self.values[..len].sort_by_key(|value| value.as_ref().map(&key));
    }
}

impl<T: Copy, const N: usize> Default for Few<T, N> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<T: Copy + fmt::Debug, const N: usize> fmt::Debug for Few<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
