//! Tail calls of functions that may suspend.
//!
//! A function that made a tail call has no frame: below the frame of the function that it called
//! is that of its own caller. When that caller is resumed it calls the first function again, which
//! finds a frame that is not its own. So the frames of all functions that make or may be reached by
//! such calls hold their *identity*, and each of these functions, when it is entered to be
//! resumed, passes on to the owner of the frame: by a tail call through a table of functions
//! without parameters, one for each owner, which call it with arguments that nobody looks at.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::assemble::Layout;
use super::function::BlockTypes;
use super::graph::{Suspension, canonical_types};
use super::program::{Outline, Program};
use super::sink::{Sink, Ty, Written};

/// The functions that take part, see the module's documentation.
#[derive(Default)]
pub(super) struct TailCalls {
    /// By function.
    identities: BTreeMap<u32, u32>,
    /// The table of the functions that resume each of them.
    pub(super) table: u32,
}

impl TailCalls {
    pub(super) fn of(
        program: &Program<'_>,
        outlines: &[Outline],
        layout: &Layout,
        suspension: &Suspension,
    ) -> TailCalls {
        let canonical = canonical_types(&program.types);
        let mut members = Vec::new();
        for (body, outline) in program.bodies.iter().zip(outlines) {
            let before = members.len();
            for &callee in &outline.tail_calls {
                let callee = layout.function(callee);
                if suspension.may_suspend[callee as usize] {
                    members.push(callee);
                }
            }
            for &ty in &outline.tail_indirect {
                let same = |function: &&u32| {
                    let other = program.type_index(**function);
                    canonical[other as usize] == canonical[ty as usize]
                };
                let taken = program.address_taken.iter().filter(same);
                let callees = taken.map(|function| layout.function(*function));
                members.extend(callees.filter(|callee| suspension.may_suspend[*callee as usize]));
            }
            if members.len() > before {
                members.push(body.validation.index);
            }
        }
        members.sort_unstable();
        members.dedup();
        TailCalls {
            identities: members.into_iter().zip(0..).collect(),
            table: layout.next_table(),
        }
    }

    /// What the frames of a function hold of it.
    pub(super) fn identity(&self, function: u32) -> Option<u32> {
        self.identities.get(&function).copied()
    }

    /// The number of them.
    pub(super) fn len(&self) -> u32 {
        self.identities.len() as u32
    }

    /// Types and code of the functions that resume a frame's owner, in the order of identities.
    pub(super) fn resuming(
        &self,
        program: &Program<'_>,
        layout: &Layout,
        types: &mut BlockTypes,
    ) -> Vec<(u32, Written)> {
        let resuming = self.identities.keys().map(|&owner| {
            let original = &program.types[layout.type_index(program, owner) as usize];
            let list = |list: &[wasmparser::ValType]| -> Vec<Ty> {
                list.iter().copied().map(Ty::of).collect()
            };
            let ty = types.function(&[], &list(original.results()));
            let mut out = Sink::default();
            for ty in list(original.params()) {
                out.any_value(ty);
            }
            out.op().return_call(owner).end();
            let mut bytes = alloc::vec![0];
            bytes.extend_from_slice(&out.code);
            let hints = Vec::new();
            (ty, Written { bytes, hints })
        });
        resuming.collect()
    }
}
