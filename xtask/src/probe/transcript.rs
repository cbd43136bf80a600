//! What a machine said, and whether it is what its case expects.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::cases::Case;

/// Between these lines the firmware waits for 150 ms of its clock, four times. Either line may be seen late, so that a
/// wait seems longer or shorter than it was: not even the longest may seem too short, nor the shortest too long.
const WAIT_BEGINS: &str = "wait: begins";
const WAIT_ENDS: &str = "wait: ends";
const LONGEST_MIN: Duration = Duration::from_millis(140);
const SHORTEST_MAX: Duration = Duration::from_millis(250);

/// Lines with the moments at which they came.
#[derive(Default)]
pub(super) struct Transcript {
    lines: Vec<(Instant, String)>,
    status: Option<i32>,
    complaints: String,
}

impl Transcript {
    pub(super) fn add(&mut self, at: Instant, line: String) {
        self.lines.push((at, line));
    }

    pub(super) fn end(&mut self, status: Option<i32>, complaints: String) {
        self.status = status;
        self.complaints = complaints;
    }

    pub(super) fn text(&self) -> String {
        let lines: Vec<&str> = self.lines.iter().map(|(_, line)| line.as_str()).collect();
        format!("{}\n{}", lines.join("\n"), self.complaints)
    }

    /// The features that the firmware printed.
    pub(super) fn features(&self) -> &str {
        self.value("features").unwrap_or_default()
    }

    /// The value of the first line of that name.
    fn value(&self, name: &str) -> Option<&str> {
        self.lines.iter().find_map(|(_, line)| {
            let value = line.strip_prefix(name)?.strip_prefix(':')?;
            Some(value.trim_start())
        })
    }

    /// How long the waits seemed from here.
    fn waits(&self) -> Vec<Duration> {
        let moments = |wanted: &'static str| {
            let lines = self.lines.iter();
            lines.filter_map(move |(at, line)| (line == wanted).then_some(*at))
        };
        moments(WAIT_BEGINS)
            .zip(moments(WAIT_ENDS))
            .map(|(begin, end)| end.saturating_duration_since(begin))
            .collect()
    }

    /// The first thing that is not as it should be.
    pub(super) fn check(&self, case: &Case) -> Result<(), String> {
        let require = |holds: bool, wrong: &dyn Fn() -> String| match holds {
            true => Ok(()),
            false => Err(wrong()),
        };
        let last = self.lines.last().map(|(_, line)| line.as_str());
        require(last == Some("probe: passed"), &|| {
            format!("the last line is {last:?}")
        })?;
        require(self.status == Some(case.status), &|| {
            format!("its exit status is {:?}", self.status)
        })?;
        let features: BTreeSet<&str> = self.features().split_whitespace().collect();
        for feature in case.has.split_whitespace() {
            require(features.contains(feature), &|| format!("no `{feature}`"))?;
        }
        for feature in case.has_not.split_whitespace() {
            require(!features.contains(feature), &|| {
                format!("`{feature}`, which this processor has not")
            })?;
        }
        for wanted in case.says {
            let said = self.lines.iter().any(|(_, line)| line == wanted);
            require(said, &|| format!("no line `{wanted}`"))?;
        }
        let waits = self.waits();
        let right = waits.iter().max().is_some_and(|wait| *wait >= LONGEST_MIN)
            && waits.iter().min().is_some_and(|wait| *wait <= SHORTEST_MAX);
        require(right, &|| {
            format!("150 ms of its clock seem to be {waits:?}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Arch;
    use super::*;

    const CASE: Case = Case {
        arch: Arch::Riscv64,
        name: "a board",
        target: "riscv64gc-unknown-none-elf",
        emulator: "qemu-system-riscv64",
        arguments: &[],
        status: 33,
        has: "m v",
        has_not: "h",
        says: &["vector bits: 256"],
    };

    /// A run that ends well, with waits that seem to be so long.
    fn ran(features: &str, status: i32, waits_ms: &[u64], without: &str) -> Result<(), String> {
        let mut at = Instant::now();
        let mut transcript = Transcript::default();
        let mut say = |line: &str| {
            if line != without {
                transcript.add(at, line.to_owned());
            }
        };
        say(features);
        say("vector bits: 256");
        for wait in waits_ms {
            transcript.add(at, WAIT_BEGINS.to_owned());
            at += Duration::from_millis(*wait);
            transcript.add(at, WAIT_ENDS.to_owned());
        }
        if without != "probe: passed" {
            transcript.add(at, "probe: passed".to_owned());
        }
        transcript.end(Some(status), String::new());
        transcript.check(&CASE)
    }

    #[test]
    fn what_is_missing_is_noticed() {
        let features = "features: m a v";
        assert_eq!(ran(features, 33, &[150], ""), Ok(()));
        for line in [features, "vector bits: 256", "probe: passed"] {
            assert!(ran(features, 33, &[150], line).is_err(), "without {line}");
        }
        assert!(ran(features, 1, &[150], "").is_err());
    }

    #[test]
    fn features_are_whole_words() {
        assert_eq!(ran("features: v zfh m", 33, &[150], ""), Ok(()));
        assert!(ran("features: zvbb m", 33, &[150], "").is_err());
        assert!(ran("features: h v m", 33, &[150], "").is_err());
    }

    #[test]
    fn a_clock_of_the_wrong_rate_is_noticed() {
        let waits = |waits: &[u64]| ran("features: m v", 33, waits, "");
        // Seen late: the end of the first, the beginning of the second.
        assert_eq!(waits(&[900, 60, 152]), Ok(()));
        // Twice as fast as it says, and half as fast.
        assert!(waits(&[75, 76, 90, 75]).is_err());
        assert!(waits(&[300, 301, 450, 300]).is_err());
        assert!(waits(&[]).is_err());
    }
}
