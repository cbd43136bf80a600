//! The threads that run agents: one queue, a clock for deadlines, and time slices that bite only under contention.
//!
//! A turn runs until the program leaves by itself. The clock asks it to stop when it has had its slice *and*
//! another agent waits, so that a lonely endless loop is never unwound for nothing; and when it has used up its budget of
//! time on a processor, whether or not another one waits.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mielin_wasm::ThreadClock;

use crate::cell::{Cell, restraint};
use crate::live::Live;
use crate::lock::lock;

/// How long the clock waits before it repeats a stop request that has not been obeyed.
///
/// A request that lands between two runs may be lost; a program that is inside a long host call obeys late.
const REPEAT: Duration = Duration::from_millis(2);

/// How close the clock looks at what an agent has left of its budget: it may use so much more.
const CLOSE: Duration = Duration::from_millis(1);

/// The run queue, its threads and the clock. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Scheduler {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Wakes workers: the queue has an agent, or the scheduler closes.
    work: Condvar,
    /// Wakes the clock: a deadline, contention or a wanted stop appeared.
    clock: Condvar,
    slice: Duration,
    live: Live,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Arc<Cell>>,
    /// Per worker, the turn it is in.
    turns: Vec<Option<Running>>,
    alarms: BinaryHeap<Reverse<Alarm>>,
    closed: bool,
}

struct Running {
    cell: Arc<Cell>,
    stop_at: Instant,
    /// When to look at its budget, if it has one for time on a processor.
    look_at: Option<Instant>,
    /// Somebody wants the agent off its thread, whether or not others wait.
    wanted: bool,
}

struct Alarm {
    at: Instant,
    cell: Weak<Cell>,
}

impl PartialEq for Alarm {
    fn eq(&self, other: &Alarm) -> bool {
        self.at == other.at
    }
}
impl Eq for Alarm {}
impl PartialOrd for Alarm {
    fn partial_cmp(&self, other: &Alarm) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Alarm {
    fn cmp(&self, other: &Alarm) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl Scheduler {
    /// Starts `workers` threads and the clock. Beyond `live_max`, agents that do not run have no instance.
    pub(crate) fn start(
        workers: usize,
        slice: Duration,
        stack_bytes: usize,
        live_max: usize,
    ) -> io::Result<Scheduler> {
        let workers = workers.max(1);
        let state = State {
            turns: (0..workers).map(|_| None).collect(),
            ..State::default()
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            work: Condvar::new(),
            clock: Condvar::new(),
            slice,
            live: Live::new(live_max),
            threads: Mutex::default(),
        });
        let scheduler = Scheduler {
            shared: Arc::clone(&shared),
        };
        for index in 0..workers {
            let shared = Arc::clone(&shared);
            let name = format!("cells-{index}");
            let thread = thread::Builder::new()
                .name(name)
                .stack_size(stack_bytes)
                .spawn(move || shared.work(index))?;
            lock(&scheduler.shared.threads).push(thread);
        }
        let thread = thread::Builder::new()
            .name("cells-clock".to_owned())
            .spawn(move || shared.keep_time())?;
        lock(&scheduler.shared.threads).push(thread);
        Ok(scheduler)
    }

    /// The agents that have an instance although they do not run.
    pub(crate) fn live(&self) -> &Live {
        &self.shared.live
    }

    /// Appends an agent to the queue. The caller has put it in the place `Queued`.
    pub(crate) fn push(&self, cell: Arc<Cell>) {
        let mut state = lock(&self.shared.state);
        state.queue.push_back(cell);
        let contended = state.turns.iter().all(Option::is_some);
        drop(state);
        self.shared.work.notify_one();
        if contended {
            self.shared.clock.notify_one();
        }
    }

    /// Calls `cell.deadline_passed()` at `at`.
    pub(crate) fn arm(&self, at: Instant, cell: Weak<Cell>) {
        lock(&self.shared.state)
            .alarms
            .push(Reverse(Alarm { at, cell }));
        self.shared.clock.notify_one();
    }

    /// Asks the agent's present turn to end, and keeps asking until it does.
    pub(crate) fn want_stop(&self, cell: &Cell) {
        let mut state = lock(&self.shared.state);
        for running in state.turns.iter_mut().flatten() {
            if std::ptr::eq(Arc::as_ptr(&running.cell), cell) {
                running.wanted = true;
                running.stop_at = Instant::now() + REPEAT;
            }
        }
        drop(state);
        cell.request_stop();
        self.shared.clock.notify_one();
    }

    /// Has the agent's slice begin now, unless somebody wants it off its thread.
    pub(crate) fn begin_slice(&self, cell: &Cell) {
        let mut state = lock(&self.shared.state);
        for running in state.turns.iter_mut().flatten() {
            if std::ptr::eq(Arc::as_ptr(&running.cell), cell) && !running.wanted {
                running.stop_at = Instant::now() + self.shared.slice;
            }
        }
    }

    /// Ends all turns and joins the threads; blocks until they are gone.
    pub(crate) fn close(&self) {
        lock(&self.shared.state).closed = true;
        self.shared.work.notify_all();
        self.shared.clock.notify_all();
        let threads = std::mem::take(&mut *lock(&self.shared.threads));
        for thread in threads {
            if thread.thread().id() != thread::current().id() && thread.join().is_err() {
                tracing::error!("a scheduler thread panicked");
            }
        }
    }
}

impl Shared {
    fn work(&self, index: usize) {
        let clock = ThreadClock::of_this_thread();
        if clock.is_none() {
            tracing::warn!(
                "this machine does not count the time of threads: budgets for it have no effect"
            );
        }
        loop {
            let Some(cell) = self.next(index) else { return };
            cell.take_turn(clock);
            lock(&self.state).turns[index] = None;
            self.live.trim();
        }
    }

