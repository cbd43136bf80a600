//! Which functions can be stopped inside, and which must poll at their entry.
//!
//! Nodes are the functions (imports, defined ones, and the ones the rewriter adds) and one node
//! per function type, through which all indirect calls of that type lead, so that the graph
//! stays linear in the size of the module.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use super::program::Sites;

/// A function polls at its entry when more calls than this could be made in it, one inside the other and one
/// after the other, without a poll: loops and recursion apart, a program can still call its way through a
/// number of calls that grows exponentially with its size.
const CALLS_WITHOUT_POLL_MAX: u64 = 1_000;

/// Properties of each function, by index.
pub(super) struct Suspension {
    /// The function can be unwound while it runs.
    pub(super) may_suspend: Vec<bool>,
    /// Every cycle of calls that does not lead through a loop has such a function, and so has every tree of
    /// too many calls: it polls when it is entered.
    pub(super) polls_at_entry: Vec<bool>,
    /// Indirect calls of this type index may be unwound.
    pub(super) type_may_suspend: Vec<bool>,
}

/// The calls of a module; see [`Suspension`].
pub(super) struct CallGraph {
    edges: Vec<Vec<Edge>>,
    functions: usize,
    canonical_type: Vec<usize>,
    seeds: Vec<usize>,
}

struct Edge {
    to: usize,
    /// In loops the header polls.
    sites: Sites,
}

impl CallGraph {
    /// A graph of `functions` nodes without calls. `canonical_type` maps each type index to the
    /// first index of an equal type.
    pub(super) fn new(functions: usize, canonical_type: Vec<usize>) -> CallGraph {
        let nodes = functions + canonical_type.len();
        CallGraph {
            edges: core::iter::repeat_with(Vec::new).take(nodes).collect(),
            functions,
            canonical_type,
            seeds: Vec::new(),
        }
    }

    /// `caller` calls `callee`.
    pub(super) fn call(&mut self, caller: u32, callee: u32, sites: Sites) {
        let to = callee as usize;
        self.edges[caller as usize].push(Edge { to, sites });
    }

    /// `caller` calls something of this type through a table.
    pub(super) fn call_indirect(&mut self, caller: u32, ty: u32, sites: Sites) {
        let to = self.functions + self.canonical_type[ty as usize];
        self.edges[caller as usize].push(Edge { to, sites });
    }

    /// A table may hold `function`, which has this type.
    pub(super) fn address_taken(&mut self, function: u32, ty: u32) {
        let node = self.functions + self.canonical_type[ty as usize];
        let (count, in_loops) = (1, false);
        let sites = Sites { count, in_loops };
        let to = function as usize;
        self.edges[node].push(Edge { to, sites });
    }

    /// `function` can be stopped of its own accord (an import, or a function with a loop).
    pub(super) fn suspends(&mut self, function: u32) {
        self.seeds.push(function as usize);
    }

