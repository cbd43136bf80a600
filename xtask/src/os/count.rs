//! Counts of the kernel's instructions, under `-icount shift=0`: there an instruction is a nanosecond.
//!
//! The program (`os/user/count`) reports how long some rounds take and how many more take; the difference, less what programs
//! execute themselves, is the kernel's. It is the same in each run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::ValueEnum;
use mielin_kernel::Executable;
use mielin_kernel::archive::Archive;
use serde::Deserialize;

use super::{Arch, boot, image, machine};
use crate::workspace::Workspace;

/// Where the limits are.
const LIMITS: &str = "os/counts.toml";
/// How far a count may be above the one that is written down: compilers differ.
const SLACK_PERCENT: u64 = 3;

/// What `count` is told.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The architecture
    #[arg(long)]
    arch: Arch,
    /// How the result is written
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// What is written down for an architecture.
#[derive(Deserialize)]
struct Limits {
    /// seL4 with its MCS scheduler, measured in the same emulator, times what is allowed.
    must: BTreeMap<String, u64>,
    /// What was counted last.
    ratchet: BTreeMap<String, u64>,
}

/// A row's name, and the instructions.
type Counts = BTreeMap<String, u64>;

/// Counts, and shows the result.
///
/// # Errors
/// Something does not build or run, or a limit is not kept; the counts are shown before.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let image = image::build(workspace, options.arch, &["count"])?;
    let counts = counts(options.arch, &image)?;
    let limits = limits(workspace, options.arch)?;
    match options.output {
        Output::Json => println!("{}", serde_json::to_string(&counts)?),
        Output::Text => {
            println!(
                "{:<18} {:>8} {:>8}",
                options.arch.name(),
                "counted",
                "limit"
            );
            for (row, count) in &counts {
                let limit = limits
                    .must
                    .get(row)
                    .map_or_else(String::new, u64::to_string);
                println!("{row:<18} {count:>8} {limit:>8}");
            }
        }
    }
    compare(options.arch, &counts, &limits)
}

/// Counts, and compares with the limits.
///
/// # Errors
/// As for [`run`].
pub(super) fn check(workspace: &Workspace, arch: Arch, image: &Path) -> Result<()> {
    let counts = counts(arch, image)?;
    eprintln!("os: instructions on {}: {counts:?}", arch.name());
    compare(arch, &counts, &limits(workspace, arch)?)
}

fn limits(workspace: &Workspace, arch: Arch) -> Result<Limits> {
    let path = workspace.root().join(LIMITS);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {LIMITS}"))?;
    let mut all: BTreeMap<String, Limits> =
        basic_toml::from_str(&text).with_context(|| format!("in {LIMITS}"))?;
    all.remove(arch.name())
        .with_context(|| format!("{LIMITS} says nothing of {}", arch.name()))
}

fn compare(arch: Arch, counts: &Counts, limits: &Limits) -> Result<()> {
    let mut wrong = Vec::new();
    for (row, limit) in &limits.must {
        match counts.get(row) {
            None => wrong.push(format!("{row} was not counted")),
            Some(count) if count > limit => {
                wrong.push(format!(
                    "{row} takes {count}, and must not take more than {limit}"
                ));
            }
            Some(_) => {}
        }
    }
    for (row, last) in &limits.ratchet {
        let most = last + last * SLACK_PERCENT / 100;
        if let Some(count) = counts.get(row).filter(|count| **count > most) {
            wrong.push(format!(
                "{row} takes {count}, and took {last} when {LIMITS} was written"
            ));
        }
    }
    if !wrong.is_empty() {
        bail!("{}: {}", arch.name(), wrong.join("; "));
    }
    Ok(())
}

fn counts(arch: Arch, image: &Path) -> Result<Counts> {
    let mut lines = Vec::new();
    let variant = &machine::variants(arch)[0];
    let clock = machine::Clock::Counting;
    machine::watch(arch, variant, image, clock, &mut |line| {
        lines.push(line.to_owned());
    })?;
    let mut counts = parse(&lines)?;
    let bytes = fs::read(image)?;
    let kernel = executable(&bytes, "the kernel")?;
    counts.insert("text_bytes".to_owned(), text_bytes(&kernel)?);
    let bytes = fs::read(image.with_extension("archive"))?;
    let archive = Archive::new(&bytes).map_err(|error| anyhow!("the archive: {error:?}"))?;
    let (name, program) = archive.files().next().context("the archive is empty")?;
    let addresses = [kernel.entry(), executable(program, name)?.entry()];
    let boot = boot::instructions(arch, variant, image, addresses)?;
    counts.insert("boot".to_owned(), boot);
    Ok(counts)
}

