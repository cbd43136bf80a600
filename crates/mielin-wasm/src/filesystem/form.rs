//! A file system as bytes: its structure, and apart from it the contents of blocks.
//!
//! A snapshot has both whole. In a move the contents go ahead while the program still runs, and
//! those that have changed since follow; the structure says of each block where in all that its
//! content stands.

use alloc::collections::btree_map::Entry;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::content::{Block, Content, trimmed};
use super::directory::{Directory, FIRST};
use super::path::NAME_BYTES_MAX;
use super::{
    BLOCK, FILE_BYTES_MAX, FileSystem, Ino, Kind, NAMES_OF_FILE_MAX, Node, Quota, ROOT, Times,
};
use crate::StateError;
use crate::state::bytes::{Reader, Writer};

const FILE: u8 = 0;
const DIRECTORY: u8 = 1;

/// The contents of blocks of one program's `/data`, each without the zeros at its end, in the order
/// in which they were added.
///
/// A block is added once, and again when it was written since. The stream keeps what it has seen, so
/// that no other block can be taken for it; the program copies a block that it writes.
#[derive(Clone, Debug, Default)]
pub struct BlockStream {
    /// By the block's address, which is only compared.
    places: BTreeMap<usize, u64>,
    blocks: Vec<Arc<Block>>,
    /// Blocks that [`take`](Self::take) has given.
    taken: usize,
    len: u64,
}

fn address(block: &Arc<Block>) -> usize {
    Arc::as_ptr(block).addr()
}

impl BlockStream {
    /// Bytes of all blocks that were added.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The next of what was added, at least a block's and not many more than `bytes_max`; empty when
    /// all of it was taken.
    pub fn take(&mut self, bytes_max: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(block) = self.blocks.get(self.taken)
            && bytes.len() < bytes_max
        {
            bytes.extend_from_slice(trimmed(block));
            self.taken += 1;
        }
        bytes
    }

    /// Adds the blocks of these files that are not there.
    pub(crate) fn add(&mut self, files: &FileSystem) {
        for content in files.contents() {
            for (_, block) in content.iter() {
                let place = self.len;
                if let Entry::Vacant(vacant) = self.places.entry(address(block)) {
                    vacant.insert(place);
                    self.len += trimmed(block).len() as u64;
                    self.blocks.push(Arc::clone(block));
                }
            }
        }
    }

    fn place(&self, block: &Arc<Block>) -> u64 {
        let place = self.places.get(&address(block));
        *place.expect("every block was added before the structure is written")
    }
}

impl FileSystem {
    fn contents(&self) -> impl Iterator<Item = &Content> {
        self.nodes.values().filter_map(|node| match &node.kind {
            Kind::File(content) => Some(content),
            Kind::Directory(_) => None,
        })
    }

    /// Writes the structure. Every block must be in the stream.
    pub(crate) fn encode(&self, stream: &BlockStream, out: &mut Writer) {
        out.u64(self.next);
        out.len(self.nodes.len());
        for (ino, node) in &self.nodes {
            out.u64(ino.0);
            let Times {
                accessed,
                modified,
                changed,
            } = node.times;
            [accessed, modified, changed]
                .into_iter()
                .for_each(|time| out.u64(time));
            match &node.kind {
                Kind::File(content) => {
                    out.u8(FILE);
                    encode_file(content, stream, out);
                }
                Kind::Directory(directory) => {
                    out.u8(DIRECTORY);
                    encode_directory(directory, out);
                }
            }
        }
    }

    /// Reads what [`encode`](Self::encode) wrote. `blocks` are the bytes of the
    /// stream. Descriptors have still to be counted ([`hold`](Self::hold)).
    pub(crate) fn decode(
        bytes: &mut Reader<'_>,
        blocks: &[u8],
        quota: Quota,
    ) -> Result<Self, StateError> {
        let mut files = Self::new(quota);
        files.nodes.clear();
        files.next = bytes.u64()?;
        let mut last = 0;
        bytes.list(|bytes| {
            let ino = bytes.u64()?;
            if ino <= last || ino >= files.next {
                return Err(bytes.malformed("files out of order"));
            }
            last = ino;
            if files.nodes.len() >= quota.nodes {
                return Err(bytes.malformed("more files than the grant allows"));
            }
            let node = files.decode_node(bytes, blocks)?;
            files.nodes.insert(Ino(ino), node);
            Ok(())
        })?;
        let whole = files.count_names();
        if !whole {
            return Err(bytes.malformed("directories that hang together wrongly"));
        }
        if files.names > quota.nodes {
            return Err(bytes.malformed("more names than the grant allows"));
        }
        Ok(files)
    }

