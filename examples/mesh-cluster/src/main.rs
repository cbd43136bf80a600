//! Three nodes and two programs that move between them while they work.
//!
//! This is what `mielin demo` shows, written as library code: the nodes live in one process, but
//! they speak to each other over QUIC and TLS as they would across the world. Run it with
//!
//! ```text
//! cargo run --release -p mesh-cluster
//! ```
//!
//! It reads from top to bottom: a mesh, agents, messages, moves, and the proof that nothing was
//! lost on the way.

// An example may talk to its reader.
#![allow(clippy::print_stdout)]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use mielin::mesh::{JoinRequest, join};
use mielin::prelude::*;

/// Sample agents, built from `agents/` by `cargo xtask agents`.
const DIGEST: &[u8] = include_bytes!("../../../agents/prebuilt/digest.wasm");
const COUNTER: &[u8] = include_bytes!("../../../agents/prebuilt/counter.wasm");

/// What the digest reads, and how many rounds of SHA-256 it computes over it: some seconds.
const INPUT: &[u8] = include_bytes!("main.rs");
const ROUNDS: &str = "8000000";

/// Port 0 takes a free port.
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // ── A mesh ──────────────────────────────────────────────────────────────────────────────────
    // A node keeps its key, its certificate and its agents in a directory of its own.
    let dir = tempfile::tempdir()?;
    let core = found(&dir.path().join("core")).await?;
    let relay = join_through(&core, &dir.path().join("relay"), "relay", NodeRole::Relay).await?;
    let edge = join_through(&core, &dir.path().join("edge"), "edge", NodeRole::Edge).await?;
    for node in [&core, &relay, &edge] {
        wait_for_members(node, 3).await?;
        let local = node.mesh().local();
        println!("{:<5}  {}  {}", local.name, local.address, local.id.short());
    }

    // ── Agents ──────────────────────────────────────────────────────────────────────────────────
    // Any WASI preview-1 command can be an agent. It may do nothing that it was not granted; these
    // two need nothing, because computing, logging and answering messages is free to all.
    let digest = edge.spawn(digest_request("digest")).await?;
    let counter = edge
        .spawn(SpawnRequest {
            name: Some("counter".into()),
            ..SpawnRequest::new(COUNTER)
        })
        .await?;
    println!("\ndigest {digest}\ncounter {counter}");

    // ── Messages ────────────────────────────────────────────────────────────────────────────────
    // An agent's address stays the same wherever it goes, so whoever talks to it need not know
    // that it moves. This task never stops talking, and checks every answer.
    let stop = Arc::new(AtomicBool::new(false));
    let conversation = tokio::spawn(converse(edge.clone(), counter, Arc::clone(&stop)));

    // ── Moves ───────────────────────────────────────────────────────────────────────────────────
    // Both agents are in the middle of something: a loop, or a wait for the next message.
    for target in [&relay, &core] {
        let node = target.mesh().local();
        for agent in [digest, counter] {
            let report = edge
                .migrate(agent, node.id, MoveOptions::default(), None)
                .await?;
            println!(
                "{agent} moved to {}: {} bytes in {} µs, of which it stood still for {} µs ({})",
                node.name, report.bytes, report.total_us, report.downtime_us, report.strategy,
            );
        }
    }
    let now = core.inspect(digest).await?;
    ensure!(
        now.node == core.mesh().local().id,
        "the digest is on the core node"
    );
    ensure!(!now.state.is_final(), "and it is still computing");

    // ── The proof ───────────────────────────────────────────────────────────────────────────────
    stop.store(true, Ordering::Relaxed);
    let sent = conversation.await??;
    // The counter has a last word too: how many messages it answered, over all its moves.
    let last_word = output_of(&edge, counter).await?;
    ensure!(
        last_word == format!("answered {sent}\n"),
        "{sent} messages were sent, and the counter {last_word}"
    );
    println!("\n{sent} messages, each answered once and in order");

    let stayed = core.spawn(digest_request("digest-that-stays")).await?;
    let (travelled, stayed) = tokio::try_join!(output_of(&edge, digest), output_of(&core, stayed))?;
    ensure!(
        travelled == stayed,
        "the digest that moved differs from the one that stayed"
    );
    println!("the digest that moved twice equals the one that never did:\n\n{travelled}");

    for node in [edge, relay, core] {
        node.shutdown().await;
        node.mesh().shutdown().await;
    }
    Ok(())
}

