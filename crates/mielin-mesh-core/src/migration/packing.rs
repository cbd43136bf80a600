//! Whether pages are compressed before they are sent: by what they are, and by what the link takes.

use core::time::Duration;

use crate::Instant;
use crate::limits::{
    LINK_WINDOW_BYTES, LINK_WINDOW_MAX, LINK_WINDOW_MIN, PACKING_TRIAL_EVERY, PACKING_WORTH_PERCENT,
};

/// What compressing some bytes gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Bytes before.
    pub raw: u64,
    /// Bytes after.
    pub packed: u64,
    /// The time that it took.
    pub took: Duration,
}

/// What the transport has done for a sender since some beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that the sender has handed over.
    pub handed: u64,
    /// Bytes that have left this machine.
    pub transmitted: u64,
    /// The time that the sender has waited until the transport had room.
    pub waited: Duration,
}

/// Decides for one chunk of pages after the other whether it is compressed.
///
/// It is if compressing it and sending the rest takes clearly less time than sending it as it is
/// ([`PACKING_WORTH_PERCENT`]). The times are added, as if nothing were sent while the next chunk is compressed: that is
/// so when the agent stands still for the last of them, and where both take the same processor. How fast the compressor
/// is and how much it gains, the driver tries with a few pages of each chunk. How fast the link is follows from what has
/// left this machine while more was there to be sent; as long as the link was never what the sender waited for it counts
/// as too fast for any compression.
#[derive(Clone, Debug, Default)]
pub struct PackingChoice {
    /// Bytes in a second.
    link: Option<u64>,
    speed: Option<u64>,
    /// The beginning of what is measured now.
    since: Option<(Instant, Traffic)>,
    /// Chunks since the last trial.
    untried: u32,
}

impl PackingChoice {
    /// Knows nothing yet.
    #[must_use]
    pub fn new() -> PackingChoice {
        PackingChoice::default()
    }

    /// Tells what the transport has done so far; usually before each chunk.
    pub fn observe(&mut self, now: Instant, traffic: Traffic) {
        let Some((began, before)) = self.since else {
            self.since = Some((now, traffic));
            return;
        };
        let elapsed = now.since(began);
        let handed = traffic.handed.saturating_sub(before.handed);
        let transmitted = traffic.transmitted.saturating_sub(before.transmitted);
        let is_long = self.link.is_none() || transmitted >= LINK_WINDOW_BYTES;
        if elapsed < LINK_WINDOW_MIN || !(is_long || elapsed >= LINK_WINDOW_MAX) {
            return;
        }
        self.since = Some((now, traffic));
        let waited = traffic.waited.saturating_sub(before.waited);
        let rate = per_second(transmitted, elapsed);
        // The link was busy all the time if more was handed over than has left, or the sender had to wait.
        let is_bound =
            waited * 4 >= elapsed || u128::from(handed) * 4 > u128::from(transmitted) * 5;
        self.link = match self.link {
            Some(before) if is_bound => Some(before / 2 + rate / 2),
            Some(before) => Some(before.max(rate)),
            None => is_bound.then_some(rate),
        };
    }

    /// Whether a few pages of the next chunk should be compressed to see what that gives: not if the link is so fast that
    /// compressing would take too long even if nothing were left to be sent. Now and then all the same, because what the
    /// compressor's speed was said to be may have been an accident.
    pub fn wants_trial(&mut self) -> bool {
        let Some(link) = self.link else { return false };
        let is_hopeless = self.speed.is_some_and(|speed| {
            u128::from(link) * 100 > u128::from(speed) * u128::from(PACKING_WORTH_PERCENT)
        });
        self.untried += 1;
        let wants = !is_hopeless || self.untried >= PACKING_TRIAL_EVERY;
        if wants {
            self.untried = 0;
        }
        wants
    }

    /// Notes what compressing gave: a trial, or a whole chunk.
    pub fn note(&mut self, trial: Trial) {
        let speed = per_second(trial.raw, trial.took);
        self.speed = Some(self.speed.map_or(speed, |before| before / 2 + speed / 2));
    }

    /// Whether a chunk should be compressed of which a part gave this, after [`PackingChoice::note`].
    #[must_use]
    pub fn is_worth(&self, trial: Trial) -> bool {
        let (Some(link), Some(speed)) = (self.link, self.speed) else {
            return false;
        };
        let time =
            |bytes: u64, rate: u64| u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
        let plain = time(trial.raw, link);
        let packed = time(trial.raw, speed) + time(trial.packed, link);
        packed * 100 <= plain * u128::from(PACKING_WORTH_PERCENT)
    }

    /// Bytes that the link takes in a second, if it has ever been what the sender waited for.
    #[must_use]
    pub const fn link(&self) -> Option<u64> {
        self.link
    }
}

