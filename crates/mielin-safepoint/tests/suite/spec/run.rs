//! Modules of a test script on one engine: plain, rewritten, or stopped and moved all the time.

use std::collections::BTreeMap;
use std::rc::Rc;

use mielin_safepoint::{GlobalValue, abi};
use wasm_encoder::ValType;

use super::driver::{Driven, NEXT, START, Site, slot};
use crate::hosts::{Compiled, End, Kind, Machine, through_bytes};
use crate::stepping::Program;

/// How a script is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Plain(Kind),
    Rewritten(Kind),
    /// A stop is requested before every call, and again at every safepoint up to a bound; the
    /// program goes to the other engine at some of them.
    Moving,
}

/// Stops of one call.
const STOPS_MAX: usize = 8;
/// Calls of one export in which the program moves; later ones resume where they stopped.
const MOVING_CALLS_MAX: usize = 3;

/// An instance of a module with its driver.
pub(crate) struct Running {
    machine: Box<dyn Machine>,
    driven: Rc<Driven>,
    program: Option<Rc<Program>>,
    way: Way,
    kind: Kind,
    calls: BTreeMap<i32, usize>,
    pub(crate) stops: usize,
    pub(crate) moves: usize,
}

/// What came of a call.
pub(crate) enum Called {
    Returned(Vec<(ValType, GlobalValue)>),
    Trapped(String),
}

impl Running {
    /// Instantiates a module and runs its start function. An error if the engine refuses it, or if
    /// a segment or the start function traps.
    pub(crate) fn new(
        way: Way,
        driven: &Rc<Driven>,
        program: Option<&Rc<Program>>,
    ) -> Result<Running, String> {
        let (kind, machine) = match (way, program) {
            (Way::Plain(kind), _) => (kind, Compiled::try_new(kind, &driven.wasm)?.instantiate()?),
            (Way::Rewritten(kind), Some(program)) => (kind, program.on(kind)?),
            (Way::Moving, Some(program)) => (Kind::Wasmtime, program.on(Kind::Wasmtime)?),
            _ => return Err("refused".to_string()),
        };
        let mut running = Running {
            machine,
            driven: Rc::clone(driven),
            program: program.cloned(),
            way,
            kind,
            calls: BTreeMap::new(),
            stops: 0,
            moves: 0,
        };
        running.answer();
        match running.run(START) {
            End::Trapped(trap) => Err(trap),
            _ => Ok(running),
        }
    }

    fn answer(&mut self) {
        let answers = self.driven.answers.iter();
        let answers = answers.map(|(name, value)| (name.clone(), GlobalValue::I32(*value)));
        self.machine.calls().answers = answers.collect();
    }

    pub(crate) fn site(&self, name: &str) -> Option<&Site> {
        self.driven.sites.get(name)
    }

    /// Calls or reads an export. Absent arguments are null references.
    pub(crate) fn call(&mut self, name: &str, arguments: &[Option<GlobalValue>]) -> Called {
        let driven = Rc::clone(&self.driven);
        let site = &driven.sites[name];
        for (position, (value, ty)) in arguments.iter().zip(&site.params).enumerate() {
            if let Some(value) = value {
                let name = slot("argument", position, *ty);
                self.machine.set_global(&name, *value);
            }
        }
        match self.run(site.number) {
            End::Trapped(trap) => Called::Trapped(trap),
            _ => Called::Returned(self.results(&site.results)),
        }
    }

    fn results(&mut self, types: &[ValType]) -> Vec<(ValType, GlobalValue)> {
        let read = |(position, ty): (usize, &ValType)| {
            let value = self.machine.global(&slot("result", position, *ty));
            (*ty, value.expect("the driver exports a number"))
        };
        types.iter().enumerate().map(read).collect()
    }

    fn run(&mut self, number: i32) -> End {
        self.machine.set_global(NEXT, GlobalValue::I32(number));
        let end = match self.way {
            Way::Plain(_) => {
                return match self.machine.call("_start") {
                    Ok(()) => End::Returned,
                    Err(trap) => End::Trapped(trap),
                };
            }
            Way::Rewritten(_) => self.machine.run(),
            Way::Moving => self.run_stopping(number),
        };
        if matches!(end, End::Trapped(_)) {
            // An agent is finished when it traps. A script goes on.
            let base = abi::FRAMES_BASE as i32;
            self.machine.set_word(abi::STACK_POINTER_ADDRESS, base);
            self.machine.set_state(abi::RUNNING);
        }
        end
    }

    fn run_stopping(&mut self, number: i32) -> End {
        let calls = self.calls.entry(number).or_default();
        *calls += 1;
        let moves = *calls <= MOVING_CALLS_MAX;
        let request = abi::STOP_REQUESTED;
        self.machine.set_word(abi::FLAG_ADDRESS, request);
        for stops in 1.. {
            let end = self.machine.run();
            if end != End::Unwound {
                return end;
            }
            self.stops += 1;
            if moves {
                self.move_on();
            }
            self.machine.rewind(stops < STOPS_MAX);
        }
        unreachable!("a call that is not stopped ends")
    }

    /// To the other engine, through the bytes of a snapshot.
    fn move_on(&mut self) {
        let program = self.program.as_ref().expect("only rewritten programs stop");
        let snapshot = through_bytes(&self.machine.snapshot(&program.resumable));
        self.kind = match self.kind {
            Kind::Wasmtime => Kind::Wasmi,
            Kind::Wasmi => Kind::WasmtimeWithAnyNan,
            Kind::WasmtimeWithAnyNan => Kind::Wasmtime,
        };
        self.machine = program.on(self.kind).expect("it was instantiated before");
        self.machine.load(&program.resumable, &snapshot);
        self.answer();
        self.moves += 1;
    }
}
