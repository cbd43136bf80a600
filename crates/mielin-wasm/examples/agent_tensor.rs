//! How fast does an agent compute with matrices?
//!
//! Questions: products and a few other kernels (1) by the node's kernels, through the host functions `mielin.tensor_*`, beside the same
//! call of `mielin-tensor` in this process; (2) by `mielin-tensor` compiled to WebAssembly with vectors of 128 bits, on wasmtime as
//! nodes have it, beside the same code compiled for this processor with vectors of 128 bits (SSE4.1 on x86-64; elsewhere the
//! fastest backend). The agent is `agents/kernels`, rewritten with safepoints as every agent; for (2) it runs as it was compiled, too,
//! which says what the safepoints take.
//!
//! Both are on one thread and have their turns one after the other, many times, on operands at the same places of a page. A turn
//! is an order to the agent, from where it takes the order until it asks for the next one, or as many calls here; what counts is the
//! short turn of which docs/TENSOR.md speaks, by the thread's time on a processor. Before they are timed, the bits of what both compute are
//! compared. A process has one backend: so (1) and (2) are processes of their own.
//!
//! `cargo xtask bench agent-tensor [-o json] [--quick]` builds the agent and runs this with it. The ratio is the agent's GFLOP/s
//! divided by those here (of what is no product: 10⁹ elements of a second).
#![allow(clippy::print_stdout)]

#[path = "../../../agents/kernels/src/case.rs"]
mod case;

use std::env;
use std::error::Error;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use case::{Case, Kernel, Order, Own};
use mielin_tensor::Backend;
use mielin_wasm::{
    Address, Capability, EngineKind, HostState, Level, Limits, LogError, LogStream, MessageKind,
    Outcome, Receive, Received, SendError, Services, THREAD_STACK_BYTES, ThreadClock, engine,
};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// What is measured by the node's kernels, and in WebAssembly.
const BY_NODE: [(Kernel, [usize; 3]); 8] = [
    (Kernel::Matmul, [64; 3]),
    (Kernel::Matmul, [256; 3]),
    (Kernel::Matmul, [512; 3]),
    (Kernel::Matmul, [1024; 3]),
    (Kernel::Softmax, [128, 256, 0]),
    (Kernel::Softmax, [128, 4096, 0]),
    (Kernel::Tanh, [128, 256, 0]),
    (Kernel::Add, [128, 256, 0]),
];
const IN_WASM: [(Kernel, [usize; 3]); 6] = [
    (Kernel::Matmul, [64; 3]),
    (Kernel::Matmul, [256; 3]),
    (Kernel::Matmul, [1024; 3]),
    (Kernel::Softmax, [128, 256, 0]),
    (Kernel::Tanh, [128, 256, 0]),
    (Kernel::Add, [128, 256, 0]),
];

/// The backend of this process while (2) is measured.
const NARROW: &str = "sse4.1";
const BACKEND: &str = "MIELIN_TENSOR_BACKEND";

/// How much is measured: a turn repeats the call until it takes about that long, and turns are taken until a case has taken that long.
#[derive(Clone, Copy)]
struct Effort {
    turn: Duration,
    case: Duration,
    rounds_min: usize,
    rounds_max: usize,
}

const FULL: Effort = Effort {
    turn: Duration::from_millis(1),
    case: Duration::from_secs(5),
    rounds_min: 10,
    rounds_max: 2_000,
};
const QUICK: Effort = Effort {
    turn: Duration::from_micros(100),
    case: Duration::from_millis(50),
    rounds_min: 2,
    rounds_max: 20,
};

/// One call in so long a time needs none before it that is not measured.
const WARM_MAX: Duration = Duration::from_millis(20);
/// One turn of so many may be shorter than the one that counts.
const SHORTER: usize = 20;

/// What was found, as it is written from one process to the other.
struct Row {
    kernel: String,
    shape: String,
    backend: String,
    rival: String,
    /// 10⁹ operations of a second: of a short turn and the median, of the agent and here.
    agent: [f64; 2],
    here: [f64; 2],
}

/// What the agent is doing.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    /// Nothing.
    Begin,
    /// It computes what is compared.
    Compare,
    /// A call that says how many a turn has.
    Count,
    /// A call that brings the operands into the caches.
    Warm,
    Turn,
}

