#![allow(clippy::unwrap_used)]

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// A disk that refuses so many writes.
#[derive(Clone, Default)]
pub(crate) struct Disk(Arc<AtomicUsize>);

#[derive(Debug)]
struct Frail {
    file: FileBackend,
    refusals: Arc<AtomicUsize>,
}

impl Disk {
    /// A ledger on this disk.
    pub(crate) fn ledger(&self, directory: &Path) -> Ledger {
        let (path, refusals) = (directory.join(FILE), Arc::clone(&self.0));
        let open = move || {
            let refusals = Arc::clone(&refusals);
            file(&path).map(|file| Frail { file, refusals })
        };
        Ledger::over(FILE, open).unwrap()
    }

    pub(crate) fn refuse(&self, writes: usize) {
        self.0.store(writes, Ordering::Relaxed);
    }

    pub(crate) fn refuses(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Frail {
    fn check(&self) -> io::Result<()> {
        let less = |refusals: usize| refusals.checked_sub(1);
        let refused = self
            .refusals
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        refused.map_or(Ok(()), |_| Err(io::ErrorKind::StorageFull.into()))
    }
}

impl StorageBackend for Frail {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

#[test]
fn a_disk_that_has_failed_is_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let ledger = disk.ledger(directory.path());
    let (record, other) = (Record::sample(), AgentId([8; 16]));
    ledger.record(AGENT, &record).unwrap();
    disk.refuse(20);
    let mut failed = 0;
    while let Err(error) = ledger.record(other, &record) {
        assert!(matches!(error, CellsError::Ledger { .. }), "{error}");
        failed += 1;
        assert!(failed <= 20, "{error}");
    }
    assert!(failed > 1 && !disk.refuses());
    let agents: Vec<_> = ledger
        .entries()
        .unwrap()
        .into_iter()
        .map(|row| row.0)
        .collect();
    assert_eq!(agents, [AGENT, other]);
}

/// However much happens while the disk is full, the last of it is what is written.
#[test]
fn what_nobody_takes_back_is_written_when_the_disk_takes_it_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let ledger = disk.ledger(directory.path());
    let [forgotten, refused, kept] = [2, 3, 4].map(|number| AgentId([number; 16]));
    let departure = Departure::new(NodeId([3; 32]), Epoch(9));
    ledger.record(forgotten, &Record::sample()).unwrap();
    ledger.depart(AGENT, &departure).unwrap();
    let mut ended = Record::sample();
    ended.lose("it is gone".to_owned());
    disk.refuse(usize::MAX);
    // Somebody is told of what waits, and of that alone.
    let is_told = || pin!(ledger.unwritten.notified()).enable();
    ledger.record(refused, &ended).unwrap_err();
    assert!(!is_told());
    for _ in 0..2 {
        ledger.record_fact(AGENT, &ended).unwrap_err();
        assert!(is_told());
        ledger.flush();
        assert!(is_told());
    }
    for _ in 0..100 {
        assert!(ledger.record_soon(AGENT, &Record::sample()));
        ledger.flush();
        ledger.record(refused, &Record::sample()).unwrap_err();
        ledger.record_fact(AGENT, &ended).unwrap_err();
        ledger.stay(AGENT).unwrap_err();
        ledger.forget_later(forgotten);
        ledger.forget_later(kept);
        ledger.record_soon(kept, &Record::sample());
        ledger.flush();
    }
    assert_eq!(lock(&ledger.queue).changes.len(), 5);
    disk.refuse(0);
    // With the next write.
    ledger.owe(kept, Epoch(4)).unwrap();
    let entries = ledger.entries().unwrap();
    let agents: Vec<_> = entries.iter().map(|(agent, _)| *agent).collect();
    assert_eq!(agents, [kept, AGENT]);
    let own = &entries[1].1;
    assert!(matches!(&own.record, Some(Ok(record)) if record.has_end()));
    assert_eq!(own.departure, None);
}

const AGENT: AgentId = AgentId([7; 16]);

#[test]
fn what_was_written_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cells");
    let departure = Departure::new(NodeId([3; 32]), Epoch(9));
    let sample = Record::sample();
    {
        let ledger = Ledger::open(Some(&path)).unwrap();
        assert!(ledger.entries().unwrap().is_empty());
        ledger.record(AGENT, &sample).unwrap();
        ledger.depart(AGENT, &departure).unwrap();
        ledger.depart(AgentId([8; 16]), &departure).unwrap();
        ledger.stay(AgentId([8; 16])).unwrap();
        ledger.record(AgentId([9; 16]), &sample).unwrap();
        ledger.forget(AgentId([5; 16])).unwrap();
        // Nothing is closed in an orderly way.
        std::mem::forget(ledger);
    }
    let copy = directory.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    std::fs::copy(path.join(FILE), copy.join(FILE)).unwrap();
    let ledger = Ledger::open(Some(&copy)).unwrap();
    let entries = ledger.entries().unwrap();
    assert_eq!(entries.len(), 2);
    let (agent, entry) = &entries[0];
    assert_eq!((*agent, entry.departure), (AGENT, Some(departure)));
    assert_eq!(
        (departure.target(), departure.epoch()),
        (NodeId([3; 32]), Epoch(9))
    );
    assert!(matches!(&entry.record, Some(Ok(record)) if *record == sample));
    // A record of another agent than the row says.
    assert!(matches!(
        entries[1].1.record,
        Some(Err(RecordError::OtherAgent))
    ));
    ledger.forget(AGENT).unwrap();
    assert_eq!(ledger.entries().unwrap().len(), 1);
}

