//! What a node must know of agents after it was killed: one small database beside their directories.
//!
//! A [`Record`] says who an agent of this node is, in which epoch, whether its source has let go of it, and how it
//! ended. A [`Departure`] says that it may have been handed over to another node. A debt says what its former source is
//! told although the agent has gone on from here. Each is written, durably, before the
//! other side of a move may rely on it (`docs/MIGRATION.md`): a record before the target says that it has the agent, a
//! departure before the source says that it may start it.
//!
//! What cannot be written is refused to whoever can undo what it says. The rest, such as the end of an agent, waits, and is
//! written before anything later, once the disk takes it.

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use mielin_mesh_core::codec::{self, CodecError};
use mielin_mesh_core::limits::ARRIVALS_MAX;
use mielin_mesh_core::{AgentId, Epoch, NodeId};
use oxicode::{Decode, Encode};
use redb::backends::{FileBackend, InMemoryBackend};
use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend, Table,
    TableDefinition, TableError,
};
use tokio::sync::Notify;

use crate::error::CellsError;
use crate::lock::lock;
use crate::private;
use crate::record::{Record, RecordError};

/// The name of the file.
const FILE: &str = "ledger.redb";
const RECORDS: TableDefinition<'_, [u8; 16], &[u8]> = TableDefinition::new("records");
const DEPARTURES: TableDefinition<'_, [u8; 16], &[u8]> = TableDefinition::new("departures");
/// Where agents came from whose records do not say that their sources have let go.
const SOURCES: TableDefinition<'_, [u8; 16], [u8; 32]> = TableDefinition::new("sources");
const DEBTS: TableDefinition<'_, [u8; 16], (u64, u64)> = TableDefinition::new("debts");
/// Pages of the database kept in memory: it is written more often than read.
const CACHE_BYTES: usize = 4 << 20;

/// An agent is being handed over, or was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Departure {
    target: [u8; 32],
    epoch: u64,
}

impl Departure {
    /// To `target`, which gets it in this epoch.
    pub(crate) fn new(target: NodeId, epoch: Epoch) -> Departure {
        Departure {
            target: target.0,
            epoch: epoch.0,
        }
    }

    pub(crate) fn target(&self) -> NodeId {
        NodeId(self.target)
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }
}

/// What the ledger has of one agent.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub(crate) record: Option<Result<Record, RecordError>>,
    pub(crate) departure: Option<Departure>,
    pub(crate) source: Option<NodeId>,
}

pub(crate) struct Ledger {
    state: Mutex<State>,
    open: Opener,
    queue: Mutex<Queue>,
    /// There is something that could not be written, and is to be tried again.
    pub(crate) unwritten: Arc<Notify>,
}

type Opener = Box<dyn Fn() -> Result<Database, CellsError> + Send + Sync>;

enum State {
    Open(Database),
    /// The disk has failed, after which redb refuses everything until the database is opened anew.
    Failed,
    /// The node has stopped.
    Closed,
}

/// What waits to be written. Whoever has the database writes all of it in one transaction, because a transaction costs
/// what the disk takes to synchronize, however much is in it.
#[derive(Default)]
struct Queue {
    changes: Vec<Waiting>,
    /// What becomes of these changes.
    batch: Arc<Batch>,
    /// Somebody is going to write them without waiting for anybody.
    flushing: bool,
    /// The last ones could not be written.
    failing: bool,
}

struct Waiting {
    agent: AgentId,
    change: Change,
    /// Nobody undoes what it says if it cannot be written: it waits on, before all that comes later.
    stays: bool,
}

/// Set once the changes have been written, or could not be.
#[derive(Default)]
struct Batch(OnceLock<Result<(), Refusal>>);

/// Why the changes of a batch were not written; for each who waits for one of them.
#[derive(Clone)]
enum Refusal {
    Closed,
    Unusable { what: String, reason: String },
}

enum Change {
    Record(Vec<u8>),
    Arrive(Vec<u8>, NodeId),
    Depart(Vec<u8>),
    Stay,
    Owe(Epoch),
    Forget,
}

/// What of an agent a change overwrites.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Topic {
    Record,
    Departure,
    Debt,
    All,
}

impl Ledger {
    /// The ledger in a directory, which is made if it is not there; without one it is kept in memory.
    pub(crate) fn open(directory: Option<&Path>) -> Result<Ledger, CellsError> {
        let Some(directory) = directory else {
            return Ledger::over("a ledger in memory", || Ok(InMemoryBackend::new()));
        };
        private::create_folder(directory).map_err(CellsError::io("making a directory"))?;
        let path = directory.join(FILE);
        let name = path.display().to_string();
        Ledger::over(&name, move || file(&path))
    }

