//! The record of an agent: who it is, whether it is this node's for good, and, when it has ended, how.
//!
//! It is written when the agent comes to this node and again when it ends, before anybody learns of the end. So a node
//! that was killed finds after its restart which agents have ended, and which were lost with it. The
//! [ledger](crate::ledger) keeps it.
//!
//! Its bytes are a version (two bytes, little-endian), a `Record` as OxiCode, and a BLAKE3 over both.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use mielin_mesh_core::codec::{self, CodecError};
use mielin_mesh_core::{AgentId, Epoch};
use mielin_safepoint::ModuleHash;
use mielin_wasm::EngineKind;
use oxicode::{Decode, Encode};
use thiserror::Error;

use crate::cell::{Cell, Identity};
use crate::error::CellsError;
use crate::logs::now_ms;
use crate::moving::Identified;
use crate::private;
use crate::report::{AgentEnd, EXIT_LOST, HostLine};
use crate::tally::Tallied;
use crate::wire;

const VERSION: u16 = 2;
const HASH_LEN: usize = 32;
/// No record is near this size: its longest part is 256 lines of a kilobyte. It bounds the bytes and what decoding
/// may occupy.
const BYTES_MAX: usize = 4 << 20;

/// What is left of an agent when its program is gone, besides its logs.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct Record {
    agent: [u8; 16],
    identified: Identified,
    epoch: u64,
    module: [u8; 32],
    wasmi: bool,
    memory_bytes: u64,
    tallied: Tallied,
    lines: Vec<wire::Line>,
    /// Its source is known to have let go of it, or it has none.
    settled: bool,
    /// `None` while it lives.
    end: Option<End>,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
struct End {
    exit_code: i32,
    failure: Option<String>,
    /// Milliseconds since the Unix epoch.
    at_ms: u64,
}

/// A record that cannot be used. It is left as it is.
#[derive(Debug, Error)]
pub(crate) enum RecordError {
    #[error("its record has more than {BYTES_MAX} bytes")]
    TooLong,
    #[error("its record is damaged: the checksum is wrong")]
    Checksum,
    #[error("its record was written by another version of this program ({0})")]
    Version(u16),
    #[error("its record is malformed: {0}")]
    Malformed(#[from] CodecError),
    #[error("its record is that of another agent")]
    OtherAgent,
    #[error("its record is malformed: {0}")]
    Identity(CellsError),
    #[error("its record has no end")]
    NoEnd,
}

/// The record of an ended agent, taken apart.
pub(crate) struct Remains {
    pub(crate) identity: Identity,
    pub(crate) epoch: Epoch,
    pub(crate) engine: EngineKind,
    pub(crate) module: ModuleHash,
    pub(crate) memory_bytes: u64,
    pub(crate) tallied: Tallied,
    pub(crate) lines: Vec<HostLine>,
    pub(crate) end: AgentEnd,
    pub(crate) ended_ms: u64,
}

impl Record {
    pub(crate) fn new(cell: &Cell, end: Option<&AgentEnd>) -> Record {
        Record {
            agent: cell.id().0,
            identified: Identified::new(&cell.identity),
            epoch: cell.epoch().0,
            module: cell.module.0,
            wasmi: cell.engine == EngineKind::Wasmi,
            memory_bytes: cell.memory_bytes(),
            tallied: cell.tally.tallied(),
            lines: cell.logs.lines().iter().map(wire::Line::new).collect(),
            settled: cell.is_settled(),
            end: end.map(|end| End {
                exit_code: end.exit_code,
                failure: end.failure.clone(),
                at_ms: now_ms(),
            }),
        }
    }

