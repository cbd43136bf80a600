//! What a node writes down about an agent: that it is here, and how it ended.

use std::sync::atomic::Ordering;

use mielin_mesh_core::NodeId;

use super::Cell;
use crate::error::CellsError;
use crate::record::Record;
use crate::report::AgentEnd;

impl Cell {
    /// Writes the record of an agent that is new, before anybody is told of it, or of what has become of another.
    pub(crate) fn secure(&self) -> Result<(), CellsError> {
        self.secure_from(None)
    }

    /// The same for an agent that has come from another node, before that lets go of it.
    pub(crate) fn secure_from(&self, source: Option<NodeId>) -> Result<(), CellsError> {
        let written = self.logs.at_home(|home| {
            let record = Record::new(self, self.end());
            match source {
                Some(source) => home.ledger.arrive(home.agent, &record, source),
                None => home.ledger.record(home.agent, &record),
            }
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

    /// Has the record written soon, so that a later run of the node knows of the agent. Gives whether somebody must see
    /// to it, by [`flush`](crate::ledger::Ledger::flush).
    pub(crate) fn record_soon(&self) -> bool {
        let soon = self.logs.at_home(|home| {
            // An end that was written before this is not undone.
            self.end().is_none() && {
                let record = Record::new(self, None);
                home.ledger.record_soon(home.agent, &record)
            }
        });
        soon.unwrap_or(false)
    }

    /// Writes the record with the end that it then has, and makes that known.
    pub(crate) fn record_end(&self, end: AgentEnd) {
        let written = self.logs.at_home(|home| {
            // The first end counts.
            if self.end().is_some() {
                return Ok(());
            }
            let record = Record::new(self, Some(&end));
            let written = home.ledger.record_fact(home.agent, &record);
            // There is no second one, because the instance is gone.
            let _ = self.end.set(end.clone());
            written
        });
        match written {
            Some(Err(error)) => {
                tracing::error!(agent = %self.id(), %error, "the end of an agent could not be written yet; a restart before that does not know of it");
            }
            Some(Ok(())) => {}
            // Without a directory everything is kept in memory.
            None => {
                let _ = self.end.set(end);
            }
        }
    }
}
