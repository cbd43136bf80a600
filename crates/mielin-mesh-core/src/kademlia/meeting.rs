//! How a node becomes known to others, and they to it.

use super::wire::{Contact, Request};
use super::{Dht, Purpose, Reason, Record};
use crate::Instant;
use crate::limits::KADEMLIA_JOINS_MAX;

impl<R: Record> Dht<R> {
    /// Looks for this node's own id by way of a node that is there, and then into every bucket beyond the
    /// nearest neighbour's: so a node fills its table, and becomes known (section 2.3). Repeat it while
    /// [`Dht::contacts`] is 0.
    pub fn join(&mut self, now: Instant, known: Contact) {
        if known.id != self.local {
            self.search_from(now, self.local.into(), Purpose::Join, Some(known));
        }
    }

    /// Hears that a node is there. The first ones are asked for the way in; others are asked whether they are there if
    /// their bucket has room, and else left to be met in searches.
    ///
    /// Tell it whenever membership finds somebody to be there, also again: after a partition each side has forgotten the
    /// other, searches stay on their own side, and nothing else brings the two tables together. The buckets with room
    /// are those of the nearest nodes, which is enough: whoever searches on one side comes to the neighbours of the key
    /// there, and they know those of the other.
    pub fn heard_of(&mut self, now: Instant, contact: Contact) {
        if self.table.len() == 0 {
            let joins = self.searches.values();
            let joins = joins.filter(|search| matches!(search.purpose, Purpose::Join));
            if joins.count() < KADEMLIA_JOINS_MAX {
                self.join(now, contact);
            }
        } else if self.table.has_room_for(&contact.id) {
            self.add(now, contact);
        }
    }

    /// Asks a node, of which somebody has told, whether it is there; its answer brings it into the table.
    pub(super) fn add(&mut self, now: Instant, contact: Contact) {
        if contact.id == self.local || self.table.entry(&contact.id).is_some() {
            return;
        }
        self.request(now, contact, Request::Ping, Reason::Liveness);
    }
}
