//! A few threads with a few objects between them, and what they can do with these: one step at a time.
//!
//! The first thread takes no part. It comes when nobody else can run, has everybody begin again, and waits.

use mielin_kernel::abi::{
    BUFFER_BYTES, FaultKind, MessageInfo, Method, ObjectKind, SystemCall, ThreadSlot, boot,
};
use mielin_kernel::{Fault, Machine, Ref, Request, Thread};

use crate::world::{After, Made, World, invocation, message, request};

/// What threads do, by index into the cast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A client calls one of two endpoints, a server answers and waits again, with so many words.
    Talk(usize, usize),
    /// To an endpoint's capability, so many words, and capabilities.
    Call(usize, usize, usize),
    ReplyReceive(usize, usize, usize),
    Send(usize, usize, usize),
    Receive(usize, usize),
    /// The same until so many ticks from now on.
    CallUntil(usize, u64),
    SendUntil(usize, u64),
    ReceiveUntil(usize, usize, u64),
    ReplyReceiveUntil(usize, usize, u64),
    Reply(usize, usize),
    Signal(usize),
    Wait(usize),
    WaitUntil(usize, u64),
    Yield,
    Push,
    Pop,
    Suspend(usize),
    Resume(usize),
    Priority(usize, u64),
    /// A time to a thread.
    Bind(usize, usize),
    Unbind(usize),
    Configure(usize, u64, u64),
    Consumed(usize),
    BindNotification(usize, usize),
    /// Deletes an object of the cast, by revoking what it was made of, and makes it anew.
    RenewReply(usize),
    RenewEndpoint(usize),
    RenewNotification(usize),
    RenewTime(usize),
    /// Time passes.
    Pass(u64),
    /// The same, and the machine's alarm comes late.
    Late(u64),
    /// What is due comes.
    Tick,
    Interrupt,
    Fault,
    /// Deletes the only capability of an object of the cast.
    DropReply(usize),
    DropTime(usize),
}

pub(crate) const INTERRUPT: u64 = 3;
/// The line that brings the first thread back.
const RESCUE: u64 = 4;

pub(crate) struct Cast {
    pub(crate) threads: Vec<Made>,
    /// For each of two endpoints: all rights, a badge, sending only, receiving only.
    pub(crate) endpoints: Vec<u64>,
    pub(crate) replies: Vec<u64>,
    pub(crate) notifications: Vec<u64>,
    pub(crate) queue: u64,
    pub(crate) handles: Vec<Ref<Thread>>,
    roles: Vec<Role>,
    untyped: u64,
    rescue: u64,
    line: u64,
}

/// Priority, budget and period of a thread.
pub(crate) type Role = (u64, u64, u64);

/// Servers without time, and clients with slices and with budgets, on few priorities.
pub(crate) const ROLES: [Role; 5] = [
    (100, 50, 0),
    (100, 0, 0),
    (101, 30, 100),
    (100, 0, 0),
    (99, 40, 0),
];

pub(crate) const FORMS: [(u8, u64); 4] = [(15, 0), (15, 7), (2, 9), (1, 0)];

