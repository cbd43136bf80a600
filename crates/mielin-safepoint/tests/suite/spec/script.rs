//! One `.wast` file, directive by directive, in one way.

use std::collections::BTreeMap;
use std::rc::Rc;

use mielin_safepoint::{InstrumentError, instrument};
use wast::{QuoteWat, QuoteWatTest, WastDirective, WastExecute, WastInvoke, WastRet};

use super::driver::{Constants, Driven, constants, drive};
use super::run::{Called, Running, Way};
use super::values;
use crate::stepping::Program;

/// What a directive came to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    Passed,
    /// With the trap, if one was expected.
    Trapped(String),
    Failed(String),
    /// Not tried, and why.
    LeftOut(&'static str),
    /// The module that it is about was refused by the rewriter.
    Refused(String),
}

/// A module of a script, prepared once for all the ways.
enum Prepared {
    Driven(Rc<Driven>, Result<Rc<Program>, String>),
    LeftOut(&'static str),
}

enum Directive<'a> {
    Module(Prepared, Option<String>),
    /// The rewriter must refuse this, whatever it is.
    Bad(Vec<u8>),
    Trap(Prepared),
    Run(WastExecute<'a>, Expected<'a>),
    Other(&'static str),
}

enum Expected<'a> {
    Anything,
    Results(Vec<WastRet<'a>>),
    Trap,
    Exhaustion,
}

/// A script whose modules were made ready.
pub(crate) struct Script<'a> {
    directives: Vec<(usize, Directive<'a>)>,
}

/// The reasons that the rewriter gave, and how many modules it accepted.
#[derive(Default)]
pub(crate) struct Refusals {
    pub(crate) accepted: usize,
    pub(crate) refused: BTreeMap<String, usize>,
    pub(crate) left_out: BTreeMap<&'static str, usize>,
    /// Of the current script: what other modules may import, and of which modules.
    constants: Constants,
    modules: BTreeMap<Option<String>, BTreeMap<String, i32>>,
}

impl<'a> Script<'a> {
    pub(crate) fn prepare(
        directives: Vec<WastDirective<'a>>,
        text: &str,
        refusals: &mut Refusals,
    ) -> Script<'a> {
        refusals.constants.clear();
        refusals.modules.clear();
        // From one directive to the next: from the beginning each time would be most of the work.
        let (mut line, mut seen) = (1, 0);
        let prepared = directives.into_iter().map(|directive| {
            let offset = directive.span().offset();
            let between = text.as_bytes().get(seen..offset).unwrap_or_default();
            line += between.iter().filter(|byte| **byte == b'\n').count();
            seen = seen.max(offset);
            (line, Directive::of(directive, refusals))
        });
        Script {
            directives: prepared.collect(),
        }
    }

    /// Runs all directives; gives their lines and what came of them, and stops and moves.
    pub(crate) fn run(&self, way: Way) -> (Vec<(usize, Verdict)>, usize, usize) {
        let mut state = State::default();
        let verdicts = self
            .directives
            .iter()
            .map(|(line, directive)| (*line, state.directive(way, directive)))
            .collect();
        state.forget();
        (verdicts, state.stops, state.moves)
    }
}

impl<'a> Directive<'a> {
    fn of(directive: WastDirective<'a>, refusals: &mut Refusals) -> Directive<'a> {
        match directive {
            WastDirective::Module(mut module) => {
                let name = module.name().map(|id| id.name().to_string());
                if let Ok(QuoteWatTest::Binary(wasm)) = module.to_test() {
                    let constants = constants(&wasm).unwrap_or_default();
                    refusals.modules.insert(name.clone(), constants.clone());
                    refusals.modules.insert(None, constants);
                }
                Directive::Module(prepare(&mut module, refusals), name)
            }
            WastDirective::AssertInvalid { mut module, .. }
            | WastDirective::AssertMalformed { mut module, .. } => match module.to_test() {
                Ok(QuoteWatTest::Binary(wasm)) => Directive::Bad(wasm),
                _ => Directive::Other("malformed text"),
            },
            WastDirective::Invoke(call) => {
                Directive::Run(WastExecute::Invoke(call), Expected::Anything)
            }
            WastDirective::AssertReturn { exec, results, .. } => {
                Directive::Run(exec, Expected::Results(results))
            }
            WastDirective::AssertTrap {
                exec: WastExecute::Wat(wat),
                ..
            } => Directive::Trap(prepare(&mut QuoteWat::Wat(wat), refusals)),
            WastDirective::AssertTrap { exec, .. } => Directive::Run(exec, Expected::Trap),
            WastDirective::AssertExhaustion { call, .. } => {
                Directive::Run(WastExecute::Invoke(call), Expected::Exhaustion)
            }
            WastDirective::Register { name, module, .. } => {
                let module = module.map(|id| id.name().to_string());
                let constants = refusals.modules.get(&module).into_iter().flatten();
                let key = |export: &String| (name.to_string(), export.clone());
                let constants = constants.map(|(export, value)| (key(export), *value));
                refusals.constants.extend(constants);
                Directive::Other("linking")
            }
            WastDirective::AssertUnlinkable { .. } => Directive::Other("linking"),
            _ => Directive::Other("other directives"),
        }
    }
}

fn prepare(module: &mut QuoteWat<'_>, refusals: &mut Refusals) -> Prepared {
    let prepared = prepared(module, &refusals.constants);
    match &prepared {
        Prepared::Driven(_, Ok(_)) => refusals.accepted += 1,
        Prepared::Driven(_, Err(reason)) => {
            *refusals.refused.entry(reason.clone()).or_default() += 1;
        }
        Prepared::LeftOut(reason) => *refusals.left_out.entry(reason).or_default() += 1,
    }
    prepared
}

fn prepared(module: &mut QuoteWat<'_>, constants: &Constants) -> Prepared {
    let wasm = match module.to_test() {
        Ok(QuoteWatTest::Binary(wasm)) => wasm,
        Ok(QuoteWatTest::Text(text)) => match wat::parse_bytes(&text) {
            Ok(wasm) => wasm.into_owned(),
            Err(_) => return Prepared::LeftOut("text that the parser refuses"),
        },
        Err(_) => return Prepared::LeftOut("text that the parser refuses"),
    };
    let Some(driven) = drive(&wasm, constants) else {
        return Prepared::LeftOut("imports from other modules of the script");
    };
    let program = match instrument(&driven.wasm) {
        Ok(program) => Ok(Rc::new(Program::new(program))),
        Err(InstrumentError::Unsupported { feature, .. }) => Err(feature.to_string()),
        Err(error) => Err(error.to_string()),
    };
    Prepared::Driven(Rc::new(driven), program)
}

#[derive(Default)]
struct State {
    current: Option<Result<Running, Verdict>>,
    names: BTreeMap<String, Result<Running, Verdict>>,
    current_name: Option<String>,
    stops: usize,
    moves: usize,
}

impl State {
    /// Keeps the current module for calls that name it, or drops it.
    fn forget(&mut self) {
        let Some(current) = self.current.take() else {
            return;
        };
        match self.current_name.take() {
            Some(name) => {
                self.names.insert(name, current);
            }
            None => self.count(&current),
        }
    }

