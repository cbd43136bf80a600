//! What a host of leaves must not forget: its own key, and whom it has admitted.

use mielin_mesh_core::Name;
use mielin_mesh_core::codec;
use mielin_mesh_core::leaf::{LeafNumber, PublicKey, SecretKey};
use mielin_mesh_wire::{DataDirectory, DirectoryError};
use oxicode::{Decode, Encode};

use super::{LeafError, random};

/// The file in the data directory. It holds secrets; the directory is closed to others.
const FILE: &str = "leaves";
/// The version of its form.
const VERSION: u16 = 1;

/// The admissions of a host.
#[derive(Clone, Encode, Decode)]
pub(super) struct Admissions {
    version: u16,
    key: [u8; 32],
    /// The number of the next admission: none is used twice, or a leaf that was dismissed would be asked for another's secret.
    next: u32,
    admitted: Vec<Admitted>,
}

/// One of them.
#[derive(Clone, Encode, Decode)]
pub(super) struct Admitted {
    number: u32,
    name: Name,
    secret: [u8; 32],
    key: Option<[u8; 32]>,
}

impl Admissions {
    /// Those of this directory; with a fresh key if it has none yet, which is then written.
    pub(super) fn open(directory: &DataDirectory) -> Result<Admissions, LeafError> {
        let damaged = |reason: String| LeafError::Damaged { file: FILE, reason };
        let Some(bytes) = directory.read(FILE)? else {
            let fresh = Admissions {
                version: VERSION,
                key: random()?,
                next: 1,
                admitted: Vec::new(),
            };
            fresh.save(directory)?;
            return Ok(fresh);
        };
        let read: Admissions = codec::decode(&bytes).map_err(|error| damaged(error.to_string()))?;
        if read.version != VERSION {
            return Err(damaged(format!("it has the version {}", read.version)));
        }
        Ok(read)
    }

    /// Writes them; they are on the disk when this returns.
    pub(super) fn save(&self, directory: &DataDirectory) -> Result<(), DirectoryError> {
        directory.write(FILE, &codec::encode(self))
    }

    pub(super) fn key(&self) -> SecretKey {
        SecretKey::from_bytes(self.key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Admitted> {
        self.admitted.iter()
    }

    pub(super) fn add(&mut self, name: Name, secret: [u8; 32]) -> LeafNumber {
        let number = self.next;
        self.next += 1;
        self.admitted.push(Admitted {
            number,
            name,
            secret,
            key: None,
        });
        LeafNumber(number)
    }

    pub(super) fn remove(&mut self, leaf: LeafNumber) {
        self.admitted.retain(|one| one.number != leaf.0);
    }

    pub(super) fn key_of(&self, leaf: LeafNumber) -> Option<PublicKey> {
        let one = self.admitted.iter().find(|one| one.number == leaf.0);
        one.and_then(Admitted::key)
    }

    pub(super) fn set_key(&mut self, leaf: LeafNumber, key: PublicKey) {
        let one = self.admitted.iter_mut().find(|one| one.number == leaf.0);
        if let Some(one) = one {
            one.key = Some(key.0);
        }
    }
}

impl Admitted {
    pub(super) fn number(&self) -> LeafNumber {
        LeafNumber(self.number)
    }

    pub(super) fn name(&self) -> &Name {
        &self.name
    }

    pub(super) fn secret(&self) -> [u8; 32] {
        self.secret
    }

    pub(super) fn key(&self) -> Option<PublicKey> {
        self.key.map(PublicKey)
    }
}
