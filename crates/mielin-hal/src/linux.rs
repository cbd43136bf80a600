//! What Linux says in `/proc` and `/sys`. Each function takes the root of the file system, so that tests can give
//! one of other machines.
//!
//! Sources: proc(5), `Documentation/ABI/testing/sysfs-devices-system-cpu`, `sysfs-class-power`, getauxval(3).

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::string::String;
use std::vec::Vec;

#[cfg(target_arch = "x86_64")]
use crate::features::{CpuFeature, FeatureSet};
use crate::few::Few;
use crate::memory::Memory;
use crate::power::{Battery, Charge, PowerSource, PowerStatus, together};
use crate::topology::{Cache, CacheKind, Frequency, Model, Topology};

/// As much as is read of a file; what matters of `/proc/cpuinfo` is the first processor.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// The most processors that are counted.
const PROCESSORS_MAX: usize = 8192;
/// Caches of one processor.
const CACHE_INDICES_MAX: u32 = 16;

/// Reads a small file without what surrounds its text.
fn read(path: impl AsRef<Path>) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(FILE_BYTES_MAX)
        .read_to_end(&mut bytes)
        .ok()?;
    let text = String::from_utf8_lossy(&bytes);
    Some(text.trim_matches(['\n', ' ', '\0']).into())
}

fn number(path: impl AsRef<Path>) -> Option<u64> {
    read(path)?.parse().ok()
}

/// Processors as in `0-3,8,10-11`. `None` if it is no such list.
fn processors(list: &str) -> Option<Vec<u32>> {
    let mut processors = Vec::new();
    for range in list.split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        for processor in first..=last {
            if processors.len() == PROCESSORS_MAX {
                return None;
            }
            processors.push(processor);
        }
    }
    Some(processors)
}

pub(crate) fn topology(root: &Path) -> Topology {
    let all = root.join("sys/devices/system/cpu");
    let cpuinfo = read(root.join("proc/cpuinfo")).unwrap_or_default();
    let online = read(all.join("online")).and_then(|list| processors(&list));
    let online = online.unwrap_or_default();
    let count = |count: usize| u32::try_from(count).ok().filter(|count| *count > 0);
    let mut cores = Vec::new();
    let mut packages = Vec::new();
    let mut caches = Few::EMPTY;
    for &processor in &online {
        let one = all.join(std::format!("cpu{processor}"));
        let id = |name: &str| number(one.join("topology").join(name));
        // On some machines the numbers of cores begin anew in each cluster; the list of siblings is unambiguous.
        let siblings = read(one.join("topology/core_cpus_list"))
            .or_else(|| read(one.join("topology/thread_siblings_list")));
        cores.extend(siblings.and_then(|list| processors(&list)?.first().copied()));
        packages.extend(id("physical_package_id"));
        add_caches(&mut caches, &one.join("cache"), processor);
    }
    cores.sort_unstable();
    cores.dedup();
    packages.sort_unstable();
    packages.dedup();
    caches.sort_by_key(|cache: &Cache| (cache.level, cache.kind, cache.size_bytes));
    Topology {
        model: model(&cpuinfo),
        logical: count(online.len()),
        physical: count(cores.len()),
        packages: count(packages.len()),
        caches,
        frequency: frequency(&all.join("cpu0/cpufreq"), &cpuinfo),
    }
}

/// Adds the caches of a processor, each to those of its kind. One that several share counts for the first of them.
fn add_caches<const N: usize>(caches: &mut Few<Cache, N>, directory: &Path, processor: u32) {
    for index in 0..CACHE_INDICES_MAX {
        let one = directory.join(std::format!("index{index}"));
        let Some((cache, first)) = cache(&one) else {
            continue;
        };
        let same = caches.iter_mut().find(|known| {
            (known.level, known.kind, known.size_bytes, known.shared_by)
                == (cache.level, cache.kind, cache.size_bytes, cache.shared_by)
        });
        match same {
            Some(known) if first == Some(processor) => {
                known.instances = known.instances.map(|instances| instances + 1);
            }
            Some(_) => {}
            None => caches.push(Cache {
                instances: first.map(|_| 1),
                ..cache
            }),
        }
    }
}