impl Cast {
    pub(crate) fn new(world: &World, roles: &[Role]) -> Self {
        let make = |kind, size| world.make(kind, size);
        let endpoints = (0..2).flat_map(|_| {
            let first = make(ObjectKind::Endpoint, 0);
            let others = FORMS[1..].iter().map(move |(rights, badge)| {
                let at = world.free();
                let words = [at, first, u64::from(*rights), *badge];
                world
                    .invoke(boot::NODE, Method::Mint, &words)
                    .expect("it is new");
                at
            });
            std::iter::once(first).chain(others).collect::<Vec<_>>()
        });
        let cast = Self {
            endpoints: endpoints.collect(),
            threads: Vec::new(),
            replies: (0..4).map(|_| make(ObjectKind::Reply, 0)).collect(),
            notifications: (0..2).map(|_| make(ObjectKind::Notification, 0)).collect(),
            queue: make(ObjectKind::Queue, 8),
            rescue: make(ObjectKind::Notification, 0),
            line: world.free(),
            handles: Vec::new(),
            roles: roles.to_vec(),
            untyped: world.untyped(19),
        };
        let mut cast = cast;
        let invoke = |capability, method, words: &[u64]| {
            world
                .invoke(capability, method, words)
                .expect("the first thread may do that")
        };
        let rescue = world.free();
        invoke(
            boot::INTERRUPT_CONTROL,
            Method::Claim,
            &[INTERRUPT, boot::NODE, cast.line],
        );
        invoke(
            boot::INTERRUPT_CONTROL,
            Method::Claim,
            &[RESCUE, boot::NODE, rescue],
        );
        invoke(cast.line, Method::BindInterrupt, &[cast.notifications[0]]);
        invoke(rescue, Method::BindInterrupt, &[cast.rescue]);
        invoke(cast.queue, Method::BindQueue, &[0, cast.notifications[1]]);
        let buffers = make(ObjectKind::Frame, 12);
        let place = world.free();
        for _ in 0..30 {
            world.free();
        }
        for (index, (priority, budget, period)) in (0..).zip(roles) {
            let made = world.make_thread(*priority, *budget, *period);
            let buffer = [ThreadSlot::Buffer as u64, buffers, index % 4 * BUFFER_BYTES];
            // The last has none.
            if index < 4 {
                invoke(made.thread, Method::Equip, &buffer);
                let page = buffer_words(world, buffers);
                let first = (index * BUFFER_BYTES / 8) as usize;
                page[first + mielin_kernel::abi::BUFFER_NODE].set(boot::NODE);
                page[first + mielin_kernel::abi::BUFFER_INDEX].set(place + index * 4);
                page[first + mielin_kernel::abi::BUFFER_CAPABILITIES].set(cast.endpoints[1]);
                page[first + mielin_kernel::abi::BUFFER_CAPABILITIES + 1].set(cast.replies[0]);
                page[first + 5].set(0x5000 + index);
            }
            if index % 2 == 0 {
                let equip = [ThreadSlot::FaultEndpoint as u64, cast.endpoints[1]];
                invoke(made.thread, Method::Equip, &equip);
            }
            if index == 2 {
                let equip = [ThreadSlot::TimeoutEndpoint as u64, cast.endpoints[5]];
                invoke(made.thread, Method::Equip, &equip);
            }
            invoke(made.thread, Method::Resume, &[]);
            cast.threads.push(made);
            cast.handles.push(world.thread_at(made.thread));
        }
        cast.seat(world);
        cast.retire(world);
        cast
    }

    fn retire(&self, world: &World) {
        let wait = request(SystemCall::Receive, self.rescue);
        assert_eq!(world.enter(&wait, 0, true), After::Waits);
    }

    /// Has servers that have no time of their own wait for messages. What does not go, does not.
    fn seat(&self, world: &World) {
        let me = world.thread();
        let invoke = |capability, method, words: &[u64]| {
            while world.enter(&invocation(capability, method, words), 0, true) == After::Again {}
        };
        for (index, made) in self.threads.iter().enumerate() {
            let (priority, budget, _) = self.roles[index];
            if budget > 0 {
                continue;
            }
            let control = boot::SCHEDULING_CONTROL;
            invoke(made.thread, Method::SetPriority, &[255, control, 0]);
            invoke(control, Method::Configure, &[made.context, 1000, 0]);
            invoke(made.context, Method::BindThread, &[made.thread]);
            world.enter(&request(SystemCall::Yield, 0), 0, true);
            if world.thread() != me {
                let (from, reply) = self.own(index);
                world.enter(&message(SystemCall::Receive, from, reply, &[]), 0, true);
                while world.thread() != me {
                    world.enter(&request(SystemCall::Yield, 0), 0, true);
                }
            }
            invoke(made.context, Method::BindThread, &[0]);
            invoke(made.thread, Method::SetPriority, &[priority, control, 0]);
        }
    }

    /// The endpoint at which a server waits, and its reply.
    fn own(&self, index: usize) -> (u64, u64) {
        (self.endpoints[index / 2 % 2 * 4], self.replies[index % 4])
    }

