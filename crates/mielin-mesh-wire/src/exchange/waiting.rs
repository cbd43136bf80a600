//! The connections of joiners that wait for approval.
//!
//! A joiner that is killed says nothing, and silence ends its connection only after a while. Until then it would keep
//! its place among those of its host, of which there are few; so when somebody finds none free, those who wait have to
//! show that they are there. QUIC acknowledges a datagram, whatever the program behind it does.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, SendDatagramError};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};

use super::CLOSE_DONE;

/// How long a joiner has to show a sign of life: several round trips of a long path.
const SIGN_LIMIT: Duration = Duration::from_secs(3);
/// Between two looks for it.
const LOOK_PERIOD: Duration = Duration::from_millis(50);

#[derive(Default)]
pub(super) struct WaitingRoom {
    connections: Mutex<Vec<Connection>>,
    left: Notify,
}

/// A joiner waits for as long as this is kept.
pub(super) struct Seat<'a> {
    room: &'a WaitingRoom,
    id: usize,
}

impl WaitingRoom {
    pub(super) fn enter(&self, connection: &Connection) -> Seat<'_> {
        self.lock().push(connection.clone());
        let id = connection.stable_id();
        Seat { room: self, id }
    }

    /// Ends the connections of those who show no sign of life, and waits until they have given up their places.
    pub(super) async fn send_the_dead_away(&self) {
        let mut asked: JoinSet<_> = self.lock().iter().cloned().map(is_gone).collect();
        let mut gone = Vec::new();
        while let Some(answer) = asked.join_next().await {
            if let Ok(Some(connection)) = answer {
                connection.close(CLOSE_DONE, b"silent");
                gone.push(connection.stable_id());
            }
        }
        let _ = timeout(SIGN_LIMIT, async {
            loop {
                let left = self.left.notified();
                let waits = |one: &Connection| gone.contains(&one.stable_id());
                if !self.lock().iter().any(waits) {
                    return;
                }
                left.await;
            }
        })
        .await;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        let connections = self.connections.lock();
        connections.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.room.lock().retain(|one| one.stable_id() != self.id);
        self.room.left.notify_waiters();
    }
}

/// The connection, if nothing comes from its far end although something was said to it.
async fn is_gone(connection: Connection) -> Option<Connection> {
    let heard = || connection.stats().udp_rx.datagrams;
    let before = heard();
    match connection.send_datagram(Bytes::from_static(b"?")) {
        Ok(()) => {}
        Err(SendDatagramError::ConnectionLost(_)) => return Some(connection),
        // Nothing is known of one that takes none.
        Err(_) => return None,
    }
    let deadline = Instant::now() + SIGN_LIMIT;
    let mut look = interval(LOOK_PERIOD);
    while heard() == before {
        if Instant::now() >= deadline {
            return Some(connection);
        }
        look.tick().await;
    }
    None
}