    /// Solves the graph. `root` is the function that everything is called from.
    pub(super) fn solve(mut self, root: u32) -> Suspension {
        let mut polls = self.cycle_breakers(root as usize);
        self.break_trees(&mut polls);
        self.seeds
            .extend((0..self.functions).filter(|&node| polls[node]));
        let mut callers: Vec<Vec<usize>> = vec![Vec::new(); self.edges.len()];
        for (caller, callees) in self.edges.iter().enumerate() {
            for callee in callees {
                callers[callee.to].push(caller);
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
        let mut breakers = vec![false; self.edges.len()];
        self.search(
            root,
            |edge| !edge.sites.in_loops,
            |visit| {
                if let Visit::Back { from, to } = visit {
                    breakers[if to < self.functions { to } else { from }] = true;
                }
            },
        );
        breakers
    }

    /// Adds the functions in which too many calls could be made without a poll.
    fn break_trees(&self, polls: &mut [bool]) {
        // Calls that can be made in a node without a poll, itself included.
        let mut calls = vec![1_u64; self.edges.len()];
        self.search(
            0,
            |_| true,
            |visit| {
                let Visit::Done(node) = visit else { return };
                let of = |edge: &Edge| u64::from(edge.sites.count) * calls[edge.to];
                let edges = self.edges[node].iter();
                let sum = if node < self.functions {
                    edges.map(of).fold(1, u64::saturating_add)
                } else {
                    // One of them is called.
                    edges.map(of).max().unwrap_or(1)
                };
                polls[node] |= node < self.functions && sum > CALLS_WITHOUT_POLL_MAX;
                calls[node] = if polls[node] { 1 } else { sum };
            },
        );
    }

    /// A depth-first search over the edges that `follows` chooses, from `root` and then from every node that
    /// was not reached.
    fn search(&self, root: usize, follows: impl Fn(&Edge) -> bool, mut see: impl FnMut(Visit)) {
        #[derive(Clone, Copy, PartialEq)]
        enum State {
            New,
            Open,
            Done,
        }
        let mut state = vec![State::New; self.edges.len()];
        let mut path: Vec<(usize, usize)> = Vec::new();
        for start in core::iter::once(root).chain(0..self.edges.len()) {
            if state.get(start) != Some(&State::New) {
                continue;
            }
            state[start] = State::Open;
            path.push((start, 0));
            while let Some((node, next)) = path.last_mut() {
                let node = *node;
                let Some(edge) = self.edges[node].get(*next) else {
                    state[node] = State::Done;
                    see(Visit::Done(node));
                    path.pop();
                    continue;
                };
                *next += 1;
                if !follows(edge) {
                    continue;
                }
                let to = edge.to;
                match state[to] {
                    State::New => {
                        state[to] = State::Open;
                        path.push((to, 0));
                    }
                    State::Open => see(Visit::Back { from: node, to }),
                    State::Done => {}
                }
            }
        }
    }
}

/// What a depth-first search comes by.
enum Visit {
    /// An edge that closes a cycle.
    Back { from: usize, to: usize },
    /// All that can be reached from a node was seen.
    Done(usize),
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

    const ONCE: Sites = sites(1, false);

    const fn sites(count: u32, in_loops: bool) -> Sites {
        Sites { count, in_loops }
    }

    #[test]
    fn every_cycle_has_a_poll_and_callers_of_suspending_functions_suspend() {
        // 0 is an import; 1 -> 2 -> 3 -> 2; 4 -> type 0 -> {4, 5}; 6 alone; 7 -> 0.
        let mut graph = CallGraph::new(8, vec![0]);
        for (caller, callee) in [(1, 2), (2, 3), (3, 2), (7, 0)] {
            graph.call(caller, callee, ONCE);
        }
        graph.call_indirect(4, 0, ONCE);
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
            graph.call(caller, caller + 1, ONCE);
        }
        graph.suspends(499_999);
        assert!(graph.solve(0).may_suspend.iter().all(|suspends| *suspends));
    }

    #[test]
    fn a_tree_of_calls_polls_before_it_has_made_too_many() {
        // Each calls the next twice: 2^40 calls, of which no function makes more than two itself.
        let mut graph = CallGraph::new(40, Vec::new());
        for caller in 0..39 {
            graph.call(caller, caller + 1, sites(2, false));
        }
        let polls = graph.solve(0).polls_at_entry;
        let polling: Vec<usize> = (0..40).filter(|node| polls[*node]).collect();
        // Nine levels below a poll make 2^9 - 1 calls, and a tenth would make more than a thousand.
        assert_eq!(polling, [3, 12, 21, 30]);

        // Through a table it is as many as the largest of those it may hold makes.
        let mut graph = CallGraph::new(4, vec![0]);
        graph.call(0, 1, sites(999, false));
        graph.address_taken(0, 0);
        graph.address_taken(1, 0);
        graph.call_indirect(2, 0, ONCE);
        graph.call(3, 1, sites(999, true));
        let polls = graph.solve(3).polls_at_entry;
        assert_eq!(polls, [false, false, true, false]);
    }
}
