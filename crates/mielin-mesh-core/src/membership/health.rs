//! How far a node trusts its own eyes.
//!
//! A node that gets to everything late takes others for silent. So it keeps a score of its own health and, while that
//! is bad, waits longer for answers, probes less often, and buries nobody in haste: the local health multiplier of
//! Lifeguard (Dadgar, Phillips, Currey, "Lifeguard: Local Health Awareness for More Accurate Failure Detection", DSN
//! 2018, section IV.A). The score rises by one when a probe fails and when the node has to refute that it is dead, and
//! falls by one when a probe succeeds. It deviates in two points:
//!
//! - There are no negative acknowledgements, by which Lifeguard tells a dead member from a slow prober; foca has no such
//!   message. So a death costs each prober that meets it one point until its next success.
//! - A suspicion of this node's own waits longer too, from a score of 2 on. Lifeguard shortens suspicions that others
//!   confirm, which foca cannot.

use core::time::Duration;

/// The worst score, as in Lifeguard.
pub(super) const SCORE_MAX: u8 = 8;

/// What a node's own probes have taught it about itself.
#[derive(Debug, Default)]
pub(super) struct Health {
    score: u8,
    /// A probe's end is being looked at.
    judging: bool,
    failed: bool,
    incarnation: u16,
}

impl Health {
    /// 0 is well, [`SCORE_MAX`] is worst.
    pub(super) const fn score(&self) -> u8 {
        self.score
    }

    /// The time for an answer, or between probes.
    pub(super) fn patience(&self, usual: Duration) -> Duration {
        usual * (u32::from(self.score) + 1)
    }

    /// The time for a suspect to refute.
    pub(super) fn mercy(&self, usual: Duration) -> Duration {
        usual * u32::from(self.score).max(1)
    }

    /// The time of a probe is over; what became of it shows before [`Health::judged`].
    pub(super) fn judge(&mut self) {
        (self.judging, self.failed) = (true, false);
    }

    /// Somebody is suspected for an unanswered probe.
    pub(super) fn suspects(&mut self) {
        if self.judging && !self.failed {
            self.failed = true;
            self.worse();
        }
    }

    pub(super) fn judged(&mut self) {
        if self.judging && !self.failed {
            self.score = self.score.saturating_sub(1);
        }
        self.judging = false;
    }

    /// The node speaks with this incarnation now. A higher one is a refutation.
    pub(super) fn speaks(&mut self, incarnation: u16) {
        if incarnation > self.incarnation {
            self.worse();
        }
        self.incarnation = incarnation;
    }

    fn worse(&mut self) {
        self.score = (self.score + 1).min(SCORE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn probe(health: &mut Health, answered: bool) {
        health.judge();
        if !answered {
            health.suspects();
            health.suspects();
        }
        health.judged();
    }

    #[test]
    fn failures_and_refutations_cost_a_point_and_success_gives_it_back() {
        let mut health = Health::default();
        assert_eq!(
            (health.patience(SECOND), health.mercy(SECOND)),
            (SECOND, SECOND)
        );
        probe(&mut health, true);
        assert_eq!(health.score(), 0);
        probe(&mut health, false);
        assert_eq!(
            (health.patience(SECOND), health.mercy(SECOND)),
            (2 * SECOND, SECOND)
        );
        health.speaks(1);
        health.speaks(1);
        assert_eq!(
            (health.patience(SECOND), health.mercy(SECOND)),
            (3 * SECOND, 2 * SECOND)
        );
        probe(&mut health, true);
        assert_eq!(health.score(), 1);
        for _ in 0..20 {
            probe(&mut health, false);
        }
        assert_eq!(health.score(), SCORE_MAX);
        // A new life begins with no incarnation; that is no refutation.
        health.speaks(0);
        assert_eq!(health.score(), SCORE_MAX);
        // A suspicion for another reason than a probe says nothing about this node.
        let mut well = Health::default();
        well.suspects();
        assert_eq!(well.score(), 0);
    }
}
