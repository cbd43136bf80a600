//! `mielin mesh ping`, `lookup` and `metrics`.

use serde::Serialize;

use crate::api::{LookedUp, Lookup, NodeName, Ping, Pong, Route, Way};
use crate::args::{LookupArgs, PingArgs, RouteArgs};
use crate::client::Client;
use crate::failure::{Class, Failure};
use crate::output::{Output, fields, short, table};

/// What `mesh ping -o json` prints; times in microseconds.
#[derive(Serialize)]
struct Pings {
    node: String,
    name: String,
    /// `None` when the way goes through a relay.
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relay: Option<NodeName>,
    sent: u32,
    answered: usize,
    rtt_min_us: u64,
    rtt_median_us: u64,
    rtt_max_us: u64,
}

pub(super) async fn ping(
    client: &Client,
    arguments: PingArgs,
    output: Output,
) -> Result<(), Failure> {
    let request = Ping {
        node: arguments.node,
    };
    let mut times = Vec::new();
    let mut answered: Option<Pong> = None;
    let mut lost = None;
    for _ in 0..arguments.count {
        match client.post::<Pong>("/v1/mesh/ping", &request).await {
            Ok(pong) => {
                times.push(pong.rtt_us);
                answered = Some(pong);
            }
            Err(failure) if failure.class == Class::Unreachable => lost = Some(failure),
            Err(failure) => return Err(failure),
        }
    }
    times.sort_unstable();
    let (pong, min, max) = match (answered, times.first(), times.last(), lost) {
        (Some(pong), Some(min), Some(max), _) => (pong, *min, *max),
        (.., Some(failure)) => return Err(failure),
        _ => return Err(Failure::usage("nothing was sent").hint("give a --count of 1 or more")),
    };
    let pings = Pings {
        node: pong.node,
        name: pong.name,
        address: pong.address,
        relay: pong.relay,
        sent: arguments.count,
        answered: times.len(),
        rtt_min_us: min,
        rtt_median_us: times[times.len() / 2],
        rtt_max_us: max,
    };
    output.result(&pings, |pings| {
        let way = match (&pings.address, &pings.relay) {
            (Some(address), _) => format!("at {address}"),
            (None, Some(relay)) => format!("via {}", node_name(relay)),
            (None, None) => "via a relay".to_owned(),
        };
        format!(
            "{} ({}) {way}: {} of {} answered; {} / {} / {} ms (min / median / max)\n",
            pings.name,
            short(&pings.node),
            pings.answered,
            pings.sent,
            milliseconds(pings.rtt_min_us),
            milliseconds(pings.rtt_median_us),
            milliseconds(pings.rtt_max_us),
        )
    })
}

pub(super) async fn route(
    client: &Client,
    arguments: RouteArgs,
    output: Output,
) -> Result<(), Failure> {
    let request = Ping {
        node: arguments.node,
    };
    let route: Route = client.post("/v1/mesh/route", &request).await?;
    output.result(&route, |route| {
        let to = format!("{} ({})", route.name, short(&route.node));
        match &route.way {
            Way::Direct { address, rtt_us } => {
                let rtt = milliseconds(*rtt_us);
                format!("{to}: direct, {address}, {rtt} ms\n")
            }
            Way::Relayed { relay, rtt_us } => {
                let relay = relay.as_ref().map_or("a relay".to_owned(), node_name);
                format!("{to}: via {relay}, {} ms\n", milliseconds(*rtt_us))
            }
            Way::Routed { hops } => {
                let rows: Vec<_> = hops
                    .iter()
                    .enumerate()
                    .map(|(index, hop)| {
                        [
                            (index + 1).to_string(),
                            node_name(&hop.node),
                            milliseconds(hop.rtt_us),
                            short(&hop.node.node).to_owned(),
                        ]
                    })
                    .collect();
                let hops = table(&["HOP", "NAME", "MS", "NODE"], &rows);
                format!("{to}: no connection; members hand messages on\n\n{hops}")
            }
        }
    })
}

/// What `mesh metrics -o json` prints.
#[derive(Serialize)]
struct Metrics {
    prometheus: String,
}

pub(super) async fn metrics(client: &Client, output: Output) -> Result<(), Failure> {
    let metrics = Metrics {
        prometheus: client.text("/v1/mesh/metrics").await?,
    };
    output.result(&metrics, |metrics| metrics.prometheus.clone())
}

fn milliseconds(microseconds: u64) -> String {
    format!("{:.2}", microseconds as f64 / 1000.0)
}

pub(super) async fn look_up(
    client: &Client,
    arguments: LookupArgs,
    output: Output,
) -> Result<(), Failure> {
    let request = Lookup {
        agent: arguments.agent,
    };
    let found: LookedUp = client.post("/v1/mesh/lookup", &request).await?;
    output.result(&found, |found| {
        let rows: Vec<_> = found
            .agents
            .iter()
            .map(|agent| {
                [
                    agent.name.clone(),
                    agent.state.clone(),
                    node_name(&agent.at),
                    agent.epoch.to_string(),
                    agent.agent.clone(),
                ]
            })
            .collect();
        let nearest: Vec<String> = found.closest.iter().take(3).map(node_name).collect();
        let nearest = match nearest.as_slice() {
            [] => "no other node".to_owned(),
            nearest => nearest.join(", "),
        };
        let how = fields(&[
            ("hops", found.hops.to_string()),
            ("asked", found.queries.to_string()),
            ("nearest", nearest),
        ]);
        format!(
            "{}\n{how}",
            table(&["NAME", "STATE", "NODE", "EPOCH", "AGENT"], &rows)
        )
    })
}

pub(super) fn node_name(node: &NodeName) -> String {
    let short = || short(&node.node).to_owned();
    node.name.clone().unwrap_or_else(short)
}
