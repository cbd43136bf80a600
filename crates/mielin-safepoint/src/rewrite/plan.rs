//! The shape of one function: where it can be stopped, and which labels a resume needs.
//!
//! A resume must jump into the middle of a function, and WebAssembly only has labels at the
//! ends of blocks. But where a block *begins* means nothing, only its end does. So each *body*
//! (the function's, and each loop's) opens at its very start all the blocks that it will need:
//! one that ends just before each suspension point, and those of the program's own blocks that
//! contain a point. A dispatch at the start of the body can then branch to every point in it,
//! and only loops, whose start has a meaning, dispatch again.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use wasmparser::{BlockType, Operator};

/// Index of a [`Label`] in [`Plan::labels`].
pub(super) type LabelIndex = usize;

/// A block that a body opens at its start.
pub(super) struct Label {
    /// Results of the program's own block; `None` for a label of the rewriter.
    pub(super) results: Option<BlockType>,
    used: bool,
}

/// What a dispatch does to reach something in its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChildKind {
    /// A call of a function that will itself rewind.
    Call,
    /// A host call, at which the rewind ends.
    Host,
    /// A loop, whose header ends the rewind or dispatches on.
    Loop,
}

/// A point or a loop that lies directly in a body.
pub(super) struct Child {
    pub(super) kind: ChildKind,
    pub(super) label: LabelIndex,
    /// Numbers of the suspension points in it.
    pub(super) first: u32,
    pub(super) last: u32,
}

/// The function's body or a loop's.
#[derive(Default)]
pub(super) struct BodyPlan {
    /// In the order in which they end.
    pub(super) labels: Vec<LabelIndex>,
    pub(super) children: Vec<Child>,
    /// The loop's own suspension point, or the function's entry if it polls.
    pub(super) header: Option<u32>,
    /// The label just before the loop.
    pub(super) before: Option<LabelIndex>,
}

/// A live `block` or `if` of the program.
#[derive(Clone, Copy, Default)]
pub(super) struct Construct {
    /// Opened at the start of its body, because it contains a point: its label.
    pub(super) label: Option<LabelIndex>,
    /// For such an `if`: the label before its else branch.
    pub(super) otherwise: Option<LabelIndex>,
}

/// The control flow of the live code, in compact form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Get(u32),
    Set(u32),
    Block,
    /// Suspension point of its header.
    Loop(u32),
    If,
    Else,
    End,
    /// End of the loop with this point.
    EndLoop(u32),
    Branch(u32),
    BranchIf(u32),
    /// Index in [`Plan::tables`].
    BranchTable(u32),
    Leave,
    /// A call that may suspend.
    Point(u32),
}

/// How a call can suspend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallKind {
    Never,
    Call,
    Host,
}

/// See the module's documentation.
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) tables: Vec<Vec<u32>>,
    pub(super) labels: Vec<Label>,
    /// The function's, then each live loop's in the order of their starts.
    pub(super) bodies: Vec<BodyPlan>,
    /// Live blocks and ifs in the order of their starts.
    pub(super) constructs: Vec<Construct>,
    /// Labels of the call points in the order of the calls.
    pub(super) calls: Vec<(u32, LabelIndex)>,
    /// Number of suspension points.
    pub(super) points: u32,
    /// Calls of functions that have frames of their own.
    has_callee: BTreeSet<u32>,
    /// The entry if it polls, and host calls outside of loops: there a rewind ends when the frame has been read.
    ends_rewind: BTreeSet<u32>,
}

impl Plan {
    /// Number of the entries of all dispatch tables; grows with the square of the nesting.
    pub(super) fn dispatch_entries(&self) -> u64 {
        let children = self.bodies.iter().flat_map(|body| &body.children);
        children
            .map(|child| u64::from(child.last - child.first) + 1)
            .sum()
    }

    /// Whether a loop has no call that may suspend in it.
    pub(super) fn has_small_loop(&self) -> bool {
        let mut loops = self.bodies.iter().skip(1);
        loops.any(|body| body.children.is_empty())
    }

    /// The number of a point in a frame. That of an innermost frame is negative; its complement has the point's number
    /// above one bit, which says whether the rewind has ended when the frame is removed.
    pub(super) fn number(&self, point: u32) -> i32 {
        let number = point as i32;
        if self.has_callee.contains(&point) {
            return number;
        }
        !(number << 1 | i32::from(self.ends_rewind.contains(&point)))
    }
}

