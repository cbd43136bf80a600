//! How many idle agents does a node hold, and what does each of them cost?
//!
//! One node in this process, on loopback and in a temporary directory, gets `--agents N` agents (100,000) of the sample
//! `counter`, which wait for a message; then each gets one and answers; then some are hibernated and get another. The
//! figures are those of the whole process: its resident memory, its mappings, its threads, its files. What a program has
//! touched of its memory is asked of the kernel for one that waits, and is what it would cost if nothing but whole pages
//! were kept of it. Baseline in the same run: instances of the same module that are kept, 2,000 of them, and one that is
//! made and dropped.
//!
//! The process ends without storing the agents.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use mielin_cells::{Cells, CellsConfig, SpawnRequest};
use mielin_mesh::{MeshConfig, MeshService, create_mesh};
use mielin_mesh_core::{AgentId, AgentState, NodeRole};
use mielin_wasm::{
    Address, Capability, EngineKind, HostState, Instance, Level, Limits, LogError, LogStream,
    MessageKind, Outcome, Prepared, Receive, SendError, Services,
};
use tokio::task::JoinSet;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const MODULE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../agents/prebuilt/counter.wasm"
);
/// Instances that the baseline keeps.
const KEPT: usize = 2000;
/// Instances that the baseline makes and drops.
const DROPPED: u32 = 2000;
/// Spawns and requests that are under way at once.
const AT_ONCE: usize = 64;
/// Agents that are hibernated.
const HIBERNATED: usize = 100;
const PATIENCE: Duration = Duration::from_secs(120);

/// What the process has at one time.
#[derive(Clone, Copy)]
struct Process {
    resident_bytes: u64,
    peak_bytes: u64,
    mappings: usize,
    threads: u64,
    files: usize,
}

impl Process {
    fn now() -> Result<Process, Failure> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let number = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            let number = line.and_then(|line| line.split_whitespace().next());
            number
                .ok_or("no such field")?
                .parse::<u64>()
                .map_err(Failure::from)
        };
        Ok(Process {
            resident_bytes: number("VmRSS:")? * 1024,
            peak_bytes: number("VmHWM:")? * 1024,
            mappings: std::fs::read_to_string("/proc/self/maps")?.lines().count(),
            threads: number("Threads:")?,
            files: std::fs::read_dir("/proc/self/fd")?.count(),
        })
    }

    fn per(&self, before: &Process, count: usize) -> f64 {
        (self.resident_bytes as f64 - before.resident_bytes as f64) / count as f64
    }
}

/// A node in which nothing ever comes.
struct Silence;

