//! The provisioning page of a microcontroller: [`PAGE_BYTES`] bytes of its code memory that say who it is, to which mesh
//! it belongs, and from which seed it draws what nobody may guess. A host writes it ([`Page::encode`]), a firmware reads it
//! ([`Page::decode`]).
//!
//! ```text
//!    0  "mielinpg"
//!    8  version u16 LE, 1
//!   10  length of the name, u8; 0
//!   12  name, 32 bytes of UTF-8, zeros behind it
//!   44  the leaf's X25519 key, 32
//!   76  its admission: number u32 LE | mesh 32 | host's public key 32 | secret 32
//!  176  seed, 32
//!  208  zeros
//!  992  BLAKE2s of what precedes, 32
//! ```
//!
//! Whoever reads a page is the leaf: it has the leaf's secrets. The seed is for one start with cold memory: see [`Page::seed`].
//!
//! ```
//! use mielin_mesh_core::leaf::{Admission, LeafNumber, PublicKey, SecretKey};
//! use mielin_page::Page;
//!
//! let admission = Admission { number: LeafNumber(7), mesh: [1; 32], host: PublicKey([2; 32]), secret: [3; 32] };
//! let page = Page::new("greenhouse", SecretKey::from_bytes([4; 32]), admission, [5; 32]).unwrap();
//! let read = Page::decode(&page.encode()).unwrap();
//! assert_eq!((read.name(), read.admission()), ("greenhouse", page.admission()));
//! ```

#![no_std]

extern crate alloc;

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;

use blake2::{Blake2s256, Digest};
use mielin_mesh_core::leaf::{Admission, LeafNumber, PublicKey, SecretKey};
use thiserror::Error;
use zeroize::Zeroize;

/// How long a page is.
pub const PAGE_BYTES: usize = 1024;
/// The longest name.
pub const NAME_BYTES_MAX: usize = 32;

const MAGIC: [u8; 8] = *b"mielinpg";
const VERSION: u16 = 1;
const SUM_BYTES: usize = 32;
const USED_BYTES: usize = 208;

/// What a page says.
#[derive(Clone)]
pub struct Page {
    name: String,
    key: SecretKey,
    admission: Admission,
    seed: [u8; 32],
}

/// A name that no page has. Whoever chose it is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a name of {bytes} bytes is longer than {NAME_BYTES_MAX}")]
pub struct NameTooLong {
    /// Its length.
    pub bytes: usize,
}

/// Bytes that are no page. Whoever has written them is at fault, or nobody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PageError {
    /// Fewer bytes than a page has.
    #[error("it is cut off")]
    Short,
    /// It begins otherwise: there is none.
    #[error("there is none")]
    Missing,
    /// It is of another version.
    #[error("it has version {found}, and this firmware reads version {VERSION}")]
    OtherVersion {
        /// Which.
        found: u16,
    },
    /// Its checksum is wrong.
    #[error("it is damaged")]
    Damaged,
    /// It is not in its one form, though whoever has written it has meant it so.
    #[error("it is malformed")]
    Malformed,
}

impl Page {
    /// A page of this leaf. `seed` are 32 bytes that nobody can guess, others in each page.
    ///
    /// # Errors
    /// [`NameTooLong`].
    pub fn new(
        name: &str,
        key: SecretKey,
        admission: Admission,
        seed: [u8; 32],
    ) -> Result<Self, NameTooLong> {
        if name.len() > NAME_BYTES_MAX {
            return Err(NameTooLong { bytes: name.len() });
        }
        Ok(Self {
            name: name.to_owned(),
            key,
            admission,
            seed,
        })
    }

    /// What the leaf is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The leaf's key.
    #[must_use]
    pub fn key(&self) -> &SecretKey {
        &self.key
    }

    /// What admits it to its mesh.
    #[must_use]
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// From which all random bytes are drawn, together with a count of starts that outlives resets. When the memory that has this count was without power, the
    /// count begins anew, and a page that was used before then gives the same bytes again: keys of connections would repeat. So each
    /// start with cold memory takes a new page.
    #[must_use]
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The same page with another seed, for the next start with cold memory.
    #[must_use]
    pub fn with_seed(mut self, seed: [u8; 32]) -> Self {
        self.seed = seed;
        self
    }

    /// The bytes of the page.
    #[must_use]
    pub fn encode(&self) -> [u8; PAGE_BYTES] {
        let mut page = [0; PAGE_BYTES];
        let mut at = 0;
        let mut put = |bytes: &[u8], room: usize| {
            page[at..at + bytes.len()].copy_from_slice(bytes);
            at += room;
        };
        put(&MAGIC, 8);
        put(&VERSION.to_le_bytes(), 2);
        // At most `NAME_BYTES_MAX`, as all ways to make a page see to.
        put(&[self.name.len() as u8, 0], 2);
        put(self.name.as_bytes(), NAME_BYTES_MAX);
        put(self.key.as_bytes(), 32);
        put(&self.admission.number.0.to_le_bytes(), 4);
        put(&self.admission.mesh, 32);
        put(&self.admission.host.0, 32);
        put(&self.admission.secret, 32);
        put(&self.seed, 32);
        let sum = Blake2s256::digest(&page[..PAGE_BYTES - SUM_BYTES]);
        page[PAGE_BYTES - SUM_BYTES..].copy_from_slice(&sum);
        page
    }

