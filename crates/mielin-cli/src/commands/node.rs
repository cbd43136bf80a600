//! `mielin node`.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::trouble;
use crate::api::NodeInfo;
use crate::client::Client;
use crate::duration::format_bytes;
use crate::failure::{Class, Failure};
use crate::machine::Machine;
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
    let memory = match (machine.memory_bytes, machine.memory_available_bytes) {
        (Some(total), Some(free)) => {
            format!("{}, {} available", format_bytes(total), format_bytes(free))
        }
        (Some(total), None) => format_bytes(total),
        _ => "unknown".to_owned(),
    };
    let mut pairs = vec![
        ("architecture", machine.architecture.clone()),
        ("system", machine.os.clone()),
        ("cores", machine.cores.to_string()),
        ("memory", memory),
        ("features", machine.features.join(" ")),
    ];
    if let Some(celsius) = machine.hottest_celsius {
        pairs.push(("temperature", format!("{celsius:.0} °C")));
    }
    if let (Some(percent), Some(charging)) = (machine.battery_percent, machine.charging) {
        pairs.push((
            "battery",
            format!(
                "{percent} %, {}",
                if charging { "charging" } else { "discharging" }
            ),
        ));
    }
    fields(&pairs)
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
