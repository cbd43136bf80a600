//! The frames memory as seen from outside the program: the poll word, which other threads may turn
//! from "running" to "stop", and the saved stack behind it.
#![allow(unsafe_code)]

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

use mielin_safepoint::abi;

use crate::sync::{Lock, yield_now};

const FLAG: usize = abi::FLAG_ADDRESS as usize;
const NEXT_FLAG: usize = abi::NEXT_FLAG_ADDRESS as usize;
const STACK_POINTER: usize = abi::STACK_POINTER_ADDRESS as usize;
const BASE: usize = abi::FRAMES_BASE as usize;

/// How often a request looks again at a program that is entering its saved frames. That takes
/// microseconds; a module that never finishes it is not one that the rewriter made.
const REWIND_LOOKS: u32 = 100_000;

/// The frames memory of a live instance. All accesses go through raw pointers or atomics, because
/// a Rust reference to the whole memory would alias the poll word that other threads write.
#[derive(Debug)]
pub(crate) struct Frames {
    base: NonNull<u8>,
    bytes: usize,
    shared: Arc<Shared>,
}

// SAFETY: `base` points to memory owned by the store that lives beside this value in an instance
// and moves between threads with it; see `Frames::new`.
unsafe impl Send for Frames {}

/// Asks a program to stop, from any thread; from an interrupt, which must not wait for the one that it interrupts, by
/// [`try_request`](StopHandle::try_request). Cheap to clone; does not keep the instance alive.
///
/// A request stops the run that is under way at its next safepoint, or, if none is, the next run at
/// its first safepoint (so even that run makes some progress). It is never lost, and it is used up
/// by the run that it is for, in whichever way that run ends: after [`Instance::run`] has come
/// back, no request made before is outstanding. A request to an instance that is gone does nothing.
///
/// [`Instance::run`]: crate::Instance::run
#[derive(Clone, Debug)]
pub struct StopHandle {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Lock<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The poll word; none once the instance is gone.
    word: Option<Word>,
    running: bool,
    /// A request that no run has seen yet.
    requested: bool,
}

/// Pointers to the poll word and to the value that it takes after a rewind, which may be used while
/// the state's lock is held.
#[derive(Debug)]
struct Word {
    flag: NonNull<AtomicU32>,
    next: NonNull<AtomicU32>,
}

// SAFETY: it points to atomics, and is only used under the lock of the state that holds it, which
// `Frames::drop` takes to remove it before the memory goes.
unsafe impl Send for Word {}

impl Word {
    /// The poll word.
    fn flag(&self) -> &AtomicU32 {
        // SAFETY: the memory is alive: `Frames` removes this `Word` under the lock before it goes,
        // and `&self` is only reachable through the locked state. The word is aligned (as
        // `Frames::new` requires) and every access from Rust is atomic. The program itself accesses it by
        // ordinary loads and stores: under wasmtime those are machine instructions outside Rust's
        // memory model, where an aligned 32-bit access is single; wasmi's interpreter performs them
        // as plain Rust reads and writes of its buffer, formally a race. It is benign by
        // construction: from outside only 0 → 1 is ever exchanged, an interpreter cannot keep the
        // word in a register from one guest instruction to the next, because any of them may store
        // to the buffer, and a copy of four aligned bytes is one machine access on every supported
        // machine.
        unsafe { self.flag.as_ref() }
    }

    /// What the program puts into the poll word when it has entered its frames.
    fn next(&self) -> &AtomicU32 {
        // SAFETY: as for `flag`; the program only ever reads this word.
        unsafe { self.next.as_ref() }
    }
}

impl StopHandle {
    /// The handle of an instance that is gone.
    #[cfg(test)]
    pub(crate) fn gone() -> Self {
        Self {
            shared: Arc::default(),
        }
    }

    /// The same, but asked to stop.
    #[cfg(test)]
    pub(crate) fn requested() -> Self {
        let handle = Self::gone();
        handle.shared.state.lock().requested = true;
        handle
    }

