use std::string::ToString;

use super::*;
use crate::power::BatteryStatus;

/// A directory that is a machine's root, and is removed in the end.
struct Root(PathBuf);

impl Root {
    /// With files of these contents.
    fn new(name: &str, files: &[(&str, &str)]) -> Root {
        let directory = std::format!("mielin-hal-{}-{name}", std::process::id());
        let root = Root(std::env::temp_dir().join(directory));
        for (path, content) in files {
            root.write(path, content);
        }
        root
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().expect("it is below the root")).expect("a directory");
        fs::write(path, std::format!("{content}\n")).expect("a file");
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn lists_of_processors() {
    assert_eq!(processors("0-3,8,10-11"), Some(vec![0, 1, 2, 3, 8, 10, 11]));
    assert_eq!(processors(""), Some(vec![]));
    for bad in ["a", "0-", "-3", "1-2-3", "0-99999999"] {
        assert_eq!(processors(bad), None, "{bad}");
    }
    assert_eq!(processors("5-3"), Some(vec![]));
}

/// Two large cores with two threads each and four small ones, two of which share a cache.
#[test]
fn a_machine_with_two_kinds_of_cores() {
    let root = Root::new("kinds", &[("sys/devices/system/cpu/online", "0-7")]);
    let cpu = |index: u32, file: &str, content: &str| {
        root.write(
            &std::format!("sys/devices/system/cpu/cpu{index}/{file}"),
            content,
        );
    };
    for index in 0..8 {
        let siblings = match index {
            0..4 => std::format!("{}-{}", index & !1, index | 1),
            _ => index.to_string(),
        };
        cpu(index, "topology/core_cpus_list", &siblings);
        cpu(index, "topology/physical_package_id", "0");
        let (l1, l2, sharers) = match index {
            0..4 => ("48K", "1280K", siblings.clone()),
            _ => ("32K", "2048K", std::format!("{}-{}", index & !1, index | 1)),
        };
        let caches = [
            ("Data", "1", l1, siblings.as_str()),
            ("Instruction", "1", "32K", &siblings),
            ("Unified", "2", l2, &sharers),
            ("Unified", "3", "12288K", "0-7"),
        ];
        for (number, (kind, level, size, shared)) in caches.into_iter().enumerate() {
            let directory = std::format!("cache/index{number}");
            cpu(index, &std::format!("{directory}/type"), kind);
            cpu(index, &std::format!("{directory}/level"), level);
            cpu(index, &std::format!("{directory}/size"), size);
            cpu(
                index,
                &std::format!("{directory}/coherency_line_size"),
                "64",
            );
            cpu(index, &std::format!("{directory}/shared_cpu_list"), shared);
        }
    }
    root.write(
        "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq",
        "5000000",
    );
    root.write(
        "sys/devices/system/cpu/cpu0/cpufreq/base_frequency",
        "2100000",
    );
    root.write(
        "proc/cpuinfo",
        "processor\t: 0\ncpu MHz\t\t: 1234.5\n\nprocessor\t: 1\ncpu MHz\t\t: 800",
    );
    let found = topology(&root.0);
    assert_eq!(
        (found.logical, found.physical, found.packages),
        (Some(8), Some(6), Some(1))
    );
    let hertz = found.frequency;
    assert_eq!(hertz.base_hz, Some(2_100_000_000));
    assert_eq!(hertz.max_hz, Some(5_000_000_000));
    assert_eq!(hertz.current_hz, Some(1_234_500_000));
    let caches: Vec<_> = found
        .caches
        .iter()
        .map(|c| {
            (
                c.level,
                c.kind,
                c.size_bytes / 1024,
                c.shared_by,
                c.instances,
            )
        })
        .collect();
    assert_eq!(
        caches,
        [
            (1, CacheKind::Data, 32, Some(1), Some(4)),
            (1, CacheKind::Data, 48, Some(2), Some(2)),
            (1, CacheKind::Instruction, 32, Some(2), Some(2)),
            (1, CacheKind::Instruction, 32, Some(1), Some(4)),
            (2, CacheKind::Unified, 1280, Some(2), Some(2)),
            (2, CacheKind::Unified, 2048, Some(2), Some(2)),
            (3, CacheKind::Unified, 12288, Some(8), Some(1)),
        ]
    );
    assert_eq!(
        found.data_cache(1).map(|cache| cache.line_bytes),
        Some(Some(64))
    );
}

/// But for what the processor that the test runs on says itself.
fn says_nothing(root: &Root) {
    let nothing = Topology {
        model: topology(&root.0).model,
        ..Topology::default()
    };
    assert_eq!(topology(&root.0), nothing);
    assert_eq!(power(&root.0), PowerStatus::default());
    let found = memory(&root.0);
    assert_eq!((found.total_bytes, found.available_bytes), (None, None));
    assert!(found.huge_page_bytes.is_empty());
}

#[test]
fn a_machine_that_says_nothing_is_not_known() {
    let root = Root::new("nothing", &[]);
    says_nothing(&root);
}

#[test]
fn nonsense_is_not_known_either() {
    let cpu = "sys/devices/system/cpu";
    let root = Root::new(
        "nonsense",
        &[
            (&std::format!("{cpu}/online"), "all of them"),
            (&std::format!("{cpu}/cpu0/cpufreq/cpuinfo_max_freq"), "-1"),
            (
                &std::format!("{cpu}/cpu0/cpufreq/base_frequency"),
                "18446744073709551615",
            ),
            (
                "proc/cpuinfo",
                "cpu MHz : 99999999999999999999.5\nmodel name : \u{7}",
            ),
            (
                "proc/meminfo",
                "MemTotal: 5 MB\nMemAvailable: 18446744073709551615 kB",
            ),
            ("sys/kernel/mm/hugepages/hugepages-manykB/nr_hugepages", "1"),
            ("sys/class/power_supply/BAT0/type", "Battery"),
            ("sys/class/power_supply/BAT0/energy_now", "5"),
            ("sys/class/power_supply/BAT0/energy_full", "0"),
        ],
    );
    says_nothing(&root);
}

#[test]
fn memory_in_bytes_and_pages() {
    let root = Root::new(
        "memory",
        &[
            (
                "proc/meminfo",
                "MemTotal:       16303428 kB\nMemFree: 1 kB\nMemAvailable:   123 kB",
            ),
            ("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0"),
            (
                "sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages",
                "0",
            ),
        ],
    );
    let found = memory(&root.0);
    assert_eq!(found.total_bytes, Some(16_303_428 * 1024));
    assert_eq!(found.available_bytes, Some(123 * 1024));
    let sizes: Vec<u64> = found.huge_page_bytes.iter().copied().collect();
    assert_eq!(sizes, [2 << 20, 1 << 30]);
}

/// Files of one power supply.
fn supply<'a>(name: &str, files: &[(&str, &'a str)]) -> Vec<(String, &'a str)> {
    let path = |file| std::format!("sys/class/power_supply/{name}/{file}");
    files
        .iter()
        .map(|(file, content)| (path(file), *content))
        .collect()
}

