//! A checkpoint on its way, in pieces.

use alloc::vec::Vec;

use super::message::{CHUNK_BYTES_MAX, Offer, Transfer};

/// A checkpoint that is being given.
#[derive(Clone, Debug)]
pub(super) struct Package {
    bytes: Vec<u8>,
    progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// It is not offered in these streams.
    Waiting,
    /// It is offered, and so many bytes have gone out.
    Going(usize),
    /// All of it has gone out.
    Gone,
}

impl Package {
    /// `bytes` has a length that fits 32 bits.
    pub(super) const fn new(bytes: Vec<u8>) -> Package {
        Package {
            bytes,
            progress: Progress::Waiting,
        }
    }

    /// It has to be offered again from the beginning.
    pub(super) fn start_over(&mut self) {
        self.progress = Progress::Waiting;
    }

    /// How long it is.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.bytes.len())
            .expect("a checkpoint's length was checked when it was given")
    }

    /// Whether another package has to wait for this one.
    pub(super) const fn is_going(&self) -> bool {
        matches!(self.progress, Progress::Going(_))
    }

    /// Whether there is something to say.
    pub(super) const fn is_due(&self) -> bool {
        !matches!(self.progress, Progress::Gone)
    }

    /// Whether nothing of it has gone out in these streams.
    pub(super) const fn is_unsaid(&self) -> bool {
        matches!(self.progress, Progress::Waiting)
    }

    /// Whether all of it has gone out.
    pub(super) const fn is_gone(&self) -> bool {
        matches!(self.progress, Progress::Gone)
    }

    /// The next that is to be said of it: the offer, and then piece after piece.
    pub(super) fn next(&mut self, offer: Offer) -> Option<(Transfer, &[u8])> {
        match self.progress {
            Progress::Waiting => {
                self.progress = Progress::Going(0);
                Some((Transfer::Offer(offer), &[]))
            }
            Progress::Going(from) => {
                let to = self.bytes.len().min(from + CHUNK_BYTES_MAX);
                self.progress = if to == self.bytes.len() {
                    Progress::Gone
                } else {
                    Progress::Going(to)
                };
                let offset = u32::try_from(from).ok()?;
                Some((Transfer::Chunk { offset }, &self.bytes[from..to]))
            }
            Progress::Gone => None,
        }
    }
}

/// A checkpoint that is being taken.
#[derive(Clone, Debug)]
pub(super) struct Incoming {
    pub(super) offer: Offer,
    bytes: Vec<u8>,
}

/// What a piece has made of a checkpoint.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progressed {
    /// More must come.
    Incomplete,
    /// All is here.
    Complete,
    /// The piece does not follow the one before, or is too long.
    Damaged,
}

impl Incoming {
    /// Memory for so many bytes is reserved at once; `None` if there is none.
    pub(super) fn new(offer: Offer, reserve: usize) -> Option<Incoming> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(reserve).ok()?;
        Some(Incoming { offer, bytes })
    }

    pub(super) fn take(&mut self, offset: u32, piece: &[u8]) -> Progressed {
        let missing = self.offer.bytes as usize - self.bytes.len();
        if offset as usize != self.bytes.len() || piece.len() > missing {
            return Progressed::Damaged;
        }
        if self.bytes.try_reserve(piece.len()).is_err() {
            return Progressed::Damaged;
        }
        self.bytes.extend_from_slice(piece);
        if piece.len() == missing {
            Progressed::Complete
        } else {
            Progressed::Incomplete
        }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}
