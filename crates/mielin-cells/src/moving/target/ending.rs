//! How an agent that was started becomes this node's, or is given back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Target, unprepared};
use crate::cell::Cell;
use crate::error::CellsError;
use crate::ledger::Ledger;
use crate::lock::lock;

/// How long to wait before writing again what could not be written.
const SETTLE_PERIOD: Duration = Duration::from_secs(1);

/// Writes down that the agent stays, and what is owed to its source, however long that takes: its messages may wait for
/// it. False if the node stops first.
async fn settle(cell: Arc<Cell>, debts: Option<Arc<Ledger>>) -> bool {
    loop {
        let (settling, debts) = (Arc::clone(&cell), debts.clone());
        let writing = tokio::task::spawn_blocking(move || {
            if let Some(ledger) = debts {
                ledger.owe(settling.id(), settling.epoch())?;
            }
            settling.settle_here()
        });
        match writing.await {
            Ok(Ok(())) => return true,
            Ok(Err(CellsError::ShuttingDown)) => return false,
            Ok(Err(error)) => {
                tracing::error!(agent = %cell.id(), %error, "it could not be written down that an agent stays, and is tried again");
            }
            Err(error) => {
                tracing::error!(agent = %cell.id(), %error, "an agent could not be settled");
                return false;
            }
        }
        tokio::time::sleep(SETTLE_PERIOD).await;
    }
}

impl Drop for Target {
    /// Whatever ends this before the agent is this node's: the agent is not, and nobody has seen anything of it.
    fn drop(&mut self) {
        let Some(claim) = self.claim.take() else {
            return;
        };
        let cell = Arc::clone(claim.cell());
        drop(claim);
        self.node.drop_resident(&cell);
        cell.post.close();
        cell.logs.discard();
        // It has ended by itself, or ends at its next safepoint.
        let _ = cell.kill();
        lock(&self.node.arrivals).undo(cell.id(), cell.epoch());
    }
}

impl Target {
    /// Writes down that the agent is here, in a way that a crash survives.
    pub(super) async fn secure(&mut self) -> Result<(), CellsError> {
        // All pages are there; or the agent has ended, and nobody needs them.
        if let Some(following) = self.following.take() {
            following.end().await;
        }
        let (cell, source) = (self.started()?, self.from);
        let securing = tokio::task::spawn_blocking(move || cell.secure_from(Some(source)));
        securing
            .await
            .map_err(|error| CellsError::Internal(error.to_string()))??;
        self.claim = None;
        Ok(())
    }

    /// Stops the agent and drops it with all that it did.
    pub(super) async fn undo(&mut self) {
        // From here on it waits for no page, and sees zeros where one is missing; nobody will see what it does with
        // them.
        if let Some(following) = self.following.take() {
            following.end().await;
        }
        if let Ok(cell) = self.started() {
            if let Ok(held) = cell.hold().await {
                held.retire();
            }
            cell.post.close();
            self.node.drop_resident(&cell);
            cell.logs.discard();
        }
        self.claim = None;
    }

    pub(super) async fn confirm(&mut self, released: bool) {
        if let Ok(cell) = self.started() {
            let debts = (!released).then(|| Arc::clone(&self.node.ledger));
            let settling = settle(cell, debts);
            if released {
                // If the node crashes before that, it only does not know how the agent was lost.
                tokio::spawn(settling);
            } else if !settling.await {
                // The source may still ask: what it is told must be so after a crash as well.
                return;
            }
        }
        if let Some(guest) = &self.guest {
            guest.post.confirm();
            self.node.move_ended();
        }
    }

    fn started(&self) -> Result<Arc<Cell>, CellsError> {
        let guest = self.guest.as_ref().filter(|guest| guest.started);
        let agent = guest.ok_or_else(unprepared)?.identity.id;
        self.node.here(&agent).map_err(|_| CellsError::Ended(agent))
    }

    /// The source knows, as far as it can be told: now everybody may know that the agent is here.
    pub(super) fn reveal(&self) {
        let Some(entry) = &self.inbound else { return };
        entry.inbound.told.store(true, Ordering::Release);
        if let Ok(cell) = self.node.here(&entry.agent) {
            self.node.make_known(&cell);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Instant;

    use mielin_mesh_core::AgentId;

    use super::*;
    use crate::cell::tests::{agent_at, prepared, scheduler};
    use crate::ledger::tests::Disk;
    use crate::logs::Home;

    /// Its messages wait for that, however long the disk is full; and not if the node stops.
    #[tokio::test(flavor = "multi_thread")]
    async fn that_an_agent_stays_is_written_as_soon_as_the_disk_takes_it() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        let ledger = Arc::new(disk.ledger(directory.path()));
        let home = Home {
            agent: AgentId([7; 16]),
            directories: directory.path().join("agents").into(),
            ledger: Arc::clone(&ledger),
        };
        let waiting = r#"(module
            (import "mielin" "receive" (func $receive (param i32 i32 i64 i32) (result i32)))
            (memory (export "memory") 1)
            (func (export "_start")
                (drop (call $receive
                    (i32.const 1024) (i32.const 64) (i64.const -1) (i32.const 16)))))"#;
        let cell = agent_at(prepared(waiting), &scheduler(1), Some(home));
        disk.refuse(1);
        let began = Instant::now();
        assert!(settle(Arc::clone(&cell), Some(Arc::clone(&ledger))).await);
        assert!(began.elapsed() >= SETTLE_PERIOD && !disk.refuses());
        assert!(!cell.is_provisional());
        let entries = ledger.entries().unwrap();
        assert!(matches!(&entries[0].1.record, Some(Ok(record)) if record.is_settled()));
        assert_eq!(ledger.debts().unwrap(), [(cell.id(), cell.epoch())]);
        ledger.close();
        assert!(!settle(cell, None).await);
    }
}
