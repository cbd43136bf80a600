//! Polls, the ways out of a function, and the dispatches that lead back to a point.

use super::*;

impl Writer<'_> {
    /// The header of a loop. Going on after a rewind stores to the flag and falls into the
    /// loop; that store also keeps compilers from moving the poll out of it.
    pub(super) fn poll(&mut self, body: usize) {
        let plan = self.plan;
        let Some(point) = plan.bodies[body].header else {
            return;
        };
        let mut kept = Vec::new();
        for height in 0..self.stack.len() {
            let ty = self.stack[height];
            kept.push((self.locals.shadow(height, ty), ty));
        }
        self.keep(point, kept);
        self.out.load_word(abi::FLAG_ADDRESS);
        let running = self.out.unlikely_if();
        self.stop(point);
        self.dispatch(body, point);
        self.out.finish_flag();
        let target = self.out.to(running);
        self.out.op().br(target).end();
        self.out.depth -= 1;
        self.out.end();
    }

    /// If a stop was requested: writes the frame and leaves. Opens the other branch, which has
    /// to end with a branch and an `end`.
    pub(super) fn stop(&mut self, point: u32) {
        self.out.load_word(abi::FLAG_ADDRESS);
        self.out.op().i32_const(abi::STOP_REQUESTED).i32_eq();
        self.out.hinted_if(true);
        self.out
            .spill(point, &self.kept[point as usize], self.scratch);
        self.out.set_state(abi::UNWINDING, self.context.mode);
        self.out.return_nothing(&self.results);
        self.out.op().else_();
    }

    /// Goes on to the child of a loop's body in which the program was stopped. Falls through
    /// where that was the header.
    pub(super) fn dispatch(&mut self, body: usize, header: u32) {
        let plan = self.plan;
        let children = &plan.bodies[body].children;
        if children.is_empty() {
            return;
        }
        let here = self.out.block(wasm_encoder::BlockType::Empty);
        let mut hosts = Vec::new();
        for child in children
            .iter()
            .filter(|child| child.kind == ChildKind::Host)
        {
            hosts.push((child.label, self.out.block(wasm_encoder::BlockType::Empty)));
        }
        let mut targets = Vec::new();
        let mut host = hosts.iter();
        for child in children {
            let position = match child.kind {
                ChildKind::Host => host.next().map_or(here, |(_, position)| *position),
                ChildKind::Call | ChildKind::Loop => self.positions[child.label],
            };
            for _ in child.first..=child.last {
                targets.push(self.out.to(position));
            }
        }
        let default = self.out.to(here);
        self.out
            .op()
            .local_get(self.scratch.resume)
            .i32_const(header as i32 + 1)
            .i32_sub();
        self.out.op().br_table(targets, default);
        for &(label, _) in hosts.iter().rev() {
            self.out.end();
            self.out.finish_flag();
            let target = self.out.to(self.positions[label]);
            self.out.op().br(target);
        }
        self.out.end();
    }

    /// The start of a function: reads the frame of the point at which it was stopped, whole,
    /// before anything else, so that what is constant in a loop stays so for the compiler.
    pub(super) fn entry(&mut self, polls: bool) -> Result<(), InstrumentError> {
        let plan = self.plan;
        if polls {
            self.keep(0, Vec::new());
            self.check_kept()?;
            self.out.load_word(abi::FLAG_ADDRESS);
        } else {
            self.out.op().global_get(self.context.mode);
        }
        let running = self.out.unlikely_if();
        if polls {
            self.stop(0);
        }
        let unknown = self.out.block(wasm_encoder::BlockType::Empty);
        let mut arrivals: Vec<u32> = (0..plan.points)
            .map(|_| self.out.block(wasm_encoder::BlockType::Empty))
            .collect();
        arrivals.reverse();
        let targets: Vec<u32> = arrivals
            .iter()
            .map(|position| self.out.to(*position))
            .collect();
        let default = self.out.to(unknown);
        self.out.load_point();
        self.out
            .op()
            .local_tee(self.scratch.resume)
            .br_table(targets, default);
        if polls {
            self.arrive(0);
            self.out.finish_mode(self.context.mode);
            self.out.finish_flag();
            let target = self.out.to(running);
            self.out.op().br(target);
        }
        for child in &plan.bodies[0].children {
            for point in child.first..=child.last {
                self.arrive(point);
                if plan.is_innermost(point) {
                    self.out.finish_mode(self.context.mode);
                }
                if child.kind == ChildKind::Host {
                    self.out.finish_flag();
                }
                let target = self.out.to(self.positions[child.label]);
                self.out.op().br(target);
            }
        }
        self.out.end();
        self.out.op().unreachable();
        if polls {
            self.out.end();
        }
        self.out.end();
        Ok(())
    }

    pub(super) fn arrive(&mut self, point: u32) {
        self.out.end();
        self.out.restore(&self.kept[point as usize], self.scratch);
    }
}
