//! Pages that follow an agent which runs at its target already.
//!
//! Two tasks send them: one answers the target, which asks for what the agent waits for, on a stream that goes before
//! all others but the mesh's own; one pushes the rest. Both take pages from the frozen agent, which stays here whole
//! until the target has everything.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use mielin_mesh::RecvHalf;
use mielin_mesh_core::MigrationFrame;
use mielin_mesh_core::migration::{SourceInput, page_runs};
use mielin_safepoint::PAGE_SIZE;
use mielin_wasm::PageSet;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::super::frames::{self, Header, Outgoing};
use super::super::packing::{Packer, PageBytes};
use super::Source;
use super::pages::{BATCH, Batch, Fate, is_zero};
use crate::cell::HeldLive;
use crate::lock::lock;
use crate::wire;

/// Pages behind one that the agent waits for that go with it: a program seldom stays on one page.
const READ_AHEAD: u32 = 8;
/// How long the push may take to end when there is nothing left to push.
const END_LIMIT: Duration = Duration::from_secs(1);

/// What the two tasks share.
struct Shared {
    /// `None` when serving has ended.
    held: Option<HeldLive>,
    /// Pages that nobody has sent yet.
    left: PageSet,
    /// Where the push goes on: behind the page that the agent last waited for.
    next: u32,
}

