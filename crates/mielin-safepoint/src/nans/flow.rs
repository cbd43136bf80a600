//! Where in a function values stand that may be any NaN and should be canonical.
//!
//! Compilers use one local for many values, so that it is webs that are told apart: assignments of which one or the other
//! reaches a common use. Where ways come together a local's value is that of any of them, a phi (Cytron et al. 1991, ACM TOPLAS 13(4)); its web is
//! theirs, if somebody reads it. What a `select` or a block gives is a web too, to which its
//! operands are assigned. A web may hold any NaN if nothing but results is assigned to it.

mod instructions;
mod webs;

use alloc::collections::BTreeMap;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::iter;

use wasmparser::{
    BlockType, ContType, FrameKind, FuncType, FunctionBody, ModuleArity, Operator, RefType,
    SubType, ValType,
};

use super::Signatures;
use crate::rewrite::FRAMES_MEMORY;
use crate::{InstrumentError, abi};
use instructions::{Kind, constant, does_not_go_on, goes_elsewhere, kind, moves_whole};
use webs::{Shape, Value, Web, Webs, as_lanes};

/// Steps that may go into following the locals of one function; beyond, what is assigned to a local is made canonical.
const FUNCTION_STEPS_MAX: u64 = 1 << 22;

/// What a value with NaNs is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lanes {
    F32,
    F64,
    F32x4,
    F64x2,
}

impl Lanes {
    pub(super) fn value_type(self) -> ValType {
        match self {
            Lanes::F32 => ValType::F32,
            Lanes::F64 => ValType::F64,
            Lanes::F32x4 | Lanes::F64x2 => ValType::V128,
        }
    }

    /// A vector of such values.
    fn wide(self) -> Lanes {
        match self {
            Lanes::F32 | Lanes::F32x4 => Lanes::F32x4,
            Lanes::F64 | Lanes::F64x2 => Lanes::F64x2,
        }
    }

    /// One lane.
    fn narrow(self) -> Lanes {
        match self {
            Lanes::F32 | Lanes::F32x4 => Lanes::F32,
            Lanes::F64 | Lanes::F64x2 => Lanes::F64,
        }
    }
}

/// Where values have to be made canonical: offsets of the bytes behind the instructions that made them. Empty if the
/// function computes nothing that may be a NaN. `locals` are numbers of them and their types, parameters first; `steps` says how many may go into
/// following them, and is made smaller.
pub(super) fn analyse(
    signatures: &Signatures,
    index: u32,
    body: &FunctionBody<'_>,
    locals: &[(u32, ValType)],
    steps: &mut u64,
) -> Result<BTreeMap<usize, Lanes>, InstrumentError> {
    let mine = FUNCTION_STEPS_MAX.min(*steps);
    let mut flow = Flow::new(signatures, index, locals, mine);
    flow.pass(body)?;
    *steps -= mine - flow.steps.unwrap_or(0);
    if flow.steps.is_none() {
        flow = Flow::new(signatures, index, &[], 0);
        flow.pass(body)?;
    }
    Ok(flow.webs.made_canonical())
}

/// A block that is open.
struct Frame {
    kind: FrameKind,
    ty: BlockType,
    /// The height of the stack below its parameters.
    height: usize,
    /// What the block gives, if it is one value.
    result: Option<Web>,
    /// What the locals hold at its label: at a loop's start, or behind a block, of the branches there that were seen.
    label: Option<Vec<Web>>,
    /// The same where the other branch of an `if` begins.
    otherwise: Option<Vec<Web>>,
    /// It is never entered.
    dead: bool,
    /// Tells it from other blocks: where ways come together at its label, the webs of that place have this number.
    number: u32,
}

struct Flow<'s> {
    signatures: &'s Signatures,
    /// The function's type.
    ty: u32,
    frames: Vec<Frame>,
    stack: Vec<Value>,
    /// The places in `state` of those locals that can hold NaNs.
    tracked: Vec<Option<usize>>,
    /// What they hold.
    state: Vec<Web>,
    webs: Webs,
    /// What follows is never reached.
    dead: bool,
    blocks: u32,
    /// How many are left. `None` if there were not enough.
    steps: Option<u64>,
}

