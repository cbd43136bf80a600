//! Ends the machine with a failure when a test takes too long.

use core::sync::atomic::{AtomicU64, Ordering};

use mielin_user::objects::{Notification, Power};
use mielin_user::{Cap, Error, Information, Supplies};

use crate::console::say;

/// Any test is over by then.
const SECONDS_MAX: u64 = 60;

const POWER: Power = Power(Cap(mielin_user::abi::boot::POWER));

/// How many tests have begun.
static BEGUN: AtomicU64 = AtomicU64::new(0);
static LIMIT: AtomicU64 = AtomicU64::new(0);
static NEVER: AtomicU64 = AtomicU64::new(0);

/// A test begins.
pub(crate) fn expect() {
    BEGUN.fetch_add(1, Ordering::Relaxed);
}

/// Starts the watchdog, which comes before all other threads.
pub(crate) fn begin(information: Information, supplies: &mut Supplies) -> Result<(), Error> {
    let never = supplies.notification()?;
    NEVER.store(never.0.0, Ordering::Relaxed);
    LIMIT.store(
        information.ticks_per_second() * SECONDS_MAX,
        Ordering::Relaxed,
    );
    let spawned = supplies.spawn(information.node(), watch, 0)?;
    let slice = information.ticks_per_second() / 1000;
    supplies.run(spawned.thread, information.scheduling(), 255, slice)?;
    Ok(())
}

extern "C" fn watch(_: u64, _: u64) -> ! {
    let never = Notification(Cap(NEVER.load(Ordering::Relaxed)));
    let mut seen = 0;
    loop {
        let limit = mielin_user::system_call::now() + LIMIT.load(Ordering::Relaxed);
        let waited = never.wait_until(limit);
        let begun = BEGUN.load(Ordering::Relaxed);
        if waited == Err(Error::TimedOut) && begun == seen {
            say!("test number {begun} ... FAILED: it does not end");
            end(false);
        }
        seen = begun;
    }
}

/// Ends the machine.
pub(crate) fn end(success: bool) -> ! {
    // If it cannot, the fault that follows ends this thread.
    let _ = POWER.shut_down(success);
    mielin_user::start::fail()
}
