//! Carries stored agents to and from other machines by TFTP, at its usual port: an agent's name is the file's, and its content is a checkpoint,
//! as `mielin agent checkpoint` writes it. Nobody is asked who he is, so that what comes is only stored.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::net::{IpAddr, SocketAddr};

use mielin_transfer::{Datagram, ErrorCode, Files, Refusal, Server, ServerLimits};
use mielin_user::agents::{Agents, STORED_BYTES_MAX, files};
use mielin_user::bytes::BYTES_MAX;
use mielin_user::net::{self, Failure, Network, Peer};
use mielin_user::objects::Endpoint;
use mielin_user::startup::slot;
use mielin_user::system_call::now;
use mielin_user::{Cap, Error, Startup, say};

mielin_user::program!(main);
mielin_heap::heap!();
mielin_user::stop_on_panic!("transfer");

/// Pages for `alloc`.
const HEAP_PAGES: u64 = 32;
/// Of TFTP.
const PORT: u16 = 69;
/// Without a transfer, how long it waits in one go.
const REST_MS: u64 = 60_000;

fn main(startup: Startup) -> ! {
    if mielin_heap::begin(&HEAP, &mut startup.supplies(), HEAP_PAGES).is_err() {
        say!("transfer: there is no memory");
        mielin_user::start::fail()
    }
    let carrier = Carrier::new(startup);
    loop {
        match carrier.serve() {
            // The network's server begins anew: so does this.
            Failure::Kernel(Error::Gone) | Failure::Refused(net::Refusal::NotBound) => {}
            Failure::Refused(net::Refusal::NoCard) => {
                say!("transfer: there is no network card, so that agents stay here");
                carrier.rest()
            }
            Failure::Kernel(Error::NoCapability) => {
                say!("transfer: the network's server was given up");
                carrier.rest()
            }
            failure => {
                say!("transfer: {failure:?}");
                mielin_user::start::fail()
            }
        }
    }
}

struct Carrier {
    startup: Startup,
    network: Network,
    agents: Agents,
}

impl Carrier {
    fn new(startup: Startup) -> Self {
        let buffer = startup.buffer();
        Self {
            startup,
            network: Network::new(Endpoint(Cap(slot::OWN)), buffer),
            agents: Agents {
                endpoint: Endpoint(Cap(slot::OWN + 1)),
                buffer,
            },
        }
    }

    fn now_ms(&self) -> u64 {
        now() / self.startup.milliseconds(1).max(1)
    }

    /// Stops: there is nothing that it could do.
    fn rest(&self) -> ! {
        loop {
            // It has a thread, which nobody goes on with.
            let _ = self.startup.thread().suspend();
        }
    }

    /// Serves until the network fails.
    fn serve(&self) -> Failure {
        match self.try_serve() {
            Ok(never) => match never {},
            Err(failure) => failure,
        }
    }

    fn try_serve(&self) -> Result<core::convert::Infallible, Failure> {
        self.network.bind(PORT)?;
        let address = self.network.address()?;
        say!("transfer: stored agents are files at tftp://{address}/");
        let mut server = Server::new(ServerLimits {
            file_bytes: STORED_BYTES_MAX as u64,
            ..ServerLimits::default()
        });
        let mut stored = Stored(self.agents);
        // What an earlier life of this program has begun will not come.
        let _ = stored.ask(files::ABORT, files::ALL, &[]);
        let mut bytes = [0; BYTES_MAX];
        loop {
            let due = server.poll_timeout();
            let due = due.unwrap_or_else(|| self.now_ms() + REST_MS);
            let deadline = due.saturating_mul(self.startup.milliseconds(1)).max(1);
            match self.network.receive(PORT, deadline, &mut bytes) {
                Ok((from, bytes)) => {
                    let from = SocketAddr::from((from.address, from.port));
                    let now = self.now_ms();
                    if let Some(answer) = server.handle_datagram(now, from, bytes, &mut stored) {
                        self.send(answer)?;
                    }
                }
                Err(Failure::Refused(net::Refusal::TimedOut)) => {}
                Err(failure) => return Err(failure),
            }
            // Also when something comes all the time.
            let now = self.now_ms();
            while let Some(again) = server.handle_timeout(now, &mut stored) {
                self.send(again)?;
            }
        }
    }

