//! Which locals a stopped function must keep.
//!
//! Backward data flow over the structured code, repeated until the sets at loop headers no
//! longer change. Without recursion, and bounded in memory and time for hostile functions.

use alloc::vec;
use alloc::vec::Vec;

use super::plan::{Plan, Step};

/// Words that the sets of one function may occupy.
const WORDS_MAX: usize = 1 << 23;
/// Word operations that one function may cost.
const WORK_MAX: u64 = 1 << 29;
/// Locals, summed over the points, that one function may keep.
pub(super) const KEPT_MAX: usize = 500_000;

/// The live locals at each point, ascending.
#[derive(Debug)]
pub(super) struct Liveness {
    kept: Vec<u32>,
    ranges: Vec<(usize, usize)>,
    /// Word operations that this took.
    pub(super) work: u64,
}

impl Liveness {
    /// The locals that live at a point: after it for a call, before it for a loop or an entry.
    pub(super) fn at(&self, point: u32) -> &[u32] {
        let (start, end) = self.ranges[point as usize];
        &self.kept[start..end]
    }
}

/// The function is too large to be analysed or its frames too large to be spilled.
#[derive(Debug)]
pub(super) struct Exhausted;

type Set = Vec<u64>;

struct Frame {
    /// Live where a branch to this label goes.
    target: Set,
    /// Live after the block, needed by an `if`.
    after: Set,
    /// Live at the start of the else branch.
    otherwise: Option<Set>,
}

struct Analysis<'a> {
    plan: &'a Plan,
    words: usize,
    current: Set,
    frames: Vec<Frame>,
    headers: Vec<Option<Set>>,
    spare: Vec<Set>,
    allocated: usize,
    work: u64,
    changed: bool,
}

/// Analyses a function with this many parameters and locals.
pub(super) fn analyse(plan: &Plan, params: usize, locals: usize) -> Result<Liveness, Exhausted> {
    let words = locals.div_ceil(64);
    let mut analysis = Analysis {
        plan,
        words,
        current: vec![0; words],
        frames: Vec::new(),
        headers: vec![None; plan.points as usize],
        spare: Vec::new(),
        allocated: words,
        work: 0,
        changed: true,
    };
    while core::mem::take(&mut analysis.changed) {
        analysis.pass(&mut |_, _| Ok(()))?;
    }
    let mut liveness = Liveness {
        kept: Vec::new(),
        ranges: vec![(0, 0); plan.points as usize],
        work: 0,
    };
    analysis.pass(&mut |point, set| liveness.keep(point, set, locals))?;
    if plan.bodies[0].header.is_some() {
        // Locals that are not parameters are zero at the entry, as they are on a new call.
        let current = core::mem::take(&mut analysis.current);
        liveness.keep(0, &current, params)?;
    }
    liveness.work = analysis.work;
    Ok(liveness)
}

impl Liveness {
    fn keep(&mut self, point: u32, set: &Set, locals: usize) -> Result<(), Exhausted> {
        let start = self.kept.len();
        for (word, bits) in set.iter().enumerate() {
            let mut bits = *bits;
            while bits != 0 {
                let local = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                if local < locals {
                    self.kept.push(local as u32);
                }
            }
        }
        self.ranges[point as usize] = (start, self.kept.len());
        if self.kept.len() > KEPT_MAX {
            Err(Exhausted)
        } else {
            Ok(())
        }
    }
}