    /// Reads a page, from its first byte on; what follows it is not looked at.
    ///
    /// # Errors
    /// [`PageError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, PageError> {
        let (page, _) = bytes
            .split_first_chunk::<PAGE_BYTES>()
            .ok_or(PageError::Short)?;
        let mut fields = Fields(page);
        if fields.array() != MAGIC {
            return Err(PageError::Missing);
        }
        let found = u16::from_le_bytes(fields.array());
        if found != VERSION {
            return Err(PageError::OtherVersion { found });
        }
        let (content, sum) = page.split_at(PAGE_BYTES - SUM_BYTES);
        if Blake2s256::digest(content).as_slice() != sum {
            return Err(PageError::Damaged);
        }
        let [len, reserved] = fields.array();
        let name: [u8; NAME_BYTES_MAX] = fields.array();
        let (name, rest) = name
            .split_at_checked(len.into())
            .ok_or(PageError::Malformed)?;
        let spare = &content[USED_BYTES..];
        if reserved != 0 || rest.iter().chain(spare).any(|byte| *byte != 0) {
            return Err(PageError::Malformed);
        }
        let name = core::str::from_utf8(name).map_err(|_| PageError::Malformed)?;
        Ok(Self {
            name: name.to_owned(),
            key: SecretKey::from_bytes(fields.array()),
            admission: Admission {
                number: LeafNumber(u32::from_le_bytes(fields.array())),
                mesh: fields.array(),
                host: PublicKey(fields.array()),
                secret: fields.array(),
            },
            seed: fields.array(),
        })
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.seed.zeroize();
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page")
            .field("name", &self.name)
            .field("admission", &self.admission)
            .finish_non_exhaustive()
    }
}

/// What is still to be read of a page.
struct Fields<'page>(&'page [u8]);

impl Fields<'_> {
    fn array<const LEN: usize>(&mut self) -> [u8; LEN] {
        let (array, rest) = self
            .0
            .split_first_chunk()
            .expect("all fields lie within a page");
        self.0 = rest;
        *array
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(name: &str) -> Page {
        let admission = Admission {
            number: LeafNumber(0x0102_0304),
            mesh: [1; 32],
            host: PublicKey([2; 32]),
            secret: [3; 32],
        };
        Page::new(name, SecretKey::from_bytes([4; 32]), admission, [5; 32])
            .expect("the name is short")
    }

    /// With a checksum that fits.
    fn signed(mut bytes: [u8; PAGE_BYTES]) -> [u8; PAGE_BYTES] {
        let sum = Blake2s256::digest(&bytes[..PAGE_BYTES - SUM_BYTES]);
        bytes[PAGE_BYTES - SUM_BYTES..].copy_from_slice(&sum);
        bytes
    }

    fn error(bytes: &[u8]) -> PageError {
        Page::decode(bytes).expect_err("it is no page")
    }

    #[test]
    fn a_page_says_what_was_written() {
        for name in ["", "greenhouse", &"n".repeat(NAME_BYTES_MAX)] {
            let written = page(name);
            let mut bytes = written.encode().to_vec();
            bytes.push(0xff);
            let read = Page::decode(&bytes).expect("it is a page");
            assert_eq!((read.name(), read.seed()), (name, &[5; 32]));
            assert_eq!(read.key().as_bytes(), written.key().as_bytes());
            assert_eq!(read.admission(), written.admission());
            assert_eq!(read.encode(), bytes[..PAGE_BYTES]);
        }
        let long = "n".repeat(NAME_BYTES_MAX + 1);
        let refused = Page::new(
            &long,
            SecretKey::from_bytes([4; 32]),
            page("").admission.clone(),
            [0; 32],
        );
        assert_eq!(refused.err(), Some(NameTooLong { bytes: 33 }));
    }

    #[test]
    fn what_is_no_page_is_told_apart() {
        let good = page("a").encode();
        assert_eq!(error(&good[..PAGE_BYTES - 1]), PageError::Short);
        assert_eq!(error(&[0; PAGE_BYTES]), PageError::Missing);
        assert_eq!(error(&[0xff; PAGE_BYTES]), PageError::Missing);
        let with = |at: usize, byte: u8| {
            let mut bytes = good;
            bytes[at] = byte;
            bytes
        };
        assert_eq!(error(&with(8, 2)), PageError::OtherVersion { found: 2 });
        assert_eq!(error(&with(60, 9)), PageError::Damaged);
        // A name that is too long, no text, not all of the name; what is reserved.
        for (at, byte) in [(10, 33), (12, 0xff), (10, 0), (11, 1), (USED_BYTES, 1)] {
            assert_eq!(error(&signed(with(at, byte))), PageError::Malformed, "{at}");
        }
    }

    proptest! {
        #[test]
        fn no_page_is_read_with_another_bit(at in 0..PAGE_BYTES, bit in 0..8_u32) {
            let mut bytes = page("greenhouse").encode();
            bytes[at] ^= 1_u8 << bit;
            prop_assert!(Page::decode(&bytes).is_err());
        }
    }
}
