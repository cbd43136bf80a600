//! The endpoint's UDP socket, which wakes the process once for each batch of packets that arrives.
//!
//! It differs in three ways from the socket that quinn makes for Tokio:
//!
//! - It is registered for reading only. Registered for writing as well, edge-triggered `epoll(7)` reports room anew for
//!   each packet that has left, although nobody waits for that. Who does wait makes a registration for the time.
//! - A receive call that brings fewer packets than were asked for has emptied the socket (`recvmmsg(2)`): it is not asked
//!   again before more is reported.
//! - As many packets are asked for as arrived lately, with room to double: to prepare for 32 takes longer than to receive
//!   one.

use std::future::Future;
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use quinn::udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// With one, whether there are more could not be told from what a receive call brings.
const BATCH_MIN: usize = 2;

#[derive(Debug)]
pub(crate) struct Socket {
    udp: AsyncFd<UdpSocket>,
    state: UdpSocketState,
    /// How many packets to ask for.
    batch: AtomicUsize,
    /// The last packet to send found no room.
    full: AtomicBool,
}

impl Socket {
    /// To be called in a Tokio runtime.
    pub(crate) fn new(udp: UdpSocket) -> io::Result<Socket> {
        let state = UdpSocketState::new((&udp).into())?;
        Ok(Socket {
            udp: register(udp, Interest::READABLE)?,
            state,
            batch: AtomicUsize::new(BATCH_SIZE),
            full: AtomicBool::new(false),
        })
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Room {
            socket: self,
            waiting: None,
        })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        // `UdpSocketState::send` would write what it has not sent into the log as Rust's Debug does.
        match self.state.try_send(self.udp.get_ref().into(), transmit) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.full.store(true, Ordering::Relaxed);
                Err(error)
            }
            // To no way, against a firewall, or too long for the path, which is being probed: a packet that is lost. An
            // error would end the whole endpoint.
            Err(error) => {
                let to = transmit.destination;
                tracing::debug!(%to, %error, "a packet was not sent");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let most = buffers.len().min(meta.len()).min(BATCH_SIZE);
        let batch = self.batch.load(Ordering::Relaxed).min(most);
        loop {
            // What arrives from now on is reported after this, and is not cleared with it.
            let mut readable = ready!(self.udp.poll_read_ready(cx))?;
            let udp = readable.get_inner().into();
            match self
                .state
                .recv(udp, &mut buffers[..batch], &mut meta[..batch])
            {
                Ok(count) => {
                    if count < batch {
                        readable.clear_ready();
                    }
                    let next = (2 * count).max(BATCH_MIN);
                    self.batch.store(next, Ordering::Relaxed);
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => readable.clear_ready(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.udp.get_ref().local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

/// Tells one connection when there is room to send.
struct Room {
    socket: Arc<Socket>,
    waiting: Option<Waiting>,
}

type Waiting = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

impl UdpPoller for Room {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.is_none() {
            if !self.socket.full.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
            let Ok(udp) = self.socket.udp.get_ref().try_clone() else {
                // Without a file descriptor to wait with, it is tried again: an error would end the connection.
                self.socket.full.store(false, Ordering::Relaxed);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            };
            self.waiting = Some(Box::pin(wait_for_room(udp)));
        }
        let Some(waiting) = &mut self.waiting else {
            return Poll::Ready(Ok(()));
        };
        let waited = ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        self.socket.full.store(false, Ordering::Relaxed);
        Poll::Ready(waited)
    }
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let waits = self.waiting.is_some();
        f.debug_struct("Room")
            .field("waits", &waits)
            .finish_non_exhaustive()
    }
}

async fn wait_for_room(udp: UdpSocket) -> io::Result<()> {
    let udp = register(udp, Interest::WRITABLE)?;
    let _room = udp.writable().await?;
    Ok(())
}

#[expect(
    deprecated,
    reason = "its successor is unsafe, because a type may change its descriptor; a `UdpSocket` keeps it"
)]
fn register(udp: UdpSocket, interest: Interest) -> io::Result<AsyncFd<UdpSocket>> {
    AsyncFd::with_interest(udp, interest)
}

#[cfg(test)]
mod tests;
