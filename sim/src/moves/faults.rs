//! What goes wrong: chosen by chance, aimed at a phase of a move.

use std::time::Duration;

use mielin_mesh_core::MigrationPhase;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::world::Severed;

/// What happens to a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    SourceCrashes,
    TargetCrashes,
    /// Nothing gets from one to the other, or back, or both, for so long.
    Cut(Severed, Duration),
    /// The same between a fourth of the nodes, the target among them, and the others.
    Partition(Severed, Duration),
    StreamBreaks,
    Cancelled,
    SourceFails,
    TargetFails,
    /// The source takes the target for dead, and the target the source, which live.
    TakenForDead,
    /// The source is cut off from all; meanwhile the agent may go on to a third node, and then the target crashes.
    LeftBehind(Duration),
}

impl Fault {
    pub(super) fn any(random: &mut StdRng) -> Fault {
        let severed = [Severed::Both, Severed::Outward, Severed::Inward];
        let severed = severed[random.random_range(0..severed.len())];
        // Short ones are noticed by a late frame, long ones break streams and run into every limit of the cores.
        let lasts = match random.random_range(0..3) {
            0 => 100..1_000,
            1 => 1_000..8_000,
            _ => 8_000..45_000,
        };
        let lasts = Duration::from_millis(random.random_range(lasts));
        match random.random_range(0..20) {
            0 => Fault::SourceCrashes,
            1 | 2 => Fault::TargetCrashes,
            3..=7 => Fault::Cut(severed, lasts),
            8 | 9 => Fault::Partition(severed, lasts),
            10..=12 => Fault::StreamBreaks,
            13 => Fault::Cancelled,
            14 => Fault::SourceFails,
            15 | 16 => Fault::TargetFails,
            17 | 18 => Fault::TakenForDead,
            _ => Fault::LeftBehind(lasts),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Fault::SourceCrashes => "source crashes",
            Fault::TargetCrashes => "target crashes",
            Fault::Cut(Severed::Both, _) => "link cut",
            Fault::Cut(..) => "link cut one way",
            Fault::Partition(..) => "partition",
            Fault::StreamBreaks => "stream breaks",
            Fault::Cancelled => "cancelled",
            Fault::SourceFails => "source fails",
            Fault::TargetFails => "target fails",
            Fault::TakenForDead => "taken for dead",
            Fault::LeftBehind(_) => "cut off, then target crashes",
        }
    }
}

/// The name of a phase, of all rounds the same.
pub(super) fn phase_name(phase: &MigrationPhase) -> String {
    match phase {
        MigrationPhase::PreCopy(_) => "pre-copy".to_owned(),
        MigrationPhase::RolledBack(_) => "rolled back".to_owned(),
        phase => phase.to_string(),
    }
}
