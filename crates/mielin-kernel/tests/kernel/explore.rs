//! All histories up to a depth, over small sets of objects and steps. States that were seen are not gone on from again: two with
//! the same text behave the same.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::cast::{Cast, Role, Step};
use crate::observe::difference;
use crate::world::World;

/// What was found: different states, and steps that were tried.
#[derive(Debug, PartialEq, Eq)]
struct Explored {
    states: usize,
    steps: usize,
}

/// Tries each step in each state that can be reached in less than `depth` steps. Each is checked, and if it can be served by a
/// fast path, compared with the slow one.
fn explore(roles: &'static [Role], steps: &[Step], depth: usize) -> Explored {
    let replay = |path: &[Step], slow: bool| {
        let world = World::new();
        let cast = Cast::new(&world, roles);
        path.iter().for_each(|step| {
            cast.step(&world, *step, slow);
        });
        world
    };
    let hash = |text: &str| {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        hasher.finish()
    };
    let mut seen = HashSet::from([hash(&replay(&[], true).observe())]);
    let mut frontier: Vec<Vec<Step>> = vec![Vec::new()];
    let mut tried = 0;
    for _ in 0..depth {
        let mut next = Vec::new();
        for path in &frontier {
            for step in steps {
                let mut path = path.clone();
                path.push(*step);
                tried += 1;
                let world = replay(&path, false);
                let text = world.observe();
                if world.fast.get() > 0 && world.last_was_fast.get() {
                    let slow = replay(&path, true).observe();
                    assert!(text == slow, "{path:?}:\n{}", difference(&text, &slow));
                }
                if seen.insert(hash(&text)) {
                    let checked = std::panic::AssertUnwindSafe(|| world.check());
                    if std::panic::catch_unwind(checked).is_err() {
                        panic!("what broke it: {path:?}");
                    }
                    next.push(path);
                }
            }
        }
        frontier = next;
    }
    Explored {
        states: seen.len(),
        steps: tried,
    }
}

/// Two clients and a server without time, at one endpoint.
const MESSAGES: [Role; 3] = [(100, 50, 0), (100, 0, 0), (100, 40, 0)];

#[test]
fn all_short_histories_of_messages() {
    let steps = [
        Step::Call(0, 2, 0),
        Step::ReplyReceive(0, 1, 1),
        Step::Reply(1, 1),
        Step::Receive(0, 1),
        Step::Send(0, 1, 0),
        Step::CallUntil(0, 7),
        Step::ReceiveUntil(0, 2, 7),
        Step::Pass(7),
        Step::Suspend(0),
        Step::Resume(0),
        Step::RenewReply(1),
        Step::RenewEndpoint(0),
    ];
    let explored = explore(&MESSAGES, &steps, 4);
    assert_eq!(
        explored,
        Explored {
            states: 4508,
            steps: 9144
        }
    );
}

/// Equal clients, one with a budget, and a server without time.
const TIMES: [Role; 4] = [(100, 10, 0), (100, 0, 0), (100, 8, 20), (99, 10, 0)];

#[test]
fn all_short_histories_of_time() {
    let steps = [
        Step::Call(0, 0, 0),
        Step::ReplyReceive(0, 1, 0),
        Step::Yield,
        Step::Pass(6),
        Step::Late(11),
        Step::Tick,
        Step::Configure(2, 4, 12),
        Step::Configure(0, 5, 0),
        Step::Bind(2, 1),
        Step::Unbind(2),
        Step::Priority(3, 101),
        Step::RenewTime(0),
    ];
    let explored = explore(&TIMES, &steps, 4);
    assert_eq!(
        explored,
        Explored {
            states: 5360,
            steps: 9456
        }
    );
}

/// Two clients and two servers, of which one calls the other.
const LENT: [Role; 4] = [(100, 50, 0), (100, 0, 0), (101, 40, 0), (100, 0, 0)];

#[test]
fn all_short_histories_of_lent_time() {
    let steps = [
        Step::Talk(0, 1),
        Step::Call(4, 1, 0),
        Step::Reply(1, 0),
        Step::Reply(3, 0),
        Step::RenewReply(1),
        Step::RenewTime(0),
        Step::Suspend(0),
        Step::Suspend(1),
        Step::Resume(0),
        Step::Fault,
    ];
    let explored = explore(&LENT, &steps, 5);
    assert_eq!(
        explored,
        Explored {
            states: 7319,
            steps: 21150
        }
    );
}

/// One thread waits, others signal.
const SIGNALS: [Role; 3] = [(100, 50, 0), (100, 0, 0), (101, 40, 0)];

#[test]
fn all_short_histories_of_notifications() {
    let steps = [
        Step::Signal(0),
        Step::Signal(1),
        Step::Wait(0),
        Step::WaitUntil(1, 5),
        Step::BindNotification(0, 0),
        Step::BindNotification(2, 9),
        Step::Receive(0, 2),
        Step::Send(0, 0, 0),
        Step::Interrupt,
        Step::Pass(5),
        Step::Push,
        Step::Pop,
        Step::RenewNotification(0),
    ];
    let explored = explore(&SIGNALS, &steps, 4);
    assert_eq!(
        explored,
        Explored {
            states: 3124,
            steps: 9100
        }
    );
}
