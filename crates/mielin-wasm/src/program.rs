//! An instance on any engine: what is the same for all of them.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use mielin_safepoint::{Execution, GlobalValue, PAGE_SIZE, Page, Resumable, Snapshot, abi};

#[cfg(feature = "wasmtime")]
use crate::dirty::AbsentPages;
use crate::dirty::{self, DirtyTracker, RegionOwner};
use crate::machine::{Failure, Machine};
use crate::poll_word::Frames;
use crate::prepared::check_limits;
use crate::rested::{CHANGED_BYTES_MAX, Changes, Image, Rested, TOUCHED_BYTES_MAX};
use crate::state::End;
use crate::{EngineError, HostState, Instance, Outcome, StopHandle, TrapKind};

pub(crate) const WASM_PAGE: u64 = 65536;

/// A program on one engine. The fields are dropped in this order: the handles that other threads
/// hold are cut off before the memory behind them goes.
pub(crate) struct Program<M: Machine> {
    frames: Frames,
    region: Option<RegionOwner>,
    machine: M,
    module: Arc<Resumable>,
    /// What it began with.
    image: Arc<Image>,
    mode: M::Global,
    /// The mutable globals in the manifest's order, and their values when the program last stopped
    /// running.
    globals: Vec<M::Global>,
    values: Vec<GlobalValue>,
    /// Whether the next run resumes frames or starts from the beginning.
    resume: bool,
}

impl<M: Machine> Program<M> {
    /// A program that has not started. `region` is its memory's place if that never changes, `globals`
    /// are those of the manifest.
    pub(crate) fn new(
        (module, image): (Arc<Resumable>, Arc<Image>),
        machine: M,
        mut frames: Frames,
        region: Option<RegionOwner>,
        mode: M::Global,
        globals: Vec<M::Global>,
    ) -> Self {
        assert!(frames.restore(&[]), "no frames fit any frames memory");
        let mut program = Self {
            frames,
            region,
            machine,
            module,
            image,
            mode,
            globals,
            values: Vec::new(),
            resume: false,
        };
        program.note_globals();
        program
    }

    pub(crate) fn into_image(self) -> Arc<Image> {
        self.image
    }

    fn note_globals(&mut self) {
        let values = self.globals.iter().map(|global| self.machine.get(*global));
        self.values = values.collect();
    }

    /// Where pages are in the memory, if they are inside.
    fn memory_range(&self, first: u32, pages: usize) -> Option<Range<usize>> {
        let start = first as usize * PAGE_SIZE;
        let end = start.checked_add(pages * PAGE_SIZE)?;
        (end <= self.machine.memory().len()).then_some(start..end)
    }

    fn grow_to(&mut self, bytes: u64) -> Result<(), EngineError> {
        let limits = &self.machine.context().limits;
        if bytes > limits.memory_bytes {
            return Err(EngineError::OverLimit {
                what: "the program's memory",
                limit: limits.memory_bytes,
                found: bytes,
            });
        }
        let missing = bytes
            .saturating_sub(self.memory_bytes())
            .div_ceil(WASM_PAGE);
        if missing > 0 && !self.machine.grow(missing) {
            return Err(EngineError::Grow { bytes });
        }
        Ok(())
    }

    /// Becomes a program of the same module that has no instance; its host state is the caller's to put in place.
    pub(crate) fn resume_from(&mut self, rested: &Rested) -> Result<(), EngineError> {
        self.grow_to(rested.memory_bytes)?;
        if let Some(execution) = &rested.execution {
            self.restore(execution)?;
        }
        if self.memory_bytes() != rested.memory_bytes {
            let reason = "the memory is of another size".to_owned();
            return Err(EngineError::Execution { reason });
        }
        rested.changes.apply(self.machine.memory_mut());
        Ok(())
    }

    fn check_execution(&self, execution: &Execution) -> Result<(), EngineError> {
        let wrong = |reason: String| Err(EngineError::Execution { reason });
        let expected = &self.module.manifest().globals;
        if execution.globals.len() != expected.len() {
            let (has, got) = (expected.len(), execution.globals.len());
            return wrong(format!("the module has {has} mutable globals, not {got}"));
        }
        for (index, (info, value)) in expected.iter().zip(&execution.globals).enumerate() {
            if info.value_type != value.value_type() {
                return wrong(format!("global {index} is of another type"));
            }
        }
        Ok(())
    }
}

