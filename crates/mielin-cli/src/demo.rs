//! `mielin demo`: three nodes as three processes, and two programs that move between them while
//! they work and are talked to. Every result is checked.

mod cluster;
mod conversation;
mod reference;
mod report;

use std::time::Instant;

use bytes::Bytes;
use hyper::Method;
use mielin_wasm::Limits;

use crate::api::{AgentDetails, Ended, Moved, Spawn, Spawned};
use crate::args::DemoArgs;
use crate::client::{Client, agent_path, next_data};
use crate::commands::agent::move_agent;
use crate::daemon::stop_signals;
use crate::failure::Failure;
use crate::input::{PROGRAM_INPUT, read_file};
use crate::output::Output;
use cluster::Cluster;
use conversation::Conversation;
use reference::Reference;
use report::{Checks, MoveRow, Report};

/// The sample agents as `cargo xtask agents` built them from their sources in `agents/`.
const DIGEST: &[u8] = include_bytes!("../../../agents/prebuilt/digest.wasm");
const COUNTER: &[u8] = include_bytes!("../../../agents/prebuilt/counter.wasm");

/// The way of both agents, by the names of the nodes.
const WAY: [&str; 3] = ["edge", "relay", "core"];

/// How often the digest is started, with four times the rounds each time, until it lasts for the way.
const ATTEMPTS: u32 = 4;

pub(crate) async fn run(arguments: &DemoArgs, output: Output) -> Result<(), Failure> {
    let max = Limits::default().input_bytes;
    let input = read_file(&arguments.input, PROGRAM_INPUT, max)
        .map_err(|failure| failure.hint("name a file for the digest agent with --input FILE"))?;
    let interrupted = stop_signals()?;
    let mut cluster = Cluster::new()?;
    let told = tokio::select! {
        told = story(&mut cluster, &input, arguments, output) => told,
        () = interrupted => Err(Failure::refused("interrupted; the nodes were stopped")
            .hint("start it again with `mielin demo`")),
    };
    let told = told.map_err(|failure| cluster.explain(failure));
    cluster.stop().await;
    let report = told?;
    output.result(&report, report::text)?;
    match report.checks.failure() {
        None => Ok(()),
        Some(failure) => Err(failure),
    }
}

/// The whole demo but for the cleaning up.
async fn story(
    cluster: &mut Cluster,
    input: &[u8],
    arguments: &DemoArgs,
    output: Output,
) -> Result<Report, Failure> {
    let began = Instant::now();
    output.progress("starting three nodes, each a process of its own");
    cluster
        .start(|line| output.progress(format!("  {line}")))
        .await?;
    let nodes_up_us = micros(began);

    let mut reference = Reference::prepare(DIGEST, input, arguments.rounds)?;
    let edge = cluster.client("edge");
    let mut attempt = 1;
    let travel = loop {
        output.progress(format!(
            "\nstarting on edge: digest, {} rounds of SHA-256 over {} ({} bytes), and counter",
            reference.rounds(),
            arguments.input.display(),
            input.len(),
        ));
        let mut travel = Travel::begin(&edge, input, reference.rounds()).await?;
        output.progress("moving both while they work, and counter while it is talked to\n");
        match travel.go(&edge, output).await {
            Ok(()) => break travel,
            Err(_) if attempt < ATTEMPTS && travel.was_too_short(&edge).await? => {
                output.progress(
                    "\nthe digest was done before it was on core; once more, with four times the rounds",
                );
                travel.give_up(&edge).await?;
                reference.lengthen();
                attempt += 1;
            }
            Err(failure) => return Err(failure),
        }
    };
    let Travel {
        digest,
        counter,
        conversation,
        first_agent_us,
        moves,
    } = travel;

    output.progress("\nboth are on core; computing the digest here as well, by the plain module");
    let rounds = reference.rounds();
    let expected = reference.run();
    let (expected, ended) = tokio::join!(expected, wait(&edge, &digest));
    let (expected, ended) = (expected?, ended?);
    let printed = read_log(&edge, &digest, "stdout").await?;
    let messages = conversation.end().await?;
    // The counter has a last word too: how many messages it answered.
    wait(&edge, &counter).await?;
    let last_word = last_line(&read_log(&edge, &counter, "stdout").await?);
    let counter_agrees = last_word == format!("answered {}", messages.sent);
    let checks = Checks::new(
        &expected,
        &printed,
        ended.exit_code,
        messages,
        counter_agrees,
    );
    Ok(Report {
        input: arguments.input.display().to_string(),
        input_bytes: input.len() as u64,
        rounds,
        nodes_up_us,
        first_agent_us,
        total_us: micros(began),
        moves,
        digest: String::from_utf8_lossy(&printed).into_owned(),
        checks,
    })
}

/// The two agents on their way over the nodes.
struct Travel {
    digest: String,
    counter: String,
    conversation: Conversation,
    first_agent_us: u64,
    moves: Vec<MoveRow>,
}

