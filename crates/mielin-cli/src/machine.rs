//! This machine, as an agent's owner wants to know it.

use std::fs;
use std::path::PathBuf;

use mielin_hal::HardwareCapabilities;
use serde::Serialize;

#[derive(Serialize)]
pub(crate) struct Machine {
    pub(crate) architecture: String,
    pub(crate) os: String,
    pub(crate) features: Vec<String>,
    /// Processors that this process may use.
    pub(crate) cores: usize,
    /// Bytes of memory; `None` where the system does not say.
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) memory_available_bytes: Option<u64>,
    /// Degrees Celsius of the warmest sensor.
    pub(crate) hottest_celsius: Option<f64>,
    /// Percent of charge; `None` without a battery.
    pub(crate) battery_percent: Option<u8>,
    pub(crate) charging: Option<bool>,
}

impl Machine {
    pub(crate) fn detect() -> Machine {
        let hardware = HardwareCapabilities::detect();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let battery = battery();
        Machine {
            architecture: hardware.architecture().to_string(),
            os: std::env::consts::OS.to_owned(),
            features: hardware
                .features()
                .map(|feature| feature.to_string())
                .collect(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: meminfo_bytes(&meminfo, "MemTotal:"),
            memory_available_bytes: meminfo_bytes(&meminfo, "MemAvailable:"),
            hottest_celsius: hottest_celsius(),
            battery_percent: battery.map(|(percent, _)| percent),
            charging: battery.map(|(_, charging)| charging),
        }
    }
}

/// Linux writes `MemTotal:   16303428 kB`, and its kB are 1,024 bytes (`proc_meminfo(5)`).
fn meminfo_bytes(meminfo: &str, field: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// Linux gives thousandths of a degree in `/sys/class/thermal/thermal_zone*/temp`.
fn hottest_celsius() -> Option<f64> {
    let zones = entries("/sys/class/thermal")
        .filter_map(|zone| read(zone.join("temp"))?.parse::<i32>().ok());
    zones
        .max()
        .map(|thousandths| f64::from(thousandths) / 1000.0)
}

/// Charge of the first battery, and whether the machine draws no power from it.
fn battery() -> Option<(u8, bool)> {
    entries("/sys/class/power_supply").find_map(|supply| {
        if read(supply.join("type"))? != "Battery" {
            return None;
        }
        let percent = read(supply.join("capacity"))?.parse().ok()?;
        Some((percent, read(supply.join("status"))? != "Discharging"))
    })
}

fn entries(dir: &str) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}

fn read(path: PathBuf) -> Option<String> {
    fs::read_to_string(path)
        .ok()
        .map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read_in_bytes() {
        let meminfo = "MemTotal:       16303428 kB\nMemFree:          123 kB\n";
        assert_eq!(meminfo_bytes(meminfo, "MemTotal:"), Some(16_303_428 * 1024));
        assert_eq!(meminfo_bytes(meminfo, "MemAvailable:"), None);
    }

    #[test]
    fn the_machine_has_a_core() {
        assert!(Machine::detect().cores >= 1);
    }
}
