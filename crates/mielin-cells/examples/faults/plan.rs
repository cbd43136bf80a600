//! What goes wrong in a run: every boundary of phases on both sides for every strategy, and random moments.

use std::time::Duration;

use mielin_cells::MoveSide;
use mielin_mesh_core::MigrationStrategy;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

/// Phases as each side goes through them.
const AT_SOURCE: [&str; 10] = [
    "planning",
    "preparing",
    "pre-copy 1",
    "pre-copy 2",
    "freezing",
    "transferring",
    "committing",
    "resuming",
    "post-copy",
    "securing",
];
const AT_TARGET: [&str; 9] = [
    "preparing",
    "pre-copy 1",
    "pre-copy 2",
    "transferring",
    "committing",
    "resuming",
    "post-copy",
    "securing",
    "complete",
];
/// Random moments are within this time of the beginning of the move.
const MOMENTS: Duration = Duration::from_millis(60);
/// A process that is cut off comes back after so long; more than membership's patience at the most.
const CUT_MS: std::ops::Range<u64> = 200..8_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    Source,
    Target,
    /// What carries everything between the two, which cannot dial each other.
    Relay,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// When the victim's side of the move comes to this phase.
    Phase(&'static str),
    /// So long after the request.
    After(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// `kill -9`; the process is started again afterwards.
    Kill,
    /// The stream of the move breaks, and nothing else.
    Break,
    /// The process stands still, as if it were cut off, and goes on after this time.
    CutOff(Duration),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) strategy: MigrationStrategy,
    pub(crate) victim: Victim,
    pub(crate) when: When,
    pub(crate) harm: Harm,
}

impl Plan {
    pub(crate) fn side(&self) -> Option<MoveSide> {
        match self.victim {
            Victim::Source => Some(MoveSide::Source),
            Victim::Target => Some(MoveSide::Target),
            Victim::Relay => None,
        }
    }

    /// Whether the agent may be lost with the process that was killed: it held what nobody else had.
    pub(crate) fn may_lose(&self, moved: bool) -> bool {
        match (self.harm, self.victim, self.when) {
            (Harm::Kill, Victim::Source, When::Phase(phase)) => phase != "securing",
            (Harm::Kill, Victim::Source, When::After(_)) => true,
            (Harm::Kill, Victim::Target, When::Phase(phase)) => phase == "complete",
            (Harm::Kill, Victim::Target, When::After(_)) => moved,
            _ => false,
        }
    }
}

/// The plans of so many runs: the whole matrix in a random order, and then, or for want of room, a part of it.
pub(crate) fn plans(runs: usize, seed: u64) -> Vec<Plan> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut plans = Vec::new();
    while plans.len() < runs {
        let mut matrix = matrix(&mut rng);
        matrix.shuffle(&mut rng);
        plans.extend(matrix);
    }
    plans.truncate(runs);
    plans
}

fn matrix(rng: &mut StdRng) -> Vec<Plan> {
    let mut plans = Vec::new();
    for strategy in MigrationStrategy::ALL {
        let mut add = |victim, when, harm| {
            plans.push(Plan {
                strategy,
                victim,
                when,
                harm,
            });
        };
        for phase in AT_SOURCE {
            add(Victim::Source, When::Phase(phase), Harm::Kill);
            add(Victim::Source, When::Phase(phase), Harm::Break);
        }
        for phase in AT_TARGET {
            add(Victim::Target, When::Phase(phase), Harm::Kill);
            add(Victim::Target, When::Phase(phase), Harm::Break);
        }
        for victim in [Victim::Source, Victim::Target, Victim::Relay] {
            for _ in 0..2 {
                let mut moment = || When::After(MOMENTS.mul_f64(rng.random()));
                add(victim, moment(), Harm::Kill);
                let moment = moment();
                let span = Duration::from_millis(rng.random_range(CUT_MS));
                add(victim, moment, Harm::CutOff(span));
            }
        }
    }
    plans
}