/// A case that is measured.
struct Running {
    order: Order,
    here: Case,
    stage: Stage,
    begun: Instant,
    /// Calls in a turn, and the seconds that a call took in each, of the agent and here.
    calls: [u32; 2],
    times: [Vec<f64>; 2],
}

/// The node, which gives the agent its orders, and computes while the agent waits for the next one.
struct Bench {
    by_node: bool,
    /// Whose vectors the agent uses.
    name: String,
    effort: Effort,
    clock: ThreadClock,
    /// When the agent took its order.
    since: Duration,
    waiting: Vec<(Kernel, [usize; 3])>,
    running: Option<Running>,
    digest: Option<u64>,
    sequence: u64,
    found: Result<Vec<Row>>,
}

impl Bench {
    /// What the agent is to do next; none when all is done.
    fn next(&mut self) -> Result<Option<Order>> {
        let took = self.now()?.saturating_sub(self.since);
        loop {
            if self.running.is_none() {
                let Some((kernel, shape)) = self.waiting.pop() else {
                    return Ok(None);
                };
                self.running = Some(Running {
                    order: Order {
                        by_node: self.by_node,
                        kernel,
                        shape,
                        calls: 0,
                    },
                    here: Case::new(kernel, shape),
                    stage: Stage::Begin,
                    begun: Instant::now(),
                    calls: [1; 2],
                    times: [Vec::new(), Vec::new()],
                });
            }
            if let Some(calls) = self.step(took)? {
                let order = self.running.as_ref().map(|running| running.order);
                return Ok(order.map(|order| Order { calls, ..order }));
            }
            self.running = None;
        }
    }

    /// Goes on with the case that is measured, after an order that took so long, and gives the calls of the next one; none if it
    /// is finished.
    fn step(&mut self, took: Duration) -> Result<Option<u32>> {
        let (effort, clock) = (self.effort, self.clock);
        let Some(running) = &mut self.running else {
            return Ok(None);
        };
        match running.stage {
            Stage::Begin => {
                running.stage = Stage::Compare;
                return Ok(Some(0));
            }
            Stage::Compare => {
                running.here.run(&mut Own);
                let (found, expected) = (self.digest.take(), running.here.digest());
                if found != Some(expected) {
                    let order = running.order;
                    return Err(format!("`{order}` gives {found:x?}, and here {expected:x}").into());
                }
                running.stage = Stage::Count;
                return Ok(Some(1));
            }
            Stage::Count => {
                let own = timed(clock, 1, || running.here.run(&mut Own))?;
                running.calls = [took, own].map(|took| {
                    let calls = effort.turn.as_secs_f64() / took.as_secs_f64().max(1e-9);
                    calls.clamp(1.0, 1e6) as u32
                });
                running.begun = Instant::now();
            }
            Stage::Warm => {
                running.stage = Stage::Turn;
                return Ok(Some(running.calls[0]));
            }
            Stage::Turn => {
                if took < WARM_MAX {
                    running.here.run(&mut Own);
                }
                let calls = running.calls;
                let own = timed(clock, calls[1], || running.here.run(&mut Own))?;
                for ((times, took), calls) in running.times.iter_mut().zip([took, own]).zip(calls) {
                    times.push(took.as_secs_f64() / f64::from(calls));
                }
                let rounds = running.times[0].len();
                let is_long = running.begun.elapsed() >= effort.case;
                if rounds >= effort.rounds_max || rounds >= effort.rounds_min && is_long {
                    self.finish();
                    return Ok(None);
                }
                if took >= WARM_MAX {
                    return Ok(Some(running.calls[0]));
                }
            }
        }
        running.stage = Stage::Warm;
        Ok(Some(1))
    }

    fn finish(&mut self) {
        let (Some(running), Ok(found)) = (self.running.take(), &mut self.found) else {
            return;
        };
        let Order { kernel, shape, .. } = running.order;
        let [rows, columns, depth] = shape;
        let (shape, operations) = match kernel {
            Kernel::Matmul => (
                format!("{rows}x{columns}x{depth}"),
                2 * rows * columns * depth,
            ),
            _ => (format!("{rows}x{columns}"), rows * columns),
        };
        let [agent, here] = running.times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            let short = [times[times.len() / SHORTER], times[times.len() / 2]];
            short.map(|seconds| operations as f64 / seconds / 1e9)
        });
        found.push(Row {
            kernel: kernel.to_string(),
            shape,
            backend: self.name.clone(),
            rival: format!("native {}", Backend::active()),
            agent,
            here,
        });
    }

    fn now(&self) -> Result<Duration> {
        Ok(self.clock.now().ok_or("the thread has no clock")?)
    }
}

