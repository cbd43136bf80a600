//! The network server: it has the network card, answers ARP, pings and the echo port, and carries datagrams for other programs
//! ([`mielin_user::net`] says how they ask).
//!
//! - [`transport`], [`memory`]: how the card is reached, and what memory is shared with it.
//! - [`given`]: the capabilities for the card that the server has been given.
//! - [`device`]: packets in and out.
//! - [`stack`]: addresses and sockets.
//! - [`service`]: what clients may ask for.
//!
//! One thread waits for clients, for the card's interrupt and for the time at which something is due, all by one system call.
#![no_std]
#![no_main]

mod device;
mod given;
mod memory;
mod once;
mod service;
mod stack;
mod transport;

use mielin_user::abi::NOTIFICATION_LABEL;
use mielin_user::boot::Buffer;
use mielin_user::bytes::BYTES_MAX;
use mielin_user::net::{PORTS_MAX, Refusal, argument};
use mielin_user::objects::{Endpoint, Interrupt, Message, Reply};
use mielin_user::system_call::{Received, now};
use mielin_user::{Error, Startup, say};

use once::Once;
use service::{Asked, Outcome, Ready, Service};
use stack::Stack;

mielin_user::program!(main);
mielin_user::stop_on_panic!("net");

/// How long the server does not look at a card that cannot interrupt.
const LOOKS_MILLISECONDS: u64 = 5;

static REQUESTED: Once<[u8; BYTES_MAX]> = Once::new([0; BYTES_MAX]);

fn main(startup: Startup) -> ! {
    if !startup.is_known() {
        mielin_user::start::fail();
    }
    let error = match Server::new(startup) {
        Ok(mut server) => server.run(),
        Err(error) => error,
    };
    say!("net: the kernel refused what the server needs: {error:?}");
    mielin_user::start::fail()
}

struct Server {
    service: Service,
    interrupt: Option<Interrupt>,
    endpoint: Endpoint,
    buffer: Buffer,
    /// Takes the next call.
    next: Reply,
    /// Owes the answer to whoever waits at a port.
    waiting: [Reply; PORTS_MAX],
    /// Those of the request that came last.
    bytes: &'static mut [u8; BYTES_MAX],
    startup: Startup,
}

impl Server {
    #[inline(never)]
    fn new(startup: Startup) -> Result<Self, Error> {
        let mut supplies = startup.supplies();
        let next = supplies.reply()?;
        let mut waiting = [next; PORTS_MAX];
        for reply in &mut waiting {
            *reply = supplies.reply()?;
        }
        let card = given::open_card(startup, &mut supplies)?;
        let interrupt = match &card {
            Some(_) => given::begin_interrupts(startup, &mut supplies)?,
            None => None,
        };
        let stack = card.map(|card| {
            let (address, gateway) = (
                startup.argument(argument::ADDRESS),
                startup.argument(argument::GATEWAY),
            );
            Stack::new(card, address, gateway, startup.ticks_per_second(), now())
        });
        match &stack {
            Some(stack) => {
                let how = match interrupt {
                    Some(_) => "",
                    None => ", which cannot interrupt",
                };
                let (address, hardware) = (stack.address(), stack.hardware_address());
                say!("net: {address} is {hardware}{how}");
            }
            None => say!("net: there is no network card"),
        }
        Ok(Self {
            service: Service::new(stack),
            interrupt,
            endpoint: startup.service(),
            buffer: startup.buffer(),
            next,
            waiting,
            bytes: REQUESTED.take(),
            startup,
        })
    }

    /// Serves until the kernel refuses something.
    #[inline(never)]
    fn run(&mut self) -> Error {
        loop {
            let mut time = now();
            if let Some(stack) = self.service.stack() {
                stack.poll(time);
            }
            self.tell(time);
            time = now();
            let mut deadline = self.service.deadline(time);
            if self.interrupt.is_none() && self.service.stack().is_some() {
                let look = time.saturating_add(self.startup.milliseconds(LOOKS_MILLISECONDS));
                deadline = Some(deadline.map_or(look, |deadline| deadline.min(look)));
            }
            let got = match deadline {
                Some(deadline) => self
                    .endpoint
                    .receive_until(Some(self.next), deadline.max(1)),
                None => self.endpoint.receive(Some(self.next)),
            };
            match got {
                Ok(received)
                    if received.info.label() == NOTIFICATION_LABEL
                        && received.badge & given::INTERRUPTS != 0 =>
                {
                    self.serve_interrupt();
                }
                Ok(received) => self.serve(&received),
                Err(Error::TimedOut) => {}
                Err(error) => return error,
            }
        }
    }

    /// The card has something to say. It is looked at afterwards, so that what happens from here on interrupts again.
    fn serve_interrupt(&mut self) {
        if let Some(stack) = self.service.stack() {
            stack.acknowledge();
        }
        if let Some(interrupt) = self.interrupt {
            // It is this program's own, so that it cannot be refused.
            let _ = interrupt.acknowledge();
        }
    }

    fn serve(&mut self, received: &Received) {
        let [len, words @ ..] = received.words;
        let asked = Asked {
            label: received.info.label(),
            client: received.badge,
            words,
            len,
            bytes: self.buffer.bytes(received, self.bytes),
        };
        let served = self.service.serve(&asked);
        if let Some(index) = served.canceled {
            let answer = refusal(Refusal::Canceled);
            answer_to(self.waiting[index], &answer);
        }
        match served.outcome {
            Outcome::Done(port, peer) => {
                let words = [port.into(), peer.to_word(), 0];
                answer_to(self.next, &self.buffer.message(0, words, &[]));
            }
            Outcome::Refused(why) => {
                answer_to(self.next, &refusal(why));
            }
            Outcome::Waits(index) => {
                core::mem::swap(&mut self.next, &mut self.waiting[index]);
            }
        }
    }

    /// Answers those who wait, if there is something for them.
    fn tell(&mut self, time: u64) {
        for (index, reply) in self.waiting.iter().enumerate() {
            let (answer, brings) = match self.service.ready(index, time) {
                None => continue,
                Some(Ready::TimedOut) => (refusal(Refusal::TimedOut), false),
                Some(Ready::Datagram(from, bytes)) => {
                    let words = [0, from.to_word(), 0];
                    (self.buffer.message(0, words, bytes), true)
                }
            };
            let arrived = answer_to(*reply, &answer);
            self.service.told(index, brings && arrived);
        }
    }
}

/// Whether it has arrived: somebody who has sent a request and not called, or does not wait any more, gets none.
fn answer_to(reply: Reply, answer: &Message) -> bool {
    reply.send(answer).is_ok()
}

fn refusal(why: Refusal) -> Message {
    Message::new(why.label(), [0])
}