    /// If nobody can run, lets time pass, or has everybody begin again.
    pub(crate) fn revive(&self, world: &World) {
        while world.kernel.current().is_none() && world.arena().alarm.get() != u64::MAX {
            world.pass(1 << 40);
        }
        if world.kernel.current().is_some() {
            return;
        }
        world.kernel.interrupt(RESCUE as u32);
        for made in &self.threads {
            for method in [Method::Suspend, Method::Resume] {
                let request = invocation(made.thread, method, &[]);
                while world.enter(&request, 0, true) == After::Again {}
            }
        }
        // Who is to have time, has it again.
        for (made, role) in self.threads.iter().zip(&self.roles) {
            if role.1 > 0 {
                world.enter(
                    &invocation(made.context, Method::BindThread, &[made.thread]),
                    0,
                    true,
                );
            }
        }
        self.retire(world);
    }

    /// Does a step, as whoever runs.
    pub(crate) fn step(&self, world: &World, step: Step, slow: bool) -> Option<After> {
        let now = world.arena().now();
        let step = self.spoken(world, step)?;
        let (request, until) = match step {
            Step::Pass(ticks) => {
                let arena = world.arena();
                arena.clock.set(now + ticks);
                if arena.alarm.get() <= now + ticks {
                    arena.alarm.set(u64::MAX);
                    world.kernel.tick();
                }
                return None;
            }
            Step::Late(ticks) => {
                world.arena().clock.set(now + ticks);
                return None;
            }
            Step::Tick => {
                world.kernel.tick();
                return None;
            }
            Step::Interrupt => {
                world.kernel.interrupt(INTERRUPT as u32);
                return None;
            }
            Step::Fault => {
                world.kernel.fault(Fault {
                    kind: FaultKind::Page,
                    address: 0x77,
                    access: 1,
                });
                return None;
            }
            Step::RenewReply(index) => {
                return self.renew(world, self.replies[index], ObjectKind::Reply);
            }
            Step::RenewEndpoint(index) => {
                return self.renew_endpoint(world, index);
            }
            Step::RenewNotification(index) => {
                return self.renew(world, self.notifications[index], ObjectKind::Notification);
            }
            Step::RenewTime(index) => {
                let at = self.threads[index].context;
                return self.renew(world, at, ObjectKind::SchedulingContext);
            }
            step => self.request(step, now),
        };
        world.kernel.current()?;
        Some(world.enter(&request, until, slow))
    }

    /// What whoever runs says: what [`Step::Talk`] is for him.
    pub(crate) fn spoken(&self, world: &World, step: Step) -> Option<Step> {
        let Step::Talk(to, words) = step else {
            return Some(step);
        };
        let me = world.kernel.current()?;
        let index = self.handles.iter().position(|thread| *thread == me)?;
        Some(match self.roles[index].1 {
            0 => Step::ReplyReceive(index / 2 % 2 * 4, index % 4, words.min(4)),
            _ => Step::Call(to, words, 0),
        })
    }

    fn renew(&self, world: &World, at: u64, kind: ObjectKind) -> Option<After> {
        let me = world.kernel.current()?;
        for method in [Method::Revoke, Method::Delete] {
            let mut after = After::Again;
            while after == After::Again && world.kernel.current() == Some(me) {
                after = world.enter(&invocation(boot::NODE, method, &[at]), 0, true);
            }
        }
        if world.kernel.current() == Some(me) {
            let what = mielin_kernel::abi::Retype::new(kind, 0, 1).0;
            let words = [what, boot::NODE, at];
            world.enter(&invocation(self.untyped, Method::Retype, &words), 0, true);
        }
        None
    }

    fn renew_endpoint(&self, world: &World, index: usize) -> Option<After> {
        self.renew(world, self.endpoints[index * 4], ObjectKind::Endpoint);
        let me = world.kernel.current()?;
        for (offset, (rights, badge)) in FORMS.iter().enumerate().skip(1) {
            if world.kernel.current() == Some(me) {
                let first = self.endpoints[index * 4];
                let words = [
                    self.endpoints[index * 4 + offset],
                    first,
                    u64::from(*rights),
                    *badge,
                ];
                world.enter(&invocation(boot::NODE, Method::Mint, &words), 0, true);
            }
        }
        None
    }

