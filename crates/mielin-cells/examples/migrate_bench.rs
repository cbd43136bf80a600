//! How long does an agent stand still while it moves?
//!
//! Two nodes in this process, over QUIC on loopback, hand an agent of 1, 16, 64 and 256 MiB back and forth while it
//! writes a hot set of 64 KiB, 256 KiB or a tenth of its memory without a pause, by each strategy. Baseline in the same
//! run: stop-copy. Floor in the same run: the same bytes over a plain TCP connection on loopback, into memory that is
//! there already. How much slower the agent is while its memory goes ahead: what it writes in that time, as a share of
//! what it wrote in the same time before; and the same by the time that it had a processor, which both nodes want as
//! well.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use mielin_cells::{Cells, CellsConfig, LogKind, MoveOptions, MoveProgress, SpawnRequest};
use mielin_mesh::{JoinRequest, MeshConfig, MeshService, create_mesh, join};
use mielin_mesh_core::{AgentId, MemberState, MigrationStrategy, NodeRole};
use tokio::sync::mpsc;

type Failure = Box<dyn std::error::Error>;

/// How long the agent is watched before each move.
const UNDISTURBED: Duration = Duration::from_millis(200);
/// Copies of the memory's bytes by TCP.
const FLOORS: usize = 5;

/// How long does an agent stand still while it moves, by the size of its memory, what it writes and the strategy?
#[derive(Parser)]
struct Options {
    /// Moves for each row
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..10_000))]
    reps: u32,
    /// Only agents of this size, instead of 1, 16, 64 and 256 MiB
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=1024))]
    mib: Option<u32>,
    /// Only this hot set, instead of 64 KiB, 256 KiB and a tenth of the memory
    #[arg(long, value_name = "KIB", value_parser = clap::value_parser!(u32).range(4..))]
    hot_kib: Option<u32>,
    /// Only this strategy beside stop-copy: pre-copy, post-copy or hybrid
    #[arg(long, value_name = "NAME")]
    strategy: Option<MigrationStrategy>,
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

struct Row {
    mib: u32,
    hot_kib: u32,
    strategy: MigrationStrategy,
    downtime_us: Vec<u64>,
    total_us: Vec<u64>,
    floor_us: u64,
    bytes: u64,
    /// From the wish to freeze until the agent stood still.
    freeze_us: Vec<u64>,
    /// Pages that followed, and those that were waited for, in the last move.
    followed: [u64; 2],
    /// What the agent did before the moves, and while its memory went ahead.
    undisturbed: Pace,
    disturbed: Pace,
    /// Bytes of pages before and after compression, in the last move.
    page_bytes: [u64; 2],
    throttled_percent: u8,
    /// The phases of the last move, for people.
    last: String,
}

/// So much work in so much time.
#[derive(Clone, Copy, Default)]
struct Pace {
    work: u64,
    wall_ns: u64,
    cpu_ns: u64,
}

impl Pace {
    fn add(&mut self, from: &Sample, to: &Sample) -> Result<(), Failure> {
        self.work += to.work - from.work;
        self.wall_ns += u64::try_from((to.at - from.at).as_nanos())?;
        self.cpu_ns += to.cpu_ns - from.cpu_ns;
        Ok(())
    }
}

/// How far an agent was at a time.
struct Sample {
    at: Instant,
    work: u64,
    cpu_ns: u64,
}

impl Sample {
    async fn take(cells: &Cells, agent: AgentId) -> Result<Sample, Failure> {
        let report = cells.inspect(agent).await?;
        Ok(Sample {
            at: Instant::now(),
            work: report.stdout_bytes,
            cpu_ns: report.counters.cpu_ns,
        })
    }
}