impl Analysis<'_> {
    fn copy(&mut self, from: &Set) -> Result<Set, Exhausted> {
        self.charge()?;
        let mut set = match self.spare.pop() {
            Some(set) => set,
            None => {
                self.allocated += self.words;
                if self.allocated > WORDS_MAX {
                    return Err(Exhausted);
                }
                vec![0; self.words]
            }
        };
        set.copy_from_slice(from);
        Ok(set)
    }

    fn charge(&mut self) -> Result<(), Exhausted> {
        self.work += self.words as u64 + 1;
        if self.work > WORK_MAX {
            Err(Exhausted)
        } else {
            Ok(())
        }
    }

    fn free(&mut self, frame: Frame) {
        self.spare.extend([frame.target, frame.after]);
        self.spare.extend(frame.otherwise);
    }

    fn unite(&mut self, depth: u32) -> Result<(), Exhausted> {
        self.charge()?;
        let frame = &self.frames[self.frames.len() - 1 - depth as usize];
        for (word, other) in self.current.iter_mut().zip(&frame.target) {
            *word |= other;
        }
        Ok(())
    }

    fn replace(&mut self, depth: u32) -> Result<(), Exhausted> {
        self.charge()?;
        let frame = &self.frames[self.frames.len() - 1 - depth as usize];
        self.current.copy_from_slice(&frame.target);
        Ok(())
    }

    fn pass(
        &mut self,
        record: &mut dyn FnMut(u32, &Set) -> Result<(), Exhausted>,
    ) -> Result<(), Exhausted> {
        self.current.fill(0);
        let plan = self.plan;
        for step in plan.steps.iter().rev() {
            match *step {
                Step::Get(local) => self.current[local as usize / 64] |= 1 << (local % 64),
                Step::Set(local) => self.current[local as usize / 64] &= !(1 << (local % 64)),
                Step::End => {
                    let current = core::mem::take(&mut self.current);
                    let (target, after) = (self.copy(&current)?, self.copy(&current)?);
                    self.current = current;
                    self.frames.push(Frame {
                        target,
                        after,
                        otherwise: None,
                    });
                }
                Step::EndLoop(point) => {
                    let current = core::mem::take(&mut self.current);
                    let after = self.copy(&current)?;
                    self.current = current;
                    let header = self.headers[point as usize].take();
                    let target = match &header {
                        Some(header) => self.copy(header)?,
                        None => {
                            let mut target = self.copy(&after)?;
                            target.fill(0);
                            target
                        }
                    };
                    self.headers[point as usize] = header;
                    self.frames.push(Frame {
                        target,
                        after,
                        otherwise: None,
                    });
                }
                Step::Loop(point) => self.loop_start(point, record)?,
                Step::Block => self.pop(),
                Step::Else => self.else_start()?,
                Step::If => self.if_start()?,
                Step::Branch(depth) => self.replace(depth)?,
                Step::BranchIf(depth) => self.unite(depth)?,
                Step::BranchTable(table) => {
                    self.current.fill(0);
                    for &depth in &plan.tables[table as usize] {
                        self.unite(depth)?;
                    }
                }
                Step::Leave => {
                    self.charge()?;
                    self.current.fill(0);
                }
                Step::Point(point) => {
                    self.charge()?;
                    record(point, &self.current)?;
                }
            }
        }
        self.pop();
        Ok(())
    }

    fn pop(&mut self) {
        if let Some(frame) = self.frames.pop() {
            self.free(frame);
        }
    }

    fn loop_start(
        &mut self,
        point: u32,
        record: &mut dyn FnMut(u32, &Set) -> Result<(), Exhausted>,
    ) -> Result<(), Exhausted> {
        self.charge()?;
        record(point, &self.current)?;
        self.pop();
        match &mut self.headers[point as usize] {
            Some(header) if *header == self.current => {}
            Some(header) => {
                header.copy_from_slice(&self.current);
                self.changed = true;
            }
            None => {
                let current = core::mem::take(&mut self.current);
                let copy = self.copy(&current)?;
                self.current = current;
                self.changed |= copy.iter().any(|word| *word != 0);
                self.headers[point as usize] = Some(copy);
            }
        }
        Ok(())
    }

    fn else_start(&mut self) -> Result<(), Exhausted> {
        let current = core::mem::take(&mut self.current);
        let otherwise = self.copy(&current)?;
        self.current = current;
        if let Some(frame) = self.frames.last_mut() {
            self.current.copy_from_slice(&frame.after);
            frame.otherwise = Some(otherwise);
        }
        Ok(())
    }

    fn if_start(&mut self) -> Result<(), Exhausted> {
        self.charge()?;
        if let Some(frame) = self.frames.pop() {
            let other = frame.otherwise.as_ref().unwrap_or(&frame.after);
            for (word, other) in self.current.iter_mut().zip(other) {
                *word |= other;
            }
            self.free(frame);
        }
        Ok(())
    }
}
