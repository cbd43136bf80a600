//! Datagrams (UDP over IPv4), by way of the network server.
//!
//! Messages have the form of [`bytes`](crate::bytes): the number of bytes; a port of this machine; the [`Peer`] in one word; and a
//! deadline. A call has one of the [`Request`]s as its label, an answer 0 or a [`Refusal`]. The server knows its clients by
//! the badges of their capabilities: a port belongs to whoever bound it.
//!
//! A datagram comes to whoever asks for it, one at a time; those that nobody asks for wait, a few for each port, and then are lost.

pub mod card;

use core::net::Ipv4Addr;

use mielin_kernel::abi::Error;

use crate::boot::Buffer;
use crate::bytes::BYTES_MAX;
use crate::objects::Endpoint;
use crate::startup::slot::OWN;
use crate::system_call::Received;

/// Ports that can be bound at the same time.
pub const PORTS_MAX: usize = 8;

/// Slots of the server's node that mean something to it alone. What it has not been given is empty.
pub mod slot {
    use super::OWN;

    /// A frame of 2 MiB, which the card reads and writes. Nobody may use it as long as the card has not been reset.
    pub const SHARED: u64 = OWN;
    /// The card's interrupt line. Without one the server looks again and again.
    pub const INTERRUPT: u64 = OWN + 1;
    /// The I/O ports of PCI's configuration, for a card that is on PCI.
    pub const PORTS: u64 = OWN + 2;
    /// The first of the frames with the card's registers; the others follow.
    pub const REGISTERS: u64 = OWN + 3;
}

/// What the server is told, by index of its arguments: what [`card::Card::arguments`] says, and the address of this machine.
pub mod argument {
    /// How the card is reached: 0 if there is none.
    pub const KIND: usize = 0;
    /// Where its registers are.
    pub const REGISTERS: usize = 1;
    /// Their bytes.
    pub const REGISTERS_BYTES: usize = 2;
    /// On PCI, its bus, device and function, as in a configuration address: bits 8 to 23.
    pub const FUNCTION: usize = 3;
    /// The address, and from bit 32 on how many of its bits are the network's. If it is 0, it is [`ADDRESS_DEFAULT`].
    pub const ADDRESS: usize = 4;
    /// Who passes on what is for other networks; 0 for nobody.
    pub const GATEWAY: usize = 5;

    /// In QEMU's own network: 10.0.2.15 of 10.0.2.0/24.
    pub const ADDRESS_DEFAULT: u64 = 24 << 32 | 0x0a00_020f;
    /// The gateway there, 10.0.2.2.
    pub const GATEWAY_DEFAULT: u64 = 0x0a00_0202;
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A port, or any if it is 0; the answer names it. If the client has it already, it gets it without what waits there.
    Bind,
    /// Gives a port back.
    Unbind,
    /// Sends a datagram from a port.
    Send,
    /// Waits for a datagram at a port until a deadline, and takes it. A client's next such request ends one that waits there still.
    Receive,
    /// This machine's address, as the peer.
    Address,
}

impl Request {
    const ALL: [Self; 5] = [
        Self::Bind,
        Self::Unbind,
        Self::Send,
        Self::Receive,
        Self::Address,
    ];

    /// The label of its message.
    #[must_use]
    pub const fn label(self) -> u64 {
        self as u64 + 1
    }

    /// The one with this label.
    #[must_use]
    pub fn of_label(label: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.label() == label)
    }
}

/// Why the server did not do it. Nothing was changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The machine has no network card, or it does not work.
    NoCard,
    /// The request is none, or too long, or for a port above 65,535.
    Malformed,
    /// Somebody else has the port.
    PortTaken,
    /// There are no more ports for clients.
    NoPorts,
    /// The port is not this client's.
    NotBound,
    /// Too many datagrams from this port wait to be sent.
    Full,
    /// Nobody can have the address.
    Unaddressable,
    /// Nothing came until the deadline.
    TimedOut,
    /// The port was bound anew or given back, or the client has asked once more.
    Canceled,
}

