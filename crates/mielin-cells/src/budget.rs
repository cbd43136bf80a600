//! Budgets: what one agent may use up in its life, and how fast.
//!
//! An amount is for the agent's whole life, wherever it is: when it is used up the agent is ended. An amount in a time,
//! or a share of a processor, is a speed: an agent that is faster is held back until it has fallen behind again. Memory is
//! neither; beyond its budget it does not grow. As text a budget is `cpu=10s,cpu=20%,messages=100/s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use mielin_wasm::Limits;
use thiserror::Error;

/// What an agent uses up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Measure {
    /// Time on a processor, in nanoseconds.
    Cpu,
    /// Messages and replies that it sends.
    Messages,
    /// Bytes that it writes to standard output, standard error and the log of its node.
    Log,
    /// Calls of the node's functions; one that waits is one.
    HostCalls,
}

impl Measure {
    /// All of them.
    pub const ALL: [Measure; MEASURES] = [
        Measure::Cpu,
        Measure::Messages,
        Measure::Log,
        Measure::HostCalls,
    ];

    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    const fn name(self) -> &'static str {
        match self {
            Measure::Cpu => "cpu",
            Measure::Messages => "messages",
            Measure::Log => "log",
            Measure::HostCalls => "host-calls",
        }
    }

    /// How much that is in words of this measure.
    const fn units(self) -> &'static [(&'static str, u64)] {
        match self {
            Measure::Cpu => &TIMES,
            Measure::Messages | Measure::HostCalls => &COUNTS,
            Measure::Log => &SIZES,
        }
    }

    const fn example(self) -> &'static str {
        match self {
            Measure::Cpu => {
                "a time with ms, s, m or h, such as 10s, or a share of one processor, 1% to 100%"
            }
            Measure::Messages | Measure::HostCalls => {
                "a number, possibly with k, M or G, such as 1000 or 5M, or that in a time, such as 100/s (or /m, /h)"
            }
            Measure::Log => {
                "a size, such as 64KiB or 1MiB, or that in a time, such as 4KiB/s (or /m, /h)"
            }
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

pub(crate) const MEASURES: usize = 4;

const MEMORY: &str = "memory";

// The empty one is that of a bare number.
const TIMES: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
    ("s", 1_000_000_000),
];
const COUNTS: [(&str, u64); 4] = [
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
    ("", 1),
];
const SIZES: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("", 1),
];
const PERIODS: [(&str, u64); 3] = [
    ("/s", 1_000_000_000),
    ("/m", 60_000_000_000),
    ("/h", 3_600_000_000_000),
];

/// No amount is larger: sums of two still fit, and nothing lives long enough.
pub(crate) const AMOUNT_MAX: u64 = 1 << 60;

/// How much of an unused speed an agent can save up. Short for time on a processor, so that a share of it is one in the
/// eyes of the others too.
const SAVED_CPU: Duration = Duration::from_millis(100);
const SAVED: Duration = Duration::from_secs(1);
/// What is waited for before an agent that was held back goes on: it shall get something done then.
const WORTH_WHILE: Duration = Duration::from_millis(50);

/// How fast an agent may use something up: so much in so many nanoseconds.
///
/// It is kept as a bucket that leaks (ITU-T I.371, "generic cell rate algorithm", with times in nanoseconds): each unit
/// costs the time in which it may be used again, and the agent may be ahead of the clock by what it may save up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    amount: u64,
    period_ns: u64,
    measure: Measure,
}

impl Rate {
    /// The time that so much takes at this speed, rounded up.
    pub(crate) fn cost_ns(&self, amount: u64) -> u64 {
        let cost = u128::from(amount) * u128::from(self.period_ns);
        let cost = cost.div_ceil(u128::from(self.amount));
        u64::try_from(cost).unwrap_or(u64::MAX).min(AMOUNT_MAX)
    }

