//! What this machine is found to be, against what other programs say of it: `lscpu`, `/proc` and `/sys`.
#![cfg(all(feature = "std", target_os = "linux"))]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use mielin_hal::{CacheKind, CpuFeature, HardwareCapabilities, Memory, Topology};

/// `lscpu`'s answer. It is part of util-linux, which every distribution has.
fn lscpu(arguments: &[&str]) -> String {
    let output = Command::new("lscpu")
        .env("LC_ALL", "C")
        .args(arguments)
        .output()
        .expect("lscpu (util-linux) is installed");
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// The kernel's own flags: it looks at `CPUID` too, and takes away what it does not save.
#[test]
#[cfg(target_arch = "x86_64")]
fn features_are_those_of_the_kernel() {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap();
    let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags"));
    let flags: Vec<&str> = flags.unwrap().split_whitespace().collect();
    let machine = HardwareCapabilities::detect();
    // The kernel's names where they are not the compiler's.
    let names = BTreeMap::from([
        (CpuFeature::Sse3, "pni"),
        (CpuFeature::Sse41, "sse4_1"),
        (CpuFeature::Sse42, "sse4_2"),
        (CpuFeature::Lzcnt, "abm"),
        (CpuFeature::Sha, "sha_ni"),
        (CpuFeature::AvxVnni, "avx_vnni"),
        (CpuFeature::AvxIfma, "avx_ifma"),
        (CpuFeature::AvxVnniInt8, "avx_vnni_int8"),
        (CpuFeature::Avx512vbmi2, "avx512_vbmi2"),
        (CpuFeature::Avx512vnni, "avx512_vnni"),
        (CpuFeature::Avx512bitalg, "avx512_bitalg"),
        (CpuFeature::Avx512vpopcntdq, "avx512_vpopcntdq"),
        (CpuFeature::Avx512bf16, "avx512_bf16"),
        (CpuFeature::Avx512fp16, "avx512_fp16"),
        (CpuFeature::AmxTile, "amx_tile"),
        (CpuFeature::AmxInt8, "amx_int8"),
        (CpuFeature::AmxBf16, "amx_bf16"),
        (CpuFeature::AmxFp16, "amx_fp16"),
    ]);
    // Up to the first feature of another architecture.
    let ours = CpuFeature::ALL
        .into_iter()
        .take_while(|feature| *feature <= CpuFeature::Aes);
    let mut compared = 0;
    for feature in ours {
        let flag = names.get(&feature).copied().unwrap_or(feature.name());
        assert_eq!(machine.has(feature), flags.contains(&flag), "{feature}");
        compared += 1;
    }
    assert!(compared > 40);
}

#[test]
fn processors_are_those_of_lscpu() {
    let rows = lscpu(&["--parse=CPU,CORE,SOCKET", "--online"]);
    let rows: Vec<Vec<u32>> = rows
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(',').map(|n| n.parse().unwrap()).collect())
        .collect();
    let distinct = |column: usize| {
        let mut values: Vec<u32> = rows.iter().map(|row| row[column]).collect();
        values.sort_unstable();
        values.dedup();
        Some(u32::try_from(values.len()).unwrap())
    };
    let found = Topology::detect();
    assert_eq!(found.logical, distinct(0));
    assert_eq!(found.physical, distinct(1));
    assert_eq!(found.packages, distinct(2));
    let summary = lscpu(&[]);
    let model = summary
        .lines()
        .find_map(|line| line.strip_prefix("Model name:"));
    assert_eq!(
        found.model.map(|model| model.to_string()).as_deref(),
        model.map(str::trim)
    );
}

#[test]
fn caches_are_those_of_lscpu() {
    let rows = lscpu(&[
        "--bytes",
        "--caches=NAME,ONE-SIZE,ALL-SIZE,WAYS,TYPE,LEVEL,COHERENCY-SIZE",
    ]);
    let mut expected = Vec::new();
    for row in rows.lines().skip(1) {
        let columns: Vec<&str> = row.split_whitespace().collect();
        let number = |index: usize| columns[index].parse::<u64>().unwrap();
        let kind = match columns[4] {
            "Data" => CacheKind::Data,
            "Instruction" => CacheKind::Instruction,
            "Unified" => CacheKind::Unified,
            other => panic!("a cache of type {other}"),
        };
        expected.push((
            number(5),
            kind,
            number(1),
            number(2) / number(1),
            number(3),
            number(6),
        ));
    }
    let mut found: Vec<_> = Topology::detect()
        .caches
        .iter()
        .map(|cache| {
            let known = |number: Option<u32>| u64::from(number.unwrap());
            (
                cache.level.into(),
                cache.kind,
                cache.size_bytes,
                known(cache.instances),
                known(cache.ways),
                known(cache.line_bytes),
            )
        })
        .collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn memory_is_that_of_the_kernel() {
    let kib = |field: &str| {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
        let line = meminfo
            .lines()
            .find_map(|line| line.strip_prefix(field).map(str::to_owned));
        let words = line.unwrap();
        words
            .split_whitespace()
            .next()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let found = Memory::detect();
    assert_eq!(found.total_bytes, Some(kib("MemTotal:") * 1024));
    // What is available changes from one moment to the next.
    let available = found.available_bytes.unwrap();
    assert!(available > 0 && available <= found.total_bytes.unwrap());
    let output = Command::new("getconf").arg("PAGESIZE").output().unwrap();
    let page_bytes: u64 = String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert_eq!(found.page_bytes, Some(page_bytes));
    let huge = fs::read_dir("/sys/kernel/mm/hugepages").map_or(0, Iterator::count);
    assert_eq!(found.huge_page_bytes.len(), huge);
}
