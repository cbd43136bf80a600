//! Who runs, and for how long.

use mielin_user::objects::{Endpoint, Message, Notification, give_way};
use mielin_user::{Cap, Error, FaultKind, ThreadSlot};

use crate::Test;
use crate::processor;
use crate::room::{
    ABOVE, BELOW, Outcome, Place, Room, Worker, count, ensure, rest, same, share, shared,
};

pub(crate) const TESTS: &[Test] = &[
    ("time::highest_priority_first", highest_first),
    ("time::equal_shares", equal_shares),
    ("time::endless_loops_are_preempted", endless_loops),
    ("time::giving_way", giving_way),
    ("time::budgets", budgets),
    ("time::budgets_of_two", budgets_of_two),
    ("time::budgets_of_sleepers", budgets_of_sleepers),
    ("time::yield_with_a_budget", yield_with_a_budget),
    ("time::budget_faults", budget_faults),
    ("time::yield_and_budget_faults", yield_and_budget_faults),
    ("time::consumed", consumed),
    ("time::new_budgets", new_budgets),
    ("time::alarms_in_order", alarms_in_order),
    ("time::floats_are_kept_here", |room| {
        floats_are_kept(room, Place::Here)
    }),
    ("time::floats_are_kept_apart", |room| {
        floats_are_kept(room, Place::Apart)
    }),
    ("time::registers_are_kept", registers_are_kept),
];

extern "C" fn note_order(number: u64, _: u64) -> ! {
    count(0);
    share(10 + number as usize, shared(0));
    rest()
}

fn highest_first(room: &mut Room) -> Outcome {
    let order = [17, 3, 99, 64, 2, 63, 65, 128, 127, 199];
    for (number, priority) in (0..).zip(order) {
        room.working(Place::Here, note_order, number, priority, &[])?;
    }
    room.settle()?;
    let mut sorted = order;
    sorted.sort_unstable();
    for (number, priority) in order.iter().enumerate() {
        let rank = sorted.iter().rev().position(|one| one == priority);
        same!(
            shared(10 + number),
            1 + rank.unwrap_or(99) as u64,
            "priority {priority}"
        );
    }
    // One that comes before the test runs at once.
    room.working(Place::Here, note_order, 20, ABOVE, &[])?;
    same!(shared(30), 11);
    // So does one whose priority is raised, and one that is equal waits for its turn.
    let worker = room.working(Place::Here, note_order, 21, BELOW, &[])?;
    same!(shared(31), 0);
    worker
        .thread
        .set_priority(ABOVE, room.information.scheduling(), false)?;
    same!(shared(31), 12);
    Ok(())
}

extern "C" fn spin(number: u64, _: u64) -> ! {
    loop {
        count(10 + number as usize);
    }
}

fn equal_shares(room: &mut Room) -> Outcome {
    const THREADS: usize = 5;
    let mut workers: [Option<Worker>; THREADS] = [const { None }; THREADS];
    for (number, worker) in (0..).zip(&mut workers) {
        *worker = Some(room.worker(Place::Here, spin, number, BELOW, &[])?);
    }
    for worker in workers.iter().flatten() {
        worker.start()?;
    }
    room.pause(300)?;
    let mut times = [0; THREADS];
    for (time, worker) in times.iter_mut().zip(workers.iter().flatten()) {
        *time = worker.context.consumed()?;
        worker.thread.suspend()?;
    }
    let counts: [u64; THREADS] = core::array::from_fn(|number| shared(10 + number));
    for shares in [times, counts] {
        let mean = shares.iter().sum::<u64>() / THREADS as u64;
        for share in shares {
            ensure!(
                share.abs_diff(mean) * 10 <= mean,
                "shares of {shares:?}: {mean} is fair"
            );
        }
    }
    Ok(())
}

fn endless_loops(room: &mut Room) -> Outcome {
    let worker = room.working(Place::Here, spin, 0, BELOW, &[])?;
    let mut before = 0;
    for _ in 0..20 {
        room.pause(2)?;
        let after = shared(10);
        ensure!(after > before, "the loop does not go on");
        before = after;
    }
    // The loop comes first now, and is stopped by what comes before it.
    extern "C" fn stop_later(milliseconds: u64, _: u64) -> ! {
        let (never, thread) = (Notification(Cap(1)), mielin_user::objects::Thread(Cap(2)));
        let later = mielin_user::system_call::now() + milliseconds;
        let _ = never.wait_until(later);
        let _ = thread.suspend();
        count(1);
        rest()
    }
    let later = room.milliseconds(10);
    let given = [room.never().0, worker.thread.0];
    room.working(Place::Here, stop_later, later, ABOVE, &given)?;
    let begin = room.now();
    worker
        .thread
        .set_priority(ABOVE - 1, room.information.scheduling(), false)?;
    same!(shared(1), 1);
    ensure!(
        room.now() - begin >= later / 2,
        "the loop did not run before the test"
    );
    Ok(())
}

