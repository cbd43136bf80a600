//! Refuses modules that an optimising compiler would work on for minutes.
//!
//! Cranelift's time can grow with the square of the number of a function's basic blocks, because its register allocator
//! looks at what overlaps: 400,000 branches over 100 locals took 22 s, 8,000 loops with 50 live locals, whose rewritten
//! form saves them at each, 7 s (optimised, one core of the machine in docs/MIGRATION.md). A module of the largest size
//! can have tens of such functions, and nothing stops the compiler. Most else takes time in proportion to the size of the
//! code, which limits bound already; locals that are alive over a loop do not, and are not counted here (docs/CAVEATS.md).

use wasmparser::{FunctionBody, Operator, Parser, Payload};

use crate::EngineError;
use crate::imports::unreadable;

/// The most that the squares of all functions' numbers of blocks may add up to, about a minute's work where nothing but
/// blocks makes it: that of one function with 262,144.
const WORK_MAX: u64 = 1 << 36;

/// Refuses a module that is valid otherwise, naming its largest function.
pub(crate) fn check(wasm: &[u8]) -> Result<(), EngineError> {
    let mut index: u32 = 0;
    let mut work: u64 = 0;
    let mut largest = (0, 0);
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(unreadable)? {
            // Of a rewritten module these are all functions: others are not linked.
            Payload::ImportSection(section) => index = index.saturating_add(section.count()),
            Payload::CodeSectionEntry(body) => {
                let blocks = blocks(&body).map_err(unreadable)?;
                work = work.saturating_add(blocks.saturating_mul(blocks));
                largest = largest.max((blocks, index));
                index = index.saturating_add(1);
            }
            _ => {}
        }
    }
    if work <= WORK_MAX {
        return Ok(());
    }
    let (blocks, function) = largest;
    Err(EngineError::TooMuchWork {
        function,
        blocks,
        most: WORK_MAX.isqrt(),
    })
}

/// How many basic blocks, about, a compiler makes of a function.
fn blocks(body: &FunctionBody<'_>) -> wasmparser::Result<u64> {
    let mut blocks = 1;
    let mut operators = body.get_operators_reader()?;
    while !operators.eof() {
        blocks += match operators.read()? {
            Operator::If { .. } => 2,
            Operator::Block { .. }
            | Operator::Loop { .. }
            | Operator::Else
            | Operator::BrIf { .. }
            // No block, but what the register allocator must move around it costs as much.
            | Operator::Call { .. }
            | Operator::CallIndirect { .. } => 1,
            _ => 0,
        };
    }
    Ok(blocks)
}
