//! The CPU time that a thread has had, which other threads can read while it runs a program.
#![allow(unsafe_code)]

use std::time::Duration;

/// The clock of one thread. It goes on only while the thread is on a processor, be it in the program
/// or in a host call.
#[derive(Clone, Copy, Debug)]
pub struct ThreadClock {
    id: libc::clockid_t,
    /// Elsewhere than on Linux a thread can read only its own.
    #[cfg(not(target_os = "linux"))]
    of: std::thread::ThreadId,
}

impl ThreadClock {
    /// The clock of the thread that asks.
    #[cfg(target_os = "linux")]
    pub fn of_this_thread() -> Option<Self> {
        let mut id = 0;
        // SAFETY: the first argument names the calling thread, which is alive, and the second is where
        // the function may write a number (POSIX, `pthread_getcpuclockid`).
        let failed = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut id) };
        (failed == 0).then_some(Self { id })
    }

    /// The clock of the thread that asks.
    #[cfg(not(target_os = "linux"))]
    pub fn of_this_thread() -> Option<Self> {
        Some(Self {
            id: libc::CLOCK_THREAD_CPUTIME_ID,
            of: std::thread::current().id(),
        })
    }

    /// How long the thread has been on a processor. None if it is gone, or cannot be asked by this
    /// thread. The number of a thread that is gone may be given to another one, whose time this then is.
    pub fn now(&self) -> Option<Duration> {
        #[cfg(not(target_os = "linux"))]
        if std::thread::current().id() != self.of {
            return None;
        }
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the identifier is a plain number, of which any value is answered, if with an error;
        // the second argument is where the function may write (POSIX, `clock_gettime`).
        let failed = unsafe { libc::clock_gettime(self.id, &raw mut time) };
        if failed != 0 {
            return None;
        }
        let seconds = u64::try_from(time.tv_sec).ok()?;
        let nanoseconds = u32::try_from(time.tv_nsec).ok()?;
        Some(Duration::new(seconds, nanoseconds))
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_thread_that_waits_has_no_time_and_others_see_what_one_that_works_has() {
        let (sender, clocks) = mpsc::channel();
        let (go, wait) = mpsc::channel::<()>();
        let idle = sender.clone();
        let idler = thread::spawn(move || {
            idle.send(ThreadClock::of_this_thread()).expect("is heard");
            let _ = wait.recv();
        });
        let idle = clocks.recv().expect("is said").expect("has a clock");
        let before = idle.now().expect("lives");
        let worker = thread::spawn(move || {
            let own = ThreadClock::of_this_thread().expect("has a clock");
            sender.send(Some(own)).expect("is heard");
            while own.now().expect("is its own") < Duration::from_millis(50) {
                black_box((0..1000_u64).sum::<u64>());
            }
            own.now().expect("is its own")
        });
        let busy = clocks.recv().expect("is said").expect("has a clock");
        let seen = busy.now().expect("lives");
        let had = worker.join().expect("does not panic");
        assert!(
            seen <= had && had >= Duration::from_millis(50),
            "{seen:?} of {had:?}"
        );
        let waited = idle.now().expect("lives") - before;
        assert!(waited < Duration::from_millis(25), "{waited:?}");
        drop(go);
        idler.join().expect("does not panic");
    }
}
