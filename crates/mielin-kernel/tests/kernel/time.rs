//! Budgets: what threads use of the processor, over long runs of a machine whose alarm comes in time, or late.

use std::collections::VecDeque;

use mielin_kernel::abi::{Method, ObjectKind, SystemCall};
use mielin_kernel::{Machine, Ref, SchedulingContext, Thread};
use proptest::prelude::*;

use crate::random::run;
use crate::world::{After, Made, World, message, request};

/// Runs of the processor: who, from when on, and until when.
type Run = (Ref<Thread>, u64, u64);

/// The first thread, out of the way, and others that run.
struct Long {
    world: World,
    made: Vec<Made>,
    threads: Vec<Ref<Thread>>,
    runs: Vec<Run>,
    idle: u64,
}

impl Long {
    /// Threads by priority, budget and period.
    fn new(roles: &[(u64, u64, u64)]) -> Self {
        let world = World::new();
        let made: Vec<_> = roles
            .iter()
            .map(|(priority, budget, period)| world.make_thread(*priority, *budget, *period))
            .collect();
        for made in &made {
            world
                .invoke(made.thread, Method::Resume, &[])
                .expect("it is there");
        }
        let idle = world.make(ObjectKind::Notification, 0);
        let sleep = world.make(ObjectKind::Notification, 0);
        let threads = made
            .iter()
            .map(|made| world.thread_at(made.thread))
            .collect();
        assert_eq!(
            world.call(&request(SystemCall::Receive, sleep)),
            After::Waits
        );
        Self {
            world,
            made,
            threads,
            runs: Vec::new(),
            idle,
        }
    }

    /// So many ticks pass, at most; the alarm is so late.
    fn pass(&mut self, ticks: u64, late: u64) {
        let arena = self.world.arena();
        let begin = arena.now();
        let who = self.world.kernel.current();
        let due = arena.alarm.get().max(begin);
        let end = (begin + ticks).min(due.saturating_add(late));
        arena.clock.set(end);
        if due <= end {
            arena.alarm.set(u64::MAX);
            self.world.kernel.tick();
        }
        if let Some(who) = who {
            self.runs.push((who, begin, end));
        }
    }

    /// Whoever runs waits until so many ticks from now on.
    fn sleep(&mut self, ticks: u64) {
        let until = self.world.arena().now() + ticks;
        if self.world.kernel.current().is_some() {
            let wait = request(SystemCall::ReceiveUntil, self.idle);
            self.world.enter(&wait, until, false);
        }
    }

    fn used(&self, who: Ref<Thread>, begin: u64, end: u64) -> u64 {
        let runs = self.runs.iter().filter(|(thread, _, _)| *thread == who);
        runs.map(|(_, from, to)| (*to).min(end).saturating_sub((*from).max(begin)))
            .sum()
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Pass(u64),
    Sleep(u64),
    Yield,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (1..40u64).prop_map(Event::Pass),
        2 => (1..120u64).prop_map(Event::Sleep),
        1 => Just(Event::Yield),
    ];
    prop::collection::vec(event, 50..200)
}

/// In no stretch of one period does a thread use more than its budget, and what the alarm was late, whatever it and others do.
#[test]
fn budgets_are_kept_in_every_period() {
    let roles = [(100, 10, 50), (101, 7, 30), (100, 20, 40), (99, 30, 60)];
    let inputs = (events(), 0..4u64);
    run(200, &inputs, |(events, late)| {
        let mut long = Long::new(&roles);
        for event in events {
            match event {
                Event::Pass(ticks) => long.pass(ticks, late),
                Event::Sleep(ticks) => long.sleep(ticks),
                Event::Yield => {
                    if long.world.kernel.current().is_some() {
                        long.world.enter(&request(SystemCall::Yield, 0), 0, false);
                    }
                }
            }
            long.world.check();
        }
        for (who, (_, budget, period)) in long.threads.iter().zip(roles) {
            // It is late once for each refill at most.
            let refills = mielin_kernel::REFILLS_MAX as u64;
            for (thread, begin, _) in &long.runs {
                if thread == who {
                    let used = long.used(*who, *begin, begin + period);
                    prop_assert!(
                        used <= budget + late * refills,
                        "{who:?} used {used} of {budget} within {period} from {begin} on"
                    );
                }
            }
        }
        Ok(())
    });
}

/// A thread that always would run uses its whole budget in each period, if nobody comes before it.
#[test]
fn who_never_waits_gets_its_whole_budget() {
    let mut long = Long::new(&[(100, 13, 50)]);
    let begin = long.world.arena().now();
    while long.world.arena().now() < begin + 5000 {
        long.pass(7, 0);
        long.world.check();
    }
    let who = long.threads[0];
    let used = long.used(who, begin, begin + 5000);
    assert_eq!(used, 13 * 100);
    let time: Ref<SchedulingContext> = match long.world.capability(long.made[0].context) {
        mielin_kernel::Capability::SchedulingContext { context } => context,
        other => panic!("{other:?} is no time"),
    };
    // What was used since it was charged last is not in it.
    let consumed = long.world.arena().object(time).consumed();
    assert!(consumed <= used && consumed + 13 >= used);
}