fn timed(clock: ThreadClock, calls: u32, mut call: impl FnMut()) -> Result<Duration> {
    let now = || clock.now().ok_or("the thread has no clock");
    let start = now()?;
    (0..calls).for_each(|_| call());
    Ok(now()?.saturating_sub(start))
}

/// The bench, as the agent sees it.
struct Node(Mutex<Bench>);

impl Node {
    fn with<T>(&self, work: impl FnOnce(&mut Bench) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Services for Node {
    fn write_log(&self, _: LogStream, bytes: &[u8]) -> std::result::Result<usize, LogError> {
        // What the agent says of a failure; the benchmark says itself that it failed.
        let _ = std::io::stderr().write_all(bytes);
        Ok(bytes.len())
    }

    fn log(&self, level: Level, message: &str) {
        let _ = writeln!(std::io::stderr(), "{level:?}: {message}");
    }

    fn send(
        &self,
        _: Address,
        _: MessageKind,
        payload: &[u8],
    ) -> std::result::Result<u64, SendError> {
        self.with(|bench| bench.digest = payload.try_into().ok().map(u64::from_le_bytes));
        Ok(1)
    }

    fn receive(&self, _: usize) -> Receive {
        self.with(|bench| {
            let payload = match bench.next() {
                Ok(Some(order)) => order.to_string().into_bytes(),
                Ok(None) => Vec::new(),
                Err(error) => {
                    bench.found = Err(error);
                    Vec::new()
                }
            };
            bench.sequence += 1;
            bench.since = bench.now().unwrap_or_default();
            Receive::Message(Received {
                from: Address::default(),
                sequence: bench.sequence,
                kind: MessageKind::Message,
                payload,
            })
        })
    }

    fn denied(&self, capability: &Capability, call: &'static str) {
        let _ = writeln!(std::io::stderr(), "{call} needs {capability}");
    }
}

/// Which of the questions, and how the agent runs.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    ByNode,
    InWasm,
    /// Without safepoints.
    Plain,
}

/// Measures all cases of a way, on this thread.
fn measure(module: &[u8], way: Way, effort: Effort) -> Result<Vec<Row>> {
    let (name, mut waiting) = match way {
        Way::ByNode => (format!("host {}", Backend::active()), BY_NODE.to_vec()),
        Way::InWasm => ("simd128".to_owned(), IN_WASM.to_vec()),
        Way::Plain => ("simd128 plain".to_owned(), IN_WASM.to_vec()),
    };
    waiting.reverse();
    let bench = Bench {
        by_node: way == Way::ByNode,
        name,
        effort,
        clock: ThreadClock::of_this_thread().ok_or("the thread has no clock")?,
        since: Duration::ZERO,
        waiting,
        running: None,
        digest: None,
        sequence: 0,
        found: Ok(Vec::new()),
    };
    let node = Arc::new(Node(Mutex::new(bench)));
    let services = Arc::clone(&node) as Arc<dyn Services>;
    let host = HostState::new(Address::default())
        .with_args(["kernels"])
        .with_grants(["tensor".parse()?].into_iter().collect());
    let (engine, limits) = (engine(EngineKind::Wasmtime)?, Limits::default());
    let outcome = match way {
        Way::Plain => engine.prepare_plain(module)?.run(host, services, &limits)?,
        _ => {
            let module = mielin_safepoint::instrument(module)?;
            let prepared = engine.prepare(&module, None)?;
            prepared.instantiate(host, services, &limits)?.run()
        }
    };
    match outcome {
        Outcome::Exited(0) => node.with(|bench| std::mem::replace(&mut bench.found, Ok(vec![]))),
        outcome => Err(format!("the agent ended otherwise: {outcome:?}").into()),
    }
}

fn main() -> Result<()> {
    let (mut json, mut quick, mut agent, mut part) = (false, false, None, None);
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "-o" => json = arguments.next().as_deref() == Some("json"),
            "--quick" => quick = true,
            "--agent" => agent = arguments.next(),
            // In a process of its own, which has the backend for it.
            "--part" => part = arguments.next(),
            other => return Err(format!("unknown argument {other:?}").into()),
        }
    }
    let agent = agent.ok_or("--agent names the module of agents/kernels")?;
    let Some(part) = part else {
        let mut rows = children(&agent, quick, "node", None)?;
        rows.extend(children(&agent, quick, "wasm", Some(NARROW))?);
        match json {
            true => print_json(&rows),
            false => print_table(&rows),
        }
        return Ok(());
    };
    let module = std::fs::read(&agent).map_err(|error| format!("{agent}: {error}"))?;
    let effort = if quick { QUICK } else { FULL };
    let ways: &[Way] = match part.as_str() {
        "node" => &[Way::ByNode],
        _ => &[Way::InWasm, Way::Plain],
    };
    for way in ways.iter().copied() {
        let module = module.clone();
        let thread = thread::Builder::new()
            .stack_size(THREAD_STACK_BYTES)
            .spawn(move || measure(&module, way, effort))?;
        for row in thread.join().map_err(|_| "a thread panicked")?? {
            println!("{}", row.line());
        }
    }
    Ok(())
}