    fn send(&self, datagram: Datagram<'_>) -> Result<(), Failure> {
        let IpAddr::V4(address) = datagram.to.ip() else {
            return Ok(());
        };
        let port = datagram.to.port();
        match self
            .network
            .send(PORT, Peer { address, port }, datagram.bytes)
        {
            // As if it had been lost: it is sent again.
            Err(Failure::Refused(net::Refusal::Full | net::Refusal::Unaddressable)) => Ok(()),
            result => result,
        }
    }
}

/// The agent server's stored agents.
struct Stored(Agents);

impl Stored {
    /// Asks the agent server; gives the first word of its answer.
    fn ask(&self, label: u64, word: u64, bytes: &[u8]) -> Result<u64, Refusal> {
        self.ask_for(label, word, bytes, &mut [0; BYTES_MAX])
            .map(|(word, _)| word)
    }

    fn ask_for<'a>(
        &self,
        label: u64,
        word: u64,
        bytes: &[u8],
        into: &'a mut [u8; BYTES_MAX],
    ) -> Result<(u64, &'a [u8]), Refusal> {
        let received = self
            .0
            .call(label, [word, 0, 0], bytes)
            .map_err(|_| Refusal::new(ErrorCode::UNDEFINED, "the agent server does not answer"))?;
        let bytes = self.0.buffer.bytes(&received, into);
        if received.info.label() == 0 {
            return Ok((received.words[1], bytes));
        }
        let why = String::from_utf8_lossy(bytes).into_owned();
        Err(Refusal::new(ErrorCode::ACCESS, why))
    }
}

/// An agent that is coming: told to go away unless it is committed.
struct Coming {
    agents: Agents,
    number: u64,
}

impl Drop for Coming {
    fn drop(&mut self) {
        // Nothing is lost if it stays: the agent server has few of these, and drops what was committed.
        let _ = self.agents.call(files::ABORT, [self.number, 0, 0], &[]);
    }
}

impl Files for Stored {
    type Source = String;
    type Sink = Coming;

    fn open(&mut self, name: &str) -> Result<(String, u64), Refusal> {
        let len = self.ask(files::OPEN, 0, name.as_bytes())?;
        Ok((name.to_owned(), len))
    }

    fn read(&mut self, name: &mut String, offset: u64, buffer: &mut [u8]) -> Result<(), Refusal> {
        let mut done = 0;
        while done < buffer.len() {
            let mut bytes = [0; BYTES_MAX];
            let at = offset + done as u64;
            let (_, piece) = self.ask_for(files::READ, at, name.as_bytes(), &mut bytes)?;
            let len = piece.len().min(buffer.len() - done);
            if len == 0 {
                return Err(Refusal::new(ErrorCode::UNDEFINED, "it became shorter"));
            }
            buffer[done..done + len].copy_from_slice(&piece[..len]);
            done += len;
        }
        Ok(())
    }

    fn create(&mut self, name: &str, announced: Option<u64>) -> Result<Coming, Refusal> {
        let number = self.ask(files::CREATE, announced.unwrap_or(0), name.as_bytes())?;
        let agents = self.0;
        Ok(Coming { agents, number })
    }

    fn append(&mut self, coming: &mut Coming, data: &[u8]) -> Result<(), Refusal> {
        for piece in data.chunks(BYTES_MAX) {
            self.ask(files::APPEND, coming.number, piece)?;
        }
        Ok(())
    }

    fn commit(&mut self, coming: Coming) -> Result<(), Refusal> {
        self.ask(files::COMMIT, coming.number, &[]).map(|_| ())
    }
}
