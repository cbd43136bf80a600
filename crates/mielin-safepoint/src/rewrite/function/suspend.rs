//! Polls, the ways out of a function, and the dispatches that lead back to a point.

use alloc::collections::BTreeSet;

use super::*;
use crate::rewrite::routines::{
    Number, note_point, read_value, remove_frame, write_end, write_values,
};

/// Up to this many points are told apart one by one, all of it marked as hardly ever run; more
/// of them by a table, whose targets cannot be marked.
pub(super) const CHAIN_MAX: u32 = 8;

/// Reads values of the frame that was removed last.
fn read_inline(out: &mut Sink, kept: &Kept, base: u32, is_wanted: impl Fn(&Value) -> bool) {
    out.load_word(abi::STACK_POINTER_ADDRESS);
    out.op().local_set(base);
    let mut offset = 0;
    for value in &kept.values {
        if is_wanted(value) {
            out.op().local_get(base);
            read_value(out, value.ty, offset);
            out.op().local_set(value.local);
        }
        offset += value.ty.size();
    }
}

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
        self.insert_later(Insertion::Dispatch(body));
        self.out.finish_flag();
        let target = self.out.to(running);
        self.out.op().br(target);
        self.out.end();
        self.leave_later(point, true);
        self.out.end();
    }

    fn insert_later(&mut self, insertion: Insertion) {
        self.insertions
            .push((self.out.code.len(), self.out.depth, insertion));
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

    /// What follows is done if no stop was requested; it ends with a branch, then an `end` and the way out.
    fn unless_stopped(&mut self) {
        let stop = self.out.block(wasm_encoder::BlockType::Empty);
        self.out.load_word(abi::FLAG_ADDRESS);
        self.out.op().i32_const(abi::STOP_REQUESTED).i32_eq();
        self.out.likely_branch(stop);
    }

    /// Writes the frame and returns, with code that may depend on what follows in the function.
    pub(super) fn leave_later(&mut self, point: u32, stops: bool) {
        if self.by_calls {
            self.insert_later(Insertion::Leave { point, stops });
        } else {
            self.leave(point, stops);
        }
    }

    /// Writes the frame and returns.
    fn leave(&mut self, point: u32, stops: bool) {
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
        let own = &self.kept[point as usize];
        let kept = self.layout.as_ref().map_or(own, |layout| &layout.kept);
        let lives: BTreeSet<u32> = own.values.iter().map(|value| value.local).collect();
        let shapes = kept.shapes();
        let count = shapes.len();
        for (number, (shape, values)) in (1..).zip(shapes) {
            for value in values {
                if lives.contains(&value.local) {
                    self.out.op().local_get(value.local);
                } else {
                    self.out.zero(value.ty);
                }
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
        let own = &self.kept[point as usize];
        if !own.concerns(body) {
            return;
        }
        match &self.layout {
            None => read_inline(&mut self.out, own, self.base, |value| value.body == body),
            Some(layout) => {
                let own = own.values.iter().filter(|value| value.body == body);
                let wanted: BTreeSet<u32> = own.map(|value| value.local).collect();
                let is_wanted = |value: &Value| wanted.contains(&value.local);
                read_inline(&mut self.out, &layout.kept, self.base, is_wanted);
            }
        }
    }

    /// The same whatever the point, and the arguments of all calls are set. False where frames differ, so that this
    /// cannot be done.
    fn restore_any(&mut self, body: usize) -> bool {
        let Some(layout) = &self.layout else {
            return false;
        };
        let is_wanted = |value: &Value| layout.reads(body, value);
        if layout.kept.values.iter().any(is_wanted) {
            read_inline(&mut self.out, &layout.kept, self.base, is_wanted);
        }
        self.clear_all_arguments(body);
        true
    }

    /// Removes the uppermost frame and reads what the function's own body is to read of it.
    fn pop(&mut self, kept: &Kept, is_wanted: impl Fn(&Value) -> bool) {
        let mut shapes = kept.shapes();
        if !self.by_calls {
            if let Some((shape, _)) = shapes.last() {
                remove_frame(&mut self.out, shape);
            }
            if kept.values.iter().any(&is_wanted) {
                read_inline(&mut self.out, kept, self.base, is_wanted);
            }
            return;
        }
        if let Some((shape, values)) = shapes.pop() {
            self.out.op().call(self.routines.index(Routine::Pop(shape)));
            self.out.take(values, &is_wanted);
        }
        for (shape, values) in shapes {
            self.out
                .op()
                .call(self.routines.index(Routine::Read(shape)));
            self.out.take(values, &is_wanted);
        }
    }

    /// Writes what was left out of the code.
    pub(super) fn insert(&mut self, main: Sink) -> Sink {
        let mut insertions = Vec::new();
        let mut total = main.code.len();
        for (offset, depth, insertion) in core::mem::take(&mut self.insertions) {
            self.out = Sink {
                depth,
                ..Sink::default()
            };
            match insertion {
                Insertion::Dispatch(body) => self.dispatch(body),
                Insertion::Leave { point, stops } => self.leave(point, stops),
            }
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
            self.dispatch_chain(body);
        } else {
            self.dispatch_table(body, header);
        }
    }

    fn dispatch_table(&mut self, body: usize, header: u32) {
        let plan = self.plan;
        let children = &plan.bodies[body].children;
        let is_restored = self.restore_any(body);
        let here = self.out.block(wasm_encoder::BlockType::Empty);
        let mut landings = Vec::new();
        for child in children.iter().rev() {
            for point in (child.first..=child.last).rev() {
                let needs_landing = match is_restored {
                    true => child.kind == ChildKind::Host,
                    false => self.needs_landing(body, child, point),
                };
                if needs_landing {
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
            if is_restored {
                self.out.finish_flag();
            } else {
                self.land(body, child, point);
            }
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

    /// The same for all calls of a body, but for arguments that it has read: those are operands at other points.
    fn clear_all_arguments(&mut self, body: usize) {
        let children = self.plan.bodies[body].children.iter();
        let calls = children.filter(|child| child.kind == ChildKind::Call);
        let arguments = calls.filter_map(|child| self.arguments.get(&child.first));
        let mut clear: BTreeSet<(u32, Ty)> = arguments.flatten().copied().collect();
        if let Some(layout) = &self.layout {
            clear.retain(|(local, _)| !layout.reads_local(body, *local));
        }
        for (local, ty) in clear {
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
        if let Some(layout) = self.layout.take() {
            self.arrive_alike(&layout, polls, running);
            self.layout = Some(layout);
        } else if plan.points <= CHAIN_MAX {
            self.arrive_chain(polls, running);
        } else {
            self.arrive_table(polls, running);
        }
        self.out.op().unreachable();
        if polls {
            self.out.end();
            self.leave(0, true);
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

    /// Where every point has the same frame: reads it, and goes on.
    fn arrive_alike(&mut self, layout: &Layout, polls: bool, running: u32) {
        self.pop(&layout.kept, |value| layout.reads(0, value));
        let arrivals = self.arrivals(polls, running);
        let ending = |point, kind| {
            let is_innermost = self.plan.is_innermost(point);
            (is_innermost, matches!(kind, None | Some(ChildKind::Host)))
        };
        let endings: Vec<(u32, (bool, bool))> = arrivals
            .into_iter()
            .map(|(point, kind, label)| (label, ending(point, kind)))
            .collect();
        let unknown = self.out.block(wasm_encoder::BlockType::Empty);
        let mut landings = BTreeMap::new();
        for (label, ends) in endings.iter().filter(|(_, ends)| *ends != (false, false)) {
            landings
                .entry((*label, *ends))
                .or_insert_with(|| self.out.block(wasm_encoder::BlockType::Empty));
        }
        let targets: Vec<u32> = endings
            .iter()
            .map(|key| self.out.to(landings.get(key).copied().unwrap_or(key.0)))
            .collect();
        let default = self.out.to(unknown);
        self.push_point();
        self.out.op().br_table(targets, default);
        let mut landings: Vec<_> = landings.into_iter().collect();
        landings.sort_by_key(|(_, position)| core::cmp::Reverse(*position));
        for ((label, (ends_mode, ends_flag)), _) in landings {
            self.out.end();
            if ends_mode {
                self.out.finish_mode(self.context.mode);
            }
            if ends_flag {
                self.out.op().call(self.routines.index(Routine::Go));
            }
            let target = self.out.to(label);
            self.out.op().br(target);
        }
        self.out.end();
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
        let kept = core::mem::take(&mut self.kept[point as usize]);
        self.pop(&kept, |value| value.body == 0);
        self.kept[point as usize] = kept;
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