enum FrameKind {
    Block {
        construct: usize,
    },
    If {
        construct: usize,
        otherwise: Option<LabelIndex>,
        results: BlockType,
        any_results: bool,
    },
    Loop {
        point: u32,
        outer: usize,
    },
    Function,
}

struct Frame {
    kind: FrameKind,
    ty: BlockType,
    contains_point: bool,
}

/// Builds a [`Plan`] from a function's operators.
pub(super) struct Planner {
    plan: Plan,
    frames: Vec<Frame>,
    /// Innermost open body.
    body: usize,
    reach: Reach,
}

/// Whether the code at the current place can be reached, by position alone: what follows an
/// unconditional branch in the same block cannot.
#[derive(Default)]
pub(super) struct Reach {
    dead: bool,
    /// Blocks that were opened in dead code.
    dead_depth: usize,
}

impl Reach {
    /// Whether the current place is in dead code.
    pub(super) fn is_dead(&self) -> bool {
        self.dead
    }

    /// Takes note of the next operator; false if it is in dead code and must be skipped.
    /// `else` and `end` of a live block are never skipped.
    pub(super) fn visit(&mut self, operator: &Operator<'_>) -> bool {
        if !self.dead {
            self.dead = matches!(
                operator,
                Operator::Br { .. }
                    | Operator::BrTable { .. }
                    | Operator::Return
                    | Operator::ReturnCall { .. }
                    | Operator::ReturnCallIndirect { .. }
                    | Operator::Unreachable
            );
            return true;
        }
        match operator {
            Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => {
                self.dead_depth += 1
            }
            Operator::End if self.dead_depth > 0 => self.dead_depth -= 1,
            Operator::End | Operator::Else if self.dead_depth == 0 => {
                self.dead = false;
                return true;
            }
            _ => {}
        }
        false
    }
}

impl Planner {
    /// For a function whose entry polls, or not.
    pub(super) fn new(polls_at_entry: bool) -> Planner {
        let header = polls_at_entry.then_some(0);
        let plan = Plan {
            steps: Vec::new(),
            tables: Vec::new(),
            labels: Vec::new(),
            bodies: alloc::vec![BodyPlan {
                header,
                ..BodyPlan::default()
            }],
            constructs: Vec::new(),
            calls: Vec::new(),
            points: u32::from(polls_at_entry),
            has_callee: BTreeSet::new(),
            ends_rewind: polls_at_entry.then_some(0).into_iter().collect(),
        };
        let function = Frame {
            kind: FrameKind::Function,
            ty: BlockType::Empty,
            contains_point: false,
        };
        Planner {
            plan,
            frames: alloc::vec![function],
            body: 0,
            reach: Reach::default(),
        }
    }

    /// Takes the next operator. `call` says how it suspends if it is a call, `any_results`
    /// whether it is a block with results.
    pub(super) fn operator(&mut self, operator: &Operator<'_>, call: CallKind, any_results: bool) {
        if !self.reach.visit(operator) {
            return;
        }
        let step = match *operator {
            Operator::LocalGet { local_index } => Step::Get(local_index),
            Operator::LocalSet { local_index } | Operator::LocalTee { local_index } => {
                Step::Set(local_index)
            }
            Operator::Block { blockty } => {
                let construct = self.construct();
                self.push(FrameKind::Block { construct }, blockty);
                Step::Block
            }
            Operator::If { blockty } => {
                let construct = self.construct();
                let kind = FrameKind::If {
                    construct,
                    otherwise: None,
                    results: blockty,
                    any_results,
                };
                self.push(kind, blockty);
                Step::If
            }
            Operator::Loop { blockty } => self.open_loop(blockty),
            Operator::Else => {
                let label = self.label(None);
                self.plan.labels[label].used = false;
                if let Some(Frame {
                    kind: FrameKind::If { otherwise, .. },
                    ..
                }) = self.frames.last_mut()
                {
                    *otherwise = Some(label);
                }
                Step::Else
            }
            Operator::End => self.end(),
            Operator::Br { relative_depth } => Step::Branch(relative_depth),
            Operator::BrIf { relative_depth } => Step::BranchIf(relative_depth),
            Operator::BrTable { ref targets } => {
                let mut all: Vec<u32> = targets.targets().map_while(Result::ok).collect();
                all.push(targets.default());
                self.plan.tables.push(all);
                Step::BranchTable(self.plan.tables.len() as u32 - 1)
            }
            Operator::Return
            | Operator::ReturnCall { .. }
            | Operator::ReturnCallIndirect { .. }
            | Operator::Unreachable => Step::Leave,
            _ => match call {
                CallKind::Never => return,
                CallKind::Call => self.point(ChildKind::Call),
                CallKind::Host => self.point(ChildKind::Host),
            },
        };
        self.plan.steps.push(step);
    }