/// A cache and the first of those that share it.
fn cache(directory: &Path) -> Option<(Cache, Option<u32>)> {
    let kind = match read(directory.join("type"))?.as_str() {
        "Data" => CacheKind::Data,
        "Instruction" => CacheKind::Instruction,
        "Unified" => CacheKind::Unified,
        _ => return None,
    };
    let small = |name: &str| {
        let number = number(directory.join(name))?;
        u32::try_from(number).ok().filter(|number| *number > 0)
    };
    let sharers = read(directory.join("shared_cpu_list")).and_then(|list| processors(&list));
    let sharers = sharers.unwrap_or_default();
    let cache = Cache {
        level: number(directory.join("level"))?.try_into().ok()?,
        kind,
        size_bytes: kib(&read(directory.join("size"))?)?,
        line_bytes: small("coherency_line_size"),
        ways: small("ways_of_associativity"),
        shared_by: u32::try_from(sharers.len()).ok().filter(|count| *count > 0),
        instances: None,
    };
    Some((cache, sharers.first().copied()))
}

/// The kernel writes sizes of caches as `32K`.
fn kib(text: &str) -> Option<u64> {
    let number: u64 = text.strip_suffix('K')?.parse().ok()?;
    number.checked_mul(1024).filter(|bytes| *bytes > 0)
}

/// The first processor's value of a field in `/proc/cpuinfo`.
fn field<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    cpuinfo.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// Instructions that the kernel switches off in processors in which they are known to be broken. `CPUID` may go on naming
/// them in a virtual machine; the kernel's list does not.
#[cfg(target_arch = "x86_64")]
pub(crate) fn switched_off(root: &Path) -> FeatureSet {
    const SOMETIMES: [(CpuFeature, &str); 2] = [
        (CpuFeature::Rdrand, "rdrand"),
        (CpuFeature::Rdseed, "rdseed"),
    ];
    let cpuinfo = read(root.join("proc/cpuinfo")).unwrap_or_default();
    let Some(flags) = field(&cpuinfo, "flags") else {
        return FeatureSet::EMPTY;
    };
    let is_off = |name: &str| flags.split_whitespace().all(|flag| flag != name);
    let off = SOMETIMES.into_iter().filter(|(_, name)| is_off(name));
    off.map(|(feature, _)| feature).collect()
}

/// The processor's own word where it has one: under emulation `/proc/cpuinfo` may be the host's.
#[cfg(target_arch = "x86_64")]
fn model(_cpuinfo: &str) -> Option<Model> {
    crate::x86::model(&crate::ask::Processor)
}

