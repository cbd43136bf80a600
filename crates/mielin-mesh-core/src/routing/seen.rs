//! Which messages were here, within bounds.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};

use super::RouteRefusal;
use crate::limits::{ROUTED_SEEN_FOR, ROUTED_SEEN_MAX, ROUTED_SEEN_PER_SOURCE, ROUTED_SOURCES_MAX};
use crate::{Instant, NodeId};

#[derive(Debug, Default)]
struct Source {
    /// Of the messages that are forgotten, the highest number. What is not above it is refused.
    floor: Option<u64>,
    /// Remembered messages.
    ids: BTreeSet<u64>,
    /// When the newest came.
    last: Instant,
}

/// The memory of a router.
#[derive(Debug, Default)]
pub(super) struct Seen {
    sources: BTreeMap<NodeId, Source>,
    /// Oldest first.
    order: VecDeque<(Instant, NodeId, u64)>,
}

impl Seen {
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether a message was here, as far as can be told.
    pub(super) fn knows(&self, source: &NodeId, id: u64) -> bool {
        self.sources.get(source).is_some_and(|known| {
            known.floor.is_some_and(|floor| id <= floor) || known.ids.contains(&id)
        })
    }

    /// Remembers a message that is new.
    ///
    /// Nothing that may still come again is forgotten for a new one: that would let it through twice.
    pub(super) fn note(
        &mut self,
        now: Instant,
        source: NodeId,
        id: u64,
    ) -> Result<(), RouteRefusal> {
        self.forget(now);
        if self.order.len() >= ROUTED_SEEN_MAX {
            return Err(RouteRefusal::Busy);
        }
        if !self.sources.contains_key(&source) && self.sources.len() >= ROUTED_SOURCES_MAX {
            self.drop_oldest_source()?;
        }
        let known = self.sources.entry(source).or_default();
        if known.ids.len() >= ROUTED_SEEN_PER_SOURCE {
            return Err(RouteRefusal::Busy);
        }
        known.ids.insert(id);
        known.last = now;
        self.order.push_back((now, source, id));
        Ok(())
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, source, id)) = self.order.front().copied() {
            if now.since(at) < ROUTED_SEEN_FOR {
                break;
            }
            self.order.pop_front();
            if let Some(known) = self.sources.get_mut(&source) {
                known.ids.remove(&id);
                known.floor = known.floor.max(Some(id));
            }
        }
    }

    /// Gives up what is known of the source that has been silent for longest. Its old messages could come again.
    fn drop_oldest_source(&mut self) -> Result<(), RouteRefusal> {
        let silent = self.sources.iter().filter(|(_, s)| s.ids.is_empty());
        let oldest = silent.min_by_key(|(_, s)| s.last).map(|(node, _)| *node);
        let oldest = oldest.ok_or(RouteRefusal::Busy)?;
        self.sources.remove(&oldest);
        Ok(())
    }
}
