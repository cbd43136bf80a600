//! `mielin node`.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::trouble;
use crate::api::NodeInfo;
use crate::client::Client;
use crate::duration::format_bytes;
use crate::failure::{Class, Failure};
use crate::machine::{Machine, MachineCache};
use crate::output::{Output, fields};

#[derive(Serialize)]
struct Info {
    machine: Machine,
    /// `None` when no daemon runs.
    node: Option<NodeInfo>,
}

/// Shows the machine, and the node if there is one: no daemon is no failure here.
pub(crate) async fn info(data_dir: &Path, output: Output) -> Result<(), Failure> {
    let node = match Client::new(data_dir).get::<NodeInfo>("/v1/node").await {
        Ok(node) => Some(node),
        Err(failure) if failure.class == Class::Unreachable => None,
        Err(failure) => return Err(failure),
    };
    let info = Info {
        machine: Machine::detect(),
        node,
    };
    output.result(&info, |info| {
        let mut text = machine_text(&info.machine);
        text.push('\n');
        match &info.node {
            Some(node) => {
                text.push_str(&node_text(node));
                text.push_str(&trouble::text(&node.trouble));
            }
            None => text.push_str(&format!(
                "no daemon is running for {}\n",
                data_dir.display()
            )),
        }
        text
    })
}

fn machine_text(machine: &Machine) -> String {
    let mut pairs = vec![
        ("architecture", machine.architecture.clone()),
        ("system", machine.os.clone()),
    ];
    pairs.extend(machine.model.clone().map(|model| ("processor", model)));
    pairs.push(("processors", processors_text(machine)));
    pairs.extend(clock_text(machine).map(|clock| ("clock", clock)));
    if !machine.caches.is_empty() {
        let caches: Vec<String> = machine.caches.iter().map(cache_text).collect();
        pairs.push(("caches", caches.join(", ")));
    }
    pairs.push(("memory", memory_text(machine)));
    pairs.extend(pages_text(machine).map(|pages| ("pages", pages)));
    pairs.push(("features", machine.features.join(" ")));
    if let Some(bits) = machine.vector_bits {
        pairs.push(("vectors", format!("{bits} bits")));
    }
    if let Some(celsius) = machine.hottest_celsius {
        pairs.push(("temperature", format!("{celsius:.0} °C")));
    }
    pairs.extend(machine.power.clone().map(|source| ("power", source)));
    if let (Some(percent), Some(charge)) = (machine.battery_percent, &machine.battery_charge) {
        pairs.push(("battery", format!("{percent} %, {charge}")));
    }
    fields(&pairs)
}

fn processors_text(machine: &Machine) -> String {
    let usable = machine.usable_processors;
    let mut text = match machine.logical_processors {
        Some(all) if all as usize != usable => format!("{all}, of which {usable} may be used"),
        _ => usable.to_string(),
    };
    if let Some(cores) = machine.cores {
        text.push_str(&format!(", on {cores} {}", plural(cores, "core")));
    }
    if let Some(packages) = machine.packages {
        text.push_str(&format!(" in {packages} {}", plural(packages, "package")));
    }
    text
}

fn plural(count: u32, word: &str) -> String {
    match count {
        1 => word.to_owned(),
        _ => format!("{word}s"),
    }
}

fn clock_text(machine: &Machine) -> Option<String> {
    let rates = [
        (machine.current_hz, "at the moment"),
        (machine.base_hz, "base"),
        (machine.max_hz, "at most"),
    ];
    let known = rates.iter().filter_map(|(hz, what)| {
        Some(format!(
            "{:.2} GHz {what}",
            hz.as_ref().copied()? as f64 / 1e9
        ))
    });
    let known: Vec<String> = known.collect();
    (!known.is_empty()).then(|| known.join(", "))
}

/// `L1 data 32 KiB × 2`.
fn cache_text(cache: &MachineCache) -> String {
    let kind = match cache.kind.as_str() {
        "unified" => String::new(),
        kind => format!(" {kind}"),
    };
    let size = format_bytes(cache.size_bytes);
    match cache.instances {
        Some(instances) if instances > 1 => format!("L{}{kind} {size} × {instances}", cache.level),
        _ => format!("L{}{kind} {size}", cache.level),
    }
}

fn memory_text(machine: &Machine) -> String {
    match (machine.memory_bytes, machine.memory_available_bytes) {
        (Some(total), Some(free)) => {
            format!("{}, {} available", format_bytes(total), format_bytes(free))
        }
        (Some(total), None) => format_bytes(total),
        _ => "unknown".to_owned(),
    }
}

fn pages_text(machine: &Machine) -> Option<String> {
    let sizes = machine.page_bytes.iter().chain(&machine.huge_page_bytes);
    let sizes: Vec<String> = sizes.map(|bytes| format_bytes(*bytes)).collect();
    (!sizes.is_empty()).then(|| sizes.join(", "))
}

/// How long a certificate is good that ends then.
fn lifetime(expires_s: u64) -> String {
    let end = UNIX_EPOCH + Duration::from_secs(expires_s);
    match end.duration_since(SystemTime::now()) {
        Ok(left) if left.as_secs() >= 2 * 24 * 3600 => {
            format!("good for {} days", left.as_secs() / (24 * 3600))
        }
        Ok(left) => format!("good for {} h", left.as_secs() / 3600),
        Err(_) => "has ended: nobody lets this node in any more".to_owned(),
    }
}

fn node_text(node: &NodeInfo) -> String {
    let mut pairs = vec![
        ("node", node.node.clone()),
        ("name", node.name.clone()),
        (
            "role",
            if node.root {
                format!("{}, holds the mesh's root", node.role)
            } else {
                node.role.clone()
            },
        ),
        ("mesh", node.mesh.clone()),
        ("address", node.address.clone()),
        ("certificate", lifetime(node.certificate_expires_s)),
        ("engine", node.engine.clone()),
        ("version", node.version.clone()),
        ("process", format!("{}, up {} s", node.pid, node.uptime_s)),
        ("data", node.data_dir.clone()),
        (
            "limits",
            format!(
                "{} agents, of which {} stay ready to run while they do not",
                node.limits.agents_max, node.limits.live_instances_max
            ),
        ),
    ];
    if !node.off.is_empty() {
        pairs.push(("off", node.off.join(" ")));
    }
    fields(&pairs)
}
