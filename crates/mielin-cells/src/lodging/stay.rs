//! One agent on a leaf: what is kept of it here, in memory and on the disk.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use mielin_mesh_core::delivery::{self, Envelope};
use mielin_mesh_core::handover::{HandoverError, HostEnd, Letter, PostResult, Reason, Role};
use mielin_mesh_core::leaf::LeafNumber;
use mielin_mesh_core::{AgentId, Epoch, NodeId};
use mielin_safepoint::{Snapshot, SnapshotLimits};
use mielin_wasm::{Address, HostState, SendError};
use tokio::sync::{Notify, watch};

use crate::cell::Cell;
use crate::error::CellsError;
use crate::lock::lock;
use crate::node::Node;
use crate::persist::SNAPSHOT;
use crate::post::kind_of;
use crate::record::write;
use crate::spawn::host_calls;
use crate::stored::{CheckpointError, StayHold, StayRecord, Stored};
use crate::tally::Tally;

/// The most that an agent on a leaf may have of host state and stack: a leaf has no more memory than that.
const HOST_BYTES_MAX: u64 = 1 << 20;

/// An agent that is on a leaf, on its way there, or on its way back.
pub(super) struct Stay {
    cell: Arc<Cell>,
    leaf: NodeId,
    number: LeafNumber,
    directory: PathBuf,
    inner: Mutex<Inner>,
    /// One writes at a time, in the order of what is written.
    writing: tokio::sync::Mutex<()>,
    changed: Notify,
    phase: watch::Sender<Phase>,
}

struct Inner {
    /// What is on the disk, but for the messages.
    stored: Stored,
    record: StayRecord,
    /// The mail that the leaf wants.
    wanted: Option<u64>,
    /// The message of the agent that is answered when it is stored.
    unanswered: Option<(u64, u64)>,
    /// Mail could not be given to the leaf's end, which was full.
    is_blocked: bool,
    /// Its user wants it here.
    is_asked_for: bool,
    /// It is on the disk as an agent that is here.
    is_at_home: bool,
    /// The length of the checkpoint that came back.
    came_bytes: u64,
}

/// How far a stay is, for whoever waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It is being given to the leaf.
    Going,
    /// The leaf has it.
    There,
    /// It is here again, because the leaf did not take it; or because the move was given up.
    Refused(Option<Reason>),
    /// It is here again.
    Home,
    /// The leaf has lost it.
    Lost,
}

impl Phase {
    pub(super) const fn is_over(&self) -> bool {
        matches!(self, Phase::Refused(_) | Phase::Home | Phase::Lost)
    }
}

impl Stay {
    /// Of an agent that is to go there, and that is stored like this.
    pub(super) fn new(
        cell: &Arc<Cell>,
        (leaf, number): (NodeId, LeafNumber),
        directory: PathBuf,
        stored: Stored,
        epoch: Epoch,
    ) -> Stay {
        let record = StayRecord {
            leaf: leaf.0,
            number: number.0,
            epoch: epoch.0,
            hold: StayHold::Giving,
            taken: 0,
            posted: 0,
            sequence: 0,
        };
        Stay::with(cell, directory, stored, record, Phase::Going)
    }

    /// Of one that is stored. None if it was never let go: it is here.
    pub(super) fn restored(cell: &Arc<Cell>, directory: PathBuf, stored: Stored) -> Option<Stay> {
        let record = stored.stay.clone()?;
        (record.hold != StayHold::Giving)
            .then(|| Stay::with(cell, directory, stored, record, Phase::There))
    }

    fn with(
        cell: &Arc<Cell>,
        directory: PathBuf,
        stored: Stored,
        record: StayRecord,
        phase: Phase,
    ) -> Stay {
        Stay {
            cell: Arc::clone(cell),
            leaf: NodeId(record.leaf),
            number: LeafNumber(record.number),
            directory,
            inner: Mutex::new(Inner {
                stored,
                record,
                wanted: None,
                unanswered: None,
                is_blocked: false,
                is_asked_for: false,
                is_at_home: false,
                came_bytes: 0,
            }),
            writing: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            phase: watch::Sender::new(phase),
        }
    }

    pub(super) fn cell(&self) -> &Arc<Cell> {
        &self.cell
    }

    pub(super) fn agent(&self) -> AgentId {
        self.cell.id()
    }

    /// Which leaf it is.
    pub(super) fn leaf(&self) -> NodeId {
        self.leaf
    }

    /// By which admission.
    pub(super) fn number(&self) -> LeafNumber {
        self.number
    }

    pub(super) fn epoch(&self) -> Epoch {
        Epoch(lock(&self.inner).record.epoch)
    }