fn giving_way(room: &mut Room) -> Outcome {
    extern "C" fn take_turns(number: u64, _: u64) -> ! {
        for _ in 0..100 {
            if shared(0) % 3 != number {
                share(1, 1);
            }
            count(0);
            give_way();
        }
        rest()
    }
    for number in 0..3 {
        let worker = room.worker(Place::Here, take_turns, number, BELOW, &[])?;
        // Longer than all of them need, so that none loses its turn.
        let slice = room.milliseconds(5000);
        room.information
            .scheduling()
            .configure(worker.context, slice, 0)?;
        worker.start()?;
    }
    room.settle()?;
    same!((shared(0), shared(1)), (300, 0));
    // Nobody else: it comes back at once.
    give_way();
    Ok(())
}

/// Starts a thread that spins with a budget.
fn spinner(
    room: &mut Room,
    number: u64,
    priority: u8,
    [budget, period]: [u64; 2],
) -> Result<Worker, crate::room::Failure> {
    let worker = room.worker(Place::Here, spin, number, priority, &[])?;
    room.information
        .scheduling()
        .configure(worker.context, budget, period)?;
    worker.start()?;
    Ok(worker)
}

/// Whether `used` is `budget` of each `period` of `passed`, to five percent.
fn keeps(used: u64, [budget, period]: [u64; 2], passed: u64) -> bool {
    let fair = passed * budget / period;
    used.abs_diff(fair) * 20 <= fair
}

fn budgets(room: &mut Room) -> Outcome {
    for parts in [10, 2] {
        let period = room.milliseconds(10);
        let budget = [period / parts, period];
        let begin = room.now();
        let worker = spinner(room, 0, BELOW, budget)?;
        room.pause(40 * 10)?;
        let passed = room.now() - begin;
        let used = worker.context.consumed()?;
        worker.thread.suspend()?;
        ensure!(
            keeps(used, budget, passed),
            "{used} of {passed} ticks, with {} in {period}",
            period / parts
        );
    }
    Ok(())
}

fn budgets_of_two(room: &mut Room) -> Outcome {
    let period = room.milliseconds(10);
    let (a, b) = ([period / 10, period], [period / 5, period / 2]);
    let begin = room.now();
    let first = spinner(room, 0, BELOW + 1, a)?;
    let second = spinner(room, 1, BELOW + 2, b)?;
    let rest = room.working(Place::Here, spin, 2, BELOW, &[])?;
    room.pause(40 * 10)?;
    let passed = room.now() - begin;
    let used = first.context.consumed()?;
    ensure!(keeps(used, a, passed), "the first: {used} of {passed}");
    let used = second.context.consumed()?;
    ensure!(keeps(used, b, passed), "the second: {used} of {passed}");
    // What they do not use is for whoever has no limit.
    let used = rest.context.consumed()?;
    ensure!(
        keeps(used, [period / 2, period], passed),
        "the rest: {used} of {passed}"
    );
    Ok(())
}

/// A thread that sleeps often has no more than its budget either.
fn budgets_of_sleepers(room: &mut Room) -> Outcome {
    extern "C" fn doze(stretch: u64, _: u64) -> ! {
        let never = Notification(Cap(1));
        loop {
            let until = mielin_user::system_call::now() + stretch;
            while mielin_user::system_call::now() < until {}
            let _ = never.wait_until(mielin_user::system_call::now() + stretch / 2);
        }
    }
    let period = room.milliseconds(10);
    let budget = [period / 5, period];
    let stretch = period / 37;
    let never = room.never().0;
    let worker = room.worker(Place::Here, doze, stretch, BELOW, &[never])?;
    let control = room.information.scheduling();
    control.configure(worker.context, budget[0], budget[1])?;
    let begin = room.now();
    worker.start()?;
    room.pause(400)?;
    let (passed, used) = (room.now() - begin, worker.context.consumed()?);
    let most = passed * budget[0] / budget[1] + budget[0];
    ensure!(
        used <= most + most / 20,
        "{used} of {passed} ticks: at most {most}"
    );
    ensure!(
        used * 2 >= most,
        "{used} of {passed} ticks only: up to {most}"
    );
    Ok(())
}