    /// The ledger in what `backend` opens, which it does again after a failure.
    pub(crate) fn over<B: StorageBackend>(
        name: &str,
        backend: impl Fn() -> Result<B, redb::Error> + Send + Sync + 'static,
    ) -> Result<Ledger, CellsError> {
        let name = name.to_owned();
        let open = move || {
            let mut builder = Database::builder();
            builder.set_cache_size(CACHE_BYTES);
            let database = backend().and_then(|backend| Ok(builder.create_with_backend(backend)?));
            database.map_err(unusable(&name))
        };
        Ok(Ledger {
            state: Mutex::new(State::Open(open()?)),
            open: Box::new(open),
            queue: Mutex::default(),
            unwritten: Arc::default(),
        })
    }

    /// Writes what waits and lets go of the file. What is written later is refused.
    pub(crate) fn close(&self) {
        self.commit().ok();
        *lock(&self.state) = State::Closed;
    }

    /// Writes a record; it is on the disk when this returns. If it could not be written it is forgotten.
    pub(crate) fn record(&self, agent: AgentId, record: &Record) -> Result<(), CellsError> {
        self.write(agent, Change::Record(record.encode()), false)
    }

    /// The same for an agent that has come from `source`, which may not have let go of it.
    pub(crate) fn arrive(
        &self,
        agent: AgentId,
        record: &Record,
        source: NodeId,
    ) -> Result<(), CellsError> {
        self.write(agent, Change::Arrive(record.encode(), source), false)
    }

    /// The same for what is so whether or not it can be written: it is tried again until it is.
    pub(crate) fn record_fact(&self, agent: AgentId, record: &Record) -> Result<(), CellsError> {
        self.write(agent, Change::Record(record.encode()), true)
    }

    /// Has a record written soon, or as soon as the disk takes it. Gives whether the caller must see to it that somebody
    /// calls [`flush`](Self::flush).
    pub(crate) fn record_soon(&self, agent: AgentId, record: &Record) -> bool {
        let change = Change::Record(record.encode());
        let mut queue = lock(&self.queue);
        queue.changes.push(Waiting::to_stay(agent, change));
        !std::mem::replace(&mut queue.flushing, true)
    }

    /// Writes what waits until nothing does, or the disk refuses it.
    pub(crate) fn flush(&self) {
        loop {
            // It has been said.
            let written = self.commit().is_ok();
            let mut queue = lock(&self.queue);
            if queue.changes.is_empty() || !written {
                queue.flushing = false;
                return;
            }
        }
    }

    /// Notes that an agent is about to be handed over; likewise.
    pub(crate) fn depart(&self, agent: AgentId, departure: &Departure) -> Result<(), CellsError> {
        self.write(agent, Change::Depart(codec::encode(departure)), false)
    }

    /// Notes that it was not; tried again until it is written.
    pub(crate) fn stay(&self, agent: AgentId) -> Result<(), CellsError> {
        self.write(agent, Change::Stay, true)
    }

    /// Notes that a source that asks is told for ever that the agent was here in this epoch, also when it has gone on, or
    /// has ended and is forgotten. The last [`ARRIVALS_MAX`] of these are kept.
    pub(crate) fn owe(&self, agent: AgentId, epoch: Epoch) -> Result<(), CellsError> {
        self.write(agent, Change::Owe(epoch), false)
    }

    /// What was noted so.
    pub(crate) fn debts(&self) -> Result<Vec<(AgentId, Epoch)>, CellsError> {
        let mut state = lock(&self.state);
        let database = self.database(&mut state)?;
        let reading = || -> Result<_, redb::Error> {
            let read = database.begin_read()?;
            let Some(debts) = existing(read.open_table(DEBTS))? else {
                return Ok(Vec::new());
            };
            let mut owed = Vec::new();
            for row in debts.iter()? {
                let (agent, debt) = row?;
                let (_, epoch) = debt.value();
                owed.push((AgentId(agent.value()), Epoch(epoch)));
            }
            Ok(owed)
        };
        reading().map_err(|error| unusable("the ledger of agents")(error))
    }

    /// Knows nothing of an agent any more but what is owed.
    pub(crate) fn forget(&self, agent: AgentId) -> Result<(), CellsError> {
        self.write(agent, Change::Forget, false)
    }

