//! Which functions can be stopped inside, and which must poll at their entry.
//!
//! Nodes are the functions (imports, defined ones, and the ones the rewriter adds) and one node
//! per function type, through which all indirect calls of that type lead, so that the graph
//! stays linear in the size of the module.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

/// Properties of each function, by index.
pub(super) struct Suspension {
    /// The function can be unwound while it runs.
    pub(super) may_suspend: Vec<bool>,
    /// Every cycle of calls that does not lead through a loop has such a function: it polls
    /// when it is entered.
    pub(super) polls_at_entry: Vec<bool>,
    /// Indirect calls of this type index may be unwound.
    pub(super) type_may_suspend: Vec<bool>,
}

/// The calls of a module; see [`Suspension`].
pub(super) struct CallGraph {
    edges: Vec<Vec<usize>>,
    /// Those of the edges that do not lead through a loop, whose header polls.
    without_poll: Vec<Vec<usize>>,
    functions: usize,
    canonical_type: Vec<usize>,
    seeds: Vec<usize>,
}

impl CallGraph {
    /// A graph of `functions` nodes without calls. `canonical_type` maps each type index to the
    /// first index of an equal type.
    pub(super) fn new(functions: usize, canonical_type: Vec<usize>) -> CallGraph {
        let edges = vec![Vec::new(); functions + canonical_type.len()];
        CallGraph {
            without_poll: edges.clone(),
            edges,
            functions,
            canonical_type,
            seeds: Vec::new(),
        }
    }

    /// `caller` calls `callee`, perhaps only in loops.
    pub(super) fn call(&mut self, caller: u32, callee: u32, in_loop: bool) {
        self.edge(caller as usize, callee as usize, in_loop);
    }

    fn edge(&mut self, from: usize, to: usize, in_loop: bool) {
        self.edges[from].push(to);
        if !in_loop {
            self.without_poll[from].push(to);
        }
    }

    /// `caller` calls something of this type through a table, perhaps only in loops.
    pub(super) fn call_indirect(&mut self, caller: u32, ty: u32, in_loop: bool) {
        let node = self.functions + self.canonical_type[ty as usize];
        self.edge(caller as usize, node, in_loop);
    }

    /// A table may hold `function`, which has this type.
    pub(super) fn address_taken(&mut self, function: u32, ty: u32) {
        let node = self.functions + self.canonical_type[ty as usize];
        self.edge(node, function as usize, false);
    }

    /// `function` can be stopped of its own accord (an import, or a function with a loop).
    pub(super) fn suspends(&mut self, function: u32) {
        self.seeds.push(function as usize);
    }

    /// Solves the graph. `root` is the function that everything is called from.
    pub(super) fn solve(mut self, root: u32) -> Suspension {
        let mut polls = self.cycle_breakers(root as usize);
        self.seeds
            .extend((0..self.functions).filter(|&node| polls[node]));
        let mut callers: Vec<Vec<usize>> = vec![Vec::new(); self.edges.len()];
        for (caller, callees) in self.edges.iter().enumerate() {
            for &callee in callees {
                callers[callee].push(caller);
            }
        }
        let mut suspends = vec![false; self.edges.len()];
        let mut work = core::mem::take(&mut self.seeds);
        while let Some(node) = work.pop() {
            if !core::mem::replace(&mut suspends[node], true) {
                work.extend_from_slice(&callers[node]);
            }
        }
        let type_may_suspend = self
            .canonical_type
            .iter()
            .map(|&ty| suspends[self.functions + ty])
            .collect();
        suspends.truncate(self.functions);
        polls.truncate(self.functions);
        Suspension {
            may_suspend: suspends,
            polls_at_entry: polls,
            type_may_suspend,
        }
    }

    /// Targets of the back edges of a depth-first search: without them there is no cycle. Where
    /// the target is a type, the caller is taken instead.
    fn cycle_breakers(&self, root: usize) -> Vec<bool> {
        #[derive(Clone, Copy, PartialEq)]
        enum State {
            New,
            Open,
            Done,
        }
        let mut state = vec![State::New; self.edges.len()];
        let mut breakers = vec![false; self.edges.len()];
        let mut path: Vec<(usize, usize)> = Vec::new();
        for start in core::iter::once(root).chain(0..self.edges.len()) {
            if state[start] != State::New {
                continue;
            }
            state[start] = State::Open;
            path.push((start, 0));
            while let Some((node, next)) = path.last_mut() {
                let node = *node;
                let Some(&target) = self.without_poll[node].get(*next) else {
                    state[node] = State::Done;
                    path.pop();
                    continue;
                };
                *next += 1;
                match state[target] {
                    State::New => {
                        state[target] = State::Open;
                        path.push((target, 0));
                    }
                    State::Open if target < self.functions => breakers[target] = true,
                    State::Open => breakers[node] = true,
                    State::Done => {}
                }
            }
        }
        breakers
    }
}

/// For each type, the index of the first equal one.
pub(super) fn canonical_types(types: &[wasmparser::FuncType]) -> Vec<usize> {
    let mut first = BTreeMap::new();
    types
        .iter()
        .enumerate()
        .map(|(index, ty)| {
            let key: Vec<_> = ty
                .params()
                .iter()
                .map(Some)
                .chain([None])
                .chain(ty.results().iter().map(Some))
                .collect();
            *first.entry(key).or_insert(index)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cycle_has_a_poll_and_callers_of_suspending_functions_suspend() {
        // 0 is an import; 1 -> 2 -> 3 -> 2; 4 -> type 0 -> {4, 5}; 6 alone; 7 -> 0.
        let mut graph = CallGraph::new(8, vec![0]);
        for (caller, callee) in [(1, 2), (2, 3), (3, 2), (7, 0)] {
            graph.call(caller, callee, false);
        }
        graph.call_indirect(4, 0, false);
        graph.address_taken(4, 0);
        graph.address_taken(5, 0);
        graph.suspends(0);
        let solved = graph.solve(1);
        assert_eq!(
            solved.may_suspend,
            [true, true, true, true, true, false, false, true]
        );
        assert_eq!(
            solved.polls_at_entry,
            [false, false, true, false, true, false, false, false]
        );
        assert_eq!(solved.type_may_suspend, [true]);
    }

    #[test]
    fn a_long_chain_of_calls_does_not_use_the_stack() {
        let mut graph = CallGraph::new(500_000, Vec::new());
        for caller in 0..499_999 {
            graph.call(caller, caller + 1, false);
        }
        graph.suspends(499_999);
        assert!(graph.solve(0).may_suspend.iter().all(|suspends| *suspends));
    }
}
