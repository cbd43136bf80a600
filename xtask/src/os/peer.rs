//! The other machine on a guest's network: raw Ethernet with the guest's card, over datagrams of the host's loopback interface, and a stack of
//! its own (`smoltcp`) upon it. So tests see what the guest sends, and need no rights on the host.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{icmp, udp};
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{EthernetAddress, Icmpv4Packet, Icmpv4Repr, IpAddress, IpCidr, IpEndpoint};

use super::{Arch, machine};

/// The guest's address, as the network server has it unless it is told another.
pub(super) const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// This machine's: what a guest takes for its gateway.
const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const PREFIX: u8 = 24;
/// Locally administered, and nobody else's on this wire.
const OWN_HARDWARE: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
/// The port that datagrams leave from and come back to.
const OWN_PORT: u16 = 40_000;
/// The echo port (RFC 862).
const ECHO_PORT: u16 = 7;
/// Identifies this machine's pings.
const PING: u16 = 0x6d69;

/// A frame of Ethernet, with its header.
const FRAME_BYTES: usize = 1514;
/// After so long without an answer, what was sent is sent again.
const AGAIN: Duration = Duration::from_millis(300);

/// The wire: each datagram is a frame.
struct Wire {
    socket: UdpSocket,
    arrived: VecDeque<Vec<u8>>,
}

impl Wire {
    /// Waits for frames for so long, and takes all that are there then.
    fn wait(&mut self, time: Duration) -> io::Result<()> {
        self.socket
            .set_read_timeout(Some(time.max(Duration::from_millis(1))))?;
        let mut more = self.take()?;
        self.socket.set_nonblocking(true)?;
        while more {
            more = self.take()?;
        }
        self.socket.set_nonblocking(false)
    }

    /// Takes a frame; whether there was one.
    fn take(&mut self) -> io::Result<bool> {
        let mut frame = vec![0; 2 * FRAME_BYTES];
        match self.socket.recv(&mut frame) {
            Ok(len) => {
                frame.truncate(len);
                self.arrived.push_back(frame);
                Ok(true)
            }
            // Nothing has come, or the machine at the other end is not there yet, or not any more.
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::ConnectionRefused => {
                    Ok(false)
                }
                ErrorKind::Interrupted => Ok(false),
                _ => Err(error),
            },
        }
    }
}

/// A frame that has come.
struct Arrived(Vec<u8>);

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, look: F) -> R {
        look(&self.0)
    }
}

/// The wire, for a frame to be sent.
struct Leaving<'a>(&'a UdpSocket);

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        let mut frame = vec![0; len];
        let result = fill(&mut frame);
        // What is lost is lost: nobody is there yet, or not any more.
        let _ = self.0.send(&frame);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _: StackInstant) -> Option<(Arrived, Leaving<'_>)> {
        let frame = self.arrived.pop_front()?;
        Some((Arrived(frame), Leaving(&self.socket)))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Leaving<'_>> {
        Some(Leaving(&self.socket))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_BYTES;
        capabilities
    }
}

/// The other machine.
pub(super) struct Peer {
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    udp: SocketHandle,
    icmp: SocketHandle,
    began: Instant,
    /// Numbers pings.
    pings: u16,
    /// Ports of the host: the guest's end of the wire, and this one.
    ports: (u16, u16),
}

impl Peer {
    /// A machine at one end of a wire.
    ///
    /// # Errors
    /// The host has no loopback interface, or no ports.
    pub(super) fn new() -> Result<Self> {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("a port of the host");
        let (own, guests) = (bind()?, bind()?);
        // The guest's end is given up here, for QEMU to take it.
        let guest_port = guests.local_addr()?.port();
        own.connect((Ipv4Addr::LOCALHOST, guest_port))?;
        Self::on(own, OWN, OWN_HARDWARE)
    }

