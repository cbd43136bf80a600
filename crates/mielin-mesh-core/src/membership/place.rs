//! Who has no place in the group, whatever others say: those who are shut out, and a process whose node another process
//! is.

use foca::Member;

use super::{Departure, Identity, Membership};
use crate::{Instant, MemberState, NodeId};

impl Membership {
    /// Takes a known node for gone for good, whatever others say: it was shut out. It has the last word of all its
    /// possible lives, so news that it lives is older. Nobody else takes this node's word for that.
    pub fn bury(&mut self, now: Instant, node: &NodeId) {
        let Some(known) = self.known.get(node) else {
            return;
        };
        if known.state == MemberState::Left || *node == self.local().id {
            return;
        }
        let buried = Identity {
            generation: u64::MAX,
            departed: Some(Departure::Left),
            ..known.identity.clone()
        };
        self.effects.now = now;
        let news = Member::down(buried);
        let result = self
            .foca
            .apply_many([news].into_iter(), false, &mut self.effects);
        self.settle(result);
    }

    /// Leaves this node's place to another process that bears its id, or takes it again: while it gives way it says
    /// nothing, hears nothing and forgets nobody. Members who have heard of another life meanwhile say so.
    pub fn give_way(&mut self, now: Instant, gives_way: bool) {
        self.gives_way = gives_way;
        self.effects.now = now;
        self.effects.ping = None;
        self.effects.transmits.clear();
    }

    /// Whether this node takes no part: it has departed, or gives way.
    pub(super) const fn is_out(&self) -> bool {
        self.departed.is_some() || self.gives_way
    }
}