impl Travel {
    /// Starts both on edge; the digest is in the middle of its rounds then.
    async fn begin(edge: &Client, input: &[u8], rounds: u64) -> Result<Travel, Failure> {
        let began = Instant::now();
        let digest = spawn(edge, "digest", DIGEST, input, vec![rounds.to_string()]).await?;
        first_progress(edge, &digest).await?;
        let first_agent_us = micros(began);
        let counter = spawn(edge, "counter", COUNTER, &[], Vec::new()).await?;
        let conversation = Conversation::begin(edge.clone(), counter.clone());
        Ok(Travel {
            digest,
            counter,
            conversation,
            first_agent_us,
            moves: Vec::new(),
        })
    }

    /// Moves both to core, the digest while it computes, the counter while it is talked to.
    async fn go(&mut self, edge: &Client, output: Output) -> Result<(), Failure> {
        for leg in WAY.windows(2) {
            for (name, agent) in [("digest", &self.digest), ("counter", &self.counter)] {
                self.conversation.heard_more().await?;
                if name == "digest" {
                    still_computing(edge, agent, leg[0]).await?;
                }
                let moved = move_and_tell(edge, name, agent, leg, output).await?;
                self.moves.push(MoveRow::new(name, leg[0], leg[1], moved));
            }
        }
        still_computing(edge, &self.digest, "core").await?;
        self.conversation.heard_more().await
    }

    /// Whether the digest ended by itself: how long its rounds take was measured while the machine
    /// had other things to do.
    async fn was_too_short(&self, edge: &Client) -> Result<bool, Failure> {
        let details: AgentDetails = edge.get(&agent_path(&self.digest, "")).await?;
        Ok(details.state == "ended")
    }

    /// Ends the counter, whose name the next attempt needs.
    async fn give_up(self, edge: &Client) -> Result<(), Failure> {
        self.conversation.end().await?;
        wait(edge, &self.counter).await.map(drop)
    }
}

async fn spawn(
    client: &Client,
    name: &str,
    module: &[u8],
    stdin: &[u8],
    args: Vec<String>,
) -> Result<String, Failure> {
    let request = Spawn {
        module: module.to_vec(),
        name: Some(name.to_owned()),
        stdin: stdin.to_vec(),
        args,
        ..Spawn::default()
    };
    let spawned: Spawned = client.post("/v1/agents", &request).await?;
    Ok(spawned.agent)
}

/// Waits until the digest says that it is in the middle of its chain.
async fn first_progress(client: &Client, digest: &str) -> Result<(), Failure> {
    let path = agent_path(digest, "/logs?stream=stderr&follow=true");
    let mut body = client
        .open(Method::GET, &path, Bytes::new())
        .await?
        .into_body();
    let mut written = String::new();
    while let Some(data) = next_data(&mut body).await? {
        written.push_str(&String::from_utf8_lossy(&data));
        if written.contains("round") {
            return Ok(());
        }
    }
    Err(Failure::internal(format!(
        "the digest ended at once and wrote: {}",
        written.trim()
    )))
}

/// A move of a program that has ended would show nothing.
async fn still_computing(client: &Client, digest: &str, node: &str) -> Result<(), Failure> {
    let details: AgentDetails = client.get(&agent_path(digest, "")).await?;
    if matches!(details.state.as_str(), "ended" | "failed") {
        return Err(Failure::internal(format!(
            "the digest was done on {node} before it could move on"
        )));
    }
    if details.node_name != node {
        return Err(Failure::internal(format!(
            "the digest should be on {node} and is on {}",
            details.node_name
        )));
    }
    Ok(())
}

async fn move_and_tell(
    client: &Client,
    name: &str,
    agent: &str,
    leg: &[&str],
    output: Output,
) -> Result<Moved, Failure> {
    output.progress_part(format!("{name:<8} {} → {}: ", leg[0], leg[1]));
    let mut shown = String::new();
    let moving = move_agent(client, agent, leg[1], "auto", None, |phase, _| {
        if phase != shown {
            let comma = if shown.is_empty() { "" } else { ", " };
            output.progress_part(format!("{comma}{phase}"));
            phase.clone_into(&mut shown);
        }
    });
    let moved = moving.await;
    output.progress("");
    let moved = moved?;
    let line = last_line(&read_log(client, agent, "stderr").await?);
    if !line.is_empty() {
        output.progress(format!("         it last said \"{line}\""));
    }
    Ok(moved)
}

async fn wait(client: &Client, agent: &str) -> Result<Ended, Failure> {
    client.get(&agent_path(agent, "/wait")).await
}

async fn read_log(client: &Client, agent: &str, stream: &str) -> Result<Vec<u8>, Failure> {
    let path = agent_path(agent, &format!("/logs?stream={stream}"));
    let mut body = client
        .open(Method::GET, &path, Bytes::new())
        .await?
        .into_body();
    let mut log = Vec::new();
    while let Some(data) = next_data(&mut body).await? {
        log.extend_from_slice(&data);
    }
    Ok(log)
}

fn last_line(log: &[u8]) -> String {
    String::from_utf8_lossy(log)
        .lines()
        .last()
        .unwrap_or_default()
        .to_owned()
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
