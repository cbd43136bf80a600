//! A copy of this node's data directory that runs too.
//!
//! Two processes with one key are one node to the mesh, and each begins life after life to outlive the other. Members tell
//! of the other one's life, and where it listens; a handshake there proves that it is another process with this node's key
//! (`mielin_mesh_wire`), which neither a lying member nor an earlier run of this node can pass for. Then the one that was
//! started later gives way: it keeps out of the mesh until the other one is gone.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::state::Shared;

/// Between two attempts to find the other process where members say that it is.
const LOOK_PERIOD: Duration = Duration::from_secs(2);
/// Between two looks of who gives way, and how many in vain end that.
const WATCH_PERIOD: Duration = Duration::from_secs(5);
const WATCH_MISSES_MAX: u32 = 2;
/// What is not proved anew for so long is over.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// So many lives told of in so short a time are no news of an earlier run.
const SUSPICIOUS_LIVES: usize = 6;
const SUSPICIOUS_WITHIN: Duration = Duration::from_secs(60);
/// Between two lines of the log about the same.
const LOG_PERIOD: Duration = Duration::from_secs(600);

const ADVICE: &str = "two processes run with one data directory or copies of it. Stop one of them, and give each node a \
                      directory of its own and join it with `mielin mesh join`";

/// Another process that runs as this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunningCopy {
    /// Where it listens, as far as is known.
    pub address: SocketAddr,
    /// Whether it has proved to hold this node's key. Else members tell again and again of another life of this node,
    /// and nobody proves anything where they say that it is: it cannot be reached from here, or they lie.
    pub proved: bool,
    /// Whether this process gives way to it, because it was started later.
    pub gives_way: bool,
}

#[derive(Default)]
pub(crate) struct Copied {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    found: Option<(RunningCopy, Instant)>,
    looked: Option<Instant>,
    /// When members told of other lives lately.
    told: VecDeque<Instant>,
    logged: Option<Instant>,
    back_logged: Option<Instant>,
}

impl State {
    fn current(&self, now: Instant) -> Option<RunningCopy> {
        let (copy, last) = self.found?;
        (copy.gives_way || now.duration_since(last) < FORGOTTEN_AFTER).then_some(copy)
    }

    /// Notes what was found; says whether it is to be logged.
    fn note(&mut self, now: Instant, copy: RunningCopy) -> bool {
        let before = self.current(now);
        self.found = Some((copy, now));
        let news = before.is_none_or(|before| {
            (before.proved, before.gives_way) != (copy.proved, copy.gives_way)
        });
        is_due(&mut self.logged, now, LOG_PERIOD, news)
    }

    /// A member tells of another life; gives what is to be logged of it.
    fn told(&mut self, now: Instant, address: SocketAddr) -> Option<RunningCopy> {
        let old = |at: &Instant| now.duration_since(*at) >= SUSPICIOUS_WITHIN;
        while self.told.front().is_some_and(old) {
            self.told.pop_front();
        }
        self.told.push_back(now);
        if self.told.len() > SUSPICIOUS_LIVES {
            self.told.pop_front();
        }
        let proved = self.current(now).is_some_and(|copy| copy.proved);
        if proved || self.told.len() < SUSPICIOUS_LIVES {
            return None;
        }
        let suspected = RunningCopy {
            address,
            proved: false,
            gives_way: false,
        };
        self.note(now, suspected).then_some(suspected)
    }
}

/// Whether something is to be done again; notes that it is.
fn is_due(last: &mut Option<Instant>, now: Instant, period: Duration, anyway: bool) -> bool {
    let due = anyway || last.is_none_or(|last| now.duration_since(last) >= period);
    if due {
        *last = Some(now);
    }
    due
}

impl Copied {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn current(&self) -> Option<RunningCopy> {
        self.lock().current(Instant::now())
    }

    /// Whether the log is to say once more that the members had given this node up.
    pub(crate) fn may_log_return(&self) -> bool {
        is_due(
            &mut self.lock().back_logged,
            Instant::now(),
            SUSPICIOUS_WITHIN,
            false,
        )
    }
}