#[cfg(target_arch = "aarch64")]
fn model(_cpuinfo: &str) -> Option<Model> {
    Model::new(crate::aarch64::name(crate::ask::midr()?)?)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn model(cpuinfo: &str) -> Option<Model> {
    Model::new(field(cpuinfo, "uarch")?)
}

fn frequency(cpufreq: &Path, cpuinfo: &str) -> Frequency {
    let hertz = |name: &str| number(cpufreq.join(name))?.checked_mul(1000);
    Frequency {
        base_hz: hertz("base_frequency"),
        max_hz: hertz("cpuinfo_max_freq"),
        current_hz: hertz("scaling_cur_freq").or_else(|| megahertz(field(cpuinfo, "cpu MHz")?)),
    }
}

/// `2596.096` in hertz.
fn megahertz(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: u64 = whole.parse().ok()?;
    let digits = fraction.get(..6.min(fraction.len()))?;
    let parts: u64 = match digits {
        "" => 0,
        _ => digits.parse().ok()?,
    };
    let millionths = parts * 10_u64.pow(6 - digits.len() as u32);
    whole.checked_mul(1_000_000)?.checked_add(millionths)
}

pub(crate) fn memory(root: &Path) -> Memory {
    let meminfo = read(root.join("proc/meminfo")).unwrap_or_default();
    let kib = |name: &str| {
        let value = field(&meminfo, name)?.strip_suffix("kB")?;
        // Its kB are 1,024 bytes.
        value.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    let mut huge_page_bytes = Few::EMPTY;
    for entry in entries(&root.join("sys/kernel/mm/hugepages")) {
        let name = entry.file_name().and_then(|name| name.to_str());
        let size = name.and_then(|name| name.strip_prefix("hugepages-")?.strip_suffix("kB"));
        let size = size.and_then(|size| size.parse::<u64>().ok()?.checked_mul(1024));
        if let Some(size) = size {
            huge_page_bytes.push(size);
        }
    }
    huge_page_bytes.sort_by_key(|size| *size);
    Memory {
        total_bytes: kib("MemTotal"),
        available_bytes: kib("MemAvailable"),
        page_bytes: auxiliary_value(AT_PAGESZ).filter(|bytes| *bytes > 0),
        huge_page_bytes,
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Bytes of a page.
const AT_PAGESZ: usize = 6;
/// Features of the processor.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) const AT_HWCAP: usize = 16;
/// More of them.
#[cfg(target_arch = "aarch64")]
pub(crate) const AT_HWCAP2: usize = 26;

/// What the kernel tells a program when it starts: the value of this type in the auxiliary vector, if `/proc` is there.
pub(crate) fn auxiliary_value(wanted: usize) -> Option<u64> {
    const WORD: usize = size_of::<usize>();

    let mut bytes = Vec::new();
    let file = File::open("/proc/self/auxv").ok()?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let mut words = bytes
        .chunks_exact(WORD)
        .filter_map(|word| word.try_into().ok().map(usize::from_ne_bytes));
    while let (Some(key), Some(value)) = (words.next(), words.next()) {
        if key == wanted {
            return Some(value as u64);
        }
    }
    None
}

pub(crate) fn power(root: &Path) -> PowerStatus {
    let mut mains = None;
    let mut batteries = Vec::new();
    for supply in entries(&root.join("sys/class/power_supply")) {
        // Of a mouse or a headset.
        if read(supply.join("scope")).is_some_and(|scope| scope == "Device") {
            continue;
        }
        match read(supply.join("type")).as_deref() {
            Some("Battery" | "UPS") => batteries.extend(battery(&supply)),
            Some(_) => {
                let online = number(supply.join("online")).map(|online| online > 0);
                mains = mains.max(online);
            }
            None => {}
        }
    }
    let battery = together(&batteries);
    let drained = battery.is_some_and(|battery| battery.charge == Charge::Discharging);
    let source = match mains {
        Some(true) => Some(PowerSource::Mains),
        Some(false) if battery.is_some() => Some(PowerSource::Battery),
        _ => drained.then_some(PowerSource::Battery),
    };
    PowerStatus { source, battery }
}

fn battery(supply: &Path) -> Option<Battery> {
    if number(supply.join("present")) == Some(0) {
        return None;
    }
    let content = ["energy", "charge"].into_iter().find_map(|what| {
        let now = number(supply.join(std::format!("{what}_now")))?;
        let full = number(supply.join(std::format!("{what}_full")))?;
        (full > 0).then_some((now, full))
    });
    let percent = number(supply.join("capacity"))
        .or_else(|| content.and_then(|(now, full)| Some(now.checked_mul(100)? / full)))?;
    Some(Battery {
        percent: percent.min(100) as u8,
        charge: match read(supply.join("status")).as_deref() {
            Some("Charging") => Charge::Charging,
            Some("Discharging") => Charge::Discharging,
            Some("Full" | "Not charging") => Charge::Idle,
            _ => Charge::Unknown,
        },
        content,
    })
}

#[cfg(test)]
mod tests;
