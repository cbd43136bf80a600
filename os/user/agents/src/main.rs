//! The agent server: it starts agents, each in an address space of its own that holds only what the agent was granted, carries
//! their messages, ends them, and stores those that are frozen.
//!
//! It does not look into modules or checkpoints: the agent's own program does, so that whoever finds a fault there has that program, and
//! nothing else.
//!
//! - [`agency`]: the agents that there are.
//! - [`command`]: what people say.
//! - [`files`]: stored agents, as files for other machines.
//! - [`host`]: what agents' programs ask.
//! - [`manifest`]: what an agent is granted.
//! - [`process`]: an agent's program, its memory and its threads.
#![no_std]
#![no_main]

extern crate alloc;

mod agency;
mod command;
mod files;
mod host;
mod manifest;
mod process;

use mielin_kernel::archive::Archive;
use mielin_user::agents::{CARRIER, USER, of_badge};
use mielin_user::objects::{Endpoint, Message, Notification, Reply};
use mielin_user::pages::Pages;
use mielin_user::startup::{NOTIFIED, slot};
use mielin_user::{Cap, Error, Rights, Startup, say};

use agency::Agency;

mielin_user::program!(main);
mielin_heap::heap!();
mielin_user::stop_on_panic!("agents");

/// Pages of 2 MiB for `alloc`: frozen agents lie there.
const HEAP_PAGES: u64 = 8;

fn main(startup: Startup) -> ! {
    if let Err(error) = serve(startup) {
        say!("agents: the kernel refused: {error:?}");
    }
    mielin_user::start::fail()
}

fn serve(startup: Startup) -> Result<(), Error> {
    let mut supplies = startup.supplies();
    mielin_heap::begin_large(&HEAP, &mut supplies, HEAP_PAGES)?;
    let notification = supplies.notification()?;
    startup.thread().bind(Some(notification))?;
    let raised = supplies.mint(notification.0, Rights::WRITE, NOTIFIED)?;
    let pages = Pages {
        endpoint: Endpoint(Cap(slot::OWN)),
        buffer: startup.buffer(),
    };
    pages.own(Notification(raised))?;
    let reply: Reply = supplies.reply()?;
    // What came with the system is mapped for this program by whoever started it.
    let files = Archive::new(startup.shared(0, 1)).map_err(|_| Error::InvalidArgument)?;
    let mut agency = Agency::new(startup, supplies, pages, files)?;
    loop {
        let received = startup.service().receive(Some(reply))?;
        if received.badge & NOTIFIED != 0 {
            agency.look_for_stopped();
            continue;
        }
        let answer = match of_badge(received.badge) {
            _ if received.badge == USER => agency.obey(&received),
            _ if received.badge == CARRIER => agency.carry(&received),
            Some((agent, right)) => agency.serve(agent, right, &received),
            None => Some(Message::new(1, [])),
        };
        // Whoever asked may be gone, as one that has ended is.
        if let Some(answer) = answer {
            let _ = reply.send(&answer);
        }
    }
}
