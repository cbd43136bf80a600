//! A naive model of messages, notifications, queues, turns and lent time: lists and indexes, no links. Time comes in slices here;
//! budgets have tests of their own.

use std::collections::VecDeque;

use mielin_kernel::abi::{
    Error, FAULT_LABEL, MESSAGE_WORDS_MAX, MessageInfo, Method, NOTIFICATION_LABEL, Rights, boot,
};
use mielin_kernel::{Capability, Line, Machine, Ref, Reply, State, Thread, Waiting, registers};
use proptest::prelude::*;

use crate::cast::{Cast, Role, Step};
use crate::random::{run, step};
use crate::world::{World, invocation};

const ROLES: [Role; 5] = [
    (100, 50, 0),
    (100, 0, 0),
    (101, 30, 0),
    (100, 0, 0),
    (99, 40, 0),
];

/// What a thread does. Threads, endpoints and all else go by their indexes in the cast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Nothing,
    Running,
    Sending(usize),
    Receiving(usize, Option<usize>),
    /// Waits for the answer that a reply owes.
    Called(usize),
    Waiting(usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Actor {
    doing: Doing,
    priority: u8,
    time: Option<usize>,
    until: Option<u64>,
    bound: Option<usize>,
    faulted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Time {
    budget: u64,
    left: u64,
    holder: Option<usize>,
    /// The replies of those who lent it, the last one last.
    lent: Vec<usize>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Debt {
    caller: Option<usize>,
    receiver: Option<usize>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Bits {
    raised: u64,
    line: VecDeque<usize>,
    bound: Option<usize>,
}

/// Everything that can be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Model {
    now: u64,
    actors: Vec<Actor>,
    times: Vec<Option<Time>>,
    replies: Vec<Option<Debt>>,
    endpoints: Vec<VecDeque<usize>>,
    bits: Vec<Bits>,
    queue: u32,
    current: Option<usize>,
    /// Those who would run, by priority, first come first served within each.
    order: [Vec<usize>; 4],
}

/// What a thread's registers say when it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Error(Error),
    Success,
    Badge(u64),
    Message {
        label: u64,
        count: usize,
        first: u64,
        badge: u64,
    },
    Fault,
    Notification(u64),
}

#[derive(Clone, Copy, Debug)]
struct Message {
    count: usize,
    badge: u64,
    calls: bool,
}

/// The model, and what is not in the kernel's state: who was told what, and what is being sent.
struct Play {
    model: Model,
    charged: Option<usize>,
    told: Vec<Option<Told>>,
    sent: Vec<Message>,
}

fn row(priority: u8) -> usize {
    usize::from(priority) - 98
}

/// What of a message there is: the words in registers, and those in buffers if both have one. The last thread has none.
fn words(from: usize, to: usize, count: usize) -> usize {
    let count = count.min(MESSAGE_WORDS_MAX);
    match from < 4 && to < 4 {
        true => count,
        false => count.min(4),
    }
}

impl Play {
    fn make_ready(&mut self, who: usize) {
        self.model.actors[who].doing = Doing::Running;
        let in_line = self.model.order.iter().any(|line| line.contains(&who));
        if in_line || self.model.current == Some(who) {
            return;
        }
        let Some(time) = self.model.actors[who].time else {
            return;
        };
        let row = &mut self.model.order[row(self.model.actors[who].priority)];
        match self.charged == Some(time) {
            true => row.insert(0, who),
            false => row.push(who),
        }
    }

    fn leave_order(&mut self, who: usize) {
        self.model
            .order
            .iter_mut()
            .for_each(|row| row.retain(|other| *other != who));
    }

    fn take_time(&mut self, time: usize) {
        let Some(state) = &mut self.model.times[time] else {
            return;
        };
        if let Some(holder) = state.holder.take() {
            self.model.actors[holder].time = None;
            self.leave_order(holder);
        }
    }

    fn give_time(&mut self, time: usize, to: usize) {
        self.take_time(time);
        if let (None, Some(state)) = (self.model.actors[to].time, &mut self.model.times[time]) {
            state.holder = Some(to);
            self.model.actors[to].time = Some(time);
        }
    }

    /// Nobody owes the caller of a reply an answer any more; the time that he was the last to lend comes back.
    fn release(&mut self, reply: usize) -> Option<usize> {
        let caller = self.model.replies[reply].as_mut()?.caller.take()?;
        for time in 0..self.model.times.len() {
            let Some(state) = &mut self.model.times[time] else {
                continue;
            };
            let was_last = state.lent.last() == Some(&reply);
            state.lent.retain(|other| *other != reply);
            if was_last {
                self.give_time(time, caller);
            }
        }
        Some(caller)
    }

    fn stop_waiting(&mut self, who: usize) {
        self.model.actors[who].until = None;
        self.leave_order(who);
        self.model
            .endpoints
            .iter_mut()
            .for_each(|line| line.retain(|other| *other != who));
        self.model
            .bits
            .iter_mut()
            .for_each(|bits| bits.line.retain(|other| *other != who));
        for debt in self.model.replies.iter_mut().flatten() {
            if debt.receiver == Some(who) {
                debt.receiver = None;
            }
        }
        if let Doing::Called(reply) = self.model.actors[who].doing {
            self.release(reply);
        }
        self.model.actors[who].doing = Doing::Nothing;
    }

    fn end_wait(&mut self, who: usize, error: Error) {
        self.stop_waiting(who);
        if !self.model.actors[who].faulted {
            self.told[who] = Some(Told::Error(error));
            self.make_ready(who);
        }
    }

    fn tell_of_bits(&mut self, who: usize, raised: u64) {
        self.told[who] = Some(Told::Notification(raised));
    }

    fn signal(&mut self, which: usize, badge: u64) {
        if let Some(bound) = self.model.bits[which].bound
            && matches!(self.model.actors[bound].doing, Doing::Receiving(..))
        {
            self.stop_waiting(bound);
            self.tell_of_bits(bound, badge);
            self.make_ready(bound);
        } else if let Some(first) = self.model.bits[which].line.front().copied() {
            self.stop_waiting(first);
            self.told[first] = Some(Told::Badge(badge));
            self.make_ready(first);
        } else {
            self.model.bits[which].raised |= badge;
        }
    }

    fn send(&mut self, me: usize, to: usize, message: Message, until: Option<u64>) -> Option<Told> {
        self.sent[me] = message;
        let first = self.model.endpoints[to].front().copied();
        if let Some(receiver) = first
            && let Doing::Receiving(_, reply) = self.model.actors[receiver].doing
        {
            self.stop_waiting(receiver);
            let end = self.deliver(me, receiver, reply);
            if end.is_none() && self.model.actors[me].time.is_some() {
                self.model.actors[me].until = until;
            }
            self.make_ready(receiver);
            return end;
        }
        self.wait(me, Doing::Sending(to), until)
    }

    fn wait(&mut self, me: usize, doing: Doing, until: Option<u64>) -> Option<Told> {
        if until.is_some_and(|until| until <= self.model.now) {
            return Some(Told::Error(Error::TimedOut));
        }
        match doing {
            Doing::Sending(at) => self.model.endpoints[at].push_back(me),
            Doing::Receiving(at, reply) => {
                self.model.endpoints[at].push_back(me);
                if let Some(reply) = reply.and_then(|reply| self.model.replies[reply].as_mut()) {
                    reply.receiver = Some(me);
                }
            }
            Doing::Waiting(at) => self.model.bits[at].line.push_back(me),
            other => panic!("nobody waits as {other:?}"),
        }
        self.model.actors[me].doing = doing;
        self.model.actors[me].until = until;
        None
    }

    /// Tells a receiver a message. What the sender is told, if it does not wait for an answer now.
    fn deliver(&mut self, from: usize, to: usize, reply: Option<usize>) -> Option<Told> {
        let message = self.sent[from];
        self.told[to] = Some(match self.model.actors[from].faulted {
            true => Told::Fault,
            false => Told::Message {
                label: 7,
                count: words(from, to, message.count),
                first: if message.count > 0 { 11 } else { 0 },
                badge: message.badge,
            },
        });
        if !message.calls {
            return Some(Told::Success);
        }
        let Some(reply) = reply else {
            return Some(Told::Error(Error::NoReply));
        };
        if let Some(debt) = &mut self.model.replies[reply] {
            debt.caller = Some(from);
        }
        self.model.actors[from].doing = Doing::Called(reply);
        if let (None, Some(time)) = (self.model.actors[to].time, self.model.actors[from].time) {
            if let Some(state) = &mut self.model.times[time] {
                state.lent.push(reply);
            }
            self.give_time(time, to);
        }
        None
    }

    fn receive(
        &mut self,
        me: usize,
        from: usize,
        reply: Option<usize>,
        until: Option<u64>,
    ) -> Option<Told> {
        if let Some(bound) = self.model.actors[me].bound {
            let raised = std::mem::take(&mut self.model.bits[bound].raised);
            if raised != 0 {
                return Some(Told::Notification(raised));
            }
        }
        let first = self.model.endpoints[from].front().copied();
        if let Some(sender) = first
            && matches!(self.model.actors[sender].doing, Doing::Sending(_))
        {
            let until = self.model.actors[sender].until;
            self.stop_waiting(sender);
            let end = self.deliver(sender, me, reply);
            match end {
                None if self.model.actors[sender].time.is_some() => {
                    self.model.actors[sender].until = until;
                }
                None => {}
                Some(Told::Error(error)) => self.end_wait(sender, error),
                told => {
                    self.told[sender] = told;
                    self.make_ready(sender);
                }
            }
            return self.told[me];
        }
        self.wait(me, Doing::Receiving(from, reply), until)
    }

    fn answer(&mut self, server: usize, reply: usize, count: usize) {
        let caller = self.model.replies[reply]
            .as_ref()
            .and_then(|debt| debt.caller);
        let Some(caller) = caller else { return };
        self.model.actors[caller].until = None;
        if !std::mem::take(&mut self.model.actors[caller].faulted) {
            self.told[caller] = Some(Told::Message {
                label: 7,
                count: words(server, caller, count),
                first: if count > 0 { 11 } else { 0 },
                badge: 0,
            });
        }
        self.release(reply);
        self.make_ready(caller);
    }

    fn rights(form: usize, needed: Rights) -> Result<(usize, u64), Error> {
        let (rights, badge) = crate::cast::FORMS[form % 4];
        match Rights(rights).has(needed) {
            true => Ok((form / 4, badge)),
            false => Err(Error::Denied),
        }
    }

    /// A reply by what a program says: `None` if it says 0.
    fn reply(&self, index: usize) -> Result<Option<usize>, Error> {
        match self.model.replies.get(index) {
            None => Ok(None),
            Some(Some(_)) => Ok(Some(index)),
            Some(None) => Err(Error::NoCapability),
        }
    }

    fn call(&mut self, me: usize, step: Step, until: Option<u64>) -> Result<Option<Told>, Error> {
        let (write, all) = (Rights::WRITE, Rights::WRITE.or(Rights::GRANT));
        Ok(match step {
            Step::Call(to, count, _) => {
                let (to, badge) = Self::rights(to, all)?;
                let calls = true;
                self.send(
                    me,
                    to,
                    Message {
                        count,
                        badge,
                        calls,
                    },
                    None,
                )
            }
            Step::CallUntil(to, _) => {
                let (to, badge) = Self::rights(to, all)?;
                let (count, calls) = (1, true);
                self.send(
                    me,
                    to,
                    Message {
                        count,
                        badge,
                        calls,
                    },
                    until,
                )
            }
            Step::Send(to, count, _) => {
                let (to, badge) = Self::rights(to, write)?;
                let calls = false;
                self.send(
                    me,
                    to,
                    Message {
                        count,
                        badge,
                        calls,
                    },
                    None,
                )
            }
            Step::SendUntil(to, _) => {
                let (to, badge) = Self::rights(to, write)?;
                let (count, calls) = (2, false);
                self.send(
                    me,
                    to,
                    Message {
                        count,
                        badge,
                        calls,
                    },
                    until,
                )
            }
            Step::Receive(from, with) | Step::ReceiveUntil(from, with, _) => {
                let (from, _) = Self::rights(from, Rights::READ)?;
                let reply = self.reply(with)?;
                let debt = reply.and_then(|reply| self.model.replies[reply].as_ref());
                if debt.is_some_and(|debt| *debt != Debt::default()) {
                    return Err(Error::ReplyInUse);
                }
                self.receive(me, from, reply, until)
            }
            Step::ReplyReceive(from, with, count) => {
                self.reply_receive(me, from, with, count, None)?
            }
            Step::ReplyReceiveUntil(from, with, _) => {
                self.reply_receive(me, from, with, 3, until)?
            }
            Step::Reply(with, count) => {
                let reply = self.reply(with)?.ok_or(Error::NoCapability)?;
                let debt = self.model.replies[reply].as_ref();
                if debt.is_none_or(|debt| debt.caller.is_none()) {
                    return Err(Error::NoReply);
                }
                self.answer(me, reply, count.min(4));
                Some(Told::Success)
            }
            other => self.signals(me, other, until)?,
        })
    }

    /// What does not wait for somebody in particular.
    fn signals(
        &mut self,
        me: usize,
        step: Step,
        until: Option<u64>,
    ) -> Result<Option<Told>, Error> {
        Ok(match step {
            Step::Signal(which) => {
                self.signal(which, 1);
                Some(Told::Success)
            }
            Step::Wait(which) | Step::WaitUntil(which, _) => {
                match std::mem::take(&mut self.model.bits[which].raised) {
                    0 => self.wait(me, Doing::Waiting(which), until),
                    raised => Some(Told::Badge(raised)),
                }
            }
            Step::Yield => {
                let time = self.model.actors[me]
                    .time
                    .and_then(|time| self.model.times[time].as_mut());
                if let Some(time) = time {
                    time.left = time.budget;
                    self.model.order[row(self.model.actors[me].priority)].push(me);
                }
                Some(Told::Success)
            }
            Step::Push => {
                if self.model.queue == 2 {
                    return Err(Error::Full);
                }
                self.model.queue += 1;
                if self.model.queue == 1 {
                    self.signal(1, 1);
                }
                Some(Told::Success)
            }
            Step::Pop => {
                if self.model.queue == 0 {
                    return Err(Error::Empty);
                }
                self.model.queue -= 1;
                let (label, count, first, badge) = (7, 2, 11, 0);
                Some(Told::Message {
                    label,
                    count,
                    first,
                    badge,
                })
            }
            other => self.control(other)?,
        })
    }

    fn reply_receive(
        &mut self,
        me: usize,
        from: usize,
        with: usize,
        count: usize,
        until: Option<u64>,
    ) -> Result<Option<Told>, Error> {
        let (from, _) = Self::rights(from, Rights::READ)?;
        let reply = self.reply(with)?.ok_or(Error::NoCapability)?;
        let debt = self.model.replies[reply].as_ref();
        if debt.is_some_and(|debt| debt.receiver.is_some()) {
            return Err(Error::ReplyInUse);
        }
        self.answer(me, reply, count);
        Ok(self.receive(me, from, Some(reply), until))
    }

    /// What threads do to each other.
    fn control(&mut self, step: Step) -> Result<Option<Told>, Error> {
        match step {
            Step::Suspend(who) => {
                let doing = self.model.actors[who].doing;
                self.stop_waiting(who);
                let waited = !matches!(doing, Doing::Nothing | Doing::Running);
                if waited && !self.model.actors[who].faulted {
                    self.told[who] = Some(Told::Error(Error::Canceled));
                }
            }
            Step::Resume(who) => {
                if self.model.actors[who].doing == Doing::Nothing {
                    self.model.actors[who].faulted = false;
                    self.make_ready(who);
                }
            }
            Step::Priority(who, priority) => {
                let queued = self.model.order.iter().any(|row| row.contains(&who));
                self.leave_order(who);
                self.model.actors[who].priority = priority as u8;
                if queued {
                    self.model.order[row(priority as u8)].push(who);
                }
            }
            Step::Bind(time, who) => {
                let state = self.model.times[time].as_ref().ok_or(Error::NoCapability)?;
                let taken = state.holder.is_some() || !state.lent.is_empty();
                if taken || self.model.actors[who].time.is_some() {
                    return Err(Error::Bound);
                }
                self.give_time(time, who);
                if self.model.actors[who].doing == Doing::Running {
                    self.make_ready(who);
                }
            }
            Step::Unbind(time) => {
                self.model.times[time].as_ref().ok_or(Error::NoCapability)?;
                self.stop_charging(time);
                self.take_time(time);
            }
            Step::Configure(time, budget, _) => {
                self.model.times[time].as_ref().ok_or(Error::NoCapability)?;
                self.stop_charging(time);
                let holder = self.model.times[time].as_ref().and_then(|time| time.holder);
                if let Some(holder) = holder {
                    self.take_time(time);
                    self.give_time(time, holder);
                }
                if let Some(state) = &mut self.model.times[time] {
                    (state.budget, state.left) = (budget, budget);
                }
                if let Some(holder) = holder
                    && self.model.actors[holder].doing == Doing::Running
                {
                    self.make_ready(holder);
                }
            }
            Step::BindNotification(who, which) => {
                let Some(bits) = self.model.bits.get(which) else {
                    if let Some(bound) = self.model.actors[who].bound.take() {
                        self.model.bits[bound].bound = None;
                    }
                    return Ok(Some(Told::Success));
                };
                if bits.bound.is_some() || self.model.actors[who].bound.is_some() {
                    return Err(Error::Bound);
                }
                self.model.bits[which].bound = Some(who);
                self.model.actors[who].bound = Some(which);
                if matches!(self.model.actors[who].doing, Doing::Receiving(..)) {
                    let raised = std::mem::take(&mut self.model.bits[which].raised);
                    if raised != 0 {
                        self.signal(which, raised);
                    }
                }
            }
            Step::DropReply(reply) => {
                let debt = self.model.replies[reply].clone();
                let receiver = debt.and_then(|debt| debt.receiver);
                if let Some(receiver) = receiver
                    && let Doing::Receiving(_, with) = &mut self.model.actors[receiver].doing
                {
                    *with = None;
                }
                let caller = self.release(reply);
                self.model.replies[reply] = None;
                if let Some(caller) = caller {
                    self.model.actors[caller].doing = Doing::Nothing;
                    self.end_wait(caller, Error::Gone);
                }
            }
            Step::DropTime(time) => {
                self.stop_charging(time);
                self.take_time(time);
                self.model.times[time] = None;
            }
            other => panic!("{other:?} is not in the model"),
        }
        Ok(Some(Told::Success))
    }

    fn stop_charging(&mut self, time: usize) {
        if self.charged == Some(time) {
            self.charged = None;
        }
    }

    fn fault(&mut self, me: usize) {
        self.model.actors[me].faulted = true;
        let (count, badge, calls) = (0, 7, true);
        let end = match me % 2 {
            0 => self.send(
                me,
                0,
                Message {
                    count,
                    badge,
                    calls,
                },
                None,
            ),
            _ => Some(Told::Success),
        };
        if end.is_some() {
            self.model.actors[me].doing = Doing::Nothing;
        }
    }

    /// So much time passes. The slice of whoever runs may end, and waits come to their ends.
    fn pass(&mut self, ticks: u64) {
        self.model.now += ticks;
        if let Some(time) = self.charged
            && let Some(state) = &mut self.model.times[time]
        {
            if ticks < state.left {
                state.left -= ticks;
            } else {
                state.left = state.budget;
                if let Some(holder) = state.holder
                    && self.model.actors[holder].doing == Doing::Running
                {
                    self.leave_order(holder);
                    self.model.order[row(self.model.actors[holder].priority)].push(holder);
                }
            }
        }
        loop {
            let waiting = self.model.actors.iter().enumerate();
            let waiting = waiting.filter_map(|(who, actor)| Some((actor.until?, who)));
            let due = waiting.filter(|(until, _)| *until <= self.model.now).min();
            let Some((_, who)) = due else { break };
            self.end_wait(who, Error::TimedOut);
        }
        self.settle();
    }

    /// The current thread goes on if it can and nobody comes before it; else whoever is first of those with the highest priority.
    fn settle(&mut self) {
        let highest = self.model.order.iter().rposition(|row| !row.is_empty());
        if let Some(current) = self.model.current {
            let actor = &self.model.actors[current];
            let queued = self.model.order.iter().any(|row| row.contains(&current));
            if actor.doing == Doing::Running && actor.time.is_some() && !queued {
                if highest.is_none_or(|highest| highest <= row(actor.priority)) {
                    self.charged = actor.time;
                    return;
                }
                self.model.order[row(actor.priority)].insert(0, current);
            }
        }
        self.model.current = highest.map(|highest| self.model.order[highest].remove(0));
        self.charged = self
            .model
            .current
            .and_then(|who| self.model.actors[who].time);
    }

    fn step(&mut self, step: Step, until: u64) {
        match step {
            Step::Pass(ticks) => return self.pass(ticks),
            Step::Tick => return self.pass(0),
            Step::Interrupt => self.signal(0, 1),
            Step::Fault => {
                if let Some(me) = self.model.current {
                    self.fault(me);
                }
            }
            step => {
                let Some(me) = self.model.current else { return };
                let end = self.call(me, step, (until > 0).then_some(until));
                match end {
                    Ok(None) => {}
                    Ok(told) => self.told[me] = told,
                    Err(error) => self.told[me] = Some(Told::Error(error)),
                }
            }
        }
        self.settle();
    }
}

/// The kernel's state as the model has it.
fn read(world: &World, cast: &Cast) -> Model {
    let arena = world.arena();
    let threads: Vec<Ref<Thread>> = cast.handles.clone();
    let index = |thread: Ref<Thread>| threads.iter().position(|other| *other == thread);
    let reply_index = |reply: Ref<Reply>| {
        cast.replies.iter().position(
            |at| matches!(world.capability(*at), Capability::Reply { reply: same } if same == reply),
        )
    };
    let list = |line: &Line| {
        let mut found = Vec::new();
        let mut next = line.first();
        while let Some(thread) = next {
            found.push(index(thread).expect("one of the cast"));
            next = arena.object(thread).after();
        }
        found
    };
    let endpoints: Vec<_> = [cast.endpoints[0], cast.endpoints[4]]
        .iter()
        .map(|at| match world.capability(*at) {
            Capability::Endpoint { endpoint, .. } => endpoint,
            other => panic!("{other:?} is no endpoint"),
        })
        .collect();
    let bits: Vec<_> = cast
        .notifications
        .iter()
        .map(|at| match world.capability(*at) {
            Capability::Notification { notification, .. } => notification,
            other => panic!("{other:?} is no notification"),
        })
        .collect();
    let times: Vec<_> = cast
        .threads
        .iter()
        .map(|made| match world.capability(made.context) {
            Capability::SchedulingContext { context } => Some(context),
            _ => None,
        })
        .collect();
    let actors = threads.iter().map(|at| {
        let thread = arena.object(*at);
        let meets = || endpoints.iter().position(|e| Some(*e) == thread.endpoint());
        let reply = || thread.reply().and_then(reply_index);
        Actor {
            doing: match thread.state() {
                State::Inactive => Doing::Nothing,
                State::Ready => Doing::Running,
                State::Sending => Doing::Sending(meets().expect("an endpoint")),
                State::Receiving => Doing::Receiving(meets().expect("an endpoint"), reply()),
                State::Called => Doing::Called(reply().expect("a reply")),
                State::Waiting => {
                    let at = bits.iter().position(|b| Some(*b) == thread.notification());
                    Doing::Waiting(at.expect("a notification"))
                }
            },
            priority: thread.priority(),
            time: times
                .iter()
                .position(|t| t.is_some() && *t == thread.context()),
            until: thread.alarm(),
            bound: bits.iter().position(|b| Some(*b) == thread.bound()),
            faulted: thread.fault().is_some(),
        }
    });
    let charged = world.kernel.charged();
    let uncharged = arena.now() - world.kernel.charged_until();
    let states = times.iter().map(|at| {
        let at = (*at)?;
        let time = arena.object(at);
        let left = time.refills().next().map_or(0, |(_, ticks)| ticks);
        let mut lent = Vec::new();
        let mut next = time.top();
        while let Some(reply) = next {
            lent.insert(0, reply_index(reply).expect("one of the cast"));
            next = arena.object(reply).below();
        }
        Some(Time {
            budget: time.budget(),
            left: left - if charged == Some(at) { uncharged } else { 0 },
            holder: time.thread().and_then(index),
            lent,
        })
    });
    let queue = match world.capability(cast.queue) {
        Capability::Queue { queue, .. } => arena.object(queue).len(),
        other => panic!("{other:?} is no queue"),
    };
    Model {
        now: arena.now(),
        actors: actors.collect(),
        times: states.collect(),
        replies: debts(world, cast),
        endpoints: endpoints
            .iter()
            .map(|at| {
                let endpoint = arena.object(*at);
                let line: VecDeque<usize> = list(endpoint.line()).into();
                assert_eq!(line.is_empty(), endpoint.waiting() == Waiting::Nobody);
                line
            })
            .collect(),
        bits: bits
            .iter()
            .map(|at| {
                let bits = arena.object(*at);
                Bits {
                    raised: bits.raised(),
                    line: list(bits.line()).into(),
                    bound: bits.bound().and_then(index),
                }
            })
            .collect(),
        queue,
        current: world.kernel.current().and_then(index),
        order: [98, 99, 100, 101].map(|priority| list(world.kernel.runnable(priority))),
    }
}

fn debts(world: &World, cast: &Cast) -> Vec<Option<Debt>> {
    let index = |thread| cast.handles.iter().position(|other| *other == thread);
    let replies = cast.replies.iter().map(|at| match world.capability(*at) {
        Capability::Reply { reply } => {
            let reply = world.arena().object(reply);
            Some(Debt {
                caller: reply.caller().and_then(index),
                receiver: reply.receiver().and_then(index),
            })
        }
        _ => None,
    });
    replies.collect()
}

/// Whether a thread's registers tell what it was told.
fn tells(world: &World, thread: Ref<Thread>, told: Told) -> bool {
    let register = |index| world.register(thread, index);
    let error = register(registers::ERROR);
    let info = MessageInfo(register(registers::INFO));
    let (badge, first) = (register(registers::BADGE), register(registers::WORDS[0]));
    match told {
        Told::Error(expected) => error == expected as u64,
        Told::Success => error == 0,
        Told::Badge(expected) => error == 0 && badge == expected,
        Told::Message {
            label,
            count,
            first: word,
            badge: expected,
        } => {
            error == 0
                && (info.label(), info.words(), info.capabilities()) == (label, count, 0)
                && (badge, first) == (expected, word)
        }
        Told::Fault => {
            let address = register(registers::WORDS[2]);
            error == 0 && info.label() == FAULT_LABEL && address == 0x77 && badge == 7
        }
        Told::Notification(raised) => {
            error == 0 && info.label() == NOTIFICATION_LABEL && badge == raised
        }
    }
}

fn modelled() -> impl Strategy<Value = Step> {
    let dropped = prop_oneof![
        (0..4usize).prop_map(Step::DropReply),
        (0..5usize).prop_map(Step::DropTime)
    ];
    let usual = step().prop_filter_map("it is in the model", |step| match step {
        Step::Call(to, count, _) => Some(Step::Call(to, count, 0)),
        Step::Send(to, count, _) => Some(Step::Send(to, count, 0)),
        Step::Configure(time, budget, _) => Some(Step::Configure(time, budget, 0)),
        Step::Late(_)
        | Step::Consumed(_)
        | Step::RenewReply(_)
        | Step::RenewEndpoint(_)
        | Step::RenewNotification(_)
        | Step::RenewTime(_) => None,
        other => Some(other),
    });
    prop_oneof![60 => usual, 1 => dropped]
}

#[test]
fn random_histories_of_messages_are_those_of_the_model() {
    let histories = prop::collection::vec(modelled(), 1..80);
    run(1000, &histories, |steps| {
        let world = World::new();
        let cast = Cast::new(&world, &ROLES);
        let mut play = Play {
            model: read(&world, &cast),
            charged: None,
            told: vec![None; ROLES.len()],
            sent: vec![
                Message {
                    count: 0,
                    badge: 0,
                    calls: false
                };
                ROLES.len()
            ],
        };
        for (number, step) in (1..).zip(steps) {
            if world.kernel.current().is_none() && world.arena().alarm.get() == u64::MAX {
                break;
            }
            let step = cast.spoken(&world, step);
            let Some(step) = step else { continue };
            let now = world.arena().now();
            // No two moments are the same: who comes first then is not said.
            let apart = |ticks: u64| (now + ticks).next_multiple_of(128) + number - now;
            let step = match step {
                Step::CallUntil(to, ticks) if ticks > 0 => Step::CallUntil(to, apart(ticks)),
                Step::SendUntil(to, ticks) if ticks > 0 => Step::SendUntil(to, apart(ticks)),
                Step::ReceiveUntil(from, with, ticks) if ticks > 0 => {
                    Step::ReceiveUntil(from, with, apart(ticks))
                }
                Step::ReplyReceiveUntil(from, with, ticks) if ticks > 0 => {
                    Step::ReplyReceiveUntil(from, with, apart(ticks))
                }
                Step::WaitUntil(which, ticks) if ticks > 0 => Step::WaitUntil(which, apart(ticks)),
                other => other,
            };
            let until = cast.until(step, now);
            play.charged = play
                .model
                .current
                .and_then(|who| play.model.actors[who].time);
            play.step(step, until);
            match step {
                Step::DropReply(reply) => drop_at(&world, cast.replies[reply]),
                Step::DropTime(time) => drop_at(&world, cast.threads[time].context),
                step => {
                    cast.step(&world, step, number % 2 == 0);
                }
            }
            let real = read(&world, &cast);
            prop_assert_eq!(&real, &play.model, "after {:?}", step);
            for (thread, told) in cast.handles.iter().zip(&play.told) {
                let goes_on = matches!(
                    world.arena().object(*thread).state(),
                    State::Ready | State::Inactive
                );
                if let (true, Some(told)) = (goes_on, told) {
                    prop_assert!(
                        tells(&world, *thread, *told),
                        "after {:?} {:?} tells not {:?}",
                        step,
                        thread,
                        told
                    );
                }
            }
        }
        Ok(())
    });
}

fn drop_at(world: &World, at: u64) {
    if world.kernel.current().is_some() {
        world.enter(&invocation(boot::NODE, Method::Delete, &[at]), 0, true);
    }
}
