//! The endpoint's socket: the real one, and the circuits beside it.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use super::{Circuits, is_virtual};

/// A UDP socket that reaches virtual addresses over circuits.
pub(crate) struct CircuitSocket {
    real: Arc<dyn AsyncUdpSocket>,
    circuits: Circuits,
    /// The real socket is one of IPv6, on which quinn knows peers with IPv4 addresses by their mapped ones
    /// (RFC 4291, section 2.5.5.2), those behind circuits too.
    maps: bool,
    /// Whose turn it is to be asked first, so that neither starves the other.
    circuits_first: AtomicBool,
}

impl CircuitSocket {
    pub(crate) fn new(real: Arc<dyn AsyncUdpSocket>, circuits: Circuits) -> Self {
        CircuitSocket {
            maps: real.local_addr().is_ok_and(|bound| bound.is_ipv6()),
            real,
            circuits,
            circuits_first: AtomicBool::new(false),
        }
    }

    fn poll_real(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let polled = self.real.poll_recv(cx, buffers, meta);
        if let Poll::Ready(Ok(count)) = polled {
            // Nobody out there has a virtual address: who claims one wants to speak as a node behind a circuit.
            for meta in meta.iter_mut().take(count) {
                if is_virtual(&meta.addr) {
                    meta.len = 0;
                }
            }
        }
        polled
    }

    fn poll_circuits(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut arrived = self.circuits.arrived();
        if arrived.packets.is_empty() {
            self.circuits.none_wait();
            match &mut arrived.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        let mut count = 0;
        for (buffer, meta) in buffers.iter_mut().zip(meta) {
            let Some((from, packet)) = arrived.packets.pop_front() else {
                break;
            };
            // One that does not fit is left out, as its length says.
            let len = if packet.len() <= buffer.len() {
                packet.len()
            } else {
                0
            };
            buffer[..len].copy_from_slice(&packet[..len]);
            *meta = RecvMeta {
                addr: if self.maps { mapped(from) } else { from },
                len,
                stride: len.max(1),
                ecn: None,
                dst_ip: None,
            };
            count += 1;
        }
        Poll::Ready(Ok(count))
    }
}

/// The address as a socket of IPv6 has it.
fn mapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        SocketAddr::V6(_) => address,
    }
}

impl AsyncUdpSocket for CircuitSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.real).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if !is_virtual(&transmit.destination) {
            return self.real.try_send(transmit);
        }
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len());
        for packet in transmit.contents.chunks(segment.max(1)) {
            self.circuits.transmit(&transmit.destination, packet);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        // Without packets that wait, the circuits are asked only where nothing came over the network either.
        let circuits_first =
            self.circuits.have_packets() && self.circuits_first.fetch_xor(true, Ordering::Relaxed);
        if circuits_first {
            match self.poll_circuits(cx, buffers, meta) {
                Poll::Pending => self.poll_real(cx, buffers, meta),
                ready => ready,
            }
        } else {
            match self.poll_real(cx, buffers, meta) {
                Poll::Pending => self.poll_circuits(cx, buffers, meta),
                ready => ready,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.real.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.real.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.real.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.real.may_fragment()
    }
}

impl fmt::Debug for CircuitSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitSocket")
            .field("real", &self.real)
            .finish_non_exhaustive()
    }
}
