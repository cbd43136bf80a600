//! This machine, as an agent's owner wants to know it.

use std::fs;
use std::path::PathBuf;

use mielin_hal::{Cache, HardwareCapabilities, Memory, PowerStatus, Topology};
use serde::Serialize;

/// What is not known is `None`.
#[derive(Serialize)]
pub(crate) struct Machine {
    pub(crate) architecture: String,
    pub(crate) os: String,
    /// The processor's name.
    pub(crate) model: Option<String>,
    pub(crate) features: Vec<String>,
    /// Length of scalable vectors.
    pub(crate) vector_bits: Option<u32>,
    /// Processors that this process may use.
    pub(crate) usable_processors: usize,
    pub(crate) logical_processors: Option<u32>,
    pub(crate) cores: Option<u32>,
    pub(crate) packages: Option<u32>,
    pub(crate) base_hz: Option<u64>,
    pub(crate) max_hz: Option<u64>,
    pub(crate) current_hz: Option<u64>,
    pub(crate) caches: Vec<MachineCache>,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) memory_available_bytes: Option<u64>,
    pub(crate) page_bytes: Option<u64>,
    pub(crate) huge_page_bytes: Vec<u64>,
    /// Degrees Celsius of the warmest sensor.
    pub(crate) hottest_celsius: Option<f64>,
    /// `mains` or `battery`.
    pub(crate) power: Option<String>,
    /// Percent of charge; `None` also without a battery.
    pub(crate) battery_percent: Option<u8>,
    /// `charging`, `discharging`, `idle` or `unknown`.
    pub(crate) battery_charge: Option<String>,
}

/// Caches of one level, kind and size.
#[derive(Serialize)]
pub(crate) struct MachineCache {
    pub(crate) level: u8,
    /// `data`, `instruction` or `unified`.
    pub(crate) kind: String,
    /// Bytes of one.
    pub(crate) size_bytes: u64,
    pub(crate) line_bytes: Option<u32>,
    pub(crate) ways: Option<u32>,
    /// Logical processors that share one.
    pub(crate) shared_by: Option<u32>,
    pub(crate) instances: Option<u32>,
}

impl From<&Cache> for MachineCache {
    fn from(cache: &Cache) -> MachineCache {
        MachineCache {
            level: cache.level,
            kind: cache.kind.to_string(),
            size_bytes: cache.size_bytes,
            line_bytes: cache.line_bytes,
            ways: cache.ways,
            shared_by: cache.shared_by,
            instances: cache.instances,
        }
    }
}

impl Machine {
    pub(crate) fn detect() -> Machine {
        let hardware = HardwareCapabilities::detect();
        let topology = Topology::detect();
        let memory = Memory::detect();
        let power = PowerStatus::detect();
        Machine {
            architecture: hardware.architecture().to_string(),
            os: std::env::consts::OS.to_owned(),
            model: topology.model.map(|model| model.to_string()),
            features: hardware
                .features()
                .map(|feature| feature.to_string())
                .collect(),
            vector_bits: hardware.vector_bits(),
            usable_processors: std::thread::available_parallelism().map_or(1, usize::from),
            logical_processors: topology.logical,
            cores: topology.physical,
            packages: topology.packages,
            base_hz: topology.frequency.base_hz,
            max_hz: topology.frequency.max_hz,
            current_hz: topology.frequency.current_hz,
            caches: topology.caches.iter().map(MachineCache::from).collect(),
            memory_bytes: memory.total_bytes,
            memory_available_bytes: memory.available_bytes,
            page_bytes: memory.page_bytes,
            huge_page_bytes: memory.huge_page_bytes.iter().copied().collect(),
            hottest_celsius: hottest_celsius(),
            power: power.source.map(|source| source.to_string()),
            battery_percent: power.battery.map(|battery| battery.percent),
            battery_charge: power.battery.map(|battery| battery.charge.to_string()),
        }
    }
}

/// Linux gives thousandths of a degree in `/sys/class/thermal/thermal_zone*/temp`.
fn hottest_celsius() -> Option<f64> {
    let zones = fs::read_dir("/sys/class/thermal").ok()?;
    let zones = zones
        .flatten()
        .filter_map(|zone| read(zone.path().join("temp"))?.parse::<i32>().ok());
    zones
        .max()
        .map(|thousandths| f64::from(thousandths) / 1000.0)
}

fn read(path: PathBuf) -> Option<String> {
    fs::read_to_string(path)
        .ok()
        .map(|text| text.trim().to_owned())
}
