//! Webs of values: which of them may hold any NaN.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use super::Lanes;

/// A set of assignments, by its number. Two can turn out to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Web(u32);

impl Web {
    fn index(self) -> usize {
        self.0 as usize
    }
}

/// What is known of the bits of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// They are as the program must see them: canonical, if it was computed.
    Fixed,
    /// The same; all bits of each such lane are equal.
    Mask(Lanes),
    /// The same; it is no NaN, read as lanes of these sizes.
    Number { f32: bool, f64: bool },
    /// It was read from a frame, where it was written as [`Value::Fixed`]; in a web it may stand beside those that may be any NaN.
    Restored,
    /// The number of the point that a rewind goes to, less a constant.
    Point,
    /// Whether the rewind goes to a point; `false`: whether it does not.
    AtPoint(bool),
    /// It may be any NaN. It stands on the stack where this instruction has ended.
    Open(Lanes, usize),
    /// One of a web, on the stack where this instruction has ended.
    Of(Web, usize),
}

/// How a value that is assigned to a web becomes one of its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Same,
    /// As lanes of a vector, if it is not one.
    Wide,
    /// A lane of such a vector.
    LaneOf(Lanes),
    /// As it is, by an instruction that takes it for lanes of this size, or of these sizes.
    Lanes {
        f32: bool,
        f64: bool,
    },
}

/// As lanes of this size, by an instruction that knows no other.
pub(super) fn as_lanes(lanes: Lanes) -> Shape {
    let f32 = lanes.narrow() == Lanes::F32;
    Shape::Lanes { f32, f64: !f32 }
}

impl Shape {
    /// What values with these lanes become. `None`: such are bits to it.
    fn of(self, lanes: Lanes) -> Option<Lanes> {
        match self {
            Shape::Same => Some(lanes),
            Shape::Wide => Some(lanes.wide()),
            Shape::LaneOf(vector) => (vector == lanes).then(|| lanes.narrow()),
            Shape::Lanes { f32, f64 } => match lanes.narrow() {
                Lanes::F32 => f32.then_some(lanes),
                _ => f64.then_some(lanes),
            },
        }
    }

    /// As lanes of which sizes it is no NaN, if it is none as such.
    fn number(self, f32: bool, f64: bool) -> (bool, bool) {
        match self {
            Shape::Same => (f32, f64),
            // Whatever is made of lanes of one size may be a NaN as lanes of the other.
            Shape::Wide => (f32 && !f64, f64 && !f32),
            Shape::LaneOf(lanes) => {
                let is32 = lanes.narrow() == Lanes::F32;
                (f32 && is32, f64 && !is32)
            }
            Shape::Lanes {
                f32: as32,
                f64: as64,
            } => (f32 && as32, f64 && as64),
        }
    }
}

/// All that a function does with its webs.
#[derive(Default)]
pub(super) struct Webs {
    /// For each web, the place where ways come together that it stands for, if it is a phi.
    phis: Vec<Option<u32>>,
    used: Vec<bool>,
    /// A phi, and one of the webs that reach it.
    reaches: Vec<(Web, Web)>,
    assignments: Vec<(Value, Web, Shape)>,
    /// Values that somebody looks at, as such lanes or as bits.
    looks: Vec<(Value, Option<Lanes>)>,
}

impl Webs {
    pub(super) fn add(&mut self) -> Web {
        self.add_of(None)
    }

    fn add_of(&mut self, phi: Option<u32>) -> Web {
        let web = Web(self.phis.len() as u32);
        self.phis.push(phi);
        self.used.push(false);
        web
    }

    /// A web to which this is assigned.
    pub(super) fn assigned(&mut self, value: Value) -> Web {
        let web = self.add();
        self.assign(value, web, Shape::Same);
        web
    }

    pub(super) fn assign(&mut self, value: Value, web: Web, shape: Shape) {
        self.assignments.push((value, web, shape));
    }

    /// The web where ways come together, numbered by whoever asks, of which one brings this one.
    pub(super) fn phi(&mut self, web: Web, place: u32) -> Web {
        let phi = self.add_of(Some(place));
        self.reaches.push((phi, web));
        phi
    }

    pub(super) fn reach(&mut self, phi: Web, web: Web) {
        if phi != web {
            self.reaches.push((phi, web));
        }
    }

    /// The web of either, where ways come together.
    pub(super) fn merged(&mut self, there: Web, here: Web, place: u32) -> Web {
        if there == here {
            return there;
        }
        let phi = match self.phis[there.index()] {
            Some(of) if of == place => there,
            _ => self.phi(there, place),
        };
        self.reach(phi, here);
        phi
    }

    /// A value of the web, read by the instruction that ends here.
    pub(super) fn read(&mut self, web: Web, end: usize) -> Value {
        self.used[web.index()] = true;
        Value::Of(web, end)
    }

    /// Something looks at the value, and does the same with any NaN in such lanes, or looks at the bits.
    pub(super) fn look(&mut self, value: Value, lanes: Option<Lanes>) {
        if matches!(value, Value::Open(..) | Value::Of(..)) {
            self.looks.push((value, lanes));
        }
    }

    /// How many values are noted that somebody looks at.
    #[cfg(test)]
    pub(super) fn looks(&self) -> usize {
        self.looks.len()
    }

