//! Pages that come while the agent runs here already.
//!
//! The agent waits where it touches one that has not come. What it waits for is asked of the source on a stream of its
//! own, where it comes before everything else; the rest comes as it is pushed, on the stream of the move.

use std::io::PipeWriter;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use mielin_mesh::MeshStream;
use mielin_mesh_core::MigrationFrame;
use mielin_mesh_core::migration::{PageBatch, TargetInput, read_page_runs};
use mielin_wasm::{AbsentPages, TrackError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::super::frames::{Header, Outgoing};
use super::read;
use crate::error::CellsError;
use crate::lock::lock;

/// The pages that have not come, and the number of the memory's pages.
#[derive(Clone)]
struct Absent {
    pages: Arc<Mutex<Box<dyn AbsentPages>>>,
    end: u32,
}

pub(super) struct Following {
    absent: Absent,
    /// Aborted when it is dropped.
    task: JoinSet<()>,
    news: mpsc::Receiver<TargetInput>,
    /// Ends the watcher when it is dropped.
    watching: PipeWriter,
    watcher: std::thread::JoinHandle<()>,
}

impl Following {
    /// Begins to ask for what the agent waits for, of which nothing is at `end` or beyond.
    pub(super) fn new(
        absent: Box<dyn AbsentPages>,
        end: u32,
        stream: MeshStream,
    ) -> Result<Following, CellsError> {
        let starting = |error| CellsError::io("waiting for page faults")(error);
        let (end_of_watch, watching) = std::io::pipe().map_err(starting)?;
        let mut watch = absent
            .watch(end_of_watch)
            .map_err(mielin_wasm::EngineError::from)?;
        let absent = Absent {
            pages: Arc::new(Mutex::new(absent)),
            end,
        };
        let (sender, news) = mpsc::channel(4);
        let (wants, wanted) = mpsc::channel(4);
        let pages = Arc::clone(&absent.pages);
        let watcher = move || {
            while matches!(watch(), Ok(true)) {
                let wanted = lock(&pages).wanted();
                let failed = wanted.is_err();
                if wants.blocking_send(wanted).is_err() || failed {
                    return;
                }
            }
        };
        let watcher = std::thread::Builder::new()
            .name("page faults".to_owned())
            .spawn(watcher)
            .map_err(starting)?;
        let mut task = JoinSet::new();
        task.spawn(ask(absent.clone(), wanted, stream, sender));
        Ok(Following {
            absent,
            task,
            news,
            watching,
            watcher,
        })
    }

    /// The next thing to tell the receiver.
    pub(super) async fn news(&mut self) -> TargetInput {
        match self.news.recv().await {
            Some(news) => news,
            // The stream for questions has ended. What is missing may still be pushed.
            None => std::future::pending().await,
        }
    }

    /// Puts pages in place that were pushed.
    pub(super) fn place(&self, count: u32, tail: &Bytes) -> Option<TargetInput> {
        place(&self.absent, count, tail)
    }

    /// The same for pages that are zero.
    pub(super) fn place_zeros(&self, count: u32, tail: &Bytes) -> Option<TargetInput> {
        place_zeros(&self.absent, count, tail)
    }

    /// Lets the agent go on, without what is still missing.
    pub(super) async fn end(mut self) {
        // Both hold what keeps the agent waiting.
        self.task.shutdown().await;
        drop(self.watching);
        let watcher = self.watcher;
        let _ = tokio::task::spawn_blocking(move || watcher.join()).await;
    }
}

/// Asks for pages and puts in place what comes, until the stream or the agent is gone.
async fn ask(
    absent: Absent,
    mut wanted: mpsc::Receiver<Result<Vec<u32>, TrackError>>,
    stream: MeshStream,
    news: mpsc::Sender<TargetInput>,
) {
    let (send, recv) = stream.split();
    let mut outgoing = Outgoing::new(send);
    let mut answers = read(recv);
    loop {
        let said = tokio::select! {
            wanted = wanted.recv() => match wanted {
                Some(Ok(wanted)) if wanted.is_empty() => None,
                Some(Ok(wanted)) => {
                    let tail: Vec<u8> =
                        wanted.iter().flat_map(|index| index.to_le_bytes()).collect();
                    if outgoing.send(&Header::Wanted, tail.into()).await.is_err() {
                        return;
                    }
                    None
                }
                Some(Err(error)) => Some(of_error(&error)),
                None => return,
            },
            answer = answers.recv() => match answer {
                Some(Ok(Some((Header::Core(MigrationFrame::Pages { count }), tail)))) => {
                    place(&absent, count, &tail)
                }
                Some(Ok(Some((Header::Core(MigrationFrame::Zeros { count }), tail)))) => {
                    place_zeros(&absent, count, &tail)
                }
                _ => return,
            },
        };
        if let Some(said) = said
            && news.send(said).await.is_err()
        {
            return;
        }
    }
}

fn place(absent: &Absent, count: u32, tail: &Bytes) -> Option<TargetInput> {
    let Ok(batch) = PageBatch::new(count, tail) else {
        return Some(TargetInput::Failed("malformed pages".to_owned()));
    };
    let mut absent = lock(&absent.pages);
    let before = absent.count();
    for (first, pages) in batch.runs() {
        if let Err(error) = absent.place(first, pages) {
            return Some(of_error(&error));
        }
    }
    standing(before, absent.count())
}

fn place_zeros(absent: &Absent, count: u32, tail: &Bytes) -> Option<TargetInput> {
    let Ok(runs) = read_page_runs(count, tail) else {
        return Some(TargetInput::Failed("malformed runs of pages".to_owned()));
    };
    if runs
        .last()
        .is_some_and(|(first, len)| first + len > absent.end)
    {
        return Some(TargetInput::Failed(
            "pages beyond the end of the memory".to_owned(),
        ));
    }
    let mut absent = lock(&absent.pages);
    let before = absent.count();
    for (first, len) in runs {
        if let Err(error) = absent.place_zeros(first, len) {
            return Some(of_error(&error));
        }
    }
    standing(before, absent.count())
}

/// What came, if anything did: the same page again and again must not keep the agent waiting for another one.
fn standing(before: u64, left: u64) -> Option<TargetInput> {
    match left {
        0 => Some(TargetInput::Resident),
        _ => (left < before).then_some(TargetInput::PageCame),
    }
}

fn of_error(error: &TrackError) -> TargetInput {
    match error {
        // It has ended: nobody needs the rest.
        TrackError::Gone => TargetInput::Resident,
        error => TargetInput::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::PipeReader;

    use mielin_mesh_core::migration::page_runs;
    use mielin_safepoint::PAGE_SIZE;
    use mielin_wasm::{PageSet, Watch};

    use super::*;

    struct Pages(PageSet);

    impl AbsentPages for Pages {
        fn count(&self) -> u64 {
            self.0.len()
        }

        fn watch(&self, _: PipeReader) -> Result<Watch, TrackError> {
            Err(TrackError::Gone)
        }

        fn wanted(&mut self) -> Result<Vec<u32>, TrackError> {
            Ok(Vec::new())
        }

        fn place(&mut self, first: u32, pages: &[[u8; PAGE_SIZE]]) -> Result<u64, TrackError> {
            let placed = (first..)
                .zip(pages)
                .filter(|(index, _)| self.0.remove(*index));
            Ok(placed.count() as u64)
        }

        fn place_zeros(&mut self, first: u32, pages: u32) -> Result<(), TrackError> {
            for index in first..first + pages {
                self.0.remove(index);
            }
            Ok(())
        }
    }

    /// What is said of them gives the source more time, so pages that are there must not count.
    #[test]
    fn a_page_counts_once_however_often_it_comes() {
        let absent = Absent {
            pages: Arc::new(Mutex::new(Box::new(Pages(PageSet::below(8))))),
            end: 8,
        };
        let page = [&[1; PAGE_SIZE][..], &3_u32.to_le_bytes()].concat().into();
        let mut zeros = Vec::new();
        let runs = page_runs([1, 2, 5], &mut zeros);
        let zeros = zeros.into();
        let came = Some(TargetInput::PageCame);
        assert_eq!(place(&absent, 1, &page), came);
        assert_eq!(place_zeros(&absent, runs, &zeros), came);
        for _ in 0..3 {
            assert_eq!(place(&absent, 1, &page), None);
            assert_eq!(place_zeros(&absent, runs, &zeros), None);
        }
        let mut rest = Vec::new();
        let runs = page_runs([0, 4, 6, 7], &mut rest);
        let all = Some(TargetInput::Resident);
        assert_eq!(place_zeros(&absent, runs, &rest.into()), all);
        assert_eq!(place(&absent, 1, &page), all);
    }
}
