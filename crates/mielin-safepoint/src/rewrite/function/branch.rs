//! Branches: a loop takes its parameters from shadows, every other label from the stack.

use super::*;

impl Writer<'_> {
    /// Stores the parameters of a loop, which are on the real stack, where it expects them.
    pub(super) fn store_params(&mut self, depth: u32) {
        let frame = self.frame(depth);
        let (ty, base) = (frame.ty, frame.base);
        for (position, ty) in self.param_types(ty).into_iter().enumerate().rev() {
            let local = self.locals.shadow(base + position, ty);
            self.out.op().local_set(local);
        }
    }

    pub(super) fn takes_params(&self, depth: u32) -> bool {
        let frame = self.frame(depth);
        frame.kind == FrameKind::Loop && self.label_arity(frame) > 0
    }

    pub(super) fn branch(&mut self, depth: u32) {
        self.ensure(self.label_arity(self.frame(depth)));
        if self.takes_params(depth) {
            self.store_params(depth);
        }
        let target = self.out.to(self.frame(depth).label);
        self.out.op().br(target);
    }

    pub(super) fn branch_if(&mut self, depth: u32) {
        let arity = self.label_arity(self.frame(depth));
        if !self.takes_params(depth) {
            self.ensure(arity + 1);
            let target = self.out.to(self.frame(depth).label);
            self.out.op().br_if(target);
            let height = self.stack.len() - 1;
            return self.truncate(height);
        }
        let condition = self.stack.len() - 1;
        self.save(arity + 1);
        self.truncate(condition);
        self.get(condition - arity, condition);
        let local = self.locals.shadow(condition, Ty::I32);
        self.out
            .op()
            .local_get(local)
            .if_(wasm_encoder::BlockType::Empty);
        self.out.opened();
        self.get(condition - arity, condition);
        self.store_params(depth);
        let target = self.out.to(self.frame(depth).label);
        self.out.op().br(target);
        self.out.end();
    }

    /// Moves the uppermost `count` operands into shadows, for a moment: the caller pushes them
    /// again. (Inside a block that its body did not open, the operands below it stay where
    /// they are, so that flushing is not possible.)
    pub(super) fn save(&mut self, count: usize) {
        self.ensure(count);
        let height = self.stack.len();
        for position in (height - count..height).rev() {
            let local = self.locals.shadow(position, self.stack[position]);
            self.out.op().local_set(local);
        }
    }

    /// Pushes shadows without changing what is known of the stack.
    pub(super) fn get(&mut self, from: usize, to: usize) {
        for height in from..to {
            let local = self.locals.shadow(height, self.stack[height]);
            self.out.op().local_get(local);
        }
    }

    pub(super) fn branch_table(&mut self, table: &BrTable<'_>) {
        let targets: Vec<u32> = table
            .targets()
            .map_while(Result::ok)
            .chain([table.default()])
            .collect();
        let arity = self.label_arity(self.frame(table.default()));
        let mut detours: Vec<u32> = targets
            .iter()
            .copied()
            .filter(|depth| self.takes_params(*depth))
            .collect();
        detours.sort_unstable();
        detours.dedup();
        let mut positions = BTreeMap::new();
        if detours.is_empty() {
            self.ensure(arity + 1);
        } else {
            self.save(arity + 1);
            let index = self.stack.len() - 1;
            let types: Vec<Ty> = self.stack[index - arity..index].to_vec();
            let block = self.types.block(&types);
            for &depth in &detours {
                positions.insert(depth, self.out.block(block));
            }
            self.get(index - arity, index + 1);
        }
        let to = |depth: &u32| {
            let position = positions.get(depth).copied();
            self.out
                .to(position.unwrap_or_else(|| self.frame(*depth).label))
        };
        let mut operands: Vec<u32> = targets.iter().map(to).collect();
        let default = operands.pop().unwrap_or(0);
        self.out.op().br_table(operands, default);
        for &depth in detours.iter().rev() {
            self.out.end();
            self.store_params(depth);
            let target = self.out.to(self.frame(depth).label);
            self.out.op().br(target);
        }
    }
}