    /// What can be used up of a time.
    pub(crate) fn amount_in(&self, ns: u64) -> u64 {
        let amount = u128::from(ns) * u128::from(self.amount) / u128::from(self.period_ns);
        u64::try_from(amount).unwrap_or(u64::MAX)
    }

    /// How far an agent may be ahead.
    pub(crate) fn saved_ns(&self) -> u64 {
        let saved = match self.measure {
            Measure::Cpu => SAVED_CPU,
            _ => SAVED,
        };
        // One unit is always possible.
        nanos(saved).max(self.cost_ns(1))
    }

    /// How far ahead it may still be when it goes on.
    pub(crate) fn resumes_ns(&self) -> u64 {
        let worth_while = nanos(WORTH_WHILE).max(self.cost_ns(1));
        self.saved_ns().saturating_sub(worth_while)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What an agent may use up. By default nothing is bounded but its memory, by its [`Limits`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    memory_bytes: Option<u64>,
    totals: [Option<u64>; MEASURES],
    rates: [Option<Rate>; MEASURES],
}

/// One part of a budget, and how much of it is used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spending {
    /// The part as it was chosen, such as `cpu=10s`.
    pub part: String,
    /// What is used up, and of how much: nanoseconds, bytes or a number. Speeds are not used up.
    pub used: Option<(u64, u64)>,
}

/// A text that is no budget. It says what to write.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BudgetError {
    /// Not `WHAT=AMOUNT`.
    #[error(
        "`{0}` is not a budget; write WHAT=AMOUNT, where WHAT is cpu, memory, messages, log or host-calls"
    )]
    Form(String),
    /// A measure that does not exist.
    #[error(
        "nothing is called `{0}` that a budget could be for; there are cpu, memory, messages, log and host-calls"
    )]
    Measure(String),
    /// An amount that cannot be read, is nothing, or too much.
    #[error("`{text}` is not an amount of {what}; write {example}")]
    Amount {
        /// What it was for.
        what: &'static str,
        /// What was written.
        text: String,
        /// What can be written.
        example: &'static str,
    },
    /// The same thing twice.
    #[error("there are two budgets for {0}; give one amount, and beside it at most one speed")]
    Twice(&'static str),
}

impl Budget {
    /// Whether nothing is bounded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Budget::default()
    }

    /// What the agent's memory may grow to, if that was chosen.
    #[must_use]
    pub fn memory_bytes(&self) -> Option<u64> {
        self.memory_bytes
    }

    pub(crate) fn total(&self, measure: Measure) -> Option<u64> {
        self.totals[measure.index()]
    }

    pub(crate) fn rate(&self, measure: Measure) -> Option<&Rate> {
        self.rates[measure.index()].as_ref()
    }

    /// Whether host calls have to be compared with it.
    pub(crate) fn bounds_calls(&self) -> bool {
        let calls = &Measure::ALL[1..];
        calls
            .iter()
            .any(|measure| self.total(*measure).is_some() || self.rate(*measure).is_some())
    }

    /// The total for something, as text.
    pub(crate) fn text(&self, measure: Measure) -> String {
        match self.total(measure) {
            Some(total) => format!("{measure}={}", Amount(total, measure.units())),
            None => measure.to_string(),
        }
    }

    /// Whether memory within these limits is within it.
    pub(crate) fn fits(&self, limits: &Limits) -> bool {
        self.memory_bytes
            .is_none_or(|bytes| limits.memory_bytes <= bytes)
    }

    /// The parts of the budget, and what `used` says of each.
    pub(crate) fn spending(
        &self,
        memory_bytes: u64,
        used: impl Fn(Measure) -> u64,
    ) -> Vec<Spending> {
        let mut parts = Vec::new();
        if let Some(max) = self.memory_bytes {
            parts.push(Spending {
                part: format!("{MEMORY}={}", Amount(max, &SIZES)),
                used: Some((memory_bytes, max)),
            });
        }
        for measure in Measure::ALL {
            if let Some(max) = self.total(measure) {
                parts.push(Spending {
                    part: self.text(measure),
                    used: Some((used(measure), max)),
                });
            }
            if let Some(rate) = self.rate(measure) {
                parts.push(Spending {
                    part: format!("{measure}={rate}"),
                    used: None,
                });
            }
        }
        parts
    }

    fn add(&mut self, part: &str) -> Result<(), BudgetError> {
        let (what, amount) = part
            .split_once('=')
            .ok_or_else(|| BudgetError::Form(part.to_owned()))?;
        if what == MEMORY {
            let bytes = read(amount, &SIZES).ok_or_else(|| BudgetError::Amount {
                what: MEMORY,
                text: amount.to_owned(),
                example: "a size, such as 64MiB",
            })?;
            return put(&mut self.memory_bytes, bytes, MEMORY);
        }
        let measure = Measure::ALL
            .into_iter()
            .find(|measure| measure.name() == what);
        let measure = measure.ok_or_else(|| BudgetError::Measure(what.to_owned()))?;
        let index = measure.index();
        if let Some(total) = read(amount, measure.units()) {
            return put(&mut self.totals[index], total, measure.name());
        }
        let rate = read_rate(measure, amount).ok_or_else(|| BudgetError::Amount {
            what: measure.name(),
            text: amount.to_owned(),
            example: measure.example(),
        })?;
        put(&mut self.rates[index], rate, measure.name())
    }
}