    fn decode_node(&mut self, bytes: &mut Reader<'_>, blocks: &[u8]) -> Result<Node, StateError> {
        let times = Times {
            accessed: bytes.u64()?,
            modified: bytes.u64()?,
            changed: bytes.u64()?,
        };
        let kind = match bytes.u8()? {
            FILE => {
                let room = self.quota.blocks - self.blocks;
                let content = decode_file(bytes, blocks, room)?;
                self.blocks += content.blocks();
                Kind::File(content)
            }
            DIRECTORY => Kind::Directory(decode_directory(bytes)?),
            _ => return Err(bytes.malformed("neither a file nor a directory")),
        };
        Ok(Node {
            kind,
            times,
            names: 0,
            opens: 0,
        })
    }

    /// Finds out how many names everything has, and what each directory is in. False unless every
    /// directory but the top one has at most one name, and everything that has a name can be reached.
    fn count_names(&mut self) -> bool {
        let mut reached = BTreeSet::from([ROOT]);
        let mut pending = vec![ROOT];
        while let Some(parent) = pending.pop() {
            let Ok(directory) = self.directory(parent) else {
                return false;
            };
            let inside: Vec<Ino> = directory.iter().map(|(_, _, ino)| ino).collect();
            self.names += inside.len();
            for ino in inside {
                let Some(node) = self.nodes.get_mut(&ino) else {
                    return false;
                };
                node.names += 1;
                if let Kind::Directory(directory) = &mut node.kind {
                    directory.parent = parent;
                    if !reached.insert(ino) {
                        return false;
                    }
                    pending.push(ino);
                }
                if node.names > NAMES_OF_FILE_MAX {
                    return false;
                }
            }
        }
        if let Some(top) = self.nodes.get_mut(&ROOT) {
            top.names = 1;
        }
        // A directory without a name was removed, and had to be empty for that.
        let lost = |node: &Node| match &node.kind {
            Kind::Directory(directory) => node.names == 0 && !directory.is_empty(),
            Kind::File(_) => false,
        };
        !self.nodes.values().any(lost)
    }

    /// Whether everything has a name or is open; to be asked when all descriptors are there.
    pub(crate) fn is_settled(&self) -> bool {
        let idle = |node: &Node| node.names == 0 && node.opens == 0;
        !self.nodes.values().any(idle)
    }
}

fn encode_file(content: &Content, stream: &BlockStream, out: &mut Writer) {
    out.u64(content.len());
    out.len(content.blocks() as usize);
    for (index, block) in content.iter() {
        out.u64(index);
        out.u16(trimmed(block).len() as u16);
        out.u64(stream.place(block));
    }
}

fn decode_file(bytes: &mut Reader<'_>, blocks: &[u8], room: u64) -> Result<Content, StateError> {
    let len = bytes.u64()?;
    if len > FILE_BYTES_MAX {
        return Err(bytes.malformed("a file that is too long"));
    }
    let mut content = Content::of_len(len);
    bytes.list(|bytes| {
        if content.blocks() >= room {
            return Err(bytes.malformed("more blocks than the grant allows"));
        }
        let (index, len, place) = (bytes.u64()?, bytes.u16()?, bytes.u64()?);
        let start = usize::try_from(place).unwrap_or(usize::MAX);
        let block = blocks.get(start..start.saturating_add(len.into()));
        let block = block.ok_or_else(|| bytes.malformed("a block that is not there"))?;
        if block.len() > BLOCK || block.last() == Some(&0) || !content.push(index, block) {
            return Err(bytes.malformed("a block out of place"));
        }
        Ok(())
    })?;
    Ok(content)
}

fn encode_directory(directory: &Directory, out: &mut Writer) {
    out.u64(directory.next);
    out.len(directory.iter().count());
    for (number, name, ino) in directory.iter() {
        out.u64(number);
        out.text(name.as_bytes());
        out.u64(ino.0);
    }
}

fn decode_directory(bytes: &mut Reader<'_>) -> Result<Directory, StateError> {
    let mut directory = Directory::within(ROOT);
    directory.next = bytes.u64()?;
    let mut last = FIRST - 1;
    bytes.list(|bytes| {
        let (number, name, ino) = (bytes.u64()?, bytes.text()?, bytes.u64()?);
        let name = core::str::from_utf8(name).map_err(|_| bytes.malformed("a name"))?;
        let plain = !name.is_empty() && !name.contains(['/', '\0']) && !matches!(name, "." | "..");
        if !plain || name.len() > NAME_BYTES_MAX || directory.find(name).is_some() {
            return Err(bytes.malformed("a name"));
        }
        if number <= last || number >= directory.next {
            return Err(bytes.malformed("names out of order"));
        }
        last = number;
        directory.put(number, name, Ino(ino));
        Ok(())
    })?;
    if directory.next < FIRST {
        return Err(bytes.malformed("names out of order"));
    }
    Ok(directory)
}
