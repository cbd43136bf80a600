//! Which agents have an instance although they do not run: those that were active most recently.

use std::collections::BTreeMap;
use std::sync::{Mutex, Weak};

use crate::cell::Cell;
use crate::lock::lock;

/// So many are looked at after a turn, which makes one more at most.
const TRIES_MAX: usize = 8;

/// So many times as many as should have an instance may, if the others wait for a processor: to take it from those would
/// have each make one for its turn.
const QUEUED_FACTOR: usize = 16;

/// The agents whose cells have an instance that they could do without, by when they were last active.
pub(crate) struct Live {
    max: usize,
    order: Mutex<Order>,
}

#[derive(Default)]
struct Order {
    next: u64,
    cells: BTreeMap<u64, Weak<Cell>>,
}

impl Live {
    /// Beyond `max`, those that were active longest ago rest.
    pub(crate) fn new(max: usize) -> Live {
        Live {
            max,
            order: Mutex::default(),
        }
    }

    /// Enters an agent as the one that was active last; gives its rank.
    pub(crate) fn enter(&self, cell: Weak<Cell>) -> u64 {
        let mut order = lock(&self.order);
        let rank = order.next;
        order.next += 1;
        order.cells.insert(rank, cell);
        rank
    }

    /// Forgets an agent, whose instance is no more in its cell.
    pub(crate) fn leave(&self, rank: u64) {
        lock(&self.order).cells.remove(&rank);
    }

    /// How many they are.
    pub(crate) fn len(&self) -> usize {
        lock(&self.order).cells.len()
    }

    /// Has agents rest until there are not too many, as far as they can. Takes locks of cells.
    pub(crate) fn trim(&self) {
        // Not until there are few enough: none may be able to rest.
        let len = self.len();
        let surplus = len.saturating_sub(self.max);
        let are_far_too_many = len > self.max.saturating_mul(QUEUED_FACTOR);
        for _ in 0..surplus.min(TRIES_MAX) {
            let Some((rank, cell)) = self.longest_ago() else {
                return;
            };
            if let Some(cell) = cell.upgrade() {
                cell.rest(rank, are_far_too_many);
            }
        }
    }

    fn longest_ago(&self) -> Option<(u64, Weak<Cell>)> {
        let mut order = lock(&self.order);
        match order.cells.len() > self.max {
            true => order.cells.pop_first(),
            false => None,
        }
    }
}