    fn construct(&mut self) -> usize {
        self.plan.constructs.push(Construct::default());
        self.plan.constructs.len() - 1
    }

    fn push(&mut self, kind: FrameKind, ty: BlockType) {
        self.frames.push(Frame {
            kind,
            ty,
            contains_point: false,
        });
    }

    /// A label of the current body that ends here.
    fn label(&mut self, results: Option<BlockType>) -> LabelIndex {
        let index = self.plan.labels.len();
        self.plan.labels.push(Label {
            results,
            used: true,
        });
        self.plan.bodies[self.body].labels.push(index);
        index
    }

    fn number(&mut self) -> u32 {
        self.plan.points += 1;
        self.plan.points - 1
    }

    fn point(&mut self, kind: ChildKind) -> Step {
        let label = self.label(None);
        let point = self.number();
        let child = Child {
            kind,
            label,
            first: point,
            last: point,
        };
        self.plan.bodies[self.body].children.push(child);
        self.plan.calls.push((point, label));
        if kind == ChildKind::Call {
            self.plan.has_callee.insert(point);
        } else if self.body == 0 {
            self.plan.ends_rewind.insert(point);
        }
        if let Some(frame) = self.frames.last_mut() {
            frame.contains_point = true;
        }
        Step::Point(point)
    }

    fn open_loop(&mut self, ty: BlockType) -> Step {
        let label = self.label(None);
        let point = self.number();
        let child = Child {
            kind: ChildKind::Loop,
            label,
            first: point,
            last: point,
        };
        self.plan.bodies[self.body].children.push(child);
        let body = self.plan.bodies.len();
        let header = Some(point);
        self.plan.bodies.push(BodyPlan {
            header,
            before: Some(label),
            ..BodyPlan::default()
        });
        let outer = core::mem::replace(&mut self.body, body);
        self.push(FrameKind::Loop { point, outer }, ty);
        Step::Loop(point)
    }

    fn end(&mut self) -> Step {
        let Some(frame) = self.frames.pop() else {
            return Step::End;
        };
        let step = match frame.kind {
            FrameKind::Function => Step::End,
            FrameKind::Loop { point, outer } => {
                self.body = outer;
                let last = self.plan.points - 1;
                if let Some(child) = self.plan.bodies[outer].children.last_mut() {
                    child.last = last;
                }
                Step::EndLoop(point)
            }
            FrameKind::Block { construct } => {
                if frame.contains_point {
                    self.plan.constructs[construct].label = Some(self.label(Some(frame.ty)));
                }
                Step::End
            }
            FrameKind::If {
                construct,
                mut otherwise,
                results,
                any_results,
            } => {
                if frame.contains_point {
                    if otherwise.is_none() && any_results {
                        otherwise = Some(self.label(None));
                    }
                    if let Some(label) = otherwise {
                        self.plan.labels[label].used = true;
                    }
                    let label = self.label(Some(results));
                    self.plan.constructs[construct] = Construct {
                        label: Some(label),
                        otherwise,
                    };
                }
                Step::End
            }
        };
        let is_loop = matches!(step, Step::EndLoop(_));
        if let Some(parent) = self.frames.last_mut() {
            parent.contains_point |= frame.contains_point || is_loop;
        }
        step
    }

    /// The finished plan.
    pub(super) fn finish(mut self) -> Plan {
        let labels = &self.plan.labels;
        for body in &mut self.plan.bodies {
            body.labels.retain(|&label| labels[label].used);
        }
        self.plan
    }
}
