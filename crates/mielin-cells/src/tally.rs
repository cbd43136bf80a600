//! What an agent has used up, and what its budget says to that.
//!
//! An agent is charged for its time on a processor by the clock of the thread that runs it, also in the middle of a turn,
//! and for the rest in its host calls. What it may not do any more, a host call says to the program's poll word, and the
//! [clock](crate::scheduler) for time; the [cell](crate::cell) then acts on the [`Verdict`].

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mielin_wasm::ThreadClock;
use oxicode::de::Decoder;
use oxicode::{Decode, Encode};

use crate::budget::{AMOUNT_MAX, Budget, MEASURES, Measure};
use crate::lock::lock;
use crate::report::Counters;

/// The counters of an agent, which its host calls and its cell add to.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) turns: AtomicU64,
    pub(crate) busy_us: AtomicU64,
    pub(crate) received: AtomicU64,
    sent: AtomicU64,
    pub(crate) denied: AtomicU64,
    pub(crate) moves: AtomicU64,
    cpu_ns: AtomicU64,
    log_bytes: AtomicU64,
    host_calls: AtomicU64,
    budget: Budget,
    meter: Mutex<Meter>,
    /// It tried to send faster than it may, and waits for that.
    wants_to_send: AtomicBool,
}

/// How an agent stands to its budget.
#[derive(Debug, Default)]
struct Meter {
    /// The thread that runs it, and how much of its time has been charged.
    turn: Option<(ThreadClock, Duration)>,
    /// When it will have fallen behind each of its speeds.
    behind_at: [Option<Instant>; MEASURES],
    /// It tried to use more than it has.
    over: Option<Measure>,
}

/// What is to be done with an agent that would go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    GoOn,
    /// It goes on at this time.
    HoldBack(Instant),
    /// It is ended.
    Over(Measure),
}

const COUNTERS: usize = 9;

/// A tally as it travels with the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode)]
pub(crate) struct Tallied {
    counters: [u64; COUNTERS],
    /// How far the agent was ahead of each of its speeds.
    ahead_ns: [u64; MEASURES],
}

impl Decode for Tallied {
    fn decode<D: Decoder<Context = ()>>(decoder: &mut D) -> Result<Tallied, oxicode::Error> {
        let tallied = Tallied {
            counters: Decode::decode(decoder)?,
            ahead_ns: Decode::decode(decoder)?,
        };
        let mut numbers = tallied.counters.iter().chain(&tallied.ahead_ns);
        // A counter that wraps around would be a budget that is not used up.
        match numbers.all(|number| *number <= AMOUNT_MAX) {
            true => Ok(tallied),
            false => Err(oxicode::Error::Custom {
                message: "a counter that no agent can have reached",
            }),
        }
    }
}

impl Tallied {
    /// Of an agent that has this behind it.
    pub(crate) fn new(counters: &Counters) -> Tallied {
        let c = counters;
        Tallied {
            counters: [
                c.turns,
                c.busy_us,
                c.received,
                c.sent,
                c.denied,
                c.moves,
                c.cpu_ns,
                c.log_bytes,
                c.host_calls,
            ],
            ahead_ns: [0; MEASURES],
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        let [
            turns,
            busy_us,
            received,
            sent,
            denied,
            moves,
            cpu_ns,
            log_bytes,
            host_calls,
        ] = self.counters;
        Counters {
            turns,
            busy_us,
            received,
            sent,
            denied,
            moves,
            cpu_ns,
            log_bytes,
            host_calls,
        }
    }
}

impl Tally {
    /// Of an agent that has used nothing.
    pub(crate) fn new(budget: &Budget) -> Tally {
        Tally {
            budget: budget.clone(),
            ..Tally::default()
        }
    }

    /// As it was elsewhere or before.
    pub(crate) fn resumed(budget: &Budget, tallied: &Tallied) -> Tally {
        let tally = Tally::new(budget);
        tally.adopt(tallied);
        tally
    }

    /// Adds what the agent used elsewhere.
    pub(crate) fn adopt(&self, tallied: &Tallied) {
        for (counter, number) in self.all().into_iter().zip(tallied.counters) {
            Tally::add(counter, number);
        }
        let now = Instant::now();
        let mut meter = lock(&self.meter);
        for (behind_at, ahead_ns) in meter.behind_at.iter_mut().zip(tallied.ahead_ns) {
            *behind_at = Some(now + Duration::from_nanos(ahead_ns));
        }
    }