#[test]
fn what_is_owed_to_a_source_outlives_the_agent_and_the_node() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(Some(directory.path())).unwrap();
    assert_eq!(ledger.debts().unwrap(), []);
    ledger.record(AGENT, &Record::sample()).unwrap();
    ledger.owe(AGENT, Epoch(4)).unwrap();
    ledger.owe(AGENT, Epoch(7)).unwrap();
    ledger.forget(AGENT).unwrap();
    ledger.close();
    let ledger = Ledger::open(Some(directory.path())).unwrap();
    assert!(ledger.entries().unwrap().is_empty());
    assert_eq!(ledger.debts().unwrap(), [(AGENT, Epoch(7))]);
}

#[test]
fn of_too_many_debts_the_oldest_are_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::create(directory.path().join(FILE)).unwrap();
    let write = database.begin_write().unwrap();
    {
        let mut debts = write.open_table(DEBTS).unwrap();
        // The first one comes again, so it is younger than the second.
        for number in [9, 1, 2, 9, 3] {
            note_debt(&mut debts, AgentId([number; 16]), Epoch(1), 3).unwrap();
        }
        let kept = debts.iter().unwrap().map(|row| row.unwrap().0.value()[0]);
        assert_eq!(kept.collect::<Vec<_>>(), [2, 3, 9]);
    }
}

#[test]
fn whoever_waits_for_a_change_finds_it_written_and_the_others_follow_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(Some(directory.path())).unwrap();
    let record = Record::sample();
    let agent = |writer: u8, number: u8| {
        AgentId([writer, number, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    };
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let (ledger, record) = (&ledger, &record);
            scope.spawn(move || {
                for number in 0..20 {
                    let agent = agent(writer, number);
                    ledger.record(agent, record).unwrap();
                    let entries = ledger.entries().unwrap();
                    assert!(entries.iter().any(|(present, _)| *present == agent));
                }
            });
        }
    });
    assert_eq!(ledger.entries().unwrap().len(), 160);
    // One is to see to it that they are written, until somebody has.
    assert!(ledger.record_soon(AGENT, &record));
    assert!(!ledger.record_soon(agent(9, 0), &record));
    ledger.forget(AGENT).unwrap();
    assert_eq!(ledger.entries().unwrap().len(), 161);
    ledger.flush();
    assert!(ledger.record_soon(AGENT, &record));
    ledger.close();
    for refused in [ledger.record(AGENT, &record), ledger.stay(AGENT)] {
        assert!(matches!(refused, Err(CellsError::ShuttingDown)));
    }
    let ledger = Ledger::open(Some(directory.path())).unwrap();
    assert_eq!(ledger.entries().unwrap().len(), 162);
}

#[test]
fn a_damaged_ledger_is_an_error_that_names_the_file() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(FILE), b"not a database at all").unwrap();
    let error = Ledger::open(Some(directory.path())).err().unwrap();
    assert!(error.to_string().contains(FILE), "{error}");
}
