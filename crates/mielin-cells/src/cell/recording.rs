//! What a node writes down about an agent: that it is here, and how it ended.

use std::sync::atomic::Ordering;

use super::Cell;
use crate::error::CellsError;
use crate::record::Record;
use crate::report::AgentEnd;

impl Cell {
    /// Writes the record of an agent that has come, before its source lets go.
    pub(crate) fn secure(&self) -> Result<(), CellsError> {
        let written = self.logs.at_home(|home| {
            let record = Record::new(self, self.end());
            home.ledger.record(home.agent, &record)
        });
        written.unwrap_or(Ok(()))?;
        self.secured.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether it runs here and may yet be given back to its source: nobody may see anything of it.
    pub(crate) fn is_provisional(&self) -> bool {
        !self.secured.load(Ordering::Acquire)
    }

    /// Its source is known to have let go of it, or is answered as if it had. On the disk when this returns.
    ///
    /// # Errors
    /// It could not be written down.
    pub(crate) fn settle_here(&self) -> Result<(), CellsError> {
        self.settled.store(true, Ordering::Release);
        self.secure()
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    /// Writes the record, so that a later run of the node knows of the agent; makes the end known that it then has.
    pub(crate) fn keep_record(&self, end: Option<AgentEnd>) {
        let written = self.logs.at_home(|home| {
            // An end that was written before this is not undone.
            if self.end().is_some() {
                return Ok(());
            }
            let record = Record::new(self, end.as_ref());
            let written = home.ledger.record(home.agent, &record);
            if let Some(end) = &end {
                // The first end counts; there is no second, because the instance is gone.
                let _ = self.end.set(end.clone());
            }
            written
        });
        match (written, end) {
            (Some(Err(error)), _) => {
                tracing::error!(agent = %self.id(), %error, "the record of an agent could not be written; a restart forgets it");
            }
            // Without a directory everything is kept in memory.
            (None, Some(end)) => {
                let _ = self.end.set(end);
            }
            (Some(Ok(())) | None, _) => {}
        }
    }
}