impl<'s> Flow<'s> {
    fn new(
        signatures: &'s Signatures,
        index: u32,
        locals: &[(u32, ValType)],
        steps: u64,
    ) -> Flow<'s> {
        let mut flow = Flow {
            signatures,
            ty: signatures
                .functions
                .get(index as usize)
                .copied()
                .unwrap_or_default(),
            frames: Vec::new(),
            stack: Vec::new(),
            tracked: Vec::new(),
            state: Vec::new(),
            webs: Webs::default(),
            dead: false,
            blocks: 0,
            steps: Some(steps),
        };
        let params = signatures.function(index).map_or(0, |ty| ty.params().len());
        let count: u64 = locals.iter().map(|(count, _)| u64::from(*count)).sum();
        if !flow.spend(count) {
            return flow;
        }
        let all = locals
            .iter()
            .flat_map(|(count, ty)| iter::repeat_n(*ty, *count as usize));
        for (local, ty) in all.enumerate() {
            let zero = Value::Number {
                f32: true,
                f64: true,
            };
            // An argument may be a NaN that the caller has loaded.
            let first = if local < params { Value::Fixed } else { zero };
            let has_nans = matches!(ty, ValType::F32 | ValType::F64 | ValType::V128);
            flow.tracked.push(has_nans.then_some(flow.state.len()));
            if has_nans {
                flow.state.push(flow.webs.assigned(first));
            }
        }
        flow
    }

    fn pass(&mut self, body: &FunctionBody<'_>) -> Result<(), InstrumentError> {
        self.enter(FrameKind::Block, BlockType::FuncType(self.ty), 0);
        let mut reader = body.get_operators_reader()?;
        while !reader.eof() && self.steps.is_some() {
            let offset = reader.original_position();
            let operator = reader.read()?;
            let end = reader.original_position();
            if self.follow(&operator, end).is_none() {
                return Err(InstrumentError::Invalid {
                    message: "an instruction does not fit".into(),
                    offset,
                });
            }
        }
        Ok(())
    }

    /// `None` if the instruction does not fit here.
    fn follow(&mut self, operator: &Operator<'_>, end: usize) -> Option<()> {
        use Operator as O;
        match *operator {
            O::LocalGet { local_index } => {
                let value = match self.place(local_index) {
                    Some(place) => self.webs.read(*self.state.get(place)?, end),
                    None => Value::Fixed,
                };
                self.stack.push(value);
            }
            O::LocalSet { local_index } => {
                let value = self.pop();
                self.assign(local_index, value)?;
            }
            O::LocalTee { local_index } => {
                let value = self.pop();
                let web = self.assign(local_index, value)?;
                let value = match (value, web) {
                    (Value::Open(..) | Value::Of(..), Some(web)) => self.webs.read(web, end),
                    // It is canonical before.
                    (Value::Open(..) | Value::Of(..), None) => Value::Fixed,
                    (value, _) => value,
                };
                self.stack.push(value);
            }
            O::Drop => _ = self.pop(),
            O::Select | O::TypedSelect { .. } => {
                self.pop();
                let (right, left) = (self.pop(), self.pop());
                self.join([(left, Shape::Same), (right, Shape::Same)], end);
            }
            O::F32x4Splat | O::F64x2Splat => self.map(Shape::Wide, end),
            O::F32x4ExtractLane { .. } => self.map(Shape::LaneOf(Lanes::F32x4), end),
            O::F64x2ExtractLane { .. } => self.map(Shape::LaneOf(Lanes::F64x2), end),
            O::F32x4ReplaceLane { .. } | O::F64x2ReplaceLane { .. } => {
                let (lane, vector) = (self.pop(), self.pop());
                self.join([(vector, Shape::Same), (lane, Shape::Wide)], end);
            }
            O::F32x4PMin | O::F32x4PMax => self.either(as_lanes(Lanes::F32x4), end),
            O::F64x2PMin | O::F64x2PMax => self.either(as_lanes(Lanes::F64x2), end),
            O::I8x16Shuffle { lanes } => {
                let f32 = moves_whole::<4>(&lanes);
                let f64 = moves_whole::<8>(&lanes);
                self.either(Shape::Lanes { f32, f64 }, end);
            }
            O::V128Bitselect => match self.pop() {
                Value::Mask(lanes) => self.either(as_lanes(lanes), end),
                mask => {
                    self.webs.look(mask, None);
                    self.take(2, None);
                    self.stack.push(Value::Fixed);
                }
            },
            O::F32Abs | O::F64Abs => self.map(Shape::Same, end),
            O::F32x4Abs => self.map(as_lanes(Lanes::F32x4), end),
            O::F64x2Abs => self.map(as_lanes(Lanes::F64x2), end),
            O::F32Const { .. } | O::F64Const { .. } | O::V128Const { .. } => {
                self.stack.push(constant(operator));
            }
            O::Else => self.otherwise()?,
            O::End => self.close(end)?,
            O::Block { blockty } | O::Loop { blockty } | O::If { blockty } => {
                let (operands, params) = operator.operator_arity(self)?;
                self.take(operands, None);
                let kind = match operator {
                    O::Loop { .. } => FrameKind::Loop,
                    O::If { .. } => FrameKind::If,
                    _ => FrameKind::Block,
                };
                self.enter(kind, blockty, params);
            }
            O::Br { relative_depth } => {
                let (values, _) = operator.operator_arity(self)?;
                self.branch(values, [(relative_depth, false)])?;
                self.stop()?;
            }
            O::BrIf { relative_depth } => {
                let condition = self.pop();
                let (operands, _) = operator.operator_arity(self)?;
                let rewinds = condition == Value::AtPoint(true);
                let values = self.branch(operands - 1, [(relative_depth, rewinds)])?;
                self.stack.extend(values);
                if condition == Value::AtPoint(false) {
                    self.state = self.restored();
                }
            }
            O::BrTable { ref targets } => {
                let rewinds = self.pop() == Value::Point;
                let (operands, _) = operator.operator_arity(self)?;
                let depths: BTreeSet<u32> = targets.targets().collect::<Result<_, _>>().ok()?;
                let all = depths.into_iter().map(|depth| (depth, rewinds));
                self.branch(operands - 1, all.chain([(targets.default(), false)]))?;
                self.stop()?;
            }
            O::I32Load { memarg } if self.is_frames(memarg.memory) => {
                self.pop();
                self.stack
                    .push(match memarg.offset == u64::from(abi::POINT_ADDRESS) {
                        true => Value::Point,
                        false => Value::Fixed,
                    });
            }
            O::I32Sub | O::I32Eq | O::I32Ne => {
                let (_, left) = (self.pop(), self.pop());
                self.stack.push(match (left, operator) {
                    (Value::Point, O::I32Sub) => Value::Point,
                    (Value::Point, _) => Value::AtPoint(matches!(operator, O::I32Eq)),
                    _ => Value::Fixed,
                });
            }
            _ if goes_elsewhere(operator) => return None,
            _ => self.other(operator, end)?,
        }
        Some(())
    }

    /// An instruction that takes operands and gives results.
    fn other(&mut self, operator: &Operator<'_>, end: usize) -> Option<()> {
        let (operands, results) = operator.operator_arity(self)?;
        let (reads, result) = match kind(operator) {
            Kind::Computes(takes, gives) => (Some(takes), Value::Open(gives, end)),
            Kind::Reads(takes) => (Some(takes), Value::Fixed),
            Kind::Compares(takes) => (Some(takes), Value::Mask(takes)),
            Kind::Converts(gives) => {
                let f32 = gives.narrow() == Lanes::F32;
                (None, Value::Number { f32, f64: !f32 })
            }
            Kind::Other if self.restores(operator) => (None, Value::Restored),
            Kind::Other => (None, Value::Fixed),
        };
        self.take(operands, reads);
        for _ in 0..results {
            self.stack.push(result);
        }
        if does_not_go_on(operator) {
            self.stop()?;
        }
        Some(())
    }

    /// Whether its results come out of a frame: it reads the memory of frames, or calls what does.
    fn restores(&self, operator: &Operator<'_>) -> bool {
        match *operator {
            Operator::F32Load { memarg }
            | Operator::F64Load { memarg }
            | Operator::V128Load { memarg } => self.is_frames(memarg.memory),
            Operator::Call { function_index } => {
                let added = self.signatures.added;
                added.is_some_and(|first| function_index >= first)
            }
            _ => false,
        }
    }

    fn is_frames(&self, memory: u32) -> bool {
        self.signatures.added.is_some() && memory == FRAMES_MEMORY
    }

    // ---- blocks ----

    fn enter(&mut self, kind: FrameKind, ty: BlockType, params: u32) {
        let results = self.block_type_arity(ty).map_or(0, |(_, results)| results);
        // A function's result is seen by others.
        let is_function = self.frames.is_empty();
        let result = (results == 1 && !is_function).then(|| self.webs.add());
        let otherwise = match kind {
            FrameKind::If => self.copied(),
            _ => None,
        };
        self.blocks += 1;
        if kind == FrameKind::Loop && self.spend_on_locals() {
            for web in &mut self.state {
                *web = self.webs.phi(*web, self.blocks);
            }
        }
        let label = match kind {
            FrameKind::Loop => self.copied(),
            _ => None,
        };
        self.frames.push(Frame {
            kind,
            ty,
            height: self.stack.len(),
            result,
            label,
            otherwise,
            dead: self.dead,
            number: self.blocks,
        });
        self.give(params);
    }

    fn otherwise(&mut self) -> Option<()> {
        let (results, params) = Operator::Else.operator_arity(self)?;
        self.fall_through(results)?;
        let frame = self.frames.last_mut()?;
        frame.kind = FrameKind::Else;
        self.dead = frame.dead;
        if let Some(state) = frame.otherwise.take() {
            self.state = state;
        }
        self.give(params);
        Some(())
    }

    fn close(&mut self, end: usize) -> Option<()> {
        let (results, given) = Operator::End.operator_arity(self)?;
        self.fall_through(results)?;
        if let Some(state) = self.frames.last_mut()?.otherwise.take() {
            // There is no other branch.
            let dead = self.frames.last()?.dead;
            let before = core::mem::replace(&mut self.state, state);
            self.dead = dead;
            self.arrive(0, false)?;
            self.state = before;
            if let Some(web) = self.frames.last()?.result {
                // A parameter is the result.
                self.webs.assign(Value::Fixed, web, Shape::Same);
            }
        }
        let frame = self.frames.pop()?;
        match (frame.kind, frame.label) {
            (FrameKind::Loop, _) => {}
            (_, Some(state)) => {
                self.state = state;
                self.dead = false;
            }
            (_, None) => self.dead = true,
        }
        match frame.result {
            Some(web) => {
                let value = self.webs.read(web, end);
                self.stack.push(value);
            }
            None => self.give(given),
        }
        Some(())
    }

    /// The end of a block, reached from inside. Nothing of it is left on the stack.
    fn fall_through(&mut self, results: u32) -> Option<()> {
        if self.frames.last()?.kind == FrameKind::Loop {
            match self.frames.last()?.result {
                Some(web) => {
                    let value = self.pop();
                    self.webs.assign(value, web, Shape::Same);
                }
                None => self.take(results, None),
            }
        } else {
            self.branch(results, [(0, false)])?;
        }
        let height = self.frames.last()?.height;
        self.stack.truncate(height);
        Some(())
    }

    /// Takes values along to each of these labels, and gives what is known of them then. Said is also whether the way is that of a rewind.
    fn branch(
        &mut self,
        values: u32,
        depths: impl IntoIterator<Item = (u32, bool)>,
    ) -> Option<Vec<Value>> {
        // In code that is never reached there may be fewer than somebody claims.
        let there = self.stack.len() - self.frames.last()?.height;
        let count = there.min(values as usize);
        let mut taken = self.stack.split_off(self.stack.len() - count);
        for (depth, rewinds) in depths {
            let frame = self.frame(depth)?;
            match (frame.kind, frame.result) {
                (FrameKind::Loop, _) | (_, None) => {
                    for value in &mut taken {
                        self.webs.look(*value, None);
                        // From where it was made it is canonical now, so that nobody notes it a second time.
                        *value = Value::Fixed;
                    }
                }
                (_, Some(web)) => {
                    for value in &taken {
                        self.webs.assign(*value, web, Shape::Same);
                    }
                }
            }
            self.arrive(depth, rewinds)?;
        }
        Some(taken)
    }

    /// What the locals hold here they hold at the label, too. On the way of a rewind that is nothing: what is read behind the label will have been restored.
    fn arrive(&mut self, depth: u32, rewinds: bool) -> Option<()> {
        let at = self.frames.len().checked_sub(depth as usize + 1)?;
        // What a function's locals hold when it returns nobody sees.
        if self.dead || at == 0 || !self.spend_on_locals() {
            return Some(());
        }
        if rewinds {
            if self.frames.get(at)?.label.is_none() {
                let restored = self.restored();
                self.frames.get_mut(at)?.label = Some(restored);
            }
            return Some(());
        }
        let frame = self.frames.get_mut(at)?;
        match &mut frame.label {
            None => frame.label = Some(self.state.clone()),
            Some(label) if frame.kind == FrameKind::Loop => {
                for (phi, here) in label.iter().zip(&self.state) {
                    self.webs.reach(*phi, *here);
                }
            }
            Some(label) => {
                for (there, here) in label.iter_mut().zip(&self.state) {
                    *there = self.webs.merged(*there, *here, frame.number);
                }
            }
        }
        Some(())
    }

    /// What follows is not reached from here.
    fn stop(&mut self) -> Option<()> {
        let height = self.frames.last()?.height;
        self.stack.truncate(height);
        self.dead = true;
        Some(())
    }

    fn give(&mut self, values: u32) {
        for _ in 0..values {
            self.stack.push(Value::Fixed);
        }
    }

    /// Notes so many steps; false if there were not enough.
    fn spend(&mut self, steps: u64) -> bool {
        self.steps = self.steps.and_then(|left| left.checked_sub(steps));
        self.steps.is_some()
    }

    /// The same for going through all locals.
    fn spend_on_locals(&mut self) -> bool {
        self.spend(self.state.len() as u64)
    }

    /// What the locals hold while a rewind goes on.
    fn restored(&mut self) -> Vec<Web> {
        if !self.spend_on_locals() {
            return Vec::new();
        }
        let webs = self
            .state
            .iter()
            .map(|_| self.webs.assigned(Value::Restored));
        webs.collect()
    }

    fn copied(&mut self) -> Option<Vec<Web>> {
        self.spend_on_locals().then(|| self.state.clone())
    }

    // ---- values ----

    /// The uppermost value. In code that is never reached there may be none.
    fn pop(&mut self) -> Value {
        let height = self.frames.last().map_or(0, |frame| frame.height);
        match self.stack.len() > height {
            true => self.stack.pop().unwrap_or(Value::Fixed),
            false => Value::Fixed,
        }
    }

    /// Takes operands, of an instruction that does the same with any NaN in such lanes, or looks at their bits.
    fn take(&mut self, operands: u32, reads: Option<Lanes>) {
        let there = self.stack.len() - self.frames.last().map_or(0, |frame| frame.height);
        // An instruction that is never reached may claim any number of operands.
        let first = self.stack.len() - there.min(operands as usize);
        for value in self.stack.drain(first..) {
            self.webs.look(value, reads);
        }
    }

    fn place(&self, local: u32) -> Option<usize> {
        self.tracked.get(local as usize).copied().flatten()
    }

    /// The web of the assignment, if the local is one of those that are followed.
    fn assign(&mut self, local: u32, value: Value) -> Option<Option<Web>> {
        let Some(place) = self.place(local) else {
            self.webs.look(value, None);
            return Some(None);
        };
        let web = self.webs.assigned(value);
        *self.state.get_mut(place)? = web;
        Some(Some(web))
    }

    /// A value of one or the other, or with lanes of both.
    fn join(&mut self, values: [(Value, Shape); 2], end: usize) {
        let web = self.webs.add();
        for (value, shape) in values {
            self.webs.assign(value, web, shape);
        }
        let value = self.webs.read(web, end);
        self.stack.push(value);
    }

    /// Of the two uppermost values, for each lane one or the other.
    fn either(&mut self, shape: Shape, end: usize) {
        let (right, left) = (self.pop(), self.pop());
        self.join([(left, shape), (right, shape)], end);
    }

    /// A value with the lanes of another.
    fn map(&mut self, shape: Shape, end: usize) {
        let value = self.pop();
        let web = self.webs.add();
        self.webs.assign(value, web, shape);
        let value = self.webs.read(web, end);
        self.stack.push(value);
    }

    fn frame(&self, depth: u32) -> Option<&Frame> {
        let index = self.frames.len().checked_sub(depth as usize + 1)?;
        self.frames.get(index)
    }
}

