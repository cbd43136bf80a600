//! How fast is the mesh's wire beside what it stands on? Two processes on
//! loopback, each with one thread of work: plain TCP, TLS 1.3 over TCP, raw
//! quinn as it comes, raw quinn tuned, frames on streams between members, and
//! messages between the mailboxes of agents on two nodes.
//!
//! Rounds alternate the contenders, so that another load on the machine meets
//! all of them; medians over rounds are reported, losses too. `cargo xtask bench
//! mesh [-o json]` starts it on one processor, which both processes share. `--only
//! NAME` runs one contender alone, and `--work bulk|small|rtt` one kind of work, for a
//! profile.

mod figures;
mod floor;
mod mail;
mod ours;
mod process;
mod quic;
mod work;

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mielin_mesh_core::NodeRole;
use mielin_mesh_wire::{Authority, Endpoint, create_mesh};

use figures::{FRAMES, NAMES, Report, Samples, TUNED, quantile_us};
use process::{Server, Tls};
use quic::Setting;
use work::{Kind, RoundTrips, Work};

const BULK: Work = Work {
    kind: Kind::Bulk,
    count: 12,
};
const SMALL: Work = Work {
    kind: Kind::Small,
    count: 150_000,
};
const ROUND_TRIPS: Work = Work {
    kind: Kind::RoundTrip,
    count: 4_000,
};
const HANDSHAKES: u32 = 50;
const IDLE_PEERS: usize = 50;
const TOKEN_LIFE: Duration = Duration::from_secs(600);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    if arguments.first().is_some_and(|first| first == "serve") {
        return runtime.block_on(serve());
    }
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)
    };
    let rounds = value("--rounds").map_or(Ok(7), |rounds| rounds.parse())?;
    let only = match value("--only") {
        Some(name) => {
            let who = NAMES.iter().position(|other| other == name);
            Some(who.with_context(|| format!("one of {NAMES:?}"))?)
        }
        None => None,
    };
    let kinds = match value("--work").map(String::as_str) {
        None => vec![Kind::Bulk, Kind::Small, Kind::RoundTrip],
        Some("bulk") => vec![Kind::Bulk],
        Some("small") => vec![Kind::Small],
        Some("rtt") => vec![Kind::RoundTrip],
        Some(other) => anyhow::bail!("{other} is none of bulk, small and rtt"),
    };
    // In a task like any other: what `block_on` runs itself has its turn after all tasks.
    let report = runtime.block_on(runtime.spawn(measure(rounds, only, kinds)))??;
    let json = value("-o").is_some_and(|form| form == "json");
    let text = if json { report.json() } else { report.text() };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// The second process: serves every contender until its input ends.
async fn serve() -> Result<()> {
    let line = || {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line)?;
        anyhow::ensure!(line.ends_with('\n'), "the input ends too soon");
        Ok(line.trim_end().to_owned())
    };
    let (path, founder, tokens, tls) = (line()?, line()?, line()?, Tls::parse(&line()?, &line()?)?);
    let (token, mail_token) = tokens.split_once(' ').context("two tokens")?;
    let config = Arc::new(tls.server()?);
    let credentials = ours::become_member(path.as_ref(), &founder, token.parse()?).await?;
    let endpoint = ours::bind(&credentials).await?;
    let mail_path = format!("{path}-mail");
    let post = mail::start(mail_path.as_ref(), &founder, mail_token.parse()?, None).await?;
    tokio::spawn(mail::answer(Arc::clone(&post)));
    let addresses = [
        floor::serve_tcp()?,
        floor::serve_tls(config)?,
        quic::serve(Setting::AsItComes, tls.server()?)?,
        quic::serve(Setting::Tuned, tls.server()?)?,
        endpoint.local_address(),
        post.address(),
    ];
    let addresses = addresses.map(|address| address.to_string()).join(" ");
    let mut out = std::io::stdout();
    writeln!(out, "{addresses} {} {}", credentials.id(), post.node())?;
    out.flush()?;
    // The client keeps our input open for as long as it wants answers.
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_line(&mut String::new());
        ended.send(())
    });
    Ok(end.await?)
}

/// The connections that the rounds use.
struct Contenders {
    tcp: std::net::TcpStream,
    tls: floor::TlsStream,
    quinn: quinn::Connection,
    tuned: quinn::Connection,
    ours: mielin_mesh_wire::Peer,
    post: Arc<mail::Post>,
    post_server: mielin_mesh_core::NodeId,
}

impl Contenders {
    async fn run(&mut self, who: usize, work: Work) -> Result<RoundTrips> {
        match who {
            0 => floor::run(&mut self.tcp, work),
            1 => floor::run(&mut self.tls, work),
            2 => quic::run(Setting::AsItComes, &self.quinn, work).await,
            3 => quic::run(Setting::Tuned, &self.tuned, work).await,
            4 => ours::run(&self.ours, work).await,
            _ => mail::run(&self.post, self.post_server, work).await,
        }
    }
}

