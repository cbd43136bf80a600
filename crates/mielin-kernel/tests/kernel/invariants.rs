//! What holds after each entry of the kernel. Each check goes over everything that there is, and believes nothing that it can count
//! itself.

use std::collections::{HashMap, HashSet};

use mielin_hal::paging::{Entry as TableEntry, PageTables};
use mielin_kernel::abi::{Rights, ThreadSlot};
use mielin_kernel::{
    Above, AddressSpace, Capability, Endpoint, LINES_MAX, Line, Link, Machine, Notification,
    Object, Page, Queue, Ref, Reply, SchedulingContext, Slot, State, Thread, Waiting, queue_slot,
    thread_slot,
};

use crate::world::World;

/// Everything that is in slots.
struct Census {
    /// All that hold something, with what.
    full: HashMap<Ref<Slot>, Capability>,
    /// The slot from which each was made.
    parents: HashMap<Ref<Slot>, Ref<Slot>>,
}

impl<P: PageTables> World<P> {
    /// Panics if something does not hold that always should.
    pub(crate) fn check(&self) {
        let census = self.census();
        self.check_derivation(&census);
        self.check_memory(&census);
        self.check_counts(&census);
        self.check_nodes(&census);
        self.check_threads();
        self.check_lines();
        self.check_time();
        self.check_replies();
        self.check_notifications();
        self.check_threads_slots();
        self.check_spaces(&census);
        self.check_interrupts(&census);
    }

    fn at<T: Object>(&self, at: Ref<T>) -> &T {
        self.arena().object(at)
    }

    fn census(&self) -> Census {
        let arena = self.arena();
        let slots = arena.all::<Slot>();
        let mut full = HashMap::new();
        let mut parents = HashMap::new();
        for at in slots {
            let slot = arena.object(at);
            match slot.capability() {
                Capability::Null | Capability::Header { .. } => {
                    let alone = slot.before() == Link::Nobody
                        && slot.after() == Link::Nobody
                        && slot.first_child().is_none()
                        && slot.last_child().is_none();
                    assert!(alone, "the empty slot {at:?} is in the derivation tree");
                }
                capability => {
                    full.insert(at, capability);
                }
            }
            let (Some(first), Some(last)) = (slot.first_child(), slot.last_child()) else {
                assert!(slot.first_child().is_none() && slot.last_child().is_none());
                continue;
            };
            let (mut child, mut before) = (first, Link::Parent(at));
            loop {
                let known = parents.insert(child, at);
                assert!(known.is_none(), "{child:?} is a child twice");
                assert_eq!(arena.object(child).before(), before, "before {child:?}");
                match arena.object(child).after() {
                    Link::Sibling(next) => (child, before) = (next, Link::Sibling(child)),
                    Link::Parent(parent) => {
                        assert_eq!(parent, at, "behind {child:?}");
                        break;
                    }
                    Link::Nobody => panic!("the children of {at:?} end at {child:?}"),
                }
            }
            assert_eq!(child, last, "the last child of {at:?}");
        }
        Census { full, parents }
    }

    /// The derivation tree is one: links are mutual, nothing is above itself, and whatever was made of something else has
    /// no authority that this has not.
    fn check_derivation(&self, census: &Census) {
        for (&slot, capability) in &census.full {
            let Some(&parent) = census.parents.get(&slot) else {
                // Roots whose parent was deleted stay in its list.
                let links = self.at(slot);
                if let Link::Sibling(before) = links.before() {
                    assert_eq!(self.at(before).after(), Link::Sibling(slot));
                }
                if let Link::Sibling(after) = links.after() {
                    assert_eq!(self.at(after).before(), Link::Sibling(slot));
                }
                assert!(!matches!(links.before(), Link::Parent(_)), "{slot:?}");
                assert!(!matches!(links.after(), Link::Parent(_)), "{slot:?}");
                continue;
            };
            let above = census.full.get(&parent);
            let above = above.unwrap_or_else(|| panic!("{slot:?} was made of nothing"));
            assert!(
                may_make(*above, *capability, slot, parent),
                "{capability:?} at {slot:?} was made of {above:?} at {parent:?}"
            );
            let mut steps = 0;
            let mut up = slot;
            while let Some(next) = census.parents.get(&up) {
                up = *next;
                steps += 1;
                assert!(steps <= census.full.len(), "{slot:?} is below itself");
            }
        }
    }

