//! An agent on its way to a node that rewrites no modules, and back.

use alloc::borrow::ToOwned;
use alloc::vec::Vec;

use mielin_safepoint::{HostSection, Snapshot, SnapshotLimits};

use crate::{Checkpoint, CheckpointFormError};

/// What crosses the link between a leaf and its host: a program, like a [`Checkpoint`], but with its module as it was rewritten, and with none when it comes
/// from a node to which it came in this form. The host has the module, and the smallest nodes have no room for what rewrites one.
///
/// The form is that of a checkpoint, with the section `cells:rewritten` in the place of `cells:module`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// The program. Its host sections are those of its [`HostState`](crate::HostState).
    pub snapshot: Snapshot,
    /// The rewritten module, of which the snapshot is. Who does not trust whoever gives it rewrites the plain one.
    pub rewritten: Option<Vec<u8>>,
    /// Sections of keepers of agents, which are carried along.
    pub others: Vec<HostSection>,
}

impl Parcel {
    /// The section of the module.
    pub const REWRITTEN: &str = "cells:rewritten";

    /// The bytes of this parcel.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let mut snapshot = self.snapshot;
        snapshot.host.extend(self.others);
        if let Some(bytes) = self.rewritten {
            snapshot.host.push(HostSection {
                name: Parcel::REWRITTEN.to_owned(),
                version: Checkpoint::VERSION,
                bytes,
            });
        }
        snapshot.encode()
    }

    /// Reads a parcel; nothing is allocated by a length that is merely claimed. Whether the module is one, and is that of the snapshot, is not looked at.
    ///
    /// # Errors
    /// It is damaged, exceeds the limits, or has a module twice or in the form of another version.
    pub fn decode(bytes: &[u8], limits: &SnapshotLimits) -> Result<Parcel, CheckpointFormError> {
        let mut snapshot = Snapshot::decode(bytes, limits)?;
        let (mut others, host): (Vec<_>, Vec<_>) = core::mem::take(&mut snapshot.host)
            .into_iter()
            .partition(|section| section.name.starts_with(Checkpoint::PREFIX));
        snapshot.host = host;
        let mut named = others.extract_if(.., |section| section.name == Parcel::REWRITTEN);
        let (first, second) = (named.next(), named.next());
        drop(named);
        if second.is_some() {
            return Err(CheckpointFormError::Section(Parcel::REWRITTEN));
        }
        let rewritten = match first {
            Some(section) if section.version != Checkpoint::VERSION => {
                return Err(CheckpointFormError::Version {
                    section: Parcel::REWRITTEN,
                    found: section.version,
                    expected: Checkpoint::VERSION,
                });
            }
            section => section.map(|section| section.bytes),
        };
        Ok(Parcel {
            snapshot,
            rewritten,
            others,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec;

    use mielin_safepoint::{Execution, ModuleHash};

    use super::*;

    fn section(name: &str, version: u16) -> HostSection {
        HostSection {
            name: name.to_string(),
            version,
            bytes: vec![3; 5],
        }
    }

    fn decode(parcel: Parcel) -> Result<Parcel, CheckpointFormError> {
        Parcel::decode(&parcel.encode(), &SnapshotLimits::default())
    }

    #[test]
    fn a_parcel_is_what_it_was_with_and_without_its_module() {
        let mut snapshot = Snapshot::of(ModuleHash([1; 32]), &[7; 65536], Execution::default());
        snapshot.host.push(section("wasm.run", 1));
        for rewritten in [None, Some(vec![9; 100])] {
            let parcel = Parcel {
                snapshot: snapshot.clone(),
                rewritten,
                others: vec![section("cells:record", 4)],
            };
            assert_eq!(decode(parcel.clone()), Ok(parcel));
        }
        let with = |others| Parcel {
            snapshot: snapshot.clone(),
            rewritten: None,
            others,
        };
        let name = Parcel::REWRITTEN;
        let twice = with(vec![section(name, 4), section(name, 4)]);
        assert_eq!(decode(twice), Err(CheckpointFormError::Section(name)));
        let old = decode(with(vec![section(name, 3)]));
        assert!(matches!(
            old,
            Err(CheckpointFormError::Version { found: 3, .. })
        ));
    }
}
