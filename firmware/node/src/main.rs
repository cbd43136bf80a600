//! A node of a mesh on a microcontroller: it holds on to its host by the leaf link, runs agents in slices of time, reads a sensor, and hands its agents over,
//! running, before its battery is empty.
//!
//! - [`platform`]: the clock and the random bytes of agents.
//! - [`slices`]: what ends an agent's turn.
//! - [`work`]: one step of the loop.
//!
//! The sensor repeats a series that was recorded elsewhere, and the battery is a model: boards under an emulator have neither. Its console is the board's
//! second UART. `cargo xtask firmware test` runs it, with an emulator whose first serial line is a Unix socket at which its host listens, whose second one is its
//! standard output, and which has the page in the last 4 KiB of the board's code memory:
//!
//! ```text
//! qemu-system-arm -machine mps2-an386 -icount shift=0 -display none -monitor none -kernel node \
//!     -chardev socket,id=line,server=off,path=leaf.line -serial chardev:line -serial stdio \
//!     -device loader,file=leaf.page,addr=0x3ff000,force-raw=on
//! ```

#![no_std]
#![no_main]

extern crate alloc;

mod platform;
mod slices;
mod work;

use core::fmt::Write;
use core::time::Duration;

use alloc::vec::Vec;
use cortex_m_rt::entry;
use mielin_driver::{Port, Start, free_bytes, has_room};
use mielin_leaf::{BatteryTraits, Devices, Node, Parts, Recording};
use mielin_mesh_core::{Instant, Name};
use mielin_rt::EmbeddedRuntime;

use platform::PLATFORM;
use work::Work;

/// What the sensor measures, in thousandths of its unit.
static SERIES: &[i32] = &include!(concat!(env!("OUT_DIR"), "/series.rs"));
/// How often it does.
const PERIOD: Duration = Duration::from_millis(100);
/// Readings of one start: whatever was measured before a reset has a lower number.
const READINGS_OF_A_START: u64 = 1 << 32;
/// Switches that agents can set.
const SWITCHES: u8 = 1;

/// The battery that the board does not have, in fast motion: full it lasts for 17 seconds of work, or 40 of rest; it is charged in 12. A real one lasts longer by
/// hours or days, and would rest for much less than half of what work costs.
const BATTERY: BatteryTraits = BatteryTraits {
    capacity: 1_000_000,
    awake_ms: 60,
    asleep_ms: 25,
    line_byte: 5,
    charger_ms: 100,
    charger_at_percent: 10,
    full_percent: 90,
};

#[entry]
fn main() -> ! {
    let mut start = Start::begin("node");
    let line = start.line();
    PLATFORM.begin(start.entropy);
    slices::begin();
    let before = (start.number - 1).saturating_mul(READINGS_OF_A_START);
    let sensors: Vec<_> = match SERIES {
        [] => Vec::new(),
        series => alloc::vec![Recording::new(series, PERIOD, Instant::START, before)],
    };
    let name = Name::new(start.page.name()).or_else(|_| Name::new(board::NAME));
    let node = name.ok().and_then(|name| {
        let parts = Parts {
            name,
            boot: PLATFORM.number(),
            platform: &PLATFORM,
            devices: Devices::new(sensors, SWITCHES),
            battery: BATTERY,
            room: has_room,
        };
        Node::new(parts).ok()
    });
    let Some(node) = node else {
        let _ = writeln!(
            start.console,
            "node: its name cannot be used; asleep until a reset"
        );
        mielin_driver::halt(start.board.machine)
    };
    let _ = writeln!(
        start.console,
        "node: {} bytes of memory are free",
        free_bytes()
    );
    let mut work = Work::new(
        node,
        Port::new(start.board.serial, line),
        start.console,
        &start.board.machine,
    );
    let mut runtime = EmbeddedRuntime::new(start.board.machine, &board::SIGNALS);
    loop {
        runtime.run(&mut work);
        work.account(runtime.usage());
    }
}