impl<M: Machine> Instance for Program<M> {
    fn run(&mut self) -> Outcome {
        if let Some(end) = &self.host().end {
            return end.outcome();
        }
        self.machine.context_mut().waiting = None;
        self.frames.enter(self.resume);
        let mode = if self.resume {
            abi::REWINDING
        } else {
            abi::RUNNING
        };
        self.machine.set(self.mode, GlobalValue::I32(mode));
        let result = self.machine.enter();
        let unwinds = self.machine.get(self.mode) == GlobalValue::I32(abi::UNWINDING);
        self.machine.set(self.mode, GlobalValue::I32(abi::RUNNING));
        self.frames.leave();
        self.note_globals();
        let end = match result {
            Ok(()) if unwinds => {
                self.resume = true;
                return match self.machine.context().waiting {
                    Some(wait) => Outcome::Blocked(wait),
                    None => Outcome::Stopped,
                };
            }
            Ok(()) => End::Exited(0),
            Err(Failure::Exited(code)) => End::Exited(code),
            // All that a program does while it unwinds is to write frames.
            Err(Failure::Trapped(trap)) if unwinds && trap.kind == TrapKind::MemoryOutOfBounds => {
                End::Trapped(TrapKind::FramesFull.into())
            }
            Err(Failure::Trapped(trap)) => End::Trapped(trap),
        };
        let outcome = end.outcome();
        let host = self.host_mut();
        host.pending = None;
        host.end = Some(end);
        outcome
    }

    fn stop_handle(&self) -> StopHandle {
        self.frames.stop_handle()
    }

    fn host(&self) -> &HostState {
        &self.machine.context().host
    }

    fn host_mut(&mut self) -> &mut HostState {
        &mut self.machine.context_mut().host
    }

    fn memory(&self) -> &[u8] {
        self.machine.memory()
    }

    fn grow(&mut self, bytes: u64) -> Result<(), EngineError> {
        self.grow_to(bytes)
    }

    #[cfg(feature = "wasmtime")]
    fn let_follow(&mut self, runs: &[(u32, u32)]) -> Result<Box<dyn AbsentPages>, EngineError> {
        let memory_bytes = self.memory_bytes();
        let pages = memory_bytes / PAGE_SIZE as u64;
        for (first, len) in runs {
            if u64::from(*first) + u64::from(*len) > pages {
                let index = first.saturating_add(len.saturating_sub(1));
                return Err(EngineError::PageRange {
                    index,
                    memory_bytes,
                });
            }
        }
        let memory = self.machine.memory_mut();
        Ok(dirty::make_absent(self.region.as_ref(), memory, runs)?)
    }

    fn clear(&mut self) {
        let memory = self.machine.memory_mut();
        if self.region.is_none() || !dirty::forget(memory) {
            memory.chunks_mut(PAGE_SIZE).for_each(clear);
        }
    }

    fn touched_pages(&self) -> Vec<u32> {
        if let Some(touched) = self.region.as_ref().and_then(dirty::touched) {
            return touched;
        }
        let pages = self.machine.memory().chunks_exact(PAGE_SIZE);
        let used = (0..).zip(pages).filter(|(_, page)| !dirty::is_zero(page));
        used.map(|(index, _)| index).collect()
    }

    fn read_page(&self, index: u32, out: &mut [u8; PAGE_SIZE]) {
        match self.memory_range(index, 1) {
            Some(range) => out.copy_from_slice(&self.machine.memory()[range]),
            None => out.fill(0),
        }
    }

    fn write_pages(&mut self, first: u32, pages: &[[u8; PAGE_SIZE]]) -> Result<(), EngineError> {
        let memory_bytes = self.memory_bytes();
        let range = self.memory_range(first, pages.len());
        let range = range.ok_or_else(|| EngineError::PageRange {
            index: first
                .saturating_add(u32::try_from(pages.len()).unwrap_or(u32::MAX))
                .saturating_sub(1),
            memory_bytes,
        })?;
        self.machine.memory_mut()[range].copy_from_slice(pages.as_flattened());
        Ok(())
    }

    fn execution(&self) -> Execution {
        Execution {
            globals: self.values.clone(),
            frames: self.frames.saved(),
        }
    }

