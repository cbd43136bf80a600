//! Writes one function again so that it can be unwound and rewound.
//!
//! The operand stack of the original is kept in two parts: its lower `shadowed` values are in
//! locals (the *shadows*, one for each height and type), the rest on the stack of the new code.
//! At a suspension point, and wherever a block begins that its body has opened already,
//! everything is in shadows, so that a branch from a dispatch needs no operands.

mod branch;
mod layout;
mod reference;
mod repeat;
mod suspend;

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;

use wasm_encoder::Encode;
use wasmparser::{BlockType, BrTable, FuncValidator, Operator, ValType, ValidatorResources};

use layout::Layout;
use repeat::Repeatable;

use super::graph::Suspension;
use super::liveness::{self, Liveness};
use super::plan::{CallKind, Child, ChildKind, LabelIndex, Plan, Planner, Reach};
use super::program::{Body, Program, fresh};
use super::references::{Helper, References};
use super::routines::{Routine, Routines};
use super::sink::{CODE_BYTES_MAX, Kept, LOCALS_MAX, Locals, Sink, Ty, Value, Written, join};
use super::tail::TailCalls;
use crate::{InstrumentError, abi};

/// What all functions of a module share.
pub(super) struct Context<'m, 'a> {
    pub(super) program: &'m Program<'a>,
    pub(super) suspension: &'m Suspension,
    /// Functions that call an import, for use in its place by tables and references.
    pub(super) wrappers: &'m BTreeMap<u32, u32>,
    /// Index of [`abi::MODE`].
    pub(super) mode: u32,
    /// Globals that remember dropped data segments.
    pub(super) drops: &'m BTreeMap<u32, u32>,
    pub(super) references: &'m References,
    pub(super) tails: &'m TailCalls,
    /// Word operations that the analysis of the functions so far has taken.
    pub(super) work: Cell<u64>,
    pub(super) work_max: u64,
}

/// Function types for blocks with several results and for functions of the rewriter.
pub(super) struct BlockTypes {
    first: u32,
    /// Parameters and results.
    pub(super) added: Vec<(Vec<Ty>, Vec<Ty>)>,
    index: BTreeMap<(Vec<Ty>, Vec<Ty>), u32>,
}

impl BlockTypes {
    /// Types that follow the first `first` of the module.
    pub(super) fn new(first: u32) -> BlockTypes {
        BlockTypes {
            first,
            added: Vec::new(),
            index: BTreeMap::new(),
        }
    }

    fn block(&mut self, results: &[Ty]) -> wasm_encoder::BlockType {
        match results {
            [] => wasm_encoder::BlockType::Empty,
            [ty] => wasm_encoder::BlockType::Result(ty.encode()),
            _ => wasm_encoder::BlockType::FunctionType(self.function(&[], results)),
        }
    }