    /// No two objects overlap; each lies within the used part of those untypeds only from which it was made.
    fn check_memory(&self, census: &Census) {
        let mut objects: HashMap<(u64, u64), Vec<Ref<Slot>>> = HashMap::new();
        let mut untypeds = Vec::new();
        for (&slot, &capability) in &census.full {
            if let Capability::Untyped {
                base, bits, used, ..
            } = capability
            {
                let used = match self.at(slot).first_child() {
                    Some(_) => u64::from(used) * 16,
                    None => 0,
                };
                assert!(used <= 1 << bits);
                untypeds.push((slot, base, base + (1 << bits), base + used));
            } else if let Some(extent) = extent(capability, slot) {
                objects.entry(extent).or_default().push(slot);
            }
        }
        let mut extents: Vec<_> = objects.keys().copied().collect();
        extents.sort_unstable();
        for pair in extents.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "{pair:x?} overlap");
        }
        let within = |what: Ref<Slot>, (begin, end): (u64, u64)| {
            for &(untyped, first, last, used) in &untypeds {
                if untyped == what || end <= first || last <= begin {
                    continue;
                }
                // What lies around it is not within it.
                if begin <= first && last <= end && census.is_above(what, untyped) {
                    continue;
                }
                assert!(
                    census.is_above(untyped, what),
                    "{begin:#x}..{end:#x} of {what:?} lies in the untyped {untyped:?}, and was not made from it"
                );
                assert!(
                    first <= begin && end <= used,
                    "{begin:#x}..{end:#x} of {what:?} lies outside of what the untyped {untyped:?} has used"
                );
            }
        };
        for (extent, slots) in &objects {
            slots.iter().for_each(|slot| within(*slot, *extent));
        }
        for &(slot, begin, end, _) in &untypeds {
            within(slot, (begin, end));
        }
    }

    /// Each object has as many capabilities as it says, and at least one; what has none is no more.
    fn check_counts(&self, census: &Census) {
        let mut counts: HashMap<u64, u32> = HashMap::new();
        for capability in census.full.values() {
            let at = match *capability {
                Capability::Endpoint { endpoint, .. } => endpoint.address(),
                Capability::Notification { notification, .. } => notification.address(),
                Capability::Queue { queue, .. } => queue.address(),
                Capability::Thread { thread } => thread.address(),
                Capability::AddressSpace { space } | Capability::SpaceOf { space, .. } => {
                    space.address()
                }
                Capability::SchedulingContext { context } => context.address(),
                Capability::Reply { reply } => reply.address(),
                Capability::Node { node, .. } => node.address(),
                _ => continue,
            };
            *counts.entry(at).or_default() += 1;
        }
        self.check_count(&counts, Endpoint::count);
        self.check_count(&counts, Notification::count);
        self.check_count(&counts, Queue::count);
        self.check_count(&counts, Thread::count);
        self.check_count(&counts, AddressSpace::count);
        self.check_count(&counts, SchedulingContext::count);
        self.check_count(&counts, Reply::count);
    }

    fn check_count<T: Object>(&self, counts: &HashMap<u64, u32>, count: fn(&T) -> u32) {
        for at in self.arena().all::<T>() {
            let counted = counts.get(&at.address()).copied();
            let kind = std::any::type_name::<T>();
            assert_eq!(Some(count(self.at(at))), counted, "{kind} at {at:?}");
        }
    }

    /// Each slot belongs to a node, a thread, a queue or the interrupt lines; nodes have as many capabilities as they say; those
    /// that have none are in the list of the dying.
    fn check_nodes(&self, census: &Census) {
        let mut slots = LINES_MAX as usize;
        slots += self.arena().all::<Thread>().len() * ThreadSlot::ALL.len();
        slots += self.arena().all::<Queue>().len() * 2;
        let mut nodes: HashMap<Ref<Slot>, (u32, u8)> = HashMap::new();
        let mut dying = HashSet::new();
        for (&slot, &capability) in &census.full {
            match capability {
                Capability::Node { node, bits, .. } => {
                    let known = nodes.entry(node).or_insert((0, bits));
                    assert_eq!(known.1, bits);
                    known.0 += 1;
                }
                Capability::Dying { bits, .. } => {
                    dying.insert(slot);
                    slots += 1 << bits;
                }
                _ => {}
            }
        }
        for (node, (found, bits)) in nodes {
            slots += 1 << bits;
            let header = Capability::Header { count: found, bits };
            assert_eq!(self.at(node).capability(), header, "the node {node:?}");
        }
        assert_eq!(self.arena().all::<Slot>().len(), slots, "slots");
        let mut next = self.kernel.dying();
        while let Some(node) = next {
            assert!(dying.remove(&node), "{node:?} does not die");
            next = match self.at(node).capability() {
                Capability::Dying { next, .. } => next,
                other => panic!("{other:?} is no dying node"),
            };
        }
        assert!(dying.is_empty(), "{dying:?} die, and nobody knows");
    }

    /// Each thread is where its state says, and nowhere else.
    fn check_threads(&self) {
        let current = self.kernel.current();
        for at in self.arena().all::<Thread>() {
            let thread = self.at(at);
            let state = thread.state();
            let context = thread.context().map(|context| self.at(context));
            let has_time = context.is_some_and(|context| context.refills().next().is_some());
            let places = usize::from(current == Some(at))
                + usize::from(thread.queued())
                + usize::from(thread.alarm().is_some());
            match state {
                State::Ready if has_time => {
                    assert_eq!(places, 1, "{at:?} would run: {thread:?}");
                }
                State::Ready => assert_eq!(places, 0, "{at:?} has no time: {thread:?}"),
                State::Inactive => assert_eq!(places, 0, "{at:?} does nothing: {thread:?}"),
                _ => {
                    assert!(!thread.queued() && current != Some(at), "{thread:?}");
                    assert!(thread.fault().is_none() || thread.message().1);
                }
            }
            let meets = matches!(state, State::Sending | State::Receiving);
            assert_eq!(thread.endpoint().is_some(), meets, "{at:?}: {thread:?}");
            let waits = state == State::Waiting;
            assert_eq!(thread.notification().is_some(), waits, "{at:?}: {thread:?}");
            match (state, thread.reply()) {
                (State::Called, Some(reply)) => assert_eq!(self.at(reply).caller(), Some(at)),
                (State::Receiving, Some(reply)) => assert_eq!(self.at(reply).receiver(), Some(at)),
                (State::Receiving, None) => {}
                (State::Called, None) => panic!("nobody owes {at:?} an answer"),
                (_, reply) => assert_eq!(reply, None, "{at:?}: {thread:?}"),
            }
        }
    }

    /// The lines have the threads that say so, in mutual links, and the highest of those in line is not above the current one.
    fn check_lines(&self) {
        let mut queued = HashSet::new();
        let mut top = None;
        for priority in 0..=255 {
            let line = self.walk(self.kernel.runnable(priority));
            if !line.is_empty() {
                top = Some(priority);
            }
            for thread in line {
                assert!(self.at(thread).queued() && self.at(thread).priority() == priority);
                assert!(queued.insert(thread), "{thread:?} is in line twice");
            }
        }
        assert_eq!(top, self.kernel.runnable_top());
        let runs = self.kernel.current().map(|c| self.at(c).priority());
        assert!(runs >= top, "{top:?} waits for {runs:?}");
        let all = self.arena().all::<Thread>();
        for at in &all {
            assert_eq!(self.at(*at).queued(), queued.contains(at), "{at:?}");
        }
        let meets = |at: Ref<Endpoint>, state| {
            let count = all
                .iter()
                .filter(|t| self.at(**t).endpoint() == Some(at) && self.at(**t).state() == state);
            count.count()
        };
        for at in self.arena().all::<Endpoint>() {
            let endpoint = self.at(at);
            let line = self.walk(endpoint.line());
            let state = match endpoint.waiting() {
                Waiting::Nobody => {
                    assert!(line.is_empty(), "somebody waits at {at:?}");
                    State::Inactive
                }
                Waiting::Senders => State::Sending,
                Waiting::Receivers => State::Receiving,
            };
            assert_eq!(line.is_empty(), endpoint.waiting() == Waiting::Nobody);
            for thread in &line {
                let thread = self.at(*thread);
                assert_eq!((thread.state(), thread.endpoint()), (state, Some(at)));
            }
            let waiting = meets(at, State::Sending) + meets(at, State::Receiving);
            assert_eq!(waiting, line.len(), "in line at {at:?}");
        }
        for at in self.arena().all::<Notification>() {
            let line = self.walk(self.at(at).line());
            for thread in &line {
                let thread = self.at(*thread);
                assert_eq!(
                    (thread.state(), thread.notification()),
                    (State::Waiting, Some(at))
                );
            }
            let waiting = all
                .iter()
                .filter(|t| self.at(**t).notification() == Some(at));
            assert_eq!(waiting.count(), line.len(), "in line at {at:?}");
        }
        let moments: Vec<_> = self
            .kernel
            .waiting_for_moments()
            .take(all.len() + 1)
            .collect();
        let first = moments.first().map(|(_, at)| *at);
        let waiting: HashMap<_, _> = moments.iter().copied().collect();
        assert_eq!(
            waiting.len(),
            moments.len(),
            "somebody waits for two moments"
        );
        for at in &all {
            let alarm = self.at(*at).alarm();
            assert_eq!(alarm, waiting.get(at).copied(), "{at:?}");
            assert!(alarm.is_none() || alarm >= first);
        }
    }

    fn walk(&self, line: &Line) -> Vec<Ref<Thread>> {
        let mut threads = Vec::new();
        let mut next = line.first();
        while let Some(thread) = next {
            let object = self.at(thread);
            assert_eq!(
                object.before(),
                threads.last().copied(),
                "before {thread:?}"
            );
            threads.push(thread);
            assert!(threads.len() < 1000, "a line has no end");
            next = object.after();
        }
        assert_eq!(line.last(), threads.last().copied());
        threads
    }

    /// Budgets are as large as they were made; who runs pays, and the alarm comes in time.
    fn check_time(&self) {
        let arena = self.arena();
        let paying = self.kernel.current().and_then(|c| self.at(c).context());
        assert_eq!(self.kernel.charged(), paying, "who pays");
        for at in arena.all::<SchedulingContext>() {
            let context = self.at(at);
            if let Some(thread) = context.thread() {
                assert_eq!(self.at(thread).context(), Some(at), "who has {at:?}");
            }
            let refills: Vec<_> = context.refills().collect();
            if refills.is_empty() {
                continue;
            }
            if context.period() == 0 {
                assert_eq!(refills.len(), 1);
                assert!(refills[0].1 <= context.budget() && refills[0].1 > 0);
                continue;
            }
            assert_eq!(context.refills_sum(), context.budget(), "{context:?}");
            let ordered = refills.windows(2).all(|pair| pair[0].0 <= pair[1].0);
            assert!(ordered, "{refills:?}");
            assert!(refills.iter().all(|(_, ticks)| *ticks > 0), "{refills:?}");
            // Who runs may, and who stands in line can at once.
            if let Some(thread) = context.thread()
                && (self.at(thread).queued() || self.kernel.current() == Some(thread))
            {
                assert!(refills[0].0 <= arena.now(), "{refills:?}");
            }
        }
        for at in arena.all::<Thread>() {
            if let Some(context) = self.at(at).context() {
                assert_eq!(self.at(context).thread(), Some(at), "the time of {at:?}");
            }
        }
        let alarm = self.kernel.alarm_at();
        assert!(alarm == u64::MAX || alarm == arena.alarm.get());
        if let Some((_, first)) = self.kernel.waiting_for_moments().next() {
            assert!(alarm <= first, "the alarm is too late for who waits");
        }
        if let Some(context) = paying {
            let stretch = self
                .at(context)
                .refills()
                .next()
                .map_or(0, |(_, ticks)| ticks);
            let end = self.kernel.charged_until().saturating_add(stretch);
            assert!(
                alarm <= end,
                "the alarm is too late for who runs: {alarm} {end}"
            );
        }
    }

    /// Who lent time is in one stack, from the top down.
    fn check_replies(&self) {
        let mut stacked = HashSet::new();
        for at in self.arena().all::<SchedulingContext>() {
            let mut above = Above::Top(at);
            let mut next = self.at(at).top();
            while let Some(reply) = next {
                assert!(stacked.insert(reply), "{reply:?} is in two stacks");
                assert_eq!(self.at(reply).above(), above, "above {reply:?}");
                above = Above::Reply(reply);
                next = self.at(reply).below();
            }
        }
        for at in self.arena().all::<Reply>() {
            let reply = self.at(at);
            let lends = reply.above() != Above::Nothing;
            assert_eq!(lends, stacked.contains(&at), "{at:?}: {reply:?}");
            assert!(lends || reply.below().is_none(), "{at:?}: {reply:?}");
            assert!(!lends || reply.caller().is_some(), "{at:?}: {reply:?}");
            assert!(reply.caller().is_none() || reply.receiver().is_none());
            if let Some(caller) = reply.caller() {
                let caller = self.at(caller);
                assert_eq!((caller.state(), caller.reply()), (State::Called, Some(at)));
            }
            if let Some(receiver) = reply.receiver() {
                let receiver = self.at(receiver);
                assert_eq!(
                    (receiver.state(), receiver.reply()),
                    (State::Receiving, Some(at))
                );
            }
        }
    }

    /// Bonds are mutual; what is raised reaches whoever waits for it.
    fn check_notifications(&self) {
        for at in self.arena().all::<Notification>() {
            let notification = self.at(at);
            let raised = notification.raised() != 0;
            assert!(!raised || notification.line().first().is_none());
            if let Some(bound) = notification.bound() {
                assert_eq!(self.at(bound).bound(), Some(at));
                assert!(!raised || self.at(bound).state() != State::Receiving);
            }
        }
        for at in self.arena().all::<Thread>() {
            if let Some(bound) = self.at(at).bound() {
                assert_eq!(self.at(bound).bound(), Some(at));
            }
        }
        for at in self.arena().all::<Queue>() {
            let queue = self.at(at);
            assert!(queue.len() <= queue.capacity() && queue.capacity() > 0);
            for which in 0..2 {
                let held = self.at(queue_slot(at, which)).capability();
                assert!(matches!(
                    held,
                    Capability::Null | Capability::Notification { .. }
                ));
            }
        }
    }

    /// A thread's own slots hold what the thread says that it has.
    fn check_threads_slots(&self) {
        for at in self.arena().all::<Thread>() {
            let thread = self.at(at);
            let held = |which| self.at(thread_slot(at, which)).capability();
            match held(ThreadSlot::AddressSpace) {
                Capability::Null => assert_eq!(thread.space(), None),
                Capability::SpaceOf { thread: of, space } => {
                    assert_eq!((of, Some(space)), (at, thread.space()));
                }
                other => panic!("{other:?} is no thread's address space"),
            }
            match held(ThreadSlot::Buffer) {
                Capability::Null => assert_eq!(thread.buffer(), None),
                Capability::BufferOf { thread: of, page } => {
                    let begin = u64::from(page) << 12;
                    let buffer = thread.buffer().expect("it has a buffer");
                    assert_eq!(of, at);
                    assert!(
                        (begin..begin + (2 << 20)).contains(&buffer) && buffer.is_multiple_of(1024)
                    );
                }
                other => panic!("{other:?} is no thread's buffer"),
            }
        }
    }

    /// Tables lead where capabilities say, pages are mapped by capabilities that allow it, nothing is writable and executable, and
    /// what the MMU uses is somebody's.
    fn check_spaces(&self, census: &Census) {
        let mut tables = HashMap::new();
        let mut frames: HashMap<(u16, u32), Vec<_>> = HashMap::new();
        for capability in census.full.values() {
            match *capability {
                Capability::PageTable {
                    table,
                    level,
                    space,
                    at,
                } => {
                    let twice = tables.insert(table, (level, space, at));
                    assert!(twice.is_none(), "{table:?} has two capabilities");
                    if space == 0 {
                        let page = self.at(table);
                        assert!(page.iter().all(|entry| entry.get() == 0), "{table:?}");
                    }
                }
                Capability::Frame {
                    page,
                    form,
                    space,
                    at,
                } if space != 0 => frames.entry((space, at)).or_default().push((page, form)),
                _ => {}
            }
        }
        let spaces = self.arena().all::<AddressSpace>();
        let mut roots = HashSet::from([0]);
        for at in &spaces {
            let space = self.at(*at);
            let identifier = space.identifier();
            assert!(identifier != 0);
            assert_eq!(self.kernel.space(identifier), Some(*at));
            assert_eq!(space.root().is_some(), space.root_value() != 0);
            let Some(root) = space.root() else { continue };
            assert_eq!(space.root_value(), P::root(root.address(), identifier));
            roots.insert(space.root_value());
            self.check_table(&tables, &frames, identifier, (root, P::LEVELS, 0));
        }
        let known = (0..4096).filter_map(|i| self.kernel.space(i)).count();
        assert_eq!(known, spaces.len(), "address spaces with identifiers");
        assert!(
            roots.contains(&self.kernel.loaded_root()),
            "a stale root is loaded"
        );
        assert_eq!(self.kernel.loaded_root(), self.arena().root.get());
        if let Some(current) = self.kernel.current() {
            let space = self.at(current).space();
            let wanted = space.map_or(0, |space| self.at(space).root_value());
            assert_eq!(
                self.kernel.loaded_root(),
                wanted,
                "the current address space"
            );
        }
    }

    fn check_table(
        &self,
        tables: &HashMap<Ref<Page>, (u8, u16, u32)>,
        frames: &HashMap<(u16, u32), Vec<(u32, mielin_kernel::FrameForm)>>,
        space: u16,
        (table, level, begin): (Ref<Page>, u8, u64),
    ) {
        match tables.get(&table) {
            Some(said) => assert_eq!(*said, (level, space, (begin >> 12) as u32), "{table:?}"),
            None => assert!(
                self.is_first_threads(table.address()),
                "{table:?} is nobody's"
            ),
        }
        let own = match (level == P::LEVELS, P::KERNEL_IN_EVERY_ROOT) {
            (true, true) => 256,
            _ => 512,
        };
        let level = level - 1;
        for (index, entry) in self.at(table).iter().take(own).enumerate() {
            let begin = begin + index as u64 * P::entry_bytes(level);
            match P::decode(level, entry.get()) {
                TableEntry::Absent => assert_eq!(entry.get(), 0),
                TableEntry::Foreign => panic!("{:#x} is no entry", entry.get()),
                TableEntry::Table(next) => {
                    let next = Ref::at(next).expect("a table");
                    self.check_table(tables, frames, space, (next, level, begin));
                }
                TableEntry::Leaf(leaf) => {
                    let access = leaf.permissions.access;
                    assert!(!(access.is_writable() && access.is_executable()));
                    let mut needed = Rights::READ;
                    if access.is_writable() {
                        needed = needed.or(Rights::WRITE);
                    }
                    if access.is_executable() {
                        needed = needed.or(Rights::EXECUTE);
                    }
                    let allowed = frames.get(&(space, (begin >> 12) as u32));
                    let allowed = allowed.is_some_and(|frames| {
                        frames.iter().any(|(page, form)| {
                            u64::from(*page) << 12 == leaf.physical
                                && form.is_large() == (level == 1)
                                && form.rights().has(needed)
                        })
                    });
                    assert!(
                        allowed || self.is_first_threads(leaf.physical),
                        "{begin:#x} is mapped by nobody"
                    );
                }
            }
        }
    }

    /// Whether memory is of those parts that the first thread has for ever.
    fn is_first_threads(&self, address: u64) -> bool {
        address < self.own_end.get()
    }

    fn check_interrupts(&self, census: &Census) {
        let mut claimed = HashSet::new();
        for capability in census.full.values() {
            if let Capability::Interrupt { line } = capability {
                assert!(claimed.insert(*line), "line {line} has two capabilities");
            }
        }
        for line in 0..LINES_MAX {
            let (slot, known) = self.kernel.interrupt_line(line).expect("a line");
            assert_eq!(known, claimed.contains(&line), "line {line}");
            match self.at(slot).capability() {
                Capability::Null => {}
                Capability::Notification { .. } => assert!(known, "line {line} is nobody's"),
                other => panic!("{other:?} at line {line}"),
            }
        }
    }
}