async fn measure(rounds: usize, only: Option<usize>, kinds: Vec<Kind>) -> Result<Report> {
    let dir = tempfile::tempdir()?;
    let founder = create_mesh(&dir.path().join("founder"), "founder", NodeRole::Core)?;
    let authority = founder
        .authority()
        .context("the founder has the root")?
        .clone();
    let endpoint = ours::bind(&founder).await?;
    let tls = Tls::make()?;
    let issue = || authority.issue_token(None, TOKEN_LIFE);
    let tokens = format!("{} {}", issue()?, issue()?);
    let home = endpoint.local_address().to_string();
    let server = Server::start(&dir.path().join("server"), &home, &tokens, &tls).await?;
    let quinn = quic::client(Setting::AsItComes, tls.client()?)?;
    let tuned = quic::client(Setting::Tuned, tls.client()?)?;
    let client = Arc::new(tls.client()?);
    let mail_path = dir.path().join("client-mail");
    let post = mail::start(&mail_path, &home, issue()?, Some(server.addresses[5])).await?;
    post.knows(&server.nodes[1]).await?;
    let mut contenders = Contenders {
        tcp: floor::dial_tcp(server.addresses[0])?,
        tls: floor::dial_tls(server.addresses[1], &client)?,
        quinn: quinn.connect(server.addresses[2], "localhost")?.await?,
        tuned: tuned.connect(server.addresses[3], "localhost")?.await?,
        ours: endpoint
            .connect(&server.nodes[0], server.addresses[4])
            .await?,
        post,
        post_server: server.nodes[1],
    };
    // First of all, while the server has no freed memory to use again.
    let idle_peer_kib = idle_peers(dir.path(), &authority, &home, &server).await?;
    let mut samples: [Samples; NAMES.len()] = Default::default();
    // The first round warms up and does not count.
    for round in 0..=rounds {
        writeln!(std::io::stderr(), "round {round} of {rounds}")?;
        for (who, samples) in samples.iter_mut().enumerate() {
            if only.is_some_and(|only| only != who) {
                continue;
            }
            let mut fresh = Samples::default();
            let kept = if round == 0 { &mut fresh } else { samples };
            sample(&mut contenders, who, &kinds, &server, kept).await?;
        }
    }
    // These leave connections behind, so they come last.
    let handshake_rounds = if only.is_some() { 0 } else { rounds };
    for _ in 0..handshake_rounds {
        let raw = handshakes(&tuned, &server).await?;
        samples[TUNED].handshakes_per_s.push(raw);
        let own = own_handshakes(&endpoint, &server).await?;
        samples[FRAMES].handshakes_per_s.push(own);
    }
    let idle_peers = IDLE_PEERS;
    Ok(Report {
        samples,
        idle_peer_kib,
        idle_peers,
        processors: std::thread::available_parallelism()?.get(),
    })
}

/// One round of one contender.
async fn sample(
    contenders: &mut Contenders,
    who: usize,
    kinds: &[Kind],
    server: &Server,
    samples: &mut Samples,
) -> Result<()> {
    for work in [BULK, SMALL] {
        if !kinds.contains(&work.kind) {
            continue;
        }
        let (begun, cpu) = (Instant::now(), server.cpu_seconds()?);
        contenders.run(who, work).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let cpu = server.cpu_seconds()? - cpu;
        if work.kind == Kind::Bulk {
            samples.bulk_mb_s.push(work.bytes() as f64 / 1e6 / seconds);
            samples
                .bulk_cpu_s_per_gb
                .push(cpu * 1e9 / work.bytes() as f64);
        } else {
            samples.small_per_s.push(f64::from(work.count) / seconds);
            samples.small_cpu_us.push(cpu * 1e6 / f64::from(work.count));
        }
    }
    if !kinds.contains(&Kind::RoundTrip) {
        return Ok(());
    }
    let mut times = contenders.run(who, ROUND_TRIPS).await?;
    samples.rtt_us.push(quantile_us(&mut times, 0.5));
    samples.rtt_p99_us.push(quantile_us(&mut times, 0.99));
    Ok(())
}

async fn handshakes(client: &quinn::Endpoint, server: &Server) -> Result<f64> {
    let begun = Instant::now();
    for _ in 0..HANDSHAKES {
        let connection = client.connect(server.addresses[3], "localhost")?.await?;
        connection.close(0_u32.into(), b"");
    }
    Ok(f64::from(HANDSHAKES) / begun.elapsed().as_secs_f64())
}

/// Both sides show certificates, and the acceptor's word is waited for.
async fn own_handshakes(endpoint: &Endpoint, server: &Server) -> Result<f64> {
    let dialler = endpoint;
    let begun = Instant::now();
    for _ in 0..HANDSHAKES {
        dialler.connect_any(server.addresses[4]).await?;
    }
    Ok(f64::from(HANDSHAKES) / begun.elapsed().as_secs_f64())
}

/// What the server's memory grows by for a peer that says nothing.
async fn idle_peers(
    dir: &std::path::Path,
    authority: &Authority,
    home: &str,
    server: &Server,
) -> Result<f64> {
    // Together: a joiner lingers for the last word that it says.
    let mut joining = tokio::task::JoinSet::new();
    for number in 0..IDLE_PEERS {
        let token = authority.issue_token(None, TOKEN_LIFE)?;
        let (path, home) = (dir.join(format!("peer-{number}")), home.to_owned());
        joining.spawn(async move {
            let credentials = ours::become_member(&path, &home, token).await?;
            ours::bind(&credentials).await
        });
    }
    let mut members = Vec::new();
    while let Some(member) = joining.join_next().await {
        members.push(member??);
    }
    let before = server.memory_kib()?;
    let mut peers = Vec::new();
    for member in &members {
        peers.push(
            member
                .connect(&server.nodes[0], server.addresses[4])
                .await?,
        );
    }
    let after = server.memory_kib()?;
    for member in &members {
        member.close().await;
    }
    Ok((after - before) / peers.len() as f64)
}
