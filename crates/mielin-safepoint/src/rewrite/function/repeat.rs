//! Calls that may suspend, and arguments that are computed again when such a call is entered again.

use super::*;

/// The uppermost operands that the code before the current place computes in such a way that a call that is entered
/// again can compute them again, from whatever the locals hold then: nobody looks at its arguments. So they need not
/// be kept in locals for that.
#[derive(Default)]
pub(super) struct Repeatable {
    /// Where the code of each begins; nothing else stands between.
    starts: Vec<usize>,
    /// Locals that are read, and where.
    reads: Vec<(usize, u32)>,
}

impl Repeatable {
    pub(super) fn clear(&mut self) {
        self.starts.clear();
        self.reads.clear();
    }

    /// Takes note of an instruction whose code begins at `start`.
    pub(super) fn visit(&mut self, operator: &Operator<'_>, operands: usize, start: usize) {
        let first = self.starts.len().checked_sub(operands);
        let Some(first) = first.filter(|_| is_repeatable(operator)) else {
            return self.clear();
        };
        if let Operator::LocalGet { local_index } = *operator {
            self.reads.push((start, local_index));
        }
        let start = self.starts.get(first).copied().unwrap_or(start);
        self.starts.truncate(first);
        self.starts.push(start);
    }
}

/// Whether an instruction cannot trap and changes nothing but the operand stack, to which it adds one value.
fn is_repeatable(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::LocalGet { .. }
            | Operator::GlobalGet { .. }
            | Operator::I32Const { .. }
            | Operator::I64Const { .. }
            | Operator::F32Const { .. }
            | Operator::F64Const { .. }
            | Operator::I32Add
            | Operator::I32Sub
            | Operator::I32And
            | Operator::I32Or
            | Operator::I32Shl
            | Operator::I32WrapI64
            | Operator::I64ExtendI32U
            | Operator::I64ExtendI32S
    )
}

impl Writer<'_> {
    /// A call that may suspend. A resumed call gets its arguments again only where the callee
    /// is the host; a function of the program reads its own frame instead.
    pub(super) fn call(
        &mut self,
        operands: usize,
        operator: &Operator<'_>,
        raw: &[u8],
        kind: CallKind,
    ) {
        let indirect = matches!(operator, Operator::CallIndirect { .. });
        let (point, label) = self.plan.calls[self.next_call];
        debug_assert_eq!(self.positions[label], self.out.depth, "labels end in order");
        let height = self.stack.len();
        let below = height - operands;
        let index = height - usize::from(indirect);
        let repeatable = core::mem::take(&mut self.repeatable);
        let count = if kind == CallKind::Host || indirect {
            0
        } else {
            repeatable.starts.len().min(operands)
        };
        // The label comes before the code of the uppermost operands.
        let start = repeatable.starts.len() - count;
        let start = repeatable.starts.get(start).copied();
        let start = start.unwrap_or(self.out.code.len());
        let code = self.out.code.split_off(start);
        let repeated = self.stack.split_off(height - count);
        self.flush();
        self.out.end();
        self.ensure(operands - count);
        self.out.code.extend_from_slice(&code);
        self.stack.extend_from_slice(&repeated);
        if kind == CallKind::Host {
            self.keep(point, 0..height);
        } else {
            self.keep(point, (0..below).chain(index..height));
            let mut arguments = Vec::new();
            for position in below..index - count {
                let ty = self.stack[position];
                arguments.push((self.locals.shadow(position, ty), ty));
            }
            let reads = repeatable.reads.iter();
            let reads = reads.filter(|(offset, _)| *offset >= start);
            let mut reads: Vec<u32> = reads.map(|(_, local)| *local).collect();
            reads.sort_unstable();
            reads.dedup();
            let kept = self.liveness.at(point);
            reads.retain(|local| kept.binary_search(local).is_err());
            arguments.extend(
                reads
                    .iter()
                    .map(|&local| (local, self.locals.original(local))),
            );
            self.arguments.insert(point, arguments);
        }
        self.call_indirect(operator, raw);
    }
}