/// How much slower than `undisturbed`, in percent, by either clock; none if there was nothing to compare.
fn slowdown(undisturbed: &Pace, disturbed: &Pace) -> Option<[f64; 2]> {
    let speeds = |pace: &Pace| [pace.wall_ns, pace.cpu_ns].map(|ns| pace.work as f64 / ns as f64);
    let (before, then) = (speeds(undisturbed), speeds(disturbed));
    let percent = [0, 1].map(|clock| (1.0 - then[clock] / before[clock]) * 100.0);
    percent
        .iter()
        .all(|percent| percent.is_finite())
        .then_some(percent)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let options = Options::parse();
    let json = options.output == Output::Json;
    let reps = options.reps;
    let sizes = match options.mib {
        None => vec![1, 16, 64, 256],
        Some(mib) => vec![mib],
    };
    let hot_sets = |mib: u32| match options.hot_kib {
        None => vec![64, 256, mib * 1024 / 10],
        Some(kib) => vec![kib.min(mib * 1024 - 4)],
    };
    let strategies = match options.strategy {
        Some(strategy) => vec![MigrationStrategy::StopCopy, strategy],
        None => MigrationStrategy::ALL.to_vec(),
    };
    let directory = tempfile::tempdir()?;
    let path = directory.path();
    let config = || -> Result<MeshConfig, Failure> {
        let mut config = MeshConfig::new("127.0.0.1:0".parse()?);
        config.enable_mdns = false;
        Ok(config)
    };
    let first = MeshService::start(
        config()?,
        create_mesh(&path.join("a"), "a", NodeRole::Core)?,
    )
    .await?;
    let address = first.local().address;
    let token = first
        .authority()
        .ok_or("no authority")?
        .issue_token(None, Duration::from_secs(60))?;
    let request = JoinRequest {
        address,
        token: Some(token),
        name: "b".to_owned(),
        role: NodeRole::Core,
    };
    let credentials = join(&path.join("b"), request, |_| {}).await?;
    let second = MeshService::start(config()?.bootstrap(address), credentials).await?;
    for mesh in [&first, &second] {
        while mesh
            .members()
            .iter()
            .filter(|member| member.state == MemberState::Alive)
            .count()
            < 2
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let nodes = [
        Cells::start(CellsConfig::default(), first.clone()).await?,
        Cells::start(CellsConfig::default(), second.clone()).await?,
    ];
    let mut rows = Vec::new();
    for mib in sizes {
        let floor_us = floor(mib)?;
        for hot_kib in hot_sets(mib) {
            for strategy in &strategies {
                let mut row = measure(&nodes, mib, hot_kib, *strategy, reps).await?;
                row.floor_us = floor_us;
                rows.push(row);
            }
        }
    }
    print(&rows, json)?;
    for (cells, mesh) in nodes.iter().zip([first, second]) {
        cells.shutdown().await;
        mesh.shutdown().await;
    }
    Ok(())
}

async fn measure(
    nodes: &[Cells; 2],
    mib: u32,
    hot_kib: u32,
    strategy: MigrationStrategy,
    reps: u32,
) -> Result<Row, Failure> {
    let agent = nodes[0]
        .spawn(SpawnRequest::new(program(mib, hot_kib)?))
        .await?;
    // It says so when all of its memory is in use.
    while nodes[0]
        .read_log(agent, LogKind::Stdout, 0, Duration::from_secs(60))
        .await?
        .bytes
        .is_empty()
    {}
    let mut row = Row {
        mib,
        hot_kib,
        strategy,
        downtime_us: Vec::new(),
        total_us: Vec::new(),
        floor_us: 0,
        bytes: 0,
        freeze_us: Vec::new(),
        followed: [0; 2],
        undisturbed: Pace::default(),
        disturbed: Pace::default(),
        page_bytes: [0; 2],
        throttled_percent: 0,
        last: String::new(),
    };
    let options = MoveOptions {
        strategy: Some(strategy),
        ..MoveOptions::default()
    };
    // The first two moves compile the module at both ends and are not counted.
    for rep in 0..reps + 2 {
        let (source, target) = if rep % 2 == 0 { (0, 1) } else { (1, 0) };
        let target = nodes[target].mesh().local().id;
        let from = Sample::take(&nodes[source], agent).await?;
        tokio::time::sleep(UNDISTURBED).await;
        let to = Sample::take(&nodes[source], agent).await?;
        let (progress, mut steps) = mpsc::unbounded_channel::<MoveProgress>();
        let watching = async {
            let mut samples = Vec::new();
            while let Some(step) = steps.recv().await {
                if ["pre-copy 1", "freezing"].contains(&step.phase.as_str()) {
                    samples.push(Sample::take(&nodes[source], agent).await?);
                }
            }
            Ok::<_, Failure>(samples)
        };
        let moving = nodes[source].migrate(agent, target, options, Some(progress));
        let (report, samples) = tokio::join!(moving, watching);
        let report = report?;
        if rep >= 2 {
            if let [began, froze] = &samples?[..] {
                row.undisturbed.add(&from, &to)?;
                row.disturbed.add(began, froze)?;
            }
            row.downtime_us.push(report.downtime_us);
            row.total_us.push(report.total_us);
            row.bytes = report.bytes;
            row.followed = [report.followed, report.faults];
            row.page_bytes = [report.page_bytes, report.page_bytes_sent];
            row.throttled_percent = row.throttled_percent.max(report.throttled_percent);
            let freezing = report.phases.iter().find(|time| time.phase == "freezing");
            row.freeze_us.extend(freezing.map(|time| time.us));
            row.last = report
                .phases
                .iter()
                .map(|time| format!("{} {}", time.phase, time.us))
                .collect::<Vec<_>>()
                .join(", ");
            row.last += &format!(
                "; resume at target {}; rounds of {:?} pages by {}",
                report.target_resume_us, report.pages, report.tracker
            );
        }
    }
    nodes[0].terminate(agent).await?;
    nodes[0].wait(agent).await?;
    Ok(row)
}

/// So many MiB over TCP on loopback, from memory that is there into memory that is there, and an answer: the median
/// of five, in microseconds.
fn floor(mib: u32) -> Result<u64, Failure> {
    let len = (mib as usize) << 20;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let receiver = std::thread::spawn(move || -> std::io::Result<()> {
        let mut memory = vec![1_u8; len];
        let (mut stream, _) = listener.accept()?;
        for _ in 0..FLOORS {
            stream.read_exact(&mut memory)?;
            stream.write_all(&[1])?;
        }
        Ok(())
    });
    let memory = vec![2_u8; len];
    let mut stream = TcpStream::connect(address)?;
    let mut times = Vec::new();
    for _ in 0..FLOORS {
        let began = Instant::now();
        stream.write_all(&memory)?;
        stream.read_exact(&mut [0])?;
        times.push(u64::try_from(began.elapsed().as_micros())?);
    }
    receiver
        .join()
        .map_err(|_| "the receiver of the floor failed")??;
    Ok(percentile(&mut times, 50))
}

/// Fills its memory, and then writes its hot set for ever; says `x` when it begins with that, and after every so many
/// rounds, that is about once in a million words.
fn program(mib: u32, hot_kib: u32) -> Result<Vec<u8>, Failure> {
    let (pages, end) = (mib * 16, mib << 20);
    let hot = end - hot_kib * 1024;
    let rounds = (1 << 20) / (hot_kib * 16) + 1;
    let text = format!(
        r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") {pages})
        (func (export "_start")
            (local $at i32) (local $x i64) (local $rounds i32)
            (local.set $at (i32.const 64))
            (loop $fill
                (i64.store (local.get $at) (i64.extend_i32_u (local.get $at)))
                (local.set $at (i32.add (local.get $at) (i32.const 64)))
                (br_if $fill (i32.lt_u (local.get $at) (i32.const {end}))))
            (i32.store (i32.const 0) (i32.const 16))
            (i32.store (i32.const 4) (i32.const 1))
            (i32.store8 (i32.const 16) (i32.const 120))
            (loop $again
                (if (i32.eqz (local.get $rounds)) (then
                    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
                    (local.set $rounds (i32.const {rounds}))))
                (local.set $rounds (i32.sub (local.get $rounds) (i32.const 1)))
                (local.set $at (i32.const {hot}))
                (loop $hot
                    (local.set $x (i64.add (local.get $x) (i64.const 1)))
                    (i64.store (local.get $at) (local.get $x))
                    (local.set $at (i32.add (local.get $at) (i32.const 64)))
                    (br_if $hot (i32.lt_u (local.get $at) (i32.const {end}))))
                (br $again))))"#
    );
    Ok(wat::parse_str(&text)?)
}

