//! The program in which an agent runs. It has two threads, memory that comes when it is touched, and capabilities for what the agent was
//! granted: whoever breaks out of WebAssembly finds no more than these.
//!
//! The first thread runs the agent; the second one waits for the agent server's word, and has the first one stop or look.
//!
//! - [`region`]: the memory that comes when it is touched.
//! - [`server`]: what the agent server is asked.
//! - [`run`]: the agent's life, from its module or a checkpoint to its end.
#![no_std]
#![no_main]

extern crate alloc;

mod region;
mod run;
mod server;

use core::panic::PanicInfo;

use mielin_user::Startup;
use mielin_user::agents::Ending;

mielin_user::program!(main);
mielin_heap::heap!();

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let line = mielin_user::line::Line::new(format_args!("{info}"));
    server::Server.end(Ending::Refused, 0, line.bytes());
    mielin_user::start::fail()
}

fn main(startup: Startup) -> ! {
    if startup.thread_number() == 0 {
        region::begin_heap(startup);
        run::first(startup)
    }
    run::second()
}