    /// The tally as it travels.
    pub(crate) fn tallied(&self) -> Tallied {
        let now = Instant::now();
        let mut meter = lock(&self.meter);
        self.charge_turn(&mut meter, now);
        Tallied {
            counters: self.all().map(|counter| counter.load(Ordering::Relaxed)),
            ahead_ns: Measure::ALL.map(|measure| meter.ahead_ns(measure, now)),
        }
    }

    fn all(&self) -> [&AtomicU64; COUNTERS] {
        [
            &self.turns,
            &self.busy_us,
            &self.received,
            &self.sent,
            &self.denied,
            &self.moves,
            &self.cpu_ns,
            &self.log_bytes,
            &self.host_calls,
        ]
    }

    pub(crate) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }

    fn counter(&self, measure: Measure) -> &AtomicU64 {
        match measure {
            Measure::Cpu => &self.cpu_ns,
            Measure::Messages => &self.sent,
            Measure::Log => &self.log_bytes,
            Measure::HostCalls => &self.host_calls,
        }
    }

    pub(crate) fn used(&self, measure: Measure) -> u64 {
        self.counter(measure).load(Ordering::Relaxed)
    }

    /// What is left of a total.
    fn left(&self, measure: Measure) -> Option<u64> {
        let total = self.budget.total(measure)?;
        Some(total.saturating_sub(self.used(measure)))
    }

    fn charge(&self, measure: Measure, amount: u64) {
        Tally::add(self.counter(measure), amount);
        if self.budget.rate(measure).is_some() {
            self.charge_speed(&mut lock(&self.meter), measure, amount, Instant::now());
        }
    }

    fn charge_speed(&self, meter: &mut Meter, measure: Measure, amount: u64, now: Instant) {
        if let Some(rate) = self.budget.rate(measure) {
            let ahead_ns = meter.ahead_ns(measure, now);
            let ahead_ns = ahead_ns
                .saturating_add(rate.cost_ns(amount))
                .min(AMOUNT_MAX);
            meter.behind_at[measure.index()] = Some(now + Duration::from_nanos(ahead_ns));
        }
    }

    /// Takes over what the thread that runs the agent has been on a processor since this was done last. Gives whether
    /// that is known: of a thread that cannot be asked from here it is learned at the end of the turn.
    fn charge_turn(&self, meter: &mut Meter, now: Instant) -> bool {
        let Some((clock, charged)) = &mut meter.turn else {
            return true;
        };
        let Some(time) = clock.now() else {
            return false;
        };
        let amount = time.saturating_sub(*charged);
        *charged = time;
        let amount = u64::try_from(amount.as_nanos()).unwrap_or(u64::MAX);
        Tally::add(&self.cpu_ns, amount);
        self.charge_speed(meter, Measure::Cpu, amount, now);
        true
    }

    /// A turn begins on the thread that calls.
    pub(crate) fn begin_turn(&self, clock: Option<ThreadClock>) {
        let turn = clock.and_then(|clock| Some((clock, clock.now()?)));
        lock(&self.meter).turn = turn;
    }

    /// The turn is over, on the thread that calls.
    pub(crate) fn end_turn(&self, took: Duration) {
        Tally::add(&self.turns, 1);
        Tally::add(
            &self.busy_us,
            u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        );
        let mut meter = lock(&self.meter);
        self.charge_turn(&mut meter, Instant::now());
        meter.turn = None;
    }

    /// How much time on a processor the agent has until somebody must look again, or its turn must end because only its
    /// own thread can look; `None` if it has no budget for that.
    pub(crate) fn cpu_left(&self) -> Option<Duration> {
        let rate = self.budget.rate(Measure::Cpu);
        if rate.is_none() && self.budget.total(Measure::Cpu).is_none() {
            return None;
        }
        let now = Instant::now();
        let mut meter = lock(&self.meter);
        if !self.charge_turn(&mut meter, now) {
            return Some(Duration::ZERO);
        }
        let total = self.left(Measure::Cpu);
        let speed = rate.map(|rate| {
            let ahead_ns = meter.ahead_ns(Measure::Cpu, now);
            rate.amount_in(rate.saved_ns().saturating_sub(ahead_ns))
        });
        total
            .into_iter()
            .chain(speed)
            .min()
            .map(Duration::from_nanos)
    }

