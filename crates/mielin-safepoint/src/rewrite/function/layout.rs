//! One layout for all frames of a function with many points.
//!
//! If each point had a frame of its own, each would read it back with code of its own. In an interpreter,
//! one loop with hundreds of calls, that makes ten thousands of values which meet at a few labels, and
//! Cranelift finds a place on the native stack for most of them: 60 KiB for one call of `JS_CallInternal` in
//! QuickJS. Where a value has the same place in all frames, one piece of code reads it, whatever the
//! point. What does not live at a point is zero in its frame.

use alloc::collections::BTreeSet;

use super::*;

/// Functions with fewer points keep frames of their own: there Cranelift does well, and with a common layout
/// `json` and `mixed` (docs/ARCHITECTURE.md) took 3 % longer under wasmtime, though 10 % less under wasmi.
const POINTS_MIN: usize = 64;
/// With a common layout the ways out may write so many times as many values as with frames of their own. In
/// `JS_CallInternal` it is twice as many; Cranelift took 8.7 s for QuickJS with 2 here, and 6.2 s with 3.
const GROWTH_MAX: usize = 3;

/// The frame of every point of a function, see the module's documentation.
pub(super) struct Layout {
    /// What any point keeps. The bodies in it mean nothing.
    pub(super) kept: Kept,
    /// Bodies, and the locals that their dispatches read.
    reads: BTreeSet<(usize, u32)>,
}

impl Layout {
    /// None where there are few points, or where they have little in common.
    pub(super) fn of(points: &[Kept]) -> Option<Layout> {
        if points.len() < POINTS_MIN {
            return None;
        }
        let mut values = BTreeMap::new();
        let mut reads = BTreeSet::new();
        let mut sum = 0;
        for value in points.iter().flat_map(|kept| &kept.values) {
            let (_, lives) = values.entry((value.ty, value.local)).or_insert((*value, 0));
            *lives += 1;
            reads.insert((value.body, value.local));
            sum += 1;
        }
        if values.len() * points.len() > sum * GROWTH_MAX {
            return None;
        }
        // Those that seldom live are together, so that parts of many frames are zero.
        let mut values: Vec<(Value, usize)> = values.into_values().collect();
        values.sort_by_key(|(value, lives)| (value.ty, *lives));
        Some(Layout {
            kept: Kept {
                values: values.into_iter().map(|(value, _)| value).collect(),
                identity: points[0].identity,
            },
            reads,
        })
    }

    /// Whether the dispatch of this body reads a value.
    pub(super) fn reads(&self, body: usize, value: &Value) -> bool {
        self.reads.contains(&(body, value.local))
    }

    /// Whether any point keeps what is in this local.
    pub(super) fn keeps(&self, local: u32) -> bool {
        self.kept.values.iter().any(|value| value.local == local)
    }
}