    /// The next agent, entered as running on worker `index`; `None` when the scheduler closes.
    fn next(&self, index: usize) -> Option<Arc<Cell>> {
        let mut state = lock(&self.state);
        loop {
            if state.closed {
                return None;
            }
            if let Some(cell) = state.queue.pop_front() {
                let now = Instant::now();
                let left = cell.tally.cpu_left();
                let restrained = cell.restraint.is_on();
                let slice = if restrained {
                    restraint::TURN
                } else {
                    self.slice
                };
                state.turns[index] = Some(Running {
                    cell: Arc::clone(&cell),
                    stop_at: now + slice,
                    look_at: left.map(|left| now + left.max(CLOSE)),
                    wanted: restrained,
                });
                if restrained || left.is_some() || !state.queue.is_empty() {
                    self.clock.notify_one();
                }
                return Some(cell);
            }
            state = self
                .work
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn keep_time(&self) {
        let mut state = lock(&self.state);
        loop {
            let now = Instant::now();
            let due = due_alarms(&mut state, now);
            if !due.is_empty() {
                // Waking an agent takes its own lock and then this one.
                drop(state);
                for alarm in due {
                    if let Some(cell) = alarm.cell.upgrade() {
                        cell.deadline_passed();
                    }
                }
                state = lock(&self.state);
                continue;
            }
            let crowded = !state.queue.is_empty() || state.closed;
            let mut next = state.alarms.peek().map(|Reverse(alarm)| alarm.at);
            if state.closed {
                // Whoever has the last turn says nothing when it ends.
                next = next.into_iter().chain([now + REPEAT]).min();
            }
            for running in state.turns.iter_mut().flatten() {
                let at = running.look(crowded, now);
                next = next.into_iter().chain(at).min();
            }
            if state.closed && state.turns.iter().all(Option::is_none) {
                return;
            }
            state = match next {
                Some(at) => {
                    let pause = at.saturating_duration_since(now);
                    self.clock
                        .wait_timeout(state, pause)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                None => self
                    .clock
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl Running {
    /// Asks the agent to stop if it is time for that; gives when to look again, if ever.
    fn look(&mut self, crowded: bool, now: Instant) -> Option<Instant> {
        let has_slice = crowded || self.wanted;
        if has_slice && self.stop_at <= now {
            self.cell.request_stop();
            self.stop_at = now + REPEAT;
        }
        if self.look_at.is_some_and(|at| at <= now) {
            let left = self.cell.tally.cpu_left();
            // A thread on which it waits for a processor uses less than the time that passes.
            self.look_at = left.map(|left| now + left.max(CLOSE));
            if left == Some(Duration::ZERO) {
                self.cell.request_stop();
                self.look_at = Some(now + REPEAT);
            }
        }
        let stop_at = has_slice.then_some(self.stop_at);
        stop_at.into_iter().chain(self.look_at).min()
    }
}

fn due_alarms(state: &mut State, now: Instant) -> Vec<Alarm> {
    let mut due = Vec::new();
    while state
        .alarms
        .peek()
        .is_some_and(|Reverse(alarm)| alarm.at <= now)
    {
        due.extend(state.alarms.pop().map(|Reverse(alarm)| alarm));
    }
    due
}