    /// The same as soon as the disk takes it.
    pub(crate) fn forget_later(&self, agent: AgentId) {
        let change = Change::Forget;
        lock(&self.queue)
            .changes
            .push(Waiting::to_stay(agent, change));
        self.unwritten.notify_one();
    }

    /// Everything there is, by agent.
    pub(crate) fn entries(&self) -> Result<Vec<(AgentId, Entry)>, CellsError> {
        let mut state = lock(&self.state);
        let database = self.database(&mut state)?;
        let reading = || -> Result<_, redb::Error> {
            let read = database.begin_read()?;
            let mut entries = std::collections::BTreeMap::<AgentId, Entry>::new();
            if let Some(records) = existing(read.open_table(RECORDS))? {
                for row in records.iter()? {
                    let (agent, bytes) = row?;
                    let agent = AgentId(agent.value());
                    let record = Record::decode_of(agent, bytes.value());
                    entries.entry(agent).or_default().record = Some(record);
                }
            }
            if let Some(departures) = existing(read.open_table(DEPARTURES))? {
                for row in departures.iter()? {
                    let (agent, bytes) = row?;
                    let departure: Result<Departure, CodecError> = codec::decode(bytes.value());
                    // One that cannot be read says at least nothing wrong: whoever has the agent has published it.
                    entries.entry(AgentId(agent.value())).or_default().departure = departure.ok();
                }
            }
            if let Some(sources) = existing(read.open_table(SOURCES))? {
                for row in sources.iter()? {
                    let (agent, source) = row?;
                    entries.entry(AgentId(agent.value())).or_default().source =
                        Some(NodeId(source.value()));
                }
            }
            Ok(entries.into_iter().collect())
        };
        reading().map_err(|error| unusable("the ledger of agents")(error))
    }

    /// Writes a change, after those that wait already; it is on the disk when this returns.
    fn write(&self, agent: AgentId, change: Change, stays: bool) -> Result<(), CellsError> {
        let batch = {
            let mut queue = lock(&self.queue);
            queue.changes.push(Waiting {
                agent,
                change,
                stays,
            });
            Arc::clone(&queue.batch)
        };
        // If it was not among them, somebody else had it, who is done.
        self.commit().ok();
        match batch.0.get() {
            Some(result) => result.clone().map_err(CellsError::from),
            None => unreachable!("whoever takes a batch ends it before letting go of the database"),
        }
    }

    /// Writes what waits.
    fn commit(&self) -> Result<(), Refusal> {
        let mut state = lock(&self.state);
        let (changes, batch) = {
            let mut queue = lock(&self.queue);
            let batch = std::mem::take(&mut queue.batch);
            (std::mem::take(&mut queue.changes), batch)
        };
        if changes.is_empty() {
            return Ok(());
        }
        let result = self.write_to(&mut state, &changes);
        // Before anybody else can write what comes later.
        self.note(changes, &result);
        // Nobody else has this batch to end.
        let _ = batch.0.set(result.clone());
        result
    }
}

impl Ledger {
    /// Says what became of changes, and has those wait on that are to be tried again.
    fn note(&self, changes: Vec<Waiting>, result: &Result<(), Refusal>) {
        let mut queue = lock(&self.queue);
        let was_failing = std::mem::replace(&mut queue.failing, result.is_err());
        let refusal = match result {
            Ok(()) if was_failing => {
                tracing::info!("what a restart must know of agents is written again");
                return;
            }
            Ok(()) => return,
            Err(refusal) => refusal,
        };
        let error = CellsError::from(refusal.clone());
        // Not all of them have somebody who waits for that; and it is said once, however often it is tried.
        if was_failing {
            tracing::debug!(%error, "it still cannot be written");
        } else {
            tracing::error!(%error, "what a restart must know of agents could not be written");
        }
        if matches!(refusal, Refusal::Closed) {
            return;
        }
        let mut waiting = to_try_again(changes);
        if !waiting.is_empty() {
            waiting.append(&mut queue.changes);
            queue.changes = waiting;
            self.unwritten.notify_one();
        }
    }

    fn write_to(&self, state: &mut State, changes: &[Waiting]) -> Result<(), Refusal> {
        let database = self.database(state)?;
        let result = written(database, changes);
        if matches!(result, Err(redb::Error::Io(_) | redb::Error::PreviousIo)) {
            *state = State::Failed;
        }
        result.map_err(Refusal::of)
    }