/// Whoever gives way with a budget comes back when it is filled.
fn yield_with_a_budget(room: &mut Room) -> Outcome {
    extern "C" fn give_up(_: u64, _: u64) -> ! {
        loop {
            count(10);
            give_way();
        }
    }
    let worker = room.worker(Place::Here, give_up, 0, BELOW, &[])?;
    let period = room.milliseconds(5);
    let control = room.information.scheduling();
    control.configure(worker.context, period / 5, period)?;
    let begin = room.now();
    worker.start()?;
    room.pause(200)?;
    let rounds = (room.now() - begin) / period;
    let counted = shared(10);
    ensure!(
        counted.abs_diff(rounds) <= 2 + rounds / 20,
        "{counted} times in {rounds} periods"
    );
    let used = worker.context.consumed()?;
    ensure!(used < rounds * period / 20, "{used} ticks for giving way");
    Ok(())
}

fn budget_faults(room: &mut Room) -> Outcome {
    let (endpoint, reply) = (room.endpoint()?, room.reply()?);
    let worker = room.worker(Place::Here, spin, 0, BELOW, &[])?;
    room.watch(worker.thread, ThreadSlot::TimeoutEndpoint, endpoint, 0xbb)?;
    let period = room.milliseconds(10);
    let control = room.information.scheduling();
    control.configure(worker.context, period / 10, period)?;
    worker.start()?;
    let mut last = 0;
    for round in 0..20 {
        let got = endpoint.receive_until(Some(reply), room.soon(1000))?;
        same!((got.badge, got.words[0]), (0xbb, FaultKind::Budget as u64));
        let counted = shared(10);
        ensure!(counted > last, "round {round}: it did not run");
        last = counted;
        match round % 2 {
            0 => reply.send(&Message::new(0, []))?,
            _ => {
                // More time, at once.
                control.configure(worker.context, period / 10, period)?;
                reply.send(&Message::new(0, []))?;
            }
        }
    }
    // Nobody answers: it stands still.
    endpoint.receive_until(Some(reply), room.soon(1000))?;
    let counted = shared(10);
    room.pause(30)?;
    same!(shared(10), counted);
    Ok(())
}

