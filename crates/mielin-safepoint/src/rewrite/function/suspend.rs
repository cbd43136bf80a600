//! Polls, the ways out of a function, and the dispatches that lead back to a point.

use super::*;
use crate::rewrite::routines::{
    Number, note_point, read_value, remove_frame, write_end, write_values,
};

/// Up to this many points are told apart one by one, all of it marked as hardly ever run; more
/// of them by a table, whose targets cannot be marked.
pub(super) const CHAIN_MAX: u32 = 8;

impl Writer<'_> {
    /// The header of a loop. Going on after a rewind stores to the flag and falls into the
    /// loop; that store also keeps compilers from moving the poll out of it.
    pub(super) fn poll(&mut self, body: usize) {
        let plan = self.plan;
        let Some(point) = plan.bodies[body].header else {
            return;
        };
        let height = self.stack.len();
        self.keep(point, 0..height);
        self.open_bodies.push((body, height));
        self.out.load_word(abi::FLAG_ADDRESS);
        let running = self.out.unlikely_if();
        self.unless_stopped();
        self.dispatches
            .push((self.out.code.len(), self.out.depth, body));
        self.out.finish_flag();
        let target = self.out.to(running);
        self.out.op().br(target);
        self.stop(point);
        self.out.end();
    }

    /// Decides what a point keeps: the operands at these heights and the live locals.
    ///
    /// What lives at the header of a loop is restored before it, so that what does not change
    /// in a loop stays constant for the compiler; what does not live there is restored behind
    /// it, so that it need not be carried around the loop.
    pub(super) fn keep(&mut self, point: u32, operands: impl Iterator<Item = usize>) {
        let mut kept = Vec::new();
        for height in operands {
            let ty = self.stack[height];
            let inside = |(_, header): &&(usize, usize)| *header <= height;
            let body = self
                .open_bodies
                .iter()
                .rev()
                .find(inside)
                .map_or(0, |(body, _)| *body);
            kept.push(Value {
                local: self.locals.shadow(height, ty),
                ty,
                body,
            });
        }
        let (plan, liveness) = (self.plan, self.liveness);
        for &local in liveness.at(point) {
            let dead = |(body, _): &&(usize, usize)| match plan.bodies[*body].header {
                Some(header) => liveness.at(header).binary_search(&local).is_err(),
                None => true,
            };
            let body = self
                .open_bodies
                .iter()
                .rev()
                .find(dead)
                .map_or(0, |(body, _)| *body);
            kept.push(Value {
                local,
                ty: self.locals.original(local),
                body,
            });
        }
        // So that many frames have the same types.
        kept.sort_by_key(|value| value.ty);
        self.kept[point as usize] = Kept {
            values: kept,
            identity: self.context.tails.identity(self.index),
        };
    }

    /// What follows is done if no stop was requested; it ends with a branch, then [`stop`].
    ///
    /// [`stop`]: Self::stop
    fn unless_stopped(&mut self) {
        let stop = self.out.block(wasm_encoder::BlockType::Empty);
        self.out.load_word(abi::FLAG_ADDRESS);
        self.out.op().i32_const(abi::STOP_REQUESTED).i32_eq();
        self.out.likely_branch(stop);
    }

    /// A stop was requested: writes the frame and leaves.
    fn stop(&mut self, point: u32) {
        self.out.end();
        self.leave(point, true);
    }

    /// Writes the frame and returns.
    pub(super) fn leave(&mut self, point: u32, stops: bool) {
        if self.by_calls {
            self.leave_by_call(point, stops);
            let kept = &self.kept[point as usize];
            return self.out.return_any(&self.results, &kept.values);
        }
        self.write(point);
        if stops {
            self.out.set_state(abi::UNWINDING, self.context.mode);
        }
        self.out.return_any(&self.results, &[]);
    }

    fn leave_by_call(&mut self, point: u32, stops: bool) {
        let kept = &self.kept[point as usize];
        let shapes = kept.shapes();
        let count = shapes.len();
        for (number, (shape, values)) in (1..).zip(shapes) {
            for value in values {
                self.out.op().local_get(value.local);
            }
            let routine = if number < count {
                Routine::Part(shape)
            } else {
                if let Some(identity) = kept.identity {
                    self.out.op().i32_const(identity as i32);
                }
                self.out.op().i32_const(point as i32);
                if stops {
                    Routine::Stop(shape)
                } else {
                    Routine::Write(shape)
                }
            };
            self.out.op().call(self.routines.index(routine));
        }
    }

    fn write(&mut self, point: u32) {
        let kept = &self.kept[point as usize];
        let shapes = kept.shapes();
        for (shape, values) in &shapes {
            let locals = values.iter().map(|value| value.local);
            write_values(&mut self.out, shape, locals, self.base);
        }
        if let Some((shape, _)) = shapes.last() {
            let identity = kept.identity.unwrap_or_default();
            write_end(&mut self.out, shape, self.base, |out, number| {
                let number = match number {
                    Number::Identity => identity,
                    Number::Point => point,
                };
                out.op().i32_const(number as i32);
            });
        }
    }

    /// Reads what a loop is to read of the frame that was just removed. Without a call: what lives around it would
    /// have to be saved for that, in a loop.
    fn restore(&mut self, point: u32, body: usize) {
        let kept = &self.kept[point as usize];
        if !kept.concerns(body) {
            return;
        }
        self.out.load_word(abi::STACK_POINTER_ADDRESS);
        self.out.op().local_set(self.base);
        let mut offset = 0;
        for value in &kept.values {
            if value.body == body {
                self.out.op().local_get(self.base);
                read_value(&mut self.out, value.ty, offset);
                self.out.op().local_set(value.local);
            }
            offset += value.ty.size();
        }
    }

    /// Removes the uppermost frame and reads what the function's own body is to read of it.
    fn pop(&mut self, point: u32) {
        let kept = &self.kept[point as usize];
        let mut shapes = kept.shapes();
        if !self.by_calls {
            if let Some((shape, _)) = shapes.last() {
                remove_frame(&mut self.out, shape);
            }
            return self.restore(point, 0);
        }
        if let Some((shape, values)) = shapes.pop() {
            self.out.op().call(self.routines.index(Routine::Pop(shape)));
            self.out.take(values, 0);
        }
        for (shape, values) in shapes {
            self.out
                .op()
                .call(self.routines.index(Routine::Read(shape)));
            self.out.take(values, 0);
        }
    }

    /// Writes the dispatches of all loops into the code, where their headers left room.
    pub(super) fn insert_dispatches(&mut self, main: Sink) -> Sink {
        let mut insertions = Vec::new();
        let mut total = main.code.len();
        for (offset, depth, body) in core::mem::take(&mut self.dispatches) {
            self.out = Sink {
                depth,
                ..Sink::default()
            };
            self.dispatch(body);
            total += self.out.code.len();
            insertions.push((offset, core::mem::take(&mut self.out)));
            if total > CODE_BYTES_MAX {
                break;
            }
        }
        main.with(insertions)
    }

    /// Goes on to the child of a loop's body in which the program was stopped. Falls through
    /// where that was the header.
    fn dispatch(&mut self, body: usize) {
        let plan = self.plan;
        let children = &plan.bodies[body].children;
        let Some(header) = plan.bodies[body].header else {
            return;
        };
        if children.is_empty() {
            return;
        }
        let last = children.last().map_or(header, |child| child.last);
        if last - header <= CHAIN_MAX {
            return self.dispatch_chain(body);
        }
        let here = self.out.block(wasm_encoder::BlockType::Empty);
        let mut landings = Vec::new();
        for child in children.iter().rev() {
            for point in (child.first..=child.last).rev() {
                if self.needs_landing(body, child, point) {
                    let position = self.out.block(wasm_encoder::BlockType::Empty);
                    landings.push((child, point, position));
                }
            }
        }
        landings.reverse();
        let mut targets = Vec::new();
        let mut next = landings.iter().peekable();
        for child in children {
            for point in child.first..=child.last {
                let landing = next.next_if(|(_, landing, _)| *landing == point);
                let position = landing.map_or(self.positions[child.label], |landing| landing.2);
                targets.push(self.out.to(position));
            }
        }
        let default = self.out.to(here);
        self.out.load_word(abi::POINT_ADDRESS);
        self.out
            .op()
            .i32_const(header as i32 + 1)
            .i32_sub()
            .br_table(targets, default);
        for (child, point, _) in landings {
            self.out.end();
            self.land(body, child, point);
            let target = self.out.to(self.positions[child.label]);
            self.out.op().br(target);
        }
        self.out.end();
    }

    /// The same for few points.
    fn dispatch_chain(&mut self, body: usize) {
        for child in &self.plan.bodies[body].children {
            for point in child.first..=child.last {
                let target = self.positions[child.label];
                if !self.needs_landing(body, child, point) {
                    self.out.load_word(abi::POINT_ADDRESS);
                    self.out.op().i32_const(point as i32).i32_eq();
                    self.out.likely_branch(target);
                    continue;
                }
                let next = self.unless_point(point);
                self.land(body, child, point);
                self.out.leave_cold(target, next);
                self.out.end();
            }
        }
    }

    /// What follows is done only on the way to this point; it ends with a branch and an `end`.
    fn unless_point(&mut self, point: u32) -> u32 {
        let next = self.out.block(wasm_encoder::BlockType::Empty);
        self.out.load_word(abi::POINT_ADDRESS);
        self.out.op().i32_const(point as i32).i32_ne();
        self.out.likely_branch(next);
        next
    }

    /// What a loop's dispatch does on the way to a point.
    fn land(&mut self, body: usize, child: &Child, point: u32) {
        self.restore(point, body);
        match child.kind {
            ChildKind::Host => self.out.finish_flag(),
            ChildKind::Call => self.clear_arguments(point),
            ChildKind::Loop => {}
        }
    }

    /// Sets the arguments of a call that is entered again, lest their old values be carried
    /// around the loop for nothing.
    fn clear_arguments(&mut self, point: u32) {
        for &(local, ty) in self.arguments.get(&point).into_iter().flatten() {
            self.out.any_value(ty);
            self.out.op().local_set(local);
        }
    }

    /// Whether a dispatch has something to do on the way to a point.
    fn needs_landing(&self, body: usize, child: &Child, point: u32) -> bool {
        let own = match child.kind {
            ChildKind::Host => true,
            ChildKind::Call => self
                .arguments
                .get(&point)
                .is_some_and(|list| !list.is_empty()),
            ChildKind::Loop => false,
        };
        own || self.kept[point as usize].concerns(body)
    }

    /// The start of a function: removes the frame, reads of it what lives before the loops,
    /// and goes on to the point or to the outermost loop around it.
    pub(super) fn entry(&mut self, polls: bool) {
        let plan = self.plan;
        if polls {
            self.open_bodies.clear();
            self.keep(0, 0..0);
            self.out.load_word(abi::FLAG_ADDRESS);
        } else {
            self.out.op().global_get(self.context.mode);
        }
        let running = self.out.unlikely_if();
        if polls {
            self.unless_stopped();
        }
        self.pass_on();
        if self.by_calls {
            let note = self.routines.index(Routine::Point);
            self.out.op().call(note).local_set(self.base);
        } else {
            note_point(&mut self.out);
        }
        if plan.points <= CHAIN_MAX {
            self.arrive_chain(polls, running);
        } else {
            self.arrive_table(polls, running);
        }
        self.out.op().unreachable();
        if polls {
            self.stop(0);
        }
        self.out.end();
    }

    /// The points of the function with the kind of the function's child that they lie in, and
    /// the label before it.
    fn arrivals(&self, polls: bool, running: u32) -> Vec<(u32, Option<ChildKind>, u32)> {
        let mut arrivals = Vec::new();
        if polls {
            arrivals.push((0, None, running));
        }
        for child in &self.plan.bodies[0].children {
            let label = self.positions[child.label];
            arrivals
                .extend((child.first..=child.last).map(|point| (point, Some(child.kind), label)));
        }
        arrivals
    }

    fn arrive_table(&mut self, polls: bool, running: u32) {
        let unknown = self.out.block(wasm_encoder::BlockType::Empty);
        let mut blocks: Vec<u32> = (0..self.plan.points)
            .map(|_| self.out.block(wasm_encoder::BlockType::Empty))
            .collect();
        blocks.reverse();
        let targets: Vec<u32> = blocks
            .iter()
            .map(|position| self.out.to(*position))
            .collect();
        let default = self.out.to(unknown);
        self.push_point();
        self.out.op().br_table(targets, default);
        for (point, kind, label) in self.arrivals(polls, running) {
            self.out.end();
            self.arrive(point, kind);
            let target = self.out.to(label);
            self.out.op().br(target);
        }
        self.out.end();
    }

    fn arrive_chain(&mut self, polls: bool, running: u32) {
        for (point, kind, label) in self.arrivals(polls, running) {
            let next = self.out.block(wasm_encoder::BlockType::Empty);
            self.push_point();
            self.out.op().i32_const(point as i32).i32_ne();
            self.out.likely_branch(next);
            self.arrive(point, kind);
            self.out.leave_cold(label, next);
            self.out.end();
        }
    }

    fn arrive(&mut self, point: u32, kind: Option<ChildKind>) {
        self.pop(point);
        if self.plan.is_innermost(point) {
            self.out.finish_mode(self.context.mode);
        }
        if matches!(kind, None | Some(ChildKind::Host)) {
            if self.by_calls {
                self.out.op().call(self.routines.index(Routine::Go));
            } else {
                self.out.finish_flag();
            }
        }
    }

    /// Pushes the number of the point to which this function is resumed.
    fn push_point(&mut self) {
        if self.by_calls {
            self.out.op().local_get(self.base);
        } else {
            self.out.load_word(abi::POINT_ADDRESS);
        }
    }
}