impl Census {
    /// Whether one was made, in how many steps ever, from another.
    fn is_above(&self, above: Ref<Slot>, below: Ref<Slot>) -> bool {
        let mut up = below;
        while let Some(next) = self.parents.get(&up) {
            up = *next;
            if up == above {
                return true;
            }
        }
        false
    }
}

/// The memory of an object that is not an untyped.
fn extent(capability: Capability, slot: Ref<Slot>) -> Option<(u64, u64)> {
    let (begin, bytes) = match capability {
        Capability::Node { node, bits, .. } => (node.address(), 32 << bits),
        Capability::Dying { bits, .. } => (slot.address(), 32 << bits),
        Capability::Endpoint { endpoint, .. } => (endpoint.address(), 32),
        Capability::Notification { notification, .. } => (notification.address(), 64),
        Capability::Queue { queue, .. } => (queue.address() - 64, 256),
        Capability::Thread { thread } => (thread.address() - 256, 2048),
        Capability::AddressSpace { space } | Capability::SpaceOf { space, .. } => {
            (space.address(), 32)
        }
        Capability::BufferOf { page, .. } => (u64::from(page) << 12, 4096),
        Capability::PageTable { table, .. } => (table.address(), 4096),
        Capability::Frame { page, form, .. } => {
            let bytes = if form.is_large() { 2 << 20 } else { 4096 };
            (u64::from(page) << 12, bytes)
        }
        Capability::SchedulingContext { context } => (context.address(), 256),
        Capability::Reply { reply } => (reply.address(), 64),
        _ => return None,
    };
    Some((begin, begin + bytes))
}

