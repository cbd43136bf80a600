//! The shell: it reads what a person types, line by line, and has it done by the services.
#![no_std]
#![no_main]

extern crate alloc;

use mielin_user::agents::Agents;
use mielin_user::bytes::BYTES_MAX;
use mielin_user::line::Console;
use mielin_user::objects::Endpoint;
use mielin_user::services::Services;
use mielin_user::startup::slot;
use mielin_user::{Cap, Error, Startup, say};

mielin_user::program!(main);
mielin_heap::heap!();
mielin_user::stop_on_panic!("shell");

const HELP: &str = "\
agents:
  list                                     agents, and what can be started
  start MODULE [NAME] [-- ARGUMENT...]     start an agent, as its manifest says
  stop NAME                                end an agent, and forget it
  send NAME TEXT                           send it a message
  freeze NAME                              stop it where it is, and store it
  resume NAME [message]                    have a stored one go on; it may send messages only if you say so
stored agents are files for other machines: curl tftp://ADDRESS/NAME, and curl -T FILE tftp://ADDRESS/NAME
services:
  services                                 what serves, and how often it was started again
  fail SERVICE                             have one fail, to see it started again
  shutdown                                 end the machine
";

/// Pages for `alloc`.
const HEAP_PAGES: u64 = 16;

fn main(startup: Startup) -> ! {
    if mielin_heap::begin(&HEAP, &mut startup.supplies(), HEAP_PAGES).is_err() {
        say!("shell: there is no memory");
        mielin_user::start::fail()
    }
    let shell = Shell {
        console: Console::of(startup.buffer()),
        agents: Agents {
            endpoint: Endpoint(Cap(slot::OWN)),
            buffer: startup.buffer(),
        },
        services: Services {
            endpoint: Endpoint(Cap(slot::OWN + 1)),
            buffer: startup.buffer(),
        },
    };
    say!("shell: `help` says what can be done");
    let _ = shell.console.write(b"> ");
    loop {
        match shell.serve() {
            Ok(()) => {}
            // A service that fails is started again: what was typed meanwhile can be typed again.
            Err(Error::Gone) => say!("shell: a service has failed; try again"),
            Err(Error::NoCapability) => say!("shell: that service was given up"),
            Err(error) => {
                say!("shell: {error:?}");
                mielin_user::start::fail()
            }
        }
        // Without the console there is nothing to wait for.
        if shell.console.write(b"> ") == Err(Error::NoCapability) {
            mielin_user::start::fail()
        }
    }
}

struct Shell {
    console: Console,
    agents: Agents,
    services: Services,
}

impl Shell {
    /// Does one line.
    fn serve(&self) -> Result<(), Error> {
        let mut bytes = [0; BYTES_MAX];
        let line = self.console.read(&mut bytes)?;
        let text = core::str::from_utf8(line).unwrap_or("").trim();
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match (word, rest.trim()) {
            ("", _) => Ok(()),
            ("help", _) => self.console.write(HELP.as_bytes()),
            ("services", _) => self.each_service(|number, service| {
                let state = if service.runs { "runs" } else { "given up" };
                say!(
                    "{number} {:<10} {state:<9} {} restarts",
                    service.name,
                    service.restarts
                );
            }),
            ("fail", name) => self.fail(name),
            ("shutdown", _) => self.services.shut_down(true),
            _ => self.command(text.as_bytes()),
        }
    }

    fn command(&self, line: &[u8]) -> Result<(), Error> {
        let mut text = alloc::vec::Vec::new();
        self.agents
            .command(line, |part| text.extend_from_slice(part))?;
        self.console.write(&text)
    }

    fn each_service(
        &self,
        mut see: impl FnMut(u64, &mielin_user::services::Description<'_>),
    ) -> Result<(), Error> {
        let mut name = [0; BYTES_MAX];
        let mut number = 0;
        while let Some(service) = self.services.describe(number, &mut name)? {
            see(number, &service);
            number += 1;
        }
        Ok(())
    }

    fn fail(&self, wanted: &str) -> Result<(), Error> {
        let mut found = None;
        self.each_service(|number, service| {
            if service.name == wanted {
                found = Some(number);
            }
        })?;
        match found {
            Some(number) => {
                if !self.services.fail(number)? {
                    say!("{wanted} was given up");
                }
                Ok(())
            }
            None => {
                say!("there is no service {wanted:?}; `services` lists them");
                Ok(())
            }
        }
    }
}