    /// Whether it may send a message now.
    pub(crate) fn may_send(&self) -> bool {
        if self.left(Measure::Messages) == Some(0) {
            lock(&self.meter).over = Some(Measure::Messages);
            return false;
        }
        let Some(rate) = self.budget.rate(Measure::Messages) else {
            return true;
        };
        let ahead_ns = lock(&self.meter).ahead_ns(Measure::Messages, Instant::now());
        let may = ahead_ns.saturating_add(rate.cost_ns(1)) <= rate.saved_ns();
        self.wants_to_send.store(!may, Ordering::Relaxed);
        may
    }

    pub(crate) fn sent(&self) {
        self.charge(Measure::Messages, 1);
    }

    /// How much of so many bytes it may write.
    pub(crate) fn may_write(&self, len: usize) -> usize {
        match self.left(Measure::Log) {
            Some(left) if left < len as u64 => {
                lock(&self.meter).over = Some(Measure::Log);
                // It is less than a length.
                left as usize
            }
            _ => len,
        }
    }

    pub(crate) fn wrote(&self, len: usize) {
        self.charge(Measure::Log, len as u64);
    }

    /// A host call was performed. Gives whether the agent must not go on.
    pub(crate) fn called(&self) -> bool {
        self.charge(Measure::HostCalls, 1);
        self.budget.bounds_calls() && self.verdict() != Verdict::GoOn
    }

    /// Whether the agent may go on. If it tried to do what it must wait for, this is what it waits for.
    pub(crate) fn verdict(&self) -> Verdict {
        self.verdict_at(Instant::now())
    }

    fn verdict_at(&self, now: Instant) -> Verdict {
        if self.budget.is_empty() {
            return Verdict::GoOn;
        }
        if self.left(Measure::Cpu) == Some(0) {
            return Verdict::Over(Measure::Cpu);
        }
        let calls = self.budget.total(Measure::HostCalls);
        if calls.is_some_and(|total| self.used(Measure::HostCalls) > total) {
            return Verdict::Over(Measure::HostCalls);
        }
        let meter = lock(&self.meter);
        if let Some(measure) = meter.over {
            return Verdict::Over(measure);
        }
        let goes_on_at = Measure::ALL.into_iter().filter_map(|measure| {
            let rate = self.budget.rate(measure)?;
            let ahead_ns = meter.ahead_ns(measure, now);
            let is_held = match measure {
                // It may still do anything else.
                Measure::Messages => {
                    self.wants_to_send.load(Ordering::Relaxed)
                        && ahead_ns.saturating_add(rate.cost_ns(1)) > rate.saved_ns()
                }
                _ => ahead_ns >= rate.saved_ns(),
            };
            let wait = ahead_ns.saturating_sub(rate.resumes_ns());
            is_held.then(|| now + Duration::from_nanos(wait))
        });
        goes_on_at.max().map_or(Verdict::GoOn, Verdict::HoldBack)
    }
}

