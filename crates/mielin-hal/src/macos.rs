//! What macOS says, by sysctl and of its power sources. Each function takes what was answered, so that tests can give
//! the answers of other machines; `ask::macos` asks.
//!
//! Sources: sysctl(3), "Determining system capabilities" in Apple's documentation of `sysctlbyname`, and the headers
//! `IOPowerSources.h` and `IOPSKeys.h` of IOKit.

use std::string::String;
use std::vec::Vec;

use crate::few::Few;
use crate::memory::Memory;
use crate::power::{Battery, Charge, PowerSource, PowerStatus, together};
use crate::topology::{Cache, CacheKind, Model, Topology};

/// The most kinds of cores that are told apart; there are two.
const PERFORMANCE_LEVELS_MAX: u64 = 4;
/// Bytes of the largest number. The kernel looks at the room that it is given: four bytes get four.
const NUMBER_BYTES: usize = size_of::<u64>();
/// Bytes of the longest text that is asked for.
const TEXT_BYTES_MAX: usize = 256;

const SIZES_OF_FIRST_CACHES: [(CacheKind, &str); 2] = [
    (CacheKind::Data, "l1dcachesize"),
    (CacheKind::Instruction, "l1icachesize"),
];
/// With who shares one.
const SIZES_OF_SHARED_CACHES: [(u8, &str, &str); 2] = [
    (2, "l2cachesize", "cpusperl2"),
    (3, "l3cachesize", "cpusperl3"),
];

/// Answers of `sysctlbyname`: the bytes of the value of this name, if there are at most so many.
pub(crate) trait SystemControl: Fn(&str, usize) -> Option<Vec<u8>> {}
impl<F: Fn(&str, usize) -> Option<Vec<u8>>> SystemControl for F {}

/// A number, which has four bytes and a sign or eight and none.
fn number(value: &impl SystemControl, name: &str) -> Option<u64> {
    let bytes = value(name, NUMBER_BYTES)?;
    match bytes.len() {
        4 => i32::from_ne_bytes(bytes.try_into().ok()?).try_into().ok(),
        8 => Some(u64::from_ne_bytes(bytes.try_into().ok()?)),
        _ => None,
    }
}

/// A number of things, of which there is at least one.
fn count(value: &impl SystemControl, name: &str) -> Option<u32> {
    let number = number(value, name)?;
    u32::try_from(number).ok().filter(|count| *count > 0)
}

fn text(value: &impl SystemControl, name: &str) -> Option<String> {
    let bytes = value(name, TEXT_BYTES_MAX)?;
    let text = bytes.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// Adds to what the processor says of itself.
pub(crate) fn topology(value: impl SystemControl, mut found: Topology) -> Topology {
    found.model = found
        .model
        .or_else(|| Model::new(&text(&value, "machdep.cpu.brand_string")?));
    found.logical = count(&value, "hw.logicalcpu");
    found.physical = count(&value, "hw.physicalcpu");
    found.packages = count(&value, "hw.packages");
    if found.caches.is_empty() {
        // The names without a level tell of the slowest cores only.
        let levels = number(&value, "hw.nperflevels").unwrap_or(0);
        for level in 0..levels.min(PERFORMANCE_LEVELS_MAX) {
            add_caches(&mut found.caches, &value, level);
        }
        found
            .caches
            .sort_by_key(|cache: &Cache| (cache.level, cache.kind, cache.size_bytes));
    }
    found
}

/// Adds the caches of one kind of cores. The length of a line is left out: the system has one figure for all caches,
/// which differ.
fn add_caches<const N: usize>(
    caches: &mut Few<Cache, N>,
    value: &impl SystemControl,
    performance_level: u64,
) {
    let name = |what: &str| std::format!("hw.perflevel{performance_level}.{what}");
    let mut add = |level, kind, size: &str, shared_by: Option<u32>, instances| {
        let size_bytes = number(value, &name(size)).filter(|bytes| *bytes > 0);
        if let Some(size_bytes) = size_bytes {
            caches.push(Cache {
                level,
                kind,
                size_bytes,
                line_bytes: None,
                ways: None,
                shared_by,
                instances,
            });
        }
    };
    for (kind, size) in SIZES_OF_FIRST_CACHES {
        add(1, kind, size, None, None);
    }
    let processors = count(value, &name("logicalcpu"));
    for (level, size, sharers) in SIZES_OF_SHARED_CACHES {
        let shared_by = count(value, &name(sharers));
        let instances = processors
            .zip(shared_by)
            .filter(|(processors, sharers)| processors.is_multiple_of(*sharers))
            .map(|(processors, sharers)| processors / sharers);
        add(level, CacheKind::Unified, size, shared_by, instances);
    }
}

pub(crate) fn memory(value: impl SystemControl) -> Memory {
    let bytes = |name| number(&value, name).filter(|bytes| *bytes > 0);
    Memory {
        total_bytes: bytes("hw.memsize"),
        // The pages that sysctl counts as free are not all that programs can have.
        available_bytes: None,
        page_bytes: bytes("hw.pagesize"),
        huge_page_bytes: Few::EMPTY,
    }
}

/// What is used of the dictionary that describes a power source. A key may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PowerSourceDescription {
    /// `Type`: `InternalBattery`, `UPS`, or something that does not power this machine, such as a mouse.
    pub(crate) kind: Option<String>,
    /// `Power Source State`: what this source draws from.
    pub(crate) state: Option<String>,
    /// `Is Present`.
    pub(crate) is_present: Option<bool>,
    /// `Is Charging`.
    pub(crate) is_charging: Option<bool>,
    /// `Current Capacity`, in the unit of the following.
    pub(crate) current_capacity: Option<i64>,
    /// `Max Capacity`, in any unit.
    pub(crate) max_capacity: Option<i64>,
}

/// `providing` is what the machine draws from, in the system's words.
pub(crate) fn power(providing: Option<&str>, sources: &[PowerSourceDescription]) -> PowerStatus {
    let batteries: Vec<Battery> = sources.iter().filter_map(battery).collect();
    PowerStatus {
        source: match providing {
            Some("AC Power") => Some(PowerSource::Mains),
            Some("Battery Power" | "UPS Power") => Some(PowerSource::Battery),
            _ => None,
        },
        battery: together(&batteries),
    }
}

fn battery(source: &PowerSourceDescription) -> Option<Battery> {
    let state = source.state.as_deref();
    let is_battery = matches!(source.kind.as_deref(), Some("InternalBattery" | "UPS"));
    if !is_battery || source.is_present == Some(false) || state == Some("Off Line") {
        return None;
    }
    let current = u64::try_from(source.current_capacity?).ok()?;
    let max = u64::try_from(source.max_capacity?).ok()?;
    let percent = current.checked_mul(100)?.checked_div(max)?;
    Some(Battery {
        percent: percent.min(100) as u8,
        charge: match (state, source.is_charging) {
            (Some("AC Power"), Some(true)) => Charge::Charging,
            (Some("AC Power"), Some(false)) => Charge::Idle,
            (Some("Battery Power"), Some(false) | None) => Charge::Discharging,
            // Also that it charges from itself.
            _ => Charge::Unknown,
        },
        // Units differ from one source to another.
        content: None,
    })
}

#[cfg(test)]
mod tests;