    /// Where values have to be made canonical.
    pub(super) fn made_canonical(mut self) -> BTreeMap<usize, Lanes> {
        let computes = |(value, ..): &(Value, Web, Shape)| matches!(value, Value::Open(..));
        let looked = |(value, _): &(Value, _)| matches!(value, Value::Open(..));
        if !self.assignments.iter().any(computes) && !self.looks.iter().any(looked) {
            return BTreeMap::new();
        }
        let webs = self.joined();
        let classes = Classes::of(&self.assignments, &webs);
        let open = |value: Value| match value {
            Value::Open(lanes, end) => Some((lanes, end)),
            Value::Of(web, end) => Some((classes.open(webs[web.index()])?, end)),
            _ => None,
        };
        let mut canonical = BTreeMap::new();
        for (value, lanes) in self.looks {
            if let Some((open, end)) = open(value)
                && Some(open) != lanes
            {
                canonical.insert(end, open);
            }
        }
        for (value, web, _) in self.assignments {
            // Nobody reads it otherwise.
            let read = self.used[webs[web.index()]];
            if read
                && classes.open(webs[web.index()]).is_none()
                && let Some((open, end)) = open(value)
            {
                canonical.insert(end, open);
            }
        }
        canonical
    }

    /// For each web the one that it is part of: phis that are used are one with all that reach them.
    fn joined(&mut self) -> Vec<usize> {
        self.reaches.sort_unstable();
        let mut parents: Vec<usize> = (0..self.phis.len()).collect();
        let mut left: Vec<usize> = (0..self.phis.len()).filter(|web| self.used[*web]).collect();
        while let Some(phi) = left.pop() {
            let first = self.reaches.partition_point(|(of, _)| of.index() < phi);
            let mine = self.reaches[first..]
                .iter()
                .take_while(|(of, _)| of.index() == phi);
            for (_, web) in mine {
                let (a, b) = (root(&mut parents, phi), root(&mut parents, web.index()));
                parents[a.max(b)] = a.min(b);
                if !self.used[web.index()] {
                    self.used[web.index()] = true;
                    left.push(web.index());
                }
            }
        }
        let roots: Vec<usize> = (0..parents.len())
            .map(|web| root(&mut parents, web))
            .collect();
        for (web, root) in roots.iter().enumerate() {
            self.used[*root] |= self.used[web];
        }
        roots
    }
}

/// The root of a web, to which it is then nearer.
fn root(parents: &mut [usize], web: usize) -> usize {
    let mut root = web;
    while parents[root] != root {
        parents[root] = parents[parents[root]];
        root = parents[root];
    }
    root
}

/// What is known of a web. It only ever gets more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Nothing but numbers and what was restored is assigned to it, as far as is known.
    Unknown,
    Open(Lanes),
    Fixed,
}

struct Classes {
    classes: Vec<Class>,
    /// Whether all numbers that are assigned to a web are such: as lanes of 32 bits, and of 64.
    numbers: Vec<(bool, bool)>,
}

impl Classes {
    fn of(assignments: &[(Value, Web, Shape)], webs: &[usize]) -> Classes {
        let mut this = Classes {
            classes: vec![Class::Unknown; webs.len()],
            numbers: vec![(true, true); webs.len()],
        };
        // From which web to which, and how.
        let mut edges = Vec::new();
        for (value, web, shape) in assignments {
            let web = webs[web.index()];
            match (*value, shape) {
                (Value::Number { f32, f64 }, shape) => {
                    let (all32, all64) = this.numbers[web];
                    let (f32, f64) = shape.number(f32, f64);
                    this.numbers[web] = (all32 && f32, all64 && f64);
                }
                (Value::Of(from, _), shape) => edges.push((webs[from.index()], web, *shape)),
                _ => {}
            }
        }
        edges.sort_unstable_by_key(|(from, ..)| *from);
        let mut changed = Vec::new();
        for (value, web, shape) in assignments {
            let class = match value {
                Value::Open(lanes, _) => shape.of(*lanes).map_or(Class::Fixed, Class::Open),
                Value::Fixed | Value::Mask(_) | Value::Point | Value::AtPoint(_) => Class::Fixed,
                Value::Restored if *shape != Shape::Same => Class::Fixed,
                Value::Restored | Value::Number { .. } | Value::Of(..) => continue,
            };
            this.add(webs[web.index()], class, &mut changed);
        }
        this.spread(&edges, changed);
        // What is a number or was restored may be no number where it is assigned.
        let mut changed = Vec::new();
        for (from, ..) in &edges {
            if this.classes[*from] == Class::Unknown {
                this.add(*from, Class::Fixed, &mut changed);
            }
        }
        this.spread(&edges, changed);
        this
    }

    fn spread(&mut self, edges: &[(usize, usize, Shape)], mut changed: Vec<usize>) {
        while let Some(from) = changed.pop() {
            let class = self.classes[from];
            let first = edges.partition_point(|(of, ..)| *of < from);
            for (_, web, shape) in edges[first..].iter().take_while(|(of, ..)| *of == from) {
                let class = match class {
                    Class::Open(lanes) => shape.of(lanes).map_or(Class::Fixed, Class::Open),
                    class => class,
                };
                self.add(*web, class, &mut changed);
            }
        }
    }

    fn add(&mut self, web: usize, class: Class, changed: &mut Vec<usize>) {
        let (f32, f64) = self.numbers[web];
        let is_number = |lanes: Lanes| match lanes.narrow() {
            Lanes::F32 => f32,
            _ => f64,
        };
        let next = match (self.classes[web], class) {
            (known, Class::Unknown) => known,
            (Class::Unknown, Class::Open(lanes)) if is_number(lanes) => class,
            (Class::Open(known), Class::Open(lanes)) if known == lanes => class,
            _ => Class::Fixed,
        };
        if next != self.classes[web] {
            self.classes[web] = next;
            changed.push(web);
        }
    }

    /// The lanes of a web that may hold any NaN.
    fn open(&self, web: usize) -> Option<Lanes> {
        match self.classes[web] {
            Class::Open(lanes) => Some(lanes),
            Class::Unknown | Class::Fixed => None,
        }
    }
}
