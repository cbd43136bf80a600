//! Pages on their way through the compressor, where that pays.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};
use mielin_mesh::StreamError;
use mielin_mesh_core::limits::PAGE_BYTES;
use mielin_mesh_core::migration::{PackingChoice, PageBatch, Trial};
use mielin_mesh_core::{Instant as CoreInstant, MigrationFrame};

use super::frames::{FrameError, Header, Outgoing};
use crate::config::Packing;

/// Pages in one frame, and so what one frame may unpack to: 256 KiB.
pub(super) const PAGES_MAX: usize = 64;
/// Pages of a chunk that are compressed to see what that gives.
const TRIAL_PAGES: usize = 4;

/// Bytes of pages, as they are and as they were sent.
#[derive(Default)]
pub(super) struct PageBytes {
    raw: AtomicU64,
    sent: AtomicU64,
}

impl PageBytes {
    pub(super) fn add(&self, raw: u64, sent: u64) {
        self.raw.fetch_add(raw, Ordering::Relaxed);
        self.sent.fetch_add(sent, Ordering::Relaxed);
    }

    pub(super) fn raw(&self) -> u64 {
        self.raw.load(Ordering::Relaxed)
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// Sends pages, compressed where the core says that it pays.
pub(super) struct Packer {
    choice: PackingChoice,
    packing: Packing,
    began: Instant,
    /// What was compressed last; kept for its room.
    packed: Vec<u8>,
    pub(super) bytes: Arc<PageBytes>,
}

impl Packer {
    pub(super) fn new(packing: Packing) -> Packer {
        Packer {
            choice: PackingChoice::new(),
            packing,
            began: Instant::now(),
            packed: Vec::new(),
            bytes: Arc::default(),
        }
    }

    /// The packer with all that it knows; what is left behind has its counters.
    pub(super) fn take(&mut self) -> Packer {
        let left = Packer {
            bytes: Arc::clone(&self.bytes),
            ..Packer::new(self.packing)
        };
        std::mem::replace(self, left)
    }

    /// Sends a batch of `count` pages; gives the bytes that it took.
    pub(super) async fn send(
        &mut self,
        outgoing: &mut Outgoing,
        count: u32,
        batch: &[u8],
    ) -> Result<u64, StreamError> {
        let now = CoreInstant::from_start(self.began.elapsed());
        if let Some(traffic) = outgoing.traffic() {
            self.choice.observe(now, traffic);
        }
        let (header, tail) = match self.pack(batch) {
            Some(packed) => (Header::Packed { count }, packed),
            None => (Header::Core(MigrationFrame::Pages { count }), batch),
        };
        let tail = Bytes::copy_from_slice(tail);
        let sent = tail.len() as u64;
        outgoing.send(&header, tail).await?;
        self.bytes.add(batch.len() as u64, sent);
        Ok(sent)
    }

    /// The batch compressed, if it should be.
    fn pack(&mut self, batch: &[u8]) -> Option<&[u8]> {
        let wanted = match self.packing {
            Packing::Never => false,
            Packing::Always => true,
            Packing::Auto => {
                self.choice.wants_trial() && {
                    let trial = compress(&sample(batch), &mut self.packed)?;
                    self.choice.note(trial);
                    self.choice.is_worth(trial)
                }
            }
        };
        if !wanted {
            return None;
        }
        let trial = compress(batch, &mut self.packed)?;
        self.choice.note(trial);
        let packed = self.packed.get(..usize::try_from(trial.packed).ok()?)?;
        (packed.len() < batch.len()).then_some(packed)
    }
}

/// A few pages from all over the batch.
fn sample(batch: &[u8]) -> Vec<u8> {
    let count = batch.len() / PageBatch::BYTES_PER_PAGE;
    let (pages, _) = batch.as_chunks::<PAGE_BYTES>();
    let every = count.div_ceil(TRIAL_PAGES).max(1);
    let mut sample = Vec::with_capacity(TRIAL_PAGES * PAGE_BYTES);
    for page in pages.iter().take(count).step_by(every) {
        sample.extend_from_slice(page);
    }
    sample
}

/// Compresses to the beginning of `packed`, which is made large enough.
fn compress(bytes: &[u8], packed: &mut Vec<u8>) -> Option<Trial> {
    let began = Instant::now();
    let room = get_maximum_output_size(bytes.len());
    if packed.len() < room {
        packed.resize(room, 0);
    }
    let len = compress_into(bytes, packed).ok()?;
    Some(Trial {
        raw: bytes.len() as u64,
        packed: len as u64,
        took: began.elapsed(),
    })
}

/// The batch of pages in the tail of [`Header::Packed`]. What it comes to is known beforehand: nothing is made as large
/// as the tail only claims to be.
pub(super) fn unpack(count: u32, tail: &[u8]) -> Result<Bytes, FrameError> {
    let count = count as usize;
    if count == 0 || count > PAGES_MAX {
        return Err(FrameError::Malformed);
    }
    let mut batch = vec![0; count * PageBatch::BYTES_PER_PAGE];
    match decompress_into(tail, &mut batch) {
        Ok(len) if len == batch.len() => Ok(batch.into()),
        Ok(_) | Err(_) => Err(FrameError::Malformed),
    }
}

#[cfg(test)]
pub(super) fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    let trial = compress(bytes, &mut packed).expect("there is room");
    packed.truncate(trial.packed as usize);
    packed
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mielin_mesh_core::migration::page_indices;

    use super::*;

    fn batch(count: u32, byte: impl Fn(u32) -> u8) -> Vec<u8> {
        let mut tail: Vec<u8> = (0..count * 4096).map(byte).collect();
        tail.resize(count as usize * PageBatch::BYTES_PER_PAGE, 0);
        let indices: Vec<u32> = (0..count).collect();
        page_indices(&indices, &mut tail).unwrap().to_vec()
    }

    fn noise(at: u32) -> u8 {
        let mut x = u64::from(at).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for _ in 0..3 {
            x = (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        }
        (x >> 56) as u8
    }

    #[test]
    fn packed_pages_come_back() {
        for (count, byte) in [
            (1, (|_| 7) as fn(u32) -> u8),
            (64, |at| (at / 300) as u8),
            (64, noise),
            (3, noise),
        ] {
            let tail = batch(count, byte);
            assert_eq!(unpack(count, &packed(&tail)).unwrap(), tail);
        }
    }

    #[test]
    fn what_grows_goes_as_it_is_and_what_is_not_wanted_too() {
        let (noise, same) = (batch(8, noise), batch(8, |_| 1));
        assert!(Packer::new(Packing::Always).pack(&noise).is_none());
        assert!(Packer::new(Packing::Always).pack(&same).unwrap().len() < 500);
        assert!(Packer::new(Packing::Never).pack(&same).is_none());
        // Nothing is known of the link.
        assert!(Packer::new(Packing::Auto).pack(&same).is_none());
    }

    #[test]
    fn hostile_tails_are_errors() {
        let tail = batch(4, |at| (at / 100) as u8);
        let packed = packed(&tail);
        for count in [0, 3, 5, 64, 65, u32::MAX] {
            assert!(unpack(count, &packed).is_err(), "{count}");
        }
        for len in 0..packed.len() {
            assert!(unpack(4, &packed[..len]).is_err(), "cut at {len}");
        }
        assert!(unpack(4, &[]).is_err());
        // A megabyte that says it is a gigabyte: the longest match that LZ4 can write.
        let mut bomb = vec![0x1f, 7, 1, 0];
        bomb.extend(vec![255; 1 << 20]);
        assert!(unpack(64, &bomb).is_err());
        // A match that begins before the first byte.
        assert!(unpack(1, &[0x14, 7, 0xff, 0xff, 0, 0]).is_err());
    }

    #[test]
    fn a_sample_is_from_all_over() {
        let tail = batch(64, |at| (at / 4096) as u8);
        let sample = sample(&tail);
        assert_eq!(sample.len(), 4 * PAGE_BYTES);
        let bytes: Vec<u8> = sample.chunks(PAGE_BYTES).map(|page| page[9]).collect();
        assert_eq!(bytes, [0, 16, 32, 48]);
        assert_eq!(super::sample(&batch(3, |_| 1)).len(), 3 * PAGE_BYTES);
        assert_eq!(super::sample(&[]).len(), 0);
    }
}