    /// Index of a function type.
    pub(super) fn function(&mut self, params: &[Ty], results: &[Ty]) -> u32 {
        let next = self.first + self.added.len() as u32;
        let key = (params.to_vec(), results.to_vec());
        let index = *self.index.entry(key.clone()).or_insert(next);
        if index == next {
            self.added.push(key);
        }
        index
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FrameKind {
    Function,
    Block,
    If,
    Else,
    Loop,
}

/// A block of the original that is open.
struct Frame {
    kind: FrameKind,
    ty: BlockType,
    /// Position of the label that a branch goes to.
    label: u32,
    /// The block was opened at the start of its body.
    opened_early: bool,
    otherwise: Option<LabelIndex>,
    /// Height of the stack below the block's parameters.
    base: usize,
    shadowed: usize,
}

/// Code that can only be written when all of the function has been seen.
#[derive(Clone, Copy)]
enum Insertion {
    /// The dispatch of a body, at its loop's header.
    Dispatch(usize),
    /// The way out of a loop's header.
    Stop(u32),
    /// What follows a call.
    Check(u32),
}

struct Writer<'w> {
    context: &'w Context<'w, 'w>,
    types: &'w mut BlockTypes,
    routines: &'w mut Routines,
    /// Frames are written and read by [`Routine`]s. Not in a function with few points and a loop without calls, even
    /// far from that loop: having values where a call takes or gives them costs Cranelift moves in it.
    by_calls: bool,
    index: u32,
    plan: &'w Plan,
    liveness: &'w Liveness,
    results: Vec<Ty>,
    bytes: &'w [u8],
    origin: usize,
    out: Sink,
    locals: Locals,
    /// A local for the base of the frame that is written or read.
    base: u32,
    positions: Vec<u32>,
    frames: Vec<Frame>,
    stack: Vec<Ty>,
    shadowed: usize,
    kept: Vec<Kept>,
    /// Of all points, where they have one.
    layout: Option<Layout>,
    next_construct: usize,
    next_body: usize,
    next_call: usize,
    /// Loops around the current place, with the height of the stack at their headers.
    open_bodies: Vec<(usize, usize)>,
    /// What belongs into the code that is written: offset, depth and what it is.
    insertions: Vec<(usize, u32, Insertion)>,
    /// Locals that hold the arguments of calls that may suspend, by point.
    arguments: BTreeMap<u32, Vec<(u32, Ty)>>,
    /// See [`is_comparison`].
    after_comparison: bool,
    repeatable: Repeatable,
}

/// Rewrites a defined function, or one of the rewriter's own given in the same form.
pub(super) fn rewrite(
    context: &Context<'_, '_>,
    types: &mut BlockTypes,
    routines: &mut Routines,
    body: &Body<'_>,
) -> Result<Written, InstrumentError> {
    let index = body.validation.index;
    let polls = context.suspension.polls_at_entry[index as usize];
    let plan = plan(context, body, polls)?;
    let ty = &context.program.types[body.validation.ty as usize];
    let mut groups = Vec::new();
    for group in body.code.get_locals_reader()? {
        let (count, ty) = group?;
        groups.push((count, Ty::of(ty)));
    }
    let mut locals = Locals::new(ty.params().iter().copied().map(Ty::of), &groups);
    let too_large = |what, limit| InstrumentError::TooLarge {
        function: Some(context.program.function_name(index)),
        what,
        limit,
    };
    if plan.dispatch_entries() > CODE_BYTES_MAX as u64 {
        return Err(too_large("bytes", CODE_BYTES_MAX as u64));
    }
    let liveness = liveness::analyse(&plan, ty.params().len(), locals.originals())
        .map_err(|_| too_large("live values", liveness::KEPT_MAX as u64))?;
    context.work.update(|work| work + liveness.work);
    if context.work.get() > context.work_max {
        return Err(too_large("steps of analysis", context.work_max));
    }
    let base = locals.add(Ty::I32);
    let mut writer = Writer {
        context,
        types,
        routines,
        by_calls: !plan.has_small_loop() || plan.points > suspend::CHAIN_MAX,
        index,
        results: ty.results().iter().copied().map(Ty::of).collect(),
        bytes: body.code.as_bytes(),
        origin: body.code.range().start,
        out: Sink::default(),
        locals,
        base,
        positions: vec![0; plan.labels.len()],
        frames: Vec::new(),
        stack: Vec::new(),
        shadowed: 0,
        kept: vec![Kept::default(); plan.points as usize],
        layout: None,
        next_construct: 0,
        next_body: 1,
        next_call: 0,
        open_bodies: Vec::new(),
        insertions: Vec::new(),
        arguments: BTreeMap::new(),
        after_comparison: false,
        repeatable: Repeatable::default(),
        plan: &plan,
        liveness: &liveness,
    };
    writer.open_labels(0);
    let head = core::mem::take(&mut writer.out);
    writer.out.depth = head.depth;
    writer.body(body)?;
    let main = core::mem::take(&mut writer.out);
    if polls {
        writer.keep(0, 0..0);
    }
    if writer.by_calls {
        writer.layout = Layout::of(&writer.kept);
    }
    let exits = writer.exits();
    let main = writer.insert(main, &exits);
    let (before, after) = writer.write_exits(&exits);
    writer.out.depth = head.depth;
    if plan.points > 0 || context.tails.identity(index).is_some() {
        writer.entry(polls);
    }
    let written = join(
        &writer.locals,
        &[&before, &head, &writer.out, &main, &after],
    );
    if writer.locals.count() > LOCALS_MAX {
        return Err(too_large("locals", u64::from(LOCALS_MAX)));
    }
    if written.bytes.len() > CODE_BYTES_MAX {
        return Err(too_large("bytes", CODE_BYTES_MAX as u64));
    }
    Ok(written)
}

fn plan(context: &Context<'_, '_>, body: &Body<'_>, polls: bool) -> Result<Plan, InstrumentError> {
    let mut planner = Planner::new(polls);
    for operator in body.code.get_operators_reader()? {
        let operator = operator?;
        let any_results = match operator {
            Operator::If {
                blockty: BlockType::FuncType(ty),
            } => !context.program.types[ty as usize].results().is_empty(),
            Operator::If { blockty } => blockty != BlockType::Empty,
            _ => false,
        };
        planner.operator(&operator, context.call_kind(&operator), any_results);
    }
    Ok(planner.finish())
}

impl Context<'_, '_> {
    fn call_kind(&self, operator: &Operator<'_>) -> CallKind {
        match *operator {
            Operator::Call { function_index } => {
                if self.program.defined(function_index).is_none() {
                    CallKind::Host
                } else if self.suspension.may_suspend[function_index as usize] {
                    CallKind::Call
                } else {
                    CallKind::Never
                }
            }
            Operator::CallIndirect { type_index, .. }
                if self.suspension.type_may_suspend[type_index as usize] =>
            {
                CallKind::Call
            }
            _ => CallKind::Never,
        }
    }
}

impl Writer<'_> {
    /// Opens the blocks of a body, those that end last first.
    fn open_labels(&mut self, body: usize) {
        let plan = self.plan;
        for &label in plan.bodies[body].labels.iter().rev() {
            let ty = match plan.labels[label].results {
                Some(ty) => {
                    let results = self.result_types(ty);
                    self.types.block(&results)
                }
                None => wasm_encoder::BlockType::Empty,
            };
            self.positions[label] = self.out.block(ty);
        }
    }