    /// The record of this agent in these bytes.
    pub(crate) fn decode_of(agent: AgentId, bytes: &[u8]) -> Result<Record, RecordError> {
        let record = Record::decode(bytes)?;
        if record.agent != agent.0 {
            return Err(RecordError::OtherAgent);
        }
        Ok(record)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        bytes.extend(codec::encode(self));
        let hash = blake3::hash(&bytes);
        bytes.extend(hash.as_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Record, RecordError> {
        if bytes.len() > BYTES_MAX {
            return Err(RecordError::TooLong);
        }
        let (content, hash) = bytes
            .split_last_chunk::<HASH_LEN>()
            .ok_or(CodecError::Truncated)?;
        if blake3::hash(content) != *hash {
            return Err(RecordError::Checksum);
        }
        let (version, body) = content
            .split_first_chunk::<2>()
            .ok_or(CodecError::Truncated)?;
        match u16::from_le_bytes(*version) {
            VERSION => Ok(codec::decode_limited::<Record, BYTES_MAX>(body)?),
            other => Err(RecordError::Version(other)),
        }
    }

    /// The agent is no more, without its program's doing.
    pub(crate) fn lose(&mut self, failure: String) {
        self.lose_at(now_ms(), failure);
    }

    fn lose_at(&mut self, time_ms: u64, failure: String) {
        self.lines.push(wire::Line::new(&HostLine {
            time_ms,
            level: "error".to_owned(),
            text: failure.clone(),
        }));
        self.end = Some(End {
            exit_code: EXIT_LOST,
            failure: Some(failure),
            at_ms: time_ms,
        });
    }

    pub(crate) fn has_end(&self) -> bool {
        self.end.is_some()
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.settled
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }

    pub(crate) fn into_remains(self) -> Result<Remains, RecordError> {
        let End {
            exit_code,
            failure,
            at_ms,
        } = self.end.ok_or(RecordError::NoEnd)?;
        Ok(Remains {
            identity: self
                .identified
                .into_identity(AgentId(self.agent))
                .map_err(RecordError::Identity)?,
            epoch: Epoch(self.epoch),
            engine: if self.wasmi {
                EngineKind::Wasmi
            } else {
                EngineKind::Wasmtime
            },
            module: ModuleHash(self.module),
            memory_bytes: self.memory_bytes,
            tallied: self.tallied,
            lines: self
                .lines
                .into_iter()
                .map(wire::Line::into_host_line)
                .collect(),
            end: AgentEnd { exit_code, failure },
            ended_ms: at_ms,
        })
    }
}

/// Writes a file, in a folder that is made if it is missing, so that it is either whole or not there; it is on the disk
/// when this returns.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
        private::create_folder(folder)?;
        if let Some(above) = folder.parent() {
            File::open(above)?.sync_all()?;
        }
    }
    let unfinished = unfinished(path);
    let written = write_all(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, path));
    if let Err(error) = written {
        // It has what is left of the disk.
        let _ = fs::remove_file(&unfinished);
        return Err(error);
    }
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// What there is of a file while it is written, and afterwards if its node was killed meanwhile.
pub(crate) fn unfinished(path: &Path) -> PathBuf {
    path.with_extension("unfinished")
}

fn write_all(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = private::create_file().truncate(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mielin_fuzz::{Seed, Target};

    use super::*;

    #[test]
    fn a_file_that_cannot_be_finished_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot");
        write(&path, b"whole").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        // A folder cannot be replaced by a file.
        let taken = folder.path().join("taken");
        fs::create_dir(&taken).unwrap();
        write(&taken, b"never").unwrap_err();
        assert!(!unfinished(&taken).exists());
    }

    fn record() -> Record {
        Record::sample()
    }

    impl Record {
        pub(crate) fn sample() -> Record {
            sample()
        }
    }

    fn sample() -> Record {
        let identity = Identity {
            id: AgentId([7; 16]),
            name: "worker".to_owned(),
            owner: mielin_mesh_core::NodeId([1; 32]),
            grants: "clock"
                .parse()
                .map(|grant| [grant].into_iter().collect())
                .unwrap(),
            limits: mielin_wasm::Limits::default(),
            budget: "cpu=10s,log=1KiB/s".parse().unwrap(),
            started_ms: 5,
        };
        let line = HostLine {
            time_ms: 1,
            level: "warn".to_owned(),
            text: "denied".to_owned(),
        };
        let mut record = Record {
            agent: identity.id.0,
            identified: Identified::new(&identity),
            epoch: 3,
            module: [9; 32],
            wasmi: true,
            memory_bytes: 65536,
            tallied: Tallied::sample(),
            lines: vec![wire::Line::new(&line)],
            settled: true,
            end: None,
        };
        // A corpus is the same whenever it is written.
        record.lose_at(8, "lost".to_owned());
        record
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let agent = AgentId([7; 16]);
        let bytes = record().encode();
        let read = Record::decode_of(agent, &bytes).unwrap();
        assert_eq!(read.lines.len(), 2);
        let remains = read.into_remains().unwrap();
        assert_eq!(remains.identity.name, "worker");
        assert_eq!(remains.end.exit_code, EXIT_LOST);
        assert_eq!(remains.tallied, Tallied::sample());
        assert_eq!(remains.identity.budget.to_string(), "cpu=10s,log=1KiB/s");
        let other = Record::decode_of(AgentId([8; 16]), &bytes);
        assert!(matches!(other, Err(RecordError::OtherAgent)));
    }

    #[test]
    fn damaged_and_hostile_records_are_errors() {
        let whole = record().encode();
        for len in 0..whole.len() {
            assert!(Record::decode(&whole[..len]).is_err(), "cut at {len}");
        }
        for index in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[index] ^= 0x40;
            let result = Record::decode(&bytes);
            assert!(matches!(result, Err(RecordError::Checksum)), "at {index}");
        }
        // Somebody who also makes the checksum right.
        let sealed = |mut bytes: Vec<u8>| {
            let hash = blake3::hash(&bytes);
            bytes.extend(hash.as_bytes());
            Record::decode(&bytes)
        };
        let content = &whole[..whole.len() - HASH_LEN];
        for index in 2..content.len() {
            for value in [0, 0xfb, 0xfd, 0xff] {
                let mut bytes = content.to_vec();
                bytes[index] = value;
                // Any answer but a panic or an allocation by a claimed length.
                let _ = sealed(bytes).map(Record::into_remains);
            }
        }
        assert!(matches!(
            sealed(vec![3, 0, 1]),
            Err(RecordError::Version(3))
        ));
        assert!(matches!(
            sealed([content, &[0]].concat()),
            Err(RecordError::Malformed(CodecError::Trailing { .. }))
        ));
        assert!(matches!(
            Record::decode(&vec![0; BYTES_MAX + 1]),
            Err(RecordError::TooLong)
        ));
    }