impl Refusal {
    const ALL: [Self; 9] = [
        Self::NoCard,
        Self::Malformed,
        Self::PortTaken,
        Self::NoPorts,
        Self::NotBound,
        Self::Full,
        Self::Unaddressable,
        Self::TimedOut,
        Self::Canceled,
    ];

    /// The label of its message.
    #[must_use]
    pub const fn label(self) -> u64 {
        self as u64 + 1
    }

    /// The one with this label.
    #[must_use]
    pub fn of_label(label: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.label() == label)
    }
}

/// An address and a port of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The address.
    pub address: Ipv4Addr,
    /// The port.
    pub port: u16,
}

impl Peer {
    /// In one word.
    #[must_use]
    pub fn to_word(self) -> u64 {
        u64::from(self.address.to_bits()) << 16 | u64::from(self.port)
    }

    /// What a word says.
    #[must_use]
    pub fn from_word(word: u64) -> Self {
        Self {
            address: Ipv4Addr::from_bits((word >> 16) as u32),
            port: word as u16,
        }
    }
}

/// Why something was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server says so.
    Refused(Refusal),
    /// The kernel does: [`Error::Gone`] if the server has failed meanwhile.
    Kernel(Error),
    /// The answer makes no sense.
    Answer(u64),
}

/// The network, for a thread with this buffer.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    endpoint: Endpoint,
    buffer: Buffer,
}

impl Network {
    /// By this capability for the server.
    #[must_use]
    pub const fn new(endpoint: Endpoint, buffer: Buffer) -> Self {
        Self { endpoint, buffer }
    }

    fn ask(self, request: Request, words: [u64; 3], bytes: &[u8]) -> Result<Received, Failure> {
        let message = self.buffer.message(request.label(), words, bytes);
        let received = self.endpoint.call(&message).map_err(Failure::Kernel)?;
        match received.info.label() {
            0 => Ok(received),
            label => Err(Refusal::of_label(label).map_or(Failure::Answer(label), Failure::Refused)),
        }
    }

    /// Takes a port, any if it is 0, and gives its number.
    ///
    /// # Errors
    /// [`Refusal::PortTaken`], [`Refusal::NoPorts`], [`Refusal::NoCard`].
    pub fn bind(self, port: u16) -> Result<u16, Failure> {
        let received = self.ask(Request::Bind, [port.into(), 0, 0], &[])?;
        Ok(received.words[1] as u16)
    }

    /// Gives a port back.
    ///
    /// # Errors
    /// [`Refusal::NotBound`].
    pub fn unbind(self, port: u16) -> Result<(), Failure> {
        self.ask(Request::Unbind, [port.into(), 0, 0], &[])
            .map(|_| ())
    }

    /// Sends a datagram of at most [`BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// [`Refusal::NotBound`], [`Refusal::Full`], [`Refusal::Unaddressable`]; [`Refusal::Malformed`] if there are more bytes.
    pub fn send(self, port: u16, to: Peer, bytes: &[u8]) -> Result<(), Failure> {
        if bytes.len() > BYTES_MAX {
            return Err(Failure::Refused(Refusal::Malformed));
        }
        self.ask(Request::Send, [port.into(), to.to_word(), 0], bytes)
            .map(|_| ())
    }

    /// Waits for a datagram until a deadline, a time of the clock; 0 only looks. One of more than [`BYTES_MAX`] bytes is never given.
    ///
    /// # Errors
    /// [`Refusal::TimedOut`], [`Refusal::NotBound`], [`Refusal::Canceled`].
    pub fn receive(
        self,
        port: u16,
        deadline: u64,
        into: &mut [u8; BYTES_MAX],
    ) -> Result<(Peer, &[u8]), Failure> {
        let received = self.ask(Request::Receive, [port.into(), 0, deadline], &[])?;
        let from = Peer::from_word(received.words[2]);
        Ok((from, self.buffer.bytes(&received, into)))
    }

    /// The address of this machine.
    ///
    /// # Errors
    /// [`Refusal::NoCard`].
    pub fn address(self) -> Result<Ipv4Addr, Failure> {
        let received = self.ask(Request::Address, [0; 3], &[])?;
        Ok(Peer::from_word(received.words[2]).address)
    }
}
