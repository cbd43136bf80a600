//! The two settings of membership: how fast silence becomes death.

use core::fmt;
use core::num::{NonZeroU8, NonZeroUsize};
use core::str::FromStr;
use core::time::Duration;

use foca::{Config, PeriodicParams};
use thiserror::Error;

use crate::limits::{
    DEAD_FORGOTTEN_AFTER, LAN_PROBE_PERIOD, LAN_SUSPECT_TO_DEAD, MEMBERSHIP_DATAGRAM_BYTES_MAX,
    WAN_DEAD_AFTER, WAN_SUSPECT_AFTER,
};

/// How fast silence becomes death.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Preset {
    /// Seconds: suspect after at most two, dead after at most five.
    Lan,
    /// Suspect after at most 15 s, dead after at most 30 s.
    Wan,
}

impl Preset {
    /// How often a member probes another: the protocol period.
    #[must_use]
    pub const fn probe_period(self) -> Duration {
        match self {
            Preset::Lan => LAN_PROBE_PERIOD,
            Preset::Wan => Duration::from_millis(WAN_SUSPECT_AFTER.as_millis() as u64 / 2),
        }
    }

    /// Foca's settings for this preset.
    ///
    /// In a group of two the silent member is probed at the latest one period after it fell silent, and
    /// becomes a suspect when that probe's period ends; in a larger group somebody probes it sooner. So the
    /// longest time to suspicion is two periods.
    pub(super) fn config(self) -> Config {
        let probe_period = self.probe_period();
        let suspect_to_down_after = match self {
            Preset::Lan => LAN_SUSPECT_TO_DEAD,
            Preset::Wan => WAN_DEAD_AFTER - WAN_SUSPECT_AFTER,
        };
        let every = |frequency, count| {
            NonZeroUsize::new(count).map(|num_members| PeriodicParams {
                frequency,
                num_members,
            })
        };
        Config {
            probe_period,
            probe_rtt: probe_period / 3,
            num_indirect_probes: NonZeroUsize::MIN.saturating_add(2),
            max_transmissions: NonZeroU8::MIN.saturating_add(9),
            suspect_to_down_after,
            remove_down_after: Some(DEAD_FORGOTTEN_AFTER),
            max_packet_size: NonZeroUsize::MIN.saturating_add(MEMBERSHIP_DATAGRAM_BYTES_MAX - 2),
            notify_down_members: true,
            periodic_announce: every(probe_period * 10, 1),
            periodic_announce_to_down_members: every(probe_period * 5, 2),
            periodic_gossip: every(probe_period / 5, 3),
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Preset::Lan => "lan",
            Preset::Wan => "wan",
        })
    }
}

/// Not the name of a preset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected a preset: lan or wan")]
pub struct NotPreset;

impl FromStr for Preset {
    type Err = NotPreset;

    fn from_str(text: &str) -> Result<Preset, NotPreset> {
        match text {
            "lan" => Ok(Preset::Lan),
            "wan" => Ok(Preset::Wan),
            _ => Err(NotPreset),
        }
    }
}
