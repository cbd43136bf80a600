//! How long does an agent stand still while it moves?
//!
//! Two nodes in this process, over QUIC on loopback, hand an agent of 1, 16 and 64 MiB back and forth while it writes
//! a hot set of 256 KiB without a pause. Baseline in the same run: stop-copy. Floor in the same run: sending the hot
//! set's bytes over the same connection and hearing one answer. `-o json` prints rows for machines; `--reps N` sets
//! the moves per row; `--hot-kib N` another hot set, up to the whole memory, in which case pre-copy has nothing to gain.

use std::io::Write;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mielin_cells::{Cells, CellsConfig, LogKind, MoveOptions, SpawnRequest};
use mielin_mesh::{
    FrameLimit, JoinRequest, MeshConfig, MeshService, create_mesh, join, stream_handler,
};
use mielin_mesh_core::limits::PAYLOAD_BYTES_MAX;
use mielin_mesh_core::{MemberState, MigrationStrategy, NodeRole};

type Failure = Box<dyn std::error::Error>;

const HOT_KIB: u32 = 256;
/// The protocol on which the floor is measured.
const FLOOR: u16 = 200;

struct Row {
    mib: u32,
    hot_kib: u32,
    strategy: MigrationStrategy,
    downtime_us: Vec<u64>,
    total_us: Vec<u64>,
    floor_us: u64,
    bytes: u64,
    /// The phases of the last move, for people.
    last: String,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let json = arguments.windows(2).any(|pair| pair == ["-o", "json"]);
    let number = |option: &str, otherwise: u32| {
        let given = arguments.windows(2).find(|pair| pair[0] == option);
        given.map_or(Ok(otherwise), |pair| pair[1].parse())
    };
    let reps = number("--reps", 20)?;
    let hot_kib = number("--hot-kib", HOT_KIB)?;
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
    second.serve_streams(
        FLOOR,
        stream_handler(|_, mut stream| async move {
            while let Ok(Some(_)) = stream.recv_frame(FrameLimit::default()).await {
                if stream.send_frame(&[], &[]).await.is_err() {
                    return;
                }
            }
        }),
    );
    let mut rows = Vec::new();
    for mib in [1, 16, 64] {
        for strategy in [MigrationStrategy::StopCopy, MigrationStrategy::PreCopy] {
            let hot_kib = hot_kib.min(mib * 1024 - 4);
            rows.push(measure(&nodes, mib, hot_kib, strategy, reps).await?);
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
        last: String::new(),
    };
    let mut floors = Vec::new();
    let options = MoveOptions {
        strategy: Some(strategy),
        ..MoveOptions::default()
    };
    // The first two moves compile the module at both ends and are not counted.
    for rep in 0..reps + 2 {
        let (source, target) = if rep % 2 == 0 { (0, 1) } else { (1, 0) };
        let target = nodes[target].mesh().local().id;
        let report = nodes[source].migrate(agent, target, options, None).await?;
        if rep >= 2 {
            row.downtime_us.push(report.downtime_us);
            row.total_us.push(report.total_us);
            row.bytes = report.bytes;
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
            floors.push(floor(nodes, hot_kib).await?);
        }
    }
    nodes[0].terminate(agent).await?;
    nodes[0].wait(agent).await?;
    row.floor_us = percentile(&mut floors, 50);
    Ok(row)
}

/// The hot set's bytes one way and an answer back.
async fn floor(nodes: &[Cells; 2], hot_kib: u32) -> Result<u64, Failure> {
    let mut stream = nodes[0]
        .mesh()
        .open_stream(&nodes[1].mesh().local().id, FLOOR)
        .await?;
    let mut hot = Bytes::from(vec![0x5a; hot_kib as usize * 1024]);
    let began = Instant::now();
    while !hot.is_empty() {
        let piece = hot.split_to(hot.len().min(PAYLOAD_BYTES_MAX));
        stream.send_frame_bytes(&[], piece).await?;
        stream.recv_frame(FrameLimit::default()).await?;
    }
    Ok(u64::try_from(began.elapsed().as_micros())?)
}

/// Fills its memory, says `x`, and then writes its hot set for ever.
fn program(mib: u32, hot_kib: u32) -> Result<Vec<u8>, Failure> {
    let (pages, end) = (mib * 16, mib << 20);
    let hot = end - hot_kib * 1024;
    let text = format!(
        r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") {pages})
        (func (export "_start")
            (local $at i32) (local $x i64)
            (local.set $at (i32.const 64))
            (loop $fill
                (i64.store (local.get $at) (i64.extend_i32_u (local.get $at)))
                (local.set $at (i32.add (local.get $at) (i32.const 64)))
                (br_if $fill (i32.lt_u (local.get $at) (i32.const {end}))))
            (i32.store (i32.const 0) (i32.const 16))
            (i32.store (i32.const 4) (i32.const 1))
            (i32.store8 (i32.const 16) (i32.const 120))
            (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            (loop $again
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
            "  MiB  strategy    downtime µs (median, p99)   total µs   floor µs      bytes"
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
        let (mib, strategy, floor, bytes, kib) =
            (row.mib, row.strategy, row.floor_us, row.bytes, row.hot_kib);
        if json {
            lines.push(format!(
                r#"{{"mib":{mib},"hot_kib":{kib},"strategy":"{strategy}","downtime_us_median":{median},"downtime_us_p99":{p99},"total_us_median":{total},"floor_us":{floor},"bytes":{bytes}}}"#
            ));
        } else {
            writeln!(
                out,
                "{mib:>5}  {strategy:<10} {median:>13} {p99:>13} {total:>10} {floor:>10} {bytes:>10}"
            )?;
            writeln!(out, "       the last one: {}", row.last)?;
        }
    }
    if json {
        writeln!(out, "[{}]", lines.join(","))?;
    }
    Ok(())
}
