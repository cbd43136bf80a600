//! The server that has the console: it writes what programs say, and gives lines that a person types to who may read them.
#![no_std]
#![no_main]

mod input;

use mielin_hal::Console as _;
use mielin_user::boot::Buffer;
use mielin_user::bytes::BYTES_MAX;
use mielin_user::console::{Console, Device};
use mielin_user::line::{READ, READER, WRITE};
use mielin_user::objects::{Interrupt, Message, Notification, Reply};
use mielin_user::startup::{NOTIFIED, slot};
use mielin_user::system_call::Received;
use mielin_user::{Cap, Error, Rights, Startup};

use input::{Event, Input};

mielin_user::program!(main);

/// It has no console but its own, and who looks after it says what has happened.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    mielin_user::start::fail()
}

fn main(startup: Startup) -> ! {
    if let Ok(mut server) = Server::new(startup) {
        // It comes back only if the kernel refuses what it never refuses.
        let _ = server.serve();
    }
    mielin_user::start::fail()
}

struct Server {
    startup: Startup,
    buffer: Buffer,
    console: Console,
    interrupt: Interrupt,
    input: Input,
    /// The next call is to be answered by this.
    reply: Reply,
    /// The other one; who waits for a line is answered by it.
    reader: Reply,
    reader_waits: bool,
}

impl Server {
    fn new(startup: Startup) -> Result<Self, Error> {
        let mut supplies = startup.supplies();
        let mut console = Console::of(Device(Cap(slot::OWN)), &mut supplies)?;
        let interrupt = Interrupt(Cap(slot::OWN + 1));
        let notification = supplies.notification()?;
        startup.thread().bind(Some(notification))?;
        let raised = supplies.mint(notification.0, Rights::WRITE, NOTIFIED)?;
        interrupt.bind(Some(Notification(raised)))?;
        console.interrupt_when_readable(true);
        Ok(Self {
            startup,
            buffer: startup.buffer(),
            console,
            interrupt,
            input: Input::new(),
            reply: supplies.reply()?,
            reader: supplies.reply()?,
            reader_waits: false,
        })
    }

    fn serve(&mut self) -> Result<(), Error> {
        loop {
            let received = self.startup.service().receive(Some(self.reply))?;
            match received.info.label() {
                _ if received.badge & NOTIFIED != 0 => {
                    self.take_input();
                    self.interrupt.acknowledge()?;
                }
                WRITE => {
                    let mut bytes = [0; BYTES_MAX];
                    let bytes = self.buffer.bytes(&received, &mut bytes);
                    self.write(bytes);
                    self.answer(0);
                }
                READ => self.begin_read(&received),
                _ => self.answer(1),
            }
            self.give_line();
        }
    }

    fn begin_read(&mut self, received: &Received) {
        if received.badge != READER {
            return self.answer(1);
        }
        if self.reader_waits {
            // There is one reader: the one before is not there any more.
            let _ = self.reader.send(&Message::new(1, []));
        }
        core::mem::swap(&mut self.reply, &mut self.reader);
        self.reader_waits = true;
    }

    /// Answers without words. Whoever asked may be gone.
    fn answer(&self, label: u64) {
        let _ = self.reply.send(&Message::new(label, []));
    }

    fn give_line(&mut self) {
        if !self.reader_waits {
            return;
        }
        let Some(line) = self.input.line() else {
            return;
        };
        // If the reader is gone, so is the line.
        let _ = self.reader.send(&self.buffer.message(0, [0; 3], line));
        self.input.forget_line();
        self.reader_waits = false;
    }

    fn take_input(&mut self) {
        while let Some(byte) = self.console.read_byte() {
            match self.input.take(byte) {
                Event::Echo => self.console.write_byte(byte),
                Event::Erase => self.write(b"\x08 \x08"),
                Event::End => self.write(b"\n"),
                Event::Nothing => {}
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                self.console.write_byte(b'\r');
            }
            self.console.write_byte(*byte);
        }
    }
}
