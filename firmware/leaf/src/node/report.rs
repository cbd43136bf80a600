//! What a node says of itself.

use alloc::string::String;
use core::fmt;

use mielin_hal::BatteryStatus;
use mielin_mesh_core::handover::Reason;
use mielin_mesh_core::{AgentId, Epoch};
use mielin_rt::BatteryEvent;
use mielin_wasm::Trap;

use crate::ModelChange;

/// What has happened, for whoever reads the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The host knows the node, and has said what time it is.
    Welcomed {
        /// Nanoseconds since 1970.
        real_ns: u64,
    },
    /// An agent is here whole and does not run.
    Arrived {
        /// The agent.
        agent: AgentId,
        /// The length of its checkpoint.
        bytes: usize,
    },
    /// An agent that was offered is not taken.
    Declined {
        /// The agent.
        agent: AgentId,
        /// Why.
        reason: Reason,
        /// The engine's own words, if it has any.
        words: String,
    },
    /// An agent runs.
    Runs {
        /// The agent.
        agent: AgentId,
    },
    /// The host keeps an agent that was here whole.
    Cancelled {
        /// The agent.
        agent: AgentId,
    },
    /// An agent is frozen and offered to the host.
    Offered {
        /// The agent.
        agent: AgentId,
        /// In this epoch.
        epoch: Epoch,
        /// The length of its checkpoint.
        bytes: usize,
    },
    /// An agent is the host's.
    HandedOver {
        /// The agent.
        agent: AgentId,
    },
    /// The host does not take an agent, which goes on here.
    NotTaken {
        /// The agent.
        agent: AgentId,
        /// Why.
        reason: Reason,
    },
    /// An agent has ended.
    Exited {
        /// The agent.
        agent: AgentId,
        /// With this code.
        code: i32,
    },
    /// An agent has ended by doing what it must not.
    Trapped {
        /// The agent.
        agent: AgentId,
        /// What.
        trap: Trap,
    },
    /// An actuator was set to something else.
    Switched {
        /// Which.
        actuator: u8,
        /// To on or off.
        on: bool,
    },
    /// Something was done to the model of a battery.
    Model {
        /// What.
        change: ModelChange,
        /// Its charge.
        percent: u8,
    },
    /// What follows from the battery's charge has changed.
    Battery {
        /// What follows.
        event: BatteryEvent,
        /// The charge.
        status: BatteryStatus,
    },
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Welcomed { real_ns } => write!(f, "welcomed at {}", real_ns / 1_000_000_000),
            Self::Arrived { agent, bytes } => write!(f, "{agent} has come, in {bytes} bytes"),
            Self::Declined {
                agent,
                reason,
                words,
            } => write!(f, "{agent} is not taken: {} {words}", why(*reason)),
            Self::Runs { agent } => write!(f, "{agent} runs here"),
            Self::Cancelled { agent } => write!(f, "{agent} does not come"),
            Self::Offered {
                agent,
                epoch,
                bytes,
            } => write!(
                f,
                "{agent} is frozen and offered in epoch {}, in {bytes} bytes",
                epoch.0
            ),
            Self::HandedOver { agent } => write!(f, "{agent} has left"),
            Self::NotTaken { agent, reason } => write!(f, "{agent} goes on here: {}", why(*reason)),
            Self::Exited { agent, code } => write!(f, "{agent} has ended with {code}"),
            Self::Trapped { agent, trap } => write!(f, "{agent} has ended: {trap}"),
            Self::Switched { actuator, on } => {
                let state = if *on { "on" } else { "off" };
                write!(f, "actuator {actuator} is {state}")
            }
            Self::Model { change, percent } => {
                write!(f, "battery model: {change} at {percent} percent")
            }
            Self::Battery { event, status } => {
                let percent = status.percent;
                match event {
                    BatteryEvent::Low => write!(f, "battery model: low, {percent} percent"),
                    BatteryEvent::Recovered => write!(f, "battery model: well, {percent} percent"),
                    BatteryEvent::Unreadable => write!(f, "battery model: not readable"),
                }
            }
        }
    }
}

fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::NoRoom { .. } => "there is no room",
        Reason::NotReady => "no agents are taken now",
        Reason::Unsuitable => "it cannot run there",
        Reason::Damaged => "it is damaged",
        Reason::Conflict => "it is somebody else's",
    }
}