impl ModuleArity for Flow<'_> {
    fn sub_type_at(&self, type_idx: u32) -> Option<&SubType> {
        self.signatures.types.get(type_idx as usize)
    }

    fn tag_type_arity(&self, _: u32) -> Option<(u32, u32)> {
        None
    }

    fn type_index_of_function(&self, function_idx: u32) -> Option<u32> {
        self.signatures
            .functions
            .get(function_idx as usize)
            .copied()
    }

    fn func_type_of_cont_type(&self, _: &ContType) -> Option<&FuncType> {
        None
    }

    fn sub_type_of_ref_type(&self, _: &RefType) -> Option<&SubType> {
        None
    }

    fn control_stack_height(&self) -> u32 {
        self.frames.len() as u32
    }

    fn label_block(&self, depth: u32) -> Option<(BlockType, FrameKind)> {
        let index = self.frames.len().checked_sub(depth as usize + 1)?;
        let frame = self.frames.get(index)?;
        Some((frame.ty, frame.kind))
    }
}

#[cfg(test)]
mod tests {
    use wasmparser::{Parser, Payload};

    use super::*;

    #[test]
    fn a_value_that_goes_many_ways_is_noted_once() {
        let results = "f32 ".repeat(100);
        let values = "(f32.sqrt (local.get 0)) ".repeat(100);
        let conditional = "(br_if 0 (i32.const 0)) ".repeat(100);
        let wasm = wat::parse_str(alloc::format!(
            "(module (func (result {results}) (local f32)
                (block (result {results}) {values} {conditional} (br_table 0 1 0 1 (i32.const 0)))))"
        ));
        let wasm = wasm.unwrap();
        let signatures = Signatures::of(&wasm).unwrap();
        for payload in Parser::new(0).parse_all(&wasm) {
            if let Payload::CodeSectionEntry(body) = payload.unwrap() {
                let mut flow = Flow::new(&signatures, 0, &[(1, ValType::F32)], FUNCTION_STEPS_MAX);
                flow.pass(&body).unwrap();
                // Each root, and what it is the root of.
                assert_eq!(flow.webs.looks(), 200);
            }
        }
    }
}
