//! A program without an instance: what is left of it when its engine's structures and memories are given back.
//!
//! An instance has an address space of several mappings, of which a process may have some ten thousands, and whole
//! pages where the program has touched a byte. A program that waits needs neither: only the blocks of its memory are
//! kept that differ from what its module begins with, its stack and globals, and its host state as it is.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::slice::ChunksExact;

use mielin_safepoint::{Execution, GlobalValue, PAGE_SIZE, Page, Resumable, Snapshot};

use crate::{EngineError, HostState, Limits, Services, dirty};

/// Blocks of this size are compared: one bit of a word for each block of a page.
const BLOCK_BYTES: usize = PAGE_SIZE / u64::BITS as usize;

/// A program with more than this beside what its module begins with keeps its instance: to copy it would take longer
/// than a turn, and for so many of such programs that their mappings were too many there is no memory anyway.
pub(crate) const CHANGED_BYTES_MAX: usize = 8 << 20;

/// The same for one that has touched more than this, whether or not it has changed it, or has more where nobody knows what
/// it has touched: each page is looked at.
pub(crate) const TOUCHED_BYTES_MAX: usize = 2 * CHANGED_BYTES_MAX;

const ZEROS: [u8; PAGE_SIZE] = [0; PAGE_SIZE];

/// A program that is not running and has no instance. [`Prepared::wake`](crate::Prepared::wake) makes one, which is
/// the same to the program and to whoever looks at it.
pub struct Rested {
    pub(crate) module: Arc<Resumable>,
    pub(crate) image: Arc<Image>,
    pub(crate) memory_bytes: u64,
    pub(crate) changes: Changes,
    /// None for a program that has not begun.
    pub(crate) execution: Option<Execution>,
    pub(crate) host: HostState,
    pub(crate) services: Arc<dyn Services>,
    pub(crate) limits: Limits,
}

impl Rested {
    /// The size that the program's memory has when it is awake.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Bytes that are kept of its memory and its stack.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        let frames = self.execution.as_ref().map_or(0, |execution| {
            execution.frames.len() + size_of_val(&execution.globals[..])
        });
        self.changes.bytes.len() + size_of_val(&self.changes.pages[..]) + frames
    }

    /// What [`Instance::snapshot`](crate::Instance::snapshot) gives when it is awake; no instance is made for it.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let execution = match &self.execution {
            Some(execution) => execution.clone(),
            None => Execution {
                globals: self.image.globals.clone(),
                frames: Vec::new(),
            },
        };
        Snapshot {
            module: self.module.hash(),
            memory_bytes: self.memory_bytes,
            pages: self.changes.pages_over(&self.image),
            globals: execution.globals,
            frames: execution.frames,
            host: self.host.to_sections(),
        }
    }
}

/// There is no instance for a program: it stays as it is.
#[derive(thiserror::Error)]
#[error("no instance can be made for a program: {error}")]
pub struct NotWoken {
    /// The program.
    pub rested: Rested,
    /// Why.
    pub error: EngineError,
}

impl fmt::Debug for NotWoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NotWoken").field(&self.error).finish()
    }
}

/// A program that has not begun: the pages of its memory that are not zero, and its globals.
pub(crate) struct Image {
    pages: BTreeMap<u32, Box<[u8; PAGE_SIZE]>>,
    globals: Vec<GlobalValue>,
}

impl Image {
    /// Of a memory; `touched` are its pages that may hold something else than zeros, if that is known.
    pub(crate) fn of(memory: &[u8], touched: Option<Vec<u32>>, globals: Vec<GlobalValue>) -> Self {
        let (pages, _) = memory.as_chunks::<PAGE_SIZE>();
        let filled = |index: u32| {
            let page = pages.get(index as usize)?;
            (!dirty::is_zero(page)).then(|| (index, Box::new(*page)))
        };
        let pages = match touched {
            Some(touched) => touched.into_iter().filter_map(filled).collect(),
            None => (0..count(pages)).filter_map(filled).collect(),
        };
        Self { pages, globals }
    }

    fn page(&self, index: u32) -> &[u8; PAGE_SIZE] {
        self.pages.get(&index).map_or(&ZEROS, |page| page)
    }
}

/// The blocks of a memory that differ from an image.
#[derive(Default)]
pub(crate) struct Changes {
    /// Pages with such blocks, ascending, and a bit for each.
    pages: Box<[(u32, u64)]>,
    /// What is in these blocks, in order.
    bytes: Box<[u8]>,
}

impl Changes {
    /// None if they have more than `bytes_max` bytes. `touched` as for [`Image::of`].
    pub(crate) fn between(
        image: &Image,
        memory: &[u8],
        touched: Option<Vec<u32>>,
        bytes_max: usize,
    ) -> Option<Self> {
        let (pages, _) = memory.as_chunks::<PAGE_SIZE>();
        let looked_at = match touched {
            // What the module begins with may be gone without a trace.
            Some(touched) => {
                let all: BTreeSet<u32> = touched
                    .into_iter()
                    .chain(image.pages.keys().copied())
                    .collect();
                all.into_iter().collect()
            }
            None => (0..count(pages)).collect::<Vec<u32>>(),
        };
        let (mut changed, mut bytes) = (Vec::new(), Vec::new());
        for index in looked_at {
            let Some(page) = pages.get(index as usize) else {
                continue;
            };
            let before = image.page(index);
            if page == before {
                continue;
            }
            let mut mask = 0;
            let blocks = page
                .chunks_exact(BLOCK_BYTES)
                .zip(before.chunks_exact(BLOCK_BYTES));
            for (bit, (block, before)) in blocks.enumerate() {
                if block != before {
                    mask |= 1 << bit;
                    bytes.extend_from_slice(block);
                }
            }
            changed.push((index, mask));
            if bytes.len() > bytes_max {
                return None;
            }
        }
        Some(Self {
            pages: changed.into(),
            bytes: bytes.into(),
        })
    }

    /// Makes them in a memory that holds the image and is as large.
    pub(crate) fn apply(&self, memory: &mut [u8]) {
        let mut blocks = self.bytes.chunks_exact(BLOCK_BYTES);
        for (index, mask) in &self.pages {
            let page = *index as usize * PAGE_SIZE;
            put(*mask, &mut blocks, &mut memory[page..page + PAGE_SIZE]);
        }
    }

    /// The pages that are not zero of a memory that holds the image and these changes.
    fn pages_over(&self, image: &Image) -> Vec<Page> {
        let mut pages = image.pages.clone();
        let mut blocks = self.bytes.chunks_exact(BLOCK_BYTES);
        for (index, mask) in &self.pages {
            let page = pages.entry(*index).or_insert_with(|| Box::new(ZEROS));
            put(*mask, &mut blocks, &mut page[..]);
        }
        pages.retain(|_, page| !dirty::is_zero(&page[..]));
        let pages = pages.into_iter();
        pages.map(|(index, bytes)| Page { index, bytes }).collect()
    }
}

/// Puts the next blocks where the bits of a page's mask say.
fn put(mask: u64, blocks: &mut ChunksExact<'_, u8>, page: &mut [u8]) {
    let bits = (0..u64::BITS as usize).filter(|bit| mask >> bit & 1 == 1);
    // Not the other way round: `zip` takes from the first before it finds the second empty.
    for (bit, block) in bits.zip(blocks) {
        let at = bit * BLOCK_BYTES;
        page[at..at + BLOCK_BYTES].copy_from_slice(block);
    }
}

fn count(pages: &[[u8; PAGE_SIZE]]) -> u32 {
    u32::try_from(pages.len()).expect("a 32-bit memory has at most 2^20 pages")
}