impl Services for Silence {
    fn write_log(&self, _: LogStream, bytes: &[u8]) -> Result<usize, LogError> {
        Ok(bytes.len())
    }
    fn log(&self, _: Level, _: &str) {}
    fn send(&self, _: Address, _: MessageKind, _: &[u8]) -> Result<u64, SendError> {
        Err(SendError::Unknown)
    }
    fn receive(&self, _: usize) -> Receive {
        Receive::Empty
    }
    fn denied(&self, _: &Capability, _: &'static str) {}
}

/// What instances cost that are kept.
struct Baseline {
    touched_pages: usize,
    rested_bytes: usize,
    bytes_each: f64,
    mappings_each: f64,
    make_and_drop_us: f64,
    rest_and_wake_us: f64,
}

fn baseline(module: &[u8], kind: EngineKind) -> Result<Baseline, Failure> {
    let module = mielin_safepoint::instrument(module)?;
    let prepared = mielin_wasm::engine(kind)?.prepare(&module, None)?;
    let waiting = || -> Result<Box<dyn Instance>, Failure> {
        let mut instance = instance(&*prepared)?;
        match instance.run() {
            Outcome::Blocked(_) => Ok(instance),
            other => Err(format!("it does not wait: {other:?}").into()),
        }
    };
    let touched_pages = waiting()?.touched_pages().len();
    let before = Process::now()?;
    let kept = (0..KEPT)
        .map(|_| waiting())
        .collect::<Result<Vec<_>, _>>()?;
    let after = Process::now()?;
    drop(kept);
    let began = Instant::now();
    for _ in 0..DROPPED {
        drop(instance(&*prepared)?);
    }
    let make_and_drop_us = began.elapsed().as_secs_f64() * 1e6 / f64::from(DROPPED);
    let mut program = waiting()?;
    let mut rested_bytes = 0;
    let began = Instant::now();
    for _ in 0..DROPPED {
        let rested = program.rest().map_err(|_| "it cannot rest")?;
        rested_bytes = rested.kept_bytes();
        program = prepared.wake(rested).map_err(|error| error.to_string())?;
    }
    Ok(Baseline {
        touched_pages,
        rested_bytes,
        bytes_each: after.per(&before, KEPT),
        mappings_each: (after.mappings as f64 - before.mappings as f64) / KEPT as f64,
        make_and_drop_us,
        rest_and_wake_us: began.elapsed().as_secs_f64() * 1e6 / f64::from(DROPPED),
    })
}

fn instance(prepared: &dyn Prepared) -> Result<Box<dyn Instance>, Failure> {
    let host = HostState::new(Address::default()).with_args(["counter"]);
    Ok(prepared.instantiate(host, Arc::new(Silence), &Limits::default())?)
}

/// Does something for each of many, some of them at once; gives what came of it, in no order.
async fn for_each<T, R, F>(
    many: impl IntoIterator<Item = T>,
    act: impl Fn(T) -> F,
) -> Result<Vec<R>, Failure>
where
    R: Send + 'static,
    F: Future<Output = Result<R, Failure>> + Send + 'static,
{
    let mut running = JoinSet::new();
    let mut done = Vec::new();
    for one in many {
        if running.len() == AT_ONCE {
            done.extend(running.join_next().await.transpose()?.transpose()?);
        }
        running.spawn(act(one));
    }
    while let Some(result) = running.join_next().await {
        done.push(result??);
    }
    Ok(done)
}

async fn spawn(cells: Cells, module: Bytes, name: String) -> Result<AgentId, Failure> {
    let mut request = SpawnRequest::new(module);
    request.name = Some(name);
    Ok(cells.spawn(request).await?)
}

async fn expect_answer(cells: Cells, agent: AgentId, number: u32) -> Result<(), Failure> {
    let answer = cells.request(agent, Bytes::from_static(b"x"), PATIENCE);
    let answer = answer.await?;
    match answer == format!("{number}: x").as_bytes() {
        true => Ok(()),
        false => Err(format!("{agent} answered {answer:?}").into()),
    }
}

/// Until every agent waits.
async fn until_all_wait(cells: &Cells, count: usize) {
    let waits = |state: &AgentState| *state == AgentState::Waiting;
    let all = || {
        cells
            .residents()
            .iter()
            .filter(|agent| waits(&agent.state))
            .count()
            == count
    };
    while !all() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How many idle agents does a node hold, and what does each of them cost?
#[derive(Parser)]
struct Options {
    /// Agents that are spawned
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    agents: usize,
    /// Agents that keep their instance while they do not run
    #[arg(long, value_name = "N")]
    live: Option<usize>,
    /// wasmtime or wasmi
    #[arg(long, value_name = "NAME", default_value_t)]
    engine: EngineKind,
    /// For people or for machines
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Table,
    Json,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let options = Options::parse();
    let json = options.output == Output::Json;
    let count = options.agents;
    let mut config = CellsConfig::default();
    if let Some(live) = options.live {
        config.live_instances_max = live;
    }
    config.engine = options.engine;
    config.agents_max = config.agents_max.max(count + 1);
    let (live_max, engine) = (config.live_instances_max, config.engine);

    let module = Bytes::from(std::fs::read(MODULE)?);
    let baseline = baseline(&module, engine)?;

    let directory = tempfile::tempdir()?;
    let credentials = create_mesh(&directory.path().join("mesh"), "density", NodeRole::Core)?;
    let mut listening = MeshConfig::new("127.0.0.1:0".parse()?);
    listening.enable_mdns = false;
    let mesh = MeshService::start(listening, credentials).await?;
    config.data_dir = Some(directory.path().join("cells"));
    let cells = Cells::start(config, mesh).await?;
    // The module is compiled, and every way has been gone once.
    let first = spawn(cells.clone(), module.clone(), "first".to_owned()).await?;
    expect_answer(cells.clone(), first, 1).await?;
    until_all_wait(&cells, 1).await;

    let before = Process::now()?;
    let began = Instant::now();
    let names = (0..count).map(|index| format!("idle-{index}"));
    let agents = for_each(names, |name| spawn(cells.clone(), module.clone(), name)).await?;
    let spawned = began.elapsed();
    until_all_wait(&cells, count + 1).await;
    let waited = began.elapsed();
    let idle = Process::now()?;

    let began = Instant::now();
    for_each(agents.iter().copied(), |agent| {
        expect_answer(cells.clone(), agent, 1)
    })
    .await?;
    let answered = began.elapsed();
    until_all_wait(&cells, count + 1).await;
    let after = Process::now()?;

    let hibernated: Vec<AgentId> = agents.iter().copied().take(HIBERNATED).collect();
    let began = Instant::now();
    for_each(hibernated.iter().copied(), |agent| {
        let cells = cells.clone();
        async move { Ok(cells.hibernate(agent).await?) }
    })
    .await?;
    let slept = began.elapsed();
    let began = Instant::now();
    for_each(hibernated.iter().copied(), |agent| {
        expect_answer(cells.clone(), agent, 2)
    })
    .await?;
    let woken = began.elapsed();

    let touched_bytes = (baseline.touched_pages * mielin_safepoint::PAGE_SIZE) as f64;
    let each = idle.per(&before, count);
    let each_us = |time: Duration, count: usize| time.as_secs_f64() * 1e6 / count as f64;
    let rows = [
        ("agents", count as f64),
        ("live_instances_max", live_max as f64),
        ("bytes_per_agent", each),
        ("touched_pages", baseline.touched_pages as f64),
        ("bytes_above_touched_pages", each - touched_bytes),
        ("kept_of_the_program_bytes", baseline.rested_bytes as f64),
        ("bytes_per_agent_after_a_message", after.per(&before, count)),
        ("resident_bytes", idle.resident_bytes as f64),
        ("resident_bytes_after", after.resident_bytes as f64),
        ("peak_bytes", after.peak_bytes as f64),
        ("spawn_us", each_us(spawned, count)),
        ("spawn_and_first_turn_us", each_us(waited, count)),
        ("message_us", each_us(answered, count)),
        ("messages_per_s", 1e6 / each_us(answered, count)),
        ("hibernate_us", each_us(slept, hibernated.len())),
        ("wake_from_disk_us", each_us(woken, hibernated.len())),
        ("mappings", after.mappings as f64),
        ("threads", after.threads as f64),
        ("files", after.files as f64),
        ("kept_instance_bytes", baseline.bytes_each),
        ("kept_instance_mappings", baseline.mappings_each),
        ("instance_make_and_drop_us", baseline.make_and_drop_us),
        ("rest_and_wake_us", baseline.rest_and_wake_us),
    ];
    print(engine, &rows, json)
}

fn print(engine: EngineKind, rows: &[(&str, f64)], json: bool) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if json {
        let fields: Vec<String> = rows
            .iter()
            .map(|(name, value)| format!("\"{name}\":{value:.1}"))
            .collect();
        writeln!(out, "{{\"engine\":\"{engine}\",{}}}", fields.join(","))?;
        return Ok(());
    }
    writeln!(out, "{:<34} {engine:>16}", "engine")?;
    for (name, value) in rows {
        writeln!(out, "{name:<34} {value:>16.1}")?;
    }
    Ok(())
}
