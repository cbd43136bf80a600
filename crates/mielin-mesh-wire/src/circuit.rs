//! Circuits: connections between nodes that cannot dial each other, through a relay.
//!
//! A circuit is a stream from this node to a relay, which the relay joins with one to the far node. QUIC packets
//! go over it, each behind its length (u16, big endian). The endpoint's socket ([`CircuitSocket`]) sends packets to
//! a *virtual address* over the circuits to the node that the address stands for, and gives those that come over
//! circuits to the endpoint as if they came from there. So the connection above is like any other: both ends prove
//! who they are, and the relay sees only encrypted packets. (Tailscale's DERP and iroh do the same; libp2p's circuit
//! relay v2 has the admission by a bounded reservation.)
//!
//! A virtual address stands for a node, not for one circuit: when a relay dies, a circuit through another takes
//! over and the connection above goes on. Addresses lie in 247.109.101.0/24, of the block that RFC 1112 reserved;
//! nothing is ever sent there, and packets that claim to come from there over the network are dropped.
//!
//! Queues are bounded, and what does not fit is dropped, as routers do: QUIC notices and slows down. Windows of
//! connections over circuits are small ([`CIRCUIT_WINDOW`]), so that little waits in the relay's own streams.

mod packet;
mod socket;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::{Bytes, BytesMut};
use mielin_mesh_core::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

use crate::stream::{MeshStream, RecvHalf, SendHalf};
pub(crate) use packet::{MalformedPacket, PACKET_BYTES_MAX, split};
pub(crate) use socket::CircuitSocket;

/// Nodes to which there may be circuits at once.
const NODES_MAX: usize = 1024;
/// Circuits to one node: as many as it may have relays.
const LINES_PER_NODE: usize = 3;
/// Packets that wait to leave over one circuit; at 1,452 bytes about 370 KiB.
const LEAVING_MAX: usize = 256;
/// Packets of all circuits that wait for the endpoint.
const ARRIVED_MAX: usize = 1024;
/// How much is read from, and written to, a circuit at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// What a connection over a circuit may have on its way.
pub(crate) const CIRCUIT_WINDOW: u32 = 1024 * 1024;

/// Whether an address stands for a node behind circuits.
pub(crate) fn is_virtual(address: &SocketAddr) -> bool {
    number_of(address).is_some()
}

const NETWORK: [u8; 3] = [247, 109, 101];
/// Numbers are below this.
const NUMBERS: u32 = 1 << 24;

fn address_of(number: u32) -> SocketAddr {
    let [_, high, middle, low] = number.to_be_bytes();
    let ip = Ipv4Addr::new(NETWORK[0], NETWORK[1], NETWORK[2], high);
    SocketAddr::new(IpAddr::V4(ip), u16::from_be_bytes([middle, low]))
}

fn number_of(address: &SocketAddr) -> Option<u32> {
    let IpAddr::V4(ip) = address.ip().to_canonical() else {
        return None;
    };
    let [a, b, c, high] = ip.octets();
    let [middle, low] = address.port().to_be_bytes();
    ([a, b, c] == NETWORK).then_some(u32::from_be_bytes([0, high, middle, low]))
}

/// What went over this node's own circuits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CircuitTraffic {
    /// Circuits that stand.
    pub circuits: u64,
    /// Bytes of packets handed to relays.
    pub bytes_sent: u64,
    /// Bytes of packets that came from relays.
    pub bytes_received: u64,
    /// Packets dropped because a queue was full, or no circuit stood.
    pub packets_dropped: u64,
}

/// Why a circuit was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CircuitError {
    /// There are circuits to as many nodes as are allowed.
    #[error("circuits to {NODES_MAX} nodes stand already")]
    TooManyNodes,
    /// There are as many circuits to that node as are allowed.
    #[error("{LINES_PER_NODE} circuits to that node stand already")]
    TooManyCircuits,
    /// There is a circuit through that relay already.
    #[error("a circuit to that node through that relay stands already")]
    Exists,
}

/// The circuits of one endpoint; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Circuits {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    table: Mutex<Table>,
    arrived: Mutex<Arrived>,
    /// Something lies in it. Written under its lock.
    waiting: AtomicBool,
    sent: AtomicU64,
    received: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    numbers: HashMap<NodeId, u32>,
    paths: HashMap<u32, Path>,
    last: u32,
    lines: u64,
}

