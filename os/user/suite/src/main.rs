//! The tests of the microkernel on its machines: its first program, which ends the machine with success if all pass.
//!
//! Each test has a [`room`] of its own, of which nothing is left when it ends.
#![no_std]
#![no_main]

mod console;
mod prober;
mod processor;
mod room;
mod servant;
mod watchdog;

mod faults;
mod memory;
mod messages;
mod objects;
#[cfg(target_arch = "x86_64")]
mod pc;
mod random;
mod refusals;
mod rights;
mod signals;
mod time;

use core::panic::PanicInfo;

use mielin_kernel::Executable;
use mielin_kernel::archive::Archive;
use mielin_user::{Error, Information, Supplies};

use console::say;
use room::{House, Outcome, PRIORITY, Room};

mielin_user::program!(main);

/// A test: its name, and what it does.
type Test = (&'static str, fn(&mut Room) -> Outcome);

const SUBJECTS: &[&[Test]] = &[
    refusals::TESTS,
    rights::TESTS,
    messages::TESTS,
    signals::TESTS,
    memory::TESTS,
    faults::TESTS,
    objects::TESTS,
    time::TESTS,
    #[cfg(target_arch = "x86_64")]
    pc::TESTS,
    random::TESTS,
];

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    say!("suite: {info}");
    watchdog::end(false)
}

fn main(information: Information) -> ! {
    if !information.is_known() {
        mielin_user::start::fail();
    }
    match run(information) {
        Ok((passed, 0)) => {
            say!("suite: {passed} passed");
            watchdog::end(true)
        }
        Ok((passed, failed)) => say!("suite: {passed} passed, {failed} failed"),
        Err(error) => say!("suite: the kernel refused what every test needs: {error:?}"),
    }
    watchdog::end(false)
}

fn run(information: Information) -> Result<(u64, u64), Error> {
    let memory = information.untypeds().filter(|untyped| !untyped.device);
    let largest = memory.max_by_key(|untyped| untyped.bits);
    let largest = largest.ok_or(Error::NoMemory)?;
    let others = information
        .untypeds()
        .filter(|one| !one.device && one.untyped != largest.untyped);
    let own = others.max_by_key(|untyped| untyped.bits);
    let own = own.ok_or(Error::NoMemory)?;
    let mut supplies = Supplies::of_first_thread(information).with_memory(own.untyped);
    console::begin(information, &mut supplies)?;
    say!(
        "suite: memory of 2^{} bytes, {} ticks in a second, the kernel has {} bytes",
        largest.bits,
        information.ticks_per_second(),
        information.kernel_bytes()
    );
    let archive = Archive::new(information.archive()).map_err(|_| Error::InvalidArgument)?;
    let (_, bytes) = archive.files().next().ok_or(Error::InvalidArgument)?;
    let architecture = information.architecture() as u16;
    let executable = Executable::parse(bytes, architecture).map_err(|_| Error::InvalidArgument)?;
    information
        .thread()
        .set_priority(PRIORITY, information.scheduling(), true)?;
    watchdog::begin(information, &mut supplies)?;
    let house = House::new(information, supplies, executable, largest.untyped)?;
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in SUBJECTS.iter().copied().flatten() {
        watchdog::expect();
        match house.with_room(*test) {
            Ok(()) => {
                passed += 1;
                say!("test {name} ... ok");
            }
            Err(failure) => {
                failed += 1;
                say!("test {name} ... FAILED: {failure}");
            }
        }
    }
    Ok((passed, failed))
}
