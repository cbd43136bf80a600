//! In place of an agent's program: it tries what one could that has broken out of WebAssembly, with the capabilities that an agent's program has. It says how
//! far it has come, and stops by reading the kernel's memory.
#![no_std]
#![no_main]
#![allow(unsafe_code)]

use mielin_user::abi::{FAULT_LABEL, Method, NOTIFICATION_LABEL};
use mielin_user::agents::{Agents, Part, host, slot};
use mielin_user::boot::Buffer;
use mielin_user::bytes::BYTES_MAX;
use mielin_user::line::Line;
use mielin_user::objects::{Endpoint, Message, Node, Notification, invoke};
use mielin_user::{Cap, Error, Startup};

mielin_user::program!(main);

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    mielin_user::start::fail()
}

fn main(startup: Startup) -> ! {
    if startup.thread_number() != 0 {
        // The second thread waits for what the first one gets to see, too.
        let _ = Notification(Cap(slot::CONTROL)).wait();
        mielin_user::start::fail()
    }
    let rogue = Rogue {
        buffer: startup.buffer(),
        server: Agents {
            endpoint: Endpoint(Cap(slot::CALLS)),
            buffer: startup.buffer(),
        },
    };
    match rogue.try_everything() {
        Ok(()) => rogue.say(format_args!("nothing was found")),
        Err(found) => rogue.say(format_args!("FOUND: {found}")),
    }
    read_the_kernel();
    rogue.say(format_args!("FOUND: the kernel's memory"));
    mielin_user::start::fail()
}

/// Reads in the kernel's half of all addresses. Which of the kernel's own are mapped the test suite tries.
fn read_the_kernel() {
    let at: *const u64 = core::ptr::with_exposed_provenance(0xffff_ffff_ffff_e000);
    // SAFETY: the address is no program's: the read ends this thread, which nobody has go on.
    let _ = unsafe { at.read_volatile() };
}

struct Rogue {
    buffer: Buffer,
    server: Agents,
}

impl Rogue {
    fn say(&self, text: core::fmt::Arguments<'_>) {
        let line = Line::new(text);
        // Nobody else could be told.
        let _ = self.server.call(host::WRITE, [1, 0, 0], line.bytes());
    }

    /// Whether the agent server still serves.
    fn is_served(&self) -> bool {
        let words = [Part::Specification as u64, 0, 0];
        let received = self.server.call(host::FETCH, words, &[]);
        received.is_ok_and(|received| received.info.label() == 0 && received.words[1] > 0)
    }

    fn try_everything(&self) -> Result<(), &'static str> {
        self.try_labels()?;
        self.try_capabilities()?;
        self.try_messages()?;
        self.try_to_be_stored()
    }

    /// Labels that mean something to others, and such as mean nothing.
    fn try_labels(&self) -> Result<(), &'static str> {
        let labels = (0..16)
            .chain(32..48)
            .chain([FAULT_LABEL, NOTIFICATION_LABEL, (1 << 48) - 1]);
        for label in labels {
            for words in [[0; 3], [u64::MAX; 3], [1, u64::MAX, 1 << 32]] {
                let received = self.server.call(label, words, &[0xff; BYTES_MAX]);
                if received.is_ok_and(|received| received.info.label() == 0) {
                    return Err("a call that was not for it");
                }
            }
            // A length that is claimed, and not there.
            let _ = self
                .server
                .endpoint
                .call(&Message::new(label, [u64::MAX; 4]));
            if !self.is_served() {
                return Err("how to stop the agent server");
            }
        }
        Ok(())
    }

    /// What else there is in its node, and what can be done with what it has.
    fn try_capabilities(&self) -> Result<(), &'static str> {
        let own = [slot::CALLS, slot::CONTROL, slot::WAKE];
        for address in (0..512).filter(|address| !own.contains(address)) {
            for method in [Method::Describe, Method::Delete, Method::Address] {
                let refused = invoke(Cap(address), method, [1, 0, 0, 0]);
                if refused != Err(Error::NoCapability) {
                    return Err("a capability that no agent has");
                }
            }
        }
        for own in own {
            for method in Method::ALL {
                if invoke(Cap(own), method, [1, 1, 1, 1]).is_ok() {
                    return Err("a method of a capability");
                }
            }
        }
        if self.server.endpoint.receive_until(None, 0) != Err(Error::Denied) {
            return Err("calls that are for the agent server");
        }
        if Notification(Cap(slot::CONTROL)).signal() != Err(Error::Denied) {
            return Err("how to give its own orders");
        }
        // Capabilities go with a message, and come nowhere.
        self.buffer.send_capability(0, Cap(slot::WAKE));
        self.buffer.receive_capabilities(Node(Cap(1)), 1);
        let message = Message::new(host::LOG, [0; 4]).with_capabilities(3);
        let _ = self.server.endpoint.call(&message);
        match self.is_served() {
            true => Ok(()),
            false => Err("how to stop the agent server by capabilities"),
        }
    }

    /// Messages that it may not send, and answers to what nobody has asked.
    fn try_messages(&self) -> Result<(), &'static str> {
        let person = [0; 16];
        for words in [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, u64::MAX, 0]] {
            let received = self.server.call(host::SEND, words, &person);
            if received.is_ok_and(|received| received.info.label() == 0) {
                return Err("a message that it may not send");
            }
        }
        let sends = Agents {
            endpoint: Endpoint(Cap(slot::SENDS)),
            buffer: self.buffer,
        };
        match sends.call(host::SEND, [0; 3], &person) {
            Err(Error::NoCapability) => Ok(()),
            _ => Err("the right to send"),
        }
    }

    /// Room in the agent server's memory without having been told to freeze.
    fn try_to_be_stored(&self) -> Result<(), &'static str> {
        for all in [0, 1, 6 << 20, u64::MAX] {
            for offset in [0, 1, u64::MAX] {
                let received = self.server.call(host::STORE, [offset, all, 0], &[1]);
                if received.is_ok_and(|received| received.info.label() == 0) {
                    return Err("room in the agent server");
                }
            }
        }
        match self.is_served() {
            true => Ok(()),
            false => Err("how to stop the agent server by storing"),
        }
    }
}
