//! The first program: it has everything that the kernel gives, and gives to each of the others what it needs, and no more. Then it
//! looks after them: a program that faults is taken apart and started again, with the same capabilities.
//!
//! - [`pool`]: memory, in pieces.
//! - [`programs`]: which programs there are, and what each is given.
//! - [`service`]: a program that runs, and how it is started again.
//! - [`watch`]: what is done when one faults.
#![no_std]
#![no_main]

extern crate alloc;

mod pool;
mod programs;
mod service;
mod watch;

use core::cell::Cell;
use core::fmt::{self, Write};

use mielin_hal::Console as _;
use mielin_kernel::archive::Archive;
use mielin_user::console::Console;
use mielin_user::objects::Power;
use mielin_user::{Cap, Error, Information, LoadError};

mielin_user::program!(main);
mielin_heap::heap!();

/// The first program's own memory for `alloc`.
const HEAP_PAGES: u64 = 64;

/// Why the system cannot begin.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The kernel refused something.
    Kernel(Error),
    /// A program was not loaded.
    Load(&'static str, LoadError),
    /// The archive is none.
    Archive,
    /// The archive lacks a file.
    Missing(&'static str),
    /// There is too little memory.
    Memory,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Kernel(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(error) => write!(f, "the kernel refused: {error:?}"),
            Self::Load(name, error) => write!(f, "{name} was not loaded: {error}"),
            Self::Archive => f.write_str("the archive is damaged"),
            Self::Missing(name) => write!(f, "the archive has no {name}"),
            Self::Memory => f.write_str("there is too little memory; give the machine 256 MiB"),
        }
    }
}

/// Lines of the first program, which go out past the console's server: they are few, and tell when that fails, too.
pub(crate) struct Log(Cell<Option<Console>>);

impl Log {
    pub(crate) fn line(&self, text: fmt::Arguments<'_>) {
        if let Some(mut console) = self.0.take() {
            let mut out = Out(&mut console);
            // The console takes everything.
            let _ = out.write_fmt(text);
            let _ = out.write_str("\r\n");
            self.0.set(Some(console));
        }
    }
}

struct Out<'a>(&'a mut Console);

impl Write for Out<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0.write_byte(byte);
        }
        Ok(())
    }
}

/// Says a line of the first program.
macro_rules! log {
    ($log:expr, $($argument:tt)*) => {
        $log.line(format_args!("root: {}", format_args!($($argument)*)))
    };
}
pub(crate) use log;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing runs without the first program.
    let _ = Power(Cap(mielin_user::abi::boot::POWER)).shut_down(false);
    mielin_user::start::fail()
}

fn main(information: Information) -> ! {
    if !information.is_known() {
        mielin_user::start::fail();
    }
    let log = Log(Cell::new(None));
    if let Err(failure) = run(information, &log) {
        log!(log, "{failure}");
    }
    let _ = information.power().shut_down(false);
    mielin_user::start::fail()
}

fn run(information: Information, log: &Log) -> Result<(), Failure> {
    let mut pool = pool::Pool::of(information)?;
    mielin_heap::begin(&HEAP, &mut pool.supplies, HEAP_PAGES)?;
    let device = mielin_user::console::Device::find(&mut pool.supplies, information)?;
    log.0.set(Some(Console::of(device, &mut pool.supplies)?));
    log!(
        log,
        "MielinOS on {}, {} MiB of memory",
        architecture(information),
        pool.bytes(information) >> 20
    );
    let archive = Archive::new(information.archive()).map_err(|_| Failure::Archive)?;
    let services = programs::start(information, &mut pool, archive, device, log)?;
    watch::Watch::new(information, services, log).watch()
}

fn architecture(information: Information) -> &'static str {
    // ELF's numbers.
    match information.architecture() {
        243 => "RISC-V",
        183 => "64-bit Arm",
        62 => "x86-64",
        _ => "an unknown architecture",
    }
}
