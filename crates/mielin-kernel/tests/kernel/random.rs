//! Random histories of the cast: the invariants after each step, and the fast path against the slow one.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::cast::{Cast, ROLES, Step};
use crate::observe::difference;
use crate::world::World;

/// Runs a property over so many inputs, the same ones every time.
pub(crate) fn run<S: Strategy>(
    cases: u32,
    strategy: &S,
    property: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 4000,
        ..Config::default()
    };
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, random);
    if let Err(failure) = runner.run(strategy, property) {
        panic!("{failure}");
    }
}

fn endpoint() -> impl Strategy<Value = usize> {
    // Mostly such that allow all.
    prop_oneof![6 => Just(0), 4 => Just(1), 3 => Just(4), 1 => 0usize..8]
}

fn ticks() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1..20u64, 1..200u64]
}

fn words() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0..5usize, 1 => 5..130usize]
}

/// A step; messages more often than all else.
pub(crate) fn step() -> impl Strategy<Value = Step> {
    let thread = || 0..ROLES.len();
    let reply = || prop_oneof![8 => 0..4usize, 1 => Just(9)];
    let capabilities = || prop_oneof![5 => Just(0), 1 => 0..4usize];
    let messages = prop_oneof![
        60 => (prop_oneof![Just(0), Just(1), Just(4)], words()).prop_map(|(e, w)| Step::Talk(e, w)),
        20 => (endpoint(), words(), capabilities()).prop_map(|(e, w, c)| Step::Call(e, w, c)),
        10 => (endpoint(), reply(), words()).prop_map(|(e, r, w)| Step::ReplyReceive(e, r, w)),
        4 => (endpoint(), words(), capabilities()).prop_map(|(e, w, c)| Step::Send(e, w, c)),
        4 => (endpoint(), reply()).prop_map(|(e, r)| Step::Receive(e, r)),
        3 => (endpoint(), ticks()).prop_map(|(e, t)| Step::CallUntil(e, t)),
        2 => (endpoint(), ticks()).prop_map(|(e, t)| Step::SendUntil(e, t)),
        2 => (endpoint(), reply(), ticks()).prop_map(|(e, r, t)| Step::ReceiveUntil(e, r, t)),
        2 => (endpoint(), reply(), ticks()).prop_map(|(e, r, t)| Step::ReplyReceiveUntil(e, r, t)),
        4 => (reply(), words()).prop_map(|(r, w)| Step::Reply(r, w)),
    ];
    let others = prop_oneof![
        3 => (0..2usize).prop_map(Step::Signal),
        1 => (0..2usize).prop_map(Step::Wait),
        1 => (0..2usize, ticks()).prop_map(|(n, t)| Step::WaitUntil(n, t)),
        2 => Just(Step::Yield),
        1 => Just(Step::Push),
        1 => Just(Step::Pop),
        1 => thread().prop_map(Step::Suspend),
        2 => thread().prop_map(Step::Resume),
        1 => (thread(), 99..102u64).prop_map(|(t, p)| Step::Priority(t, p)),
        2 => (thread(), thread()).prop_map(|(c, t)| Step::Bind(c, t)),
        1 => thread().prop_map(Step::Unbind),
        1 => (thread(), 1..60u64, prop_oneof![Just(0), 60..200u64])
            .prop_map(|(c, b, p)| Step::Configure(c, b, p)),
        1 => thread().prop_map(Step::Consumed),
        2 => (thread(), 0..3usize).prop_map(|(t, n)| Step::BindNotification(t, n)),
        1 => (0..4usize).prop_map(Step::RenewReply),
        1 => (0..2usize).prop_map(Step::RenewEndpoint),
        1 => (0..2usize).prop_map(Step::RenewNotification),
        1 => thread().prop_map(Step::RenewTime),
        5 => ticks().prop_map(Step::Pass),
        2 => ticks().prop_map(Step::Late),
        2 => Just(Step::Tick),
        2 => Just(Step::Interrupt),
        1 => Just(Step::Fault),
    ];
    prop_oneof![2 => messages, 1 => others]
}

/// Goes through a history twice, once without the fast paths. Gives how many calls were fast, or says what broke.
fn compare(interruptions: u64, steps: &[Step]) -> Result<u64, TestCaseError> {
    let (quick, thorough) = (World::new(), World::new());
    let cast = Cast::new(&quick, &ROLES);
    let other = Cast::new(&thorough, &ROLES);
    quick.arena().interruptions.set(interruptions);
    thorough.arena().interruptions.set(interruptions);
    for step in steps {
        cast.revive(&quick);
        other.revive(&thorough);
        cast.step(&quick, *step, false);
        quick.check();
        other.step(&thorough, *step, true);
        let (a, b) = (quick.observe(), thorough.observe());
        prop_assert!(a == b, "after {step:?}:\n{}", difference(&a, &b));
    }
    Ok(quick.fast.get())
}

#[test]
fn random_histories_keep_the_invariants_and_the_fast_path_ends_where_the_slow_one_does() {
    let histories = (any::<u64>(), prop::collection::vec(step(), 1..80));
    let (fast, all) = (Cell::new(0), Cell::new(0));
    run(1000, &histories, |(interruptions, steps)| {
        let calls = |step: &&Step| {
            matches!(
                step,
                Step::Talk(..) | Step::Call(..) | Step::ReplyReceive(..)
            )
        };
        all.set(all.get() + steps.iter().filter(calls).count() as u64);
        fast.set(fast.get() + compare(interruptions, &steps)?);
        Ok(())
    });
    assert!(
        fast.get() * 8 > all.get(),
        "{} of {} were fast",
        fast.get(),
        all.get()
    );
}

/// Histories that once broke something.
#[test]
fn histories_that_were_mended() {
    let histories: [&[Step]; 2] = [
        // The slow path put the server behind others of its priority, where the fast one has it go on with its client's time.
        &[Step::Talk(0, 0)],
        // A thread that is told that its budget is used up while it gives up its time was told twice, and in two lines.
        &[Step::Late(30), Step::Send(4, 0, 0), Step::Yield],
    ];
    for history in histories {
        compare(0, history).expect("it holds");
    }
}
