//! Those of `spin`: who waits turns round and round. A lock is held for a few instructions, so threads of the same priority
//! hardly ever meet at one. On one processor, one of higher priority must not wait for one of lower.

pub(crate) use core::hint::spin_loop as yield_now;

#[derive(Debug, Default)]
pub(crate) struct Lock<T>(spin::Mutex<T>);

impl<T> Lock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(spin::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> spin::MutexGuard<'_, T> {
        self.0.lock()
    }

    pub(crate) fn try_lock(&self) -> Option<spin::MutexGuard<'_, T>> {
        self.0.try_lock()
    }
}

pub(crate) struct Once<T>(spin::Once<T>);

impl<T> Once<T> {
    pub(crate) const fn new() -> Self {
        Self(spin::Once::new())
    }

    pub(crate) fn get(&self) -> Option<&T> {
        self.0.get()
    }

    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        self.0.call_once(make)
    }
}