    fn on(socket: UdpSocket, address: Ipv4Addr, hardware: EthernetAddress) -> Result<Self> {
        let ports = (socket.peer_addr()?.port(), socket.local_addr()?.port());
        let mut wire = Wire {
            socket,
            arrived: VecDeque::new(),
        };
        let config = Config::new(hardware.into());
        let mut interface = Interface::new(config, &mut wire, StackInstant::ZERO);
        interface.update_ip_addrs(|all| {
            // It is the first, for which there is room.
            let _ = all.push(IpCidr::new(address.into(), PREFIX));
        });
        let mut sockets = SocketSet::new(Vec::new());
        let buffer =
            || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 64], vec![0; 1 << 17]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        let bound = socket.bind(OWN_PORT);
        ensure!(bound.is_ok(), "a new socket refused its port");
        let udp = sockets.add(socket);
        let buffer =
            || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 8], vec![0; 1 << 14]);
        let mut socket = icmp::Socket::new(buffer(), buffer());
        let bound = socket.bind(icmp::Endpoint::Ident(PING));
        ensure!(bound.is_ok(), "a new socket refused its identifier");
        let icmp = sockets.add(socket);
        Ok(Self {
            wire,
            interface,
            sockets,
            udp,
            icmp,
            began: Instant::now(),
            pings: 0,
            ports,
        })
    }

    /// What QEMU is told so that a guest has a card on this wire.
    pub(super) fn arguments(&self, arch: Arch) -> Vec<String> {
        let (guests, own) = self.ports;
        let wire = format!(
            "dgram,id={},local.type=inet,local.host=127.0.0.1,local.port={guests},\
             remote.type=inet,remote.host=127.0.0.1,remote.port={own}",
            machine::NETWORK
        );
        let mut arguments = vec!["-netdev".to_owned(), wire];
        let card = machine::card(arch).iter();
        arguments.extend(card.map(|argument| (*argument).to_owned()));
        arguments
    }

    /// Does what there is to do, until something comes or so much time has passed.
    fn step(&mut self, time: Duration) -> Result<()> {
        let now = StackInstant::from_micros(i64::try_from(self.began.elapsed().as_micros())?);
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        let delay = self.interface.poll_delay(now, &self.sockets);
        let delay = delay.map_or(time, |delay| Duration::from(delay).min(time));
        self.wire.wait(delay).context("the wire to the guest")?;
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        Ok(())
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// It is too long, or too many wait to be sent.
    pub(super) fn send(&mut self, to: SocketAddrV4, bytes: &[u8]) -> Result<()> {
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(self.udp);
        let endpoint = IpEndpoint::new((*to.ip()).into(), to.port());
        if let Err(error) = socket.send_slice(bytes, endpoint) {
            bail!("{} bytes to {to}: {error}", bytes.len());
        }
        self.step(Duration::ZERO)
    }

    /// Waits for a datagram for so long, from whomever. `None` if none has come.
    ///
    /// # Errors
    /// The wire is broken.
    pub(super) fn receive(
        &mut self,
        patience: Duration,
    ) -> Result<Option<(SocketAddrV4, Vec<u8>)>> {
        let deadline = Instant::now() + patience;
        loop {
            let socket = self.sockets.get_mut::<udp::Socket<'_>>(self.udp);
            if let Ok((bytes, from)) = socket.recv() {
                let IpAddress::Ipv4(address) = from.endpoint.addr;
                let from = SocketAddrV4::new(address, from.endpoint.port);
                return Ok(Some((from, bytes.to_vec())));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.step(left)?;
        }
    }

    /// Sends a datagram, again and again, until an answer comes from there that `wanted` accepts; others are dropped.
    ///
    /// # Errors
    /// None has come in this time.
    pub(super) fn exchange(
        &mut self,
        to: SocketAddrV4,
        bytes: &[u8],
        patience: Duration,
        wanted: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            self.send(to, bytes)?;
            let again = deadline.min(Instant::now() + AGAIN);
            while let Some((from, answer)) =
                self.receive(again.saturating_duration_since(Instant::now()))?
            {
                if from == to && wanted(&answer) {
                    return Ok(answer);
                }
            }
        }
        bail!(
            "{to} has not answered {} bytes in {patience:?}",
            bytes.len()
        )
    }

    /// Pings a machine with so many bytes, again and again, until it answers with the same.
    ///
    /// # Errors
    /// It has not in this time.
    pub(super) fn ping(&mut self, whom: Ipv4Addr, len: usize, patience: Duration) -> Result<()> {
        let data: Vec<u8> = (0..len).map(|index| index as u8).collect();
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            self.pings = self.pings.wrapping_add(1);
            let request = Icmpv4Repr::EchoRequest {
                ident: PING,
                seq_no: self.pings,
                data: &data,
            };
            let checksums = ChecksumCapabilities::default();
            let socket = self.sockets.get_mut::<icmp::Socket<'_>>(self.icmp);
            match socket.send(request.buffer_len(), whom.into()) {
                Ok(bytes) => request.emit(&mut Icmpv4Packet::new_unchecked(bytes), &checksums),
                // The last ones wait still for the machine's hardware address.
                Err(icmp::SendError::BufferFull) => {}
                Err(error) => bail!("a ping of {len} bytes to {whom}: {error}"),
            }
            let again = deadline.min(Instant::now() + AGAIN);
            while Instant::now() < again {
                self.step(again.saturating_duration_since(Instant::now()))?;
                if self.was_answered(whom, &data) {
                    return Ok(());
                }
            }
        }
        bail!("{whom} has not answered a ping of {len} bytes in {patience:?}")
    }

    /// Whether an answer to the last ping has come; others are dropped.
    fn was_answered(&mut self, whom: Ipv4Addr, wanted: &[u8]) -> bool {
        let checksums = ChecksumCapabilities::default();
        let socket = self.sockets.get_mut::<icmp::Socket<'_>>(self.icmp);
        while let Ok((bytes, from)) = socket.recv() {
            let packet = Icmpv4Packet::new_checked(bytes);
            let answer = packet.and_then(|packet| {
                let repr = Icmpv4Repr::parse(&packet, &checksums)?;
                Ok(matches!(
                    repr,
                    Icmpv4Repr::EchoReply { seq_no, data, .. }
                        if seq_no == self.pings && data == wanted
                ))
            });
            if answer == Ok(true) && from == IpAddress::from(whom) {
                return true;
            }
        }
        false
    }

    /// Checks that a guest answers as the network server does: ARP, without which nothing else comes to it, pings, and what is sent to the echo
    /// port, from nothing to all that a frame holds. `patience` is for each.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn check_answers(&mut self, guest: Ipv4Addr, patience: Duration) -> Result<()> {
        for len in [56, 0, 1472] {
            self.ping(guest, len, patience)?;
        }
        let echo = SocketAddrV4::new(guest, ECHO_PORT);
        for len in [5, 0, 1, 900, 1472] {
            let bytes: Vec<u8> = (0..len).map(|index| (index * 7 + len) as u8).collect();
            self.exchange(echo, &bytes, patience, &|answer| answer == bytes)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);
    const GUESTS_HARDWARE: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 2]);

    /// Two machines on a wire.
    fn pair() -> Result<(Peer, Peer)> {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        let (one, other) = (bind()?, bind()?);
        one.connect(other.local_addr()?)?;
        other.connect(one.local_addr()?)?;
        let one = Peer::on(one, OWN, OWN_HARDWARE)?;
        Ok((one, Peer::on(other, GUEST, GUESTS_HARDWARE)?))
    }

    #[test]
    fn a_machine_on_the_wire_answers() {
        let (mut peer, mut guest) = pair().expect("two sockets");
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                // Sends back what has come, with its first byte changed, and every third one not at all.
                let mut count = 0;
                while !over.load(Ordering::Relaxed) {
                    let came = guest.receive(Duration::from_millis(10)).expect("a wire");
                    count += u32::from(came.is_some());
                    if let Some((from, mut bytes)) = came.filter(|_| count % 3 != 0) {
                        bytes[0] ^= 1;
                        guest.send(from, &bytes).expect("room");
                    }
                }
            });
            let result = (|| {
                peer.ping(GUEST, 56, PATIENCE)?;
                peer.ping(GUEST, 1472, PATIENCE)?;
                let to = SocketAddrV4::new(GUEST, OWN_PORT);
                for number in 0..10 {
                    let wanted = [number ^ 1, 7];
                    peer.exchange(to, &[number, 7], PATIENCE, &|answer| answer == wanted)?;
                }
                anyhow::Ok(())
            })();
            over.store(true, Ordering::Relaxed);
            result.expect("all is answered");
        });
    }

    #[test]
    fn who_is_not_there_does_not_answer() {
        let mut peer = Peer::new().expect("two sockets");
        let soon = Duration::from_millis(20);
        assert!(peer.ping(GUEST, 56, soon).is_err());
        assert!(peer.check_answers(GUEST, soon).is_err());
        let to = SocketAddrV4::new(GUEST, 9);
        assert!(peer.exchange(to, b"?", soon, &|_| true).is_err());
        assert_eq!(peer.receive(soon).expect("a wire"), None);
    }
}