    /// The system call that a step is.
    pub(crate) fn request(&self, step: Step, now: u64) -> (Request, u64) {
        let words = |count: usize| [11, 12, 13, 14][..count.min(4)].to_vec();
        let sized = |mut request: Request, words: usize, capabilities: usize| {
            request.info = MessageInfo::new(7, words).with_capabilities(capabilities);
            request
        };
        let reply = |index: usize| self.replies.get(index).copied().unwrap_or(0);
        let request = match step {
            Step::Call(to, count, capabilities) => {
                let call = message(SystemCall::Call, self.endpoints[to], 0, &words(count));
                sized(call, count, capabilities)
            }
            Step::ReplyReceive(from, with, count) => {
                let at = self.endpoints[from];
                let call = message(SystemCall::ReplyReceive, at, reply(with), &words(count));
                sized(call, count, 0)
            }
            Step::Send(to, count, capabilities) => {
                let call = message(SystemCall::Send, self.endpoints[to], 0, &words(count));
                sized(call, count, capabilities)
            }
            Step::Receive(from, with) => {
                message(SystemCall::Receive, self.endpoints[from], reply(with), &[])
            }
            Step::CallUntil(to, _) => {
                message(SystemCall::CallUntil, self.endpoints[to], 0, &words(1))
            }
            Step::SendUntil(to, _) => {
                message(SystemCall::SendUntil, self.endpoints[to], 0, &words(2))
            }
            Step::ReceiveUntil(from, with, _) => message(
                SystemCall::ReceiveUntil,
                self.endpoints[from],
                reply(with),
                &[],
            ),
            Step::ReplyReceiveUntil(from, with, _) => {
                let at = self.endpoints[from];
                message(SystemCall::ReplyReceiveUntil, at, reply(with), &words(3))
            }
            Step::Reply(with, count) => message(SystemCall::Reply, 0, reply(with), &words(count)),
            Step::Signal(which) => request(SystemCall::Signal, self.notifications[which]),
            Step::Wait(which) => request(SystemCall::Receive, self.notifications[which]),
            Step::WaitUntil(which, _) => {
                request(SystemCall::ReceiveUntil, self.notifications[which])
            }
            Step::Yield => request(SystemCall::Yield, 0),
            Step::Push => message(SystemCall::Push, self.queue, 0, &words(2)),
            Step::Pop => message(SystemCall::Pop, self.queue, 0, &[]),
            Step::Suspend(who) => invocation(self.threads[who].thread, Method::Suspend, &[]),
            Step::Resume(who) => invocation(self.threads[who].thread, Method::Resume, &[]),
            Step::Priority(who, priority) => {
                let words = [priority, boot::SCHEDULING_CONTROL, 0];
                invocation(self.threads[who].thread, Method::SetPriority, &words)
            }
            Step::Bind(time, who) => {
                let words = [self.threads[who].thread];
                invocation(self.threads[time].context, Method::BindThread, &words)
            }
            Step::Unbind(time) => invocation(self.threads[time].context, Method::BindThread, &[0]),
            Step::Configure(time, budget, period) => {
                let words = [self.threads[time].context, budget, period];
                invocation(boot::SCHEDULING_CONTROL, Method::Configure, &words)
            }
            Step::Consumed(time) => invocation(self.threads[time].context, Method::Consumed, &[]),
            Step::BindNotification(who, which) => {
                let words = [self.notifications.get(which).copied().unwrap_or(0)];
                invocation(self.threads[who].thread, Method::BindNotification, &words)
            }
            other => panic!("{other:?} is no system call"),
        };
        (request, self.until(step, now))
    }

    /// Until when it waits.
    pub(crate) fn until(&self, step: Step, now: u64) -> u64 {
        match step {
            Step::CallUntil(_, ticks)
            | Step::SendUntil(_, ticks)
            | Step::ReceiveUntil(_, _, ticks)
            | Step::ReplyReceiveUntil(_, _, ticks)
            | Step::WaitUntil(_, ticks) => now + ticks,
            _ => 0,
        }
    }
}

fn buffer_words(world: &World, frame: u64) -> &mielin_kernel::Page {
    let mielin_kernel::Capability::Frame { page, .. } = world.capability(frame) else {
        panic!("no frame")
    };
    let at = mielin_kernel::Ref::at(u64::from(page) << 12).expect("a page");
    world.arena().object(at)
}
