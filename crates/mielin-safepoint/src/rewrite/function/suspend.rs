//! Polls, the ways out of a function, and the dispatches that lead back to a point.

use alloc::collections::BTreeSet;

use super::*;
use crate::rewrite::routines::{at, read_value, write_values};

/// In a function with a loop without calls up to this many points are told apart one by one, all of it marked as hardly
/// ever run. Elsewhere a table tells them apart, whose targets cannot be marked: `fib` took 1.57 times as long with one
/// before its loop.
pub(super) const CHAIN_MAX: u32 = 8;

/// Values, summed over the calls, that one shared way out writes. Of each value it gets what each of these calls has, and
/// to bring that together takes Cranelift's register allocator a time that grows with the square of this sum: a function
/// of 2,000 calls that keep 50 values, 18 s with one way out, 2.7 s with these.
const SHARED_MAX: usize = 8_000;

/// Reads values of the frame that was removed last, which begins at the address in the local `base`.
fn read_inline(out: &mut Sink, kept: &Kept, base: u32, is_wanted: impl Fn(&Value) -> bool) {
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
        if self.by_calls {
            self.insert_later(Insertion::Stop(point));
        } else {
            self.leave(point, true);
        }
        self.out.end();
    }

    pub(super) fn insert_later(&mut self, insertion: Insertion) {
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

    /// Leaves behind a call that was unwound.
    pub(super) fn check(&mut self, point: u32) {
        self.out.op().global_get(self.context.mode);
        self.out.unlikely_if();
        self.leave(point, false);
        self.out.end();
    }

    /// Writes the frame and returns.
    fn leave(&mut self, point: u32, stops: bool) {
        if self.by_calls {
            self.leave_by_call(point, Some(self.plan.number(point)));
            if stops {
                let unwind = self.routines.index(Routine::Unwind);
                self.out.op().call(unwind);
            }
            let kept = &self.kept[point as usize];
            return self.out.return_any(&self.results, &kept.values);
        }
        self.write(point, stops);
        if stops {
            self.out.set_state(abi::UNWINDING, self.context.mode);
        }
        self.out.return_any(&self.results, &[]);
    }

    /// The number of the point is in the local `base` where none is given.
    fn leave_by_call(&mut self, point: u32, point_number: Option<i32>) {
        let own = &self.kept[point as usize];
        let kept = self.layout.as_ref().map_or(own, |layout| &layout.kept);
        let lives: BTreeSet<u32> = own.values.iter().map(|value| value.local).collect();
        let shapes = kept.shapes();
        let count = shapes.len();
        for (number, (shape, values)) in (1..).zip(shapes) {
            if number < count && values.iter().all(|value| !lives.contains(&value.local)) {
                let zero = self.routines.index(Routine::Zero(shape));
                self.out.op().call(zero);
                continue;
            }
            for value in values {
                if lives.contains(&value.local) {
                    self.out.op().local_get(value.local);
                } else if matches!(value.ty, Ty::I32 | Ty::I64) {
                    self.out.zero(value.ty);
                } else {
                    // A constant has all its bytes in the code: up to 18.
                    let zero = self.locals.zero(value.ty);
                    self.out.op().local_get(zero);
                }
            }
            let routine = if number < count {
                Routine::Part(shape)
            } else {
                if let Some(identity) = kept.identity {
                    self.out.op().i32_const(identity as i32);
                }
                match point_number {
                    Some(number) => self.out.op().i32_const(number),
                    None => self.out.op().local_get(self.base),
                };
                Routine::Write(shape)
            };
            self.out.op().call(self.routines.index(routine));
        }
    }

    /// The ways out that several calls share, each with the points of these.
    pub(super) fn exits(&self) -> Vec<Vec<u32>> {
        let mut exits: BTreeMap<Vec<u32>, Vec<u32>> = BTreeMap::new();
        for (_, _, insertion) in &self.insertions {
            if let Insertion::Check(point) = insertion {
                let values = self.kept[*point as usize].values.iter();
                let lives = values.map(|value| value.local).collect();
                exits.entry(lives).or_default().push(*point);
            }
        }
        let shared = exits.into_iter().flat_map(|(lives, points)| {
            let most = (SHARED_MAX / lives.len().max(1)).max(1);
            let exits: Vec<_> = points.chunks(most).map(<[u32]>::to_vec).collect();
            exits
        });
        shared.filter(|points| points.len() > 1).collect()
    }

    /// What stands before and after a function with such ways out.
    pub(super) fn write_exits(&mut self, exits: &[Vec<u32>]) -> (Sink, Sink) {
        let (mut before, after) = (Sink::default(), Sink::default());
        if exits.is_empty() {
            return (before, after);
        }
        let number = wasm_encoder::BlockType::Result(Ty::I32.encode());
        exits.iter().for_each(|_| {
            before.block(number);
        });
        let body = self.types.block(&self.results);
        before.block(body);
        let code = core::mem::replace(&mut self.out, after);
        self.out.op().return_();
        for points in exits {
            self.out.op().end().local_set(self.base);
            self.leave_by_call(points[0], None);
            let kept = &self.kept[points[0] as usize];
            self.out.return_any(&self.results, &kept.values);
        }
        self.out.op().end();
        (before, core::mem::replace(&mut self.out, code))
    }

    /// Leaves by a way out that is shared, if the call was unwound.
    fn check_shared(&mut self, point: u32, exit: usize) {
        let number = self.plan.number(point);
        self.out
            .op()
            .i32_const(number)
            .global_get(self.context.mode);
        // Outside of the function's own body, which is the outermost block otherwise.
        let depth = self.out.depth + 1 + exit as u32;
        self.out.unlikely_branch(depth);
        self.out.op().drop();
    }

    /// Without any call in a loop that has none.
    fn write(&mut self, point: u32, in_place: bool) {
        let kept = &self.kept[point as usize];
        let shapes = kept.shapes();
        for (shape, values) in &shapes {
            let locals = values.iter().map(|value| value.local);
            write_values(&mut self.out, shape, locals, self.base);
        }
        let size = shapes.last().map_or(0, |(shape, _)| shape.size());
        let number = self.plan.number(point);
        let mut op = self.out.op();
        if let Some(identity) = kept.identity {
            op.local_get(self.base).i32_const(identity as i32);
            op.i32_store(at(size - 8));
        }
        if !in_place {
            op.i32_const(number).i32_const(size as i32);
            op.call(self.routines.index(Routine::Finish));
            return;
        }
        op.local_get(self.base).i32_const(number);
        op.i32_store(at(size - 4)).i32_const(0).local_get(self.base);
        op.i32_const(size as i32).i32_add();
        self.out.store_word(abi::STACK_POINTER_ADDRESS);
    }

    /// Reads what a loop is to read of the frame that was just removed. Without a call: what lives around it would
    /// have to be saved for that, in a loop.
    fn restore(&mut self, point: u32, body: usize) {
        let own = &self.kept[point as usize];
        if !own.concerns(body) {
            return;
        }
        self.out.load_word(abi::STACK_POINTER_ADDRESS);
        self.out.op().local_set(self.base);
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
            self.out.load_word(abi::STACK_POINTER_ADDRESS);
            self.out.op().local_set(self.base);
            read_inline(&mut self.out, &layout.kept, self.base, is_wanted);
        }
        self.clear_all_arguments(body);
        true
    }

    /// Removes the uppermost frame and reads what the function's own body is to read of it.
    fn pop(&mut self, kept: &Kept, is_wanted: impl Fn(&Value) -> bool) {
        let mut shapes = kept.shapes();
        let Some((shape, values)) = shapes.pop() else {
            return;
        };
        if !self.by_calls {
            let remove = self.routines.index(Routine::Remove);
            let mut op = self.out.op();
            op.i32_const(shape.size() as i32).call(remove);
            op.local_set(self.base);
            return read_inline(&mut self.out, kept, self.base, is_wanted);
        }
        self.out.op().call(self.routines.index(Routine::Pop(shape)));
        self.out.take(values, &is_wanted);
        for (shape, values) in shapes {
            let read = self.routines.index(Routine::Read(shape));
            self.out.op().call(read);
            self.out.take(values, &is_wanted);
        }
    }

    /// Writes what was left out of the code.
    pub(super) fn insert(&mut self, main: Sink, exits: &[Vec<u32>]) -> Sink {
        let exits = exits.iter().enumerate();
        let exits: BTreeMap<u32, usize> = exits
            .flat_map(|(exit, points)| points.iter().map(move |point| (*point, exit)))
            .collect();
        let mut insertions = Vec::new();
        let mut total = main.code.len();
        for (offset, depth, insertion) in core::mem::take(&mut self.insertions) {
            self.out = Sink {
                depth,
                ..Sink::default()
            };
            match insertion {
                Insertion::Dispatch(body) => self.dispatch(body),
                Insertion::Stop(point) => self.leave(point, true),
                Insertion::Check(point) => match exits.get(&point) {
                    Some(exit) => self.check_shared(point, *exit),
                    None => self.check(point),
                },
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
        let chain_max = if self.by_calls { 1 } else { CHAIN_MAX };
        if last - header <= chain_max {
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
                self.out.leave_cold(target, next, None);
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
            clear.retain(|(local, _)| !layout.keeps(*local));
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
        if self.plan.points > 1 {
            let note = self.routines.index(Routine::Point);
            self.out.op().call(note).local_set(self.base);
        }
        let arrivals = self.arrivals(polls, running);
        if self.by_calls && !arrivals.is_empty() {
            self.arrive_table(&arrivals);
        } else {
            self.arrive_chain(&arrivals);
        }
        self.out.op().unreachable();
        if polls {
            self.out.end();
            self.leave(0, true);
        }
        self.out.end();
    }

    /// The points of the function with the label to which each leads.
    fn arrivals(&self, polls: bool, running: u32) -> Vec<u32> {
        let mut arrivals = Vec::new();
        if polls {
            arrivals.push(running);
        }
        for child in &self.plan.bodies[0].children {
            let label = self.positions[child.label];
            arrivals.extend((child.first..=child.last).map(|_| label));
        }
        arrivals
    }

    /// Points that keep the same are resumed by the same code, which goes on by a second table.
    fn arrive_table(&mut self, arrivals: &[u32]) {
        let groups = self.groups();
        let goes_on = |group: &Vec<usize>| {
            let label = arrivals[group[0]];
            group
                .iter()
                .all(|point| arrivals[*point] == label)
                .then_some(label)
        };
        if let [group] = groups.as_slice() {
            self.pop_alike(group[0]);
            return match goes_on(group) {
                Some(label) => {
                    let depth = self.out.to(label);
                    self.out.op().br(depth);
                }
                None => self.branch_by_point(arrivals),
            };
        }
        let again = self.out.block(wasm_encoder::BlockType::Empty);
        let mut landings = vec![0; arrivals.len()];
        for group in &groups {
            let landing = self.out.block(wasm_encoder::BlockType::Empty);
            group.iter().for_each(|point| landings[*point] = landing);
        }
        self.branch_by_point(&landings);
        for group in groups.iter().rev() {
            self.out.end();
            self.pop_alike(group[0]);
            let target = self.out.to(goes_on(group).unwrap_or(again));
            self.out.op().br(target);
        }
        self.out.end();
        if groups.iter().any(|group| goes_on(group).is_none()) {
            self.branch_by_point(arrivals);
        }
    }

    /// The points that keep the same.
    fn groups(&self) -> Vec<Vec<usize>> {
        if self.layout.is_some() {
            return vec![(0..self.kept.len()).collect()];
        }
        let mut groups: BTreeMap<Vec<(u32, bool)>, Vec<usize>> = BTreeMap::new();
        for (point, kept) in self.kept.iter().enumerate() {
            let values = kept.values.iter();
            let key = values.map(|value| (value.local, value.body == 0)).collect();
            groups.entry(key).or_default().push(point);
        }
        groups.into_values().collect()
    }

    /// Goes to the label of the point in the local `base`, of which there is one for each point.
    fn branch_by_point(&mut self, labels: &[u32]) {
        let mut targets: Vec<u32> = labels.iter().map(|label| self.out.to(*label)).collect();
        let default = targets.pop().unwrap_or_default();
        self.out
            .op()
            .local_get(self.base)
            .br_table(targets, default);
    }

    /// Removes the frame of a point, or of any other that keeps the same.
    fn pop_alike(&mut self, point: usize) {
        if let Some(layout) = self.layout.take() {
            self.pop(&layout.kept, |value| layout.reads(0, value));
            self.layout = Some(layout);
            return;
        }
        let kept = core::mem::take(&mut self.kept[point]);
        self.pop(&kept, |value| value.body == 0);
        self.kept[point] = kept;
    }

    fn arrive_chain(&mut self, arrivals: &[u32]) {
        for (point, &label) in arrivals.iter().enumerate() {
            let next = self.out.block(wasm_encoder::BlockType::Empty);
            self.out
                .op()
                .local_get(self.base)
                .i32_const(point as i32)
                .i32_ne();
            self.out.likely_branch(next);
            self.pop_alike(point);
            self.out.leave_cold(label, next, Some(self.base));
            self.out.end();
        }
    }
}
