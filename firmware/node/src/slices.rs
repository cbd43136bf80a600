//! What ends an agent's turn: SysTick, whose handler asks the agent to stop when its time is over, or when much has come on the line.

use core::cell::RefCell;

use critical_section::Mutex;
use mielin_rt::cortex_m;
use mielin_wasm::StopHandle;

/// How long a turn is, in ticks: 5 ms, in which a line at 115,200 baud brings 58 bytes.
const TURN: u64 = board::CLOCK_HZ as u64 / 200;
/// When an agent could not be asked it is asked again after so long: half a millisecond.
const AGAIN: u64 = board::CLOCK_HZ as u64 / 2000;

/// The turn that is under way.
static TURN_NOW: Mutex<RefCell<Option<Slice>>> = Mutex::new(RefCell::new(None));

struct Slice {
    stop: StopHandle,
    until: u64,
}

/// SysTick's handler looks after turns from here on.
pub(crate) fn begin() {
    board::at_tick(tick);
}

/// A turn begins.
pub(crate) fn arm(stop: StopHandle) {
    let until = cortex_m::now().saturating_add(TURN);
    let before = critical_section::with(|section| {
        let slice = Slice { stop, until };
        TURN_NOW.borrow_ref_mut(section).replace(slice)
    });
    // Not in the handler, nor with interrupts masked: it may be the last that has it.
    drop(before);
    cortex_m::alarm(until);
}

/// The turn is over, in whichever way.
pub(crate) fn disarm() {
    let ended = critical_section::with(|section| TURN_NOW.borrow_ref_mut(section).take());
    drop(ended);
}

/// In SysTick's handler.
fn tick() {
    let again = critical_section::with(|section| {
        let slice = TURN_NOW.borrow_ref(section);
        let slice = slice.as_ref()?;
        let now = cortex_m::now();
        if now < slice.until {
            // Something else came, such as the end of a period of the counter, or its alarm had to be set earlier.
            return Some(slice.until);
        }
        (!slice.stop.try_request()).then_some(now + AGAIN)
    });
    if let Some(at) = again {
        cortex_m::alarm(at);
    }
}
