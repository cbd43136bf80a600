//! Memory for what one peer asks: its requests wait for it, and the peer with them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use mielin_mesh_core::NodeId;
use mielin_mesh_core::limits::PAYLOAD_BYTES_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests of one peer that are received or answered at once: four of the largest.
pub(crate) const ROOM_BYTES: usize = 4 * PAYLOAD_BYTES_MAX;
/// What is counted together.
const UNIT_BYTES: usize = 1024;

/// The rooms of the peers that have requests here.
#[derive(Default)]
pub(crate) struct Rooms(Mutex<HashMap<NodeId, Weak<Semaphore>>>);

impl Rooms {
    /// Waits until there is room for a request of so many bytes, at most
    /// [`PAYLOAD_BYTES_MAX`]; it is taken until the permit is dropped.
    pub(crate) async fn take(&self, peer: NodeId, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = bytes.div_ceil(UNIT_BYTES).max(1);
        let room = self.of(peer);
        room.acquire_many_owned(u32::try_from(units).ok()?)
            .await
            .ok()
    }

    fn of(&self, peer: NodeId) -> Arc<Semaphore> {
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(room) = rooms.get(&peer).and_then(Weak::upgrade) {
            return room;
        }
        rooms.retain(|_, room| room.strong_count() > 0);
        let room = Arc::new(Semaphore::new(ROOM_BYTES / UNIT_BYTES));
        rooms.insert(peer, Arc::downgrade(&room));
        room
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_fifth_large_request_of_a_peer_waits_and_others_do_not() {
        let rooms = Rooms::default();
        let (greedy, other) = (NodeId([1; 32]), NodeId([2; 32]));
        let mut taken = Vec::new();
        for _ in 0..4 {
            taken.push(rooms.take(greedy, PAYLOAD_BYTES_MAX).await.unwrap());
        }
        let waits = async {
            tokio::select! {
                biased;
                _ = rooms.take(greedy, 1) => false,
                () = std::future::ready(()) => true,
            }
        };
        assert!(waits.await);
        assert!(rooms.take(other, PAYLOAD_BYTES_MAX).await.is_some());
        taken.pop();
        assert!(rooms.take(greedy, PAYLOAD_BYTES_MAX).await.is_some());
        drop(taken);
        drop(rooms.take(other, 0).await);
        assert_eq!(
            rooms.0.lock().unwrap().len(),
            1,
            "who asks nothing is forgotten"
        );
    }
}