    pub(super) fn watch(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(super) fn is_there(&self) {
        self.phase.send_replace(Phase::There);
        self.stir();
    }

    pub(super) fn is_refused(&self, reason: Option<Reason>) {
        self.phase.send_replace(Phase::Refused(reason));
    }

    pub(super) fn is_home(&self) {
        self.phase.send_replace(Phase::Home);
    }

    pub(super) fn is_lost(&self) {
        self.phase.send_replace(Phase::Lost);
    }

    /// Something may be to be stored, or to be said.
    pub(super) fn stir(&self) {
        self.changed.notify_one();
    }

    pub(super) async fn stirred(&self) {
        self.changed.notified().await;
    }

    /// Says, at a start, what is written down.
    pub(super) fn restore_into(&self, core: &mut HostEnd) -> Result<(), HandoverError> {
        let inner = lock(&self.inner);
        let record = &inner.record;
        match record.hold {
            StayHold::Giving => Ok(()),
            StayHold::Taken { epoch } => core.restore(self.agent(), Epoch(epoch), Role::Taken),
            StayHold::Away => {
                core.restore(self.agent(), Epoch(record.epoch), Role::Away)?;
                let last = (record.posted > 0).then_some(PostResult::Sent {
                    sequence: record.sequence,
                });
                core.remember_posts(self.agent(), record.posted, last)
            }
        }
    }

    /// Says who may run it from now on. It has to be [stored](Stay::store).
    pub(super) fn hold(&self, hold: StayHold) {
        lock(&self.inner).record.hold = hold;
    }

    /// It is on the leaf in this stay. In another one than was known the numbers of its messages begin anew.
    pub(super) fn is_away_in(&self, epoch: Epoch) {
        let mut inner = lock(&self.inner);
        if inner.record.epoch != epoch.0 {
            inner.record.epoch = epoch.0;
            inner.record.taken = 0;
            inner.record.posted = 0;
        }
        inner.record.hold = StayHold::Away;
    }

    /// Whether the leaf cannot have run it so far.
    pub(super) fn is_given(&self) -> bool {
        lock(&self.inner).record.hold == StayHold::Giving
    }

    /// The leaf has taken all mail below this number in this stay.
    pub(super) fn has_taken(&self, epoch: Epoch, taken: u64) {
        let mut inner = lock(&self.inner);
        if inner.record.epoch == epoch.0 {
            self.drop_taken(&mut inner, taken);
        }
    }

    fn drop_taken(&self, inner: &mut Inner, taken: u64) {
        while inner.record.taken < taken && self.cell.post.take().is_some() {
            inner.record.taken += 1;
            self.cell.post.changed();
        }
    }

    /// The leaf wants the mail of this number, and has taken all before.
    pub(super) fn want(&self, next: u64) {
        let mut inner = lock(&self.inner);
        self.drop_taken(&mut inner, next);
        inner.wanted = Some(next);
        drop(inner);
        self.stir();
    }

    /// Takes a message of the agent for sending. It is answered when it is stored; if it is refused, at once.
    pub(super) fn post(
        &self,
        number: u64,
        to: AgentId,
        kind: delivery::MessageKind,
        payload: &[u8],
    ) -> Option<PostResult> {
        let mut inner = lock(&self.inner);
        let tally = &self.cell.tally;
        if !tally.may_send() {
            return Some(PostResult::Full);
        }
        let taken = || tally.sent();
        let sent = self
            .cell
            .post
            .send_of_lodged(to, kind_of(kind), payload, taken);
        match sent {
            Ok(sequence) => {
                inner.record.posted = number.saturating_add(1);
                inner.record.sequence = sequence;
                inner.unanswered = Some((number, sequence));
                drop(inner);
                self.stir();
                None
            }
            Err(SendError::Full) => Some(PostResult::Full),
            Err(SendError::TooLarge { .. }) => Some(PostResult::TooLarge),
            Err(SendError::Unknown) => Some(PostResult::Unknown),
            Err(SendError::Closed) => Some(PostResult::Closed),
        }
    }

    /// Says what is due now that everything is stored: what became of a message, and the mail that is wanted.
    pub(super) fn say_stored(&self, core: &mut HostEnd) {
        let (agent, epoch) = (self.agent(), self.epoch());
        let mut inner = lock(&self.inner);
        // Something has come since: whatever it was has stirred this again.
        if self.cell.post.is_unstored() {
            return;
        }
        if let Some((number, sequence)) = inner.unanswered.take() {
            // If the leaf has started its streams anew, it asks again.
            let _ = core.posted(agent, epoch, number, PostResult::Sent { sequence });
        }
        let Some(next) = inner.wanted else { return };
        if next != inner.record.taken {
            return;
        }
        let Some(mail) = self.cell.post.peek() else {
            return;
        };
        let letter = letter(&mail);
        match core.mail(agent, epoch, next, letter, &mail.payload) {
            Ok(()) | Err(HandoverError::NotWanted) => inner.wanted = None,
            Err(_) => inner.is_blocked = true,
        }
    }

    /// There may be room again in the leaf's end.
    pub(super) fn unblock(&self) {
        if std::mem::take(&mut lock(&self.inner).is_blocked) {
            self.stir();
        }
    }

    /// Its user wants it here, and it is not to go back by itself.
    pub(super) fn is_asked_for(&self) {
        lock(&self.inner).is_asked_for = true;
    }

    pub(super) fn came_bytes(&self) -> u64 {
        lock(&self.inner).came_bytes
    }

    pub(super) fn was_asked_for(&self) -> bool {
        lock(&self.inner).is_asked_for
    }

    /// Writes all of it, before anything else of it is there; blocks.
    pub(super) fn store_now(&self) -> Result<(), CellsError> {
        let inner = lock(&self.inner);
        let stored = inner.stored.clone().staying(Some(inner.record.clone()));
        write(&self.directory.join(SNAPSHOT), &stored.encode())
            .map_err(CellsError::io("writing a snapshot"))
    }

    /// Writes all of it; it is on the disk when this returns.
    pub(super) async fn store(&self) -> Result<(), CellsError> {
        self.write(true).await
    }

    /// The same of an agent that is here, and asleep until it is woken.
    pub(super) async fn store_at_home(&self) -> Result<(), CellsError> {
        self.write(false).await
    }

    async fn write(&self, away: bool) -> Result<(), CellsError> {
        let _alone = self.writing.lock().await;
        let (stored, changes) = {
            let mut inner = lock(&self.inner);
            if inner.is_at_home {
                return Ok(());
            }
            inner.is_at_home = !away;
            let (outbox, inbox, changes) = self.cell.post.encode_lodged();
            let stay = away.then(|| inner.record.clone());
            let stored = inner.stored.clone().with_post(outbox, inbox);
            (stored.staying(stay), changes)
        };
        let path = self.directory.join(SNAPSHOT);
        let writing = tokio::task::spawn_blocking(move || write(&path, &stored.encode()));
        let written = writing
            .await
            .map_err(|error| CellsError::Internal(error.to_string()))
            .and_then(|written| written.map_err(CellsError::io("writing a snapshot")));
        match written {
            Ok(()) => self.cell.post.stored(changes),
            Err(_) => lock(&self.inner).is_at_home = false,
        }
        written
    }

    /// Takes the program that has come back, if it can go on here.
    pub(super) async fn take_in(&self, node: &Arc<Node>, bytes: Vec<u8>) -> Result<(), CellsError> {
        let stored = lock(&self.inner).stored.clone();
        let came_bytes = bytes.len() as u64;
        let (node, cell) = (Arc::clone(node), Arc::clone(&self.cell));
        let reading = tokio::task::spawn_blocking(move || read_back(&node, &cell, stored, &bytes));
        let stored = reading
            .await
            .map_err(|error| CellsError::Internal(error.to_string()))??;
        let mut inner = lock(&self.inner);
        inner.stored = stored;
        inner.came_bytes = came_bytes;
        Ok(())
    }
}

/// What a leaf has given back: the program alone, which must be one of the same module with the same rights.
fn read_back(
    node: &Node,
    cell: &Cell,
    mut stored: Stored,
    bytes: &[u8],
) -> Result<Stored, CellsError> {
    let identity = &cell.identity;
    let limits = SnapshotLimits {
        memory_bytes: identity.limits.memory_bytes,
        host_bytes: HOST_BYTES_MAX,
        ..SnapshotLimits::default()
    };
    let snapshot = Snapshot::decode(bytes, &limits).map_err(CheckpointError::Snapshot)?;
    if snapshot.module != stored.snapshot.module {
        return Err(CheckpointError::OtherModule {
            named: stored.snapshot.module,
            found: snapshot.module,
        }
        .into());
    }
    stored.snapshot = snapshot;
    let prepared = stored.take_back(node)?;
    // Nothing that the trial does is seen by anybody: it does not run.
    let tally = Arc::new(Tally::resumed(&identity.budget, &cell.tally.tallied()));
    let services = host_calls(identity, &cell.logs, &cell.post, &tally);
    let state = HostState::new(Address(cell.id().0));
    let mut instance = prepared.instantiate(state, services, &identity.limits)?;
    stored.load(instance.as_mut(), Some(&identity.grants))?;
    Ok(stored)
}

fn letter(mail: &Envelope) -> Letter {
    Letter {
        from: mail.source,
        sequence: mail.sequence,
        kind: mail.kind,
    }
}