impl Meter {
    fn ahead_ns(&self, measure: Measure, now: Instant) -> u64 {
        let ahead = self.behind_at[measure.index()].map(|at| at.saturating_duration_since(now));
        let ahead = ahead.unwrap_or_default().as_nanos();
        u64::try_from(ahead).unwrap_or(AMOUNT_MAX).min(AMOUNT_MAX)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mielin_mesh_core::codec;

    use super::*;

    impl Tallied {
        pub(crate) fn sample() -> Tallied {
            Tallied {
                counters: [1, 2, 3, 4, 5, 6, 7, 8, 9],
                ahead_ns: [10, 0, 12, 0],
            }
        }
    }

    fn of(budget: &str) -> Tally {
        Tally::new(&budget.parse().unwrap())
    }

    /// An agent that does nothing but use up as much as it is let, on a clock that only the test moves.
    fn used_in(budget: &str, measure: Measure, step: u64, step_ns: u64, time: Duration) -> u64 {
        let tally = of(budget);
        let start = Instant::now();
        let (mut now, mut used) = (start, 0);
        while now < start + time {
            match tally.verdict_at(now) {
                Verdict::GoOn => {
                    tally.charge_speed(&mut lock(&tally.meter), measure, step, now);
                    used += step;
                    now += Duration::from_nanos(step_ns);
                }
                Verdict::HoldBack(at) => {
                    assert!(at > now, "it would be asked again at once");
                    now = at;
                }
                Verdict::Over(measure) => panic!("{measure} is no total"),
            }
        }
        used
    }

    #[test]
    fn an_agent_that_takes_what_it_gets_has_its_share_in_the_long_run() {
        let minute = Duration::from_secs(60);
        for share in [1, 20, 50, 99] {
            // Turns of 3 ms, which is no divisor of anything.
            let used = used_in(
                &format!("cpu={share}%"),
                Measure::Cpu,
                3_000_000,
                3_000_000,
                minute,
            );
            let due = 600_000_000 * share;
            assert!(
                used.abs_diff(due) < due / 50 + 6_000_000,
                "{used} of {due} for {share}%"
            );
        }
        assert_eq!(
            used_in("cpu=100%", Measure::Cpu, 3_000_000, 3_000_000, minute),
            60_000_000_000
        );
        // A second is saved up, and paid back.
        let used = used_in("log=1KiB/s", Measure::Log, 7, 1000, minute);
        assert!(used.abs_diff(61 << 10) < 200, "{used}");
        let used = used_in("host-calls=30/m", Measure::HostCalls, 1, 1000, minute);
        assert!((30..=31).contains(&used), "{used}");
        // One piece that is larger than all that may be saved up is paid for before the next.
        let used = used_in("log=1/s", Measure::Log, 25, 1000, minute);
        assert!((75..=100).contains(&used), "{used}");
    }

    #[test]
    fn what_an_agent_is_ahead_of_its_speed_goes_along_and_does_not_vanish() {
        let here = of("log=1/h,cpu=20%");
        here.wrote(1000);
        assert!(matches!(here.verdict(), Verdict::HoldBack(_)));
        let bytes = codec::encode(&here.tallied());
        let tallied: Tallied = codec::decode(&bytes).unwrap();
        let there = Tally::resumed(&here.budget, &tallied);
        assert_eq!(there.used(Measure::Log), 1000);
        let Verdict::HoldBack(at) = there.verdict() else {
            panic!("it may go on");
        };
        let wait = at - Instant::now();
        assert!(wait > Duration::from_secs(998 * 3600), "{wait:?}");
    }

    #[test]
    fn totals_are_used_up_to_the_last_one_and_not_beyond() {
        let tally = of("messages=2,log=10,host-calls=3");
        for _ in 0..2 {
            assert!(tally.may_send());
            tally.sent();
        }
        assert_eq!(tally.verdict(), Verdict::GoOn);
        assert!(!tally.may_send());
        assert_eq!(tally.verdict(), Verdict::Over(Measure::Messages));

        let tally = of("messages=2,log=10,host-calls=3");
        assert_eq!(tally.may_write(7), 7);
        tally.wrote(7);
        assert_eq!(tally.may_write(3), 3);
        assert_eq!(tally.verdict(), Verdict::GoOn);
        assert_eq!(tally.may_write(4), 3);
        assert_eq!(tally.verdict(), Verdict::Over(Measure::Log));

        let tally = of("messages=2,log=10,host-calls=3");
        assert!((0..3).all(|_| !tally.called()));
        assert!(tally.called());
        assert_eq!(tally.verdict(), Verdict::Over(Measure::HostCalls));

        let counters = Counters {
            cpu_ns: 1_000_000,
            ..Counters::default()
        };
        let spent = Tally::resumed(&"cpu=1ms".parse().unwrap(), &Tallied::new(&counters));
        assert_eq!(spent.cpu_left(), Some(Duration::ZERO));
        assert_eq!(spent.verdict(), Verdict::Over(Measure::Cpu));
        assert_eq!(of("").verdict(), Verdict::GoOn);
    }

    #[test]
    fn counters_that_would_wrap_around_are_refused() {
        let mut hostile = Tallied::sample();
        hostile.counters[6] = AMOUNT_MAX;
        let bytes = codec::encode(&hostile);
        assert_eq!(codec::decode::<Tallied>(&bytes), Ok(hostile));
        for at in 0..COUNTERS + MEASURES {
            let mut hostile = Tallied::sample();
            *hostile
                .counters
                .iter_mut()
                .chain(&mut hostile.ahead_ns)
                .nth(at)
                .unwrap() = AMOUNT_MAX + 1;
            let bytes = codec::encode(&hostile);
            assert_eq!(
                codec::decode::<Tallied>(&bytes),
                Err(codec::CodecError::Malformed),
                "{at}"
            );
        }
    }
}