    /// Records with the checksum that they should have.
    const HOSTILE: Target = Target {
        name: "record",
        mutations: 20_000,
        // What the limit lets a length claim.
        fixed_bytes: BYTES_MAX + (64 << 10),
        bytes_per_byte: 64,
        run: |content| {
            let _ = Record::decode(content);
            let sealed = [content, blake3::hash(content).as_bytes()].concat();
            let Ok(record) = Record::decode(&sealed) else {
                return false;
            };
            assert_eq!(Record::decode(&record.encode()).unwrap(), record);
            let has_end = record.has_end();
            let remains = record.into_remains();
            assert!(has_end || matches!(remains, Err(RecordError::NoEnd)));
            true
        },
        seeds: || {
            let content = |record: &Record| {
                let mut bytes = record.encode();
                bytes.truncate(bytes.len() - HASH_LEN);
                bytes
            };
            let ended = content(&record());
            let living = Record {
                end: None,
                ..record()
            };
            let mut other_version = ended.clone();
            other_version[0] = 9;
            vec![
                Seed::bad("version-9", other_version),
                Seed::bad("twice", ended.repeat(2)),
                Seed::good("lost", ended),
                Seed::good("living", content(&living)),
            ]
        },
    };

    #[test]
    fn hostile_records() {
        HOSTILE.replay();
    }
}