#[derive(Debug)]
struct Path {
    node: NodeId,
    /// Oldest first.
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    id: u64,
    relay: NodeId,
    /// Opened by this node: the relay cannot have made it up.
    ours: bool,
    leaving: mpsc::Sender<Bytes>,
    closing: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Arrived {
    packets: VecDeque<(SocketAddr, Bytes)>,
    waker: Option<Waker>,
}

impl Circuits {
    /// Adds a circuit to `node` through `relay`: the packets that follow on `stream` belong to it. `ours` says
    /// that this node opened it. It stands until the future ends, or is dropped.
    ///
    /// # Errors
    /// [`CircuitError`]; the stream is abandoned.
    pub fn attach(
        &self,
        node: NodeId,
        relay: NodeId,
        ours: bool,
        stream: MeshStream,
    ) -> Result<impl Future<Output = ()> + Send + 'static + use<>, CircuitError> {
        let (leaving, queue) = mpsc::channel(LEAVING_MAX);
        let (closing, mut closed) = watch::channel(false);
        let (number, id) = self.table().add(node, relay, ours, leaving, closing)?;
        let attached = Attached {
            circuits: self.clone(),
            number,
            id,
        };
        let (send, recv) = stream.split();
        Ok(async move {
            let reading = attached.circuits.read(recv, address_of(number));
            tokio::select! {
                () = reading => {}
                () = attached.circuits.write(send, queue) => {}
                _ = closed.wait_for(|closed| *closed) => {}
            }
        })
    }

    /// The virtual address of a node to which a circuit stands.
    pub(crate) fn address(&self, node: &NodeId) -> Option<SocketAddr> {
        let table = self.table();
        let number = table.numbers.get(node)?;
        let path = table.paths.get(number)?;
        (!path.lines.is_empty()).then(|| address_of(*number))
    }

    /// The relay through which packets to a node leave.
    #[must_use]
    pub fn relay_of(&self, node: &NodeId) -> Option<NodeId> {
        let table = self.table();
        let path = table.paths.get(table.numbers.get(node)?)?;
        path.preferred().map(|line| line.relay)
    }

    /// Ends all circuits to a node: a direct connection has replaced them.
    pub fn close(&self, node: &NodeId) {
        let table = self.table();
        let path = table
            .numbers
            .get(node)
            .and_then(|number| table.paths.get(number));
        for line in path.into_iter().flat_map(|path| &path.lines) {
            line.closing.send_replace(true);
        }
    }

    /// What went over them.
    #[must_use]
    pub fn traffic(&self) -> CircuitTraffic {
        CircuitTraffic {
            circuits: self.table().lines,
            bytes_sent: self.inner.sent.load(Ordering::Relaxed),
            bytes_received: self.inner.received.load(Ordering::Relaxed),
            packets_dropped: self.inner.dropped.load(Ordering::Relaxed),
        }
    }

    /// Sends one packet, or drops it.
    fn transmit(&self, to: &SocketAddr, packet: &[u8]) {
        let queue = number_of(to).and_then(|number| {
            let table = self.table();
            let line = table.paths.get(&number)?.preferred()?;
            Some(line.leaving.clone())
        });
        let sent = queue.is_some_and(|queue| {
            // The length is checked first: a packet that is refused must cost no memory.
            packet.len() <= PACKET_BYTES_MAX
                && queue.try_send(Bytes::copy_from_slice(packet)).is_ok()
        });
        let (counter, count) = if sent {
            (&self.inner.sent, packet.len() as u64)
        } else {
            (&self.inner.dropped, 1)
        };
        counter.fetch_add(count, Ordering::Relaxed);
    }

    /// Takes packets off a circuit until it ends.
    async fn read(&self, mut recv: RecvHalf, from: SocketAddr) {
        let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
        loop {
            match split(&mut buffer) {
                Ok(Some(packet)) => self.arrive(from, packet),
                Ok(None) => {
                    buffer.reserve(CHUNK_BYTES);
                    if !matches!(recv.read_buf(&mut buffer).await, Ok(1..)) {
                        return;
                    }
                }
                Err(MalformedPacket { len }) => {
                    tracing::warn!(len, "a circuit brought what is no packet; it is closed");
                    return;
                }
            }
        }
    }