fn put<T>(place: &mut Option<T>, value: T, what: &'static str) -> Result<(), BudgetError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(BudgetError::Twice(what)),
    }
}

/// A whole number with one of these units, neither zero nor too large.
fn read(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, size) = units.iter().find(|(name, _)| *name == unit)?;
    let amount = number.parse::<u64>().ok()?.checked_mul(*size)?;
    (1..=AMOUNT_MAX).contains(&amount).then_some(amount)
}

fn read_rate(measure: Measure, text: &str) -> Option<Rate> {
    let (amount, period_ns) = match measure {
        Measure::Cpu => (read(text.strip_suffix('%')?, &[("", 1)])?, 100),
        _ => {
            let period = |(name, ns): &(&str, u64)| Some((text.strip_suffix(name)?, *ns));
            let (amount, period_ns) = PERIODS.iter().find_map(period)?;
            (read(amount, measure.units())?, period_ns)
        }
    };
    // A thread has no more than one processor; and of less than a nanosecond for each nothing would be counted.
    (amount <= period_ns).then_some(Rate {
        amount,
        period_ns,
        measure,
    })
}

/// An amount in the largest unit in which it is a whole number.
struct Amount<'a>(u64, &'a [(&'a str, u64)]);

impl fmt::Display for Amount<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self
            .1
            .iter()
            .filter(|(_, size)| self.0.is_multiple_of(*size));
        match whole.max_by_key(|(_, size)| *size) {
            Some((unit, size)) => write!(f, "{}{unit}", self.0 / size),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.measure == Measure::Cpu {
            return write!(f, "{}%", self.amount);
        }
        let period = PERIODS.iter().find(|(_, ns)| *ns == self.period_ns);
        let period = period.map_or("", |(name, _)| name);
        write!(f, "{}{period}", Amount(self.amount, self.measure.units()))
    }
}

/// The parts, separated by commas.
impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.spending(0, |_| 0).into_iter().map(|part| part.part);
        f.write_str(&parts.collect::<Vec<_>>().join(","))
    }
}

impl FromStr for Budget {
    type Err = BudgetError;