    /// The database, opened anew if the disk has failed.
    fn database<'a>(&self, state: &'a mut State) -> Result<&'a Database, Refusal> {
        if matches!(state, State::Failed) {
            let opened = (self.open)().map_err(|error| Refusal::Unusable {
                what: "opening the ledger of agents again".to_owned(),
                reason: error.to_string(),
            })?;
            *state = State::Open(opened);
        }
        match state {
            State::Open(database) => Ok(database),
            State::Failed | State::Closed => Err(Refusal::Closed),
        }
    }
}

/// The file of a ledger, which is made if it is not there.
fn file(path: &Path) -> Result<FileBackend, redb::Error> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let file = options.mode(0o600).open(path)?;
    Ok(FileBackend::new(file)?)
}

impl Waiting {
    fn to_stay(agent: AgentId, change: Change) -> Waiting {
        Waiting {
            agent,
            change,
            stays: true,
        }
    }
}

/// Of changes that could not be written, those that wait on: of each agent no more than what the last ones leave of it,
/// however long the disk is full.
fn to_try_again(changes: Vec<Waiting>) -> Vec<Waiting> {
    let mut overwritten = HashSet::new();
    let mut last = Vec::new();
    for waiting in changes.into_iter().filter(|one| one.stays).rev() {
        let agent = waiting.agent;
        let (topic, further) = match &waiting.change {
            Change::Record(_) | Change::Arrive(..) => (Topic::Record, &[][..]),
            Change::Depart(_) | Change::Stay => (Topic::Departure, &[][..]),
            Change::Owe(_) => (Topic::Debt, &[][..]),
            Change::Forget => (Topic::All, &[Topic::Record, Topic::Departure][..]),
        };
        if overwritten.insert((agent, topic)) {
            overwritten.extend(further.iter().map(|topic| (agent, *topic)));
            last.push(waiting);
        }
    }
    last.reverse();
    last
}

fn written(database: &Database, changes: &[Waiting]) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    {
        let mut records = write.open_table(RECORDS)?;
        let mut departures = write.open_table(DEPARTURES)?;
        for Waiting { agent, change, .. } in changes {
            match change {
                Change::Record(record) => drop(records.insert(agent.0, &record[..])?),
                Change::Arrive(record, source) => {
                    drop(records.insert(agent.0, &record[..])?);
                    drop(write.open_table(SOURCES)?.insert(agent.0, source.0)?);
                }
                Change::Depart(departure) => drop(departures.insert(agent.0, &departure[..])?),
                Change::Stay => drop(departures.remove(agent.0)?),
                Change::Owe(epoch) => {
                    let mut debts = write.open_table(DEBTS)?;
                    note_debt(&mut debts, *agent, *epoch, ARRIVALS_MAX as u64)?;
                }
                Change::Forget => {
                    drop(records.remove(agent.0)?);
                    drop(departures.remove(agent.0)?);
                    drop(write.open_table(SOURCES)?.remove(agent.0)?);
                }
            }
        }
    }
    write.commit()?;
    Ok(())
}

/// Notes a debt, and forgets the oldest one if there are more than so many.
fn note_debt(
    debts: &mut Table<'_, [u8; 16], (u64, u64)>,
    agent: AgentId,
    epoch: Epoch,
    max: u64,
) -> Result<(), redb::Error> {
    let mut ages = Vec::new();
    for row in debts.iter()? {
        let (agent, debt) = row?;
        ages.push((debt.value().0, agent.value()));
    }
    let newest = ages.iter().map(|(age, _)| *age).max().unwrap_or(0);
    debts.insert(agent.0, (newest + 1, epoch.0))?;
    if debts.len()? > max
        && let Some((_, oldest)) = ages.iter().min()
    {
        debts.remove(oldest)?;
    }
    Ok(())
}

impl Refusal {
    fn of(error: redb::Error) -> Refusal {
        Refusal::Unusable {
            what: "using the ledger of agents".to_owned(),
            reason: error.to_string(),
        }
    }
}

impl From<Refusal> for CellsError {
    fn from(refusal: Refusal) -> CellsError {
        match refusal {
            Refusal::Closed => CellsError::ShuttingDown,
            Refusal::Unusable { what, reason } => CellsError::Ledger { what, reason },
        }
    }
}

/// A table that nobody has written to is not there.
fn existing<T>(opened: Result<T, TableError>) -> Result<Option<T>, redb::Error> {
    match opened {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn unusable<E: Into<redb::Error>>(what: &str) -> impl FnOnce(E) -> CellsError {
    let what = format!("using {what}");
    move |error| match error.into() {
        redb::Error::Io(source) => CellsError::Io { what, source },
        error => CellsError::Ledger {
            what,
            reason: error.to_string(),
        },
    }
}

#[cfg(test)]
pub(crate) mod tests;
