//! IPv4 upon the card, by `smoltcp`: it answers ARP and pings (RFC 826, 792), and what comes to the echo port (RFC 862); and it has a
//! socket for each port that clients can bind.

use core::net::Ipv4Addr;

use mielin_user::bytes::BYTES_MAX;
use mielin_user::net::{PORTS_MAX, Peer, Refusal, argument};
use smoltcp::iface::{
    Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet, SocketStorage,
};
use smoltcp::socket::udp::{PacketBuffer, PacketMetadata, SendError, Socket};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr, IpEndpoint};

use crate::device::Card;
use crate::once::Once;

/// RFC 862.
pub(crate) const ECHO_PORT: u16 = 7;
/// Who answers whatever comes has a port below; to answer those would go on for ever.
const ECHO_FROM: u16 = 1024;
/// The most bytes of a datagram in a frame of Ethernet.
const DATAGRAM_BYTES: usize = 1472;
/// The echo's socket is behind those of clients.
const ECHO: usize = PORTS_MAX;
const SOCKETS: usize = PORTS_MAX + 1;
/// Datagrams that wait at a port, in each direction, and the bytes that they have at most.
const WAITING_MAX: usize = 8;
const WAITING_BYTES: usize = 8192;
/// Packets that are taken in one go: no more than can wait at a port.
const BURST: usize = WAITING_MAX;
/// How often in a second a card is looked at that does not send.
const STUCK_LOOKS: u64 = 10;
/// What waits to be sent for so long is given up: nobody has said that the address is his.
const SENDING_SECONDS: u64 = 3;

type Metadata = [PacketMetadata; WAITING_MAX];