    fn from_str(text: &str) -> Result<Budget, BudgetError> {
        let mut budget = Budget::default();
        if !text.is_empty() {
            text.split(',').try_for_each(|part| budget.add(part))?;
        }
        Ok(budget)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_budget_is_written_as_it_is_read() {
        let whole = "memory=64MiB,cpu=10s,cpu=20%,messages=1k,messages=100/s,log=1MiB,log=64KiB/m,host-calls=5M,host-calls=3/h";
        let budget: Budget = whole.parse().unwrap();
        assert_eq!(budget.to_string(), whole);
        assert_eq!(budget.memory_bytes(), Some(64 << 20));
        assert_eq!(budget.total(Measure::Cpu), Some(10_000_000_000));
        assert!(budget.bounds_calls());
        for (text, canonical) in [
            ("", ""),
            ("cpu=90s", "cpu=90s"),
            ("cpu=60s", "cpu=1m"),
            ("cpu=3600000ms", "cpu=1h"),
            ("cpu=1ns", "cpu=1ns"),
            ("log=1024,cpu=1500ms", "cpu=1500ms,log=1KiB"),
            ("messages=1001/m", "messages=1001/m"),
        ] {
            let budget: Budget = text.parse().unwrap();
            assert_eq!(budget.to_string(), canonical, "{text}");
            assert_eq!(canonical.parse::<Budget>(), Ok(budget));
        }
        let none = Budget::default();
        assert!(none.is_empty() && !none.bounds_calls());
        assert!(!"cpu=1s".parse::<Budget>().unwrap().bounds_calls());
    }

    #[test]
    fn what_is_no_budget_is_refused_with_what_to_write() {
        let refused = |text: &str| text.parse::<Budget>().unwrap_err();
        for text in ["cpu", "cpu:10s", "cpu=1s,,log=1KiB", " "] {
            assert!(matches!(refused(text), BudgetError::Form(_)), "{text}");
        }
        for text in ["CPU=10s", "=1", "time=1s", " cpu=1s", "cpu =1s"] {
            assert!(matches!(refused(text), BudgetError::Measure(_)), "{text}");
        }
        for text in [
            "cpu=",
            "cpu=10",
            "cpu=0s",
            "cpu=-1s",
            "cpu=+1s",
            "cpu=1.5s",
            "cpu=10S",
            "cpu=1s/s",
            "cpu=0%",
            "cpu=101%",
            "cpu=%",
            "cpu=20 %",
            "cpu=99999999999999999999s",
            "cpu=9999999999h",
            "cpu=18446744073709551616%",
            "messages=0",
            "messages=1e6",
            "messages=1K",
            "messages=1s",
            "messages=1/d",
            "messages=/s",
            "messages=2G/s",
            "messages=20%",
            "messages=0/s",
            "log=1MB",
            "log=1G",
            "log=2GiB/s",
            "log=1152921504606846977",
            "host-calls=",
            "host-calls=ten",
            "host-calls=18446744073709552k",
            "memory=0",
            "memory=64M",
            "memory=1KiB/s",
            "memory=1073741825GiB",
            "cpu=1s ",
        ] {
            let error = refused(text);
            assert!(
                matches!(error, BudgetError::Amount { .. }),
                "{text}: {error}"
            );
            assert!(error.to_string().contains("write a"), "{error}");
        }
        for text in ["cpu=1s,cpu=2s", "cpu=1%,cpu=2%", "memory=1MiB,memory=1MiB"] {
            assert!(matches!(refused(text), BudgetError::Twice(_)), "{text}");
        }
    }

    #[test]
    fn a_speed_costs_the_time_in_which_it_may_be_used_again() {
        let rate = |text: &str, measure| *text.parse::<Budget>().unwrap().rate(measure).unwrap();
        let fifth = rate("cpu=20%", Measure::Cpu);
        assert_eq!((fifth.cost_ns(10), fifth.amount_in(50)), (50, 10));
        assert_eq!(fifth.saved_ns(), 100_000_000);
        assert_eq!(fifth.resumes_ns(), 50_000_000);
        let slow = rate("messages=1/h", Measure::Messages);
        assert_eq!(slow.cost_ns(1), 3_600_000_000_000);
        assert_eq!((slow.saved_ns(), slow.resumes_ns()), (slow.cost_ns(1), 0));
        // Never too little, and never more than can be added up.
        assert_eq!(rate("log=1GiB/h", Measure::Log).cost_ns(1), 3353);
        assert_eq!(slow.cost_ns(u64::MAX), AMOUNT_MAX);
    }
}