/// Whether what a capability allows is at most what the one above it does.
fn may_make(above: Capability, made: Capability, slot: Ref<Slot>, parent: Ref<Slot>) -> bool {
    let badge = |above: u64, made: u64| above == 0 || above == made;
    match (above, made) {
        (
            Capability::Untyped {
                base, bits, device, ..
            },
            Capability::Untyped {
                base: inner,
                bits: small,
                device: same,
                ..
            },
        ) => base <= inner && inner + (1 << small) <= base + (1 << bits) && device == same,
        (
            Capability::Untyped {
                base, bits, device, ..
            },
            made,
        ) => {
            let frame = matches!(made, Capability::Frame { form, .. } if form.is_device());
            extent(made, slot).is_some_and(|(begin, end)| {
                base <= begin && end <= base + (1 << bits) && frame == device
            })
        }
        (
            Capability::Endpoint {
                endpoint,
                rights,
                badge: old,
            },
            Capability::Endpoint {
                endpoint: same,
                rights: fewer,
                badge: new,
            },
        ) => endpoint == same && rights.has(fewer) && badge(old, new),
        (
            Capability::Notification {
                notification,
                rights,
                badge: old,
            },
            Capability::Notification {
                notification: same,
                rights: fewer,
                badge: new,
            },
        ) => notification == same && rights.has(fewer) && badge(old, new),
        (
            Capability::Queue {
                queue,
                rights,
                badge: old,
            },
            Capability::Queue {
                queue: same,
                rights: fewer,
                badge: new,
            },
        ) => queue == same && rights.has(fewer) && badge(old, new),
        (
            Capability::Node { node, bits, rights },
            Capability::Node {
                node: same,
                bits: also,
                rights: fewer,
            },
        ) => (node, bits) == (same, also) && rights.has(fewer),
        // The last capability of a node is in it.
        (Capability::Node { node, .. }, Capability::Dying { .. }) => node == slot,
        (Capability::Dying { .. }, Capability::Node { node, .. }) => node == parent,
        (
            Capability::Frame { page, form, .. },
            Capability::Frame {
                page: same,
                form: fewer,
                ..
            },
        ) => {
            page == same
                && form.is_large() == fewer.is_large()
                && form.is_device() == fewer.is_device()
                && form.rights().has(fewer.rights())
        }
        (Capability::Frame { page, form, .. }, Capability::BufferOf { page: same, .. }) => {
            page == same && form.rights().has(Rights::READ.or(Rights::WRITE))
        }
        (Capability::AddressSpace { space }, Capability::SpaceOf { space: same, .. }) => {
            space == same
        }
        (
            Capability::SchedulingControl { priority_max },
            Capability::SchedulingControl { priority_max: less },
        ) => less <= priority_max,
        (
            Capability::Ports { first, last },
            Capability::Ports {
                first: inner,
                last: end,
            },
        ) => first <= inner && inner <= end && end <= last,
        (Capability::InterruptControl, Capability::Interrupt { .. }) => true,
        (above, made) => above == made,
    }
}