/// A member tells of another life of this node. Looks who is there.
pub(crate) fn other_life(shared: &Arc<Shared>, address: SocketAddr) {
    let now = Instant::now();
    let (suspected, look) = {
        let mut state = shared.copied.lock();
        let suspected = state.told(now, address);
        (
            suspected,
            is_due(&mut state.looked, now, LOOK_PERIOD, false),
        )
    };
    if suspected.is_some() {
        tracing::error!(
            %address,
            "members tell again and again of another life of this node, and it cannot be found there: a member lies, or {ADVICE}"
        );
    }
    if look {
        let looking = Arc::clone(shared);
        shared.spawn(async move {
            looking.endpoint.finds_copy(address).await;
        });
    }
}

/// Another process has proved to hold this node's key. It was started before this one if it is the elder.
pub(crate) fn found(shared: &Arc<Shared>, address: SocketAddr, elder: bool) {
    let copy = RunningCopy {
        address,
        proved: true,
        gives_way: elder,
    };
    let (log, gave_way) = {
        let mut state = shared.copied.lock();
        let gave_way = state.current(Instant::now()).is_some_and(|c| c.gives_way);
        if gave_way && !elder {
            // A third one, which gives way itself.
            return;
        }
        (state.note(Instant::now(), copy), gave_way)
    };
    if log && elder {
        tracing::error!(%address, "this node runs elsewhere already, and gives way: {ADVICE}");
    } else if log {
        tracing::error!(%address, "this node runs a second time: {ADVICE}");
    }
    if elder && !gave_way {
        give_way(shared, true);
        shared.spawn(watch(Arc::clone(shared)));
    }
}

fn give_way(shared: &Arc<Shared>, gives_way: bool) {
    shared.with_cores(|cores, now| cores.membership.give_way(now, gives_way));
    shared.endpoint.give_way(gives_way);
}

/// Waits until the process to which this one gives way is gone.
async fn watch(shared: Arc<Shared>) {
    let mut misses = 0;
    while misses < WATCH_MISSES_MAX {
        sleep(WATCH_PERIOD).await;
        let Some(copy) = shared.copied.current() else {
            break;
        };
        match shared.endpoint.finds_copy(copy.address).await {
            true => misses = 0,
            false => misses += 1,
        }
    }
    shared.copied.lock().found = None;
    tracing::warn!("the other process of this node is gone; this one takes its place in the mesh");
    give_way(&shared, false);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> SocketAddr {
        ([127, 0, 0, 1], 9).into()
    }

    /// A member can have a node told of lives as often as it likes: that is named, and nothing comes of it.
    #[test]
    fn many_lives_told_of_are_suspicious_and_few_are_not() {
        let (mut state, start) = (State::default(), Instant::now());
        for second in 0..SUSPICIOUS_LIVES as u64 - 1 {
            let now = start + Duration::from_secs(second);
            assert_eq!(state.told(now, here()), None);
        }
        let now = start + Duration::from_secs(10);
        let suspected = state.told(now, here()).expect("now it is named");
        assert!(!suspected.proved && !suspected.gives_way);
        assert_eq!(state.told(now, here()), None, "said once");
        assert_eq!(state.current(now), Some(suspected));
        assert_eq!(state.current(now + FORGOTTEN_AFTER), None);
        let mut seldom = State::default();
        for number in 0..20 {
            let now = start + SUSPICIOUS_WITHIN * number;
            assert_eq!(seldom.told(now, here()), None);
        }
    }

    #[test]
    fn what_is_proved_goes_before_what_is_told_and_is_logged_now_and_then() {
        let (mut state, start) = (State::default(), Instant::now());
        let proved = RunningCopy {
            address: here(),
            proved: true,
            gives_way: true,
        };
        assert!(state.note(start, proved));
        for _ in 0..2 * SUSPICIOUS_LIVES {
            assert_eq!(state.told(start, here()), None);
        }
        assert!(!state.note(start + WATCH_PERIOD, proved));
        assert!(state.note(start + LOG_PERIOD, proved));
        let later = start + 2 * LOG_PERIOD;
        assert_eq!(state.current(later), Some(proved), "until the watch ends");
    }
}