static PLACES: Once<[SocketStorage<'static>; SOCKETS]> =
    Once::new([const { SocketStorage::EMPTY }; SOCKETS]);
static METADATA: Once<[[Metadata; 2]; SOCKETS]> =
    Once::new([[[PacketMetadata::EMPTY; WAITING_MAX]; 2]; SOCKETS]);
static BYTES: Once<[[[u8; WAITING_BYTES]; 2]; SOCKETS]> =
    Once::new([[[0; WAITING_BYTES]; 2]; SOCKETS]);
static ECHOED: Once<[u8; DATAGRAM_BYTES]> = Once::new([0; DATAGRAM_BYTES]);

/// A socket, and what waits to be sent.
#[derive(Clone, Copy)]
struct Port {
    handle: SocketHandle,
    sending_bytes: usize,
    /// When that was seen to become less, or to begin.
    sending_since: u64,
}

/// The network.
pub(crate) struct Stack {
    card: &'static mut Card,
    interface: Interface,
    sockets: SocketSet<'static>,
    ports: [Port; SOCKETS],
    /// What goes back to where it came from.
    echoed: &'static mut [u8; DATAGRAM_BYTES],
    /// Packets may have come that were not taken.
    more: bool,
    ticks_per_second: u64,
}

impl Stack {
    /// With the address and the gateway as the server's arguments say them, 0 for those of QEMU's own network.
    ///
    /// # Panics
    /// If there is one already.
    #[inline(never)]
    pub(crate) fn new(
        card: &'static mut Card,
        address: u64,
        gateway: u64,
        ticks_per_second: u64,
        now: u64,
    ) -> Self {
        let (address, gateway) = match address {
            0 => (argument::ADDRESS_DEFAULT, argument::GATEWAY_DEFAULT),
            _ => (address, gateway),
        };
        let hardware = EthernetAddress(card.address());
        let mut config = Config::new(hardware.into());
        // It chooses identifiers of packets, of which nobody relies on more than that they differ.
        config.random_seed = now;
        let instant = instant(now, ticks_per_second);
        let mut interface = Interface::new(config, card, instant);
        let prefix = (address >> 32).min(32) as u8;
        let own = IpCidr::new(ipv4(address).into(), prefix);
        // There is room for one address, and for one route.
        interface.update_ip_addrs(|all| {
            let _ = all.push(own);
        });
        if gateway != 0 {
            let routes = interface.routes_mut();
            let _ = routes.add_default_ipv4_route(ipv4(gateway));
        }
        let mut sockets = SocketSet::new(&mut PLACES.take()[..]);
        let rooms = METADATA.take().iter_mut().zip(BYTES.take());
        let mut handles = rooms.map(|([of_in, of_out], [bytes_in, bytes_out])| {
            let coming = PacketBuffer::new(&mut of_in[..], &mut bytes_in[..]);
            let going = PacketBuffer::new(&mut of_out[..], &mut bytes_out[..]);
            sockets.add(Socket::new(coming, going))
        });
        let ports = core::array::from_fn(|_| Port {
            handle: handles.next().expect("there is room for each socket"),
            sending_bytes: 0,
            sending_since: now,
        });
        let mut this = Self {
            card,
            interface,
            sockets,
            ports,
            echoed: ECHOED.take(),
            more: true,
            ticks_per_second,
        };
        this.open(ECHO, ECHO_PORT);
        this
    }

    /// This machine's address.
    pub(crate) fn address(&self) -> Ipv4Addr {
        let address = self.interface.ipv4_addr();
        address.unwrap_or(Ipv4Addr::UNSPECIFIED)
    }

    pub(crate) fn hardware_address(&self) -> EthernetAddress {
        EthernetAddress(self.card.address())
    }

    /// The card has interrupted.
    pub(crate) fn acknowledge(&mut self) {
        self.card.acknowledge();
    }

    fn socket(&mut self, index: usize) -> &mut Socket<'static> {
        self.sockets.get_mut(self.ports[index].handle)
    }

    /// Gives a socket another port, not 0, and forgets what waits at it.
    pub(crate) fn open(&mut self, index: usize, port: u16) {
        let socket = self.socket(index);
        socket.close();
        // It is closed, and the port not 0.
        let _ = socket.bind(port);
    }

    pub(crate) fn close(&mut self, index: usize) {
        self.socket(index).close();
    }

    /// Has a datagram wait to be sent.
    pub(crate) fn send(&mut self, index: usize, to: Peer, bytes: &[u8]) -> Result<(), Refusal> {
        if to.address.is_multicast() || to.address.is_unspecified() {
            return Err(Refusal::Unaddressable);
        }
        let to = IpEndpoint::new(to.address.into(), to.port);
        match self.socket(index).send_slice(bytes, to) {
            Ok(()) => Ok(()),
            Err(SendError::BufferFull) => Err(Refusal::Full),
            Err(SendError::Unaddressable) => Err(Refusal::Unaddressable),
        }
    }

    /// The datagram that has waited longest at a port. Such as do not fit into a message are lost.
    pub(crate) fn first(&mut self, index: usize) -> Option<(Peer, &[u8])> {
        while self.socket(index).peek().ok()?.0.len() > BYTES_MAX {
            self.take_first(index);
        }
        let (bytes, from) = self.socket(index).peek().ok()?;
        Some((peer(from.endpoint), bytes))
    }

    /// Takes it away.
    pub(crate) fn take_first(&mut self, index: usize) {
        // If there is none, there is nothing to do.
        let _ = self.socket(index).recv();
    }

    /// Does what there is to do: some of the packets that have come, so that clients wait for none but these, and such as wait to be sent.
    pub(crate) fn poll(&mut self, now: u64) {
        let instant = instant(now, self.ticks_per_second);
        self.interface.poll_maintenance(instant);
        self.more = true;
        for _ in 0..BURST {
            let (card, sockets) = (&mut *self.card, &mut self.sockets);
            let came = self.interface.poll_ingress_single(instant, card, sockets);
            if matches!(came, PollIngressSingleResult::None) {
                self.more = false;
                break;
            }
        }
        self.echo();
        loop {
            let (card, sockets) = (&mut *self.card, &mut self.sockets);
            let went = self.interface.poll_egress(instant, card, sockets);
            if went == PollResult::None {
                break;
            }
        }
        for index in 0..SOCKETS {
            self.give_up(index, now);
        }
    }

    /// Until when there is nothing to do if nothing comes; `None` if for ever.
    pub(crate) fn deadline(&mut self, now: u64) -> Option<u64> {
        if self.more {
            return Some(now);
        }
        if !self.card.has_room() {
            // It says when it has sent something; if it does not, what waits is given up.
            return Some(now.saturating_add(self.ticks_per_second / STUCK_LOOKS));
        }
        let instant = instant(now, self.ticks_per_second);
        let delay = self.interface.poll_delay(instant, &self.sockets)?;
        let ticks = u128::from(delay.total_micros()) * u128::from(self.ticks_per_second);
        Some(now.saturating_add((ticks / 1_000_000) as u64 + 1))
    }

    /// Sends back what has come to the echo port.
    fn echo(&mut self) {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.ports[ECHO].handle);
        while socket.can_send()
            && let Ok((bytes, from)) = socket.recv()
        {
            let len = bytes.len();
            let Some(copy) = self.echoed.get_mut(..len) else {
                continue;
            };
            copy.copy_from_slice(bytes);
            if from.endpoint.port >= ECHO_FROM {
                // What there is no room for is lost, as datagrams may be.
                let _ = socket.send_slice(copy, from.endpoint);
            }
        }
    }

    /// Forgets what waits at a port if the first of it could not be sent for long: all behind it would wait for ever.
    fn give_up(&mut self, index: usize, now: u64) {
        let limit = SENDING_SECONDS * self.ticks_per_second;
        let Port {
            sending_bytes,
            sending_since,
            ..
        } = self.ports[index];
        let socket = self.socket(index);
        let bytes = socket.send_queue();
        let since = match bytes {
            0 => now,
            _ if bytes < sending_bytes => now,
            _ => sending_since,
        };
        if now.saturating_sub(since) > limit {
            let port = socket.endpoint().port;
            self.open(index, port);
        }
        let port = &mut self.ports[index];
        (port.sending_bytes, port.sending_since) = (bytes, since);
    }
}

fn ipv4(word: u64) -> Ipv4Addr {
    Ipv4Addr::from_bits(word as u32)
}

/// A peer's address; others than those of IPv4 do not come here.
fn peer(endpoint: IpEndpoint) -> Peer {
    let IpAddress::Ipv4(address) = endpoint.addr;
    Peer {
        address,
        port: endpoint.port,
    }
}

fn instant(ticks: u64, ticks_per_second: u64) -> Instant {
    let micros = u128::from(ticks) * 1_000_000 / u128::from(ticks_per_second.max(1));
    Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}
