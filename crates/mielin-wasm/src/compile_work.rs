//! Refuses modules that an optimising compiler could work on for minutes.
//!
//! Most of what Cranelift does takes time in proportion to the size of the code, which limits bound already. Its register
//! allocator does not: it looks at what overlaps. So a function's work is estimated from above by what was found to make
//! it long (optimised, one core of the machine in docs/MIGRATION.md):
//!
//! | function, with its locals alive to its end | time | what is counted |
//! |---|---|---|
//! | 400,000 branches on one value, 100 locals | 22 s | the square of the blocks |
//! | 4,000 `if`s, each of which sets one of 100, 500, 1,000 locals | 3.3, 15, 25 s | blocks × assignments × locals |
//! | 16,000 `if`s, each of which sets one of 20, 100 locals | 2.8, 51 s | the same |
//! | one loop, 8,000, 16,000, 29,000 locals | 1.6, 5.1, 18 s | the square of the locals |
//!
//! That is no bound on what the compiler may take. A function with 8,000 loops, or 9,000 calls, over 50 locals takes it 9 or
//! 17 s, and a module can have hundreds of such functions; 65,000 branches on values of which some thousand are used again at
//! the end make it need gigabytes. Nothing in the code says so before it is analysed; docs/CAVEATS.md does. QuickJS, for
//! which 3 s are estimated, takes 1.6 s. Wasmtime's other allocator, of a single pass, is no way out: it did the second line
//! in 0.3 s, and neither the first nor the loops in two minutes.

use wasmparser::{FunctionBody, Operator, Parser, Payload};

use crate::EngineError;
use crate::imports::unreadable;

/// Work that takes a second where the estimate is closest.
const WORK_OF_A_SECOND: u64 = 7 << 30;
/// The most that all functions of a module may take together.
const WORK_MAX: u64 = 72 * WORK_OF_A_SECOND;

/// What makes the compiling of a function long.
#[derive(Clone, Copy, Default)]
struct Size {
    /// Basic blocks, about.
    blocks: u64,
    /// Instructions that change a local.
    assignments: u64,
    locals: u64,
}

/// Refuses a module that is valid otherwise, naming the function with the most work.
pub(crate) fn check(wasm: &[u8]) -> Result<(), EngineError> {
    let mut index: u32 = 0;
    let mut total: u64 = 0;
    let mut most = (0, 0, Size::default());
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(unreadable)? {
            // Of a rewritten module these are all functions: others are not linked.
            Payload::ImportSection(section) => index = index.saturating_add(section.count()),
            Payload::CodeSectionEntry(body) => {
                let size = Size::of(&body).map_err(unreadable)?;
                let work = size.work();
                total = total.saturating_add(work);
                if work > most.0 {
                    most = (work, index, size);
                }
                index = index.saturating_add(1);
            }
            _ => {}
        }
    }
    if total <= WORK_MAX {
        return Ok(());
    }
    let (_, function, size) = most;
    Err(EngineError::TooMuchWork {
        function,
        blocks: size.blocks,
        assignments: size.assignments,
        locals: size.locals,
        seconds: total / WORK_OF_A_SECOND,
        seconds_max: WORK_MAX / WORK_OF_A_SECOND,
    })
}

impl Size {
    fn of(body: &FunctionBody<'_>) -> wasmparser::Result<Size> {
        let mut size = Size::default();
        for locals in body.get_locals_reader()? {
            size.locals += u64::from(locals?.0);
        }
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            match operators.read()? {
                Operator::If { .. } => size.blocks += 2,
                Operator::Block { .. }
                | Operator::Loop { .. }
                | Operator::Else
                | Operator::BrIf { .. }
                // No block, but what the register allocator must move around it costs as much.
                | Operator::Call { .. }
                | Operator::CallIndirect { .. } => size.blocks += 1,
                Operator::BrTable { targets } => size.blocks += u64::from(targets.len()),
                Operator::LocalSet { .. } | Operator::LocalTee { .. } => size.assignments += 1,
                _ => {}
            }
        }
        Ok(size)
    }

    /// Counts are of at most ten million bytes of code, so products of two fit.
    fn work(self) -> u64 {
        let Size {
            blocks,
            assignments,
            locals,
        } = self;
        let merged = blocks * assignments.min(blocks);
        merged
            .saturating_mul(8 * locals)
            .saturating_add(blocks * blocks)
            .saturating_add(150 * locals * locals)
    }
}