    fn arrive(&self, from: SocketAddr, packet: Bytes) {
        let len = packet.len() as u64;
        let mut arrived = self.arrived();
        if arrived.packets.len() >= ARRIVED_MAX {
            self.inner.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        arrived.packets.push_back((from, packet));
        self.inner.waiting.store(true, Ordering::Relaxed);
        let waker = arrived.waker.take();
        drop(arrived);
        self.inner.received.fetch_add(len, Ordering::Relaxed);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Puts packets on a circuit until it ends, as many at once as wait.
    async fn write(&self, mut send: SendHalf, mut queue: mpsc::Receiver<Bytes>) {
        // Packets of others are less urgent than what this node has to say to the relay.
        send.yield_to_others();
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        while let Some(packet) = queue.recv().await {
            packet::join(&mut chunk, &packet);
            while chunk.len() < CHUNK_BYTES
                && let Ok(packet) = queue.try_recv()
            {
                packet::join(&mut chunk, &packet);
            }
            if send.write_all_buf(&mut chunk).await.is_err() {
                return;
            }
            chunk.clear();
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        let table = &self.inner.table;
        table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether packets wait for the endpoint, without the lock.
    fn have_packets(&self) -> bool {
        self.inner.waiting.load(Ordering::Relaxed)
    }

    fn none_wait(&self) {
        self.inner.waiting.store(false, Ordering::Relaxed);
    }

    fn arrived(&self) -> MutexGuard<'_, Arrived> {
        let arrived = &self.inner.arrived;
        arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Path {
    /// One that this node opened, the newest; else the newest at all.
    fn preferred(&self) -> Option<&Line> {
        let newest = self.lines.iter().rev();
        newest
            .clone()
            .find(|line| line.ours)
            .or(newest.clone().next())
    }
}

impl Table {
    fn add(
        &mut self,
        node: NodeId,
        relay: NodeId,
        ours: bool,
        leaving: mpsc::Sender<Bytes>,
        closing: watch::Sender<bool>,
    ) -> Result<(u32, u64), CircuitError> {
        let number = self.number(node)?;
        self.last = self.last.wrapping_add(1);
        let id = (u64::from(self.last) << 32) | u64::from(number);
        let path = self.paths.entry(number).or_insert(Path {
            node,
            lines: Vec::new(),
        });
        if path
            .lines
            .iter()
            .any(|line| line.relay == relay && line.ours == ours)
        {
            return Err(CircuitError::Exists);
        }
        if path.lines.len() >= LINES_PER_NODE {
            return Err(CircuitError::TooManyCircuits);
        }
        path.lines.push(Line {
            id,
            relay,
            ours,
            leaving,
            closing,
        });
        self.lines += 1;
        Ok((number, id))
    }

    /// The number of a node. It keeps its number while others need none, so that a connection outlives a
    /// moment without a circuit.
    fn number(&mut self, node: NodeId) -> Result<u32, CircuitError> {
        if let Some(number) = self.numbers.get(&node) {
            return Ok(*number);
        }
        if self.numbers.len() >= NODES_MAX {
            let idle = self.paths.iter().find(|(_, path)| path.lines.is_empty());
            let (number, node) = idle
                .map(|(number, path)| (*number, path.node))
                .ok_or(CircuitError::TooManyNodes)?;
            self.paths.remove(&number);
            self.numbers.remove(&node);
        }
        // Far fewer are in use than there are, so this ends.
        let number = loop {
            self.last = self.last.wrapping_add(1);
            // A port of 0 could not be dialled.
            let number = self.last % NUMBERS;
            if !number.is_multiple_of(1 << 16) && !self.paths.contains_key(&number) {
                break number;
            }
        };
        self.numbers.insert(node, number);
        Ok(number)
    }

    fn remove(&mut self, number: u32, id: u64) {
        let Some(path) = self.paths.get_mut(&number) else {
            return;
        };
        let before = path.lines.len();
        path.lines.retain(|line| line.id != id);
        self.lines -= (before - path.lines.len()) as u64;
    }
}

/// Removes a circuit when it ends, however that is.
struct Attached {
    circuits: Circuits,
    number: u32,
    id: u64,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.circuits.table().remove(self.number, self.id);
    }
}

#[cfg(test)]
mod tests;