    fn body(&mut self, body: &Body<'_>) -> Result<(), InstrumentError> {
        self.frames.push(Frame {
            kind: FrameKind::Function,
            ty: BlockType::FuncType(body.validation.ty),
            label: 0,
            opened_early: false,
            otherwise: None,
            base: 0,
            shadowed: 0,
        });
        let mut validator = fresh(&body.validation).into_validator(Default::default());
        validator.read_locals(&mut body.code.get_binary_reader())?;
        let mut reader = body.code.get_operators_reader()?;
        let mut reach = Reach::default();
        while !reader.eof() {
            let (operator, offset) = reader.read_with_offset()?;
            let raw = (offset - self.origin)..(reader.original_position() - self.origin);
            let fell_through = !reach.is_dead();
            if !reach.visit(&operator) {
                validator.op(offset, &operator)?;
                continue;
            }
            let bytes = self.bytes;
            let raw = &bytes[raw];
            if !self.control(&operator, raw, fell_through) {
                self.plain(&operator, raw, offset, &mut validator)?;
            } else {
                self.repeatable.clear();
                validator.op(offset, &operator)?;
            }
            if self.out.code.len() > CODE_BYTES_MAX || self.locals.count() > LOCALS_MAX {
                break;
            }
        }
        Ok(())
    }

    fn param_types(&self, ty: BlockType) -> Vec<Ty> {
        match ty {
            BlockType::FuncType(ty) => self.context.program.types[ty as usize]
                .params()
                .iter()
                .copied()
                .map(Ty::of)
                .collect(),
            _ => Vec::new(),
        }
    }

    fn result_types(&self, ty: BlockType) -> Vec<Ty> {
        match ty {
            BlockType::Empty => Vec::new(),
            BlockType::Type(ty) => vec![Ty::of(ty)],
            BlockType::FuncType(ty) => self.context.program.types[ty as usize]
                .results()
                .iter()
                .copied()
                .map(Ty::of)
                .collect(),
        }
    }

    /// Number of values that a branch to a frame takes along.
    fn label_arity(&self, frame: &Frame) -> usize {
        let (params, results) = self.arity(frame.ty);
        if frame.kind == FrameKind::Loop {
            params
        } else {
            results
        }
    }

    fn arity(&self, ty: BlockType) -> (usize, usize) {
        match ty {
            BlockType::Empty => (0, 0),
            BlockType::Type(_) => (0, 1),
            BlockType::FuncType(ty) => {
                let ty = &self.context.program.types[ty as usize];
                (ty.params().len(), ty.results().len())
            }
        }
    }

    fn frame(&self, depth: u32) -> &Frame {
        &self.frames[self.frames.len() - 1 - depth as usize]
    }

    // ---- the operand stack ----

    /// Moves the whole operand stack into shadows.
    fn flush(&mut self) {
        for height in (self.shadowed..self.stack.len()).rev() {
            let local = self.locals.shadow(height, self.stack[height]);
            self.out.op().local_set(local);
        }
        self.shadowed = self.stack.len();
    }