/// Its alarm is always a little late, and others ring in between: what it uses too much it pays back, and not more.
#[test]
fn a_late_alarm_costs_no_more_than_it_was_late() {
    for late in 0..4 {
        let mut long = Long::new(&[(101, 400, 1000), (100, 100, 2000), (99, 1000, 0)]);
        let begin = long.world.arena().now();
        while long.world.arena().now() < begin + 100_000 {
            long.pass(10_000, late);
            long.world.check();
        }
        let end = long.world.arena().now();
        let used = long.used(long.threads[0], begin, end);
        let fair = (end - begin) * 400 / 1000;
        assert!(
            used.abs_diff(fair) * 50 <= fair,
            "{late} late: {used}, and {fair} is fair"
        );
    }
}

/// Threads with the same slice get the same, to a slice, whatever pieces time comes in; and nobody of their priority starves,
/// also if others wait and come back.
#[test]
fn equal_threads_get_equal_shares() {
    let pieces = prop::collection::vec(1..40u64, 300..600);
    run(40, &pieces, |pieces| {
        let mut long = Long::new(&[(100, 20, 0), (100, 20, 0), (100, 20, 0)]);
        let begin = long.world.arena().now();
        for piece in pieces {
            long.pass(piece, 0);
        }
        let end = long.world.arena().now();
        let shares: Vec<u64> = long
            .threads
            .iter()
            .map(|t| long.used(*t, begin, end))
            .collect();
        let (least, most) = (shares.iter().min(), shares.iter().max());
        let apart = most.zip(least).map_or(0, |(most, least)| most - least);
        prop_assert!(apart <= 20, "{shares:?}");
        Ok(())
    });
}

#[test]
fn nobody_starves_beside_equals_that_wait_and_come_back() {
    run(100, &events(), |events| {
        let mut long = Long::new(&[(100, 20, 0), (100, 20, 0), (100, 15, 60)]);
        let patient = long.threads[0];
        let mut waits = VecDeque::new();
        for event in events {
            let runs = long.world.kernel.current() == Some(patient);
            match event {
                Event::Pass(ticks) => long.pass(ticks, 0),
                // The first one never waits.
                Event::Sleep(ticks) if !runs => long.sleep(ticks),
                Event::Yield if !runs => {
                    long.world.enter(&request(SystemCall::Yield, 0), 0, false);
                }
                _ => long.pass(1, 0),
            }
            long.world.check();
            let now = long.world.arena().now();
            match long.world.kernel.current() == Some(patient) {
                true => waits.clear(),
                false => waits.push_back(now),
            }
            // Each of the others has its slice once before.
            let waited = waits.front().map_or(0, |since| now - since);
            prop_assert!(waited <= 20 + 15 + 40, "it waits for {waited}");
        }
        Ok(())
    });
}

/// A client pays for the time of a server that has none: the server stops when the client's budget is used up, and goes on with it.
#[test]
fn a_client_pays_for_its_server() {
    let world = World::new();
    let endpoint = world.make(ObjectKind::Endpoint, 0);
    let reply = world.make(ObjectKind::Reply, 0);
    let sleep = world.make(ObjectKind::Notification, 0);
    let server = world.make_thread(255, 1000, 0);
    let client = world.make_thread(100, 20, 100);
    let yields = request(SystemCall::Yield, 0);
    let receive = message(SystemCall::Receive, endpoint, reply, &[]);
    let invoke = |capability, method, words: &[u64]| {
        world
            .invoke(capability, method, words)
            .expect("the first thread may do that");
    };
    invoke(server.thread, Method::Resume, &[]);
    assert_eq!(world.call(&yields), After::Done(Ok(())));
    assert_eq!(world.call(&receive), After::Waits);
    invoke(server.context, Method::BindThread, &[0]);
    invoke(client.thread, Method::Resume, &[]);
    assert_eq!(
        world.call(&request(SystemCall::Receive, sleep)),
        After::Waits
    );
    let (server, client) = (
        world.thread_at(server.thread),
        world.thread_at(client.thread),
    );
    assert_eq!(world.thread(), client);
    world.pass(5);
    let call = message(SystemCall::Call, endpoint, 0, &[]);
    assert_eq!(world.call(&call), After::Waits);
    assert_eq!(world.thread(), server);
    let begin = world.arena().now() - 5;
    assert_eq!(world.pass(100), 15);
    assert_eq!(world.kernel.current(), None);
    world.check();
    assert_eq!(world.pass(1000), 80);
    assert_eq!(world.arena().now(), begin + 100);
    assert_eq!(world.thread(), server);
    world.pass(4);
    let answer = message(SystemCall::ReplyReceive, endpoint, reply, &[]);
    assert_eq!(world.call(&answer), After::Waits);
    assert_eq!(world.thread(), client);
    assert_eq!(world.pass(100), 16);
    assert_eq!(world.kernel.current(), None);
    world.check();
}