/// At whatever moment a thread gives way around the end of its budget, somebody is told once.
fn yield_and_budget_faults(room: &mut Room) -> Outcome {
    extern "C" fn give_up(ticks: u64, _: u64) -> ! {
        for number in 0.. {
            // From well before the end of the budget to behind it.
            let until = mielin_user::system_call::now() + ticks - number % 128;
            while mielin_user::system_call::now() < until {}
            count(10);
            give_way();
        }
        rest()
    }
    let (endpoint, reply) = (room.endpoint()?, room.reply()?);
    let period = room.milliseconds(2);
    let budget = period / 10;
    // The moments lie around the end of the budget.
    let worker = room.worker(Place::Here, give_up, budget, BELOW, &[])?;
    room.watch(worker.thread, ThreadSlot::TimeoutEndpoint, endpoint, 1)?;
    let control = room.information.scheduling();
    control.configure(worker.context, budget, period)?;
    worker.start()?;
    let end = room.soon(300);
    let mut faults = 0;
    while room.now() < end {
        match endpoint.receive_until(Some(reply), room.soon(10)) {
            Ok(_) => {
                faults += 1;
                reply.send(&Message::new(0, []))?;
            }
            Err(Error::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
    }
    ensure!(
        shared(10) > 20,
        "it went on {} times, with {faults} faults",
        shared(10)
    );
    worker.thread.suspend()?;
    same!(endpoint.receive_until(Some(reply), 0), Err(Error::TimedOut));
    Ok(())
}

fn consumed(room: &mut Room) -> Outcome {
    let time = room.information.time();
    time.consumed()?;
    let begin = room.now();
    while room.now() < begin + room.milliseconds(20) {}
    let (used, passed) = (time.consumed()?, room.now() - begin);
    ensure!(
        used.abs_diff(passed) * 20 <= passed,
        "{used} of {passed} ticks"
    );
    // Sleep costs nothing.
    room.pause(20)?;
    let used = time.consumed()?;
    ensure!(used < room.milliseconds(10), "{used} ticks asleep");
    let idle = room.supplies.context()?;
    same!(idle.consumed()?, 0);
    Ok(())
}

/// Budgets change while their thread runs, waits for time, or sleeps.
fn new_budgets(room: &mut Room) -> Outcome {
    let period = room.milliseconds(1000);
    let control = room.information.scheduling();
    let worker = spinner(room, 0, BELOW, [room.milliseconds(1), period])?;
    room.pause(10)?;
    let before = shared(10);
    ensure!(before > 0, "it did not run");
    room.pause(10)?;
    same!(shared(10), before, "its budget is used up");
    control.configure(worker.context, period / 2, period)?;
    room.pause(10)?;
    let after = shared(10);
    ensure!(after > before, "it has time again");
    control.configure(worker.context, room.milliseconds(1), 0)?;
    room.pause(10)?;
    ensure!(shared(10) > after, "a slice has no end");
    worker.context.bind(None)?;
    let before = shared(10);
    room.pause(5)?;
    same!(shared(10), before, "it runs without time");
    worker.context.bind(Some(worker.thread))?;
    room.pause(5)?;
    ensure!(shared(10) > before, "it has time again");
    Ok(())
}

fn alarms_in_order(room: &mut Room) -> Outcome {
    extern "C" fn sleep(number: u64, _: u64) -> ! {
        let begin = shared(1);
        // 0 to 29, in no order.
        let place = number * 17 % 30;
        let deadline = begin + place * shared(2);
        let _ = Notification(Cap(1)).wait_until(deadline);
        if mielin_user::system_call::now() < deadline {
            share(3, 1);
        }
        count(0);
        if shared(0) != place + 1 {
            share(4, 1 + number);
        }
        rest()
    }
    share(1, room.soon(40));
    share(2, room.milliseconds(2));
    let never = room.never().0;
    for number in 0..30 {
        room.working(Place::Here, sleep, number, BELOW, &[never])?;
    }
    room.pause(200)?;
    same!(shared(0), 30);
    same!((shared(3), shared(4)), (0, 0), "too early, or out of order");
    Ok(())
}

extern "C" fn keep_floats(seed: u64, _: u64) -> ! {
    for round in 0..2000 {
        if !processor::floats_survive(seed + round) {
            let _ = Endpoint(Cap(1)).send(&Message::new(0, [1 + round]));
            rest()
        }
    }
    let _ = Endpoint(Cap(1)).send(&Message::new(0, [0]));
    rest()
}

fn floats_are_kept(room: &mut Room, place: Place) -> Outcome {
    let control = room.information.scheduling();
    let endpoint = room.endpoint()?;
    for seed in 1..=4 {
        let seed = seed * 0x0123_4567_89ab;
        let worker = room.worker(place, keep_floats, seed, BELOW, &[endpoint.0])?;
        worker.thread.set_priority(BELOW, control, true)?;
        // Short slices: they lose the processor at other moments, too.
        let slice = room.milliseconds(1) / 4;
        control.configure(worker.context, slice, 0)?;
        worker.start()?;
    }
    // And one that has no such registers.
    let spins = room.working(Place::Here, spin, 0, BELOW, &[])?;
    for _ in 0..4 {
        let got = endpoint.receive_until(None, room.soon(60_000))?;
        same!(got.words[0], 0, "the round in which registers were lost");
    }
    ensure!(shared(10) > 0, "the others did not run");
    spins.thread.suspend()?;
    Ok(())
}

/// Registers that nobody's call changes are the same after a thread was interrupted.
fn registers_are_kept(room: &mut Room) -> Outcome {
    extern "C" fn compute(seed: u64, _: u64) -> ! {
        // The same sum twice, with other threads in between.
        let sum = |seed: u64| {
            let mut words = [seed; 12];
            for round in 0..20_000_u64 {
                for index in 0..words.len() {
                    let next = words[(index + 1) % 12];
                    words[index] = words[index].rotate_left(7) ^ next.wrapping_add(round);
                }
            }
            words.iter().fold(0, |sum: u64, word| sum ^ word)
        };
        let first = core::hint::black_box(sum(core::hint::black_box(seed)));
        let second = core::hint::black_box(sum(core::hint::black_box(seed)));
        if first != second {
            share(1, 1 + seed);
        }
        count(0);
        rest()
    }
    let control = room.information.scheduling();
    for seed in 0..6 {
        let worker = room.worker(Place::Here, compute, seed, BELOW, &[])?;
        control.configure(worker.context, room.milliseconds(1) / 8, 0)?;
        worker.start()?;
    }
    room.settle()?;
    same!((shared(0), shared(1)), (6, 0));
    Ok(())
}