    /// Brings the uppermost `count` operands onto the real stack.
    fn ensure(&mut self, count: usize) {
        let first = self.stack.len() - count;
        if self.shadowed <= first {
            return;
        }
        self.flush();
        for height in first..self.stack.len() {
            let local = self.locals.shadow(height, self.stack[height]);
            self.out.op().local_get(local);
        }
        self.shadowed = first;
    }

    fn truncate(&mut self, height: usize) {
        self.stack.truncate(height);
        self.shadowed = self.shadowed.min(height);
    }

    // ---- instructions ----

    /// Handles what changes the flow of control; false for all else.
    fn control(&mut self, operator: &Operator<'_>, raw: &[u8], fell_through: bool) -> bool {
        match *operator {
            Operator::Nop => {}
            Operator::Block { blockty } => self.open_block(blockty, raw),
            Operator::If { blockty } => self.open_if(blockty, raw),
            Operator::Loop { blockty } => self.open_loop(blockty),
            Operator::Else => self.otherwise(raw, fell_through),
            Operator::End => self.close(fell_through),
            Operator::Br { relative_depth } => self.branch(relative_depth),
            Operator::BrIf { relative_depth } => self.branch_if(relative_depth),
            Operator::BrTable { ref targets } => self.branch_table(targets),
            Operator::Return => {
                self.ensure(self.results.len());
                self.out.op().return_();
            }
            Operator::ReturnCall { .. } | Operator::ReturnCallIndirect { .. } => {
                self.tail_call(operator, raw);
            }
            Operator::Unreachable => {
                self.out.op().unreachable();
            }
            Operator::Drop if self.shadowed == self.stack.len() => {
                let height = self.stack.len() - 1;
                self.truncate(height);
            }
            _ => return false,
        }
        true
    }

    /// An instruction that takes operands, gives results and goes on.
    fn plain(
        &mut self,
        operator: &Operator<'_>,
        raw: &[u8],
        offset: usize,
        validator: &mut FuncValidator<ValidatorResources>,
    ) -> Result<(), InstrumentError> {
        let (operands, results) = operator.operator_arity(validator).unwrap_or((0, 0));
        let (operands, results) = (operands as usize, results as usize);
        let kind = self.context.call_kind(operator);
        let below = self.stack.len() - operands;
        if let Operator::CallIndirect { table_index, .. } = *operator {
            self.look_up(table_index);
        }
        if kind == CallKind::Never {
            self.ensure(operands);
            let start = self.out.code.len();
            self.copy(operator, raw);
            self.repeatable.visit(operator, operands, start);
        } else {
            self.call(operands, operator, raw, kind);
        }
        validator.op(offset, operator)?;
        self.truncate(below);
        for depth in (0..results).rev() {
            let ty = validator
                .get_operand_type(depth)
                .flatten()
                .unwrap_or(ValType::I32);
            self.stack.push(Ty::of(ty));
        }
        if kind != CallKind::Never {
            self.leave_if_unwinding();
        }
        Ok(())
    }

    fn copy(&mut self, operator: &Operator<'_>, raw: &[u8]) {
        match *operator {
            Operator::DataDrop { data_index } => self.drop_segment(data_index),
            Operator::ElemDrop { elem_index } => self.drop_elements(elem_index),
            Operator::CallIndirect { .. } => self.call_indirect(operator, raw),
            Operator::Select | Operator::TypedSelect { .. } if self.after_comparison => {
                self.out.op().local_tee(self.base).select();
            }
            _ if self.context.references.lower(operator, &mut self.out) => {}
            _ => self.out.code.extend_from_slice(raw),
        }
        self.after_comparison = is_comparison(operator);
    }

    fn leave_if_unwinding(&mut self) {
        let (point, _) = self.plan.calls[self.next_call];
        self.next_call += 1;
        if self.by_calls {
            self.insert_later(Insertion::Check(point));
        } else {
            self.check(point);
        }
    }

    // ---- blocks ----

    fn open_block(&mut self, ty: BlockType, raw: &[u8]) {
        let construct = self.plan.constructs[self.next_construct];
        self.next_construct += 1;
        let (params, _) = self.arity(ty);
        let label = match construct.label {
            Some(label) => {
                self.flush();
                self.positions[label]
            }
            None => {
                self.ensure(params);
                self.open_copy(ty, raw)
            }
        };
        self.push(
            FrameKind::Block,
            ty,
            label,
            construct.label.is_some(),
            None,
            params,
        );
    }