/// What the lines of the program say.
fn parse(lines: &[String]) -> Result<Counts> {
    let rows = lines.iter().filter_map(|line| line.strip_prefix("count: "));
    let mut counts = Counts::new();
    let mut per_tick = None;
    for row in rows {
        let words: Vec<&str> = row.split(' ').collect();
        let [name, numbers @ ..] = &words[..] else {
            continue;
        };
        let numbers: Option<Vec<u64>> = numbers.iter().map(|word| word.parse().ok()).collect();
        let Some([r0, t0, r1, t1, programs]) = numbers.as_deref() else {
            continue;
        };
        let (rounds, ticks) = (r1.saturating_sub(*r0), t1.saturating_sub(*t0));
        ensure!(
            rounds > 0 && ticks > 0,
            "the count of {name} makes no sense: {row}"
        );
        if *name == "calibration" {
            per_tick = Some((programs * rounds + ticks / 2) / ticks);
            continue;
        }
        let per_tick = per_tick.context("the counts begin without a calibration")?;
        let all = ticks * per_tick / rounds;
        let kernels = all
            .checked_sub(*programs)
            .with_context(|| format!("{name} takes less than its programs"))?;
        match name.strip_suffix("_twice") {
            Some(name) => counts.insert(name.to_owned(), kernels / 2),
            None => counts.insert((*name).to_owned(), kernels),
        };
    }
    ensure!(
        lines.iter().any(|line| line == "count: done"),
        "the count did not come to its end:\n{}",
        lines.join("\n")
    );
    Ok(counts)
}

/// An executable for whatever machine it is for.
fn executable<'a>(bytes: &'a [u8], name: &str) -> Result<Executable<'a>> {
    // ELF's `e_machine`.
    let machine = bytes.get(18..20).and_then(|two| two.try_into().ok());
    let machine = machine.with_context(|| format!("{name} is too short a file"))?;
    Executable::parse(bytes, u16::from_le_bytes(machine))
        .map_err(|error| anyhow!("the file of {name}: {error:?}"))
}

/// The bytes of the kernel's code.
fn text_bytes(kernel: &Executable<'_>) -> Result<u64> {
    let mut sum = 0;
    for segment in kernel.segments() {
        let segment = segment.map_err(|error| anyhow!("the kernel's file: {error:?}"))?;
        if segment.access.is_executable() {
            sum += segment.memory_bytes;
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_prints_becomes_instructions() {
        let lines = [
            "firmware says something",
            "count: calibration 100000 2000 1100000 22001 2",
            "count: call_reply_0 500 2505 2500 12525 22",
            "count: yield_switch_twice 500 5620 2500 28103 22",
            "count: done",
        ];
        let lines = lines.map(str::to_owned);
        let counts = parse(&lines).expect("it is complete");
        assert_eq!(counts["call_reply_0"], 479);
        assert_eq!(counts["yield_switch"], 551);
        assert!(parse(&lines[..4]).is_err());
        assert!(parse(&lines[2..]).is_err());
    }

    #[test]
    fn limits_are_kept() {
        let counts = Counts::from([("a".to_owned(), 103), ("b".to_owned(), 7)]);
        let limits = |must: u64, ratchet: u64| Limits {
            must: Counts::from([("a".to_owned(), must)]),
            ratchet: Counts::from([("a".to_owned(), ratchet)]),
        };
        let result = |must, ratchet| compare(Arch::Riscv64, &counts, &limits(must, ratchet));
        assert!(result(103, 100).is_ok());
        assert!(result(102, 100).is_err());
        assert!(result(103, 99).is_err());
        let missing = Counts::new();
        assert!(compare(Arch::Riscv64, &missing, &limits(103, 100)).is_err());
    }
}