/// The first node of a mesh makes its root, and is the one that admits others.
async fn found(dir: &Path) -> anyhow::Result<Cells> {
    let credentials = create_mesh(dir, "core", NodeRole::Core)?;
    start(dir, MeshConfig::new(ANY_PORT), credentials).await
}

/// A node joins with a token, which is good for one node. From then on it holds a certificate, and
/// every connection between nodes is mutually authenticated.
async fn join_through(
    member: &Cells,
    dir: &Path,
    name: &str,
    role: NodeRole,
) -> anyhow::Result<Cells> {
    let authority = member
        .mesh()
        .authority()
        .context("only the founder admits nodes")?;
    let token = authority.issue_token(Some(role), Duration::from_secs(60))?;
    let address = member.mesh().local().address;
    let request = JoinRequest {
        address,
        token: Some(token),
        name: name.into(),
        role,
    };
    let credentials = join(dir, request, |_progress| {}).await?;
    start(
        dir,
        MeshConfig::new(ANY_PORT).bootstrap(address),
        credentials,
    )
    .await
}

/// A node is a place in the mesh ([`MeshService`]) and the agents on top of it ([`Cells`]).
async fn start(
    dir: &Path,
    config: MeshConfig,
    credentials: NodeCredentials,
) -> anyhow::Result<Cells> {
    let mesh = MeshService::start(config, credentials).await?;
    let config = CellsConfig {
        data_dir: Some(dir.to_path_buf()),
        ..CellsConfig::default()
    };
    Ok(Cells::start(config, mesh).await?)
}

/// Membership spreads by gossip. Subscribe first, look second, and no event is missed.
async fn wait_for_members(node: &Cells, count: usize) -> anyhow::Result<()> {
    let mut events = node.mesh().subscribe();
    let met = async {
        while node.mesh().members().len() < count {
            events.recv().await?;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(30), met)
        .await
        .context("the nodes did not find each other")?
}

fn digest_request(name: &str) -> SpawnRequest {
    SpawnRequest {
        name: Some(name.into()),
        args: vec![ROUNDS.into()],
        stdin: INPUT.into(),
        ..SpawnRequest::new(DIGEST)
    }
}

/// Sends numbered messages one after the other, and at the end `stop`. The counter answers
/// `COUNT: MESSAGE`, so a message that was lost or delivered twice would show in its count at once.
async fn converse(cells: Cells, counter: AgentId, stop: Arc<AtomicBool>) -> anyhow::Result<u64> {
    for number in 1.. {
        let last = stop.load(Ordering::Relaxed);
        let message = if last {
            "stop".to_owned()
        } else {
            format!("message {number}")
        };
        let reply = cells
            .request(counter, message.clone().into(), Duration::from_secs(45))
            .await?;
        let reply = String::from_utf8_lossy(&reply);
        ensure!(
            reply == format!("{number}: {message}"),
            "message {number} was answered with `{reply}`"
        );
        if last {
            return Ok(number);
        }
    }
    unreachable!("the numbers do not end")
}

/// Waits until an agent has ended, wherever it is by then, and reads all that it printed.
async fn output_of(cells: &Cells, agent: AgentId) -> anyhow::Result<String> {
    let end = cells.wait(agent).await?;
    ensure!(
        end.exit_code == 0,
        "{agent} ended with {}: {:?}",
        end.exit_code,
        end.failure
    );
    let mut log = cells.logs(agent, LogKind::Stdout, 0, false);
    let mut output = Vec::new();
    while let Some(bytes) = log.next().await? {
        output.extend_from_slice(&bytes);
    }
    Ok(String::from_utf8(output)?)
}
