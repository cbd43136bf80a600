//! An agent that ends in the middle of its move: its memory goes first, then the end is written down, and only then is it
//! known.

use std::time::Duration;

use mielin_mesh_core::migration::SourceInput;

use super::Source;
use crate::error::CellsError;

/// How long a move waits for its agent's end, which has begun, to be known.
const PATIENCE: Duration = Duration::from_secs(5);

impl Source {
    /// What the coordinator is told of an error.
    pub(super) fn failed(&mut self, error: &CellsError) -> SourceInput {
        self.has_ended |= matches!(error, CellsError::Ended(_));
        SourceInput::Failed(error.to_string())
    }

    /// Whether the agent has ended. If it has, that is known when this returns.
    pub(super) async fn comes_to_its_end(&mut self) -> bool {
        if self.cell().lives() && !self.has_ended {
            return false;
        }
        let mut standing = self.cell().watch();
        let over = standing.wait_for(|standing| standing.state.is_final() || standing.gone);
        let _ = tokio::time::timeout(PATIENCE, over).await;
        self.has_ended || self.cell().state().is_final()
    }
}