    fn open_if(&mut self, ty: BlockType, raw: &[u8]) {
        let construct = self.plan.constructs[self.next_construct];
        self.next_construct += 1;
        let (params, _) = self.arity(ty);
        let condition = self.stack.len() - 1;
        let label = match construct.label {
            Some(label) => {
                if self.shadowed != condition {
                    self.flush();
                    let local = self.locals.shadow(condition, Ty::I32);
                    self.out.op().local_get(local);
                }
                let target = self.positions[construct.otherwise.unwrap_or(label)];
                let depth = self.out.to(target);
                self.out.op().i32_eqz().br_if(depth);
                self.positions[label]
            }
            None => {
                self.ensure(params + 1);
                self.open_copy(ty, raw)
            }
        };
        self.truncate(condition);
        self.push(
            FrameKind::If,
            ty,
            label,
            construct.label.is_some(),
            construct.otherwise,
            params,
        );
    }

    fn push(
        &mut self,
        kind: FrameKind,
        ty: BlockType,
        label: u32,
        opened_early: bool,
        otherwise: Option<LabelIndex>,
        params: usize,
    ) {
        let base = self.stack.len() - params;
        let shadowed = self.shadowed;
        self.frames.push(Frame {
            kind,
            ty,
            label,
            opened_early,
            otherwise,
            base,
            shadowed,
        });
    }

    fn otherwise(&mut self, raw: &[u8], fell_through: bool) {
        let Some(mut frame) = self.frames.pop() else {
            return;
        };
        let (_, results) = self.arity(frame.ty);
        if fell_through {
            self.ensure(results);
        }
        if frame.opened_early {
            if fell_through {
                let depth = self.out.to(frame.label);
                self.out.op().br(depth);
            }
            self.out.end();
        } else {
            self.out.code.extend_from_slice(raw);
        }
        frame.kind = FrameKind::Else;
        self.restart(&frame);
        self.frames.push(frame);
    }

    /// The stack as it was at the start of the frame.
    fn restart(&mut self, frame: &Frame) {
        self.stack.truncate(frame.base);
        let params = self.param_types(frame.ty);
        self.stack.extend(params);
        self.shadowed = frame.shadowed;
    }

    fn close(&mut self, fell_through: bool) {
        let Some(frame) = self.frames.pop() else {
            return;
        };
        let results = self.result_types(frame.ty);
        if fell_through {
            self.ensure(results.len());
        }
        if frame.kind == FrameKind::If && frame.opened_early && frame.otherwise.is_some() {
            // There is no else branch: the parameters are the results.
            if fell_through {
                let depth = self.out.to(frame.label);
                self.out.op().br(depth);
            }
            self.out.end();
            self.restart(&frame);
            self.ensure(results.len());
        }
        if frame.kind == FrameKind::Loop {
            self.open_bodies.pop();
        }
        if frame.kind == FrameKind::Function {
            self.out.op().end();
        } else {
            debug_assert_eq!(frame.label, self.out.depth, "blocks end in order");
            self.out.end();
        }
        self.stack.truncate(frame.base);
        self.shadowed = frame.shadowed.min(frame.base);
        self.stack.extend(results);
    }

    fn open_loop(&mut self, ty: BlockType) {
        self.flush();
        let body = self.next_body;
        self.next_body += 1;
        let plan = self.plan;
        if plan.bodies[body].before.is_some() {
            self.out.end();
        }
        let results = self.result_types(ty);
        let block = self.types.block(&results);
        self.out.op().loop_(block);
        let label = self.out.opened();
        let (params, _) = self.arity(ty);
        self.push(FrameKind::Loop, ty, label, false, None, params);
        self.open_labels(body);
        self.poll(body);
    }
}

/// Whether the result of an instruction must not be the condition of a `select` that follows
/// it directly: wasmi 2.0.0 joins the two where the comparison is with zero and its operand a
/// local, and then looks at another value (`try_fuse_select` drops the comparison but keeps
/// its result register as the condition). Storing the condition in a local keeps them apart
/// and costs nothing in compilers.
pub(super) fn is_comparison(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::I32Eqz | Operator::I32Eq | Operator::I32Ne | Operator::RefIsNull
    )
}

/// The code of a function that calls others, in the form of a defined function's body.
pub(super) fn calling_body(params: u32, calls: &[u32]) -> Vec<u8> {
    let mut code = Vec::new();
    0u32.encode(&mut code);
    let mut sink = wasm_encoder::InstructionSink::new(&mut code);
    for param in 0..params {
        sink.local_get(param);
    }
    for call in calls {
        sink.call(*call);
    }
    sink.end();
    code
}