fn check(
    name: &str,
    supplies: &[Vec<(String, &str)>],
    source: Option<PowerSource>,
    battery: Option<(u8, Charge)>,
) {
    let files: Vec<_> = supplies.concat();
    let files: Vec<_> = files
        .iter()
        .map(|(path, content)| (path.as_str(), *content))
        .collect();
    let root = Root::new(name, &files);
    let battery = battery.map(|(percent, charge)| BatteryStatus { percent, charge });
    assert_eq!(power(&root.0), PowerStatus { source, battery }, "{name}");
}

#[test]
fn power_of_several_machines() {
    let mains = |online| supply("AC", &[("type", "Mains"), ("online", online)]);
    let battery = |status: &'static str, percent: &'static str| {
        supply(
            "BAT0",
            &[
                ("type", "Battery"),
                ("status", status),
                ("capacity", percent),
                ("present", "1"),
            ],
        )
    };
    let on_mains = Some(PowerSource::Mains);
    let on_battery = Some(PowerSource::Battery);
    check("desktop", &[mains("1")], on_mains, None);
    check(
        "plugged",
        &[mains("1"), battery("Charging", "57")],
        on_mains,
        Some((57, Charge::Charging)),
    );
    check(
        "full",
        &[mains("1"), battery("Not charging", "80")],
        on_mains,
        Some((80, Charge::Idle)),
    );
    check(
        "away",
        &[mains("0"), battery("Discharging", "19")],
        on_battery,
        Some((19, Charge::Discharging)),
    );
    check(
        "phone",
        &[battery("Discharging", "7")],
        on_battery,
        Some((7, Charge::Discharging)),
    );
    check(
        "odd",
        &[battery("What?", "250")],
        None,
        Some((100, Charge::Unknown)),
    );
    let mouse = supply(
        "hid",
        &[
            ("type", "Battery"),
            ("scope", "Device"),
            ("capacity", "3"),
            ("status", "Discharging"),
        ],
    );
    check("mouse", &[mouse], None, None);
    let bay = supply(
        "BAT1",
        &[("type", "Battery"), ("present", "0"), ("capacity", "0")],
    );
    check("empty-bay", &[mains("1"), bay], on_mains, None);
    let of = |name: &str, now: &'static str, full: &'static str, status: &'static str| {
        supply(
            name,
            &[
                ("type", "Battery"),
                ("status", status),
                ("energy_now", now),
                ("energy_full", full),
            ],
        )
    };
    check(
        "two",
        &[
            of("BAT0", "30000000", "30000000", "Full"),
            of("BAT1", "0", "70000000", "Discharging"),
        ],
        on_battery,
        Some((30, Charge::Discharging)),
    );
}

#[test]
fn a_battery_is_low_below_a_fifth_and_not_charging() {
    let is_low = |percent, charge| BatteryStatus { percent, charge }.is_low();
    assert!(is_low(19, Charge::Discharging) && is_low(0, Charge::Unknown));
    assert!(!is_low(20, Charge::Discharging) && !is_low(19, Charge::Charging));
}

#[cfg(target_arch = "x86_64")]
#[test]
fn what_the_kernel_has_switched_off_is_not_there() {
    let off = |flags: &str| {
        let root = Root::new("off", &[("proc/cpuinfo", flags)]);
        switched_off(&root.0)
    };
    let both: FeatureSet = [CpuFeature::Rdrand, CpuFeature::Rdseed]
        .into_iter()
        .collect();
    assert_eq!(off("flags\t\t: fpu rdrand rdseed avx2"), FeatureSet::EMPTY);
    let seed = FeatureSet::from_iter([CpuFeature::Rdseed]);
    assert_eq!(off("flags\t\t: fpu rdrand rdseed_not"), seed);
    assert_eq!(off("flags\t\t: fpu"), both);
    // Where the kernel says nothing, as under another one, the processor is believed.
    assert_eq!(off("model name: something"), FeatureSet::EMPTY);
    assert!(!both.without(both).contains(CpuFeature::Rdrand));
}
