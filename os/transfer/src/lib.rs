//! Files to and from a bare node: TFTP's server and client as state machines without sockets or clocks.
//!
//! [`Server`] answers datagrams, and asks a [`Files`] for what is read and written; [`Client`] reads or writes one file.
//! Both take the time in milliseconds of any clock that does not go back, addresses and bytes, and give datagrams to send.
//! Whoever drives them repeats `handle_timeout` when the time of `poll_timeout` has come, and asks for that time again after
//! each datagram that was handled.
//!
//! The protocol is RFC 1350 in mode `octet`, with the options (RFC 2347) `blksize` (RFC 2348), `timeout` and `tsize`
//! (RFC 2349), and the correction of RFC 1123, 4.2.3.1 (the Sorcerer's Apprentice): a block is sent again when its time
//! has run out, and never because an acknowledgement came twice. Two deviations:
//!
//! - The server answers from its well-known port: its transfer identifier (RFC 1350, 4) is always that port, and transfers
//!   are told apart by the client's address and port alone. A host reaches an emulated machine by single ports that are
//!   forwarded to it, and a bare node has one socket for all of this. Clients that follow RFC 1350 cannot tell the difference.
//! - The number of a block follows 65,535 by 0, as elsewhere; RFC 1350 does not say what comes then.
//!
//! Deliberately not here: sockets, retransmission faster than by whole timeouts, the modes `netascii` and `mail`, and any
//! protection. Who reaches the port reads and writes what the `Files` let everybody read and write, and can say that they are
//! somebody else.
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::net::SocketAddr;
//! use mielin_transfer::{Client, ErrorCode, Files, Refusal, Server, ServerLimits, Wanted};
//!
//! /// Files that can only be read.
//! struct Shelf(BTreeMap<&'static str, &'static [u8]>);
//!
//! impl Files for Shelf {
//!     type Source = &'static [u8];
//!     type Sink = ();
//!
//!     fn open(&mut self, name: &str) -> Result<(Self::Source, u64), Refusal> {
//!         let content = self.0.get(name).ok_or(Refusal::new(ErrorCode::NOT_FOUND, "no such file"))?;
//!         Ok((content, content.len() as u64))
//!     }
//!     fn read(&mut self, source: &mut Self::Source, offset: u64, buffer: &mut [u8]) -> Result<(), Refusal> {
//!         let offset = offset as usize;
//!         buffer.copy_from_slice(&source[offset..offset + buffer.len()]);
//!         Ok(())
//!     }
//!     fn create(&mut self, _: &str, _: Option<u64>) -> Result<(), Refusal> {
//!         Err(Refusal::new(ErrorCode::ACCESS, "this shelf is full"))
//!     }
//!     fn append(&mut self, (): &mut (), _: &[u8]) -> Result<(), Refusal> { Ok(()) }
//!     fn commit(&mut self, (): ()) -> Result<(), Refusal> { Ok(()) }
//! }
//!
//! let mut shelf = Shelf(BTreeMap::from([("motto", b"Sans-IO.".as_slice())]));
//! let (at, me) = (SocketAddr::from(([10, 0, 0, 1], 69)), SocketAddr::from(([10, 0, 0, 2], 5000)));
//! let mut server = Server::new(ServerLimits::default());
//! let mut client = Client::get(at, "motto", Wanted::default(), 1 << 20)?;
//!
//! let mut now_ms = 0;
//! let mut sent = Some(client.start(now_ms).bytes.to_vec());
//! while let Some(bytes) = sent {
//!     now_ms += 1;
//!     let answer = server.handle_datagram(now_ms, me, &bytes, &mut shelf);
//!     let answer = answer.map(|datagram| datagram.bytes.to_vec());
//!     sent = answer.and_then(|bytes| {
//!         client.handle_datagram(now_ms, at, &bytes).map(|datagram| datagram.bytes.to_vec())
//!     });
//! }
//! assert_eq!(client.outcome(), Some(&Ok(())));
//! assert_eq!(client.content(), b"Sans-IO.");
//! # Ok::<(), mielin_transfer::ClientError>(())
//! ```

#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod error;
mod packet;

mod options;
mod resend;

mod files;
mod server;

mod client;

pub use client::{Client, ClientError, Wanted};
pub use error::ErrorCode;
pub use files::{Ending, Files, Refusal};
pub use resend::Datagram;
pub use server::{Server, ServerLimits};

#[cfg(test)]
mod tests;

#[cfg(test)]
#[global_allocator]
static ALLOCATOR: mielin_fuzz::Counting = mielin_fuzz::Counting;