    fn restore(&mut self, execution: &Execution) -> Result<(), EngineError> {
        self.check_execution(execution)?;
        if !self.frames.restore(&execution.frames) {
            let reason = format!("{} bytes of frames are too many", execution.frames.len());
            return Err(EngineError::Execution { reason });
        }
        for (global, value) in self.globals.iter().zip(&execution.globals) {
            self.machine.set(*global, *value);
        }
        self.values.clone_from(&execution.globals);
        self.resume = !execution.frames.is_empty();
        Ok(())
    }

    fn snapshot(&self) -> Snapshot {
        let pages = self.machine.memory().chunks_exact(PAGE_SIZE).enumerate();
        let pages = pages
            .filter(|(_, bytes)| !dirty::is_zero(bytes))
            .map(|(index, bytes)| {
                let bytes = bytes.to_vec().into_boxed_slice();
                Page {
                    index: u32::try_from(index).expect("a 32-bit memory has at most 2^20 pages"),
                    bytes: bytes.try_into().expect("chunks_exact gives whole pages"),
                }
            });
        let Execution { globals, frames } = self.execution();
        Snapshot {
            module: self.module.hash(),
            memory_bytes: self.memory_bytes(),
            pages: pages.collect(),
            globals,
            frames,
            host: self.host().to_sections(),
        }
    }

    fn load(&mut self, snapshot: &Snapshot) -> Result<(), EngineError> {
        if snapshot.module != self.module.hash() {
            return Err(EngineError::WrongModule {
                expected: self.module.hash().to_string(),
                found: snapshot.module.to_string(),
            });
        }
        let host = HostState::from_sections_on(self.host().platform, &snapshot.host)?;
        check_limits(&self.module, &host, &self.machine.context().limits)?;
        let execution = Execution {
            globals: snapshot.globals.clone(),
            frames: snapshot.frames.clone(),
        };
        self.check_execution(&execution)?;
        self.grow_to(snapshot.memory_bytes)?;
        if self.memory_bytes() != snapshot.memory_bytes {
            let (has, wants) = (self.memory_bytes(), snapshot.memory_bytes);
            let reason = format!("the memory has {has} bytes already, not {wants}");
            return Err(EngineError::Execution { reason });
        }
        self.restore(&execution)?;
        let mut pages = snapshot.pages.iter().peekable();
        for (index, place) in self
            .machine
            .memory_mut()
            .chunks_exact_mut(PAGE_SIZE)
            .enumerate()
        {
            match pages.next_if(|page| page.index as usize == index) {
                Some(page) => place.copy_from_slice(&page.bytes[..]),
                None => clear(place),
            }
        }
        if let Some(page) = pages.next() {
            let memory_bytes = self.memory_bytes();
            return Err(EngineError::PageRange {
                index: page.index,
                memory_bytes,
            });
        }
        *self.host_mut() = host;
        Ok(())
    }

    fn track(&mut self) -> Result<Box<dyn DirtyTracker>, EngineError> {
        let platform = self.host().platform;
        dirty::track(self.region.as_ref(), self.memory_bytes(), platform)
    }

    fn rest(self: Box<Self>) -> Result<Rested, Box<dyn Instance>> {
        if self.region.as_ref().is_some_and(RegionOwner::is_shared) {
            return Err(self);
        }
        let touched = self.region.as_ref().and_then(dirty::touched);
        // Where nobody knows, all of it is looked at.
        let looked_at = match &touched {
            Some(touched) => touched.len() * PAGE_SIZE,
            None => self.machine.memory().len(),
        };
        if looked_at > TOUCHED_BYTES_MAX {
            return Err(self);
        }
        let memory = self.machine.memory();
        let changes = Changes::between(&self.image, memory, touched, CHANGED_BYTES_MAX);
        let Some(changes) = changes else {
            return Err(self);
        };
        let (memory_bytes, execution) = (self.memory_bytes(), self.execution());
        let Self {
            frames,
            region,
            machine,
            module,
            image,
            ..
        } = *self;
        // As they would be dropped: the handles of others first.
        drop((frames, region));
        let context = machine.into_context();
        Ok(Rested {
            module,
            image,
            memory_bytes,
            changes,
            execution: Some(execution),
            host: context.host,
            services: context.services,
            limits: context.limits,
        })
    }
}

/// Zeroes a page without touching one that is zero already.
fn clear(page: &mut [u8]) {
    if !dirty::is_zero(page) {
        page.fill(0);
    }
}