    fn count(&mut self, ended: &Result<Running, Verdict>) {
        if let Ok(running) = ended {
            self.stops += running.stops;
            self.moves += running.moves;
        }
    }

    fn directive(&mut self, way: Way, directive: &Directive<'_>) -> Verdict {
        match directive {
            Directive::Module(prepared, name) => {
                self.forget();
                let made = instance(way, prepared);
                let verdict = match &made {
                    Ok(_) => Verdict::Passed,
                    Err(verdict) => verdict.clone(),
                };
                self.current_name.clone_from(name);
                self.current = Some(made);
                verdict
            }
            Directive::Bad(wasm) => match (way, instrument(wasm)) {
                (Way::Plain(_), _) | (_, Err(_)) => Verdict::Passed,
                (_, Ok(_)) => Verdict::Failed("accepted".to_string()),
            },
            Directive::Trap(prepared) => match instance(way, prepared) {
                Ok(_) => Verdict::Failed("it does not trap".to_string()),
                Err(Verdict::Failed(_)) => Verdict::Passed,
                Err(other) => other,
            },
            Directive::Run(WastExecute::Invoke(call), expected) => self.invoke(call, expected),
            Directive::Run(WastExecute::Get { module, global, .. }, expected) => {
                self.act(module.as_ref().map(|id| id.name()), global, &[], expected)
            }
            Directive::Run(..) => Verdict::LeftOut("other directives"),
            Directive::Other(reason) => Verdict::LeftOut(reason),
        }
    }

    fn invoke(&mut self, call: &WastInvoke<'_>, expected: &Expected<'_>) -> Verdict {
        let arguments: Option<Vec<_>> = call.args.iter().map(values::argument).collect();
        let Some(arguments) = arguments else {
            return Verdict::LeftOut("references that only a host can give");
        };
        let module = call.module.as_ref().map(|id| id.name());
        self.act(module, call.name, &arguments, expected)
    }

    fn act(
        &mut self,
        module: Option<&str>,
        name: &str,
        arguments: &[Option<mielin_safepoint::GlobalValue>],
        expected: &Expected<'_>,
    ) -> Verdict {
        let target = match module {
            Some(module) if self.current_name.as_deref() != Some(module) => {
                self.names.get_mut(module)
            }
            _ => self.current.as_mut(),
        };
        let running = match target {
            Some(Ok(running)) => running,
            Some(Err(verdict)) => return verdict.clone(),
            None => return Verdict::LeftOut("other directives"),
        };
        if running.site(name).is_none() {
            return Verdict::LeftOut("types beyond WebAssembly 2.0");
        }
        judge(running.call(name, arguments), expected)
    }
}

fn judge(called: Called, expected: &Expected<'_>) -> Verdict {
    match (called, expected) {
        (Called::Trapped(trap), Expected::Trap) => Verdict::Trapped(trap),
        (Called::Trapped(_), Expected::Exhaustion) | (Called::Returned(_), Expected::Anything) => {
            Verdict::Passed
        }
        (Called::Returned(values), Expected::Results(expected)) => {
            let all = values.len() == expected.len();
            let each = |(expected, (ty, value)): (&WastRet<'_>, &(_, _))| {
                values::matches(expected, *ty, *value)
            };
            if all && expected.iter().zip(&values).all(each) {
                Verdict::Passed
            } else {
                Verdict::Failed(format!("{values:?}"))
            }
        }
        (Called::Trapped(trap), _) => Verdict::Failed(trap),
        (Called::Returned(_), _) => Verdict::Failed("it returned".to_string()),
    }
}

fn instance(way: Way, prepared: &Prepared) -> Result<Running, Verdict> {
    let (driven, program) = match prepared {
        Prepared::LeftOut(reason) => return Err(Verdict::LeftOut(reason)),
        Prepared::Driven(driven, program) => (driven, program),
    };
    let program = match (way, program) {
        (_, Err(reason)) => return Err(Verdict::Refused(reason.clone())),
        (Way::Plain(_), Ok(_)) => None,
        (_, Ok(program)) => Some(program),
    };
    Running::new(way, driven, program).map_err(Verdict::Failed)
}