    /// Asks for a stop. Returns at once, except while the program is entering its saved frames,
    /// which takes microseconds.
    pub fn request(&self) {
        for look in 0..REWIND_LOOKS {
            let mut state = self.shared.state.lock();
            let Some(word) = &state.word else { return };
            if !state.running {
                // While looking again the run may have come back; it has used the request up then.
                state.requested |= look == 0;
                return;
            }
            let seen = word.flag().compare_exchange(
                abi::RUNNING as u32,
                abi::STOP_REQUESTED as u32,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            // While it rewinds, only the program may write the poll word. All other values mean that
            // it is going to leave anyway.
            if seen != Err(abi::REWINDING as u32) {
                return;
            }
            // It will find the request here when it has rewound, unless it has just looked: so the
            // poll word is looked at again until it says something else.
            word.next()
                .store(abi::STOP_REQUESTED as u32, Ordering::Release);
            drop(state);
            yield_now();
        }
        self.shared.state.lock().requested = true;
    }

    /// Asks for a stop without waiting for anything, as an interrupt has to that comes in the middle of the run. False if it cannot be said whether the
    /// program will see the request: somebody has the lock, or the program is entering its saved frames. Whoever asks then asks again a moment later.
    pub fn try_request(&self) -> bool {
        let Some(mut state) = self.shared.state.try_lock() else {
            return false;
        };
        let Some(word) = &state.word else { return true };
        if !state.running {
            state.requested = true;
            return true;
        }
        let seen = word.flag().compare_exchange(
            abi::RUNNING as u32,
            abi::STOP_REQUESTED as u32,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        if seen != Err(abi::REWINDING as u32) {
            return true;
        }
        word.next()
            .store(abi::STOP_REQUESTED as u32, Ordering::Release);
        false
    }

    /// Whether the program, which is in a host call, is asked to stop.
    pub(crate) fn is_requested(&self) -> bool {
        let state = self.shared.state.lock();
        let flag = state.word.as_ref().map(|word| word.flag());
        state.requested
            || flag.is_some_and(|flag| flag.load(Ordering::Acquire) != abi::RUNNING as u32)
    }

    /// Starts an unwind from inside a host call. A request that comes at the same time is met by
    /// it: the run ends.
    pub(crate) fn unwind(&self) {
        if let Some(word) = &self.shared.state.lock().word {
            word.flag().store(abi::UNWINDING as u32, Ordering::Release);
        }
    }
}

impl Frames {
    /// The frames memory of an instance of wasmtime; none if it is too small.
    ///
    /// The caller keeps the store beside the result and drops the result first.
    #[cfg(feature = "wasmtime")]
    pub(crate) fn of_wasmtime<T: 'static>(
        memory: &::wasmtime::Memory,
        store: &::wasmtime::Store<T>,
    ) -> Option<Self> {
        let base = NonNull::new(memory.data_ptr(store))?;
        let bytes = memory.data_size(store);
        // SAFETY: it is large enough; page-aligned, because wasmtime maps it; it stays in place,
        // because memories may not move (`memory_may_move`); the store outlives the result, because
        // `Program` drops it after; and the host reaches it through this value only.
        (bytes > BASE).then(|| unsafe { Self::new(base, bytes) })
    }

    /// The frames memory of an instance of wasmi; none if it is too small or misaligned.
    ///
    /// The caller keeps the store beside the result and drops the result first.
    pub(crate) fn of_wasmi<T>(memory: &::wasmi::Memory, store: &::wasmi::Store<T>) -> Option<Self> {
        let base = NonNull::new(memory.data_ptr(store))?;
        let bytes = memory.data_size(store);
        // Words of 32 bits are all that is reached as such. What allocates buffers of bytes on a 32-bit machine aligns
        // them to no more.
        let fits = bytes > BASE && base.cast::<AtomicU32>().is_aligned();
        // SAFETY: it is large enough and aligned; it stays in place, because its maximum is its
        // minimum (`imports::check`), so that its buffer is never reallocated; the store outlives
        // the result, because `Program` drops it after; and the host reaches it through this value
        // only.
        fits.then(|| unsafe { Self::new(base, bytes) })
    }

    /// Takes charge of a frames memory.
    ///
    /// # Safety
    /// `base` must point to `bytes` bytes, more than [`BASE`], aligned to 4, that stay valid and in
    /// place until this value is dropped, and that nothing but the program's own code and this
    /// value accesses.
    unsafe fn new(base: NonNull<u8>, bytes: usize) -> Self {
        // SAFETY: both addresses are inside the memory, as this function requires.
        let (flag, next) = unsafe { (base.add(FLAG).cast(), base.add(NEXT_FLAG).cast()) };
        let state = State {
            word: Some(Word { flag, next }),
            ..State::default()
        };
        let frames = Self {
            base,
            bytes,
            shared: Arc::new(Shared {
                state: Lock::new(state),
            }),
        };
        frames.leave();
        frames
    }

    pub(crate) fn stop_handle(&self) -> StopHandle {
        StopHandle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Sets the words for a run. From here until [`leave`](Self::leave) requests go to the poll
    /// word.
    pub(crate) fn enter(&self, resume: bool) {
        let mut state = self.shared.state.lock();
        let first = if state.requested {
            abi::STOP_REQUESTED
        } else {
            abi::RUNNING
        };
        state.requested = false;
        state.running = true;
        if let Some(word) = &state.word {
            let flag = if resume { abi::REWINDING } else { first };
            word.next().store(first as u32, Ordering::Release);
            word.flag().store(flag as u32, Ordering::Release);
        }
    }

    /// Clears the words after a run; all requests so far are used up.
    pub(crate) fn leave(&self) {
        let mut state = self.shared.state.lock();
        state.running = false;
        state.requested = false;
        if let Some(word) = &state.word {
            word.next().store(abi::RUNNING as u32, Ordering::Release);
            word.flag().store(abi::RUNNING as u32, Ordering::Release);
        }
    }

    /// The saved frames. Only while the program is not running.
    pub(crate) fn saved(&self) -> Vec<u8> {
        let top = (self.read_word(STACK_POINTER) as usize).clamp(BASE, self.bytes);
        let mut bytes = vec![0; top - BASE];
        // SAFETY: BASE..top is inside the memory (`new`), which nothing writes while the program is
        // not running except `restore`, which needs `&mut self`.
        unsafe {
            self.base
                .add(BASE)
                .copy_to_nonoverlapping(NonNull::new_unchecked(bytes.as_mut_ptr()), bytes.len());
        }
        bytes
    }

    /// Puts frames in place of the saved ones; false if they are too long. Only while the program
    /// is not running.
    pub(crate) fn restore(&mut self, frames: &[u8]) -> bool {
        let Some(top) = BASE
            .checked_add(frames.len())
            .filter(|top| *top <= self.bytes)
        else {
            return false;
        };
        // SAFETY: BASE..top is inside the memory (`new`); nothing else accesses it while the
        // program is not running, and requests touch only the poll word before BASE.
        unsafe {
            self.base
                .add(BASE)
                .as_ptr()
                .copy_from_nonoverlapping(frames.as_ptr(), frames.len());
        }
        self.write_word(STACK_POINTER, top as u32);
        true
    }

    fn read_word(&self, address: usize) -> u32 {
        // SAFETY: an aligned address inside the memory (`new`), accessed by this thread and the
        // program only, which is not running or is waiting in a host call on this thread.
        unsafe { self.base.add(address).cast::<u32>().read() }.to_le()
    }

    fn write_word(&self, address: usize, value: u32) {
        // SAFETY: as for `read_word`.
        unsafe { self.base.add(address).cast::<u32>().write(value.to_le()) }
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.shared.state.lock().word = None;
    }
}
