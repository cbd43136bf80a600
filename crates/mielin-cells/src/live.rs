//! Which agents have an instance although they do not run: those that were active most recently.

use std::collections::BTreeMap;
use std::sync::{Mutex, Weak};

use crate::cell::Cell;
use crate::lock::lock;

/// The agents whose cells have an instance, by when they were last active.
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
        let surplus = self.len().saturating_sub(self.max);
        for _ in 0..surplus {
            let Some((rank, cell)) = self.longest_ago() else {
                return;
            };
            if let Some(cell) = cell.upgrade() {
                cell.rest(rank);
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