/// Measures a part in another process, whose environment names the backend, or none.
fn children(agent: &str, quick: bool, part: &str, backend: Option<&str>) -> Result<Vec<Row>> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["--agent", agent, "--part", part]);
    command.args(quick.then_some("--quick"));
    match backend {
        Some(backend) => command.env(BACKEND, backend),
        None => command.env_remove(BACKEND),
    };
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("measuring `{part}` failed: {}", output.status).into());
    }
    let text = String::from_utf8(output.stdout)?;
    text.lines().map(Row::of_line).collect()
}

impl Row {
    fn line(&self) -> String {
        let [a, b, c, d] = [self.agent[0], self.agent[1], self.here[0], self.here[1]];
        let (kernel, shape) = (&self.kernel, &self.shape);
        let (backend, rival) = (&self.backend, &self.rival);
        format!("{kernel}\t{shape}\t{backend}\t{rival}\t{a}\t{b}\t{c}\t{d}")
    }

    fn of_line(line: &str) -> Result<Row> {
        let words: Vec<&str> = line.split('\t').collect();
        let &[kernel, shape, backend, rival, a, b, c, d] = words.as_slice() else {
            return Err(format!("`{line}` is no row").into());
        };
        let [kernel, shape, backend, rival] = [kernel, shape, backend, rival].map(str::to_owned);
        Ok(Row {
            kernel,
            shape,
            backend,
            rival,
            agent: [a.parse()?, b.parse()?],
            here: [c.parse()?, d.parse()?],
        })
    }

    fn ratio(&self) -> f64 {
        self.agent[0] / self.here[0]
    }
}

fn print_json(rows: &[Row]) {
    let rows = rows.iter().map(|row| {
        let Row {
            kernel,
            shape,
            backend,
            rival,
            agent: [short, median],
            here: [here, here_median],
        } = row;
        let ratio = row.ratio();
        format!(
            "{{\"kernel\":\"{kernel}\",\"shape\":\"{shape}\",\"threads\":1,\"backend\":\"{backend}\",\
             \"gflops\":{short:.3},\"gflops_median\":{median:.3},\"best_rival\":{here:.3},\
             \"best_rival_median\":{here_median:.3},\"rival\":\"{rival}\",\"ratio\":{ratio:.4},\"of_limit\":null}}"
        )
    });
    let rows: Vec<_> = rows.collect();
    println!("{{\"rows\":[{}]}}", rows.join(","));
}

fn print_table(rows: &[Row]) {
    println!(
        "{:<9}{:<16}{:<15}{:<15}{:>9}{:>9}{:>9}{:>9}{:>7}",
        "kernel", "shape", "agent", "beside", "agent", "~agent", "beside", "~beside", "ratio"
    );
    for row in rows {
        let Row {
            kernel,
            shape,
            backend,
            rival,
            agent: [short, median],
            here: [here, here_median],
        } = row;
        let ratio = row.ratio();
        println!(
            "{kernel:<9}{shape:<16}{backend:<15}{rival:<15}{short:>9.2}{median:>9.2}{here:>9.2}{here_median:>9.2}{ratio:>7.3}"
        );
    }
}