/// Whether pages may go through the compressor: not those that the agent waits for.
enum Way<'a> {
    Packed(&'a mut Packer),
    Plain(&'a PageBytes),
}

/// The two tasks and what they say.
pub(super) struct Serving {
    shared: Arc<Mutex<Shared>>,
    push: JoinHandle<Outgoing>,
    answers: JoinHandle<()>,
    progress: mpsc::UnboundedReceiver<Progress>,
}

/// What one of them has done.
pub(super) enum Progress {
    /// So many pages went out that nobody had sent before, and so many bytes in all.
    Sent { pages: u64, bytes: u64 },
    /// So many bytes went out to say that so many pages are not there.
    Untouched { pages: u64, bytes: u64 },
    /// The agent waits for so many pages.
    Wanted(u64),
}

impl Shared {
    /// Takes pages out of what is left and reads them, and gives how many of them were left; `None` when serving has
    /// ended.
    fn pick(&mut self, indices: &[u32], batch: &mut Batch) -> Option<u64> {
        let held = self.held.as_ref()?;
        let before = self.left.len();
        for index in indices {
            self.left.remove(*index);
        }
        let read = |pages: &mut [[u8; PAGE_SIZE]]| {
            for (index, page) in indices.iter().zip(pages) {
                held.instance().read_page(*index, page);
            }
            Ok::<_, Infallible>(())
        };
        let Ok(()) = batch.fill(indices, read, |_, page| match is_zero(page) {
            true => Fate::Zero,
            false => Fate::Kept,
        });
        Some(before - self.left.len())
    }

    /// The next pages to push, as [`Shared::pick`] does it; `None` when there are none.
    fn next(&mut self, batch: &mut Batch) -> Option<u64> {
        let mut indices: Vec<u32> = self.left.from(self.next).take(BATCH).collect();
        if indices.is_empty() {
            indices = self.left.iter().take(BATCH).collect();
        }
        let last = indices.last()?;
        self.next = last.saturating_add(1);
        self.pick(&indices, batch)
    }

    /// What the agent waits for, and what it will probably want next, as [`Shared::pick`] does it.
    fn around(&mut self, wanted: &[u32], batch: &mut Batch) -> Option<u64> {
        let mut indices: BTreeSet<u32> = wanted.iter().copied().collect();
        for index in wanted {
            let end = index.saturating_add(READ_AHEAD);
            indices.extend(self.left.from(*index).take_while(|index| *index < end));
            self.next = end;
        }
        self.pick(&indices.into_iter().collect::<Vec<_>>(), batch)
    }
}

/// Sends a batch with so many pages that had not been sent, and says so and how many bytes that took.
async fn send(
    batch: &Batch,
    pages: u64,
    outgoing: &mut Outgoing,
    way: Way<'_>,
    progress: &mpsc::UnboundedSender<Progress>,
) -> Result<(), mielin_mesh::StreamError> {
    let before = outgoing.bytes;
    if let Some((count, tail)) = batch.pages() {
        match way {
            Way::Packed(packer) => {
                packer.send(outgoing, count, tail).await?;
            }
            Way::Plain(bytes) => {
                let len = tail.len() as u64;
                let frame = MigrationFrame::Pages { count };
                outgoing.core(frame, Bytes::copy_from_slice(tail)).await?;
                bytes.add(len, len);
            }
        }
    }
    if let Some((count, tail)) = batch.zeros() {
        let frame = MigrationFrame::Zeros { count };
        outgoing.core(frame, tail).await?;
    }
    let bytes = outgoing.bytes - before;
    // The driver may have ended.
    let _ = progress.send(Progress::Sent { pages, bytes });
    Ok(())
}

/// Takes out of what is left the pages that the agent has never touched, and says that they are zero.
async fn send_untouched(
    shared: &Mutex<Shared>,
    outgoing: &mut Outgoing,
    progress: &mpsc::UnboundedSender<Progress>,
) -> Result<(), mielin_mesh::StreamError> {
    let mut tail = Vec::new();
    let (count, pages) = {
        let mut shared = lock(shared);
        let Some(held) = &shared.held else {
            return Ok(());
        };
        let mut untouched = shared.left.clone();
        for index in held.instance().touched_pages() {
            untouched.remove(index);
        }
        for index in untouched.iter() {
            shared.left.remove(index);
        }
        (page_runs(untouched.iter(), &mut tail), untouched.len())
    };
    if count > 0 {
        let bytes = tail.len() as u64;
        let frame = MigrationFrame::Zeros { count };
        outgoing.core(frame, tail.into()).await?;
        // The driver may have ended.
        let _ = progress.send(Progress::Untouched { pages, bytes });
    }
    Ok(())
}

impl Serving {
    fn start(
        held: HeldLive,
        (left, is_untold): (PageSet, bool),
        outgoing: Outgoing,
        (mut answer, mut questions): (Outgoing, RecvHalf),
        mut packer: Packer,
    ) -> Serving {
        let bytes = Arc::clone(&packer.bytes);
        let shared = Arc::new(Mutex::new(Shared {
            held: Some(held),
            left,
            next: 0,
        }));
        let (said, progress) = mpsc::unbounded_channel();
        let push = {
            let (shared, said) = (Arc::clone(&shared), said.clone());
            let mut outgoing = outgoing;
            tokio::spawn(async move {
                if is_untold && send_untouched(&shared, &mut outgoing, &said).await.is_err() {
                    return outgoing;
                }
                let mut batch = Batch::default();
                loop {
                    let Some(pages) = lock(&shared).next(&mut batch) else {
                        break;
                    };
                    // A broken stream is noticed where the target's frames are read.
                    let way = Way::Packed(&mut packer);
                    if send(&batch, pages, &mut outgoing, way, &said)
                        .await
                        .is_err()
                    {
                        break;
                    }
                }
                outgoing
            })
        };
        let answers = {
            let shared = Arc::clone(&shared);
            let mut batch = Batch::default();
            tokio::spawn(async move {
                while let Ok(Some((Header::Wanted, tail))) = frames::receive(&mut questions).await {
                    let (words, _) = tail.as_chunks::<4>();
                    let wanted: Vec<u32> =
                        words.iter().map(|word| u32::from_le_bytes(*word)).collect();
                    let _ = said.send(Progress::Wanted(wanted.len() as u64));
                    for wanted in wanted.chunks(BATCH / READ_AHEAD as usize) {
                        let Some(pages) = lock(&shared).around(wanted, &mut batch) else {
                            return;
                        };
                        let way = Way::Plain(&bytes);
                        if send(&batch, pages, &mut answer, way, &said).await.is_err() {
                            return;
                        }
                    }
                }
            })
        };
        Serving {
            shared,
            push,
            answers,
            progress,
        }
    }

    /// What has been done since the last time.
    pub(super) async fn progress(&mut self) -> Progress {
        match self.progress.recv().await {
            Some(progress) => progress,
            None => std::future::pending().await,
        }
    }

    /// Takes the agent back; with the stream, unless a frame may have been cut in the middle of it, and what was done
    /// and not told.
    async fn end(mut self) -> (Option<HeldLive>, Option<Outgoing>, Vec<Progress>) {
        let held = lock(&self.shared).held.take();
        self.answers.abort();
        let outgoing = tokio::time::timeout(END_LIMIT, &mut self.push).await;
        self.push.abort();
        let _ = (&mut self.answers).await;
        let untold = std::iter::from_fn(|| self.progress.try_recv().ok()).collect();
        (held, outgoing.ok().and_then(Result::ok), untold)
    }
}

impl Source {
    /// Opens the stream on which the target asks for pages that its agent waits for.
    pub(super) async fn open_follow(&mut self) -> Result<(), SourceInput> {
        let broken = |_| SourceInput::ConnectionLost;
        let stream = self.node.mesh.open_stream(&self.target, wire::PAGES).await;
        let (send, recv) = stream.map_err(broken)?.split();
        let mut outgoing = Outgoing::new(send);
        let header = Header::Follow(self.cell().id().0);
        let sent = outgoing.send(&header, bytes::Bytes::new()).await;
        sent.map_err(|_| SourceInput::ConnectionLost)?;
        self.follow = Some((outgoing, recv));
        Ok(())
    }

    /// Tells the target which pages will follow: all that were found dirty and not sent.
    pub(super) async fn send_absent(&mut self) -> Result<SourceInput, SourceInput> {
        let mut tail = Vec::new();
        let count = page_runs(self.dirty.iter(), &mut tail);
        let frame = MigrationFrame::Absent { count };
        self.send(Header::Core(frame), tail.into()).await?;
        Ok(SourceInput::AbsentSent)
    }

    /// Begins to send what follows.
    pub(super) fn serve(&mut self) {
        let parts = (self.held.take(), self.outgoing.take(), self.follow.take());
        let (Some(held), Some(outgoing), Some(follow)) = parts else {
            // The stream has just broken, which the driver hears of in its turn.
            self.held = parts.0;
            return;
        };
        let left = std::mem::take(&mut self.dirty);
        let is_untold = std::mem::take(&mut self.is_untold);
        // What it knows of the link goes along; nothing but the counters is asked of the one that stays.
        let packer = self.packer.take();
        self.serving = Some(Serving::start(
            held,
            (left, is_untold),
            outgoing,
            follow,
            packer,
        ));
    }

    /// Stops sending what follows, if that has begun.
    pub(super) async fn end_serving(&mut self) {
        if let Some(serving) = self.serving.take() {
            let untold;
            (self.held, self.outgoing, untold) = serving.end().await;
            for progress in untold {
                let input = self.note_served(progress);
                self.coordinator.handle(self.node.now(), input);
            }
        }
    }

    /// Counts what the tasks have done.
    pub(super) fn note_served(&mut self, progress: Progress) -> SourceInput {
        let (pages, bytes) = match progress {
            Progress::Sent { pages, bytes } => (pages, bytes),
            Progress::Untouched { pages, bytes } => {
                self.untouched += pages;
                (pages, bytes)
            }
            Progress::Wanted(pages) => {
                self.faults += pages;
                (0, 0)
            }
        };
        SourceInput::PagesServed { pages, bytes }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::cell::tests::{agent_of, prepared, scheduler};

    /// What the coordinator is told gives the target more time, so a page that it asks for again must not count.
    #[tokio::test]
    async fn a_page_counts_once_however_often_it_is_asked_for() {
        // It waits for ever: one that ends could have done so before it is held.
        let program = prepared(
            r#"(module
            (import "mielin" "receive" (func $receive (param i32 i32 i64 i32) (result i32)))
            (memory (export "memory") 4)
            (func (export "_start")
                (drop (call $receive (i32.const 0) (i32.const 64) (i64.const -1) (i32.const 0)))))"#,
        );
        let scheduler = scheduler(1);
        let cell = agent_of(program, &scheduler);
        let mut left = PageSet::default();
        left.extend(10..30);
        let mut shared = Shared {
            held: Some(cell.hold_live().await.unwrap()),
            left,
            next: 0,
        };
        let mut batch = Batch::default();
        // With those behind it; then nothing of it is left, and beyond the memory there never was anything.
        assert_eq!(shared.around(&[10], &mut batch), Some(8));
        for _ in 0..3 {
            assert_eq!(shared.around(&[10], &mut batch), Some(0));
            assert_eq!(shared.around(&[0, 9, 64, u32::MAX], &mut batch), Some(0));
        }
        assert_eq!(shared.next(&mut batch), Some(12));
        assert_eq!(shared.next(&mut batch), None);
        shared.held = None;
        assert_eq!(shared.around(&[10], &mut batch), None);
        scheduler.close();
    }
}
