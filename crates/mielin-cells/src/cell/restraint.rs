//! Keeping an agent off its thread for a share of its time, while a move lasts that it would otherwise outrun.
//!
//! A restrained agent has short turns, and rests after each in proportion to what it ran. While it rests it waits as for
//! an alarm, so pausing, ending and holding it take effect at once.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Cell, Place};
use crate::lock::lock;

/// How long a restrained agent runs at a time.
pub(crate) const TURN: Duration = Duration::from_millis(1);
/// The longest rest: a turn may have been long because a host call was, or the machine is busy.
const REST_MAX: Duration = Duration::from_millis(20);

/// Part of a [`Cell`].
#[derive(Default)]
pub(crate) struct Restraint {
    /// What is taken of its time.
    percent: AtomicU8,
    rest_until: Mutex<Option<Instant>>,
}

impl Restraint {
    pub(crate) fn is_on(&self) -> bool {
        self.percent.load(Ordering::Acquire) > 0
    }

    /// It ran for so long, and shall rest now.
    pub(super) fn ran(&self, time: Duration) {
        let taken = u32::from(self.percent.load(Ordering::Acquire));
        if taken > 0 {
            let rest = time * taken / 100_u32.saturating_sub(taken).max(1);
            *lock(&self.rest_until) = Some(Instant::now() + rest.min(REST_MAX));
        }
    }

    /// When it may run again, if not now.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        let until = *lock(&self.rest_until);
        until.filter(|until| self.is_on() && *until > Instant::now())
    }
}

/// An agent that has less than all of its time until this is dropped.
pub(crate) struct Restrained {
    cell: Arc<Cell>,
}

impl Restrained {
    /// Takes so much of its time.
    pub(crate) fn by(&self, percent: u8) {
        let restraint = &self.cell.restraint;
        restraint.percent.store(percent.min(99), Ordering::Release);
        // A turn that is under way may be of any length.
        self.cell.scheduler.want_stop(&self.cell);
    }
}

impl Drop for Restrained {
    fn drop(&mut self) {
        self.cell.restraint.percent.store(0, Ordering::Release);
        let turn = lock(&self.cell.turn);
        if turn.place == Place::Waiting && turn.wait.is_none() {
            self.cell.settle(turn);
        }
    }
}

impl Cell {
    /// Takes a share of the agent's time, in percent, until the result is dropped. Whoever does it has claimed the agent.
    pub(crate) fn restrain(self: &Arc<Self>, percent: u8) -> Restrained {
        let restrained = Restrained {
            cell: Arc::clone(self),
        };
        restrained.by(percent);
        restrained
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::tests::{agent_of, place, prepared, scheduler, until};
    use super::*;
    use crate::scheduler::Scheduler;

    /// An agent that runs for ever, and the scheduler that runs it.
    fn spinning() -> (Arc<Cell>, Scheduler) {
        let text = r#"(module (memory (export "memory") 1) (func (export "_start") (loop $again (br $again))))"#;
        let scheduler = scheduler(16);
        (agent_of(prepared(text), &scheduler), scheduler)
    }

    #[test]
    fn it_rests_in_proportion_to_what_it_ran() {
        let restraint = Restraint::default();
        restraint.ran(Duration::from_secs(1));
        assert_eq!(restraint.rests_until(), None);
        let ms = Duration::from_millis;
        for (percent, ran, rests) in [
            (50, 5, 5),
            (75, 1, 3),
            (90, 1, 9),
            (90, 1000, 20),
            (255, 0, 0),
        ] {
            let before = Instant::now();
            restraint.percent.store(percent, Ordering::Release);
            restraint.ran(ms(ran));
            let until = lock(&restraint.rest_until).unwrap();
            assert!(until >= before + ms(rests), "{percent} of {ran}");
            assert!(until <= Instant::now() + ms(rests), "{percent} of {ran}");
        }
        restraint.percent.store(90, Ordering::Release);
        restraint.ran(ms(1000));
        restraint.percent.store(0, Ordering::Release);
        assert_eq!(restraint.rests_until(), None);
    }

    #[tokio::test]
    async fn a_restrained_agent_runs_and_rests_in_turn_until_it_is_let_go() {
        let (cell, scheduler) = spinning();
        until("it does not run", || place(&cell) == Place::Running);
        let turns = || cell.tally.turns.load(Ordering::Relaxed);
        assert_eq!(turns(), 0);
        let restrained = cell.restrain(50);
        until("its turns are not short", || turns() > 20);
        until("it does not rest", || place(&cell) == Place::Waiting);
        restrained.by(99);
        until("it does not rest for long", || {
            let rest = cell.restraint.rests_until();
            rest.is_some_and(|until| until > Instant::now() + Duration::from_millis(5))
        });
        // Whoever wants it does not wait for its rest to end.
        let held = cell.hold_live().await.unwrap();
        assert_eq!(place(&cell), Place::Held);
        drop(held);
        until("it does not rest again", || place(&cell) == Place::Waiting);
        drop(restrained);
        until("it is not let go", || place(&cell) == Place::Running);
        assert!(!cell.restraint.is_on());
        cell.kill().unwrap();
        until("it does not end", || place(&cell) == Place::Ended);
        scheduler.close();
    }

    #[tokio::test]
    async fn a_resting_agent_can_be_paused_and_ended() {
        let (cell, scheduler) = spinning();
        let restrained = cell.restrain(99);
        until("it does not rest", || place(&cell) == Place::Waiting);
        cell.pause().unwrap();
        until("it is not paused", || place(&cell) == Place::Paused);
        cell.unpause().unwrap();
        until("it does not rest", || place(&cell) == Place::Waiting);
        cell.kill().unwrap();
        until("it does not end", || place(&cell) == Place::Ended);
        drop(restrained);
        assert_eq!(place(&cell), Place::Ended);
        scheduler.close();
    }
}
