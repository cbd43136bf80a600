//! Calls through tables, tail calls, and what else the code does with references.

use super::*;

impl Writer<'_> {
    /// In the place of an index of a table that can change: the number of the function there. It is
    /// what a stopped call keeps, so that it does not matter what becomes of the table meanwhile.
    pub(super) fn look_up(&mut self, table: u32) {
        if let Some(arrays) = &self.context.references.arrays {
            self.ensure(1);
            self.out.op().call(arrays.helper(Helper::Index(table)));
        }
    }

    /// A call whose operands are there; for an indirect one [`look_up`](Self::look_up) was done.
    pub(super) fn call_indirect(&mut self, operator: &Operator<'_>, raw: &[u8]) {
        match (operator, &self.context.references.arrays) {
            (&Operator::CallIndirect { type_index, .. }, Some(arrays)) => {
                let functions = arrays.functions_of(type_index);
                self.out.op().call_indirect(functions, type_index);
            }
            _ => self.out.code.extend_from_slice(raw),
        }
    }

    /// Such a call leaves no frame, see [`tail`](super::super::tail).
    pub(super) fn tail_call(&mut self, operator: &Operator<'_>, raw: &[u8]) {
        let program = self.context.program;
        match *operator {
            Operator::ReturnCall { function_index } => {
                let params = program.function_type(function_index).params().len();
                self.ensure(params);
                let wrapper = self.context.wrappers.get(&function_index);
                self.out
                    .op()
                    .return_call(*wrapper.unwrap_or(&function_index));
            }
            Operator::ReturnCallIndirect {
                type_index,
                table_index,
            } => {
                self.look_up(table_index);
                self.ensure(program.types[type_index as usize].params().len() + 1);
                match &self.context.references.arrays {
                    Some(arrays) => {
                        let functions = arrays.functions_of(type_index);
                        self.out.op().return_call_indirect(functions, type_index);
                    }
                    None => self.out.code.extend_from_slice(raw),
                }
            }
            _ => {}
        }
    }

    /// On the way to a frame that is not this function's own: on to its owner.
    pub(super) fn pass_on(&mut self) {
        let tails = self.context.tails;
        let Some(identity) = tails.identity(self.index) else {
            return;
        };
        self.out.load_identity();
        self.out.op().i32_const(identity as i32).i32_ne();
        self.out.unlikely_if();
        self.out.load_identity();
        let ty = self.types.function(&[], &self.results);
        self.out.op().return_call_indirect(tails.table, ty);
        self.out.end();
    }

    pub(super) fn drop_segment(&mut self, data: u32) {
        self.out.op().data_drop(data);
        if let Some(&global) = self.context.drops.get(&data) {
            self.out.op().i32_const(1).global_set(global);
        }
    }

    /// What was active or declared is dropped from the start.
    pub(super) fn drop_elements(&mut self, element: u32) {
        let arrays = self.context.references.arrays.as_ref();
        if let Some(segment) = arrays.and_then(|arrays| arrays.passive(element)) {
            self.drop_segment(segment.data);
        }
    }

    /// Opens a block where the original does.
    pub(super) fn open_copy(&mut self, ty: BlockType, raw: &[u8]) -> u32 {
        match ty {
            BlockType::Type(ty) => {
                // The opcode and the type's short form.
                self.out.code.push(raw[0]);
                Ty::of(ty).encode().encode(&mut self.out.code);
            }
            _ => self.out.code.extend_from_slice(raw),
        }
        self.out.opened()
    }
}