fn percentile(values: &mut [u64], percent: usize) -> u64 {
    values.sort_unstable();
    let index = (values.len() * percent).div_ceil(100).saturating_sub(1);
    values.get(index).copied().unwrap_or(0)
}

fn print(rows: &[Row], json: bool) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if !json {
        writeln!(
            out,
            "  MiB  hot KiB  strategy     downtime µs (median, p99)  freeze µs   total µs  ×floor      bytes  followed, waited for; pages packed; throttled; slower by wall, by CPU"
        )?;
    }
    let mut lines = Vec::new();
    for row in rows {
        let (mut downtime, mut total) = (row.downtime_us.clone(), row.total_us.clone());
        let (median, p99, total) = (
            percentile(&mut downtime, 50),
            percentile(&mut downtime, 99),
            percentile(&mut total, 50),
        );
        let freeze = percentile(&mut row.freeze_us.clone(), 50);
        let [followed, faults] = row.followed;
        let ([raw, sent], throttled) = (row.page_bytes, row.throttled_percent);
        let (mib, strategy, floor, bytes, kib) =
            (row.mib, row.strategy, row.floor_us, row.bytes, row.hot_kib);
        let times_floor = total as f64 / floor.max(1) as f64;
        let slower = slowdown(&row.undisturbed, &row.disturbed);
        let (slower_json, slower) = match slower {
            Some([wall, cpu]) => (
                format!(r#""slower_wall_percent":{wall:.1},"slower_cpu_percent":{cpu:.1}"#),
                format!("{wall:.1} %, {cpu:.1} %"),
            ),
            None => (
                r#""slower_wall_percent":null,"slower_cpu_percent":null"#.to_owned(),
                "-".to_owned(),
            ),
        };
        if json {
            lines.push(format!(
                r#"{{"mib":{mib},"hot_kib":{kib},"strategy":"{strategy}","downtime_us_median":{median},"downtime_us_p99":{p99},"freeze_us_median":{freeze},"total_us_median":{total},"floor_us":{floor},"bytes":{bytes},"followed":{followed},"faults":{faults},"page_bytes":{raw},"page_bytes_sent":{sent},"throttled_percent":{throttled},{slower_json}}}"#
            ));
        } else {
            writeln!(
                out,
                "{mib:>5}  {kib:>7}  {strategy:<10} {median:>14} {p99:>13} {freeze:>10} {total:>10} {times_floor:>7.2} {bytes:>10}  {followed}, {faults}; {raw} to {sent}; {throttled} %; {slower}"
            )?;
            writeln!(out, "       the last one: {}", row.last)?;
        }
    }
    if json {
        writeln!(out, "[{}]", lines.join(","))?;
    }
    Ok(())
}