fn per_second(bytes: u64, time: Duration) -> u64 {
    let rate = u128::from(bytes) * 1_000_000_000 / time.as_nanos().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u64 = 64 * 4100;

    /// A sender, a transport that buffers 8 MiB, and a link, simulated in steps of a microsecond or more.
    struct Sim {
        choice: PackingChoice,
        now: Duration,
        traffic: Traffic,
        /// Bytes in a second.
        link: u64,
        compressor: u64,
        /// What is left of a hundred bytes.
        left: u64,
        packed_chunks: u32,
    }

    impl Sim {
        fn new(link: u64, compressor: u64, left: u64) -> Sim {
            Sim {
                choice: PackingChoice::new(),
                now: Duration::ZERO,
                traffic: Traffic::default(),
                link,
                compressor,
                left,
                packed_chunks: 0,
            }
        }

        fn pass(&mut self, time: Duration) {
            self.now += time;
            let room = self.link as u128 * time.as_nanos() / 1_000_000_000;
            // Headers and repetitions leave this machine too.
            let waiting =
                (self.traffic.handed * 103 / 100).saturating_sub(self.traffic.transmitted);
            self.traffic.transmitted += u64::try_from(room).expect("small").min(waiting);
        }

        fn compress(&mut self, raw: u64) -> Trial {
            let took = Duration::from_nanos(raw * 1_000_000_000 / self.compressor);
            self.pass(took);
            let packed = raw * self.left / 100;
            Trial { raw, packed, took }
        }

        fn send(&mut self, bytes: u64) {
            self.traffic.handed += bytes;
            while self.traffic.handed * 103 / 100 > self.traffic.transmitted + (8 << 20) {
                self.pass(Duration::from_micros(100));
                self.traffic.waited += Duration::from_micros(100);
            }
        }

        /// So many chunks; gives how many of them were compressed.
        fn chunks(&mut self, count: u32) -> u32 {
            let before = self.packed_chunks;
            for _ in 0..count {
                self.pass(Duration::from_micros(150));
                self.choice
                    .observe(Instant::from_start(self.now), self.traffic);
                let mut bytes = CHUNK;
                if self.choice.wants_trial() {
                    let trial = self.compress(4 * 4100);
                    self.choice.note(trial);
                    if self.choice.is_worth(trial) {
                        let whole = self.compress(CHUNK);
                        self.choice.note(whole);
                        bytes = whole.packed;
                        self.packed_chunks += 1;
                    }
                }
                self.send(bytes);
            }
            self.packed_chunks - before
        }
    }

    const MBIT: u64 = 125_000;

    #[test]
    fn a_slow_link_has_compressed_what_can_be_compressed() {
        for mbit in [1, 10, 100, 1_000] {
            let mut sim = Sim::new(mbit * MBIT, 500_000_000, 45);
            let first = sim.chunks(64);
            assert!(first >= 40, "{mbit} Mbit/s: {first} of the first 64");
            assert_eq!(sim.chunks(200), 200, "{mbit} Mbit/s");
            let link = sim.choice.link().expect("it was waited for");
            let off = link.abs_diff(mbit * MBIT);
            assert!(off * 4 < mbit * MBIT, "{link} measured at {mbit} Mbit/s");
        }
    }

    #[test]
    fn what_does_not_shrink_goes_as_it_is() {
        let mut sim = Sim::new(100 * MBIT, 500_000_000, 98);
        assert_eq!(sim.chunks(200), 0);
        // The content changes, and so does the choice.
        sim.left = 30;
        assert_eq!(sim.chunks(100), 100);
        sim.left = 98;
        assert_eq!(sim.chunks(100), 0);
    }

    #[test]
    fn a_fast_link_is_left_alone() {
        // Loopback, and a link that takes whatever the sender can make.
        for link in [500_000_000, 2_000_000_000] {
            let mut sim = Sim::new(link, 500_000_000, 45);
            assert_eq!(sim.chunks(400), 0, "{link}");
        }
    }

    #[test]
    fn a_link_that_becomes_slow_is_noticed_and_one_that_becomes_fast_too() {
        let mut sim = Sim::new(2_000_000_000, 500_000_000, 45);
        assert_eq!(sim.chunks(100), 0);
        sim.link = 50 * MBIT;
        sim.chunks(60);
        assert_eq!(sim.chunks(50), 50);
        sim.link = 2_000_000_000;
        sim.chunks(200);
        assert_eq!(sim.chunks(50), 0);
    }

    #[test]
    fn a_trial_that_was_interrupted_is_not_believed_for_ever() {
        let mut sim = Sim::new(200 * MBIT, 500_000_000, 45);
        sim.chunks(100);
        sim.compressor = 1_000_000;
        sim.chunks(3);
        sim.compressor = 500_000_000;
        sim.chunks(200);
        assert_eq!(sim.chunks(50), 50);
    }

    #[test]
    fn nothing_overflows() {
        let mut choice = PackingChoice::new();
        let all = Traffic {
            handed: u64::MAX,
            transmitted: u64::MAX,
            waited: Duration::MAX / 8,
        };
        choice.observe(Instant::START, Traffic::default());
        choice.observe(Instant::from_start(Duration::from_millis(3)), all);
        let trial = Trial {
            raw: u64::MAX,
            packed: u64::MAX,
            took: Duration::ZERO,
        };
        choice.note(trial);
        assert!(!choice.is_worth(trial));
        // A clock that goes back, and a transport that forgets.
        choice.observe(Instant::START, Traffic::default());
    }
}
